//! The code of lessons 6 to 9, which the lessons from 10 on use: the ready bit, partial writes with
//! backpressure, timers, budgets and classes. New in lesson 10 is that input is collected until a
//! request is complete, and that replies are sent by `flush`, before the loop sleeps.
//!
//! ```text
//!   read_handler --> input --> Program::execute --> output --> flush, write_handler
//!        ^                            |                             |
//!        +------- not while the output is long, or a reply is outstanding
//! ```
//!
//! **Limits.** A client holds one incomplete request and `OUTPUT_MAX` bytes of replies beyond one
//! reply; a client is closed after `TIMEOUT` without traffic, unless its reply is outstanding.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};

use super::{net, port, resp};

const TIMEOUT: Duration = Duration::from_secs(10);
const OUTPUT_MAX: usize = 64 * 1024;
/// The most bytes of input that a client may have: one request of the largest size and one budget.
const INPUT_MAX: usize = 2 * 1024 * 1024;

/// The reply to a request; `None` means that the reply comes later, by `answer`.
pub type Reply = Option<Vec<u8>>;

/// A lesson's program, whose clients these functions serve.
pub trait Program: Sized + 'static {
    fn clients(&mut self) -> &mut Clients;

    /// Executes a request of the client `t`; `name` is in lower case.
    fn execute(
        el: &mut EventLoop<Self>,
        s: &mut Self,
        t: Token,
        name: &[u8],
        args: &[Vec<u8>],
    ) -> Reply;
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// The number of bytes at the beginning of `input` that belong to executed requests.
    executed: usize,
    output: Vec<u8>,
    /// Whether a reply is outstanding; the client's further requests wait for it.
    is_waiting: bool,
    last_interaction: Instant,
    timer: TimerId,
}

impl Client {
    /// Backpressure: whether the client may be read and its requests executed.
    fn is_served(&self) -> bool {
        !self.is_waiting && self.output.len() < OUTPUT_MAX
    }
}

#[derive(Default)]
pub struct Clients {
    listeners: HashMap<Token, (TcpListener, Class)>,
    connected: HashMap<Token, Client>,
    /// The clients with replies that `flush` has not tried to send.
    pending_writes: Vec<Token>,
}

impl Clients {
    /// Listens on the lesson's port, and on the operator's port in `Class::First`.
    pub fn listen<P: Program>(el: &mut EventLoop<P>, lesson: u16) -> io::Result<Clients> {
        let mut clients = Clients::default();
        let operator = port::listen_for_operator(lesson)?;
        for (listener, class) in [
            (port::listen(lesson)?, Class::Normal),
            (operator, Class::First),
        ] {
            listener.set_nonblocking(true)?;
            let token = el.add_file(listener.as_raw_fd(), class, 0)?;
            el.set_handler(token, Mask::READABLE, accept_handler::<P>);
            clients.listeners.insert(token, (listener, class));
        }
        Ok(clients)
    }

    /// Takes the next request from the client's input; `Err` if the input is no request.
    fn next_request(&mut self, t: Token) -> Result<Option<Vec<Vec<u8>>>, resp::Invalid> {
        match self.connected.get_mut(&t) {
            Some(c) if c.is_served() => {
                let Some((arguments, length)) = resp::parse(&c.input[c.executed..])? else {
                    // The input keeps only the bytes of the incomplete request.
                    c.input.drain(..std::mem::take(&mut c.executed));
                    return Ok(None);
                };
                c.executed += length;
                Ok(Some(arguments))
            }
            _ => Ok(None),
        }
    }
}

fn accept_handler<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token, _: Mask) -> Io {
    let clients = s.clients();
    let (listener, class) = &clients.listeners[&t];
    let Some(stream) = net::accept(listener) else {
        return Io::Drained;
    };
    if let Ok(token) = el.add_file(stream.as_raw_fd(), *class, 0) {
        el.set_handler(token, Mask::READABLE, read_handler);
        let timer = el.add_timer(TIMEOUT, token.to_raw(), timeout_handler);
        let client = Client {
            stream,
            input: vec![],
            executed: 0,
            output: vec![],
            is_waiting: false,
            last_interaction: Instant::now(),
            timer,
        };
        clients.connected.insert(token, client);
    }
    Io::More
}

