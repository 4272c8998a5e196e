//! Every byte is in an account: for each type, MEMORY USAGE of all keys and the overhead of the
//! tables are, within 2 %, the memory that the allocator counts.

mod common;

use common::{Conn, Peer, multibulk};

/// The number of commands that are sent in one write.
const BATCH: usize = 200;
/// The number of elements of a key's collection: the keys have these sizes in turn.
const SIZES: [usize; 5] = [1, 3, 10, 30, 200];

/// Sends commands, and reads their replies, none of which may be an error.
fn run(c: &mut Conn, commands: impl Iterator<Item = Vec<String>>) {
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let batch: Vec<Vec<String>> = commands.by_ref().take(BATCH).collect();
        c.send(
            &batch
                .iter()
                .map(|argv| multibulk(argv))
                .collect::<Vec<_>>()
                .concat(),
        );
        for argv in &batch {
            let reply = c.reply();
            assert_ne!(reply[0], b'-', "{argv:?}: {}", reply.escape_ascii());
        }
    }
}

/// The number in an integer reply (`:n`).
fn integer(reply: &str) -> usize {
    let digits = reply
        .strip_prefix(':')
        .and_then(|rest| rest.strip_suffix("\r\n"));
    digits.and_then(|n| n.parse().ok()).expect(reply)
}

/// The memory that the allocator counts (`used_memory`), and the part of it that is neither keys
/// nor values (`used_memory_overhead`), in bytes.
struct Seen {
    used: usize,
    overhead: usize,
}

