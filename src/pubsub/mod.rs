//! Publish and subscribe: channels, patterns, and shard channels.
//!
//! ```text
//!   channels:  name    -> subscribers in order of arrival        client.pubsub.channels: names
//!   patterns:  pattern -> subscribers
//! ```
//!
//! A message is encoded once for each protocol, not once for each subscriber: the reply buffers of
//! all subscribers share the encoded bytes. A RESP2 client with a subscription is in subscribe mode
//! (`flag::PUBSUB`), in which few commands are allowed. A client whose command runs is out of its
//! slot in the client table; messages to such a client wait in `Net::later` and follow its reply.
//!
//! **Invariant:** a client is in `channels[c]` exactly when `c` is in the client's own set
//! (`forget_client` empties both).

use std::sync::Arc;

use crate::client::reply::ReplyBuf;
use crate::client::subscriptions::ChannelKind;
use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
use crate::clients::memory;
use crate::clients::output_limit;
use crate::ds::registry::Registry;
use crate::state::Server;
use crate::util::glob;

/// The subscribers of each channel, pattern or shard channel, by its name.
pub type Subscribers = Registry<Vec<ClientRef>>;

/// The subscriptions of all clients.
#[derive(Default)]
pub struct PubSub {
    pub channels: Subscribers,
    pub patterns: Subscribers,
    pub shards: Subscribers,
}

impl PubSub {
    /// The subscribers of all channels, all patterns or all shard channels, as `kind` says.
    pub fn of(&self, kind: ChannelKind) -> &Subscribers {
        match kind {
            ChannelKind::Channel => &self.channels,
            ChannelKind::Pattern => &self.patterns,
            ChannelKind::Shard => &self.shards,
        }
    }

    /// The memory of all subscriptions in bytes.
    pub fn memory_bytes(&self) -> usize {
        [&self.channels, &self.patterns, &self.shards]
            .map(Registry::memory_bytes)
            .iter()
            .sum()
    }

    fn of_mut(&mut self, kind: ChannelKind) -> &mut Subscribers {
        match kind {
            ChannelKind::Channel => &mut self.channels,
            ChannelKind::Pattern => &mut self.patterns,
            ChannelKind::Shard => &mut self.shards,
        }
    }
}

/// Subscribes a client to a channel, pattern or shard channel. Returns false if the client had this
/// subscription already.
pub fn subscribe(server: &mut Server, c: &mut Client, kind: ChannelKind, name: &[u8]) -> bool {
    let r = c.reference();
    c.set(flag::PUBSUB);
    let new = c
        .pubsub
        .get_or_insert_default()
        .of(kind)
        .insert(name.into());
    if new {
        server.pubsub.of_mut(kind).push(name, r);
    }
    new
}

/// Removes a client's subscription to a channel, pattern or shard channel. Returns false if the
/// client did not have this subscription.
pub fn unsubscribe(server: &mut Server, c: &mut Client, kind: ChannelKind, name: &[u8]) -> bool {
    let Some(own) = c.pubsub.as_mut() else {
        return false;
    };
    if !own.of(kind).remove(name) {
        return false;
    }
    if own.is_empty() {
        c.pubsub = None;
        c.clear(flag::PUBSUB);
    }
    remove_subscriber(server, c.reference(), kind, name);
    true
}

/// Ends the subscriptions of the shard channels for which `stays` returns false, with a message to
/// each subscriber.
pub fn end_shard_channels(server: &mut Server, stays: impl Fn(&Server, &[u8]) -> bool) {
    let names = server.pubsub.shards.names();
    let gone: Vec<Box<[u8]>> = names
        .filter(|name| !stays(server, name))
        .map(Box::from)
        .collect();
    for name in gone {
        let clients = server.pubsub.shards.get(&name).cloned();
        for r in clients.unwrap_or_default() {
            let Some(mut c) = server.net.clients.take_ref(r) else {
                continue;
            };
            unsubscribe(server, &mut c, ChannelKind::Shard, &name);
            let word = ChannelKind::Shard.unsubscribe_word();
            confirm(server, &mut c, word, ChannelKind::Shard, Some(&name));
            Net::mark_pending(&mut server.net.pending_write, &mut c);
            server.net.clients.put(c);
        }
    }
}

