//! The trace of the event loop: the file that it is written to, its events, the flight recorder.

mod common;
#[path = "trace/json.rs"]
mod json;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aeris::observe::trace::event::EventKind;
use common::{Conn, Peer, find_peer, free_port, multibulk, parse_reply};
use json::Trace;

/// A Lua script that runs for the number of milliseconds in `ARGV[1]`.
const SPIN: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end \
                    local began = now() repeat until now() - began > tonumber(ARGV[1]) return 1";

fn dump_text(c: &mut Conn) -> Vec<u8> {
    let mut texts = parse_reply(&c.cmd(&["TRACE", "DUMP"])).texts();
    texts.pop().expect("a text")
}

fn dump(c: &mut Conn) -> Trace {
    Trace::read(&dump_text(c))
}

fn ok(c: &mut Conn, line: &str) {
    assert_eq!(c.line(line), "+OK\r\n", "{line}");
}

/// The number behind `name`, in the section `section` of TRACE STATUS.
fn status(c: &mut Conn, section: &str, name: &str) -> i64 {
    let text = c.line("TRACE STATUS");
    let (_, rest) = text.split_once(section).expect("the section");
    let (_, rest) = rest
        .split_once(&format!("\r\n{name}\r\n:"))
        .expect("the name");
    let number = rest.split("\r\n").next().expect("a number");
    number.parse().expect("a number")
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

/// Waits until a file contains a whole trace, and reads it.
fn wait_for_file(path: &Path) -> Trace {
    let mut text = Vec::new();
    wait_until("the file", || {
        text = std::fs::read(path).unwrap_or_default();
        text.ends_with(b"]}\n")
    });
    Trace::read(&text)
}

#[test]
fn a_request_is_read_parsed_run_and_answered() {
    let server = Peer::aeris(&[]);
    let (mut asks, mut c) = (server.connect(), server.connect());
    ok(&mut asks, "TRACE START");
    let pipeline = b"SET key:secret value:secret\r\n".repeat(10);
    c.send(&pipeline);
    for _ in 0..10 {
        assert_eq!(c.reply(), b"+OK\r\n");
    }
    assert_eq!(c.line("GET key:secret"), "$12\r\nvalue:secret\r\n");
    ok(&mut asks, "TRACE STOP");
    let text = dump_text(&mut asks);
    assert!(
        !String::from_utf8_lossy(&text).contains("secret"),
        "no key and no value is recorded"
    );
    let trace = Trace::read(&text);
    let client = trace.of("command").find(|span| span.name == "GET");
    let client = client.expect("GET").number("client");
    let ours = |span: &&json::Span| span.args.get("client") == Some(&client.into());
    let sum = |category: &str, name: &str| -> u64 {
        let spans = trace.of(category).filter(ours);
        spans.map(|span| span.number(name)).sum()
    };
    assert_eq!(sum("parse", "requests"), 11);
    let last = multibulk(&["GET", "key:secret"]);
    assert_eq!(sum("read", "bytes"), (pipeline.len() + last.len()) as u64);
    assert_eq!(sum("write", "bytes"), 10 * 5 + 19);
    let commands = trace.of("command").filter(ours);
    assert_eq!(commands.filter(|span| span.name == "SET").count(), 10);
    let requests: Vec<_> = trace
        .of("request")
        .filter(|span| span.thread == client)
        .collect();
    assert_eq!(
        requests.iter().map(|r| r.number("commands")).sum::<u64>(),
        11
    );
    assert_eq!(trace.arrows.len(), trace.of("request").count());
    assert_eq!(trace.facts["overwritten"], "0");
}

#[test]
fn what_runs_in_a_script_is_part_of_it() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    ok(&mut c, "TRACE START");
    let script = "redis.call('SET', 'a', 1) return redis.call('INCR', 'a')";
    assert_eq!(c.cmd(&["EVAL", script, "0"]), b":2\r\n");
    let trace = dump(&mut c);
    let incr = trace.of("command").find(|span| span.name == "INCR");
    let around = incr.expect("INCR").parent.expect("a span around it");
    assert_eq!(trace.spans[around].name, "EVAL");
    let request = trace.of("request").find(|span| span.name == "EVAL");
    assert_eq!(request.expect("the request").number("commands"), 1);
}

