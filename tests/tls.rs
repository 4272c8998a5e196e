//! TLS: clients, certificates, reloads, and clients that break the protocol. The certificates are
//! made by the command `openssl` for each test.
//!
//! - `bus`: nodes of a cluster, also with a node of Valkey or Redis.
//! - `certificates`: authorities and certificates in a directory for each test.
//! - `links`: replication and MIGRATE by TLS, also with Redis and Valkey.

#[path = "tls/bus.rs"]
mod bus;
#[path = "tls/certificates.rs"]
mod certificates;
mod common;
#[path = "tls/links.rs"]
mod links;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use certificates::{Certificates, Client, Signed};
use common::{Conn, Peer, multibulk};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

/// Waits until `condition` is true, for up to a minute.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client that sends requests, announces the end of the session and closes its side in one packet
/// gets all replies, over TLS as on a plain connection.
#[test]
fn requests_before_the_end_of_a_session_get_replies() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    // A number of bytes that fills the server's buffer for reads exactly: the end follows at once.
    let request = multibulk(&["ECHO", &"x".repeat(43)[..]]);
    assert_eq!(request.len(), 64);
    for count in [1, 1024, 2048] {
        let mut plain = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
        plain
            .write_all(&request.repeat(count))
            .and_then(|()| plain.shutdown(std::net::Shutdown::Write))
            .expect("requests");
        let mut replies = Vec::new();
        plain.read_to_end(&mut replies).expect("replies");
        assert_eq!(replies.len(), count * 50, "{count} requests");
    }
    for version in [&TLS12, &TLS13] {
        for count in [1, 1000, 5000] {
            let client = files.client().version(version).connect();
            let replies = client.last_requests(&multibulk(&["PING"]).repeat(count));
            assert_eq!(replies.len(), count * 7, "{count} requests");
        }
    }
}

#[test]
fn a_client_over_tls_gets_what_a_plain_one_gets() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    for version in [&TLS12, &TLS13] {
        let mut client = files.client().version(version).connect();
        assert_eq!(client.line("SET k v"), "+OK\r\n");
        assert_eq!(plain.line("GET k"), "$1\r\nv\r\n");
        // The value is larger than a TLS record and than a socket's buffers, in both directions.
        let big = vec![b'x'; 5_000_000];
        assert_eq!(client.cmd(&[b"SET", &b"big"[..], &big]), b"+OK\r\n");
        let echoed = client.cmd(&["GET", "big"]);
        assert!(echoed.len() == big.len() + 12 && echoed.ends_with(b"xx\r\n"));
        // A pipeline of requests in one write.
        let requests = multibulk(&["INCR", "n"]).repeat(20_000);
        client.send(&requests);
        let last = (0..20_000).map(|_| client.reply()).last();
        let expected = plain.line("GET n");
        let number = expected.split("\r\n").nth(1).expect("a bulk").to_string();
        assert_eq!(last, Some(format!(":{number}\r\n").into_bytes()));
    }
    let list = plain.line("CLIENT LIST");
    assert!(
        !list.contains(&format!("laddr=127.0.0.1:{}", files.port)),
        "both have left: {list}"
    );
}

#[test]
fn handshakes_are_in_the_trace() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    assert_eq!(plain.line("TRACE START"), "+OK\r\n");
    assert_eq!(files.client().connect().line("PING"), "+PONG\r\n");
    let trace = plain.line("TRACE DUMP");
    assert!(trace.contains("\"cat\":\"handshake\""), "{trace}");
}

/// Replies that a client does not read fill the socket in the middle of a TLS record; all replies
/// arrive, once and in order, when the client reads again.
#[test]
fn a_client_that_reads_late_gets_every_byte() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    for n in 0..8 {
        let value: Vec<u8> = (0..3_000_000u32)
            .map(|i| ((i * (n + 7)) >> 3) as u8)
            .collect();
        plain.cmd(&[b"SET".to_vec(), format!("k{n}").into_bytes(), value]);
    }
    let mut client = files.client().connect();
    for n in 0..8 {
        client.send(&multibulk(&["GET", &format!("k{n}")]));
    }
    until("the replies are queued", || {
        let list = plain.line("CLIENT LIST");
        list.lines()
            .any(|line| line.contains("cmd=get") && !line.contains("omem=0 "))
    });
    for n in 0..8 {
        let expected = plain.cmd(&["GET", &format!("k{n}")]);
        assert!(client.reply() == expected, "reply {n}");
    }
}

