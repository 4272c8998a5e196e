//! The append-only file from outside: its contents, which servers can load it, the effect of a
//! crash.
//!
//! - after the same generated commands, our AOF and valkey-server's have the same contents, except
//!   for times;
//! - redis-server 7.0 and valkey-server 8.0 load the AOF of aeris, and the reverse, with and
//!   without an RDB as its base;
//! - the server is killed under load repeatedly, and no acknowledged write is lost.
//!
//! `AERIS_CRASH_ROUNDS` is the number of kills for each policy (default 12; `make crash`);
//! `AERIS_AOF_SEEDS` the number of generated histories that are compared (default 4).

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Conn, Peer, multibulk};

/// A directory for the files of a server, which is removed when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("aeris-aof-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }

    /// The last incremental file that the manifest of the AOF names.
    fn last_incr(&self) -> PathBuf {
        let dir = self.0.join("appendonlydir");
        let manifest =
            std::fs::read_to_string(dir.join("appendonly.aof.manifest")).expect("a manifest");
        let line = manifest.lines().next_back().expect("a line");
        dir.join(line.split(' ').nth(1).expect("a name"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Pseudo-random numbers, which are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

fn args(dir: &Dir, more: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = [
        "--dir",
        dir.path(),
        "--appendonly",
        "yes",
        "--auto-aof-rewrite-percentage",
        "0",
    ]
    .map(String::from)
    .to_vec();
    all.extend(more.iter().map(|arg| arg.to_string()));
    all
}

/// Starts a server and waits until it has begun to load its files, or has created them: a server
/// listens before that, and the test may kill it at once.
fn aeris(dir: &Dir, more: &[&str]) -> Peer {
    let args = args(dir, more);
    let server = Peer::aeris(&args.iter().map(String::as_str).collect::<Vec<_>>());
    server.connect().line("ping");
    server
}

fn valkey(dir: &Dir, more: &[&str]) -> Option<Peer> {
    let args = args(dir, more);
    Peer::valkey(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn redis(dir: &Dir, more: &[&str]) -> Option<Peer> {
    let args = args(dir, more);
    Peer::redis(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The commands of an AOF as words. Numbers that are current Unix times in milliseconds become
/// `<time>`.
fn commands_of(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).expect("a log");
    let mut rest = &bytes[..];
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let count = header(&mut rest, b'*');
        let words: Vec<String> = (0..count)
            .map(|_| {
                let len = header(&mut rest, b'$');
                let (word, after) = rest.split_at(len);
                rest = &after[2..];
                let word = String::from_utf8_lossy(word).into_owned();
                if word.len() == 13
                    && word.starts_with("17")
                    && word.bytes().all(|b| b.is_ascii_digit())
                {
                    "<time>".into()
                } else {
                    word
                }
            })
            .collect();
        // Names of options may be in any case, so they are compared in lower case.
        commands.push(words.join(" ").to_ascii_lowercase());
    }
    commands
}

fn header(rest: &mut &[u8], sign: u8) -> usize {
    assert_eq!(rest.first(), Some(&sign));
    let end = rest.iter().position(|&b| b == b'\r').expect("a line");
    let text = std::str::from_utf8(&rest[1..end]).expect("a number");
    let n = text.parse().expect("a number");
    *rest = &rest[end + 2..];
    n
}

const KEYS: &[&str] = &["a", "b", "c", "d"];

/// A random command; often one that is propagated in another form than it was sent.
fn generate(dice: &mut Dice, at: u64) -> Vec<String> {
    let (key, other) = (dice.pick(KEYS), dice.pick(KEYS));
    let n = dice.below(9);
    let id = format!("{}-{}", at + 1, n);
    let line = match dice.below(74) {
        0 => format!("set s{key} v{n}"),
        1 => format!("set s{key} v{n} EX 100"),
        2 => format!("SET s{key} v{n} px 100000 get"),
        3 => format!("set s{key} v{n} exat 4000000000"),
        4 => format!("set s{key} v{n} keepttl"),
        5 => format!("set s{key} v{n} nx"),
        6 => format!("setex s{key} 50 v{n}"),
        7 => format!("psetex s{key} 50000 v{n}"),
        8 => format!("getex s{key} ex 70"),
        9 => format!("getex s{key} persist"),
        10 => format!("getex s{key}"),
        11 => format!("getdel s{key}"),
        12 => format!("getset s{key} x{n}"),
        13 => format!("expire s{key} 10{n}"),
        14 => format!("pexpire s{key} 10000{n} gt"),
        15 => format!("expire s{key} -1"),
        16 => format!("expireat l{key} 4000000000 nx"),
        17 => format!("persist s{key}"),
        18 => format!("incr i{key}"),
        19 => format!("incrby i{key} {n}"),
        20 => format!("incrbyfloat f{key} 1.{n}"),
        21 => format!("append s{key} z{n}"),
        22 => format!("setrange s{key} {n} abc"),
        23 => format!("mset s{key} 1 s{other} 2"),
        24 => format!("msetnx m{n}{key} 1 m{n}{other} 2"),
        25 => format!("del s{key} l{other}"),
        26 => format!("unlink h{key}"),
        27 => format!("rename s{key} s{other}"),
        28 => format!("renamenx l{key} l{other}"),
        29 => format!("copy s{key} s{other} replace"),
        30 => format!("move s{key} 1"),
        31 => format!("select {}", dice.below(3)),
        32 => format!("rpush l{key} {n} x y"),
        33 => format!("lpushx l{key} {n}"),
        34 => format!("lpop l{key}"),
        35 => format!("rpop l{key} 2"),
        36 => format!("blpop l{key} l{other} 0.01"),
        37 => format!("brpop l{key} 0.01"),
        38 => format!("lmove l{key} l{other} left right"),
        39 => format!("blmove l{key} l{other} right left 0.01"),
        40 => format!("rpoplpush l{key} l{other}"),
        41 => format!("brpoplpush l{key} l{other} 0.01"),
        42 => format!("lmpop 2 l{key} k{other} left count 2"),
        43 => format!("blmpop 0.01 2 l{key} k{other} right count 2"),
        44 => format!("ltrim l{key} 0 3"),
        45 => format!("linsert l{key} before x q{n}"),
        46 => format!("lrem l{key} 1 x"),
        47 => format!("sadd t{key} {n} x{n}"),
        48 => format!("srem t{key} {n}"),
        49 => format!("spop t{key} 100"),
        50 => format!("smove t{key} t{other} {n}"),
        51 => format!("sunionstore t{key} t{key} t{other}"),
        52 => format!("sdiffstore t{key} t{other} t{key}"),
        53 => format!("zadd z{key} {n} m{n} 2 two"),
        54 => format!("zadd z{key} incr 1.5 m{n}"),
        55 => format!("zincrby z{key} 2 m{n}"),
        56 => format!("zpopmin z{key}"),
        57 => format!("zpopmax z{key} 2"),
        58 => format!("bzpopmin z{key} 0.01"),
        59 => format!("zmpop 2 z{key} y{other} max count 2"),
        60 => format!("bzmpop 0.01 1 z{key} min count 3"),
        61 => format!("zrangestore z{key} z{other} 0 1"),
        62 => format!("zremrangebyscore z{key} 0 3"),
        63 => format!("hset h{key} f{n} v{n}"),
        64 => format!("hincrby h{key} c 3"),
        65 => format!("hincrbyfloat h{key} d 1.25"),
        66 => format!("hdel h{key} f{n} c"),
        67 => format!("hsetnx h{key} f{n} w"),
        68 => format!("sort l{key} by nosort store l{other}"),
        69 => format!("xadd x{key} {id} f v"),
        70 => format!("xadd x{key} maxlen ~ 3 limit 10 {id} f v"),
        71 => format!("xtrim x{key} maxlen 2"),
        72 => format!("setbit s{key} {n} 1"),
        _ => format!("pfadd p{key} {n}"),
    };
    line.split(' ').map(String::from).collect()
}

/// Sequences of commands that depend on each other in ways that random generation seldom produces.
const SCRIPTED: &str = "\
multi|set a 1|incr n|exec
multi|set a 1|exec
multi|get a|exec
multi|del nothing|exec
multi|select 1|set b 1|select 2|set c 1|exec
multi|exec
select 0|flushdb|flushall
set gone 1 px 1|get gone|set gone2 1 px 1|exists gone2
xadd st 1-1 a 1|xadd st 2-1 b 2|xadd st 3-1 c 3|xgroup create st g 0
xreadgroup group g c1 count 2 streams st >
xreadgroup group g c1 noack streams st >
xack st g 1-1|xclaim st g c2 0 2-1|xautoclaim st g c3 0 0|xgroup setid st g 0
xadd st2 nomkstream maxlen ~ 3 * a 1|xadd st2 maxlen ~ 3 1-* a 1|xadd st2 minid ~ 0 2-1 a 1|xadd st2 minid = 0 2-* a 1
xadd st2 maxlen 5 3-* a 1|xadd st2 maxlen ~ 2 limit 0 4-1 a 1|xtrim st2 maxlen ~ 0 limit 50|xtrim st2 minid ~ 9-9
xgroup createconsumer st g c9|xgroup delconsumer st g c9|xsetid st 9-9|xdel st 1-1|xgroup destroy st g
restore-it|hset hh f 1|object freq hh|bitfield hh2 set u8 0 7|bitop not hh3 hh2
geoadd geo 1 1 p|georadius geo 1 1 9 km store geo2|zunionstore zz 1 geo
swapdb 0 1|publish ch hello|script flush|setnx e 1|lset nolist 0 1|touch e";

fn send(conn: &mut Conn, argv: &[String]) {
    conn.cmd(argv);
}

fn run_history(conn: &mut Conn, seed: u64) {
    let mut dice = Dice(seed);
    for at in 0..400 {
        let transaction = dice.below(12) == 0;
        let count = if transaction { 1 + dice.below(4) } else { 1 };
        if transaction {
            conn.cmd(&["multi"]);
        }
        for i in 0..count {
            send(conn, &generate(&mut dice, 10 * at + i));
        }
        if transaction {
            conn.cmd(&["exec"]);
        }
    }
    for line in SCRIPTED.lines() {
        for command in line.split('|') {
            send(
                conn,
                &command.split(' ').map(String::from).collect::<Vec<_>>(),
            );
            if command.contains(" px 1") {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn our_log_says_what_valkey_s_says() {
    // With lazy freeing, the default of Valkey 8, deletions are propagated as UNLINK, not DEL.
    let settings = [
        "--lazyfree-lazy-expire",
        "no",
        "--lazyfree-lazy-server-del",
        "no",
        "--aof-use-rdb-preamble",
        "no",
        "--appendfsync",
        "no",
    ];
    for seed in 1..=number("AERIS_AOF_SEEDS", 4) {
        let (ours, theirs) = (
            Dir::new(&format!("ours{seed}")),
            Dir::new(&format!("theirs{seed}")),
        );
        let Some(peer) = valkey(&theirs, &settings) else {
            return;
        };
        let our = aeris(&ours, &settings);
        for server in [&our, &peer] {
            let mut conn = server.connect();
            conn.line("debug set-active-expire 0");
            run_history(&mut conn, seed);
        }
        let (mine, wanted) = (
            commands_of(&ours.last_incr()),
            commands_of(&theirs.last_incr()),
        );
        assert!(wanted.len() > 200, "the history changes something");
        for (at, (mine, wanted)) in mine.iter().zip(&wanted).enumerate() {
            let before = &commands_of(&theirs.last_incr())[at.saturating_sub(4)..at];
            assert_eq!(mine, wanted, "seed {seed}, command {at}, after {before:?}");
        }
        assert_eq!(mine.len(), wanted.len(), "seed {seed}: {:?}", mine.last());
    }
}

/// Creates keys of every type and encoding.
fn fill(conn: &mut Conn) {
    for line in [
        "set int 12345",
        "set short hello",
        "set ttl x ex 100000",
        "append raw a",
        "append raw b",
        "rpush list a 2 c",
        "sadd intset 1 2 3",
        "sadd set a b 3",
        "zadd zset 1 a 2.5 b -inf c",
        "hset hash f 1 g two",
        "xadd stream 1-1 a 1",
        "xadd stream 2-1 b 2 c 3",
        "xgroup create stream g 0",
        "xreadgroup group g alice count 1 streams stream >",
        "xgroup createconsumer stream g bob",
        "xadd empty 5-5 a 1",
        "xdel empty 5-5",
        "pfadd hll a b c",
        "setbit bits 1000 1",
        "geoadd geo 1 2 place",
    ] {
        let reply = conn.line(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let big = "x".repeat(70_000);
    conn.cmd(&["set", "big", &big]);
    for i in 0..700 {
        let (n, long) = (i.to_string(), format!("{i}{}", "y".repeat(80)));
        conn.cmd(&["rpush", "quicklist", &long]);
        conn.cmd(&["sadd", "bigset", &n, &long]);
        conn.cmd(&["zadd", "bigzset", &format!("{i}.5"), &long]);
        conn.cmd(&["hset", "bighash", &n, &long]);
    }
    conn.line("select 9");
    conn.line("set other db");
    conn.line("select 0");
}

fn digest(conn: &mut Conn) -> String {
    conn.line("debug digest")
}

fn rewrite(conn: &mut Conn) {
    conn.line("bgrewriteaof");
    while conn
        .line("info persistence")
        .contains("aof_rewrite_in_progress:1")
    {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        conn.line("info persistence")
            .contains("aof_last_bgrewrite_status:ok")
    );
}

/// Waits until the AOF has all writes: if an fsync is running, Redis replies to a write before
/// that.
fn wait_until_written(conn: &mut Conn) {
    while !conn
        .line("info persistence")
        .contains("\r\naof_buffer_length:0\r\n")
    {
        thread::sleep(Duration::from_millis(20));
    }
}

type Start = fn(&Dir, &[&str]) -> Option<Peer>;

/// Creates a data set in one server and loads its AOF in another; half of the data is in the base,
/// half in the incremental file.
fn carry(name: &str, from: Start, to: Start, settings: &[&str]) {
    let dir = Dir::new(name);
    let Some(first) = from(&dir, settings) else {
        return;
    };
    let mut conn = first.connect();
    fill(&mut conn);
    rewrite(&mut conn);
    conn.line("rpush list d");
    conn.line("hincrbyfloat hash f 0.5");
    conn.line("set late x px 500000");
    let wanted = digest(&mut conn);
    wait_until_written(&mut conn);
    drop(first);
    let Some(second) = to(&dir, &["--aof-use-rdb-preamble", settings[1]]) else {
        return;
    };
    let mut conn = second.connect();
    conn.wait_until_loaded();
    assert_eq!(digest(&mut conn), wanted, "{name}");
}

fn our(dir: &Dir, more: &[&str]) -> Option<Peer> {
    Some(aeris(dir, more))
}

#[test]
fn logs_go_to_real_servers_and_back() {
    for preamble in ["no", "yes"] {
        let plain = ["--aof-use-rdb-preamble", preamble];
        let old = ["--aof-use-rdb-preamble", preamble, "--rdb-version", "10"];
        carry("to-valkey", our, valkey, &plain);
        carry("from-valkey", valkey, our, &plain);
        carry("to-redis", our, redis, &old);
        carry("from-redis", redis, our, &plain);
        carry("to-ourselves", our, our, &plain);
    }
}

/// The number of pushes that a client has sent, and of those that were acknowledged.
#[derive(Default)]
struct Pushes {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Pushes growing numbers to the client's own list, several at a time, until the server ends.
fn push_until_killed(port: u16, client: usize, pushes: &Pushes, over: &AtomicBool) {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let key = format!("list{client}");
    let mut dice = Dice(client as u64 + 1);
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let batch = 1 + dice.below(8);
        let mut request = Vec::new();
        for _ in 0..batch {
            let n = pushes.sent.fetch_add(1, Ordering::Relaxed);
            request.extend(multibulk(&["RPUSH", &key, &n.to_string()]));
        }
        if stream.write_all(&request).is_err() {
            return;
        }
        let mut lines = 0;
        while lines < batch {
            match stream.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let got = buffer[..n].iter().filter(|&&b| b == b'\n').count() as u64;
                    pushes.acknowledged.fetch_add(got, Ordering::Relaxed);
                    lines += got;
                }
                _ => return,
            }
        }
    }
}

fn kill_under_load(policy: &str, rounds: u64) {
    const CLIENTS: usize = 4;
    /// The number of elements from which a list is deleted: loading it would take longer than a
    /// round.
    const LONG: u64 = 100_000;
    let dir = Dir::new(&format!("kill-{policy}"));
    let mut dice = Dice(policy.len() as u64);
    let mut pushed = vec![0u64; CLIENTS];
    for round in 0..rounds {
        let server = aeris(&dir, &["--appendfsync", policy]);
        let all: Arc<Vec<Pushes>> = Arc::new((0..CLIENTS).map(|_| Pushes::default()).collect());
        for (pushes, &from) in all.iter().zip(&pushed) {
            pushes.sent.store(from, Ordering::Relaxed);
            pushes.acknowledged.store(from, Ordering::Relaxed);
        }
        let over = Arc::new(AtomicBool::new(false));
        let mut conn = server.connect();
        conn.wait_until_loaded();
        let port = server.port;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| {
                let (all, over) = (all.clone(), over.clone());
                thread::spawn(move || push_until_killed(port, i, &all[i], &over))
            })
            .collect();
        thread::sleep(Duration::from_millis(dice.below(120)));
        if dice.below(2) == 0 {
            conn.line("bgrewriteaof");
            thread::sleep(Duration::from_millis(dice.below(60)));
        }
        kill(server.pid());
        over.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .for_each(|client| client.join().expect("a client"));
        drop(server);

        let server = aeris(&dir, &["--appendfsync", policy]);
        let mut conn = server.connect();
        conn.wait_until_loaded();
        for (i, pushes) in all.iter().enumerate() {
            let reply = conn.line(&format!("llen list{i}"));
            let len: u64 = reply
                .trim_start_matches(':')
                .trim()
                .parse()
                .expect("a length");
            let (sent, acknowledged) = (&pushes.sent, &pushes.acknowledged);
            let (sent, acknowledged) = (
                sent.load(Ordering::Relaxed),
                acknowledged.load(Ordering::Relaxed),
            );
            assert!(
                (acknowledged..=sent).contains(&len),
                "{policy}, round {round}: {acknowledged} <= {len} <= {sent}"
            );
            let last = conn.line(&format!("lindex list{i} -1"));
            assert!(
                len == 0 || last.contains(&format!("\n{}\r", len - 1)),
                "in order: {last:?}, {len}"
            );
            pushed[i] = len;
            if len > LONG {
                // The deletion is acknowledged, too, and the next round begins without this list.
                conn.line(&format!("del list{i}"));
                pushed[i] = 0;
            }
        }
    }
}

fn kill(pid: u32) {
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(done.expect("kill").success());
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = number("AERIS_CRASH_ROUNDS", 12);
    for policy in ["always", "everysec", "no"] {
        kill_under_load(policy, rounds);
    }
}

/// Writes an AOF that has these commands in one incremental file.
fn write_aof(dir: &Dir, commands: &[&[&str]]) {
    let folder = dir.0.join("appendonlydir");
    std::fs::create_dir_all(&folder).expect("a folder");
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    std::fs::write(folder.join("appendonly.aof.manifest"), manifest).expect("a manifest");
    let bytes: Vec<u8> = commands.iter().flat_map(|argv| multibulk(argv)).collect();
    std::fs::write(dir.last_incr(), bytes).expect("a log");
}

/// MULTI and WATCH within a transaction of an AOF are errors, as they were for the client that sent
/// them: the transaction and the commands behind it are loaded, at the second start as well.
#[test]
fn multi_within_a_transaction_of_the_log_loses_nothing() {
    let commands: [&[&str]; 9] = [
        &["SELECT", "0"],
        &["SET", "a", "1"],
        &["MULTI"],
        &["MULTI"],
        &["WATCH", "a"],
        &["SET", "b", "2"],
        &["EXEC"],
        &["SET", "c", "3"],
        &["SET", "d", "4"],
    ];
    let starts: [Start; 2] = [our, redis];
    for start in starts {
        let dir = Dir::new("nested");
        write_aof(&dir, &commands);
        let log = dir.last_incr();
        let whole = std::fs::read(&log).expect("the log");
        for _ in 0..2 {
            let Some(server) = start(&dir, &[]) else {
                return;
            };
            let mut conn = server.connect();
            conn.wait_until_loaded();
            assert_eq!(
                conn.line("mget a b c d"),
                "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n"
            );
        }
        assert_eq!(std::fs::read(&log).expect("the log"), whole);
    }
}

/// If `appendonlydir` has a file with the name of a Redis 6 AOF in `dir`, the server can't move the
/// old AOF there, and refuses to start each time.
#[test]
fn an_old_aof_whose_name_is_taken_is_refused_at_each_start() {
    let dir = Dir::new("two-logs");
    std::fs::create_dir(dir.0.join("appendonlydir")).expect("a folder");
    for (path, key) in [
        ("appendonly.aof", "new"),
        ("appendonlydir/appendonly.aof", "old"),
    ] {
        std::fs::write(dir.0.join(path), multibulk(&["SET", key, "1"])).expect("a log");
    }
    for _ in 0..2 {
        let status = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
            .args(["--port", "0", "--unixsocket", "s", "--appendonly", "yes"])
            .current_dir(&dir.0)
            .stdout(std::process::Stdio::null())
            .status();
        assert_eq!(status.expect("the server").code(), Some(1));
        assert!(!dir.0.join("appendonlydir/appendonly.aof.manifest").exists());
    }
}

/// The AOF's size after the last rewrite is not in the files: after a start, each server takes the
/// size of the base for it.
#[test]
fn after_a_start_the_aof_has_grown_by_what_follows_the_base() {
    let starts: [Start; 3] = [our, redis, valkey];
    let growths = starts.map(|start| {
        let dir = Dir::new("growth");
        let server = start(&dir, &["--appendfsync", "always"])?;
        let mut conn = server.connect();
        conn.line("set a 1");
        rewrite(&mut conn);
        conn.line(&format!("set b {}", "x".repeat(1000)));
        drop(server);
        let server = start(&dir, &[])?;
        let mut conn = server.connect();
        conn.wait_until_loaded();
        let info = conn.line("info persistence");
        let field = |name: &str| -> u64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).parse().expect("a number")
        };
        Some(field("aof_current_size:") - field("aof_base_size:"))
    });
    let real: Vec<_> = growths[1..].iter().flatten().collect();
    assert!(
        real.iter().all(|growth| Some(**growth) == growths[0]),
        "{growths:?}"
    );
    assert!(growths[0] > Some(1000), "{growths:?}");
}

#[test]
fn waitaof_waits_for_the_disk() {
    let dir = Dir::new("waitaof");
    let server = aeris(&dir, &["--appendfsync", "always"]);
    let mut conn = server.connect();
    conn.line("set a 1");
    assert_eq!(conn.line("waitaof 1 0 0"), "*2\r\n:1\r\n:0\r\n");
    conn.line("config set appendfsync no");
    conn.line("set a 2");
    assert_eq!(conn.line("waitaof 1 0 50"), "*2\r\n:0\r\n:0\r\n");
    conn.send(&multibulk(&["waitaof", "1", "0", "0"]));
    server.connect().line("config set appendfsync everysec");
    assert_eq!(conn.reply(), b"*2\r\n:1\r\n:0\r\n");
    conn.line("config set appendonly no");
    assert!(
        conn.line("waitaof 1 0 0")
            .starts_with("-ERR WAITAOF cannot be used")
    );
}

#[test]
fn a_torn_tail_is_cut_off_and_kept_beside() {
    let dir = Dir::new("torn");
    let server = aeris(&dir, &["--appendfsync", "always"]);
    let mut conn = server.connect();
    conn.line("set a 1");
    conn.line("set b 2");
    drop(server);
    let path = dir.last_incr();
    let whole = std::fs::read(&path).expect("the log");
    let mut torn = whole.clone();
    torn.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$1\r\nc");
    torn.resize(torn.len() + 100, 0);
    std::fs::write(&path, &torn).expect("a torn log");
    let server = aeris(&dir, &[]);
    let mut conn = server.connect();
    assert_eq!(
        conn.line("mget a b c"),
        "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"
    );
    assert_eq!(std::fs::read(&path).expect("the log"), whole);
    let beside = format!("{}.cut-at-{}", path.display(), whole.len());
    assert_eq!(
        std::fs::read(beside).expect("what was cut off"),
        torn[whole.len()..]
    );
}

/// If the manifest is lost, none of the AOF's files is cut or replaced, and they can be loaded
/// again with the manifest.
#[test]
fn files_that_no_manifest_names_stay_as_they_are() {
    let dir = Dir::new("no-manifest");
    let folder = dir.0.join("appendonlydir");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file");
    let server = aeris(&dir, &["--appendfsync", "always"]);
    server.connect().line("set a 1");
    drop(server);
    let names = ["appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"];
    let files = names.map(read);
    let manifest = folder.join("appendonly.aof.manifest");
    let lost = std::fs::read(&manifest).expect("a manifest");
    std::fs::remove_file(&manifest).expect("it was there");

    let server = aeris(&dir, &["--appendfsync", "always"]);
    let mut conn = server.connect();
    assert_eq!(conn.line("get a"), "$-1\r\n");
    conn.line("set b 2");
    std::fs::write(folder.join("appendonly.aof.3.base.rdb"), b"theirs").expect("a file");
    std::fs::write(folder.join("appendonly.aof.3.incr.aof"), b"theirs").expect("a file");
    rewrite(&mut conn);
    conn.line("set c 3");
    drop(server);
    assert_eq!(names.map(read), files);
    assert_eq!(read("appendonly.aof.3.base.rdb"), b"theirs");
    assert_eq!(read("appendonly.aof.3.incr.aof"), b"theirs");
    let server = aeris(&dir, &[]);
    assert_eq!(
        server.connect().line("mget a b c"),
        "*3\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n"
    );
    drop(server);

    std::fs::write(&manifest, lost).expect("a manifest");
    let server = aeris(&dir, &[]);
    assert_eq!(server.connect().line("get a"), "$1\r\n1\r\n");
}

/// The cut-off tails of an AOF are kept: the AOF may be cut twice at one position, and the name for
/// the tail may be in use.
#[test]
fn what_was_kept_beside_stays() {
    let dir = Dir::new("cut-twice");
    drop(aeris(&dir, &["--appendfsync", "always"]));
    let path = dir.last_incr();
    for torn in ["*3\r\n$3\r\nSET\r\n$1\r\na", "*2\r\n$3\r\nDEL"] {
        std::fs::write(&path, torn).expect("a torn AOF");
        aeris(&dir, &[]).connect().wait_until_loaded();
    }
    let beside = |end: &str| std::fs::read_to_string(format!("{}.cut-at-0{end}", path.display()));
    assert!(beside("").expect("the first").starts_with("*3"));
    assert!(beside(".2").expect("the second").starts_with("*2"));

    let folder = dir.0.join("appendonlydir");
    std::fs::remove_file(folder.join("appendonly.aof.manifest")).expect("it was there");
    std::fs::write(folder.join("appendonly.aof"), b"theirs").expect("a file");
    std::fs::write(dir.0.join("appendonly.aof"), b"").expect("an old AOF");
    let all = args(&dir, &["--port", "0"]);
    let status = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
        .args(all)
        .stdout(std::process::Stdio::null())
        .status();
    assert_eq!(status.expect("it ran").code(), Some(1));
    let kept = std::fs::read(folder.join("appendonly.aof"));
    assert_eq!(kept.expect("a file"), b"theirs");
}

/// A rewrite opens the next incremental file before the last bytes of the old one are written.
/// After a kill at that moment, the manifest names both files, and the new file is empty.
#[test]
fn a_log_torn_before_an_empty_file_is_cut_too() {
    let dir = Dir::new("torn-before-empty");
    let server = aeris(&dir, &["--appendfsync", "always"]);
    let mut conn = server.connect();
    conn.line("set a 1");
    drop(server);
    let path = dir.last_incr();
    let whole = std::fs::read(&path).expect("the log");
    let torn = [&whole[..], b"*3\r\n$3\r\nSET\r\n$1\r\nb"].concat();
    std::fs::write(&path, torn).expect("a torn log");
    let folder = dir.0.join("appendonlydir");
    std::fs::write(folder.join("appendonly.aof.2.incr.aof"), b"").expect("an empty log");
    let manifest = folder.join("appendonly.aof.manifest");
    let mut lines = std::fs::read_to_string(&manifest).expect("a manifest");
    lines.push_str("file appendonly.aof.2.incr.aof seq 2 type i\n");
    std::fs::write(&manifest, lines).expect("a manifest");
    let server = aeris(&dir, &[]);
    let mut conn = server.connect();
    conn.wait_until_loaded();
    assert_eq!(conn.line("mget a b"), "*2\r\n$1\r\n1\r\n$-1\r\n");
    assert_eq!(std::fs::read(&path).expect("the log"), whole);
}

#[test]
fn clients_are_answered_while_a_command_loads() {
    let dir = Dir::new("reload");
    let server = aeris(&dir, &["--appendfsync", "no"]);
    let (mut loads, mut asks) = (server.connect(), server.connect());
    loads.line("debug populate 2000 key 100");
    rewrite(&mut loads);
    loads.line("config set loading-process-events-interval-bytes 1024");
    for command in ["reload", "loadaof"] {
        loads.line("config set key-load-delay 30000");
        loads.send(&multibulk(&["debug", command]));
        // With 30 ms for each of the 2000 keys, the load would take a minute.
        let answered = (0..100_000).any(|_| asks.line("get key:1").starts_with("-LOADING"));
        assert!(answered, "debug {command}");
        assert!(asks.line("info persistence").contains("\r\nloading:1\r\n"));
        assert!(asks.line("debug reload").starts_with("-LOADING"));
        assert_eq!(asks.line("config set key-load-delay 0"), "+OK\r\n");
        assert_eq!(loads.reply(), b"+OK\r\n");
        assert_eq!(asks.line("dbsize"), ":2000\r\n");
    }
}

/// The number of SET commands that the server has run.
fn sets(conn: &mut Conn) -> usize {
    let info = conn.line("info commandstats");
    let calls = info.split("cmdstat_set:calls=").nth(1).unwrap_or("0");
    let digits = calls.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|n| n.parse().ok()).expect("a number")
}

/// While the disk accepts nothing, a client that writes without waiting for replies is not read any
/// more, and all other clients are served.
#[test]
fn clients_whose_writes_wait_are_not_read_while_too_much_waits() {
    let dir = Dir::new("backlog");
    let server = aeris(&dir, &["--appendfsync", "always"]);
    let [mut writes, mut begins, mut asks] = [(); 3].map(|_| server.connect());
    asks.line("debug aof-backlog-limit 100000");
    asks.line("debug aof-flush-sleep 3600000000");
    let big = "x".repeat(200_000);
    writes.send(&multibulk(&["set", "big", &big]));
    // Reading the keys would wait for the disk, so the test counts the SET commands that have run.
    let mut wait_for_sets = |n: usize| while sets(&mut asks) < n {};
    wait_for_sets(1);
    // When the reply to a request of another client has arrived, the server has had the earlier
    // bytes.
    writes.send(&multibulk(&["set", "held", "back"]));
    begins.send(&multibulk(&["set", "first", "write"]));
    wait_for_sets(2);
    begins.send(&multibulk(&["set", "held2", "back"]));
    asks.line("ping");
    assert_eq!(sets(&mut asks), 2);
    asks.line("debug aof-flush-sleep 0");
    for conn in [&mut writes, &mut begins] {
        assert_eq!(conn.reply(), b"+OK\r\n");
        assert_eq!(conn.reply(), b"+OK\r\n");
        assert_eq!(conn.line("set after 1"), "+OK\r\n");
    }
    assert_eq!(asks.line("exists held held2 after"), ":3\r\n");
    drop(server);
    assert_eq!(commands_of(&dir.last_incr()).len(), 7);
}
