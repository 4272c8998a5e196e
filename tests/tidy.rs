//! The rules of the project, as tests: layers, `unsafe`, lengths, words.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const COMMENT_COLUMNS_MAX: usize = 100;

struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dirs: &[&str]) -> Vec<Source> {
    files(dirs, "rs")
}

/// All files whose names end with `kind`; `dirs` has the paths of files and of folders.
fn files(dirs: &[&str], kind: &str) -> Vec<Source> {
    let mut todo: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    let mut out = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            todo.extend(
                entries
                    .map(|e| e.expect("an entry").path())
                    .filter(|p| !p.ends_with("target")),
            );
        } else if path.extension().is_some_and(|e| e == kind) {
            let name = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            out.push(Source {
                path: name,
                text: fs::read_to_string(&path).expect("text"),
            });
        }
    }
    assert!(out.len() > 3, "the walk found too little");
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The rooms (folders and files) of `src/`, from the lowest layer up: a room may import itself and
/// the rooms before it in this list. `state` names every room, and every room may name
/// `state::Server`. Tests may name anything.
const ROOMS: &[&str] = &[
    "util",
    "texts",
    "sys",
    "ds",
    "config",
    "error",
    "armed",
    "types",
    "clock",
    "connection",
    "link",
    "client",
    "db",
    "cluster",
    "command",
    "clients",
    "pubsub",
    "acl",
    "tracking",
    "propagate",
    "replication",
    "observe",
    "keyspace",
    "execute",
    "script",
    "data_set",
    "persist",
    "sync",
    "member",
    "commands",
    "networking",
    "server",
];

/// Imports from a room that is higher, each with its reason: (file, what the file names, reason).
const UPWARD: &[(&str, &str, &str)] = &[
    (
        "src/commands/server/config.rs",
        "server::settings",
        "CONFIG SET answers whether the new setting could be applied, so it is applied at once",
    ),
    (
        "src/commands/server/shutdown.rs",
        "server::shutdown",
        "SHUTDOWN leaves a request that the server takes up between two turns",
    ),
    (
        "src/commands/server/debug/crash.rs",
        "server::shutdown",
        "DEBUG RESTART replaces the process",
    ),
    (
        "src/commands/server/trace.rs",
        "server::record",
        "TRACE RECORD replaces the process, as DEBUG RESTART does",
    ),
    (
        "src/acl/mod.rs",
        "execute::disconnect",
        "a user that loses its rights is disconnected before the command answers",
    ),
];

/// Names at the root of the crate that do not belong to a room.
const ROOT_NAMES: &[&str] = &[
    "REDIS_VERSION",
    "VALKEY_VERSION",
    "VERSION",
    "build_id",
    "state",
];

/// The first two names of each path that begins with `crate::`, in code: `client::reply`.
fn paths_used(text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    let code = code.join("\n");
    code.match_indices("crate::")
        .flat_map(|(at, found)| first_names(&code[at + found.len()..]))
        .collect()
}

/// The first two names of a path: `a::b::c` gives `a::b`; `{a, b::c}` gives `a` and `b::c`.
fn first_names(rest: &str) -> Vec<String> {
    let name_end = |text: &str| {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    if let Some(list) = rest.strip_prefix('{') {
        let list = list.split('}').next().unwrap_or("");
        return list
            .split(',')
            .flat_map(|item| first_names(item.trim()))
            .collect();
    }
    let first = &rest[..name_end(rest)];
    let second = rest[first.len()..].strip_prefix("::").unwrap_or("");
    let second = &second[..name_end(second)];
    vec![if second.is_empty() {
        first.to_string()
    } else {
        format!("{first}::{second}")
    }]
}

/// The code of a file without its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("")
}

/// The number of `super::` that lead from the module of this file to the root of the crate.
fn depth(path: &str) -> usize {
    let path = path.strip_suffix("/mod.rs").unwrap_or(path);
    path.matches('/').count()
}

/// The length of the longest chain of `super::` in the code.
fn longest_chain_of_super(text: &str) -> usize {
    let chains = (1..).take_while(|n| text.contains(&"super::".repeat(*n)));
    chains.last().unwrap_or(0)
}

