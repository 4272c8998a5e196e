//! MODULE. Modules are not supported yet, so none can be loaded.

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::{Error, said};

const CHANGE: Flags = ADMIN | NOSCRIPT | NO_ASYNC_LOADING | PROTECTED | NOT_BUILT;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("module", container, -2, NOT_BUILT, NONE_CAT).subcommands(&[
        cmd("help", help, 2, LOADING | STALE | NOT_BUILT, NONE_CAT),
        cmd("list", list, 2, ADMIN | NOSCRIPT | NOT_BUILT, NONE_CAT)
            .tips(&["nondeterministic_output_order"]),
        cmd("load", load, -3, CHANGE, NONE_CAT),
        cmd("loadex", load, -3, CHANGE, NONE_CAT),
        cmd("unload", unload, 3, CHANGE, NONE_CAT),
    ]),
];

/// MODULE LIST
fn list(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.array(0);
    Ok(())
}

/// MODULE LOAD path [arg ...], MODULE LOADEX path [CONFIG name value ...] [ARGS arg ...]
fn load(ctx: &mut Ctx) -> CmdResult {
    log::warn!(
        "Module {} failed to load: modules are not supported yet",
        said(ctx.argv[2])
    );
    Err(Error::of(
        "ERR Error loading the extension. Please check the server logs.",
    ))
}

/// MODULE UNLOAD name
fn unload(_: &mut Ctx) -> CmdResult {
    Err(Error::of(
        "ERR Error unloading module: no such module with that name",
    ))
}

/// MODULE HELP
fn help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "MODULE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "LIST",
        "    Return a list of loaded modules.",
        "LOAD <path> [<arg> ...]",
        "    Load a module library from <path>, passing to it any optional arguments.",
        "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
        "    Load a module library from <path>, while passing it module configurations and optional arguments.",
        "UNLOAD <name>",
        "    Unload a module.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
