//! The tree of a big sorted set: a B+ tree with the number of members of each subtree.
//!
//! ```text
//!            Inner: Vec<Branch>, up to 64       Branch = { count, order, first, node }
//!           /         |         \                        how many members below, and the first of them
//!        Inner      Inner      Inner
//!       /  |  \    /  |  \    /  |  \
//!     Leaf  ..                     Leaf         up to 168 members: 4-byte keys and pointers, see `leaf`
//!      | |                          | |
//!    members, owned by the dictionary           | score | length | bytes |, see `ds::member`
//! ```
//!
//! Members are in order of score, then of bytes (memcmp). **All ranges are ranks**: a bound of a
//! range (score, bytes, or a member) is a [`Probe`], `lower_bound` returns the number of members
//! before the probe in O(log n), and ranges are iterated, counted and deleted by rank. So ZRANK,
//! ZCOUNT, ZRANGEBYLEX and ZREMRANGEBYSCORE share one search and one walk over the tree. An
//! iterator keeps a leaf and a rank for each of its ends, and at the end of a leaf descends from
//! the root again by rank. A descent from the root once in a hundred members is cheaper than
//! sibling pointers, which each insert would have to update.
//!
//! Cost: a search in 1,000,000 members reads three inner nodes (which stay in the CPU's cache), a
//! few cache lines of a leaf, and the members whose keys equal that of the searched score: usually
//! only one member. Memory: 13 to 14 bytes for each member (`tests::bytes_per_member`); a skip list
//! needs 32 or more.
//!
//! **Invariants** (`ZsetTree::check` verifies them after each step of the generated histories)
//! - `branch.count` is the number of members below the branch, `branch.first` the first of these
//!   members, and `branch.order` its score, mapped to an integer of the same order;
//! - the leaves of a tree are all at one depth; the root is a leaf or has at least two branches;
//!   every other node has at least a quarter of its maximum of branches or members;
//! - every pointer in a tree leads to a live member: `insert` is unsafe for this reason alone, and
//!   a removal passes a member to its caller, which may free it, only when the tree does not read
//!   it any more.
//!
//! **Limits**: scores are not NaN (commands refuse it). -0.0 and 0.0 are one score, as in Redis. If
//! the scores of a set differ, the result of a range by lex is undefined, as Redis's documentation
//! says, but the tree reads no invalid memory.
//!
//! Rejected for sorted sets: a skip list (a cache miss for each level; 37 bytes of pointers and
//! spans for each member); parent pointers in the tree (the division of an inner node would have to
//! change every child); full scores in the leaves (4 more bytes for each member, only to avoid
//! reading the member, which a reply reads anyway).

mod leaf;

#[cfg(test)]
mod tests;

use super::member::MemberPtr;
use super::thin_buffer::vec_bytes;
use crate::sys::mover::Mover;
use leaf::{Leaf, order_of};
use std::iter::FusedIterator;
use std::ops::Range;

/// The maximum number of branches of an inner node. Tests use narrow nodes, so that sets of a few
/// hundred members have deep trees.
const MAX_BRANCHES: usize = if cfg!(test) { 8 } else { 64 };
/// The minimum number of branches of an inner node other than the root.
const MIN_BRANCHES: usize = MAX_BRANCHES / 4;
/// The number of members of a leaf after a bulk build. A leaf can have 168, so few leaves are
/// divided soon after the build.
const BUILD_LEAF: usize = 126;
const BUILD_BRANCHES: usize = MAX_BRANCHES / 4 * 3;

