//! Lesson 10: a small Redis.
//!
//! Lesson 9 had no protocol. Bytes arrive in portions of any size, so they are collected until a
//! request is complete; a portion may also hold a thousand requests, a *pipeline*. Replies are not
//! sent by the handler that makes them, but together, by `before_sleep`: a pipeline costs one read
//! and one write. The code of lessons 6 to 9 has moved to `parts/clients.rs`, which also holds the
//! two buffers of each client, with their limits. Two commands take long, and stop all clients
//! meanwhile: PRIMES, which needs no data, and SPIN, which stands for a script (lessons 11 and 13).
//!
//!     cargo run -p ae --example 10_resp &    then    python3 ae/lessons/try.py 10

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use ae::{EventLoop, Token};

mod parts;
use parts::{
    clients::{self, Clients, Program, Reply},
    resp,
};

/// The state of the program, which the loop passes to every handler.
struct Server {
    clients: Clients,
    data: HashMap<Vec<u8>, Vec<u8>>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let clients = Clients::listen(&mut el, 10)?;
    el.set_before_sleep(Some(before_sleep));
    let data = HashMap::new();
    el.run(&mut Server { clients, data })
}

/// The work that each turn of the loop does before the poll.
fn before_sleep(el: &mut Loop, s: &mut Server) {
    clients::flush(el, s);
}

impl Program for Server {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    fn execute(_: &mut Loop, s: &mut Server, _: Token, name: &[u8], args: &[Vec<u8>]) -> Reply {
        Some(match (name, args) {
            (b"ping", []) => resp::status("PONG"),
            (b"get", [key]) => resp::bulk(s.data.get(key).map(Vec::as_slice)),
            (b"set", [key, value]) => {
                s.data.insert(key.clone(), value.clone());
                resp::status("OK")
            }
            (b"primes", [limit]) => match resp::number(limit, 10_000_000) {
                Ok(limit) => resp::integer(primes(limit as u64)),
                Err(_) => resp::error("no number, or too large"),
            },
            (b"spin", [ms]) => match resp::number(ms, 60_000) {
                Ok(ms) => resp::integer(spin(ms as u64)),
                Err(_) => resp::error("no number, or too large"),
            },
            _ => resp::error("unknown command, or wrong number of arguments"),
        })
    }
}

/// Counts the primes below `limit` by trial division, which is slow on purpose.
fn primes(limit: u64) -> u64 {
    let is_prime = |n: &u64| {
        (2..*n)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    (2..limit).filter(is_prime).count() as u64
}

/// Reads the clock for `ms` milliseconds without a pause; returns the number of readings.
fn spin(ms: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(ms);
    (0..).take_while(|_| Instant::now() < end).count() as u64
}
