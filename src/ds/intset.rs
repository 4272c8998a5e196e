//! Intset: a sorted array of integers, byte for byte as Redis writes it.
//!
//! A small set that has only integers has this encoding (`set-max-intset-entries`). RDB files and
//! DUMP contain the bytes of intsets.
//!
//! ```text
//!   | width u32: 2, 4 or 8 | length u32 | integer | integer | ...      (little endian, ascending)
//! ```
//!
//! All integers of an intset have one width, that of the widest integer that was ever added. The
//! insertion of a wider integer widens all others, and the wider integer's place can only be an end
//! of the array. The width of an intset never decreases, even when the set is empty.
//!
//! **Invariant:** the width of an intset is 2, 4 or 8, its block has `8 + width * length` bytes,
//! and its integers ascend strictly. `Intset::from_bytes` refuses all other bytes; the test
//! `histories_match_a_btree` checks every kind of change.
//!
//! Costs: lookup O(log n), change O(n) by one memmove, 2 to 8 bytes for each member.

use std::ptr::NonNull;

use crate::ds::thin_buffer::{ThinBytes, size_class};

const HEADER: usize = 8;

/// A sorted set of integers.
pub struct Intset(ThinBytes);

const _: () = assert!(size_of::<Option<Intset>>() == 8);

#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("inside the header"))
}

/// The width that `int` needs, in bytes.
#[inline]
fn width_of(int: i64) -> usize {
    if i16::try_from(int).is_ok() {
        2
    } else if i32::try_from(int).is_ok() {
        4
    } else {
        8
    }
}

/// The integer at `index` of an array of integers `width` bytes wide.
#[inline]
fn read(body: &[u8], width: usize, index: usize) -> i64 {
    let at = &body[index * width..];
    match width {
        2 => i64::from(i16::from_le_bytes(*at.first_chunk().expect("a member"))),
        4 => i64::from(i32::from_le_bytes(*at.first_chunk().expect("a member"))),
        _ => i64::from_le_bytes(*at.first_chunk().expect("a member")),
    }
}

#[inline]
fn write(body: &mut [u8], width: usize, index: usize, int: i64) {
    body[index * width..][..width].copy_from_slice(&int.to_le_bytes()[..width]);
}

/// Whether `bytes` are an intset. Only a `deep` check includes the order of the integers.
pub fn validate(bytes: &[u8], deep: bool) -> bool {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return false;
    };
    let (width, len) = (word(header, 0) as usize, word(header, 4) as usize);
    if !matches!(width, 2 | 4 | 8) || len.checked_mul(width) != Some(body.len()) {
        return false;
    }
    !deep || (1..len).all(|index| read(body, width, index - 1) < read(body, width, index))
}

impl Intset {
    /// An empty intset.
    pub fn new() -> Self {
        let mut set = Self(ThinBytes::zeroed(HEADER));
        // SAFETY: the buffer has just been created with this length.
        let header = unsafe { set.0.slice_mut(HEADER) };
        header[0] = 2;
        set
    }

    /// An intset whose bytes lie in the entry of its key, `gap` bytes behind the entry's start.
    ///
    /// # Safety
    /// The caller promises what `ThinBytes::lent` requires, and that the bytes at `p` are
    /// an intset.
    #[inline]
    pub(in crate::ds) unsafe fn lent(p: NonNull<u8>, gap: usize) -> Self {
        // SAFETY: the caller promises what `ThinBytes::lent` requires.
        Self(unsafe { ThinBytes::lent(p, gap) })
    }

    /// Whether the intset's bytes are inside the entry of its key.
    #[inline]
    pub fn is_in_entry(&self) -> bool {
        self.0.is_in_entry()
    }

    pub(in crate::ds) fn buffer(&self) -> &ThinBytes {
        &self.0
    }

    pub(in crate::ds) fn buffer_mut(&mut self) -> &mut ThinBytes {
        &mut self.0
    }

