//! Compares generated histories of a stream with a vector.

use super::*;
use crate::ds;
use crate::ds::relocate::relocate_all;
use crate::ds::scaled;
use proptest::prelude::*;

type Row = (StreamId, Vec<(Vec<u8>, Vec<u8>)>);

const LIMITS: NodeLimits = NodeLimits {
    max_bytes: 4096,
    max_entries: 7,
};

fn row(entry: StreamEntry) -> Row {
    (
        entry.id,
        entry
            .fields()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    )
}

fn compare(log: &StreamLog, twin: &[Row]) {
    let rows: Vec<Row> = log.range(StreamId::MIN, StreamId::MAX).map(row).collect();
    assert_eq!(rows, twin);
    let mut reversed: Vec<Row> = log
        .rev_range(StreamId::MIN, StreamId::MAX)
        .map(row)
        .collect();
    reversed.reverse();
    assert_eq!(reversed, twin);
    assert_eq!(log.len(), twin.len() as u64);
    assert_eq!(
        log.first_id(),
        twin.first().map_or(StreamId::MIN, |row| row.0)
    );
    let mut loaded = StreamLog::new();
    for (&id, node) in log.nodes() {
        let copy = Listpack::from_bytes(node.as_bytes()).unwrap();
        assert!(loaded.insert_node(id, copy));
    }
    assert!(loaded.finish_load(
        log.len(),
        log.last_id(),
        log.max_deleted_id(),
        log.entries_added()
    ));
    assert!(loaded.range(StreamId::MIN, StreamId::MAX).map(row).eq(rows));
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        ms_step: u64,
        names: u8,
        values: Vec<u8>,
    },
    Delete(usize),
    TrimLen(u64, bool),
    TrimId(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u64..3, 0u8..4, proptest::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(ms_step, names, values)| Step::Add { ms_step, names, values }),
        4 => any::<usize>().prop_map(Step::Delete),
        1 => (0u64..40, any::<bool>()).prop_map(|(n, exact)| Step::TrimLen(n, exact)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, exact)| Step::TrimId(at, exact)),
    ]
}

fn trim(log: &mut StreamLog, twin: &mut Vec<Row>, trim: Trim, exact: bool) {
    let wanted = match trim {
        Trim::MaxLen(max) => twin.len().saturating_sub(max as usize),
        Trim::MinId(min) => twin.iter().filter(|row| row.0 < min).count(),
    };
    let precision = if exact {
        Precision::Exact
    } else {
        Precision::Approximate { limit: Some(20) }
    };
    let removed = log.trim(trim, precision) as usize;
    if exact {
        assert_eq!(removed, wanted);
    } else {
        assert!(removed <= wanted.min(20));
    }
    twin.drain(..removed);
}

