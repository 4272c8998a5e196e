//! COMMAND: shows the table of commands to clients.
//!
//! ```text
//!   COMMAND INFO get  ->  name, arity, flags, first key, last key, step, categories, tips, key specs, subcommands
//!                         statuses in sets (RESP3), key specs as maps, subcommands in the same shape
//!   COMMAND DOCS get  ->  `docs`
//! ```

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::docs;
use crate::command::docs::DocsWriter;
use crate::command::keys;
use crate::command::keys::KeyRef;
use crate::command::table::{CommandEntry, CommandTable};
use crate::command::*;
use crate::error::Error;
use crate::texts::{self, Words};
use crate::util::glob::glob_match_nocase;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("command", command, -1, LOADING | STALE, CONNECTION)
    .tips(&["nondeterministic_output_order"])
    .subcommands(&[
        cmd("count", command_count, 2, LOADING | STALE, CONNECTION),
        cmd("docs", command_docs, -2, LOADING | STALE, CONNECTION)
            .tips(&["nondeterministic_output_order"]),
        cmd("getkeys", command_getkeys, -3, LOADING | STALE, CONNECTION),
        cmd(
            "getkeysandflags",
            command_getkeysandflags,
            -3,
            LOADING | STALE,
            CONNECTION,
        ),
        cmd("help", command_help, 2, LOADING | STALE, CONNECTION),
        cmd("info", command_info, -2, LOADING | STALE, CONNECTION)
            .tips(&["nondeterministic_output_order"]),
        cmd("list", command_list, -2, LOADING | STALE, CONNECTION)
            .tips(&["nondeterministic_output_order"]),
    ])];

/// COMMAND
fn command(ctx: &mut Ctx) -> CmdResult {
    let words = ctx.server.config.words();
    let (table, reply) = (&ctx.server.commands, &mut ctx.client.reply);
    reply.array(table.top_level().count());
    table
        .top_level()
        .for_each(|id| write_info(reply, words, table, table.entry(id)));
    Ok(())
}

/// COMMAND COUNT
fn command_count(ctx: &mut Ctx) -> CmdResult {
    let count = ctx.server.commands.top_level().count();
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// COMMAND INFO [name ...]
fn command_info(ctx: &mut Ctx) -> CmdResult {
    let names = &ctx.argv[2..];
    if names.is_empty() {
        return command(ctx);
    }
    let words = ctx.server.config.words();
    let (table, reply) = (&ctx.server.commands, &mut ctx.client.reply);
    reply.array(names.len());
    for name in names {
        match table.lookup_fullname(name) {
            Some(id) => write_info(reply, words, table, table.entry(id)),
            None => reply.null(),
        }
    }
    Ok(())
}

fn write_info(reply: &mut ReplyBuf, words: Words, table: &CommandTable, entry: &CommandEntry) {
    let row = entry.row;
    reply.array(10);
    reply.bulk(entry.fullname.as_bytes());
    reply.integer(row.arity.into());
    write_statuses(reply, row.flag_names_in(words));
    let (first, last, step) = row.key_range();
    [first, last, step]
        .iter()
        .for_each(|&n| reply.integer(n.into()));
    let categories: Vec<String> = row
        .category_names()
        .map(|name| format!("@{name}"))
        .collect();
    reply.set(categories.len());
    categories.iter().for_each(|name| reply.status(name));
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(row.keys.len());
    row.keys.iter().for_each(|spec| write_key_spec(reply, spec));
    let (from, count) = entry.subcommands;
    match count {
        0 => reply.set(0),
        _ => reply.array(count.into()),
    }
    (from..from + count).for_each(|id| write_info(reply, words, table, table.entry(id)));
}

fn write_statuses(reply: &mut ReplyBuf, names: impl Iterator<Item = &'static str>) {
    let names: Vec<_> = names.collect();
    reply.set(names.len());
    names.iter().for_each(|name| reply.status(name));
}

fn write_key_spec(reply: &mut ReplyBuf, spec: &KeySpec) {
    reply.map(if spec.note.is_empty() { 3 } else { 4 });
    if !spec.note.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(spec.note.as_bytes());
    }
    reply.bulk(b"flags");
    write_statuses(reply, spec.flag_names());
    reply.bulk(b"begin_search");
    match spec.begin {
        BeginSearch::Index(index) => write_search(reply, "index", &[("index", index)]),
        BeginSearch::Keyword {
            keyword,
            start_from,
        } => {
            search_head(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(start_from.into());
        }
        BeginSearch::Unknown => write_search(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            write_search(
                reply,
                "range",
                &[("lastkey", last), ("keystep", step), ("limit", limit)],
            );
        }
        FindKeys::KeyNum {
            number,
            first_key,
            step,
        } => {
            let fields = [
                ("keynumidx", number),
                ("firstkey", first_key),
                ("keystep", step),
            ];
            write_search(reply, "keynum", &fields);
        }
        FindKeys::Unknown => write_search(reply, "unknown", &[]),
    }
}

fn search_head(reply: &mut ReplyBuf, kind: &str, fields: usize) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields);
}

fn write_search(reply: &mut ReplyBuf, kind: &str, fields: &[(&str, i16)]) {
    search_head(reply, kind, fields.len());
    for &(name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(value.into());
    }
}

