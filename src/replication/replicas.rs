//! The replicas of this server. A server has few replicas, so the table is a vector with a linear
//! search.
//!
//! ```text
//!   PSYNC ─┬─ partial ──────────────────────────────────────────────────────> Online
//!          └─ full ─> WaitsForSnapshot ─> SnapshotRunning ─┬─ (a file) ─> Receiving ─> Online
//!                     a child must be started              └─ (a pipe) ──────────────> Online
//!
//!   two connections:
//!     the snapshot   WaitsForSnapshot ─> SnapshotRunning ─> Delivered     (the child writes to it)
//!     the stream     (Redis: WaitsForChannel ─>) Loading ─ the first ACK ─> Online
//! ```
//!
//! **Invariant:** from `SnapshotRunning` on a replica's cursor is at the offset of the snapshot, so
//! the stream keeps the bytes that follow it (`networking::replicas`).

use std::fs::File;

use crate::client::ClientRef;
use crate::client::announced::Announced;
use crate::propagate::stream::Cursor;
use crate::replication::psync::Dialect;

/// The state of a replica.
#[derive(Debug)]
pub enum State {
    /// The replica waits until a child can be started for its snapshot.
    WaitsForSnapshot { since_ms: i64 },
    /// The child that creates the replica's snapshot runs. If the child writes the snapshot into a
    /// pipe, the replica already receives the snapshot.
    SnapshotRunning,
    /// The replica receives a snapshot from a file.
    Receiving(Box<Transfer>),
    /// All bytes of the snapshot have been sent over this connection, which has no other purpose.
    Delivered,
    /// The main connection waits until the replica's other connection requests the snapshot.
    WaitsForChannel { since_ms: i64 },
    /// The main connection receives the stream, while the replica receives or loads the snapshot of
    /// its other connection.
    Loading,
    /// The replica receives the stream.
    Online,
}

/// Whether a connection of a replica is for the snapshot, for the stream, or for both of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The replica's only connection: snapshot and stream.
    Only,
    /// The replica's connection for the replication stream. The snapshot has a connection of its
    /// own; `snapshot` is the id of its client, `None` until that client has connected.
    Main {
        snapshot: Option<u64>,
        dialect: Dialect,
    },
    /// The replica's connection for the snapshot; the replication stream has a connection of its
    /// own.
    Snapshot,
}

/// A snapshot in a file that is sent to one replica.
#[derive(Debug)]
pub struct Transfer {
    pub file: File,
    /// The size of the snapshot file in bytes.
    pub size: u64,
    /// The number of bytes of the snapshot file that have been read.
    pub read: u64,
    /// Bytes that were read from the snapshot file but not sent; at first the header `$<size>`.
    pub unsent: Vec<u8>,
}

impl Transfer {
    /// The transfer of a snapshot file, before the header `$<size>` is sent.
    pub fn new(file: File, size: u64) -> Transfer {
        Transfer {
            file,
            size,
            read: 0,
            unsent: format!("${size}\r\n").into_bytes(),
        }
    }
}

/// A client that is a replica of this server: it has sent PSYNC or SYNC.
pub struct Replica {
    pub client: ClientRef,
    pub state: State,
    pub channel: Channel,
    /// The position in the replication stream of the first byte that the replica's socket has not
    /// accepted; `None` before a snapshot was started.
    pub cursor: Option<Cursor>,
    /// Whether the snapshot, or the first byte of the stream, has been sent: from then on no reply
    /// to a command may be sent to the replica.
    pub began: bool,
    /// Whether the stream is held back until the first REPLCONF ACK: a snapshot through a pipe has
    /// no length, so the replica reports that it has read the end.
    pub waits_for_ack: bool,
    /// Whether the replica sent SYNC, and so supports neither +FULLRESYNC nor REPLCONF ACK.
    pub is_old: bool,
    pub announced: Announced,
    /// The replica's address: the announced one, or that of its connection.
    pub ip: Box<str>,
    /// The offset up to which the replica has applied the stream, according to its last
    /// acknowledgement.
    pub acked: u64,
    /// The offset up to which the replica's AOF is on its disk.
    pub acked_aof: u64,
    /// The Unix time of the replica's last acknowledgement, in milliseconds.
    pub ack_ms: i64,
    /// The time at which the replica's socket last accepted bytes of a snapshot; 0 before the first
    /// bytes, and while the socket has accepted all bytes that the child has written.
    pub wrote_ms: i64,
    /// The time at which the replica's snapshot was started; 0 before the start.
    pub sync_began_ms: i64,
    /// Whether the replica has loaded its snapshot, as its first acknowledgement says.
    pub synced: bool,
}

impl Replica {
    /// A replica that has just requested a sync over `client`. `ip` is the client's address.
    pub fn new(client: ClientRef, announced: Announced, ip: &str, now_ms: i64) -> Replica {
        Replica {
            client,
            state: State::WaitsForSnapshot { since_ms: now_ms },
            channel: Channel::Only,
            cursor: None,
            began: false,
            waits_for_ack: false,
            is_old: false,
            announced,
            ip: ip.into(),
            acked: 0,
            acked_aof: 0,
            ack_ms: now_ms,
            wrote_ms: 0,
            sync_began_ms: 0,
            synced: false,
        }
    }

    /// The replica's name in log lines: its address and the port on which it listens.
    pub fn name(&self) -> String {
        match (&*self.ip, self.announced.port) {
            ("", _) => format!("client id #{}", self.client.id),
            (ip, 0) => format!("{ip}:<unknown-replica-port>"),
            (ip, port) if ip.contains(':') => format!("[{ip}]:{port}"),
            (ip, port) => format!("{ip}:{port}"),
        }
    }

