//! Snapshots and DUMP payloads go both ways between aeris and the real servers: a data set with
//! every type and encoding, saved by one and loaded by the other, has the same DEBUG DIGEST on both
//! sides.
//!
//! ```text
//!   ours  --SAVE--> dump.rdb --RELOAD--> peer     DUMP --> RESTORE, key by key
//!   peer  --SAVE--> dump.rdb --RELOAD--> ours     DUMP --> RESTORE
//! ```
//!
//! Redis 7.0 prints scores for its digest with seventeen digits, later versions with the shortest
//! digits. So sets with scores such as 0.1 are compared with Redis 7.0 by its own digest, before
//! and after they are saved and loaded by aeris.

mod common;

use std::fs;
use std::process::Command;

use common::{Conn, Peer, Reply, parse_reply};

/// Creates keys of every type, in every encoding that both servers have.
fn fill(c: &mut Conn, decimals: bool) {
    strings(c);
    lists(c);
    sets(c);
    sorted_sets(c, decimals);
    hashes(c);
    streams(c);
    c.line("SELECT 9");
    ok(c, "SET other database");
    c.line("SELECT 0");
}

fn ok(c: &mut Conn, line: &str) {
    assert_eq!(c.line(line), "+OK\r\n", "{line}");
}

/// Bytes that can't be compressed, and that are the same in each run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Sends `command` with the arguments that `of` returns for each of the numbers below `n`.
fn many(c: &mut Conn, command: &str, n: usize, of: impl Fn(usize) -> Vec<String>) {
    let mut argv: Vec<String> = command.split(' ').map(str::to_string).collect();
    argv.extend((0..n).flat_map(of));
    let reply = c.cmd(&argv);
    assert_ne!(reply[0], b'-', "{command}: {}", reply.escape_ascii());
}

fn strings(c: &mut Conn) {
    let texts = [
        "0",
        "12",
        "-3000",
        "123456789",
        "123456789012345",
        "-9223372036854775808",
        "0123",
        "hello",
    ];
    for (at, text) in texts.iter().enumerate() {
        ok(c, &format!("SET string:{at} {text}"));
    }
    c.cmd(&[b"SET", b"string:empty".as_slice(), b""]);
    c.cmd(&[b"SET", b"string:long".as_slice(), &[b'a'; 5000]]);
    c.cmd(&[b"SET", b"string:noise".as_slice(), &noise(300_000)]);
    c.cmd(&[b"SET", b"key\x00\xff\n".as_slice(), b"binary"]);
    c.cmd(&[&b"SET"[..], &[b'k'; 300], b"long key"]);
    ok(c, "SET string:volatile x PXAT 4000000000000");
    c.line("APPEND string:raw 12");
    c.line("SETBIT string:bits 1000 1");
    many(c, "PFADD hll:sparse", 50, |n| vec![n.to_string()]);
    many(c, "PFADD hll:dense", 5000, |n| vec![n.to_string()]);
}

fn lists(c: &mut Conn) {
    many(c, "RPUSH list:packed", 6, |n| {
        vec![format!("{}", n as i64 - 3)]
    });
    many(c, "RPUSH list:quick", 2000, |n| vec!["e".repeat(n % 50)]);
    many(c, "RPUSH list:plain", 3, |n| {
        vec!["x".repeat(10 + n * 20_000)]
    });
    c.line("CONFIG SET list-compress-depth 1");
    many(c, "RPUSH list:compressed", 5000, |n| {
        vec![format!("element {n}")]
    });
    c.line("CONFIG SET list-compress-depth 0");
}

fn sets(c: &mut Conn) {
    c.line("SADD set:int16 1 2 3");
    c.line("SADD set:int32 100000 -5");
    c.line("SADD set:int64 1099511627776 1");
    c.line("SADD set:packed a b 3");
    c.line("SADD set:wide 1 2 -7000");
    many(c, "SADD set:table", 3000, |n| vec![format!("member{n}")]);
    many(c, "SADD set:numbers", 2000, |n| vec![n.to_string()]);
}

fn sorted_sets(c: &mut Conn, decimals: bool) {
    c.line("ZADD zset:packed 1 a 2 b -3 c inf d -inf e");
    many(c, "ZADD zset:tree", 3000, |n| {
        vec![(n % 700).to_string(), format!("m{n}")]
    });
    c.line("GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania");
    if decimals {
        c.line("ZADD zset:decimals 0.1 a 2.5 b 1e300 c 5e-324 d -0.30000000000000004 e");
        many(c, "ZADD zset:decimal-tree", 500, |n| {
            vec![format!("{}", n as f64 / 7.0), format!("m{n}")]
        });
    }
}