/// Reads `used_memory` and `used_memory_overhead` when no hash table is rehashed and the background
/// thread has freed all values.
fn look(c: &mut Conn) -> Seen {
    let field = |text: &str, name: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.strip_prefix(':'));
        value.and_then(|n| n.parse().ok()).expect(name)
    };
    for _ in 0..1000 {
        let text = c.line("INFO memory");
        if field(&text, "mem_overhead_db_hashtable_rehashing") == 0
            && field(&text, "lazyfree_pending_objects") == 0
        {
            return Seen {
                used: field(&text, "used_memory"),
                overhead: field(&text, "used_memory_overhead"),
            };
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("tables go on rehashing");
}

/// The commands that create key `n`, whose collection has `size` elements.
fn commands(kind: &str, n: usize, size: usize) -> Vec<Vec<String>> {
    let key = format!("{kind}:{n}");
    let text = |len: usize| "v".repeat(len);
    let with = |name: &str, rest: Vec<String>| [vec![name.to_string(), key.clone()], rest].concat();
    let each = |make: &dyn Fn(usize) -> Vec<String>| (0..size).flat_map(make).collect::<Vec<_>>();
    match kind {
        "string" => vec![with("SET", vec![text(13 * size)])],
        "integer" => vec![with("SET", vec![(977 * n).to_string()])],
        "volatile" => vec![with(
            "SET",
            vec![text(20), "EX".into(), (1000 + n).to_string()],
        )],
        "list" => vec![with("RPUSH", each(&|at| vec![text(7 * at % 60)]))],
        "set" => vec![with("SADD", each(&|at| vec![format!("member:{at}")]))],
        "intset" => vec![with("SADD", each(&|at| vec![(1000 * at).to_string()]))],
        "hash" => vec![with(
            "HSET",
            each(&|at| vec![format!("field:{at}"), text(7 * at % 60)]),
        )],
        "zset" => vec![with(
            "ZADD",
            each(&|at| vec![format!("{}.5", at), format!("member:{at}")]),
        )],
        "stream" => {
            let add = |at| {
                with(
                    "XADD",
                    vec![format!("{n}-{}", at + 1), "f".into(), text(20)],
                )
            };
            (0..size).map(add).collect()
        }
        "group" => {
            let add = |at| {
                with(
                    "XADD",
                    vec![format!("{n}-{}", at + 1), "f".into(), text(20)],
                )
            };
            let create = ["XGROUP", "CREATE", &key, "g", "0"]
                .map(String::from)
                .to_vec();
            let read = ["XREADGROUP", "GROUP", "g", "c", "STREAMS", &key, ">"];
            let mut all: Vec<Vec<String>> = (0..size).map(add).collect();
            all.extend([create, read.map(String::from).to_vec()]);
            all
        }
        _ => unreachable!("a kind without commands"),
    }
}

/// Creates keys of one type in a new server, and compares the growth of `used_memory` with MEMORY
/// USAGE of all keys and the growth of the overhead.
fn accounts_are_complete(kind: &str, keys: usize) {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    let before = look(&mut c);
    let size = |n: usize| SIZES[n % SIZES.len()];
    run(&mut c, (0..keys).flat_map(|n| commands(kind, n, size(n))));
    let after = look(&mut c);
    let usage: usize = (0..keys)
        .map(|n| integer(&c.line(&format!("MEMORY USAGE {kind}:{n} SAMPLES 0"))))
        .sum();
    // A key's slot in the table is counted by MEMORY USAGE and in the overhead of the tables.
    let tables = after.overhead - before.overhead - keys * size_of::<usize>();
    let (computed, seen) = (usage + tables, after.used - before.used);
    let off = computed.abs_diff(seen) * 1000 / seen;
    assert!(
        off <= 20,
        "{kind}: computed {computed} bytes, seen {seen}: {off} in a thousand off"
    );
}

macro_rules! types {
    ($($name:ident, $kind:literal, $keys:literal;)*) => {
        $(#[test]
        fn $name() {
            accounts_are_complete($kind, $keys);
        })*
    };
}

types! {
    strings, "string", 20_000;
    integers, "integer", 40_000;
    keys_with_a_time_to_live, "volatile", 40_000;
    lists, "list", 5_000;
    sets, "set", 5_000;
    sets_of_integers, "intset", 5_000;
    hashes, "hash", 5_000;
    sorted_sets, "zset", 5_000;
    streams, "stream", 2_000;
    streams_with_groups, "group", 2_000;
}

/// Connects clients that all send the same requests, and compares the growth of `used_memory` with
/// that of its part for clients.
fn accounts_of_clients_are_complete(
    state: &str,
    clients: usize,
    requests: impl Fn(usize) -> Vec<Vec<u8>>,
) {
    let server = Peer::aeris(&["--maxclients", "5000"]);
    let mut c = server.connect();
    let before = look(&mut c);
    let mut connections: Vec<Conn> = (0..clients).map(|_| server.connect()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        for request in requests(n) {
            connection.send(&request);
        }
    }
    // Clients that block get no reply: they have arrived when the server counts them as blocked.
    for connection in connections.iter_mut().filter(|_| state != "waiting") {
        for _ in 0..requests(0).len() {
            connection.reply();
        }
    }
    while state == "waiting"
        && !c
            .line("INFO clients")
            .contains(&format!("blocked_clients:{clients}\r\n"))
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let after = look(&mut c);
    let (computed, seen) = (after.overhead - before.overhead, after.used - before.used);
    let off = computed.abs_diff(seen) * 1000 / seen;
    assert!(
        off <= 20,
        "{state}: computed {computed} bytes, seen {seen}: {off} in a thousand off"
    );
}

#[test]
fn clients() {
    accounts_of_clients_are_complete("idle", 500, |_| vec![multibulk(&["PING"])]);
}

#[test]
fn watched_keys() {
    accounts_of_clients_are_complete("watching", 50, |n| {
        let keys = (0..100).map(|key| format!("key:{n}:{key}"));
        let argv: Vec<String> = std::iter::once("WATCH".to_string()).chain(keys).collect();
        vec![multibulk(&argv)]
    });
}

#[test]
fn transactions() {
    accounts_of_clients_are_complete("in a transaction", 50, |n| {
        let set = multibulk(&["SET", &format!("key:{n}"), &"v".repeat(1000)]);
        [vec![multibulk(&["MULTI"])], vec![set; 20]].concat()
    });
}

#[test]
fn subscriptions() {
    accounts_of_clients_are_complete("subscribed", 50, |n| {
        (0..100)
            .map(|channel| multibulk(&["SUBSCRIBE", &format!("channel:{n}:{channel:03}")]))
            .collect()
    });
}

#[test]
fn waiting_clients() {
    accounts_of_clients_are_complete("waiting", 200, |n| {
        vec![multibulk(&[
            "BLPOP",
            &format!("list:{n}"),
            "list:of:all",
            "100",
        ])]
    });
}
