//! Hashes: the commands on fields and values. `field_expire` has the commands on the fields' times
//! to live.
//!
//! Every change of a hash uses [`write_hash`], which creates the hash, updates the database's index
//! of volatile fields and removes the key with its last field. Values are copied from the hash
//! straight into the reply.

use crate::client::Client;
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::generic::{ScanOf, ScanOptions, parse_cursor, reply_nothing_found};
use crate::commands::random_elements;
use crate::db::Ttl;
use crate::ds::listpack::Element;
use crate::error::Error;
use crate::keyspace::events;
use crate::keyspace::expire::ExpiryPolicy;
use crate::state::Server;
use crate::types::hash::{FieldTtl, Hash, HashLimits};
use crate::types::part::Held;
use crate::types::{New, Value, kind};
use crate::util::long_double::LongDouble;
use crate::util::number::IntBuf;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("hdel", hdel, -3, WRITE | FAST, HASH)
        .elements(2, 1)
        .keys(&[key_at(1, RW | DELETE)]),
    cmd("hexists", hexists, 3, READONLY | FAST, HASH)
        .elements(2, 1)
        .keys(&[key_at(1, RO)]),
    cmd("hget", hget, 3, READONLY | FAST, HASH)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("hgetall", hgetall, 2, READONLY, HASH)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output_order"]),
    cmd("hincrby", hincrby, 4, WRITE | DENYOOM | FAST, HASH)
        .elements(2, 2)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd(
        "hincrbyfloat",
        hincrbyfloat,
        4,
        WRITE | DENYOOM | FAST,
        HASH,
    )
    .elements(2, 2)
    .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("hkeys", hkeys, 2, READONLY, HASH)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output_order"]),
    cmd("hlen", hlen, 2, READONLY | FAST, HASH).keys(&[key_at(1, RO)]),
    cmd("hmget", hmget, -3, READONLY | FAST, HASH)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("hmset", hmset, -4, WRITE | DENYOOM | FAST, HASH)
        .elements(2, 2)
        .keys(&[key_at(1, RW | UPDATE)]),
    cmd("hrandfield", hrandfield, -2, READONLY, HASH)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("hscan", hscan, -3, READONLY, HASH)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("hset", hset, -4, WRITE | DENYOOM | FAST, HASH)
        .elements(2, 2)
        .keys(&[key_at(1, RW | UPDATE)]),
    cmd("hsetnx", hsetnx, 4, WRITE | DENYOOM | FAST, HASH)
        .elements(2, 2)
        .keys(&[key_at(1, RW | INSERT)]),
    cmd("hstrlen", hstrlen, 3, READONLY | FAST, HASH)
        .elements(2, 1)
        .keys(&[key_at(1, RO)]),
    cmd("hvals", hvals, 2, READONLY, HASH)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output_order"]),
];

impl HashLimits {
    /// The settings `hash-max-listpack-*`, and the server's hash seed.
    pub fn of(server: &Server) -> HashLimits {
        HashLimits {
            max_entries: server.config.hash_max_listpack_entries,
            max_value: server.config.hash_max_listpack_value,
            seed: server.seed,
        }
    }
}

/// The hash at `key`, to be read; WRONGTYPE for any other type.
pub(super) fn read_hash<'s>(
    server: &'s mut Server,
    c: &Client,
    key: &[u8],
) -> Result<Option<Held<'s, Hash>>, Error> {
    server.lookup_read(c, key).map(Hash::of).transpose()
}

