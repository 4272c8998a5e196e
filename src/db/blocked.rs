//! Clients that wait: for a key, for a pause to end, for replicas.
//!
//! ```text
//!   BLPOP k 0 -> nothing there -> block(k): db.blocking[k] += client, its argv is kept
//!   RPUSH k v -> signal_modified(k) -> ready_keys += k
//!   after the command: for each ready key, for each waiting client in order of arrival: run its command again
//! ```
//!
//! One mechanism for all: a waiting client's command is simply run again when its key changes. If it finds
//! nothing it blocks again, keeping its place and its deadline.
//!
//! **Invariant:** a client is flagged BLOCKED exactly when it has `blocked`, and then it stands in
//! `db.blocking` under each of its keys and, if it has a deadline, in `blocked.timeouts`.

use crate::error::Error;
use crate::networking::client::{Client, ClientRef, OwnedArgv, flag};
use crate::networking::clients::Net;
use crate::networking::query::reference;
use crate::server::call::call;
use crate::state::{BlockKind, Blocked, Server};

/// Let a client wait for `keys`. `deadline_ms` 0 means for ever.
pub fn block_for_keys(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    keys: &[&[u8]],
    deadline_ms: i64,
    on_nokey: bool,
) {
    let r = reference(c);
    // Run again and still nothing: the old place and the old deadline stay.
    if let Some(blocked) = c.blocked.as_deref()
        && c.has(flag::REEXECUTE)
    {
        let deadline_ms = blocked.deadline_ms;
        c.set(flag::BLOCKED);
        debug_assert!(deadline_ms == 0 || server.blocked.timeouts.contains(&(deadline_ms, r)));
        return;
    }
    let db = &mut server.dbs[c.db as usize];
    let mut kept: Vec<Box<[u8]>> = Vec::with_capacity(keys.len());
    for &key in keys {
        if kept.iter().any(|k| **k == *key) {
            continue;
        }
        db.blocking.entry(key.into()).or_default().push(r);
        kept.push(key.into());
    }
    server.blocked.on_nokey += on_nokey as usize;
    start(server, c, kind, argv, kept, deadline_ms, on_nokey);
}

/// Let a client wait without keys: WAIT, SHUTDOWN, CLIENT PAUSE.
pub fn block(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    deadline_ms: i64,
) {
    start(server, c, kind, argv, Vec::new(), deadline_ms, false);
}

fn start(
    server: &mut Server,
    c: &mut Client,
    kind: BlockKind,
    argv: &[&[u8]],
    keys: Vec<Box<[u8]>>,
    deadline_ms: i64,
    on_nokey: bool,
) {
    c.blocked = Some(Box::new(Blocked {
        kind,
        deadline_ms,
        keys,
        argv: OwnedArgv::new(argv),
        cmd: c.last_cmd.unwrap_or(0),
        since_us: server.clock.monotonic_us(),
        on_nokey,
    }));
    c.set(flag::BLOCKED);
    if kind != BlockKind::Postpone {
        server.blocked.count += 1;
    }
    if deadline_ms > 0 {
        server.blocked.timeouts.insert((deadline_ms, reference(c)));
    }
}

/// CLIENT PAUSE: hold this command back; it runs when the pause ends.
pub fn postpone(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16) {
    block(server, c, BlockKind::Postpone, argv, 0);
    if let Some(blocked) = &mut c.blocked {
        blocked.cmd = id;
    }
    server.blocked.postponed.push_back(reference(c));
}

/// Take a client out of all lists of waiting clients.
pub fn forget(server: &mut Server, c: &mut Client) {
    let Some(blocked) = c.blocked.take() else {
        return;
    };
    let r = reference(c);
    for key in &blocked.keys {
        let waiting = &mut server.dbs[c.db as usize].blocking;
        if let Some(clients) = waiting.get_mut(key) {
            clients.retain(|other| *other != r);
            if clients.is_empty() {
                waiting.remove(key);
            }
        }
    }
    if blocked.deadline_ms > 0 {
        server.blocked.timeouts.remove(&(blocked.deadline_ms, r));
    }
    if blocked.kind == BlockKind::Postpone {
        server.blocked.postponed.retain(|other| *other != r);
    } else {
        server.blocked.count -= 1;
    }
    server.blocked.on_nokey -= blocked.on_nokey as usize;
    c.clear(flag::BLOCKED);
}

/// A client may go on: what it sent meanwhile runs before the loop sleeps.
pub fn unblock(server: &mut Server, c: &mut Client) {
    forget(server, c);
    if !c.has(flag::UNBLOCKED) && c.conn.is_some() {
        c.set(flag::UNBLOCKED);
        server.blocked.unblocked.push_back(reference(c));
    }
    if !c.reply.is_empty() {
        Net::mark_pending(&mut server.net.pending_write, c);
    }
}

