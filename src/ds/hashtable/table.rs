//! One array of buckets with their children. The array owns the buckets, but not the elements:
//! here, an element is just an address with a tag.
//!
//! **Invariants**
//! - A chain is dense and as short as possible: every bucket but the last one is full, and a child
//!   exists only if the elements of the chain don't fit without it. So the length of a chain is the
//!   sum of one count for each of its buckets, and an empty chain has no child.
//! - `longest` is at least the length of the longest chain. `longest` never decreases during the
//!   life of an array of buckets, as picking a random element fairly needs only an upper bound.
use std::alloc::{self, Layout};
use std::ptr::NonNull;

use super::bucket::{Bucket, Place, SLOTS_WITH_CHILD};
use crate::sys::mover::Mover;

/// The bucket of an empty array, which has no allocation. The bucket is never written: `buckets` is
/// 0, which every insert checks first.
static NOTHING: Bucket = Bucket::empty();

pub(super) struct Table {
    first: NonNull<Bucket>,
    /// The number of buckets: 0, or a power of two.
    buckets: usize,
    children: usize,
    longest: usize,
}

/// The position of an element in the hash table: its bucket and its slot.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) bucket: NonNull<Bucket>,
    pub(super) slot: usize,
}

impl Table {
    pub(super) const fn empty() -> Self {
        Table {
            // SAFETY: the address of a static is not null.
            first: unsafe { NonNull::new_unchecked((&raw const NOTHING).cast_mut()) },
            buckets: 0,
            children: 0,
            longest: 0,
        }
    }

    /// Allocates an array of `buckets` empty buckets; the number must be a power of two.
    pub(super) fn with_buckets(buckets: usize) -> Self {
        assert!(buckets.is_power_of_two());
        let layout = Self::layout(buckets);
        // SAFETY: the layout is not empty, and a zeroed bucket is an empty one.
        let p = unsafe { alloc::alloc_zeroed(layout) };
        let Some(first) = NonNull::new(p.cast::<Bucket>()) else {
            alloc::handle_alloc_error(layout)
        };
        Table {
            first,
            buckets,
            children: 0,
            longest: 0,
        }
    }

    fn layout(buckets: usize) -> Layout {
        Layout::array::<Bucket>(buckets).expect("a table larger than the address space")
    }

    #[inline(always)]
    pub(super) fn buckets(&self) -> usize {
        self.buckets
    }

    pub(super) fn children(&self) -> usize {
        self.children
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    #[inline(always)]
    pub(super) fn mask(&self) -> usize {
        self.buckets.saturating_sub(1)
    }

    /// The home bucket with an index below `buckets`; an empty array has an empty bucket with the
    /// index 0.
    #[inline(always)]
    pub(super) fn home(&self, index: usize) -> NonNull<Bucket> {
        assert!(index <= self.mask());
        // SAFETY: the index is inside the array, or 0 for the static bucket.
        unsafe { self.first.add(index) }
    }

    /// Iterates over the buckets of one chain, from the home bucket on.
    #[inline(always)]
    pub(super) fn chain(&self, index: usize) -> Chain<'_> {
        Chain {
            next: Some(self.home(index)),
            _table: self,
        }
    }

    /// The number of elements of the chain of a home bucket.
    pub(super) fn chain_len(&self, index: usize) -> usize {
        self.chain(index).map(|bucket| bucket.count()).sum()
    }

    /// The element at index `place` of a chain; `place` must be below `chain_len`.
    pub(super) fn chain_get(&self, index: usize, place: usize) -> Option<NonNull<u8>> {
        let mut place = place;
        for bucket in self.chain(index) {
            if place < bucket.count() {
                return Some(bucket.get(place));
            }
            place -= bucket.count();
        }
        None
    }

    /// The first element of the chain with this tag for which `is_it` returns true.
    #[inline(always)]
    pub(super) fn find(
        &self,
        index: usize,
        tag: u8,
        mut is_it: impl FnMut(NonNull<u8>) -> bool,
    ) -> Option<Position> {
        let mut at = self.home(index);
        loop {
            // SAFETY: home buckets and children live as long as the table, which is borrowed and
            // not written.
            let bucket = unsafe { at.as_ref() };
            let mut matches = bucket.matches(tag);
            while matches != 0 {
                let slot = matches.trailing_zeros() as usize;
                if is_it(bucket.get(slot)) {
                    return Some(Position { bucket: at, slot });
                }
                matches &= matches - 1;
            }
            at = bucket.child()?;
        }
    }

    /// Appends an element to the chain of a home bucket.
    #[inline]
    pub(super) fn push(&mut self, index: usize, tag: u8, p: NonNull<u8>) {
        assert!(index < self.buckets);
        let mut at = self.home(index);
        let mut length = 0;
        // SAFETY: the table is borrowed exclusively; its buckets are reached through this one path.
        unsafe {
            while let Some(child) = at.as_ref().child() {
                length += SLOTS_WITH_CHILD;
                at = child;
            }
            if at.as_ref().is_full() {
                at = at.as_mut().grow_child();
                self.children += 1;
                length += SLOTS_WITH_CHILD;
            }
            at.as_mut().push(tag, p);
            length += at.as_ref().count();
        }
        self.longest = self.longest.max(length);
    }

