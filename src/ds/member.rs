//! A member of a sorted set: one allocation that the dictionary owns and the B+ tree borrows.
//!
//! ```text
//! Member / MemberPtr --> | score f64 | length 1, 5 or 9 bytes | member bytes |
//!                          8 bytes     `ds::counted`
//! ```
//!
//! A big sorted set answers two questions: "what is the score of this member" (hash table) and
//! "which members have this score" (tree). Hash table and tree point to the same allocation, so a
//! member of 16 bytes takes 25 bytes once, plus a pointer in the table and one in the tree.
//!
//! **Invariants**
//! - a `MemberPtr` is used only while its `Member` lives: the owner of table and tree removes a
//!   member from the tree before the table drops it (`zset_tree::tests` runs histories in that
//!   order);
//! - a member's score is never NaN, and changes only through the tree that holds the member,
//!   because the score is the sort key;
//! - a member's length never changes after creation: the length determines the size of the
//!   allocation.
//!
//! Rejected for members: `Box<(f64, [u8])>`, since this is a fat pointer, 16 bytes in the table and
//! 16 in the tree. A score that is stored only in the tree would save 8 bytes for each member, but
//! ZSCORE would need a search of the tree.

use super::counted;
use super::hashtable::{Element, Place};
use super::thin_buffer::size_class;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

const SCORE_BYTES: usize = size_of::<f64>();

/// The owning pointer of a member. Dropping a `Member` frees its allocation.
#[repr(transparent)]
pub struct Member(NonNull<u8>);

/// A borrowed pointer to a live [`Member`], as the tree stores it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct MemberPtr(NonNull<u8>);

// SAFETY: a Member owns plain bytes, and shares nothing with other members.
unsafe impl Send for Member {}

const _: () = assert!(size_of::<Option<Member>>() == 8);

fn layout(len: usize) -> Layout {
    // A slice never exceeds isize::MAX bytes, so computing the layout of a member fails only for
    // absurd lengths, before memory is allocated.
    Layout::from_size_align(SCORE_BYTES + counted::size(len), align_of::<f64>())
        .expect("member longer than the address space")
}

impl Member {
    /// Allocates a member. The score must not be NaN.
    pub fn new(score: f64, bytes: &[u8]) -> Member {
        debug_assert!(!score.is_nan());
        let layout = layout(bytes.len());
        // SAFETY: the layout is at least 9 bytes; the score, the length and the bytes are written
        // inside the allocation, in the order of the header's drawing.
        unsafe {
            let Some(start) = NonNull::new(alloc(layout)) else {
                handle_alloc_error(layout)
            };
            start.cast::<f64>().write(score);
            counted::write(start.add(SCORE_BYTES), bytes);
            Member(start)
        }
    }

    /// Gives up ownership of the member. The caller frees the member by [`Member::from_raw`].
    pub fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `raw` comes from [`Member::into_raw`] and is turned back into a member only once.
    pub unsafe fn from_raw(raw: NonNull<u8>) -> Member {
        Member(raw)
    }

    /// A borrowed pointer to the member.
    pub fn as_ptr(&self) -> MemberPtr {
        MemberPtr(self.0)
    }

    /// The member's score.
    pub fn score(&self) -> f64 {
        // SAFETY: self owns a live allocation.
        unsafe { self.as_ptr().score() }
    }

    /// The member's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: self owns a live allocation, and the slice borrows self.
        unsafe { self.as_ptr().bytes() }
    }

    /// The size of the member's allocation in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_class(layout(self.bytes().len()).size())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let layout = layout(self.bytes().len());
        // SAFETY: the block was allocated in `new` with the same layout, since the length never
        // changes.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

impl MemberPtr {
    /// # Safety
    /// `raw` is the start of a live member's allocation.
    pub unsafe fn from_raw(raw: NonNull<u8>) -> MemberPtr {
        MemberPtr(raw)
    }

    /// The address of the member's allocation.
    pub fn as_raw(self) -> NonNull<u8> {
        self.0
    }

    /// # Safety
    /// The member lives.
    #[inline]
    pub unsafe fn score(self) -> f64 {
        // SAFETY: the caller promises that the member lives; the score is its first 8 bytes.
        unsafe { self.0.cast::<f64>().read() }
    }

