//! `cmsgpack` for scripts: MessagePack as the lua-cmsgpack that comes with Redis reads and writes
//! it.
//!
//! ```text
//!   00..7f  e0..ff   small integers          cc cd ce cf   unsigned of 1, 2, 4, 8 bytes, big endian
//!   80..8f  de df    maps                    d0 d1 d2 d3   signed
//!   90..9f  dc dd    arrays                  ca cb         float, double
//!   a0..bf  d9 da db strings                 c0 c2 c3      nil, false, true
//! ```
//!
//! A number is written in the shortest form that keeps its value: as an integer if it is one, as a
//! float of 4 bytes if that is exact. A table is an array when its keys are 1..n and no others.
//! Binary strings and extensions (c4..c9, d4..d8) are not read, as in Redis's library.
//!
//! Tables deeper than [`PACK_DEPTH`] are written as nil, which also ends the output of a table that
//! contains itself.
//!
//! **Invariant:** nothing is allocated for a length that the input announces: tables grow as their
//! elements arrive, and reading keeps its open tables in a list, not on the stack
//! (`tests::lengths_are_not_believed`).

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::script::native::{self, Args, VALUES_MAX, cast, one, raise, raise_without_place};

/// The depth to which nested tables are written.
const PACK_DEPTH: usize = 16;
/// The depth to which nested tables are read. Each level holds two Lua values: a table, and the key
/// of a map whose value is not read yet.
const UNPACK_DEPTH: usize = VALUES_MAX / 3;

