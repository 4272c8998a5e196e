//! Converts numbers to and from text, by Redis's rules for texts that are numbers.
//!
//! A string is stored as an integer only if printing that integer gives the same string back. So
//! the integer parser is strict: `007`, `+7`, `-0` and ` 7` are strings. Scores are laxer:
//! everything that C's `strtod` accepts (`inf`, `0x1p3`, `.5`), except leading space, trailing
//! bytes, NaN, and values outside of a double's range.
//!
//! A double is printed as an integer, as plain decimals or with an exponent. Let `d` be its
//! decimal digits (module `grisu`) read as one integer, so that its value is `d * 10^k`:
//!
//! ```text
//!   integer up to 2^62 in size      17179869184
//!   k >= 0, short tail of zeros     12345678901234567 * 10^3    -> 12345678901234567000
//!   k < 0, few decimals             15 * 10^-1 -> 1.5           1 * 10^-6 -> 0.000001
//!   anything else                   15 * 10^20 -> 1.5e+21       1 * 10^-7 -> 1e-7
//! ```
//!
//! **Invariant:** `parse_i64(IntBuf::format(n)) == Some(n)`, and a text that parses prints as
//! itself (tests `integers_round_trip`, `accepted_integers_are_canonical`).
//! **Invariant:** `parse_f64(DoubleBuf::format(d)) == Some(d)` for every `d` but NaN (test
//! `doubles_round_trip`).

use super::grisu;

/// The maximum length of the text of a long double: that of Redis's buffer. Longer texts are
/// refused. The length of the text of a double is not limited.
pub const MAX_FLOAT_CHARS: usize = 5 * 1024 - 1;

/// Parses a strict decimal integer: only what `IntBuf` would print.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() > 19 {
        return None;
    }
    let magnitude = parse_u64(digits)?;
    if !negative {
        return i64::try_from(magnitude).ok();
    }
    match magnitude {
        0 => None,
        _ => 0i64.checked_sub_unsigned(magnitude),
    }
}

/// Parses a strict decimal integer without a sign, up to 2^64 - 1.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [digit @ b'0'..=b'9'] => return Some(u64::from(digit - b'0')),
        [b'1'..=b'9', ..] if text.len() <= 20 => {}
        _ => return None,
    }
    // 19 digits always fit 64 bits; only the twentieth can overflow.
    let (head, tail) = text.split_at(text.len().min(19));
    let mut value = 0u64;
    let (eights, rest) = head.as_chunks::<8>();
    for eight in eights {
        value = value * 100_000_000 + eight_digits(u64::from_le_bytes(*eight))?;
    }
    for &byte in rest {
        value = value * 10 + digit(byte)?;
    }
    match tail {
        [] => Some(value),
        [last, ..] => value.checked_mul(10)?.checked_add(digit(*last)?),
    }
}

#[inline]
fn digit(byte: u8) -> Option<u64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

/// Parses eight ASCII digits, the first one in the lowest byte. Neighbours are joined into pairs,
/// pairs into fours, fours into eight, each step by one multiplication of the whole word.
#[inline]
fn eight_digits(word: u64) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH_NIBBLES: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let digits = word ^ ZEROS;
    // A byte that is not in 0..=9 has a high nibble, or gets one when 6 is added.
    if (digits | digits.wrapping_add(0x0606_0606_0606_0606)) & HIGH_NIBBLES != 0 {
        return None;
    }
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff)
}

/// Parses an unsigned integer as C's `strtoull` does (spaces, a sign, leading zeros); the whole
/// text must be used. Stream IDs and cursors are parsed this way: `XADD s 007-1` adds `7-1`. The
/// text ends at a NUL byte. A negative number in the usual form (`-1`) is refused; other forms
/// (`-0`, `-01`) have the value that C gives them.
pub fn parse_u64_lenient(text: &[u8]) -> Option<u64> {
    let text = match memchr::memchr(0, text) {
        Some(end) => &text[..end],
        None => text,
    };
    let spaces = text.iter().take_while(|byte| is_c_space(**byte)).count();
    let digits = &text[spaces..];
    let minus = digits.first() == Some(&b'-');
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let digits = digits
        .strip_prefix(b"-")
        .filter(|_| minus)
        .unwrap_or(digits);
    if digits.is_empty() || parse_i64(text).is_some_and(|number| number < 0) {
        return None;
    }
    let magnitude = digits.iter().try_fold(0u64, |value, &byte| {
        value.checked_mul(10)?.checked_add(digit(byte)?)
    })?;
    Some(if minus {
        magnitude.wrapping_neg()
    } else {
        magnitude
    })
}

