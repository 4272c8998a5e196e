//! Blocked clients: those that wait for a key, for the end of a pause, or for replicas.
//!
//! ```text
//!   BLPOP k 0   nothing there -> block_for_keys(k)      its argv is kept, it stands in key_clients.blocking[k]
//!   RPUSH k v   signal_modified(k) -> ready_keys += k
//!   after the command (or EXEC): for each ready key, in the order in which they were written,
//!       for each client that waits for it, in order of arrival: run its command again
//! ```
//!
//! Blocked clients are served in the same way for all types of values: when a key for which a
//! client waits is written, the client's command runs again, from the checks of `process_command`
//! on. So a blocked command respects a pause, and ACL rights that were removed while the client
//! waited. A command that runs again and finds nothing blocks again, with its old place in the
//! queue and its old deadline. If a served command writes (BLMOVE), the keys that it wrote are
//! appended to the ready keys.
//!
//! A blocking command reads its arguments, the timeout among them ([`deadline_from_seconds`]), and
//! then looks for data. A blocking command that finds nothing calls [`block_for_keys`], which
//! replies with null when the client must not block (`flag::DENY_BLOCKING`: EXEC, scripts). A
//! blocking command keeps no state between two runs.
//!
//! A blocked client's place in the queue is a ticket: a number that grows with each client that
//! begins to wait. The clients that wait for a key are sorted by ticket. A plain list of waiting
//! clients would have to be searched whenever a client leaves the list.
//!
//! The deadline of a blocked client is exact to a millisecond: `before_sleep` sets a timer for the
//! earliest deadline.
//!
//! **Invariant:** a client has the flag BLOCKED exactly when its field `blocked` is set, and such a
//! client is in `key_clients.blocking` under each key for which it waits and, if it has a deadline,
//! in `blocked.timeouts` (test `a_closed_client_leaves_no_trace`). The exception is a client whose
//! pause is over: the client's field `blocked` is set without the flag until the client's command
//! runs, before the loop sleeps.
//!
//! A blocked client stays with the database in which it waits: SWAPDB exchanges the keys of two
//! databases, not the clients that wait in them.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::client::blocked::{BlockKind, Blocked};
use crate::client::resp::Sent;
use crate::client::table::Net;
use crate::client::{Client, ClientRef, OwnedArgv, flag};
use crate::ds::btree_memory;
use crate::error::Error;
use crate::execute::call::account;
use crate::execute::dispatch::{process_command, redirection};
use crate::execute::route;
use crate::execute::wait;
use crate::state::Server;
use crate::sys::ticks;
use crate::types::Type;
use crate::types::string::type_of;
use crate::util::long_double::LongDouble;
use crate::util::number::{MAX_FLOAT_CHARS, parse_f64, parse_i64};

/// All blocked clients.
#[derive(Default)]
pub struct BlockedClients {
    pub count: usize,
    /// Keys that may serve a blocked client, in the order in which they were written: (db, key).
    pub ready_keys: VecDeque<(u32, Box<[u8]>)>,
    /// The elements of `ready_keys` as a set, so that `ready_keys` lists each key once.
    pub ready_set: HashSet<(u32, Box<[u8]>)>,
    /// The deadlines of blocked clients (Unix time in milliseconds) with their clients, earliest
    /// first.
    pub timeouts: BTreeSet<(i64, ClientRef)>,
    /// The deadline for which the event loop's timer for blocked clients is set; 0 if the timer is
    /// not set.
    pub alarm_ms: i64,
    /// Clients that are not blocked any more: their buffered requests run before the loop sleeps.
    pub unblocked: VecDeque<ClientRef>,
    /// Clients held back by CLIENT PAUSE.
    pub postponed: VecDeque<ClientRef>,
    /// Clients that are blocked in WAIT, WAITAOF, CLUSTER SETSLOT or FLUSHALL. The list may also
    /// have clients that no longer wait.
    pub waiting_acks: Vec<ClientRef>,
    /// The number of keys for which clients wait whose commands also run again when the key is
    /// deleted (XREADGROUP).
    pub on_nokey: usize,
    /// The ticket of the client that began to wait last.
    pub last_ticket: u64,
    /// Whether blocked clients are being served; keys that become ready meanwhile are appended to
    /// `ready_keys`.
    pub serving: bool,
    /// While a blocked client's command runs again: the client's ticket and deadline, in case the
    /// command blocks again.
    pub place: Option<(u64, i64)>,
}

