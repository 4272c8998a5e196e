//! Checks the book in `ae/book`: what the book names exists, its figures are the recorded ones, and
//! its drawings are those of `tools/book`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CHAPTERS: usize = 12;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A page of the book: its path from the root, and its text.
struct Page {
    path: String,
    text: String,
}

/// All pages of the book: the entrance, the table of contents, the chapters, the glossary, the
/// lessons.
fn pages() -> Vec<Page> {
    let mut paths: Vec<String> = fs::read_dir(root().join("ae/book"))
        .expect("the folder of the book")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            format!("ae/book/{}", name.to_string_lossy())
        })
        .filter(|path| path.ends_with(".md"))
        .collect();
    paths.sort();
    paths.extend(["ae/README.md", "ae/SUMMARY.md", "ae/lessons/README.md"].map(String::from));
    let page = |path: String| Page {
        text: read(root().join(&path)),
        path,
    };
    paths.into_iter().map(page).collect()
}

fn chapters() -> Vec<Page> {
    let name = |page: &Page| page.path.rsplit('/').next().map(str::to_string);
    let is_chapter = |page: &Page| name(page).is_some_and(|n| n.as_bytes()[0].is_ascii_digit());
    let found: Vec<Page> = pages().into_iter().filter(is_chapter).collect();
    assert_eq!(found.len(), CHAPTERS);
    found
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The text of a page without its code blocks.
fn prose(text: &str) -> String {
    let pieces = text.split("\n```");
    pieces.step_by(2).collect::<Vec<_>>().join("\n")
}

/// The texts of a page that stand between single backquotes.
fn quoted(text: &str) -> Vec<String> {
    let text = prose(text);
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.map(str::to_string).collect()
}

fn is_path(name: &str) -> bool {
    ["src/", "ae/", "tests/", "tools/"]
        .iter()
        .any(|dir| name.starts_with(dir))
        && !name.contains([' ', '*', '<', '{', '$'])
}

fn defines(code: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "const", "type", "mod"];
    let is_definition = |line: &str| {
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        words
            .windows(2)
            .any(|pair| kinds.contains(&pair[0]) && pair[1] == name)
    };
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(is_definition)
}

#[test]
fn every_path_exists() {
    let mut problems = Vec::new();
    for page in pages() {
        for name in quoted(&page.text).iter().filter(|name| is_path(name)) {
            // The page `ae/README.md` names files relative to `ae`, as the README of a crate does.
            let places = [root().join(name), root().join("ae").join(name)];
            let count = if page.path == "ae/README.md" { 2 } else { 1 };
            if !places[..count].iter().any(|place| place.exists()) {
                problems.push(format!("{}: {name}", page.path));
            }
        }
    }
    report(problems);
}

/// Each chapter ends with "In the server this is": lines of a path and functions in the file.
#[test]
fn every_chapter_ends_in_the_server() {
    let mut problems = Vec::new();
    for page in chapters() {
        let (_, end) = page
            .text
            .split_once("\n## In the server this is\n")
            .unwrap_or_else(|| panic!("{} does not end in the server", page.path));
        assert!(!end.contains("\n## "), "{}: more follows", page.path);
        let lines: Vec<&str> = end.trim().split("\n- ").collect();
        assert!(lines.len() >= 3, "{}: {} lines", page.path, lines.len());
        for line in lines {
            let names = quoted(line);
            let Some((path, functions)) = names.split_first().filter(|(path, _)| is_path(path))
            else {
                problems.push(format!("{}: no path in {line}", page.path));
                continue;
            };
            let code = read(root().join(path));
            let functions: Vec<&String> = functions.iter().filter(|f| is_name(f)).collect();
            if functions.is_empty() {
                problems.push(format!("{}: no function in {line}", page.path));
            }
            for function in functions.iter().filter(|f| !defines(&code, f)) {
                problems.push(format!("{}: no {function} in {path}", page.path));
            }
        }
    }
    report(problems);
}

/// Whether `text` is the name of a function, and not a mode or a setting.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_') && text != "no"
}

