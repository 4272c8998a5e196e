//! The server that is tested, and a primary that a test implements.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use crate::common::{Conn, Peer};

pub const ID: &str = "0123456789012345678901234567890123456789";

/// Waits until `condition` is true. The time limit is never reached in a test that passes.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}: it does not happen");
}

/// An aeris server under test, whose log is a file, and a connection to it.
pub struct Server {
    pub peer: Peer,
    pub conn: Conn,
}

impl Server {
    pub fn new(args: &[&str]) -> Server {
        let peer = Peer::aeris(&[&["--logfile", "server.log"], args].concat());
        let conn = peer.connect();
        Server { peer, conn }
    }

    pub fn line(&mut self, line: &str) -> String {
        self.conn.line(line)
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.peer.dir().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a text in the log after its first `from` bytes.
    pub fn wait_for_log(&self, from: usize, text: &str) {
        wait_for(&format!("{text:?} in the log"), || {
            self.log()[from..].contains(text)
        });
    }

    pub fn info(&mut self, field: &str) -> String {
        let text = self.line("INFO everything");
        let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_string());
        text.lines().find_map(value).unwrap_or_default()
    }

    /// The resident memory in bytes.
    pub fn memory(&mut self) -> u64 {
        let value = self.info("used_memory_rss");
        value.parse().expect("a number")
    }

    /// Connects to the same server again, as the old connection may have been closed.
    pub fn again(mut self, after: &str) -> Server {
        assert!(self.peer.alive(), "{after} ends it:\n{}", self.log());
        self.conn = self.peer.connect();
        assert_eq!(self.line("REPLICAOF NO ONE"), "+OK\r\n", "{after}");
        self
    }

    /// Checks that clients are served, by the process that was started.
    pub fn assert_well(&mut self) {
        assert_eq!(self.line("PING"), "+PONG\r\n");
        assert!(self.peer.alive());
    }
}

/// A snapshot with one key, `from` = `snapshot`.
pub fn snapshot() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let server = Peer::aeris(&[]);
        let mut c = server.connect();
        assert_eq!(c.line("SET from snapshot"), "+OK\r\n");
        assert_eq!(c.line("SAVE"), "+OK\r\n");
        std::fs::read(server.dir().join("dump.rdb")).expect("a file")
    })
}

/// A reply to PSYNC with a snapshot that lacks its last `lacks` bytes, but has its key.
pub fn cut_snapshot(lacks: usize) -> Vec<u8> {
    let cut = &snapshot()[..snapshot().len() - lacks];
    let header = format!("+FULLRESYNC {ID} 7\r\n${}\r\n", cut.len());
    [header.as_bytes(), cut].concat()
}

/// A primary that the test implements.
pub struct FakePrimary {
    pub listener: TcpListener,
}

/// An open connection from a replica to a [`FakePrimary`].
pub struct Link {
    pub stream: TcpStream,
    pub input: BufReader<TcpStream>,
    /// The commands that the replica sent before PSYNC, without PING.
    pub announced: Vec<Vec<String>>,
    /// The arguments of the PSYNC or SYNC that the replica sent.
    pub psync: Vec<String>,
}

impl FakePrimary {
    pub fn new() -> FakePrimary {
        FakePrimary {
            listener: TcpListener::bind(("127.0.0.1", 0)).expect("a port"),
        }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// Makes `server` a replica of this primary, accepts its connection, and replies to all
    /// commands before PSYNC.
    pub fn lead(&self, server: &mut Server) -> Link {
        let reply = server.line(&format!("REPLICAOF 127.0.0.1 {}", self.port()));
        assert_eq!(reply, "+OK\r\n");
        self.accept()
    }

    /// Accepts a replica's connection, and replies to all commands before PSYNC or SYNC.
    pub fn accept(&self) -> Link {
        let mut link = self.accept_silently();
        link.read_request();
        link
    }

    /// Accepts a replica's connection, and sends `bytes` whatever the replica requests.
    pub fn accept_with(&self, bytes: &[u8]) -> Link {
        let mut link = self.accept_silently();
        link.send(bytes);
        link
    }

    fn accept_silently(&self) -> Link {
        let (stream, _) = self.listener.accept().expect("a replica");
        let timeout = Some(Duration::from_secs(60));
        stream.set_read_timeout(timeout).expect("a timeout");
        let input = BufReader::new(stream.try_clone().expect("a handle"));
        Link {
            stream,
            input,
            announced: Vec::new(),
            psync: Vec::new(),
        }
    }
}

impl Link {
    /// Replies to all commands of the replica before PSYNC or SYNC, and reads the PSYNC or SYNC.
    pub fn read_request(&mut self) {
        loop {
            let argv = read_command(&mut self.input).expect("a command");
            let reply: &[u8] = match &*argv[0] {
                "PSYNC" | "SYNC" => {
                    self.psync = argv;
                    return;
                }
                "PING" => b"+PONG\r\n",
                _ => b"+OK\r\n",
            };
            if argv[0] != "PING" {
                self.announced.push(argv);
            }
            (&self.stream).write_all(reply).expect("a reply");
        }
    }

    /// Reads the next line from the replica that is not empty, which is a request of one line.
    pub fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).expect("a line");
            let line = line.trim_end();
            if !line.is_empty() {
                return line.to_string();
            }
        }
    }

    /// Sends bytes. Returns false if the replica has closed the link meanwhile.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a full resync with the file of [`snapshot`], at this offset.
    pub fn full_resync(&mut self, offset: u64) {
        let body = snapshot();
        self.send(format!("+FULLRESYNC {ID} {offset}\r\n${}\r\n", body.len()).as_bytes());
        self.send(body);
    }

    /// Waits until the replica closes the link.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        match self.input.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("the link stays open: {e}"),
        }
    }

    /// Whether the replica sends REPLCONF ACK; false if it closes the link or sends nothing for a
    /// second.
    pub fn acknowledges(&mut self) -> bool {
        let timeout = Some(Duration::from_secs(1));
        self.stream.set_read_timeout(timeout).expect("a timeout");
        let mut line = Vec::new();
        while self.input.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if line == b"ACK\r\n" {
                return true;
            }
            line.clear();
        }
        false
    }

    /// Waits for the acknowledgement of this offset.
    pub fn wait_for_ack(&mut self, offset: u64) {
        let offset = offset.to_string();
        loop {
            let argv = read_command(&mut self.input).expect("an acknowledgement");
            assert_eq!(argv[..2], ["REPLCONF", "ACK"]);
            if argv[2] == offset {
                return;
            }
        }
    }
}

pub fn read_command(input: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut line = || {
        let mut line = String::new();
        match input.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_string()),
        }
    };
    // A replica that loads sends empty lines, so that its primary does not give it up.
    let mut first = line()?;
    while first.is_empty() {
        first = line()?;
    }
    let count: usize = first[1..].parse().expect("a count");
    (0..count)
        .map(|_| {
            line()?;
            line()
        })
        .collect()
}
