//! DUMP and RESTORE: a value as bytes that a client can store or send to another server.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::config::{RdbVersionCheck, SanitizeDumpPayload};
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::persist::rdb::Limits;
use crate::persist::rdb::decode::Fault;
use crate::persist::rdb::payload::{self, Checks};
use crate::types::New;
use crate::util::number::parse_i64;

/// DUMP key
pub fn dump(ctx: &mut Ctx) -> CmdResult {
    let config = &ctx.server.config;
    let (version, compress) = (config.rdb_version.number(), config.rdbcompression);
    match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        Some(entry) => {
            let bytes = payload::dump(entry, version, compress);
            ctx.client.reply.bulk(&bytes);
        }
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// The options of RESTORE.
#[derive(Default)]
struct RestoreOptions {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<i64>,
    frequency: Option<u8>,
}

impl RestoreOptions {
    fn parse(ctx: &Ctx) -> Result<RestoreOptions, Error> {
        let mut options = RestoreOptions::default();
        let mut at = 4;
        while at < ctx.argv.len() {
            let has_value = at + 1 < ctx.argv.len();
            if ctx.is(at, "replace") {
                options.replace = true;
            } else if ctx.is(at, "absttl") {
                options.absolute = true;
            } else if ctx.is(at, "idletime") && has_value && options.frequency.is_none() {
                let seconds = ctx.int(at + 1)?;
                if seconds < 0 {
                    return Err(Error::of("ERR Invalid IDLETIME value, must be >= 0"));
                }
                options.idle_seconds = Some(seconds);
                at += 1;
            } else if ctx.is(at, "freq") && has_value && options.idle_seconds.is_none() {
                let counter = u8::try_from(ctx.int(at + 1)?);
                let wrong = Error::of("ERR Invalid FREQ value, must be >= 0 and <= 255");
                options.frequency = Some(counter.map_err(|_| wrong)?);
                at += 1;
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]
pub fn restore(ctx: &mut Ctx) -> CmdResult {
    let options = RestoreOptions::parse(ctx)?;
    let key = ctx.argv[1];
    if !options.replace && ctx.server.lookup_write(ctx.client, key).is_some() {
        return Err(Error::of("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_i64(ctx.argv[2]).ok_or(Error::NOT_INTEGER)?;
    if ttl < 0 {
        return Err(Error::of("ERR Invalid TTL value, must be >= 0"));
    }
    let expire_at = match (ttl, options.absolute) {
        (0, _) => None,
        (ttl, true) => Some(ttl),
        (ttl, false) => Some(ttl.saturating_add(ctx.server.clock.now_ms)),
    };
    let checks = checks(ctx);
    let Some((version, body)) = payload::open(ctx.argv[3], checks) else {
        return Err(Error::of("ERR DUMP payload version or checksum are wrong"));
    };
    let mut limits = Limits::of(ctx.server);
    // Inconsistent values are refused in RESTORE of a client, but repaired in the server's own AOF,
    // unless `sanitize-dump-payload` is `yes`: older versions of Redis may have written them.
    limits.sanitize |= !ctx.client.has(flag::AOF_LOADER);
    let mut blocks = 0;
    let stored = payload::restore(version, body, limits, &mut blocks, |kind, value| {
        store(ctx, &options, expire_at, kind, value);
    });
    if is_sanitized(ctx) {
        ctx.server.stats.dump_payload_sanitizations += blocks;
    }
    stored.map_err(|fault| {
        payload::log_fault(&fault);
        ctx.server.aof.lost_key |= ctx.client.has(flag::AOF_LOADER);
        match fault {
            Fault::Foreign(_) => Error::new(format!("ERR {fault}")),
            _ => Error::BAD_FORMAT,
        }
    })
}

/// Whether `sanitize-dump-payload` and the client's user demand a check of the payload. Every
/// payload is checked in depth; `sanitize-dump-payload` only decides whether the check is counted.
fn is_sanitized(ctx: &Ctx) -> bool {
    match ctx.server.config.sanitize_dump_payload {
        SanitizeDumpPayload::No => false,
        SanitizeDumpPayload::Yes => true,
        SanitizeDumpPayload::Clients => {
            let user = ctx.server.acl.user(ctx.client.user);
            !ctx.client.replays() && user.is_none_or(|user| user.sanitize_payload)
        }
    }
}

fn checks(ctx: &Ctx) -> Checks {
    let config = &ctx.server.config;
    Checks {
        any_version: config.rdb_version_check == RdbVersionCheck::Relaxed,
        skip_checksum: ctx.server.debug.skip_checksum,
    }
}

/// Stores the value of RESTORE under its key. If the expiry time is past, the key is deleted
/// instead.
fn store(ctx: &mut Ctx, options: &RestoreOptions, expire_at: Option<i64>, kind: u8, value: New) {
    let (key, db) = (ctx.argv[1], ctx.client.db);
    let lazy = ctx.server.config.lazyfree_lazy_server_del;
    let deleted = options.replace && ctx.server.delete_key(db, key, lazy);
    ctx.client.reply.ok();
    if expire_at.is_some_and(|at| ctx.is_past(at)) {
        if deleted {
            let name: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
            ctx.rewrite(&[name, key]);
            ctx.changed(key, events::GENERIC, "del");
            ctx.dirty(1);
        }
        return;
    }
    let ttl = expire_at.map_or(Ttl::Clear, Ttl::At);
    ctx.server.set_key(db, key, kind, value, ttl);
    if let Some(at) = expire_at {
        ctx.note_expiry(key, at);
    }
    note_use(ctx, options);
    if let Some(at) = expire_at
        && !options.absolute
    {
        let at = at.to_string();
        let mut rewritten: Vec<&[u8]> = ctx.argv.to_vec();
        rewritten[2] = at.as_bytes();
        rewritten.push(b"ABSTTL");
        ctx.rewrite(&rewritten);
    }
    ctx.changed(key, events::GENERIC, "restore");
    ctx.dirty(1);
}

/// Applies IDLETIME and FREQ of RESTORE, if the eviction policy uses them.
fn note_use(ctx: &mut Ctx, options: &RestoreOptions) {
    let (evict, now) = (&ctx.server.evict, ctx.server.clock.now_ms);
    let lru = match (options.frequency, options.idle_seconds) {
        (Some(counter), _) if evict.is_lfu() => evict.stamp_frequency(counter, now),
        (_, Some(seconds)) if !evict.is_lfu() => {
            evict.stamp_idle(u32::try_from(seconds).unwrap_or(u32::MAX), now)
        }
        _ => return,
    };
    let (db, key) = (ctx.client.db, ctx.argv[1]);
    let hash = ctx.server.hash_key(key);
    if let Some(mut entry) = ctx.server.db(db).find_mut(hash, key) {
        entry.set_lru(lru);
    }
}
