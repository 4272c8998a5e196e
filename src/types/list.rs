//! The list: one listpack while it is small, a quicklist when it is longer.
//!
//! A list begins as a listpack, and becomes a quicklist before an addition that would take it over
//! `list-max-listpack-size`. A quicklist becomes a listpack again when a removal leaves a single
//! node below half of that limit (Redis 7.2). An element too big for a node makes a quicklist at
//! once.
//!
//! **Invariant:** a listpack stays within the limits of its last addition: every addition calls
//! `make_room` first (test `histories_match_a_vecdeque`).
//!
//! Limits are parameters: lists don't read the settings. Elements are passed to closures (`show`),
//! not copied, so that a reply is written straight from the list.

use std::ops::ControlFlow;

pub use crate::ds::listpack::{Element, Listpack};
pub use crate::ds::quicklist::{End, ListLimits, Quicklist, Side};
use crate::ds::quicklist::{remove_matching, walk_listpack};
use crate::error::Error;
use crate::types::KeyRef;
use crate::types::lengths::KeyWrite;
use crate::types::part::{self, Held, Opened};

/// A list in one of its two encodings.
#[derive(Clone)]
pub enum List {
    Listpack(Listpack),
    Quicklist(Box<Quicklist>),
}

const _: () = assert!(size_of::<List>() <= 16);

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        List::Listpack(Listpack::new())
    }

    /// Makes a list of nodes that were loaded. The list is a listpack if the elements fit into one.
    pub fn from_quicklist(quicklist: Quicklist, limits: &ListLimits) -> Self {
        let mut list = List::Quicklist(Box::new(quicklist));
        list.try_listpack(limits, false);
        list
    }

    /// Makes a list of a listpack that was loaded. The list is a quicklist if the listpack is too
    /// big.
    pub fn from_listpack(listpack: Listpack, limits: &ListLimits) -> Self {
        let mut list = List::Listpack(listpack);
        list.make_room(0, 0, limits);
        list
    }

    /// The name that OBJECT ENCODING reports.
    pub fn encoding(&self) -> &'static str {
        match self {
            List::Listpack(_) => "listpack",
            List::Quicklist(_) => "quicklist",
        }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            List::Listpack(listpack) => listpack.len(),
            List::Quicklist(quicklist) => quicklist.len(),
        }
    }

    /// Whether the list has no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self {
            List::Listpack(listpack) => listpack.is_empty(),
            List::Quicklist(quicklist) => quicklist.is_empty(),
        }
    }

    /// The memory of the list in bytes, rounded as the allocator rounds it.
    pub fn memory_bytes(&self) -> usize {
        match self {
            List::Listpack(listpack) => listpack.memory_bytes(),
            List::Quicklist(quicklist) => quicklist.memory_bytes(),
        }
    }

    /// The number of allocations to be freed, by which UNLINK decides whether a thread frees the
    /// list.
    pub fn free_effort(&self) -> usize {
        match self {
            List::Listpack(_) => 1,
            List::Quicklist(quicklist) => quicklist.node_count(),
        }
    }
}

/// Methods that open the list of a key.
impl List {
    /// The list in an entry; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'_>) -> Result<Held<'_, List>, Error> {
        Held::typed(entry)
    }

    /// The list of an entry, mutable; WRONGTYPE for another type.
    #[inline(always)]
    pub fn of_mut(entry: KeyWrite<'_>) -> Result<Opened<'_, List>, Error> {
        Opened::typed(entry)
    }

    /// Changes the list of an entry; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn change<R>(entry: KeyWrite<'_>, change: impl FnOnce(&mut List) -> R) -> Result<R, Error> {
        part::change(entry, change)
    }
}

/// Methods that change the encoding of a list.
impl List {
    /// Turns a listpack into a quicklist if the listpack would exceed its limit with `count` more
    /// texts of `bytes` bytes together.
    #[inline]
    pub fn make_room(&mut self, bytes: usize, count: usize, limits: &ListLimits) {
        match self {
            List::Quicklist(quicklist) => quicklist.set_packed_threshold(limits.packed_threshold),
            List::Listpack(listpack) => {
                let total = listpack.bytes_len().saturating_add(bytes);
                if limits.exceeded_by(total, listpack.len() + count) {
                    self.become_quicklist(limits);
                }
            }
        }
    }

