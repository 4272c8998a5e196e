//! Peers that break the protocol of replication: a primary that sends wrong lengths, offsets and
//! versions, and replicas that read nothing, acknowledge nothing, or acknowledge bytes that were
//! not sent. In each case the server logs a line and closes the link; the data set, the memory and
//! the other clients are not affected.

#[path = "bad_peers/announcements.rs"]
mod announcements;
#[path = "bad_peers/channels.rs"]
mod channels;
mod common;
#[path = "bad_peers/fake.rs"]
mod fake;
#[path = "bad_peers/snapshots.rs"]
mod snapshots;

use common::{Conn, multibulk, parse_reply};
use fake::{FakePrimary, ID, Server, cut_snapshot, snapshot, wait_for};

/// Wrong replies of a primary to PSYNC, each with a text that the replica logs.
fn bad_replies() -> Vec<(Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let after = |rest: &str| format!("+FULLRESYNC {ID} 1000\r\n{rest}").into_bytes();
    let wrong_syntax = "Master replied with wrong +FULLRESYNC syntax";
    let bad_header = "Bad protocol from MASTER, the first byte is not '$'";
    vec![
        (text("+FULLRESYNC\r\n"), wrong_syntax),
        (text("+FULLRESYNC short 1\r\n"), wrong_syntax),
        (
            format!("+FULLRESYNC {ID} -1\r\n").into_bytes(),
            wrong_syntax,
        ),
        (
            format!("+FULLRESYNC {ID} 9223372036854775807\r\n").into_bytes(),
            wrong_syntax,
        ),
        (
            format!("+FULLRESYNC {ID} 18446744073709551616\r\n").into_bytes(),
            wrong_syntax,
        ),
        (
            format!("+FULLRESYNC {} 1\r\n", "\u{1}".repeat(40)).into_bytes(),
            wrong_syntax,
        ),
        (vec![b'+'; 200_000], "Error condition on socket for SYNC"),
        (vec![0xff; 200_000], "Error condition on socket for SYNC"),
        (after("$-1\r\n"), bad_header),
        (after("$-9223372036854775808\r\n"), bad_header),
        (after("$18446744073709551616\r\n"), bad_header),
        (after("$\r\n"), bad_header),
        (after("$12x\r\n"), bad_header),
        (after("$EOF:short\r\n"), bad_header),
        (after("$EOF:\r\n"), bad_header),
        (after(&format!("$EOF:{ID}{ID}\r\n")), bad_header),
        (after("+OK\r\n"), bad_header),
        (after(&"x".repeat(100_000)), bad_header),
        (
            after("-ERR no snapshot today\r\n"),
            "MASTER aborted replication with an error: -ERR no snapshot today",
        ),
        (after("$0\r\n"), "Failed trying to load the MASTER"),
        (after("$5\r\nhello"), "Failed trying to load the MASTER"),
        (
            after(&format!("$EOF:{ID}\r\n{ID}")),
            "Failed trying to load the MASTER",
        ),
        (after("$9\r\nREDIS9999"), "Failed trying to load the MASTER"),
        (after("$9\r\nREDIS-001"), "Failed trying to load the MASTER"),
        (cut_snapshot(1), "Failed trying to load the MASTER"),
        // The data set was dropped, so from here on the replica requests a snapshot.
        (text("+CONTINUE\r\n"), "replied +CONTINUE to a request"),
        (
            format!("+CONTINUE {ID}\r\n").into_bytes(),
            "replied +CONTINUE to a request",
        ),
    ]
}

#[test]
fn a_primary_that_lies_before_its_stream_is_left() {
    let mut server = Server::new(&[]);
    for (reply, logged) in bad_replies() {
        let shown = reply[..reply.len().min(100)].escape_ascii().to_string();
        println!("{shown}");
        let from = server.log().len();
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        link.send(&reply);
        link.wait_for_end();
        server.wait_for_log(from, logged);
        server.assert_well();
        assert_eq!(server.info("master_link_status"), "down", "{shown}");
    }
    assert!(server.memory() < 200 << 20);
    // Afterwards, the replica works with a correct primary.
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    assert_eq!(link.psync[1..], ["?", "-1"]);
    link.full_resync(1000);
    link.wait_for_ack(1000);
    assert_eq!(server.line("GET from"), "$8\r\nsnapshot\r\n");
}

