//! Differential tests: the same generated commands to a real valkey-server 8 and to us, every reply byte for
//! byte the same, in RESP2 and RESP3.
//!
//! The commands come from `tests/compat/grammar.txt`. A generated history is a list of numbers, each the
//! seed of one command, so that proptest can shrink a failing history to the few commands that matter.
//! Most of its commands are of one group of the grammar, so that keys live long enough to become big and
//! odd; half of the histories run with small thresholds, so that every encoding is met.
//! `PROPTEST_CASES` sets the number of histories (`make compat-long`), `COMPAT_SEED` another seed than the
//! fixed one.
//!
//! **Differences on purpose** stand in [`ON_PURPOSE`], each with its reason.

mod common;

use aeris::util::glob::glob_match;
use common::{Conn, Peer, Reply, parse_reply};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};

const GRAMMAR: &str = include_str!("compat/grammar.txt");
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
    ("COMMAND", "there are the newer commands too"),
    ("COMMAND COUNT", "the same"),
    ("COMMAND LIST*", "the same"),
    (
        "COMMAND INFO*",
        "flags and key specs are those of the newest version",
    ),
    ("COMMAND DOCS*", "the summaries are our own"),
    (
        "CLIENT SET*\0*",
        "a NUL ends a name for Redis, and what follows it is not looked at",
    ),
    (
        "* LIMIT -[0-9]*",
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
        "EVAL [^R]*",
        "what does not compile is told in the words of LuaJIT's parser",
    ),
    ("EVAL_RO [^R]*", "the same"),
    ("SCRIPT LOAD *", "the same"),
];

/// How a reply is compared.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Compare {
    Bytes,
    Sorted,
    Shape,
}

struct Rule {
    compare: Compare,
    tokens: Vec<Token>,
}

/// The rules by group.
struct Grammar {
    groups: Vec<Vec<Rule>>,
}

enum Token {
    Word(String),
    /// Alternatives; `optional` adds the empty one.
    Choice {
        optional: bool,
        alternatives: Vec<Vec<Token>>,
    },
    Repeat(String),
}

impl Grammar {
    fn read() -> Grammar {
        let mut groups: Vec<Vec<Rule>> = Vec::new();
        for line in GRAMMAR.lines().map(str::trim) {
            if line.starts_with("##") {
                groups.push(Vec::new());
            } else if !line.is_empty() && !line.starts_with('#') {
                groups.last_mut().expect("a group").push(rule(line));
            }
        }
        Grammar { groups }
    }

    /// A rule of the history's group, now and then one of another.
    fn pick(&self, theme: usize, rng: &mut SmallRng) -> &Rule {
        let group = if rng.random_bool(0.75) {
            theme % self.groups.len()
        } else {
            rng.random_range(0..self.groups.len())
        };
        let rules = &self.groups[group];
        &rules[rng.random_range(0..rules.len())]
    }
}

fn rule(line: &str) -> Rule {
    let (compare, rest) = match line.as_bytes()[0] {
        b'~' => (Compare::Sorted, &line[1..]),
        b'?' => (Compare::Shape, &line[1..]),
        _ => (Compare::Bytes, line),
    };
    let mut words: Vec<&str> = rest.split(' ').collect();
    words.reverse();
    Rule {
        compare,
        tokens: sequence(&mut words),
    }
}

/// Reads the tokens of a list of words, last word first.
fn sequence(words: &mut Vec<&str>) -> Vec<Token> {
    let mut out = Vec::new();
    while let Some(word) = words.pop() {
        let open = word.chars().next().filter(|c| "[(".contains(*c));
        let end = if open == Some('[') { ']' } else { ')' };
        // `[a` that nothing closes is a word: the end of a range by name.
        let closed = word.ends_with(end) || words.iter().any(|later| later.ends_with(end));
        if let Some(open) = open.filter(|_| closed) {
            let mut text = word[1..].to_string();
            while !text.ends_with(end) {
                text.push(' ');
                text.push_str(words.pop().expect("a closing bracket"));
            }
            text.pop();
            let alternatives = text
                .split('|')
                .map(|alternative| {
                    let mut inner: Vec<&str> = alternative.split(' ').collect();
                    inner.reverse();
                    sequence(&mut inner)
                })
                .collect();
            out.push(Token::Choice {
                optional: open == '[',
                alternatives,
            });
        } else if let Some(word) = word.strip_suffix("...") {
            out.push(Token::Repeat(word.into()));
        } else {
            out.push(Token::Word(word.into()));
        }
    }
    out
}

