//! The stock configuration files of Redis and Valkey: aeris starts with them, and the files that
//! its CONFIG REWRITE writes start Redis and Valkey again.
//!
//! `tests/facts/stock` has the lines of these files without comments, and without paths and ports
//! (`dir`, `port`).

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Conn, Peer};

/// A configuration file that Redis or Valkey is shipped with: its name, its lines, and a function
/// that starts a server of that version.
type Stock = (&'static str, &'static str, fn(&[&str]) -> Option<Peer>);

const FILES: [Stock; 5] = [
    (
        "redis-7.0",
        include_str!("facts/stock/redis-7.0.txt"),
        Peer::redis,
    ),
    (
        "redis-8.0",
        include_str!("facts/stock/redis-8.0.txt"),
        Peer::redis8,
    ),
    (
        "valkey-8.0",
        include_str!("facts/stock/valkey-8.0.txt"),
        Peer::valkey,
    ),
    (
        "valkey-8.1",
        include_str!("facts/stock/valkey-8.1.txt"),
        Peer::valkey9,
    ),
    (
        "valkey-9.1",
        include_str!("facts/stock/valkey-9.1.txt"),
        Peer::valkey9,
    ),
];

/// A directory for the files of a server, which is removed when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("aeris-stock-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Settings that all servers have, one or more of each form: number, memory, choice, list, text.
const CHANGES: [(&str, &str); 8] = [
    ("maxmemory", "104857600"),
    ("maxmemory-policy", "allkeys-lru"),
    ("appendfsync", "always"),
    ("save", "900 1 300 10"),
    (
        "client-output-buffer-limit",
        "normal 0 0 0 replica 512mb 128mb 60 pubsub 32mb 8mb 60",
    ),
    ("notify-keyspace-events", "KEA"),
    ("hash-max-listpack-entries", "77"),
    ("timeout", "1234"),
];

/// The text of a configuration file without paths and ports, which a rewrite adds for the arguments
/// of the test.
fn without_places(text: &str) -> String {
    let places = ["dir ", "port ", "bind ", "pidfile ", "logfile "];
    let lines = text
        .lines()
        .filter(|line| !places.iter().any(|place| line.starts_with(place)));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Starts aeris with the file, changes settings by CONFIG SET, and rewrites the file.
fn rewrite(dir: &Dir, path: &str) {
    let port = common::free_port();
    let mut server = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
        .args([path, "--port", &port.to_string(), "--bind", "127.0.0.1"])
        .current_dir(&dir.0)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut c = loop {
        if let Some(c) = Conn::try_new(port, Duration::from_secs(60)) {
            break c;
        }
        let ended = server.try_wait().expect("a child");
        assert!(ended.is_none(), "{path}: {ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for (setting, value) in CHANGES {
        let reply = c.cmd(&["CONFIG", "SET", setting, value]);
        assert_eq!(reply, b"+OK\r\n", "{path}: {setting}");
    }
    assert_eq!(c.line("CONFIG REWRITE"), "+OK\r\n", "{path}");
    c.send(b"SHUTDOWN NOSAVE\r\n");
    assert!(server.wait().expect("a child").success());
}

#[test]
fn a_rewritten_stock_file_is_loaded_by_the_peer_that_it_came_from() {
    for (name, text, peer) in FILES {
        let dir = Dir::new(name);
        let file = dir.0.join("stock.conf");
        std::fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("UTF-8");
        rewrite(&dir, path);
        let rewritten = std::fs::read_to_string(Path::new(path)).expect("the file");
        assert!(
            rewritten.contains("maxmemory-policy allkeys-lru"),
            "{name}: {rewritten}"
        );
        std::fs::write(&file, without_places(&rewritten)).expect("a file");
        let Some(again) = peer(&["--include", path]) else {
            eprintln!("{name}: its server is not installed, so its file is not loaded");
            continue;
        };
        let mut c = again.connect();
        for (setting, value) in [CHANGES[0], CHANGES[1], CHANGES[2], CHANGES[6], CHANGES[7]] {
            let shown = c.line(&format!("CONFIG GET {setting}"));
            assert!(
                shown.contains(&format!("\r\n{value}\r\n")),
                "{name}: {shown}"
            );
        }
    }
}
