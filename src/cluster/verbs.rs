//! The subcommands of CLUSTER that change this node's view of the cluster. A function that changes
//! the view ends with [`Cluster::finish`], as a step of the state machine does; a subcommand that
//! fails changes nothing.

use super::event::{Action, Address, Now};
use super::machine::{Cluster, Held};
use super::name::Name;
use super::nodes::{Node, NodeIndex};
use super::packet::{Body, Message, Publish, flag};
use super::slots::Slots;
use crate::db::slot::SLOTS;

/// The result of a subcommand of CLUSTER; `Err` is the text of the error reply, without `ERR`.
pub type Outcome = Result<(), String>;

impl Cluster {
    /// Executes CLUSTER MEET. Returns false if a handshake with `address` runs already.
    pub fn meet(&mut self, now: Now, address: Address, out: &mut Vec<Action>) -> bool {
        let same = |node: &Node| {
            node.has(flag::HANDSHAKE)
                && node.address.ip == address.ip
                && node.address.bus_port == address.bus_port
        };
        let runs = self.nodes.iter().any(|(_, node)| same(node));
        if !runs {
            self.add_handshake(now, address, flag::MEET);
            self.finish(now, out);
        }
        !runs
    }

    /// Executes CLUSTER FORGET: removes a node from this node's view.
    pub fn forget(&mut self, now: Now, name: &Name, out: &mut Vec<Action>) -> Outcome {
        let Some(index) = self.nodes.find(name) else {
            return match self.is_blacklisted(now, name) {
                // The node was forgotten already: another node got the same CLUSTER FORGET before,
                // and has spread it.
                true => Ok(()),
                false => Err(format!("Unknown node {name}")),
            };
        };
        if index == self.me {
            return Err("I tried hard but I can't forget myself...".into());
        }
        if self.nodes[self.me].replica_of == Some(index) {
            return Err("Can't forget my master!".into());
        }
        self.blacklist(now, name, self.settings.blacklist_ms);
        self.forget_node(index, out);
        self.todo.broadcast = true;
        self.finish(now, out);
        Ok(())
    }

    /// Executes CLUSTER REPLICATE. `is_empty` is whether this node has no keys.
    pub fn replicate(
        &mut self,
        now: Now,
        name: &Name,
        is_empty: bool,
        out: &mut Vec<Action>,
    ) -> Outcome {
        let target = self.find(name)?;
        if target == self.me {
            return Err("Can't replicate myself".into());
        }
        if !self.nodes[target].is_primary() {
            return Err("I can only replicate a master, not a replica.".into());
        }
        let me = &self.nodes[self.me];
        if me.is_primary() && (me.slot_count > 0 || !is_empty) {
            return Err(
                "To set a master the node must be empty and without assigned slots.".into(),
            );
        }
        if me.replica_of != Some(target) {
            self.follow(target, out);
            self.todo.broadcast = true;
        }
        self.finish(now, out);
        Ok(())
    }

    /// CLUSTER REPLICATE NO ONE (Valkey 9): makes this node a primary without slots and data.
    pub fn replicate_no_one(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.nodes[self.me].replica_of.is_some() {
            self.set_as_primary(self.me);
            self.nodes[self.me].shard = Name::random(&mut self.random);
            self.reset_manual(out);
            out.push(Action::Promote);
            out.push(Action::Flush);
            self.todo.broadcast = true;
        }
        self.finish(now, out);
    }

    /// CLUSTER ADDSLOTS: makes this node the owner of slots that have no owner.
    pub fn add_slots(&mut self, now: Now, slots: &[u16], out: &mut Vec<Action>) -> Outcome {
        check_slots(slots, |slot| {
            let is_owned = self.slots.owner(slot).is_some();
            is_owned.then(|| format!("Slot {slot} is already busy"))
        })?;
        for slot in slots {
            self.slots.importing.remove(slot);
            self.set_owner(*slot, Some(self.me));
        }
        self.finish(now, out);
        Ok(())
    }

    /// CLUSTER DELSLOTS: removes the owner of slots in this node's view.
    pub fn delete_slots(&mut self, now: Now, slots: &[u16], out: &mut Vec<Action>) -> Outcome {
        check_slots(slots, |slot| {
            let is_free = self.slots.owner(slot).is_none();
            is_free.then(|| format!("Slot {slot} is already unassigned"))
        })?;
        for slot in slots {
            self.slots.migrating.remove(slot);
            self.slots.importing.remove(slot);
            self.set_owner(*slot, None);
        }
        self.finish(now, out);
        Ok(())
    }

