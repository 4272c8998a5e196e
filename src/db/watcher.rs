//! A client that watches a key: an entry of the database's table of watched keys.

use crate::client::ClientRef;

/// A client that watches a key.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub client: ClientRef,
    /// Whether the key had already expired when WATCH was called; its deletion is then not a
    /// change.
    pub expired: bool,
    /// `Some` while MIGRATE of this client is sending the key: whether the key has changed since.
    pub transfer: Option<bool>,
}
