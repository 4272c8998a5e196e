//! One bucket of the hash table: a cache line with nine packed pointers, and a byte of the hash for
//! each pointer.
//!
//! ```text
//! byte  0        9    10     16          58      64
//!       +--------+----+------+---- - ----+-------+
//!       | tags   |meta|slot 0|           |slot 8 |
//!       | 9 x u8 |    | 6 B  |           |or child|
//!       +--------+----+------+---- - ----+-------+
//! meta: bits 0..4 how many slots hold an element; bit 7 slot 8 holds the address of a child bucket instead
//! ```
//!
//! An address of user space has at most 48 bits (47 on x86-64 with four-level page tables), so a
//! pointer is packed into six bytes: a cache line has room for two more such pointers than for
//! pointers of eight bytes. The first 16 bytes hold all tags and the meta byte, so that one SIMD
//! load and one compare find the slots that may have this hash.
//!
//! **Invariants**
//! - slots `0..count` have elements and all later slots are empty, so that four bits describe the
//!   occupancy (`tests::twin`).
//! - with a child, `count` is 8 and slot 8 is the child's address, which came from `Box::into_raw`.
use std::alloc::Layout;
use std::ptr::{self, NonNull};

use crate::sys::mover::Mover;

/// The maximum number of elements of a bucket without a child.
pub(super) const SLOTS: usize = 9;
/// The number of elements of a bucket with a child, whose last slot is the link to the child.
pub(super) const SLOTS_WITH_CHILD: usize = SLOTS - 1;

const META: usize = SLOTS;
const COUNT_MASK: u8 = 0x0f;
const CHILD: u8 = 0x80;
/// A slot of six bytes is read as a word of eight bytes that begins two bytes earlier, without its
/// lower two bytes. The read stays inside the bucket, as the tags precede the slots.
const SLOT_READ: usize = META + 1 - 2;

/// A pointer to a slot of a bucket, which has the address of an element. An element that moves
/// while it is borrowed writes its new address to this slot.
#[derive(Clone, Copy)]
pub struct Place(NonNull<u8>);

impl Place {
    /// The address of the element that the slot has.
    ///
    /// # Safety
    /// The table has been borrowed exclusively since the slot was found, and nothing was added to
    /// it or removed.
    #[inline(always)]
    pub unsafe fn get(self) -> NonNull<u8> {
        // SAFETY: the caller promises that the slot is still there; the two bytes before its six
        // bytes belong to the bucket, see `SLOT_READ`. An element's address is not null.
        unsafe {
            let word = u64::from_le_bytes(self.0.sub(2).cast::<[u8; 8]>().read());
            NonNull::new_unchecked(ptr::with_exposed_provenance_mut((word >> 16) as usize))
        }
    }

    /// Writes the new address of the slot's element.
    ///
    /// # Safety
    /// The table has been borrowed exclusively since the slot was found, and nothing was added to
    /// it or removed; `p` is the same element, by `Element::into_raw`.
    pub unsafe fn set(self, p: NonNull<u8>) {
        let address = p.as_ptr().expose_provenance();
        assert!(address >> 48 == 0, "an address of more than 48 bits");
        // SAFETY: the caller promises that the slot is still there; a slot has six bytes.
        unsafe {
            let bytes = &(address as u64).to_le_bytes()[..6];
            self.0
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), 6)
        }
    }
}

#[repr(C, align(64))]
pub(super) struct Bucket {
    bytes: [u8; 64],
}

const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(SLOT_READ + 6 * SLOTS + 2 == 64);

impl Bucket {
    pub(super) const fn empty() -> Self {
        Bucket { bytes: [0; 64] }
    }

