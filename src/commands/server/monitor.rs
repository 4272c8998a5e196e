//! MONITOR: watch the commands of all clients; `observe::monitor` shows them.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::monitor;

pub const TABLE: &[Command] = &[cmd(
    "monitor",
    start,
    1,
    ADMIN | NOSCRIPT | LOADING | STALE,
    NONE_CAT,
)];

/// MONITOR
fn start(ctx: &mut Ctx) -> CmdResult {
    if ctx.client.has(flag::DENY_BLOCKING) {
        return Err(Error::of(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    // A monitor, or a replica, that asks again is not answered, as in Redis.
    if !ctx.client.has(flag::MONITOR | flag::REPLICA) {
        monitor::start(ctx.server, ctx.client);
        ctx.client.reply.ok();
    }
    Ok(())
}