/// The number of bytes in each `reply build` event, with the name of the command in which it lies.
fn builds(trace: &Trace) -> Vec<(&str, u64)> {
    let spans = trace.of("reply build");
    let named = spans.map(|span| {
        let around = span.parent.expect("a command around it");
        (&*trace.spans[around].name, span.number("bytes"))
    });
    named.collect()
}

/// The time in which a long reply is built is shown apart from the rest of its command.
#[test]
fn a_long_reply_is_built_within_its_command() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    for n in 0..1000 {
        c.line(&format!("RPUSH list {}", (n * 7919) % 1000));
    }
    ok(&mut c, "TRACE START");
    let mut reply_bytes = |line: &str| c.line(line).len() as u64;
    let expected = [
        ("LRANGE", reply_bytes("LRANGE list 0 -1")),
        ("LRANGE", reply_bytes("LRANGE list 0 31")),
        ("SORT", reply_bytes("SORT list")),
        // The length of the reply of KEYS is known only at its end.
        ("KEYS", reply_bytes("KEYS nothing")),
    ];
    // Short replies have no `reply build` event.
    reply_bytes("LRANGE list 0 30");
    reply_bytes("LLEN list");
    ok(&mut c, "TRACE STOP");
    let trace = dump(&mut c);
    assert_eq!(builds(&trace), expected);
    let (of_sort, sort) = trace
        .of("reply build")
        .filter_map(|span| Some((span, &trace.spans[span.parent?])))
        .find(|(_, around)| around.name == "SORT")
        .expect("SORT");
    assert!(sort.start < of_sort.start && sort.end == of_sort.end);
}

/// The reply of EXEC has no `reply build` event; the commands of the transaction have their own
/// events.
#[test]
fn a_transaction_has_no_reply_build_but_its_commands_have() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    c.line("SADD set a b");
    for n in 0..100 {
        c.line(&format!("RPUSH list {n}"));
    }
    ok(&mut c, "TRACE START");
    ok(&mut c, "MULTI");
    for _ in 0..40 {
        c.line("SISMEMBER set a");
    }
    c.line("LRANGE list 0 -1");
    c.line("LLEN list");
    c.line("EXEC");
    let table = "local t = {} for i = 1, 50 do t[i] = i end return t";
    c.cmd(&["EVAL", table, "0"]);
    ok(&mut c, "TRACE STOP");
    let trace = dump(&mut c);
    let names: Vec<&str> = builds(&trace).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["LRANGE", "EVAL"]);
}

#[test]
fn a_full_ring_keeps_the_newest() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    ok(&mut c, "TRACE START EVENTS 100");
    for _ in 0..50 {
        c.line("PING");
    }
    c.line("ECHO last");
    let trace = dump(&mut c);
    let kept = trace.spans.iter().filter(|span| span.is_in_loop()).count();
    // The ring keeps 100 events; the turn and the call of the read handler that have not ended are
    // added.
    assert_eq!(kept, 102);
    assert!(trace.of("command").any(|span| span.name == "ECHO"));
    ok(&mut c, "TRACE STOP");
    // The end of the turn of TRACE STOP is the last event.
    let (pushed, lost) = (
        status(&mut c, "session", "events"),
        status(&mut c, "session", "overwritten"),
    );
    assert!(pushed > 500 && lost == pushed - 100, "{pushed} {lost}");
    for name in ["on", "slower-than-us"] {
        assert_eq!(status(&mut c, "session", name), 0, "{name}");
    }
    assert_eq!(status(&mut c, "session", "capacity"), 100);
    c.line("PING");
    assert_eq!(status(&mut c, "session", "events"), pushed, "it has ended");
}

