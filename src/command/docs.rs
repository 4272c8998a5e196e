//! The documentation of every command, as COMMAND DOCS returns it.
//!
//! The rows of commands have the facts that the server needs (arity, flags, keys). `docs.json` has
//! what only people and client libraries read, one line for each command or subcommand, sorted by
//! full name:
//!
//! ```text
//!   "config|set":{"summary":"Change settings while the server runs.","since":"2.0.0","group":"server", ...
//!                 "arguments":[{"name":"data","type":"block","flags":["multiple"],"arguments":[ ... ]}]},
//! ```
//!
//! The text of `docs.json` is part of the binary. `docs.json` is parsed at the first COMMAND DOCS,
//! and the result is kept until the process ends.
//!
//! **Invariant:** `docs.json` can be parsed, and every field in it is a field of [`Doc`] or
//! [`Argument`]. Test: `the_file_is_whole`.
//! **Invariant:** every command has a line in `docs.json`, and every line a command. Test:
//! `tests/command_facts.rs`.
//!
//! Rejected: documentation in the rows of commands (half the text of a command file would be about
//! syntax), and a build script that turns the JSON into Rust (a second language for the same 170
//! KB).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The documentation of one command or subcommand. An empty string or list means that the command
/// has no such field.
#[derive(Debug, PartialEq)]
pub struct Doc {
    pub summary: String,
    /// The first version of Redis or Valkey that has the command.
    pub since: String,
    pub group: String,
    pub complexity: String,
    pub doc_flags: Vec<String>,
    pub deprecated_since: String,
    pub replaced_by: String,
    /// The changes of the command, as pairs of a version and a text.
    pub history: Vec<(String, String)>,
    pub arguments: Vec<Argument>,
}

/// One argument of a command, or a group of arguments: `oneof` and `block` have arguments of their
/// own.
#[derive(Debug, PartialEq)]
pub struct Argument {
    pub name: String,
    /// The type of the argument: `string`, `integer`, `double`, `key`, `pattern`, `unix-time`,
    /// `pure-token`, `oneof` or `block`.
    pub kind: String,
    pub display_text: String,
    /// For an argument that is a key: the index of its key spec.
    pub key_spec_index: Option<i64>,
    /// The word that is the argument, or that precedes it; the word may be empty (MIGRATE).
    pub token: Option<String>,
    pub summary: String,
    pub since: String,
    pub deprecated_since: String,
    /// The flags of the argument: `optional`, `multiple`, `multiple_token`.
    pub flags: Vec<String>,
    pub arguments: Vec<Argument>,
}

/// Receives the documentation of commands as the elements of a reply.
pub trait DocsWriter {
    /// Begins a map; `pairs` names with their values follow.
    fn map(&mut self, pairs: usize);
    fn array(&mut self, len: usize);
    fn set(&mut self, len: usize);
    fn bulk(&mut self, text: &str);
    /// Writes a simple string.
    fn status(&mut self, text: &str);
    fn integer(&mut self, value: i64);
}

static DOCS: LazyLock<BTreeMap<String, Doc>> = LazyLock::new(|| {
    parse(include_str!("docs.json")).expect("docs.json is whole: the_file_is_whole")
});

/// Finds the documentation of a command such as `get` or `config|get`; `fullname` is in lower case.
pub fn lookup(fullname: &str) -> Option<&'static Doc> {
    DOCS.get(fullname)
}

/// The full names of all commands with their documentation, sorted by name.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Doc)> {
    DOCS.iter().map(|(fullname, doc)| (fullname.as_str(), doc))
}

/// The full names and the documentation of the subcommands of a command such as CONFIG.
pub fn subcommands(container: &str) -> impl Iterator<Item = (&'static str, &'static Doc)> {
    let prefix = format!("{container}|");
    DOCS.range(prefix.clone()..)
        .take_while(move |(fullname, _)| fullname.starts_with(&prefix))
        .map(|(fullname, doc)| (fullname.as_str(), doc))
}

/// Writes the map that COMMAND DOCS returns for one command, subcommands included. Returns false if
/// the command does not exist.
pub fn write(fullname: &str, out: &mut impl DocsWriter) -> bool {
    let Some(doc) = lookup(fullname) else {
        return false;
    };
    let count = subcommands(fullname).count();
    write_doc(doc, count, out);
    if count > 0 {
        out.bulk("subcommands");
        out.map(count);
        for (fullname, doc) in subcommands(fullname) {
            out.bulk(fullname);
            write_doc(doc, 0, out);
        }
    }
    true
}

