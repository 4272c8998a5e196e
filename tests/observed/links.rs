//! Steps of the test of observed fields that use each feature of replication once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::multibulk;
use crate::life::Life;

/// A replica gets a snapshot, then the stream; its link breaks and is restored.
pub fn follow(life: &mut Life) {
    life.say(&[
        "FLUSHALL",
        "DEBUG POPULATE 3000 replicated 1000",
        "CONFIG SET rdb-key-save-delay 500",
        "CONFIG SET min-replicas-max-lag 10",
        "CONFIG SET min-replicas-to-write 1",
    ]);
    let port = life.primary.port;
    life.say_to_replica(&["CONFIG SET replica-priority 7", "REPLICAOF 127.0.0.1 1"]);
    life.until_at_replica(&[
        "role",
        "master_current_sync_attempts",
        "master_total_sync_attempts",
    ]);
    life.say_to_replica(&[&format!("REPLICAOF 127.0.0.1 {port}")]);
    life.until_at_replica(&["master_port", "master_sync_in_progress"]);
    life.look_at_primary();
    life.until_at_replica(&["master_sync_read_bytes"]);
    life.wait_at_replica("master_link_status", "up");
    // The primary refuses writes (`min-replicas-to-write`) until it has read the replica's first
    // acknowledgement.
    life.wait("min_slaves_good_slaves", "1");
    life.say(&["CONFIG SET rdb-key-save-delay 0", "SET text v"]);
    life.until(&[
        "sync_full",
        "connected_slaves",
        "slave* state",
        "slave* offset",
    ]);
    life.until(&["min_slaves_good_slaves"]);
    life.say(&["CONFIG SET min-replicas-to-write 0"]);
    life.until(&[
        "instantaneous_output_repl_kbps",
        "total_net_repl_output_bytes",
    ]);
    life.until_at_replica(&["master_link_up_since_seconds"]);
    life.until_at_replica(&[
        "instantaneous_input_repl_kbps",
        "total_net_repl_input_bytes",
    ]);
    life.say(&["CLIENT KILL TYPE replica"]);
    life.wait("connected_slaves", "1");
    life.until(&["sync_partial_ok"]);
    life.say_to_replica(&[
        "CONFIG SET replica-priority 8",
        "CONFIG SET replica-read-only no",
        "CONFIG SET replica-announced no",
        "SET own v PX 100000",
    ]);
    life.until_at_replica(&["slave_expires_tracked_keys", "replica_local_writes"]);
    // The writes have more bytes than the replication backlog holds.
    for _ in 0..200 {
        life.ask.line(&format!("SET text {}", "x".repeat(1000)));
    }
    life.until(&["repl_backlog_first_byte_offset"]);
}

/// While the replica is stopped, the fields about data that waits for it change.
pub fn stand_still(life: &mut Life) {
    let replica = Pid::from_raw(life.replica.pid() as i32);
    kill(replica, Signal::SIGSTOP).expect("a process");
    life.ask.cmd(&["SET", "big", &"x".repeat(10_000_000)]);
    life.until(&[
        "slave* lag",
        "mem_clients_slaves",
        "mem_total_replication_buffers",
    ]);
    life.say(&["FAILOVER"]);
    life.until(&["master_failover_state", "paused_reason"]);
    life.say(&["FAILOVER ABORT"]);
    let mut asks = life.primary.connect();
    asks.send(&multibulk(&["SHUTDOWN"]));
    life.until(&["shutdown_in_milliseconds"]);
    life.say(&["SHUTDOWN ABORT"]);
    kill(replica, Signal::SIGCONT).expect("a process");
    life.wait_at_replica("master_link_status", "up");
}

/// The servers change roles, and their replication histories diverge.
pub fn hand_over(life: &mut Life) {
    let port = life.primary.port;
    life.say_to_replica(&["REPLICAOF NO ONE"]);
    life.until_at_replica(&["master_replid", "master_replid2", "second_repl_offset"]);
    life.say_to_replica(&[
        "DEBUG CHANGE-REPL-ID",
        &format!("REPLICAOF localhost {port}"),
    ]);
    life.until_at_replica(&["master_host"]);
    life.wait_at_replica("master_link_status", "up");
    life.until(&["sync_partial_err"]);
    life.say_to_replica(&[
        "CONFIG SET replica-announce-ip 127.0.0.2",
        "CONFIG SET replica-announce-port 7777",
    ]);
    life.say(&["CLIENT KILL TYPE replica"]);
    life.until(&["slave* ip", "slave* port"]);
    stop_in_a_transfer(life);
}

/// The replica syncs with a primary, implemented here, that stops in the middle of a snapshot.
fn stop_in_a_transfer(life: &mut Life) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    life.say_to_replica(&["REPLICAOF 127.0.0.1 1"]);
    life.until_at_replica(&["total_disconnect_time_sec"]);
    life.say_to_replica(&[&format!("REPLICAOF 127.0.0.1 {port}")]);
    let (mut link, _) = listener.accept().expect("the replica");
    let mut input = BufReader::new(link.try_clone().expect("a handle"));
    let mut line = String::new();
    while !line.starts_with("PSYNC") {
        line.clear();
        input.read_line(&mut line).expect("a line");
        match line.trim_end() {
            "PING" => link.write_all(b"+PONG\r\n").expect("sent"),
            // The line with the name of a command; the lines with its arguments are ignored.
            "REPLCONF" => link.write_all(b"+OK\r\n").expect("sent"),
            _ => {}
        }
    }
    let begun = format!("+FULLRESYNC {} 0\r\n", "a".repeat(40));
    link.write_all(begun.as_bytes()).expect("sent");
    life.look_at_replica();
    link.write_all(b"$1000\r\n").expect("sent");
    let fields = ["master_sync_total_bytes", "master_sync_left_bytes"];
    life.until_at_replica(&fields);
    link.write_all(&[b'x'; 500]).expect("sent");
    life.until_at_replica(&["master_sync_perc", "master_sync_last_io_seconds_ago"]);
    let port = life.primary.port;
    life.say_to_replica(&[&format!("REPLICAOF 127.0.0.1 {port}")]);
    life.wait_at_replica("master_link_status", "up");
}
