use super::*;
use crate::ds;
use crate::ds::lzf;
use crate::ds::scaled;
use proptest::collection::vec;
use proptest::prelude::*;

fn limits() -> impl Strategy<Value = ListLimits> {
    let fill = prop_oneof![Just(-1), Just(-2), Just(0), 1i32..6, Just(100)];
    let threshold = prop_oneof![Just(0), Just(40), Just(300)];
    (fill, 0u32..4, threshold).prop_map(|(fill, compress_depth, packed_threshold)| ListLimits {
        fill,
        compress_depth,
        packed_threshold,
    })
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0i64..20).prop_map(|int| int.to_string().into_bytes()),
        3 => vec(b'a'..b'd', 0..10),
        3 => (10usize..400).prop_map(|len| b"compressible ".repeat(len / 10)),
        2 => vec(any::<u8>(), 30..80),
        1 => (3000usize..9000).prop_map(|len| vec![b'x'; len]),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Push(End, Vec<u8>),
    PushMany(End, Vec<u8>, usize),
    Pop(End),
    Insert(usize, Side, Vec<u8>),
    Replace(usize, Vec<u8>),
    DeleteRange(usize, usize),
    Remove(Vec<u8>, usize, End),
}

fn step() -> impl Strategy<Value = Step> {
    let end = || prop_oneof![Just(End::Head), Just(End::Tail)];
    let side = prop_oneof![Just(Side::Before), Just(Side::After)];
    prop_oneof![
        5 => (end(), text()).prop_map(|(end, text)| Step::Push(end, text)),
        2 => (end(), text(), 0usize..20).prop_map(|(end, text, n)| Step::PushMany(end, text, n)),
        3 => end().prop_map(Step::Pop),
        5 => (0usize..90, side, text()).prop_map(|(at, side, text)| Step::Insert(at, side, text)),
        4 => (0usize..90, text()).prop_map(|(at, text)| Step::Replace(at, text)),
        2 => (0usize..90, 0usize..30).prop_map(|(at, n)| Step::DeleteRange(at, n)),
        2 => (text(), 0usize..4, end()).prop_map(|(text, max, from)| Step::Remove(text, max, from)),
    ]
}

type Twin = VecDeque<Vec<u8>>;

fn twin_push(twin: &mut Twin, end: End, text: Vec<u8>) {
    match end {
        End::Head => twin.push_front(text),
        End::Tail => twin.push_back(text),
    }
}

fn twin_remove(twin: &mut Twin, text: &[u8], max: usize, from: End) -> usize {
    let mut hits: Vec<usize> = (0..twin.len()).filter(|&at| twin[at] == text).collect();
    match from {
        End::Head => hits.truncate(max),
        End::Tail => {
            hits.drain(..hits.len().saturating_sub(max));
        }
    }
    hits.iter().rev().for_each(|&at| drop(twin.remove(at)));
    hits.len()
}

fn apply(list: &mut Quicklist, twin: &mut Twin, step: Step) {
    match step {
        Step::Push(end, text) => {
            list.push(end, &text);
            twin_push(twin, end, text);
        }
        Step::PushMany(end, text, n) => {
            for _ in 0..n {
                list.push(end, &text);
                twin_push(twin, end, text.clone());
            }
        }
        Step::Pop(end) => {
            let expected = match end {
                End::Head => twin.pop_front(),
                End::Tail => twin.pop_back(),
            };
            assert_eq!(list.pop_with(end, |element| element.to_vec()), expected);
        }
        Step::Insert(at, side, text) => {
            let there = at < twin.len();
            assert_eq!(list.insert(at, side, &text), there);
            if there {
                twin.insert(at + usize::from(side == Side::After), text);
            }
        }
        Step::Replace(at, text) => {
            assert_eq!(list.replace(at, &text), at < twin.len());
            if let Some(old) = twin.get_mut(at) {
                *old = text;
            }
        }
        Step::DeleteRange(at, n) => {
            let range = at.min(twin.len())..(at + n).min(twin.len());
            assert_eq!(list.delete_range(at, n), range.len());
            twin.drain(range);
        }
        Step::Remove(text, max, from) => {
            let removed = list.remove(&text, max, from);
            assert_eq!(removed, twin_remove(twin, &text, max, from));
        }
    }
}

fn seen(list: &Quicklist, index: usize, from: End) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let broken: Option<()> = list.visit(index, from, |element| {
        all.push(element.to_vec());
        ControlFlow::Continue(())
    });
    assert!(broken.is_none());
    all
}