#[test]
fn certificates_of_clients_are_demanded_as_the_setting_says() {
    let files = Certificates::new();
    let alien = Certificates::new();
    let server = Peer::aeris(&files.settings(&[]));
    let mut plain = server.connect();
    let own = files.signed("client", "someone");
    let stranger = alien.signed("stranger", "someone");
    for (setting, without, with_own, with_stranger) in [
        ("yes", false, true, false),
        ("optional", true, true, false),
        ("no", true, true, true),
    ] {
        assert_eq!(
            plain.line(&format!("CONFIG SET tls-auth-clients {setting}")),
            "+OK\r\n"
        );
        assert_eq!(files.client().works(), without, "{setting}, without");
        assert_eq!(
            files.client().shows(&own).works(),
            with_own,
            "{setting}, own"
        );
        assert_eq!(
            files.client().shows(&stranger).works(),
            with_stranger,
            "{setting}, stranger"
        );
    }
}

#[test]
fn the_certificate_names_the_user() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "optional"]));
    let mut plain = server.connect();
    let whoami = |client: Client| client.connect().line("ACL WHOAMI");
    let alice = files.signed("alice", "alice");
    let bob = files.signed("bob", "bob");
    for user in ["alice", "urn:alice"] {
        plain.line(&format!("ACL SETUSER {user} on nopass +@all"));
    }
    assert_eq!(whoami(files.client().shows(&alice)), "$7\r\ndefault\r\n");
    plain.line("CONFIG SET tls-auth-clients-user CN");
    assert_eq!(whoami(files.client().shows(&alice)), "$5\r\nalice\r\n");
    assert_eq!(whoami(files.client()), "$7\r\ndefault\r\n");
    assert_eq!(whoami(files.client().shows(&bob)), "$7\r\ndefault\r\n");
    let log = plain.line("ACL LOG");
    assert!(
        log.contains("\r\ntls-cert\r\n") && log.contains("\r\nbob\r\n"),
        "{log}"
    );
    let stats = plain.line("INFO stats");
    assert!(
        stats.contains("acl_access_denied_tls_cert:1\r\n"),
        "{stats}"
    );
    plain.line("ACL SETUSER alice off");
    assert_eq!(whoami(files.client().shows(&alice)), "$7\r\ndefault\r\n");
    plain.line("CONFIG SET tls-auth-clients-user URI");
    assert_eq!(whoami(files.client().shows(&alice)), "$9\r\nurn:alice\r\n");
}

const REFUSED: &str = "Unable to update TLS configuration. Check server logs.\r\n";

#[test]
fn new_certificates_replace_the_old_ones_or_are_refused() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    let mut stays = files.client().connect();
    let shown = |files: &Certificates| files.client().connect().peer_serial();
    let first = shown(&files);
    let other = files.signed("other", "other");
    let set = |plain: &mut Conn, signed: &Signed| {
        plain.line(&format!(
            "CONFIG SET tls-cert-file {} tls-key-file {}",
            signed.certificate, signed.key
        ))
    };
    assert_eq!(set(&mut plain, &other), "+OK\r\n");
    let second = shown(&files);
    assert_ne!(second, first);
    assert_eq!(stays.line("PING"), "+PONG\r\n");
    for bad in [
        files.expired("old"),
        files.text("garbage", "no certificate"),
        files.text("cut", "-----BEGIN CERTIFICATE-----\nMIIB"),
        files.text(
            "not",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        Signed {
            certificate: "/nowhere".into(),
            key: other.key.clone(),
        },
        Signed {
            certificate: other.certificate.clone(),
            key: "/nowhere".into(),
        },
        Signed {
            certificate: other.certificate.clone(),
            key: files.server.key.clone(),
        },
        Signed {
            certificate: String::new(),
            key: other.key.clone(),
        },
    ] {
        let reply = set(&mut plain, &bad);
        assert!(reply.ends_with(REFUSED), "{}: {reply}", bad.certificate);
    }
    assert_eq!(shown(&files), second);
    // The private key has a passphrase, which `tls-key-file-pass` must give.
    let sealed = files.with_passphrase(&other, "secret");
    assert!(set(&mut plain, &sealed).ends_with(REFUSED));
    let with = |pass| {
        format!(
            "CONFIG SET tls-key-file {} tls-key-file-pass {pass}",
            sealed.key
        )
    };
    assert!(plain.line(&with("wrong")).ends_with(REFUSED));
    assert_eq!(plain.line(&with("secret")), "+OK\r\n");
    assert_eq!(shown(&files), second);
    assert_eq!(stays.line("PING"), "+PONG\r\n");
    for refused in [
        "tls-protocols foo",
        "tls-protocols TLSv1.1",
        "tls-ciphers foo",
        "tls-ciphersuites foo",
        "tls-dh-params-file /nowhere",
        "tls-ca-cert-dir /nowhere",
    ] {
        let reply = plain.line(&format!("CONFIG SET {refused}"));
        assert!(reply.ends_with(REFUSED), "{refused}: {reply}");
    }
    assert_eq!(plain.line("CONFIG SET tls-protocols TLSv1.2"), "+OK\r\n");
    assert!(files.client().version(&TLS12).works() && !files.client().version(&TLS13).works());
}

