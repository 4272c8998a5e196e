//! Failure detection, and whether the cluster is up.
//!
//! ```text
//!                no answer for the node timeout        reports of a majority of the voters,
//!                and no other packet of the node       own opinion included, within 2 timeouts
//!    reachable ─────────────────────────────> PFAIL ────────────────────────────────> FAIL
//!        ^                                      │                                       │
//!        └────────────── a pong ────────────────┘          it tells all others: FAIL   │
//!        └── a pong of a replica, of a primary without slots, or of any after 2 timeouts ┘
//! ```
//!
//! PFAIL is this node's opinion; FAIL is the cluster's, and starts elections. Voters are primaries
//! with slots.
//!
//! **Up or down.** The cluster is down in the view of this node if a slot has no owner or a failed
//! one (`cluster-require-full-coverage`), or if this node can't reach a majority of the voters. A
//! voter counts as reached if it answered within the node timeout: the peers count those without
//! PFAIL, which comes up to half a timeout later, so a cut-off primary takes writes for longer.
//! A primary that comes back from a minority waits: it may have been replaced, and hears of that
//! first.

use super::event::{Action, Now};
use super::machine::Cluster;
use super::nodes::{Node, NodeIndex};
use super::packet::{Body, flag};
use crate::db::slot::SLOTS;

/// Bounds of the time that a primary waits after it was cut off.
const REJOIN_MS: [u64; 2] = [500, 5000];

impl Cluster {
    /// The votes that decide.
    pub(super) fn majority(&self) -> usize {
        self.size / 2 + 1
    }

    /// Marks a node that does not answer.
    pub(super) fn suspect(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let node = &mut self.nodes[index];
        if node.ping_sent == 0 || node.has(flag::PFAIL | flag::FAIL | flag::HANDSHAKE) {
            return;
        }
        let silent = now
            .ms
            .saturating_sub(node.ping_sent.max(node.data_received));
        if silent <= self.settings.node_timeout_ms {
            return;
        }
        node.flags |= flag::PFAIL;
        let text = format!("*** NODE {} possibly failing", node.name);
        self.suspects.push(index);
        self.todo.health = true;
        self.log(log::Level::Debug, text, out);
        self.decide_failure(now, index, out);
    }

    /// Marks a suspect as failed if a majority agrees.
    pub(super) fn decide_failure(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        if !self.nodes[index].has(flag::PFAIL) {
            return;
        }
        let own = usize::from(self.nodes[self.me].is_voter());
        let needed = self.majority().saturating_sub(own);
        let max_age = self.settings.node_timeout_ms * 2;
        if !self.nodes[index].reports.reach(needed, now.ms, max_age) {
            return;
        }
        let name = self.nodes[index].name;
        let text = format!("Marking node {name} as failing (quorum reached).");
        self.log(log::Level::Info, text, out);
        self.set_failed(now, index, out);
        self.broadcast(Body::Fail(name), out);
    }

    pub(super) fn set_failed(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let node = &mut self.nodes[index];
        if node.has(flag::FAIL) {
            return;
        }
        node.flags = node.flags & !flag::PFAIL | flag::FAIL;
        node.failed_at = now.ms;
        self.suspects.retain(|other| *other != index);
        self.todo.health = true;
        self.todo.save = true;
        self.todo.topology = true;
        if self.nodes[self.me].replica_of == Some(index) {
            self.todo.election = true;
            self.todo.announce = true;
            let name = self.nodes[index].name;
            self.line("My MASTER {} failed", &[&name], out);
        }
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let timeout = self.settings.node_timeout_ms;
        let node = &mut self.nodes[index];
        if node.has(flag::PFAIL) {
            node.flags &= !flag::PFAIL;
            self.suspects.retain(|other| *other != index);
            self.todo.health = true;
        }
        let node = &mut self.nodes[index];
        // A failed primary with slots: its replica may be about to be elected, so wait.
        let waits = node.is_voter() && now.ms.saturating_sub(node.failed_at) <= timeout * 2;
        if !node.has(flag::FAIL) || waits {
            return;
        }
        node.flags &= !flag::FAIL;
        node.reports.clear();
        let text = format!(
            "Clear FAIL state for node {}: it is reachable again",
            node.name
        );
        self.log(log::Level::Info, text, out);
        self.todo.health = true;
        self.todo.save = true;
        self.todo.announce = true;
        self.todo.topology = true;
    }

    pub(super) fn rejoin_delay(&self) -> u64 {
        self.settings
            .node_timeout_ms
            .clamp(REJOIN_MS[0], REJOIN_MS[1])
    }

    pub(super) fn update_health(&mut self, now: Now, out: &mut Vec<Action>) {
        let timeout = self.settings.node_timeout_ms;
        let (mut size, mut reached, mut failed) = (0, 0, false);
        // Pongs alone: another packet may have been in a buffer while this node was paused.
        let heard = |node: &Node| {
            let age = now.ms.saturating_sub(node.pong_received);
            node.pong_received != 0 && age <= timeout + super::tick::TICK_MS
        };
        for (index, node) in self.nodes.iter().filter(|(_, node)| node.is_voter()) {
            size += 1;
            failed |= node.has(flag::FAIL);
            let is_well = !node.has(flag::FAIL | flag::PFAIL);
            reached += usize::from(index == self.me || is_well && heard(node));
        }
        self.size = size;
        self.minority = reached < self.majority();
        if self.minority {
            self.down_until = self.down_until.max(now.ms + self.rejoin_delay());
        }
        let covered = self.slots.assigned() == SLOTS && !failed;
        let up = !self.minority && (covered || !self.settings.full_coverage);
        if up == self.up || up && self.nodes[self.me].is_primary() && now.ms < self.down_until {
            return;
        }
        self.up = up;
        let text = format!("Cluster state changed: {}", if up { "ok" } else { "fail" });
        self.log(log::Level::Info, text, out);
        out.push(Action::State { up });
    }

    /// The number of voters that report this node as failing.
    pub fn count_failure_reports(&mut self, now: Now, index: NodeIndex) -> usize {
        let max_age = self.settings.node_timeout_ms * 2;
        self.nodes[index].reports.count(now.ms, max_age)
    }
}
