//! Client tracking: the server records which keys clients may have cached, and notifies the clients
//! when one of these keys changes.
//!
//! ```text
//!   default mode                                   BCAST mode
//!   GET k       table[k] += this client            prefixes["user:"]: clients, keys changed in this turn
//!   SET k       table[k] is taken out; each of     SET user:7   the key is noted; before the loop sleeps
//!               its clients is notified                         each client gets all of its keys at once
//! ```
//!
//! The notification is a push message in RESP3. A RESP2 client redirects its notifications to
//! another connection of its own, which subscribes to `__redis__:invalidate`.
//!
//! The client whose command runs is out of its slot in the table of clients. Messages for this
//! client wait in `pending` until its command, EXEC or script has ended, and follow the reply.
//! Messages about what the server does before a command runs (eviction, limiting the table) precede
//! the reply.
//!
//! The table of tracked keys does not distinguish databases. The ids of closed clients stay in the
//! table until their keys change; this is safe because ids are never reused. The table holds at
//! most `tracking-table-max-keys` keys. Above that, random keys are removed and invalidated as if
//! they had changed, a hundred in a call, and a hundred more in each further call while the table
//! is still too long.
//!
//! **Invariant:** `trackers` has the clients with `flag::TRACKING`, and their `flags` are the
//! TRACKING bits of the client's (`set_flags` changes both). So the flags of a client whose command
//! runs can be read in `trackers`, although the client is out of its slot.
//! **Invariant:** `items` is the number of clients' ids in the table (`tests::items_are_counted`).

mod message;
mod table;

use std::collections::BTreeMap;
use std::rc::Rc;

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
use crate::sys::lazyfree::Garbage;
pub use message::send_pending;
use message::{Keys, Pending, encode_keys};
use table::Table;

/// All flags of a client that concern tracking.
const FLAGS: u64 = flag::TRACKING
    | flag::TRACKING_BROKEN_REDIR
    | flag::TRACKING_BCAST
    | flag::TRACKING_OPTIN
    | flag::TRACKING_OPTOUT
    | flag::TRACKING_CACHING
    | flag::TRACKING_NOLOOP;

/// The smallest number of keys that one call of [`limit_table`] removes from a table that is too
/// long.
const EFFORT: usize = 100;
/// After FLUSHALL, a tracking table with more keys than this is always freed in the background.
const FREED_AT_ONCE_MAX: usize = 4096;

/// A client with tracking on.
pub struct Tracker {
    client: ClientRef,
    flags: u64,
    /// The id of the client that gets the messages instead of this client; 0 for none.
    redirect: u64,
    /// The client's prefixes in BCAST mode, shared with the list of all prefixes.
    prefixes: Vec<Rc<[u8]>>,
}

/// The options of CLIENT TRACKING ON.
#[derive(Default)]
pub struct TrackingOptions<'a> {
    pub flags: u64,
    /// The id of the client that gets the invalidations; 0 is the tracking client itself.
    pub redirect: u64,
    pub prefixes: Vec<&'a [u8]>,
}

/// A key that was changed in this turn of the event loop.
#[derive(Default)]
struct Change {
    /// The id of the client that changed the key last; 0 is the server itself.
    by: u64,
    /// The databases in which the key was changed: a user may have rights to only some of them.
    databases: Vec<u32>,
}

/// The keys under one prefix that were changed in this turn.
type Changes = BTreeMap<Box<[u8]>, Change>;

/// The state of client tracking.
pub struct Tracking {
    table: Table,
    trackers: BTreeMap<u64, Tracker>,
    /// For each prefix, the ids of the clients that track it.
    prefixes: BTreeMap<Rc<[u8]>, Vec<u64>>,
    /// For each prefix, the keys that were changed in this turn.
    changed: BTreeMap<Rc<[u8]>, Changes>,
    pending: Vec<Pending>,
    /// The id of the client whose command runs; 0 for none.
    running: u64,
    /// The number of calls of [`limit_table`] in a row after which the table was still too long.
    overruns: usize,
}

