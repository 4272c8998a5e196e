//! An index of the keys with a time to live, in the order in which the keys expire.
//!
//! Active expiry needs the due keys, earliest first. Random samples would mostly find keys that are
//! not due, and might never find some due keys. So there is an exact index of (time, id) pairs,
//! where an id is any number by which the owner finds the key. The keyspace uses the key's 64-bit
//! hash, which `HashTable::find_by` resolves: a stale hash is harmless, a stale address is not.
//!
//! ```text
//!             BTreeMap: (at, id) of the lowest pair that may stand in the leaf
//!          lowest          (7000, 91..)          (9500, 12..)
//!           |                   |                     |
//!        leaf                leaf                  leaf        base: i64, len, words: Vec<u32>
//!        +----------------+----------------+----------------+ - - - - - - - -+
//!        | at - base, low | id, low half   | id, high half  | at - base, high|     one array for each column, `cap` words long
//!        +----------------+----------------+----------------+ - - - - - - - -+     the fourth only in a leaf that spans over 49 days
//! ```
//!
//! The pairs in a leaf are unsorted: an insert appends a pair, and a removal moves the last pair
//! into the free place. To find an id in a leaf, the processor compares one dense array of u32,
//! eight or sixteen words at a time. A full leaf is split at its median. If pairs are added in
//! order, the usual case with one TTL for all keys, a new leaf is begun instead, so that the
//! earlier leaves stay full.
//!
//! **Invariants**
//! - A pair is in the leaf with the greatest key that is not above the pair; the key of the first
//!   leaf is below all pairs (`tests::twin`).
//! - No leaf is empty. No `base` is above a time in its leaf.
//! - The capacity of a leaf is one of `CAPACITIES`, or a multiple of `LEAF_MAX` if all its pairs
//!   are equal.
//!
//! Cost: a pair takes 12 bytes, and about 13.6 with the slack of leaves and the map of leaves;
//! insert, remove and pop touch one leaf and the path to it in the map. A million pairs of the same
//! millisecond need no special case, since the id is part of the order. Pairs may repeat (two keys
//! can have the same hash): if there are more copies of one pair than fit a leaf, these copies are
//! in one long leaf.
//!
//! Rejected: a hierarchical timing wheel (its lists need a pointer each way, and TTLs of years and
//! milliseconds in one wheel cascade), a binary heap (a removal needs the position, or leaves a
//! stale pair for each overwritten TTL), sorted leaves (an insert moves half a leaf), BTreeMap of
//! pairs (24 to 30 bytes each).
use std::collections::BTreeMap;

use super::btree_memory::map_bytes;
use super::relocate::{Cursor, Relocate};
use crate::sys::mover::Mover;

/// The maximum number of pairs in a leaf, unless all of them are equal.
const LEAF_MAX: usize = 256;
/// The maximum number of pairs that two neighbouring leaves have together when they are merged.
const MERGE_MAX: usize = LEAF_MAX / 2;

type Pair = (i64, u64);

/// An ordered multiset of pairs: Unix time in milliseconds, and id.
#[derive(Default)]
pub struct Expires {
    leaves: BTreeMap<Key, Leaf>,
    len: usize,
    /// The number of bytes of the columns of all leaves.
    bytes: usize,
}

/// A pair of time and id as one number: comparing two numbers takes two instructions, whereas
/// comparing tuples needs branches.
type Key = u128;

/// The key of the first leaf in the map of leaves, which is below all pairs.
const LOWEST: Key = 0;

fn key_of((at, id): Pair) -> Key {
    // The sign bit of the time is flipped, so that negative times become the smaller numbers.
    u128::from(at as u64 ^ (1 << 63)) << 64 | u128::from(id)
}

/// Active defragmentation moves the leaves in order. The cursor is the upper 127 bits of a leaf's
/// key.
impl Relocate for Expires {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        if cursor == 0 {
            mover.map(&mut self.leaves, |_, _, _| ());
        }
        // A cursor has one bit less than a key, so a leaf may be visited twice.
        for (key, leaf) in self.leaves.range_mut(cursor << 1..) {
            if mover.is_spent() && key >> 1 > cursor {
                return key >> 1;
            }
            mover.visited(1);
            mover.boxed_slice(&mut leaf.words);
        }
        0
    }
}

impl Expires {
    /// An empty index.
    pub const fn new() -> Self {
        Expires {
            leaves: BTreeMap::new(),
            len: 0,
            bytes: 0,
        }
    }

