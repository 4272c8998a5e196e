//! The state machine of `aeris::cluster` on real sockets, in clusters of Redis and Valkey servers.
//!
//! A node of aeris meets three primaries, becomes a replica of one, and is elected by the other two
//! when its primary is killed. The killed server comes back as a replica of the node, which votes
//! for this server in the next election. What the other servers know of the node is read with
//! CLUSTER NODES.
//!
//! The node replicates no data: the test is about the cluster bus.

mod common;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aeris::cluster::Cluster;
use aeris::cluster::event::{Action, Address, Event, LinkId, Now, Replication, Settings, Wire};
use aeris::cluster::name::{Ip, Name};
use aeris::cluster::packet::{Message, frame_len};
use aeris::util::random::Random;
use common::{Peer, Reply, free_port, parse_reply};

const TIMEOUT_MS: u64 = 2000;
const SLOTS: usize = 16_384;

/// A node of a cluster, with its sockets on the cluster bus.
struct Node {
    cluster: Cluster,
    listener: TcpListener,
    streams: HashMap<LinkId, (TcpStream, Vec<u8>)>,
    began: Instant,
    log: Vec<String>,
}

fn local() -> Ip {
    Ip::parse(b"127.0.0.1").expect("an address")
}

impl Node {
    fn new() -> Node {
        let bus_port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", bus_port)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let mut settings = Settings {
            node_timeout_ms: TIMEOUT_MS,
            ..Settings::default()
        };
        settings.announced = Address {
            ip: Ip::default(),
            tcp_port: free_port(),
            tls_port: 0,
            bus_port,
        };
        settings.texts.host_name = Some(Box::from(&b"ours.example.org"[..]));
        let began = Instant::now();
        Node {
            cluster: Cluster::new(
                now(began),
                settings,
                Random::from_seed(Random::system_seed()),
            ),
            listener,
            streams: HashMap::new(),
            began,
            log: Vec::new(),
        }
    }

    fn name(&self) -> String {
        self.cluster.myself().name.to_string()
    }

    fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        self.cluster.step(now(self.began), event, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Wire(Wire::Connect { link, ip, port }) => {
                    let ip: IpAddr = ip.as_str().parse().expect("an address");
                    let address = SocketAddr::new(ip, port);
                    match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                        Ok(stream) => {
                            stream.set_nonblocking(true).expect("a socket");
                            self.streams.insert(link, (stream, Vec::new()));
                            self.step(Event::Connected(link));
                        }
                        Err(_) => self.step(Event::Closed(link)),
                    }
                }
                Action::Wire(Wire::Send { link, message }) => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    // Packets are small against the send buffer of a socket, so the write does not
                    // block; the next read reports an error.
                    if let Some((stream, _)) = self.streams.get_mut(&link) {
                        let _ = stream.write_all(&bytes);
                    }
                }
                Action::Wire(Wire::Close(link)) => drop(self.streams.remove(&link)),
                Action::Save { token, .. } => self.step(Event::Saved(token)),
                Action::Log(_, text) => self.log.push(text),
                _ => {}
            }
        }
    }

    /// One iteration of the node's event loop: accepts, reads, and does what is due.
    fn turn(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a socket");
            let link = self.cluster.new_link();
            self.streams.insert(link, (stream, Vec::new()));
            self.step(Event::Accepted(link));
        }
        let links: Vec<LinkId> = self.streams.keys().copied().collect();
        for link in links {
            self.read(link);
        }
        if now(self.began).ms >= self.cluster.deadline() {
            let heard_ms = now(self.began).ms;
            self.step(Event::Replication(Replication {
                offset: 1,
                connected: true,
                heard_ms,
            }));
            self.step(Event::Tick);
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    fn read(&mut self, link: LinkId) {
        let Some((stream, input)) = self.streams.get_mut(&link) else {
            return;
        };
        let mut piece = [0; 16_384];
        let ended = match stream.read(&mut piece) {
            Ok(0) => true,
            Ok(len) => {
                input.extend_from_slice(&piece[..len]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        let mut input = std::mem::take(input);
        while let Some(len) = frame_len(&input).expect("a packet of a real server") {
            if input.len() < len {
                break;
            }
            let message = Message::parse(&input[..len]).expect("a packet of a real server");
            input.drain(..len);
            self.step(Event::Packet {
                link,
                peer: local(),
                local: local(),
                message: &message,
            });
        }
        match self.streams.get_mut(&link) {
            Some((_, rest)) if !ended => *rest = input,
            Some(_) => {
                self.streams.remove(&link);
                self.step(Event::Closed(link));
            }
            None => {}
        }
    }

    /// Runs the node's event loop until `condition` is true.
    fn until(&mut self, what: &str, condition: impl Fn(&Node) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            if start.elapsed() > Duration::from_secs(60) {
                panic!("no {what}: {:#?}", self.log);
            }
            for _ in 0..10 {
                self.turn();
            }
        }
    }
}

fn now(began: Instant) -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    Now {
        ms: began.elapsed().as_millis() as u64 + 1,
        wall_ms: wall.as_millis() as u64,
    }
}

fn text(server: &Peer, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match parse_reply(&server.connect().cmd(&words)) {
        Reply::Bulk(bytes) | Reply::Line(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

/// The words of a node's line in CLUSTER NODES, from the flags on.
fn line(server: &Peer, name: &str) -> String {
    let nodes = text(server, "CLUSTER NODES");
    let found = nodes.lines().find(|line| line.starts_with(name));
    let words = found.unwrap_or("").splitn(3, ' ').nth(2);
    words.unwrap_or("").to_string()
}

fn is_up(server: &Peer) -> bool {
    text(server, "CLUSTER INFO").contains("cluster_state:ok")
}

/// Starts three primaries of Redis or Valkey with a third of the slots each.
fn servers(start: fn(&[&str]) -> Option<Peer>) -> Option<Vec<Peer>> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let (bus, timeout) = (free_port().to_string(), TIMEOUT_MS.to_string());
        servers.push(start(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            &timeout,
            "--repl-diskless-sync-delay",
            "0",
            // Redis 7.0 shows that it reads extensions of pings by sending some, such as its host
            // name.
            "--cluster-announce-hostname",
            "theirs.example.org",
        ])?);
    }
    for (at, server) in servers.iter().enumerate() {
        let (first, end) = (at * SLOTS / 3, (at + 1) * SLOTS / 3);
        text(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
        let added = text(
            server,
            &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1),
        );
        assert!(added.contains("OK"), "{added}");
    }
    Some(servers)
}

/// Runs the whole story of this file's header, with servers of one version.
fn story(start: fn(&[&str]) -> Option<Peer>) {
    let Some(mut servers) = servers(start) else {
        return;
    };
    let mut node = Node::new();
    let ours = node.name();
    let names: Vec<String> = servers
        .iter()
        .map(|server| text(server, "CLUSTER MYID"))
        .collect();
    for server in &servers {
        let line = text(server, "CLUSTER NODES");
        let bus_port = line
            .split(['@', ',', ' '])
            .nth(2)
            .and_then(|port| port.parse().ok());
        let address = Address {
            ip: local(),
            tcp_port: server.port,
            tls_port: 0,
            bus_port: bus_port.expect("a port of the bus"),
        };
        let mut out = Vec::new();
        assert!(node.cluster.meet(now(node.began), address, &mut out));
        node.perform(out);
    }
    node.until("joined cluster", |node| {
        let all_know = servers.iter().all(|server| {
            let known = |name: &String| line(server, name).contains(" connected");
            names.iter().all(known) && line(server, &ours).contains(" connected") && is_up(server)
        });
        all_know && node.cluster.is_up() && node.cluster.nodes().count() == 4
    });
    assert!(line(&servers[1], &ours).starts_with("master"));
    assert!(text(&servers[1], "CLUSTER NODES").contains("ours.example.org"));

    // The node becomes a replica of the first server, which is killed; the other two elect the
    // node.
    let primary = Name::parse(names[0].as_bytes()).expect("a name");
    let mut out = Vec::new();
    let clock = now(node.began);
    node.cluster
        .replicate(clock, &primary, true, &mut out)
        .expect("an empty node");
    node.perform(out);
    let follows = format!("slave {} ", names[0]);
    node.until("replica of the first", |_| {
        servers
            .iter()
            .all(|server| line(server, &ours).starts_with(&follows))
    });
    servers[0].kill();
    node.until("election", |node| {
        let owns = |server: &Peer| line(server, &ours).ends_with(" 0-5460") && is_up(server);
        node.cluster.myself().is_voter() && owns(&servers[1]) && owns(&servers[2])
    });

    // The killed server is started again and becomes a replica of this node.
    servers[0].start_again(&[]);
    let follows = format!("slave {ours} ");
    node.until("return of the first", |node| {
        let back = node.cluster.nodes().find(&primary);
        let back = back.map(|back| &node.cluster.nodes()[back]);
        let seen = back.is_some_and(|back| back.replica_of.is_some() && back.connected);
        let says = line(&servers[0], &names[0]);
        seen && says.contains(&format!("slave {ours}"))
            && line(&servers[1], &names[0]).starts_with(&follows)
    });

    // The first server becomes a replica of the second, which is killed. One vote for the first
    // server comes from this node.
    text(&servers[0], &format!("CLUSTER REPLICATE {}", names[1]));
    let follows = format!("slave {} ", names[1]);
    node.until("full sync of the first from the second", |_| {
        let synced = text(&servers[0], "INFO replication").contains("master_link_status:up");
        synced
            && servers
                .iter()
                .all(|server| line(server, &names[0]).contains(&follows))
    });
    servers[1].kill();
    node.until("second election", |node| {
        let winner = node.cluster.nodes().find(&primary);
        let owns = winner.is_some_and(|winner| node.cluster.nodes()[winner].slot_count == 5461);
        owns && line(&servers[2], &names[0]).ends_with(" 5461-10921") && node.cluster.is_up()
    });
    assert!(node.cluster.last_vote_epoch() > 0);
}

#[test]
fn in_a_cluster_of_redis_7_0() {
    story(Peer::redis);
}

#[test]
fn in_a_cluster_of_redis_8_2() {
    story(Peer::redis8);
}

#[test]
fn in_a_cluster_of_valkey_8_0() {
    story(Peer::valkey);
}

#[test]
fn in_a_cluster_of_valkey_9_1() {
    story(Peer::valkey9);
}