    /// An intset that is a copy of bytes from a file or payload. `None` if the bytes are not an
    /// intset.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        validate(bytes, true).then(|| Self::copy_of(bytes))
    }

    fn copy_of(bytes: &[u8]) -> Self {
        let mut thin = ThinBytes::zeroed(bytes.len());
        // SAFETY: the buffer has just been created with this length.
        unsafe { thin.slice_mut(bytes.len()) }.copy_from_slice(bytes);
        Self(thin)
    }

    #[inline]
    fn header(&self) -> &[u8] {
        // SAFETY: the block of an intset has at least the length of the header.
        unsafe { self.0.slice(HEADER) }
    }

    /// The width of each member: 2, 4 or 8 bytes.
    #[inline]
    pub fn width(&self) -> usize {
        word(self.header(), 0) as usize
    }

    /// The number of members.
    #[inline]
    pub fn len(&self) -> usize {
        word(self.header(), 4) as usize
    }

    /// Whether there are no members.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the intset in bytes, including the header.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        HEADER + self.width() * self.len()
    }

    /// The size of the intset's allocation in bytes.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        size_class(self.0.gap() + self.bytes_len())
    }

    /// The bytes of the intset, including the header.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the header holds the length of the block.
        unsafe { self.0.slice(self.bytes_len()) }
    }

    #[inline]
    fn body(&self) -> &[u8] {
        &self.as_bytes()[HEADER..]
    }

    /// The member at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| read(self.body(), self.width(), index))
    }

    /// The smallest member.
    #[inline]
    pub fn first(&self) -> Option<i64> {
        self.get(0)
    }

    /// The largest member.
    #[inline]
    pub fn last(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The index of `int`, or the index at which it would be inserted.
    pub fn search(&self, int: i64) -> Result<usize, usize> {
        let (body, width) = (self.body(), self.width());
        let (mut low, mut high) = (0, self.len());
        // Sets are often filled in ascending order, so the end is checked first.
        if high > 0 && read(body, width, high - 1) < int {
            return Err(high);
        }
        while low < high {
            let middle = (low + high) / 2;
            let member = read(body, width, middle);
            if member == int {
                return Ok(middle);
            }
            if member < int {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Err(low)
    }

    /// Whether `int` is a member.
    #[inline]
    pub fn contains(&self, int: i64) -> bool {
        self.search(int).is_ok()
    }

    /// A random member; all members are equally likely. `below(n)` returns a uniformly distributed
    /// number in 0..n.
    pub fn random(&self, below: &mut impl FnMut(usize) -> usize) -> Option<i64> {
        match self.len() {
            0 => None,
            len => self.get(below(len)),
        }
    }

    /// The members in ascending order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            body: self.body(),
            width: self.width(),
        }
    }

    /// Adds `int`. Returns false if `int` is a member already.
    pub fn add(&mut self, int: i64) -> bool {
        let width = width_of(int);
        if width > self.width() {
            self.widen(width);
        }
        let Err(index) = self.search(int) else {
            return false;
        };
        let (width, len) = (self.width(), self.len());
        let body = self.set_shape(width, len + 1);
        body.copy_within(index * width..len * width, (index + 1) * width);
        write(body, width, index, int);
        true
    }

    /// Removes `int`. Returns false if `int` is not a member.
    pub fn remove(&mut self, int: i64) -> bool {
        let Ok(index) = self.search(int) else {
            return false;
        };
        self.remove_at(index);
        true
    }

    /// Removes the member at `index`, which must exist.
    pub fn remove_at(&mut self, index: usize) {
        let (width, len) = (self.width(), self.len());
        self.body_mut()
            .copy_within((index + 1) * width..len * width, index * width);
        self.set_shape(width, len - 1);
    }

    fn body_mut(&mut self) -> &mut [u8] {
        let len = self.bytes_len();
        // SAFETY: `len` is the length of the block, which its header holds.
        let bytes = unsafe { self.0.slice_mut(len) };
        &mut bytes[HEADER..]
    }

    /// Rewrites every member with `width` bytes. The last member is rewritten first, so that no
    /// member is overwritten before it is read.
    fn widen(&mut self, width: usize) {
        let (old, len) = (self.width(), self.len());
        let body = self.set_shape(width, len);
        for index in (0..len).rev() {
            let int = read(body, old, index);
            write(body, width, index, int);
        }
    }

    /// Resizes the block for `len` integers of `width` bytes, and returns the bytes of the
    /// integers.
    fn set_shape(&mut self, width: usize, len: usize) -> &mut [u8] {
        let stored = u32::try_from(len).expect("set-max-intset-entries is far below");
        let (old, new) = (self.bytes_len(), HEADER + width * len);
        // SAFETY: `old` is the length of the block; after the resize it has `new` bytes.
        let bytes = unsafe {
            self.0.resize(old, new);
            self.0.slice_mut(new)
        };
        bytes[..4].copy_from_slice(&(width as u32).to_le_bytes());
        bytes[4..HEADER].copy_from_slice(&stored.to_le_bytes());
        &mut bytes[HEADER..]
    }
}

