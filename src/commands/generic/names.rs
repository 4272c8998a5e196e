//! Commands on keys whatever their values are: delete, rename, move, copy; and commands on whole
//! databases.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::databases::{CopyOption, copy_options};
use crate::error::Error;
use crate::execute::blocked;
use crate::keyspace::events;
use crate::keyspace::expire::ExpiryPolicy;
use crate::keyspace::whole::Detached;
use crate::member::transfer;
use crate::persist::rdb::background;
use crate::types::string::type_of;
use crate::util::number::parse_i64;

/// DEL key [key ...]
pub fn del(ctx: &mut Ctx) -> CmdResult {
    let lazy = ctx.server.config.lazyfree_lazy_user_del;
    del_generic(ctx, lazy)
}

/// UNLINK key [key ...]
pub fn unlink(ctx: &mut Ctx) -> CmdResult {
    del_generic(ctx, true)
}

fn del_generic(ctx: &mut Ctx, lazy: bool) -> CmdResult {
    let db = ctx.client.db;
    let mut deleted = 0;
    for &key in &ctx.argv[1..] {
        // An expired key that has not been deleted yet is deleted, too, as in Redis and Valkey.
        let found = ctx.server.lookup_in(db, key).is_some()
            || ctx.server.expiry_policy() == ExpiryPolicy::Hide;
        if found && ctx.server.delete_key(db, key, lazy) {
            ctx.changed(key, events::GENERIC, "del");
            ctx.dirty(1);
            deleted += 1;
        }
    }
    ctx.client.reply.integer(deleted);
    Ok(())
}

/// EXISTS key [key ...]
pub fn exists(ctx: &mut Ctx) -> CmdResult {
    let mut found = 0;
    for &key in &ctx.argv[1..] {
        found += ctx.server.lookup_peek(ctx.client, key).is_some() as i64;
    }
    ctx.client.reply.integer(found);
    Ok(())
}

/// TOUCH key [key ...]
pub fn touch(ctx: &mut Ctx) -> CmdResult {
    let mut found = 0;
    for &key in &ctx.argv[1..] {
        found += ctx.server.lookup_touch(ctx.client.db, key).is_some() as i64;
    }
    ctx.client.reply.integer(found);
    Ok(())
}

/// TYPE key
pub fn type_command(ctx: &mut Ctx) -> CmdResult {
    let entry = ctx.server.lookup_peek(ctx.client, ctx.argv[1]);
    ctx.client
        .reply
        .status(entry.map_or("none", |entry| type_of(entry).name()));
    Ok(())
}

