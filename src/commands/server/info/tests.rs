//! Tests of the whole text of INFO.

use crate::client::flag;
use crate::commands::server::info::*;
use crate::config::Config;
use crate::keyspace::evict::perform_evictions;
use crate::persist::rdb::payload;
use crate::testing;

fn ask(wanted: &[&str]) -> String {
    let mut server = Server::new(Config::default(), Vec::new());
    let client = Client::detached(1, 0);
    let wanted: Vec<&[u8]> = wanted.iter().map(|name| name.as_bytes()).collect();
    info(&mut server, &client, &wanted)
}

fn titles(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# "))
        .collect()
}

#[test]
fn sections_come_once_and_in_order() {
    let default = ask(&[]);
    let expected = [
        "Server",
        "Clients",
        "Memory",
        "Persistence",
        "Stats",
        "Replication",
        "CPU",
        "Modules",
        "Errorstats",
        "Cluster",
        "Keyspace",
        "Keysizes",
    ];
    assert_eq!(titles(&default), expected);
    assert_eq!(titles(&ask(&["cpu", "default"])), expected);
    assert_eq!(titles(&ask(&["all"])).len(), 15);
    assert_eq!(titles(&ask(&["everything", "debug"])).len(), 16);
    assert_eq!(
        titles(&ask(&["keyspace", "CPU", "nope", "cpu"])),
        ["CPU", "Keyspace"]
    );
    assert_eq!(ask(&["nope"]), "");
}

#[test]
fn every_line_is_a_field_or_a_heading() {
    let text = ask(&["everything", "debug"]);
    for line in text.split_terminator("\r\n") {
        let ok = line.is_empty() || line.starts_with("# ") || line.contains(':');
        assert!(ok && !line.contains(['\r', '\n']), "{line:?}");
    }
    assert!(!text.contains("server_name"));
    assert!(text.contains(concat!("aeris_version:", env!("CARGO_PKG_VERSION"))));
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a field appears twice");
}

#[test]
fn sections_are_parted_by_an_empty_line() {
    let text = ask(&["modules", "cluster"]);
    assert_eq!(text, "# Modules\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n");
}

/// As in Redis 8.6, there is no section about HOTKEYS unless HOTKEYS is used.
#[test]
fn sections_about_keys_exist_while_keys_are_watched() {
    let mut server = Server::new(Config::default(), Vec::new());
    let client = Client::detached(1, 0);
    let ask = |server: &mut Server, on: bool| {
        server.config.hotkeys_tracking = on;
        server.config.bigkeys_tracking = on;
        server.configure();
        info(server, &client, &[])
    };
    let text = ask(&mut server, true);
    assert!(text.contains("# Hotkeys\r\nhotkeys-tracking-active:0\r\nhotkeys-moment-active:1\r\n"));
    assert!(text.contains(
        "# Bigkeys\r\nbigkeys-complete:0\r\nbigkeys-string:max_elements=0,max_bytes=0\r\n"
    ));
    let text = ask(&mut server, false);
    assert!(!text.contains("# Hotkeys") && !text.contains("# Bigkeys"));
}

/// A server with two clients, whose clock has the present time, as the clock may be read between
/// two commands.
fn server() -> Server {
    let mut server = testing::server_with(2);
    server.clock.update();
    server
}

/// The value of a field in the reply to INFO.
fn field(server: &mut Server, name: &str) -> String {
    let text = info(
        server,
        &Client::detached(99, 0),
        &[&b"everything"[..], b"debug"],
    );
    let line = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found == name).then_some(value)
    });
    line.unwrap_or_else(|| panic!("no field {name}"))
        .to_string()
}

#[test]
fn subexpiry_counts_the_hashes_with_volatile_fields() {
    let mut server = server();
    testing::say(
        &mut server,
        0,
        &[
            "hset h f v g w",
            "hset i f v",
            "hpexpire h 100000 fields 2 f g",
        ],
    );
    assert_eq!(
        field(&mut server, "db0"),
        "keys=2,expires=0,avg_ttl=0,subexpiry=1"
    );
    testing::say(&mut server, 0, &["hpexpire i 100000 fields 1 f"]);
    assert!(field(&mut server, "db0").ends_with("subexpiry=2"));
    testing::say(&mut server, 0, &["hpersist h fields 2 f g", "del i"]);
    assert!(field(&mut server, "db0").ends_with("subexpiry=0"));
}

