//! Compares INFO keysizes after generated commands with that of Redis 8.2.
//!
//! Left out: SPOP, whose members are random; times to live that end during the test.

use super::common::{Conn, Peer};
use aeris::util::random::Random;

/// The commands that the test draws from: `{k}` and `{l}` are keys, `{n}` is a number from 0 on.
const COMMANDS: &[&str] = &[
    "SET {k} {n}",
    "SET {k} text{n} EX 10000",
    "APPEND {k} x{n}",
    "SETRANGE {k} {n}0 z",
    "GETDEL {k}",
    "GETSET {k} {n}",
    "INCRBY {k} {n}",
    "DECRBY {k} {n}00",
    "INCRBYFLOAT {k} 10.5",
    "SETBIT {k} {n}0 1",
    "BITFIELD {k} SET u8 {n} 7",
    "BITOP NOT {k} {l}",
    "PFADD {k} {n}",
    "PFMERGE {k} {l}",
    "MSET {k} {n} {l} {n}{n}",
    "MSETNX {k} {n} {l} {n}{n}",
    "LPUSH {k} a b {n} c",
    "RPUSHX {k} a b c d e f g h i j k l m n o p q r",
    "RPOP {k} 2",
    "LTRIM {k} 1 -2",
    "LREM {k} 0 a",
    "LMOVE {k} {l} LEFT RIGHT",
    "LMPOP 2 {k} {l} LEFT COUNT {n}",
    "LINSERT {k} BEFORE a {n}",
    "LSET {k} 0 {n}",
    "SADD {k} a {n} c",
    "SADD {k} a b c d e f g h i j k l m n o p q r {n}",
    "SREM {k} a {n}",
    "SMOVE {k} {l} a",
    "SUNIONSTORE {k} {l} {l}",
    "SDIFFSTORE {k} {l} {k}",
    "ZADD {k} 1 a 2 {n}",
    "ZADD {k} 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h 9 {n}",
    "ZINCRBY {k} 1 {n}",
    "ZPOPMIN {k} 2",
    "ZREM {k} a {n}",
    "ZREMRANGEBYRANK {k} 0 1",
    "ZREMRANGEBYSCORE {k} 2 4",
    "ZRANGESTORE {k} {l} 0 -2",
    "ZUNIONSTORE {k} 2 {k} {l}",
    "GEOADD {k} 13 38 {n}",
    "HSET {k} f {n} g{n} v",
    "HSET {k} a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8 {n} 9",
    "HINCRBY {k} {n} 1",
    "HDEL {k} f g{n}",
    "HGETDEL {k} FIELDS 1 f",
    "HPEXPIREAT {k} 1 FIELDS 1 f",
    "HSETEX {k} EX 10000 FIELDS 1 {n} v",
    "XADD {k} {n}-1 f v",
    "DEL {k}",
    "UNLINK {k} {l}",
    "RENAME {k} {l}",
    "RENAMENX {k} {l}",
    "COPY {k} {l} REPLACE",
    "COPY {k} {l} DB 3",
    "MOVE {k} 3",
    "EXPIRE {k} -1",
    "PERSIST {k}",
    "SORT {k} ALPHA STORE {l}",
    "SELECT 0",
    "SELECT 3",
    "SWAPDB 0 3",
    "DEBUG RELOAD",
    "FLUSHDB",
    "FLUSHALL",
];

fn keysizes(conn: &mut Conn) -> String {
    let reply = conn.line("INFO keysizes");
    let begin = reply.find("# Keysizes").expect("the section");
    reply[begin..].trim_end().to_string()
}

#[test]
fn histograms_are_those_of_redis() {
    let Some(theirs) = Peer::redis8(&[]) else {
        return;
    };
    let ours = Peer::aeris(&[]);
    let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
    let mut rng = Random::from_seed(1);
    let mut recent = Vec::new();
    let cases: u64 = std::env::var("PROPTEST_CASES").map_or(60, |n| n.parse().unwrap_or(60));
    for step in 0..cases * 200 {
        let mut line = COMMANDS[rng.below(COMMANDS.len() as u64) as usize].to_string();
        let is_rare = ["RELOAD", "FLUSHDB", "FLUSHALL", "SWAPDB"]
            .iter()
            .any(|w| line.contains(w));
        if is_rare && rng.below(20) > 0 {
            continue;
        }
        for (place, prefix, n) in [("{k}", "key", 15), ("{l}", "key", 15), ("{n}", "", 30)] {
            line = line.replace(place, &format!("{prefix}{}", rng.below(n)));
        }
        recent.push(format!("{line}: {}", ours.line(&line)));
        theirs.line(&line);
        if step % 5 == 0 {
            let (a, b) = (keysizes(&mut ours), keysizes(&mut theirs));
            assert_eq!(a, b, "after {}", recent.join("\n"));
            recent.clear();
        }
    }
}
