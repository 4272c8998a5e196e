//! The x87 80-bit float, computed with integers. Redis computes INCRBYFLOAT in C's `long double`,
//! and its replies show every bit. `INCRBYFLOAT k 0.1` on `3.0` must return `3.1`; with a double
//! that would be a coincidence.
//!
//! ```text
//!   value = sign * mantissa * 2^exponent          mantissa: 64 bits, the leading one explicit
//!
//!   largest    (2^64 - 1) * 2^16320               about 1.19e4932
//!   subnormal  mantissa < 2^63, exponent -16445   down to 3.6e-4951
//! ```
//!
//! Reading a decimal text rounds its exact value to nearest, ties to even, whatever its length: up
//! to 19 digits with a small exponent in one 128-bit step, longer texts with a long division of
//! limbs. Printing is `%.17Lf` without trailing zeros: at most 4,951 bytes.
//!
//! **Invariant:** a finite value is zero, or has its top mantissa bit set, or has exponent
//! `MIN_EXPONENT` (debug assert in `round`).
//!
//! Multiplication and comparison are left out, since no command needs them. A big-number crate
//! would need more code than the loops over 64-bit limbs in this file.

use super::number::{
    HexFloat, MAX_FLOAT_CHARS, parse_exponent, round_off, split_sign, write_int, write_padded,
};

/// The exponent of the mantissa's last bit in subnormal numbers.
const MIN_EXPONENT: i32 = -16445;
/// The exponent of the mantissa's last bit in the largest numbers.
const MAX_EXPONENT: i32 = 16320;
/// The number of digits that INCRBYFLOAT prints after the point, before it drops trailing zeros.
const DECIMALS: usize = 17;
const TEN_POW_17: u128 = 10u128.pow(DECIMALS as u32);
/// The largest power of ten that fits a limb of 64 bits.
const TEN_POW_19: u64 = 10u64.pow(19);

/// An 80-bit extended float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    kind: ValueKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Finite { mantissa: u64, exponent: i32 },
    Infinite,
    NotANumber,
}

impl LongDouble {
    /// The number zero.
    pub const ZERO: LongDouble = LongDouble::finite(false, 0, MIN_EXPONENT);

    const fn finite(negative: bool, mantissa: u64, exponent: i32) -> Self {
        let kind = ValueKind::Finite { mantissa, exponent };
        LongDouble { negative, kind }
    }

    const fn infinite(negative: bool) -> Self {
        let kind = ValueKind::Infinite;
        LongDouble { negative, kind }
    }

    const NAN: LongDouble = LongDouble {
        negative: false,
        kind: ValueKind::NotANumber,
    };

    /// The nearest double. A value beyond a double's range becomes infinite; a value that is too
    /// small becomes the smallest normal double.
    pub fn to_f64(self) -> f64 {
        let magnitude = match self.kind {
            ValueKind::NotANumber => f64::NAN,
            ValueKind::Infinite => f64::INFINITY,
            ValueKind::Finite { mantissa: 0, .. } => 0.0,
            ValueKind::Finite { mantissa, exponent } => {
                let half = exponent / 2;
                let scaled = mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half);
                scaled.max(f64::MIN_POSITIVE)
            }
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// Reads a whole text by the rules of Redis's float arguments: any form of C's `strtold`, no
    /// leading space, no NaN, and nothing that overflows or that rounds to zero without being zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_FLOAT_CHARS {
            return None;
        }
        let (negative, rest) = split_sign(text);
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::infinite(negative));
        }
        let (value, is_zero) = match HexFloat::parse(text) {
            Some(hex) => (Self::from_hex(hex), hex.bits == 0),
            None => {
                let decimal = Decimal::parse(rest)?;
                (decimal.round(negative), decimal.is_zero())
            }
        };
        let in_range = match value.kind {
            ValueKind::Finite { mantissa, .. } => mantissa != 0 || is_zero,
            _ => false,
        };
        in_range.then_some(value)
    }

    fn from_hex(hex: HexFloat) -> Self {
        let exponent = hex.exponent.clamp(-100_000, 100_000) as i32;
        round(hex.negative, hex.bits, exponent, hex.sticky)
    }

    /// Whether the number is neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        matches!(self.kind, ValueKind::Finite { .. })
    }

    /// The mantissa of 64 bits, with the top bit set, that is nearest to 10^`power`, and its binary
    /// exponent.
    pub(super) fn power_of_ten(power: i32) -> (u64, i32) {
        let ten = Decimal {
            digits: b"1",
            count: 1,
            head: 1,
            exponent: i64::from(power),
        };
        let (exponent, mantissa) = ten.round(false).size();
        (mantissa, exponent)
    }

    /// The exponent and the mantissa. Such pairs are ordered as the absolute values are, since only
    /// the lowest exponent has mantissas without their top bit.
    fn size(self) -> (i32, u64) {
        match self.kind {
            ValueKind::Finite { mantissa, exponent } => (exponent, mantissa),
            _ => (i32::MAX, 0),
        }
    }

    /// Appends the human form, `%.17Lf` without trailing zeros: `3.1`, `10000000000000000`, `inf`.
    /// Negative zero becomes `0`.
    fn write_human(self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.negative && self.kind != ValueKind::NotANumber {
            out.push(b'-');
        }
        match self.kind {
            ValueKind::Finite { mantissa, exponent } => write_fixed(out, mantissa, exponent),
            ValueKind::Infinite => out.extend_from_slice(b"inf"),
            ValueKind::NotANumber => out.extend_from_slice(b"nan"),
        }
        if &out[start..] == b"-0" {
            out.remove(start);
        }
    }

    /// The text of [`LongDouble::write_human`] as a new vector.
    pub fn to_human(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        self.write_human(&mut out);
        out
    }
}

