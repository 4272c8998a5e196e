//! Sets: the commands on members and on single sets.
//!
//! Every change of a set uses [`write_set`], which removes the key with its last member. Members
//! are copied from the set straight into the reply. Unions, intersections and differences are in
//! `set_algebra`.

use crate::client::Client;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::generic::{ScanOf, ScanOptions, parse_cursor, reply_nothing_found};
use crate::commands::hash::bulk;
use crate::commands::random_elements;
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::state::Server;
use crate::types::part::Held;
use crate::types::set::{Set, SetLimits};
use crate::types::{New, Value, kind};
use crate::util::number::{IntBuf, parse_i64};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("sadd", sadd, -3, WRITE | DENYOOM | FAST, SET)
        .elements(2, 1)
        .keys(&[key_at(1, RW | INSERT)]),
    cmd("scard", scard, 2, READONLY | FAST, SET).keys(&[key_at(1, RO)]),
    cmd("sismember", sismember, 3, READONLY | FAST, SET)
        .elements(2, 1)
        .keys(&[key_at(1, RO)]),
    cmd("smembers", smembers, 2, READONLY, SET)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output_order"]),
    cmd("smismember", smismember, -3, READONLY | FAST, SET)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("smove", smove, 4, WRITE | FAST, SET)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)]),
    cmd("spop", spop, -2, WRITE | FAST, SET)
        .keys(&[key_at(1, RW | ACCESS | DELETE)])
        .tips(&["nondeterministic_output"]),
    cmd("srandmember", srandmember, -2, READONLY, SET)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("srem", srem, -3, WRITE | FAST, SET)
        .elements(2, 1)
        .keys(&[key_at(1, RW | DELETE)]),
    cmd("sscan", sscan, -3, READONLY, SET)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
];

/// SPOP with a count is propagated as SREM commands with at most this number of members each.
const PROPAGATE_BATCH: usize = 1024;

impl SetLimits {
    /// The settings `set-max-intset-entries` and `set-max-listpack-*`, and the server's hash seed.
    pub fn of(server: &Server) -> SetLimits {
        SetLimits {
            max_intset: server.config.set_max_intset_entries,
            max_listpack: server.config.set_max_listpack_entries,
            max_value: server.config.set_max_listpack_value,
            seed: server.seed,
        }
    }
}

/// The set at `key`, to be read; WRONGTYPE for any other type.
fn read_set<'s>(
    server: &'s mut Server,
    c: &Client,
    key: &[u8],
) -> Result<Option<Held<'s, Set>>, Error> {
    server.lookup_read(c, key).map(Set::of).transpose()
}

/// Changes the set at `key`, if there is one, and removes the key if the set becomes empty. Returns
/// the result of `change` and whether the key was removed.
fn write_set<R>(
    ctx: &mut Ctx,
    key: &[u8],
    change: impl FnOnce(&mut Set) -> R,
) -> Result<Option<(R, bool)>, Error> {
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        return Ok(None);
    };
    let (result, empty) = Set::change(entry, |set| (change(set), set.is_empty()))?;
    if empty {
        let db = ctx.client.db;
        ctx.server.delete_key(db, key, false);
    }
    Ok(Some((result, empty)))
}

/// Adds members to a set, which is created if it is absent. Returns the number of new members.
fn add_members(ctx: &mut Ctx, key: &[u8], members: &[&[u8]]) -> Result<usize, Error> {
    let limits = SetLimits::of(ctx.server);
    let add_all = |set: &mut Set| {
        members
            .iter()
            .filter(|member| set.add(member, &limits))
            .count()
    };
    let grow_and_add = |set: &mut Set| {
        set.expect(members.len(), &limits);
        add_all(set)
    };
    if let Some((added, _)) = write_set(ctx, key, grow_and_add)? {
        return Ok(added);
    }
    let mut set = Set::for_members(members[0], members.len(), &limits);
    let added = add_all(&mut set);
    let value = New::Obj(Value::Set(set));
    ctx.server
        .set_key(ctx.client.db, key, kind::SET, value, Ttl::Clear);
    Ok(added)
}

/// Notifies that the key of a set was deleted with its last member.
fn key_removed(ctx: &mut Ctx, key: &[u8]) {
    let db = ctx.client.db;
    ctx.server.notify(events::GENERIC, "del", key, db);
}

/// SADD key member [member ...]
fn sadd(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let added = add_members(ctx, key, &ctx.argv[2..])?;
    if added > 0 {
        ctx.dirty(added as u64);
        ctx.changed(key, events::SET, "sadd");
    }
    ctx.client.reply.integer(added as i64);
    Ok(())
}

