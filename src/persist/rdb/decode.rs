//! Decodes one value of an RDB: lengths, strings, and every type that any version of Redis wrote.
//!
//! ```text
//!   type byte -> | string                        shown where it lies in the read buffer
//!                | listpack, intset              checked from end to end, copied once, taken as it is if it fits the limits
//!                | ziplist, zipmap               checked, turned into a listpack (`legacy`)
//!                | a count, then the strings     a table of this size, filled
//! ```
//!
//! Bytes from files, primaries and RESTORE are checked here and nowhere else: the rest of the
//! server trusts a listpack. So the structure of every packed block (listpack, intset) is always
//! verified, as well as that no member occurs twice. `sanitize-dump-payload` does not change these
//! checks, because no cheaper check would keep the invariants of the types. `sanitize-dump-payload`
//! decides whether INFO counts the checked blocks ([`Decoder::blocks`]).
//!
//! **Invariant:** memory is reserved for no more elements than the remaining bytes can contain.

use std::borrow::Cow;
use std::io;

use super::foreign::{COMPACT_HASH, STREAM_RELEASED};
use super::{Limits, VERSION_VALKEY, container, encoded, kind, legacy, len};
use crate::ds::entry::INLINE_MAX;
use crate::ds::intset::Intset;
use crate::ds::listpack::{Element, Listpack};
use crate::ds::lzf;
use crate::ds::quicklist::{End, Quicklist};
use crate::ds::sorted_set::MemberTable;
use crate::ds::stream::StreamId;
use crate::persist::rio::Reader;
use crate::sys;
use crate::types::hash::{FieldTtl, Hash};
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::stream::{Group, Stream, entries_up_to};
use crate::types::string::{RawStr, encode};
use crate::types::zset::Zset;
use crate::types::{New, Value, kind as entry_kind};
use crate::util::number::{IntBuf, parse_f64_lenient};

/// The reason why bytes of an RDB are not a valid value.
#[derive(Debug)]
pub enum Fault {
    /// The bytes end too early, or can't be read.
    Read(io::Error),
    /// The bytes contradict the format of RDB, or one another.
    Corrupt(Cow<'static, str>),
    /// A collection without elements, which versions before 7.0 could write.
    Empty,
    /// A value of a type that this server does not have; the value has been read to its end.
    Foreign(&'static str),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        Fault::Read(e)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("Unexpected EOF reading RDB file")
            }
            Fault::Read(e) => write!(f, "{}", sys::error_text(e)),
            Fault::Corrupt(text) => f.write_str(text),
            Fault::Empty => f.write_str("Empty key"),
            Fault::Foreign(what) => {
                write!(f, "The value is {what}, which this server does not have")
            }
        }
    }
}

/// The result of decoding a value.
pub type Result<T> = std::result::Result<T, Fault>;

/// Returns the error `Fault::Corrupt` with `text`.
pub fn corrupt<T>(text: impl Into<Cow<'static, str>>) -> Result<T> {
    Err(Fault::Corrupt(text.into()))
}

/// A string of an RDB in one of the forms that the file has for strings.
pub enum Text<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    Owned(Vec<u8>),
}

impl Text<'_> {
    /// The bytes of the string; if it is stored as an integer, its text is written to `digits`.
    pub fn bytes<'b>(&'b self, digits: &'b mut IntBuf) -> &'b [u8] {
        match self {
            Text::Int(n) => digits.format(*n),
            Text::Bytes(bytes) => bytes,
            Text::Owned(bytes) => bytes,
        }
    }
}

/// The kind byte and the value of a key whose value is the string `text`. A long string is moved
/// out of `text`.
pub fn string_value<'t>(text: &'t mut Text<'_>) -> (u8, New<'t>) {
    match text {
        Text::Int(n) => (entry_kind::INT, New::Int(*n)),
        Text::Bytes(bytes) => encode(bytes, None),
        Text::Owned(bytes) if bytes.len() > INLINE_MAX => {
            let raw = RawStr::Owned(std::mem::take(bytes));
            (entry_kind::RAW, New::Obj(Value::Str(raw)))
        }
        Text::Owned(bytes) => encode(bytes, None),
    }
}