/// C's `isspace` in the C locale; unlike `u8::is_ascii_whitespace` it accepts the vertical tab.
pub const fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Parses a double as Redis parses scores and increments: the whole text in any of `strtod`'s
/// forms, without leading space. NaN, and texts whose value is too large for a double, or too small
/// and not zero, are refused.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    if let Some(integer) = parse_small_integer(text) {
        return Some(integer);
    }
    if let Some(hex) = HexFloat::parse(text) {
        return hex.to_f64();
    }
    // Rust reads decimal floats and names of infinity as C does; only NaN must be refused.
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let out_of_range = if value.is_infinite() {
        text.iter().any(u8::is_ascii_digit)
    } else {
        value == 0.0 && has_nonzero_digit(text)
    };
    (!value.is_nan() && !out_of_range).then_some(value)
}

/// Parses a double as C's `strtod` does, which Redis uses for the bounds of a range of scores.
/// Leading space is allowed, an empty text is 0, a NUL ends the text, and a value outside of a
/// double's range becomes infinite or zero. NaN is refused.
pub fn parse_f64_lenient(text: &[u8]) -> Option<f64> {
    if let Some(integer) = parse_small_integer(text) {
        return Some(integer);
    }
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let spaces = text.iter().take_while(|byte| is_c_space(**byte)).count();
    let text = &text[spaces..];
    if let Some(hex) = HexFloat::parse(text) {
        return Some(hex.to_f64_saturating());
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Parses an integer of up to 15 digits, which is an exact double. Most scores of sorted sets are
/// integers of up to 15 digits.
#[inline]
fn parse_small_integer(text: &[u8]) -> Option<f64> {
    if text.len() > 15 {
        return None;
    }
    parse_i64(text).map(|integer| integer as f64)
}

/// Whether any digit before the exponent is not zero.
fn has_nonzero_digit(text: &[u8]) -> bool {
    text.iter()
        .take_while(|byte| !matches!(byte, b'e' | b'E'))
        .any(|byte| matches!(byte, b'1'..=b'9'))
}

/// A C hexadecimal float, such as `-0x1.8p3`: its leading bits, and a flag for the bits below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HexFloat {
    pub negative: bool,
    /// At least the 121 leading bits of the number. The number is `bits * 2^exponent`.
    pub bits: u128,
    pub exponent: i64,
    /// Whether any bit below `bits` is not zero.
    pub sticky: bool,
}

impl HexFloat {
    /// Parses a hexadecimal float. `None` if the whole text is not a hexadecimal float; the text
    /// may still be a decimal float.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, rest) = split_sign(text);
        let [b'0', b'x' | b'X', rest @ ..] = rest else {
            return None;
        };
        let mut float = HexFloat {
            negative,
            bits: 0,
            exponent: 0,
            sticky: false,
        };
        let (mut any_digit, mut after_dot) = (false, false);
        let mut at = 0;
        while let Some(&byte) = rest.get(at) {
            match (byte as char).to_digit(16) {
                Some(digit) => {
                    any_digit = true;
                    float.push_digit(u128::from(digit), after_dot);
                }
                None if byte == b'.' && !after_dot => after_dot = true,
                None => break,
            }
            at += 1;
        }
        if !any_digit {
            return None;
        }
        let scale = match &rest[at..] {
            [] => 0,
            [b'p' | b'P', exponent @ ..] => parse_exponent(exponent)?,
            _ => return None,
        };
        float.exponent = float.exponent.saturating_add(scale);
        Some(float)
    }

    fn push_digit(&mut self, digit: u128, after_dot: bool) {
        if self.bits >> 124 == 0 {
            self.bits = self.bits << 4 | digit;
            self.exponent -= if after_dot { 4 } else { 0 };
        } else {
            self.sticky |= digit != 0;
            self.exponent += if after_dot { 0 } else { 4 };
        }
    }

    /// The value as a double; a value outside of a double's range becomes infinite or zero.
    fn to_f64_saturating(self) -> f64 {
        let nearest = if self.exponent > 0 {
            f64::INFINITY
        } else {
            0.0
        };
        let sign = if self.negative { -1.0 } else { 1.0 };
        self.to_f64().unwrap_or(sign * nearest)
    }

    /// The value rounded to the nearest double, ties to even; `None` if the value is out of a
    /// double's range.
    fn to_f64(self) -> Option<f64> {
        let sign = if self.negative { -1.0 } else { 1.0 };
        if self.bits == 0 {
            return Some(0.0 * sign);
        }
        // `top` is the exponent of the leading bit; the last bit that a double keeps lies 52 below,
        // or at -1074.
        let top = self
            .exponent
            .saturating_add(127 - i64::from(self.bits.leading_zeros()));
        if !(-1076..=1023).contains(&top) {
            return None;
        }
        let last = (top - 52).max(-1074);
        let drop = last - self.exponent;
        if drop <= 0 {
            return Some(sign * self.bits as f64 * exp2(self.exponent));
        }
        let (kept, half_or_more) = round_off(self.bits, drop as u32, self.sticky);
        let magnitude = (kept + u64::from(half_or_more)) as f64 * exp2(last);
        (magnitude != 0.0 && magnitude.is_finite()).then_some(sign * magnitude)
    }
}

