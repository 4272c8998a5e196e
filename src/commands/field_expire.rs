//! Hashes: the times to live of fields.
//!
//! The commands come in four forms (seconds or milliseconds, from now or since 1970). An expiry
//! time that HEXPIRE, one of its variants or HGETEX sets is propagated to the AOF and the replicas
//! without conditions, as one of:
//!
//! ```text
//!   HPEXPIREAT key unix-time-ms FIELDS n field ...       the fields that got that time
//!   HDEL key field ...                                   the fields that were deleted, as the time is past already
//! ```
//!
//! HEXPIRE and HTTL reply a number for each field: -2 no such field, -1 no time to live, 0 the
//! condition is not met, 1 done, 2 the field was deleted; otherwise the time. Error texts and their
//! order are those of Redis 8.2: a key that is not a hash is refused before any argument is
//! checked, except by HSETEX. HGETEX and HSETEX also accept options after the fields, as in Redis
//! 8.6.
//!
//! The expiry time of a field may be at most 2^46 ms, in the year 4199, since Redis and its files
//! store it in a packed form.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::hash::{fields_removed, read_hash, reply_value, reply_values, write_hash};
use crate::error::{Error, said};
use crate::keyspace::events;
use crate::types::hash::{FieldTtl, Hash, HashLimits};
use crate::util::number::{IntBuf, parse_i64};
use std::collections::HashSet;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("hexpire", hexpire, -6, WRITE | FAST, HASH).keys(&[key_at(1, RW | UPDATE)]),
    cmd("hexpireat", hexpireat, -6, WRITE | FAST, HASH).keys(&[key_at(1, RW | UPDATE)]),
    cmd("hexpiretime", hexpiretime, -5, READONLY | FAST, HASH).keys(&[key_at(1, RO | ACCESS)]),
    cmd("hgetdel", hgetdel, -5, WRITE | FAST, HASH).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("hgetex", hgetex, -5, WRITE | FAST, HASH).keys(&[key_at(1, RW | ACCESS | UPDATE)]),
    cmd("hpersist", hpersist, -5, WRITE | FAST, HASH).keys(&[key_at(1, RW | UPDATE)]),
    cmd("hpexpire", hpexpire, -6, WRITE | FAST, HASH).keys(&[key_at(1, RW | UPDATE)]),
    cmd("hpexpireat", hpexpireat, -6, WRITE | FAST, HASH).keys(&[key_at(1, RW | UPDATE)]),
    cmd("hpexpiretime", hpexpiretime, -5, READONLY | FAST, HASH).keys(&[key_at(1, RO | ACCESS)]),
    cmd("hpttl", hpttl, -5, READONLY | FAST, HASH).keys(&[key_at(1, RO | ACCESS)]),
    cmd("hsetex", hsetex, -6, WRITE | DENYOOM | FAST, HASH).keys(&[key_at(1, RW | INSERT)]),
    cmd("httl", httl, -5, READONLY | FAST, HASH).keys(&[key_at(1, RO | ACCESS)]),
];

/// The length of a second, the unit of HEXPIRE's argument, in milliseconds.
const SECONDS: i64 = 1000;
const MILLISECONDS: i64 = 1;
/// The latest expiry time of a field.
const MAX_TIME_MS: i64 = 1 << 46;

const NO_FIELD: i64 = -2;
const NO_TTL: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

/// Parses `FIELDS numfields field [field ...]` from `at` to the end; `few` is the error for a
/// `numfields` that is not a number or below 1.
fn parse_fields<'a>(
    argv: &'a [&'a [u8]],
    at: usize,
    few: &'static str,
) -> Result<&'a [&'a [u8]], Error> {
    if !argv
        .get(at)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"fields"))
    {
        return Err(NO_FIELDS);
    }
    let number = argv.get(at + 1).and_then(|number| parse_i64(number));
    let number = number.filter(|n| *n >= 1).ok_or(Error::of(few))?;
    let fields = &argv[at + 2..];
    if fields.len() as u64 != number as u64 {
        return Err(MISCOUNT);
    }
    Ok(fields)
}

const NO_FIELDS: Error =
    Error::of("ERR Mandatory argument FIELDS is missing or not at the right position");
