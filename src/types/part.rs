//! The collection of an entry, wherever it lies: in the entry itself while it is small, in an
//! allocation of its own beyond (`ds::entry`).

use std::ops::{Deref, DerefMut};

use crate::ds::entry::{Block, Loan, Open, Packed, Payload, ValueRef};
use crate::error::Error;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{KeyMut, KeyRef, Type, Value, kind};

/// One of the types of values, or any value.
pub trait Part: Sized {
    /// The part of a value, if it has this type.
    fn of(value: &Value) -> Option<&Self>;
    /// The same, to be changed.
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
    ($name:ident) => {
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

part!(List);
part!(Set);
part!(Hash);
part!(Zset);

impl Payload for Value {
    #[inline]
    fn into_block(self) -> Result<Block, Value> {
        match self {
            Value::List(List::Listpack(listpack))
            | Value::Set(Set::Listpack(listpack))
            | Value::Hash(Hash::Listpack(listpack))
            | Value::Zset(Zset::Listpack(listpack)) => Ok(Block::Listpack(listpack)),
            Value::Set(Set::Intset(ints)) => Ok(Block::Intset(ints)),
            value => Err(value),
        }
    }

    #[inline]
    fn from_block(kind: u8, block: Block) -> Value {
        match (kind::type_of(kind), block) {
            (Type::List, Block::Listpack(listpack)) => Value::List(List::Listpack(listpack)),
            (Type::Set, Block::Listpack(listpack)) => Value::Set(Set::Listpack(listpack)),
            (Type::Hash, Block::Listpack(listpack)) => Value::Hash(Hash::Listpack(listpack)),
            (Type::Zset, Block::Listpack(listpack)) => Value::Zset(Zset::Listpack(listpack)),
            (Type::Set, Block::Intset(ints)) => Value::Set(Set::Intset(ints)),
            (other, _) => unreachable!("a block of type {other:?}"),
        }
    }
}

/// The collection of an entry, to be read.
pub enum Held<'a, T> {
    There(&'a T),
    Packed(Packed<'a, Value>),
}

impl<'a, T: Part> Held<'a, T> {
    /// The part of type `T`; `None` if the entry has another type.
    #[inline]
    pub fn of(entry: KeyRef<'a>) -> Option<Held<'a, T>> {
        match entry.value() {
            ValueRef::Obj(value) => T::of(value).map(Held::There),
            ValueRef::Packed(packed) => {
                let value = packed.read();
                T::of(&value).is_some().then_some(Held::Packed(value))
            }
            ValueRef::Int(_) | ValueRef::Str(_) => None,
        }
    }

    /// The same; WRONGTYPE for any other type.
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
            Held::Packed(value) => T::of(value).expect("checked by `of`"),
        }
    }
}

/// The collection of an entry, to be changed. It is written back when this is dropped.
pub enum Opened<'a, T> {
    There(&'a mut T),
    Packed(Loan<'a, Value>),
}

impl<'a, T: Part> Opened<'a, T> {
    /// The part of type `T`; WRONGTYPE if the entry has another type.
    #[inline]
    pub fn typed(entry: KeyMut<'a>) -> Result<Opened<'a, T>, Error> {
        match entry.open() {
            Some(Open::There(value)) => T::of_mut(value).map(Opened::There),
            Some(Open::Packed(loan)) => T::of(&loan).is_some().then_some(Opened::Packed(loan)),
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
            Opened::Packed(loan) => T::of(loan).expect("checked by `typed`"),
        }
    }
}

impl<T: Part> DerefMut for Opened<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Opened::There(part) => part,
            Opened::Packed(loan) => T::of_mut(loan).expect("checked by `typed`"),
        }
    }
}