    /// Active defragmentation: offers the array of buckets to the mover.
    pub(super) fn relocate_array(&mut self, mover: &mut Mover) {
        if self.buckets == 0 {
            return;
        }
        // SAFETY: the array was allocated with this layout, and only this table has its address.
        let moved = unsafe { mover.relocate(self.first.cast(), Self::layout(self.buckets)) };
        self.first = moved.map_or(self.first, NonNull::cast);
    }

    /// Active defragmentation: passes each element of a chain with its slot to `visit`, which may
    /// move the element, and offers the chain's children to the mover.
    pub(super) fn relocate_chain(
        &mut self,
        index: usize,
        mover: &mut Mover,
        visit: &mut impl FnMut(NonNull<u8>, Place, &mut Mover),
    ) {
        if self.buckets == 0 {
            return;
        }
        let mut next = Some(self.home(index));
        while let Some(mut at) = next {
            // SAFETY: the table is borrowed exclusively; its buckets are reached through this one
            // path, a reference at a time.
            unsafe {
                for slot in 0..at.as_ref().count() {
                    mover.visited(1);
                    visit(at.as_ref().get(slot), Bucket::place(at, slot), mover);
                }
                next = at.as_mut().relocate_child(mover);
            }
        }
    }

    /// Replaces the element of an occupied slot and returns the old one.
    ///
    /// # Safety
    /// The position was returned by `find` of this table, with no push or removal since.
    #[inline(always)]
    pub(super) unsafe fn replace(&mut self, mut at: Position, p: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: the caller promises that the position is valid; the table is borrowed
        // exclusively.
        let bucket = unsafe { at.bucket.as_mut() };
        let old = bucket.get(at.slot);
        bucket.set(at.slot, bucket.tag(at.slot), p);
        old
    }

    /// Removes an element of the chain `index`. The chain's last element moves to the free slot,
    /// and a child that is no longer needed is freed.
    ///
    /// # Safety
    /// The position was returned by `find(index, ..)` of this table, with no push or removal since.
    pub(super) unsafe fn remove(&mut self, index: usize, mut at: Position) -> NonNull<u8> {
        let mut parent = None;
        let mut last = self.home(index);
        // SAFETY: the caller promises that the position is valid; the table is borrowed
        // exclusively, and there is one reference to a bucket at a time.
        unsafe {
            while let Some(child) = last.as_ref().child() {
                parent = Some(last);
                last = child;
            }
            let removed = at.bucket.as_ref().get(at.slot);
            if let Some((tag, p)) = last.as_mut().pop()
                && p != removed
            {
                at.bucket.as_mut().set(at.slot, tag, p);
            }
            if let Some(mut parent) = parent
                && last.as_ref().count() <= 1
            {
                self.merge_child(parent.as_mut());
            }
            removed
        }
    }

    /// Frees a child bucket with one element, which moves back into the parent's slot for the link.
    fn merge_child(&mut self, parent: &mut Bucket) {
        let Some(mut child) = parent.take_child() else {
            return;
        };
        self.children -= 1;
        if let Some((tag, p)) = child.pop() {
            parent.push(tag, p);
        }
    }

    /// Empties a chain, and passes each element with its tag to `f`.
    #[inline]
    pub(super) fn drain_chain(&mut self, index: usize, mut f: impl FnMut(u8, NonNull<u8>)) {
        if self.buckets == 0 {
            return;
        }
        // SAFETY: the table is borrowed exclusively; the content of a bucket is copied before the
        // bucket is reset.
        let home = unsafe { self.home(index).as_mut() };
        let mut child = home.take_child();
        (0..home.count()).for_each(|slot| f(home.tag(slot), home.get(slot)));
        home.reset();
        while let Some(mut bucket) = child {
            self.children -= 1;
            child = bucket.take_child();
            (0..bucket.count()).for_each(|slot| f(bucket.tag(slot), bucket.get(slot)));
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.buckets == 0 {
            return;
        }
        if self.children > 0 {
            (0..self.buckets).for_each(|index| self.drain_chain(index, |_, _| ()));
        }
        // SAFETY: the array was allocated by `with_buckets` with the same layout.
        unsafe { alloc::dealloc(self.first.as_ptr().cast(), Self::layout(self.buckets)) }
    }
}

/// An iterator over the buckets of a chain: the home bucket, then its children.
pub(super) struct Chain<'a> {
    next: Option<NonNull<Bucket>>,
    _table: &'a Table,
}

impl<'a> Iterator for Chain<'a> {
    type Item = &'a Bucket;

    #[inline(always)]
    fn next(&mut self) -> Option<&'a Bucket> {
        // SAFETY: buckets live as long as the table, which is borrowed for 'a and not written.
        let bucket: &'a Bucket = unsafe { self.next?.as_ref() };
        self.next = bucket.child();
        Some(bucket)
    }
}
