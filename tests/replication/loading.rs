//! How a replica that is an aeris replaces its data set: what clients see meanwhile, which data
//! stays if the load fails, and the guard against a primary that has lost its data.

use crate::nodes::{Logs, Node, ServerKind, wait_for, wait_in_step, wait_same};

/// A replica that is connected to a primary of this kind and has its keys. `None` if the primary is
/// not installed.
fn pair(kind: ServerKind, replica_args: &[&str]) -> Option<(Node, Node)> {
    let mut primary = Node::start(kind, &["--repl-diskless-sync", "yes"])?;
    primary.line("SET key from-the-primary");
    let mut replica = Node::aeris(replica_args);
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
    Some((primary, replica))
}

/// Makes the next sync a full sync that takes seconds, and begins it.
fn begin_slow_full_sync(primary: &mut Node) {
    primary.ok("CONFIG SET rdbcompression no");
    primary.line("DEBUG POPULATE 300 new 100000");
    primary.ok("CONFIG SET rdb-key-save-delay 20000");
    primary.ok("CONFIG SET repl-backlog-size 16384");
    let block = "x".repeat(40_000);
    let syncs = primary.number("sync_full");
    primary.ok("MULTI");
    primary.line("CLIENT KILL TYPE replica");
    primary.line("SET key changed");
    for n in 0..10 {
        primary.line(&format!("SET block:{n} {block}"));
    }
    primary.line("EXEC");
    wait_for("a full sync has begun", || {
        primary.number("sync_full") > syncs
    });
}

/// The link breaks while the replica loads the snapshot, and the next attempt succeeds.
fn break_and_finish(primary: &mut Node) {
    primary.ok("CONFIG SET repl-diskless-sync-delay 5");
    primary.cut_replicas();
}

fn finish(primary: &mut Node, replica: &mut Node) {
    primary.ok("CONFIG SET rdb-key-save-delay 0");
    primary.ok("CONFIG SET repl-diskless-sync-delay 0");
    wait_in_step(primary, replica);
    wait_same(primary, replica);
}

fn swapdb_serves_the_old_data(kind: ServerKind) {
    let args = ["--repl-diskless-load", "swapdb"];
    let Some((mut primary, mut replica)) = pair(kind, &args) else {
        return;
    };
    begin_slow_full_sync(&mut primary);
    wait_for("it loads aside", || replica.info("async_loading") == "1");
    assert_eq!(replica.info("loading"), "0");
    assert_eq!(replica.line("GET key"), "$16\r\nfrom-the-primary\r\n");
    assert_eq!(replica.line("DBSIZE"), ":1\r\n");
    for refused in ["REPLICAOF NO ONE", "BGSAVE", "CONFIG SET appendonly yes"] {
        let reply = replica.line(refused);
        assert!(reply.starts_with("-LOADING"), "{refused}: {reply}");
    }
    assert_eq!(replica.info("async_loading"), "1");
    break_and_finish(&mut primary);
    wait_for("it stops loading", || replica.info("async_loading") == "0");
    replica.wait_for_log("Discarding temporary DB in background");
    assert_eq!(replica.line("GET key"), "$16\r\nfrom-the-primary\r\n");
    finish(&mut primary, &mut replica);
    replica.wait_for_log("Swapping active DB with loaded DB");
}

#[test]
fn swapdb_serves_the_old_data_of_redis_7_0() {
    swapdb_serves_the_old_data(ServerKind::Redis7);
}

#[test]
fn swapdb_serves_our_own_old_data() {
    swapdb_serves_the_old_data(ServerKind::Aeris);
}

#[test]
fn swapdb_hides_the_data_of_another_history_and_keeps_them_if_it_fails() {
    let mut primary = Node::aeris(&["--repl-diskless-sync", "yes"]);
    primary.ok("CONFIG SET rdbcompression no");
    primary.line("DEBUG POPULATE 300 new 100000");
    primary.ok("CONFIG SET rdb-key-save-delay 20000");
    let mut replica = Node::aeris(&["--repl-diskless-load", "swapdb"]);
    replica.ok("SET old data");
    replica.follow(&primary);
    wait_for("it loads", || replica.info("loading") == "1");
    assert_eq!(replica.info("async_loading"), "0");
    let reply = replica.line("GET old");
    assert!(reply.starts_with("-LOADING"), "{reply}");
    break_and_finish(&mut primary);
    wait_for("it stops loading", || replica.info("loading") == "0");
    assert_eq!(replica.line("DBSIZE"), ":1\r\n");
    finish(&mut primary, &mut replica);
}

