//! The collection of an entry. A small collection lies in the entry itself, a larger one in an
//! allocation of its own (`ds::entry`).

use std::ops::{Deref, DerefMut};

use crate::ds::entry::{Block, Loan, Open, Packed, Payload, ValueRef};
use crate::error::Error;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{KeyMut, KeyRef, Type, Value, kind};

/// The type of a collection, or `Value` for any type.
pub trait Part: Payload + Into<Value> {
    /// The collection in a value, if it has this type.
    fn of(value: &Value) -> Option<&Self>;
    /// The collection in a value, opened for changes, if it has this type.
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

macro_rules! part {
    ($name:ident, $($encoding:ident)|+) => {
        impl From<$name> for Value {
            fn from(part: $name) -> Value {
                Value::$name(part)
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

/// The collection of an entry, to be read.
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

/// The collection of an entry, opened for changes. The change is written back when this value is
/// dropped.
pub enum Opened<'a, T: Part> {
    There(&'a mut T),
    Packed(Loan<'a, Value, T>),
}

impl<'a, T: Part> Opened<'a, T> {
    /// The collection of type `T`; WRONGTYPE if the entry has another type.
    #[inline(always)]
    pub fn typed(entry: KeyMut<'a>) -> Result<Opened<'a, T>, Error> {
        match entry.open() {
            Some(Open::There(value)) => T::of_mut(value).map(Opened::There),
            Some(Open::Packed(loan)) => Some(Opened::Packed(loan)),
            None => None,
        }
        .ok_or(Error::WRONGTYPE)
    }
}

impl<T: Part> Deref for Opened<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Opened::There(part) => part,
            Opened::Packed(loan) => loan,
        }
    }
}

impl<T: Part> DerefMut for Opened<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Opened::There(part) => part,
            Opened::Packed(loan) => loan,
        }
    }
}
