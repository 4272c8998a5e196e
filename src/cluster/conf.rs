//! Builds the cluster's state from the parsed nodes.conf, and the content of nodes.conf from the
//! cluster's state.

use super::config_file::{NodeLine, NodesConf, OpenSlot};
use super::event::{Now, Settings, Texts};
use super::machine::Cluster;
use super::name::Name;
use super::nodes::{Node, NodeIndex};
use super::packet::flag;
use crate::util::random::Random;

/// The flags of nodes that are written to nodes.conf.
const KEPT: u16 = flag::MYSELF
    | flag::PRIMARY
    | flag::REPLICA
    | flag::PFAIL
    | flag::FAIL
    | flag::NO_ADDR
    | flag::NO_FAILOVER;

impl Cluster {
    /// The content of nodes.conf. Nodes in handshake are left out.
    pub fn conf(&self, now: Now) -> NodesConf {
        let mut nodes = self.lines(now);
        nodes.retain(|line| line.flags & flag::HANDSHAKE == 0);
        nodes.iter_mut().for_each(|line| line.flags &= KEPT);
        NodesConf {
            nodes,
            current_epoch: self.current_epoch,
            last_vote_epoch: self.last_vote_epoch,
        }
    }

    /// The lines of nodes.conf and CLUSTER NODES for all nodes, also for those in handshake.
    pub fn lines(&self, now: Now) -> Vec<NodeLine> {
        // The slots of all nodes are collected in one walk over the table of slots.
        let mut slots = std::collections::HashMap::<NodeIndex, Vec<(u16, u16)>>::new();
        for (owner, range) in self.slots.ranges() {
            slots.entry(owner).or_default().push(range);
        }
        let mut line = |index: NodeIndex| NodeLine {
            slots: slots.remove(&index).unwrap_or_default(),
            ..self.line_of(now, index)
        };
        let indices = self.nodes.indices().iter();
        indices.map(|index| line(*index)).collect()
    }

    /// The line of nodes.conf for a node, without the node's slots.
    pub fn line_of(&self, now: Now, index: NodeIndex) -> NodeLine {
        let node = &self.nodes[index];
        let wall_ms = |ms: u64| match ms {
            0 => 0,
            ms => now.wall_ms.saturating_sub(now.ms.saturating_sub(ms)),
        };
        let is_me = index == self.me;
        // In nodes.conf, the line of a replica has the config epoch of its primary.
        let epoch_of = node.replica_of.unwrap_or(index);
        NodeLine {
            name: node.name,
            ip: node.address.ip,
            port: match self.settings.tls_cluster {
                true => node.address.tls_port,
                false => node.address.tcp_port,
            },
            bus_port: node.address.bus_port,
            host_name: node
                .texts
                .as_ref()
                .and_then(|texts| texts.host_name.clone()),
            fields: self.fields_of(node),
            flags: node.flags,
            primary: node.replica_of.map(|primary| self.nodes[primary].name),
            ping_sent_ms: wall_ms(node.ping_sent),
            pong_received_ms: wall_ms(node.pong_received),
            config_epoch: self.nodes[epoch_of].config_epoch,
            connected: is_me || node.connected,
            slots: Vec::new(),
            open: if is_me { self.open_slots() } else { Vec::new() },
        }
    }

    fn fields_of(&self, node: &Node) -> Vec<(Box<str>, Box<str>)> {
        let mut fields: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut add = |key: &str, value: &[u8]| {
            if let Ok(value) = std::str::from_utf8(value) {
                fields.push((key.into(), value.into()));
            }
        };
        let none = Texts::default();
        let texts = node.texts.as_deref().unwrap_or(&none);
        let number = |port: u16| (port != 0).then(|| port.to_string());
        for (key, value) in [
            ("availability-zone", texts.zone.as_deref()),
            (
                "client-tls-port",
                number(texts.client_tls_port).as_deref().map(str::as_bytes),
            ),
            (
                "client-tcp-port",
                number(texts.client_port).as_deref().map(str::as_bytes),
            ),
            ("client-ipv6", texts.client_ipv6.as_deref()),
            ("client-ipv4", texts.client_ipv4.as_deref()),
        ] {
            if let Some(value) = value {
                add(key, value);
            }
        }
        match self.settings.tls_cluster {
            true => add("tcp-port", node.address.tcp_port.to_string().as_bytes()),
            false => add("tls-port", node.address.tls_port.to_string().as_bytes()),
        }
        if let Some(name) = &texts.human_name {
            add("nodename", name);
        }
        add("shard-id", node.shard.as_bytes());
        fields.extend(texts.other.iter().cloned());
        fields
    }

