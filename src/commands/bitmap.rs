//! Bitmaps: the commands on the bits of a string, and on integers of any width that are packed into
//! a string.
//!
//! ```text
//!   byte        0                 1
//!   bit     0 1 2 3 4 5 6 7   8 9 ...        GETBIT key 0 is the highest bit of the first byte
//!                                            BITFIELD key GET u5 6: bits 6 7 8 9 10, 6 the highest
//! ```
//!
//! `ds::bits` has the operations on bytes; `src/commands/bitmap.rs` handles the arguments, the
//! ranges and the growth of the value. A write to bits changes the string in place ([`edit`]): the
//! string is extended with zeros and gets the encoding `raw`, whether a bit changes or not. A
//! command that changes no bit sends no event, is not propagated, and does not disturb WATCH.
//!
//! BITFIELD reads its operations twice: first to find errors and the needed length of the string,
//! then to execute the operations. So an error in the last operation of a BITFIELD leaves the value
//! unchanged, and no list of operations is built.
//!
//! **Invariant:** BITFIELD_RO and a BITFIELD of nothing but GET create no key.
//! **Invariant:** no bit is behind `proto-max-bulk-len` bytes, except the bits of a BITFIELD
//! integer that begins before that limit, as in Redis.

use std::ops::Range;

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::keys;
use crate::command::*;
use crate::db::Ttl;
use crate::ds::bits::{self, BitOp, Field, Overflow};
use crate::ds::entry::INLINE_MAX;
use crate::error::Error;
use crate::keyspace::events;
use crate::texts::Words;
use crate::types::string::{Grown, RawStr, StrView, bytes_mut};
use crate::types::{New, Value, kind};
use crate::util::number::{IntBuf, parse_i64};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("bitcount", bitcount, -2, READONLY, BITMAP).keys(&[key_at(1, RO | ACCESS)]),
    cmd("bitfield", bitfield, -2, WRITE | DENYOOM, BITMAP)
        .keys(&[key_at(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)
            .note("This command allows both access and modification of the key")])
        .get_keys(keys::bitfield),
    cmd("bitfield_ro", bitfield_ro, -2, READONLY | FAST, BITMAP).keys(&[key_at(1, RO | ACCESS)]),
    cmd("bitop", bitop, -4, WRITE | DENYOOM, BITMAP).keys(&[
        key_at(2, OW | UPDATE),
        key(RO | ACCESS, index(3), range(-1, 1, 0)),
    ]),
    cmd("bitpos", bitpos, -3, READONLY, BITMAP).keys(&[key_at(1, RO | ACCESS)]),
    cmd("getbit", getbit, 3, READONLY | FAST, BITMAP).keys(&[key_at(1, RO | ACCESS)]),
    cmd("setbit", setbit, 4, WRITE | DENYOOM, BITMAP).keys(&[key_at(1, RW | ACCESS | UPDATE)]),
];

const BIT_OFFSET: Error = Error::of("ERR bit offset is not an integer or out of range");
const BIT_VALUE: Error = Error::of("ERR bit is not an integer or out of range");
const FIELD_TYPE: Error = Error::of(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
);
const OVERFLOW_TYPE: Error = Error::of("ERR Invalid OVERFLOW type specified");
const READS_ONLY: Error = Error::of("ERR BITFIELD_RO only supports the GET subcommand");

/// Parses the offset of a bit; an argument that begins with `#` counts fields of `width` bits. The
/// product of count and width wraps, as in Redis and Valkey: `#-9223372036854775808` with an even
/// width is bit 0.
fn bit_offset(arg: &[u8], width: Option<u32>, max_len: usize) -> Result<u64, Error> {
    let (digits, unit) = match (arg.strip_prefix(b"#"), width) {
        (Some(digits), Some(width)) => (digits, i64::from(width)),
        _ => (arg, 1),
    };
    parse_i64(digits)
        .and_then(|count| u64::try_from(count.wrapping_mul(unit)).ok())
        .filter(|&offset| offset / 8 < max_len as u64)
        .ok_or(BIT_OFFSET)
}

fn bit_at(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8)
        .ok()
        .and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte << (offset % 8) & 0x80 != 0)
}

