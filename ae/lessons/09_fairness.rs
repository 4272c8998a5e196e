//! Lesson 9: the clients share a turn of the loop.
//!
//! Lesson 8 served a client until its socket was empty, and the socket of a fast client never is:
//! one client could occupy the loop. Here a handler moves at most `el.budget()` bytes, returns
//! `More`, and is called again after all other ready clients were served. Connections to the
//! operator's port (the lesson's port + 100) matter more: `Class::First` is served first in each
//! turn.
//!
//!     cargo run -p ae --example 09_fairness &    then    python3 ae/lessons/try.py 9

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};

mod parts;
use parts::{net, port};

/// A client without traffic for `TIMEOUT` is closed.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Client {
    stream: TcpStream,
    output: Vec<u8>,
    last_interaction: Instant,
    timer: TimerId,
}

/// The state of the program, which the loop passes to every handler.
struct Server {
    listeners: HashMap<Token, (TcpListener, Class)>,
    clients: HashMap<Token, Client>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let mut listeners = HashMap::new();
    let (clients, operator) = (port::listen(9)?, port::listen_for_operator(9)?);
    for (listener, class) in [(clients, Class::Normal), (operator, Class::First)] {
        listener.set_nonblocking(true)?;
        let token = el.add_file(listener.as_raw_fd(), class, 0)?;
        el.set_handler(token, Mask::READABLE, accept_handler);
        listeners.insert(token, (listener, class));
    }
    el.run(&mut Server {
        listeners,
        clients: HashMap::new(),
    })
}

/// Accepts one client in each call: one edge stands for any number of new clients.
fn accept_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let (listener, class) = &s.listeners[&t];
    let Some(stream) = net::accept(listener) else {
        return Io::Drained;
    };
    if let Ok(token) = el.add_file(stream.as_raw_fd(), *class, 0) {
        el.set_handler(token, Mask::READABLE, io_handler);
        el.set_handler(token, Mask::WRITABLE, io_handler);
        let timer = el.add_timer(TIMEOUT, token.to_raw(), timeout_handler);
        let (output, last_interaction) = (vec![], Instant::now());
        s.clients.insert(
            token,
            Client {
                stream,
                output,
                last_interaction,
                timer,
            },
        );
    }
    Io::More
}

/// Returns the time until the next call of the timer; `None` ends the timer.
fn timeout_handler(el: &mut Loop, s: &mut Server, id: TimerId) -> Option<Duration> {
    let token = Token::from_raw(el.timer_data(id)?);
    let idle = s.clients.get(&token)?.last_interaction.elapsed();
    if idle < TIMEOUT {
        return Some(TIMEOUT - idle);
    }
    close_client(el, s, token);
    None
}

/// Reads and writes a client's socket. A write handler is free: an idle socket is reported once.
fn io_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(client) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match echo(client, el.budget()) {
        Ok(()) => Io::More,
        Err(error) if net::would_block(&error) => Io::Drained,
        Err(_) => close_client(el, s, t),
    }
}

/// Writes and reads until a call would wait, which is `WouldBlock`: an edge in either direction
/// lets it go on. Returns `Ok` when the budget is used up, and another error when the client is to
/// be closed.
fn echo(c: &mut Client, budget: usize) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut moved = 0;
    while moved < budget {
        while !c.output.is_empty() {
            let n = c.stream.write(&c.output)?;
            c.output.drain(..n);
            c.last_interaction = Instant::now();
        }
        match c.stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => {
                moved += n;
                c.output.extend_from_slice(&buffer[..n]);
            }
        }
        c.last_interaction = Instant::now();
    }
    Ok(())
}

/// Removes the fd from the loop, then closes it: the kernel gives its number to the next socket.
fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    if let Some(client) = s.clients.remove(&t) {
        el.delete_timer(client.timer);
    }
    Io::Drained
}
