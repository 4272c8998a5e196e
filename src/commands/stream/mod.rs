//! Streams: a log of entries that many clients may read, and groups whose consumers divide the
//! entries among them.
//!
//! ```text
//!   mod.rs       the rows; IDs and intervals as arguments; entries as replies
//!   log.rs       XADD, XTRIM, XDEL, XDELEX, XSETID; XLEN, XRANGE, XREVRANGE: the log alone
//!   read.rs      XREAD, XREADGROUP: the entries behind an ID; BLOCK waits for new ones
//!   groups.rs    XGROUP, XACK, XACKDEL
//!   pending.rs   XPENDING, XCLAIM, XAUTOCLAIM: what was delivered and not acknowledged
//!   info.rs      XINFO
//! ```
//!
//! Entries are copied from the log straight into the reply. An empty stream is not deleted, unlike
//! an empty list or set, as it still has a last ID and groups.
//!
//! **Invariant:** propagated stream commands contain the resulting IDs and lengths. XADD with `*`
//! is propagated with the full ID, approximate trimming as exact trimming to the remaining length;
//! a delivery is propagated as XCLAIM with its time and count, and a group's position as XGROUP
//! SETID. So replicas need neither this server's clock nor its settings.
//! **Invariant:** only changes of a stream's entries concern WATCH and blocked clients; changes of
//! its groups do not (as in Redis 7.2).
//!
//! The transcripts `tests/transcripts/stream.txt` and `newer_stream.txt` have replies and errors.

mod groups;
mod info;
mod log;
mod pending;
mod read;

use crate::client::reply::ReplyBuf;
use crate::command::ctx::Ctx;
use crate::command::*;
use crate::ds::listpack::Element;
use crate::ds::stream::{IdBuf, NodeLimits, StreamEntry, StreamId};
use crate::error::Error;
use crate::keyspace::events;
use crate::state::Server;
use crate::types::stream::{Group, Stream};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("xack", groups::xack, -4, WRITE | FAST, STREAM).keys(&[key_at(1, RW | UPDATE)]),
    cmd("xackdel", groups::xackdel, -6, WRITE | FAST, STREAM)
        .keys(&[key_at(1, RW | UPDATE | DELETE)]),
    cmd("xadd", log::xadd, -5, WRITE | DENYOOM | FAST, STREAM)
        .keys(&[key_at(1, RW | UPDATE).note(
            "UPDATE instead of INSERT because of the optional trimming \
            feature",
        )])
        .tips(&["nondeterministic_output"]),
    cmd("xautoclaim", pending::xautoclaim, -6, WRITE | FAST, STREAM)
        .keys(&[key_at(1, RW | DELETE)])
        .tips(&["nondeterministic_output"]),
    cmd("xclaim", pending::xclaim, -6, WRITE | FAST, STREAM)
        .keys(&[key_at(1, RW | UPDATE)])
        .tips(&["nondeterministic_output"]),
    cmd("xdel", log::xdel, -3, WRITE | FAST, STREAM).keys(&[key_at(1, RW | DELETE)]),
    cmd("xdelex", log::xdelex, -5, WRITE | FAST, STREAM).keys(&[key_at(1, RW | DELETE)]),
    cmd("xgroup", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("create", groups::xgroup_create, -5, WRITE | DENYOOM, STREAM)
            .keys(&[key_at(2, RW | INSERT)]),
        cmd(
            "createconsumer",
            groups::xgroup_createconsumer,
            5,
            WRITE | DENYOOM,
            STREAM,
        )
        .keys(&[key_at(2, RW | INSERT)]),
        cmd("delconsumer", groups::xgroup_delconsumer, 5, WRITE, STREAM)
            .keys(&[key_at(2, RW | DELETE)]),
        cmd("destroy", groups::xgroup_destroy, 4, WRITE, STREAM).keys(&[key_at(2, RW | DELETE)]),
        cmd("help", groups::xgroup_help, 2, LOADING | STALE, STREAM),
        cmd("setid", groups::xgroup_setid, -5, WRITE, STREAM).keys(&[key_at(2, RW | UPDATE)]),
    ]),
    cmd("xinfo", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("consumers", info::xinfo_consumers, 4, READONLY, STREAM)
            .keys(&[key_at(2, RO | ACCESS)])
            .tips(&["nondeterministic_output"]),
        cmd("groups", info::xinfo_groups, 3, READONLY, STREAM).keys(&[key_at(2, RO | ACCESS)]),
        cmd("help", info::xinfo_help, 2, LOADING | STALE, STREAM),
        cmd("stream", info::xinfo_stream, -3, READONLY, STREAM).keys(&[key_at(2, RO | ACCESS)]),
    ]),
    cmd("xlen", log::xlen, 2, READONLY | FAST, STREAM).keys(&[key_at(1, RO)]),
    cmd("xpending", pending::xpending, -3, READONLY, STREAM)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("xrange", log::xrange, -4, READONLY, STREAM).keys(&[key_at(1, RO | ACCESS)]),
    cmd("xread", read::xread, -4, READONLY | BLOCKING, STREAM)
        .keys(&[key(RO | ACCESS, keyword("STREAMS", 1), range(-1, 1, 2))])
        .get_keys(keys::streams),
    cmd("xreadgroup", read::xreadgroup, -7, WRITE | BLOCKING, STREAM)
        .keys(&[key(RO | ACCESS, keyword("STREAMS", 4), range(-1, 1, 2))])
        .get_keys(keys::streams),
    cmd("xrevrange", log::xrevrange, -4, READONLY, STREAM).keys(&[key_at(1, RO | ACCESS)]),
    cmd("xsetid", log::xsetid, -3, WRITE | DENYOOM | FAST, STREAM).keys(&[key_at(1, RW | UPDATE)]),
    cmd("xtrim", log::xtrim, -4, WRITE, STREAM)
        .keys(&[key_at(1, RW | DELETE)])
        .tips(&["nondeterministic_output"]),
];

