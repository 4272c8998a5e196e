//! FAILOVER: a primary hands its role over to a replica, and no acknowledged write is lost.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use common::group::{Group, SETTINGS, Stopped, follow, info, wait_for};
use common::{Conn, Peer, multibulk};

fn is_over(info: &str) -> bool {
    info.contains("master_failover_state:no-failover")
}

#[test]
fn the_role_moves_and_no_write_is_lost() {
    let group = Group::new(2);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let mut writer = primary.connect();
    for i in 0..500 {
        assert_eq!(
            writer.line(&format!("RPUSH list {i}")),
            format!(":{}\r\n", i + 1)
        );
    }
    let command = format!("FAILOVER TO 127.0.0.1 {}", replica.port);
    assert_eq!(primary.connect().line(&command), "+OK\r\n");
    wait_for(replica, |info| info.contains("role:master"));
    wait_for(primary, |info| {
        is_over(info) && info.contains("role:slave") && info.contains("master_link_status:up")
    });
    assert_eq!(replica.connect().line("LLEN list"), ":500\r\n");
    // The old primary and the other replica continue by a partial resync.
    follow(&group.replicas[1], replica.port);
    let stats = replica.connect().line("INFO stats");
    assert!(stats.contains("sync_partial_ok:2\r\n"), "{stats}");
    assert!(stats.contains("sync_full:0\r\n"), "{stats}");
    assert!(writer.line("RPUSH list 500").starts_with("-READONLY"));
}

#[test]
fn writes_wait_and_abort_lets_them_go_on() {
    let group = Group::new(1);
    let stopped = Stopped::new(&group.replicas[0]);
    let mut asks = group.primary.connect();
    asks.line("SET k 1");
    assert_eq!(asks.line("FAILOVER TIMEOUT 1000000"), "+OK\r\n");
    assert!(info(&group.primary).contains("master_failover_state:waiting-for-sync"));
    assert_eq!(asks.line("GET k"), "$1\r\n1\r\n");
    let mut writer = group.primary.connect();
    writer.send(&multibulk(&["INCR", "k"]));
    let refused = "-ERR FAILOVER already in progress.\r\n";
    assert_eq!(asks.line("FAILOVER"), refused);
    let refused = "-ERR REPLICAOF not allowed while failing over.\r\n";
    assert_eq!(asks.line("REPLICAOF NO ONE"), refused);
    let refused = "-NOMASTERLINK Can't SYNC while failing over\r\n";
    assert_eq!(group.primary.connect().line("PSYNC ? -1"), refused);
    assert!(writer.has_nothing());
    assert_eq!(asks.line("FAILOVER ABORT"), "+OK\r\n");
    assert_eq!(writer.reply(), b":2\r\n");
    assert_eq!(
        asks.line("FAILOVER ABORT"),
        "-ERR No failover in progress.\r\n"
    );
    drop(stopped);
    wait_for(&group.replicas[0], |info| info.contains("role:slave"));
}

#[test]
fn force_hands_over_at_the_deadline_and_abort_takes_the_role_back() {
    let group = Group::new(1);
    let stopped = Stopped::new(&group.replicas[0]);
    let mut asks = group.primary.connect();
    asks.line("SET k 1");
    let to = format!("FAILOVER TO 127.0.0.1 {}", group.replicas[0].port);
    assert_eq!(asks.line(&format!("{to} TIMEOUT 50 FORCE")), "+OK\r\n");
    wait_for(&group.primary, |info| {
        info.contains("failover-in-progress") && info.contains("role:slave")
    });
    assert!(asks.line("SET k 2").starts_with("-READONLY"));
    assert_eq!(asks.line("FAILOVER ABORT"), "+OK\r\n");
    assert!(info(&group.primary).contains("role:master"));
    assert_eq!(asks.line("SET k 3"), "+OK\r\n");
    drop(stopped);
    // The replica connects to the old primary again and gets only the bytes that it lacks.
    wait_for(&group.primary, |info| info.contains("state=online"));
    assert_eq!(asks.line("WAIT 1 0"), ":1\r\n");
    assert_eq!(group.replicas[0].connect().line("GET k"), "$1\r\n3\r\n");
}

#[test]
fn a_target_that_refuses_leaves_the_role_where_it_was() {
    let group = Group::new(1);
    let mut target = group.replicas[0].connect();
    assert_eq!(target.line("ACL SETUSER default -psync"), "+OK\r\n");
    let mut asks = group.primary.connect();
    assert_eq!(asks.line("FAILOVER"), "+OK\r\n");
    wait_for(&group.primary, is_over);
    assert!(info(&group.primary).contains("role:master"));
    assert!(info(&group.replicas[0]).contains("role:slave"));
    assert_eq!(asks.line("SET k 1"), "+OK\r\n");
}

