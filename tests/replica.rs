//! What clients of a replica see, and which commands a replica may send to its primary.

mod common;

use common::group::{Group, SETTINGS, info, wait_for};
use common::{Conn, Peer};

fn field(info: &str, name: &str) -> u64 {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|v| v.parse().ok()).expect(name)
}

/// During CLIENT PAUSE WRITE on a replica its data set must not change, so the primary's stream
/// waits, too.
#[test]
fn a_pause_holds_the_primarys_stream() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let mut writer = primary.connect();
    writer.line("SET k 1");
    let before = field(&info(primary), "master_repl_offset");
    wait_for(replica, |info| field(info, "slave_repl_offset") >= before);
    let mut reader = replica.connect();
    assert_eq!(reader.line("CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
    let applied = field(&info(replica), "slave_repl_offset");
    // The primary sends a small command, a command with a large argument, and a command behind it.
    writer.line("SET k 2");
    let long = "v".repeat(300_000);
    writer.line(&format!("SET long {long}"));
    writer.line("SET after 1");
    let end = field(&info(primary), "master_repl_offset");
    let received = |info: &str| field(info, "slave_read_repl_offset") >= end;
    wait_for(replica, received);
    assert_eq!(field(&info(replica), "slave_repl_offset"), applied);
    assert_eq!(reader.line("GET k"), "$1\r\n1\r\n");
    assert_eq!(reader.line("CLIENT UNPAUSE"), "+OK\r\n");
    wait_for(replica, |info| field(info, "slave_repl_offset") >= end);
    assert_eq!(reader.line("MGET k after"), "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
    assert_eq!(reader.line("STRLEN long"), ":300000\r\n");
    writer.line("INCR k");
    assert!(info(replica).contains("master_link_status:up"));
    assert!(info(primary).contains("connected_slaves:1"));
    assert_eq!(writer.line("WAIT 1 0"), ":1\r\n");
    assert_eq!(reader.line("GET k"), "$1\r\n3\r\n");
}

/// CLIENT PAUSE begins while the replica receives a large argument of its primary's stream.
#[test]
fn a_pause_within_a_large_argument() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let mut reader = replica.connect();
    let long = "v".repeat(40_000_000);
    let mut writer = primary.connect();
    let applied = field(&info(replica), "slave_repl_offset");
    writer.line(&format!("SET long {long}"));
    assert_eq!(reader.line("CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
    writer.line("SET after 1");
    let end = field(&info(primary), "master_repl_offset");
    assert_eq!(reader.line("EXISTS after"), ":0\r\n");
    assert!(applied < end);
    assert_eq!(reader.line("CLIENT UNPAUSE"), "+OK\r\n");
    wait_for(replica, |info| field(info, "slave_repl_offset") >= end);
    assert_eq!(reader.line("EXISTS after long"), ":2\r\n");
}

/// EXEC is refused on a stale replica, because the commands that were queued before the link broke
/// would read data that may be out of date. The error has Redis's text or Valkey's.
#[test]
fn a_transaction_on_a_stale_replica_is_aborted() {
    for words in ["yes", "no"] {
        let server = Peer::aeris(
            &[
                SETTINGS,
                &[
                    "--replica-serve-stale-data",
                    "no",
                    "--extended-redis-compatibility",
                    words,
                ],
            ]
            .concat(),
        );
        let mut conn = server.connect();
        let stale = "-EXECABORT Transaction discarded because of: MASTERDOWN Link with MASTER is down and \
                 replica-serve-stale-data is set to 'no'.\r\n";
        let become_stale =
            |conn: &mut Conn| assert_eq!(conn.line("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
        for command in ["GET k", "PING"] {
            assert_eq!(conn.line("MULTI"), "+OK\r\n");
            assert_eq!(conn.line(command), "+QUEUED\r\n");
            become_stale(&mut server.connect());
            assert_eq!(conn.line("EXEC"), stale, "{command}");
            assert_eq!(conn.line("REPLICAOF NO ONE"), "+OK\r\n");
        }
        become_stale(&mut server.connect());
        assert_eq!(conn.line("MULTI"), "+OK\r\n");
        assert_eq!(server.connect().line("REPLICAOF NO ONE"), "+OK\r\n");
        assert_eq!(conn.line("GET k"), "+QUEUED\r\n");
        assert_eq!(conn.line("EXEC"), "*1\r\n$-1\r\n");
    }
}

/// While expired keys are not deleted, as in a pause of writes, RANDOMKEY returns an expired key
/// rather than none.
#[test]
fn a_random_key_may_be_an_expired_one_where_it_stays() {
    let server = Peer::aeris(SETTINGS);
    let mut conn = server.connect();
    conn.line("DEBUG SET-ACTIVE-EXPIRE 0");
    conn.line("CLIENT PAUSE 1000000 WRITE");
    let mut other = server.connect();
    assert_eq!(other.line("RANDOMKEY"), "$-1\r\n");
    conn.line("CLIENT UNPAUSE");
    conn.line("SET key value PXAT 1");
    assert_eq!(conn.line("RANDOMKEY"), "$-1\r\n");
    conn.line("SET key value PX 1");
    conn.line("CLIENT PAUSE 1000000 WRITE");
    while other.line("PTTL key") != ":-2\r\n" {}
    assert_eq!(other.line("RANDOMKEY"), "$3\r\nkey\r\n");
    conn.line("CLIENT UNPAUSE");
    assert_eq!(other.line("RANDOMKEY"), "$-1\r\n");
}

/// The connection to a replica carries the replication stream: a reply on it would become a part of
/// the stream.
#[test]
fn a_replica_that_sends_a_command_with_a_reply_is_closed() {
    let server = Peer::aeris(SETTINGS);
    for command in ["PING", "GET k", "XINFO HELP", "MULTI", "NOSUCH"] {
        let mut replica = server.connect();
        replica.send(b"SYNC\r\n");
        wait_for(&server, |info| info.contains("connected_slaves:1"));
        replica.send(format!("{command}\r\n").as_bytes());
        wait_for(&server, |info| info.contains("connected_slaves:0"));
    }
    let mut replica = server.connect();
    replica.send(b"PSYNC ? -1\r\nREPLCONF ACK 0\r\n");
    assert!(replica.raw_line().starts_with("+FULLRESYNC "));
    wait_for(&server, |info| info.contains("state=online"));
}

#[test]
fn an_offset_that_is_no_number_is_refused() {
    let server = Peer::aeris(SETTINGS);
    let mut conn = server.connect();
    let refused = "-ERR value is not an integer or out of range\r\n";
    assert_eq!(conn.line("PSYNC replicationid offset_str"), refused);
    assert_eq!(conn.line("PSYNC ? x"), refused);
    assert_eq!(conn.line("PING"), "+PONG\r\n");
}

/// The child that saves a snapshot for replicas is ended when all of them have left, unless `save`
/// has save points, for which the file is of use.
#[test]
fn a_child_whose_replicas_have_left_is_ended() {
    for (save, goes_on) in [("", false), ("900 1", true)] {
        let settings = [
            "--repl-diskless-sync",
            "no",
            "--rdb-key-save-delay",
            "1000000",
        ];
        let server = Peer::aeris(&[&settings[..], &["--save", save]].concat());
        let mut conn = server.connect();
        for i in 0..100 {
            conn.line(&format!("SET {i} v"));
        }
        let saves = |conn: &mut Conn| {
            conn.line("INFO persistence")
                .contains("rdb_bgsave_in_progress:1")
        };
        let mut replicas: Vec<Conn> = (0..2).map(|_| server.connect()).collect();
        for replica in &mut replicas {
            replica.send(b"PSYNC ? -1\r\n");
            assert!(replica.raw_line().starts_with("+FULLRESYNC "));
        }
        replicas.pop();
        wait_for(&server, |info| info.contains("connected_slaves:1"));
        assert!(saves(&mut conn));
        replicas.pop();
        wait_for(&server, |info| info.contains("connected_slaves:0"));
        if goes_on {
            assert!(saves(&mut conn));
        } else {
            while saves(&mut conn) {}
        }
        assert_eq!(conn.line("PING"), "+PONG\r\n");
    }
}

/// A snapshot through a pipe is as fast as the slowest replica; only this replica is closed for it.
#[test]
fn a_replica_that_waits_for_a_slower_one_is_not_dropped() {
    let settings = ["--repl-diskless-sync", "yes", "--rdbcompression", "no"];
    let server = Peer::aeris(
        &[
            &settings[..],
            SETTINGS,
            &["--repl-diskless-sync-max-replicas", "2"],
        ]
        .concat(),
    );
    let mut conn = server.connect();
    assert_eq!(conn.line("DEBUG POPULATE 3000 key 10000"), "+OK\r\n");
    assert_eq!(
        conn.line("CONFIG SET repl-diskless-sync-delay 1000 repl-timeout 1"),
        "+OK\r\n"
    );
    let [mut fast, _slow] = [0, 1].map(|_| {
        let mut replica = server.connect();
        assert_eq!(replica.line("REPLCONF capa eof"), "+OK\r\n");
        replica.send(b"PSYNC ? -1\r\n");
        replica
    });
    let mut received = 0;
    while received < 30_000_000 {
        let some = fast.read_some();
        assert!(some > 0, "closed after {received} bytes");
        received += some;
    }
    wait_for(&server, |info| info.contains("connected_slaves:1"));
}
