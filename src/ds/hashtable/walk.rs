//! Walks through the whole hash table: SCAN's cursor, the fair random element, iterators.
use std::collections::HashSet;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr::NonNull;

use super::table::Table;
use super::{Element, HashTable, Stats, TableStats, prefetch_element};
use crate::util::selection_sampling::Selection;

/// The number of buckets that a random pick tries before it takes the next element after a random
/// bucket.
const RANDOM_TRIES: usize = 1000;
/// A random sample of at least 1 / `SELECT_PART` of the elements is selected in one walk over all
/// elements.
const SELECT_PART: usize = 8;
/// The number of elements that a walk prefetches at once, while it visits as many earlier elements.
/// The prefetches follow each other closely, so that the processor translates several addresses at
/// the same time, as each element is on another page.
const WINDOW: usize = 16;
/// The number of bytes of an element that a walk prefetches: enough for a short key with a short
/// value.
const WALKED_BYTES: usize = 48;

impl<E: Element> HashTable<E> {
    /// One call of SCAN. Passes the elements of one bucket of the smaller array, and of the buckets
    /// of the larger array into which it expands, to `f`. Returns the next cursor, 0 at the end.
    /// Every element that is present from the first call of a SCAN to the last is passed at least
    /// once.
    pub fn scan<'a>(&'a self, cursor: u64, mut f: impl FnMut(E::Ref<'a>)) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let masks = [self.tables[0].mask(), self.tables[1].mask()];
        chains(masks, self.is_rehashing(), cursor, |table, index| {
            for bucket in self.tables[table].chain(index) {
                for slot in 0..bucket.count() {
                    // SAFETY: the element lives in this table, which is borrowed.
                    f(unsafe { E::by_ref(bucket.get(slot)) });
                }
            }
        })
    }