impl From<i64> for LongDouble {
    fn from(value: i64) -> Self {
        round(value < 0, u128::from(value.unsigned_abs()), 0, false)
    }
}

impl From<f64> for LongDouble {
    fn from(value: f64) -> Self {
        if value.is_nan() {
            return Self::NAN;
        }
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            return Self::infinite(negative);
        }
        let bits = value.to_bits();
        let fraction = u128::from(bits & ((1 << 52) - 1));
        match (bits >> 52 & 0x7ff) as i32 {
            0 => round(negative, fraction, -1074, false),
            biased => round(negative, fraction | 1 << 52, biased - 1075, false),
        }
    }
}

impl std::ops::Add for LongDouble {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        match (self.kind, other.kind) {
            (ValueKind::NotANumber, _) | (_, ValueKind::NotANumber) => Self::NAN,
            (ValueKind::Infinite, ValueKind::Infinite) if self.negative != other.negative => {
                Self::NAN
            }
            (ValueKind::Infinite, _) => self,
            (_, ValueKind::Infinite) => other,
            _ if self.size() < other.size() => add_smaller(other, self),
            _ => add_smaller(self, other),
        }
    }
}

/// The sum of two finite numbers, the larger one first. The larger mantissa is extended by 63 bits
/// at its low end. The bits of the smaller number below these matter only if one of them is not
/// zero, which one bit (sticky) records.
fn add_smaller(larger: LongDouble, smaller: LongDouble) -> LongDouble {
    let (exponent, mantissa) = larger.size();
    let (smaller_exponent, smaller_mantissa) = smaller.size();
    let base = u128::from(mantissa) << 63;
    let shift = exponent.abs_diff(smaller_exponent);
    let unshifted = u128::from(smaller_mantissa) << 63;
    let addend = unshifted.checked_shr(shift).unwrap_or(0);
    let sticky = addend.checked_shl(shift).unwrap_or(0) != unshifted;
    if larger.negative == smaller.negative {
        return round(larger.negative, base + addend, exponent - 63, sticky);
    }
    let difference = base - addend - u128::from(sticky);
    let negative = larger.negative && difference != 0;
    round(negative, difference, exponent - 63, sticky)
}

