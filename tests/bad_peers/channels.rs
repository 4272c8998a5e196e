//! Primaries that break the protocol of a full sync over two connections, in the dialects of Redis
//! (RDB channel) and of Valkey (dual channel).

use crate::common::multibulk;
use crate::fake::{FakePrimary, ID, Link, Server, snapshot, wait_for};

/// The replication offset of the snapshots in these tests.
const OFFSET: u64 = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    Valkey,
    Redis,
}

const DIALECTS: [Dialect; 2] = [Dialect::Valkey, Dialect::Redis];

impl Dialect {
    fn server(self, args: &[&str]) -> Server {
        let setting = match self {
            Dialect::Valkey => "--dual-channel-replication-enabled",
            Dialect::Redis => "--repl-rdb-channel",
        };
        let mut server = Server::new(&[&[setting, "yes"], args].concat());
        assert_eq!(server.line("SET mine 1"), "+OK\r\n");
        server
    }

    /// The reply to PSYNC that requests a second connection.
    fn split(self) -> &'static str {
        match self {
            Dialect::Valkey => "+DUALCHANNELSYNC\r\n",
            Dialect::Redis => "+RDBCHANNELSYNC 7\r\n",
        }
    }

    /// The line that the primary sends on the second connection before the snapshot.
    fn begin(self) -> String {
        match self {
            Dialect::Valkey => format!("$ENDOFF:{OFFSET} {ID} 0 7\r\n"),
            Dialect::Redis => format!("+FULLRESYNC {ID} {OFFSET}\r\n"),
        }
    }

    /// Wrong lines in the place of [`Dialect::begin`], each with a text that the replica logs.
    fn bad_begins(self) -> Vec<(String, &'static str)> {
        let unexpected = "Received unexpected $ENDOFF response";
        let failed = "Dual channel sync failed with error";
        let mut lines = vec![
            ("+OK\r\n".into(), unexpected),
            ("-ERR no snapshot today\r\n".into(), failed),
            ("+DUALCHANNELSYNC\r\n".into(), unexpected),
            ("+RDBCHANNELSYNC 8\r\n".into(), unexpected),
            ("+CONTINUE\r\n".into(), unexpected),
            (format!("+{}\r\n", "\u{1b}[2J".repeat(500)), unexpected),
            (format!("-{}\r\n", "\u{1b}[2J".repeat(500)), failed),
            ("x".repeat(100_000), failed),
        ];
        lines.extend(match self {
            Dialect::Valkey => [
                format!("$ENDOFF:-1 {ID} 0 7\r\n"),
                format!("$ENDOFF:9223372036854775807 {ID} 0 7\r\n"),
                format!("$ENDOFF:18446744073709551615 {ID} 0 7\r\n"),
                format!("$ENDOFF:1 {ID} 0 18446744073709551616\r\n"),
                format!("$ENDOFF:1 {ID}1 0 7\r\n"),
                format!("+FULLRESYNC {ID} 1\r\n"),
            ]
            .map(|line| (line, unexpected)),
            Dialect::Redis => [
                format!("+FULLRESYNC {ID} -1\r\n"),
                format!("+FULLRESYNC {ID} 9223372036854775807\r\n"),
                format!("+FULLRESYNC {ID} 18446744073709551615\r\n"),
                format!("+FULLRESYNC {ID}1 1\r\n"),
                "+FULLRESYNC\r\n".to_string(),
                format!("$ENDOFF:1 {ID} 0 7\r\n"),
            ]
            .map(|line| (line, unexpected)),
        });
        lines
    }

    /// Reads the replica's request on the main connection, which Valkey's dialect has once the
    /// snapshot has begun.
    fn read_main_request(self, main: &mut Link) {
        if self == Dialect::Valkey {
            main.read_request();
            let next = (OFFSET + 1).to_string();
            assert_eq!(main.psync, ["PSYNC", ID, &next]);
        }
    }

    /// Reads the replica's request on the main connection, and sends the reply after which the
    /// stream of commands begins.
    fn begin_stream(self, main: &mut Link) {
        self.read_main_request(main);
        if self == Dialect::Valkey {
            main.send(b"+CONTINUE\r\n");
        }
    }
}