impl BlockedClients {
    /// The memory of the set of deadlines in bytes.
    pub fn timeouts_memory(&self) -> usize {
        btree_memory::map_bytes::<(i64, ClientRef), ()>(self.timeouts.len())
    }
}

/// Reads a timeout in seconds, which may have a fraction. Returns the Unix time in milliseconds at
/// which the timeout ends; 0 for never.
pub fn deadline_from_seconds(server: &Server, text: &[u8]) -> Result<i64, Error> {
    // Redis parses a timeout as a long double: 1e400 is a number, and the error for it is "out of
    // range".
    let extreme = || LongDouble::parse(text).map(LongDouble::to_f64);
    let double = || parse_f64(text).filter(|_| text.len() <= MAX_FLOAT_CHARS);
    let seconds = double().or_else(extreme);
    let ms = seconds.ok_or(Error::TIMEOUT_NOT_FLOAT)? * 1000.0;
    if ms > i64::MAX as f64 {
        return Err(Error::TIMEOUT_RANGE);
    }
    deadline(server, ms.ceil() as i64)
}

/// Reads a timeout in whole milliseconds. Returns the Unix time in milliseconds at which the
/// timeout ends; 0 for never.
pub fn deadline_from_ms(server: &Server, text: &[u8]) -> Result<i64, Error> {
    deadline(server, parse_i64(text).ok_or(Error::TIMEOUT_NOT_INTEGER)?)
}

fn deadline(server: &Server, timeout_ms: i64) -> Result<i64, Error> {
    match timeout_ms {
        ..0 => Err(Error::TIMEOUT_NEGATIVE),
        0 => Ok(0),
        ms => server
            .clock
            .now_ms
            .checked_add(ms)
            .ok_or(Error::TIMEOUT_RANGE),
    }
}

/// Blocks a client until one of `keys` holds a value of the type that `kind` names; then the
/// command `argv` runs again. `deadline_ms` 0 means that the client waits for ever. With `on_nokey`
/// the client's command also runs again when a key is deleted or changes its type (XREADGROUP, as
/// the group is deleted with its key). A client that must not block (in EXEC or a script) gets the
/// reply of a timeout at once.
pub fn block_for_keys(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    keys: &[&[u8]],
    deadline_ms: i64,
    on_nokey: bool,
) {
    if c.has(flag::DENY_BLOCKING) {
        return c.reply.null_array();
    }
    let new_place = (server.blocked.last_ticket + 1, deadline_ms);
    let (ticket, deadline_ms) = match server.blocked.place.filter(|_| c.has(flag::REEXECUTE)) {
        Some(old_place) => old_place,
        None => new_place,
    };
    server.blocked.last_ticket = server.blocked.last_ticket.max(ticket);
    let r = c.reference();
    let mut kept: Vec<Box<[u8]>> = Vec::with_capacity(keys.len());
    for &key in keys {
        let table = &mut server.key_clients[c.db as usize].blocking;
        let joined = table.change(key, |waiting| {
            let joined = waiting.join(ticket, r);
            if joined && on_nokey {
                waiting.on_nokey += 1;
                server.blocked.on_nokey += usize::from(waiting.on_nokey == 1);
            }
            joined
        });
        if joined {
            // A key that the command names twice is kept once.
            kept.push(key.into());
        }
    }
    let argv = OwnedArgv::new(argv);
    start(
        server,
        c,
        Blocked {
            kind,
            deadline_ms,
            ticket,
            keys: kept,
            argv,
            on_nokey,
        },
    );
}