    /// A random element; all elements are equally likely. Random chains are tried; a chain is
    /// accepted with the probability of its length divided by the longest length.
    ///
    /// A table that is nearly empty, which occurs only while resizing is not allowed, would need
    /// very many tries. After [`RANDOM_TRIES`] chains the next element after a random bucket is
    /// taken, which favours elements after many empty buckets.
    pub fn random(&self, rng: &mut impl rand::Rng) -> Option<E::Ref<'_>> {
        // SAFETY: the element lives in this table, which is borrowed.
        self.pick(rng).map(|p| unsafe { E::by_ref(p) })
    }

    fn pick(&self, rng: &mut impl rand::Rng) -> Option<NonNull<u8>> {
        if self.len == 0 {
            return None;
        }
        let [main, other] = &self.tables;
        let longest = main.longest().max(other.longest());
        let buckets = main.buckets() - self.rehash_at + other.buckets();
        let mut bucket = 0;
        for _ in 0..RANDOM_TRIES {
            bucket = below(rng, buckets);
            let place = below(rng, longest);
            let (table, index) = self.nth_bucket(bucket);
            if let Some(p) = table.chain_get(index, place) {
                return Some(p);
            }
        }
        (bucket..buckets).chain(0..bucket).find_map(|n| {
            let (table, index) = self.nth_bucket(n);
            let place = below(rng, table.chain_len(index).max(1));
            table.chain_get(index, place)
        })
    }

    /// Passes `count` different random elements to `visit`, or all elements if there are not more;
    /// each choice is equally likely. For a small `count` elements are picked, and repeated ones
    /// skipped; otherwise they are selected in one walk over all elements.
    pub fn sample_unique<'a>(
        &'a self,
        count: usize,
        rng: &mut impl rand::Rng,
        mut visit: impl FnMut(E::Ref<'a>),
    ) {
        if count < self.len / SELECT_PART {
            let mut seen = HashSet::with_capacity(count);
            while seen.len() < count {
                let Some(p) = self.pick(rng) else { return };
                if seen.insert(p) {
                    // SAFETY: the element lives in this table, which is borrowed.
                    visit(unsafe { E::by_ref(p) });
                }
            }
            return;
        }
        let mut selection = Selection::of(count, self.len);
        for element in self.iter() {
            if selection.takes(&mut |n| below(rng, n)) {
                visit(element);
            }
        }
    }

    /// Passes every element to `visit`, and prefetches the elements that follow.
    #[inline]
    pub fn walk<'a>(&'a self, mut visit: impl FnMut(E::Ref<'a>)) {
        let _ = self.try_walk(|element| {
            visit(element);
            ControlFlow::<()>::Continue(())
        });
    }

    /// Passes elements to `visit` as [`HashTable::walk`] does, until `visit` returns `Break`.
    #[inline]
    pub fn try_walk<'a, B>(
        &'a self,
        mut visit: impl FnMut(E::Ref<'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut walk = Walk::from(self.rehash_at);
        let mut window = walk.window(&self.tables);
        while !window.is_empty() {
            let next = walk.window(&self.tables);
            for &p in window.elements() {
                // SAFETY: the element lives in this table, which is borrowed.
                visit(unsafe { E::by_ref(p) })?;
            }
            window = next;
        }
        ControlFlow::Continue(())
    }

    /// The n-th bucket that may have elements: first the buckets of the old array that have not
    /// been moved, then those of the new array.
    fn nth_bucket(&self, n: usize) -> (&Table, usize) {
        let unmoved = self.tables[0].buckets() - self.rehash_at;
        if n < unmoved {
            (&self.tables[0], self.rehash_at + n)
        } else {
            (&self.tables[1], n - unmoved)
        }
    }

    /// Iterates over all elements, in no order. The table is borrowed, so no element moves during
    /// the walk.
    pub fn iter(&self) -> Iter<'_, E> {
        Iter {
            table: self,
            walk: Walk::from(self.rehash_at),
            left: self.len,
        }
    }

    /// Figures for DEBUG HTSTATS, counted by a walk over the whole table.
    pub fn stats(&self) -> Stats {
        Stats {
            main: table_stats(&self.tables[0]),
            rehash_target: self.is_rehashing().then(|| table_stats(&self.tables[1])),
            rehash_at: self.rehash_at,
        }
    }
}

