//! The cluster bus over TLS: two nodes of aeris, and one of aeris with one of another server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::common::{Conn, Peer, free_port, multibulk};
use crate::until;

/// A node of a cluster, with its TLS port for clients and its port of the bus.
struct Node {
    server: Peer,
    port: u16,
    bus: u16,
}

fn start(
    files: &Certificates,
    authority: &Certificates,
    start: impl FnOnce(&[&str]) -> Option<Peer>,
) -> Option<Node> {
    let bus = free_port();
    let (port, bus_text) = (files.port, bus.to_string());
    let port_text = port.to_string();
    let more = [
        "--tls-port",
        &port_text,
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_text,
        "--cluster-node-timeout",
        "3000",
        "--tls-cluster",
        "yes",
        "--tls-replication",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
        "--logfile",
        "log",
    ];
    let server = start(&authority.settings(&more))?;
    Some(Node { server, port, bus })
}

fn info_has(c: &mut Conn, text: &str) -> bool {
    c.line("cluster info").contains(text)
}

/// A primary and a replica form a cluster over TLS, and a key and a Pub/Sub message pass between
/// them.
fn form_a_cluster(first: &Node, second: &Node) {
    let (mut a, mut b) = (first.server.connect(), second.server.connect());
    assert_eq!(a.line("cluster addslotsrange 0 16383"), "+OK\r\n");
    let meet = format!("cluster meet 127.0.0.1 {} {}", first.port, first.bus);
    assert_eq!(b.line(&meet), "+OK\r\n");
    until("both nodes are up", || {
        [&mut a, &mut b]
            .into_iter()
            .all(|c| info_has(c, "cluster_state:ok\r") && info_has(c, "cluster_known_nodes:2\r"))
    });
    let nodes = b.line("cluster nodes");
    let address = format!("127.0.0.1:{}@{}", first.server.port, first.bus);
    assert!(nodes.contains(&address), "{nodes}");
    let id = a.line("cluster myid");
    let id = id.split("\r\n").nth(1).expect("a name");
    assert_eq!(b.line(&format!("cluster replicate {id}")), "+OK\r\n");
    until("the replica is in sync", || {
        b.line("info replication").contains("master_link_status:up")
    });
    assert_eq!(a.line("set k v"), "+OK\r\n");
    b.line("readonly");
    until("the key arrives", || b.line("get k") == "$1\r\nv\r\n");
    b.line("subscribe news");
    // The message is larger than a TLS record.
    let long = vec![b'x'; 100_000];
    let sent = a.cmd(&[b"publish", &b"news"[..], &long]);
    assert!(sent.starts_with(b":"), "{sent:?}");
    let got = b.reply();
    assert!(got == multibulk(&[b"message", &b"news"[..], &long]));
}

#[test]
fn two_nodes_form_a_cluster_by_tls() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let ours = |args: &[&str]| Some(Peer::aeris(args));
    let first = start(&files, &files, ours).expect("a node");
    let second = start(&others, &files, ours).expect("a node");
    form_a_cluster(&first, &second);
    // A connection without TLS is closed, and the nodes stay together.
    let mut plain = TcpStream::connect(("127.0.0.1", first.bus)).expect("the bus");
    plain
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    plain.write_all(b"RCmb\0\0\x08\xd0").expect("room");
    let mut answer = Vec::new();
    // The connection may also end in a reset.
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    assert!(info_has(
        &mut first.server.connect(),
        "cluster_known_nodes:2\r"
    ));
}

#[test]
fn a_node_that_is_not_trusted_stays_outside() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let ours = |args: &[&str]| Some(Peer::aeris(args));
    let first = start(&files, &files, ours).expect("a node");
    let second = start(&others, &others, ours).expect("a node");
    let meet = format!("cluster meet 127.0.0.1 {} {}", first.port, first.bus);
    assert_eq!(second.server.connect().line(&meet), "+OK\r\n");
    until("the refusal", || {
        let log = std::fs::read_to_string(second.server.dir().join("log"));
        log.is_ok_and(|log| log.contains("TLS connection error on the cluster bus"))
    });
    assert!(info_has(
        &mut first.server.connect(),
        "cluster_known_nodes:1\r"
    ));
}

#[test]
fn valkey_9_1_and_ours_form_a_cluster_by_tls() {
    for ours_is_primary in [true, false] {
        let (files, others) = (Certificates::new(), Certificates::new());
        let ours = start(&files, &files, |args| Some(Peer::aeris(args))).expect("a node");
        let Some(theirs) = start(&others, &files, Peer::valkey9) else {
            return;
        };
        match ours_is_primary {
            true => form_a_cluster(&ours, &theirs),
            false => form_a_cluster(&theirs, &ours),
        }
    }
}
