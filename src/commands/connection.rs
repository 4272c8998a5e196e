//! Commands about the connection itself: its user, protocol and database. The CLIENT commands are
//! in `client`.

use crate::acl;
use crate::client::UserRef;
use crate::client::{Client, flag};
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::client;
use crate::error::{Error, said};
use crate::execute::transaction::discard_transaction;
use crate::observe::monitor;
use crate::pubsub;
use crate::state::Server;
use crate::tracking;
use crate::util::number::parse_i64;

const AT_ONCE: Flags = NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY;
/// The flags of QUIT and RESET, which MULTI does not queue and subscribe mode does not refuse.
const END: Flags = AT_ONCE | RUNS_IN_MULTI | IN_SUBSCRIBED;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("auth", auth, -2, AT_ONCE, CONNECTION),
    cmd("echo", echo, 2, LOADING | STALE | FAST, CONNECTION),
    cmd("hello", hello, -1, AT_ONCE, CONNECTION),
    cmd("ping", ping, -1, FAST | IN_SUBSCRIBED, CONNECTION)
        .role(Role::Ping)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    cmd("quit", quit, -1, END, CONNECTION),
    cmd("reset", reset, 1, END, CONNECTION),
    cmd("select", select, 2, LOADING | STALE | FAST, CONNECTION)
        .role(Role::Select)
        .databases(databases::select),
];

