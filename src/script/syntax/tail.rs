//! Rewrites returned calls (`return f(x)`): if `f` is a library function, the caller's stack frame
//! must not be lost.
//!
//! If it is known only at run time whether a library function is called, the called function and
//! its arguments are passed to a function that tests it. The parameter of the testing function has
//! the name that error messages show:
//!
//! ```text
//!   return t.f(function() end)   ->   return (function(f, ...)              (all on the same line)
//!                                       if native(f, "field 'f'") then
//!                                         return (function(...)return ... end)(f(...))
//!                                       end
//!                                       return f(...)
//!                                     end)(t.f, function() end)
//! ```
//!
//! `native` raises the error about a value that can't be called, since the text of Lua 5.1 has the
//! name that the script used, not that of the parameter.

use std::borrow::Cow;

use super::lexer::{Edit, is_name};
use super::scope::Path;

/// The libraries whose functions are all recognised as library functions, and the recognised
/// functions without a library.
const LIBRARIES: [&[u8]; 11] = [
    b"bit",
    b"cjson",
    b"cmsgpack",
    b"coroutine",
    b"math",
    b"os",
    b"redis",
    b"server",
    b"string",
    b"struct",
    b"table",
];
const FUNCTIONS: [&[u8]; 24] = [
    b"assert",
    b"collectgarbage",
    b"error",
    b"gcinfo",
    b"getfenv",
    b"getmetatable",
    b"ipairs",
    b"load",
    b"loadstring",
    b"next",
    b"pairs",
    b"pcall",
    b"rawequal",
    b"rawget",
    b"rawset",
    b"select",
    b"setfenv",
    b"setmetatable",
    b"tonumber",
    b"tostring",
    b"type",
    b"unpack",
    b"xpcall",
    b"print",
];
/// Frequently called library functions that always return exactly one value.
const SINGLE: [(&[u8], &[u8]); 12] = [
    (b"redis", b"call"),
    (b"redis", b"pcall"),
    (b"redis", b"error_reply"),
    (b"redis", b"status_reply"),
    (b"redis", b"sha1hex"),
    (b"server", b"call"),
    (b"server", b"pcall"),
    (b"cjson", b"encode"),
    (b"cmsgpack", b"pack"),
    (b"struct", b"pack"),
    (b"string", b"format"),
    (b"table", b"concat"),
];

/// The name of the global function that returns whether its argument is a function not written in
/// Lua. No name in Lua 5.1 begins with the byte 0xff.
const NATIVE: &[u8] = b"\xffnative";
/// Code that returns the results of a call and keeps the frame of the caller.
const KEEP: &[u8] = b"(function(...)return ... end)(";

/// The name and kind of a variable in error messages: `local 'x'`.
#[derive(Clone, Copy)]
pub struct Label<'a> {
    kind: &'static str,
    /// The variable's name; empty if Lua 5.1 knows no name and writes a question mark.
    name: &'a [u8],
    /// The key of an element (`t["a b"]`) as it is written in the source, if the key is a string.
    key: Option<&'a [u8]>,
}

impl<'a> Label<'a> {
    /// The label that error messages give a variable: its kind (`local`, `upvalue` or `global`) and
    /// name.
    pub fn variable(name: &'a [u8], kind: &'static str) -> Label<'a> {
        Label {
            kind,
            name,
            key: None,
        }
    }

    /// The label that error messages give a field: `field 'x'`.
    pub fn field(name: &'a [u8]) -> Label<'a> {
        Label::variable(name, "field")
    }

    /// The label that error messages give an element `t[key]`. `key` is a string as it is written
    /// in the source, or `None` for any other key.
    pub fn element(key: Option<&'a [u8]>) -> Label<'a> {
        let plain = |b: &u8| b.is_ascii_graphic() && !b"\\\"'".contains(b) || *b == b' ';
        // A long string, or a string with escapes, is written in the source in another way than its
        // text.
        let quoted = key.filter(|key| key.len() > 2 && b"\"'".contains(&key[0]));
        let key = quoted.filter(|key| key[1..key.len() - 1].iter().all(plain));
        let name = key.map(|key| &key[1..key.len() - 1]).unwrap_or_default();
        match is_name(name) {
            true => Label::field(name),
            false => Label {
                kind: "field",
                name,
                key,
            },
        }
    }
}

/// The parts of a call in a script's source.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The position in the source at which the called function, or the value whose method is
    /// called, ends.
    pub head_end: usize,
    /// The name in error messages of the called function, or of the value whose method is called.
    pub label: Option<Label<'a>>,
    pub method: Option<&'a [u8]>,
    /// The beginning and the end of the arguments in the source.
    pub arguments: (usize, usize),
    /// Whether the called function is certainly written in Lua.
    pub is_lua_function: bool,
}

