//! A write load: every type, with times to live, streams with groups, functions, scripts and
//! transactions in three databases. The same seed gives the same commands.

use crate::common::{Conn, Reply, multibulk, parse_reply};

/// Numbers that look random and are the same in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    /// A key of this type; there are only twelve, so that commands often use the same key.
    fn key(&mut self, kind: &str) -> String {
        format!("{kind}:{}", self.below(12))
    }
}

/// The commands of a round of the load. `{string}` is a key of this name and a number; `{#100}` a
/// number below 100; `{text}` a text of up to 300 bytes.
const COMMANDS: &[&str] = &[
    "SET {string} {text}",
    "SET {string} {#1000000} EX {#100000}",
    "SET {string} v PX 20",
    "SET {string} v PXAT 4000000000000",
    "SETEX {string} 5000 {text}",
    "GETEX {string} PERSIST",
    "GETDEL {string}",
    "APPEND {string} {text}",
    "SETRANGE {string} {#50} middle",
    "PEXPIRE {string} {#100000}00",
    "PERSIST {string}",
    "COPY {string} {string} REPLACE",
    "UNLINK {string} {list}",
    "MSET {string} a {string} b",
    "SETNX {string} first",
    "INCR {counter}",
    "DECRBY {counter} {#1000}",
    "INCRBYFLOAT {float} 1.25",
    "SETBIT {bits} {#1000} 1",
    "BITFIELD {bits} SET u8 {#100} {#256} INCRBY i5 0 1",
    "BITOP XOR {bits} {bits} {bits}",
    "PFADD {hll} {#10000} {#10000} {#10000}",
    "PFMERGE {hll} {hll}",
    "RPUSH {list} {#1000} {text} {#100}",
    "LPUSH {list} {text}",
    "LPOP {list} 2",
    "LMOVE {list} {list} LEFT RIGHT",
    "LMPOP 2 {list} {list} LEFT COUNT 2",
    "BLMOVE {list} {list} RIGHT LEFT 0.001",
    "LREM {list} 1 7",
    "LTRIM {list} 0 60",
    "LINSERT {list} BEFORE 7 {text}",
    "SORT {list} ALPHA STORE {list}",
    "SADD {set} {#1000} {#1000} {#1000}",
    "SADD {set} {text}",
    "SPOP {set}",
    "SPOP {set} 3",
    "SMOVE {set} {set} {#1000}",
    "SINTERSTORE {set} {set} {set}",
    "SDIFFSTORE {set} {set} {set}",
    "ZADD {zset} {#1000} m{#100} {#10}.25 m{#100}",
    "ZINCRBY {zset} 0.5 m{#100}",
    "ZPOPMIN {zset}",
    "BZPOPMAX {zset} 0.001",
    "ZRANGESTORE {zset} {zset} 0 50",
    "ZUNIONSTORE {zset} 2 {zset} {zset} WEIGHTS 2 1",
    "ZREMRANGEBYRANK {zset} 90 100",
    "GEOADD {geo} 13.{#300} 38.{#300} p{#50}",
    "GEOSEARCHSTORE {geo} {geo} FROMLONLAT 13 38 BYRADIUS 400 km",
    "HSET {hash} f{#50} {text} g{#20} {#1000}",
    "HINCRBY {hash} counter {#100}",
    "HINCRBYFLOAT {hash} float 0.5",
    "HDEL {hash} f{#50}",
    "EXPIRE {hash} {#100000}",
    "RENAME {renamed} {renamed}",
    "SET {renamed} {text} KEEPTTL",
    "XADD {stream} * f {text} g {#100}",
    "XADD {stream} MAXLEN ~ 100 * f {#100}",
    "XGROUP CREATE {stream} g 0 MKSTREAM",
    "XGROUP CREATECONSUMER {stream} g c{#3}",
    "XREADGROUP GROUP g c{#3} COUNT 3 STREAMS {stream} >",
    "XREADGROUP GROUP g c{#3} COUNT 1 NOACK STREAMS {stream} >",
    "XAUTOCLAIM {stream} g c{#3} 0 0 COUNT 2",
    "XTRIM {stream} MAXLEN 150",
    "XGROUP SETID {stream} g $",
    "EVAL redis.call('incr',KEYS[1]);return(redis.call('rpush',KEYS[2],'script')) 2 {counter} {list}",
    "EVAL return(redis.call('spop',KEYS[1])) 1 {set}",
    "FCALL store 1 {string} {text}",
];

