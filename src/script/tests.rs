//! Tests of scripts as clients see them. `tests/transcripts/scripting.txt` compares replies of
//! every form; the tests in this file need access to the server's state.

use crate::client::Client;
use crate::config::Config;
use crate::networking::query;
use crate::script::cache::{Cache, EVAL_MAX, sha_of};
use crate::script::engine::Engine;
use crate::script::{ScriptKind, flags};
use crate::state::Server;

struct Peer {
    server: Server,
    client: Client,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            server: Server::new(Config::default(), Vec::new()),
            client: Client::detached(1, 0),
        }
    }

    fn ask(&mut self, argv: &[&[u8]]) -> String {
        let mut request = format!("*{}\r\n", argv.len()).into_bytes();
        for arg in argv {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        query::feed(&mut self.server, &mut self.client, &request);
        String::from_utf8_lossy(&self.client.reply.take_bytes()).into_owned()
    }

    fn eval(&mut self, source: &str) -> String {
        self.ask(&[b"EVAL", source.as_bytes(), b"0"])
    }
}

const READ_ONLY: &str = "Attempt to modify a readonly table";

/// CVE-2022-0543: through `package`, a script could load the C library.
#[test]
fn no_way_to_load_code() {
    let mut peer = Peer::new();
    for name in [
        "package", "require", "module", "ffi", "jit", "io", "debug", "dofile", "loadfile",
        "newproxy",
    ] {
        let reply = peer.eval(&format!("return {name}"));
        assert!(
            reply.contains("nonexistent global variable"),
            "{name}: {reply}"
        );
    }
    assert_eq!(peer.eval("return rawget(_G, 'package')"), "$-1\r\n");
    assert_eq!(peer.eval("return os.execute"), "$-1\r\n");
    // The interpreter does not verify bytecode, so the script must not load any.
    let dumped = "return tostring(loadstring(string.dump(function() return 1 end)))";
    assert_eq!(peer.eval(dumped), "$3\r\nnil\r\n");
    let read = "local s = string.dump(function() end) return tostring(load(function() local t = s s = nil return t end))";
    assert_eq!(peer.eval(read), "$3\r\nnil\r\n");
    assert!(
        peer.ask(&[b"EVAL", b"\x1bLJ\x02", b"0"])
            .starts_with("-ERR Error compiling script")
    );
}

/// CVE-2024-31449: `bit.tohex` wrote before its buffer.
#[test]
fn tohex_of_any_number_of_digits() {
    let mut peer = Peer::new();
    assert_eq!(
        peer.eval("return bit.tohex(65535, -2147483648)"),
        "$8\r\n0000FFFF\r\n"
    );
    assert_eq!(
        peer.eval("return bit.tohex(65535, 2147483647)"),
        "$8\r\n0000ffff\r\n"
    );
}

/// CVE-2025-46817: the number of results of `unpack` overflowed.
#[test]
fn unpack_of_too_much() {
    let mut peer = Peer::new();
    for range in ["-2, 2147483647", "0, 2147483647", "-2147483648, -2"] {
        let reply = peer.eval(&format!("return {{unpack({{1,2,3}}, {range})}}"));
        assert!(reply.contains("too many results to unpack"), "{reply}");
    }
    assert_eq!(peer.eval("return {unpack({1,2,3}, 1, -1)}"), "*0\r\n");
    assert_eq!(
        peer.eval("return {unpack({1,2,3}, 2)}"),
        "*2\r\n:2\r\n:3\r\n"
    );
}

#[test]
fn an_insertion_far_below_a_list_takes_no_time() {
    let mut peer = Peer::new();
    let script = "local t = {'b', 'a', 'c'} table.insert(t, 1e15, 'x') \
        return {t[2], t[3], t[4], t[-1530494976], tostring(t[1])}";
    assert_eq!(
        peer.eval(script),
        "*5\r\n$1\r\nb\r\n$1\r\na\r\n$1\r\nc\r\n$1\r\nx\r\n$3\r\nnil\r\n"
    );
}

