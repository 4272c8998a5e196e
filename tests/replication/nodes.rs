//! Servers of five kinds that replicate each other, and conditions for which a test waits.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Conn, Peer, Reply, parse_reply};

/// The time after which a condition that is not met fails the test. A test that passes never waits
/// that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` is true; `what` describes the condition for the message of a failure.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}: it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server program that replicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerKind {
    Aeris,
    Redis7,
    Redis8,
    Valkey8,
    Valkey9,
}

impl ServerKind {
    /// The kinds of servers that are not aeris.
    pub const PEERS: [ServerKind; 4] = [
        ServerKind::Redis7,
        ServerKind::Redis8,
        ServerKind::Valkey8,
        ServerKind::Valkey9,
    ];

    /// Starts a server of this kind; `None` if it is not installed.
    pub fn start(self, args: &[&str]) -> Option<Peer> {
        match self {
            ServerKind::Aeris => Some(Peer::aeris(args)),
            ServerKind::Redis7 => Peer::redis(args),
            ServerKind::Redis8 => Peer::redis8(args),
            ServerKind::Valkey8 => Peer::valkey(args),
            ServerKind::Valkey9 => Peer::valkey9(args),
        }
    }

    /// Whether hash fields can have a time to live.
    pub fn has_field_ttls(self) -> bool {
        !matches!(self, ServerKind::Redis7 | ServerKind::Valkey8)
    }
}

/// A running server, and a connection to it.
pub struct Node {
    pub kind: ServerKind,
    pub peer: Peer,
    conn: Conn,
}

impl Node {
    /// Starts a server; `None` if the program is not installed.
    pub fn start(kind: ServerKind, args: &[&str]) -> Option<Node> {
        let mut all = vec![
            "--logfile",
            "server.log",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-backlog-size",
            "10mb",
        ];
        all.extend_from_slice(args);
        let peer = kind.start(&all)?;
        let conn = peer.connect();
        Some(Node { kind, peer, conn })
    }

    pub fn aeris(args: &[&str]) -> Node {
        Node::start(ServerKind::Aeris, args).expect("our own program")
    }

    pub fn port(&self) -> u16 {
        self.peer.port
    }

    /// The connection on which the test sends its requests.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Sends a command of words, and returns its reply.
    pub fn line(&mut self, line: &str) -> String {
        self.conn.line(line)
    }

    /// Sends a command whose reply must be OK.
    pub fn ok(&mut self, line: &str) {
        let reply = self.line(line);
        assert_eq!(reply, "+OK\r\n", "{line} on {}", self.name());
    }

    fn name(&self) -> String {
        format!("{:?} on port {}", self.kind, self.port())
    }

    /// The value of this field of INFO; empty if there is no such field.
    pub fn info(&mut self, field: &str) -> String {
        let text = self.line("INFO everything");
        let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_string());
        text.lines().find_map(value).unwrap_or_default()
    }

    pub fn number(&mut self, field: &str) -> u64 {
        let value = self.info(field);
        let number = value.parse();
        number.unwrap_or_else(|_| panic!("{field}:{value} of {}", self.name()))
    }

    /// Makes this server a replica of `primary`.
    pub fn follow(&mut self, primary: &Node) {
        self.follow_port(primary.port());
    }

    pub fn follow_port(&mut self, port: u16) {
        self.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
    }

    pub fn is_up(&mut self) -> bool {
        self.info("master_link_status") == "up"
    }

    /// Waits until the link to the primary is up.
    pub fn wait_until_up(&mut self) {
        let name = self.name();
        wait_for(&format!("the link of {name} is up"), || self.is_up());
    }

    /// Waits for a text in the log, which contains the lines of all starts of this server.
    pub fn wait_for_log(&self, text: &str) {
        let what = format!("{text:?} in the log of {}", self.name());
        let path = self.dir().join("server.log");
        let log = || std::fs::read_to_string(&path).unwrap_or_default();
        wait_for(&what, || log().contains(text));
    }

    /// Ends the server with SHUTDOWN and starts it again, with its earlier arguments and `args`.
    pub fn restart(&mut self, shutdown: &str, args: &[&str]) {
        // Redis 7.0 and Valkey 8.0 crash if SHUTDOWN comes from a client that has blocked before.
        let reply = self.peer.connect().try_line(shutdown);
        assert_eq!(reply, None, "{}", self.name());
        self.peer.wait();
        self.start_again(args);
    }

    /// Starts the server again, whose process has ended, with its earlier arguments and `args`.
    pub fn start_again(&mut self, args: &[&str]) {
        self.peer.start_again(args);
        self.conn = self.peer.connect();
        let conn = &mut self.conn;
        wait_for("the data set is loaded", || {
            !conn.line("PING").starts_with("-LOADING")
        });
    }

    /// Closes the links to all replicas.
    pub fn cut_replicas(&mut self) {
        let reply = self.line("CLIENT KILL TYPE replica");
        assert!(reply.starts_with(':') && reply != ":0\r\n", "{reply}");
    }

    pub fn dir(&self) -> &Path {
        self.peer.dir()
    }
}

/// A guard that prints the logs of these servers if the test fails.
pub struct Logs(pub Vec<std::path::PathBuf>);