    /// The time since the replica's snapshot was started, in milliseconds; `None` before the start.
    pub fn sync_ms(&self, now_ms: i64) -> Option<u64> {
        let began_ms = Some(self.sync_began_ms).filter(|began_ms| *began_ms > 0)?;
        u64::try_from(now_ms - began_ms).ok()
    }

    /// Whether the replica is online: it receives the stream, or will after its first REPLCONF ACK.
    pub fn is_online(&self) -> bool {
        matches!(self.state, State::Online)
    }

    /// Whether the stream is sent to the replica now.
    pub fn is_streaming(&self) -> bool {
        match self.state {
            State::Online => !self.waits_for_ack,
            State::Loading => true,
            _ => false,
        }
    }

    /// Whether the replica acknowledges the stream, now or after its snapshot.
    pub fn has_stream(&self) -> bool {
        self.channel != Channel::Snapshot
    }

    /// The word for the use of the replica's connection in INFO (`type=`).
    pub fn type_name(&self) -> &'static str {
        match (self.channel, &self.state) {
            (Channel::Snapshot, _) => "rdb-channel",
            (Channel::Main { .. }, State::WaitsForChannel { .. } | State::Loading) => {
                "main-channel"
            }
            _ => "replica",
        }
    }

    /// The name of the replica's state in INFO.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::WaitsForSnapshot { .. }
            | State::SnapshotRunning
            | State::WaitsForChannel { .. } => "wait_bgsave",
            State::Receiving(_) => "send_bulk",
            State::Delivered => "rdb_transmitted",
            State::Loading => match self.channel {
                Channel::Main {
                    dialect: Dialect::Redis,
                    ..
                } => "send_bulk_and_stream",
                _ => "bg_transfer",
            },
            State::Online => "online",
        }
    }

    /// Seconds since the replica's last acknowledgement, for INFO.
    pub fn lag_s(&self, now_ms: i64) -> i64 {
        match self.is_online() {
            true => (now_ms - self.ack_ms) / 1000,
            false => 0,
        }
    }
}

/// The replicas of this server.
#[derive(Default)]
pub struct Replicas {
    all: Vec<Replica>,
}

impl Replicas {
    /// Whether there are no replicas.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of replicas.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The client of the replica at this index; indices run from 0 without a gap.
    pub fn client(&self, at: usize) -> Option<ClientRef> {
        self.all.get(at).map(|replica| replica.client)
    }

    /// The clients of all replicas, copied for a loop during which replicas may be added or
    /// removed.
    pub fn clients(&self) -> Vec<ClientRef> {
        self.all.iter().map(|replica| replica.client).collect()
    }

    /// All replicas.
    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.all.iter()
    }

    /// The replica whose connection is `client`.
    pub fn get(&self, client: ClientRef) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.client == client)
    }

    /// The replica whose client has this id.
    pub fn of_id(&self, id: u64) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.client.id == id)
    }

    /// The main connection of the replica whose snapshot the client `snapshot` receives.
    pub fn main_of(&self, snapshot: u64) -> Option<ClientRef> {
        let is = |replica: &&Replica| match replica.channel {
            Channel::Main { snapshot: of, .. } => of == Some(snapshot),
            _ => false,
        };
        self.all.iter().find(is).map(|replica| replica.client)
    }

    /// The replica whose connection is `client`, for changes.
    pub fn get_mut(&mut self, client: ClientRef) -> Option<&mut Replica> {
        self.all.iter_mut().find(|replica| replica.client == client)
    }

    /// The number of replicas that are online and have sent an acknowledgement within `max_lag_s`
    /// seconds, for `min-replicas-to-write`.
    pub fn good(&self, max_lag_s: i64, now_ms: i64) -> usize {
        let good = |r: &&Replica| r.is_online() && r.lag_s(now_ms) <= max_lag_s;
        self.all.iter().filter(good).count()
    }

    /// The number of online replicas that have acknowledged this offset.
    pub fn acked(&self, offset: u64) -> usize {
        let acked = |r: &&Replica| r.is_online() && r.acked >= offset;
        self.all.iter().filter(acked).count()
    }

    /// The number of replicas that are online, if all replicas execute CLUSTER SETSLOT of their
    /// primary: Valkey from version 8 on, and this server. `None` if there is a replica of Redis,
    /// which replies with an error.
    pub fn learning_of_moves(&self) -> Option<usize> {
        let executes = |r: &Replica| r.announced.version.is_some_and(|v| v >= 0x08_00_00);
        let all = self.all.iter().all(|r| r.announced.rdb_only || executes(r));
        all.then(|| self.all.iter().filter(|r| r.is_online()).count())
    }

    /// The number of online replicas whose AOF is on their disk up to this offset.
    pub fn acked_aof(&self, offset: u64) -> usize {
        let acked = |r: &&Replica| r.is_online() && r.acked_aof >= offset;
        self.all.iter().filter(acked).count()
    }

    pub(super) fn insert(&mut self, replica: Replica) {
        self.all.push(replica);
    }

    pub(super) fn remove(&mut self, client: ClientRef) -> Option<Replica> {
        let is = |replica: &Replica| replica.client == client;
        let at = self.all.iter().position(is)?;
        // The other replicas keep their order, by which INFO numbers them.
        Some(self.all.remove(at))
    }
}