/// Begins a sync. Returns the main connection and the second one, on which the replica has sent its
/// request.
fn lead(primary: &FakePrimary, server: &mut Server, dialect: Dialect) -> [Link; 2] {
    let mut main = primary.lead(server);
    main.send(dialect.split().as_bytes());
    [main, primary.accept()]
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes].concat()
}

/// Checks that the replica can still sync with a correct primary.
fn assert_syncs(server: &mut Server, dialect: Dialect) {
    let primary = FakePrimary::new();
    let [mut main, mut second] = lead(&primary, server, dialect);
    second.send(dialect.begin().as_bytes());
    second.send(&bulk(snapshot()));
    dialect.begin_stream(&mut main);
    let stream = multibulk(&["SET", "after", "1"]);
    main.send(&stream);
    main.wait_for_ack(OFFSET + stream.len() as u64);
    assert_eq!(server.line("GET from"), "$8\r\nsnapshot\r\n");
    assert_eq!(server.line("GET after"), "$1\r\n1\r\n");
    server.assert_well();
}

/// Checks that no line of the log is long, and that none has bytes that a terminal acts on.
fn assert_clean_log(server: &Server) {
    let log = server.log();
    assert!(log.lines().all(|line| line.len() < 2000), "a line is long");
    assert!(!log.contains('\u{1b}'), "a control character is logged");
}

#[test]
fn a_wrong_line_before_the_snapshot_ends_both_links() {
    for dialect in DIALECTS {
        let mut server = dialect.server(&[]);
        for (line, logged) in dialect.bad_begins() {
            println!(
                "{dialect:?} {}",
                line.as_bytes()[..line.len().min(80)].escape_ascii()
            );
            let from = server.log().len();
            let primary = FakePrimary::new();
            let [mut main, mut second] = lead(&primary, &mut server, dialect);
            second.send(line.as_bytes());
            second.wait_for_end();
            main.wait_for_end();
            server.wait_for_log(from, logged);
            assert_eq!(server.line("GET mine"), "$1\r\n1\r\n");
            server.assert_well();
        }
        assert_clean_log(&server);
        assert_syncs(&mut server, dialect);
    }
}

#[test]
fn a_bad_snapshot_on_the_second_link_ends_both() {
    let whole = snapshot();
    for dialect in DIALECTS {
        let mut server = dialect.server(&[]);
        let bad = "Bad protocol from MASTER, the first byte is not '$'";
        let failed = "Failed trying to load the MASTER";
        for (body, logged) in [
            (b"$-1\r\n".to_vec(), bad),
            (b"+CONTINUE\r\n".to_vec(), bad),
            (b"*1\r\n$4\r\nPING\r\n".to_vec(), bad),
            (dialect.begin().into_bytes(), bad),
            (bulk(b"hello"), failed),
            (bulk(&whole[..whole.len() - 1]), failed),
        ] {
            println!("{dialect:?} {}", body[..body.len().min(40)].escape_ascii());
            let from = server.log().len();
            let primary = FakePrimary::new();
            let [mut main, mut second] = lead(&primary, &mut server, dialect);
            second.send(dialect.begin().as_bytes());
            second.send(&body);
            second.wait_for_end();
            main.wait_for_end();
            server.wait_for_log(from, logged);
            server.assert_well();
        }
        assert_syncs(&mut server, dialect);
    }
}

