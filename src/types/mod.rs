//! The types of values. Each type is an enum of its encodings and does not use clients, databases
//! or replies.
//!
//! A key's entry (`ds::entry`) holds short strings, integers and small collections itself. Any
//! other value is a [`Value`] in the same allocation. [`part`] reads and changes a collection,
//! whether it is in the entry or in a `Value`.

pub mod hash;
pub mod lengths;
pub mod list;
pub mod part;
pub mod relocate;
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

/// The value of a key that is neither a short string nor an integer.
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

/// The type of a key. The numbers are those of the RDB format.
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
    /// All types, in the order of [`Type::place`].
    pub const ALL: [Type; 6] = [
        Type::String,
        Type::List,
        Type::Set,
        Type::Zset,
        Type::Hash,
        Type::Stream,
    ];

    /// The index of this type in [`Type::ALL`].
    pub const fn place(self) -> usize {
        match self {
            Type::String => 0,
            Type::List => 1,
            Type::Set => 2,
            Type::Zset => 3,
            Type::Hash => 4,
            Type::Stream => 5,
        }
    }

    /// The name that TYPE reports.
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

const _: () = {
    let mut at = 0;
    while at < Type::ALL.len() {
        assert!(Type::ALL[at].place() == at);
        at += 1;
    }
};

/// The kind byte, by which an entry of the keyspace stores the type of its value and, for strings,
/// the encoding that OBJECT ENCODING reports.
pub mod kind {
    use super::Type;

    /// The type and encoding byte of a string that is an integer.
    pub const INT: u8 = Type::String as u8;
    /// The type and encoding byte of a short string that was set whole, such as by SET.
    pub const EMBSTR: u8 = Type::String as u8 | 1 << 4;
    /// The type and encoding byte of a string that is long, or was changed in place, such as by
    /// APPEND.
    pub const RAW: u8 = Type::String as u8 | 2 << 4;
    /// The type byte of a list.
    pub const LIST: u8 = Type::List as u8;
    /// The type byte of a set.
    pub const SET: u8 = Type::Set as u8;
    /// The type byte of a sorted set.
    pub const ZSET: u8 = Type::Zset as u8;
    /// The type byte of a hash.
    pub const HASH: u8 = Type::Hash as u8;
    /// The type byte of a stream.
    pub const STREAM: u8 = Type::Stream as u8;

    /// The type of the value, which is in the low four bits of an entry's kind byte.
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

/// An entry of the keyspace: key, value and metadata.
pub type Key = Entry<Value>;
/// A shared view of an entry.
pub type KeyRef<'a> = EntryRef<'a, Value>;
/// A view of an entry that can change its value.
pub type KeyMut<'a> = EntryMut<'a, Value>;
/// A value that is about to be stored in an entry.
pub type New<'a> = NewValue<'a, Value>;

/// A copy of an entry's value, for COPY.
pub fn duplicate(entry: KeyRef) -> OwnedValue<Value> {
    match entry.value() {
        ValueRef::Int(n) => OwnedValue::Int(n),
        ValueRef::Str(bytes) => OwnedValue::Str(bytes.into()),
        ValueRef::Obj(value) => OwnedValue::Obj(value.clone()),
        ValueRef::Packed(packed) => OwnedValue::Obj(packed.read::<Value>().clone()),
    }
}

/// The time at which the first field of a hash expires, in Unix milliseconds. `Db::field_expires`
/// has this time for the hash's key.
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

/// The number of allocations that freeing a value takes.
pub fn free_effort(entry: KeyRef) -> usize {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(_) => 1,
        ValueRef::Obj(value) => value.free_effort(),
    }
}

/// The memory of a key in bytes: its entry, its value, and its slot in the table. For a value that
/// is a table, `samples` elements are measured; 0 measures all elements.
pub fn memory_bytes(entry: KeyRef, samples: usize) -> usize {
    let value = match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(_) => 0,
        ValueRef::Obj(value) => value.memory_bytes(samples),
    };
    size_of::<usize>() + entry.alloc_size() + value
}

