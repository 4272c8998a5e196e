//! The hash table of the keyspace, and of big hashes and sets.
//!
//! # Problem
//!
//! A server with one thread cannot stop to rehash a million keys, SCAN must work on a table that
//! changes between two calls, RANDOMKEY must be fair, and the table should need few bytes for each
//! key. The maps of std rehash in one step, and have no cursors for SCAN and no fair random picks.
//!
//! # Buckets
//!
//! The cost of a look-up is its cache misses, so a bucket is one cache line with nearly everything
//! that a look-up needs:
//!
//! ```text
//!  hash  63      56                                  0
//!       +----------+----------------- - - -----------+
//!       | tag      |                 | bucket index  |
//!       +----------+----------------- - - -----------+
//!            |                               |
//!            |       bucket, 64 bytes        v                               child, if any
//!            |      +---------------------------+------+----+----+- -+----+-------+      +-----------+
//!            +----> | 9 tags, compared at once  | meta | p0 | p1 |   | p7 | p8 or ------> | tags, ... |
//!                   +---------------------------+------+----+----+- -+----+-------+      +-----------+
//!                                                         |
//!                                                         v  one allocation: header, key, value (`ds::entry`)
//! ```
//!
//! A bucket has nine pointers of 48 bits, a byte of the hash for each, and one byte of count. A tag
//! that matches by chance costs a needless comparison of keys, which happens in less than 9 of 256
//! look-ups. For a tenth element, the ninth slot becomes the address of a child bucket, and so on.
//!
//! # Rehashing
//!
//! A table doubles when it holds nine elements for each bucket, and shrinks when less than an
//! eighth is used. While it rehashes there are two arrays of buckets, and buckets move one at a
//! time, in order, with each write and each call of the cron:
//!
//! ```text
//!  tables[0]   . . . . . . . . # # # # # # # #        . moved and empty    # still here
//!                              ^ rehash_at
//!  tables[1]   # # # # # # # # - - - - - - - - # # # # # # # # - - - - - - - -
//! ```
//!
//! An element whose index in `tables[0]` is below `rehash_at` is in `tables[1]`; all other
//! elements, also new ones, are in `tables[0]`. So every element has one place, and a look-up
//! probes only one of the two arrays. The keys in the bucket that moves next are prefetched, since
//! their hashes must be computed again for the move.
//!
//! # SCAN
//!
//! The cursor is a bucket index whose bits are counted from the highest down:
//!
//! ```text
//!   mask 0b111:   000 -> 100 -> 010 -> 110 -> 001 -> 101 -> 011 -> 111 -> end
//!   mask 0b11:    00 --------> 10 --------> 01 --------> 11 --------> end
//! ```
//!
//! Bucket `01` of the small table becomes `001` and `101` of the large one, and these two are
//! neighbours in the cursor's order. Elements that SCAN has visited stay before the cursor's
//! position, and all others after it, whatever size the table gets. While rehashing, a call returns
//! one bucket of the smaller table and all its expansions in the larger one. An element may be
//! returned twice (after a shrink), but no element is missed that exists from the first call to the
//! last.
//!
//! # Fair random
//!
//! Picking a bucket and then one of its elements would favour elements with few neighbours. So a
//! bucket is accepted with probability length / longest, which makes every element equally likely;
//! on average about three buckets are tried.
//!
//! # Invariants
//!
//! - `home(hash)` names the chain of an element, at all times (`tests::check`).
//! - Chains are dense and minimal, see `table`; a bucket is a cache line, see `bucket`.
//! - While `tables[1]` has no buckets, `rehash_at` is 0.
//! - A method that takes `&self` writes nothing, and no bucket moves while the policy forbids it: a
//!   forked child's pages stay shared.
//!
//! # Costs
//!
//! 1,000,000 keys take 131,072 buckets (7.6 of 9 slots used) and 31,375 children, which is 10.4
//! bytes for each key; right after a doubling the table takes 14.5 bytes for each key. One key in
//! nine is in a child, which costs one more cache miss. Without rehashing a hit costs two cache
//! misses, for the bucket and the entry; both can be prefetched (`prefetch_bucket`, then
//! `prefetch_entry`).
//!
//! # Rejected
//!
//! - Seven slots of eight bytes: 1,000,000 keys need 262,144 buckets, 16.8 bytes for each key.
//! - Open addressing over the whole table (hashbrown): it moves elements across the table when it
//!   grows, so that SCAN's cursor would have no meaning, and it grows in one step.
//! - A linked list for each bucket (a pointer in each element): a cache miss for each neighbour,
//!   and 8 bytes more for each key.
//! - New elements always into `tables[1]` while rehashing: then every lookup probes two tables.
//! - The whole hash in the slot, to rehash without the key: 8 bytes for each key, only to save one
//!   cache miss for each key in each doubling.
//!
//! Limits: addresses have at most 48 bits (asserted). A table that is not allowed to grow gets long
//! chains and becomes slow.
use std::alloc::Layout;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::Duration;

