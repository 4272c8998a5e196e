//! How clients get in: users of the operating system on the unix socket, connections beyond
//! `maxclients` for the administrator, the password of a first start, failed logins in the log.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Conn, Peer};

/// A directory whose paths are short enough for unix sockets; it is removed when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("aeris-adm-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn connect(path: &str) -> UnixStream {
    let socket = UnixStream::connect(path).expect("a socket");
    let limit = Some(Duration::from_secs(60));
    socket.set_read_timeout(limit).expect("a timeout");
    socket
}

/// Sends a request whose reply is one line. Returns the reply.
fn line(socket: &mut UnixStream, request: &str) -> String {
    let _ = socket.write_all(format!("{request}\r\n").as_bytes());
    let mut reply = Vec::new();
    let mut byte = [0];
    while !reply.ends_with(b"\r\n") && socket.read(&mut byte).is_ok_and(|n| n == 1) {
        reply.push(byte[0]);
    }
    String::from_utf8(reply).expect("text")
}

fn whoami(socket: &mut UnixStream) -> String {
    match line(socket, "ACL WHOAMI").as_str() {
        error if error.starts_with('-') => error.to_string(),
        _ => line(socket, "").trim().to_string(),
    }
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

#[test]
fn a_user_of_the_system_is_an_acl_user_on_the_unix_socket() {
    let dir = Dir::new("peer");
    let socket = dir.path("s");
    let users = format!("{}=other {}=local", uid() + 1, uid());
    let server = Peer::aeris(&[
        "--unixsocket",
        &socket,
        "--requirepass",
        "secret",
        "--unixsocket-users",
        &users,
    ]);
    let mut c = server.connect();
    assert_eq!(c.line("AUTH secret"), "+OK\r\n");
    // If the ACL user that `unixsocket-users` names does not exist, the client has to authenticate,
    // and the refusal is counted.
    assert!(line(&mut connect(&socket), "PING").starts_with("-NOAUTH"));
    assert!(
        c.line("INFO stats")
            .contains("acl_access_denied_auth:1\r\n")
    );
    assert_eq!(
        c.line("ACL SETUSER local on nopass +ping +acl|whoami"),
        "+OK\r\n"
    );
    let mut local = connect(&socket);
    assert_eq!(line(&mut local, "PING"), "+PONG\r\n");
    assert_eq!(whoami(&mut local), "local");
    assert!(line(&mut local, "GET k").starts_with("-NOPERM"));
    assert_eq!(c.line("ACL SETUSER local off"), "+OK\r\n");
    assert!(line(&mut connect(&socket), "PING").starts_with("-NOAUTH"));
    // `unixsocket-users` takes a user of the system by name, too, if the system has a name for it.
    if let Some(user) = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
    {
        let set = format!("CONFIG SET unixsocket-users {}=default", user.name);
        assert_eq!(c.line(&set), "+OK\r\n");
        assert_eq!(whoami(&mut connect(&socket)), "default");
    }
    assert!(
        c.line("CONFIG SET unixsocket-users nonsense")
            .starts_with("-ERR CONFIG SET failed")
    );
    // Clients over TCP have no user of the operating system, so they have to authenticate.
    assert!(server.connect().line("PING").starts_with("-NOAUTH"));
}

#[test]
fn the_administrator_gets_in_when_the_server_is_full() {
    let dir = Dir::new("admin");
    let (socket, admin) = (dir.path("s"), dir.path("a"));
    let server = Peer::aeris(&[
        "--unixsocket",
        &socket,
        "--admin-unixsocket",
        &admin,
        "--maxclients",
        "5",
    ]);
    let mode = std::fs::metadata(&admin)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut clients: Vec<Conn> = Vec::new();
    // The connection by which the test waited for the start may still be open for a moment.
    while clients.len() < 5 {
        let mut next = server.connect();
        next.try_send(b"PING\r\n");
        if next.try_reply() == Some(b"+PONG\r\n".to_vec()) {
            clients.push(next);
        }
    }
    assert_eq!(
        line(&mut connect(&socket), ""),
        "-ERR max number of clients reached\r\n"
    );
    let mut admins: Vec<UnixStream> = (0..8).map(|_| connect(&admin)).collect();
    for one in &mut admins {
        assert_eq!(line(one, "PING"), "+PONG\r\n");
    }
    assert_eq!(
        line(&mut connect(&admin), ""),
        "-ERR max number of clients reached\r\n"
    );
    // Fewer clients are allowed than are connected, but one of the administrator has left.
    assert_eq!(line(&mut admins[0], "CONFIG SET maxclients 2"), "+OK\r\n");
    drop(admins.pop());
    let mut again = connect(&admin);
    while line(&mut again, "PING") != "+PONG\r\n" {
        again = connect(&admin);
    }
    admins.push(again);
    assert_eq!(
        line(&mut admins[0], "CLIENT KILL TYPE normal SKIPME yes"),
        ":12\r\n"
    );
    let mut next = connect(&socket);
    assert_eq!(line(&mut next, "PING"), "+PONG\r\n");
    let mut server = server;
    let _ = admins[0].write_all(b"SHUTDOWN NOSAVE\r\n");
    server.wait();
    assert!(!Path::new(&admin).exists() && !Path::new(&socket).exists());
}

#[test]
fn failed_logins_are_in_the_log_once_a_second() {
    let dir = Dir::new("audit");
    let log = dir.path("log");
    let server = Peer::aeris(&["--requirepass", "secret", "--logfile", &log]);
    let mut c = server.connect();
    let long = "x".repeat(200);
    for _ in 0..100 {
        assert!(
            c.line(&format!("AUTH {long} wrong"))
                .starts_with("-WRONGPASS")
        );
    }
    let lines = || {
        let text = std::fs::read_to_string(&log).expect("a log");
        let all = text.lines().filter(|line| line.contains("Failed login as"));
        all.map(String::from).collect::<Vec<_>>()
    };
    let first = lines();
    assert!((1..100).contains(&first.len()), "{first:?}");
    assert!(first[0].contains("from 127.0.0.1:"), "{first:?}");
    assert!(first[0].contains(&"x".repeat(64)) && !first[0].contains(&"x".repeat(65)));
    while !lines()
        .iter()
        .any(|line| line.contains(" more since the last such line"))
    {
        assert!(c.line("AUTH wrong").starts_with("-WRONGPASS"));
    }
}

/// Before it has logged in, a client can't make the server hold much for it: neither a long request
/// nor unread replies.
#[test]
fn a_client_that_has_not_logged_in_is_limited() {
    let server = Peer::aeris(&["--requirepass", "secret"]);
    for (request, reply) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*1\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut stranger = server.connect();
        stranger.send(request.as_bytes());
        let expected = format!("-ERR Protocol error: {reply}\r\n");
        assert_eq!(stranger.reply(), expected.as_bytes());
        assert!(stranger.closed());
    }
    let mut known = server.connect();
    assert_eq!(known.line("AUTH secret"), "+OK\r\n");
    assert_eq!(known.line("SADD s 1 2 3 4 5 6 7 8 9"), ":9\r\n");
    assert_eq!(known.cmd(&["SET", "k", &*"x".repeat(20_000)]), b"+OK\r\n");

    let mut stranger = server.connect();
    let pings = "PING\r\n".repeat(10_000);
    while !known
        .line("INFO stats")
        .contains("client_output_buffer_limit_disconnections:1\r\n")
    {
        stranger.try_send(pings.as_bytes());
    }
    assert_eq!(known.line("PING"), "+PONG\r\n");
}

#[test]
fn a_first_start_gets_a_password_that_only_its_user_can_read() {
    let dir = Dir::new("first");
    let users = dir.path("users.acl");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
            .args(args)
            .output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_string()
    };
    run(&["--init-acl", &users]);
    let beside = format!("{users}.password");
    for file in [&users, &beside] {
        let mode = std::fs::metadata(file)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let password = std::fs::read_to_string(&beside)
        .expect("text")
        .trim()
        .to_string();
    assert_eq!(password.len(), 64);
    run(&["--init-acl", &users]);
    assert_eq!(
        std::fs::read_to_string(&beside).expect("text").trim(),
        password
    );

    let server = Peer::aeris(&["--aclfile", &users]);
    let mut c = server.connect();
    assert!(c.line("PING").starts_with("-NOAUTH"));
    assert_eq!(c.line(&format!("AUTH {password}")), "+OK\r\n");
    assert_eq!(c.line("SET k v"), "+OK\r\n");

    let (one, two) = (run(&["--gen-password"]), run(&["--gen-password"]));
    assert_eq!(one.len(), 64);
    assert_ne!(one, two);
}
