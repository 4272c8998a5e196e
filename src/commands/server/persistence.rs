//! SAVE and BGSAVE, which `persist::rdb::background` carries out.

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::persist::child::{self, ChildKind, Wish};
use crate::persist::rdb::background;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd(
        "bgsave",
        bgsave,
        -1,
        ADMIN | NOSCRIPT | NO_ASYNC_LOADING,
        NONE_CAT,
    ),
    cmd(
        "save",
        save,
        1,
        ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI,
        NONE_CAT,
    ),
];

const IN_PROGRESS: Error = Error::of("ERR Background save already in progress");
const FAILED: Error = Error::of("ERR");

/// SAVE
fn save(ctx: &mut Ctx) -> CmdResult {
    if background::in_progress(ctx.server) {
        return Err(IN_PROGRESS);
    }
    background::save(ctx.server).map_err(|_| FAILED)?;
    ctx.client.reply.ok();
    Ok(())
}

/// BGSAVE [SCHEDULE | CANCEL]
fn bgsave(ctx: &mut Ctx) -> CmdResult {
    let schedule = match ctx.argv.len() {
        1 => false,
        2 if ctx.is(1, "schedule") => true,
        2 if ctx.is(1, "cancel") => return cancel(ctx),
        _ => return Err(Error::SYNTAX),
    };
    if background::in_progress(ctx.server) {
        return Err(IN_PROGRESS);
    }
    // A fork within a transaction would save only a part of the transaction's changes.
    let in_exec = ctx.server.nesting > 0;
    if ctx.server.child.is_some() || in_exec {
        if !schedule && !in_exec {
            return Err(Error::of(
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                 schedule a BGSAVE whenever possible.",
            ));
        }
        ctx.server.forks.wishes.add(Wish::Snapshot);
        ctx.client.reply.status("Background saving scheduled");
        return Ok(());
    }
    background::start(ctx.server).map_err(|_| FAILED)?;
    ctx.client.reply.status("Background saving started");
    Ok(())
}

fn cancel(ctx: &mut Ctx) -> CmdResult {
    if background::in_progress(ctx.server) {
        child::kill(ctx.server, ChildKind::Rdb);
        ctx.client.reply.status("Background saving cancelled");
    } else if ctx.server.forks.wishes.withdraw(Wish::Snapshot) {
        ctx.client
            .reply
            .status("Scheduled background saving cancelled");
    } else {
        return Err(Error::of(
            "ERR Background saving is currently not in progress or scheduled",
        ));
    }
    Ok(())
}
