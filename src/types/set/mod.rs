//! Sets: members without an order.
//!
//! ```text
//!   Intset     | integer | integer | ...     ascending; nothing but integers, up to set-max-intset-entries
//!   Listpack   | member | member | ...       in order of arrival; up to set-max-listpack-entries short ones
//!   Table      hash(member) -> member        one allocation each, see ds::set_member
//! ```
//!
//! A set changes its encoding when it would exceed the limits of its present one, and never changes
//! back, except where Redis does so, too: results of SINTERSTORE, SUNIONSTORE and SDIFFSTORE
//! ([`Set::pack`]), and the rest of a set that SPOP nearly empties.
//!
//! Members are passed to closures as listpack elements: an integer or bytes.
//!
//! **Invariants:** no member is repeated, in whatever form, and a table has the text of each member
//! (`tests::agrees_with_a_set`).
//!
//! # Intersections
//!
//! Each member of the smallest set is looked up in the other sets. In a table each look-up costs
//! two cache misses, so members are processed in batches: first the buckets of all members are
//! prefetched, then the entries whose tags fit, and only then the entries are compared. No result
//! set is built: the caller of [`intersect`] counts the members, replies with them or stores them.

use std::ops::ControlFlow;

use crate::ds::hashtable::{HashTable, Slot};
use crate::ds::intset::Intset;
use crate::ds::listpack::Pos;
use crate::ds::listpack::{Element, Listpack, estimate_bytes, is_keyed, safe_to_add};
use crate::ds::set_member::SetMember;
use crate::ds::siphash::HashSeed;
use crate::error::Error;
use crate::types::KeyRef;
use crate::types::lengths::KeyWrite;
use crate::types::part::{self, Held, Opened};
use crate::util::number::{IntBuf, parse_i64};
use crate::util::random::Random;
use crate::util::selection_sampling::Selection;

/// A set in one of its three encodings.
pub enum Set {
    Intset(Intset),
    Listpack(Listpack),
    Table(Box<HashTable<SetMember>>),
}

const _: () = assert!(size_of::<Set>() <= 16);

/// The maximum number of members of an intset, whatever the setting is.
const INTSET_LIMIT: usize = 1 << 30;
/// If SPOP leaves at most 1 / `KEEP_PART` as many members as it removes, the members that stay are
/// moved to a new set.
const KEEP_PART: usize = 5;
/// The number of members that are looked up in a table together.
const BATCH: usize = 16;

/// The settings `set-max-intset-entries`, `set-max-listpack-entries` and `-value`, and the seed for
/// a new table.
#[derive(Clone, Copy, Debug)]
pub struct SetLimits {
    /// The maximum number of members of an intset (`set-max-intset-entries`).
    pub max_intset: usize,
    /// The maximum number of members of a listpack (`set-max-listpack-entries`).
    pub max_listpack: usize,
    /// The maximum number of bytes of a member of a listpack (`set-max-listpack-value`).
    pub max_value: usize,
    pub seed: HashSeed,
}

impl SetLimits {
    fn intset(&self) -> usize {
        self.max_intset.min(INTSET_LIMIT)
    }
}

/// Calls `f` with the text of a member.
fn with_text<R>(element: Element, f: impl FnOnce(&[u8]) -> R) -> R {
    f(element.text(&mut IntBuf::new()))
}

impl Set {
    /// Makes an empty set for about `hint` members, `first` among them, in the encoding with which
    /// SADD begins.
    pub fn for_members(first: &[u8], hint: usize, limits: &SetLimits) -> Set {
        if hint <= limits.intset() && parse_i64(first).is_some() {
            Set::Intset(Intset::new())
        } else if hint <= limits.max_listpack {
            Set::Listpack(Listpack::new())
        } else {
            let mut table = HashTable::new(limits.seed);
            table.reserve(hint);
            Set::Table(Box::new(table))
        }
    }

    /// An empty set in the encoding intset.
    pub fn new_intset() -> Set {
        Set::Intset(Intset::new())
    }

    /// An empty set in the encoding listpack.
    pub fn new_listpack() -> Set {
        Set::Listpack(Listpack::new())
    }

    /// An empty set in the encoding hashtable.
    pub fn new_table(seed: HashSeed) -> Set {
        Set::Table(Box::new(HashTable::new(seed)))
    }

    /// Makes a set of a listpack from a file or DUMP. `None` if a member is repeated.
    pub fn from_listpack(listpack: Listpack, limits: &SetLimits) -> Option<Set> {
        if !is_keyed(&listpack, 1) {
            return None;
        }
        let too_many = listpack.len() > limits.max_listpack;
        let mut set = Set::Listpack(listpack);
        if too_many {
            set.convert_to_table(limits.seed, 0);
        }
        Some(set)
    }