    #[cold]
    fn become_quicklist(&mut self, limits: &ListLimits) {
        if let List::Listpack(listpack) = self {
            let mut quicklist = Quicklist::new(*limits);
            quicklist.push_listpack(std::mem::take(listpack).into_owned());
            *self = List::Quicklist(Box::new(quicklist));
        }
    }

    /// Turns a quicklist into a listpack if it is small enough. Called once, at the end of a
    /// command that removed elements.
    #[inline]
    pub fn shrink(&mut self, limits: &ListLimits) {
        if let List::Quicklist(_) = self {
            self.try_listpack(limits, true);
        }
    }

    fn try_listpack(&mut self, limits: &ListLimits, after_removal: bool) {
        let List::Quicklist(quicklist) = self else {
            return;
        };
        let fits = quicklist.single_listpack().is_some_and(|listpack| {
            limits.fits_listpack(listpack.bytes_len(), quicklist.len(), after_removal)
        });
        if !fits {
            return;
        }
        let taken = std::mem::replace(&mut **quicklist, Quicklist::new(*limits));
        match taken.into_listpack() {
            Ok(listpack) => *self = List::Listpack(listpack),
            Err(whole) => **quicklist = whole,
        }
    }
}

/// Methods that read a list.
impl List {
    /// The position of the element at `index`, which counts from the end if negative.
    fn position(&self, index: i64) -> Option<usize> {
        let len = self.len() as i64;
        let index = if index < 0 { index + len } else { index };
        (0..len).contains(&index).then_some(index as usize)
    }

    /// LINDEX: shows the element at `index`; a negative index counts from the end.
    pub fn get_with<R>(&self, index: i64, show: impl FnOnce(Element) -> R) -> Option<R> {
        match self {
            List::Listpack(listpack) => listpack.seek(index).map(|pos| show(listpack.get(pos))),
            List::Quicklist(quicklist) => quicklist.get_with(self.position(index)?, show),
        }
    }

