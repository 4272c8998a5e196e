//! The CLIENT command: describes connections and changes them. `filter.rs` selects clients by their
//! properties, for CLIENT LIST and CLIENT KILL.

mod filter;
mod tracking;

use crate::client::{Client, flag};
use crate::clients::describe::{describe, describe_running};
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::{Error, said};
use crate::execute::blocked;
use crate::execute::disconnect;
use crate::execute::pause::PausePurpose;
use crate::keyspace::watch;
use crate::texts;
use crate::util::number::parse_i64;
use filter::Filter;
use tracking::{client_caching, client_getredir, client_tracking, client_trackinginfo};

const ALWAYS: Flags = NOSCRIPT | LOADING | STALE;
const ADMINISTER: Flags = ADMIN | NOSCRIPT | LOADING | STALE;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("client", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd("caching", client_caching, 3, ALWAYS, CONNECTION),
    cmd("capa", client_capa, -3, ALWAYS, CONNECTION),
    cmd("getname", client_getname, 2, ALWAYS, CONNECTION),
    cmd("getredir", client_getredir, 2, ALWAYS, CONNECTION),
    cmd("help", client_help, 2, LOADING | STALE, CONNECTION),
    cmd("id", client_id, 2, ALWAYS, CONNECTION),
    cmd("import-source", client_import_source, 3, ALWAYS, CONNECTION),
    cmd("info", client_info, 2, ALWAYS, CONNECTION).tips(&["nondeterministic_output"]),
    cmd("kill", client_kill, -3, ADMINISTER, CONNECTION),
    cmd("list", client_list, -2, ADMINISTER, CONNECTION).tips(&["nondeterministic_output"]),
    cmd("no-evict", client_no_evict, 3, ADMINISTER, CONNECTION),
    cmd("no-touch", client_no_touch, 3, ALWAYS, CONNECTION),
    cmd("pause", client_pause, -3, ADMINISTER, CONNECTION),
    cmd(
        "reply",
        client_reply,
        3,
        ALWAYS | NO_MULTI | MULTI_IN_REDIS,
        CONNECTION,
    ),
    cmd("setinfo", client_setinfo, 4, ALWAYS, CONNECTION)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    cmd("setname", client_setname, 3, ALWAYS, CONNECTION)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    cmd("tracking", client_tracking, -3, ALWAYS, CONNECTION),
    cmd("trackinginfo", client_trackinginfo, 2, ALWAYS, CONNECTION),
    cmd("unblock", client_unblock, -3, ADMINISTER, CONNECTION),
    cmd("unpause", client_unpause, 2, ADMINISTER, CONNECTION),
])];

/// The subject of the error message of [`check_name`] for a client's name.
pub const NAME: &str = "Client names";

/// Checks a client's name: CLIENT LIST shows a client as a line of words, so a name must be one
/// word of printable ASCII, or empty. `what` is the subject of the error message.
pub fn check_name(name: &[u8], what: &str) -> Result<(), Error> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(Error::new(format!(
        "ERR {what} cannot contain spaces, newlines or special characters."
    )))
}

fn non_empty(text: &[u8]) -> Option<Box<[u8]>> {
    (!text.is_empty()).then(|| text.into())
}

/// Sets the client's name, which [`check_name`] has checked; an empty name removes it.
pub fn set_name(c: &mut Client, name: &[u8]) {
    c.name = (!name.is_empty()).then(|| name.into());
}

/// Parses the argument ON or OFF of a CLIENT subcommand.
fn on_off(ctx: &Ctx) -> Result<bool, Error> {
    match () {
        () if ctx.is(2, "on") => Ok(true),
        () if ctx.is(2, "off") => Ok(false),
        () => Err(Error::SYNTAX),
    }
}

fn switch(c: &mut Client, flags: u64, on: bool) {
    if on { c.set(flags) } else { c.clear(flags) }
}

/// CLIENT ID
fn client_id(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.integer(ctx.client.id as i64);
    Ok(())
}

