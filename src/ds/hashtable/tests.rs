//! Tests of the hash table: random histories compared with std's maps, SCAN's guarantee, the
//! fairness of random picks, counts of dropped elements, measured costs.
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::entry::{Entry, NewValue, Payload, ValueMut, ValueRef};
use super::*;
use crate::ds;
use crate::ds::scaled;
use crate::sys::mover::Mover;

const SEED: HashSeed = HashSeed::new([0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978]);

type Keys = HashTable<Entry<Counted>>;

/// The number of different keys in a random history of operations.
const KEYS: u32 = scaled(2000, 60) as u32;

/// A payload of entries that counts its living instances.
struct Counted(Rc<Cell<isize>>, i64);

impl Payload for Counted {}

impl Counted {
    fn new(live: &Rc<Cell<isize>>, value: i64) -> Self {
        live.set(live.get() + 1);
        Counted(live.clone(), value)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Resets the policy for resizing at the end of a test: the policy belongs to the thread, and the
/// next test may run in the same thread.
struct AllowAtEnd;

impl Drop for AllowAtEnd {
    fn drop(&mut self) {
        set_resize_policy(ResizePolicy::Allow);
    }
}

fn name(key: u32) -> Vec<u8> {
    format!("key:{key:012}").into_bytes()
}

fn number(key: u32, value: i64) -> Entry<Counted> {
    Entry::new(&name(key), 0, 0, None, NewValue::Int(value))
}

fn number_of(entry: super::super::entry::EntryRef<'_, Counted>) -> i64 {
    match entry.value() {
        ValueRef::Int(n) => n,
        ValueRef::Obj(counted) => counted.1,
        ValueRef::Str(_) | ValueRef::Packed(_) => panic!("no strings here"),
    }
}

fn filled(n: u32) -> Keys {
    let mut table = Keys::new(SEED);
    for key in 0..n {
        table.insert_new(SEED.hash(&name(key)), number(key, key.into()));
    }
    table
}

fn remove(table: &mut Keys, key: u32) -> bool {
    table.remove(SEED.hash(&name(key)), &name(key)).is_some()
}

/// Compares the table's counts with a walk over its elements. Checks that chains are dense and all
/// elements are in their home chains.
fn check(table: &Keys) {
    let stats = table.stats();
    let target = stats.rehash_target.clone().unwrap_or_default();
    assert_eq!(stats.main.elements + target.elements, table.len());
    assert_eq!(table.iter().count(), table.len());
    let mut children = 0;
    for (t, part) in table.tables.iter().enumerate() {
        for index in 0..part.buckets() {
            let len = part.chain_len(index);
            assert!(len <= part.longest());
            let buckets = part.chain(index).count();
            children += buckets - 1;
            assert_eq!(
                buckets,
                if len <= SLOTS {
                    1
                } else {
                    1 + (len - SLOTS).div_ceil(SLOTS - 1)
                }
            );
            for bucket in part.chain(index) {
                for slot in 0..bucket.count() {
                    // SAFETY: the table is borrowed, and a pointer in a slot is to a live element.
                    let hash = SEED.hash(unsafe { Entry::<Counted>::key(bucket.get(slot)) });
                    let home = table.home(hash);
                    assert_eq!(
                        (home.table, home.index, tag_of(hash)),
                        (t, index, bucket.tag(slot))
                    );
                }
            }
        }
    }
    assert_eq!(children, stats.main.children + target.children);
    assert_eq!(table.memory_bytes(), (table.buckets() + children) * 64);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    InsertNew(u32),
    Slot(u32),
    Replace(u32),
    Change(u32),
    Remove(u32),
    RemoveSlot(u32),
    RemoveBy(u32),
    RemoveRange(u32, u32),
    Policy(ResizePolicy),
    Reserve(usize),
    Rehash(usize),
    Clear,
}

fn ops() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS;
    let policy = prop_oneof![
        Just(ResizePolicy::Allow),
        Just(ResizePolicy::Avoid),
        Just(ResizePolicy::Forbid)
    ];
    prop_oneof![
        10 => key().prop_map(Op::Insert),
        20 => key().prop_map(Op::InsertNew),
        10 => key().prop_map(Op::Slot),
        5 => key().prop_map(Op::Replace),
        5 => key().prop_map(Op::Change),
        10 => key().prop_map(Op::Remove),
        5 => key().prop_map(Op::RemoveSlot),
        5 => key().prop_map(Op::RemoveBy),
        1 => (key(), 0..KEYS * 3 / 4).prop_map(|(from, n)| Op::RemoveRange(from, n)),
        1 => policy.prop_map(Op::Policy),
        1 => (0..scaled(3000, 300)).prop_map(Op::Reserve),
        2 => (0usize..20).prop_map(Op::Rehash),
        1 => prop_oneof![9 => Just(Op::Rehash(1)), 1 => Just(Op::Clear)],
    ]
}

/// A table under test, a map of std with the same elements (the twin), and the number of living
/// payloads.
struct History {
    table: Keys,
    twin: HashMap<u32, i64>,
    live: Rc<Cell<isize>>,
    clock: i64,
}

impl History {
    /// Moves buckets and entries by `relocate`, and checks that each entry is passed to the
    /// visitor.
    fn relocate(&mut self) {
        let (mut mover, mut cursor, mut seen) = (Mover::of_everything(), 0, 0);
        loop {
            mover.begin_step(5);
            cursor = self.table.relocate(cursor, &mut mover, |entry, _| {
                seen += 1;
                let key = entry.key().to_vec();
                let n: u32 = String::from_utf8_lossy(&key[4..]).parse().unwrap();
                assert_eq!(number_of(entry.as_ref()), self.twin[&n]);
            });
            if cursor == 0 {
                break;
            }
        }
        assert!(seen >= self.twin.len());
    }