use crate::ds::siphash::HashSeed;
use crate::sys::cache::prefetch;
use crate::sys::instant::Instant;

mod bucket;
mod policy;
mod relocate;
mod slot;
mod table;
mod walk;

#[cfg(test)]
mod tests;

pub use bucket::Place;
use bucket::{Bucket, SLOTS};
use policy::policy;
pub use policy::{ResizePolicy, set_resize_policy};
pub use slot::{OccupiedSlot, Slot, VacantSlot};
use table::{Position, Table};
pub use walk::{IntoIter, Iter};

/// A thin, owning pointer to one heap allocation that holds a key.
///
/// # Safety
/// `into_raw` returns an address of at most 48 bits, and `from_raw` takes it back. From
/// `into_raw` to `from_raw`, `key` stays valid and gives the same bytes wherever the pointer is
/// copied to, whatever is done through `by_ref` and `by_mut`.
pub unsafe trait Element: Sized {
    type Ref<'a>
    where
        Self: 'a;
    type Mut<'a>
    where
        Self: 'a;

    fn into_raw(self) -> NonNull<u8>;

    /// # Safety
    /// `p` came from `into_raw`, and no other code will use it.
    unsafe fn from_raw(p: NonNull<u8>) -> Self;

    /// # Safety
    /// `p` came from `into_raw`; during 'a the element lives and is not written.
    unsafe fn key<'a>(p: NonNull<u8>) -> &'a [u8]
    where
        Self: 'a;

    /// The layout of the element's allocation. The element's bytes may be moved to another
    /// allocation, since only the table has their address.
    ///
    /// # Safety
    /// The conditions are those of [`Element::key`].
    unsafe fn layout(p: NonNull<u8>) -> Layout;

    /// # Safety
    /// The conditions are those of [`Element::key`].
    unsafe fn by_ref<'a>(p: NonNull<u8>) -> Self::Ref<'a>
    where
        Self: 'a;

    /// # Safety
    /// `p` came from `into_raw`; during 'a the element lives and no other code reads or writes it,
    /// or the slot at `place`. An element that moves writes its new address to `place`; an element
    /// without a `place` must not move.
    unsafe fn by_mut<'a>(p: NonNull<u8>, place: Option<Place>) -> Self::Mut<'a>
    where
        Self: 'a;
}

/// A table doubles when it has more elements than this number for each bucket. If hashes were
/// distributed evenly, all buckets would then be full.
const GROW_LOAD: usize = SLOTS;
/// A table shrinks when less than 1 / `SHRINK_FACTOR` of its capacity is used.
const SHRINK_FACTOR: usize = 8;
/// Under `ResizePolicy::Avoid`, while a child runs, a table grows only when it has this multiple of
/// its capacity.
const AVOID_FACTOR: usize = 5;
/// The maximum number of empty buckets that one step of rehashing skips.
const EMPTY_VISITS: usize = 10;

/// A hash table of owning pointers, which rehashes one bucket at a time.
pub struct HashTable<E: Element> {
    /// The present array of buckets, and the array to which elements move while the table rehashes.
    tables: [Table; 2],
    /// Buckets of `tables[0]` below this index have moved to `tables[1]`; 0 if the table is not
    /// rehashing.
    rehash_at: usize,
    len: usize,
    seed: HashSeed,
    /// The size in bytes above which a new array of buckets is allocated only if chains become very
    /// long (`maxmemory`).
    headroom: usize,
    _owns: PhantomData<E>,
}

// SAFETY: the table owns its elements; moving it to another thread moves them.
unsafe impl<E: Element + Send> Send for HashTable<E> {}
// SAFETY: a shared table only reads, and gives no more access than a shared element does.
unsafe impl<E: Element + Sync> Sync for HashTable<E> {}

