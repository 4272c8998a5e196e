//! The replicas of this server. They are few, so the table is a vector that is searched from its
//! beginning.
//!
//! ```text
//!   PSYNC ─┬─ partial ──────────────────────────────────────────────────────> Online
//!          └─ full ─> WaitsForSnapshot ─> SnapshotRunning ─┬─ (a file) ─> Receiving ─> Online
//!                     a child must be started              └─ (a pipe) ──────────────> Online
//! ```
//!
//! **Invariant:** from `SnapshotRunning` on a replica's cursor stands where the snapshot ends, so
//! the stream holds what it will be sent next (`networking::replicas`).

use std::fs::File;

use crate::client::ClientRef;
use crate::client::announced::Announced;
use crate::propagate::stream::Cursor;

/// How far a replica is.
#[derive(Debug)]
pub enum State {
    /// It waits for a child to be started.
    WaitsForSnapshot { since_ms: i64 },
    /// The child that makes its snapshot runs. Through a pipe it receives it already.
    SnapshotRunning,
    /// It is sent a file.
    Receiving(Box<Transfer>),
    /// It is sent the stream.
    Online,
}

/// A snapshot in a file that one replica is sent.
#[derive(Debug)]
pub struct Transfer {
    pub file: File,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of it that have been read.
    pub read: u64,
    /// What was read and not sent yet; `$<size>` at first.
    pub unsent: Vec<u8>,
}

impl Transfer {
    pub fn new(file: File, size: u64) -> Transfer {
        Transfer {
            file,
            size,
            read: 0,
            unsent: format!("${size}\r\n").into_bytes(),
        }
    }
}

/// A client that follows this server.
pub struct Replica {
    pub client: ClientRef,
    pub state: State,
    /// What the socket has not taken yet begins here; `None` before a snapshot was started.
    pub cursor: Option<Cursor>,
    /// The first byte of the stream has been sent: no reply may come between.
    pub began: bool,
    /// The stream waits for the first REPLCONF ACK: a snapshot that came through a pipe has no
    /// length, and its receiver says so when it has all.
    pub waits_for_ack: bool,
    /// SYNC: it understands neither +FULLRESYNC nor REPLCONF ACK.
    pub is_old: bool,
    pub announced: Announced,
    /// The address that it is known by: what it announced, or that of its connection.
    pub ip: Box<str>,
    /// How far it has applied the stream, by its own account: bytes of the whole history.
    pub acked: u64,
    /// How far its AOF is on its disk.
    pub acked_aof: u64,
    /// When it was heard of last, in Unix time.
    pub ack_ms: i64,
    /// When its socket last took bytes of a snapshot; 0 before the first.
    pub wrote_ms: i64,
}

impl Replica {
    /// A client that has asked for a sync. `ip` is the address that it is known by.
    pub fn new(client: ClientRef, announced: Announced, ip: &str, now_ms: i64) -> Replica {
        Replica {
            client,
            state: State::WaitsForSnapshot { since_ms: now_ms },
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
        }
    }

    /// What the log calls it: its address and the port that it listens on.
    pub fn name(&self) -> String {
        match (&*self.ip, self.announced.port) {
            ("", _) => format!("client id #{}", self.client.id),
            (ip, 0) => format!("{ip}:<unknown-replica-port>"),
            (ip, port) if ip.contains(':') => format!("[{ip}]:{port}"),
            (ip, port) => format!("{ip}:{port}"),
        }
    }

    pub fn is_online(&self) -> bool {
        matches!(self.state, State::Online)
    }

    /// It is sent the stream now.
    pub fn is_streaming(&self) -> bool {
        self.is_online() && !self.waits_for_ack
    }

    /// Its state in INFO.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::WaitsForSnapshot { .. } | State::SnapshotRunning => "wait_bgsave",
            State::Receiving(_) => "send_bulk",
            State::Online => "online",
        }
    }

    /// Seconds since its last acknowledgement, for INFO.
    pub fn lag_s(&self, now_ms: i64) -> i64 {
        match self.is_online() {
            true => (now_ms - self.ack_ms) / 1000,
            false => 0,
        }
    }
}

#[derive(Default)]
pub struct Replicas {
    all: Vec<Replica>,
}

impl Replicas {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The client in this place, from 0 on without gap.
    pub fn client(&self, at: usize) -> Option<ClientRef> {
        self.all.get(at).map(|replica| replica.client)
    }

    /// All clients, to be walked over while the table changes.
    pub fn clients(&self) -> Vec<ClientRef> {
        self.all.iter().map(|replica| replica.client).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.all.iter_mut()
    }

    pub fn get(&self, client: ClientRef) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.client == client)
    }

    pub fn get_mut(&mut self, client: ClientRef) -> Option<&mut Replica> {
        self.all.iter_mut().find(|replica| replica.client == client)
    }

    /// Replicas that are online and were heard of within `max_lag_s` seconds: those that
    /// `min-replicas-to-write` counts.
    pub fn good(&self, max_lag_s: i64, now_ms: i64) -> usize {
        let good = |r: &&Replica| r.is_online() && r.lag_s(now_ms) <= max_lag_s;
        self.all.iter().filter(good).count()
    }

    /// Online replicas that have acknowledged this offset.
    pub fn acked(&self, offset: u64) -> usize {
        let acked = |r: &&Replica| r.is_online() && r.acked >= offset;
        self.all.iter().filter(acked).count()
    }

    /// Online replicas whose AOF holds everything up to this offset.
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
        // The others keep their order: INFO numbers them.
        Some(self.all.remove(at))
    }
}
