//! MONITOR: sends the commands of all clients to the client that called it, by `observe::monitor`.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::monitor;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
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
    // MONITOR of a client that is a monitor or a replica already has no effect and no reply, as in
    // Redis.
    if !ctx.client.has(flag::MONITOR | flag::REPLICA) {
        monitor::start(ctx.server, ctx.client);
        ctx.client.reply.ok();
    }
    Ok(())
}
