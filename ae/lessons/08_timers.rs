//! Lesson 8: timers.
//!
//! Lesson 7 kept a client that sends nothing, or never reads its reply, for ever. Here each client
//! has a timer, whose number is the client's token. Traffic does not move a timer: the handlers
//! note the time, and a timer that fires closes an idle client or is set for the rest of the time.
//! A busy client costs one timer call in ten seconds, not one for each request.
//!
//!     cargo run -p ae --example 08_timers &    then    python3 ae/lessons/try.py 8

use std::collections::HashMap;
use std::io::{self, Read, Write};
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
    listener: TcpListener,
    clients: HashMap<Token, Client>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let listener = port::listen(8)?;
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
            c.last_interaction = Instant::now();
        }
        match c.stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => c.output.extend_from_slice(&buffer[..n]),
        }
        c.last_interaction = Instant::now();
    }
}

/// Removes the fd from the loop, then closes it: the kernel gives its number to the next socket.
fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    if let Some(client) = s.clients.remove(&t) {
        el.delete_timer(client.timer);
    }
    Io::Drained
}
