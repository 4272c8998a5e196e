//! Error texts about scripts that can't be compiled: redis-server 7.0 and 8.2 gave each of them.

use super::*;

fn text(source: &str) -> String {
    let read = translate(source.as_bytes(), b"user_script");
    let read = read.map_or_else(|message| message, Cow::into_owned);
    String::from_utf8_lossy(&read).into_owned()
}

#[test]
fn newer_syntax_is_refused_as_lua_5_1_refuses_it() {
    for (source, message) in [
        ("return ~1", "unexpected symbol near '~'"),
        ("return 1<<2", "unexpected symbol near '<'"),
        ("return 7//2", "unexpected symbol near '/'"),
        ("return 5&3", "'<eof>' expected near '&'"),
        ("goto done", "'=' expected near 'done'"),
        ("::done::", "unexpected symbol near ':'"),
        ("return 0b1", "malformed number near '0b1'"),
        ("return 1ULL", "malformed number near '1ULL'"),
        ("return 2i", "malformed number near '2i'"),
        ("local x <const> = 1", "unexpected symbol near '<'"),
        ("x = 1;;", "unexpected symbol near ';'"),
        ("\x1bLJ", "unexpected symbol near 'char(27)'"),
    ] {
        assert_eq!(text(source), format!("user_script:1: {message}"));
    }
}

/// In Lua 5.1 the variable `arg` of a variadic function is nil if the function uses `...`.
#[test]
fn a_variadic_function_has_its_arguments_in_arg() {
    let table = " local arg={n=select('#',...),...};";
    for (source, inserted) in [
        ("function f(...)! return arg.n end", table),
        (
            "local function f(a, ...)! return function() return arg end end",
            table,
        ),
        ("function f(...)! arg = 5 end", table),
        (
            "function f(...)! local x = {...} return arg end",
            " local arg;",
        ),
        ("function f(...)! return (arg) end", table),
        (
            "local select function f(...)! return arg[1] end",
            " local arg={n=#{...},...};",
        ),
        ("function f(...)! return {arg = 1}, x.arg end", ""),
        ("function f(...)! local arg = 1 return {arg} end", ""),
        ("function f(arg, ...)! return (function() end) end", ""),
        ("function f(a)! x = arg end", ""),
        (
            "function f(...)! return function(...) return {...} end end",
            "",
        ),
    ] {
        let (plain, expected) = (source.replace('!', ""), source.replace('!', inserted));
        assert_eq!(text(&plain), expected);
    }
}

#[test]
fn compile_errors_say_where_and_near_what() {
    for (source, message) in [
        ("x =", "1: unexpected symbol near '<eof>'"),
        ("x = \"a\" \"b\"", "1: unexpected symbol near '\"b\"'"),
        (
            "if x then\n\n",
            "3: 'end' expected (to close 'if' at line 1) near '<eof>'",
        ),
        ("if x then", "1: 'end' expected near '<eof>'"),
        (
            "f\n(1)",
            "2: ambiguous syntax (function call x new statement) near '('",
        ),
        ("(f) = 1", "1: syntax error near '='"),
        ("break", "1: no loop to break near '<eof>'"),
        ("for 1", "1: '<name>' expected near '1'"),
        ("for x do", "1: '=' or 'in' expected near 'do'"),
        ("function f(1) end", "1: <name> or '...' expected near '1'"),
        (
            "function f() return ... end",
            "1: cannot use '...' outside a vararg function near '...'",
        ),
        ("a:b = 1", "1: function arguments expected near '='"),
        ("x = 'a", "1: unfinished string near '<eof>'"),
        ("x = 'a\n'", "1: unfinished string near ''a'"),
        ("x = '\\300'", "1: escape sequence too large near '''"),
        ("x = [[a", "1: unfinished long string near '<eof>'"),
        ("--[[a", "1: unfinished long comment near '<eof>'"),
        ("x \0", "1: '=' expected"),
        ("x = [=a", "1: invalid long string delimiter near '[='"),
    ] {
        assert_eq!(text(source), format!("user_script:{message}"), "{source}");
    }
}

#[test]
fn what_5_1_does_not_limit_otherwise_is_limited() {
    let many = |count: usize, f: fn(usize) -> String| (0..count).map(f).collect::<String>();
    let locals = |count| many(count, |n| format!("local a{n} "));
    assert_eq!(text(&locals(200)), locals(200));
    let message = "user_script:1: main function has more than 200 local variables";
    assert_eq!(text(&locals(201)), message);
    let uses = |count: usize| {
        let uses = (0..count).map(|n| format!("x=a{n} "));
        format!(
            "{}function f() {} end",
            locals(100),
            uses.collect::<String>()
        )
    };
    assert_eq!(text(&uses(60)), uses(60));
    let message = "user_script:1: function at line 1 has more than 60 upvalues";
    assert_eq!(text(&uses(61)), message);
    let deep = format!("return {}1{}", "(".repeat(300), ")".repeat(300));
    assert_eq!(
        text(&deep),
        "user_script:1: chunk has too many syntax levels"
    );
}