/// CVE-2025-46818: metatables of basic types were shared with other users' scripts, and could be
/// changed.
#[test]
fn basic_types_have_no_metatables_to_poison() {
    let mut peer = Peer::new();
    for value in [
        "nil",
        "''",
        "1",
        "true",
        "print",
        "coroutine.create(function() end)",
    ] {
        let value = value.replace("print", "function() end");
        let reply = peer.eval(&format!(
            "getmetatable({value}).__index = function() return 1 end"
        ));
        let closed = reply.contains(READ_ONLY) || reply.contains("attempt to index a nil value");
        assert!(closed, "{value}: {reply}");
    }
    assert!(
        peer.eval("getmetatable('').__index.upper = 1")
            .contains(READ_ONLY)
    );
    assert_eq!(peer.eval("return ('x'):upper()"), "$1\r\nX\r\n");
}

/// CVE-2025-46819: a long bracket of a gigabyte overflowed the parser's count of `=`.
#[test]
fn long_brackets() {
    let mut peer = Peer::new();
    let level = "=".repeat(70_000);
    let source = format!("return #[{level}[x]{level}]");
    assert_eq!(peer.eval(&source), ":1\r\n");
    assert!(
        peer.eval(&format!("return [{level}[x]=]"))
            .starts_with("-ERR Error compiling script")
    );
}