/// Creates the table `cmsgpack`.
pub fn register(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", native::function(lua, pack)?)?;
    table.raw_set("unpack", native::function(lua, unpack)?)?;
    table.raw_set("unpack_one", native::function(lua, unpack_one)?)?;
    let unpack_limit = native::function(lua, unpack_limit)?;
    table.raw_set("unpack_limit", unpack_limit)?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd.")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

/// pack(value, ...): returns the values as MessagePack, one after the other.
fn pack(lua: &Lua, args: Args) -> Result<MultiValue> {
    if args.is_empty() {
        return args.bad(0, "MessagePack pack needs input.");
    }
    let mut out = Vec::new();
    for value in args.iter() {
        pack_value(&mut out, value, 0)?;
    }
    Ok(one(Value::String(lua.create_string(&out)?)))
}

fn pack_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<()> {
    match value {
        Value::String(text) => pack_string(out, &text.as_bytes()),
        Value::Boolean(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => pack_integer(out, *n),
        Value::Number(n) => pack_number(out, *n),
        Value::Table(table) if depth < PACK_DEPTH => return pack_table(out, table, depth),
        _ => out.push(0xc0),
    }
    Ok(())
}

/// Writes the length of a string, an array or a map: in the marker byte if the length is small,
/// otherwise after the marker in 1 (strings only), 2 or 4 bytes.
fn pack_length(out: &mut Vec<u8>, len: usize, small: (u8, usize), wide: [Option<u8>; 3]) {
    let [one, two, four] = wide;
    match (u8::try_from(len), u16::try_from(len)) {
        _ if len < small.1 => out.push(small.0 | len as u8),
        (Ok(len), _) if one.is_some() => out.extend([one.unwrap_or(0), len]),
        (_, Ok(len)) => {
            out.extend(two);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.extend(four);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn pack_string(out: &mut Vec<u8>, text: &[u8]) {
    pack_length(
        out,
        text.len(),
        (0xa0, 32),
        [Some(0xd9), Some(0xda), Some(0xdb)],
    );
    out.extend_from_slice(text);
}

fn pack_number(out: &mut Vec<u8>, number: f64) {
    let whole = cast(number);
    if whole as f64 == number && whole != i64::MAX && number < 9_223_372_036_854_775_808.0 {
        return pack_integer(out, whole);
    }
    let narrow = number as f32;
    if f64::from(narrow) == number {
        out.push(0xca);
        out.extend(narrow.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn pack_integer(out: &mut Vec<u8>, n: i64) {
    match n {
        -32..=127 => out.push(n as u8),
        128..=0xff => out.extend([0xcc, n as u8]),
        -128..=-33 => out.extend([0xd0, n as u8]),
        0x100..=0xffff | -0x8000..=-129 => {
            out.push(if n > 0 { 0xcd } else { 0xd1 });
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff | -0x8000_0000..=-0x8001 => {
            out.push(if n > 0 { 0xce } else { 0xd2 });
            out.extend((n as u32).to_be_bytes());
        }
        _ => {
            out.push(if n > 0 { 0xcf } else { 0xd3 });
            out.extend(n.to_be_bytes());
        }
    }
}

fn pack_table(out: &mut Vec<u8>, table: &Table, depth: usize) -> Result<()> {
    let (mut count, mut max) = (0usize, 0i64);
    let mut array = true;
    for pair in table.pairs::<Value, Value>() {
        count += 1;
        match pair?.0 {
            Value::Integer(n) if n > 0 => max = max.max(n),
            _ => array = false,
        }
    }
    if array && max == count as i64 {
        pack_length(out, count, (0x90, 16), [None, Some(0xdc), Some(0xdd)]);
        for at in 1..=count {
            let value: Value = table.raw_get(at)?;
            pack_value(out, &value, depth + 1)?;
        }
        return Ok(());
    }
    pack_length(out, count, (0x80, 16), [None, Some(0xde), Some(0xdf)]);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack_value(out, &key, depth + 1)?;
        pack_value(out, &value, depth + 1)?;
    }
    Ok(())
}

/// unpack(text): returns all values.
fn unpack(lua: &Lua, args: Args) -> Result<MultiValue> {
    unpack_generic(lua, &args, 0, 0)
}

/// unpack_one(text[, offset]): the position of the next value, or -1, and a value.
fn unpack_one(lua: &Lua, args: Args) -> Result<MultiValue> {
    let offset = args.integer_or(2, 0)?;
    args.string(lua, 1)?;
    unpack_generic(lua, &args, 1, offset)
}

/// unpack_limit(text, limit[, offset]): the position of the next value, or -1, and up to `limit`
/// values.
fn unpack_limit(lua: &Lua, args: Args) -> Result<MultiValue> {
    let limit = args.integer(2)?;
    let offset = args.integer_or(3, 0)?;
    args.string(lua, 1)?;
    unpack_generic(lua, &args, limit, offset)
}

fn unpack_generic(lua: &Lua, args: &Args, limit: i64, offset: i64) -> Result<MultiValue> {
    let text = args.string(lua, 1)?;
    let text = text.as_bytes();
    let len = text.len();
    // As in Redis, the text of the error has the length of the input in the place of the limit, and
    // the numbers are ints of C.
    if offset < 0 || limit < 0 {
        return raise(format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32, len as i32
        ));
    }
    if offset as usize > len {
        return raise(format!(
            "Start offset {} greater than input length {}.",
            offset as i32, len as i32
        ));
    }
    let all = limit == 0 && offset == 0;
    let mut reader = Reader {
        lua,
        rest: &text[offset as usize..],
    };
    let mut values = MultiValue::new();
    while !reader.rest.is_empty() && (all || (values.len() as i64) < limit) {
        if values.len() == VALUES_MAX {
            return raise(
                "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)",
            );
        }
        let value = reader.value(VALUES_MAX - values.len())?;
        values.push_back(value);
    }
    if !all {
        let next = match reader.rest.len() {
            0 => -1,
            left => (len - left) as i64,
        };
        values.push_front(Value::Integer(next));
    }
    Ok(values)
}

/// A Lua table whose elements are being read.
struct Open {
    table: Table,
    left: usize,
    filled: Filled,
}

enum Filled {
    /// An array; the field holds the number of elements that are set so far.
    Array(usize),
    /// A map; the field holds the key whose value is read next, or `None` if a key is read next.
    Map(Option<Value>),
}

/// What a marker byte begins: a whole value, or an array or a map with this number of elements.
enum Item {
    Value(Value),
    Array(usize),
    Map(usize),
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8]> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => raise("Missing bytes in input."),
        }
    }

    fn be(&mut self, len: usize) -> Result<u64> {
        let bytes = self.take(len)?;
        Ok(bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// Reads a signed integer of `len` bytes.
    fn signed(&mut self, len: usize) -> Result<Item> {
        let unused = 64 - 8 * len as u32;
        let n = (self.be(len)? << unused) as i64 >> unused;
        Ok(Item::Value(Value::Integer(n)))
    }

    fn string(&mut self, len: usize) -> Result<Item> {
        let lua = self.lua;
        let text = lua.create_string(self.take(len)?)?;
        Ok(Item::Value(Value::String(text)))
    }

    fn item(&mut self) -> Result<Item> {
        let marker = self.be(1)? as u8;
        let value = match marker {
            0x00..=0x7f => Value::Integer(i64::from(marker)),
            0xe0..=0xff => Value::Integer(i64::from(marker as i8)),
            0x80..=0x8f => return Ok(Item::Map(usize::from(marker & 15))),
            0x90..=0x9f => return Ok(Item::Array(usize::from(marker & 15))),
            0xa0..=0xbf => return self.string(usize::from(marker & 31)),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_bits(self.be(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.be(8)?)),
            0xcc..=0xcf => Value::Integer(self.be(1 << (marker & 3))? as i64),
            0xd0..=0xd3 => return self.signed(1 << (marker & 3)),
            0xd9..=0xdb => {
                let len = self.be(1 << (marker - 0xd9))?;
                return self.string(len as usize);
            }
            0xdc | 0xdd => return Ok(Item::Array(self.be(2 << (marker & 1))? as usize)),
            0xde | 0xdf => return Ok(Item::Map(self.be(2 << (marker & 1))? as usize)),
            _ => return raise("Bad data format in input."),
        };
        Ok(Item::Value(value))
    }

    /// Reads one value with all values that are nested in it. `room` is the maximum number of Lua
    /// values held at a time.
    fn value(&mut self, room: usize) -> Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let (left, filled) = match self.item()? {
                Item::Value(value) => match self.close(&mut open, value)? {
                    Some(value) => return Ok(value),
                    None => continue,
                },
                Item::Array(len) => (len, Filled::Array(0)),
                Item::Map(len) => (len, Filled::Map(None)),
            };
            if open.len() >= UNPACK_DEPTH.min(room / 3) {
                let kind = match filled {
                    Filled::Array(_) => "array",
                    Filled::Map(_) => "hash",
                };
                return raise(format!(
                    "stack overflow (in function mp_decode_to_lua_{kind})"
                ));
            }
            let table = self.lua.create_table()?;
            if left > 0 {
                open.push(Open {
                    table,
                    left,
                    filled,
                });
            } else if let Some(value) = self.close(&mut open, Value::Table(table))? {
                return Ok(value);
            }
        }
    }

    /// Adds a complete value to the innermost open table, which may complete that table, too.
    /// Returns the outermost value when it is complete.
    fn close(&mut self, open: &mut Vec<Open>, mut value: Value) -> Result<Option<Value>> {
        while let Some(inner) = open.last_mut() {
            match &mut inner.filled {
                Filled::Array(at) => {
                    *at += 1;
                    inner.table.raw_set(*at, value)?;
                }
                Filled::Map(waiting) => match waiting.take() {
                    None => {
                        *waiting = Some(value);
                        return Ok(None);
                    }
                    Some(key) => {
                        check_key(&key)?;
                        inner.table.raw_set(key, value)?;
                    }
                },
            }
            inner.left -= 1;
            if inner.left > 0 {
                return Ok(None);
            }
            value = match open.pop() {
                Some(done) => Value::Table(done.table),
                None => Value::Nil,
            };
        }
        Ok(Some(value))
    }
}

/// Nil and NaN can't be keys in Lua.
fn check_key(key: &Value) -> Result<()> {
    match key {
        Value::Nil => raise_without_place("table index is nil"),
        Value::Number(n) if n.is_nan() => raise_without_place("table index is NaN"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lua() -> Lua {
        let lua = Lua::new();
        let table = register(&lua).expect("the library");
        lua.globals().set("cmsgpack", table).expect("set");
        lua.load(
            "function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end
             function bytes(h) return (h:gsub('..', function(x) return string.char(tonumber(x, 16)) end)) end
             function message(f, ...) local ok, e = pcall(f, ...) assert(not ok) return e end",
        )
        .exec()
        .expect("helpers");
        lua
    }

    fn text(lua: &Lua, expression: &str) -> String {
        let value: String = lua
            .load(format!("return tostring({expression})"))
            .eval()
            .unwrap_or_else(|e| panic!("{expression}: {e}"));
        value
    }

    #[test]
    fn numbers_take_the_shortest_exact_form() {
        let lua = lua();
        for (number, wanted) in [
            ("0", "00"),
            ("127", "7f"),
            ("128", "cc80"),
            ("256", "cd0100"),
            ("65536", "ce00010000"),
            ("4294967296", "cf0000000100000000"),
            ("-1", "ff"),
            ("-32", "e0"),
            ("-33", "d0df"),
            ("-129", "d1ff7f"),
            ("-32769", "d2ffff7fff"),
            ("-2147483649", "d3ffffffff7fffffff"),
            ("-2^63", "d38000000000000000"),
            ("2^63", "ca5f000000"),
            ("1.5", "ca3fc00000"),
            ("0.1", "cb3fb999999999999a"),
            ("1e100", "cb54b249ad2594c37d"),
            ("1/0", "ca7f800000"),
        ] {
            assert_eq!(text(&lua, &format!("hex(cmsgpack.pack({number}))")), wanted);
            let back = format!("cmsgpack.unpack(cmsgpack.pack({number})) == {number}");
            assert_eq!(text(&lua, &back), "true", "{number}");
        }
        assert_eq!(
            text(&lua, "cmsgpack.unpack(bytes('cfffffffffffffffff'))"),
            "-1"
        );
    }

    #[test]
    fn tables_are_arrays_or_maps() {
        let lua = lua();
        for (value, wanted) in [
            ("{}", "90"),
            ("{1, 2}", "920102"),
            ("{a = 1}", "81a16101"),
            ("{[2] = 1}", "810201"),
            ("{[1.5] = 1}", "81ca3fc0000001"),
            ("1, 'a', {}, nil", "01a16190c0"),
            ("true, false, print", "c3c2c0"),
        ] {
            assert_eq!(text(&lua, &format!("hex(cmsgpack.pack({value}))")), wanted);
        }
        let loop_depth = "(function() local a = {} a[1] = a return hex(cmsgpack.pack(a)) end)()";
        assert_eq!(text(&lua, loop_depth), "91".repeat(16) + "c0");
    }

    #[test]
    fn offsets_and_limits() {
        let lua = lua();
        for (call, wanted) in [
            ("unpack('')", ""),
            ("unpack('\\1\\2\\3')", "1 2 3"),
            ("unpack_one('\\1\\2\\3')", "1 1"),
            ("unpack_one('\\1\\2\\3', 2)", "-1 3"),
            ("unpack_one('\\1\\2\\3', 3)", "-1"),
            ("unpack_limit('\\1\\2\\3', 2)", "2 1 2"),
            ("unpack_limit('\\1\\2\\3', 0)", "1 2 3"),
            ("unpack_limit('\\1\\2\\3', 0, 1)", "1"),
            ("unpack_limit('\\1\\2\\3', 5)", "-1 1 2 3"),
        ] {
            let joined = format!("table.concat({{cmsgpack.{call}}}, ' ')");
            assert_eq!(text(&lua, &joined), wanted, "{call}");
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        let lua = lua();
        for (call, wanted) in [
            (
                "pack",
                "bad argument #0 to '?' (MessagePack pack needs input.)",
            ),
            ("unpack, bytes('cc')", "Missing bytes in input."),
            ("unpack, bytes('dbffffffff61')", "Missing bytes in input."),
            ("unpack, bytes('c1')", "Bad data format in input."),
            ("unpack, bytes('c40161')", "Bad data format in input."),
            ("unpack, bytes('81c001')", "table index is nil"),
            ("unpack, bytes('81c0')", "Missing bytes in input."),
            (
                "unpack_one, 'abc', 4",
                "Start offset 4 greater than input length 3.",
            ),
            (
                "unpack_limit, 'abc', 1, -2",
                "Invalid request to unpack with offset of -2 and limit of 3.",
            ),
            (
                "unpack, ('\\1'):rep(10000)",
                "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)",
            ),
            (
                "unpack, ('\\145'):rep(200000)",
                "stack overflow (in function mp_decode_to_lua_array)",
            ),
        ] {
            assert_eq!(text(&lua, &format!("message(cmsgpack.{call})")), wanted);
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let lua = lua();
        for header in ["ddffffffff", "dfffffffff", "dbffffffff"] {
            let call = format!("message(cmsgpack.unpack, bytes('{header}01'))");
            assert_eq!(text(&lua, &call), "Missing bytes in input.");
        }
        let deep = "#cmsgpack.unpack(bytes(('91'):rep(2000) .. '01'))";
        assert_eq!(text(&lua, deep), "1");
    }
}
