//! Runs a lesson's program in a process, for the tests of the lessons.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The time after which a test fails because a reply is missing.
const NEVER: Duration = Duration::from_secs(20);
/// The time for which a test waits to show that no reply comes.
pub const NOT_NOW: Duration = Duration::from_millis(300);

/// The number of programs that this process has started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

pub struct Lesson {
    process: Child,
    /// The working directory of the program, which is removed with the program.
    pub folder: PathBuf,
    pub port: u16,
    /// The operator's port, which lessons have from lesson 9 on; otherwise 0.
    pub operator: u16,
}

/// The source files of the lessons, in the order of the lessons.
pub fn sources() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("lessons");
    let entries = std::fs::read_dir(folder).expect("the folder of the lessons");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.sort();
    files
}

/// The folder of the lessons' programs, which `cargo test -p ae` builds.
pub fn programs() -> PathBuf {
    let tests = std::env::current_exe().expect("the path of this test");
    let folder = tests
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target/debug");
    folder.join("examples")
}

impl Lesson {
    /// Starts the program of lesson `number` on ports that the kernel chooses.
    pub fn start(number: usize) -> Lesson {
        let name = sources()[number - 1]
            .file_stem()
            .expect("a name")
            .to_owned();
        let program = programs().join(name);
        let own = format!(
            "lesson-{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(own);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut process = Command::new(&program)
            .arg("0")
            .stdout(Stdio::piped())
            .current_dir(&folder)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}: cargo build -p ae --examples", program.display()));
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut ports = [0; 2];
        for _ in 0..if number < 9 { 1 } else { 2 } {
            let line = lines.next().expect("a line for each port").expect("text");
            let port = line.split(':').nth(1).expect("an address");
            let port = port.split(' ').next().and_then(|port| port.parse().ok());
            ports[usize::from(line.ends_with("operator"))] = port.expect("a port");
        }
        Lesson {
            process,
            folder,
            port: ports[0],
            operator: ports[1],
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    /// The resident memory of the lesson's process, in bytes.
    #[allow(dead_code)]
    pub fn memory(&self) -> usize {
        let path = format!("/proc/{}/statm", self.process.id());
        let text = std::fs::read_to_string(path).expect("Linux");
        4096 * text
            .split(' ')
            .nth(1)
            .expect("pages")
            .parse::<usize>()
            .expect("a number")
    }
}

/// What the tests of the exercises need beside it.
#[allow(dead_code)]
impl Lesson {
    /// Stops the program until `resume`, as Ctrl-Z does.
    pub fn pause(&self) {
        kill(self.pid(), Signal::SIGSTOP).expect("a process");
        let is_stopped = || {
            let path = format!("/proc/{}/stat", self.process.id());
            let text = std::fs::read_to_string(path).expect("Linux");
            text.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" T"))
        };
        while !is_stopped() {
            std::thread::yield_now();
        }
    }

    pub fn resume(&self) {
        kill(self.pid(), Signal::SIGCONT).expect("a process");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// Whether epoll reports edges of one of the program's sockets.
    pub fn has_edges(&self) -> bool {
        const EPOLLET: u32 = 1 << 31;
        let folder = format!("/proc/{}/fdinfo", self.process.id());
        let entries = std::fs::read_dir(folder).expect("Linux");
        let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        // A line of an epoll instance: `tfd: 4 events: 80000001 data: 4`.
        let events = |line: &str| {
            let (_, rest) = line.strip_prefix("tfd:")?.split_once("events:")?;
            u32::from_str_radix(rest.split_whitespace().next()?, 16).ok()
        };
        texts
            .flat_map(|text| text.lines().filter_map(events).collect::<Vec<_>>())
            .any(|events| events & EPOLLET != 0)
    }
}

impl Drop for Lesson {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server that listens");
        stream.set_read_timeout(Some(NEVER)).expect("a time");
        Client { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a server that reads");
    }

    /// Sends `bytes`; false if the server has closed the connection.
    #[allow(dead_code)]
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Waits until `size` bytes arrive and returns them; fewer if the server closes the connection.
    pub fn receive(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{filled} bytes of {size} came, then {error}"),
            }
        }
        bytes.truncate(filled);
        bytes
    }

    /// Whether the server closes the connection, without a byte before it.
    #[allow(dead_code)]
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends `bytes`; whether the same bytes come back.
    pub fn echoes(&mut self, bytes: &[u8]) -> bool {
        self.send(bytes);
        self.receive(bytes.len()) == bytes
    }

    /// Sends a line; returns the reply without its line end, or an empty text if the connection is
    /// closed.
    pub fn line(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.next_line()
    }

    /// The line that the server sends without a request; empty if no line comes within `NOT_NOW`.
    #[allow(dead_code)]
    pub fn first_line(&mut self) -> String {
        let first = self.peek();
        if first {
            self.next_line()
        } else {
            String::new()
        }
    }

    pub fn next_line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let byte = self.receive(1);
            if byte.is_empty() {
                break;
            }
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).trim_end().to_string()
    }

    /// Whether the server sends nothing within `NOT_NOW`; a byte that does come is taken.
    #[allow(dead_code)]
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(NOT_NOW)).expect("a time");
        let result = self.stream.read(&mut [0; 1]);
        self.stream.set_read_timeout(Some(NEVER)).expect("a time");
        matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether a byte or the end of the stream comes within `NOT_NOW`.
    fn peek(&mut self) -> bool {
        self.stream.set_read_timeout(Some(NOT_NOW)).expect("a time");
        let result = self.stream.peek(&mut [0; 1]);
        self.stream.set_read_timeout(Some(NEVER)).expect("a time");
        result.is_ok()
    }
}
