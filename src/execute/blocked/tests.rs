use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::execute::blocked::*;
use crate::sys::lazyfree::Garbage;
use crate::testing::{self, heard, server_with};

const CLIENTS: u32 = 6;

/// A server with several clients, of which the last one never blocks.
fn server() -> Server {
    server_with(CLIENTS + 1)
}

/// Sends the command `line` as the client in `slot`, and returns the reply.
fn say(server: &mut Server, slot: u32, line: &str) -> String {
    testing::say(server, slot, &[line])
}

/// Checks that the tables of blocked clients have exactly those clients that are flagged BLOCKED.
fn check(server: &Server) {
    let blocked = |c: &&Client| c.blocked.is_some();
    let mut standing = BTreeSet::new();
    let mut timeouts = BTreeSet::new();
    for c in server.net.clients.iter() {
        assert_eq!(c.has(flag::BLOCKED), c.blocked.is_some());
    }
    for c in server.net.clients.iter().filter(blocked) {
        let b = c.blocked.as_ref().unwrap();
        standing.extend(
            b.keys
                .iter()
                .map(|key| (c.db, key.clone(), b.ticket, c.slot)),
        );
        if b.deadline_ms > 0 {
            timeouts.insert((b.deadline_ms, c.reference()));
        }
    }
    let mut found = BTreeSet::new();
    for (db, clients) in (0..).zip(&server.key_clients) {
        for (key, waiting) in clients.blocking.iter() {
            assert!(waiting.iter().next().is_some() && waiting.on_nokey == 0);
            found.extend(
                waiting
                    .iter()
                    .map(|&(t, r)| (db, Box::<[u8]>::from(key), t, r.slot)),
            );
        }
    }
    assert_eq!(found, standing);
    assert_eq!(server.blocked.timeouts, timeouts);
    assert_eq!(
        server.blocked.count,
        server.net.clients.iter().filter(blocked).count()
    );
    assert!(server.blocked.ready_keys.is_empty() && server.blocked.ready_set.is_empty());
}

