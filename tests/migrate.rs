//! MIGRATE between processes: other clients are served while the target is silent, and a key that
//! changes on its way is not lost. The target is this test, which decides when it replies.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::group::{Group, wait_for};
use common::{Conn, Peer};

/// The target of a MIGRATE, implemented by the test: reads requests, and sends replies when the
/// test demands.
struct Target {
    listener: TcpListener,
    stream: Option<BufReader<TcpStream>>,
}

impl Target {
    fn new() -> Target {
        Target {
            listener: TcpListener::bind(("127.0.0.1", 0)).expect("a port"),
            stream: None,
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// The words of the next request.
    fn request(&mut self) -> Vec<Vec<u8>> {
        let from = self.stream.get_or_insert_with(|| {
            let (stream, _) = self.listener.accept().expect("a connection");
            let limit = Some(Duration::from_secs(60));
            stream.set_read_timeout(limit).expect("a limit");
            BufReader::new(stream)
        });
        let words = number(from, '*');
        let mut word_of = || {
            let mut word = vec![0; number(from, '$') + 2];
            from.read_exact(&mut word).expect("a word");
            word.truncate(word.len() - 2);
            word
        };
        (0..words).map(|_| word_of()).collect()
    }

    /// The command and the key of the next request, with REPLACE if the request has it.
    fn next(&mut self) -> String {
        let words = self.request();
        let replaces = words.last().is_some_and(|word| word == b"REPLACE");
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        let end = if replaces { " REPLACE" } else { "" };
        format!("{} {}{end}", text(&words[0]), text(&words[1]))
    }

    fn reply(&mut self, reply: &str) {
        let stream = self.stream.as_mut().expect("a connection").get_mut();
        stream.write_all(reply.as_bytes()).expect("a reply");
    }

    /// Replies to SELECT, which is the first request on a new connection of MIGRATE.
    fn select(&mut self) {
        assert_eq!(self.next(), "SELECT 0");
        self.reply("+OK\r\n");
    }
}

/// Reads a line of the protocol that consists of `kind` and a number, and returns the number.
fn number(from: &mut impl BufRead, kind: char) -> usize {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    let number = line.trim_end().strip_prefix(kind).expect("a request");
    number.parse().expect("a number")
}

fn migrate(source: &Peer, target: &Target, rest: &str) -> Conn {
    let mut client = source.connect();
    let line = format!("MIGRATE 127.0.0.1 {} {rest}", target.port());
    let argv: Vec<&str> = line
        .split(' ')
        .map(|word| word.trim_matches('\''))
        .collect();
    client.send(&common::multibulk(&argv));
    client
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8_lossy(&reply).trim_end().to_string()
}

#[test]
fn others_go_on_and_the_timeout_ends_it() {
    let source = Peer::aeris(&[]);
    let target = Target::new();
    let mut other = source.connect();
    other.line("SET k v");
    let mut client = migrate(&source, &target, "k 0 700");
    for n in 0..20 {
        assert_eq!(other.line(&format!("SET n {n}")), "+OK\r\n");
    }
    assert!(client.has_nothing(), "the target is silent");
    let error = "-IOERR error or timeout reading to target instance";
    assert_eq!(text(client.reply()), error);
    assert_eq!(other.line("GET k"), "$1\r\nv\r\n");
    // After the failed MIGRATE, the client is served as before.
    assert_eq!(client.line("PING"), "+PONG\r\n");
}

#[test]
fn a_key_that_changes_on_its_way_is_sent_again() {
    let source = Peer::aeris(&["--appendonly", "yes"]);
    let mut target = Target::new();
    let mut other = source.connect();
    other.line("MSET a 1 b 2 c 3");
    let mut client = migrate(&source, &target, "'' 0 9000 KEYS a b c none");
    target.select();
    for key in ["a", "b", "c"] {
        assert_eq!(target.next(), format!("RESTORE {key}"));
    }
    other.line("APPEND b 2");
    other.line("DEL c");
    target.reply("+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(target.next(), "RESTORE b REPLACE");
    assert_eq!(target.next(), "DEL c");
    // The first key is deleted, as it has not changed; the second is still in the source.
    assert_eq!(other.line("EXISTS a b"), ":1\r\n");
    target.reply("+OK\r\n:1\r\n");
    assert_eq!(text(client.reply()), "+OK");
    assert_eq!(other.line("DBSIZE"), ":0\r\n");
    other.line("DEBUG LOADAOF");
    assert_eq!(other.line("DBSIZE"), ":0\r\n");
}

#[test]
fn a_key_that_never_rests_stays_and_so_does_one_that_is_refused() {
    let source = Peer::aeris(&[]);
    let mut target = Target::new();
    let mut other = source.connect();
    other.line("MSET a 1 b 2");
    let mut client = migrate(&source, &target, "a 0 9000");
    target.select();
    for round in 0..3 {
        let replaces = if round > 0 { " REPLACE" } else { "" };
        assert_eq!(target.next(), format!("RESTORE a{replaces}"));
        other.line("INCR a");
        target.reply("+OK\r\n");
    }
    assert!(text(client.reply()).starts_with("-ERR A key was changed again and again"));
    assert_eq!(other.line("GET a"), "$1\r\n4\r\n");

    // The connection to the target is kept with its database selected, so no SELECT is sent.
    let mut client = migrate(&source, &target, "'' 0 9000 COPY KEYS a b");
    assert_eq!(target.next(), "RESTORE a");
    assert_eq!(target.next(), "RESTORE b");
    target.reply("-BUSYKEY Target key name already exists.\r\n+OK\r\n");
    let error = "-ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(text(client.reply()), error);
    assert_eq!(other.line("EXISTS a b"), ":2\r\n");
}

/// The replies to MIGRATE in a transaction and in a script, and the target's values after each.
fn at_once(source: &Peer, target: &Peer, command: &[&str], there: bool) -> Vec<String> {
    let mut seen = Vec::new();
    let (mut s, mut t) = (source.connect(), target.connect());
    for in_script in [false, true] {
        s.line("FLUSHALL");
        t.line("FLUSHALL");
        s.line("MSET a 1 b 2 c 3");
        if there {
            t.line("SET a other");
        }
        if in_script {
            let script = "return {redis.pcall(unpack(ARGV)), redis.call('DBSIZE')}";
            seen.push(text(s.cmd(&[&["EVAL", script, "0"][..], command].concat())));
        } else {
            s.line("MULTI");
            seen.push(text(s.cmd(command)));
            s.line("DBSIZE");
            seen.push(s.line("EXEC"));
        }
        seen.push(t.line("MGET a b"));
    }
    seen
}

#[test]
fn in_transactions_and_scripts_it_answers_as_redis_does() {
    let Some(redis) = Peer::redis(&[]) else {
        return;
    };
    let (aeris, target) = (Peer::aeris(&[]), Peer::aeris(&[]));
    let port = target.port.to_string();
    let silent = Target::new();
    let silent = silent.port().to_string();
    let common = ["MIGRATE", "127.0.0.1", &port];
    let cases: &[(&[&str], bool)] = &[
        (&["a", "0", "5000"], false),
        (&["a", "0", "5000", "COPY"], false),
        (&["", "0", "5000", "KEYS", "a", "b", "none"], false),
        (&["none", "0", "5000"], false),
        (&["", "0", "5000", "KEYS", "a", "b"], true),
        (&["", "0", "5000", "REPLACE", "KEYS", "a", "b"], true),
        (&["", "0", "5000", "COPY", "KEYS", "a", "b"], true),
        (&["a", "0", "5000", "AUTH", "wrong"], true),
        (&["a", "0", "5000", "AUTH2", "user", "wrong"], true),
        (&["a", "0", "5000", "NOT"], false),
    ];
    for (rest, there) in cases {
        let command = [&common[..], rest].concat();
        let expected = at_once(&redis, &target, &command, *there);
        let seen = at_once(&aeris, &target, &command, *there);
        assert_eq!(seen, expected, "{command:?}");
    }
    for command in [
        // MIGRATE to a port on which no server listens, to a silent server, to a name that does not
        // exist.
        ["MIGRATE", "127.0.0.1", "1", "a", "0", "100"],
        ["MIGRATE", "127.0.0.1", "port", "a", "0", "100"],
        ["MIGRATE", "127.0.0.1", &silent, "a", "0", "100"],
        ["MIGRATE", "name.invalid", &port, "a", "0", "100"],
    ] {
        let expected = at_once(&redis, &target, &command, false);
        let seen = at_once(&aeris, &target, &command, false);
        assert_eq!(seen, expected, "{command:?}");
    }
}

/// If the target refuses SELECT because the database does not exist, no key is sent. Redis stores
/// the key in database 0.
#[test]
fn a_refused_select_in_a_transaction_sends_no_key() {
    let (source, target) = (Peer::aeris(&[]), Peer::aeris(&[]));
    let port = target.port.to_string();
    let command = ["MIGRATE", "127.0.0.1", &port, "a", "99", "5000"];
    let seen = at_once(&source, &target, &command, false);
    let error = "-ERR Target instance replied with error: ERR DB index is out of range\r\n";
    assert_eq!(seen[1], format!("*2\r\n{error}:3\r\n"));
    assert_eq!(seen[2], "*2\r\n$-1\r\n$-1\r\n");
}

/// MIGRATE moves many keys, some of them larger than the window of requests that are sent ahead,
/// and propagates their deletion.
#[test]
fn a_transaction_moves_many_keys_and_propagates_their_deletion() {
    let group = Group::new(1);
    let target = Peer::aeris(&[]);
    let port = target.port.to_string();
    let mut c = group.primary.connect();
    let names: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
    for name in &names {
        c.cmd(&["SET", name, &"x".repeat(40_000)]);
    }
    c.cmd(&["SET", &names[7], &"y".repeat(5_000_000)]);
    c.line("PEXPIRE k9 1000000");
    let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "3", "20000", "KEYS"];
    command.extend(names.iter().map(String::as_str));
    c.line("MULTI");
    c.cmd(&command);
    c.line("SET rest 1");
    assert_eq!(c.line("EXEC"), "*2\r\n+OK\r\n+OK\r\n");
    let mut there = target.connect();
    there.line("SELECT 3");
    assert_eq!(there.line("DBSIZE"), ":200\r\n");
    assert_eq!(there.line("STRLEN k7"), ":5000000\r\n");
    assert_ne!(there.line("PTTL k9"), ":-1\r\n");
    wait_for(&group.replicas[0], |_| {
        group.replicas[0].connect().line("DBSIZE") == ":1\r\n"
    });
}
