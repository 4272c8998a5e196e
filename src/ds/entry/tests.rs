use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::ds;
use crate::ds::scaled;

type Payload = Rc<[u8; 3]>;

impl super::Payload for Payload {}
impl super::Payload for u64 {}
impl super::Payload for [u64; 3] {}

fn look(entry: &Entry<Payload>) -> (Vec<u8>, u8, u32, Option<i64>, OwnedValue<Payload>) {
    let look = entry.as_ref();
    let value = match look.value() {
        ValueRef::Int(n) => OwnedValue::Int(n),
        ValueRef::Str(s) => OwnedValue::Str(s.into()),
        ValueRef::Obj(v) => OwnedValue::Obj(v.clone()),
        ValueRef::Packed(_) => unreachable!(),
    };
    (
        look.key().to_vec(),
        look.kind(),
        look.lru(),
        look.expire_at(),
        value,
    )
}

/// A value from which a test can build several entries.
#[derive(Clone, Debug)]
enum Made {
    Int(i64),
    Str(Vec<u8>),
    Obj(Payload),
}

impl Made {
    fn value(&self) -> NewValue<'_, Payload> {
        match self {
            Made::Int(n) => NewValue::Int(*n),
            Made::Str(s) => NewValue::Str(s),
            Made::Obj(v) => NewValue::Obj(v.clone()),
        }
    }

    fn owned(&self) -> OwnedValue<Payload> {
        match self {
            Made::Int(n) => OwnedValue::Int(*n),
            Made::Str(s) => OwnedValue::Str(s.as_slice().into()),
            Made::Obj(v) => OwnedValue::Obj(v.clone()),
        }
    }
}

fn size(key: usize, expire: bool, value: NewValue<'_, [u64; 3]>) -> usize {
    let entry = Entry::new(&vec![b'k'; key], 0, 0, expire.then_some(1), value);
    entry.as_ref().alloc_size()
}

#[test]
fn the_memory_budget_holds() {
    assert_eq!(size(16, false, NewValue::Str(&[0; 16])), 40);
    assert_eq!(size(16, true, NewValue::Str(&[0; 16])), 48);
    assert_eq!(size(16, false, NewValue::Int(1)), 32);
    assert_eq!(size(16, true, NewValue::Int(1)), 40);
    assert_eq!(size(16, false, NewValue::Str(b"")), 24);
    assert_eq!(size(16, false, NewValue::Obj([0; 3])), 48);
    assert_eq!(size_of::<Option<Entry<u64>>>(), 8);
}

#[test]
fn size_classes_are_those_of_the_allocator() {
    let classes: Vec<usize> = (1..=640).map(size_class).collect();
    let mut distinct = classes.clone();
    distinct.dedup();
    let expected = [
        8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512,
        640,
    ];
    assert_eq!(distinct, expected);
    assert!(classes.iter().enumerate().all(|(n, &class)| class > n));
}

/// Tests key lengths around the limit of the long form, and value lengths around their limits, with
/// and without expiry.
#[test]
fn round_trips_at_the_boundaries() {
    let obj: Payload = Rc::new([1, 2, 3]);
    let lengths = (0..=INLINE_MAX).step_by(scaled(1, 16));
    let mut values: Vec<Made> = lengths.map(|n| Made::Str(vec![n as u8; n])).collect();
    values.extend([i64::MIN, -1, 0, 1, i64::MAX].map(Made::Int));
    values.push(Made::Obj(obj.clone()));
    for key_len in [
        0, 1, 2, 7, 8, 9, 15, 16, 253, 254, 255, 256, 257, 1000, 70_000,
    ] {
        let key = ds::numbered(key_len);
        for expire in [None, Some(i64::MIN), Some(-1), Some(i64::MAX)] {
            for value in &values {
                let entry = Entry::new(&key, 0xa7, 0xabcdef, expire, value.value());
                assert_eq!(
                    look(&entry),
                    (key.clone(), 0xa7, 0xabcdef, expire, value.owned())
                );
                assert!(entry.as_ref().alloc_size() >= HEADER + key_len);
                assert_eq!(entry.into_value(), value.owned());
            }
        }
    }
    drop(values);
    assert_eq!(Rc::strong_count(&obj), 1, "no leak, no double drop");
}

#[test]
#[should_panic]
fn a_string_above_the_limit_is_a_bug() {
    Entry::<u64>::new(b"k", 0, 0, None, NewValue::Str(&[0; INLINE_MAX + 1]));
}