#[test]
fn the_time_over_maxmemory_is_counted() {
    let mut server = server();
    let times = |server: &mut Server| {
        ["total", "current"].map(|which| field(server, &format!("{which}_eviction_exceeded_time")))
    };
    server.config.maxmemory = 1;
    assert!(!perform_evictions(&mut server));
    server.clock.now_ms += 30;
    assert!(!perform_evictions(&mut server));
    assert_eq!(times(&mut server), ["30", "30"]);
    testing::say(&mut server, 0, &["config set maxmemory 0"]);
    let [total, current] = times(&mut server);
    assert_eq!(current, "0");
    assert_ne!(total, "0");
    server.config.maxmemory = usize::MAX as u64;
    server.clock.now_ms += 1000;
    assert!(perform_evictions(&mut server));
    assert_eq!(times(&mut server), [total.as_str(), "0"]);
    testing::say(
        &mut server,
        0,
        &["config set maxmemory 0", "config resetstat"],
    );
    assert_eq!(times(&mut server), ["0", "0"]);
}

#[test]
fn a_table_that_grows_is_seen_in_the_memory_section() {
    let mut server = server();
    let name = "mem_overhead_db_hashtable_rehashing";
    assert_eq!(field(&mut server, name), "0");
    for i in 0.. {
        testing::say(&mut server, 0, &[&format!("set {i} v")]);
        if server.data.dbs[0].keys.rehashing_bytes().is_some() {
            break;
        }
    }
    assert_ne!(field(&mut server, name), "0");
}

#[test]
fn keys_past_their_time_that_are_still_there_are_stale() {
    let mut server = server();
    server.debug.no_active_expire = true;
    let lines = [
        "set a 1 px 100000",
        "set b 1 pxat 99999999999999",
        "set c 1 px 100000",
    ];
    testing::say(&mut server, 0, &lines);
    assert_eq!(field(&mut server, "expired_stale_perc"), "0.00");
    server.clock.now_ms += 200_000;
    assert_eq!(field(&mut server, "expired_stale_perc"), "66.67");
}

/// An error of a command in the AOF is unexpected, as the command ran without one before; errors of
/// clients are expected.
#[test]
fn errors_of_the_aof_are_unexpected() {
    let mut server = server();
    testing::say(&mut server, 0, &["set k v", "incr k"]);
    assert_eq!(field(&mut server, "unexpected_error_replies"), "0");
    let loader = server.net.clients.get_mut(1).expect("a client");
    loader.set(flag::AOF_LOADER);
    testing::say(&mut server, 1, &["incr k"]);
    assert_eq!(field(&mut server, "unexpected_error_replies"), "1");
    assert_eq!(field(&mut server, "total_error_replies"), "2");
}

/// `dump_payload_sanitizations` counts the listpacks and intsets that Redis 8.2 counts.
#[test]
fn packed_blocks_are_counted_where_the_setting_demands_their_check() {
    let mut server = server();
    let big = "x".repeat(3000);
    let lines = [
        &format!("rpush list {big} {big} {big}"),
        "hset hash f v",
        "sadd ints 1 2",
        "zadd sorted 1 a",
        "xadd stream 1-1 f v",
        "set text v",
        &format!("sadd table {big}"),
    ];
    testing::say(&mut server, 0, &lines);
    let restore = |server: &mut Server, key: &str| {
        let before = server.stats.dump_payload_sanitizations;
        let entry = server.lookup_in(0, key.as_bytes()).expect("a key");
        let payload = payload::dump(entry, 11, false);
        let quoted: String = payload
            .iter()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect();
        let line = format!("restore {key} 0 \"{quoted}\" replace");
        assert_eq!(testing::say(server, 0, &[&line]), "+OK\r\n");
        server.stats.dump_payload_sanitizations - before
    };
    let keys = ["list", "hash", "ints", "sorted", "stream", "text", "table"];
    for (setting, expected) in [
        ("no", [0; 7]),
        ("yes", [2, 1, 1, 1, 1, 0, 0]),
        ("clients", [2, 1, 1, 1, 1, 0, 0]),
    ] {
        testing::say(
            &mut server,
            0,
            &[&format!("config set sanitize-dump-payload {setting}")],
        );
        let counts = keys.map(|key| restore(&mut server, key));
        assert_eq!(counts, expected, "{setting}");
    }
    let lines = [
        "acl setuser default skip-sanitize-payload",
        "auth default any",
    ];
    testing::say(&mut server, 0, &lines);
    assert_eq!(restore(&mut server, "hash"), 0);
}