    fn new() -> Self {
        let (table, twin, live) = (Keys::new(SEED), HashMap::new(), Rc::default());
        History {
            table,
            twin,
            live,
            clock: 0,
        }
    }

    fn element(&mut self, key: u32) -> Entry<Counted> {
        self.clock += 1;
        Entry::new(
            &name(key),
            0,
            0,
            None,
            NewValue::Obj(Counted::new(&self.live, self.clock)),
        )
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Insert(key) => {
                let element = self.element(key);
                let old = self.table.insert(SEED.hash(&name(key)), element);
                assert_eq!(
                    old.map(|e| number_of(e.as_ref())),
                    self.twin.insert(key, self.clock)
                );
            }
            Op::InsertNew(key) => self.insert_absent(key),
            Op::Slot(key) => self.upsert(key),
            Op::Replace(key) => {
                self.clock += 1;
                let (clock, live) = (self.clock, self.live.clone());
                let make =
                    |e: Entry<Counted>| e.with_value(1, NewValue::Obj(Counted::new(&live, clock)));
                let found = self
                    .table
                    .replace_with(SEED.hash(&name(key)), &name(key), make);
                assert_eq!(found, self.twin.get_mut(&key).map(|v| *v = clock).is_some());
            }
            Op::Change(key) => self.change(key),
            Op::Remove(key) => {
                let old = self.table.remove(SEED.hash(&name(key)), &name(key));
                assert_eq!(old.map(|e| number_of(e.as_ref())), self.twin.remove(&key));
            }
            Op::RemoveSlot(key) => match self.table.find_slot(SEED.hash(&name(key)), &name(key)) {
                Slot::Occupied(slot) => {
                    assert_eq!(
                        Some(number_of(slot.remove().as_ref())),
                        self.twin.remove(&key)
                    );
                }
                Slot::Vacant(_) => assert!(!self.twin.contains_key(&key)),
            },
            Op::RemoveBy(key) => {
                let hash = SEED.hash(&name(key));
                let found = self.table.remove_by(hash, |e| e.key() == name(key));
                assert_eq!(found.map(|e| number_of(e.as_ref())), self.twin.remove(&key));
            }
            Op::RemoveRange(from, n) => (from..from + n).for_each(|key| {
                assert_eq!(
                    remove(&mut self.table, key),
                    self.twin.remove(&key).is_some()
                );
            }),
            Op::Policy(policy) => set_resize_policy(policy),
            Op::Reserve(n) => self.table.reserve(n),
            Op::Rehash(steps) => {
                self.table.rehash_steps(steps);
            }
            Op::Clear => {
                self.table.clear();
                self.twin.clear();
            }
        }
    }

