//! Under `appendfsync always` no client sees a change that a power cut could undo: a change that a
//! client read, received or noticed otherwise is on the disk.
//!
//! The disk hangs (DEBUG AOF-FLUSH-SLEEP) while one client changes something. The reply to each
//! kind of reader must wait for the disk, and clients that have not seen the change must be served
//! meanwhile.

mod common;

use common::{Conn, Peer, multibulk};

/// A connection and its client id.
struct Reader {
    conn: Conn,
    id: String,
}

/// A server whose disk can be made to hang.
struct Stage {
    server: Peer,
    asks: Conn,
    writer: Reader,
}

impl Stage {
    fn new() -> Stage {
        let server = Peer::aeris(&["--appendonly", "yes", "--appendfsync", "always"]);
        let writer = Reader::new(&server, &[]);
        let asks = server.connect();
        Stage {
            server,
            asks,
            writer,
        }
    }

    /// A client that has run the commands of `setup`.
    fn reader(&self, setup: &[&str]) -> Reader {
        Reader::new(&self.server, setup)
    }

    fn hang(&mut self) {
        let reply = self.asks.line("debug aof-flush-sleep 3600000000");
        assert_eq!(reply, "+OK\r\n");
    }

    fn go_on(&mut self) {
        assert_eq!(self.asks.line("debug aof-flush-sleep 0"), "+OK\r\n");
    }

    /// Makes the disk hang, and sends `commands`, whose replies must wait for the disk.
    fn change(&mut self, commands: &[&str]) {
        self.hang();
        let writer = &mut self.writer;
        commands.iter().for_each(|command| writer.send(command));
        assert!(self.writer.is_held(&mut self.asks), "a write waits");
    }

    /// Makes the disk respond again, and reads `replies` replies to the commands of the writing
    /// client.
    fn end_change(&mut self, replies: usize) {
        self.go_on();
        (0..replies).for_each(|_| drop(self.writer.conn.reply()));
    }
}

impl Reader {
    fn new(server: &Peer, setup: &[&str]) -> Reader {
        let mut conn = server.connect();
        let id = conn
            .line("client id")
            .trim_matches([':', '\r', '\n'])
            .to_string();
        for command in setup {
            assert!(!conn.line(command).starts_with('-'), "{command}");
        }
        Reader { conn, id }
    }

    fn send(&mut self, command: &str) {
        let argv: Vec<&str> = command.split(' ').collect();
        self.conn.send(&multibulk(&argv));
    }

    /// Whether a reply or a message for this client waits in the server; false if it was sent. A
    /// reply that need not wait is sent at the end of its turn, so two turns are observed.
    fn is_held(&mut self, asks: &mut Conn) -> bool {
        let mut turns = 0;
        loop {
            let line = asks.line(&format!("client list id {}", self.id));
            let field = line
                .split(" obl=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            if field.is_some_and(|bytes| bytes != "0") {
                turns += 1;
                if turns == 2 {
                    return true;
                }
                continue;
            }
            if !self.conn.has_nothing() {
                return false;
            }
        }
    }
}

/// Asserts that the reply to each command waits for the disk, if each is sent by a client of its
/// own.
fn assert_held(stage: &mut Stage, commands: &[&str]) {
    let mut readers: Vec<Reader> = commands.iter().map(|_| stage.reader(&[])).collect();
    for (reader, command) in readers.iter_mut().zip(commands) {
        let parts: Vec<&str> = command.split(" ; ").collect();
        let (last, first) = parts.split_last().expect("a command");
        for part in first {
            assert!(!reader.conn.line(part).starts_with('-'), "{part}");
        }
        reader.send(last);
        assert!(reader.is_held(&mut stage.asks), "{command}");
    }
    stage.go_on();
    for reader in &mut readers {
        reader.conn.reply();
    }
}

#[test]
fn what_reads_a_change_waits_for_the_disk() {
    let mut stage = Stage::new();
    stage.writer.conn.line("rpush list 1 2");
    stage.writer.conn.line("set other x");
    stage.change(&["set k new"]);
    let readers = [
        "get k",
        "exists k",
        "strlen k",
        "type k",
        "ttl k",
        "mget other k",
        "dump k",
        "object encoding k",
        "memory usage k",
        "lpush k wrong-type",
        "setnx k later",
        "watch k",
        "multi ; get k ; exec",
        "eval return(redis.call('GET','k')) 0",
        "eval redis.call('GET','k') 0",
        "eval_ro return(redis.call('EXISTS','k')) 0",
        "blpop k 0.001",
        "sort list by k*",
        "sort_ro list by nosort get k",
        "dbsize",
        "keys *",
        "scan 0",
        "randomkey",
        "bitcount k",
        "lcs other k",
    ];
    assert_held(&mut stage, &readers);
    assert_eq!(stage.writer.conn.reply(), b"+OK\r\n");
    assert_eq!(stage.asks.line("get k"), "$3\r\nnew\r\n");
}

