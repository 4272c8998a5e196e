//! The clients that wait for one key: an entry of the database's table of blocking keys.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::client::ClientRef;

/// The clients that wait for one key.
#[derive(Default)]
pub struct Waiting {
    /// By ticket, which is the order of arrival.
    pub clients: BTreeMap<u64, ClientRef>,
    /// The number of these clients that are also notified when the key is deleted.
    pub on_nokey: usize,
}

impl Waiting {
    /// Whether no client waits.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The first client with a ticket in this range.
    pub fn next(&self, tickets: Range<u64>) -> Option<(u64, ClientRef)> {
        self.clients
            .range(tickets)
            .next()
            .map(|(&ticket, &r)| (ticket, r))
    }
}