/// Blocks a client that does not wait for a key, but because of WAIT, SHUTDOWN or CLIENT PAUSE. The
/// caller must also see to it that the client is unblocked.
pub fn block(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    deadline_ms: i64,
) {
    let argv = OwnedArgv::new(argv);
    start(
        server,
        c,
        Blocked {
            kind,
            deadline_ms,
            ticket: 0,
            keys: Vec::new(),
            argv,
            on_nokey: false,
        },
    );
}

fn start(server: &mut Server, c: &mut Client, blocked: Blocked) {
    if blocked.deadline_ms > 0 {
        server
            .blocked
            .timeouts
            .insert((blocked.deadline_ms, c.reference()));
    }
    c.blocked = Some(Box::new(blocked));
    c.set(flag::BLOCKED);
    server.blocked.count += 1;
}

/// Blocks a client until the replicas, or the disk, have the client's writes. Acknowledgements are
/// requested from the replicas before the loop sleeps.
pub fn block_for_acks(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    deadline_ms: i64,
) {
    block(server, c, kind, argv, deadline_ms);
    server.blocked.waiting_acks.push(c.reference());
    server.replication.wants_acks = true;
}

/// Blocks the client of FLUSHALL SYNC until the background thread that frees memory has done the
/// job with the number `job`.
pub fn block_until_freed(server: &mut Server, c: &mut Client, argv: &[&[u8]], job: u64) {
    block(server, c, BlockKind::Freed { job }, argv, 0);
    server.blocked.waiting_acks.push(c.reference());
}

/// Holds a command back because of CLIENT PAUSE or another pause; the command runs when the pause
/// ends.
pub fn postpone(server: &mut Server, c: &mut Client, argv: &[&[u8]]) {
    block(server, c, BlockKind::Postpone, argv, 0);
    server.blocked.postponed.push_back(c.reference());
}

/// Removes a client from all lists of waiting clients.
pub fn forget(server: &mut Server, c: &mut Client) -> Option<Box<Blocked>> {
    let blocked = c.blocked.take()?;
    let r = c.reference();
    for key in &blocked.keys {
        leave(server, c.db, key, &blocked);
    }
    if blocked.deadline_ms > 0 {
        server.blocked.timeouts.remove(&(blocked.deadline_ms, r));
    }
    if blocked.kind == BlockKind::Postpone {
        server.blocked.postponed.retain(|other| *other != r);
    }
    if c.has(flag::BLOCKED) {
        server.blocked.count -= 1;
        c.clear(flag::BLOCKED);
    }
    Some(blocked)
}

/// Removes a client from the list of clients that wait for `key`.
fn leave(server: &mut Server, db: u32, key: &[u8], blocked: &Blocked) {
    let table = &mut server.key_clients[db as usize].blocking;
    table.change_existing(key, |waiting| {
        waiting.leave(blocked.ticket);
        if blocked.on_nokey {
            waiting.on_nokey -= 1;
            server.blocked.on_nokey -= usize::from(waiting.on_nokey == 0);
        }
    });
}

/// Unblocks a client: its buffered requests run before the loop sleeps.
pub fn unblock(server: &mut Server, c: &mut Client) {
    forget(server, c);
    if !c.has(flag::UNBLOCKED) && c.conn.is_some() {
        c.set(flag::UNBLOCKED);
        server.blocked.unblocked.push_back(c.reference());
    }
    if !c.reply.is_empty() {
        Net::mark_pending(&mut server.net.pending_write, c);
    }
}

