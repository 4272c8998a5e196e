//! Helpers of the integration tests: servers on loopback ports, a raw connection, a reader of
//! replies.
#![allow(dead_code)] // each test binary uses only some of the helpers

pub mod disk;
pub mod group;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The directory into which tools/peers.sh unpacks the real servers.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.peers/bin");

/// A process of a server, which is ended when this value is dropped.
pub struct Peer {
    child: Child,
    /// The command that starts the server, also for a restart.
    command: Command,
    pub port: u16,
    dir: PathBuf,
}

impl Peer {
    /// Starts an aeris server.
    pub fn aeris(args: &[&str]) -> Peer {
        Peer::start(Path::new(env!("CARGO_BIN_EXE_aeris-server")), args)
    }

    /// The real redis-server 7.0; `None` if it is not installed.
    pub fn redis(args: &[&str]) -> Option<Peer> {
        Some(Peer::start(&find_peer("redis-server")?, args))
    }

    /// The real redis-server 8.2; `None` if it is not installed.
    pub fn redis8(args: &[&str]) -> Option<Peer> {
        Some(Peer::start(&find_peer("redis-server-8.2")?, args))
    }

    /// The real valkey-server 8.0, with Redis's texts; `None` if it is not installed.
    pub fn valkey(args: &[&str]) -> Option<Peer> {
        Peer::valkey_named("valkey-server", args)
    }

    /// The real valkey-server 9.1, with Redis's texts; `None` if it is not installed.
    pub fn valkey9(args: &[&str]) -> Option<Peer> {
        Peer::valkey_named("valkey-server-9.1", args)
    }

    fn valkey_named(program: &str, args: &[&str]) -> Option<Peer> {
        let program = find_peer(program)?;
        let mut all = vec!["--extended-redis-compatibility", "yes"];
        all.extend_from_slice(args);
        Some(Peer::start(&program, &all))
    }

    fn start(program: &Path, args: &[&str]) -> Peer {
        Peer::start_with(program, args, |_| ())
    }

    /// Starts an aeris server; `prepare` may change how the process is started.
    pub fn aeris_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Peer {
        let program = Path::new(env!("CARGO_BIN_EXE_aeris-server"));
        Peer::start_with(program, args, prepare)
    }

    fn start_with(program: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Peer {
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("aeris-test-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server");
        let mut command = Command::new(program);
        command
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--enable-debug-command", "yes"])
            .args(args)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        prepare(&mut command);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let peer = Peer {
            child,
            command,
            port,
            dir,
        };
        peer.wait_until_it_listens();
        peer
    }

    fn wait_until_it_listens(&self) {
        for _ in 0..3000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{:?} does not listen", self.command);
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the server and starts it again: with its earlier arguments and `args`, in the same
    /// directory and on the same port.
    pub fn start_again(&mut self, args: &[&str]) {
        self.kill();
        self.command.args(args);
        self.child = self.command.spawn().expect("it started before");
        self.wait_until_it_listens();
    }

    pub fn connect(&self) -> Conn {
        Conn::new(self.port)
    }

    /// Connects; `None` if the server does not listen any more.
    pub fn try_connect(&self) -> Option<Conn> {
        Conn::try_new(self.port, Duration::from_secs(60))
    }

    /// Connects to a server whose process has just replaced itself, as soon as it listens.
    pub fn reconnect(&self) -> Conn {
        self.wait_until_it_listens();
        self.connect()
    }

    /// The directory of the server's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process; returns its exit code, `None` if a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("a child").code()
    }

    /// Whether the process is running.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The child may have ended already, in some tests on purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The path of a program that tools/peers.sh provides: in tests/.peers/bin, otherwise on the PATH.
/// A missing program fails the test with `REQUIRE_PEERS=1`, or with `REQUIRE_PEERS=all` if its name
/// has a version.
pub fn find_peer(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(Path::new(PEERS).to_path_buf())
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var("REQUIRE_PEERS").unwrap_or_default();
        let newer = program.contains('.');
        let fails = required == "all" || required == "1" && !newer;
        assert!(
            !fails,
            "REQUIRE_PEERS={required}, but there is no {program}"
        );
        eprintln!("{program} is missing: this comparison did not run");
    }
    found
}

/// A port that no other test's server uses: each test process has a block of a hundred ports. The
/// blocks, and the ports of the cluster bus 10,000 above them, are below the ports that the system
/// assigns.
pub fn free_port() -> u16 {
    /// The first port of a block is held as long as the process lives, so no other test process
    /// takes the block.
    static BLOCK: LazyLock<TcpListener> = LazyLock::new(|| {
        let start = std::process::id() % 100;
        (start..start + 100)
            .find_map(|block| {
                TcpListener::bind(("127.0.0.1", 10_000 + (block % 100) as u16 * 100)).ok()
            })
            .expect("a free block of ports")
    });
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = BLOCK.local_addr().expect("an address").port() + 1;
    (0..1000)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 99)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

/// A connection with replies as raw bytes.
pub struct Conn {
    stream: BufReader<TcpStream>,
}

impl Conn {
    pub fn new(port: u16) -> Conn {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("timeout");
        Conn {
            stream: BufReader::new(stream),
        }
    }