/// Rounds `bits * 2^exponent`, plus a fraction of the last bit if `sticky`, to the nearest float,
/// ties to even. With `sticky`, `bits` must hold more than 64 bits.
fn round(negative: bool, bits: u128, exponent: i32, sticky: bool) -> LongDouble {
    if bits == 0 {
        return LongDouble::finite(negative, 0, MIN_EXPONENT);
    }
    let top = 127 - bits.leading_zeros() as i32;
    let mut last = (exponent + top - 63).max(MIN_EXPONENT);
    let drop = last - exponent;
    let mantissa = if drop <= 0 {
        debug_assert!(!sticky, "too few bits to round");
        (bits << -drop) as u64
    } else {
        let (kept, up) = round_off(bits, drop as u32, sticky);
        match kept.checked_add(u64::from(up)) {
            Some(mantissa) => mantissa,
            None => {
                last += 1;
                1 << 63
            }
        }
    };
    debug_assert!(mantissa >> 63 == 1 || last == MIN_EXPONENT);
    match mantissa {
        0 => LongDouble::finite(negative, 0, MIN_EXPONENT),
        _ if last > MAX_EXPONENT => LongDouble::infinite(negative),
        _ => LongDouble::finite(negative, mantissa, last),
    }
}

/// An unsigned decimal text, parsed but not rounded yet: the digits as a whole number times
/// 10^exponent.
struct Decimal<'a> {
    /// The digits from the first nonzero digit on; they may contain a point.
    digits: &'a [u8],
    /// The number of digits in `digits`, without the point.
    count: usize,
    /// The first 19 digits of `digits`, as a number.
    head: u64,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let end = text
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.')
            .unwrap_or(text.len());
        let (number, scale) = text.split_at(end);
        let mut exponent = match scale {
            [] => 0,
            [b'e' | b'E', digits @ ..] => parse_exponent(digits)?,
            _ => return None,
        };
        let mut points = number.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        if let Some((point, _)) = points.next() {
            exponent -= (number.len() - point - 1) as i64;
        }
        if points.next().is_some() || !number.iter().any(u8::is_ascii_digit) {
            return None;
        }
        let zeros = number
            .iter()
            .take_while(|byte| matches!(byte, b'0' | b'.'))
            .count();
        let mut decimal = Decimal {
            digits: &number[zeros..],
            count: 0,
            head: 0,
            exponent,
        };
        decimal.count = decimal.values().count();
        decimal.head = decimal
            .values()
            .take(19)
            .fold(0, |head, digit| head * 10 + digit);
        Some(decimal)
    }

    fn values(&self) -> impl Iterator<Item = u64> + 'a {
        let digits = self.digits.iter().filter(|byte| **byte != b'.');
        digits.map(|byte| u64::from(byte - b'0'))
    }

    fn is_zero(&self) -> bool {
        self.head == 0
    }

    fn round(&self, negative: bool) -> LongDouble {
        let magnitude = self.exponent + self.count as i64;
        match magnitude {
            _ if self.is_zero() => round(negative, 0, 0, false),
            4934.. => LongDouble::infinite(negative),
            ..-4952 => round(negative, 0, 0, false),
            _ if self.count <= 19 && self.exponent.unsigned_abs() <= 27 => {
                self.round_short(negative)
            }
            _ => self.round_long(negative),
        }
    }

    /// Rounds a number of few digits: up to 19 digits fit 64 bits, and so does 5^27; 10^n is 5^n *
    /// 2^n.
    fn round_short(&self, negative: bool) -> LongDouble {
        let exponent = self.exponent as i32;
        let power = 5u64.pow(exponent.unsigned_abs());
        if exponent >= 0 {
            let product = u128::from(self.head) * u128::from(power);
            return round(negative, product, exponent, false);
        }
        // The dividend's top bit is bit 127 and the divisor has 63 bits, so the quotient has 65
        // bits or more.
        let shift = self.head.leading_zeros();
        let dividend = u128::from(self.head << shift) << 64;
        let (quotient, rest) = (dividend / u128::from(power), dividend % u128::from(power));
        let exponent = exponent - shift as i32 - 64;
        round(negative, quotient, exponent, rest != 0)
    }

    fn round_long(&self, negative: bool) -> LongDouble {
        let mut number = Limbs::default();
        for digit in self.values() {
            number.multiply_add(10, digit);
        }
        let exponent = self.exponent as i32;
        if exponent >= 0 {
            number.multiply_pow10(exponent.unsigned_abs());
            let (bits, exponent, sticky) = number.leading_bits();
            return round(negative, bits, exponent, sticky);
        }
        let mut divisor = Limbs(vec![1]);
        divisor.multiply_pow10(exponent.unsigned_abs());
        let (bits, exponent, sticky) = number.divide(divisor);
        round(negative, bits, exponent, sticky)
    }
}