/// Ends a client's wait with the reply that the closure `reply` writes, without running the
/// client's blocked command again. The blocked command is counted as a call in the statistics.
fn unblock_with(
    server: &mut Server,
    c: &mut Client,
    failed: bool,
    reply: impl FnOnce(&Server, &mut Client),
) {
    let reply_from = c.reply.mark();
    reply(server, c);
    c.drop_unwanted_reply(reply_from);
    c.clear(flag::REPLY_SKIP | flag::ASKING);
    if let Some(blocked) = forget(server, c) {
        let argv = blocked.argv.slices();
        if let Some(id) = server.commands.lookup(argv[0]) {
            account(server, c, &argv, id, 0, failed);
        }
    }
    unblock(server, c);
}

/// Ends a client's wait with an error reply.
fn unblock_with_error(server: &mut Server, c: &mut Client, error: Error) {
    server.stats.count_error(error.code());
    unblock_with(server, c, true, |_, c| c.reply.error(&error));
}

/// Replies to a blocked client whose timeout has passed, or whose WAIT, WAITAOF or FLUSHALL is
/// over.
fn reply_to_timeout(server: &Server, c: &mut Client) {
    match c.blocked.as_ref().map(|b| b.kind) {
        Some(BlockKind::List | BlockKind::Zset | BlockKind::Stream) => c.reply.null_array(),
        Some(BlockKind::Wait) => wait::reply_wait(server, c),
        Some(BlockKind::WaitAof) => wait::reply_waitaof(server, c),
        Some(BlockKind::Freed { .. }) => c.reply.ok(),
        _ => {}
    }
}

/// Replies to the blocked clients whose deadline has passed, and unblocks them.
pub fn handle_timeouts(server: &mut Server) {
    let now = server.clock.now_ms;
    while let Some(&(deadline, r)) = server.blocked.timeouts.first() {
        if deadline > now {
            return;
        }
        server.blocked.timeouts.pop_first();
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        match is_set_slot(&c) {
            true => unblock_with_error(server, &mut c, Error::NOREPLICAS),
            false => unblock_with(server, &mut c, false, reply_to_timeout),
        }
        server.net.clients.put(c);
    }
}

/// Whether a client waits until the replicas have its CLUSTER SETSLOT.
fn is_set_slot(c: &Client) -> bool {
    let blocked = c.blocked.as_ref();
    blocked.is_some_and(|blocked| matches!(blocked.kind, BlockKind::SetSlot { .. }))
}

/// Replies to the clients in WAIT, WAITAOF and FLUSHALL whose wait is over: after acknowledgements,
/// after an fsync of the AOF, when the AOF was switched off, or when the keys are freed. A client's
/// CLUSTER SETSLOT runs on this server when the replicas have executed the command.
pub fn serve_acks(server: &mut Server) {
    use BlockKind::{Freed, SetSlot, Wait, WaitAof};
    for r in std::mem::take(&mut server.blocked.waiting_acks) {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let waits = c
            .blocked
            .as_ref()
            .is_some_and(|b| matches!(b.kind, Wait | WaitAof | SetSlot { .. } | Freed { .. }));
        match wait::is_over(server, &c) {
            _ if !waits => {}
            None => server.blocked.waiting_acks.push(r),
            Some(Ok(())) if is_set_slot(&c) => reexecute(server, &mut c),
            Some(Ok(())) => unblock_with(server, &mut c, false, reply_to_timeout),
            Some(Err(error)) => {
                unblock_with_error(server, &mut c, error);
            }
        }
        server.net.clients.put(c);
    }
}

/// Ends the wait of a client that is blocked for the reason `kind` with OK or an error.
pub fn answer(server: &mut Server, r: ClientRef, kind: BlockKind, error: Option<Error>) {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return;
    };
    if c.blocked
        .as_ref()
        .is_some_and(|blocked| blocked.kind == kind)
    {
        match error {
            None => unblock_with(server, &mut c, false, |_, c| c.reply.ok()),
            Some(error) => {
                unblock_with_error(server, &mut c, error);
            }
        }
    }
    server.net.clients.put(c);
}

