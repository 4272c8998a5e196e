//! Which error comes first: the commands for single fields of hashes, with two faults at once.
//!
//! A command is a row of slots; a slot is a list of words, of which the first is valid. Every pair
//! of slots is filled with every pair of its words, the other slots with their valid words:
//!
//! ```text
//!   HEXPIRE   h    100   NX   FIELDS   1    f
//!             str  x     FOO  FIELD    0    f g     HEXPIRE h x FIELDS 0 f, HEXPIRE str 100 FOO ..
//! ```
//!
//! Redis 8.2 judges alone, since Valkey's texts for these commands are others. Left out, with
//! their reasons: options behind the fields, which are accepted as in Redis 8.6 (8.2 refuses them),
//! and NX and XX of HSETEX, which only Valkey has (`tests/transcripts/newer_hash_fields.txt`).

use super::common::{Conn, Peer, multibulk};
use super::show;
use std::collections::BTreeSet;

/// The number of commands that are sent before the first reply is read.
const BATCH: usize = 100;

const KEYS: &[&str] = &["h", "str", "none"];
const TIMES: &[&str] = &[
    "4000000000",
    "0",
    "x",
    "-1",
    "1.5",
    "70368744177664",
    "9223372036854775807",
    "99999999999999999999",
    "",
];
const CONDITIONS: &[&str] = &[
    "", "NX", "XX", "GT", "LT", "NX NX", "NX XX", "GT LT", "XX GT", "FOO", "NX FOO",
];
const WORDS: &[&str] = &["FIELDS", "fields", "FIELD", ""];
const NUMBERS: &[&str] = &[
    "1",
    "2",
    "0",
    "-1",
    "x",
    "1.5",
    "+1",
    "",
    "2147483648",
    "9223372036854775807",
];
const FIELDS: &[&str] = &[
    "f",
    "f g",
    "",
    "f f",
    "f FOO",
    "f FIELDS 1 g",
    "f FIELDS 0",
    "f EX 10",
    "f PERSIST",
];
const PAIRS: &[&str] = &[
    "f v",
    "f v g w",
    "f",
    "f v g",
    "",
    "f v FOO",
    "f v FIELDS 1 g w",
    "f v FIELDS x",
    "f v EX 10",
    "f v KEEPTTL",
];
/// Options of HGETEX, which stand before the fields; the last ones are options of other commands.
const GET_OPTIONS: &[&str] = &[
    "",
    "EX 10",
    "EX x",
    "EX -1",
    "EX 0",
    "EX",
    "PX x",
    "EXAT 4000000000",
    "EXAT 1",
    "EXAT 9999999999999999",
    "PXAT 99999999999999999999",
    "PERSIST",
    "FOO",
    "10",
    "NX",
    "FNX",
    "KEEPTTL",
];
const SET_OPTIONS: &[&str] = &[
    "",
    "EX 10",
    "EX x",
    "EX -1",
    "EX 0",
    "EX",
    "PX x",
    "EXAT 4000000000",
    "EXAT 1",
    "EXAT 9999999999999999",
    "PXAT 99999999999999999999",
    "KEEPTTL",
    "FNX",
    "FXX",
    "FOO",
    "10",
    "GT",
    "PERSIST",
];

type Slots = &'static [&'static [&'static str]];

/// The names of commands that have the same arguments, and the lists of words for each argument.
const COMMANDS: &[(&[&str], Slots)] = &[
    (
        &["HEXPIRE", "HPEXPIRE", "HEXPIREAT", "HPEXPIREAT"],
        &[KEYS, TIMES, CONDITIONS, WORDS, NUMBERS, FIELDS],
    ),
    (
        &[
            "HGETDEL",
            "HPERSIST",
            "HTTL",
            "HPTTL",
            "HEXPIRETIME",
            "HPEXPIRETIME",
        ],
        &[
            KEYS,
            &["", "NX", "EX 10", "EX x", "FOO"],
            WORDS,
            NUMBERS,
            FIELDS,
        ],
    ),
    (
        &["HGETEX"],
        &[KEYS, GET_OPTIONS, GET_OPTIONS, WORDS, NUMBERS, FIELDS],
    ),
    (
        &["HSETEX"],
        &[KEYS, SET_OPTIONS, SET_OPTIONS, WORDS, NUMBERS, PAIRS],
    ),
];

/// All commands with up to two wrong words, each command once.
fn commands() -> BTreeSet<Vec<Vec<u8>>> {
    let mut out = BTreeSet::new();
    for (names, slots) in COMMANDS {
        for name in *names {
            for one in 0..slots.len() {
                for other in 0..one {
                    add_pairs(name, slots, [one, other], &mut out);
                }
            }
        }
    }
    out
}

/// Adds the commands that have every pair of words in the two slots `free`, and valid words in the
/// others.
fn add_pairs(name: &str, slots: Slots, free: [usize; 2], out: &mut BTreeSet<Vec<Vec<u8>>>) {
    for &first in slots[free[0]] {
        for &second in slots[free[1]] {
            let word = |(at, words): (usize, &&'static [&'static str])| match at {
                _ if at == free[0] => first,
                _ if at == free[1] => second,
                _ => words[0],
            };
            let words = slots.iter().enumerate().map(word);
            let line = words.fold(String::from(name), |line, word| line + " " + word);
            let argv = line.split_whitespace();
            out.insert(argv.map(|arg| arg.as_bytes().to_vec()).collect());
        }
    }
}

/// The replies to the commands. Before each command, the keys get the same values again.
fn ask(conn: &mut Conn, batch: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    const DATA: [&[&str]; 3] = [
        &["DEL", "h", "none"],
        &["SET", "str", "x"],
        &["HSET", "h", "f", "1", "g", "2"],
    ];
    let mut requests = Vec::new();
    for argv in batch {
        DATA.iter()
            .for_each(|argv| requests.extend(multibulk(argv)));
        requests.extend(multibulk(argv));
    }
    conn.send(&requests);
    let mut reply = |_: &Vec<Vec<u8>>| {
        DATA.iter().for_each(|_| drop(conn.reply()));
        conn.reply()
    };
    batch.iter().map(&mut reply).collect()
}

#[test]
fn hash_field_commands_with_two_faults_report_the_one_that_redis_does() {
    let Some(redis) = Peer::redis8(&[]) else {
        return;
    };
    let aeris = Peer::aeris(&[]);
    let (mut ours, mut theirs) = (aeris.connect(), redis.connect());
    let commands: Vec<_> = commands().into_iter().collect();
    let (mut errors, mut wrong) = (0, Vec::new());
    for batch in commands.chunks(BATCH) {
        let replies = ask(&mut ours, batch).into_iter();
        for ((argv, we), they) in batch.iter().zip(replies).zip(ask(&mut theirs, batch)) {
            errors += they.starts_with(b"-") as usize;
            if we != they {
                let (we, they) = (we.escape_ascii(), they.escape_ascii());
                wrong.push(format!("{}\n  we   {we}\n  they {they}", show(argv)));
            }
        }
    }
    println!(
        "{} commands compared, {errors} of them errors",
        commands.len()
    );
    assert!(errors > 5000, "too few faults: {errors}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
