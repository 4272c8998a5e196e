//! README and CONTRIBUTING name only what exists: make targets, settings, commands, options,
//! programs, tests, functions, types, fields of INFO, files.
//!
//! Each name between backticks, and each line of a block of commands, is looked up by its form.
//! Names of other programs and of their options are listed in [`FOREIGN`]. `tests/drawings.rs`
//! looks up paths and drawings, `tests/readme.rs` the tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 2] = ["README.md", "CONTRIBUTING.md"];

/// Names of other programs, of their options and files, and examples of values.
const FOREIGN: &[&str] = &[
    "!AES128",
    "&mut",
    "+psync",
    "-nan",
    "/",
    "/healthz",
    "/metrics",
    "<!--f:KEY-->",
    "<",
    ">",
    "?",
    "ECDHE+AESGCM:!AES128",
    "FileDescriptorStoreMax",
    "Proc-Type:",
    "WatchdogSec",
    "nan",
    "next",
    "openssl",
    "pairs",
    "string.format",
    "systemctl",
    "tostring",
    "unsafe",
    "{user1}:a",
    "{user1}:b",
    "..",
    "field",
    "localhost",
    "redis-cli",
    "redis-server.service",
    "valkey-cli",
    "--ldb",
    "--tls",
    "--raw",
    "--name",
    "aeris@NAME.service",
    "trace.json",
    "trace-slow-turn-N.json",
    "Box",
    "Area:",
    "impl",
    "verb(server,",
];

/// Programs that are not ours, whose arguments are not looked up.
const OTHER_PROGRAMS: [&str; 6] = ["redis-cli", "git", "kill", "openssl", "systemctl", "cd"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn exists(path: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["", "src", "src/networking", "tools/suite", "tools/package"];
    places
        .iter()
        .any(|place| root.join(place).join(path).exists())
}

/// The text of all files below these folders.
fn texts(dirs: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut todo: Vec<_> = dirs.iter().map(|dir| root.join(dir)).collect();
    let mut all = String::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            todo.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            all += &text;
        }
    }
    all
}

/// The names of all items and public fields in Rust code.
fn items(code: &str) -> BTreeSet<String> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let kinds = [
        "fn", "struct", "enum", "trait", "mod", "const", "type", "pub",
    ];
    let pairs = words.windows(2).filter(|pair| kinds.contains(&pair[0]));
    pairs.map(|pair| pair[1].to_string()).collect()
}

/// The code and the tables in which names of the documents are looked up.
struct Tree {
    makefile: String,
    settings: BTreeSet<String>,
    commands: BTreeSet<String>,
    /// The text of the code without tests and tools; `names` has its items and fields.
    code: String,
    names: BTreeSet<String>,
    /// The text of the tests and tools.
    tools: String,
}

impl Tree {
    fn read() -> Tree {
        let cells = |text: &str, column: usize| -> Vec<String> {
            let rows = text.lines().filter(|line| line.starts_with("| "));
            let cells = rows.filter_map(|line| line.split(" | ").nth(column));
            cells
                .map(|cell| cell.trim_matches([' ', '|']).into())
                .collect()
        };
        let readme = read("README.md");
        let (_, commands) = readme.split_once("<!-- commands:").expect("a table");
        let (commands, _) = commands.split_once("<!-- end of").expect("its end");
        let names = cells(commands, 1);
        let names = names.iter().flat_map(|cell| cell.split(' '));
        let code = texts(&["src", "ae/src"]);
        Tree {
            names: items(&code),
            code,
            makefile: read("Makefile"),
            settings: cells(&read("tools/settings.md"), 0).into_iter().collect(),
            commands: names.map(|name| name.to_lowercase()).collect(),
            tools: texts(&[
                "tools",
                "tests/drawings.rs",
                "tests/command_facts.rs",
                "tests/readme.rs",
                "tests/replication",
                ".ci",
            ]) + &read("tests/chaos.rs")
                + &read("Cargo.toml")
                + &read("tests/cluster_simulation.rs"),
        }
    }

    fn target(&self, name: &str) -> bool {
        self.makefile
            .lines()
            .any(|line| line.starts_with(&format!("{name}:")))
    }

    /// Whether the code has this name: as an item, as a field, or as a text such as a field of
    /// INFO.
    fn declared(&self, name: &str) -> bool {
        self.names.contains(name) || self.code.contains(&format!("\"{name}\""))
    }

    /// Whether a word in capitals is known: as a command, or as a variable of the environment or of
    /// make.
    fn capitals(&self, word: &str) -> bool {
        let (name, _) = word.split_once('=').unwrap_or((word, ""));
        self.commands.contains(&word.to_lowercase())
            || has_word(&self.makefile, name)
            || has_word(&self.tools, name)
    }

