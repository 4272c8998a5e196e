//! Replica migration: a replica of a primary with several replicas moves to a primary that has lost
//! its replicas.
//!
//! An orphan is a primary that had replicas and now has no working one. Of all replicas of the
//! primaries with the most working replicas, the one with the smallest name moves to an orphan, if
//! `cluster-migration-barrier` other replicas stay with its primary. The choice depends only on
//! what all nodes know, so all nodes choose the same replica. A replica moves only to a primary
//! that has been an orphan for five seconds, so that all nodes have the same view.

use super::event::{Action, Now};
use super::machine::Cluster;
use super::nodes::NodeIndex;
use super::packet::flag;

/// The milliseconds for which a primary must be an orphan before a replica moves to it.
const MIGRATION_DELAY_MS: u64 = 5000;

impl Cluster {
    pub(super) fn migrate_replica(&mut self, now: Now, out: &mut Vec<Action>) {
        // Only replicas move to an orphan, so a primary does not look for orphans.
        let Some(primary) = self.nodes[self.me].replica_of else {
            return;
        };
        if !self.up || !self.settings.allow_replica_migration {
            return;
        }
        // For each primary, the number of its working replicas, and the replica with the smallest
        // name.
        let works = |index: NodeIndex| !self.nodes[index].has(flag::FAIL | flag::PFAIL);
        let mut replicas = std::collections::HashMap::<NodeIndex, (usize, NodeIndex)>::new();
        for (index, node) in self.nodes.iter().filter(|(index, _)| works(*index)) {
            let Some(primary) = node.replica_of else {
                continue;
            };
            let entry = replicas.entry(primary).or_insert((0, index));
            entry.0 += 1;
            if node.name < self.nodes[entry.1].name {
                entry.1 = index;
            }
        }
        let count = |index: NodeIndex| replicas.get(&index).map_or(0, |entry| entry.0);
        let orphans = self.nodes.iter().filter(|(index, node)| {
            let is_orphan = node.is_voter() && node.has(flag::MIGRATE_TO) && count(*index) == 0;
            is_orphan && !node.has(flag::FAIL)
        });
        let orphans: Vec<NodeIndex> = orphans.map(|(index, _)| index).collect();
        let most = replicas.values().map(|entry| entry.0).max().unwrap_or(0);
        let own = replicas.get(&primary).copied();
        let fullest = replicas.values().filter(|entry| entry.0 == most);
        let first = fullest.min_by_key(|entry| self.nodes[entry.1].name);
        let may_move = count(primary) > self.settings.migration_barrier
            && most >= 2
            && own.is_some_and(|own| own.1 == self.me)
            && first.is_some_and(|first| first.1 == self.me)
            && !self.manual.is_running();
        self.note_orphans(now, &orphans);
        let aged = |index: &&NodeIndex| {
            now.ms - self.nodes[**index].orphaned_at > MIGRATION_DELAY_MS && **index != primary
        };
        let target = orphans
            .iter()
            .filter(aged)
            .min_by_key(|index| self.nodes[**index].name);
        if let Some(target) = target.copied().filter(|_| may_move) {
            let name = self.nodes[target].called();
            self.line("Migrating to orphaned master {}", &[&name], out);
            self.follow(target, out);
        }
    }

    fn note_orphans(&mut self, now: Now, orphans: &[NodeIndex]) {
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            self.nodes[index].orphaned_at = match self.nodes[index].orphaned_at {
                _ if !orphans.contains(&index) => 0,
                0 => now.ms,
                since => since,
            };
        }
    }
}