/// In its prose a chapter names functions of the loop as `EventLoop::name` or `Waker::name`.
#[test]
fn every_method_exists() {
    let loop_code = read(root().join("ae/src/event_loop.rs"));
    let waker_code = read(root().join("ae/src/waker.rs"));
    let mut seen = 0;
    for page in pages() {
        for name in quoted(&page.text) {
            for (prefix, code) in [("EventLoop::", &loop_code), ("Waker::", &waker_code)] {
                if let Some(method) = name.strip_prefix(prefix) {
                    seen += 1;
                    assert!(defines(code, method), "{}: {name}", page.path);
                }
            }
        }
    }
    assert!(seen > 20, "the table of ae.c has become short");
}

#[test]
fn every_command_exists() {
    let makefile = read(root().join("Makefile"));
    let examples = read(root().join("ae/Cargo.toml"));
    let mut problems = Vec::new();
    for page in pages() {
        // In code blocks and between backquotes, a shell command stands at the beginning.
        let blocks = page.text.split("\n```").skip(1).step_by(2);
        let lines = blocks.flat_map(str::lines).map(str::to_string);
        for command in lines.chain(quoted(&page.text)) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let known = match words[..] {
                ["make", target, ..] => makefile.contains(&format!("\n{target}:")),
                ["cargo", "run", "-p", "ae", "--example", name, ..] => {
                    examples.contains(&format!("name = \"{name}\""))
                }
                ["python3", script, ..] => root().join(script).exists(),
                ["cargo", "build"] => true,
                ["cargo", ..] => false,
                [program, ..] if program.starts_with("tools/") => root().join(program).exists(),
                _ => true,
            };
            if !known {
                problems.push(format!("{}: {command}", page.path));
            }
        }
    }
    report(problems);
}

/// The targets of links and pictures in a page, without those of the web.
fn links(text: &str) -> Vec<String> {
    let pieces = text.split("](").skip(1);
    let ends = pieces.filter_map(|piece| Some(piece.split_once(')')?.0.to_string()));
    ends.filter(|link| !link.starts_with("http")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut problems = Vec::new();
    let mut drawn = BTreeSet::new();
    for page in pages() {
        let here = root().join(&page.path);
        let folder = here.parent().expect("a folder");
        for link in links(&prose(&page.text)) {
            if !folder.join(&link).exists() {
                problems.push(format!("{}: {link}", page.path));
            }
            drawn.extend(link.rsplit('/').next().map(str::to_string));
        }
    }
    for entry in fs::read_dir(root().join("ae/book/figures")).expect("the drawings") {
        let name = entry.expect("an entry").file_name();
        if !drawn.contains(&*name.to_string_lossy()) {
            problems.push(format!("no page shows {}", name.display()));
        }
    }
    report(problems);
}

#[test]
fn contents_entrance_and_lessons_name_every_chapter() {
    for page in ["ae/SUMMARY.md", "ae/README.md"] {
        let text = read(root().join(page));
        let mut at = 0;
        for chapter in chapters() {
            let name = chapter.path.trim_start_matches("ae/");
            let found = text.find(&format!("({name})"));
            let found = found.unwrap_or_else(|| panic!("{page} does not name {name}"));
            assert!(found > at, "{page}: {name} is in another place");
            at = found;
        }
    }
    let lessons = read(root().join("ae/lessons/README.md"));
    let rows = lessons
        .lines()
        .filter(|line| line.contains("_") && line.contains(".rs) |"));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), 14);
    assert!(rows.iter().all(|row| row.contains("](../book/")));
}

/// Chapter 8 has a row for each step of `before_sleep`, in the order of the code.
#[test]
fn the_steps_of_before_sleep_are_those_of_the_code() {
    let code = read(root().join("src/server/before_sleep.rs"));
    let (_, list) = code.split_once("pub const STEPS").expect("the steps");
    let (_, list) = list.split_once("= [").expect("a list");
    let (list, _) = list.split_once("];").expect("its end");
    let steps: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let chapter = read(root().join("ae/book/08_before_sleep.md"));
    let (_, table) = chapter.split_once("<!-- steps:").expect("the mark");
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let numbered = rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let number: usize = cells.next()?.parse().ok()?;
        Some((number, cells.next()?.trim_matches('`')))
    });
    let expected: Vec<(usize, &str)> = (1..).zip(steps).collect();
    assert_eq!(numbered.collect::<Vec<_>>(), expected);
}

