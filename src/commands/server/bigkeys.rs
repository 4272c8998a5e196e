//! BIGKEYS: the largest keys, which `observe::bigkeys` tracks. No other server has this command;
//! redis-cli --bigkeys scans.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::bigkeys::ranking::{CAPACITY, Ranking};
use crate::types::Type;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("bigkeys", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd("get", bigkeys_get, -2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd("help", bigkeys_help, 2, LOADING | STALE, NONE_CAT),
    cmd("reset", bigkeys_reset, 2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
])];

/// The tips of BIGKEYS: a client must ask each node of a cluster, as a node reports its own keys
/// only.
const SPECIAL: &[&str] = &["request_policy:special", "response_policy:special"];

/// The number of keys in each ranking without COUNT.
const DEFAULT_COUNT: usize = 10;

const OFF: Error = Error::of("ERR the largest keys are not kept, see the setting bigkeys-tracking");

/// BIGKEYS GET [COUNT count] [TYPE type]
fn bigkeys_get(ctx: &mut Ctx) -> CmdResult {
    let (count, only) = parse_get(ctx)?;
    let Some(big) = &ctx.server.bigkeys else {
        return Err(OFF);
    };
    let reply = &mut ctx.client.reply;
    let wanted = Type::ALL
        .iter()
        .filter(|&&kind| only.is_none_or(|only| only == kind));
    reply.map(1 + wanted.clone().count());
    reply.bulk(b"complete");
    reply.integer(big.is_complete().into());
    for &kind in wanted {
        let of_type = big.of(kind);
        reply.bulk(kind.name().as_bytes());
        reply.map(4);
        write_ranking(reply, "elements", &of_type.elements, count);
        write_ranking(reply, "bytes", &of_type.bytes, count);
    }
    Ok(())
}

fn parse_get(ctx: &Ctx) -> Result<(usize, Option<Type>), Error> {
    let (mut count, mut only) = (DEFAULT_COUNT, None);
    for at in (2..ctx.argv.len()).step_by(2) {
        if at + 1 == ctx.argv.len() {
            return Err(Error::SYNTAX);
        }
        if ctx.is(at, "count") {
            let text = "ERR COUNT must be between 1 and 128";
            count = ctx.int_in(at + 1, 1, CAPACITY as i64, text)? as usize;
        } else if ctx.is(at, "type") {
            let named = Type::ALL
                .into_iter()
                .find(|kind| ctx.is(at + 1, kind.name()));
            only = Some(named.ok_or(Error::of("ERR unknown type name"))?);
        } else {
            return Err(Error::SYNTAX);
        }
    }
    Ok((count, only))
}

/// Replies with the key, the database and the size of each of the largest keys, and with the
/// maximum size of all other keys.
fn write_ranking(reply: &mut ReplyBuf, measure: &str, ranking: &Ranking, count: usize) {
    let top = ranking.top(count);
    reply.bulk(format!("by-{measure}").as_bytes());
    reply.array(top.len());
    for big in &top {
        reply.map(3);
        reply.bulk(b"key");
        reply.bulk(&big.name.shown());
        reply.bulk(b"db");
        reply.integer(big.name.db.into());
        reply.bulk(measure.as_bytes());
        reply.integer(big.size as i64);
    }
    reply.bulk(format!("{measure}-of-unlisted-at-most").as_bytes());
    let first_unlisted = ranking.top(count + 1).get(count).map(|big| big.size);
    reply.integer(first_unlisted.unwrap_or(ranking.floor()) as i64);
}

/// BIGKEYS RESET
fn bigkeys_reset(ctx: &mut Ctx) -> CmdResult {
    if !ctx.server.reset_bigkeys() {
        return Err(OFF);
    }
    ctx.client.reply.ok();
    Ok(())
}

/// BIGKEYS HELP
fn bigkeys_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "BIGKEYS <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET [COUNT <count>] [TYPE <type>]",
        "    Show the largest keys of each type by elements and by bytes (default: 10).",
        "RESET",
        "    Forget them and look at all keys again.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