/// Writes a test, which a script runs before a returned call, for a call of a library function: `if
/// native(callee) then return (…)(call) end`.
pub fn copied(callee: &[u8], call: &[u8]) -> Vec<u8> {
    let colon = |&b: &u8| if b == b':' { b'.' } else { b };
    let callee: Vec<u8> = callee.iter().map(colon).collect();
    // An environment that a script has made (`setfenv`) may lack the function `native`.
    let text: [&[u8]; 10] = [
        b"if ",
        NATIVE,
        b" and ",
        NATIVE,
        b"(",
        &callee,
        b")then return",
        KEEP,
        call,
        b")end ",
    ];
    text.concat()
}

/// Rewrites the call of a `return` statement, which begins at `start`, as described at the top of
/// this file.
pub fn pass_on(site: &Site, start: usize, source: &[u8], edits: &mut Vec<Edit>) {
    let mut edit = |at, removed, inserted: Vec<u8>| {
        edits.push(Edit {
            at,
            removed,
            inserted: Cow::Owned(inserted),
        });
    };
    edit(start, 0, opening(site));
    let (begin, end) = site.arguments;
    let written = &source[begin..end];
    if written.first() != Some(&b'(') {
        // The only argument of the call is a string or a table without parentheses.
        edit(site.head_end, begin - site.head_end, b",".to_vec());
        edit(end, 0, b")".to_vec());
        return;
    }
    let none = written[1..written.len() - 1].trim_ascii().is_empty();
    let separator: &[u8] = if none { b"" } else { b"," };
    edit(site.head_end, begin + 1 - site.head_end, separator.to_vec());
}

/// The Lua code that is inserted before a returned call: the function to which the callee and the
/// arguments are passed, and a parenthesis.
fn opening(site: &Site) -> Vec<u8> {
    let name = site.label.map(|label| label.name).unwrap_or_default();
    let label = match site.label {
        None => b"false".to_vec(),
        Some(label) => {
            let name = if name.is_empty() { b"?" } else { name };
            [b"\"", label.kind.as_bytes(), b" '", name, b"'\""].concat()
        }
    };
    let key = site.label.and_then(|label| label.key);
    let (parameter, method, call): (&[u8], Vec<u8>, Vec<u8>) = match (site.method, key) {
        (Some(method), _) => (
            b"o",
            [b",\"", method, b"\""].concat(),
            [b"o:", method].concat(),
        ),
        // A callee whose key is not a valid name is called as an element with this key, so that
        // messages show the key; a number has no name in messages.
        (None, Some(key)) => (
            b"f",
            Vec::new(),
            [b"({[", key, b"]=f})[", key, b"]"].concat(),
        ),
        (None, None) if name.is_empty() => (b"f", Vec::new(), b"({f})[1]".to_vec()),
        (None, None) => (name, Vec::new(), name.to_vec()),
    };
    let tail = match site.method {
        None => parameter,
        Some(_) => call.as_slice(),
    };
    let text: [&[u8]; 17] = [
        b"(function(",
        parameter,
        b",...)if ",
        NATIVE,
        b" and ",
        NATIVE,
        b"(",
        parameter,
        b",",
        &label,
        &method,
        b")then return",
        KEEP,
        &call,
        b"(...))end return ",
        tail,
        b"(...)end)(",
    ];
    text.concat()
}

/// Whether a call of this function returns a string if it does not fail.
pub fn gives_text(function: Path) -> bool {
    let Some((name, field)) = function else {
        return false;
    };
    match field {
        None => name == b"tostring",
        Some(field) if name == b"string" => [
            &b"format"[..],
            b"rep",
            b"sub",
            b"gsub",
            b"lower",
            b"upper",
            b"reverse",
            b"char",
        ]
        .contains(&field),
        Some(field) => name == b"table" && field == b"concat",
    }
}

/// The Lua code that is inserted before a returned call of a library function, so that the caller's
/// stack frame is kept; `None` for other functions.
pub fn kept_frame(function: Path) -> Option<&'static [u8]> {
    let (name, field) = function?;
    let known = match field {
        Some(_) => LIBRARIES.contains(&name),
        None => FUNCTIONS.contains(&name),
    };
    let single = match field {
        Some(field) => SINGLE.contains(&(name, field)),
        None => matches!(name, b"error" | b"tostring" | b"tonumber"),
    };
    match (known, single) {
        (false, _) => None,
        (true, true) => Some(b"("),
        (true, false) => Some(KEEP),
    }
}
