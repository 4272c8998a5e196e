//! XREAD and XREADGROUP read the entries after an ID, from several streams at once, without a group
//! (XREAD) or as a consumer of a group (XREADGROUP); with BLOCK, they wait for new entries.
//!
//! The command of a blocked reader runs again when one of its streams changes. So `$` is replaced
//! by an ID when the client is blocked, whereas `+` is evaluated when the command runs again.
//!
//! XREADGROUP with `>` delivers entries that the group has not delivered yet; with an ID it shows a
//! consumer its own pending entries again. XREADGROUP is propagated to the AOF and the replicas as
//! its effects: XCLAIM for each delivery, XGROUP SETID for the group's position.

use super::pending::{propagate_claim, propagate_place};
use super::*;
use crate::client::blocked::BlockKind;
use crate::command::ctx::CmdResult;
use crate::ds::stream::StreamLog;
use crate::error::said;
use crate::execute::blocked::{block_for_keys, deadline_from_ms};
use crate::texts;
use crate::types::stream::ConsumerId;

/// XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]
pub fn xread(ctx: &mut Ctx) -> CmdResult {
    xread_generic(ctx)
}

/// XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...]
/// id [id ...]
pub fn xreadgroup(ctx: &mut Ctx) -> CmdResult {
    xread_generic(ctx)
}

/// The position from which XREAD or XREADGROUP reads one stream.
#[derive(Clone, Copy)]
enum From {
    /// An ID: read the entries after it; in XREADGROUP the consumer's own pending entries after it.
    Behind(StreamId),
    /// `>`: read the entries that the group has not delivered.
    New,
}

/// The names of a group and a consumer.
type GroupAndConsumer<'a> = (&'a [u8], &'a [u8]);

struct ReadOptions<'a> {
    count: usize,
    deadline_ms: Option<i64>,
    consumer: Option<GroupAndConsumer<'a>>,
    noack: bool,
    /// The index in argv of the first key; `streams` is the number of keys.
    keys_at: usize,
    streams: usize,
}