/// Changes the string under `key`, after extending it to at least `len` bytes: in place, or, if the
/// string has no room, in a copy that replaces the string. The last argument of `change` is whether
/// the string grew.
fn edit<T>(
    ctx: &mut Ctx,
    key: &[u8],
    len: usize,
    change: impl FnOnce(&mut ReplyBuf, &mut [u8], bool) -> T,
) -> Result<T, Error> {
    let (mut copy, grew) = match ctx.server.lookup_write(ctx.client, key) {
        None => (Grown::zeros(len), true),
        Some(mut entry) => {
            let grew = StrView::of(entry.as_ref())?.len() < len;
            if let Some(bytes) = bytes_mut(&mut entry, len) {
                return Ok(change(&mut ctx.client.reply, bytes, grew));
            }
            (Grown::copy(entry.as_ref(), len), grew)
        }
    };
    let result = change(&mut ctx.client.reply, copy.bytes_mut(), grew);
    ctx.server
        .set_key(ctx.client.db, key, kind::RAW, copy.value(), Ttl::Keep);
    Ok(result)
}

/// SETBIT key offset value
fn setbit(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let offset = bit_offset(ctx.argv[2], None, ctx.max_string_len())?;
    let on = match parse_i64(ctx.argv[3]) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(BIT_VALUE),
    };
    let byte = (offset / 8) as usize;
    let (old, grew) = edit(ctx, key, byte + 1, |_, bytes, grew| {
        let old = bit_at(bytes, offset);
        let mask = 0x80 >> (offset % 8);
        bytes[byte] = if on {
            bytes[byte] | mask
        } else {
            bytes[byte] & !mask
        };
        (old, grew)
    })?;
    if grew || old != on {
        ctx.changed(key, events::STRING, "setbit");
        ctx.dirty(1);
    }
    ctx.client.reply.integer(old.into());
    Ok(())
}

/// GETBIT key offset
fn getbit(ctx: &mut Ctx) -> CmdResult {
    let offset = bit_offset(ctx.argv[2], None, ctx.max_string_len())?;
    let on = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => false,
        Some(entry) => bit_at(StrView::of(entry)?.bytes(&mut IntBuf::new()), offset),
    };
    ctx.client.reply.integer(on.into());
    Ok(())
}

/// The part of a string that BITCOUNT and BITPOS read: `[start [end [BYTE | BIT]]]`, both ends
/// included; negative positions are relative to the end of the string.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    end: Option<i64>,
    in_bits: bool,
}

impl Span {
    /// Parses the range in the arguments from index `from` to the last argument.
    fn parse(ctx: &Ctx, from: usize) -> Result<Span, Error> {
        let given = ctx.argv.len() - from;
        if given > 3 {
            return Err(Error::SYNTAX);
        }
        let in_bits = given == 3 && ctx.is(from + 2, "bit");
        let unit_is_known = given < 3 || in_bits || ctx.is(from + 2, "byte");
        let start = if given > 0 { ctx.int(from)? } else { 0 };
        if !unit_is_known {
            return Err(Error::SYNTAX);
        }
        let end = if given > 1 {
            Some(ctx.int(from + 1)?)
        } else {
            None
        };
        Ok(Span {
            start,
            end,
            in_bits,
        })
    }

    /// The bits that the range selects in a string of `len` bytes.
    fn bits(self, len: usize) -> Range<usize> {
        let (len, unit) = if self.in_bits { (len * 8, 1) } else { (len, 8) };
        let from_start = |n: i64| {
            if n < 0 {
                n.saturating_add(len as i64).max(0)
            } else {
                n
            }
        };
        let start = from_start(self.start);
        let end = from_start(self.end.unwrap_or(-1)).min(len as i64 - 1);
        if start > end {
            return 0..0;
        }
        start as usize * unit..(end as usize + 1) * unit
    }
}

/// The whole bytes that contain a range of bits, and masks of the bits in the first and in the last
/// byte that are outside of the range.
fn whole_bytes(bits: &Range<usize>) -> (Range<usize>, u8, u8) {
    let before = !(0xff >> (bits.start % 8)) as u8;
    let behind = (0xff >> ((bits.end + 7) % 8) >> 1) as u8;
    (bits.start / 8..bits.end.div_ceil(8), before, behind)
}

