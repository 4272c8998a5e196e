//! The gate: limits the replies, and the bytes of the replication stream, that may be sent.
//!
//! ```text
//!   AOF       synced ........ written ........ fed
//!               │ always         │ everysec, no
//!               └──────┬─────────┘
//!                 safe_offset          a reply leaves when its client's aof_offset <= safe_offset
//!                                      others wait in `held` until `release_held`
//!
//!   stream    .......... limit ........... end
//!                          └ the end of the stream when the AOF had the bytes that are synced now
//! ```
//!
//! A reply guarantees what the policy promises: that the change is on the disk (`always`), or that
//! the kernel has it. A client depends on one offset, `Client::aof_offset`: that of its own last
//! write and, under `always`, of the last write that it has seen ([`super::unsynced`]).
//! `persist::aof::flush` has the progress of the AOF, and only this module decides whether a reply
//! waits. `before_sleep` calls [`release_held`] after the AOF was written and before anything is
//! sent, and [`advance_stream`] before the stream is sent.
//!
//! **The stream** does not wait by default, so a replica may be ahead of its primary's disk.
//! [`hold_stream`] changes that under `always`. The two sinks have different offsets (SELECT, PING,
//! annotations), so the ends of both are recorded in each turn, and the end of the stream becomes
//! the limit when the end of the AOF is synced.
//!
//! **Invariant:** offsets never go back while a client waits; `held` has the slots of clients that
//! are flagged PENDING_WRITE, each once.
//! **Limits:** at most [`MARKS_MAX`] turns are distinguished while a sync is under way; the bytes
//! of later ones are released together.

use std::collections::VecDeque;

use super::unsynced::{Unsynced, is_durable};
use crate::client::Client;
use crate::config::AppendFsync;
use crate::state::Server;

/// The maximum number of turns whose ends are kept.
const MARKS_MAX: usize = 1024;

/// Replies and stream bytes that wait for the AOF.
#[derive(Default)]
pub struct Gate {
    /// The slots of the clients whose reply must wait.
    held: Vec<u32>,
    /// The safe offset at which the clients were last checked.
    held_until: u64,
    pub unsynced: Unsynced,
    /// `None`: the stream is sent to replicas at once.
    stream: Option<StreamHold>,
}

/// The state of a stream that waits for the AOF.
struct StreamHold {
    limit: u64,
    /// Oldest first; both offsets ascend.
    marks: VecDeque<Mark>,
}

/// The ends of AOF and stream at the end of one turn.
struct Mark {
    aof: u64,
    stream: u64,
}

impl Gate {
    /// The reply of the client in this slot must wait; `safe` is the present safe offset, which
    /// does not suffice.
    pub fn hold(&mut self, slot: u32, safe: u64) {
        self.held.push(slot);
        // The next safe offset differs, so the clients are checked again, even if none waited at
        // this offset before.
        self.held_until = self.held_until.min(safe);
    }

    /// The client in this slot is being freed.
    pub fn forget(&mut self, slot: u32) {
        self.held.retain(|&held| held != slot);
    }

    /// The stream offset up to which replicas may be sent; `None`: everything.
    fn stream_limit(&self) -> Option<u64> {
        self.stream.as_ref().map(|hold| hold.limit)
    }
}

impl StreamHold {
    /// At the end of a turn: these are the ends of AOF and stream, and the AOF is synced up to
    /// `synced`.
    fn advance(&mut self, fed: u64, synced: u64, end: u64) {
        if end < self.limit || self.marks.back().is_some_and(|last| end < last.stream) {
            // The stream was restarted: its present bytes need not wait.
            self.marks.clear();
            self.limit = end;
        }
        if synced >= fed {
            self.marks.clear();
            self.limit = end;
            return;
        }
        while self.marks.front().is_some_and(|mark| mark.aof <= synced) {
            self.limit = self
                .marks
                .pop_front()
                .map_or(self.limit, |mark| mark.stream);
        }
        let mark = Mark {
            aof: fed,
            stream: end,
        };
        let full = self.marks.len() >= MARKS_MAX;
        match self.marks.back_mut() {
            Some(last) if full || last.aof == fed => *last = mark,
            _ => self.marks.push_back(mark),
        }
    }
}