#[test]
fn short_events_are_left_out() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    ok(&mut c, "TRACE START SLOWER-THAN 5000");
    for _ in 0..20 {
        c.line("PING");
    }
    c.cmd(&["EVAL", SPIN, "0", "20"]);
    let trace = dump(&mut c);
    let mut in_loop = trace.spans.iter().filter(|span| span.is_in_loop());
    assert!(in_loop.all(|span| span.end - span.start >= 5_000_000));
    assert!(trace.of("command").any(|span| span.name == "EVAL"));
    assert_eq!(trace.facts["slower-than-us"], "5000");
}

/// Makes the event loop do each kind of work once.
fn drive(_: &Peer, c: &mut Conn) {
    // The AOF's threads write and sync (`appendfsync always`), and a child is forked and ends.
    for n in 0..20 {
        c.line(&format!("RPUSH list {n}"));
    }
    let members: Vec<String> = (0..5000).map(|n| format!("member:{n}")).collect();
    let add = ["SADD", "large"].into_iter();
    c.cmd(
        &add.chain(members.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    );
    c.line("SMEMBERS large");
    c.line("UNLINK large");
    c.line("BGSAVE");
    c.line("SET gone 1 PX 1");
    // The table of keys grows, so that the cron resizes it between two commands; then keys are
    // evicted.
    for part in 0..30 {
        let keys: Vec<String> = (0..200).map(|n| format!("key:{part}:{n}")).collect();
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "value"]);
        c.cmd(&["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
    }
    c.line("CONFIG SET maxmemory-policy allkeys-random");
    c.line("CONFIG SET maxmemory 1");
    c.line("SET more 1");
    c.line("CONFIG SET maxmemory 0");
    // CONFIG SET appendonly no closes the AOF, for which the loop waits for the disk.
    c.line("CONFIG SET appendonly no");
    c.line("CONFIG SET appendonly yes");
}

/// Makes nested turns and full sockets. The events of the script overwrite those of `drive` in the
/// ring of the trace.
fn drive_long_commands(server: &Peer, c: &mut Conn) {
    let mut other = server.connect();
    other.send(&multibulk(&["EVAL", SPIN, "0", "100"]));
    other.reply();
    // The replies fill the socket of a client, which the server writes to again when it has room.
    c.line(&format!("SET big {}", "x".repeat(1000)));
    c.line("SETRANGE big 3000000 x");
    let mut slow = server.connect();
    for _ in 0..5 {
        slow.send(b"GET big\r\n");
    }
    for _ in 0..5 {
        slow.reply();
    }
}

/// Settings with which `drive` and `drive_long_commands` make most kinds of events of the trace.
const EVENTFUL: &[&str] = &[
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--busy-reply-threshold",
    "5",
];

#[test]
fn every_kind_of_event_occurs() {
    let server = Peer::aeris(&[EVENTFUL, &["--hz", "500"]].concat());
    let mut c = server.connect();
    ok(&mut c, "TRACE START EVENTS 20000");
    // Kinds of events that need a cluster node or TLS, which have tests of their own.
    let elsewhere = [
        EventKind::Handshake,
        EventKind::BusRead,
        EventKind::BusWrite,
    ];
    let kinds = EventKind::ALL
        .iter()
        .filter(|kind| !elsewhere.contains(kind));
    let mut missing: BTreeSet<String> = kinds.map(|kind| kind.name().into()).collect();
    wait_until("each kind", || {
        for part in [drive, drive_long_commands] {
            part(&server, &mut c);
            let seen = dump(&mut c).categories();
            missing.retain(|kind| !seen.contains(kind));
        }
        missing.is_empty()
    });
    // In a trace, a forked child has a thread of its own.
    wait_until("the child", || {
        dump(&mut c).of("child").next().is_some() || c.line("BGSAVE").is_empty()
    });
}

#[test]
fn packets_of_other_nodes_are_in_the_trace() {
    let node = || {
        let bus = free_port().to_string();
        let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        (Peer::aeris(&settings), bus)
    };
    let ((server, _), (other, bus)) = (node(), node());
    let mut c = server.connect();
    ok(&mut c, "TRACE START");
    ok(
        &mut c,
        &format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port),
    );
    wait_until("packets in both directions", || {
        let trace = dump(&mut c);
        let bytes = |category: &str| -> u64 {
            let spans = trace.of(category);
            spans.map(|span| span.number("bytes")).sum()
        };
        bytes("bus read") > 0 && bytes("bus write") > 0
    });
}

