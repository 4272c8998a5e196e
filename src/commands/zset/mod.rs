//! Sorted sets. The commands are in three files, by topic:
//!
//! ```text
//!   members   one member at a time: ZADD, ZINCRBY, ZREM, ZSCORE, ZRANK, pops that wait or don't, random ones, ZSCAN
//!   ranges    many by rank, score or bytes: ZRANGE and its older names, ZRANGESTORE, ZCOUNT, ZREMRANGEBY...
//!   combine   several sets: ZUNION, ZINTER, ZDIFF, stored, replied or only counted
//! ```
//!
//! This file has the rows of the command table, and the functions that several commands share:
//! finding the sorted set, writing members into a reply, storing a result, notifying that members
//! were removed. The geo commands (`commands::geo`) use the shared functions, too.
//!
//! Members with scores are a flat array in RESP2 and an array of pairs in RESP3, never a map, as
//! the order of the members matters.

mod combine;
mod members;
mod ranges;

use crate::client::Client;
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::zset::combine::*;
use crate::commands::zset::members::*;
use crate::commands::zset::ranges::*;
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::state::Server;
use crate::types::part::{Held, Opened};
use crate::types::zset::{Zset, ZsetLimits};
use crate::types::{New, Value, kind};

pub use members::{AddOptions, add_members};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("bzmpop", bzmpop, -5, WRITE | BLOCKING, SORTEDSET)
        .keys(&[counted_keys(2, RW | ACCESS | DELETE)]),
    cmd("bzpopmax", bzpopmax, -3, WRITE | BLOCKING | FAST, SORTEDSET).keys(&[key(
        RW | ACCESS | DELETE,
        index(1),
        range(-2, 1, 0),
    )]),
    cmd("bzpopmin", bzpopmin, -3, WRITE | BLOCKING | FAST, SORTEDSET).keys(&[key(
        RW | ACCESS | DELETE,
        index(1),
        range(-2, 1, 0),
    )]),
    cmd("zadd", zadd, -4, WRITE | DENYOOM | FAST, SORTEDSET)
        .elements(3, 2)
        .keys(&[key_at(1, RW | UPDATE)]),
    cmd("zcard", zcard, 2, READONLY | FAST, SORTEDSET).keys(&[key_at(1, RO)]),
    cmd("zcount", zcount, 4, READONLY | FAST, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zdiff", zdiff, -3, READONLY, SORTEDSET).keys(&[counted_keys(1, RO | ACCESS)]),
    cmd("zdiffstore", zdiffstore, -4, WRITE | DENYOOM, SORTEDSET)
        .keys(&[key_at(1, OW | UPDATE), counted_keys(2, RO | ACCESS)]),
    cmd("zincrby", zincrby, 4, WRITE | DENYOOM | FAST, SORTEDSET)
        .elements(3, 1)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("zinter", zinter, -3, READONLY, SORTEDSET).keys(&[counted_keys(1, RO | ACCESS)]),
    cmd("zintercard", zintercard, -3, READONLY, SORTEDSET).keys(&[counted_keys(1, RO | ACCESS)]),
    cmd("zinterstore", zinterstore, -4, WRITE | DENYOOM, SORTEDSET)
        .keys(&[key_at(1, OW | UPDATE), counted_keys(2, RO | ACCESS)]),
    cmd("zlexcount", zlexcount, 4, READONLY | FAST, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zmpop", zmpop, -4, WRITE, SORTEDSET).keys(&[counted_keys(1, RW | ACCESS | DELETE)]),
    cmd("zmscore", zmscore, -3, READONLY | FAST, SORTEDSET)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("zpopmax", zpopmax, -2, WRITE | FAST, SORTEDSET).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("zpopmin", zpopmin, -2, WRITE | FAST, SORTEDSET).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("zrandmember", zrandmember, -2, READONLY, SORTEDSET)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("zrange", zrange, -4, READONLY, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrangebylex", zrangebylex, -4, READONLY, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrangebyscore", zrangebyscore, -4, READONLY, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrangestore", zrangestore, -5, WRITE | DENYOOM, SORTEDSET)
        .keys(&[key_at(1, OW | UPDATE), key_at(2, RO | ACCESS)]),
    cmd("zrank", zrank, -3, READONLY | FAST, SORTEDSET)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrem", zrem, -3, WRITE | FAST, SORTEDSET)
        .elements(2, 1)
        .keys(&[key_at(1, RW | DELETE)]),
    cmd("zremrangebylex", zremrangebylex, 4, WRITE, SORTEDSET).keys(&[key_at(1, RW | DELETE)]),
    cmd("zremrangebyrank", zremrangebyrank, 4, WRITE, SORTEDSET).keys(&[key_at(1, RW | DELETE)]),
    cmd("zremrangebyscore", zremrangebyscore, 4, WRITE, SORTEDSET).keys(&[key_at(1, RW | DELETE)]),
    cmd("zrevrange", zrevrange, -4, READONLY, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrevrangebylex", zrevrangebylex, -4, READONLY, SORTEDSET).keys(&[key_at(1, RO | ACCESS)]),
    cmd(
        "zrevrangebyscore",
        zrevrangebyscore,
        -4,
        READONLY,
        SORTEDSET,
    )
    .keys(&[key_at(1, RO | ACCESS)]),
    cmd("zrevrank", zrevrank, -3, READONLY | FAST, SORTEDSET)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("zscan", zscan, -3, READONLY, SORTEDSET)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("zscore", zscore, 3, READONLY | FAST, SORTEDSET)
        .elements(2, 1)
        .keys(&[key_at(1, RO | ACCESS)]),
    cmd("zunion", zunion, -3, READONLY, SORTEDSET).keys(&[counted_keys(1, RO | ACCESS)]),
    cmd("zunionstore", zunionstore, -4, WRITE | DENYOOM, SORTEDSET)
        .keys(&[key_at(1, OW | UPDATE), counted_keys(2, RO | ACCESS)]),
];

impl ZsetLimits {
    /// The settings `zset-max-listpack-*`, and the server's hash seed.
    pub fn of(server: &Server) -> ZsetLimits {
        ZsetLimits {
            max_entries: server.config.zset_max_listpack_entries,
            max_value: server.config.zset_max_listpack_value,
            seed: server.seed,
        }
    }
}

/// The sorted set at `key`, to be read; WRONGTYPE for any other type.
#[inline]
pub fn read_zset<'s>(
    server: &'s mut Server,
    c: &Client,
    key: &[u8],
) -> Result<Option<Held<'s, Zset>>, Error> {
    server.lookup_read(c, key).map(Zset::of).transpose()
}

/// The sorted set at `key`, to be changed; WRONGTYPE for any other type.
#[inline]
pub fn write_zset<'s>(
    server: &'s mut Server,
    c: &Client,
    key: &[u8],
) -> Result<Option<Opened<'s, Zset>>, Error> {
    server.lookup_write(c, key).map(Zset::of_mut).transpose()
}

