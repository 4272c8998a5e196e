//! Slots of a cluster node and its clients: redirects, keys by slot, shard channels.
//!
//! The replies are those of Redis 7.0 and 8.2.

mod common;

use common::{Conn, Peer, free_port};

/// Two nodes with half of the slots each: `foo` (12182) belongs to the second one, `bar` (5061) and
/// `hello` (866) to the first one.
struct Halves {
    node: Peer,
    other: Peer,
}

impl Halves {
    fn new() -> Halves {
        let halves = Halves {
            node: cluster_node(&[]),
            other: cluster_node(&[]),
        };
        let (mut a, mut b) = (halves.node.connect(), halves.other.connect());
        assert_eq!(a.line("cluster addslotsrange 0 8191"), "+OK\r\n");
        assert_eq!(b.line("cluster addslotsrange 8192 16383"), "+OK\r\n");
        let bus = b.line("config get cluster-port");
        let bus = bus.split("\r\n").nth(4).expect("its value");
        let meet = format!("cluster meet 127.0.0.1 {} {bus}", halves.other.port);
        assert_eq!(a.line(&meet), "+OK\r\n");
        for c in [&mut a, &mut b] {
            while !c.line("cluster info").contains("cluster_state:ok\r") {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        halves
    }

    /// Runs lines on a connection to the first node, see [`run`]. In the lines, OTHER stands for
    /// the name of the second node and THERE for its address.
    fn run(&self, c: &mut Conn, lines: &str) {
        let name = show(&self.other.connect().cmd(&["cluster", "myid"]));
        let address = format!("127.0.0.1:{}", self.other.port);
        run(c, &lines.replace("OTHER", &name).replace("THERE", &address));
    }
}

/// A cluster node that knows no other node. The port of the node's cluster bus is a free port: the
/// default, 10000 above `port`, may be one that the system gives to outgoing connections.
fn cluster_node(args: &[&str]) -> Peer {
    let bus = free_port().to_string();
    let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    all.extend_from_slice(args);
    Peer::aeris(&all)
}

/// A node that owns all slots.
fn full(args: &[&str]) -> Peer {
    let node = cluster_node(args);
    let mut c = node.connect();
    assert_eq!(c.line("cluster addslotsrange 0 16383"), "+OK\r\n");
    // A node that was just started takes no writes for two seconds.
    while !c.line("cluster info").contains("cluster_state:ok\r") {
        assert_eq!(c.line("cluster delslots 0"), "+OK\r\n");
        assert_eq!(c.line("cluster addslots 0"), "+OK\r\n");
    }
    node
}

/// The text of a reply in one line, without the lengths of bulk strings.
fn show(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).replace("$-1\r\n", "nil\r\n");
    let words = text.split("\r\n").filter(|line| !line.starts_with('$'));
    words.collect::<Vec<_>>().join(" ").trim_end().to_string()
}

/// The words of a line; a text in single quotes is one word.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_string)),
            _ => words.push(part.replace("\\n", "\n")),
        }
    }
    words
}

/// Runs lines of `command => reply`; an expected reply that ends with `...` is only the beginning
/// of the reply.
fn run(c: &mut Conn, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once(" => ").expect("a command and its reply");
        let reply = show(&c.cmd(&words(command)));
        match expected.strip_suffix("...") {
            Some(start) => assert!(reply.starts_with(start), "{command}: {reply}"),
            None => assert_eq!(reply, expected, "{command}"),
        }
    }
}

#[test]
fn commands_on_several_slots_or_databases_are_refused() {
    let node = full(&[]);
    let mut c = node.connect();
    run(
        &mut c,
        "set bar 1 => +OK
         mget bar hello => -CROSSSLOT Keys in request don't hash to the same slot
         mget {bar}1 {bar}2 => *2 nil nil
         sort bar store foo => -CROSSSLOT Keys in request don't hash to the same slot
         eval 'return KEYS[1]' 2 bar hello => -CROSSSLOT Keys in request don't hash to the same slot
         eval 'return 1' x => -ERR value is not an integer or out of range
         ssubscribe foo bar => -CROSSSLOT Keys in request don't hash to the same slot
         readonly => +OK
         readwrite => +OK
         asking => +OK
         select 0 => +OK
         select 1 => -ERR SELECT is not allowed in cluster mode
         swapdb 0 1 => -ERR SWAPDB is not allowed in cluster mode
         move bar 1 => -ERR MOVE is not allowed in cluster mode
         copy bar {bar}2 db 1 => -ERR DB index is out of range
         copy bar {bar}2 db 0 => :1
         get {bar}2 => 1
         multi => +OK
         get bar => +QUEUED
         get hello => +QUEUED
         exec => -CROSSSLOT Keys in request don't hash to the same slot
         ping => +PONG
         multi => +OK
         get bar => +QUEUED
         get {bar}2 => +QUEUED
         exec => *2 1 1
         exec => -ERR EXEC without MULTI",
    );
}