    /// LRANGE: shows `count` elements from position `start` on, in the direction away from the end
    /// `from`.
    #[inline]
    pub fn range(&self, start: usize, count: usize, from: End, mut show: impl FnMut(Element)) {
        let mut left = count;
        if left == 0 {
            return;
        }
        self.visit(start, from, |element| {
            show(element);
            left -= 1;
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
    }

    /// Passes elements to `visit`, from position `start` on, in the direction away from the end
    /// `from`, until `visit` returns `Break`.
    #[inline]
    pub fn visit<B>(
        &self,
        start: usize,
        from: End,
        mut visit: impl FnMut(Element) -> ControlFlow<B>,
    ) -> Option<B> {
        match self {
            List::Quicklist(quicklist) => quicklist.visit(start, from, visit),
            List::Listpack(listpack) => {
                let pos = listpack.seek(start as i64);
                walk_listpack(listpack, pos, from, &mut visit).break_value()
            }
        }
    }

    /// LPOS: shows the position of each element that is `text`, among the first `max` elements
    /// counted from the end `from`, until the visitor breaks.
    pub fn positions(
        &self,
        text: &[u8],
        from: End,
        max: usize,
        mut hit: impl FnMut(usize) -> ControlFlow<()>,
    ) {
        let wanted = Element::from(text);
        let len = self.len();
        let start = match from {
            End::Head => 0,
            End::Tail => len.saturating_sub(1),
        };
        let mut seen = 0;
        self.visit(start, from, |element| {
            if seen == max {
                return ControlFlow::Break(());
            }
            seen += 1;
            if !element.same_text(&wanted) {
                return ControlFlow::Continue(());
            }
            hit(match from {
                End::Head => seen - 1,
                End::Tail => len - seen,
            })
        });
    }
}

/// Methods that change a list.
impl List {
    /// LPUSH, RPUSH, and the receiving end of LMOVE.
    #[inline]
    pub fn push(&mut self, end: End, text: &[u8], limits: &ListLimits) {
        self.make_room(text.len(), 1, limits);
        self.push_within(end, text);
    }

    /// Pushes texts one by one; the list's encoding is chosen once for all of them.
    pub fn push_all(&mut self, end: End, texts: &[&[u8]], limits: &ListLimits) {
        let bytes = texts.iter().map(|text| text.len()).sum();
        self.make_room(bytes, texts.len(), limits);
        match (self, end) {
            (List::Listpack(listpack), End::Tail) => {
                listpack.append_all(texts.iter().map(|&text| Element::from(text)));
            }
            (List::Listpack(listpack), End::Head) => {
                let first = listpack.first().unwrap_or(listpack.end());
                listpack.insert_all(first, texts.iter().rev().map(|&text| Element::from(text)));
            }
            (List::Quicklist(quicklist), end) => {
                texts.iter().for_each(|text| quicklist.push(end, text));
            }
        }
    }

    #[inline]
    fn push_within(&mut self, end: End, text: &[u8]) {
        match (self, end) {
            (List::Quicklist(quicklist), end) => quicklist.push(end, text),
            (List::Listpack(listpack), End::Head) => listpack.prepend(text),
            (List::Listpack(listpack), End::Tail) => listpack.append(text),
        }
    }

    /// Passes the element at an end to `show` and removes it. The caller calls `shrink` after the
    /// last pop.
    #[inline]
    pub fn pop_with<R>(&mut self, end: End, show: impl FnOnce(Element) -> R) -> Option<R> {
        match self {
            List::Quicklist(quicklist) => quicklist.pop_with(end, show),
            List::Listpack(listpack) => {
                let pos = match end {
                    End::Head => listpack.first()?,
                    End::Tail => listpack.last()?,
                };
                let shown = show(listpack.get(pos));
                listpack.delete(pos);
                Some(shown)
            }
        }
    }

    /// Removes up to `count` elements from position `start` on. The caller must call `shrink`
    /// afterwards.
    pub fn delete_range(&mut self, start: usize, count: usize) {
        match self {
            List::Listpack(listpack) => listpack.delete_range(start as i64, count),
            List::Quicklist(quicklist) => {
                quicklist.delete_range(start, count);
            }
        }
    }

    /// LTRIM: keeps `keep` elements from position `start` on.
    pub fn trim(&mut self, start: usize, keep: usize, limits: &ListLimits) {
        let end = start.saturating_add(keep).min(self.len());
        self.delete_range(end, usize::MAX);
        self.delete_range(0, start);
        self.shrink(limits);
    }

    /// LSET. Returns false if the list has no element at `index`; a negative index counts from the
    /// end.
    pub fn set(&mut self, index: i64, text: &[u8], limits: &ListLimits) -> bool {
        self.make_room(text.len(), 1, limits);
        let Some(at) = self.position(index) else {
            return false;
        };
        match self {
            List::Quicklist(quicklist) => {
                quicklist.replace(at, text);
            }
            List::Listpack(listpack) => {
                let pos = listpack
                    .seek(at as i64)
                    .expect("a position below the length");
                listpack.replace(pos, text);
            }
        }
        self.shrink(limits);
        true
    }

    /// LINSERT: inserts `text` beside the first element that is `pivot`. Returns false if no
    /// element is `pivot`.
    pub fn insert(&mut self, pivot: &[u8], side: Side, text: &[u8], limits: &ListLimits) -> bool {
        self.make_room(text.len(), 1, limits);
        match self {
            List::Listpack(listpack) => {
                let found = listpack
                    .first()
                    .and_then(|first| listpack.find(first, pivot, 0));
                match (found, side) {
                    (None, _) => return false,
                    (Some(pos), Side::Before) => listpack.insert_before(pos, text),
                    (Some(pos), Side::After) => {
                        listpack.insert_after(pos, text);
                    }
                }
                true
            }
            List::Quicklist(_) => {
                let mut index = None;
                self.positions(pivot, End::Head, usize::MAX, |at| {
                    index = Some(at);
                    ControlFlow::Break(())
                });
                match (self, index) {
                    (List::Quicklist(quicklist), Some(at)) => quicklist.insert(at, side, text),
                    _ => false,
                }
            }
        }
    }

    /// LREM: removes up to `max` elements that are `text`, those nearest to the end `from` first.
    /// Returns the number of removed elements.
    pub fn remove(&mut self, text: &[u8], max: usize, from: End, limits: &ListLimits) -> usize {
        let removed = match self {
            List::Listpack(listpack) => remove_matching(listpack, text, max, from),
            List::Quicklist(quicklist) => quicklist.remove(text, max, from),
        };
        if removed > 0 {
            self.shrink(limits);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn limits(fill: i32) -> ListLimits {
        ListLimits {
            fill,
            ..ListLimits::default()
        }
    }

    fn texts(list: &List) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        list.range(0, usize::MAX, End::Head, |element| {
            all.push(element.to_vec())
        });
        all
    }

    #[test]
    fn it_grows_into_a_quicklist_and_shrinks_below_half() {
        let limits = limits(6);
        let mut list = List::new();
        list.push_all(End::Tail, &[b"1", b"2", b"3", b"4", b"5", b"6"], &limits);
        assert_eq!(list.encoding(), "listpack");
        list.push(End::Head, b"0", &limits);
        assert_eq!(list.encoding(), "quicklist");
        // The nodes have 1 and 6 elements: a list of two nodes stays a quicklist.
        list.trim(0, 4, &limits);
        assert_eq!((list.encoding(), list.len()), ("quicklist", 4));
        list.pop_with(End::Head, |element| assert_eq!(element, Element::Int(0)));
        list.shrink(&limits);
        assert_eq!((list.encoding(), list.len()), ("listpack", 3));
    }

    #[test]
    fn a_big_element_makes_a_quicklist_and_a_small_one_unmakes_it() {
        let limits = limits(-1);
        let mut list = List::new();
        list.push(End::Tail, b"a", &limits);
        assert!(list.set(0, &[b'x'; 5000], &limits));
        assert_eq!(list.encoding(), "quicklist");
        assert!(list.set(-1, b"b", &limits));
        assert_eq!(
            (list.encoding(), texts(&list)),
            ("listpack", vec![b"b".to_vec()])
        );
    }

    #[test]
    fn what_is_loaded_takes_the_encoding_that_fits() {
        let mut listpack = Listpack::new();
        (0..10).for_each(|int| listpack.append(int));
        let list = List::from_listpack(listpack.clone(), &limits(5));
        assert_eq!(list.encoding(), "quicklist");
        let mut quicklist = Quicklist::new(limits(5));
        quicklist.push_listpack(listpack);
        assert_eq!(
            List::from_quicklist(quicklist.clone(), &limits(5)).encoding(),
            "quicklist"
        );
        assert_eq!(
            List::from_quicklist(quicklist, &limits(10)).encoding(),
            "listpack"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(End, Vec<Vec<u8>>),
        Pop(End),
        Set(i64, Vec<u8>),
        Insert(Vec<u8>, Side, Vec<u8>),
        Remove(Vec<u8>, usize, End),
        Trim(usize, usize),
        Positions(Vec<u8>, End, usize),
        Range(usize, usize, End),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => (0i64..8).prop_map(|int| int.to_string().into_bytes()),
            2 => vec(b'a'..b'c', 0..3),
            1 => (500usize..5000).prop_map(|len| vec![b'x'; len]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = || prop_oneof![Just(End::Head), Just(End::Tail)];
        let side = prop_oneof![Just(Side::Before), Just(Side::After)];
        prop_oneof![
            5 => (end(), vec(text(), 0..5)).prop_map(|(end, texts)| Step::Push(end, texts)),
            2 => end().prop_map(Step::Pop),
            3 => (-25i64..25, text()).prop_map(|(at, text)| Step::Set(at, text)),
            3 => (text(), side, text()).prop_map(|(pivot, side, text)| Step::Insert(pivot, side, text)),
            1 => (text(), 0usize..4, end()).prop_map(|(text, max, from)| Step::Remove(text, max, from)),
            1 => (0usize..3, 5usize..30).prop_map(|(start, keep)| Step::Trim(start, keep)),
            1 => (text(), end(), 0usize..30).prop_map(|(text, from, max)| Step::Positions(text, from, max)),
            1 => (0usize..30, 0usize..30, end()).prop_map(|(start, n, from)| Step::Range(start, n, from)),
        ]
    }

    type Twin = VecDeque<Vec<u8>>;

    fn change(list: &mut List, twin: &mut Twin, step: Step, limits: &ListLimits) {
        match step {
            Step::Push(end, texts) => {
                let slices: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
                list.push_all(end, &slices, limits);
                for text in texts {
                    match end {
                        End::Head => twin.push_front(text),
                        End::Tail => twin.push_back(text),
                    }
                }
            }
            Step::Pop(end) => {
                let expected = match end {
                    End::Head => twin.pop_front(),
                    End::Tail => twin.pop_back(),
                };
                assert_eq!(list.pop_with(end, |element| element.to_vec()), expected);
                list.shrink(limits);
            }
            Step::Set(index, text) => {
                let at = if index < 0 {
                    index + twin.len() as i64
                } else {
                    index
                };
                let old = usize::try_from(at).ok().and_then(|at| twin.get_mut(at));
                assert_eq!(list.set(index, &text, limits), old.is_some());
                if let Some(old) = old {
                    *old = text;
                    assert!(
                        list.get_with(index, |element| element.to_vec() == *old)
                            .unwrap()
                    );
                }
            }
            Step::Insert(pivot, side, text) => {
                let at = twin.iter().position(|other| *other == pivot);
                assert_eq!(list.insert(&pivot, side, &text, limits), at.is_some());
                if let Some(at) = at {
                    twin.insert(at + usize::from(side == Side::After), text);
                }
            }
            Step::Remove(text, max, from) => {
                let mut hits: Vec<usize> = (0..twin.len()).filter(|&at| twin[at] == text).collect();
                if from == End::Tail {
                    hits.reverse();
                }
                hits.truncate(max);
                assert_eq!(list.remove(&text, max, from, limits), hits.len());
                hits.sort_unstable();
                hits.iter().rev().for_each(|&at| drop(twin.remove(at)));
            }
            Step::Trim(start, keep) => {
                list.trim(start, keep, limits);
                twin.truncate(start + keep);
                twin.drain(..start.min(twin.len()));
            }
            read => look(list, twin, read),
        }
    }

    fn look(list: &List, twin: &Twin, step: Step) {
        match step {
            Step::Positions(text, from, max) => {
                let mut hits = Vec::new();
                list.positions(&text, from, max, |at| {
                    hits.push(at);
                    ControlFlow::Continue(())
                });
                let is_hit = |&at: &usize| twin[at] == text;
                let expected: Vec<usize> = match from {
                    End::Head => (0..twin.len()).take(max).filter(is_hit).collect(),
                    End::Tail => (0..twin.len()).rev().take(max).filter(is_hit).collect(),
                };
                assert_eq!(hits, expected);
            }
            Step::Range(start, n, from) if start < twin.len() => {
                let mut shown = Vec::new();
                list.range(start, n, from, |element| shown.push(element.to_vec()));
                let expected: Vec<Vec<u8>> = match from {
                    End::Head => twin.range(start..).take(n).cloned().collect(),
                    End::Tail => twin.range(..=start).rev().take(n).cloned().collect(),
                };
                assert_eq!(shown, expected);
            }
            _ => list.range(twin.len(), 3, End::Head, |_| panic!("beyond the end")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(160))]

        #[test]
        fn histories_match_a_vecdeque(
            fill in prop_oneof![Just(-1), 1i32..12],
            compress_depth in 0u32..3,
            steps in vec(step(), 0..50),
        ) {
            let limits = ListLimits { compress_depth, ..limits(fill) };
            let (mut list, mut twin) = (List::new(), Twin::new());
            for step in steps {
                change(&mut list, &mut twin, step, &limits);
                prop_assert_eq!((list.len(), list.is_empty()), (twin.len(), twin.is_empty()));
            }
            prop_assert!(texts(&list).iter().eq(&twin));
            if let List::Listpack(listpack) = &list {
                prop_assert!(!limits.exceeded_by(listpack.bytes_len(), listpack.len()));
            }
        }
    }
}
