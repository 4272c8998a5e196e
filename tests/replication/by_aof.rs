//! A restarted server continues its replication history by its AOF, and Redis and Valkey can read
//! the AOF's files.

use crate::nodes::{Node, ServerKind, wait_for, wait_in_step, wait_same};

const AOF: [&str; 2] = ["--appendonly", "yes"];

/// The last line of the newest incremental file of a node's AOF.
fn last_line(node: &Node) -> String {
    let dir = node.dir().join("appendonlydir");
    let files = std::fs::read_dir(dir).expect("a directory");
    let paths = files.map(|entry| entry.expect("an entry").path());
    let newest = paths.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    let newest = newest.max().expect("a file of commands");
    let bytes = std::fs::read(newest).expect("readable");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().last().unwrap_or_default().to_string()
}

#[test]
fn a_primary_continues_its_history_with_its_aof() {
    let mut primary = Node::aeris(&AOF);
    let mut replica = Node::aeris(&[]);
    primary.ok("SET key value");
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
    primary.ok("SET key other");
    primary.line("SELECT 9");
    primary.line("SET nine 9");
    wait_in_step(&mut primary, &mut replica);
    let id = primary.info("master_replid");
    primary.restart("SHUTDOWN", &[]);
    assert_eq!(primary.info("master_replid2"), id);
    wait_in_step(&mut primary, &mut replica);
    assert_eq!(primary.number("sync_full"), 0, "the replica continued");
    // The second restart continues the history, too, although nothing was written after the first.
    primary.restart("SHUTDOWN", &[]);
    wait_in_step(&mut primary, &mut replica);
    assert_eq!(primary.number("sync_full"), 0, "the replica continued");
    primary.ok("SET last 1");
    wait_in_step(&mut primary, &mut replica);
    wait_same(&mut primary, &mut replica);
}

#[test]
fn a_torn_tail_has_no_position() {
    let mut primary = Node::aeris(&[]);
    let mut replica = Node::aeris(&AOF);
    primary.ok("SET key value");
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
    primary.ok("SET key other");
    wait_in_step(&mut primary, &mut replica);
    assert!(last_line(&replica).starts_with("#REPL:"));
    replica.peer.kill();
    let dir = replica.dir().join("appendonlydir");
    let torn = std::fs::read_dir(dir).expect("a directory");
    let torn = torn.map(|entry| entry.expect("an entry").path());
    for path in torn.filter(|path| path.to_string_lossy().ends_with(".incr.aof")) {
        let bytes = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &bytes[..bytes.len().saturating_sub(5)]).expect("written");
    }
    let port = primary.port().to_string();
    let address = format!("127.0.0.1 {port}");
    replica.start_again(&["--replicaof", &address]);
    wait_in_step(&mut primary, &mut replica);
    wait_same(&mut primary, &mut replica);
    assert_eq!(primary.number("sync_full"), 2, "the position is unknown");
}

#[test]
fn real_servers_read_the_annotated_files() {
    for kind in ServerKind::PEERS {
        // Redis 7.0 can't read a base whose RDB version is above 10.
        let mut ours = Node::aeris(&["--appendonly", "yes", "--rdb-version", "10"]);
        ours.ok("SET key value");
        let mut replica = Node::aeris(&[]);
        replica.follow(&ours);
        wait_in_step(&mut ours, &mut replica);
        for n in 0..20 {
            ours.ok(&format!("SET key:{n} {n}"));
        }
        ours.line("MULTI");
        ours.line("SELECT 9");
        ours.line("RPUSH list a b");
        ours.line("EXEC");
        ours.restart("SHUTDOWN", &[]);
        assert!(last_line(&ours).starts_with("#REPL:"));
        let dir = ours.dir().to_string_lossy().into_owned();
        ours.peer.kill();
        let Some(mut theirs) = Node::start(kind, &["--dir", &dir, "--appendonly", "yes"]) else {
            continue;
        };
        wait_for("it has loaded", || {
            !theirs.line("DBSIZE").starts_with("-LOADING")
        });
        assert_eq!(theirs.line("DBSIZE"), ":21\r\n", "{kind:?}");
        theirs.line("SELECT 9");
        assert_eq!(theirs.line("LLEN list"), ":2\r\n", "{kind:?}");
    }
}