impl<'a> ReadOptions<'a> {
    fn parse(ctx: &Ctx<'a>) -> Result<ReadOptions<'a>, Error> {
        let grouped = ctx.cmd.name == "xreadgroup";
        let mut options = ReadOptions {
            count: usize::MAX,
            deadline_ms: None,
            consumer: None,
            noack: false,
            keys_at: keys::streams_at(ctx.argv).unwrap_or(0),
            streams: 0,
        };
        // The options of XREAD end at STREAMS, which the keys follow.
        let end = options.keys_at.checked_sub(1).unwrap_or(ctx.argv.len());
        let mut at = 1;
        while at < end {
            let more = ctx.argv.len() - 1 - at;
            if more > 0 && ctx.is(at, "block") {
                options.deadline_ms = Some(deadline_from_ms(ctx.server, ctx.argv[at + 1])?);
                at += 2;
            } else if more > 0 && ctx.is(at, "count") {
                options.count = parse_count(ctx, at + 1)?;
                at += 2;
            } else if more > 1 && ctx.is(at, "group") {
                if !grouped {
                    return Err(only_xreadgroup("GROUP"));
                }
                options.consumer = Some((ctx.argv[at + 1], ctx.argv[at + 2]));
                at += 3;
            } else if ctx.is(at, "noack") {
                if !grouped {
                    return Err(only_xreadgroup("NOACK"));
                }
                options.noack = true;
                at += 1;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        options.finish(ctx, grouped)
    }

    fn finish(mut self, ctx: &Ctx, grouped: bool) -> Result<ReadOptions<'a>, Error> {
        if self.keys_at == 0 {
            return Err(Error::SYNTAX);
        }
        let rest = ctx.argv.len() - self.keys_at;
        if !rest.is_multiple_of(2) {
            let name = ctx.cmd.name;
            let ids = if grouped {
                "ID or '>'"
            } else {
                ctx.server.config.text(texts::XREAD_IDS)
            };
            return Err(Error::new(format!(
                "ERR Unbalanced '{name}' list of streams: for each stream key an {ids} must be specified."
            )));
        }
        if grouped && self.consumer.is_none() {
            return Err(Error::of("ERR Missing GROUP option for XREADGROUP"));
        }
        self.streams = rest / 2;
        if self.count == 0 {
            self.count = usize::MAX;
        }
        Ok(self)
    }
}

fn only_xreadgroup(option: &str) -> Error {
    Error::new(format!(
        "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
    ))
}

fn xread_generic(ctx: &mut Ctx) -> CmdResult {
    let options = ReadOptions::parse(ctx)?;
    let keys = &ctx.argv[options.keys_at..options.keys_at + options.streams];
    let froms: Vec<From> = (0..options.streams)
        .map(|i| parse_from(ctx, &options, i))
        .collect::<Result<_, _>>()?;
    let reply = &mut ctx.client.reply;
    let (mark, whole) = (reply.mark(), reply.begin_deferred());
    let mut served = 0;
    for (key, from) in keys.iter().zip(&froms) {
        served += match options.consumer {
            None => read_log(ctx, key, *from, options.count)?,
            Some(consumer) => read_group(ctx, key, consumer, *from, &options)?,
        } as usize;
    }
    if options.consumer.is_some() {
        ctx.prevent_propagation();
    }
    let reply = &mut ctx.client.reply;
    if served > 0 && reply.resp3 {
        reply.end_map(whole, served);
    } else if served > 0 {
        reply.end_array(whole, served);
    } else {
        reply.truncate(mark);
        wait_or_null(ctx, &options, keys, &froms);
    }
    Ok(())
}

/// Parses the ID for the stream number `i`. Also checks the type of the stream's key and, for
/// XREADGROUP, that the group exists.
fn parse_from(ctx: &mut Ctx, options: &ReadOptions, i: usize) -> Result<From, Error> {
    let key = ctx.argv[options.keys_at + i];
    let text = ctx.argv[options.keys_at + options.streams + i];
    let entry = ctx.server.lookup_read(ctx.client, key);
    let stream = entry.map(Stream::of).transpose()?;
    if let Some((group, _)) = options.consumer
        && stream.and_then(|s| s.group(group)).is_none()
    {
        let (key, group) = (said(key), said(group));
        return Err(Error::new(format!(
            "NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP option"
        )));
    }
    match text {
        b"$" | b"+" if options.consumer.is_some() => {
            let sign = text[0] as char;
            Err(Error::new(format!(
                "ERR The {sign} ID is meaningless in the context of XREADGROUP: you want to read the history of \
                 this consumer by specifying a proper ID, or use the > ID to get new messages. The {sign} ID would \
                 just return an empty result set."
            )))
        }
        b"$" => Ok(From::Behind(
            stream.map_or(StreamId::MIN, |s| s.log.last_id()),
        )),
        b"+" => Ok(From::Behind(
            stream.map_or(StreamId::MIN, before_last_entry),
        )),
        b">" if options.consumer.is_none() => Err(Error::of(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        b">" => Ok(From::New),
        _ => match parse_id(text, 0)? {
            // No entry can follow the highest ID, so XREADGROUP treats this ID like `>`, as in
            // Redis.
            StreamId::MAX if options.consumer.is_some() => Ok(From::New),
            id => Ok(From::Behind(id)),
        },
    }
}

/// The ID after which only the stream's last entry follows; 0-0 in a stream without entries, so
/// that the next entry to be added counts as the last.
fn before_last_entry(stream: &Stream) -> StreamId {
    let mut newest = stream.log.rev_range(StreamId::MIN, StreamId::MAX);
    let last = newest.next().map(|entry| entry.id);
    last.and_then(|id| id.prev()).unwrap_or(StreamId::MIN)
}

/// Called when XREAD finds no entries: blocks the client if BLOCK was given, otherwise replies with
/// null.
fn wait_or_null(ctx: &mut Ctx, options: &ReadOptions, keys: &[&[u8]], froms: &[From]) {
    let Some(deadline_ms) = options.deadline_ms else {
        return ctx.client.reply.null_array();
    };
    let ids_at = options.keys_at + options.streams;
    let ids: Vec<Vec<u8>> = std::iter::zip(froms, &ctx.argv[ids_at..])
        .map(|(from, &text)| match from {
            // The ID `+` is kept, as it is evaluated when the blocked command runs again.
            _ if text == b"+" => text.into(),
            From::Behind(id) => id_text(*id),
            From::New => b">".into(),
        })
        .collect();
    let mut argv = ctx.argv[..ids_at].to_vec();
    argv.extend(ids.iter().map(Vec::as_slice));
    let grouped = options.consumer.is_some();
    block_for_keys(
        ctx.server,
        ctx.client,
        BlockKind::Stream,
        &argv,
        keys,
        deadline_ms,
        grouped,
    );
}

/// Begins the reply of one stream, its key and its entries: a pair in RESP3's map, an array in
/// RESP2.
fn reply_key(reply: &mut ReplyBuf, key: &[u8]) {
    if !reply.resp3 {
        reply.array(2);
    }
    reply.bulk(key);
}

/// XREAD: replies with the entries of one stream after an ID. Returns false if the stream has no
/// entry after the ID.
fn read_log(ctx: &mut Ctx, key: &[u8], from: From, count: usize) -> Result<bool, Error> {
    let From::Behind(id) = from else {
        return Ok(false);
    };
    let Some(start) = id.next() else {
        return Ok(false);
    };
    let Some(entry) = ctx.server.lookup_no_touch(ctx.client, key) else {
        return Ok(false);
    };
    let log = &Stream::of(entry)?.log;
    let mut entries = log.range(start, StreamId::MAX).peekable();
    if entries.peek().is_none() {
        return Ok(false);
    }
    let reply = &mut ctx.client.reply;
    reply_key(reply, key);
    reply_entries(reply, entries, count);
    Ok(true)
}

/// A consumer of a group that executes XREADGROUP.
struct Reader {
    consumer: ConsumerId,
    now_ms: i64,
    count: usize,
    noack: bool,
    /// Whether deliveries are propagated, since there is an AOF or a replica.
    propagated: bool,
}

/// XREADGROUP: replies with new entries of one stream, or with the consumer's pending entries.
/// Returns false if `>` finds no new entry.
fn read_group(
    ctx: &mut Ctx,
    key: &[u8],
    (group_name, consumer_name): GroupAndConsumer,
    from: From,
    options: &ReadOptions,
) -> Result<bool, Error> {
    let now_ms = ctx.server.clock.now_ms;
    let propagated = ctx.server.propagation.wanted();
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        return Ok(false);
    };
    let Some((log, group)) = Stream::of_mut(entry)?.log_and_group(group_name) else {
        return Ok(false);
    };
    let created = group.create_consumer(consumer_name, now_ms);
    let Some(consumer) = created.or_else(|| group.find_consumer(consumer_name)) else {
        return Ok(false);
    };
    group.consumer_mut(consumer).seen_time = now_ms;
    let reader = Reader {
        consumer,
        now_ms,
        count: options.count,
        noack: options.noack,
        propagated,
    };
    let reply = &mut ctx.client.reply;
    let start = group.last_id;
    let mut delivered = Vec::new();
    let served = match from {
        From::Behind(id) => {
            reply_key(reply, key);
            reader.reply_history(reply, log, group, id);
            true
        }
        From::New if has_entries_behind(log, start) => {
            reply_key(reply, key);
            delivered = reader.deliver(reply, log, group);
            true
        }
        From::New => false,
    };
    let place = (group.last_id, group.entries_read);
    if created.is_some() {
        group_changed(ctx, key, "xgroup-createconsumer");
        if options.noack {
            let argv: [&[u8]; 5] = [b"XGROUP", b"CREATECONSUMER", key, group_name, consumer_name];
            ctx.also_propagate(&argv);
        }
    }
    for id in delivered {
        propagate_claim(ctx, key, group_name, consumer_name, id, (now_ms, 1), id);
    }
    if place.0 != start {
        ctx.dirty(1);
        propagate_place(ctx, key, group_name, place);
    }
    Ok(served)
}

fn has_entries_behind(log: &StreamLog, id: StreamId) -> bool {
    id.next()
        .is_some_and(|start| log.range(start, StreamId::MAX).next().is_some())
}

impl Reader {
    /// Replies with new entries and delivers them to the consumer. Returns the IDs of the new
    /// pending entries, if deliveries are propagated.
    fn deliver(&self, reply: &mut ReplyBuf, log: &StreamLog, group: &mut Group) -> Vec<StreamId> {
        let mut pending = Vec::new();
        let start = group.last_id.next().unwrap_or(StreamId::MAX);
        let array = reply.begin_deferred();
        let mut n = 0;
        for entry in log.range(start, StreamId::MAX).take(self.count) {
            group.advance(log, entry.id);
            reply_entry(reply, &entry);
            n += 1;
            if !self.noack {
                group.deliver(entry.id, self.consumer, self.now_ms);
                if self.propagated {
                    pending.push(entry.id);
                }
            }
        }
        reply.end_array(array, n);
        if !self.noack {
            group.consumer_mut(self.consumer).active_time = self.now_ms;
        }
        pending
    }

    /// Replies with the consumer's own pending entries after an ID; an entry that is no longer in
    /// the stream is shown without fields.
    fn reply_history(
        &self,
        reply: &mut ReplyBuf,
        log: &StreamLog,
        group: &mut Group,
        behind: StreamId,
    ) {
        let start = behind.next().unwrap_or(StreamId::MAX);
        let pending = group.consumer(self.consumer).pending(start..);
        let ids: Vec<StreamId> = pending.take(self.count).collect();
        reply.array(ids.len());
        for id in ids {
            match log.get(id) {
                Some(entry) => {
                    reply_entry(reply, &entry);
                    group.redeliver(id, self.now_ms);
                }
                None => {
                    reply.array(2);
                    reply_id(reply, id);
                    reply.null_array();
                }
            }
        }
    }
}
