//! Details of a primary and its replicas: pauses, limits, timeouts, announcements, fields of INFO,
//! and the tools of Redis and Valkey that speak the protocol of a replica.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::group::{Group, SETTINGS, Stopped, follow, info, wait_for};
use common::{Conn, Peer, find_peer};

/// The value of a field of INFO.
fn field(server: &Peer, name: &str) -> String {
    let text = server.connect().line("INFO all");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).to_string()
}

fn number(server: &Peer, name: &str) -> u64 {
    field(server, name).parse().expect("a number")
}

fn wait_for_log(server: &Peer, text: &str) {
    let log = server.dir().join("log");
    wait_for(server, |_| {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text))
    });
}

#[test]
fn a_paused_replica_receives_the_stream_and_applies_it_after_the_pause() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let (mut writer, mut c) = (primary.connect(), replica.connect());
    writer.line("SET k before");
    assert_eq!(writer.line("WAIT 1 10000"), ":1\r\n");
    let applied = field(replica, "slave_repl_offset");
    assert_eq!(c.line("CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
    writer.line("MULTI");
    writer.line("SET k after");
    writer.line("SET big 1");
    writer.line("EXEC");
    writer.cmd(&["SET", "big", &"x".repeat(1 << 20)]);
    wait_for(replica, |_| {
        number(replica, "slave_read_repl_offset") == number(primary, "master_repl_offset")
    });
    assert_eq!(field(replica, "slave_repl_offset"), applied);
    assert_eq!(c.line("GET k"), "$6\r\nbefore\r\n");
    assert_eq!(c.line("CLIENT UNPAUSE"), "+OK\r\n");
    wait_for(replica, |_| {
        number(replica, "slave_repl_offset") == number(primary, "master_repl_offset")
    });
    assert_eq!(c.line("GET k"), "$5\r\nafter\r\n");
    assert_eq!(c.line("STRLEN big"), format!(":{}\r\n", 1 << 20));
    assert_eq!(field(primary, "sync_full"), "1");
}

#[test]
fn a_paused_primary_still_hears_and_feeds_its_replicas() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let mut c = primary.connect();
    c.line("CONFIG SET repl-ping-replica-period 1");
    assert_eq!(c.line("CLIENT PAUSE 1000000 ALL"), "+OK\r\n");
    // The pause holds every connection to the primary, but its PINGs arrive and are acknowledged.
    let applied = number(replica, "slave_repl_offset");
    wait_for(replica, |_| number(replica, "slave_repl_offset") > applied);
    assert!(info(replica).contains("master_link_status:up"));
}

#[test]
fn the_replication_streams_traffic_is_counted() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let sent = number(primary, "total_net_repl_output_bytes");
    let received = number(replica, "total_net_repl_input_bytes");
    assert!(sent > 0 && received > 0);
    let mut writer = primary.connect();
    for _ in 0..100 {
        writer.cmd(&["SET", "k", &"x".repeat(1000)]);
    }
    assert_eq!(writer.line("WAIT 1 10000"), ":1\r\n");
    assert!(number(primary, "total_net_repl_output_bytes") - sent > 100_000);
    assert!(number(replica, "total_net_repl_input_bytes") - received > 100_000);
    for (server, name) in [
        (primary, "instantaneous_output_repl_kbps"),
        (replica, "instantaneous_input_repl_kbps"),
    ] {
        // The cron samples the rate of bytes ten times a second, and INFO shows the mean of some
        // samples.
        wait_for(server, |_| field(server, name) != "0.00");
    }
}

