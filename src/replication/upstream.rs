//! The primary that this server follows: the state of the link to it, and the progress of a sync.
//!
//! ```text
//!   REPLICAOF ─> Connect ─> Connecting ─> Handshake ─┬─ +CONTINUE ───────────────> Connected
//!                  ^ ^                               └─ +FULLRESYNC ─> Transfer ─> Connected
//!                  │ └── the handshake or the transfer failed ────────────┘           │
//!                  └──── the link broke: the history goes on where it was applied ─────┘
//! ```
//!
//! The primary's stream is applied and appended to this server's own stream, byte for byte, so that
//! replicas of this server have the same offsets. So the end of this server's stream is the offset
//! up to which the primary's stream was applied.
//!
//! **Invariant:** the bytes of a transaction are appended to the stream when its EXEC has run. If
//! the link breaks within a transaction, the offset is that before the MULTI.

use crate::client::ClientRef;
use crate::replication::two_channels::Collected;

/// The least time between two attempts to connect, in milliseconds.
pub const RETRY_MS: i64 = 1000;

/// The state of the link to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No connection exists; an attempt to connect follows.
    Connect,
    Connecting,
    /// The connection to the primary exists, and the reply to PSYNC has not arrived.
    Handshake,
    /// A snapshot is being received or loaded.
    Transfer,
    /// The stream is being received.
    Connected,
}

impl Phase {
    /// The name of the link's state in ROLE's reply.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Connecting => "connecting",
            Phase::Handshake => "handshake",
            Phase::Transfer => "sync",
            Phase::Connected => "connected",
        }
    }
}

/// The received part of a snapshot, for INFO.
#[derive(Clone, Copy, Default, Debug)]
pub struct Received {
    /// The size of the snapshot; `None` before the snapshot's header, 0 if the snapshot has no
    /// length and ends with a mark.
    pub total: Option<u64>,
    /// Bytes of the snapshot that were received.
    pub bytes: u64,
    /// The Unix time at which bytes of the snapshot last arrived, in milliseconds.
    pub last_io_ms: i64,
}

/// The primary, and the state of the link to it.
#[derive(Debug)]
pub struct Upstream {
    pub host: Box<str>,
    pub port: u16,
    pub phase: Phase,
    /// The number of this primary: each primary that the server begins to follow gets a new number.
    pub number: u64,
    /// The client that applies the stream, while the link works.
    pub client: Option<ClientRef>,
    /// The replication offset at which `client` was created.
    pub attached_at: u64,
    /// The number of bytes read by `client` that `total_net_repl_input_bytes` of INFO includes
    /// already.
    pub counted: u64,
    /// The database that is selected at the end of the stream.
    pub db: u32,
    /// Whether this server's data are those of its replication id and offset, so that PSYNC may
    /// request the stream from this offset on.
    pub can_continue: bool,
    /// Whether this server's data are those of another shard of the cluster, so that their offset
    /// cannot be compared with those of other replicas.
    pub has_foreign_data: bool,
    /// The received bytes of an incomplete transaction.
    pub unit: Vec<u8>,
    /// The Unix time at which the link broke, in seconds; 0 if it works or never worked.
    pub down_since_s: i64,
    /// The Unix time since which the link works, in seconds.
    pub up_since_s: i64,
    /// The number of attempts to connect since the link last worked, the successful one included.
    pub attempts: u64,
    /// The number of attempts to connect to this primary.
    pub total_attempts: u64,
    pub received: Received,
    /// The delay of the last PING with a time stamp, from its sending to its execution.
    pub lag_ms: Option<i64>,
    /// The bytes of the stream that wait until a snapshot from another connection is loaded.
    pub collected: Collected,
    /// The Unix time of the next attempt to connect, in milliseconds.
    pub connect_at_ms: i64,
    /// The Unix time at which the last snapshot began to arrive, in milliseconds.
    pub snapshot_ms: i64,
    /// Whether the primary has replied to PSYNC. A primary that has not replied to PSYNC was sent
    /// SYNC, and does not know REPLCONF ACK.
    pub speaks_psync: bool,
    /// Whether the primary was set by an operator and has not been synchronised since: its data set
    /// is then accepted even if it is empty.
    pub is_new: bool,
    /// Whether the last sync was refused, because the primary had no keys and this server has.
    pub refused_empty: bool,
    /// The Unix time at which the refusal of an empty primary was last logged, in milliseconds.
    pub refused_logged_ms: i64,
}

impl Upstream {
    /// A primary to which the server connects at once.
    pub fn new(host: &str, port: u16, number: u64) -> Upstream {
        Upstream {
            host: host.into(),
            port,
            phase: Phase::Connect,
            number,
            client: None,
            attached_at: 0,
            counted: 0,
            db: 0,
            can_continue: false,
            has_foreign_data: false,
            unit: Vec::new(),
            down_since_s: 0,
            up_since_s: 0,
            attempts: 0,
            total_attempts: 0,
            received: Received::default(),
            lag_ms: None,
            collected: Collected::default(),
            connect_at_ms: 0,
            snapshot_ms: 0,
            speaks_psync: true,
            is_new: true,
            refused_empty: false,
            refused_logged_ms: 0,
        }
    }

    /// Notes that the server begins to connect to the primary.
    pub fn attempt(&mut self) {
        self.phase = Phase::Connecting;
        self.speaks_psync = true;
        self.attempts += 1;
        self.total_attempts += 1;
        self.collected.clear();
    }

    /// Notes that the link has broken. The next attempt follows at once, but not within a second
    /// after a snapshot began: a primary whose stream can't be applied would send one snapshot
    /// after the other.
    pub fn lost(&mut self, now_ms: i64) {
        self.phase = Phase::Connect;
        self.attempts = 0;
        self.down_since_s = now_ms / 1000;
        self.connect_at_ms = self.snapshot_ms + RETRY_MS;
    }

    /// Whether the next attempt to connect is the first one after a link that worked.
    pub fn reconnects(&self) -> bool {
        self.attempts == 0 && self.down_since_s != 0
    }

    /// The seconds since the link broke, 0 if it has not.
    pub fn down_s(&self, now_s: i64) -> i64 {
        match self.down_since_s {
            0 => 0,
            since_s => now_s - since_s,
        }
    }

    /// Whether the link to the primary works.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_link_is_made_again_at_once_but_not_for_a_second_snapshot() {
        let mut upstream = Upstream::new("primary", 1, 1);
        assert!(!upstream.reconnects());
        upstream.attempt();
        upstream.snapshot_ms = 5_000;
        upstream.lost(90_000);
        assert!(upstream.connect_at_ms <= 90_000 && upstream.reconnects());
        upstream.attempt();
        assert!(!upstream.reconnects());
        upstream.snapshot_ms = 90_000;
        upstream.lost(90_100);
        assert_eq!(upstream.connect_at_ms, 91_000);
    }
}
