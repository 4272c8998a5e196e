//! A heap buffer that is one pointer: it stores neither its length nor its capacity.
//!
//! Listpacks and intsets begin with a header that holds their own length, so their owner needs only
//! a pointer. The capacity is the size class to which the allocator rounds the length up.
//!
//! ```text
//!   owner: [ptr] --> | header | entries ...        | zeros |
//!                    |<------- length ------------>|       |
//!                    |<------- size_class(length) -------->|
//! ```
//!
//! Classes grow by an eighth to a quarter, so appending n bytes one by one copies O(n) bytes in
//! all, and the buffer has no more slack than the allocator's own rounding.
//!
//! **Invariant:** the buffer is exactly `size_class(length)` bytes long, all of them initialised.
//! Only the owner knows the length, so the methods are `unsafe`: they trust the length argument.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

/// The allocator's size class for `len` bytes: multiples of 8 up to 64, then four classes for each
/// doubling.
#[inline]
pub const fn size_class(len: usize) -> usize {
    if len <= 64 {
        return if len == 0 { 8 } else { (len + 7) & !7 };
    }
    let step = 1usize << ((len - 1).ilog2() - 2);
    (len + step - 1) & !(step - 1)
}

pub(super) struct ThinBytes(NonNull<u8>);

// SAFETY: it owns its bytes, and they are plain data.
unsafe impl Send for ThinBytes {}
// SAFETY: as above; nothing is written through a shared reference.
unsafe impl Sync for ThinBytes {}

impl ThinBytes {
    /// A buffer for `len` bytes, all zero.
    pub(super) fn zeroed(len: usize) -> Self {
        let layout = layout(len);
        // SAFETY: a class is never empty.
        let ptr = unsafe { alloc_zeroed(layout) };
        Self(NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout)))
    }

    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`, or less.
    #[inline]
    pub(super) unsafe fn slice(&self, len: usize) -> &[u8] {
        // SAFETY: the whole class is initialised and ours.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), len) }
    }

    /// # Safety
    /// As for `slice`.
    #[inline]
    pub(super) unsafe fn slice_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: as for `slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), len) }
    }

    /// Resizes the buffer for `new` bytes.
    ///
    /// # Safety
    /// `old` is the length of the last `zeroed` or `resize`.
    #[inline]
    pub(super) unsafe fn resize(&mut self, old: usize, new: usize) {
        if size_class(old) != size_class(new) {
            // SAFETY: passed on.
            unsafe { self.move_to_class(old, new) }
        }
    }

    #[cold]
    unsafe fn move_to_class(&mut self, old: usize, new: usize) {
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

    /// # Safety
    /// `len` is the length of the last `zeroed` or `resize`; the buffer is not used again.
    pub(super) unsafe fn free(&mut self, len: usize) {
        // SAFETY: the block was allocated with this layout.
        unsafe { dealloc(self.0.as_ptr(), layout(len)) }
    }
}

fn layout(len: usize) -> Layout {
    Layout::array::<u8>(size_class(len)).expect("a length below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::ds::cases(64))]

        /// Each step sets a length, then fills the added bytes.
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
            // SAFETY: the last length; nothing uses it after.
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
    }

    #[test]
    fn growth_keeps_the_bytes_and_zeroes_the_rest() {
        let mut bytes = ThinBytes::zeroed(5);
        // SAFETY: the lengths are the ones just given.
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