const MISCOUNT: Error =
    Error::of("ERR The `numfields` parameter must match the number of arguments");

const FEW_IN_HEXPIRE: &str = "ERR Parameter `numFields` should be greater than 0";
const FEW: &str = "ERR Number of fields must be a positive integer";

/// WRONGTYPE if the key exists and is not a hash.
fn check_type(ctx: &mut Ctx) -> CmdResult {
    let entry = ctx.server.lookup_no_touch(ctx.client, ctx.argv[1]);
    entry.map(Hash::of).transpose()?;
    Ok(())
}

/// Parses a number of `unit`s since `base_ms`. Returns the sum as a Unix time in milliseconds.
fn parse_time(ctx: &Ctx, at: usize, unit: i64, base_ms: i64) -> Result<i64, Error> {
    let amount = ctx.int(at)?;
    if amount < 0 {
        return Err(Error::of("ERR invalid expire time, must be >= 0"));
    }
    amount
        .checked_mul(unit)
        .and_then(|ms| ms.checked_add(base_ms))
        .filter(|ms| *ms < MAX_TIME_MS)
        .ok_or_else(|| Error::invalid_expire(ctx.cmd.name))
}

/// The condition of HEXPIRE.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// NX: sets the time only of fields without an expiry time.
    Nx,
    /// XX: sets the time only of fields that have an expiry time.
    Xx,
    /// GT: sets the time only if it is later than the field's present expiry time; a field without
    /// one lives for ever.
    Gt,
    /// LT: sets the time only if it is earlier than the field's present expiry time.
    Lt,
}

impl Condition {
    /// Parses NX, XX, GT or LT at `argv[at]`. Also returns the index of the next argument.
    fn parse(argv: &[&[u8]], at: usize) -> (Condition, usize) {
        let on = match argv[at].to_ascii_lowercase().as_slice() {
            b"nx" => Condition::Nx,
            b"xx" => Condition::Xx,
            b"gt" => Condition::Gt,
            b"lt" => Condition::Lt,
            _ => return (Condition::Always, at),
        };
        (on, at + 1)
    }

    fn allows(self, old: Option<i64>, new: i64) -> bool {
        match self {
            Condition::Always => true,
            Condition::Nx => old.is_none(),
            Condition::Xx => old.is_some(),
            Condition::Gt => old.is_some_and(|old| new > old),
            Condition::Lt => old.is_none_or(|old| new < old),
        }
    }
}

/// HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
fn hexpire(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    hexpire_generic(ctx, SECONDS, now)
}

/// HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
fn hpexpire(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    hexpire_generic(ctx, MILLISECONDS, now)
}

/// HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
fn hexpireat(ctx: &mut Ctx) -> CmdResult {
    hexpire_generic(ctx, SECONDS, 0)
}

/// HPEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
fn hpexpireat(ctx: &mut Ctx) -> CmdResult {
    hexpire_generic(ctx, MILLISECONDS, 0)
}

fn hexpire_generic(ctx: &mut Ctx, unit: i64, base_ms: i64) -> CmdResult {
    check_type(ctx)?;
    let (argv, key) = (ctx.argv, ctx.argv[1]);
    let at = parse_time(ctx, 2, unit, base_ms)?;
    let (condition, next) = Condition::parse(argv, 3);
    let fields = parse_fields(argv, next, FEW_IN_HEXPIRE)?;
    let past = ctx.is_past(at);
    let (answers, emptied) = write_hash(ctx, key, |hash, limits| {
        let answer = |field: &&[u8]| expire_field(hash, limits, field, at, condition, past);
        Ok(fields.iter().map(answer).collect::<Vec<i64>>())
    })?;
    let wanted = if past { DELETED } else { DONE };
    let all = fields.iter().zip(&answers);
    let changed: Vec<&[u8]> = all
        .filter(|(_, answer)| **answer == wanted)
        .map(|(f, _)| *f)
        .collect();
    ttl_changed(ctx, key, at, &changed, emptied);
    ctx.client.reply.array(answers.len());
    answers
        .iter()
        .for_each(|answer| ctx.client.reply.integer(*answer));
    Ok(())
}