/// The first byte or bytes of a string: its length, or its special encoding (integer, LZF).
enum Head {
    Len(u64),
    Encoded(u8),
}

/// Reads values from an RDB file or the payload of RESTORE. While a large value is read, `tick` is
/// called with the present offset; `tick` returns the offset at which the next call is due.
pub struct Decoder<'r, 's> {
    pub reader: &'r mut Reader<'s>,
    pub limits: Limits,
    /// The RDB version of the file or payload.
    pub version: u32,
    pub next_tick: u64,
    /// The number of packed blocks (listpack, intset and their older forms) that were checked.
    pub blocks: u64,
}

/// A function that is called repeatedly while a large value is read, so that clients are served:
/// the parameter is the present offset, the result the offset of the next call.
pub type Tick<'t> = &'t mut dyn FnMut(u64) -> u64;

impl<'r, 's> Decoder<'r, 's> {
    fn head(&mut self) -> Result<Head> {
        let first = self.reader.get_u8()?;
        Ok(match first >> 6 {
            len::BITS_6 => Head::Len(u64::from(first & 0x3f)),
            len::BITS_14 => {
                let low = self.reader.get_u8()?;
                Head::Len(u64::from(first & 0x3f) << 8 | u64::from(low))
            }
            len::ENCODED => Head::Encoded(first & 0x3f),
            _ => match first {
                len::BITS_32 => Head::Len(u64::from(u32::from_be_bytes(self.reader.get()?))),
                len::BITS_64 => Head::Len(u64::from_be_bytes(self.reader.get()?)),
                _ => {
                    return corrupt(format!("Unknown length encoding {first} in rdbLoadLen()"));
                }
            },
        })
    }

    /// Reads a length of 1, 2, 5 or 9 bytes. If an encoded string begins instead, the file is
    /// damaged, and the result is an error.
    pub fn length(&mut self) -> Result<u64> {
        match self.head()? {
            Head::Len(len) => Ok(len),
            Head::Encoded(_) => corrupt("A length is encoded as a string"),
        }
    }

    /// Reads the number of elements of a collection. A number that is larger than the number of
    /// remaining bytes is an error.
    fn count(&mut self) -> Result<usize> {
        let count = self.length()?;
        if count == 0 {
            return Err(Fault::Empty);
        }
        self.bounded(count)
    }

    /// Checks that the source has at least `count` more bytes, since each of `count` elements takes
    /// at least a byte.
    fn bounded(&mut self, count: u64) -> Result<usize> {
        match usize::try_from(count) {
            Ok(n) if self.reader.may_have(count) => Ok(n),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// The number of elements for which memory is reserved at once: `count`, or at most a million
    /// if the length of the source is not known.
    fn reservation(&self, count: usize) -> usize {
        const UNSURE: usize = 1 << 20;
        if self.reader.knows_its_length() {
            count
        } else {
            count.min(UNSURE)
        }
    }

    /// Reads a Unix time in milliseconds, 8 bytes, little-endian.
    pub fn millis(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.reader.get()?))
    }

