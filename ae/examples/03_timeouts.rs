//! Echo with timeouts.
//!
//! What 02 lacked: a client that sends nothing, or never reads its reply, stays connected for ever.
//! Here each client has a timer, whose `data` is the token. Requests do not change the timer: the
//! handlers note the time, and the timer, when it fires, closes an idle client or sets itself for
//! the rest of the time. So a busy client costs one timer call in ten seconds, not one for each
//! request.
//!
//!     cargo run --example 03_timeouts &  then  nc 127.0.0.1 7003, and wait

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};

mod net;
use net::{accept, listen, would_block};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Client {
    stream: TcpStream,
    output: Vec<u8>,
    last_interaction: Instant,
    timer: TimerId,
}

struct Server {
    listener: TcpListener,
    clients: HashMap<Token, Client>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(1024)?;
    let listener = listen(&mut el, 7003, Class::Normal, accept_handler)?;
    el.run(&mut Server {
        listener,
        clients: HashMap::new(),
    })
}

fn accept_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    match accept(el, &s.listener, Class::Normal, io_handler) {
        Ok((token, stream)) => {
            el.set_handler(token, Mask::WRITABLE, io_handler);
            let timer = el.add_timer(TIMEOUT, token.to_raw(), timeout_handler);
            let (output, last_interaction) = (Vec::new(), Instant::now());
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
        Err(io) => return io,
    }
    Io::More
}

/// `None` ends the timer; `Some` is the time until its next call.
fn timeout_handler(el: &mut Loop, s: &mut Server, id: TimerId) -> Option<Duration> {
    let token = Token::from_raw(el.timer_data(id)?);
    let idle = s.clients.get(&token)?.last_interaction.elapsed();
    if idle < TIMEOUT {
        return Some(TIMEOUT - idle);
    }
    close_client(el, s, token);
    None
}

/// The handler for both directions. With edges that is cheap: an idle, writable socket is reported
/// once only.
fn io_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(c) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match echo(c) {
        Ok(()) => Io::Drained,
        Err(error) if would_block(&error) => Io::Drained,
        Err(_) => close_client(el, s, t),
    }
}

/// Writes the buffered bytes, then reads more, until one of the two would block. An edge in either
/// direction resumes it.
fn echo(c: &mut Client) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        while !c.output.is_empty() {
            let n = c.stream.write(&c.output)?;
            c.output.drain(..n);
            c.last_interaction = Instant::now();
        }
        match c.stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => c.output.extend_from_slice(&buffer[..n]),
        }
        c.last_interaction = Instant::now();
    }
}

/// Also called from the client's own timer: the return value of a deleted timer is ignored.
fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    if let Some(c) = s.clients.remove(&t) {
        el.delete_timer(c.timer);
    }
    Io::Drained
}
