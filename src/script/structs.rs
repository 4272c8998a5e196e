//! `struct` for scripts: packing values into strings by a format, like Roberto Ierusalimschy's
//! library.
//!
//! ```text
//!   >  <      big, little endian from here on (the machine's order until then)
//!   !n        align to n, a power of two (8 without n); 1 until then
//!   b B h H l L T    signed and unsigned of 1, 2, 8 bytes; T is a size_t
//!   in In     integers of n bytes, 4 without n; n is at most 32
//!   f d       float, double
//!   s         a string and a zero byte
//!   cn        n bytes, 1 without n; c0 packs the whole string, and reads as many bytes as the value before says
//!   x         a byte of padding
//! ```
//!
//! Integers are converted from doubles, so they have eight bytes: further bytes are zero when
//! written and ignored when read.
//!
//! **Invariant:** sizes from a format are added with a check, and nothing is allocated for a size
//! that exceeds the data (`tests::sizes_are_bounded`).

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::script::native::{self, Args, VALUES_MAX, cast, one, raise, to_number};

/// The maximum size of an integer in a format, in bytes.
const INT_SIZE_MAX: usize = 32;
/// The alignment in bytes that `!` without a number sets in a format.
const NATURAL_ALIGNMENT: usize = 8;
/// The longest result of `pack`: the maximum length of a Lua string in Redis.
const PACKED_MAX: usize = i32::MAX as usize;

/// Creates the table `struct`.
pub fn register(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", native::function(lua, pack)?)?;
    table.raw_set("unpack", native::function(lua, unpack)?)?;
    table.raw_set("size", native::function(lua, size)?)?;
    Ok(table)
}

/// A format that is being read, with its present byte order and alignment.
struct Format<'a> {
    rest: &'a [u8],
    big_endian: bool,
    align: usize,
}

