//! The functions of Lua's libraries and of the server's own, called with no to four arguments of
//! every type, on all servers: results and error texts are equal.
//!
//! ```text
//!   the functions of a judge ──┐
//!   arguments of every type ───┼──> script ──> EVAL, EVALSHA or FCALL ──> judged by the rule
//!   forms of a call ───────────┘
//! ```
//!
//! The text of an error names the function and the place, and both depend on the form of the call.
//! So there are calls in tail position and elsewhere; of the function by its own name, by that of a
//! local variable, and as a method; with and without pcall.
//!
//! `PROPTEST_CASES` sets the number of calls to 25 times its value, `COMPAT_SEED` and
//! `COMPAT_GO_ON` are as in `tests/compat.rs`.

use super::common::{Conn, multibulk, parse_reply};
use super::exceptions::{matches, same};
use super::grammar::Compare;
use super::jury::Jury;
use super::{goes_on, is_traced};
use aeris::util::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// The number of scripts that are sent before the first reply is read.
pub const BATCH: usize = 50;
const CALLS: u64 = 6_000;

/// Values of every type, as Lua writes them.
const VALUES: &[&str] = &[
    "nil",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "2.5",
    "-0.5",
    "1e15",
    "-1e300",
    "1/0",
    "-1/0",
    "0/0",
    "''",
    "'abc'",
    "'10'",
    "'0x10'",
    "' 5 '",
    "'1e2'",
    "'a b'",
    "{}",
    "{1,2,3}",
    "{'b','a','c'}",
    "{a=1}",
    "{1,{2},'x'}",
    "f",
    "g",
    "co",
    "string.rep",
    "_G",
    "string",
    "KEYS",
];