#[test]
fn what_reads_something_else_goes_on() {
    let mut stage = Stage::new();
    stage.writer.conn.line("set other x");
    stage.writer.conn.line("rpush list 1 2");
    let mut subscriber = stage.reader(&["subscribe ch"]);
    stage.change(&["set k new"]);
    let mut c = stage.server.connect();
    for (command, reply) in [
        ("get other", "$1\r\nx\r\n"),
        ("exists other list", ":2\r\n"),
        ("get absent", "$-1\r\n"),
        ("ping", "+PONG\r\n"),
        ("multi", "+OK\r\n"),
        ("get other", "+QUEUED\r\n"),
        ("exec", "*1\r\n$1\r\nx\r\n"),
        ("eval return(redis.call('GET','other')) 0", "$1\r\nx\r\n"),
        ("watch other", "+OK\r\n"),
        ("publish ch text", ":1\r\n"),
        (
            "config get appendfsync",
            "*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n",
        ),
    ] {
        assert_eq!(c.line(command), reply, "{command}");
    }
    assert!(c.line("info keyspace").contains("keys=3"));
    assert!(subscriber.conn.reply().ends_with(b"text\r\n"));
    stage.end_change(1);
}

/// A client that misses a deleted key has observed the deletion, so its reply waits.
#[test]
fn what_misses_a_key_that_was_deleted_waits() {
    for delete in [
        "del k",
        "getdel k",
        "rename k k2",
        "flushall",
        "flushdb async",
        "swapdb 0 1",
        "spop s",
        "move k 1",
    ] {
        let mut stage = Stage::new();
        stage.writer.conn.line("set k v");
        stage.writer.conn.line("sadd s a");
        stage.change(&[delete]);
        let reader = if delete == "spop s" {
            "scard s"
        } else {
            "get k"
        };
        assert_held(&mut stage, &[reader]);
    }
}

/// Changes that WATCH does not notice are observed by clients that read them.
#[test]
fn what_reads_a_changed_consumer_group_or_function_waits() {
    let mut stage = Stage::new();
    stage.writer.conn.line("xadd s 1-1 f v");
    stage.writer.conn.line("xgroup create s g 0");
    stage.change(&["xreadgroup group g c streams s >"]);
    assert_held(&mut stage, &["xpending s g", "xinfo consumers s g"]);
    stage.end_change(1);
    stage.hang();
    let library = "#!lua name=l\nredis.register_function('f', function() return 1 end)";
    stage
        .writer
        .conn
        .send(&multibulk(&["function", "load", library]));
    assert!(stage.writer.is_held(&mut stage.asks));
    assert_held(&mut stage, &["fcall f 0", "function list"]);
}

#[test]
fn a_transaction_that_a_change_made_fail_waits() {
    let mut stage = Stage::new();
    stage.writer.conn.line("set k v");
    let mut reader = stage.reader(&["watch k", "multi", "ping"]);
    stage.change(&["set k new"]);
    reader.send("exec");
    assert!(reader.is_held(&mut stage.asks));
    stage.go_on();
    assert_eq!(reader.conn.reply(), b"*-1\r\n");
}

#[test]
fn messages_that_a_change_caused_wait() {
    let cases: &[(&[&str], &[&str], usize)] = &[
        // The receiver's earlier commands, the writer's commands, the number of the writer's
        // replies.
        (&["psubscribe __key*"], &["set k v"], 1),
        (&["subscribe ch"], &["set k v", "publish ch x"], 2),
        (&["subscribe ch"], &["set k v", "get k", "publish ch x"], 3),
        (&["ssubscribe ch"], &["set k v", "spublish ch x"], 2),
        (
            &["subscribe ch"],
            &["multi", "publish ch x", "set k v", "exec"],
            4,
        ),
        (
            &["subscribe ch"],
            &["eval redis.call('publish','ch','x');redis.call('set','k','v') 0"],
            1,
        ),
        (&["hello 3", "client tracking on", "get k"], &["set k v"], 1),
        (&["hello 3", "client tracking on bcast"], &["set k v"], 1),
        (
            &["hello 3", "client tracking on", "get k"],
            &["flushall"],
            1,
        ),
        (&["monitor"], &["set k v"], 1),
        (&["monitor"], &["eval redis.call('set','k','v') 0"], 1),
    ];
    for (setup, commands, replies) in cases {
        let mut stage = Stage::new();
        stage.asks.line("config set notify-keyspace-events KEA");
        let mut receiver = stage.reader(setup);
        stage.change(commands);
        assert!(receiver.is_held(&mut stage.asks), "{setup:?} {commands:?}");
        stage.end_change(*replies);
        receiver.conn.reply();
    }
}