#[test]
fn flush_before_load_drops_the_old_data_when_keys_arrive() {
    let args = ["--repl-diskless-load", "flush-before-load"];
    let (mut primary, mut replica) = pair(ServerKind::Aeris, &args).expect("our own program");
    begin_slow_full_sync(&mut primary);
    wait_for("it loads", || replica.info("loading") == "1");
    replica.wait_for_log("Flushing old data");
    break_and_finish(&mut primary);
    wait_for("it stops loading", || replica.info("loading") == "0");
    assert_eq!(replica.line("DBSIZE"), ":0\r\n");
    replica.wait_for_log("Discarding the half-loaded data");
    finish(&mut primary, &mut replica);
}

fn an_empty_primary_is_refused(kind: ServerKind, load: &str) {
    let Some((mut primary, mut replica)) = pair(kind, &["--repl-diskless-load", load]) else {
        return;
    };
    primary.restart("SHUTDOWN NOSAVE", &[]);
    wait_for("it refuses", || {
        replica.info("master_link_refused") == "empty_primary"
    });
    assert_eq!(replica.info("master_link_status"), "down");
    assert_eq!(replica.line("GET key"), "$16\r\nfrom-the-primary\r\n");
    replica.wait_for_log("It is refused, and the old data are served");
    // REPLICAOF by an operator makes the replica accept the empty data set.
    let port = primary.port();
    let reply = replica.line(&format!("REPLICAOF 127.0.0.1 {port}"));
    assert_eq!(reply, "+OK Already connected to specified master\r\n");
    wait_in_step(&mut primary, &mut replica);
    assert_eq!(replica.info("master_link_refused"), "");
    assert_eq!(replica.line("DBSIZE"), ":0\r\n");
}

#[test]
fn redis_7_0_without_data_is_refused_by_way_of_a_file() {
    an_empty_primary_is_refused(ServerKind::Redis7, "disabled");
}

#[test]
fn redis_8_2_without_data_is_refused_by_swapdb() {
    an_empty_primary_is_refused(ServerKind::Redis8, "swapdb");
}

#[test]
fn valkey_9_1_without_data_is_refused_before_the_flush() {
    an_empty_primary_is_refused(ServerKind::Valkey9, "flush-before-load");
}

#[test]
fn an_operator_may_follow_an_empty_primary() {
    let (_lost, mut replica) = pair(ServerKind::Aeris, &[]).expect("our own program");
    let mut empty = Node::aeris(&[]);
    replica.follow(&empty);
    wait_in_step(&mut empty, &mut replica);
    assert_eq!(replica.line("DBSIZE"), ":0\r\n");
}

#[test]
fn a_setting_accepts_an_empty_primary() {
    let args = ["--replica-accept-empty-primary", "yes"];
    let (mut primary, mut replica) = pair(ServerKind::Aeris, &args).expect("our own program");
    primary.restart("SHUTDOWN NOSAVE", &[]);
    wait_in_step(&mut primary, &mut replica);
    assert_eq!(replica.line("DBSIZE"), ":0\r\n");
}

#[test]
fn a_primary_that_flushed_its_data_is_followed() {
    let (mut primary, mut replica) = pair(ServerKind::Aeris, &[]).expect("our own program");
    primary.ok("CONFIG SET repl-backlog-size 16384");
    let block = "x".repeat(40_000);
    primary.ok("MULTI");
    primary.line("CLIENT KILL TYPE replica");
    for n in 0..3 {
        primary.line(&format!("SET block:{n} {block}"));
    }
    primary.line("FLUSHALL");
    primary.line("EXEC");
    wait_in_step(&mut primary, &mut replica);
    assert_eq!(replica.line("DBSIZE"), ":0\r\n");
    assert_eq!(
        primary.number("sync_full"),
        2,
        "a full sync of the same history"
    );
}

