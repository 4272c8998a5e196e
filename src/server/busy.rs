//! Nested turns: turns of the loop that run within a long-running command.
//!
//! Nested turns serve sockets only: read, write, close. In a nested turn no timer fires and no key
//! expires, since the data set is in the middle of a command. Defragmentation runs in nested turns
//! only while a data set is being loaded. The client whose command runs is out of its slot, and
//! `ae` does not serve its socket. `execute::busy` calls [`nested_turns`] through a function
//! pointer.

use ae::{EventLoop, Events};

use crate::networking::{bus, close, write};
use crate::server::{before_sleep, defrag, shutdown, supervisor};
use crate::state::Server;

/// The maximum number of nested turns in one call of `nested_turns`, even if sockets are still
/// ready.
const TURNS: usize = 4;

/// Serves the sockets that are ready: a few turns, without waiting.
pub fn nested_turns(el: &mut EventLoop<Server>, server: &mut Server) {
    for _ in 0..TURNS {
        let served = el.process_events(server, Events::FILES | Events::DONT_WAIT);
        before_sleep::write_aof(server);
        write::handle_clients_with_pending_writes(el, server);
        close::free_clients_in_async_queue(el, server);
        if server.cluster.is_some() {
            bus::serve(el, server);
        }
        shutdown::handle_request(server);
        supervisor::ping(server);
        defrag::while_loading(server);
        if !matches!(served, Ok(1..)) {
            break;
        }
    }
}
