//! Compares the rows and the documentation of all commands with published facts: those of Valkey
//! 9.1, and of Redis 8.2 for commands that only Redis has. A difference is an error, or intended;
//! intended differences are in [`ALLOWED`] with their reason.

use std::collections::{BTreeMap, BTreeSet};

use aeris::command::docs;
use aeris::command::{BeginSearch, Command, FindKeys, KeySpec};
use serde_json::{Map, Value, json};

/// Intended differences: full name, field (`*` for all), reason. An entry whose difference no
/// longer exists is an error, too.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("bigkeys", "*", OURS),
    ("bigkeys|get", "*", OURS),
    ("bigkeys|help", "*", OURS),
    ("bigkeys|reset", "*", OURS),
    ("hotkeys", "*", REDIS_8_6),
    ("hotkeys|get", "*", REDIS_8_6),
    ("hotkeys|help", "*", REDIS_8_6),
    ("hotkeys|reset", "*", REDIS_8_6),
    ("hotkeys|start", "*", REDIS_8_6),
    ("hotkeys|stop", "*", REDIS_8_6),
    ("hotkeys|top", "*", OURS),
    ("trace", "*", OURS),
    ("trace|dump", "*", OURS),
    ("trace|help", "*", OURS),
    ("trace|record", "*", OURS),
    ("trace|start", "*", OURS),
    ("trace|status", "*", OURS),
    ("trace|stop", "*", OURS),
    ("client|caching", "flags", AS_IN_REDIS),
    ("client|capa", "flags", AS_IN_REDIS),
    ("client|getname", "flags", AS_IN_REDIS),
    ("client|getredir", "flags", AS_IN_REDIS),
    ("client|id", "flags", AS_IN_REDIS),
    ("client|no-evict", "flags", AS_IN_REDIS),
    ("client|no-touch", "flags", AS_IN_REDIS),
    ("client|reply", "flags", AS_IN_REDIS),
    ("client|setinfo", "flags", AS_IN_REDIS),
    ("client|setname", "flags", AS_IN_REDIS),
    ("cluster|info", "flags", AS_IN_REDIS),
    ("cluster|myid", "flags", AS_IN_REDIS),
    ("cluster|nodes", "flags", AS_IN_REDIS),
    (
        "script|debug",
        "arity",
        "Redis has no argument for the engine",
    ),
    ("script|exists", "flags", AS_IN_REDIS),
    ("script|flush", "flags", AS_IN_REDIS),
    ("script|show", "flags", AS_IN_REDIS),
    ("select", "flags", AS_IN_REDIS),
];

const AS_IN_REDIS: &str =
    "Redis 7.0 and 8.2 refuse it while loading, without a primary, or while a script is busy";

const REDIS_8_6: &str = "as documented for Redis 8.6, which is newer than the facts";
const OURS: &str = "no other server has it";

/// The commands of aeris that Redis has and Valkey has not.
const FROM_REDIS: &[&str] = &["xackdel", "xdelex"];

type Facts = BTreeMap<String, Map<String, Value>>;

/// The facts of commands and subcommands by full name, each with its documentation under `docs`.
fn facts() -> Facts {
    let mut facts = read(include_str!("facts/valkey-9.1.json"));
    let redis = read(include_str!("facts/redis-8.2.json"));
    facts.extend(
        redis
            .into_iter()
            .filter(|(name, _)| FROM_REDIS.contains(&name.as_str())),
    );
    facts
}

fn read(json: &str) -> Facts {
    let commands: Vec<Map<String, Value>> =
        serde_json::from_str(json).expect("facts are a list of objects");
    let mut facts = Facts::new();
    for mut command in commands {
        for sub in command
            .remove("subcommands")
            .iter()
            .flat_map(|subs| subs.as_array())
            .flatten()
        {
            let mut sub = sub.as_object().expect("a subcommand is an object").clone();
            let name = sub["name"].as_str().expect("a name").to_string();
            sub.insert(
                "docs".to_string(),
                command["docs"]["subcommands"][&name].clone(),
            );
            facts.insert(name, sub);
        }
        facts.insert(
            command["name"].as_str().expect("a name").to_string(),
            command,
        );
    }
    facts
}

