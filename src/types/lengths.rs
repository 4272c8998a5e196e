//! Histograms of the lengths of values, by type: INFO keysizes.
//!
//! ```text
//!   length   0   1   2..3   4..7   8..15  ...  1,024..2,047  ...
//!   bin      0   1    2      3       4              11              the number of bits of the length
//!   shown    0   1    2      4       8              1K
//! ```
//!
//! A length is the number of elements of a collection, or the number of bytes of a string, as
//! STRLEN, LLEN, SCARD, ZCARD and HLEN return it. Streams are not counted, as in Redis 8.
//!
//! `Db` counts values that are stored and removed. A value is changed in place only through a
//! [`KeyWrite`], which counts its length before and after. Most changes leave a length in its bin,
//! which [`Lengths::change`] tests in four instructions.
//!
//! **Invariant:** while no `KeyWrite` or `Opened` lives, the counts are those of a walk over all
//! keys (`keysizes_follow_any_commands` in `observe::bigkeys::tests`; DEBUG
//! KEYSIZES-HIST-ASSERT).

use crate::ds::entry::{EntryAt, ValueMut};
use crate::types::kind::type_of;
use crate::types::{KeyMut, KeyRef, New, Type, Value, length};

/// The number of bins. No value has 2^63 elements, so each length has a bin.
const BINS: usize = 64;

/// The types that have a histogram, in the order of INFO.
pub const COUNTED: [Type; 5] = [Type::String, Type::List, Type::Set, Type::Zset, Type::Hash];

/// The histograms of the lengths of all values in one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lengths {
    /// The counts of each type, in the order of [`Type::ALL`]. All streams are in bin 0.
    counts: [[u64; BINS]; Type::ALL.len()],
}

impl Default for Lengths {
    fn default() -> Lengths {
        Lengths {
            counts: [[0; BINS]; Type::ALL.len()],
        }
    }
}

/// The index of the bin in which a length is counted.
#[inline(always)]
fn bin(len: usize) -> usize {
    // `len << 1 | 1` is never 0, so it has a logarithm, which is one instruction.
    (len << 1 | 1).ilog2() as usize % BINS
}

/// Whether two lengths are in the same bin, that is, have the same number of bits: then the highest
/// bit of `a` is not in `a ^ b`.
#[inline(always)]
fn is_same_bin(a: usize, b: usize) -> bool {
    a ^ b <= a & b
}

impl Lengths {
    /// Makes new histograms of the lengths of `keys`.
    pub fn of<'a>(keys: impl Iterator<Item = KeyRef<'a>>) -> Lengths {
        let mut lengths = Lengths::default();
        keys.for_each(|entry| lengths.add(entry));
        lengths
    }

    /// Counts a key that was added.
    #[inline]
    pub fn add(&mut self, entry: KeyRef) {
        self.count(type_of(entry.kind()), counted_length(entry), 1);
    }

    /// Counts a key that is about to be added with this value.
    #[inline(always)]
    pub fn add_new(&mut self, value: &New) {
        match value {
            New::Str(text) => self.count(Type::String, text.len(), 1),
            other => self.add_other(other),
        }
    }

    #[inline(never)]
    fn add_other(&mut self, value: &New) {
        let (of, len) = match value {
            New::Str(text) => (Type::String, text.len()),
            New::Int(n) => (Type::String, digits(*n)),
            New::Obj(Value::Stream(_)) => (Type::Stream, 0),
            New::Obj(value) => (value.type_of(), value.len()),
        };
        self.count(of, len, 1);
    }

    /// Counts a key that was removed.
    #[inline]
    pub fn remove(&mut self, entry: KeyRef) {
        self.count(type_of(entry.kind()), counted_length(entry), u64::MAX);
    }

    /// Counts a key's new value instead of its old one.
    #[inline(always)]
    pub fn replace(&mut self, old: KeyRef, value: &New) {
        if let (Some(was), New::Str(text)) = (old.short_len(), value)
            && is_same_bin(was, text.len())
        {
            return;
        }
        self.replace_any(old, value);
    }

    #[inline(never)]
    fn replace_any(&mut self, old: KeyRef, value: &New) {
        self.remove(old);
        self.add_new(value);
    }

    /// Counts a value whose length has changed from `was` to `len`.
    #[inline(always)]
    pub fn change(&mut self, of: Type, was: usize, len: usize) {
        if !is_same_bin(was, len) {
            self.move_between_bins(of, was, len);
        }
    }

    #[inline(never)]
    fn move_between_bins(&mut self, of: Type, was: usize, len: usize) {
        self.count(of, was, u64::MAX);
        self.count(of, len, 1);
    }

    /// Adds `difference` to the count of the bin of `len`. The sum wraps around: `u64::MAX`
    /// subtracts 1.
    #[inline(always)]
    fn count(&mut self, of: Type, len: usize, difference: u64) {
        let count = &mut self.counts[of.place()][bin(len)];
        *count = count.wrapping_add(difference);
        debug_assert!(*count < u64::MAX / 2, "{of:?} of length {len}");
    }

    /// The bins of a type that are not empty: the smallest length of the bin, and the number of
    /// keys.
    pub fn bins(&self, of: Type) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts[of.place()].iter().enumerate();
        counts
            .filter(|(_, count)| **count > 0)
            .map(|(bin, &count)| ((1 << bin) >> 1, count))
    }
}

