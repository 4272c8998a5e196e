//! Executes the packets that were received over the cluster bus.
//!
//! ```text
//!   packet ─> sender known? ─> epochs, offset ─┬─ PING PONG MEET ─> handshake, address, role,
//!                                              │                    claims, collision, gossip
//!                                              ├─ FAIL             ─> the node failed
//!                                              ├─ AUTH_REQUEST/ACK ─> votes
//!                                              ├─ UPDATE           ─> claims of another node
//!                                              ├─ MFSTART          ─> manual failover
//!                                              └─ PUBLISH          ─> subscribers
//! ```
//!
//! A packet of an unknown sender changes nothing, except a MEET, which adds the sender, and a PONG
//! on a link that this node opened to a node in handshake, which gives that node its name.

use super::event::{Action, Address, LinkId, Now};
use super::machine::Cluster;
use super::name::{Ip, Name};
use super::nodes::{Node, NodeIndex};
use super::packet::{Body, Gossip, Header, Message, PingKind, flag, message_flag};

/// The largest epoch that is accepted from a packet if this node's own epoch is far below. Epochs
/// grow by one at each election, so a larger epoch is false; if a false epoch were accepted,
/// elections would become impossible once an epoch reached the maximum of `u64`.
const EPOCH_MAX: u64 = 1 << 63;
/// The number by which an accepted epoch may exceed this node's epoch in any case. So a cluster
/// whose epoch is `EPOCH_MAX`, after a false packet, still elects primaries.
const EPOCH_STEP: u64 = 1 << 32;

/// A PING, PONG or MEET packet, with the connection on which it came.
struct Ping<'a> {
    link: LinkId,
    /// The IP addresses of the connection: of the other end, then of this node's end.
    addresses: [Ip; 2],
    header: &'a Header,
    kind: PingKind,
    gossip: &'a [Gossip],
}

impl Cluster {
    /// Counts a packet as received. Tests call `count_received` for packets that they drop.
    pub fn count_received(&mut self, message: &Message) {
        self.received[message.kind_index()] += 1;
    }

    pub(super) fn receive(
        &mut self,
        now: Now,
        link: LinkId,
        addresses: [Ip; 2],
        message: &Message,
        out: &mut Vec<Action>,
    ) {
        if !self.links.contains_key(&link) {
            return;
        }
        self.count_received(message);
        let (header, body) = match message {
            Message::Full(header, body) => (header, body),
            Message::LightPublish(publish) => {
                if self.links[&link].node.is_some() {
                    out.push(Action::Publish(publish.clone()));
                }
                return;
            }
            Message::LightModule(_) => return,
        };
        let epoch = header.current_epoch.max(header.config_epoch);
        if epoch > EPOCH_MAX.max(self.current_epoch.saturating_add(EPOCH_STEP)) {
            let text = format!(
                "Ignored a packet of {:.40} with an invalid epoch",
                header.sender
            );
            self.log(log::Level::Debug, text, out);
            return;
        }
        let sender = self.sender_of(link, header);
        if let Some(sender) = sender {
            self.note_sender(now, sender, header, out);
        }
        if let Body::Ping {
            kind,
            gossip,
            extensions,
        } = body
        {
            let ping = Ping {
                link,
                addresses,
                header,
                kind: *kind,
                gossip,
            };
            let sender = self.receive_ping(now, &ping, sender, out);
            if let Some(sender) = sender {
                self.read_extensions(now, sender, extensions, out);
            }
        } else if let Some(sender) = sender {
            self.receive_other(now, sender, header, body, out);
        }
    }