/// To a primary that does not know PSYNC, or refuses it, the replica sends SYNC.
#[test]
fn a_primary_without_psync_sends_a_snapshot_after_sync() {
    let mut server = Server::new(&[]);
    let refusals = [
        ("+OK", "Unexpected reply to PSYNC from master: OK"),
        ("", "Unexpected reply to PSYNC from master: "),
        (
            "HTTP/1.1 400 Bad Request",
            "Unexpected reply to PSYNC from master: HTTP/1.1",
        ),
        (
            "-NOPERM not psync",
            "Unexpected reply to PSYNC from master: -NOPERM not psync",
        ),
        (
            "-ERR unknown command",
            "Master does not support PSYNC or is in error state (reply: -ERR unknown command)",
        ),
    ];
    for (refusal, logged) in refusals {
        let from = server.log().len();
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        link.send(format!("{refusal}\r\n").as_bytes());
        assert_eq!(link.line(), "SYNC", "{refusal}");
        server.wait_for_log(from, logged);
        server.wait_for_log(from, "Retrying with SYNC...");
        let body = snapshot();
        link.send(format!("${}\r\n", body.len()).as_bytes());
        link.send(body);
        link.send(&multibulk(&["SET", "after", refusal]));
        let expected = format!("${}\r\n{refusal}\r\n", refusal.len());
        wait_for("the stream", || server.line("GET after") == expected);
        assert_eq!(server.line("GET from"), "$8\r\nsnapshot\r\n");
        assert_eq!(server.info("master_link_status"), "up");
        assert!(!link.acknowledges(), "it would not understand this");
    }
    let from = server.log().len();
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    link.send(b"-NOPERM no psync\r\n");
    assert_eq!(link.line(), "SYNC");
    link.send(b"-NOPERM no sync\r\n");
    link.wait_for_end();
    server.wait_for_log(
        from,
        "MASTER aborted replication with an error: -NOPERM no sync",
    );
    server.assert_well();
}

/// The bytes right behind the snapshot are a script that never ends: the replica still serves
/// clients.
#[test]
fn a_script_behind_the_snapshot_lets_the_loop_turn() {
    for load in ["disabled", "swapdb"] {
        let mut server =
            Server::new(&["--busy-reply-threshold", "50", "--repl-diskless-load", load]);
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        let body = snapshot();
        let head = format!("+FULLRESYNC {ID} 1000\r\n${}\r\n", body.len());
        let script = multibulk(&["EVAL", "while true do end", "0"]);
        link.send(&[head.as_bytes(), body, &script].concat());
        wait_for("the script", || server.line("PING").starts_with("-BUSY"));
        assert!(
            server.line("SCRIPT KILL").starts_with("-UNKILLABLE"),
            "{load}"
        );
        server.conn.send(&multibulk(&["SHUTDOWN", "NOSAVE"]));
        wait_for("the end", || !server.peer.alive());
    }
}

/// No key of an incomplete snapshot is left in the data set.
#[test]
fn a_snapshot_that_ends_too_early_leaves_nothing() {
    let mut server = Server::new(&[]);
    let whole = snapshot();
    for lacks in [1, 8, 9, whole.len() / 2, whole.len() - 9] {
        let from = server.log().len();
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        link.send(&cut_snapshot(lacks));
        link.wait_for_end();
        server.wait_for_log(from, "Failed trying to load the MASTER");
        assert_eq!(server.line("DBSIZE"), ":0\r\n", "{lacks} bytes are missing");
        server.assert_well();
    }
    // The connection ends within the snapshot: no key is loaded, and the data set stays.
    assert_eq!(server.line("REPLICAOF NO ONE"), "+OK\r\n");
    assert_eq!(server.line("SET mine 1"), "+OK\r\n");
    let from = server.log().len();
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    link.send(format!("+FULLRESYNC {ID} 7\r\n${}\r\n", whole.len()).as_bytes());
    link.send(&whole[..whole.len() / 2]);
    drop(link);
    server.wait_for_log(
        from,
        "I/O error trying to sync with MASTER: connection lost",
    );
    assert_eq!(server.line("DBSIZE"), ":1\r\n");
}

