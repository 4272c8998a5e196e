//! What one client is subscribed to.

use std::collections::BTreeSet;

/// What a subscription is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    /// The first word of the message that confirms a subscription.
    pub fn subscribe_word(self) -> &'static str {
        match self {
            Kind::Channel => "subscribe",
            Kind::Pattern => "psubscribe",
            Kind::Shard => "ssubscribe",
        }
    }

    pub fn unsubscribe_word(self) -> &'static str {
        match self {
            Kind::Channel => "unsubscribe",
            Kind::Pattern => "punsubscribe",
            Kind::Shard => "sunsubscribe",
        }
    }
}

/// What one client is subscribed to.
#[derive(Default)]
pub struct Subscriptions {
    pub channels: BTreeSet<Box<[u8]>>,
    pub patterns: BTreeSet<Box<[u8]>>,
    pub shards: BTreeSet<Box<[u8]>>,
}

impl Subscriptions {
    pub fn of(&mut self, kind: Kind) -> &mut BTreeSet<Box<[u8]>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    /// Heap bytes held here and in the server's tables, about.
    pub fn memory(&self) -> usize {
        /// A name in the client's set and in the server's table, its place in both, a reference.
        const OVERHEAD: usize = 96;
        [&self.channels, &self.patterns, &self.shards]
            .iter()
            .flat_map(|set| set.iter())
            .map(|name| 2 * name.len() + OVERHEAD)
            .sum()
    }

    /// What the third element of a subscribe message counts.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }
}
