//! A link of replication that is cut at every byte of the handshake, the snapshot and the stream:
//! afterwards replication continues, and no command is lost or applied twice.
//!
//! - `pair`: the state machines of both sides, joined by a pipe in memory, which is cut at every
//!   byte.
//! - sockets: a replica process with a primary that the test implements, and a primary process with
//!   a replica that the test implements.

mod common;
#[path = "replication_cuts/pair.rs"]
mod pair;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use common::{Conn, Peer, multibulk};
use pair::{Commands, Cut, ID, Primary, Replica, connect};

/// A replication stream of about `len` bytes: commands of all sizes, transactions, empty lines,
/// keep-alives, inline commands. The stream ends with a complete command.
fn history(len: usize) -> Vec<u8> {
    let mut log = Vec::new();
    for n in 0.. {
        if log.len() >= len {
            break;
        }
        let text = "v".repeat(n % 97);
        let key = format!("key:{}", n % 13);
        match n % 7 {
            0 => log.extend(multibulk(&["SELECT", ["0", "3"][n / 7 % 2]])),
            1 => log.extend(multibulk(&["SET", &key, &text])),
            2 => log.extend(multibulk(&["APPEND", &key, &text])),
            3 => {
                log.extend(multibulk(&["MULTI"]));
                log.extend(multibulk(&["INCR", "counter"]));
                log.extend(multibulk(&["RPUSH", "list", &text]));
                log.extend(multibulk(&["EXEC"]));
            }
            4 => log.extend(multibulk(&["PING"])),
            5 => log.extend_from_slice(b"\r\nINCR inline\r\n\r\n"),
            _ => log.extend(multibulk(&["INCRBY", "sum", "7"])),
        }
    }
    log.extend(multibulk(&["INCR", "last"]));
    log
}

/// The offsets at which a replica may continue a stream: the ends of commands outside of
/// transactions, of transactions, and of empty lines.
fn ends(log: &[u8]) -> Vec<usize> {
    let (mut ends, mut at, mut in_transaction) = (Vec::new(), 0, false);
    let mut commands = Commands::default();
    for byte in log.chunks(1) {
        commands.take(byte, |argv, bytes| {
            at += bytes.len();
            match argv {
                [b"MULTI"] => in_transaction = true,
                [b"EXEC"] => in_transaction = false,
                _ => {}
            }
            if !in_transaction {
                ends.push(at);
            }
        });
    }
    ends
}

const LEN: usize = 10_000;

#[test]
fn machines_that_are_cut_at_every_byte_continue() {
    let log = history(LEN);
    let ends = ends(&log);
    let begin = ends[ends.len() / 10];
    let mut cuts = 0;
    for marks in [false, true] {
        let new = || {
            let mut primary = Primary::new(&log, 1 << 20, marks);
            primary.snapshot_at = begin;
            primary
        };
        let whole = connect(&mut new(), &mut Replica::default(), Cut::Never, 1460);
        assert!(whole.replies > LEN && whole.requests > 100);
        let replies = (0..=whole.replies).map(Cut::Replies);
        for cut in (0..=whole.requests).map(Cut::Requests).chain(replies) {
            let (mut primary, mut replica) = (new(), Replica::default());
            let piece = 1 + cuts % 1500;
            connect(&mut primary, &mut replica, cut, piece);
            let applied = replica.data.len();
            assert_eq!(replica.data, log[..applied], "{cut:?}");
            assert!(
                applied == 0 || ends.contains(&applied),
                "{cut:?}: {applied}"
            );
            let full_syncs = primary.full_syncs;
            connect(&mut primary, &mut replica, Cut::Never, piece);
            assert_eq!(replica.data.len(), log.len(), "{cut:?}");
            assert!(replica.data == log, "{cut:?}");
            let repeated = usize::from(applied == 0);
            assert_eq!(primary.full_syncs, full_syncs + repeated, "{cut:?}");
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
}

/// After the cut the replica finds another primary, which was promoted: this primary has a part of
/// the history, and has continued it under a new id. The replica drops the data that the promoted
/// primary does not have.
#[test]
fn machines_that_are_cut_at_every_byte_follow_a_promoted_primary() {
    let log = history(LEN);
    let ends = ends(&log);
    let (begin, promoted_at) = (ends[ends.len() / 10], ends[ends.len() / 2]);
    let other = history(1000);
    let new = || {
        let mut primary = Primary::new(&log, 1 << 20, false);
        primary.snapshot_at = begin;
        primary
    };
    let whole = connect(&mut new(), &mut Replica::default(), Cut::Never, 1460);
    let mut full_syncs = 0;
    for at in 0..=whole.replies {
        let (mut primary, mut replica) = (new(), Replica::default());
        connect(&mut primary, &mut replica, Cut::Replies(at), 1460);
        let applied = replica.data.len();
        let mut sibling = primary.sibling(promoted_at, &other);
        connect(&mut sibling, &mut replica, Cut::Never, 1460);
        assert!(replica.data == sibling.log, "cut at {at}");
        let continues = (begin..=promoted_at).contains(&applied);
        assert_eq!(sibling.full_syncs, usize::from(!continues), "cut at {at}");
        full_syncs += sibling.full_syncs;
    }
    assert!(full_syncs > 1000 && full_syncs < whole.replies - 1000);
}

/// After a cut, a replica gets a snapshot if the backlog lacks bytes that it needs; otherwise it
/// continues.
#[test]
fn machines_that_are_cut_at_every_byte_outlive_a_short_backlog() {
    let log = history(LEN);
    let ends = ends(&log);
    let (begin, first) = (ends[ends.len() / 10], ends[ends.len() / 3]);
    for at in 0..=2 * LEN {
        let mut primary = Primary::new(&log[..first], 4096, false);
        primary.snapshot_at = begin;
        let mut replica = Replica::default();
        connect(&mut primary, &mut replica, Cut::Replies(at), 1460);
        primary.write(&log[first..]);
        while primary.stream.trim() {}
        primary.snapshot_at = log.len();
        connect(&mut primary, &mut replica, Cut::Never, 1460);
        assert!(replica.data == log, "cut at {at}");
        if at > 2 * first {
            break;
        }
    }
}

/// The value of a field of INFO that is a number.
fn number(c: &mut Conn, field: &str) -> usize {
    let text = c.line("INFO everything");
    let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':')?.parse().ok();
    text.lines().find_map(value).expect("a number")
}

/// Replies to the commands of a handshake up to PSYNC, whose arguments it returns. `None` if the
/// connection ended.
fn handshake(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut commands, mut psync, mut buffer) = (Commands::default(), None, [0; 4096]);
    while psync.is_none() {
        let n = stream.read(&mut buffer).ok().filter(|&n| n > 0)?;
        let mut replies = Vec::new();
        commands.take(&buffer[..n], |argv, _| match argv {
            [b"PSYNC", id, offset] => psync = Some((id.to_vec(), offset.to_vec())),
            [b"PING"] => replies.extend_from_slice(b"+PONG\r\n"),
            _ => replies.extend_from_slice(b"+OK\r\n"),
        });
        stream.write_all(&replies).ok()?;
    }
    psync
}

