//! Moves of slots by CLUSTER SETSLOT and MIGRATE, key by key, and how replicas learn of them.
//!
//! ```text
//!   source: SETSLOT 7 MIGRATING <target>      target: SETSLOT 7 IMPORTING <source>
//!       MIGRATE of all keys                       keys arrive
//!   source: SETSLOT 7 NODE <target>           target: SETSLOT 7 NODE <itself>, with a new epoch
//! ```
//!
//! The move of a slot must go on after a failover, so replicas know the open slots (those that are
//! being moved), too. Replicas of Valkey 8 and of aeris get SETSLOT in the replication stream, and
//! the primary executes the command when all of them have it (`commands::cluster::slots`). A new
//! replica reads the open slots in an AUX field of its snapshot, [`OPEN_SLOTS_FIELD`]. Redis's
//! replicas do not know which slots are being moved.
//!
//! A new replica may not know the other node of a move yet. The move of a slot to or from an
//! unknown node waits in `Slots::unresolved` until the node is known.

use super::event::{Action, Now};
use super::machine::Cluster;
use super::name::Name;
use super::nodes::NodeIndex;
use super::verbs::Outcome;
use crate::db::slot::SLOTS;

/// The name of the AUX field of a snapshot that has the open slots, in the form of Valkey 8:
/// `7>name,9<name,`. With `>` slot 7 moves to the named node, with `<` slot 9 moves from the named
/// node to this one.
pub const OPEN_SLOTS_FIELD: &[u8] = b"cluster-slot-states";

/// The change of a slot that a CLUSTER SETSLOT requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetSlot {
    Migrating(Name),
    Importing(Name),
    Stable,
    /// CLUSTER SETSLOT NODE, which sets the owner of the slot.
    Owner(Name),
}

impl Cluster {
    /// Checks whether CLUSTER SETSLOT can be executed, without executing it. `keys` is the number
    /// of keys that this node has in the slot.
    pub fn check_set_slot(&self, slot: u16, change: SetSlot, keys: usize) -> Outcome {
        super::verbs::check_slots(&[slot], |_| None)?;
        if !self.nodes[self.me].is_primary() {
            return Err("Please use SETSLOT only with masters.".into());
        }
        match change {
            SetSlot::Migrating(name) => {
                self.check_move(slot, true)?;
                self.find_other(&name)?;
            }
            SetSlot::Importing(name) => {
                self.check_move(slot, false)?;
                self.find_other(&name)?;
            }
            SetSlot::Stable => {}
            SetSlot::Owner(name) => {
                let owner = self.find_primary(&name)?;
                let is_mine = self.slots.is_owner(slot, self.me);
                if is_mine && owner != self.me && keys > 0 {
                    return Err(format!(
                        "Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
                    ));
                }
            }
        }
        Ok(())
    }

    /// Executes CLUSTER SETSLOT, if [`Cluster::check_set_slot`] accepts it; `keys` is the number of
    /// keys that this node has in the slot.
    pub fn set_slot(
        &mut self,
        now: Now,
        slot: u16,
        change: SetSlot,
        keys: usize,
        out: &mut Vec<Action>,
    ) -> Outcome {
        self.check_set_slot(slot, change, keys)?;
        match change {
            SetSlot::Migrating(name) => self.open(slot, true, &name)?,
            SetSlot::Importing(name) => self.open(slot, false, &name)?,
            SetSlot::Stable => self.slots.end_move(slot),
            SetSlot::Owner(name) => {
                let owner = self.find(&name)?;
                self.set_slot_owner(slot, owner, out);
            }
        }
        self.slots_changed(now, out);
        Ok(())
    }

    /// Executes a CLUSTER SETSLOT from the replication stream of this node's primary, which has
    /// checked it.
    pub fn set_slot_of_primary(
        &mut self,
        now: Now,
        slot: u16,
        change: SetSlot,
        out: &mut Vec<Action>,
    ) -> Outcome {
        super::verbs::check_slots(&[slot], |_| None)?;
        match change {
            SetSlot::Migrating(name) => self.open(slot, true, &name)?,
            SetSlot::Importing(name) => self.open(slot, false, &name)?,
            SetSlot::Stable => self.slots.end_move(slot),
            SetSlot::Owner(name) => {
                let owner = self.find_primary(&name)?;
                self.slots.end_move(slot);
                self.set_slot_owner(slot, owner, out);
            }
        }
        self.slots_changed(now, out);
        Ok(())
    }