    fn insert_absent(&mut self, key: u32) {
        if !self.twin.contains_key(&key) {
            let element = self.element(key);
            let entry = self.table.insert_new(SEED.hash(&name(key)), element);
            assert_eq!(entry.key(), name(key));
            self.twin.insert(key, self.clock);
        }
    }

    fn upsert(&mut self, key: u32) {
        let element = self.element(key);
        match self.table.find_slot(SEED.hash(&name(key)), &name(key)) {
            Slot::Occupied(mut slot) => {
                let old = slot.replace(element);
                assert_eq!(
                    Some(number_of(old.as_ref())),
                    self.twin.insert(key, self.clock)
                );
                assert_eq!(number_of(slot.get()), self.clock);
            }
            Slot::Vacant(slot) => {
                assert_eq!(number_of(slot.insert(element).into_ref()), self.clock);
                assert_eq!(self.twin.insert(key, self.clock), None);
            }
        }
    }

    fn change(&mut self, key: u32) {
        self.clock += 1;
        let found = self.table.find_mut(SEED.hash(&name(key)), &name(key));
        let changed = found.is_some_and(|mut entry| match entry.value_mut() {
            ValueMut::Obj(counted) => {
                counted.1 = self.clock;
                true
            }
            _ => false,
        });
        assert_eq!(
            changed,
            self.twin.get_mut(&key).map(|v| *v = self.clock).is_some()
        );
    }

    fn compare(&self) {
        assert_eq!(self.table.len(), self.twin.len());
        assert_eq!(self.live.get(), self.twin.len() as isize);
        for (&key, &value) in &self.twin {
            let hash = SEED.hash(&name(key));
            self.table.prefetch_bucket(hash);
            self.table.prefetch_entry(hash);
            assert_eq!(
                self.table.find(hash, &name(key)).map(number_of),
                Some(value)
            );
            let by = self.table.find_by(hash, |e| e.key() == name(key));
            assert_eq!(by.map(number_of), Some(value));
            assert!(self.table.find_by(hash, |_| false).is_none());
        }
        check(&self.table);
    }
}

proptest! {
    #![proptest_config(ds::cases(48))]

    #[test]
    fn twin(seed in prop::option::of(0..KEYS * 5 / 4), history in prop::collection::vec(ops(), 1..scaled(600, 50))) {
        let _allow = AllowAtEnd;
        let mut h = History::new();
        (0..seed.unwrap_or(0)).for_each(|key| h.insert_absent(key % KEYS));
        for (n, op) in history.into_iter().enumerate() {
            h.apply(op);
            if n % 20 == 7 {
                h.relocate();
            }
            if n % 100 == 0 {
                h.compare();
            }
        }
        h.compare();
        let live = h.live.clone();
        drop(h);
        prop_assert_eq!(live.get(), 0);
    }

    /// The keys 0..stable exist from the first call of SCAN to the last; other keys are added and
    /// removed between the calls.
    #[test]
    fn scan_returns_what_was_there_all_along(
        stable in 1..KEYS / 5,
        waves in prop::collection::vec((0..KEYS, any::<bool>(), 0usize..40), 1..scaled(30, 10)),
        warm in 0..KEYS,
    ) {
        let mut table = filled(stable.max(warm));
        let mut seen = HashSet::new();
        let (mut cursor, mut calls) = (0, 0);
        for wave in waves.iter().cycle() {
            cursor = table.scan(cursor, |e| {
                seen.insert(number_of(e));
            });
            calls += 1;
            if cursor == 0 {
                break;
            }
            prop_assert!(calls < 100_000);
            if calls % 7 == 0 {
                scan_wave(&mut table, stable, *wave);
            }
        }
        prop_assert!((0..i64::from(stable)).all(|key| seen.contains(&key)));
    }
}

