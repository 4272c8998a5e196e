//! The code of lesson 13: a command that takes long, and nested turns.

use std::time::{Duration, Instant};

use ae::{EventLoop, Events, Token};

use super::clients::{self, Program, Reply};
use super::resp;

/// A lesson's program that has the long command SPIN.
pub trait Spinner: Program {
    fn spin(&mut self) -> &mut Spin;
}

/// SPIN: the client and the milliseconds of the next SPIN, and the state of the one that runs.
#[derive(Default)]
pub struct Spin {
    pub next: Option<(Token, u64)>,
    pub is_running: bool,
    is_killed: bool,
}

const SPIN_MS_MAX: usize = 60_000;
/// The time between two nested turns.
const DEAF: Duration = Duration::from_millis(10);
const NESTED: Events = Events::ALL
    .union(Events::DONT_WAIT)
    .union(Events::CALL_BEFORE_SLEEP);

/// Runs the SPIN that waits, if there is one and no other SPIN runs.
pub fn spin<P: Spinner>(el: &mut EventLoop<P>, s: &mut P) {
    if s.spin().is_running {
        return;
    }
    let Some((client, ms)) = s.spin().next.take() else {
        return;
    };
    *s.spin() = Spin {
        is_running: true,
        ..Spin::default()
    };
    let end = Instant::now() + Duration::from_millis(ms);
    let mut last_turn = Instant::now();
    let mut spins = 0;
    while Instant::now() < end && !s.spin().is_killed {
        spins += 1;
        if last_turn.elapsed() > DEAF {
            let _ = el.process_events(s, NESTED); // a poll that fails, fails again in `run`
            last_turn = Instant::now();
        }
    }
    s.spin().is_running = false;
    clients::answer(el, s, client, &resp::integer(spins));
}

/// The commands SPIN and KILL, and `-BUSY` while SPIN runs; `None` for another command.
pub fn execute<P: Spinner>(s: &mut P, t: Token, name: &[u8], args: &[Vec<u8>]) -> Option<Reply> {
    let spin = s.spin();
    match (name, args) {
        (b"kill", []) => {
            spin.is_killed = true;
            Some(Some(resp::status("OK")))
        }
        _ if spin.is_running => Some(Some(b"-BUSY a command takes long\r\n".to_vec())),
        (b"spin", _) if spin.next.is_some() => Some(Some(resp::error("another SPIN waits"))),
        (b"spin", [ms]) => match resp::number(ms, SPIN_MS_MAX) {
            Ok(ms) => {
                spin.next = Some((t, ms as u64));
                Some(None)
            }
            Err(_) => Some(Some(resp::error("no number, or too large"))),
        },
        _ => None,
    }
}