/// An estimate of [`memory_bytes`] in constant time: a few elements are measured, and the others
/// are assumed to be like them.
pub fn memory_estimate(entry: KeyRef) -> usize {
    let value = match entry.value() {
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(_) => 0,
        ValueRef::Obj(value) => value.memory_estimate(),
    };
    size_of::<usize>() + entry.alloc_size() + value
}

/// The number of elements, fields or entries of a value; for a string, the number of its bytes.
pub fn length(entry: KeyRef) -> usize {
    match entry.value() {
        ValueRef::Str(bytes) => bytes.len(),
        ValueRef::Int(n) => string::StrView::Int(n).len(),
        ValueRef::Obj(value) => value.len(),
        ValueRef::Packed(packed) => packed.read::<Value>().len(),
    }
}

/// The name that OBJECT ENCODING reports.
pub fn encoding_name(entry: KeyRef) -> &'static str {
    match entry.value() {
        ValueRef::Obj(value) => value.encoding(),
        ValueRef::Packed(packed) => packed.read::<Value>().encoding(),
        _ if entry.kind() == kind::INT => "int",
        _ if entry.kind() == kind::EMBSTR => "embstr",
        _ => "raw",
    }
}

/// The number of elements that an estimate measures: the default of MEMORY USAGE in Redis.
pub const SAMPLES: usize = 5;

/// Prefetching of elements that are found by their hash; see `networking::prefetch`.
impl Value {
    /// Whether the value finds elements by their hash: a large set, hash or sorted set.
    #[inline]
    pub fn is_hashed(&self) -> bool {
        matches!(
            self,
            Value::Set(Set::Table(_)) | Value::Hash(Hash::Table(_)) | Value::Zset(Zset::Tree(_))
        )
    }

    /// Prefetches the bucket in which an element with this hash is looked up: the first of two
    /// steps.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        match self {
            Value::Set(Set::Table(table)) => table.prefetch_bucket(hash),
            Value::Hash(Hash::Table(table)) => table.prefetch_bucket(hash),
            Value::Zset(Zset::Tree(set)) => set.prefetch_bucket(hash),
            _ => {}
        }
    }

    /// Prefetches the element with this hash: the second step, when its bucket is in the cache.
    #[inline(always)]
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
    /// The type of the value.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Str(_) => Type::String,
            Value::List(_) => Type::List,
            Value::Set(_) => Type::Set,
            Value::Hash(_) => Type::Hash,
            Value::Zset(_) => Type::Zset,
            Value::Stream(_) => Type::Stream,
        }
    }

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

    /// The memory of the value in bytes.
    fn memory_bytes(&self, samples: usize) -> usize {
        match self {
            Value::Str(string) => string.memory(),
            Value::List(list) => list.memory_bytes(),
            Value::Set(set) => set.memory(samples),
            Value::Hash(hash) => hash.memory(samples),
            Value::Zset(zset) => zset.memory_bytes(),
            Value::Stream(stream) => stream.memory_bytes(),
        }
    }

    fn memory_estimate(&self) -> usize {
        match self {
            Value::List(List::Quicklist(list)) => list.memory_estimate(),
            Value::Zset(Zset::Tree(set)) => set.memory_estimate(),
            Value::Stream(stream) => stream.memory_estimate(),
            // For the other types, `memory_bytes` is an estimate itself, or reads the size of one
            // allocation.
            _ => self.memory_bytes(SAMPLES),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Value::Str(string) => string.bytes().len(),
            Value::List(list) => list.len(),
            Value::Set(set) => set.len(),
            Value::Hash(hash) => hash.len(),
            Value::Zset(zset) => zset.len(),
            Value::Stream(stream) => usize::try_from(stream.log.len()).unwrap_or(usize::MAX),
        }
    }

    /// The number of allocations that freeing the value takes.
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
