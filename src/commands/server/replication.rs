//! REPLICAOF, FAILOVER, and the commands that a replica sends to its primary: REPLCONF, PSYNC,
//! SYNC.
//!
//! Replication is not built yet. What needs none is answered as by a primary without replicas:
//! REPLICAOF NO ONE, the arguments of FAILOVER; everything else is refused with [`NO_REPLICATION`].

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::{Error, said};

pub const TABLE: &[Command] = &[
    cmd(
        "failover",
        failover,
        -1,
        ADMIN | NOSCRIPT | STALE | NOT_BUILT,
        NONE_CAT,
    ),
    cmd("psync", sync, -3, SYNCHRONIZE, NONE_CAT),
    cmd(
        "replconf",
        replconf,
        -1,
        ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY | NOT_BUILT,
        NONE_CAT,
    ),
    cmd("replicaof", replicaof, 3, ATTACH, NONE_CAT),
    cmd("slaveof", replicaof, 3, ATTACH, NONE_CAT),
    cmd("sync", sync, 1, SYNCHRONIZE, NONE_CAT),
];

const SYNCHRONIZE: Flags = ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI | NOT_BUILT;
const ATTACH: Flags = ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING | NOT_BUILT;

const NO_REPLICATION: Error = Error::of("ERR Replication is not supported yet");

/// REPLICAOF host port | NO ONE
fn replicaof(ctx: &mut Ctx) -> CmdResult {
    if ctx.is(1, "no") && ctx.is(2, "one") {
        ctx.client.reply.ok();
        return Ok(());
    }
    ctx.int_in(2, 0, u16::MAX.into(), "ERR Invalid master port")?;
    Err(NO_REPLICATION)
}

/// FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]: there is no replica that could
/// take over.
fn failover(ctx: &mut Ctx) -> CmdResult {
    let argc = ctx.argv.len();
    if argc == 2 && ctx.is(1, "abort") {
        return Err(Error::of("ERR No failover in progress."));
    }
    let (mut timeout, mut to, mut force) = (false, false, false);
    let mut at = 1;
    while at < argc {
        if ctx.is(at, "timeout") && at + 1 < argc && !timeout {
            if ctx.int(at + 1)? <= 0 {
                return Err(Error::of("ERR FAILOVER timeout must be greater than 0"));
            }
            timeout = true;
            at += 2;
        } else if ctx.is(at, "to") && at + 2 < argc && !to {
            ctx.int(at + 2)?;
            to = true;
            at += 3;
        } else if ctx.is(at, "force") && !force {
            force = true;
            at += 1;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    Err(Error::of("ERR FAILOVER requires connected replicas."))
}

/// REPLCONF [option value ...]
fn replconf(ctx: &mut Ctx) -> CmdResult {
    const OPTIONS: [&str; 8] = [
        "listening-port",
        "ip-address",
        "capa",
        "ack",
        "getack",
        "rdb-only",
        "rdb-filter-only",
        "rdb-channel",
    ];
    let options = &ctx.argv[1..];
    if options.is_empty() {
        ctx.client.reply.ok();
        return Ok(());
    }
    if !options.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let known = |name: &[u8]| {
        let is = |option: &&str| name.eq_ignore_ascii_case(option.as_bytes());
        OPTIONS.iter().any(is)
    };
    match options.chunks_exact(2).find(|pair| !known(pair[0])) {
        Some(pair) => Err(Error::new(format!(
            "ERR Unrecognized REPLCONF option: {}",
            said(pair[0])
        ))),
        None => Err(NO_REPLICATION),
    }
}

/// SYNC, PSYNC replicationid offset
fn sync(_: &mut Ctx) -> CmdResult {
    Err(NO_REPLICATION)
}