fn room_of(path: &str) -> Option<usize> {
    let name = path.strip_prefix("src/")?.split(['/', '.']).next()?;
    ROOMS.iter().position(|room| *room == name)
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path == "src/testing.rs"
}

#[test]
fn arrows_run_downwards() {
    let (mut problems, mut arrows, mut excused) = (Vec::new(), 0, vec![0; UPWARD.len()]);
    for source in sources(&["src"]) {
        if ["src/lib.rs", "src/main.rs", "src/state.rs"].contains(&source.path.as_str())
            || is_test_file(&source.path)
        {
            continue;
        }
        let Some(room) = room_of(&source.path) else {
            problems.push(format!("{}: in no room of ROOMS", source.path));
            continue;
        };
        let code = without_tests(&source.text);
        let has_inner_module = code.lines().any(|line| {
            let item = line.strip_prefix("pub ").unwrap_or(line);
            item.starts_with("mod ") && item.ends_with('{')
        });
        if longest_chain_of_super(code) >= depth(&source.path) + usize::from(has_inner_module) {
            problems.push(format!("{}: `super` leaves the room", source.path));
        }
        for path in paths_used(without_tests(&source.text)) {
            let first = path.split("::").next().unwrap_or("");
            if first == ROOMS[room] || ROOT_NAMES.contains(&first) || first == "testing" {
                continue;
            }
            arrows += 1;
            let excuse = UPWARD
                .iter()
                .position(|(file, name, _)| *file == source.path && *name == path);
            match ROOMS.iter().position(|other| *other == first) {
                None => problems.push(format!("{}: {path} is in no room", source.path)),
                Some(other) if other < room => {}
                Some(_) => match excuse {
                    Some(line) => excused[line] += 1,
                    None => problems.push(format!("{}: {path} runs upwards", source.path)),
                },
            }
        }
    }
    for (line, count) in UPWARD.iter().zip(&excused) {
        if *count == 0 {
            problems.push(format!("UPWARD: {} names {} no more", line.0, line.1));
        }
    }
    println!(
        "{arrows} arrows between rooms, {} of them upwards",
        excused.iter().sum::<usize>()
    );
    report(problems);
}

#[test]
fn data_does_not_name_the_server() {
    // The rooms up to `db` are data: their functions take what they need as parameters.
    let below = ROOMS.iter().position(|room| *room == "db").expect("a room");
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = room_of(&source.path).filter(|room| *room <= below) else {
            continue;
        };
        if !is_test_file(&source.path)
            && paths_used(without_tests(&source.text))
                .iter()
                .any(|path| path.starts_with("state"))
        {
            problems.push(format!("{}: {} names Server", source.path, ROOMS[room]));
        }
    }
    report(problems);
}

/// Fields of types by which data name `Server` for longer than one call: (file, field, reason).
const HOLD_THE_SERVER: &[(&str, &str, &str)] = &[(
    "src/execute/busy.rs",
    "lent",
    "the loop, whose handlers are called with the server",
)];

/// The fields of a file's types that name `Server`, as (index of the line, name). The fields of a
/// view, which has a lifetime and borrows the server for one call, are left out, and so are
/// functions that are called with the server.
fn fields_that_name_the_server(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut in_data = false;
    for (at, line) in text.lines().enumerate() {
        let head = line
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ");
        if head.starts_with("struct ") || head.starts_with("enum ") {
            in_data = !head.contains("<'");
        }
        let code = line.split("//").next().unwrap_or("");
        let (field, kind) = code.split_once(':').unwrap_or(("", code));
        let names_it = kind
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "Server");
        if in_data
            && names_it
            && !kind.trim_start().starts_with("fn(")
            && !kind.contains("Option<fn(")
        {
            let field = field.rsplit(' ').next().unwrap_or("");
            out.push((at + 1, field.to_string()));
        }
        in_data &= !line.starts_with('}') && !line.ends_with(';');
    }
    out
}