/// Changes the hash at `key`, which is created if it is absent, and removed if it becomes empty.
/// Returns the result of `change` and whether the key was removed. A `change` that fails must
/// change nothing.
pub(super) fn write_hash<R>(
    ctx: &mut Ctx,
    key: &[u8],
    change: impl FnOnce(&mut Hash, &HashLimits) -> Result<R, Error>,
) -> Result<(R, bool), Error> {
    let (db, limits) = (ctx.client.db, HashLimits::of(ctx.server));
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        let mut hash = Hash::new();
        let result = change(&mut hash, &limits)?;
        if !hash.is_empty() {
            let value = New::Obj(Value::Hash(hash));
            ctx.server.set_key(db, key, kind::HASH, value, Ttl::Clear);
        }
        return Ok((result, false));
    };
    let (result, was, at, mut empty, hidden) = Hash::change(entry, |hash| {
        let was = hash.next_expiry();
        let result = change(hash, &limits);
        let hidden = hash.hidden_len() > 0;
        (result, was, hash.next_expiry(), hash.is_empty(), hidden)
    })?;
    let result = result?;
    if was != at {
        let hash = ctx.server.hash_key(key);
        ctx.db().fields_moved(hash, was, at);
    }
    if empty && hidden {
        // Only expired fields are left in the hash: their deletion has not been propagated yet, or
        // is up to the primary.
        empty = ctx.server.expiry_policy() == ExpiryPolicy::Delete;
        if empty {
            ctx.server.propagate_deletion(db, key, false);
        }
    }
    if empty {
        ctx.server.delete_key(db, key, false);
    }
    Ok((result, empty))
}

/// Replies with a field or a value of a hash.
pub(super) fn bulk(reply: &mut ReplyBuf, element: Element) {
    reply.bulk(element.text(&mut IntBuf::new()));
}

/// HSET key field value [field value ...]
fn hset(ctx: &mut Ctx) -> CmdResult {
    let added = hset_generic(ctx)?;
    ctx.client.reply.integer(added);
    Ok(())
}

/// HMSET key field value [field value ...]
fn hmset(ctx: &mut Ctx) -> CmdResult {
    hset_generic(ctx)?;
    ctx.client.reply.ok();
    Ok(())
}

/// Sets the fields of HSET or HMSET; returns the number of new fields.
fn hset_generic(ctx: &mut Ctx) -> Result<i64, Error> {
    let (pairs, rest) = ctx.argv[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::arity(ctx.cmd.name));
    }
    let key = ctx.argv[1];
    let (added, _) = write_hash(ctx, key, |hash, limits| {
        hash.expect(pairs.len(), limits);
        let set = |[field, value]: &[&[u8]; 2]| hash.set(field, value, FieldTtl::Clear, limits);
        Ok(pairs.iter().map(set).filter(|is_new| *is_new).count())
    })?;
    ctx.dirty(pairs.len() as u64);
    ctx.changed(key, events::HASH, "hset");
    Ok(added as i64)
}

/// HSETNX key field value
fn hsetnx(ctx: &mut Ctx) -> CmdResult {
    let (key, field, value) = (ctx.argv[1], ctx.argv[2], ctx.argv[3]);
    let (added, _) = write_hash(ctx, key, |hash, limits| {
        Ok(!hash.contains(field) && hash.set(field, value, FieldTtl::Clear, limits))
    })?;
    if added {
        ctx.dirty(1);
        ctx.changed(key, events::HASH, "hset");
    }
    ctx.client.reply.integer(added as i64);
    Ok(())
}

