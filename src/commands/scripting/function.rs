//! FCALL, FCALL_RO, FUNCTION and its subcommands.

use super::keys_and_arguments;
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::{Error, said};
use crate::persist::rdb::{Limits, payload};
use crate::script::functions::{Function, Library, Policy};
use crate::script::run::{self, Job};
use crate::script::{self, ScriptKind, flags};
use crate::sys::ticks;
use crate::util::glob::glob_match_nocase;

/// FCALL function numkeys [key ...] [arg ...]
pub fn fcall(ctx: &mut Ctx) -> CmdResult {
    fcall_generic(ctx, false)
}

/// FCALL_RO function numkeys [key ...] [arg ...]
pub fn fcall_ro(ctx: &mut Ctx) -> CmdResult {
    fcall_generic(ctx, true)
}

fn fcall_generic(ctx: &mut Ctx, read_only: bool) -> CmdResult {
    script::begin(ctx.server, ctx.client, ctx.argv)?;
    let found = ctx.server.data.functions.all.find(ctx.argv[1]);
    let function = found.ok_or(Error::of("ERR Function not found"))?;
    let (name, flags, function) = (function.name.clone(), function.flags, function.function);
    let bad_number = Error::of("ERR Bad number of keys provided");
    let (keys, argv) = keys_and_arguments(ctx, bad_number)?;
    let mut engine = ctx.server.take_function_engine()?;
    let job = Job {
        kind: ScriptKind::Function,
        function,
        name: std::str::from_utf8(&name).unwrap_or_default(),
        flags,
        read_only,
        keys,
        argv,
    };
    let result = run::run(ctx, &mut engine, &job);
    ctx.server.data.functions.engine = Some(engine);
    result
}

/// FUNCTION LOAD [REPLACE] code
pub fn load(ctx: &mut Ctx) -> CmdResult {
    script::check_enabled(ctx.server)?;
    let last = ctx.argv.len() - 1;
    let mut replace = false;
    for at in 2..last {
        if !ctx.is(at, "replace") {
            let option = said(ctx.argv[at]);
            return Err(Error::new(format!("ERR Unknown option given: {option}")));
        }
        replace = true;
    }
    let name = ctx.server.load_library(ctx.argv[last], replace)?;
    ctx.dirty(1);
    ctx.client.reply.bulk(&name);
    Ok(())
}

/// FUNCTION DELETE library
pub fn delete(ctx: &mut Ctx) -> CmdResult {
    ctx.server.refuse_while_running()?;
    if !ctx.server.delete_library(ctx.argv[2]) {
        return Err(Error::of("ERR Library not found"));
    }
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}

/// FUNCTION FLUSH [ASYNC | SYNC]
pub fn flush(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 3 {
        return Err(Error::subcommand_syntax("FUNCTION", ctx.argv[1]));
    }
    if ctx.argv.len() == 3 && !ctx.is(2, "async") && !ctx.is(2, "sync") {
        return Err(Error::of(
            "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
        ));
    }
    ctx.server.refuse_while_running()?;
    let top = ctx.server.top_level()?;
    ctx.server.flush_libraries(&top);
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}

/// FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]
pub fn list(ctx: &mut Ctx) -> CmdResult {
    let (mut pattern, mut with_code) = (None, false);
    let mut at = 2;
    while at < ctx.argv.len() {
        if !with_code && ctx.is(at, "withcode") {
            with_code = true;
        } else if pattern.is_none() && ctx.is(at, "libraryname") {
            at += 1;
            let given = ctx.argv.get(at);
            pattern = Some(*given.ok_or(Error::of("ERR library name argument was not given"))?);
        } else {
            let argument = said(ctx.argv[at]);
            return Err(Error::new(format!("ERR Unknown argument {argument}")));
        }
        at += 1;
    }
    let all = &ctx.server.data.functions.all;
    let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob_match_nocase(pattern, name));
    let reply = &mut ctx.client.reply;
    let start = reply.begin_deferred();
    let mut count = 0;
    for (name, library) in all.libraries.iter().filter(|(name, _)| wanted(name)) {
        write_library(reply, name, library, &all.functions, with_code);
        count += 1;
    }
    reply.end_array(start, count);
    Ok(())
}

fn write_library(
    reply: &mut ReplyBuf,
    name: &[u8],
    library: &Library,
    functions: &std::collections::HashMap<Box<[u8]>, Function>,
    with_code: bool,
) {
    reply.map(3 + with_code as usize);
    reply.bulk(b"library_name");
    reply.bulk(name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in library
        .functions
        .iter()
        .filter_map(|key| functions.get(key))
    {
        write_function(reply, function);
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.source);
    }
}

