use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ds;
use crate::ds::relocate::relocate_all;
use crate::ds::scaled;

/// Checks that every pair is in its leaf, no leaf is empty, no base is above a time of its leaf,
/// and the counts of pairs and bytes are right.
fn check(index: &Expires) {
    let keys: Vec<Key> = index.leaves.keys().copied().collect();
    assert!(keys.first().is_none_or(|&first| first == LOWEST));
    let (mut len, mut bytes) = (0, 0);
    for (n, (&key, leaf)) in index.leaves.iter().enumerate() {
        assert!(leaf.len() > 0 && leaf.len <= leaf.cap);
        for place in 0..leaf.len() {
            let pair = leaf.get(place);
            assert!(key_of(pair) >= key && keys.get(n + 1).is_none_or(|&next| key_of(pair) < next));
            assert!(pair.0 >= leaf.base);
        }
        assert!(leaf.cap as usize <= capacity_for(leaf.len() + leaf.len() / 4 + 1));
        len += leaf.len();
        bytes += leaf.bytes();
    }
    assert_eq!((len, bytes), (index.len(), index.bytes));
}

#[derive(Default)]
struct Twin {
    pairs: BTreeMap<Pair, usize>,
}

impl Twin {
    fn insert(&mut self, pair: Pair) {
        *self.pairs.entry(pair).or_default() += 1;
    }

    fn remove(&mut self, pair: Pair) -> bool {
        let Some(count) = self.pairs.get_mut(&pair) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.pairs.remove(&pair);
        }
        true
    }

    fn sorted(&self) -> Vec<Pair> {
        self.pairs
            .iter()
            .flat_map(|(&pair, &count)| std::iter::repeat_n(pair, count))
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(i64, u64),
    /// Inserts a number of pairs in ascending order, with a constant distance in time.
    Series(i64, i64, u64),
    RemoveNth(usize),
    RemoveMany(usize, usize),
    RemoveAny(i64, u64),
    Pop(i64),
    PopMany(usize),
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0i64..2000,
        4 => 1_700_000_000_000i64..1_700_000_100_000,
        1 => any::<i64>(),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let id = || prop_oneof![3 => any::<u64>(), 1 => 0u64..3];
    prop_oneof![
        20 => (time(), id()).prop_map(|(at, id)| Op::Insert(at, id)),
        3 => (time(), -2i64..100, 1..scaled(700, 40) as u64).prop_map(|(at, step, n)| Op::Series(at, step, n)),
        10 => any::<usize>().prop_map(Op::RemoveNth),
        2 => (any::<usize>(), 0..scaled(700, 40)).prop_map(|(from, n)| Op::RemoveMany(from, n)),
        3 => (time(), id()).prop_map(|(at, id)| Op::RemoveAny(at, id)),
        5 => time().prop_map(Op::Pop),
        2 => (0..scaled(700, 40)).prop_map(Op::PopMany),
    ]
}

fn insert(index: &mut Expires, twin: &mut Twin, pair: Pair) {
    index.insert(pair.0, pair.1);
    twin.insert(pair);
}

/// Pops one pair of the index, and removes it from the naive twin; pairs with equal times may be
/// popped in any order.
fn pop(index: &mut Expires, twin: &mut Twin, now: i64) {
    let first = twin.pairs.keys().next().map(|pair| pair.0);
    assert_eq!(index.first().map(|pair| pair.0), first);
    match index.pop_due(now) {
        Some(pair) => {
            assert!(Some(pair.0) == first && pair.0 <= now);
            assert!(twin.remove(pair));
        }
        None => assert!(first.is_none_or(|at| at > now)),
    }
}