    /// Executes a packet of a known node other than PING, PONG and MEET.
    fn receive_other(
        &mut self,
        now: Now,
        sender: NodeIndex,
        header: &Header,
        body: &Body,
        out: &mut Vec<Action>,
    ) {
        match body {
            Body::Ping { .. } | Body::Module(_) => {}
            Body::Fail(name) => self.read_fail(now, name, out),
            Body::Publish(publish) => out.push(Action::Publish(publish.clone())),
            Body::AuthRequest => self.vote(now, sender, header, out),
            Body::AuthAck => self.count_vote(sender, header),
            Body::Update {
                config_epoch,
                node,
                slots,
            } => self.receive_update(*config_epoch, node, slots, out),
            Body::ManualFailoverStart => self.manual_start(now, sender, out),
        }
    }

    /// The sender of a packet, if the sender is known, is not in handshake, and is not this node.
    fn sender_of(&mut self, id: LinkId, header: &Header) -> Option<NodeIndex> {
        let sender = self.nodes.find(&header.sender)?;
        if sender == self.me || self.nodes[sender].has(flag::HANDSHAKE) {
            return None;
        }
        let link = self.links.get_mut(&id)?;
        if link.inbound && link.node != Some(sender) {
            link.node = Some(sender);
            self.nodes[sender].inbound = Some(id);
        }
        // On a link that this node opened, only packets of the node to which it was opened count.
        (link.node == Some(sender)).then_some(sender)
    }

    fn note_sender(&mut self, now: Now, sender: NodeIndex, header: &Header, out: &mut Vec<Action>) {
        let epoch = header.current_epoch.max(header.config_epoch);
        if epoch > self.current_epoch {
            self.current_epoch = epoch;
            self.todo.save = true;
        }
        let mine = self.my_primary();
        let node = &mut self.nodes[sender];
        node.data_received = now.ms;
        node.offset = header.offset;
        // If the sender is a replica, the config epoch in its packet is that of its primary.
        if header.config_epoch > node.config_epoch {
            node.config_epoch = header.config_epoch;
            self.todo.save = true;
            self.todo.announce |= sender == mine;
        }
        let copied = flag::NO_FAILOVER | flag::LIGHT_PUBLISH | flag::PRIMARY_FAILED;
        let before = node.flags;
        node.flags = node.flags & !copied | header.flags & copied;
        // The sender, perhaps a replica of this node's primary, has just marked its primary as
        // failed: an election may be due.
        self.todo.election |= !before & node.flags & flag::PRIMARY_FAILED != 0;
        if header.message_flags[0] & message_flag::EXTENSIONS != 0 {
            node.flags |= flag::EXTENSIONS;
        }
        if header.message_flags[0] & message_flag::PAUSED != 0 {
            self.note_paused_primary(sender, header.offset, out);
        }
    }

    /// Reads a PING, PONG or MEET. Returns the sender if it is a known node, also if the packet
    /// itself made it known.
    fn receive_ping(
        &mut self,
        now: Now,
        ping: &Ping,
        sender: Option<NodeIndex>,
        out: &mut Vec<Action>,
    ) -> Option<NodeIndex> {
        if ping.kind != PingKind::Pong {
            self.learn_own_ip(ping);
            if ping.kind == PingKind::Meet && sender.is_none() {
                self.meet_sender(now, ping, out);
            }
            let to = sender.or(self.links[&ping.link].node);
            // The PONG has extensions if the sender reads them, so that a new node gets this node's
            // host name together with its slots.
            let flags = ping.header.message_flags[0] & message_flag::EXTENSIONS != 0;
            let reads = flags || to.is_some_and(|to| self.nodes[to].has(flag::EXTENSIONS));
            self.send_gossip(now, ping.link, to, (PingKind::Pong, reads), out);
        }
        let mut sender = sender;
        if !self.links[&ping.link].inbound {
            sender = self.check_identity(now, ping, sender, out);
        }
        let sender = sender?;
        if ping.kind == PingKind::Ping && self.links[&ping.link].inbound {
            self.update_address(sender, ping, out);
        }
        if ping.kind == PingKind::Pong && !self.links[&ping.link].inbound {
            let node = &mut self.nodes[sender];
            node.pong_received = now.ms;
            node.note_pong();
            node.ping_sent = 0;
            node.backoff.reset();
            node.is_hearsay = false;
            self.answered(now, sender, out);
        }
        self.update_role(sender, ping.header, out);
        // The slots of a node that is known by gossip count only once it has answered a ping: the
        // answer has the node's texts, and CLUSTER SLOTS must not show the node without its host
        // name. After the timeout of a handshake the slots of a node known by gossip count without
        // an answer.
        if !self.nodes[sender].is_hearsay || self.handshake_is_over(now, sender) {
            self.receive_claims(sender, ping.header, out);
        }
        self.resolve_collision(sender, ping.header, out);
        self.read_gossip(now, sender, ping.gossip, out);
        Some(sender)
    }

