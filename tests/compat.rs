//! Differential tests: the same generated commands to a real valkey-server 8 and to us, every reply byte for
//! byte the same, in RESP2 and RESP3.
//!
//! The commands come from `tests/compat/grammar.txt`. A generated history is a list of numbers, each the
//! seed of one command, so that proptest can shrink a failing history to the few commands that matter.
//! Most of its commands are of one group of the grammar, so that keys live long enough to become big and
//! odd; half of the histories run with small thresholds, so that every encoding is met.
//! `PROPTEST_CASES` sets the number of histories (`make compat-long`), `COMPAT_SEED` another seed than the
//! fixed one; `COMPAT_GO_ON=1` tells each difference and goes on, `COMPAT_TRACE=1` shows each command.
//!
//! **Differences on purpose** stand in [`ON_PURPOSE`], each with its reason.

mod common;
#[path = "compat/grammar.rs"]
mod grammar;
#[path = "compat/sessions.rs"]
mod sessions;
#[path = "compat/tables.rs"]
mod tables;

use aeris::util::glob::glob_match;
use common::{Conn, Peer, Reply, multibulk, parse_reply};
use grammar::{Compare, Grammar, generate};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use std::sync::atomic::{AtomicU64, Ordering};

const HISTORY: usize = 200;

/// Replies that differ on purpose: (pattern of the command in capitals, reason).
const ON_PURPOSE: &[(&str, &str)] = &[
    (
        "CLIENT KILL ID *",
        "8.1 takes several, so that what is no number is the next option",
    ),
    (
        "CLIENT LIST",
        "other connections, and fields of newer versions",
    ),
    (
        "COMMAND",
        "there are the newer commands too; compat/tables.rs compares the others",
    ),
    ("COMMAND COUNT", "the same"),
    ("COMMAND INFO", "the same"),
    ("COMMAND LIST", "the same"),
    ("COMMAND LIST FILTERBY [AP]*", "the same"),
    ("COMMAND DOCS", "the summaries are our own"),
    ("COMMAND DOCS HELLO*", "the same"),
    (
        "CLIENT SET*\0*",
        "a NUL ends a name for Redis, and what follows it is not looked at",
    ),
    (
        "ZR[AE]*LIMIT -[0-9]*",
        "Valkey 8.0 counts a negative offset from the end if the set is a skiplist; in Redis it leaves nothing",
    ),
    (
        "LSET * 9223372036854775807 *",
        "Redis cuts the index off in a listpack and changes another element",
    ),
    (
        "[SZ]RANDMEMBER * -?????????*",
        "what repeats elements beyond proto-max-bulk-len is refused, see commands/sample.rs",
    ),
    ("HRANDFIELD * -?????????*", "the same"),
    (
        "PFDEBUG TODENSE *",
        "bytes behind the last register make it corrupt; 8.0 did not look at them",
    ),
    (
        "EVAL [^R]*",
        "what does not compile is told in the words of LuaJIT's parser",
    ),
    ("EVAL_RO [^R]*", "the same"),
    ("SCRIPT LOAD *", "the same"),
];

fn same(compare: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    match compare {
        Compare::Bytes => ours == theirs || errors_alike(ours, theirs),
        Compare::Sorted => parse_reply(ours).sorted() == parse_reply(theirs).sorted(),
        Compare::Shape => shape(&parse_reply(ours)) == shape(&parse_reply(theirs)),
    }
}

/// Redis lets a line's end through in the texts of some errors; ours are always one line.
fn errors_alike(ours: &[u8], theirs: &[u8]) -> bool {
    let space = |&b: &u8| if b"\r\n".contains(&b) { b' ' } else { b };
    ours.starts_with(b"-") && ours.iter().map(space).eq(theirs.iter().map(space))
}

/// The kind of a reply: its length and first bytes, not its content.
fn shape(reply: &Reply) -> String {
    match reply {
        Reply::Line(line) if line.starts_with(b":") && line.get(1) != Some(&b'-') => ":n".into(),
        Reply::Line(line) => String::from_utf8_lossy(line).into_owned(),
        Reply::Bulk(_) => "$".into(),
        Reply::Many(kind, items) => format!("{}{}", char::from(*kind), items.len()),
    }
}

fn on_purpose(argv: &[Vec<u8>]) -> bool {
    let text = argv
        .iter()
        .map(|a| String::from_utf8_lossy(a).to_uppercase())
        .collect::<Vec<_>>()
        .join(" ");
    ON_PURPOSE
        .iter()
        .any(|(pattern, _)| glob_match(pattern.as_bytes(), text.as_bytes()))
}

/// Redis's SORT makes a skiplist of a small sorted set for good. Ours only reads it.
fn stays_small(argv: &[Vec<u8>], replies: &[Vec<u8>]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT")
        && replies[0].ends_with(b"listpack\r\n")
        && replies[1].ends_with(b"skiplist\r\n")
}

