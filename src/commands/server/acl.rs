//! ACL: shows and changes users and their rights. `crate::acl` has the rules and the checks.

use crate::acl::rules::{RuleError, is_user_name, merge_selectors};
use crate::acl::selector::Selector;
use crate::acl::user::{User, hex};
use crate::acl::{self, Acl, DEFAULT_NAME, file, log};
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::{Error, excerpt, said};
use crate::sys;
use crate::sys::tape;
use crate::texts;
use crate::util::random::Random;

const ASK: Flags = NOSCRIPT | LOADING | STALE;
const ADMINISTER: Flags = ADMIN | NOSCRIPT | LOADING | STALE;
const EVERYWHERE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("acl", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd("cat", acl_cat, -2, ASK, NONE_CAT),
    cmd("deluser", acl_deluser, -3, ADMINISTER, NONE_CAT).tips(EVERYWHERE),
    cmd("dryrun", acl_dryrun, -4, ADMINISTER, NONE_CAT),
    cmd("genpass", acl_genpass, -2, ASK, NONE_CAT),
    cmd("getuser", acl_getuser, 3, ADMINISTER, NONE_CAT),
    cmd("help", acl_help, 2, LOADING | STALE, NONE_CAT),
    cmd("list", acl_list, 2, ADMINISTER, NONE_CAT),
    cmd("load", acl_load, 2, ADMINISTER, NONE_CAT),
    cmd("log", acl_log, -2, ADMINISTER, NONE_CAT),
    cmd("save", acl_save, 2, ADMINISTER, NONE_CAT).tips(EVERYWHERE),
    cmd("setuser", acl_setuser, -3, ADMINISTER, NONE_CAT).tips(EVERYWHERE),
    cmd("users", acl_users, 2, ADMINISTER, NONE_CAT),
    cmd("whoami", acl_whoami, 2, ASK, NONE_CAT),
])];

/// The maximum length of a password of ACL GENPASS, in bits.
const GENPASS_MAX_BITS: i64 = 4096;

/// ACL CAT [category]
fn acl_cat(ctx: &mut Ctx) -> CmdResult {
    let reply = &mut ctx.client.reply;
    match ctx.argv[2..] {
        [] => {
            reply.array(CATEGORY_NAMES.len());
            CATEGORY_NAMES
                .iter()
                .for_each(|name| reply.bulk(name.as_bytes()));
        }
        [name] => {
            let category = category_by_name(name).ok_or_else(|| {
                let name = excerpt(name, 128);
                Error::new(format!("ERR Unknown category '{name}'"))
            })?;
            let at = reply.begin_deferred();
            let entries = ctx.server.commands.entries.iter();
            let mut count = 0;
            for entry in entries.filter(|entry| entry.row.acl & category != 0) {
                reply.bulk(entry.fullname.as_bytes());
                count += 1;
            }
            reply.end_array(at, count);
        }
        _ => return Err(Error::subcommand_syntax("ACL", ctx.argv[1])),
    }
    Ok(())
}

/// ACL WHOAMI
fn acl_whoami(ctx: &mut Ctx) -> CmdResult {
    let name = ctx.server.acl.name_of(ctx.client.user);
    ctx.client.reply.bulk(name);
    Ok(())
}

/// ACL USERS
fn acl_users(ctx: &mut Ctx) -> CmdResult {
    reply_users(ctx, |user| user.name.to_vec());
    Ok(())
}

/// ACL LIST
fn acl_list(ctx: &mut Ctx) -> CmdResult {
    reply_users(ctx, |user| {
        [b"user ", &user.name[..], b" ", &user.describe()[..]].concat()
    });
    Ok(())
}

fn reply_users(ctx: &mut Ctx, text: impl Fn(&User) -> Vec<u8>) {
    let users: Vec<Vec<u8>> = ctx.server.acl.users().map(text).collect();
    ctx.client.reply.array(users.len());
    users.iter().for_each(|user| ctx.client.reply.bulk(user));
}