proptest! {
    #![proptest_config(ds::cases(128))]

    #[test]
    fn agrees_with_a_vector(steps in proptest::collection::vec(step(), 1..scaled(150, 16))) {
        let mut log = StreamLog::new();
        let mut twin: Vec<Row> = Vec::new();
        let mut now = 5;
        let mut max_deleted = StreamId::MIN;
        for step in steps {
            match step {
                Step::Add { ms_step, names, values } => {
                    now += ms_step;
                    let fields: Vec<(Vec<u8>, Vec<u8>)> = values
                        .iter()
                        .enumerate()
                        .map(|(i, v)| (format!("{}", names as usize + i).into_bytes(), vec![b'0' + v % 10; *v as usize]))
                        .collect();
                    let argv: Vec<&[u8]> = fields.iter().flat_map(|(n, v)| [&n[..], &v[..]]).collect();
                    let id = log.append(NewId::Auto, now, &argv, LIMITS).unwrap();
                    assert_eq!(log.last_id(), id);
                    twin.push((id, fields));
                }
                Step::Delete(at) if !twin.is_empty() => {
                    let (id, _) = twin.remove(at % twin.len());
                    assert!(log.delete(id));
                    assert!(!log.delete(id) && !log.contains(id));
                    max_deleted = max_deleted.max(id);
                }
                Step::Delete(_) => assert!(!log.delete(StreamId::new(1, 1))),
                Step::TrimLen(n, exact) => trim(&mut log, &mut twin, Trim::MaxLen(n), exact),
                Step::TrimId(at, exact) => {
                    let id = twin.get(at % (twin.len() + 1)).map_or(log.last_id(), |row| row.0);
                    trim(&mut log, &mut twin, Trim::MinId(id), exact);
                }
            }
            if twin.len().is_multiple_of(3) {
                let moved = relocate_all(&mut log);
                assert!(moved as usize >= log.node_count());
            }
            assert_eq!(log.max_deleted_id(), max_deleted);
            compare(&log, &twin);
        }
        for (at, (id, _)) in twin.iter().enumerate() {
            assert!(log.range(*id, StreamId::MAX).map(row).eq(twin[at..].iter().cloned()));
            assert!(log.rev_range(StreamId::MIN, *id).map(row).eq(twin[..=at].iter().rev().cloned()));
        }
    }

    #[test]
    fn bytes_from_outside_never_panic(bytes in proptest::collection::vec(any::<i8>(), 0..30)) {
        let mut node = Listpack::new();
        node.append_all(bytes.iter().map(|&b| Element::Int(i64::from(b % 5))));
        load(StreamId::new(1, 1), node);
    }

    /// A node of a stream in which some elements were replaced is refused, or its entries are read
    /// consistently in both directions.
    #[test]
    fn damaged_nodes_do_no_harm(
        entries in proptest::collection::vec((0u8..4, 1usize..4), 1..12),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), -3i64..9), 1..4),
    ) {
        let mut log = StreamLog::new();
        for (at, (name, fields)) in (1u64..).zip(entries) {
            let name = name.to_string();
            add(&mut log, StreamId::new(at, at), &vec![name.as_bytes(); 2 * fields]);
        }
        let third = log.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).nth(2);
        third.map(|id| log.delete(id));
        for (&id, node) in log.nodes() {
            let mut node = node.clone();
            for (at, int) in &damage {
                let at = node.seek(at.index(node.len()) as i64).unwrap();
                node.replace(at, *int);
            }
            load(id, node);
        }
    }
}

fn load(id: StreamId, node: Listpack) {
    let mut log = StreamLog::new();
    if !log.insert_node(id, node) {
        return;
    }
    let forwards: Vec<Row> = log.range(StreamId::MIN, StreamId::MAX).map(row).collect();
    assert!(forwards.is_sorted_by(|a, b| a.0 < b.0));
    compare(&log, &forwards);
    let last = forwards.last().map_or(StreamId::MIN, |row| row.0);
    assert_eq!(log.last_id(), last);
    assert!(
        log.clone()
            .finish_load(forwards.len() as u64, last, last, 1)
    );
    assert!(
        !log.clone()
            .finish_load(forwards.len() as u64 + 1, last, last, 1)
    );
    for row in &forwards {
        assert!(log.delete(row.0));
    }
    assert!(log.is_empty());
}

/// A stream node whose listpack elements are given as words; words that are numbers become
/// integers.
fn node(elements: &str) -> Listpack {
    let mut node = Listpack::new();
    let texts = elements.split_whitespace();
    node.append_all(texts.map(|text| Element::from(text.as_bytes())));
    node
}

#[test]
fn each_element_of_a_node_is_checked() {
    let accepts =
        |elements: &str| StreamLog::new().insert_node(StreamId::new(5, 5), node(elements));
    let master = "2 1 1 name 0";
    let entries = "2 0 0 a 4 | 3 9 9 b 4 | 0 7 -5 1 other c 6".replace('|', "");
    assert!(accepts(&format!("{master} {entries}")));
    for bad in [
        "",
        "2 1",
        "1 1 1 name 0",
        "3 0 1 name 0",
        "2 1 2 name 0",
        "2 1 1 name 1",
        "2 1 -1 name 0",
        "2 1 9223372036854775807 name 0",
        "2 1 1 name x",
    ] {
        assert!(!accepts(&format!("{bad} {entries}")), "{bad}");
    }
    for bad in [
        "2 0 0 a 5",
        "2 0 0 a",
        "2 x 0 a 4",
        "x 0 0 a 4",
        "2 -1 0 a 4",
        "2 0 -1 a 4",
        "0 0 0 -1 4",
        "0 0 0 9223372036854775807 a 4",
        "0 0 0 2 a b 6",
    ] {
        assert!(accepts("1 0 1 name 0 2 0 0 a 4"));
        assert!(!accepts(&format!("1 0 1 name 0 {bad}")), "{bad}");
    }
    // The IDs of a node's entries must ascend, except those of deleted entries.
    assert!(accepts("2 0 1 name 0 2 0 0 a 4 2 0 1 a 4"));
    assert!(!accepts("2 0 1 name 0 2 0 1 a 4 2 0 1 a 4"));
    assert!(accepts("1 1 1 name 0 3 0 1 a 4 2 0 1 a 4"));
}