fn show(argv: &[Vec<u8>]) -> String {
    argv.iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What the histories of a run share.
#[derive(Clone, Debug)]
struct Plan {
    resp: &'static str,
    theme: usize,
    /// Small thresholds, so that few elements are enough for the next encoding.
    small: bool,
}

/// The settings that decide on encodings: (name, default, small).
const THRESHOLDS: &[(&str, &str, &str)] = &[
    ("list-max-listpack-size", "-2", "3"),
    ("list-compress-depth", "0", "1"),
    ("hash-max-listpack-entries", "512", "3"),
    ("hash-max-listpack-value", "64", "64"),
    ("set-max-intset-entries", "512", "3"),
    ("set-max-listpack-entries", "128", "5"),
    ("set-max-listpack-value", "64", "64"),
    ("zset-max-listpack-entries", "128", "3"),
    ("zset-max-listpack-value", "64", "64"),
    ("stream-node-max-entries", "100", "3"),
    ("hll-sparse-max-bytes", "3000", "40"),
];

/// Both servers as they were started, but for the thresholds.
fn prepare(conn: &mut Conn, plan: &Plan) {
    let thresholds = THRESHOLDS.iter().map(|&(name, default, small)| {
        format!(" {name} {}", if plan.small { small } else { default })
    });
    let set = conn.line(&format!("CONFIG SET{}", thresholds.collect::<String>()));
    assert_eq!(set, "+OK\r\n");
    for reset in [
        "FLUSHALL",
        "ACL DELUSER u1 u2",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
    ] {
        conn.line(reset);
    }
    conn.line(&format!("HELLO {}", plan.resp));
}

/// The same command to both; they work on it at the same time.
fn ask(conns: &mut [Conn], argv: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let request = multibulk(argv);
    conns.iter_mut().for_each(|conn| conn.send(&request));
    conns.iter_mut().map(Conn::reply).collect()
}

/// One history on both servers, from an empty data set on.
fn compare_history(
    grammar: &Grammar,
    peers: &[&Peer; 2],
    plan: &Plan,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let mut conns: Vec<Conn> = peers.iter().map(|peer| peer.connect()).collect();
    conns.iter_mut().for_each(|conn| prepare(conn, plan));
    let mut sent = Vec::new();
    let mut queueing = false;
    for &seed in seeds {
        let (compare, argv) = generate(grammar, plan.theme, seed);
        // EXEC's reply is compared byte for byte: nothing in it may be unordered.
        if queueing && compare != Compare::Bytes {
            continue;
        }
        sent.push(show(&argv));
        if std::env::var_os("COMPAT_TRACE").is_some() {
            eprintln!("{}", sent[sent.len() - 1]);
        }
        let replies = ask(&mut conns, &argv);
        let equal = same(compare, &replies[0], &replies[1])
            || on_purpose(&argv)
            || stays_small(&argv, &replies);
        prop_assert!(
            equal,
            "{plan:?}, after\n  {}\nwe say\n  {}\nthey say\n  {}",
            sent.join("\n  "),
            replies[0].escape_ascii(),
            replies[1].escape_ascii()
        );
        let is = |name: &[u8]| argv[0].eq_ignore_ascii_case(name);
        queueing = queueing && !is(b"EXEC") && !is(b"DISCARD") && !is(b"RESET")
            || is(b"MULTI") && replies[0] == b"+OK\r\n";
        COMMANDS.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How many commands were compared.
static COMMANDS: AtomicU64 = AtomicU64::new(0);

/// Runs `check` on generated histories; says how many commands were compared.
fn run(cases: u32, check: impl Fn(&[u64], Plan) -> Result<(), TestCaseError>) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: number("PROPTEST_CASES").map_or(cases, |n: u64| n as u32),
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(number("COMPAT_SEED").unwrap_or(20_240_607)),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let history = prop::collection::vec(any::<u64>(), 1..HISTORY);
    let plan = (
        prop_oneof![Just("2"), Just("3")],
        any::<usize>(),
        any::<bool>(),
    )
        .prop_map(|(resp, theme, small)| Plan { resp, theme, small });
    let go_on = std::env::var_os("COMPAT_GO_ON").is_some();
    let result = TestRunner::new(config).run(&(history, plan), |(seeds, plan)| {
        check(&seeds, plan).or_else(|e| match e {
            TestCaseError::Fail(reason) if go_on => {
                eprintln!("{reason}\n");
                Ok(())
            }
            e => Err(e),
        })
    });
    println!("{} commands compared", COMMANDS.load(Ordering::Relaxed));
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn the_same_replies_as_valkey() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let aeris = Peer::aeris(&[]);
    let grammar = Grammar::read("grammar.txt");
    run(40, |seeds, plan| {
        compare_history(&grammar, &[&aeris, &valkey], &plan, seeds)
    });
}