/// CLIENT SETNAME connection-name
fn client_setname(ctx: &mut Ctx) -> CmdResult {
    check_name(ctx.argv[2], NAME)?;
    set_name(ctx.client, ctx.argv[2]);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT GETNAME
fn client_getname(ctx: &mut Ctx) -> CmdResult {
    let Client { name, reply, .. } = ctx.client;
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    Ok(())
}

/// CLIENT SETINFO LIB-NAME libname | LIB-VER libver
fn client_setinfo(ctx: &mut Ctx) -> CmdResult {
    let (is_name, is_version) = (ctx.is(2, "lib-name"), ctx.is(2, "lib-ver"));
    if !is_name && !is_version {
        return Err(Error::new(format!(
            "ERR Unrecognized option '{}'",
            said(ctx.argv[2])
        )));
    }
    check_name(ctx.argv[3], &said(ctx.argv[2]))?;
    let place = if is_name {
        &mut ctx.client.lib_name
    } else {
        &mut ctx.client.lib_ver
    };
    *place = non_empty(ctx.argv[3]);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT CAPA option [option ...]
fn client_capa(ctx: &mut Ctx) -> CmdResult {
    // Unknown capabilities are ignored: newer clients may announce capabilities that this server
    // does not know.
    if (2..ctx.argv.len()).any(|at| ctx.is(at, "redirect")) {
        ctx.client.set(flag::CAPA_REDIRECT);
    }
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT INFO
fn client_info(ctx: &mut Ctx) -> CmdResult {
    watch::settle_touched(ctx.server, ctx.client);
    let line = describe_running(ctx.server, ctx.client, ctx.argv) + "\n";
    ctx.client.reply.verbatim(b"txt", line.as_bytes());
    Ok(())
}

/// CLIENT LIST [filter value ...]
fn client_list(ctx: &mut Ctx) -> CmdResult {
    let filter = Filter::parse_for_list(ctx.server, &ctx.argv[2..])?;
    watch::settle_touched(ctx.server, ctx.client);
    let mut text = String::new();
    for r in ctx.server.net.clients.refs() {
        let line = if r.id == ctx.client.id {
            let wanted = !filter.skip_me.unwrap_or(false) && filter.matches(ctx.server, ctx.client);
            wanted.then(|| describe_running(ctx.server, ctx.client, ctx.argv))
        } else {
            let c = ctx.server.net.clients.get(r.slot);
            // CLIENT LIST does not show killed clients, although their sockets are closed only at
            // the end of the turn.
            c.filter(|c| !c.has(flag::CLOSE_ASAP) && filter.matches(ctx.server, c))
                .map(|c| describe(ctx.server, c))
        };
        if let Some(line) = line {
            text += &line;
            text.push('\n');
        }
    }
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// CLIENT KILL ip:port | filter value [filter value ...]
fn client_kill(ctx: &mut Ctx) -> CmdResult {
    let old_style = ctx.argv.len() == 3;
    let filter = if old_style {
        Filter::by_address(ctx.argv[2])
    } else {
        Filter::parse(ctx.server, &ctx.argv[2..])?
    };
    let skip_me = filter.skip_me.unwrap_or(true);
    let mut killed = 0;
    for r in ctx.server.net.clients.refs() {
        if r.id == ctx.client.id {
            if !skip_me && filter.matches(ctx.server, ctx.client) {
                // The calling client gets its reply before it is closed.
                ctx.client.set(flag::CLOSE_AFTER_REPLY);
                killed += 1;
            }
            continue;
        }
        let Some(mut c) = ctx.server.net.clients.take_ref(r) else {
            continue;
        };
        if !c.has(flag::CLOSE_ASAP) && filter.matches(ctx.server, &c) {
            disconnect::kill(ctx.server, &mut c);
            killed += 1;
        }
        ctx.server.net.clients.put(c);
    }
    match (old_style, killed) {
        (true, 0) => return Err(Error::of("ERR No such client")),
        (true, _) => ctx.client.reply.ok(),
        (false, n) => ctx.client.reply.integer(n),
    }
    Ok(())
}

/// CLIENT NO-EVICT ON | OFF
fn client_no_evict(ctx: &mut Ctx) -> CmdResult {
    let on = on_off(ctx)?;
    switch(ctx.client, flag::NO_EVICT, on);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT NO-TOUCH ON | OFF
fn client_no_touch(ctx: &mut Ctx) -> CmdResult {
    let on = on_off(ctx)?;
    switch(ctx.client, flag::NO_TOUCH, on);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT IMPORT-SOURCE ON | OFF
fn client_import_source(ctx: &mut Ctx) -> CmdResult {
    if !ctx.server.config.import_mode && !ctx.is(2, "off") {
        return Err(Error::of("ERR Server is not in import mode"));
    }
    let on = on_off(ctx)?;
    switch(ctx.client, flag::IMPORT_SOURCE, on);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT REPLY ON | OFF | SKIP
fn client_reply(ctx: &mut Ctx) -> CmdResult {
    if ctx.is(2, "on") {
        // No replies are sent on the link to the primary, so ON does not clear its REPLY OFF.
        if !ctx.client.has(flag::PRIMARY) {
            ctx.client.clear(flag::REPLY_OFF | flag::REPLY_SKIP);
        }
        ctx.client.reply.ok();
    } else if ctx.is(2, "off") {
        ctx.client.set(flag::REPLY_OFF);
    } else if ctx.is(2, "skip") {
        if !ctx.client.has(flag::REPLY_OFF) {
            ctx.client.set(flag::REPLY_SKIP_NEXT);
        }
    } else {
        return Err(Error::SYNTAX);
    }
    Ok(())
}

/// CLIENT PAUSE timeout [WRITE | ALL]
fn client_pause(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 4 {
        return Err(Error::subcommand_syntax("CLIENT", ctx.argv[1]));
    }
    let all = ctx.argv.len() == 3 || ctx.is(3, "all");
    if !all && !ctx.is(3, "write") {
        return Err(Error::of("ERR CLIENT PAUSE mode must be WRITE or ALL"));
    }
    let timeout =
        parse_i64(ctx.argv[2]).ok_or(Error::of("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Error::TIMEOUT_NEGATIVE);
    }
    let until_ms = ctx
        .server
        .clock
        .now_ms
        .checked_add(timeout)
        .ok_or(Error::TIMEOUT_RANGE)?;
    ctx.server
        .pause_clients(PausePurpose::Client, until_ms, all);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT UNPAUSE
fn client_unpause(ctx: &mut Ctx) -> CmdResult {
    ctx.server.unpause_clients(PausePurpose::Client);
    ctx.client.reply.ok();
    Ok(())
}

/// CLIENT UNBLOCK client-id [TIMEOUT | ERROR]
fn client_unblock(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 4 {
        return Err(Error::subcommand_syntax("CLIENT", ctx.argv[1]));
    }
    let with_error = ctx.is(3, "error");
    if ctx.argv.len() == 4 && !with_error && !ctx.is(3, "timeout") {
        return Err(Error::of(
            "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
        ));
    }
    let id = ctx.int(2)?;
    let target = u64::try_from(id)
        .ok()
        .and_then(|id| ctx.server.net.clients.reference_of(id));
    let done = target.is_some_and(|r| blocked::unblock_by_request(ctx.server, r, with_error));
    ctx.client.reply.integer(done as i64);
    Ok(())
}

/// CLIENT HELP
fn client_help(ctx: &mut Ctx) -> CmdResult {
    let types = ctx.server.config.text(texts::HELP_CLIENT_TYPES);
    let lines: Vec<&str> = HELP
        .iter()
        .map(|&line| if line == TYPES { types } else { line })
        .collect();
    ctx.client.reply.help(&lines);
    Ok(())
}

/// The line of CLIENT HELP that is replaced by the list of client types in Redis's or Valkey's
/// words.
const TYPES: &str = "TYPE";

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
    "CAPA <option> [options...]",
    "    The client claims its some capability options. Options are:",
    "    * REDIRECT",
    "      The client can handle redirection during primary and replica failover in standalone mode.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    TYPES,
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "    * ID <client-id> [<client-id>...]",
    "      Kill connections by client id.",
    "    * MAXAGE <maxage>",
    "      Kill connections older than the specified age.",
    "    * IP <ip>",
    "      Kill connections made from the specified IP address.",
    "    * NAME <client-name>",
    "      Kill connections with the specified name.",
    "    * LIB-NAME <lib-name>, LIB-VER <lib-version>",
    "      Kill connections that use the specified library.",
    "    * DB <db-id>",
    "      Kill connections that use the specified database.",
    "    * CAPA <capa>",
    "      Kill connections with all of the specified capabilities.",
    "    * FLAGS <flags>",
    "      Kill connections with all of the specified flags.",
    "    * IDLE <idle>",
    "      Kill connections idle for at least the specified number of seconds.",
    "    * NOT-<option> <value>",
    "      The opposite of ADDR, LADDR, IP, TYPE, USER, ID, NAME, LIB-NAME, LIB-VER, DB, CAPA and FLAGS.",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    TYPES,
    "      Return clients of specified type.",
    "    * <option> <value>",
    "      Return clients that KILL would take with the same option, but SKIPME is no by default.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "SETINFO <option> <value>",
    "    Set client meta attr. Options are:",
    "    * LIB-NAME: the client lib name.",
    "    * LIB-VER: the client lib version.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Unblock the specified blocked client.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT] [NOLOOP]",
    "    Control server assisted client side caching.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "NO-TOUCH (ON|OFF)",
    "    Will not touch LRU/LFU stats when this mode is on.",
    "IMPORT-SOURCE (ON|OFF)",
    "    Mark this connection as an import source when server is in import mode.",
    "HELP",
    "    Print this help.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_word_or_nothing() {
        for good in ["", "a", "!~", "worker-1:b"] {
            assert_eq!(check_name(good.as_bytes(), NAME), Ok(()), "{good}");
        }
        for bad in [" ", "a b", "a\n", "\x7f", "é"] {
            let text = "ERR lib-ver cannot contain spaces, newlines or special characters.";
            assert_eq!(
                check_name(bad.as_bytes(), "lib-ver").unwrap_err().text(),
                text
            );
        }
    }
}
