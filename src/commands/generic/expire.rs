//! Times to live of keys. Commands come in four forms (seconds or milliseconds, from now or since
//! 1970). EXPIRE and its variants are propagated as `PEXPIREAT key unix-time-ms`, so that the
//! expiry time does not depend on when the command is replayed.

use crate::command::ctx::{CmdResult, Ctx};
use crate::error::{Error, said};
use crate::keyspace::events;

/// The length of a second, the unit of EXPIRE's argument, in milliseconds.
const SECONDS: i64 = 1000;
const MILLISECONDS: i64 = 1;

/// The conditions of EXPIRE.
#[derive(Clone, Copy, Default)]
struct Conditions {
    /// NX: sets the time only of keys without an expiry time.
    nx: bool,
    /// XX: sets the time only of keys that have an expiry time.
    xx: bool,
    /// GT: sets the time only if it is later than the key's present expiry time; a key without one
    /// lives for ever.
    gt: bool,
    /// LT: sets the time only if it is earlier than the key's present expiry time.
    lt: bool,
}

impl Conditions {
    fn parse(argv: &[&[u8]]) -> Result<Conditions, Error> {
        let mut on = Conditions::default();
        for option in argv {
            match option.to_ascii_lowercase().as_slice() {
                b"nx" => on.nx = true,
                b"xx" => on.xx = true,
                b"gt" => on.gt = true,
                b"lt" => on.lt = true,
                _ => {
                    return Err(Error::new(format!(
                        "ERR Unsupported option {}",
                        said(option)
                    )));
                }
            }
        }
        if on.nx && (on.xx || on.gt || on.lt) {
            return Err(Error::of(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if on.gt && on.lt {
            return Err(Error::of(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(on)
    }

    fn allow(self, old: Option<i64>, new: i64) -> bool {
        match old {
            None => !self.xx && !self.gt,
            Some(old) => {
                let refused = self.nx || (self.gt && new <= old) || (self.lt && new >= old);
                !refused
            }
        }
    }
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub fn expire(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    expire_generic(ctx, SECONDS, now)
}

/// EXPIREAT key unix-time-seconds [NX | XX | GT | LT]
pub fn expireat(ctx: &mut Ctx) -> CmdResult {
    expire_generic(ctx, SECONDS, 0)
}

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub fn pexpire(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    expire_generic(ctx, MILLISECONDS, now)
}

/// PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]
pub fn pexpireat(ctx: &mut Ctx) -> CmdResult {
    expire_generic(ctx, MILLISECONDS, 0)
}

fn expire_generic(ctx: &mut Ctx, unit: i64, base_ms: i64) -> CmdResult {
    let key = ctx.argv[1];
    let conditions = Conditions::parse(&ctx.argv[3..])?;
    let at = ctx
        .int(2)?
        .checked_mul(unit)
        .and_then(|ms| ms.checked_add(base_ms))
        .ok_or_else(|| Error::invalid_expire(ctx.cmd.name))?;
    let allowed = match ctx.server.lookup_write(ctx.client, key) {
        Some(entry) => conditions.allow(entry.as_ref().expire_at(), at),
        None => false,
    };
    if !allowed {
        ctx.client.reply.integer(0);
        return Ok(());
    }
    if ctx.is_past(at) {
        delete_at_once(ctx, key);
    } else {
        set_expire(ctx, key, at);
    }
    ctx.dirty(1);
    ctx.client.reply.integer(1);
    Ok(())
}

/// Deletes a key that gets an expiry time in the past, and propagates the deletion in place of the
/// command.
fn delete_at_once(ctx: &mut Ctx, key: &[u8]) {
    let lazy = ctx.server.config.lazyfree_lazy_expire;
    ctx.server.delete_key(ctx.client.db, key, lazy);
    let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
    ctx.rewrite(&[verb, key]);
    ctx.changed(key, events::GENERIC, "del");
}

fn set_expire(ctx: &mut Ctx, key: &[u8], at: i64) {
    let hash = ctx.server.hash_key(key);
    ctx.db().set_expire(hash, key, Some(at));
    ctx.note_expiry(key, at);
    if ctx.server.propagation.wanted() {
        let at = at.to_string();
        let mut rewritten: Vec<&[u8]> = vec![b"PEXPIREAT", key, at.as_bytes()];
        rewritten.extend_from_slice(&ctx.argv[3..]);
        ctx.rewrite(&rewritten);
    }
    ctx.changed(key, events::GENERIC, "expire");
}

/// PERSIST key
pub fn persist(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let volatile = ctx
        .server
        .lookup_write(ctx.client, key)
        .is_some_and(|entry| entry.as_ref().has_expire());
    if volatile {
        let hash = ctx.server.hash_key(key);
        ctx.db().set_expire(hash, key, None);
        ctx.changed(key, events::GENERIC, "persist");
        ctx.dirty(1);
    }
    ctx.client.reply.integer(volatile as i64);
    Ok(())
}

/// TTL key
pub fn ttl(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    expiry_generic(ctx, |at| rounded_seconds((at - now).max(0)))
}

/// PTTL key
pub fn pttl(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_ms;
    expiry_generic(ctx, |at| (at - now).max(0))
}

/// EXPIRETIME key
pub fn expiretime(ctx: &mut Ctx) -> CmdResult {
    expiry_generic(ctx, rounded_seconds)
}

/// PEXPIRETIME key
pub fn pexpiretime(ctx: &mut Ctx) -> CmdResult {
    expiry_generic(ctx, |at| at)
}

/// Replies with -2 without the key, with -1 without an expiry time, otherwise with the expiry time
/// as `show` converts it.
fn expiry_generic(ctx: &mut Ctx, show: impl FnOnce(i64) -> i64) -> CmdResult {
    let answer = match ctx.server.lookup_peek(ctx.client, ctx.argv[1]) {
        None => -2,
        Some(entry) => entry.expire_at().map_or(-1, show),
    };
    ctx.client.reply.integer(answer);
    Ok(())
}

fn rounded_seconds(ms: i64) -> i64 {
    ms / 1000 + (ms % 1000 >= 500) as i64
}