/// Sets the expiry time of one field, or deletes the field if that time is past. Returns the number
/// with which HEXPIRE replies for this field.
fn expire_field(
    hash: &mut Hash,
    limits: &HashLimits,
    field: &[u8],
    at: i64,
    condition: Condition,
    past: bool,
) -> i64 {
    match hash.expire_at(field) {
        None => NO_FIELD,
        Some(old) if !condition.allows(old, at) => NOT_MET,
        Some(_) if past => {
            hash.remove(field);
            DELETED
        }
        Some(_) => {
            hash.set_expire(field, Some(at), limits.seed);
            DONE
        }
    }
}

/// Counts, notifies and propagates that `fields` got the expiry time `at`, or were deleted because
/// `at` is past.
fn ttl_changed(ctx: &mut Ctx, key: &[u8], at: i64, fields: &[&[u8]], emptied: bool) {
    if fields.is_empty() {
        return;
    }
    ctx.dirty(fields.len() as u64);
    if ctx.is_past(at) {
        fields_removed(ctx, key, emptied);
        return propagate(ctx, &[b"HDEL", key], fields);
    }
    ctx.changed(key, events::HASH, "hexpire");
    let (mut time, mut number) = (IntBuf::new(), IntBuf::new());
    let head = [
        b"HPEXPIREAT",
        key,
        time.format(at),
        b"FIELDS",
        number.format(fields.len()),
    ];
    propagate(ctx, &head, fields);
}

/// Propagates the command that consists of `head` and `fields` in place of the client's command.
fn propagate(ctx: &mut Ctx, head: &[&[u8]], fields: &[&[u8]]) {
    if ctx.server.propagation.wanted() {
        ctx.rewrite(&[head, fields].concat());
    }
}

/// HTTL key FIELDS numfields field [field ...]
fn httl(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    httl_generic(ctx, |at| (at - now).max(0).saturating_add(999) / 1000)
}

/// HPTTL key FIELDS numfields field [field ...]
fn hpttl(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    httl_generic(ctx, |at| (at - now).max(0))
}

/// HEXPIRETIME key FIELDS numfields field [field ...]
fn hexpiretime(ctx: &mut Ctx) -> CmdResult {
    httl_generic(ctx, |at| at.saturating_add(999) / 1000)
}

/// HPEXPIRETIME key FIELDS numfields field [field ...]
fn hpexpiretime(ctx: &mut Ctx) -> CmdResult {
    httl_generic(ctx, |at| at)
}

/// Replies with a number for each field: -2 without the field, -1 without an expiry time, otherwise
/// the expiry time as `show` converts it.
fn httl_generic(ctx: &mut Ctx, show: impl Fn(i64) -> i64) -> CmdResult {
    check_type(ctx)?;
    let fields = parse_fields(ctx.argv, 2, FEW)?;
    let hash = read_hash(ctx.server, ctx.client, ctx.argv[1])?;
    let hash = hash.as_deref();
    let reply = &mut ctx.client.reply;
    reply.array(fields.len());
    for field in fields {
        reply.integer(match hash.and_then(|hash| hash.expire_at(field)) {
            None => NO_FIELD,
            Some(None) => NO_TTL,
            Some(Some(at)) => show(at),
        });
    }
    Ok(())
}

/// HPERSIST key FIELDS numfields field [field ...]
fn hpersist(ctx: &mut Ctx) -> CmdResult {
    check_type(ctx)?;
    let key = ctx.argv[1];
    let fields = parse_fields(ctx.argv, 2, FEW)?;
    let (answers, _) = write_hash(ctx, key, |hash, limits| {
        let answer = |field: &&[u8]| persist_field(hash, limits, field);
        Ok(fields.iter().map(answer).collect::<Vec<i64>>())
    })?;
    let changed = answers.iter().filter(|answer| **answer == DONE).count();
    if changed > 0 {
        ctx.dirty(changed as u64);
        ctx.changed(key, events::HASH, "hpersist");
    }
    ctx.client.reply.array(answers.len());
    answers
        .iter()
        .for_each(|answer| ctx.client.reply.integer(*answer));
    Ok(())
}