/// SREM key member [member ...]
fn srem(ctx: &mut Ctx) -> CmdResult {
    let (key, members) = (ctx.argv[1], &ctx.argv[2..]);
    let written = write_set(ctx, key, |set| {
        members.iter().filter(|member| set.remove(member)).count()
    })?;
    let (removed, emptied) = written.unwrap_or((0, false));
    if removed > 0 {
        ctx.dirty(removed as u64);
        ctx.changed(key, events::SET, "srem");
        if emptied {
            key_removed(ctx, key);
        }
    }
    ctx.client.reply.integer(removed as i64);
    Ok(())
}

/// SMOVE source destination member
fn smove(ctx: &mut Ctx) -> CmdResult {
    let (source, destination, member) = (ctx.argv[1], ctx.argv[2], ctx.argv[3]);
    let there = match ctx.server.lookup_write(ctx.client, source) {
        Some(entry) => Set::of(entry.into_ref())?.contains(member),
        None => {
            ctx.client.reply.integer(0);
            return Ok(());
        }
    };
    if let Some(entry) = ctx.server.lookup_write(ctx.client, destination) {
        Set::of(entry.into_ref())?;
    }
    if there && source != destination {
        move_member(ctx, source, destination, member)?;
    }
    ctx.client.reply.integer(there as i64);
    Ok(())
}

fn move_member(ctx: &mut Ctx, source: &[u8], destination: &[u8], member: &[u8]) -> CmdResult {
    let emptied = write_set(ctx, source, |set| set.remove(member))?.is_some_and(|(_, empty)| empty);
    ctx.dirty(1);
    ctx.changed(source, events::SET, "srem");
    if emptied {
        key_removed(ctx, source);
    }
    if add_members(ctx, destination, &[member])? > 0 {
        ctx.dirty(1);
        ctx.changed(destination, events::SET, "sadd");
    }
    Ok(())
}

/// SISMEMBER key member
fn sismember(ctx: &mut Ctx) -> CmdResult {
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    let there = set.is_some_and(|set| set.contains(ctx.argv[2]));
    ctx.client.reply.integer(there as i64);
    Ok(())
}

/// SMISMEMBER key member [member ...]
fn smismember(ctx: &mut Ctx) -> CmdResult {
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    let members = &ctx.argv[2..];
    ctx.client.reply.array(members.len());
    for member in members {
        let there = set.is_some_and(|set| set.contains(member));
        ctx.client.reply.integer(there as i64);
    }
    Ok(())
}

/// SCARD key
fn scard(ctx: &mut Ctx) -> CmdResult {
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    ctx.client.reply.integer(set.map_or(0, Set::len) as i64);
    Ok(())
}

/// SMEMBERS key
fn smembers(ctx: &mut Ctx) -> CmdResult {
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    let reply = &mut ctx.client.reply;
    reply.set(set.map_or(0, Set::len));
    if let Some(set) = set {
        set.for_each(|member| bulk(reply, member));
    }
    Ok(())
}

/// SRANDMEMBER key [count]
fn srandmember(ctx: &mut Ctx) -> CmdResult {
    let mut rng = ctx.server.rng.split();
    if ctx.argv.len() == 2 {
        let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
        let set = set.as_deref();
        match set.and_then(|set| set.random(&mut rng)) {
            Some(member) => bulk(&mut ctx.client.reply, member),
            None => ctx.client.reply.null(),
        }
        return Ok(());
    }
    if ctx.argv.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let count = random_elements::parse_count(ctx)?;
    let limit = ctx.max_string_len();
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(set) = set else {
        reply.array(0);
        return Ok(());
    };
    if count >= 0 {
        let shown = set.len().min(count as usize);
        reply.array(shown);
        set.sample_unique(shown, &mut rng, |member| bulk(reply, member));
        return Ok(());
    }
    let count = count.unsigned_abs() as usize;
    random_elements::reply_draws(reply, (count, false), limit, |draws, n| {
        set.sample(n, &mut rng, |member| {
            draws.show(|reply| bulk(reply, member))
        });
    })
}

/// SPOP key [count]
fn spop(ctx: &mut Ctx) -> CmdResult {
    match ctx.argv.len() {
        2 => spop_one(ctx),
        3 => spop_count(ctx),
        _ => Err(Error::SYNTAX),
    }
}