/// Removes all subscriptions of a client that disconnects, or calls RESET.
pub fn forget_client(server: &mut Server, c: &mut Client) {
    let r = c.reference();
    let Some(mut own) = c.pubsub.take() else {
        return;
    };
    for kind in [
        ChannelKind::Channel,
        ChannelKind::Pattern,
        ChannelKind::Shard,
    ] {
        own.of(kind)
            .iter()
            .for_each(|name| remove_subscriber(server, r, kind, name));
    }
    c.clear(flag::PUBSUB);
}

fn remove_subscriber(server: &mut Server, r: ClientRef, kind: ChannelKind, name: &[u8]) {
    let table = server.pubsub.of_mut(kind);
    table.change_existing(name, |clients| clients.retain(|other| *other != r));
}

/// The names of the channels, patterns or shard channels to which a client is subscribed, in order.
pub fn names_of(c: &mut Client, kind: ChannelKind) -> Vec<Box<[u8]>> {
    c.pubsub
        .as_mut()
        .map_or(Vec::new(), |own| own.of(kind).iter().cloned().collect())
}

/// Sends a client the confirmation of a change of its subscriptions: `subscribe news 3`. `name` is
/// `None` if there was no subscription to remove.
pub fn confirm(
    server: &mut Server,
    c: &mut Client,
    word: &str,
    kind: ChannelKind,
    name: Option<&[u8]>,
) {
    let count = c.pubsub.as_ref().map_or(0, |own| own.count(kind));
    let mut silenced = ReplyBuf::new(c.reply.resp3);
    // The confirmation is not a reply. CLIENT REPLY OFF drops what a command writes, so for such a
    // client the confirmation is written after the command.
    let later = c.has(flag::REPLY_OFF | flag::REPLY_SKIP);
    let reply = if later { &mut silenced } else { &mut c.reply };
    reply.push(3);
    reply.bulk(word.as_bytes());
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count as i64);
    if later {
        server
            .net
            .later
            .push((c.reference(), Arc::new(silenced.take_bytes())));
    }
}

/// A published message, which is encoded for RESP2 and RESP3 when the first subscriber with this
/// protocol gets it.
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

/// Sends a message to all subscribers of a channel and of matching patterns, and returns their
/// number. A subscriber whose own command runs gets the message after its reply. The message waits
/// until the AOF is written or synced, as `appendfsync` says, up to `offset`.
pub fn publish(server: &mut Server, channel: &[u8], text: &[u8], offset: u64) -> usize {
    let mut receivers = 0;
    if let Some(clients) = server.pubsub.channels.get(channel).cloned() {
        receivers += deliver(server, &clients, &[b"message", channel, text], offset);
    }
    if server.pubsub.patterns.is_empty() {
        return receivers;
    }
    let matching: Vec<(Box<[u8]>, Vec<ClientRef>)> = server
        .pubsub
        .patterns
        .iter()
        .filter(|(pattern, _)| glob::glob_match(pattern, channel))
        .map(|(pattern, clients)| (pattern.into(), clients.clone()))
        .collect();
    for (pattern, clients) in matching {
        let parts: &[&[u8]] = &[b"pmessage", &pattern, channel, text];
        receivers += deliver(server, &clients, parts, offset);
    }
    receivers
}

/// SPUBLISH: sends a message to the subscribers of a shard channel.
pub fn publish_shard(server: &mut Server, channel: &[u8], text: &[u8], offset: u64) -> usize {
    let Some(clients) = server.pubsub.shards.get(channel).cloned() else {
        return 0;
    };
    deliver(server, &clients, &[b"smessage", channel, text], offset)
}

fn deliver(server: &mut Server, clients: &[ClientRef], parts: &[&[u8]], offset: u64) -> usize {
    let mut message = Message::new(parts);
    for &r in clients {
        match server.net.clients.take_ref(r) {
            Some(mut c) => {
                c.aof_offset = c.aof_offset.max(offset);
                send(server, &mut c, &mut message);
                server.net.clients.put(c);
            }
            None => server.net.later.push((r, message.bytes(true).clone())),
        }
    }
    clients.len()
}

fn send(server: &mut Server, c: &mut Client, message: &mut Message) {
    if c.has(flag::CLOSE_AFTER_REPLY | flag::PRIMARY) {
        return;
    }
    let bytes = message.bytes(c.reply.resp3);
    c.reply.lend(&mut server.net.spare_replies);
    c.reply.raw_shared(bytes);
    Net::mark_pending(&mut server.net.pending_write, c);
    output_limit::check_output_limit(server, c);
    memory::note_turn(server, c);
}

#[cfg(test)]
mod tests;
