//! Compares the servers' tables of commands: rows, arities, help; and checks that the grammars
//! include every command.

use super::common::{Conn, Peer, Reply, parse_reply};
use super::jury::Jury;
use aeris::command::NOT_BUILT;
use aeris::commands::TABLE;
use std::collections::{BTreeMap, BTreeSet};

/// Fields of COMMAND INFO in which aeris differs on purpose: (beginning of the name, field).
const NEWER_ROWS: &[(&str, &str)] = &[
    // The keys after STORE depend on the options, which Redis and Valkey 8.0 don't say.
    ("georadius", "key specs"),
    // The test suite of Valkey 8.1 runs these commands while the data set is loaded.
    ("memory|", "flags"),
    // Valkey 9.1 has CLUSTER REPLICATE NO ONE.
    ("cluster|replicate", "arity"),
];

/// Fields of COMMAND INFO in which Redis and Valkey differ, and aeris is like Redis: (beginning of
/// the name, field).
const ROWS_OF_REDIS: &[(&str, &str)] = &[
    // Valkey runs these commands while the data set is loaded.
    ("cluster|", "flags"),
    // Valkey 9.1 refuses CLIENT REPLY in transactions.
    ("client|reply", "flags"),
];

/// Commands that no grammar sends: (prefix of the name, reason).
const NOT_SENT: &[(&str, &str)] = &[
    ("acl|genpass", "random"),
    ("acl|load", "files: process tests"),
    ("acl|save", "files: process tests"),
    (
        "asking",
        "the jury is not in cluster mode: tests/cluster_slots.rs",
    ),
    (
        "cluster",
        "the jury is not in cluster mode: tests/cluster_slots.rs",
    ),
    ("acl|log", "ages and addresses: the Tcl suite"),
    ("bgrewriteaof", "files: the persistence tests"),
    ("bgsave", "files: the persistence tests"),
    ("client|info", "addresses and buffers"),
    (
        "client|pause",
        "a spoilt argument would stop every client: the Tcl suite",
    ),
    ("client|import-source", "replication"),
    ("client|reply", "no reply to compare"),
    ("config|rewrite", "files: process tests"),
    ("debug", "each server's own"),
    ("info", "each server's own"),
    ("lastsave", "a time"),
    ("latency", "measured times: the Tcl suite"),
    ("lolwut", "each server's own"),
    (
        "migrate",
        "it needs a second server: tests/migrate.rs, and the Tcl suite",
    ),
    ("memory", "each allocator's own"),
    ("monitor", "the Tcl suite"),
    ("pfselftest", "each server tests itself"),
    (
        "psync",
        "the connection becomes a replica's: the replication tests",
    ),
    ("quit", "the connection ends: transcripts"),
    (
        "replicaof",
        "a spoilt argument would make a server a replica: the replication tests",
    ),
    (
        "read",
        "READONLY and READWRITE differ between the peers: tests/replica_refusals.rs",
    ),
    ("restore-asking", "cluster"),
    ("role", "replication"),
    ("save", "files: the persistence tests"),
    ("script|debug", "a debugger takes over"),
    ("shutdown", "the server ends: process tests"),
    ("slaveof", "as replicaof"),
    ("slowlog", "measured times: the Tcl suite"),
    ("commandlog", "measured times: the Tcl suite"),
    ("command|count", "there are newer commands"),
];

/// The fields of all commands and subcommands by name, as in [`FIELDS`].
pub type Rows = BTreeMap<String, Vec<(&'static str, Reply)>>;

const FIELDS: [&str; 9] = [
    "name",
    "arity",
    "flags",
    "first key",
    "last key",
    "step",
    "categories",
    "tips",
    "key specs",
];

/// Tables that are compared with Valkey alone are compared in Valkey's form.
const VALKEYS_WORDS: &[&str] = &["--extended-redis-compatibility", "no"];

/// The rows in a server's reply to COMMAND.
pub fn rows(conn: &mut Conn) -> Rows {
    let mut rows = Rows::new();
    add_rows(parse_reply(&conn.cmd(&["COMMAND"])), &mut rows);
    rows
}

fn add_rows(commands: Reply, rows: &mut Rows) {
    let Reply::Many(_, commands) = commands else {
        panic!("an array of commands");
    };
    for command in commands {
        let Reply::Many(_, mut fields) = command else {
            panic!("a command is an array");
        };
        let Reply::Bulk(name) = &fields[0] else {
            panic!("its first element is its name");
        };
        let name = String::from_utf8_lossy(name).into_owned();
        add_rows(fields.pop().expect("subcommands"), rows);
        // Flags, categories and tips are sets, so they are sorted; the order of key specs counts.
        let fields = fields.into_iter().enumerate().map(|(at, field)| match at {
            8 => (FIELDS[at], field),
            _ => (FIELDS[at], field.sorted()),
        });
        rows.insert(name, fields.collect());
    }
}

/// The fields that have another value in `right` than in aeris's rows, as (name, field), without
/// those of `listed`.
fn differing<'a>(
    ours: &'a Rows,
    right: &Rows,
    listed: &[(&str, &str)],
) -> BTreeSet<(&'a str, &'a str)> {
    let mut found = BTreeSet::new();
    for (name, row) in ours {
        for field in row {
            let mut theirs = right.get(name).into_iter().flatten();
            if theirs.any(|(of, value)| *of == field.0 && *value != field.1) {
                found.insert((name.as_str(), field.0));
            }
        }
    }
    let listed = |name: &str, field: &str| {
        listed
            .iter()
            .any(|(start, differs)| name.starts_with(start) && field == *differs)
    };
    found.retain(|(name, field)| !listed(name, field));
    found
}

