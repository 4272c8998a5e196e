//! A client that watches a key, as the database's table of watched keys stores it.

use crate::client::ClientRef;

/// A client that watches one key, by WATCH or while MIGRATE sends the key.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub client: ClientRef,
    /// Whether the key had already expired when WATCH was called; its deletion is then not a
    /// change.
    pub expired: bool,
    /// `Some` while MIGRATE of this client is sending the key: whether the key has changed since.
    pub transfer: Option<bool>,
}