/// BITCOUNT key [start [end [BYTE | BIT]]]
fn bitcount(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.config.words() == Words::Redis {
        check_range(ctx)?;
    }
    let span = Span::parse(ctx, 2)?;
    let count = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => 0,
        Some(entry) => {
            let mut digits = IntBuf::new();
            count_bits(StrView::of(entry)?.bytes(&mut digits), span)
        }
    };
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// Checks BITCOUNT's range as Redis does, which has no range without an end, and parses both ends
/// before BYTE or BIT.
fn check_range(ctx: &Ctx) -> CmdResult {
    match ctx.argv.len() {
        3 => return Err(Error::SYNTAX),
        5 => {
            ctx.int(2)?;
            ctx.int(3)?;
        }
        _ => {}
    }
    Ok(())
}

fn count_bits(bytes: &[u8], span: Span) -> u64 {
    // A negative start behind a negative end selects no bits. Clamped to 0, the two positions would
    // select the first byte.
    let crossed = span
        .end
        .is_some_and(|end| span.start < 0 && end < 0 && span.start > end);
    let range = span.bits(bytes.len());
    if crossed || range.is_empty() {
        return 0;
    }
    let (whole, before, behind) = whole_bytes(&range);
    let outside =
        (bytes[whole.start] & before).count_ones() + (bytes[whole.end - 1] & behind).count_ones();
    bits::popcount(&bytes[whole]) - u64::from(outside)
}

/// BITPOS key bit [start [end [BYTE | BIT]]]
fn bitpos(ctx: &mut Ctx) -> CmdResult {
    let bit = match ctx.int(2)? {
        0 => false,
        1 => true,
        _ => return Err(Error::of("ERR The bit argument must be 1 or 0.")),
    };
    let span = Span::parse(ctx, 3)?;
    let position = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        // A missing key counts as a string of zeros, so bit 0 is found at position 0.
        None => (!bit).then_some(0),
        Some(entry) => {
            let mut digits = IntBuf::new();
            find_bit(StrView::of(entry)?.bytes(&mut digits), bit, span)
        }
    };
    ctx.client
        .reply
        .integer(position.map_or(-1, |at| at as i64));
    Ok(())
}

fn find_bit(bytes: &[u8], bit: bool, span: Span) -> Option<usize> {
    let range = span.bits(bytes.len());
    if range.is_empty() {
        return None;
    }
    let (whole, before, _) = whole_bytes(&range);
    let first = bytes[whole.start];
    // The bits before the range are set to the value that is not searched for.
    let first = if bit { first & !before } else { first | before };
    let found = bits::bitpos(&[first], bit)
        .map(|at| whole.start * 8 + at)
        .or_else(|| {
            let rest = whole.start + 1;
            Some(rest * 8 + bits::bitpos(&bytes[rest..whole.end], bit)?)
        })
        .filter(|at| range.contains(at));
    // A range without an end counts as followed by zeros, so bit 0 is found behind the string.
    found.or((!bit && span.end.is_none()).then_some(bytes.len() * 8))
}