/// Maps a score to an integer of the same order: of a negative score all bits are flipped, of any
/// other score the sign bit.
pub(super) fn order(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

/// A position between two members of a sorted set: before or behind a member, a score, or bytes.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a>(Place<'a>);

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Pair(u64, &'a [u8]),
    Score { order: u64, after: bool },
    Lex { bytes: &'a [u8], after: bool },
}

impl<'a> Probe<'a> {
    /// The position before the member `bytes` with this score, or where this member would be
    /// inserted.
    pub fn at(score: f64, bytes: &'a [u8]) -> Probe<'a> {
        Probe(Place::Pair(order(score), bytes))
    }

    /// The position before the first member with this score or a higher one.
    pub fn before_score(score: f64) -> Probe<'a> {
        Probe(Place::Score {
            order: order(score),
            after: false,
        })
    }

    /// The position behind the last member with this score or a lower one.
    pub fn after_score(score: f64) -> Probe<'a> {
        Probe(Place::Score {
            order: order(score),
            after: true,
        })
    }

    /// The position before the first member that is `bytes` or greater, for sets in which all
    /// scores are equal.
    pub fn before_lex(bytes: &'a [u8]) -> Probe<'a> {
        Probe(Place::Lex {
            bytes,
            after: false,
        })
    }

    /// The position behind the last member that is `bytes` or smaller, for sets in which all scores
    /// are equal.
    pub fn after_lex(bytes: &'a [u8]) -> Probe<'a> {
        Probe(Place::Lex { bytes, after: true })
    }

    /// The score of the probe, mapped to an integer of the same order; `None` if the probe is only
    /// bytes.
    fn order(&self) -> Option<u64> {
        match self.0 {
            Place::Pair(order, _) | Place::Score { order, .. } => Some(order),
            Place::Lex { .. } => None,
        }
    }

    /// Whether the probe is behind `member`, whose bytes are read only if the scores are equal.
    #[inline]
    fn is_after(&self, member_order: u64, member: MemberPtr) -> bool {
        // SAFETY: all members in a tree live.
        let bytes = || unsafe { member.bytes() };
        match self.0 {
            Place::Pair(order, probe) => {
                member_order < order || (member_order == order && bytes() < probe)
            }
            Place::Score { order, after } => {
                member_order < order || (after && member_order == order)
            }
            Place::Lex {
                bytes: probe,
                after,
            } => bytes() < probe || (after && bytes() == probe),
        }
    }

    /// Whether the probe has the score and bytes of `member`, or is behind it.
    #[inline]
    fn reaches(&self, member_order: u64, member: MemberPtr) -> bool {
        // SAFETY: all members in a tree live.
        let bytes = || unsafe { member.bytes() };
        match self.0 {
            Place::Pair(order, probe) => {
                member_order < order || (member_order == order && bytes() <= probe)
            }
            _ => self.is_after(member_order, member),
        }
    }

    /// Whether the probe has the score and bytes of `member`.
    fn is_at(&self, member: MemberPtr) -> bool {
        match self.0 {
            Place::Pair(order, bytes) => {
                // SAFETY: all members in a tree live.
                order == order_of(member) && bytes == unsafe { member.bytes() }
            }
            _ => false,
        }
    }
}

/// A member and its score, as an iterator over the tree returns them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    pub score: f64,
    pub bytes: &'a [u8],
}

struct Branch {
    count: usize,
    order: u64,
    first: MemberPtr,
    node: Node,
}

enum Node {
    Leaf(Leaf),
    Inner(Vec<Branch>),
}

const _: () = assert!(size_of::<Branch>() == 48);

impl Branch {
    fn new(node: Node) -> Branch {
        let first = node
            .first()
            .expect("no node but an empty root is without members");
        Branch {
            count: node.count(),
            order: order_of(first),
            first,
            node,
        }
    }

    /// Updates the branch's first member and its score after a change below the branch. Members are
    /// rarely in the CPU's cache, so the first member is read only if its address is not the same
    /// as before.
    fn refresh_first(&mut self) {
        if let Some(first) = self.node.first().filter(|first| *first != self.first) {
            (self.order, self.first) = (order_of(first), first);
        }
    }

    /// Moves the second half of the branch's node to a new branch, the right sibling of the branch.
    fn divide(&mut self) -> Branch {
        let right = Branch::new(match &mut self.node {
            Node::Leaf(leaf) => Node::Leaf(leaf.divide()),
            Node::Inner(branches) => {
                let right = branches.split_off(branches.len() / 2);
                branches.shrink_to_fit();
                Node::Inner(right)
            }
        });
        self.count -= right.count;
        right
    }
}

impl Node {
    fn first(&self) -> Option<MemberPtr> {
        match self {
            Node::Leaf(leaf) => leaf.members().first().copied(),
            Node::Inner(branches) => branches.first().map(|b| b.first),
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(branches) => branches.iter().map(|b| b.count).sum(),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() >= leaf::MAX,
            Node::Inner(branches) => branches.len() >= MAX_BRANCHES,
        }
    }

    fn is_overfull(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() > leaf::MAX,
            Node::Inner(branches) => branches.len() > MAX_BRANCHES,
        }
    }

    fn is_underfull(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() < leaf::MIN,
            Node::Inner(branches) => branches.len() < MIN_BRANCHES,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.memory_bytes(),
            Node::Inner(branches) => {
                let below: usize = branches.iter().map(|b| b.node.memory_bytes()).sum();
                vec_bytes(branches) + below
            }
        }
    }

    /// An estimate of the memory of the node and all nodes below it from a few branches of each
    /// level, in O(1).
    fn memory_estimate(&self) -> usize {
        const WEIGHED: usize = 4;
        let Node::Inner(branches) = self else {
            return self.memory_bytes();
        };
        let step = branches.len().div_ceil(WEIGHED).max(1);
        let (mut bytes, mut members) = (0, 0);
        for branch in branches.iter().step_by(step) {
            bytes += branch.node.memory_estimate();
            members += branch.count;
        }
        let count: usize = branches.iter().map(|branch| branch.count).sum();
        let below = (bytes as u128 * count as u128 / members.max(1) as u128) as usize;
        vec_bytes(branches) + below
    }

    fn for_each(&self, visit: &mut impl FnMut(MemberPtr)) {
        match self {
            Node::Leaf(leaf) => leaf.members().iter().for_each(|&m| visit(m)),
            Node::Inner(branches) => branches.iter().for_each(|b| b.node.for_each(visit)),
        }
    }

    /// Offers the nodes on the path to the leaf with this rank, the leaf and its members to the
    /// mover, which defragments memory. Returns the number of members up to the end of the leaf.
    fn relocate(
        &mut self,
        rank: usize,
        mover: &mut Mover,
        moved: &mut impl FnMut(MemberPtr, &mut Mover) -> Option<MemberPtr>,
    ) -> usize {
        match self {
            Node::Leaf(leaf) => {
                leaf.relocate(mover, moved);
                leaf.len()
            }
            Node::Inner(branches) => {
                mover.vec(branches);
                let (at, passed) = child_at_rank(branches, rank);
                let branch = &mut branches[at];
                let end = branch.node.relocate(rank - passed, mover, moved);
                branch.refresh_first();
                passed + end
            }
        }
    }

    /// Inserts a member below this node, which must not be full.
    fn insert(&mut self, probe: &Probe, member: MemberPtr) {
        match self {
            Node::Leaf(leaf) => leaf.insert(leaf.lower_bound(probe), member),
            Node::Inner(branches) => {
                let mut at = child_for(branches, probe);
                if branches[at].node.is_full() {
                    let right = branches[at].divide();
                    let goes_right = probe.is_after(right.order, right.first);
                    reserve_one(branches);
                    branches.insert(at + 1, right);
                    at += usize::from(goes_right);
                }
                let branch = &mut branches[at];
                branch.node.insert(probe, member);
                branch.count += 1;
                branch.refresh_first();
            }
        }
    }

    /// Removes the member with the score and bytes of the probe, if it is below this node.
    fn remove_one(&mut self, probe: &Probe) -> Option<MemberPtr> {
        match self {
            Node::Leaf(leaf) => {
                let at = leaf.lower_bound(probe);
                let member = leaf
                    .members()
                    .get(at)
                    .copied()
                    .filter(|&m| probe.is_at(m))?;
                leaf.remove(at..at + 1);
                Some(member)
            }
            Node::Inner(branches) => {
                let at = child_with(branches, probe);
                let branch = &mut branches[at];
                let member = branch.node.remove_one(probe)?;
                branch.count -= 1;
                branch.refresh_first();
                mend(branches, at);
                Some(member)
            }
        }
    }

    /// Removes the members whose ranks, counted from the first member below this node, are in
    /// `range`. Each member is passed to `removed` when the tree does not read it any more.
    fn remove(&mut self, range: Range<usize>, removed: &mut impl FnMut(MemberPtr)) {
        let branches = match self {
            Node::Leaf(leaf) => {
                leaf.members()[range.clone()]
                    .iter()
                    .for_each(|&m| removed(m));
                return leaf.remove(range);
            }
            Node::Inner(branches) => branches,
        };
        let (first, mut passed) = child_at_rank(branches, range.start);
        let mut emptied = first..first;
        for (at, branch) in branches.iter_mut().enumerate().skip(first) {
            if passed >= range.end {
                break;
            }
            let start = range.start.saturating_sub(passed);
            let end = (range.end - passed).min(branch.count);
            passed += branch.count;
            if end - start == branch.count {
                branch.node.for_each(removed);
                emptied = if emptied.is_empty() {
                    at..at + 1
                } else {
                    emptied.start..at + 1
                };
            } else {
                branch.node.remove(start..end, removed);
                branch.count -= end - start;
                branch.refresh_first();
            }
        }
        // The branches before and behind the emptied ones may have lost members, so they are
        // balanced with their neighbours.
        let edge = emptied.start;
        branches.drain(emptied);
        for at in [edge + 1, edge, edge.wrapping_sub(1)] {
            mend(branches, at);
        }
        if branches.len() < branches.capacity() / 2 {
            branches.shrink_to_fit();
        }
    }
}