    fn learn_own_ip(&mut self, ping: &Ping) {
        let (announced, local) = (self.settings.announced.ip, ping.addresses[1]);
        let me = &mut self.nodes[self.me];
        let unknown = me.address.ip.is_empty() || ping.kind == PingKind::Meet;
        if announced.is_empty() && unknown && !local.is_empty() && me.address.ip != local {
            me.address.ip = local;
            self.todo.save = true;
            self.todo.topology = true;
        }
    }

    /// The address of the sender of a PING, from the packet's head and its connection.
    fn address_of(&self, ping: &Ping) -> Address {
        let header = ping.header;
        let ip = if header.ip.is_empty() {
            ping.addresses[0]
        } else {
            header.ip
        };
        self.address(ip, [header.port, header.second_port, header.bus_port])
    }

    /// Makes an address from an IP and the three ports in the head of a packet or in gossip.
    pub(super) fn address(&self, ip: Ip, ports: [u16; 3]) -> Address {
        let [port, second_port, bus_port] = ports;
        let (tcp_port, tls_port) = match self.settings.tls_cluster {
            true => (second_port, port),
            false => (port, second_port),
        };
        Address {
            ip,
            tcp_port,
            tls_port,
            bus_port,
        }
    }

    /// Adds the sender of a MEET. The name of the sender is confirmed by its PONG on a link that
    /// this node opens.
    fn meet_sender(&mut self, now: Now, ping: &Ping, out: &mut Vec<Action>) {
        let address = self.address_of(ping);
        let same = |node: &Node| node.has(flag::HANDSHAKE) && node.address == address;
        let known = self.nodes.find(&ping.header.sender).is_some()
            || self.nodes.iter().any(|(_, node)| same(node));
        if !known {
            self.add_handshake(now, address, 0);
        }
        // A MEET is sent at the order of an operator, so its gossip is trusted.
        self.add_from_gossip(now, ping.gossip, out);
    }

    /// Adds a node in handshake, whose name is not known yet.
    pub(super) fn add_handshake(&mut self, now: Now, address: Address, flags: u16) {
        let (name, shard) = (
            Name::random(&mut self.random),
            Name::random(&mut self.random),
        );
        let flags = flag::HANDSHAKE | flag::PRIMARY | flags;
        self.nodes
            .add(Node::new(name, shard, flags, address, now.ms));
    }