/// ACL SETUSER username [rule [rule ...]]
fn acl_setuser(ctx: &mut Ctx) -> CmdResult {
    let name = ctx.argv[2];
    if !is_user_name(name) {
        return Err(Error::of(
            "ERR Usernames can't contain spaces or null characters",
        ));
    }
    let words = &ctx.argv[3..];
    let rules = merge_selectors(words).map_err(|at| {
        Error::new(format!(
            "ERR Unmatched parenthesis in acl selector starting at '{}'.",
            said(words[at])
        ))
    })?;
    let server = &*ctx.server;
    let terms = Acl::terms(&server.commands, &server.config);
    let known = server.acl.lookup(name).cloned();
    let mut user = known.unwrap_or_else(|| User::new(&terms, name));
    user.apply_all(&terms, &rules)
        .map_err(|(at, e)| refused(&rules[at], e))?;
    acl::set_user(ctx.server, ctx.client, user);
    ctx.client.reply.ok();
    Ok(())
}

fn refused(rule: &[u8], e: RuleError) -> Error {
    Error::new(format!(
        "ERR Error in ACL SETUSER modifier '{}': {}",
        said(rule),
        e.text()
    ))
}

/// ACL DELUSER username [username ...]
fn acl_deluser(ctx: &mut Ctx) -> CmdResult {
    let names = &ctx.argv[2..];
    if names.contains(&DEFAULT_NAME) {
        return Err(Error::of("ERR The 'default' user cannot be removed"));
    }
    let mut deleted = 0;
    for name in names {
        deleted += acl::delete(ctx.server, ctx.client, name) as i64;
    }
    ctx.client.reply.integer(deleted);
    Ok(())
}

/// ACL GETUSER username
fn acl_getuser(ctx: &mut Ctx) -> CmdResult {
    let reply = &mut ctx.client.reply;
    let Some(user) = ctx.server.acl.lookup(ctx.argv[2]) else {
        reply.null();
        return Ok(());
    };
    let root = user.root();
    let all = !ctx.server.config.extended_redis_compatibility;
    reply.map(6 + (all || root.databases.is_some()) as usize);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.passwords.len());
    user.passwords
        .iter()
        .for_each(|hash| reply.bulk(hex(hash).as_bytes()));
    reply_rights(reply, root, all);
    reply.bulk(b"selectors");
    let added = user.added_selectors();
    reply.array(added.len());
    for selector in added {
        reply.map(3 + (all || selector.databases.is_some()) as usize);
        reply_rights(reply, selector, all);
    }
    Ok(())
}

/// Replies with the rights of a selector. Redis has no rights to databases: such rights are shown
/// only if they are limited, or with `all`, as in Valkey.
fn reply_rights(reply: &mut ReplyBuf, selector: &Selector, all: bool) {
    reply.bulk(b"commands");
    reply.bulk(&selector.describe_commands());
    reply.bulk(b"keys");
    reply.bulk(&selector.describe_keys());
    reply.bulk(b"channels");
    reply.bulk(&selector.describe_channels());
    if all || selector.databases.is_some() {
        let none = selector.databases.as_ref().is_some_and(Vec::is_empty);
        let databases = if none {
            String::new()
        } else {
            selector.describe_databases()
        };
        reply.bulk(b"databases");
        reply.bulk(databases.as_bytes());
    }
}