/// Between two calls of SCAN: adds up to `to` keys to the stable keys, or removes these keys, and
/// rehashes for some steps.
fn scan_wave(table: &mut Keys, stable: u32, (to, grow, steps): (u32, bool, usize)) {
    for key in stable..stable + to {
        let there = table.find(SEED.hash(&name(key)), &name(key)).is_some();
        if grow && !there {
            table.insert_new(SEED.hash(&name(key)), number(key, key.into()));
        } else if !grow && there {
            remove(table, key);
        }
    }
    table.rehash_steps(steps);
}

/// Compares keys with lengths around the limit of the inlined comparison, with a difference at each
/// byte.
#[test]
fn same_key_looks_at_every_byte() {
    for len in 0..40 {
        let key = vec![b'k'; len];
        assert!(same_key(&key, &key.clone()) && !same_key(&key, &vec![b'k'; len + 1]));
        for n in 0..len {
            let mut other = key.clone();
            other[n] = b'x';
            assert!(!same_key(&key, &other));
        }
    }
}

/// A scan of a table that is not changed returns each element exactly once.
#[test]
fn scan_at_rest_is_exact() {
    for n in [0, 1, 9, 10, 100, KEYS] {
        let mut table = filled(n);
        while table.rehash_steps(100) {}
        let (mut seen, mut cursor) = (Vec::new(), 0);
        loop {
            cursor = table.scan(cursor, |e| seen.push(number_of(e)));
            if cursor == 0 {
                break;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..i64::from(n)).collect::<Vec<_>>());
    }
}

/// Any cursor that a client sends is harmless.
#[test]
fn scan_takes_any_cursor() {
    let table = filled(KEYS / 2);
    for cursor in [u64::MAX, 1 << 63, 12345, 0xffff_0000] {
        table.scan(cursor, |_| ());
    }
}

#[test]
fn a_table_allocates_with_its_first_element() {
    let mut table = Keys::new(SEED);
    assert_eq!(
        (table.memory_bytes(), table.buckets(), table.len()),
        (0, 0, 0)
    );
    assert!(table.find(1, b"k").is_none() && table.remove(1, b"k").is_none());
    assert!(table.random(&mut SmallRng::seed_from_u64(1)).is_none());
    assert_eq!(table.iter().count(), 0);
    table.insert(SEED.hash(&name(1)), number(1, 1));
    assert_eq!(table.memory_bytes(), 64);
    assert!(remove(&mut table, 1));
    assert_eq!(table.memory_bytes(), 64, "the next one needs no allocation");
    (0..KEYS).for_each(|key| _ = table.insert(SEED.hash(&name(key)), number(key, 1)));
    assert!((0..KEYS).all(|key| remove(&mut table, key)));
    assert_eq!(table.memory_bytes(), 64);
}

#[test]
fn a_table_shrinks_to_what_is_left() {
    const N: u32 = scaled(10_000, 100) as u32;
    let mut table = filled(N);
    (10..N).for_each(|key| assert!(remove(&mut table, key)));
    while table.rehash_steps(100) {}
    assert_eq!(table.len(), 10);
    assert!(table.capacity() <= 10 * SHRINK_FACTOR);
    check(&table);
}

#[test]
fn reserve_spares_the_rehash() {
    const N: usize = scaled(5000, 60);
    let mut table = Keys::new(SEED);
    table.reserve(N);
    let buckets = table.buckets();
    (0..N as u32).for_each(|key| {
        table.insert_new(SEED.hash(&name(key)), number(key, 0));
        assert!(!table.is_rehashing());
    });
    assert_eq!(table.buckets(), buckets);
}

