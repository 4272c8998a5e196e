//! Lesson 12: an outgoing connection.
//!
//! The servers so far only accepted connections. A server also opens connections: a replica to its
//! primary, a node to other nodes. `COPYTO port key` sends a key to another server of these lessons
//! on this machine. A plain `connect` would wait for the peer. A non-blocking one returns at once,
//! and the socket becomes writable when the connection stands or has failed: the first `write`
//! returns the error. A timer ends the wait for a peer that never replies. `parts/worker.rs` has
//! lesson 11's code.
//!
//!     cargo run -p ae --example 12_outgoing &    then    python3 ae/lessons/try.py 12

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};

mod parts;
use parts::clients::{self, Clients, Program, Reply};
use parts::data::{self, Data};
use parts::worker::Worker;
use parts::{net, resp};

/// The state of the program, which the loop passes to every handler.
struct Server {
    clients: Clients,
    data: Data,
    worker: Worker,
    links: HashMap<Token, Link>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let clients = Clients::listen(&mut el, 12)?;
    el.set_before_sleep(Some(before_sleep));
    let data = Data::new();
    let worker = Worker::start(el.waker());
    let links = HashMap::new();
    el.run(&mut Server {
        clients,
        data,
        worker,
        links,
    })
}

/// The work that each turn of the loop does before the poll. The worker's results come first, as
/// each of them makes a reply.
fn before_sleep(el: &mut Loop, s: &mut Server) {
    while let Ok((client, count)) = s.worker.results.try_recv() {
        clients::answer(el, s, client, &resp::integer(count));
    }
    clients::flush(el, s);
}

/// A connection for one request to another server, and the client that waits for the reply.
struct Link {
    stream: mio::net::TcpStream,
    output: Vec<u8>,
    reply: Vec<u8>,
    client: Token,
}

const LINK_TIMEOUT: Duration = Duration::from_secs(2);

fn copy_to(el: &mut Loop, s: &mut Server, t: Token, port: &[u8], key: &[u8]) -> io::Result<()> {
    let no_such = |what: &'static str| io::Error::new(io::ErrorKind::NotFound, what);
    let port = resp::number(port, 65_535).map_err(|_| no_such("no such port"))?;
    let value = s.data.get(key).ok_or(no_such("no such key"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
    let stream = mio::net::TcpStream::connect(address)?; // returns before the connection stands
    let link = el.add_file(stream.as_raw_fd(), Class::First, 0)?;
    el.set_handler(link, Mask::READABLE, link_handler);
    el.set_handler(link, Mask::WRITABLE, link_handler);
    el.add_timer(LINK_TIMEOUT, link.to_raw(), timeout_handler);
    let (output, reply) = (resp::request(&[b"SET", key, value]), vec![]);
    let client = t;
    let link_state = Link {
        stream,
        output,
        reply,
        client,
    };
    s.links.insert(link, link_state);
    Ok(())
}

fn timeout_handler(el: &mut Loop, s: &mut Server, id: TimerId) -> Option<Duration> {
    let link = Token::from_raw(el.timer_data(id)?);
    end_link(el, s, link, &resp::error("a timeout"));
    None
}

fn link_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(link) = s.links.get_mut(&t) else {
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
fn end_link(el: &mut Loop, s: &mut Server, t: Token, reply: &[u8]) {
    if let Some(link) = s.links.remove(&t) {
        el.remove_file(t);
        clients::answer(el, s, link.client, reply);
    }
}

impl Program for Server {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    fn execute(el: &mut Loop, s: &mut Server, t: Token, name: &[u8], args: &[Vec<u8>]) -> Reply {
        match (name, args) {
            (b"primes", [limit]) => match resp::number(limit, 10_000_000) {
                Ok(limit) if s.worker.requests.send((t, limit as u64)).is_ok() => None,
                _ => Some(resp::error("no number, or too large")),
            },
            (b"copyto", [port, key]) => resp::later(copy_to(el, s, t, port, key)),
            _ => Some(data::execute(&mut s.data, name, args)),
        }
    }
}
