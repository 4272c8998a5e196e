//! A heap buffer that takes one pointer: it stores neither its length nor its capacity.
//!
//! Listpacks and intsets begin with a header that holds their own length, so their owner needs only
//! a pointer. The capacity of a thin buffer is the size class to which the allocator rounds its
//! length up.
//!
//! ```text
//!   owner: [ptr] --> | header | entries ...        | zeros |
//!                    |<------- length ------------>|       |
//!                    |<------- size_class(length) -------->|
//! ```
//!
//! # A block inside another allocation
//!
//! A small collection is in the entry of its key (`ds::entry`), behind the key:
//!
//! ```text
//!   owner: [lent | gap | ptr] --> in an entry:  | header, key | listpack ... | zeros |
//!           1 bit 15    48                      |<--- gap --->|
//! ```
//!
//! A block inside the entry of a key is *lent*: it is changed in place while its size class stays,
//! and freeing it does nothing. When a lent block needs another class, a new allocation is made
//! with a gap of the same size before the block, into which the entry's bytes are copied later; the
//! old block stays as it is. So a change of a small collection takes one allocation, and its entry
//! is copied once. An empty listpack is marked as lent, but has no gap: its bytes are a static,
//! which the first write replaces by an allocation.
//!
//! The allocator's size classes grow by an eighth to a quarter, so appending n bytes one by one
//! copies O(n) bytes in all, and the buffer has no more slack than the allocator's own rounding.
//!
//! **Invariant:** the gap and the thin buffer together are exactly `size_class(gap + length)` bytes
//! long, and all bytes of the buffer are initialised. Only the owner of a thin buffer knows its
//! length, so the buffer's methods are `unsafe`: they trust the length argument.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

use crate::sys::mover::Mover;

/// The bits of a thin buffer's word that are its address. The table of keys also relies on
/// addresses of 48 bits.
const ADDRESS: usize = (1 << 48) - 1;
const GAP_SHIFT: u32 = 48;
/// The maximum size in bytes of the gap between the start of an entry and a buffer inside it.
pub(super) const GAP_MAX: usize = (1 << 15) - 1;
const LENT: usize = 1 << 63;
/// The length in bytes above which a block gets no gap when it moves: the key's entry will then
/// hold a pointer to the block.
pub(super) const PACKED_MAX: usize = 1024;

const _: () = assert!(usize::BITS == 64);

/// The size in bytes above which the allocator (jemalloc 5.3.1) rounds to whole pages.
const CLASSES_END: usize = 1 << 15;
const PAGE: usize = 4096;

/// The allocator's size class for `len` bytes. Classes are multiples of 8 up to 64, then four
/// classes for each doubling, then multiples of a page.
#[inline]
pub const fn size_class(len: usize) -> usize {
    if len <= 64 {
        return if len == 0 { 8 } else { (len + 7) & !7 };
    }
    if len > CLASSES_END {
        return len.next_multiple_of(PAGE);
    }
    let step = 1usize << ((len - 1).ilog2() - 2);
    (len + step - 1) & !(step - 1)
}

/// The bytes that the allocator takes for a buffer of `len` bytes; none for an empty buffer.
#[inline]
pub const fn heap_bytes(len: usize) -> usize {
    match len {
        0 => 0,
        len => size_class(len),
    }
}

/// The bytes that the allocator takes for a vector, without the memory that its elements own.
pub fn vec_bytes<T>(vec: &Vec<T>) -> usize {
    heap_bytes(vec.capacity() * size_of::<T>())
}

/// A pointer to the buffer; its upper 16 bits are the size of the gap and the mark of a lent
/// buffer.
pub(super) struct ThinBytes(NonNull<u8>);

// SAFETY: a thin buffer owns its bytes, which are plain data.
unsafe impl Send for ThinBytes {}
// SAFETY: a thin buffer owns plain data, and nothing is written through a shared reference.
unsafe impl Sync for ThinBytes {}

impl ThinBytes {
    /// Creates a buffer of `len` bytes, all zero.
    pub(super) fn zeroed(len: usize) -> Self {
        Self::with_gap(len, 0)
    }

