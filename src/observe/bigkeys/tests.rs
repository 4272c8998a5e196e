use std::collections::BTreeSet;

use super::*;
use crate::keyspace::expire;
use crate::testing;
use crate::types;
use crate::types::lengths::Lengths;
use crate::util::random::Random;

fn server() -> Server {
    testing::server_with(1)
}

fn say(server: &mut Server, line: &str) {
    testing::say(server, 0, &[line]);
}

/// A server that tracks the largest keys, after its first pass.
fn tracking() -> Server {
    let mut server = server();
    say(&mut server, "config set bigkeys-tracking yes");
    finish_pass(&mut server);
    server
}

fn finish_pass(server: &mut Server) {
    while !go_on(server) {}
}

/// The keys of a ranking as (size, database, key), the largest first.
fn listed(ranking: &Ranking) -> Vec<(u64, u32, Vec<u8>)> {
    let top = ranking.top(999);
    let one = |big: &&ranking::Big| (big.size, big.name.db, big.name.shown());
    top.iter().map(one).collect()
}

/// All keys of a type, found by a walk over the keyspace, as (size, database, key), the largest
/// first.
fn walked(server: &Server, kind: Type) -> Vec<(u64, u32, Vec<u8>)> {
    let mut all = Vec::new();
    for db in &server.data.dbs {
        for entry in db.keys.iter().filter(|e| type_of(e.kind()) == kind) {
            all.push((length(entry) as u64, db.index, entry.key().to_vec()));
        }
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, &a.2).cmp(&(b.1, &b.2))));
    all
}

/// Describes a difference between the rankings and a walk over the keyspace; `None` if the two
/// agree.
fn fault(server: &Server) -> Option<String> {
    let big = server.bigkeys.as_ref().expect("they are kept");
    Type::ALL.into_iter().find_map(|kind| {
        let (of_type, walked) = (big.of(kind), walked(server, kind));
        let names = |list: Vec<(u64, u32, Vec<u8>)>| -> BTreeSet<_> {
            list.into_iter().map(|(_, db, key)| (db, key)).collect()
        };
        let (elements, bytes) = (listed(&of_type.elements), names(listed(&of_type.bytes)));
        let mut kept = of_type.elements.kept().iter().chain(of_type.bytes.kept());
        let unfiltered = kept.any(|big_key| {
            let (word, bit) = bit_of(big_key.name.identity());
            big.filter[word] & bit == 0
        });
        let wrong = elements != walked || bytes != names(walked.clone()) || unfiltered;
        wrong.then(|| format!("{}: {elements:?}, {bytes:?}, not {walked:?}", kind.name()))
    })
}

/// Commands that create, grow, shrink, move and delete keys of all types; K and L are keys, N is a
/// number.
const COMMANDS: &[&str] = &[
    "set K N",
    "set K value-N px 50",
    "append K xN",
    "setrange K N z",
    "getdel K",
    "incrby K N",
    "decrby K NNN",
    "incrbyfloat K 1.5",
    "pfmerge K L",
    "bitop not K L",
    "bitfield K set u8 N 7",
    "setrange K NNN long",
    "setbit K N 1",
    "pfadd K N",
    "lpush K a N c",
    "rpop K 2",
    "ltrim K 1 -2",
    "lrem K 0 a",
    "lmove K L left right",
    "linsert K before a N",
    "sadd K a N c",
    "srem K a N",
    "spop K 2",
    "smove K L a",
    "sunionstore K L L",
    "sinterstore K L K",
    "zadd K 1 a 2 N",
    "zpopmin K 1",
    "zremrangebyrank K 0 0",
    "zrangestore K L 0 -1",
    "zunionstore K 2 K L",
    "geoadd K 13 38 N",
    "hset K f N gN v",
    "hdel K f gN",
    "hincrby K N 1",
    "hsetex K px 30 fields 2 f 1 gN 2",
    "lpush K a b c d e f g N i j k l m n o p",
    "sadd K a b c d e f g N i j k l m n o p",
    "zadd K 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 N",
    "hset K a 1 b 2 c 3 d 4 e 5 g 6 h 7 i 8 N 9",
    "linsert K after a b",
    "lset K 0 N",
    "hgetdel K fields 1 f",
    "hpexpire K 40 fields 1 f",
    "xadd K * f N",
    "xtrim K maxlen 1",
    "xgroup create K g 0 mkstream",
    "del K",
    "unlink K L",
    "rename K L",
    "renamenx K L",
    "copy K L replace",
    "copy K L db 3",
    "move K 3",
    "pexpire K 30",
    "expire K -1",
    "sort K alpha store L",
    "mset K N L NN",
    "select 0",
    "select 3",
    "swapdb 0 3",
    "eval \"redis.call('del',KEYS[1]) return redis.call('rpush',KEYS[1],'a','b')\" 1 K",
];

/// One of [`COMMANDS`] with random keys and numbers; in one case of 200, FLUSHDB or FLUSHALL.
fn any_command(rng: &mut Random) -> String {
    match rng.below(400) {
        0 => return "flushdb".into(),
        1 => return "flushall async".into(),
        _ => {}
    }
    let mut line = COMMANDS[rng.below(COMMANDS.len() as u64) as usize].to_string();
    for (from, n) in [("K", 12), ("L", 12), ("N", 40)] {
        let prefix = if from == "N" { "" } else { "k" };
        line = line.replace(from, &format!("{prefix}{}", rng.below(n)));
    }
    line
}

