//! Hashes: fields with values. A field may have a time to live.
//!
//! ```text
//!   Listpack   | field | value | field | value | ...      up to hash-max-listpack-entries of them, in order of arrival
//!   Table      fields:  hash(field) -> [ header | expire_at? | field | value ]        one allocation, see ds::field
//!              expires: (expire_at, hash(field)), earliest first                      see ds::expires
//! ```
//!
//! A listpack becomes a table when it would exceed the limits, and a table never becomes a listpack
//! again.
//!
//! **A hash with a volatile field is a table**, whatever its size. Redis 7.4 keeps small hashes
//! with volatile fields in a listpack of triples (`listpackex`). Such a listpack saves memory for a
//! hash of ten fields with TTLs, but every reader of a listpack must handle two layouts, and the
//! triples are ordered by time, so that each HEXPIRE moves bytes. Valkey 9 also stores each hash
//! with volatile fields as a hash table.
//!
//! **Invariants**
//! - a listpack alternates fields and values, and no field occurs twice
//!   (`tests::agrees_with_a_map`);
//! - a field is in `expires` exactly when it has an expiry time, under that time
//!   (`FieldTable::check`, called by this test);
//! - `hidden` is the number of fields whose expiry time is before `hidden_before` (checked by
//!   `FieldTable::check`, too).
//!
//! Expired fields are removed before a command reads the hash (`keyspace::expire`), so only
//! [`Hash::pop_expired`] compares times with a clock. If there are too many expired fields to
//! remove at once, or this server may not remove them (a replica, a pause), these fields are hidden
//! ([`Hash::hide_expired`]): commands don't see hidden fields, and [`Hash::len`] does not count
//! them. Files, DUMP and DEBUG DIGEST include hidden fields ([`Hash::try_each`],
//! [`Hash::total_len`]), because the deletion of these fields is propagated later, also to a copy
//! of the data set.

use std::ops::ControlFlow;

use crate::ds::expires::Expires;
use crate::ds::field::{Field, FieldRef};
use crate::ds::hashtable::{HashTable, Slot, Stats};
use crate::ds::listpack::{Element, Listpack, Pos, is_keyed, safe_to_add};
use crate::ds::relocate::{Cursor, Relocate, in_turn};
use crate::ds::siphash::HashSeed;
use crate::error::Error;
use crate::sys::mover::Mover;
use crate::types::KeyRef;
use crate::types::lengths::KeyWrite;
use crate::types::part::{self, Held, Opened};
use crate::util::random::Random;

/// A hash in one of its two encodings.
#[derive(Clone)]
pub enum Hash {
    Listpack(Listpack),
    Table(Box<FieldTable>),
}

const _: () = assert!(size_of::<Hash>() <= 16);

/// The fields of a large hash, or of a hash with volatile fields, as a hash table.
pub struct FieldTable {
    fields: HashTable<Field>,
    expires: Expires,
    /// A Unix time in milliseconds: fields that expire before this time are hidden until they are
    /// removed.
    hidden_before: i64,
    hidden: usize,
}

/// The settings `hash-max-listpack-entries` and `-value`, and the seed for a new table.
#[derive(Clone, Copy, Debug)]
pub struct HashLimits {
    /// The maximum number of fields of a listpack (`hash-max-listpack-entries`).
    pub max_entries: usize,
    /// The maximum number of bytes of a field or value of a listpack (`hash-max-listpack-value`).
    pub max_value: usize,
    pub seed: HashSeed,
}

/// What happens to the time to live of a field that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldTtl {
    /// The time to live stays as it is.
    Keep,
    /// The time to live is removed.
    Clear,
    /// The field expires at this Unix time in milliseconds.
    At(i64),
}

impl FieldTtl {
    fn after(self, was: Option<i64>) -> Option<i64> {
        match self {
            FieldTtl::Keep => was,
            FieldTtl::Clear => None,
            FieldTtl::At(at) => Some(at),
        }
    }
}

/// Active defragmentation moves the fields first, bucket by bucket, then their expiry times.
impl Relocate for FieldTable {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        let fields = |table: &mut FieldTable, cursor: Cursor, mover: &mut Mover| {
            let next = table.fields.relocate(cursor as u64, mover, |_, _| ());
            next.into()
        };
        in_turn(self, cursor, mover, fields, |table, cursor, mover| {
            table.expires.relocate(cursor, mover)
        })
    }
}

fn find(listpack: &Listpack, field: &[u8]) -> Option<Pos> {
    listpack.find(listpack.first()?, field, 1)
}

