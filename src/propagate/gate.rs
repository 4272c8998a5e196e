//! The gate: decides which replies, and which part of the replication stream, may be sent.
//!
//! ```text
//!   AOF       synced ........ written ........ fed
//!               │ always         │ everysec, no
//!               └──────┬─────────┘
//!                 safe_offset          a reply leaves when its client's aof_offset <= safe_offset
//!                                      others wait in `held` until `release_held`
//! ```
//!
//! A reply guarantees what `appendfsync` promises: that the change is on the disk (`always`), or
//! that the kernel has it. A client's replies depend on one offset in the AOF,
//! `Client::aof_offset`: the offset of its own last write or, under `always`, of a later write that
//! it has seen ([`super::unsynced`]). `persist::aof::flush` has the progress of the AOF, and only
//! this module decides whether a reply waits. `before_sleep` calls [`release_held`] after the AOF
//! was written and before anything is sent.
//!
//! **Invariant:** offsets in the AOF never decrease while a client waits; `held` has the indexes in
//! the client table of clients with the flag PENDING_WRITE, each once.
//!
//! Under `always`, replicas get the replication stream only as far as the AOF is on the disk: what
//! a power cut could undo at the primary must not be seen at a replica. A mark relates the AOF to
//! the stream: it has an offset in the AOF, and the end of the stream when the AOF had been fed up
//! to this offset.
//!
//! ```text
//!   AOF       synced ──────┐    fed ──────┐          one mark for each turn that fed anything
//!   stream    stream_end ──┘    end ──────┘          the mark of the greatest offset below `synced`
//! ```
//!
//! MIGRATE sends a key only when the last change of the key is safe ([`super::unsynced`]).
//!
//! **Limits:** the keys of slots that move to another node, and the snapshot of a full sync, do not
//! wait for the AOF.

use std::collections::VecDeque;

use super::unsynced::{Unsynced, is_durable};
use crate::client::Client;
use crate::config::AppendFsync;
use crate::state::Server;

/// The replies, and the part of the replication stream, that wait for the AOF.
#[derive(Default)]
pub struct Gate {
    /// The indexes in the client table of the clients whose replies must wait.
    held: Vec<u32>,
    /// The safe offset at which the waiting clients were last checked; they are checked again when
    /// the safe offset has another value.
    held_until: u64,
    /// Pairs of an offset in the AOF and the end of the replication stream when the AOF had been
    /// fed up to this offset, ascending; empty if replicas get the whole stream.
    marks: VecDeque<(u64, u64)>,
    /// The offset up to which replicas get the replication stream; `None` if they get the whole
    /// stream.
    stream_end: Option<u64>,
    pub unsynced: Unsynced,
}

impl Gate {
    /// Makes the reply of the client at index `slot` of the client table wait; `safe` is the
    /// present safe offset, which is below the client's `aof_offset`.
    pub fn hold(&mut self, slot: u32, safe: u64) {
        self.held.push(slot);
        // [`release_held`] checks the waiting clients again as soon as the safe offset differs from
        // `held_until`.
        self.held_until = self.held_until.min(safe);
    }

    /// Removes the client at index `slot` of the client table, which is being freed, from the
    /// waiting clients.
    pub fn forget(&mut self, slot: u32) {
        self.held.retain(|&held| held != slot);
    }
}

/// The offset in the AOF up to which changes are as safe as `appendfsync` promises, so that replies
/// that depend on them may be sent.
pub fn safe_offset(server: &Server) -> u64 {
    let aof = &server.aof;
    // After a write error of the AOF, commands that write are refused, so replies need not wait
    // until an operator has mended the disk.
    if !aof.feed.is_open() || aof.flush.write_error.is_some() {
        return u64::MAX;
    }
    match server.config.appendfsync {
        AppendFsync::Always if is_durable(server) => u64::MAX,
        AppendFsync::Always => aof.feed.synced,
        AppendFsync::Everysec | AppendFsync::No => aof.feed.written,
    }
}

/// Whether a reply to the client must wait for the AOF.
pub fn holds(server: &Server, c: &Client) -> bool {
    c.aof_offset > safe_offset(server)
}

/// Sends the replies that waited for the AOF and need not wait any longer. The waiting clients are
/// checked only if the safe offset has changed.
pub fn release_held(server: &mut Server) {
    if server.gate.held.is_empty() {
        return;
    }
    let safe = safe_offset(server);
    if server.gate.held_until != safe {
        server.gate.held_until = safe;
        server.net.pending_write.append(&mut server.gate.held);
    }
}

/// Updates the offset up to which replicas get the replication stream. Called after the AOF was
/// written and before anything is sent.
pub fn release_stream(server: &mut Server) {
    let always = server.config.appendfsync == AppendFsync::Always && server.aof.feed.is_open();
    let safe = safe_offset(server);
    let (fed, end) = (server.aof.feed.fed, server.replication.stream.end());
    let gate = &mut server.gate;
    if !always || safe >= fed {
        gate.marks.clear();
        // Under `always` the bytes of the next commands will wait, although no byte of the stream
        // waits now.
        gate.stream_end = always.then_some(end);
        return;
    }
    if gate.marks.back() != Some(&(fed, end)) {
        gate.marks.push_back((fed, end));
    }
    while let Some(&(offset, end)) = gate.marks.front()
        && offset <= safe
    {
        gate.stream_end = Some(end);
        gate.marks.pop_front();
    }
}

/// The number of bytes that a replica may be sent now, of the last `lag` bytes of the replication
/// stream, which it lacks.
pub fn sendable(server: &Server, lag: u64) -> u64 {
    let held = |end| server.replication.stream.end().saturating_sub(end);
    lag.saturating_sub(server.gate.stream_end.map_or(0, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::testing::{say, server_with};

    /// A server with `appendfsync always`, an AOF whose disk the test controls, and one client.
    fn server_with_aof() -> Server {
        let mut server = server_with(1);
        server.config.appendfsync = AppendFsync::Always;
        let null = std::fs::File::create("/dev/null").expect("a file");
        server.aof.feed.switch_to(std::sync::Arc::new(null), 0);
        server.propagation.set_sink(super::super::sink::AOF, true);
        server.follow_unsynced();
        server
    }

    fn sync(server: &mut Server) {
        server.aof.feed.synced = server.aof.feed.fed;
    }

    #[test]
    fn a_client_that_wrote_waits_for_the_disk() {
        let mut server = server_with_aof();
        assert_eq!(safe_offset(&server), u64::MAX);
        say(&mut server, 0, &["SET k v"]);
        let waits = |server: &Server| server.net.clients.get(0).is_some_and(|c| holds(server, c));
        assert!(waits(&server));
        let safe = safe_offset(&server);
        server.gate.hold(0, safe);
        release_held(&mut server);
        assert!(server.net.pending_write.is_empty());
        sync(&mut server);
        assert!(!waits(&server));
        release_held(&mut server);
        assert_eq!(server.net.pending_write, [0]);
        release_held(&mut server);
        assert_eq!(server.net.pending_write, [0]);
    }
}
