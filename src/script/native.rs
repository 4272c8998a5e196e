//! Support for Lua functions that are written in Rust: reads their arguments, and raises errors
//! that scripts can handle as strings.
//!
//! ```text
//!   cjson.encode(t)  ->  wrapper (Lua)  ->  function (Rust)  ->  true, results      the wrapper returns them
//!                                                           ->  false, text, level the wrapper raises the text
//! ```
//!
//! Each Rust function needs a wrapper in Lua because its `Err` becomes a userdata in Lua, but
//! scripts compare and concatenate the messages of `pcall`. Raised by `error(text, 2)`, a message
//! is a string that begins with the place of the call, as with a library in C.
//!
//! The texts of errors about arguments are those of Lua's own library: `bad argument #1 to 'encode'
//! (string expected, got nil)`. An error about an argument names the function as the call does, `f`
//! after `local f = cjson.encode`, so the wrapper adds the name.
//!
//! **Invariant:** a function holds few Lua values at a time: mlua keeps each string and table that
//! Rust holds in a stack of at most [`VALUES_MAX`] places (`tests::many_arguments_and_results`).
//!
//! Limits: the sign of -0 is lost, because mlua converts -0 to an integer.

use mlua::{Error, Function, Lua, LuaString, MultiValue, Result, Value};

use crate::sys::lua::{called_as, nan_text};

/// The maximum number of values that a function takes or returns. LuaJIT's stack for Rust has 8,000
/// places.
pub const VALUES_MAX: usize = 7500;

/// Returns an error that is raised in the script with this text.
pub fn raise<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::RuntimeError(text.into()))
}

/// As [`raise`], but the text does not begin with the script's name and line, for errors that Lua
/// itself would raise in a C function.
pub fn raise_without_place<T>(text: &'static str) -> Result<T> {
    Err(Error::external(text))
}

/// An error about an argument: the argument's number, and what is wrong with it.
#[derive(Debug)]
struct BadArgument(usize, String);

impl std::fmt::Display for BadArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "bad argument #{} ({})", self.0, self.1)
    }
}

impl std::error::Error for BadArgument {}

/// What the Lua wrapper of a Rust function needs of an error that scripts see as a string: the
/// text, the level for Lua's `error`, and the number of the argument that the text is about.
fn parts(error: &Error) -> Option<(String, i64, Option<usize>)> {
    if let Some(BadArgument(at, why)) = error.downcast_ref() {
        return Some((why.clone(), 2, Some(*at)));
    }
    match error {
        Error::RuntimeError(text) => Some((text.clone(), 2, None)),
        Error::ExternalError(error) => Some((error.to_string(), 0, None)),
        _ => None,
    }
}

/// Lua's name for the type of a value.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// The value of a number, or of a string that contains a number.
pub fn to_number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) => Some(*n),
        Value::String(text) => string_to_number(&text.as_bytes()),
        _ => None,
    }
}

/// Parses a number as Lua does: C's `strtod`, with white space around it.
fn string_to_number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let (number, len) = strtod(text)?;
    (len == text.len()).then_some(number)
}

/// The arguments with which a script calls a Rust function.
pub struct Args {
    values: MultiValue,
}

impl Args {
    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The argument at this index, counted from 1; `Nil` if there is none.
    pub fn get(&self, at: usize) -> &Value {
        at.checked_sub(1)
            .and_then(|at| self.values.get(at))
            .unwrap_or(&Value::Nil)
    }

    /// All arguments of the call.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// The error `bad argument #1 to 'encode' (why)`.
    pub fn bad<T>(&self, at: usize, why: &str) -> Result<T> {
        Err(Error::external(BadArgument(at, why.to_string())))
    }

    fn wrong_type<T>(&self, at: usize, wanted: &str) -> Result<T> {
        let got = if at > self.len() {
            "no value"
        } else {
            type_name(self.get(at))
        };
        self.bad(at, &format!("{wanted} expected, got {got}"))
    }

    /// The argument at this index as a number; a string that contains a number is converted.
    pub fn number(&self, at: usize) -> Result<f64> {
        match to_number(self.get(at)) {
            Some(number) => Ok(number),
            None => self.wrong_type(at, "number"),
        }
    }

    /// The argument at this index as a number, converted to an integer as in C.
    pub fn integer(&self, at: usize) -> Result<i64> {
        Ok(cast(self.number(at)?))
    }

    /// As [`Args::integer`], with a default for nil.
    pub fn integer_or(&self, at: usize, default: i64) -> Result<i64> {
        match self.get(at) {
            Value::Nil => Ok(default),
            _ => self.integer(at),
        }
    }

    /// The argument at this index as a string; a number is converted to its text.
    pub fn string(&self, lua: &Lua, at: usize) -> Result<LuaString> {
        match self.get(at) {
            Value::String(text) => Ok(text.clone()),
            Value::Number(n) if n.is_nan() => lua.create_string(nan_text(*n)),
            number @ (Value::Integer(_) | Value::Number(_)) => {
                match lua.coerce_string(number.clone())? {
                    Some(text) => Ok(text),
                    None => self.wrong_type(at, "string"),
                }
            }
            _ => self.wrong_type(at, "string"),
        }
    }
}

