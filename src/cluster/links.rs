//! The links of the cluster bus, and the packets that this node sends over them.
//!
//! Each pair of nodes has two links, of which each node opens one. A node sends all packets except
//! answers on the link that it opened itself: PING, MEET, FAIL and so on. The PONG to a PING comes
//! back on the link of the PING. So on a link that a peer opened, a node reads packets and sends
//! only answers. The peer of an accepted link is known when the link's first packet has a known
//! sender.

use std::rc::Rc;

use super::event::{Action, LinkId, Now, Wire};
use super::machine::Cluster;
use super::nodes::NodeIndex;
use super::packet::{Body, Extension, Gossip, Header, Message, PingKind, flag, message_flag};

/// A link: a connection of the cluster bus to another node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The node at the other end of the link, if it is known.
    pub(super) node: Option<NodeIndex>,
    pub(super) inbound: bool,
}

/// The longest wait, in milliseconds, after the first failed attempt to connect to a node;
/// `CONNECT_MAX_MS` is the longest wait after later attempts.
const CONNECT_FIRST_MS: u64 = 100;
const CONNECT_MAX_MS: u64 = 2000;

impl Cluster {
    pub(super) fn connect(&mut self, now: Now, index: NodeIndex, out: &mut Vec<Action>) {
        let link = self.new_link();
        let outbound = Link {
            node: Some(index),
            inbound: false,
        };
        self.links.insert(link, outbound);
        let node = &mut self.nodes[index];
        node.link = Some(link);
        node.connected = false;
        node.link_since = now.ms;
        out.push(Action::Wire(Wire::Connect {
            link,
            ip: node.address.ip,
            port: node.address.bus_port,
        }));
    }

    pub(super) fn link_accepted(&mut self, _now: Now, link: LinkId) {
        let inbound = Link {
            node: None,
            inbound: true,
        };
        self.links.insert(link, inbound);
    }

    pub(super) fn link_connected(&mut self, now: Now, link: LinkId, out: &mut Vec<Action>) {
        let Some(index) = self.links.get(&link).and_then(|link| link.node) else {
            return;
        };
        let node = &mut self.nodes[index];
        if node.link != Some(link) {
            return;
        }
        node.connected = true;
        node.link_since = now.ms;
        let kind = match node.has(flag::MEET) {
            true => PingKind::Meet,
            false => PingKind::Ping,
        };
        // A ping that was not answered on the previous link still counts for the failure detection.
        let unanswered = node.ping_sent;
        self.nodes[index].pings.clear();
        self.send_ping(now, index, kind, out);
        if unanswered != 0 {
            self.nodes[index].ping_sent = unanswered;
        }
    }

    pub(super) fn link_closed(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        let Some(index) = link.node else {
            return;
        };
        let node = &mut self.nodes[index];
        if link.inbound {
            if node.inbound == Some(id) {
                node.inbound = None;
            }
            return;
        }
        node.link = None;
        node.connected = false;
        if node.ping_sent == 0 {
            node.ping_sent = now.ms;
        }
        let max_ms = CONNECT_MAX_MS.min(self.settings.node_timeout_ms / 4).max(1);
        let wait = node
            .backoff
            .next_ms(CONNECT_FIRST_MS, max_ms, &mut self.random);
        node.next_connect = now.ms + wait;
    }

    /// Closes the link that this node opened to a node; the next tick opens a new link.
    pub(super) fn close_outbound(&mut self, index: NodeIndex, out: &mut Vec<Action>) {
        let node = &mut self.nodes[index];
        if let Some(link) = node.link.take() {
            node.connected = false;
            self.links.remove(&link);
            out.push(Action::Wire(Wire::Close(link)));
        }
    }

    pub(super) fn header(&self) -> Header {
        let address = &self.nodes[self.me].address;
        let (port, second_port) = match self.settings.tls_cluster {
            true => (address.tls_port, address.tcp_port),
            false => (address.tcp_port, address.tls_port),
        };
        let mut flags = message_flag::EXTENSIONS;
        if self.manual.is_pause_announced() {
            flags |= message_flag::PAUSED;
        }
        Header {
            sender: self.nodes[self.me].name,
            current_epoch: self.current_epoch,
            config_epoch: self.announced.config_epoch,
            offset: self.replication.offset,
            slots: Rc::clone(&self.announced.slots),
            replica_of: self.announced.replica_of,
            ip: self.settings.announced.ip,
            port,
            second_port,
            bus_port: address.bus_port,
            flags: self.announced.flags,
            state: u8::from(!self.up),
            message_flags: [flags, 0, 0],
        }
    }

    /// Sends a packet on the link that this node opened to the node `index`. Returns whether the
    /// link is connected.
    pub(super) fn send_to(
        &mut self,
        index: NodeIndex,
        message: &Rc<Message>,
        out: &mut Vec<Action>,
    ) -> bool {
        let node = &self.nodes[index];
        match node.link.filter(|_| node.connected) {
            Some(link) => {
                self.send(link, Rc::clone(message), out);
                true
            }
            None => false,
        }
    }