/// Texts that a function interprets, such as formats of string.format: (function, texts).
const SPECIAL: &[(&str, &[&str])] = &[
    (
        "string.format",
        &[
            "'%d'",
            "'%5.2f'",
            "'%q'",
            "'%500s'",
            "'%s'",
            "'%x'",
            "'%c'",
            "'%g'",
            "'%i'",
            "'%u'",
            "'%o'",
            "'%e'",
            "'%%'",
            "'%'",
            "'%y'",
            "'%10.3s|'",
            "'%-5d|'",
            "'%+d'",
            "'% d'",
            "'%#x'",
            "'%05d'",
            "'%.20s'",
            "'%.100f'",
            "'%99.99f'",
            "'%100d'",
            "'%5q'",
            "'%s %s'",
            "'%d %s'",
            "'a\\0b\\r\\n\\\\\"'",
            "'%A'",
            "'%a'",
            "'%p'",
            "'%F'",
            "'%G'",
            "'%E'",
            "'%X'",
            "'%-#+ 0d'",
            "'%-#+ 00d'",
            "'%.d'",
            "'%.0f'",
            "'%5'",
            "'%ld'",
            "string.rep('x', 200)",
        ],
    ),
    (
        "string.*",
        &[
            "'%a+'", "'(b)'", "'()'", "'.'", "'^a'", "'c$'", "'%'", "'['", "'[a'", "'[]'", "'(('",
            "'))'", "'%1'", "'%b'", "'%bab'", "'%f'", "'%f[a]'", "'(a)%1'", "'%0'", "'%2'", "'a-'",
            "'[%a-z]'", "'[^b]'", "'\\0'", "'%s*'", "'x*'", "'(.)(.)'",
        ],
    ),
    (
        "cjson.*",
        &[
            "'{}'",
            "'[]'",
            "'[1,2.5,\"x\"]'",
            "'{\"a\":{\"b\":null}}'",
            "'[1'",
            "'nul'",
            "'1e5'",
            "'-'",
            "'\"\\\\u00e9\"'",
            "'\"\\\\ud800\"'",
            "'[1,]'",
            "'{\"a\"}'",
            "'{a:1}'",
            "' [true , false] '",
            "'0x10'",
            "'NaN'",
            "'-inf'",
            "cjson.null",
            "{[3]=1}",
            "{[100]=1}",
            "{[1.5]=1}",
            "{[true]=1}",
            "{f}",
            "'null'",
            "true",
            "'on'",
            "'off'",
            "'nothing'",
            "14",
            "'\\0'",
        ],
    ),
    (
        "cmsgpack.*",
        &[
            "'\\147\\1\\2\\3'",
            "'\\192'",
            "'\\161a'",
            "'\\162a'",
            "'\\129\\161a\\1'",
            "'\\202\\63\\128\\0\\0'",
            "'\\203\\63\\240\\0\\0\\0\\0\\0\\0'",
            "'\\193'",
            "'\\1\\2\\3'",
            "'\\220\\255\\255'",
            "'\\223\\255\\255\\255\\255'",
            "'\\211\\255\\255\\255\\255\\255\\255\\255\\255'",
            "{1,nil,3}",
            "{{{}}}",
            "1e10",
            "-200",
            "70000",
            "0.1",
        ],
    ),
    (
        "struct.*",
        &[
            "'i'",
            "'>I2'",
            "'<i4'",
            "'s'",
            "'c0'",
            "'c3'",
            "'bB'",
            "'hH'",
            "'lL'",
            "'f'",
            "'d'",
            "'x'",
            "'!4i'",
            "'!'",
            "'%'",
            "'z'",
            "'i33'",
            "'i0'",
            "' '",
            "'=T'",
            "'>'",
            "'!3'",
            "'I3'",
            "'Bc0'",
            "'c'",
            "'!16'",
            "'\\1\\2\\3\\4'",
            "'\\3abc'",
            "'i99999999999'",
            "'c99999999999'",
            "'!99999999999'",
            "'c2147483647'",
        ],
    ),
    (
        "math.*",
        &[
            "5",
            "10",
            "100",
            "-5",
            "0.1",
            "2147483647",
            "4294967296",
            "-2147483648",
        ],
    ),
    (
        "bit.*",
        &[
            "2147483647",
            "4294967295",
            "-2147483648",
            "31",
            "32",
            "8",
            "-8",
            "1.5",
        ],
    ),
    (
        "redis.*",
        &[
            "'get'",
            "'set'",
            "'k'",
            "'ping'",
            "'GET'",
            "'incr'",
            "'ERR x'",
            "'-ERR x'",
            "'OK'",
            "redis.LOG_DEBUG",
            "'eval'",
            "'lpush'",
            "'\\r\\n'",
            "4",
        ],
    ),
    ("select", &["'#'", "-2", "5"]),
    ("collectgarbage", &["'count'", "'step'", "'collect'", "'x'"]),
    (
        "tonumber",
        &[
            "16", "36", "37", "'zz'", "'1e'", "'0x'", "'inf'", "'nan'", "'0x1p3'", "10",
        ],
    ),
    (
        "load*",
        &[
            "'return 1'",
            "'return ...'",
            "'x ='",
            "'=name'",
            "'@name'",
            "'return ~1'",
            "function() return nil end",
        ],
    ),
    (
        "coroutine.*",
        &[
            "coroutine.create(f)",
            "coroutine.wrap(g)",
            "coroutine.create(g)",
        ],
    ),
    (
        "*pcall",
        &[
            "error",
            "g",
            "string.len",
            "function() error('x') end",
            "function() error({}) end",
        ],
    ),
    ("*error", &["{err='E x'}", "{ok='x'}"]),
    (
        "table.*",
        &[
            "{1,2,3,4,5}",
            "{{},1}",
            "{3,1,2}",
            "{'x',1,'y'}",
            "', '",
            "function(a,b) return a<b end",
        ],
    ),
];

/// Functions that the test does not call: (pattern, reason).
const NOT_CALLED: &[(&str, &str)] = &[
    ("*.breakpoint", "it needs the debugger"),
    ("*.debug", "it needs the debugger"),
    ("os.clock", "a time"),
    ("server.*", "the same functions as redis.*"),
    ("gcinfo", "the memory of each interpreter"),
    ("print", "writes to the output of the server"),
];

/// Calls whose results are left out of the comparison, since each server has its own: (pattern,
/// reason). Errors are compared.
const OWN_RESULTS: &[(&str, &str)] = &[
    ("collectgarbage", "the memory of each interpreter"),
    ("string.dump", "each interpreter's bytecode"),
];

