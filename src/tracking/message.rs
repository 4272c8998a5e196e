//! Messages that notify a client that keys it has cached have changed.
//!
//! ```text
//!   RESP3   >2  invalidate               [key, ...] or null for all keys
//!   RESP2   *3  message  __redis__:invalidate  [key, ...] or null        only on a connection redirected to
//! ```

use std::sync::Arc;

use crate::client::reply::ReplyBuf;
use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
use crate::clients::memory;
use crate::clients::output_limit::check_output_limit;
use crate::state::Server;
use crate::tracking::set_flags;

/// The keys of a message: encoded once for all receivers, as both protocols write arrays alike.
#[derive(Clone)]
pub enum Keys {
    Some(Arc<Vec<u8>>),
    All,
}

pub fn encode_keys(keys: &[&[u8]]) -> Keys {
    let mut array = ReplyBuf::new(true);
    array.array(keys.len());
    keys.iter().for_each(|key| array.bulk(key));
    Keys::Some(Arc::new(array.take_bytes()))
}

/// A message for a client whose command runs.
pub struct Pending {
    to: ClientRef,
    message: Message,
}

enum Message {
    /// To a client that tracks.
    Own(Keys),
    /// To one that another redirects to.
    Redirected(Keys),
    /// The client of this id, whom it redirects to, is gone.
    Broken(u64),
}

/// Notify the tracking client `id`, or the client that it redirects to.
pub fn tell(server: &mut Server, id: u64, keys: &Keys) {
    let Some(tracker) = server.tracking.trackers.get(&id) else {
        return;
    };
    let (to, message) = match tracker.redirect {
        0 => (tracker.client, Message::Own(keys.clone())),
        other => match server.net.clients.reference_of(other) {
            Some(to) if is_open(server, to) => (to, Message::Redirected(keys.clone())),
            _ => (tracker.client, Message::Broken(other)),
        },
    };
    match server.net.clients.take_ref(to) {
        Some(mut c) => {
            write(server, &mut c, &message);
            Net::mark_pending(&mut server.net.pending_write, &mut c);
            check_output_limit(server, &mut c);
            memory::note_turn(server, &mut c);
            server.net.clients.put(c);
        }
        None => server.tracking.pending.push(Pending { to, message }),
    }
}

/// Not closing. One whose command runs is not.
fn is_open(server: &Server, r: ClientRef) -> bool {
    server
        .net
        .clients
        .get(r.slot)
        .is_none_or(|c| !c.has(flag::CLOSE_ASAP))
}

/// Write what waits for this client, which the caller holds.
pub fn send_pending(server: &mut Server, c: &mut Client) {
    if server.tracking.pending.is_empty() {
        return;
    }
    let pending = std::mem::take(&mut server.tracking.pending);
    let (own, others): (Vec<_>, Vec<_>) = pending.into_iter().partition(|p| p.to.id == c.id);
    server.tracking.pending = others;
    for pending in own {
        write(server, c, &pending.message);
    }
}

fn write(server: &mut Server, c: &mut Client, message: &Message) {
    if c.has(flag::CLOSE_AFTER_REPLY) {
        return;
    }
    c.aof_offset = c.aof_offset.max(server.offset_of_event());
    let keys = match message {
        Message::Own(keys) | Message::Redirected(keys) => keys,
        Message::Broken(redirect) => {
            set_flags(server, c, flag::TRACKING_BROKEN_REDIR, true);
            if c.reply.resp3 {
                c.reply.push(2);
                c.reply.bulk(b"tracking-redir-broken");
                c.reply.integer(*redirect as i64);
            }
            return;
        }
    };
    if c.reply.resp3 {
        c.reply.push(2);
        c.reply.bulk(b"invalidate");
    } else if matches!(message, Message::Redirected(_)) && c.has(flag::PUBSUB) {
        c.reply.array(3);
        c.reply.bulk(b"message");
        c.reply.bulk(b"__redis__:invalidate");
    } else {
        // A RESP2 connection has no place for what it did not ask for.
        return;
    }
    match keys {
        Keys::Some(array) => c.reply.raw_shared(array),
        Keys::All => c.reply.null(),
    }
}