/// Calls `show` for each member that is named from `argv[2]` on, to write its part of the reply;
/// `show` gets the member's score, `None` for a missing member.
#[inline]
pub fn reply_for_members(ctx: &mut Ctx, show: impl Fn(&mut ReplyBuf, Option<f64>)) -> CmdResult {
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let reply = &mut ctx.client.reply;
    reply.array(ctx.argv.len() - 2);
    for member in &ctx.argv[2..] {
        show(reply, zset.and_then(|zset| zset.score(member)));
    }
    Ok(())
}

/// Replies with one member of a sorted set, with or without its score.
#[inline]
fn reply_member(reply: &mut ReplyBuf, member: &[u8], score: f64, with_scores: bool) {
    if with_scores && reply.resp3 {
        reply.array(2);
    }
    reply.bulk(member);
    if with_scores {
        reply.double(score);
    }
}

/// Stores a computed sorted set under `key`, whatever the key's old value was, and notifies
/// `event`. An empty sorted set only deletes the key. Returns the set's length.
pub fn store_zset(ctx: &mut Ctx, key: &[u8], zset: Zset, event: &'static str) -> usize {
    let (db, len) = (ctx.client.db, zset.len());
    if len > 0 {
        let value = New::Obj(Value::Zset(zset));
        ctx.server.set_key(db, key, kind::ZSET, value, Ttl::Clear);
        ctx.changed(key, events::ZSET, event);
        ctx.dirty(1);
    } else {
        remove_destination(ctx, key);
    }
    len
}

/// Deletes the destination key of a command with an empty result.
fn remove_destination(ctx: &mut Ctx, key: &[u8]) {
    let lazy = ctx.server.config.lazyfree_lazy_server_del;
    if ctx.server.delete_key(ctx.client.db, key, lazy) {
        ctx.changed(key, events::GENERIC, "del");
        ctx.dirty(1);
    }
}

/// Notifies that `removed` members of a sorted set were removed, and deletes the key if the sorted
/// set is empty.
fn members_removed(ctx: &mut Ctx, key: &[u8], event: &'static str, removed: usize, is_empty: bool) {
    if removed == 0 {
        return;
    }
    let db = ctx.client.db;
    if is_empty {
        ctx.server.delete_key(db, key, false);
    }
    ctx.changed(key, events::ZSET, event);
    if is_empty {
        ctx.server.notify(events::GENERIC, "del", key, db);
    }
    ctx.dirty(removed as u64);
}
