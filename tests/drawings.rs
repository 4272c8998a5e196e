//! Compares drawings with the code: README's path of SET, its table of modules and the paths in
//! this table, and the steps of `before_sleep`.

use aeris::server::before_sleep::STEPS;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("text")
}

/// A Rust file: the path of its module, and its text.
struct Source {
    path: Vec<String>,
    text: String,
}

/// All Rust files below `dir`, without tests.
fn sources(dir: &str) -> Vec<Source> {
    let mut todo = vec![root().join(dir)];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            todo.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("text");
            let module = match path.ends_with("mod.rs") {
                true => path.parent().expect("a folder").to_path_buf(),
                false => path.with_extension(""),
            };
            let parts = module
                .iter()
                .map(|part| part.to_string_lossy().into_owned());
            found.push(Source {
                path: parts.collect(),
                text,
            });
        }
    }
    found
}

/// The bodies of the functions of this name, as rustfmt lays them out. `module::name` means a
/// function in that module, or below it if the module itself has none. All returned functions are
/// in one file.
fn bodies(sources: &[Source], name: &str) -> Vec<String> {
    let (place, name) = match name.split_once("::") {
        Some((place, name)) => (Some(place), name),
        None => (None, name),
    };
    let having = |wanted: &dyn Fn(&Source) -> bool| -> Vec<&Source> {
        let found = sources.iter().filter(|source| wanted(source));
        found
            .filter(|source| !bodies_in(&source.text, name).is_empty())
            .collect()
    };
    let mut found = match place {
        Some(place) => having(&|source| source.path.last().is_some_and(|part| part == place)),
        None => having(&|_| true),
    };
    if let Some(place) = place
        && found.is_empty()
    {
        found = having(&|source| source.path.iter().any(|part| part == place));
    }
    let files: Vec<String> = found.iter().map(|source| source.path.join("/")).collect();
    assert_eq!(files.len(), 1, "{place:?} {name} is in {files:?}");
    bodies_in(&found[0].text, name)
}

fn bodies_in(text: &str, name: &str) -> Vec<String> {
    let mut out = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let named = [format!("fn {name}("), format!("fn {name}<")];
        if code.starts_with("//") || !named.iter().any(|named| code.contains(named.as_str())) {
            continue;
        }
        let close = format!("{}}}", " ".repeat(line.len() - code.len()));
        let end = lines[at..].iter().position(|line| *line == close);
        out.push(lines[at + 1..at + end.unwrap_or(0).max(1)].join("\n"));
    }
    out
}

fn calls(body: &str, name: &str) -> bool {
    body.match_indices(name).any(|(at, _)| {
        let before = body[..at].chars().next_back();
        let after = &body[at + name.len()..];
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            && (after.starts_with('(') || after.starts_with("::<"))
    })
}

/// The lines after a mark in a text, up to the end of the block of code that follows the mark.
fn block_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let (_, rest) = text.split_once(mark).expect("the mark");
    rest.lines()
        .skip(1)
        .skip_while(|line| line.starts_with("```"))
        .take_while(|line| !line.starts_with("```") && !line.is_empty())
        .collect()
}

#[test]
fn each_function_of_the_path_calls_the_next_one() {
    let mut code = sources("src");
    code.extend(sources("ae/src"));
    let readme = read("README.md");
    let chains = block_after(&readme, "<!-- path -->");
    assert!(chains.len() > 10, "the path has become short");
    for line in chains {
        let chain = line.split("  ").next().unwrap_or("");
        let names: Vec<&str> = chain.split(" -> ").map(str::trim).collect();
        assert!(names.len() > 1, "no chain: {line}");
        for pair in names.windows(2) {
            let called = pair[1].rsplit("::").next().unwrap_or_default();
            bodies(&code, pair[1]);
            assert!(
                bodies(&code, pair[0])
                    .iter()
                    .any(|body| calls(body, called)),
                "{} does not call {}",
                pair[0],
                pair[1]
            );
        }
    }
}

#[test]
fn the_rooms_of_readme_are_those_of_tidy() {
    let tidy = read("tests/tidy.rs");
    let (_, list) = tidy
        .split_once("const ROOMS: &[&str] = &[")
        .expect("the list");
    let rooms: Vec<&str> = list
        .lines()
        .take_while(|line| *line != "];")
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","))
        .collect();
    let readme = read("README.md");
    let drawn: Vec<&str> = block_after(&readme, "<!-- rooms -->")
        .into_iter()
        .filter_map(|line| line.strip_prefix("| `src/"))
        .filter_map(|line| line.split(['/', '.']).next())
        .collect();
    assert_eq!(drawn, rooms);
}

#[test]
fn every_path_that_readme_names_exists() {
    for document in ["README.md", "CONTRIBUTING.md", "ae/README.md"] {
        let text = read(document);
        let quoted = text.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|name| {
            ["src/", "ae/", "tests/", "tools/", "examples/"]
                .iter()
                .any(|dir| name.starts_with(dir))
                && !name.contains([' ', '*', '<', '{', '$'])
        });
        for path in paths.filter(|path| !path.starts_with("tests/.peers")) {
            let places = [root().join(path), root().join("ae").join(path)];
            assert!(
                places.iter().any(|place: &PathBuf| place.exists()),
                "{document}: {path}"
            );
        }
    }
}

#[test]
fn the_steps_of_before_sleep_are_drawn_in_their_order() {
    let text = read("src/server/before_sleep.rs");
    let drawn: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//!  "))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next()?.parse::<usize>().ok()?;
            words.next()
        })
        .collect();
    let body = bodies_in(&text, "steps").remove(0);
    let called: Vec<&str> = body
        .lines()
        .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
        .filter_map(|line| line.trim().split('(').next())
        // In the drawing, a name such as `run` has its module before it.
        .map(|path| match drawn.contains(&path) {
            true => path,
            false => path.rsplit("::").next().unwrap_or(path),
        })
        .filter(|name| {
            drawn.contains(name) || name.chars().all(|c| c.is_alphanumeric() || c == '_')
        })
        .filter(|name| *name != "done")
        .collect();
    assert_eq!(called, drawn);
    assert_eq!(STEPS.as_slice(), drawn, "the names in a trace");
}
