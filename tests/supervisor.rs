//! Messages to systemd, the sockets that it hands over, and lines for its journal. The test reads
//! the messages at `NOTIFY_SOCKET` in the place of systemd, and opens listening sockets as a socket
//! unit does.
#![allow(unsafe_code)] // inherited sockets get their numbers between fork and exec

mod common;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::group::{self, SETTINGS, Stopped, follow};
use common::{Conn, Peer};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

/// The socket on which systemd would receive messages, and the lines of the messages so far.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    lines: Vec<String>,
}

impl Systemd {
    fn new(name: &str) -> Systemd {
        let name = format!("aeris-notify-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        Systemd {
            socket,
            path,
            lines: Vec::new(),
        }
    }

    /// Starts a server whose `NOTIFY_SOCKET` is this socket.
    fn start(&self, args: &[&str]) -> Peer {
        let args = [&["--supervised", "systemd"], args].concat();
        Peer::aeris_with(&args, |command| self.prepare(command))
    }

    fn prepare(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// Reads messages up to one that hands over files to be stored (FDSTORE=1), and returns the
    /// files.
    fn stored_files(&mut self) -> Vec<OwnedFd> {
        loop {
            let mut message = [0; 4096];
            let mut space = nix::cmsg_space!([RawFd; 8]);
            let mut text = [io::IoSliceMut::new(&mut message)];
            let fd = self.socket.as_raw_fd();
            let got = recvmsg::<()>(fd, &mut text, Some(&mut space), MsgFlags::empty());
            let got = got.expect("a message");
            let len = got.bytes;
            let mut files = Vec::new();
            for part in got.cmsgs().expect("room for all files") {
                if let ControlMessageOwned::ScmRights(numbers) = part {
                    // SAFETY: the kernel has opened the files for this process, and nothing else
                    // has their numbers.
                    files.extend(numbers.iter().map(|n| unsafe { OwnedFd::from_raw_fd(*n) }));
                }
            }
            let text = String::from_utf8_lossy(&message[..len]).into_owned();
            self.lines.extend(text.lines().map(String::from));
            if text.starts_with("FDSTORE=1\nFDNAME=aeris-listener\n") {
                return files;
            }
        }
    }

    /// Reads until a line begins with `wanted`; no line before it may be `refused`.
    fn wait_for_without(&mut self, refused: &str, wanted: &str) {
        while !self.lines.iter().any(|line| line.starts_with(wanted)) {
            self.read();
        }
        let end = self.lines.iter().position(|line| line.starts_with(wanted));
        let before: Vec<String> = self.lines.drain(..=end.expect("a line")).collect();
        assert!(!before.iter().any(|line| line == refused), "{before:?}");
    }

    /// Reads one message, and appends its lines to `lines`.
    fn read(&mut self) {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message);
        let len = len.unwrap_or_else(|e| panic!("{e}; {:?}", self.lines));
        let text = String::from_utf8_lossy(&message[..len]).into_owned();
        self.lines.extend(text.lines().map(String::from));
    }

    /// Reads until a line begins with `wanted`, and returns it.
    fn wait_for(&mut self, wanted: &str) -> String {
        self.lines_up_to(wanted).pop().expect("a line")
    }

