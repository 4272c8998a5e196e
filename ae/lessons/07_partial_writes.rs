//! Lesson 7: an echo server that loses no bytes and buffers few.
//!
//! Lesson 6 lost the bytes that did not fit into a socket. Here each client has an output buffer
//! for such bytes, and the handler reads and writes: it writes what is buffered, and reads only
//! when the buffer is empty. That is *backpressure*: a client that does not read its replies is not
//! read either, its own socket fills up, and its sender must wait. The output buffer never holds
//! more than one read.
//!
//!     cargo run -p ae --example 07_partial_writes &    then    python3 ae/lessons/try.py 7

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use ae::{Class, EventLoop, Io, Mask, Token};

mod parts;
use parts::{net, port};

struct Client {
    stream: TcpStream,
    output: Vec<u8>,
}

/// The state of the program, which the loop passes to every handler.
struct Server {
    listener: TcpListener,
    clients: HashMap<Token, Client>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let listener = port::listen(7)?;
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
        el.set_handler(token, Mask::WRITABLE, io_handler);
        s.clients.insert(
            token,
            Client {
                stream,
                output: vec![],
            },
        );
    }
    Io::More
}

/// Reads and writes a client's socket. A write handler is free: an idle socket is reported once.
fn io_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(client) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match echo(client) {
        Err(error) if net::would_block(&error) => Io::Drained,
        _ => close_client(el, s, t),
    }
}

/// Writes and reads until a call would wait, which is `WouldBlock`: an edge in either direction
/// lets it go on. Returns `Ok` when the client has closed its connection.
fn echo(c: &mut Client) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        while !c.output.is_empty() {
            let n = c.stream.write(&c.output)?;
            c.output.drain(..n);
        }
        match c.stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => c.output.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Removes the fd from the loop, then closes it: the kernel gives its number to the next socket.
fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    s.clients.remove(&t);
    Io::Drained
}