/// After a failed load that has dropped the old data set, a promoted server does not continue the
/// old history.
#[test]
fn a_history_ends_when_its_data_go() {
    let mut server = Server::new(DISK);
    let good = FakePrimary::new();
    let mut link = good.lead(&mut server);
    link.full_resync(1000);
    link.wait_for_ack(1000);
    drop(link);
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    assert_eq!(link.psync[1..], [ID, "1001"]);
    link.send(&cut_snapshot(1));
    link.wait_for_end();
    assert_eq!(server.line("REPLICAOF NO ONE"), "+OK\r\n");
    let mut conn = server.peer.connect();
    conn.send(&multibulk(&["PSYNC", ID, "1001"]));
    let mut replica = FakeReplica { conn };
    let reply = replica.line();
    assert!(reply.starts_with("+FULLRESYNC"), "{reply}");
}

/// A primary that creates a snapshot keeps the link alive by line feeds: one a second, not
/// thousands.
#[test]
fn endless_newlines_end_the_link() {
    let mut server = Server::new(&[]);
    let begun = format!("+FULLRESYNC {ID} 1\r\n");
    for first in ["", &*begun] {
        let from = server.log().len();
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        link.send(first.as_bytes());
        let newlines = [b'\n'; 64 * 1024];
        let mut sent = 0usize;
        while link.send(&newlines) {
            sent += newlines.len();
            assert!(sent < 1 << 30, "they are read without an end");
        }
        server.wait_for_log(from, "line feeds");
        server.assert_well();
    }
    assert!(server.memory() < 200 << 20);
}

/// Replication streams that are not valid commands, each sent after a correct snapshot.
const BAD_STREAMS: &[&[u8]] = &[
    b"*3\r\n$-5\r\n",
    b"*3\r\n$3\r\nSET\r\n$-1\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999999999\r\n",
    b"*99999999999\r\n",
    b"*2147483648\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n$4\r\nPING\r\n*x\r\n",
    b"*2\r\n*1\r\n$4\r\nPING\r\n",
    b"\"unbalanced\r\n",
];

#[test]
fn a_stream_that_is_not_of_commands_ends_the_link() {
    let mut server = Server::new(&[]);
    for stream in BAD_STREAMS {
        let shown = stream.escape_ascii().to_string();
        let from = server.log().len();
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        link.full_resync(1000);
        link.wait_for_ack(1000);
        link.send(&multibulk(&["SET", "before", &shown]));
        link.send(stream);
        link.wait_for_end();
        println!("{shown}");
        server.wait_for_log(from, "Protocol error");
        server.assert_well();
        assert_eq!(
            server.line("GET before"),
            format!("${}\r\n{shown}\r\n", shown.len())
        );
        assert!(server.memory() < 200 << 20, "{shown}: {}", server.memory());
        assert_eq!(server.line("REPLICAOF NO ONE"), "+OK\r\n");
    }
}

/// The memory for an incomplete request is limited, whatever size its header announces.
#[test]
fn promised_bytes_take_no_memory() {
    let mut server = Server::new(&[]);
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    link.full_resync(1000);
    link.wait_for_ack(1000);
    let before = server.memory();
    let input = |server: &mut Server| {
        let bytes = server.info("total_net_repl_input_bytes");
        bytes.parse::<u64>().expect("a number")
    };
    let received = input(&mut server);
    let promise = b"*1000000\r\n$3\r\nSET\r\n$536870912\r\nabc";
    link.send(promise);
    wait_for("it is read", || {
        input(&mut server) >= received + promise.len() as u64
    });
    assert!(server.memory() < before + (64 << 20));
    server.assert_well();
}

/// The commands that the test does not send, because they end the server or stop it for a time.
const NOT_SENT: [&str; 2] = ["shutdown", "debug"];

/// Arguments for the commands that the fake primary sends, most of which no primary sends.
const ARGUMENTS: &[&str] = &[
    "",
    "k",
    "1",
    "NO ONE",
    "? -1",
    "1 0",
    "k 1",
    "k 1 2",
    "ON",
    "127.0.0.1 1",
    "KILL TYPE master",
    "KILL TYPE replica",
    "KILL TYPE normal",
    "TRACKING ON",
    "PAUSE 1",
    "REPLY ON",
    "3 AUTH default x",
    "k k k k k",
    "1 k 1 2 3 4",
    "ack 99999999999999",
    "getack *",
    "0 0 0",
];

