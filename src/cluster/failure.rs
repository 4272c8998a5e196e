//! Failure detection of cluster nodes, and the decision whether the cluster is up.
//!
//! ```text
//!                no answer for the node timeout        reports of a majority of the voters,
//!                and no other packet of the node       own opinion included, within 2 timeouts
//!    reachable ─────────────────────────────> PFAIL ────────────────────────────────> FAIL
//!        ^                                      │                                       │
//!        └────────────── a pong ────────────────┘               a FAIL packet to others │
//!        └── a pong of a replica, of a primary without slots, or of any after 2 timeouts ┘
//! ```
//!
//! PFAIL is the opinion of one node; FAIL is the opinion of the cluster, and starts elections.
//! Voters are primaries with slots.
//!
//! **Reports.** A voter that marks a node PFAIL reports this to the node's replicas at once, in a
//! packet that says nothing else. All other nodes learn of the PFAIL from the voter's next ping. So
//! a replica knows that its primary failed when the last voter of a majority has marked it PFAIL.
//!
//! **FAIL packets.** All nodes find a failure at nearly the same time. If each node sent FAIL to
//! all others, as in Redis and Valkey, 250 failures among 1,000 nodes would cause 140 million
//! packets. So a node sends FAIL at once to the replicas of the failed node, and to all other nodes
//! after a random delay that grows with the cluster (half a millisecond a node), unless it has
//! received a FAIL about the same node meanwhile. A replica of the failed node sends FAIL to all
//! nodes at once: voters refuse a candidate until they have marked its primary FAIL.
//!
//! **Up or down.** The cluster is down in a node's view if a slot has no owner or a failed owner
//! (`cluster-require-full-coverage`), or if the node can't reach a majority of the voters. A voter
//! counts as reached if it answered within the node timeout. Redis and Valkey count voters without
//! PFAIL, which is set up to half a timeout later, so a cut-off primary of Redis takes writes for
//! longer. A primary that comes back from a minority takes no writes for a while: a replica may
//! have replaced it, and it has to receive the claim of that replica first.

use std::rc::Rc;

use super::event::{Action, Now};
use super::machine::Cluster;
use super::name::Name;
use super::nodes::{Node, NodeIndex};
use super::packet::{Body, Message, flag};
use crate::db::slot::SLOTS;

/// The longest random delay of a FAIL packet, in milliseconds.
const NOTICE_MAX_MS: u64 = 500;
/// The minimum and maximum of the time, in milliseconds, in which a primary takes no writes after
/// it was cut off from a majority.
const REJOIN_MS: [u64; 2] = [500, 5000];

/// The reasons why the cluster is down, as Valkey logs them.
const MINORITY: &str = "I am part of a minority partition.";
const NOT_COVERED: &str = "At least one hash slot is not served by any available node. Please check the \
                           'cluster-require-full-coverage' configuration.";

impl Cluster {
    /// The number of voters (primaries with slots) that is a majority.
    pub(super) fn majority(&self) -> usize {
        self.size / 2 + 1
    }

