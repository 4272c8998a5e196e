//! DEBUG OBJECT, HTSTATS and others: the representation of values in memory.

use std::fmt::Write;

use crate::client::Client;
use crate::command::Command;
use crate::command::ctx::{CmdResult, Ctx};
use crate::commands::generic::refcount;
use crate::ds::entry::{INLINE_MAX, ValueRef};
use crate::ds::hashtable::{Stats, TableStats};
use crate::ds::listpack::{Listpack, iter_bytes};
use crate::ds::lzf::Lzf;
use crate::ds::quicklist::{NodeView, Quicklist};
use crate::error::Error;
use crate::keyspace::evict::LRU_MASK;
use crate::sys::print::print_line;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::part::Held;
use crate::types::set::Set;
use crate::types::string::StrView;
use crate::types::zset::Zset;
use crate::types::{KeyRef, Value, encoding_name};
use crate::util::number::IntBuf;
use crate::util::quote::repr;

const NO_TABLE: Error =
    Error::of("ERR The value stored at the specified key is not represented using an hash table");

/// The entry of the key that the DEBUG subcommand inspects; an expired key is not removed.
fn subject<'a>(ctx: &'a mut Ctx) -> Result<KeyRef<'a>, Error> {
    let key = ctx.argv[2];
    let hash = ctx.server.hash_key(key);
    ctx.db().find(hash, key).ok_or(Error::NO_SUCH_KEY)
}

/// DEBUG OBJECT key [fast]
pub fn object(ctx: &mut Ctx) -> CmdResult {
    let fast = ctx.is(3, "fast");
    let now = ctx.server.clock.now_ms;
    let bits = subject(ctx)?.lru();
    let idle = ctx.server.evict.idle_seconds(bits, now);
    let frequency = ctx.server.evict.frequency(bits, now);
    let clock = match ctx.server.evict.is_lfu() {
        true => i64::from(bits),
        false => ctx.server.evict.last_use_s(bits, now) & LRU_MASK,
    };
    let entry = subject(ctx)?;
    let encoding = encoding_name(entry);
    let mut line = format!(
        "Value at:{:#x} refcount:{} encoding:{encoding}",
        entry.addr(),
        refcount(entry, true)
    );
    if !fast {
        let _ = write!(line, " serializedlength:{}", serialized_len(entry));
    }
    let _ = write!(
        line,
        " lru:{clock} lru_seconds_idle:{idle} lfu_freq:{frequency}"
    );
    let _ = write!(line, " lfu_access_time_minutes:{}", bits >> 8);
    if let ValueRef::Obj(Value::List(List::Quicklist(quicklist))) = entry.value() {
        write_quicklist(&mut line, quicklist, fast);
    }
    ctx.client.reply.status(&line);
    Ok(())
}

fn write_quicklist(line: &mut String, quicklist: &Quicklist, fast: bool) {
    let (figures, limits) = (quicklist.figures(), quicklist.limits());
    let average = quicklist.len() as f64 / figures.nodes.max(1) as f64;
    let _ = write!(
        line,
        " ql_nodes:{} ql_avg_node:{average:.2} ql_listpack_max:{} ql_compressed:{}",
        figures.nodes,
        limits.fill,
        (limits.compress_depth != 0) as u8
    );
    if !fast {
        let _ = write!(line, " ql_uncompressed_size:{}", figures.raw_bytes);
    }
}

/// The size of a value in an RDB file.
fn serialized_len(entry: KeyRef) -> usize {
    match entry.value() {
        ValueRef::Int(n) => integer_len(n).unwrap_or_else(|| string_len(IntBuf::new().format(n))),
        ValueRef::Str(bytes) => string_len(bytes),
        ValueRef::Obj(value) => object_len(value),
        ValueRef::Packed(packed) => object_len(&packed.read::<Value>()),
    }
}