#[test]
fn overwrite() {
    let mut entry: Entry<Payload> = Entry::new(&[b'k'; 16], 1, 2, None, NewValue::Str(&[b'v'; 16]));
    let address = entry.as_ref().addr();
    assert!(
        entry.as_mut().try_overwrite(&NewValue::Str(&[b'w'; 17])),
        "40 bytes hold 7 + 16 + 17"
    );
    assert!(!entry.as_mut().try_overwrite(&NewValue::Str(&[b'w'; 18])));
    assert!(
        !entry.as_mut().try_overwrite(&NewValue::Str(&[b'w'; 9])),
        "would waste a class"
    );
    assert!(
        !entry.as_mut().try_overwrite(&NewValue::Int(1)),
        "would waste a class"
    );
    assert!(
        !entry
            .as_mut()
            .try_overwrite(&NewValue::Str(&[0; INLINE_MAX + 1]))
    );
    assert!(
        !entry
            .as_mut()
            .try_overwrite(&NewValue::Obj(Rc::new([0; 3])))
    );
    assert_eq!(entry.as_ref().value(), ValueRef::Str(&[b'w'; 17]));
    assert_eq!(
        (entry.as_ref().addr(), entry.as_ref().alloc_size()),
        (address, 40)
    );
    let mut entry: Entry<Payload> =
        Entry::new(&[b'k'; 16], 1, 2, Some(3), NewValue::Str(b"12345678"));
    assert!(entry.as_mut().try_overwrite(&NewValue::Int(-5)));
    assert_eq!(
        look(&entry),
        (vec![b'k'; 16], 1, 2, Some(3), OwnedValue::Int(-5))
    );
    let mut entry = Entry::new(b"k", 0, 0, None, NewValue::Obj(Rc::new([0; 3])));
    assert!(
        !entry.as_mut().try_overwrite(&NewValue::Int(0)),
        "the payload would leak"
    );
}

#[test]
fn changes_in_place() {
    let mut entry: Entry<Payload> = Entry::new(b"key", 0, 0, Some(5), NewValue::Str(b"abc"));
    let mut m = entry.as_mut();
    m.set_lru(0xffff_ffff);
    m.set_lru(0x2100_0001);
    m.set_kind(0xff);
    assert!(m.set_expire_at(-9));
    if let ValueMut::Str(s) = m.value_mut() {
        s.reverse();
    }
    let expected = (
        b"key".to_vec(),
        0xff,
        0x0100_0001,
        Some(-9),
        OwnedValue::Str((*b"cba").into()),
    );
    assert_eq!(look(&entry), expected, "an LRU has 29 bits");
    let mut entry: Entry<Payload> = Entry::new(b"key", 0, 0, None, NewValue::Int(7));
    assert!(!entry.as_mut().set_expire_at(1), "no room");
    if let ValueMut::Int(mut n) = entry.as_mut().into_value_mut() {
        n.set(n.get() * -6);
    }
    assert_eq!(
        look(&entry),
        (b"key".to_vec(), 0, 0, None, OwnedValue::Int(-42))
    );
    let mut entry: Entry<Payload> = Entry::new(b"key", 0, 0, None, NewValue::Obj(Rc::new([9; 3])));
    if let ValueMut::Obj(v) = entry.as_mut().into_value_mut() {
        *v = Rc::new([4; 3]);
    }
    assert_eq!(entry.into_value(), OwnedValue::Obj(Rc::new([4; 3])));
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        any::<i64>().prop_map(Made::Int),
        prop::collection::vec(any::<u8>(), 0..=INLINE_MAX).prop_map(Made::Str),
        any::<[u8; 3]>().prop_map(|bytes| Made::Obj(Rc::new(bytes))),
    ]
}

proptest! {
    #![proptest_config(ds::cases(128))]

    /// A chain of changes of value or expiry time keeps all other parts of the entry, and drops
    /// each payload once.
    #[test]
    fn conversions(
        key in prop::collection::vec(any::<u8>(), 0..400),
        steps in prop::collection::vec((prop::option::of(made()), prop::option::of(any::<i64>())), 0..scaled(12, 6)),
    ) {
        let first: Payload = Rc::new([0; 3]);
        let mut twin = (key.clone(), 3, 77, None, OwnedValue::Obj(first.clone()));
        let mut entry = Entry::new(&key, 3, 77, None, NewValue::Obj(first.clone()));
        for (n, (value, expire)) in steps.iter().enumerate() {
            if let Some(value) = value {
                entry = entry.with_value(n as u8, value.value());
                (twin.1, twin.4) = (n as u8, value.owned());
            } else {
                entry = entry.with_expire(*expire);
                twin.3 = *expire;
            }
            prop_assert_eq!(look(&entry), twin.clone());
        }
        drop((entry, twin));
        prop_assert_eq!(Rc::strong_count(&first), 1);
        for (value, _) in &steps {
            if let Some(Made::Obj(v)) = value {
                prop_assert_eq!(Rc::strong_count(v), 1);
            }
        }
    }
}

/// Measures SET on a key with a 16-byte value, for `INLINE_MAX`. Run with `--release --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_rewrite_by_length() {
    let mut boxed: Vec<Box<[u8]>> = (0..4096).map(|_| Box::default()).collect();
    for len in [16, 32, 64, 96, 128, 192, 255] {
        let (a, b) = (
            vec![1; len.min(INLINE_MAX)],
            vec![2; len.min(INLINE_MAX) / 2],
        );
        let start = std::time::Instant::now();
        let mut entry: Entry<u64> = Entry::new(&[b'k'; 16], 0, 0, None, NewValue::Int(0));
        for n in 0..1_000_000 {
            entry = entry.with_value(0, NewValue::Str(if n % 2 == 0 { &a } else { &b }));
        }
        let inline = start.elapsed().as_nanos() as f64 / 1e6;
        let (a, b) = (vec![1u8; len], vec![2u8; len / 2]);
        let start = std::time::Instant::now();
        for n in 0..1_000_000usize {
            boxed[n * 31 % 4096] = if n % 2 == 0 { a.as_slice() } else { &b }.into();
        }
        let separate = start.elapsed().as_nanos() as f64 / 1e6;
        println!("{len:4} bytes: inline {inline:5.1} ns, separate {separate:5.1} ns");
    }
}
