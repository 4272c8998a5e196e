//! `cjson` for scripts: JSON as the lua-cjson that comes with Redis reads and writes it.
//!
//! ```text
//!   Lua                                  JSON
//!   table with keys 1..n only            array, holes as null if they are not too many
//!   any other table, the empty one too   object, its keys strings
//!   number                               %.14g
//!   cjson.null, nil                      null            back: cjson.null
//! ```
//!
//! The settings of the library are the same for all scripts, as in Redis; `cjson.new` creates a
//! library with settings of its own. `encode_keep_buffer` has no effect, since there is no buffer
//! to keep. A table whose metatable says `__is_cjson_array` is always an array;
//! `decode_array_with_array_mt(true)` makes `decode` give arrays such a metatable, so that an empty
//! array is encoded as an array again.
//!
//! The order of an object's keys is the iteration order of LuaJIT's tables; Redis's Lua iterates
//! over a table in another order.
//!
//! **Invariant:** reading and writing recurse at most [`NESTING_MAX`] levels deep, whatever a
//! script sets (`tests::nesting_is_bounded`).

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Result, Table, Value};

use crate::script::native::{self, Args, VALUES_MAX, one, raise, strtod, type_name};
use crate::util::number::write_g;

/// The maximum depth of nesting that `encode` and `decode` allow. The settings of cjson allow
/// depths up to 2,147,483,647, for which the stack is too small.
const NESTING_MAX: i64 = 1500;

/// What `encode` does with a number that JSON can't express.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refuse,
    Write,
    Null,
}

#[derive(Clone, Copy)]
struct Settings {
    /// Whether an array with too many holes becomes an object instead of an error.
    sparse_convert: bool,
    /// The maximum of an array's length divided by the number of its values; 0 is no limit.
    sparse_ratio: i64,
    /// Arrays up to this length may have any number of holes.
    sparse_safe: i64,
    encode_max_depth: i64,
    decode_max_depth: i64,
    number_precision: i64,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
    array_metatable: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            number_precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
            array_metatable: false,
        }
    }
}

/// A table whose metatable has this field is encoded as an array.
const ARRAY_MARK: &str = "__is_cjson_array";
const INT_MAX: i64 = i32::MAX as i64;

/// Creates the table `cjson`.
pub fn register(lua: &Lua) -> Result<Table> {
    let settings = Rc::new(Cell::new(Settings::default()));
    let table = lua.create_table()?;
    let array_mt = lua.create_table()?;
    array_mt.raw_set(ARRAY_MARK, true)?;
    let add = |name: &'static str, body: Body| -> Result<()> {
        let settings = settings.clone();
        let function = native::function(lua, move |lua, args| body(lua, &args, &settings))?;
        table.raw_set(name, function)
    };
    add("encode", encode)?;
    add("encode_sparse_array", encode_sparse_array)?;
    add("encode_max_depth", encode_max_depth)?;
    add("decode_max_depth", decode_max_depth)?;
    add("encode_number_precision", encode_number_precision)?;
    add("encode_keep_buffer", encode_keep_buffer)?;
    add("encode_invalid_numbers", encode_invalid_numbers)?;
    add("decode_invalid_numbers", decode_invalid_numbers)?;
    add("decode_array_with_array_mt", decode_array_with_array_mt)?;
    let own = settings.clone();
    let decode = native::function(lua, move |lua, args| {
        let array_mt = own.get().array_metatable.then_some(&array_mt);
        decode(lua, &args, own.get(), array_mt)
    })?;
    table.raw_set("decode", decode)?;
    let new = native::function(lua, |lua, _| Ok(one(Value::Table(register(lua)?))))?;
    table.raw_set("new", new)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

type Body = fn(&Lua, &Args, &Cell<Settings>) -> Result<MultiValue>;

fn change(settings: &Cell<Settings>, with: impl FnOnce(&mut Settings)) -> Settings {
    let mut changed = settings.get();
    with(&mut changed);
    settings.set(changed);
    changed
}

