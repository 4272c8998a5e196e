//! Servers of aeris as nodes of a cluster: among themselves, and with nodes of Redis and Valkey.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Peer, Reply, free_port, multibulk, parse_reply};

/// A function that starts a server; `None` if a server of this kind is not installed.
type Start = fn(&[&str]) -> Option<Peer>;

fn ours(args: &[&str]) -> Option<Peer> {
    Some(Peer::aeris(args))
}

/// Sends a request and returns its reply as text.
fn text(server: &Peer, line: &str) -> String {
    words(parse_reply(server.connect().line(line).as_bytes()))
}

fn words(reply: Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // The line without its first byte, which is the type of the reply.
        Reply::Line(bytes) => String::from_utf8_lossy(&bytes[1..]).into_owned(),
        Reply::Many(_, items) => {
            let items = items.into_iter().map(words);
            items.collect::<Vec<_>>().join(" ")
        }
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(90), "no {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_up(server: &Peer) -> bool {
    text(server, "CLUSTER INFO").contains("cluster_state:ok")
}

/// The words of a node's line in CLUSTER NODES, from the flags on.
fn line(server: &Peer, name: &str) -> String {
    let nodes = text(server, "CLUSTER NODES");
    let found = nodes.lines().find(|line| line.starts_with(name));
    let words = found.unwrap_or("").splitn(3, ' ').nth(2);
    words.unwrap_or("").to_string()
}

fn start(start: Start, settings: &[&str]) -> Option<(Peer, String)> {
    let bus = free_port().to_string();
    let mut args = vec![
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
        "--cluster-port",
        &bus,
    ];
    args.extend(settings);
    let server = start(&args)?;
    Some((server, bus))
}

/// Starts three primaries with a third of the slots each, and a replica of the first. Returns the
/// servers and their node names.
fn cluster(starts: [Start; 4]) -> Option<(Vec<Peer>, Vec<String>)> {
    let nodes: Option<Vec<(Peer, String)>> = starts.iter().map(|how| start(*how, &[])).collect();
    let nodes = nodes?;
    for (at, (server, _)) in nodes.iter().enumerate() {
        let epoch = format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1);
        assert_eq!(text(server, &epoch), "OK");
        if at < 3 {
            let (first, end) = (at * 16384 / 3, (at + 1) * 16384 / 3);
            let added = format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1);
            assert_eq!(text(server, &added), "OK");
        }
    }
    let others = nodes[1..].iter();
    let meets = others.map(|(server, bus)| format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port));
    let meets: Vec<String> = meets.collect();
    let servers: Vec<Peer> = nodes.into_iter().map(|(server, _)| server).collect();
    let round = std::cell::Cell::new(0);
    wait_until("joined cluster", || {
        // A handshake that a busy machine delays is given up by the nodes, so CLUSTER MEET is sent
        // again.
        if round.replace(round.get() + 1) % 200 == 0 {
            for meet in &meets {
                assert_eq!(text(&servers[0], meet), "OK");
            }
        }
        let knows = |server: &Peer| {
            let nodes = text(server, "CLUSTER NODES");
            nodes.matches(" connected").count() == 4 && is_up(server)
        };
        servers.iter().all(knows)
    });
    let names: Vec<String> = servers
        .iter()
        .map(|server| text(server, "CLUSTER MYID"))
        .collect();
    let replicate = format!("CLUSTER REPLICATE {}", names[0]);
    assert_eq!(text(&servers[3], &replicate), "OK");
    let follows = format!("slave {} ", names[0]);
    wait_until("replica", || {
        let knows = |server: &Peer| line(server, &names[3]).contains(&follows);
        let synced = text(&servers[3], "INFO replication").contains("master_link_status:up");
        synced && servers.iter().all(knows)
    });
    Some((servers, names))
}