    fn double(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.reader.get()?))
    }

    /// Reads a score in the oldest format of sorted sets: a length and digits, or a special length
    /// for the infinities and NaN.
    fn text_double(&mut self) -> Result<f64> {
        match self.reader.get_u8()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            n => {
                let text = self.reader.borrow(usize::from(n))?.unwrap_or_default();
                match parse_f64_lenient(text) {
                    Some(score) => Ok(score),
                    None => corrupt("A score is not a number"),
                }
            }
        }
    }

    /// Reads a string, which is borrowed from the read buffer if possible.
    #[inline]
    pub fn text(&mut self) -> Result<Text<'_>> {
        match self.head()? {
            Head::Len(n) => {
                let size = usize::try_from(n).unwrap_or(usize::MAX);
                if size <= Reader::BORROW_MAX {
                    return Ok(Text::Bytes(self.reader.borrow(size)?.unwrap_or_default()));
                }
                let mut bytes = Vec::new();
                self.reader.get_into(n, &mut bytes)?;
                Ok(Text::Owned(bytes))
            }
            Head::Encoded(encoded::INT_8) => Ok(Text::Int(self.reader.get_u8()? as i8 as i64)),
            Head::Encoded(encoded::INT_16) => {
                Ok(Text::Int(i16::from_le_bytes(self.reader.get()?).into()))
            }
            Head::Encoded(encoded::INT_32) => {
                Ok(Text::Int(i32::from_le_bytes(self.reader.get()?).into()))
            }
            Head::Encoded(encoded::LZF) => Ok(Text::Owned(self.decompressed()?)),
            Head::Encoded(other) => corrupt(format!("Unknown RDB string encoding type {other}")),
        }
    }

    fn decompressed(&mut self) -> Result<Vec<u8>> {
        let (packed_len, raw_len) = (self.length()?, self.length()?);
        let raw_len = usize::try_from(raw_len).unwrap_or(usize::MAX);
        let mut packed = Vec::new();
        self.reader.get_into(packed_len, &mut packed)?;
        match lzf::decompress(&packed, raw_len) {
            Some(bytes) => Ok(bytes),
            None => corrupt("Invalid LZF compressed string"),
        }
    }

    /// Reads a string into a buffer of its own.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let text = self.text()?;
        Ok(match text {
            Text::Owned(bytes) => bytes,
            other => other.bytes(&mut IntBuf::new()).to_vec(),
        })
    }

    /// Reads a string into `out`, in place of the buffer's content.
    pub fn bytes_into(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let text = self.text()?;
        match text {
            Text::Owned(bytes) => *out = bytes,
            other => out.extend_from_slice(other.bytes(&mut IntBuf::new())),
        }
        Ok(())
    }

    /// Reads a string, passes it to `show`, and returns the result of `show`.
    fn with_text<R>(&mut self, show: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let text = self.text()?;
        Ok(show(text.bytes(&mut IntBuf::new())))
    }

    /// Reads a packed block (a listpack, an intset or an older form) and converts it with `check`,
    /// which returns `None` if the block is damaged.
    fn block<B>(&mut self, check: impl FnOnce(&[u8]) -> Option<B>) -> Result<Option<B>> {
        self.blocks += 1;
        self.with_text(check)
    }

    /// Reads a value that is not a string.
    pub fn value(&mut self, kind: u8, tick: Tick) -> Result<Value> {
        use kind::*;
        if self.version >= VERSION_VALKEY && kind > HASH_2 {
            return self.foreign_to_redis(kind, tick);
        }
        Ok(match kind {
            LIST => Value::List(self.list(tick)?),
            LIST_ZIPLIST => Value::List(self.list_of_ziplist()?),
            LIST_QUICKLIST | LIST_QUICKLIST_2 => Value::List(self.quicklist(kind, tick)?),
            SET => Value::Set(self.set(tick)?),
            SET_INTSET => Value::Set(self.intset()?),
            SET_LISTPACK => Value::Set(self.set_listpack()?),
            ZSET | ZSET_2 => Value::Zset(self.zset(kind, tick)?),
            ZSET_ZIPLIST | ZSET_LISTPACK => Value::Zset(self.zset_packed(kind)?),
            HASH => Value::Hash(self.hash(tick)?),
            HASH_ZIPMAP | HASH_ZIPLIST | HASH_LISTPACK => Value::Hash(self.hash_packed(kind)?),
            HASH_2 if self.version >= VERSION_VALKEY => Value::Hash(self.hash_valkey(tick)?),
            HASH_METADATA_PRE_GA | HASH_METADATA => Value::Hash(self.hash_metadata(kind, tick)?),
            HASH_LISTPACK_EX_PRE_GA | HASH_LISTPACK_EX => Value::Hash(self.hash_listpack_ex(kind)?),
            STREAM_LISTPACKS | STREAM_LISTPACKS_2 | STREAM_LISTPACKS_3 | STREAM_PRODUCERS
            | STREAM_RELEASED => Value::Stream(Box::new(self.stream(kind, tick)?)),
            ARRAY => return self.array(tick),
            COMPACT_PACKED_DUMP..=COMPACT => return Err(Fault::Foreign(COMPACT_HASH)),
            MODULE_PRE_GA | MODULE_2 => return self.module_value(),
            other => return corrupt(format!("Unknown RDB encoding type {other}")),
        })
    }

    /// Calls `tick`, which serves clients, if the offset of the next call is reached.
    pub fn report(&mut self, mut tick: &mut dyn FnMut(u64) -> u64) {
        self.tick(&mut tick);
    }

    #[inline]
    fn tick(&mut self, tick: &mut Tick) {
        let at = self.reader.offset();
        if at >= self.next_tick {
            self.next_tick = tick(at);
        }
    }

    fn module_value<T>(&mut self) -> Result<T> {
        let name = module_name(self.length()?);
        corrupt(format!(
            "The RDB file contains module data I can't load: no matching module type '{name}'"
        ))
    }
}