fn at_most(args: &Args, count: usize) -> Result<()> {
    if args.len() > count {
        return args.bad(count + 1, "found too many arguments");
    }
    Ok(())
}

/// The integer argument at this index, in `min..=max`; `None` if the argument is missing. Error
/// texts about the range name the first argument in every case, as in Redis.
fn int_setting(args: &Args, at: usize, min: i64, max: i64) -> Result<Option<i64>> {
    if args.get(at).is_nil() {
        return Ok(None);
    }
    // In lua-cjson a setting is an int of C, so a number wraps at 32 bits.
    let given = i64::from(args.integer(at)? as i32);
    if !(min..=max).contains(&given) {
        return args.bad(1, &format!("expected integer between {min} and {max}"));
    }
    Ok(Some(given))
}

/// The index of the argument's word in `options`; for the booleans `true` and `false` it is 1 and
/// 0.
fn option_setting(lua: &Lua, args: &Args, at: usize, options: &[&str]) -> Result<Option<usize>> {
    match args.get(at) {
        Value::Nil => Ok(None),
        Value::Boolean(yes) => Ok(Some(usize::from(*yes))),
        _ => {
            let said = args.string(lua, at)?;
            let place = options.iter().position(|o| said.as_bytes() == o.as_bytes());
            match place {
                Some(place) => Ok(Some(place)),
                None => args.bad(
                    at,
                    &format!("invalid option '{}'", up_to_nul(&said.to_string_lossy())),
                ),
            }
        }
    }
}

/// Cuts a text for an error message at its first zero byte, as in Redis.
fn up_to_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}

const OFF_ON: [&str; 2] = ["off", "on"];

fn integer(n: i64) -> Value {
    Value::Integer(n)
}

/// encode_sparse_array([convert[, ratio[, safe]]]): sets and returns how arrays with holes are
/// encoded.
fn encode_sparse_array(lua: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 3)?;
    // As in Redis, the arguments before a wrong one take effect.
    let convert = option_setting(lua, args, 1, &OFF_ON)?;
    change(settings, |s| {
        s.sparse_convert = convert.map_or(s.sparse_convert, |place| place == 1)
    });
    let ratio = int_setting(args, 2, 0, INT_MAX)?;
    change(settings, |s| {
        s.sparse_ratio = ratio.unwrap_or(s.sparse_ratio)
    });
    let safe = int_setting(args, 3, 0, INT_MAX)?;
    let now = change(settings, |s| s.sparse_safe = safe.unwrap_or(s.sparse_safe));
    Ok(MultiValue::from_vec(vec![
        Value::Boolean(now.sparse_convert),
        integer(now.sparse_ratio),
        integer(now.sparse_safe),
    ]))
}

/// encode_max_depth([depth]): sets and returns the maximum nesting of encoded tables.
fn encode_max_depth(_: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let depth = int_setting(args, 1, 1, INT_MAX)?;
    let now = change(settings, |s| {
        s.encode_max_depth = depth.unwrap_or(s.encode_max_depth)
    });
    Ok(one(integer(now.encode_max_depth)))
}

/// decode_max_depth([depth]): sets and returns the maximum nesting of decoded JSON.
fn decode_max_depth(_: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let depth = int_setting(args, 1, 1, INT_MAX)?;
    let now = change(settings, |s| {
        s.decode_max_depth = depth.unwrap_or(s.decode_max_depth)
    });
    Ok(one(integer(now.decode_max_depth)))
}

/// encode_number_precision([digits]): sets and returns the number of digits of encoded numbers.
fn encode_number_precision(_: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let digits = int_setting(args, 1, 1, 14)?;
    let now = change(settings, |s| {
        s.number_precision = digits.unwrap_or(s.number_precision)
    });
    Ok(one(integer(now.number_precision)))
}

/// encode_keep_buffer([keep]): sets and returns a setting that has no effect.
fn encode_keep_buffer(lua: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let keep = option_setting(lua, args, 1, &OFF_ON)?;
    let now = change(settings, |s| {
        s.keep_buffer = keep.map_or(s.keep_buffer, |place| place == 1)
    });
    Ok(one(Value::Boolean(now.keep_buffer)))
}

