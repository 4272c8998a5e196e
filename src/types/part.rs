//! The collection of an entry. A small collection lies in the entry itself, a larger one in an
//! allocation of its own (`ds::entry`).

use std::ops::{Deref, DerefMut};

use crate::ds::entry::{Block, Loan, Open, Packed, Payload, ValueRef};
use crate::error::Error;
use crate::types::hash::Hash;
use crate::types::lengths::{KeyWrite, Lengths};
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{KeyRef, Type, Value, kind};

/// A Rust type for the value of an entry: `List`, `Set`, `Hash`, `Zset`, or `Value` for all types.
pub trait Part: Payload + Into<Value> {
    /// The collection in `value`; `None` if it is not a `Self`.
    fn of(value: &Value) -> Option<&Self>;
    /// The collection in `value`, opened for changes; `None` if it is not a `Self`.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
}

impl Part for Value {
    #[inline]
    fn of(value: &Value) -> Option<&Value> {
        Some(value)
    }

    #[inline]
    fn of_mut(value: &mut Value) -> Option<&mut Value> {
        Some(value)
    }
}

/// One of the collection types that an entry can hold: `List`, `Set`, `Hash` and `Zset`.
pub trait Collection: Part {
    /// The type that the command TYPE reports for the collection.
    const TYPE: Type;

    /// The number of elements of the collection.
    fn count(&self) -> usize;
}

macro_rules! part {
    ($name:ident, $($encoding:ident)|+) => {
        impl From<$name> for Value {
            fn from(part: $name) -> Value {
                Value::$name(part)
            }
        }

        impl Collection for $name {
            const TYPE: Type = Type::$name;

            #[inline(always)]
            fn count(&self) -> usize {
                self.len()
            }
        }

        impl Payload for $name {
            #[inline]
            fn has_kind(kind: u8) -> bool {
                kind::type_of(kind) == Type::$name
            }

            #[inline]
            fn into_block(self) -> Result<Block, $name> {
                match self {
                    $($name::$encoding(block) => Ok(Block::$encoding(block)),)+
                    part => Err(part),
                }
            }

            #[inline]
            fn from_block(kind: u8, block: Block) -> $name {
                match block {
                    $(Block::$encoding(block) => $name::$encoding(block),)+
                    #[allow(unreachable_patterns, reason = "a set has all forms of blocks")]
                    _ => unreachable!("a block of kind {kind}"),
                }
            }

            #[inline]
            fn is_in_entry(&self) -> bool {
                match self {
                    $($name::$encoding(block) => block.is_in_entry(),)+
                    _ => false,
                }
            }
        }

        impl Part for $name {
            #[inline]
            fn of(value: &Value) -> Option<&$name> {
                match value {
                    Value::$name(part) => Some(part),
                    _ => None,
                }
            }

            #[inline]
            fn of_mut(value: &mut Value) -> Option<&mut $name> {
                match value {
                    Value::$name(part) => Some(part),
                    _ => None,
                }
            }
        }
    };
}

part!(List, Listpack);
part!(Set, Listpack | Intset);
part!(Hash, Listpack);
part!(Zset, Listpack);

impl Payload for Value {
    #[inline]
    fn into_block(self) -> Result<Block, Value> {
        match self {
            Value::List(list) => list.into_block().map_err(Value::List),
            Value::Set(set) => set.into_block().map_err(Value::Set),
            Value::Hash(hash) => hash.into_block().map_err(Value::Hash),
            Value::Zset(zset) => zset.into_block().map_err(Value::Zset),
            Value::Str(_) | Value::Stream(_) => Err(self),
        }
    }

    #[inline]
    fn from_block(kind: u8, block: Block) -> Value {
        match kind::type_of(kind) {
            Type::List => List::from_block(kind, block).into(),
            Type::Set => Set::from_block(kind, block).into(),
            Type::Hash => Hash::from_block(kind, block).into(),
            Type::Zset => Zset::from_block(kind, block).into(),
            Type::String | Type::Stream => unreachable!("a block of kind {kind}"),
        }
    }
}

