//! The replies that describe cluster nodes to a client: CLUSTER SLOTS, CLUSTER SHARDS, and the
//! address in a redirect.
//!
//! ```text
//!   cluster-preferred-endpoint-type    endpoint             the client takes
//!   ip                                 the IP address       it, or if empty the address that it has
//!   hostname                           the host name or ?   the host name
//!   unknown-endpoint                   null                 the address that it has
//! ```
//!
//! The IP address and the port in these replies are those that the node announces for connections
//! like that of the asking client: IPv4 or IPv6, with TLS or without.
//!
//! CLUSTER SLOTS and CLUSTER SHARDS have the form of Redis 7.0 and 8.2. Both replies show a node's
//! availability zone if it has one. The id of a shard is shown only if the server presents itself
//! as Valkey.

use super::Cluster;
use super::config_file::NodeLine;
use super::event::{Now, Texts};
use super::name::Ip;
use super::nodes::{Node, NodeIndex};
use super::packet::flag;
use crate::client::reply::ReplyBuf;
use crate::config::ClusterPreferredEndpointType as Preferred;
use crate::texts::Words;

/// The properties of the asking client that decide which addresses of nodes it gets.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Whether the client gets the TLS ports of nodes.
    pub tls: bool,
    pub ipv6: bool,
    /// The setting `cluster-preferred-endpoint-type`.
    pub preferred: Preferred,
    pub words: Words,
}

impl Asker {
    /// The address of a node in the redirects MOVED and ASK.
    pub fn address(&self, node: &Node) -> String {
        let endpoint = self.endpoint(node).unwrap_or_default();
        let (host, port) = (String::from_utf8_lossy(endpoint), self.port(node));
        format!("{host}:{port}")
    }