#[test]
fn a_replica_announces_what_its_settings_say() {
    let primary = Peer::aeris(SETTINGS);
    let settings = [
        "--replica-announce-ip",
        "10.1.2.3",
        "--replica-announce-port",
        "7777",
    ];
    let replica = Peer::aeris(&settings);
    follow(&replica, primary.port);
    wait_for(&primary, |info| {
        info.contains("slave0:ip=10.1.2.3,port=7777,state=online")
    });
    let role = primary.connect().line("ROLE");
    assert!(role.contains("10.1.2.3") && role.contains("7777"), "{role}");
    let shown = info(&replica);
    for line in [
        "slave_priority:100",
        "slave_read_only:1",
        "replica_announced:1",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let mut c = replica.connect();
    for set in [
        "replica-priority 7",
        "replica-read-only no",
        "replica-announced no",
    ] {
        assert_eq!(c.line(&format!("CONFIG SET {set}")), "+OK\r\n");
    }
    let shown = info(&replica);
    for line in [
        "slave_priority:7",
        "slave_read_only:0",
        "replica_announced:0",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(c.line("SET k v"), "+OK\r\n");
}

#[test]
fn a_replica_that_lags_beyond_its_limit_is_closed_and_comes_back() {
    let limit = ["--client-output-buffer-limit", "replica 8mb 0 0"];
    let log = ["--logfile", "log"];
    let mut group = Group::with(1, &[limit, log].concat());
    let stopped = Stopped::new(&group.replicas[0]);
    let mut writer = group.primary.connect();
    let value = "x".repeat(1 << 20);
    let before = number(&group.primary, "client_output_buffer_limit_disconnections");
    // The buffers of the sockets take some of the bytes.
    for _ in 0..64 {
        writer.cmd(&["SET", "k", &value]);
    }
    wait_for(&group.primary, |info| info.contains("connected_slaves:0"));
    wait_for_log(
        &group.primary,
        "scheduled to be closed ASAP for overcoming of output buffer limits.",
    );
    let after = number(&group.primary, "client_output_buffer_limit_disconnections");
    assert_eq!(after, before + 1);
    drop(stopped);
    wait_for(&group.primary, |info| info.contains("state=online"));
    assert!(group.replicas[0].alive());
}

#[test]
fn writes_are_delayed_before_a_replica_is_closed() {
    let limit = ["--client-output-buffer-limit", "replica 16mb 0 0"];
    let throttle = ["--repl-throttling-enabled", "yes"];
    let mut group = Group::with(1, &[limit, throttle].concat());
    let stopped = Stopped::new(&group.replicas[0]);
    let port = group.primary.port;
    let writer = std::thread::spawn(move || {
        let mut c = Conn::new(port);
        let value = "x".repeat(1 << 16);
        for i in 0..400 {
            assert_eq!(c.cmd(&["SET", &format!("k{i}"), &value]), b"+OK\r\n");
        }
    });
    wait_for(&group.primary, |_| {
        number(&group.primary, "repl_throttles") > 0
    });
    drop(stopped);
    writer.join().expect("all writes are done");
    assert!(number(&group.primary, "repl_throttled_ms") > 0);
    wait_for(&group.replicas[0], |_| {
        group.replicas[0].connect().line("DBSIZE") == ":400\r\n"
    });
    assert_eq!(field(&group.primary, "sync_full"), "1");
    assert!(group.primary.alive());
}

#[test]
fn a_full_sync_is_measured_for_the_forecast_of_the_next_one() {
    let group = Group::new(1);
    wait_for(&group.primary, |_| {
        number(&group.primary, "sync_forecast_ms") > 0
    });
    assert_eq!(field(&group.primary, "sync_forecast_ok"), "1");
}

#[test]
fn a_silent_replica_is_closed_after_repl_timeout() {
    let settings = ["--repl-timeout", "1", "--logfile", "log"];
    let group = Group::with(1, &settings);
    let stopped = Stopped::new(&group.replicas[0]);
    wait_for_log(
        &group.primary,
        "Disconnecting timedout replica (streaming sync): 127.0.0.1:",
    );
    drop(stopped);
}

#[test]
fn a_replica_that_takes_no_snapshot_is_closed_after_repl_timeout() {
    let settings = [
        SETTINGS,
        &[
            "--repl-timeout",
            "1",
            "--logfile",
            "log",
            "--rdbcompression",
            "no",
        ],
    ];
    let primary = Peer::aeris(&settings.concat());
    primary.connect().line("DEBUG POPULATE 20000 key 1000");
    let mut replica = primary.connect();
    assert_eq!(replica.line("REPLCONF capa eof"), "+OK\r\n");
    replica.send(b"PSYNC ? -1\r\n");
    wait_for_log(&primary, "Disconnecting timedout replica (full sync): ");
}

#[test]
fn client_list_and_monitor_show_both_ends_of_a_link() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let list = primary.connect().line("CLIENT LIST TYPE replica");
    assert!(list.contains(" flags=S "), "{list}");
    wait_for(primary, |_| {
        let list = primary.connect().line("CLIENT LIST TYPE replica");
        list.contains(" cmd=replconf ")
    });
    let mut monitor = replica.connect();
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    primary.connect().line("SET k v");
    let shown = loop {
        let line = monitor.raw_line();
        if line.contains("\"SET\"") {
            break line;
        }
    };
    assert!(shown.ends_with("\"SET\" \"k\" \"v\""), "{shown}");
    let list = replica.connect().line("CLIENT LIST TYPE master");
    assert!(list.contains(" flags=M "), "{list}");
    assert!(
        list.contains(&format!("addr=127.0.0.1:{} ", primary.port)),
        "{list}"
    );
    assert!(list.contains(" cmd=set "), "{list}");
}

/// The command-line clients of Redis and Valkey that are installed.
fn tools() -> impl Iterator<Item = std::path::PathBuf> {
    let names = ["redis-cli", "valkey-cli", "valkey-cli-9.1"];
    names.into_iter().filter_map(find_peer)
}

fn tool(program: &Path, server: &Peer, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-p", &server.port.to_string()]).args(args);
    command.stdin(Stdio::null());
    command
}

const LIBRARY: &str = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";

#[test]
fn real_tools_take_snapshots_that_a_server_loads() {
    let server = Peer::aeris(SETTINGS);
    let mut c = server.connect();
    c.line("DEBUG POPULATE 1000");
    c.cmd(&["FUNCTION", "LOAD", LIBRARY]);
    for program in tools() {
        for (option, keys) in [("--rdb", ":1000\r\n"), ("--functions-rdb", ":0\r\n")] {
            let mut reader = Peer::aeris(&["--dbfilename", "taken.rdb"]);
            let file = reader.dir().join("taken.rdb");
            let done = tool(&program, &server, &[option, file.to_str().expect("a text")])
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{program:?} {option}: {said}");
            reader.start_again(&[]);
            let mut c = reader.connect();
            assert_eq!(c.line("DBSIZE"), keys, "{program:?} {option}");
            assert_eq!(c.line("FCALL f 0"), ":7\r\n", "{program:?} {option}");
        }
    }
}

/// A process of redis-cli or valkey-cli, which is ended when this value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The tool may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn real_tools_read_the_stream_as_a_replica() {
    let server = Peer::aeris(SETTINGS);
    for program in tools() {
        server.connect().line("SET old 1");
        let mut command = tool(&program, &server, &["--replica"]);
        let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Running(started.expect("it runs"));
        wait_for(&server, |info| info.contains("state=online"));
        server.connect().line("SET new 2");
        let output = BufReader::new(running.0.stdout.take().expect("a pipe"));
        let found = output.lines().map_while(Result::ok);
        let mut found = found.filter(|line| line.contains("new"));
        let line = found.next().expect("a line");
        assert!(line.to_lowercase().contains("set"), "{program:?}: {line}");
        drop(running);
        wait_for(&server, |info| info.contains("connected_slaves:0"));
    }
}

