//! Removes a client from everything that refers to it.

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::state::Server;

/// CLIENT KILL and eviction of clients: look-ups don't find this client any more. Its socket is
/// closed at the end of the turn.
pub fn kill(server: &mut Server, c: &mut Client) {
    unlink(server, c);
    Net::close_asap(&mut server.net.close_asap, c);
}

/// Removes a client from everything that refers to it.
pub fn unlink(server: &mut Server, c: &mut Client) {
    let r = c.reference();
    crate::execute::blocked::forget(server, c);
    crate::keyspace::watch::unwatch_all(server, c);
    crate::pubsub::forget_client(server, c);
    crate::observe::monitor::stop(server, c);
    crate::tracking::stop(server, c);
    crate::clients::memory::forget(server, c);
    if c.has(flag::REPLICA) {
        crate::replication::left(server, r);
    }
    if c.has(flag::PRIMARY) {
        crate::replication::primary_left(server, c);
    }
    if c.has(flag::PENDING_WRITE) {
        c.clear(flag::PENDING_WRITE);
        server.net.pending_write.retain(|&slot| slot != c.slot);
        server.gate.forget(c.slot);
    }
    if c.has(flag::UNBLOCKED) {
        c.clear(flag::UNBLOCKED);
        server.blocked.unblocked.retain(|u| *u != r);
    }
}