/// Returns `bits >> drop`, and whether rounding to nearest, ties to even, adds one. `drop` is at
/// least 1, and large enough that the result fits 64 bits.
pub(super) fn round_off(bits: u128, drop: u32, sticky: bool) -> (u64, bool) {
    if drop > 128 {
        return (0, false);
    }
    let kept = bits.checked_shr(drop).unwrap_or(0);
    let round_bit = bits >> (drop - 1) & 1 == 1;
    let below = sticky || bits & ((1u128 << (drop - 1)) - 1) != 0;
    let up = round_bit && (below || kept & 1 == 1);
    (kept as u64, up)
}

/// The power 2^exponent, exact for every exponent that a double has, subnormals included.
fn exp2(exponent: i64) -> f64 {
    match exponent {
        ..-1074 => 0.0,
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

/// Splits an optional `+` or `-` off; returns whether the number is negative, and the rest of the
/// text.
pub(super) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Parses the digits after `e` or `p`, with an optional sign. The exponent is clamped far outside
/// of every float's range.
pub(super) fn parse_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let (negative, digits) = split_sign(text);
    if digits.is_empty() {
        return None;
    }
    let size = digits.iter().try_fold(0i64, |value, &byte| {
        Some((value * 10 + digit(byte)? as i64).min(FAR))
    })?;
    Some(if negative { -size } else { size })
}

/// Room on the stack for the text of one integer.
#[derive(Default)]
pub struct IntBuf(itoa::Buffer);

impl IntBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the integer and returns its text.
    #[inline]
    pub fn format<I: itoa::Integer>(&mut self, integer: I) -> &[u8] {
        self.0.format(integer).as_bytes()
    }
}

/// Appends the decimal text of an integer.
#[inline]
pub fn write_int<I: itoa::Integer>(out: &mut Vec<u8>, integer: I) {
    out.extend_from_slice(IntBuf::new().format(integer));
}

/// The double as an integer, if it is one and its size is at most 2^62: within that range the
/// conversion is exact both ways. Negative zero becomes 0.
#[inline]
pub fn double_to_i64(value: f64) -> Option<i64> {
    const LIMIT: f64 = (1i64 << 62) as f64;
    if !(-LIMIT..=LIMIT).contains(&value) {
        return None;
    }
    let integer = value as i64;
    (integer as f64 == value).then_some(integer)
}

/// Room on the stack for the text of one double. The longest text is `-2.2250738585072014e-308`: 24
/// bytes.
pub struct DoubleBuf {
    bytes: [u8; 32],
}

