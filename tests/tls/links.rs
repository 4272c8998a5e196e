//! Replication and MIGRATE by TLS: between two of ours, and with the real servers on either side.

use crate::certificates::Certificates;
use crate::common::{Conn, Peer};
use crate::until;

fn in_sync(replica: &mut Conn) -> bool {
    replica
        .line("INFO replication")
        .contains("master_link_status:up")
}

/// Fills the primary, attaches the replica by TLS, and compares the data before and after a cut.
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
        // The replica has its own port, and the primary's authority.
        let port = others.port.to_string();
        let replica = Peer::aeris(&settings(
            &files,
            &["--tls-port", &port, "--repl-diskless-load", "swapdb"],
        ));
        replicate(&primary, files.port, &replica);
    }
}

#[test]
fn a_channel_of_its_own_for_the_snapshot_is_not_used_with_tls() {
    let (files, others) = (Certificates::new(), Certificates::new());
    let both = [
        "--dual-channel-replication-enabled",
        "yes",
        "--repl-diskless-sync",
        "yes",
    ];
    let primary = Peer::aeris(&settings(&files, &both));
    let port = others.port.to_string();
    let replica = Peer::aeris(&settings(
        &files,
        &[&both[..], &["--tls-port", &port]].concat(),
    ));
    replicate(&primary, files.port, &replica);
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

/// Both directions with a real server.
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
    // In a transaction, by a link that the server waits for.
    from.cmd(&[b"SET".to_vec(), b"m".to_vec(), vec![b'v'; 300_000]]);
    let before = from.cmd(&["GET", "m"]);
    from.line("MULTI");
    from.line(&format!("MIGRATE 127.0.0.1 {port} m 0 10000"));
    assert_eq!(from.line("EXEC"), "*1\r\n+OK\r\n");
    assert!(to.cmd(&["GET", "m"]) == before);
    assert_eq!(from.line("EXISTS m"), ":0\r\n");
    // A target without TLS does not answer a handshake.
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