/// The primary is killed, its replica is elected, the old primary follows the new one, and takes
/// the role back by CLUSTER FAILOVER.
fn story(starts: [Start; 4]) {
    let Some((mut servers, names)) = cluster(starts) else {
        return;
    };
    // `key:{b}` is in slot 3300, which the first primary owns. SET and WAIT share a connection,
    // because WAIT is about the writes of its own connection.
    let mut writer = servers[0].connect();
    assert_eq!(writer.line("SET key:{b} value"), "+OK\r\n");
    assert_eq!(writer.line("WAIT 1 60000"), ":1\r\n");
    servers[0].kill();
    wait_until("election", || {
        let owns = |server: &Peer| line(server, &names[3]).contains(" 0-5460") && is_up(server);
        servers[1..].iter().all(owns)
    });
    assert!(text(&servers[3], "ROLE").starts_with("master "));
    assert_eq!(text(&servers[3], "GET key:{b}"), "value");
    assert_eq!(text(&servers[3], "SET key:{b} second"), "OK");

    servers[0].start_again(&[]);
    let follows = format!("slave {} ", names[3]);
    wait_until("return", || {
        let synced = text(&servers[0], "INFO replication").contains("master_link_status:up");
        let known = |server: &Peer| line(server, &names[0]).contains(&follows);
        synced && servers.iter().all(known)
    });
    assert_eq!(text(&servers[0], "CLUSTER MYID"), names[0]);

    assert_eq!(text(&servers[0], "CLUSTER FAILOVER"), "OK");
    wait_until("manual failover", || {
        let owns = |server: &Peer| line(server, &names[0]).contains(" 0-5460") && is_up(server);
        let follows = text(&servers[3], "ROLE").starts_with("slave ");
        follows && servers.iter().all(owns)
    });
    assert_eq!(text(&servers[0], "GET key:{b}"), "second");
    assert!(text(&servers[0], "ROLE").starts_with("master "));
}

#[test]
fn a_failover_of_ours() {
    story([ours; 4]);
}

#[test]
fn a_replica_of_ours_replaces_a_primary_of_redis_7() {
    story([Peer::redis, Peer::redis, ours, ours]);
}

#[test]
fn a_replica_of_valkey_9_replaces_a_primary_of_ours() {
    story([ours, Peer::valkey9, ours, Peer::valkey9]);
}

/// A primary that gets SHUTDOWN FAILOVER, or SIGTERM with `shutdown-on-sigterm failover`, gives its
/// slots to its replica, whose own elections are switched off.
fn hand_over(starts: [Start; 4], by_signal: bool) {
    let Some((servers, names)) = cluster(starts) else {
        return;
    };
    let alone = "CONFIG SET cluster-replica-no-failover yes";
    assert_eq!(text(&servers[3], alone), "OK");
    assert_eq!(text(&servers[0], "SET key:{b} value"), "OK");
    if by_signal {
        let how = ["CONFIG", "SET", "shutdown-on-sigterm", "nosave failover"];
        assert_eq!(servers[0].connect().cmd(&how), b"+OK\r\n");
        let pid = servers[0].pid().to_string();
        let killed = Command::new("kill").arg(pid).status();
        assert!(killed.is_ok_and(|status| status.success()));
    } else {
        let mut c = servers[0].connect();
        c.send(&multibulk(&["SHUTDOWN", "NOSAVE", "FAILOVER"]));
    }
    wait_until("successor", || {
        let owns = |server: &Peer| line(server, &names[3]).contains(" 0-5460") && is_up(server);
        servers[1..].iter().all(owns)
    });
    assert!(text(&servers[3], "ROLE").starts_with("master "));
    assert_eq!(text(&servers[3], "GET key:{b}"), "value");
}

#[test]
fn a_primary_of_ours_that_stops_hands_over() {
    for by_signal in [false, true] {
        hand_over([ours; 4], by_signal);
    }
}

#[test]
fn valkey_9_and_ours_hand_over_to_each_other() {
    hand_over([ours, ours, ours, Peer::valkey9], false);
    hand_over([Peer::valkey9, ours, ours, ours], false);
}

#[test]
fn a_server_without_a_cluster_hands_nothing_over() {
    let reply = Peer::aeris(&[]).connect().line("SHUTDOWN FAILOVER");
    assert_eq!(
        reply,
        "-ERR SHUTDOWN FAILOVER is only supported in cluster mode.\r\n"
    );
}

/// An idle node must not call the handler of a bus link without need: the event loop would then
/// turn without a pause and use a whole core.
#[test]
fn idle_nodes_sleep_between_their_pings() {
    let (servers, _) = cluster([ours; 4]).expect("servers");
    for server in &servers {
        let mut c = server.connect();
        let mut look = || {
            let turns = number(&c.line("INFO stats"), "eventloop_cycles");
            let sent = number(&c.line("CLUSTER INFO"), "cluster_stats_messages_sent");
            (turns, sent)
        };
        let first = look();
        let mut last = first;
        wait_until("pings", || {
            std::thread::sleep(Duration::from_millis(200));
            last = look();
            last.1 >= first.1 + 10
        });
        let turns = last.0 - first.0;
        let sent = last.1 - first.1;
        assert!(turns < 200 * sent, "{turns} turns for {sent} packets");
    }
}

