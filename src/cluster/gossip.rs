//! Gossip: what PING and PONG packets say about nodes other than sender and receiver.
//!
//! Each PING and PONG has the state of some other nodes: a random tenth of the cluster's nodes, at
//! least three, and all nodes that the sender can't reach. Through gossip, each node learns of a
//! failed node within two node timeouts, and of a new node within a few rounds. The size of a PING
//! grows with the number of nodes in the cluster.

use super::event::{Action, Now, Texts};
use super::machine::Cluster;
use super::name::Name;
use super::nodes::{Node, NodeIndex};
use super::packet::{Extension, Gossip, flag};

/// The least number of nodes about which a packet gossips.
const GOSSIP_MIN: usize = 3;
/// The milliseconds by which a peer's clock may be ahead of this node's; times of a clock that is
/// further ahead are ignored.
const CLOCK_AHEAD_MS: u64 = 500;

impl Cluster {
    pub(super) fn choose_gossip(&mut self, now: Now, to: Option<NodeIndex>) -> Vec<Gossip> {
        // Gossip is about all nodes except this node and the receiver.
        let others = self.nodes.count().saturating_sub(2);
        let wanted = self.nodes.count() * self.settings.gossip_percent / 100;
        let wanted = wanted.max(GOSSIP_MIN).min(others);
        let mut out = Vec::with_capacity(wanted + self.suspects.len());
        self.gossip_round = self.gossip_round.wrapping_add(1);
        let round = self.gossip_round;
        for _ in 0..wanted * 3 {
            if out.len() == wanted {
                break;
            }
            let at = self.random.below(self.nodes.count() as u64) as usize;
            let index = self.nodes.indices()[at];
            let node = &mut self.nodes[index];
            // A node to which there is no link and that has no slots is left out. Nodes with PFAIL
            // are appended after this loop.
            let skip = node.has(flag::HANDSHAKE | flag::NO_ADDR | flag::PFAIL)
                || !node.connected && node.slot_count == 0;
            if skip || index == self.me || Some(index) == to || node.gossip_mark == round {
                continue;
            }
            node.gossip_mark = round;
            out.push(self.gossip_about(now, index));
        }
        let suspects = self.suspects.iter().filter(|index| Some(**index) != to);
        out.extend(suspects.map(|index| self.gossip_about(now, *index)));
        out.truncate(usize::from(u16::MAX));
        out
    }

    pub(super) fn gossip_about(&self, now: Now, index: NodeIndex) -> Gossip {
        let node = &self.nodes[index];
        // Converts a time of `Now::ms` into Unix time in seconds; 0 stays 0.
        let wall_s = |ms: u64| match ms {
            0 => 0,
            ms => (now.wall_ms.saturating_sub(now.ms.saturating_sub(ms)) / 1000) as u32,
        };
        let (port, second_port) = match self.settings.tls_cluster {
            true => (node.address.tls_port, node.address.tcp_port),
            false => (node.address.tcp_port, node.address.tls_port),
        };
        Gossip {
            name: node.name,
            ping_sent_s: wall_s(node.ping_sent),
            pong_received_s: wall_s(node.pong_received),
            ip: node.address.ip,
            port,
            bus_port: node.address.bus_port,
            flags: node.flags,
            second_port,
        }
    }

    /// Reads the gossip in a packet of a known node.
    pub(super) fn read_gossip(
        &mut self,
        now: Now,
        sender: NodeIndex,
        gossip: &[Gossip],
        out: &mut Vec<Action>,
    ) {
        let is_voter = self.nodes[sender].is_voter();
        for entry in gossip {
            match self.nodes.find(&entry.name) {
                Some(index) if index == self.me || index == sender => {}
                Some(index) => {
                    if is_voter {
                        self.read_report(now, sender, index, entry, out);
                    }
                    self.read_news(now, index, entry, out);
                }
                None => self.add_from_gossip(now, std::slice::from_ref(entry), out),
            }
        }
    }

    fn read_report(
        &mut self,
        now: Now,
        sender: NodeIndex,
        index: NodeIndex,
        entry: &Gossip,
        out: &mut Vec<Action>,
    ) {
        let fails = entry.flags & (flag::FAIL | flag::PFAIL) != 0;
        let node = &mut self.nodes[index];
        let (change, verb) = match fails {
            true => (node.reports.add(sender, now.ms), "as not reachable"),
            false => (node.reports.remove(sender), "is back online"),
        };
        if change {
            let [from, about] = [sender, index].map(|at| self.nodes[at].called());
            let text = format!("Node {from} reported node {about} {verb}.");
            self.log(log::Level::Debug, text, out);
        }
        if fails {
            self.decide_failure(now, index, out);
        }
    }