fn object_len(value: &Value) -> usize {
    match value {
        Value::Str(raw) => string_len(raw.bytes()),
        // An RDB file stores a list in one listpack as a quicklist of one node.
        Value::List(List::Listpack(listpack)) => 2 + string_len(listpack.as_bytes()),
        Value::Zset(Zset::Listpack(listpack)) => string_len(listpack.as_bytes()),
        Value::Set(Set::Intset(ints)) => string_len(ints.as_bytes()),
        Value::Set(Set::Listpack(listpack)) => string_len(listpack.as_bytes()),
        Value::Set(set @ Set::Table(_)) => {
            let mut sum = length_len(set.len());
            set.for_each(|member| sum += string_len(member.text(&mut IntBuf::new())));
            sum
        }
        Value::Hash(Hash::Listpack(listpack)) => string_len(listpack.as_bytes()),
        Value::Hash(hash @ Hash::Table(_)) => {
            let mut sum = length_len(hash.len());
            let mut digits = IntBuf::new();
            hash.for_each(|field, value| {
                sum += string_len(field.text(&mut digits));
                sum += string_len(value.text(&mut digits));
            });
            sum
        }
        Value::List(List::Quicklist(quicklist)) => {
            let nodes = quicklist.nodes();
            length_len(nodes.len()) + nodes.map(|node| 1 + node_len(node)).sum::<usize>()
        }
        Value::Zset(zset @ Zset::Tree(_)) => {
            let mut sum = length_len(zset.len());
            zset.for_each(|member, _| sum += string_len(member) + size_of::<f64>());
            sum
        }
        Value::Stream(stream) => {
            let node = |listpack: &Listpack| 1 + 16 + string_len(listpack.as_bytes());
            let nodes = stream.log.nodes();
            length_len(nodes.len()) + nodes.map(|(_, listpack)| node(listpack)).sum::<usize>()
        }
    }
}

/// The size, in an RDB file, of a string that is an integer of at most 32 bits; `None` for larger
/// ones, which are written as text.
fn integer_len(n: i64) -> Option<usize> {
    i8::try_from(n)
        .map(|_| 2)
        .or_else(|_| i16::try_from(n).map(|_| 3))
        .or_else(|_| i32::try_from(n).map(|_| 5))
        .ok()
}

/// The size of a length in an RDB file: 1, 2, 5 or 9 bytes.
fn length_len(n: usize) -> usize {
    match n {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        _ if u32::try_from(n).is_ok() => 5,
        _ => 9,
    }
}

/// The size of a string in an RDB file: as it is, or compressed if that is shorter.
fn string_len(bytes: &[u8]) -> usize {
    let plain = length_len(bytes.len()) + bytes.len();
    if bytes.len() <= 20 {
        return plain;
    }
    let packed = <Lzf>::new().compress_within(bytes, bytes.len() - 4, &mut Vec::new());
    packed.map_or(plain, |len| {
        1 + length_len(len) + length_len(bytes.len()) + len
    })
}

fn node_len(node: NodeView) -> usize {
    match node {
        NodeView::Packed(bytes) | NodeView::Plain(bytes) => string_len(bytes),
        NodeView::Compressed { raw_len, bytes, .. } => {
            1 + length_len(bytes.len()) + length_len(raw_len) + bytes.len()
        }
    }
}