/// Ends the waits of all clients when this server becomes a replica, since a replica may never
/// serve them. The blocked clients get an error and are closed, except those that a pause holds
/// back. A client that waits for a key and follows redirections (CLIENT CAPA REDIRECT) gets the
/// primary's address instead, and stays connected.
pub fn disconnect_all(server: &mut Server) {
    for r in server.net.clients.refs() {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let kind = c.blocked.as_ref().map(|blocked| blocked.kind);
        let redirection = redirection(server).filter(|_| c.has(flag::CAPA_REDIRECT));
        if let Some(BlockKind::List | BlockKind::Zset | BlockKind::Stream) = kind
            && let Some(error) = redirection
        {
            unblock_with_error(server, &mut c, error);
        } else if let Some(BlockKind::Freed { .. }) = kind {
            // FLUSHALL has removed its keys already, only their memory is not free yet, so its
            // reply is OK.
            unblock_with(server, &mut c, false, reply_to_timeout);
        } else if kind
            .is_some_and(|kind| !matches!(kind, BlockKind::Postpone | BlockKind::Shutdown))
        {
            let error = Error::of(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            );
            unblock_with_error(server, &mut c, error);
            c.set(flag::CLOSE_AFTER_REPLY);
        }
        server.net.clients.put(c);
    }
}

/// Called on a cluster node after owners of slots have changed: a client that waits for a key of
/// another node gets the error that the client's command would get now.
pub fn redirect_waiting(server: &mut Server) {
    let waiting = server.key_clients.iter().flat_map(|db| db.blocking.iter());
    let waiting: BTreeSet<ClientRef> = waiting
        .flat_map(|(_, waiting)| waiting.iter().map(|&(_, r)| r))
        .collect();
    for r in waiting {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        if let Some(error) = route::error_of_waiting(server, &c) {
            unblock_with_error(server, &mut c, error);
        }
        server.net.clients.put(c);
    }
}

/// CLIENT UNBLOCK. Returns false if the client is not blocked, or waits for something else than a
/// key, replicas or the disk.
pub fn unblock_by_request(server: &mut Server, r: ClientRef, with_error: bool) -> bool {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return false;
    };
    use BlockKind::{List, Stream, Wait, WaitAof, Zset};
    let can = c
        .blocked
        .as_ref()
        .is_some_and(|b| matches!(b.kind, List | Zset | Stream | Wait | WaitAof));
    if can && with_error {
        let error = Error::of("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        unblock_with_error(server, &mut c, error);
    } else if can {
        unblock_with(server, &mut c, false, reply_to_timeout);
    }
    server.net.clients.put(c);
    can
}

impl Server {
    /// Notes that a key was written. Clients that are blocked on the key are served after the
    /// command that wrote it.
    pub fn signal_key_ready(&mut self, db: u32, key: &[u8]) {
        if self.key_clients[db as usize].blocking.get(key).is_none() {
            return;
        }
        let entry: (u32, Box<[u8]>) = (db, key.into());
        if self.blocked.ready_set.insert(entry.clone()) {
            self.blocked.ready_keys.push_back(entry);
        }
    }

    /// Marks all keys of database `db` for which clients wait as ready, since SWAPDB, FLUSHDB or a
    /// load may have created or deleted them.
    pub fn signal_all_ready(&mut self, db: u32) {
        let keys = self.key_clients[db as usize].blocking.names();
        let keys: Vec<Box<[u8]>> = keys.map(Box::from).collect();
        keys.iter().for_each(|key| self.signal_key_ready(db, key));
    }
}

/// After a command or a transaction: serves the clients that wait for keys which it has written.
pub fn handle_ready_keys(server: &mut Server) {
    if server.blocked.serving {
        return;
    }
    server.blocked.serving = true;
    while let Some(ready) = server.blocked.ready_keys.pop_front() {
        // The commands of the served clients can make the key ready again, so the key leaves
        // `ready_set` before they run.
        server.blocked.ready_set.remove(&ready);
        serve_key(server, ready.0, &ready.1);
    }
    server.blocked.serving = false;
}