fn persist_field(hash: &mut Hash, limits: &HashLimits, field: &[u8]) -> i64 {
    match hash.expire_at(field) {
        None => NO_FIELD,
        Some(None) => NO_TTL,
        Some(Some(_)) => {
            hash.set_expire(field, None, limits.seed);
            DONE
        }
    }
}

/// Replies with the values of fields that will be deleted: a repeated field is null the second
/// time.
fn reply_values_once(reply: &mut ReplyBuf, hash: Option<&Hash>, fields: &[&[u8]]) {
    let mut named = HashSet::new();
    reply.array(fields.len());
    for &field in fields {
        let hash = hash.filter(|_| named.insert(field));
        reply_value(reply, hash.and_then(|hash| hash.get(field)));
    }
}

/// HGETDEL key FIELDS numfields field [field ...]
fn hgetdel(ctx: &mut Ctx) -> CmdResult {
    check_type(ctx)?;
    let key = ctx.argv[1];
    let fields = parse_fields(ctx.argv, 2, FEW)?;
    let hash = read_hash(ctx.server, ctx.client, key)?;
    let hash = hash.as_deref();
    reply_values_once(&mut ctx.client.reply, hash, fields);
    let (removed, emptied) = write_hash(ctx, key, |hash, _| {
        let there = |field: &&&[u8]| hash.remove(field);
        Ok(fields.iter().filter(there).copied().collect::<Vec<&[u8]>>())
    })?;
    if !removed.is_empty() {
        ctx.dirty(removed.len() as u64);
        fields_removed(ctx, key, emptied);
        propagate(ctx, &[b"HDEL", key], &removed);
    }
    Ok(())
}

/// The change of a field's expiry time by HGETEX and HSETEX.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiration {
    /// No option: HGETEX leaves the time unchanged, HSETEX removes it.
    Unsaid,
    At(i64),
    /// PERSIST, HGETEX only.
    Persist,
    /// KEEPTTL, HSETEX only.
    Keep,
}

/// The arguments of HGETEX and HSETEX.
struct ExArgs<'a> {
    expiration: Expiration,
    /// HSETEX: true with XX, if the key must exist, and false with NX, if it must not.
    key_exists: Option<bool>,
    /// HSETEX: true with FXX, if all fields must exist, and false with FNX, if no field may exist.
    fields_exist: Option<bool>,
    /// The fields of HGETEX, or the fields and values of HSETEX.
    fields: &'a [&'a [u8]],
}

