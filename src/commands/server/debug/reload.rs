//! DEBUG RELOAD: saves the data set to the disk and loads it again.

use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::persist::loading::{self, DAMAGED, LoadError, LoadOptions};
use crate::persist::rdb::background;
use crate::sys::tape;
use crate::{sys, texts};

/// DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]
pub fn reload(ctx: &mut Ctx) -> CmdResult {
    let (mut flush, mut save) = (true, true);
    let mut options = LoadOptions::default();
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
    if ctx.server.is_loading() {
        return Err(Error::of(ctx.server.config.text(texts::LOADING)));
    }
    let top = ctx.server.top_level()?;
    tape::not_recorded("DEBUG RELOAD");
    if save {
        background::save(ctx.server).map_err(|_| Error::of("ERR"))?;
    }
    if flush {
        ctx.server.flush(&top, None, None, false);
        ctx.server.flush_libraries(&top);
    }
    match loading::reload(ctx.server, &top, options) {
        Ok(_) => {}
        Err(LoadError::Damaged) => {
            log::warn!("{DAMAGED}");
            sys::process::exit(1);
        }
        Err(_) => {
            return Err(Error::of(
                "ERR Error trying to load the RDB dump, check server logs.",
            ));
        }
    }
    log::warn!("DB reloaded by DEBUG RELOAD");
    ctx.client.reply.ok();
    Ok(())
}