fn a_received_file_becomes_the_base(kind: ServerKind) {
    let args = ["--appendonly", "yes"];
    let Some((mut primary, mut replica)) = pair(kind, &args) else {
        return;
    };
    replica.wait_for_log(
        "Reused RDB file from primary sync as AOF base file: appendonly.aof.2.base.rdb",
    );
    assert_eq!(replica.info("aof_rewrite_in_progress"), "0");
    assert!(!replica.dir().join("dump.rdb").exists());
    primary.line("SET later 1");
    wait_in_step(&mut primary, &mut replica);
    replica.restart("SHUTDOWN NOSAVE", &[]);
    assert_eq!(replica.line("GET key"), "$16\r\nfrom-the-primary\r\n");
    assert_eq!(replica.line("GET later"), "$1\r\n1\r\n");
    // After another full sync, the files of the earlier base are deleted.
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
}

#[test]
fn a_file_of_redis_7_0_becomes_the_aofs_base() {
    a_received_file_becomes_the_base(ServerKind::Redis7);
}

#[test]
fn a_file_of_valkey_9_1_becomes_the_aofs_base() {
    a_received_file_becomes_the_base(ServerKind::Valkey9);
}

#[test]
fn a_base_is_written_where_it_must_have_commands_or_no_file_was_received() {
    for args in [
        ["--aof-use-rdb-preamble", "no"],
        ["--repl-diskless-load", "swapdb"],
    ] {
        let args = [args, ["--appendonly", "yes"]].concat();
        let (_primary, mut replica) = pair(ServerKind::Aeris, &args).expect("our own program");
        replica.wait_for_log("Background AOF rewrite finished successfully");
        replica.restart("SHUTDOWN NOSAVE", &[]);
        assert_eq!(replica.line("GET key"), "$16\r\nfrom-the-primary\r\n");
    }
}

#[test]
fn files_of_a_full_sync_are_removed_without_persistence() {
    let args = ["--rdb-del-sync-files", "yes"];
    let mut primary = Node::aeris(&["--repl-diskless-sync", "no", "--rdb-del-sync-files", "yes"]);
    primary.ok("SET key value");
    let mut replica = Node::aeris(&args);
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
    replica.wait_for_log(
        "Removing the RDB file obtained from the master. This replica has persistence disabled",
    );
    assert!(!replica.dir().join("dump.rdb").exists());
    primary
        .wait_for_log("Removing the RDB file used to feed replicas in a persistence-less instance");
    assert!(!primary.dir().join("dump.rdb").exists());
}

/// The disk of a replica hangs while a snapshot is received: clients are served, the memory stays
/// small, and the link to the primary stays. Once the disk works again, the sync is completed.
#[test]
fn a_disk_that_hangs_delays_the_sync_only() {
    for diskless in ["no", "yes"] {
        let args = [
            "--repl-diskless-sync",
            diskless,
            "--repl-diskless-sync-delay",
            "0",
            "--rdbcompression",
            "no",
        ];
        let mut primary = Node::start(ServerKind::Aeris, &args).expect("our own server");
        primary.line("DEBUG POPULATE 150 key 100000");
        let mut replica = Node::aeris(&["--repl-timeout", "5"]);
        let _logs = Logs::of(&[&primary, &replica]);
        replica.line("SET mine 1");
        replica.ok("DEBUG AOF-FLUSH-SLEEP 3600000000");
        let port = primary.port();
        replica.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
        // INFO has the field `master_sync_read_bytes` only during a sync.
        let read = |replica: &mut Node| replica.info("master_sync_read_bytes").parse().unwrap_or(0);
        wait_for("it stops reading", || read(&mut replica) > 8u64 << 20);
        // The disk hangs for longer than `repl-timeout`.
        let began = replica.number("uptime_in_seconds");
        wait_for("the timeout is over", || {
            replica.number("uptime_in_seconds") > began + 7
        });
        assert_eq!(replica.line("GET mine"), "$1\r\n1\r\n");
        assert_eq!(replica.info("master_sync_in_progress"), "1");
        assert!(read(&mut replica) < 12 << 20);
        assert!(replica.number("used_memory") < 40 << 20);
        replica.ok("DEBUG AOF-FLUSH-SLEEP 0");
        wait_in_step(&mut primary, &mut replica);
        wait_same(&mut primary, &mut replica);
        assert_eq!(primary.number("sync_full"), 1, "diskless {diskless}");
    }
}
