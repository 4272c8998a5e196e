//! BGREWRITEAOF, which `persist::aof` carries out.

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::persist::aof::rewrite::{self, Answer};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd(
    "bgrewriteaof",
    bgrewriteaof,
    1,
    ADMIN | NOSCRIPT | NO_ASYNC_LOADING,
    NONE_CAT,
)];

/// BGREWRITEAOF
fn bgrewriteaof(ctx: &mut Ctx) -> CmdResult {
    let status = match rewrite::request(ctx.server) {
        Answer::Started => "Background append only file rewriting started",
        Answer::Scheduled => "Background append only file rewriting scheduled",
        Answer::InProgress => {
            return Err(Error::of(
                "ERR Background append only file rewriting already in progress",
            ));
        }
        Answer::Failed => {
            return Err(Error::of(
                "ERR Can't execute an AOF background rewriting. Please check the server logs for more information.",
            ));
        }
    };
    ctx.client.reply.status(status);
    Ok(())
}
