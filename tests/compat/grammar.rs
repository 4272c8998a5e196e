//! The commands of the differential tests: the notation of the `.txt` files in this folder, and
//! commands drawn from it.
//!
//! ```text
//!   ~SINTER k... [x]      compared without order; one to four keys; sometimes an `x`
//!     |      |    '-- Choice, optional
//!     |      '------- Repeat
//!     '-------------- Word: a placeholder (the head of grammar.txt lists them) or itself
//! ```
//!
//! A command is drawn from one number, so that a history is a list of numbers, which proptest can
//! shrink. One command in thirteen is made wrong: an argument is missing, added, or replaced by an
//! extreme value.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How a reply is compared with that of a real server.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Compare {
    Bytes,
    /// Sets and maps are compared without order.
    Sets,
    Sorted,
    Shape,
    /// Each element is compared up to its first NUL, where a C string ends.
    UpToNul,
}

pub struct Rule {
    compare: Compare,
    tokens: Vec<Token>,
}

/// The rules of a grammar file, by the groups of the file.
pub struct Grammar {
    groups: Vec<Vec<Rule>>,
}

enum Token {
    Word(String),
    /// A choice between alternatives; if `optional`, to leave the token out is one of them.
    Choice {
        optional: bool,
        alternatives: Vec<Vec<Token>>,
    },
    Repeat(String),
}

impl Grammar {
    /// Reads the file of this name in this folder at run time, so that a new rule needs no build.
    pub fn read(name: &str) -> Grammar {
        let path = format!("{}/tests/compat/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut groups: Vec<Vec<Rule>> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with("##") {
                groups.push(Vec::new());
            } else if !line.is_empty() && !line.starts_with('#') {
                groups.last_mut().expect("a group").push(rule(line));
            }
        }
        Grammar { groups }
    }

    /// Draws a rule of the group `theme` of a history, sometimes one of another group.
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
        b'^' => (Compare::UpToNul, &line[1..]),
        _ => (Compare::Bytes, line),
    };
    let mut words: Vec<&str> = rest.split(' ').collect();
    words.reverse();
    Rule {
        compare,
        tokens: sequence(&mut words),
    }
}

/// Parses the tokens of a list of words, last word first.
fn sequence(words: &mut Vec<&str>) -> Vec<Token> {
    let mut out = Vec::new();
    while let Some(word) = words.pop() {
        let open = word.chars().next().filter(|c| "[(".contains(*c));
        let end = if open == Some('[') { ']' } else { ')' };
        // `[a` without a closing bracket is a word: a bound of ZRANGEBYLEX.
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
        } else if let Some(word) = word.strip_prefix('\\') {
            out.push(Token::Word(word.into()));
        } else if let Some(word) = word.strip_suffix("...") {
            out.push(Token::Repeat(word.into()));
        } else {
            out.push(Token::Word(word.into()));
        }
    }
    out
}

/// Makes one command from its seed.
pub fn generate(grammar: &Grammar, theme: usize, seed: u64) -> (Compare, Vec<Vec<u8>>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (compare, mut argv) = draw(grammar, theme, &mut rng);
    spoil(&mut argv, &mut rng);
    leave_out(&mut argv);
    let compare = if is_random(&argv) || compare == Compare::Bytes && is_unsorted(&argv) {
        Compare::Shape
    } else {
        compare
    };
    (compare, argv)
}

/// Draws a valid command by a rule of the grammar.
pub fn draw(grammar: &Grammar, theme: usize, rng: &mut SmallRng) -> (Compare, Vec<Vec<u8>>) {
    let rule = grammar.pick(theme, rng);
    let mut argv = Vec::new();
    expand(&rule.tokens, rng, &mut argv);
    (rule.compare, argv)
}

/// Sometimes makes a command wrong, but not so that it blocks for long or leaves servers with
/// different data.
fn spoil(argv: &mut Vec<Vec<u8>>, rng: &mut SmallRng) {
    let fixed = may_wait(argv) || ends_with(&argv[0], b"SPOP") || ends_with(&argv[0], b"SCAN")
        // The sum of the time and an extreme time to live overflows in C: see the rule in
        // grammar.txt.
        || argv.get(1).is_some_and(|script| script.starts_with(b"return(redis.pcall('restore'"))
        // The error of FUNCTION LIST contains an argument unchanged, even a line end.
        || argv[0].eq_ignore_ascii_case(b"FUNCTION") && argv.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(b"LIST"))
        // Real servers read the valid first part of an invalid number of keys, as C does.
        || argv.get(1).is_some_and(|arg| arg.to_ascii_uppercase().starts_with(b"GETKEYS"))
        // Ranges of members by bytes (BYLEX) are undefined if scores differ.
        || argv[1..].iter().any(|arg| arg.eq_ignore_ascii_case(b"ZLEX"));
    let roll = if fixed { 40 } else { rng.random_range(0..40) };
    match roll {
        0 if argv.len() > 1 => drop(argv.pop()),
        1 => argv.push(value(rng)),
        2 if argv.len() > 1 => {
            let at = rng.random_range(1..argv.len());
            argv[at] = extreme(rng);
        }
        _ => {}
    }
}

