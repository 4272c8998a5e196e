//! The limit of memory holds: under each policy, with values of each type, tables that grow and
//! big values, `used_memory` is never above `maxmemory` by more than one command needs.

mod common;

use common::{Conn, Peer, multibulk};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const LIMIT: usize = 8 << 20;
/// The largest value of a command, in bytes.
const BIG: usize = 100_000;
/// The bytes that a command may need beyond `maxmemory`: its arguments in the query buffer, the
/// value, and the reply to INFO.
const COMMAND: usize = 3 * BIG;
/// The number of commands between two checks of the memory.
const BATCH: usize = 50;

const POLICIES: [&str; 10] = [
    "noeviction",
    "allkeys-lru",
    "allkeys-lrm",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lrm",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

/// The value of a field of INFO memory.
fn field(c: &mut Conn, name: &str) -> usize {
    let text = c.line("INFO memory");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.strip_prefix(':'));
    value.and_then(|n| n.parse().ok()).expect("a number")
}

/// The used memory without the buffers that `maxmemory` does not count.
fn counted(c: &mut Conn) -> usize {
    field(c, "used_memory").saturating_sub(field(c, "mem_not_counted_for_evict"))
}

/// A random write command, mostly with a small value.
fn command(rng: &mut SmallRng, wide: bool) -> Vec<Vec<u8>> {
    // Many different keys make the tables of the keyspace grow; few keys get large values.
    let keys = if wide { 1_000_000 } else { 30 };
    let key = format!("k{}", rng.random_range(0..keys));
    let len = match rng.random_range(0..200) {
        0 => rng.random_range(1..BIG),
        1..20 => rng.random_range(1..2000),
        _ => rng.random_range(1..50),
    };
    let value = vec![b'x'; len];
    let member = format!("member:{}", rng.random_range(0..100_000));
    let (key, member) = (key.into_bytes(), member.into_bytes());
    let (name, rest): (&str, Vec<Vec<u8>>) = match rng.random_range(0..if wide { 2 } else { 8 }) {
        0 => ("SET", vec![key, value, b"EX".to_vec(), b"1000".to_vec()]),
        1 => ("APPEND", vec![key, value]),
        2 => ("HSET", vec![key, member, value]),
        3 => ("SADD", vec![key, value, member]),
        4 => ("ZADD", vec![key, b"1".to_vec(), member]),
        5 => ("RPUSH", vec![key, value]),
        6 => ("XADD", vec![key, b"*".to_vec(), member, value]),
        _ => ("EXPIRE", vec![key, b"100".to_vec()]),
    };
    [vec![name.as_bytes().to_vec()], rest].concat()
}

/// Sends random writes and checks the memory. Returns the number of OOM errors.
fn write(c: &mut Conn, rng: &mut SmallRng, rounds: usize, limit: usize, what: &str) -> usize {
    let mut refused = 0;
    for round in 0..rounds {
        let wide = round % 100 < 70;
        let commands: Vec<_> = (0..BATCH).map(|_| command(rng, wide)).collect();
        // The small commands of a batch together need less than [`COMMAND`]; after each big value
        // the memory is checked.
        for argv in &commands {
            let big = argv.iter().any(|word| word.len() > 2000);
            c.send(&multibulk(argv));
            if big {
                refused += usize::from(c.reply().starts_with(b"-OOM"));
                let used = counted(c);
                assert!(
                    used <= limit + COMMAND,
                    "{what}, round {round}: {used} of {limit}"
                );
            } else {
                refused += usize::from(c.reply().starts_with(b"-OOM"));
            }
        }
        let used = counted(c);
        assert!(
            used <= limit + COMMAND,
            "{what}, round {round}: {used} of {limit}"
        );
    }
    refused
}

fn hold(policy: &str, settings: &[&str]) {
    let server = Peer::aeris(settings);
    let mut c = server.connect();
    let limit = field(&mut c, "used_memory") + LIMIT;
    assert_eq!(
        c.line(&format!("CONFIG SET maxmemory-policy {policy}")),
        "+OK\r\n"
    );
    assert_eq!(c.line(&format!("CONFIG SET maxmemory {limit}")), "+OK\r\n");
    let mut rng = SmallRng::seed_from_u64(policy.len() as u64);
    let what = format!("{policy} {settings:?}");
    let refused = write(&mut c, &mut rng, 900, limit, &what);
    // If the memory was never full, the test has shown nothing.
    let stats = c.line("INFO stats");
    let evicted = !stats.contains("\r\nevicted_keys:0\r\n");
    assert!(evicted || refused > 0, "{what}: the limit was not reached");
    if policy == "noeviction" {
        assert!(!evicted && refused > 0, "{what}");
    } else if policy.starts_with("allkeys") {
        assert_eq!(refused, 0, "{what}");
    }
}

#[test]
fn used_memory_stays_below_the_limit_under_each_policy() {
    for policy in POLICIES {
        hold(policy, &[]);
    }
}

#[test]
fn the_aof_and_lazy_freeing_do_not_move_the_limit() {
    hold(
        "allkeys-lru",
        &["--appendonly", "yes", "--lazyfree-lazy-eviction", "yes"],
    );
    hold("volatile-ttl", &["--appendonly", "yes"]);
}

/// The key that must be evicted has the largest value. The memory of a value that the background
/// thread frees counts as free, so no other key is evicted for it.
#[test]
fn a_large_value_that_is_evicted_takes_no_other_key_with_it() {
    let server = Peer::aeris(&["--maxmemory-policy", "volatile-ttl"]);
    let mut c = server.connect();
    for n in 0..200 {
        let members: String = (0..1000).map(|m| format!(" member:{n}:{m}")).collect();
        c.line(&format!("SADD large{members}"));
    }
    c.line("PEXPIRE large 1000000");
    for n in 0..1000 {
        c.line(&format!("SET small:{n} v EX 2000"));
    }
    let limit = field(&mut c, "used_memory") - 4096;
    assert_eq!(c.line(&format!("CONFIG SET maxmemory {limit}")), "+OK\r\n");
    assert_eq!(c.line("SET last v EX 3000"), "+OK\r\n");
    assert_eq!(c.line("EXISTS large last"), ":1\r\n");
    assert_eq!(c.line("DBSIZE"), ":1001\r\n");
    assert!(c.line("INFO stats").contains("\r\nevicted_keys:1\r\n"));
}
