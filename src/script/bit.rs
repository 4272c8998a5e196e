//! `bit` for scripts: operations on 32-bit integers. LuaJIT has this library built in, and its
//! functions are those that Redis's Lua gets from Lua BitOp; only `tohex` differs, for numbers of
//! digits that are out of range.
//!
//! Redis's `bit.tohex` once wrote before its buffer when called with -2147483648 digits
//! (CVE-2024-31449). This server first limits the number of digits to the valid range
//! (`tests::digits_are_bounded`).

use mlua::{Lua, MultiValue, Result, StdLib, Table, Value};

use crate::script::native::{self, Args, one};

/// The functions of LuaJIT's built-in `bit` that scripts get unchanged.
const BUILT_IN: [&str; 11] = [
    "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit",
];

/// Creates the table `bit`.
pub fn register(lua: &Lua) -> Result<Table> {
    lua.load_std_libs(StdLib::BIT)?;
    let built_in: Table = lua.globals().raw_get("bit")?;
    let table = lua.create_table()?;
    for name in BUILT_IN {
        let function: Value = built_in.raw_get(name)?;
        table.raw_set(name, function)?;
    }
    table.raw_set("tohex", native::function(lua, tohex)?)?;
    Ok(table)
}

/// The low 32 bits of a number rounded to an integer, ties to even: `tobit`.
fn to_bits(number: f64) -> u32 {
    // Adding 2^52 + 2^51 moves the integer part to the low end of the mantissa.
    (number + 6_755_399_441_055_744.0).to_bits() as u32
}

/// tohex(x[, digits]): the lowest digits, in capitals if the number of digits is negative.
fn tohex(lua: &Lua, args: Args) -> Result<MultiValue> {
    let bits = to_bits(args.number(1)?);
    let digits = match args.len() {
        0 | 1 => 8,
        _ => to_bits(args.number(2)?) as i32,
    };
    let wanted = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 {
        format!("{bits:08X}")
    } else {
        format!("{bits:08x}")
    };
    Ok(one(Value::String(lua.create_string(&text[8 - wanted..])?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::LuaOptions;

    fn text(expression: &str) -> String {
        let lua = Lua::new_with(StdLib::STRING, LuaOptions::default()).expect("Lua");
        let table = register(&lua).expect("the library");
        lua.globals().set("bit", table).expect("set");
        let value: String = lua
            .load(format!("return tostring({expression})"))
            .eval()
            .unwrap_or_else(|e| panic!("{expression}: {e}"));
        value
    }

    #[test]
    fn operations_are_those_of_bitop() {
        for (expression, wanted) in [
            ("bit.tobit(0xffffffff)", "-1"),
            ("bit.tobit(1e10)", "1410065408"),
            ("bit.tobit(1.5)", "2"),
            ("bit.tobit(2.5)", "2"),
            ("bit.tobit(1e300)", "-2013235812"),
            ("bit.tobit('0x10')", "16"),
            ("bit.bnot(0)", "-1"),
            ("bit.band(1)", "1"),
            ("bit.bor(1, 2, 4, 8, 16, 32, 64, 128)", "255"),
            ("bit.bxor(1, 2)", "3"),
            ("bit.lshift(1, 33)", "2"),
            ("bit.rshift(-1, 28)", "15"),
            ("bit.arshift(-256, 4)", "-16"),
            ("bit.rol(0x12345678, 12)", "1164411171"),
            ("bit.ror(0x12345678, 12)", "1736516421"),
            ("bit.bswap(0x12345678)", "2018915346"),
            (
                "select(2, pcall(function() local x = bit.band() end)):match('bad.*')",
                "bad argument #1 to 'band' (number expected, got no value)",
            ),
        ] {
            assert_eq!(text(expression), wanted, "{expression}");
        }
    }

    #[test]
    fn digits_are_bounded() {
        for (arguments, wanted) in [
            ("1", "00000001"),
            ("255, 2", "ff"),
            ("255, -2", "FF"),
            ("0x87654321, 4", "4321"),
            ("1, 0", ""),
            ("1, 9", "00000001"),
            ("65535, -2147483648", "0000FFFF"),
            ("65535, 2147483647", "0000ffff"),
            ("65535, 2147483648", "0000FFFF"),
            ("65535, 4294967296", ""),
            ("-1, 3.5", "ffff"),
        ] {
            assert_eq!(
                text(&format!("bit.tohex({arguments})")),
                wanted,
                "{arguments}"
            );
        }
        let wrong = "select(2, pcall(bit.tohex, 1, nil))";
        assert_eq!(
            text(wrong),
            "bad argument #2 to '?' (number expected, got nil)"
        );
    }
}
