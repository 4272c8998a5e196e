//! The rules of the house, as tests: layers, `unsafe`, lengths, words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1200;
const FUNCTION_LINES_MAX: usize = 100;

struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dirs: &[&str]) -> Vec<Source> {
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
        } else if path.extension().is_some_and(|e| e == "rs") {
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

/// `use crate::x::...` and `crate::x::...` name the module x.
fn modules_used(text: &str) -> Vec<&str> {
    text.match_indices("crate::")
        .map(|(at, found)| &text[at + found.len()..])
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap_or("")
        })
        .collect()
}

#[test]
fn arrows_run_downwards() {
    // What the lower layers may use of this crate. Layers above `types` see the server's state.
    let allowed = BTreeMap::from([
        ("src/util", vec!["util"]),
        ("src/ds", vec!["ds", "util"]),
        ("src/types", vec!["types", "ds", "util", "error"]),
        ("src/sys", vec!["sys", "util"]),
        (
            "src/config",
            vec!["config", "util", "REDIS_VERSION", "VERSION"],
        ),
    ]);
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        let Some((layer, may)) = allowed
            .iter()
            .find(|(dir, _)| source.path.starts_with(*dir))
        else {
            continue;
        };
        for module in modules_used(&source.text) {
            if !may.contains(&module) {
                problems.push(format!(
                    "{}: {layer} must not use crate::{module}",
                    source.path
                ));
            }
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

/// `word` stands in `code`, not as the end of a longer word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn unsafe_lives_in_ds_and_sys() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src"]) {
        let may = ["src/ds/", "src/sys/"]
            .iter()
            .any(|dir| source.path.starts_with(dir))
            || source.path == "ae/src/poll.rs";
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

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for source in sources(&["src", "ae/src", "tests"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            problems.push(format!("{}: {} lines", source.path, lines.len()));
        }
        // A test's function may be a long table.
        let test = source.path.ends_with("tests.rs");
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

/// Functions as rustfmt lays them out: from the line with `fn` to the closing brace at its indent.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        let head = code.split('(').next().unwrap_or("");
        if !head.split(' ').any(|word| word == "fn")
            || code.starts_with("//")
            || code.ends_with(';')
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
fn no_stubs_and_no_debts() {
    let banned = [
        "todo!(",
        "unimplemented!(",
        "dbg!(",
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
    let problems: Vec<String> = sources(&["src", "ae/src", "ae/examples", "tests"])
        .iter()
        .filter(without)
        .map(|s| s.path.clone())
        .collect();
    report(problems);
}