/// The figures of one array of buckets, for DEBUG HTSTATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// The number of home buckets.
    pub buckets: usize,
    /// The number of child buckets.
    pub children: usize,
    /// The number of elements in home buckets and children.
    pub elements: usize,
    /// The number of home buckets without an element.
    pub empty: usize,
    /// The number of elements in the longest chain.
    pub longest: usize,
    /// `lengths[n]` is the number of chains of n elements; the last item also counts all longer
    /// chains.
    pub lengths: Vec<usize>,
}

/// The figures of a hash table, for DEBUG HTSTATS; `rehash_target` is `Some` while the table
/// rehashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    pub main: TableStats,
    pub rehash_target: Option<TableStats>,
    pub rehash_at: usize,
}

/// The bits of a hash between the bucket index and the tag. The table does not use these bits, so
/// its owner may store a number in them (`db::kvstore` stores the slot).
pub const SPARE_BITS: u64 = 0x3fff << 40;

/// The tag of a hash: its highest byte, far from the bits that select the bucket.
#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Whether two keys are equal. Keys of 8 to 16 bytes are compared as two overlapping words, without
/// a call to `memcmp`.
#[inline(always)]
fn same_key(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() <= 16
        && let (Some(a_first), Some(b_first)) = (a.first_chunk::<8>(), b.first_chunk::<8>())
        && let (Some(a_last), Some(b_last)) = (a.last_chunk::<8>(), b.last_chunk::<8>())
    {
        return (a_first == b_first) & (a_last == b_last);
    }
    a == b
}

/// The smallest number of buckets with a capacity of at least `len` elements.
fn buckets_for(len: usize) -> usize {
    len.div_ceil(GROW_LOAD).max(1).next_power_of_two()
}

/// The part of an element that a look-up prefetches. An element of 32 bytes, such as a short key
/// with an integer, never lies on two cache lines: prefetching a larger part would fetch cache
/// lines that are not needed.
const LOOKED_UP_BYTES: usize = 32;

/// Fetches the first bytes of an element, which may lie on two cache lines.
#[inline(always)]
fn prefetch_element(p: NonNull<u8>, bytes: usize) {
    prefetch(p.as_ptr());
    prefetch(p.as_ptr().wrapping_add(bytes - 1));
}

/// A hint where a table's buckets are: the address of the first bucket, whose lowest six bits are
/// replaced by the logarithm of the number of buckets. The hint is only used to prefetch, so it may
/// be out of date.
#[derive(Clone, Copy, Default)]
pub struct BucketHint(u64);

impl BucketHint {
    /// Prefetches the home bucket of a hash.
    #[inline(always)]
    pub fn prefetch(self, hash: u64) {
        const LOG_BITS: u64 = size_of::<Bucket>() as u64 - 1;
        let index = hash & !(u64::MAX << (self.0 & LOG_BITS));
        let first = (self.0 & !LOG_BITS) as usize;
        let address = first.wrapping_add(index as usize * size_of::<Bucket>());
        prefetch(std::ptr::without_provenance::<Bucket>(address));
    }
}

/// The home of an element: the index of its array of buckets (`tables`), and of its bucket there.
#[derive(Clone, Copy)]
struct Home {
    table: usize,
    index: usize,
}