fn hashes(c: &mut Conn) {
    c.line("HSET hash:packed f v n 5 m -77");
    many(c, "HSET hash:table", 1000, |n| {
        vec![format!("field{n}"), format!("{}", n * n)]
    });
    many(c, "HSET hash:long", 2, |n| {
        vec![format!("f{n}"), "x".repeat(n * 200)]
    });
}

fn streams(c: &mut Conn) {
    for n in 0..300 {
        c.line(&format!(
            "XADD stream {}-{n} a {n} b value{n}",
            1000 + n / 3
        ));
        if n % 5 == 0 {
            c.line(&format!(
                "XADD stream {}-{} other {n}",
                1000 + n / 3,
                n + 1000
            ));
        }
    }
    c.line("XDEL stream 1001-4 1002-8");
    c.line("XGROUP CREATE stream readers 0");
    c.line("XGROUP CREATE stream idle $");
    c.line("XREADGROUP GROUP readers alice COUNT 30 STREAMS stream >");
    c.line("XREADGROUP GROUP readers bob COUNT 10 STREAMS stream >");
    c.line("XACK stream readers 1000-0");
    c.line("XGROUP CREATECONSUMER stream idle nobody");
    c.line("XGROUP CREATE stream:empty g $ MKSTREAM");
}

fn digest(c: &mut Conn) -> String {
    c.line("DEBUG DIGEST")
}

/// Lets `from` save a snapshot, and `to` load it.
fn carry_file(from: (&Peer, &mut Conn), to: (&Peer, &mut Conn)) {
    ok(from.1, "SAVE");
    let name = "dump.rdb";
    fs::copy(from.0.dir().join(name), to.0.dir().join(name)).expect("a snapshot");
    assert_eq!(to.1.line("DEBUG RELOAD NOSAVE"), "+OK\r\n");
}

fn keys(c: &mut Conn) -> Vec<Vec<u8>> {
    let Reply::Many(_, keys) = parse_reply(&c.cmd(&["KEYS", "*"])).sorted() else {
        panic!("KEYS replies an array");
    };
    keys.into_iter()
        .map(|key| match key {
            Reply::Bulk(key) => key,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Copies every key from one server to the other by DUMP and RESTORE.
fn carry_payloads(from: &mut Conn, to: &mut Conn) {
    to.line("FLUSHALL");
    for db in [0, 9] {
        from.line(&format!("SELECT {db}"));
        to.line(&format!("SELECT {db}"));
        for key in keys(from) {
            let Reply::Bulk(payload) = parse_reply(&from.cmd(&[b"DUMP", &key[..]])) else {
                panic!("DUMP of a key that exists");
            };
            let time = from.cmd(&[b"PEXPIRETIME", &key[..]]);
            let time = match &time[..] {
                b":-1\r\n" => b"0".to_vec(),
                time => time[1..time.len() - 2].to_vec(),
            };
            let reply = to.cmd(&[b"RESTORE", &key[..], &time, &payload, b"ABSTTL"]);
            assert_eq!(reply, b"+OK\r\n", "{}", key.escape_ascii());
        }
    }
    from.line("SELECT 0");
    to.line("SELECT 0");
}

fn both_ways(ours: &Peer, peer: &Peer, decimals: bool) {
    let (mut us, mut them) = (ours.connect(), peer.connect());
    fill(&mut us, decimals);
    fill(&mut them, decimals);
    let wanted = digest(&mut us);
    assert_eq!(wanted, digest(&mut them), "the same commands");
    carry_file((ours, &mut us), (peer, &mut them));
    assert_eq!(wanted, digest(&mut them), "our file, loaded by the peer");
    carry_file((peer, &mut them), (ours, &mut us));
    assert_eq!(wanted, digest(&mut us), "the peer's file, loaded by us");
    carry_payloads(&mut us, &mut them);
    assert_eq!(wanted, digest(&mut them), "our payloads");
    carry_payloads(&mut them, &mut us);
    assert_eq!(wanted, digest(&mut us), "the peer's payloads");
    ok(&mut us, "DEBUG RELOAD");
    assert_eq!(wanted, digest(&mut us), "our own file");
}

#[test]
fn a_data_set_goes_to_valkey_8_and_back() {
    if let Some(peer) = Peer::valkey(&[]) {
        both_ways(&Peer::aeris(&[]), &peer, true);
    }
}

#[test]
fn a_data_set_goes_to_redis_7_0_and_back() {
    let Some(peer) = Peer::redis(&[]) else {
        return;
    };
    let ours = Peer::aeris(&["--rdb-version", "10"]);
    both_ways(&ours, &peer, false);
    let (mut us, mut them) = (ours.connect(), peer.connect());
    sorted_sets(&mut them, true);
    let wanted = digest(&mut them);
    carry_file((&peer, &mut them), (&ours, &mut us));
    them.line("FLUSHALL");
    carry_file((&ours, &mut us), (&peer, &mut them));
    assert_eq!(wanted, digest(&mut them), "scores with decimals");
}

#[test]
fn the_real_checkers_find_our_files_sound() {
    let ours = Peer::aeris(&[]);
    let mut us = ours.connect();
    fill(&mut us, true);
    ok(&mut us, "SAVE");
    let file = ours.dir().join("dump.rdb");
    let checkers = [env!("CARGO_BIN_EXE_aeris-check-rdb"), "valkey-check-rdb"];
    for checker in checkers {
        match Command::new(checker).arg(&file).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.success() && text.contains("RDB looks OK"),
                    "{text}"
                );
            }
            Err(e) => eprintln!("{checker} did not run: {e}"),
        }
    }
}

