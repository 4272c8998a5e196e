//! Wrong values that replicas announce by REPLCONF, and wrong replies of a primary.

use crate::common::{Conn, free_port};
use crate::fake::{FakePrimary, Server};
use crate::{DISK, FakeReplica, wait_until_online};

/// The first nine bytes of the snapshot, `REDIS` and the version, for a replica that sends
/// `announcement`.
fn magic(server: &Server, announcement: &str) -> String {
    let mut conn = server.peer.connect();
    assert_eq!(conn.line(announcement), "+OK\r\n");
    conn.send(b"PSYNC ? -1\r\n");
    let mut replica = FakeReplica { conn };
    while !replica.line().starts_with('$') {}
    let bytes = replica.conn.read_bytes(9);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A replica that is an aeris announces by `capa rdb<version>` the RDB version that it reads. For a
/// version below or above all versions that exist, the server writes one that exists.
#[test]
fn a_version_that_is_none_is_not_written() {
    let server = Server::new(DISK);
    for (version, expected) in [
        ("10", "REDIS0010"),
        ("12", "REDIS0012"),
        ("13", "REDIS0012"),
        ("80", "REDIS0012"),
        ("4294967295", "REDIS0012"),
        ("9", "REDIS0010"),
        ("0", "REDIS0010"),
        ("-1", "REDIS0010"),
        ("99999999999999999999", "REDIS0010"),
        ("x", "REDIS0010"),
    ] {
        let announcement = format!("REPLCONF capa eof capa rdb{version}");
        assert_eq!(magic(&server, &announcement), expected, "rdb{version}");
    }
}

/// INFO and ROLE show the address that a replica announces: the address must not end its field or
/// its line.
#[test]
fn an_address_can_not_forge_a_line() {
    let mut server = Server::new(DISK);
    for address in [
        "1.1.1.1\r\nrole:slave",
        "1.1.1.1,state=online",
        "a b",
        "a\0",
        "\u{e4}",
    ] {
        let reply = server.conn.cmd(&["REPLCONF", "ip-address", address]);
        assert_eq!(
            reply, b"-ERR Invalid REPLCONF ip-address\r\n",
            "{address:?}"
        );
    }
    for address in ["::1", "fe80::1%eth0", "db-1.example.com", "10.0.0.1"] {
        assert_eq!(
            server.line(&format!("REPLCONF ip-address {address}")),
            "+OK\r\n"
        );
    }
    for port in ["99999999999", "-9223372036854775808"] {
        let reply = server.line(&format!("REPLCONF listening-port {port}"));
        assert_eq!(reply, "-ERR value is not an integer or out of range\r\n");
    }
}

/// A replica that sends PSYNC many times at once gets one snapshot.
#[test]
fn a_replica_gets_one_snapshot() {
    let mut server = Server::new(DISK);
    let mut conn = server.peer.connect();
    conn.send(&b"PSYNC ? -1\r\n".repeat(50));
    let mut replica = FakeReplica { conn };
    replica.receive();
    wait_until_online(&mut server, 1);
    assert_eq!(server.info("sync_full"), "1");
    server.assert_well();
}

/// A second connection for a snapshot is refused if its REPLCONF names a client that is not the
/// main link of a sync, or one that has a second connection already.
#[test]
fn a_second_connection_needs_a_first() {
    let settings = ["--repl-diskless-sync-delay", "0"];
    let mut server = Server::new(&settings);
    let own = server.line("CLIENT ID");
    for id in [
        own.trim_start_matches(':').trim_end(),
        "0",
        "-1",
        "18446744073709551616",
    ] {
        for option in ["main-ch-client-id", "set-rdb-client-id"] {
            let mut conn: Conn = server.peer.connect();
            let reply = conn.line(&format!("REPLCONF {option} {id}"));
            assert!(reply.starts_with("-ERR "), "{option} {id}: {reply}");
        }
    }
    let mut main = server.peer.connect();
    main.line("REPLCONF capa eof capa rdb-channel-repl");
    let reply = main.line("PSYNC ? -1");
    let id = reply.trim_end().rsplit(' ').next().expect("an id");
    let announcement = format!("REPLCONF capa eof rdb-only 1 rdb-channel 1 main-ch-client-id {id}");
    let begin = |second: &mut Conn| {
        assert_eq!(second.line(&announcement), "+OK\r\n");
        second.try_line("PSYNC ? -1")
    };
    let [mut first, mut other] = [server.peer.connect(), server.peer.connect()];
    let reply = begin(&mut first).expect("a reply");
    assert!(reply.starts_with("+FULLRESYNC"), "{reply}");
    assert_eq!(begin(&mut other), None, "there is one already");
    server.assert_well();
}

/// Replies that are larger, or more deeply nested, than any reply of a primary end the link.
#[test]
fn a_reply_without_an_end_ends_the_link() {
    let mut server = Server::new(&[]);
    let deep = b"*1\r\n".repeat(100_000);
    let replies: [(&[u8], &str); 3] = [
        (b"$536870912\r\nabc", "too long a reply"),
        (&deep, "nested too deep"),
        (b"*1000000000\r\n", "Error condition on socket for SYNC"),
    ];
    for (reply, logged) in replies {
        let from = server.log().len();
        let primary = FakePrimary::new();
        let line = format!("REPLICAOF 127.0.0.1 {}", primary.port());
        assert_eq!(server.line(&line), "+OK\r\n");
        let mut link = primary.accept_with(reply);
        link.wait_for_end();
        server.wait_for_log(from, logged);
        server.assert_well();
    }
    assert!(server.memory() < 200 << 20);
}

/// `REPLCONF set-cluster-node-id` must name a known node of the cluster, as in Valkey.
#[test]
fn a_replica_names_a_node_of_the_cluster() {
    let announce = |server: &mut Server, name: &str| {
        let reply = server.conn.cmd(&["REPLCONF", "set-cluster-node-id", name]);
        String::from_utf8_lossy(&reply).into_owned()
    };
    let mut alone = Server::new(&[]);
    let reply = announce(&mut alone, "x");
    assert_eq!(reply, "-ERR This instance has cluster support disabled\r\n");
    let bus = free_port().to_string();
    let mut node = Server::new(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let own = node.line("CLUSTER MYID");
    let own = own.split("\r\n").nth(1).expect("a name").to_string();
    assert_eq!(announce(&mut node, &own), "+OK\r\n");
    for name in ["x", "", &"a".repeat(40)] {
        let reply = announce(&mut node, name);
        assert_eq!(reply, format!("-ERR Unknown node {name}\r\n"));
    }
}
