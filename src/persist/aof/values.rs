//! Writes the data set as commands, the form of the base file with `aof-use-rdb-preamble no`.
//!
//! ```text
//!   string   SET k v                     hash    HMSET k f v [f v ...]   HPEXPIREAT k ms FIELDS 1 f
//!   list     RPUSH k e [e ...]           stream  XADD k id f v ...       XSETID k id ENTRIESADDED n MAXDELETEDID id
//!   set      SADD k m [m ...]                    XGROUP CREATE, XGROUP CREATECONSUMER
//!   zset     ZADD k score m [...]                XCLAIM k g c 0 id TIME ms RETRYCOUNT n JUSTID FORCE
//!   PEXPIREAT k ms behind a key with a time to live, SELECT before a database's first key
//! ```
//!
//! A command of the base has at most [`ITEMS_PER_CMD`] elements of a value, so that no command
//! blocks the loading server for long. The commands are Redis's, so Redis and this server load each
//! other's bases.
//!
//! A stream without entries still has a last ID, so one entry with this ID is added to the stream
//! and trimmed at once.

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::ds::bulk::{push_bulk, push_command, push_count};
use crate::ds::entry::ValueRef;
use crate::ds::stream::{IdBuf, StreamId};
use crate::persist::child::Meter;
use crate::state::Server;
use crate::types::hash::Hash;
use crate::types::list::{End, List};
use crate::types::set::Set;
use crate::types::stream::{Group, Stream};
use crate::types::string::StrView;
use crate::types::zset::Zset;
use crate::types::{KeyRef, Value};
use crate::util::number::{IntBuf, write_g};

/// The maximum number of elements of a value in one command of the base file.
const ITEMS_PER_CMD: usize = 64;
/// The number of bytes of commands that are collected before they are written to the file.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the whole data set as commands.
pub fn write_data_set(server: &Server, sink: &mut dyn Write, meter: Meter) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * CHUNK_BYTES);
    if server.config.aof_timestamp_enabled {
        out.extend_from_slice(format!("#TS:{}\r\n", server.clock.now_s()).as_bytes());
    }
    for source in server.function_sources() {
        push_command(&mut out, &[b"FUNCTION" as &[u8], b"LOAD", source]);
    }
    for db in server.data.dbs.iter().filter(|db| !db.is_empty()) {
        push_command(&mut out, &[b"SELECT", IntBuf::new().format(db.index)]);
        let walk = db.keys.try_walk(|entry| {
            write_key(&mut out, entry);
            if out.len() >= CHUNK_BYTES {
                if let Err(e) = sink.write_all(&out) {
                    return ControlFlow::Break(e);
                }
                meter.bytes_done(out.len());
                out.clear();
            }
            meter.key_done();
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(e) = walk {
            return Err(e);
        }
    }
    sink.write_all(&out)
}

/// Appends the commands that create the key of `entry`, with its value and its time to live.
pub fn write_key(out: &mut Vec<u8>, entry: KeyRef) {
    let key = entry.key();
    match entry.value() {
        ValueRef::Int(n) => push_command(out, &[b"SET", key, IntBuf::new().format(n)]),
        ValueRef::Str(bytes) => push_command(out, &[b"SET", key, bytes]),
        ValueRef::Obj(value) => write_object(out, key, value),
        ValueRef::Packed(packed) => write_object(out, key, &packed.read::<Value>()),
    }
    if let Some(at) = entry.expire_at() {
        push_command(out, &[b"PEXPIREAT", key, IntBuf::new().format(at)]);
    }
}

fn write_object(out: &mut Vec<u8>, key: &[u8], value: &Value) {
    match value {
        Value::Str(raw) => {
            let text = StrView::Bytes(raw.bytes());
            push_command(out, &[b"SET", key, text.bytes(&mut IntBuf::new())]);
        }
        Value::List(list) => write_list(out, key, list),
        Value::Set(set) => write_set(out, key, set),
        Value::Hash(hash) => write_hash(out, key, hash),
        Value::Zset(zset) => write_zset(out, key, zset),
        Value::Stream(stream) => write_stream(out, key, stream),
    }
}

/// Writes commands of the form `VERB key item item ..`, with at most [`ITEMS_PER_CMD`] items in
/// each command.
struct Batches<'a> {
    out: &'a mut Vec<u8>,
    verb: &'a [u8],
    key: &'a [u8],
    /// The number of items that are still to be written; the next field is how many of them belong
    /// to the present command.
    left: usize,
    room: usize,
    /// The number of arguments for each item: 2 for a pair, such as a field and its value.
    width: usize,
}

impl<'a> Batches<'a> {
    fn new(
        out: &'a mut Vec<u8>,
        verb: &'a [u8],
        key: &'a [u8],
        items: usize,
        width: usize,
    ) -> Self {
        Batches {
            out,
            verb,
            key,
            left: items,
            room: 0,
            width,
        }
    }

