//! Commands about the connection itself.

use crate::commands::command::*;
use crate::commands::ctx::{CmdResult, Ctx};

pub const TABLE: &[Command] = &[
    cmd("echo", echo, 2, LOADING | STALE | FAST, CONNECTION),
    cmd("ping", ping, -1, FAST, CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
];

/// ECHO message
fn echo(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.bulk(ctx.argv[1]);
    Ok(())
}

/// PING [message]
fn ping(ctx: &mut Ctx) -> CmdResult {
    match ctx.argv.get(1) {
        Some(message) => ctx.client.reply.bulk(message),
        None => ctx.client.reply.status("PONG"),
    }
    Ok(())
}