#[test]
fn a_request_on_the_link_that_is_answered_ends_it() {
    let primary = Peer::aeris(&[SETTINGS, &["--logfile", "log"]].concat());
    let mut replica = Conn::new(primary.port);
    replica.send(b"PSYNC ? -1\r\n");
    wait_for(&primary, |info| info.contains("state=online"));
    replica.send(b"PING\r\n");
    wait_for(&primary, |info| info.contains("connected_slaves:0"));
    wait_for_log(
        &primary,
        "Replica generated a reply to command 'ping', disconnecting it: ",
    );
}

#[test]
fn the_primary_in_client_list_has_both_addresses() {
    let group = Group::new(1);
    let (primary, replica) = (&group.primary, &group.replicas[0]);
    let of_primary = replica.connect().line("CLIENT LIST TYPE master");
    let of_replica = primary.connect().line("CLIENT LIST TYPE replica");
    let value = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name}")).to_string()
    };
    assert_eq!(
        value(&of_primary, "addr="),
        format!("127.0.0.1:{}", primary.port)
    );
    let local = value(&of_primary, "laddr=");
    assert_eq!(local, value(&of_replica, "addr="));
    // CLIENT KILL LADDR finds the link by its local address.
    let killed = replica
        .connect()
        .line(&format!("CLIENT KILL LADDR {local}"));
    assert_eq!(killed, ":1\r\n");
}

/// CONFIG SET accepts a smaller `repl-backlog-size` and raises it, like Redis 7.0 and 8.2 and
/// Valkey 8.0 and 9.1.
#[test]
fn config_set_raises_a_small_backlog_to_16_kib() {
    let server = Peer::aeris(SETTINGS);
    let mut c = server.connect();
    for size in ["1", "16383", "16384", "16385"] {
        assert_eq!(
            c.line(&format!("CONFIG SET repl-backlog-size {size}")),
            "+OK\r\n"
        );
        let set = if size == "16385" { "16385" } else { "16384" };
        assert_eq!(field(&server, "repl_backlog_size"), set, "{size}");
    }
}

