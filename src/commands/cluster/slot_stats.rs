//! CLUSTER SLOT-STATS: keys, time and traffic of slots.

use super::change::slot;
use super::member;
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::slot::SLOTS;
use crate::error::Error;
use crate::state::Server;
use crate::util::number::parse_i64;

/// The metrics of CLUSTER SLOT-STATS, in the order of its reply. Without
/// `cluster-slot-stats-enabled` there is only `key-count`.
const METRICS: [&str; 4] = [
    "key-count",
    "cpu-usec",
    "network-bytes-in",
    "network-bytes-out",
];

/// CLUSTER SLOT-STATS SLOTSRANGE first last | ORDERBY metric [LIMIT n] [ASC | DESC]
pub fn slot_stats(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    if ctx.is(2, "slotsrange") && ctx.argv.len() == 5 {
        let (first, last) = (slot(ctx.argv[3])?, slot(ctx.argv[4])?);
        if first > last {
            return Err(Error::new(format!(
                "ERR Start slot number {first} is greater than end slot number {last}"
            )));
        }
        let mut slots = own_slots(ctx.server);
        slots.retain(|slot| (first..=last).contains(slot));
        reply(ctx, &slots);
        return Ok(());
    }
    if !ctx.is(2, "orderby") || ctx.argv.len() < 4 {
        return Err(Error::subcommand_syntax("CLUSTER", ctx.argv[1]));
    }
    let metric = metric(ctx)?;
    let (limit, ascending) = parse_order(ctx)?;
    let mut slots = own_slots(ctx.server);
    // Slots for which the metric is equal stay in the order of their numbers.
    slots.sort_by_key(|slot| {
        let value = u128::from(figures(ctx.server, ctx.client.db, *slot)[metric]);
        if ascending { value } else { u128::MAX - value }
    });
    slots.truncate(limit);
    reply(ctx, &slots);
    Ok(())
}

fn metric(ctx: &Ctx) -> Result<usize, Error> {
    let counted = match ctx.server.stats.slots {
        Some(_) => METRICS.len(),
        None => 1,
    };
    let found = METRICS[..counted].iter().position(|name| ctx.is(3, name));
    found.ok_or(Error::of("ERR Unrecognized sort metric for ORDERBY."))
}

/// Parses LIMIT, ASC and DESC: the number of slots, and whether the order is ascending.
fn parse_order(ctx: &Ctx) -> Result<(usize, bool), Error> {
    let (mut limit, mut ascending) = (None, None);
    let mut at = 4;
    while at < ctx.argv.len() {
        let is_repeated = if ctx.is(at, "limit") && at + 1 < ctx.argv.len() {
            at += 1;
            limit.replace(parse_limit(ctx.argv[at])?).is_some()
        } else if ctx.is(at, "asc") || ctx.is(at, "desc") {
            ascending.replace(ctx.is(at, "asc")).is_some()
        } else {
            return Err(Error::SYNTAX);
        };
        if is_repeated {
            return Err(Error::of(
                "ERR Multiple filters of the same type are disallowed.",
            ));
        }
        at += 1;
    }
    Ok((limit.unwrap_or(SLOTS), ascending.unwrap_or(false)))
}

fn parse_limit(text: &[u8]) -> Result<usize, Error> {
    let limit = parse_i64(text).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| (1..=SLOTS).contains(limit));
    limit.ok_or(Error::of(
        "ERR Limit has to lie in between 1 and 16384 (maximum number of slots).",
    ))
}

/// The slots of this node's shard.
fn own_slots(server: &Server) -> Vec<u16> {
    let member = server.cluster.as_ref();
    member.map_or(Vec::new(), |member| member.machine.shard_slots())
}

/// The values of the [`METRICS`] for a slot.
fn figures(server: &Server, db: u32, slot: u16) -> [u64; 4] {
    let usage = server.stats.slots.as_ref().map(|stats| stats.of(slot));
    let usage = usage.unwrap_or_default();
    [
        server.slot_len(db, slot) as u64,
        server.clock.us(usage.ticks),
        usage.bytes_in,
        usage.bytes_out,
    ]
}

fn reply(ctx: &mut Ctx, slots: &[u16]) {
    let counted = if ctx.server.stats.slots.is_some() {
        4
    } else {
        1
    };
    ctx.client.reply.array(slots.len());
    for slot in slots {
        let figures = figures(ctx.server, ctx.client.db, *slot);
        let reply = &mut ctx.client.reply;
        reply.array(2);
        reply.integer((*slot).into());
        reply.map(counted);
        for (name, figure) in METRICS.iter().zip(figures).take(counted) {
            reply.bulk(name.as_bytes());
            reply.integer(figure.cast_signed());
        }
    }
}