/// HGET key field
fn hget(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    match hash.and_then(|hash| hash.get(ctx.argv[2])) {
        Some(value) => bulk(&mut ctx.client.reply, value),
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// HMGET key field [field ...]
fn hmget(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    reply_values(&mut ctx.client.reply, hash, &ctx.argv[2..]);
    Ok(())
}

/// Replies with the values of some fields, null for missing ones.
pub(super) fn reply_values(reply: &mut ReplyBuf, hash: Option<&Hash>, fields: &[&[u8]]) {
    reply.array(fields.len());
    for field in fields {
        reply_value(reply, hash.and_then(|hash| hash.get(field)));
    }
}

/// Replies with the value of a field, or null.
pub(super) fn reply_value(reply: &mut ReplyBuf, value: Option<Element<'_>>) {
    match value {
        Some(value) => bulk(reply, value),
        None => reply.null(),
    }
}

/// HGETALL key
fn hgetall(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let reply = &mut ctx.client.reply;
    reply.map(hash.map_or(0, Hash::len));
    if let Some(hash) = hash {
        hash.for_each(|field, value| {
            bulk(reply, field);
            bulk(reply, value);
        });
    }
    Ok(())
}

/// HKEYS key
fn hkeys(ctx: &mut Ctx) -> CmdResult {
    reply_halves(ctx, |field, _| field)
}

/// HVALS key
fn hvals(ctx: &mut Ctx) -> CmdResult {
    reply_halves(ctx, |_, value| value)
}

/// Replies with the fields or the values of a hash: `half` returns one of the two.
#[inline(always)]
fn reply_halves(
    ctx: &mut Ctx,
    half: impl for<'a> Fn(Element<'a>, Element<'a>) -> Element<'a>,
) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let reply = &mut ctx.client.reply;
    reply.array(hash.map_or(0, Hash::len));
    if let Some(hash) = hash {
        hash.for_each(|field, value| bulk(reply, half(field, value)));
    }
    Ok(())
}

/// HLEN key
///
/// A replica counts the fields that its primary has not deleted yet, as in Redis and Valkey.
fn hlen(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let mut len = hash.map_or(0, Hash::len);
    let hidden = hash.map_or(0, Hash::hidden_len);
    if hidden > 0 && ctx.server.expiry_policy() == ExpiryPolicy::Hide {
        len += hidden;
    }
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// HSTRLEN key field
fn hstrlen(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let value = hash.and_then(|hash| hash.get(ctx.argv[2]));
    ctx.client
        .reply
        .integer(value.map_or(0, |value| value.text_len()) as i64);
    Ok(())
}

/// HEXISTS key field
fn hexists(ctx: &mut Ctx) -> CmdResult {
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let there = hash.is_some_and(|hash| hash.contains(ctx.argv[2]));
    ctx.client.reply.integer(there as i64);
    Ok(())
}

/// HDEL key field [field ...]
fn hdel(ctx: &mut Ctx) -> CmdResult {
    let (key, fields) = (ctx.argv[1], &ctx.argv[2..]);
    let (removed, emptied) = write_hash(ctx, key, |hash, _| {
        Ok(fields.iter().filter(|field| hash.remove(field)).count())
    })?;
    if removed > 0 {
        ctx.dirty(removed as u64);
        fields_removed(ctx, key, emptied);
    }
    ctx.client.reply.integer(removed as i64);
    Ok(())
}

/// Notifies that fields of a hash were deleted; if `emptied`, also that the key was deleted with
/// its last field.
pub(super) fn fields_removed(ctx: &mut Ctx, key: &[u8], emptied: bool) {
    ctx.changed(key, events::HASH, "hdel");
    if emptied {
        let db = ctx.client.db;
        ctx.server.notify(events::GENERIC, "del", key, db);
    }
}

/// HINCRBY key field increment
fn hincrby(ctx: &mut Ctx) -> CmdResult {
    let increment = ctx.int(3)?;
    let (key, field) = (ctx.argv[1], ctx.argv[2]);
    let (sum, _) = write_hash(ctx, key, |hash, limits| {
        let old = match hash.get(field) {
            Some(value) => value
                .as_int()
                .ok_or(Error::of("ERR hash value is not an integer"))?,
            None => 0,
        };
        let sum = old.checked_add(increment).ok_or(Error::INCR_OVERFLOW)?;
        hash.set(field, IntBuf::new().format(sum), FieldTtl::Keep, limits);
        Ok(sum)
    })?;
    ctx.dirty(1);
    ctx.changed(key, events::HASH, "hincrby");
    ctx.client.reply.integer(sum);
    Ok(())
}

/// HINCRBYFLOAT key field increment
///
/// HINCRBYFLOAT is propagated as HSET of the resulting value: a replica's arithmetic could differ
/// in the last digit.
fn hincrbyfloat(ctx: &mut Ctx) -> CmdResult {
    let (key, field) = (ctx.argv[1], ctx.argv[2]);
    let increment = LongDouble::parse(ctx.argv[3]).ok_or(Error::NOT_FLOAT)?;
    if !increment.is_finite() {
        return Err(Error::of("ERR value is NaN or Infinity"));
    }
    let ((text, volatile), _) = write_hash(ctx, key, |hash, limits| {
        let old = match hash.get(field) {
            Some(value) => LongDouble::parse(value.text(&mut IntBuf::new()))
                .ok_or(Error::of("ERR hash value is not a float"))?,
            None => LongDouble::ZERO,
        };
        let sum = old + increment;
        if !sum.is_finite() {
            return Err(Error::INCR_NAN);
        }
        let text = sum.to_human();
        let volatile = hash.expire_at(field).flatten().is_some();
        hash.set(field, &text, FieldTtl::Keep, limits);
        Ok((text, volatile))
    })?;
    ctx.dirty(1);
    ctx.changed(key, events::HASH, "hincrbyfloat");
    if volatile {
        ctx.rewrite(&[
            b"HSETEX",
            key,
            b"KEEPTTL",
            b"FIELDS",
            b"1",
            field,
            &text[..],
        ]);
    } else {
        ctx.rewrite(&[b"HSET", key, field, &text[..]]);
    }
    ctx.client.reply.bulk(&text);
    Ok(())
}

/// HRANDFIELD key [count [WITHVALUES]]
fn hrandfield(ctx: &mut Ctx) -> CmdResult {
    let mut rng = ctx.server.rng.split();
    if ctx.argv.len() == 2 {
        let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
        let hash = hash.as_deref();
        match hash.and_then(|hash| hash.random(&mut rng)) {
            Some((field, _)) => bulk(&mut ctx.client.reply, field),
            None => ctx.client.reply.null(),
        }
        return Ok(());
    }
    let (count, with_values) = random_elements::parse_count_of_pairs(ctx, "withvalues")?;
    let limit = ctx.max_string_len();
    let Some(hash) = read_hash(ctx.server, ctx.client, ctx.argv[1])? else {
        ctx.client.reply.array(0);
        return Ok(());
    };
    let reply = &mut ctx.client.reply;
    let show = |reply: &mut ReplyBuf, field: Element, value: Element| {
        if with_values && reply.resp3 {
            reply.array(2);
        }
        bulk(reply, field);
        if with_values {
            bulk(reply, value);
        }
    };
    let wanted = count.unsigned_abs() as usize;
    if count >= 0 {
        let shown = wanted.min(hash.len());
        reply.elements(shown, with_values);
        hash.sample_unique(shown, &mut rng, |field, value| show(reply, field, value));
        return Ok(());
    }
    random_elements::reply_draws(reply, (wanted, with_values), limit, |draws, n| {
        hash.sample(n, &mut rng, |field, value| {
            draws.show(|reply| show(reply, field, value))
        });
    })
}

/// HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]
fn hscan(ctx: &mut Ctx) -> CmdResult {
    let cursor = parse_cursor(ctx.argv[2])?;
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(hash) = hash else {
        reply_nothing_found(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(ctx.argv, 3, ScanOf::Fields)?;
    let mut found = Vec::new();
    let mut seen = 0;
    let cursor = options.walk(cursor, |cursor| {
        let next = hash.scan(cursor, |field, value| {
            seen += 1;
            if options.matches(field.text(&mut IntBuf::new())) {
                found.push((field, value));
            }
        });
        (next, seen)
    });
    reply.array(2);
    reply.bulk(IntBuf::new().format(cursor));
    reply.array(if options.no_values {
        found.len()
    } else {
        2 * found.len()
    });
    for (field, value) in found {
        bulk(reply, field);
        if !options.no_values {
            bulk(reply, value);
        }
    }
    Ok(())
}
