//! The decimal digits of a double: Grisu2, from Florian Loitsch, "Printing Floating-Point Numbers
//! Quickly and Accurately with Integers" (PLDI 2010).
//!
//! Every decimal between a double's two boundaries, which lie halfway to its neighbours, reads back
//! as this double:
//!
//! ```text
//!        low                     w                     high
//!   ------|----------------------+----------------------|------
//!            3972.8564029999998   3972.856403
//! ```
//!
//! The value and its boundaries are multiplied by a power of ten, so that the integer part fits 32
//! bits. Then digits of `high` are produced until the rest of `high` falls below `high - low`. The
//! products are off by a unit of their last bit, so the interval is first narrowed by one at each
//! end. So every result reads back exactly, but one result in four hundred has more digits than
//! needed, because its shortest form lies outside of the narrowed interval.
//!
//! Newer methods (Ryu, Schubfach, zmij) always find the shortest form. The newer methods were
//! rejected because Redis 7 and Valkey 8 print with Grisu2, and a client sees the difference: after
//! `ZADD k 3972.856403 m`, `ZSCORE k m` says `3972.8564029999998`, and so do replication, the AOF
//! and every digest of such replies.
//!
//! **Invariant:** the digits read back as the same double (test `digits_read_back`).

use std::sync::LazyLock;

use super::long_double::LongDouble;

/// A positive double as digits times a power of ten: `0.0015` is 15 * 10^-4.
pub(super) struct Decimal {
    digits: [u8; 18],
    len: usize,
    pub exponent: i32,
}

impl Decimal {
    /// The digits, most significant first.
    pub fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// Appends a digit; leading zeros are dropped. 64 bits hold up to 20 digits, of which a
    /// double's interval needs at most 17.
    fn push(&mut self, digit: u64) {
        if (digit != 0 || self.len > 0) && self.len < self.digits.len() {
            self.digits[self.len] = b'0' + digit as u8;
            self.len += 1;
        }
    }
}

/// The number `mantissa * 2^exponent`.
#[derive(Debug, Clone, Copy)]
struct Float {
    mantissa: u64,
    exponent: i32,
}

impl Float {
    fn normalized(self) -> Self {
        let shift = self.mantissa.leading_zeros();
        Float {
            mantissa: self.mantissa << shift,
            exponent: self.exponent - shift as i32,
        }
    }

    /// The product, whose mantissa is the upper 64 of 128 bits, rounded.
    fn multiply(self, other: Float) -> Self {
        let product = u128::from(self.mantissa) * u128::from(other.mantissa);
        Float {
            mantissa: ((product + (1 << 63)) >> 64) as u64,
            exponent: self.exponent + other.exponent + 64,
        }
    }
}

/// The exponent of the first stored power of ten. The powers are eight apart, close enough to bring
/// every double's exponent into [`EXPONENTS`].
const FIRST_POWER: i32 = -348;
const POWER_STEP: i32 = 8;
const POWERS: usize = 87;

static POWERS_OF_TEN: LazyLock<[Float; POWERS]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let power = FIRST_POWER + index as i32 * POWER_STEP;
        let (mantissa, exponent) = LongDouble::power_of_ten(power);
        Float { mantissa, exponent }
    })
});

/// The binary exponents of a float times a power of ten at which the integer part fits 32 bits and
/// all digits fit 64 bits.
const EXPONENTS: std::ops::RangeInclusive<i32> = -60..=-32;

/// The power of ten that brings a normalized float with this binary exponent into `EXPONENTS`, and
/// the decimal exponent of the power. If two powers do so, the choice between them affects the last
/// digit, so the power is chosen as in Redis: a low estimate, then steps upwards.
fn scaling_power(exponent: i32) -> (Float, i32) {
    const LOG10_2: f64 = std::f64::consts::LOG10_2;
    let estimate = (-f64::from(exponent + POWERS as i32) * LOG10_2) as i32;
    let mut index = (estimate - FIRST_POWER) / POWER_STEP;
    loop {
        let at = index.clamp(0, POWERS as i32 - 1);
        let power = POWERS_OF_TEN[at as usize];
        let scaled = exponent + power.exponent + 64;
        if EXPONENTS.contains(&scaled) || at != index {
            return (power, FIRST_POWER + at * POWER_STEP);
        }
        index += if scaled < *EXPONENTS.start() { 1 } else { -1 };
    }
}

/// The digits that read back as `value`, which is positive and finite.
pub(super) fn digits(value: f64) -> Decimal {
    const HIDDEN_BIT: u64 = 1 << 52;
    let bits = value.to_bits();
    let fraction = bits & (HIDDEN_BIT - 1);
    let float = match (bits >> 52 & 0x7ff) as i32 {
        0 => Float {
            mantissa: fraction,
            exponent: -1074,
        },
        biased => Float {
            mantissa: fraction | HIDDEN_BIT,
            exponent: biased - 1075,
        },
    };
    let high = Float {
        mantissa: float.mantissa * 2 + 1,
        exponent: float.exponent - 1,
    }
    .normalized();
    // Below a power of two, the neighbouring double is half as far away as the one above it.
    let closer = if float.mantissa == HIDDEN_BIT { 2 } else { 1 };
    let low_exponent = float.exponent - closer;
    let low = Float {
        mantissa: ((float.mantissa << closer) - 1) << (low_exponent - high.exponent),
        exponent: high.exponent,
    };
    let (power, decimal_exponent) = scaling_power(high.exponent);
    let interval = Interval {
        low: low.multiply(power).mantissa + 1,
        value: float.normalized().multiply(power).mantissa,
        high: high.multiply(power).mantissa - 1,
        fraction_bits: (-(high.exponent + power.exponent + 64)) as u32,
    };
    interval.digits(-decimal_exponent)
}

