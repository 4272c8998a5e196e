//! `import-mode` (Valkey): a tool copies data into a server, and sends the deletions of expired
//! keys. Each line is sent to aeris and, if it is installed, to the real Valkey 9.1.

mod common;

use common::{Conn, Peer};

/// The client that sends a request: a tool that is the source of the import, or any other client.
#[derive(Clone, Copy, Debug)]
enum By {
    Source,
    Other,
}

use By::{Other, Source};

/// A bulk reply with this text; for `nil`, the null bulk reply.
fn bulk(text: &str) -> String {
    match text {
        "nil" => "$-1\r\n".into(),
        _ => format!("${}\r\n{text}\r\n", text.len()),
    }
}

/// Sends the lines to aeris and Valkey, and compares the replies. An expected reply is an integer,
/// `+` and a status, `-` and the beginning of an error, or the text of a bulk.
fn expect(lines: &[(By, &str, &str)]) {
    let extended = ["--save", "", "--extended-redis-compatibility", "yes"];
    let servers = [Some(Peer::aeris(&extended)), Peer::valkey9(&["--save", ""])];
    for (server, name) in servers.iter().zip(["aeris", "valkey"]) {
        let Some(server) = server else { continue };
        let (mut source, mut other) = (server.connect(), server.connect());
        assert_eq!(other.line("CONFIG SET import-mode yes"), "+OK\r\n");
        assert_eq!(source.line("CLIENT IMPORT-SOURCE ON"), "+OK\r\n");
        for (by, line, expected) in lines {
            let conn: &mut Conn = match by {
                Source => &mut source,
                Other => &mut other,
            };
            let reply = conn.line(line);
            if expected.starts_with('-') {
                assert!(reply.starts_with(expected), "{name}: {line}: {reply}");
                continue;
            }
            let expected = match expected.strip_prefix(':') {
                Some(number) => format!(":{number}\r\n"),
                None if expected.starts_with(['+', '*']) => format!("{expected}\r\n"),
                None => bulk(expected),
            };
            assert_eq!(reply, expected, "{name}: {by:?}: {line}");
        }
    }
}

#[test]
fn an_expired_key_is_alive_for_the_source_only() {
    expect(&[
        (Source, "SET k v", "+OK"),
        (Source, "PEXPIREAT k 1", ":1"),
        (Other, "GET k", "nil"),
        (Other, "EXISTS k", ":0"),
        (Other, "TTL k", ":-2"),
        (Other, "TYPE k", "+none"),
        (Other, "KEYS *", "*0"),
        (Other, "DBSIZE", ":1"),
        (Other, "RANDOMKEY", "k"),
        (Source, "GET k", "v"),
        (Source, "PTTL k", ":0"),
        (Source, "RANDOMKEY", "k"),
        (Source, "KEYS *", "*1\r\n$1\r\nk"),
        (Source, "EVAL return(redis.call('get','k')) 0", "v"),
        (Other, "EVAL return(redis.call('get','k')) 0", "nil"),
        (Source, "MULTI", "+OK"),
        (Source, "GET k", "+QUEUED"),
        (Source, "EXEC", "*1\r\n$1\r\nv"),
        (Source, "APPEND k w", ":2"),
        (Source, "PEXPIRETIME k", ":1"),
        (Source, "CLIENT IMPORT-SOURCE OFF", "+OK"),
        (Source, "GET k", "nil"),
        (Source, "CONFIG SET import-mode no", "+OK"),
        (
            Source,
            "CLIENT IMPORT-SOURCE ON",
            "-ERR Server is not in import mode",
        ),
        (Source, "GET k", "nil"),
        (Source, "DBSIZE", ":0"),
    ]);
}

#[test]
fn a_change_by_another_client_removes_an_expired_key_first() {
    expect(&[
        (Source, "SET n 5 PXAT 1", "+OK"),
        (Other, "INCR n", ":1"),
        (Other, "TTL n", ":-1"),
        (Source, "RPUSH l a", ":1"),
        (Source, "PEXPIREAT l 1", ":1"),
        (Other, "RPUSH l b", ":1"),
        (Other, "TTL l", ":-1"),
        (Source, "SET e v PXAT 1", "+OK"),
        (Other, "EXPIRE e 100", ":0"),
        (Source, "EXISTS e", ":0"),
        (Source, "SET d v PXAT 1", "+OK"),
        (Other, "SET d w NX", "+OK"),
        (Other, "TTL d", ":-1"),
        (Source, "SET u v PXAT 1", "+OK"),
        (Other, "DEL u", ":1"),
        (Source, "EXISTS u", ":0"),
        (Source, "SET r v PXAT 1", "+OK"),
        (Other, "RENAME r s", "-ERR no such key"),
        (Source, "EXISTS r", ":0"),
    ]);
}

#[test]
fn a_time_in_the_past_is_kept() {
    expect(&[
        (Other, "SET a v PXAT 1", "+OK"),
        (Other, "SET b v", "+OK"),
        (Other, "EXPIRE b -1", ":1"),
        (Other, "SET c v", "+OK"),
        (Other, "GETEX c PXAT 1", "v"),
        (Other, "EXISTS a b c", ":0"),
        (Source, "EXISTS a b c", ":3"),
        (Other, "HSET h f 1 g 2", ":2"),
        (Other, "HPEXPIREAT h 1 FIELDS 1 f", "*1\r\n:1"),
        (Other, "HGET h f", "nil"),
        (Other, "HLEN h", ":2"),
        (Source, "HGET h f", "1"),
    ]);
}

#[test]
fn nothing_is_evicted() {
    expect(&[
        (Source, "SET k v", "+OK"),
        (Source, "CONFIG SET maxmemory-policy allkeys-lru", "+OK"),
        (Source, "CONFIG SET maxmemory 1", "+OK"),
        (Source, "SET other v", "-OOM command not allowed"),
        (Source, "DBSIZE", ":1"),
    ]);
}
