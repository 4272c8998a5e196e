//! A big sorted set: a dictionary that owns the members, and a tree that keeps them in order.
//!
//! ```text
//!   SortedSet { members: HashTable<Member>, tree: ZsetTree }
//!                  |                          |
//!                  | owns                     | borrows
//!                  +--> | score | length | bytes | <--+
//! ```
//!
//! The dictionary answers ZSCORE and finds the member that ZADD changes with one probe; the tree
//! serves everything that depends on the order. A sorted set that is computed (ZUNIONSTORE) or
//! loaded from a file is first a [`MemberTable`], the dictionary alone. The members of the
//! dictionary are then sorted once, and the tree is built from its leaves up, which is several
//! times faster than an insert for each member.
//!
//! **Invariant:** the table and the tree of a sorted set have the same members. Only `SortedSet`
//! changes its table and its tree. A member is added to the table before it is inserted into the
//! tree, and freed after its removal from the tree, so the tree never has a pointer to a freed
//! member (`tests::agrees_with_a_map`).

use super::hashtable::{Element, HashTable, Slot};
use super::member::{Member, MemberPtr};
use super::relocate::{Cursor, Relocate, in_turn};
use super::zset_tree::{Item, ZsetTree, order};
use crate::ds::siphash::HashSeed;
use crate::sys::mover::Mover;
use std::ops::Range;

/// A big sorted set.
pub struct SortedSet {
    members: MemberTable,
    tree: ZsetTree,
}

// SAFETY: the tree's pointers lead to members that the table of the same sorted set owns; tree and
// table move to another thread together.
unsafe impl Send for SortedSet {}

/// The members of a sorted set with their scores, by name, without an order.
pub struct MemberTable {
    table: HashTable<Member>,
    /// The sum of the sizes in bytes of all members' allocations.
    bytes: usize,
}

/// The score of a member before and after ZADD; `None` if the member was not or is not in the set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub old: Option<f64>,
    pub new: Option<f64>,
}