    fn with_gap(len: usize, gap: usize) -> Self {
        let layout = layout(gap + len);
        // SAFETY: the layout has the size of a size class, which is never 0.
        let ptr = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the gap is a part of the allocation.
        Self(marked(unsafe { base.add(gap) }, gap << GAP_SHIFT))
    }

    /// A lent buffer: the one at `p`, `gap` bytes (at most [`GAP_MAX`]) behind the start of an
    /// allocation that a key's entry owns.
    ///
    /// # Safety
    /// While the returned buffer is used, the invariant of thin buffers holds for the
    /// bytes at `p`, and nothing else accesses these bytes if the returned buffer is changed.
    #[inline]
    pub(super) unsafe fn lent(p: NonNull<u8>, gap: usize) -> Self {
        debug_assert!(gap <= GAP_MAX);
        Self(marked(p, LENT | gap << GAP_SHIFT))
    }

    /// A buffer of static bytes, which must not be written: its first change must need another size
    /// class, so that the bytes are copied to an allocation.
    pub(super) fn unwritten(bytes: &'static [u8; 8]) -> Self {
        Self(marked(NonNull::from(bytes).cast(), LENT))
    }

    #[inline]
    fn is_lent(&self) -> bool {
        self.0.addr().get() & LENT != 0
    }

    /// Whether the buffer is inside the entry of a key.
    #[inline]
    pub(super) fn is_in_entry(&self) -> bool {
        self.0.addr().get() >> GAP_SHIFT > LENT >> GAP_SHIFT
    }

    /// The number of bytes between the start of the allocation and the buffer.
    #[inline]
    pub(super) fn gap(&self) -> usize {
        self.0.addr().get() >> GAP_SHIFT & GAP_MAX
    }

    #[inline]
    fn ptr(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|word| word & ADDRESS)
    }

    /// The start of the allocation, `gap` bytes before the buffer.
    #[inline]
    pub(super) fn base(&self) -> *mut u8 {
        // SAFETY: the gap is a part of the allocation, so its start is, too.
        unsafe { self.ptr().sub(self.gap()) }
    }

    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`, or less.
    #[inline]
    pub(super) unsafe fn slice(&self, len: usize) -> &[u8] {
        // SAFETY: all bytes of the size class are initialised and belong to the buffer.
        unsafe { std::slice::from_raw_parts(self.ptr(), len) }
    }

    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`, or less.
    #[inline]
    pub(super) unsafe fn slice_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: all bytes of the size class are initialised and belong to the buffer, and the
        // borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), len) }
    }

    /// Resizes the buffer from `old` to `new` bytes.
    ///
    /// # Safety
    /// `old` is the length of the last `zeroed` or `resize`.
    #[inline]
    pub(super) unsafe fn resize(&mut self, old: usize, new: usize) {
        let gap = self.gap();
        if size_class(gap + old) != size_class(gap + new) {
            // SAFETY: the caller promises that `old` is the buffer's length.
            unsafe { self.move_to_class(old, new) }
        }
    }

    #[cold]
    unsafe fn move_to_class(&mut self, old: usize, new: usize) {
        if self.gap() > 0 || self.is_lent() {
            // SAFETY: the caller promises that `old` is the buffer's length.
            return unsafe { self.leave(old, new) };
        }
        let (before, after) = (layout(old), layout(new));
        // SAFETY: the block was allocated with `before`; the bytes that `realloc` adds are zeroed
        // at once.
        unsafe {
            let ptr = realloc(self.0.as_ptr(), before, after.size());
            self.0 = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(after));
            if after.size() > before.size() {
                let added = after.size() - before.size();
                self.0.as_ptr().add(before.size()).write_bytes(0, added);
            }
        }
    }

    /// Copies the buffer to an allocation of its own, with a gap for the bytes of the key's entry
    /// if the entry can hold a buffer of `new` bytes.
    ///
    /// # Safety
    /// `old` is the length of the last `zeroed` or `resize`.
    unsafe fn leave(&mut self, old: usize, new: usize) {
        let gap = if new <= PACKED_MAX { self.gap() } else { 0 };
        let moved = Self::with_gap(new, gap);
        // SAFETY: the old and the new buffer have at least `old.min(new)` bytes, in different
        // allocations; the old buffer is not used again.
        unsafe {
            moved
                .ptr()
                .copy_from_nonoverlapping(self.ptr(), old.min(new));
            self.free(old);
        }
        *self = moved;
    }

    /// Offers the buffer's allocation to the mover, which defragments memory, unless the buffer is
    /// lent.
    ///
    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`.
    pub(super) unsafe fn relocate(&mut self, len: usize, mover: &mut Mover) {
        if self.is_lent() {
            return;
        }
        let gap = self.gap();
        // SAFETY: the block was allocated with this layout, and only this value knows its address.
        unsafe {
            let base = NonNull::new_unchecked(self.base());
            if let Some(new) = mover.relocate(base, layout(gap + len)) {
                self.0 = marked(new.add(gap), gap << GAP_SHIFT);
            }
        }
    }

    /// Frees the buffer, unless it is lent.
    ///
    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`; the buffer is not used again.
    pub(super) unsafe fn free(&mut self, len: usize) {
        if !self.is_lent() {
            // SAFETY: the block was allocated with this layout.
            unsafe { dealloc(self.base(), layout(self.gap() + len)) }
        }
    }
}