    /// The set in an entry; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'_>) -> Result<Held<'_, Set>, Error> {
        Held::typed(entry)
    }

    /// Opens the set of an entry for changes; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn of_mut(entry: KeyWrite<'_>) -> Result<Opened<'_, Set>, Error> {
        Opened::typed(entry)
    }

    /// Changes the set of an entry; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn change<R>(entry: KeyWrite<'_>, change: impl FnOnce(&mut Set) -> R) -> Result<R, Error> {
        part::change(entry, change)
    }

    /// The number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Set::Intset(ints) => ints.len(),
            Set::Listpack(listpack) => listpack.len(),
            Set::Table(table) => table.len(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        match self {
            Set::Intset(ints) => ints.is_empty(),
            Set::Listpack(listpack) => listpack.is_empty(),
            Set::Table(table) => table.is_empty(),
        }
    }

    /// The name that OBJECT ENCODING reports.
    pub fn encoding(&self) -> &'static str {
        match self {
            Set::Intset(_) => "intset",
            Set::Listpack(_) => "listpack",
            Set::Table(_) => "hashtable",
        }
    }

    /// The number of allocations that freeing the set takes.
    pub fn free_effort(&self) -> usize {
        match self {
            Set::Intset(_) | Set::Listpack(_) => 1,
            Set::Table(table) => table.len(),
        }
    }

    /// The memory of the set in bytes. For a table the number is estimated from `samples` members,
    /// or exact if `samples` is 0.
    pub fn memory(&self, samples: usize) -> usize {
        let table = match self {
            Set::Intset(ints) => return ints.memory_bytes(),
            Set::Listpack(listpack) => return listpack.memory_bytes(),
            Set::Table(table) => table,
        };
        let len = table.len();
        let wanted = if samples == 0 { len } else { samples.min(len) };
        let seen: usize = table.iter().take(wanted).map(SetMember::memory_bytes).sum();
        let members = (seen as u128 * len as u128 / wanted.max(1) as u128) as usize;
        size_of::<HashTable<SetMember>>() + table.memory_bytes() + members
    }

    /// Whether the set has this member.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            Set::Intset(ints) => parse_i64(member).is_some_and(|int| ints.contains(int)),
            Set::Listpack(listpack) => find(listpack, member).is_some(),
            Set::Table(table) => table.find(table.hash(member), member).is_some(),
        }
    }

    /// Whether the set has this member, given as a listpack element.
    pub fn contains_element(&self, member: Element) -> bool {
        match (self, member) {
            (Set::Intset(ints), Element::Int(int)) => ints.contains(int),
            _ => with_text(member, |text| self.contains(text)),
        }
    }

    /// Passes each member to `visit`.
    pub fn for_each<'a>(&'a self, mut visit: impl FnMut(Element<'a>)) {
        self.try_each(|member| {
            visit(member);
            ControlFlow::Continue(())
        });
    }

    /// Passes members to `visit` until `visit` breaks.
    pub fn try_each<'a>(&'a self, mut visit: impl FnMut(Element<'a>) -> ControlFlow<()>) {
        let _ = match self {
            Set::Intset(ints) => ints.iter().map(Element::Int).try_for_each(visit),
            Set::Listpack(listpack) => listpack.iter().try_for_each(visit),
            Set::Table(table) => table.try_walk(|member| visit(Element::Str(member))),
        };
    }

    /// One call of SSCAN. All members of an intset or listpack are returned by one call.
    pub fn scan<'a>(&'a self, cursor: u64, mut visit: impl FnMut(Element<'a>)) -> u64 {
        match self {
            Set::Table(table) => table.scan(cursor, |member| visit(Element::Str(member))),
            _ => {
                self.for_each(visit);
                0
            }
        }
    }
}

/// Methods that change a set.
impl Set {
    /// Prepares for the addition of `more` members: a set that might not hold them in its present
    /// encoding becomes a table at once.
    pub fn expect(&mut self, more: usize, limits: &SetLimits) {
        let too_many = match self {
            Set::Intset(_) => more > limits.intset(),
            Set::Listpack(_) => more > limits.max_listpack,
            Set::Table(_) => false,
        };
        if too_many {
            self.convert_to_table(limits.seed, more);
        }
    }

    /// Adds a member. Returns false if the set already has the member.
    #[inline]
    pub fn add(&mut self, member: &[u8], limits: &SetLimits) -> bool {
        match self {
            Set::Table(table) => add_to_table(table, member),
            Set::Listpack(_) => self.add_to_listpack(member, limits),
            Set::Intset(ints) => match parse_i64(member) {
                Some(int) => {
                    let added = ints.add(int);
                    if added && ints.len() > limits.intset() {
                        self.convert_to_table(limits.seed, 0);
                    }
                    added
                }
                None => self.add_text_to_intset(member, limits),
            },
        }
    }