    fn open_slots(&self) -> Vec<OpenSlot> {
        let open = |importing: bool, (slot, node): (&u16, &NodeIndex)| OpenSlot {
            slot: *slot,
            importing,
            node: self.nodes[*node].name,
        };
        let migrating = self.slots.migrating.iter().map(|entry| open(false, entry));
        let importing = self.slots.importing.iter().map(|entry| open(true, entry));
        migrating.chain(importing).collect()
    }

    /// Builds the cluster's state from nodes.conf when the server starts.
    pub fn load(now: Now, settings: Settings, mut random: Random, conf: &NodesConf) -> Cluster {
        let own = conf
            .nodes
            .iter()
            .find(|line| line.flags & flag::MYSELF != 0);
        let own = own.expect("NodesConf::parse has found the line of this node");
        let shard = shard_of(own).unwrap_or_else(|| Name::random(&mut random));
        let mut cluster = Cluster::start(now, settings, random, own.name, shard);
        cluster.current_epoch = conf.current_epoch;
        cluster.last_vote_epoch = conf.last_vote_epoch;
        for line in &conf.nodes {
            cluster.load_line(now, line);
        }
        for line in &conf.nodes {
            cluster.load_relations(line);
        }
        // An edited nodes.conf may have a vote or a claim of a later epoch than `currentEpoch`.
        cluster.current_epoch = cluster.highest_epoch().max(cluster.last_vote_epoch);
        cluster.todo.health = true;
        cluster.announce();
        cluster
    }

    fn load_line(&mut self, now: Now, line: &NodeLine) {
        let is_me = line.flags & flag::MYSELF != 0;
        let mut texts = Texts {
            host_name: line.host_name.clone(),
            ..Texts::default()
        };
        let mut other_port = 0;
        for (key, value) in &line.fields {
            let text = || Some(value.as_bytes().into());
            match &**key {
                "availability-zone" => texts.zone = text(),
                "client-tls-port" => texts.client_tls_port = value.parse().unwrap_or(0),
                "client-tcp-port" => texts.client_port = value.parse().unwrap_or(0),
                "client-ipv6" => texts.client_ipv6 = text(),
                "client-ipv4" => texts.client_ipv4 = text(),
                "nodename" => texts.human_name = text(),
                "tcp-port" | "tls-port" => other_port = value.parse().unwrap_or(0),
                "shard-id" => {}
                _ => texts.other.push((key.clone(), value.clone())),
            }
        }
        if is_me {
            // This node's texts and ports come from the settings, and its IP address from
            // nodes.conf if the settings have none.
            let me = &mut self.nodes[self.me];
            me.flags = line.flags & KEPT & !flag::NO_FAILOVER | me.flags & flag::NO_FAILOVER;
            me.config_epoch = line.config_epoch;
            if me.address.ip.is_empty() {
                me.address.ip = line.ip;
            }
            if let Some(own) = &mut me.texts {
                own.other = texts.other;
            }
            return;
        }
        let shard = shard_of(line).unwrap_or_else(|| Name::random(&mut self.random));
        let address = self.address(line.ip, [line.port, other_port, line.bus_port]);
        let mut node = Node::new(line.name, shard, line.flags & KEPT, address, now.ms);
        node.config_epoch = line.config_epoch;
        if texts != Texts::default() {
            node.texts = Some(Box::new(texts));
        }
        // The times of pings and pongs in nodes.conf are ignored: they say nothing about the
        // present.
        if node.has(flag::FAIL) {
            node.failed_at = now.ms;
        }
        let suspected = node.has(flag::PFAIL);
        if let Some(index) = self.nodes.add(node)
            && suspected
        {
            self.suspects.push(index);
        }
    }

    /// Takes the primary, the slots and the open slots from a line of nodes.conf, after the nodes
    /// of all lines were added.
    fn load_relations(&mut self, line: &NodeLine) {
        let Some(index) = self.nodes.find(&line.name) else {
            return;
        };
        if let Some(primary) = line.primary.as_ref().and_then(|name| self.nodes.find(name)) {
            self.set_as_replica(index, Some(primary));
        }
        for (first, last) in &line.slots {
            (*first..=*last).for_each(|slot| self.set_owner(slot, Some(index)));
        }
        for open in &line.open {
            if let Some(node) = self.nodes.find(&open.node) {
                let slots = match open.importing {
                    true => &mut self.slots.importing,
                    false => &mut self.slots.migrating,
                };
                slots.insert(open.slot, node);
            }
        }
        self.todo = super::machine::Todo::default();
    }
}

fn shard_of(line: &NodeLine) -> Option<Name> {
    let field = line.fields.iter().find(|(key, _)| &**key == "shard-id");
    field.and_then(|(_, value)| Name::parse(value.as_bytes()))
}