#[test]
fn escapes_that_5_1_does_not_know_are_the_character_itself() {
    assert_eq!(text(r#"x = "\." .. '\x41\z\"'"#), r#"x = "." .. 'x41z\"'"#);
    let known = "x = '\\a\\b\\f\\n\\r\\t\\v\\\\\\\"\\'\\065\\\n'";
    assert_eq!(text(known), known);
}

#[test]
fn functions_of_libraries_keep_the_frame_of_their_caller() {
    const KEEP: &str = "(function(...)return ... end)(";
    const NATIVE: &str = "if \u{fffd}native and \u{fffd}native";
    for (source, changed) in [
        (
            "local string = {} return string.rep(1)",
            format!(
                "local string = {{}} {NATIVE}(string.rep)then return{KEEP}string.rep(1))end return string.rep(1)"
            ),
        ),
        (
            "return redis.call('a')",
            "return (redis.call('a'))".to_string(),
        ),
        (
            "return string.rep({})",
            format!("return {KEEP}string.rep({{}}))"),
        ),
        ("return pcall()", format!("return {KEEP}pcall())")),
        (
            "return x:rep {}",
            format!("{NATIVE}(x.rep)then return{KEEP}x:rep {{}})end return x:rep {{}}"),
        ),
        (
            "if a then return o.m(1) end",
            format!("if a then {NATIVE}(o.m)then return{KEEP}o.m(1))end return o.m(1) end"),
        ),
        (
            "local r = string.rep return r(1)",
            format!("local r = string.rep return {KEEP}r(1))"),
        ),
        (
            "local s = string return function() return s.rep(1) end",
            format!("local s = string return function() return {KEEP}s.rep(1)) end"),
        ),
        (
            "return redis.call(function() return unpack(x) end)",
            format!("return (redis.call(function() return {KEEP}unpack(x)) end))"),
        ),
        (
            "if x then return error('e') end",
            "if x then return (error('e')) end".to_string(),
        ),
    ] {
        assert_eq!(text(source), changed);
    }
}

#[test]
fn what_is_called_elsewise_is_passed_on() {
    const KEEP: &str = "(function(...)return ... end)(";
    const NATIVE: &str = "\u{fffd}native";
    let passed = |name: &str, asked: &str, kept: &str, call: &str| {
        format!(
            "(function({name},...)if {NATIVE} and {NATIVE}({asked})then return{KEEP}{kept}(...))end \
             return {call}(...)end)("
        )
    };
    let field = passed("y", "y,\"field 'y'\"", "y", "y");
    let element = passed("f", "f,\"field '?'\"", "({f})[1]", "f");
    let method = passed("o", "o,\"field '?'\",\"m\"", "o:m", "o:m");
    let result = passed("f", "f,false", "({f})[1]", "f");
    let quoted = passed("f", "f,\"field 'a b'\"", "({['a b']=f})['a b']", "f");
    for (source, changed) in [
        (
            "local x = ... return x.y(function() end)",
            format!("local x = ... return {field}x.y,function() end)"),
        ),
        (
            "local x = ...\nreturn x.y(\n1)",
            format!("local x = ...\nreturn {field}x.y,\n1)"),
        ),
        (
            "local x = ... return x['y'] {}",
            format!("local x = ... return {field}x['y'],{{}})"),
        ),
        (
            "local x = ... return x[1]( )",
            format!("local x = ... return {element}x[1] )"),
        ),
        (
            "local x = ... return x[1]:m 'a'",
            format!("local x = ... return {method}x[1],'a')"),
        ),
        (
            "local x = ... return x['a b'](1)",
            format!("local x = ... return {quoted}x['a b'],1)"),
        ),
        ("return f()(1)", format!("return {result}f(),1)")),
        ("return ('x'):rep(1)", format!("return {KEEP}('x'):rep(1))")),
        (
            "return tostring(x):format(1)",
            "return (tostring(x):format(1))".to_string(),
        ),
    ] {
        assert_eq!(text(source), changed);
    }
}

/// The bug: the Lua loop `for i = 1, 3, 0` ran for ever.
#[test]
fn a_step_of_zero_counts_downwards() {
    const DOWNWARDS: &str = "(function(s)return s==0 and-0 or s end)(";
    for (step, changed) in [
        ("0", format!("{DOWNWARDS}0)")),
        ("n", format!("{DOWNWARDS}n)")),
        ("-0.0", format!("{DOWNWARDS}-0.0)")),
        ("-1", "-1".to_string()),
        ("0.5", "0.5".to_string()),
    ] {
        let source = format!("for i = 1, 3, {step} do end");
        assert_eq!(text(&source), format!("for i = 1, 3, {changed} do end"));
    }
}

#[test]
fn everything_else_stays() {
    for source in [
        "",
        "return redis.call",
        "return redis.call('a') + 1",
        "return f(1)",
        "local function f(n) return f(n - 1) end",
        "return (function() end)(1)",
        "return string.rep(1), 2",
        "-- return redis.call(1)",
        "x = [==[ return redis.call(1) ]] ]==]",
        "return 0x1p4, .5, 1e+5, 3 .. 2",
        "goto = 1",
        "x = [[ [[ ]]",
    ] {
        assert_eq!(text(source), source);
    }
}

#[test]
fn chunks_are_shown_by_name_or_by_their_first_line() {
    for (name, shown) in [
        ("@user_script", "user_script"),
        ("=(load)", "(load)"),
        ("return 1", "[string \"return 1\"]"),
        ("a\nb", "[string \"a...\"]"),
    ] {
        assert_eq!(shown_name(name.as_bytes()), shown.as_bytes());
    }
}