/// ACL GENPASS [bits]
fn acl_genpass(ctx: &mut Ctx) -> CmdResult {
    let bits = match ctx.argv.len() {
        2 => 256,
        3 => ctx.int(2)?,
        _ => return Err(Error::subcommand_syntax("ACL", ctx.argv[1])),
    };
    if !(1..=GENPASS_MAX_BITS).contains(&bits) {
        return Err(Error::of(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let password = tape::text(|| {
        let digits = Random::secret_hex(digits);
        digits.map_or_else(Vec::new, String::into_bytes)
    });
    if password.is_empty() {
        return Err(Error::of(
            "ERR The operating system has no random numbers to give",
        ));
    }
    ctx.client.reply.bulk(&password);
    Ok(())
}

/// ACL DRYRUN username command [arg [arg ...]]
fn acl_dryrun(ctx: &mut Ctx) -> CmdResult {
    let server = &*ctx.server;
    let Some(user) = server.acl.lookup(ctx.argv[2]) else {
        let name = said(ctx.argv[2]);
        return Err(Error::new(format!("ERR User '{name}' not found")));
    };
    let call = &ctx.argv[3..];
    let id = lookup_call(ctx).ok_or_else(|| {
        let name = said(call[0]);
        Error::new(format!("ERR Command '{name}' not found"))
    })?;
    if !server.commands.row(id).check_arity(call.len()) {
        return Err(Error::arity(&server.commands.entry(id).fullname));
    }
    let checked = &mut acl::check::Call::new(server, id, call, ctx.client.db);
    match acl::check::check(user, checked) {
        Ok(()) => ctx.client.reply.ok(),
        Err(denied) => ctx.client.reply.bulk(&denied.text(user, Some(call))),
    }
    Ok(())
}

/// The id of the command that ACL DRYRUN checks; `None` if there is no such command or subcommand.
fn lookup_call(ctx: &Ctx) -> Option<u16> {
    let table = &ctx.server.commands;
    let id = table.lookup(ctx.argv[3])?;
    match ctx.argv.get(4) {
        Some(sub) if table.entry(id).subcommands.1 > 0 => table.lookup_subcommand(id, sub),
        _ => Some(id),
    }
}

/// ACL LOG [count | RESET]
fn acl_log(ctx: &mut Ctx) -> CmdResult {
    let count = match ctx.argv.len() {
        2 => 10,
        3 if ctx.is(2, "reset") => {
            ctx.server.acl.log.entries.clear();
            ctx.client.reply.ok();
            return Ok(());
        }
        3 => ctx.int(2)?.max(0),
        _ => return Err(Error::subcommand_syntax("ACL", ctx.argv[1])),
    };
    let entries = &ctx.server.acl.log.entries;
    let count = usize::try_from(count)
        .unwrap_or(usize::MAX)
        .min(entries.len());
    let now_ms = ctx.server.clock.now_ms;
    ctx.client.reply.array(count);
    for entry in entries.iter().take(count) {
        reply_entry(&mut ctx.client.reply, entry, now_ms);
    }
    Ok(())
}

fn reply_entry(reply: &mut ReplyBuf, entry: &log::AclLogEntry, now_ms: i64) {
    let event = &entry.event;
    reply.map(10);
    reply.bulk(b"count");
    reply.integer(entry.count as i64);
    let texts: [(&str, &[u8]); 4] = [
        ("reason", event.reason.name().as_bytes()),
        ("context", event.context.name().as_bytes()),
        ("object", &event.object),
        ("username", &event.user),
    ];
    for (name, text) in texts {
        reply.bulk(name.as_bytes());
        reply.bulk(text);
    }
    reply.bulk(b"age-seconds");
    reply.double((now_ms - entry.updated_ms) as f64 / 1000.0);
    reply.bulk(b"client-info");
    reply.bulk(entry.client.as_bytes());
    let numbers = [
        ("entry-id", entry.id as i64),
        ("timestamp-created", entry.created_ms),
        ("timestamp-last-updated", entry.updated_ms),
    ];
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}

/// An error unless the setting `aclfile` names a file.
fn check_has_file(ctx: &Ctx) -> CmdResult {
    if !ctx.server.config.aclfile.is_empty() {
        return Ok(());
    }
    Err(Error::of(ctx.server.config.text(texts::NO_ACL_FILE)))
}

/// ACL LOAD
fn acl_load(ctx: &mut Ctx) -> CmdResult {
    check_has_file(ctx)?;
    tape::not_recorded("ACL LOAD");
    file::load(ctx.server, ctx.client).map_err(|text| Error::new(format!("ERR {text}")))?;
    ctx.client.reply.ok();
    Ok(())
}

/// ACL SAVE
fn acl_save(ctx: &mut Ctx) -> CmdResult {
    check_has_file(ctx)?;
    if let Err(e) = tape::outcome(|| file::save(ctx.server)) {
        ::log::warn!("Saving ACLs: {}", sys::error_text(&e));
        return Err(Error::of(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    ctx.client.reply.ok();
    Ok(())
}

/// ACL HELP
fn acl_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CAT [<category>]",
        "    List all commands that belong to <category>, or all command categories",
        "    when no category is specified.",
        "DELUSER <username> [<username> ...]",
        "    Delete a list of users.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Returns whether the user can execute the given command without executing the command.",
        "GETUSER <username>",
        "    Get the user's details.",
        "GENPASS [<bits>]",
        "    Generate a secure 256-bit user password. The optional `bits` argument can",
        "    be used to specify a different size.",
        "LIST",
        "    Show users details in config file format.",
        "LOAD",
        "    Reload users from the ACL file.",
        "LOG [<count> | RESET]",
        "    Show the ACL log entries.",
        "SAVE",
        "    Save the current config to the ACL file.",
        "SETUSER <username> <attribute> [<attribute> ...]",
        "    Create or modify a user with the specified attributes.",
        "USERS",
        "    List all the registered usernames.",
        "WHOAMI",
        "    Return the current connection username.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
