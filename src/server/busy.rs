//! A command that runs for very long lets the loop turn now and then, so that others are not left without an
//! answer: `-BUSY` for nearly everything, but SCRIPT KILL and SHUTDOWN NOSAVE work.
//!
//! ```text
//!   read_handler ── lends the loop ──> call ── EVAL ── tick ──> process_events_while_blocked
//!                                                                  | turns of files only: read, write, close
//! ```
//!
//! No timer fires and nothing expires meanwhile: the data set is in the middle of a command. The client whose
//! command it is, is out of its slot, and `ae` leaves its socket alone.

use std::rc::Rc;

use ae::{EventLoop, Events};

use crate::networking::{close, write};
use crate::server::{before_sleep, shutdown};
use crate::state::Server;
use crate::sys::lend::Lent;

/// The loop, lent by those who have it to what they call.
pub type LentLoop = Rc<Lent<EventLoop<Server>>>;

/// How often the loop turns at most, when there is always something to do.
const TURNS: usize = 4;

/// Answer those who have asked. Without a loop (a log is being replayed, a test) nobody asks.
pub fn process_events_while_blocked(server: &mut Server) {
    let lent = server.event_loop.clone();
    lent.borrow(|el| {
        for _ in 0..TURNS {
            let served = el.process_events(server, Events::FILES | Events::DONT_WAIT);
            before_sleep::write_log(server);
            write::handle_clients_with_pending_writes(el, server);
            close::free_clients_in_async_queue(el, server);
            shutdown::handle_request(server);
            if !matches!(served, Ok(1..)) {
                break;
            }
        }
    });
    if server.shutdown.now
        && let Some(running) = &mut server.scripting.running
    {
        // SHUTDOWN NOSAVE: what the script has done is not going to be seen by anybody.
        running.killed = true;
    }
}
