//! The rules that a simulated cluster must keep: after each step, and in the end.
//!
//! | rule | where |
//! |---|---|
//! | a voter votes for one candidate in an epoch, over restarts too | each AUTH_ACK |
//! | an epoch is won by one node | each promotion |
//! | the config epoch that a primary announces never falls, over restarts too | each head |
//! | a node with slots is a primary | each step |
//! | a primary that is cut off from the majority takes no writes after the timeout and two seconds | each tick |
//! | in the end all nodes agree, each slot has an owner that is up, no replica follows a replica | `World::disagreement` |

use std::collections::HashMap;

use aeris::cluster::event::Action;
use aeris::cluster::name::Name;
use aeris::cluster::packet::{Body, Message};

use super::world::{Machine, World};

#[derive(Default)]
pub struct Checks {
    votes: HashMap<(Name, u64), usize>,
    winners: HashMap<u64, Name>,
    announced: HashMap<Name, u64>,
    /// By index of a machine: the time since which it can't reach a majority of the primaries.
    pub cut_since: HashMap<usize, u64>,
    pub timeout_ms: u64,
    pub promotions: u64,
    pub elections: u64,
}

impl Checks {
    pub fn sent(&mut self, from: usize, machine: &Machine, to: usize, message: &Message) {
        let Message::Full(header, body) = message else {
            return;
        };
        assert_eq!(header.sender, machine.name, "machine {from}");
        if header.replica_of.is_none() {
            let last = self.announced.entry(header.sender).or_default();
            assert!(
                header.config_epoch >= *last,
                "machine {from}: config epoch {} after {last}",
                header.config_epoch
            );
            *last = header.config_epoch;
        } else {
            assert!(!matches!(body, Body::AuthAck), "a replica votes");
        }
        if matches!(body, Body::AuthAck) {
            let epoch = header.current_epoch;
            let candidate = *self.votes.entry((header.sender, epoch)).or_insert(to);
            assert_eq!(candidate, to, "machine {from} votes twice in epoch {epoch}");
        }
    }

    pub fn after_step(&mut self, now: u64, at: usize, machine: &Machine, actions: &[Action]) {
        let Some(cluster) = &machine.cluster else {
            return;
        };
        let me = cluster.myself();
        assert!(
            me.slot_count == 0 || me.is_primary() && me.replica_of.is_none(),
            "{now}: machine {at} follows and has slots"
        );
        for action in actions {
            match action {
                Action::Promote => {
                    self.promotions += 1;
                    let epoch = me.config_epoch;
                    let winner = *self.winners.entry(epoch).or_insert(me.name);
                    assert_eq!(winner, me.name, "{now}: epoch {epoch} is won twice");
                }
                Action::Log(_, text) if text.starts_with("Starting a failover election") => {
                    self.elections += 1;
                }
                _ => {}
            }
        }
    }

    pub fn tick(&mut self, now: u64, at: usize, machine: &Machine) {
        let (Some(cluster), Some(since)) = (&machine.cluster, self.cut_since.get(&at)) else {
            return;
        };
        let takes_writes = cluster.is_up() && cluster.myself().is_voter();
        assert!(
            !takes_writes || now <= since + self.timeout_ms + 2000,
            "{now}: machine {at} takes writes and is cut off since {since}"
        );
    }
}

impl World {
    /// Notes which machines can't reach a majority of the voters that they know.
    pub fn note_cuts(&mut self) {
        let machines = self.machines.iter().enumerate();
        let places = machines.filter(|(_, machine)| machine.cluster.is_some());
        let places: HashMap<Name, u8> = places
            .map(|(at, machine)| (machine.name, self.side[at]))
            .collect();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(cluster) = &machine.cluster else {
                continue;
            };
            let (mut voters, mut reached) = (0, 0);
            for (_, node) in cluster.nodes().iter().filter(|(_, node)| node.is_voter()) {
                voters += 1;
                reached += usize::from(places.get(&node.name) == Some(&self.side[at]));
            }
            if reached < voters / 2 + 1 {
                self.checks.cut_since.entry(at).or_insert(self.now);
            } else {
                self.checks.cut_since.remove(&at);
            }
        }
    }

    /// Why the cluster is not in order; `None` if all nodes agree and serve.
    pub fn disagreement(&self) -> Option<String> {
        let mut first: Option<(usize, Vec<Option<Name>>)> = None;
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(cluster) = &machine.cluster else {
                continue;
            };
            if !cluster.is_up() {
                return Some(format!("machine {at} is down"));
            }
            let me = cluster.myself();
            if let Some(primary) = me.replica_of
                && !cluster.nodes()[primary].is_primary()
            {
                return Some(format!("machine {at} follows a replica"));
            }
            let owner = |slot| {
                let owner = cluster.slots().owner(slot);
                owner.map(|owner| cluster.nodes()[owner].name)
            };
            let step = if self.machines.len() > 50 { 16 } else { 1 };
            let owners: Vec<Option<Name>> = (0..16_384).step_by(step).map(owner).collect();
            match &first {
                None => first = Some((at, owners)),
                Some((other, known)) if *known != owners => {
                    return Some(format!("machines {other} and {at} have other owners"));
                }
                Some(_) => {}
            }
        }
        let (_, owners) = first?;
        let mut owners = owners.into_iter().enumerate().collect::<Vec<_>>();
        owners.dedup_by_key(|(_, owner)| *owner);
        for (slot, owner) in owners {
            let machine = self
                .machines
                .iter()
                .find(|machine| Some(machine.name) == owner);
            let serves = machine.and_then(|machine| machine.cluster.as_ref());
            if !serves.is_some_and(|cluster| cluster.myself().is_voter()) {
                return Some(format!(
                    "the owner {owner:?} of sample {slot} does not serve"
                ));
            }
        }
        let mut epochs = HashMap::new();
        for machine in &self.machines {
            if let Some(cluster) = machine.cluster.as_ref().filter(|c| c.myself().is_primary()) {
                let me = cluster.myself();
                if let Some(other) = epochs.insert(me.config_epoch, me.name) {
                    return Some(format!("{other} and {} share an epoch", me.name));
                }
            }
        }
        None
    }
}
