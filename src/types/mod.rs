//! The value types. Each is an enum of its encodings and knows nothing of clients, databases or
//! replies.
//!
//! A key's entry (`ds::entry`) holds short strings and integers itself; everything else is a
//! [`Value`] in the same allocation.

pub mod hash;
pub mod list;
pub mod set;
pub mod stream;
pub mod string;
pub mod zset;

use crate::ds::entry::{Entry, EntryMut, EntryRef, NewValue, OwnedValue, ValueRef};
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::stream::Stream;
use crate::types::string::RawStr;
use crate::types::zset::Zset;

/// What a key holds when it is not a short string or an integer.
#[derive(Clone)]
pub enum Value {
    Str(RawStr),
    List(List),
    Set(Set),
    Hash(Hash),
    Zset(Zset),
    Stream(Box<Stream>),
}

const _: () = assert!(
    size_of::<Value>() <= 24,
    "a value rides in its key's allocation"
);

/// The type of a key, as TYPE names it. The numbers are those of the RDB format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Type {
    String = 0,
    List = 1,
    Set = 2,
    Zset = 3,
    Hash = 4,
    Stream = 6,
}

impl Type {
    pub const ALL: [Type; 6] = [
        Type::String,
        Type::List,
        Type::Set,
        Type::Zset,
        Type::Hash,
        Type::Stream,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::Zset => "zset",
            Type::Hash => "hash",
            Type::Stream => "stream",
        }
    }
}

/// The kind byte of an entry: the type, and for strings how they came to be, which OBJECT ENCODING
/// reports.
pub mod kind {
    use super::Type;

    pub const INT: u8 = Type::String as u8;
    pub const EMBSTR: u8 = Type::String as u8 | 1 << 4;
    pub const RAW: u8 = Type::String as u8 | 2 << 4;
    pub const LIST: u8 = Type::List as u8;
    pub const SET: u8 = Type::Set as u8;
    pub const ZSET: u8 = Type::Zset as u8;
    pub const HASH: u8 = Type::Hash as u8;
    pub const STREAM: u8 = Type::Stream as u8;

    pub fn type_of(kind: u8) -> Type {
        match kind & 0x0f {
            1 => Type::List,
            2 => Type::Set,
            3 => Type::Zset,
            4 => Type::Hash,
            6 => Type::Stream,
            _ => Type::String,
        }
    }
}

/// The entries of the keyspace and views of them.
pub type Key = Entry<Value>;
pub type KeyRef<'a> = EntryRef<'a, Value>;
pub type KeyMut<'a> = EntryMut<'a, Value>;
pub type New<'a> = NewValue<'a, Value>;

/// A copy of an entry's value that stands on its own: what COPY gives to the other key.
pub fn duplicate(entry: KeyRef) -> OwnedValue<Value> {
    match entry.value() {
        ValueRef::Int(n) => OwnedValue::Int(n),
        ValueRef::Str(bytes) => OwnedValue::Str(bytes.into()),
        ValueRef::Obj(value) => OwnedValue::Obj(value.clone()),
    }
}

/// When the first field of a hash expires: what `Db::field_expires` holds for its key.
#[inline]
pub fn next_field_expiry(entry: KeyRef) -> Option<i64> {
    if entry.kind() != kind::HASH {
        return None;
    }
    match entry.value() {
        ValueRef::Obj(Value::Hash(hash)) => hash.next_expiry(),
        _ => None,
    }
}

/// How much work freeing a value is, in allocations.
pub fn free_effort(entry: KeyRef) -> usize {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) => 1,
        ValueRef::Obj(value) => value.free_effort(),
    }
}

/// Bytes that a key takes: its entry, its value, and its slot in the table.
pub fn memory_bytes(entry: KeyRef) -> usize {
    let value = match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) => 0,
        ValueRef::Obj(value) => value.memory_bytes(),
    };
    size_of::<usize>() + entry.alloc_size() + value
}

/// The same in a time that does not grow with the value: of its parts a few are weighed, and the
/// rest is taken to be like them.
pub fn memory_estimate(entry: KeyRef) -> usize {
    let value = match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) => 0,
        ValueRef::Obj(value) => value.memory_estimate(),
    };
    size_of::<usize>() + entry.alloc_size() + value
}

