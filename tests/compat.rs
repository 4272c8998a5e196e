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
use std::cell::Cell;
use std::iter::Peekable;

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
    ("COMMAND DOCS *HELLO*", "the same"),
    (
        "ZR[AE]*LIMIT -[0-9]*",
        "Valkey 8.0 counts a negative offset from the end if the set is a skiplist; in Redis it leaves nothing",
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
    (
        "EVAL RETURN(STRING.FORMAT(*X',* 0 99999*",
        "what is beyond 64 bits has no %x in C",
    ),
    ("EVAL RETURN(STRING.FORMAT(*X',* 0 1E308", "the same"),
    ("EVAL RETURN(STRING.FORMAT(*X',* 0 INF", "the same"),
    (
        "EVAL RETURN(CMSGPACK.PACK(TONUMBER(* 0 NAN",
        "LuaJIT has one NaN, whose sign is negative",
    ),
    ("SCRIPT LOAD *", "the same"),
];

fn same(compare: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    match compare {
        Compare::Bytes => ours == theirs || errors_alike(ours, theirs),
        Compare::Sorted => parse_reply(ours).sorted() == parse_reply(theirs).sorted(),
        Compare::Shape => shape(&parse_reply(ours)) == shape(&parse_reply(theirs)),
        Compare::UpToNul => up_to_nul(parse_reply(ours)) == up_to_nul(parse_reply(theirs)),
    }
}

