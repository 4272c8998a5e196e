use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Twin = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

fn limits() -> HashLimits {
    HashLimits {
        max_entries: 8,
        max_value: 20,
        seed: HashSeed::new([1, 2]),
    }
}

impl FieldTable {
    /// Checks that the index of expiry times has exactly the times that the fields have.
    fn check(&self) {
        let mut from_fields: Vec<(i64, u64)> = self
            .fields
            .iter()
            .filter_map(|field| Some((field.expire_at()?, self.fields.hash(field.field()))))
            .collect();
        let mut indexed: Vec<(i64, u64)> = self.expires.iter().collect();
        from_fields.sort_unstable();
        indexed.sort_unstable();
        assert_eq!(from_fields, indexed);
        let hidden = indexed.iter().filter(|(at, _)| *at < self.hidden_before);
        assert_eq!(hidden.count(), self.hidden);
    }
}

fn contents(hash: &Hash) -> Twin {
    let mut all = Twin::new();
    hash.for_each(|field, value| {
        let field = field.to_vec();
        let at = hash.expire_at(&field).expect("a field that was shown");
        assert!(
            all.insert(field, (value.to_vec(), at)).is_none(),
            "a field comes once"
        );
    });
    all
}

#[derive(Clone, Debug)]
enum Op {
    Set(Vec<u8>, Vec<u8>, FieldTtl),
    Remove(Vec<u8>),
    Expire(Vec<u8>, Option<i64>),
    Advance(i64),
    /// Hides the fields that expire before the first number (a time in ms), then removes up to the
    /// second number of hidden fields.
    Hide(i64, usize),
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..12u8).prop_map(|n| n.to_string().into_bytes()),
        (0..12u8).prop_map(|n| format!("f{n}").into_bytes()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    let ttl = prop_oneof![
        6 => Just(FieldTtl::Clear),
        2 => Just(FieldTtl::Keep),
        1 => (0..50i64).prop_map(FieldTtl::At),
    ];
    prop_oneof![
        6 => (field(), value, ttl).prop_map(|(f, v, t)| Op::Set(f, v, t)),
        3 => field().prop_map(Op::Remove),
        1 => (field(), prop::option::of(0..50i64)).prop_map(|(f, at)| Op::Expire(f, at)),
        1 => (0..50i64).prop_map(Op::Advance),
        1 => (0..50i64, 0..4usize).prop_map(|(now, n)| Op::Hide(now, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn agrees_with_a_map(ops in prop::collection::vec(op(), 0..80)) {
        let mut hash = Hash::new();
        let mut twin = Twin::new();
        let mut hidden_before = i64::MIN;
        for op in ops {
            match op {
                // Commands delete a field instead of giving it an expiry time that is past, so the
                // test leaves this case out.
                Op::Set(_, _, FieldTtl::At(at)) | Op::Expire(_, Some(at)) if at < hidden_before => {}
                Op::Set(field, value, ttl) => {
                    let was = twin.get(&field).and_then(|(_, at)| *at);
                    let is_new = hash.set(&field, &value, ttl, &limits());
                    let twin_new = twin.insert(field, (value, ttl.after(was))).is_none();
                    prop_assert_eq!(is_new, twin_new);
                }
                Op::Remove(field) => {
                    prop_assert_eq!(hash.remove(&field), twin.remove(&field).is_some());
                }
                Op::Expire(field, at) => {
                    let there = twin.get_mut(&field).map(|(_, was)| *was = at).is_some();
                    prop_assert_eq!(hash.set_expire(&field, at, limits().seed), there);
                }
                Op::Advance(now) => {
                    while let Some(gone) = hash.pop_expired(now) {
                        let at = gone.as_ref().expire_at();
                        prop_assert!(at.is_some_and(|at| at < now));
                        let known = twin.remove(gone.as_ref().field()).is_some();
                        prop_assert!(known || at.is_some_and(|at| at < hidden_before));
                    }
                }
                Op::Hide(now, removed) => {
                    hash.hide_expired(now);
                    if matches!(hash, Hash::Table(_)) {
                        hidden_before = hidden_before.max(now);
                    }
                    twin.retain(|_, (_, at)| at.is_none_or(|at| at >= hidden_before));
                    (0..removed).for_each(|_| drop(hash.pop_expired(now)));
                }
            }
            prop_assert_eq!(hash.len(), twin.len());
            prop_assert_eq!(hash.is_empty(), twin.is_empty());
            if hash.hidden_len() == 0 {
                prop_assert_eq!(hash.next_expiry(), twin.values().filter_map(|(_, at)| *at).min());
            }
            if let Hash::Table(table) = &hash {
                table.check();
            }
        }
        prop_assert_eq!(contents(&hash), contents(&hash.clone()));
        let mut rng = Random::from_seed(1);
        let mut drawn = 0;
        hash.sample_unique(100, &mut rng, |field, _| {
            drawn += 1;
            assert!(twin.contains_key(&field.to_vec()));
        });
        prop_assert_eq!(drawn, twin.len());
        prop_assert_eq!(hash.random(&mut rng).is_some(), !twin.is_empty());
        hash.sample(20, &mut rng, |field, _| assert!(twin.contains_key(&field.to_vec())));
        prop_assert_eq!(contents(&hash), twin);
    }

    #[test]
    fn scan_shows_every_field(count in 0..200usize) {
        let mut hash = Hash::new();
        for n in 0..count {
            hash.set(format!("f{n}").as_bytes(), b"v", FieldTtl::Clear, &limits());
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = hash.scan(cursor, |field, _| {
                seen.insert(field.to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(seen.len(), count);
    }

    #[test]
    fn samples_are_of_the_size_asked_for(len in 1..60usize, count in 0..80usize, seed: u64) {
        let mut hash = Hash::new();
        for n in 0..len {
            hash.set(format!("f{n}").as_bytes(), b"v", FieldTtl::Clear, &limits());
        }
        let mut rng = Random::from_seed(seed);
        let mut seen = std::collections::BTreeSet::new();
        hash.sample_unique(count, &mut rng, |field, _| assert!(seen.insert(field.to_vec())));
        prop_assert_eq!(seen.len(), count.min(len));
        let mut drawn = 0;
        hash.sample(count, &mut rng, |_, _| drawn += 1);
        prop_assert_eq!(drawn, count);
        prop_assert!(hash.random(&mut rng).is_some());
    }
}

#[test]
fn limits_decide_the_encoding() {
    let mut hash = Hash::new();
    for n in 0..8 {
        hash.set(&[b'a' + n], b"1", FieldTtl::Clear, &limits());
    }
    assert_eq!(hash.encoding(), "listpack");
    hash.set(b"a", b"2", FieldTtl::Clear, &limits());
    assert_eq!(hash.encoding(), "listpack");
    hash.set(b"z", b"1", FieldTtl::Clear, &limits());
    assert_eq!(hash.encoding(), "hashtable");

    let mut long = Hash::new();
    long.set(b"a", &[b'x'; 20], FieldTtl::Clear, &limits());
    assert_eq!(long.encoding(), "listpack");
    long.set(b"a", &[b'x'; 21], FieldTtl::Clear, &limits());
    assert_eq!(long.encoding(), "hashtable");
}

/// Checks the budget: 52 bytes for each field of a big hash of small fields.
#[test]
fn a_field_of_a_big_hash_costs_at_most_52_bytes() {
    let mut hash = Hash::new();
    for n in 0..100_000 {
        hash.set(
            format!("field:{n:06}").as_bytes(),
            b"0123456789abcdef",
            FieldTtl::Clear,
            &limits(),
        );
    }
    assert!(
        hash.memory(0) / 100_000 <= 52,
        "{}",
        hash.memory(0) / 100_000
    );
}

#[test]
fn hidden_fields_are_in_files_and_can_be_shown_again() {
    let mut hash = Hash::new();
    hash.set(b"due", b"1", FieldTtl::At(10), &limits());
    hash.set(b"later", b"2", FieldTtl::At(30), &limits());
    hash.set(b"always", b"3", FieldTtl::Clear, &limits());
    let all = contents(&hash);
    hash.hide_expired(20);
    assert_eq!((hash.len(), hash.hidden_len(), hash.total_len()), (2, 1, 3));
    assert_eq!(hash.get(b"due").map(|value| value.to_vec()), None);
    let mut in_files = Twin::new();
    hash.for_each_volatile(|field, value, at| {
        in_files.insert(field.to_vec(), (value.to_vec(), at));
    });
    assert_eq!(in_files, all);
    assert_eq!(hash.volatile_len(), 2);
    hash.show_expired();
    assert_eq!((hash.len(), hash.hidden_len()), (3, 0));
    assert_eq!(contents(&hash), all);
}
