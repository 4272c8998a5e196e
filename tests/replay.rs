//! Recordings of the event loop's inputs (`trace-record`, TRACE RECORD), and their replays.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use aeris::sys::tape::format::{Codec, MAGIC, Reader, TapeEntry, frame};
use common::{Conn, Peer, multibulk};

const PROGRAM: &str = env!("CARGO_BIN_EXE_aeris-server");

/// Starts a server that records into the file `rec`.
fn recorded(settings: &[&str]) -> Peer {
    Peer::aeris(&[&["--trace-record", "rec"], settings].concat())
}

fn stop(server: &mut Peer) {
    server.connect().try_send(b"SHUTDOWN NOSAVE NOW FORCE\r\n");
    assert_eq!(server.wait(), Some(0));
}

fn replay(path: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    // The directory is not that of the server, because a replay needs none of the server's files.
    command.arg("--replay").arg(path).current_dir("/");
    command.output().expect("the server's program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines that a replay prints if it agrees with its recording: what was replayed, how it ends,
/// the digest.
fn replayed(path: &Path) -> [String; 3] {
    replayed_with_status(path, 0)
}

fn replayed_with_status(path: &Path, status: i32) -> [String; 3] {
    let output = replay(path);
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{out}{errors}");
    let lines: Vec<String> = out.lines().map(str::to_string).collect();
    lines.try_into().expect("three lines")
}

fn recording(server: &Peer) -> PathBuf {
    server.dir().join("rec")
}

fn pipelines(mut c: Conn) {
    for round in 0..20 {
        let mut requests = Vec::new();
        for n in 0..100 {
            let (key, ms) = (format!("key:{}", n % 37), format!("{}", 1 + round * n % 90));
            requests.extend(multibulk(&["SET", &key, "some value", "PX", &ms]));
            requests.extend(multibulk(&["GET", &key]));
            requests.extend(multibulk(&["RANDOMKEY"]));
        }
        c.send(&requests);
        (0..300).for_each(|_| drop(c.reply()));
    }
}

fn transactions(mut c: Conn) {
    for n in 0..50 {
        c.line("WATCH watched");
        c.line("MULTI");
        c.line("INCR watched");
        c.cmd(&["SADD", "set", &n.to_string(), "x", "y"]);
        c.line("SRANDMEMBER set 3");
        c.line("EXEC");
        c.line("SPOP set");
    }
}

fn blocks(mut c: Conn) {
    assert_eq!(c.line("BLPOP nothing 0.05"), "*-1\r\n");
    for _ in 0..20 {
        assert!(c.line("BLPOP queue 0").contains("job"));
    }
}

fn pushes(mut c: Conn) {
    for n in 0..20 {
        c.cmd(&["RPUSH", "queue", &format!("job:{n}")]);
    }
}

fn subscribes(mut c: Conn, mut publisher: Conn) {
    c.line("SUBSCRIBE news");
    for pattern in ["n*", "ne*", "new*", "*s"] {
        c.cmd(&["PSUBSCRIBE", pattern]);
    }
    for n in 0..20 {
        publisher.cmd(&["PUBLISH", "news", &n.to_string()]);
        (0..5).for_each(|_| drop(c.reply()));
    }
    publisher.line("PUBSUB CHANNELS");
}

fn scripts(mut c: Conn) {
    c.cmd(&["EVAL", "return tostring(os.clock())", "0"]);
    let script = "local t = redis.call('TIME') redis.call('SADD', KEYS[1], t[2], math.random(1000)) \
                  return {t[1], t[2], redis.call('SPOP', KEYS[1]), math.random(1000000)}";
    for _ in 0..50 {
        assert!(
            c.cmd(&["EVAL", script, "1", "of-script"])
                .starts_with(b"*4")
        );
    }
}

fn pieces(mut c: Conn) {
    let value = "x".repeat(200_000);
    let request = multibulk(&["SET", "large", &value]);
    for piece in request.chunks(7919) {
        c.send(piece);
        // Between two pieces the thread yields, so that the server reads the request in several
        // reads.
        c.send(b"");
        thread::yield_now();
    }
    assert_eq!(c.reply(), b"+OK\r\n");
    // The replies are far more than a socket takes at once, and are read after all requests are
    // sent.
    c.send(&multibulk(&["GET", "large"]).repeat(100));
    (0..100).for_each(|_| assert_eq!(c.reply().len(), value.len() + 11));
}

fn looks(mut c: Conn) {
    for line in [
        "INFO everything",
        "CLIENT LIST",
        "MEMORY STATS",
        "SLOWLOG GET",
        "CONFIG GET *",
        "BGSAVE",
        "SCAN 0 COUNT 100",
        "HOTKEYS START METRICS 2 CPU NET",
        "TRACE START",
        "ECHO traced",
        "TRACE DUMP",
        "LATENCY LATEST",
        "DEBUG SLEEP 0.01",
        "ACL GENPASS",
        "OBJECT FREQ large",
        "LASTSAVE",
        "SAVE",
        "INFO everything",
    ] {
        c.line(line);
    }
}

fn leaves(mut c: Conn) {
    c.line("CLIENT ID");
    c.send(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf");
}

/// Ten clients, which use different features at once.
fn session(server: &Peer) {
    thread::scope(|scope| {
        let connect = || server.connect();
        let all: [(Conn, fn(Conn)); 8] = [
            (connect(), pipelines),
            (connect(), transactions),
            (connect(), blocks),
            (connect(), pushes),
            (connect(), scripts),
            (connect(), pieces),
            (connect(), looks),
            (connect(), leaves),
        ];
        for (c, run) in all {
            scope.spawn(move || run(c));
        }
        let (c, publisher) = (connect(), connect());
        scope.spawn(move || subscribes(c, publisher));
    });
}

#[test]
fn a_session_of_ten_clients_replayed_a_hundred_times_has_one_digest() {
    let mut server = recorded(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    session(&server);
    stop(&mut server);
    let first = replayed(&recording(&server));
    assert!(first[0].contains(" turns, "), "{first:?}");
    assert_eq!(
        first[1],
        "It ends as the recording does: the server has stopped."
    );
    assert!(first[2].starts_with("digest "), "{first:?}");
    for _ in 1..100 {
        assert_eq!(replayed(&recording(&server)), first);
    }
}

#[test]
fn keys_are_evicted_in_a_replay_as_they_were() {
    let mut server = recorded(&["--maxmemory", "6mb", "--maxmemory-policy", "allkeys-random"]);
    let mut c = server.connect();
    for n in 0..200 {
        let requests: Vec<Vec<u8>> = (0..100)
            .map(|at| multibulk(&["SET", &format!("{n}:{at}"), &"v".repeat(300)]))
            .collect();
        c.send(&requests.concat());
        (0..100).for_each(|_| drop(c.reply()));
        c.line("DBSIZE");
    }
    assert!(!c.line("INFO stats").contains("evicted_keys:0\r"));
    stop(&mut server);
    replayed(&recording(&server));
}

#[test]
fn a_recording_carries_the_data_set_and_the_settings() {
    let mut server = Peer::aeris(&[]);
    let mut c = server.connect();
    for n in 0..1000 {
        c.cmd(&["HSET", &format!("hash:{n}"), "field", &n.to_string()]);
    }
    c.line("SAVE");
    fs::write(server.dir().join("part.conf"), "hz 17\nmaxclients 99\n").expect("a file");
    server.start_again(&["--trace-record", "rec", "--include", "part.conf"]);
    let mut c = server.connect();
    assert_eq!(c.line("DBSIZE"), ":1000\r\n");
    c.line("SCAN 0 COUNT 1000");
    c.line("HGETALL hash:7");
    assert!(c.line("CONFIG GET hz").contains("17"));
    c.line("CONFIG GET *");
    stop(&mut server);
    replayed(&recording(&server));
}

#[test]
fn the_end_of_a_recording_is_that_of_its_replay() {
    let mut server = recorded(&[]);
    let mut c = server.connect();
    c.line("SET a 1");
    assert!(c.line("TRACE STATUS").contains("\r\nbytes\r\n:"));
    assert_eq!(c.line("TRACE RECORD STOP"), "+OK\r\n");
    assert!(c.line("TRACE RECORD STOP").starts_with("-ERR no recording"));
    assert!(!c.line("TRACE STATUS").contains("\r\nbytes\r\n:"));
    c.line("SET b 2");
    stop(&mut server);
    assert_eq!(
        replayed(&recording(&server))[1],
        "It ends as the recording does: TRACE RECORD STOP."
    );
}

/// Names of files in arguments are relative to the directory where the server was started; behind
/// the argument `dir`, they are relative to the directory that it names.
#[test]
fn a_recording_of_a_server_in_another_directory_has_its_files() {
    let mut server = Peer::aeris_with(&["--dir", "data", "--include", "part.conf"], |command| {
        let start = command.get_current_dir().expect("a directory");
        fs::create_dir(start.join("data")).expect("a directory");
        fs::write(start.join("data/part.conf"), "hz 17\n").expect("a file");
    });
    let mut c = server.connect();
    c.line("SET kept value");
    c.send(&multibulk(&["TRACE", "RECORD", "rec"]));
    assert_eq!(c.try_reply(), None, "the connection ends");
    let mut c = server.reconnect();
    assert_eq!(c.line("GET kept"), "$5\r\nvalue\r\n");
    assert!(c.line("CONFIG GET hz").ends_with("$2\r\n17\r\n"));
    stop(&mut server);
    replayed(&server.dir().join("data/rec"));
}

#[test]
fn trace_record_begins_with_a_restart_from_the_data_set() {
    let mut server = Peer::aeris(&["--hz", "20"]);
    let mut c = server.connect();
    c.line("SET kept value");
    c.cmd(&["CONFIG", "SET", "hz", "17", "save", "900 1 300 10"]);
    let file = server.dir().join("rec file");
    let name = file.to_str().expect("text");
    c.send(&multibulk(&["TRACE", "RECORD", name]));
    assert_eq!(c.try_reply(), None, "the connection ends");
    let mut c = server.reconnect();
    assert_eq!(c.line("GET kept"), "$5\r\nvalue\r\n");
    assert!(c.line("CONFIG GET hz").ends_with("$2\r\n17\r\n"));
    assert!(c.line("CONFIG GET save").contains("900 1 300 10"));
    assert!(
        c.line("TRACE RECORD other")
            .starts_with("-ERR a recording is running")
    );
    stop(&mut server);
    replayed(&file);
}

#[test]
fn trace_record_is_refused_where_a_recording_could_not_begin() {
    let server = Peer::aeris(&["--appendonly", "yes"]);
    let mut c = server.connect();
    let refusal = c.line("TRACE RECORD rec");
    assert_eq!(
        refusal,
        "-ERR can't record: a recording does not carry appendonly yes\r\n"
    );
    assert_eq!(c.line("PING"), "+PONG\r\n");
}

/// TRACE RECORD with a name that was given by mistake overwrites no file and does not end the
/// server.
#[test]
fn trace_record_writes_over_nothing_but_recordings() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    c.line("SET precious data");
    assert_eq!(c.line("SAVE"), "+OK\r\n");
    let file = server.dir().join("dump.rdb");
    let saved = fs::read(&file).expect("a data set");
    fs::create_dir(server.dir().join("folder")).expect("a folder");
    for (name, reason) in [
        ("dump.rdb", "the file exists and is no recording"),
        ("folder", "Is a directory"),
        (
            "folder/rec",
            "a file outside of dir needs enable-protected-configs",
        ),
        (
            "/nonexistent/rec",
            "a file outside of dir needs enable-protected-configs",
        ),
        (
            "../rec",
            "a file outside of dir needs enable-protected-configs",
        ),
    ] {
        let reply = c.cmd(&["TRACE", "RECORD", name]);
        let reply = text(&reply);
        assert_eq!(reply, format!("-ERR can't record: {reason}\r\n"), "{name}");
    }
    assert_eq!(fs::read(&file).expect("a data set"), saved);
    assert_eq!(c.line("GET precious"), "$4\r\ndata\r\n");

    let server = Peer::aeris(&["--enable-protected-configs", "yes"]);
    let mut c = server.connect();
    assert_eq!(
        c.line("TRACE RECORD /nonexistent/rec"),
        "-ERR can't record: No such file or directory\r\n"
    );
}

#[test]
fn what_is_not_recorded_ends_the_recording() {
    for (line, reason) in [
        ("REPLICAOF 127.0.0.1 1", "a connection to another server"),
        ("CONFIG SET appendonly yes", "the AOF"),
        ("DEBUG RELOAD", "DEBUG RELOAD"),
        ("CONFIG SET activedefrag yes", "active defragmentation"),
        ("PSYNC ? -1", "a replica"),
    ] {
        let mut server = recorded(&[]);
        let mut c = server.connect();
        c.line("SET a 1");
        c.send(format!("{line}\r\n").as_bytes());
        let mut other = server.connect();
        for _ in 0..100_000 {
            if !other.line("TRACE STATUS").contains("\r\nbytes\r\n:") {
                break;
            }
        }
        stop(&mut server);
        let end = format!("It ends as the recording does: {reason} is not recorded.");
        assert_eq!(replayed(&recording(&server))[1], end, "{line}");
    }
}

#[test]
fn what_a_recording_does_not_carry_is_refused_at_the_start() {
    let dir = std::env::temp_dir().join(format!("aeris-refused-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    for refused in [
        ["--appendonly", "yes"],
        ["--cluster-enabled", "yes"],
        ["--replicaof", "127.0.0.1 1"],
        ["--tls-port", "1"],
    ] {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--port", "0", "--trace-record", "rec"])
            .args(refused);
        let output = command.current_dir(&dir).output().expect("the program");
        let log = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("trace-record can't be used with"), "{log}");
        assert!(!dir.join("rec").exists());
    }
    fs::remove_dir_all(&dir).expect("the directory");
}

#[test]
fn the_recording_of_a_killed_server_is_replayed_as_far_as_it_is() {
    let mut server = recorded(&[]);
    let mut c = server.connect();
    // The cron writes out what was recorded, so the file grows although the test sends nothing.
    c.line("SET a 1");
    let path = recording(&server);
    let len = || fs::metadata(&path).expect("the file").len();
    let before = len();
    while len() == before {
        thread::yield_now();
    }
    server.kill();
    let lines = replayed_with_status(&path, 3);
    assert!(
        lines[1].starts_with("The recording has no end"),
        "{lines:?}"
    );
}

/// A recording with bytes behind its end was not written by a server, or was not written as a
/// whole.
#[test]
fn bytes_behind_the_end_are_an_error() {
    let mut server = recorded(&[]);
    server.connect().line("SET a 1");
    stop(&mut server);
    let path = recording(&server);
    let whole = fs::read(&path).expect("the file");
    let mut entries = Vec::new();
    let end = TapeEntry::Text(b"more");
    Codec::default().encode(&end, &mut entries);
    for behind in [&b"\0"[..], &whole, &frame(&entries)] {
        fs::write(&path, [&whole, behind].concat()).expect("a file");
        let output = replay(&path);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let wanted = format!("has {} bytes behind its end", behind.len());
        assert!(errors.contains(&wanted), "{errors}");
        assert!(output.stdout.is_empty(), "no digest is printed");
    }
    fs::write(&path, &whole).expect("a file");
    replayed(&path);
}

#[test]
fn a_recording_ends_at_its_greatest_size() {
    let mut server = recorded(&["--trace-record-max-size", "1mb"]);
    let mut c = server.connect();
    for n in 0..30 {
        c.cmd(&["SET", &n.to_string(), &"x".repeat(100_000)]);
    }
    stop(&mut server);
    let path = recording(&server);
    assert!(fs::metadata(&path).expect("the file").len() < 1_400_000);
    let end = "It ends as the recording does: the file has its greatest size.";
    assert_eq!(replayed(&path)[1], end);
}

/// Writes a recording again, with `change` made to each of its entries.
fn rewritten(bytes: &[u8], change: impl Fn(&mut TapeEntry)) -> Vec<u8> {
    let mut reader = Reader::new(bytes).expect("a recording");
    let (mut codec, mut file) = (Codec::default(), MAGIC.to_vec());
    while let Some(mut entry) = reader.next_entry().expect("an entry") {
        change(&mut entry);
        let mut block = Vec::new();
        codec.encode(&entry, &mut block);
        file.extend(frame(&block));
    }
    file
}

#[test]
fn a_difference_is_reported_where_it_is() {
    let mut server = recorded(&[]);
    let mut c = server.connect();
    c.line("SET a 1");
    c.line("ECHO first");
    c.line("GET a");
    stop(&mut server);
    let (path, changed) = (recording(&server), server.dir().join("changed"));
    let bytes = fs::read(&path).expect("the file");
    fs::write(&changed, rewritten(&bytes, |_| {})).expect("a file");
    assert_eq!(
        replayed(&changed)[1..],
        replayed(&path)[1..],
        "the same entries"
    );
    // A request in the recording is changed, so its reply differs from the recorded one.
    let other = |entry: &mut TapeEntry| {
        if let TapeEntry::Read { bytes, .. } = entry
            && bytes.ends_with(b"first\r\n")
        {
            *bytes = b"*2\r\n$4\r\nECHO\r\n$5\r\nother\r\n";
        }
    };
    fs::write(&changed, rewritten(&bytes, other)).expect("a file");
    let output = replay(&changed);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for part in [
        "differs in turn ",
        "expected: a write of 11 bytes",
        "$5\\r\\nfirst\\r\\n",
        "found:    a write of 11 bytes",
        "$5\\r\\nother\\r\\n",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn a_damaged_recording_is_an_error() {
    let mut server = recorded(&[]);
    server.connect().line("SET a 1");
    stop(&mut server);
    let path = recording(&server);
    let whole = fs::read(&path).expect("the file");
    let fails = |bytes: &[u8], wanted: &str| {
        fs::write(&path, bytes).expect("a file");
        let output = replay(&path);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(wanted), "{errors}");
    };
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fails(&damaged, "is damaged in the block at offset ");
    fails(b"REDIS0011", "is not a recording");
    fails(b"", "is not a recording");
    fails(&whole[..MAGIC.len()], "ends before the first turn");
    damaged[MAGIC.len() - 1] = 9;
    fails(&damaged, "is a recording in format 9");
    // The blocks of this recording are whole, but its list of listeners makes no sense.
    let no_listeners = |entry: &mut TapeEntry| {
        if let TapeEntry::Text(text) = entry
            && text.starts_with(b"plain ")
        {
            *text = b"plain -7 0";
        }
    };
    fails(&rewritten(&whole, no_listeners), "its list of listeners");
    let missing = replay(Path::new("/nonexistent"));
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("No such file"));
}

/// A recording can be whole although its counts of read or written bytes are impossible: a replay
/// reports a difference.
#[test]
fn counts_that_can_not_be_are_differences() {
    let mut server = recorded(&[]);
    server.connect().line("ECHO first");
    stop(&mut server);
    let path = recording(&server);
    let bytes = fs::read(&path).expect("the file");
    let more_read = |entry: &mut TapeEntry| {
        if let TapeEntry::Read { outcome, bytes, .. } = entry
            && bytes.ends_with(b"first\r\n")
        {
            *outcome = Ok(1 << 40);
        }
    };
    let more_written = |entry: &mut TapeEntry| {
        if let TapeEntry::Write(write) = entry
            && write.head.ends_with(b"first\r\n")
        {
            write.outcome = Ok(write.offered + 1);
        }
    };
    let changes: [&dyn Fn(&mut TapeEntry); 2] = [&more_read, &more_written];
    for (change, what) in changes.into_iter().zip(["a read", "a write"]) {
        fs::write(&path, rewritten(&bytes, change)).expect("a file");
        let output = replay(&path);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(&format!("found:    {what}")), "{errors}");
    }
}
