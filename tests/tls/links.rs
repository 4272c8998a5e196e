//! Replication and MIGRATE by TLS: between two aeris servers, and with Redis or Valkey on either
//! side.

use crate::certificates::Certificates;
use crate::common::{Conn, Peer};
use crate::until;

fn in_sync(replica: &mut Conn) -> bool {
    replica
        .line("INFO replication")
        .contains("master_link_status:up")
}

/// Fills the primary, makes the other server its replica by TLS, and compares the data before and
/// after the link is cut.
fn replicate(primary: &Peer, primary_port: u16, replica: &Peer) {
    let (mut from, mut to) = (primary.connect(), replica.connect());
    from.line("DEBUG POPULATE 5000 key 200");
    assert_eq!(
        to.line(&format!("REPLICAOF 127.0.0.1 {primary_port}")),
        "+OK\r\n"
    );
    until("the first sync", || in_sync(&mut to));
    for n in 0..200 {
        from.cmd(&[
            b"SET".to_vec(),
            format!("later:{n}").into_bytes(),
            vec![b'v'; 20_000],
        ]);
    }
    let same = |from: &mut Conn, to: &mut Conn| {
        until("the same data", || {
            from.line("DEBUG DIGEST") == to.line("DEBUG DIGEST")
        });
    };
    same(&mut from, &mut to);
    to.line("CLIENT KILL TYPE master");
    from.line("CLIENT KILL TYPE replica");
    from.line("SET after cut");
    until("the link is back", || in_sync(&mut to));
    same(&mut from, &mut to);
}

fn settings<'a>(files: &'a Certificates, more: &[&'a str]) -> Vec<&'a str> {
    files.settings(
        &[
            &[
                "--tls-replication",
                "yes",
                "--repl-diskless-sync-delay",
                "0",
            ],
            more,
        ]
        .concat(),
    )
}

#[test]
fn a_replica_connects_by_tls_and_mutual_certificates() {
    let (files, others) = (Certificates::new(), Certificates::new());
    for diskless in ["yes", "no"] {
        let primary = Peer::aeris(&settings(&files, &["--repl-diskless-sync", diskless]));
        // The replica has a TLS port of its own, and a certificate of the primary's authority.
        let port = others.port.to_string();
        let replica = Peer::aeris(&settings(
            &files,
            &["--tls-port", &port, "--repl-diskless-load", "swapdb"],
        ));
        replicate(&primary, files.port, &replica);
    }
}

/// A full sync over two connections: the child that saves sends the snapshot in the TLS session of
/// the second connection.
#[test]
fn a_snapshot_has_a_channel_of_its_own() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let both = [
        "--dual-channel-replication-enabled",
        "yes",
        "--repl-diskless-sync",
        "yes",
    ];
    let primary = [&both[..], &["--logfile", "log"]].concat();
    let primary = Peer::aeris(&settings(&files, &primary));
    let port = others.port.to_string();
    let replica = [&both[..], &["--tls-port", &port]].concat();
    let replica = Peer::aeris(&settings(&files, &replica));
    replicate(&primary, files.port, &replica);
    let log = log_of(&primary);
    assert!(log.contains("dedicated RDB channel"), "{log}");
    assert!(!log.contains("takes no more of the data set"), "{log}");
}

/// Replication over two connections by TLS, with Valkey as the replica and as the primary.
#[test]
fn valkey_9_1_sends_and_takes_a_snapshot_over_two_channels() {
    let both = [
        "--dual-channel-replication-enabled",
        "yes",
        "--repl-diskless-sync",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
        "--logfile",
        "log",
    ];
    for ours_is_primary in [true, false] {
        let (files, others) = (Certificates::new(), Certificates::new());
        let port = others.port.to_string();
        let first = settings(&files, &both);
        let second = settings(&files, &[&both[..], &["--tls-port", &port]].concat());
        let (ours, theirs) = match ours_is_primary {
            true => (&first, &second),
            false => (&second, &first),
        };
        let ours = Peer::aeris(ours);
        let Some(theirs) = Peer::valkey9(theirs) else {
            return;
        };
        let (primary, replica) = match ours_is_primary {
            true => (&ours, &theirs),
            false => (&theirs, &ours),
        };
        replicate(primary, files.port, replica);
        let log = log_of(primary);
        assert!(log.contains("dedicated RDB channel"), "{log}");
    }
}

#[test]
fn a_primary_that_is_not_trusted_is_not_followed() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let primary = Peer::aeris(&settings(&files, &[]));
    let replica = Peer::aeris(&settings(&others, &["--logfile", "log"]));
    let mut to = replica.connect();
    to.line(&format!("REPLICAOF 127.0.0.1 {}", files.port));
    until("the refusal", || {
        let log = std::fs::read_to_string(replica.dir().join("log")).unwrap_or_default();
        log.contains("invalid peer certificate")
    });
    assert!(!in_sync(&mut to));
    drop(primary);
}

