//! Compares generated histories of a sorted set's tree with a `BTreeSet`.

use super::*;
use crate::ds;
use crate::ds::member::Member;
use crate::ds::scaled;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// The tree, the owner of its members, and a `BTreeSet` with the same members.
#[derive(Default)]
struct Pair {
    tree: ZsetTree,
    owners: HashMap<Vec<u8>, Member>,
    twin: BTreeSet<(u64, Vec<u8>)>,
}

impl Pair {
    fn put(&mut self, score: f64, name: &[u8]) {
        if let Some(member) = self.owners.get(name) {
            self.twin.remove(&(order(member.score()), name.to_vec()));
            // SAFETY: every owned member is in the tree.
            unsafe { self.tree.update(member.as_ptr(), score) };
            assert_eq!(self.owners[name].score(), score);
        } else {
            let member = Member::new(score, name);
            // SAFETY: the member is removed from the tree before `owners` drops it.
            unsafe { self.tree.insert(member.as_ptr()) };
            self.owners.insert(name.to_vec(), member);
        }
        self.twin.insert((order(score), name.to_vec()));
    }

    fn take(&mut self, name: &[u8]) {
        let Some(member) = self.owners.get(name) else {
            assert!(self.tree.remove(1.0, name).is_none());
            return;
        };
        let score = member.score();
        assert!(self.tree.remove(score, name) == Some(member.as_ptr()));
        assert!(self.tree.remove(score, name).is_none());
        self.owners.remove(name);
        self.twin.remove(&(order(score), name.to_vec()));
    }

    fn take_range(&mut self, ranks: Range<usize>) {
        let expected: Vec<_> = self
            .twin
            .iter()
            .skip(ranks.start)
            .take(ranks.len())
            .cloned()
            .collect();
        let mut names = Vec::new();
        let owners = &mut self.owners;
        let count = self.tree.remove_range(ranks, |member| {
            // SAFETY: `owners` still owns the member that the tree passes.
            let name = unsafe { member.bytes() }.to_vec();
            owners.remove(&name);
            names.push(name);
        });
        assert_eq!(count, names.len());
        assert!(expected.iter().map(|(_, name)| name).eq(&names));
        for pair in expected {
            self.twin.remove(&pair);
        }
    }

    fn compare(&self) {
        self.tree.check();
        assert_eq!(self.tree.len(), self.twin.len());
        let same = |(item, (order_, name)): (Item, &(u64, Vec<u8>))| {
            order(item.score) == *order_ && item.bytes == name
        };
        assert!(self.tree.iter().zip(&self.twin).all(same));
        assert!(self.tree.iter().rev().zip(self.twin.iter().rev()).all(same));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(f64, u16),
    Take(u16),
    TakeRange(u16, u16),
}

/// The number of different member names in a generated history.
const NAMES: u16 = scaled(3000, 400) as u16;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let score = prop_oneof![
        4 => (-50i32..50).prop_map(f64::from),
        2 => -1e6..1e6,
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.0), Just(-0.0), Just(5e-324)],
    ];
    let step = prop_oneof![
        30 => (score, 0..NAMES).prop_map(|(score, name)| Step::Put(score, name)),
        6 => (0..NAMES).prop_map(Step::Take),
        1 => (0..NAMES * 2 / 3, 0..NAMES / 10).prop_map(|(start, n)| Step::TakeRange(start, n)),
    ];
    proptest::collection::vec(step, 1..scaled(1500, 200))
}

