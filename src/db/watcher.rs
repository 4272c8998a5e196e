//! A client that watches a key, as the database's table of watched keys holds it.

use crate::client::ClientRef;

/// A client that watches a key.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub client: ClientRef,
    /// The key had expired already when WATCH was called: its deletion does not touch.
    pub expired: bool,
}