/// DEBUG HTSTATS dbid [full]
pub fn htstats(ctx: &mut Ctx) -> CmdResult {
    let db = ctx.int(2)?;
    let db = usize::try_from(db)
        .ok()
        .and_then(|db| ctx.server.data.dbs.get(db));
    let db = db.ok_or(Error::of("ERR Out of range database"))?;
    let mut text = String::from("[Dictionary HT]\n");
    let tables = db.keys.tables();
    for table in tables
        .iter()
        .filter(|table| tables.len() == 1 || !table.is_empty())
    {
        write_stats(&mut text, &table.stats(), ctx.is(3, "full"));
    }
    // The expiry times are not in a hash table here, but tests and tools expect this section.
    let _ = write!(
        text,
        "[Expires HT]\n number of elements: {}\n",
        db.expires.len()
    );
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// DEBUG HTSTATS-KEY key [full]
pub fn htstats_key(ctx: &mut Ctx) -> CmdResult {
    let full = ctx.is(3, "full");
    let stats = match subject(ctx)?.value() {
        ValueRef::Packed(_) => return Err(NO_TABLE),
        ValueRef::Obj(Value::Zset(Zset::Tree(set))) => set.table_stats(),
        ValueRef::Obj(Value::Hash(Hash::Table(table))) => table.stats(),
        ValueRef::Obj(Value::Set(Set::Table(table))) => table.stats(),
        ValueRef::Obj(
            Value::Str(_)
            | Value::List(_)
            | Value::Set(_)
            | Value::Hash(_)
            | Value::Zset(_)
            | Value::Stream(_),
        )
        | ValueRef::Int(_)
        | ValueRef::Str(_) => return Err(NO_TABLE),
    };
    let mut text = String::new();
    write_stats(&mut text, &stats, full);
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn write_stats(text: &mut String, stats: &Stats, full: bool) {
    write_table(text, 0, "main hash table", &stats.main, full);
    if let Some(target) = &stats.rehash_target {
        let _ = writeln!(text, " rehashing index: {}", stats.rehash_at);
        write_table(text, 1, "rehashing target", target, full);
    }
}

fn write_table(text: &mut String, n: u8, role: &str, table: &TableStats, full: bool) {
    const SLOTS: usize = 9;
    let _ = writeln!(text, "Hash table {n} stats ({role}):");
    let _ = writeln!(text, " table size: {}", table.buckets * SLOTS);
    let _ = writeln!(text, " number of elements: {}", table.elements);
    if !full {
        return;
    }
    let _ = writeln!(
        text,
        " buckets: {}, of them empty: {}",
        table.buckets, table.empty
    );
    let _ = writeln!(text, " chained buckets: {}", table.children);
    let _ = writeln!(text, " max chain length: {}", table.longest);
    text.push_str(" Chain length distribution:\n");
    for (length, &count) in table
        .lengths
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
    {
        let share = 100.0 * count as f64 / table.buckets.max(1) as f64;
        let _ = writeln!(text, "   {length}: {count} ({share:.2}%)");
    }
}

/// DEBUG LISTPACK key
pub fn listpack(ctx: &mut Ctx) -> CmdResult {
    match Held::of(subject(ctx)?).as_deref() {
        Some(
            Value::List(List::Listpack(listpack))
            | Value::Set(Set::Listpack(listpack))
            | Value::Zset(Zset::Listpack(listpack))
            | Value::Hash(Hash::Listpack(listpack)),
        ) => print_listpack(listpack.as_bytes()),
        _ => return Err(Error::of("ERR Not a listpack encoded object.")),
    }
    ctx.client
        .reply
        .status("Listpack structure printed on stdout");
    Ok(())
}

fn print_listpack(bytes: &[u8]) {
    print_line(format_args!("{{total bytes {}}}", bytes.len()));
    for (place, element) in iter_bytes(bytes).enumerate() {
        print_line(format_args!(
            "{place}: {}",
            repr(element.text(&mut IntBuf::new()))
        ));
    }
}

/// DEBUG QUICKLIST key [0|1]
pub fn quicklist(ctx: &mut Ctx) -> CmdResult {
    let full = super::switch_or(ctx, 3, false);
    let ValueRef::Obj(Value::List(List::Quicklist(quicklist))) = subject(ctx)?.value() else {
        return Err(Error::of("ERR Not a quicklist encoded object."));
    };
    print_line(format_args!(
        "{{count: {}, nodes: {}}}",
        quicklist.len(),
        quicklist.node_count()
    ));
    for (place, node) in quicklist.nodes().enumerate() {
        match node {
            NodeView::Packed(bytes) => {
                print_line(format_args!("node {place}: packed, {} bytes", bytes.len()));
                if full {
                    print_listpack(bytes);
                }
            }
            NodeView::Plain(bytes) => {
                print_line(format_args!("node {place}: plain, {} bytes", bytes.len()))
            }
            NodeView::Compressed { raw_len, bytes, .. } => {
                print_line(format_args!(
                    "node {place}: compressed, {} of {raw_len} bytes",
                    bytes.len()
                ));
            }
        }
    }
    ctx.client
        .reply
        .status("Quicklist structure printed on stdout");
    Ok(())
}

/// DEBUG SDSLEN key
pub fn sdslen(ctx: &mut Ctx) -> CmdResult {
    let entry = subject(ctx)?;
    let spare = match entry.value() {
        ValueRef::Obj(Value::Str(raw)) => raw.memory().saturating_sub(raw.bytes().len()),
        ValueRef::Str(_) => 0,
        _ => return Err(Error::of("ERR Not an sds encoded string.")),
    };
    let value = StrView::of(entry)?.len();
    let outside = if value > INLINE_MAX { value + spare } else { 0 };
    let line = format!(
        "key_sds_len:{} key_sds_avail:0 obj_alloc:{} val_sds_len:{value} val_sds_avail:{spare} val_alloc:{outside}",
        entry.key().len(),
        entry.alloc_size()
    );
    ctx.client.reply.status(&line);
    Ok(())
}

/// Redis groups the clients that may be evicted by their memory: the first group ends below 32 KB,
/// each later group at twice the limit of the one before, and the last group has no limit.
const SMALLEST_CLASS: u32 = 15;
const LAST_CLASS: u32 = 32;

/// DEBUG CLIENT-EVICTION
pub fn client_eviction(ctx: &mut Ctx) -> CmdResult {
    let config = &ctx.server.config;
    if config.maxmemory_clients.bytes(config.maxmemory) == 0 {
        return Err(Error::of("ERR maxmemory-clients is disabled."));
    }
    let others = ctx.server.net.clients.iter().map(|c| c.counted);
    let evictable = others
        .chain([ctx.client.counted])
        .filter(|counted| counted.evictable);
    let text = size_classes(evictable.map(|counted| counted.bytes));
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn size_classes(clients: impl Iterator<Item = usize>) -> String {
    let mut classes = [(0, 0); (LAST_CLASS - SMALLEST_CLASS) as usize + 2];
    for size in clients {
        let log = size.checked_ilog2().unwrap_or(0);
        let at = (log + 1).saturating_sub(SMALLEST_CLASS) as usize;
        let (bytes, clients) = &mut classes[at.min(classes.len() - 1)];
        *bytes += size;
        *clients += 1;
    }
    let mut text = String::new();
    for ((bytes, clients), log) in classes.into_iter().zip(SMALLEST_CLASS..) {
        let begin = if log == SMALLEST_CLASS {
            0
        } else {
            1u64 << (log - 1)
        };
        let end = match log {
            ..=LAST_CLASS => format!(" - {:>10}", (1u64 << log) - 1),
            _ => format!("{:13}", "+"),
        };
        let line = format!("bucket {begin:>10}{end}: tot-mem: {bytes:>10}, clients: {clients}\n");
        text.push_str(&line);
    }
    text
}

/// DEBUG STRUCTSIZE
pub fn structsize(ctx: &mut Ctx) -> CmdResult {
    let line = format!(
        "bits:{} entry_header:7 value:{} client:{} command:{}",
        usize::BITS,
        size_of::<Value>(),
        size_of::<Client>(),
        size_of::<Command>()
    );
    ctx.client.reply.status(&line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_grouped_by_size() {
        let text =
            size_classes([0, 32767, 32768, 65535, 65536, 1 << 32, usize::MAX >> 1].into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 19);
        assert_eq!(
            lines[..4],
            [
                "bucket          0 -      32767: tot-mem:      32767, clients: 2",
                "bucket      32768 -      65535: tot-mem:      98303, clients: 2",
                "bucket      65536 -     131071: tot-mem:      65536, clients: 1",
                "bucket     131072 -     262143: tot-mem:          0, clients: 0",
            ]
        );
        assert_eq!(
            lines[17],
            "bucket 2147483648 - 4294967295: tot-mem:          0, clients: 0"
        );
        assert_eq!(
            lines[18],
            "bucket 4294967296+            : tot-mem: 9223372041149743103, clients: 2"
        );
    }
}