fn timeout_handler<P: Program>(el: &mut EventLoop<P>, s: &mut P, id: TimerId) -> Option<Duration> {
    let token = Token::from_raw(el.timer_data(id)?);
    let client = s.clients().connected.get(&token)?;
    let idle = client.last_interaction.elapsed();
    if client.is_waiting || idle < TIMEOUT {
        return Some(TIMEOUT.saturating_sub(idle).max(Duration::from_secs(1)));
    }
    close_client(el, s, token);
    None
}

/// Reads up to `budget()` bytes and executes all complete requests.
fn read_handler<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients().connected.get_mut(&t) else {
        return Io::Drained;
    };
    if !c.is_served() {
        el.clear_handler(t, Mask::READABLE);
        return Io::More; // the socket may have bytes, which the kernel does not report again
    }
    let mut buffer = [0; 16 * 1024];
    let mut moved = 0;
    let mut io = Io::More;
    while moved < el.budget() {
        match c.stream.read(&mut buffer) {
            Ok(n) if n > 0 => {
                moved += n;
                c.input.extend_from_slice(&buffer[..n]);
            }
            Err(error) if net::would_block(&error) => {
                io = Io::Drained;
                break;
            }
            _ => return close_client(el, s, t),
        }
    }
    c.last_interaction = Instant::now();
    if c.input.len() > INPUT_MAX {
        return close_client(el, s, t);
    }
    process_input(el, s, t);
    io
}

/// Executes the complete requests of a client, until its output is long or a reply is outstanding.
fn process_input<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token) {
    loop {
        match s.clients().next_request(t) {
            Ok(Some(request)) if request.is_empty() => {} // an empty line
            Ok(Some(request)) => {
                match P::execute(el, s, t, &request[0].to_ascii_lowercase(), &request[1..]) {
                    Some(reply) => append(s.clients(), t, &reply),
                    None => set_waiting(s.clients(), t, true),
                }
            }
            Ok(None) => return,
            Err(resp::Invalid) => {
                close_client(el, s, t);
                return;
            }
        }
    }
}

fn set_waiting(clients: &mut Clients, t: Token, is_waiting: bool) {
    if let Some(c) = clients.connected.get_mut(&t) {
        c.is_waiting = is_waiting;
    }
}

fn append(clients: &mut Clients, t: Token, reply: &[u8]) {
    if let Some(c) = clients.connected.get_mut(&t) {
        c.output.extend_from_slice(reply);
        clients.pending_writes.push(t);
    }
}

/// Sends the outstanding reply of a client. The client may be gone: its token then names no client,
/// even if the kernel has given its fd to another client.
pub fn answer<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token, reply: &[u8]) {
    set_waiting(s.clients(), t, false);
    append(s.clients(), t, reply);
    resume(el, s, t);
}

/// Executes the client's requests that have waited, and lets the loop read the client again.
fn resume<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token) {
    process_input(el, s, t);
    if s.clients().connected.contains_key(&t) {
        el.set_handler(t, Mask::READABLE, read_handler);
    }
}

/// Sends the replies: a pipeline of requests costs one write. `flush` is called before the loop
/// sleeps.
pub fn flush<P: Program>(el: &mut EventLoop<P>, s: &mut P) {
    for t in std::mem::take(&mut s.clients().pending_writes) {
        if write_handler(el, s, t, Mask::WRITABLE) == Io::More {
            el.mark_ready(t, Mask::WRITABLE);
        }
    }
}

/// Writes what the socket accepts. Bytes that it does not accept wait for the next writable edge.
fn write_handler<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients().connected.get_mut(&t) else {
        return Io::Drained;
    };
    while !c.output.is_empty() {
        match c.stream.write(&c.output) {
            Ok(n) => drop(c.output.drain(..n)),
            Err(error) if net::would_block(&error) => {
                el.set_handler(t, Mask::WRITABLE, write_handler);
                return Io::Drained;
            }
            Err(_) => return close_client(el, s, t),
        }
    }
    c.last_interaction = Instant::now();
    el.clear_handler(t, Mask::WRITABLE);
    resume(el, s, t);
    let has_more = |c: &Client| !c.output.is_empty();
    if s.clients().connected.get(&t).is_some_and(has_more) {
        el.set_handler(t, Mask::WRITABLE, write_handler);
        return Io::More;
    }
    Io::Drained
}

fn close_client<P: Program>(el: &mut EventLoop<P>, s: &mut P, t: Token) -> Io {
    el.remove_file(t);
    if let Some(client) = s.clients().connected.remove(&t) {
        el.delete_timer(client.timer);
    }
    Io::Drained
}