    /// The value of [`OPEN_SLOTS_FIELD`] in the snapshot for a new replica: this node's open slots;
    /// `None` if no slots are open.
    pub fn open_slots_field(&self) -> Option<String> {
        let part = |leaves, (slot, node): (&u16, &NodeIndex)| {
            let arrow = if leaves { '>' } else { '<' };
            format!("{slot}{arrow}{},", self.nodes[*node].name)
        };
        let leaving = self.slots.migrating.iter().map(|entry| part(true, entry));
        let arriving = self.slots.importing.iter().map(|entry| part(false, entry));
        let field: String = leaving.chain(arriving).collect();
        (!field.is_empty()).then_some(field)
    }

    /// Forgets all open slots, because a snapshot of this node's primary begins, which names the
    /// primary's open slots.
    pub fn forget_open_slots(&mut self, now: Now, out: &mut Vec<Action>) {
        self.slots.close_all();
        self.slots_changed(now, out);
    }

    /// Reads the open slots in the snapshot of this node's primary; the next tick opens them. `Err`
    /// names the part of `field` that can't be read; the parts before it are kept.
    pub fn follow_open_slots(&mut self, field: &str) -> Outcome {
        let mut parts = field.split(',').filter(|part| !part.is_empty());
        parts.try_for_each(|part| {
            let open =
                parse_open_slot(part).ok_or_else(|| format!("not an open slot: '{part}'"))?;
            self.slots.unresolved.push(open);
            match self.slots.unresolved.len() <= 2 * SLOTS {
                true => Ok(()),
                false => Err("more open slots than there are slots".into()),
            }
        })
    }

    /// Opens the slots that were waiting for the other node of the move to become known.
    pub(super) fn resolve_open_slots(&mut self) {
        for (slot, leaves, name) in std::mem::take(&mut self.slots.unresolved) {
            match self.open(slot, leaves, &name) {
                Ok(()) => {
                    self.todo.save = true;
                    self.todo.topology = true;
                }
                Err(_) => self.slots.unresolved.push((slot, leaves, name)),
            }
        }
    }

    /// After a failover, lets the moves of slots to and from the old primary go on with the new
    /// primary.
    pub(super) fn redirect_moves(&mut self, failed: NodeIndex, heir: NodeIndex) {
        let slots = &mut self.slots;
        let others = slots.migrating.values_mut();
        for other in others.chain(slots.importing.values_mut()) {
            if *other == failed {
                *other = heir;
                self.todo.save = true;
                self.todo.topology = true;
            }
        }
    }

    /// Makes this node the owner of the slots that move to it and that their source does not claim
    /// any more, since SETSLOT NODE was executed at the source first. Valkey 8 also lets the target
    /// take slots that the source has left.
    pub(super) fn claim_left_slots(&mut self, out: &mut Vec<Action>) {
        if !self.nodes[self.me].is_primary() {
            return;
        }
        let is_left = |(slot, source): &(&u16, &NodeIndex)| {
            self.slots.unclaimed.contains(**slot) && self.slots.is_owner(**slot, **source)
        };
        let importing = self.slots.importing.iter();
        let left: Vec<u16> = importing.filter(is_left).map(|(slot, _)| *slot).collect();
        for slot in left {
            let line =
                "Slot {} is not claimed by the node that it moves from: it is this node's now";
            self.line(line, &[&slot], out);
            self.set_slot_owner(slot, self.me, out);
            self.todo.save = true;
            self.todo.topology = true;
        }
    }

    /// Notes that a slot moves from this node to `other` (`leaves`), or from `other` to this node.
    fn open(&mut self, slot: u16, leaves: bool, other: &Name) -> Outcome {
        let other = self.find(other)?;
        match leaves {
            true => self.slots.migrating.insert(slot, other),
            false => self.slots.importing.insert(slot, other),
        };
        Ok(())
    }

    fn slots_changed(&mut self, now: Now, out: &mut Vec<Action>) {
        self.todo.save = true;
        self.todo.topology = true;
        self.finish(now, out);
    }

