//! Snapshots that announce more than they contain, and functions whose code never ends: the
//! replica's load fails, its memory stays small, and with `repl-diskless-load swapdb` the old data
//! set stays.

use crate::fake::{FakePrimary, ID, Link, Server, wait_for};

/// A length in the RDB format's form of 64 bits.
fn long(n: u64) -> Vec<u8> {
    [&[0x81][..], &n.to_be_bytes()].concat()
}

/// A string in the RDB format, behind a length of 14 bits: up to 16,383 bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u16 | 0x4000).to_be_bytes();
    [&len[..], bytes].concat()
}

/// An RDB file of these opcodes, without checksum.
fn file(parts: &[&[u8]]) -> Vec<u8> {
    [b"REDIS0011", &parts.concat()[..], b"\xff", &[0; 8]].concat()
}

/// A key `k` as it is in an RDB file: the selection of database 0, the type byte `kind`, the name
/// and `value`.
fn key(kind: u8, value: &[u8]) -> Vec<u8> {
    [b"\xfe\x00", &[kind][..], &text(b"k"), value].concat()
}

/// RDB files with errors: a name for the test, the file, and a text that the replica logs.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const ENDS: &str = "Unexpected EOF reading RDB file";
    let good = key(0, &text(b"v"));
    let function = |code: &str| {
        let library = [b"\xf5", &text(code.as_bytes())[..]].concat();
        file(&[&library, &good])
    };
    let compressed = [&[0xc3, 5][..], &long(1 << 40), b"abcde"].concat();
    vec![
        (
            "a string of 2^62 bytes",
            file(&[&key(0, &long(1 << 62))]),
            ENDS,
        ),
        ("a list of 2^40", file(&[&key(1, &long(1 << 40))]), ENDS),
        ("a set of 2^40", file(&[&key(2, &long(1 << 40))]), ENDS),
        ("a hash of 2^40", file(&[&key(4, &long(1 << 40))]), ENDS),
        (
            "a sorted set of 2^40",
            file(&[&key(5, &long(1 << 40))]),
            ENDS,
        ),
        (
            "2^40 bytes from five",
            file(&[&key(0, &compressed)]),
            "Invalid LZF compressed string",
        ),
        (
            "a database that is not there",
            file(&[b"\xfe\x80\x80\x00\x00\x00", &good[2..]]),
            "more than 16 databases",
        ),
        (
            "a key twice",
            file(&[&good, &good[2..]]),
            "RDB has duplicated key 'k'",
        ),
        (
            "a function that does not end",
            function("#!lua name=x\nwhile true do end"),
            "FUNCTION LOAD timeout",
        ),
        (
            "a function that is no code",
            function("#!lua name=x\n((("),
            "Error compiling function",
        ),
    ]
}

/// How a replica recognizes the end of a snapshot on the link.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The snapshot ends after its length, which is sent first.
    Length,
    /// The snapshot ends with a mark, so its length is not known.
    Mark,
}

/// Sends a full resync whose snapshot is `file`.
fn send(link: &mut Link, file: &[u8], end: End) {
    let (header, mark) = match end {
        End::Length => (format!("${}\r\n", file.len()), ""),
        End::Mark => (format!("$EOF:{ID}\r\n"), ID),
    };
    link.send(format!("+FULLRESYNC {ID} 7\r\n{header}").as_bytes());
    link.send(file);
    link.send(mark.as_bytes());
}

/// The line that a replica logs about each snapshot that it can't load.
const FAILED: &str = "Failed trying to load the MASTER synchronization DB from socket";