/// Removes what can't be compared: in Redis the name of a client ends at a NUL, but the rest is
/// kept; in a listpack, Valkey 8.0 cuts an index off at 32 bits and changes another element;
/// OVERFLOW SAT of a value far below the minimum of a bit field overflows in C and gives the
/// maximum.
fn leave_out(argv: &mut [Vec<u8>]) {
    let args = |word: &[u8]| argv.iter().any(|arg| arg.eq_ignore_ascii_case(word));
    let saturates = args(b"SAT");
    match &argv[0].to_ascii_uppercase()[..] {
        b"CLIENT" => argv.iter_mut().for_each(|arg| arg.retain(|&b| b != 0)),
        b"LSET" if argv.len() > 2 => argv[2].truncate(9),
        b"BITFIELD" if saturates => {
            let least = argv
                .iter_mut()
                .filter(|arg| **arg == b"-9223372036854775808");
            least.for_each(|arg| arg.truncate(18));
        }
        _ => {}
    }
}

/// Whether the reply is unpredictable, possibly because [`spoil`] has changed an argument.
fn is_random(argv: &[Vec<u8>]) -> bool {
    let name = argv[0].to_ascii_uppercase();
    let draws = name.ends_with(b"RANDMEMBER") || name == b"HRANDFIELD";
    let all = argv.get(2).is_some_and(|count| count == b"1000");
    draws && !all || name == b"HELLO"
}

/// SORT BY a pattern without `*` keeps the order of the key, which a set does not have.
fn is_unsorted(argv: &[Vec<u8>]) -> bool {
    let sorts = argv[0].to_ascii_uppercase().starts_with(b"SORT");
    let ordered = [b"LST", b"ZST"]
        .iter()
        .any(|key| argv.get(1).is_some_and(|k| k.eq_ignore_ascii_case(*key)));
    let mut pairs = argv.windows(2);
    sorts
        && !ordered
        && pairs.any(|pair| pair[0].eq_ignore_ascii_case(b"BY") && !pair[1].contains(&b'*'))
}

/// Whether a command's name ends with `end`, in any case of letters: the names of all commands with
/// cursors end with SCAN.
pub fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.to_ascii_uppercase().ends_with(end)
}

/// Whether the command may block its client.
pub fn may_wait(argv: &[Vec<u8>]) -> bool {
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
        "o" => pick(
            rng,
            &[
                "(+set ~a*)",
                "(+get ~k1)",
                "(%R~k* +@read)",
                "(~k2 &ch1 +@all -set)",
                "()",
                "(+get",
                "(+nosuch)",
                "(on)",
            ],
        ),
        "b" => pick(rng, &["0", "1", "2", "-1", "x"]),
        "l" => pick(rng, LIBRARIES),
        "c" => pick(rng, &["ch1", "ch2", "ch3", "other", "", "c\0h"]),
        "q" => pick(rng, &["ch*", "*", "ch[12]", "?h1", "nosuch*", "", "[^c]*"]),
        // Servers ignore the case of a keyword.
        literal if rng.random_bool(0.1) => literal.to_lowercase().into_bytes(),
        literal => literal.as_bytes().to_vec(),
    }
}

/// Valid and invalid libraries for FUNCTION LOAD.
const LIBRARIES: &[&str] = &[
    "#!lua name=lib1\nredis.register_function('f1', function(keys, args) return redis.call('get', keys[1]) end)",
    "#!lua name=lib1\nserver.register_function{function_name='f1', callback=function(keys) return redis.call('type', keys[1]) end, flags={'no-writes'}}",
    "#!lua name=lib2\nlocal function set(keys, args) return redis.call('set', keys[1], args[1]) end\n\
     redis.register_function('f2', set)\nredis.register_function{function_name='f3', callback=function(keys, args) return {#keys, args} end, flags={'no-writes', 'allow-stale'}, description='counts'}",
    "#!lua name=lib3\nredis.register_function('f4', function() return redis.error_reply('WRONG thing') end)",
    "#!lua name=lib2\nredis.register_function('f1', function() return 1 end)",
    "#!lua name=lib4\nredis.register_function('f 4', function() return 1 end)",
    "#!lua name=lib4\nredis.register_function('f5')",
    "#!lua name=lib4\nredis.register_function{function_name='f5', callback=1}",
    "#!lua name=lib4\nredis.register_function{function_name='f5', callback=print, flags={'nosuch'}}",
    "#!lua name=lib4\nredis.register_function{function_name='f5', nosuch=1}",
    "#!lua name=lib4\nredis.call('get', 'x')",
    "#!lua name=lib4\nreturn 1",
    "#!lua name=a-b\nreturn 1",
    "#!lua nam=lib4\nreturn 1",
    "#!nosuch name=lib4\nreturn 1",
    "#!lua\nreturn 1",
    "name=lib4\nreturn 1",
];

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
