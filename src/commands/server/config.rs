//! CONFIG: reads and changes the settings while the server runs. `server::settings` applies a
//! change.

use crate::acl;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::config::{Access, Extent, SetError, rewrite};
use crate::error::{Error, said};
use crate::server::settings;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("config", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd(
        "get",
        config_get,
        -3,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    ),
    cmd("help", config_help, 2, LOADING | STALE, NONE_CAT),
    cmd(
        "resetstat",
        config_resetstat,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    cmd(
        "rewrite",
        config_rewrite,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    cmd(
        "set",
        config_set,
        -4,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
])];

/// CONFIG GET pattern [pattern ...]
fn config_get(ctx: &mut Ctx) -> CmdResult {
    let found = ctx.server.config.get(&ctx.argv[2..]);
    ctx.client.reply.map(found.len());
    for (name, value) in found {
        ctx.client.reply.bulk(&name);
        ctx.client.reply.bulk(&value);
    }
    Ok(())
}

/// CONFIG SET directive value [directive value ...]
fn config_set(ctx: &mut Ctx) -> CmdResult {
    if !ctx.argv.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let pairs: Vec<(&[u8], &[u8])> = ctx.argv[2..]
        .chunks_exact(2)
        .map(|p| (p[0], p[1]))
        .collect();
    let access = Access {
        protected: (ctx.server.config.enable_protected_configs).allows(ctx.client.is_local()),
        loading: ctx.server.is_loading(),
        loading_aside: ctx.server.loading.is_aside(),
    };
    settings::set(ctx.server, &pairs, access).map_err(error_of)?;
    ctx.client.reply.ok();
    Ok(())
}

fn error_of(e: SetError) -> Error {
    Error::new(said(&e.to_bytes()))
}

/// CONFIG REWRITE
fn config_rewrite(ctx: &mut Ctx) -> CmdResult {
    ctx.server.config.user = acl::config_lines(ctx.server);
    match rewrite(&ctx.server.config, Extent::Changed) {
        Ok(()) => {
            log::info!("CONFIG REWRITE executed with success.");
            ctx.client.reply.ok();
            Ok(())
        }
        Err(e) => {
            log::warn!("CONFIG REWRITE failed: {e}");
            Err(Error::new(format!("ERR {e}")))
        }
    }
}

/// CONFIG RESETSTAT
fn config_resetstat(ctx: &mut Ctx) -> CmdResult {
    ctx.server.reset_stats();
    ctx.client.reply.ok();
    Ok(())
}

/// CONFIG HELP
fn config_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