#[test]
fn nodes_must_follow_each_other() {
    let mut log = StreamLog::new();
    let with = |last: u64| node(&format!("2 0 1 name 0 2 0 0 a 4 2 0 {last} a 4"));
    assert!(log.insert_node(StreamId::new(1, 0), with(9)));
    assert!(!log.insert_node(StreamId::new(1, 9), with(9)));
    assert!(!log.insert_node(StreamId::new(1, 0), with(9)));
    assert!(log.insert_node(StreamId::new(1, 10), with(3)));
    assert_eq!((log.len(), log.first_id()), (4, StreamId::new(1, 0)));
    assert!(
        !log.clone()
            .finish_load(4, StreamId::new(1, 12), StreamId::MIN, 4)
    );
    assert!(
        !log.clone()
            .finish_load(3, StreamId::new(1, 13), StreamId::MIN, 4)
    );
    assert!(log.finish_load(4, StreamId::new(1, 13), StreamId::MIN, 4));
}

/// XADD 1-1, 2-2, 3-3, XDEL 3-3, XSETID 2-2, XADD 2-5: the deleted entry's ID is above that of the
/// next entry.
#[test]
fn a_deleted_entry_above_a_later_one_hides_nothing() {
    let mut log = StreamLog::new();
    (1..4).for_each(|i| add(&mut log, StreamId::new(i, i), &[b"a", b"1"]));
    assert!(log.delete(StreamId::new(3, 3)));
    log.set_last_id(StreamId::new(2, 2));
    add(&mut log, StreamId::new(2, 5), &[b"a", b"1"]);
    let ids = |range: Range<'_>| -> Vec<u64> { range.map(|entry| entry.id.seq).collect() };
    let end = StreamId::new(2, 9);
    assert_eq!(ids(log.range(StreamId::MIN, end)), [1, 2, 5]);
    assert_eq!(ids(log.rev_range(StreamId::new(2, 0), end)), [5, 2]);
    assert!(log.contains(StreamId::new(2, 5)));
    let (&id, node) = log.nodes().next().unwrap();
    let mut copy = StreamLog::new();
    assert!(copy.insert_node(id, node.clone()));
    assert!(copy.finish_load(3, StreamId::new(2, 5), StreamId::new(3, 3), 4));
}

fn add(log: &mut StreamLog, id: StreamId, fields: &[&[u8]]) {
    assert_eq!(log.append(NewId::Exact(id), 0, fields, LIMITS), Ok(id));
}

#[test]
fn the_bytes_are_those_of_redis() {
    let mut log = StreamLog::new();
    add(&mut log, StreamId::new(1, 1), &[b"a", b"1"]);
    add(&mut log, StreamId::new(1, 3), &[b"a", b"x"]);
    add(&mut log, StreamId::new(9, 0), &[b"b", b"y", b"c", b"z"]);
    let (&id, node) = log.nodes().next().unwrap();
    assert_eq!(id, StreamId::new(1, 1));
    let int = Element::Int;
    let text = Element::from;
    let expected = [
        vec![int(3), int(0), int(1), text(b"a"), int(0)],
        vec![int(2), int(0), int(0), int(1), int(4)],
        vec![int(2), int(0), int(2), text(b"x"), int(4)],
        vec![
            int(0),
            int(8),
            int(-1),
            int(2),
            text(b"b"),
            text(b"y"),
            text(b"c"),
            text(b"z"),
            int(8),
        ],
    ];
    assert!(node.iter().eq(expected.into_iter().flatten()));
}