/// The offset up to which the AOF is safe enough to send replies.
pub fn safe_offset(server: &Server) -> u64 {
    let aof = &server.aof;
    // While the disk is full, writes are refused, and clients need not wait for an operator.
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
/// checked; they are few, and this is rare.
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

/// Under `always`, makes the stream wait until the AOF is synced; otherwise sends it at once.
pub fn hold_stream(server: &mut Server, on: bool) {
    server.gate.stream = on.then(|| StreamHold {
        limit: server.replication.stream.end(),
        marks: VecDeque::new(),
    });
    let limit = server.gate.stream_limit();
    server.replication.stream.send_until(limit);
}

/// After the last byte of a turn: computes how far the stream may be sent.
pub fn advance_stream(server: &mut Server) {
    let Some(hold) = &mut server.gate.stream else {
        return;
    };
    let promises_disk = server.config.appendfsync == AppendFsync::Always;
    let feed = &server.aof.feed;
    let end = server.replication.stream.end();
    match feed.is_open() && promises_disk {
        true => hold.advance(feed.fed, feed.synced, end),
        // Nothing waits now; when the AOF is opened later, these bytes still need not wait.
        false => hold.advance(0, 0, end),
    }
    server.replication.stream.send_until(Some(hold.limit));
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::replication;
    use crate::testing::{say, server_with};

    /// A server under `always` with an AOF whose disk the test controls, and one client.
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

    #[test]
    fn the_stream_is_held_only_on_demand_and_only_under_always() {
        let mut server = server_with_aof();
        replication::ensure_backlog(&mut server);
        let cursor = server.replication.stream.attach(0).expect("held");
        let sendable = |server: &mut Server| {
            advance_stream(server);
            let stream = &server.replication.stream;
            let mut pieces = [std::io::IoSlice::new(&[]); 4];
            let n = stream.io_slices(&cursor, usize::MAX, &mut pieces);
            let bytes: usize = pieces[..n].iter().map(|piece| piece.len()).sum();
            assert_eq!(bytes as u64, stream.sendable(&cursor));
            bytes as u64
        };
        let all = |server: &Server| server.replication.stream.end();
        say(&mut server, 0, &["SET k v"]);
        assert_eq!(server.gate.stream_limit(), None);
        assert_eq!(sendable(&mut server), all(&server));
        let sent = all(&server);
        hold_stream(&mut server, true);
        say(&mut server, 0, &["SET k w"]);
        assert_eq!(sendable(&mut server), sent);
        sync(&mut server);
        assert_eq!(sendable(&mut server), all(&server));
        let sent = all(&server);
        say(&mut server, 0, &["SET k x"]);
        assert_eq!(sendable(&mut server), sent);
        server.config.appendfsync = AppendFsync::Everysec;
        assert_eq!(sendable(&mut server), all(&server));
        server.config.appendfsync = AppendFsync::Always;
        say(&mut server, 0, &["SET k y"]);
        assert!(sendable(&mut server) < all(&server));
        hold_stream(&mut server, false);
        assert_eq!(sendable(&mut server), all(&server));
    }

    fn hold() -> StreamHold {
        StreamHold {
            limit: 0,
            marks: VecDeque::new(),
        }
    }

    #[test]
    fn the_stream_is_sent_up_to_the_turn_whose_aof_is_synced() {
        let mut hold = hold();
        for (fed, synced, end, limit) in [
            (10, 0, 100, 0),
            (20, 0, 200, 0),
            // A PING, which is not fed to the AOF, follows bytes that wait.
            (20, 0, 214, 0),
            (30, 10, 300, 100),
            (30, 19, 300, 100),
            (30, 20, 300, 214),
            (40, 30, 400, 300),
            (40, 40, 400, 400),
            // All of the AOF is synced, so a PING, which is in the stream only, is sent at once.
            (40, 40, 414, 414),
        ] {
            hold.advance(fed, synced, end);
            assert_eq!(hold.limit, limit, "fed {fed}, synced {synced}, end {end}");
        }
        assert!(hold.marks.is_empty());
    }

    #[test]
    fn a_disk_that_hangs_for_many_turns_costs_no_memory() {
        let mut hold = hold();
        let turns = 3 * MARKS_MAX as u64;
        for turn in 1..=turns {
            hold.advance(turn, 0, 10 * turn);
        }
        assert_eq!(hold.marks.len(), MARKS_MAX);
        let last_told_apart = MARKS_MAX as u64 - 1;
        hold.advance(turns, last_told_apart, 10 * turns);
        assert_eq!(hold.limit, 10 * last_told_apart);
        hold.advance(turns, turns - 1, 10 * turns);
        assert_eq!(hold.limit, 10 * last_told_apart);
        hold.advance(turns, turns, 10 * turns);
        assert_eq!(hold.limit, 10 * turns);
    }

    #[test]
    fn a_stream_that_is_restarted_is_held_from_there() {
        let mut hold = hold();
        hold.advance(10, 0, 1000);
        hold.advance(10, 0, 50);
        assert_eq!(hold.limit, 50);
        hold.advance(20, 0, 60);
        assert_eq!(hold.limit, 50);
        hold.advance(20, 20, 60);
        assert_eq!(hold.limit, 60);
    }
}
