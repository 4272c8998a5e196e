//! A listpack with room in front of it, for LPUSH and LPOP on a long list.
//!
//! A listpack begins with its header, so a change of its first entry moves all other entries: 4 KB
//! or more in a node of a list, for an element of ten bytes. In a `FrontPack` only the header
//! moves, into a gap that is kept in front of the listpack:
//!
//! ```text
//!   block:  |  gap  | total, elements | entry | entry | ... | 0xFF |
//!                   ^ start: a listpack from here on
//!   prepend:    <-- the entry is written over the old header, the new header before it
//!   remove_first:   --> the header is written again over the end of what was the first entry
//! ```
//!
//! A `FrontPack` takes more memory than a listpack: the struct `FrontPack`, and the gap. A list has
//! at most one `FrontPack`, see `quicklist`.
//!
//! **Invariant:** in a `FrontPack`, `block[start..]` is a listpack of `count` elements, whose
//! entries begin at `start + HEADER`.

use crate::sys::mover::Mover;

use super::{
    COUNT_UNKNOWN, EMPTY_BYTES, Element, HEADER, Listpack, ListpackEntry, SAFETY_LIMIT, decode,
    entry_len,
};

/// A listpack with a gap before it, into which new first elements are written.
#[derive(Clone)]
pub struct FrontPack {
    block: Vec<u8>,
    start: usize,
    count: usize,
}

impl FrontPack {
    /// Makes a copy of a listpack, with a gap before it.
    pub fn new(listpack: &Listpack) -> FrontPack {
        let mut front = FrontPack {
            block: Vec::new(),
            start: 0,
            count: listpack.len(),
        };
        front.open(listpack.as_bytes(), 0);
        front
    }

    /// Copies the listpack `bytes` to a new block with a gap of at least `room` bytes before it.
    /// The gap is half as long as the listpack, so that many insertions share the cost of a copy.
    fn open(&mut self, bytes: &[u8], room: usize) {
        let gap = room.max(bytes.len() / 2);
        let mut block = Vec::with_capacity(gap + bytes.len());
        block.resize(gap, 0);
        block.extend_from_slice(bytes);
        (self.block, self.start) = (block, gap);
    }

    /// The bytes of the listpack.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block[self.start..]
    }

    /// The size of the listpack in bytes.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        self.block.len() - self.start
    }

    /// The number of elements.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The size of the allocations in bytes, including the struct `FrontPack`.
    pub fn memory_bytes(&self) -> usize {
        size_of::<FrontPack>() + self.block.capacity()
    }

    /// Offers the block to the mover, which defragments memory.
    pub fn relocate(&mut self, mover: &mut Mover) {
        mover.vec(&mut self.block);
    }

    /// A copy of the listpack, without a gap.
    pub fn to_listpack(&self) -> Listpack {
        Listpack::copy_of(self.as_bytes())
    }

    /// Inserts an element at the front.
    #[inline]
    pub fn prepend<'e>(&mut self, element: impl Into<Element<'e>>) {
        let entry = ListpackEntry::new(element.into());
        let size = entry.size();
        if size > self.start {
            let bytes = self.block.split_off(self.start);
            self.open(&bytes, size);
        }
        self.start -= size;
        let at = self.start + HEADER;
        entry.write(&mut self.block[at..at + size]);
        self.count += 1;
        self.write_header();
    }

    /// The first element; `None` if the listpack is empty.
    #[inline]
    pub fn first(&self) -> Option<Element<'_>> {
        (self.count > 0).then(|| decode(self.as_bytes(), HEADER).0)
    }

    /// Removes the first element, if there is one.
    #[inline]
    pub fn remove_first(&mut self) {
        if self.count > 0 {
            self.start += entry_len(self.as_bytes(), HEADER);
            self.count -= 1;
            self.write_header();
        }
    }

    #[inline]
    fn write_header(&mut self) {
        const { assert!(SAFETY_LIMIT <= u32::MAX as usize) };
        let total = self.bytes_len() as u32;
        debug_assert!(total as usize >= EMPTY_BYTES);
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN);
        let header = &mut self.block[self.start..self.start + HEADER];
        header[..4].copy_from_slice(&total.to_le_bytes());
        header[4..].copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::ds::cases(256))]

        #[test]
        fn histories_match_a_listpack(
            begin in proptest::collection::vec("[a-z]{0,40}|[0-9]{1,20}", 0..scaled(30, 4)),
            steps in proptest::collection::vec(proptest::option::of("[a-z]{0,90}|[0-9]{1,20}"), 0..scaled(200, 12)),
        ) {
            let mut twin = Listpack::new();
            begin.iter().for_each(|text| twin.append(text.as_bytes()));
            let mut front = FrontPack::new(&twin);
            for step in &steps {
                match step {
                    Some(text) => {
                        front.prepend(text.as_bytes());
                        twin.prepend(text.as_bytes());
                    }
                    None => {
                        let first = twin.first().map(|pos| twin.get(pos));
                        prop_assert_eq!(front.first(), first);
                        front.remove_first();
                        if let Some(pos) = twin.first() {
                            twin.delete(pos);
                        }
                    }
                }
                prop_assert_eq!(front.as_bytes(), twin.as_bytes());
                prop_assert_eq!(front.count(), twin.len());
            }
            let closed = front.to_listpack();
            prop_assert_eq!(closed.as_bytes(), twin.as_bytes());
        }
    }
}