/// The fields of INFO replication that a replica has in its first sync, with their values.
fn first_sync(replica: &Peer) -> Vec<(String, String)> {
    let expected = [
        "master_link_status",
        "master_last_io_seconds_ago",
        "master_sync_in_progress",
        "slave_read_repl_offset",
        "slave_repl_offset",
        "master_sync_total_bytes",
        "master_sync_read_bytes",
        "master_sync_left_bytes",
        "master_sync_perc",
        "master_link_down_since_seconds",
        "master_repl_offset",
        "second_repl_offset",
        "master_replid2",
        "repl_backlog_active",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
        // Fields that only Redis 8.2 has.
        "master_current_sync_attempts",
        "master_total_sync_attempts",
        "total_disconnect_time_sec",
    ];
    let text = info(replica);
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let pairs = pairs.filter(|(name, _)| expected.contains(name));
    pairs.map(|(a, b)| (a.into(), b.into())).collect()
}

/// The primary writes the snapshot to a file first, so its size is not known when INFO is compared.
#[test]
fn a_first_sync_looks_as_in_redis() {
    let args = ["--repl-diskless-sync", "no", "--rdb-key-save-delay", "1000"];
    let primary = Peer::aeris(&args);
    primary.connect().line("DEBUG POPULATE 100000 key 100");
    let follows = ["--replicaof", &format!("127.0.0.1 {}", primary.port)];
    let syncs = |replica: Peer| {
        wait_for(&replica, |info| info.contains("master_sync_in_progress:1"));
        let fields = first_sync(&replica);
        let has_begun = fields.contains(&("master_sync_read_bytes".into(), "0".into()));
        assert!(has_begun, "the snapshot is not sent yet: {fields:?}");
        fields
    };
    let own = syncs(Peer::aeris(&follows));
    let peers = [
        Peer::redis(&follows),
        Peer::redis8(&follows),
        Peer::valkey9(&follows),
    ];
    for peer in peers.into_iter().flatten() {
        for field in syncs(peer) {
            assert!(own.contains(&field), "{field:?} is not in {own:?}");
        }
    }
}

#[test]
fn attempts_and_times_of_the_link_are_counted() {
    let mut group = Group::with(1, &[]);
    let replica = &group.replicas[0];
    assert_eq!(number(replica, "master_current_sync_attempts"), 1);
    assert_eq!(number(replica, "total_disconnect_time_sec"), 0);
    wait_for(replica, |_| {
        number(replica, "master_link_up_since_seconds") > 0
    });
    group.primary.kill();
    wait_for(replica, |_| {
        number(replica, "master_current_sync_attempts") >= 2
    });
    wait_for(replica, |_| {
        number(replica, "total_disconnect_time_sec") > 0
    });
    let total = number(replica, "master_total_sync_attempts");
    assert!(total > number(replica, "master_current_sync_attempts"));
    // After REPLICAOF with a new primary the link is still down: the seconds of the interruption go
    // on, and only the count of sync attempts begins anew.
    let down = number(replica, "master_link_down_since_seconds");
    replica.connect().line("REPLICAOF 127.0.0.1 1");
    wait_for(replica, |_| {
        number(replica, "master_total_sync_attempts") == 1
    });
    assert!(number(replica, "master_link_down_since_seconds") >= down);
    replica.connect().line("REPLICAOF NO ONE");
    replica.connect().line("REPLICAOF 127.0.0.1 1");
    assert_eq!(field(replica, "master_link_down_since_seconds"), "-1");
}

/// Requests a full sync as a replica that neither loads the snapshot nor acknowledges anything.
fn stuck_replica(primary: &Peer) -> (Conn, String) {
    let mut replica = primary.connect();
    replica.line("REPLCONF listening-port 7");
    replica.line("REPLCONF capa eof");
    let reply = replica.line("PSYNC ? -1");
    (replica, reply)
}

