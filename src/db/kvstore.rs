//! The store of the keys of one database. No other code owns a hash table of keys.
//!
//! ```text
//!   One     [ one hash table                                   ]        a server by itself
//!   BySlot  [ table of slot 0 | table of slot 1 | ... | 16,383 ]        a cluster node
//!             `--------- group 0, 128 slots ---------´
//! ```
//!
//! A cluster node must list, count, move and drop the keys of one slot, so each slot has a hash
//! table of its own there. The variant, one table or tables by slot, is chosen at start.
//!
//! # The slot is in the hash
//!
//! The lowest bits of a hash select the bucket, and its highest byte is the tag. A table of one
//! slot does not use the bits between, so [`KeyHasher`] writes the slot into them:
//!
//! ```text
//!   63     56 55  54 53            40 39                              0
//!  +---------+------+----------------+---------------------------------+
//!  |   tag   |      |      slot      |          bucket index           |
//!  +---------+------+----------------+---------------------------------+
//! ```
//!
//! A hash therefore identifies its table. The slot is computed once, where the key is hashed (while
//! a request is parsed ahead), and every look-up, prefetch and index of expiry times that has the
//! hash has the slot too.
//!
//! # SCAN
//!
//! With a table for each slot the cursor is `cursor inside the table << 14 | slot`, as in Redis: a
//! slot is scanned to its end, then the next slot that has keys.
//!
//! # Invariants
//!
//! - `len` and `group_len` are the sums of the tables' lengths (test
//!   `both_variants_follow_the_twin`). After an insertion through [`KvStore::find_slot`], the
//!   caller must call [`KvStore::inserted`], which counts the key.
//! - A key is in the table of its slot: every hash comes from the [`KeyHasher`] with which the
//!   store was created.
//!
//! # Costs
//!
//! `One` adds a test of the variant to each operation. `BySlot` adds 1.9 MB for a database with at
//! least one key, and nothing for an empty database; a random key costs a walk over at most 256
//! counts of keys.
//!
//! Rejected: one table and an index of keys by slot (16 bytes for each key); a Fenwick tree of
//! lengths (14 additions for each added or removed key; a group's count takes one).

use std::ops::ControlFlow;
use std::time::Duration;

use rand::RngExt;

use crate::db::slot::{SLOTS, TOP, pattern_slot, top_slot};
use crate::ds::crc16::Crc16;
use crate::ds::hashtable::{BucketHint, HashTable, SPARE_BITS, Slot};
use crate::ds::siphash::HashSeed;
use crate::sys::mover::Mover;
use crate::types::{Key, KeyMut, KeyRef};

/// The number of the lowest bit of the slot in a hash.
const SLOT_SHIFT: u32 = 40;
const SLOT_BITS: u32 = 14;
const SLOT_MASK: u64 = (SLOTS as u64 - 1) << SLOT_SHIFT;
/// The number of slots in a group; the keys of each group are counted.
const GROUP: usize = 128;
/// The number of tables that one call of [`KvStore::maintain`] checks on a cluster node.
const TABLES_PER_CALL: usize = 1024;

const _: () = assert!(SLOT_MASK == SPARE_BITS);
const _: () = assert!(SLOTS == 1 << SLOT_BITS && SLOTS.is_multiple_of(GROUP));

/// Hashes keys for a [`KvStore`].
#[derive(Clone, Copy)]
pub struct KeyHasher {
    seed: HashSeed,
    /// The function that computes slots; `None` if hashes contain no slot, as in a server without
    /// cluster mode.
    slots: Option<Crc16>,
}

impl KeyHasher {
    /// A hasher of keys; `by_slot` says whether hashes contain the slot, for stores with a table
    /// for each slot.
    pub fn new(seed: HashSeed, by_slot: bool) -> KeyHasher {
        KeyHasher {
            seed,
            slots: by_slot.then(Crc16::detect),
        }
    }

    /// Whether the hashes contain the slot.
    #[inline]
    pub fn is_by_slot(&self) -> bool {
        self.slots.is_some()
    }

    /// The hash of a key, which contains the key's slot if stores have a table for each slot.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        match self.slots {
            None => self.seed.hash(key),
            Some(crc16) => hash_with_slot(self.seed, crc16, key),
        }
    }
}

#[inline(always)]
fn hash_with_slot(seed: HashSeed, crc16: Crc16, key: &[u8]) -> u64 {
    let slot = top_slot(crc16, key) >> (TOP - SLOT_SHIFT);
    seed.hash(key) & !SLOT_MASK | slot
}