/// Serves the clients that wait for a key, in order of arrival, as long as the key exists.
fn serve_key(server: &mut Server, db: u32, key: &[u8]) {
    let waiting = |server: &Server, tickets| {
        let waiting = server.key_clients[db as usize].blocking.get(key)?;
        waiting
            .next(tickets)
            .map(|(ticket, r)| (ticket, r, waiting.on_nokey > 0))
    };
    // Clients that block while the key's clients are served are served when the key is written
    // next.
    let end = server.blocked.last_ticket + 1;
    let mut from = 0;
    while let Some((ticket, r, on_nokey)) = waiting(server, from..end) {
        from = ticket + 1;
        // A client whose own command runs at the moment can't be taken out of the table of clients,
        // and has just looked at the key.
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let found = live_type(server, db, key);
        if is_served_by(&c, found) {
            reexecute(server, &mut c);
        }
        server.net.clients.put(c);
        if found.is_none() && !on_nokey {
            return;
        }
    }
}

/// The type of a key's value, if the key exists. An expired key counts as missing, but is not
/// deleted: the next command that looks the key up, or the expiry cycle, deletes it.
fn live_type(server: &mut Server, db: u32, key: &[u8]) -> Option<Type> {
    let hash = server.hash_key(key);
    let found = server.data.dbs[db as usize].find(hash, key);
    found
        .filter(|entry| !server.is_expired(*entry))
        .map(type_of)
}

/// Whether a key of the type `found`, or a missing key, may serve a blocked client.
fn is_served_by(c: &Client, found: Option<Type>) -> bool {
    let Some(blocked) = &c.blocked else {
        return false;
    };
    let wanted = match blocked.kind {
        BlockKind::List => Some(Type::List),
        BlockKind::Zset => Some(Type::Zset),
        BlockKind::Stream => Some(Type::Stream),
        _ => None,
    };
    blocked.on_nokey || (wanted.is_some() && wanted == found)
}

/// Runs a blocked client's command again. The command may block again, or be held back by a pause;
/// otherwise the client is unblocked.
fn reexecute(server: &mut Server, c: &mut Client) {
    let Some(blocked) = forget(server, c) else {
        return;
    };
    server.blocked.place = Some((blocked.ticket, blocked.deadline_ms));
    c.set(flag::REEXECUTE);
    run_kept(server, c, &blocked);
    c.clear(flag::REEXECUTE);
    server.blocked.place = None;
    if !c.has(flag::BLOCKED) {
        unblock(server, c);
    }
}

fn run_kept(server: &mut Server, c: &mut Client, blocked: &Blocked) {
    let argv = blocked.argv.slices();
    let id = server.commands.lookup(argv[0]);
    server.clock.last = ticks::now();
    process_command(server, c, &argv, id, Sent::default());
}

/// After the end of a pause: lets the commands that the pause held back run before the loop sleeps,
/// in the order in which they came.
pub fn resume_postponed(server: &mut Server) {
    for r in std::mem::take(&mut server.blocked.postponed) {
        let Some(c) = server.net.clients.resolve(r) else {
            continue;
        };
        c.clear(flag::BLOCKED);
        c.set(flag::UNBLOCKED);
        server.blocked.count -= 1;
        server.blocked.unblocked.push_back(r);
    }
}

/// Runs the client's command that a pause held back, if there is such a command; another pause may
/// hold the command back again.
pub fn run_postponed(server: &mut Server, c: &mut Client) {
    if let Some(blocked) = c.blocked.take_if(|b| b.kind == BlockKind::Postpone) {
        run_kept(server, c, &blocked);
    }
}

#[cfg(test)]
mod tests;
