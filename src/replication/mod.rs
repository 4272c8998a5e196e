//! Replication: the history of this server's data, and the replicas that follow it.
//!
//! ```text
//!   propagate ─> stream ─┬─ cursor of replica 1 ─> networking::replicas ─> socket
//!                        └─ cursor of replica 2 ─> ...
//! ```
//!
//! A history has an id and an offset: how many bytes of commands made the data what they are. Equal
//! id and equal offset mean equal data. `second_id` is the id of the history that this one
//! continued after a promotion; it is valid up to `second_offset`.
//!
//! This module holds data and decisions. It uses no socket and no clock: times are parameters.
//!
//! **Invariant:** commands are fed to the stream exactly while it is open (`follow_stream`).

pub mod bulk;
pub mod psync;
pub mod replicas;
pub mod snapshot;

use std::io::IoSlice;

use self::psync::History;
use self::replicas::{Replica, Replicas};
use self::snapshot::Snapshot;
use crate::client::ClientRef;
use crate::propagate::sink;
use crate::propagate::stream::Stream;
use crate::state::Server;

/// The id of no history.
const NO_ID: &str = "0000000000000000000000000000000000000000";

pub struct Replication {
    /// 40 hex digits: `master_replid`.
    pub id: String,
    /// 40 hex digits: `master_replid2`.
    pub second_id: String,
    /// The number of the first byte, counted from 1, for which `second_id` is not valid any more;
    /// -1 without one.
    pub second_offset: i64,
    /// Its end is `master_repl_offset`.
    pub stream: Stream,
    pub replicas: Replicas,
    /// The snapshot that a child makes for replicas, until all of it has been sent or stands in a
    /// file.
    pub snapshot: Option<Snapshot>,
    /// The file on the disk was made for replicas: `rdb-del-sync-files` may remove it.
    pub made_file: bool,
    /// A client waits for acknowledgements: the replicas are asked for them before the loop sleeps.
    pub wants_acks: bool,
    /// Unix time at which the last replica left, in seconds.
    pub no_replicas_since_s: i64,
    /// When the stream was sent a PING last, in seconds of Unix time.
    pub pinged_s: i64,
}

impl Replication {
    pub fn new(id: String) -> Replication {
        Replication {
            id,
            second_id: NO_ID.into(),
            second_offset: -1,
            stream: Stream::default(),
            replicas: Replicas::default(),
            snapshot: None,
            made_file: false,
            wants_acks: false,
            no_replicas_since_s: 0,
            pinged_s: 0,
        }
    }

    /// The history as PSYNC is answered from it.
    pub fn history(&self) -> History<'_> {
        History {
            id: &self.id,
            second_id: &self.second_id,
            second_offset: self.second_offset,
            first_byte: self.stream.first_byte_offset(),
            end: self.stream.end(),
        }
    }

    /// This server follows a primary.
    #[inline]
    pub fn is_replica(&self) -> bool {
        false
    }

    /// Another history begins here. The old one is not continued.
    pub fn begin_history(&mut self, id: String) {
        self.id = id;
        self.second_id = NO_ID.into();
        self.second_offset = -1;
    }

    /// A client follows this server from now on.
    pub fn add(&mut self, replica: Replica) {
        self.remove(replica.client);
        self.replicas.insert(replica);
    }

    /// Send a replica the stream from this offset on. Whether that is held.
    pub fn attach(&mut self, client: ClientRef, offset: u64) -> bool {
        let Some(replica) = self.replicas.get_mut(client) else {
            return false;
        };
        if let Some(old) = replica.cursor.take() {
            self.stream.detach(old);
        }
        replica.cursor = self.stream.attach(offset);
        replica.cursor.is_some()
    }

    /// The client follows no longer.
    pub fn remove(&mut self, client: ClientRef) -> Option<Replica> {
        let mut replica = self.replicas.remove(client)?;
        if let Some(cursor) = replica.cursor.take() {
            self.stream.detach(cursor);
        }
        Some(replica)
    }

    /// Bytes that a client has yet to be sent; 0 for one that is not attached.
    pub fn lag(&self, client: ClientRef) -> u64 {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.map_or(0, |cursor| self.stream.lag(cursor))
    }

    /// Bytes that a client may be sent now.
    pub fn sendable(&self, client: ClientRef) -> u64 {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.map_or(0, |cursor| self.stream.sendable(cursor))
    }

    /// The stream was closed or restarted under an attached client, which can't go on.
    pub fn is_lost(&self, client: ClientRef) -> bool {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.is_some_and(|cursor| self.stream.is_lost(cursor))
    }

    /// What a client is sent next, at most `limit` bytes. Returns how many of `out` were set.
    pub fn io_slices<'a>(
        &'a self,
        client: ClientRef,
        limit: usize,
        out: &mut [IoSlice<'a>],
    ) -> usize {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.map_or(0, |cursor| self.stream.io_slices(cursor, limit, out))
    }

    /// A client's socket took `n` bytes of it.
    pub fn advance(&mut self, client: ClientRef, n: usize) {
        if let Some(replica) = self.replicas.get_mut(client) {
            replica.began |= n > 0;
            if let Some(cursor) = &mut replica.cursor {
                self.stream.advance(cursor, n);
            }
        }
    }
}

/// Hold what is propagated from now on: the first replica comes.
pub fn ensure_backlog(server: &mut Server) {
    let size = server.config.repl_backlog_size;
    server.replication.stream.open(size);
    follow_stream(server);
}

/// Hold nothing: no replica has been there for `repl-backlog-ttl`.
pub fn release_backlog(server: &mut Server) {
    server.replication.stream.close();
    follow_stream(server);
}

/// The client of a replica is gone.
pub fn left(server: &mut Server, client: ClientRef) {
    let Some(replica) = server.replication.remove(client) else {
        return;
    };
    log::info!("Connection with replica {} lost.", replica.name());
    if server.replication.replicas.is_empty() {
        server.replication.no_replicas_since_s = server.clock.now_s();
    }
}

fn follow_stream(server: &mut Server) {
    let open = server.replication.stream.is_open();
    // A replica's stream is what its primary sends, byte for byte.
    let feeds = open && !server.replication.is_replica();
    server.propagation.set_sink(sink::REPLICAS, feeds);
    server.update_armed();
}

#[cfg(test)]
mod tests;
