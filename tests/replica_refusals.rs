//! The commands that a replica refuses or redirects, and its reaction to errors in its primary's
//! stream.

mod common;

use common::Peer;
use common::group::{Group, follow, info, wait_for};

/// The number of log lines of a server that contain `text`.
fn count_lines(server: &Peer, text: &str) -> usize {
    let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
    log.lines().filter(|line| line.contains(text)).count()
}

/// Waits until the replica has applied all commands that the primary has written to the stream.
fn settle(primary: &Peer) {
    let mut c = primary.connect();
    c.line("SET settled 1");
    assert_eq!(c.line("WAIT 1 10000"), ":1\r\n");
}

fn pair(settings: &[&str]) -> (Peer, Peer) {
    let primary = Peer::aeris(&["--repl-diskless-sync-delay", "0"]);
    let replica = Peer::aeris(&[&["--logfile", "log"], settings].concat());
    follow(&replica, primary.port);
    wait_for(&primary, |info| info.contains("state=online"));
    (primary, replica)
}

#[test]
fn an_error_of_the_stream_is_logged_and_counted() {
    let (primary, replica) = pair(&[]);
    let mut c = primary.connect();
    c.line("SET text x");
    assert_eq!(c.line("DEBUG REPLICATE no-such-command a"), "+OK\r\n");
    assert_eq!(c.line("DEBUG REPLICATE LPUSH text y"), "+OK\r\n");
    settle(&primary);
    let start = "== CRITICAL == This replica is sending an error to its master: ";
    assert_eq!(count_lines(&replica, start), 2);
    let unknown = "'unknown command 'no-such-command', with args beginning with: 'a' ' after processing the command \
                   '<unknown>'";
    assert_eq!(count_lines(&replica, unknown), 1);
    let wrong = "'-WRONGTYPE Operation against a key holding the wrong kind of value' after processing the command \
                 'lpush'";
    assert_eq!(count_lines(&replica, wrong), 1);
    let stats = replica.connect().line("INFO stats");
    assert!(stats.contains("unexpected_error_replies:2\r\n"), "{stats}");
    assert!(info(&replica).contains("master_link_status:up"));
}

#[test]
fn a_failed_command_of_a_script_is_no_error_of_the_stream() {
    let (primary, replica) = pair(&[]);
    let script = "redis.call('set', 'k', 1); redis.pcall('lpush', 'k', 1); return 1";
    assert_eq!(
        primary.connect().cmd(&["EVAL", script, "1", "k"]),
        b":1\r\n"
    );
    settle(&primary);
    assert_eq!(count_lines(&replica, "CRITICAL"), 0);
}

#[test]
fn resync_replaces_a_data_set_that_may_differ() {
    let (primary, replica) = pair(&["--propagation-error-behavior", "resync"]);
    let mut c = primary.connect();
    c.line("SET k 1");
    c.line("DEBUG REPLICATE SET k 2");
    settle(&primary);
    assert_eq!(replica.connect().line("GET k"), "$1\r\n2\r\n");
    c.line("DEBUG REPLICATE LPUSH k 3");
    wait_for(&primary, |_| {
        let stats = primary.connect().line("INFO stats");
        stats.contains("sync_full:2\r\n")
    });
    wait_for(&replica, |info| info.contains("master_link_status:up"));
    assert_eq!(replica.connect().line("GET k"), "$1\r\n1\r\n");
}

#[test]
fn panic_on_replicas_ends_the_replica_only() {
    let (mut primary, mut replica) = pair(&["--propagation-error-behavior", "panic-on-replicas"]);
    primary.connect().line("DEBUG REPLICATE SET k");
    assert_ne!(replica.wait(), Some(0));
    let panicked =
        "This replica panicked sending an error to its master after processing the command 'set'";
    assert!(count_lines(&replica, panicked) > 0);
    assert!(primary.alive());
}

#[test]
fn a_writable_replica_continues_after_an_error_of_the_stream() {
    let (primary, mut replica) = pair(&[
        "--propagation-error-behavior",
        "panic",
        "--replica-read-only",
        "no",
    ]);
    assert_eq!(replica.connect().line("SET number text"), "+OK\r\n");
    assert_eq!(primary.connect().line("INCR number"), ":1\r\n");
    settle(&primary);
    assert!(replica.alive());
    assert_eq!(count_lines(&replica, "the command 'incr'"), 1);
}