/// COMMAND DOCS [name ...]
fn command_docs(ctx: &mut Ctx) -> CmdResult {
    let (table, reply) = (&ctx.server.commands, &mut ctx.client.reply);
    let names = &ctx.argv[2..];
    let ids: Vec<u16> = match names.is_empty() {
        true => table.top_level().collect(),
        false => names
            .iter()
            .filter_map(|name| table.lookup_fullname(name))
            .collect(),
    };
    let deferred = reply.begin_deferred();
    let mut count = 0;
    for fullname in ids.iter().map(|&id| &table.entry(id).fullname) {
        if docs::lookup(fullname).is_some() {
            reply.bulk(fullname.as_bytes());
            docs::write(fullname, &mut DocsReply(reply));
            count += 1;
        }
    }
    reply.end_map(deferred, count);
    Ok(())
}

/// Writes the documentation of commands to the reply of COMMAND DOCS.
struct DocsReply<'a>(&'a mut ReplyBuf);

impl DocsWriter for DocsReply<'_> {
    fn map(&mut self, pairs: usize) {
        self.0.map(pairs);
    }

    fn array(&mut self, len: usize) {
        self.0.array(len);
    }

    fn set(&mut self, len: usize) {
        self.0.set(len);
    }

    fn bulk(&mut self, text: &str) {
        self.0.bulk(text.as_bytes());
    }

    fn status(&mut self, text: &str) {
        self.0.status(text);
    }

    fn integer(&mut self, value: i64) {
        self.0.integer(value);
    }
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]: lists commands and
/// subcommands.
fn command_list(ctx: &mut Ctx) -> CmdResult {
    let table = &ctx.server.commands;
    let wanted: Box<dyn Fn(&CommandEntry) -> bool> = match ctx.argv.len() {
        2 => Box::new(|_| true),
        5 if ctx.is(2, "filterby") => filter(ctx)?,
        _ => return Err(Error::SYNTAX),
    };
    let names: Vec<&str> = table
        .entries
        .iter()
        .filter(|e| wanted(e))
        .map(|e| &*e.fullname)
        .collect();
    ctx.client.reply.array(names.len());
    names
        .iter()
        .for_each(|name| ctx.client.reply.bulk(name.as_bytes()));
    Ok(())
}

/// Whether COMMAND LIST includes a row.
type Filter<'a> = Box<dyn Fn(&CommandEntry) -> bool + 'a>;

fn filter<'a>(ctx: &Ctx<'a>) -> Result<Filter<'a>, Error> {
    let value = ctx.argv[4];
    if ctx.is(3, "module") {
        // There are no modules, so no command belongs to one.
        return Ok(Box::new(|_| false));
    }
    if ctx.is(3, "aclcat") {
        let category = category_by_name(value).unwrap_or(NONE_CAT);
        return Ok(Box::new(move |entry| entry.row.acl & category != 0));
    }
    if ctx.is(3, "pattern") {
        return Ok(Box::new(move |entry| {
            glob_match_nocase(value, entry.fullname.as_bytes())
        }));
    }
    Err(Error::SYNTAX)
}

/// COMMAND GETKEYS command [argument ...]
fn command_getkeys(ctx: &mut Ctx) -> CmdResult {
    let call = &ctx.argv[2..];
    let keys = keys_of(&ctx.server.commands, call)?;
    ctx.client.reply.array(keys.len());
    keys.iter()
        .for_each(|key| ctx.client.reply.bulk(call[key.pos as usize]));
    Ok(())
}

/// COMMAND GETKEYSANDFLAGS command [argument ...]
fn command_getkeysandflags(ctx: &mut Ctx) -> CmdResult {
    let call = &ctx.argv[2..];
    let keys = keys_of(&ctx.server.commands, call)?;
    let reply = &mut ctx.client.reply;
    reply.array(keys.len());
    for key in keys {
        reply.array(2);
        reply.bulk(call[key.pos as usize]);
        write_statuses(reply, key_flag_names(key.flags));
    }
    Ok(())
}

fn keys_of(table: &CommandTable, call: &[&[u8]]) -> Result<Vec<KeyRef>, Error> {
    let Some(id) = lookup(table, call) else {
        return Err(Error::of("ERR Invalid command specified"));
    };
    let row = table.row(id);
    if !row.has_keys() && row.get_keys.is_none() {
        return Err(Error::of("ERR The command has no key arguments"));
    }
    if !row.check_arity(call.len()) {
        return Err(Error::of(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let mut found = Vec::new();
    match keys::get_keys(row, call, &mut found) {
        Ok(()) if !keys::lacks_series(row, call) => Ok(found),
        _ => Err(Error::of("ERR Invalid arguments specified for command")),
    }
}

/// The id of the command that `call`, a command with its arguments, names; `None` if there is no
/// such command or subcommand.
fn lookup(table: &CommandTable, call: &[&[u8]]) -> Option<u16> {
    let id = table.lookup(call.first()?)?;
    match call.get(1) {
        Some(sub) if table.entry(id).subcommands.1 > 0 => table.lookup_subcommand(id, sub),
        _ => Some(id),
    }
}

/// COMMAND HELP
fn command_help(ctx: &mut Ctx) -> CmdResult {
    let text = |text| ctx.server.config.text(text);
    ctx.client.reply.help(&[
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        text(texts::HELP_COMMAND_ALL),
        "COUNT",
        text(texts::HELP_COMMAND_COUNT),
        "LIST",
        text(texts::HELP_COMMAND_LIST),
        "INFO [<command-name> ...]",
        text(texts::HELP_COMMAND_INFO),
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        text(texts::HELP_COMMAND_DOCS),
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        text(texts::HELP_COMMAND_GETKEYS),
        "GETKEYSANDFLAGS <full-command>",
        text(texts::HELP_COMMAND_GETKEYS_FLAGS),
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
