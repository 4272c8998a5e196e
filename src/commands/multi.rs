//! Transactions: MULTI queues, EXEC runs the queue as one unit, WATCH makes it conditional.
//!
//! ```text
//!   db.watched[key] -> clients        client.watched -> keys
//!   a write to key:   each of those clients is flagged DIRTY_CAS, EXEC answers null
//!   a refused command while queueing: DIRTY_EXEC, EXEC answers EXECABORT
//! ```

use crate::commands::command::*;
use crate::commands::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::networking::client::{Client, ClientRef, OwnedArgv, flag};
use crate::networking::query::reference;
use crate::server::call::call;
use crate::state::{Queued, Server, WatchedKey};

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
    ctx.client.multi = Some(Box::default());
    ctx.client.reply.ok();
    Ok(())
}

/// Keep a command for EXEC.
pub fn queue(c: &mut Client, id: u16, flags: Flags, argv: &[&[u8]]) {
    // What aborts the transaction anyway need not be kept.
    if c.has(flag::DIRTY_EXEC | flag::DIRTY_CAS) {
        return;
    }
    let state = c.multi.get_or_insert_default();
    state.flags |= flags;
    state.argv_len += argv.iter().map(|arg| arg.len()).sum::<usize>();
    state.commands.push(Queued {
        id,
        argv: OwnedArgv::new(argv),
    });
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
    run_queue(ctx, state.commands);
    // What it ran has been told.
    ctx.prevent_propagation();
    Ok(())
}

fn run_queue(ctx: &mut Ctx, commands: Vec<Queued>) {
    let could_block = !ctx.client.has(flag::DENY_BLOCKING);
    ctx.client.set(flag::DENY_BLOCKING | flag::IN_EXEC);
    ctx.server.nesting += 1;
    for queued in commands {
        let argv = queued.argv.slices();
        // Rights may have been taken away since the command was queued.
        if let Err(error) = crate::acl::check_command(ctx.server, ctx.client, &argv, queued.id) {
            ctx.client.reply.error(&error);
            ctx.server.stats.count_error(error.code());
            continue;
        }
        call(ctx.server, ctx.client, &argv, queued.id, &[]);
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
    let r = reference(ctx.client);
    let hash = ctx.server.hash_key(key);
    let now = ctx.server.clock.now_ms;
    let expire_at = ctx.db().find(hash, key).and_then(|e| e.expire_at());
    let expired = expire_at.is_some_and(|at| at < now);
    ctx.db().watched.entry(key.into()).or_default().push(r);
    ctx.client.watched.push(WatchedKey {
        db,
        key: key.into(),
        expired,
    });
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
        if let Some(clients) = table.get_mut(&watched.key) {
            clients.retain(|other| *other != r);
            if clients.is_empty() {
                table.remove(&watched.key);
            }
        }
    }
}

/// A watched key that was alive at WATCH and is past its time now counts as touched.
fn watched_expired(server: &Server, c: &Client) -> bool {
    c.watched.iter().filter(|w| !w.expired).any(|w| {
        let hash = server.seed.hash(&w.key);
        let expire_at = server.dbs[w.db as usize]
            .find(hash, &w.key)
            .and_then(|e| e.expire_at());
        expire_at.is_some_and(|at| at < server.clock.now_ms)
    })
}

/// A key changed: those who watch it must not EXEC. `by` is the client whose command this is.
pub fn touch_watched(server: &mut Server, mut by: Option<&mut Client>, db: u32, key: &[u8]) {
    let Some(clients) = server.dbs[db as usize].watched.get(key).cloned() else {
        return;
    };
    let hash = server.hash_key(key);
    let gone = server.dbs[db as usize].find(hash, key).is_none();
    for r in clients {
        with_watcher(server, by.as_deref_mut(), r, |c| {
            let mut watched = c.watched.iter_mut();
            let Some(watched) = watched.find(|w| w.db == db && *w.key == *key) else {
                return;
            };
            if watched.expired && gone {
                // It had expired when it was watched: now it is merely removed. A new one is a change.
                watched.expired = false;
            } else {
                c.set(flag::DIRTY_CAS);
            }
        });
    }
}

/// Do something to a client that watches. One that runs a command is out of its slot: it is `by`, or, when
/// the look-up of an expired key changes the keyspace, unknown here. Then it is remembered for its EXEC.
fn with_watcher(
    server: &mut Server,
    by: Option<&mut Client>,
    r: ClientRef,
    then: impl FnOnce(&mut Client),
) {
    match by {
        Some(c) if c.id == r.id => then(c),
        _ => match server.net.clients.resolve(r) {
            Some(c) => then(c),
            None if server.touched.contains(&r) => {}
            None => server.touched.push(r),
        },
    }
}

/// A whole database is emptied, or replaced by `other`: every watched key that exists in either is touched.
pub fn touch_all_watched(
    server: &mut Server,
    mut by: Option<&mut Client>,
    db: u32,
    other: Option<u32>,
) {
    let keys: Vec<Box<[u8]>> = server.dbs[db as usize].watched.keys().cloned().collect();
    for key in keys {
        let hash = server.seed.hash(&key);
        let now = server.clock.now_ms;
        let exists = |db: u32| {
            let entry = server.dbs[db as usize].find(hash, &key);
            entry.is_some_and(|e| e.expire_at().is_none_or(|at| at >= now))
        };
        if !exists(db) && !other.is_some_and(exists) {
            continue;
        }
        for r in server.dbs[db as usize]
            .watched
            .get(&key)
            .cloned()
            .unwrap_or_default()
        {
            with_watcher(server, by.as_deref_mut(), r, |c| c.set(flag::DIRTY_CAS));
        }
    }
}