#[test]
fn commands_refuse_what_makes_no_sense() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    for (line, error) in [
        (
            "TRACE DUMP",
            "-ERR there is no trace, see TRACE START and the setting trace-recorder",
        ),
        (
            "TRACE STOP",
            "-ERR no trace is running, TRACE START begins one",
        ),
        (
            "TRACE START EVENTS 0",
            "-ERR EVENTS must be between 1 and 1048576",
        ),
        (
            "TRACE START EVENTS 1048577",
            "-ERR EVENTS must be between 1 and 1048576",
        ),
        ("TRACE START SLOWER-THAN", "-ERR syntax error"),
        (
            "TRACE START SLOWER-THAN -1",
            "-ERR SLOWER-THAN must be between 0 and 1000000000 microseconds",
        ),
        ("TRACE START COUNT 1", "-ERR syntax error"),
        ("TRACE DUMP HERE", "-ERR syntax error"),
    ] {
        assert_eq!(c.line(line), format!("{error}\r\n"), "{line}");
    }
    ok(&mut c, "TRACE START");
    let twice = "-ERR a trace is running, TRACE STOP ends it\r\n";
    assert_eq!(c.line("TRACE START"), twice);
    let file = "$15\r\ntrace-dump.json\r\n";
    assert_eq!(c.line("TRACE DUMP FILE"), file);
    let trace = wait_for_file(&server.dir().join("trace-dump.json"));
    assert_eq!(trace.facts["reason"], "TRACE DUMP");
}

#[test]
fn a_slow_turn_leaves_a_file() {
    let settings = ["--trace-recorder", "yes", "--trace-slow-turn-us", "300000"];
    let server = Peer::aeris(&[&settings[..], &["--slowlog-log-slower-than", "-1"]].concat());
    let mut c = server.connect();
    assert_eq!(status(&mut c, "recorder", "on"), 1);
    c.cmd(&["EVAL", SPIN, "0", "400"]);
    let trace = wait_for_file(&server.dir().join("trace-slow-turn-0.json"));
    let slowest = trace.of("turn").map(|turn| turn.end - turn.start).max();
    assert!(slowest >= Some(300_000_000), "{slowest:?}");
    assert!(trace.of("command").any(|span| span.name == "EVAL"));
    assert!(trace.facts["reason"].starts_with("a turn of "));
    assert!(
        c.line("LATENCY DOCTOR")
            .contains("- trace-slow-turn-0.json: a turn of ")
    );
    assert!(c.line("SLOWLOG LEN") == ":0\r\n", "the slow log is off");
    ok(&mut c, "CONFIG SET slowlog-log-slower-than 100000");
    ok(&mut c, "CONFIG SET trace-slow-turn-us 0");
    c.cmd(&["EVAL", SPIN, "0", "400"]);
    let text = c.line("TRACE STATUS");
    assert!(
        text.contains("trace-slow-turn-0.json") && !text.contains("turn-1"),
        "{text}"
    );
    ok(&mut c, "CONFIG SET trace-recorder no");
    assert!(c.line("TRACE STATUS").contains("recorder\r\n$-1"));
}

#[test]
fn the_slow_log_names_the_file_of_a_slow_turn() {
    let server = Peer::aeris(&["--trace-recorder", "yes", "--trace-slow-turn-us", "200000"]);
    let mut c = server.connect();
    c.cmd(&["EVAL", SPIN, "0", "300"]);
    let text = c.line("SLOWLOG GET");
    assert!(
        text.contains("(turn of the event loop)\r\n$22\r\ntrace-slow-turn-0.json"),
        "{text}"
    );
    wait_for_file(&server.dir().join("trace-slow-turn-0.json"));
    c.cmd(&["EVAL", SPIN, "0", "300"]);
    c.line("PING");
    let text = c.line("TRACE STATUS");
    assert!(text.contains("slow-turns\r\n:"), "{text}");
    assert!(
        !text.contains("trace-slow-turn-1.json"),
        "files are limited: {text}"
    );
}