/// The name of a module in an RDB: nine letters of six bits each; the lowest ten bits of `id` are a
/// version.
pub fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9)
        .map(|at| LETTERS[(id >> (10 + 6 * (8 - at)) & 63) as usize] as char)
        .collect()
}

/// Decodes lists, in each format that any version of Redis wrote.
impl Decoder<'_, '_> {
    fn list(&mut self, mut tick: Tick) -> Result<List> {
        let count = self.count()?;
        let limits = self.limits.list;
        let mut quicklist = Quicklist::new(limits);
        for _ in 0..count {
            self.with_text(|text| quicklist.push(End::Tail, text))?;
            self.tick(&mut tick);
        }
        Ok(List::from_quicklist(quicklist, &limits))
    }

    fn list_of_ziplist(&mut self) -> Result<List> {
        let limits = self.limits.list;
        let listpack = self.block(legacy::listpack_of_ziplist)?;
        let Some(listpack) = listpack else {
            return corrupt("List ziplist integrity check failed.");
        };
        if listpack.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(List::from_listpack(listpack, &limits))
    }

    fn quicklist(&mut self, kind: u8, mut tick: Tick) -> Result<List> {
        let count = self.count()?;
        let limits = self.limits.list;
        let mut quicklist = Quicklist::new(limits);
        for _ in 0..count {
            self.quicklist_node(kind, &mut quicklist)?;
            self.tick(&mut tick);
        }
        if quicklist.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(List::from_quicklist(quicklist, &limits))
    }

    fn quicklist_node(&mut self, kind: u8, quicklist: &mut Quicklist) -> Result<()> {
        if kind == kind::LIST_QUICKLIST {
            return match self.block(legacy::listpack_of_ziplist)? {
                Some(listpack) => {
                    quicklist.push_listpack(listpack);
                    Ok(())
                }
                None => corrupt("Ziplist integrity check failed."),
            };
        }
        match self.length()? {
            container::PLAIN => {
                let element = self.bytes()?;
                if element.is_empty() {
                    return corrupt("Quicklist integrity check failed.");
                }
                quicklist.push_plain(element.into_boxed_slice());
                Ok(())
            }
            container::PACKED => {
                let listpack = self.listpack("Listpack integrity check failed.")?;
                quicklist.push_listpack(listpack);
                Ok(())
            }
            _ => corrupt("Quicklist integrity check failed."),
        }
    }

    /// Reads a string that must be a valid listpack; `complaint` is the text of the error if it is
    /// not.
    fn listpack(&mut self, complaint: &'static str) -> Result<Listpack> {
        match self.block(Listpack::from_bytes)? {
            Some(listpack) => Ok(listpack),
            None => corrupt(complaint),
        }
    }
}

/// Decodes sets and sorted sets, in each format that any version of Redis wrote.
impl Decoder<'_, '_> {
    fn set(&mut self, mut tick: Tick) -> Result<Set> {
        let count = self.count()?;
        let room = self.reservation(count);
        let limits = self.limits.set;
        let mut set = self.with_text(|first| {
            let mut set = Set::for_members(first, room, &limits);
            set.add(first, &limits);
            set
        })?;
        for _ in 1..count {
            if !self.with_text(|member| set.add(member, &limits))? {
                return corrupt("Duplicate set members detected");
            }
            self.tick(&mut tick);
        }
        Ok(set)
    }

