//! The DEBUG subcommands for tests of replication.

use super::switches::ReplPause;
use super::{ok, switch, unknown_subcommand};
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::ds::bulk::push_command;
use crate::error::Error;
use crate::replication;
use crate::util::number::parse_i64;

/// DEBUG REPL-BACKLOG 0|1
pub fn repl_backlog(ctx: &mut Ctx) -> CmdResult {
    if switch(ctx, 2) {
        replication::ensure_backlog(ctx.server);
    } else if ctx.server.replication.replicas.is_empty() {
        replication::release_backlog(ctx.server);
    } else {
        return Err(Error::new("ERR Replicas need the backlog"));
    }
    ok(ctx)
}

/// DEBUG CHANGE-REPL-ID
pub fn change_repl_id(ctx: &mut Ctx) -> CmdResult {
    log::warn!("Changing replication IDs after receiving DEBUG change-repl-id");
    let id = ctx.server.rng.hex(40);
    ctx.server.replication.begin_history(id);
    ok(ctx)
}

/// DEBUG REPLICATE command [argument ...]
pub fn replicate(ctx: &mut Ctx) -> CmdResult {
    let replication = &mut ctx.server.replication;
    // A replica adds nothing to its stream, which is a copy of its primary's.
    if replication.stream.is_open() && !replication.is_replica() {
        let mut bytes = Vec::new();
        push_command(&mut bytes, &ctx.argv[2..]);
        replication.stream.append(&bytes);
    }
    ok(ctx)
}

/// DEBUG FORCE-FREE-PRIMARY-ASYNC 0|1
pub fn force_free_primary_async(ctx: &mut Ctx) -> CmdResult {
    // There is nothing to switch: this server frees every client, also that of the link to the
    // primary, at the end of the event loop's turn.
    ok(ctx)
}

/// DEBUG PROTECT-CLIENT id
pub fn protect_client(ctx: &mut Ctx) -> CmdResult {
    let id = parse_i64(ctx.argv[2]).filter(|id| *id > 0);
    let id = id.ok_or(Error::of("ERR Invalid client id"))? as u64;
    // There is nothing to protect: code refers to a client by slot and id, and clients are freed at
    // the end of the event loop's turn, when no code uses them.
    let exists = ctx.client.id == id || ctx.server.net.clients.iter().any(|c| c.id == id);
    match exists {
        true => ok(ctx),
        false => Err(Error::of("ERR No such client")),
    }
}

/// DEBUG REPL-PAUSE clear|after-fork|before-rdb-channel|on-streaming-repl-buf
pub fn repl_pause(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.repl_pause = match ctx.argv[2].to_ascii_lowercase().as_slice() {
        b"clear" => None,
        b"after-fork" => Some(ReplPause::AfterFork),
        b"before-rdb-channel" => Some(ReplPause::BeforeRdbChannel),
        b"on-streaming-repl-buf" => Some(ReplPause::OnStreamingReplBuf),
        _ => return Err(unknown_subcommand(ctx)),
    };
    ok(ctx)
}

/// DEBUG INTERNAL_SECRET
pub fn internal_secret(_: &mut Ctx) -> CmdResult {
    Err(Error::of("ERR Internal secret is missing"))
}

/// DEBUG MARK-INTERNAL-CLIENT [UNMARK]
pub fn mark_internal_client(ctx: &mut Ctx) -> CmdResult {
    match ctx.argv.len() {
        2 => ctx.client.set(flag::INTERNAL),
        _ if ctx.is(2, "unmark") => ctx.client.clear(flag::INTERNAL),
        _ => return Err(unknown_subcommand(ctx)),
    }
    ok(ctx)
}
