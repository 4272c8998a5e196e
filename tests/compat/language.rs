//! Operators, calls and loops of Lua on values that they refuse, on all servers: the text of an
//! error names the value (`local 'a'`, `field '?'`), as the operand is written, and the line.
//!
//! ```text
//!   operands ──┐
//!   operators ─┼──> script ──> EVAL or FCALL ──> judged by the rule
//!   contexts ──┘
//! ```
//!
//! `PROPTEST_CASES` sets the number of scripts to ten times its value; `COMPAT_SEED` and
//! `COMPAT_GO_ON` are as in `tests/compat.rs`.

use super::exceptions::same;
use super::goes_on;
use super::grammar::Compare;
use super::jury::Jury;
use super::library::{BATCH, Way, send, without_addresses};
use aeris::util::random::Random;

const SCRIPTS: u64 = 6_000;

/// The first statements of every script. The functions of a script have these variables as
/// upvalues.
const PRELUDE: &str = "local a, k, n, s, b = nil, 'z', 5, 'abc', true \
    local t = {s = 'abc', n = 5, f = string.rep, g = function(...) return ... end, h = {}, [7] = 'seven', [8] = string.sub} \
    local function nothing() end local function all(...) return ... end ";

const OPERANDS: &[&str] = &[
    "a",
    "k",
    "n",
    "s",
    "b",
    "t",
    "t.x",
    "t.s",
    "t.n",
    "t.f",
    "t.g",
    "t.h",
    "t.h.x",
    "t[1]",
    "t[7]",
    "t[8]",
    "t[k]",
    "t[n]",
    "t['x']",
    "t['a b']",
    "t['end']",
    "t['f']",
    "t[k .. k]",
    "t[true]",
    "t[1.5]",
    "KEYS[1]",
    "ARGV[1]",
    "KEYS",
    "nothing()",
    "nothing",
    "all",
    "all(t)",
    "(a)",
    "(t[1])",
    "(t.x)",
    "nil",
    "true",
    "'x'",
    "('x')",
    "1",
    "({})",
    "(1)",
    "string.rep",
    "string.nosuch",
    "redis",
    "redis.nosuch",
    "tostring",
    "tostring(1)",
    "('a' .. 'b')",
    "(n + 1)",
    "...",
    "(...)",
    "#t",
    "math.huge",
    "cjson.null",
    "t.h[1]",
    "t.g(t)",
    "all(nil)",
    "not t",
];

const OPERATORS: &[&str] = &[
    "X + Y",
    "X - Y",
    "X * Y",
    "X / Y",
    "X % Y",
    "X ^ Y",
    "X .. Y",
    "X .. 'a' .. Y",
    "X .. Y .. X",
    "-X",
    "#X",
    "not X",
    "X < Y",
    "X <= Y",
    "X > Y",
    "X >= Y",
    "X == Y",
    "X ~= Y",
    "X and Y",
    "X or Y",
    "X.y",
    "X.y.z",
    "X[Y]",
    "X[1]",
    "X[1][2]",
    "X()",
    "X(Y)",
    "X(Y, Y)",
    "X:m()",
    "X:m(Y)",
    "X:rep(Y)",
    "X:sub(Y)",
    "X:f(Y)",
    "X.f(Y)",
    "X'text'",
    "X{Y}",
    "X(Y)(Y)",
    "X.g(Y):rep(Y)",
    "X:g(Y)",
    "X(\nY\n)",
    "X:rep(\nY)",
    "X.f(function() end)",
    "X:rep(function() end)",
    "X[k](Y)",
    "X[8](Y)",
    "X['f'](Y)",
    "1 + X",
    "X + 1",
    "'a' .. X",
    "X .. 1",
    "2 ^ X",
    "X:rep 'y'",
    "X:rep {}",
    "X. f (Y)",
    "X : rep (Y)",
    "X.f --[[ ( ]] (Y)",
    "X[1](Y)",
    "X[1]:m(Y)",
    "X.x:m(Y)",
];

const CONTEXTS: &[&str] = &[
    "return @",
    "local r = @ return r",
    "return (@)",
    "return @, 1",
    "local function f() return @ end return f()",
    "local function f() local r = @ return r end local r = f() return r",
    "local function f(a, t) return @ end return f(nil, t)",
    "if @ then return 1 end return 2",
    "while true do return @ end",
    "return pcall(function() return @ end)",
    "local ok, r = pcall(function() local r = @ return r end) return {tostring(ok), tostring(r)}",
    "local ok, r = xpcall(function() return @ end, function(e) return 'got ' .. tostring(e) end) return tostring(r)",
    "local ok, r = pcall(function() return @ end) return tostring(r)",
    "return\n@",
    "local x = 1\n\nreturn @\n",
    "return {@}",
    "return tostring(@)",
    "for i = @, 3 do return i end",
    "for i = 1, @ do return i end",
    "for i = 1, 3, @ do return i end",
    "for i in @ do return i end",
    "t.y = @ return 1",
    "local x = {} x[@] = 1 return 1",
    "t.x.y = @",
    "t[1][2] = @",
    "KEYS[1].x = @",
    "local c = coroutine.create(function() local ok, r = pcall(function() return @ end) return r end) return {coroutine.resume(c)}",
    "repeat local r = @ until r or true return 1",
];