#[test]
fn data_of_a_feature_does_not_hold_the_server() {
    let (mut problems, mut excused) = (Vec::new(), vec![false; HOLD_THE_SERVER.len()]);
    for source in sources(&["src"]) {
        if source.path == "src/state.rs" || is_test_file(&source.path) {
            continue;
        }
        let imports = paths_used(&source.text)
            .iter()
            .any(|path| path == "state::Server");
        for (line, field) in fields_that_name_the_server(without_tests(&source.text)) {
            let excuse = HOLD_THE_SERVER
                .iter()
                .position(|(file, name, _)| *file == source.path && *name == field);
            match excuse {
                Some(line) => excused[line] = true,
                None if imports => problems.push(format!("{}:{line}: {field}", source.path)),
                None => {}
            }
        }
    }
    for (line, _) in HOLD_THE_SERVER
        .iter()
        .zip(excused)
        .filter(|(_, used)| !used)
    {
        problems.push(format!("HOLD_THE_SERVER: {} has no {}", line.0, line.1));
    }
    report(problems);
}

#[test]
fn state_rs_has_the_server_alone() {
    let text = fs::read_to_string(root().join("src/state.rs")).expect("text");
    let items: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with([' ', '}', '/']))
        .filter(|line| !line.starts_with("use crate::"))
        .collect();
    assert_eq!(items, ["pub struct Server {"]);
    // Each group of fields in `Server` begins with a comment that names the group.
    let (_, fields) = text
        .split_once("pub struct Server {\n")
        .expect("the struct");
    let heads = fields
        .split("\n\n")
        .filter_map(|group| group.lines().next());
    for head in heads {
        assert!(
            head.starts_with("    // "),
            "a group without a name: {head}"
        );
    }
}

#[test]
fn a_folder_has_its_module_in_mod_rs() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src"]) {
        let folder = source.path.strip_suffix(".rs").expect("a Rust file");
        if root().join(folder).is_dir() {
            problems.push(format!("{} belongs in {folder}/mod.rs", source.path));
        }
    }
    report(problems);
}

