//! Differential tests: the same generated commands to a real valkey-server 8 and to us, every reply byte for
//! byte the same, in RESP2 and RESP3.
//!
//! The commands come from `tests/compat/grammar.txt`. A generated history is a list of numbers, each the
//! seed of one command, so that proptest can shrink a failing history to the few commands that matter.
//! `PROPTEST_CASES` sets the number of histories (`make compat-long`), `COMPAT_SEED` another seed than the
//! fixed one.
//!
//! **Differences on purpose** stand in [`ON_PURPOSE`], each with its reason.

mod common;

use common::{Conn, Peer, Reply, parse_reply};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const GRAMMAR: &str = include_str!("compat/grammar.txt");
const HISTORY: usize = 120;

/// Replies that differ on purpose: (beginning of the command in capitals, reason).
const ON_PURPOSE: &[(&str, &str)] = &[];

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

enum Token {
    Word(String),
    /// Alternatives; `optional` adds the empty one.
    Choice {
        optional: bool,
        alternatives: Vec<Vec<Token>>,
    },
    Repeat(String),
}

fn rules() -> Vec<Rule> {
    let lines = GRAMMAR
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(rule).collect()
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
fn generate(rules: &[Rule], seed: u64) -> (Compare, Vec<Vec<u8>>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let rule = &rules[rng.random_range(0..rules.len())];
    let mut argv = Vec::new();
    expand(&rule.tokens, &mut rng, &mut argv);
    // Now and then a command that is wrong; but no wait may become a long one.
    let roll = if may_wait(&argv) {
        40
    } else {
        rng.random_range(0..40)
    };
    match roll {
        0 if argv.len() > 1 => drop(argv.pop()),
        1 => argv.push(value(&mut rng)),
        2 if argv.len() > 1 => {
            let at = rng.random_range(1..argv.len());
            argv[at] = extreme(&mut rng);
        }
        _ => {}
    }
    (rule.compare, argv)
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
                "100",
                "100000",
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
        .any(|(beginning, _)| text.starts_with(beginning))
}

fn show(argv: &[Vec<u8>]) -> String {
    argv.iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// One history on both servers, from an empty data set on.
fn compare_history(
    rules: &[Rule],
    peers: &[&Peer; 2],
    resp: &str,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let mut conns: Vec<Conn> = peers.iter().map(|peer| peer.connect()).collect();
    for conn in &mut conns {
        conn.line("FLUSHALL");
        conn.line(&format!("HELLO {resp}"));
    }
    let mut sent = Vec::new();
    for &seed in seeds {
        let (compare, argv) = generate(rules, seed);
        sent.push(show(&argv));
        if std::env::var_os("COMPAT_TRACE").is_some() {
            eprintln!("{}", sent[sent.len() - 1]);
        }
        let replies: Vec<Vec<u8>> = conns.iter_mut().map(|conn| conn.cmd(&argv)).collect();
        let equal = same(compare, &replies[0], &replies[1]) || on_purpose(&argv);
        prop_assert!(
            equal,
            "RESP{resp}, after\n  {}\nwe say\n  {}\nthey say\n  {}",
            sent.join("\n  "),
            replies[0].escape_ascii(),
            replies[1].escape_ascii()
        );
    }
    Ok(())
}

#[test]
fn the_same_replies_as_valkey() {
    let Some(valkey) = Peer::valkey(&[]) else {
        return;
    };
    let aeris = Peer::aeris(&[]);
    let rules = rules();
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
    let result = runner.run(
        &(history, prop_oneof![Just("2"), Just("3")]),
        |(seeds, resp)| compare_history(&rules, &[&aeris, &valkey], resp, &seeds),
    );
    if let Err(e) = result {
        panic!("{e}");
    }
}
