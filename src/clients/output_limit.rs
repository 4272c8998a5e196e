//! `client-output-buffer-limit`: a client that does not read its replies is closed before they fill
//! the memory.
//!
//! A client above the hard limit is closed at once, a client above the soft limit after some
//! seconds. A client that has never authenticated has a small fixed limit. For a replica, the part
//! of the replication stream that has not been sent to the replica counts, too.

use crate::client::table::Net;
use crate::client::{Client, REPLY_CLASS_MAX, flag};
use crate::clients::describe;
use crate::config::ClientClass;
use crate::state::Server;

/// The most bytes of unread replies, beyond the 16 KB of the first buffer, of a client that has
/// never authenticated.
const STRANGER_MAX: u64 = 1024;

/// The hard limit of a replica's output in bytes; 0 for no limit.
fn hard_limit_of_replicas(server: &Server) -> u64 {
    match server.config.client_output_buffer_limit[ClientClass::Replica as usize].hard {
        0 => 0,
        // At least the size of the backlog, so that a partial resync of the whole backlog does not
        // exceed the limit.
        hard => hard.max(server.config.repl_backlog_size),
    }
}

/// Whether `lag`, the number of bytes of the replication stream that a replica lacks, reaches the
/// hard limit of replicas.
pub fn exceeds_replica_limit(server: &Server, lag: u64) -> bool {
    let hard = hard_limit_of_replicas(server);
    hard != 0 && lag >= hard
}

/// Closes a client whose unread replies are over the hard limit, or have been over the soft limit
/// for longer than the seconds of that limit. Most clients have no unread replies, and for them the
/// check is inlined.
#[inline]
pub fn check_output_limit(server: &mut Server, c: &mut Client) -> bool {
    let counts_otherwise = c.has(flag::REPLICA | flag::SLOT_EXPORT | flag::OVER_SOFT_LIMIT);
    if c.reply.is_below_limits() && !counts_otherwise && !server.debug.enforce_reply_list {
        return false;
    }
    check_limits(server, c)
}

fn check_limits(server: &mut Server, c: &mut Client) -> bool {
    if c.conn.is_none() || c.has(flag::CLOSE_ASAP) {
        return false;
    }
    let class = c.class();
    let mut used = c.reply.queued_memory() as u64;
    if class == ClientClass::Replica {
        used += server.replication.lag(c.reference());
    }
    if server.debug.enforce_reply_list && !c.reply.is_empty() {
        used += u64::from(REPLY_CLASS_MAX);
    }
    let limit = &server.config.client_output_buffer_limit[class as usize];
    let hard = match class {
        ClientClass::Replica => hard_limit_of_replicas(server),
        _ => limit.hard,
    };
    let stranger = !c.has(flag::EVER_AUTHENTICATED) && used > STRANGER_MAX;
    let hard = hard != 0 && used >= hard || c.reply.overflowed() || stranger;
    let mut soft = limit.soft != 0 && used >= limit.soft;
    if soft {
        if !c.has(flag::OVER_SOFT_LIMIT) {
            c.set(flag::OVER_SOFT_LIMIT);
            c.soft_limit_since_ms = server.clock.now_ms;
            soft = false;
        } else {
            soft = server.clock.now_ms - c.soft_limit_since_ms > limit.soft_seconds as i64 * 1000;
        }
    } else {
        c.clear(flag::OVER_SOFT_LIMIT);
    }
    if !hard && !soft {
        return false;
    }
    let what = describe::describe(server, c);
    log::warn!("Client {what} scheduled to be closed ASAP for overcoming of output buffer limits.");
    server.stats.output_buffer_limit_disconnections += 1;
    if class == ClientClass::Replica {
        server.replica_overran(c.reference());
    }
    Net::close_asap(&mut server.net.close_asap, c);
    true
}