    /// A connection whose replies are awaited for this time; `None` if it is refused.
    pub fn try_new(port: u16, timeout: Duration) -> Option<Conn> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(timeout)).ok()?;
        let stream = BufReader::new(stream);
        Some(Conn { stream })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("send");
    }

    /// Sends to a peer that may have closed the connection, which the test notices when it reads
    /// the reply.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Reads one whole reply as bytes.
    pub fn reply(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        read_reply(&mut self.stream, &mut out).expect("a reply");
        out
    }

    /// Reads one reply; `None` if the connection was closed before the reply was complete.
    pub fn try_reply(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match read_reply(&mut self.stream, &mut out) {
            Ok(()) => Some(out),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no reply comes"),
            Err(_) => None,
        }
    }

    /// Reads one reply; `None` if the connection was closed, or after the timeout.
    pub fn try_reply_in_time(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        read_reply(&mut self.stream, &mut out).ok()?;
        Some(out)
    }

    /// Reads one line of the protocol, without its end.
    pub fn raw_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line.trim_end_matches("\r\n").to_string()
    }

    /// Reads exactly `len` bytes.
    pub fn read_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// Reads bytes that have arrived, and waits for the first. Returns their number; 0 if the
    /// connection has ended.
    pub fn read_some(&mut self) -> usize {
        match self.stream.read(&mut [0; 64 * 1024]) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing comes"),
            read => read.unwrap_or(0),
        }
    }

    /// Sends a command as a RESP array and reads its reply.
    pub fn cmd<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> Vec<u8> {
        self.send(&multibulk(argv));
        self.reply()
    }

    /// Sends a command, whose words are separated by spaces, and returns the raw reply as text.
    pub fn line(&mut self, line: &str) -> String {
        let argv: Vec<&str> = line.split(' ').collect();
        String::from_utf8_lossy(&self.cmd(&argv)).into_owned()
    }

    /// Waits until the data set is loaded: a server that has just started listens before that.
    pub fn wait_until_loaded(&mut self) {
        while self.line("ping").starts_with("-LOADING") {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As [`Conn::line`]; `None` if the connection was closed.
    pub fn try_line(&mut self, line: &str) -> Option<String> {
        let argv: Vec<&str> = line.split(' ').collect();
        self.try_send(&multibulk(&argv));
        let reply = self.try_reply()?;
        Some(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Whether no byte has arrived on the connection.
    pub fn has_nothing(&mut self) -> bool {
        self.stream.get_mut().set_nonblocking(true).expect("set");
        let came = self.stream.fill_buf().map(<[u8]>::len);
        self.stream.get_mut().set_nonblocking(false).expect("set");
        matches!(came, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether the peer has closed the connection without sending more.
    pub fn closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

pub fn multibulk<A: AsRef<[u8]>>(argv: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", argv.len()).into_bytes();
    for arg in argv {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Reads a reply. An error means that the connection has ended, possibly within the reply.
pub fn read_reply(from: &mut impl BufRead, out: &mut Vec<u8>) -> std::io::Result<()> {
    let start = out.len();
    let n = from.read_until(b'\n', out)?;
    if n < 3 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let kind = out[start];
    let count = std::str::from_utf8(&out[start + 1..out.len() - 2])
        .ok()
        .and_then(|t| t.parse::<i64>().ok());
    match (kind, count) {
        (b'$' | b'=' | b'!', Some(len)) if len >= 0 => {
            let mut data = vec![0; len as usize + 2];
            from.read_exact(&mut data)?;
            out.extend_from_slice(&data);
            Ok(())
        }
        (b'*' | b'~' | b'>', Some(len)) if len > 0 => {
            (0..len).try_for_each(|_| read_reply(from, out))
        }
        (b'%', Some(len)) => (0..2 * len).try_for_each(|_| read_reply(from, out)),
        (b'|', Some(len)) => (0..2 * len + 1).try_for_each(|_| read_reply(from, out)),
        _ => Ok(()),
    }
}

/// Splits bytes of a connection into whole replies.
pub fn split_replies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let mut reply = Vec::new();
        read_reply(&mut bytes, &mut reply).expect("a whole reply");
        replies.push(reply);
    }
    replies
}

/// A reply as a tree, so that unordered parts can be sorted for a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Line(Vec<u8>),
    Bulk(Vec<u8>),
    Many(u8, Vec<Reply>),
}

pub fn parse_reply(bytes: &[u8]) -> Reply {
    let mut at = 0;
    parse_at(bytes, &mut at)
}

fn parse_at(bytes: &[u8], at: &mut usize) -> Reply {
    let end = *at
        + bytes[*at..]
            .iter()
            .position(|&b| b == b'\n')
            .expect("a line");
    let line = &bytes[*at..end - 1];
    *at = end + 1;
    let count = std::str::from_utf8(&line[1..])
        .ok()
        .and_then(|t| t.parse::<i64>().ok());
    match (line[0], count) {
        (b'$' | b'=' | b'!', Some(len)) if len >= 0 => {
            let data = bytes[*at..*at + len as usize].to_vec();
            *at += len as usize + 2;
            Reply::Bulk(data)
        }
        (kind @ (b'*' | b'~' | b'>'), Some(len)) if len >= 0 => {
            Reply::Many(kind, (0..len).map(|_| parse_at(bytes, at)).collect())
        }
        (b'%', Some(len)) => Reply::Many(b'%', (0..2 * len).map(|_| parse_at(bytes, at)).collect()),
        _ => Reply::Line(line.to_vec()),
    }
}

impl Reply {
    /// The elements of the reply that are bulk strings.
    pub fn texts(self) -> Vec<Vec<u8>> {
        let items = match self {
            Reply::Many(_, items) => items,
            other => vec![other],
        };
        let text = |item| match item {
            Reply::Bulk(text) => Some(text),
            _ => None,
        };
        items.into_iter().filter_map(text).collect()
    }

    /// Sorts the elements at every level of the reply: for commands with an undefined order.
    pub fn sorted(self) -> Reply {
        match self {
            Reply::Many(b'%', pairs) => {
                let pairs: Vec<Reply> = pairs.into_iter().map(Reply::sorted).collect();
                let mut pairs: Vec<Vec<Reply>> = pairs.chunks(2).map(|p| p.to_vec()).collect();
                pairs.sort();
                Reply::Many(b'%', pairs.concat())
            }
            Reply::Many(kind, items) => {
                let mut items: Vec<Reply> = items.into_iter().map(Reply::sorted).collect();
                items.sort();
                Reply::Many(kind, items)
            }
            other => other,
        }
    }
}
