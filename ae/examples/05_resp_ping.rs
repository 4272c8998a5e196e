//! A server with Redis's protocol and the command PING.
//!
//! What 04 lacked: a protocol. Bytes arrive in portions of any size and are collected in `querybuf`
//! until a request is complete. Replies are sent together: handlers append, `before_sleep` writes,
//! so a pipeline costs one system call. The real server works likewise.
//!
//!     cargo run --release --example 05_resp_ping &  then  redis-benchmark -p 7005 -t ping -P 16

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use ae::{Class, EventLoop, Io, Mask, Token};

mod net;
use net::{accept, listen, would_block};
#[path = "net/resp.rs"]
mod resp;

struct Client {
    stream: TcpStream,
    querybuf: Vec<u8>,
    reply: Vec<u8>,
}

struct Server {
    listener: TcpListener,
    clients: HashMap<Token, Client>,
    pending_writes: Vec<Token>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(1024)?;
    let listener = listen(&mut el, 7005, Class::Normal, accept_handler)?;
    el.set_before_sleep(Some(before_sleep));
    el.run(&mut Server {
        listener,
        clients: HashMap::new(),
        pending_writes: vec![],
    })
}

fn accept_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    match accept(el, &s.listener, Class::Normal, read_handler) {
        Ok((token, stream)) => {
            let (querybuf, reply) = (vec![], vec![]);
            s.clients.insert(
                token,
                Client {
                    stream,
                    querybuf,
                    reply,
                },
            );
        }
        Err(io) => return io,
    }
    Io::More
}

/// One read in each turn. A short read has emptied the socket, so no second read is needed to get
/// `WouldBlock`.
fn read_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    let mut buffer = [0; 16 * 1024];
    match c.stream.read(&mut buffer) {
        Ok(n) if n > 0 => {
            c.querybuf.extend_from_slice(&buffer[..n]);
            process_input_buffer(c);
            s.pending_writes.push(t);
            if n == buffer.len() {
                Io::More
            } else {
                Io::Drained
            }
        }
        Err(error) if would_block(&error) => Io::Drained,
        _ => close_client(el, s, t),
    }
}

/// Replies to every complete request and keeps the incomplete rest.
fn process_input_buffer(c: &mut Client) {
    let mut rest = c.querybuf.as_slice();
    while let Some((name, after)) = resp::parse(rest) {
        let ping = name.eq_ignore_ascii_case(b"ping");
        let reply = if ping {
            "+PONG\r\n"
        } else {
            "-ERR unknown\r\n"
        };
        c.reply.extend(reply.as_bytes());
        rest = after;
    }
    c.querybuf.drain(..c.querybuf.len() - rest.len());
}

fn before_sleep(el: &mut Loop, s: &mut Server) {
    while let Some(t) = s.pending_writes.pop() {
        write_handler(el, s, t, Mask::WRITABLE);
    }
}

/// Called by `before_sleep`, and by the loop when a socket that was full is writable again.
fn write_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match c.stream.write(&c.reply) {
        Ok(n) => drop(c.reply.drain(..n)),
        Err(error) if would_block(&error) => {}
        Err(_) => return close_client(el, s, t),
    }
    if c.reply.is_empty() {
        el.clear_handler(t, Mask::WRITABLE);
    } else {
        el.set_handler(t, Mask::WRITABLE, write_handler);
    }
    Io::Drained
}

fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    s.clients.remove(&t);
    Io::Drained
}