/// A start accepts an expired certificate, so CONFIG SET of other settings of TLS does so, too.
#[test]
fn an_expired_certificate_in_use_lets_other_settings_change() {
    let files = Certificates::new();
    let old = files.expired("old");
    let pair = [
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &old.certificate,
        "--tls-key-file",
        &old.key,
    ];
    let server = Peer::aeris(&files.settings(&pair));
    let mut plain = server.connect();
    let port = format!("tls-port {}", files.port);
    for setting in [
        "tls-auth-clients yes",
        "tls-session-caching no",
        "tls-protocols TLSv1.3",
        "tls-port 0",
        &port,
    ] {
        let reply = plain.line(&format!("CONFIG SET {setting}"));
        assert_eq!(reply, "+OK\r\n", "{setting}");
    }
    let other = files.expired("older");
    let reply = plain.line(&format!(
        "CONFIG SET tls-cert-file {} tls-key-file {}",
        other.certificate, other.key
    ));
    assert!(reply.ends_with(REFUSED), "{reply}");
}

/// The protected mode refuses a client of another address by an error reply, which needs the end of
/// the TLS handshake.
#[test]
fn the_protected_mode_says_why_it_refuses_a_client() {
    // Connecting a UDP socket chooses an address of this machine, and sends nothing.
    let chosen = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(own) = chosen else {
        return eprintln!("this machine has only loopback addresses");
    };
    let own = own.ip().to_string();
    let files = Certificates::new();
    let bind = format!("127.0.0.1 {own}");
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no", "--bind", &bind]));
    for version in [&TLS12, &TLS13] {
        let mut client = files.client().version(version).open_at(&own);
        let reply = client.try_line("PING").expect("a reply");
        assert!(reply.starts_with("-DENIED "), "{reply}");
        assert_eq!(client.try_line("PING"), None, "it is closed");
    }
    let mut plain = server.connect();
    let stats = plain.line("INFO stats");
    assert!(stats.contains("rejected_connections:2\r\n"), "{stats}");
    assert_eq!(plain.line("CONFIG SET protected-mode no"), "+OK\r\n");
    assert_eq!(files.client().open_at(&own).line("PING"), "+PONG\r\n");
}

#[test]
fn changed_files_are_loaded_by_interval_and_by_sighup() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    let mut stays = files.client().connect();
    let shown = || files.client().connect().peer_serial();
    let first = shown();
    let replace = |name| {
        let new = files.signed(name, name);
        std::fs::rename(&new.key, &files.server.key).expect("a file");
        std::fs::rename(&new.certificate, &files.server.certificate).expect("a file");
    };
    replace("second");
    assert_eq!(shown(), first);
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("a process");
    until("SIGHUP", || shown() != first);
    let second = shown();
    plain.line("CONFIG SET tls-auto-reload-interval 1");
    replace("third");
    until("the interval", || shown() != second);
    let third = shown();
    // A reload with a certificate that can't be used keeps the present certificate.
    std::fs::write(&files.server.certificate, "broken").expect("a file");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("a process");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(shown(), third);
    assert_eq!(stays.line("PING"), "+PONG\r\n");
    let info = plain.line("INFO tls");
    assert!(
        info.contains(&format!("tls_server_cert_serial:{third}\r\n")),
        "{info} {third}"
    );
    assert!(info.contains("tls_client_cert_serial:none\r\n"), "{info}");
}

#[test]
fn the_port_can_be_opened_moved_and_closed() {
    let files = Certificates::new();
    let settings = files.settings(&["--tls-auth-clients", "no", "--tls-port", "0"]);
    let server = Peer::aeris(&settings);
    let mut plain = server.connect();
    assert!(!files.client().works());
    let port = files.port;
    assert_eq!(
        plain.line(&format!("CONFIG SET tls-port {port}")),
        "+OK\r\n"
    );
    let mut client = files.client().connect();
    assert!(
        client
            .line("INFO server")
            .contains(&format!("listener1:name=tls,bind=127.0.0.1,port={port}"))
    );
    assert_eq!(client.line("CONFIG SET port 0"), "+OK\r\n");
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    assert!(
        client
            .line("INFO server")
            .contains(&format!("tcp_port:{port}\r\n"))
    );
    assert_eq!(client.line("CONFIG SET tls-port 0"), "+OK\r\n");
    assert_eq!(client.line("PING"), "+PONG\r\n");
    assert!(!files.client().works());
}