impl<E: Element> HashTable<E> {
    /// An empty table, which allocates memory when the first element is added.
    pub const fn new(seed: HashSeed) -> Self {
        HashTable {
            tables: [Table::empty(), Table::empty()],
            rehash_at: 0,
            len: 0,
            seed,
            headroom: usize::MAX,
            _owns: PhantomData,
        }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The seed with which this table's keys are hashed.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The hash of a key under this table's seed.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    /// The number of home buckets; while the table rehashes, those of both arrays together.
    pub fn buckets(&self) -> usize {
        self.tables[0].buckets() + self.tables[1].buckets()
    }

    /// The number of elements that fit before the table grows.
    pub fn capacity(&self) -> usize {
        self.tables[1].buckets().max(self.tables[0].buckets()) * GROW_LOAD
    }

    /// The number of bytes of all buckets, without the elements and this struct.
    pub fn memory_bytes(&self) -> usize {
        let buckets: usize = self.tables.iter().map(|t| t.buckets() + t.children()).sum();
        buckets * size_of::<Bucket>()
    }

    /// The part of [`HashTable::memory_bytes`] that the old buckets take while elements move to the
    /// new ones.
    pub fn rehashing_bytes(&self) -> usize {
        let old = &self.tables[0];
        if self.is_rehashing() {
            (old.buckets() + old.children()) * size_of::<Bucket>()
        } else {
            0
        }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> Home {
        let index = hash as usize & self.tables[0].mask();
        if index >= self.rehash_at {
            Home { table: 0, index }
        } else {
            Home {
                table: 1,
                index: hash as usize & self.tables[1].mask(),
            }
        }
    }

    #[inline(always)]
    fn position(&self, hash: u64, key: &[u8]) -> Option<(Home, Position)> {
        let home = self.home(hash);
        let at = self.tables[home.table].find(home.index, tag_of(hash), |p| {
            // SAFETY: a pointer in a slot came from into_raw and lives until it is removed.
            same_key(unsafe { E::key(p) }, key)
        })?;
        Some((home, at))
    }

    #[inline(always)]
    fn element(&self, at: Position) -> NonNull<u8> {
        // SAFETY: the position was found in this table, which is still borrowed.
        unsafe { at.bucket.as_ref() }.get(at.slot)
    }

    #[inline(always)]
    fn place(&self, at: Position) -> Option<Place> {
        // SAFETY: the position was found in this table, which is still borrowed.
        Some(unsafe { Bucket::place(at.bucket, at.slot) })
    }

    /// Looks up the element of a key, whose hash is given.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<E::Ref<'_>> {
        let (_, at) = self.position(hash, key)?;
        // SAFETY: the element lives in this table, which is borrowed.
        Some(unsafe { E::by_ref(self.element(at)) })
    }

    /// Looks up a key to change its element. If the table is rehashing, one bucket is moved.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<E::Mut<'_>> {
        self.rehash_step();
        let (_, at) = self.position(hash, key)?;
        // SAFETY: the element lives in this table, which is borrowed exclusively.
        Some(unsafe { E::by_mut(self.element(at), self.place(at)) })
    }

    /// The first element with this hash for which `is_it` returns true, for callers that store
    /// hashes instead of keys.
    pub fn find_by(&self, hash: u64, is_it: impl FnMut(E::Ref<'_>) -> bool) -> Option<E::Ref<'_>> {
        let (_, at) = self.position_by(hash, is_it)?;
        // SAFETY: the element lives in this table, which is borrowed.
        Some(unsafe { E::by_ref(self.element(at)) })
    }

    /// Removes the element that [`HashTable::find_by`] finds.
    pub fn remove_by(&mut self, hash: u64, is_it: impl FnMut(E::Ref<'_>) -> bool) -> Option<E> {
        self.rehash_step();
        let (home, at) = self.position_by(hash, is_it)?;
        Some(self.remove_at(home, at))
    }

    fn position_by(
        &self,
        hash: u64,
        mut is_it: impl FnMut(E::Ref<'_>) -> bool,
    ) -> Option<(Home, Position)> {
        let home = self.home(hash);
        let seed = self.seed;
        let at = self.tables[home.table].find(home.index, tag_of(hash), |p| {
            // SAFETY: a pointer in a slot came from into_raw and lives until it is removed.
            unsafe { is_it(E::by_ref(p)) && (seed.hash(E::key(p)) ^ hash) & !SPARE_BITS == 0 }
        })?;
        Some((home, at))
    }

    /// Finds the slot of a key's element, or the vacant slot for a new element, with a single probe
    /// of the table.
    #[inline]
    pub fn find_slot(&mut self, hash: u64, key: &[u8]) -> Slot<'_, E> {
        self.rehash_step();
        match self.position(hash, key) {
            Some((home, at)) => Slot::Occupied(OccupiedSlot::new(self, home, at)),
            None => Slot::Vacant(VacantSlot::new(self, hash)),
        }
    }

    /// Adds an element whose key must not be in the table.
    #[inline]
    pub fn insert_new(&mut self, hash: u64, element: E) -> E::Mut<'_> {
        self.rehash_step();
        self.add(hash, element)
    }

    /// Adds an element, or replaces the element with the same key and returns the old one.
    pub fn insert(&mut self, hash: u64, element: E) -> Option<E> {
        let p = element.into_raw();
        self.rehash_step();
        // SAFETY: `p` is owned here; its key is only read.
        match self.position(hash, unsafe { E::key(p) }) {
            // SAFETY: the position was just found; the old pointer left the table, so only this
            // code has it.
            Some((home, at)) => unsafe {
                Some(E::from_raw(self.tables[home.table].replace(at, p)))
            },
            None => {
                self.add_raw(hash, p);
                None
            }
        }
    }

    /// Replaces the element of a key by the result of `f`, which must have the same key. Returns
    /// false if the key is not in the table.
    #[inline]
    pub fn replace_with(&mut self, hash: u64, key: &[u8], f: impl FnOnce(E) -> E) -> bool {
        match self.find_slot(hash, key) {
            Slot::Occupied(slot) => {
                slot.replace_with(f);
                true
            }
            Slot::Vacant(_) => false,
        }
    }

    /// Removes and returns the element of a key.
    #[inline]
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<E> {
        self.rehash_step();
        let (home, at) = self.position(hash, key)?;
        Some(self.remove_at(home, at))
    }

    fn remove_at(&mut self, home: Home, at: Position) -> E {
        // SAFETY: each of the two callers has just found the position.
        let p = unsafe { self.tables[home.table].remove(home.index, at) };
        self.len -= 1;
        self.shrink_if_sparse();
        // SAFETY: the pointer left the table, so only this code has it.
        unsafe { E::from_raw(p) }
    }

    #[inline]
    fn add(&mut self, hash: u64, element: E) -> E::Mut<'_> {
        let p = element.into_raw();
        self.add_raw(hash, p);
        // SAFETY: the element lives in this table, which is borrowed exclusively.
        unsafe { E::by_mut(p, None) }
    }

    #[inline]
    fn add_raw(&mut self, hash: u64, p: NonNull<u8>) {
        if self.tables[0].buckets() == 0 {
            self.tables[0] = Table::with_buckets(1);
        }
        let home = self.home(hash);
        self.tables[home.table].push(home.index, tag_of(hash), p);
        self.len += 1;
        self.grow_if_full();
    }

    /// Prefetches the fields of this struct that [`HashTable::prefetch_bucket`] reads.
    #[inline]
    pub fn prefetch_header(&self) {
        prefetch(&self.tables[0]);
        prefetch(&self.rehash_at);
    }

    /// A hint where the buckets are now, for later prefetches.
    #[inline]
    pub fn bucket_hint(&self) -> BucketHint {
        let table = &self.tables[usize::from(self.is_rehashing())];
        let first = table.home(0).as_ptr() as u64;
        BucketHint(first | u64::from((table.mask() as u64).count_ones()))
    }

    /// Prefetches the home bucket of a hash for a later look-up.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        let home = self.home(hash);
        prefetch(self.tables[home.table].home(home.index).as_ptr());
    }