/// Makes room for one more branch. The capacity grows by a quarter: `Vec`'s doubling would leave a
/// third of the memory of inner nodes unused.
fn reserve_one(branches: &mut Vec<Branch>) {
    if branches.len() == branches.capacity() {
        branches.reserve_exact((branches.len() / 4).max(2));
    }
}

/// The index of the branch in which a probe lies: the last branch whose first member is before the
/// probe, or 0.
fn child_for(branches: &[Branch], probe: &Probe) -> usize {
    branches
        .partition_point(|b| probe.is_after(b.order, b.first))
        .saturating_sub(1)
}

/// The index of the branch that has the member with the score and bytes of the probe, if the tree
/// has this member.
fn child_with(branches: &[Branch], probe: &Probe) -> usize {
    branches
        .partition_point(|b| probe.reaches(b.order, b.first))
        .saturating_sub(1)
}

/// The index of the branch that has the member with this rank, and the number of members before
/// this branch.
fn child_at_rank(branches: &[Branch], rank: usize) -> (usize, usize) {
    let mut passed = 0;
    for (at, branch) in branches.iter().enumerate() {
        if rank < passed + branch.count {
            return (at, passed);
        }
        passed += branch.count;
    }
    unreachable!("rank beyond the members below this node");
}

/// Joins branch `at` with a neighbour, or balances the two branches, until branch `at` has the
/// minimum of members or has no siblings.
fn mend(branches: &mut Vec<Branch>, mut at: usize) {
    while at < branches.len() && branches.len() > 1 && branches[at].node.is_underfull() {
        at = at.saturating_sub(1);
        pool(branches, at);
    }
}

