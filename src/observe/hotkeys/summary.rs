//! The most frequent keys of a stream that is too long to count: weighted Space-Saving.
//!
//! ```text
//!   add(key, w)   counted already        weight += w
//!                 a counter is free      weight  = w,           error = 0
//!                 none is                the lightest counter m changes its owner:
//!                                        weight  = m.weight + w, error = m.weight
//!
//!   counters   [ a 90 |0 ][ b 41 |0 ][ z 7 |6 ][ y 8 |6 ] ..   CAPACITY of them, weight and error
//!   heap       places of counters, the lightest first
//!   index      identity of a key -> place of its counter
//! ```
//!
//! A key that takes over a counter gets, as its error, the weight that it may have had before it
//! was counted, which is at most the weight of the lightest counter. The true weight of a key lies
//! in `weight - error ..= weight`. The server reports the lower bound, so that no rare key is
//! reported as hot: in a stream without frequent keys, nearly the whole weight of each counter is
//! error, and the reported weights are close to zero.
//!
//! **Invariant:** for every key, `at_least <= truth <= at_most`; the true weight of a key without a
//! counter is at most that of the lightest counter (`tests::bounds_hold`).
//! **Invariant:** the error of a counter is at most `total / CAPACITY`, so a key with a greater
//! weight has a counter (`tests::bounds_hold`). As long as at most `CAPACITY` keys were added, all
//! weights are exact.
//! **Invariant:** after the counters are filled nothing is allocated: a counter that is given to
//! another key keeps its buffer for the key's name.
//!
//! Memory: a counter has 80 bytes, and the beginning of its key (`observe::key_name`).
//!
//! Source: Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements in
//! Data Streams" (2005). Rejected: HeavyKeeper (Gong et al., 2018) and a count-min sketch with a
//! heap (Cormode, Muthukrishnan, 2005). HeavyKeeper and sketches need less memory for millions of
//! keys, but their bounds hold only with some probability, and their counts can't be aged by one
//! factor; a few hundred counters are enough for a list that a person reads.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::observe::key_name::{KeptName, Name};

/// The number of counters of one summary, which keeps the error of a weight below a five-hundredth
/// of the total weight.
pub const CAPACITY: usize = 512;
struct Counter {
    name: KeptName,
    weight: f64,
    error: f64,
    /// The index of this counter in the heap.
    place: u16,
}

/// A frequent key, with the bounds of its weight.
pub struct Hot<'a> {
    pub name: &'a KeptName,
    /// The lower bound of the key's weight.
    pub at_least: f64,
    /// The upper bound of the key's weight.
    pub at_most: f64,
}

/// Finds the most frequent keys of a stream of keys, with a constant number of counters.
pub struct Summary {
    counters: Vec<Counter>,
    heap: Vec<u16>,
    index: HashMap<u64, u16, BuildHasherDefault<Hashed>>,
    capacity: usize,
    total: f64,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::new(CAPACITY)
    }
}

impl Summary {
    /// A summary of at most `capacity` counters.
    pub fn new(capacity: usize) -> Summary {
        assert!((1..=usize::from(u16::MAX)).contains(&capacity));
        Summary {
            counters: Vec::new(),
            heap: Vec::new(),
            // The index has room for twice `capacity` keys, so that removed entries don't make the
            // table grow.
            index: HashMap::with_capacity_and_hasher(2 * capacity, Default::default()),
            capacity,
            total: 0.0,
        }
    }

    /// The sum of the weights of all uses that were added, scaled as the counters are.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Adds a use of a key, of weight `weight`.
    pub fn add(&mut self, name: Name, weight: f64) {
        self.total += weight;
        let identity = name.identity();
        if let Some(&at) = self.index.get(&identity) {
            let counter = &mut self.counters[usize::from(at)];
            counter.weight += weight;
            self.sift_down(counter_place(&self.counters, at));
        } else if self.counters.len() < self.capacity {
            self.take_free(name, weight);
        } else {
            self.take_lightest(name, weight);
        }
    }

    fn take_free(&mut self, name: Name, weight: f64) {
        let at = self.counters.len() as u16;
        self.counters.push(Counter {
            name: KeptName::of(name),
            weight,
            error: 0.0,
            place: at,
        });
        self.index.insert(name.identity(), at);
        self.heap.push(at);
        self.sift_up(usize::from(at));
    }

