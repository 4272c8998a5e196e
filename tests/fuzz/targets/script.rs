//! The libraries of scripts that read bytes (cjson, cmsgpack, struct), and the values of scripts as
//! replies.
//!
//! Each fuzz target here runs a script that gets the input as `ARGV[1]`, since the libraries report
//! errors as Lua errors. A script returns a text that describes a fault, or nothing.

use std::cell::RefCell;

use aeris::client::Client;
use aeris::config::Config;
use aeris::networking::query;
use aeris::state::Server;

/// A Lua function `same(a, b)`: whether two values are equal in depth, except for keys that are
/// tables. A NaN is equal to a NaN.
const SAME: &str = "local function same(a, b) \
    if type(a) ~= 'table' or type(b) ~= 'table' then return a == b or a ~= a and b ~= b end \
    for k, v in pairs(a) do if type(k) ~= 'table' and not same(v, b[k]) then return false end end \
    for k in pairs(b) do if type(k) ~= 'table' and a[k] == nil then return false end end return true end ";

const CJSON: &str = "local ok, value = pcall(cjson.decode, ARGV[1]) if not ok then return end \
    local ok, text = pcall(cjson.encode, value) if not ok then return end \
    local once = cjson.decode(text) local twice = cjson.decode(cjson.encode(once)) \
    if not same(once, twice) then return text end";

const CMSGPACK: &str = "local all = {pcall(cmsgpack.unpack, ARGV[1])} \
    pcall(cmsgpack.unpack_one, ARGV[1]) pcall(cmsgpack.unpack_one, ARGV[1], #ARGV[1] - 1) \
    pcall(cmsgpack.unpack_limit, ARGV[1], 2, 1) \
    if not all[1] or all[2] == nil then return end \
    local ok, text = pcall(cmsgpack.pack, all[2]) if not ok then return end \
    local once = cmsgpack.unpack(text) local twice = cmsgpack.unpack(cmsgpack.pack(once)) \
    if not same(once, twice) then return text end";

const STRUCT: &str = "local input = ARGV[1] local len = string.byte(input) or 0 \
    local format, text = input:sub(2, len + 1), input:sub(len + 2) \
    pcall(struct.size, format) pcall(struct.pack, format, text, 1, 2, text, -1, 1e300) \
    pcall(struct.unpack, format, text, #text) \
    local all = {pcall(struct.unpack, format, text)} if not all[1] then return end \
    local ok, packed = pcall(struct.pack, format, unpack(all, 2, #all - 1)) \
    if ok and #packed > #text then return packed end";

const REPLIES: &str = "local ok, value = pcall(cmsgpack.unpack, ARGV[1]) \
    if #ARGV[1] % 2 == 1 then redis.setresp(3) end \
    redis.call('DEL', 'k') redis.pcall('RPUSH', 'k', value, ARGV[1]) \
    local kept = redis.pcall('LRANGE', 'k', 0, -1) \
    if kept[1] and kept[#kept] ~= ARGV[1] then return {map = {wrong = kept}} end \
    if type(value) == 'string' then \
    return {value, {ok = value}, {err = value}, {big_number = value}, {double = #value / 7}, \
    {verbatim_string = {string = value, format = value}}} end \
    if type(value) == 'table' then return {value, {map = value}, {set = value}, value.x} end return value";

pub fn cjson(bytes: &[u8]) {
    nothing_is_wrong(CJSON, bytes);
}

pub fn cmsgpack(bytes: &[u8]) {
    nothing_is_wrong(CMSGPACK, bytes);
}

pub fn structs(bytes: &[u8]) {
    nothing_is_wrong(STRUCT, bytes);
}

/// Any Lua source is compiled, or refused as Lua 5.1 refuses it: LuaJIT must accept every source
/// that aeris passes to it.
pub fn source(bytes: &[u8]) {
    ask(&[b"HELLO", b"2"]);
    let reply = ask(&[b"SCRIPT", b"LOAD", bytes]);
    let refused = b"-ERR Error compiling script (new function): user_script:";
    let compiled = reply.starts_with(b"$40\r\n") || reply.starts_with(refused);
    // The first line (`#!`) may be refused before anything is compiled.
    let known = compiled || bytes.starts_with(b"#!") && reply.starts_with(b"-ERR ");
    assert!(known, "{}", reply.escape_ascii());
    assert_eq!(reply_len(&reply), Some(reply.len()));
}

/// Values of any form that a script returns become well-formed replies, in RESP2 and RESP3.
pub fn script_reply(bytes: &[u8]) {
    for version in ["2", "3"] {
        let reply = ask(&[b"HELLO", version.as_bytes()]);
        assert_eq!(reply_len(&reply), Some(reply.len()));
        let reply = eval(REPLIES, bytes);
        assert_eq!(
            reply_len(&reply),
            Some(reply.len()),
            "{}",
            reply.escape_ascii()
        );
        assert!(
            !reply.windows(5).any(|part| part == b"wrong"),
            "{}",
            reply.escape_ascii()
        );
    }
}

fn nothing_is_wrong(script: &str, bytes: &[u8]) {
    ask(&[b"HELLO", b"2"]);
    let reply = eval(script, bytes);
    assert_eq!(reply, b"$-1\r\n", "{}", reply.escape_ascii());
}

fn eval(script: &str, bytes: &[u8]) -> Vec<u8> {
    ask(&[b"EVAL", format!("{SAME}{script}").as_bytes(), b"0", bytes])
}

/// Runs a request on a server without a socket, which all inputs of a thread share. Returns the
/// reply.
fn ask(argv: &[&[u8]]) -> Vec<u8> {
    thread_local! {
        static SERVER: RefCell<Option<(Server, Client)>> = const { RefCell::new(None) };
    }
    let mut request = format!("*{}\r\n", argv.len()).into_bytes();
    for arg in argv {
        request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        request.extend_from_slice(arg);
        request.extend_from_slice(b"\r\n");
    }
    SERVER.with_borrow_mut(|both| {
        let start = || {
            (
                Server::new(Config::default(), Vec::new()),
                Client::detached(1, 0),
            )
        };
        let (server, client) = both.get_or_insert_with(start);
        query::feed(server, client, &request);
        client.reply.take_bytes()
    })
}

/// The length of the reply with which `bytes` begins; `None` if the reply is not well formed.
fn reply_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|part| part == b"\r\n")?;
    let line = bytes.get(1..end)?;
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    let parts = |count: i64| {
        let mut at = end + 2;
        for _ in 0..count.max(0) {
            at += reply_len(bytes.get(at..)?)?;
        }
        Some(at)
    };
    match bytes[0] {
        b'+' | b'-' | b'(' | b',' => (!line.contains(&b'\n')).then_some(end + 2),
        b':' => number().map(|_| end + 2),
        b'_' | b'#' => Some(end + 2),
        b'*' | b'~' => parts(number()?),
        b'%' => parts(2 * number()?),
        b'$' | b'=' => match usize::try_from(number()?) {
            Err(_) => Some(end + 2),
            Ok(len) => {
                (bytes.get(end + 2 + len..end + 4 + len)? == b"\r\n").then_some(end + 4 + len)
            }
        },
        _ => None,
    }
}