    /// The number of pairs in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the index has no pair.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pair of time and id. If the index has this pair already, it has the pair twice
    /// afterwards.
    pub fn insert(&mut self, at: i64, id: u64) {
        self.len += 1;
        let pair = (at, id);
        let Some((_, leaf)) = self.leaves.range_mut(..=key_of(pair)).next_back() else {
            let leaf = Leaf::of(&[pair]);
            self.bytes += leaf.bytes();
            self.leaves.insert(LOWEST, leaf);
            return;
        };
        let before = leaf.bytes();
        let split = if leaf.len() >= LEAF_MAX {
            leaf.split(pair)
        } else {
            None
        };
        match &split {
            Some((key, _)) if *key <= key_of(pair) => {}
            _ => leaf.push(pair),
        }
        self.bytes = self.bytes - before + leaf.bytes();
        if let Some((key, mut upper)) = split {
            if key <= key_of(pair) {
                upper.push(pair);
            }
            self.bytes += upper.bytes();
            self.leaves.insert(key, upper);
        }
    }

    /// Moves an id from time `was` to time `at`; `None` means that the id has no time, and so no
    /// pair.
    #[inline]
    pub fn shift(&mut self, id: u64, was: Option<i64>, at: Option<i64>) {
        if was == at {
            return;
        }
        if let Some(was) = was {
            self.remove(was, id);
        }
        if let Some(at) = at {
            self.insert(at, id);
        }
    }

    /// Removes one copy of a pair. Returns false if the index does not have the pair.
    pub fn remove(&mut self, at: i64, id: u64) -> bool {
        let Some((&key, leaf)) = self.leaves.range_mut(..=key_of((at, id))).next_back() else {
            return false;
        };
        let Some(place) = leaf.position((at, id)) else {
            return false;
        };
        let before = leaf.bytes();
        leaf.swap_remove(place);
        let after = leaf.bytes();
        self.note_removal(key, before, after);
        true
    }

    /// Removes and returns the earliest pair if its time is not after `now`.
    pub fn pop_due(&mut self, now: i64) -> Option<(i64, u64)> {
        let mut first = self.leaves.first_entry()?;
        let key = *first.key();
        let leaf = first.get_mut();
        let place = leaf.earliest();
        let pair = leaf.get(place);
        if pair.0 > now {
            return None;
        }
        let before = leaf.bytes();
        leaf.swap_remove(place);
        let after = leaf.bytes();
        self.note_removal(key, before, after);
        Some(pair)
    }

    /// The pair with the earliest time.
    pub fn first(&self) -> Option<(i64, u64)> {
        let (_, leaf) = self.leaves.first_key_value()?;
        Some(leaf.get(leaf.earliest()))
    }

    /// The earliest pair for whose id `accept` returns true. Searches whole leaves, and ends
    /// without a result after `most` pairs or more.
    pub fn first_where(&self, most: usize, accept: impl Fn(u64) -> bool) -> Option<(i64, u64)> {
        let mut seen = 0;
        for leaf in self.leaves.values() {
            let pairs = (0..leaf.len()).map(|place| leaf.get(place));
            let first = pairs.filter(|(_, id)| accept(*id)).min();
            seen += leaf.len();
            if first.is_some() || seen >= most {
                return first;
            }
        }
        None
    }

    /// The number of pairs with a time before `at`. The cost of `count_before` grows with the
    /// number of leaves.
    pub fn count_before(&self, at: i64) -> usize {
        let mut leaves = self.leaves.range(..key_of((at, 0)));
        // All pairs in the leaves up to `at`, except some in the last leaf, have times before `at`.
        let last = leaves.next_back().map_or(0, |(_, leaf)| {
            (0..leaf.len())
                .filter(|place| leaf.get(*place).0 < at)
                .count()
        });
        last + leaves.map(|(_, leaf)| leaf.len()).sum::<usize>()
    }

    /// The n-th pair of [`Expires::iter`], in one step for each leaf. With a random n, all pairs
    /// are equally likely.
    pub fn nth(&self, mut n: usize) -> Option<(i64, u64)> {
        for leaf in self.leaves.values() {
            if n < leaf.len() {
                return Some(leaf.get(n));
            }
            n -= leaf.len();
        }
        None
    }