fn name(number: u16) -> Vec<u8> {
    format!("m{number}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ds::cases(48) })]

    #[test]
    fn agrees_with_an_ordered_set(steps in steps(), checked_every in scaled(1, 20)..200) {
        let mut pair = Pair::default();
        for (i, step) in steps.iter().enumerate() {
            match *step {
                Step::Put(score, number) => pair.put(score, &name(number)),
                Step::Take(number) => pair.take(&name(number)),
                Step::TakeRange(start, n) => pair.take_range(start as usize..start as usize + n as usize),
            }
            if i % checked_every == 0 {
                pair.compare();
            }
        }
        pair.compare();
        for (rank, (_, name)) in pair.twin.iter().enumerate() {
            assert_eq!(pair.tree.rank_of(pair.owners[name].score(), name), Some(rank));
            assert_eq!(pair.tree.get(rank).unwrap().bytes, name);
        }
    }

    #[test]
    fn bounds_agree_with_counting(
        scores in proptest::collection::vec(-30i8..30, 0..scaled(600, 250)),
        probes in proptest::collection::vec(-32i8..32, 1..20),
        same_score in any::<bool>(),
    ) {
        let mut pair = Pair::default();
        for (i, score) in scores.iter().enumerate() {
            pair.put(if same_score { 7.0 } else { f64::from(*score) }, &name(i as u16));
        }
        let count = |keep: &dyn Fn(&Item) -> bool| pair.tree.iter().filter(keep).count();
        for probe in probes {
            let score = f64::from(probe);
            assert_eq!(pair.tree.lower_bound(&Probe::before_score(score)), count(&|i| i.score < score));
            assert_eq!(pair.tree.lower_bound(&Probe::after_score(score)), count(&|i| i.score <= score));
            if same_score {
                let bytes = name(probe.unsigned_abs() as u16 * 11);
                assert_eq!(pair.tree.lower_bound(&Probe::before_lex(&bytes)), count(&|i| i.bytes < &bytes[..]));
                assert_eq!(pair.tree.lower_bound(&Probe::after_lex(&bytes)), count(&|i| i.bytes <= &bytes[..]));
            }
        }
    }
}

/// A deterministic sequence of numbers without a pattern (splitmix64).
fn numbers() -> impl Iterator<Item = u64> {
    let mut state = 0u64;
    std::iter::from_fn(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    })
}

fn build(scores: impl Iterator<Item = f64>) -> (ZsetTree, Vec<Member>) {
    let mut tree = ZsetTree::new();
    let members: Vec<Member> = scores
        .enumerate()
        .map(|(i, score)| Member::new(score, format!("member:{i:09}").as_bytes()))
        .collect();
    for member in &members {
        // SAFETY: the caller of `build` drops the tree and the members together, and the tree reads
        // no member while it is dropped.
        unsafe { tree.insert(member.as_ptr()) };
    }
    (tree, members)
}

#[test]
#[cfg_attr(miri, ignore = "a figure of 100,000 members")]
fn bytes_per_member() {
    let n = 100_000;
    let (random, _members) = build(numbers().take(n).map(|x| (x >> 12) as f64));
    assert!(
        random.memory_bytes() < n * 14,
        "random: {}",
        random.memory_bytes() as f64 / n as f64
    );
    let (rising, _members) = build((0..n).map(|i| i as f64));
    assert!(
        rising.memory_bytes() < n * 13,
        "rising: {}",
        rising.memory_bytes() as f64 / n as f64
    );
    let (equal, _members) = build((0..n).map(|_| 1.0));
    assert!(
        equal.memory_bytes() < n * 13,
        "equal: {}",
        equal.memory_bytes() as f64 / n as f64
    );
}

#[test]
fn a_bulk_build_equals_inserts() {
    for n in [
        0,
        1,
        2,
        126,
        127,
        252,
        scaled(5_000, 600),
        scaled(30_000, 1_000),
    ] {
        let members: Vec<Member> = (0..n).map(|i| Member::new(i as f64, b"x")).collect();
        let pointers: Vec<MemberPtr> = members.iter().map(Member::as_ptr).collect();
        // SAFETY: `members` outlives the tree's last use.
        let tree = unsafe { ZsetTree::from_sorted(&pointers) };
        tree.check();
        assert!(tree.iter().map(|item| item.score as usize).eq(0..n));
    }
}

#[test]
fn both_ends_meet_in_the_middle() {
    let (tree, _members) = build((0..1000).map(f64::from));
    let mut iter = tree.range(100..900);
    let mut expected = 100..900;
    for step in 0.. {
        let (got, want) = if step % 3 == 0 {
            (iter.next_back(), expected.next_back())
        } else {
            (iter.next(), expected.next())
        };
        assert_eq!(got.map(|item| item.score as usize), want);
        if want.is_none() {
            break;
        }
    }
}

#[test]
fn big_range_deletions_leave_a_sound_tree() {
    const PART: usize = scaled(1, 40);
    let (mut tree, mut members) = build(numbers().take(60_000 / PART).map(|x| (x % 1_000) as f64));
    members.sort_by(|a, b| (order(a.score()), a.bytes()).cmp(&(order(b.score()), b.bytes())));
    for (start, end) in [
        (10, 20_000 / PART),
        (0, 5),
        (15_000 / PART, 15_000 / PART + 1),
        (100, 39_000 / PART),
        (500 / PART, 90_000),
    ] {
        let end_of_set = end.min(tree.len());
        let mut removed = 0;
        tree.remove_range(start..end, |member| {
            assert!(member == members[start + removed].as_ptr());
            removed += 1;
        });
        members.drain(start..end_of_set);
        tree.check();
        assert_eq!(tree.len(), members.len());
    }
}
