//! Active defragmentation of one value: moves the allocations that the value owns to other
//! addresses, some elements at a time.
//!
//! ```text
//!   cursor 0 ──> relocate ──> cursor ──> relocate ──> ... ──> 0
//!                   visits the elements from the cursor on, until the mover's step is spent,
//!                   and offers each of their allocations to the mover, which moves some of them
//! ```
//!
//! A cursor is a position in the order of the value's structure: a bucket of a hash table as in
//! SCAN, a rank in a sorted set, the index of a list's node, an ID in a stream, a time. Between two
//! steps of a defragmentation the value may change in any way, and even be replaced by another one.
//! Elements may then be visited twice or not at all, which only leaves some memory fragmented.
//!
//! **Invariants**
//! - A step of defragmentation does not change what a value contains (property tests of every
//!   structure, with a mover that moves everything).
//! - A step of defragmentation visits at least one element, even if its budget is spent already:
//!   otherwise a step could return the cursor 0, which means the end, at the beginning of a value.
//! - A step of defragmentation exceeds the mover's budget by a bounded number of elements only:
//!   those of a chain in a hash table, of a leaf of a tree, or of a map that is rebuilt.
//! - The cursor of a part of a value is below `SECOND`, so that [`in_turn`] can join the cursors of
//!   two parts.

use crate::ds::intset::Intset;
use crate::ds::listpack::Listpack;
use crate::sys::mover::Mover;

/// The position in a value at which the next step of its defragmentation begins; 0 at the beginning
/// and at the end.
pub type Cursor = u128;

/// The bit of a cursor that marks a position in the second of a value's two parts.
const SECOND: Cursor = 1 << 127;

/// A value whose allocations can be moved.
pub trait Relocate {
    /// Offers the value's allocations to the mover, from `cursor` on, until the budget of the
    /// mover's step is spent. Returns the next cursor, 0 at the end.
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor;
}

/// Defragments two parts of a value, first the part of `first`, then that of `second`, with one
/// cursor for both.
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

/// Moves every allocation that a value owns, in steps with a budget of 0, each of which visits as
/// few elements as possible. Returns the number of moved allocations.
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