    /// Checks that a slot, which must be below [`SLOTS`], can be moved from this node (`leaves`) or
    /// to it.
    pub fn check_move(&self, slot: u16, leaves: bool) -> Outcome {
        match self.slots.is_owner(slot, self.me) {
            true if !leaves => Err(format!("I'm already the owner of hash slot {slot}")),
            false if leaves => Err(format!("I'm not the owner of hash slot {slot}")),
            _ => Ok(()),
        }
    }

    fn set_slot_owner(&mut self, slot: u16, owner: NodeIndex, out: &mut Vec<Action>) {
        let mine = self.my_primary();
        let was_mine = self.slots.owner(slot) == Some(mine) && owner != mine;
        self.slots.migrating.remove(&slot);
        self.set_owner(slot, Some(owner));
        if owner == self.me && self.slots.importing.remove(&slot).is_some() {
            // This node's claim of the slot must have a higher epoch than that of the move's
            // source.
            if self.bump_epoch() {
                let text = "configEpoch updated after importing slot".to_string();
                self.log(log::Level::Info, text, out);
            }
            self.todo.broadcast = true;
        }
        // A PONG is sent to all nodes, so that they learn soon that this node no longer claims the
        // slot.
        self.todo.broadcast |= was_mine && mine == self.me;
        if !was_mine || self.nodes[mine].slot_count > 0 {
            return;
        }
        // A replica of this node also executes SETSLOT, and follows the new owner if its own
        // setting allows it.
        if self.settings.allow_replica_migration {
            let name = self.nodes[owner].called();
            let line = "Configuration change detected. Reconfiguring myself as a replica of {}";
            self.line(line, &[&name], out);
            self.follow(owner, out);
        } else if mine == self.me {
            self.log_empty(owner, out);
        }
    }

    /// The index of the other node of a slot's move, which must be a primary.
    fn find_other(&self, name: &Name) -> Result<NodeIndex, String> {
        match self.nodes.find(name) {
            None => Err(format!("I don't know about node {name}")),
            Some(_) => self.find_primary(name),
        }
    }

    fn find_primary(&self, name: &Name) -> Result<NodeIndex, String> {
        let found = self.find(name)?;
        match self.nodes[found].is_primary() {
            true => Ok(found),
            false => Err("Target node is not a master".into()),
        }
    }
}