/// encode_invalid_numbers([setting]): sets and returns what `encode` does with NaN and infinity.
fn encode_invalid_numbers(lua: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let said = option_setting(lua, args, 1, &["off", "on", "null"])?;
    let now = change(settings, |s| {
        s.encode_invalid = match said {
            None => s.encode_invalid,
            Some(0) => Invalid::Refuse,
            Some(1) => Invalid::Write,
            Some(_) => Invalid::Null,
        };
    });
    Ok(one(match now.encode_invalid {
        Invalid::Refuse => Value::Boolean(false),
        Invalid::Write => Value::Boolean(true),
        Invalid::Null => Value::String(lua.create_string("null")?),
    }))
}

/// decode_invalid_numbers([accept]): sets and returns whether `decode` accepts numbers that are not
/// JSON.
fn decode_invalid_numbers(lua: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    at_most(args, 1)?;
    let accept = option_setting(lua, args, 1, &OFF_ON)?;
    let now = change(settings, |s| {
        s.decode_invalid = accept.map_or(s.decode_invalid, |place| place == 1)
    });
    Ok(one(Value::Boolean(now.decode_invalid)))
}

/// decode_array_with_array_mt([mark]): sets and returns whether `decode` marks arrays by a
/// metatable.
fn decode_array_with_array_mt(
    lua: &Lua,
    args: &Args,
    settings: &Cell<Settings>,
) -> Result<MultiValue> {
    at_most(args, 1)?;
    let mark = option_setting(lua, args, 1, &OFF_ON)?;
    let now = change(settings, |s| {
        s.array_metatable = mark.map_or(s.array_metatable, |place| place == 1)
    });
    Ok(one(Value::Boolean(now.array_metatable)))
}

/// encode(value): returns the value as JSON.
fn encode(lua: &Lua, args: &Args, settings: &Cell<Settings>) -> Result<MultiValue> {
    if args.len() != 1 {
        return args.bad(1, "expected 1 argument");
    }
    let mut encoder = Encoder {
        out: Vec::new(),
        settings: settings.get(),
    };
    encoder.value(args.get(1), 0)?;
    Ok(one(Value::String(lua.create_string(&encoder.out)?)))
}

struct Encoder {
    out: Vec<u8>,
    settings: Settings,
}

impl Encoder {
    /// `depth` is the number of tables around the value.
    fn value(&mut self, value: &Value, depth: i64) -> Result<()> {
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            null if null.is_null() => self.out.extend_from_slice(b"null"),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Integer(n) => self.number(*n as f64)?,
            Value::Number(n) => self.number(*n)?,
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Table(table) => self.table(table, depth + 1)?,
            other => return cannot(other, "type not supported"),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: i64) -> Result<()> {
        if depth > self.settings.encode_max_depth.min(NESTING_MAX) {
            return raise(format!("Cannot serialise, excessive nesting ({depth})"));
        }
        match self.array_len(table)? {
            Some(len) => self.array(table, len, depth),
            None => self.object(table, depth),
        }
    }

    /// The length of the array as which the table is written; `None` if it is written as an object.
    fn array_len(&self, table: &Table) -> Result<Option<usize>> {
        let marked = is_marked(table);
        let (mut max, mut items) = (0.0f64, 0i64);
        for pair in table.pairs::<Value, Value>() {
            let key = match pair?.0 {
                Value::Integer(n) => n as f64,
                Value::Number(n) => n,
                _ if marked => continue,
                _ => return Ok(None),
            };
            if key.fract() != 0.0 || key < 1.0 {
                if marked {
                    continue;
                }
                return Ok(None);
            }
            max = max.max(key);
            items += 1;
        }
        if max > INT_MAX as f64 {
            return Ok(None);
        }
        let s = &self.settings;
        let allowed = items.saturating_mul(s.sparse_ratio) as f64;
        if s.sparse_ratio > 0 && max > allowed && max > s.sparse_safe as f64 {
            if !s.sparse_convert {
                return raise("Cannot serialise table: excessively sparse array");
            }
            return Ok(None);
        }
        Ok((max > 0.0 || marked).then_some(max as usize))
    }

