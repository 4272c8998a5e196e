//! Transactions: MULTI queues, EXEC runs the queue as one unit, WATCH makes it conditional.
//!
//! ```text
//!   db.watched[key] -> watchers       client.watched -> keys
//!   a write to key:   each of those clients is flagged DIRTY_CAS, EXEC answers null
//!   a refused command while queueing: DIRTY_EXEC, EXEC answers EXECABORT
//! ```

use crate::client::resp::Sent;
use crate::client::{Client, ClientRef, flag};
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::execute::call::call;
use crate::networking::query::reference;
use crate::state::{MultiState, Server, WatchedKey, Watcher};

pub const TABLE: &[Command] = &[
    cmd(
        "discard",
        discard,
        1,
        NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | RUNS_IN_MULTI,
        TRANSACTION,
    ),
    cmd(
        "exec",
        exec,
        1,
        NOSCRIPT | LOADING | STALE | SKIP_COMMANDLOG | RUNS_IN_MULTI,
        TRANSACTION,
    ),
    cmd(
        "multi",
        multi,
        1,
        NOSCRIPT | LOADING | STALE | FAST | NO_MULTI | ALLOW_BUSY,
        TRANSACTION,
    ),
    cmd(
        "unwatch",
        unwatch,
        1,
        NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY,
        TRANSACTION,
    ),
    cmd(
        "watch",
        watch,
        -2,
        NOSCRIPT | LOADING | STALE | FAST | NO_MULTI | ALLOW_BUSY,
        TRANSACTION,
    )
    .keys(&[key(RO, index(1), range(-1, 1, 0))]),
];

/// MULTI
fn multi(ctx: &mut Ctx) -> CmdResult {
    ctx.client.set(flag::MULTI);
    ctx.client.multi = Some(Box::new(MultiState::new()));
    ctx.client.reply.ok();
    Ok(())
}

/// Keep a command for EXEC.
pub fn queue(c: &mut Client, id: u16, flags: Flags, argv: &[&[u8]]) {
    // What aborts the transaction anyway need not be kept.
    if c.has(flag::DIRTY_EXEC | flag::DIRTY_CAS) {
        return;
    }
    c.multi
        .get_or_insert_with(|| Box::new(MultiState::new()))
        .push(id, flags, argv);
}

/// Back to normal, watching nothing.
pub fn discard_transaction(server: &mut Server, c: &mut Client) {
    c.multi = None;
    c.clear(flag::MULTI | flag::DIRTY_CAS | flag::DIRTY_EXEC);
    unwatch_all(server, c);
}

/// EXEC itself was refused: the transaction ends here, and the client learns why.
pub fn abort(server: &mut Server, c: &mut Client, why: &Error) -> Error {
    discard_transaction(server, c);
    let why = why.text().strip_prefix("ERR ").unwrap_or(why.text());
    Error::new(format!("EXECABORT Transaction discarded because of: {why}"))
}

/// DISCARD
fn discard(ctx: &mut Ctx) -> CmdResult {
    if !ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR DISCARD without MULTI"));
    }
    discard_transaction(ctx.server, ctx.client);
    ctx.client.reply.ok();
    Ok(())
}

/// EXEC
fn exec(ctx: &mut Ctx) -> CmdResult {
    if !ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR EXEC without MULTI"));
    }
    let touched = ctx.server.touched.contains(&reference(ctx.client));
    if touched || watched_expired(ctx.server, ctx.client) {
        ctx.client.set(flag::DIRTY_CAS);
    }
    if ctx.client.has(flag::DIRTY_CAS | flag::DIRTY_EXEC) {
        let aborted = ctx.client.has(flag::DIRTY_EXEC);
        discard_transaction(ctx.server, ctx.client);
        if aborted {
            return Err(Error::EXECABORT);
        }
        ctx.client.reply.null_array();
        return Ok(());
    }
    unwatch_all(ctx.server, ctx.client);
    let state = ctx.client.multi.take().unwrap_or_default();
    ctx.client.clear(flag::MULTI);
    ctx.client.reply.array(state.commands.len());
    run_queue(ctx, &state);
    // What it ran has been told.
    ctx.prevent_propagation();
    Ok(())
}

fn run_queue(ctx: &mut Ctx, state: &MultiState) {
    let could_block = !ctx.client.has(flag::DENY_BLOCKING);
    ctx.client.set(flag::DENY_BLOCKING | flag::IN_EXEC);
    ctx.server.nesting += 1;
    let args = state.slices();
    let mut start = 0;
    for queued in &state.commands {
        let argv = &args[start..queued.args_end];
        start = queued.args_end;
        // Rights may have been taken away since the command was queued.
        if let Err(error) = crate::acl::check_command(ctx.server, ctx.client, argv, queued.id) {
            ctx.client.reply.error(&error);
            ctx.server.stats.count_error(error.code());
            continue;
        }
        call(ctx.server, ctx.client, argv, queued.id, Sent::default());
    }
    ctx.server.nesting -= 1;
    ctx.client.clear(flag::IN_EXEC);
    if could_block {
        ctx.client.clear(flag::DENY_BLOCKING);
    }
}

