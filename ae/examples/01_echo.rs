//! Echo: many clients, one thread.
//!
//! What plain `std::net` lacks: `read` waits for *one* client, so each client needs a thread of its
//! own. Here one poll waits for all clients, and a handler runs only when its socket is readable.
//!
//!     cargo run --example 01_echo &  then  nc 127.0.0.1 7001

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use ae::{Class, EventLoop, Io, Mask, Token};

/// The state of the program, which the loop passes to every handler.
struct Server {
    listener: TcpListener,
    clients: HashMap<Token, TcpStream>,
}

fn main() -> io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(7001);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let mut el = EventLoop::new(1024)?;
    let token = el.add_file(listener.as_raw_fd(), Class::Normal, 0)?;
    el.set_handler(token, Mask::READABLE, accept_handler);
    el.run(&mut Server {
        listener,
        clients: HashMap::new(),
    })
}

/// The kernel reports a single edge for any number of new clients, so this accepts until there is
/// none left.
fn accept_handler(el: &mut EventLoop<Server>, s: &mut Server, _: Token, _: Mask) -> Io {
    loop {
        match s.listener.accept() {
            Ok((stream, peer)) => {
                if let Err(error) = create_client(el, s, stream) {
                    eprintln!("{peer}: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Io::Drained,
            Err(error) => {
                eprintln!("accept: {error}");
                return Io::More; // aborted by the peer, or no fd left: further connections may be in the backlog
            }
        }
    }
}

fn create_client(el: &mut EventLoop<Server>, s: &mut Server, stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let token = el.add_file(stream.as_raw_fd(), Class::Normal, 0)?;
    el.set_handler(token, Mask::READABLE, echo_handler);
    s.clients.insert(token, stream);
    Ok(())
}

fn echo_handler(el: &mut EventLoop<Server>, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(stream) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match echo(stream) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(_) => close_client(el, s, t),
    }
    Io::Drained
}

/// Reads until the socket is empty. `write_all` is the mistake of this lesson, as the socket does
/// not block: when a peer sends without reading, its socket fills up, and the rest of the buffer is
/// lost.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

/// The fd is removed from the loop before it is closed: see `remove_file`.
fn close_client(el: &mut EventLoop<Server>, s: &mut Server, t: Token) {
    el.remove_file(t);
    s.clients.remove(&t);
}
