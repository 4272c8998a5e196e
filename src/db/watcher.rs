//! A client that watches a key: an entry of the database's table of watched keys.

use crate::client::ClientRef;

/// A client that watches a key.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub client: ClientRef,
    /// The key had already expired when WATCH was called: its deletion is not a change.
    pub expired: bool,
    /// MIGRATE of this client is sending the key; whether the key has changed since.
    pub transfer: Option<bool>,
}