/// Differences of replies that are still open: (pattern of the script, pattern of our reply,
/// reason).
const OPEN: &[(&str, &str, &str)] = &[
    (
        "*cjson.new*",
        "*decode_array_with_array_mt*",
        "a copy has one function more, decode_array_with_array_mt",
    ),
    (
        "*cjson.encode*string[,)]*",
        "[^-]*",
        "a sealed table is empty for other libraries than Lua's",
    ),
    ("*cjson.encode*_G*", "*", "the same"),
    ("*cmsgpack.pack*string[,)]*", "*", "the same"),
    ("*cmsgpack.pack*_G*", "*", "the same"),
    (
        "*next*_G*",
        "*",
        "the order of the keys of a table, which is not the same in all judges either",
    ),
    ("*= _G*:next(*", "*", "the same"),
    ("*next*string[,)]*", "*", "the same"),
    (
        "*next*}, 0*",
        "*1*",
        "LuaJIT takes 0 for the key before the first of a list",
    ),
    ("*foreach*", "*attempt to compare*", "the same"),
    (
        "*= _G*:getmetatable*",
        "*",
        "the metatable of the globals has a table where theirs has a function",
    ),
    ("*getmetatable*_G*", "*", "the same"),
    (
        "*o[.:]m(*function*",
        "*",
        "a call with a function among its arguments stays a tail call, see script/syntax",
    ),
    (
        "*xpcall*load(g*",
        "*",
        "the handler is called for the reader's error there",
    ),
    (
        "*load(g*",
        "*: g*",
        "Redis's handler makes a table of the reader's error",
    ),
    (
        "*xpcall(error, *",
        "*error in error handling*",
        "LuaJIT calls no handler for an error of the handler",
    ),
    (
        "*xpcall*error({})*",
        "*error in error handling*",
        "the same",
    ),
    ("*xpcall, error, *", "*error in error handling*", "the same"),
    (
        "*table.sort*string.rep*",
        "*invalid order function*",
        "LuaJIT compares other elements first, with a function that is no order",
    ),
    (
        "*string.*0/0*",
        "[^-]*",
        "as below: the text has one byte less",
    ),
    (
        "*string.char*0/0*",
        "*(invalid value)*",
        "what is no number is the character 0 there",
    ),
    (
        "*0/0*",
        "*[Nn][Aa][Nn]*",
        "LuaJIT writes no sign of what is no number where it makes a string of it",
    ),
    (
        "*cjson.decode*NaN*",
        "*-nan*",
        "LuaJIT reads it with the other sign",
    ),
    (
        "*load*string.rep*",
        "*bad argument*",
        "an error of a library function as the reader is a table there",
    ),
    (
        "*error*string[,)]*",
        "*unknown error*",
        "Redis's own handler of errors fails on a sealed table",
    ),
    ("*error*_G*", "*", "the same"),
    ("*= _G*:error(*", "*", "the same"),
    (
        "*foreach*_G*",
        "*",
        "the order of the keys of a table, as for next",
    ),
    ("*foreach*string[,)]*", "*", "the same"),
    (
        "*foreach*",
        "*builtin:foreach*",
        "LuaJIT's function is written in Lua, so the error has another place",
    ),
];

/// The forms of a call: each a script in which `F` is the function, `M` its last name, `A` the
/// arguments, `B` the arguments after the first, `V` the first argument.
const FORMS: &[&str] = &[
    "return show(F(A))",
    "local r = F(A) return show(r)",
    "return F(A)",
    "return show(pcall(F, A))",
    "return show(pcall(function() return F(A) end))",
    "return show(pcall(function() local r = F(A) return r end))",
    "local M = F return M(A)",
    "local h = F local r = h(A) return show(r)",
    "local o = {m = F} return o.m(A)",
    "local o = {m = F} return show(pcall(function() o.m(A) end))",
    "local function inner() return F(A) end local r = inner() return show(r)",
    "return show(select('#', F(A)))",
    "local v = V return show(pcall(function() return v:M(B) end))",
    "local v = V return v:M(B)",
    "local o = {m = F} return o:m(B)",
    "return show(xpcall(function() return F(A) end, function(e) return 'caught ' .. tostring(e) end))",
    "local c = coroutine.create(function() return F(A) end) return show(coroutine.resume(c))",
    "local c = coroutine.wrap(F) return show(c(A))",
    "return show(pcall(pcall, F, A))",
    "for i = 1, 2 do F(A) end return 1",
];

/// Lua code that shows values with their types, in the order of the keys of a table; functions and
/// threads without their addresses.
const SHOW: &str = "local f, g = function(...) return ... end, function() error('g') end \
    local co = coroutine.create(f) \
    local function one(v, deep) local t = type(v) \
    if t == 'number' then return string.format('%.17g', v) end \
    if t == 'string' then return t .. ':' .. string.gsub(v, '0x%x%x%x%x%x%x+', 'ADDRESS') end \
    if t ~= 'table' then return t == 'boolean' and tostring(v) or t end \
    if v == _G or v == string or deep > 3 then return 'table' end \
    local keys = {} for k, e in pairs(v) do keys[#keys + 1] = one(k, deep + 1) .. '=' .. one(e, deep + 1) end \
    table.sort(keys) return '{' .. table.concat(keys, ',') .. '}' end \
    local function show(...) local out = {} \
    for i = 1, select('#', ...) do out[i] = one((select(i, ...)), 0) end return table.concat(out, ' ') end";

/// One call of a library's function in a script, in a random syntactic form.
struct Call {
    function: String,
    arguments: Vec<String>,
    form: &'static str,
}