/// A client can pass on what it has read, so its message waits until the change is on the disk.
#[test]
fn a_message_of_a_client_that_has_read_a_change_waits() {
    let mut stage = Stage::new();
    let mut receiver = stage.reader(&["subscribe ch"]);
    let mut reader = stage.reader(&[]);
    stage.change(&["set k new"]);
    reader.send("get k");
    reader.send("publish ch k-is-new");
    assert!(receiver.is_held(&mut stage.asks));
    stage.go_on();
    assert_eq!(reader.conn.reply(), b"$3\r\nnew\r\n");
    assert!(receiver.conn.reply().ends_with(b"k-is-new\r\n"));
}

/// A change goes to replicas after it is on the disk: a power cut would undo it only on the
/// primary.
#[test]
fn a_replica_gets_a_change_when_it_is_on_the_primary_s_disk() {
    let mut stage = Stage::new();
    let replica = Peer::aeris(&[]);
    let mut conn = replica.connect();
    conn.line(&format!("replicaof 127.0.0.1 {}", stage.server.port));
    while !conn
        .line("info replication")
        .contains("master_link_status:up")
    {}
    stage.asks.line("set before 1");
    while conn.line("get before") != "$1\r\n1\r\n" {}
    stage.change(&["set k new"]);
    for _ in 0..100 {
        assert_eq!(stage.asks.line("ping"), "+PONG\r\n");
        assert_eq!(conn.line("get k"), "$-1\r\n");
    }
    stage.end_change(1);
    while conn.line("get k") != "$3\r\nnew\r\n" {}
    assert_eq!(stage.asks.line("wait 1 0"), ":1\r\n");
}

#[test]
fn a_key_is_migrated_when_it_is_on_the_disk() {
    let mut stage = Stage::new();
    let target = Peer::aeris(&[]);
    let mut there = target.connect();
    stage.writer.conn.line("mset k old other x");
    stage.change(&["set k new"]);
    let port = target.port.to_string();
    let migrate = |key: &str| format!("migrate 127.0.0.1 {port} {key} 0 60000");
    let mut mover = stage.reader(&[]);
    mover.send(&migrate("k"));
    // MIGRATE deletes the other key, so its reply waits for the disk, but the key is sent at once.
    let mut second = stage.reader(&[]);
    second.send(&migrate("other"));
    while there.line("exists other") != ":1\r\n" {}
    assert_eq!(there.line("exists k"), ":0\r\n");
    stage.end_change(1);
    assert_eq!(mover.conn.reply(), b"+OK\r\n");
    assert_eq!(second.conn.reply(), b"+OK\r\n");
    assert_eq!(there.line("get k"), "$3\r\nnew\r\n");
    assert_eq!(stage.asks.line("exists k other"), ":0\r\n");
}

#[test]
fn clients_that_were_blocked_wait_for_the_change_that_served_them() {
    for (blocked, change) in [
        ("blpop l 0", "rpush l x"),
        ("brpoplpush l l2 0", "rpush l x"),
        ("bzpopmin z 0", "zadd z 1 m"),
        ("xread block 0 streams s $", "xadd s 1-1 f v"),
    ] {
        let mut stage = Stage::new();
        let mut waits = stage.reader(&[]);
        waits.send(blocked);
        while !stage
            .asks
            .line("info clients")
            .contains("blocked_clients:1\r\n")
        {}
        stage.change(&[change]);
        assert!(waits.is_held(&mut stage.asks), "{blocked}");
        stage.end_change(1);
        waits.conn.reply();
    }
}

/// `appendfsync` may become `always` while there are writes without an fsync.
#[test]
fn changes_before_the_policy_was_always_count() {
    let mut stage = Stage::new();
    stage.asks.line("config set appendfsync no");
    stage.writer.conn.line("set other x");
    stage.hang();
    stage.asks.line("config set appendfsync always");
    let mut reader = stage.reader(&[]);
    reader.send("get other");
    assert!(reader.is_held(&mut stage.asks));
    stage.go_on();
    assert_eq!(reader.conn.reply(), b"$1\r\nx\r\n");
    stage.change(&["set other y"]);
    stage.asks.line("config set appendfsync everysec");
    assert_eq!(stage.asks.line("exists other"), ":1\r\n");
    stage.end_change(1);
}
