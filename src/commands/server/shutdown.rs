//! SHUTDOWN: requests a stop, which `server::shutdown` carries out.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::config::ShutdownFlags;
use crate::error::Error;
use crate::server::shutdown;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd(
    "shutdown",
    shutdown_command,
    -1,
    ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY,
    NONE_CAT,
)];

/// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [FAILOVER] [ABORT]
fn shutdown_command(ctx: &mut Ctx) -> CmdResult {
    let mut options = ShutdownFlags::default();
    let mut abort = false;
    for at in 1..ctx.argv.len() {
        match ctx.argv[at].to_ascii_lowercase().as_slice() {
            b"nosave" => options.nosave = true,
            b"save" => options.save = true,
            b"now" => options.now = true,
            b"force" => options.force = true,
            b"failover" => options.failover = true,
            b"abort" => abort = true,
            _ => return Err(Error::SYNTAX),
        }
    }
    if abort && options != ShutdownFlags::default() || options.save && options.nosave {
        return Err(Error::SYNTAX);
    }
    if abort {
        if !shutdown::abort(ctx.server) {
            return Err(Error::of("ERR No shutdown in progress."));
        }
        ctx.client.reply.ok();
        return Ok(());
    }
    if let Some(running) = &ctx.server.scripting.running
        && !options.nosave
    {
        // A script is running, and the data set has a part of its writes: such a data set must not
        // be saved.
        return Err(running.busy_error(&ctx.server.config));
    }
    if options.failover && ctx.server.cluster.is_none() {
        return Err(Error::of(
            "ERR SHUTDOWN FAILOVER is only supported in cluster mode.",
        ));
    }
    if !options.now && ctx.client.has(flag::DENY_BLOCKING) {
        return Err(Error::of(
            "ERR SHUTDOWN without NOW or ABORT isn't allowed for DENY BLOCKING client",
        ));
    }
    shutdown::request(ctx.server, ctx.client, ctx.argv, options);
    Ok(())
}