/// Whatever a primary sends, the server continues to run, and can replicate the next primary.
#[test]
fn a_primary_may_send_any_command() {
    let mut server = Server::new(&["--busy-reply-threshold", "100"]);
    let names = parse_reply(&server.conn.cmd(&["COMMAND", "LIST"])).texts();
    assert!(names.len() > 200);
    let mut link = None;
    for name in &names {
        let name = std::str::from_utf8(name).expect("a name");
        if NOT_SENT.contains(&name) || name.contains('|') {
            continue;
        }
        let mut open = link.take().unwrap_or_else(|| {
            let mut link = FakePrimary::new().lead(&mut server);
            link.full_resync(0);
            link.wait_for_ack(0);
            link
        });
        let mut bytes = Vec::new();
        for arguments in ARGUMENTS {
            let words = [name].into_iter().chain(arguments.split(' '));
            let argv: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            bytes.extend(multibulk(&argv));
            for end in ["EXEC", "UNSUBSCRIBE"] {
                bytes.extend(multibulk(&[end]));
            }
        }
        bytes.extend(multibulk(&["REPLCONF", "GETACK", "*"]));
        match open.send(&bytes) && open.acknowledges() {
            true => link = Some(open),
            false => server = server.again(name),
        }
    }
    server.assert_well();
}

/// A replica that the test implements on a connection to the server.
struct FakeReplica {
    conn: Conn,
}

impl FakeReplica {
    /// Requests a full sync and does not read the snapshot.
    fn new(server: &Server) -> FakeReplica {
        FakeReplica::with(server, &["eof", "psync2"])
    }

    fn with(server: &Server, capabilities: &[&str]) -> FakeReplica {
        let mut conn = server.peer.connect();
        for name in capabilities {
            assert_eq!(conn.line(&format!("REPLCONF capa {name}")), "+OK\r\n");
        }
        conn.send(&multibulk(&["PSYNC", "?", "-1"]));
        FakeReplica { conn }
    }

    /// Reads the snapshot, which comes from a file. Returns its offset.
    fn receive(&mut self) -> u64 {
        let full = self.line();
        let offset = full.rsplit(' ').next().expect("an offset");
        let header = self.line();
        let len: usize = header[1..].parse().expect("a length");
        self.conn.read_bytes(len);
        offset.parse().expect("an offset")
    }

    /// The next line from the primary that is not empty: empty lines keep the link alive.
    fn line(&mut self) -> String {
        loop {
            let line = self.conn.raw_line();
            if !line.trim().is_empty() {
                return line;
            }
        }
    }

    fn send(&mut self, argv: &[&str]) {
        self.conn.try_send(&multibulk(argv));
    }

    /// Reads until the server closes the link.
    fn wait_for_end(&mut self) {
        while self.conn.read_some() > 0 {}
    }
}

fn wait_until_online(server: &mut Server, count: usize) {
    wait_for("the replica is online", || {
        let info = server.line("INFO replication");
        info.matches("state=online").count() == count
    });
}

fn wait_until_alone(server: &mut Server) {
    wait_for("the replica is removed", || {
        server.info("connected_slaves") == "0"
    });
}

const DISK: &[&str] = &["--repl-diskless-sync", "no"];
/// The settings of a primary whose timeout for replicas is short.
const DISK_SHORT: &[&str] = &["--repl-diskless-sync", "no", "--repl-timeout", "2"];
const DISKLESS_SHORT: &[&str] = &["--repl-diskless-sync-delay", "0", "--repl-timeout", "2"];

/// A replica that does not read a snapshot, which is larger than all socket buffers, is closed
/// after `repl-timeout`.
#[test]
fn a_replica_that_does_not_read_its_snapshot_is_closed() {
    for settings in [DISK_SHORT, DISKLESS_SHORT] {
        let mut server = Server::new(settings);
        assert_eq!(server.line("DEBUG POPULATE 3000 key 20000"), "+OK\r\n");
        assert_eq!(server.line("CONFIG SET rdbcompression no"), "+OK\r\n");
        let _replica = FakeReplica::new(&server);
        server.wait_for_log(0, "Disconnecting timedout replica (full sync)");
        wait_until_alone(&mut server);
        wait_for("its child has ended", || {
            server.info("rdb_bgsave_in_progress") == "0"
        });
        server.assert_well();
    }
}

#[test]
fn a_replica_that_acknowledges_nothing_is_closed() {
    let mut server = Server::new(DISK_SHORT);
    let mut replica = FakeReplica::new(&server);
    replica.receive();
    wait_until_online(&mut server, 1);
    assert_eq!(server.line("SET k 1"), "+OK\r\n");
    assert_eq!(server.line("WAIT 1 100"), ":0\r\n");
    replica.wait_for_end();
    server.wait_for_log(0, "Disconnecting timedout replica (streaming sync)");
    wait_until_alone(&mut server);
}