/// CVE-2025-49844: a garbage collection while a chunk was compiled freed the chunk's name, which
/// the parser went on to use.
#[test]
fn collections_while_compiling() {
    let mut peer = Peer::new();
    let source = "
        local found = 0
        for i = 1, 200 do
            local reader = coroutine.wrap(function()
                coroutine.yield('return ')
                collectgarbage('collect')
                coroutine.yield(\"'\" .. ('x'):rep(i) .. \"'\")
                collectgarbage('collect')
            end)
            local chunk = load(reader, '@' .. ('n'):rep(i * 10))
            if chunk and #chunk() == i then found = found + 1 end
        end
        return found";
    assert_eq!(peer.eval(source), ":200\r\n");
}

#[test]
fn nothing_that_all_scripts_share_can_be_changed() {
    let mut peer = Peer::new();
    for attempt in [
        "redis.call = 1",
        "redis.new = 1",
        "new = 1",
        "_G = {}",
        "string.format = 1",
        "cjson.encode = 1",
        "rawset(redis, 'call', 1)",
        "rawset(_G, 'x', 1)",
        "setmetatable(_G, {})",
        "setmetatable(redis, {})",
        "table.insert(redis, 1)",
        "getmetatable(_G).__index = {}",
        "getmetatable(_G).__index.x = 1",
        "server.call = 1",
    ] {
        let reply = peer.eval(attempt);
        assert!(reply.contains(READ_ONLY), "{attempt}: {reply}");
    }
    let walked = peer.eval("local f, t = pairs(redis) t.call = nil");
    assert!(walked.contains(READ_ONLY), "{walked}");
    assert_eq!(peer.eval("return redis.call('ping')"), "+PONG\r\n");
    assert_eq!(
        peer.eval("collectgarbage('stop') return collectgarbage('count') > 0"),
        ":1\r\n"
    );
}

/// Before a method call in a `return` statement, `script::syntax` inserts a test that looks the
/// method up; the error about a missing method must name the script's own line.
#[test]
fn a_missing_method_of_the_globals_is_missed_by_the_script() {
    let mut peer = Peer::new();
    for _ in 0..2 {
        let missed = "user_script:1: Script attempted to access nonexistent global variable 'no'";
        assert!(peer.eval("return _G:no(1)").contains(missed));
        assert!(peer.eval("local v = _G return v:no({})").contains(missed));
        assert!(peer.eval("return no").contains(missed));
    }
}

#[test]
fn environments_exist_only_with_the_insecure_api() {
    let mut peer = Peer::new();
    assert!(
        peer.eval("return getfenv()")
            .contains("nonexistent global variable 'getfenv'")
    );
    peer.server.scripting.flush();
    peer.server.scripting.eval = Some(Engine::new(ScriptKind::Eval, true).unwrap());
    assert_eq!(peer.eval("return getfenv()"), "*0\r\n");
    assert!(peer.eval("getfenv(pairs).x = 1").contains(READ_ONLY));
    assert!(peer.eval("setfenv(0, {})").contains(READ_ONLY));
    assert_eq!(
        peer.eval("local f = setfenv(function() return x end, {x=7}) return f()"),
        ":7\r\n"
    );
}

#[test]
fn compiled_scripts_make_room_in_the_order_of_their_last_use() {
    let mut engine = Engine::new(ScriptKind::Eval, false).unwrap();
    let mut cache = Cache::default();
    let mut add = |cache: &mut Cache, n: usize| {
        let source = format!("return {n}").into_bytes();
        let function = engine.vm.compile(&source, c"=x").unwrap();
        let place = cache.insert(
            n as u64,
            sha_of(&source),
            &source,
            function,
            flags::COMPATIBILITY,
        );
        (place, cache.enlist(place))
    };
    for n in 0..EVAL_MAX {
        assert!(add(&mut cache, n).1.is_none());
    }
    let first = cache.by_source(0, b"return 0").unwrap();
    cache.touch(first);
    let second = cache.by_source(1, b"return 1").unwrap();
    cache.pin(second);
    assert!(
        add(&mut cache, EVAL_MAX).1.is_none(),
        "a pinned one does not count"
    );
    let (_, gone) = add(&mut cache, EVAL_MAX + 1);
    assert_eq!(&*gone.unwrap().source, b"return 2");
    assert_eq!(cache.len(), EVAL_MAX + 1);
    assert!(cache.by_sha(&sha_of(b"return 0")).is_some());
    assert!(cache.by_sha(&sha_of(b"return 2")).is_none());
    assert_eq!(cache.by_source(0, b"something else"), None);
}

#[test]
fn a_script_does_not_nest_and_the_interpreter_comes_back() {
    let mut peer = Peer::new();
    peer.server.debug.allow_noscript = true;
    let reply = peer.eval("return redis.call('eval', 'return 1', 0)");
    assert!(reply.contains("A script is running already"), "{reply}");
    let reply = peer.eval("return redis.call('script', 'flush')");
    assert!(reply.contains("A script is running already"), "{reply}");
    assert_eq!(peer.eval("return 1"), ":1\r\n");
    assert!(peer.server.scripting.running.is_none());
    assert_eq!(peer.server.nesting, 0);
}

#[test]
fn errors_are_counted_once() {
    let mut peer = Peer::new();
    peer.eval("return redis.call('get')");
    peer.eval("return redis.pcall('get')");
    peer.eval("redis.pcall('get')");
    assert_eq!(peer.server.stats.errors["ERR"], 3);
    peer.eval("return {err='MINE x'}");
    assert_eq!(peer.server.stats.errors["MINE"], 1);
    assert_eq!(peer.server.stats.error_replies, 4);
    // An error whose text does not begin with a code is counted as ERR in INFO errorstats.
    peer.eval("return {err='nocode'}");
    peer.eval("return {err=string.rep('A', 31) .. ' x'}");
    assert_eq!(peer.server.stats.errors["ERR"], 5);
    peer.eval("return {err=string.rep('A', 30) .. ' x'}");
    assert_eq!(peer.server.stats.errors[&"A".repeat(30)[..]], 1);
}

#[test]
fn a_recursive_table_ends_in_an_error() {
    let mut peer = Peer::new();
    let reply = peer.eval("local a = {} a[1] = a return a");
    assert!(reply.ends_with("-ERR reached lua stack limit\r\n"));
    for table in ["a.map = {x = a}", "a.set = {[a] = true}"] {
        let reply = peer.eval(&format!("local a = {{}} {table} return a"));
        assert!(
            reply.contains("-ERR reached lua stack limit\r\n"),
            "{table}"
        );
    }
    // The table contains itself twice: both branches at each of thousands of levels would be
    // written for ever.
    let reply = peer.eval("local a = {} a[1], a[2] = a, a return a");
    assert!(reply.ends_with("-ERR reached lua stack limit\r\n"));
    assert_eq!(peer.eval("return 1"), ":1\r\n");
}

#[test]
fn a_killed_script_stops_and_the_next_one_runs() {
    let mut peer = Peer::new();
    peer.server.config.busy_reply_threshold = 1;
    // In this test there is no event loop, so the flag that SHUTDOWN NOSAVE would set kills the
    // script.
    peer.server.shutdown.now = true;
    let reply = peer.eval("while true do pcall(function() while true do end end) end");
    assert!(
        reply.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "),
        "{reply}"
    );
    peer.server.shutdown.now = false;
    assert_eq!(
        peer.eval("local n = 0 for i = 1, 1000000 do n = n + 1 end return n"),
        ":1000000\r\n"
    );
}

#[test]
fn scripting_can_be_switched_off() {
    let mut peer = Peer::new();
    peer.server.config.lua_enabled = false;
    assert!(
        peer.eval("return 1")
            .starts_with("-ERR Scripting is disabled")
    );
    assert!(
        peer.ask(&[b"FCALL", b"f", b"0"])
            .starts_with("-ERR Scripting is disabled")
    );
    assert!(peer.server.scripting.eval.is_none());
}

/// The clock stands still in a script until other clients are served; after that the time that TIME
/// returns moves, but keys do not expire.
#[test]
fn a_script_that_waits_by_time_comes_to_its_end() {
    const WAIT: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
         redis.call('SET', 'k', 'v', 'PX', 1) local begin = now() while now() < begin + 5000 do end \
         return redis.call('GET', 'k')";
    for threshold in [0, 1] {
        let mut peer = Peer::new();
        peer.server.config.busy_reply_threshold = threshold;
        assert_eq!(peer.eval(WAIT), "$1\r\nv\r\n");
    }
    let mut peer = Peer::new();
    let still = "local a = redis.call('TIME') for i = 1, 1000000 do end local b = redis.call('TIME') \
         return {a[1] == b[1], a[2] == b[2]}";
    assert_eq!(peer.eval(still), "*2\r\n:1\r\n:1\r\n");
}

/// The line that an error names is in the script, not in LuaJIT's library functions that are
/// written in Lua.
#[test]
fn errors_of_libraries_in_tail_position_name_function_and_line() {
    let mut peer = Peer::new();
    for (call, text) in [
        (
            "string.rep({})",
            "bad argument #1 to 'rep' (string expected, got table)",
        ),
        (
            "string.len(nil)",
            "bad argument #1 to 'len' (string expected, got nil)",
        ),
        (
            "table.remove('x')",
            "bad argument #1 to 'remove' (table expected, got string)",
        ),
        (
            "cjson.encode()",
            "bad argument #1 to 'encode' (expected 1 argument)",
        ),
    ] {
        let source = format!("\nreturn {call}");
        let sha = String::from_utf8(sha_of(source.as_bytes()).to_vec()).expect("digits");
        let expected = format!("-ERR user_script:2: {text} script: {sha}, on @user_script:2.\r\n");
        assert_eq!(peer.eval(&source), expected);
    }
}

/// Lua 5.1 says where the stack overflowed and whether it was C's stack. LuaJIT's message about a
/// stack overflow has neither; the server's error handler adds them. At some depths there is no
/// room on the stack to call the handler, so the line is missing.
#[test]
fn a_stack_overflow_names_its_place() {
    let mut peer = Peer::new();
    for (code, expected) in [
        (
            "local function f() return 1 + f() end return f()",
            "user_script:1: stack overflow script: SHA, on @user_script:1.",
        ),
        (
            "local function f(n)\n return n + f(n + 1) end\nlocal x = f(1) return x",
            "user_script:2: stack overflow script: SHA, on @user_script:2.",
        ),
        (
            "local function f() f() f() end f()",
            "stack overflow script: SHA.",
        ),
        (
            "local t = setmetatable({}, {__tostring = function(x) return tostring(x) end}) \
             return tostring(t)",
            "C stack overflow script: SHA, on @user_script:1.",
        ),
    ] {
        let sha = String::from_utf8(sha_of(code.as_bytes()).to_vec()).expect("digits");
        let expected = format!("-ERR {}\r\n", expected.replace("SHA", &sha));
        assert_eq!(peer.eval(code), expected, "{code}");
    }
    // The name of a chunk, with which the error begins, may be any text.
    for (name, start) in [
        (", ''", "[string \"\"]:1: stack overflow script: "),
        ("", "[string \"local function f() return 1 + f()"),
        (", 'ab\\0cd'", "[string \"ab\"]:1: stack overflow script: "),
        (", '='", ":1: stack overflow script: "),
        (", '@'", ":1: stack overflow script: "),
        (", '@file'", "file:1: stack overflow script: "),
    ] {
        let code = format!(
            "return loadstring('local function f() return 1 + f() end return f()'{name})()"
        );
        let reply = peer.eval(&code);
        assert!(
            reply.starts_with(&format!("-ERR {start}")),
            "{name}: {reply}"
        );
    }
    let caught = "local function f() local x = f() return x end local ok, e = pcall(f) return e";
    assert_eq!(
        peer.eval(caught),
        "$29\r\nuser_script:1: stack overflow\r\n"
    );
    assert_eq!(peer.eval("return 1"), ":1\r\n");
}

/// In a returned call, Lua 5.1 drops the caller's stack frame only if the called function is
/// written in Lua.
#[test]
fn a_field_or_method_that_is_a_library_function_keeps_the_frame_of_its_caller() {
    let mut peer = Peer::new();
    for (call, text) in [
        (
            "o.m({})",
            "bad argument #1 to 'm' (string expected, got table)",
        ),
        (
            "o:m()",
            "calling 'm' on bad self (string expected, got table)",
        ),
        ("o.e(1, 2)", "bad argument #1 to 'e' (expected 1 argument)"),
        (
            "('x'):rep({})",
            "bad argument #1 to 'rep' (number expected, got table)",
        ),
        (
            "tostring(1):rep({})",
            "bad argument #1 to 'rep' (number expected, got table)",
        ),
        (
            "o['m']({})",
            "bad argument #1 to 'm' (string expected, got table)",
        ),
        (
            "o[1]({})",
            "bad argument #1 to '?' (string expected, got table)",
        ),
        (
            "o[2]:rep({})",
            "bad argument #1 to 'rep' (number expected, got table)",
        ),
        (
            "(o.m)(nil, function() end)",
            "bad argument #1 to 'm' (string expected, got nil)",
        ),
        (
            "o.m(\n{}\n)",
            "bad argument #1 to 'm' (string expected, got table)",
        ),
        (
            "o.c({})",
            "bad argument #1 to 'c' (string expected, got table)",
        ),
        (
            "o['a b']({})",
            "bad argument #1 to 'a b' (string expected, got table)",
        ),
        ("o.x(\n1)", "attempt to call field 'x' (a nil value)"),
        ("o['end'](1)", "attempt to call field 'end' (a nil value)"),
        ("KEYS(\n1)", "attempt to call global 'KEYS' (a table value)"),
        ("o[3](1)", "attempt to call field '?' (a nil value)"),
        ("o[3]:m(1)", "attempt to index field '?' (a nil value)"),
        ("o[2]:m(1)", "attempt to call method 'm' (a nil value)"),
        ("o.e(1)(2)", "attempt to call a string value"),
    ] {
        let source = format!(
            "local o = {{string.rep, 'x', m = string.rep, e = cjson.encode, ['a b'] = string.rep}} \
             o.c = setmetatable({{}}, {{__call = string.rep}}) return {call}"
        );
        let reply = peer.eval(&source);
        assert!(
            reply.starts_with(&format!("-ERR user_script:1: {text} script: ")),
            "{reply}"
        );
    }
    // A method of the script that returns a call of itself does not run out of stack.
    let deep = "local o = {n = 0} function o:find() self.n = self.n + 1 \
         if self.n == 300000 then return self.n end return self:find() end return o:find()";
    assert_eq!(peer.eval(deep), ":300000\r\n");
    // Recursive functions that are found by an index, or get a function as an argument, don't run
    // out of stack either.
    let deep = "local o, n = {}, 0 o[1] = function(f) n = n + 1 \
         if n == 300000 then return n end return o[1](function() end) end return o[1]()";
    assert_eq!(peer.eval(deep), ":300000\r\n");
}

/// Lua 5.1 calls an element whose key is no constant string `field '?'`; LuaJIT gives such an
/// element no name.
#[test]
fn an_element_without_a_name_is_called_a_question_mark() {
    let mut peer = Peer::new();
    let nil = "field '?' (a nil value)";
    for (code, text) in [
        ("return KEYS[1] .. 'x'", format!("concatenate {nil}")),
        ("return 'a' .. t[n] .. 'b'", format!("concatenate {nil}")),
        ("return KEYS[1] + 1", format!("perform arithmetic on {nil}")),
        ("return 2 ^ t[1]", format!("perform arithmetic on {nil}")),
        ("return -t[true]", format!("perform arithmetic on {nil}")),
        ("return #t[1]", format!("get length of {nil}")),
        ("return t[1][2]", format!("index {nil}")),
        ("t[1][2] = 3", format!("index {nil}")),
        ("local r = t[1]() return r", format!("call {nil}")),
        ("local r = t[1]:m() return r", format!("index {nil}")),
        (
            "local f = function() return u[1] .. 'x' end local r = f() return r",
            format!("concatenate {nil}"),
        ),
        (
            "return t[7]()",
            "call field '?' (a string value)".to_string(),
        ),
        // Values that have a name in Lua 5.1's error messages, and a value that has no name there
        // either.
        (
            "return t['x'] .. 'x'",
            "concatenate field 'x' (a nil value)".to_string(),
        ),
        (
            "local x = t[1] return x .. 'x'",
            "concatenate local 'x' (a nil value)".to_string(),
        ),
        ("return t.f() .. 'x'", "concatenate a nil value".to_string()),
    ] {
        let before = "local t, n, u = {[7] = 's', f = function() end}, 5, {}";
        let source = format!("{before} {code}");
        let expected = format!("-ERR user_script:1: attempt to {text} script: ");
        let reply = peer.eval(&source);
        assert!(reply.starts_with(&expected), "{code}: {reply}");
        // pcall and xpcall return the error with the same text.
        let inner = format!("{before} return select(2, pcall(function() {code} end))");
        let expected = format!("user_script:1: attempt to {text}\r\n");
        assert!(peer.eval(&inner).ends_with(&expected), "{code}");
        let inner = format!(
            "{before} return select(2, xpcall(function() {code} end, function(e) return e end))"
        );
        assert!(peer.eval(&inner).ends_with(&expected), "{code}");
    }
}

/// LuaJIT counted upwards for ever if the step of a loop was 0.
#[test]
fn a_loop_with_a_step_of_zero() {
    let mut peer = Peer::new();
    for (range, runs) in [
        ("1, 3, 0", 0),
        ("1, 3, -0", 0),
        ("1, 3, tonumber('0')", 0),
        ("1, 3, #''", 0),
        ("3, 3, 0", 1),
        ("3, 1, 0", 1),
        ("1, 5, 2", 3),
        ("5, 1, 0 - 2", 3),
    ] {
        let source = format!(
            "local n = 0 for i = {range} do n = n + 1 if n == 1 and i == 3 then break end end return n"
        );
        assert_eq!(peer.eval(&source), format!(":{runs}\r\n"), "{range}");
    }
    assert!(
        peer.eval("for i = 1, 3, nil do end")
            .contains("'for' step must be a number")
    );
    assert_eq!(
        peer.eval("return tostring(cjson.null)"),
        "$15\r\nuserdata: (nil)\r\n"
    );
}

/// `struct.unpack` overflowed: as a start position, 0/0 is converted to the least integer.
#[test]
fn a_start_that_is_no_number() {
    let mut peer = Peer::new();
    let reply = peer.eval("return struct.unpack('b', 'x', 0/0)");
    assert!(reply.contains("data string too short"), "{reply}");
}

/// NaN: its sign when it is read, and how it compares in math.max and math.min.
#[test]
fn what_is_no_number_is_read_and_compared_as_in_lua_5_1() {
    let mut peer = Peer::new();
    let mut shows = |values: &str, shown: &str| {
        let list = format!("{{{values}}}");
        let source = format!(
            "local t = {list} for i = 1, #t do t[i] = tostring(t[i]) end return table.concat(t, ' ')"
        );
        assert_eq!(
            peer.eval(&source),
            format!("${}\r\n{shown}\r\n", shown.len()),
            "{values}"
        );
    };
    shows(
        "tonumber('nan'), tonumber('-nan'), tonumber(' NaN ', 10), tonumber('-NAN', '10')",
        "nan -nan nan -nan",
    );
    shows(
        "tonumber(tonumber('nan')), tonumber(tonumber('-nan'))",
        "nan -nan",
    );
    let nan = "tonumber('nan')";
    shows(
        &format!("math.max({nan}, 1), math.max(1, {nan}), math.min({nan}, 1), math.min(1, {nan})"),
        "nan 1 nan 1",
    );
    shows(
        &format!(
            "math.max(1, 2, 3, {nan}), math.max(1, {nan}, '7', 2), math.min({nan}), math.min(4, {nan}, 3)"
        ),
        "3 7 nan 3",
    );
    shows(
        "math.max(5), math.max(1, 5, 3), math.min('2', 1), math.max(1, 2, 3, '4')",
        "5 5 1 4",
    );
    shows(
        "math.max(unpack({1, 2, 3, 9, 5, 6})), math.min(unpack({4, 3, 9, 1, 5}))",
        "9 1",
    );
}

/// `tonumber` with a base reads an unsigned number: a negative number wraps at 64 bits.
#[test]
fn a_negative_number_with_a_base() {
    let mut peer = Peer::new();
    let mut reads = |call: &str, value: &str| {
        let source =
            format!("local n = tonumber({call}) return n and string.format('%.0f', n) or 'nil'");
        assert_eq!(
            peer.eval(&source),
            format!("${}\r\n{value}\r\n", value.len()),
            "{call}"
        );
    };
    reads("'-8000000000000000', 16", "9223372036854775808");
    reads("'-ff', 16", "18446744073709551616");
    reads("' -FF ', 16.9", "18446744073709551616");
    reads("-10, 16", "18446744073709551616");
    reads("'-fffffffffffffffffffff', '16'", "18446744073709551616");
    reads("'-0', 2", "0");
    reads("'- 1', 16", "nil");
    reads("'1-', 16", "nil");
    reads("'-1', 10", "-1");
    reads("'-0x10'", "-16");
    reads("'7fff', 16", "32767");
    // `tonumber` with a base loses no digit of a number of 64 bits, and takes the base as an int of
    // C.
    reads("'-ffffffffffffffff', 16", "1");
    reads("'-fffffffffffffff1', 16", "15");
    reads("'-3w5e11264sgsf', 36", "1");
    reads("'-0x', 16", "nil");
    reads("'--1', 8", "nil");
    reads("'10', 2 ^ 32 + 16", "16");
    // `tonumber` with a base reads the text up to its first zero byte.
    reads("'7\\0x'", "7");
    // LuaJIT has binary numbers, and Lua 5.1 has none.
    reads("'0b1'", "nil");
    reads("' -0B1'", "nil");
    reads("'0x0b1'", "177");
    assert_eq!(
        peer.eval("return tostring(tonumber('nan(12)'))"),
        "$3\r\nnan\r\n"
    );
}

/// `cjson.new` failed with `ERR userdata`.
#[test]
fn a_copy_of_cjson_has_its_own_settings() {
    let mut peer = Peer::new();
    let source = "local c = cjson.new() c.encode_number_precision(3) \
         return {c.encode(1/3), cjson.encode(1/3)}";
    assert_eq!(
        peer.eval(source),
        "*2\r\n$5\r\n0.333\r\n$16\r\n0.33333333333333\r\n"
    );
}

/// The Lua interpreters of EVAL and of functions draw random numbers from one sequence, as in
/// Redis, and a new interpreter does not begin the sequence again.
#[test]
fn random_numbers_are_one_sequence() {
    let mut peer = Peer::new();
    peer.eval("math.randomseed(5)");
    assert_eq!(
        peer.eval("return tostring(math.random())"),
        "$16\r\n0.52483957937213\r\n"
    );
    // A call of `math.random` with wrong arguments draws a number, too.
    peer.eval("math.random({})");
    peer.ask(&[b"SCRIPT", b"FLUSH"]);
    let third = peer.eval("return math.random(1000000)");
    peer.eval("math.randomseed(5)");
    let again = peer.eval("math.random() math.random() return math.random(1000000)");
    assert_eq!(third, again);
    // The seed of `math.randomseed` is cut to an int, as in C.
    for seed in ["1e20", "2 ^ 63", "1 / 0", "0 / 0", "2 ^ 32"] {
        peer.eval(&format!("math.randomseed({seed})"));
        assert_eq!(peer.eval("return math.random(1000000)"), ":170829\r\n");
    }
}

/// Found by fuzzing: the format of a verbatim string, if it was not UTF-8, took more bytes in the
/// reply than the reply's length said.
#[test]
fn the_format_of_a_verbatim_string_has_three_bytes() {
    let mut peer = Peer::new();
    peer.client.reply.resp3 = true;
    let reply = |peer: &mut Peer, format: &str| {
        peer.eval(&format!(
            "return {{verbatim_string = {{string = 'x', format = {format}}}}}"
        ))
    };
    assert_eq!(reply(&mut peer, "'a'"), "=5\r\na  :x\r\n");
    assert_eq!(reply(&mut peer, "'ab\\0c'"), "=5\r\nab :x\r\n");
    assert_eq!(reply(&mut peer, "'\\200bcd'"), "=5\r\n\u{fffd}bc:x\r\n");
}