#[test]
fn a_snapshot_that_promises_too_much_fails() {
    let ways = [
        ("disabled", End::Length),
        ("swapdb", End::Length),
        ("disabled", End::Mark),
        ("swapdb", End::Mark),
    ];
    for (load, end) in ways {
        let mut server = Server::new(&["--repl-diskless-load", load]);
        for (name, bytes, logged) in bad_files() {
            assert_eq!(server.line("REPLICAOF NO ONE"), "+OK\r\n");
            assert_eq!(server.line("SET mine 1"), "+OK\r\n");
            let from = server.log().len();
            let primary = FakePrimary::new();
            let mut link = primary.lead(&mut server);
            send(&mut link, &bytes, end);
            link.wait_for_end();
            // A snapshot whose length is not known is read until its bytes make no sense.
            let unchecked = load == "swapdb" && matches!(end, End::Mark);
            server.wait_for_log(from, if unchecked { FAILED } else { logged });
            server.assert_well();
            if load == "swapdb" {
                assert_eq!(server.line("GET mine"), "$1\r\n1\r\n", "{name}");
            }
            assert_eq!(server.line("EXISTS k"), ":0\r\n", "{load}, {end:?}: {name}");
            assert!(server.memory() < 200 << 20, "{load}, {end:?}: {name}");
        }
    }
}

/// The number of keys that an RDB file announces only sets the size of tables, so a wrong number
/// does not matter.
#[test]
fn a_wrong_number_of_keys_takes_no_memory() {
    for end in [End::Length, End::Mark] {
        let mut server = Server::new(&["--repl-diskless-load", "on-empty-db"]);
        let sizes = [&b"\xfe\x00\xfb"[..], &long(1 << 60), &long(1 << 60)].concat();
        let bytes = file(&[&sizes, &key(0, &text(b"v"))[2..]]);
        let primary = FakePrimary::new();
        let mut link = primary.lead(&mut server);
        send(&mut link, &bytes, end);
        link.wait_for_ack(7);
        assert_eq!(server.line("GET k"), "$1\r\nv\r\n");
        assert!(server.memory() < 200 << 20, "{end:?}");
    }
}

/// A replica ignores impossible values of `repl-id`, `repl-offset` and `repl-stream-db` in a
/// snapshot.
#[test]
fn a_wrong_position_in_a_snapshot_is_ignored() {
    let mut server = Server::new(&[]);
    let field =
        |name: &str, value: &[u8]| [b"\xfa", &text(name.as_bytes())[..], &text(value)].concat();
    let aux = [
        field("repl-stream-db", b"999999"),
        field("repl-id", &[b'x'; 16_000]),
        field("repl-offset", b"-5"),
    ];
    let bytes = file(&[&aux.concat(), &key(0, &text(b"v"))]);
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    send(&mut link, &bytes, End::Length);
    link.wait_for_ack(7);
    link.send(b"*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\n1\r\n");
    wait_for("the write", || server.line("GET n") == "$1\r\n1\r\n");
    assert_eq!(server.info("master_replid"), ID);
    assert_eq!(server.info("slave_repl_offset"), "34");
}

/// If the stream of a primary is cut inside of a transaction, the replica applies no command of it.
#[test]
fn half_a_transaction_is_not_applied() {
    let mut server = Server::new(&[]);
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    link.full_resync(100);
    link.wait_for_ack(100);
    let multi = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\n1\r\n";
    link.send(multi);
    let read = (100 + multi.len()).to_string();
    wait_for("it is read", || {
        server.info("slave_read_repl_offset") == read
    });
    drop(link);
    let again = primary.accept();
    assert_eq!(again.psync[1..], [ID, "101"]);
    assert_eq!(server.line("EXISTS n"), ":0\r\n");
}

/// The primary's stream contains a script that does not end: the replica still replies to its
/// clients, and SHUTDOWN NOSAVE ends the replica.
#[test]
fn a_script_that_does_not_end_can_be_ended_with_the_server() {
    let mut server = Server::new(&["--busy-reply-threshold", "50"]);
    let primary = FakePrimary::new();
    let mut link = primary.lead(&mut server);
    link.full_resync(100);
    link.wait_for_ack(100);
    link.send(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n");
    wait_for("it is busy", || {
        server.line("GET from").starts_with("-BUSY")
    });
    assert!(server.line("SCRIPT KILL").starts_with("-UNKILLABLE"));
    server.conn.try_line("SHUTDOWN NOSAVE");
    wait_for("it has ended", || !server.peer.alive());
}