#[test]
fn requests_that_cannot_be_carried_out_are_refused() {
    let group = Group::new(1);
    let (mut primary, mut replica) = (group.primary.connect(), group.replicas[0].connect());
    let port = group.replicas[0].port;
    let cases = [
        (
            "FAILOVER TO somewhere 1".into(),
            "-ERR FAILOVER target HOST and PORT is not a replica.",
        ),
        (
            "FAILOVER TO 127.0.0.1 x".into(),
            "-ERR value is not an integer or out of range",
        ),
        (
            "FAILOVER TIMEOUT 0".into(),
            "-ERR FAILOVER timeout must be greater than 0",
        ),
        (
            format!("FAILOVER TO 127.0.0.1 {port} FORCE"),
            "-ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ),
        ("FAILOVER ABORT TIMEOUT 1".into(), "-ERR syntax error"),
        (
            "PSYNC ? -1 FAILOVER".into(),
            "-ERR PSYNC FAILOVER can't be sent to a master.",
        ),
    ];
    for (command, error) in &cases {
        assert_eq!(primary.line(command), format!("{error}\r\n"), "{command}");
    }
    let refused = "-ERR FAILOVER is not valid when server is a replica.\r\n";
    assert_eq!(replica.line("FAILOVER"), refused);
    let refused = "-ERR PSYNC FAILOVER replid must match my replid.\r\n";
    assert_eq!(replica.line("PSYNC 0 1 FAILOVER"), refused);
}

/// The target of a failover, implemented by the test.
struct FakeTarget {
    listener: TcpListener,
    /// The target's connection to the primary as its replica, which must stay open.
    replica: Conn,
    id: String,
}

impl FakeTarget {
    /// Follows the primary as a replica.
    fn new(primary: &Peer) -> FakeTarget {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut replica = primary.connect();
        replica.line(&format!("REPLCONF listening-port {port}"));
        replica.line("REPLCONF capa psync2");
        replica.send(&multibulk(&["PSYNC", "?", "-1"]));
        // Newlines keep the link alive until the snapshot is ready.
        let begun = loop {
            match replica.raw_line() {
                line if line.is_empty() => {}
                line => break line,
            }
        };
        let id = begun.split(' ').nth(1).expect("an id").to_string();
        wait_for(primary, |info| info.contains("state=online"));
        FakeTarget {
            listener,
            replica,
            id,
        }
    }

    /// Acknowledges the whole replication stream of the primary.
    fn acknowledge(&mut self, primary: &Peer) {
        let info = info(primary);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("master_repl_offset:"));
        let offset = line.expect("an offset");
        self.replica.send(&multibulk(&["REPLCONF", "ACK", offset]));
    }

    /// Accepts the link of the old primary, and replies to all its requests before PSYNC. Returns
    /// the link and the arguments of PSYNC.
    fn handshake(&self) -> (TcpStream, Vec<String>) {
        let (link, _) = self.listener.accept().expect("the old primary");
        let mut input = BufReader::new(link.try_clone().expect("a handle"));
        loop {
            let argv = read_command(&mut input);
            match &*argv[0] {
                "PSYNC" => return (link, argv),
                "PING" => (&link).write_all(b"+PONG\r\n").expect("a reply"),
                _ => (&link).write_all(b"+OK\r\n").expect("a reply"),
            }
        }
    }
}

fn read_command(input: &mut impl BufRead) -> Vec<String> {
    let mut line = || {
        let mut line = String::new();
        input.read_line(&mut line).expect("a line");
        line.trim_end().to_string()
    };
    let count: usize = line()[1..].parse().expect("a count");
    (0..count)
        .map(|_| {
            line();
            line()
        })
        .collect()
}

/// The target gets PSYNC with FAILOVER, and the link breaks before its reply: the target may have
/// become a primary, so the old primary must not stay one.
#[test]
fn a_lost_reply_does_not_make_two_primaries() {
    let primary = Peer::aeris(SETTINGS);
    let mut target = FakeTarget::new(&primary);
    assert_eq!(primary.connect().line("FAILOVER"), "+OK\r\n");
    target.acknowledge(&primary);
    let (link, argv) = target.handshake();
    assert_eq!((&argv[1], &*argv[3]), (&target.id, "FAILOVER"));
    drop(link);
    let (link, argv) = target.handshake();
    assert_eq!(&*argv[3], "FAILOVER");
    assert!(info(&primary).contains("role:slave"));
    let is_primary = b"-ERR PSYNC FAILOVER can't be sent to a master.\r\n";
    (&link).write_all(is_primary).expect("a reply");
    let (_link, argv) = target.handshake();
    assert_eq!(argv.len(), 3, "a plain request: {argv:?}");
    let info = info(&primary);
    assert!(info.contains("role:slave") && is_over(&info), "{info}");
}

/// A target that stops listening after PSYNC with FAILOVER did not take over.
#[test]
fn a_target_that_dies_gives_the_role_back() {
    let primary = Peer::aeris(SETTINGS);
    let mut target = FakeTarget::new(&primary);
    assert_eq!(primary.connect().line("FAILOVER"), "+OK\r\n");
    target.acknowledge(&primary);
    let (link, _) = target.handshake();
    drop(target.listener);
    drop(link);
    wait_for(&primary, |info| {
        is_over(info) && info.contains("role:master")
    });
    assert_eq!(primary.connect().line("SET k 1"), "+OK\r\n");
}
