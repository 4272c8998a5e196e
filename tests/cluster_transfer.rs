//! The atomic move of slots between nodes of aeris and Valkey 9.1, in both directions: nothing that
//! was acknowledged is lost, no client sees keys before they belong to their node, and a move that
//! ends early leaves everything as it was.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Conn, Peer, Reply, free_port, multibulk, parse_reply};

/// The slots 0 to `LAST` move. The first node has all slots up to 8191.
const LAST: u16 = 99;

type Start = fn(&[&str]) -> Option<Peer>;

fn ours(args: &[&str]) -> Option<Peer> {
    Some(Peer::aeris(args))
}

fn node(start: Start) -> Option<Peer> {
    let bus = free_port().to_string();
    start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        // The default of `cluster-node-timeout`, since the machine of the tests may be slow.
        "--cluster-node-timeout",
        "15000",
        "--cluster-allow-replica-migration",
        "no",
        "--enable-debug-command",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

fn text(c: &mut Conn, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match parse_reply(&c.cmd(&words)) {
        Reply::Bulk(bytes) | Reply::Line(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Two primaries with half of the slots each, source and target of a move, and a replica of the
/// target.
struct Pair {
    source: Peer,
    target: Peer,
    replica: Option<Peer>,
    target_name: String,
}

impl Pair {
    fn new(source: Start, target: Start) -> Option<Pair> {
        let (source, target) = (node(source)?, node(target)?);
        let (mut a, mut b) = (source.connect(), target.connect());
        assert_eq!(text(&mut a, "cluster addslotsrange 0 8191"), "+OK");
        assert_eq!(text(&mut b, "cluster addslotsrange 8192 16383"), "+OK");
        text(&mut a, "cluster set-config-epoch 1");
        text(&mut b, "cluster set-config-epoch 2");
        let pair = Pair {
            target_name: text(&mut b, "cluster myid"),
            source,
            target,
            replica: None,
        };
        pair.meet(&pair.target);
        Some(pair)
    }

    fn meet(&self, other: &Peer) {
        let bus = parse_reply(&other.connect().cmd(&["config", "get", "cluster-port"])).texts();
        let bus = String::from_utf8_lossy(&bus[1]).into_owned();
        let line = format!("cluster meet 127.0.0.1 {} {bus}", other.port);
        assert_eq!(text(&mut self.source.connect(), &line), "+OK");
        for server in [&self.source, &self.target, other] {
            let mut c = server.connect();
            wait_until("a cluster", || {
                text(&mut c, "cluster info").contains("cluster_state:ok")
            });
        }
    }

    fn add_replica(&mut self, start: Start) -> Option<()> {
        let replica = node(start)?;
        self.meet(&replica);
        let mut c = replica.connect();
        let line = format!("cluster replicate {}", self.target_name);
        wait_until("a replica", || text(&mut c, &line) == "+OK");
        wait_until("a synced replica", || {
            text(&mut c, "info replication").contains("master_link_status:up")
        });
        self.replica = Some(replica);
        Some(())
    }

    fn begin(&self) {
        let line = format!(
            "cluster migrateslots slotsrange 0 49 50 {LAST} node {}",
            self.target_name
        );
        assert_eq!(text(&mut self.source.connect(), &line), "+OK");
    }
}

/// A field of the youngest job in a node's reply to CLUSTER GETSLOTMIGRATIONS.
fn field(server: &Peer, name: &str) -> String {
    let reply = parse_reply(&server.connect().cmd(&["cluster", "getslotmigrations"]));
    let Reply::Many(_, jobs) = reply else {
        panic!("{reply:?}");
    };
    let Some(Reply::Many(_, fields)) = jobs.into_iter().next() else {
        return String::new();
    };
    let words: Vec<String> = fields
        .into_iter()
        .map(|field| match field {
            Reply::Bulk(bytes) | Reply::Line(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    let at = words.iter().position(|word| word == name);
    at.map_or(String::new(), |at| words[at + 1].clone())
}

fn wait_state(server: &Peer, state: &str) {
    wait_until(
        &format!("{state}, but {}", field(server, "message")),
        || field(server, "state") == state,
    );
}

/// Names of keys in the slots that move, or, if `moving` is false, in slots that stay.
fn names(moving: bool, count: usize) -> Vec<String> {
    let slot = |name: &str| aeris::db::slot::key_slot(name.as_bytes());
    let fits = |name: &String| match moving {
        true => slot(name) <= LAST,
        false => (LAST + 1..8192).contains(&slot(name)),
    };
    let all = (0..).map(|n| format!("key:{n}"));
    all.filter(fits).take(count).collect()
}

/// Sends all lines as requests, and returns all replies. Fails if a reply is an error.
fn pipeline(c: &mut Conn, lines: &[String]) -> Vec<Reply> {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        c.send(&multibulk(&words));
    }
    let replies = lines.iter().map(|_| parse_reply(&c.reply()));
    let replies: Vec<Reply> = replies.collect();
    for (line, reply) in lines.iter().zip(&replies) {
        let failed = matches!(reply, Reply::Line(text) if text.starts_with(b"-"));
        assert!(!failed, "{line}: {reply:?}");
    }
    replies
}

/// Creates keys of each type, with and without a time to live.
fn fill(c: &mut Conn, names: &[String]) {
    let mut lines = Vec::new();
    for (at, name) in names.iter().enumerate() {
        lines.push(match at % 6 {
            0 => format!("set {name} v{at}"),
            1 => format!("rpush {name} a b c"),
            2 => format!("sadd {name} 1 2 3"),
            3 => format!("zadd {name} 1.5 a 2 b"),
            4 => format!("hset {name} f v g w"),
            _ => format!("xadd {name} 1-{} f v", at + 1),
        });
        if at % 5 == 0 {
            lines.push(format!("pexpireat {name} 33177117420000"));
        }
    }
    pipeline(c, &lines);
}

/// The values and expiry times of the keys that `fill` has created.
fn contents(c: &mut Conn, names: &[String]) -> Vec<Reply> {
    let mut lines = Vec::new();
    for (at, name) in names.iter().enumerate() {
        lines.push(match at % 6 {
            0 => format!("get {name}"),
            1 => format!("lrange {name} 0 -1"),
            2 => format!("smembers {name}"),
            3 => format!("zrange {name} 0 -1 withscores"),
            4 => format!("hgetall {name}"),
            _ => format!("xrange {name} - +"),
        });
        lines.push(format!("pexpiretime {name}"));
    }
    let replies = pipeline(c, &lines).into_iter();
    replies.map(Reply::sorted).collect()
}

/// Increments the counters in turn, following redirects, until `stop` is set. Returns how often
/// each counter was acknowledged.
fn count_up(ports: [u16; 2], names: Vec<String>, stop: Arc<AtomicBool>) -> Vec<u64> {
    let mut conns = ports.map(Conn::new);
    let mut acked = vec![0; names.len()];
    let mut at_node = vec![0; names.len()];
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = n % names.len();
        n += 1;
        let reply = text(&mut conns[at_node[key]], &format!("incr {}", names[key]));
        if reply.contains("MOVED") {
            at_node[key] = usize::from(reply.contains(&ports[1].to_string()));
        } else if !reply.contains("TRYAGAIN") {
            assert!(reply.starts_with(':'), "{reply}");
            acked[key] += 1;
        }
    }
    acked
}

fn counter(c: &mut Conn, name: &str) -> u64 {
    text(c, &format!("get {name}")).parse().unwrap_or(0)
}

/// Moves slots while clients write; then each key and each acknowledged write must be there.
fn moves_under_load(source: Start, target: Start) {
    let Some(mut pair) = Pair::new(source, target) else {
        return;
    };
    if pair.add_replica(target).is_none() {
        return;
    }
    let mut a = pair.source.connect();
    let all = names(true, 320);
    let (keys, counters) = all.split_at(300);
    let staying = names(false, 20);
    fill(&mut a, keys);
    let before = contents(&mut a, keys);
    let stop = Arc::new(AtomicBool::new(false));
    let ports = [pair.source.port, pair.target.port];
    let (names, flag) = ([counters, &staying].concat(), Arc::clone(&stop));
    let writer = std::thread::spawn(move || count_up(ports, names, flag));
    let last = staying.last().expect("a key");
    wait_until("a first round", || counter(&mut a, last) > 0);
    pair.begin();
    wait_state(&pair.source, "success");
    wait_state(&pair.target, "success");
    let mut b = pair.target.connect();
    let seen = counter(&mut b, &counters[0]);
    wait_until("a write at the target", || {
        counter(&mut b, &counters[0]) > seen
    });
    stop.store(true, Ordering::Relaxed);
    let acked = writer.join().expect("a writer without an error");
    for (name, acked) in counters.iter().zip(&acked) {
        assert_eq!(counter(&mut b, name), *acked, "{name}");
    }
    for (name, acked) in staying.iter().zip(&acked[counters.len()..]) {
        assert_eq!(counter(&mut a, name), *acked, "{name}");
    }
    assert_eq!(contents(&mut b, keys), before);
    assert_eq!(text(&mut a, "dbsize"), ":20");
    assert!(text(&mut a, &format!("get {}", keys[0])).contains("MOVED"));
    let replica = pair.replica.as_ref().expect("a replica");
    let mut r = replica.connect();
    text(&mut r, "readonly");
    wait_until("the counters at the replica", || {
        let mut both = counters.iter().zip(&acked);
        both.all(|(name, acked)| counter(&mut r, name) == *acked)
    });
    assert_eq!(contents(&mut r, keys), before);
    wait_state(replica, "success");
}

#[test]
fn between_our_nodes() {
    moves_under_load(ours, ours);
}

#[test]
fn from_valkey_to_ours() {
    moves_under_load(Peer::valkey9, ours);
}

#[test]
fn from_ours_to_valkey() {
    moves_under_load(ours, Peer::valkey9);
}

#[test]
fn what_arrives_is_hidden_and_removed_when_the_move_is_cancelled() {
    for source in [ours as Start, Peer::valkey9] {
        let Some(mut pair) = Pair::new(source, ours) else {
            continue;
        };
        let keys = names(true, 60);
        let (mut a, mut b) = (pair.source.connect(), pair.target.connect());
        fill(&mut a, &keys);
        let slot = aeris::db::slot::key_slot(keys[0].as_bytes());
        assert_eq!(text(&mut a, "debug slotmigration prevent-pause 1"), "+OK");
        pair.begin();
        wait_state(&pair.source, "waiting-to-pause");
        assert_eq!(field(&pair.target, "state"), "waiting-for-paused");
        assert_eq!(
            field(&pair.target, "slot_ranges"),
            format!("0-49 50-{LAST}")
        );
        // A new replica of the target gets a snapshot in the middle of the move.
        pair.add_replica(ours).expect("one of ours");
        let replica = pair.replica.as_ref().expect("a replica");
        assert_eq!(field(replica, "state"), "occurring-on-primary");
        let count = format!("cluster countkeysinslot {slot}");
        for server in [&pair.target, replica] {
            let mut c = server.connect();
            assert_ne!(text(&mut c, &count), ":0");
            assert_eq!(text(&mut c, "dbsize"), ":0");
            assert_eq!(c.line("keys *"), "*0\r\n");
            assert_eq!(c.line("scan 0 count 1000"), "*2\r\n$1\r\n0\r\n*0\r\n");
            assert_eq!(c.line("randomkey"), "$-1\r\n");
        }
        assert!(text(&mut b, &format!("get {}", keys[0])).contains("MOVED"));
        // A key that is created on the source during the move arrives at the target, too.
        assert_eq!(text(&mut a, &format!("set {{{}}}x 1", keys[0])), "+OK");
        assert_eq!(text(&mut a, "cluster cancelslotmigrations"), "+OK");
        assert_eq!(field(&pair.source, "state"), "cancelled");
        wait_state(&pair.target, "failed");
        assert!(field(&pair.target, "message").contains("Connection lost to source"));
        wait_state(replica, "failed");
        for server in [&pair.target, replica] {
            let mut c = server.connect();
            wait_until("removal", || text(&mut c, &count) == ":0");
        }
        assert_eq!(text(&mut a, "dbsize"), ":61");
    }
}

/// A job was granted the slots, but its target never claims them. Other slots are written
/// meanwhile. The connection ends, and a later answer of the target proves that it has not taken
/// the slots.
#[test]
fn only_writers_of_the_moving_slots_wait_and_a_proof_lets_them_go_on() {
    let pair = Pair::new(ours, ours).expect("nodes of ours");
    let (moving, staying) = (&names(true, 1)[0], &names(false, 1)[0]);
    let (mut a, mut b) = (pair.source.connect(), pair.target.connect());
    assert_eq!(
        text(&mut b, "debug slotmigration prevent-failover 1"),
        "+OK"
    );
    pair.begin();
    wait_state(&pair.source, "failover-granted");
    assert_eq!(text(&mut a, &format!("set {staying} 1")), "+OK");
    assert!(
        text(&mut a, &format!("get {moving}")).contains("-1"),
        "reads go on"
    );
    let mut waiting = pair.source.connect();
    waiting.send(format!("set {moving} 1\r\n").as_bytes());
    assert!(waiting.has_nothing());
    assert_eq!(text(&mut a, &format!("set {staying} 2")), "+OK");
    // The target gives the job up, because its connection is closed.
    let list = text(&mut b, "client list");
    let link = list
        .lines()
        .find(|line| line.contains("flags=i"))
        .expect("the link");
    let id = link.split([' ', '=']).nth(1).expect("its id");
    text(&mut b, &format!("client kill id {id}"));
    wait_state(&pair.source, "failed");
    assert!(
        field(&pair.source, "message").contains("given up"),
        "{}",
        field(&pair.source, "message")
    );
    assert_eq!(waiting.reply(), b"+OK\r\n");
    assert_eq!(text(&mut a, &format!("get {moving}")), "1");
}

/// If the target is stopped after the grant, nothing is written to the moving slots until the
/// source knows whether the target has taken them.
#[test]
fn a_stopped_target_is_waited_for() {
    let mut pair = Pair::new(ours, ours).expect("nodes of ours");
    let moving = &names(true, 1)[0];
    let (mut a, mut b) = (pair.source.connect(), pair.target.connect());
    assert_eq!(
        text(&mut a, "config set cluster-manual-failover-timeout 2000"),
        "+OK"
    );
    assert_eq!(
        text(&mut b, "debug slotmigration prevent-failover 1"),
        "+OK"
    );
    pair.begin();
    wait_state(&pair.source, "failover-granted");
    wait_until("refusals", || {
        text(&mut a, &format!("set {moving} 1")).contains("TRYAGAIN")
    });
    assert_eq!(field(&pair.source, "state"), "failover-granted");
    pair.target.kill();
    pair.target.start_again(&[]);
    wait_state(&pair.source, "failed");
    assert_eq!(text(&mut a, &format!("set {moving} 1")), "+OK");
}

#[test]
fn each_mistake_has_its_text() {
    let pair = Pair::new(ours, ours).expect("nodes of ours");
    let mut a = pair.source.connect();
    let (me, other) = (text(&mut a, "cluster myid"), &pair.target_name);
    let unknown = "a".repeat(40);
    for (line, error) in [
        (
            "migrateslots slotsrange 0".to_string(),
            "No end slot for final slot range",
        ),
        ("migrateslots slotsrange 0 1".into(), "syntax error"),
        ("migrateslots slotsrange 0 1 node".into(), "syntax error"),
        (
            "migrateslots slotsrange 0 1 node abc".into(),
            "Invalid node name: abc",
        ),
        (
            format!("migrateslots slotsrange 0 1 node {unknown}"),
            "Unknown node name: a",
        ),
        (
            format!("migrateslots slotsrange 0 1 node {me}"),
            "Target node can not be this node.",
        ),
        (
            format!("migrateslots slotsrange 8192 8193 node {other}"),
            "Slots are not served by this node.",
        ),
        (
            format!("migrateslots slotsrange 0 9000 node {other}"),
            "Requested slots span multiple shards",
        ),
        (
            format!("migrateslots slotsrange 0 5 node {other} slotsrange 3 4 node {other}"),
            "Slot ranges in migrations overlap",
        ),
        ("cancelslotmigrations".into(), "No migrations ongoing"),
        (
            "syncslots ack".into(),
            "CLUSTER SYNCSLOTS ACK should only be used by slot migration clients",
        ),
        ("syncslots unknown".into(), "syntax error"),
        (
            format!("syncslots finish state success name {unknown}"),
            "No such slot migration job",
        ),
        (
            format!("syncslots establish source {other} name {unknown} slotsrange 0 1"),
            "Target node does not agree about current slot ownership",
        ),
    ] {
        let reply = text(&mut a, &format!("cluster {line}"));
        assert!(reply.contains(error), "{line}: {reply}");
    }
}

/// CLUSTERSCAN over both nodes finds each key once.
#[test]
fn a_scan_of_the_cluster_finds_each_key() {
    let pair = Pair::new(ours, ours).expect("nodes of ours");
    let mut conns = [pair.source.connect(), pair.target.connect()];
    let mut expected: Vec<String> = (0..500).map(|n| format!("key:{n}")).collect();
    for (at, c) in conns.iter_mut().enumerate() {
        let is_here =
            |name: &&String| usize::from(aeris::db::slot::key_slot(name.as_bytes()) > 8191) == at;
        let here = expected.iter().filter(is_here);
        let lines: Vec<String> = here.map(|name| format!("set {name} v")).collect();
        pipeline(c, &lines);
    }
    let (mut found, mut cursor, mut at) = (Vec::new(), "0".to_string(), 0);
    loop {
        let words = ["clusterscan", &cursor, "count", "20"];
        match parse_reply(&conns[at].cmd(&words)) {
            Reply::Line(error) => {
                assert!(error.starts_with(b"-MOVED"), "{error:?}");
                at = 1 - at;
            }
            Reply::Many(_, mut parts) => {
                let Some(Reply::Many(_, keys)) = parts.pop() else {
                    panic!("{parts:?}");
                };
                let Some(Reply::Bulk(next)) = parts.pop() else {
                    panic!("{parts:?}");
                };
                cursor = String::from_utf8(next).expect("text");
                found.extend(Reply::Many(b'*', keys).texts());
                if cursor == "0" {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let mut found: Vec<String> = found
        .into_iter()
        .map(|name| String::from_utf8(name).expect("text"))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let first = &mut conns[0];
    let mut say = |line: &str| first.line(line).replace("\r\n", " ");
    assert_eq!(
        say("clusterscan 0-{06S}-0 match {Qi}*"),
        "*2 $6 0-{Qi}-0 *0 ".replace("$6", "$8")
    );
    assert_eq!(say("clusterscan 0-{Qi}-0 match {06S}*"), "*2 $1 0 *0 ");
    assert_eq!(
        say("clusterscan 0-{Qi}-0 slot 0"),
        "-ERR Cursor slot mismatch with SLOT argument "
    );
    assert_eq!(say("clusterscan invalid"), "-ERR Invalid cursor ");
    assert_eq!(say("clusterscan 0-{06S}-0 count 0"), "-ERR syntax error ");
    assert_eq!(
        say("clusterscan 0-{06S}-0 slot 0 slot 0"),
        "-ERR SLOT option can only be specified once "
    );
    assert!(say("clusterscan 0-{6ZJ}-0").starts_with("-MOVED 16383 "));
    assert!(say("clusterscan 0-{06S}-0 count 100000").contains("0-{8YG}-0"));
}

/// The target closes the connection of a source that breaks the protocol of CLUSTER SYNCSLOTS, or
/// that writes what does not belong to the move.
#[test]
fn a_source_that_writes_elsewhere_loses_its_connection() {
    let pair = Pair::new(ours, ours).expect("nodes of ours");
    let source = text(&mut pair.source.connect(), "cluster myid");
    let own = &names(false, 1)[0];
    let arriving = &names(true, 1)[0];
    for (at, wrong) in [
        "cluster syncslots paused".to_string(),
        "cluster syncslots failover-granted".into(),
        format!("set {own} 1"),
        format!("lpush {arriving} x"),
    ]
    .iter()
    .enumerate()
    {
        let mut c = pair.target.connect();
        let name = format!("{at}").repeat(40);
        let line =
            format!("cluster syncslots establish source {source} name {name} slotsrange 0 99");
        assert_eq!(text(&mut c, &line), "+OK");
        c.send(b"*3\r\n$7\r\nCLUSTER\r\n$9\r\nSYNCSLOTS\r\n$3\r\nACK\r\n");
        c.send(format!("set {arriving} 1\r\n").as_bytes());
        c.send(format!("{wrong}\r\n").as_bytes());
        wait_until("the end of the connection", || c.closed());
        wait_state(&pair.target, "failed");
        let mut b = pair.target.connect();
        assert_eq!(text(&mut b, "dbsize"), ":0");
        let slot = aeris::db::slot::key_slot(arriving.as_bytes());
        let count = format!("cluster countkeysinslot {slot}");
        assert_eq!(text(&mut b, &count), ":0");
    }
}

/// A replica knows which slots its primary imports or migrates, so that a move by CLUSTER SETSLOT
/// can go on after a failover.
#[test]
fn a_replica_knows_what_setslot_moves() {
    for primary in [ours as Start, Peer::valkey9] {
        let Some(mut pair) = Pair::new(ours, primary) else {
            continue;
        };
        pair.add_replica(ours).expect("one of ours");
        let source = text(&mut pair.source.connect(), "cluster myid");
        let mut b = pair.target.connect();
        let mut r = pair.replica.as_ref().expect("a replica").connect();
        // The replica must be online: a snapshot from before CLUSTER SETSLOT has no open slot, and
        // only a replica that is online gets the command.
        wait_until("the replica is online", || {
            text(&mut b, "info replication").contains("state=online")
        });
        let line = format!("cluster setslot 5 importing {source}");
        assert_eq!(text(&mut b, &line), "+OK");
        let open = format!("[5-<-{source}]");
        wait_until("an open slot", || {
            text(&mut r, "cluster nodes").contains(&open)
        });
        assert!(text(&mut r, &line).contains("only with masters"));
        assert_eq!(text(&mut b, "cluster setslot 5 stable"), "+OK");
        wait_until("no open slot", || {
            !text(&mut r, "cluster nodes").contains(&open)
        });
    }
}