/// A natural number in base 2^64: its digits (limbs), the least significant first, with no zero
/// limb on top.
///
/// Numbers have at most some 34,000 bits, since texts have at most `MAX_FLOAT_CHARS` and a float's
/// exponents are bounded.
#[derive(Default)]
struct Limbs(Vec<u64>);

impl Limbs {
    fn multiply_add(&mut self, factor: u64, addend: u64) {
        let mut carry = addend;
        for limb in &mut self.0 {
            let product = u128::from(*limb) * u128::from(factor) + u128::from(carry);
            *limb = product as u64;
            carry = (product >> 64) as u64;
        }
        if carry != 0 {
            self.0.push(carry);
        }
    }

    fn multiply_pow10(&mut self, exponent: u32) {
        for _ in 0..exponent / 19 {
            self.multiply_add(TEN_POW_19, 0);
        }
        self.multiply_add(10u64.pow(exponent % 19), 0);
    }

    /// Divides the number in place and returns the remainder.
    fn divide_small(&mut self, divisor: u64) -> u64 {
        let mut rest = 0;
        for limb in self.0.iter_mut().rev() {
            let dividend = u128::from(rest) << 64 | u128::from(*limb);
            *limb = (dividend / u128::from(divisor)) as u64;
            rest = (dividend % u128::from(divisor)) as u64;
        }
        self.trim();
        rest
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bit_length(&self) -> usize {
        match self.0.last() {
            Some(top) => self.0.len() * 64 - top.leading_zeros() as usize,
            None => 0,
        }
    }

    fn shift_left(&mut self, shift: usize) {
        let bits = shift % 64;
        if bits != 0 {
            self.multiply_add(1 << bits, 0);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, shift / 64));
    }

    /// The top 128 bits at most, their exponent, and whether any bit below them is not zero.
    fn leading_bits(&self) -> (u128, i32, bool) {
        let below = self.0.len().saturating_sub(2);
        let (low, top) = self.0.split_at(below);
        let bits = top
            .iter()
            .rev()
            .fold(0, |bits, limb| bits << 64 | u128::from(*limb));
        // If limbs are left out, `bits` has two limbs, so it has the 65 bits or more that `round`
        // needs.
        (bits, below as i32 * 64, low.iter().any(|limb| *limb != 0))
    }

    fn at_least(&self, other: &Limbs) -> bool {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length
            .then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
            .is_ge()
    }

    /// Computes `self -= other`; `other` must not be larger.
    fn subtract(&mut self, other: &Limbs) {
        let mut borrow = false;
        for (at, limb) in self.0.iter_mut().enumerate() {
            let other = other.0.get(at).copied().unwrap_or(0);
            let (partial, first) = limb.overflowing_sub(other);
            let (result, second) = partial.overflowing_sub(u64::from(borrow));
            *limb = result;
            borrow = first || second;
        }
        debug_assert!(!borrow);
        self.trim();
    }

    /// Divides two numbers: the quotient as 66 bits, its exponent, and whether a remainder is left.
    /// This is a long division in base two, with both numbers first shifted to the same length.
    fn divide(mut self, mut divisor: Limbs) -> (u128, i32, bool) {
        const BITS: i32 = 66;
        let shift = divisor.bit_length() as i32 - self.bit_length() as i32;
        match shift {
            0.. => self.shift_left(shift.unsigned_abs() as usize),
            _ => divisor.shift_left(shift.unsigned_abs() as usize),
        }
        let mut quotient = 0;
        for _ in 0..BITS {
            quotient <<= 1;
            if self.at_least(&divisor) {
                self.subtract(&divisor);
                quotient |= 1;
            }
            self.multiply_add(2, 0);
        }
        (quotient, 1 - BITS - shift, !self.0.is_empty())
    }

    /// Appends the number in decimal. The number is consumed digit by digit.
    fn write_decimal(mut self, out: &mut Vec<u8>) {
        let mut groups = Vec::with_capacity(self.0.len() * 65 / 64 + 1);
        while !self.0.is_empty() {
            groups.push(self.divide_small(TEN_POW_19));
        }
        let mut groups = groups.into_iter().rev();
        write_int(out, groups.next().unwrap_or(0));
        for group in groups {
            write_padded(out, group, 19);
        }
    }
}

