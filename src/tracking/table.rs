//! The table of tracking: for each key, the clients that may have cached it.
//!
//! ```text
//!   table:  hash(key) -> [ key | id, id, ... ]      one allocation a key, ids sorted, 8 bytes each
//! ```
//!
//! The table is built like that of a hash's fields (`ds::field`), with the ids as the value: a key
//! of 16 bytes that one client has cached takes 26 bytes and its slot. The ids are sorted, so that
//! a search finds quickly whether a client is listed already, which is the usual case for a hot
//! key. Adding a client to n other clients copies n ids: 80 KB for ten thousand.

use crate::ds::field::Field;
use crate::ds::hashtable::HashTable;
use crate::ds::siphash::HashSeed;
use crate::util::random::Random;

/// The keys that clients may have cached, with the ids of these clients.
pub struct Table {
    keys: HashTable<Field>,
    /// The number of clients' ids under all keys.
    items: usize,
}

const ID: usize = size_of::<u64>();

fn ids_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(ID).map(|id| {
        let mut bytes = [0; ID];
        bytes.copy_from_slice(id);
        u64::from_le_bytes(bytes)
    })
}

/// The position of `id` among the sorted ids, or the position where it would be inserted.
fn search(bytes: &[u8], id: u64) -> Result<usize, usize> {
    let (mut from, mut to) = (0, bytes.len() / ID);
    while from < to {
        let middle = from.midpoint(to);
        match ids_of(&bytes[middle * ID..]).next() {
            Some(found) if found == id => return Ok(middle),
            Some(found) if found < id => from = middle + 1,
            _ => to = middle,
        }
    }
    Err(from)
}

impl Table {
    /// An empty tracking table; `seed` is the seed of the hashes of keys.
    pub fn new(seed: HashSeed) -> Table {
        Table {
            keys: HashTable::new(seed),
            items: 0,
        }
    }

    /// The number of keys in the tracking table.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The number of clients' ids under all keys.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Adds a client to those that may have cached the key.
    pub fn add(&mut self, key: &[u8], id: u64) {
        let hash = self.keys.hash(key);
        let Some(entry) = self.keys.find(hash, key) else {
            let entry = Field::new(key, &id.to_le_bytes(), None);
            self.keys.insert_new(hash, entry);
            self.items += 1;
            return;
        };
        let Err(place) = search(entry.value(), id) else {
            return;
        };
        let (before, after) = entry.value().split_at(place * ID);
        let ids = [before, &id.to_le_bytes(), after].concat();
        self.keys
            .replace_with(hash, key, |entry| entry.with_value(&ids));
        self.items += 1;
    }

    /// Removes a key and returns the clients that may have cached it.
    pub fn remove(&mut self, key: &[u8]) -> Option<Vec<u64>> {
        if self.keys.is_empty() {
            return None;
        }
        let hash = self.keys.hash(key);
        let entry = self.keys.remove(hash, key)?;
        let ids: Vec<u64> = ids_of(entry.as_ref().value()).collect();
        self.items -= ids.len();
        Some(ids)
    }

    /// A random key; all keys are equally likely.
    pub fn random(&self, rng: &mut Random) -> Option<Vec<u8>> {
        let entry = self.keys.random(rng.raw())?;
        Some(entry.field().to_vec())
    }

    /// Empties the tracking table and returns its former content.
    pub fn take(&mut self) -> Table {
        let empty = Table::new(self.keys.seed());
        std::mem::replace(self, empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn the_table_is_a_map_of_sets(ops in proptest::collection::vec((0..6u8, 0..20u64, 0..4u8), 1..200)) {
            let mut table = Table::new(HashSeed::new([1, 2]));
            let mut twin: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
            for (key, id, op) in ops {
                if op == 0 {
                    let ids = table.remove(&[key]);
                    prop_assert_eq!(ids, twin.remove(&key).map(|ids| ids.into_iter().collect()));
                } else {
                    table.add(&[key], id);
                    twin.entry(key).or_default().insert(id);
                }
                prop_assert_eq!(table.len(), twin.len());
                prop_assert_eq!(table.items(), twin.values().map(|ids| ids.len()).sum::<usize>());
            }
        }
    }
}