impl<'a> ExArgs<'a> {
    /// Parses the options of HGETEX or HSETEX in any order, then the `FIELDS` block, which ends the
    /// command. `sets` is true for HSETEX, in which a value follows each field.
    fn parse(ctx: &Ctx<'a>, sets: bool) -> Result<ExArgs<'a>, Error> {
        let argv = ctx.argv;
        let mut args = ExArgs {
            expiration: Expiration::Unsaid,
            key_exists: None,
            fields_exist: None,
            fields: &[],
        };
        let mut at = 2;
        while at < argv.len() {
            let now = ctx.server.clock.now_ms;
            match argv[at].to_ascii_lowercase().as_slice() {
                b"fields" => {
                    args.fields = parse_block(ctx, at, sets)?;
                    break;
                }
                b"nx" if sets => args.if_key_exists(false)?,
                b"xx" if sets => args.if_key_exists(true)?,
                b"fnx" if sets => args.if_fields_exist(false)?,
                b"fxx" if sets => args.if_fields_exist(true)?,
                b"ex" => at = args.parse_time(ctx, at, SECONDS, now, sets)?,
                b"px" => at = args.parse_time(ctx, at, MILLISECONDS, now, sets)?,
                b"exat" => at = args.parse_time(ctx, at, SECONDS, 0, sets)?,
                b"pxat" => at = args.parse_time(ctx, at, MILLISECONDS, 0, sets)?,
                b"keepttl" if sets => args.expire(Expiration::Keep, sets)?,
                b"persist" if !sets => args.expire(Expiration::Persist, sets)?,
                _ if sets => {
                    let word = said(argv[at]);
                    return Err(Error::new(format!("ERR unknown argument: {word}")));
                }
                _ => return Err(NO_FIELDS),
            }
            at += 1;
        }
        match args.fields {
            [] if sets => Err(Error::of("ERR missing FIELDS argument")),
            [] => Err(NO_FIELDS),
            _ => Ok(args),
        }
    }

    fn parse_time(
        &mut self,
        ctx: &Ctx,
        at: usize,
        unit: i64,
        base: i64,
        sets: bool,
    ) -> Result<usize, Error> {
        self.check_unsaid(sets)?;
        let behind = ctx.argv.len() - 1 - at;
        if behind == 0 {
            return Err(Error::of("ERR missing expire time"));
        }
        self.expiration = Expiration::At(parse_time(ctx, at + 1, unit, base)?);
        if !sets && behind < 3 {
            return Err(Error::arity(ctx.cmd.name));
        }
        Ok(at + 1)
    }

    fn expire(&mut self, to: Expiration, sets: bool) -> CmdResult {
        self.check_unsaid(sets)?;
        self.expiration = to;
        Ok(())
    }

    /// An error if an earlier option of HGETEX or HSETEX has set the expiry time.
    fn check_unsaid(&self, sets: bool) -> CmdResult {
        if self.expiration == Expiration::Unsaid {
            return Ok(());
        }
        Err(match sets {
            true => Error::of(
                "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            ),
            false => NO_FIELDS,
        })
    }

    /// NX or XX of HSETEX: each may be repeated, as in Valkey.
    fn if_key_exists(&mut self, exists: bool) -> CmdResult {
        match self.key_exists.replace(exists) {
            Some(said) if said != exists => Err(Error::SYNTAX),
            _ => Ok(()),
        }
    }

    /// FNX or FXX of HSETEX: only one of the two may be given, and only once, as in Redis.
    fn if_fields_exist(&mut self, exist: bool) -> CmdResult {
        match self.fields_exist.replace(exist) {
            Some(_) => Err(Error::of(
                "ERR Only one of FXX or FNX arguments can be specified",
            )),
            None => Ok(()),
        }
    }
}

/// Parses `FIELDS numfields ...` of HGETEX or HSETEX, from `at` to the end. Arguments after the
/// fields get the error for too many fields.
fn parse_block<'a>(ctx: &Ctx<'a>, at: usize, sets: bool) -> Result<&'a [&'a [u8]], Error> {
    let argv = ctx.argv;
    let (few, most, width) = match sets {
        true => ("ERR invalid number of fields", i32::MAX.into(), 2),
        false => (FEW, i64::MAX, 1),
    };
    // HSETEX requires a number, a field and a value before it parses any of them.
    let number = argv[at + 1..]
        .first()
        .filter(|_| !sets || argv.len() - at > 3);
    let number = number.ok_or_else(|| Error::arity(ctx.cmd.name))?;
    let number = parse_i64(number).filter(|n| (1..=most).contains(n));
    let number = number.ok_or(Error::of(few))?;
    let len = usize::try_from(number)
        .ok()
        .and_then(|n| n.checked_mul(width));
    let fields = &argv[at + 2..];
    match sets {
        _ if Some(fields.len()) == len => Ok(fields),
        true => Err(Error::arity("hsetex")),
        false => Err(MISCOUNT),
    }
}

/// HGETEX key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds
/// | PERSIST] FIELDS numfields field [field ...]
fn hgetex(ctx: &mut Ctx) -> CmdResult {
    check_type(ctx)?;
    let key = ctx.argv[1];
    let args = ExArgs::parse(ctx, false)?;
    let goes = matches!(args.expiration, Expiration::At(at) if ctx.is_past(at));
    let hash = read_hash(ctx.server, ctx.client, key)?;
    let hash = hash.as_deref();
    let reply = &mut ctx.client.reply;
    match goes {
        true => reply_values_once(reply, hash, args.fields),
        false => reply_values(reply, hash, args.fields),
    }
    match args.expiration {
        Expiration::At(at) => {
            let (changed, emptied) =
                change_fields(ctx, key, args.fields, |hash, limits, field| {
                    expire_field(hash, limits, field, at, Condition::Always, goes) > 0
                })?;
            ttl_changed(ctx, key, at, &changed, emptied);
        }
        Expiration::Persist => {
            let (changed, _) = change_fields(ctx, key, args.fields, |hash, limits, field| {
                persist_field(hash, limits, field) == DONE
            })?;
            if !changed.is_empty() {
                ctx.dirty(changed.len() as u64);
                ctx.changed(key, events::HASH, "hpersist");
                let mut number = IntBuf::new();
                let head = [b"HPERSIST", key, b"FIELDS", number.format(changed.len())];
                propagate(ctx, &head, &changed);
            }
        }
        Expiration::Unsaid | Expiration::Keep => {}
    }
    Ok(())
}