impl MemberTable {
    /// An empty table.
    pub fn new(seed: HashSeed) -> MemberTable {
        MemberTable {
            table: HashTable::new(seed),
            bytes: 0,
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Makes room for `members` members before a load. The caller must bound a count that comes
    /// from a file or a client.
    pub fn reserve(&mut self, members: usize) {
        self.table.reserve(members);
    }

    /// The score of a member.
    pub fn score(&self, bytes: &[u8]) -> Option<f64> {
        let member = self.table.find(self.table.hash(bytes), bytes)?;
        // SAFETY: the table owns the member, so the member lives.
        Some(unsafe { member.score() })
    }

    /// Passes the score of a member, if it exists, to `decide` and sets the returned score, if any.
    pub fn upsert(
        &mut self,
        bytes: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        // SAFETY: the members of a `MemberTable` alone are in no tree, so their scores may change.
        let write = |member: MemberPtr, score, is_new: bool| unsafe {
            if !is_new {
                member.set_score(score);
            }
        };
        self.upsert_with(bytes, decide, write)
    }

    /// Inserts or updates a member in a single probe of the hash table. `write` gets the member,
    /// its score and whether it is new.
    fn upsert_with(
        &mut self,
        bytes: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
        write: impl FnOnce(MemberPtr, f64, bool),
    ) -> Change {
        let hash = self.table.hash(bytes);
        match self.table.find_slot(hash, bytes) {
            Slot::Occupied(slot) => {
                let member = slot.get();
                // SAFETY: the table owns the member, so the member lives.
                let old = Some(unsafe { member.score() });
                let new = decide(old);
                if let Some(score) = new {
                    write(member, score, false);
                }
                Change { old, new }
            }
            Slot::Vacant(slot) => {
                let new = decide(None);
                if let Some(score) = new {
                    let member = Member::new(score, bytes);
                    self.bytes += member.memory_bytes();
                    write(slot.insert(member), score, true);
                }
                Change { old: None, new }
            }
        }
    }

    /// Offers a member's allocation to the mover, which defragments memory. Returns the new address
    /// if the member was moved.
    fn relocate(&mut self, member: MemberPtr, mover: &mut Mover) -> Option<MemberPtr> {
        let old = member.as_raw();
        // SAFETY: the table owns the member, so the member lives. The table gets the address of the
        // member's copy, and the original is freed: only the caller's tree still has the original's
        // address, and the caller replaces this address.
        unsafe {
            let layout = Member::layout(old);
            let new = mover.copy(old, layout)?;
            let copy = MemberPtr::from_raw(new);
            let found = self.table.repoint(self.table.hash(copy.bytes()), old, new);
            assert!(found, "a member of the tree is in the table");
            mover.free(old, layout);
            Some(copy)
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<Member> {
        let member = self.table.remove(self.table.hash(bytes), bytes)?;
        self.bytes -= member.memory_bytes();
        Some(member)
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, bytes: &[u8]) -> Option<f64> {
        self.take(bytes).map(|member| member.score())
    }

    /// Passes all members to `visit`, in order of score and bytes.
    pub fn for_each_in_order(&self, mut visit: impl FnMut(&[u8], f64)) {
        for member in self.sorted() {
            // SAFETY: the table owns the member, and is borrowed during the call.
            unsafe { visit(member.bytes(), member.score()) }
        }
    }

    /// Iterates over the members with their scores, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        // SAFETY: the table owns the members, and is borrowed as long as the items.
        self.table.iter().map(|m| unsafe {
            Item {
                score: m.score(),
                bytes: m.bytes(),
            }
        })
    }

    /// The members in order of score and bytes.
    fn sorted(&self) -> Vec<MemberPtr> {
        // SAFETY: the table owns the members, so they live.
        let mut pairs: Vec<(u64, MemberPtr)> = self
            .table
            .iter()
            .map(|m| (order(unsafe { m.score() }), m))
            .collect();
        // SAFETY: the table owns the members, so they live.
        let bytes = |m: MemberPtr| unsafe { m.bytes() };
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| bytes(a.1).cmp(bytes(b.1))));
        pairs.into_iter().map(|(_, member)| member).collect()
    }
}

impl Clone for MemberTable {
    fn clone(&self) -> MemberTable {
        let mut copy = MemberTable::new(self.table.seed());
        copy.reserve(self.len());
        for item in self.iter() {
            copy.upsert(item.bytes, |_| Some(item.score));
        }
        copy
    }
}

impl Clone for SortedSet {
    fn clone(&self) -> SortedSet {
        SortedSet::from(self.members.clone())
    }
}

impl From<MemberTable> for SortedSet {
    fn from(members: MemberTable) -> SortedSet {
        let sorted = members.sorted();
        // SAFETY: the table owns the members, and moves together with the tree.
        let tree = unsafe { ZsetTree::from_sorted(&sorted) };
        SortedSet { members, tree }
    }
}

impl SortedSet {
    /// An empty set.
    pub fn new(seed: HashSeed) -> SortedSet {
        SortedSet {
            members: MemberTable::new(seed),
            tree: ZsetTree::new(),
        }
    }

    /// Prefetches the dictionary's bucket for a member with this hash.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.members.table.prefetch_bucket(hash);
    }

    /// Prefetches the member to which the bucket of this hash leads.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        self.members.table.prefetch_entry(hash);
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The tree, which serves ranks, bounds and ranges.
    pub fn tree(&self) -> &ZsetTree {
        &self.tree
    }

    /// The score of a member.
    pub fn score(&self, bytes: &[u8]) -> Option<f64> {
        self.members.score(bytes)
    }

    /// Passes the score of a member, if it exists, to `decide` and sets the returned score, if any.
    pub fn upsert(
        &mut self,
        bytes: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let tree = &mut self.tree;
        // SAFETY: a new member is in the table already, and leaves the table only after it has left
        // the tree; an old member is in table and tree.
        self.members
            .upsert_with(bytes, decide, |member, score, is_new| unsafe {
                if is_new {
                    tree.insert(member);
                } else {
                    tree.update(member, score);
                }
            })
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, bytes: &[u8]) -> Option<f64> {
        // The member is dropped at the end of this function, so the tree may still read it.
        let member = self.members.take(bytes)?;
        self.tree.remove(member.score(), bytes);
        Some(member.score())
    }