    fn add_to_listpack(&mut self, member: &[u8], limits: &SetLimits) -> bool {
        let Set::Listpack(listpack) = self else {
            return false;
        };
        if find(listpack, member).is_some() {
            return false;
        }
        let fits = listpack.len() < limits.max_listpack
            && member.len() <= limits.max_value
            && safe_to_add(listpack.bytes_len(), member.len());
        if fits {
            listpack.append(member);
        } else {
            self.convert_to_table(limits.seed, 1);
            self.add(member, limits);
        }
        true
    }

    /// Adds the first member that is not an integer. The intset becomes a listpack, or a table if
    /// it is too large for a listpack.
    fn add_text_to_intset(&mut self, member: &[u8], limits: &SetLimits) -> bool {
        let Set::Intset(ints) = self else {
            return false;
        };
        let ends = [ints.first(), ints.last()].map(|end| end.unwrap_or(0));
        let longest = ends
            .map(|int| Element::Int(int).text_len())
            .into_iter()
            .max()
            .unwrap_or(0);
        let bytes = ends
            .map(|int| estimate_bytes(int, ints.len()))
            .into_iter()
            .max()
            .unwrap_or(0);
        let fits = ints.len() < limits.max_listpack
            && member.len() <= limits.max_value
            && (ints.is_empty() || longest <= limits.max_value)
            && safe_to_add(bytes, member.len());
        if fits {
            let mut listpack = Listpack::new();
            listpack.append_all(ints.iter().map(Element::Int));
            listpack.append(member);
            *self = Set::Listpack(listpack);
        } else {
            self.convert_to_table(limits.seed, 1);
            self.add(member, limits);
        }
        true
    }

    /// Removes a member. Returns false if the set does not have the member.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Set::Intset(ints) => parse_i64(member).is_some_and(|int| ints.remove(int)),
            Set::Listpack(listpack) => {
                let at = find(listpack, member);
                at.map(|at| listpack.delete(at)).is_some()
            }
            Set::Table(table) => table.remove(table.hash(member), member).is_some(),
        }
    }

    /// Turns the set into a table with room for `more` further members.
    pub fn convert_to_table(&mut self, seed: HashSeed, more: usize) {
        if matches!(self, Set::Table(_)) {
            return;
        }
        let mut table = HashTable::new(seed);
        table.reserve(self.len() + more);
        self.for_each(|member| {
            with_text(member, |text| add_to_table(&mut table, text));
        });
        *self = Set::Table(Box::new(table));
    }

    /// Turns the result of SINTERSTORE, SUNIONSTORE or SDIFFSTORE into an intset if all members are
    /// integers and their number is within `set-max-intset-entries`.
    pub fn pack(&mut self, limits: &SetLimits) {
        if matches!(self, Set::Intset(_)) || self.len() > limits.intset() {
            return;
        }
        let mut ints = Vec::with_capacity(self.len());
        self.try_each(|member| match member.as_int() {
            Some(int) => {
                ints.push(int);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        });
        if ints.len() == self.len() {
            // Integers in ascending order are appended to the intset, so none has to be moved.
            ints.sort_unstable();
            let mut packed = Intset::new();
            ints.into_iter().for_each(|int| {
                packed.add(int);
            });
            *self = Set::Intset(packed);
        }
    }
}

fn find(listpack: &Listpack, member: &[u8]) -> Option<Pos> {
    listpack.find(listpack.first()?, member, 0)
}

#[inline]
fn add_to_table(table: &mut HashTable<SetMember>, member: &[u8]) -> bool {
    let hash = table.hash(member);
    match table.find_slot(hash, member) {
        Slot::Occupied(_) => false,
        Slot::Vacant(slot) => {
            slot.insert(SetMember::new(member));
            true
        }
    }
}

