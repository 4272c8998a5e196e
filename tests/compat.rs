//! Differential tests: the same generated commands are sent to aeris and to four real servers, and
//! every reply of aeris is judged byte for byte by the rule in `tests/compat/jury.rs`.
//!
//! The commands come from `tests/compat/grammar.txt`. A generated history is a list of numbers,
//! each the seed of one command, so that proptest can shrink a failing history to the few commands
//! that matter. Most commands of a history are of one group of the grammar, so that keys live long
//! enough to become large and unusual. A history runs in RESP2 or RESP3; one command at a time,
//! pipelined, inside MULTI or inside scripts; half of the histories with small thresholds, so that
//! every encoding occurs.
//!
//! `PROPTEST_CASES` sets the number of histories (`make compat-long`), `COMPAT_SEED` another seed
//! than the fixed one; `COMPAT_GO_ON=1` prints each difference and continues, `COMPAT_TRACE=1`
//! prints each command, `COMPAT_OPEN=1` lists the differences to single servers that are not errors
//! by the rule.
//!
//! `tests/compat/library.rs` calls the functions that scripts have, `tests/compat/language.rs` uses
//! the operators of Lua; `tests/compat/field_errors.rs` sends the commands for fields of hashes
//! with two faults at once, `tests/compat/protocol.rs` requests with wrong bytes.
//!
//! Intended differences, and those that are still open, are in `tests/compat/exceptions.rs` with
//! their reasons.

mod common;
#[path = "compat/exceptions.rs"]
mod exceptions;
#[path = "compat/field_errors.rs"]
mod field_errors;
#[path = "compat/grammar.rs"]
mod grammar;
#[path = "compat/history.rs"]
mod history;
#[path = "compat/jury.rs"]
mod jury;
#[path = "compat/keysizes.rs"]
mod keysizes;
#[path = "compat/language.rs"]
mod language;
#[path = "compat/library.rs"]
mod library;
#[path = "compat/protocol.rs"]
mod protocol;
#[path = "compat/sessions.rs"]
mod sessions;
#[path = "compat/tables.rs"]
mod tables;

use grammar::Grammar;
use history::{Plan, Way, compare_history};
use jury::Jury;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use std::cell::{Cell, RefCell};

const HISTORY: usize = 200;

fn show(argv: &[Vec<u8>]) -> String {
    argv.iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

fn goes_on() -> bool {
    std::env::var_os("COMPAT_GO_ON").is_some()
}

fn is_traced() -> bool {
    std::env::var_os("COMPAT_TRACE").is_some()
}

thread_local! {
    /// The number of commands that this test has compared.
    static COMMANDS: Cell<u64> = const { Cell::new(0) };
}

/// Runs `check` on generated histories: `cases` of them, or `PROPTEST_CASES` divided by `one_of`;
/// prints the number of compared commands.
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
        prop_oneof![
            Just(Way::Piped(1)),
            Just(Way::Piped(32)),
            Just(Way::Scripts),
            Just(Way::Multi)
        ],
        any::<bool>(),
    )
        .prop_map(|(resp, theme, way, small)| Plan {
            resp,
            theme,
            way,
            small,
        });
    let result = TestRunner::new(config).run(&(history, plan), |(seeds, plan)| {
        check(&seeds, plan).or_else(|e| match e {
            TestCaseError::Fail(reason) if goes_on() => {
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
fn the_same_replies_as_the_real_servers() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let jury = RefCell::new(jury);
    let grammar = Grammar::read("grammar.txt");
    run(400, 1, |seeds, plan| {
        jury.borrow_mut().revive();
        compare_history(&grammar, &jury.borrow(), &plan, seeds)
    });
    jury.borrow().report();
}