/// Moves the content of branch `left + 1` to branch `left`. If the joined content is too much for
/// one node, divides it in halves.
fn pool(branches: &mut Vec<Branch>, left: usize) {
    let right = branches.remove(left + 1);
    let target = &mut branches[left];
    target.count += right.count;
    match (&mut target.node, right.node) {
        (Node::Leaf(leaf), Node::Leaf(more)) => leaf.extend(more.members()),
        (Node::Inner(inner), Node::Inner(more)) => {
            let seam = inner.len();
            inner.extend(more);
            // A node without siblings may have had too few branches; after the join it has siblings
            // with which it can be balanced.
            mend(inner, seam);
            mend(inner, seam - 1);
        }
        _ => unreachable!("siblings are at one depth"),
    }
    if target.node.is_overfull() {
        let right = target.divide();
        branches.insert(left + 1, right);
    }
}

/// The tree of a sorted set. The tree borrows its members, so dropping the tree frees none of them.
pub struct ZsetTree {
    root: Node,
    len: usize,
}

// SAFETY: the tree owns its nodes. The members belong to the caller of `insert`, which guarantees
// that they live as long as the tree, and moves tree and members to another thread together.
unsafe impl Send for ZsetTree {}

impl Default for ZsetTree {
    fn default() -> Self {
        ZsetTree::new()
    }
}

