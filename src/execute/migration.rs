//! The data of MIGRATE: the request of a client and its progress. `networking::migrate` does the
//! I/O.
//!
//! ```text
//!   queue ──── RESTORE is sent ───> due ──── OK ───> restored ── at the end ──> deleted here, unless it has
//!                                    │                                          changed meanwhile: queue, again
//!                                    └── an error ─> stays here; the first error is the reply
//! ```
//!
//! **Invariant:** replies come in the order of `due`.
//! **Limit:** a key that changes during its transfer is sent at most [`ROUNDS_MAX`] times.

use std::collections::VecDeque;

use crate::client::ClientRef;

/// The maximum number of times that a key that changes during its transfer is sent.
pub const ROUNDS_MAX: u32 = 3;

/// The server that gets the keys, with the account for it. An idle connection is reused for
/// requests with an equal destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    pub host: String,
    pub port: u16,
    /// The user, unless it is the default one, and the password.
    pub account: Option<(Option<String>, String)>,
}

/// A key that was sent, and whose reply has not arrived.
pub struct Due {
    pub key: Box<[u8]>,
    /// The size of the key's request in bytes.
    pub bytes: usize,
    /// Whether the key was deleted here during the transfer; it is then deleted at the destination,
    /// too.
    pub is_deletion: bool,
    /// Whether changes of the key are watched (`keyspace::watch::begin_transfer`).
    pub is_watched: bool,
}

/// The request and the progress of one MIGRATE.
pub struct Migration {
    pub client: ClientRef,
    pub destination: Destination,
    /// The database of the keys on this server.
    pub db: u32,
    /// The database at the destination, as the client wrote it.
    pub to_db: i64,
    pub timeout_ms: u64,
    pub copy: bool,
    pub replace: bool,
    /// Keys that are not sent yet.
    pub queue: VecDeque<Box<[u8]>>,
    /// Keys that were sent and have no reply yet, in order.
    pub due: VecDeque<Due>,
    /// Keys that the destination has stored.
    pub restored: Vec<Box<[u8]>>,
    /// The first error of the destination.
    pub error: Option<Vec<u8>>,
    /// The number of times that changed keys have been sent again.
    pub round: u32,
    /// Whether SELECT has succeeded at the destination.
    pub is_selected: bool,
    /// Whether the connection was idle before. If such a connection breaks before the first reply,
    /// another connection is opened, as the peer may have closed the idle connection long ago.
    pub may_retry: bool,
}

impl Migration {
    /// The size of the requests whose replies are due, in bytes.
    pub fn bytes_due(&self) -> usize {
        self.due.iter().map(|due| due.bytes).sum()
    }

    /// Handles the reply to the first of `due`, which is an error or not. Returns the key if the
    /// destination refused it; the key then stays on this server.
    pub fn replied(&mut self, error: Option<Vec<u8>>) -> Option<Due> {
        self.may_retry = false;
        let due = self.due.pop_front()?;
        if let Some(error) = error {
            self.fail(error);
            return Some(due);
        }
        if !due.is_deletion {
            self.restored.push(due.key);
        }
        None
    }

    /// Keeps the first error of the destination.
    pub fn fail(&mut self, error: Vec<u8>) {
        self.error.get_or_insert(error);
    }

    /// Queues all keys again, after the connection broke before any reply.
    pub fn begin_again(&mut self) {
        let due = std::mem::take(&mut self.due);
        for due in due.into_iter().rev() {
            self.queue.push_front(due.key);
        }
        (self.may_retry, self.is_selected) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(keys: &[&str]) -> Migration {
        Migration {
            client: ClientRef { slot: 0, id: 1 },
            destination: Destination {
                host: "h".into(),
                port: 1,
                account: None,
            },
            db: 0,
            to_db: 0,
            timeout_ms: 1,
            copy: false,
            replace: false,
            queue: keys.iter().map(|key| key.as_bytes().into()).collect(),
            due: VecDeque::new(),
            restored: Vec::new(),
            error: None,
            round: 0,
            is_selected: true,
            may_retry: true,
        }
    }

    fn send(m: &mut Migration, n: usize) {
        for key in m.queue.drain(..n) {
            m.due.push_back(Due {
                key,
                bytes: 10,
                is_deletion: false,
                is_watched: true,
            });
        }
    }

    #[test]
    fn the_first_error_stays_and_only_restored_keys_are_listed() {
        let mut m = migration(&["a", "b", "c"]);
        send(&mut m, 3);
        assert_eq!(m.bytes_due(), 30);
        let stays = m.replied(Some(b"BUSYKEY".to_vec())).map(|due| due.key);
        assert_eq!(stays.as_deref(), Some(b"a".as_slice()));
        assert!(m.replied(None).is_none(), "it is there");
        m.replied(Some(b"OOM".to_vec()));
        assert_eq!(m.error.as_deref(), Some(b"BUSYKEY".as_slice()));
        assert_eq!(m.restored, [b"b".as_slice().into()]);
        assert!(m.replied(None).is_none(), "no key is due");
        assert!(!m.may_retry);
    }

    #[test]
    fn a_second_connection_gets_the_keys_in_their_order() {
        let mut m = migration(&["a", "b", "c"]);
        send(&mut m, 2);
        m.begin_again();
        let keys: Vec<&[u8]> = m.queue.iter().map(|key| &**key).collect();
        assert_eq!(keys, [b"a", b"b", b"c"]);
        assert!(m.due.is_empty() && !m.may_retry && !m.is_selected);
    }
}
