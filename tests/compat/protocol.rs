//! Damaged requests: the bytes of valid ones with small changes, sent to all servers. Until it
//! closes the connection, each server must send the same bytes.
//!
//! The client closes its own direction after the request, so a server that waits for more bytes
//! closes, too.
//!
//! `PROPTEST_CASES` sets the number of requests; `COMPAT_SEED` and `COMPAT_GO_ON` are as in
//! `tests/compat.rs`.

use super::common::{Peer, multibulk};
use super::goes_on;
use super::jury::{Jury, Name};
use aeris::util::random::Random;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

const REQUESTS: u64 = 2_000;
/// Bytes that have a meaning in a request, and some that have none.
const EDGES: &[u8] = b"\0\r\n $*\"'\\0123456789-+:%~_abxXPE\t\x0b\x0c\xff";
const PARTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"$-1\r\n",
    b"*1\r\n",
    b"00",
    b"99999999999",
    b" ",
];

fn requests() -> Vec<Vec<u8>> {
    let long = "x".repeat(300);
    let commands: [&[&str]; 8] = [
        &["PING"],
        &["ECHO", "hallo"],
        &["SET", "k", "12"],
        &["GET", "k"],
        &["ECHO", ""],
        &["LPUSH", "l", "a", "b"],
        &["ECHO", "a\r\nb"],
        &["ECHO", &long],
    ];
    let inline: [&[u8]; 9] = [
        b"PING\r\n",
        b"ECHO \"a b\"\r\n",
        b"SET k 'x\\'y'\r\n",
        b"GET k\n",
        b"  ECHO  x\t\r\n",
        b"\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"ECHO \"\\x41\\n\"\r\n",
    ];
    let inline = inline.map(|line| line.to_vec());
    commands.map(multibulk).into_iter().chain(inline).collect()
}

/// One to four valid requests, with one to three random changes to their bytes.
fn damaged(random: &mut Random, requests: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |n: usize| random.below(n as u64) as usize;
    let mut bytes = Vec::new();
    for _ in 0..1 + below(4) {
        bytes.extend_from_slice(&requests[below(requests.len())]);
    }
    for _ in 0..1 + below(3) {
        let at = below(bytes.len() + 1);
        match below(6) {
            0 if at < bytes.len() => bytes[at] = EDGES[below(EDGES.len())],
            1 => bytes.insert(at, EDGES[below(EDGES.len())]),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let end = (at + 1 + below(8)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            4 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, PARTS[below(PARTS.len())].iter().copied())),
        }
    }
    bytes
}

/// Sends a request, and returns all bytes that the server sends until it closes.
fn ask(peer: &Peer, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", peer.port)).expect("a connection");
    let before = multibulk(&["DEL", "k", "l"]);
    stream
        .write_all(&[&before, request].concat())
        .expect("written");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut all = Vec::new();
    // A server that closes with bytes unread resets the connection; the bytes that it sent are
    // there.
    let _ = stream.read_to_end(&mut all);
    all
}

/// Whether our reply equals a real server's, or equals it up to a byte that can't begin an
/// argument: aeris refuses this byte at once, Redis at the end of the line.
fn agrees(ours: &[u8], theirs: &[u8]) -> bool {
    let early = b"-ERR Protocol error: expected '$', got ";
    ours == theirs
        || ours
            .strip_prefix(theirs)
            .is_some_and(|rest| rest.starts_with(early))
}

#[test]
fn damaged_requests_are_answered_as_by_the_real_servers() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let count = number("PROPTEST_CASES").unwrap_or(REQUESTS);
    let mut random = Random::from_seed(number("COMPAT_SEED").unwrap_or(53));
    let requests = requests();
    let mut wrong = Vec::new();
    for _ in 0..count {
        let request = damaged(&mut random, &requests);
        let ours = ask(&jury.aeris, &request);
        let judges = jury.judges.iter();
        let redis = judges.filter(|judge| matches!(judge.name, Name::Redis7 | Name::Redis8));
        let theirs: Vec<_> = redis.map(|judge| ask(&judge.peer, &request)).collect();
        if !theirs.iter().any(|theirs| agrees(&ours, theirs)) {
            let shown = theirs
                .iter()
                .map(|theirs| format!("\n  they {}", theirs.escape_ascii()));
            let (request, ours) = (request.escape_ascii(), ours.escape_ascii());
            wrong.push(format!(
                "{request}\n  we   {ours}{}",
                shown.collect::<String>()
            ));
            if wrong.len() > 20 && !goes_on() {
                break;
            }
        }
    }
    println!("{count} damaged requests compared");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
