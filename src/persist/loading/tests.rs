use super::*;
use crate::config::Enable;
use crate::networking::accept;
use crate::persist::child::Meter;
use crate::persist::rdb::save::{SaveOptions, write_data_set};
use crate::server::init::event_loop;
use crate::testing::{say, server_with};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

#[test]
fn a_load_aside_leaves_the_old_data_set_to_clients() {
    let mut server = server_with(1);
    say(&mut server, 0, &["set k v"]);
    server.loading = Loading::Aside;
    assert_eq!(say(&mut server, 0, &["get k"]), "$1\r\nv\r\n");
    let info = say(&mut server, 0, &["info persistence"]);
    assert!(info.contains("\r\nloading:0\r\nasync_loading:1\r\n"));
    assert!(info.contains("\r\nloading_loaded_bytes:"));
    for line in ["bgsave", "bgrewriteaof", "save"] {
        let reply = say(&mut server, 0, &[line]);
        assert!(reply.starts_with("-LOADING"), "{line}: {reply}");
    }
    let reply = say(&mut server, 0, &["multi", "get k", "bgsave", "exec"]);
    assert!(reply.contains("-LOADING"), "{reply}");
}

/// Loads a snapshot of `keys` keys into a second data set while a client sends `commands`. Returns
/// the number of accepted connections, and the first words of the replies that were sent before the
/// end of the load.
fn served_during_load(keys: usize, interval: u32, commands: &str) -> (u64, Vec<String>) {
    let name = format!("aeris-aside-{}-{keys}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut from = server_with(1);
    let value = "x".repeat(100);
    (0..keys).for_each(|n| _ = say(&mut from, 0, &[&format!("set key:{n} {value}")]));
    let mut file = Vec::new();
    let options = SaveOptions::of(&from);
    write_data_set(&from, &mut file, &options, Meter::default()).expect("memory");

    let mut server = server_with(1);
    server.config.port = 0;
    server.config.unixsocket = path.to_str().expect("a path of text").into();
    server.config.loading_process_events_interval_bytes = interval;
    say(&mut server, 0, &["set k old"]);
    accept::listen(&mut server, Default::default()).expect("a socket");
    let mut el = event_loop(&mut server).expect("a loop");
    let mut client = UnixStream::connect(&path).expect("connected");
    std::fs::remove_file(&path).expect("the socket's file");
    client.write_all(commands.as_bytes()).expect("room");

    let mut data = server.new_data_set();
    let mut live = Live {
        server: &mut server,
        el: Some(&mut el),
    };
    live.begin_aside(file.len() as u64);
    let mut source = &file[..];
    let mut reader = Reader::new(&mut source, None);
    let place = Place::Aside(&mut data);
    let loaded = load_stream(&mut live, &mut reader, place, LoadOptions::default());
    live.end();
    assert_eq!(loaded.expect("whole").counts.loaded, keys as u64);
    assert_eq!((server.data.len(), data.len()), (1, keys));
    let mut replies = [0; 1000];
    client.set_nonblocking(true).expect("a flag");
    let n = client.read(&mut replies).unwrap_or(0);
    let replies = String::from_utf8_lossy(&replies[..n]);
    let word = |line: &str| line.split(' ').next().unwrap_or("").to_string();
    let accepted = server.stats.connections_received;
    (accepted, replies.lines().map(word).collect())
}

#[test]
fn clients_are_served_while_another_data_set_is_loaded() {
    let commands = "get k\r\nflushall\r\nbgsave\r\n";
    let (accepted, words) = served_during_load(1000, 1024, commands);
    assert_eq!(accepted, 1);
    assert_eq!(words, ["$3", "old", "-BUSY", "-LOADING"]);
}

#[test]
fn a_small_load_is_over_before_clients_are_served() {
    assert_eq!(served_during_load(10, 2 << 20, "get k\r\n"), (0, vec![]));
}

/// EXEC of a transaction that began before a load gets -LOADING during the load, unless its
/// commands need no data.
#[test]
fn a_transaction_sees_no_half_of_a_data_set() {
    let mut server = server_with(1);
    say(&mut server, 0, &["set k v", "multi", "echo a", "get k"]);
    server.loading = Loading::InPlace;
    let reply = say(&mut server, 0, &["exec"]);
    assert!(reply.contains("LOADING"), "{reply}");
    server.loading = Loading::No;
    say(&mut server, 0, &["multi", "echo a"]);
    server.loading = Loading::InPlace;
    assert_eq!(say(&mut server, 0, &["exec"]), "*1\r\n$1\r\na\r\n");
}

#[test]
fn what_takes_the_data_set_away_is_refused_in_a_nested_turn() {
    let mut server = server_with(1);
    say(&mut server, 0, &["set k v"]);
    for line in [
        "flushall",
        "flushdb",
        "swapdb 0 1",
        "function flush",
        "debug reload nosave",
    ] {
        server.config.enable_debug_command = Enable::Yes;
        let reply = server.nested_turn(|server| say(server, 0, &[line]));
        assert!(reply.starts_with("-BUSY"), "{line}: {reply}");
    }
    assert_eq!(server.data.len(), 1);
    assert_eq!(say(&mut server, 0, &["flushall"]), "+OK\r\n");
}