    /// The endpoint of a node; `None` means that the client uses the address of its own connection.
    fn endpoint<'a>(&self, node: &'a Node) -> Option<&'a [u8]> {
        match self.preferred {
            Preferred::Ip => Some(self.ip(node)),
            Preferred::Hostname => Some(host_name(node).unwrap_or(b"?")),
            Preferred::UnknownEndpoint => None,
        }
    }

    fn ip<'a>(&self, node: &'a Node) -> &'a [u8] {
        let announced = node.texts.as_deref().and_then(|texts| match self.ipv6 {
            true => texts.client_ipv6.as_deref(),
            false => texts.client_ipv4.as_deref(),
        });
        announced.unwrap_or(node.address.ip.as_str().as_bytes())
    }

    fn port(&self, node: &Node) -> u16 {
        match self.tls {
            true => tls_port(node),
            false => tcp_port(node),
        }
    }

    /// The metadata of a node in CLUSTER SLOTS, as pairs of name and value.
    fn metadata<'a>(&self, node: &'a Node) -> Vec<(&'static str, &'a [u8])> {
        let ip = Some(self.ip(node)).filter(|_| self.preferred != Preferred::Ip);
        let host = host_name(node).filter(|_| self.preferred != Preferred::Hostname);
        let pairs = [
            ("ip", ip),
            ("hostname", host),
            ("availability-zone", zone(node)),
        ];
        let known = pairs.into_iter();
        known
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

fn text(node: &Node, text: impl Fn(&Texts) -> Option<&[u8]>) -> Option<&[u8]> {
    node.texts.as_deref().and_then(text)
}

fn host_name(node: &Node) -> Option<&[u8]> {
    text(node, |texts| texts.host_name.as_deref())
}

fn zone(node: &Node) -> Option<&[u8]> {
    text(node, |texts| texts.zone.as_deref())
}

fn tcp_port(node: &Node) -> u16 {
    let announced = node.texts.as_ref().map_or(0, |texts| texts.client_port);
    match announced {
        0 => node.address.tcp_port,
        port => port,
    }
}

fn tls_port(node: &Node) -> u16 {
    let announced = node.texts.as_ref().map_or(0, |texts| texts.client_tls_port);
    match announced {
        0 => node.address.tls_port,
        port => port,
    }
}

impl Cluster {
    /// The lines of CLUSTER NODES and CLUSTER REPLICAS: the lines of nodes.conf, with the addresses
    /// for the asking client and without the `key=value` fields.
    pub fn lines_for(&self, now: Now, asker: &Asker) -> Vec<NodeLine> {
        let mut lines = self.lines(now);
        for (line, index) in lines.iter_mut().zip(self.nodes.indices()) {
            let node = &self.nodes[*index];
            line.fields.clear();
            line.port = asker.port(node);
            line.ip = Ip::parse(asker.ip(node)).unwrap_or(line.ip);
        }
        lines
    }

    /// The reply of CLUSTER SLOTS: ranges of slots with their primary and its replicas that have
    /// data.
    pub fn reply_slots(&self, asker: &Asker, reply: &mut ReplyBuf) {
        let ranges = self.slots.ranges();
        reply.array(ranges.len());
        for (owner, (first, last)) in ranges {
            let mut replicas: Vec<&Node> = self
                .nodes
                .replicas_of(owner)
                .map(|(_, node)| node)
                .filter(|node| !node.has(flag::FAIL) && node.offset != 0)
                .collect();
            // The replicas are sorted, so that all nodes give the same reply, as in Redis and
            // Valkey.
            replicas.sort_unstable_by_key(|node| node.name);
            reply.array(3 + replicas.len());
            reply.integer(first.into());
            reply.integer(last.into());
            for node in std::iter::once(&self.nodes[owner]).chain(replicas) {
                reply_node_of_slots(asker, node, reply);
            }
        }
    }

    /// The reply of CLUSTER SHARDS: for each shard its slots and all its nodes.
    pub fn reply_shards(&self, asker: &Asker, reply: &mut ReplyBuf) {
        let shards = self.shards();
        reply.array(shards.len());
        for nodes in shards {
            let has_id = asker.words == Words::Valkey;
            reply.map(2 + usize::from(has_id));
            reply.bulk(b"slots");
            let owner = nodes.iter().find(|node| self.nodes[**node].slot_count > 0);
            self.reply_ranges(owner.copied(), reply);
            reply.bulk(b"nodes");
            reply.array(nodes.len());
            for node in &nodes {
                reply_node_of_shards(asker, &self.nodes[*node], reply);
            }
            if has_id {
                reply.bulk(b"id");
                reply.bulk(self.nodes[nodes[0]].shard.as_bytes());
            }
        }
    }

    /// The nodes of each shard, without nodes in handshake.
    fn shards(&self) -> Vec<Vec<NodeIndex>> {
        let mut shards: Vec<Vec<NodeIndex>> = Vec::new();
        for (index, node) in self.nodes.iter() {
            let is_same = |nodes: &&mut Vec<NodeIndex>| self.nodes[nodes[0]].shard == node.shard;
            match shards.iter_mut().find(is_same) {
                _ if node.has(flag::HANDSHAKE) => {}
                Some(nodes) => nodes.push(index),
                None => shards.push(vec![index]),
            }
        }
        shards
    }

    fn reply_ranges(&self, owner: Option<NodeIndex>, reply: &mut ReplyBuf) {
        let mut ranges = self.slots.ranges();
        ranges.retain(|(of, _)| Some(*of) == owner);
        reply.array(2 * ranges.len());
        for (_, (first, last)) in ranges {
            reply.integer(first.into());
            reply.integer(last.into());
        }
    }
}

fn reply_node_of_slots(asker: &Asker, node: &Node, reply: &mut ReplyBuf) {
    reply.array(4);
    match asker.endpoint(node) {
        Some(endpoint) => reply.bulk(endpoint),
        None => reply.null(),
    }
    reply.integer(asker.port(node).into());
    reply.bulk(node.name.as_bytes());
    let metadata = asker.metadata(node);
    reply.map(metadata.len());
    for (name, value) in metadata {
        reply.bulk(name.as_bytes());
        reply.bulk(value);
    }
}

fn reply_node_of_shards(asker: &Asker, node: &Node, reply: &mut ReplyBuf) {
    let ports = [("port", tcp_port(node)), ("tls-port", tls_port(node))];
    let ports = ports.iter().filter(|(_, port)| *port != 0);
    let (host, zone) = (host_name(node), zone(node));
    let optional =
        ports.clone().count() + usize::from(host.is_some()) + usize::from(zone.is_some());
    reply.map(6 + optional);
    reply.bulk(b"id");
    reply.bulk(node.name.as_bytes());
    for (name, port) in ports {
        reply.bulk(name.as_bytes());
        reply.integer((*port).into());
    }
    let mut field = |name: &str, value: &[u8]| {
        reply.bulk(name.as_bytes());
        reply.bulk(value);
    };
    field("ip", asker.ip(node));
    field("endpoint", asker.endpoint(node).unwrap_or_default());
    if let Some(host) = host {
        field("hostname", host);
    }
    let role: &[u8] = if node.is_primary() {
        b"master"
    } else {
        b"replica"
    };
    field("role", role);
    reply.bulk(b"replication-offset");
    reply.integer(node.offset.cast_signed());
    reply.bulk(b"health");
    reply.bulk(health(node).as_bytes());
    if let Some(zone) = zone {
        reply.bulk(b"availability-zone");
        reply.bulk(zone);
    }
}

fn health(node: &Node) -> &'static str {
    match node.offset {
        _ if node.has(flag::FAIL) => "fail",
        0 if !node.is_primary() => "loading",
        _ => "online",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::event::{Address, Now, Settings};
    use crate::cluster::name::{Ip, Name};
    use crate::util::random::Random;

    const ASKER: Asker = Asker {
        tls: false,
        ipv6: false,
        preferred: Preferred::Ip,
        words: Words::Redis,
    };

    fn address(last: u8) -> Address {
        Address {
            ip: Ip::parse(format!("10.0.0.{last}").as_bytes()).expect("an address"),
            tcp_port: 7000,
            tls_port: 7443,
            bus_port: 17_000,
        }
    }

    /// A cluster of two shards, of which the first one has a replica; each node's name is one
    /// letter 40 times.
    fn cluster() -> Cluster {
        let now = Now { ms: 1, wall_ms: 1 };
        let name = |letter: u8| Name::parse(&[letter; 40]).expect("a name");
        let settings = Settings {
            announced: address(1),
            ..Settings::default()
        };
        let mut cluster = Cluster::new(now, settings, Random::from_seed(1));
        let me = cluster.me;
        cluster.nodes.rename(me, name(b'a'));
        cluster.nodes[me].shard = name(b's');
        let mut add = |letter, shard, last, replica_of: Option<NodeIndex>| {
            let flags = match replica_of {
                Some(_) => flag::REPLICA,
                None => flag::PRIMARY,
            };
            let mut node = Node::new(name(letter), name(shard), flags, address(last), 1);
            node.replica_of = replica_of;
            cluster.nodes.add(node).expect("a node")
        };
        let other = add(b'b', b't', 2, None);
        add(b'c', b's', 3, Some(me));
        let host = Texts {
            host_name: Some(b"host"[..].into()),
            ..Texts::default()
        };
        cluster.nodes[other].texts = Some(Box::new(host));
        for slot in [0, 1, 5] {
            cluster.set_owner(slot, Some(me));
        }
        cluster.set_owner(2, Some(other));
        cluster
    }

    fn replica(cluster: &mut Cluster) -> &mut Node {
        let name = Name::parse(&[b'c'; 40]).expect("a name");
        let index = cluster.nodes.find(&name).expect("the replica");
        &mut cluster.nodes[index]
    }

    /// A reply as a text in which names of nodes are shortened to their letter.
    fn text(write: impl Fn(&mut ReplyBuf)) -> String {
        let mut reply = ReplyBuf::new(false);
        write(&mut reply);
        let text = String::from_utf8(reply.take_bytes()).expect("text");
        let mut words = Vec::new();
        for line in text.split("\r\n").filter(|line| !line.starts_with('$')) {
            let name = line.len() == 40;
            words.push(if name { &line[..1] } else { line });
        }
        words.join(" ").trim_end().to_string()
    }

    #[test]
    fn slots_are_listed_with_replicas_that_have_data() {
        let mut cluster = cluster();
        let slots = |cluster: &Cluster, asker| text(|reply| cluster.reply_slots(&asker, reply));
        let expected = "*3 *3 :0 :1 *4 10.0.0.1 :7000 a *0 \
             *3 :2 :2 *4 10.0.0.2 :7000 b *2 hostname host *3 :5 :5 *4 10.0.0.1 :7000 a *0";
        assert_eq!(slots(&cluster, ASKER), expected);
        replica(&mut cluster).offset = 9;
        let with_tls = Asker { tls: true, ..ASKER };
        let first = "*3 *4 :0 :1 *4 10.0.0.1 :7443 a *0 *4 10.0.0.3 :7443 c *0";
        assert!(slots(&cluster, with_tls).starts_with(first));
        replica(&mut cluster).flags |= flag::FAIL;
        assert_eq!(slots(&cluster, ASKER), expected);
    }

    /// The order in which a node learns of other nodes does not change its replies.
    #[test]
    fn replicas_are_listed_by_their_names() {
        let mut cluster = cluster();
        replica(&mut cluster).offset = 9;
        let mut earlier = replica(&mut cluster).clone();
        earlier.name = Name::parse(&[b'1'; 40]).expect("a name");
        cluster.nodes.add(earlier).expect("a node");
        let slots = text(|reply| cluster.reply_slots(&ASKER, reply));
        let first = "*3 *5 :0 :1 *4 10.0.0.1 :7000 a *0 *4 10.0.0.3 :7000 1 *0 *4 10.0.0.3 :7000 c";
        assert!(slots.starts_with(first), "{slots}");
    }

    #[test]
    fn the_endpoint_is_of_the_preferred_kind() {
        let cluster = cluster();
        let other = Name::parse(&[b'b'; 40]).expect("a name");
        let other = &cluster.nodes[cluster.nodes.find(&other).expect("the other")];
        let me = cluster.myself();
        let asker = |preferred| Asker { preferred, ..ASKER };
        for (preferred, mine, others) in [
            (Preferred::Ip, "10.0.0.1:7000", "10.0.0.2:7000"),
            (Preferred::Hostname, "?:7000", "host:7000"),
            (Preferred::UnknownEndpoint, ":7000", ":7000"),
        ] {
            assert_eq!(asker(preferred).address(me), mine);
            assert_eq!(asker(preferred).address(other), others);
        }
        let host = text(|reply| reply_node_of_slots(&asker(Preferred::Hostname), other, reply));
        assert_eq!(host, "*4 host :7000 b *2 ip 10.0.0.2");
        let unknown = asker(Preferred::UnknownEndpoint);
        let mut reply = ReplyBuf::new(false);
        reply_node_of_slots(&unknown, other, &mut reply);
        assert!(reply.take_bytes().starts_with(b"*4\r\n$-1\r\n"));
    }

    #[test]
    fn a_client_gets_the_address_of_its_kind() {
        let mut cluster = cluster();
        let me = cluster.me;
        cluster.nodes[me].texts = Some(Box::new(Texts {
            client_ipv6: Some(b"::1"[..].into()),
            client_port: 77,
            client_tls_port: 78,
            ..Texts::default()
        }));
        let me = cluster.myself();
        assert_eq!(ASKER.address(me), "10.0.0.1:77");
        let ipv6 = Asker {
            ipv6: true,
            tls: true,
            ..ASKER
        };
        assert_eq!(ipv6.address(me), "::1:78");
    }

    #[test]
    fn shards_are_listed_with_all_their_nodes() {
        let mut cluster = cluster();
        let shards = |cluster: &Cluster, words| {
            let asker = Asker { words, ..ASKER };
            text(|reply| cluster.reply_shards(&asker, reply))
        };
        let node = |name, last, host: &str, role, health| {
            let fields = 16 + 2 * usize::from(!host.is_empty());
            format!(
                " *{fields} id {name} port :7000 tls-port :7443 ip 10.0.0.{last} endpoint 10.0.0.{last}{host} \
                 role {role} replication-offset :0 health {health}"
            )
        };
        let (first, second) = (
            node("a", 1, "", "master", "online") + &node("c", 3, "", "replica", "loading"),
            node("b", 2, " hostname host", "master", "online"),
        );
        assert_eq!(
            shards(&cluster, Words::Redis),
            format!(
                "*2 *4 slots *4 :0 :1 :5 :5 nodes *2{first} *4 slots *2 :2 :2 nodes *1{second}"
            )
        );
        replica(&mut cluster).flags |= flag::FAIL;
        let text = shards(&cluster, Words::Valkey);
        assert!(
            text.contains("health fail id s *6 slots *2 :2 :2"),
            "{text}"
        );
        assert!(text.ends_with("health online id t"), "{text}");
    }
}
