//! Claims of slots: how nodes agree, by config epochs, on the owner of each slot.
//!
//! The head of each PING has the slots of the sending primary (or of the replica's primary) and its
//! config epoch. A claim with a higher epoch than that of the slot's owner takes the slot; a claim
//! with a lower epoch is answered with an UPDATE that has the owner's claim. So the views of all
//! nodes become equal to the claim with the highest epoch, in whatever order packets arrive.
//!
//! Two primaries with the same config epoch could both keep a slot, so the primary with the smaller
//! name takes a new epoch. A primary may take a new config epoch without votes: an epoch that is
//! higher than all others contradicts no vote, as votes are about claims of the slots of a failed
//! primary.

use std::rc::Rc;

use super::bitmap::Bitmap;
use super::event::Action;
use super::machine::{Cluster, Held};
use super::name::Name;
use super::nodes::NodeIndex;
use super::packet::{Body, Header, Message};

impl Cluster {
    /// Executes the claims of slots in the head of a packet.
    pub(super) fn receive_claims(
        &mut self,
        sender: NodeIndex,
        header: &Header,
        out: &mut Vec<Action>,
    ) {
        let node = &self.nodes[sender];
        let primary = if node.is_primary() {
            Some(sender)
        } else {
            node.replica_of
        };
        let Some(primary) = primary else {
            return;
        };
        if self.is_known_claim(primary, &header.slots) {
            return;
        }
        if primary == sender {
            self.take_claims(sender, header.config_epoch, &header.slots, out);
        }
        // A claim with a lower epoch than that of the slot's owner is out of date, so send the
        // owner's claim.
        let newer = header.slots.iter().find_map(|slot| {
            let owner = self.slots.owner(slot)?;
            let stale = owner != sender
                && owner != primary
                && self.nodes[owner].config_epoch > header.config_epoch;
            stale.then_some(owner)
        });
        if let Some(owner) = newer {
            self.send_update(sender, owner, out);
        }
    }

    /// Whether the claimed slots are exactly those that the primary has in this node's view.
    fn is_known_claim(&self, primary: NodeIndex, claimed: &Bitmap) -> bool {
        let own = |slot| self.slots.owner(slot) == Some(primary);
        let known = usize::from(self.nodes[primary].slot_count);
        known == claimed.len()
            && claimed.iter().all(own)
            && (self.slots.unclaimed.is_empty()
                || !claimed
                    .iter()
                    .any(|slot| self.slots.unclaimed.contains(slot)))
    }

    pub(super) fn send_update(&mut self, to: NodeIndex, owner: NodeIndex, out: &mut Vec<Action>) {
        let node = &self.nodes[owner];
        // This node's own new claim may still wait for the disk, so the UPDATE has the epoch that
        // was announced last.
        let config_epoch = match owner == self.my_primary() {
            true => self.announced.config_epoch,
            false => node.config_epoch,
        };
        let text = format!(
            "Node {} has old slots configuration, sending an UPDATE message about {}",
            self.nodes[to].name, node.name
        );
        let body = Body::Update {
            config_epoch,
            node: node.name,
            slots: Rc::new(self.slots.of(owner)),
        };
        self.log(log::Level::Debug, text, out);
        let message = Rc::new(Message::Full(Box::new(self.header()), body));
        self.send_to(to, &message, out);
    }

    pub(super) fn receive_update(
        &mut self,
        config_epoch: u64,
        name: &Name,
        slots: &Bitmap,
        out: &mut Vec<Action>,
    ) {
        let Some(node) = self.nodes.find(name).filter(|node| *node != self.me) else {
            return;
        };
        if self.nodes[node].config_epoch >= config_epoch || config_epoch > self.current_epoch {
            return;
        }
        self.set_as_primary(node);
        self.nodes[node].config_epoch = config_epoch;
        self.todo.save = true;
        self.take_claims(node, config_epoch, slots, out);
    }