    fn intset(&mut self) -> Result<Set> {
        let Some(ints) = self.block(Intset::from_bytes)? else {
            return corrupt("Intset integrity check failed.");
        };
        if ints.is_empty() {
            return Err(Fault::Empty);
        }
        let too_many = ints.len() > self.limits.set.max_intset;
        let mut set = Set::Intset(ints);
        if too_many {
            set.convert_to_table(self.limits.set.seed, 0);
        }
        Ok(set)
    }

    fn set_listpack(&mut self) -> Result<Set> {
        let listpack = self.listpack("Set listpack integrity check failed.")?;
        if listpack.is_empty() {
            return Err(Fault::Empty);
        }
        match Set::from_listpack(listpack, &self.limits.set) {
            Some(set) => Ok(set),
            None => corrupt("Set listpack integrity check failed."),
        }
    }

    fn zset(&mut self, kind: u8, mut tick: Tick) -> Result<Zset> {
        let count = self.count()?;
        let mut members = MemberTable::new(self.limits.zset.seed);
        members.reserve(self.reservation(count));
        let mut name = Vec::new();
        for _ in 0..count {
            self.bytes_into(&mut name)?;
            let score = if kind == kind::ZSET {
                self.text_double()?
            } else {
                self.double()?
            };
            if score.is_nan() {
                return corrupt("Zset with NAN score detected");
            }
            if members.upsert(&name, |_| Some(score)).old.is_some() {
                return corrupt("Duplicate zset fields detected");
            }
            self.tick(&mut tick);
        }
        Ok(Zset::from_members(members, &self.limits.zset))
    }

    fn zset_packed(&mut self, kind: u8) -> Result<Zset> {
        let listpack = if kind == kind::ZSET_ZIPLIST {
            match self.block(legacy::listpack_of_ziplist)? {
                Some(listpack) => listpack,
                None => return corrupt("Zset ziplist integrity check failed."),
            }
        } else {
            self.listpack("Zset listpack integrity check failed.")?
        };
        if listpack.is_empty() {
            return Err(Fault::Empty);
        }
        match Zset::from_listpack(listpack, &self.limits.zset) {
            Some(zset) => Ok(zset),
            None => corrupt("Zset listpack integrity check failed."),
        }
    }
}

/// Decodes hashes, in each format that any version of Redis or Valkey wrote.
impl Decoder<'_, '_> {
    fn hash(&mut self, mut tick: Tick) -> Result<Hash> {
        let count = self.count()?;
        let limits = self.limits.hash;
        let mut hash = Hash::new();
        hash.expect(self.reservation(count), &limits);
        let mut field = Vec::new();
        for _ in 0..count {
            self.bytes_into(&mut field)?;
            if !self.with_text(|value| hash.set(&field, value, FieldTtl::Clear, &limits))? {
                return corrupt("Duplicate hash fields detected");
            }
            self.tick(&mut tick);
        }
        Ok(hash)
    }

    fn hash_packed(&mut self, kind: u8) -> Result<Hash> {
        let found = match kind {
            kind::HASH_ZIPMAP => {
                let Some(found) = self.block(legacy::listpack_of_zipmap)? else {
                    return corrupt("Zipmap integrity check failed.");
                };
                found
            }
            kind::HASH_ZIPLIST => {
                let Some(found) = self.block(legacy::listpack_of_ziplist)? else {
                    return corrupt("Hash ziplist integrity check failed.");
                };
                found
            }
            _ => self.listpack("Hash listpack integrity check failed.")?,
        };
        if found.is_empty() && kind == kind::HASH_ZIPMAP {
            return corrupt("Zipmap integrity check failed.");
        }
        if found.is_empty() {
            return Err(Fault::Empty);
        }
        let limits = self.limits.hash;
        let old = kind != kind::HASH_LISTPACK;
        let long = old && found.iter().any(|e| e.text_len() > limits.max_value);
        let Some(mut hash) = Hash::from_listpack(found, &limits) else {
            return corrupt(match kind {
                kind::HASH_LISTPACK => "Hash listpack integrity check failed.",
                kind::HASH_ZIPMAP => "Hash zipmap with dup elements, or big length (0)",
                _ => "Hash ziplist integrity check failed.",
            });
        };
        if long {
            hash.convert_to_table(limits.seed);
        }
        Ok(hash)
    }