impl Logs {
    pub fn of(nodes: &[&Node]) -> Logs {
        Logs(nodes.iter().map(|node| node.dir().to_path_buf()).collect())
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for dir in &self.0 {
            let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- {}\n{end}", dir.display());
        }
    }
}

/// Waits until a replica has applied all commands that its primary has sent.
pub fn wait_in_step(primary: &mut Node, replica: &mut Node) {
    replica.wait_until_up();
    let what = format!("{} is in step with {}", replica.name(), primary.name());
    wait_for(&what, || {
        primary.number("master_repl_offset") == replica.number("master_repl_offset")
    });
}

/// Waits until two servers have the same data: the same DEBUG DIGEST, and the same facts that the
/// digest leaves out.
pub fn wait_same(a: &mut Node, b: &mut Node) {
    let field_ttls = a.kind.has_field_ttls() && b.kind.has_field_ttls();
    let began = Instant::now();
    loop {
        let digests = (a.line("DEBUG DIGEST"), b.line("DEBUG DIGEST"));
        let dumps = [&mut *a, &mut *b].map(|node| dump(&mut node.conn, field_ttls, false));
        if digests.0 == digests.1 && dumps[0] == dumps[1] {
            return;
        }
        if began.elapsed() > PATIENCE {
            let [left, right] =
                [&mut *a, &mut *b].map(|node| dump(&mut node.conn, field_ttls, true));
            let only = |of: &[String], other: &[String]| {
                let lines = of.iter().filter(|line| !other.contains(line)).take(5);
                lines.cloned().collect::<Vec<_>>().join("\n")
            };
            panic!(
                "different data\n{}:\n{}\n{}:\n{}",
                a.name(),
                only(&left, &right),
                b.name(),
                only(&right, &left)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The databases that the write load changes.
const DATABASES: [u32; 4] = [0, 3, 9, 11];

/// The facts that DEBUG DIGEST leaves out, as the replies of commands: expiry times, groups of
/// streams, functions. With `digests` also the digest of each key.
fn dump(c: &mut Conn, field_ttls: bool, digests: bool) -> Vec<String> {
    let mut lines = vec![c.line("FUNCTION LIST WITHCODE")];
    for db in DATABASES {
        c.line(&format!("SELECT {db}"));
        let keys = parse_reply(&c.cmd(&["KEYS", "*"])).sorted().texts();
        for key in keys {
            let key = String::from_utf8_lossy(&key).into_owned();
            let kind = c.line(&format!("TYPE {key}"));
            let expires = c.line(&format!("PEXPIRETIME {key}"));
            let mut line = format!("{db} {key} {} {}", kind.trim(), expires.trim());
            match kind.as_str() {
                "+stream\r\n" => line.push_str(&dump_groups(c, &key)),
                "+hash\r\n" if field_ttls => line.push_str(&dump_fields(c, &key)),
                _ => {}
            }
            if digests {
                line.push_str(
                    &c.line(&format!("DEBUG DIGEST-VALUE {key}"))
                        .replace("\r\n", " "),
                );
            }
            lines.push(line);
        }
    }
    c.line("SELECT 0");
    lines
}

/// The expiry time of each field of a hash.
fn dump_fields(c: &mut Conn, key: &str) -> String {
    let fields = parse_reply(&c.cmd(&["HKEYS", key])).sorted().texts();
    let count = fields.len().to_string();
    let head: [&[u8]; 4] = [b"HPEXPIRETIME", key.as_bytes(), b"FIELDS", count.as_bytes()];
    let fields = fields.iter().map(Vec::as_slice);
    let argv: Vec<&[u8]> = head.into_iter().chain(fields).collect();
    String::from_utf8_lossy(&c.cmd(&argv)).replace("\r\n", " ")
}

/// The groups of a stream with their positions, and the entries that are pending, without the time
/// since their delivery. Consumers without entries are not counted: Redis and Valkey don't
/// replicate a consumer that XREADGROUP created without delivering an entry.
fn dump_groups(c: &mut Conn, key: &str) -> String {
    let mut text = String::new();
    let Reply::Many(_, groups) = parse_reply(&c.cmd(&["XINFO", "GROUPS", key])) else {
        return text;
    };
    for group in groups {
        let Reply::Many(_, fields) = group else {
            continue;
        };
        // The first eight elements are name, consumers, pending and last-delivered-id in all
        // servers.
        let words = fields.iter().take(8).map(show).collect::<Vec<_>>();
        text.push_str(&format!(" {} {} {}", words[1], words[5], words[7]));
        let pending = c.cmd(&["XPENDING", key, &words[1], "-", "+", "1000"]);
        let Reply::Many(_, entries) = parse_reply(&pending) else {
            continue;
        };
        for entry in entries {
            if let Reply::Many(_, parts) = entry {
                let [id, consumer, _, times] = &parts[..] else {
                    panic!("{parts:?}");
                };
                text.push_str(&format!(
                    " ({} {} {})",
                    show(id),
                    show(consumer),
                    show(times)
                ));
            }
        }
    }
    text
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::Line(text) | Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Many(..) => format!("{reply:?}"),
    }
}
