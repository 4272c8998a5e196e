//! WAIT and WAITAOF: wait until replicas, or the disk, have what this client wrote.
//!
//! If enough replicas have acknowledged the client's writes already, WAIT replies at once. If not
//! enough replicas have, the client is blocked until enough acknowledgements arrive or its timeout
//! passes; the reply contains the number of acknowledgements at that time.

use crate::client::blocked::BlockKind;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::wait::{
    WAITAOF_WITHOUT_AOF, replica_acks, reply_wait, reply_waitaof, waitaof_is_met,
};
use crate::util::number::parse_i64;

const WAIT_ON_REPLICA: Error = Error::of(
    "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured \
     to be writable (which is not the default) writes to replicas are just local and are not propagated.",
);
const WAITAOF_ON_REPLICA: Error = Error::of(
    "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and \
     are not propagated.",
);

/// WAIT numreplicas timeout
pub fn wait(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.replication.is_replica() {
        return Err(WAIT_ON_REPLICA);
    }
    let wanted = ctx.int(1)?;
    let deadline_ms = deadline_ms(ctx, 2)?;
    let met = replica_acks(ctx.server, ctx.client) >= wanted;
    if met || ctx.client.has(flag::DENY_BLOCKING) {
        reply_wait(ctx.server, ctx.client);
    } else {
        blocked::block_for_acks(
            ctx.server,
            ctx.client,
            BlockKind::Wait,
            ctx.argv,
            deadline_ms,
        );
    }
    Ok(())
}

/// WAITAOF numlocal numreplicas timeout
pub fn waitaof(ctx: &mut Ctx) -> CmdResult {
    let local = ctx.int(1)?;
    if !(0..=1).contains(&local) {
        return Err(Error::of(
            "ERR value is out of range, value must between 0 and 1",
        ));
    }
    let replicas = ctx.int_in(
        2,
        0,
        i64::MAX,
        "ERR value is out of range, must be positive",
    )?;
    let deadline_ms = deadline_ms(ctx, 3)?;
    if ctx.server.replication.is_replica() {
        return Err(WAITAOF_ON_REPLICA);
    }
    if local > 0 && !ctx.server.config.appendonly {
        return Err(WAITAOF_WITHOUT_AOF);
    }
    let met = waitaof_is_met(ctx.server, ctx.client, local, replicas);
    if met || ctx.client.has(flag::DENY_BLOCKING) {
        reply_waitaof(ctx.server, ctx.client);
    } else {
        blocked::block_for_acks(
            ctx.server,
            ctx.client,
            BlockKind::WaitAof,
            ctx.argv,
            deadline_ms,
        );
    }
    Ok(())
}

/// Parses a timeout in milliseconds, and returns the Unix time at which it passes; 0, which means
/// no timeout, stays 0.
fn deadline_ms(ctx: &Ctx, at: usize) -> Result<i64, Error> {
    let timeout = parse_i64(ctx.argv[at])
        .ok_or(Error::of("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Error::TIMEOUT_NEGATIVE);
    }
    if timeout == 0 {
        return Ok(0);
    }
    timeout
        .checked_add(ctx.server.clock.now_ms)
        .ok_or(Error::TIMEOUT_RANGE)
}