/// After each random command, each database's histograms of lengths equal histograms that are made
/// by a walk over all keys.
#[test]
fn keysizes_follow_any_commands() {
    for seed in 0..6 {
        let mut server = server();
        let mut rng = Random::from_seed(seed);
        for step in 0..3000 {
            if step % 500 == 0 {
                let limit = ["0", "128"][step / 500 % 2];
                say(
                    &mut server,
                    &format!("config set hash-max-listpack-entries {limit}"),
                );
                say(
                    &mut server,
                    &format!("config set set-max-listpack-entries {limit}"),
                );
                say(
                    &mut server,
                    &format!("config set zset-max-listpack-entries {limit}"),
                );
                say(
                    &mut server,
                    &format!("config set hll-sparse-max-bytes {limit}"),
                );
            }
            let line = any_command(&mut rng);
            say(&mut server, &line);
            if step % 10 == 0 {
                server.clock.now_ms += 25;
                expire::fast_cycle(&mut server);
            }
            for db in &server.data.dbs {
                let kept = db.lengths.as_deref().expect("the default");
                assert_eq!(*kept, Lengths::of(db.keys.iter()), "seed {seed}: {line}");
            }
        }
        assert!(server.data.len() > 5);
    }
}

#[test]
fn rankings_follow_the_keyspace() {
    let mut faults = BTreeSet::new();
    for seed in 0..6 {
        let mut server = tracking();
        let mut rng = Random::from_seed(seed);
        for step in 0..3000 {
            let line = any_command(&mut rng);
            say(&mut server, &line);
            if step % 10 == 0 {
                server.clock.now_ms += 25;
                expire::fast_cycle(&mut server);
            }
            finish_pass(&mut server);
            if let Some(fault) = fault(&server) {
                faults.insert(format!("after {line}: {fault}"));
                server.reset_bigkeys();
                finish_pass(&mut server);
            }
        }
    }
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_was_there_before_is_found_by_a_pass() {
    let mut server = server();
    for n in 0..300 {
        say(&mut server, &format!("setrange s{n} {n} x"));
    }
    say(&mut server, "config set bigkeys-tracking yes");
    assert!(!server.bigkeys.as_ref().unwrap().is_complete());
    finish_pass(&mut server);
    let big = server.bigkeys.as_ref().unwrap();
    assert!(big.is_complete());
    let strings = &big.of(Type::String).elements;
    assert_eq!(listed(strings)[..128], walked(&server, Type::String)[..128]);
    assert_eq!(strings.floor(), 172);
    say(&mut server, "config set bigkeys-tracking no");
    assert_eq!(server.armed & armed::BIGKEYS, 0, "off costs nothing");
}

/// After many deletions a ranking may lack keys that were too small for it before; a pass over the
/// keyspace finds these keys.
#[test]
fn the_list_is_filled_up_again() {
    let mut server = tracking();
    for n in 0..300 {
        say(&mut server, &format!("setrange s{n} {n} x"));
    }
    for n in 230..300 {
        say(&mut server, &format!("del s{n}"));
    }
    let strings =
        |server: &Server| listed(&server.bigkeys.as_ref().unwrap().of(Type::String).elements);
    assert_eq!(strings(&server).len(), 58);
    assert_eq!(strings(&server)[0].2, b"s229");
    cron(&mut server, Duration::from_secs(100));
    assert!(!server.bigkeys.as_ref().unwrap().is_complete());
    cron(&mut server, Duration::from_secs(100));
    assert_eq!(strings(&server)[..], walked(&server, Type::String)[..128]);
}

#[test]
fn writes_during_a_pass_are_not_lost() {
    let mut server = server();
    for n in 0..5000 {
        say(&mut server, &format!("setrange s{n} {} x", n % 1000));
    }
    say(&mut server, "config set bigkeys-tracking yes");
    let mut rng = Random::from_seed(5);
    let mut over = false;
    while !over {
        over = go_on(&mut server);
        for _ in 0..20 {
            let (key, len) = (rng.below(5000), rng.below(3000));
            let line = match rng.below(4) {
                0 => format!("del s{key}"),
                1 => format!("set s{key} x"),
                2 => format!("rename s{key} s{}", rng.below(5000)),
                _ => format!("setrange s{key} {len} x"),
            };
            say(&mut server, &line);
        }
    }
    let strings = listed(&server.bigkeys.as_ref().unwrap().of(Type::String).elements);
    let sizes = |list: &[(u64, u32, Vec<u8>)]| list.iter().map(|one| one.0).collect::<Vec<_>>();
    assert!(strings.len() > 60);
    assert_eq!(
        sizes(&strings),
        sizes(&walked(&server, Type::String)[..strings.len()])
    );
}

#[test]
fn bytes_of_long_values_are_estimated_well() {
    let mut server = tracking();
    for n in 0..3000 {
        let element = format!("{n}xxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        for command in ["rpush l", "zadd z 1", "xadd x * f", "sadd s", "hset h f"] {
            let value = if command == "hset h f" {
                format!("{n} {element}")
            } else {
                format!(" {element}")
            };
            say(&mut server, &format!("{command}{value}"));
        }
    }
    for (key, kind) in [
        ("l", Type::List),
        ("z", Type::Zset),
        ("x", Type::Stream),
        ("s", Type::Set),
        ("h", Type::Hash),
    ] {
        let hash = server.data.dbs[0].keys.hash(key.as_bytes());
        let Some(entry) = server.data.dbs[0].find(hash, key.as_bytes()) else {
            panic!("no {key}");
        };
        let (truth, estimate) = (
            types::memory_bytes(entry, 0) as f64,
            memory_estimate(entry) as f64,
        );
        assert!(
            (estimate / truth - 1.0).abs() < 0.1,
            "{key}: {estimate} for {truth}"
        );
        let big = server.bigkeys.as_ref().unwrap();
        assert_eq!(listed(&big.of(kind).bytes)[0].2, key.as_bytes());
    }
}