    /// Marks a node with PFAIL if it has not answered for the node timeout.
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
        let text = format!("*** NODE {} possibly failing", node.called());
        self.suspects.push(index);
        self.todo.health = true;
        self.log(log::Level::Debug, text, out);
        self.report_to_replicas(now, index, out);
        self.decide_failure(now, index, out);
    }

    /// Reports a suspected primary to its replicas at once, since a replica starts an election when
    /// it has the reports of a majority. Redis and Valkey report a suspect with their next ping, up
    /// to `cluster-ping-interval` (a second) later.
    fn report_to_replicas(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        if !self.nodes[self.me].is_voter() {
            return;
        }
        let replicas: Vec<NodeIndex> = self.nodes.replicas_of(index).map(|(at, _)| at).collect();
        for replica in replicas {
            self.send_report(now, replica, index, out);
        }
    }

    /// Marks a suspected node (PFAIL) as failed (FAIL) if a majority of the voters suspects it.
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
        let name = self.nodes[index].called();
        let text = format!("Marking node {name} as failing (quorum reached).");
        self.log(log::Level::Info, text, out);
        self.set_failed(now, index, out);
        if self.nodes[self.me].replica_of != Some(index) {
            self.plan_notice(now, index, out);
        }
    }

    /// Sends FAIL to the replicas of a failed node, and to all other nodes after a random delay.
    fn plan_notice(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let body = Body::Fail(self.nodes[index].name);
        let message = Rc::new(Message::Full(Box::new(self.header()), body));
        let replicas: Vec<NodeIndex> = self.nodes.replicas_of(index).map(|(at, _)| at).collect();
        for replica in replicas {
            self.send_to(replica, &message, out);
        }
        let spread = (self.nodes.count() as u64 / 2).clamp(1, NOTICE_MAX_MS);
        let delay = self.random.below(spread);
        self.notices.push((index, now.ms + delay));
        self.send_notices(now, out);
    }

    /// Sends the FAIL packets whose delay is over.
    pub(super) fn send_notices(&mut self, now: Now, out: &mut Vec<Action>) {
        let mut due = Vec::new();
        self.notices.retain(|(index, at)| {
            let is_due = now.ms >= *at;
            due.extend(is_due.then_some(*index));
            !is_due
        });
        for index in due {
            if self.nodes[index].has(flag::FAIL) {
                self.broadcast(Body::Fail(self.nodes[index].name), out);
            }
        }
    }

    /// Reads a FAIL packet. The sender of a FAIL sends it to all nodes, so this node does not send
    /// FAIL about the same node.
    pub(super) fn read_fail(&mut self, now: Now, name: &Name, out: &mut Vec<Action>) {
        let index = self.nodes.find(name).filter(|index| *index != self.me);
        if let Some(index) = index {
            self.notices.retain(|(other, _)| *other != index);
            self.set_failed(now, index, out);
        }
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
            let called = self.nodes[index].called();
            self.line("My MASTER {} failed", &[&called], out);
            self.broadcast(Body::Fail(name), out);
        }
    }

    /// Clears PFAIL of a node that has answered, and its FAIL unless a replica of the node may be
    /// about to win an election.
    pub(super) fn answered(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let timeout = self.settings.node_timeout_ms;
        let node = &mut self.nodes[index];
        if node.has(flag::PFAIL) {
            node.flags &= !flag::PFAIL;
            self.suspects.retain(|other| *other != index);
            self.todo.health = true;
        }
        let node = &mut self.nodes[index];
        // A failed primary with slots stays failed for two timeouts, since a replica of it may be
        // about to be elected.
        let waits = node.is_voter() && now.ms.saturating_sub(node.failed_at) <= timeout * 2;
        if !node.has(flag::FAIL) || waits {
            return;
        }
        node.flags &= !flag::FAIL;
        node.reports.clear();
        let (called, voter) = (node.called(), node.is_voter());
        if voter {
            let line = "Clear FAIL state for node {}: is reachable again and nobody is serving its slots after some time.";
            self.line(line, &[&called], out);
        } else {
            let role = match node.is_primary() {
                true => "master without slots",
                false => "replica",
            };
            let line = "Clear FAIL state for node {}:{} is reachable again.";
            self.line(line, &[&called, &role], out);
        }
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
        // Only pongs count: a packet of another type may have waited in a buffer while this node
        // was stopped.
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
        // In a cluster without voters, this node can't have been replaced.
        if self.minority && size > 0 {
            self.down_until = self.down_until.max(now.ms + self.rejoin_delay());
        }
        let covered = self.slots.assigned() == SLOTS && !failed;
        let reason = match (self.minority, covered || !self.settings.full_coverage) {
            (true, _) => Some(MINORITY),
            (false, false) => Some(NOT_COVERED),
            (false, true) => None,
        };
        self.explain(reason, out);
        let up = reason.is_none();
        if up == self.up || up && self.nodes[self.me].is_primary() && now.ms < self.down_until {
            return;
        }
        self.up = up;
        let text = format!("Cluster state changed: {}", if up { "ok" } else { "fail" });
        self.log(log::Level::Info, text, out);
        out.push(Action::State { up });
    }

    /// Logs the reason why the cluster is down, when the reason changes.
    fn explain(&mut self, reason: Option<&'static str>, out: &mut Vec<Action>) {
        if reason == self.down_reason {
            return;
        }
        self.down_reason = reason;
        if let Some(reason) = reason {
            let text = format!("Cluster is currently down: {reason}");
            self.log(log::Level::Warn, text, out);
        }
    }

    /// The number of primaries whose reports that the node at `index` fails have not expired.
    pub fn count_failure_reports(&mut self, now: Now, index: NodeIndex) -> usize {
        let max_age = self.settings.node_timeout_ms * 2;
        self.nodes[index].reports.count(now.ms, max_age)
    }
}
