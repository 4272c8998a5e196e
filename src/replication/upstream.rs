//! The primary that this server follows: how far the link to it is, and what was received of it.
//!
//! ```text
//!   REPLICAOF ─> Connect ─> Connecting ─> Handshake ─┬─ +CONTINUE ───────────────> Connected
//!                  ^ ^                               └─ +FULLRESYNC ─> Transfer ─> Connected
//!                  │ └── the hand-shake or the transfer failed ────────────┘           │
//!                  └──── the link broke: the history goes on where it was applied ─────┘
//! ```
//!
//! What a primary sends is applied and appended to this server's own stream, byte for byte, so that
//! replicas of this server see the same offsets. The stream's end is the applied offset.
//!
//! **Invariant:** bytes of a transaction are appended when its EXEC has run. A link that breaks
//! amid one leaves the offset before its MULTI.

use crate::client::ClientRef;

/// How far the link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// To be connected.
    Connect,
    Connecting,
    /// From PING to the reply to PSYNC.
    Handshake,
    /// A snapshot is received or loaded.
    Transfer,
    /// The stream is received.
    Connected,
}

impl Phase {
    /// As ROLE names it.
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

/// How much of a snapshot has been received, for INFO.
#[derive(Clone, Copy, Default, Debug)]
pub struct Received {
    /// Bytes of the snapshot; `None`: the primary does not know it either.
    pub total: Option<u64>,
    pub bytes: u64,
    /// When bytes came last, in Unix time.
    pub last_io_ms: i64,
}

/// The primary, and the link to it.
#[derive(Debug)]
pub struct Upstream {
    pub host: Box<str>,
    pub port: u16,
    pub phase: Phase,
    /// No other primary of this process has this number.
    pub number: u64,
    /// The client that applies the stream, while connected.
    pub client: Option<ClientRef>,
    /// The stream's end when that client was made.
    pub attached_at: u64,
    /// The database that the stream up to its end has selected.
    pub db: u32,
    /// The data is that of the history's id and offset: PSYNC may ask for what follows.
    pub can_continue: bool,
    /// What was received of a transaction that is not complete.
    pub unit: Vec<u8>,
    /// When the link broke, in seconds of Unix time; 0: it was never up.
    pub down_since_s: i64,
    pub received: Received,
    /// The next attempt to connect, in Unix time.
    pub connect_at_ms: i64,
    /// An operator named this primary, and no sync has ended since: its data set is taken whatever
    /// it holds.
    pub is_new: bool,
    /// The last sync was refused: the primary had no keys, and this server has.
    pub refused_empty: bool,
}

impl Upstream {
    /// A primary to be connected to at once.
    pub fn new(host: &str, port: u16, number: u64) -> Upstream {
        Upstream {
            host: host.into(),
            port,
            phase: Phase::Connect,
            number,
            client: None,
            attached_at: 0,
            db: 0,
            can_continue: false,
            unit: Vec::new(),
            down_since_s: 0,
            received: Received::default(),
            connect_at_ms: 0,
            is_new: true,
            refused_empty: false,
        }
    }

    /// Whether the link to the primary works.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }
}