/// If one of the two connections of a sync ends, the replica closes the other; its data set stays.
#[test]
fn one_link_does_not_outlive_the_other() {
    for dialect in DIALECTS {
        let mut server = dialect.server(&[]);
        for main_ends in [true, false] {
            let primary = FakePrimary::new();
            let [mut main, mut second] = lead(&primary, &mut server, dialect);
            second.send(dialect.begin().as_bytes());
            second.send(&bulk(snapshot())[..30]);
            dialect.begin_stream(&mut main);
            main.send(&multibulk(&["SET", "early", "1"]));
            let (ends, mut stays) = match main_ends {
                true => (main, second),
                false => (second, main),
            };
            drop(ends);
            stays.wait_for_end();
            assert_eq!(server.line("GET mine"), "$1\r\n1\r\n", "{main_ends}");
            assert_eq!(server.line("GET early"), "$-1\r\n");
            server.assert_well();
        }
        assert_syncs(&mut server, dialect);
    }
}

/// The replica gives up a primary that stops sending at some step of the second connection.
#[test]
fn a_second_link_that_is_silent_ends_at_the_time_limit() {
    for dialect in DIALECTS {
        let mut server = dialect.server(&["--repl-timeout", "2"]);
        // The primary does not even accept the second connection.
        let primary = FakePrimary::new();
        let mut main = primary.lead(&mut server);
        main.send(dialect.split().as_bytes());
        main.wait_for_end();
        // The primary sends no line before the snapshot, or the line but no snapshot.
        for begins in [false, true] {
            let primary = FakePrimary::new();
            let [mut main, mut second] = lead(&primary, &mut server, dialect);
            if begins {
                second.send(dialect.begin().as_bytes());
                dialect.begin_stream(&mut main);
            }
            second.wait_for_end();
            main.wait_for_end();
        }
        server.assert_well();
        assert_eq!(server.line("GET mine"), "$1\r\n1\r\n");
        assert_eq!(server.line("CONFIG SET repl-timeout 60"), "+OK\r\n");
        assert_syncs(&mut server, dialect);
    }
}

/// The replica repeats the client id of the main connection as the primary sent it; the next sync
/// has another id.
#[test]
fn a_wrong_name_of_the_main_link_is_the_primary_s_affair() {
    let mut server = Dialect::Redis.server(&[]);
    for (name, told) in [("", "0"), (" x", "x"), (" 7 8 9", "7"), (" -1", "-1")] {
        let primary = FakePrimary::new();
        let mut main = primary.lead(&mut server);
        main.send(format!("+RDBCHANNELSYNC{name}\r\n").as_bytes());
        let mut second = primary.accept();
        let names = |argv: &Vec<String>| argv.contains(&"main-ch-client-id".to_string());
        let announced = second.announced.iter().find(|argv| names(argv));
        let announced = announced.expect("it names the main connection");
        assert!(announced.contains(&told.to_string()), "{announced:?}");
        second.send(b"-ERR no such client\r\n");
        second.wait_for_end();
        main.wait_for_end();
    }
    assert_syncs(&mut server, Dialect::Redis);
}

/// Replies on the main connection in the place of `+CONTINUE`, after which the stream would follow
/// the snapshot, end the sync.
#[test]
fn a_main_link_that_does_not_continue_ends_the_sync() {
    let dialect = Dialect::Valkey;
    let mut server = dialect.server(&[]);
    let full = format!("+FULLRESYNC {ID} 1\r\n");
    let [unsafe_text, unsafe_error] =
        ["+", "-"].map(|kind| format!("{kind}{}\r\n", "\u{1b}[2J".repeat(500)));
    for reply in [
        &*full,
        "+DUALCHANNELSYNC\r\n",
        "+RDBCHANNELSYNC 7\r\n",
        "-ERR not today\r\n",
        &*unsafe_text,
        &*unsafe_error,
    ] {
        println!("{}", reply[..reply.len().min(40)].escape_default());
        let from = server.log().len();
        let primary = FakePrimary::new();
        let [mut main, mut second] = lead(&primary, &mut server, dialect);
        second.send(dialect.begin().as_bytes());
        dialect.read_main_request(&mut main);
        main.send(reply.as_bytes());
        server.wait_for_log(
            from,
            "Aborting dual channel sync. Main channel psync result",
        );
        main.wait_for_end();
        second.wait_for_end();
        assert_eq!(server.line("GET mine"), "$1\r\n1\r\n");
        server.assert_well();
    }
    assert_clean_log(&server);
    assert_syncs(&mut server, dialect);
}