/// One command from its seed.
fn generate(grammar: &Grammar, theme: usize, seed: u64) -> (Compare, Vec<Vec<u8>>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let rule = grammar.pick(theme, &mut rng);
    let mut argv = Vec::new();
    expand(&rule.tokens, &mut rng, &mut argv);
    // Now and then a command that is wrong; but no wait may become a long one, and the data sets stay the same.
    let fixed = may_wait(&argv) || ends_with(&argv[0], b"SPOP") || ends_with(&argv[0], b"SCAN")
        // Ranges of bytes mean nothing where scores differ.
        || argv[1..].iter().any(|arg| arg.eq_ignore_ascii_case(b"ZLEX"));
    let roll = if fixed { 40 } else { rng.random_range(0..40) };
    match roll {
        0 if argv.len() > 1 => drop(argv.pop()),
        1 => argv.push(value(&mut rng)),
        2 if argv.len() > 1 => {
            let at = rng.random_range(1..argv.len());
            argv[at] = extreme(&mut rng);
        }
        _ => {}
    }
    let compare = if is_random(&argv) {
        Compare::Shape
    } else {
        rule.compare
    };
    (compare, argv)
}

/// Whether nobody can know the reply, for a mutation may have made it so.
fn is_random(argv: &[Vec<u8>]) -> bool {
    let name = argv[0].to_ascii_uppercase();
    let draws = name.ends_with(b"RANDMEMBER") || name == b"HRANDFIELD";
    let all = argv.get(2).is_some_and(|count| count == b"1000");
    draws && !all || name == b"HELLO"
}

/// Whether a command's name ends like this: all cursors are of one family.
fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.to_ascii_uppercase().ends_with(end)
}

fn may_wait(argv: &[Vec<u8>]) -> bool {
    let name = argv[0].to_ascii_uppercase();
    let waits: [&[u8]; 4] = [b"BL", b"BR", b"BZ", b"WAIT"];
    let blocks = |arg: &Vec<u8>| arg.eq_ignore_ascii_case(b"BLOCK");
    waits.iter().any(|start| name.starts_with(start)) || argv.iter().any(blocks)
}

fn expand(tokens: &[Token], rng: &mut SmallRng, argv: &mut Vec<Vec<u8>>) {
    for token in tokens {
        match token {
            Token::Word(word) => argv.push(placeholder(word, rng)),
            Token::Repeat(word) => {
                for _ in 0..rng.random_range(1..=4) {
                    argv.push(placeholder(word, rng));
                }
            }
            Token::Choice {
                optional,
                alternatives,
            } => {
                if *optional && rng.random_bool(0.6) {
                    continue;
                }
                let alternative = &alternatives[rng.random_range(0..alternatives.len())];
                expand(alternative, rng, argv);
            }
        }
    }
}

fn pick(rng: &mut SmallRng, from: &[&str]) -> Vec<u8> {
    from[rng.random_range(0..from.len())].as_bytes().to_vec()
}

