//! SET and its variants: commands that replace a value, or read or remove it with a condition.
//!
//! ```text
//!   SET      key value  [NX | XX | IFEQ v] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
//!   GETEX    key                                 [EX s | PX ms | EXAT s | PXAT ms | PERSIST]
//!   MSETEX   n key value ...  [NX | XX]          [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
//! ```
//!
//! One parser, [`SetOptions::parse`], parses the options of SET, GETEX and MSETEX. An option may be
//! repeated, and the last one counts; contradictory options are a syntax error. The number of a
//! time to live is parsed only when it is needed, so GETEX of a missing key does not report an
//! invalid one.
//!
//! With an expiry time in the past, SET and GETEX delete the key, and propagate DEL or UNLINK:
//! replicas and the AOF never get a key that has expired already.

use super::{equals, get_generic, store};
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::types::string::StrView;
use crate::util::number::IntBuf;

/// The condition under which SET replaces a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Always,
    /// NX: the key must not exist.
    Absent,
    /// XX: the key must exist.
    Present,
    /// IFEQ: the key's value must equal this string.
    Equal(&'a [u8]),
}

/// An option EX, PX, EXAT or PXAT: its unit, whether it is relative to the present, and the index
/// in argv of its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpireArg {
    pub at: usize,
    pub seconds: bool,
    pub relative: bool,
}

/// The option of SET or a similar command that determines the key's time to live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    Unsaid,
    Keep,
    Persist,
    Expire(ExpireArg),
}

/// The command whose options are parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Set,
    GetEx,
    MSetEx,
}

pub(super) struct SetOptions<'a> {
    pub condition: Condition<'a>,
    pub get: bool,
    pub lifetime: Lifetime,
}

impl<'a> SetOptions<'a> {
    /// Parses the options of SET, GETEX or MSETEX, from `argv[from]` to the end.
    pub fn parse(ctx: &Ctx<'a>, from: usize, syntax: Syntax) -> Result<SetOptions<'a>, Error> {
        let mut options = SetOptions {
            condition: Condition::Always,
            get: false,
            lifetime: Lifetime::Unsaid,
        };
        let mut at = from;
        while at < ctx.argv.len() {
            at += options.parse_one(ctx, at, syntax).ok_or(Error::SYNTAX)?;
        }
        Ok(options)
    }

    /// Parses the option `argv[at]`. Returns the number of arguments that the option takes, itself
    /// included, or `None` if the option is not allowed.
    fn parse_one(&mut self, ctx: &Ctx<'a>, at: usize, syntax: Syntax) -> Option<usize> {
        let sets = syntax != Syntax::GetEx;
        if let Some(arg) = ExpireArg::parse(ctx, at) {
            self.say(Lifetime::Expire(arg))?;
            return Some(2);
        }
        if sets && ctx.is(at, "nx") {
            self.demand(Condition::Absent)?;
        } else if sets && ctx.is(at, "xx") {
            self.demand(Condition::Present)?;
        } else if sets && ctx.is(at, "keepttl") {
            self.say(Lifetime::Keep)?;
        } else if syntax == Syntax::GetEx && ctx.is(at, "persist") {
            self.say(Lifetime::Persist)?;
        } else if syntax == Syntax::Set && ctx.is(at, "get") {
            self.get = true;
        } else if syntax == Syntax::Set && ctx.is(at, "ifeq") {
            if self.condition != Condition::Always {
                return None;
            }
            self.condition = Condition::Equal(ctx.argv.get(at + 1)?);
            return Some(2);
        } else {
            return None;
        }
        Some(1)
    }

    fn demand(&mut self, condition: Condition<'a>) -> Option<()> {
        let agrees = self.condition == Condition::Always || self.condition == condition;
        self.condition = condition;
        agrees.then_some(())
    }

    fn say(&mut self, lifetime: Lifetime) -> Option<()> {
        let agrees = match (self.lifetime, lifetime) {
            (Lifetime::Unsaid, _) => true,
            (Lifetime::Expire(a), Lifetime::Expire(b)) => {
                (a.seconds, a.relative) == (b.seconds, b.relative)
            }
            (said, lifetime) => said == lifetime,
        };
        self.lifetime = lifetime;
        agrees.then_some(())
    }
}

impl ExpireArg {
    /// Parses `argv[at]`, if it is EX, PX, EXAT or PXAT and an argument follows.
    fn parse(ctx: &Ctx, at: usize) -> Option<ExpireArg> {
        if at + 1 == ctx.argv.len() {
            return None;
        }
        let (seconds, relative) = match ctx.argv[at].len() {
            2 if ctx.is(at, "ex") => (true, true),
            2 if ctx.is(at, "px") => (false, true),
            4 if ctx.is(at, "exat") => (true, false),
            4 if ctx.is(at, "pxat") => (false, false),
            _ => return None,
        };
        Some(ExpireArg {
            at: at + 1,
            seconds,
            relative,
        })
    }

