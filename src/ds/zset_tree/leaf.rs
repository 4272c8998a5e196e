//! A leaf of the sorted set's tree: pointers to up to 168 members, in one allocation that grows
//! with their number.
//!
//! ```text
//! Leaf --> | base u64 | len u16 | cap u16 | shift u8 | keys: cap x u32 | members: cap x pointer |
//!            16 bytes of header                          key = ((order(score) - base) >> shift), clamped to u32
//! ```
//!
//! A score and a pointer would take 16 bytes for each member. A leaf needs 12: the scores in a leaf
//! have their high bits in common, so a leaf stores a key of four bytes for each score: the
//! difference to the leaf's `base`, in units of `1 << shift`. The map from score to key is monotone
//! for *every* base and shift. So a binary search among the keys is right unless keys are equal,
//! and a search reads only members whose keys equal that of the searched score. The base and the
//! shift of a leaf affect speed only: they are chosen when the leaf is built or divided, and again
//! when the leaf grows and many keys are equal.
//!
//! The capacities of leaves follow the allocator's size classes (8-byte quantum, four classes for
//! each doubling), so a leaf wastes at most the difference of two classes, an eighth on average.
//! Leaves of fixed size would waste a third after random inserts.
//!
//! **Invariants**
//! - the members of a leaf are in order (score, then bytes), and all of them live;
//! - `keys[i] == key(order(score of members[i]))`, hence a leaf's keys never fall
//!   (`ZsetTree::check` compares each key with its member);
//! - the capacity of a leaf is even, so that its pointers stay aligned to 8 bytes, and at most MAX,
//!   except while two leaves are joined and divided again.

use super::{Probe, order};
use crate::ds::member::MemberPtr;
use crate::ds::thin_buffer::size_class;
use crate::sys::mover::Mover;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;

/// The maximum number of members of a leaf, which fill the size class of 2048 bytes.
pub(super) const MAX: usize = 168;
/// The minimum number of members of a leaf that has siblings.
pub(super) const MIN: usize = MAX / 4;

const HEADER: usize = size_of::<Header>();
const ENTRY: usize = size_of::<u32>() + size_of::<MemberPtr>();

/// The size classes of the allocator, in bytes, that leaves fill.
const CLASSES: [usize; 16] = [
    40, 64, 96, 128, 192, 256, 320, 448, 640, 768, 896, 1024, 1280, 1536, 1792, 2048,
];

#[repr(C)]
struct Header {
    base: u64,
    len: u16,
    cap: u16,
    shift: u8,
}

const _: () = assert!(HEADER == 16);
const _: () = assert!(((CLASSES[15] - HEADER) / ENTRY) & !1 == MAX);

/// The owning pointer of a leaf, which owns the arrays of keys and pointers, but not the members.
pub(super) struct Leaf(NonNull<Header>);

/// The smallest capacity for `len` members with which a leaf fills its size class. While two leaves
/// are joined to be divided again, `len` may exceed MAX.
fn capacity_for(len: usize) -> usize {
    CLASSES
        .iter()
        .map(|bytes| ((bytes - HEADER) / ENTRY) & !1)
        .find(|&cap| cap >= len)
        .unwrap_or(len.next_multiple_of(2))
}

fn layout(cap: usize) -> Layout {
    Layout::from_size_align(HEADER + cap * ENTRY, align_of::<Header>())
        .expect("a leaf is a few KB at most")
}

fn key(base: u64, shift: u8, order: u64) -> u32 {
    u32::try_from(order.saturating_sub(base) >> shift).unwrap_or(u32::MAX)
}

impl Leaf {
    pub(super) fn with_capacity(len: usize) -> Leaf {
        let cap = capacity_for(len);
        // SAFETY: the layout has at least the size of a header, so it is not empty.
        let start = unsafe { alloc(layout(cap)) };
        let Some(start) = NonNull::new(start.cast::<Header>()) else {
            handle_alloc_error(layout(cap))
        };
        // SAFETY: the memory is freshly allocated and aligned.
        unsafe {
            start.write(Header {
                base: 0,
                len: 0,
                cap: cap as u16,
                shift: 0,
            })
        };
        Leaf(start)
    }