#[inline]
fn marked(p: NonNull<u8>, mark: usize) -> NonNull<u8> {
    assert!(
        p.addr().get() & !ADDRESS == 0,
        "an address of more than 48 bits"
    );
    p.map_addr(|address| address | mark)
}

/// The alignment of a key's entry: the allocation of a buffer with a gap may become an entry.
const ALIGN: usize = 8;

fn layout(len: usize) -> Layout {
    Layout::from_size_align(size_class(len), ALIGN).expect("a length below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::{self, scaled};
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::ds::cases(64))]

        /// Each step of a generated history resizes a thin buffer, then fills the added bytes.
        #[test]
        fn histories_match_a_vector(lengths in vec(prop_oneof![0usize..80, 0usize..scaled(3000, 500)], 1..30)) {
            let mut twin = vec![0u8; lengths[0]];
            let mut bytes = ThinBytes::zeroed(twin.len());
            for (step, len) in lengths.into_iter().enumerate() {
                let old = twin.len();
                twin.resize(len, step as u8);
                // SAFETY: `old` and `len` are the lengths before and after the resize.
                unsafe {
                    bytes.resize(old, len);
                    bytes.slice_mut(len)[old.min(len)..].fill(step as u8);
                    prop_assert_eq!(bytes.slice(len), &twin[..]);
                }
            }
            // SAFETY: `twin.len()` is the last length of the buffer, which is not used afterwards.
            unsafe { bytes.free(twin.len()) }
        }
    }

    #[test]
    fn classes_are_those_of_the_allocator() {
        let classes: Vec<usize> = (1..=12).map(|i| size_class(i * 11)).collect();
        assert_eq!(
            classes,
            [16, 24, 40, 48, 56, 80, 80, 96, 112, 112, 128, 160]
        );
        for len in (1..70_000).step_by(scaled(1, 61)) {
            let class = size_class(len);
            assert!(class >= len && size_class(class) == class);
            assert!(len <= 64 || class - len < len.div_ceil(4));
        }
        for len in [
            1, 60, 65, 1000, 16_385, 28_673, 32_769, 33_000, 70_000, 335_888, 5_000_001,
        ] {
            if let Some((_, seen)) = ds::allocated(|| Vec::<u8>::with_capacity(len)) {
                assert_eq!(size_class(len), seen, "{len} bytes");
            }
        }
    }

    #[test]
    fn growth_keeps_the_bytes_and_zeroes_the_rest() {
        let mut bytes = ThinBytes::zeroed(5);
        // SAFETY: each call gets the length that the call before set.
        unsafe {
            bytes.slice_mut(5).copy_from_slice(b"hello");
            bytes.resize(5, 1000);
            assert_eq!(&bytes.slice(1000)[..5], b"hello");
            assert!(bytes.slice(1000)[5..].iter().all(|&b| b == 0));
            bytes.resize(1000, 3);
            assert_eq!(bytes.slice(3), b"hel");
            bytes.free(3);
        }
    }
}
