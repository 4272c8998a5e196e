use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Twin = BTreeSet<Vec<u8>>;

fn limits() -> SetLimits {
    SetLimits {
        max_intset: 10,
        max_listpack: 8,
        max_value: 12,
        seed: HashSeed::new([1, 2]),
    }
}

fn set_of(members: &Twin) -> Set {
    let mut set = Set::new_intset();
    for member in members {
        assert!(set.add(member, &limits()));
    }
    set
}

fn contents(set: &Set) -> Twin {
    let mut all = Twin::new();
    set.for_each(|member| assert!(all.insert(member.to_vec()), "a member comes once"));
    all
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (-20..20i64).prop_map(|n| n.to_string().into_bytes()),
        1 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        2 => (0..20u8).prop_map(|n| format!("m{n}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..16),
    ]
}

fn members(max: usize) -> impl Strategy<Value = Twin> {
    prop::collection::btree_set(member(), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn agrees_with_a_set(ops in prop::collection::vec((any::<u8>(), member()), 0..60)) {
        let mut set = Set::new_intset();
        let mut twin = Twin::new();
        for (op, member) in ops {
            if op < 170 {
                prop_assert_eq!(set.add(&member, &limits()), twin.insert(member));
            } else {
                prop_assert_eq!(set.remove(&member), twin.remove(&member));
            }
            prop_assert_eq!(set.len(), twin.len());
            prop_assert_eq!(set.is_empty(), twin.is_empty());
        }
        for member in &twin {
            prop_assert!(set.contains(member));
        }
        prop_assert_eq!(contents(&set), twin.clone());
        prop_assert_eq!(contents(&set.clone()), twin);
    }

    #[test]
    fn intersections_agree(a in members(60), b in members(60), c in members(60), limit in 1..40usize) {
        let sets = [set_of(&a), set_of(&b), set_of(&c)];
        let mut by_size: Vec<&Set> = sets.iter().collect();
        by_size.sort_by_key(|set| set.len());
        let mut common = Twin::new();
        intersect(&by_size, |member| {
            assert!(common.insert(member.to_vec()));
            if common.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let expected: Twin = a.iter().filter(|m| b.contains(*m) && c.contains(*m)).cloned().collect();
        prop_assert!(common.is_subset(&expected));
        prop_assert_eq!(common.len(), expected.len().min(limit));
    }

    #[test]
    fn pop_takes_what_it_shows(twin in members(60), count in 0..60usize, seed: u64) {
        prop_assume!(count < twin.len());
        let mut set = set_of(&twin);
        let mut gone = Twin::new();
        set.pop(count, &mut Random::from_seed(seed), &limits(), |member| {
            assert!(gone.insert(member.to_vec()));
        });
        prop_assert_eq!(gone.len(), count);
        let left: Twin = twin.difference(&gone).cloned().collect();
        prop_assert_eq!(contents(&set), left);
    }

    #[test]
    fn samples_are_of_the_size_asked_for(twin in members(60), count in 0..80usize, seed: u64) {
        let set = set_of(&twin);
        let mut rng = Random::from_seed(seed);
        let mut seen = Twin::new();
        set.sample_unique(count, &mut rng, |member| assert!(seen.insert(member.to_vec())));
        prop_assert_eq!(seen.len(), count.min(twin.len()));
        let mut drawn = 0;
        set.sample(count, &mut rng, |member| drawn += usize::from(twin.contains(&member.to_vec())));
        prop_assert_eq!(drawn, if twin.is_empty() { 0 } else { count });
    }

    #[test]
    fn scan_shows_every_member(twin in members(80)) {
        let set = set_of(&twin);
        let (mut seen, mut cursor) = (Twin::new(), 0);
        loop {
            cursor = set.scan(cursor, |member| {
                seen.insert(member.to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(seen, twin);
    }
}

#[test]
fn limits_decide_the_encoding() {
    let add = |set: &mut Set, member: &str| set.add(member.as_bytes(), &limits());
    let mut set = Set::new_intset();
    (0..10).for_each(|n| assert!(add(&mut set, &n.to_string())));
    assert_eq!(set.encoding(), "intset");
    add(&mut set, "10");
    assert_eq!(set.encoding(), "hashtable");

    let mut set = Set::new_intset();
    (0..7).for_each(|n| assert!(add(&mut set, &n.to_string())));
    add(&mut set, "a");
    assert_eq!(set.encoding(), "listpack");
    add(&mut set, "b");
    assert_eq!(set.encoding(), "hashtable");

    let mut set = Set::new_listpack();
    add(&mut set, "123456789012");
    assert_eq!(set.encoding(), "listpack");
    set.pack(&limits());
    assert_eq!(set.encoding(), "intset");
    add(&mut set, "abcdefghijklm");
    assert_eq!(set.encoding(), "hashtable");
}

/// SINTERSTORE of two tables: a result of integers is an intset.
#[test]
fn results_of_integers_become_intsets() {
    let table_of = |members: &[&str]| {
        let mut set = Set::new_table(limits().seed);
        members
            .iter()
            .for_each(|member| assert!(set.add(member.as_bytes(), &limits())));
        set.pack(&limits());
        set.encoding()
    };
    assert_eq!(table_of(&["1", "-5", "70000"]), "intset");
    assert_eq!(table_of(&["1", "x", "70000"]), "hashtable");
    assert_eq!(
        table_of(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]),
        "hashtable"
    );
}

/// Every member of a big set is drawn about equally often. Chi-square with 63 degrees of freedom
/// exceeds 130 for only one seed in a million, and the seed is fixed.
#[test]
fn draws_are_fair() {
    let mut set = Set::new_table(HashSeed::new([3, 4]));
    (0..64).for_each(|n| assert!(set.add(format!("m{n}").as_bytes(), &limits())));
    let mut rng = Random::from_seed(7);
    let mut counts = std::collections::BTreeMap::<Vec<u8>, f64>::new();
    for _ in 0..400 {
        set.sample_unique(16, &mut rng, |member| {
            *counts.entry(member.to_vec()).or_default() += 1.0
        });
        set.sample_unique(4, &mut rng, |member| {
            *counts.entry(member.to_vec()).or_default() += 1.0
        });
    }
    let expected = 400.0 * 20.0 / 64.0;
    let chi: f64 = counts
        .values()
        .map(|n| (n - expected).powi(2) / expected)
        .sum();
    assert_eq!(counts.len(), 64);
    assert!(chi < 130.0, "{chi}");
}

/// Checks the budget: 34 bytes for each member of a big set of small members.
#[test]
fn a_member_of_a_big_set_costs_at_most_34_bytes() {
    let mut set = Set::new_intset();
    (0..130_000).for_each(|n| assert!(set.add(format!("member:{n:08}").as_bytes(), &limits())));
    assert!(set.memory(0) / 130_000 <= 34, "{}", set.memory(0) / 130_000);
}
