//! Checks what each lesson claims, and that each lesson is a small step from the one before.

mod lesson;

use std::fs;
use std::io::{ErrorKind, Write};
use std::process::Command;

use lesson::{Client, Lesson, programs, sources};

/// The length limit of a lesson's program, in lines.
const LINES_MAX: usize = 150;
/// The most lines that a lesson may add to the one before.
const NEW_LINES_MAX: usize = 90;
const LESSONS: usize = 14;
/// The lessons whose servers echo; those in `RESP` speak Redis's protocol.
const ECHO: std::ops::RangeInclusive<usize> = 1..=9;
const RESP: std::ops::RangeInclusive<usize> = 10..=LESSONS;

#[test]
fn each_lesson_is_short_and_a_small_step() {
    let texts: Vec<String> = sources()
        .iter()
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect();
    assert_eq!(texts.len(), LESSONS);
    for (number, text) in (1..).zip(&texts) {
        assert!(
            text.starts_with(&format!("//! Lesson {number}: ")),
            "{number}"
        );
        assert!(
            text.contains(&format!("ae/lessons/try.py {number}\n")),
            "{number}"
        );
        let lines = text.lines().count();
        assert!(lines < LINES_MAX, "lesson {number} has {lines} lines");
    }
    for (number, pair) in (2..).zip(texts.windows(2)) {
        let mut before: Vec<&str> = pair[0].lines().collect();
        let is_new = |line: &&str| match before.iter().position(|old| old == line) {
            Some(at) => {
                before.swap_remove(at);
                false
            }
            None => true,
        };
        let new = pair[1].lines().filter(is_new).count();
        assert!(new <= NEW_LINES_MAX, "lesson {number} has {new} new lines");
    }
}

#[test]
fn each_lesson_replies() {
    for number in ECHO {
        assert!(
            Lesson::start(number).connect().echoes(b"hello\n"),
            "lesson {number}"
        );
    }
    for number in RESP {
        let lesson = Lesson::start(number);
        let mut client = lesson.connect();
        assert_eq!(client.line("PING"), "+PONG", "lesson {number}");
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nv2\r\n");
        assert_eq!(client.next_line(), "+OK");
        client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert_eq!(client.receive(11), b"$5\r\nv\r\nv2\r\n");
        assert_eq!(client.line("GET nosuch"), "$-1");
        assert!(client.line("NOSUCH").starts_with("-ERR unknown"));
    }
}

#[test]
fn lesson_1_serves_one_client_at_a_time() {
    let lesson = Lesson::start(1);
    let mut first = lesson.connect();
    assert!(first.echoes(b"1"));
    let mut second = lesson.connect();
    second.send(b"2");
    assert!(second.is_silent());
    drop(first);
    assert_eq!(second.receive(1), b"2");
}

#[test]
fn from_lesson_2_on_no_client_waits_for_an_idle_one() {
    for number in 2..=LESSONS {
        let lesson = Lesson::start(number);
        let idle: Vec<Client> = (0..10).map(|_| lesson.connect()).collect();
        let mut client = lesson.connect();
        client.send(b"PING\r\n");
        assert_eq!(client.receive(6).len(), 6, "lesson {number}");
        drop(idle);
    }
}

