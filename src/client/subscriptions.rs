//! The subscriptions of one client.

use std::collections::BTreeSet;

use crate::ds::btree_memory;
use crate::ds::thin_buffer::{heap_bytes, size_class};

/// What a subscription names: a channel, a pattern of channels, or a shard channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelKind {
    Channel,
    Pattern,
    Shard,
}

impl ChannelKind {
    /// The first word of the message that confirms a subscription.
    pub fn subscribe_word(self) -> &'static str {
        match self {
            ChannelKind::Channel => "subscribe",
            ChannelKind::Pattern => "psubscribe",
            ChannelKind::Shard => "ssubscribe",
        }
    }

    /// The first word of the message that confirms the end of a subscription.
    pub fn unsubscribe_word(self) -> &'static str {
        match self {
            ChannelKind::Channel => "unsubscribe",
            ChannelKind::Pattern => "punsubscribe",
            ChannelKind::Shard => "sunsubscribe",
        }
    }
}

/// The subscriptions of one client.
#[derive(Default)]
pub struct Subscriptions {
    pub channels: BTreeSet<Box<[u8]>>,
    pub patterns: BTreeSet<Box<[u8]>>,
    pub shards: BTreeSet<Box<[u8]>>,
}

impl Subscriptions {
    /// The names to which the client has subscriptions of the kind `kind`.
    pub fn of(&mut self, kind: ChannelKind) -> &mut BTreeSet<Box<[u8]>> {
        match kind {
            ChannelKind::Channel => &mut self.channels,
            ChannelKind::Pattern => &mut self.patterns,
            ChannelKind::Shard => &mut self.shards,
        }
    }

    /// Whether the client has no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    /// The heap bytes of the client's subscriptions, the structure `Subscriptions` included. The
    /// memory of the server's tables of channels is not included.
    pub fn memory(&self) -> usize {
        let sets = [&self.channels, &self.patterns, &self.shards];
        let nodes = sets.map(|set| btree_memory::map_bytes::<Box<[u8]>, ()>(set.len()));
        let names = sets.into_iter().flatten();
        size_class(size_of::<Subscriptions>())
            + nodes.iter().sum::<usize>()
            + names.map(|name| heap_bytes(name.len())).sum::<usize>()
    }

    /// The number of subscriptions in the third element of a subscribe message: channels and
    /// patterns count together, shard channels alone.
    pub fn count(&self, kind: ChannelKind) -> usize {
        match kind {
            ChannelKind::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }
}
