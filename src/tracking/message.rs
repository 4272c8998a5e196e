//! Messages that notify a client of changes of keys that it has cached.
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

/// The keys in an invalidation message, encoded once for all receivers: an array is the same in
/// RESP2 and RESP3.
#[derive(Clone)]
pub enum Keys {
    Some(Arc<Vec<u8>>),
    All,
}

/// Encodes the names of changed keys as an array.
pub fn encode_keys(keys: &[&[u8]]) -> Keys {
    let mut array = ReplyBuf::new(true);
    array.array(keys.len());
    keys.iter().for_each(|key| array.bulk(key));
    Keys::Some(Arc::new(array.take_bytes()))
}

/// A message that waits until the running command of its receiver has ended.
pub struct Pending {
    to: ClientRef,
    message: Message,
}

enum Message {
    /// An invalidation for the client that tracks the keys.
    Own(Keys),
    /// An invalidation for a client that receives the messages of another client (REDIRECT).
    Redirected(Keys),
    /// A notice that the client with this id, to which the tracking client redirects, has
    /// disconnected.
    Broken(u64),
}

/// Sends the tracking client `id`, or the client that it redirects to, the keys that have changed.
pub fn notify_tracker(server: &mut Server, id: u64, keys: &Keys) {
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

/// Whether a client is connected and not closing. The client whose command runs is open, too,
/// although it is not in its slot of the table of clients.
fn is_open(server: &Server, r: ClientRef) -> bool {
    server
        .net
        .clients
        .get(r.slot)
        .is_none_or(|c| !c.has(flag::CLOSE_ASAP))
}

/// Writes the messages that wait for this client. The caller has taken the client out of its slot
/// in the table of clients.
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
        // RESP2 has no push messages: a RESP2 client must use REDIRECT.
        return;
    }
    match keys {
        Keys::Some(array) => c.reply.raw_shared(array),
        Keys::All => c.reply.null(),
    }
}
