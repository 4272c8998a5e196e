//! The setting `teach`: each fault of a mode is visible in the trace, and is not there without the
//! setting. The test compares counts, not times.

mod common;
#[path = "trace/json.rs"]
mod json;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::group::Stopped;
use common::{Conn, Peer, parse_reply};
use json::{Span, Trace};

/// A script that runs for 100 ms.
const SPIN: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end \
                    local began = now() repeat until now() - began > 100 return 1";
/// The maximum number of bytes of one read, and that of one client's bytes in a turn.
const READ_MAX: u64 = 64 * 1024;
const TURN_BUDGET: u64 = 256 * 1024;

/// Starts a server, begins a trace, and returns the server and a connection.
fn traced(teach: &str, settings: &[&str]) -> (Peer, Conn) {
    let server = Peer::aeris(&[&["--teach", teach, "--unixsocket", "sock"], settings].concat());
    let mut c = server.connect();
    assert_eq!(c.line("TRACE START"), "+OK\r\n");
    (server, c)
}

fn dump(c: &mut Conn) -> Trace {
    let mut texts = parse_reply(&c.cmd(&["TRACE", "DUMP"])).texts();
    Trace::read(&texts.pop().expect("a text"))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} does not come");
}

/// The number of bytes that each call of a read handler has read.
fn bytes_of_calls(trace: &Trace) -> Vec<u64> {
    let sum = |at: usize| -> u64 {
        let inside = trace.of("read").filter(|read| read.parent == Some(at));
        inside.map(|read| read.number("bytes")).sum()
    };
    (0..trace.spans.len())
        .filter(|&at| is_read_call(&trace.spans[at]))
        .map(sum)
        .collect()
}

fn is_read_call(span: &Span) -> bool {
    span.category == "readable" && span.args.contains_key("client")
}

fn pings(bytes: u64) -> (Vec<u8>, usize) {
    let count = bytes as usize / 6;
    (b"PING\r\n".repeat(count), count)
}

/// Sends bytes while the server is stopped: they are all in the socket before the server sees the
/// first, so the poll reports one edge.
fn one_edge(teach: &str) -> (Peer, Conn, UnixStream, usize) {
    let (server, c) = traced(teach, &[]);
    let mut client = UnixStream::connect(server.dir().join("sock")).expect("connected");
    client.write_all(b"PING\r\n").expect("sent");
    let mut pong = [0; 7];
    client.read_exact(&mut pong).expect("a reply");
    let stopped = Stopped::new(&server);
    let (bytes, count) = pings(READ_MAX * 3 / 2);
    client.write_all(&bytes).expect("sent");
    drop(stopped);
    (server, c, client, count)
}

fn pongs(client: &mut UnixStream, count: usize) {
    let mut replies = vec![0; 7 * count];
    client.read_exact(&mut replies).expect("replies");
    assert!(replies.chunks(7).all(|reply| reply == b"+PONG\r\n"));
}

#[test]
fn no_drain_loses_the_rest_of_an_edge() {
    let (_server, mut c, mut client, count) = one_edge("no");
    pongs(&mut client, count);
    assert!(
        dump(&mut c)
            .of("read")
            .map(|r| r.number("bytes"))
            .sum::<u64>()
            > READ_MAX
    );

    let (_server, mut c, mut client, count) = one_edge("no-drain");
    wait_until("the first read", || {
        bytes_of_calls(&dump(&mut c)).contains(&READ_MAX)
    });
    for _ in 0..20 {
        c.line("PING");
    }
    let calls = bytes_of_calls(&dump(&mut c));
    let large = calls.iter().filter(|&&bytes| bytes > 1000);
    assert_eq!(
        large.collect::<Vec<_>>(),
        [&READ_MAX],
        "the rest is not read"
    );
    // New bytes make a new edge, at which the server also reads the old bytes.
    client.write_all(b"PING\r\n").expect("sent");
    pongs(&mut client, count + 1);
}

#[test]
fn level_never_sleeps() {
    // The number of calls of a read handler that found nothing to read.
    let idle = |trace: &Trace| bytes_of_calls(trace).iter().filter(|b| **b == 0).count();
    let (_server, mut c) = traced("no", &[]);
    for _ in 0..20 {
        c.line("PING");
    }
    assert_eq!(idle(&dump(&mut c)), 0);
    let (_server, mut c) = traced("level", &[]);
    wait_until("idle calls", || idle(&dump(&mut c)) > 100);
    let trace = dump(&mut c);
    let empty = trace.of("turn").filter(|turn| turn.number("commands") == 0);
    assert!(empty.count() > 100);
}

