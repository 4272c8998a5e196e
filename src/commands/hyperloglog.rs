//! HyperLogLogs: estimates of the number of different elements, in at most 12 KB.
//!
//! The value is an ordinary string, which GET and SET can use; `ds::hll` has its format. So every
//! command first checks whether the string has that format; a string that only seems to have it is
//! detected while its registers are read, and never causes a panic.
//!
//! ```text
//!   PFADD    raises registers; the first change makes the cached cardinality stale
//!   PFCOUNT  of one key: the cached cardinality, or counts and caches. That changes the value, so this read
//!            is propagated, and CLIENT PAUSE WRITE holds it back
//!            of several: merges the registers on the stack, changes nothing
//!   PFMERGE  merges all, the destination included, into the destination; dense if one of them is
//! ```
//!
//! A value of more than `INLINE_MAX` bytes has a buffer of its own and is changed there; a shorter
//! one, with a few elements, is changed in a copy that is stored in the key's entry.
//!
//! **Invariant:** a command that fails creates no key.

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::db::Ttl;
use crate::ds::entry::{INLINE_MAX, ValueMut};
use crate::ds::hll::{self, Corrupt, Encoding, Registers};
use crate::error::{Error, said};
use crate::keyspace::events;
use crate::types::string::{RawStr, StrView};
use crate::types::{KeyRef, New, Value, kind};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("pfadd", pfadd, -2, WRITE | DENYOOM | FAST, HYPERLOGLOG).keys(&[key_at(1, RW | INSERT)]),
    cmd(
        "pfcount",
        pfcount,
        -2,
        READONLY | MAY_REPLICATE,
        HYPERLOGLOG,
    )
    .keys(&[key(RW | ACCESS, index(1), range(-1, 1, 0)).note(
        "RW because it may change the internal representation of the \
            key, and propagate to replicas",
    )]),
    cmd("pfdebug", pfdebug, 3, WRITE | DENYOOM | ADMIN, HYPERLOGLOG)
        .keys(&[key_at(2, RW | ACCESS)]),
    cmd("pfmerge", pfmerge, -2, WRITE | DENYOOM, HYPERLOGLOG).keys(&[
        key_at(1, RW | ACCESS | INSERT),
        key(RO | ACCESS, index(2), range(-1, 1, 0)),
    ]),
    cmd("pfselftest", pfselftest, 1, ADMIN, HYPERLOGLOG),
];

const NOT_HLL: Error = Error::of("WRONGTYPE Key is not a valid HyperLogLog string value.");
const CORRUPT: Error = Error::of("INVALIDOBJ Corrupted HLL object detected");

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Error {
        CORRUPT
    }
}

/// The bytes of a key's value, which must be a HyperLogLog.
fn view(entry: KeyRef<'_>) -> Result<&[u8], Error> {
    match StrView::of(entry)? {
        StrView::Bytes(bytes) if hll::is_hll(bytes) => Ok(bytes),
        _ => Err(NOT_HLL),
    }
}

/// Changes the HyperLogLog under `key`; `None` if there is no such key. The encoding of the value
/// becomes `raw`.
fn edit<T>(
    ctx: &mut Ctx,
    key: &[u8],
    change: impl FnOnce(&mut Vec<u8>) -> T,
) -> Result<Option<T>, Error> {
    let Some(mut entry) = ctx.server.lookup_write(ctx.client, key) else {
        return Ok(None);
    };
    view(entry.as_ref())?;
    entry.set_kind(kind::RAW);
    let Some(bytes) = entry.short_bytes_mut() else {
        return match entry.change_buffer(change) {
            Some(result) => Ok(Some(result)),
            None => Err(NOT_HLL),
        };
    };
    let mut copy = bytes.to_vec();
    let result = change(&mut copy);
    if copy.len() == bytes.len() {
        bytes.copy_from_slice(&copy);
        return Ok(Some(result));
    }
    store(ctx, key, copy);
    Ok(Some(result))
}

/// Stores the HyperLogLog of a new key, or one that has grown beyond the space in its key's entry.
fn store(ctx: &mut Ctx, key: &[u8], hll: Vec<u8>) {
    let value = match hll.len() {
        ..=INLINE_MAX => New::Str(&hll),
        _ => New::Obj(Value::Str(RawStr::Owned(hll))),
    };
    ctx.server
        .set_key(ctx.client.db, key, kind::RAW, value, Ttl::Keep);
}

/// PFADD key [element [element ...]]
fn pfadd(ctx: &mut Ctx) -> CmdResult {
    let (key, elements) = (ctx.argv[1], &ctx.argv[2..]);
    let sparse_max = ctx.server.config.hll_sparse_max_bytes;
    let (changed, added) = match edit(ctx, key, |hll| add_all(hll, elements, sparse_max))? {
        Some(outcome) => outcome,
        None => {
            let mut hll = hll::create();
            let (changed, added) = add_all(&mut hll, elements, sparse_max);
            hll::invalidate_cache(&mut hll);
            store(ctx, key, hll);
            (changed + 1, added)
        }
    };
    if changed > 0 {
        ctx.changed(key, events::STRING, "pfadd");
        ctx.dirty(changed);
    }
    added?;
    ctx.client.reply.integer((changed > 0).into());
    Ok(())
}