/// Changes the fields of a hash one by one. Returns the fields for which `change` returned true,
/// and whether the key was deleted.
fn change_fields<'a>(
    ctx: &mut Ctx,
    key: &[u8],
    fields: &[&'a [u8]],
    change: impl Fn(&mut Hash, &HashLimits, &[u8]) -> bool,
) -> Result<(Vec<&'a [u8]>, bool), Error> {
    write_hash(ctx, key, |hash, limits| {
        let changed = |field: &&&[u8]| change(hash, limits, field);
        Ok(fields.iter().filter(changed).copied().collect())
    })
}

/// HSETEX key [NX | XX] [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds |
/// PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]
fn hsetex(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let args = ExArgs::parse(ctx, true)?;
    let (pairs, _) = args.fields.as_chunks::<2>();
    let past = matches!(args.expiration, Expiration::At(at) if ctx.is_past(at));
    let ((done, existed), emptied) = write_hash(ctx, key, |hash, limits| {
        let exists = !hash.is_empty();
        let allowed = args.key_exists.is_none_or(|wanted| wanted == exists)
            && args.fields_exist.is_none_or(|wanted| {
                pairs
                    .iter()
                    .all(|[field, _]| hash.contains(field) == wanted)
            });
        if allowed {
            set_pairs(hash, limits, pairs, args.expiration, past);
        }
        Ok((allowed, exists))
    })?;
    if done {
        ctx.dirty(pairs.len() as u64);
        ctx.changed(key, events::HASH, "hset");
        // With an expiry time in the past, HSETEX creates a key that is deleted at once: its `del`
        // is notified, too.
        finish_hsetex(ctx, key, &args, past, emptied || past && !existed);
    }
    ctx.client.reply.integer(done as i64);
    Ok(())
}

fn set_pairs(
    hash: &mut Hash,
    limits: &HashLimits,
    pairs: &[[&[u8]; 2]],
    expiration: Expiration,
    past: bool,
) {
    let ttl = match expiration {
        Expiration::At(at) => FieldTtl::At(at),
        Expiration::Keep => FieldTtl::Keep,
        Expiration::Unsaid | Expiration::Persist => FieldTtl::Clear,
    };
    hash.expect(pairs.len(), limits);
    for [field, value] in pairs {
        if past {
            hash.remove(field);
        } else {
            hash.set(field, value, ttl, limits);
        }
    }
}

/// Notifies and propagates a HSETEX that changed something.
fn finish_hsetex(ctx: &mut Ctx, key: &[u8], args: &ExArgs, past: bool, emptied: bool) {
    let mut time = IntBuf::new();
    let (option, at): (&[u8], _) = match args.expiration {
        Expiration::At(_) if past => {
            fields_removed(ctx, key, emptied);
            let names: Vec<&[u8]> = args.fields.iter().copied().step_by(2).collect();
            return propagate(ctx, &[b"HDEL", key], &names);
        }
        Expiration::At(at) => {
            let db = ctx.client.db;
            ctx.server.notify(events::HASH, "hexpire", key, db);
            (b"PXAT", Some(time.format(at)))
        }
        Expiration::Keep => (b"KEEPTTL", None),
        Expiration::Unsaid | Expiration::Persist => {
            return propagate(ctx, &[b"HSET", key], args.fields);
        }
    };
    let mut number = IntBuf::new();
    let mut head = vec![b"HSETEX", key, option];
    head.extend(at);
    head.extend([b"FIELDS", number.format(args.fields.len() / 2)]);
    propagate(ctx, &head, args.fields);
}