#[test]
fn a_background_save_is_a_whole_file() {
    let ours = Peer::aeris(&[]);
    let mut us = ours.connect();
    fill(&mut us, true);
    let wanted = digest(&mut us);
    assert_eq!(us.line("BGSAVE"), "+Background saving started\r\n");
    while us
        .line("INFO persistence")
        .contains("rdb_bgsave_in_progress:1")
    {
        std::thread::yield_now();
    }
    let info = us.line("INFO persistence");
    assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
    us.line("FLUSHALL");
    ok(&mut us, "DEBUG RELOAD NOSAVE");
    assert_eq!(wanted, digest(&mut us));
}

/// DEBUG RELOAD and DEBUG LOADAOF delete every key and create it again, which WATCH notices.
#[test]
fn a_reload_changes_the_keys_that_clients_watch() {
    let ours = Peer::aeris(&["--appendonly", "yes"]);
    let (mut us, mut other) = (ours.connect(), ours.connect());
    other.line("SET k v");
    for reload in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
        for (watched, reply) in [("k", "*-1\r\n"), ("missing", "*1\r\n+PONG\r\n")] {
            ok(&mut us, &format!("WATCH {watched}"));
            ok(&mut other, reload);
            ok(&mut us, "MULTI");
            us.line("PING");
            assert_eq!(us.line("EXEC"), reply, "{reload} with {watched} watched");
        }
    }
}

#[test]
fn fields_with_a_time_to_live_are_never_saved_without_it() {
    let ours = Peer::aeris(&["--rdb-version", "10"]);
    let mut us = ours.connect();
    us.line("HSET h f v g w");
    us.line("HPEXPIREAT h 4000000000000 FIELDS 1 f");
    ok(&mut us, "DEBUG RELOAD");
    assert_eq!(
        us.line("HPEXPIRETIME h FIELDS 2 f g"),
        "*2\r\n:4000000000000\r\n:-1\r\n"
    );
    let file = fs::read(ours.dir().join("dump.rdb")).expect("a snapshot");
    assert!(file.starts_with(b"REDIS0012"));
    for version in ["11", "12", "80"] {
        us.line(&format!("CONFIG SET rdb-version {version}"));
        let payload = parse_reply(&us.cmd(&["DUMP", "h"]));
        let Reply::Bulk(payload) = payload else {
            panic!("{payload:?}");
        };
        assert_eq!(
            us.cmd(&[b"RESTORE", b"h".as_slice(), b"0", &payload, b"REPLACE"]),
            b"+OK\r\n"
        );
        assert_eq!(
            us.line("HPEXPIRETIME h FIELDS 1 f"),
            "*1\r\n:4000000000000\r\n"
        );
    }
}

#[test]
fn the_end_of_a_save_wakes_the_loop_without_the_cron() {
    let ours = Peer::aeris(&["--save", ""]);
    let mut c = ours.connect();
    ok(&mut c, "SET k v");
    // Without the cron, only the child's pipe notifies the server that the child has ended.
    ok(&mut c, "DEBUG PAUSE-CRON 1");
    for line in ["BGSAVE", "BGREWRITEAOF"] {
        assert!(c.line(line).starts_with("+Background"), "{line}");
        let running = |info: &str| {
            info.contains("rdb_bgsave_in_progress:1") || info.contains("aof_rewrite_in_progress:1")
        };
        while running(&c.line("INFO persistence")) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let info = c.line("INFO persistence");
    for field in ["rdb_last_bgsave_status:ok", "aof_last_bgrewrite_status:ok"] {
        assert!(info.contains(field), "{info}");
    }
}