    /// Compares the sender of a packet on a link that this node opened with the node to which the
    /// link was opened. Returns the sender if the two are the same node.
    fn check_identity(
        &mut self,
        now: Now,
        ping: &Ping,
        sender: Option<NodeIndex>,
        out: &mut Vec<Action>,
    ) -> Option<NodeIndex> {
        let expected = self.links[&ping.link].node?;
        if !self.nodes[expected].has(flag::HANDSHAKE) {
            if self.nodes[expected].name == ping.header.sender {
                return sender;
            }
            // Another node than the expected one answers at its address.
            let name = self.nodes[expected].name;
            let text = format!("PONG contains mismatching sender ID. About node {name}");
            self.log(log::Level::Debug, text, out);
            self.close_outbound(expected, out);
            let node = &mut self.nodes[expected];
            node.flags |= flag::NO_ADDR;
            node.address = Address::default();
            self.todo.save = true;
            return None;
        }
        let name = ping.header.sender;
        match self.nodes.find(&name) {
            // The node that answered is known already, at another address, or it is this node
            // itself.
            Some(known) => {
                let address = self.address_of(ping);
                self.forget_node(expected, out);
                if known != self.me {
                    self.move_to(known, address, out);
                }
                return None;
            }
            None => drop(self.nodes.rename(expected, name)),
        }
        let text = format!("Handshake with node {name} completed.");
        self.log(log::Level::Debug, text, out);
        let address = self.address_of(ping);
        let node = &mut self.nodes[expected];
        // CLUSTER MEET names only one port for clients; the head of the node's packet has both.
        if !address.ip.is_empty() {
            node.address = address;
        }
        node.flags &= !(flag::HANDSHAKE | flag::MEET);
        self.todo.save = true;
        self.todo.topology = true;
        self.note_sender(now, expected, ping.header, out);
        Some(expected)
    }

    fn update_address(&mut self, sender: NodeIndex, ping: &Ping, out: &mut Vec<Action>) {
        let address = self.address_of(ping);
        self.move_to(sender, address, out);
    }

    /// Changes the address of a node and closes the link to its old address.
    pub(super) fn move_to(&mut self, index: NodeIndex, address: Address, out: &mut Vec<Action>) {
        let node = &mut self.nodes[index];
        if address.ip.is_empty() || node.address == address {
            return;
        }
        node.address = address;
        node.flags &= !flag::NO_ADDR;
        node.next_connect = 0;
        let name = node.name;
        self.close_outbound(index, out);
        self.todo.save = true;
        self.todo.topology = true;
        if self.nodes[self.me].replica_of == Some(index) {
            out.push(Action::Follow {
                primary: name,
                address,
                keeps_data: true,
            });
        }
    }

    fn update_role(&mut self, sender: NodeIndex, header: &Header, out: &mut Vec<Action>) {
        let Some(name) = &header.replica_of else {
            if !self.nodes[sender].is_primary() {
                self.set_as_primary(sender);
            }
            return;
        };
        let primary = self.nodes.find(name).filter(|primary| *primary != sender);
        let node = &self.nodes[sender];
        if node.is_primary() {
            self.demote(sender, primary, header, out);
        } else if primary.is_some() && node.replica_of != primary {
            self.set_as_replica(sender, primary);
        }
        let me = &self.nodes[self.me];
        if me.replica_of == Some(sender)
            && let Some(primary) = primary
            && primary != self.me
            && self.nodes[primary].is_primary()
        {
            let [old, new] = [sender, primary].map(|at| self.nodes[at].called());
            let line = "I'm a sub-replica! Reconfiguring myself from grandmaster {} to {}";
            self.line(line, &[&old, &new], out);
            self.follow(primary, out);
        }
    }

    /// Makes a primary a replica, as its own packet says. The primary's slots go to the new primary
    /// at once, so that they have an owner until the new primary claims them under a higher epoch.
    fn demote(
        &mut self,
        sender: NodeIndex,
        primary: Option<NodeIndex>,
        header: &Header,
        out: &mut Vec<Action>,
    ) {
        let heir = primary.filter(|primary| {
            let node = &self.nodes[*primary];
            *primary != self.me && (node.is_primary() || node.replica_of == Some(sender))
        });
        let slots = self.slots.of(sender);
        if let Some(heir) = heir {
            self.set_as_primary(heir);
            let epoch = self.nodes[heir].config_epoch.max(header.config_epoch);
            self.nodes[heir].config_epoch = epoch;
        }
        for slot in slots.iter() {
            let claimed = heir.filter(|_| header.slots.contains(slot));
            self.set_owner(slot, claimed);
        }
        let name = self.nodes[sender].called();
        self.line("Reconfiguring node {} as a replica", &[&name], out);
        self.set_as_replica(sender, primary);
    }
}