/// The field and the value at a position of a listpack.
fn pair_at(listpack: &Listpack, at: Pos) -> (Element<'_>, Element<'_>) {
    let (field, value_at) = listpack.get_next(at);
    (field, listpack.get(value_at))
}

fn pair_of(field: FieldRef<'_>) -> (Element<'_>, Element<'_>) {
    (Element::Str(field.field()), Element::Str(field.value()))
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Hash {
        Hash::Listpack(Listpack::new())
    }

    /// The hash that a key's entry holds; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'_>) -> Result<Held<'_, Hash>, Error> {
        Held::typed(entry)
    }

    /// Opens the hash of a key's entry for changes; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn of_mut(entry: KeyWrite<'_>) -> Result<Opened<'_, Hash>, Error> {
        Opened::typed(entry)
    }

    /// Changes the hash of a key's entry by `change`; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn change<R>(entry: KeyWrite<'_>, change: impl FnOnce(&mut Hash) -> R) -> Result<R, Error> {
        part::change(entry, change)
    }

    /// Makes a hash of a listpack from a file or DUMP. `None` if the listpack has an odd number of
    /// elements or a repeated field.
    pub fn from_listpack(listpack: Listpack, limits: &HashLimits) -> Option<Hash> {
        if !is_keyed(&listpack, 2) {
            return None;
        }
        let too_many = listpack.len() / 2 > limits.max_entries;
        let mut hash = Hash::Listpack(listpack);
        if too_many {
            hash.convert_to_table(limits.seed);
        }
        Some(hash)
    }

    /// The number of fields that are not hidden.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Hash::Listpack(listpack) => listpack.len() / 2,
            Hash::Table(table) => table.len(),
        }
    }

    /// The number of fields, including the hidden ones.
    pub fn total_len(&self) -> usize {
        match self {
            Hash::Listpack(listpack) => listpack.len() / 2,
            Hash::Table(table) => table.fields.len(),
        }
    }

    /// Whether the hash has no fields except hidden ones.
    pub fn is_empty(&self) -> bool {
        match self {
            Hash::Listpack(listpack) => listpack.is_empty(),
            Hash::Table(table) => table.len() == 0,
        }
    }

    /// The name that OBJECT ENCODING reports.
    pub fn encoding(&self) -> &'static str {
        match self {
            Hash::Listpack(_) => "listpack",
            Hash::Table(_) => "hashtable",
        }
    }

    /// The number of allocations that must be freed with the hash.
    pub fn free_effort(&self) -> usize {
        match self {
            Hash::Listpack(_) => 1,
            Hash::Table(table) => table.fields.len(),
        }
    }

    /// The memory of the hash in bytes. For a table the number is estimated from `samples` fields,
    /// or exact if `samples` is 0.
    pub fn memory(&self, samples: usize) -> usize {
        let table = match self {
            Hash::Listpack(listpack) => return listpack.memory_bytes(),
            Hash::Table(table) => table,
        };
        let len = table.fields.len();
        let wanted = if samples == 0 { len } else { samples.min(len) };
        let seen: usize = table
            .fields
            .iter()
            .take(wanted)
            .map(FieldRef::alloc_size)
            .sum();
        let fields = (seen as u128 * len as u128 / wanted.max(1) as u128) as usize;
        size_of::<FieldTable>()
            + table.fields.memory_bytes()
            + table.expires.memory_bytes()
            + fields
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match self {
            Hash::Listpack(listpack) => Some(pair_at(listpack, find(listpack, field)?).1),
            Hash::Table(table) => Some(Element::Str(table.find(field)?.value())),
        }
    }

    /// Whether the field exists.
    #[inline]
    pub fn contains(&self, field: &[u8]) -> bool {
        match self {
            Hash::Listpack(listpack) => find(listpack, field).is_some(),
            Hash::Table(table) => table.find(field).is_some(),
        }
    }

    /// Sets a field. Returns whether the field is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], ttl: FieldTtl, limits: &HashLimits) -> bool {
        self.make_room(field, value, ttl, limits);
        match self {
            Hash::Table(table) => table.set(field, value, ttl),
            Hash::Listpack(listpack) => {
                let is_new = set_in_listpack(listpack, field, value);
                if is_new && listpack.len() / 2 > limits.max_entries {
                    self.convert_to_table(limits.seed);
                }
                is_new
            }
        }
    }

    /// Turns a listpack into a table if the listpack must not hold this field and value.
    #[inline]
    fn make_room(&mut self, field: &[u8], value: &[u8], ttl: FieldTtl, limits: &HashLimits) {
        let Hash::Listpack(listpack) = self else {
            return;
        };
        let long = field.len().max(value.len()) > limits.max_value;
        let volatile = matches!(ttl, FieldTtl::At(_));
        let more = field.len().saturating_add(value.len());
        if long || volatile || !safe_to_add(listpack.bytes_len(), more) {
            self.convert_to_table(limits.seed);
        }
    }

    /// Prepares the hash for `more` new fields: a table gets room for them.
    pub fn expect(&mut self, more: usize, limits: &HashLimits) {
        if more > limits.max_entries && matches!(self, Hash::Listpack(_)) {
            self.convert_to_table(limits.seed);
        }
        if let Hash::Table(table) = self
            && more > limits.max_entries
        {
            table.fields.reserve(table.fields.len() + more);
        }
    }

    /// Removes a field. Returns false if the hash does not have the field.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Hash::Listpack(listpack) => {
                let at = find(listpack, field);
                at.map(|at| listpack.delete_n(at, 2)).is_some()
            }
            Hash::Table(table) => table.remove(field).is_some(),
        }
    }

    /// Passes each field with its value to `visit`.
    pub fn for_each<'a>(&'a self, mut visit: impl FnMut(Element<'a>, Element<'a>)) {
        match self {
            Hash::Listpack(listpack) => {
                let mut elements = listpack.iter();
                while let (Some(field), Some(value)) = (elements.next(), elements.next()) {
                    visit(field, value);
                }
            }
            Hash::Table(table) => table.walk(|field| {
                let (field, value) = pair_of(field);
                visit(field, value);
            }),
        }
    }

    /// Passes each field of a table, hidden or not, with its value and expiry time to `visit`,
    /// until `visit` breaks.
    pub fn try_each<B>(&self, mut visit: impl FnMut(&[u8], &[u8], Option<i64>) -> ControlFlow<B>) {
        if let Hash::Table(table) = self {
            let _ = table
                .fields
                .try_walk(|field| visit(field.field(), field.value(), field.expire_at()));
        }
    }

    /// Passes each field of a table, hidden or not, with its value and expiry time to `visit`. A
    /// listpack has no fields with expiry times, so none of its fields is passed.
    pub fn for_each_volatile(&self, mut visit: impl FnMut(&[u8], &[u8], Option<i64>)) {
        if let Hash::Table(table) = self {
            let fields = &table.fields;
            fields.walk(|field| visit(field.field(), field.value(), field.expire_at()));
        }
    }

    /// One call of HSCAN. All fields of a listpack are returned by one call of HSCAN.
    pub fn scan<'a>(&'a self, cursor: u64, mut visit: impl FnMut(Element<'a>, Element<'a>)) -> u64 {
        match self {
            Hash::Listpack(_) => {
                self.for_each(visit);
                0
            }
            Hash::Table(table) => table.fields.scan(cursor, |field| {
                if !table.is_hidden(field) {
                    let (field, value) = pair_of(field);
                    visit(field, value);
                }
            }),
        }
    }
}

