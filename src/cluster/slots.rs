//! The owner of each slot in the view of this node, and the slots that are being moved.
//!
//! A table of 32 KB has the owner of each slot in two bytes. A bitmap of slots for each node beside
//! the table would take 2 KB for each node, and would repeat the table's content. Without bitmaps,
//! comparing a primary's claim with the table walks the claimed slots: 16,384 slots for the claims
//! of all primaries of a cluster together.
//!
//! **Invariant:** [`super::nodes::Node::slot_count`] is the number of the node's slots in the
//! table: [`super::Cluster`] changes the table and `slot_count` in one function (`set_owner`).

use std::collections::BTreeMap;

use super::bitmap::Bitmap;
use super::name::Name;
use super::nodes::NodeIndex;
use crate::db::slot::SLOTS;

/// The owner of each slot, and the slots that are being moved.
#[derive(Clone, Debug)]
pub struct Slots {
    owner: Box<[NodeIndex; SLOTS]>,
    assigned: usize,
    /// Slots whose owner does not claim them any more, so that even a claim with a lower epoch
    /// takes them.
    pub(super) unclaimed: Bitmap,
    /// Slots that are being moved from this node (or its primary) to the named node: CLUSTER
    /// SETSLOT MIGRATING.
    pub migrating: BTreeMap<u16, NodeIndex>,
    /// Slots that are being moved from the named node to this node (or its primary): CLUSTER
    /// SETSLOT IMPORTING.
    pub importing: BTreeMap<u16, NodeIndex>,
    /// Open slots of this node's primary whose other node is not known yet: the slot, whether it
    /// leaves the primary, and the other node's name.
    pub(super) unresolved: Vec<(u16, bool, Name)>,
}

/// The slots of one node, in a form in which a slot is tested quickly.
#[derive(Clone, Copy)]
pub struct Owned<'a> {
    owner: &'a [NodeIndex; SLOTS],
    node: NodeIndex,
}

impl Owned<'_> {
    /// Whether `slot`, which must be below [`SLOTS`], is one of the node's slots.
    #[inline(always)]
    pub fn has(&self, slot: u16) -> bool {
        self.owner[usize::from(slot)] == self.node
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots {
            owner: Box::new([NodeIndex::NONE; SLOTS]),
            assigned: 0,
            unclaimed: Bitmap::default(),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            unresolved: Vec::new(),
        }
    }
}

impl Slots {
    /// Notes that `slot` is not being moved to or from this node any more.
    pub fn end_move(&mut self, slot: u16) {
        self.importing.remove(&slot);
        self.migrating.remove(&slot);
        self.unresolved.retain(|(other, ..)| *other != slot);
    }

    /// Notes that no slot is being moved to or from this node any more.
    pub(super) fn close_all(&mut self) {
        self.migrating.clear();
        self.importing.clear();
        self.unresolved.clear();
    }

    /// The owner of a slot, which must be below [`SLOTS`].
    pub fn owner(&self, slot: u16) -> Option<NodeIndex> {
        let owner = self.owner[usize::from(slot)];
        (owner != NodeIndex::NONE).then_some(owner)
    }

    /// Whether the slot, which must be below [`SLOTS`], belongs to `node`.
    #[inline]
    pub(super) fn is_owner(&self, slot: u16, node: NodeIndex) -> bool {
        self.owner[usize::from(slot)] == node
    }

    /// A view that tests whether a slot belongs to `node`.
    pub(super) fn owned(&self, node: NodeIndex) -> Owned<'_> {
        Owned {
            owner: &self.owner,
            node,
        }
    }

    /// Whether the slot is being moved from this node to another one.
    #[inline]
    pub(super) fn is_migrating(&self, slot: u16) -> bool {
        !self.migrating.is_empty() && self.migrating.contains_key(&slot)
    }

    /// The number of slots with an owner.
    pub fn assigned(&self) -> usize {
        self.assigned
    }

    /// Sets the owner of a slot and returns its previous owner.
    pub(super) fn replace(&mut self, slot: u16, owner: Option<NodeIndex>) -> Option<NodeIndex> {
        let before = self.owner(slot);
        self.owner[usize::from(slot)] = owner.unwrap_or(NodeIndex::NONE);
        self.unclaimed.remove(slot);
        self.assigned += usize::from(owner.is_some());
        self.assigned -= usize::from(before.is_some());
        before
    }

    /// The set of all slots that `node` owns.
    pub fn of(&self, node: NodeIndex) -> Bitmap {
        let slots = (0..SLOTS as u16).filter(|slot| self.owner[usize::from(*slot)] == node);
        slots.collect()
    }

    /// All ranges of slots that have the same owner, both ends included, in order.
    pub fn ranges(&self) -> Vec<(NodeIndex, (u16, u16))> {
        let mut ranges: Vec<(NodeIndex, (u16, u16))> = Vec::new();
        for (slot, owner) in (0..SLOTS as u16).zip(self.owner.iter()) {
            match ranges.last_mut() {
                Some((last_owner, (_, last))) if last_owner == owner && *last + 1 == slot => {
                    *last = slot;
                }
                _ if *owner == NodeIndex::NONE => {}
                _ => ranges.push((*owner, (slot, slot))),
            }
        }
        ranges
    }
}