/// RANDOMKEY
pub fn randomkey(ctx: &mut Ctx) -> CmdResult {
    match ctx.server.random_key(ctx.client.db) {
        Some(key) => ctx.client.reply.bulk(&key),
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// RENAME key newkey
pub fn rename(ctx: &mut Ctx) -> CmdResult {
    if rename_generic(ctx, true)? {
        ctx.client.reply.ok();
    }
    Ok(())
}

/// RENAMENX key newkey
pub fn renamenx(ctx: &mut Ctx) -> CmdResult {
    let renamed = rename_generic(ctx, false)?;
    ctx.client.reply.integer(renamed as i64);
    Ok(())
}

/// Renames a key. Returns whether the key has the new name: true for RENAME to the same name,
/// although nothing changes.
fn rename_generic(ctx: &mut Ctx, replace: bool) -> Result<bool, Error> {
    let (db, from, to) = (ctx.client.db, ctx.argv[1], ctx.argv[2]);
    if ctx.server.lookup_write(ctx.client, from).is_none() {
        return Err(Error::NO_SUCH_KEY);
    }
    if from == to {
        return Ok(replace);
    }
    if ctx.server.lookup_in(db, to).is_some() {
        if !replace {
            return Ok(false);
        }
        // The old value of the new name is deleted first, so that `lazyfree-lazy-server-del`
        // applies: a large value is freed by another thread.
        let lazy = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.delete_key(db, to, lazy);
    }
    let Some(value) = ctx.server.detach(db, from) else {
        return Err(Error::NO_SUCH_KEY);
    };
    ctx.server.attach(db, to, value);
    ctx.changed(from, events::GENERIC, "rename_from");
    ctx.changed(to, events::GENERIC, "rename_to");
    ctx.dirty(1);
    Ok(true)
}

/// Parses the argument `at`, the number of a database; an error if there is no such database.
fn db_index(ctx: &Ctx, at: usize) -> Result<u32, Error> {
    let n = i32::try_from(ctx.int(at)?).or(Err(Error::I32_RANGE))?;
    match u32::try_from(n) {
        Ok(db) if (db as usize) < ctx.server.data.dbs.len() => Ok(db),
        _ => Err(Error::DB_INDEX),
    }
}

/// MOVE key db
pub fn move_command(ctx: &mut Ctx) -> CmdResult {
    let (key, from) = (ctx.argv[1], ctx.client.db);
    if ctx.server.config.cluster_enabled && ctx.server.data.dbs.len() == 1 {
        return Err(Error::of("ERR MOVE is not allowed in cluster mode"));
    }
    let to = db_index(ctx, 2)?;
    if to == from {
        return Err(Error::SAME_OBJECT);
    }
    let movable = ctx.server.lookup_write(ctx.client, key).is_some()
        && ctx.server.lookup_in(to, key).is_none();
    let value = if movable {
        ctx.server.detach(from, key)
    } else {
        None
    };
    let Some(value) = value else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    ctx.server.attach(to, key, value);
    ctx.changed(key, events::GENERIC, "move_from");
    ctx.server.signal_modified(Some(ctx.client), to, key);
    ctx.server.notify(events::GENERIC, "move_to", key, to);
    ctx.dirty(1);
    ctx.client.reply.integer(1);
    Ok(())
}

/// COPY source destination [DB destination-db] [REPLACE]
pub fn copy(ctx: &mut Ctx) -> CmdResult {
    let (source, destination, from) = (ctx.argv[1], ctx.argv[2], ctx.client.db);
    let (to, replace) = parse_copy(ctx)?;
    if to == from && source == destination {
        return Err(Error::SAME_OBJECT);
    }
    let copied = ctx
        .server
        .lookup_read(ctx.client, source)
        .map(Detached::copy_of);
    let taken = ctx.server.lookup_in(to, destination).is_some();
    let Some(mut value) = copied.filter(|_| replace || !taken) else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    if taken {
        let lazy = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.delete_key(to, destination, lazy);
    }
    value.lru = ctx.server.evict.new_stamp(ctx.server.clock.now_ms);
    ctx.server.attach(to, destination, value);
    ctx.server
        .signal_modified(Some(ctx.client), to, destination);
    ctx.server
        .notify(events::GENERIC, "copy_to", destination, to);
    ctx.dirty(1);
    ctx.client.reply.integer(1);
    Ok(())
}

fn parse_copy(ctx: &Ctx) -> Result<(u32, bool), Error> {
    let (mut to, mut replace) = (ctx.client.db, false);
    for option in copy_options(ctx.argv) {
        match option {
            CopyOption::Replace => replace = true,
            CopyOption::Database(at) => to = db_index(ctx, at)?,
            CopyOption::Unknown => return Err(Error::SYNTAX),
        }
    }
    Ok((to, replace))
}

/// DBSIZE
pub fn dbsize(ctx: &mut Ctx) -> CmdResult {
    let len = ctx.db().keys.visible_len();
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// FLUSHDB [ASYNC | SYNC]
pub fn flushdb(ctx: &mut Ctx) -> CmdResult {
    let db = ctx.client.db;
    flush_generic(ctx, Some(db))
}

/// FLUSHALL [ASYNC | SYNC]
pub fn flushall(ctx: &mut Ctx) -> CmdResult {
    flush_generic(ctx, None)
}

fn flush_generic(ctx: &mut Ctx, which: Option<u32>) -> CmdResult {
    let lazy = match ctx.argv.len() {
        1 => ctx.server.config.lazyfree_lazy_user_flush,
        2 if ctx.is(1, "async") => true,
        2 if ctx.is(1, "sync") => false,
        _ => return Err(Error::SYNTAX),
    };
    let top = ctx.server.top_level()?;
    let flushed = ctx.server.flush(&top, Some(ctx.client), which, lazy);
    transfer::flushed(ctx.server, None);
    // A flush counts as a change even if there was no key: a replica that has more keys than this
    // server must flush too.
    ctx.dirty(flushed.keys.max(1));
    if which.is_none() && background::after_flushall(ctx.server) {
        // The empty data set was saved just now, so there is no unsaved change to count; the AOF
        // and the replicas still need the command.
        ctx.also_propagate(ctx.argv);
        ctx.prevent_propagation();
    }
    match flushed.job.filter(|_| !lazy && may_wait(ctx)) {
        Some(job) => blocked::block_until_freed(ctx.server, ctx.client, ctx.argv, job),
        None => ctx.client.reply.ok(),
    }
    Ok(())
}

/// Whether the client of FLUSHALL SYNC can be blocked until another thread has freed the values.
fn may_wait(ctx: &Ctx) -> bool {
    !ctx.client.has(flag::DENY_BLOCKING) && !ctx.client.must_obey()
}

/// SWAPDB index1 index2
pub fn swapdb(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.config.cluster_enabled {
        return Err(Error::of("ERR SWAPDB is not allowed in cluster mode"));
    }
    let number = |at: usize| parse_i64(ctx.argv[at]).and_then(|n| i32::try_from(n).ok());
    if number(1).is_none() {
        return Err(Error::of("ERR invalid first DB index"));
    }
    let (first, second) = match number(2) {
        Some(_) => (db_index(ctx, 1)?, db_index(ctx, 2)?),
        None => return Err(Error::of("ERR invalid second DB index")),
    };
    let top = ctx.server.top_level()?;
    ctx.server.swap_dbs(&top, Some(ctx.client), first, second);
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}