fn apply(index: &mut Expires, twin: &mut Twin, op: Op) {
    match op {
        Op::Insert(at, id) => insert(index, twin, (at, id)),
        Op::Series(at, step, n) => (0..n).for_each(|i| {
            let at = at.saturating_add(step * i as i64);
            insert(index, twin, (at, i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }),
        Op::RemoveNth(n) => {
            if let Some(&pair) = twin.pairs.keys().nth(n % twin.pairs.len().max(1)) {
                assert!(index.remove(pair.0, pair.1) && twin.remove(pair));
            }
        }
        Op::RemoveMany(from, n) => {
            let from = from % twin.pairs.len().max(1);
            let some: Vec<Pair> = twin
                .pairs
                .keys()
                .copied()
                .skip(from)
                .step_by(3)
                .take(n)
                .collect();
            some.into_iter().for_each(|pair| {
                assert!(index.remove(pair.0, pair.1) && twin.remove(pair));
            });
        }
        Op::RemoveAny(at, id) => assert_eq!(index.remove(at, id), twin.remove((at, id))),
        Op::Pop(now) => pop(index, twin, now),
        Op::PopMany(n) => (0..n).for_each(|_| pop(index, twin, i64::MAX)),
    }
}

proptest! {
    #![proptest_config(ds::cases(64))]

    #[test]
    fn twin(history in prop::collection::vec(ops(), 1..scaled(120, 30))) {
        let (mut index, mut twin) = (Expires::new(), Twin::default());
        for op in history {
            apply(&mut index, &mut twin, op);
            if index.len().is_multiple_of(3) {
                let moved = relocate_all(&mut index);
                prop_assert!(moved as usize >= index.leaves.len());
            }
            check(&index);
        }
        let mut all: Vec<Pair> = index.iter().collect();
        all.sort_unstable();
        for (at, _) in &all {
            let before = all.partition_point(|pair| pair.0 < *at);
            prop_assert_eq!(index.count_before(*at), before);
        }
        prop_assert_eq!(index.count_before(i64::MAX), all.partition_point(|pair| pair.0 < i64::MAX));
        for digit in 0..4 {
            let first = all.iter().copied().find(|pair| pair.1 % 4 == digit);
            prop_assert_eq!(index.first_where(usize::MAX, |id| id % 4 == digit), first);
        }
        prop_assert_eq!(all, twin.sorted());
        while !index.is_empty() {
            pop(&mut index, &mut twin, i64::MAX);
        }
        prop_assert!(twin.pairs.is_empty() && index.memory_bytes() == 0);
    }

    #[test]
    fn find_word_is_position(words in prop::collection::vec(0u32..40, 0..100), word in 0u32..40) {
        prop_assert_eq!(find_word(&words, word), words.iter().position(|&w| w == word));
    }
}

/// If there are more copies of one pair than fit a leaf, they stay together, and all of them are
/// popped.
#[test]
fn the_same_pair_over_and_over() {
    const N: usize = scaled(1000, LEAF_MAX + 20);
    let mut index = Expires::new();
    (0..N).for_each(|_| index.insert(5, 5));
    index.insert(4, 9);
    index.insert(6, 0);
    check(&index);
    assert_eq!(index.pop_due(10), Some((4, 9)));
    (0..N).for_each(|_| assert!(index.remove(5, 5)));
    assert!(!index.remove(5, 5));
    assert_eq!(
        (index.pop_due(5), index.pop_due(6), index.len()),
        (None, Some((6, 0)), 0)
    );
}

fn ids(n: u64) -> impl Iterator<Item = u64> {
    (1..=n).map(|i| {
        let x = (i ^ (i >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    })
}

/// Checks that the index takes at most 14 bytes for each key, for any order of the times.
#[test]
fn the_memory_budget_holds() {
    const N: u64 = scaled(60_000, 1_000) as u64;
    let spread = |id: u64| 1_700_000_000_000 + (id % 3_600_000) as i64;
    for (what, time) in [
        (
            "random",
            Box::new(move |id, _| spread(id)) as Box<dyn Fn(u64, u64) -> i64>,
        ),
        ("same", Box::new(|_, _| 1_700_000_000_000)),
        ("in order", Box::new(|_, n| 1_700_000_000_000 + n as i64)),
    ] {
        let mut index = Expires::new();
        ids(N)
            .zip(0..)
            .for_each(|(id, n)| index.insert(time(id, n), id));
        let each = index.memory_bytes() as f64 / N as f64;
        assert!(each <= 14.0, "{what}: {each} bytes");
    }
}

/// Measures the costs that the header of `expires/mod.rs` states. Run with `--release --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_million_times() {
    const N: u64 = 1_000_000;
    let all: Vec<u64> = ids(N).collect();
    let timed = |what: &str, f: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        f();
        println!(
            "{what:32} {:6.1} ns",
            start.elapsed().as_nanos() as f64 / N as f64
        );
    };
    for (name, spread) in [("over an hour", 3_600_000), ("the same millisecond", 1)] {
        let time = |id: u64| 1_700_000_000_000 + (id % spread) as i64;
        let mut index = Expires::new();
        println!("{name}");
        timed("insert", &mut || {
            all.iter().for_each(|&id| index.insert(time(id), id))
        });
        let bytes = index.memory_bytes() as f64 / N as f64;
        println!("bytes {bytes:.2}, leaves {}", index.leaves.len());
        timed("remove and insert", &mut || {
            all.iter().for_each(|&id| {
                assert!(index.remove(time(id), id));
                index.insert(time(id) + 1, id);
            });
        });
        timed("pop", &mut || while index.pop_due(i64::MAX).is_some() {});
    }
}
