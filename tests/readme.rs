//! README's table of commands is generated from the rows, so that it has exactly the existing
//! commands.
//!
//! `UPDATE_README=1 cargo test --test readme` writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use aeris::command::NOT_BUILT;
use aeris::commands;
use serde_json::{Map, Value};

const BEGIN: &str = "<!-- commands: made from the rows, see tests/readme.rs -->\n";
const END: &str = "<!-- end of commands -->\n";

/// The groups in the documentation of commands, in the order of the table.
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

/// The top-level commands with documentation, by group.
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
    // Commands of features that are not built have rows too, and are marked.
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

#[test]
fn the_table_of_commands_is_that_of_the_rows() {
    let path = readme();
    let text = fs::read_to_string(&path).expect("README.md");
    let (head, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (found, tail) = rest.split_once(END).expect("where the table ends");
    let expected = table();
    if std::env::var_os("UPDATE_README").is_some() {
        let new = format!("{head}{BEGIN}{expected}{END}{tail}");
        return fs::write(&path, new).expect("README.md can be written");
    }
    assert!(
        found == expected,
        "README's table of commands is not that of the rows: UPDATE_README=1 cargo test --test readme"
    );
}
