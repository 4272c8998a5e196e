//! The second part of a replica's acknowledgement: the offset up to which its AOF is on the disk.
//!
//! ```text
//!   applied to     stream offset 500 = AOF offset 80    noted as pending
//!   fsync reaches  AOF offset 80                        -> REPLCONF ACK .. FACK 500
//! ```
//!
//! The offsets in the AOF and in the stream differ, since the AOF has a SELECT and time stamps of
//! its own and no PING. So the offsets in the AOF and in the stream at one moment are noted as a
//! pair, and the next pair is noted when the AOF is on the disk up to the AOF offset of this pair.
//! The first pair of offsets is noted when the base file of the AOF is begun (`persist::aof`).

use crate::persist::aof::State;
use crate::state::Server;

/// Before the loop sleeps, on a replica: notes up to which offset of the stream the AOF is on the
/// disk.
pub fn note_aof(server: &mut Server) {
    let replication = &mut server.replication;
    if server.aof.state == State::Off {
        replication.aof_synced = None;
        replication.aof_pending = None;
        return;
    }
    let synced = replication.aof_synced.get_or_insert(0);
    // Until its first base file is complete, the AOF can't be loaded.
    if server.aof.state != State::On {
        return;
    }
    let feed = &server.aof.feed;
    if let Some((aof_offset, offset)) = replication.aof_pending
        && aof_offset <= feed.synced
    {
        *synced = offset;
        replication.aof_pending = None;
    }
    if replication.aof_pending.is_none() {
        replication.aof_pending = Some((feed.fed, replication.stream.end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;

    #[test]
    fn what_the_base_has_is_acknowledged_although_nothing_is_synced_later() {
        let mut server = server_with(0);
        crate::replication::ensure_backlog(&mut server);
        server.replication.stream.append(b"0123456789");
        server.aof.state = State::WaitRewrite;
        server.replication.aof_pending = Some((0, server.replication.stream.end()));
        // More of the stream arrives while the new base of the AOF is being written.
        server.replication.stream.append(b"more");
        server.aof.feed.fed = 50;
        note_aof(&mut server);
        assert_eq!(server.replication.aof_synced, Some(0));
        server.aof.state = State::On;
        note_aof(&mut server);
        assert_eq!(server.replication.aof_synced, Some(10));
    }

    #[test]
    fn what_was_applied_is_acknowledged_when_its_bytes_are_on_the_disk() {
        let mut server = server_with(0);
        crate::replication::ensure_backlog(&mut server);
        let step = |server: &mut Server, fed: u64, synced: u64, applied: usize| {
            server.replication.stream.append(&vec![b'x'; applied]);
            (server.aof.feed.fed, server.aof.feed.synced) = (fed, synced);
            note_aof(server);
            server.replication.aof_synced
        };
        assert_eq!(step(&mut server, 0, 0, 10), None, "no AOF");
        server.aof.state = State::WaitRewrite;
        assert_eq!(step(&mut server, 0, 0, 10), Some(0), "no base yet");
        server.aof.state = State::On;
        assert_eq!(step(&mut server, 100, 0, 10), Some(0));
        assert_eq!(step(&mut server, 200, 99, 10), Some(0));
        assert_eq!(step(&mut server, 300, 100, 10), Some(30));
        assert_eq!(step(&mut server, 300, 299, 0), Some(30));
        assert_eq!(step(&mut server, 300, 300, 0), Some(50));
        server.aof.state = State::Off;
        assert_eq!(step(&mut server, 300, 300, 0), None);
    }
}