    /// The number of elements in this bucket, without those of its child.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        usize::from(self.bytes[META] & COUNT_MASK)
    }

    #[inline(always)]
    pub(super) fn has_child(&self) -> bool {
        self.bytes[META] & CHILD != 0
    }

    /// The child bucket, if there is one. The caller borrows the table, which owns the child.
    #[inline(always)]
    pub(super) fn child(&self) -> Option<NonNull<Bucket>> {
        if !self.has_child() {
            return None;
        }
        NonNull::new(ptr::with_exposed_provenance_mut(
            self.address(SLOTS_WITH_CHILD),
        ))
    }

    /// Whether all slots of the bucket have elements, so that one more element needs a child
    /// bucket.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.count() == SLOTS
    }

    #[inline(always)]
    pub(super) fn tag(&self, slot: usize) -> u8 {
        self.bytes[slot]
    }

    #[inline(always)]
    fn address(&self, slot: usize) -> usize {
        debug_assert!(slot < SLOTS);
        let at = SLOT_READ + 6 * slot;
        let word: [u8; 8] = self.bytes[at..at + 8].try_into().expect("eight bytes");
        (u64::from_le_bytes(word) >> 16) as usize
    }

    /// A pointer to a slot of `bucket`.
    ///
    /// # Safety
    /// `bucket` is a bucket.
    #[inline(always)]
    pub(super) unsafe fn place(bucket: NonNull<Bucket>, slot: usize) -> Place {
        // SAFETY: the six bytes of a slot are a part of the bucket.
        Place(unsafe { bucket.cast::<u8>().add(SLOT_READ + 2 + 6 * slot) })
    }

    fn set_address(&mut self, slot: usize, address: usize) {
        assert!(address >> 48 == 0, "an address of more than 48 bits");
        let at = SLOT_READ + 2 + 6 * slot;
        self.bytes[at..at + 6].copy_from_slice(&(address as u64).to_le_bytes()[..6]);
    }

    /// The element of an occupied slot.
    #[inline(always)]
    pub(super) fn get(&self, slot: usize) -> NonNull<u8> {
        debug_assert!(slot < self.count());
        let p = ptr::with_exposed_provenance_mut(self.address(slot));
        // SAFETY: an occupied slot was written by `set` from a NonNull.
        unsafe { NonNull::new_unchecked(p) }
    }

    /// Overwrites the tag and the element's address of an occupied slot.
    pub(super) fn set(&mut self, slot: usize, tag: u8, p: NonNull<u8>) {
        self.bytes[slot] = tag;
        self.set_address(slot, p.as_ptr().expose_provenance());
    }

    /// Appends an element to the bucket, which must have a free slot and no child.
    #[inline]
    pub(super) fn push(&mut self, tag: u8, p: NonNull<u8>) {
        let slot = self.count();
        assert!(slot < SLOTS && !self.has_child());
        self.set(slot, tag, p);
        self.bytes[META] += 1;
    }

    /// Removes the bucket's last element and returns it with its tag.
    pub(super) fn pop(&mut self) -> Option<(u8, NonNull<u8>)> {
        let last = self.count().checked_sub(1)?;
        let out = (self.tag(last), self.get(last));
        self.bytes[META] -= 1;
        Some(out)
    }

    /// Marks the bucket as empty and without a child.
    pub(super) fn reset(&mut self) {
        self.bytes[META] = 0;
    }

    /// Turns the last slot into the link to a new child, and moves the element of the slot to the
    /// child.
    pub(super) fn grow_child(&mut self) -> NonNull<Bucket> {
        debug_assert!(self.is_full());
        let mut child = Box::new(Bucket::empty());
        if let Some((tag, p)) = self.pop() {
            child.push(tag, p);
        }
        let raw = Box::into_raw(child);
        self.set_address(SLOTS_WITH_CHILD, raw.expose_provenance());
        self.bytes[META] |= CHILD;
        // SAFETY: Box::into_raw is never null.
        unsafe { NonNull::new_unchecked(raw) }
    }

    /// Active defragmentation: offers the child bucket to the mover, and returns its address after
    /// a possible move.
    pub(super) fn relocate_child(&mut self, mover: &mut Mover) -> Option<NonNull<Bucket>> {
        let child = self.child()?;
        // SAFETY: the child is a box that only this bucket owns; its bytes may be moved.
        let moved = unsafe { mover.relocate(child.cast(), Layout::new::<Bucket>()) };
        let Some(new) = moved else {
            return Some(child);
        };
        self.set_address(SLOTS_WITH_CHILD, new.as_ptr().expose_provenance());
        Some(new.cast())
    }

    /// Removes the link to the child bucket and returns the child.
    pub(super) fn take_child(&mut self) -> Option<Box<Bucket>> {
        let child = self.child()?;
        self.bytes[META] &= !CHILD;
        // SAFETY: the link came from Box::into_raw in `grow_child`, and is cleared before the Box
        // exists.
        Some(unsafe { Box::from_raw(child.as_ptr()) })
    }

    /// A mask with one bit for each occupied slot whose tag equals `tag`.
    #[inline(always)]
    pub(super) fn matches(&self, tag: u8) -> u32 {
        self.equal_tags(tag) & ((1 << self.count()) - 1)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn equal_tags(&self, tag: u8) -> u32 {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8,
        };
        // SAFETY: SSE2 is part of x86-64; a bucket is 64-byte aligned and longer than the 16 bytes
        // read.
        unsafe {
            let line = _mm_load_si128(self.bytes.as_ptr().cast::<__m128i>());
            _mm_movemask_epi8(_mm_cmpeq_epi8(line, _mm_set1_epi8(tag as i8))) as u32
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn equal_tags(&self, tag: u8) -> u32 {
        self.equal_tags_naive(tag)
    }

    /// The portable version of `equal_tags`, with which tests compare the SIMD version.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn equal_tags_naive(&self, tag: u8) -> u32 {
        (0..SLOTS).fold(0, |mask, slot| {
            mask | u32::from(self.bytes[slot] == tag) << slot
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::ds::cases(256))]

        #[test]
        fn simd_and_naive_match_agree(tags in prop::collection::vec(0u8..4, 0..=SLOTS), tag in 0u8..4) {
            let mut cell = 0u64;
            let p = NonNull::from(&mut cell).cast::<u8>();
            let mut bucket = Bucket::empty();
            tags.iter().for_each(|&t| bucket.push(t, p));
            let naive = bucket.equal_tags_naive(tag) & ((1 << tags.len()) - 1);
            prop_assert_eq!(bucket.matches(tag), naive);
            prop_assert_eq!(naive.count_ones() as usize, tags.iter().filter(|&&t| t == tag).count());
        }

        #[test]
        fn slots_keep_every_address_bit(addresses in prop::collection::vec(1usize..1 << 48, 0..=SLOTS)) {
            let mut bucket = Bucket::empty();
            for &a in &addresses {
                bucket.push(7, NonNull::new(ptr::without_provenance_mut(a)).unwrap());
            }
            for (slot, &a) in addresses.iter().enumerate() {
                prop_assert_eq!(bucket.get(slot).addr().get(), a);
            }
            prop_assert_eq!(bucket.count(), addresses.len());
        }
    }

    #[test]
    fn the_child_takes_the_ninth_element() {
        let mut cells = [0u64; SLOTS];
        let mut bucket = Bucket::empty();
        for (tag, cell) in cells.iter_mut().enumerate() {
            bucket.push(tag as u8, NonNull::from(cell).cast());
        }
        assert!(bucket.is_full() && bucket.child().is_none());
        let ninth = bucket.get(8);
        bucket.grow_child();
        assert_eq!(bucket.count(), 8);
        let child = bucket.take_child().unwrap();
        assert_eq!((child.count(), child.tag(0), child.get(0)), (1, 8, ninth));
        assert!(!bucket.has_child() && !bucket.is_full());
    }
}