const INVALID_ID: Error = Error::of("ERR Invalid stream ID specified as stream command argument");

/// Parses an ID; `missing_seq` is the sequence number of an ID without one.
fn parse_id(text: &[u8], missing_seq: u64) -> Result<StreamId, Error> {
    StreamId::parse(text, missing_seq).ok_or(INVALID_ID)
}

/// Parses an ID, or `-` for the lowest and `+` for the highest.
fn parse_bound(text: &[u8], missing_seq: u64) -> Result<StreamId, Error> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => parse_id(text, missing_seq),
    }
}

/// Parses the first ID of an interval; `(` before the ID excludes it.
fn parse_start(text: &[u8]) -> Result<StreamId, Error> {
    match text.strip_prefix(b"(") {
        Some(id) => parse_id(id, 0)?
            .next()
            .ok_or(Error::of("ERR invalid start ID for the interval")),
        None => parse_bound(text, 0),
    }
}

/// Parses the last ID of an interval; `(` before the ID excludes it.
fn parse_end(text: &[u8]) -> Result<StreamId, Error> {
    match text.strip_prefix(b"(") {
        Some(id) => parse_id(id, u64::MAX)?
            .prev()
            .ok_or(Error::of("ERR invalid end ID for the interval")),
        None => parse_bound(text, u64::MAX),
    }
}

/// Parses all arguments from `at` on as IDs.
fn parse_ids(ctx: &Ctx, at: usize) -> Result<Vec<StreamId>, Error> {
    ctx.argv[at..]
        .iter()
        .map(|text| parse_id(text, 0))
        .collect()
}

fn limits(server: &Server) -> NodeLimits {
    NodeLimits {
        max_bytes: server.config.stream_node_max_bytes,
        max_entries: server.config.stream_node_max_entries,
    }
}

/// The stream under a key, for reading; `None` without the key, WRONGTYPE for any other type.
fn stream_ref<'s>(ctx: &'s mut Ctx, key: &[u8]) -> Result<Option<&'s Stream>, Error> {
    ctx.server
        .lookup_read(ctx.client, key)
        .map(Stream::of)
        .transpose()
}

/// The stream under a key, for a change; `None` without the key, WRONGTYPE for any other type.
fn stream_mut<'s>(ctx: &'s mut Ctx, key: &[u8]) -> Result<Option<&'s mut Stream>, Error> {
    ctx.server
        .lookup_write(ctx.client, key)
        .map(Stream::of_mut)
        .transpose()
}

/// Notifies and propagates a change of a group, which does not concern clients that watch the key.
fn group_changed(ctx: &mut Ctx, key: &[u8], event: &'static str) {
    ctx.dirty(1);
    let db = ctx.client.db;
    ctx.server.notify(events::STREAM, event, key, db);
}

#[inline]
fn reply_id(reply: &mut ReplyBuf, id: StreamId) {
    reply.bulk(id.format(&mut IdBuf::new()));
}

#[inline]
fn reply_element(reply: &mut ReplyBuf, element: Element) {
    match element {
        Element::Str(text) => reply.bulk(text),
        Element::Int(int) => reply.bulk_integer(int),
    }
}

/// Replies with an entry as an array of its ID and its fields.
fn reply_entry(reply: &mut ReplyBuf, entry: &StreamEntry) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(2 * entry.len());
    for (name, value) in entry.fields() {
        reply_element(reply, name);
        reply_element(reply, value);
    }
}

/// Replies with up to `count` entries as an array. Returns the number of entries in the reply.
fn reply_entries<'a>(
    reply: &mut ReplyBuf,
    entries: impl Iterator<Item = StreamEntry<'a>>,
    count: usize,
) -> usize {
    let array = reply.begin_deferred();
    let mut n = 0;
    for entry in entries.take(count) {
        reply_entry(reply, &entry);
        n += 1;
    }
    reply.end_array(array, n);
    n
}

/// Parses the number after COUNT; numbers below 0 become 0.
fn parse_count(ctx: &Ctx, at: usize) -> Result<usize, Error> {
    Ok(usize::try_from(ctx.int(at)?).unwrap_or(0))
}

fn id_text(id: StreamId) -> Vec<u8> {
    id.format(&mut IdBuf::new()).to_vec()
}
