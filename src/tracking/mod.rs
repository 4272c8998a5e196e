//! Client tracking: the server remembers what clients may have cached, and notifies them when it
//! has changed.
//!
//! ```text
//!   default mode                                   BCAST mode
//!   GET k       table[k] += this client            prefixes["user:"]: clients, keys changed in this turn
//!   SET k       table[k] is taken out; each of     SET user:7   the key is noted; before the loop sleeps
//!               its clients is notified                         each client gets all of its keys at once
//! ```
//!
//! The message is a push in RESP3. A RESP2 client redirects it to another connection of its own,
//! which subscribes to `__redis__:invalidate`.
//!
//! Whoever's command runs is out of its slot: what is to be told to it waits in `pending` until the
//! command, EXEC or script is over and follows the reply. What the server does before a command
//! runs (eviction, a table that is too long) is told in front of the reply.
//!
//! The table knows no databases, and forgets no client that is gone: its ids stay until their keys
//! change, because ids are never given twice. The table holds at most `tracking-table-max-keys`
//! keys: those above are taken out at random and told as if they had changed, a hundred at a time,
//! and a hundred more each time that this did not suffice.
//!
//! **Invariant:** `trackers` has the clients with `flag::TRACKING`, and their `flags` are the
//! TRACKING bits of the client's (`set_flags` changes both). A running client's can be asked there,
//! though nobody holds it.
//! **Invariant:** `items` is the number of ids in the table (`tests::items_are_counted`).

mod message;
mod table;

use std::collections::BTreeMap;

use crate::acl::Acl;
use crate::acl::check::{may_read, may_read_everything};
use crate::acl::user::User;
use crate::armed;
use crate::client::table::Clients;
use crate::client::{Client, ClientRef, flag};
use crate::command;
use crate::command::Command;
use crate::command::keys;
use crate::ds::siphash::HashSeed;
use crate::state::Server;
pub use message::send_pending;
use message::{Keys, Pending, encode_keys};
use table::Table;

/// All flags of a client that are about tracking.
const FLAGS: u64 = flag::TRACKING
    | flag::TRACKING_BROKEN_REDIR
    | flag::TRACKING_BCAST
    | flag::TRACKING_OPTIN
    | flag::TRACKING_OPTOUT
    | flag::TRACKING_CACHING
    | flag::TRACKING_NOLOOP;

/// Keys that are taken out of a table that is too long, at least.
const EFFORT: usize = 100;

/// A client with tracking on.
pub struct Tracker {
    client: ClientRef,
    flags: u64,
    /// The id of the client that gets the messages instead; 0 for none.
    redirect: u64,
    prefixes: Vec<Box<[u8]>>,
}

/// What CLIENT TRACKING ON asks for.
#[derive(Default)]
pub struct Options<'a> {
    pub flags: u64,
    pub redirect: u64,
    pub prefixes: Vec<&'a [u8]>,
}

/// The clients that track all keys with one prefix.
#[derive(Default)]
struct Broadcast {
    clients: Vec<u64>,
    /// Keys changed in this turn.
    keys: BTreeMap<Box<[u8]>, Change>,
}

/// What happened to a key in this turn.
#[derive(Default)]
struct Change {
    /// The id of the client that changed it last; 0 for the server.
    by: u64,
    /// The databases that it was changed in: a client may have the right to some of them only.
    databases: Vec<u32>,
}

pub struct Tracking {
    table: Table,
    trackers: BTreeMap<u64, Tracker>,
    prefixes: BTreeMap<Box<[u8]>, Broadcast>,
    pending: Vec<Pending>,
    /// The id of the client whose command runs; 0 for none.
    running: u64,
    /// How often in a row the table was too long and stayed so.
    overruns: usize,
}

impl Tracking {
    pub fn new(seed: HashSeed) -> Tracking {
        Tracking {
            table: Table::new(seed),
            trackers: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            pending: Vec::new(),
            running: 0,
            overruns: 0,
        }
    }

    /// Keys in the table, for INFO.
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    /// Ids of clients in the table.
    pub fn items(&self) -> usize {
        self.table.items()
    }

    pub fn prefixes(&self) -> usize {
        self.prefixes.len()
    }

    /// At least one client tracks.
    pub fn is_on(&self) -> bool {
        !self.trackers.is_empty()
    }

    /// The id of the client that this one redirects to: 0 for none, `None` when it does not track.
    pub fn redirect_of(&self, id: u64) -> Option<u64> {
        self.trackers.get(&id).map(|tracker| tracker.redirect)
    }

    /// Bytes that a client's prefixes occupy, here and in the list of all; for what other tracking
    /// costs, the server answers, not the client.
    pub fn memory_of(&self, id: u64) -> usize {
        const OVERHEAD: usize = 2 * size_of::<Box<[u8]>>() + size_of::<Broadcast>();
        let prefixes = self.prefixes_of(id).iter();
        prefixes.map(|prefix| 2 * prefix.len() + OVERHEAD).sum()
    }