/// A replica of a diskless sync that never reports that it has loaded the snapshot is closed.
#[test]
fn a_replica_that_never_comes_online_is_closed() {
    let mut server = Server::new(DISKLESS_SHORT);
    let mut replica = FakeReplica::new(&server);
    replica.wait_for_end();
    server.wait_for_log(0, "Disconnecting timedout replica (streaming sync)");
    wait_until_alone(&mut server);
}

/// The output for a replica that does not read is limited by `client-output-buffer-limit replica`.
#[test]
fn a_replica_that_does_not_read_its_stream_is_closed() {
    let limit = ["--client-output-buffer-limit", "replica 16mb 0 0"];
    let backlog = ["--repl-backlog-size", "1mb"];
    let disk = ["--repl-diskless-sync", "no"];
    let mut server = Server::new(&[&disk[..], &limit, &backlog].concat());
    let mut replica = FakeReplica::new(&server);
    replica.receive();
    wait_until_online(&mut server, 1);
    let before = server.memory();
    let big = "x".repeat(1 << 20);
    for _ in 0..64 {
        assert_eq!(server.line(&format!("SET k {big}")), "+OK\r\n");
    }
    server.wait_for_log(0, "output buffer limits");
    wait_until_alone(&mut server);
    assert!(server.memory() < before + (64 << 20));
    server.assert_well();
}

#[test]
fn a_replica_that_acknowledges_the_future_is_closed() {
    for ack in ["9223372036854775807", "1000000"] {
        let mut server = Server::new(DISK);
        let mut replica = FakeReplica::new(&server);
        let offset = replica.receive();
        wait_until_online(&mut server, 1);
        replica.send(&["REPLCONF", "ACK", &offset.to_string()]);
        replica.send(&["REPLCONF", "ACK", ack]);
        replica.wait_for_end();
        server.wait_for_log(0, "acknowledges offset");
        wait_until_alone(&mut server);
        assert_eq!(server.line("SET k 1"), "+OK\r\n");
        assert_eq!(server.line("WAIT 1 100"), ":0\r\n");
    }
}

/// REPLCONF ACK with an offset that is no number, or negative, acknowledges nothing.
#[test]
fn a_wrong_acknowledgement_counts_for_nothing() {
    let mut server = Server::new(DISK);
    let mut replica = FakeReplica::new(&server);
    replica.receive();
    wait_until_online(&mut server, 1);
    assert_eq!(server.line("SET k 1"), "+OK\r\n");
    for ack in [
        "-1",
        "-9223372036854775808",
        "x",
        "",
        "18446744073709551616",
    ] {
        replica.send(&["REPLCONF", "ACK", ack]);
        replica.send(&["REPLCONF", "ACK", "1", "FACK", ack]);
    }
    assert_eq!(server.line("WAIT 1 100"), ":0\r\n");
    assert_eq!(server.info("connected_slaves"), "1");
    server.assert_well();
}

#[test]
fn garbage_from_a_replica_ends_its_link() {
    let cases: [(&[u8], &str); 4] = [
        (b"*1\r\n$-7\r\n", "Replica generated a reply"),
        (&[0xff; 70_000], "Replica generated a reply"),
        (b"GET k\r\n", "Replica generated a reply"),
        (b"NOTHING\r\n", "Replica generated a reply"),
    ];
    for (bytes, logged) in cases {
        let mut server = Server::new(DISK);
        let mut replica = FakeReplica::new(&server);
        let offset = replica.receive();
        wait_until_online(&mut server, 1);
        replica.send(&["REPLCONF", "ACK", &offset.to_string()]);
        assert_eq!(server.line("SET k 1"), "+OK\r\n");
        // Waits for the first command of two words in the stream, which is SELECT: only PINGs come
        // before it.
        while replica.line() != "*2" {}
        replica.conn.try_send(bytes);
        replica.wait_for_end();
        server.wait_for_log(0, logged);
        wait_until_alone(&mut server);
        server.assert_well();
    }
}

