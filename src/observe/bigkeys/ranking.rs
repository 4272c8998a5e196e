//! Keeps the largest of many keys while their sizes change, in constant memory and without a search
//! for them in the keyspace.
//!
//! ```text
//!   keys by size    9000  7100  5000 | 800  790  790  12  3  3  1 ..
//!                   `---- kept ----´   ^ floor: a key that is not kept has at most this size
//!
//!   size > floor    kept; if that makes too many, the smallest goes, and its size is the floor
//!   size = floor    kept while there is room
//!   size < floor    not kept, or not any more: another key that isn't kept may be larger
//! ```
//!
//! **Invariant:** a key that is not kept has at most the size `floor`; a key that is kept has at
//! least the size `floor`. So the keys in the ranking are exactly the n largest of all keys, for
//! some n up to [`CAPACITY`] (`tests::what_is_kept_are_the_largest`).
//!
//! The number of kept keys falls when kept keys are deleted or shrink, and rises again only by keys
//! above the floor, since keys below the floor are not remembered. [`Ranking::is_short`] returns
//! whether so few keys are left that a pass over the keyspace is due, which begins with
//! `lower_floor`.
//!
//! Rejected: an ordered tree, or a heap, of all sizes, which needs about 20 bytes for each key.

use crate::observe::key_name::{KeptName, Name};

/// The number of keys that a ranking keeps. BIGKEYS shows fewer keys, so that some of the kept keys
/// can be deleted before a new pass over the keyspace is needed.
pub const CAPACITY: usize = 128;
/// If a ranking keeps fewer keys than this, and there may be keys that it does not keep, a pass
/// over the keyspace is due.
const SHORT: usize = 64;

/// A key of a ranking, and its size.
pub struct Big {
    pub name: KeptName,
    /// The size by which the ranking orders: elements (of a string, its length), or bytes of
    /// memory.
    pub size: u64,
}

/// The largest keys of one type, by elements or by bytes.
#[derive(Default)]
pub struct Ranking {
    kept: Vec<Big>,
    floor: u64,
}

impl Ranking {
    /// The size that no key outside of the ranking exceeds.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The keys of the ranking, in no particular order.
    pub fn kept(&self) -> &[Big] {
        &self.kept
    }

    /// Records that a key has the size `size`: adds the key to the ranking, updates it, or removes
    /// it. Returns whether the key was in the ranking before.
    pub fn observe(&mut self, name: Name, size: u64) -> bool {
        let at = self.position(name);
        match at {
            Some(at) if size >= self.floor => self.kept[at].size = size,
            Some(at) => _ = self.kept.swap_remove(at),
            None if self.wants(size) => self.keep(name, size),
            None => {}
        }
        at.is_some()
    }

    /// Whether the ranking would keep a key of the size `size`.
    pub fn wants(&self, size: u64) -> bool {
        size > self.floor || size == self.floor && self.kept.len() < CAPACITY
    }

    fn keep(&mut self, name: Name, size: u64) {
        let name = KeptName::of(name);
        self.kept.push(Big { name, size });
        if self.kept.len() > CAPACITY {
            let sizes = self.kept.iter().enumerate();
            let smallest = sizes
                .min_by_key(|(_, big)| big.size)
                .map_or(0, |(at, _)| at);
            self.floor = self.kept.swap_remove(smallest).size;
        }
    }

    /// Removes from the ranking a key that was deleted, or has another type now.
    pub fn remove(&mut self, name: Name) {
        if let Some(at) = self.position(name) {
            self.kept.swap_remove(at);
        }
    }

    fn position(&self, name: Name) -> Option<usize> {
        self.kept.iter().position(|big| big.name.is(name))
    }

    /// Removes from the ranking the keys of a database that was emptied.
    pub fn remove_db(&mut self, db: u32) {
        self.kept.retain(|big| big.name.db != db);
    }

    /// Exchanges the numbers of two databases in the ranking, after SWAPDB.
    pub fn swap_dbs(&mut self, a: u32, b: u32) {
        for big in &mut self.kept {
            if big.name.db == a || big.name.db == b {
                big.name.db = a + b - big.name.db;
            }
        }
    }

    /// Sets the floor to zero: all keys are about to be offered again, or no keys exist.
    pub fn lower_floor(&mut self) {
        self.floor = 0;
    }

    /// Whether the ranking has so few keys left that a pass should look for keys below the floor.
    pub fn is_short(&self) -> bool {
        self.floor > 0 && self.kept.len() < SHORT
    }

    /// The `count` largest keys, the largest first.
    pub fn top(&self, count: usize) -> Vec<&Big> {
        let mut all: Vec<&Big> = self.kept.iter().collect();
        all.sort_by(|a, b| {
            let size = b.size.cmp(&a.size);
            size.then_with(|| a.name.order().cmp(&b.name.order()))
        });
        all.truncate(count);
        all
    }

    /// The number of heap bytes of the ranking.
    pub fn memory(&self) -> usize {
        let names: usize = self.kept.iter().map(|big| big.name.memory()).sum();
        self.kept.capacity() * size_of::<Big>() + names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn name(key: &[u8; 2]) -> Name<'_> {
        let hash = u64::from(u16::from_le_bytes(*key));
        Name { db: 0, hash, key }
    }

    /// Of many keys of equal size, a ranking keeps [`CAPACITY`], and its floor is this size.
    #[test]
    fn keys_alike_fill_the_list() {
        let mut ranking = Ranking::default();
        (0u16..1000).for_each(|key| _ = ranking.observe(name(&key.to_le_bytes()), 7));
        assert_eq!((ranking.kept().len(), ranking.floor()), (CAPACITY, 7));
        assert!(!ranking.is_short());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Keys grow, shrink and are deleted at random; the keys that the ranking keeps are the
        /// first ones of all keys, sorted by size.
        #[test]
        fn what_is_kept_are_the_largest(steps in proptest::collection::vec((0u16..400, 0u64..1000), 1..2000)) {
            let mut ranking = Ranking::default();
            let mut twin: HashMap<u16, u64> = HashMap::new();
            for (key, size) in steps {
                let bytes = key.to_le_bytes();
                // In this test, one key in eight is deleted.
                if size % 8 == 0 {
                    twin.remove(&key);
                    ranking.remove(name(&bytes));
                } else {
                    twin.insert(key, size);
                    ranking.observe(name(&bytes), size);
                }
                prop_assert!(ranking.kept().len() <= CAPACITY);
            }
            let mut sizes: Vec<u64> = twin.values().copied().collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            let kept: Vec<u64> = ranking.top(CAPACITY).iter().map(|big| big.size).collect();
            prop_assert_eq!(&kept[..], &sizes[..kept.len()]);
            prop_assert!(kept.iter().all(|&size| size >= ranking.floor()));
            prop_assert!(sizes[kept.len()..].iter().all(|&size| size <= ranking.floor()));
            for big in ranking.kept() {
                let key = big.name.order().1;
                prop_assert_eq!(twin[&u16::from_le_bytes([key[0], key[1]])], big.size);
            }
        }
    }
}