    /// The prefixes that a client gave, in order.
    pub fn prefixes_of(&self, id: u64) -> &[Box<[u8]>] {
        self.trackers
            .get(&id)
            .map_or(&[], |tracker| &tracker.prefixes)
    }
}

/// CLIENT TRACKING ON. The options go together, and with what the client has; prefixes are added to
/// those it has.
pub fn start(server: &mut Server, c: &mut Client, options: &Options) {
    let tracking = &mut server.tracking;
    let tracker = tracking.trackers.entry(c.id).or_insert(Tracker {
        client: c.reference(),
        flags: 0,
        redirect: 0,
        prefixes: Vec::new(),
    });
    tracker.redirect = options.redirect;
    let caching = c.flags & flag::TRACKING_CACHING;
    c.clear(FLAGS);
    c.set(flag::TRACKING | options.flags | caching);
    tracker.flags = c.flags & FLAGS;
    if c.has(flag::TRACKING_BCAST) {
        let all: &[&[u8]] = &[b""];
        let wanted = if options.prefixes.is_empty() {
            all
        } else {
            &options.prefixes
        };
        for prefix in wanted {
            if tracker.prefixes.iter().any(|known| **known == **prefix) {
                continue;
            }
            tracker.prefixes.push((*prefix).into());
            let broadcast = tracking.prefixes.entry((*prefix).into()).or_default();
            broadcast.clients.push(c.id);
        }
        tracker.prefixes.sort();
    }
    // While nobody tracks, no command says whose it is; what follows in this transaction is
    // tracked.
    tracking.running = c.id;
    server.update_armed();
}

/// CLIENT TRACKING OFF, RESET, and clients that go.
pub fn stop(server: &mut Server, c: &mut Client) {
    let tracking = &mut server.tracking;
    let Some(tracker) = tracking.trackers.remove(&c.id) else {
        return;
    };
    c.clear(FLAGS);
    for prefix in &tracker.prefixes {
        if let Some(broadcast) = tracking.prefixes.get_mut(prefix) {
            broadcast.clients.retain(|id| *id != c.id);
            if broadcast.clients.is_empty() {
                tracking.prefixes.remove(prefix);
            }
        }
    }
    if tracking.trackers.is_empty() {
        // No tracking client is left, so changes are no longer recorded.
        tracking.table.take();
        tracking.pending.clear();
        server.update_armed();
    }
}

/// CLIENT CACHING: the next command's keys are tracked in OPTIN mode, and are not in OPTOUT mode.
pub fn set_caching(server: &mut Server, c: &mut Client, on: bool) {
    set_flags(server, c, flag::TRACKING_CACHING, on);
}

fn set_flags(server: &mut Server, c: &mut Client, flags: u64, on: bool) {
    if let Some(tracker) = server.tracking.trackers.get_mut(&c.id) {
        let change = if on { Client::set } else { Client::clear };
        change(c, flags);
        tracker.flags = c.flags & FLAGS;
    }
}

/// A client's command begins. Returns what [`end`] wants: whose command runs around it.
pub fn begin(server: &mut Server, c: &mut Client) -> u64 {
    let outer = std::mem::replace(&mut server.tracking.running, c.id);
    limit_table(server);
    send_pending(server, c);
    outer
}

/// It is over, its reply is written.
pub fn end(server: &mut Server, c: &mut Client, argv: &[&[u8]], outer: u64) {
    server.tracking.running = outer;
    // CACHING lasts until the next command, the whole of a transaction if that is one.
    let is_client_command = argv[0].eq_ignore_ascii_case(b"client");
    if c.has(flag::TRACKING_CACHING) && !c.has(flag::MULTI) && !is_client_command {
        set_flags(server, c, flag::TRACKING_CACHING, false);
    }
    send_pending(server, c);
}

/// A command has run, maybe in a script: the client whose request this is may keep what it read.
pub fn remember(server: &mut Server, argv: &[&[u8]], cmd: &Command) {
    // A script's keys are not what it reads; its commands come here themselves.
    let script = matches!(cmd.name, "eval_ro" | "evalsha_ro" | "fcall_ro");
    if !cmd.is(command::READONLY) || cmd.is(command::PUBSUB) || script {
        return;
    }
    let tracking = &mut server.tracking;
    let Some(tracker) = tracking.trackers.get(&tracking.running) else {
        return;
    };
    let has = |bits: u64| tracker.flags & bits != 0;
    let caching = has(flag::TRACKING_CACHING);
    if has(flag::TRACKING_BCAST)
        || has(flag::TRACKING_OPTIN) && !caching
        || has(flag::TRACKING_OPTOUT) && caching
    {
        return;
    }
    let mut found = Vec::new();
    if keys::get_keys(cmd, argv, &mut found).is_err() {
        return;
    }
    for key in found {
        tracking.table.add(argv[key.pos as usize], tracking.running);
    }
}