    /// Prefetches the elements whose tag is that of the hash. Called after `prefetch_bucket`, when
    /// the bucket has been loaded.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let home = self.home(hash);
        let Some(bucket) = self.tables[home.table].chain(home.index).next() else {
            return;
        };
        let mut matches = bucket.matches(tag_of(hash));
        if matches == 0
            && let Some(child) = bucket.child()
        {
            prefetch(child.as_ptr());
        }
        while matches != 0 {
            let p = bucket.get(matches.trailing_zeros() as usize);
            prefetch_element(p, LOOKED_UP_BYTES);
            matches &= matches - 1;
        }
    }
}

/// Methods that resize a table.
impl<E: Element> HashTable<E> {
    /// Whether elements are being moved to an array of buckets of another size.
    pub fn is_rehashing(&self) -> bool {
        self.tables[1].buckets() != 0
    }

    /// Begins to grow or shrink the table if that is due, as when the policy did not allow it
    /// before.
    pub fn resize_if_due(&mut self) {
        self.grow_if_full();
        self.shrink_if_sparse();
    }

    /// Limits the size of a new array of buckets to `bytes`, so that keys need not be evicted to
    /// make room for the array.
    #[inline]
    pub fn set_headroom(&mut self, bytes: usize) {
        self.headroom = bytes;
    }

    /// Makes room for `total` elements before a bulk load. A rehash that is in progress is
    /// completed first. The caller must limit a `total` that comes from a client or a file.
    pub fn reserve(&mut self, total: usize) {
        if buckets_for(total) <= self.tables[0].buckets() {
            return;
        }
        while self.is_rehashing() {
            self.move_bucket();
        }
        if buckets_for(total) > self.tables[0].buckets() {
            self.start_rehash(buckets_for(total));
        }
    }

    /// Moves buckets for about `budget`. Returns true if the table is still rehashing.
    pub fn rehash_for(&mut self, budget: Duration) -> bool {
        const STEPS_PER_CLOCK: usize = 64;
        let start = Instant::now();
        while self.rehash_steps(STEPS_PER_CLOCK) {
            if start.elapsed() >= budget {
                return true;
            }
        }
        false
    }