    fn array(&mut self, table: &Table, len: usize, depth: i64) -> Result<()> {
        self.out.push(b'[');
        for at in 1..=len {
            if at > 1 {
                self.out.push(b',');
            }
            let value: Value = table.raw_get(at)?;
            self.value(&value, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: i64) -> Result<()> {
        self.out.push(b'{');
        let mut first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match &key {
                Value::String(text) => self.string(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.value(&key, depth)?;
                    self.out.push(b'"');
                }
                other => return cannot(other, "table key must be a number or string"),
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn number(&mut self, number: f64) -> Result<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                Invalid::Refuse => {
                    return cannot(&Value::Number(number), "must not be NaN or Inf");
                }
                Invalid::Null => self.out.extend_from_slice(b"null"),
                Invalid::Write if number.is_nan() => self.out.extend_from_slice(b"nan"),
                Invalid::Write if number > 0.0 => self.out.extend_from_slice(b"inf"),
                Invalid::Write => self.out.extend_from_slice(b"-inf"),
            }
            return Ok(());
        }
        write_g(
            &mut self.out,
            number,
            self.settings.number_precision as usize,
        );
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        for &b in text {
            match escape(b) {
                Some(letter) => self.out.extend_from_slice(&[b'\\', letter]),
                None if b < 32 || b == 127 => {
                    let code = format!("\\u{b:04x}");
                    self.out.extend_from_slice(code.as_bytes());
                }
                None => self.out.push(b),
            }
        }
        self.out.push(b'"');
    }
}

/// The letter that stands for this byte after the backslash of a JSON escape.
fn escape(b: u8) -> Option<u8> {
    match b {
        b'"' | b'\\' | b'/' => Some(b),
        8 => Some(b'b'),
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        12 => Some(b'f'),
        b'\r' => Some(b'r'),
        _ => None,
    }
}

fn cannot<T>(what: &Value, why: &str) -> Result<T> {
    raise(format!("Cannot serialise {}: {why}", type_name(what)))
}

fn is_marked(table: &Table) -> bool {
    table.metatable().is_some_and(|mt| {
        let mark: Result<Value> = mt.raw_get(ARRAY_MARK);
        matches!(mark, Ok(value) if !matches!(value, Value::Nil | Value::Boolean(false)))
    })
}

/// decode(text): returns the value of a JSON text.
fn decode(
    lua: &Lua,
    args: &Args,
    settings: Settings,
    array_mt: Option<&Table>,
) -> Result<MultiValue> {
    if args.len() != 1 {
        return args.bad(1, "expected 1 argument");
    }
    let text = args.string(lua, 1)?;
    let text = text.as_bytes();
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return raise("JSON parser does not support UTF-16 or UTF-32");
    }
    let mut decoder = Decoder {
        lua,
        text: &text,
        pos: 0,
        settings,
        array_mt,
        depth: 0,
        scratch: Vec::new(),
    };
    let token = decoder.next();
    let value = decoder.value(token)?;
    let end = decoder.next();
    if !matches!(end.kind, TokenKind::End) {
        return expected("the end", &end);
    }
    Ok(one(value))
}

enum TokenKind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    /// A JSON string, whose unescaped bytes are in `Decoder::scratch`.
    String,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    /// The JSON text is invalid at this position; the value is the reason.
    Error(&'static str),
}

impl TokenKind {
    fn name(&self) -> &'static str {
        match self {
            TokenKind::ObjectBegin => "T_OBJ_BEGIN",
            TokenKind::ObjectEnd => "T_OBJ_END",
            TokenKind::ArrayBegin => "T_ARR_BEGIN",
            TokenKind::ArrayEnd => "T_ARR_END",
            TokenKind::String => "T_STRING",
            TokenKind::Number(_) => "T_NUMBER",
            TokenKind::Boolean(_) => "T_BOOLEAN",
            TokenKind::Null => "T_NULL",
            TokenKind::Colon => "T_COLON",
            TokenKind::Comma => "T_COMMA",
            TokenKind::End => "T_END",
            TokenKind::Error(why) => why,
        }
    }
}

