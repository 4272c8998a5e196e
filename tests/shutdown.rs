//! SHUTDOWN and SIGTERM wait until the replicas have all writes.

mod common;

use common::group::{Group, Stopped};
use common::{Conn, Peer, multibulk};

const LOG: &[&str] = &["--logfile", "log"];

/// A primary with one replica that has stopped before it got the last write.
fn lagging(settings: &[&str]) -> (Group, Stopped) {
    let group = Group::with(1, settings);
    let stopped = Stopped::new(&group.replicas[0]);
    assert_eq!(group.primary.connect().line("SET k 1"), "+OK\r\n");
    (group, stopped)
}

/// Sends SHUTDOWN on a new connection, which then waits for the reply.
fn shutdown(server: &Peer, options: &[&str]) -> Conn {
    let mut c = server.connect();
    let argv = [&["SHUTDOWN"], options].concat();
    c.send(&multibulk(&argv));
    c
}

fn wait_for(server: &Peer, section: &str, wanted: &str) {
    let mut asks = server.connect();
    for _ in 0..3000 {
        if asks.line(&format!("INFO {section}")).contains(wanted) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{wanted} does not come");
}

fn log(server: &Peer) -> String {
    std::fs::read_to_string(server.dir().join("log")).expect("the log")
}

#[test]
fn it_waits_for_a_replica_to_catch_up() {
    let (mut group, stopped) = lagging(&[LOG, &["--shutdown-timeout", "1000"]].concat());
    let _asks = shutdown(&group.primary, &[]);
    wait_for(&group.primary, "server", "shutdown_in_milliseconds:");
    assert!(group.primary.alive());
    drop(stopped);
    assert_eq!(group.primary.wait(), Some(0));
    let log = log(&group.primary);
    assert!(
        log.contains("1 of 1 replicas are in sync when shutting down."),
        "{log}"
    );
    assert_eq!(group.replicas[0].connect().line("GET k"), "$1\r\n1\r\n");
}

#[test]
fn sigterm_waits_no_longer_than_shutdown_timeout() {
    let (mut group, _stopped) = lagging(&[LOG, &["--shutdown-timeout", "1"]].concat());
    let pid = nix::unistd::Pid::from_raw(group.primary.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("a signal");
    assert_eq!(group.primary.wait(), Some(0));
    let log = log(&group.primary);
    let name = format!(
        "Lagging replica 127.0.0.1:{} reported offset",
        group.replicas[0].port
    );
    for line in [
        "Waiting for replicas before shutting down.",
        &name,
        "0 of 1 replicas are in sync when shutting down.",
    ] {
        assert!(log.contains(line), "{line}:\n{log}");
    }
}

#[test]
fn now_does_not_wait() {
    let settings = ["--shutdown-timeout", "100000"];
    let (mut group, _stopped) = lagging(&settings);
    let _asks = shutdown(&group.primary, &["NOW"]);
    assert_eq!(group.primary.wait(), Some(0));
    // With a timeout of 0, SHUTDOWN does not wait, either.
    let (mut group, _stopped) = lagging(&["--shutdown-timeout", "0"]);
    let _asks = shutdown(&group.primary, &[]);
    assert_eq!(group.primary.wait(), Some(0));
}

/// While SHUTDOWN waits for a replica, writes wait and reads do not. After SHUTDOWN ABORT all
/// callers of SHUTDOWN get the same reply, and the writes go on.
#[test]
fn abort_ends_the_wait() {
    let (group, _stopped) = lagging(&["--shutdown-timeout", "100000"]);
    let mut callers = [
        shutdown(&group.primary, &[]),
        shutdown(&group.primary, &["NOSAVE"]),
        shutdown(&group.primary, &["FORCE"]),
    ];
    wait_for(&group.primary, "clients", "blocked_clients:3");
    wait_for(
        &group.primary,
        "clients",
        "paused_reason:shutdown_in_progress",
    );
    let mut writer = group.primary.connect();
    writer.send(&multibulk(&["INCR", "k"]));
    wait_for(&group.primary, "clients", "blocked_clients:4");
    let mut asks = group.primary.connect();
    assert_eq!(asks.line("GET k"), "$1\r\n1\r\n");
    assert_eq!(asks.line("SHUTDOWN ABORT"), "+OK\r\n");
    for caller in &mut callers {
        let error = b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n";
        assert_eq!(caller.reply(), error);
    }
    assert_eq!(writer.reply(), b":2\r\n");
    assert_eq!(
        asks.line("SHUTDOWN ABORT"),
        "-ERR No shutdown in progress.\r\n"
    );
}

/// A busy script has run a part of its writes: only SHUTDOWN NOSAVE may end it.
#[test]
fn a_busy_script_is_not_saved() {
    let mut server = Peer::aeris(&["--busy-reply-threshold", "1"]);
    let mut script = server.connect();
    script.send(&multibulk(&[
        "EVAL",
        "redis.call('set', 'k', 1) while true do end",
        "0",
    ]));
    let mut asks = server.connect();
    while !asks.line("PING").starts_with("-BUSY ") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for options in ["", " SAVE", " NOW", " FORCE", " SAVE NOW FORCE"] {
        let reply = asks.line(&format!("SHUTDOWN{options}"));
        assert!(
            reply.starts_with("-BUSY Redis is busy running a script. "),
            "{options}: {reply}"
        );
    }
    assert!(server.alive());
    asks.send(&multibulk(&["SHUTDOWN", "NOSAVE"]));
    assert_eq!(server.wait(), Some(0));
}