    /// Moves up to `steps` buckets. Returns true if the table is still rehashing and the resize
    /// policy allows more moves.
    pub fn rehash_steps(&mut self, steps: usize) -> bool {
        for _ in 0..steps {
            if !self.may_rehash() {
                return false;
            }
            self.move_bucket();
        }
        self.may_rehash()
    }

    #[inline(always)]
    fn rehash_step(&mut self) {
        if self.is_rehashing() && self.may_rehash() {
            self.move_bucket();
        }
    }

    fn may_rehash(&self) -> bool {
        self.is_rehashing() && self.may_resize(self.tables[0].buckets())
    }

    /// Whether the resize policy allows an array of `buckets` buckets in place of the present one.
    fn may_resize(&self, buckets: usize) -> bool {
        match policy() {
            ResizePolicy::Allow | ResizePolicy::AtOnce => true,
            ResizePolicy::Avoid => self.len > buckets * GROW_LOAD * AVOID_FACTOR,
            ResizePolicy::Forbid => false,
        }
    }

    #[inline(always)]
    fn grow_if_full(&mut self) {
        let buckets = self.tables[0].buckets();
        if self.len > buckets * GROW_LOAD && !self.is_rehashing() && self.may_resize(buckets) {
            let wanted = buckets_for(self.len);
            let fits = wanted * size_of::<Bucket>() <= self.headroom;
            if fits || self.len > buckets * GROW_LOAD * AVOID_FACTOR {
                self.start_rehash(wanted);
            }
        }
    }

    #[inline(always)]
    fn shrink_if_sparse(&mut self) {
        let buckets = self.tables[0].buckets();
        if self.len * SHRINK_FACTOR >= buckets * GROW_LOAD || policy() != ResizePolicy::Allow {
            return;
        }
        if self.len == 0 {
            // One bucket is kept, so that repeated insertions and removals need no allocation.
            if self.buckets() > 1 {
                self.tables = [Table::with_buckets(1), Table::empty()];
                self.rehash_at = 0;
            }
        } else if buckets > 1 && !self.is_rehashing() {
            self.start_rehash(buckets_for(self.len * 2));
        }
    }

    fn start_rehash(&mut self, buckets: usize) {
        let target = Table::with_buckets(buckets);
        if self.len == 0 {
            self.tables[0] = target;
        } else {
            self.tables[1] = target;
            self.prefetch_next();
            while policy() == ResizePolicy::AtOnce && self.is_rehashing() {
                self.move_bucket();
            }
        }
    }

    /// Moves the elements of the next bucket that has elements, after skipping at most
    /// [`EMPTY_VISITS`] empty buckets.
    fn move_bucket(&mut self) {
        let [from, to] = &mut self.tables;
        let last = (self.rehash_at + EMPTY_VISITS).min(from.buckets() - 1);
        while self.rehash_at < last && from.chain_len(self.rehash_at) == 0 {
            self.rehash_at += 1;
        }
        let (seed, mask) = (self.seed, to.mask());
        from.drain_chain(self.rehash_at, |tag, p| {
            // SAFETY: the element lives in this table; its key is only read.
            let hash = seed.hash(unsafe { E::key(p) });
            to.push(hash as usize & mask, tag, p);
        });
        self.rehash_at += 1;
        if self.rehash_at == self.tables[0].buckets() {
            self.finish_rehash();
        } else {
            self.prefetch_next();
        }
    }

    /// Prefetches the elements of the bucket that moves next, whose keys will be hashed.
    fn prefetch_next(&self) {
        if let Some(bucket) = self.tables[0].chain(self.rehash_at).next() {
            (0..bucket.count()).for_each(|slot| prefetch(bucket.get(slot).as_ptr()));
        }
    }

    fn finish_rehash(&mut self) {
        self.tables[0] = std::mem::replace(&mut self.tables[1], Table::empty());
        self.rehash_at = 0;
        self.grow_if_full();
    }

    /// Drops all elements and both arrays of buckets.
    pub fn clear(&mut self) {
        drop(self.drain());
    }

    /// Removes and returns all elements. The table is empty afterwards and keeps its seed.
    pub fn drain(&mut self) -> IntoIter<E> {
        let mut fresh = HashTable::new(self.seed);
        fresh.headroom = self.headroom;
        std::mem::replace(self, fresh).into_iter()
    }
}

impl<E: Element> Drop for HashTable<E> {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        for table in &mut self.tables {
            for index in 0..table.buckets() {
                // SAFETY: the pointer leaves the table here, so only this code has it.
                table.drain_chain(index, |_, p| drop(unsafe { E::from_raw(p) }));
            }
        }
    }
}