fn write_function(reply: &mut ReplyBuf, function: &Function) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(&function.name);
    reply.bulk(b"description");
    match &function.description {
        Some(text) => reply.bulk(text),
        None => reply.null(),
    }
    reply.bulk(b"flags");
    reply.set(function.flags.count_ones() as usize);
    for (bit, name) in flags::NAMES.iter().enumerate() {
        if function.flags & (1 << bit) != 0 {
            reply.status(name);
        }
    }
}

/// FUNCTION DUMP
pub fn dump(ctx: &mut Ctx) -> CmdResult {
    let version = ctx.server.config.rdb_version;
    let bytes = payload::dump_functions(ctx.server.function_sources(), version as u32);
    ctx.client.reply.bulk(&bytes);
    Ok(())
}

/// FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]
pub fn restore(ctx: &mut Ctx) -> CmdResult {
    script::check_enabled(ctx.server)?;
    if ctx.argv.len() > 4 {
        return Err(Error::subcommand_syntax("FUNCTION", ctx.argv[1]));
    }
    let policy = match ctx.argv.get(3).map(|p| p.to_ascii_lowercase()).as_deref() {
        None | Some(b"append") => Policy::Append,
        Some(b"replace") => Policy::Replace,
        Some(b"flush") => Policy::Flush,
        Some(_) => {
            return Err(Error::of(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let checks = payload::Checks {
        any_version: false,
        skip_checksum: ctx.server.debug.skip_checksum,
    };
    let (version, body) = payload::open(ctx.argv[2], checks)
        .ok_or(Error::of("ERR DUMP payload version or checksum are wrong"))?;
    let limits = Limits::of(ctx.server);
    let sources = payload::functions(version, body, limits)
        .map_err(|_| Error::of("ERR failed loading functions payload"))?;
    let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
    ctx.server.restore_libraries(&sources, policy)?;
    ctx.dirty(1);
    ctx.client.reply.ok();
    Ok(())
}

/// FUNCTION KILL
pub fn kill(ctx: &mut Ctx) -> CmdResult {
    ctx.server
        .scripting
        .kill(&ctx.server.config, ScriptKind::Function)?;
    ctx.client.reply.ok();
    Ok(())
}

/// FUNCTION STATS
pub fn stats(ctx: &mut Ctx) -> CmdResult {
    let scripting = &ctx.server.scripting;
    if let Some(running) = &scripting.running
        && running.kind == ScriptKind::Eval
    {
        return Err(ScriptKind::Eval.busy_error(&ctx.server.config));
    }
    let reply = &mut ctx.client.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match scripting
        .running
        .as_ref()
        .and_then(|running| Some((running.started, running.busy.as_ref()?)))
    {
        None => reply.null(),
        Some((started, busy)) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(busy.name.as_bytes());
            reply.bulk(b"command");
            let command = busy.command.slices();
            reply.array(command.len());
            command.iter().for_each(|arg| reply.bulk(arg));
            reply.bulk(b"duration_ms");
            let spent = ticks::now().wrapping_sub(started);
            reply.integer((ctx.server.clock.us(spent) / 1000) as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    let all = &ctx.server.data.functions.all;
    reply.integer(all.libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(all.functions.len() as i64);
    Ok(())
}

/// FUNCTION HELP
pub fn help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(HELP);
    Ok(())
}

const HELP: &[&str] = &[
    "FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "LOAD [REPLACE] <FUNCTION CODE>",
    "    Create a new library with the given library name and code.",
    "DELETE <LIBRARY NAME>",
    "    Delete the given library.",
    "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
    "    Return general information on all the libraries:",
    "    * Library name",
    "    * The engine used to run the Library",
    "    * Functions list",
    "    * Library code (if WITHCODE is given)",
    "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
    "STATS",
    "    Return information about the current function running:",
    "    * Function name",
    "    * Command used to run the function",
    "    * Duration in MS that the function is running",
    "    If no function is running, return nil",
    "    In addition, returns a list of available engines.",
    "KILL",
    "    Kill the current running function.",
    "FLUSH [ASYNC|SYNC]",
    "    Delete all the libraries.",
    "    When called without the optional mode argument, the behavior is determined by the",
    "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
    "    * ASYNC: Asynchronously flush the libraries.",
    "    * SYNC: Synchronously flush the libraries.",
    "DUMP",
    "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
    "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
    "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
    "    control how to handle existing libraries (default APPEND):",
    "    * FLUSH: delete all existing libraries.",
    "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
    "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
    "      libraries with the new libraries (notice that even on this option there is a chance of failure",
    "      in case of functions name collision with another library).",
    "HELP",
    "    Print this help.",
];