/// Whether a difference is a known one that is still open: our error does not name `field '?'`,
/// because the line has another value without a name that the error may be about. LuaJIT reports
/// the line, not the instruction, see script/names.lua.
fn lacks_question_mark(ours: &[u8], theirs: &[u8]) -> bool {
    // A bulk string in a reply has its length before it.
    let without_lengths = |reply: &[u8]| {
        let reply = String::from_utf8_lossy(reply).into_owned();
        let lines = reply.split("\r\n").filter(|line| !line.starts_with('$'));
        lines.collect::<Vec<_>>().join("\n")
    };
    let named = without_lengths(theirs);
    let nameless = named
        .replacen("field '?' (", "", 1)
        .replacen("value)", "value", 1);
    named.contains(" field '?' (a ") && nameless == without_lengths(ours)
}

/// Whether a difference is that of a loop with an infinite step, which never runs in Lua 5.1: Lua
/// 5.1 computes the first value as the start less the step and plus the step, which is no number.
/// LuaJIT runs the body of such a loop once.
fn has_infinite_step(script: &str, ours: &[u8], theirs: &[u8]) -> bool {
    let loops = script.contains("for i = 1, 3, ") && script.contains("math.huge");
    loops && ours == b":1\r\n" && theirs == b"$-1\r\n"
}

fn script(random: &mut Random) -> String {
    let mut pick = |list: &[&'static str]| list[random.below(list.len() as u64) as usize];
    let (operator, context) = (pick(OPERATORS), pick(CONTEXTS));
    let mut expression = String::new();
    for letter in operator.chars() {
        match letter {
            'X' | 'Y' => expression.push_str(pick(OPERANDS)),
            letter => expression.push(letter),
        }
    }
    format!("{PRELUDE}{}", context.replacen('@', &expression, 1))
}

#[test]
fn operators_name_the_values_that_they_refuse() {
    let Some(mut jury) = Jury::start() else {
        return;
    };
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let scripts = number("PROPTEST_CASES").map_or(SCRIPTS, |cases| cases * 10);
    let mut random = Random::from_seed(number("COMPAT_SEED").unwrap_or(52));
    let (mut tally, mut compared) = (Tally::default(), 0);
    for batch in 0..scripts.div_ceil(BATCH as u64) {
        jury.revive();
        let scripts: Vec<String> = (0..BATCH).map(|_| script(&mut random)).collect();
        let way = if batch % 2 == 0 {
            Way::Eval
        } else {
            Way::Function
        };
        compare(&jury, &scripts, way, &mut tally);
        compared += scripts.len();
        if tally.wrong.len() > 60 && !goes_on() {
            break;
        }
    }
    let Tally {
        wrong,
        errors,
        open,
    } = tally;
    println!("{compared} scripts compared, {errors} of them fail, {open} with an open difference");
    assert!(errors > compared / 4, "too few errors: {errors}");
    assert!(open * 50 < errors, "too many open differences: {open}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[derive(Default)]
struct Tally {
    wrong: Vec<String>,
    errors: usize,
    /// The number of differences that are known and still open.
    open: usize,
}

/// Sends the scripts to all servers and judges the replies.
fn compare(jury: &Jury, scripts: &[String], way: Way, tally: &mut Tally) {
    let mut conn = jury.aeris.connect();
    // A script that does not compile is left out, since FUNCTION LOAD would refuse the whole
    // library.
    let mut compiles = |script: &&String| {
        let function = format!("local function f(KEYS, ARGV) {script}\nend");
        matches!(way, Way::Eval) || conn.cmd(&["SCRIPT", "LOAD", &function]).starts_with(b"$")
    };
    let compiles: Vec<String> = scripts
        .iter()
        .filter(|script| compiles(script))
        .cloned()
        .collect();
    let shown = |replies: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        replies
            .iter()
            .map(|reply| without_addresses(reply))
            .collect()
    };
    let ours = send(&mut jury.aeris.connect(), &compiles, way).expect("our server goes on");
    let ours = shown(ours);
    let theirs: Vec<_> = jury
        .judges
        .iter()
        .filter_map(|judge| {
            let replies = send(&mut judge.peer.connect(), &compiles, way)?;
            Some((judge.name, shown(replies)))
        })
        .collect();
    for (at, script) in compiles.iter().enumerate() {
        let opinions: Vec<_> = theirs
            .iter()
            .map(|(name, replies)| (*name, same(Compare::Bytes, &ours[at], &replies[at])))
            .collect();
        if jury.is_right(&[b"EVAL".to_vec()], &opinions) {
            continue;
        }
        if theirs.iter().any(|(_, replies)| {
            lacks_question_mark(&ours[at], &replies[at])
                || has_infinite_step(script, &ours[at], &replies[at])
        }) {
            tally.open += 1;
            continue;
        }
        let mut found = format!(
            "{way:?} {}\n  we     {}",
            script.trim_start_matches(PRELUDE).escape_debug(),
            ours[at].escape_ascii()
        );
        for (name, replies) in &theirs {
            found.push_str(&format!("\n  {name:?} {}", replies[at].escape_ascii()));
        }
        tally.wrong.push(found);
    }
    let errors = ours.iter().filter(|reply| reply.starts_with(b"-"));
    tally.errors += errors.count();
}