/// The length under which the histograms count a value: 0 for a stream, which has no histogram.
fn counted_length(entry: KeyRef) -> usize {
    match type_of(entry.kind()) {
        Type::Stream => 0,
        _ => length(entry),
    }
}

/// A key's entry, opened for a change, and the histograms of lengths that count the change.
pub struct KeyWrite<'a> {
    entry: EntryAt<'a, Value>,
    lengths: Option<&'a mut Lengths>,
}

impl<'a> KeyWrite<'a> {
    /// A view of a key's entry; a change of the value's length is counted in `lengths`.
    #[inline(always)]
    pub fn new(entry: KeyMut<'a>, lengths: Option<&'a mut Lengths>) -> KeyWrite<'a> {
        let entry = EntryAt::of(entry);
        KeyWrite { entry, lengths }
    }

    /// A view that can only read the key's entry.
    #[inline(always)]
    pub fn as_ref(&self) -> KeyRef<'_> {
        self.entry.as_ref()
    }

    /// Turns the view into one that can only read the entry.
    #[inline(always)]
    pub fn into_ref(self) -> KeyRef<'a> {
        self.entry.into_mut().into_ref()
    }

    /// The 29 bits of the entry that hold its LRU clock or LFU counter.
    #[inline(always)]
    pub fn lru(&self) -> u32 {
        self.as_ref().lru()
    }

    /// Sets the LRU clock or the LFU counter.
    #[inline(always)]
    pub fn set_lru(&mut self, lru: u32) {
        self.entry.as_mut().set_lru(lru);
    }

    /// Sets the entry's kind byte (type and encoding of the value). The type must stay the same.
    #[inline]
    pub fn set_kind(&mut self, kind: u8) {
        debug_assert_eq!(type_of(self.as_ref().kind()), type_of(kind));
        self.entry.as_mut().set_kind(kind);
    }

    /// The entry and the histograms of lengths, for a caller that counts a change of the length
    /// itself.
    #[inline(always)]
    pub(super) fn into_parts(self) -> (KeyMut<'a>, Option<&'a mut Lengths>) {
        (self.entry.into_mut(), self.lengths)
    }

    /// The entry and the histograms of lengths, for a caller that counts a change of the length
    /// itself.
    #[inline(always)]
    pub(super) fn parts(&mut self) -> (KeyMut<'_>, Option<&mut Lengths>) {
        (self.entry.as_mut(), self.lengths.as_deref_mut())
    }

    /// The value, for a change that keeps the value's length, so that the histograms stay right.
    #[inline]
    pub fn into_value_of_same_length(self) -> ValueMut<'a, Value> {
        self.entry.into_mut().into_value_mut()
    }

    /// Sets the integer of an entry that holds one. Returns false for an entry with another value.
    #[inline(always)]
    pub fn try_set_integer(&mut self, new: i64) -> bool {
        let ValueMut::Int(mut old) = self.entry.as_mut().into_value_mut() else {
            return false;
        };
        if let Some(lengths) = &mut self.lengths
            && !have_digits_in_same_bin(old.get(), new)
        {
            lengths.change(Type::String, digits(old.get()), digits(new));
        }
        old.set(new);
        true
    }

    /// Changes a string that has an allocation of its own. `None` for any other value.
    pub fn change_buffer<T>(&mut self, change: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
        let ValueMut::Obj(Value::Str(raw)) = self.entry.as_mut().into_value_mut() else {
            return None;
        };
        let bytes = raw.make_mut();
        let was = bytes.len();
        let result = change(bytes);
        if let Some(lengths) = &mut self.lengths {
            lengths.change(Type::String, was, bytes.len());
        }
        Some(result)
    }

    /// The bytes of a string that lies in the entry, for a change that keeps the string's length.
    pub fn short_bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self.entry.as_mut().into_value_mut() {
            ValueMut::Str(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Overwrites a string or an integer by another string or integer if the entry's allocation
    /// keeps its size. Returns false if the value was not overwritten. The caller sets the entry's
    /// kind byte.
    pub fn try_overwrite(&mut self, value: &New) -> bool {
        let was = self.lengths.as_ref().map(|_| length(self.entry.as_ref()));
        let done = self.entry.as_mut().try_overwrite(value);
        if done && let (Some(lengths), Some(was)) = (&mut self.lengths, was) {
            lengths.change(Type::String, was, length(self.entry.as_ref()));
        }
        done
    }
}

/// The length of a number's text.
#[inline]
fn digits(n: i64) -> usize {
    let magnitude = n.unsigned_abs();
    let digits = magnitude.checked_ilog10().map_or(1, |log| log as usize + 1);
    digits + usize::from(n < 0)
}

/// One bit for each number of leading zeros of an integer: the bit is set if the decimal texts of
/// all integers with this many zeros have lengths in one bin. The bits of 10, 1000, 10^7 and 10^15
/// are not set, because the next bin begins there, nor is the bit of negative numbers.
const ONE_BIN: u64 = !(1 << 10_i64.leading_zeros()
    | 1 << 1000_i64.leading_zeros()
    | 1 << 10_000_000_i64.leading_zeros()
    | 1 << 1_000_000_000_000_000_i64.leading_zeros()
    | 1);

/// Whether the texts of two numbers surely have lengths in the same bin, by a test that is quick
/// and succeeds for most numbers near each other.
#[inline(always)]
fn have_digits_in_same_bin(a: i64, b: i64) -> bool {
    // `a | 1` has at most 63 leading zeros, also for 0, so the shift is less than 64 bits.
    let zeros = (a | 1).leading_zeros();
    zeros == (b | 1).leading_zeros() && ONE_BIN >> zeros & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bin_begins_at_a_power_of_two() {
        let mut lengths = Lengths::default();
        for len in [0, 1, 2, 3, 4, 7, 8, 1023, 1024, 1 << 29, (1 << 46) + 5] {
            lengths.count(Type::Set, len, 1);
        }
        let bins: Vec<(u64, u64)> = lengths.bins(Type::Set).collect();
        assert_eq!(
            bins,
            [
                (0, 1),
                (1, 1),
                (2, 2),
                (4, 2),
                (8, 1),
                (512, 1),
                (1024, 1),
                (1 << 29, 1),
                (1 << 46, 1)
            ]
        );
        assert_eq!(lengths.bins(Type::List).count(), 0);
    }

    proptest! {
        #[test]
        fn lengths_are_in_the_same_bin_if_they_have_the_same_number_of_bits(
            a in 0..1usize << 20, b in 0..1usize << 20, shift in 0..20u32,
        ) {
            for (a, b) in [(a, b), (a, b >> shift), (a, a ^ 1), (a, a.saturating_sub(1)), (a, 0)] {
                prop_assert_eq!(is_same_bin(a, b), bin(a) == bin(b), "{} {}", a, b);
            }
        }

        #[test]
        fn digits_are_those_of_the_text(n in any::<i64>(), shift in 0..64u32) {
            for n in [n, n >> shift, 0, -1, 9, 10, -9, -10, i64::MIN, i64::MAX] {
                prop_assert_eq!(digits(n), n.to_string().len());
            }
        }

        #[test]
        fn the_quick_test_of_numbers_is_right(
            a in any::<i64>(), shift in 0..64u32, step in -20i64..20,
        ) {
            let a = a >> shift;
            for a in [a, 0, 9, 99, 999, 9_999_999, 999_999_999_999_999, i64::MIN, i64::MAX] {
                let b = a.saturating_add(step);
                let same = is_same_bin(digits(a), digits(b));
                prop_assert!(same || !have_digits_in_same_bin(a, b), "{} {}", a, b);
            }
        }
    }
}