    /// A leaf of sorted members, whose base and shift are chosen for the members' scores.
    pub(super) fn from_sorted(members: &[MemberPtr]) -> Leaf {
        let mut leaf = Leaf::with_capacity(members.len());
        leaf.extend(members);
        leaf
    }

    fn header(&self) -> &Header {
        // SAFETY: the leaf owns an initialised header.
        unsafe { self.0.as_ref() }
    }

    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: the leaf owns an initialised header, and is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    pub(super) fn len(&self) -> usize {
        self.header().len as usize
    }

    fn cap(&self) -> usize {
        self.header().cap as usize
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_class(layout(self.cap()).size())
    }

    fn keys_start(&self) -> NonNull<u32> {
        // SAFETY: the keys follow the header inside the allocation.
        unsafe { self.0.byte_add(HEADER).cast() }
    }

    fn members_start(&self) -> NonNull<MemberPtr> {
        // SAFETY: the members follow `cap` keys inside the allocation; cap is even, so they are
        // aligned.
        unsafe {
            self.0
                .byte_add(HEADER + self.cap() * size_of::<u32>())
                .cast()
        }
    }

    pub(super) fn keys(&self) -> &[u32] {
        // SAFETY: the first `len` keys are initialised.
        unsafe { NonNull::slice_from_raw_parts(self.keys_start(), self.len()).as_ref() }
    }

    pub(super) fn members(&self) -> &[MemberPtr] {
        // SAFETY: the first `len` members are initialised.
        unsafe { NonNull::slice_from_raw_parts(self.members_start(), self.len()).as_ref() }
    }

    pub(super) fn key_of(&self, order: u64) -> u32 {
        key(self.header().base, self.header().shift, order)
    }

    /// The number of members of the leaf that are before the probe's position.
    pub(super) fn lower_bound(&self, probe: &Probe) -> usize {
        let (keys, members) = (self.keys(), self.members());
        let (low, high) = match probe.order() {
            Some(order) => {
                let key = self.key_of(order);
                let low = keys.partition_point(|&k| k < key);
                (low, low + keys[low..].partition_point(|&k| k == key))
            }
            None => (0, members.len()),
        };
        low + members[low..high].partition_point(|&m| probe.is_after(order_of(m), m))
    }

    /// Whether the score with this `order` would lie strictly between the scores of the neighbours
    /// of the member at `at`. The neighbours' scores are read only if keys are equal.
    pub(super) fn fits_between(&self, order: u64, at: usize) -> bool {
        let (keys, members, key) = (self.keys(), self.members(), self.key_of(order));
        let (before, after) = (at - 1, at + 1);
        keys[before] <= key
            && key <= keys[after]
            && (keys[before] < key || order_of(members[before]) < order)
            && (key < keys[after] || order < order_of(members[after]))
    }

    pub(super) fn insert(&mut self, at: usize, member: MemberPtr) {
        let len = self.len();
        assert!(at <= len && len < MAX);
        if len == self.cap() {
            self.resize(capacity_for(len + 1));
            if self.is_blunt() {
                self.sharpen();
            }
        }
        let key = self.key_of(order_of(member));
        // SAFETY: the capacity is greater than `len`, so there is room for the `len - at` keys and
        // members that move up by one.
        unsafe {
            let (keys, members) = (self.keys_start().add(at), self.members_start().add(at));
            keys.copy_to(keys.add(1), len - at);
            keys.write(key);
            members.copy_to(members.add(1), len - at);
            members.write(member);
        }
        self.header_mut().len += 1;
    }

    /// Writes the key of the member at `at`, whose score has changed. The caller has checked that
    /// the member is still in order.
    pub(super) fn rekey(&mut self, at: usize) {
        let key = self.key_of(order_of(self.members()[at]));
        // SAFETY: indexing `members()` with `at` has checked that `at` is below `len`.
        unsafe { self.keys_start().add(at).write(key) }
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        let len = self.len();
        assert!(range.start <= range.end && range.end <= len);
        let after = len - range.end;
        // SAFETY: the moved range and its target lie within the initialised keys and members.
        unsafe {
            let (keys, members) = (self.keys_start(), self.members_start());
            keys.add(range.end).copy_to(keys.add(range.start), after);
            members
                .add(range.end)
                .copy_to(members.add(range.start), after);
        }
        let left = len - range.len();
        self.header_mut().len = left as u16;
        if left < self.cap() * 5 / 8 && capacity_for(left) < self.cap() {
            self.resize(capacity_for(left));
        }
    }