/// The names of keys that SORT builds from a pattern must be in the slot of the sorted key.
#[test]
fn patterns_of_sort_keep_to_the_slot() {
    let node = full(&[]);
    let mut c = node.connect();
    run(
        &mut c,
        "rpush {a}list 2 1 => :2
         sort {a}list by w* => -ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.
         sort {a}list by {b}w* => -ERR BY option of SORT denied in Cluster mode...
         sort {a}list by {a*} => -ERR BY option of SORT denied in Cluster mode...
         sort nosuch by w* => -ERR BY option of SORT denied in Cluster mode...
         sort_ro {a}list by w* wrong => -ERR BY option of SORT denied in Cluster mode...
         sort {a}list by nosort => *2 2 1
         sort {a}list by w{a}* => *2 1 2
         sort {a}list get w* => -ERR GET option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.
         sort {a}list get x => -ERR GET option of SORT denied in Cluster mode...
         sort {a}list get # => *2 1 2
         sort {a}list get {a}x => *2 nil nil
         sort {a}list get {a}w*->f => *2 nil nil",
    );
}

#[test]
fn a_script_keeps_to_the_slot_of_its_keys() {
    let node = full(&[]);
    let mut c = node.connect();
    run(
        &mut c,
        "eval 'return {redis.call(\"get\",\"bar\"),redis.call(\"get\",\"hello\")}' 0 => *2 nil nil
         eval 'return redis.pcall(\"mget\",\"bar\",\"hello\")' 1 bar => -ERR Command 'mget' in script attempted to access keys that don't hash to the same slot
         eval '#!lua\\nreturn {redis.call(\"get\",\"bar\"),redis.call(\"get\",\"hello\")}' 0 => -ERR Script attempted to access keys that do not hash to the same slot script: cb894a92f8086d0fe22b4bd0591fe388753d58eb, on @user_script:2.
         eval '#!lua\\nreturn redis.pcall(\"get\",\"hello\")' 1 bar => -ERR Script attempted to access keys that do not hash to the same slot
         eval '#!lua flags=allow-cross-slot-keys\\nreturn {redis.call(\"get\",\"bar\"),redis.call(\"get\",\"hello\")}' 1 bar => *2 nil nil
         eval '#!lua flags=allow-cross-slot-keys\\nreturn 1' 2 bar hello => -CROSSSLOT Keys in request don't hash to the same slot
         eval '#!lua flags=no-cluster\\nreturn 1' 1 bar => -ERR Can not run script on cluster, 'no-cluster' flag is set.
         eval '#!lua\\nreturn redis.call(\"publish\",\"foo\",\"x\")' 1 bar => :0
         multi => +OK
         eval '#!lua\\nreturn redis.pcall(\"get\",\"hello\")' 0 => +QUEUED
         get bar => +QUEUED
         exec => *2 -ERR Script attempted to access keys that do not hash to the same slot nil",
    );
}

#[test]
fn a_cluster_that_is_down_serves_what_the_settings_allow() {
    let node = cluster_node(&[]);
    let mut c = node.connect();
    run(
        &mut c,
        "get bar => -CLUSTERDOWN Hash slot not served
         cluster addslotsrange 0 8191 => +OK
         get foo => -CLUSTERDOWN Hash slot not served
         get bar => -CLUSTERDOWN The cluster is down
         ssubscribe foo => -CLUSTERDOWN Hash slot not served
         spublish bar 1 => :0
         eval 'return redis.pcall(\"get\",\"foo\")' 0 => -ERR Script attempted to access a slot not served
         eval 'return redis.pcall(\"get\",\"bar\")' 0 => -ERR Script attempted to execute a command while the cluster is down
         config set cluster-allow-reads-when-down yes => +OK
         get bar => nil
         set bar 1 => -CLUSTERDOWN The cluster is down and only accepts read commands
         multi => +OK
         set bar 1 => -CLUSTERDOWN The cluster is down and only accepts read commands
         exec => -EXECABORT Transaction discarded because of previous errors.
         multi => +OK
         get bar => +QUEUED
         exec => *1 nil
         eval 'return redis.pcall(\"set\",\"bar\",\"1\")' 0 => -ERR Script attempted to execute a write command while the cluster is down and readonly
         config set cluster-allow-pubsubshard-when-down no => +OK
         spublish bar 1 => -CLUSTERDOWN The cluster is down",
    );
}

