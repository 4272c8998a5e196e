//! Encodes one value for an RDB, in the newest format that the RDB's version has for its encoding;
//! the counterpart of `decode`.
//!
//! ```text
//!   integer, short string     inside the key's entry      -> string
//!   listpack, intset          one block                   -> string
//!   quicklist                 nodes                       -> count, (container, string)*      LZF nodes as they are
//!   table, tree               elements                    -> count, string*
//!   stream                    listpacks, groups           -> see `Encoder::stream`
//! ```
//!
//! **Invariant:** encoding does not write to the value: in a forked child each write would copy a
//! page.

use std::io;

use super::{VERSION_FIELD_TTL, VERSION_VALKEY, container, encoded, kind, len};
use crate::ds::entry::ValueRef;
use crate::ds::listpack::Element;
use crate::ds::lzf::Lzf;
use crate::ds::quicklist::{NodeView, Quicklist};
use crate::ds::stream::StreamId;
use crate::persist::rio::Writer;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::part::Held;
use crate::types::set::Set;
use crate::types::stream::{Group, Stream};
use crate::types::zset::Zset;
use crate::types::{KeyRef, Value};
use crate::util::number::{IntBuf, parse_i64};

/// The length in bytes below which strings are not compressed.
const COMPRESS_MIN: usize = 21;
/// The number of bytes by which the compressed form of a string must be shorter to be used.
const COMPRESS_GAIN: usize = 4;
/// The length of the longest text of a 32-bit integer.
const INT_TEXT_MAX: usize = 11;

/// Writes values in the format of one version of RDB.
pub struct Encoder<'w, 's> {
    pub out: &'w mut Writer<'s>,
    version: u32,
    lzf: Option<Box<Lzf>>,
    packed: Vec<u8>,
}

/// The lowest RDB version, at least `wanted`, in which a value can be written without loss.
pub fn version_for(entry: KeyRef, wanted: u32) -> u32 {
    match entry.value() {
        ValueRef::Obj(Value::Hash(hash)) if hash.volatile_len() > 0 => {
            wanted.max(VERSION_FIELD_TTL)
        }
        _ => wanted,
    }
}

impl<'w, 's> Encoder<'w, 's> {
    /// Creates an encoder for an RDB version. With `compress`, strings are compressed by LZF.
    pub fn new(out: &'w mut Writer<'s>, version: u32, compress: bool) -> Encoder<'w, 's> {
        Encoder {
            out,
            version,
            lzf: compress.then(Box::default),
            packed: Vec::new(),
        }
    }

    /// Writes a length, in 1, 2, 5 or 9 bytes.
    pub fn len(&mut self, n: u64) -> io::Result<()> {
        match n {
            0..64 => self.out.put_u8(n as u8),
            64..16_384 => self.out.put(&[len::BITS_14 << 6 | (n >> 8) as u8, n as u8]),
            _ => match u32::try_from(n) {
                Ok(n) => {
                    let [a, b, c, d] = n.to_be_bytes();
                    self.out.put(&[len::BITS_32, a, b, c, d])
                }
                Err(_) => {
                    self.out.put_u8(len::BITS_64)?;
                    self.out.put(&n.to_be_bytes())
                }
            },
        }
    }

    /// Writes a string in its shortest form: as an integer, compressed, or plain.
    #[inline]
    pub fn string(&mut self, text: &[u8]) -> io::Result<()> {
        if text.len() <= INT_TEXT_MAX {
            if let Some(n) = parse_i64(text).and_then(|n| i32::try_from(n).ok()) {
                return self.short_int(n);
            }
        } else if text.len() >= COMPRESS_MIN && self.compressed(text)? {
            return Ok(());
        }
        self.len(text.len() as u64)?;
        self.out.put(text)
    }

    fn short_int(&mut self, n: i32) -> io::Result<()> {
        const HEAD: u8 = len::ENCODED << 6;
        let [a, b, c, d] = n.to_le_bytes();
        if i8::try_from(n).is_ok() {
            self.out.put(&[HEAD | encoded::INT_8, a])
        } else if i16::try_from(n).is_ok() {
            self.out.put(&[HEAD | encoded::INT_16, a, b])
        } else {
            self.out.put(&[HEAD | encoded::INT_32, a, b, c, d])
        }
    }

    /// Writes an integer as a string.
    pub fn integer(&mut self, n: i64) -> io::Result<()> {
        match i32::try_from(n) {
            Ok(n) => self.short_int(n),
            Err(_) => {
                let mut digits = IntBuf::new();
                let text = digits.format(n);
                self.len(text.len() as u64)?;
                self.out.put(text)
            }
        }
    }

