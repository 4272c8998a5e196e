//! SLOWLOG and COMMANDLOG: the commands that were slow or large, which `observe::commandlog` keeps.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::commandlog::{CommandLogKind, LoggedCommand};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("commandlog", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("get", commandlog_get, 4, ADMIN | LOADING | STALE, NONE_CAT)
            .tips(&["request_policy:all_nodes", "nondeterministic_output"]),
        cmd("help", commandlog_help, 2, LOADING | STALE, NONE_CAT),
        cmd("len", commandlog_len, 3, ADMIN | LOADING | STALE, NONE_CAT).tips(&[
            "request_policy:all_nodes",
            "response_policy:agg_sum",
            "nondeterministic_output",
        ]),
        cmd(
            "reset",
            commandlog_reset,
            3,
            ADMIN | LOADING | STALE,
            NONE_CAT,
        )
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    ]),
    cmd("slowlog", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("get", slowlog_get, -2, ADMIN | LOADING | STALE, NONE_CAT)
            .tips(&["request_policy:all_nodes", "nondeterministic_output"]),
        cmd("help", slowlog_help, 2, LOADING | STALE, NONE_CAT),
        cmd("len", slowlog_len, 2, ADMIN | LOADING | STALE, NONE_CAT).tips(&[
            "request_policy:all_nodes",
            "response_policy:agg_sum",
            "nondeterministic_output",
        ]),
        cmd("reset", slowlog_reset, 2, ADMIN | LOADING | STALE, NONE_CAT)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    ]),
];

/// The number of entries of SLOWLOG GET without a count.
const DEFAULT_COUNT: usize = 10;

/// SLOWLOG GET [count]
fn slowlog_get(ctx: &mut Ctx) -> CmdResult {
    let count = match ctx.argv.len() {
        2 => DEFAULT_COUNT,
        3 => count(ctx)?,
        _ => return Err(Error::subcommand_syntax("SLOWLOG", ctx.argv[1])),
    };
    get_generic(ctx, CommandLogKind::Slow, count)
}

/// SLOWLOG LEN
fn slowlog_len(ctx: &mut Ctx) -> CmdResult {
    len_generic(ctx, CommandLogKind::Slow)
}

/// SLOWLOG RESET
fn slowlog_reset(ctx: &mut Ctx) -> CmdResult {
    reset_generic(ctx, CommandLogKind::Slow)
}

/// COMMANDLOG GET count type
fn commandlog_get(ctx: &mut Ctx) -> CmdResult {
    let count = count(ctx)?;
    let kind = kind(ctx, 3)?;
    get_generic(ctx, kind, count)
}

/// COMMANDLOG LEN type
fn commandlog_len(ctx: &mut Ctx) -> CmdResult {
    let kind = kind(ctx, 2)?;
    len_generic(ctx, kind)
}

/// COMMANDLOG RESET type
fn commandlog_reset(ctx: &mut Ctx) -> CmdResult {
    let kind = kind(ctx, 2)?;
    reset_generic(ctx, kind)
}

/// Parses the number of requested log entries, `argv[2]`; -1 requests all.
fn count(ctx: &Ctx) -> Result<usize, Error> {
    let text = "ERR count should be greater than or equal to -1";
    let count = ctx.int_in(2, -1, i64::MAX, text)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn kind(ctx: &Ctx, at: usize) -> Result<CommandLogKind, Error> {
    let text = "ERR type should be one of the following: slow, large-request, large-reply";
    CommandLogKind::by_name(ctx.argv[at]).ok_or(Error::of(text))
}

fn get_generic(ctx: &mut Ctx, kind: CommandLogKind, count: usize) -> CmdResult {
    let entries = &ctx.server.commandlog.log(kind).entries;
    let count = count.min(entries.len());
    ctx.client.reply.array(count);
    entries
        .iter()
        .take(count)
        .for_each(|entry| write_entry(&mut ctx.client.reply, entry));
    Ok(())
}

fn write_entry(reply: &mut ReplyBuf, entry: &LoggedCommand) {
    reply.array(6);
    reply.integer(entry.id as i64);
    reply.integer(entry.time_s);
    reply.integer(entry.value as i64);
    reply.array(entry.argv.len());
    entry.argv.iter().for_each(|arg| reply.bulk(arg));
    reply.bulk(entry.peer.as_bytes());
    reply.bulk(&entry.name);
}

fn len_generic(ctx: &mut Ctx, kind: CommandLogKind) -> CmdResult {
    let len = ctx.server.commandlog.log(kind).entries.len();
    ctx.client.reply.integer(len as i64);
    Ok(())
}

fn reset_generic(ctx: &mut Ctx, kind: CommandLogKind) -> CmdResult {
    ctx.server.commandlog.log(kind).entries.clear();
    ctx.client.reply.ok();
    Ok(())
}

/// SLOWLOG HELP
fn slowlog_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}

/// COMMANDLOG HELP
fn commandlog_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "COMMANDLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET <count> <type>",
        "    Return top <count> entries of the specified <type> from the commandlog (-1 mean all).",
        "    Entries are made of:",
        "    id, timestamp,",
        "        time in microseconds for type of slow,",
        "        or size in bytes for type of large-request,",
        "        or size in bytes for type of large-reply",
        "    arguments array, client IP and port,",
        "    client name",
        "LEN <type>",
        "    Return the length of the specified type of commandlog.",
        "RESET <type>",
        "    Reset the specified type of commandlog.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