impl Call {
    fn draw(functions: &[String], random: &mut Random) -> Call {
        let pick = |list: &[&'static str], random: &mut Random| {
            list[random.below(list.len() as u64) as usize]
        };
        let function = functions[random.below(functions.len() as u64) as usize].clone();
        let special: Vec<&str> = SPECIAL
            .iter()
            .filter(|(of, _)| matches(of, function.as_bytes()))
            .flat_map(|(_, values)| values.iter().copied())
            .collect();
        let count = random.below(5);
        let argument = |random: &mut Random| match random.below(2) {
            0 if !special.is_empty() => special[random.below(special.len() as u64) as usize],
            _ => pick(VALUES, random),
        };
        let mut arguments: Vec<String> = (0..count).map(|_| argument(random).into()).collect();
        if function == "table.insert" {
            // Redis cuts the position 1e15 to an int far below zero, and moves an element for each
            // position.
            arguments.retain(|argument| argument != "1e15");
        }
        Call {
            function,
            arguments,
            form: pick(FORMS, random),
        }
    }

    fn script(&self) -> String {
        let last = self.function.rsplit('.').next().unwrap_or_default();
        let none = String::from("nil");
        let first = self.arguments.first().unwrap_or(&none);
        let rest = self.arguments.get(1..).unwrap_or_default().join(", ");
        let all = self.arguments.join(", ");
        let mut script = String::new();
        let mut letters = self.form.chars().peekable();
        let mut before = ' ';
        while let Some(letter) = letters.next() {
            let alone =
                !before.is_alphanumeric() && !letters.peek().is_some_and(|c| c.is_alphanumeric());
            match letter {
                'F' if alone => script.push_str(&self.function),
                'M' if alone => script.push_str(last),
                'V' if alone => script.push_str(first),
                'A' | 'B' if alone => {
                    let list = if letter == 'A' { &all } else { &rest };
                    if list.is_empty() && script.ends_with(", ") {
                        script.truncate(script.len() - 2);
                    }
                    script.push_str(list);
                }
                _ => script.push(letter),
            }
            before = letter;
        }
        script
    }
}

/// How scripts are run: by EVAL, EVALSHA or FCALL.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Eval,
    Sha,
    Function,
}