/// The collection of an entry, opened for reading.
pub enum Held<'a, T> {
    There(&'a T),
    Packed(Packed<'a, T>),
}

impl<'a, T: Part> Held<'a, T> {
    /// The collection of type `T`; `None` if the entry has another type.
    #[inline]
    pub fn of(entry: KeyRef<'a>) -> Option<Held<'a, T>> {
        match entry.value() {
            ValueRef::Obj(value) => T::of(value).map(Held::There),
            ValueRef::Packed(packed) if T::has_kind(packed.kind()) => {
                Some(Held::Packed(packed.read()))
            }
            ValueRef::Packed(_) | ValueRef::Int(_) | ValueRef::Str(_) => None,
        }
    }

    /// The collection of type `T`; the error WRONGTYPE if the entry has another type.
    #[inline]
    pub fn typed(entry: KeyRef<'a>) -> Result<Held<'a, T>, Error> {
        Held::of(entry).ok_or(Error::WRONGTYPE)
    }
}

impl<T: Part> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Held::There(part) => part,
            Held::Packed(part) => part,
        }
    }
}

/// The collection of an entry, opened for changes. The change is written back and counted when this
/// value is dropped.
pub struct Opened<'a, T: Collection> {
    part: OpenPart<'a, T>,
    /// The histograms of the lengths of values, if the database keeps them.
    lengths: Option<&'a mut Lengths>,
    /// The number of elements before the change; 0 if there are no histograms.
    was: usize,
}

enum OpenPart<'a, T: Part> {
    There(&'a mut T),
    Packed(Loan<'a, Value, T>),
}

impl<'a, T: Collection> Opened<'a, T> {
    /// The collection of type `T`; WRONGTYPE if the entry has another type.
    #[inline(always)]
    pub fn typed(entry: KeyWrite<'a>) -> Result<Opened<'a, T>, Error> {
        let (entry, lengths) = entry.into_parts();
        let part = match entry.open() {
            Some(Open::There(value)) => T::of_mut(value).map(OpenPart::There),
            Some(Open::Packed(loan)) => Some(OpenPart::Packed(loan)),
            None => None,
        }
        .ok_or(Error::WRONGTYPE)?;
        let was = if lengths.is_some() { part.count() } else { 0 };
        Ok(Opened { part, lengths, was })
    }
}

/// Changes the collection of an entry, with fewer instructions than through [`Opened`]: whether the
/// collection lies in the entry is tested once, not at each access. WRONGTYPE if the entry has
/// another type.
#[inline(always)]
pub fn change<T: Collection, R>(
    entry: KeyWrite<'_>,
    change: impl FnOnce(&mut T) -> R,
) -> Result<R, Error> {
    let (entry, lengths) = entry.into_parts();
    let mut loan: Loan<'_, Value, T>;
    let part = match entry.open() {
        Some(Open::There(value)) => T::of_mut(value).ok_or(Error::WRONGTYPE)?,
        Some(Open::Packed(lent)) => {
            loan = lent;
            &mut *loan
        }
        None => return Err(Error::WRONGTYPE),
    };
    let was = part.count();
    let result = change(part);
    if let Some(lengths) = lengths {
        lengths.change(T::TYPE, was, part.count());
    }
    Ok(result)
}

impl<T: Collection> Drop for Opened<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(lengths) = &mut self.lengths {
            lengths.change(T::TYPE, self.was, self.part.count());
        }
    }
}

impl<T: Part> Deref for OpenPart<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        match self {
            OpenPart::There(part) => part,
            OpenPart::Packed(loan) => loan,
        }
    }
}

impl<T: Collection> Deref for Opened<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T: Collection> DerefMut for Opened<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.part {
            OpenPart::There(part) => part,
            OpenPart::Packed(loan) => loan,
        }
    }
}
