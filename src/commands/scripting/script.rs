//! SCRIPT and its subcommands.

use super::eval;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::script::{self, ScriptKind};
use crate::texts;

/// SCRIPT LOAD script
pub fn load(ctx: &mut Ctx) -> CmdResult {
    script::check_enabled(ctx.server)?;
    eval::load(ctx)
}

/// SCRIPT EXISTS sha1 [sha1 ...]
pub fn exists(ctx: &mut Ctx) -> CmdResult {
    let scripts = &ctx.server.scripting.scripts;
    ctx.client.reply.array(ctx.argv.len() - 2);
    for sha in &ctx.argv[2..] {
        let found = scripts.by_sha(sha).is_some();
        ctx.client.reply.integer(found as i64);
    }
    Ok(())
}

/// SCRIPT SHOW sha1
pub fn show(ctx: &mut Ctx) -> CmdResult {
    let scripts = &ctx.server.scripting.scripts;
    let place = scripts
        .by_sha(ctx.argv[2])
        .ok_or_else(|| eval::no_script(&ctx.server.config))?;
    let script = scripts
        .get(place)
        .ok_or_else(|| eval::no_script(&ctx.server.config))?;
    ctx.client.reply.bulk(&script.source);
    Ok(())
}

/// SCRIPT FLUSH [ASYNC | SYNC]
///
/// ASYNC and SYNC have the same effect: the Lua interpreter belongs to this thread, which therefore
/// frees the interpreter's memory itself.
pub fn flush(ctx: &mut Ctx) -> CmdResult {
    let known =
        ctx.argv.len() == 2 || ctx.argv.len() == 3 && (ctx.is(2, "async") || ctx.is(2, "sync"));
    if !known {
        return Err(Error::of("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    if ctx.server.scripting.running.is_some() {
        return Err(Error::of("ERR A script is running already"));
    }
    ctx.server.scripting.flush();
    ctx.client.reply.ok();
    Ok(())
}

/// SCRIPT KILL
pub fn kill(ctx: &mut Ctx) -> CmdResult {
    ctx.server
        .scripting
        .kill(&ctx.server.config, ScriptKind::Eval)?;
    ctx.client.reply.ok();
    Ok(())
}

/// SCRIPT DEBUG YES | SYNC | NO
pub fn debug(ctx: &mut Ctx) -> CmdResult {
    let mode = match () {
        () if ctx.is(2, "no") => 0,
        () if ctx.is(2, "yes") => flag::SCRIPT_DEBUG,
        () if ctx.is(2, "sync") => flag::SCRIPT_DEBUG | flag::SCRIPT_DEBUG_SYNC,
        () => return Err(Error::of("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    };
    script::debug::set_mode(ctx.client, mode)?;
    ctx.client.reply.ok();
    Ok(())
}

/// SCRIPT HELP
pub fn help(ctx: &mut Ctx) -> CmdResult {
    let text = |text| ctx.server.config.text(text);
    ctx.client.reply.help(&[
        "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "DEBUG (YES|SYNC|NO)",
        "    Set the debug mode for subsequent scripts executed.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Return information about the existence of the scripts in the script cache.",
        "FLUSH [ASYNC|SYNC]",
        "    Flush the Lua scripts cache. Very dangerous on replicas.",
        text(texts::HELP_SCRIPT_FLUSH_1),
        text(texts::HELP_SCRIPT_FLUSH_2),
        "    * ASYNC: Asynchronously flush the scripts cache.",
        "    * SYNC: Synchronously flush the scripts cache.",
        "KILL",
        "    Kill the currently executing Lua script.",
        "LOAD <script>",
        "    Load a script into the scripts cache without executing it.",
        "SHOW <sha1>",
        "    Show a script from the scripts cache.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