    /// Writes a string compressed by LZF. Returns false, and writes nothing, if the compressed form
    /// would not be shorter.
    fn compressed(&mut self, text: &[u8]) -> io::Result<bool> {
        let Some(lzf) = &mut self.lzf else {
            return Ok(false);
        };
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        let done = lzf
            .compress_within(text, text.len() - COMPRESS_GAIN, &mut packed)
            .is_some();
        if done {
            self.lzf_blob(&packed, text.len())?;
        }
        self.packed = packed;
        Ok(done)
    }

    fn lzf_blob(&mut self, packed: &[u8], raw_len: usize) -> io::Result<()> {
        self.out.put_u8(len::ENCODED << 6 | encoded::LZF)?;
        self.len(packed.len() as u64)?;
        self.len(raw_len as u64)?;
        self.out.put(packed)
    }

    fn element(&mut self, element: Element) -> io::Result<()> {
        match element {
            Element::Int(n) => self.integer(n),
            Element::Str(text) => self.string(text),
        }
    }

    /// Writes a Unix time in milliseconds, 8 bytes, little-endian.
    pub fn millis(&mut self, ms: i64) -> io::Result<()> {
        self.out.put(&ms.to_le_bytes())
    }

    /// The byte that states the type and the encoding of a key's value in the RDB.
    pub fn kind_of(&self, entry: KeyRef) -> u8 {
        let Some(value) = Held::of(entry) else {
            return kind::STRING;
        };
        match &*value {
            Value::Str(_) => kind::STRING,
            Value::List(_) => kind::LIST_QUICKLIST_2,
            Value::Set(Set::Intset(_)) => kind::SET_INTSET,
            Value::Set(Set::Listpack(_)) if self.version >= 11 => kind::SET_LISTPACK,
            Value::Set(_) => kind::SET,
            Value::Zset(Zset::Listpack(_)) => kind::ZSET_LISTPACK,
            Value::Zset(Zset::Tree(_)) => kind::ZSET_2,
            Value::Hash(Hash::Listpack(_)) => kind::HASH_LISTPACK,
            Value::Hash(hash) if hash.volatile_len() == 0 => kind::HASH,
            Value::Hash(_) if self.version >= VERSION_VALKEY => kind::HASH_2,
            Value::Hash(_) => kind::HASH_METADATA,
            Value::Stream(_) if self.version >= 11 => kind::STREAM_LISTPACKS_3,
            Value::Stream(_) => kind::STREAM_LISTPACKS_2,
        }
    }

    /// Writes the value of a key without the byte for its type.
    #[inline]
    pub fn value(&mut self, entry: KeyRef) -> io::Result<()> {
        match entry.value() {
            ValueRef::Int(n) => self.integer(n),
            ValueRef::Str(text) => self.string(text),
            ValueRef::Obj(value) => self.object(value),
            ValueRef::Packed(packed) => self.object(&packed.read::<Value>()),
        }
    }

    fn object(&mut self, value: &Value) -> io::Result<()> {
        match value {
            Value::Str(raw) => self.string(raw.bytes()),
            Value::List(List::Listpack(listpack)) => {
                self.len(1)?;
                self.len(container::PACKED)?;
                self.string(listpack.as_bytes())
            }
            Value::List(List::Quicklist(quicklist)) => self.quicklist(quicklist),
            Value::Set(Set::Intset(ints)) => self.string(ints.as_bytes()),
            Value::Set(Set::Listpack(listpack)) if self.version >= 11 => {
                self.string(listpack.as_bytes())
            }
            Value::Set(set) => self.set(set),
            Value::Zset(Zset::Listpack(listpack)) => self.string(listpack.as_bytes()),
            Value::Zset(zset) => self.zset(zset),
            Value::Hash(Hash::Listpack(listpack)) => self.string(listpack.as_bytes()),
            Value::Hash(hash) => match hash.next_expiry() {
                None => self.hash(hash),
                Some(_) if self.version >= VERSION_VALKEY => self.hash_valkey(hash),
                Some(earliest) => self.hash_metadata(hash, earliest),
            },
            Value::Stream(stream) => self.stream(stream),
        }
    }

