//! Removes a client from all tables of the server that refer to it: those of blocked clients,
//! watched keys, subscriptions, MONITOR, tracking and replicas.

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::clients::memory;
use crate::execute::blocked;
use crate::keyspace::watch;
use crate::observe::monitor;
use crate::pubsub;
use crate::replication;
use crate::state::Server;
use crate::tracking;

/// Ends a client for CLIENT KILL or the eviction of clients. The connection is shut down at once,
/// so that its peer notices the end before other clients get the replies of this turn; the socket
/// is closed at the end of the turn.
pub fn kill(server: &mut Server, c: &mut Client) {
    unlink(server, c);
    if let Some(conn) = &mut c.conn {
        conn.shut_down();
    }
    Net::close_asap(&mut server.net.close_asap, c);
}

/// Removes a client from all tables of the server that refer to it: those of blocked clients,
/// watched keys, subscriptions, MONITOR, tracking and replicas.
pub fn unlink(server: &mut Server, c: &mut Client) {
    let r = c.reference();
    blocked::forget(server, c);
    watch::unwatch_all(server, c);
    pubsub::forget_client(server, c);
    monitor::stop(server, c);
    tracking::stop(server, c);
    memory::forget(server, c);
    if c.has(flag::REPLICA) {
        replication::left(server, r);
    }
    if c.has(flag::PRIMARY) {
        replication::primary_left(server, c);
    }
    if c.has(flag::SLOT_LINK)
        && let Some(member) = &mut server.cluster
    {
        let now = member.now();
        member.transfers.link_lost(now, c.id);
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