    /// Iterates over all pairs. Leaves come in ascending order; the pairs within a leaf have no
    /// order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.leaves
            .values()
            .flat_map(|leaf| (0..leaf.len()).map(|place| leaf.get(place)))
    }

    /// The number of allocated bytes: exact for the columns of the leaves, an estimate for the map
    /// of leaves.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + map_bytes::<Key, Leaf>(self.leaves.len())
    }

    /// Updates the counts of pairs and bytes after a pair was removed from the leaf at `key`. Drops
    /// the leaf if it is empty, and merges it with the next leaf if its allocation has shrunk.
    fn note_removal(&mut self, key: Key, before: usize, after: usize) {
        self.len -= 1;
        self.bytes = self.bytes - before + after;
        if after == 0 {
            self.drop_leaf(key);
        } else if after < before {
            self.merge_with_next(key);
        }
    }

    /// Removes an empty leaf. If that was the first leaf, the next leaf gets its key.
    fn drop_leaf(&mut self, key: Key) {
        self.leaves.remove(&key);
        if key == LOWEST
            && let Some((_, leaf)) = self.leaves.pop_first()
        {
            self.leaves.insert(LOWEST, leaf);
        }
    }

    fn merge_with_next(&mut self, key: Key) {
        let mut range = self.leaves.range_mut(key..);
        let (Some((_, leaf)), Some((&next_key, next))) = (range.next(), range.next()) else {
            return;
        };
        if leaf.len() + next.len() > MERGE_MAX {
            return;
        }
        let before = leaf.bytes() + next.bytes();
        let mut pairs: Vec<Pair> = (0..leaf.len()).map(|place| leaf.get(place)).collect();
        pairs.extend((0..next.len()).map(|place| next.get(place)));
        *leaf = Leaf::of(&pairs);
        self.bytes = self.bytes - before + leaf.bytes();
        self.leaves.remove(&next_key);
    }
}

/// Up to [`LEAF_MAX`] pairs in columns of u32.
struct Leaf {
    base: i64,
    /// The columns of the leaf: `columns` arrays of `cap` words each.
    words: Box<[u32]>,
    len: u32,
    cap: u32,
    /// The number of columns: 3, or 4 if a time minus `base` does not fit in 32 bits.
    columns: u32,
}

const TIME: usize = 0;
const ID_LOW: usize = 1;
const ID_HIGH: usize = 2;
const TIME_HIGH: usize = 3;
const NARROW: u32 = 3;
const WIDE: u32 = 4;

/// The possible capacities of a leaf in pairs. The capacities follow the allocator's size classes:
/// 12 bytes times a capacity are just below 192, 256, .. 3072.
const CAPACITIES: [usize; 17] = [
    4, 8, 16, 21, 26, 32, 37, 42, 53, 64, 85, 106, 128, 149, 170, 213, 256,
];

fn capacity_for(len: usize) -> usize {
    CAPACITIES
        .into_iter()
        .find(|&cap| cap >= len)
        .unwrap_or_else(|| len.next_multiple_of(LEAF_MAX))
}

impl Leaf {
    fn of(pairs: &[Pair]) -> Leaf {
        let base = pairs.iter().map(|pair| pair.0).min().unwrap_or(0);
        let fits = pairs
            .iter()
            .all(|pair| pair.0.abs_diff(base) <= u64::from(u32::MAX));
        let mut leaf = Leaf {
            base,
            words: Box::default(),
            len: 0,
            cap: 0,
            columns: if fits { NARROW } else { WIDE },
        };
        leaf.set_capacity(capacity_for(pairs.len()));
        pairs.iter().for_each(|&pair| leaf.append(pair));
        leaf
    }