/// The fields of `rows` that have the same value in `other`.
fn agreed(mut rows: Rows, other: &Rows) -> Rows {
    for (name, row) in &mut rows {
        let theirs = other.get(name);
        row.retain(|field| theirs.is_some_and(|row| row.contains(field)));
    }
    rows
}

#[test]
fn common_commands_have_the_rows_of_redis() {
    let (Some(redis), Some(redis8)) = (Peer::redis(&[]), Peer::redis8(&[])) else {
        return;
    };
    let agreed = agreed(rows(&mut redis.connect()), &rows(&mut redis8.connect()));
    let ours = rows(&mut Peer::aeris(&[]).connect());
    let found = differing(&ours, &agreed, NEWER_ROWS);
    assert!(found.is_empty(), "differ from Redis's: {found:?}");
}

#[test]
fn common_commands_have_the_rows_of_valkey() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let ours = rows(&mut Peer::aeris(VALKEYS_WORDS).connect());
    let listed = [NEWER_ROWS, ROWS_OF_REDIS].concat();
    let found = differing(&ours, &rows(&mut valkey.connect()), &listed);
    assert!(found.is_empty(), "differ from Valkey's: {found:?}");
}

/// Sends each command and subcommand with one argument too few, and one too many.
#[test]
fn the_wrong_number_of_arguments() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let mut conn = jury.aeris.connect();
    let mut conns: Vec<_> = jury
        .judges
        .iter()
        .map(|judge| judge.peer.connect())
        .collect();
    let mut wrong = Vec::new();
    for (name, ours) in &jury.ours {
        // Where arities differ, a number that is too small for one server is enough for another,
        // and the command may run.
        let known: Vec<_> = jury
            .judges
            .iter()
            .filter_map(|judge| judge.rows.get(name))
            .collect();
        if known.is_empty() {
            continue;
        }
        let rows = known.into_iter().chain([ours]);
        let arities: BTreeSet<i64> = rows.map(|row| arity(&row[1].1)).collect();
        let least = arities.iter().copied().min_by_key(|arity| arity.abs());
        let least = least.expect("our arity, if no other");
        let mut lengths = vec![least.unsigned_abs() as usize - 1];
        if arities.len() == 1 && least > 0 {
            lengths.push(least as usize + 1);
        }
        let words: Vec<&str> = name.split('|').collect();
        // A request with fewer words than the name of a subcommand would be another command.
        for len in lengths.into_iter().filter(|len| *len >= words.len()) {
            let mut argv: Vec<Vec<u8>> =
                words.iter().map(|word| word.as_bytes().to_vec()).collect();
            argv.resize(len, b"x".to_vec());
            let reply = conn.cmd(&argv);
            let theirs: Vec<_> = conns.iter_mut().map(|conn| conn.cmd(&argv)).collect();
            let judged = std::iter::zip(&jury.judges, &theirs);
            let opinions: Vec<_> = judged
                .map(|(judge, theirs)| (judge.name, *theirs == reply))
                .collect();
            if !jury.is_right(&argv, &opinions) {
                let texts: Vec<_> = theirs
                    .iter()
                    .map(|text| String::from_utf8_lossy(text))
                    .collect();
                wrong.push(format!(
                    "{name} {len}: {:?}, not {texts:?}",
                    String::from_utf8_lossy(&reply)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn arity(field: &Reply) -> i64 {
    let Reply::Line(arity) = field else {
        panic!("arity is a number");
    };
    String::from_utf8_lossy(&arity[1..]).parse().expect("arity")
}

/// Lines of Valkey 8.0's HELP replies that differ in aeris, which has newer options.
const NEWER_HELP: &[&str] = &["    * ID <client-id>"];

/// The lines of a HELP reply of other servers are in aeris's reply, in the same order; lines about
/// newer subcommands are between them.
#[test]
fn help() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let aeris = Peer::aeris(VALKEYS_WORDS);
    let mut conns = [aeris.connect(), valkey.connect()];
    let containers = "ACL CLIENT COMMAND CONFIG FUNCTION LATENCY MEMORY OBJECT PUBSUB SCRIPT SLOWLOG XGROUP XINFO";
    for container in containers.split(' ') {
        let [ours, theirs] =
            conns
                .each_mut()
                .map(|conn| match parse_reply(&conn.cmd(&[container, "HELP"])) {
                    Reply::Many(_, lines) => lines,
                    other => panic!("{container} HELP says {other:?}"),
                });
        let mut rest = ours.iter();
        for line in &theirs {
            let Reply::Line(text) = line else {
                panic!("{line:?} is no line");
            };
            let text = String::from_utf8_lossy(&text[1..]);
            assert!(
                NEWER_HELP.contains(&&*text) || rest.any(|ours| ours == line),
                "{container} HELP has no {text:?}, or has it elsewhere"
            );
        }
    }
}

/// COMMAND LIST with a filter has the commands of Valkey 8.0 and newer commands.
#[test]
fn lists_of_commands() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let aeris = Peer::aeris(&[]);
    let theirs = rows(&mut valkey.connect());
    let mut conns = [aeris.connect(), valkey.connect()];
    let Reply::Many(_, categories) = parse_reply(&conns[1].cmd(&["ACL", "CAT"])) else {
        panic!("ACL CAT says no array");
    };
    let mut filters: Vec<(&str, String)> = ["*", "g*", "*x*", "client|*", "nosuch", "z???"]
        .map(|pattern| ("PATTERN", pattern.into()))
        .into();
    for category in categories {
        if let Reply::Bulk(name) = category {
            filters.push(("ACLCAT", String::from_utf8_lossy(&name).into_owned()));
        }
    }
    for (kind, value) in &filters {
        let [ours, other] = conns.each_mut().map(|conn| {
            let reply = conn.cmd(&["COMMAND", "LIST", "FILTERBY", kind, value]);
            let Reply::Many(_, names) = parse_reply(&reply) else {
                panic!("COMMAND LIST FILTERBY {kind} {value} says no array");
            };
            names.into_iter().collect::<BTreeSet<_>>()
        });
        let newer = |name: &&Reply| match name {
            Reply::Bulk(name) => !theirs.contains_key(&*String::from_utf8_lossy(name)),
            _ => false,
        };
        let unknown: Vec<_> = ours
            .difference(&other)
            .filter(|name| !newer(name))
            .collect();
        assert!(unknown.is_empty(), "{kind} {value}: {unknown:?}");
    }
}

/// The names of commands and subcommands that aeris only lists, because their feature is not built.
fn not_built() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in TABLE.iter().flat_map(|rows| rows.iter()) {
        let subs = row.subcommands.iter();
        let subs = subs.map(|sub| (sub, format!("{}|{}", row.name, sub.name)));
        for (row, name) in std::iter::once((row, row.name.to_string())).chain(subs) {
            if row.is(NOT_BUILT) {
                names.insert(name);
            }
        }
    }
    names
}

/// Each command that aeris and a judge have is in a grammar, in [`NOT_SENT`], or not built.
#[test]
fn every_command_is_sent() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let not_built = not_built();
    let judged = |name: &str| {
        jury.judges
            .iter()
            .any(|judge| judge.rows.contains_key(name))
    };
    let text = concat!(include_str!("grammar.txt"), include_str!("sessions.txt")).to_lowercase();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split([' ', '(', ')', '|', '[', ']', '~', '?'])
                .collect()
        })
        .collect();
    let sent = |name: &str| {
        lines
            .iter()
            .any(|words| name.split('|').all(|part| words.contains(&part)))
    };
    let missing: Vec<&String> = jury
        .ours
        .keys()
        .filter(|name| judged(name) && !sent(name) && !not_built.contains(*name))
        .filter(|name| !NOT_SENT.iter().any(|(start, _)| name.starts_with(start)))
        .filter(|name| !name.ends_with("|help"))
        .collect();
    assert!(missing.is_empty(), "no grammar sends {missing:?}");
}