#[test]
fn after_two_overruns_the_next_full_sync_is_delayed() {
    let limit = "replica 2mb 0 0";
    let settings = ["--client-output-buffer-limit", limit, "--logfile", "log"];
    let primary = Peer::aeris(&[SETTINGS, &settings].concat());
    let mut writer = primary.connect();
    let value = "x".repeat(1 << 20);
    for _ in 0..2 {
        let (replica, reply) = stuck_replica(&primary);
        assert!(reply.starts_with("+FULLRESYNC"), "{reply}");
        for _ in 0..4 {
            writer.cmd(&["SET", "k", &value]);
        }
        wait_for(&primary, |info| info.contains("connected_slaves:0"));
        drop(replica);
    }
    wait_for_log(&primary, "2 full syncs of replica 127.0.0.1:7 in a row");
    let (mut refused, reply) = stuck_replica(&primary);
    assert!(
        reply.starts_with("-NOMASTERLINK The last 2 full syncs exceeded"),
        "{reply}"
    );
    assert_eq!(refused.line("PING"), "+PONG\r\n", "it may ask again");
    // A replica with another port, and a full sync after the limit was changed, are not delayed.
    let mut other = primary.connect();
    assert!(other.line("PSYNC ? -1").starts_with("+FULLRESYNC"));
    let limit = "replica 3mb 0 0";
    let reply = writer.cmd(&["CONFIG", "SET", "client-output-buffer-limit", limit]);
    assert_eq!(reply, b"+OK\r\n");
    let (_replica, reply) = stuck_replica(&primary);
    assert!(reply.starts_with("+FULLRESYNC"), "{reply}");
}

/// Whether a process is stopped: its state in /proc is T.
fn is_stopped(server: &Peer) -> bool {
    let path = format!("/proc/{}/stat", server.pid());
    std::fs::read_to_string(path).is_ok_and(|stat| stat.contains(") T "))
}