/// Elements of a collection, fields of a hash, entries of a stream, bytes of a string.
pub fn length(entry: KeyRef) -> usize {
    match entry.value() {
        ValueRef::Str(bytes) => bytes.len(),
        ValueRef::Int(n) => string::StrView::Int(n).len(),
        ValueRef::Obj(value) => value.len(),
    }
}

/// What OBJECT ENCODING says.
pub fn encoding_name(entry: KeyRef) -> &'static str {
    match entry.value() {
        ValueRef::Obj(value) => value.encoding(),
        _ if entry.kind() == kind::INT => "int",
        _ if entry.kind() == kind::EMBSTR => "embstr",
        _ => "raw",
    }
}

/// How many elements of a table are weighed to estimate the rest, as many as Redis's default.
const SAMPLES: usize = 5;

/// Elements that are found by their hash can be asked for ahead; see `networking::prefetch`.
impl Value {
    /// Whether a hash leads to an element.
    #[inline]
    pub fn is_hashed(&self) -> bool {
        matches!(
            self,
            Value::Set(Set::Table(_)) | Value::Hash(Hash::Table(_)) | Value::Zset(Zset::Tree(_))
        )
    }

    /// First the bucket.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        match self {
            Value::Set(Set::Table(table)) => table.prefetch_bucket(hash),
            Value::Hash(Hash::Table(table)) => table.prefetch_bucket(hash),
            Value::Zset(Zset::Tree(set)) => set.prefetch_bucket(hash),
            _ => {}
        }
    }

    /// When that has arrived, what it leads to.
    #[inline]
    pub fn prefetch_element(&self, hash: u64) {
        match self {
            Value::Set(Set::Table(table)) => table.prefetch_entry(hash),
            Value::Hash(Hash::Table(table)) => table.prefetch_entry(hash),
            Value::Zset(Zset::Tree(set)) => set.prefetch_entry(hash),
            _ => {}
        }
    }
}

impl Value {
    fn encoding(&self) -> &'static str {
        match self {
            Value::Str(_) => "raw",
            Value::List(list) => list.encoding(),
            Value::Set(set) => set.encoding(),
            Value::Hash(hash) => hash.encoding(),
            Value::Zset(zset) => zset.encoding(),
            Value::Stream(_) => "stream",
        }
    }

    /// Heap bytes held.
    fn memory_bytes(&self) -> usize {
        match self {
            Value::Str(string) => string.memory(),
            Value::List(list) => list.memory_bytes(),
            Value::Set(set) => set.memory(SAMPLES),
            Value::Hash(hash) => hash.memory(SAMPLES),
            Value::Zset(zset) => zset.memory_bytes(),
            Value::Stream(stream) => stream.memory_bytes(),
        }
    }

    fn memory_estimate(&self) -> usize {
        match self {
            Value::List(List::Quicklist(list)) => list.memory_estimate(),
            Value::Zset(Zset::Tree(set)) => set.memory_estimate(),
            Value::Stream(stream) => stream.memory_estimate(),
            // These take samples, or are one allocation.
            _ => self.memory_bytes(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Value::Str(string) => string.bytes().len(),
            Value::List(list) => list.len(),
            Value::Set(set) => set.len(),
            Value::Hash(hash) => hash.len(),
            Value::Zset(zset) => zset.len(),
            Value::Stream(stream) => usize::try_from(stream.log.len()).unwrap_or(usize::MAX),
        }
    }

    /// How much work freeing it is, in allocations.
    fn free_effort(&self) -> usize {
        match self {
            Value::Str(_) => 1,
            Value::List(list) => list.free_effort(),
            Value::Set(set) => set.free_effort(),
            Value::Hash(hash) => hash.free_effort(),
            Value::Zset(Zset::Listpack(_)) => 1,
            Value::Zset(Zset::Tree(set)) => set.len(),
            Value::Stream(stream) => stream.log.nodes().len() + stream.group_count(),
        }
    }
}
