//! Lesson 13: a command that takes long, in the loop.
//!
//! Lesson 11's work needed none of the loop's data. A script needs the data, so it must run in the
//! loop's thread, and so far all clients waited for it. `SPIN ms` stands for a script. From time to
//! time SPIN runs a whole turn of the loop itself, a *nested turn*, without sleeping: clients are
//! accepted, read and answered, with `-BUSY` for everything but `KILL`, which ends the long
//! command. Two rules make nested turns safe. Nothing is borrowed while a handler runs, and the
//! loop never calls a handler that is running. The order of replies is kept, too: SPIN's own client
//! waits, so its next request does too.
//!
//!     cargo run -p ae --example 13_nested &    then    python3 ae/lessons/try.py 13

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use ae::{EventLoop, Events, Token};

mod parts;
use parts::clients::{self, Clients, Program, Reply};
use parts::data::{self, Data};
use parts::links::{self, Caller, Link};
use parts::resp;
use parts::worker::Worker;

/// The state of the program, which the loop passes to every handler.
struct Server {
    clients: Clients,
    data: Data,
    worker: Worker,
    links: HashMap<Token, Link>,
    spin: Spin,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let clients = Clients::listen(&mut el, 13)?;
    el.set_before_sleep(Some(before_sleep));
    let data = Data::new();
    let worker = Worker::start(el.waker());
    let (links, spin) = (HashMap::new(), Spin::default());
    el.run(&mut Server {
        clients,
        data,
        worker,
        links,
        spin,
    })
}

/// The work that each turn of the loop does before the poll. The worker's results come first, as
/// each of them makes a reply.
fn before_sleep(el: &mut Loop, s: &mut Server) {
    while let Ok((client, count)) = s.worker.results.try_recv() {
        clients::answer(el, s, client, &resp::integer(count));
    }
    if !s.spin.is_running {
        spin(el, s);
    }
    clients::flush(el, s);
}

/// SPIN: the client and the milliseconds of the next SPIN, and the state of the one that runs.
#[derive(Default)]
struct Spin {
    next: Option<(Token, u64)>,
    is_running: bool,
    is_killed: bool,
}

const SPIN_MS_MAX: usize = 60_000;
/// The time between two nested turns.
const DEAF: Duration = Duration::from_millis(10);
const NESTED: Events = Events::ALL
    .union(Events::DONT_WAIT)
    .union(Events::CALL_BEFORE_SLEEP);

fn spin(el: &mut Loop, s: &mut Server) {
    let Some((client, ms)) = s.spin.next.take() else {
        return;
    };
    s.spin = Spin {
        is_running: true,
        ..Spin::default()
    };
    let end = Instant::now() + Duration::from_millis(ms);
    let mut last_turn = Instant::now();
    let mut spins = 0;
    while Instant::now() < end && !s.spin.is_killed {
        spins += 1;
        if last_turn.elapsed() > DEAF {
            let _ = el.process_events(s, NESTED); // a poll that fails, fails again in `run`
            last_turn = Instant::now();
        }
    }
    s.spin.is_running = false;
    clients::answer(el, s, client, &resp::integer(spins));
}

impl Caller for Server {
    fn links(&mut self) -> &mut HashMap<Token, Link> {
        &mut self.links
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.data.get(key).map(Vec::as_slice)
    }
}

impl Program for Server {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    fn execute(el: &mut Loop, s: &mut Server, t: Token, name: &[u8], args: &[Vec<u8>]) -> Reply {
        match (name, args) {
            (b"kill", []) => {
                s.spin.is_killed = true;
                Some(resp::status("OK"))
            }
            _ if s.spin.is_running => Some(b"-BUSY a command takes long\r\n".to_vec()),
            (b"spin", _) if s.spin.next.is_some() => Some(resp::error("another SPIN waits")),
            (b"spin", [ms]) => match resp::number(ms, SPIN_MS_MAX) {
                Ok(ms) => {
                    s.spin.next = Some((t, ms as u64));
                    None
                }
                Err(_) => Some(resp::error("no number, or too large")),
            },
            (b"primes", [limit]) => match resp::number(limit, 10_000_000) {
                Ok(limit) if s.worker.requests.send((t, limit as u64)).is_ok() => None,
                _ => Some(resp::error("no number, or too large")),
            },
            (b"copyto", [port, key]) => links::copy_to(el, s, t, port, key),
            _ => Some(data::execute(&mut s.data, name, args)),
        }
    }
}