impl Drop for Intset {
    fn drop(&mut self) {
        let len = self.bytes_len();
        // SAFETY: `len` is the length of the block, which is not used afterwards.
        unsafe { self.0.free(len) }
    }
}

impl Clone for Intset {
    fn clone(&self) -> Self {
        Self::copy_of(self.as_bytes())
    }
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Intset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Intset {
    type Item = i64;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The members in ascending order.
#[derive(Clone)]
pub struct Iter<'a> {
    body: &'a [u8],
    width: usize,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let (_, rest) = self.body.split_at_checked(self.width)?;
        let int = read(self.body, self.width, 0);
        self.body = rest;
        Some(int)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.body.len() / self.width;
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<i64> {
        let last = self.len().checked_sub(1)?;
        let int = read(self.body, self.width, last);
        self.body = &self.body[..last * self.width];
        Some(int)
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl std::iter::FusedIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Compares intsets with those of a real Redis server, read with DUMP.
    #[test]
    fn bytes_are_those_of_a_real_server() {
        let mut set = Intset::new();
        for int in [1, 2, 3, -5] {
            assert!(set.add(int));
        }
        assert_eq!(
            set.as_bytes(),
            b"\x02\0\0\0\x04\0\0\0\xfb\xff\x01\0\x02\0\x03\0"
        );
        assert!(set.add(70_000));
        assert_eq!(
            set.as_bytes(),
            b"\x04\0\0\0\x05\0\0\0\xfb\xff\xff\xff\x01\0\0\0\x02\0\0\0\x03\0\0\0\x70\x11\x01\0"
        );
        assert!(set.add(70_000_000_000));
        assert_eq!(
            set.as_bytes()[..16],
            *b"\x08\0\0\0\x06\0\0\0\xfb\xff\xff\xff\xff\xff\xff\xff"
        );
        assert_eq!(set.as_bytes()[48..], *b"\0\x3c\x53\x4c\x10\0\0\0");
    }

    fn int() -> impl Strategy<Value = i64> {
        prop_oneof![
            6 => -20i64..20,
            2 => 32_760i64..32_775,
            2 => -32_775i64..-32_760,
            1 => 2_147_483_640i64..2_147_483_655,
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #![proptest_config(crate::ds::cases(128))]

        #[test]
        fn histories_match_a_btree(steps in vec((int(), any::<bool>()), 0..scaled(120, 40))) {
            let (mut set, mut twin) = (Intset::new(), BTreeSet::new());
            for (int, add) in steps {
                match add {
                    true => prop_assert_eq!(set.add(int), twin.insert(int)),
                    false => prop_assert_eq!(set.remove(int), twin.remove(&int)),
                }
                prop_assert_eq!(set.contains(int), add);
            }
            prop_assert!(validate(set.as_bytes(), true));
            prop_assert!(set.iter().eq(twin.iter().copied()));
            prop_assert!(set.iter().rev().eq(twin.iter().rev().copied()));
            prop_assert_eq!((set.first(), set.last()), (twin.first().copied(), twin.last().copied()));
            prop_assert_eq!(set.get(twin.len()), None);
            let copy = Intset::from_bytes(set.as_bytes()).unwrap();
            prop_assert_eq!(copy.as_bytes(), set.as_bytes());
            for (index, &int) in twin.iter().enumerate() {
                prop_assert_eq!(set.search(int), Ok(index));
                prop_assert_eq!(set.random(&mut |_| index), Some(int));
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(width in 0u8..10, len in 0u8..10, body in vec(any::<u8>(), 0..40)) {
            let mut bytes = vec![width, 0, 0, 0, len, 0, 0, 0];
            bytes.extend(&body);
            let fits = matches!(width, 2 | 4 | 8) && body.len() == usize::from(width) * usize::from(len);
            prop_assert_eq!(validate(&bytes, false), fits);
            if let Some(set) = Intset::from_bytes(&bytes) {
                prop_assert!(fits && set.iter().is_sorted_by(|a, b| a < b));
            }
            prop_assert!(!validate(&body[..body.len().min(7)], true));
        }
    }

    #[test]
    fn order_is_part_of_the_format() {
        let swapped = b"\x02\0\0\0\x02\0\0\0\x02\0\x01\0";
        assert!(validate(swapped, false) && !validate(swapped, true));
        let twice = b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0";
        assert!(!validate(twice, true));
        assert!(!validate(b"\x08\0\0\0\xff\xff\xff\xff", true));
    }
}