#[test]
fn ids_follow_the_rules_of_xadd() {
    let mut log = StreamLog::new();
    assert_eq!(log.next_id(NewId::AutoSeq(0), 9), Ok(StreamId::new(0, 1)));
    assert_eq!(
        log.next_id(NewId::Exact(StreamId::MIN), 9),
        Err(AddError::IdTooSmall)
    );
    assert_eq!(log.next_id(NewId::Auto, 9), Ok(StreamId::new(9, 0)));
    log.set_last_id(StreamId::new(10, u64::MAX));
    assert_eq!(log.next_id(NewId::Auto, 9), Ok(StreamId::new(11, 0)));
    assert_eq!(
        log.next_id(NewId::AutoSeq(10), 9),
        Err(AddError::IdTooSmall)
    );
    assert_eq!(log.next_id(NewId::AutoSeq(9), 9), Err(AddError::IdTooSmall));
    assert_eq!(log.next_id(NewId::AutoSeq(12), 9), Ok(StreamId::new(12, 0)));
    log.set_last_id(StreamId::MAX);
    assert_eq!(log.next_id(NewId::Auto, 9), Err(AddError::Exhausted));
}

#[test]
fn an_id_reads_back_as_it_is_written() {
    for id in [StreamId::MIN, StreamId::MAX, StreamId::new(1, 2)] {
        let mut text = IdBuf::new();
        assert_eq!(StreamId::parse(id.format(&mut text), 7), Some(id));
        assert_eq!(StreamId::from_bytes(id.to_bytes()), id);
    }
    assert_eq!(StreamId::parse(b"5", 7), Some(StreamId::new(5, 7)));
    for text in [
        &b""[..],
        b"-",
        b"1-",
        b"-1",
        b"1-2-3",
        b"1 ",
        b"18446744073709551616",
    ] {
        assert_eq!(StreamId::parse(text, 0), None);
    }
}

#[test]
#[cfg_attr(miri, ignore = "a figure of 10,000 entries")]
fn a_small_entry_costs_18_bytes() {
    let mut log = StreamLog::new();
    let limits = NodeLimits {
        max_bytes: 4096,
        max_entries: 100,
    };
    for i in 0..10_000u64 {
        let fields: [&[u8]; 2] = [b"field", b"value"];
        log.append(NewId::Auto, 1_700_000_000_000 + i, &fields, limits)
            .unwrap();
    }
    assert!(
        log.memory_bytes() < 10_000 * 19,
        "{}",
        log.memory_bytes() as f64 / 1e4
    );
}

/// More entries than any stream that these tests trim has.
const LONG: usize = scaled(60, 20);

proptest! {
    #![proptest_config(ds::cases(128))]

    /// Trims streams in which some entries must stay. Exact trimming removes the oldest entries
    /// that may be removed; approximate trimming removes the same entries as exact trimming to the
    /// resulting length.
    #[test]
    fn trimming_passes_over_what_must_stay(
        deleted in proptest::collection::vec(any::<bool>(), 1..LONG),
        stays in proptest::collection::vec(any::<bool>(), LONG),
        target in 0..LONG as u64,
        by_id: bool,
    ) {
        let id = |i: usize| StreamId::new(i as u64 + 1, 0);
        let mut log = StreamLog::new();
        (0..deleted.len()).for_each(|i| add(&mut log, id(i), &[b"a", b"1"]));
        (0..deleted.len()).filter(|&i| deleted[i]).for_each(|i| assert!(log.delete(id(i))));
        let may_go = |id: StreamId| !stays[id.ms as usize - 1];
        let trim = match by_id {
            true => Trim::MinId(StreamId::new(target, 0)),
            false => Trim::MaxLen(target),
        };
        let before: Vec<Row> = log.range(StreamId::MIN, StreamId::MAX).map(row).collect();
        let expected: Vec<StreamId> = before
            .iter()
            .map(|row| row.0)
            .filter(|&id| may_go(id) && (!by_id || id.ms < target))
            .take(if by_id { usize::MAX } else { before.len().saturating_sub(target as usize) })
            .collect();

        let mut rough = log.clone();
        assert_eq!(log.trim_where(trim, Precision::Exact, may_go), expected);
        let left = |gone: &[StreamId]| -> Vec<Row> {
            before.iter().filter(|row| !gone.contains(&row.0)).cloned().collect()
        };
        compare(&log, &left(&expected));

        let mut retold = rough.clone();
        let gone = rough.trim_where(trim, Precision::Approximate { limit: Some(20) }, may_go);
        assert!(gone.len() <= 20 && expected.starts_with(&gone));
        compare(&rough, &left(&gone));
        let to_same_length = Trim::MaxLen(rough.len());
        assert_eq!(retold.trim_where(to_same_length, Precision::Exact, may_go), gone);
    }
}