#[test]
fn a_slow_command_stops_all_others() {
    for (teach, nested) in [("no", true), ("slow-command", false)] {
        let (_server, mut c) = traced(teach, &["--busy-reply-threshold", "5"]);
        assert_eq!(c.cmd(&["EVAL", SPIN, "0"]), b":1\r\n");
        let trace = dump(&mut c);
        assert!(trace.of("command").any(|span| span.name == "EVAL"));
        assert_eq!(trace.of("nested turn").count() > 0, nested, "{teach}");
    }
}

#[test]
fn a_blocking_fsync_stops_the_loop() {
    for (teach, policy) in [
        ("no", "always"),
        ("blocking-fsync", "always"),
        ("blocking-fsync", "everysec"),
    ] {
        let (_server, mut c) = traced(teach, &["--appendonly", "yes", "--appendfsync", policy]);
        let blocks = teach != "no";
        let (wanted, other) = match blocks {
            true => ("blocking fsync", "fsync"),
            false => ("fsync", "blocking fsync"),
        };
        wait_until("an fsync", || {
            c.line("SET k v");
            dump(&mut c).of(wanted).next().is_some()
        });
        let trace = dump(&mut c);
        assert_eq!(trace.of(other).count(), 0, "{teach} {policy}");
        assert!(trace.of(wanted).all(|span| span.is_in_loop() == blocks));
    }
}

#[test]
fn without_a_budget_one_client_has_the_loop() {
    // The largest number of bytes in one call of the read handler while a client sends `total`
    // bytes.
    let largest = |teach: &str, total: u64| {
        let (server, mut c) = traced(teach, &[]);
        let (bytes, count) = pings(total);
        let mut sender = UnixStream::connect(server.dir().join("sock")).expect("connected");
        let mut receiver = sender.try_clone().expect("a socket");
        let receives = std::thread::spawn(move || {
            let mut replies = vec![0; 7 * count];
            receiver.read_exact(&mut replies).expect("replies");
        });
        sender.write_all(&bytes).expect("sent");
        receives.join().expect("all replies");
        bytes_of_calls(&dump(&mut c)).into_iter().max().unwrap_or(0)
    };
    assert!(largest("no", 1_500_000) < TURN_BUDGET + READ_MAX);
    wait_until("a call of many bytes", || {
        largest("no-budget", 1_500_000) >= TURN_BUDGET + READ_MAX
    });
}

#[test]
fn rehash_at_once_leaves_nothing_for_the_cron() {
    let fill = |c: &mut Conn, count: usize| {
        let keys: Vec<String> = (0..count).map(|n| format!("key:{n}")).collect();
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "value"]);
        c.cmd(&["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
    };
    let settings = ["--hz", "100"];
    let (_server, mut c) = traced("no", &settings);
    let mut count = 1000;
    wait_until("a rehash by the cron", || {
        count += 500;
        fill(&mut c, count);
        dump(&mut c).of("rehash").next().is_some()
    });
    let (_server, mut c) = traced("rehash-at-once", &settings);
    for filled in (1500..=count.max(5000)).step_by(500) {
        fill(&mut c, filled);
    }
    let jobs = |trace: &Trace| {
        trace
            .of("job")
            .filter(|job| job.name == "databases")
            .count()
    };
    wait_until("a few jobs", || jobs(&dump(&mut c)) > 5);
    assert_eq!(dump(&mut c).of("rehash").count(), 0);
}

#[test]
fn sampled_expiry_leaves_expired_keys() {
    const ALIVE: usize = 20_000;
    let dead = "for i = 1, 1000 do redis.call('SET', 'dead:' .. i, 'v', 'PX', 1) end";
    let fill = |teach: &str| {
        let (server, mut c) = traced(teach, &["--hz", "100"]);
        let keys: Vec<String> = (0..ALIVE).map(|n| format!("key:{n}")).collect();
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "value"]);
        c.cmd(&["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
        c.cmd(&["EVAL", dead, "0"]);
        (server, c)
    };
    let (_server, mut c) = fill("no");
    wait_until("the end of all expired keys", || {
        c.line("DBSIZE") == format!(":{ALIVE}\r\n")
    });
    let (_server, mut c) = fill("sampled-expiry");
    let mut seen = Vec::new();
    wait_until("a few cycles", || {
        let trace = dump(&mut c);
        seen = trace.of("expire").map(|span| span.number("keys")).collect();
        seen.len() >= 5
    });
    // One key in twenty is expired, so a sample of twenty keys has about one expired key.
    assert!(seen[..5].iter().sum::<u64>() < 500, "{seen:?}");
}