#[test]
fn clients_that_wait_and_subscribers_leave_with_the_slot() {
    let node = full(&[]);
    let (mut a, mut waits, mut subscribed) = (node.connect(), node.connect(), node.connect());
    waits.send(b"blpop bar 0\r\n");
    run(
        &mut subscribed,
        "ssubscribe bar => *3 ssubscribe bar :1
         ssubscribe hello => *3 ssubscribe hello :2",
    );
    while !a.line("info clients").contains("blocked_clients:1\r") {}
    run(&mut a, "cluster delslots 5061 => +OK");
    assert_eq!(show(&waits.reply()), "-CLUSTERDOWN The cluster is down");
    assert_eq!(show(&subscribed.reply()), "*3 sunsubscribe bar :1");
    run(&mut a, "pubsub shardchannels => *1 hello");
    run(&mut waits, "ping => +PONG");
}

#[test]
fn setslot_checks_its_arguments() {
    let node = full(&[]);
    let mut c = node.connect();
    let syntax = "-ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP";
    run(
        &mut c,
        &"cluster setslot 1 foo => SYNTAX
         cluster setslot 1 node => SYNTAX
         cluster setslot 1 node x => -ERR Unknown node x
         cluster setslot 1 migrating x => -ERR I don't know about node x
         cluster setslot 1 importing x => -ERR I'm already the owner of hash slot 1
         cluster setslot 99999 stable => -ERR Invalid or out of range slot
         cluster setslot x stable => -ERR Invalid or out of range slot
         cluster setslot 1 stable => +OK
         cluster setslot 1 stable x => SYNTAX
         cluster setslot 1 stable timeout => -ERR Missing timeout value
         cluster setslot 1 stable timeout x => -ERR timeout is not an integer or out of range
         cluster setslot 1 stable timeout -1 => -ERR timeout is negative
         cluster setslot 1 stable timeout 100 => +OK
         cluster countkeysinslot 16384 => -ERR Invalid slot
         cluster countkeysinslot x => -ERR value is not an integer or out of range
         cluster getkeysinslot 5061 -1 => -ERR Invalid slot or number of keys
         cluster getkeysinslot 16384 1 => -ERR Invalid slot or number of keys
         cluster getkeysinslot 1 x => -ERR value is not an integer or out of range"
            .replace("SYNTAX", syntax),
    );
}

#[test]
fn keys_are_listed_and_flushed_by_slot() {
    let node = full(&["--appendonly", "yes"]);
    let mut c = node.connect();
    run(
        &mut c,
        "set bar 1 => +OK
         set {bar}2 1 => +OK
         set hello 1 => +OK
         keys {bar}* => *1 {bar}2
         keys hello => *1 hello
         keys {foo}* => *0
         scan 0 match {bar}* count 100 => *2 0 *1 {bar}2
         dbsize => :3
         cluster flushslot 5061 foo => -ERR syntax error
         cluster flushslot 99999 => -ERR Invalid or out of range slot
         cluster flushslot 5061 => +OK
         cluster countkeysinslot 5061 => :0
         dbsize => :1
         randomkey => hello
         debug loadaof => +OK
         keys * => *1 hello",
    );
}

#[test]
fn slots_and_shards_show_the_node() {
    let node = full(&[]);
    let (mut c, port) = (node.connect(), node.port);
    let id = show(&c.cmd(&["cluster", "myid"]));
    let slots = format!("cluster slots => *1 *3 :0 :16383 *4  :{port} {id} *0");
    run(&mut c, &slots);
    let shards = show(&c.cmd(&["cluster", "shards"]));
    let expected = format!(
        "*1 *4 slots *2 :0 :16383 nodes *1 *14 id {id} port :{port} ip  endpoint  role master \
         replication-offset :0 health online"
    );
    assert_eq!(shards, expected);
}

