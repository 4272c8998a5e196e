//! Active defragmentation of a value: its allocations are moved, see `ds::relocate`.

use std::sync::Arc;

use crate::ds::entry::ValueMut;
use crate::ds::relocate::{Cursor, Relocate};
use crate::sys::mover::Mover;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::string::RawStr;
use crate::types::zset::Zset;
use crate::types::{KeyMut, Value};

/// Offers the allocations of an entry's value to the mover of active defragmentation, from `cursor`
/// on, until the mover's budget for this step is spent. Returns the next cursor, 0 at the end. The
/// table of keys moves the entry itself.
pub fn relocate(entry: &mut KeyMut<'_>, cursor: Cursor, mover: &mut Mover) -> Cursor {
    match entry.value_mut() {
        ValueMut::Obj(value) => value.relocate(cursor, mover),
        ValueMut::Int(_) | ValueMut::Str(_) | ValueMut::Packed => 0,
    }
}

impl Relocate for Value {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        match self {
            Value::Str(string) => string.relocate(cursor, mover),
            Value::List(List::Listpack(listpack)) => listpack.relocate(cursor, mover),
            Value::List(List::Quicklist(list)) => boxed(list, cursor, mover),
            Value::Set(Set::Intset(ints)) => ints.relocate(cursor, mover),
            Value::Set(Set::Listpack(listpack)) => listpack.relocate(cursor, mover),
            Value::Set(Set::Table(table)) => {
                if cursor == 0 {
                    mover.boxed(table);
                }
                table.relocate(cursor as u64, mover, |_, _| ()).into()
            }
            Value::Hash(Hash::Listpack(listpack)) => listpack.relocate(cursor, mover),
            Value::Hash(Hash::Table(table)) => boxed(table, cursor, mover),
            Value::Zset(Zset::Listpack(listpack)) => listpack.relocate(cursor, mover),
            Value::Zset(Zset::Tree(set)) => boxed(set, cursor, mover),
            Value::Stream(stream) => boxed(stream, cursor, mover),
        }
    }
}

/// Moves a boxed value. The box itself is moved in the first step, whose cursor is 0.
fn boxed<T: Relocate>(value: &mut Box<T>, cursor: Cursor, mover: &mut Mover) -> Cursor {
    if cursor == 0 {
        mover.boxed(value);
    }
    value.relocate(cursor, mover)
}

impl Relocate for RawStr {
    fn relocate(&mut self, _: Cursor, mover: &mut Mover) -> Cursor {
        mover.visited(1);
        // When no reply holds a shared string any more, the value becomes its only owner again. A
        // string that a reply still holds stays where it is, and a later pass of defragmentation
        // moves it.
        if let RawStr::Shared(shared) = self
            && let Some(bytes) = Arc::get_mut(shared)
        {
            *self = RawStr::Owned(std::mem::take(bytes));
        }
        if let RawStr::Owned(bytes) = self {
            mover.vec(bytes);
        }
        0
    }
}