/// Sets a field of a listpack: replaces the field's value, or appends the field with its value.
/// Returns whether the field is new.
fn set_in_listpack(listpack: &mut Listpack, field: &[u8], value: &[u8]) -> bool {
    match find(listpack, field).and_then(|at| listpack.next(at)) {
        Some(value_at) => {
            listpack.replace(value_at, value);
            false
        }
        None => {
            listpack.append_all([Element::from(field), Element::from(value)].into_iter());
            true
        }
    }
}

/// Methods that draw random fields.
impl Hash {
    /// A random field and its value; all fields are equally likely.
    pub fn random(&self, rng: &mut Random) -> Option<(Element<'_>, Element<'_>)> {
        match self {
            Hash::Listpack(listpack) => {
                let at = listpack.random(2, &mut |n| rng.below(n as u64) as usize)?;
                Some(pair_at(listpack, at))
            }
            Hash::Table(table) => match table.hidden {
                0 => table.fields.random(rng.raw()).map(pair_of),
                _ => {
                    let seen = table.seen();
                    let at = rng.below(seen.len().max(1) as u64) as usize;
                    seen.get(at).copied().map(pair_of)
                }
            },
        }
    }

    /// Passes `count` random fields with their values to `visit`. The draws are independent, so a
    /// field may be drawn again.
    pub fn sample(&self, count: usize, rng: &mut Random, mut visit: impl FnMut(Element, Element)) {
        match self {
            Hash::Listpack(listpack) => {
                listpack.sample(2, count, &mut |n| rng.below(n as u64) as usize, |at| {
                    let (field, value) = pair_at(listpack, at);
                    visit(field, value);
                });
            }
            Hash::Table(table) if table.hidden > 0 => {
                let seen = table.seen();
                for _ in 0..if seen.is_empty() { 0 } else { count } {
                    let (field, value) = pair_of(seen[rng.below(seen.len() as u64) as usize]);
                    visit(field, value);
                }
            }
            Hash::Table(table) => {
                for field in (0..count).filter_map(|_| table.fields.random(rng.raw())) {
                    let (field, value) = pair_of(field);
                    visit(field, value);
                }
            }
        }
    }

