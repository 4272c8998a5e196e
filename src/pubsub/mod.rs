//! Publish and subscribe: channels, patterns, and shard channels.
//!
//! ```text
//!   channels:  name    -> subscribers in order of arrival        client.pubsub.channels: names
//!   patterns:  pattern -> subscribers
//! ```
//!
//! A message is encoded once for each protocol, not once for each subscriber: the encoded bytes are shared
//! by all replies that they go into.
//! **Invariant:** a client is in `channels[c]` exactly when `c` is in its own set (`forget_client` empties both).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::networking::client::{Client, ClientRef, flag};
use crate::networking::clients::Net;
use crate::networking::query::reference;
use crate::networking::reply::ReplyBuf;
use crate::state::Server;
use crate::util::glob;

/// What a subscription is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// Subscribers by name.
pub type Subscribers = HashMap<Box<[u8]>, Vec<ClientRef>>;

#[derive(Default)]
pub struct PubSub {
    pub channels: Subscribers,
    pub patterns: Subscribers,
    pub shards: Subscribers,
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

    /// What the third element of a subscribe message counts.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }
}

impl PubSub {
    fn of(&mut self, kind: Kind) -> &mut Subscribers {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }
}

/// Add a subscription. False: the client had it.
pub fn subscribe(server: &mut Server, c: &mut Client, kind: Kind, name: &[u8]) -> bool {
    let r = reference(c);
    let new = c
        .pubsub
        .get_or_insert_default()
        .of(kind)
        .insert(name.into());
    if new {
        server
            .pubsub
            .of(kind)
            .entry(name.into())
            .or_default()
            .push(r);
    }
    new
}

/// Remove a subscription. False: the client had none.
pub fn unsubscribe(server: &mut Server, c: &mut Client, kind: Kind, name: &[u8]) -> bool {
    let r = reference(c);
    let Some(own) = c.pubsub.as_mut() else {
        return false;
    };
    if !own.of(kind).remove(name) {
        return false;
    }
    let table = server.pubsub.of(kind);
    if let Some(clients) = table.get_mut(name) {
        clients.retain(|other| *other != r);
        if clients.is_empty() {
            table.remove(name);
        }
    }
    true
}

/// The client leaves: drop all of its subscriptions.
pub fn forget_client(server: &mut Server, c: &mut Client) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        let Some(own) = c.pubsub.as_mut() else { return };
        for name in std::mem::take(own.of(kind)) {
            own_back(server, c, kind, &name);
        }
    }
    c.pubsub = None;
    c.clear(flag::PUBSUB);
}

fn own_back(server: &mut Server, c: &mut Client, kind: Kind, name: &[u8]) {
    let r = reference(c);
    let table = server.pubsub.of(kind);
    if let Some(clients) = table.get_mut(name) {
        clients.retain(|other| *other != r);
        if clients.is_empty() {
            table.remove(name);
        }
    }
}

/// A message in both protocols, encoded when first needed.
struct Message<'a> {
    parts: &'a [&'a [u8]],
    encoded: [Option<Arc<Vec<u8>>>; 2],
}

impl<'a> Message<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Message<'a> {
        Message {
            parts,
            encoded: [None, None],
        }
    }

    fn bytes(&mut self, resp3: bool) -> &Arc<Vec<u8>> {
        self.encoded[resp3 as usize].get_or_insert_with(|| {
            let mut reply = ReplyBuf::new(resp3);
            reply.push(self.parts.len());
            self.parts.iter().for_each(|part| reply.bulk(part));
            Arc::new(reply.take_bytes())
        })
    }
}

/// Send a message to all who subscribed; returns how many. `by` is the client whose command this is, which
/// is out of its slot.
pub fn publish(
    server: &mut Server,
    mut by: Option<&mut Client>,
    channel: &[u8],
    text: &[u8],
) -> usize {
    let mut receivers = 0;
    if let Some(clients) = server.pubsub.channels.get(channel).cloned() {
        let parts: [&[u8]; 3] = [b"message", channel, text];
        receivers += deliver(server, by.as_deref_mut(), &clients, &parts);
    }
    if server.pubsub.patterns.is_empty() {
        return receivers;
    }
    let matching: Vec<(Box<[u8]>, Vec<ClientRef>)> = server
        .pubsub
        .patterns
        .iter()
        .filter(|(pattern, _)| glob::glob_match(pattern, channel))
        .map(|(pattern, clients)| (pattern.clone(), clients.clone()))
        .collect();
    for (pattern, clients) in matching {
        let parts: [&[u8]; 4] = [b"pmessage", &pattern, channel, text];
        receivers += deliver(server, by.as_deref_mut(), &clients, &parts);
    }
    receivers
}

/// SPUBLISH.
pub fn publish_shard(
    server: &mut Server,
    by: Option<&mut Client>,
    channel: &[u8],
    text: &[u8],
) -> usize {
    let Some(clients) = server.pubsub.shards.get(channel).cloned() else {
        return 0;
    };
    let parts: [&[u8]; 3] = [b"smessage", channel, text];
    deliver(server, by, &clients, &parts)
}

fn deliver(
    server: &mut Server,
    mut by: Option<&mut Client>,
    clients: &[ClientRef],
    parts: &[&[u8]],
) -> usize {
    let mut message = Message::new(parts);
    for &r in clients {
        match by.as_deref_mut() {
            Some(c) if c.id == r.id => send(server, c, &mut message),
            _ => {
                let Some(mut c) = server.net.clients.take_ref(r) else {
                    continue;
                };
                send(server, &mut c, &mut message);
                server.net.clients.put(c);
            }
        }
    }
    clients.len()
}

fn send(server: &mut Server, c: &mut Client, message: &mut Message) {
    let bytes = message.bytes(c.reply.resp3);
    c.reply.raw_shared(bytes);
    Net::mark_pending(&mut server.net.pending_write, c);
    crate::networking::write::check_output_limit(server, c);
}