impl Tracking {
    /// The state without tracking clients; `seed` is the seed of the table's hashes.
    pub fn new(seed: HashSeed) -> Tracking {
        Tracking {
            table: Table::new(seed),
            trackers: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            changed: BTreeMap::new(),
            pending: Vec::new(),
            running: 0,
            overruns: 0,
        }
    }

    /// The number of keys in the tracking table, for INFO.
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    /// The number of clients' ids in the tracking table, for INFO.
    pub fn items(&self) -> usize {
        self.table.items()
    }

    /// The number of prefixes that clients in BCAST mode gave.
    pub fn prefixes(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether at least one client has tracking on.
    pub fn is_on(&self) -> bool {
        !self.trackers.is_empty()
    }

    /// The id of the client to which client `id` redirects: 0 for none, `None` if client `id` does
    /// not track.
    pub fn redirect_of(&self, id: u64) -> Option<u64> {
        self.trackers.get(&id).map(|tracker| tracker.redirect)
    }

    /// The bytes that a client's prefixes use, in its tracker and in the list of all prefixes.
    /// Other memory of tracking counts as the server's, not as the client's.
    pub fn memory_of(&self, id: u64) -> usize {
        // The memory of a shared prefix: two counts, a reference in the tracker and one in the
        // list, and a client's id in the list.
        const COUNTS: usize = 2 * size_of::<usize>();
        const OVERHEAD: usize =
            COUNTS + 2 * size_of::<Rc<[u8]>>() + size_of::<Vec<u64>>() + size_of::<u64>();
        let prefixes = self.prefixes_of(id).iter();
        prefixes.map(|prefix| prefix.len() + OVERHEAD).sum()
    }

    /// The prefixes that a client in BCAST mode gave, in sorted order.
    pub fn prefixes_of(&self, id: u64) -> &[Rc<[u8]>] {
        self.trackers
            .get(&id)
            .map_or(&[], |tracker| &tracker.prefixes)
    }
}

/// CLIENT TRACKING ON: starts or changes the tracking of a client. The caller has checked the
/// options. New prefixes are added to those that the client has.
pub fn start(server: &mut Server, c: &mut Client, options: &TrackingOptions) {
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
            let shared = match tracking.prefixes.get_key_value(*prefix) {
                Some((_, clients)) if clients.contains(&c.id) => continue,
                Some((shared, _)) => shared.clone(),
                None => Rc::from(*prefix),
            };
            tracker.prefixes.push(shared.clone());
            let clients = tracking.prefixes.entry(shared).or_default();
            // Most prefixes have one client, so no more room is reserved.
            clients.reserve_exact(usize::from(clients.is_empty()));
            clients.push(c.id);
        }
        tracker.prefixes.sort();
    }
    // `running`, the id of the client whose command runs, is not set before each command while no
    // client tracks. `running` is set here, so that the rest of a transaction is tracked.
    tracking.running = c.id;
    server.update_armed();
}

/// CLIENT TRACKING OFF and RESET: ends the tracking of a client. Also called when a client is
/// closed.
pub fn stop(server: &mut Server, c: &mut Client) {
    let tracking = &mut server.tracking;
    let Some(tracker) = tracking.trackers.remove(&c.id) else {
        return;
    };
    c.clear(FLAGS);
    for prefix in &tracker.prefixes {
        if let Some(clients) = tracking.prefixes.get_mut(prefix) {
            clients.retain(|id| *id != c.id);
            if clients.is_empty() {
                tracking.prefixes.remove(prefix);
                tracking.changed.remove(prefix);
            }
        }
    }
    if tracking.trackers.is_empty() {
        // No client tracks any more, so the recorded keys are not needed.
        tracking.table.take();
        tracking.pending.clear();
        server.update_armed();
    }
}

/// CLIENT CACHING: in OPTIN mode the next command's keys are tracked, in OPTOUT mode they are not.
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

/// Called when a client's command begins. Returns the id of the client whose command is interrupted
/// (in a nested turn), 0 if there is none; [`end`] needs this id.
pub fn begin(server: &mut Server, c: &mut Client) -> u64 {
    let outer = std::mem::replace(&mut server.tracking.running, c.id);
    limit_table(server);
    send_pending(server, c);
    outer
}

