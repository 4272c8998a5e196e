//! String commands on several keys at once: MGET reads the keys; MSET, MSETNX and MSETEX set all
//! keys or none.
//!
//! The keys were hashed and prefetched when the request was parsed, so that their cache misses
//! overlap. NX and XX need two passes over the keys: the first, which only tests the condition,
//! rewinds the list of hashes for the second, which sets the keys.

use super::set::{Condition, SetOptions, Syntax, delete_expired_on_arrival, holds};
use super::{get_generic, store};
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::util::number::IntBuf;

/// MGET key [key ...]
pub(super) fn mget(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.array(ctx.argv.len() - 1);
    for &key in &ctx.argv[1..] {
        // MGET replies with null for a key that is not a string, as for a missing key.
        if get_generic(ctx, key).is_err() {
            ctx.client.reply.null();
        }
    }
    Ok(())
}

/// MSET key value [key value ...]
pub(super) fn mset(ctx: &mut Ctx) -> CmdResult {
    mset_generic(ctx, Condition::Always)?;
    ctx.client.reply.ok();
    Ok(())
}

/// MSETNX key value [key value ...]
pub(super) fn msetnx(ctx: &mut Ctx) -> CmdResult {
    let is_set = mset_generic(ctx, Condition::Absent)?;
    ctx.client.reply.integer(is_set as i64);
    Ok(())
}

fn mset_generic(ctx: &mut Ctx, condition: Condition) -> Result<bool, Error> {
    let argc = ctx.argv.len();
    if argc.is_multiple_of(2) {
        return Err(Error::arity(ctx.cmd.name));
    }
    if !all_hold(ctx, 1..argc, condition)? {
        return Ok(false);
    }
    for at in (1..argc).step_by(2) {
        store(ctx, ctx.argv[at], at + 1, Ttl::Clear);
    }
    ctx.dirty(argc as u64 / 2);
    Ok(true)
}

/// Whether the condition (NX or XX) holds for all keys, which are every second argument of `range`.
fn all_hold(
    ctx: &mut Ctx,
    range: std::ops::Range<usize>,
    condition: Condition,
) -> Result<bool, Error> {
    if condition == Condition::Always {
        return Ok(true);
    }
    let before = ctx.server.hashes.cursor;
    for at in range.step_by(2) {
        if !holds(ctx, ctx.argv[at], condition)? {
            return Ok(false);
        }
    }
    ctx.server.hashes.cursor = before;
    Ok(true)
}

/// MSETEX numkeys key value [key value ...] [NX | XX]
///     [EX seconds | PX milliseconds | EXAT unix-time-seconds |
///     PXAT unix-time-milliseconds | KEEPTTL]
pub(super) fn msetex(ctx: &mut Ctx) -> CmdResult {
    let count = ctx.int_in(1, 1, i32::MAX as i64, "ERR invalid numkeys value")? as usize;
    let end = 2 + 2 * count;
    if end > ctx.argv.len() {
        return Err(Error::of("ERR wrong number of key-value pairs"));
    }
    let options = SetOptions::parse(ctx, end, Syntax::MSetEx)?;
    let ttl = options.lifetime.ttl(ctx)?;
    let is_set = all_hold(ctx, 2..end, options.condition)?;
    if is_set {
        store_all_until(ctx, end, ttl);
    }
    ctx.client.reply.integer(is_set as i64);
    Ok(())
}

fn store_all_until(ctx: &mut Ctx, end: usize, ttl: Ttl) {
    match ttl {
        Ttl::At(at) if ctx.is_past(at) => return delete_all(ctx, end),
        Ttl::At(at) => {
            for key_at in (2..end).step_by(2) {
                let key = ctx.argv[key_at];
                store(ctx, key, key_at + 1, ttl);
                ctx.note_expiry(key, at);
                ctx.server
                    .notify(events::GENERIC, "expire", key, ctx.client.db);
            }
            propagate_until(ctx, end, at);
        }
        Ttl::Keep | Ttl::Clear => {
            for key_at in (2..end).step_by(2) {
                store(ctx, ctx.argv[key_at], key_at + 1, ttl);
            }
        }
    }
    ctx.dirty((end as u64 - 2) / 2);
}

/// Propagates MSETEX with PXAT and the expiry time in place of its options, which were evaluated
/// here.
fn propagate_until(ctx: &mut Ctx, end: usize, at_ms: i64) {
    if ctx.server.propagation.wanted() {
        let mut digits = IntBuf::new();
        let mut rewritten = ctx.argv[..end].to_vec();
        rewritten.extend([b"PXAT", digits.format(at_ms)]);
        ctx.rewrite(&rewritten);
    }
}

/// Deletes the keys of an MSETEX with an expiry time in the past.
fn delete_all(ctx: &mut Ctx, end: usize) {
    let lazy = ctx.server.config.lazyfree_lazy_expire;
    let mut rewritten: Vec<&[u8]> = vec![if lazy { b"UNLINK" } else { b"DEL" }];
    for &key in ctx.argv[2..end].iter().step_by(2) {
        if ctx.server.lookup_write(ctx.client, key).is_some() {
            delete_expired_on_arrival(ctx, key);
            rewritten.push(key);
        }
    }
    ctx.rewrite(&rewritten);
}
