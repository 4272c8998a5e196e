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
//! that the kernel has it. A client's replies depend on one offset, `Client::aof_offset`: that of
//! its own last write or, under `always`, of a later write that it has seen ([`super::unsynced`]).
//! `persist::aof::flush` has the progress of the AOF, and only this module decides whether a reply
//! waits. `before_sleep` calls [`release_held`] after the AOF was written and before anything is
//! sent.
//!
//! **Invariant:** offsets never decrease while a client waits; `held` has the slots of clients with
//! the flag PENDING_WRITE, each once.
//!
//! Under `always`, replicas get the stream only as far as the AOF is on the disk: what a power cut
//! could undo at the primary must not be seen at a replica. A mark relates the two: where the
//! stream ended when the AOF had been fed so much.
//!
//! ```text
//!   AOF       synced ──────┐    fed ──────┐          one mark for each turn that fed anything
//!   stream    stream_end ──┘    end ──────┘          the mark of the greatest offset below `synced`
//! ```
//!
//! MIGRATE sends a key when its last change is safe ([`super::unsynced`]).
//!
//! **Limits:** slots that move, and the snapshot of a full synchronisation, do not wait.

use std::collections::VecDeque;

use super::unsynced::{Unsynced, is_durable};
use crate::client::Client;
use crate::config::AppendFsync;
use crate::state::Server;

/// Replies, and a part of the stream, that wait for the AOF.
#[derive(Default)]
pub struct Gate {
    /// The slots of the clients whose reply must wait.
    held: Vec<u32>,
    /// The clients are checked again when the safe offset differs from this value.
    held_until: u64,
    /// Pairs of an offset in the AOF and the end of the stream when the AOF had been fed so far,
    /// ascending; empty if replicas get the whole stream.
    marks: VecDeque<(u64, u64)>,
    /// The offset in the stream up to which replicas get it; `None`: they get all of it.
    stream_end: Option<u64>,
    pub unsynced: Unsynced,
}

impl Gate {
    /// Lets the reply of the client in this slot wait; `safe` is the present safe offset, which is
    /// below the client's.
    pub fn hold(&mut self, slot: u32, safe: u64) {
        self.held.push(slot);
        // The clients are checked again as soon as the safe offset differs from this value.
        self.held_until = self.held_until.min(safe);
    }

    /// Forgets the client in this slot, which is being freed.
    pub fn forget(&mut self, slot: u32) {
        self.held.retain(|&held| held != slot);
    }
}

/// The offset in the AOF up to which changes are as safe as `appendfsync` promises, so that replies
/// that depend on them may be sent.
pub fn safe_offset(server: &Server) -> u64 {
    let aof = &server.aof;
    // After a write error, writes are refused, so replies need not wait until an operator has
    // mended the disk.
    if !aof.feed.is_open() || aof.flush.write_error.is_some() {
        return u64::MAX;
    }
    match server.config.appendfsync {
        AppendFsync::Always if is_durable(server) => u64::MAX,
        AppendFsync::Always => aof.feed.synced,
        AppendFsync::Everysec | AppendFsync::No => aof.feed.written,
    }
}

/// Whether a reply to this client must wait.
pub fn holds(server: &Server, c: &Client) -> bool {
    c.aof_offset > safe_offset(server)
}

/// Sends the replies that waited for the AOF and need not wait any longer. All waiting clients are
/// checked again when the safe offset has changed.
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

/// Moves the end of the part of the stream that replicas get. Called after the AOF was written and
/// before anything is sent.
pub fn release_stream(server: &mut Server) {
    let always = server.config.appendfsync == AppendFsync::Always && server.aof.feed.is_open();
    let safe = safe_offset(server);
    let (fed, end) = (server.aof.feed.fed, server.replication.stream.end());
    let gate = &mut server.gate;
    if !always || safe >= fed {
        gate.marks.clear();
        // Under `always` the next commands wait, although nothing waits now.
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

/// How many of the stream's last `lag` bytes a replica gets now.
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