    /// Reads until a line begins with `wanted`, and returns all lines up to this one.
    fn lines_up_to(&mut self, wanted: &str) -> Vec<String> {
        loop {
            if let Some(at) = self.lines.iter().position(|line| line.starts_with(wanted)) {
                return self.lines.drain(..=at).collect();
            }
            self.read();
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn the_supervisor_gets_a_message_at_each_step_of_a_life() {
    let mut systemd = Systemd::new("life");
    let mut server = systemd.start(&["--save", "3600 1"]);
    assert_eq!(
        systemd.wait_for("STATUS"),
        "STATUS=Ready to accept connections"
    );
    systemd.wait_for("READY=1");

    kill(Pid::from_raw(server.pid() as i32), Signal::SIGHUP).expect("it runs");
    systemd.wait_for("RELOADING=1");
    let time = systemd.wait_for("MONOTONIC_USEC=");
    assert!(
        time.trim_start_matches("MONOTONIC_USEC=")
            .parse::<u64>()
            .is_ok()
    );
    systemd.wait_for("READY=1");

    let mut c = server.connect();
    assert_eq!(c.line("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    let status = systemd.wait_for("STATUS");
    assert_eq!(
        status,
        "STATUS=Ready to accept connections, replica of 127.0.0.1:1, link down"
    );
    assert_eq!(c.line("SAVE"), "+OK\r\n");
    systemd.wait_for("EXTEND_TIMEOUT_USEC=6");
    c.send(b"SHUTDOWN\r\n");
    systemd.wait_for("EXTEND_TIMEOUT_USEC=");
    systemd.wait_for("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}

/// systemd kills a server that has sent STOPPING and does not end: a stop whose save fails goes on
/// without.
#[test]
fn a_shutdown_whose_save_fails_does_not_count_as_stopping() {
    let mut systemd = Systemd::new("refused");
    let mut server = systemd.start(&[]);
    std::fs::create_dir_all(server.dir().join("dump.rdb/full")).expect("a folder");
    let mut c = server.connect();
    let error = "-ERR Errors trying to SHUTDOWN. Check logs.\r\n";
    assert_eq!(c.line("SHUTDOWN SAVE"), error);
    assert_eq!(c.line("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    let ready = "STATUS=Ready to accept connections, replica of";
    systemd.wait_for_without("STOPPING=1", ready);
    c.send(b"SHUTDOWN NOSAVE\r\n");
    systemd.wait_for("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}

/// While a stop waits for replicas, systemd must wait as well; after SHUTDOWN ABORT the server is
/// ready as before.
#[test]
fn a_shutdown_that_waits_for_replicas_gets_more_time() {
    let mut systemd = Systemd::new("replicas");
    let settings = [SETTINGS, &["--shutdown-timeout", "1000"]].concat();
    let mut server = systemd.start(&settings);
    let replica = Peer::aeris(SETTINGS);
    follow(&replica, server.port);
    group::wait_for(&server, |info| info.contains("state=online"));
    let _stopped = Stopped::new(&replica);
    let mut c = server.connect();
    assert_eq!(c.line("SET k v"), "+OK\r\n");
    let mut asks = server.connect();
    asks.send(b"SHUTDOWN\r\n");
    systemd.wait_for_without("STOPPING=1", "STATUS=Stopping: waiting for replicas");
    let limit = systemd.wait_for("EXTEND_TIMEOUT_USEC=");
    let limit = limit.trim_start_matches("EXTEND_TIMEOUT_USEC=");
    let limit: u64 = limit.parse().expect("a number");
    assert!((900_000_000..=1_030_000_000).contains(&limit), "{limit}");
    assert_eq!(c.line("SHUTDOWN ABORT"), "+OK\r\n");
    systemd.wait_for_without("STOPPING=1", "STATUS=Ready to accept connections");
    c.send(b"SHUTDOWN NOW\r\n");
    systemd.wait_for("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_socket_of_the_supervisor_gets_all_messages() {
    use std::os::linux::net::SocketAddrExt;
    let mut systemd = Systemd::new("abstract");
    let name = format!("aeris-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name);
    systemd.socket = UnixDatagram::bind_addr(&address.expect("a name")).expect("a socket");
    let timeout = Some(Duration::from_secs(60));
    systemd.socket.set_read_timeout(timeout).expect("a timeout");
    let _server = Peer::aeris_with(&["--supervised", "systemd"], |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
        command.env("WATCHDOG_USEC", "200000");
    });
    for wanted in ["FDSTORE=1", "STATUS=Ready", "READY=1", "WATCHDOG=1"] {
        systemd.wait_for(wanted);
    }
}

#[test]
fn the_watchdog_gets_its_message_also_from_a_long_script() {
    let mut systemd = Systemd::new("watchdog");
    let server = Peer::aeris_with(
        &["--supervised", "auto", "--busy-reply-threshold", "1"],
        |command| {
            systemd.prepare(command);
            command.env("WATCHDOG_USEC", "200000");
        },
    );
    for _ in 0..3 {
        systemd.wait_for("WATCHDOG=1");
    }
    let mut c = server.connect();
    c.send(b"EVAL \"while true do end\" 0\r\n");
    let mut other = server.connect();
    while !other.line("PING").starts_with("-BUSY") {}
    systemd.lines.clear();
    // At most one WATCHDOG=1 was sent before the script began to run.
    for _ in 0..3 {
        systemd.wait_for("WATCHDOG=1");
    }
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    // SAVE, during which the loop does not turn, announces a longer watchdog period, and then the
    // old one again.
    while other.line("SAVE").starts_with("-BUSY") {}
    let longer = systemd.wait_for("WATCHDOG_USEC=");
    assert_ne!(longer, "WATCHDOG_USEC=200000");
    assert_eq!(systemd.wait_for("WATCHDOG_USEC="), "WATCHDOG_USEC=200000");
}

/// Settings by which a load takes seconds, and serves clients after each 1,024 bytes.
const SLOW_LOAD: [&str; 4] = [
    "--key-load-delay",
    "2000",
    "--loading-process-events-interval-bytes",
    "1024",
];

#[test]
fn a_load_shows_its_progress_and_gets_more_time() {
    let mut systemd = Systemd::new("load");
    let mut server = systemd.start(&[]);
    let mut c = server.connect();
    assert_eq!(c.line("DEBUG POPULATE 2000 key 100"), "+OK\r\n");
    assert_eq!(c.line("SAVE"), "+OK\r\n");
    systemd.wait_for("READY=1");
    server.start_again(&SLOW_LOAD);
    systemd.wait_for("EXTEND_TIMEOUT_USEC=30000000");
    let status = systemd.wait_for("STATUS=Loading: ");
    assert!(status.contains(" %, "), "{status}");
    server.connect().line("CONFIG SET key-load-delay 0");
    systemd.wait_for("READY=1");
}

/// The READY at the end of a reload would start the units that wait for the data set.
#[test]
fn a_reload_during_the_load_at_start_sends_no_ready() {
    let mut systemd = Systemd::new("early");
    let args = ["--supervised", "systemd"];
    let mut server = Peer::aeris_with(&args, |command| {
        systemd.prepare(command);
        command.env("WATCHDOG_USEC", "200000");
    });
    let mut c = server.connect();
    assert_eq!(c.line("DEBUG POPULATE 4000 key 100"), "+OK\r\n");
    assert_eq!(c.line("SAVE"), "+OK\r\n");
    systemd.wait_for("READY=1");
    server.start_again(&SLOW_LOAD);
    systemd.wait_for("STATUS=Loading: ");
    kill(Pid::from_raw(server.pid() as i32), Signal::SIGHUP).expect("it runs");
    // The job that takes the signal runs as often as the one that sends WATCHDOG.
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.extend(systemd.lines_up_to("WATCHDOG=1"));
    }
    server.connect().line("CONFIG SET key-load-delay 0");
    lines.extend(systemd.lines_up_to("READY=1"));
    assert!(!lines.contains(&"RELOADING=1".to_string()), "{lines:?}");
    let with_ready = &lines[lines.len() - 2];
    assert_eq!(with_ready, "STATUS=Ready to accept connections");
}

#[test]
fn another_supervisor_gets_no_messages() {
    let systemd = Systemd::new("none");
    let mut server = Peer::aeris_with(&["--supervised", "no"], |command| systemd.prepare(command));
    server.connect().send(b"SHUTDOWN NOSAVE\r\n");
    server.wait();
    systemd.socket.set_nonblocking(true).expect("a socket");
    assert!(systemd.socket.recv(&mut [0; 64]).is_err());
}

/// Gives the listening sockets the file descriptors from 3 on, as systemd does.
fn hand_over(command: &mut Command, files: Vec<RawFd>) {
    let count = files.len() as RawFd;
    command.env("LISTEN_FDS", count.to_string());
    // SAFETY: system calls and a write into a buffer on the stack; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            // The sockets first get numbers above 100, so that no number is overwritten before its
            // file is moved.
            for (at, &file) in files.iter().enumerate() {
                check(libc::fcntl(file, libc::F_DUPFD, 100 + at as RawFd))?;
            }
            for at in 0..count {
                check(libc::dup2(100 + at, 3 + at))?;
                check(libc::close(100 + at))?;
            }
            Ok(())
        });
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a server with inherited sockets. `LISTEN_PID` must be its process id, which only the
/// shell that becomes the server knows.
fn start_with_sockets(sockets: Vec<RawFd>, args: &[&str]) -> std::process::Child {
    start_prepared(sockets, args, |_| ())
}

fn start_prepared(
    sockets: Vec<RawFd>,
    args: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> std::process::Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_aeris-server"))
        .args(["--save", ""])
        .args(args)
        .current_dir(std::env::temp_dir())
        .stdout(std::process::Stdio::null());
    prepare(&mut command);
    hand_over(&mut command, sockets);
    command.spawn().expect("sh runs")
}

fn stop(mut server: std::process::Child) {
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).expect("it runs");
    assert!(server.wait().expect("a child").success());
}

/// A client that connects while no server runs is served by the next one.
#[test]
fn the_sockets_of_the_supervisor_are_used_and_survive_a_restart() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let path = std::env::temp_dir().join(format!("aeris-activation-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).expect("a socket");
    let text = port.to_string();
    let args = [
        "--port",
        &text,
        "--bind",
        "127.0.0.1",
        "--unixsocket",
        path.to_str().unwrap(),
    ];
    for _ in 0..2 {
        // Both connections wait in the backlog of the listening sockets, since no server runs.
        let mut early = Conn::new(port);
        let mut local = std::os::unix::net::UnixStream::connect(&path).expect("a backlog");
        let sockets = vec![unix.as_raw_fd(), tcp.as_raw_fd()];
        let server = start_with_sockets(sockets, &args);
        assert_eq!(early.line("PING"), "+PONG\r\n");
        io::Write::write_all(&mut local, b"PING\r\n").expect("open");
        let mut reply = [0; 7];
        io::Read::read_exact(&mut local, &mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
        stop(server);
        assert!(path.exists(), "the file is the supervisor's");
        assert!(
            TcpStream::connect(("127.0.0.1", port)).is_ok(),
            "the backlog is open"
        );
    }
    let _ = std::fs::remove_file(&path);
}

/// Without a socket unit systemd keeps the sockets that the server hands over to it: a client that
/// connects while the server restarts waits, and is served.
#[test]
fn stored_sockets_are_used_by_the_next_server() {
    let mut systemd = Systemd::new("store");
    let mut server = systemd.start(&[]);
    let first = systemd.stored_files();
    assert_eq!(first.len(), 1);
    let port = common::free_port();
    let mut c = server.connect();
    assert_eq!(c.line(&format!("CONFIG SET port {port}")), "+OK\r\n");
    drop(first);
    systemd.wait_for("FDSTOREREMOVE=1");
    let files = systemd.stored_files();
    c.send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(server.wait(), Some(0));

    let mut early = Conn::new(port);
    let text = port.to_string();
    let args = [
        "--port",
        &text,
        "--bind",
        "127.0.0.1",
        "--supervised",
        "systemd",
    ];
    let numbers = files.iter().map(|file| file.as_raw_fd()).collect();
    let next = start_prepared(numbers, &args, |command| {
        systemd.prepare(command);
        command.env("LISTEN_FDNAMES", "aeris-listener");
    });
    assert_eq!(early.line("PING"), "+PONG\r\n");
    assert_eq!(
        systemd.stored_files().len(),
        1,
        "they are kept for the next one"
    );
    stop(next);
}

/// `bind` changed while the server did not run: the stored socket of the old address is closed,
/// although systemd still holds it, and the server listens at the new address.
#[test]
fn a_stored_socket_of_a_former_address_gives_way() {
    let mut systemd = Systemd::new("former");
    let mut server = systemd.start(&[]);
    let files = systemd.stored_files();
    server.connect().send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(server.wait(), Some(0));
    systemd.lines.clear();

    let port = server.port.to_string();
    let args = ["--port", &port, "--bind", "*", "--supervised", "systemd"];
    let numbers = files.iter().map(|file| file.as_raw_fd()).collect();
    let next = start_prepared(numbers, &args, |command| {
        systemd.prepare(command);
        command.env("LISTEN_FDNAMES", "aeris-listener");
    });
    systemd.wait_for("FDSTOREREMOVE=1");
    let stored = systemd.stored_files();
    assert_eq!(stored.len(), 1);
    let stored = TcpListener::from(stored.into_iter().next().expect("one"));
    let address = stored.local_addr().expect("an address").ip();
    assert!(address.is_unspecified(), "{address}");
    assert_eq!(Conn::new(server.port).line("PING"), "+PONG\r\n");
    stop(next);
}

/// Without a listening TCP socket nothing is stored, and the sockets of an earlier start leave the
/// store.
#[test]
fn a_stored_socket_is_removed_when_no_port_is_set() {
    let mut systemd = Systemd::new("removed");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let path = std::env::temp_dir().join(format!("aeris-removed-{}", std::process::id()));
    let unix = path.to_str().expect("UTF-8");
    let args = [
        "--port",
        "0",
        "--unixsocket",
        unix,
        "--supervised",
        "systemd",
    ];
    let server = start_prepared(vec![tcp.as_raw_fd()], &args, |command| {
        systemd.prepare(command);
        command.env("LISTEN_FDNAMES", "aeris-listener");
    });
    let lines = systemd.lines_up_to("READY=1");
    assert_eq!(
        lines[..2],
        ["FDSTOREREMOVE=1", "FDNAME=aeris-listener"],
        "{lines:?}"
    );
    assert!(!lines.contains(&"FDSTORE=1".to_string()), "{lines:?}");
    stop(server);
}

/// A socket unit shares its sockets with each server that it starts: CONFIG SET does not stop them.
#[test]
fn config_set_leaves_the_sockets_of_a_unit_open() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let other = common::free_port();
    let text = port.to_string();
    let args = ["--port", &text, "--bind", "127.0.0.1"];
    for changes in [
        vec![format!("port {other}")],
        vec![format!("port {other}"), format!("port {port}")],
        vec!["bind 127.0.0.1 -127.0.0.2".to_string()],
    ] {
        let server = start_with_sockets(vec![tcp.as_raw_fd()], &args);
        let mut c = Conn::new(port);
        let mut last = port;
        for change in &changes {
            let (name, value) = change.split_once(' ').expect("a value");
            assert_eq!(c.cmd(&["CONFIG", "SET", name, value]), b"+OK\r\n");
            last = match change.strip_prefix("port ") {
                Some(port) => port.parse().expect("a number"),
                None => last,
            };
            assert_eq!(Conn::new(last).line("PING"), "+PONG\r\n", "{change}");
        }
        stop(server);
        let mut early = Conn::new(port);
        let server = start_with_sockets(vec![tcp.as_raw_fd()], &args);
        assert_eq!(early.line("PING"), "+PONG\r\n", "{changes:?}");
        stop(server);
    }
}

#[test]
fn a_socket_that_does_not_listen_any_more_listens_again() {
    // A socket that was bound to port 0 loses its port with shutdown(2).
    let port = common::free_port();
    let tcp = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    // SAFETY: a system call on an open socket.
    let stopped = unsafe { libc::shutdown(tcp.as_raw_fd(), libc::SHUT_RDWR) };
    assert_eq!(stopped, 0);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let args = ["--port", &port.to_string(), "--bind", "127.0.0.1"];
    let server = start_with_sockets(vec![tcp.as_raw_fd()], &args);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(Conn::new(port).line("PING"), "+PONG\r\n");
    stop(server);
}

/// systemd removes the directory of a service (RuntimeDirectory) when the service stops, and in it
/// the file of a unix socket that a socket unit has opened.
#[test]
fn a_unix_socket_without_its_file_is_made_anew() {
    let path = std::env::temp_dir().join(format!("aeris-no-file-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).expect("a socket");
    let text = path.to_str().expect("UTF-8");
    for is_left_over in [false, true] {
        let _ = std::fs::remove_file(&path);
        if is_left_over {
            // The file of a server that was killed: no socket is bound to it.
            drop(UnixListener::bind(&path).expect("a socket"));
        }
        let args = ["--port", "0", "--unixsocket", text];
        let server = start_with_sockets(vec![unix.as_raw_fd()], &args);
        let mut client = loop {
            match std::os::unix::net::UnixStream::connect(&path) {
                Ok(client) => break client,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        io::Write::write_all(&mut client, b"PING\r\n").expect("open");
        let mut reply = [0; 7];
        io::Read::read_exact(&mut client, &mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
        stop(server);
        assert!(!path.exists(), "the file was the server's");
    }
}

/// An inherited socket whose address no setting names is closed, and the addresses of the settings
/// are opened.
#[test]
fn a_socket_of_another_address_is_not_used() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = other.local_addr().expect("an address").port();
    let port = common::free_port();
    let server = start_with_sockets(
        vec![other.as_raw_fd()],
        &["--port", &port.to_string(), "--bind", "127.0.0.1"],
    );
    drop(other);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(TcpStream::connect(("127.0.0.1", closed)).is_err());
    stop(server);
}

#[test]
fn lines_of_the_log_as_json_and_for_the_journal() {
    let log = std::env::temp_dir().join(format!("aeris-log-format-{}", std::process::id()));
    let _ = std::fs::remove_file(&log);
    let path = log.to_str().expect("UTF-8");
    let server = Peer::aeris(&["--log-format", "json", "--logfile", path]);
    let read = |wanted: &str| loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains(wanted) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = read("Ready to accept connections tcp");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(line["pid"], server.pid());
        for name in ["role", "timestamp", "level", "message"] {
            assert!(line[name].is_string(), "{line}");
        }
    }
    let ready = text.lines().find(|line| line.contains("Ready to accept"));
    let ready: serde_json::Value = serde_json::from_str(ready.expect("a line")).expect("JSON");
    assert_eq!(ready["message"], "Ready to accept connections tcp");
    assert_eq!(
        (&ready["role"], &ready["level"]),
        (&"primary".into(), &"notice".into())
    );

    let mut c = server.connect();
    assert_eq!(c.line("CONFIG SET log-format journal"), "+OK\r\n");
    assert_eq!(c.line("SAVE"), "+OK\r\n");
    read("\n<5>M DB saved on disk\n");
    let _ = std::fs::remove_file(&log);
}
