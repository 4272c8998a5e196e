//! Pending entries: the entries that a group has delivered and that are not acknowledged. XPENDING
//! shows these entries; XCLAIM and XAUTOCLAIM assign them to another consumer.
//!
//! A claim is propagated to the AOF and the replicas as `XCLAIM key group consumer 0 id TIME ..
//! RETRYCOUNT .. FORCE JUSTID LASTID ..`: the command contains the resulting state of the pending
//! entry, which does not depend on the state before. A claimed entry that is no longer in the
//! stream is removed from the pending entries. This removal is propagated as XCLAIM, too, which
//! removes the pending entry on a replica in the same way.

use super::*;
use crate::command::ctx::CmdResult;
use crate::ds::stream::StreamLog;
use crate::error::said;
use crate::types::stream::{Claim, ConsumerId};
use crate::util::number::parse_i64;

fn no_group(key: &[u8], group: &[u8]) -> Error {
    let (key, group) = (said(key), said(group));
    Error::new(format!(
        "NOGROUP No such key '{key}' or consumer group '{group}'"
    ))
}

/// XPENDING key group [[IDLE min-idle-time] start end count [consumer]]
pub fn xpending(ctx: &mut Ctx) -> CmdResult {
    let filter = Filter::parse(ctx)?;
    let (key, name) = (ctx.argv[1], ctx.argv[2]);
    let now_ms = ctx.server.clock.now_ms;
    let entry = ctx.server.lookup_read(ctx.client, key);
    let stream = entry.map(Stream::of).transpose()?;
    let group = stream
        .and_then(|s| s.group(name))
        .ok_or_else(|| no_group(key, name))?;
    let reply = &mut ctx.client.reply;
    match filter {
        None => reply_summary(reply, group),
        Some(filter) => filter.reply(reply, group, now_ms),
    }
    Ok(())
}

fn reply_summary(reply: &mut ReplyBuf, group: &Group) {
    reply.array(4);
    reply.integer(group.pending_count() as i64);
    let mut ids = group.pending(..).map(|(&id, _)| id);
    let Some(first) = ids.next() else {
        reply.null();
        reply.null();
        return reply.null_array();
    };
    reply_id(reply, first);
    reply_id(reply, ids.next_back().unwrap_or(first));
    let with_pending = || group.consumers().filter(|(_, c)| c.pending_count() > 0);
    reply.array(with_pending().count());
    for (_, consumer) in with_pending() {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk_integer(consumer.pending_count() as i64);
    }
}

/// The conditions for the pending entries that XPENDING shows: interval of IDs, idle time,
/// consumer.
struct Filter<'a> {
    min_idle_ms: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    /// Parses the arguments of XPENDING; `None` if the client requests the summary of the group.
    fn parse(ctx: &Ctx<'a>) -> Result<Option<Filter<'a>>, Error> {
        let argc = ctx.argv.len();
        if argc == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&argc) {
            return Err(Error::SYNTAX);
        }
        let (mut at, mut min_idle_ms) = (3, 0);
        if ctx.is(at, "idle") {
            min_idle_ms = ctx.int(4)?;
            at = 5;
            if argc < 8 {
                return Err(Error::SYNTAX);
            }
        }
        let count = parse_count(ctx, at + 2)?;
        let (start, end) = (parse_start(ctx.argv[at])?, parse_end(ctx.argv[at + 1])?);
        let consumer = ctx.argv.get(at + 3).copied();
        Ok(Some(Filter {
            min_idle_ms,
            start,
            end,
            count,
            consumer,
        }))
    }

    fn reply(&self, reply: &mut ReplyBuf, group: &Group, now_ms: i64) {
        let array = reply.begin_deferred();
        let mut n = 0;
        let mut show = |id: StreamId| {
            let Some(nack) = group.nack(id) else { return };
            let idle_ms = now_ms.saturating_sub(nack.delivery_time);
            if n == self.count || self.min_idle_ms != 0 && idle_ms < self.min_idle_ms {
                return;
            }
            reply.array(4);
            reply_id(reply, id);
            reply.bulk(group.consumer(nack.consumer()).name());
            reply.integer(idle_ms.max(0));
            reply.integer(nack.delivery_count as i64);
            n += 1;
        };
        let ids = self.start..=self.end;
        if self.start <= self.end {
            match self.consumer.map(|name| group.find_consumer(name)) {
                None => group.pending(ids).for_each(|(&id, _)| show(id)),
                Some(None) => {}
                Some(Some(consumer)) => group.consumer(consumer).pending(ids).for_each(show),
            }
        }
        reply.end_array(array, n);
    }
}