    fn quicklist(&mut self, quicklist: &Quicklist) -> io::Result<()> {
        self.len(quicklist.node_count() as u64)?;
        for node in quicklist.nodes() {
            match node {
                NodeView::Packed(bytes) => {
                    self.len(container::PACKED)?;
                    self.string(bytes)?;
                }
                NodeView::Plain(bytes) => {
                    self.len(container::PLAIN)?;
                    self.string(bytes)?;
                }
                NodeView::Compressed {
                    plain,
                    raw_len,
                    bytes,
                } => {
                    self.len(if plain {
                        container::PLAIN
                    } else {
                        container::PACKED
                    })?;
                    self.lzf_blob(bytes, raw_len)?;
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, set: &Set) -> io::Result<()> {
        self.len(set.len() as u64)?;
        let mut result = Ok(());
        set.try_each(|member| {
            result = self.element(member);
            proceed(&result)
        });
        result
    }

    /// Writes the members of a sorted set from the highest score to the lowest, since Redis builds
    /// its skiplist faster in this order.
    fn zset(&mut self, zset: &Zset) -> io::Result<()> {
        self.len(zset.len() as u64)?;
        let mut result = Ok(());
        let _ = zset.try_walk(0..zset.len(), true, |member, score| {
            result = self
                .string(member)
                .and_then(|()| self.out.put(&score.to_le_bytes()));
            proceed(&result)
        });
        result
    }

    fn hash(&mut self, hash: &Hash) -> io::Result<()> {
        self.len(hash.total_len() as u64)?;
        let mut result = Ok(());
        hash.try_each(|field, value, _| {
            result = self.string(field).and_then(|()| self.string(value));
            proceed(&result)
        });
        result
    }

    fn hash_metadata(&mut self, hash: &Hash, earliest: i64) -> io::Result<()> {
        self.millis(earliest)?;
        self.len(hash.total_len() as u64)?;
        let mut result = Ok(());
        hash.try_each(|field, value, at| {
            let time = at.map_or(0, |at| at.wrapping_sub(earliest) as u64 + 1);
            result = self
                .len(time)
                .and_then(|()| self.string(field))
                .and_then(|()| self.string(value));
            proceed(&result)
        });
        result
    }

    fn hash_valkey(&mut self, hash: &Hash) -> io::Result<()> {
        self.len(hash.total_len() as u64)?;
        let mut result = Ok(());
        hash.try_each(|field, value, at| {
            result = self
                .string(field)
                .and_then(|()| self.string(value))
                .and_then(|()| self.millis(at.unwrap_or(-1)));
            proceed(&result)
        });
        result
    }
}

/// Whether a walk over elements continues: it ends after an error.
fn proceed(result: &io::Result<()>) -> std::ops::ControlFlow<()> {
    match result {
        Ok(()) => std::ops::ControlFlow::Continue(()),
        Err(_) => std::ops::ControlFlow::Break(()),
    }
}

/// Encodes streams with their consumer groups.
///
/// ```text
///   nodes, (ID as 16 bytes, listpack)*, length, last ID, first ID, highest deleted ID, entries added
///   groups, ( name, last ID, entries read
///             pending, (ID, delivery time, delivery count)*
///             consumers, (name, seen time, active time, pending, (ID)*)* )*
/// ```
impl Encoder<'_, '_> {
    fn id(&mut self, id: StreamId) -> io::Result<()> {
        self.len(id.ms)?;
        self.len(id.seq)
    }

    fn stream(&mut self, stream: &Stream) -> io::Result<()> {
        let log = &stream.log;
        self.len(log.node_count() as u64)?;
        for (id, listpack) in log.nodes() {
            self.string(&id.to_bytes())?;
            self.string(listpack.as_bytes())?;
        }
        self.len(log.len())?;
        self.id(log.last_id())?;
        self.id(log.first_id())?;
        self.id(log.max_deleted_id())?;
        self.len(log.entries_added())?;
        self.len(stream.group_count() as u64)?;
        for (name, group) in stream.groups() {
            self.string(name)?;
            self.group(group)?;
        }
        Ok(())
    }

    fn group(&mut self, group: &Group) -> io::Result<()> {
        self.id(group.last_id)?;
        // The format has -1 for an unknown number of entries that a consumer group has read.
        self.len(group.entries_read.unwrap_or(u64::MAX))?;
        self.len(group.pending_count() as u64)?;
        for (id, nack) in group.pending(..) {
            self.out.put(&id.to_bytes())?;
            self.millis(nack.delivery_time)?;
            self.len(nack.delivery_count)?;
        }
        self.len(group.consumer_count() as u64)?;
        for (_, consumer) in group.consumers() {
            self.string(consumer.name())?;
            self.millis(consumer.seen_time)?;
            if self.version >= 11 {
                self.millis(consumer.active_time)?;
            }
            self.len(consumer.pending_count() as u64)?;
            for id in consumer.pending(..) {
                self.out.put(&id.to_bytes())?;
            }
        }
        Ok(())
    }
}