    /// Appends members that all follow the leaf's own in order, and chooses base and shift again.
    pub(super) fn extend(&mut self, members: &[MemberPtr]) {
        let len = self.len();
        let cap = capacity_for(len + members.len());
        if cap > self.cap() {
            self.resize(cap);
        }
        // SAFETY: the capacity has room for all members; `sharpen` writes the keys of the new
        // members before they are read.
        unsafe {
            self.members_start()
                .add(len)
                .copy_from_nonoverlapping(NonNull::from(members).cast(), members.len());
            self.keys_start().add(len).write_bytes(0, members.len());
        }
        self.header_mut().len = (len + members.len()) as u16;
        self.sharpen();
    }

    /// Keeps the first half of the members, and returns a leaf with the second half.
    pub(super) fn divide(&mut self) -> Leaf {
        let half = self.len() / 2;
        let right = Leaf::from_sorted(&self.members()[half..]);
        self.header_mut().len = half as u16;
        self.resize(capacity_for(half));
        if self.is_blunt() {
            self.sharpen();
        }
        right
    }

    /// Moves the leaf to an allocation for `cap` members.
    fn resize(&mut self, cap: usize) {
        if cap == self.cap() {
            return;
        }
        let len = self.len();
        let mut moved = Leaf::with_capacity(cap);
        debug_assert!(moved.cap() >= len);
        let moved_cap = moved.header().cap;
        *moved.header_mut() = Header {
            cap: moved_cap,
            ..*self.header()
        };
        // SAFETY: the old and the new allocation are different, and both have room for `len` keys
        // and members.
        unsafe {
            moved
                .keys_start()
                .copy_from_nonoverlapping(self.keys_start(), len);
            moved
                .members_start()
                .copy_from_nonoverlapping(self.members_start(), len);
        }
        *self = moved;
    }

    /// Offers the leaf's allocation to the mover, which defragments memory, and passes each member
    /// to `moved`, which returns the new address if it has moved the member.
    pub(super) fn relocate(
        &mut self,
        mover: &mut Mover,
        moved: &mut impl FnMut(MemberPtr, &mut Mover) -> Option<MemberPtr>,
    ) {
        // SAFETY: the leaf was allocated with this layout, and only this value has its address; the
        // members are initialised up to `len`.
        unsafe {
            if let Some(new) = mover.relocate(self.0.cast(), layout(self.cap())) {
                self.0 = new.cast();
            }
            for at in 0..self.len() {
                let place = self.members_start().add(at);
                mover.visited(1);
                if let Some(new) = moved(place.read(), mover) {
                    place.write(new);
                }
            }
        }
    }

    /// Whether many keys are probably equal although the scores differ, because they are clamped to
    /// 0 or `u32::MAX`, or because the leaf's keys span less than 2^20.
    fn is_blunt(&self) -> bool {
        let keys = self.keys();
        let [_, second, .., next_to_last, last] = *keys else {
            return true;
        };
        second == 0
            || next_to_last == u32::MAX
            || (self.header().shift > 0 && last - second < 1 << 20)
    }

    /// Chooses base and shift so that the keys of the present scores are in the middle third of the
    /// range of `u32`.
    fn sharpen(&mut self) {
        let (Some(&first), Some(&last)) = (self.members().first(), self.members().last()) else {
            return;
        };
        let (first, last) = (order_of(first), order_of(last));
        let margin = (last - first).max(1 << 30);
        let base = first.saturating_sub(margin);
        let top = last.saturating_add(margin);
        let shift = (u64::BITS - (top - base).leading_zeros()).saturating_sub(u32::BITS) as u8;
        let header = self.header_mut();
        (header.base, header.shift) = (base, shift);
        for at in 0..self.len() {
            self.rekey(at);
        }
    }
}

/// The score of a live member, mapped to an integer of the same order.
pub(super) fn order_of(member: MemberPtr) -> u64 {
    // SAFETY: all members that are in a tree, or are passed to its methods, live:
    // `ZsetTree::insert` demands it.
    order(unsafe { member.score() })
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let layout = layout(self.cap());
        // SAFETY: the leaf was allocated with this capacity, and does not own its members.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }
}