/// Writes the documentation of a command without its subcommands; `subcommands` is their number.
fn write_doc(doc: &Doc, subcommands: usize, out: &mut impl DocsWriter) {
    let texts = [
        ("summary", &doc.summary),
        ("since", &doc.since),
        ("group", &doc.group),
        ("complexity", &doc.complexity),
        ("deprecated_since", &doc.deprecated_since),
        ("replaced_by", &doc.replaced_by),
    ];
    let lists = [
        doc.doc_flags.len(),
        doc.history.len(),
        doc.arguments.len(),
        subcommands,
    ];
    let present = texts.iter().filter(|(_, text)| !text.is_empty()).count();
    out.map(present + lists.iter().filter(|len| **len > 0).count());
    write_texts(&texts[..4], out);
    write_flags("doc_flags", &doc.doc_flags, out);
    write_texts(&texts[4..], out);
    if !doc.history.is_empty() {
        out.bulk("history");
        out.set(doc.history.len());
        for (version, change) in &doc.history {
            out.array(2);
            out.bulk(version);
            out.bulk(change);
        }
    }
    write_arguments(&doc.arguments, out);
}

fn write_arguments(arguments: &[Argument], out: &mut impl DocsWriter) {
    if arguments.is_empty() {
        return;
    }
    out.bulk("arguments");
    out.array(arguments.len());
    for argument in arguments {
        write_argument(argument, out);
    }
}

fn write_argument(argument: &Argument, out: &mut impl DocsWriter) {
    let texts = [
        ("name", &argument.name),
        ("type", &argument.kind),
        ("display_text", &argument.display_text),
        ("summary", &argument.summary),
        ("since", &argument.since),
        ("deprecated_since", &argument.deprecated_since),
    ];
    let present = texts.iter().filter(|(_, text)| !text.is_empty()).count();
    let others = [
        argument.key_spec_index.is_some(),
        argument.token.is_some(),
        !argument.flags.is_empty(),
        !argument.arguments.is_empty(),
    ];
    out.map(present + others.iter().filter(|other| **other).count());
    write_texts(&texts[..3], out);
    if let Some(index) = argument.key_spec_index {
        out.bulk("key_spec_index");
        out.integer(index);
    }
    if let Some(token) = &argument.token {
        out.bulk("token");
        out.bulk(token);
    }
    write_texts(&texts[3..], out);
    write_flags("flags", &argument.flags, out);
    write_arguments(&argument.arguments, out);
}

fn write_texts(texts: &[(&str, &String)], out: &mut impl DocsWriter) {
    for (name, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        out.bulk(name);
        out.bulk(text);
    }
}

fn write_flags(name: &str, flags: &[String], out: &mut impl DocsWriter) {
    if flags.is_empty() {
        return;
    }
    out.bulk(name);
    out.set(flags.len());
    flags.iter().for_each(|flag| out.status(flag));
}

/// Parses `docs.json`; `None` if a field is unknown or has the wrong type.
fn parse(json: &str) -> Option<BTreeMap<String, Doc>> {
    let Value::Object(file) = serde_json::from_str(json).ok()? else {
        return None;
    };
    file.into_iter()
        .map(|(fullname, doc)| Some((fullname, parse_doc(doc)?)))
        .collect()
}

fn parse_doc(doc: Value) -> Option<Doc> {
    let mut fields = Fields::of(doc)?;
    let doc = Doc {
        summary: fields.text("summary")?,
        since: fields.text("since")?,
        group: fields.text("group")?,
        complexity: fields.text("complexity")?,
        doc_flags: fields.list("doc_flags", parse_text)?,
        deprecated_since: fields.text("deprecated_since")?,
        replaced_by: fields.text("replaced_by")?,
        history: fields.list("history", parse_change)?,
        arguments: fields.list("arguments", parse_argument)?,
    };
    fields.are_all_taken().then_some(doc)
}

fn parse_argument(argument: Value) -> Option<Argument> {
    let mut fields = Fields::of(argument)?;
    let argument = Argument {
        name: fields.text("name")?,
        kind: fields.text("type")?,
        display_text: fields.text("display_text")?,
        key_spec_index: fields.integer("key_spec_index")?,
        token: fields.optional_text("token")?,
        summary: fields.text("summary")?,
        since: fields.text("since")?,
        deprecated_since: fields.text("deprecated_since")?,
        flags: fields.list("flags", parse_text)?,
        arguments: fields.list("arguments", parse_argument)?,
    };
    fields.are_all_taken().then_some(argument)
}