    /// Passes `count` different random fields with their values to `visit`, or all fields if there
    /// are fewer; each choice is equally likely.
    pub fn sample_unique(
        &self,
        count: usize,
        rng: &mut Random,
        mut visit: impl FnMut(Element, Element),
    ) {
        match self {
            Hash::Listpack(listpack) => {
                listpack.sample_unique(2, count, &mut |n| rng.below(n as u64) as usize, |at| {
                    let (field, value) = pair_at(listpack, at);
                    visit(field, value);
                });
            }
            Hash::Table(table) if table.hidden > 0 => {
                let mut seen = table.seen();
                for taken in 0..count.min(seen.len()) {
                    let left = (seen.len() - taken) as u64;
                    seen.swap(taken, taken + rng.below(left) as usize);
                    let (field, value) = pair_of(seen[taken]);
                    visit(field, value);
                }
            }
            Hash::Table(table) => table.fields.sample_unique(count, rng.raw(), |field| {
                let (field, value) = pair_of(field);
                visit(field, value);
            }),
        }
    }
}

/// Methods for the times to live of fields.
impl Hash {
    /// The expiry time of a field. The outer `None` means that the hash does not have the field.
    pub fn expire_at(&self, field: &[u8]) -> Option<Option<i64>> {
        match self {
            Hash::Listpack(listpack) => find(listpack, field).map(|_| None),
            Hash::Table(table) => table.find(field).map(FieldRef::expire_at),
        }
    }

    /// Sets or removes the expiry time of a field. Returns false if the hash does not have the
    /// field.
    pub fn set_expire(&mut self, field: &[u8], at: Option<i64>, seed: HashSeed) -> bool {
        match self {
            Hash::Listpack(listpack) if at.is_none() || find(listpack, field).is_none() => {
                find(listpack, field).is_some()
            }
            _ => {
                self.convert_to_table(seed);
                let Hash::Table(table) = self else {
                    return false;
                };
                table.set_expire(field, at)
            }
        }
    }

    /// The earliest expiry time of a field, under which the database's index has the hash.
    #[inline]
    pub fn next_expiry(&self) -> Option<i64> {
        match self {
            Hash::Listpack(_) => None,
            Hash::Table(table) => table.expires.first().map(|(at, _)| at),
        }
    }

    /// The number of volatile fields, including the hidden ones.
    pub fn volatile_len(&self) -> usize {
        match self {
            Hash::Listpack(_) => 0,
            Hash::Table(table) => table.expires.len(),
        }
    }

    /// Hides the fields that expire before `now` from everything except [`Hash::pop_expired`].
    pub fn hide_expired(&mut self, now: i64) {
        if let Hash::Table(table) = self
            && now > table.hidden_before
        {
            table.hidden_before = now;
            table.hidden = table.expires.count_before(now);
        }
    }

    /// Ends the hiding of expired fields.
    pub fn show_expired(&mut self) {
        if let Hash::Table(table) = self {
            (table.hidden_before, table.hidden) = (i64::MIN, 0);
        }
    }

    /// The number of fields that are hidden.
    pub fn hidden_len(&self) -> usize {
        match self {
            Hash::Listpack(_) => 0,
            Hash::Table(table) => table.hidden,
        }
    }

    /// Removes and returns the field that expired first; `None` if no field has expired before
    /// `now`.
    pub fn pop_expired(&mut self, now: i64) -> Option<Field> {
        let Hash::Table(table) = self else {
            return None;
        };
        let (at, hash) = table.expires.pop_due(now - 1)?;
        table.hidden -= usize::from(at < table.hidden_before);
        let field = table
            .fields
            .remove_by(hash, |field| field.expire_at() == Some(at));
        debug_assert!(field.is_some(), "the index names a field that is not there");
        field
    }

    /// Turns a listpack into a table.
    pub fn convert_to_table(&mut self, seed: HashSeed) {
        let Hash::Listpack(listpack) = self else {
            return;
        };
        let mut fields = HashTable::new(seed);
        fields.reserve(listpack.len() / 2);
        self.for_each(|field, value| {
            let field = Field::new(&field.to_vec(), &value.to_vec(), None);
            let hash = fields.hash(field.as_ref().field());
            fields.insert_new(hash, field);
        });
        *self = Hash::Table(Box::new(FieldTable::of(fields)));
    }
}