/// Adds elements to a HyperLogLog, and returns the number of elements that changed a register.
/// Stops if the HyperLogLog is corrupt.
fn add_all(hll: &mut Vec<u8>, elements: &[&[u8]], sparse_max: usize) -> (u64, Result<(), Corrupt>) {
    let mut changed = 0;
    for element in elements {
        match hll::add(hll, element, sparse_max) {
            Ok(raised) => changed += u64::from(raised),
            Err(corrupt) => return (changed, Err(corrupt)),
        }
    }
    (changed, Ok(()))
}

/// PFCOUNT key [key ...]
fn pfcount(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 2 {
        let (registers, _) = merge(ctx, &ctx.argv[1..])?;
        ctx.client.reply.integer(registers.count() as i64);
        return Ok(());
    }
    let key = ctx.argv[1];
    let Some(entry) = ctx.server.lookup_read(ctx.client, key) else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let hll = view(entry)?;
    let count = match hll::cached_count(hll) {
        Some(count) => count,
        None => {
            let count = hll::count(hll)?;
            cache_count(ctx, key, count);
            count
        }
    };
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// Stores `count` in the value as its cached cardinality. No keyspace event is sent, as PFCOUNT is
/// a read for its subscribers.
fn cache_count(ctx: &mut Ctx, key: &[u8], count: u64) {
    let (hash, db) = (ctx.server.hash_key(key), ctx.client.db);
    let entry = ctx.db().find_mut(hash, key);
    match entry.map(|entry| entry.into_value_of_same_length()) {
        Some(ValueMut::Str(bytes)) => hll::set_cached_count(bytes, count),
        Some(ValueMut::Obj(Value::Str(raw))) => hll::set_cached_count(raw.make_mut(), count),
        _ => return,
    }
    ctx.server.signal_modified(Some(ctx.client), db, key);
    ctx.dirty(1);
}

/// The union of the HyperLogLogs under `keys`, and whether one of them is dense.
fn merge(ctx: &mut Ctx, keys: &[&[u8]]) -> Result<(Registers, bool), Error> {
    let mut registers = Registers::default();
    let mut dense = false;
    let simd = !ctx.server.debug.no_hll_simd;
    for key in keys {
        if let Some(entry) = ctx.server.lookup_read(ctx.client, key) {
            let hll = view(entry)?;
            dense |= hll::encoding(hll) == Encoding::Dense;
            registers.merge(hll, simd)?;
        }
    }
    Ok((registers, dense))
}

/// PFMERGE destkey [sourcekey [sourcekey ...]]
fn pfmerge(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let sparse_max = ctx.server.config.hll_sparse_max_bytes;
    let (registers, dense) = merge(ctx, &ctx.argv[1..])?;
    let into = |hll: &mut Vec<u8>| registers.store(hll, dense, sparse_max);
    match edit(ctx, key, into)? {
        Some(stored) => stored?,
        None => {
            let mut hll = hll::create();
            registers.store(&mut hll, dense, sparse_max)?;
            store(ctx, key, hll);
        }
    }
    ctx.changed(key, events::STRING, "pfadd");
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}

/// PFDEBUG GETREG | DECODE | ENCODING | TODENSE key, PFDEBUG SIMD ON | OFF
fn pfdebug(ctx: &mut Ctx) -> CmdResult {
    if ctx.is(1, "simd") {
        return pfdebug_simd(ctx);
    }
    let (name, key) = (ctx.argv[1], ctx.argv[2]);
    let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        return Err(Error::of("ERR The specified key does not exist"));
    };
    let hll = view(entry.as_ref())?;
    if is(b"getreg") {
        make_dense(ctx, key)?;
        reply_registers(ctx, key)?;
    } else if is(b"decode") {
        let runs = hll::decode(hll).ok_or(Error::of("ERR HLL encoding is not sparse"))?;
        ctx.client.reply.bulk(runs.as_bytes());
    } else if is(b"encoding") {
        ctx.client.reply.status(match hll::encoding(hll) {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        });
    } else if is(b"todense") {
        let converted = make_dense(ctx, key)?;
        ctx.client.reply.integer(converted.into());
    } else {
        let name = said(name);
        return Err(Error::new(format!(
            "ERR Unknown PFDEBUG subcommand '{name}'"
        )));
    }
    Ok(())
}

/// PFDEBUG SIMD: merges by portable code, or again by vector instructions.
fn pfdebug_simd(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.no_hll_simd = match () {
        () if ctx.is(2, "on") => false,
        () if ctx.is(2, "off") => true,
        () => return Err(Error::of("ERR Argument must be ON or OFF")),
    };
    ctx.client.reply.ok();
    Ok(())
}

/// Converts a sparse HyperLogLog to the dense representation. Returns whether the HyperLogLog was
/// sparse: a conversion is propagated.
fn make_dense(ctx: &mut Ctx, key: &[u8]) -> Result<bool, Error> {
    let Some(converted) = edit(ctx, key, hll::to_dense)?.transpose()? else {
        return Ok(false);
    };
    if converted {
        ctx.dirty(1);
    }
    Ok(converted)
}

fn reply_registers(ctx: &mut Ctx, key: &[u8]) -> CmdResult {
    if let Some(entry) = ctx.server.lookup_no_touch(ctx.client, key) {
        let registers = Registers::read(view(entry)?)?;
        ctx.client.reply.array(registers.values().len());
        for value in registers.values() {
            ctx.client.reply.integer((*value).into());
        }
    }
    Ok(())
}

/// PFSELFTEST
fn pfselftest(ctx: &mut Ctx) -> CmdResult {
    hll::self_test(ctx.server.rng.next_u64()).map_err(Error::new)?;
    ctx.client.reply.ok();
    Ok(())
}