/// Appends `mantissa * 2^exponent` with up to 17 decimals, rounded half to even, as `%.17Lf`
/// rounds.
fn write_fixed(out: &mut Vec<u8>, mantissa: u64, exponent: i32) {
    match exponent {
        64.. => {
            let mut number = Limbs(vec![mantissa]);
            number.shift_left(exponent as usize);
            number.write_decimal(out);
        }
        0..64 => write_int(out, u128::from(mantissa) << exponent),
        _ => write_fraction(out, mantissa, exponent.unsigned_abs()),
    }
}

/// Appends `mantissa / 2^shift`, where the shift is at least 1. A fraction below one times 10^17
/// fits 121 bits, so no bit is lost.
fn write_fraction(out: &mut Vec<u8>, mantissa: u64, shift: u32) {
    let mut whole = mantissa.checked_shr(shift).unwrap_or(0);
    let fraction = mantissa - whole.checked_shl(shift).unwrap_or(0);
    let (mut decimals, up) = round_off(u128::from(fraction) * TEN_POW_17, shift, false);
    decimals += u64::from(up);
    if u128::from(decimals) == TEN_POW_17 {
        decimals = 0;
        whole += 1;
    }
    write_int(out, whole);
    if decimals != 0 {
        out.push(b'.');
        write_padded(out, decimals, DECIMALS);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> LongDouble {
        LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text:?} was refused"))
    }

    fn negate(value: LongDouble) -> LongDouble {
        LongDouble {
            negative: !value.negative,
            ..value
        }
    }

    fn human(value: LongDouble) -> String {
        String::from_utf8(value.to_human()).unwrap()
    }

    #[test]
    fn reads_and_prints_as_a_real_server() {
        for (text, shown) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.1", "0.1"),
            ("+1", "1"),
            (".5", "0.5"),
            ("5.", "5"),
            ("3.0e3", "3000"),
            ("1e21", "1000000000000000000000"),
            (
                "123456789012345678901234567890",
                "123456789012345678899921813504",
            ),
            ("0.1234567890123456789", "0.12345678901234568"),
            ("1e-5", "0.00001"),
            ("1e-17", "0.00000000000000001"),
            ("5e-18", "0"),
            ("5.1e-18", "0.00000000000000001"),
            ("-1e-20", "0"),
            ("1e-4940", "0"),
            ("3.6e-4951", "0"),
            ("0e5000", "0"),
            ("0x1p3", "8"),
            ("0x1.8p-3", "0.1875"),
            ("0x1p-16445", "0"),
            ("0x1.8p-16446", "0"),
            ("inf", "inf"),
            ("-Infinity", "-inf"),
            (
                "1e100",
                "9999999999999999999669353532207342619498699019828496079271391541752018669482644324418977840117055488",
            ),
        ] {
            assert_eq!(human(read(text)), shown, "{text}");
        }
        let largest = human(read("0x1p16383"));
        assert_eq!(largest.len(), 4932);
        assert!(
            largest.starts_with("594865747678615882542879663314003565381722343548255118736337")
        );
        assert!(largest.ends_with("614045909106967144147839858684971576230223513645334982033408"));
    }

    #[test]
    fn refuses_what_a_real_server_refuses() {
        for text in [
            "",
            " 1",
            "1 ",
            "1\0",
            "\0",
            "1e",
            "1e+",
            ".",
            "-",
            "1.2.3",
            "nan",
            "-nan",
            "nan(1)",
            "infi",
            "1.2e4932",
            "1e5000",
            "1e-4951",
            "1e-5000",
            "0x1p16384",
            "0x1p-16446",
            "0x1p-17000",
            "0x",
            "1e99999999999999999999",
            "--1",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        let long = |length: usize| format!("0.{}", "1".repeat(length - 2)).into_bytes();
        assert!(LongDouble::parse(&long(MAX_FLOAT_CHARS)).is_some());
        assert!(LongDouble::parse(&long(MAX_FLOAT_CHARS + 1)).is_none());
    }

    #[test]
    fn sums() {
        for (left, right, sum) in [
            ("3.0", "0.1", "3.1"),
            ("1", "-1", "0"),
            ("-0", "-0", "0"),
            ("17179869184", "1.5", "17179869185.5"),
            ("5.0e3", "2.0e2", "5200"),
            ("1e19", "1", "10000000000000000001"),
            ("36893488147419103232", "1", "36893488147419103232"),
            ("36893488147419103232", "3", "36893488147419103236"),
            ("36893488147419103232", "-1", "36893488147419103232"),
            ("36893488147419103232", "-1.5", "36893488147419103230"),
            ("1.18e4932", "-1.18e4932", "0"),
            ("0x1p64", "-0x1p-30", "18446744073709551616"),
            ("0x1p64", "-0.5", "18446744073709551616"),
            ("0x1p64", "-0.75", "18446744073709551615"),
            ("1e4000", "-inf", "-inf"),
        ] {
            assert_eq!(human(read(left) + read(right)), sum, "{left} + {right}");
        }
    }

    #[test]
    fn sums_out_of_range_are_not_finite() {
        assert!(!(read("1.18e4932") + read("1.18e4932")).is_finite());
        assert!(!(read("inf") + read("-inf")).is_finite());
        assert_eq!(human(read("inf") + read("-inf")), "nan");
        assert!((read("1.18e4932") + read("1e4900")).is_finite());
    }

    /// The number `digits * 10^exponent` as a text with zeros appended, so that `round_long` reads
    /// it.
    fn long_form(digits: u64, exponent: i32) -> String {
        format!("{digits}{}e{}", "0".repeat(30), exponent - 30)
    }

    proptest! {
        #[test]
        fn short_and_long_paths_agree(digits: u64, exponent in -27i32..=27) {
            let digits = digits / 10;
            prop_assert_eq!(read(&format!("{digits}e{exponent}")), read(&long_form(digits, exponent)));
        }

        #[test]
        fn integers_are_exact(left: i64, right: i64) {
            prop_assert_eq!(human(left.into()), left.to_string());
            prop_assert_eq!(read(&left.to_string()), LongDouble::from(left));
            // The sum needs 65 bits, so a sum of at most 64 bits is exact.
            let sum = i128::from(left) + i128::from(right);
            if sum.unsigned_abs() < 1 << 64 {
                prop_assert_eq!(human(LongDouble::from(left) + right.into()), sum.to_string());
            }
        }

        #[test]
        fn doubles_print_exactly(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let exact = format!("{value:.17}");
            let trimmed = exact.trim_end_matches('0').trim_end_matches('.');
            let trimmed = if trimmed == "-0" { "0" } else { trimmed };
            prop_assert_eq!(human(value.into()), trimmed);
        }

        /// Every double is a long double, so its exact decimal text must read back as the same
        /// value.
        #[test]
        fn exact_texts_of_doubles_are_read_exactly(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(read(&format!("{value:.1074}")), LongDouble::from(value));
        }

        /// The text of the exact midpoint between two neighbouring floats is read as the even one;
        /// with one more digit, as the nearer one.
        #[test]
        fn ties_go_to_even(mantissa: u64) {
            let mantissa = u128::from(mantissa | 1 << 63);
            let midpoint = mantissa * 2 + 1;
            let even = (mantissa + (mantissa & 1)) * 2;
            prop_assert_eq!(human(read(&format!("{midpoint}.000"))), even.to_string());
            prop_assert_eq!(human(read(&format!("{midpoint}.0000000000000000000000001"))), ((mantissa + 1) * 2).to_string());
            prop_assert_eq!(human(read(&format!("{}.9999999999999999999999999", midpoint - 1))), (mantissa * 2).to_string());
        }

        #[test]
        fn addition_is_symmetric(left in "-?[0-9]{1,30}(\\.[0-9]{0,30})?(e-?[0-9]{1,3})?", right in "-?[0-9]{1,30}(\\.[0-9]{0,30})?(e-?[0-9]{1,3})?") {
            prop_assert_eq!(read(&left) + read(&right), read(&right) + read(&left));
            prop_assert_eq!(read(&left) + negate(read(&left)), LongDouble::ZERO);
        }

        #[test]
        fn any_bytes_are_safe(text in proptest::collection::vec(any::<u8>(), 0..40), tame in "[-+]?[0-9.exX]{0,40}") {
            let _ = (LongDouble::parse(&text), LongDouble::parse(tame.as_bytes()));
        }
    }
}