    /// The expiry time as Unix milliseconds; an error if the option's number is not positive or the
    /// time overflows.
    pub fn deadline(self, ctx: &Ctx) -> Result<i64, Error> {
        let n = ctx.int(self.at)?;
        let unit = if self.seconds { 1000 } else { 1 };
        let start = if self.relative {
            ctx.server.clock.now_ms
        } else {
            0
        };
        Some(n)
            .filter(|&n| n > 0)
            .and_then(|n| n.checked_mul(unit)?.checked_add(start))
            .ok_or_else(|| Error::invalid_expire(ctx.cmd.name))
    }
}

impl Lifetime {
    /// The effect of the option on the key's expiry time.
    pub fn ttl(self, ctx: &Ctx) -> Result<Ttl, Error> {
        Ok(match self {
            Lifetime::Unsaid | Lifetime::Persist => Ttl::Clear,
            Lifetime::Keep => Ttl::Keep,
            Lifetime::Expire(arg) => Ttl::At(arg.deadline(ctx)?),
        })
    }
}

/// SET key value [NX | XX | IFEQ comparison-value] [GET]
///     [EX seconds | PX milliseconds | EXAT unix-time-seconds |
///     PXAT unix-time-milliseconds | KEEPTTL]
pub(super) fn set(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 3 {
        return set_with_options(ctx);
    }
    store(ctx, ctx.argv[1], 2, Ttl::Clear);
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}

fn set_with_options(ctx: &mut Ctx) -> CmdResult {
    let options = SetOptions::parse(ctx, 3, Syntax::Set)?;
    let ttl = options.lifetime.ttl(ctx)?;
    if options.get {
        get_generic(ctx, ctx.argv[1])?;
    }
    let is_set = holds(ctx, ctx.argv[1], options.condition)?;
    if is_set {
        store_until(ctx, 2, ttl);
        propagate_set(ctx, &options, ttl);
    }
    match (options.get, is_set) {
        (true, _) => {}
        (false, true) => ctx.client.reply.ok(),
        (false, false) => ctx.client.reply.null(),
    }
    Ok(())
}

/// Whether the condition of SET holds; without a condition the key is not looked up.
pub(super) fn holds(ctx: &mut Ctx, key: &[u8], condition: Condition) -> Result<bool, Error> {
    match condition {
        Condition::Always => Ok(true),
        Condition::Absent => Ok(ctx.server.lookup_write(ctx.client, key).is_none()),
        Condition::Present => Ok(ctx.server.lookup_write(ctx.client, key).is_some()),
        Condition::Equal(wanted) => equals(ctx, key, wanted),
    }
}

/// Sets the key `argv[1]` to the string `argv[value_at]`, or deletes the key if the new expiry time
/// is past.
fn store_until(ctx: &mut Ctx, value_at: usize, ttl: Ttl) {
    let key = ctx.argv[1];
    match ttl {
        Ttl::At(at) if ctx.is_past(at) => {
            if ctx.server.lookup_write(ctx.client, key).is_some() {
                delete_expired_on_arrival(ctx, key);
            }
            return;
        }
        Ttl::At(at) => {
            store(ctx, key, value_at, ttl);
            ctx.note_expiry(key, at);
            ctx.server
                .notify(events::GENERIC, "expire", key, ctx.client.db);
        }
        Ttl::Keep | Ttl::Clear => store(ctx, key, value_at, ttl),
    }
    ctx.dirty(1);
}

/// Deletes a key whose new expiry time is past.
pub(super) fn delete_expired_on_arrival(ctx: &mut Ctx, key: &[u8]) {
    let lazy = ctx.server.config.lazyfree_lazy_expire;
    ctx.server.delete_key(ctx.client.db, key, lazy);
    ctx.rewrite(&[if lazy { b"UNLINK" as &[u8] } else { b"DEL" }, key]);
    ctx.changed(key, events::GENERIC, "del");
    ctx.dirty(1);
}

/// Propagates a SET that has set its key. The expiry time replaces a time to live. GET, whose reply
/// is not needed, is removed unless the command has PXAT, and IFEQ, which older servers don't have,
/// is always removed.
fn propagate_set(ctx: &mut Ctx, options: &SetOptions, ttl: Ttl) {
    if !ctx.server.propagation.wanted() {
        return;
    }
    let (argv, ifeq) = (ctx.argv, matches!(options.condition, Condition::Equal(_)));
    match (options.lifetime, ttl) {
        (Lifetime::Expire(arg), Ttl::At(at)) => {
            let as_sent = !arg.relative && !arg.seconds && !ifeq;
            if !as_sent && !ctx.is_past(at) {
                rewrite_as_set(ctx, 2, at);
            }
        }
        (Lifetime::Keep, _) if ifeq => {
            ctx.rewrite(&[b"SET" as &[u8], argv[1], argv[2], b"KEEPTTL"])
        }
        _ if ifeq => ctx.rewrite(&argv[..3]),
        _ if options.get => {
            let is_get = |arg: &[u8]| arg.eq_ignore_ascii_case(b"get");
            let rest = argv[3..].iter().filter(|arg| !is_get(arg));
            let rewritten: Vec<&[u8]> = argv[..3].iter().chain(rest).copied().collect();
            ctx.rewrite(&rewritten);
        }
        _ => {}
    }
}

fn rewrite_as_set(ctx: &mut Ctx, value_at: usize, at_ms: i64) {
    if ctx.server.propagation.wanted() {
        let (key, value) = (ctx.argv[1], ctx.argv[value_at]);
        let mut digits = IntBuf::new();
        ctx.rewrite(&[b"SET", key, value, b"PXAT", digits.format(at_ms)]);
    }
}

/// SETNX key value
pub(super) fn setnx(ctx: &mut Ctx) -> CmdResult {
    let is_set = holds(ctx, ctx.argv[1], Condition::Absent)?;
    if is_set {
        store(ctx, ctx.argv[1], 2, Ttl::Clear);
        ctx.dirty(1);
    }
    ctx.client.reply.integer(is_set as i64);
    Ok(())
}

/// SETEX key seconds value
pub(super) fn setex(ctx: &mut Ctx) -> CmdResult {
    setex_generic(ctx, true)
}

/// PSETEX key milliseconds value
pub(super) fn psetex(ctx: &mut Ctx) -> CmdResult {
    setex_generic(ctx, false)
}

fn setex_generic(ctx: &mut Ctx, seconds: bool) -> CmdResult {
    let at = ExpireArg {
        at: 2,
        seconds,
        relative: true,
    }
    .deadline(ctx)?;
    store_until(ctx, 3, Ttl::At(at));
    rewrite_as_set(ctx, 3, at);
    ctx.client.reply.ok();
    Ok(())
}

/// GETSET key value
pub(super) fn getset(ctx: &mut Ctx) -> CmdResult {
    let (key, argv) = (ctx.argv[1], ctx.argv);
    get_generic(ctx, key)?;
    store(ctx, key, 2, Ttl::Clear);
    ctx.dirty(1);
    ctx.rewrite(&[b"SET", key, argv[2]]);
    Ok(())
}

/// GETDEL key
pub(super) fn getdel(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    if get_generic(ctx, key)? {
        delete(ctx, key);
    }
    Ok(())
}

/// DELIFEQ key value
pub(super) fn delifeq(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let is_equal = equals(ctx, key, ctx.argv[2])?;
    if is_equal {
        delete(ctx, key);
    }
    ctx.client.reply.integer(is_equal as i64);
    Ok(())
}

/// Deletes the string of GETDEL or DELIFEQ, and propagates DEL.
fn delete(ctx: &mut Ctx, key: &[u8]) {
    ctx.server.delete_key(ctx.client.db, key, false);
    ctx.rewrite(&[b"DEL", key]);
    ctx.changed(key, events::GENERIC, "del");
    ctx.dirty(1);
}

/// GETEX key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds |
/// PERSIST]
pub(super) fn getex(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let lifetime = SetOptions::parse(ctx, 2, Syntax::GetEx)?.lifetime;
    if let Lifetime::Expire(arg) = lifetime {
        match arg.deadline(ctx) {
            Ok(at) if get_generic(ctx, key)? => expire(ctx, key, at),
            Ok(_) => {}
            Err(error) => return refuse_lifetime(ctx, key, error),
        }
    } else if get_generic(ctx, key)? && lifetime == Lifetime::Persist {
        persist(ctx, key);
    }
    Ok(())
}

/// Called when GETEX has an invalid time to live, which is an error only if the string exists.
fn refuse_lifetime(ctx: &mut Ctx, key: &[u8], error: Error) -> CmdResult {
    match ctx.server.lookup_read(ctx.client, key) {
        None => {
            ctx.client.reply.null();
            Ok(())
        }
        Some(entry) => StrView::of(entry).and(Err(error)),
    }
}

fn expire(ctx: &mut Ctx, key: &[u8], at_ms: i64) {
    if ctx.is_past(at_ms) {
        return delete_expired_on_arrival(ctx, key);
    }
    let hash = ctx.server.hash_key(key);
    ctx.db().set_expire(hash, key, Some(at_ms));
    ctx.note_expiry(key, at_ms);
    ctx.rewrite(&[b"PEXPIREAT", key, IntBuf::new().format(at_ms)]);
    ctx.changed(key, events::GENERIC, "expire");
    ctx.dirty(1);
}

fn persist(ctx: &mut Ctx, key: &[u8]) {
    let hash = ctx.server.hash_key(key);
    if ctx
        .db()
        .find(hash, key)
        .is_none_or(|entry| !entry.has_expire())
    {
        return;
    }
    ctx.db().set_expire(hash, key, None);
    ctx.rewrite(&[b"PERSIST", key]);
    ctx.changed(key, events::GENERIC, "persist");
    ctx.dirty(1);
}