#[test]
fn commands_do_no_io_and_do_not_know_the_loop() {
    let banned = [
        "use ae",
        "ae::",
        "std::net",
        "std::fs",
        "std::io",
        "std::process",
        "std::thread",
    ];
    let mut problems = Vec::new();
    for source in sources(&["src/commands"]) {
        for (at, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for word in banned.iter().filter(|word| names(code, word)) {
                problems.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    report(problems);
}

/// Whether `word` is in `code`, not as the end of a longer word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn unsafe_lives_in_ds_and_sys() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src", "ae/lessons"]) {
        let may = [
            "src/ds/",
            "src/sys/",
            "ae/src/poll.rs",
            "ae/lessons/parts/fork.rs",
        ]
        .iter()
        .any(|dir| source.path.starts_with(dir));
        for (at, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !may
                && (names(code, "unsafe {")
                    || names(code, "unsafe fn")
                    || names(code, "unsafe impl"))
            {
                problems.push(format!("{}:{}: unsafe", source.path, at + 1));
            }
        }
    }
    report(problems);
}

/// Files that read a clock without the recording of `sys::tape`, each with the reason.
const CLOCKS: &[(&str, &str)] = &[
    ("src/clock.rs", "passes the wall clock through the tape"),
    ("src/connection/tls/verify.rs", "TLS is not recorded"),
    ("src/execute/waiting_link.rs", "links are not recorded"),
    ("src/member/mod.rs", "clusters are not recorded"),
    ("src/networking/link/mod.rs", "links are not recorded"),
    ("src/observe/logging.rs", "times of log lines"),
    (
        "src/persist/aof/disk.rs",
        "threads, and the AOF is not recorded",
    ),
    (
        "src/persist/aof/load.rs",
        "a log line; the AOF is not recorded",
    ),
    ("src/persist/aof/rewrite.rs", "the AOF is not recorded"),
    ("src/persist/child/pauses.rs", "the child is not recorded"),
    ("src/persist/child/report.rs", "runs in a child"),
    ("src/persist/loading/mod.rs", "a log line at the start"),
    ("src/persist/slots.rs", "runs in a child"),
    ("src/server/check_system/disk.rs", "a tool"),
    (
        "src/server/defrag.rs",
        "active defragmentation is not recorded",
    ),
    ("src/server/supervisor.rs", "messages to systemd"),
    ("src/sys/signals.rs", "times of log lines"),
    ("src/sys/ticks.rs", "passes the counter through the tape"),
];

/// What the event loop's thread reads from a clock must be recorded, or a replay would go another
/// way.
#[test]
fn clocks_are_read_through_the_tape() {
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        if is_test_file(&source.path) || source.path.starts_with("src/bin/") {
            continue;
        }
        let code = without_tests(&source.text);
        let reads = ["SystemTime", "Instant::now", "Instant};", "time::Instant;"];
        let own = "crate::sys::instant::Instant";
        let past = reads.iter().any(|read| code.contains(read)) && !code.contains(own);
        let known = CLOCKS.iter().any(|(path, _)| *path == source.path);
        if past != known && source.path != "src/sys/instant.rs" {
            let state = if past {
                "reads a clock past the tape"
            } else {
                "is in CLOCKS"
            };
            problems.push(format!("{} {state}", source.path));
        }
    }
    report(problems);
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae", "tests", "tools"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            problems.push(format!("{}: {} lines", source.path, lines.len()));
        }
        // A function of a test may contain a long table.
        let test = is_test_file(&source.path) || source.path.contains("tests/");
        for (at, len) in functions(&lines) {
            if len > FUNCTION_LINES_MAX && !test {
                problems.push(format!(
                    "{}:{}: a function of {len} lines",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    report(problems);
}

/// The functions of a file as rustfmt lays them out, as (index of the line, number of lines): from
/// the line with `fn` to the closing brace at its indent.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        // `pub(super) fn` has a parenthesis before the name.
        let item = match code.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ").map_or("", |(_, item)| item),
            None => code,
        };
        let head = item.split('(').next().unwrap_or("");
        let signature_end = lines[at..]
            .iter()
            .find(|l| l.ends_with('{') || l.ends_with(';') || l.ends_with('}'));
        if !head.split(' ').any(|word| word == "fn")
            || code.starts_with("//")
            || !signature_end.is_some_and(|l| l.ends_with('{'))
        {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        if let Some(len) = lines[at..].iter().position(|l| *l == close) {
            out.push((at, len + 1));
        }
    }
    out
}

#[test]
fn comments_have_at_most_100_columns() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae", "tests", "tools"]) {
        let mut drawing = false;
        for (at, line) in source.text.lines().enumerate() {
            let Some(text) = line.trim_start().strip_prefix("//") else {
                drawing = false;
                continue;
            };
            let text = text.trim_start_matches(['/', '!']).trim();
            if text.starts_with("```") {
                drawing = !drawing;
            }
            // A drawing or a row of a table can't be wrapped.
            if line.chars().count() > COMMENT_COLUMNS_MAX && !drawing && !text.starts_with('|') {
                problems.push(format!("{}:{}: a long comment", source.path, at + 1));
            }
        }
    }
    report(problems);
}

/// Whether `line` contains a path `crate::room::..` within the code, not in an import.
fn names_a_path_inline(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("").trim_start();
    let is_import = code.starts_with("use ") || code.starts_with("pub");
    let at = code
        .match_indices("crate::")
        .find(|(at, _)| !code[..*at].ends_with('$'));
    !is_import
        && at.is_some_and(|(at, found)| first_names(&code[at + found.len()..])[0].contains("::"))
}

/// The imports of a file show all that the file uses; macros must name whole paths.
#[test]
fn paths_of_other_rooms_are_imported() {
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        let (mut in_macro, mut in_import) = (false, false);
        for (at, line) in without_tests(&source.text).lines().enumerate() {
            in_macro |= line.starts_with("macro_rules!");
            in_import |= line.trim_start().starts_with("use ");
            if !in_macro && !in_import && !is_test_file(&source.path) && names_a_path_inline(line) {
                problems.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
            in_macro &= !line.starts_with('}');
            in_import &= !line.contains(';');
        }
    }
    report(problems);
}