/// Parses an open slot, `slot>name` or `slot<name`: the slot, whether it leaves the primary, and
/// the other node.
fn parse_open_slot(part: &str) -> Option<(u16, bool, Name)> {
    let (slot, name) = part.split_once(['>', '<'])?;
    let leaves = part.as_bytes().get(slot.len()) == Some(&b'>');
    let slot = slot
        .parse()
        .ok()
        .filter(|slot| usize::from(*slot) < SLOTS)?;
    Some((slot, leaves, Name::parse(name.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::super::bitmap::Bitmap;
    use super::super::event::{Address, Settings};
    use super::super::nodes::Node;
    use super::super::packet::flag;
    use super::*;
    use crate::util::random::Random;

    const NOW: Now = Now { ms: 1, wall_ms: 1 };

    fn name(letter: u8) -> Name {
        Name::parse(&[letter; 40]).expect("a name")
    }

    fn add(cluster: &mut Cluster, letter: u8, shard: u8) -> NodeIndex {
        let address = Address::default();
        let node = Node::new(name(letter), name(shard), flag::PRIMARY, address, 1);
        cluster.nodes.add(node).expect("a node")
    }

    /// A cluster in which this node has slot 1, and the primary of another shard has slot 2.
    fn cluster() -> (Cluster, NodeIndex) {
        let mut cluster = Cluster::new(NOW, Settings::default(), Random::from_seed(1));
        let other = add(&mut cluster, b'a', b'1');
        cluster.set_owner(1, Some(cluster.me));
        cluster.set_owner(2, Some(other));
        cluster.nodes[other].config_epoch = 5;
        (cluster, other)
    }

    fn claim(cluster: &mut Cluster, claimant: NodeIndex, epoch: u64, slots: &[u16]) {
        let claimed: Bitmap = slots.iter().copied().collect();
        cluster.take_claims(claimant, epoch, &claimed, &mut Vec::new());
    }

    #[test]
    fn a_replica_reads_the_open_slots_of_its_primary() {
        let (mut cluster, other) = cluster();
        assert_eq!(cluster.open_slots_field(), None);
        let out = &mut Vec::new();
        let a = name(b'a');
        let leaves = cluster.set_slot(NOW, 1, SetSlot::Migrating(a), 0, out);
        let arrives = cluster.set_slot(NOW, 2, SetSlot::Importing(a), 0, out);
        assert_eq!((leaves, arrives), (Ok(()), Ok(())));
        let field = cluster.open_slots_field().expect("two open slots");
        assert_eq!(field, format!("1>{a},2<{a},"));
        cluster.forget_open_slots(NOW, out);
        assert_eq!(cluster.open_slots_field(), None);
        // The field names a node b that is not known yet.
        let with_unknown = format!("{field}3>{},", name(b'b'));
        assert_eq!(cluster.follow_open_slots(&with_unknown), Ok(()));
        cluster.resolve_open_slots();
        assert_eq!(cluster.open_slots_field(), Some(field));
        let b = add(&mut cluster, b'b', b'2');
        cluster.resolve_open_slots();
        assert_eq!(cluster.slots.migrating.get(&3), Some(&b));
        assert_eq!(cluster.slots.importing.get(&2), Some(&other));
        for bad in ["1", "1>", "1>a", "x>", "16384>", ">", "1=a"] {
            assert!(cluster.follow_open_slots(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_move_goes_on_after_a_failover_of_the_other_side() {
        let (mut cluster, other) = cluster();
        let replica = add(&mut cluster, b'b', b'1');
        cluster.slots.migrating.insert(1, other);
        cluster.slots.importing.insert(2, other);
        cluster.nodes[replica].config_epoch = 6;
        claim(&mut cluster, replica, 6, &[2]);
        assert_eq!(cluster.slots.owner(2), Some(replica));
        assert_eq!(cluster.slots.migrating.get(&1), Some(&replica));
        assert_eq!(cluster.slots.importing.get(&2), Some(&replica));
        // The old primary comes back, and the roles change again.
        cluster.set_as_replica(replica, Some(other));
        assert_eq!(cluster.slots.migrating.get(&1), Some(&other));
        // Moves with a node do not change when that node becomes a replica in another shard.
        let far = add(&mut cluster, b'c', b'3');
        cluster.set_as_replica(other, Some(far));
        assert_eq!(cluster.slots.migrating.get(&1), Some(&other));
    }

    #[test]
    fn the_target_claims_a_slot_that_its_source_has_left() {
        let (mut cluster, other) = cluster();
        cluster.slots.importing.insert(2, other);
        cluster.claim_left_slots(&mut Vec::new());
        assert_eq!(cluster.slots.owner(2), Some(other), "it is claimed there");
        claim(&mut cluster, other, 5, &[]);
        cluster.claim_left_slots(&mut Vec::new());
        assert_eq!(cluster.slots.owner(2), Some(cluster.me));
        assert!(cluster.slots.importing.is_empty());
        assert!(cluster.nodes[cluster.me].config_epoch > 5);
    }

    #[test]
    fn a_replica_follows_the_last_slot_of_its_primary() {
        for allowed in [true, false] {
            let (mut cluster, other) = cluster();
            cluster.settings.allow_replica_migration = allowed;
            let target = add(&mut cluster, b'b', b'2');
            cluster.set_owner(1, None);
            cluster.set_as_replica(cluster.me, Some(other));
            let to = SetSlot::Owner(name(b'b'));
            let done = cluster.set_slot_of_primary(NOW, 2, to, &mut Vec::new());
            assert_eq!(done, Ok(()));
            let followed = if allowed { target } else { other };
            assert_eq!(cluster.nodes[cluster.me].replica_of, Some(followed));
        }
    }

    #[test]
    fn a_slot_that_another_node_claims_is_not_left() {
        let (mut cluster, other) = cluster();
        let third = add(&mut cluster, b'b', b'2');
        cluster.slots.importing.insert(2, other);
        claim(&mut cluster, other, 5, &[]);
        claim(&mut cluster, third, 4, &[2]);
        cluster.claim_left_slots(&mut Vec::new());
        assert_eq!(cluster.slots.owner(2), Some(third));
    }
}