/// The names of all functions that the scripts of a server see.
fn functions_of(conn: &mut Conn) -> BTreeSet<String> {
    let script = "local out = {} for name, value in pairs(_G) do \
        if type(value) == 'function' then out[#out + 1] = name end \
        if type(value) == 'table' and name ~= '_G' then for member, inner in pairs(value) do \
        if type(inner) == 'function' then out[#out + 1] = name .. '.' .. member end end end end return out";
    let names = parse_reply(&conn.cmd(&["EVAL", script, "0"])).texts();
    names
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// Sends a batch of scripts and returns the replies; `None` if the server has closed the
/// connection.
pub fn send(conn: &mut Conn, scripts: &[String], way: Way) -> Option<Vec<Vec<u8>>> {
    let mut requests = Vec::new();
    let mut library = String::from("#!lua name=calls\n");
    for (at, script) in scripts.iter().enumerate() {
        let whole = format!("{SHOW}\n{script}");
        match way {
            Way::Eval => requests.extend(multibulk(&["EVAL", &whole, "0"])),
            Way::Sha => {
                let sha = conn.cmd(&["SCRIPT", "LOAD", &whole]);
                let sha = parse_reply(&sha).texts().pop().unwrap_or_default();
                requests.extend(multibulk(&[&b"EVALSHA"[..], &sha, b"0"]));
            }
            Way::Function => {
                let function = format!(
                    "redis.register_function('f{at}', function(KEYS, ARGV) {SHOW} {script} end)\n"
                );
                library.push_str(&function);
                requests.extend(multibulk(&["FCALL", &format!("f{at}"), "0"]));
            }
        }
    }
    if matches!(way, Way::Function) {
        let loaded = conn.cmd(&["FUNCTION", "LOAD", "REPLACE", &library]);
        assert!(
            loaded.starts_with(b"$"),
            "{}\n{library}",
            loaded.escape_ascii()
        );
    }
    conn.try_send(&requests);
    scripts.iter().map(|_| conn.try_reply()).collect()
}

/// A reply in which results, names and addresses that differ between servers are replaced.
fn comparable(call: &Call, reply: &[u8]) -> Vec<u8> {
    let own = OWN_RESULTS
        .iter()
        .any(|(of, _)| matches(of, call.function.as_bytes()));
    if own && !reply.windows(4).any(|part| part == b"bad ") {
        return b"own".to_vec();
    }
    let mut reply = reply.to_vec();
    for name in [&b"Valkey "[..], b"valkey "] {
        while let Some(at) = reply.windows(name.len()).position(|part| part == name) {
            reply.splice(at..at + name.len(), b"Redis ".iter().copied());
        }
    }
    without_addresses(&reply)
}

/// Replaces hexadecimal numbers that look like addresses in memory.
pub fn without_addresses(reply: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = reply;
    while let Some(at) = rest.windows(2).position(|part| part == b"0x") {
        let digits = rest[at + 2..]
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(if digits > 6 {
            b"ADDRESS"
        } else {
            &rest[at..at + 2 + digits]
        });
        rest = &rest[at + 2 + digits..];
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn library_functions_called_with_values_of_every_type() {
    let Some(mut jury) = Jury::start() else {
        return;
    };
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let calls = number("PROPTEST_CASES").map_or(CALLS, |cases| cases * 25);
    let mut random = Random::from_seed(number("COMPAT_SEED").unwrap_or(51));
    let functions = functions(&jury);
    let mut wrong: BTreeMap<String, (u32, String)> = BTreeMap::new();
    let mut compared = 0;
    for batch in 0..calls.div_ceil(BATCH as u64) {
        jury.revive();
        let calls: Vec<Call> = (0..BATCH)
            .map(|_| Call::draw(&functions, &mut random))
            .collect();
        let way = [Way::Eval, Way::Sha, Way::Function][(batch % 3) as usize];
        let resp = ["HELLO 2", "HELLO 3"][(batch % 2) as usize];
        compare(&jury, &calls, way, resp, &mut wrong);
        compared += calls.len();
    }
    println!("{compared} calls compared");
    let lines = wrong
        .iter()
        .map(|(function, (count, first))| format!("{function}: {count}\n{first}"));
    assert!(wrong.is_empty(), "{}", lines.collect::<String>());
}

/// The functions that aeris has in common with a judge.
fn functions(jury: &Jury) -> Vec<String> {
    let theirs = jury
        .judges
        .iter()
        .flat_map(|judge| functions_of(&mut judge.peer.connect()));
    let theirs: BTreeSet<String> = theirs.collect();
    let ours = functions_of(&mut jury.aeris.connect());
    let is_called = |name: &&String| {
        !NOT_CALLED
            .iter()
            .any(|(of, _)| matches(of, name.as_bytes()))
    };
    theirs
        .intersection(&ours)
        .filter(is_called)
        .cloned()
        .collect()
}

/// Sends the calls to all servers, and adds wrong replies to the list of the called function.
fn compare(
    jury: &Jury,
    calls: &[Call],
    way: Way,
    resp: &str,
    wrong: &mut BTreeMap<String, (u32, String)>,
) {
    let scripts: Vec<String> = calls.iter().map(Call::script).collect();
    if is_traced() {
        eprintln!("{way:?}\n{}", scripts.join("\n"));
    }
    let ask = |conn: &mut Conn| {
        conn.line(resp);
        conn.line("FLUSHALL");
        conn.cmd(&["EVAL", "math.randomseed(7)", "0"]);
        send(conn, &scripts, way)
    };
    let ours = ask(&mut jury.aeris.connect())
        .unwrap_or_else(|| panic!("our server has ended:\n{}", scripts.join("\n")));
    let theirs: Vec<_> = jury
        .judges
        .iter()
        .filter_map(|judge| Some((judge.name, ask(&mut judge.peer.connect())?)))
        .collect();
    let argv = [b"EVAL".to_vec()];
    for (at, call) in calls.iter().enumerate() {
        let reply = comparable(call, &ours[at]);
        let opinions: Vec<_> = theirs
            .iter()
            .map(|(name, replies)| {
                let theirs = comparable(call, &replies[at]);
                (*name, same(Compare::Bytes, &reply, &theirs))
            })
            .collect();
        let open = OPEN
            .iter()
            .any(|(of, ours, _)| matches(of, scripts[at].as_bytes()) && matches(ours, &reply));
        if open || jury.is_right(&argv, &opinions) {
            continue;
        }
        let mut found = format!(
            "  {way:?} {resp}: {}\n    we {}\n",
            scripts[at],
            ours[at].escape_ascii()
        );
        for (name, replies) in &theirs {
            found.push_str(&format!("    {name:?} {}\n", replies[at].escape_ascii()));
        }
        let entry = wrong.entry(call.function.clone()).or_default();
        entry.0 += 1;
        if entry.0 <= 8 || goes_on() {
            entry.1.push_str(&found);
        }
    }
}
