//! CLIENT REPLY OFF and SKIP before commands that end, change or bundle replies, compared with the
//! bytes of Redis 7.0 and 8.2.

mod common;

use common::Peer;

/// The requests that are sent after each case, so that the end of its replies can be found.
const END: [&str; 2] = ["CLIENT REPLY ON", "PING end"];
const END_REPLY: &str = "+OK$3end";

/// Requests that are sent together, and the expected replies without line ends.
const CASES: &[(&[&str], &str)] = &[
    (&["CLIENT REPLY OFF", "PING", "NOSUCH", "GET"], ""),
    (&["CLIENT REPLY SKIP", "NOSUCH", "PING"], "+PONG"),
    (
        &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "PING"],
        "+PONG",
    ),
    (
        &["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "PING"],
        "",
    ),
    (&["CLIENT REPLY OFF", "CLIENT REPLY maybe", "PING"], ""),
    (
        &["CLIENT REPLY SKIP", "CLIENT REPLY maybe", "PING"],
        "+PONG",
    ),
    // RESET ends CLIENT REPLY OFF; CLIENT REPLY SKIP suppresses its reply like any other.
    (&["CLIENT REPLY OFF", "RESET", "PING"], "+RESET+PONG"),
    (&["CLIENT REPLY SKIP", "RESET", "PING"], "+PONG"),
    (&["CLIENT REPLY OFF", "HELLO 3", "PING"], ""),
    (&["CLIENT REPLY SKIP", "HELLO 9", "PING"], "+PONG"),
    (&["CLIENT REPLY SKIP", "AUTH x y", "PING"], "+PONG"),
    (&["CLIENT REPLY SKIP", "BLPOP nosuch 0.01", "PING"], "+PONG"),
    // Messages about subscriptions are not replies, so CLIENT REPLY does not suppress them.
    (
        &["CLIENT REPLY SKIP", "SUBSCRIBE a", "UNSUBSCRIBE"],
        "*3$9subscribe$1a:1*3$11unsubscribe$1a:0",
    ),
    (
        &["CLIENT REPLY OFF", "UNSUBSCRIBE", "PING"],
        "*3$11unsubscribe$-1:0",
    ),
    // CLIENT REPLY OFF in a transaction applies to the later commands, and the array of EXEC keeps
    // its length.
    (
        &["MULTI", "PING", "CLIENT REPLY OFF", "PING", "EXEC", "PING"],
        "+OK+QUEUED+QUEUED+QUEUED*3+PONG",
    ),
    (
        &[
            "CLIENT REPLY OFF",
            "MULTI",
            "PING",
            "CLIENT REPLY ON",
            "PING",
            "EXEC",
        ],
        "+OK+PONG",
    ),
    (
        &[
            "CLIENT REPLY OFF",
            "MULTI",
            "CLIENT REPLY ON",
            "CLIENT REPLY OFF",
            "PING",
            "EXEC",
        ],
        "+OK",
    ),
    (
        &["MULTI", "CLIENT REPLY SKIP", "PING", "EXEC", "PING", "PING"],
        "+OK+QUEUED+QUEUED*2+PONG+PONG",
    ),
    (
        &[
            "MULTI",
            "CLIENT REPLY SKIP",
            "CLIENT REPLY ON",
            "EXEC",
            "PING",
            "PING",
        ],
        "+OK+QUEUED+QUEUED*2+OK+PONG",
    ),
    (
        &["CLIENT REPLY SKIP", "MULTI", "PING", "EXEC"],
        "+QUEUED*1+PONG",
    ),
    (&["CLIENT REPLY OFF", "EXEC", "MULTI", "NOSUCH", "EXEC"], ""),
    (
        &[
            "CLIENT REPLY OFF",
            "WATCH k",
            "SET k v",
            "MULTI",
            "PING",
            "EXEC",
            "DISCARD",
        ],
        "",
    ),
];

fn answers(peer: &Peer, requests: &[&str]) -> String {
    let mut conn = peer.connect();
    let all = [requests, &END].concat().join("\r\n") + "\r\n";
    conn.send(all.as_bytes());
    let mut got = String::new();
    while !got.ends_with(END_REPLY) {
        got += &conn.raw_line();
    }
    got.truncate(got.len() - END_REPLY.len());
    got
}

#[test]
fn off_and_skip_drop_the_bytes_that_they_drop_in_redis() {
    let peers = [Some(Peer::aeris(&[])), Peer::redis(&[]), Peer::redis8(&[])];
    for peer in peers.iter().flatten() {
        for (requests, expected) in CASES {
            assert_eq!(answers(peer, requests), *expected, "{requests:?}");
        }
    }
}

/// QUIT and damaged requests end a connection after CLIENT REPLY OFF or SKIP, as documented. Redis
/// and Valkey leave it open and read nothing more: they close it after the reply, which is never
/// sent.
#[test]
fn a_client_without_replies_is_closed_without_one() {
    let server = Peer::aeris(&[]);
    for end in ["QUIT", "*1\r\n#oops", "\"unbalanced"] {
        for reply in ["OFF", "SKIP"] {
            let mut conn = server.connect();
            conn.send(format!("CLIENT REPLY {reply}\r\n{end}\r\n").as_bytes());
            assert!(conn.closed(), "{reply}, {end:?}");
        }
    }
}

/// CLIENT KILL ends the victim's connection before its reply is sent, so the test waits for
/// nothing.
#[test]
fn a_killed_client_is_gone_when_the_reply_arrives() {
    let server = Peer::aeris(&[]);
    let mut killer = server.connect();
    for _ in 0..200 {
        let mut victim = server.connect();
        let id = victim.line("CLIENT ID");
        let id = id.trim_start_matches(':').trim_end();
        assert_eq!(killer.line(&format!("CLIENT KILL ID {id}")), ":1\r\n");
        assert!(!victim.has_nothing());
        assert!(victim.closed());
    }
}

/// Nothing follows the reply of QUIT, even if the bytes behind QUIT are no valid request.
#[test]
fn nothing_follows_the_reply_of_quit() {
    let server = Peer::aeris(&[]);
    for rest in [
        "*x\r\n",
        "*1\r\n%1",
        "*1\r\n$-5\r\n",
        "\"abc\r\n",
        "PING\r\n",
    ] {
        let mut c = server.connect();
        c.send(format!("QUIT\r\n{rest}").as_bytes());
        assert_eq!(c.reply(), b"+OK\r\n", "{rest}");
        assert!(c.closed(), "{rest}");
    }
}

/// The bytes behind a request that blocks are parsed when the client is no longer blocked.
#[test]
fn an_error_of_the_protocol_waits_for_the_replies_before_it() {
    let server = Peer::aeris(&[]);
    for rest in ["*x\r\n", "*1\r\n%1", "*2\r\n$4\r\nPING\r\n$-5\r\n"] {
        let mut c = server.connect();
        c.send(format!("BLPOP nosuch 0.1\r\n{rest}").as_bytes());
        assert_eq!(c.reply(), b"*-1\r\n", "{rest}");
        assert!(c.reply().starts_with(b"-ERR Protocol error: "), "{rest}");
        assert!(c.closed(), "{rest}");
    }
}