/// The figures in `ae/book/data/constants.txt`: each line has a figure, and a text in a file or a
/// reason.
fn constants() -> BTreeSet<String> {
    let text = read(root().join("ae/book/data/constants.txt"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let check = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, path, source] = cells[..] {
            let found = read(root().join(path)).contains(source);
            assert!(found, "{path} does not contain {source}");
        } else {
            assert_eq!(cells.len(), 2, "{line}");
        }
        cells[0].to_string()
    };
    lines.map(check).collect()
}

/// Each measured time and size in a chapter is marked, so that `tools/book` can compare it. A
/// figure without a mark must be in `ae/book/data/constants.txt`.
#[test]
fn measured_figures_are_marked() {
    let constants = constants();
    let units = ["us", "ms", "s", "KB", "MB", "GB", "microseconds", "%"];
    let mut problems = Vec::new();
    for page in chapters() {
        let text = without_figures(&prose(&page.text));
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            let unit = pair[1].trim_matches(|c: char| !c.is_alphanumeric() && c != '%');
            let number = pair[0].trim_matches(|c: char| !c.is_ascii_digit());
            let shown = format!("{number} {unit}");
            let is_number = number.chars().next().is_some_and(|c| c.is_ascii_digit());
            if is_number && units.contains(&unit) && !constants.contains(&shown) {
                problems.push(format!("{}: {shown}", page.path));
            }
        }
    }
    report(problems);
}

/// A mark at the beginning of a line would end the paragraph, and a mark between backquotes would
/// be shown.
#[test]
fn marks_do_not_break_paragraphs() {
    let mut problems = Vec::new();
    for page in pages() {
        for line in page.text.lines() {
            let mut code = line.split('`').skip(1).step_by(2);
            if line.trim_start().starts_with("<!--f:") || code.any(|t| t.contains("<!--f:")) {
                problems.push(format!("{}: {line}", page.path));
            }
        }
    }
    report(problems);
}

/// The text of a page without its marked figures.
fn without_figures(text: &str) -> String {
    let mut pieces = text.split("<!--f:");
    let first = pieces.next().unwrap_or_default().to_string();
    let rest = pieces.map(|piece| {
        piece
            .split_once("<!--/f-->")
            .expect("the end of a figure")
            .1
    });
    rest.fold(first, |text, piece| text + piece)
}

fn book(arguments: &[&str]) -> Output {
    let program = root().join("tools/book/book");
    let run = Command::new("python3")
        .arg("-B")
        .arg(program)
        .args(arguments)
        .output();
    run.expect("python3")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn drawings_and_figures_are_those_of_the_program() {
    let run = book(&["check"]);
    assert!(
        run.status.success(),
        "tools/book/book draw changes:\n{}{}",
        text(&run.stdout),
        text(&run.stderr)
    );
}

/// `tools/book/book check` finds a figure, a drawing and a mark that are wrong.
#[test]
fn the_check_finds_what_is_wrong() {
    let copy = std::env::temp_dir().join(format!("ae-book-{}", std::process::id()));
    let book_copy = copy.join("ae/book");
    for folder in ["", "data", "figures"] {
        let from = root().join("ae/book").join(folder);
        fs::create_dir_all(book_copy.join(folder)).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                fs::copy(&path, book_copy.join(folder).join(name)).expect("copied");
            }
        }
    }
    fs::copy(root().join("ae/README.md"), copy.join("ae/README.md")).expect("copied");
    let root_option = copy.to_string_lossy().into_owned();
    let check = || book(&["--root", &root_option, "check"]);
    assert!(check().status.success(), "{}", text(&check().stdout));

    let chapter = book_copy.join("03_edges.md");
    let right = read(&chapter);
    fs::write(&chapter, right.replace("-->16,384<!--", "-->16,385<!--")).expect("written");
    assert!(text(&check().stdout).contains("03_edges.md"));
    fs::write(
        &chapter,
        right.replace("f:lessons.05.sent", "f:lessons.05.sunk"),
    )
    .expect("written");
    assert!(text(&check().stderr).contains("no figure lessons.05.sunk"));
    fs::write(&chapter, right).expect("written");

    let drawing = book_copy.join("figures/turn.svg");
    fs::write(&drawing, read(&drawing).replace("poll", "pool")).expect("written");
    assert!(text(&check().stdout).contains("turn.svg"));
    fs::remove_dir_all(copy).expect("removed");
}