/// The options of XCLAIM.
#[derive(Default)]
struct ClaimOptions {
    delivery_time: Option<i64>,
    retry_count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: Option<StreamId>,
}

impl ClaimOptions {
    /// Parses IDLE ms | TIME unix-time-ms, RETRYCOUNT count, FORCE, JUSTID, LASTID id: in any
    /// order, the last one counts.
    fn parse(ctx: &Ctx, mut at: usize) -> Result<ClaimOptions, Error> {
        let now_ms = ctx.server.clock.now_ms;
        let mut options = ClaimOptions::default();
        while at < ctx.argv.len() {
            let value = ctx.argv.get(at + 1);
            let number = |text| value.and_then(|v| parse_i64(v)).ok_or(Error::of(text));
            let mut taken = 2;
            if ctx.is(at, "force") {
                options.force = true;
                taken = 1;
            } else if ctx.is(at, "justid") {
                options.just_id = true;
                taken = 1;
            } else if value.is_some() && ctx.is(at, "idle") {
                let idle_ms = number("ERR Invalid IDLE option argument for XCLAIM")?;
                options.delivery_time = Some(now_ms.wrapping_sub(idle_ms));
            } else if value.is_some() && ctx.is(at, "time") {
                options.delivery_time =
                    Some(number("ERR Invalid TIME option argument for XCLAIM")?);
            } else if value.is_some() && ctx.is(at, "retrycount") {
                let count = number("ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                options.retry_count = u64::try_from(count).ok();
            } else if let Some(id) = value.filter(|_| ctx.is(at, "lastid")) {
                options.last_id = Some(parse_id(id, 0)?);
            } else {
                let name = said(ctx.argv[at]);
                return Err(Error::new(format!(
                    "ERR Unrecognized XCLAIM option '{name}'"
                )));
            }
            at += taken;
        }
        // A delivery time in the future, or before 1970, becomes the present.
        options.delivery_time = options.delivery_time.map(|time| {
            if (0..=now_ms).contains(&time) {
                time
            } else {
                now_ms
            }
        });
        Ok(options)
    }

    /// The new state of a pending entry that was delivered `count` times.
    fn claim(&self, count: u64, now_ms: i64) -> Claim {
        let count = match self.retry_count {
            Some(count) => count,
            None if self.just_id => count,
            None => count.saturating_add(1),
        };
        Claim {
            delivery_time: self.delivery_time.unwrap_or(now_ms),
            delivery_count: count,
        }
    }
}

/// The consumer that claims pending entries, and its claims, which are propagated.
struct Claimer {
    consumer: ConsumerId,
    created: bool,
    propagated: bool,
    /// The claims to propagate: (ID, name of the consumer that has the entry, delivery time,
    /// delivery count).
    claims: Vec<(StreamId, Box<[u8]>, i64, u64)>,
    now_ms: i64,
}

impl Claimer {
    /// A claimer for the consumer `name`, which is created in the group if it does not exist.
    fn new(group: &mut Group, name: &[u8], now_ms: i64, propagated: bool) -> Option<Claimer> {
        let created = group.create_consumer(name, now_ms);
        let consumer = created.or_else(|| group.find_consumer(name))?;
        group.consumer_mut(consumer).seen_time = now_ms;
        Some(Claimer {
            consumer,
            created: created.is_some(),
            propagated,
            claims: Vec::new(),
            now_ms,
        })
    }

    /// Records the present state of a pending entry for propagation.
    fn record(&mut self, group: &Group, id: StreamId) {
        if self.propagated
            && let Some(nack) = group.nack(id)
        {
            let name = group.consumer(nack.consumer()).name();
            self.claims
                .push((id, name.into(), nack.delivery_time, nack.delivery_count));
        }
    }

    fn claim(&mut self, group: &mut Group, id: StreamId, claim: Claim) {
        group.assign(id, self.consumer, claim);
        group.consumer_mut(self.consumer).active_time = self.now_ms;
        self.record(group, id);
    }