struct Token {
    kind: TokenKind,
    /// The position of the token's first byte in the JSON text, from 0 on.
    at: usize,
}

fn expected<T>(what: &str, found: &Token) -> Result<T> {
    raise(format!(
        "Expected {what} but found {} at character {}",
        found.kind.name(),
        found.at + 1
    ))
}

struct Decoder<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    pos: usize,
    settings: Settings,
    array_mt: Option<&'a Table>,
    depth: i64,
    /// The unescaped bytes of the last token that is a string.
    scratch: Vec<u8>,
}

impl Decoder<'_> {
    /// The byte at the position `at` of the JSON text; a NUL stands for the end, as in C.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Token {
        while matches!(self.byte(self.pos), b' ' | b'\t' | b'\n' | b'\r') {
            self.pos += 1;
        }
        let at = self.pos;
        let simple = |kind: TokenKind| (kind, 1);
        let (kind, len) = match self.byte(at) {
            0 => (TokenKind::End, 0),
            b'{' => simple(TokenKind::ObjectBegin),
            b'}' => simple(TokenKind::ObjectEnd),
            b'[' => simple(TokenKind::ArrayBegin),
            b']' => simple(TokenKind::ArrayEnd),
            b',' => simple(TokenKind::Comma),
            b':' => simple(TokenKind::Colon),
            b'"' => return self.string_token(at),
            _ => self.word(&self.text[at..]),
        };
        self.pos += len;
        Token { kind, at }
    }

    /// The token at the start of `rest`: a number, `true`, `false` or `null`, and its length in
    /// bytes.
    fn word(&self, rest: &[u8]) -> (TokenKind, usize) {
        let accept = self.settings.decode_invalid;
        let number = || match strtod(rest) {
            Some((number, len)) => (TokenKind::Number(number), len),
            None => (TokenKind::Error("invalid number"), 0),
        };
        if matches!(rest[0], b'-' | b'0'..=b'9') {
            if !accept && is_invalid_number(rest) {
                return (TokenKind::Error("invalid number"), 0);
            }
            return number();
        }
        match () {
            () if rest.starts_with(b"true") => (TokenKind::Boolean(true), 4),
            () if rest.starts_with(b"false") => (TokenKind::Boolean(false), 5),
            () if rest.starts_with(b"null") => (TokenKind::Null, 4),
            () if accept && is_invalid_number(rest) => number(),
            () => (TokenKind::Error("invalid token"), 0),
        }
    }

    /// Reads a JSON string and unescapes it into `scratch`.
    fn string_token(&mut self, at: usize) -> Token {
        self.scratch.clear();
        let mut pos = at + 1;
        loop {
            let rest = &self.text[pos.min(self.text.len())..];
            let special = |b: &u8| matches!(b, b'"' | b'\\' | 0);
            let plain = rest.iter().position(special).unwrap_or(rest.len());
            self.scratch.extend_from_slice(&rest[..plain]);
            pos += plain;
            match self.byte(pos) {
                b'"' => break,
                b'\\' => match self.unescape(pos) {
                    Ok(len) => pos += len,
                    Err(why) => {
                        let kind = TokenKind::Error(why);
                        return Token { kind, at: pos };
                    }
                },
                _ => {
                    let kind = TokenKind::Error("unexpected end of string");
                    return Token { kind, at: pos };
                }
            }
        }
        self.pos = pos + 1;
        let kind = TokenKind::String;
        Token { kind, at }
    }

    /// Appends the character for which the JSON escape at `pos` stands. Returns the length of the
    /// escape.
    fn unescape(&mut self, pos: usize) -> std::result::Result<usize, &'static str> {
        let letter = self.byte(pos + 1);
        if letter == b'u' {
            let (code, len) = self.code_point(pos).ok_or("invalid unicode escape code")?;
            let mut utf8 = [0; 4];
            let text = code.encode_utf8(&mut utf8);
            self.scratch.extend_from_slice(text.as_bytes());
            return Ok(len);
        }
        let byte = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            _ => return Err("invalid escape code"),
        };
        self.scratch.push(byte);
        Ok(2)
    }

    /// The code point of `\uXXXX`, or of two escapes that are a surrogate pair.
    fn code_point(&self, pos: usize) -> Option<(char, usize)> {
        let unit = self.hex4(pos + 2)?;
        if unit & 0xf800 != 0xd800 {
            return Some((char::from_u32(unit)?, 6));
        }
        if unit & 0x400 != 0 || self.byte(pos + 6) != b'\\' || self.byte(pos + 7) != b'u' {
            return None;
        }
        let low = self.hex4(pos + 8)?;
        if low & 0xfc00 != 0xdc00 {
            return None;
        }
        let code = 0x10000 + ((unit & 0x3ff) << 10 | low & 0x3ff);
        Some((char::from_u32(code)?, 12))
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits
            .iter()
            .try_fold(0, |code, &b| Some(code << 4 | char::from(b).to_digit(16)?))
    }

    fn value(&mut self, token: Token) -> Result<Value> {
        match token.kind {
            TokenKind::String => Ok(Value::String(self.lua.create_string(&self.scratch)?)),
            TokenKind::Number(number) => Ok(Value::Number(number)),
            TokenKind::Boolean(yes) => Ok(Value::Boolean(yes)),
            TokenKind::Null => Ok(Value::NULL),
            TokenKind::ObjectBegin => self.object(),
            TokenKind::ArrayBegin => self.array(),
            _ => expected("value", &token),
        }
    }

    fn descend(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth <= self.settings.decode_max_depth.min(NESTING_MAX) {
            return Ok(());
        }
        raise(format!(
            "Found too many nested data structures ({}) at character {}",
            self.depth, self.pos
        ))
    }

    fn object(&mut self) -> Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, TokenKind::ObjectEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        loop {
            if !matches!(token.kind, TokenKind::String) {
                return expected("object key string", &token);
            }
            let key: LuaString = self.lua.create_string(&self.scratch)?;
            token = self.next();
            if !matches!(token.kind, TokenKind::Colon) {
                return expected("colon", &token);
            }
            token = self.next();
            let value = self.value(token)?;
            table.raw_set(key, value)?;
            token = self.next();
            match token.kind {
                TokenKind::ObjectEnd => break,
                TokenKind::Comma => token = self.next(),
                _ => return expected("comma or object end", &token),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    fn array(&mut self) -> Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        if let Some(mark) = self.array_mt {
            table.set_metatable(Some(mark.clone()))?;
        }
        let mut token = self.next();
        if matches!(token.kind, TokenKind::ArrayEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        let mut at = 0;
        loop {
            let value = self.value(token)?;
            at += 1;
            table.raw_set(at, value)?;
            token = self.next();
            match token.kind {
                TokenKind::ArrayEnd => break,
                TokenKind::Comma => token = self.next(),
                _ => return expected("comma or array end", &token),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

/// Whether `strtod` accepts the number but JSON does not: a plus sign, hexadecimal, leading zeros,
/// infinity, NaN.
fn is_invalid_number(text: &[u8]) -> bool {
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    if at(0) == b'+' {
        return true;
    }
    let body = &text[usize::from(at(0) == b'-')..];
    let first = body.first().copied().unwrap_or(0);
    if first == b'0' {
        let second = body.get(1).copied().unwrap_or(0);
        return second.eq_ignore_ascii_case(&b'x') || second.is_ascii_digit();
    }
    let begins = |word: &[u8]| body.get(..3).is_some_and(|b| b.eq_ignore_ascii_case(word));
    first > b'9' && (begins(b"inf") || begins(b"nan"))
}

/// While cjson is inside `NESTING_MAX` nested values, it holds up to a table and a key of each
/// level on Lua's stack, which has at least `VALUES_MAX` places for Rust.
const _: () = assert!(4 * NESTING_MAX as usize <= VALUES_MAX);

#[cfg(test)]
mod tests;
