//! Faulty clients do not affect other clients: garbage, incomplete commands, enormous headers,
//! replies that are never read, and very many idle connections.

mod common;

use common::{Conn, Peer, multibulk};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The resident memory of a process in bytes.
fn resident(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("statm");
    text.split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok())
        .expect("pages")
        * 4096
}

fn assert_well(server: &mut Peer) {
    assert!(server.alive(), "the server ended");
    assert_eq!(server.connect().line("PING"), "+PONG\r\n");
}

#[test]
fn ten_thousand_idle_connections_cost_under_2_kb_each() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("rlimit");
    let wanted = 10_000;
    assert!(
        hard >= wanted + 200,
        "the limit of open files, {hard}, is too low for this test"
    );
    setrlimit(Resource::RLIMIT_NOFILE, wanted + 200, hard).expect("rlimit");
    let server = Peer::aeris(&["--maxclients", "10100"]);
    // The first clients allocate tables that all clients share.
    let warm: Vec<Conn> = (0..10).map(|_| server.connect()).collect();
    let before = resident(server.pid());
    let mut idle = Vec::new();
    for _ in 0..wanted as usize - 10 {
        let mut conn = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
        conn.write_all(b"PING\r\n").expect("send");
        idle.push(conn);
    }
    let mut pong = [0; 7];
    for conn in &mut idle {
        conn.read_exact(&mut pong).expect("a reply");
    }
    let each = resident(server.pid()).saturating_sub(before) / idle.len();
    assert!(each < 2048, "{each} bytes for each idle connection");
    drop(warm);
}

/// If a web page makes a browser send HTTP to the server's port, no command runs, and the log names
/// the connection. Earlier replies on the connection are dropped too.
#[test]
fn an_http_request_is_cut_off_and_logged() {
    let mut server = Peer::aeris(&["--logfile", "log"]);
    let requests: [&[u8]; 4] = [
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k 1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nSET k 1\r\n",
        b"*1\r\n$4\r\npost\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n",
        b"MULTI\r\nhOST: x\r\nSET k 1\r\nEXEC\r\n",
    ];
    let mut first = None;
    for request in requests {
        let mut conn = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
        first.get_or_insert(conn.local_addr().expect("an address"));
        conn.write_all(request).expect("send");
        let mut reply = Vec::new();
        // The kernel resets a connection that the server closes while it has unread bytes.
        let end = conn.read_to_end(&mut reply).map_err(|e| e.kind());
        assert!(
            matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)),
            "{end:?}"
        );
        assert_eq!(reply, b"", "{}", String::from_utf8_lossy(request));
    }
    assert_eq!(server.connect().line("EXISTS k"), ":0\r\n");
    assert_well(&mut server);
    let log = std::fs::read_to_string(server.dir().join("log")).expect("the log");
    assert_eq!(
        log.matches("Possible SECURITY ATTACK detected.").count(),
        1,
        "{log}"
    );
    let named = format!("Connection from {} aborted.", first.expect("a request"));
    assert!(log.contains(&named), "{log}");
}

#[test]
fn garbage_is_answered_and_closed() {
    let mut server = Peer::aeris(&[]);
    let garbage: [&[u8]; 6] = [
        b"*1\r\n#oops\r\n",
        b"*-9999999999999999999\r\n",
        b"*1\r\n$-5\r\n",
        b"*1000000000000\r\n",
        b"\"unbalanced\r\n",
        b"*1\r\n$99999999999\r\n",
    ];
    for bytes in garbage {
        let mut conn = server.connect();
        conn.send(bytes);
        assert!(
            conn.reply().starts_with(b"-ERR Protocol error: "),
            "{}",
            bytes.escape_ascii()
        );
        assert!(conn.closed());
    }
    let mut noise = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let mut conn = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
        // The server may close the connection at any time.
        let _ = conn.write_all(&bytes);
    }
    assert_well(&mut server);
}

#[test]
fn headers_allocate_nothing_that_does_not_arrive() {
    let mut server = Peer::aeris(&["--proto-max-bulk-len", "1gb"]);
    let before = resident(server.pid());
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut conn = server.connect();
        conn.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$629145600\r\nabc");
        held.push(conn);
        let mut conn = server.connect();
        conn.send(b"*2147483647\r\n$4\r\nMSET\r\n");
        held.push(conn);
    }
    assert_well(&mut server);
    let grown = resident(server.pid()).saturating_sub(before);
    assert!(grown < 40 * 1024 * 1024, "{grown} bytes for headers alone");
}