fn up_to_nul(reply: Reply) -> Reply {
    match reply {
        Reply::Bulk(mut text) => {
            text.truncate(text.iter().position(|&b| b == 0).unwrap_or(text.len()));
            Reply::Bulk(text)
        }
        Reply::Many(kind, items) => Reply::Many(kind, items.into_iter().map(up_to_nul).collect()),
        other => other,
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

/// Redis's SORT makes a skiplist of a small sorted set for good, whose scores ZSCAN tells with 17 digits. Ours only reads it.
fn stays_small(argv: &[Vec<u8>], replies: &[Vec<u8>; 2]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    is("OBJECT") && replies[0].ends_with(b"listpack\r\n") && replies[1].ends_with(b"skiplist\r\n")
        || is("ZSCAN") && numbers(&replies[0]) == numbers(&replies[1])
}

/// The elements of a cursor's reply in any order, numbers by what they mean.
fn numbers(reply: &[u8]) -> Vec<Reply> {
    fn add(reply: Reply, out: &mut Vec<Reply>) {
        match reply {
            Reply::Many(_, items) => items.into_iter().for_each(|item| add(item, out)),
            Reply::Bulk(text) => {
                let number = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|t| t.parse::<f64>().ok());
                out.push(Reply::Bulk(
                    number.map_or(text, |n| n.to_string().into_bytes()),
                ));
            }
            line => out.push(line),
        }
    }
    let mut out = Vec::new();
    add(parse_reply(reply), &mut out);
    out.sort();
    out
}

/// A copy of an integer that all share is one of its own in Redis. Ours shares none, and says of each small one that it did.
fn is_shared(argv: &[Vec<u8>], replies: &[Vec<u8>; 2]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT")
        && replies[0] == b":2147483647\r\n"
        && replies[1] == b":1\r\n"
}

/// Runs behind the last register are refused since CVE-2025-32023; where 8.0.1 merges, it does not look at them, and goes on.
/// What a merge gave differs from then on.
fn merges_corrupt(argv: &[Vec<u8>], ours: &[u8]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    let merges = is("PFMERGE") || is("PFCOUNT") && argv.len() > 2;
    merges && ours.starts_with(b"-INVALIDOBJ")
}

/// Redis takes for the fault of an element what C's `errno` tells of a number that was too large in an earlier command. What
/// STORE gave differs from then on.
fn remembers_errno(ours: &[u8], theirs: &[u8]) -> bool {
    let told = |reply: &[u8]| {
        contains(
            reply,
            b"-ERR One or more scores can't be converted into double",
        )
    };
    told(theirs) && !told(ours)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
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
    /// How many commands are sent before the first reply is read.
    depth: usize,
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
    // Valkey ends a wait in its cron.
    let set = conn.line(&format!(
        "CONFIG SET hz 500{}",
        thresholds.collect::<String>()
    ));
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

type Command = (Compare, Vec<Vec<u8>>);

/// What is sent alone: the reply to a MULTI decides on what may follow, and see [`is_odd_in_multi`].
fn stands_alone(argv: &[Vec<u8>]) -> bool {
    ["MULTI", "AUTH", "HELLO"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// The next commands of a history, no more than `depth`, which are sent at once.
fn next_turn(
    history: &mut Peekable<impl Iterator<Item = Command>>,
    depth: usize,
    mut queueing: bool,
) -> Vec<Command> {
    let mut turn: Vec<Command> = Vec::new();
    while turn.len() < depth
        && !turn.last().is_some_and(|(_, argv)| stands_alone(argv))
        && let Some((compare, argv)) =
            history.next_if(|(_, argv)| turn.is_empty() || !stands_alone(argv))
    {
        // EXEC's reply is compared byte for byte: nothing in it may be unordered.
        let alike = compare == Compare::Bytes && !is_odd_in_multi(&argv) && !on_purpose(&argv);
        if !queueing || alike {
            queueing &= !ends_multi(&argv);
            turn.push((compare, argv));
        }
    }
    turn
}

/// 8.0 loses the error of an AUTH if another reply waits to be sent, as EXEC's does.
fn is_odd_in_multi(argv: &[Vec<u8>]) -> bool {
    argv[0].eq_ignore_ascii_case(b"AUTH")
}

fn ends_multi(argv: &[Vec<u8>]) -> bool {
    ["EXEC", "DISCARD", "RESET"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// The same commands to both; they work on them at the same time.
fn ask(conns: &mut [Conn], turn: &[Command]) -> Vec<[Vec<u8>; 2]> {
    let requests: Vec<u8> = turn.iter().flat_map(|(_, argv)| multibulk(argv)).collect();
    conns.iter_mut().for_each(|conn| conn.send(&requests));
    let mut replies = |of: usize| turn.iter().map(|_| conns[of].reply()).collect::<Vec<_>>();
    let (ours, theirs) = (replies(0), replies(1));
    std::iter::zip(ours, theirs).map(<[_; 2]>::from).collect()
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
    let history = seeds
        .iter()
        .map(|&seed| generate(grammar, plan.theme, seed));
    let mut history = history.peekable();
    let mut sent = Vec::new();
    let mut queueing = false;
    loop {
        let turn = next_turn(&mut history, plan.depth, queueing);
        if turn.is_empty() {
            return Ok(());
        }
        for (_, argv) in turn.iter().filter(|_| is_traced()) {
            eprintln!("{}", show(argv));
        }
        for ((compare, argv), replies) in std::iter::zip(&turn, ask(&mut conns, &turn)) {
            sent.push(show(argv));
            let equal = same(*compare, &replies[0], &replies[1]);
            let [ours, theirs] = &replies;
            if !equal && (merges_corrupt(argv, ours) || remembers_errno(ours, theirs)) {
                return Ok(());
            }
            let equal = equal
                || on_purpose(argv)
                || stays_small(argv, &replies)
                || is_shared(argv, &replies);
            prop_assert!(
                equal,
                "{plan:?}, after\n  {}\nwe say\n  {}\nthey say\n  {}",
                sent.join("\n  "),
                replies[0].escape_ascii(),
                replies[1].escape_ascii()
            );
            queueing = queueing && !ends_multi(argv)
                || argv[0].eq_ignore_ascii_case(b"MULTI") && replies[0] == b"+OK\r\n";
            COMMANDS.set(COMMANDS.get() + 1);
        }
    }
}

fn is_traced() -> bool {
    std::env::var_os("COMPAT_TRACE").is_some()
}

thread_local! {
    /// How many commands this test has compared.
    static COMMANDS: Cell<u64> = const { Cell::new(0) };
}

/// Runs `check` on generated histories, of which there are `cases`, or one of so many of `PROPTEST_CASES`; says how many
/// commands were compared.
fn run(cases: u32, one_of: u32, check: impl Fn(&[u64], Plan) -> Result<(), TestCaseError>) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: number("PROPTEST_CASES").map_or(cases, |n: u64| (n as u32 / one_of).max(1)),
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
        prop_oneof![Just(1), Just(32)],
        any::<bool>(),
    )
        .prop_map(|(resp, theme, depth, small)| Plan {
            resp,
            theme,
            depth,
            small,
        });
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
    println!("{} commands compared", COMMANDS.get());
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
    run(40, 1, |seeds, plan| {
        compare_history(&grammar, &[&aeris, &valkey], &plan, seeds)
    });
}