/// BITOP AND | OR | XOR | NOT | DIFF | DIFF1 | ANDOR | ONE destkey key [key ...]
fn bitop(ctx: &mut Ctx) -> CmdResult {
    const OPS: &[(&str, BitOp)] = &[
        ("AND", BitOp::And),
        ("OR", BitOp::Or),
        ("XOR", BitOp::Xor),
        ("NOT", BitOp::Not),
        ("DIFF", BitOp::Diff),
        ("DIFF1", BitOp::Diff1),
        ("ANDOR", BitOp::AndOr),
        ("ONE", BitOp::One),
    ];
    let known = OPS.iter().find(|(name, _)| ctx.is(1, name));
    let &(name, op) = known.ok_or(Error::SYNTAX)?;
    let keys = &ctx.argv[3..];
    match op {
        BitOp::Not if keys.len() > 1 => {
            return Err(Error::of(
                "ERR BITOP NOT must be called with a single source key.",
            ));
        }
        BitOp::Diff | BitOp::Diff1 | BitOp::AndOr if keys.len() < 2 => {
            let text = format!("ERR BITOP {name} must be called with at least two source keys.");
            return Err(Error::new(text));
        }
        _ => {}
    }
    let result = combine(ctx, op, keys)?;
    let len = result.len();
    store_result(ctx, ctx.argv[2], result);
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// Combines the strings under `keys` by the operation of BITOP; a missing key is an empty string.
fn combine(ctx: &mut Ctx, op: BitOp, keys: &[&[u8]]) -> Result<Vec<u8>, Error> {
    for key in keys {
        if let Some(entry) = ctx.server.lookup_read(ctx.client, key) {
            StrView::of(entry)?;
        }
    }
    // The server's clock stands still during a command, so no key expires between the two look-ups
    // of each key.
    let (server, db) = (&*ctx.server, &ctx.server.data.dbs[ctx.client.db as usize]);
    let mut digits: Vec<IntBuf> = keys.iter().map(|_| IntBuf::new()).collect();
    let mut sources: Vec<&[u8]> = Vec::with_capacity(keys.len());
    for (key, digits) in keys.iter().zip(&mut digits) {
        let entry = db.find(server.key_hasher.hash(key), key);
        sources.push(match entry.filter(|entry| !server.is_expired(*entry)) {
            None => b"",
            Some(entry) => StrView::of(entry)?.bytes(digits),
        });
    }
    Ok(bits::bitop(op, &sources))
}

/// Stores the result of BITOP; an empty result deletes the destination key.
fn store_result(ctx: &mut Ctx, key: &[u8], result: Vec<u8>) {
    let db = ctx.client.db;
    if result.is_empty() {
        if ctx
            .server
            .delete_key(db, key, ctx.server.config.lazyfree_lazy_server_del)
        {
            ctx.changed(key, events::GENERIC, "del");
            ctx.dirty(1);
        }
        return;
    }
    let value = match result.len() {
        ..=INLINE_MAX => New::Str(&result),
        _ => New::Obj(Value::Str(RawStr::Owned(result))),
    };
    ctx.server.set_key(db, key, kind::RAW, value, Ttl::Clear);
    ctx.changed(key, events::STRING, "set");
    ctx.dirty(1);
}

/// One operation of BITFIELD.
#[derive(Clone, Copy)]
struct FieldOp {
    verb: Verb,
    field: Field,
    signed: bool,
    /// The value of SET, or the increment of INCRBY.
    operand: i64,
    overflow: Overflow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
    IncrBy,
}

impl FieldOp {
    fn get(self, bytes: &[u8]) -> i64 {
        if self.signed {
            self.field.get_signed(bytes)
        } else {
            // An unsigned field has at most 63 bits, so its value fits an `i64`.
            self.field.get_unsigned(bytes) as i64
        }
    }

    /// Executes the BITFIELD operation and replies with the value that was read or replaced, with
    /// the sum, or with null if OVERFLOW FAIL refused an overflow. Returns whether the string
    /// changed; if the string `grew`, every write counts as a change.
    fn act(self, reply: &mut ReplyBuf, bytes: &mut [u8], grew: bool) -> bool {
        let old = self.get(bytes);
        if self.verb == Verb::Get {
            reply.integer(old);
            return false;
        }
        let Some(new) = self.outcome(old) else {
            reply.null();
            return false;
        };
        self.field.set(bytes, new as u64);
        reply.integer(if self.verb == Verb::Set { old } else { new });
        grew || old != new
    }

    /// The new value of the BITFIELD integer after the operation; `None` if the value overflows and
    /// the operation has OVERFLOW FAIL.
    fn outcome(self, old: i64) -> Option<i64> {
        let (base, increment) = match self.verb {
            Verb::IncrBy => (old, self.operand),
            _ => (self.operand, 0),
        };
        if self.signed {
            return self.field.add_signed(base, increment, self.overflow);
        }
        let sum = self
            .field
            .add_unsigned(base as u64, increment, self.overflow);
        sum.map(|sum| sum as i64)
    }
}

/// Reads the operations of a BITFIELD, one after the other. The option OVERFLOW applies to the
/// operations after it.
#[derive(Clone, Copy)]
struct FieldOps<'a> {
    args: &'a [&'a [u8]],
    overflow: Overflow,
    max_len: usize,
}

