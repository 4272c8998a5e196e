//! Hash maps of the standard library whose order can be repeated: their hash function has the
//! server's seed instead of a random seed of the process, so that the replay of a recording
//! (`sys::tape`) iterates over the same names in the same order.
//!
//! The hash function of these maps is keyed with a secret seed, as that of the keyspace is, so that
//! clients can't choose names that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use crate::ds::siphash::HashSeed;

static SEED: OnceLock<HashSeed> = OnceLock::new();

/// Sets the seed of all [`SeededMap`]s of the process. Only the first call of `set_seed` has an
/// effect.
pub fn set_seed(seed: HashSeed) {
    SEED.get_or_init(|| seed);
}

/// A hash map whose hash function has the server's seed.
pub type SeededMap<K, V> = HashMap<K, V, Seeded>;

/// The hash function of a [`SeededMap`].
#[derive(Clone)]
pub struct Seeded(HashSeed);

impl Default for Seeded {
    fn default() -> Seeded {
        let random = || RandomState::new().hash_one(0);
        Seeded(*SEED.get_or_init(|| HashSeed::new([random(), random()])))
    }
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher {
            seed: self.0,
            state: 0,
        }
    }
}

/// The state of the hash of one key.
pub struct SeededHasher {
    seed: HashSeed,
    state: u64,
}

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state = self.state.rotate_left(23) ^ self.seed.hash(bytes);
    }

    fn write_usize(&mut self, len: usize) {
        // `write_usize` gets the length that precedes a slice. The length is mixed in without a
        // SipHash round, since the hash of the slice depends on it anyway.
        self.state = self.state.rotate_left(23) ^ len as u64;
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_repeated_from_its_seed() {
        let map_of = |seed: u64| -> Vec<Box<[u8]>> {
            let seeded = Seeded(HashSeed::new([seed, 2]));
            let mut map: SeededMap<Box<[u8]>, u32> = HashMap::with_hasher(seeded);
            for n in 0..100u32 {
                map.insert(n.to_string().into_bytes().into(), n);
            }
            assert_eq!(map.get(&b"42"[..]), Some(&42));
            map.into_keys().collect()
        };
        assert_eq!(map_of(1), map_of(1));
        assert_ne!(map_of(1), map_of(3));
    }
}