    /// Removes a pending entry whose entry is no longer in the stream.
    fn drop_lost(&mut self, group: &mut Group, id: StreamId) {
        self.record(group, id);
        group.ack(id);
    }
}

/// XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-ms] [RETRYCOUNT
/// count] [FORCE] [JUSTID] [LASTID id]
pub fn xclaim(ctx: &mut Ctx) -> CmdResult {
    let (key, name) = (ctx.argv[1], ctx.argv[2]);
    if stream_mut(ctx, key)?.and_then(|s| s.group(name)).is_none() {
        return Err(no_group(key, name));
    }
    let min_idle_ms = parse_i64(ctx.argv[4])
        .ok_or(Error::of("ERR Invalid min-idle-time argument for XCLAIM"))?
        .max(0);
    let ids: Vec<StreamId> = ctx.argv[5..]
        .iter()
        .map_while(|text| StreamId::parse(text, 0))
        .collect();
    let options = ClaimOptions::parse(ctx, 5 + ids.len())?;

    let now_ms = ctx.server.clock.now_ms;
    let propagated = ctx.server.propagation.wanted();
    let consumer_name = ctx.argv[3];
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        return Ok(());
    };
    let Some((log, group)) = Stream::of_mut(entry)?.log_and_group(name) else {
        return Ok(());
    };
    let moved = options.last_id.filter(|&id| id > group.last_id);
    if let Some(id) = moved {
        group.last_id = id;
    }
    let Some(mut claimer) = Claimer::new(group, consumer_name, now_ms, propagated) else {
        return Ok(());
    };
    let reply = &mut ctx.client.reply;
    let array = reply.begin_deferred();
    let (mut claimed, mut lost) = (0, 0);
    for id in ids {
        let nack = group.nack(id).copied();
        let Some(entry) = log.get(id) else {
            if nack.is_some() {
                claimer.drop_lost(group, id);
                lost += 1;
            }
            continue;
        };
        let count = match nack {
            Some(nack) if now_ms.saturating_sub(nack.delivery_time) < min_idle_ms => continue,
            Some(nack) => nack.delivery_count,
            None if options.force => 1,
            None => continue,
        };
        claimer.claim(group, id, options.claim(count, now_ms));
        reply_claimed(reply, &entry, options.just_id);
        claimed += 1;
    }
    reply.end_array(array, claimed);
    let place = (group.last_id, group.entries_read);
    if moved.is_some() && claimed + lost == 0 {
        propagate_place(ctx, key, name, place);
        ctx.dirty(1);
    }
    finish_claim(ctx, claimer, place.0, claimed + lost);
    Ok(())
}

fn reply_claimed(reply: &mut ReplyBuf, entry: &StreamEntry, just_id: bool) {
    if just_id {
        reply_id(reply, entry.id);
    } else {
        reply_entry(reply, entry);
    }
}

/// Counts as changes, and propagates, the pending entries that XCLAIM or XAUTOCLAIM claimed or
/// removed.
fn finish_claim(ctx: &mut Ctx, claimer: Claimer, last_id: StreamId, changes: usize) {
    let (key, group) = (ctx.argv[1], ctx.argv[2]);
    ctx.dirty(changes as u64);
    if claimer.created {
        group_changed(ctx, key, "xgroup-createconsumer");
    }
    for (id, consumer, time, count) in claimer.claims {
        propagate_claim(ctx, key, group, &consumer, id, (time, count), last_id);
    }
    ctx.prevent_propagation();
}

/// Propagates the state of a pending entry as the XCLAIM that creates this state.
pub fn propagate_claim(
    ctx: &mut Ctx,
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
    id: StreamId,
    (time, count): (i64, u64),
    last_id: StreamId,
) {
    let (time, count) = (time.to_string(), count.to_string());
    let (mut id_buf, mut last_buf) = (IdBuf::new(), IdBuf::new());
    ctx.also_propagate(&[
        b"XCLAIM".as_slice(),
        key,
        group,
        consumer,
        b"0",
        id.format(&mut id_buf),
        b"TIME",
        time.as_bytes(),
        b"RETRYCOUNT",
        count.as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        last_id.format(&mut last_buf),
    ]);
}