/// Converts a double to an integer as the processor does: toward zero, and to the least integer if
/// it is out of range.
pub fn cast(number: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// Creates a Lua function that scripts can call and that runs `body`.
pub fn function<F>(lua: &Lua, body: F) -> Result<Function>
where
    F: Fn(&Lua, Args) -> Result<MultiValue> + 'static,
{
    let raw =
        lua.create_function(
            move |lua, values: MultiValue| match body(lua, Args { values }) {
                Ok(mut results) => {
                    results.push_front(Value::Boolean(true));
                    Ok(results)
                }
                Err(error) => {
                    let (text, level, at) = parts(&error).ok_or(error)?;
                    Ok(MultiValue::from_vec(vec![
                        Value::Boolean(false),
                        Value::String(lua.create_string(text)?),
                        Value::Integer(level),
                        at.map_or(Value::Nil, |at| Value::Integer(at as i64)),
                    ]))
                }
            },
        )?;
    let named: Option<Function> = lua.named_registry_value(FAIL)?;
    let fail = match named {
        Some(fail) => fail,
        None => {
            // The libraries are registered before any script could replace `error`.
            let error: Function = lua.globals().raw_get("error")?;
            let fail = lua.load(FAILING).set_name("=[native]");
            let fail: Function = fail.call((error, called_as(lua)?))?;
            lua.set_named_registry_value(FAIL, &fail)?;
            fail
        }
    };
    let wrapper = lua.load(WRAPPER).set_name("=[native]");
    wrapper.call((raw, fail))
}

/// The name in Lua's registry of the function that raises errors.
const FAIL: &str = "native fail";

const WRAPPER: &str = "
local raw, fail = ...
local function finish(ok, ...)
  if ok then return ... end
  return fail(...)
end
return function(...) return finish(raw(...)) end
";

const FAILING: &str = "
local error, called_as = ...
return function(text, level, at)
  if at then
    local name, method = called_as(1)
    at = method and at - 1 or at
    if method and at == 0 then
      text = \"calling '\" .. name .. \"' on bad self (\" .. text .. \")\"
    else
      text = 'bad argument #' .. at .. \" to '\" .. name .. \"' (\" .. text .. \")\"
    end
  end
  error(text, level)
end
";

/// The results of a Rust function that returns one Lua value.
pub fn one(value: Value) -> MultiValue {
    MultiValue::from_vec(vec![value])
}

/// `tonumber` with a base: reads the text as C's `strtoul` does, with white space around the
/// number, up to the first zero byte. A negative number wraps to 64 bits; a number that needs more
/// bits becomes the largest one.
pub fn unsigned(_: &Lua, (text, base): (LuaString, u32)) -> Result<Option<f64>> {
    let bytes = text.as_bytes();
    let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
    let is_space = |b: &u8| b.is_ascii_whitespace() || *b == b'\x0b';
    let begin = text.iter().position(|b| !is_space(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !is_space(b))
        .map_or(begin, |at| at + 1);
    let text = &text[begin..end];
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let mut digits = &text[signed..];
    if base == 16 && digits.len() > 2 && digits[..2].eq_ignore_ascii_case(b"0x") {
        digits = &digits[2..];
    }
    if digits.is_empty() {
        return Ok(None);
    }
    let mut number = Some(0_u64);
    for &digit in digits {
        let Some(digit) = char::from(digit).to_digit(base) else {
            return Ok(None);
        };
        number = number
            .and_then(|number| number.checked_mul(u64::from(base)))
            .and_then(|number| number.checked_add(u64::from(digit)));
    }
    Ok(Some(match number {
        Some(number) if text[0] == b'-' => number.wrapping_neg() as f64,
        Some(number) => number as f64,
        None => u64::MAX as f64,
    }))
}

/// The longest prefix of `text` that C's `strtod` accepts: decimal, hexadecimal, `inf`, `nan`.
/// Returns the number and the length of the prefix.
pub fn strtod(text: &[u8]) -> Option<(f64, usize)> {
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let body = &text[signed..];
    let (number, len) = named(body)
        .or_else(|| hexadecimal(body))
        .or_else(|| decimal(body))?;
    let negative = text[0] == b'-';
    Some((if negative { -number } else { number }, signed + len))
}

fn named(text: &[u8]) -> Option<(f64, usize)> {
    let begins = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    match () {
        () if begins(b"infinity") => Some((f64::INFINITY, 8)),
        () if begins(b"inf") => Some((f64::INFINITY, 3)),
        () if begins(b"nan") => Some((f64::NAN, 3)),
        () => None,
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = digits(text);
    let mut len = whole;
    let mut count = whole;
    if text.get(len) == Some(&b'.') {
        let fraction = digits(&text[len + 1..]);
        count += fraction;
        len += 1 + fraction;
    }
    if count == 0 {
        return None;
    }
    len += exponent(&text[len..], b'e');
    let number = std::str::from_utf8(&text[..len]).ok()?.parse().ok()?;
    Some((number, len))
}

/// The length in bytes of the exponent at the start of `text`; 0 if there is none.
fn exponent(text: &[u8], letter: u8) -> usize {
    if !text
        .first()
        .is_some_and(|b| b.eq_ignore_ascii_case(&letter))
    {
        return 0;
    }
    let sign = usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    match digits(&text[1 + sign..]) {
        0 => 0,
        n => 1 + sign + n,
    }
}

fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    if !text.get(..2)?.eq_ignore_ascii_case(b"0x") {
        return None;
    }
    let mut number = 0.0;
    let mut scale = 0i32;
    let (mut len, mut count, mut point) = (2, 0, false);
    while let Some(&b) = text.get(len) {
        match char::from(b).to_digit(16) {
            Some(digit) => {
                number = number * 16.0 + f64::from(digit);
                count += 1;
                scale = scale.saturating_sub(if point { 4 } else { 0 });
            }
            None if b == b'.' && !point => point = true,
            None => break,
        }
        len += 1;
    }
    if count == 0 {
        // Without digits behind the `x`, only the zero before the `x` is a number.
        return Some((0.0, 1));
    }
    let power = exponent(&text[len..], b'p');
    if power > 0 {
        let given = std::str::from_utf8(&text[len + 1..len + power]).ok()?;
        let out_of_range = match given.starts_with('-') {
            true => i32::MIN,
            false => i32::MAX,
        };
        scale = scale.saturating_add(given.parse().unwrap_or(out_of_range));
        len += power;
    }
    Some((number * 2f64.powi(scale), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lua_with(name: &'static str, body: fn(&Lua, Args) -> Result<MultiValue>) -> Lua {
        let lua = Lua::new();
        let f = function(&lua, body).expect("a function");
        lua.globals().set(name, f).expect("set");
        lua
    }

    #[test]
    fn an_error_is_a_string_with_its_place() {
        let lua = lua_with("refuse", |_, args| args.bad(2, "why not"));
        let text: String = lua
            .load(
                "local ok, e = pcall(function()\nrefuse() return 1 end) return type(e) .. ' ' .. e",
            )
            .set_name("=script")
            .eval()
            .expect("text");
        assert_eq!(
            text,
            "string script:2: bad argument #2 to 'refuse' (why not)"
        );
        let text: String = lua
            .load("local ok, e = pcall(refuse) return e")
            .eval()
            .expect("text");
        assert_eq!(text, "bad argument #2 to '?' (why not)");
        let text: String = lua
            .load("local o = {named = refuse} local ok, e = pcall(function() o:named() return 1 end) return e")
            .set_name("=script")
            .eval()
            .expect("text");
        assert_eq!(text, "script:1: bad argument #1 to 'named' (why not)");
    }

    #[test]
    fn an_error_of_the_language_has_no_place() {
        let lua = lua_with("refuse", |_, _| raise_without_place("table index is nil"));
        let text: String = lua
            .load("local ok, e = pcall(function() refuse() return 1 end) return e")
            .eval()
            .expect("text");
        assert_eq!(text, "table index is nil");
    }

    #[test]
    fn many_arguments_and_results() {
        let lua = lua_with("count", |_, args| {
            Ok(one(Value::Integer(args.len() as i64)))
        });
        let count = "local t = {} for i = 1, ... do t[i] = 'x' .. i end return count(unpack(t))";
        for n in [0, 1, VALUES_MAX] {
            let counted: usize = lua.load(count).call(n).expect("as many");
            assert_eq!(counted, n);
        }
        assert!(lua.load(count).call::<usize>(9000).is_err());
        let lua = lua_with("many", |lua, args| {
            let text = |n: i64| Ok(Value::String(lua.create_string(n.to_string())?));
            (0..args.integer(1)?).map(text).collect()
        });
        let many = "return select('#', many(...))";
        let returned: usize = lua.load(many).call(VALUES_MAX).expect("as many");
        assert_eq!(returned, VALUES_MAX);
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number, len) in [
            ("12", 12.0, 2),
            ("-1.5e3x", -1500.0, 6),
            ("1e", 1.0, 1),
            ("1.", 1.0, 2),
            (".5", 0.5, 2),
            ("0x1Fg", 31.0, 4),
            ("0x.8p1", 1.0, 6),
            ("0x", 0.0, 1),
            ("-Infinity", f64::NEG_INFINITY, 9),
            ("infin", f64::INFINITY, 3),
            ("1e400", f64::INFINITY, 5),
        ] {
            assert_eq!(strtod(text.as_bytes()), Some((number, len)), "{text}");
        }
        for text in ["", "-", "+", ".", "x", "e5", "-x"] {
            assert_eq!(strtod(text.as_bytes()), None, "{text}");
        }
        assert_eq!(string_to_number(b" 0x10 "), Some(16.0));
        assert_eq!(string_to_number(b"1 2"), None);
    }
}
