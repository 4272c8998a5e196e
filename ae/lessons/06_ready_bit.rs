//! Lesson 6: a bit that remembers the edge.
//!
//! Lesson 5 lost what it did not read at once. The cure is memory: the loop keeps a *ready bit* for
//! each fd and direction. An edge sets the bit, and the loop clears it before it calls the handler.
//! `More` sets it again: bytes may be left, so the handler is called in the next turn, without a
//! system call. `Drained` leaves it as it is: the last read would have waited, and the next edge
//! sets the bit. `ae::EventLoop` is such a loop; `ae/src/files.rs` keeps its ready bits.
//!
//!     cargo run -p ae --example 06_ready_bit &    then    python3 ae/lessons/try.py 6

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use ae::{Class, EventLoop, Io, Mask, Token};

mod parts;
use parts::{net, port};

/// The state of the program, which the loop passes to every handler.
struct Server {
    listener: TcpListener,
    clients: HashMap<Token, TcpStream>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let listener = port::listen(6)?;
    listener.set_nonblocking(true)?;
    let mut el = EventLoop::new(20_000)?;
    let token = el.add_file(listener.as_raw_fd(), Class::Normal, 0)?;
    el.set_handler(token, Mask::READABLE, accept_handler);
    el.run(&mut Server {
        listener,
        clients: HashMap::new(),
    })
}

/// Accepts one client in each call: one edge stands for any number of new clients.
fn accept_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    let Some(stream) = net::accept(&s.listener) else {
        return Io::Drained;
    };
    if let Ok(token) = el.add_file(stream.as_raw_fd(), Class::Normal, 0) {
        el.set_handler(token, Mask::READABLE, io_handler);
        s.clients.insert(token, stream);
    }
    Io::More
}

fn io_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(client) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match echo(client) {
        Ok(()) => Io::More,
        Err(error) if net::would_block(&error) => Io::Drained,
        Err(_) => close_client(el, s, t),
    }
}

/// Echoes what one `read` returns; `WouldBlock` means that the socket is empty, another error that
/// the client is to be closed.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        n => lose_the_rest(stream.write_all(&buffer[..n])),
    }
}

/// Ignores that a socket is full: the bytes that did not fit are lost until lesson 7 keeps them.
fn lose_the_rest(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if net::would_block(&error) => Ok(()),
        other => other,
    }
}

/// Removes the fd from the loop, then closes it: the kernel gives its number to the next socket.
fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    s.clients.remove(&t);
    Io::Drained
}