/// The fields of INFO that only a node of a cluster has, which tests/observed_fields.rs leaves out.
#[test]
fn fields_of_a_node_have_its_values() {
    let (servers, _) = cluster([ours; 4]).expect("servers");
    let mut c = servers[0].connect();
    let server = c.line("INFO server");
    assert!(server.contains("\r\nredis_mode:cluster\r\n"), "{server}");
    assert_eq!(number(&c.line("INFO cluster"), "cluster_enabled"), 1);
    // Each of the three other nodes has a link from this node and a link to it.
    wait_until("links to all nodes", || {
        number(&c.line("INFO clients"), "cluster_connections") == 6
    });
    assert!(number(&c.line("INFO memory"), "mem_cluster_links") > 0);
    let Reply::Many(_, stats) = parse_reply(c.line("MEMORY STATS").as_bytes()) else {
        panic!("no map");
    };
    let mut pairs = stats.chunks(2);
    let links = pairs.find(|pair| words(pair[0].clone()) == "cluster.links");
    let links = words(links.expect("cluster.links")[1].clone());
    assert_ne!(links, "0");
}

fn number(info: &str, field: &str) -> u64 {
    let mut values = info
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = values.next().expect("the field");
    value.trim().parse().expect("a number")
}

/// CLUSTER SLOTS leaves a replica out while it loads: clients must not read a part of the data.
#[test]
fn a_replica_that_loads_is_not_listed() {
    let (servers, names) = cluster([ours; 4]).expect("servers");
    let mut primary = servers[0].connect();
    assert_eq!(primary.line("DEBUG POPULATE 3000 {b} 1000"), "+OK\r\n");
    // Only after a write has the replication stream an offset above 0.
    assert_eq!(primary.line("SET {b} value"), "+OK\r\n");
    let is_listed = |server: &Peer| text(server, "CLUSTER SLOTS").contains(&names[3]);
    wait_until("entry in CLUSTER SLOTS", || servers.iter().all(is_listed));
    let mut replica = servers[3].connect();
    for set in [
        "CONFIG SET key-load-delay 10000",
        "CONFIG SET loading-process-events-interval-bytes 1024",
    ] {
        assert_eq!(replica.line(set), "+OK\r\n");
    }
    primary.line("DEBUG CHANGE-REPL-ID");
    primary.line("CLIENT KILL TYPE replica");
    wait_until("removal from CLUSTER SLOTS", || {
        !servers.iter().any(is_listed)
    });
    let loading = number(&replica.line("INFO persistence"), "loading");
    assert_eq!(loading, 1);
    assert_eq!(replica.line("CONFIG SET key-load-delay 0"), "+OK\r\n");
    wait_until("entry in CLUSTER SLOTS", || servers.iter().all(is_listed));
}

#[test]
fn messages_reach_the_subscribers_of_all_nodes() {
    let Some((servers, _)) = cluster([ours, ours, Peer::redis, ours]) else {
        return;
    };
    let mut subscribers: Vec<_> = servers.iter().map(Peer::connect).collect();
    for subscriber in &mut subscribers {
        assert!(subscriber.line("SUBSCRIBE news").contains("subscribe"));
    }
    for server in &servers {
        text(server, "PUBLISH news hello");
        for subscriber in &mut subscribers {
            let message = String::from_utf8_lossy(&subscriber.reply()).into_owned();
            assert!(message.contains("hello"), "{message}");
        }
    }
}

#[test]
fn a_second_server_does_not_start_on_the_same_file() {
    let (first, _) = start(ours, &[]).expect("a server");
    let name = text(&first, "CLUSTER MYID");
    // A save replaces nodes.conf by a new file, which must be locked, too.
    assert_eq!(text(&first, "CLUSTER BUMPEPOCH"), "BUMPED 1");
    let file = first.dir().join("nodes.conf");
    wait_until("saved file", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.contains("vars currentEpoch 1 ")
    });
    let second = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
        .args(["--port", &free_port().to_string()])
        .args(["--cluster-enabled", "yes", "--cluster-config-file"])
        .arg(&file)
        .output()
        .expect("a process");
    assert!(!second.status.success());
    let log = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(
        log.contains("is already used by a different Redis Cluster node"),
        "{log}"
    );
    assert_eq!(text(&first, "CLUSTER MYID"), name);
}

#[test]
fn a_damaged_file_ends_the_start() {
    let (mut server, _) = start(ours, &[]).expect("a server");
    server.kill();
    let file = server.dir().join("nodes.conf");
    let text = std::fs::read_to_string(&file).expect("the file");
    let cut = &text[..text.len() - 5];
    std::fs::write(&file, cut).expect("written");
    let again = Command::new(env!("CARGO_BIN_EXE_aeris-server"))
        .args(["--port", &free_port().to_string()])
        .args(["--cluster-enabled", "yes", "--cluster-config-file"])
        .arg(&file)
        .output()
        .expect("a process");
    assert!(!again.status.success());
    let log = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(log.contains("corrupted cluster config file"), "{log}");
    // The server that refused to start has left the damaged file unchanged.
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), cut);
}
