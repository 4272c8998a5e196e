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

mod replicas;

use std::io::IoSlice;

pub use self::replicas::Replica;
use self::replicas::Replicas;
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
}

impl Replication {
    pub fn new(id: String) -> Replication {
        Replication {
            id,
            second_id: NO_ID.into(),
            second_offset: -1,
            stream: Stream::default(),
            replicas: Replicas::default(),
        }
    }

    /// Send a client the stream from this offset on. Whether that is held.
    pub fn attach(&mut self, client: ClientRef, offset: u64) -> bool {
        self.detach(client);
        let Some(cursor) = self.stream.attach(offset) else {
            return false;
        };
        self.replicas.insert(Replica {
            client,
            cursor,
            began: false,
        });
        true
    }

    /// The client is not sent the stream any more.
    pub fn detach(&mut self, client: ClientRef) {
        if let Some(replica) = self.replicas.remove(client) {
            self.stream.detach(replica.cursor);
        }
    }

    /// Bytes that a client has yet to be sent; 0 for one that is not attached.
    pub fn lag(&self, client: ClientRef) -> u64 {
        let replica = self.replicas.get(client);
        replica.map_or(0, |replica| self.stream.lag(&replica.cursor))
    }

    /// The stream was closed or restarted under an attached client, which can't go on.
    pub fn is_lost(&self, client: ClientRef) -> bool {
        let replica = self.replicas.get(client);
        replica.is_some_and(|replica| self.stream.is_lost(&replica.cursor))
    }

    /// What a client is sent next, at most `limit` bytes. Returns how many of `out` were set.
    pub fn io_slices<'a>(
        &'a self,
        client: ClientRef,
        limit: usize,
        out: &mut [IoSlice<'a>],
    ) -> usize {
        let replica = self.replicas.get(client);
        replica.map_or(0, |replica| {
            self.stream.io_slices(&replica.cursor, limit, out)
        })
    }

    /// A client's socket took `n` bytes of it.
    pub fn advance(&mut self, client: ClientRef, n: usize) {
        if let Some(replica) = self.replicas.get_mut(client) {
            replica.began |= n > 0;
            self.stream.advance(&mut replica.cursor, n);
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

fn follow_stream(server: &mut Server) {
    let open = server.replication.stream.is_open();
    server.propagation.set_sink(sink::REPLICAS, open);
    server.update_armed();
}

#[cfg(test)]
mod tests;
