//! The server as a process: how it starts, logs and ends. Each test runs the server's program on a
//! free loopback port, in a directory of its own.

#[path = "process/refused.rs"]
mod refused;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_aeris-server");

/// A directory for the files of a server, which is removed when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path =
            std::env::temp_dir().join(format!("aeris-process-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Runs the server's program to its end.
fn run(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running server whose log is `dir/log`.
struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    fn start(dir: &Dir, args: &[&str]) -> Server {
        let port = free_port();
        Server::start_on(dir, port, &[&["--port", &port.to_string()], args].concat())
    }

    fn start_on(dir: &Dir, port: u16, args: &[&str]) -> Server {
        let mut server = Server::launch(dir, port, args);
        server.wait_for("Ready to accept connections");
        server
    }

    /// Starts a server; the caller waits until it is ready.
    fn launch(dir: &Dir, port: u16, args: &[&str]) -> Server {
        let log = dir.join("log");
        let args = [args, &["--logfile", log.to_str().unwrap()]].concat();
        Server::spawn(dir, port, &args, Stdio::null())
    }

    /// As [`Server::launch`]; the log is standard output, so that a line of it needs no new file
    /// descriptor.
    fn launch_with_open_log(dir: &Dir, port: u16, args: &[&str]) -> Server {
        let log = fs::File::create(dir.join("log")).unwrap();
        Server::spawn(dir, port, args, log.into())
    }

    fn spawn(dir: &Dir, port: u16, args: &[&str], stdout: Stdio) -> Server {
        let child = Command::new(BINARY)
            .args(args)
            .current_dir(&dir.0)
            .stdin(Stdio::null())
            // A server that crashes on purpose writes its report to a file, not to the test's
            // output.
            .stdout(stdout)
            .stderr(fs::File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let log = dir.join("log");
        Server { child, port, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has this line; fails if the process ends before.
    fn wait_for(&mut self, line: &str) {
        while !self.log().contains(line) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "ended with {ended:?} before {line:?}:\n{}\n{}",
                self.log(),
                fs::read_to_string(self.log.with_file_name("stderr")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Sends an inline command; returns the reply up to the text `end`.
    fn ask(&self, command: &str, end: &str) -> String {
        exchange(
            &mut TcpStream::connect(("127.0.0.1", self.port)).unwrap(),
            command,
            end,
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exchange(socket: &mut (impl Read + Write), command: &str, end: &str) -> String {
    socket
        .write_all(format!("{command}\r\n").as_bytes())
        .unwrap();
    let mut reply = String::new();
    let mut byte = [0];
    while !reply.ends_with(end) && socket.read(&mut byte).unwrap() == 1 {
        reply.push(byte[0] as char);
    }
    reply
}

/// Runs the server's program under another name.
fn run_as(name: &Path, args: &[&str]) -> Output {
    Command::new(name).args(args).output().unwrap()
}

#[test]
fn version_and_help_follow_the_name_of_the_program() {
    let dir = Dir::new("names");
    let as_redis = dir.join("redis-server");
    std::os::unix::fs::symlink(BINARY, &as_redis).unwrap();
    let own = format!("aeris server v={} sha=", env!("CARGO_PKG_VERSION"));
    let redis = "Redis server v=7.2.4 sha=";
    for (program, start) in [(Path::new(BINARY), &*own), (&as_redis, redis)] {
        for option in ["-v", "--version"] {
            let out = run_as(program, &[option]);
            let line = text(&out.stdout);
            assert!(out.status.success());
            assert!(line.starts_with(start), "{line}");
            assert!(line.contains("00000000:0 malloc=jemalloc-"), "{line}");
            assert!(line.contains(" bits=64 build="), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
    for option in ["-h", "--help"] {
        let (own, redis) = (
            run_as(Path::new(BINARY), &[option]),
            run_as(&as_redis, &[option]),
        );
        assert_eq!((own.status.code(), redis.status.code()), (Some(1), Some(1)));
        assert!(text(&own.stderr).contains("Usage: ./aeris-server ["));
        assert!(!text(&own.stderr).contains("redis-server"));
        assert!(text(&redis.stderr).starts_with("Usage: ./redis-server ["));
        let last = "       ./redis-server /etc/sentinel.conf --sentinel\n";
        assert!(text(&redis.stderr).ends_with(last));
        assert!(!text(&own.stderr).contains("entinel"));
        assert_eq!((own.stdout.len(), redis.stdout.len()), (0, 0));
    }
}

#[test]
fn the_first_argument_decides_what_is_asked() {
    let version = run(&["-v", "--port", "x"], "");
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with("aeris server v="));
    assert!(text(&run(&["--help", "me"], "").stderr).contains("Usage: "));
    let memory = run(&["--test-memory", "1", "2"], "");
    assert_eq!(memory.status.code(), Some(1));
    assert_eq!(
        text(&memory.stderr),
        "Please specify the amount of memory to test in megabytes.\nExample: ./redis-server --test-memory 4096\n\n"
    );
    let passed = run(&["--test-memory", "1"], "");
    assert_eq!(passed.status.code(), Some(0));
    assert!(text(&passed.stdout).starts_with("\nYour memory passed this test.\n"));
    let sentinel = run(&["--sentinel"], "");
    let line = text(&sentinel.stdout);
    assert_eq!(sentinel.status.code(), Some(1));
    assert!(line.contains(":X "), "{line}");
    assert!(
        line.ends_with(" # Sentinel needs config file on disk to save state. Exiting...\n"),
        "{line}"
    );
}

#[test]
fn a_unix_socket_of_a_group() {
    use std::os::unix::fs::MetadataExt;
    let dir = Dir::new("group");
    let socket = dir.join("s");
    let path = socket.to_str().unwrap();
    let unknown = [
        "--port",
        "0",
        "--unixsocket",
        path,
        "--unixsocketgroup",
        "no-such-group",
    ];
    let out = run(&unknown, "");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stdout).contains("Failed opening Unix socket: "));
    assert!(!socket.exists());

    // A process may always give its files its own group.
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid());
    let group = group.unwrap().unwrap();
    let args = [
        "--port",
        "0",
        "--unixsocket",
        path,
        "--unixsocketgroup",
        &group.name,
    ];
    let _server = Server::start_on(&dir, 0, &args);
    assert_eq!(fs::metadata(&socket).unwrap().gid(), group.gid.as_raw());
}

/// A server without file descriptors accepts a waiting connection as soon as there are descriptors
/// again; no other connection has to arrive.
#[test]
fn a_connection_is_accepted_when_there_are_file_descriptors_again() {
    let dir = Dir::new("fds");
    let port = free_port();
    let mut server = Server::launch_with_open_log(&dir, port, &["--port", &port.to_string()]);
    server.wait_for("Ready to accept connections");
    let pid = server.child.id();
    let limit = |files: u64| {
        let option = format!("--nofile={files}:");
        let out = Command::new("prlimit")
            .args(["--pid", &pid.to_string(), &option])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
    };
    // A new descriptor gets the lowest free number, and the limit of open files limits these
    // numbers.
    let free = (0..).find(|fd| !Path::new(&format!("/proc/{pid}/fd/{fd}")).exists());
    limit(free.unwrap());
    let mut waiting = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    server.wait_for("Accepting client connection: Too many open files");
    limit(1000);
    assert_eq!(exchange(&mut waiting, "PING", "\r\n"), "+PONG\r\n");
}

/// The value of a line in a file below /proc.
fn proc_line(path: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches(':').trim().to_string())
}

#[test]
fn background_threads_run_on_the_processors_of_bio_cpulist() {
    let dir = Dir::new("bio");
    let allowed = "Cpus_allowed_list";
    let all = proc_line(Path::new("/proc/self/status"), allowed).unwrap();
    let last = all.rsplit([',', '-']).next().unwrap().to_string();
    for name in ["bio_cpulist", "bio-cpulist"] {
        let _ = fs::remove_file(dir.join("log"));
        let option = format!("--{name}");
        let server = Server::start(&dir, &["--appendonly", "yes", &option, &last]);
        assert_eq!(server.ask("SET k v", "\r\n"), "+OK\r\n");
        let process = PathBuf::from(format!("/proc/{}", server.child.id()));
        // A background thread moves to its processor when it begins to run, which may be after the
        // first reply.
        let mut moved = 0;
        while moved < 2 {
            let tasks = fs::read_dir(process.join("task")).unwrap();
            let tasks = tasks.map(|task| task.unwrap().path().join("status"));
            let background = tasks.filter(|status| {
                proc_line(status, "Name").is_some_and(|name| name.starts_with("bio_"))
            });
            moved = background
                .filter(|status| proc_line(status, allowed).as_ref() == Some(&last))
                .count();
        }
        assert_eq!(
            proc_line(&process.join("status"), allowed),
            Some(all.clone())
        );
        assert!(!server.log().contains("Can't set the CPU affinity"));
    }
}

/// aeris starts with the configuration files of all installed Redis and Valkey servers; only the
/// paths to which it would write are replaced.
#[test]
fn the_stock_files_of_all_peers_start_the_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let peers = fs::read_dir(root.join("tests/.peers"))
        .into_iter()
        .flatten();
    let peers = peers.map(|entry| entry.unwrap().path());
    let stock = [
        "valkey.conf",
        "etc/valkey/valkey.conf",
        "etc/redis/redis.conf",
    ];
    let mut files = vec![root.join("redis.conf")];
    for place in peers.chain([PathBuf::from("/")]) {
        let found = stock.iter().map(|name| place.join(name));
        // The files of Debian's packages may be readable only for the users of their servers.
        files.extend(found.filter(|file| fs::read(file).is_ok()));
    }
    for peer in ["redis", "valkey"] {
        let name = format!("{peer}.conf");
        let found = files[1..].iter().any(|file| file.ends_with(&name));
        if !found {
            eprintln!("no stock {name} of a peer is at hand: this part of the test did not run");
        }
    }
    for file in files {
        let dir = Dir::new("stock");
        // The setting `dir` of the file is left out: the server enters it at once, and may not have
        // access.
        let text = fs::read(&file).unwrap();
        let text = text.split_inclusive(|byte| *byte == b'\n');
        let kept = text.filter(|line| !line.starts_with(b"dir "));
        fs::write(dir.join("conf"), kept.collect::<Vec<_>>().concat()).unwrap();
        let port = free_port();
        let options = format!("--port {port} --daemonize no --pidfile pid --bind 127.0.0.1");
        let args: Vec<&str> = std::iter::once("conf").chain(options.split(' ')).collect();
        let server = Server::start_on(&dir, port, &args);
        assert_eq!(server.ask("SET k v", "\r\n"), "+OK\r\n", "{file:?}");
    }
}

#[test]
fn writes_need_their_replicas() {
    let dir = Dir::new("replicas");
    let server = Server::start(&dir, &["--min-replicas-to-write", "1"]);
    let refused = "-NOREPLICAS Not enough good replicas to write.\r\n";
    assert_eq!(server.ask("SET k v", "\r\n"), refused);
    assert_eq!(server.ask("GET k", "\r\n"), "$-1\r\n");
    assert_eq!(server.ask("PING", "\r\n"), "+PONG\r\n");
    let script = "EVAL \"return redis.call('set','k','v')\" 0";
    assert!(server.ask(script, "\r\n").starts_with("-NOREPLICAS "));
    assert_eq!(
        server.ask("CONFIG SET min-replicas-to-write 0", "\r\n"),
        "+OK\r\n"
    );
    assert_eq!(server.ask("SET k v", "\r\n"), "+OK\r\n");
}

#[test]
fn settings_from_standard_input() {
    let out = run(&["-"], "loglevel nonsense\n");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nReading the configuration file, at line 1\n\
         >>> 'loglevel nonsense'\n\
         argument(s) must be one of the following: debug, verbose, notice, warning, nothing\n"
    );
}

#[test]
fn settings_from_standard_input_come_behind_those_of_the_file() {
    let dir = Dir::new("stdin");
    let file = dir.join("redis.conf");
    fs::write(&file, "port 1\nport 2\n").unwrap();
    let out = run(&[file.to_str().unwrap(), "--foo", "bar", "-"], "port 3\n");
    assert_eq!(out.status.code(), Some(1));
    let log = text(&out.stdout);
    assert!(log.ends_with(" * Reading config from stdin\n"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(text(&out.stderr).contains("at line 5\n>>> 'foo \"bar\"'\n"));
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let out = run(&["--port", &port, "--bind", "127.0.0.1"], "");
    assert_eq!(out.status.code(), Some(1));
    let log = text(&out.stdout);
    let warning = format!(
        "# Warning: Could not create server TCP listening socket 127.0.0.1:{port}: bind: Address already in use\n"
    );
    assert!(log.contains(&warning), "{log}");
    assert!(
        log.ends_with(&format!(
            "# Failed listening on port {port} (tcp), aborting.\n"
        )),
        "{log}"
    );
}

#[test]
fn sigterm_stops_with_status_0_and_leaves_nothing_behind() {
    let dir = Dir::new("sigterm");
    let mut server = Server::start(
        &dir,
        &["--pidfile", "pid", "--unixsocket", "sock", "--save", ""],
    );
    assert_eq!(
        fs::read_to_string(dir.join("pid")).unwrap(),
        format!("{}\n", server.child.id())
    );
    // `Ready to accept connections unix` is the last line of the start.
    server.wait_for("Ready to accept connections unix");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let log = server.log();
    let mut from = 0;
    for line in [
        "oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo",
        "Configuration loaded",
        "Server initialized",
        "Ready to accept connections tcp",
        "Ready to accept connections unix",
        "Received SIGTERM scheduling shutdown...",
        "* User requested shutdown...",
        "* Removing the pid file.",
        "* Removing the unix socket file.",
        "# Redis is now ready to exit, bye bye...",
    ] {
        let at = log[from..]
            .find(line)
            .unwrap_or_else(|| panic!("no {line:?} in its place:\n{log}"));
        from += at;
    }
    assert!(!dir.join("pid").exists() && !dir.join("sock").exists());
}

#[test]
fn shutdown_closes_the_connection_without_a_reply() {
    let dir = Dir::new("shutdown");
    let mut server = Server::start(&dir, &["--save", ""]);
    assert_eq!(
        server.ask("SHUTDOWN ABORT", "\n"),
        "-ERR No shutdown in progress.\r\n"
    );
    assert_eq!(
        server.ask("SHUTDOWN SAVE NOSAVE", "\n"),
        "-ERR syntax error\r\n"
    );
    assert_eq!(server.ask("SHUTDOWN NOSAVE", "\n"), "");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_unix_socket_alone_with_its_permissions() {
    let dir = Dir::new("unix");
    let args = [
        "--port",
        "0",
        "--unixsocket",
        "sock",
        "--unixsocketperm",
        "700",
    ];
    let _server = Server::start_on(&dir, 0, &args);
    let path = dir.join("sock");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        exchange(&mut UnixStream::connect(&path).unwrap(), "PING", "\n"),
        "+PONG\r\n"
    );
}

#[test]
fn rewritten_settings_survive_a_restart() {
    let dir = Dir::new("rewrite");
    let (port, file) = (free_port(), dir.join("redis.conf"));
    fs::write(&file, format!("# mine\nport {port}\nmaxmemory 100mb\n")).unwrap();
    let server = Server::start_on(&dir, port, &[file.to_str().unwrap()]);
    assert_eq!(
        server.ask("CONFIG SET maxmemory 200mb timeout 7", "\n"),
        "+OK\r\n"
    );
    assert_eq!(server.ask("CONFIG REWRITE", "\n"), "+OK\r\n");
    drop(server);
    let written = fs::read_to_string(&file).unwrap();
    assert!(
        written.starts_with(&format!("# mine\nport {port}\nmaxmemory 200mb\n")),
        "{written}"
    );
    fs::remove_file(dir.join("log")).unwrap();
    let server = Server::start_on(&dir, port, &[file.to_str().unwrap()]);
    assert_eq!(
        server.ask("CONFIG GET timeout", "$1\r\n7\r\n"),
        "*2\r\n$7\r\ntimeout\r\n$1\r\n7\r\n"
    );
}

#[test]
fn a_new_port_or_an_error_that_changes_nothing() {
    let dir = Dir::new("port");
    let mut server = Server::start(&dir, &["--bind", "127.0.0.1"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = taken.local_addr().unwrap().port();
    assert_eq!(
        server.ask(&format!("CONFIG SET maxmemory 5mb port {used}"), "\n"),
        "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check \
         server logs.\r\n"
    );
    assert_eq!(
        server.ask("CONFIG GET maxmemory", "0\r\n"),
        "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n"
    );
    let old = server.port;
    server.port = free_port();
    let mut socket = TcpStream::connect(("127.0.0.1", old)).unwrap();
    let command = format!("CONFIG SET port {}", server.port);
    assert_eq!(exchange(&mut socket, &command, "\n"), "+OK\r\n");
    assert_eq!(server.ask("PING", "\n"), "+PONG\r\n");
    assert!(TcpStream::connect(("127.0.0.1", old)).is_err());
    assert_eq!(
        exchange(&mut socket, "PING", "\n"),
        "+PONG\r\n",
        "old connections stay"
    );
}

#[test]
fn the_title_names_the_address() {
    let dir = Dir::new("title");
    let server = Server::start(&dir, &["--bind", "127.0.0.1"]);
    let title = |server: &Server| {
        let cmdline = fs::read(format!("/proc/{}/cmdline", server.child.id())).unwrap();
        text(&cmdline).trim_end_matches('\0').to_string()
    };
    if Path::new("/proc/self/cmdline").exists() {
        assert_eq!(
            title(&server),
            format!("{BINARY} 127.0.0.1:{}", server.port)
        );
        let long = "x".repeat(300);
        server.ask(&format!("CONFIG SET proc-title-template {long}"), "\n");
        assert_eq!(title(&server), long, "longer than the arguments were");
    }
}

#[test]
fn a_crash_leaves_a_report() {
    let dir = Dir::new("crash");
    let mut server = Server::start(&dir, &[]);
    let _client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    assert_eq!(server.ask("PING", "\n"), "+PONG\r\n");
    server.signal(Signal::SIGSEGV);
    assert_eq!(server.child.wait().unwrap().signal(), Some(libc::SIGSEGV));
    let log = server.log();
    let mut from = 0;
    for part in [
        "=== REDIS BUG REPORT START: Cut & paste starting from here ===\n",
        " crashed by signal: 11, si_code: 0\n",
        &format!("Killed by PID: {}, ", std::process::id()),
        "------ STACK TRACE ------\n",
        "Backtrace:\n",
        "------ STACK TRACE DONE ------\n",
        "\n------ INFO OUTPUT ------\n# Server\nredis_version:7.2.4\n",
        "------ CLIENT LIST OUTPUT ------\nid=",
        "=== REDIS BUG REPORT END. Make sure to include from START to END. ===\n",
    ] {
        let at = log[from..]
            .find(part)
            .unwrap_or_else(|| panic!("no {part:?} in its place:\n{log}"));
        from += at;
    }
}

#[test]
fn a_crash_report_names_the_command_in_flight() {
    let dir = Dir::new("crash-command");
    let mut server = Server::start(&dir, &["--enable-debug-command", "yes"]);
    let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    client.write_all(b"DEBUG SEGFAULT\r\n").unwrap();
    assert_eq!(server.child.wait().unwrap().signal(), Some(libc::SIGSEGV));
    let log = server.log();
    for part in [
        " crashed by signal: 11, ",
        "------ CURRENT CLIENT INFO ------\nid=",
        "\nargv[0]: '\"DEBUG\"'\nargv[1]: 8 bytes\n",
    ] {
        assert!(log.contains(part), "no {part:?}:\n{log}");
    }
}

/// DEBUG RESTART and CRASH-AND-RECOVER keep the process id and the arguments; the data set is that
/// of the RDB file, which RESTART writes and CRASH-AND-RECOVER does not.
#[test]
fn debug_restarts_the_server() {
    let dir = Dir::new("restart");
    let args = ["--enable-debug-command", "yes", "--save", "3600 1"];
    let mut server = Server::start(&dir, &args);
    for (command, saved) in [("RESTART", "a"), ("CRASH-AND-RECOVER 1", "b")] {
        server.ask(&format!("SET {saved} 1"), "\r\n");
        let before = server.ask("INFO server", "\r\n\r\n");
        fs::write(&server.log, "").unwrap();
        // The restart closes the connection without a reply.
        assert_eq!(server.ask(&format!("DEBUG {command}"), "\r\n"), "");
        server.wait_for("Ready to accept connections");
        let after = server.ask("INFO server", "\r\n\r\n");
        let run_id = |info: &str| info.split_once("run_id:").unwrap().1[..40].to_string();
        assert_ne!(run_id(&before), run_id(&after), "{command}");
        let pid = format!("\r\nprocess_id:{}\r\n", server.child.id());
        assert!(after.contains(&pid), "{command}:\n{after}");
    }
    let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    assert_eq!(exchange(&mut client, "EXISTS a", "\r\n"), ":1\r\n");
    assert_eq!(exchange(&mut client, "EXISTS b", "\r\n"), ":0\r\n");
    let refused = "-ERR DEBUG RESTART isn't allowed for DENY BLOCKING client\r\n";
    exchange(&mut client, "MULTI", "\r\n");
    exchange(&mut client, "DEBUG RESTART", "\r\n");
    assert_eq!(
        exchange(&mut client, "EXEC", "client\r\n"),
        format!("*1\r\n{refused}")
    );
    client.write_all(b"DEBUG OOM\r\n").unwrap();
    assert_eq!(server.child.wait().unwrap().signal(), Some(libc::SIGABRT));
}

/// Settings of a server whose load takes `delay` microseconds for each key, and serves clients
/// after each `bytes` bytes.
fn slow_load<'a>(port: &'a str, delay: &'a str, bytes: &'a str) -> [&'a str; 6] {
    [
        "--port",
        port,
        "--key-load-delay",
        delay,
        "--loading-process-events-interval-bytes",
        bytes,
    ]
}

/// A server whose data set is in a snapshot and, with `appendonly` yes, in an AOF, and which is
/// started again with settings that make the load slow.
fn start_loading(dir: &Dir, appendonly: &str, more: &[&str]) -> Server {
    let debug = ["--enable-debug-command", "yes", "--appendonly", appendonly];
    let server = Server::start(dir, &debug);
    server.ask("DEBUG POPULATE 1000 key 1000", "OK\r\n");
    server.ask("SAVE", "OK\r\n");
    if appendonly == "yes" {
        server.ask("BGREWRITEAOF", "\r\n");
        let done = "aof_rewrite_in_progress:0\r\n";
        while !server
            .ask("INFO persistence", "aof_rewrites:1\r\n")
            .contains(done)
        {}
    }
    drop(server);
    fs::remove_file(dir.join("log")).unwrap();
    let port = free_port();
    let port_text = port.to_string();
    let slow = slow_load(&port_text, "20000", "1024");
    let mut server = Server::launch(dir, port, &[&slow, more, &debug].concat());
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            server.child.try_wait().unwrap().is_none(),
            "{}",
            server.log()
        );
    }
    let asked = server.ask("GET key:1", "\r\n");
    assert!(asked.starts_with("-LOADING"), "{asked}");
    server
}

#[test]
fn a_signal_while_loading_leaves_no_traces() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for appendonly in ["no", "yes"] {
            let dir = Dir::new(&format!("loading-{signal}-{appendonly}"));
            let (pidfile, socket) = (dir.join("pid"), dir.join("socket"));
            let files = [&pidfile, &socket].map(|path| path.to_str().unwrap());
            let more = ["--pidfile", files[0], "--unixsocket", files[1]];
            let mut server = start_loading(&dir, appendonly, &more);
            assert!(pidfile.exists() && socket.exists());
            server.signal(signal);
            assert_eq!(server.child.wait().unwrap().code(), Some(0));
            assert!(!pidfile.exists() && !socket.exists(), "{}", server.log());
        }
    }
}

/// Clients are served once during this load: a client that has connected before then gets its
/// reply.
#[test]
fn a_new_client_is_answered_the_first_time_a_load_serves_clients() {
    let dir = Dir::new("served-once");
    let plain = ["--rdbcompression", "no", "--enable-debug-command", "yes"];
    let server = Server::start(&dir, &plain);
    server.ask("DEBUG POPULATE 1000 key 1000", "OK\r\n");
    server.ask("SAVE", "OK\r\n");
    drop(server);
    let port = free_port();
    let port_text = port.to_string();
    let slow = slow_load(&port_text, "3000", "600000");
    let server = Server::launch(&dir, port, &slow);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {}
    let asked = server.ask("GET key:1", "\r\n");
    assert!(asked.starts_with("-LOADING"), "{asked}");
}

/// CONFIG SET appendonly during a load takes effect when the data set is loaded, as in Redis 8.
#[test]
fn the_aof_is_switched_while_loading() {
    for (before, after) in [("no", "yes"), ("yes", "no")] {
        let dir = Dir::new(&format!("appendonly-{after}"));
        let mut server = start_loading(&dir, before, &[]);
        let reply = server.ask(&format!("CONFIG SET appendonly {after}"), "\r\n");
        assert_eq!(reply, "+OK\r\n");
        assert!(server.ask("GET key:1", "\r\n").starts_with("-LOADING"));
        server.ask("CONFIG SET key-load-delay 0", "\r\n");
        server.wait_for("Ready to accept connections");
        let enabled = server.ask("INFO persistence", "aof_rewrite_in_progress");
        assert!(enabled.contains(&format!("aof_enabled:{}\r\n", u8::from(after == "yes"))));
        if after == "yes" {
            server.wait_for("Background AOF rewrite finished successfully");
        }
        assert_eq!(server.ask("DBSIZE", "\r\n"), ":1000\r\n");
    }
}

/// `--check-system` reads /proc and /sys below `--root`; one fault in these files decides the exit
/// status.
#[test]
fn check_system_prints_what_is_wrong_and_what_mends_it() {
    let dir = Dir::new("check-system");
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let check = |more: &[&str]| {
        let root = dir.0.to_str().unwrap();
        let args = ["--check-system", "--root", root, "--maxmemory", "1mb"];
        // The disk that is checked is the real one.
        let output = run(&[&args, more].concat(), "");
        let shown = text(&output.stdout);
        if !shown.starts_with('{') {
            let highest = match (shown.contains("...DANGER"), shown.contains("...WARNING")) {
                (true, _) => 2,
                (_, true) => 1,
                _ => 0,
            };
            assert_eq!(output.status.code(), Some(highest), "{shown}");
        }
        (output.status.code(), shown)
    };
    write("proc/sys/net/core/somaxconn", "128\n");
    write("proc/sys/vm/overcommit_memory", "1\n");
    let (_, shown) = check(&["--tcp-backlog", "100"]);
    assert!(shown.contains("[somaxconn]...OK: 128\n"), "{shown}");
    assert!(shown.contains("[overcommit]...OK: 1\n"), "{shown}");

    let (_, shown) = check(&[]);
    assert!(
        shown.contains("[somaxconn]...WARNING: 128; should be 511 or more"),
        "{shown}"
    );

    write("proc/sys/vm/overcommit_memory", "0\n");
    let (status, shown) = check(&["--json"]);
    assert_eq!(status, Some(2), "{shown}");
    let report: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(report["exit_status"], 2);
    let checks = report["checks"].as_array().unwrap();
    let overcommit = checks.iter().find(|row| row["name"] == "overcommit");
    let overcommit = overcommit.unwrap();
    assert_eq!(overcommit["state"], "danger");
    let mend = overcommit["mend"].as_str().unwrap();
    assert!(mend.contains("vm.overcommit_memory=1"), "{mend}");
    for (args, error) in [
        (&["--nonsense", "1"][..], "FATAL CONFIG"),
        (&["--pid"], "--pid needs"),
        (&["--pid", "999999999"], "--pid 999999999: no such process"),
        (&["--root", "/nonexistent"], "no such directory"),
    ] {
        let output = run(&[&["--check-system"], args].concat(), "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(error), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_server_and_its_children_run_on_the_processors_of_their_lists() {
    let dir = Dir::new("cpulist");
    let allowed = "Cpus_allowed_list";
    let all = proc_line(Path::new("/proc/self/status"), allowed).unwrap();
    let first = all.split([',', '-']).next().unwrap().to_string();
    let last = all.rsplit([',', '-']).next().unwrap().to_string();
    let lists = ["--server-cpulist", &first, "--bgsave-cpulist", &last];
    let slow = [
        "--rdb-key-save-delay",
        "100000000",
        "--enable-debug-command",
        "yes",
    ];
    let server = Server::start(&dir, &[&lists[..], &slow].concat());
    let process = PathBuf::from(format!("/proc/{}", server.child.id()));
    assert_eq!(
        proc_line(&process.join("status"), allowed),
        Some(first.clone())
    );
    assert_eq!(server.ask("SET k v", "\r\n"), "+OK\r\n");
    assert!(server.ask("BGSAVE", "\r\n").starts_with("+Background"));
    let children = process.join(format!("task/{}/children", server.child.id()));
    loop {
        let child = fs::read_to_string(&children).unwrap();
        let child = child.split_whitespace().next().unwrap_or("none");
        let status = PathBuf::from(format!("/proc/{child}/status"));
        if proc_line(&status, allowed).as_ref() == Some(&last) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn huge_pages_are_off_and_memory_is_locked_on_request() {
    let dir = Dir::new("memory");
    let status = |server: &Server, name| {
        let status = format!("/proc/{}/status", server.child.id());
        proc_line(Path::new(&status), name)
    };
    let server = Server::start(&dir, &[]);
    if let Some(enabled) = status(&server, "THP_enabled") {
        assert_eq!(enabled, "0");
    }
    assert_eq!(status(&server, "VmLck").unwrap(), "0 kB");
    drop(server);
    let _ = fs::remove_file(dir.join("log"));
    let server = Server::start(&dir, &["--lock-memory", "yes", "--disable-thp", "no"]);
    if let Some(enabled) = status(&server, "THP_enabled") {
        assert_eq!(enabled, "1");
    }
    // Without the privilege to lock memory the server starts all the same, and the log says so.
    let refused = server.log().contains("Can't lock memory");
    assert_eq!(status(&server, "VmLck").unwrap() == "0 kB", refused);
}