#[test]
fn a_crash_leaves_a_file() {
    let mut server = Peer::aeris(&["--trace-recorder", "yes", "--logfile", "log"]);
    let mut c = server.connect();
    c.cmd(&["EVAL", SPIN, "0", "20"]);
    c.line("PING");
    c.try_line("DEBUG SEGFAULT");
    server.wait();
    let trace = wait_for_file(&server.dir().join("trace-crash.json"));
    assert!(trace.of("command").any(|span| span.name == "EVAL"));
    assert_eq!(trace.facts["reason"], "a crash");
}

#[test]
fn trace_out_has_the_whole_life_of_the_server() {
    let mut server = Peer::aeris(&["--trace-out", "out.json"]);
    let mut c = server.connect();
    c.line("SET k v");
    c.try_line("SHUTDOWN NOSAVE");
    assert_eq!(server.wait(), Some(0));
    let trace = wait_for_file(&server.dir().join("out.json"));
    assert!(trace.of("command").any(|span| span.name == "SET"));
    assert_eq!(trace.facts["reason"], "trace-out");
    let began = trace.of("turn").map(|turn| turn.start).min();
    assert_eq!(began, Some(0), "the first event is the first turn");
}

/// Runs SQL queries about a trace in Perfetto's own program, and returns the rows.
fn ask_trace_processor(program: &Path, trace: &Path, queries: &[&str]) -> String {
    let mut command = Command::new(program);
    let out = command.arg(trace).args(queries).output().expect("a run");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{errors}");
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Perfetto finds the same spans, arrows and rows as [`Trace`], none of them damaged or moved.
#[test]
fn perfetto_reads_a_trace() {
    let server = Peer::aeris(EVENTFUL);
    let mut c = server.connect();
    ok(&mut c, "TRACE START EVENTS 20000");
    drive(&server, &mut c);
    drive_long_commands(&server, &mut c);
    ok(&mut c, "TRACE STOP");
    let text = dump_text(&mut c);
    let Some(program) = find_peer("trace-processor-55.3") else {
        return;
    };
    let file = server.dir().join("for-perfetto.json");
    std::fs::write(&file, &text).expect("written");
    let ask = |queries: &[&str]| ask_trace_processor(&program, &file, queries);
    let errors = "select name, value from stats where value > 0 and severity != 'info'";
    assert_eq!(ask(&[errors]), "");
    let trace = Trace::read(&text);
    let mut counts = String::new();
    for category in trace.categories() {
        counts += &format!("{category}\t{}\n", trace.of(&category).count());
    }
    let by_category = "select category, count(*) from slice group by category order by category";
    assert_eq!(ask(&[by_category]), counts);
    // An arrow goes from the span in which a request is read to the span in which its reply is
    // sent.
    let arrows = "select count(*) from flow join slice a on slice_out = a.id \
                  join slice b on slice_in = b.id where a.ts <= b.ts";
    assert_eq!(ask(&[arrows]), format!("{}\n", trace.arrows.len()));
    let escapes = "select count(*) from slice a join slice b on a.parent_id = b.id \
                   where a.ts < b.ts or a.ts + a.dur > b.ts + b.dur";
    let around = "select distinct p.category from slice s join slice p on s.parent_id = p.id \
                  where s.category = 'before_sleep'";
    let threads = "select count(*) from thread where name = 'event loop'";
    assert_eq!(ask(&[escapes, around, threads]), "0\nturn\n1\n");
    // The durations of all commands add up to the same number of nanoseconds in Perfetto and here.
    let commands = trace.of("command");
    let sum: u64 = commands.map(|span| span.end - span.start).sum();
    let total = "select sum(dur) from slice where category = 'command'";
    assert_eq!(ask(&[total]), format!("{sum}\n"));
}
