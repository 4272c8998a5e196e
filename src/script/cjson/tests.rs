use super::*;

fn lua() -> Lua {
    let lua = Lua::new();
    let table = register(&lua).expect("the library");
    lua.globals().set("cjson", table).expect("set");
    lua.load("function message(f, ...) local ok, e = pcall(f, ...) assert(not ok, e) return e end")
        .exec()
        .expect("helper");
    lua
}

fn check(lua: &Lua, expression: &str, wanted: &str) {
    let text: String = lua
        .load(format!("return tostring({expression})"))
        .eval()
        .unwrap_or_else(|e| panic!("{expression}: {e}"));
    assert_eq!(text, wanted, "{expression}");
}

#[test]
fn values_become_json() {
    let lua = lua();
    for (value, wanted) in [
        ("{}", "{}"),
        ("{1, 2, 3}", "[1,2,3]"),
        ("{a = 1}", r#"{"a":1}"#),
        ("{1, 2, nil, 4}", "[1,2,null,4]"),
        ("{[5] = 1}", "[null,null,null,null,1]"),
        ("{[0] = 1}", r#"{"0":1}"#),
        ("{[1.5] = 1}", r#"{"1.5":1}"#),
        ("{[1e20] = 1}", r#"{"1e+20":1}"#),
        ("nil", "null"),
        ("cjson.null", "null"),
        ("true", "true"),
        ("1/3", "0.33333333333333"),
        ("1e100", "1e+100"),
        ("123456789012345678", "1.2345678901235e+17"),
        ("1e14", "1e+14"),
        ("99999999999999", "99999999999999"),
    ] {
        if !wanted.is_empty() {
            check(&lua, &format!("cjson.encode({value})"), wanted);
        }
    }
    let escaped: mlua::LuaString = lua
        .load(r#"return cjson.encode('"\\/\b\f\n\r\t\0\31\127\200')"#)
        .eval()
        .expect("escaped");
    let wanted = b"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\\u007f\xc8\"";
    assert_eq!(&*escaped.as_bytes(), wanted);
}

#[test]
fn what_json_can_not_say_is_refused() {
    let lua = lua();
    for (value, wanted) in [
        ("", "bad argument #1 to '?' (expected 1 argument)"),
        (
            ", {[false] = 1}",
            "Cannot serialise boolean: table key must be a number or string",
        ),
        (", 0/0", "Cannot serialise number: must not be NaN or Inf"),
        (", print", "Cannot serialise function: type not supported"),
        (
            ", {1, [11] = 2}",
            "Cannot serialise table: excessively sparse array",
        ),
    ] {
        check(&lua, &format!("message(cjson.encode{value})"), wanted);
    }
}

#[test]
fn json_becomes_values() {
    let lua = lua();
    for (expression, wanted) in [
        (
            r#"table.concat(cjson.decode("[0.0, -5e3, -1, 0.3e-3, 1023.2, 0e10]"), " ")"#,
            "0 -5000 -1 0.0003 1023.2 0",
        ),
        (
            r#"cjson.decode('"\\u0041\\u00e9\\u20ac\\ud83d\\ude00"')"#,
            "Aé€😀",
        ),
        (r#"cjson.decode('{"a":1,"a":2}').a"#, "2"),
        (r#"cjson.decode('{"1":"x"}')['1']"#, "x"),
        ("cjson.decode('null') == cjson.null", "true"),
        ("#cjson.decode('[[],{}]')", "2"),
        ("cjson.decode('0x1F')", "31"),
        ("cjson.decode('Infinity')", "inf"),
        ("cjson.decode('-inf')", "-inf"),
        ("cjson.decode('01')", "1"),
        ("cjson.decode('1.')", "1"),
        ("cjson.decode(1)", "1"),
        ("cjson.decode('12\\0rest')", "12"),
    ] {
        check(&lua, expression, wanted);
    }
}

#[test]
fn what_is_not_json_is_an_error_with_its_place() {
    let lua = lua();
    for (text, wanted) in [
        ("", "value but found T_END at character 1"),
        ("x", "value but found invalid token at character 1"),
        ("[1", "comma or array end but found T_END at character 3"),
        (
            "[1}",
            "comma or array end but found T_OBJ_END at character 3",
        ),
        ("[1,]", "value but found T_ARR_END at character 4"),
        (r#"{"a""#, "colon but found T_END at character 5"),
        (
            r#"{"a":1"#,
            "comma or object end but found T_END at character 7",
        ),
        (
            "{1:1}",
            "object key string but found T_NUMBER at character 2",
        ),
        (
            r#""abc"#,
            "value but found unexpected end of string at character 5",
        ),
        (
            r#""a\xbc""#,
            "value but found invalid escape code at character 3",
        ),
        (
            r#""a\u12""#,
            "value but found invalid unicode escape code at character 3",
        ),
        (
            r#""\ud83d\u0041""#,
            "value but found invalid unicode escape code at character 2",
        ),
        ("1 2", "the end but found T_NUMBER at character 3"),
        ("-", "value but found invalid number at character 1"),
        (".5", "value but found invalid token at character 1"),
        ("1e", "the end but found invalid token at character 2"),
    ] {
        let message = format!("message(cjson.decode, [=[{text}]=])");
        check(&lua, &message, &format!("Expected {wanted}"));
    }
    let wide = "JSON parser does not support UTF-16 or UTF-32";
    check(&lua, "message(cjson.decode, '[\\0')", wide);
    let table = "bad argument #1 to '?' (string expected, got table)";
    check(&lua, "message(cjson.decode, {})", table);
}

#[test]
fn settings_are_kept_and_checked() {
    let lua = lua();
    for (expression, wanted) in [
        ("cjson.encode_max_depth()", "1000"),
        ("cjson.encode_max_depth('7')", "7"),
        (
            "message(cjson.encode, {{{{{{{{}}}}}}}})",
            "Cannot serialise, excessive nesting (8)",
        ),
        (
            "message(cjson.encode_max_depth, 0)",
            "bad argument #1 to '?' (expected integer between 1 and 2147483647)",
        ),
        (
            "message(cjson.decode_max_depth, 1, 2)",
            "bad argument #2 to '?' (found too many arguments)",
        ),
        (
            "cjson.encode_number_precision(3) and cjson.encode(1/3)",
            "0.333",
        ),
        (
            "message(cjson.encode_number_precision, 15)",
            "bad argument #1 to '?' (expected integer between 1 and 14)",
        ),
        ("cjson.encode_invalid_numbers('null')", "null"),
        ("cjson.encode({0/0, 1/0})", "[null,null]"),
        ("cjson.encode_invalid_numbers(true)", "true"),
        ("cjson.encode({0/0, -1/0})", "[nan,-inf]"),
        ("cjson.encode_keep_buffer('off')", "false"),
        (
            "message(cjson.encode_keep_buffer, 'x')",
            "bad argument #1 to '?' (invalid option 'x')",
        ),
        ("cjson.encode_sparse_array(true)", "true"),
        ("cjson.encode({1, [11] = 2}):len()", "14"),
        ("cjson.decode_invalid_numbers(false)", "false"),
        (
            "message(cjson.decode, 'nan')",
            "Expected value but found invalid token at character 1",
        ),
        (
            "message(cjson.decode, '-01')",
            "Expected value but found invalid number at character 1",
        ),
        ("cjson.decode('-0.5')", "-0.5"),
        ("cjson.new().encode_max_depth()", "1000"),
    ] {
        check(&lua, expression, wanted);
    }
}

#[test]
fn a_marked_table_is_an_array() {
    let lua = lua();
    check(&lua, "cjson.encode(cjson.decode('[]'))", "{}");
    check(&lua, "cjson.decode_array_with_array_mt(true)", "true");
    check(&lua, r#"cjson.encode(cjson.decode('[[],{}]'))"#, "[[],{}]");
}

/// Runs the test with a stack of the size that the server's thread has.
#[test]
fn nesting_is_bounded() {
    let check_depths = || {
        let lua = lua();
        check(
            &lua,
            "message(cjson.decode, ('['):rep(1001))",
            "Found too many nested data structures (1001) at character 1001",
        );
        check(
            &lua,
            "#cjson.decode(('['):rep(1000) .. (']'):rep(1000))",
            "1",
        );
        let loops = "(function() local a = {} a.x = a return message(cjson.encode, a) end)()";
        check(&lua, loops, "Cannot serialise, excessive nesting (1001)");
        check(
            &lua,
            "cjson.encode_max_depth(2147483647) + cjson.decode_max_depth(2147483647) > 0",
            "true",
        );
        check(
            &lua,
            loops,
            &format!("Cannot serialise, excessive nesting ({})", NESTING_MAX + 1),
        );
        check(
            &lua,
            "message(cjson.decode, ('{\"a\":'):rep(100000)):sub(1, 34)",
            "Found too many nested data structu",
        );
    };
    let thread = std::thread::Builder::new()
        .stack_size(8 << 20)
        .spawn(check_depths);
    thread.expect("a thread").join().expect("no overflow");
}
