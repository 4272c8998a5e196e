//! OBJECT: the encoding of a value, and figures of its use.

use crate::command::ctx::{CmdResult, Ctx};
use crate::ds::entry::ValueRef;
use crate::error::Error;
use crate::types::{KeyRef, encoding_name, kind};

/// The reply of OBJECT REFCOUNT for an integer that Redis would share between keys; Redis shares
/// those of `SHARED_INTEGERS`.
const SHARED_REFCOUNT: i64 = i32::MAX as i64;
const SHARED_INTEGERS: std::ops::Range<i64> = 0..10_000;

/// Replies with an attribute of a key, or null; the key's last access is not updated.
fn about(ctx: &mut Ctx, show: impl FnOnce(KeyRef) -> i64) -> CmdResult {
    match ctx.server.lookup_peek_quietly(ctx.client, ctx.argv[2]) {
        Some(entry) => ctx.client.reply.integer(show(entry)),
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// OBJECT ENCODING key
pub fn object_encoding(ctx: &mut Ctx) -> CmdResult {
    match ctx.server.lookup_peek_quietly(ctx.client, ctx.argv[2]) {
        Some(entry) => ctx.client.reply.bulk(encoding_name(entry).as_bytes()),
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// OBJECT FREQ key
pub fn object_freq(ctx: &mut Ctx) -> CmdResult {
    let bits = lru_bits(ctx);
    if bits.is_some() && !ctx.server.config.maxmemory_policy.is_lfu() {
        return Err(Error::of(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    let now = ctx.server.clock.now_ms;
    reply_optional(ctx, bits.map(|bits| ctx.server.evict.frequency(bits, now)));
    Ok(())
}

/// OBJECT IDLETIME key
pub fn object_idletime(ctx: &mut Ctx) -> CmdResult {
    let bits = lru_bits(ctx);
    if bits.is_some() && ctx.server.config.maxmemory_policy.is_lfu() {
        return Err(Error::of(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    let now = ctx.server.clock.now_ms;
    reply_optional(
        ctx,
        bits.map(|bits| ctx.server.evict.idle_seconds(bits, now)),
    );
    Ok(())
}

fn lru_bits(ctx: &mut Ctx) -> Option<u32> {
    ctx.server
        .lookup_peek_quietly(ctx.client, ctx.argv[2])
        .map(KeyRef::lru)
}

fn reply_optional(ctx: &mut Ctx, answer: Option<u32>) {
    match answer {
        Some(n) => ctx.client.reply.integer(n.into()),
        None => ctx.client.reply.null(),
    }
}

/// OBJECT REFCOUNT key
pub fn object_refcount(ctx: &mut Ctx) -> CmdResult {
    let config = &ctx.server.config;
    let policy = config.maxmemory_policy;
    let shares = config.maxmemory == 0 || !(policy.uses_idle_time() || policy.is_lfu());
    about(ctx, |entry| refcount(entry, shares))
}

/// The reference count that Redis would show: values are never shared between keys here, but small
/// integers are in Redis.
pub fn refcount(entry: KeyRef, shares: bool) -> i64 {
    match entry.value() {
        ValueRef::Int(n) if shares && entry.kind() == kind::INT && SHARED_INTEGERS.contains(&n) => {
            SHARED_REFCOUNT
        }
        _ => 1,
    }
}

/// OBJECT HELP
pub fn object_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
