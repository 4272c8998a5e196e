//! WAIT and WAITAOF: wait until replicas, or the disk, have what this client wrote.
//!
//! If enough of them have it already, the command replies at once. Otherwise the client blocks,
//! without keys, until enough acknowledgements arrive or its timeout passes; the reply holds the
//! counts at that time.

use crate::client::blocked::BlockKind;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::wait::{WAITAOF_WITHOUT_AOF, local_acks, reply_waitaof};
use crate::util::number::parse_i64;

/// WAIT numreplicas timeout
pub fn wait(ctx: &mut Ctx) -> CmdResult {
    let wanted = ctx.int(1)?;
    let deadline_ms = deadline_ms(ctx, 2)?;
    if wanted <= 0 || ctx.client.has(flag::DENY_BLOCKING) {
        ctx.client.reply.integer(0);
    } else {
        blocked::block(
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
    if local > 0 && !ctx.server.config.appendonly {
        return Err(WAITAOF_WITHOUT_AOF);
    }
    let done = local_acks(ctx.server, ctx.client) >= local && replicas == 0;
    if done || ctx.client.has(flag::DENY_BLOCKING) {
        reply_waitaof(ctx.server, ctx.client);
    } else {
        blocked::block(
            ctx.server,
            ctx.client,
            BlockKind::WaitAof,
            ctx.argv,
            deadline_ms,
        );
        let r = ctx.client.reference();
        ctx.server.blocked.waiting_aof.push(r);
    }
    Ok(())
}

/// A timeout in milliseconds as a Unix time; 0, for ever, stays 0.
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
