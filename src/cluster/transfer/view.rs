//! What migration jobs need of the cluster's state machine: questions about nodes, and the claim of
//! slots.

use crate::cluster::Cluster;
use crate::cluster::bitmap::Bitmap;
use crate::cluster::event::{Action, Address, Now};
use crate::cluster::name::Name;
use crate::cluster::packet::flag;

impl Cluster {
    /// The name of the node that owns `slot`.
    pub fn owner_name(&self, slot: u16) -> Option<Name> {
        let owner = self.slots.owner(slot)?;
        Some(self.nodes[owner].name)
    }

    /// Whether the cluster has a node with this name.
    pub fn knows(&self, name: &Name) -> bool {
        self.nodes.find(name).is_some()
    }

    /// Whether the node with this name is a primary.
    pub fn is_primary(&self, name: &Name) -> bool {
        let node = self.nodes.find(name);
        node.is_some_and(|node| self.nodes[node].is_primary())
    }

    /// The address of the node with this name.
    pub fn address_of_node(&self, name: &Name) -> Option<Address> {
        let node = self.nodes.find(name)?;
        Some(self.nodes[node].address)
    }

    /// Whether slots are being moved with CLUSTER SETSLOT.
    pub fn moves_by_hand(&self) -> bool {
        !self.slots.importing.is_empty() || !self.slots.migrating.is_empty()
    }

    /// Whether a node is marked FAIL, or is not known any more.
    pub(super) fn is_lost(&self, name: &Name) -> bool {
        let node = self.nodes.find(name);
        node.is_none_or(|node| self.nodes[node].has(flag::FAIL))
    }

    /// Whether a node has answered a ping that was sent after the time `ms`.
    pub(super) fn has_answered_since(&self, name: &Name, ms: u64) -> bool {
        let node = self.nodes.find(name);
        node.is_some_and(|node| self.nodes[node].answered_ping > ms)
    }

    /// Whether all claims of this node are on the disk, and so in the heads of its packets.
    pub(super) fn is_claim_announced(&self) -> bool {
        !self.is_claim_held()
    }

    /// Makes this node the owner of another node's slots, under a new epoch. The keys of the slots
    /// have arrived, and their owner has granted the move.
    pub fn claim_slots(&mut self, now: Now, slots: &Bitmap, out: &mut Vec<Action>) {
        for slot in slots.iter() {
            self.slots.end_move(slot);
            self.set_owner(slot, Some(self.me));
        }
        self.new_config_epoch();
        let text = format!("configEpoch set to {} to claim slots", self.current_epoch);
        self.log(log::Level::Info, text, out);
        self.todo.broadcast = true;
        self.finish(now, out);
    }
}