#[test]
fn policies_hold_a_resize_back() {
    let mut table = filled(9);
    let _allow = AllowAtEnd;
    set_resize_policy(ResizePolicy::Forbid);
    (9..100).for_each(|key| drop(table.insert(SEED.hash(&name(key)), number(key, 0))));
    assert_eq!(table.buckets(), 1);
    set_resize_policy(ResizePolicy::Avoid);
    table.insert(SEED.hash(&name(100)), number(100, 0));
    assert!(
        table.buckets() > 1,
        "far above the load that Avoid tolerates"
    );
    set_resize_policy(ResizePolicy::Allow);
    let mut table = filled(9);
    set_resize_policy(ResizePolicy::Avoid);
    (9..45).for_each(|key| drop(table.insert(SEED.hash(&name(key)), number(key, 0))));
    assert_eq!(table.buckets(), 1);
    set_resize_policy(ResizePolicy::Allow);
    table.insert(SEED.hash(&name(45)), number(45, 0));
    assert!(table.is_rehashing());
    set_resize_policy(ResizePolicy::Forbid);
    assert!(!table.rehash_steps(100) && table.is_rehashing());
    set_resize_policy(ResizePolicy::Allow);
    assert!(!table.rehash_for(Duration::from_secs(1)) && !table.is_rehashing());
    check(&table);
}

/// Keys with the same hash, as if the seed were known, make the table slow, but correct.
#[test]
fn equal_hashes_share_a_chain() {
    const N: u32 = scaled(300, 20) as u32;
    let mut table = Keys::new(SEED);
    let _allow = AllowAtEnd;
    set_resize_policy(ResizePolicy::Forbid);
    (0..N).for_each(|key| {
        table.insert_new(42, number(key, key.into()));
    });
    (0..N).for_each(|key| {
        assert_eq!(table.find(42, &name(key)).map(number_of), Some(key.into()));
    });
    let mut rng = SmallRng::seed_from_u64(7);
    let picked: HashSet<i64> = (0..scaled(20_000, 400))
        .filter_map(|_| table.random(&mut rng))
        .map(number_of)
        .collect();
    assert_eq!(picked.len(), N as usize);
    (0..N)
        .rev()
        .step_by(2)
        .for_each(|key| assert!(table.remove(42, &name(key)).is_some()));
    (0..N).for_each(|key| {
        assert_eq!(table.find(42, &name(key)).is_some(), key % 2 == 0);
    });
    (0..N)
        .step_by(2)
        .for_each(|key| assert!(table.remove(42, &name(key)).is_some()));
    assert_eq!((table.len(), table.stats().main.children), (0, 0));
}

/// Computes chi-square of random picks over all elements, without and while rehashing, and in a
/// table that is not allowed to shrink. For d degrees of freedom the statistic has mean d and
/// deviation sqrt(2d); seven deviations do not occur by chance.
#[test]
#[cfg_attr(miri, ignore = "a statistic of 200,000 draws")]
fn random_is_fair() {
    let mut resting = filled(700);
    while resting.rehash_steps(100) {}
    let mut moving = filled(1153);
    assert!(moving.rehash_steps(30), "128 buckets hold 1152");
    let mut sparse = filled(1000);
    let _allow = AllowAtEnd;
    set_resize_policy(ResizePolicy::Forbid);
    (100..1000).for_each(|key| assert!(remove(&mut sparse, key)));
    for (table, seed) in [(resting, 1), (moving, 2), (sparse, 3)] {
        const DRAWS_EACH: usize = 100;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut counts: HashMap<i64, usize> = HashMap::new();
        for _ in 0..DRAWS_EACH * table.len() {
            *counts
                .entry(number_of(table.random(&mut rng).unwrap()))
                .or_default() += 1;
        }
        let square = |n: usize| (n as f64 - DRAWS_EACH as f64).powi(2) / DRAWS_EACH as f64;
        let chi: f64 = counts.values().map(|&n| square(n)).sum::<f64>()
            + (table.len() - counts.len()) as f64 * square(0);
        let d = (table.len() - 1) as f64;
        assert!(
            (chi - d).abs() < 7.0 * (2.0 * d).sqrt(),
            "chi-square {chi} for {d} degrees"
        );
    }
}

/// A random pick finds the single element in a large table that was not allowed to shrink.
#[test]
fn random_finds_the_last_element() {
    const N: u32 = scaled(20_000, 60) as u32;
    let mut table = filled(N);
    let _allow = AllowAtEnd;
    set_resize_policy(ResizePolicy::Forbid);
    (1..N).for_each(|key| assert!(remove(&mut table, key)));
    let mut rng = SmallRng::seed_from_u64(5);
    assert_eq!(table.random(&mut rng).map(number_of), Some(0));
}