    fn item(&mut self, args: &[&[u8]]) {
        if self.room == 0 {
            self.room = self.left.min(ITEMS_PER_CMD);
            push_count(self.out, b'*', 2 + self.room * self.width);
            push_bulk(self.out, b'$', self.verb);
            push_bulk(self.out, b'$', self.key);
        }
        self.room -= 1;
        self.left -= 1;
        args.iter().for_each(|arg| push_bulk(self.out, b'$', arg));
    }
}

fn write_list(out: &mut Vec<u8>, key: &[u8], list: &List) {
    let mut batches = Batches::new(out, b"RPUSH", key, list.len(), 1);
    list.range(0, list.len(), End::Head, |element| {
        batches.item(&[element.text(&mut IntBuf::new())]);
    });
}

fn write_set(out: &mut Vec<u8>, key: &[u8], set: &Set) {
    let mut batches = Batches::new(out, b"SADD", key, set.len(), 1);
    set.for_each(|member| batches.item(&[member.text(&mut IntBuf::new())]));
}

fn write_zset(out: &mut Vec<u8>, key: &[u8], zset: &Zset) {
    let mut batches = Batches::new(out, b"ZADD", key, zset.len(), 2);
    let mut text = Vec::new();
    zset.for_each(|member, score| {
        text.clear();
        write_g(&mut text, score, 17);
        batches.item(&[&text, member]);
    });
}

fn write_hash(out: &mut Vec<u8>, key: &[u8], hash: &Hash) {
    let mut batches = Batches::new(out, b"HMSET", key, hash.total_len(), 2);
    if hash.volatile_len() == 0 {
        return hash.for_each(|field, value| {
            let (mut field_text, mut value_text) = (IntBuf::new(), IntBuf::new());
            batches.item(&[field.text(&mut field_text), value.text(&mut value_text)]);
        });
    }
    hash.for_each_volatile(|field, value, _| batches.item(&[field, value]));
    hash.for_each_volatile(|field, _, at| {
        if let Some(at) = at {
            let mut digits = IntBuf::new();
            let at = digits.format(at);
            push_command(out, &[b"HPEXPIREAT", key, at, b"FIELDS", b"1", field]);
        }
    });
}

fn write_stream(out: &mut Vec<u8>, key: &[u8], stream: &Stream) {
    let log = &stream.log;
    let mut id = IdBuf::new();
    if log.is_empty() {
        // An entry with the ID 0-0 can't be added to a stream, so the entry has at least the ID
        // 0-1; XSETID, which follows, sets the last ID.
        let last = log.last_id().max(StreamId::new(0, 1));
        let last = last.format(&mut id);
        push_command(out, &[b"XADD", key, b"MAXLEN", b"0", last, b"x", b"y"]);
    }
    for entry in log.range(StreamId::MIN, StreamId::MAX) {
        push_count(out, b'*', 3 + entry.len() * 2);
        push_bulk(out, b'$', b"XADD");
        push_bulk(out, b'$', key);
        push_bulk(out, b'$', entry.id.format(&mut id));
        for (name, value) in entry.fields() {
            push_bulk(out, b'$', name.text(&mut IntBuf::new()));
            push_bulk(out, b'$', value.text(&mut IntBuf::new()));
        }
    }
    let (mut added, mut deleted) = (IntBuf::new(), IdBuf::new());
    push_command(
        out,
        &[
            b"XSETID" as &[u8],
            key,
            log.last_id().format(&mut id),
            b"ENTRIESADDED",
            added.format(log.entries_added()),
            b"MAXDELETEDID",
            log.max_deleted_id().format(&mut deleted),
        ],
    );
    for (name, group) in stream.groups() {
        write_group(out, key, name, group);
    }
}

fn write_group(out: &mut Vec<u8>, key: &[u8], name: &[u8], group: &Group) {
    let (mut id, mut read) = (IdBuf::new(), IntBuf::new());
    let entries_read = group.entries_read.map_or(-1, |n| n as i64);
    push_command(
        out,
        &[
            b"XGROUP" as &[u8],
            b"CREATE",
            key,
            name,
            group.last_id.format(&mut id),
            b"ENTRIESREAD",
            read.format(entries_read),
        ],
    );
    for (_, consumer) in group.consumers() {
        if consumer.pending_count() == 0 {
            push_command(
                out,
                &[
                    b"XGROUP" as &[u8],
                    b"CREATECONSUMER",
                    key,
                    name,
                    consumer.name(),
                ],
            );
        }
        for pending in consumer.pending(StreamId::MIN..=StreamId::MAX) {
            if let Some(nack) = group.nack(pending) {
                let (mut id, mut time, mut count) = (IdBuf::new(), IntBuf::new(), IntBuf::new());
                push_command(
                    out,
                    &[
                        b"XCLAIM" as &[u8],
                        key,
                        name,
                        consumer.name(),
                        b"0",
                        pending.format(&mut id),
                        b"TIME",
                        time.format(nack.delivery_time),
                        b"RETRYCOUNT",
                        count.format(nack.delivery_count),
                        b"JUSTID",
                        b"FORCE",
                    ],
                );
            }
        }
    }
}