/// WATCH key [key ...]
fn watch(ctx: &mut Ctx) -> CmdResult {
    // The transaction is lost already.
    if !ctx.client.has(flag::DIRTY_CAS) {
        for at in 1..ctx.argv.len() {
            watch_key(ctx, ctx.argv[at]);
        }
    }
    ctx.client.reply.ok();
    Ok(())
}

fn watch_key(ctx: &mut Ctx, key: &[u8]) {
    let db = ctx.client.db;
    if ctx
        .client
        .watched
        .iter()
        .any(|w| w.db == db && *w.key == *key)
    {
        return;
    }
    let client = reference(ctx.client);
    let expired = state_of(ctx.server, db, key) == KeyState::Expired;
    let watchers = ctx.db().watched.entry(key.into()).or_default();
    watchers.push(Watcher { client, expired });
    let key = key.into();
    ctx.client.watched.push(WatchedKey { db, key });
}

/// What a watched key is: one that has expired and one that is missing are the same to its watchers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyState {
    Missing,
    Expired,
    Alive,
}

fn state_of(server: &Server, db: u32, key: &[u8]) -> KeyState {
    let hash = server.seed.hash(key);
    match server.dbs[db as usize].find(hash, key) {
        None => KeyState::Missing,
        Some(e) if e.expire_at().is_some_and(|at| at < server.clock.now_ms) => KeyState::Expired,
        Some(_) => KeyState::Alive,
    }
}

/// UNWATCH
fn unwatch(ctx: &mut Ctx) -> CmdResult {
    unwatch_all(ctx.server, ctx.client);
    ctx.client.clear(flag::DIRTY_CAS);
    ctx.client.reply.ok();
    Ok(())
}

/// Watch nothing any more.
pub fn unwatch_all(server: &mut Server, c: &mut Client) {
    if c.watched.is_empty() {
        return;
    }
    let r = reference(c);
    server.touched.retain(|other| *other != r);
    for watched in std::mem::take(&mut c.watched) {
        let table = &mut server.dbs[watched.db as usize].watched;
        if let Some(watchers) = table.get_mut(&watched.key) {
            watchers.retain(|watcher| watcher.client != r);
            if watchers.is_empty() {
                table.remove(&watched.key);
            }
        }
    }
}

/// A watched key that was alive at WATCH and is past its time now counts as touched.
fn watched_expired(server: &Server, c: &Client) -> bool {
    let r = reference(c);
    c.watched.iter().any(|w| {
        let watchers = server.dbs[w.db as usize].watched.get(&w.key);
        let watcher = watchers.and_then(|all| all.iter().find(|watcher| watcher.client == r));
        watcher.is_some_and(|watcher| !watcher.expired)
            && state_of(server, w.db, &w.key) == KeyState::Expired
    })
}

/// A key changed: those who watch it must not EXEC. `by` is the client whose command this is.
pub fn touch_watched(server: &mut Server, mut by: Option<&mut Client>, db: u32, key: &[u8]) {
    let gone = state_of(server, db, key) == KeyState::Missing;
    let Some(watchers) = server.dbs[db as usize].watched.get_mut(key) else {
        return;
    };
    let mut touched = Vec::new();
    for watcher in watchers {
        if watcher.expired && gone {
            // It had expired when it was watched: now it is merely removed. A new one is a change.
            watcher.expired = false;
        } else {
            touched.push(watcher.client);
        }
    }
    for r in touched {
        touch(server, by.as_deref_mut(), r);
    }
}

/// A client's transaction is lost. One that runs a command is out of its slot: it is `by`, or, when the look-up
/// of an expired key changes the keyspace, unknown here. Then it is remembered for its EXEC.
fn touch(server: &mut Server, by: Option<&mut Client>, r: ClientRef) {
    match by {
        Some(c) if c.id == r.id => c.set(flag::DIRTY_CAS),
        _ => match server.net.clients.resolve(r) {
            Some(c) => c.set(flag::DIRTY_CAS),
            None if server.touched.contains(&r) => {}
            None => server.touched.push(r),
        },
    }
}

/// A whole database is emptied, or replaced by `other`: every watched key that is alive in either is touched.
pub fn touch_all_watched(
    server: &mut Server,
    mut by: Option<&mut Client>,
    db: u32,
    other: Option<u32>,
) {
    let keys: Vec<Box<[u8]>> = server.dbs[db as usize].watched.keys().cloned().collect();
    for key in keys {
        let before = state_of(server, db, &key);
        let after = other.map_or(KeyState::Missing, |other| state_of(server, other, &key));
        let Some(watchers) = server.dbs[db as usize].watched.get_mut(&key) else {
            continue;
        };
        if before != KeyState::Alive && after != KeyState::Alive {
            let expired = after == KeyState::Expired;
            watchers
                .iter_mut()
                .for_each(|watcher| watcher.expired = expired);
            continue;
        }
        for watcher in watchers.clone() {
            touch(server, by.as_deref_mut(), watcher.client);
        }
    }
}