impl ZsetTree {
    /// An empty tree.
    pub fn new() -> ZsetTree {
        ZsetTree {
            root: Node::Leaf(Leaf::with_capacity(0)),
            len: 0,
        }
    }

    /// Builds a tree from sorted members, which must all be different. Takes O(n): the leaves are
    /// built first, then each level of inner nodes.
    ///
    /// # Safety
    /// Each member fulfils what [`ZsetTree::insert`] demands.
    pub unsafe fn from_sorted(members: &[MemberPtr]) -> ZsetTree {
        let len = members.len();
        let parts = even_parts(len, BUILD_LEAF);
        let mut rest = members;
        let mut level: Vec<Node> = Vec::with_capacity(len / BUILD_LEAF + 1);
        for part in parts {
            let (here, behind) = rest.split_at(part);
            level.push(Node::Leaf(Leaf::from_sorted(here)));
            rest = behind;
        }
        while level.len() > 1 {
            let parts = even_parts(level.len(), BUILD_BRANCHES);
            let mut nodes = level.into_iter();
            level = parts
                .map(|n| Node::Inner(nodes.by_ref().take(n).map(Branch::new).collect()))
                .collect();
        }
        let root = level
            .pop()
            .unwrap_or_else(|| Node::Leaf(Leaf::with_capacity(0)));
        ZsetTree { root, len }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Offers nodes to the mover, which defragments memory, and members to `moved`, from `rank` on,
    /// until the budget of the mover's step is spent. `moved` returns the new address of a member
    /// if it has moved the member. Returns the next rank, which is the number of members at the
    /// end.
    ///
    /// # Safety
    /// The pointer that `moved` returns leads to a copy of the member that `moved` was
    /// given, and fulfils what [`ZsetTree::insert`] demands.
    pub(super) unsafe fn relocate(
        &mut self,
        rank: usize,
        mover: &mut Mover,
        mut moved: impl FnMut(MemberPtr, &mut Mover) -> Option<MemberPtr>,
    ) -> usize {
        let mut rank = rank;
        while rank < self.len {
            rank = self.root.relocate(rank, mover, &mut moved);
            if mover.is_spent() {
                break;
            }
        }
        rank
    }

    /// The memory of the tree's nodes in bytes, without the members.
    pub fn memory_bytes(&self) -> usize {
        size_of::<ZsetTree>() + self.root.memory_bytes()
    }

    /// An estimate of [`ZsetTree::memory_bytes`] from a few nodes of each level.
    pub fn memory_estimate(&self) -> usize {
        size_of::<ZsetTree>() + self.root.memory_estimate()
    }

    /// Inserts a member. The caller has checked that no member with the same bytes is in the tree.
    ///
    /// # Safety
    /// The member lives until it is removed from the tree or the tree is dropped; its score changes
    /// only through [`ZsetTree::update`].
    pub unsafe fn insert(&mut self, member: MemberPtr) {
        // SAFETY: the caller promises that the member lives.
        let probe = unsafe { Probe::at(member.score(), member.bytes()) };
        if self.root.is_full() {
            let mut left = Branch::new(std::mem::replace(&mut self.root, Node::Inner(Vec::new())));
            let right = left.divide();
            self.root = Node::Inner(vec![left, right]);
        }
        self.root.insert(&probe, member);
        self.len += 1;
    }

    /// The number of members that are before the probe's position.
    pub fn lower_bound(&self, probe: &Probe) -> usize {
        let (mut node, mut passed) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return passed + leaf.lower_bound(probe),
                Node::Inner(branches) => {
                    let at = child_for(branches, probe);
                    passed += branches[..at].iter().map(|b| b.count).sum::<usize>();
                    node = &branches[at].node;
                }
            }
        }
    }

    /// The rank of a member; `None` if the member is not in the tree.
    pub fn rank_of(&self, score: f64, bytes: &[u8]) -> Option<usize> {
        let probe = Probe::at(score, bytes);
        let (mut node, mut passed) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let at = leaf.lower_bound(&probe);
                    return leaf
                        .members()
                        .get(at)
                        .filter(|&&m| probe.is_at(m))
                        .map(|_| passed + at);
                }
                Node::Inner(branches) => {
                    let at = child_with(branches, &probe);
                    passed += branches[..at].iter().map(|b| b.count).sum::<usize>();
                    node = &branches[at].node;
                }
            }
        }
    }

    /// The leaf that has the member with this rank, and the member's index in the leaf. The rank
    /// must be below the number of members.
    fn leaf_at(&self, mut rank: usize) -> (&Leaf, usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return (leaf, rank),
                Node::Inner(branches) => {
                    let (at, passed) = child_at_rank(branches, rank);
                    rank -= passed;
                    node = &branches[at].node;
                }
            }
        }
    }

    /// The member with this rank.
    pub fn get(&self, rank: usize) -> Option<Item<'_>> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    /// The first member.
    pub fn first(&self) -> Option<Item<'_>> {
        self.get(0)
    }

    /// The last member.
    pub fn last(&self) -> Option<Item<'_>> {
        self.get(self.len.checked_sub(1)?)
    }

    /// Iterates over the members whose ranks are in `ranks`, from either end. Ranks beyond the last
    /// member are ignored.
    pub fn range(&self, ranks: Range<usize>) -> Iter<'_> {
        let end = ranks.end.min(self.len);
        let start = ranks.start.min(end);
        Iter {
            tree: self,
            start,
            end,
            front: &[],
            back: &[],
        }
    }

    /// Iterates over all members in order.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len)
    }

    /// Removes a member by score and bytes. The caller frees the member.
    pub fn remove(&mut self, score: f64, bytes: &[u8]) -> Option<MemberPtr> {
        let member = self.root.remove_one(&Probe::at(score, bytes))?;
        self.len -= 1;
        self.lower_root();
        Some(member)
    }

    /// Replaces a root that has a single branch by the node of this branch.
    fn lower_root(&mut self) {
        while let Node::Inner(branches) = &mut self.root
            && branches.len() == 1
        {
            self.root = branches.pop().expect("it has one").node;
        }
    }

    /// Removes the members whose ranks are in `ranks`, and passes each to `removed`, which may free
    /// the member. Returns the number of removed members.
    pub fn remove_range(
        &mut self,
        ranks: Range<usize>,
        mut removed: impl FnMut(MemberPtr),
    ) -> usize {
        let end = ranks.end.min(self.len);
        let start = ranks.start.min(end);
        if start == end {
            return 0;
        }
        if end - start == self.len {
            let old = std::mem::take(self);
            old.root.for_each(&mut removed);
            return end - start;
        }
        self.root.remove(start..end, &mut removed);
        self.lower_root();
        self.len -= end - start;
        end - start
    }

    /// Changes the score of a member. Usually the change of a score is small and the member's rank
    /// stays the same, so that no member is moved within the tree.
    ///
    /// # Safety
    /// The member is in this tree, so it lives.
    pub unsafe fn update(&mut self, member: MemberPtr, score: f64) {
        // SAFETY: all members in a tree live.
        let (old, bytes) = unsafe { (member.score(), member.bytes()) };
        let probe = Probe::at(old, bytes);
        if order(old) == order(score) {
            // SAFETY: the score is the same number, or 0.0 in place of -0.0, so the order is the
            // same.
            return unsafe { member.set_score(score) };
        }
        if update_in_place(&mut self.root, &probe, member, score) {
            return;
        }
        self.remove(old, bytes);
        // SAFETY: the member is in no tree now, and lives as before.
        unsafe {
            member.set_score(score);
            self.insert(member);
        }
    }

    /// Asserts the invariants of the tree that this module's header lists. Only tests call `check`.
    #[cfg(test)]
    fn check(&self) {
        fn walk(node: &Node, is_root: bool) -> usize {
            assert!(is_root || !node.is_underfull());
            assert!(!node.is_overfull());
            match node {
                Node::Leaf(leaf) => {
                    for (&key, &member) in leaf.keys().iter().zip(leaf.members()) {
                        assert_eq!(key, leaf.key_of(order_of(member)));
                    }
                    assert!(leaf.keys().is_sorted());
                    0
                }
                Node::Inner(branches) => {
                    assert!(branches.len() >= 2);
                    let heights: Vec<usize> =
                        branches.iter().map(|b| walk(&b.node, false)).collect();
                    assert!(heights.iter().all(|h| *h == heights[0]));
                    for b in branches {
                        assert_eq!(b.count, b.node.count());
                        assert!(b.node.first() == Some(b.first));
                        assert_eq!(b.order, order_of(b.first));
                    }
                    heights[0] + 1
                }
            }
        }
        walk(&self.root, true);
        assert_eq!(self.len, self.root.count());
        let items: Vec<Item> = self.iter().collect();
        assert!(items.is_sorted_by(|a, b| (order(a.score), a.bytes) < (order(b.score), b.bytes)));
    }
}

