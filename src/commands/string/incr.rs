//! Counters. An integer is stored in its key's entry as eight bytes and changed there; its text is
//! created when the value is read.
//!
//! INCRBYFLOAT computes with C's `long double` of x86 (`util::long_double`), so that sums are equal
//! to Redis's. INCRBYFLOAT is propagated as SET of the resulting value, so that replicas can't
//! differ.

use crate::command::ctx::{CmdResult, Ctx};
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::types::string::{EMBSTR_MAX, StrView, encode_raw};
use crate::types::{New, kind};
use crate::util::long_double::LongDouble;

/// INCR key
pub(super) fn incr(ctx: &mut Ctx) -> CmdResult {
    incrby_generic(ctx, 1)
}

/// DECR key
pub(super) fn decr(ctx: &mut Ctx) -> CmdResult {
    incrby_generic(ctx, -1)
}

/// INCRBY key increment
pub(super) fn incrby(ctx: &mut Ctx) -> CmdResult {
    let increment = ctx.int(2)?;
    incrby_generic(ctx, increment)
}

/// DECRBY key decrement
pub(super) fn decrby(ctx: &mut Ctx) -> CmdResult {
    let decrement = ctx.int(2)?;
    let increment = decrement
        .checked_neg()
        .ok_or(Error::of("ERR decrement would overflow"))?;
    incrby_generic(ctx, increment)
}

#[inline]
fn incrby_generic(ctx: &mut Ctx, increment: i64) -> CmdResult {
    let key = ctx.argv[1];
    let (new, in_place) = match ctx.server.lookup_write(ctx.client, key) {
        None => (increment, false),
        Some(mut entry) => {
            let old = StrView::of(entry.as_ref())?.integer()?;
            let new = old.checked_add(increment).ok_or(Error::INCR_OVERFLOW)?;
            (new, entry.try_set_integer(new))
        }
    };
    if !in_place {
        ctx.server
            .set_key(ctx.client.db, key, kind::INT, New::Int(new), Ttl::Keep);
    }
    ctx.changed(key, events::STRING, "incrby");
    ctx.dirty(1);
    ctx.client.reply.integer(new);
    Ok(())
}

/// INCRBYFLOAT key increment
pub(super) fn incrbyfloat(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let old = match ctx.server.lookup_write(ctx.client, key) {
        None => LongDouble::ZERO,
        Some(entry) => match StrView::of(entry.as_ref())? {
            StrView::Int(n) => LongDouble::from(n),
            StrView::Bytes(text) => LongDouble::parse(text).ok_or(Error::NOT_FLOAT)?,
        },
    };
    let new = old + LongDouble::parse(ctx.argv[2]).ok_or(Error::NOT_FLOAT)?;
    if !new.is_finite() {
        return Err(Error::INCR_NAN);
    }
    // INCRBYFLOAT stores the sum as text, even if the sum is an integer.
    let text = new.to_human();
    let tag = if text.len() <= EMBSTR_MAX {
        kind::EMBSTR
    } else {
        kind::RAW
    };
    ctx.server
        .set_key(ctx.client.db, key, tag, encode_raw(&text, None), Ttl::Keep);
    ctx.rewrite(&[b"SET", key, &text, b"KEEPTTL"]);
    ctx.changed(key, events::STRING, "incrbyfloat");
    ctx.dirty(1);
    ctx.client.reply.bulk(&text);
    Ok(())
}