fn placeholder(word: &str, rng: &mut SmallRng) -> Vec<u8> {
    match word {
        "k" => format!("k{}", rng.random_range(0..8)).into_bytes(),
        "v" => value(rng),
        "n" => integer(rng),
        "s" => rng.random_range(-6..12).to_string().into_bytes(),
        "f" => pick(
            rng,
            &[
                "1.5",
                "-0.1",
                "3",
                "1e3",
                "5.0e-3",
                "0",
                "-0",
                "inf",
                "nan",
                "1e308",
                "abc",
                "0x10",
                " 1",
                "17976931348623157e292",
            ],
        ),
        "i" => stream_id(rng),
        "p" => pick(
            rng,
            &[
                "k*", "*", "k[1-3]", "k?", "[^k]*", "k\\1", "", "k[", "*3", "k**",
            ],
        ),
        "t" => pick(
            rng,
            &[
                "100000",
                "200000",
                "5000000",
                "-1",
                "0",
                "9223372036854775807",
                "abc",
                "10000000000000",
            ],
        ),
        "b" => pick(rng, &["0", "1", "2", "-1", "x"]),
        // The case of a keyword does not matter.
        literal if rng.random_bool(0.1) => literal.to_lowercase().into_bytes(),
        literal => literal.as_bytes().to_vec(),
    }
}

fn stream_id(rng: &mut SmallRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0 => pick(
            rng,
            &[
                "-",
                "+",
                "0-0",
                "(3-1",
                "(0",
                "007-1",
                "x",
                "",
                "3-",
                "18446744073709551615-18446744073709551615",
            ],
        ),
        1 | 2 => rng.random_range(0..30).to_string().into_bytes(),
        _ => format!("{}-{}", rng.random_range(0..30), rng.random_range(0..4)).into_bytes(),
    }
}

fn integer(rng: &mut SmallRng) -> Vec<u8> {
    if rng.random_bool(0.7) {
        return rng.random_range(-20..200).to_string().into_bytes();
    }
    extreme(rng)
}

fn extreme(rng: &mut SmallRng) -> Vec<u8> {
    pick(
        rng,
        &[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551615",
            "1e308",
            "inf",
            "-inf",
            "nan",
            "-0",
            "007",
            "+1",
            " 1",
            "1 ",
            "",
            "1.0",
            "4294967296",
            "2147483648",
            "\u{0}\r\n",
            "999999999999999999999999",
        ],
    )
}

fn value(rng: &mut SmallRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0..4 => pick(
            rng,
            &[
                "a",
                "b",
                "hello",
                "",
                "foobar",
                "x y",
                "\r\n",
                "ohmytext",
                "mynewtext",
            ],
        ),
        4..7 => rng.random_range(-100..1000).to_string().into_bytes(),
        7 => extreme(rng),
        8 => (0..rng.random_range(0..200))
            .map(|_| rng.random::<u8>())
            .collect(),
        _ => "z".repeat(rng.random_range(40..600)).into_bytes(),
    }
}

fn same(compare: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    match compare {
        Compare::Bytes => ours == theirs,
        Compare::Sorted => parse_reply(ours).sorted() == parse_reply(theirs).sorted(),
        Compare::Shape => shape(&parse_reply(ours)) == shape(&parse_reply(theirs)),
    }
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
    conn.line("FLUSHALL");
    conn.line(&format!("HELLO {}", plan.resp));
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
        let replies: Vec<Vec<u8>> = conns.iter_mut().map(|conn| conn.cmd(&argv)).collect();
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

#[test]
fn the_same_replies_as_valkey() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let aeris = Peer::aeris(&[]);
    let grammar = Grammar::read();
    let seed = std::env::var("COMPAT_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_240_607);
    let config = Config {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(40),
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let history = prop::collection::vec(any::<u64>(), 1..HISTORY);
    let plan = (
        prop_oneof![Just("2"), Just("3")],
        any::<usize>(),
        any::<bool>(),
    )
        .prop_map(|(resp, theme, small)| Plan { resp, theme, small });
    let result = runner.run(&(history, plan), |(seeds, plan)| {
        compare_history(&grammar, &[&aeris, &valkey], &plan, &seeds)
    });
    println!("{} commands compared", COMMANDS.load(Ordering::Relaxed));
    if let Err(e) = result {
        panic!("{e}");
    }
}
