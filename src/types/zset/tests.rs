//! Compares both encodings with a sorted vector.

use super::*;
use proptest::prelude::*;

const SMALL: ZsetLimits = ZsetLimits {
    max_entries: 128,
    max_value: 64,
    seed: HashSeed::new([3, 4]),
};
const NEVER: ZsetLimits = ZsetLimits {
    max_entries: 0,
    ..SMALL
};
const SOON: ZsetLimits = ZsetLimits {
    max_entries: 12,
    ..SMALL
};

type Twin = Vec<(f64, Vec<u8>)>;

fn sort(twin: &mut Twin) {
    twin.sort_by(|a, b| a.partial_cmp(b).unwrap());
}

fn walked(set: &Zset, ranks: Range<usize>, reverse: bool) -> Twin {
    let mut out = Twin::new();
    set.walk(ranks, reverse, |member, score| {
        out.push((score, member.to_vec()))
    });
    out
}

fn compare(set: &Zset, twin: &Twin) {
    assert_eq!(set.len(), twin.len());
    assert_eq!(&walked(set, 0..usize::MAX, false), twin);
    for (rank, (score, member)) in twin.iter().enumerate() {
        assert_eq!(set.score(member), Some(*score));
        assert_eq!(set.rank(member, false), Some((rank, *score)));
        assert_eq!(
            set.rank(member, true),
            Some((twin.len() - 1 - rank, *score))
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, f64, AddFlags),
    Remove(u8),
    Pop(bool, usize),
    RemoveRanks(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let score = prop_oneof![
        (-9i32..9).prop_map(f64::from),
        (-9i32..9).prop_map(|n| f64::from(n) / 10.0),
        prop_oneof![
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(1e300),
            Just(5e18)
        ],
    ];
    let flags = (any::<bool>(), 0u8..5).prop_map(|(incr, kind)| AddFlags {
        nx: kind == 1,
        xx: kind == 2,
        gt: kind == 3,
        lt: kind == 4,
        incr,
    });
    prop_oneof![
        12 => (0u8..60, score, flags).prop_map(|(name, score, flags)| Step::Add(name, score, flags)),
        3 => (0u8..60).prop_map(Step::Remove),
        1 => (any::<bool>(), 0usize..4).prop_map(|(max, n)| Step::Pop(max, n)),
        1 => (0usize..30, 0usize..5).prop_map(|(at, n)| Step::RemoveRanks(at, n)),
    ]
}

/// Half of the names are integers, which a listpack stores in another form.
fn name(number: u8) -> Vec<u8> {
    if number.is_multiple_of(2) {
        number.to_string().into_bytes()
    } else {
        format!("m{number}").into_bytes()
    }
}

fn add(
    set: &mut Zset,
    twin: &mut Twin,
    member: &[u8],
    score: f64,
    flags: AddFlags,
    limits: &ZsetLimits,
) {
    let at = twin.iter().position(|(_, m)| m == member);
    let expected = match at {
        None if flags.xx => Added::Nothing,
        None => {
            twin.push((score, member.to_vec()));
            Added::New(score)
        }
        Some(_) if flags.nx => Added::Nothing,
        Some(at) => {
            let old = twin[at].0;
            let new = if flags.incr { old + score } else { score };
            let allowed = !(flags.gt && new <= old || flags.lt && new >= old);
            match (new.is_nan(), allowed, new == old) {
                (true, ..) => Added::Nan,
                (_, false, _) => Added::Nothing,
                (.., true) => Added::Same(new),
                _ => {
                    twin[at].0 = new;
                    Added::Updated(new)
                }
            }
        }
    };
    assert_eq!(set.add(member, score, flags, limits), expected);
    sort(twin);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_vector(steps in proptest::collection::vec(step(), 1..120), kind in 0usize..3) {
        let limits = [SMALL, NEVER, SOON][kind];
        let mut set = Zset::new(1, &limits);
        let mut twin = Twin::new();
        for step in steps {
            match step {
                Step::Add(number, score, flags) => add(&mut set, &mut twin, &name(number), score, flags, &limits),
                Step::Remove(number) => {
                    let at = twin.iter().position(|(_, m)| *m == name(number));
                    assert_eq!(set.remove(&name(number)), at.map(|at| twin.remove(at).0));
                }
                Step::Pop(from_max, n) => {
                    let mut popped = Twin::new();
                    set.pop(from_max, n, |member, score| popped.push((score, member.to_vec())));
                    let n = n.min(twin.len());
                    let expected: Twin = match from_max {
                        true => twin.drain(twin.len() - n..).rev().collect(),
                        false => twin.drain(..n).collect(),
                    };
                    assert_eq!(popped, expected);
                }
                Step::RemoveRanks(at, n) => {
                    let mut removed = Twin::new();
                    set.remove_ranks(at..at + n, |member, score| removed.push((score, member.to_vec())));
                    let range = at.min(twin.len())..(at + n).min(twin.len());
                    assert_eq!(removed, twin.drain(range).collect::<Twin>());
                }
            }
            compare(&set, &twin);
        }
        if let Zset::Listpack(listpack) = &set && !set.is_empty() {
            let copy = Listpack::from_bytes(listpack.as_bytes()).unwrap();
            compare(&Zset::from_listpack(copy, &NEVER).unwrap(), &twin);
        }
    }

    #[test]
    fn ranges_agree_with_filtering(
        scores in proptest::collection::vec(-6i32..6, 0..60),
        min in -7i32..7,
        max in -7i32..7,
        exclusive in any::<[bool; 2]>(),
        limits_at in (0usize..8, -1i64..8),
        reverse in any::<bool>(),
        kind in 0usize..2,
    ) {
        let limits = [SMALL, NEVER][kind];
        let mut set = Zset::new(1, &limits);
        for (i, score) in scores.iter().enumerate() {
            set.add(&name(i as u8), f64::from(*score), AddFlags::default(), &limits);
        }
        let (min, max) = (f64::from(min), f64::from(max));
        let range = ScoreRange { min, max, min_exclusive: exclusive[0], max_exclusive: exclusive[1] };
        let inside = |score: f64| {
            (score > min || score == min && !exclusive[0]) && (score < max || score == max && !exclusive[1])
        };
        let mut expected: Twin = walked(&set, 0..set.len(), reverse).into_iter().filter(|(s, _)| inside(*s)).collect();
        let ranks = set.score_ranks(&range);
        assert_eq!(ranks.len(), expected.len());
        assert_eq!(walked(&set, ranks.clone(), reverse), expected);
        let (offset, count) = limits_at;
        expected = expected.into_iter().skip(offset).take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
        assert_eq!(walked(&set, limit(ranks, reverse, offset, count), reverse), expected);
    }

    #[test]
    fn lex_ranges_agree_with_filtering(n in 0u8..60, a in 0u8..70, b in 0u8..70, kinds in (0u8..3, 0u8..3), tree in any::<bool>()) {
        let limits = if tree { NEVER } else { SMALL };
        let mut set = Zset::new(1, &limits);
        for i in 0..n {
            set.add(&name(i), 1.0, AddFlags::default(), &limits);
        }
        let (a, b) = (name(a), name(b));
        let bound = |bytes, kind, open| match kind {
            0 => LexBound::Inclusive(bytes),
            1 => LexBound::Exclusive(bytes),
            _ => open,
        };
        let (min, max) = (bound(&a, kinds.0, LexBound::Min), bound(&b, kinds.1, LexBound::Max));
        let expected: Twin = walked(&set, 0..set.len(), false)
            .into_iter()
            .filter(|(_, m)| match min {
                LexBound::Inclusive(bytes) => &m[..] >= bytes,
                LexBound::Exclusive(bytes) => &m[..] > bytes,
                _ => true,
            })
            .filter(|(_, m)| match max {
                LexBound::Inclusive(bytes) => &m[..] <= bytes,
                LexBound::Exclusive(bytes) => &m[..] < bytes,
                _ => true,
            })
            .collect();
        assert_eq!(walked(&set, set.lex_ranks(min, max), false), expected);
        assert!(set.lex_ranks(LexBound::Max, LexBound::Min).is_empty());
    }
}

fn filled(n: u8, limits: &ZsetLimits) -> Zset {
    let mut set = Zset::new(1, limits);
    for i in 0..n {
        set.add(&name(i), f64::from(i), AddFlags::default(), limits);
    }
    set
}

#[test]
fn the_bytes_are_those_of_redis() {
    let mut set = Zset::new(1, &SMALL);
    for (member, score) in [
        ("b", 0.0),
        ("a", -0.0),
        ("7", 1e19),
        ("e", 0.1),
        ("c", 3e18),
        ("g", 5e18),
    ] {
        set.add(member.as_bytes(), score, AddFlags::default(), &SMALL);
    }
    let Zset::Listpack(listpack) = &set else {
        panic!("converted")
    };
    let (int, text) = (Element::Int, |t: &'static str| Element::Str(t.as_bytes()));
    let zeros = [
        text("a"),
        int(0),
        text("b"),
        int(0),
        text("e"),
        text("0.1"),
        text("c"),
        int(3_000_000_000_000_000_000),
    ];
    let large = [text("g"), text("5e+18"), int(7), text("1e+19")];
    assert!(listpack.iter().eq(zeros.into_iter().chain(large)));
}

#[test]
fn converts_at_the_limits() {
    assert_eq!(filled(12, &SOON).encoding(), "listpack");
    assert_eq!(filled(13, &SOON).encoding(), "skiplist");
    let mut set = filled(3, &SMALL);
    set.add(&[b'x'; 64], 1.0, AddFlags::default(), &SMALL);
    assert_eq!(set.encoding(), "listpack");
    set.add(&[b'x'; 65], 1.0, AddFlags::default(), &SMALL);
    assert_eq!(set.encoding(), "skiplist");
}

/// A listpack holds -0 as the integer 0, and the members before the long one were added to a
/// listpack. Valkey looks for the longest member first, and so keeps the sign of -0.
#[test]
fn a_long_member_converts_when_its_turn_comes() {
    let mut set = Zset::new(2, &SMALL);
    set.add(b"a", -0.0, AddFlags::default(), &SMALL);
    set.add(&[b'x'; 65], 1.0, AddFlags::default(), &SMALL);
    assert_eq!(set.encoding(), "skiplist");
    assert!(set.score(b"a").is_some_and(f64::is_sign_positive));
}

#[test]
fn an_accumulated_set_is_packed_if_it_fits() {
    for (n, encoding) in [(12, "listpack"), (13, "skiplist")] {
        let mut sum = Accumulator::new(SOON.seed, Aggregate::Sum);
        for source in [filled(n, &SOON), filled(n - 1, &NEVER)] {
            source.for_each(|member, score| sum.accumulate(member, Aggregate::weigh(score, 2.0)));
        }
        let set = sum.finish(&SOON);
        assert_eq!((set.encoding(), set.len()), (encoding, n as usize));
        assert_eq!(set.score(&name(3)), Some(12.0));
        assert_eq!(set.score(&name(n - 1)), Some(f64::from(n - 1) * 2.0));
    }
    assert_eq!(
        Aggregate::Sum.combine(f64::INFINITY, f64::NEG_INFINITY),
        0.0
    );
    assert_eq!(Aggregate::weigh(f64::INFINITY, 0.0), 0.0);
}

#[test]
fn listpacks_from_outside_are_checked() {
    let load = |elements: &[&str]| {
        let mut listpack = Listpack::new();
        elements.iter().for_each(|e| listpack.append(e.as_bytes()));
        Zset::from_listpack(listpack, &SMALL)
    };
    assert!(load(&[]).is_none());
    assert!(load(&["a"]).is_none());
    assert!(load(&["a", "x"]).is_none());
    assert!(load(&["a", "nan"]).is_none());
    assert!(load(&["a", "1", "a", "2"]).is_none());
    let sorted_again = load(&["b", "2", "a", "1.5"]).unwrap();
    assert_eq!(
        walked(&sorted_again, 0..9, false),
        [(1.5, b"a".to_vec()), (2.0, b"b".to_vec())]
    );
}

#[test]
fn samples_hold_members_and_no_repetition_where_none_is_wanted() {
    for set in [filled(40, &SMALL), filled(40, &NEVER)] {
        for count in [0, 1, 5, 20, 40, 90] {
            let mut state = 7usize;
            let mut below = |n: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let mut seen = HashSet::new();
            set.sample_unique(count, &mut below, |member, _| {
                assert!(seen.insert(member.to_vec()))
            });
            assert_eq!(seen.len(), count.min(40));
            let mut drawn = 0;
            set.sample(count, &mut below, |member, score| {
                assert_eq!(set.score(member), Some(score));
                drawn += 1;
            });
            assert_eq!(drawn, count);
        }
    }
}