/// Accepts a replica's link up to PSYNC. Returns the link, and the offset up to which the replica
/// has the history.
fn accept(listener: &TcpListener) -> (TcpStream, usize) {
    let (mut stream, _) = listener.accept().expect("the replica");
    let timeout = Some(Duration::from_secs(30));
    stream.set_read_timeout(timeout).expect("a timeout");
    let (id, next) = handshake(&mut stream).expect("a request");
    let next = String::from_utf8_lossy(&next).into_owned();
    let has = match &*id {
        b"?" => 0,
        id => {
            assert_eq!(id, ID.as_bytes());
            next.parse::<usize>().expect("an offset") - 1
        }
    };
    (stream, has)
}

/// Ends a connection so that all bytes arrive at the peer before the end.
fn finish(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).expect("it is open");
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A snapshot without keys.
fn empty_snapshot() -> Vec<u8> {
    let server = Peer::aeris(&[]);
    assert_eq!(server.connect().line("SAVE"), "+OK\r\n");
    std::fs::read(server.dir().join("dump.rdb")).expect("a file")
}

/// The DEBUG DIGEST of the data that these commands create in an empty server.
fn digest_of(log: &[u8]) -> String {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    c.send(log);
    let mut replies = 0;
    Commands::default().take(log, |argv, _| replies += usize::from(!argv.is_empty()));
    (0..replies).for_each(|_| drop(c.reply()));
    server.connect().line("DEBUG DIGEST")
}