#[test]
fn drain_hands_out_and_drops_the_rest() {
    const N: usize = scaled(500, 60);
    const TAKEN: usize = N / 4;
    let mut h = History::new();
    (0..N as u32).for_each(|key| h.insert_absent(key));
    let mut all = h.table.drain();
    let taken: Vec<_> = all.by_ref().take(TAKEN).collect();
    let figures = (all.len(), h.live.get(), h.table.len());
    assert_eq!(figures, (N - TAKEN, N as isize, 0));
    drop(all);
    assert_eq!(h.live.get(), TAKEN as isize);
    drop(taken);
    assert_eq!(h.live.get(), 0);
    h.twin.clear();
    (0..KEYS / 10).for_each(|key| h.insert_absent(key));
    h.compare();
}

/// Measures the costs that the header of `hashtable/mod.rs` states, with a million keys of 16
/// bytes. Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_million_keys() {
    const N: u32 = 1_000_000;
    let key = |n: u32| format!("key:{n:012}").into_bytes();
    let timed = |what: &str, f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        println!(
            "{what:32} {:6.1} ns",
            start.elapsed().as_nanos() as f64 / f64::from(N)
        );
    };
    let mut table: HashTable<Entry<u64>> = HashTable::new(SEED);
    let mut order: Vec<u32> = (0..N).collect();
    let mut state = 1u64;
    for i in (1..order.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    let keys: Vec<Vec<u8>> = order.iter().map(|&n| key(n)).collect();
    let hashes: Vec<u64> = keys.iter().map(|k| SEED.hash(k)).collect();
    let mut sum = 0u64;
    timed("hash of 16 bytes", &mut || {
        keys.iter().for_each(|k| sum ^= SEED.hash(k))
    });
    timed("insert_new", &mut || {
        for n in 0..N {
            let k = key(n);
            let value = NewValue::Str(b"0123456789abcdef");
            table.insert_new(SEED.hash(&k), Entry::new(&k, 0, 0, None, value));
        }
    });
    println!(
        "buckets {} children {}",
        table.buckets(),
        table.stats().main.children
    );
    println!(
        "table bytes per key {:.2}",
        table.memory_bytes() as f64 / f64::from(N)
    );
    timed("find hit", &mut || {
        for (k, &h) in keys.iter().zip(&hashes) {
            sum += u64::from(
                table
                    .find(h, k)
                    .is_some_and(|e| e.value() != ValueRef::Int(0)),
            );
        }
    });
    timed("find hit, prefetched", &mut || {
        for window in keys.chunks(16).zip(hashes.chunks(16)) {
            window.1.iter().for_each(|&h| table.prefetch_bucket(h));
            window.1.iter().for_each(|&h| table.prefetch_entry(h));
            for (k, &h) in window.0.iter().zip(window.1) {
                sum += u64::from(
                    table
                        .find(h, k)
                        .is_some_and(|e| e.value() != ValueRef::Int(0)),
                );
            }
        }
    });
    timed("find miss", &mut || {
        for (k, &h) in keys.iter().zip(&hashes) {
            sum += u64::from(table.find(h.rotate_left(17), k).is_some());
        }
    });
    timed("remove", &mut || {
        for (k, &h) in keys.iter().zip(&hashes) {
            sum += u64::from(table.remove(h, k).is_some());
        }
    });
    assert!(sum > 0 && table.is_empty());
}

/// While a large table rehashes, a walk over its elements must not begin with the buckets that have
/// been moved.
#[test]
fn a_walk_begins_behind_what_has_moved() {
    let grows = |table: &Keys| table.is_rehashing() && table.buckets() > scaled(100, 30);
    let mut table = Keys::new(SEED);
    let mut keys = 0..2000;
    while !grows(&table) {
        let key = keys.next().expect("a table that grows by now");
        table.insert_new(SEED.hash(&name(key)), number(key, key.into()));
    }
    while table.rehash_at < 10 {
        table.rehash_steps(1);
    }
    assert!(table.is_rehashing());
    assert_eq!(table.iter().walk.index, table.rehash_at);
    assert_eq!(table.iter().count(), table.len());
}