/// A double and its narrowed boundaries, multiplied by a power of ten: fixed-point numbers with
/// `fraction_bits` bits behind the point.
struct Interval {
    low: u64,
    value: u64,
    high: u64,
    fraction_bits: u32,
}

impl Interval {
    fn digits(&self, exponent: i32) -> Decimal {
        let mut decimal = Decimal {
            digits: [b'0'; 18],
            len: 0,
            exponent,
        };
        let (width, to_value) = (self.high - self.low, self.high - self.value);
        let one = 1u64 << self.fraction_bits;
        let mut whole = (self.high >> self.fraction_bits) as u32;
        let mut fraction = self.high & (one - 1);
        for place in (0..=whole.checked_ilog10().unwrap_or(0)).rev() {
            let unit = 10u32.pow(place);
            decimal.push((whole / unit).into());
            whole %= unit;
            let rest = (u64::from(whole) << self.fraction_bits) + fraction;
            if rest <= width {
                decimal.exponent += place as i32;
                let unit = u64::from(unit) << self.fraction_bits;
                return decimal.toward(Remainder {
                    rest,
                    unit,
                    width,
                    to_value,
                });
            }
        }
        let mut scale = 1u64;
        loop {
            scale = scale.wrapping_mul(10);
            fraction *= 10;
            decimal.push(fraction >> self.fraction_bits);
            decimal.exponent -= 1;
            fraction &= one - 1;
            let width = width.wrapping_mul(scale);
            if fraction < width {
                let to_value = to_value.wrapping_mul(scale);
                return decimal.toward(Remainder {
                    rest: fraction,
                    unit: one,
                    width,
                    to_value,
                });
            }
        }
    }
}

/// Distances below `high`, as integers on one scale: `rest` to the digits produced so far, `width`
/// to `low`, `to_value` to the double itself.
struct Remainder {
    rest: u64,
    /// The value of one unit of the last digit, on the same scale as the distances.
    unit: u64,
    width: u64,
    to_value: u64,
}

impl Decimal {
    /// Lowers the last digit while this brings the digits closer to the exact value of the double
    /// and keeps them above `low`.
    fn toward(mut self, at: Remainder) -> Self {
        let mut rest = at.rest;
        while rest < at.to_value
            && at.width - rest >= at.unit
            && (rest + at.unit < at.to_value || at.to_value - rest > rest + at.unit - at.to_value)
        {
            self.digits[self.len - 1] -= 1;
            rest += at.unit;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(value: f64) -> String {
        let decimal = digits(value);
        let digits = std::str::from_utf8(decimal.digits()).unwrap();
        format!("{digits}e{}", decimal.exponent)
    }

    #[test]
    fn digits_of_a_real_server() {
        for (value, text) in [
            (1.5, "15e-1"),
            (0.1, "1e-1"),
            (5e-324, "5e-324"),
            (f64::MIN_POSITIVE, "22250738585072014e-324"),
            (f64::MAX, "17976931348623157e292"),
            // Of these numbers, Grisu2 does not find the shortest or the nearest text.
            (3972.856403, "39728564029999998e-13"),
            (2977.112527, "29771125269999998e-13"),
            (704.3355575832, "7043355575832001e-13"),
            (1e23, "9999999999999999e7"),
            (9.84e22, "9840000000000001e7"),
            (878185.5140610842, "8781855140610843e-10"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn powers_of_ten_are_rounded_to_64_bits() {
        let (mantissa, exponent) = LongDouble::power_of_ten(0);
        assert_eq!((mantissa, exponent), (1 << 63, -63));
        let first = POWERS_OF_TEN[0];
        assert_eq!(
            (first.mantissa, first.exponent),
            (0xfa8f_d5a0_081c_0288, -1220)
        );
    }

    proptest! {
        #[test]
        fn digits_read_back(bits: u64) {
            let value = f64::from_bits(bits & (i64::MAX as u64));
            prop_assume!(value.is_finite() && value > 0.0);
            prop_assert_eq!(shown(value).parse(), Ok(value));
            prop_assert!(!digits(value).digits().starts_with(b"0"));
        }

        #[test]
        fn short_decimals_read_back(integer in 1u64..1_000_000_000, exponent in -30i32..30) {
            let value: f64 = format!("{integer}e{exponent}").parse().unwrap();
            prop_assert_eq!(shown(value).parse(), Ok(value));
        }
    }
}