#[test]
fn served_in_order_of_arrival_and_no_more_than_there_is() {
    let mut server = server();
    for slot in 0..4 {
        assert_eq!(say(&mut server, slot, "BLPOP a b a 0"), "");
    }
    assert_eq!(say(&mut server, CLIENTS, "RPUSH b 1 2"), ":2\r\n");
    assert_eq!(heard(&mut server, 0), "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    assert_eq!(heard(&mut server, 1), "*2\r\n$1\r\nb\r\n$1\r\n2\r\n");
    assert_eq!(heard(&mut server, 2), "");
    check(&server);
    assert_eq!(server.blocked.count, 2);
}

#[test]
fn a_served_move_serves_the_next() {
    let mut server = server();
    say(&mut server, 0, "BLMOVE c d LEFT LEFT 0");
    say(&mut server, 1, "BLMOVE b c LEFT LEFT 0");
    say(&mut server, 2, "BLMOVE a b LEFT LEFT 0");
    say(&mut server, CLIENTS, "RPUSH a x");
    for slot in 0..3 {
        assert_eq!(heard(&mut server, slot), "$1\r\nx\r\n");
    }
    assert_eq!(say(&mut server, CLIENTS, "LLEN d"), ":1\r\n");
    check(&server);
}

#[test]
fn a_client_that_waits_on_keeps_place_and_deadline() {
    let mut server = server();
    say(&mut server, 0, "BLPOP a 5");
    say(&mut server, 1, "BLPOP a 5");
    let mut c = server.net.clients.take(0).unwrap();
    let before = c.blocked.as_ref().map(|b| (b.ticket, b.deadline_ms));
    server.clock.now_ms += 1000;
    reexecute(&mut server, &mut c);
    assert_eq!(
        c.blocked.as_ref().map(|b| (b.ticket, b.deadline_ms)),
        before
    );
    server.net.clients.put(c);
    say(&mut server, CLIENTS, "RPUSH a x");
    assert_eq!(heard(&mut server, 0), "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    // The test sets the clock by the client's deadline: on a slow machine the clock may have moved
    // on since the client blocked.
    let deadline = server.blocked.timeouts.first().expect("a client waits").0;
    server.clock.now_ms = deadline + 1;
    handle_timeouts(&mut server);
    assert_eq!(heard(&mut server, 1), "*-1\r\n");
    check(&server);
}

/// As in Redis 8.2, an expired key is deleted by the next command that looks it up, not by a client
/// that waits for it.
#[test]
fn an_expired_key_wakes_no_client_and_stays() {
    let mut server = server();
    say(&mut server, 0, "BLPOP a 0");
    say(&mut server, CLIENTS, "SELECT 1");
    say(&mut server, CLIENTS, "RPUSH a x");
    say(&mut server, CLIENTS, "PEXPIRE a 10");
    server.clock.now_ms += 11;
    assert_eq!(say(&mut server, CLIENTS, "SWAPDB 0 1"), "+OK\r\n");
    assert_eq!(heard(&mut server, 0), "");
    assert_eq!(server.data.dbs[0].keys.len(), 1);
    check(&server);
}

#[test]
fn no_client_is_woken_within_a_transaction() {
    let mut server = server();
    say(&mut server, 0, "BLPOP a 0");
    for line in ["MULTI", "RPUSH a 1", "DEL a", "SET a x", "EXEC"] {
        say(&mut server, CLIENTS, line);
    }
    assert_eq!(heard(&mut server, 0), "");
    for line in ["MULTI", "DEL a", "RPUSH a 1", "LPUSH a 2", "EXEC"] {
        say(&mut server, CLIENTS, line);
    }
    assert_eq!(heard(&mut server, 0), "*2\r\n$1\r\na\r\n$1\r\n2\r\n");
    check(&server);
}

/// Garbage that occupies the thread that frees memory until the channel's sender is dropped.
struct Held(std::sync::mpsc::Receiver<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

fn occupy(server: &Server) -> std::sync::mpsc::Sender<()> {
    let (hold, held) = std::sync::mpsc::channel();
    server.lazyfree.free(Garbage {
        content: Box::new(Held(held)),
        objects: 0,
        bytes: 0,
    });
    hold
}

fn fill(server: &mut Server, keys: u32) {
    let lines: Vec<String> = (0..keys).map(|n| format!("SET k{n} v EX 100")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    testing::say(server, CLIENTS, &lines);
}

fn serve_freed(server: &mut Server) {
    while server.lazyfree.pending() > 0 || !server.blocked.waiting_acks.is_empty() {
        serve_acks(server);
        std::thread::yield_now();
    }
}

#[test]
fn the_client_of_flushall_waits_for_the_thread_that_frees_and_others_go_on() {
    let mut server = server();
    let hold = occupy(&server);
    fill(&mut server, 5000);
    assert_eq!(say(&mut server, 0, "FLUSHALL SYNC"), "");
    assert_eq!(say(&mut server, CLIENTS, "DBSIZE"), ":0\r\n");
    assert_eq!(say(&mut server, CLIENTS, "SET new v"), "+OK\r\n");
    serve_acks(&mut server);
    assert_eq!(heard(&mut server, 0), "");
    assert_eq!(server.lazyfree.pending(), 5000);
    drop(hold);
    serve_freed(&mut server);
    assert_eq!(heard(&mut server, 0), "+OK\r\n");
    check(&server);
    // FLUSHALL SYNC frees a small number of keys at once, without the background thread.
    let _hold = occupy(&server);
    assert_eq!(say(&mut server, 0, "FLUSHALL SYNC"), "+OK\r\n");
    assert_eq!(
        (server.lazyfree.pending(), server.lazyfree.freed()),
        (0, 5000)
    );
}

#[test]
fn flushall_does_not_wait_in_a_transaction_nor_after_a_change_of_role() {
    let mut server = server();
    let hold = occupy(&server);
    fill(&mut server, 5000);
    let replies = testing::say(&mut server, 0, &["MULTI", "FLUSHALL SYNC", "EXEC"]);
    assert!(replies.ends_with("*1\r\n+OK\r\n"), "{replies}");
    fill(&mut server, 5000);
    assert_eq!(say(&mut server, 1, "FLUSHALL ASYNC"), "+OK\r\n");
    fill(&mut server, 5000);
    assert_eq!(say(&mut server, 0, "FLUSHDB"), "");
    let r = server.net.clients.get(0).expect("a client").reference();
    assert!(!unblock_by_request(&mut server, r, false));
    disconnect_all(&mut server);
    assert_eq!(heard(&mut server, 0), "+OK\r\n");
    drop(hold);
    serve_freed(&mut server);
    assert_eq!(heard(&mut server, 0), "");
    check(&server);
}

#[test]
fn timeouts_are_read_as_redis_reads_them() {
    let server = server();
    let read = |text: &[u8]| deadline_from_seconds(&server, text);
    assert_eq!(read(b"0"), Ok(0));
    assert_eq!(read(b"0.0001"), Ok(1001));
    assert_eq!(read(b"1.5"), Ok(2500));
    assert_eq!(read(b"-0.001"), Err(Error::TIMEOUT_NEGATIVE));
    assert_eq!(read(b"-inf"), Err(Error::TIMEOUT_NEGATIVE));
    assert_eq!(read(b"nan"), Err(Error::TIMEOUT_NOT_FLOAT));
    assert_eq!(read(b"inf"), Err(Error::TIMEOUT_RANGE));
    assert_eq!(read(b"1e400"), Err(Error::TIMEOUT_RANGE));
    assert_eq!(read(b"-1e400"), Err(Error::TIMEOUT_NEGATIVE));
    assert_eq!(read(b"1e-400"), Ok(1001));
    assert_eq!(read(b"1e5000"), Err(Error::TIMEOUT_NOT_FLOAT));
    assert_eq!(read(b"9223372036854775"), Err(Error::TIMEOUT_RANGE));
    assert_eq!(deadline_from_ms(&server, b"7"), Ok(1007));
    assert_eq!(
        deadline_from_ms(&server, b"9223372036854775807"),
        Err(Error::TIMEOUT_RANGE)
    );
    assert_eq!(
        deadline_from_ms(&server, b"1.5"),
        Err(Error::TIMEOUT_NOT_INTEGER)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Say(u32, &'static str),
    Push(&'static str),
    Pass(i64),
    Unblock(u32, bool),
    Leave(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let waits = prop::sample::select(vec![
        "BLPOP a 0",
        "BRPOP a b 0.02",
        "BLMOVE a b LEFT RIGHT 0.05",
        "BLMOVE b a LEFT RIGHT 0",
        "BLMPOP 0.03 3 a b c RIGHT COUNT 2",
    ]);
    let pushes = prop::sample::select(vec![
        "RPUSH a 1",
        "LPUSH b 1 2",
        "RPUSH c 3",
        "DEL a b c",
        "SET b x",
    ]);
    prop_oneof![
        6 => (0..CLIENTS, waits).prop_map(|(slot, line)| Step::Say(slot, line)),
        3 => pushes.prop_map(Step::Push),
        1 => (1i64..30).prop_map(Step::Pass),
        1 => (0..CLIENTS, any::<bool>()).prop_map(|(slot, error)| Step::Unblock(slot, error)),
        1 => (0..CLIENTS).prop_map(Step::Leave),
    ]
}

fn run(server: &mut Server, step: Step) {
    match step {
        Step::Say(slot, line) => {
            if !server.net.clients.get(slot).unwrap().has(flag::BLOCKED) {
                say(server, slot, line);
            }
        }
        Step::Push(line) => drop(say(server, CLIENTS, line)),
        Step::Pass(ms) => {
            server.clock.now_ms += ms;
            handle_timeouts(server);
        }
        Step::Unblock(slot, error) => {
            let r = server.net.clients.get(slot).unwrap().reference();
            let waits = server.net.clients.get(slot).unwrap().blocked.is_some();
            assert_eq!(unblock_by_request(server, r, error), waits);
        }
        Step::Leave(slot) => {
            let mut c = server.net.clients.take(slot).unwrap();
            forget(server, &mut c);
            server.net.clients.put(c);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_closed_client_leaves_no_trace(steps in prop::collection::vec(step(), 1..60)) {
        let mut server = server();
        for step in steps {
            run(&mut server, step);
            check(&server);
        }
    }
}