    fn len(&self) -> usize {
        self.len as usize
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    fn column(&self, column: usize) -> &[u32] {
        let start = column * self.cap as usize;
        &self.words[start..start + self.len()]
    }

    /// Changes the capacity of the leaf: moves its columns to arrays of another length.
    fn set_capacity(&mut self, cap: usize) {
        let mut words = vec![0; cap * self.columns as usize].into_boxed_slice();
        for column in 0..self.columns as usize {
            words[column * cap..][..self.len()].copy_from_slice(self.column(column));
        }
        (self.words, self.cap) = (words, cap as u32);
    }

    #[inline]
    fn delta(&self, place: usize) -> u64 {
        let cap = self.cap as usize;
        let high = if self.columns == WIDE {
            self.words[TIME_HIGH * cap + place]
        } else {
            0
        };
        u64::from(high) << 32 | u64::from(self.words[TIME * cap + place])
    }

    #[inline]
    fn get(&self, place: usize) -> Pair {
        let cap = self.cap as usize;
        let id = u64::from(self.words[ID_HIGH * cap + place]) << 32
            | u64::from(self.words[ID_LOW * cap + place]);
        (self.base.wrapping_add_unsigned(self.delta(place)), id)
    }

    /// Adds a pair of time and id to the leaf. Makes room and lowers the leaf's base if needed.
    fn push(&mut self, pair: Pair) {
        let delta = pair.0.checked_sub(self.base);
        if !matches!(delta, Some(delta) if delta >= 0 && (self.columns == WIDE || delta <= i64::from(u32::MAX)))
        {
            let mut pairs: Vec<Pair> = (0..self.len()).map(|place| self.get(place)).collect();
            pairs.push(pair);
            *self = Leaf::of(&pairs);
            return;
        }
        if self.len == self.cap {
            self.set_capacity(capacity_for(self.len() + 1));
        }
        self.append(pair);
    }

    /// Adds a pair of time and id to a leaf that has room, and whose base is not above the time.
    fn append(&mut self, (at, id): Pair) {
        let (cap, place) = (self.cap as usize, self.len());
        let delta = at.abs_diff(self.base);
        self.words[TIME * cap + place] = delta as u32;
        self.words[ID_LOW * cap + place] = id as u32;
        self.words[ID_HIGH * cap + place] = (id >> 32) as u32;
        if self.columns == WIDE {
            self.words[TIME_HIGH * cap + place] = (delta >> 32) as u32;
        }
        self.len += 1;
    }

    /// The index of a pair in the leaf.
    fn position(&self, pair: Pair) -> Option<usize> {
        let low = pair.1 as u32;
        let ids = self.column(ID_LOW);
        let mut start = 0;
        while let Some(found) = find_word(&ids[start..], low) {
            start += found;
            if self.get(start) == pair {
                return Some(start);
            }
            start += 1;
        }
        None
    }

    /// The index in the leaf of a pair with the leaf's earliest time.
    fn earliest(&self) -> usize {
        if self.columns == WIDE {
            return (0..self.len())
                .min_by_key(|&place| self.delta(place))
                .unwrap_or(0);
        }
        let times = self.column(TIME);
        let earliest = times.iter().copied().fold(u32::MAX, u32::min);
        find_word(times, earliest).unwrap_or(0)
    }

    /// Removes a pair of the leaf and moves the last pair into its place. Shrinks the leaf's
    /// allocation if a smaller one has room for the remaining pairs and a quarter more.
    fn swap_remove(&mut self, place: usize) {
        let (cap, last) = (self.cap as usize, self.len() - 1);
        for column in 0..self.columns as usize {
            self.words[column * cap + place] = self.words[column * cap + last];
        }
        self.len -= 1;
        if self.len == 0 {
            (self.words, self.cap) = (Box::default(), 0);
        } else if capacity_for(self.len() + self.len() / 4 + 1) < cap {
            self.set_capacity(capacity_for(self.len()));
        }
    }

    /// Splits a full leaf and returns its upper part with the key of that part. If all pairs of the
    /// leaf are below `pair`, the upper part is an empty leaf, to which `pair` is added next;
    /// otherwise it is the half above the median. `None` if all pairs are equal.
    fn split(&mut self, pair: Pair) -> Option<(Key, Leaf)> {
        let mut pairs: Vec<Pair> = (0..self.len()).map(|place| self.get(place)).collect();
        let highest = pairs.iter().copied().max()?;
        if highest < pair {
            return Some((key_of(pair), Leaf::of(&[])));
        }
        let middle = pairs.len() / 2;
        let (_, &mut median, _) = pairs.select_nth_unstable(middle);
        let lowest = pairs.iter().copied().min()?;
        let key = if lowest < median {
            median
        } else {
            *pairs.iter().filter(|&&p| p > median).min()?
        };
        let (lower, upper): (Vec<Pair>, Vec<Pair>) = pairs.iter().partition(|&&p| p < key);
        *self = Leaf::of(&lower);
        Some((key_of(key), Leaf::of(&upper)))
    }
}

/// The index of the first word that equals `word`; sixteen words are compared at a time.
fn find_word(words: &[u32], word: u32) -> Option<usize> {
    const LANES: usize = 16;
    let (chunks, rest) = words.as_chunks::<LANES>();
    for (n, chunk) in chunks.iter().enumerate() {
        if chunk.iter().fold(false, |any, &w| any | (w == word)) {
            return chunk
                .iter()
                .position(|&w| w == word)
                .map(|place| n * LANES + place);
        }
    }
    rest.iter()
        .position(|&w| w == word)
        .map(|place| chunks.len() * LANES + place)
}

#[cfg(test)]
mod tests;
