//! A command that runs for a very long time lets the event loop turn now and then, so that other
//! clients get a reply: `-BUSY` for nearly all commands; SCRIPT KILL and SHUTDOWN NOSAVE work.
//!
//! ```text
//!   read_handler ── lends the loop ──> call ── EVAL ── tick ──> process_events_while_blocked
//!                                                                  | nested turns (server/busy.rs)
//! ```
//!
//! The module `execute::busy` has the lent event loop and the function that runs nested turns of
//! it; `networking` provides the loop and the function.

use std::rc::Rc;

use ae::EventLoop;

use crate::state::Server;
use crate::sys::lend::Lent;

/// A function that runs some turns of the event loop while a command runs.
pub type NestedTurns = fn(&mut EventLoop<Server>, &mut Server);

/// The event loop, as the read handler lends it to the commands that it runs.
#[derive(Default)]
pub struct LentLoop {
    /// The lent event loop is shared by `Rc`, so that the read handler can lend the loop while the
    /// server is borrowed.
    pub lent: Rc<Lent<EventLoop<Server>>>,
    /// The function that runs nested turns. `None` without an event loop: in tests, and when a file
    /// is loaded before the loop exists.
    pub turns: Option<NestedTurns>,
}

/// Serves other clients for a moment while a long command runs, if the event loop is lent.
pub fn process_events_while_blocked(server: &mut Server) {
    if let Some(turns) = server.event_loop.turns {
        let lent = server.event_loop.lent.clone();
        lent.borrow(|el| server.nested_turn(|server| turns(el, server)));
    }
    if server.shutdown.now
        && let Some(running) = &mut server.scripting.running
    {
        // SHUTDOWN NOSAVE ends the running script, whose changes will not be saved.
        running.killed = true;
    }
}