#[test]
fn slots_are_charged_with_their_commands() {
    let node = full(&["--cluster-slot-stats-enabled", "yes"]);
    let mut c = node.connect();
    let counts = |c: &mut Conn, slot: u16| {
        let range = slot.to_string();
        let reply = show(&c.cmd(&["cluster", "slot-stats", "slotsrange", &range, &range]));
        let fields: Vec<&str> = reply.split(' ').collect();
        assert_eq!(
            fields[..4],
            ["*1", "*2", &format!(":{slot}"), "*8"],
            "{reply}"
        );
        [fields[5], fields[9], fields[11]].join(" ")
    };
    run(&mut c, "set bar 1 => +OK\n get bar => 1\n get bar => 1");
    assert_eq!(counts(&mut c, 5061), ":1 :73 :19");
    run(
        &mut c,
        "eval 'return redis.call(\"get\",\"bar\")' 1 bar => 1",
    );
    assert_eq!(counts(&mut c, 5061), ":1 :73 :26");
    // CLUSTER SLOT-STATS counts all requests of a transaction for the slot: 15 + 29 + 14 bytes.
    run(
        &mut c,
        "multi => +OK\n set bar 2 => +QUEUED\n exec => *1 +OK",
    );
    assert_eq!(counts(&mut c, 5061), ":1 :131 :35");
    // An inline request of 11 bytes is counted as 11 bytes, not as the longer array of its
    // arguments.
    let mut inline = node.connect();
    inline.send(b"set bar 3\r\n");
    assert_eq!(show(&inline.reply()), "+OK");
    assert_eq!(counts(&mut c, 5061), ":1 :142 :40");
    // CLUSTER SLOT-STATS counts a shard message for each subscriber: 4 + 38 bytes, after 34 of the
    // subscription.
    run(&mut inline, "ssubscribe bar => *3 ssubscribe bar :1");
    run(&mut c, "spublish bar hello => :1");
    assert_eq!(counts(&mut c, 5061), ":1 :210 :116");
    run(
        &mut c,
        "mget bar foo => -CROSSSLOT Keys in request don't hash to the same slot
         config resetstat => +OK",
    );
    assert_eq!(counts(&mut c, 5061), ":1 :0 :0");
    run(
        &mut c,
        "set bar 1 => +OK
         cluster delslots 5061 => +OK
         cluster addslots 5061 => +OK",
    );
    assert_eq!(counts(&mut c, 5061), ":1 :0 :0");
    let order = "*1 *2 :5061 *2 key-count :1";
    run(
        &mut c,
        &"config set cluster-slot-stats-enabled no => +OK
         cluster slot-stats orderby key-count limit 1 => EXPECTED
         cluster slot-stats orderby key-count asc limit 1 => *1 *2 :0 *2 key-count :0
         cluster slot-stats orderby cpu-usec => -ERR Unrecognized sort metric for ORDERBY.
         cluster slot-stats orderby key-count foo => -ERR syntax error
         cluster slot-stats orderby key-count limit => -ERR syntax error
         cluster slot-stats orderby key-count limit 0 => -ERR Limit has to lie in between 1 and 16384 (maximum number of slots).
         cluster slot-stats orderby key-count asc limit 1 desc => -ERR Multiple filters of the same type are disallowed.
         cluster slot-stats slotsrange 2 1 => -ERR Start slot number 2 is greater than end slot number 1
         cluster slot-stats slotsrange 0 16384 => -ERR Invalid or out of range slot
         cluster slot-stats slotsrange 0 1 2 => -ERR unknown subcommand or wrong number of arguments for 'slot-stats'. Try CLUSTER HELP."
            .replace("EXPECTED", order),
    );
}

