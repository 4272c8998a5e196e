//! Active defragmentation on a whole server: memory in partly empty slabs goes back to the system,
//! the data stays the same, and the fields of INFO show it. The test of a simulated day, which
//! takes minutes, runs only by name: `cargo test --profile fast --test defrag -- --ignored
//! --nocapture`.

mod common;

use common::{Conn, Peer, multibulk};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// Settings with which defragmentation starts at little data and works quickly.
const EAGER: [&str; 4] = [
    "CONFIG SET active-defrag-ignore-bytes 500000",
    "CONFIG SET active-defrag-threshold-lower 5",
    "CONFIG SET active-defrag-cycle-min 60",
    "CONFIG SET active-defrag-cycle-max 80",
];

/// Sends a request whose reply must be OK.
fn ok(c: &mut Conn, line: &str) {
    assert_eq!(c.line(line), "+OK\r\n", "{line}");
}

/// The value of a field of INFO.
fn field(c: &mut Conn, name: &str) -> f64 {
    let text = c.line("INFO everything");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|n| n.parse().ok()).expect("a number")
}

/// Sends commands in batches and reads the replies, none of which may be an error.
struct Pipeline<'a> {
    c: &'a mut Conn,
    bytes: Vec<u8>,
    waiting: usize,
}

impl Pipeline<'_> {
    fn new(c: &mut Conn) -> Pipeline<'_> {
        Pipeline {
            c,
            bytes: Vec::new(),
            waiting: 0,
        }
    }

    fn send(&mut self, argv: &[&[u8]]) {
        self.bytes.extend(multibulk(argv));
        self.waiting += 1;
        if self.waiting == 200 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.c.send(&self.bytes);
        self.bytes.clear();
        for _ in 0..std::mem::take(&mut self.waiting) {
            let reply = self.c.reply();
            assert!(
                !reply.starts_with(b"-"),
                "{}",
                String::from_utf8_lossy(&reply)
            );
        }
    }
}

/// Fills keys of all types, then deletes seven of eight elements, so that memory is fragmented.
fn fragment(c: &mut Conn) {
    let mut pipeline = Pipeline::new(c);
    let text = |n: u32| format!("{n:0>width$}", width = 150 + n as usize % 60).into_bytes();
    let name = |prefix: &str, n: u32| format!("{prefix}{n}").into_bytes();
    for n in 0..24_000 {
        let (value, member) = (text(n), name("member:of:some:length:", n));
        pipeline.send(&[b"SET", &name("string:", n), &value]);
        pipeline.send(&[b"HSET", b"hash", &member, &value]);
        pipeline.send(&[b"HSET", &name("small:", n), b"f", b"1", b"g", b"2"]);
        pipeline.send(&[b"SADD", b"set", &member]);
        pipeline.send(&[b"ZADD", b"zset", n.to_string().as_bytes(), &member]);
        pipeline.send(&[b"RPUSH", b"list", &value]);
        pipeline.send(&[b"XADD", b"stream", b"*", b"f", &value]);
        if n % 3 == 0 {
            pipeline.send(&[b"EXPIRE", &name("string:", n), b"10000"]);
        }
    }
    for n in (0..24_000).filter(|n| n % 8 != 3) {
        let member = name("member:of:some:length:", n);
        pipeline.send(&[b"DEL", &name("string:", n)]);
        pipeline.send(&[b"DEL", &name("small:", n)]);
        pipeline.send(&[b"HDEL", b"hash", &member]);
        pipeline.send(&[b"SREM", b"set", &member]);
        pipeline.send(&[b"ZREM", b"zset", &member]);
    }
    pipeline.flush();
}