    /// Removes the members whose ranks are in `ranks`. Each member is passed to `removed` before it
    /// is freed. Returns the number of removed members.
    pub fn remove_range(
        &mut self,
        ranks: Range<usize>,
        mut removed: impl FnMut(&[u8], f64),
    ) -> usize {
        let members = &mut self.members;
        self.tree.remove_range(ranks, |member| {
            // SAFETY: the tree has no pointer to the member any more, and the table still owns it;
            // nothing reads the member once `take` has freed it.
            let (bytes, score) = unsafe { (member.bytes(), member.score()) };
            removed(bytes, score);
            members.take(bytes);
        })
    }

    /// The figures of the dictionary, for DEBUG HTSTATS-KEY.
    pub fn table_stats(&self) -> super::hashtable::Stats {
        self.members.table.stats()
    }

    /// Visits the members of one bucket for ZSCAN. Returns the next cursor.
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        // SAFETY: the table owns the members that are passed, and is borrowed during the call.
        self.members
            .table
            .scan(cursor, |m| unsafe { visit(m.bytes(), m.score()) })
    }

    /// The memory of the sorted set in bytes: table, tree and members.
    pub fn memory_bytes(&self) -> usize {
        size_of::<SortedSet>()
            + self.members.table.memory_bytes()
            + self.members.bytes
            + self.tree.memory_bytes()
    }

    /// An estimate of the sorted set's memory in bytes, in which only a few nodes of the tree are
    /// measured.
    pub fn memory_estimate(&self) -> usize {
        size_of::<SortedSet>()
            + self.members.table.memory_bytes()
            + self.members.bytes
            + self.tree.memory_estimate()
    }
}

/// Defragments first the tree with the members, by rank, then the table, by bucket.
impl Relocate for SortedSet {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        let by_rank = |set: &mut SortedSet, cursor: Cursor, mover: &mut Mover| {
            let SortedSet { members, tree } = set;
            let rank = usize::try_from(cursor).unwrap_or(usize::MAX);
            // SAFETY: the table owns the moved member as it owned the original.
            let next = unsafe { tree.relocate(rank, mover, |m, mover| members.relocate(m, mover)) };
            if next < tree.len() { next as Cursor } else { 0 }
        };
        in_turn(self, cursor, mover, by_rank, |set, cursor, mover| {
            set.members
                .table
                .relocate_buckets(cursor as u64, mover)
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use crate::ds::thin_buffer::size_class;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SEED: HashSeed = HashSeed::new([1, 2]);

    proptest! {
        #![proptest_config(crate::ds::cases(64))]

        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0u16..400, -9i8..9, 0u8..10), 1..scaled(800, 100))) {
            let mut set = SortedSet::new(SEED);
            let mut twin: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
            for (number, score, kind) in steps {
                let name = number.to_string().into_bytes();
                match kind {
                    0 => assert_eq!(set.remove(&name), twin.remove(&name)),
                    1 => {
                        let start = number as usize / 2;
                        set.remove_range(start..start + 9, |bytes, score| {
                            assert_eq!(twin.remove(bytes), Some(score));
                        });
                    }
                    2 => {
                        let moved = crate::ds::relocate::relocate_all(&mut set);
                        assert!(moved as usize >= set.len());
                    }
                    _ => {
                        let change = set.upsert(&name, |_| Some(f64::from(score)));
                        assert_eq!(change.old, twin.insert(name, f64::from(score)));
                    }
                }
                assert_eq!(set.len(), twin.len());
            }
            assert!(twin.iter().all(|(name, score)| set.score(name) == Some(*score)));
            let mut rebuilt = MemberTable::new(SEED);
            for (name, score) in &twin {
                rebuilt.upsert(name, |_| Some(*score));
            }
            assert!(SortedSet::from(rebuilt).tree().iter().eq(set.tree().iter()));
            let sum: usize = twin.keys().map(|name| size_class(9 + name.len())).sum();
            assert_eq!(set.members.bytes, sum);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a figure of 100,000 members")]
    fn a_member_of_a_big_set_costs_60_bytes() {
        let n = 100_000;
        let mut set = SortedSet::new(SEED);
        let mut name = *b"member:000000000";
        for i in 0..n as u64 {
            name[8..].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            set.upsert(&name, |_| {
                Some((i.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20) as f64)
            });
        }
        let measured = set.memory_bytes();
        assert!(measured < n * 60, "{}", measured as f64 / n as f64);
    }
}
