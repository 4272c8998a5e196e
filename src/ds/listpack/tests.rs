use super::*;
use crate::ds;
use crate::ds::scaled;
use proptest::collection::vec;
use proptest::prelude::*;

/// Generates texts whose lengths and values are around all limits of the encodings.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..12),
        4 => (-130i64..=130).prop_map(|int| int.to_string().into_bytes()),
        3 => any::<i64>().prop_map(|int| (int >> (int & 63)).to_string().into_bytes()),
        2 => (60usize..70).prop_map(|len| vec![b'x'; len]),
        1 => (4090usize..4100).prop_map(|len| vec![b'y'; len]),
        1 => (16_370usize..16_390).prop_map(|len| vec![b'z'; len]),
    ]
}

fn of(texts: &[Vec<u8>]) -> Listpack {
    let mut listpack = Listpack::new();
    texts.iter().for_each(|text| listpack.append(&text[..]));
    listpack
}

fn texts(listpack: &Listpack) -> Vec<Vec<u8>> {
    listpack.iter().map(|element| element.to_vec()).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// The expected bytes are those of a list that was pushed into a real server and read with DUMP.
#[test]
fn bytes_are_those_of_a_real_server() {
    let expected = unhex(
        "a6a60000 001c0001 01dfff02 7f01c080 02cfff02 f1001003 d00002f1 ffef03f1 ff7f03f2 00800004
         f1008003 f2ff7fff 04f2ffff 7f04f300 00800005 f2000080 04f3ffff 7fff05f3 ffffff7f 05f40000
         00800000 000009f3 00000080 05f4ffff ff7fffff ffff09f4 ffffffff ffffff7f 09f40000 00000000
         00800993 39323233 33373230 33363835 34373735 38303814 8568656c 6c6f0680 01833030 3704822d
         3003822b 3103ff",
    );
    let pushed = "1 -1 127 128 4095 4096 -4096 -4097 32767 32768 -32768 -32769 8388607 8388608 -8388608 \
        -8388609 2147483647 2147483648 -2147483648 -2147483649 9223372036854775807 -9223372036854775808 \
        9223372036854775808 hello  007 -0 +1";
    let pushed: Vec<Vec<u8>> = pushed.split(' ').map(|t| t.as_bytes().to_vec()).collect();
    let listpack = of(&pushed);
    // A DUMP payload begins with the length of the listpack: a string of 0xa6 bytes.
    assert_eq!(listpack.as_bytes(), &expected[1..]);
    assert_eq!(texts(&listpack), pushed);
}

#[test]
fn backlens_have_the_sizes_of_a_real_server() {
    let tail = |len: usize| {
        let listpack = of(&[vec![b'x'; len]]);
        assert!(validate(listpack.as_bytes(), true));
        let bytes = listpack.as_bytes();
        bytes[bytes.len() - 5..].to_vec()
    };
    assert_eq!(tail(125), b"xxx\x7f\xff");
    assert_eq!(tail(16_377), b"xx\x7f\xfe\xff");
    assert_eq!(tail(16_378), b"x\x00\xff\xff\xff");
    assert_eq!(tail(16_379), b"x\x01\x80\x80\xff");
    for len in [2_097_145, 2_097_146, 2_097_147] {
        let mut listpack = of(&[b"a".to_vec(), vec![b'x'; len], b"b".to_vec()]);
        assert_eq!(
            listpack
                .iter_rev_before(listpack.end())
                .nth(1)
                .unwrap()
                .text_len(),
            len
        );
        listpack.delete_range(1, 1);
        assert_eq!(texts(&listpack), [b"a", b"b"]);
    }
}

#[test]
fn an_empty_one() {
    let mut listpack = Listpack::new();
    assert_eq!(listpack.as_bytes(), b"\x07\0\0\0\0\0\xff");
    assert!(listpack.is_empty());
    assert_eq!((listpack.len(), listpack.memory_bytes()), (0, 8));
    assert_eq!(
        (listpack.first(), listpack.last(), listpack.seek(0)),
        (None, None, None)
    );
    assert_eq!(listpack.find(listpack.end(), b"x", 0), None);
    listpack.delete_range(-1, 5);
    assert!(listpack.iter_rev_before(listpack.end()).next().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "65,536 elements, each added alone")]
fn more_elements_than_the_header_counts() {
    let mut listpack = Listpack::new();
    listpack.append_all((0..65_534).map(|_| Element::Int(7)));
    assert_eq!((listpack.len(), listpack.stored_count()), (65_534, 65_534));
    listpack.append(8);
    listpack.append(9);
    assert_eq!(
        (listpack.len(), listpack.stored_count()),
        (65_536, COUNT_UNKNOWN)
    );
    assert!(validate(listpack.as_bytes(), true));
    assert_eq!(
        listpack.get(listpack.seek(65_535).unwrap()),
        Element::Int(9)
    );
    assert_eq!(listpack.get(listpack.seek(-2).unwrap()), Element::Int(8));
    assert_eq!(listpack.seek(65_536), None);
    listpack.delete_range(0, 65_530);
    assert_eq!(listpack.len(), 6);
    assert!(validate(listpack.as_bytes(), true));
}

#[test]
fn an_integer_stored_as_a_string_elsewhere_is_found() {
    let mut listpack = Listpack::new();
    listpack.append(Element::Str(b"12"));
    assert_eq!(listpack.find(HEADER as Pos, b"12", 0), Some(HEADER as Pos));
    assert_eq!(listpack.get(HEADER as Pos).as_int(), Some(12));
}

/// A real Redis server accepts listpacks with needlessly long lengths in DUMP payloads, and finds
/// their elements.
#[test]
fn a_short_text_with_a_long_head_is_found() {
    let bytes = b"\x16\0\0\0\x03\0\xe0\x00\x02\xe0\x02hi\x04\xf0\x01\0\0\0x\x06\xff";
    let listpack = Listpack::from_bytes(bytes).unwrap();
    for (at, text) in [&b""[..], b"hi", b"x"].into_iter().enumerate() {
        let pos = listpack.seek(at as i64);
        assert_eq!(listpack.find(HEADER as Pos, text, 0), pos, "{text:?}");
    }
    assert_eq!(listpack.find(HEADER as Pos, b"ho", 0), None);
}

#[test]
fn limits_are_known_without_building() {
    assert!(safe_to_add(0, SAFETY_LIMIT) && !safe_to_add(1, SAFETY_LIMIT));
    assert!(!safe_to_add(8, usize::MAX));
    let mut listpack = Listpack::new();
    listpack.append_all((0..10).map(|_| Element::Int(-5000)));
    assert_eq!(estimate_bytes(-5000, 10), listpack.bytes_len());
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Prepend(Vec<u8>),
    InsertBefore(usize, Vec<u8>),
    InsertAfter(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Delete(usize, usize),
    DeleteFromEnd(usize, usize),
    AppendAll(Vec<Vec<u8>>),
    Split(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0usize..40;
    prop_oneof![
        4 => text().prop_map(Step::Append),
        2 => text().prop_map(Step::Prepend),
        2 => (at.clone(), text()).prop_map(|(at, text)| Step::InsertBefore(at, text)),
        2 => (at.clone(), text()).prop_map(|(at, text)| Step::InsertAfter(at, text)),
        3 => (at.clone(), text()).prop_map(|(at, text)| Step::Replace(at, text)),
        2 => (at.clone(), 0usize..4).prop_map(|(at, n)| Step::Delete(at, n)),
        1 => (at.clone(), 0usize..4).prop_map(|(at, n)| Step::DeleteFromEnd(at, n)),
        1 => vec(text(), 0..6).prop_map(Step::AppendAll),
        1 => at.prop_map(Step::Split),
    ]
}

fn apply(listpack: &mut Listpack, twin: &mut Vec<Vec<u8>>, step: Step) {
    let pos = |listpack: &Listpack, at: usize| listpack.seek(at as i64);
    match step {
        Step::Append(text) => {
            listpack.append(&text[..]);
            twin.push(text);
        }
        Step::Prepend(text) => {
            listpack.prepend(&text[..]);
            twin.insert(0, text);
        }
        Step::InsertBefore(at, text) if at < twin.len() => {
            listpack.insert_before(pos(listpack, at).unwrap(), &text[..]);
            twin.insert(at, text);
        }
        Step::InsertAfter(at, text) if at < twin.len() => {
            let new = listpack.insert_after(pos(listpack, at).unwrap(), &text[..]);
            assert_eq!(Some(new), pos(listpack, at + 1));
            twin.insert(at + 1, text);
        }
        Step::Replace(at, text) if at < twin.len() => {
            listpack.replace(pos(listpack, at).unwrap(), &text[..]);
            twin[at] = text;
        }
        Step::Delete(at, n) if at < twin.len() => {
            let next = listpack.delete_n(pos(listpack, at).unwrap(), n);
            twin.drain(at..(at + n).min(twin.len()));
            assert_eq!(next.is_some(), at < twin.len());
        }
        Step::DeleteFromEnd(at, n) if at < twin.len() => {
            listpack.delete_range(-1 - at as i64, n);
            let start = twin.len() - 1 - at;
            twin.drain(start..(start + n).min(twin.len()));
        }
        Step::AppendAll(more) => {
            listpack.append_all(more.iter().map(|text| Element::from(&text[..])));
            twin.extend(more);
        }
        Step::Split(at) if at < twin.len() => {
            let tail = listpack.split_off(pos(listpack, at).unwrap());
            assert!(validate(tail.as_bytes(), true));
            assert_eq!(texts(&tail), twin[at..]);
            listpack.append_listpack(&tail);
        }
        _ => assert!(pos(listpack, 40).is_none() || twin.len() > 40),
    }
}

fn assert_same(listpack: &Listpack, twin: &[Vec<u8>]) {
    assert!(validate(listpack.as_bytes(), true));
    assert_eq!(listpack.len(), twin.len());
    assert_eq!(texts(listpack), twin);
    let back: Vec<Vec<u8>> = listpack
        .iter_rev_before(listpack.end())
        .map(|element| element.to_vec())
        .collect();
    assert!(back.iter().eq(twin.iter().rev()));
    assert_eq!(listpack.as_bytes(), of(twin).as_bytes());
    for (at, text) in twin.iter().enumerate() {
        let pos = listpack.seek(at as i64).unwrap();
        assert_eq!(&listpack.get(pos).to_vec(), text);
        assert_eq!(listpack.seek(at as i64 - twin.len() as i64), Some(pos));
        let first = twin.iter().position(|other| other == text).unwrap();
        let found = listpack.find(listpack.first().unwrap(), text, 0);
        assert_eq!(found, listpack.seek(first as i64));
        let even = twin.iter().step_by(2).position(|other| other == text);
        let found = listpack.find(listpack.first().unwrap(), text, 1);
        assert_eq!(found, even.and_then(|at| listpack.seek(2 * at as i64)));
    }
    assert_eq!(listpack.seek(twin.len() as i64), None);
    assert_eq!(listpack.seek(-1 - twin.len() as i64), None);
}

proptest! {
    #![proptest_config(ds::cases(96))]

    #[test]
    fn histories_match_a_vector(steps in vec(step(), 0..scaled(40, 12))) {
        let (mut listpack, mut twin) = (Listpack::new(), Vec::new());
        for step in steps {
            apply(&mut listpack, &mut twin, step);
        }
        assert_same(&listpack, &twin);
        assert_eq!(Listpack::from_bytes(listpack.as_bytes()).unwrap().as_bytes(), listpack.as_bytes());
        assert_eq!(listpack.clone().as_bytes(), listpack.as_bytes());
    }

    /// A listpack with damaged bytes is refused, or can be read in both directions.
    #[test]
    fn damaged_bytes_do_no_harm(
        list in vec(text(), 0..8),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = of(&list).as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(listpack) = Listpack::from_bytes(&bytes) {
            let there = texts(&listpack);
            prop_assert_eq!(there.len(), listpack.len());
            let mut back: Vec<_> = listpack.iter_rev_before(listpack.end()).map(|element| element.to_vec()).collect();
            back.reverse();
            prop_assert_eq!(there, back);
        }
    }

    #[test]
    fn keys_are_distinguished_by_their_text(
        keys in prop_oneof![vec(0i64..60, 0..40), vec(0i64..100_000, 60..scaled(200, 80))],
        stride in 1usize..4,
        surplus in 0usize..2,
        // Keys of a listpack that differ only in the middle have the same fingerprint.
        long in any::<bool>(),
    ) {
        let mut listpack = Listpack::new();
        for (at, key) in keys.iter().enumerate() {
            match at % 2 {
                _ if long => listpack.append(Element::Str(format!("a sister {key:06} in the middle").as_bytes())),
                0 => listpack.append(*key),
                _ => listpack.append(Element::Str(key.to_string().as_bytes())),
            }
            (1..stride).for_each(|_| listpack.append(7));
        }
        (0..surplus).for_each(|_| listpack.append(-1));
        let distinct: HashSet<_> = keys.iter().collect();
        let whole = surplus == 0 || stride == 1;
        prop_assert_eq!(is_keyed(&listpack, stride), whole && distinct.len() == keys.len());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(body in vec(any::<u8>(), 0..64), honest in any::<bool>()) {
        let mut bytes = vec![0; HEADER];
        bytes.extend(body);
        bytes.push(END);
        if honest {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[4..6].copy_from_slice(&[255, 255]);
        }
        if let Some(listpack) = Listpack::from_bytes(&bytes) {
            prop_assert!(honest);
            prop_assert_eq!(listpack.iter().count(), listpack.iter_rev_before(listpack.end()).count());
        }
    }

    #[test]
    fn samples_are_drawn_from_the_elements(total in 0usize..30, count in 0usize..40, seed in any::<u64>()) {
        let mut listpack = Listpack::new();
        listpack.append_all((0..2 * total as i64).map(Element::Int));
        let mut state = seed;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let mut unique = Vec::new();
        listpack.sample_unique(2, count, &mut below, |pos| unique.push(listpack.get(pos).as_int().unwrap()));
        prop_assert_eq!(unique.len(), count.min(total));
        prop_assert!(unique.is_sorted_by(|a, b| a < b) && unique.iter().all(|int| int % 2 == 0));

        let mut drawn = Vec::new();
        let mut log = Vec::new();
        let mut logged = |n| {
            log.push(below(n));
            log[log.len() - 1]
        };
        listpack.sample(2, count, &mut logged, |pos| drawn.push(listpack.get(pos)));
        let expected: Vec<_> = log.iter().map(|&record| Element::Int(2 * record as i64)).collect();
        prop_assert_eq!(drawn, expected);
        prop_assert_eq!(listpack.random(2, &mut |n| n - 1), listpack.seek(-2));
    }
}

#[test]
#[cfg_attr(miri, ignore = "a statistic of 10,000 samples")]
fn unique_samples_are_fair() {
    let mut listpack = Listpack::new();
    listpack.append_all((0..10).map(Element::Int));
    let mut hits = [0u32; 10];
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..10_000 {
        listpack.sample_unique(1, 3, &mut below, |pos| {
            hits[listpack.get(pos).as_int().unwrap() as usize] += 1;
        });
    }
    assert!(
        hits.iter().all(|&hit| (2_700..3_300).contains(&hit)),
        "{hits:?}"
    );
}
