//! The snapshot that is being made for replicas: what it holds, and, on its way through a pipe, how
//! much of it each replica has.
//!
//! ```text
//!   child ─> pipe ─> chunk ─┬─> socket of replica 1     sent: all
//!                           ├─> socket of replica 2     sent: 2/3    <- the next chunk waits for it
//!                           └─> socket of replica 3     sent: all
//! ```
//!
//! The slowest replica decides; one that takes nothing for `repl-timeout` is closed.

use std::io::PipeReader;

use ae::Token;

use crate::client::ClientRef;
use crate::client::announced::Contents;

/// What a snapshot holds and how: replicas with equal wishes share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub contents: Contents,
    /// The RDB version.
    pub version: u32,
}

/// The snapshot that a child makes for replicas in the state `SnapshotRunning`.
pub struct Snapshot {
    pub form: Form,
    /// The offset of the stream at the fork.
    pub offset: u64,
    /// `None`: it goes to the disk, and from there to the replicas.
    pub broadcast: Option<Broadcast>,
}

/// A snapshot on its way from a child's pipe to the sockets of replicas.
pub struct Broadcast {
    pub pipe: PipeReader,
    /// The pipe's registration in the loop.
    pub token: Option<Token>,
    /// What was read from the pipe last.
    pub chunk: Vec<u8>,
    pub receivers: Vec<Receiver>,
    /// Nothing more comes from the pipe.
    pub ended: bool,
    /// The child has ended: whether it did its work.
    pub succeeded: Option<bool>,
}

/// A replica that receives the snapshot.
pub struct Receiver {
    pub client: ClientRef,
    /// Bytes of the chunk that its socket has taken.
    pub sent: usize,
}

impl Broadcast {
    pub fn new(pipe: PipeReader, receivers: Vec<ClientRef>) -> Broadcast {
        let receivers = receivers.into_iter();
        Broadcast {
            pipe,
            token: None,
            chunk: Vec::new(),
            receivers: receivers
                .map(|client| Receiver { client, sent: 0 })
                .collect(),
            ended: false,
            succeeded: None,
        }
    }

    /// All sockets have taken the chunk: the next one can be read.
    pub fn is_sent(&self) -> bool {
        self.receivers.iter().all(|r| r.sent == self.chunk.len())
    }
}