#[test]
fn a_client_that_never_reads_is_cut_off_at_its_limit() {
    let mut server = Peer::aeris(&["--client-output-buffer-limit", "normal 16mb 0 0"]);
    let mut other = server.connect();
    other.cmd(&["SET", "k", &"x".repeat(100_000)]);
    let mut deaf = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
    deaf.set_write_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let request = multibulk(&["GET", "k"]);
    for _ in 0..2000 {
        if deaf.write_all(&request).is_err() {
            break;
        }
    }
    assert_eq!(other.line("PING"), "+PONG\r\n");
    assert_well(&mut server);
    // The bytes that were sent before the connection was closed arrive, then the end of the
    // connection.
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(n) = deaf.read(&mut buffer) {
        if n == 0 {
            break;
        }
        received += n;
    }
    assert!(received < 2000 * 100_000, "the limit did not act");
}

#[test]
fn half_a_command_waits_and_harms_no_client() {
    let mut server = Peer::aeris(&[]);
    let mut half = server.connect();
    half.send(b"*2\r\n$3\r\nGET\r\n$1");
    assert_well(&mut server);
    half.send(b"\r\nk\r\n");
    assert_eq!(half.reply(), b"$-1\r\n");
}

/// When the reply to CLIENT KILL arrives, as in Redis, the peer of the killed client has the end of
/// its connection already.
#[test]
fn a_killed_client_sees_its_end_before_the_reply_is_sent() {
    let server = Peer::aeris(&[]);
    let mut killer = server.connect();
    for round in 0..100 {
        let mut victim = server.connect();
        let id = victim.line("CLIENT ID");
        let kill = format!("CLIENT KILL ID {}", id.trim_start_matches(':').trim_end());
        if round % 2 == 0 {
            assert_eq!(killer.line(&kill), ":1\r\n");
        } else {
            killer.line("MULTI");
            assert_eq!(killer.line(&kill), "+QUEUED\r\n");
            assert_eq!(killer.line("EXEC"), "*1\r\n:1\r\n");
        }
        assert!(!victim.has_nothing(), "round {round}");
        assert!(victim.closed());
    }
}

/// Standard output of DEBUG commands and of the tools may be a full disk or a closed pipe, which
/// once ended the server.
#[test]
fn a_standard_output_that_takes_nothing() {
    let full = || std::fs::File::create("/dev/full").expect("/dev/full");
    let server = Peer::aeris_with(&[], |command| {
        command.stdout(full()).args(["--logfile", "log"]);
    });
    let mut conn = server.connect();
    conn.line("CONFIG SET list-max-listpack-size 2");
    conn.line("RPUSH few a");
    conn.line("RPUSH many a b c d e");
    for (command, what) in [
        ("LISTPACK few", "Listpack"),
        ("QUICKLIST many 1", "Quicklist"),
    ] {
        assert_eq!(
            conn.line(&format!("DEBUG {command}")),
            format!("+{what} structure printed on stdout\r\n")
        );
    }
    for argument in ["--version", "--check-system", "--help"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aeris-server"));
        command.arg(argument).stdout(full()).stderr(full());
        let status = command.status().expect("a status");
        assert!(status.code().is_some(), "{argument}: {status}");
    }
}

/// DEBUG LISTPACK takes values of every type whose encoding is listpack.
#[test]
fn debug_listpack_of_every_type() {
    let server = Peer::aeris(&[]);
    let mut conn = server.connect();
    for (command, is_listpack) in [
        ("RPUSH list a", true),
        ("SADD set a b", true),
        ("ZADD zset 1 a", true),
        ("HSET hash a b", true),
        ("SADD intset 1 2", false),
        ("SET string a", false),
        ("XADD stream 1-1 a b", false),
    ] {
        conn.line(command);
        let key = command.split(' ').nth(1).expect("a key");
        let expected = match is_listpack {
            true => "+Listpack structure printed on stdout\r\n",
            false => "-ERR Not a listpack encoded object.\r\n",
        };
        assert_eq!(
            conn.line(&format!("DEBUG LISTPACK {key}")),
            expected,
            "{key}"
        );
    }
}