/// Commands for hash fields with a time to live, for servers that have such fields.
const FIELD_TTLS: &[&str] = &[
    "HPEXPIREAT {hash} 4000000000{#1000} FIELDS 2 f{#50} counter",
    "HPEXPIRE {hash} 20 FIELDS 1 f{#50}",
    "HEXPIRE {hash} {#100000} FIELDS 1 g{#20}",
    "HPERSIST {hash} FIELDS 1 g{#20}",
    "HSETEX {hash} EX {#100000} FIELDS 1 f{#50} {text}",
    "HGETEX {hash} PERSIST FIELDS 1 f{#50}",
];

/// The command of a line with its blanks filled.
fn fill(line: &str, dice: &mut Dice) -> Vec<String> {
    line.split(' ').map(|word| fill_word(word, dice)).collect()
}

fn fill_word(word: &str, dice: &mut Dice) -> String {
    let Some((head, rest)) = word.split_once('{') else {
        return word.to_string();
    };
    let (blank, tail) = rest.split_once('}').expect("a blank ends");
    let filled = match blank.strip_prefix('#') {
        Some(below) => dice.below(below.parse().expect("a number")).to_string(),
        None if blank == "text" => {
            let len = dice.below(300) as usize;
            let letter = (b'a' + dice.below(26) as u8) as char;
            letter.to_string().repeat(len)
        }
        None => dice.key(blank),
    };
    format!("{head}{filled}{}", fill_word(tail, dice))
}

const LIBRARY: &str = "#!lua name=load\nredis.register_function('store', function(keys, args) \
                       redis.call('incr', 'calls') return redis.call('set', keys[1], args[1]) end)";

/// Runs `rounds` rounds of random commands. The errors of [`is_expected`] are a part of the load:
/// commands meet keys that do not exist, groups that exist and such.
pub fn run(c: &mut Conn, seed: u64, rounds: u64, field_ttls: bool) {
    let mut dice = Dice(seed);
    let loaded = c.cmd(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
    assert_eq!(loaded[0], b'$', "{}", loaded.escape_ascii());
    for _ in 0..rounds {
        let mut batch = Batch::default();
        batch.push(&["SELECT", ["0", "0", "3", "9"][dice.below(4) as usize]]);
        for line in COMMANDS {
            batch.push(&fill(line, &mut dice));
        }
        if field_ttls {
            for line in FIELD_TTLS {
                batch.push(&fill(line, &mut dice));
            }
        }
        transaction(&mut batch, &mut dice);
        let big = "x".repeat(40_000 + dice.below(1000) as usize);
        batch.push(&["SET", &dice.key("string"), &big]);
        batch.run(c);
    }
    let mut batch = Batch::default();
    batch.push(&["SELECT", "0"]);
    batch.push(&["SWAPDB", "3", "9"]);
    batch.push(&["SELECT", "9"]);
    batch.push(&["MOVE", &dice.key("string"), "3"]);
    batch.push(&["SELECT", "11"]);
    batch.push(&["SET", "k", "v"]);
    batch.push(&["FLUSHDB"]);
    batch.push(&["SELECT", "0"]);
    batch.run(c);
}

/// Adds a transaction over two databases.
fn transaction(batch: &mut Batch, dice: &mut Dice) {
    batch.push(&["MULTI"]);
    for line in [
        "INCR {counter}",
        "SPOP {set}",
        "SET {string} {text} PX 100000",
    ] {
        batch.push(&fill(line, dice));
    }
    batch.push(&["SELECT", "3"]);
    batch.push(&fill("RPUSH {list} in the transaction", dice));
    batch.push(&["EXEC"]);
}

/// Commands that are sent together, before the first reply is read.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    commands: Vec<String>,
}

impl Batch {
    fn push<A: AsRef<str>>(&mut self, argv: &[A]) {
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        self.bytes.extend_from_slice(&multibulk(&argv));
        self.commands.push(argv.join(" "));
    }

    fn run(self, c: &mut Conn) {
        c.send(&self.bytes);
        for command in self.commands {
            let reply = c.reply();
            let text = String::from_utf8_lossy(&reply);
            assert!(is_expected(&text), "{command}: {text}");
            if let Reply::Many(_, replies) = parse_reply(&reply) {
                let failed = replies.iter().any(
                    |reply| matches!(reply, Reply::Line(line) if !is_expected(&String::from_utf8_lossy(line))),
                );
                assert!(!failed, "{command}: {text}");
            }
        }
    }
}

/// Whether a reply is no error, or an error of a load that meets its own keys in any state.
fn is_expected(reply: &str) -> bool {
    let expected = [
        "-BUSYGROUP",
        "-NOGROUP",
        "-ERR no such key",
        "-ERR The XGROUP subcommand requires the key to exist",
    ];
    !reply.starts_with('-') || expected.iter().any(|error| reply.starts_with(error))
}