/// Propagates a group's position as the XGROUP SETID that sets the position.
pub fn propagate_place(
    ctx: &mut Ctx,
    key: &[u8],
    group: &[u8],
    (id, read): (StreamId, Option<u64>),
) {
    let read = read.map_or(-1, |n| n as i64).to_string();
    let mut buf = IdBuf::new();
    let id = id.format(&mut buf);
    ctx.also_propagate(&[
        b"XGROUP".as_slice(),
        b"SETID",
        key,
        group,
        id,
        b"ENTRIESREAD",
        read.as_bytes(),
    ]);
}

/// XAUTOCLAIM checks at most COUNT times this number of pending entries.
const ATTEMPTS_FACTOR: usize = 10;
/// The largest COUNT of XAUTOCLAIM.
const AUTOCLAIM_COUNT_MAX: i64 = i64::MAX / 16;

/// XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]
pub fn xautoclaim(ctx: &mut Ctx) -> CmdResult {
    let min_idle_ms = parse_i64(ctx.argv[4])
        .ok_or(Error::of(
            "ERR Invalid min-idle-time argument for XAUTOCLAIM",
        ))?
        .max(0);
    let start = parse_start(ctx.argv[5])?;
    let (mut count, mut just_id) = (100, false);
    let mut at = 6;
    while at < ctx.argv.len() {
        if ctx.is(at, "count") && at + 1 < ctx.argv.len() {
            count = ctx.int_in(at + 1, 1, AUTOCLAIM_COUNT_MAX, "ERR COUNT must be > 0")? as usize;
            at += 2;
        } else if ctx.is(at, "justid") {
            just_id = true;
            at += 1;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let (key, name) = (ctx.argv[1], ctx.argv[2]);
    let now_ms = ctx.server.clock.now_ms;
    let propagated = ctx.server.propagation.wanted();
    let consumer_name = ctx.argv[3];
    let entry = ctx.server.lookup_write(ctx.client, key);
    let stream = entry.map(Stream::of_mut).transpose()?;
    let Some((log, group)) = stream.and_then(|s| s.log_and_group(name)) else {
        return Err(no_group(key, name));
    };
    let Some(mut claimer) = Claimer::new(group, consumer_name, now_ms, propagated) else {
        return Ok(());
    };
    let found = claimer.claim_idle(log, group, start, count, min_idle_ms, just_id);
    let reply = &mut ctx.client.reply;
    reply.array(3);
    reply_id(reply, found.cursor);
    reply.array(found.claimed.len());
    found
        .claimed
        .iter()
        .for_each(|entry| reply_claimed(reply, entry, just_id));
    reply.array(found.lost.len());
    found.lost.iter().for_each(|&id| reply_id(reply, id));
    let (last_id, changes) = (group.last_id, found.claimed.len() + found.lost.len());
    finish_claim(ctx, claimer, last_id, changes);
    Ok(())
}

/// The result of one XAUTOCLAIM.
struct Found<'a> {
    /// The ID at which the next XAUTOCLAIM continues; 0-0 at the end of the pending entries.
    cursor: StreamId,
    claimed: Vec<StreamEntry<'a>>,
    /// The IDs of pending entries whose entries are no longer in the stream.
    lost: Vec<StreamId>,
}

impl Claimer {
    /// Claims up to `count` pending entries, from `start` on, that have been idle for at least
    /// `min_idle_ms`.
    fn claim_idle<'a>(
        &mut self,
        log: &'a StreamLog,
        group: &mut Group,
        start: StreamId,
        count: usize,
        min_idle_ms: i64,
        just_id: bool,
    ) -> Found<'a> {
        let options = ClaimOptions {
            just_id,
            ..ClaimOptions::default()
        };
        let mut attempts = count.saturating_mul(ATTEMPTS_FACTOR);
        let mut found = Found {
            cursor: StreamId::MIN,
            claimed: Vec::new(),
            lost: Vec::new(),
        };
        let mut next = Some(start);
        while let Some((&id, &nack)) = next.and_then(|from| group.pending(from..).next()) {
            if attempts == 0 || found.claimed.len() + found.lost.len() == count {
                found.cursor = id;
                break;
            }
            attempts -= 1;
            next = id.next();
            match log.get(id) {
                None => {
                    self.drop_lost(group, id);
                    found.lost.push(id);
                }
                Some(entry) if self.now_ms.saturating_sub(nack.delivery_time) >= min_idle_ms => {
                    self.claim(group, id, options.claim(nack.delivery_count, self.now_ms));
                    found.claimed.push(entry);
                }
                Some(_) => {}
            }
        }
        found
    }
}