    /// Executes CLUSTER BUMPEPOCH. Returns whether the config epoch changed.
    pub fn bump(&mut self, now: Now, out: &mut Vec<Action>) -> bool {
        let changed = self.bump_epoch();
        self.todo.broadcast |= changed;
        self.finish(now, out);
        changed
    }

    /// Executes CLUSTER SAVECONFIG, which writes nodes.conf.
    pub fn save(&mut self, now: Now, out: &mut Vec<Action>) {
        self.todo.save = true;
        self.finish(now, out);
    }

    /// Executes CLUSTER SET-CONFIG-EPOCH. This node must know no other node and have no config
    /// epoch.
    pub fn set_config_epoch(&mut self, now: Now, epoch: u64, out: &mut Vec<Action>) -> Outcome {
        if self.nodes.count() > 1 {
            return Err("The user can assign a config epoch only when the node does not know any other node.".into());
        }
        if self.nodes[self.me].config_epoch != 0 {
            return Err("Node config epoch is already non-zero".into());
        }
        self.nodes[self.me].config_epoch = epoch;
        self.current_epoch = self.current_epoch.max(epoch);
        self.hold(Held::Claim);
        self.finish(now, out);
        Ok(())
    }

    /// Executes CLUSTER RESET. The caller of `reset` has checked that this node is not a primary
    /// with keys.
    pub fn reset(&mut self, now: Now, hard: bool, out: &mut Vec<Action>) {
        if self.nodes[self.me].replica_of.is_some() {
            self.set_as_primary(self.me);
            out.push(Action::Promote);
            out.push(Action::Flush);
        }
        self.reset_manual(out);
        for index in self.nodes.indices().to_vec() {
            if index != self.me {
                self.forget_node(index, out);
            }
        }
        self.slots = Slots::default();
        let me = &mut self.nodes[self.me];
        me.slot_count = 0;
        me.flags &= !flag::MIGRATE_TO;
        if hard {
            self.current_epoch = 0;
            self.last_vote_epoch = 0;
            self.last_vote = None;
            self.nodes[self.me].config_epoch = 0;
            let name = Name::random(&mut self.random);
            self.nodes.rename(self.me, name);
            let text = format!("Node hard reset, now I'm {name}");
            self.log(log::Level::Info, text, out);
        }
        self.nodes[self.me].shard = Name::random(&mut self.random);
        // Votes, requests and claims that were held back belong to the cluster that this node
        // leaves.
        self.waiting.clear();
        self.todo.save = true;
        self.todo.health = true;
        self.todo.announce = true;
        self.todo.topology = true;
        self.finish(now, out);
    }

    /// Sends a message of PUBLISH to all nodes, or a message of SPUBLISH to the nodes of this
    /// node's shard.
    pub fn publish(&mut self, publish: &Publish, out: &mut Vec<Action>) {
        use std::rc::Rc;
        let light = Rc::new(Message::LightPublish(publish.clone()));
        let mut full = None;
        let primary = self.my_primary();
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            let node = &self.nodes[index];
            let in_shard = index == primary || node.replica_of == Some(primary);
            if index == self.me || node.has(flag::HANDSHAKE) || publish.sharded && !in_shard {
                continue;
            }
            if node.has(flag::LIGHT_PUBLISH) {
                self.send_to(index, &light, out);
                continue;
            }
            let message = full.get_or_insert_with(|| {
                let body = Body::Publish(publish.clone());
                Rc::new(Message::Full(Box::new(self.header()), body))
            });
            let message = Rc::clone(message);
            self.send_to(index, &message, out);
        }
    }

    pub(super) fn find(&self, name: &Name) -> Result<NodeIndex, String> {
        let found = self.nodes.find(name);
        found.ok_or_else(|| format!("Unknown node {name}"))
    }
}

/// The error of the first slot that `refuse` refuses or that is there twice; a slot that does not
/// exist is refused before all others.
pub(super) fn check_slots(slots: &[u16], refuse: impl Fn(u16) -> Option<String>) -> Outcome {
    if slots.iter().any(|slot| usize::from(*slot) >= SLOTS) {
        return Err("Invalid or out of range slot".into());
    }
    let mut seen = super::bitmap::Bitmap::default();
    for &slot in slots {
        if let Some(refusal) = refuse(slot) {
            return Err(refusal);
        }
        if seen.contains(slot) {
            return Err(format!("Slot {slot} specified multiple times"));
        }
        seen.insert(slot);
    }
    Ok(())
}
