//! The data of MIGRATE: the request of a client and its progress. `networking::migrate` does the
//! I/O.
//!
//! ```text
//!   queue ──── RESTORE is sent ───> due ──── OK ───> restored ── at the end ──> deleted here, unless it has
//!                                    │                                          changed meanwhile: queue, again
//!                                    └── an error ─> stays here; the first error is the reply
//! ```
//!
//! **Invariant:** the destination replies to keys in the order of `Migration::due`.
//! **Limit:** a key that changes during its transfer is sent at most [`ROUNDS_MAX`] times.

use std::collections::VecDeque;

use crate::client::ClientRef;

/// The maximum number of times that a key that changes during its transfer is sent.
pub const ROUNDS_MAX: u32 = 3;

/// The server to which MIGRATE sends keys, with the account for AUTH. An idle connection is reused
/// by the next MIGRATE with an equal destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    pub host: String,
    pub port: u16,
    /// The user (`None` for the default user) and the password with which MIGRATE logs in.
    pub account: Option<(Option<String>, String)>,
}

/// A key that MIGRATE has sent, and for which the destination has not replied yet.
pub struct Due {
    pub key: Box<[u8]>,
    /// The size in bytes of the request that was sent for the key.
    pub bytes: usize,
    /// Whether the request deletes the key at the destination, because the key was deleted on this
    /// server during the transfer.
    pub is_deletion: bool,
    /// Whether changes of the key are watched (`keyspace::watch::begin_transfer`).
    pub is_watched: bool,
}

/// The arguments and the progress of one MIGRATE.
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
    /// Keys that MIGRATE has not sent yet.
    pub queue: VecDeque<Box<[u8]>>,
    /// Keys that MIGRATE has sent and that have no reply yet, in the order in which they were sent.
    pub due: VecDeque<Due>,
    /// Keys that the destination has stored.
    pub restored: Vec<Box<[u8]>>,
    /// The first error that the destination has sent; it becomes the reply of MIGRATE.
    pub error: Option<Vec<u8>>,
    /// The number of times that changed keys have been sent again.
    pub round: u32,
    /// Whether the SELECT of the destination's database has succeeded.
    pub is_selected: bool,
    /// Whether the connection was left idle by an earlier MIGRATE and no reply has come yet. If a
    /// connection that was idle breaks before the first reply, another connection is opened, as the
    /// destination may have closed the idle connection long ago.
    pub may_retry: bool,
}

impl Migration {
    /// The size of the requests whose replies are due, in bytes.
    pub fn bytes_due(&self) -> usize {
        self.due.iter().map(|due| due.bytes).sum()
    }

    /// Handles the destination's reply to the first key of `due`. Returns the key if the reply is
    /// an error; a refused key stays on this server.
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

    /// Keeps `error` as the reply of MIGRATE, unless the destination has sent an error before.
    pub fn fail(&mut self, error: Vec<u8>) {
        self.error.get_or_insert(error);
    }

    /// Queues the sent keys again, after the connection broke before the first reply.
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
