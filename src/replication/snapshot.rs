//! The snapshot that is being created for replicas: its content and RDB version and, if it is sent
//! through a pipe, the progress of each replica.
//!
//! ```text
//!   child ─> pipe ─> chunk ─┬─> socket of replica 1     sent: all
//!                           ├─> socket of replica 2     sent: 2/3    <- the next chunk waits for it
//!                           └─> socket of replica 3     sent: all
//! ```
//!
//! If the replicas have second connections for the snapshot, the child writes to these itself, and
//! this process only notices when they are closed (`sync::channels`).
//!
//! The slowest replica determines the speed of the snapshot; the connection of a replica that
//! accepts nothing for `repl-timeout` is closed.

use std::io::PipeReader;
use std::net::TcpStream;

use ae::Token;

use crate::client::ClientRef;
use crate::client::announced::Contents;

/// The content and the version of a snapshot: replicas that need the same content and version share
/// one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub contents: Contents,
    /// The RDB version in which the snapshot is written.
    pub version: u32,
    /// Whether the child writes the snapshot to connections that have no other purpose.
    pub channel: bool,
}

/// The snapshot that a child creates for replicas in the state `SnapshotRunning`.
pub struct Snapshot {
    pub form: Form,
    /// The replication offset at which the child was forked.
    pub offset: u64,
    pub way: Way,
}

/// How a snapshot comes from the child to the replicas.
pub enum Way {
    /// The snapshot is written to the disk and sent to the replicas from there. `useless`: all
    /// replicas that waited for the snapshot have left, and the child that writes it has been
    /// killed.
    Disk {
        useless: bool,
    },
    Pipe(Broadcast),
    /// The child writes to a connection of each replica.
    Sockets(Sockets),
}

/// The connections of replicas to which a child writes the snapshot.
pub struct Sockets {
    /// The replicas' connections, in the order of the sockets that the child has.
    pub targets: Vec<Target>,
    /// The Unix time in milliseconds at which the last of the replicas closed its connection; the
    /// child's work is useless from then on.
    pub useless_since_ms: Option<i64>,
}

/// A replica's connection to which a child writes the snapshot.
pub struct Target {
    pub client: ClientRef,
    /// A duplicate of the client's socket. The socket is shut down when the client is gone, since
    /// the child would keep the connection open otherwise; after that the field is `None`.
    pub socket: Option<TcpStream>,
}

/// A snapshot that is read from a child's pipe and sent to the sockets of replicas.
pub struct Broadcast {
    pub pipe: PipeReader,
    /// The token under which the event loop watches the child's pipe.
    pub token: Option<Token>,
    /// The bytes of the snapshot that were last read from the child's pipe.
    pub chunk: Vec<u8>,
    pub receivers: Vec<Receiver>,
    /// Whether the end of the child's pipe has been read.
    pub ended: bool,
    /// Whether the child that writes the snapshot has succeeded; `None` while the child runs.
    pub succeeded: Option<bool>,
}

/// A replica that receives the snapshot.
pub struct Receiver {
    pub client: ClientRef,
    /// The number of bytes of the broadcast's present chunk that the replica's socket has accepted.
    pub sent: usize,
    /// Whether the replica has sent REPLCONF ACK since its last byte was sent.
    pub loaded: bool,
}

impl Broadcast {
    /// A broadcast for which nothing has been read from the child's pipe yet.
    pub fn new(pipe: PipeReader, receivers: Vec<ClientRef>) -> Broadcast {
        let receivers = receivers.into_iter();
        Broadcast {
            pipe,
            token: None,
            chunk: Vec::new(),
            receivers: receivers
                .map(|client| Receiver {
                    client,
                    sent: 0,
                    loaded: false,
                })
                .collect(),
            ended: false,
            succeeded: None,
        }
    }

    /// Notes a REPLCONF ACK of a replica. If all bytes read from the pipe so far were sent to the
    /// replica, they may be the whole snapshot, which the replica then has loaded: this server
    /// often notices the end of the child later.
    pub fn acknowledged(&mut self, client: ClientRef) {
        let sent = self.chunk.len();
        let mut receivers = self.receivers.iter_mut();
        if let Some(r) = receivers.find(|r| r.client == client && r.sent == sent) {
            r.loaded = true;
        }
    }

    /// Notes that more bytes of the snapshot have followed, so that earlier acknowledgements of
    /// replicas are not about the whole snapshot.
    pub fn goes_on(&mut self) {
        self.receivers.iter_mut().for_each(|r| r.loaded = false);
    }

    /// The empty buffer for the next chunk of the snapshot, of which no replica's socket has
    /// accepted a byte yet.
    pub fn next_chunk(&mut self) -> &mut Vec<u8> {
        self.receivers.iter_mut().for_each(|r| r.sent = 0);
        self.chunk.clear();
        &mut self.chunk
    }

    /// Whether the sockets of all replicas have accepted the present chunk, so that the next chunk
    /// can be read from the child's pipe.
    pub fn is_sent(&self) -> bool {
        self.receivers.iter().all(|r| r.sent == self.chunk.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    /// The end of the child's pipe may directly follow a chunk that all replicas have accepted.
    #[test]
    fn a_broadcast_is_sent_when_nothing_follows_the_last_chunk() {
        let (pipe, _) = std::io::pipe().expect("a pipe");
        let mut broadcast = Broadcast::new(pipe, vec![Client::detached(1, 0).reference()]);
        assert!(broadcast.is_sent());
        broadcast.next_chunk().extend_from_slice(b"chunk");
        assert!(!broadcast.is_sent());
        broadcast.receivers[0].sent = 5;
        assert!(broadcast.is_sent());
        assert!(broadcast.next_chunk().is_empty());
        assert!(broadcast.is_sent());
    }
}
