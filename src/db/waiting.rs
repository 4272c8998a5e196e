//! Clients that wait for one key, as the database's table of blocking keys holds them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::client::ClientRef;

/// The clients that wait for one key.
#[derive(Default)]
pub struct Waiting {
    /// By ticket, that is in order of arrival.
    pub clients: BTreeMap<u64, ClientRef>,
    /// How many of them must also be notified when the key is gone.
    pub on_nokey: usize,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub fn next(&self, tickets: Range<u64>) -> Option<(u64, ClientRef)> {
        self.clients
            .range(tickets)
            .next()
            .map(|(&ticket, &r)| (ticket, r))
    }
}
