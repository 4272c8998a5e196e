//! The debugger of scripts over a real connection, as a client of `redis-cli --ldb` sees it. A
//! session is a list of debugger commands; redis-server must give the same replies.

mod common;

use common::{Conn, Peer};

/// A script with various kinds of statements, which the sessions debug.
const SCRIPT: &str = "local a = 5
local t = {1,2,{x=1},true,false}
local function f(n)
  local inner = n * 2
  redis.debug('in f', n)
  return inner
end
local r = f(a)
redis.call('set', KEYS[1], ARGV[1])
local v = redis.call('get', KEYS[1])
if a == 5 then
  redis.breakpoint()
end
local e = redis.pcall('nope')
return {v, r}
";

/// Begins a session of the debugger, which stops at the script's first line.
fn begin(server: &Peer, mode: &str, script: &str) -> (Conn, String) {
    let mut c = server.connect();
    assert_eq!(c.line(&format!("script debug {mode}")), "+OK\r\n");
    let stop = c.cmd(&["eval", script, "1", "k", "val"]);
    (c, lines(&stop))
}

/// The lines of a reply that is an array of lines.
fn lines(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut out = String::new();
    for line in text.split("\r\n").filter(|line| !line.starts_with('*')) {
        if let Some(line) = line.strip_prefix('+') {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// Runs a session, and returns all replies up to its end.
fn converse(server: &Peer, script: &str, commands: &[&str]) -> Vec<String> {
    let (mut c, first) = begin(server, "yes", script);
    let mut out = vec![first];
    for command in commands {
        let argv: Vec<&str> = command.split(' ').collect();
        let answer = lines(&c.cmd(&argv));
        let over = answer.ends_with("<endsession>\n");
        out.push(answer);
        if over {
            out.push(String::from_utf8_lossy(&c.reply()).into_owned());
            assert!(c.closed(), "a session ends with its connection");
            break;
        }
    }
    out
}

/// A reply of the debugger without the parts that always differ: addresses, and the word Redis in a
/// text of Redis 7.0, which later versions leave out.
fn comparable(answer: &str) -> String {
    let mut parts = answer.split("@0x");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.replace("Unknown Redis command", "Unknown command")
}

/// Runs a session on aeris and, if it is installed, on Redis 7.0, and compares the replies.
fn compare(script: &str, commands: &[&str]) -> Vec<String> {
    let ours = converse(&Peer::aeris(&[]), script, commands);
    if let Some(redis) = Peer::redis(&[]) {
        let theirs = converse(&redis, script, commands);
        for (at, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            let command = at
                .checked_sub(1)
                .map_or("(begin)", |at| commands.get(at).unwrap_or(&"(reply)"));
            assert_eq!(comparable(our), comparable(their), "{command}");
        }
        assert_eq!(ours.len(), theirs.len());
    }
    ours
}

#[test]
fn a_session_from_stop_to_stop() {
    let answers = compare(
        SCRIPT,
        &[
            "s",
            "list",
            "l 1",
            "l 5 1",
            "w",
            "p",
            "p a",
            "p t",
            "p nope",
            "b",
            "b 10 99",
            "b 4 x",
            "b",
            "b -10",
            "b -10",
            "t",
            "c",
            "t",
            "p",
            "p n",
            "b 0",
            "s",
            "s",
            "s",
            "s",
            "p",
            "p KEYS",
            "e return 1+1",
            "e {1,2}",
            "e nope(",
            "e error('x')",
            "r ping",
            "r get k",
            "r incr n",
            "r lpush l a b",
            "r lrange l 0 -1",
            "r nope",
            "r",
            "maxlen",
            "m 10",
            "m 0",
            "help",
            "x",
            "c",
            "c",
        ],
    );
    assert_eq!(
        answers[0],
        "* Stopped at 1, stop reason = step over\n-> 1   local a = 5\n"
    );
    let said = |text: &str| answers.iter().any(|answer| answer.contains(text));
    assert!(said("<value> t = {1; 2; {[\"x\"]=1}; true; false}\n"));
    assert_eq!(
        answers.last().map(String::as_str),
        Some("*2\r\n$3\r\nval\r\n:10\r\n")
    );
}

#[test]
fn a_script_is_stepped_through_to_its_error() {
    let answers = compare("local a = 1\nreturn redis.call('nope')\n", &["step", "n"]);
    assert_eq!(
        answers[2],
        "<redis> nope\n<error> Unknown Redis command called from script\n<endsession>\n"
    );
    compare("local i=0\nwhile i<3 do\n i=i+1\nend\nreturn i", &["s"; 12]);
    compare("return (", &[]);
    compare("redis.breakpoint()\nreturn 1", &["c", "c"]);
    compare(
        "local x=string.rep('a',2000)\nredis.debug(1,{1},nil,'a')\nreturn 1",
        &["s", "p x", "p x", "s", "c"],
    );
}

/// A script with calls in `return`, of its own functions and of library functions, by several
/// names.
const RETURNED_CALLS: &str = "local function f(x)
  local y = x + 1
  return y
end
local o = {rep = string.rep, f = f}
local function g(x)
  return f(x)
end
local function h()
  return o.rep('b', 3)
end
local function k()
  return o.f(3)
end
local a, b = g(1), f(2) + f(3)
if h() then k() end
local l = {unpack({1, 2, f(3)})}
return string.rep(h(), #l)";

#[test]
fn a_line_is_stopped_at_once_however_many_calls_are_in_it() {
    compare(RETURNED_CALLS, &["s"; 60]);
    compare("local t = {e = error}\nreturn t.e('oops')", &["s"; 6]);
    compare(
        "local function r(n)\n if n == 0 then return 'end' end\n return r(n - 1)\nend\nreturn r(3)",
        &["s"; 20],
    );
    compare(
        "local t = {1, 2, 3}\nwhile #t > 0 do t[#t] = nil end\nreturn #t",
        &["s"; 20],
    );
}

#[test]
fn aborted_scripts_end_at_once() {
    let answers = compare(SCRIPT, &["s", "abort"]);
    assert!(answers[3].starts_with("-ERR script aborted for user request script: "));
    // A script that catches the error of the abort is aborted again.
    let ours = converse(
        &Peer::aeris(&[]),
        "pcall(function()\n  local a = 1\nend)\nreturn 1",
        &["s", "a"],
    );
    assert!(
        ours[3].starts_with("-ERR script aborted for user request"),
        "{ours:?}"
    );
}

#[test]
fn changes_stay_only_without_a_fork() {
    let server = Peer::aeris(&[]);
    let mut other = server.connect();
    for (mode, found) in [("yes", "$-1\r\n"), ("sync", "$3\r\nval\r\n")] {
        let (mut c, _) = begin(&server, mode, SCRIPT);
        while !lines(&c.cmd(&["c"])).ends_with("<endsession>\n") {}
        assert_eq!(c.reply(), b"*2\r\n$3\r\nval\r\n:10\r\n");
        assert!(c.closed());
        assert_eq!(other.line("get k"), found, "{mode}");
    }
}

#[test]
fn others_are_served_during_a_session() {
    let mut server = Peer::aeris(&[]);
    let (mut c, _) = begin(&server, "yes", SCRIPT);
    let mut other = server.connect();
    assert_eq!(other.line("incr n"), ":1\r\n");
    // The process of the session is a fork with a copy of the data set.
    assert_eq!(
        lines(&c.cmd(&["r", "get", "n"])),
        "<redis> get n\n<reply> NULL\n"
    );
    drop(c);
    assert_eq!(other.line("incr n"), ":2\r\n");
    assert!(server.alive());
}

#[test]
fn what_a_session_refuses() {
    let server = Peer::aeris(&[]);
    let mut c = server.connect();
    assert!(
        c.line("script debug x")
            .starts_with("-ERR Use SCRIPT DEBUG YES/SYNC/NO")
    );
    assert_eq!(c.line("script debug yes"), "+OK\r\n");
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    assert_eq!(
        c.line(&format!("evalsha {sha} 0")),
        "-ERR Please use EVAL instead of EVALSHA for debugging\r\n"
    );
    assert_eq!(c.line("script debug no"), "+OK\r\n");
    assert_eq!(c.line("eval return(1) 0"), ":1\r\n");
    c.send(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$6\r\nscript\r\n$5\r\ndebug\r\n$3\r\nyes\r\n*1\r\n$4\r\nEXEC\r\n");
    let (_, _) = (c.reply(), c.reply());
    let exec = String::from_utf8_lossy(&c.reply()).into_owned();
    assert!(
        exec.contains("SCRIPT DEBUG must be called outside a pipeline"),
        "{exec}"
    );
    let (mut c, _) = begin(&server, "yes", SCRIPT);
    c.send(b"nonsense\r\n");
    assert_eq!(lines(&c.reply()), "<endsession>\n");
    assert!(c.reply().starts_with(b"-ERR protocol error script: "));
}