/// Replicates by TLS from Redis or Valkey, and to Redis or Valkey.
fn with_peer(start: fn(&[&str]) -> Option<Peer>) {
    let (files, others) = (Certificates::new(), Certificates::new());
    let port = others.port.to_string();
    let second = |more: &[&'static str]| -> Vec<String> {
        let all = settings(&files, &[&["--tls-port", &port], more].concat());
        all.into_iter().map(String::from).collect()
    };
    fn words(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }
    {
        let Some(primary) = start(&settings(&files, &["--rdbcompression", "yes"])) else {
            return;
        };
        let replica = Peer::aeris(&words(&second(&[])));
        replicate(&primary, files.port, &replica);
    }
    let primary = Peer::aeris(&settings(&files, &["--rdb-version", "10"]));
    let Some(replica) = start(&words(&second(&[]))) else {
        return;
    };
    replicate(&primary, files.port, &replica);
}

#[test]
fn redis_7_0_replicates_by_tls_in_both_directions() {
    with_peer(Peer::redis);
}

#[test]
fn valkey_9_1_replicates_by_tls_in_both_directions() {
    with_peer(Peer::valkey9);
}

#[test]
fn keys_migrate_by_tls() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let first = Peer::aeris(&files.settings(&["--tls-cluster", "yes"]));
    let port = others.port.to_string();
    let second = Peer::aeris(&files.settings(&["--tls-port", &port]));
    let (mut from, mut to) = (first.connect(), second.connect());
    from.cmd(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 300_000]]);
    let before = from.cmd(&["GET", "k"]);
    assert_eq!(
        from.line(&format!("MIGRATE 127.0.0.1 {port} k 0 10000")),
        "+OK\r\n"
    );
    assert!(to.cmd(&["GET", "k"]) == before);
    assert_eq!(from.line("EXISTS k"), ":0\r\n");
    // In a transaction, MIGRATE uses a link for which the server waits.
    from.cmd(&[b"SET".to_vec(), b"m".to_vec(), vec![b'v'; 300_000]]);
    let before = from.cmd(&["GET", "m"]);
    from.line("MULTI");
    from.line(&format!("MIGRATE 127.0.0.1 {port} m 0 10000"));
    assert_eq!(from.line("EXEC"), "*1\r\n+OK\r\n");
    assert!(to.cmd(&["GET", "m"]) == before);
    assert_eq!(from.line("EXISTS m"), ":0\r\n");
    // A target that does not speak TLS does not reply to the handshake.
    let plain = second.port;
    let migrate = format!("MIGRATE 127.0.0.1 {plain} n 0 200");
    from.line("SET n v");
    from.line("MULTI");
    from.line(&migrate);
    let reply = from.line("EXEC");
    assert!(
        reply.starts_with("*1\r\n-IOERR error or timeout"),
        "{reply}"
    );
    assert_eq!(from.line("EXISTS n"), ":1\r\n");
}

/// The log of a server that was started with `--logfile log`.
fn log_of(server: &Peer) -> String {
    std::fs::read_to_string(server.dir().join("log")).unwrap_or_default()
}

/// Attaches the replica by TLS, with a snapshot that neither side writes to a disk. `skips` says
/// whether the snapshot must be sent without checksum. A snapshot has no checksum if the replica
/// loads it from the connection.
fn transfer(primary: &Peer, port: u16, replica: &Peer, skips: bool) {
    let (mut from, mut to) = (primary.connect(), replica.connect());
    from.line("SET k v");
    to.line(&format!("REPLICAOF 127.0.0.1 {port}"));
    until("the sync", || {
        in_sync(&mut to) && to.line("GET k").contains("v\r\n")
    });
    let sent = log_of(primary).contains("while skipping RDB checksum for this transfer");
    assert_eq!(sent, skips, "{}", log_of(primary));
    let received = log_of(replica).contains("disabled: skipped checksum for this transfer");
    assert_eq!(received, skips, "{}", log_of(replica));
}

#[test]
fn tls_protects_a_snapshot_so_that_it_needs_no_checksum() {
    type Start = fn(&[&str]) -> Option<Peer>;
    let ours: Start = |settings| Some(Peer::aeris(settings));
    let valkey: Start = Peer::valkey9;
    for (primary, replica) in [(ours, ours), (ours, valkey), (valkey, ours)] {
        for (sync, load, skips) in [
            ("yes", "swapdb", true),
            ("yes", "disabled", false),
            ("no", "swapdb", false),
        ] {
            let (files, others) = (Certificates::new(), Certificates::new());
            let own = [
                "--logfile",
                "log",
                "--save",
                "",
                "--repl-diskless-sync",
                sync,
            ];
            let Some(primary) = primary(&settings(&files, &own)) else {
                return;
            };
            let port = others.port.to_string();
            let own = [
                &own[..4],
                &["--tls-port", &port, "--repl-diskless-load", load],
            ]
            .concat();
            let Some(replica) = replica(&settings(&files, &own)) else {
                return;
            };
            transfer(&primary, files.port, &replica, skips);
        }
    }
}

#[test]
fn without_tls_a_snapshot_keeps_its_checksum() {
    let own = ["--logfile", "log", "--repl-diskless-sync-delay", "0"];
    let primary = Peer::aeris(&own);
    let replica = Peer::aeris(&[&own[..], &["--repl-diskless-load", "swapdb"]].concat());
    // On a connection without TLS, `REPLCONF capa skip-rdb-checksum` has no effect.
    let mut client = primary.connect();
    assert_eq!(
        client.line("REPLCONF capa eof capa skip-rdb-checksum"),
        "+OK\r\n"
    );
    assert!(client.line("PSYNC ? -1").starts_with("+FULLRESYNC"));
    transfer(&primary, primary.port, &replica, false);
}
