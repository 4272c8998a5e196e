//! A member of a big set: one allocation that the set's hash table owns.
//!
//! ```text
//! SetMember --> | length 1, 5 or 9 bytes | member bytes |
//!                 `ds::counted`
//! ```
//!
//! A set member of 15 bytes takes 16 bytes, which is a size class of the allocator; with its slot
//! in the hash table a member takes 27 bytes.
//!
//! **Invariant:** neither the bytes of a set member, which the table hashes, nor its length, which
//! determines the size of the allocation, change after `new`
//! (`tests::keeps_bytes_at_every_length_form`).

use super::counted;
use super::hashtable::{Element, Place};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// The owning pointer of a member. Dropping a `SetMember` frees its allocation.
#[repr(transparent)]
pub struct SetMember(NonNull<u8>);

// SAFETY: a SetMember owns plain bytes that are never written.
unsafe impl Send for SetMember {}
// SAFETY: a SetMember owns plain bytes that are never written.
unsafe impl Sync for SetMember {}

fn layout(len: usize) -> Layout {
    // A slice never exceeds isize::MAX bytes, so computing the layout of a member fails only for
    // absurd lengths, before memory is allocated.
    Layout::from_size_align(counted::size(len), 1).expect("a member larger than the address space")
}

impl SetMember {
    /// Allocates a member.
    pub fn new(member: &[u8]) -> SetMember {
        let layout = layout(member.len());
        // SAFETY: the layout is never empty; the length and the bytes are written inside the
        // allocation, in the order of the header's drawing.
        unsafe {
            let Some(p) = NonNull::new(alloc(layout)) else {
                handle_alloc_error(layout)
            };
            counted::write(p, member);
            SetMember(p)
        }
    }

    /// The member's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: self owns a live allocation, and the slice borrows self.
        unsafe { counted::read(self.0) }
    }

    /// The size in bytes of the allocation of this member.
    pub fn memory_bytes(member: &[u8]) -> usize {
        super::thin_buffer::size_class(layout(member.len()).size())
    }
}

impl Drop for SetMember {
    fn drop(&mut self) {
        let layout = layout(self.bytes().len());
        // SAFETY: the block was allocated in `new` with the same layout, since the length never
        // changes.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

// SAFETY: a member's pointer comes from the global allocator, and its bytes never change.
unsafe impl Element for SetMember {
    type Ref<'a> = &'a [u8];
    type Mut<'a> = &'a [u8];

    #[inline(always)]
    fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    unsafe fn from_raw(p: NonNull<u8>) -> SetMember {
        SetMember(p)
    }

    #[inline]
    unsafe fn layout(p: NonNull<u8>) -> Layout {
        // SAFETY: the caller promises what `counted::read` requires.
        layout(unsafe { counted::read(p) }.len())
    }

    #[inline(always)]
    unsafe fn key<'a>(p: NonNull<u8>) -> &'a [u8]
    where
        Self: 'a,
    {
        // SAFETY: the caller promises what `counted::read` requires.
        unsafe { counted::read(p) }
    }

    #[inline(always)]
    unsafe fn by_ref<'a>(p: NonNull<u8>) -> &'a [u8]
    where
        Self: 'a,
    {
        // SAFETY: the caller promises what `counted::read` requires.
        unsafe { counted::read(p) }
    }

    #[inline(always)]
    unsafe fn by_mut<'a>(p: NonNull<u8>, _: Option<Place>) -> &'a [u8]
    where
        Self: 'a,
    {
        // SAFETY: the caller promises what `counted::read` requires.
        unsafe { counted::read(p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::hashtable::{HashTable, Slot};
    use crate::ds::siphash::HashSeed;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(crate::ds::cases(64))]

        #[test]
        fn a_table_of_them_agrees_with_a_set(
            steps in vec((prop_oneof![4 => vec(0u8..3, 0..3), 1 => (252usize..256).prop_map(|len| vec![0; len])], any::<bool>()), 0..80),
        ) {
            let (mut table, mut twin) = (HashTable::<SetMember>::new(HashSeed::new([1, 2])), BTreeSet::new());
            for (text, add) in steps {
                let hash = table.hash(&text);
                if add {
                    let vacant = match table.find_slot(hash, &text) {
                        Slot::Occupied(_) => false,
                        Slot::Vacant(slot) => {
                            slot.insert(SetMember::new(&text));
                            true
                        }
                    };
                    prop_assert_eq!(vacant, twin.insert(text));
                } else {
                    let gone = table.remove(hash, &text);
                    prop_assert_eq!(gone.map(|member| member.bytes().to_vec()), twin.take(&text));
                }
            }
            let mut there: Vec<&[u8]> = table.iter().collect();
            there.sort_unstable();
            prop_assert!(there.into_iter().eq(twin.iter().map(|text| &text[..])));
        }
    }

    #[test]
    fn keeps_bytes_at_every_length_form() {
        for len in [0, 1, 15, 253, 254, 255, 256, 70_000] {
            let text = crate::ds::numbered(len);
            let member = SetMember::new(&text);
            assert_eq!(member.bytes(), &text[..]);
            let raw = member.into_raw();
            // SAFETY: the pointer was just taken out of its SetMember.
            assert_eq!(unsafe { SetMember::from_raw(raw) }.bytes(), &text[..]);
        }
    }
}