/// Requests of replicas with arguments that are not valid get error replies.
#[test]
fn wrong_requests_are_refused() {
    let long = "a".repeat(300);
    let mut server = Server::new(DISK);
    let cases = [
        ("REPLCONF listening-port", "-ERR syntax error"),
        (
            "REPLCONF listening-port x",
            "-ERR value is not an integer or out of range",
        ),
        ("REPLCONF capa", "-ERR syntax error"),
        ("REPLCONF what 1", "-ERR Unrecognized REPLCONF option: what"),
        (
            "REPLCONF rdb-only 2",
            "-ERR value is out of range, value must between 0 and 1",
        ),
        ("REPLCONF version 1", "-ERR Unrecognized version format: 1"),
        (
            "REPLCONF version 1.2.999",
            "-ERR Unrecognized version format: 1.2.999",
        ),
        (
            "PSYNC",
            "-ERR wrong number of arguments for 'psync' command",
        ),
        (
            "PSYNC ?",
            "-ERR wrong number of arguments for 'psync' command",
        ),
        (
            "SYNC now",
            "-ERR wrong number of arguments for 'sync' command",
        ),
        (
            "PSYNC ? -1 FAILOVER",
            "-ERR PSYNC FAILOVER can't be sent to a master.",
        ),
    ];
    for (request, reply) in cases {
        assert_eq!(server.line(request), format!("{reply}\r\n"), "{request}");
    }
    let reply = server.line(&format!("REPLCONF ip-address {long}"));
    assert!(
        reply.starts_with("-ERR REPLCONF ip-address provided"),
        "{reply}"
    );
    assert_eq!(server.info("connected_slaves"), "0");
}

/// PSYNC with an id and an offset of any size gets a snapshot, an offset that is no number an
/// error, and either of them one short line in the log.
#[test]
fn any_id_and_offset_get_a_snapshot() {
    let mut server = Server::new(DISK);
    let long = "i".repeat(1 << 20);
    for (id, offset) in [
        (ID, "-9223372036854775808"),
        (ID, "9223372036854775807"),
        (&*long, "1"),
        ("a\r\n1:M forged line\nx", "12"),
        ("", "1"),
    ] {
        let mut conn = server.peer.connect();
        conn.send(&multibulk(&["PSYNC", id, offset]));
        let mut replica = FakeReplica { conn };
        replica.receive();
    }
    for (id, offset) in [
        ("?", "x"),
        ("?", "9223372036854775808"),
        ("?", "1\n1:M forged line"),
        ("", ""),
    ] {
        let mut conn = server.peer.connect();
        conn.send(&multibulk(&["PSYNC", id, offset]));
        let reply = FakeReplica { conn }.line();
        assert_eq!(reply, "-ERR value is not an integer or out of range");
    }
    let id = server.info("master_replid");
    for offset in ["9223372036854775807", "-1", "0"] {
        let mut conn = server.peer.connect();
        conn.send(&multibulk(&["PSYNC", &id, offset]));
        FakeReplica { conn }.receive();
    }
    let log = server.log();
    assert!(
        log.lines().all(|line| line.len() < 2000),
        "a line is too long"
    );
    assert!(!log.contains("\n1:M forged"));
    server.assert_well();
}

/// Hundreds of connections that request a sync and then read nothing share one child and take
/// little memory; neither other clients nor a correct replica wait for them.
#[test]
fn half_open_requests_harm_nothing_else() {
    const COUNT: usize = 300;
    for settings in [DISK_SHORT, DISKLESS_SHORT] {
        let mut server = Server::new(settings);
        assert_eq!(server.line("DEBUG POPULATE 100 key 1000"), "+OK\r\n");
        let before = server.memory();
        let idle: Vec<FakeReplica> = (0..COUNT).map(|_| FakeReplica::new(&server)).collect();
        for n in 0..500 {
            assert_eq!(server.line(&format!("SET k {n}")), "+OK\r\n");
        }
        let mut honest = Server::new(&[]);
        let reply = honest.line(&format!("REPLICAOF 127.0.0.1 {}", server.peer.port));
        assert_eq!(reply, "+OK\r\n");
        wait_for("the honest replica has the last write", || {
            honest.line("GET k") == "$3\r\n499\r\n"
        });
        assert!(server.memory() < before + (128 << 20));
        wait_for("the others are closed", || {
            server.info("connected_slaves") == "1"
        });
        drop(idle);
        assert_eq!(server.line("WAIT 1 0"), ":1\r\n");
        server.assert_well();
    }
}
