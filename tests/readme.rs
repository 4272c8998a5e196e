//! README's tables of commands and of tls-* settings, and the table of all settings in
//! `tools/settings.md`, are generated from the rows in the code, so that they list exactly what
//! exists.
//!
//! `UPDATE_README=1 cargo test --test readme` writes the tables again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aeris::command::NOT_BUILT;
use aeris::commands;
use aeris::config::{Config, HIDDEN, IMMUTABLE, NO_EFFECT, Row, TABLE, lookup};
use serde_json::{Map, Value};

const BEGIN: &str = "<!-- commands: made from the rows, see tests/readme.rs -->\n";
const END: &str = "<!-- end of commands -->\n";
const BEGIN_TLS: &str = "<!-- tls: made from the rows, see tests/readme.rs -->\n";
const END_TLS: &str = "<!-- end of tls -->\n";
const BEGIN_SETTINGS: &str = "<!-- settings: made from the rows, see tests/readme.rs -->\n";
const END_SETTINGS: &str = "<!-- end of settings -->\n";

/// The groups of commands in `src/command/docs.json`, in the order of README's table.
const GROUPS: [&str; 16] = [
    "string",
    "list",
    "hash",
    "set",
    "sorted-set",
    "stream",
    "bitmap",
    "hyperloglog",
    "geo",
    "generic",
    "transactions",
    "pubsub",
    "scripting",
    "connection",
    "server",
    "cluster",
];

fn readme() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// The top-level commands in `src/command/docs.json`, by group.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let docs: Map<String, Value> =
        serde_json::from_str(include_str!("../src/command/docs.json")).expect("an object");
    let mut groups = BTreeMap::<String, BTreeSet<String>>::new();
    for (name, doc) in docs.iter().filter(|(name, _)| !name.contains('|')) {
        let group = doc["group"].as_str().expect("a group");
        groups.entry(group.into()).or_default().insert(name.clone());
    }
    groups
}

fn table() -> String {
    // The rows of features that are not built are marked; their commands are in a column of their
    // own.
    let rows: BTreeSet<&str> = commands::TABLE
        .iter()
        .flat_map(|rows| rows.iter())
        .filter(|row| !row.is(NOT_BUILT))
        .map(|row| row.name)
        .collect();
    let documented = documented();
    for group in documented.keys() {
        assert!(
            GROUPS.contains(&group.as_str()),
            "no place for group {group}"
        );
    }
    let mut out = String::from("| group | commands | not yet |\n|---|---|---|\n");
    for group in GROUPS {
        let Some(names) = documented.get(group) else {
            continue;
        };
        let (here, missing): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| rows.contains(name));
        let listed = |names: Vec<&str>| names.join(" ").to_uppercase();
        out += &format!("| {group} | {} | {} |\n", listed(here), listed(missing));
    }
    out
}

/// The settings of the real servers, as CONFIG GET shows them: name and value in each line.
const PEERS: [(&str, &str); 4] = [
    ("Redis 7.0", include_str!("facts/settings/redis-7.0.txt")),
    ("Redis 8.2", include_str!("facts/settings/redis-8.2.txt")),
    ("Valkey 8.0", include_str!("facts/settings/valkey-8.0.txt")),
    ("Valkey 9.1", include_str!("facts/settings/valkey-9.1.txt")),
];

/// Settings that every real server has, and that the files of facts leave out, because their values
/// were those of the run that made the files.
const OF_EVERY_PEER: [&str; 5] = ["port", "pidfile", "logfile", "dir", "save"];

/// The real servers that have a setting of this name.
fn peers_with(name: &str) -> String {
    if OF_EVERY_PEER.contains(&name) {
        return "all".into();
    }
    let has = |text: &str| {
        text.lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let with = PEERS.iter().filter(|(_, text)| has(text));
    let with: Vec<&str> = with.map(|(peer, _)| *peer).collect();
    match with.len() {
        4 => "all".into(),
        0 => "none".into(),
        _ => with.join(", "),
    }
}

/// The settings that work in part, with the text for their state.
const IN_PART: [(&str, &str); 1] = [(
    "tls-dh-params-file",
    "read and checked, then ignored with a warning",
)];

fn state(row: &Row) -> &'static str {
    if let Some((_, state)) = IN_PART.iter().find(|(name, _)| *name == row.name) {
        return state;
    }
    match (row.is(NO_EFFECT), row.is(IMMUTABLE)) {
        (true, _) => "accepted, no effect",
        (_, true) => "works, at start only",
        _ => "works",
    }
}

/// The default of a setting as a cell of a table, which is the same on each machine and in each
/// folder.
fn shown_default(row: &Row) -> String {
    if row.name == "dir" {
        return "the folder where the server is started".into();
    }
    let value = row.get(&Config::default());
    let value = String::from_utf8(value).expect("defaults are text");
    match value.as_str() {
        "" => String::new(),
        value => format!("`{value}`"),
    }
}

fn table_of_settings() -> String {
    let mut out =
        String::from("| setting | default | peers that have it | state |\n|---|---|---|---|\n");
    for row in TABLE.iter().filter(|row| !row.is(HIDDEN)) {
        for name in row.names() {
            let of = match name == row.name {
                true => shown_default(row),
                false => format!("as {}", row.name),
            };
            let line = format!(
                "| {name} | {of} | {} | {} |\n",
                peers_with(name),
                state(row)
            );
            out += &line;
        }
    }
    out
}

fn table_of_tls() -> String {
    let mut out = String::from("| setting | default | state |\n|---|---|---|\n");
    for row in TABLE.iter().filter(|row| row.name.starts_with("tls-")) {
        out += &format!(
            "| {} | {} | {} |\n",
            row.name,
            shown_default(row),
            state(row)
        );
    }
    out
}

/// Compares the text between two marks of a file with `expected`, or writes it there with
/// `UPDATE_README`.
fn check_part(path: &Path, begin: &str, end: &str, expected: &str) {
    let text = fs::read_to_string(path).expect("a file of the project");
    let (head, rest) = text.split_once(begin).expect("where the table begins");
    let (found, tail) = rest.split_once(end).expect("where the table ends");
    if std::env::var_os("UPDATE_README").is_some() {
        let new = format!("{head}{begin}{expected}{end}{tail}");
        return fs::write(path, new).expect("the file can be written");
    }
    assert!(
        found == expected,
        "a table in {} is not that of the rows: UPDATE_README=1 cargo test --test readme",
        path.display()
    );
}

/// The parts are checked in one test, because they are written into the files one after the other.
#[test]
fn the_tables_are_those_of_the_rows() {
    check_part(&readme(), BEGIN, END, &table());
    check_part(&readme(), BEGIN_TLS, END_TLS, &table_of_tls());
    let settings = readme().with_file_name("tools").join("settings.md");
    check_part(
        &settings,
        BEGIN_SETTINGS,
        END_SETTINGS,
        &table_of_settings(),
    );
}

#[test]
fn each_name_of_a_peer_is_a_setting_here() {
    for (peer, text) in PEERS {
        for name in text.lines().filter_map(|line| line.split(' ').next()) {
            assert!(lookup(name.as_bytes()).is_some(), "{peer} has {name}");
        }
    }
}
