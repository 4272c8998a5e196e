//! A disk that fails: errors of write and fsync, a full disk, writes that store only a part.
//! Afterwards the data set, the AOF and the replies are consistent; transactions and scripts are
//! complete, and no refused command has run.
//!
//! The disk is a shim (`shim/bad_disk.c`), compiled here, between the server and libc. The clients
//! increment counters: each reply says by how much a counter must have grown.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::disk::Disk;
use common::{Conn, Peer, multibulk};

/// The numbers of a client's commands that succeeded, and of those without a reply.
#[derive(Debug, Default)]
struct Told {
    succeeded: u64,
    unknown: u64,
}

/// The counters of one client, and the replies to its commands, for each of [`KINDS`]: a
/// transaction of two commands, a single command, a script of two commands.
struct Counters {
    client: usize,
    told: [Told; 3],
}

const KINDS: [(&str, &[&str]); 3] = [
    ("transaction", &["ta", "tb"]),
    ("command", &["c"]),
    ("script", &["sa", "sb"]),
];

impl Counters {
    fn key(&self, name: &str) -> String {
        format!("{name}:{}", self.client)
    }

    fn request(&self, kind: usize) -> (Vec<u8>, usize) {
        let keys: Vec<String> = KINDS[kind].1.iter().map(|name| self.key(name)).collect();
        let script = "redis.call('incr', KEYS[1]) return redis.call('incr', KEYS[2])";
        let commands: Vec<Vec<&str>> = match &keys[..] {
            [one] => vec![vec!["incr", one]],
            [a, b] if kind == 0 => vec![
                vec!["multi"],
                vec!["incr", a],
                vec!["incr", b],
                vec!["exec"],
            ],
            [a, b] => vec![vec!["eval", script, "2", a, b]],
            _ => unreachable!("one key or two"),
        };
        let bytes = commands.iter().flat_map(|argv| multibulk(argv)).collect();
        (bytes, commands.len())
    }

    /// Increments the counters until `stop` is set, or until the server has ended.
    fn run(&mut self, port: u16, stop: &AtomicBool) {
        let mut conn = Conn::new(port);
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let kind = turn % KINDS.len();
            let (bytes, replies) = self.request(kind);
            conn.try_send(&bytes);
            let last = (0..replies).map(|_| conn.try_reply()).last();
            match last.flatten() {
                None => {
                    self.told[kind].unknown += 1;
                    return;
                }
                Some(reply) if reply[0] == b'-' => {
                    let text = String::from_utf8_lossy(&reply).into_owned();
                    assert!(
                        text.contains("MISCONF") || text.contains("EXECABORT"),
                        "{text}"
                    );
                }
                Some(_) => self.told[kind].succeeded += 1,
            }
        }
    }

    /// Checks that each counter in the server is at least the number of acknowledged increments,
    /// and at most this number and that of the increments without a reply.
    fn check(&self, conn: &mut Conn) {
        for ((what, names), told) in KINDS.iter().zip(&self.told) {
            let values: Vec<u64> = names
                .iter()
                .map(|name| number(conn, &self.key(name)))
                .collect();
            assert!(
                values.iter().all(|value| *value == values[0]),
                "a {what} is torn: {values:?}"
            );
            let allowed = told.succeeded..=told.succeeded + told.unknown;
            assert!(
                allowed.contains(&values[0]),
                "{what}: {} not in {allowed:?}",
                values[0]
            );
        }
    }
}

/// The value of a counter; 0 if its key is missing. Waits while the server loads its data set.
fn number(conn: &mut Conn, key: &str) -> u64 {
    loop {
        let reply = conn.line(&format!("get {key}"));
        if reply == "$-1\r\n" {
            return 0;
        }
        if !reply.starts_with("-LOADING") {
            let digits = reply.lines().nth(1);
            return digits
                .and_then(|text| text.parse().ok())
                .expect("a counter");
        }
    }
}

const CLIENTS: usize = 4;

/// Starts the server again on a healthy disk, and checks the counters.
fn check_again(disk: &Disk, counted: &[Counters]) {
    let again = disk.healthy_server();
    let mut probe = again.connect();
    counted
        .iter()
        .for_each(|counters| counters.check(&mut probe));
}

/// Lets clients increment counters while `meanwhile` runs. Returns their counters.
fn count(port: u16, meanwhile: impl FnOnce()) -> Vec<Counters> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut counters = Counters {
                        client,
                        told: Default::default(),
                    };
                    counters.run(port, stop);
                    counters
                })
            })
            .collect();
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .collect()
    })
}

fn wait_until_set(conn: &mut Conn, succeeds: bool) {
    while conn.line("set probe x").starts_with('+') != succeeds {}
}

/// Waits until each counter of each client has grown. A refused client continues with its next kind
/// of command, so a round may be incomplete.
fn wait_until_all_counted(conn: &mut Conn) {
    let names = KINDS.iter().flat_map(|(_, names)| *names);
    for key in names.flat_map(|name| (0..CLIENTS).map(move |client| format!("{name}:{client}"))) {
        let before = number(conn, &key);
        // The client may not have the reply to its last command yet, but it has the reply before
        // that.
        while number(conn, &key) < before + 2 {}
    }
}