/// Called when a client's command has ended and its reply is written.
pub fn end(server: &mut Server, c: &mut Client, argv: &[&[u8]], outer: u64) {
    server.tracking.running = outer;
    // CACHING applies to the next command. If the next command is MULTI, CACHING applies to the
    // whole transaction.
    let is_client_command = argv[0].eq_ignore_ascii_case(b"client");
    if c.has(flag::TRACKING_CACHING) && !c.has(flag::MULTI) && !is_client_command {
        set_flags(server, c, flag::TRACKING_CACHING, false);
    }
    send_pending(server, c);
}

/// Called when a command has run, possibly in a script: records the keys that it read for the
/// client that sent the request, which may cache them.
pub fn remember(server: &mut Server, argv: &[&[u8]], cmd: &Command) {
    // The keys of EVAL itself are not recorded: the script's commands record the keys that they
    // read.
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

/// Called when the command of client `by` has changed a key; 0 is the server itself.
#[cold]
pub fn key_changed(server: &mut Server, db: u32, key: &[u8], by: u64) {
    let tracking = &mut server.tracking;
    let mut note = |prefix: &Rc<[u8]>| {
        let keys = tracking.changed.entry(prefix.clone()).or_default();
        let change = keys.entry(key.into()).or_default();
        change.by = by;
        if !change.databases.contains(&db) {
            change.databases.push(db);
        }
    };
    // The shorter search is chosen: a walk over all prefixes, or a look-up of each beginning of the
    // key.
    let all = &tracking.prefixes;
    if all.len() <= key.len() {
        all.keys()
            .filter(|prefix| key.starts_with(prefix))
            .for_each(note);
    } else {
        let beginnings = (0..=key.len()).map(|len| &key[..len]);
        let found = beginnings.filter_map(|start| all.get_key_value(start));
        found.for_each(|(prefix, _)| note(prefix));
    }
    invalidate(server, key);
}

/// Notifies the clients that may have cached this key, and removes their ids from the table.
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
            message::notify_tracker(server, id, &keys);
        }
    }
}

/// Called when all keys of one database, or of all databases, were deleted at once.
pub fn flushed(server: &mut Server, lazy: bool) {
    if server.armed & armed::TRACKING == 0 {
        return;
    }
    let ids: Vec<u64> = server.tracking.trackers.keys().copied().collect();
    for id in ids {
        message::notify_tracker(server, id, &Keys::All);
    }
    let old = server.tracking.table.take();
    let keys = old.len();
    let at_once = if lazy { 0 } else { FREED_AT_ONCE_MAX };
    if keys > at_once {
        server.lazyfree.free(Garbage {
            content: Box::new(old),
            objects: keys,
            bytes: 0,
        });
    }
}

/// Removes keys from the tracking table until it has at most `tracking-table-max-keys` keys, or
/// until this call has removed its share.
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

/// Called before the loop sleeps: sends each client in BCAST mode the keys that changed since the
/// last call. The name of a key is data, too: a client gets the names of only those keys that its
/// user may read at this moment.
pub fn broadcast(server: &mut Server) {
    if server.armed & armed::TRACKING == 0 {
        return;
    }
    let mut messages: Vec<(u64, Keys)> = Vec::new();
    let Server {
        tracking, acl, net, ..
    } = server;
    for (prefix, changed) in std::mem::take(&mut tracking.changed) {
        // The changed keys are encoded once for all clients whose users may read every key.
        let all: Vec<&[u8]> = changed.keys().map(|key| &**key).collect();
        let all = encode_keys(&all);
        for &id in tracking.prefixes.get(&prefix).into_iter().flatten() {
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
        message::notify_tracker(server, id, &keys);
    }
}

/// The user of a tracking client, if the user may not read all keys. With a redirection, the rights
/// are those of the client that asked for tracking.
fn limited_user<'a>(acl: &'a Acl, clients: &Clients, r: ClientRef) -> Option<&'a User> {
    // No command runs while the loop is about to sleep, so every client is in its slot.
    let user = acl.user(clients.get(r.slot)?.user)?;
    (!may_read_everything(user)).then_some(user)
}

/// Whether one prefix is the beginning of the other. Such prefixes are refused, so that a client
/// does not get a key twice.
pub fn overlap(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests;