/// A server process is the replica. Each connection ends one byte later in the stream than the one
/// before it, and the next PSYNC must be for the end of the last complete command.
#[test]
fn a_real_replica_continues_after_each_cut_of_the_stream() {
    let log = history(LEN);
    let ends = ends(&log);
    let replica = Peer::aeris(&[]);
    let mut c = replica.connect();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    assert_eq!(c.line(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK\r\n");
    let (mut stream, _) = listener.accept().expect("the replica");
    handshake(&mut stream).expect("a request");
    let body = empty_snapshot();
    let header = format!("+FULLRESYNC {ID} 0\r\n${}\r\n", body.len());
    stream.write_all(header.as_bytes()).expect("sent");
    stream.write_all(&body).expect("sent");
    finish(stream);
    let (mut count, mut had) = (0, 0);
    for cut in 0..=log.len() {
        let (mut stream, has) = accept(&listener);
        assert_eq!(has, had, "before the cut at {cut}");
        stream.write_all(b"+CONTINUE\r\n").expect("sent");
        stream.write_all(&log[has..cut.max(has)]).expect("sent");
        finish(stream);
        had = *ends.iter().rev().find(|&&end| end <= cut).unwrap_or(&0);
        count += 1;
    }
    // A connection that is reset may lose bytes that the replica has not read; the replica requests
    // these bytes again.
    let (mut stream, mut has) = accept(&listener);
    assert_eq!(has, had);
    for _ in 0..20 {
        stream.write_all(b"+CONTINUE\r\n").expect("sent");
        stream.write_all(&log[has..]).expect("sent");
        drop(stream);
        (stream, has) = accept(&listener);
        assert!(ends.contains(&has));
    }
    stream.write_all(b"+CONTINUE\r\n").expect("sent");
    stream.write_all(&log[has..]).expect("sent");
    while number(&mut c, "master_repl_offset") < log.len() {}
    assert_eq!(c.line("DEBUG DIGEST"), digest_of(&log));
    println!("{count} cuts");
}

/// A server process is the replica, and the handshake and the snapshot are cut: the replica
/// requests the snapshot again, and keeps its data until a snapshot is complete.
#[test]
fn a_real_replica_keeps_its_data_until_a_snapshot_is_complete() {
    let replica = Peer::aeris(&[]);
    let mut c = replica.connect();
    assert_eq!(c.line("SET mine 1"), "+OK\r\n");
    let body = empty_snapshot();
    let mut frames = vec![format!("+FULLRESYNC {ID} 0\r\n\n${}\r\n", body.len()).into_bytes()];
    frames.push(format!("+FULLRESYNC {ID} 0\r\n\n$EOF:{ID}\r\n").into_bytes());
    frames[0].extend_from_slice(&body);
    frames[1].extend_from_slice(&body);
    frames[1].extend_from_slice(ID.as_bytes());
    let mut count = 0;
    for frame in &frames {
        for cut in 0..frame.len() {
            // After REPLICAOF with another address, the replica connects at once.
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            assert_eq!(c.line(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK\r\n");
            let (mut stream, _) = listener.accept().expect("the replica");
            handshake(&mut stream).expect("a request");
            stream.write_all(&frame[..cut]).expect("sent");
            finish(stream);
            assert_eq!(c.line("GET mine"), "$1\r\n1\r\n", "cut at {cut}");
            count += 1;
        }
    }
    let files = std::fs::read_dir(replica.dir()).expect("a directory");
    let temp = files.filter(|f| {
        let name = f.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with("temp-")
    });
    assert_eq!(temp.count(), 0, "files of snapshots remain");
    println!("{count} cuts");
}

/// A server process is the primary. Each connection of the test's replica continues one byte later
/// in the stream, and is cut soon after; other connections are cut within their requests.
#[test]
fn a_real_primary_continues_at_each_byte_of_the_stream() {
    let primary = Peer::aeris(&[
        "--repl-diskless-sync",
        "no",
        "--repl-ping-replica-period",
        "3600",
    ]);
    let mut c = primary.connect();
    let mut whole = primary.connect();
    whole.send(&multibulk(&["PSYNC", "?", "-1"]));
    let full = loop {
        let line = whole.raw_line();
        if line.starts_with('+') {
            break line;
        }
    };
    let id = full.split(' ').nth(1).expect("an id").to_string();
    let begin: usize = full
        .split(' ')
        .nth(2)
        .expect("an offset")
        .parse()
        .expect("a number");
    while number(&mut c, "connected_slaves") == 0 {}
    let mut header = whole.raw_line();
    while !header.starts_with('$') {
        header = whole.raw_line();
    }
    whole.read_bytes(header[1..].parse().expect("a length"));
    let mut writer = primary.connect();
    writer.send(&history(LEN));
    while c.line("GET last") != "$1\r\n1\r\n" {}
    let len = number(&mut c, "master_repl_offset") - begin;
    assert!(len > LEN / 2);
    let stream = whole.read_bytes(len);
    let mut count = 0;
    for at in 0..=len {
        let mut replica = primary.connect();
        replica.send(&multibulk(&["PSYNC", &id, &(begin + at + 1).to_string()]));
        assert_eq!(replica.raw_line(), "+CONTINUE");
        let some = (at * 7 % 300).min(len - at);
        assert!(
            replica.read_bytes(some) == stream[at..at + some],
            "behind {at}"
        );
        count += 1;
    }
    let requests = [
        multibulk(&["PING"]),
        multibulk(&["REPLCONF", "capa", "eof", "capa", "psync2"]),
        multibulk(&["PSYNC", &id, &(begin + 1).to_string()]),
    ]
    .concat();
    for cut in 0..=requests.len() {
        primary.connect().send(&requests[..cut]);
        count += 1;
    }
    whole.send(&multibulk(&["REPLCONF", "ACK", &(begin + len).to_string()]));
    while number(&mut c, "connected_slaves") > 1 {}
    let info = c.line("INFO replication");
    assert!(info.contains(&format!("offset={}", begin + len)), "{info}");
    println!("{count} cuts");
}
