//! Transcripts: requests and replies as data (`tests/transcripts/*.txt`), run in the process of the
//! test.
//!
//! ```text
//! # a comment
//! > SET k v          a request, as an inline command
//! < +OK              its reply, one line for each line of the protocol
//! ```
//!
//! Each file starts with an empty server. `make compat` replays the same files against Redis
//! 7.0 and Valkey 8.0, but for those whose name begins with `newer`.

mod common;

use aeris::client::Client;
use aeris::client::UserRef;
use aeris::config::{Config, Enable};
use aeris::networking::query;
use aeris::state::Server;

/// A request of a transcript and its expected reply.
struct Exchange {
    line: usize,
    request: String,
    reply: String,
}

fn read(text: &str) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(request) = line.strip_prefix("> ") {
            all.push(Exchange {
                line: at + 1,
                request: request.into(),
                reply: String::new(),
            });
        } else if let Some(reply) = line.strip_prefix("< ").or(line.strip_prefix("<")) {
            let exchange = all
                .last_mut()
                .unwrap_or_else(|| panic!("line {}: a reply to nothing", at + 1));
            exchange.reply.push_str(reply);
            exchange.reply.push_str("\r\n");
        } else {
            assert!(
                line.is_empty() || line.starts_with('#'),
                "line {}: {line}",
                at + 1
            );
        }
    }
    all
}

fn files() -> Vec<(String, Vec<Exchange>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("tests/transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a transcript");
            (
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                read(&text),
            )
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!files.is_empty(), "there are no transcripts");
    files
}

#[test]
fn replayed_in_process() {
    for (name, exchanges) in files() {
        let config = Config {
            enable_debug_command: Enable::Yes,
            ..Config::default()
        };
        let mut server = Server::new(config, Vec::new());
        let mut client = Client::detached(server.net.clients.next_id(), server.clock.now_ms);
        client.user = UserRef::DEFAULT;
        for Exchange {
            line,
            request,
            reply,
        } in exchanges
        {
            query::feed(
                &mut server,
                &mut client,
                format!("{request}\r\n").as_bytes(),
            );
            let got = String::from_utf8_lossy(&client.reply.take_bytes()).into_owned();
            assert_eq!(got, reply, "{name}:{line}: {request}");
        }
    }
}

/// The transcripts get the expected replies from Redis 7.0 or Valkey 8.0: where the two differ, the
/// reply of aeris is one of both; tests/words.rs tests which.
#[test]
fn replayed_against_the_real_servers() {
    let (Some(redis), Some(valkey)) = (common::Peer::redis(&[]), common::Peer::valkey(&[])) else {
        return;
    };
    for (name, exchanges) in files() {
        let mut conns = [&redis, &valkey].map(|peer| {
            peer.connect().line("FLUSHALL");
            peer.connect()
        });
        for Exchange {
            line,
            request,
            reply,
        } in exchanges
        {
            // The commands of these transcripts are newer than the installed servers; the replies
            // are those of the documentation.
            if name.starts_with("newer") {
                continue;
            }
            let got = conns.each_mut().map(|conn| {
                conn.send(format!("{request}\r\n").as_bytes());
                replies_like(conn, &reply)
            });
            assert!(
                got.contains(&reply),
                "{name}:{line}: {request}\nours: {reply}redis-server: {}valkey-server: {}",
                got[0],
                got[1]
            );
        }
    }
}

/// Reads as many replies as `expected` has, or up to the first error: none after CLIENT REPLY OFF,
/// several if messages follow the reply.
fn replies_like(conn: &mut common::Conn, expected: &str) -> String {
    let mut got = String::new();
    for _ in common::split_replies(expected.as_bytes()) {
        got += &String::from_utf8_lossy(&conn.reply());
        if got.starts_with('-') {
            break;
        }
    }
    got
}