/// The primary sends the snapshot, but no reply on the main connection.
#[test]
fn a_main_link_that_is_silent_ends_at_the_time_limit() {
    let dialect = Dialect::Valkey;
    let mut server = dialect.server(&["--repl-timeout", "2"]);
    let primary = FakePrimary::new();
    let [mut main, mut second] = lead(&primary, &mut server, dialect);
    second.send(dialect.begin().as_bytes());
    second.send(&bulk(snapshot()));
    main.wait_for_end();
    server.wait_for_log(0, "Timeout connecting to the MASTER");
    server.assert_well();
    assert_eq!(server.line("CONFIG SET repl-timeout 60"), "+OK\r\n");
    assert_syncs(&mut server, dialect);
}

/// The replica collects the stream on the main connection up to `replica-full-sync-buffer-limit`;
/// the rest stays with the primary until the snapshot is loaded.
#[test]
fn a_stream_beyond_the_limit_waits_for_the_snapshot() {
    const LIMIT: u64 = 1 << 20;
    const WRITES: usize = 64;
    let limit = ["--replica-full-sync-buffer-limit", "1mb"];
    for dialect in DIALECTS {
        let mut server = dialect.server(&limit);
        let primary = FakePrimary::new();
        let [mut main, mut second] = lead(&primary, &mut server, dialect);
        second.send(dialect.begin().as_bytes());
        let body = bulk(snapshot());
        second.send(&body[..30]);
        dialect.begin_stream(&mut main);
        let before = server.memory();
        let big = "x".repeat(1 << 20);
        let mut stream = Vec::new();
        for n in 0..WRITES {
            stream.extend(multibulk(&["SET", "big", &big]));
            stream.extend(multibulk(&["SET", "n", &n.to_string()]));
        }
        let end = OFFSET + stream.len() as u64;
        let mut sends = Link {
            stream: main.stream.try_clone().expect("a handle"),
            ..main
        };
        let sender = std::thread::spawn(move || sends.send(&stream).then_some(sends));
        let mut peak = || server.info("replica_full_sync_buffer_peak");
        wait_for("the limit is reached", || peak() == LIMIT.to_string());
        server.wait_for_log(0, "uffer limit");
        assert!(server.memory() < before + 16 * LIMIT);
        assert_eq!(server.line("GET n"), "$-1\r\n");
        second.send(&body[30..]);
        let mut main = sender.join().expect("it ends").expect("all was sent");
        main.wait_for_ack(end);
        assert_eq!(server.line("GET n"), "$2\r\n63\r\n");
        server.assert_well();
    }
}

/// The stream that the replica collected during the snapshot is no sequence of commands.
#[test]
fn a_collected_stream_that_is_not_of_commands_ends_the_link() {
    for dialect in DIALECTS {
        let mut server = dialect.server(&[]);
        for stream in [
            &b"*1\r\n+PING\r\n"[..],
            b"*3\r\n$-5\r\n",
            b"*99999999999\r\n",
        ] {
            let from = server.log().len();
            let primary = FakePrimary::new();
            let [mut main, mut second] = lead(&primary, &mut server, dialect);
            second.send(dialect.begin().as_bytes());
            dialect.begin_stream(&mut main);
            main.send(&multibulk(&["SET", "before", "1"]));
            main.send(stream);
            second.send(&bulk(snapshot()));
            main.wait_for_end();
            server.wait_for_log(from, "Protocol error");
            assert_eq!(server.line("GET from"), "$8\r\nsnapshot\r\n");
            assert_eq!(server.line("GET before"), "$1\r\n1\r\n");
            server.assert_well();
        }
    }
}