    fn take_lightest(&mut self, name: Name, weight: f64) {
        let at = self.heap[0];
        let counter = &mut self.counters[usize::from(at)];
        self.index.remove(&counter.name.identity());
        self.index.insert(name.identity(), at);
        counter.name.replace(name);
        counter.error = counter.weight;
        counter.weight += weight;
        self.sift_down(0);
    }

    /// Multiplies all weights by `factor`, so that earlier uses count less than later ones.
    pub fn scale(&mut self, factor: f64) {
        self.total *= factor;
        for counter in &mut self.counters {
            counter.weight *= factor;
            counter.error *= factor;
        }
    }

    /// The `count` keys with the highest lower bounds of weight, the highest first.
    pub fn top(&self, count: usize) -> Vec<Hot<'_>> {
        let certain = |counter: &Counter| counter.weight - counter.error;
        let mut all: Vec<&Counter> = self.counters.iter().filter(|c| certain(c) > 0.0).collect();
        all.sort_by(|a, b| {
            let weight = certain(b).total_cmp(&certain(a));
            weight.then_with(|| a.name.order().cmp(&b.name.order()))
        });
        let hot = all.into_iter().take(count).map(|counter| Hot {
            name: &counter.name,
            at_least: certain(counter),
            at_most: counter.weight,
        });
        hot.collect()
    }

    /// The number of heap bytes of the summary.
    pub fn memory(&self) -> usize {
        let keys: usize = self.counters.iter().map(|c| c.name.memory()).sum();
        self.counters.capacity() * size_of::<Counter>()
            + self.heap.capacity() * size_of::<u16>()
            + 2 * self.capacity * size_of::<(u64, u16)>()
            + keys
    }

    fn weight_at(&self, place: usize) -> f64 {
        self.counters[usize::from(self.heap[place])].weight
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            self.counters[usize::from(self.heap[place])].place = place as u16;
        }
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2];
            let lightest = children
                .into_iter()
                .filter(|&child| child < self.heap.len())
                .min_by(|&a, &b| self.weight_at(a).total_cmp(&self.weight_at(b)));
            match lightest {
                Some(child) if self.weight_at(child) < self.weight_at(place) => {
                    self.swap(place, child);
                    place = child;
                }
                _ => return,
            }
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        while place > 0 && self.weight_at(place) < self.weight_at((place - 1) / 2) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }
}

fn counter_place(counters: &[Counter], at: u16) -> usize {
    usize::from(counters[usize::from(at)].place)
}