/// Waits until active defragmentation has ended its pass.
fn settle(c: &mut Conn) {
    let began = Instant::now();
    while field(c, "active_defrag_running") != 0.0 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{}",
            c.line("INFO memory")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn holes_are_closed_and_the_data_stays_the_same() {
    for cluster in ["no", "yes"] {
        let server = Peer::aeris(&[
            "--save",
            "",
            "--enable-debug-command",
            "yes",
            "--cluster-enabled",
            cluster,
            "--cluster-require-full-coverage",
            "no",
        ]);
        let mut c = server.connect();
        if cluster == "yes" {
            c.line("CLUSTER ADDSLOTSRANGE 0 16383");
            while !c.line("CLUSTER INFO").contains("cluster_state:ok") {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        fragment(&mut c);
        let (before, digest) = (
            field(&mut c, "allocator_frag_ratio"),
            c.line("DEBUG DIGEST"),
        );
        assert!(before > 1.3, "{before}");
        assert!(
            c.line("MEMORY DOCTOR")
                .contains("CONFIG SET activedefrag yes")
        );
        assert_eq!(field(&mut c, "total_active_defrag_time"), 0.0);
        EAGER.iter().for_each(|line| ok(&mut c, line));
        ok(&mut c, "CONFIG SET activedefrag yes");
        while field(&mut c, "active_defrag_hits") == 0.0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        settle(&mut c);
        let after = field(&mut c, "allocator_frag_ratio");
        assert!(after < 1.1, "{before} became {after}");
        assert_eq!(c.line("DEBUG DIGEST"), digest);
        for name in ["hits", "misses", "key_hits", "key_misses"] {
            assert!(
                field(&mut c, &format!("active_defrag_{name}")) > 0.0,
                "{name}"
            );
        }
        assert!(field(&mut c, "total_active_defrag_time") > 0.0);
        assert_eq!(field(&mut c, "current_active_defrag_time"), 0.0);
        ok(&mut c, "CONFIG RESETSTAT");
        assert_eq!(field(&mut c, "active_defrag_hits"), 0.0);
        ok(&mut c, "CONFIG SET activedefrag no");
    }
}

#[test]
fn nothing_moves_while_a_child_lives() {
    let server = Peer::aeris(&["--save", "", "--enable-debug-command", "yes"]);
    let mut c = server.connect();
    fragment(&mut c);
    // The child that saves sleeps after each key.
    ok(&mut c, "CONFIG SET rdb-key-save-delay 2000");
    assert!(c.line("BGSAVE").starts_with('+'));
    EAGER.iter().for_each(|line| ok(&mut c, line));
    ok(&mut c, "CONFIG SET activedefrag yes");
    while field(&mut c, "active_defrag_running") == 0.0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        let hits = field(&mut c, "active_defrag_hits");
        assert!(
            hits == 0.0 || field(&mut c, "rdb_bgsave_in_progress") == 0.0,
            "{hits}"
        );
    }
    assert_eq!(
        field(&mut c, "rdb_bgsave_in_progress"),
        1.0,
        "the child has ended too early"
    );
    ok(&mut c, "CONFIG SET rdb-key-save-delay 0");
    let pid = field(&mut c, "process_id");
    assert!(pid > 0.0);
    c.line("FLUSHALL");
    while field(&mut c, "rdb_bgsave_in_progress") == 1.0 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The simulated day: 24 hours, in each of which the values have other sizes.
struct Day {
    rng: SmallRng,
    hour: usize,
}

impl Day {
    const KEYS: u32 = 600_000;

    fn text(&mut self) -> Vec<u8> {
        let mean = [40, 60, 90, 140, 200, 300, 220, 110][self.hour % 8];
        vec![b'v'; self.rng.random_range(mean / 2..mean * 3 / 2)]
    }

    fn operation(&mut self, pipeline: &mut Pipeline) {
        let n = self.rng.random_range(0..Self::KEYS);
        let (value, member) = (self.text(), format!("m{}", self.rng.random_range(0..1000)));
        let member = member.as_bytes();
        let key = |kind: &str, keys: u32| format!("{kind}:{}", n % keys).into_bytes();
        match self.rng.random_range(0..20) {
            0..8 => pipeline.send(&[b"SET", &key("s", Self::KEYS), &value]),
            8..10 => pipeline.send(&[b"DEL", &key("s", Self::KEYS)]),
            10 => pipeline.send(&[b"APPEND", &key("s", Self::KEYS), &value[..20]]),
            11 | 12 => pipeline.send(&[b"HSET", &key("h", 800), member, &value]),
            13 => pipeline.send(&[b"HDEL", &key("h", 800), member]),
            14 => pipeline.send(&[b"ZADD", &key("z", 600), b"1", &value[..20], b"2", member]),
            15 => pipeline.send(&[b"ZREM", &key("z", 600), member]),
            16 => pipeline.send(&[b"RPUSH", &key("l", 5000), &value]),
            17 => pipeline.send(&[b"LPOP", &key("l", 5000)]),
            18 => pipeline.send(&[b"SADD", &key("t", 3000), member]),
            _ => pipeline.send(&[
                b"XADD",
                &key("x", 500),
                b"MAXLEN",
                b"~",
                b"200",
                b"*",
                b"f",
                &value,
            ]),
        }
    }
}

#[test]
#[ignore = "minutes; MILLIONS of operations (default 8), for a release or fast build"]
fn a_day_of_values_that_change_their_sizes() {
    let millions = std::env::var("MILLIONS").ok().and_then(|n| n.parse().ok());
    let operations: usize = millions.unwrap_or(8) * 1_000_000;
    let mut ratios = Vec::new();
    for on in ["no", "yes"] {
        let server = Peer::aeris(&["--save", "", "--activedefrag", on]);
        let mut c = server.connect();
        c.line("CONFIG SET active-defrag-ignore-bytes 5mb");
        c.line("CONFIG SET active-defrag-threshold-lower 3");
        let mut day = Day {
            rng: SmallRng::seed_from_u64(24),
            hour: 0,
        };
        let (began, mut worst) = (Instant::now(), 0.0f64);
        for hour in 0..24 {
            day.hour = hour;
            let mut pipeline = Pipeline::new(&mut c);
            (0..operations / 24).for_each(|_| day.operation(&mut pipeline));
            pipeline.flush();
            worst = worst.max(field(&mut c, "allocator_frag_ratio"));
        }
        let took = began.elapsed().as_secs_f64();
        let doctor = c.line("MEMORY DOCTOR");
        settle(&mut c);
        c.line("MEMORY PURGE");
        let (used, rss) = (
            field(&mut c, "used_memory"),
            field(&mut c, "used_memory_rss"),
        );
        let mb = |bytes: f64| bytes / 1048576.0;
        println!(
            "activedefrag {on}: used {:.0} MB, rss {:.0} MB, ratio {:.3}, active/allocated {:.3} (worst {worst:.3}), {:.0} kops/s, cpu {:.1} s, hits {}",
            mb(used),
            mb(rss),
            rss / used,
            field(&mut c, "allocator_frag_ratio"),
            operations as f64 / took / 1000.0,
            field(&mut c, "used_cpu_user"),
            field(&mut c, "active_defrag_hits"),
        );
        let found = doctor.lines().find(|line| line.contains("The holes have"));
        println!("  doctor: {}", found.unwrap_or("no word of holes"));
        ratios.push(rss / used);
    }
    assert!(ratios[1] <= 1.10, "{ratios:?}");
}