fn parse_text(text: Value) -> Option<String> {
    match text {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn parse_change(change: Value) -> Option<(String, String)> {
    let Value::Array(pair) = change else {
        return None;
    };
    let [version, text] = <[Value; 2]>::try_from(pair).ok()?;
    Some((parse_text(version)?, parse_text(text)?))
}

/// The fields of an object in `docs.json`, which are taken out one by one; an absent field is
/// empty.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value) -> Option<Fields> {
        match value {
            Value::Object(fields) => Some(Fields(fields)),
            _ => None,
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.optional_text(name).map(Option::unwrap_or_default)
    }

    fn optional_text(&mut self, name: &str) -> Option<Option<String>> {
        self.0
            .remove(name)
            .map_or(Some(None), |value| parse_text(value).map(Some))
    }

    fn integer(&mut self, name: &str) -> Option<Option<i64>> {
        self.0
            .remove(name)
            .map_or(Some(None), |value| value.as_i64().map(Some))
    }

    fn list<T>(&mut self, name: &str, parse: fn(Value) -> Option<T>) -> Option<Vec<T>> {
        match self.0.remove(name) {
            None => Some(Vec::new()),
            Some(Value::Array(items)) => items.into_iter().map(parse).collect(),
            Some(_) => None,
        }
    }

    fn are_all_taken(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes documentation as a text with the type letters of RESP3, so that maps, sets and arrays
    /// can be distinguished.
    #[derive(Default)]
    struct Resp3(String);

    impl DocsWriter for Resp3 {
        fn map(&mut self, pairs: usize) {
            self.0 += &format!("%{pairs} ");
        }
        fn array(&mut self, len: usize) {
            self.0 += &format!("*{len} ");
        }
        fn set(&mut self, len: usize) {
            self.0 += &format!("~{len} ");
        }
        fn bulk(&mut self, text: &str) {
            self.0 += &format!("{text:?} ");
        }
        fn status(&mut self, text: &str) {
            self.0 += &format!("+{text} ");
        }
        fn integer(&mut self, value: i64) {
            self.0 += &format!(":{value} ");
        }
    }

    fn written(fullname: &str) -> String {
        let mut out = Resp3::default();
        assert!(write(fullname, &mut out), "{fullname} is documented");
        out.0
    }

    #[test]
    fn the_file_is_whole() {
        let docs = parse(include_str!("docs.json")).expect("docs.json parses");
        for (fullname, doc) in &docs {
            assert!(
                doc.summary.ends_with('.') && !doc.summary.contains('\n'),
                "{fullname}: {}",
                doc.summary
            );
            assert!(!doc.since.is_empty() && !doc.group.is_empty(), "{fullname}");
        }
    }

    #[test]
    fn the_file_has_a_sorted_line_for_each_command() {
        let names: Vec<_> = include_str!("docs.json")
            .lines()
            .filter_map(|line| line.split('"').nth(1))
            .collect();
        assert!(names.is_sorted());
        assert!(names.iter().eq(DOCS.keys().collect::<Vec<_>>().iter()));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(parse(r#"{"get":{"summary":"Return.","since":"1.0.0"}}"#).is_some());
        assert!(parse(r#"{"get":{"summary":"Return.","sins":"1.0.0"}}"#).is_none());
        assert!(parse(r#"{"get":{"summary":["Return."]}}"#).is_none());
    }

    #[test]
    fn commands_and_subcommands_are_found_by_full_name() {
        assert_eq!(lookup("get").map(|doc| doc.since.as_str()), Some("1.0.0"));
        assert_eq!(
            lookup("config|set").map(|doc| doc.group.as_str()),
            Some("server")
        );
        assert_eq!(lookup("set|config"), None);
        let names: Vec<_> = subcommands("script")
            .map(|(fullname, _)| fullname)
            .collect();
        let expected = ["debug", "exists", "flush", "help", "kill", "load", "show"];
        assert!(
            names
                .iter()
                .eq(expected.map(|name| format!("script|{name}")).iter()),
            "{names:?}"
        );
    }

    #[test]
    fn an_argument_is_a_map_of_what_it_has() {
        let text = written("zscan");
        let key = r#"%4 "name" "key" "type" "key" "display_text" "key" "key_spec_index" :0 "#;
        assert!(text.contains(key), "{text}");
        let count = r#"%5 "name" "count" "type" "integer" "display_text" "count" "token" "COUNT" "flags" ~1 +optional "#;
        assert!(text.contains(count), "{text}");
    }

    #[test]
    fn an_empty_token_is_a_token() {
        let empty = r#"%4 "name" "empty-string" "type" "pure-token" "display_text" "empty-string" "token" "" "#;
        assert!(written("migrate").contains(empty));
    }

    #[test]
    fn a_deprecated_command_says_so_before_its_arguments() {
        let text = written("slaveof");
        assert!(text.starts_with(r#"%8 "summary" "#), "{text}");
        let flags = r#""doc_flags" ~1 +deprecated "deprecated_since" "5.0.0" "replaced_by" "`REPLICAOF`" "arguments" *1 "#;
        assert!(text.contains(flags), "{text}");
    }

    #[test]
    fn a_container_holds_its_subcommands() {
        let text = written("config");
        assert!(
            text.contains(r#""subcommands" %5 "config|get" %6 "#),
            "{text}"
        );
        assert!(!write("nosuch", &mut Resp3::default()));
    }
}