/// A hasher that returns an identity unchanged, since identities are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Identities are hashed by `write_u64`; this function only completes the trait, for other
        // types.
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::siphash::HashSeed;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    const SEED: HashSeed = HashSeed::new([3, 4]);

    fn name(db: u32, key: &[u8]) -> Name<'_> {
        let hash = SEED.hash(key);
        Name { db, hash, key }
    }

    fn bounds(summary: &Summary, key: &[u8]) -> Option<(f64, f64)> {
        let identity = name(0, key).identity();
        let at = *summary.index.get(&identity)?;
        let counter = &summary.counters[usize::from(at)];
        Some((counter.weight - counter.error, counter.weight))
    }

    fn check_heap(summary: &Summary) {
        for (place, &at) in summary.heap.iter().enumerate() {
            assert_eq!(counter_place(&summary.counters, at), place);
            assert!(summary.weight_at((place.max(1) - 1) / 2) <= summary.weight_at(place));
        }
        assert_eq!(summary.index.len(), summary.counters.len());
        for (identity, &at) in &summary.index {
            assert_eq!(summary.counters[usize::from(at)].name.identity(), *identity);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn bounds_hold(stream in proptest::collection::vec((0u8..40, 1u32..9), 1..600), capacity in 1usize..24) {
            let mut summary = Summary::new(capacity);
            let mut twin: HashMap<u8, f64> = HashMap::new();
            for &(key, weight) in &stream {
                summary.add(name(0, &[key]), f64::from(weight));
                *twin.entry(key).or_default() += f64::from(weight);
            }
            check_heap(&summary);
            let total: f64 = twin.values().sum();
            prop_assert_eq!(summary.total(), total);
            let lightest = summary.weight_at(0);
            prop_assert!(lightest <= total / summary.counters.len() as f64);
            for (key, &truth) in &twin {
                match bounds(&summary, &[*key]) {
                    Some((least, most)) => {
                        prop_assert!(least <= truth && truth <= most);
                        prop_assert!(most - least <= total / capacity as f64);
                    }
                    None => prop_assert!(truth <= lightest && truth <= total / capacity as f64),
                }
            }
        }

        #[test]
        fn few_keys_are_counted_exactly(stream in proptest::collection::vec((0u32..3, 0u8..8, 1u32..99), 1..300)) {
            let mut summary = Summary::new(24);
            let mut twin: HashMap<(u32, u8), f64> = HashMap::new();
            for &(db, key, weight) in &stream {
                summary.add(name(db, &[key]), f64::from(weight));
                *twin.entry((db, key)).or_default() += f64::from(weight);
            }
            let mut wanted: Vec<(f64, u32, u8)> = twin.into_iter().map(|((db, key), n)| (n, db, key)).collect();
            wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let top: Vec<(f64, u32, u8)> = summary.top(99).iter().map(|hot| (hot.at_least, hot.name.db, hot.name.shown()[0])).collect();
            prop_assert_eq!(top, wanted);
        }
    }

    /// The most frequent keys of a Zipf stream over 100,000 keys are found, in order, with nearly
    /// their true weights.
    #[test]
    fn favourites_of_a_zipf_stream_are_found() {
        const KEYS: usize = 100_000;
        const EVENTS: usize = 400_000;
        let mut rng = SmallRng::seed_from_u64(7);
        let mut upto: Vec<f64> = Vec::with_capacity(KEYS);
        for rank in 1..=KEYS {
            upto.push(upto.last().unwrap_or(&0.0) + 1.0 / rank as f64);
        }
        let mut summary = Summary::default();
        let mut truth = vec![0u32; KEYS];
        for _ in 0..EVENTS {
            let at: f64 = rng.random_range(0.0..upto[KEYS - 1]);
            let rank = upto.partition_point(|&sum| sum <= at);
            truth[rank] += 1;
            summary.add(name(0, &(rank as u32).to_le_bytes()), 1.0);
        }
        for (rank, hot) in summary.top(10).iter().enumerate() {
            assert_eq!(hot.name.shown(), (rank as u32).to_le_bytes());
            let truth = f64::from(truth[rank]);
            assert!(hot.at_least <= truth && truth <= hot.at_most);
            assert!(truth - hot.at_least < 0.01 * truth);
        }
    }

    /// In a stream where all keys are equally frequent, none is reported as hot.
    #[test]
    fn no_key_is_hot_when_all_are_alike() {
        let mut summary = Summary::new(64);
        for n in 0u32..100_000 {
            summary.add(name(0, &(n % 20_000).to_le_bytes()), 1.0);
        }
        let hottest = summary.top(1)[0].at_least;
        assert!(hottest <= 5.0, "{hottest}");
    }

    #[test]
    fn long_keys_are_distinguished_and_shown_in_part() {
        let mut long = vec![b'k'; 10_000];
        let mut summary = Summary::new(4);
        summary.add(name(0, &long), 2.0);
        *long.last_mut().unwrap() = b'z';
        summary.add(name(0, &long), 1.0);
        let top = summary.top(9);
        assert_eq!(top.len(), 2);
        assert!(top[0].name.shown().ends_with(b"kk... (9488 more bytes)"));
        assert!(summary.memory() < 4096);
        let mut summary = Summary::new(4);
        summary.add(name(0, b"\0\xff"), 1.0);
        assert_eq!(summary.top(1)[0].name.shown(), b"\0\xff");
    }

    #[test]
    fn nothing_grows_once_all_counters_are_taken() {
        let mut summary = Summary::new(32);
        (0u64..32).for_each(|n| summary.add(name(0, &n.to_le_bytes()), 1.0));
        let before = summary.memory();
        (32u64..5000).for_each(|n| summary.add(name(0, &n.to_le_bytes()), 1.0));
        assert_eq!(summary.memory(), before);
    }
}