    pub(super) fn send(&mut self, link: LinkId, message: Rc<Message>, out: &mut Vec<Action>) {
        self.sent[message.kind_index()] += 1;
        out.push(Action::Wire(Wire::Send { link, message }));
    }

    /// Sends a packet to all nodes except those in handshake, whose names are not known.
    pub(super) fn broadcast(&mut self, body: Body, out: &mut Vec<Action>) {
        let message = Rc::new(Message::Full(Box::new(self.header()), body));
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            if index != self.me && !self.nodes[index].has(flag::HANDSHAKE) {
                self.send_to(index, &message, out);
            }
        }
    }

    pub(super) fn send_ping(
        &mut self,
        now: Now,
        index: NodeIndex,
        kind: PingKind,
        out: &mut Vec<Action>,
    ) {
        let Some(link) = self.nodes[index].link else {
            return;
        };
        if kind != PingKind::Pong {
            let node = &mut self.nodes[index];
            node.ping_sent = now.ms;
            node.note_ping(now.ms);
        }
        let reads = self.nodes[index].has(flag::EXTENSIONS);
        self.send_gossip(now, link, Some(index), (kind, reads), out);
    }

    /// Sends a PING, PONG or MEET with chosen gossip on a link, and with extensions if the peer
    /// reads them.
    pub(super) fn send_gossip(
        &mut self,
        now: Now,
        link: LinkId,
        to: Option<NodeIndex>,
        (kind, reads): (PingKind, bool),
        out: &mut Vec<Action>,
    ) {
        let gossip = self.choose_gossip(now, to);
        self.send_gossip_about(now, link, gossip, (kind, reads), out);
    }

    /// Sends a PING, PONG or MEET with the given gossip on a link.
    fn send_gossip_about(
        &mut self,
        now: Now,
        link: LinkId,
        gossip: Vec<Gossip>,
        (kind, reads): (PingKind, bool),
        out: &mut Vec<Action>,
    ) {
        let extensions = if reads {
            self.extensions(now)
        } else {
            Vec::new()
        };
        let body = Body::Ping {
            kind,
            gossip,
            extensions,
        };
        let message = Message::Full(Box::new(self.header()), body);
        self.send(link, Rc::new(message), out);
    }

    /// Sends a PONG whose gossip is only about the node `about`: whether this node can reach it.
    pub(super) fn send_report(
        &mut self,
        now: Now,
        to: NodeIndex,
        about: NodeIndex,
        out: &mut Vec<Action>,
    ) {
        if let Some(link) = self.nodes[to].link.filter(|_| self.nodes[to].connected) {
            let gossip = vec![self.gossip_about(now, about)];
            let reads = self.nodes[to].has(flag::EXTENSIONS);
            self.send_gossip_about(now, link, gossip, (PingKind::Pong, reads), out);
        }
    }

    /// Sends the state of this node to all nodes in a PONG. All nodes get the same PONG: with a
    /// message for each node, the replicas of 250 failed primaries among 1,000 nodes would hold 7
    /// GB at once.
    pub(super) fn broadcast_pong(&mut self, now: Now, out: &mut Vec<Action>) {
        let gossip = self.choose_gossip(now, None);
        let pong = |extensions| {
            let body = Body::Ping {
                kind: PingKind::Pong,
                gossip: gossip.clone(),
                extensions,
            };
            Rc::new(Message::Full(Box::new(self.header()), body))
        };
        let plain = pong(Vec::new());
        let extended = pong(self.extensions(now));
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            let node = &self.nodes[index];
            if index != self.me && !node.has(flag::HANDSHAKE) {
                let reads = node.has(flag::EXTENSIONS);
                self.send_to(index, if reads { &extended } else { &plain }, out);
            }
        }
    }

    fn extensions(&self, now: Now) -> Vec<Extension> {
        let me = &self.nodes[self.me];
        let mut out = Vec::new();
        if let Some(texts) = &me.texts {
            out.extend(texts.host_name.clone().map(Extension::HostName));
            out.extend(texts.human_name.clone().map(Extension::HumanName));
            out.extend(texts.client_ipv4.clone().map(Extension::ClientIpv4));
            out.extend(texts.client_ipv6.clone().map(Extension::ClientIpv6));
            if texts.client_port != 0 {
                out.push(Extension::ClientPort(texts.client_port));
            }
            if texts.client_tls_port != 0 {
                out.push(Extension::ClientTlsPort(texts.client_tls_port));
            }
            out.extend(texts.zone.clone().map(Extension::Zone));
        }
        let forgotten = self.blacklist.iter().filter(|(_, until)| **until > now.ms);
        out.extend(forgotten.map(|(node, until)| Extension::Forgotten {
            node: *node,
            ttl_s: (until - now.ms) / 1000,
        }));
        out.push(Extension::ShardId(me.shard));
        out
    }
}
