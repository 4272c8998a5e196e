//! INFO's text as a whole.

use crate::commands::server::info::*;
use crate::config::Config;

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
    ];
    assert_eq!(titles(&default), expected);
    assert_eq!(titles(&ask(&["cpu", "default"])), expected);
    assert_eq!(titles(&ask(&["all"])).len(), 13);
    assert_eq!(titles(&ask(&["everything", "debug"])).len(), 14);
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

/// As in Redis 8.6: there is nothing of HOTKEYS unless somebody uses it.
#[test]
fn what_watches_keys_is_told_while_it_does() {
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