#[test]
fn a_client_that_follows_redirections_gets_the_primarys_address() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let redirect = format!("-REDIRECT 127.0.0.1:{}\r\n", primary.port);
    let mut c = replica.connect();
    assert!(c.line("SET k v").starts_with("-READONLY"));
    assert_eq!(c.line("GET k"), "$-1\r\n");
    assert_eq!(c.line("CLIENT CAPA redirect"), "+OK\r\n");
    assert_eq!(c.line("SET k v"), redirect);
    assert_eq!(c.line("GET k"), redirect);
    assert_eq!(c.line("PING"), "+PONG\r\n");
    assert_eq!(c.line("READONLY"), "+OK\r\n");
    assert_eq!(c.line("GET k"), "$-1\r\n");
    assert_eq!(c.line("SET k v"), redirect);
    assert_eq!(c.line("READWRITE"), "+OK\r\n");
    assert_eq!(c.line("MULTI"), "+OK\r\n");
    assert_eq!(c.line("GET k"), redirect);
    assert!(c.line("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn demotion_redirects_or_unblocks_clients_that_wait() {
    let group = Group::new(1);
    let (primary, server) = (&group.primary, Peer::aeris(&[]));
    let redirect = format!("-REDIRECT 127.0.0.1:{}\r\n", primary.port);
    let mut follows = server.connect();
    follows.line("CLIENT CAPA redirect");
    let mut queued = server.connect();
    queued.line("CLIENT CAPA redirect");
    queued.line("MULTI");
    assert_eq!(queued.line("SET k v"), "+QUEUED\r\n");
    let mut plain = server.connect();
    for c in [&mut follows, &mut plain] {
        c.send(b"BLPOP list 0\r\n");
    }
    wait_for(&server, |_| {
        let clients = server.connect().line("INFO clients");
        clients.contains("blocked_clients:2\r\n")
    });
    follow(&server, primary.port);
    assert_eq!(follows.reply(), redirect.as_bytes());
    assert_eq!(follows.line("PING"), "+PONG\r\n");
    let unblocked = "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n";
    assert_eq!(plain.reply(), unblocked.as_bytes());
    assert!(plain.closed());
    assert_eq!(queued.line("EXEC"), redirect);
    assert_eq!(queued.line("EXEC"), "-ERR EXEC without MULTI\r\n");
}

/// Each setting makes the replica refuse a command of its own clients, but not of its primary.
#[test]
fn what_refuses_clients_does_not_refuse_the_primary() {
    let (primary, replica) = pair(&["--replica-ignore-maxmemory", "no"]);
    let mut stays = replica.connect();
    let big = vec![b'x'; 2 << 20];
    let set: [&[u8]; 3] = [b"SET", b"key", b"value"];
    let set_big: [&[u8]; 3] = [b"SET", b"big", &big];
    let refusals: [(&str, &str, [&[u8]; 3], &str); 5] = [
        ("", "", set, "-READONLY"),
        (
            "CONFIG SET replica-read-only no maxmemory 1",
            "CONFIG SET maxmemory 0",
            set,
            "-OOM",
        ),
        (
            "ACL SETUSER default -set",
            "ACL SETUSER default +set",
            set,
            "-NOPERM",
        ),
        (
            "ACL SETUSER default resetkeys",
            "ACL SETUSER default ~*",
            set,
            "-NOPERM",
        ),
        (
            "CONFIG SET proto-max-bulk-len 1mb",
            "CONFIG SET proto-max-bulk-len 512mb",
            set_big,
            "-ERR Protocol error",
        ),
    ];
    for (number, (begin, end, command, refusal)) in refusals.iter().enumerate() {
        if !begin.is_empty() {
            assert_eq!(stays.line(begin), "+OK\r\n", "{begin}");
        }
        let mut c = replica.connect();
        c.try_send(&common::multibulk(command));
        let reply = String::from_utf8_lossy(&c.reply()).into_owned();
        assert!(reply.starts_with(refusal), "{begin}: {reply}");
        let mut c = primary.connect();
        assert_eq!(c.cmd(command), b"+OK\r\n");
        c.line(&format!("SET number {number}"));
        settle(&primary);
        if !end.is_empty() {
            assert_eq!(stays.line(end), "+OK\r\n", "{end}");
        }
        let [_, key, value] = command;
        let stored = replica.connect().cmd(&[b"STRLEN", *key]);
        let length = format!(":{}\r\n", value.len());
        assert_eq!(stored, length.as_bytes(), "{begin}");
        let stored = replica.connect().line("GET number");
        assert_eq!(stored, format!("$1\r\n{number}\r\n"), "{begin}");
    }
    let stats = primary.connect().line("INFO stats");
    assert!(stats.contains("sync_full:1\r\n"), "{stats}");
    assert_eq!(count_lines(&replica, "CRITICAL"), 0);
}

/// Scripts and the replies to them on a replica whose link is down and that must then not be read.
#[test]
fn scripts_declare_what_they_may_do_on_a_stale_replica() {
    let replica = Peer::aeris(&["--replica-serve-stale-data", "no"]);
    // No server listens on port 1.
    replica.connect().line("REPLICAOF 127.0.0.1 1");
    let mut c = replica.connect();
    for (script, start) in [
        ("return 1", "-MASTERDOWN"),
        ("#!lua\nreturn 1", "-READONLY"),
        ("#!lua flags=no-writes\nreturn 1", "-MASTERDOWN"),
        ("#!lua flags=allow-stale\nreturn 1", "-READONLY"),
        ("#!lua flags=allow-stale,no-writes\nreturn 1", ":1"),
        (
            "#!lua flags=allow-stale,no-writes\nreturn redis.call('get', 'k')",
            "-ERR Can not execute the command on a stale replica",
        ),
    ] {
        let reply = String::from_utf8(c.cmd(&["EVAL", script, "0"])).expect("a text");
        assert!(reply.starts_with(start), "{script}: {reply}");
    }
    c.line("CONFIG SET replica-serve-stale-data yes");
    for (script, start) in [
        ("return redis.call('get', 'k')", "$-1"),
        ("return redis.call('set', 'k', 'v')", "-READONLY"),
        ("#!lua flags=no-writes\nreturn 1", ":1"),
    ] {
        let reply = String::from_utf8(c.cmd(&["EVAL", script, "0"])).expect("a text");
        assert!(reply.starts_with(start), "{script}: {reply}");
    }
    c.line("MULTI");
    assert_eq!(c.line("GET k"), "+QUEUED\r\n");
    let mut other = replica.connect();
    other.line("CONFIG SET replica-serve-stale-data no");
    assert!(c.line("EXEC").starts_with("-EXECABORT"));
}
