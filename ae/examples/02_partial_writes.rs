//! Echo that loses nothing.
//!
//! What 01 lacked: a socket accepts the bytes that fit into its buffer and returns `WouldBlock` for
//! the rest. So each client gets an output buffer for the rest, with a write handler until it is
//! empty. Meanwhile the client is not read: a client that does not read its replies can't send
//! more, so the memory stays bounded.
//!
//!     cargo run --example 02_partial_writes &
//!     yes | nc 127.0.0.1 7002 | (sleep 5; head -c 100m | wc -c)

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use ae::{Class, EventLoop, Io, Mask, Token};

mod net;
use net::{accept, listen, would_block};

struct Client {
    stream: TcpStream,
    output: Vec<u8>,
}

struct Server {
    listener: TcpListener,
    clients: HashMap<Token, Client>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(1024)?;
    let listener = listen(&mut el, 7002, Class::Normal, accept_handler)?;
    el.run(&mut Server {
        listener,
        clients: HashMap::new(),
    })
}

fn accept_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    match accept(el, &s.listener, Class::Normal, read_handler) {
        Ok((token, stream)) => {
            let output = Vec::new();
            s.clients.insert(token, Client { stream, output });
        }
        Err(io) => return io,
    }
    Io::More
}

fn read_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    let mut buffer = [0; 16 * 1024];
    while c.output.is_empty() {
        match c.stream.read(&mut buffer) {
            Ok(n) if n > 0 => c.output.extend_from_slice(&buffer[..n]),
            Err(error) if would_block(&error) => return Io::Drained,
            _ => return close_client(el, s, t),
        }
        if write_output(c).is_err() {
            return close_client(el, s, t);
        }
    }
    // The two handlers are bits in our own memory: no system call. `More`, because the socket may
    // have unread bytes, which the kernel has reported already.
    el.clear_handler(t, Mask::READABLE);
    el.set_handler(t, Mask::WRITABLE, write_handler);
    Io::More
}

fn write_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match write_output(c) {
        Ok(()) if !c.output.is_empty() => return Io::Drained,
        Ok(()) => {}
        Err(_) => return close_client(el, s, t),
    }
    el.clear_handler(t, Mask::WRITABLE);
    el.set_handler(t, Mask::READABLE, read_handler);
    Io::More
}

/// Writes what the socket accepts and keeps the rest.
fn write_output(c: &mut Client) -> io::Result<()> {
    while !c.output.is_empty() {
        match c.stream.write(&c.output) {
            Ok(n) => drop(c.output.drain(..n)),
            Err(error) if would_block(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    s.clients.remove(&t);
    Io::Drained
}