    /// Reads a hash of Valkey 9: each field with its value and its expiry time, which is -1 for
    /// none.
    fn hash_valkey(&mut self, mut tick: Tick) -> Result<Hash> {
        let count = self.count()?;
        let mut hash = Hash::new();
        let (mut field, mut value) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.bytes_into(&mut field)?;
            self.bytes_into(&mut value)?;
            let at = Some(self.millis()?).filter(|at| *at >= 0);
            self.add_field(&mut hash, &field, &value, at)?;
            self.tick(&mut tick);
        }
        Ok(hash)
    }

    /// Reads a hash of Redis 7.4: each field after its expiry time, which is 0 for none, and
    /// otherwise relative to the earliest expiry time.
    fn hash_metadata(&mut self, kind: u8, mut tick: Tick) -> Result<Hash> {
        let earliest = match kind {
            kind::HASH_METADATA => Some(self.millis()?),
            _ => None,
        };
        let count = self.count()?;
        let mut hash = Hash::new();
        let (mut field, mut value) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let time = self.length()?;
            let at = match (time, earliest) {
                (0, _) => None,
                (time, None) => i64::try_from(time).ok(),
                (time, Some(earliest)) => i64::try_from(time - 1)
                    .ok()
                    .and_then(|later| earliest.checked_add(later)),
            };
            if time != 0 && at.is_none_or(|at| at < 0) {
                return corrupt("Hash field with an invalid time to live");
            }
            self.bytes_into(&mut field)?;
            self.bytes_into(&mut value)?;
            self.add_field(&mut hash, &field, &value, at)?;
            self.tick(&mut tick);
        }
        Ok(hash)
    }

    /// Reads a hash of Redis 7.4 in a listpack of field, value and expiry time in turn, with 0 for
    /// no time.
    fn hash_listpack_ex(&mut self, kind: u8) -> Result<Hash> {
        const COMPLAINT: &str = "Hash listpack integrity check failed.";
        if kind == kind::HASH_LISTPACK_EX {
            // The earliest expiry time is skipped, since it is also in the triples.
            self.millis()?;
        }
        let listpack = self.listpack(COMPLAINT)?;
        if listpack.is_empty() {
            return Err(Fault::Empty);
        }
        let mut hash = Hash::new();
        let mut elements = listpack.iter();
        while let Some(field) = elements.next() {
            let (Some(value), Some(Element::Int(at))) = (elements.next(), elements.next()) else {
                return corrupt(COMPLAINT);
            };
            if at < 0 {
                return corrupt(COMPLAINT);
            }
            let at = Some(at).filter(|at| *at != 0);
            self.add_field(&mut hash, &field.to_vec(), &value.to_vec(), at)?;
        }
        Ok(hash)
    }

    fn add_field(
        &self,
        hash: &mut Hash,
        field: &[u8],
        value: &[u8],
        at: Option<i64>,
    ) -> Result<()> {
        let ttl = at.map_or(FieldTtl::Clear, FieldTtl::At);
        if hash.set(field, value, ttl, &self.limits.hash) {
            return Ok(());
        }
        corrupt("Duplicate hash fields detected")
    }
}