impl<'a> FieldOps<'a> {
    fn new(ctx: &Ctx<'a>) -> FieldOps<'a> {
        FieldOps {
            args: &ctx.argv[2..],
            overflow: Overflow::Wrap,
            max_len: ctx.max_string_len(),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [&'a [u8]], Error> {
        let (taken, rest) = self.args.split_at_checked(n).ok_or(Error::SYNTAX)?;
        self.args = rest;
        Ok(taken)
    }

    fn parse(&mut self) -> Result<Option<FieldOp>, Error> {
        while let Ok(name) = self.take(1) {
            let is = |wanted: &str| name[0].eq_ignore_ascii_case(wanted.as_bytes());
            let verb = if is("get") {
                Verb::Get
            } else if is("set") {
                Verb::Set
            } else if is("incrby") {
                Verb::IncrBy
            } else if is("overflow") {
                self.overflow = parse_overflow(self.take(1)?[0])?;
                continue;
            } else {
                return Err(Error::SYNTAX);
            };
            return self.parse_operands(verb).map(Some);
        }
        Ok(None)
    }

    fn parse_operands(&mut self, verb: Verb) -> Result<FieldOp, Error> {
        let operands = self.take(if verb == Verb::Get { 2 } else { 3 })?;
        let (signed, width) = parse_field_type(operands[0]).ok_or(FIELD_TYPE)?;
        let offset = bit_offset(operands[1], Some(width), self.max_len)?;
        let operand = match operands.get(2) {
            None => 0,
            Some(arg) => parse_i64(arg).ok_or(Error::NOT_INTEGER)?,
        };
        Ok(FieldOp {
            verb,
            field: Field { offset, width },
            signed,
            operand,
            overflow: self.overflow,
        })
    }
}

impl Iterator for FieldOps<'_> {
    type Item = Result<FieldOp, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parse().transpose()
    }
}

fn parse_overflow(mode: &[u8]) -> Result<Overflow, Error> {
    match mode.to_ascii_lowercase().as_slice() {
        b"wrap" => Ok(Overflow::Wrap),
        b"sat" => Ok(Overflow::Saturate),
        b"fail" => Ok(Overflow::Fail),
        _ => Err(OVERFLOW_TYPE),
    }
}

/// Parses the type of a BITFIELD integer, `i` or `u` and a width: signed up to 64 bits, unsigned up
/// to 63 bits, since integers in replies are signed.
fn parse_field_type(arg: &[u8]) -> Option<(bool, u32)> {
    let (signed, max) = match arg.first()? {
        b'i' => (true, 64),
        b'u' => (false, 63),
        _ => return None,
    };
    // The digits of the width end at a NUL, as in Redis.
    let digits = arg[1..].split(|byte| *byte == 0).next()?;
    let width = parse_i64(digits).filter(|width| (1..=max).contains(width))?;
    Some((signed, width as u32))
}

/// BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY type
/// offset increment ...]
fn bitfield(ctx: &mut Ctx) -> CmdResult {
    bitfield_generic(ctx, false)
}

/// BITFIELD_RO key [GET type offset ...]
fn bitfield_ro(ctx: &mut Ctx) -> CmdResult {
    bitfield_generic(ctx, true)
}

fn bitfield_generic(ctx: &mut Ctx, reads_only: bool) -> CmdResult {
    let ops = FieldOps::new(ctx);
    let (mut count, mut bytes_needed) = (0, 0);
    for op in ops {
        let op = op?;
        count += 1;
        if op.verb != Verb::Get {
            bytes_needed = op.field.bytes_needed().max(bytes_needed);
        }
    }
    let acts = ops.flatten();
    if bytes_needed == 0 {
        return read_fields(ctx, acts, count);
    }
    if reads_only {
        return Err(READS_ONLY);
    }
    let key = ctx.argv[1];
    let (changes, grew) = edit(ctx, key, bytes_needed as usize, |reply, bytes, grew| {
        reply.array(count);
        let changed = acts.filter(|op| op.act(reply, bytes, grew)).count();
        (changed as u64, grew)
    })?;
    if changes > 0 {
        ctx.changed(key, events::STRING, "setbit");
        ctx.dirty(changes);
    } else if grew {
        // All operations of the BITFIELD overflowed and failed, but the string was extended: no
        // keyspace event is sent, but the command must be propagated.
        let db = ctx.client.db;
        ctx.server.signal_modified(Some(ctx.client), db, key);
        ctx.dirty(1);
    }
    Ok(())
}

fn read_fields(ctx: &mut Ctx, ops: impl Iterator<Item = FieldOp>, count: usize) -> CmdResult {
    let mut digits = IntBuf::new();
    let bytes = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => b"",
        Some(entry) => StrView::of(entry)?.bytes(&mut digits),
    };
    ctx.client.reply.array(count);
    ops.for_each(|op| ctx.client.reply.integer(op.get(bytes)));
    Ok(())
}