#[test]
fn no_stubs_and_no_debts() {
    let banned = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("XX", "X "),
        concat!("HA", "CK"),
    ];
    let mut problems = Vec::new();
    for source in sources(&["src", "ae"]) {
        for (at, line) in source.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn every_file_says_what_it_is() {
    let without = |source: &&Source| {
        !source.path.ends_with("/tests.rs") && !source.text.trim_start().starts_with("//!")
    };
    let problems: Vec<String> = sources(&["src", "ae", "tests", "tools"])
        .iter()
        .filter(without)
        .map(|s| s.path.clone())
        .collect();
    report(problems);
}

/// The public items of a file: the name of each, and the index of its line.
fn public_items(lines: &[&str]) -> Vec<(String, usize)> {
    const KINDS: [&str; 7] = [
        "fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ",
    ];
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(item) = line.trim_start().strip_prefix("pub ") else {
            continue;
        };
        let item = item.replace("const fn ", "fn ").replace("unsafe ", "");
        let Some(rest) = KINDS.iter().find_map(|kind| item.strip_prefix(kind)) else {
            continue;
        };
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name: String = name.take(1).collect();
        // The `$name` in a macro is not an item.
        if !name.is_empty() {
            out.push((name, at));
        }
    }
    out
}

/// Whether the item at this line has a doc line above its attributes.
fn is_documented(lines: &[&str], at: usize) -> bool {
    let above = lines[..at].iter().rev().map(|line| line.trim());
    let mut attribute = false;
    for line in above {
        // An attribute of several lines ends with a line `)]` or `]`.
        attribute |= line == ")]" || line == "]";
        if attribute || line.starts_with("#[") {
            attribute &= !line.starts_with("#[");
            continue;
        }
        return line.starts_with("///");
    }
    false
}

#[test]
fn public_items_have_a_doc_line() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src"]) {
        let text = without_tests(&source.text);
        let lines: Vec<&str> = text.lines().collect();
        for (name, at) in public_items(&lines) {
            if !is_test_file(&source.path) && !is_documented(&lines, at) {
                problems.push(format!("{}:{}: {name}", source.path, at + 1));
            }
        }
    }
    report(problems);
}

/// Public items that no code uses yet: (file, name, reason).
const UNUSED: &[(&str, &str, &str)] = &[];

/// The words of all code, with the number of their occurrences.
fn words_of_code() -> HashMap<String, usize> {
    let mut count = HashMap::new();
    for source in sources(&["src", "ae", "tests", "tools"]) {
        for line in source.text.lines() {
            let code = line.split("//").next().unwrap_or("");
            for word in code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                *count.entry(word.to_string()).or_default() += 1;
            }
        }
    }
    count
}

#[test]
fn public_items_are_used() {
    // The compiler does not warn of unused public items in a library.
    let count = words_of_code();
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (name, at) in public_items(&lines) {
            let excused = UNUSED
                .iter()
                .any(|(file, item, _)| *file == source.path && *item == name);
            // In this file, `UNUSED` names the excused items as texts, which are counted, too.
            let uses = count[&name] - 1 - usize::from(excused);
            if (uses == 0) != excused {
                let problem = if excused { "is used" } else { "is not used" };
                problems.push(format!("{}:{}: {name} {problem}", source.path, at + 1));
            }
        }
    }
    report(problems);
}

/// Dependencies that are not named in the code: (name, reason).
const UNNAMED: &[(&str, &str)] = &[];

#[test]
fn dependencies_are_used() {
    let code: String = sources(&["src", "ae", "tests", "tools"])
        .iter()
        .flat_map(|source| source.text.lines())
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n");
    let mut problems = Vec::new();
    for manifest in ["Cargo.toml", "ae/Cargo.toml", "tools/bench/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                continue;
            }
            let name = line.split(['=', '.', ' ']).next().unwrap_or("");
            if !in_dependencies || name.is_empty() || name.starts_with('#') {
                continue;
            }
            let name_in_code = name.replace('-', "_");
            let used = names(&code, &format!("{name_in_code}::"))
                || names(&code, &format!("use {name_in_code};"));
            if !used && !UNNAMED.iter().any(|(other, _)| *other == name) {
                problems.push(format!("{manifest}: {name}"));
            }
        }
    }
    report(problems);
}

/// Words that describe data and code as people, or that hide a parameter.
const BANNED_WORDS: [&str; 10] = [
    "who",
    "whom",
    "whoever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "himself",
    "told",
    "kin",
];

