//! Lesson 11: a second thread that computes.
//!
//! In lesson 10 a command that computes for a second stops all clients for a second. Work that
//! needs none of the loop's data can be done by a thread: `PRIMES n` is a message to a thread, and
//! the client waits for its reply while the loop goes on. The thread sends its result and wakes the
//! loop with a `Waker`, the one door of the loop for other threads. `before_sleep` takes the
//! results. When a result arrives, its client may be gone and the fd another client's: the *token*
//! in the message has a generation, so it names the same client or none.
//!
//!     cargo run -p ae --example 11_worker &    then    python3 ae/lessons/try.py 11

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ae::{EventLoop, Token, Waker};

mod parts;
use parts::clients::{self, Clients, Program, Reply};
use parts::data::{self, Data};
use parts::resp;

/// The state of the program, which the loop passes to every handler.
struct Server {
    clients: Clients,
    data: Data,
    worker: Worker,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let clients = Clients::listen(&mut el, 11)?;
    el.set_before_sleep(Some(before_sleep));
    let data = Data::new();
    let worker = Worker::start(el.waker());
    el.run(&mut Server {
        clients,
        data,
        worker,
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

/// The loop thread's ends of the two channels between it and the worker thread.
struct Worker {
    requests: Sender<(Token, u64)>,
    results: Receiver<(Token, u64)>,
}

impl Worker {
    fn start(waker: Waker) -> Worker {
        let (requests, to_do) = channel();
        let (done, results) = channel();
        thread::spawn(move || {
            for (client, limit) in to_do {
                if done.send((client, primes(limit))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        });
        Worker { requests, results }
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

impl Program for Server {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    fn execute(_: &mut Loop, s: &mut Server, t: Token, name: &[u8], args: &[Vec<u8>]) -> Reply {
        match (name, args) {
            (b"primes", [limit]) => match resp::number(limit, 10_000_000) {
                Ok(limit) if s.worker.requests.send((t, limit as u64)).is_ok() => None,
                _ => Some(resp::error("no number, or too large")),
            },
            _ => Some(data::execute(&mut s.data, name, args)),
        }
    }
}