#[test]
fn a_transaction_is_checked_when_it_is_queued_and_when_it_runs() {
    let halves = Halves::new();
    let mut c = halves.node.connect();
    halves.run(
        &mut c,
        "multi => +OK
         get foo => -MOVED 12182 THERE
         exec => -EXECABORT Transaction discarded because of previous errors.
         multi => +OK
         get bar => +QUEUED
         get hello => +QUEUED
         exec => -CROSSSLOT Keys in request don't hash to the same slot
         ping => +PONG
         multi => +OK
         get bar => +QUEUED
         get {bar}2 => +QUEUED
         exec => *2 nil nil
         exec => -ERR EXEC without MULTI
         multi => +OK
         get bar => +QUEUED",
    );
    halves.run(
        &mut halves.node.connect(),
        "cluster setslot 5061 node OTHER => +OK",
    );
    halves.run(
        &mut c,
        "exec => -MOVED 5061 THERE
         ping => +PONG
         exec => -ERR EXEC without MULTI",
    );
}

#[test]
fn a_slot_that_leaves_is_served_until_its_keys_are_gone() {
    let halves = Halves::new();
    let mut c = halves.node.connect();
    halves.run(&mut c, "set {bar}1 1 => +OK");
    halves.run(
        &mut halves.node.connect(),
        "cluster setslot 5061 migrating OTHER => +OK",
    );
    halves.run(&mut c,
        "get {bar}1 => 1
         get {bar}2 => -ASK 5061 THERE
         mget {bar}1 {bar}2 => -TRYAGAIN Multiple keys request during rehashing of slot
         mget {bar}2 {bar}3 => -ASK 5061 THERE
         exists {bar}1 {bar}1 => :2
         multi => +OK
         get {bar}2 => -ASK 5061 THERE
         exec => -EXECABORT Transaction discarded because of previous errors.
         multi => +OK
         get {bar}1 => +QUEUED
         exec => *1 1
         spublish bar 1 => :0
         migrate 127.0.0.1 1 {bar}9 0 100 => +NOKEY
         eval 'return redis.call(\"get\",KEYS[1])' 1 {bar}2 => -ASK 5061 THERE
         eval 'return redis.call(\"get\",KEYS[1])' 1 {bar}1 => 1
         eval 'return redis.pcall(\"get\",\"{bar}2\")' 0 => -ERR Script attempted to access a non local key in a cluster node
         cluster countkeysinslot 5061 => :1
         cluster getkeysinslot 5061 10 => *1 {bar}1",
    );
    halves.run(
        &mut c,
        "cluster setslot 5061 node OTHER => -ERR Can't assign hashslot 5061...",
    );
    halves.run(
        &mut c,
        "cluster setslot 5061 stable => +OK\n get {bar}2 => nil",
    );
}

#[test]
fn a_slot_that_arrives_is_served_after_asking() {
    let halves = Halves::new();
    let mut c = halves.node.connect();
    halves.run(
        &mut halves.node.connect(),
        "cluster setslot 12182 importing OTHER => +OK",
    );
    halves.run(&mut c,
        "get foo => -MOVED 12182 THERE
         asking => +OK
         get foo => nil
         get foo => -MOVED 12182 THERE
         asking => +OK
         set {foo}5 5 => +OK
         asking => +OK
         mget {foo}5 {foo}6 => -TRYAGAIN Multiple keys request during rehashing of slot
         asking => +OK
         mget {foo}5 {foo}5 => *2 5 5
         asking => +OK
         multi => +OK
         get {foo}5 => +QUEUED
         exec => *1 5
         get {foo}5 => -MOVED 12182 THERE
         multi => +OK
         asking => +QUEUED
         get {foo}5 => -MOVED 12182 THERE
         exec => -EXECABORT Transaction discarded because of previous errors.
         asking => +OK
         ping => +PONG
         get {foo}5 => -MOVED 12182 THERE
         restore-asking {foo}7 0 x => -ERR DUMP payload version or checksum are wrong
         restore {foo}7 0 x => -MOVED 12182 THERE
         asking => +OK
         eval 'return redis.call(\"get\",\"{foo}5\")' 0 => 5
         asking => +OK
         eval 'return redis.pcall(\"mget\",\"{foo}8\",\"{foo}5\")' 1 {foo}5 => -ERR Unable to execute command 'mget' in script because undeclared keys were accessed during rehashing of the slot",
    );
}

