//! Moves the allocations that a value owns to other places in memory, some elements at a time.
//!
//! ```text
//!   cursor 0 ──> relocate ──> cursor ──> relocate ──> ... ──> 0
//!                   visits the elements from the cursor on, until the mover's step is spent,
//!                   and offers each of their allocations to the mover, which moves some of them
//! ```
//!
//! A cursor is a position in the value's own order: a bucket as in SCAN, a rank, the index of a
//! node, an ID, a time. Between two steps the value may change in any way, even become another one.
//! Elements may then be visited twice or not at all, which does no harm.
//!
//! **Invariants**
//! - After each step the value is equal to the value before (property tests of every structure,
//!   with a mover that moves everything).
//! - A step visits at least one element, even if the mover's step is spent already: otherwise the
//!   end of a value could be taken for its beginning.
//! - A step visits only a bounded number of elements more than the mover allows: a chain of a
//!   table, a leaf of a tree, a map that is rebuilt.
//! - A cursor is below `SECOND`, so that [`in_turn`] can join two parts.

use crate::ds::intset::Intset;
use crate::ds::listpack::Listpack;
use crate::sys::mover::Mover;

/// The position at which the next step begins; 0 at the beginning and at the end.
pub type Cursor = u128;

/// The bit that marks the cursors of the second of two parts.
const SECOND: Cursor = 1 << 127;

/// A value whose allocations can be moved.
pub trait Relocate {
    /// Offers the value's allocations to the mover, from `cursor` on, until the mover's step is
    /// spent. Returns the next cursor, 0 at the end.
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor;
}

/// Relocates two parts of a value, one after the other.
pub fn in_turn<T>(
    value: &mut T,
    cursor: Cursor,
    mover: &mut Mover,
    first: fn(&mut T, Cursor, &mut Mover) -> Cursor,
    second: fn(&mut T, Cursor, &mut Mover) -> Cursor,
) -> Cursor {
    if cursor & SECOND == 0 {
        let next = first(value, cursor, mover);
        if next != 0 {
            return next;
        }
        if mover.is_spent() {
            return SECOND;
        }
    }
    match second(value, cursor & !SECOND, mover) {
        0 => 0,
        next => next | SECOND,
    }
}

impl Relocate for Listpack {
    fn relocate(&mut self, _: Cursor, mover: &mut Mover) -> Cursor {
        let len = self.bytes_len();
        mover.visited(1);
        // SAFETY: `len` is the length of the block.
        unsafe { self.buffer_mut().relocate(len, mover) };
        0
    }
}

impl Relocate for Intset {
    fn relocate(&mut self, _: Cursor, mover: &mut Mover) -> Cursor {
        let len = self.as_bytes().len();
        mover.visited(1);
        // SAFETY: `len` is the length of the block.
        unsafe { self.buffer_mut().relocate(len, mover) };
        0
    }
}

/// Moves everything that a value owns, in steps that are spent from their beginning. Returns the
/// number of moved allocations.
#[cfg(test)]
pub fn relocate_all(value: &mut impl Relocate) -> u64 {
    let (mut mover, mut cursor) = (Mover::of_everything(), 0);
    loop {
        mover.begin_step(0);
        cursor = value.relocate(cursor, &mut mover);
        if cursor == 0 {
            return mover.hits;
        }
    }
}