    /// # Safety
    /// The member lives. If a tree holds the member, only the tree calls `set_score`.
    pub(super) unsafe fn set_score(self, score: f64) {
        // SAFETY: the caller promises that the member lives; the score is its first 8 bytes.
        unsafe { self.0.cast::<f64>().write(score) }
    }

    /// # Safety
    /// The member lives for all of `'a`.
    #[inline]
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: the caller promises that the member lives; `new` wrote the length and the bytes
        // behind the score.
        unsafe { counted::read(self.0.add(SCORE_BYTES)) }
    }
}

// SAFETY: an allocation's address has 48 bits; the key is the bytes behind the score, which never
// change; callers that access a member through a `MemberPtr` promise that the member lives.
unsafe impl Element for Member {
    type Ref<'a> = MemberPtr;
    type Mut<'a> = MemberPtr;

    fn into_raw(self) -> NonNull<u8> {
        Member::into_raw(self)
    }

    unsafe fn from_raw(raw: NonNull<u8>) -> Member {
        // SAFETY: the caller promises that the pointer is that of a live member.
        unsafe { Member::from_raw(raw) }
    }

    unsafe fn layout(p: NonNull<u8>) -> Layout {
        // SAFETY: the caller promises that the pointer is that of a live member.
        layout(unsafe { MemberPtr(p).bytes() }.len())
    }

    unsafe fn key<'a>(raw: NonNull<u8>) -> &'a [u8]
    where
        Self: 'a,
    {
        // SAFETY: the caller promises that the pointer is that of a live member.
        unsafe { MemberPtr(raw).bytes() }
    }

    unsafe fn by_ref<'a>(raw: NonNull<u8>) -> MemberPtr
    where
        Self: 'a,
    {
        MemberPtr(raw)
    }

    unsafe fn by_mut<'a>(raw: NonNull<u8>, _: Option<Place>) -> MemberPtr
    where
        Self: 'a,
    {
        MemberPtr(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn keeps_score_and_bytes_at_every_length_form() {
        for len in [0, 1, 16, 253, 254, 255, 256, 70_000] {
            let bytes = crate::ds::numbered(len);
            let member = Member::new(-1.5, &bytes);
            assert_eq!(member.score(), -1.5);
            assert_eq!(member.bytes(), &bytes[..]);
            let raw = member.into_raw();
            // SAFETY: the pointer was just taken out of its Member.
            let again = unsafe { Member::from_raw(raw) };
            assert_eq!(again.bytes().len(), len);
        }
    }

    proptest! {
        #![proptest_config(crate::ds::cases(64))]

        /// Compares members with pairs of a score and a vector. A change of one member's score does
        /// not affect another member.
        #[test]
        fn agrees_with_pairs(
            twins in vec((-9i8..9, prop_oneof![vec(any::<u8>(), 0..9), vec(any::<u8>(), 252..256)]), 1..scaled(12, 4)),
            changes in vec((any::<prop::sample::Index>(), -9i8..9), 0..12),
        ) {
            let mut twins: Vec<(f64, Vec<u8>)> = twins.into_iter().map(|(score, bytes)| (score.into(), bytes)).collect();
            let members: Vec<Member> = twins.iter().map(|(score, bytes)| Member::new(*score, bytes)).collect();
            for (at, score) in changes {
                let at = at.index(twins.len());
                twins[at].0 = score.into();
                // SAFETY: the member lives, and no tree holds it.
                unsafe { MemberPtr(members[at].0).set_score(score.into()) }
            }
            for (member, (score, bytes)) in members.iter().zip(&twins) {
                prop_assert_eq!((member.score(), member.bytes()), (*score, &bytes[..]));
                // SAFETY: the member lives.
                prop_assert_eq!(unsafe { MemberPtr(member.0).bytes() }, &bytes[..]);
            }
        }
    }

    #[test]
    fn a_16_byte_member_costs_25_bytes() {
        assert_eq!(Member::new(0.0, &[b'x'; 16]).memory_bytes(), 32);
    }
}