/// What a blocked client is told when its time is over.
fn reply_to_timeout(c: &mut Client) {
    match c.blocked.as_ref().map(|b| b.kind) {
        Some(BlockKind::List | BlockKind::Zset | BlockKind::Stream) => c.reply.null_array(),
        Some(BlockKind::Wait) => c.reply.integer(0),
        Some(BlockKind::WaitAof) => {
            c.reply.array(2);
            c.reply.integer(0);
            c.reply.integer(0);
        }
        _ => {}
    }
}

/// Answer those whose deadline has passed.
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
        reply_to_timeout(&mut c);
        unblock(server, &mut c);
        server.net.clients.put(c);
    }
}

/// CLIENT UNBLOCK. False: that client does not wait, or not for something that can be cut short.
pub fn unblock_by_request(server: &mut Server, r: ClientRef, with_error: bool) -> bool {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return false;
    };
    let kind = c.blocked.as_ref().map(|b| b.kind);
    let can = matches!(
        kind,
        Some(
            BlockKind::List
                | BlockKind::Zset
                | BlockKind::Stream
                | BlockKind::Wait
                | BlockKind::WaitAof
        )
    );
    if can {
        if with_error {
            let error = Error::of("UNBLOCKED client unblocked via CLIENT UNBLOCK");
            c.reply.error(&error);
            server.stats.count_error(error.code());
        } else {
            reply_to_timeout(&mut c);
        }
        unblock(server, &mut c);
    }
    server.net.clients.put(c);
    can
}

impl Server {
    /// A key was written: if somebody waits for it, look after this command.
    pub fn signal_key_ready(&mut self, db: u32, key: &[u8]) {
        if !self.dbs[db as usize].blocking.contains_key(key) {
            return;
        }
        let entry: (u32, Box<[u8]>) = (db, key.into());
        if self.blocked.ready_set.insert(entry.clone()) {
            self.blocked.ready_keys.push_back(entry);
        }
    }

    /// Any key of this database may have come to be: SWAPDB, loading.
    pub fn signal_all_ready(&mut self, db: u32) {
        let keys: Vec<Box<[u8]>> = self.dbs[db as usize].blocking.keys().cloned().collect();
        keys.iter().for_each(|key| self.signal_key_ready(db, key));
    }
}

/// After a command: serve the clients that wait for keys which were written, in order of arrival.
pub fn handle_ready_keys(server: &mut Server) {
    while let Some(ready) = server.blocked.ready_keys.pop_front() {
        server.blocked.ready_set.remove(&ready);
        let (db, key) = ready;
        let Some(waiting) = server.dbs[db as usize].blocking.get(&key) else {
            continue;
        };
        for r in waiting.clone() {
            serve(server, db, &key, r);
        }
    }
}

/// Run a waiting client's command again, if the key is there for it.
fn serve(server: &mut Server, db: u32, key: &[u8], r: ClientRef) {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return;
    };
    let wanted = c.blocked.as_ref().map(|b| (b.kind, b.on_nokey));
    let found = server
        .lookup_no_touch(&c, key)
        .map(crate::types::string::type_of);
    debug_assert_eq!(c.db, db);
    use crate::types::Type;
    let run = match (wanted, found) {
        (Some((_, true)), _) => true,
        (Some((BlockKind::List, _)), Some(Type::List)) => true,
        (Some((BlockKind::Zset, _)), Some(Type::Zset)) => true,
        (Some((BlockKind::Stream, _)), Some(Type::Stream)) => true,
        _ => false,
    };
    if run {
        reexecute(server, &mut c);
    }
    server.net.clients.put(c);
}

/// Run the kept command. If it blocks again it keeps its place; otherwise the client goes on.
fn reexecute(server: &mut Server, c: &mut Client) {
    let Some(blocked) = &c.blocked else { return };
    let (argv, id) = (blocked.argv.clone(), blocked.cmd);
    c.clear(flag::BLOCKED);
    c.set(flag::REEXECUTE);
    server.clock.last = crate::sys::ticks::now();
    call(server, c, &argv.slices(), id, &[]);
    c.clear(flag::REEXECUTE);
    if !c.has(flag::BLOCKED) {
        c.set(flag::BLOCKED);
        unblock(server, c);
    }
}

/// The pause is over: run what was held back, in order.
pub fn resume_postponed(server: &mut Server) {
    let waiting = std::mem::take(&mut server.blocked.postponed);
    for r in waiting {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        if let Some(blocked) = c.blocked.take() {
            c.clear(flag::BLOCKED);
            let argv = blocked.argv.slices();
            let id = server.commands.lookup(argv[0]);
            server.clock.last = crate::sys::ticks::now();
            crate::server::dispatch::process_command(server, &mut c, &argv, id, &[]);
            if !c.has(flag::BLOCKED) {
                c.set(flag::UNBLOCKED);
                server.blocked.unblocked.push_back(r);
            }
            if !c.reply.is_empty() {
                Net::mark_pending(&mut server.net.pending_write, &mut c);
            }
        }
        server.net.clients.put(c);
    }
}
