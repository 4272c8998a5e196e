//! The code of lesson 12: outgoing connections.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};

use super::clients::{self, Program, Reply};
use super::{net, resp};

/// A lesson's program that connects to other servers.
pub trait Caller: Program {
    fn links(&mut self) -> &mut HashMap<Token, Link>;
    fn value(&self, key: &[u8]) -> Option<&[u8]>;
}

/// A connection for one request to another server, and the client that waits for the reply.
pub struct Link {
    stream: mio::net::TcpStream,
    output: Vec<u8>,
    reply: Vec<u8>,
    client: Token,
}

const LINK_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends a key to the server on a port of this machine; its reply is the answer to the client `t`.
pub fn copy_to<P: Caller>(
    el: &mut EventLoop<P>,
    s: &mut P,
    t: Token,
    port: &[u8],
    key: &[u8],
) -> Reply {
    resp::later(start(el, s, t, port, key))
}

fn start<P: Caller>(
    el: &mut EventLoop<P>,
    s: &mut P,
    t: Token,
    port: &[u8],
    key: &[u8],
) -> io::Result<()> {
    let no_such = |what: &'static str| io::Error::new(io::ErrorKind::NotFound, what);
    let port = resp::number(port, 65_535).map_err(|_| no_such("no such port"))?;
    let value = s.value(key).ok_or(no_such("no such key"))?;
    let request = resp::request(&[b"SET", key, value]);
    let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
    let stream = mio::net::TcpStream::connect(address)?; // returns before the connection stands
    let link = el.add_file(stream.as_raw_fd(), Class::First, 0)?;
    el.set_handler(link, Mask::READABLE, link_handler);
    el.set_handler(link, Mask::WRITABLE, link_handler);
    el.add_timer(LINK_TIMEOUT, link.to_raw(), timeout_handler);
    let (output, reply) = (request, vec![]);
    s.links().insert(
        link,
        Link {
            stream,
            output,
            reply,
            client: t,
        },
    );
    Ok(())
}

fn timeout_handler<P: Caller>(el: &mut EventLoop<P>, s: &mut P, id: TimerId) -> Option<Duration> {
    let link = Token::from_raw(el.timer_data(id)?);
    end_link(el, s, link, &resp::error("a timeout"));
    None
}

fn link_handler<P: Caller>(el: &mut EventLoop<P>, s: &mut P, t: Token, _: Mask) -> Io {
    let Some(link) = s.links().get_mut(&t) else {
        return Io::Drained;
    };
    match exchange(link) {
        Ok(reply) => end_link(el, s, t, &reply),
        Err(error) if net::would_block(&error) => {}
        Err(error) => end_link(el, s, t, &resp::error(&error.to_string())),
    }
    Io::Drained
}

/// Sends the request and reads the reply, one line; `WouldBlock` until the reply is complete.
fn exchange(link: &mut Link) -> io::Result<Vec<u8>> {
    while !link.output.is_empty() {
        let n = link.stream.write(&link.output)?;
        link.output.drain(..n);
    }
    let mut buffer = [0; 256];
    while !link.reply.ends_with(b"\n") {
        match link.stream.read(&mut buffer)? {
            n if n > 0 && link.reply.len() < 1024 => link.reply.extend_from_slice(&buffer[..n]),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(std::mem::take(&mut link.reply))
}

/// Ends a link, unless it has ended already, and passes `reply` to the client that waits for it.
fn end_link<P: Caller>(el: &mut EventLoop<P>, s: &mut P, t: Token, reply: &[u8]) {
    if let Some(link) = s.links().remove(&t) {
        el.remove_file(t);
        clients::answer(el, s, link.client, reply);
    }
}
