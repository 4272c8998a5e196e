//! A command that runs for very long lets the loop turn now and then, so that other clients get an
//! answer: `-BUSY` for nearly everything, but SCRIPT KILL and SHUTDOWN NOSAVE work.
//!
//! ```text
//!   read_handler ── lends the loop ──> call ── EVAL ── tick ──> process_events_while_blocked
//!                                                                  | nested turns (server/busy.rs)
//! ```
//!
//! This room knows only that there is a loop to borrow and a function that turns it.

use std::rc::Rc;

use ae::EventLoop;

use crate::state::Server;
use crate::sys::lend::Lent;

/// Lets the loop turn while a command runs.
pub type NestedTurns = fn(&mut EventLoop<Server>, &mut Server);

/// The loop, lent by the handler that has it to the commands it runs.
#[derive(Default)]
pub struct LentLoop {
    /// Shared, so that the handler can lend the loop while it uses the server.
    pub lent: Rc<Lent<EventLoop<Server>>>,
    /// `None` without a loop: a file is being loaded before there is one, or this is a test.
    pub turns: Option<NestedTurns>,
}

/// Serve other clients for a moment, where a loop is lent.
pub fn process_events_while_blocked(server: &mut Server) {
    if let Some(turns) = server.event_loop.turns {
        let lent = server.event_loop.lent.clone();
        lent.borrow(|el| turns(el, server));
    }
    if server.shutdown.now
        && let Some(running) = &mut server.scripting.running
    {
        // SHUTDOWN NOSAVE: nothing that the script has done will be seen.
        running.killed = true;
    }
}
