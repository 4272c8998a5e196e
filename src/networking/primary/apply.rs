//! Applies the primary's replication stream: each command is executed like that of a client, and
//! its bytes are appended unchanged to the replication stream for this server's own replicas.
//!
//! ```text
//!   SET k v           ─> runs ─> stream.append
//!   MULTI INCR a ..   ─> unit ┐
//!   .. EXEC           ─> runs ─> stream.append(unit)
//! ```
//!
//! **Invariant:** between two reads, the number of bytes received from the primary is the sum of
//! the bytes that were appended to this server's stream, those of an incomplete transaction
//! (`unit`), and those that are not parsed yet: [`check`] closes a link whose bytes do not add up.

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::ds::bulk::push_command;
use crate::state::Server;

/// Appends a command of the primary that has run to this server's replication stream; within a
/// transaction, to the transaction's unit. `bytes` are the bytes that were received since the end
/// of the previous command; they are empty for a command with large arguments, which is not
/// contiguous in memory and is encoded again from `argv`.
pub fn command_applied(server: &mut Server, c: &Client, bytes: &[u8], argv: &[&[u8]]) {
    let replication = &mut server.replication;
    let Some(upstream) = replication.upstream.as_mut() else {
        return;
    };
    if upstream.client != Some(c.reference()) {
        return;
    }
    if !c.has(flag::MULTI) && upstream.unit.is_empty() && !bytes.is_empty() {
        return replication.stream.append(bytes);
    }
    match bytes {
        [] => push_command(&mut upstream.unit, argv),
        bytes => upstream.unit.extend_from_slice(bytes),
    }
    if !c.has(flag::MULTI) {
        replication.stream.append(&upstream.unit);
        upstream.unit.clear();
        upstream.unit.shrink_to(UNIT_KEEP);
    }
}

/// The capacity in bytes of the buffer for a transaction (`unit`) that is kept for the next
/// transaction.
const UNIT_KEEP: usize = 64 * 1024;

/// Appends bytes between or behind commands of the primary, such as empty lines, which count as
/// bytes of the replication stream.
pub fn gap_applied(server: &mut Server, c: &Client, bytes: &[u8]) {
    if !bytes.is_empty() {
        command_applied(server, c, bytes, &[]);
    }
}

/// Updates counters after all commands of one read from the primary have run, and checks the
/// replication offset.
pub fn read_applied(server: &mut Server, c: &mut Client) {
    let replication = &mut server.replication;
    let Some(upstream) = replication.upstream.as_mut() else {
        return;
    };
    if upstream.client != Some(c.reference()) {
        return;
    }
    server.stats.net_repl_input_bytes += c.net_in - upstream.counted;
    upstream.counted = c.net_in;
    upstream.db = c.db;
    replication.stream.set_selected_db(c.db);
    check(server, c);
}

/// Checks that the offset of this server's stream agrees with the number of bytes received from the
/// primary; with a wrong offset, a partial resync would continue at a wrong byte.
fn check(server: &mut Server, c: &mut Client) {
    let replication = &mut server.replication;
    let Some(upstream) = replication.upstream.as_mut() else {
        return;
    };
    let big = c.open.as_ref().is_some_and(|open| open.big.is_some());
    if big || c.has(flag::CLOSE_ASAP) {
        return;
    }
    let received = upstream.attached_at + c.net_in;
    let known = replication.stream.end() + upstream.unit.len() as u64;
    if received != known + c.querybuf.len() as u64 {
        log::warn!(
            "The primary's stream can't be counted: {received} bytes received, {known} applied. Closing the link; a \
             full resync follows."
        );
        upstream.can_continue = false;
        Net::close_asap(&mut server.net.close_asap, c);
    }
}
