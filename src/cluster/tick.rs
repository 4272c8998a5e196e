//! The work of the cluster's state machine ten times a second: links, pings, timeouts.
//!
//! A node is pinged when its last pong is older than half the node timeout. In addition, once in
//! each `cluster-ping-interval`, the node with the oldest pong out of five random nodes is pinged.
//! With 1,000 nodes and a node timeout of 15 seconds, a node sends at most 134 pings a second, and
//! fewer if gossip reports pongs to other nodes. Each tick of the state machine walks all nodes
//! once.
//!
//! **A pause of this node.** If no tick came for half a node timeout, this process was stopped, or
//! a command was slow: the peers may have answered, but this node did not read. So after a pause of
//! this node the timeouts of unanswered pings begin anew. After a pause of a whole node timeout, a
//! primary may have been replaced, so it takes no writes until other nodes have answered on new
//! links, as after a start.

use super::event::{Action, Now};
use super::machine::Cluster;
use super::nodes::NodeIndex;
use super::packet::{PingKind, flag};

/// The interval of the ticks of the cluster's state machine, in milliseconds.
pub(super) const TICK_MS: u64 = 100;
/// The number of connections that one tick may open at least; in large clusters it is a tenth of
/// the nodes.
const CONNECTS_MIN: usize = 20;
/// The number of random nodes of which the one with the oldest pong is pinged.
const RANDOM_NODES: usize = 5;
/// The minimum timeout of a handshake, in milliseconds.
const HANDSHAKE_MIN_MS: u64 = 1000;

impl Cluster {
    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.todo.election = true;
        if now.ms < self.last_tick + TICK_MS && self.ticks > 0 {
            return;
        }
        self.ticks += 1;
        self.last_tick = now.ms;
        // The loop over the nodes may remove nodes, so it walks a copy of their indices.
        let me = self.me;
        let mut indices = self.nodes.indices().to_vec();
        indices.retain(|index| *index != me);
        let mut connects = CONNECTS_MIN.max(indices.len() / 10);
        for index in indices {
            if self.nodes[index].has(flag::HANDSHAKE) && self.handshake_is_over(now, index) {
                self.forget_node(index, out);
                continue;
            }
            self.tend_link(now, index, &mut connects, out);
            self.tend_ping(now, index, out);
            self.suspect(now, index, out);
        }
        if !self.slots.unresolved.is_empty() {
            self.resolve_open_slots();
        }
        if !self.slots.importing.is_empty() {
            self.claim_left_slots(out);
        }
        self.ping_random(now, out);
        self.time_out_manual(now, out);
        self.migrate_replica(now, out);
        self.todo.health = true;
    }

    /// Notices that this process was stopped or busy for long. `notice_pause` is called at each
    /// event, since packets may be read before the next tick.
    pub(super) fn notice_pause(&mut self, now: Now, out: &mut Vec<Action>) {
        let pause = now.ms.saturating_sub(self.last_tick);
        if self.ticks == 0 || pause <= (self.settings.node_timeout_ms / 2).max(2 * TICK_MS) {
            return;
        }
        let is_long = pause >= self.settings.node_timeout_ms;
        self.last_tick = now.ms;
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            let node = &mut self.nodes[index];
            if node.ping_sent != 0 {
                node.ping_sent = now.ms;
            }
            if node.connected {
                node.link_since = now.ms;
            }
            // The link is closed, as a pong that waited in its buffer must not count as a new pong.
            if is_long {
                self.close_outbound(index, out);
            }
        }
        if is_long {
            self.down_until = now.ms + self.rejoin_delay();
            if self.up && self.nodes[self.me].is_primary() {
                self.up = false;
                out.push(Action::State { up: false });
            }
        }
        let text = format!("This node was paused for {pause} milliseconds");
        self.log(log::Level::Info, text, out);
    }

    pub(super) fn handshake_is_over(&self, now: Now, index: NodeIndex) -> bool {
        let timeout = self.settings.node_timeout_ms.max(HANDSHAKE_MIN_MS);
        now.ms - self.nodes[index].created > timeout
    }

    fn tend_link(
        &mut self,
        now: Now,
        index: NodeIndex,
        connects: &mut usize,
        out: &mut Vec<Action>,
    ) {
        let timeout = self.settings.node_timeout_ms;
        let node = &self.nodes[index];
        if node.link.is_none() {
            let possible =
                self.reconnect && !node.has(flag::NO_ADDR) && now.ms >= node.next_connect;
            if possible && *connects > 0 {
                *connects -= 1;
                self.connect(now, index, out);
            }
            return;
        }
        let age = now.ms - node.link_since;
        let silent = |since: u64| now.ms.saturating_sub(since) > timeout / 2;
        // A connection may be dead without an error, so it is closed and a new one is opened before
        // the node gets PFAIL.
        let is_dead = node.connected
            && age > timeout
            && node.ping_sent != 0
            && silent(node.ping_sent)
            && silent(node.data_received);
        let never_came = !node.connected && age > timeout;
        if is_dead || never_came {
            let never_pinged = node.ping_sent == 0;
            self.close_outbound(index, out);
            if never_pinged {
                self.nodes[index].ping_sent = now.ms;
            }
        }
    }

    fn tend_ping(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let node = &self.nodes[index];
        if !node.connected {
            return;
        }
        let due = node.ping_sent == 0
            && now.ms.saturating_sub(node.pong_received) > self.settings.node_timeout_ms / 2;
        // The replica of a manual failover waits for this node's offset, which is in the head of a
        // ping.
        if due || self.manual.replica == Some(index) {
            self.send_ping(now, index, PingKind::Ping, out);
        }
    }

    fn ping_random(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.random_ping || now.ms < self.last_random_ping + self.settings.ping_interval_ms {
            return;
        }
        self.last_random_ping = now.ms;
        let mut oldest: Option<NodeIndex> = None;
        for _ in 0..RANDOM_NODES {
            let at = self.random.below(self.nodes.count() as u64) as usize;
            let index = self.nodes.indices()[at];
            let node = &self.nodes[index];
            let pong = |index: NodeIndex| self.nodes[index].pong_received;
            if index != self.me
                && node.connected
                && node.ping_sent == 0
                && !node.has(flag::HANDSHAKE)
                && oldest.is_none_or(|oldest| pong(index) < pong(oldest))
            {
                oldest = Some(index);
            }
        }
        if let Some(index) = oldest {
            self.send_ping(now, index, PingKind::Ping, out);
        }
    }
}