/// The keys of a database, as needed while requests are parsed ahead: hashing and prefetching. The
/// loop over the keys of a batch of requests is compiled once for a store with one table, and once
/// for a store with tables by slot.
pub trait Ahead: Copy {
    /// Whether the store has a hash table for each slot.
    const BY_SLOT: bool;
    /// The hash of a key, see [`KeyHasher`].
    fn hash(self, key: &[u8]) -> u64;
    /// Prefetches the bucket of a hash for a later look-up.
    fn prefetch_bucket(self, hash: u64);
    /// Prefetches the entries that match a hash; the hash's bucket should be in the processor's
    /// cache already.
    fn prefetch_entry(self, hash: u64);
}

/// Hashing and prefetching for a store with one table; without a table, nothing is prefetched.
#[derive(Clone, Copy)]
pub struct OneAhead<'a> {
    seed: HashSeed,
    table: Option<&'a HashTable<Key>>,
}

impl Ahead for OneAhead<'_> {
    const BY_SLOT: bool = false;

    #[inline(always)]
    fn hash(self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    #[inline(always)]
    fn prefetch_bucket(self, hash: u64) {
        if let Some(table) = self.table {
            table.prefetch_bucket(hash);
        }
    }

    #[inline(always)]
    fn prefetch_entry(self, hash: u64) {
        if let Some(table) = self.table {
            table.prefetch_entry(hash);
        }
    }
}

/// Hashing and prefetching for a store with a table for each slot; without tables, nothing is
/// prefetched.
#[derive(Clone, Copy)]
pub struct SlotsAhead<'a> {
    seed: HashSeed,
    crc16: Crc16,
    directory: Option<&'a Directory>,
}

impl Ahead for SlotsAhead<'_> {
    const BY_SLOT: bool = true;

    #[inline(always)]
    fn hash(self, key: &[u8]) -> u64 {
        hash_with_slot(self.seed, self.crc16, key)
    }

    #[inline(always)]
    fn prefetch_bucket(self, hash: u64) {
        if let Some(directory) = self.directory {
            directory.prefetch_bucket(hash);
        }
    }

    #[inline(always)]
    fn prefetch_entry(self, hash: u64) {
        if let Some(directory) = self.directory {
            directory.tables[slot_of(hash)].prefetch_entry(hash);
        }
    }
}