fn banned_words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric());
    let banned = words.filter(|word| BANNED_WORDS.contains(word));
    banned.map(str::to_string).collect()
}

/// The pages (`*.md`) use no banned word outside of their blocks of code.
#[test]
fn pages_use_plain_words() {
    let mut problems = Vec::new();
    let pages = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "ae",
        "tools",
        "tests",
    ];
    for page in files(&pages, "md") {
        for prose in page.text.split("\n```").step_by(2) {
            let banned = banned_words(prose).into_iter();
            problems.extend(banned.map(|word| format!("{}: {word}", page.path)));
        }
    }
    report(problems);
}

/// The comments of all files that are not Rust: (path, index of the line, text).
fn other_comments() -> Vec<(String, usize, String)> {
    const KINDS: [(&str, &str); 7] = [
        ("py", "#"),
        ("sh", "#"),
        ("lua", "--"),
        ("toml", "#"),
        ("txt", "#"),
        ("conf", "#"),
        ("", "#"),
    ];
    let mut todo: Vec<PathBuf> = [".ci", "src", "ae", "tests", "tools"]
        .map(|dir| root().join(dir))
        .to_vec();
    todo.extend(["Makefile", "redis.conf", "Cargo.toml"].map(|name| root().join(name)));
    let mut out = Vec::new();
    while let Some(path) = todo.pop() {
        let foreign = ["target", ".peers", "facts", "golden", "seeds", "book/book"];
        if foreign.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            todo.extend(entries.map(|e| e.expect("an entry").path()));
            continue;
        }
        let kind = path.extension().map_or("", |e| e.to_str().unwrap_or("?"));
        let mark = KINDS.iter().find(|(name, _)| *name == kind);
        let (Some((_, mark)), Ok(text)) = (mark, fs::read_to_string(&path)) else {
            continue;
        };
        let name = path.strip_prefix(root()).expect("below the root");
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(mark) {
                out.push((name.display().to_string(), at, line.to_string()));
            }
        }
    }
    assert!(out.len() > 100, "the walk found too little");
    out
}

#[test]
fn comments_of_other_files_are_plain_and_short() {
    // Lines may be long in prose for users, which editors wrap, and in data where a comment is a
    // row.
    let wide = ["redis.conf", "Cargo.toml", ".txt"];
    let mut problems = Vec::new();
    for (path, at, line) in other_comments() {
        let banned = banned_words(&line).into_iter();
        problems.extend(banned.map(|word| format!("{path}:{}: {word}", at + 1)));
        let may_be_wide = wide.iter().any(|name| path.contains(name));
        if line.chars().count() > COMMENT_COLUMNS_MAX && !may_be_wide {
            problems.push(format!("{path}:{}: a long comment", at + 1));
        }
    }
    report(problems);
}

#[test]
fn code_of_the_server_uses_plain_words() {
    // All text of the code is searched: comments, texts for the log, names of variables.
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        // The warning about an HTTP request is Redis's text; in tests, users of ACL have such
        // names.
        if is_test_file(&source.path) || source.path == "src/execute/cross_protocol.rs" {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            // A log line of Redis about a cluster node that comes back has a banned word.
            let line = line.replace("nobody is serving its slots", "");
            let banned = banned_words(&line).into_iter();
            problems.extend(banned.map(|word| format!("{}:{}: {word}", source.path, at + 1)));
        }
    }
    report(problems);
}

#[test]
fn comments_and_names_use_plain_words() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae", "tests", "tools"]) {
        for (at, line) in source.text.lines().enumerate() {
            let code = line.trim_start();
            let is_comment = code.starts_with("//");
            let name = code.split('(').next().unwrap_or("");
            let names_a_function = name.split(' ').any(|word| word == "fn");
            let text = match (is_comment, names_a_function) {
                (true, _) => code,
                (_, true) => name,
                // A comment behind the code on its line.
                _ => code.split_once(" // ").map_or("", |(_, comment)| comment),
            };
            let banned = banned_words(text).into_iter();
            problems.extend(banned.map(|word| format!("{}:{}: {word}", source.path, at + 1)));
        }
    }
    report(problems);
}