    /// Whether an option of the server, of a tool or of cargo is known.
    fn option(&self, option: &str) -> bool {
        let name = option.trim_start_matches('-');
        self.settings.contains(name)
            || self.code.contains(&format!("\"{option}\""))
            || self.tools.contains(&format!("\"{option}\""))
            || self.makefile.contains(option)
    }

    fn known(&self, words: &[&str]) -> bool {
        let first = words[0];
        let second = words.get(1).copied().unwrap_or("");
        match first {
            "make" => second.is_empty() || second.contains('=') || self.target(second),
            "cargo" => self.cargo(words),
            _ if FOREIGN.contains(&first) || OTHER_PROGRAMS.contains(&first) => true,
            _ if first.starts_with("--") => self.option(first),
            _ if first.contains('/') => exists(first) || is_elsewhere(first),
            _ if exists(first) => true,
            _ if self.settings.contains(first) => true,
            _ if has_word(&read("Cargo.toml"), &format!("name = \"{first}\"")) => words[1..]
                .iter()
                .filter(|word| word.starts_with("--"))
                .all(|word| self.option(word)),
            _ if first
                .chars()
                .all(|c| c.is_ascii_uppercase() || "_=1.".contains(c))
                || first.contains('=') =>
            {
                self.capitals(first)
            }
            _ => {
                let path = first.split(['{', '<', '(']).next().unwrap_or(first);
                path.trim_start_matches("Net::")
                    .split("::")
                    .all(|name| self.declared(name) || self.commands.contains(name))
            }
        }
    }

    /// Whether the names in a cargo command exist: after `--test`, `-p`, `--bin` and `--profile`.
    fn cargo(&self, words: &[&str]) -> bool {
        let manifests =
            read("Cargo.toml") + &read("ae/Cargo.toml") + &read("tools/bench/Cargo.toml");
        words.windows(2).all(|pair| match pair[0] {
            "--test" => {
                exists(&format!("tests/{}.rs", pair[1]))
                    || exists(&format!("ae/tests/{}.rs", pair[1]))
            }
            "-p" | "--bin" => manifests.contains(&format!("name = \"{}\"", pair[1])),
            "--profile" => manifests.contains(&format!("[profile.{}]", pair[1])),
            _ => true,
        })
    }
}

/// Whether a path is that of a file that the package installs or the server writes.
fn is_elsewhere(path: &str) -> bool {
    ["/etc/aeris", "/var/lib/aeris", "/usr/local/bin", "x/mod.rs"]
        .iter()
        .any(|place| path.starts_with(place))
        || path.starts_with("target/")
        || path.starts_with('/')
}

fn has_word(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

/// The text without the tables that are made from the rows of commands or settings.
fn without_tables(text: &str) -> String {
    let mut out = String::new();
    let mut skip = false;
    for line in text.lines() {
        skip |= line.contains("made from the rows");
        if !skip {
            out += line;
            out.push('\n');
        }
        skip &= !line.starts_with("<!-- end of");
    }
    out
}

#[test]
fn each_name_between_backticks_exists() {
    let tree = Tree::read();
    let mut unknown = Vec::new();
    for document in DOCUMENTS {
        let text = without_tables(&read(document));
        for prose in text.split("\n```").step_by(2) {
            for quoted in prose.split('`').skip(1).step_by(2) {
                let words: Vec<&str> = quoted.split_whitespace().collect();
                if !words.is_empty() && !tree.known(&words) {
                    unknown.push(format!("{document}: {quoted}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

#[test]
fn each_line_of_a_block_of_commands_can_be_run() {
    let tree = Tree::read();
    let mut unknown = Vec::new();
    for document in DOCUMENTS {
        let text = without_tables(&read(document));
        for block in text.split("\n```").skip(1).step_by(2) {
            for line in block.lines().filter(|line| line.contains(' ')) {
                if line.contains(" -> ") {
                    break; // README's path of SET, which is no list of commands
                }
                // In a block of commands, two spaces separate a command from the text that explains
                // it.
                let command = line.split("  ").next().unwrap_or("");
                let command = command.split(" # ").next().unwrap_or("");
                let words: Vec<&str> = command.split_whitespace().collect();
                let foreign = OTHER_PROGRAMS.contains(&words[0]);
                let options = words
                    .iter()
                    .filter(|word| word.starts_with("--") && word.len() > 2);
                let options_known = foreign
                    || words[0] == "cargo"
                    || options.clone().all(|option| tree.option(option));
                if !tree.known(&words) || !options_known {
                    unknown.push(format!("{document}: {command}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}
