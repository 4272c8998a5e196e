//! DEBUG RELOAD: saves the data set to the disk and loads it again.

use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::persist::loading::{self, Options};
use crate::persist::rdb::background;
use crate::texts;

/// DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]
pub fn reload(ctx: &mut Ctx) -> CmdResult {
    let (mut flush, mut save) = (true, true);
    let mut options = Options::default();
    for at in 2..ctx.argv.len() {
        if ctx.is(at, "merge") {
            options.replace = true;
        } else if ctx.is(at, "noflush") {
            flush = false;
        } else if ctx.is(at, "nosave") {
            save = false;
        } else {
            return Err(Error::of(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    if ctx.server.loading {
        return Err(Error::of(ctx.server.config.text(texts::LOADING)));
    }
    if save {
        background::save(ctx.server).map_err(|_| Error::of("ERR"))?;
    }
    if flush {
        ctx.server.empty_dbs(None, false);
        ctx.server.flush_libraries();
    }
    if !loading::reload(ctx.server, options) {
        return Err(Error::of(
            "ERR Error trying to load the RDB dump, check server logs.",
        ));
    }
    log::warn!("DB reloaded by DEBUG RELOAD");
    ctx.client.reply.ok();
    Ok(())
}
