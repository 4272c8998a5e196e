//! Replication: the history of this server's data, and the replicas that follow it.
//!
//! ```text
//!   propagate ─> stream ─┬─ cursor of replica 1 ─> networking::replicas ─> socket
//!                        └─ cursor of replica 2 ─> ...
//! ```
//!
//! A history has an id and an offset: the number of bytes of commands that created the data. Equal
//! id and equal offset mean equal data. `second_id` is the id of the history that the present
//! history continued after a promotion; it is valid up to `second_offset`.
//!
//! The module `replication` holds data and decisions. Its functions use no socket and no clock:
//! times are parameters.
//!
//! **Invariant:** a primary's commands are fed to the replication stream exactly while the stream
//! is open (`follow_stream`).

pub mod bulk;
pub mod failover;
pub mod overrun;
pub mod own_expiries;
pub mod psync;
pub mod replicas;
pub mod snapshot;
pub mod two_channels;
pub mod upstream;

use std::io::IoSlice;

use self::failover::Failover;
use self::overrun::{Forecast, Limits, Overruns};
use self::own_expiries::OwnExpiries;
use self::psync::History;
use self::replicas::{Channel, Replica, Replicas, State};
use self::snapshot::Snapshot;
use self::upstream::Upstream;
use crate::client::table::Net;
use crate::client::{Client, ClientRef};
use crate::config::ClientClass;
use crate::propagate::sink;
use crate::propagate::stream::Stream;
use crate::state::Server;

/// The id that stands for no replication history.
const NO_ID: &str = "0000000000000000000000000000000000000000";

/// The state of replication: this server's history, its replicas, and its primary.
pub struct Replication {
    /// The id of the present replication history, INFO's `master_replid`: 40 hexadecimal digits.
    pub id: String,
    /// The id of the history that the present one continued, INFO's `master_replid2`: 40
    /// hexadecimal digits.
    pub second_id: String,
    /// INFO's `second_repl_offset`: the number of the first byte, counted from 1, that is not in
    /// the history `second_id`; -1 without a second id.
    pub second_offset: i64,
    /// The replication stream, whose end is `master_repl_offset`.
    pub stream: Stream,
    pub replicas: Replicas,
    /// The primary that this server follows; `None` if this server is a primary itself.
    pub upstream: Option<Upstream>,
    /// FAILOVER: this server hands its role over to a replica.
    pub failover: Failover,
    /// Whether expired keys are alive for the running commands: the commands come from the primary
    /// or, in `import-mode`, from the source of an import, which sends the deletions of expired
    /// keys.
    pub applying: bool,
    /// The expiry times that clients of this writable replica have set.
    pub own_expiries: OwnExpiries,
    /// Whether the primary has requested an acknowledgement, which is sent before the loop sleeps.
    pub owes_ack: bool,
    /// The offset of the primary's stream up to which this replica's AOF is on the disk, for FACK;
    /// `None` without an AOF.
    pub aof_synced: Option<u64>,
    /// The offsets in the AOF and in the replication stream at one moment; when the AOF is on the
    /// disk up to the first, `aof_synced` becomes the second.
    pub aof_pending: Option<(u64, u64)>,
    /// The number of the [`Upstream`] that was created last.
    upstreams: u64,
    /// The snapshot that a child creates for replicas, until it has been sent or written to a file.
    pub snapshot: Option<Snapshot>,
    /// Whether the RDB file on the disk was made for replicas: `rdb-del-sync-files` may remove such
    /// a file.
    pub made_file: bool,
    /// Whether a client waits for acknowledgements: the replicas get GETACK before the loop sleeps.
    pub wants_acks: bool,
    /// The Unix time at which the last replica disconnected, in seconds.
    pub no_replicas_since_s: i64,
    /// The Unix time of the last PING in the stream, in seconds.
    pub pinged_s: i64,
    /// The Unix time in milliseconds of the last log line about writes of the primary that can't be
    /// saved.
    pub disk_error_logged_ms: i64,
    /// The total time in seconds for which links to primaries were broken, without the present
    /// interruption.
    pub disconnected_s: i64,
    /// The forecast whether a full sync can succeed at the present rate of writes.
    pub forecast: Forecast,
    /// The replicas whose full syncs were ended by their output limit, which delays their next full
    /// sync.
    pub overruns: Overruns,
}