#[test]
fn from_lesson_3_on_a_thousand_clients_are_served() {
    for number in 3..=LESSONS {
        let lesson = Lesson::start(number);
        let mut clients: Vec<Client> = (0..1000).map(|_| lesson.connect()).collect();
        for client in &mut clients {
            client.send(b"PING\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.receive(6).len(), 6, "lesson {number}");
        }
    }
}

#[test]
fn lesson_5_loses_a_wake_up_and_the_others_do_not() {
    let bytes = vec![b'x'; 64 * 1024];
    let lesson = Lesson::start(5);
    let mut client = lesson.connect();
    client.send(&bytes);
    // The kernel may have reported the bytes in several portions, but hardly in four portions of 16
    // KB, which lesson 5 would echo completely.
    let mut came = 0;
    while !client.is_silent() {
        came += 1;
    }
    assert!(came < bytes.len(), "all of it came back");
    for number in ECHO.filter(|&number| number != 5) {
        let lesson = Lesson::start(number);
        assert!(lesson.connect().echoes(&bytes), "lesson {number}");
    }
}

/// Sends to a lesson's server until the sockets in between are full; returns the number of bytes.
fn fill(client: &mut Client, bytes: &[u8], max: usize) -> usize {
    client.stream.set_nonblocking(true).expect("a socket");
    let (mut sent, mut refused) = (0, 0);
    while sent < max && refused < 20 {
        match client.stream.write(&bytes[sent % bytes.len()..]) {
            Ok(n) => {
                sent += n;
                refused = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    client.stream.set_nonblocking(false).expect("a socket");
    sent
}

#[test]
fn from_lesson_7_on_a_client_that_never_reads_is_harmless_and_loses_nothing() {
    const MAX: usize = 256 << 20;
    for number in 7..=LESSONS {
        let request: &[u8] = b"PING is echoed\r\n";
        let request = if RESP.contains(&number) {
            &b"PING\r\n"[..]
        } else {
            request
        };
        let lesson = Lesson::start(number);
        let before = lesson.memory();
        let mut deaf = lesson.connect();
        let sent = fill(&mut deaf, request, MAX);
        assert!(sent < MAX, "lesson {number} read on without end");
        let grown = lesson.memory().saturating_sub(before);
        assert!(
            grown < 8 << 20,
            "lesson {number} has grown by {grown} bytes"
        );
        // While a client does not read its replies, another client is served, and the client that
        // did not read gets all its replies later.
        let mut other = lesson.connect();
        other.send(b"PING\r\n");
        assert_eq!(other.receive(6).len(), 6, "lesson {number}");
        let whole = sent / request.len();
        let reply = if RESP.contains(&number) {
            7
        } else {
            request.len()
        };
        assert_eq!(
            deaf.receive(whole * reply).len(),
            whole * reply,
            "lesson {number}"
        );
    }
}

#[test]
fn from_lesson_8_on_an_idle_client_is_closed() {
    let lessons: Vec<Lesson> = (8..=LESSONS).map(Lesson::start).collect();
    let mut idle: Vec<Client> = lessons.iter().map(Lesson::connect).collect();
    for (number, client) in (8..).zip(&mut idle) {
        assert_eq!(client.receive(1), b"", "lesson {number}");
    }
}

#[test]
fn from_lesson_9_on_the_operator_has_a_port() {
    for number in 9..=LESSONS {
        let lesson = Lesson::start(number);
        let mut operator = Client::connect(lesson.operator);
        operator.send(b"PING\r\n");
        assert_eq!(operator.receive(6).len(), 6, "lesson {number}");
    }
}

#[test]
fn from_lesson_10_on_requests_are_pipelined_and_bounded() {
    for number in RESP {
        let lesson = Lesson::start(number);
        let mut client = lesson.connect();
        client.send(&b"PING\r\n".repeat(10_000));
        assert_eq!(client.receive(70_000), b"+PONG\r\n".repeat(10_000));
        for bad in [
            "*99999999\r\n",
            "*1\r\n$99999999\r\n",
            "*1\r\n:1\r\n",
            "*x\r\n",
        ] {
            let mut client = lesson.connect();
            client.send(bad.as_bytes());
            assert_eq!(client.receive(1), b"", "lesson {number}: {bad}");
        }
    }
}

#[test]
fn from_lesson_11_on_a_worker_computes_while_others_are_served() {
    for number in 11..=LESSONS {
        let lesson = Lesson::start(number);
        let (mut waits, mut other) = (lesson.connect(), lesson.connect());
        waits.send(b"PRIMES 1000000\r\nPING\r\n");
        assert_eq!(other.line("PING"), "+PONG");
        assert_eq!(waits.next_line(), ":78498", "lesson {number}");
        assert_eq!(waits.next_line(), "+PONG");
        // The reply of a client that is gone is dropped.
        waits.send(b"PRIMES 100000\r\n");
        drop(waits);
        let mut next = lesson.connect();
        assert_eq!(next.line("PRIMES 10"), ":4");
    }
}

#[test]
fn from_lesson_12_on_a_key_is_copied_to_another_server() {
    for number in 12..=LESSONS {
        let (lesson, target) = (Lesson::start(number), Lesson::start(10));
        let mut client = lesson.connect();
        assert_eq!(client.line("SET k v"), "+OK");
        assert_eq!(client.line(&format!("COPYTO {} k", target.port)), "+OK");
        assert_eq!(target.connect().line("GET k"), "$1");
        assert_eq!(client.line("COPYTO 1 nosuch"), "-ERR no such key");
        assert!(
            client.line("COPYTO 1 k").starts_with("-ERR "),
            "the port is closed"
        );
        let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = mute.local_addr().expect("an address").port();
        assert_eq!(client.line(&format!("COPYTO {port} k")), "-ERR a timeout");
    }
}

#[test]
fn from_lesson_13_on_a_long_command_can_be_ended() {
    for number in 13..=LESSONS {
        let lesson = Lesson::start(number);
        let (mut waits, mut other) = (lesson.connect(), lesson.connect());
        waits.send(b"SPIN 60000\r\nPING\r\n");
        while !other.line("PING").starts_with("-BUSY") {}
        assert_eq!(other.line("KILL"), "+OK");
        assert!(waits.next_line().starts_with(':'), "lesson {number}");
        assert_eq!(waits.next_line(), "+PONG");
    }
}

#[test]
fn lesson_14_saves_what_was_there() {
    let lesson = Lesson::start(14);
    let mut client = lesson.connect();
    assert_eq!(client.line("SET k v"), "+OK");
    assert!(client.line("SAVE").starts_with(':'));
    let file = lesson.folder.join("lesson.snapshot");
    assert_eq!(fs::read(file).expect("the snapshot"), b"k v\n");
}

/// `try.py` shows for each lesson what the one before it lacks: `try.py` prints a figure of both
/// lessons, and fails if the second figure is not the better one (in lesson 5, the worse).
#[test]
fn each_lesson_mends_what_try_py_shows_of_the_one_before() {
    // Fails with an explanation if the programs of the lessons were not built.
    drop(Lesson::start(1));
    let run = Command::new("python3")
        .arg("-B")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/lessons/try.py"))
        .arg("--programs")
        .arg(programs())
        .args(["--short", "all"])
        .output()
        .expect("python3");
    let lines = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{lines}{errors}");
    let names = sources();
    let name = |at: usize| names[at].file_stem().expect("a name").to_string_lossy();
    let pairs: Vec<String> = (1..LESSONS)
        .flat_map(|at| [name(at - 1), name(at)])
        .map(|name| format!("{name}: "))
        .collect();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), pairs.len());
    for (pair, both) in pairs.chunks(2).zip(lines.chunks(2)) {
        let said = |at: usize| both[at].strip_prefix(&pair[at]).expect("the lesson");
        let is_word = |c: &char| !(c.is_ascii_digit() || ['.', ','].contains(c));
        let words = |at: usize| said(at).chars().filter(is_word).collect::<String>();
        assert_ne!(said(0), said(1));
        assert_eq!(words(0), words(1), "one sentence, two figures");
    }
}