impl Default for DoubleBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl DoubleBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { bytes: [b'0'; 32] }
    }

    /// Writes a double in the form of replies, of sorted sets' listpacks and of the AOF; the header
    /// of this file shows the forms.
    pub fn format(&mut self, value: f64) -> &[u8] {
        if let Some(integer) = double_to_i64(value) {
            if integer == 0 && value.is_sign_negative() {
                return b"-0";
            }
            return self.copy(IntBuf::new().format(integer));
        }
        self.format_shortest(value)
    }

    /// Writes the digits that Grisu2 finds, for integers too: `1e+21`. DEBUG DIGEST needs scores in
    /// this form.
    pub fn format_shortest(&mut self, value: f64) -> &[u8] {
        if value == 0.0 {
            return if value.is_sign_negative() {
                b"-0"
            } else {
                b"0"
            };
        }
        if !value.is_finite() {
            return match value {
                f64::INFINITY => b"inf",
                f64::NEG_INFINITY => b"-inf",
                _ => b"nan",
            };
        }
        let decimal = grisu::digits(value.abs());
        self.layout(value < 0.0, &decimal)
    }

    fn copy(&mut self, text: &[u8]) -> &[u8] {
        self.bytes[..text.len()].copy_from_slice(text);
        &self.bytes[..text.len()]
    }

    fn layout(&mut self, negative: bool, decimal: &grisu::Decimal) -> &[u8] {
        let mut out = Cursor {
            bytes: &mut self.bytes,
            len: 0,
        };
        if negative {
            out.push(b"-");
        }
        let digits = decimal.digits();
        let k = decimal.exponent;
        // The exponent of the number in scientific notation.
        let exponent = k + digits.len() as i32 - 1;
        if k >= 0 && exponent < digits.len() as i32 + 7 {
            out.push(digits);
            out.push_zeros(k as usize);
        } else if k < 0 && (k > -7 || exponent.abs() < 4) {
            out.push_decimals(digits, k.unsigned_abs() as usize);
        } else {
            out.push_scientific(digits, exponent);
        }
        let len = out.len;
        &self.bytes[..len]
    }
}

/// Appends the text of a double.
#[inline]
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(DoubleBuf::new().format(value));
}

/// Appends a double with a fixed number of decimals, as GEODIST does. The double is scaled and
/// rounded to the nearest integer, ties to even, so `0.00005` with four decimals is `0.0000`.
pub fn write_fixed(out: &mut Vec<u8>, value: f64, decimals: u32) {
    let unit = 10u64.saturating_pow(decimals);
    let scaled = (value * unit as f64).round_ties_even();
    if decimals > 18 || scaled.abs() >= i64::MAX as f64 || !scaled.is_finite() {
        return out.extend_from_slice(format!("{value:.*}", decimals as usize).as_bytes());
    }
    if scaled < 0.0 {
        out.push(b'-');
    }
    let scaled = scaled.abs() as u64;
    write_int(out, scaled / unit);
    if decimals > 0 {
        out.push(b'.');
        write_padded(out, scaled % unit, decimals as usize);
    }
}

/// Appends an integer with zeros on its left up to `width`.
pub(super) fn write_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = IntBuf::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(
        b'0',
        width.saturating_sub(digits.len()),
    ));
    out.extend_from_slice(digits);
}