impl Replication {
    /// The state of a primary with the replication id `id` and without replicas.
    pub fn new(id: String) -> Replication {
        Replication {
            id,
            second_id: NO_ID.into(),
            second_offset: -1,
            stream: Stream::default(),
            replicas: Replicas::default(),
            upstream: None,
            failover: Failover::default(),
            applying: false,
            own_expiries: OwnExpiries::default(),
            owes_ack: false,
            aof_synced: None,
            aof_pending: None,
            upstreams: 0,
            snapshot: None,
            made_file: false,
            wants_acks: false,
            no_replicas_since_s: 0,
            pinged_s: 0,
            disk_error_logged_ms: 0,
            disconnected_s: 0,
            forecast: Forecast::default(),
            overruns: Overruns::default(),
        }
    }

    /// The ids and offsets of this server's history, by which a PSYNC is decided.
    pub fn history(&self) -> History<'_> {
        History {
            id: &self.id,
            second_id: &self.second_id,
            second_offset: self.second_offset,
            first_byte: self.stream.first_byte_offset(),
            end: self.stream.end(),
        }
    }

    /// Whether this server follows a primary.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.upstream.is_some()
    }

    /// Whether the link to the primary is down; false on a primary.
    pub fn is_link_down(&self) -> bool {
        self.upstream.as_ref().is_some_and(|up| !up.is_connected())
    }

    /// Sets the primary that this server follows from now on.
    pub fn set_upstream(&mut self, host: &str, port: u16) -> &mut Upstream {
        self.upstreams += 1;
        let upstream = Upstream::new(host, port, self.upstreams);
        self.upstream.insert(upstream)
    }

    /// Continues the present history under a new id. Replicas that know the old id can continue
    /// with a partial sync.
    pub fn branch_history(&mut self, id: String) {
        self.second_id = std::mem::replace(&mut self.id, id);
        self.second_offset = self.stream.end() as i64 + 1;
    }

    /// Begins another history, which does not continue the old history.
    pub fn begin_history(&mut self, id: String) {
        self.id = id;
        self.second_id = NO_ID.into();
        self.second_offset = -1;
    }

    /// Feeds `REPLCONF GETACK *` to a primary's replication stream, so that the replicas send their
    /// offsets at once.
    pub fn request_acks(&mut self) {
        const GETACK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";
        self.wants_acks = false;
        // A replica's stream must equal the stream of its primary, so nothing is added to it.
        if self.stream.is_open() && !self.is_replica() {
            self.stream.append(GETACK);
        }
    }

    /// Adds a replica, in place of an earlier entry for the same client.
    pub fn add(&mut self, replica: Replica) {
        self.remove(replica.client);
        self.replicas.insert(replica);
    }

    /// Attaches a replica to the replication stream at `offset`. Returns whether the stream still
    /// has the bytes from this offset on.
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

    /// Removes a replica and detaches it from the replication stream.
    pub fn remove(&mut self, client: ClientRef) -> Option<Replica> {
        let mut replica = self.replicas.remove(client)?;
        if let Some(cursor) = replica.cursor.take() {
            self.stream.detach(cursor);
        }
        Some(replica)
    }

    /// The number of bytes of the replication stream that a replica must still be sent; 0 if the
    /// client is not attached to the stream.
    pub fn lag(&self, client: ClientRef) -> u64 {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.map_or(0, |cursor| self.stream.lag(cursor))
    }

    /// Whether the replication stream was closed or restarted while a replica was attached, so that
    /// the replica can't continue.
    pub fn is_lost(&self, client: ClientRef) -> bool {
        let replica = self.replicas.get(client);
        let cursor = replica.and_then(|replica| replica.cursor.as_ref());
        cursor.is_some_and(|cursor| self.stream.is_lost(cursor))
    }

    /// Sets `out` to the next bytes of the stream for a replica, at most `limit` bytes. Returns how
    /// many elements of `out` were set.
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

    /// Records that a replica's socket has accepted `n` bytes of the replication stream.
    pub fn advance(&mut self, client: ClientRef, n: usize) {
        if let Some(replica) = self.replicas.get_mut(client) {
            replica.began |= n > 0;
            if let Some(cursor) = &mut replica.cursor {
                self.stream.advance(cursor, n);
            }
        }
    }
}

/// Opens the replication stream, if it is not open, so that it keeps a backlog for replicas.
pub fn ensure_backlog(server: &mut Server) {
    let size = server.config.repl_backlog_size;
    server.replication.stream.open(size);
    follow_stream(server);
}

/// Called at the start, after the data set of the last run was loaded: the data set is the state of
/// the history `id` at `offset`, and a replica continues from there. A restarted primary has no
/// backlog, and the last bytes of its stream may be lost, so it continues its history under
/// `new_id`; replicas that are exactly at `offset` can continue.
pub fn resume(server: &mut Server, id: &str, offset: u64, db: u32, new_id: String) {
    if server.replication.stream.restart_at(offset).is_err() {
        return;
    }
    let replication = &mut server.replication;
    match &mut replication.upstream {
        Some(upstream) => {
            upstream.can_continue = true;
            upstream.db = db;
            replication.begin_history(id.into());
        }
        None => {
            replication.begin_history(id.into());
            replication.branch_history(new_id);
            replication.no_replicas_since_s = server.clock.now_s();
        }
    }
    ensure_backlog(server);
    log::info!("The loaded data set is at offset {offset} of the replication history {id}.");
}