/// Decodes streams with their consumer groups.
impl Decoder<'_, '_> {
    fn stream(&mut self, kind: u8, mut tick: Tick) -> Result<Stream> {
        let mut stream = Stream::new();
        let nodes = self.length()?;
        for _ in 0..nodes {
            self.stream_node(&mut stream)?;
            self.tick(&mut tick);
        }
        let len = self.length()?;
        let last_id = self.id()?;
        // Versions before 7.0 lack the highest deleted ID and the number of entries added, so both
        // are set as if no entry had been deleted.
        let (mut max_deleted, mut added) = (StreamId::MIN, len);
        if kind != kind::STREAM_LISTPACKS {
            // The ID of the first entry is skipped, since it is also in the listpacks.
            self.id()?;
            (max_deleted, added) = (self.id()?, self.length()?);
        }
        let live = stream.log.len();
        if !stream.log.finish_load(len, last_id, max_deleted, added) {
            if self.limits.sanitize {
                return corrupt("Stream length inconsistent with its listpacks");
            }
            // Older versions of Redis miscounted deleted entries of streams, so the entries are
            // counted anew.
            log::warn!(
                "A stream has {live} entries, which its stored length ({len}) or last ID contradicts: counted anew."
            );
        }
        let groups = self.length()?;
        let mut released = false;
        for _ in 0..groups {
            released |= self.group(kind, &mut stream, &mut tick)?;
        }
        if kind >= kind::STREAM_PRODUCERS {
            self.producers(tick)?;
        }
        match released {
            true => Err(Fault::Foreign(STREAM_RELEASED)),
            false => Ok(stream),
        }
    }

    fn id(&mut self) -> Result<StreamId> {
        Ok(StreamId::new(self.length()?, self.length()?))
    }

    fn stream_node(&mut self, stream: &mut Stream) -> Result<()> {
        let key =
            self.with_text(|key| key.first_chunk::<16>().copied().filter(|_| key.len() == 16))?;
        let Some(key) = key else {
            return corrupt("Stream node key entry is not the size of a stream ID");
        };
        let listpack = self.listpack("Stream listpack integrity check failed.")?;
        if listpack.is_empty() {
            return corrupt("Empty listpack inside stream");
        }
        if !stream.log.insert_node(StreamId::from_bytes(key), listpack) {
            return corrupt("Stream listpack integrity check failed.");
        }
        Ok(())
    }

    /// Reads a consumer group of a stream. Returns whether the group has released entries (Redis
    /// 8.8), which are pending and belong to no consumer.
    fn group(&mut self, kind: u8, stream: &mut Stream, tick: &mut Tick) -> Result<bool> {
        let name = self.bytes()?;
        let last_id = self.id()?;
        let entries_read = if kind == kind::STREAM_LISTPACKS {
            entries_up_to(&stream.log, last_id)
        } else {
            // The format has -1 for an unknown number of entries that a consumer group has read.
            Some(self.length()?).filter(|read| i64::try_from(*read).is_ok())
        };
        let Some(group) = stream.create_group(&name, last_id, entries_read) else {
            let name = name.escape_ascii();
            return corrupt(format!("Duplicated consumer group name {name}"));
        };
        let pending = self.length()?;
        for _ in 0..pending {
            let id = StreamId::from_bytes(self.reader.get()?);
            let (time, count) = (self.millis()?, self.length()?);
            if !group.load_pending(id, time, count) {
                return corrupt("Duplicated global PEL entry loading stream consumer group");
            }
            self.tick(tick);
        }
        let consumers = self.length()?;
        for _ in 0..consumers {
            self.consumer(kind, group, tick)?;
            self.tick(tick);
        }
        let released = match kind {
            kind::STREAM_RELEASED => self.length()?,
            _ => 0,
        };
        for _ in 0..released {
            self.reader.get::<16>()?;
            self.tick(tick);
        }
        if released == 0 && !group.finish_load() {
            return corrupt("NACK of a stream consumer group without a consumer");
        }
        Ok(released > 0)
    }

    fn consumer(&mut self, kind: u8, group: &mut Group, tick: &mut Tick) -> Result<()> {
        let name = self.bytes()?;
        let seen = self.millis()?;
        let Some(id) = group.create_consumer(&name, seen) else {
            return corrupt("Duplicate stream consumer detected");
        };
        let active = if kind >= kind::STREAM_LISTPACKS_3 {
            self.millis()?
        } else {
            seen
        };
        group.consumer_mut(id).active_time = active;
        let pending = self.length()?;
        for _ in 0..pending {
            let entry = StreamId::from_bytes(self.reader.get()?);
            if !group.load_owner(entry, id) {
                return corrupt("Consumer entry not found in group global PEL");
            }
            self.tick(tick);
        }
        Ok(())
    }
}