/// A key has changed, by a client's command or (0) by itself.
#[cold]
pub fn key_changed(server: &mut Server, db: u32, key: &[u8], by: u64) {
    for (prefix, broadcast) in &mut server.tracking.prefixes {
        if key.starts_with(prefix) {
            let change = broadcast.keys.entry(key.into()).or_default();
            change.by = by;
            if !change.databases.contains(&db) {
                change.databases.push(db);
            }
        }
    }
    invalidate(server, key);
}

/// Notify the clients that may have cached this key, and remove their ids from the table.
fn invalidate(server: &mut Server, key: &[u8]) {
    let Some(ids) = server.tracking.table.remove(key) else {
        return;
    };
    let keys = encode_keys(&[key]);
    for id in ids {
        let tracking = &server.tracking;
        let Some(tracker) = tracking.trackers.get(&id) else {
            continue;
        };
        let own = tracker.flags & flag::TRACKING_NOLOOP != 0 && id == tracking.running;
        if tracker.flags & flag::TRACKING_BCAST == 0 && !own {
            message::tell(server, id, &keys);
        }
    }
}

/// All keys of a database, or of all, went at once.
pub fn flushed(server: &mut Server, lazy: bool) {
    if server.armed & armed::TRACKING == 0 {
        return;
    }
    let ids: Vec<u64> = server.tracking.trackers.keys().copied().collect();
    for id in ids {
        message::tell(server, id, &Keys::All);
    }
    let old = server.tracking.table.take();
    let keys = old.len();
    if lazy && keys > 0 {
        server.lazyfree.free(Box::new(old), keys);
    }
}

/// Take keys out until the table is no longer than `tracking-table-max-keys`, within the effort of
/// one call.
pub fn limit_table(server: &mut Server) {
    let max = server.config.tracking_table_max_keys as usize;
    if max == 0 || server.tracking.table.len() <= max {
        server.tracking.overruns = 0;
        return;
    }
    for _ in 0..EFFORT * (server.tracking.overruns + 1) {
        let Some(key) = server.tracking.table.random(&mut server.rng) else {
            break;
        };
        invalidate(server, &key);
        if server.tracking.table.len() <= max {
            server.tracking.overruns = 0;
            return;
        }
    }
    server.tracking.overruns += 1;
}

/// Before the loop sleeps: send the clients in BCAST mode what has changed since the last time. The
/// name of a key is data too: a client gets the names of those that its user may read, by the rules
/// as they are now.
pub fn broadcast(server: &mut Server) {
    if server.armed & armed::TRACKING == 0 {
        return;
    }
    let mut messages: Vec<(u64, Keys)> = Vec::new();
    let Server {
        tracking, acl, net, ..
    } = server;
    for broadcast in tracking
        .prefixes
        .values_mut()
        .filter(|b| !b.keys.is_empty())
    {
        let changed = std::mem::take(&mut broadcast.keys);
        // One encoding serves all clients that are shown every key.
        let all: Vec<&[u8]> = changed.keys().map(|key| &**key).collect();
        let all = encode_keys(&all);
        for &id in &broadcast.clients {
            let Some(tracker) = tracking.trackers.get(&id) else {
                continue;
            };
            let noloop = tracker.flags & flag::TRACKING_NOLOOP != 0;
            let limited = limited_user(acl, &net.clients, tracker.client);
            if !noloop && limited.is_none() {
                messages.push((id, all.clone()));
                continue;
            }
            let shown = changed.iter().filter(|(key, change)| {
                !(noloop && change.by == id)
                    && limited.is_none_or(|user| may_read(user, key, &change.databases))
            });
            let shown: Vec<&[u8]> = shown.map(|(key, _)| &**key).collect();
            if !shown.is_empty() {
                messages.push((id, encode_keys(&shown)));
            }
        }
    }
    for (id, keys) in messages {
        message::tell(server, id, &keys);
    }
}

/// The user of a client that tracks, if there are keys that it may not read. A redirection does not
/// matter: the rights are those of the client that asked for tracking.
fn limited_user<'a>(acl: &'a Acl, clients: &Clients, r: ClientRef) -> Option<&'a User> {
    // No command runs while the loop is about to sleep, so every client is in its slot.
    let user = acl.user(clients.get(r.slot)?.user)?;
    (!may_read_everything(user)).then_some(user)
}

/// What of two prefixes is the beginning of the other: a client must not get a key twice.
pub fn overlap(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests;