    /// Makes the claimant the owner of the slots that it claims with a higher epoch. If this node
    /// loses its last slot to the claimant, it becomes a replica of the claimant.
    pub(super) fn take_claims(
        &mut self,
        claimant: NodeIndex,
        epoch: u64,
        claimed: &Bitmap,
        out: &mut Vec<Action>,
    ) {
        let mine = self.my_primary();
        let mut heir_of = None;
        let (mut taken_from_mine, mut lost) = (false, Vec::new());
        for slot in claimed.iter() {
            let owner = self.slots.owner(slot);
            if owner == Some(claimant) {
                self.slots.unclaimed.remove(slot);
                continue;
            }
            let takes = owner.is_none_or(|owner| {
                self.slots.unclaimed.contains(slot) || self.nodes[owner].config_epoch < epoch
            });
            if !takes {
                continue;
            }
            taken_from_mine |= owner == Some(mine);
            if owner == Some(self.me) {
                lost.push(slot);
            }
            // After a failover within a shard, the move of a slot goes on with the shard's new
            // primary.
            let stays_in_shard = owner.is_some_and(|owner| self.share_shard(owner, claimant));
            match stays_in_shard {
                true => heir_of = owner,
                false => _ = self.slots.migrating.remove(&slot),
            }
            if claimant == mine {
                self.slots.importing.remove(&slot);
            }
            self.set_owner(slot, Some(claimant));
        }
        if let Some(failed) = heir_of.filter(|failed| self.nodes[*failed].slot_count == 0) {
            self.redirect_moves(failed, claimant);
        }
        if usize::from(self.nodes[claimant].slot_count) > claimed.len() {
            let owned = self.slots.of(claimant);
            for slot in owned.iter().filter(|slot| !claimed.contains(*slot)) {
                self.slots.unclaimed.insert(slot);
            }
        }
        let all_gone = self.nodes[mine].slot_count == 0;
        // The new primary of a failover claims all slots of this node at once, a move of slots only
        // a part.
        let is_failover = claimed.len() == lost.len() || self.share_shard(self.me, claimant);
        if taken_from_mine && all_gone && (self.settings.allow_replica_migration || is_failover) {
            let (name, lost) = (self.nodes[claimant].called(), lost.len());
            let line = "Configuration change detected ({} slots lost). Reconfiguring myself as a replica of {}";
            self.line(line, &[&lost, &name], out);
            self.follow(claimant, out);
        } else if !lost.is_empty() {
            if all_gone {
                self.log_empty(claimant, out);
            }
            out.push(Action::DeleteKeys(lost));
        }
    }

    /// Logs that this node has given its last slot to `heir`.
    pub(super) fn log_empty(&mut self, heir: NodeIndex, out: &mut Vec<Action>) {
        let node = &self.nodes[heir];
        let (called, shard) = (node.called(), node.shard);
        let text = format!(
            "My last slot was migrated to node {called} in shard {shard}. I am now an empty primary."
        );
        self.log(log::Level::Info, text, out);
    }

    /// Whether two nodes are primary and replica of each other, or replicas of one primary.
    pub(super) fn share_shard(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.nodes[one].shard == self.nodes[other].shard
    }

    /// If the sender and this node are primaries with the same config epoch, and this node has the
    /// smaller name, this node takes a new config epoch.
    pub(super) fn resolve_collision(
        &mut self,
        sender: NodeIndex,
        header: &Header,
        out: &mut Vec<Action>,
    ) {
        let (me, node) = (&self.nodes[self.me], &self.nodes[sender]);
        let collides = me.is_primary() && node.is_primary();
        if !collides || header.config_epoch != me.config_epoch || node.name <= me.name {
            return;
        }
        let name = node.called();
        self.new_config_epoch();
        let text = format!(
            "WARNING: configEpoch collision with node {name}. configEpoch set to {}",
            self.current_epoch
        );
        self.log(log::Level::Debug, text, out);
    }

    /// Sets this node's config epoch to a new one that is higher than all others, without votes.
    pub(super) fn new_config_epoch(&mut self) {
        self.current_epoch = self.highest_epoch().saturating_add(1);
        self.nodes[self.me].config_epoch = self.current_epoch;
        self.hold(Held::Claim);
    }

    /// The highest config epoch or current epoch that this node knows.
    pub(super) fn highest_epoch(&self) -> u64 {
        let epochs = self.nodes.iter().map(|(_, node)| node.config_epoch);
        epochs.max().unwrap_or(0).max(self.current_epoch)
    }

    /// Sets this node's config epoch to a new one, unless it is the highest already. Returns
    /// whether the config epoch changed.
    pub(super) fn bump_epoch(&mut self) -> bool {
        let own = self.nodes[self.me].config_epoch;
        if own != 0 && own == self.highest_epoch() {
            return false;
        }
        self.new_config_epoch();
        true
    }
}
