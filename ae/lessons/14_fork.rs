//! Lesson 14: a snapshot of a data set that changes.
//!
//! Lesson 13 let clients in while a command ran, but a snapshot must not see half of what they
//! write. `fork` makes a second process with the same memory: the kernel shares the pages and
//! copies a page when one of the two writes to it (*copy on write*). `SAVE` forks; the child writes
//! the data set as it was at the fork, while the parent goes on and a timer asks whether the child
//! has ended. SAVE's reply is the number of pages copied or mapped meanwhile. The child never
//! touches the loop: its epoll is the parent's. `parts/spin.rs` has lesson 13's code.
//!
//!     cargo run -p ae --example 14_fork &    then    python3 ae/lessons/try.py 14

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use nix::unistd::Pid;

use ae::{EventLoop, TimerId, Token};

mod parts;
use parts::clients::{self, Clients, Program, Reply};
use parts::data::{self, Data};
use parts::links::{self, Caller, Link};
use parts::spin::{self, Spin, Spinner};
use parts::worker::Worker;
use parts::{fork, resp};

/// The state of the program, which the loop passes to every handler.
struct Server {
    clients: Clients,
    data: Data,
    worker: Worker,
    links: HashMap<Token, Link>,
    spin: Spin,
    save: Option<Save>,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(20_000)?;
    let clients = Clients::listen(&mut el, 14)?;
    el.set_before_sleep(Some(before_sleep));
    let data = Data::new();
    let worker = Worker::start(el.waker());
    let (links, spin, save) = (HashMap::new(), Spin::default(), None);
    el.run(&mut Server {
        clients,
        data,
        worker,
        links,
        spin,
        save,
    })
}

/// The work that each turn of the loop does before the poll. The worker's results come first, as
/// each of them makes a reply.
fn before_sleep(el: &mut Loop, s: &mut Server) {
    while let Ok((client, count)) = s.worker.results.try_recv() {
        clients::answer(el, s, client, &resp::integer(count));
    }
    spin::spin(el, s);
    clients::flush(el, s);
}

/// A child that writes the data set, the client that waits, and the page faults before the fork.
struct Save {
    child: Pid,
    client: Token,
    faults: i64,
}

const ASK: Duration = Duration::from_millis(10);

/// `SAVE`: the child sees the data set as at the fork, whatever the parent changes later.
fn save(el: &mut Loop, s: &mut Server, client: Token) -> io::Result<()> {
    let mut file = File::create("lesson.snapshot")?;
    let data = &s.data;
    let faults = fork::page_faults();
    let child = fork::in_child(|| {
        for (key, value) in data {
            for part in [key, &b" "[..], value, b"\n"] {
                file.write_all(part)?;
            }
        }
        file.sync_all()
    })?;
    s.save = Some(Save {
        child,
        client,
        faults,
    });
    el.add_timer(ASK, 0, save_handler);
    Ok(())
}

fn save_handler(el: &mut Loop, s: &mut Server, _: TimerId) -> Option<Duration> {
    let Some(ok) = fork::has_ended(s.save.as_ref()?.child) else {
        return Some(ASK);
    };
    let save = s.save.take()?;
    let pages = fork::page_faults() - save.faults;
    let reply = if ok {
        resp::integer(pages as u64)
    } else {
        resp::error("the child failed")
    };
    clients::answer(el, s, save.client, &reply);
    None
}

impl Spinner for Server {
    fn spin(&mut self) -> &mut Spin {
        &mut self.spin
    }
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
        if let Some(reply) = spin::execute(s, t, name, args) {
            return reply;
        }
        match (name, args) {
            (b"save", []) if s.save.is_none() => resp::later(save(el, s, t)),
            (b"primes", [limit]) => match resp::number(limit, 10_000_000) {
                Ok(limit) if s.worker.requests.send((t, limit as u64)).is_ok() => None,
                _ => Some(resp::error("no number, or too large")),
            },
            (b"copyto", [port, key]) => links::copy_to(el, s, t, port, key),
            _ => Some(data::execute(&mut s.data, name, args)),
        }
    }
}
