//! MIGRATE between processes: other clients go on while the target is silent, and a key that
//! changes on its way is not lost. The target is this test, which decides when it replies.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Conn, Peer};

/// A target: it reads requests and sends replies as the test demands.
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

    /// The command and the key of the next request, and whether it replaces.
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

    /// The first connection of a MIGRATE selects the database.
    fn select(&mut self) {
        assert_eq!(self.next(), "SELECT 0");
        self.reply("+OK\r\n");
    }
}

/// Reads a line of the protocol: a kind and a number.
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
    // The client is served as before.
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
    // The first key is gone, as it has not changed; the second is still here.
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

    // The connection is kept, and its database selected.
    let mut client = migrate(&source, &target, "'' 0 9000 COPY KEYS a b");
    assert_eq!(target.next(), "RESTORE a");
    assert_eq!(target.next(), "RESTORE b");
    target.reply("-BUSYKEY Target key name already exists.\r\n+OK\r\n");
    let error = "-ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(text(client.reply()), error);
    assert_eq!(other.line("EXISTS a b"), ":2\r\n");
}
