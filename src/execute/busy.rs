//! A command that runs for a very long time lets the event loop turn now and then, so that other
//! clients get a reply: `-BUSY` for nearly all commands; SCRIPT KILL and SHUTDOWN NOSAVE work.
//!
//! ```text
//!   read_handler ── lends the loop ──> call ── EVAL ── tick ──> process_events_while_blocked
//!                                                                  | nested turns (server/busy.rs)
//! ```
//!
//! This module has the borrowed loop and the function that runs its turns; networking provides
//! both.

use std::rc::Rc;

use ae::EventLoop;

use crate::state::Server;
use crate::sys::lend::Lent;

/// Runs some turns of the loop while a command runs.
pub type NestedTurns = fn(&mut EventLoop<Server>, &mut Server);

/// The loop, lent to the commands by the handler that runs them.
#[derive(Default)]
pub struct LentLoop {
    /// Shared, so that the handler can lend the loop while it borrows the server.
    pub lent: Rc<Lent<EventLoop<Server>>>,
    /// `None` without a loop: in tests, and when a file is loaded before the loop exists.
    pub turns: Option<NestedTurns>,
}

/// Serves other clients for a moment, if a loop is lent.
pub fn process_events_while_blocked(server: &mut Server) {
    if let Some(turns) = server.event_loop.turns {
        let lent = server.event_loop.lent.clone();
        lent.borrow(|el| server.nested_turn(|server| turns(el, server)));
    }
    if server.shutdown.now
        && let Some(running) = &mut server.scripting.running
    {
        // SHUTDOWN NOSAVE ends the script: its changes will not be saved.
        running.killed = true;
    }
}