fn spop_one(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let mut rng = ctx.server.rng.split();
    let popped = write_set(ctx, key, |set| {
        let member = set.random(&mut rng).map(|member| member.to_vec());
        member.inspect(|member| {
            set.remove(member);
        })
    })?;
    let Some((Some(member), emptied)) = popped else {
        ctx.client.reply.null();
        return Ok(());
    };
    ctx.dirty(1);
    ctx.rewrite(&[b"SREM", key, &member[..]]);
    ctx.changed(key, events::SET, "spop");
    if emptied {
        key_removed(ctx, key);
    }
    ctx.client.reply.bulk(&member);
    Ok(())
}

fn spop_count(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let count = parse_i64(ctx.argv[2]).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Error::OUT_OF_RANGE_POSITIVE)?;
    let len = read_for_write(ctx, key)?;
    if count == 0 || len == 0 {
        ctx.client.reply.set(0);
    } else if count >= len {
        spop_all(ctx, key, len)?;
    } else {
        spop_some(ctx, key, count)?;
    }
    Ok(())
}

/// The number of members of a set that is about to be changed; 0 if the key does not exist.
fn read_for_write(ctx: &mut Ctx, key: &[u8]) -> Result<usize, Error> {
    match ctx.server.lookup_write(ctx.client, key) {
        Some(entry) => Ok(Set::of(entry.into_ref())?.len()),
        None => Ok(0),
    }
}

/// SPOP of all members: replies like SMEMBERS, deletes the key, and propagates the deletion.
fn spop_all(ctx: &mut Ctx, key: &[u8], len: usize) -> CmdResult {
    let db = ctx.client.db;
    if let Some(entry) = ctx.server.lookup_no_touch(ctx.client, key) {
        let set = Set::of(entry)?;
        let reply = &mut ctx.client.reply;
        reply.set(set.len());
        set.for_each(|member| bulk(reply, member));
    }
    ctx.dirty(len as u64);
    let lazy = ctx.server.config.lazyfree_lazy_server_del;
    ctx.server.delete_key(db, key, lazy);
    let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
    ctx.rewrite(&[verb, key]);
    ctx.changed(key, events::SET, "spop");
    key_removed(ctx, key);
    Ok(())
}

/// SPOP of some of the members, but not all: propagated as SREM.
fn spop_some(ctx: &mut Ctx, key: &[u8], count: usize) -> CmdResult {
    let limits = SetLimits::of(ctx.server);
    let mut rng = ctx.server.rng.split();
    let wanted = ctx.server.propagation.wanted();
    let mut popped: Vec<Vec<u8>> = Vec::new();
    if let Some(entry) = ctx.server.lookup_write(ctx.client, key) {
        let mut set = Set::of_mut(entry)?;
        let reply = &mut ctx.client.reply;
        reply.set(count);
        set.pop(count, &mut rng, &limits, |member| {
            reply.bulk(member);
            if wanted {
                popped.push(member.to_vec());
            }
        });
    }
    ctx.dirty(count as u64);
    ctx.changed(key, events::SET, "spop");
    propagate_srem(ctx, key, &popped);
    Ok(())
}

/// Propagates a SPOP as SREM commands of at most `PROPAGATE_BATCH` members each.
fn propagate_srem(ctx: &mut Ctx, key: &[u8], members: &[Vec<u8>]) {
    let batches = members.chunks(PROPAGATE_BATCH).map(|batch| {
        let mut argv: Vec<&[u8]> = vec![b"SREM", key];
        argv.extend(batch.iter().map(Vec::as_slice));
        argv
    });
    let mut batches: Vec<Vec<&[u8]>> = batches.collect();
    let Some(last) = batches.pop() else { return };
    batches.iter().for_each(|argv| ctx.also_propagate(argv));
    ctx.rewrite(&last);
}

/// SSCAN key cursor [MATCH pattern] [COUNT count]
fn sscan(ctx: &mut Ctx) -> CmdResult {
    let cursor = parse_cursor(ctx.argv[2])?;
    let set = read_set(ctx.server, ctx.client, ctx.argv[1])?;
    let set = set.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(set) = set else {
        reply_nothing_found(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(ctx.argv, 3, ScanOf::Members)?;
    let mut found = Vec::new();
    let mut seen = 0;
    let cursor = options.walk(cursor, |cursor| {
        let next = set.scan(cursor, |member| {
            seen += 1;
            if options.matches(member.text(&mut IntBuf::new())) {
                found.push(member);
            }
        });
        (next, seen)
    });
    reply.array(2);
    reply.bulk(IntBuf::new().format(cursor));
    reply.array(found.len());
    found.into_iter().for_each(|member| bulk(reply, member));
    Ok(())
}