#[test]
fn after_an_error_every_reply_is_true() {
    for (policy, errors) in [
        (
            "everysec",
            &[
                "write-eio",
                "short",
                "torn",
                "write-enospc",
                "sync-eio",
                "torn",
            ][..],
        ),
        ("no", &["write-enospc", "torn", "short"]),
    ] {
        let Some(disk) = Disk::new(policy) else {
            return;
        };
        let server = disk.server(policy);
        let mut probe = server.connect();
        let counted = count(server.port, || {
            // The server listens before it has created the AOF: a failing disk would then end the
            // start.
            wait_until_all_counted(&mut probe);
            for error in errors {
                disk.fail(error);
                wait_until_set(&mut probe, false);
                if *error == "short" {
                    // BGREWRITEAOF fails, or starts a rewrite: neither changes the AOF's data.
                    probe.line("bgrewriteaof");
                }
                disk.recover();
                wait_until_set(&mut probe, true);
                wait_until_all_counted(&mut probe);
            }
        });
        for counters in &counted {
            assert!(
                counters
                    .told
                    .iter()
                    .all(|told| told.succeeded > 0 && told.unknown == 0),
                "{policy}: client {}: {:?}",
                counters.client,
                counters.told
            );
            counters.check(&mut probe);
        }
        // A reply proves that the earlier commands are in the AOF, so the process may be killed.
        wait_until_set(&mut probe, true);
        drop(server);
        check_again(&disk, &counted);
    }
}

/// If a write or fsync fails under `appendfsync always`, the server must end, since it can't keep
/// its promise. The acknowledged writes are on the disk.
#[test]
fn under_always_an_error_ends_the_server_and_nothing_is_lost() {
    for error in ["write-eio", "short", "torn", "sync-eio"] {
        let Some(disk) = Disk::new(&format!("always-{error}")) else {
            return;
        };
        let mut server = disk.server("always");
        let mut probe = server.connect();
        let port = server.port;
        let counted = count(port, || {
            while (0..CLIENTS).any(|client| number(&mut probe, &format!("sb:{client}")) < 5) {}
            disk.fail(error);
            assert_eq!(server.wait(), Some(1));
        });
        disk.recover();
        check_again(&disk, &counted);
    }
}

/// While a long script runs, the event loop turns, so the error of an earlier write to the AOF is
/// known before the script's next command. A script that has written is not stopped by it.
#[test]
fn a_script_that_has_written_ends_although_the_disk_fails_meanwhile() {
    let Some(disk) = Disk::new("script") else {
        return;
    };
    let server = disk.server("no");
    let mut conn = server.connect();
    conn.line("config set busy-reply-threshold 1");
    disk.fail("write-eio");
    let script = "redis.call('incr', 'a') \
                  for i = 1, 30000000 do end \
                  return redis.call('incr', 'b')";
    // SET and EVAL arrive in one read: SET's write reaches the disk when the script lets the loop
    // turn.
    let mut batch = multibulk(&["set", "before", "x"]);
    batch.extend(multibulk(&["eval", script, "0"]));
    batch.extend(multibulk(&["eval", "return redis.call('incr', 'c')", "0"]));
    conn.send(&batch);
    assert_eq!(conn.reply(), b"+OK\r\n");
    assert_eq!(conn.reply(), b":1\r\n");
    assert!(
        conn.reply().starts_with(b"-MISCONF"),
        "the next one is refused"
    );
    disk.recover();
    wait_until_set(&mut conn, true);
    drop(server);
    let again = disk.healthy_server();
    assert_eq!(
        again.connect().line("mget a b c"),
        "*3\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n"
    );
}

/// Only the fsync of the AOF's directory fails: the new manifest is in place, and the files that it
/// names must be there at the next start.
#[test]
fn a_rewrite_whose_manifest_may_not_be_durable_loses_nothing() {
    // BGREWRITEAOF adds a new incremental file when it begins, and the new base when it ends.
    for (at_begin, error) in [(true, "dir-sync-eio"), (false, "next-dir-sync-eio")] {
        let Some(disk) = Disk::new(&format!("manifest-{error}")) else {
            return;
        };
        let server = disk.server("always");
        let mut conn = server.connect();
        conn.line("mset a 1 b 2");
        if at_begin {
            disk.fail(error);
            assert!(conn.line("bgrewriteaof").starts_with("-ERR"));
        } else {
            conn.line("config set rdb-key-save-delay 200000");
            assert!(conn.line("bgrewriteaof").starts_with('+'));
            disk.fail(error);
            while conn
                .line("info persistence")
                .contains("aof_rewrite_in_progress:1")
            {}
        }
        let info = conn.line("info persistence");
        assert!(info.contains("aof_last_bgrewrite_status:err"), "{error}");
        assert_eq!(conn.line("set c 3"), "+OK\r\n");
        drop(server);
        disk.recover();
        let again = disk.healthy_server();
        let mut conn = again.connect();
        conn.wait_until_loaded();
        assert_eq!(
            conn.line("mget a b c"),
            "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
            "{error}"
        );
        assert!(conn.line("bgrewriteaof").starts_with('+'));
    }
}

/// A replica's AOF takes the primary's snapshot as its base, and the fsync of the directory fails.
#[test]
fn a_received_base_whose_manifest_may_not_be_durable_loses_nothing() {
    let Some(disk) = Disk::new("manifest-received") else {
        return;
    };
    let primary = Peer::aeris(&["--repl-diskless-sync", "no"]);
    primary.connect().line("mset a 1 b 2");
    let replica = disk.server("always");
    let mut conn = replica.connect();
    disk.fail("next-dir-sync-eio");
    conn.line(&format!("replicaof 127.0.0.1 {}", primary.port));
    while !conn
        .line("info replication")
        .contains("master_link_status:up")
    {}
    primary.connect().line("set c 3");
    while conn.line("exists c") != ":1\r\n" {}
    disk.recover();
    while !conn
        .line("info persistence")
        .contains("aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0")
    {}
    conn.line("waitaof 1 0 0");
    drop(replica);
    let again = disk.healthy_server();
    let mut conn = again.connect();
    conn.wait_until_loaded();
    assert_eq!(
        conn.line("mget a b c"),
        "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"
    );
}