fn assert_sound(list: &Quicklist) {
    assert_eq!(list.len, list.nodes.iter().map(Node::count).sum::<usize>());
    let depth = list.limits.compress_depth as usize;
    let last = list.nodes.len().saturating_sub(1);
    for (n, node) in list.nodes.iter().enumerate() {
        assert!(node.count() > 0);
        let inner = depth > 0 && n >= depth && last - n >= depth;
        assert!(inner || !node.is_compressed());
        if let Node::Packed { count, listpack } = node {
            assert_eq!(listpack.len(), *count as usize);
        }
        let open = matches!(node, Node::Front(_));
        assert!(!open || (n == 0 && last > 0), "only a row's head is open");
        let mut copy = node.clone();
        copy.compress();
        assert!(
            !inner || copy.is_compressed() == node.is_compressed(),
            "an inner node was left raw"
        );
    }
}

fn assert_same(list: &Quicklist, twin: &Twin) {
    assert_sound(list);
    assert_eq!(list.len(), twin.len());
    assert!(seen(list, 0, End::Head).iter().eq(twin));
    for at in (0..twin.len()).step_by(7) {
        assert_eq!(
            list.get_with(at, |element| element.to_vec()).as_ref(),
            twin.get(at)
        );
        assert!(seen(list, at, End::Head).iter().eq(twin.range(at..)));
        assert!(seen(list, at, End::Tail).iter().eq(twin.range(..=at).rev()));
    }
    assert_eq!(list.get_with(twin.len(), |_| ()), None);
}

/// Builds the list again from its nodes, as from an RDB file.
fn reloaded(list: &Quicklist) -> Quicklist {
    let mut copy = Quicklist::new(*list.limits());
    for node in list.nodes() {
        match node {
            NodeView::Packed(bytes) => copy.push_listpack(Listpack::from_bytes(bytes).unwrap()),
            NodeView::Plain(text) => copy.push_plain(text.into()),
            NodeView::Compressed {
                plain,
                raw_len,
                bytes,
            } => {
                let raw = lzf::decompress(bytes, raw_len).unwrap();
                match plain {
                    true => copy.push_plain(raw.into()),
                    false => copy.push_listpack(Listpack::from_bytes(&raw).unwrap()),
                }
            }
        }
    }
    copy
}

proptest! {
    #![proptest_config(ds::cases(160))]

    #[test]
    fn histories_match_a_vecdeque(limits in limits(), steps in vec(step(), 0..scaled(60, 8))) {
        let (mut list, mut twin) = (Quicklist::new(limits), Twin::new());
        for step in steps {
            apply(&mut list, &mut twin, step);
            if list.len().is_multiple_of(3) {
                let moved = crate::ds::relocate::relocate_all(&mut list);
                assert!(moved as usize >= list.node_count());
            }
            assert_sound(&list);
        }
        assert_same(&list, &twin);
        let copy = reloaded(&list);
        assert_same(&copy, &twin);
        prop_assert_eq!(copy.figures(), list.figures());
    }
}

fn filled(limits: ListLimits, len: usize) -> Quicklist {
    let mut list = Quicklist::new(limits);
    for int in 0..len {
        list.push(End::Tail, format!("element:{int:08}").as_bytes());
    }
    list
}

#[test]
#[cfg_attr(miri, ignore = "a figure of 100,000 elements")]
fn an_element_costs_little_more_than_its_bytes() {
    let list = filled(ListLimits::default(), 100_000);
    // An element has 16 bytes of text, an encoding byte and a backlen.
    let per_element = list.memory_bytes() as f64 / 100_000.0;
    assert!((18.0..18.2).contains(&per_element), "{per_element}");
}

#[test]
fn only_inner_nodes_are_compressed() {
    let limits = ListLimits {
        fill: 10,
        compress_depth: 2,
        ..ListLimits::default()
    };
    let list = filled(limits, 200);
    let figures = list.figures();
    assert_eq!((figures.nodes, figures.compressed_nodes), (20, 16));
    assert!(list.memory_bytes() < filled(ListLimits::default(), 200).memory_bytes());
}

#[test]
fn a_big_element_has_a_node_of_its_own() {
    let mut list = filled(ListLimits::default(), 3);
    assert!(list.insert(1, Side::After, &[b'x'; 8193]));
    assert_eq!(list.node_count(), 3);
    // A small element that replaces the big one joins the listpack after it.
    assert!(list.replace(2, b"small"));
    assert_eq!(list.node_count(), 2);
    // The rest of the listpack from which the replaced element came is merged with the listpack
    // before it.
    assert!(list.replace(3, &[b'y'; 9000]));
    let plain = list
        .nodes()
        .filter(|node| matches!(node, NodeView::Plain(_)))
        .count();
    assert_eq!((plain, list.node_count()), (1, 2));
    assert!(list.into_listpack().is_err());
}

#[test]
fn a_split_in_a_full_node_merges_with_small_neighbours() {
    let limits = ListLimits {
        fill: 4,
        ..ListLimits::default()
    };
    let mut list = filled(limits, 8);
    assert!(list.insert(1, Side::After, b"new"));
    assert_eq!(list.node_count(), 3);
    assert!(list.insert(1, Side::After, b"newer"));
    assert_eq!((list.node_count(), list.len()), (3, 10));
}