/// AUTH [username] password
fn auth(ctx: &mut Ctx) -> CmdResult {
    let (name, password): (&[u8], &[u8]) = match ctx.argv[1..] {
        [_] if ctx.server.acl.default_user().no_password => {
            return Err(Error::of(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        [password] => (b"default", password),
        [name, password] => (name, password),
        _ => return Err(Error::SYNTAX),
    };
    acl::log_in(ctx.server, ctx.client, ctx.argv, name, password)?;
    ctx.client.reply.ok();
    Ok(())
}

/// ECHO message
fn echo(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.bulk(ctx.argv[1]);
    Ok(())
}

/// AUTH and SETNAME, the options of HELLO.
#[derive(Default)]
struct Hello<'a> {
    auth: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(argv: &[&'a [u8]]) -> Result<Hello<'a>, Error> {
        let mut hello = Hello::default();
        let mut rest = argv;
        while let [option, tail @ ..] = rest {
            rest = match tail {
                [name, password, tail @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    hello.auth = Some((name, password));
                    tail
                }
                [name, tail @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    client::check_name(name, client::NAME)?;
                    hello.name = Some(name);
                    tail
                }
                _ => {
                    let option = said(option);
                    return Err(Error::new(format!(
                        "ERR Syntax error in HELLO option '{option}'"
                    )));
                }
            };
        }
        Ok(hello)
    }
}

/// HELLO [protover [AUTH username password] [SETNAME clientname]]
fn hello(ctx: &mut Ctx) -> CmdResult {
    let protocol = match ctx.argv.get(1).map(|arg| parse_i64(arg)) {
        None => None,
        Some(Some(protocol @ 2..=3)) => Some(protocol),
        Some(Some(_)) => return Err(Error::of("NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(Error::of(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let hello = Hello::parse(ctx.argv.get(2..).unwrap_or_default())?;
    if let Some((name, password)) = hello.auth {
        acl::log_in(ctx.server, ctx.client, ctx.argv, name, password)?;
    }
    if !ctx.client.authenticated && ctx.server.acl.auth_required() {
        return Err(Error::of(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
             <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
             RESP protocol version at the same time",
        ));
    }
    if let Some(name) = hello.name {
        client::set_name(ctx.client, name);
    }
    if let Some(protocol) = protocol {
        ctx.client.reply.resp3 = protocol == 3;
    }
    introduce(ctx);
    Ok(())
}

/// Replies with the map of HELLO. Client libraries check the server's name, so the reply contains a
/// name that they accept.
fn introduce(ctx: &mut Ctx) {
    let mode: &[u8] = if ctx.server.config.cluster_enabled {
        b"cluster"
    } else {
        b"standalone"
    };
    let is_replica = ctx.server.replication.is_replica();
    let id = ctx.client.id as i64;
    let zone = ctx.server.config.availability_zone.as_bytes();
    let reply = &mut ctx.client.reply;
    let protocol = if reply.resp3 { 3 } else { 2 };
    reply.map(if zone.is_empty() { 7 } else { 8 });
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(crate::REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(protocol);
    reply.bulk(b"id");
    reply.integer(id);
    reply.bulk(b"mode");
    reply.bulk(mode);
    reply.bulk(b"role");
    reply.bulk(if is_replica { b"replica" } else { b"master" });
    reply.bulk(b"modules");
    reply.array(0);
    if !zone.is_empty() {
        reply.bulk(b"availability_zone");
        reply.bulk(zone);
    }
}

/// PING [message]
fn ping(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 2 {
        return Err(Error::arity("ping"));
    }
    let message = ctx.argv.get(1);
    if ctx.client.has(flag::PRIMARY) {
        note_stamp(ctx.server, message.copied());
    }
    let reply = &mut ctx.client.reply;
    if ctx.client.flags & flag::PUBSUB != 0 && !reply.resp3 {
        // A RESP2 client in subscribe mode expects arrays only.
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(message.copied().unwrap_or_default());
        return Ok(());
    }
    match message {
        Some(message) => reply.bulk(message),
        None => reply.status("PONG"),
    }
    Ok(())
}

/// Updates this replica's lag from a PING of the primary that contains its time
/// (`repl-ping-timestamps`).
fn note_stamp(server: &mut Server, message: Option<&[u8]>) {
    let now_ms = server.clock.now_ms;
    let stamp_ms = message.and_then(parse_i64);
    if let (Some(stamp_ms), Some(upstream)) = (stamp_ms, &mut server.replication.upstream) {
        upstream.lag_ms = Some(now_ms.saturating_sub(stamp_ms));
    }
}

/// QUIT
fn quit(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.ok();
    ctx.client.set(flag::CLOSE_AFTER_REPLY);
    Ok(())
}

/// RESET
fn reset(ctx: &mut Ctx) -> CmdResult {
    if ctx.client.has(flag::REPLICA | flag::PRIMARY) {
        return Err(Error::of("ERR can only reset normal client connections"));
    }
    monitor::stop(ctx.server, ctx.client);
    reset_connection(ctx.server, ctx.client);
    ctx.client.reply.status("RESET");
    Ok(())
}

/// Resets a client to the state of a new connection. The name and the version of the client
/// library, from CLIENT SETINFO, stay.
fn reset_connection(server: &mut Server, c: &mut Client) {
    discard_transaction(server, c);
    pubsub::forget_client(server, c);
    tracking::stop(server, c);
    c.db = 0;
    c.reply.resp3 = false;
    c.user = UserRef::DEFAULT;
    c.authenticated = server.acl.default_user_is_open();
    c.name = None;
    c.clear(
        flag::ASKING
            | flag::READONLY
            | flag::REPLY_OFF
            | flag::REPLY_SKIP_NEXT
            | flag::NO_EVICT
            | flag::NO_TOUCH,
    );
}

/// SELECT index
fn select(ctx: &mut Ctx) -> CmdResult {
    let index = ctx.int(1)?;
    if i32::try_from(index).is_err() {
        return Err(Error::I32_RANGE);
    }
    let has_one = ctx.server.config.cluster_enabled && ctx.server.data.dbs.len() == 1;
    if has_one && index != 0 {
        return Err(Error::of("ERR SELECT is not allowed in cluster mode"));
    }
    if index < 0 || index >= ctx.server.data.dbs.len() as i64 {
        return Err(Error::DB_INDEX);
    }
    ctx.client.db = index as u32;
    ctx.client.reply.ok();
    Ok(())
}
