//! Charges the time and the traffic of commands to slots, while `cluster-slot-stats-enabled` is on.
//!
//! | figure | what counts |
//! |---|---|
//! | time | the command; for a transaction and a script, all that it ran |
//! | bytes in | the request; for a transaction, MULTI and the queued commands too |
//! | bytes out | the reply, what each replica gets, messages of shard channels |
//!
//! A replica charges the commands of its primary to slots as well, with no bytes out.

use crate::armed;
use crate::client::resp::Sent;
use crate::client::transaction::MultiState;
use crate::client::{Client, NO_SLOT, flag};
use crate::command::keys::get_keys;
use crate::command::{self, Command};
use crate::db::slot::key_slot;
use crate::observe::commandlog::request_bytes;
use crate::observe::slot_stats::SlotUsage;
use crate::propagate::unit::select;
use crate::state::Server;

/// The length of a request in bytes.
pub fn request_len(argv: &[&[u8]], sent: Sent) -> u64 {
    match sent.bytes {
        [] => request_bytes(argv),
        bytes => bytes.len() as u64,
    }
}

/// Charges the time and the traffic of a command to its slot. EXEC and a script are charged with
/// the commands that they run. A script that may use several slots (without shebang, or with
/// allow-cross-slot-keys) is charged with the bytes of its reply only.
pub fn command(
    server: &mut Server,
    c: &Client,
    argv: &[&[u8]],
    cmd: &Command,
    mut cost: SlotUsage,
) {
    if server.nesting > 0 || c.has(flag::BLOCKED | flag::AOF_LOADER) {
        return;
    }
    let mut slot = c.hash_slot;
    if c.has(flag::PRIMARY) {
        slot = slot_of(argv, cmd);
        cost.bytes_out = 0;
    }
    if cmd.is(command::SCRIPT_DECIDES) && server.scripting.crosses_slots {
        (cost.ticks, cost.bytes_in) = (0, 0);
    }
    charge(server, slot, cost);
}

/// Charges the requests of a transaction that EXEC is about to run.
pub fn queue(server: &mut Server, c: &Client, state: &MultiState) {
    if server.stats.slots.is_none() {
        return;
    }
    let args = state.slices();
    let mut start = 0;
    let mut bytes_in = request_bytes(&[b"multi"]);
    for queued in &state.commands {
        bytes_in += request_bytes(&args[start..queued.args_end]);
        start = queued.args_end;
    }
    let cost = SlotUsage {
        bytes_in,
        ..SlotUsage::default()
    };
    charge(server, c.hash_slot, cost);
}

/// Charges the bytes that the receivers of a shard channel's message get to the slot of the
/// channel.
pub fn shard_message(server: &mut Server, channel: &[u8], text: &[u8], receivers: usize) {
    if server.stats.slots.is_none() {
        return;
    }
    let bytes = request_bytes(&[b"smessage", channel, text]);
    let cost = SlotUsage {
        bytes_out: bytes * receivers as u64,
        ..SlotUsage::default()
    };
    charge(server, key_slot(channel), cost);
}

/// The offset of the replication stream's end, and the database that the last SELECT in the stream
/// has selected.
pub type StreamPlace = (u64, Option<u32>);

/// The offset at which the replication stream ends before a command is propagated, and its selected
/// database; `None` while slot statistics are off.
#[inline]
pub fn stream_place(server: &Server) -> Option<StreamPlace> {
    let stream = &server.replication.stream;
    (server.armed & armed::SLOT_STATS != 0).then(|| (stream.end(), stream.selected_db()))
}

/// Charges the bytes that were appended to the replication stream since the offset `from` to the
/// command's slot, once for each replica. A SELECT in the stream belongs to no slot and is not
/// charged.
#[cold]
pub fn propagated(server: &mut Server, c: &Client, (from, selected): StreamPlace) {
    let stream = &server.replication.stream;
    let mut bytes = stream.end().saturating_sub(from);
    if let Some(db) = stream.selected_db().filter(|_| bytes > 0)
        && selected != Some(db)
    {
        let mut request = Vec::new();
        select(&mut request, db);
        bytes = bytes.saturating_sub(request.len() as u64);
    }
    let cost = SlotUsage {
        bytes_out: bytes * server.replication.replicas.len() as u64,
        ..SlotUsage::default()
    };
    charge(server, c.hash_slot, cost);
}

fn charge(server: &mut Server, slot: u16, cost: SlotUsage) {
    if let Some(stats) = &mut server.stats.slots {
        stats.charge(slot, cost);
    }
}

/// The slot of the first key of a primary's command, which `execute::route` does not check.
fn slot_of(argv: &[&[u8]], cmd: &Command) -> u16 {
    let mut found = Vec::new();
    let is_found = get_keys(cmd, argv, &mut found).is_ok();
    let first = found.first().filter(|_| is_found);
    first.map_or(NO_SLOT, |key| key_slot(argv[key.pos as usize]))
}