    fn read_news(&mut self, now: Now, index: NodeIndex, entry: &Gossip, out: &mut Vec<Action>) {
        let node = &mut self.nodes[index];
        let fails_there = entry.flags & (flag::FAIL | flag::PFAIL) != 0;
        let fails_here = node.has(flag::FAIL | flag::PFAIL);
        // If another node has recently received a pong of the node in the gossip entry, this node
        // needs to send it no ping.
        if !fails_there && !fails_here && node.ping_sent == 0 && node.reports.is_empty() {
            let pong_wall = u64::from(entry.pong_received_s) * 1000;
            let ahead = pong_wall > now.wall_ms + CLOCK_AHEAD_MS;
            let age = now.wall_ms.saturating_sub(pong_wall);
            let pong = now.ms.saturating_sub(age);
            if entry.pong_received_s != 0 && !ahead && age < now.ms && pong > node.pong_received {
                node.pong_received = pong;
            }
        }
        // A node that does not answer this node, but answers the sender at another address, has
        // moved.
        let address = self.address(entry.ip, [entry.port, entry.second_port, entry.bus_port]);
        let has_address = entry.flags & flag::NO_ADDR == 0 && !entry.ip.is_empty();
        if fails_here && !fails_there && has_address && self.nodes[index].address != address {
            self.move_to(index, address, out);
        }
    }

    /// Adds the nodes in `gossip` that this node does not know, except nodes that were forgotten by
    /// CLUSTER FORGET.
    pub(super) fn add_from_gossip(&mut self, now: Now, gossip: &[Gossip], out: &mut Vec<Action>) {
        for entry in gossip {
            let known = self.nodes.find(&entry.name).is_some();
            let usable = entry.flags & (flag::NO_ADDR | flag::HANDSHAKE) == 0
                && !entry.ip.is_empty()
                && entry.bus_port != 0;
            if known || !usable || self.is_blacklisted(now, &entry.name) {
                continue;
            }
            let shard = Name::random(&mut self.random);
            let role = match entry.flags & flag::REPLICA {
                0 => flag::PRIMARY,
                _ => flag::REPLICA,
            };
            let address = self.address(entry.ip, [entry.port, entry.second_port, entry.bus_port]);
            let mut node = Node::new(entry.name, shard, role, address, now.ms);
            node.is_hearsay = true;
            if self.nodes.add(node).is_some() {
                let text = format!("Node {} was added by gossip", entry.name);
                self.log(log::Level::Debug, text, out);
                self.todo.save = true;
                self.todo.topology = true;
            }
        }
    }

    /// Ignores gossip about a node for `ttl_ms`, at most for `cluster-blacklist-ttl`.
    pub(super) fn blacklist(&mut self, now: Now, name: &Name, ttl_ms: u64) {
        self.blacklist.retain(|_, until| *until > now.ms);
        let ttl_ms = ttl_ms.min(self.settings.blacklist_ms);
        self.blacklist.insert(*name, now.ms.saturating_add(ttl_ms));
    }

    pub(super) fn is_blacklisted(&self, now: Now, name: &Name) -> bool {
        self.blacklist
            .get(name)
            .is_some_and(|until| *until > now.ms)
    }

    pub(super) fn read_extensions(
        &mut self,
        now: Now,
        sender: NodeIndex,
        extensions: &[Extension],
        out: &mut Vec<Action>,
    ) {
        let mut texts = Texts::default();
        let mut shard = None;
        for extension in extensions {
            match extension {
                Extension::HostName(text) => texts.host_name = Some(text.clone()),
                Extension::HumanName(text) => texts.human_name = Some(text.clone()),
                Extension::Zone(text) => texts.zone = Some(text.clone()),
                Extension::ClientIpv4(text) => texts.client_ipv4 = Some(text.clone()),
                Extension::ClientIpv6(text) => texts.client_ipv6 = Some(text.clone()),
                Extension::ClientPort(port) => texts.client_port = *port,
                Extension::ClientTlsPort(port) => texts.client_tls_port = *port,
                Extension::ShardId(id) => shard = Some(*id),
                Extension::Forgotten { node, ttl_s } => {
                    self.read_forgotten(now, sender, (node, *ttl_s), out);
                }
                Extension::InternalSecret(_) | Extension::Other { .. } => {}
            }
        }
        // A node sends no extensions until it knows that this node reads them, so a packet without
        // extensions does not mean that the sender has no texts.
        if extensions.is_empty() {
            return;
        }
        let node = &mut self.nodes[sender];
        let known = node.texts.as_deref();
        texts.other = known.map(|known| known.other.clone()).unwrap_or_default();
        let changed = match known {
            Some(known) => *known != texts,
            None => texts != Texts::default(),
        };
        let other_shard = shard.filter(|shard| *shard != node.shard);
        if changed {
            node.texts = Some(Box::new(texts));
        }
        if let Some(shard) = other_shard {
            node.shard = shard;
        }
        if changed || other_shard.is_some() {
            self.todo.save = true;
            self.todo.topology = true;
        }
    }

    /// Forgets a node that CLUSTER FORGET, sent to another node, has removed there; that node's
    /// packet says so.
    fn read_forgotten(
        &mut self,
        now: Now,
        sender: NodeIndex,
        (name, ttl_s): (&Name, u64),
        out: &mut Vec<Action>,
    ) {
        let Some(index) = self.nodes.find(name) else {
            return;
        };
        // The sender is not forgotten, because its packet is still being read.
        if index == self.me || index == sender || self.nodes[self.me].replica_of == Some(index) {
            return;
        }
        self.blacklist(now, name, ttl_s.saturating_mul(1000));
        self.forget_node(index, out);
    }
}