/// Appends a double as C's `%.{precision}g` does: the form of numbers in Lua (`%.14g` in cjson,
/// `%.17g` as an argument of `redis.call`).
pub fn write_g(out: &mut Vec<u8>, value: f64, precision: usize) {
    if !value.is_finite() {
        let name = if value.is_nan() { "nan" } else { "inf" };
        let sign = if value.is_sign_negative() { "-" } else { "" };
        out.extend_from_slice(sign.as_bytes());
        return out.extend_from_slice(name.as_bytes());
    }
    let precision = precision.clamp(1, 60);
    let text = format!("{:.*e}", precision - 1, value.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if exponent < -4 || exponent >= precision as i32 {
        out.extend_from_slice(without_trailing_zeros(digits).as_bytes());
        let sign = if exponent < 0 { '-' } else { '+' };
        let scale = format!("e{sign}{:02}", exponent.unsigned_abs());
        return out.extend_from_slice(scale.as_bytes());
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    let fixed = format!("{:.*}", decimals, value.abs());
    out.extend_from_slice(without_trailing_zeros(&fixed).as_bytes());
}

fn without_trailing_zeros(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

/// A write position in a `DoubleBuf`, which has room for the text of every double.
struct Cursor<'a> {
    bytes: &'a mut [u8; 32],
    len: usize,
}

impl Cursor<'_> {
    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    /// Appends the digits with the point before the last `decimals` of them.
    fn push_decimals(&mut self, digits: &[u8], decimals: usize) {
        match digits.len().checked_sub(decimals) {
            None | Some(0) => {
                self.push(b"0.");
                self.push_zeros(decimals - digits.len());
                self.push(digits);
            }
            Some(whole) => {
                self.push(&digits[..whole]);
                self.push(b".");
                self.push(&digits[whole..]);
            }
        }
    }

    fn push_scientific(&mut self, digits: &[u8], exponent: i32) {
        self.push(&digits[..1]);
        if digits.len() > 1 {
            self.push(b".");
            self.push(&digits[1..]);
        }
        self.push(if exponent < 0 { b"e-" } else { b"e+" });
        self.push(IntBuf::new().format(exponent.unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        String::from_utf8(DoubleBuf::new().format(value).to_vec()).unwrap()
    }

    fn g(value: f64, precision: usize) -> String {
        let mut out = Vec::new();
        write_g(&mut out, value, precision);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strict_integers() {
        for (text, value) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("-1", Some(-1)),
            ("12345678", Some(12_345_678)),
            ("1234567890123456789", Some(1_234_567_890_123_456_789)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("10000000000000000000000", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("-0", None),
            ("-01", None),
            ("00", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("1234567a", None),
            ("12345:78", None),
            ("1\0", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn unsigned_integers() {
        let parse = |text: &str| parse_u64(text.as_bytes());
        assert_eq!(parse("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse("18446744073709551616"), None);
        assert_eq!(parse("99999999999999999999"), None);
        assert_eq!(parse("1844674407370955161a"), None);
        assert_eq!(parse("-1"), None);
        assert_eq!(parse("007"), None);
    }

    #[test]
    fn stream_id_integers_are_lenient() {
        let parse = |text: &str| parse_u64_lenient(text.as_bytes());
        for text in [
            "007",
            "+7",
            " 7",
            "\t\x0b+7",
            "7\0-1",
            "-18446744073709551609",
        ] {
            assert_eq!(parse(text), Some(7), "{text:?}");
        }
        assert_eq!(parse("-0"), Some(0));
        assert_eq!(parse("-01"), Some(u64::MAX));
        for text in [
            "",
            "-7",
            "-",
            "+-7",
            "7 ",
            "0x7",
            "+ 7",
            "18446744073709551616",
            "+",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn floats_as_strtod_reads_them() {
        for (text, value) in [
            ("inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
            ("+1", 1.0),
            ("00001", 1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1E5", 1e5),
            ("4.9e-324", 5e-324),
            ("3e-324", 5e-324),
            ("1e-310", 1e-310),
            ("0e99999999999999999999", 0.0),
            ("0x10", 16.0),
            ("0X1P3", 8.0),
            ("0x1.8p1", 3.0),
            ("0x.8", 0.5),
            ("-0x1", -1.0),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x1.fffffffffffff7p1023", f64::MAX),
            ("0x0p99999999999", 0.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000000001p0", 1.0 + f64::EPSILON),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text:?}");
        }
    }

    #[test]
    fn floats_that_are_refused() {
        for text in [
            "",
            ".",
            "-",
            "+",
            " 1",
            "1 ",
            "1a",
            "1\0",
            "\t1",
            "1\n",
            "1e",
            "1e+",
            "nan",
            "-NaN",
            "nan(123)",
            "infi",
            "infinit",
            "1_0",
            "1,0",
            "1e1.5",
            "0b11",
            "++1",
            "-+1",
            "0x",
            "0xg",
            "0x1p",
            "0x1p+",
            "0x.p1",
            "1e309",
            "-1e400",
            "1e-400",
            "2e-324",
            "0x1p-1075",
            "0x1p99999",
            "0x1p-99999",
            "0x1.fffffffffffff8p1023",
            "1e99999999999999999999",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
    }

    /// Only the text of a long double has a maximum length; scores of `ZADD` may have any length.
    #[test]
    fn a_double_may_have_any_number_of_digits() {
        for zeros in [MAX_FLOAT_CHARS, 100_000] {
            let zeros = "0".repeat(zeros);
            assert_eq!(parse_f64(zeros.as_bytes()), Some(0.0));
            assert_eq!(
                parse_f64(format!("{zeros}1.5{zeros}").as_bytes()),
                Some(1.5)
            );
            assert_eq!(parse_f64(format!("0x{zeros}1{zeros}p-0").as_bytes()), None);
            assert_eq!(parse_f64(format!("0x{zeros}a.8").as_bytes()), Some(10.5));
        }
    }

    #[test]
    fn doubles_as_replies_show_them() {
        for (value, shown) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.234e-5, "1.234e-5"),
            (0.001234567, "0.001234567"),
            (0.0001234567, "1.234567e-4"),
            (5e-324, "5e-324"),
            (1e18, "1000000000000000000"),
            (1e19, "1e+19"),
            (1.5e20, "1.5e+20"),
            (1.2345678901234567e19, "12345678901234567000"),
            (1.2345678901234568e20, "123456789012345680000"),
            (4611686018427387904.0, "4611686018427387904"),
            (-4611686018427388928.0, "-4611686018427389000"),
            (9223372036854774784.0, "9223372036854775000"),
            (1234567890.1234567, "1.2345678901234567e+9"),
            (-12345.678901234567, "-1.2345678901234567e+4"),
            (4503599627370495.5, "4503599627370495.5"),
            (123.00000001, "123.00000001"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-f64::MIN_POSITIVE, "-2.2250738585072014e-308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ] {
            assert_eq!(text(value), shown);
        }
    }

    #[test]
    fn g_is_printf() {
        for (value, precision, shown) in [
            (0.0, 17, "0"),
            (0.1, 17, "0.10000000000000001"),
            (0.1, 14, "0.1"),
            (1e17, 17, "1e+17"),
            (1e16, 17, "10000000000000000"),
            (1e-5, 17, "1.0000000000000001e-05"),
            (-1.5e300, 14, "-1.5e+300"),
            (0.0001, 14, "0.0001"),
            (99999.5, 5, "1e+05"),
            (f64::NEG_INFINITY, 14, "-inf"),
            (-0.0, 14, "-0"),
        ] {
            assert_eq!(g(value, precision), shown);
        }
    }

    #[test]
    fn fixed_decimals() {
        for (value, decimals, shown) in [
            (0.0, 4, "0.0000"),
            (0.00005, 4, "0.0000"),
            (0.00025, 4, "0.0002"),
            (0.00035, 4, "0.0004"),
            (166274.15156960033, 4, "166274.1516"),
            (-1.5, 0, "-2"),
            (-0.00001, 4, "0.0000"),
            (1e300, 1, &format!("{:.1}", 1e300)),
        ] {
            let mut out = Vec::new();
            write_fixed(&mut out, value, decimals);
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(parse_i64(IntBuf::new().format(value)), Some(value));
            let value = value as u64;
            prop_assert_eq!(parse_u64(IntBuf::new().format(value)), Some(value));
        }

        #[test]
        fn accepted_integers_are_canonical(text in "-?[0-9]{0,21}[0-9a:/ +-]?") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), expected);
            let expected = text.parse::<u64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_u64(text.as_bytes()), expected);
        }

        #[test]
        fn doubles_round_trip(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let read = parse_f64(DoubleBuf::new().format(value));
            prop_assert_eq!(read.map(f64::to_bits), Some(bits));
        }

        #[test]
        fn hex_floats_round_trip(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mantissa = bits & ((1 << 52) - 1);
            let exponent = (bits >> 52 & 0x7ff) as i64;
            let (lead, exponent) = if exponent == 0 { (0, -1022) } else { (1, exponent - 1023) };
            let sign = if value.is_sign_negative() { "-" } else { "" };
            let text = format!("{sign}0x{lead}.{mantissa:013x}p{exponent}");
            prop_assert_eq!(parse_f64(text.as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn double_to_i64_is_exact(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            if let Some(back) = double_to_i64(value as f64) {
                prop_assert_eq!(back as f64, value as f64);
            }
            if value.unsigned_abs() <= 1 << 53 {
                prop_assert_eq!(double_to_i64(value as f64), Some(value));
            }
        }

        #[test]
        fn any_bytes_are_safe(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_i64(&text), parse_f64(&text), parse_u64_lenient(&text), HexFloat::parse(&text));
        }
    }
}