/// Closes the replication stream and frees its backlog, since there has been no replica for
/// `repl-backlog-ttl`.
pub fn release_backlog(server: &mut Server) {
    server.replication.stream.close();
    follow_stream(server);
}

/// Removes the replica of a client that disconnects.
pub fn left(server: &mut Server, client: ClientRef) {
    let Some(replica) = server.replication.remove(client) else {
        return;
    };
    let name = replica.name();
    // A second connection for a snapshot may be closed because the replica has the whole snapshot,
    // so its end is no failure.
    let failed = !replica.synced && replica.channel != Channel::Snapshot;
    if let (true, Some(after_ms)) = (failed, replica.sync_ms(server.clock.now_ms)) {
        server.replication.forecast.failed(after_ms);
    }
    // A replica with two connections needs both during a full sync, so the end of one of the
    // connections closes the other connection.
    let other = match (replica.channel, &replica.state) {
        (Channel::Main { snapshot, .. }, State::WaitsForChannel { .. } | State::Loading) => {
            snapshot.and_then(|id| server.net.clients.reference_of(id))
        }
        _ => None,
    };
    if let Some(c) = other.and_then(|r| server.net.clients.resolve(r)) {
        Net::close_asap(&mut server.net.close_asap, c);
    }
    match replica.channel {
        Channel::Snapshot => {
            log::info!("Dual channel replication: Replica {name} rdb channel disconnected.");
        }
        _ => log::info!("Connection with replica {name} lost."),
    }
    if server.replication.replicas.is_empty() {
        server.replication.no_replicas_since_s = server.clock.now_s();
    }
}

/// Records that the client that applied the primary's stream is closed. The data set is still that
/// of the stream's end, so the stream can be continued.
pub fn primary_left(server: &mut Server, c: &Client) {
    let now_ms = server.clock.now_ms;
    let Some(upstream) = &mut server.replication.upstream else {
        return;
    };
    if upstream.client != Some(c.reference()) {
        return;
    }
    upstream.client = None;
    upstream.db = c.db;
    upstream.unit = Vec::new();
    upstream.lost(now_ms);
    let words = server.config.words();
    log::info!("{}", words.line("Connection with master lost.", &[]));
    if upstream.can_continue {
        log::info!(
            "{}",
            words.line("Caching the disconnected master state.", &[])
        );
    }
}

/// The output limits of replicas. A replica's hard limit is at least the size of the backlog, whose
/// bytes are kept anyway.
pub fn limits(server: &Server) -> Limits {
    let limit = &server.config.client_output_buffer_limit[ClientClass::Replica as usize];
    let hard = match limit.hard {
        0 => 0,
        hard => hard.max(server.config.repl_backlog_size),
    };
    Limits {
        hard,
        soft: limit.soft,
        soft_s: limit.soft_seconds,
    }
}

impl Server {
    /// Called before a replica is closed by its output limit. If the replica was in a full sync,
    /// the next full sync of this replica may be delayed.
    pub fn replica_overran(&mut self, client: ClientRef) {
        let (limits, now_ms) = (limits(self), self.clock.now_ms);
        let replica = self.replication.replicas.get(client);
        let in_sync = |replica: &&Replica| !replica.synced && replica.sync_began_ms > 0;
        let Some(name) = replica.filter(in_sync).map(Replica::name) else {
            return;
        };
        let (count, delay_ms) = self.replication.overruns.note(&name, limits, now_ms);
        if delay_ms > 0 {
            log::warn!(
                "{count} full syncs of replica {name} in a row exceeded client-output-buffer-limit: more is written \
                 during a sync than the limit allows. The next one begins in {} seconds at the earliest. Raise the \
                 limit, or set repl-throttling-enabled.",
                delay_ms / 1000
            );
        }
    }
}

/// Switches propagation to the replication stream on or off: on exactly if the stream is open and
/// this server is a primary.
pub fn follow_stream(server: &mut Server) {
    let open = server.replication.stream.is_open();
    // A replica's stream is a copy of its primary's stream, byte for byte, so its own changes are
    // not fed to it.
    let feeds = open && !server.replication.is_replica();
    server.propagation.set_sink(sink::REPLICAS, feeds);
    server.update_armed();
}

#[cfg(test)]
mod tests;