/// Sets the score of a member in place if the member stays strictly between its neighbours in the
/// leaf. Returns false for a member at an edge of a leaf, whose neighbour is in another leaf and
/// whose score may be in the branches above: such a member is removed and inserted again.
fn update_in_place(root: &mut Node, probe: &Probe, member: MemberPtr, score: f64) -> bool {
    let mut node = root;
    let leaf = loop {
        match node {
            Node::Leaf(leaf) => break leaf,
            Node::Inner(branches) => {
                let at = child_with(branches, probe);
                node = &mut branches[at].node;
            }
        }
    };
    let at = leaf.lower_bound(probe);
    if at == 0 || at + 1 >= leaf.len() || !leaf.fits_between(order(score), at) {
        return false;
    }
    debug_assert!(leaf.members()[at] == member);
    // SAFETY: the member lives, and its key is corrected in the next line.
    unsafe { member.set_score(score) };
    leaf.rekey(at);
    true
}

/// Divides `total` into parts of at most `target` that differ by at most one.
fn even_parts(total: usize, target: usize) -> impl Iterator<Item = usize> {
    let parts = total.div_ceil(target);
    (0..parts).map(move |i| total / parts + usize::from(i < total % parts))
}

/// An iterator over the members of a range of ranks, from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    tree: &'a ZsetTree,
    start: usize,
    end: usize,
    /// The members from rank `start` on in the leaf that `next` reads; empty if `next` must descend
    /// to another leaf.
    front: &'a [MemberPtr],
    /// The members before rank `end` in the leaf that `next_back` reads; empty if `next_back` must
    /// descend to another leaf.
    back: &'a [MemberPtr],
}

fn item<'a>(member: MemberPtr) -> Item<'a> {
    // SAFETY: `'a` is the borrow of the tree, whose members live.
    unsafe {
        Item {
            score: member.score(),
            bytes: member.bytes(),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.start == self.end {
            return None;
        }
        if self.front.is_empty() {
            let (leaf, at) = self.tree.leaf_at(self.start);
            self.front = &leaf.members()[at..];
        }
        let (&member, rest) = self.front.split_first()?;
        self.front = rest;
        self.start += 1;
        Some(item(member))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.start, Some(self.end - self.start))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<Item<'a>> {
        if self.start == self.end {
            return None;
        }
        if self.back.is_empty() {
            let (leaf, at) = self.tree.leaf_at(self.end - 1);
            self.back = &leaf.members()[..=at];
        }
        let (&member, rest) = self.back.split_last()?;
        self.back = rest;
        self.end -= 1;
        Some(item(member))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}