/// A random number below `n`, by multiplication: the bias is n / 2^64.
fn below(rng: &mut impl rand::Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Passes the table and the index of each chain that one call of SCAN covers: a bucket of the
/// smaller array, and the buckets of the larger array into which it expands. Returns the next
/// cursor.
#[inline]
pub(super) fn chains(
    masks: [usize; 2],
    rehashes: bool,
    cursor: u64,
    mut visit: impl FnMut(usize, usize),
) -> u64 {
    if !rehashes {
        visit(0, cursor as usize & masks[0]);
        return next_cursor(cursor, masks[0]);
    }
    let (small, large) = if masks[0] <= masks[1] { (0, 1) } else { (1, 0) };
    visit(small, cursor as usize & masks[small]);
    let mut cursor = cursor;
    loop {
        visit(large, cursor as usize & masks[large]);
        cursor = next_cursor(cursor, masks[large]);
        if cursor & (masks[small] ^ masks[large]) as u64 == 0 {
            return cursor;
        }
    }
}

/// Adds one to the bits of a cursor that `mask` selects; the highest of these bits counts as the
/// lowest.
fn next_cursor(cursor: u64, mask: usize) -> u64 {
    (cursor | !(mask as u64))
        .reverse_bits()
        .wrapping_add(1)
        .reverse_bits()
}

fn table_stats(table: &Table) -> TableStats {
    const LENGTHS: usize = 50;
    let mut stats = TableStats {
        buckets: table.buckets(),
        children: table.children(),
        lengths: vec![0; LENGTHS],
        ..TableStats::default()
    };
    for length in (0..table.buckets()).map(|index| table.chain_len(index)) {
        stats.elements += length;
        stats.longest = stats.longest.max(length);
        stats.empty += usize::from(length == 0);
        stats.lengths[length.min(LENGTHS - 1)] += 1;
    }
    stats
}

/// A position in a walk over every slot of both arrays of buckets.
pub(super) struct Walk {
    table: usize,
    pub(super) index: usize,
    place: usize,
}

impl Walk {
    /// A walk that begins at a bucket of the first array. Buckets before `rehash_at` are empty, and
    /// there may be millions of such buckets, so a walk must not begin at 0.
    fn from(index: usize) -> Self {
        Walk {
            table: 0,
            index,
            place: 0,
        }
    }

    fn next(&mut self, tables: &[Table; 2]) -> Option<NonNull<u8>> {
        while let Some(table) = tables.get(self.table) {
            if self.index == table.buckets() {
                *self = Walk {
                    table: self.table + 1,
                    index: 0,
                    place: 0,
                };
            } else if let Some(p) = table.chain_get(self.index, self.place) {
                self.place += 1;
                return Some(p);
            } else {
                (self.index, self.place) = (self.index + 1, 0);
            }
        }
        None
    }

    /// The next elements of the walk, which are prefetched; an empty window at the end.
    #[inline]
    fn window(&mut self, tables: &[Table; 2]) -> Window {
        let mut window = Window {
            elements: [NonNull::dangling(); WINDOW],
            len: 0,
        };
        while window.len < WINDOW
            && let Some(p) = self.next(tables)
        {
            prefetch_element(p, WALKED_BYTES);
            window.elements[window.len] = p;
            window.len += 1;
        }
        window
    }
}

/// The elements that a walk has prefetched and visits next.
struct Window {
    elements: [NonNull<u8>; WINDOW],
    len: usize,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn elements(&self) -> &[NonNull<u8>] {
        &self.elements[..self.len]
    }
}

/// The iterator over all elements of a hash table, see [`HashTable::iter`].
pub struct Iter<'a, E: Element> {
    table: &'a HashTable<E>,
    pub(super) walk: Walk,
    left: usize,
}

impl<'a, E: Element> Iterator for Iter<'a, E> {
    type Item = E::Ref<'a>;

    fn next(&mut self) -> Option<E::Ref<'a>> {
        let p = self.walk.next(&self.table.tables)?;
        self.left -= 1;
        // SAFETY: the element lives in the table, which is borrowed for 'a.
        Some(unsafe { E::by_ref(p) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<E: Element> ExactSizeIterator for Iter<'_, E> {}

impl<'a, E: Element> IntoIterator for &'a HashTable<E> {
    type Item = E::Ref<'a>;
    type IntoIter = Iter<'a, E>;

    fn into_iter(self) -> Iter<'a, E> {
        self.iter()
    }
}

/// An iterator that takes the elements out of a table. The remaining elements are dropped with the
/// iterator.
pub struct IntoIter<E: Element> {
    tables: [Table; 2],
    walk: Walk,
    left: usize,
    _owns: PhantomData<E>,
}

// SAFETY: the iterator owns the elements; moving it to another thread moves them.
unsafe impl<E: Element + Send> Send for IntoIter<E> {}

impl<E: Element> IntoIterator for HashTable<E> {
    type Item = E;
    type IntoIter = IntoIter<E>;

    fn into_iter(mut self) -> IntoIter<E> {
        let tables = std::mem::replace(&mut self.tables, [Table::empty(), Table::empty()]);
        IntoIter {
            tables,
            walk: Walk::from(0),
            left: std::mem::take(&mut self.len),
            _owns: PhantomData,
        }
    }
}

impl<E: Element> Iterator for IntoIter<E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        let p = self.walk.next(&self.tables)?;
        self.left -= 1;
        // SAFETY: the walk passes each slot once, and no other code reads these tables.
        Some(unsafe { E::from_raw(p) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<E: Element> ExactSizeIterator for IntoIter<E> {}

impl<E: Element> Drop for IntoIter<E> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
