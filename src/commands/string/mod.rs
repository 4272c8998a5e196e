//! The commands on strings.
//!
//! ```text
//!   mod.rs     the rows; GET; what the other files share: reply a value, store a value
//!   set.rs     SET and its variants, which replace a value, change its time to live, or remove it
//!   many.rs    MGET, MSET, MSETNX, MSETEX: several keys at once
//!   incr.rs    INCR, INCRBY, DECR, DECRBY, INCRBYFLOAT
//!   range.rs   APPEND, SETRANGE, GETRANGE, STRLEN: parts of a value
//!   lcs.rs     LCS
//! ```
//!
//! Only OBJECT ENCODING shows how a value is stored. A value that is set whole is `int` if it is an
//! integer, `embstr` up to 44 bytes, otherwise `raw`; a value that was changed in part is `raw`
//! until INCR or SET replaces it.
//!
//! **Invariant:** GET, SET without options, INCR and APPEND of a key that exists probe the table
//! once.
//! **Invariant:** propagated commands do not depend on the clock: times to live are propagated as
//! expiry times, and conditions whose result could differ on a replica are removed. The transcript
//! `tests/transcripts/string.txt` has replies and errors.
//!
//! Limit: no string grows beyond `proto-max-bulk-len`, 512 MB unless configured.

mod incr;
mod lcs;
mod many;
mod range;
mod set;

use crate::client::reply::ZERO_COPY_MIN;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::keys;
use crate::command::*;
use crate::db::Ttl;
use crate::ds::entry::ValueMut;
use crate::error::Error;
use crate::keyspace::events;
use crate::types::Value;
use crate::types::string::{StrView, encode};
use crate::util::number::IntBuf;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("append", range::append, 3, WRITE | DENYOOM | FAST, STRING).keys(&[key_at(1, RW | INSERT)]),
    cmd("decr", incr::decr, 2, WRITE | DENYOOM | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("decrby", incr::decrby, 3, WRITE | DENYOOM | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("delifeq", set::delifeq, 3, WRITE | FAST, STRING).keys(&[key_at(1, RM | DELETE)]),
    cmd("get", get, 2, READONLY | FAST, STRING).keys(&[key_at(1, RO | ACCESS)]),
    cmd("getdel", set::getdel, 2, WRITE | FAST, STRING).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("getex", set::getex, -2, WRITE | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE).note("RW and UPDATE because it changes the TTL")]),
    cmd("getrange", range::getrange, 4, READONLY, STRING).keys(&[key_at(1, RO | ACCESS)]),
    cmd("getset", set::getset, 3, WRITE | DENYOOM | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("incr", incr::incr, 2, WRITE | DENYOOM | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("incrby", incr::incrby, 3, WRITE | DENYOOM | FAST, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd(
        "incrbyfloat",
        incr::incrbyfloat,
        3,
        WRITE | DENYOOM | FAST,
        STRING,
    )
    .keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("lcs", lcs::lcs, -3, READONLY, STRING).keys(&[key(RO | ACCESS, index(1), range(1, 1, 0))]),
    cmd("mget", many::mget, -2, READONLY | FAST, STRING)
        .keys(&[key(RO | ACCESS, index(1), range(-1, 1, 0))])
        .tips(&["request_policy:multi_shard"]),
    cmd("mset", many::mset, -3, WRITE | DENYOOM, STRING)
        .keys(&[key(OW | UPDATE, index(1), range(-1, 2, 0))])
        .tips(&[
            "request_policy:multi_shard",
            "response_policy:all_succeeded",
        ]),
    cmd("msetex", many::msetex, -4, WRITE | DENYOOM, STRING)
        .keys(&[key(OW | UPDATE, index(1), keynum(0, 1, 2))])
        .tips(&[
            "request_policy:multi_shard",
            "response_policy:all_succeeded",
        ]),
    cmd("msetnx", many::msetnx, -3, WRITE | DENYOOM, STRING).keys(&[key(
        OW | INSERT,
        index(1),
        range(-1, 2, 0),
    )]),
    cmd("psetex", set::psetex, 4, WRITE | DENYOOM, STRING).keys(&[key_at(1, OW | UPDATE)]),
    cmd("set", set::set, -3, WRITE | DENYOOM, STRING)
        .keys(&[key_at(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)
            .note("RW and ACCESS due to the optional `GET` argument")])
        .get_keys(keys::set),
    cmd("setex", set::setex, 4, WRITE | DENYOOM, STRING).keys(&[key_at(1, OW | UPDATE)]),
    cmd("setnx", set::setnx, 3, WRITE | DENYOOM | FAST, STRING).keys(&[key_at(1, OW | INSERT)]),
    cmd("setrange", range::setrange, 4, WRITE | DENYOOM, STRING).keys(&[key_at(1, RW | UPDATE)]),
    cmd("strlen", range::strlen, 2, READONLY | FAST, STRING).keys(&[key_at(1, RO)]),
    cmd("substr", range::getrange, 4, READONLY, STRING).keys(&[key_at(1, RO | ACCESS)]),
];

/// GET key
fn get(ctx: &mut Ctx) -> CmdResult {
    get_generic(ctx, ctx.argv[1])?;
    Ok(())
}

/// Replies with the string under `key`, or null. Returns whether the key exists.
#[inline]
fn get_generic(ctx: &mut Ctx, key: &[u8]) -> Result<bool, Error> {
    let Some(entry) = ctx.server.lookup_read(ctx.client, key) else {
        ctx.client.reply.null();
        return Ok(false);
    };
    match StrView::of(entry)? {
        StrView::Int(n) => ctx.client.reply.bulk_integer(n),
        StrView::Bytes(bytes) if bytes.len() < ZERO_COPY_MIN => ctx.client.reply.bulk(bytes),
        StrView::Bytes(_) => reply_shared(ctx, key),
    }
    Ok(true)
}

/// Replies with a long string without copying it. The reply buffer shares the string, which is
/// copied only if it is changed before it is sent.
#[cold]
fn reply_shared(ctx: &mut Ctx, key: &[u8]) {
    let hash = ctx.server.hash_key(key);
    let entry = ctx.server.data.dbs[ctx.client.db as usize].find_mut(hash, key);
    if let Some(ValueMut::Obj(Value::Str(raw))) =
        entry.map(|entry| entry.into_value_of_same_length())
    {
        ctx.client.reply.bulk_shared(raw.share());
    }
}

/// Sets `key` to the string `argv[value_at]`.
#[inline]
fn store(ctx: &mut Ctx, key: &[u8], value_at: usize, ttl: Ttl) {
    let (kind, value) = encode(ctx.argv[value_at], ctx.shared_arg(value_at));
    ctx.server.set_key(ctx.client.db, key, kind, value, ttl);
    ctx.changed(key, events::STRING, "set");
}

/// Whether the string under `key` equals `wanted`; false for a missing key.
fn equals(ctx: &mut Ctx, key: &[u8], wanted: &[u8]) -> Result<bool, Error> {
    match ctx.server.lookup_write(ctx.client, key) {
        None => Ok(false),
        Some(entry) => Ok(StrView::of(entry.as_ref())?.bytes(&mut IntBuf::new()) == wanted),
    }
}