#[test]
fn a_command_for_another_node_is_redirected() {
    let halves = Halves::new();
    let mut c = halves.node.connect();
    halves.run(
        &mut c,
        "get foo => -MOVED 12182 THERE
         get bar => nil
         mget foo bar => -CROSSSLOT Keys in request don't hash to the same slot
         mget {a}1 {a}2 => -MOVED 15495 THERE
         xread streams foo 0 => -MOVED 12182 THERE
         xgroup create foo g $ => -MOVED 12182 THERE
         eval 'return KEYS[1]' 1 foo => -MOVED 12182 THERE
         eval 'return redis.pcall(\"get\",\"foo\")' 0 => -ERR Script attempted to access a non local key in a cluster node
         watch foo => -MOVED 12182 THERE
         spublish foo 1 => -MOVED 12182 THERE
         spublish bar 1 => :0
         readonly => +OK
         get foo => -MOVED 12182 THERE",
    );
    let port = halves.other.port;
    for (preferred, host) in [
        ("hostname", "?"),
        ("unknown-endpoint", ""),
        ("ip", "127.0.0.1"),
    ] {
        let set = format!("config set cluster-preferred-endpoint-type {preferred}");
        assert_eq!(c.line(&set), "+OK\r\n");
        assert_eq!(c.line("get foo"), format!("-MOVED 12182 {host}:{port}\r\n"));
    }
    let mut expected = String::new();
    for n in 0..40 {
        let lines = format!(
            "set {{bar}}{n} {n}\r\nmget foo foo\r\nget foo\r\nmget {{bar}}{n} {{bar}}{n}\r\n"
        );
        c.send(lines.as_bytes());
        let moved = format!("-MOVED 12182 127.0.0.1:{port}");
        expected += &format!("+OK {moved} {moved} *2 {n} {n} ");
    }
    let replies: Vec<String> = (0..160).map(|_| show(&c.reply())).collect();
    assert_eq!(replies.join(" ") + " ", expected);
}

/// If each command of a pipeline has one key, the slots are checked when the pipeline is parsed.
#[test]
fn a_pipeline_is_redirected_from_the_command_on_that_gives_its_slot_away() {
    let halves = Halves::new();
    let mut c = halves.node.connect();
    let name = show(&halves.other.connect().cmd(&["cluster", "myid"]));
    let moved = |slot| format!("-MOVED {slot} 127.0.0.1:{}", halves.other.port);
    let mut pipeline = |lines: &[&str], expected: &[&str]| {
        c.send((lines.join("\r\n") + "\r\n").as_bytes());
        let replies: Vec<String> = lines.iter().map(|_| show(&c.reply())).collect();
        assert_eq!(replies, expected, "{lines:?}");
    };
    let foo = moved(12182);
    pipeline(
        &["set bar 1", "get hello", "incr bar", "get bar"],
        &["+OK", "nil", ":2", "2"],
    );
    pipeline(&["get bar", "get foo", "get bar"], &["2", &foo, "2"]);
    pipeline(
        &["get", "incr bar", "none bar"],
        &[
            "-ERR wrong number of arguments for 'get' command",
            ":3",
            "-ERR unknown command 'none', with args beginning with: 'bar'",
        ],
    );
    let give = format!("cluster setslot 5061 node {name}");
    let bar = moved(5061);
    pipeline(
        &["del bar", &give, "incr bar", "get hello"],
        &[":1", "+OK", &bar, "nil"],
    );
    pipeline(&["incr bar", "get bar"], &[&bar, &bar]);
    pipeline(&["get hello", "get hello"], &["nil", "nil"]);
}

#[test]
fn keys_move_with_their_slot() {
    let halves = Halves::new();
    let (mut c, port) = (halves.node.connect(), halves.other.port);
    let mut there = halves.other.connect();
    let me = show(&c.cmd(&["cluster", "myid"]));
    halves.run(
        &mut c,
        "set {bar}1 1 => +OK
         set {bar}2 2 => +OK
         cluster setslot 5061 migrating OTHER => +OK",
    );
    run(
        &mut there,
        &format!("cluster setslot 5061 importing {me} => +OK"),
    );
    let migrate =
        format!("migrate 127.0.0.1 {port} '' 0 60000 keys {{bar}}1 {{bar}}2 {{bar}}3 => +OK");
    run(&mut c, &migrate);
    halves.run(&mut there, "cluster setslot 5061 node OTHER => +OK");
    halves.run(
        &mut c,
        "cluster setslot 5061 node OTHER => +OK
         get {bar}1 => -MOVED 5061 THERE
         dbsize => :0",
    );
    run(&mut there, "mget {bar}1 {bar}2 => *2 1 2");
}