#[test]
fn sessions_are_resumed_unless_caching_is_off() {
    let files = Certificates::new();
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut plain = server.connect();
    for version in [&TLS12, &TLS13] {
        let mut kinds = |caching: &str| {
            plain.line(&format!("CONFIG SET tls-session-caching {caching}"));
            let config = files.client().version(version).config();
            [(); 2].map(|()| {
                let mut client = files.connect_with(config.clone());
                assert_eq!(client.line("PING"), "+PONG\r\n");
                client.kind()
            })
        };
        assert_eq!(kinds("yes"), [HandshakeKind::Full, HandshakeKind::Resumed]);
        assert_eq!(kinds("no"), [HandshakeKind::Full, HandshakeKind::Full]);
    }
}

#[test]
fn the_wrong_protocol_on_a_port_is_an_error_of_that_connection() {
    let files = Certificates::new();
    let log = files.text("log", "").certificate;
    let server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no", "--logfile", &log]));
    // A client without TLS connects to the TLS port.
    for request in [
        &b"PING\r\n"[..],
        &multibulk(&["PING"]),
        &[0; 100],
        &[0xff; 70_000],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", files.port)).expect("connected");
        // The server may close before it has read everything.
        let _ = stream.write_all(request);
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let reset = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        // The server sends no TLS alert either: a client without TLS would take it for a reply.
        assert!(!reset && answer.is_empty(), "{answer:?}");
    }
    // Bytes that break the protocol, after a start of a TLS record, get an alert.
    let mut stream = TcpStream::connect(("127.0.0.1", files.port)).expect("connected");
    stream
        .write_all(&[22, 3, 1, 0, 5, 99, 0, 0, 1, 0])
        .expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("the peer does not speak TLS"), "{log}");
    // A TLS client that connects to the plain port gets no reply, or an error.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("connected");
    stream
        .write_all(&[22, 3, 1, 0, 2, 13, 10, 22, 13, 10])
        .expect("sent");
    assert_eq!(server.connect().line("PING"), "+PONG\r\n");
    assert!(files.client().works());
}

/// Handshakes that never end keep no client out: neither by `maxclients` nor by the time that they
/// cost.
#[test]
fn stuck_handshakes_keep_no_client_out() {
    stuck_handshakes("50");
}

#[test]
fn a_thousand_stuck_handshakes_at_once_harm_no_client() {
    stuck_handshakes("2000");
}

fn stuck_handshakes(maxclients: &str) {
    let files = Certificates::new();
    let settings = files.settings(&["--tls-auth-clients", "no", "--maxclients", maxclients]);
    let server = Peer::aeris(&settings);
    let mut plain = server.connect();
    let mut stuck = Vec::new();
    for n in 0..1000 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", files.port)) {
            // Half of the clients begin a handshake, the others are silent.
            if n % 2 == 0 {
                let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0]);
            }
            stuck.push(stream);
        }
        if n % 100 == 0 {
            assert_eq!(plain.line("PING"), "+PONG\r\n");
        }
    }
    until("a plain client finds a place", || {
        let mut conn = server.connect();
        conn.try_line("PING")
            .is_some_and(|reply| reply == "+PONG\r\n")
    });
    until("a TLS client finds a place", || files.client().works());
    // The time limit of the stuck handshakes ends.
    until("closed", || {
        let last = stuck.last_mut().expect("some");
        last.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        let read = last.read(&mut [0; 64]);
        !matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    });
}

/// Damaged TLS records, and streams that are cut at any byte, end their own connection only.
#[test]
fn damaged_records_end_their_connection_only() {
    let files = Certificates::new();
    let mut server = Peer::aeris(&files.settings(&["--tls-auth-clients", "no"]));
    let mut stays = files.client().connect();
    for round in 0..60usize {
        let mut damaged = files.client().damage(round).open();
        // Any reply or none is right, as long as the server does not end.
        let _ = damaged.try_line("PING");
        let _ = damaged.try_line("PING");
    }
    assert_eq!(stays.line("PING"), "+PONG\r\n");
    assert!(server.alive());
}

#[test]
fn a_start_without_usable_certificates_fails() {
    let files = Certificates::new();
    let broken = files.text("broken", "x").certificate;
    for args in [
        &["--tls-cert-file", "/nowhere"][..],
        &["--tls-key-file", &broken],
        &["--tls-ca-cert-file", ""],
    ] {
        let program = env!("CARGO_BIN_EXE_aeris-server");
        let mut command = std::process::Command::new(program);
        command
            .args(["--port", "0", "--save", ""])
            .args(files.settings(args));
        let output = command.output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(
            log.contains("Failed to configure TLS. Check logs for more info."),
            "{log}"
        );
    }
}