#[test]
fn repl_pause_stops_the_process_at_its_step() {
    let channel = ["--dual-channel-replication-enabled", "yes"];
    for step in ["after-fork", "before-rdb-channel", "on-streaming-repl-buf"] {
        let settings = [SETTINGS, &channel].concat();
        let (primary, replica) = (Peer::aeris(&settings), Peer::aeris(&settings));
        let stops = match step {
            "after-fork" => &primary,
            _ => &replica,
        };
        let mut c = stops.connect();
        assert_eq!(c.line(&format!("DEBUG REPL-PAUSE {step}")), "+OK\r\n");
        let reply = c.line("DEBUG REPL-PAUSE elsewhere");
        assert!(reply.starts_with("-ERR unknown subcommand"), "{reply}");
        let request = format!("REPLICAOF 127.0.0.1 {}", primary.port);
        assert_eq!(replica.connect().line(&request), "+OK\r\n");
        // The test can't wait by INFO, because a stopped process does not reply.
        let mut tries = 0;
        while !is_stopped(stops) {
            tries += 1;
            assert!(tries < 1000, "{step}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = nix::unistd::Pid::from_raw(stops.pid() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("a process");
        wait_for(&replica, |info| info.contains("master_link_status:up"));
        assert_eq!(c.line("DEBUG REPL-PAUSE clear"), "+OK\r\n");
    }
}

/// With `repl-ping-timestamps yes` a replica knows how old its data are. A replica that is a Redis
/// ignores the times in PINGs.
#[test]
fn pings_with_a_time_show_the_lag_of_a_replica() {
    let pings = ["--repl-ping-replica-period", "1"];
    let stamps = ["--repl-ping-timestamps", "yes"];
    let group = Group::with(1, &[pings, stamps].concat());
    let replica = &group.replicas[0];
    let lag = |replica: &Peer| field(replica, "slave_repl_lag_ms").parse::<i64>();
    wait_for(replica, |_| lag(replica).is_ok_and(|lag| lag >= 0));
    // While the replica is stopped, the times that it has received get old.
    let stopped = Stopped::new(replica);
    let end = number(&group.primary, "master_repl_offset");
    wait_for(&group.primary, |_| {
        number(&group.primary, "master_repl_offset") > end
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    drop(stopped);
    wait_for(replica, |_| lag(replica).is_ok_and(|lag| lag >= 50));
    let Some(redis) = Peer::redis(SETTINGS) else {
        return;
    };
    follow(&redis, group.primary.port);
    let end = number(&group.primary, "master_repl_offset");
    wait_for(&redis, |_| number(&redis, "slave_repl_offset") > end);
}

#[test]
fn writes_of_a_replicas_own_clients_are_counted() {
    let group = Group::new(1);
    let mut c = group.replicas[0].connect();
    let writes = || number(&group.replicas[0], "replica_local_writes");
    c.line("SET k v");
    c.line("GET k");
    group.primary.connect().line("SET theirs v");
    assert_eq!(writes(), 0, "it is read-only");
    c.line("CONFIG SET replica-read-only no");
    c.line("SET k v");
    c.line("GET k");
    assert_eq!(writes(), 1);
    for line in ["MULTI", "SET k w", "INCR n", "EXEC"] {
        c.line(line);
    }
    assert_eq!(writes(), 2, "a transaction is one");
    c.cmd(&["EVAL", "redis.call('set', 'k', 'x')", "0"]);
    assert_eq!(writes(), 3);
}

/// The snapshot that follows the reply to PSYNC, without the mark that ends it.
fn read_snapshot(replica: &mut Conn) -> Vec<u8> {
    let mut line = String::new();
    // Empty lines keep the link alive until the snapshot is ready.
    while line.trim().is_empty() {
        line = replica.raw_line();
    }
    let mark = line.trim_end().strip_prefix("$EOF:").expect("a mark");
    let mut snapshot = Vec::new();
    while !snapshot.ends_with(mark.as_bytes()) {
        snapshot.extend(replica.read_bytes(1));
    }
    snapshot.truncate(snapshot.len() - mark.len());
    snapshot
}

#[test]
fn a_replica_may_ask_for_a_snapshot_without_checksum() {
    let primary = Peer::aeris(SETTINGS);
    for (option, none) in [("0", false), ("1", true)] {
        let mut replica = primary.connect();
        let words = ["REPLCONF", "capa", "eof", "rdb-no-checksum", option];
        assert_eq!(replica.cmd(&words), b"+OK\r\n");
        assert!(replica.line("PSYNC ? -1").starts_with("+FULLRESYNC"));
        let ends_with_zeros = read_snapshot(&mut replica).ends_with(&[0; 8]);
        assert_eq!(ends_with_zeros, none, "rdb-no-checksum {option}");
    }
}

/// Replicas that differ only in whether they can do without compression and checksum share a
/// snapshot, which then has both.
#[test]
fn replicas_with_and_without_compression_share_a_snapshot() {
    let primary = Peer::aeris(SETTINGS);
    let mut c = primary.connect();
    // The delay of diskless syncs is long, so that the second replica comes before it is over.
    c.line("CONFIG SET repl-diskless-sync-delay 60");
    c.line("CONFIG SET repl-diskless-sync-max-replicas 2");
    let value = "x".repeat(1000);
    c.cmd(&["SET", "k", &value]);
    let mut replicas = ["0", "1"].map(|option| {
        let mut replica = primary.connect();
        for words in [
            ["REPLCONF", "capa", "eof", "rdb-no-compress", option],
            ["REPLCONF", "capa", "eof", "rdb-no-checksum", option],
        ] {
            assert_eq!(replica.cmd(&words), b"+OK\r\n");
        }
        replica.send(b"PSYNC ? -1\r\n");
        replica
    });
    for replica in &mut replicas {
        // Empty lines keep the link alive until the snapshot is ready.
        let mut line = replica.raw_line();
        while line.trim().is_empty() {
            line = replica.raw_line();
        }
        assert!(line.starts_with("+FULLRESYNC"), "{line}");
        let snapshot = read_snapshot(replica);
        assert!(!snapshot.ends_with(&[0; 8]), "it has its checksum");
        let whole = snapshot.windows(1000).any(|part| part == value.as_bytes());
        assert!(!whole, "it is compressed");
    }
}

/// Redis 8.6 as a replica requests `rdb-no-compress` when its link is fast.
#[test]
fn a_replica_may_ask_for_a_snapshot_without_compression() {
    let primary = Peer::aeris(SETTINGS);
    let value = "x".repeat(1000);
    primary.connect().cmd(&["SET", "k", &value]);
    for (option, whole) in [("0", false), ("1", true)] {
        let mut replica = primary.connect();
        let words = ["REPLCONF", "capa", "eof", "rdb-no-compress", option];
        assert_eq!(replica.cmd(&words), b"+OK\r\n");
        assert!(replica.line("PSYNC ? -1").starts_with("+FULLRESYNC"));
        let snapshot = read_snapshot(&mut replica);
        let has = snapshot.windows(1000).any(|part| part == value.as_bytes());
        assert_eq!(has, whole, "rdb-no-compress {option}");
    }
    let mut replica = primary.connect();
    let reply = replica.line("REPLCONF rdb-no-compress 2");
    assert!(reply.starts_with("-ERR value is out of range"), "{reply}");
}