/// Hashing and prefetching for a store of either variant.
pub enum AnyAhead<'a> {
    One(OneAhead<'a>),
    BySlot(SlotsAhead<'a>),
}

/// The slot that a hash contains; the hash must come from a [`KeyHasher`] for stores with a table
/// for each slot.
#[inline]
pub fn slot_in(hash: u64) -> u16 {
    slot_of(hash) as u16
}

#[inline]
fn slot_of(hash: u64) -> usize {
    ((hash & SLOT_MASK) >> SLOT_SHIFT) as usize
}

/// The keys of one database, which are found by hash and name.
pub struct KvStore {
    hasher: KeyHasher,
    tables: Tables,
}

enum Tables {
    One(HashTable<Key>),
    BySlot(Box<BySlot>),
}

struct BySlot {
    /// One table for each slot; `None` until the first key is added.
    directory: Option<Box<Directory>>,
    len: usize,
    /// The number of keys in each group of [`GROUP`] slots.
    group_len: [usize; SLOTS / GROUP],
    /// The memory limit of a growing table, see [`HashTable::set_headroom`].
    headroom: usize,
    /// The slot of the table at which the next [`KvStore::maintain`] continues.
    maintain_next: usize,
    /// The slots whose keys are hidden, one bit for each slot, see [`KvStore::hide`].
    hidden: Option<Box<[u64; SLOTS / 64]>>,
}

/// The tables of all slots.
struct Directory {
    /// For each slot, a hint where the buckets of its table are, for prefetching. The hints take
    /// 128 KB; the headers of all tables take 1.7 MB, more than a core's nearest caches. A hint may
    /// be out of date, which costs a useless prefetch until the next change of the slot or the next
    /// call of [`KvStore::maintain`].
    hints: [BucketHint; SLOTS],
    tables: Box<[HashTable<Key>; SLOTS]>,
}

impl Directory {
    /// Creates the tables of all slots. Not inlined, so that look-ups, which rarely call this
    /// function, keep their values in registers.
    #[cold]
    #[inline(never)]
    fn new(seed: HashSeed) -> Box<Directory> {
        let tables: Box<[_]> = (0..SLOTS).map(|_| HashTable::new(seed)).collect();
        let Ok(tables) = tables.try_into() else {
            unreachable!("a table for each slot");
        };
        Box::new(Directory {
            hints: [BucketHint::default(); SLOTS],
            tables,
        })
    }

    /// Prefetches the bucket of a hash, and the header of the table of its slot.
    #[inline(always)]
    fn prefetch_bucket(&self, hash: u64) {
        self.tables[slot_of(hash)].prefetch_header();
        self.hints[slot_of(hash)].prefetch(hash);
    }

    #[inline]
    fn note_buckets(&mut self, slot: usize) {
        self.hints[slot] = self.tables[slot].bucket_hint();
    }
}

impl KvStore {
    /// An empty store, which allocates memory when the first key is added.
    pub fn new(hasher: KeyHasher) -> KvStore {
        let tables = if hasher.is_by_slot() {
            Tables::BySlot(Box::new(BySlot {
                directory: None,
                len: 0,
                group_len: [0; SLOTS / GROUP],
                headroom: usize::MAX,
                maintain_next: 0,
                hidden: None,
            }))
        } else {
            Tables::One(HashTable::new(hasher.seed))
        };
        KvStore { hasher, tables }
    }

    /// The hash of a key, see [`KeyHasher`].
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// The number of keys.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.tables {
            Tables::One(table) => table.len(),
            Tables::BySlot(slots) => slots.len,
        }
    }

    /// Whether there are no keys.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table in which a key with this hash is; `None` while a store by slot has no tables.
    #[inline]
    fn table(&self, hash: u64) -> Option<&HashTable<Key>> {
        match &self.tables {
            Tables::One(table) => Some(table),
            Tables::BySlot(slots) => slots.get(slot_of(hash)),
        }
    }

    /// All hash tables of the store: a single one, or one for each slot, in the order of the slots.
    pub fn tables(&self) -> &[HashTable<Key>] {
        match &self.tables {
            Tables::One(table) => std::slice::from_ref(table),
            Tables::BySlot(slots) => slots.tables(),
        }
    }

    /// The entry of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<KeyRef<'_>> {
        self.table(hash)?.find(hash, key)
    }

    /// The entry of a key, for a change in place.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<KeyMut<'_>> {
        match &mut self.tables {
            Tables::One(table) => table.find_mut(hash, key),
            Tables::BySlot(slots) => slots.get_mut(slot_of(hash))?.find_mut(hash, key),
        }
    }

    /// An entry with this hash for which `is_it` returns true, for indexes that store hashes
    /// instead of keys.
    pub fn find_by(&self, hash: u64, is_it: impl FnMut(KeyRef<'_>) -> bool) -> Option<KeyRef<'_>> {
        self.table(hash)?.find_by(hash, is_it)
    }

    /// The place of a key, occupied or vacant. After an insertion into a vacant place,
    /// [`KvStore::inserted`] must be called.
    #[inline]
    pub fn find_slot(&mut self, hash: u64, key: &[u8]) -> Slot<'_, Key> {
        if matches!(&self.tables, Tables::BySlot(slots) if slots.directory.is_none()) {
            return self.find_slot_in_new(hash, key);
        }
        match &mut self.tables {
            Tables::One(table) => table.find_slot(hash, key),
            Tables::BySlot(slots) => slots.table_mut(self.hasher.seed, hash).find_slot(hash, key),
        }
    }

    /// [`KvStore::find_slot`] in a store whose tables must be created first. A function of its own,
    /// so that the usual look-up keeps its values in registers.
    #[cold]
    #[inline(never)]
    fn find_slot_in_new(&mut self, hash: u64, key: &[u8]) -> Slot<'_, Key> {
        match &mut self.tables {
            Tables::One(table) => table.find_slot(hash, key),
            Tables::BySlot(slots) => slots.table_mut(self.hasher.seed, hash).find_slot(hash, key),
        }
    }

    /// Counts a key that was inserted into the vacant place of [`KvStore::find_slot`].
    #[inline]
    pub fn inserted(&mut self, hash: u64) {
        if let Tables::BySlot(slots) = &mut self.tables {
            slots.count(hash, 1);
        }
    }

    /// Adds an entry. Returns the old entry of the same name, if there was one.
    #[inline]
    pub fn insert(&mut self, hash: u64, entry: Key) -> Option<Key> {
        match &mut self.tables {
            Tables::One(table) => table.insert(hash, entry),
            Tables::BySlot(slots) => {
                let old = slots.table_mut(self.hasher.seed, hash).insert(hash, entry);
                slots.count(hash, isize::from(old.is_none()));
                old
            }
        }
    }

    /// Replaces an entry by the result of `f`. Returns false if the key does not exist.
    pub fn replace_with(&mut self, hash: u64, key: &[u8], f: impl FnOnce(Key) -> Key) -> bool {
        match &mut self.tables {
            Tables::One(table) => table.replace_with(hash, key, f),
            Tables::BySlot(slots) => slots
                .get_mut(slot_of(hash))
                .is_some_and(|table| table.replace_with(hash, key, f)),
        }
    }

    /// Removes and returns an entry.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Key> {
        match &mut self.tables {
            Tables::One(table) => table.remove(hash, key),
            Tables::BySlot(slots) => {
                let old = slots.get_mut(slot_of(hash))?.remove(hash, key)?;
                slots.count(hash, -1);
                Some(old)
            }
        }
    }

    /// Hides the keys of slots that are being imported and still belong to another node. Look-ups
    /// by name and walks over all keys find hidden keys; SCAN, KEYS, random keys and
    /// [`KvStore::visible_len`] leave them out.
    pub fn hide(&mut self, slots: impl Iterator<Item = u16>) {
        let Tables::BySlot(by_slot) = &mut self.tables else {
            return;
        };
        let mut bits = Box::new([0; SLOTS / 64]);
        let mut any = false;
        for slot in slots {
            bits[usize::from(slot) / 64] |= 1 << (slot % 64);
            any = true;
        }
        by_slot.hidden = any.then_some(bits);
    }

    /// Whether the keys of any slot are hidden, as the slot is being imported.
    #[inline]
    pub fn has_hidden(&self) -> bool {
        matches!(&self.tables, Tables::BySlot(slots) if slots.hidden.is_some())
    }

    /// Whether the keys of a slot are hidden, as the slot is being imported.
    pub fn is_hidden(&self, slot: u16) -> bool {
        matches!(&self.tables, Tables::BySlot(slots) if slots.hides(usize::from(slot)))
    }

    /// The number of keys, without those of hidden slots (slots that are being imported).
    pub fn visible_len(&self) -> usize {
        match &self.tables {
            Tables::BySlot(slots) if slots.hidden.is_some() => slots.visible_len(),
            _ => self.len(),
        }
    }

    /// Removes and returns all keys. The store is empty afterwards; hidden slots stay hidden.
    pub fn take(&mut self) -> KvStore {
        let mut empty = KvStore::new(self.hasher);
        if let (Tables::BySlot(new), Tables::BySlot(old)) = (&mut empty.tables, &self.tables) {
            new.hidden.clone_from(&old.hidden);
        }
        std::mem::replace(self, empty)
    }

    /// Whether the store has a hash table for each slot.
    #[inline]
    pub fn is_by_slot(&self) -> bool {
        matches!(self.tables, Tables::BySlot(_))
    }

    /// Prefetches the bucket of a hash for a later look-up, and, in a store by slot, the header of
    /// the slot's table.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        match &self.tables {
            Tables::One(table) => table.prefetch_bucket(hash),
            Tables::BySlot(slots) => {
                if let Some(directory) = &slots.directory {
                    directory.prefetch_bucket(hash);
                }
            }
        }
    }

    /// The part of the store that hashes and prefetches while requests are parsed ahead. If
    /// `fetches` is false, this part only hashes.
    #[inline]
    pub fn ahead(&self, fetches: bool) -> AnyAhead<'_> {
        let seed = self.hasher.seed;
        match (&self.tables, self.hasher.slots) {
            (Tables::BySlot(slots), Some(crc16)) => AnyAhead::BySlot(SlotsAhead {
                seed,
                crc16,
                directory: slots.directory.as_deref().filter(|_| fetches),
            }),
            _ => AnyAhead::One(OneAhead {
                seed,
                table: self.tables().first().filter(|_| fetches),
            }),
        }
    }

    /// One call of SCAN: passes some entries to `f` and returns the next cursor, 0 at the end.
    /// Every key that is present from the first call of a SCAN to the last is passed at least once.
    pub fn scan<'a>(&'a self, cursor: u64, f: impl FnMut(KeyRef<'a>)) -> u64 {
        match &self.tables {
            Tables::One(table) => table.scan(cursor, f),
            Tables::BySlot(slots) => slots.scan(cursor, f),
        }
    }

    /// One call of SCAN, as [`KvStore::scan`]; if a `slot` is given, only the keys of this slot
    /// need to be passed to `f`.
    pub fn scan_in<'a>(&'a self, slot: Option<u16>, cursor: u64, f: impl FnMut(KeyRef<'a>)) -> u64 {
        match (&self.tables, slot) {
            (Tables::BySlot(slots), Some(slot)) => slots.scan_one(usize::from(slot), cursor, f),
            _ => self.scan(cursor, f),
        }
    }

    /// Scans the keys of one slot by a cursor that is valid for this slot. Returns the next cursor,
    /// 0 at the end and for a slot that is being imported.
    pub fn scan_slot<'a>(&'a self, slot: u16, cursor: u64, f: impl FnMut(KeyRef<'a>)) -> u64 {
        let cursor = cursor << SLOT_BITS | u64::from(slot);
        self.scan_in(Some(slot), cursor, f) >> SLOT_BITS
    }

    /// The first slot from `slot` on that has keys and is not being imported; `None` if there is
    /// none, or no table for each slot.
    pub fn occupied_from(&self, slot: u16) -> Option<u16> {
        match &self.tables {
            Tables::One(_) => None,
            Tables::BySlot(slots) => slots.occupied_from(slot.into()).map(|slot| slot as u16),
        }
    }

    /// A random key, but none of a hidden slot (one that is being imported); all other keys are
    /// equally likely.
    pub fn random(&self, rng: &mut impl rand::Rng) -> Option<KeyRef<'_>> {
        match &self.tables {
            Tables::One(table) => table.random(rng),
            Tables::BySlot(slots) => slots.random_table(rng)?.random(rng),
        }
    }

    /// The number of keys of a slot; 0 if there are no tables by slot.
    pub fn slot_len(&self, slot: u16) -> usize {
        self.slot_table(slot).map_or(0, HashTable::len)
    }

    /// The keys of a slot, also of a hidden one, in no order; none if there are no tables by slot.
    pub fn slot_keys(&self, slot: u16) -> impl Iterator<Item = KeyRef<'_>> {
        self.slot_table(slot).into_iter().flat_map(HashTable::iter)
    }

    fn slot_table(&self, slot: u16) -> Option<&HashTable<Key>> {
        match &self.tables {
            Tables::One(_) => None,
            Tables::BySlot(slots) => slots.get(usize::from(slot)),
        }
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = KeyRef<'_>> {
        self.tables().iter().flat_map(HashTable::iter)
    }

    /// All keys that may match a glob pattern, without those of hidden slots (slots that are being
    /// imported), in no order; the caller must still compare each key with the pattern.
    pub fn iter_matching(&self, pattern: &[u8]) -> impl Iterator<Item = KeyRef<'_>> {
        let tables = self.tables();
        let (first, tables) = match (&self.tables, pattern_slot(pattern)) {
            (Tables::BySlot(_), Some(slot)) if !tables.is_empty() => {
                (usize::from(slot), &tables[usize::from(slot)..][..1])
            }
            _ => (0, tables),
        };
        let shown = move |at: usize| match &self.tables {
            Tables::One(_) => true,
            Tables::BySlot(slots) => !slots.hides(first + at),
        };
        let tables = tables.iter().enumerate();
        let tables = tables.filter(move |(at, _)| shown(*at));
        tables.flat_map(|(_, table)| table.iter())
    }

    /// Passes every key to `visit` until `visit` returns `Break`; the keys that follow are
    /// prefetched.
    #[inline]
    pub fn try_walk<'a, B>(
        &'a self,
        mut visit: impl FnMut(KeyRef<'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for table in self.tables() {
            table.try_walk(&mut visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Active defragmentation: offers the tables and entries to the mover, from `cursor` on, until
    /// the mover's budget is spent. Passes each entry to `visit`, which moves the memory that the
    /// entry owns. The cursor is that of SCAN; returns the next cursor, 0 at the end.
    pub fn relocate(
        &mut self,
        cursor: u64,
        mover: &mut Mover,
        mut visit: impl FnMut(KeyMut<'_>, &mut Mover),
    ) -> u64 {
        let slots = match &mut self.tables {
            Tables::One(table) => return table.relocate(cursor, mover, visit),
            Tables::BySlot(slots) => slots,
        };
        let (mut slot, mut inner) = ((cursor & (SLOTS as u64 - 1)) as usize, cursor >> SLOT_BITS);
        while slot < SLOTS
            && let Some(table) = slots.get_mut(slot)
        {
            inner = table.relocate(inner, mover, &mut visit);
            if inner != 0 {
                return inner << SLOT_BITS | slot as u64;
            }
            mover.visited(1);
            slot += 1;
            if mover.is_spent() && slot < SLOTS {
                return slot as u64;
            }
        }
        0
    }

    /// The number of bytes of the hash tables, without the entries.
    pub fn memory_bytes(&self) -> usize {
        let buckets: usize = self.tables().iter().map(HashTable::memory_bytes).sum();
        match &self.tables {
            Tables::One(_) => buckets,
            Tables::BySlot(slots) if slots.directory.is_some() => {
                buckets + size_of::<Directory>() + SLOTS * size_of::<HashTable<Key>>()
            }
            Tables::BySlot(_) => buckets,
        }
    }

    /// The number of bytes of hash tables whose entries are being moved to a table of another size;
    /// `None` if no table is being resized.
    pub fn rehashing_bytes(&self) -> Option<usize> {
        let moving = self.tables().iter().filter(|table| table.is_rehashing());
        moving.map(HashTable::rehashing_bytes).reduce(|a, b| a + b)
    }

    /// Limits the memory of a hash table that grows, in bytes, since `maxmemory` limits the
    /// server's memory.
    #[inline]
    pub fn set_headroom(&mut self, bytes: usize) {
        match &mut self.tables {
            Tables::One(table) => table.set_headroom(bytes),
            Tables::BySlot(slots) => slots.set_headroom(bytes),
        }
    }

    /// Makes room for `total` keys before a bulk load; the caller must limit a number that comes
    /// from a file. Does nothing for tables by slot, which grow one by one, as the distribution of
    /// the keys over the slots is not known.
    pub fn reserve(&mut self, total: usize) {
        if let Tables::One(table) = &mut self.tables {
            table.reserve(total);
        }
    }

    /// Called by the cron: begins the resizing of tables for which it is due, and moves buckets of
    /// tables that are being resized for about `budget`. Returns true if the budget is used up.
    pub fn maintain(&mut self, budget: Duration) -> bool {
        let slots = match &mut self.tables {
            Tables::One(table) => return maintain_table(table, budget),
            Tables::BySlot(slots) => slots,
        };
        let Some(directory) = &mut slots.directory else {
            return false;
        };
        for _ in 0..TABLES_PER_CALL {
            let slot = slots.maintain_next;
            slots.maintain_next = (slot + 1) % SLOTS;
            let is_spent = maintain_table(&mut directory.tables[slot], budget);
            directory.note_buckets(slot);
            if is_spent {
                return true;
            }
        }
        false
    }
}

/// Begins or continues the resizing of one table. Returns true if buckets were moved.
fn maintain_table(table: &mut HashTable<Key>, budget: Duration) -> bool {
    table.resize_if_due();
    let moves = table.is_rehashing();
    if moves {
        table.rehash_for(budget);
    }
    moves
}

impl BySlot {
    /// The tables of all slots; empty until the first key is added.
    fn tables(&self) -> &[HashTable<Key>] {
        match &self.directory {
            Some(directory) => &*directory.tables,
            None => &[],
        }
    }

    /// The table of a slot; the slot must be below [`SLOTS`].
    #[inline]
    fn get(&self, slot: usize) -> Option<&HashTable<Key>> {
        Some(&self.directory.as_ref()?.tables[slot])
    }

    #[inline]
    fn get_mut(&mut self, slot: usize) -> Option<&mut HashTable<Key>> {
        Some(&mut self.directory.as_mut()?.tables[slot])
    }

    /// The table for a key with this hash, which is created with the others if need be, and gets
    /// the present limit of its memory.
    #[inline]
    fn table_mut(&mut self, seed: HashSeed, hash: u64) -> &mut HashTable<Key> {
        let directory = self.directory.get_or_insert_with(|| Directory::new(seed));
        let table = &mut directory.tables[slot_of(hash)];
        // If memory is not limited, `set_headroom` has removed the limits of all tables.
        if self.headroom != usize::MAX {
            table.set_headroom(self.headroom);
        }
        table
    }

    /// Limits the memory of tables that grow. A table gets the limit before a key is added to it;
    /// only the removal of the limit is passed to all tables at once.
    fn set_headroom(&mut self, bytes: usize) {
        if bytes == usize::MAX
            && let Some(directory) = &mut self.directory
        {
            let tables = directory.tables.iter_mut();
            tables.for_each(|table| table.set_headroom(bytes));
        }
        self.headroom = bytes;
    }

    /// Counts a key that was added (1) or removed (-1), for the store and the group of its slot.
    fn count(&mut self, hash: u64, change: isize) {
        if let Some(directory) = &mut self.directory {
            directory.note_buckets(slot_of(hash));
        }
        let group = &mut self.group_len[slot_of(hash) / GROUP];
        *group = group.wrapping_add_signed(change);
        self.len = self.len.wrapping_add_signed(change);
    }

    /// The first slot from `slot` on that has a key and is not being imported.
    fn occupied_from(&self, slot: usize) -> Option<usize> {
        let mut slot = slot;
        while slot < SLOTS {
            if slot.is_multiple_of(GROUP) && self.group_len[slot / GROUP] == 0 {
                slot += GROUP;
            } else if self.get(slot)?.is_empty() || self.hides(slot) {
                slot += 1;
            } else {
                return Some(slot);
            }
        }
        None
    }

    fn scan<'a>(&'a self, cursor: u64, f: impl FnMut(KeyRef<'a>)) -> u64 {
        let slot = (cursor & (SLOTS as u64 - 1)) as usize;
        let (slot, inner) = match self.get(slot) {
            Some(table) if !table.is_empty() && !self.hides(slot) => (slot, cursor >> SLOT_BITS),
            _ => match self.occupied_from(slot) {
                Some(slot) => (slot, 0),
                None => return 0,
            },
        };
        let Some(table) = self.get(slot) else {
            return 0;
        };
        match table.scan(inner, f) {
            0 => self.occupied_from(slot + 1).map_or(0, |slot| slot as u64),
            inner => inner << SLOT_BITS | slot as u64,
        }
    }

    /// Scans one slot of the store; with a cursor of an earlier slot, the scan begins at the start
    /// of `slot`.
    fn scan_one<'a>(&'a self, slot: usize, cursor: u64, f: impl FnMut(KeyRef<'a>)) -> u64 {
        let inner = match (cursor & (SLOTS as u64 - 1)) as usize {
            at if at < slot => 0,
            at if at == slot => cursor >> SLOT_BITS,
            _ => return 0,
        };
        let table = self.get(slot).filter(|_| !self.hides(slot));
        match table.map_or(0, |table| table.scan(inner, f)) {
            0 => 0,
            inner => inner << SLOT_BITS | slot as u64,
        }
    }

    #[inline]
    fn hides(&self, slot: usize) -> bool {
        let hidden = self.hidden.as_ref();
        hidden.is_some_and(|bits| bits[slot / 64] >> (slot % 64) & 1 == 1)
    }

    fn visible_len(&self) -> usize {
        let shown = self.tables().iter().enumerate();
        let shown = shown.filter(|(slot, _)| !self.hides(*slot));
        shown.map(|(_, table)| table.len()).sum()
    }

    /// A random table, with a probability in proportion to its keys. While slots are being
    /// imported, this is a walk over the tables of all slots.
    fn random_table(&self, rng: &mut impl rand::Rng) -> Option<&HashTable<Key>> {
        if self.hidden.is_none() {
            return self.random_of_all(rng);
        }
        let len = self.visible_len();
        let mut left = rng.random_range(0..len.max(1));
        let shown = self.tables().iter().enumerate();
        let mut shown = shown.filter(|(slot, _)| !self.hides(*slot));
        let found = shown.find(|(_, table)| {
            let here = left < table.len();
            left -= if here { 0 } else { table.len() };
            here
        });
        found.map(|(_, table)| table)
    }

    fn random_of_all(&self, rng: &mut impl rand::Rng) -> Option<&HashTable<Key>> {
        if self.len == 0 {
            return None;
        }
        let mut left = rng.random_range(0..self.len);
        let group = self.group_len.iter().position(|&len| {
            let here = left < len;
            left -= if here { 0 } else { len };
            here
        })?;
        self.tables()[group * GROUP..][..GROUP]
            .iter()
            .find(|table| {
                let here = left < table.len();
                left -= if here { 0 } else { table.len() };
                here
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::types::New;
    use crate::util::random::Random;

    /// A random operation of a test on a store, on one of few keys.
    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16),
        Slot(u16),
        Remove(u16),
        Replace(u16),
        Maintain,
        Take,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            40 => (0..600u16).prop_map(Op::Insert),
            40 => (0..600u16).prop_map(Op::Slot),
            20 => (0..600u16).prop_map(Op::Remove),
            10 => (0..600u16).prop_map(Op::Replace),
            5 => Just(Op::Maintain),
            1 => Just(Op::Take),
        ];
        proptest::collection::vec(op, 1..400)
    }

    fn name(n: u16) -> Vec<u8> {
        // A quarter of the keys are in one slot, by their hash tag; the others are in different
        // slots.
        match n % 4 {
            0 => format!("{{tag}}{n}").into_bytes(),
            _ => format!("key:{n}").into_bytes(),
        }
    }

    fn entry(n: u16, version: i64) -> Key {
        Key::new(&name(n), 0, 0, None, New::Int(version))
    }

    fn apply(store: &mut KvStore, twin: &mut BTreeMap<u16, i64>, op: &Op, version: i64) {
        match *op {
            Op::Insert(n) => {
                let old = store.insert(store.hash(&name(n)), entry(n, version));
                assert_eq!(old.is_some(), twin.insert(n, version).is_some());
            }
            Op::Slot(n) => {
                let hash = store.hash(&name(n));
                if let Slot::Vacant(slot) = store.find_slot(hash, &name(n)) {
                    slot.insert(entry(n, version));
                    store.inserted(hash);
                    assert_eq!(twin.insert(n, version), None);
                }
            }
            Op::Remove(n) => {
                let removed = store.remove(store.hash(&name(n)), &name(n));
                assert_eq!(removed.is_some(), twin.remove(&n).is_some());
            }
            Op::Replace(n) => {
                let hash = store.hash(&name(n));
                let done = store.replace_with(hash, &name(n), |_| entry(n, version));
                assert_eq!(done, twin.contains_key(&n));
                twin.entry(n).and_modify(|old| *old = version);
            }
            Op::Maintain => {
                store.maintain(Duration::from_micros(10));
            }
            Op::Take => {
                assert_eq!(store.take().iter().count(), twin.len());
                twin.clear();
            }
        }
    }

    fn names(store: &KvStore) -> Vec<Vec<u8>> {
        let mut all: Vec<_> = store.iter().map(|entry| entry.key().to_vec()).collect();
        all.sort();
        all
    }

    fn scanned(store: &KvStore) -> BTreeSet<Vec<u8>> {
        let (mut cursor, mut all) = (0, BTreeSet::new());
        loop {
            cursor = store.scan(cursor, |entry| {
                all.insert(entry.key().to_vec());
            });
            if cursor == 0 {
                return all;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn both_variants_follow_the_twin(ops in ops(), by_slot: bool, seed: u64) {
            let hasher = KeyHasher::new(HashSeed::new([seed, 2]), by_slot);
            let mut store = KvStore::new(hasher);
            let mut twin = BTreeMap::new();
            let mut rng = Random::from_seed(seed);
            for (version, op) in ops.iter().enumerate() {
                apply(&mut store, &mut twin, op, version as i64);
                prop_assert_eq!(store.len(), twin.len());
            }
            let mut wanted: Vec<_> = twin.keys().map(|&n| name(n)).collect();
            wanted.sort();
            prop_assert_eq!(names(&store), wanted.clone());
            prop_assert_eq!(scanned(&store), wanted.iter().cloned().collect());
            let walked = store.try_walk(|entry| {
                assert!(wanted.binary_search(&entry.key().to_vec()).is_ok());
                ControlFlow::<()>::Continue(())
            });
            prop_assert!(walked.is_continue());
            let random = store.random(rng.raw()).map(|entry| entry.key().to_vec());
            prop_assert_eq!(random.is_none(), wanted.is_empty());
            prop_assert!(random.is_none_or(|key| wanted.binary_search(&key).is_ok()));
            for name in &wanted {
                prop_assert!(store.find(store.hash(name), name).is_some());
                let hash = store.hash(name);
                prop_assert!(store.find_by(hash, |entry| entry.key() == name.as_slice()).is_some());
            }
        }
    }

    #[test]
    fn a_random_key_is_fair_whatever_slot_it_is_in() {
        let mut store = KvStore::new(KeyHasher::new(HashSeed::new([3, 4]), true));
        // The store has 30 keys in one slot and 10 keys in other slots.
        for n in (0..120).step_by(4).chain((1..40).step_by(4)) {
            store.insert(store.hash(&name(n)), entry(n, 0));
        }
        let mut rng = Random::from_seed(7);
        let mut tagged = 0;
        for _ in 0..4000 {
            let key = store.random(rng.raw()).expect("a key").key().to_vec();
            tagged += usize::from(key.starts_with(b"{tag}"));
        }
        assert!(
            (2800..3200).contains(&tagged),
            "{tagged} of 4000, not about 3000"
        );
    }
}