impl Default for Hash {
    fn default() -> Hash {
        Hash::new()
    }
}

impl Clone for FieldTable {
    fn clone(&self) -> FieldTable {
        // Hidden fields are copied, too, since a replica that runs the same COPY command still has
        // these fields.
        let mut copy = FieldTable::of(HashTable::new(self.fields.seed()));
        copy.hidden_before = self.hidden_before;
        copy.fields.reserve(self.fields.len());
        self.fields.walk(|field| {
            let ttl = field.expire_at().map_or(FieldTtl::Clear, FieldTtl::At);
            copy.set(field.field(), field.value(), ttl);
        });
        copy
    }
}

impl FieldTable {
    fn of(fields: HashTable<Field>) -> FieldTable {
        FieldTable {
            fields,
            expires: Expires::new(),
            hidden_before: i64::MIN,
            hidden: 0,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.fields.len() - self.hidden
    }

    #[inline]
    fn is_hidden(&self, field: FieldRef) -> bool {
        self.hidden > 0 && self.is_before(field.expire_at())
    }

    #[inline]
    fn is_before(&self, at: Option<i64>) -> bool {
        at.is_some_and(|at| at < self.hidden_before)
    }

    fn walk<'a>(&'a self, mut visit: impl FnMut(FieldRef<'a>)) {
        self.fields.walk(|field| {
            if !self.is_hidden(field) {
                visit(field);
            }
        });
    }

    /// All fields that are not hidden. Random draws use these fields while some fields are hidden.
    fn seen(&self) -> Vec<FieldRef<'_>> {
        let mut seen = Vec::with_capacity(self.len());
        self.walk(|field| seen.push(field));
        seen
    }

    /// Updates the index `expires`: the expiry time of the field with this hash changes from `was`
    /// to `at`.
    #[inline]
    fn moved(&mut self, hash: u64, was: Option<i64>, at: Option<i64>) {
        self.hidden -= usize::from(self.is_before(was));
        self.hidden += usize::from(self.is_before(at));
        self.expires.shift(hash, was, at);
    }

    /// Prefetches the bucket of a field.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.fields.prefetch_bucket(hash);
    }

    /// Prefetches the field to which the bucket of this hash points.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        self.fields.prefetch_entry(hash);
    }

    /// The figures of the hash table for DEBUG HTSTATS-KEY.
    pub fn stats(&self) -> Stats {
        self.fields.stats()
    }

    #[inline]
    fn find(&self, field: &[u8]) -> Option<FieldRef<'_>> {
        let found = self.fields.find(self.fields.hash(field), field)?;
        (!self.is_hidden(found)).then_some(found)
    }

    fn set(&mut self, field: &[u8], value: &[u8], ttl: FieldTtl) -> bool {
        let hash = self.fields.hash(field);
        let (before, hidden) = (self.hidden_before, self.hidden > 0);
        let (was, at, is_new) = match self.fields.find_slot(hash, field) {
            Slot::Vacant(slot) => {
                let at = ttl.after(None);
                slot.insert(Field::new(field, value, at));
                (None, at, true)
            }
            Slot::Occupied(mut slot) => {
                let was = slot.get().expire_at();
                let is_new = hidden && was.is_some_and(|was| was < before);
                let at = ttl.after(was.filter(|_| !is_new));
                if was != at || !slot.get_mut().try_set_value(value) {
                    slot.replace(Field::new(field, value, at));
                }
                (was, at, is_new)
            }
        };
        self.moved(hash, was, at);
        is_new
    }

    fn remove(&mut self, field: &[u8]) -> Option<Field> {
        let hash = self.fields.hash(field);
        if self.hidden > 0 {
            self.find(field)?;
        }
        let removed = self.fields.remove(hash, field)?;
        self.moved(hash, removed.as_ref().expire_at(), None);
        Some(removed)
    }

    fn set_expire(&mut self, field: &[u8], at: Option<i64>) -> bool {
        if self.hidden > 0 && self.find(field).is_none() {
            return false;
        }
        let hash = self.fields.hash(field);
        let Slot::Occupied(slot) = self.fields.find_slot(hash, field) else {
            return false;
        };
        let was = slot.get().expire_at();
        if was != at {
            slot.replace_with(|field| field.with_expire(at));
        }
        self.moved(hash, was, at);
        true
    }
}

#[cfg(test)]
mod tests;