/// Every command and subcommand of the table by full name.
fn rows(table: &[&'static [Command]]) -> BTreeMap<String, &'static Command> {
    let mut rows = BTreeMap::new();
    for row in table.iter().flat_map(|rows| rows.iter()) {
        assert!(
            rows.insert(row.name.to_string(), row).is_none(),
            "two rows are called {}",
            row.name
        );
        for sub in row.subcommands {
            let fullname = format!("{}|{}", row.name, sub.name);
            assert!(
                rows.insert(fullname, sub).is_none(),
                "two subcommands of {} are called {}",
                row.name,
                sub.name
            );
        }
    }
    rows
}

const NO_ROW: &str = "no row";
const DOCUMENTED_WITHOUT_ROW: &str = "documented, but no row";

/// The differences between the rows and the facts: (full name, field) and the text of each
/// difference.
fn differences(table: &[&'static [Command]]) -> BTreeMap<(String, String), String> {
    let (facts, rows) = (facts(), rows(table));
    let mut found = BTreeMap::new();
    let names: BTreeSet<_> = facts.keys().chain(rows.keys()).collect();
    for name in names {
        match (rows.get(name), facts.get(name)) {
            (Some(row), Some(fact)) => compare(name, row, fact, &mut found),
            (row, _) => {
                let what = if row.is_some() { "no facts" } else { NO_ROW };
                found.insert((name.clone(), "*".to_string()), what.to_string());
            }
        }
    }
    for (name, _) in docs::all().filter(|(name, _)| !rows.contains_key(*name)) {
        found.insert(
            (name.to_string(), "docs".to_string()),
            DOCUMENTED_WITHOUT_ROW.to_string(),
        );
    }
    found
}

fn compare(
    name: &str,
    row: &Command,
    fact: &Map<String, Value>,
    found: &mut BTreeMap<(String, String), String>,
) {
    let mut expect = |field: &str, ours: Value, theirs: Value| {
        if ours != theirs {
            found.insert(
                (name.to_string(), field.to_string()),
                format!("{ours}, not {theirs}"),
            );
        }
    };
    let (first, last, step) = row.key_range();
    expect("arity", json!(row.arity), fact["arity"].clone());
    expect("first_key", json!(first), fact["first_key"].clone());
    expect("last_key", json!(last), fact["last_key"].clone());
    expect("step", json!(step), fact["step"].clone());
    expect(
        "flags",
        sorted(row.flag_names()),
        sorted(strings(&fact["flags"]).map(our_flag)),
    );
    let categories = row.category_names().collect::<Vec<_>>();
    expect(
        "acl",
        sorted(categories),
        sorted(strings(&fact["acl"]).map(|name| name.trim_start_matches('@'))),
    );
    expect("tips", json!(row.tips), fact["tips"].clone());
    let specs = fact["key_specs"].as_array().expect("key specs are a list");
    expect(
        "key_specs",
        row.keys.iter().map(spec_as_fact).collect(),
        specs.iter().map(without_order).collect(),
    );
    match docs::lookup(name) {
        None => expect("docs", Value::Null, fact["docs"].clone()),
        Some(doc) => compare_docs(doc, &fact["docs"], expect),
    }
}

fn compare_docs(doc: &docs::Doc, fact: &Value, mut expect: impl FnMut(&str, Value, Value)) {
    let text = |field: &str| fact.get(field).cloned().unwrap_or(json!(""));
    expect("since", json!(doc.since), text("since"));
    expect("group", json!(doc.group), text("group"));
    expect(
        "deprecated_since",
        json!(doc.deprecated_since),
        text("deprecated_since"),
    );
    expect("replaced_by", json!(doc.replaced_by), text("replaced_by"));
    let list = |field: &str| fact.get(field).cloned().unwrap_or(json!([]));
    expect("doc_flags", json!(doc.doc_flags), list("doc_flags"));
    let theirs = list("history");
    let versions: Vec<_> = theirs
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| &change[0])
        .collect();
    expect(
        "history",
        doc.history
            .iter()
            .map(|(version, _)| json!(version))
            .collect(),
        json!(versions),
    );
    expect(
        "arguments",
        doc.arguments.iter().map(argument_as_fact).collect(),
        list("arguments"),
    );
    // The text of the complexity differs; only its existence is compared.
    expect(
        "complexity",
        json!(doc.complexity.is_empty()),
        json!(fact.get("complexity").is_none()),
    );
}

/// Valkey 9.1 has the name `skip_commandlog` for the flag `skip_slowlog`.
fn our_flag(flag: &str) -> &str {
    if flag == "skip_commandlog" {
        "skip_slowlog"
    } else {
        flag
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    json!(names.into_iter().collect::<BTreeSet<_>>())
}

fn spec_as_fact(spec: &KeySpec) -> Value {
    let begin = match spec.begin {
        BeginSearch::Index(index) => json!({"type": "index", "spec": {"index": index}}),
        BeginSearch::Keyword {
            keyword,
            start_from,
        } => {
            json!({"type": "keyword", "spec": {"keyword": keyword, "startfrom": start_from}})
        }
        BeginSearch::Unknown => json!({"type": "unknown", "spec": {}}),
    };
    let find = match spec.find {
        FindKeys::Range { last, step, limit } => {
            json!({"type": "range", "spec": {"lastkey": last, "keystep": step, "limit": limit}})
        }
        FindKeys::KeyNum {
            number,
            first_key,
            step,
        } => {
            json!({"type": "keynum", "spec": {"keynumidx": number, "firstkey": first_key, "keystep": step}})
        }
        FindKeys::Unknown => json!({"type": "unknown", "spec": {}}),
    };
    let mut fact =
        json!({"flags": sorted(spec.flag_names()), "begin_search": begin, "find_keys": find});
    if !spec.note.is_empty() {
        fact["notes"] = json!(spec.note);
    }
    fact
}

fn without_order(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["flags"] = sorted(strings(&spec["flags"].clone()));
    spec
}

fn argument_as_fact(argument: &docs::Argument) -> Value {
    let mut fact = json!({"name": argument.name, "type": argument.kind});
    let texts = [
        ("display_text", &argument.display_text),
        ("summary", &argument.summary),
        ("since", &argument.since),
        ("deprecated_since", &argument.deprecated_since),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        fact[field] = json!(text);
    }
    if let Some(token) = &argument.token {
        fact["token"] = json!(token);
    }
    if let Some(index) = argument.key_spec_index {
        fact["key_spec_index"] = json!(index);
    }
    if !argument.flags.is_empty() {
        fact["flags"] = json!(argument.flags);
    }
    if !argument.arguments.is_empty() {
        fact["arguments"] = argument.arguments.iter().map(argument_as_fact).collect();
    }
    fact
}

#[test]
fn rows_and_documentation_agree_with_the_facts() {
    let mut found = differences(aeris::commands::TABLE);
    let mut stale = Vec::new();
    for (name, field, reason) in ALLOWED {
        assert!(
            !reason.is_empty(),
            "{name} {field} differs without a reason"
        );
        if found
            .remove(&(name.to_string(), field.to_string()))
            .is_none()
        {
            stale.push((name, field));
        }
    }
    let list: Vec<_> = found
        .iter()
        .map(|((name, field), what)| format!("{name} {field}: {what}"))
        .collect();
    assert!(
        list.is_empty(),
        "{} differences:\n{}",
        list.len(),
        list.join("\n")
    );
    assert!(stale.is_empty(), "allowed, but not different: {stale:?}");
}

/// The comparison finds every difference between the facts and a row whose fields are all wrong.
#[test]
fn a_wrong_row_is_found() {
    use aeris::command::{FAST, HASH, OW, WRITE, cmd, container, key_at};
    const WRONG: &[Command] = &[
        cmd("get", container, 3, WRITE | FAST, HASH)
            .keys(&[key_at(2, OW)])
            .tips(&["nondeterministic_output"]),
        cmd("nosuch", container, 1, FAST, 0),
    ];
    let found = differences(&[WRONG]);
    let fields: Vec<_> = found
        .keys()
        .filter(|(name, _)| name == "get")
        .map(|(_, field)| field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "acl",
            "arity",
            "first_key",
            "flags",
            "key_specs",
            "last_key",
            "tips"
        ]
    );
    assert_eq!(found[&("nosuch".to_string(), "*".to_string())], "no facts");
    assert_eq!(found[&("set".to_string(), "*".to_string())], NO_ROW);
}