/// Methods that draw random members.
impl Set {
    /// A random member; all members are equally likely.
    pub fn random(&self, rng: &mut Random) -> Option<Element<'_>> {
        let mut below = |n: usize| rng.below(n as u64) as usize;
        match self {
            Set::Intset(ints) => ints.random(&mut below).map(Element::Int),
            Set::Listpack(listpack) => listpack.random(1, &mut below).map(|at| listpack.get(at)),
            Set::Table(table) => table.random(rng.raw()).map(Element::Str),
        }
    }

    /// Passes `count` random members to `visit`. The draws are independent, so a member may be
    /// drawn again.
    pub fn sample<'a>(
        &'a self,
        count: usize,
        rng: &mut Random,
        mut visit: impl FnMut(Element<'a>),
    ) {
        match self {
            Set::Listpack(listpack) => {
                let mut below = |n: usize| rng.below(n as u64) as usize;
                listpack.sample(1, count, &mut below, |at| visit(listpack.get(at)));
            }
            _ => (0..count).filter_map(|_| self.random(rng)).for_each(visit),
        }
    }

    /// Passes `count` different random members to `visit`, or all members if there are fewer; each
    /// choice is equally likely.
    pub fn sample_unique<'a>(
        &'a self,
        count: usize,
        rng: &mut Random,
        mut visit: impl FnMut(Element<'a>),
    ) {
        let mut below = |n: usize| rng.below(n as u64) as usize;
        match self {
            Set::Intset(ints) => {
                let mut selection = Selection::of(count, ints.len());
                let selected = ints.iter().filter(|_| selection.takes(&mut below));
                selected.map(Element::Int).for_each(visit);
            }
            Set::Listpack(listpack) => {
                listpack.sample_unique(1, count, &mut below, |at| visit(listpack.get(at)));
            }
            Set::Table(table) => {
                table.sample_unique(count, rng.raw(), |member| visit(Element::Str(member)));
            }
        }
    }

    /// Removes `count` random members, which must be fewer than the set has; each choice is equally
    /// likely.
    pub fn pop(
        &mut self,
        count: usize,
        rng: &mut Random,
        limits: &SetLimits,
        mut visit: impl FnMut(&[u8]),
    ) {
        let left = self.len().saturating_sub(count);
        if left * KEEP_PART > count {
            let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(count);
            self.sample_unique(count, rng, |member| chosen.push(member.to_vec()));
            for member in &chosen {
                visit(member);
                self.remove(member);
            }
            return;
        }
        let mut kept = match self {
            Set::Listpack(_) => Set::new_listpack(),
            _ => Set::new_intset(),
        };
        self.sample_unique(left, rng, |member| {
            with_text(member, |text| kept.add(text, limits));
        });
        self.for_each(|member| {
            if !kept.contains_element(member) {
                with_text(member, &mut visit);
            }
        });
        *self = kept;
    }
}

impl Clone for Set {
    fn clone(&self) -> Set {
        match self {
            Set::Intset(ints) => Set::Intset(ints.clone()),
            Set::Listpack(listpack) => Set::Listpack(listpack.clone()),
            Set::Table(table) => {
                let mut copy = HashTable::new(table.seed());
                copy.reserve(table.len());
                table.walk(|member| {
                    add_to_table(&mut copy, member);
                });
                Set::Table(Box::new(copy))
            }
        }
    }
}

/// Members of the smallest set that SINTER looks up in the other sets together, with their hashes.
struct Batch<'a> {
    members: [(&'a [u8], u64); BATCH],
    len: usize,
}

impl<'a> Batch<'a> {
    /// Drops the members that are not in `set`.
    fn retain(&mut self, set: &Set, seed: HashSeed) {
        let mut kept = 0;
        let members = &mut self.members[..self.len];
        match set {
            Set::Table(table) if table.seed() == seed => {
                members
                    .iter()
                    .for_each(|(_, hash)| table.prefetch_bucket(*hash));
                members
                    .iter()
                    .for_each(|(_, hash)| table.prefetch_entry(*hash));
                for at in 0..members.len() {
                    let (member, hash) = members[at];
                    members[kept] = members[at];
                    kept += usize::from(table.find(hash, member).is_some());
                }
            }
            _ => {
                for at in 0..members.len() {
                    members[kept] = members[at];
                    kept += usize::from(set.contains(members[at].0));
                }
            }
        }
        self.len = kept;
    }
}

/// Passes each member that is in all sets to `visit`, until `visit` breaks. `sets` are sorted from
/// the smallest to the largest.
pub fn intersect<'a>(sets: &[&'a Set], mut visit: impl FnMut(Element<'a>) -> ControlFlow<()>) {
    let Some((first, rest)) = sets.split_first() else {
        return;
    };
    let Set::Table(table) = first else {
        return first.try_each(|member| {
            match rest.iter().all(|set| set.contains_element(member)) {
                true => visit(member),
                false => ControlFlow::Continue(()),
            }
        });
    };
    let mut batch = Batch {
        members: [(&[], 0); BATCH],
        len: 0,
    };
    let mut flush = |batch: &mut Batch<'a>| {
        rest.iter().for_each(|set| batch.retain(set, table.seed()));
        let len = std::mem::take(&mut batch.len);
        batch.members[..len]
            .iter()
            .try_for_each(|(member, _)| visit(Element::Str(member)))
    };
    let walked = table.try_walk(|member| {
        batch.members[batch.len] = (member, table.hash(member));
        batch.len += 1;
        if batch.len == BATCH {
            flush(&mut batch)
        } else {
            ControlFlow::Continue(())
        }
    });
    if walked.is_continue() {
        let _ = flush(&mut batch);
    }
}

#[cfg(test)]
mod tests;