/// One option of a format, such as `i4`.
#[derive(Clone, Copy)]
struct Item {
    option: u8,
    size: usize,
    /// The padding in front of the option's value, in bytes.
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format {
            rest: text,
            big_endian: cfg!(target_endian = "big"),
            align: 1,
        }
    }

    /// Reads the number at the present position of the format; `default` if there is none.
    fn number(&mut self, default: usize) -> Result<usize> {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut number = 0i32;
        while let Some(digit) = self.rest.first().filter(|b| b.is_ascii_digit()) {
            let digit = i32::from(digit - b'0');
            match number.checked_mul(10).and_then(|n| n.checked_add(digit)) {
                Some(n) => number = n,
                None => return raise("integral size overflow"),
            }
            self.rest = &self.rest[1..];
        }
        Ok(number as usize)
    }

    /// Reads the next option of the format, whose value follows `position` bytes of data.
    fn next(&mut self, position: usize) -> Result<Option<Item>> {
        let Some((&option, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        let size = self.size_of(option)?;
        let padding = self.padding(option, size, position);
        Ok(Some(Item {
            option,
            size,
            padding,
        }))
    }

    /// The size in bytes of a format option's value; 0 for an option without a fixed size, and for
    /// unknown options.
    fn size_of(&mut self, option: u8) -> Result<usize> {
        Ok(match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INT_SIZE_MAX {
                    return raise(format!(
                        "integral size {size} is larger than limit of {INT_SIZE_MAX}"
                    ));
                }
                size
            }
            _ => 0,
        })
    }

    fn padding(&self, option: u8, size: usize, position: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        // The size of a value is its alignment: not a useful one for an integer of three bytes, but
        // Redis's library uses it.
        let to = size.min(self.align);
        (to - (position & (to - 1))) & (to - 1)
    }

    /// Applies an option of the format that changes how later options are read.
    fn control(&mut self, option: u8) -> Result<()> {
        match option {
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let align = self.number(NATURAL_ALIGNMENT)?;
                if !align.is_power_of_two() {
                    return raise(format!("alignment {align} is not a power of 2"));
                }
                self.align = align;
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends the lowest `size` bytes of an integer, in the byte order of the format.
    fn put_integer(&self, out: &mut Vec<u8>, integer: u64, size: usize) {
        let bytes = integer.to_le_bytes();
        let start = out.len();
        out.extend((0..size).map(|i| bytes.get(i).copied().unwrap_or(0)));
        if self.big_endian {
            out[start..].reverse();
        }
    }

    /// The integer in these bytes, as a Lua number.
    fn integer(&self, bytes: &[u8], signed: bool) -> f64 {
        let mut low = [0; 8];
        let count = bytes.len().min(8);
        let place = |i: usize| {
            if self.big_endian {
                bytes.len() - 1 - i
            } else {
                i
            }
        };
        (0..count).for_each(|i| low[i] = bytes[place(i)]);
        let number = u64::from_le_bytes(low);
        if !signed {
            return number as f64;
        }
        let unused = 64 - 8 * count as u32;
        if unused == 64 {
            return 0.0;
        }
        ((number << unused) as i64 >> unused) as f64
    }
}

fn invalid_option<T>(args: &Args, option: u8) -> Result<T> {
    args.bad(
        1,
        &format!("invalid format option '{}'", char::from(option)),
    )
}

/// pack(format, value, ...): returns the values packed into a string.
fn pack(lua: &Lua, args: Args) -> Result<MultiValue> {
    let text = args.string(lua, 1)?;
    let text = text.as_bytes();
    let mut format = Format::new(&text);
    let mut out = Vec::new();
    let mut at = 1;
    while let Some(item) = format.next(out.len())? {
        if item.padding + item.size > PACKED_MAX - out.len() {
            return raise("format result too large");
        }
        out.resize(out.len() + item.padding, 0);
        match item.option {
            b'x' => out.push(0),
            b'>' | b'<' | b'!' | b' ' => format.control(item.option)?,
            option if is_value(option) => {
                at += 1;
                pack_value(lua, &mut out, &format, item, &args, at)?;
            }
            option => return invalid_option(&args, option),
        }
    }
    Ok(one(Value::String(lua.create_string(&out)?)))
}

/// Whether an option of the format stands for a value.
fn is_value(option: u8) -> bool {
    b"bBhHlLTiIfdsc".contains(&option)
}

fn pack_value(
    lua: &Lua,
    out: &mut Vec<u8>,
    format: &Format,
    item: Item,
    args: &Args,
    at: usize,
) -> Result<()> {
    match item.option {
        b's' | b'c' => {
            let text = padded(args, at, "string", |at| args.string(lua, at))?;
            let text = text.as_bytes();
            let size = if item.size == 0 {
                text.len()
            } else {
                item.size
            };
            if text.len() < size {
                return args.bad(at + 1, "string too short");
            }
            out.extend_from_slice(&text[..size]);
            if item.option == b's' {
                out.push(0);
            }
        }
        option => {
            let number = padded(args, at, "number", |at| args.number(at))?;
            let bits = match option {
                b'f' => u64::from((number as f32).to_bits()),
                b'd' => number.to_bits(),
                _ => to_bits(number),
            };
            format.put_integer(out, bits, item.size);
        }
    }
    Ok(())
}

/// Reads an argument of `pack`; the error about a missing argument says nil, as in Redis.
fn padded<T>(
    args: &Args,
    at: usize,
    wanted: &str,
    read: impl FnOnce(usize) -> Result<T>,
) -> Result<T> {
    if at > args.len() {
        return args.bad(at, &format!("{wanted} expected, got nil"));
    }
    read(at)
}

/// Converts a double to an integer: a negative double becomes a signed integer, any other an
/// unsigned one. A double out of range is converted as the processor does.
fn to_bits(number: f64) -> u64 {
    const END: f64 = 18_446_744_073_709_551_616.0;
    if number >= END {
        0
    } else if number >= 0.0 {
        number as u64
    } else {
        cast(number) as u64
    }
}

/// unpack(format, text[, position]): returns the unpacked values and the position behind them.
fn unpack(lua: &Lua, args: Args) -> Result<MultiValue> {
    let format = args.string(lua, 1)?;
    let text = args.string(lua, 2)?;
    let start = args.integer_or(3, 1)?;
    if start == 0 {
        return args.bad(3, "offset must be 1 or greater");
    }
    let (format, text) = (format.as_bytes(), text.as_bytes());
    let mut format = Format::new(&format);
    // As in C, a negative position wraps to a position far behind the end of the text.
    let mut pos = start.wrapping_sub(1) as usize;
    let mut values: Vec<Value> = Vec::new();
    while let Some(item) = format.next(pos)? {
        pos = pos.saturating_add(item.padding);
        if item.size > text.len() || pos > text.len() - item.size {
            return args.bad(2, "data string too short");
        }
        if values.len() == VALUES_MAX {
            return raise("stack overflow (too many results)");
        }
        let bytes = &text[pos..];
        match item.option {
            b'x' => pos += item.size,
            b'>' | b'<' | b'!' | b' ' => format.control(item.option)?,
            b's' => {
                let Some(len) = bytes.iter().position(|&b| b == 0) else {
                    return raise("unfinished string in data");
                };
                values.push(Value::String(lua.create_string(&bytes[..len])?));
                pos += len + 1;
            }
            b'c' => {
                let size = match item.size {
                    0 => previous_size(&mut values)?,
                    size => size,
                };
                let Some(bytes) = bytes.get(..size) else {
                    return args.bad(2, "data string too short");
                };
                values.push(Value::String(lua.create_string(bytes)?));
                pos += size;
            }
            option if is_value(option) => {
                let number = number_in(&format, option, &bytes[..item.size]);
                values.push(Value::Number(number));
                pos += item.size;
            }
            option => return invalid_option(&args, option),
        }
    }
    values.push(Value::Number((pos as i64).wrapping_add(1) as f64));
    Ok(MultiValue::from_vec(values))
}

fn number_in(format: &Format, option: u8, bytes: &[u8]) -> f64 {
    let bits = |bytes: &[u8]| {
        let mut low = [0; 8];
        low[..bytes.len()].copy_from_slice(bytes);
        if format.big_endian {
            low[..bytes.len()].reverse();
        }
        u64::from_le_bytes(low)
    };
    match option {
        b'f' => f64::from(f32::from_bits(bits(bytes) as u32)),
        b'd' => f64::from_bits(bits(bytes)),
        _ => format.integer(bytes, option.is_ascii_lowercase()),
    }
}

/// The size for the format option `c0`: the value unpacked before, which is then not returned.
fn previous_size(values: &mut Vec<Value>) -> Result<usize> {
    let size = values.last().and_then(to_number);
    let Some(size) = size else {
        return raise("format 'c0' needs a previous size");
    };
    values.pop();
    // A negative size counts as a size that is too large.
    Ok(if size < 0.0 {
        usize::MAX
    } else {
        size as usize
    })
}

/// size(format): returns the number of bytes that `pack` writes for a format.
fn size(lua: &Lua, args: Args) -> Result<MultiValue> {
    let text = args.string(lua, 1)?;
    let text = text.as_bytes();
    let mut format = Format::new(&text);
    let mut total = 0usize;
    while let Some(item) = format.next(total)? {
        if item.option == b's' {
            return args.bad(1, "option 's' has no fixed size");
        }
        if item.option == b'c' && item.size == 0 {
            return args.bad(1, "option 'c0' has no fixed size");
        }
        if !item.option.is_ascii_alphanumeric() && !b"><! ".contains(&item.option) {
            return invalid_option(&args, item.option);
        }
        format.control(item.option)?;
        total = total.saturating_add(item.padding + item.size);
    }
    Ok(one(Value::Number(total as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lua() -> Lua {
        let lua = Lua::new();
        let table = register(&lua).expect("the library");
        lua.globals().set("struct", table).expect("set");
        lua.load(
            "function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end
             function message(f, ...) local ok, e = pcall(f, ...) assert(not ok) return e end
             function join(...) local t = {...} for i = 1, #t do t[i] = tostring(t[i]) end return table.concat(t, ' ') end",
        )
        .exec()
        .expect("helpers");
        lua
    }

    fn check(call: &str, wanted: &str) {
        let text: String = lua()
            .load(format!("return {call}"))
            .eval()
            .unwrap_or_else(|e| panic!("{call}: {e}"));
        assert_eq!(text, wanted, "{call}");
    }

    #[test]
    fn values_are_packed_as_the_library_packs_them() {
        for (arguments, wanted) in [
            ("'b', 1", "01"),
            ("'h', -2", "feff"),
            ("'>h', 258", "0102"),
            ("'i', -1", "ffffffff"),
            ("'L', 1", "0100000000000000"),
            ("'f', 1.5", "0000c03f"),
            ("'d', 1.5", "000000000000f83f"),
            ("'s', 'abc'", "61626300"),
            ("'>i3', -2", "fffffe"),
            ("'i9', -1", "ffffffffffffffff00"),
            ("'c3', 'abcdef'", "616263"),
            ("'c0', 'abcdef'", "616263646566"),
            ("'i0', 1", ""),
            ("'!4bi3', 1, 2", "010000020000"),
            ("'!bd', 1, 0", "01000000000000000000000000000000"),
            ("'<!4>bI2', 1, 2", "01000002"),
            ("'b', 300", "2c"),
            ("'I8', 2^63", "0000000000000080"),
            ("'I8', 2^64", "0000000000000000"),
            ("'i8', 0/0", "0000000000000080"),
        ] {
            check(&format!("hex(struct.pack({arguments}))"), wanted);
        }
    }

    #[test]
    fn what_was_packed_is_read_back() {
        for (arguments, wanted) in [
            ("'b', '\\255'", "-1 2"),
            ("'B', '\\255'", "255 2"),
            ("'bb', '\\1\\2'", "1 2 3"),
            ("'s', 'abc\\0def'", "abc 5"),
            ("'bc0', '\\3abcdef'", "abc 5"),
            ("'bc0bc0', '\\2ab\\1c'", "ab c 6"),
            ("'>i16', ('\\0'):rep(15) .. '\\7'", "7 17"),
            ("'<i16', ('\\255'):rep(16)", "-1 17"),
            ("'>I3', '\\1\\2\\3'", "66051 4"),
            ("'bxb', '\\1\\2\\3'", "1 3 4"),
            ("'b', '\\1\\2\\3', 2", "2 3"),
            ("'!4bi', '\\1\\0\\0\\0\\2\\0\\0\\0'", "1 2 9"),
            ("'', ''", "1"),
            ("'', '', -5", "-5"),
        ] {
            check(&format!("join(struct.unpack({arguments}))"), wanted);
        }
    }

    #[test]
    fn errors_are_those_of_the_library() {
        for (call, wanted) in [
            (
                "pack, 'c5', 'abc'",
                "bad argument #3 to '?' (string too short)",
            ),
            (
                "pack, 'z', 1",
                "bad argument #1 to '?' (invalid format option 'z')",
            ),
            (
                "pack, 'i33', 1",
                "integral size 33 is larger than limit of 32",
            ),
            ("pack, '!3i', 1", "alignment 3 is not a power of 2"),
            (
                "unpack, '!3i', '', 2",
                "bad argument #2 to '?' (data string too short)",
            ),
            (
                "pack, 'i'",
                "bad argument #2 to '?' (number expected, got nil)",
            ),
            (
                "size, 's'",
                "bad argument #1 to '?' (option 's' has no fixed size)",
            ),
            (
                "size, 'c0'",
                "bad argument #1 to '?' (option 'c0' has no fixed size)",
            ),
            (
                "unpack, 'i', '\\1'",
                "bad argument #2 to '?' (data string too short)",
            ),
            ("unpack, 's', 'abc'", "unfinished string in data"),
            ("unpack, 'c0', 'abc'", "format 'c0' needs a previous size"),
            (
                "unpack, 'b', 'a', 0",
                "bad argument #3 to '?' (offset must be 1 or greater)",
            ),
        ] {
            check(&format!("message(struct.{call})"), wanted);
        }
    }

    /// Attacks on sizes: sizes that overflow are refused, and nothing is allocated for them.
    #[test]
    fn sizes_are_bounded() {
        let short = "bad argument #2 to '?' (data string too short)";
        for (call, wanted) in [
            ("size, 'c2147483648'", "integral size overflow"),
            ("pack, 'i99999999999', 1", "integral size overflow"),
            ("unpack, 'c2147483647', 'a'", short),
            ("unpack, 'ic0', '\\255\\255\\255\\255abc'", short),
            ("unpack, 'b', '\\1', -1", short),
            ("unpack, '!1073741824bi', '\\1'", short),
            (
                "unpack, ('b'):rep(9000), ('\\1'):rep(9000)",
                "stack overflow (too many results)",
            ),
        ] {
            check(&format!("message(struct.{call})"), wanted);
        }
        check(
            "tostring(struct.size('c2147483647c2147483647'))",
            "4294967294",
        );
    }
}
