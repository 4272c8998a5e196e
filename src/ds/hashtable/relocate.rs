//! Active defragmentation of a hash table: moves its arrays of buckets, child buckets and elements,
//! one chain at a time, see `ds::relocate`. The cursor is that of SCAN.
use std::ptr::NonNull;

use super::walk::chains;
use super::{Element, HashTable, Place, tag_of};
use crate::sys::mover::Mover;

impl<E: Element> HashTable<E> {
    /// Moves the buckets and the elements from `cursor` on, until the mover's budget is spent.
    /// Passes each element to `visit`, which may move what the element owns. Returns the next
    /// cursor, 0 at the end.
    pub fn relocate(
        &mut self,
        cursor: u64,
        mover: &mut Mover,
        mut visit: impl FnMut(E::Mut<'_>, &mut Mover),
    ) -> u64 {
        self.relocate_places(cursor, mover, |p, place, mover| {
            // SAFETY: the element is in this slot of the table, which is borrowed exclusively;
            // after a move the slot has the element's new address.
            unsafe {
                let moved = mover.relocate(p, E::layout(p));
                if let Some(new) = moved {
                    place.set(new);
                }
                visit(E::by_mut(moved.unwrap_or(p), Some(place)), mover);
            }
        })
    }

    /// Moves the buckets as [`HashTable::relocate`] does, but no elements.
    pub fn relocate_buckets(&mut self, cursor: u64, mover: &mut Mover) -> u64 {
        self.relocate_places(cursor, mover, |_, _, _| ())
    }

    fn relocate_places(
        &mut self,
        cursor: u64,
        mover: &mut Mover,
        mut visit: impl FnMut(NonNull<u8>, Place, &mut Mover),
    ) -> u64 {
        if cursor == 0 {
            for table in &mut self.tables {
                table.relocate_array(mover);
            }
        }
        if self.len == 0 {
            return 0;
        }
        let masks = [self.tables[0].mask(), self.tables[1].mask()];
        let (rehashes, mut cursor) = (self.is_rehashing(), cursor);
        loop {
            cursor = chains(masks, rehashes, cursor, |table, index| {
                mover.visited(1);
                self.tables[table].relocate_chain(index, mover, &mut visit);
            });
            if cursor == 0 || mover.is_spent() {
                return cursor;
            }
        }
    }

    /// Writes the new address of an element that was copied. Returns false if the old address is
    /// not in the table.
    ///
    /// # Safety
    /// `new` is a copy of the element at `old`, whose hash is `hash`, and `old` is not used any
    /// more.
    pub(in crate::ds) unsafe fn repoint(
        &mut self,
        hash: u64,
        old: NonNull<u8>,
        new: NonNull<u8>,
    ) -> bool {
        let home = self.home(hash);
        let table = &mut self.tables[home.table];
        let Some(at) = table.find(home.index, tag_of(hash), |p| p == old) else {
            return false;
        };
        // SAFETY: the position of the old address was just found in this table.
        unsafe { table.replace(at, new) };
        true
    }
}
