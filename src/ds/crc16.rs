//! CRC-16/XMODEM of keys, from which the slots of keys in a cluster are computed.
//!
//! # Problem
//!
//! A cluster node computes the CRC of each key, and must know whether the key has a `{`. Most keys
//! are shorter than 20 bytes, so one pass over 16 bytes should compute the CRC and find a `{`.
//!
//! # By multiplication
//!
//! As polynomials over one bit, the CRC of a message M is `M * x^16 mod P`. The quotient
//! `M * x^16 / P` is M times the series `S = x^16 / P = s0 + s1 / x + s2 / x^2 + ...`, and of the
//! quotient only the lowest 16 bits are needed: times P, they are the remainder. With S scaled by
//! x^128 (s0 = 1 is the bit 128, which is not stored), these bits are the bits 128 to 143 of a
//! product of 128 bits by 128:
//!
//! ```text
//!   bit   255          192           128            64             0
//!   Mh*Sh  |-------------|-----------|q|             |             |      lowest bits
//!   Mh*Sl, Ml*Sh         |-----------|q|-------------|             |      bits 64 to 79
//!   M * x^128            |-----------|q|                                  s0: lowest bits
//!   Ml*Sl  has degree 126 and does not matter
//! ```
//!
//! So a CRC takes three multiplications (PCLMULQDQ) that do not depend on each other, and one by P.
//! Zeros before a message do not change its CRC, so a short key is a block of 16 bytes with zeros
//! before it. In a key of more than 16 bytes, the sum of the earlier blocks is moved up by a block
//! and added to the next block: `Mh * (x^192 mod P) + Ml * (x^128 mod P)`.
//!
//! # Without the instruction
//!
//! Without PCLMULQDQ, tables serve for eight bytes at once (slicing): the CRC of a word is the XOR
//! of the entries of its bytes, which are read independently of each other.
//!
//! **Invariant:** multiplication and tables give the CRC that the crate `crc16` computes (property
//! test).
//!
//! With the search for `{`, a key of 16 bytes takes some 40 instructions by multiplication, and
//! 120 by tables. Rejected: a table for each position of a byte in a block (32 instructions, but 16
//! cache lines for a key of 16 bytes); Barrett's reduction after a fold (as many multiplications,
//! but each waits for the result of the one before).

/// The generator polynomial of CRC-16/XMODEM, without its highest term.
const POLYNOMIAL: u16 = 0x1021;
/// The number of bytes that the tables process at once.
const WORD: usize = 8;
/// The number of bytes that multiplication processes at once.
const BLOCK: usize = 16;

/// `TABLES[n][byte]` is the CRC of `byte` followed by `n` zero bytes.
static TABLES: [[u16; 256]; WORD] = tables();

const fn tables() -> [[u16; 256]; WORD] {
    let mut tables = [[0; 256]; WORD];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut zeros = 0;
        while zeros < WORD {
            crc = times_x(crc, 8);
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

/// A polynomial times `x^power`, modulo P, the CRC's generator polynomial.
const fn times_x(polynomial: u16, power: usize) -> u16 {
    let mut rest = polynomial;
    let mut left = power;
    while left > 0 {
        let carry = rest & 0x8000 != 0;
        rest <<= 1;
        if carry {
            rest ^= POLYNOMIAL;
        }
        left -= 1;
    }
    rest
}

/// Computes CRCs by multiplication if the processor has PCLMULQDQ, otherwise by tables.
#[derive(Clone, Copy, Debug)]
pub struct Crc16 {
    /// Whether the processor has PCLMULQDQ. Only [`Crc16::detect`] sets this field.
    multiplies: bool,
}

impl Crc16 {
    /// Chooses multiplication or tables for the present processor.
    pub fn detect() -> Crc16 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let multiplies = is_x86_feature_detected!("pclmulqdq");
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let multiplies = false;
        Crc16 { multiplies }
    }

    /// The CRC of at most 16 bytes, by multiplication. `None` if the processor has no PCLMULQDQ,
    /// there are more bytes, or one of them is `stop`. The CRC is in the bits from `SHIFT` on of
    /// the result; bits below the CRC are 0, and bits above it arbitrary.
    #[inline(always)]
    pub fn of_few<const SHIFT: u32>(self, bytes: &[u8], stop: u8) -> Option<u64> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.multiplies && bytes.len() <= BLOCK {
            // SAFETY: `detect` has found the instruction.
            return unsafe { multiply::short::<SHIFT>(bytes, stop) };
        }
        let _ = (bytes, stop);
        None
    }

    /// The CRC of any number of bytes; `None` if one of them is `stop`.
    pub fn of_bytes_without(self, bytes: &[u8], stop: u8) -> Option<u16> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.multiplies {
            // SAFETY: `detect` has found the instruction.
            return unsafe { multiply::long(bytes, stop) };
        }
        memchr::memchr(stop, bytes).is_none().then(|| sum(bytes))
    }

    /// The CRC of any number of bytes, of any value.
    pub fn of(self, bytes: &[u8]) -> u16 {
        match self.of_bytes_without(bytes, b'{') {
            Some(crc) => crc,
            None => sum(bytes),
        }
    }
}

/// Up to 16 bytes as a big-endian number, the high word first.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn block(bytes: &[u8]) -> [u64; 2] {
    let len = bytes.len();
    if len > WORD
        && let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk())
    {
        // The two loaded words overlap; the shift removes the bytes that are in both words.
        let high = u64::from_be_bytes(*first) >> (8 * (BLOCK - len));
        return [high, u64::from_be_bytes(*last)];
    }
    [0, short_word(bytes)]
}

/// Up to eight bytes as a big-endian number, in at most three loads.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_be_bytes(*first)) << (8 * (len - 4))
            | u64::from(u32::from_be_bytes(*last))
    } else if len > 0 {
        let middle = u64::from(bytes[len / 2]) << (8 * (len - 1 - len / 2));
        u64::from(bytes[0]) << (8 * (len - 1)) | middle | u64::from(bytes[len - 1])
    } else {
        0
    }
}

/// The CRC of any number of bytes, by tables. The CRC begins with 0, so leading zeros do not change
/// it: the bytes before the whole words are padded with zeros to a word.
fn sum(bytes: &[u8]) -> u16 {
    let (head, words) = bytes.as_rchunks::<WORD>();
    let add = |crc, word: &[u8; WORD]| add_word(crc, u64::from_be_bytes(*word));
    words.iter().fold(add_word(0, short_word(head)), add)
}

/// The CRC of a message, from the CRC of all its bytes but the last eight, and these eight bytes as
/// a word.
#[inline]
fn add_word(crc: u16, word: u64) -> u16 {
    let word = word ^ u64::from(crc) << 48;
    let bytes = word.to_le_bytes();
    let entry = |zeros: usize| TABLES[zeros][usize::from(bytes[zeros])];
    entry(0) ^ entry(1) ^ entry(2) ^ entry(3) ^ entry(4) ^ entry(5) ^ entry(6) ^ entry(7)
}

/// CRCs by multiplication with PCLMULQDQ.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod multiply {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_movemask_epi8, _mm_or_si128,
        _mm_set_epi64x, _mm_set1_epi8, _mm_unpackhi_epi64, _mm_xor_si128,
    };

    use super::{BLOCK, POLYNOMIAL, block, times_x};

    /// The series S = `x^16 / P` without its first term, scaled so that the second term is the bit
    /// 127.
    const SERIES: u128 = series();
    /// The factors by which the high and the low word of a block are multiplied when another block
    /// follows, modulo P.
    const FOLD: [u16; 2] = [times_x(1, 192), times_x(1, 128)];

    /// Divides `x^144` by P, the CRC's generator polynomial; the quotient's bit 128 is left out.
    const fn series() -> u128 {
        let mut quotient = 0;
        // The remainder of the division by P so far, without its highest term.
        let mut rest = POLYNOMIAL;
        let mut bit = 128;
        while bit > 0 {
            bit -= 1;
            quotient |= ((rest >> 15) as u128) << bit;
            rest = times_x(rest, 1);
        }
        quotient
    }

    #[inline(always)]
    fn words(high: u64, low: u64) -> __m128i {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_set_epi64x(high as i64, low as i64) }
    }

    /// The product of two polynomials of 64 bits. `HALVES` selects the high word of `a` by its bit
    /// 0, that of `b` by its bit 4.
    ///
    /// Assembly is used in place of the compiler's intrinsic, since a function that is compiled for
    /// PCLMULQDQ could not be inlined into its callers.
    ///
    /// # Safety
    /// The processor has PCLMULQDQ.
    #[inline(always)]
    unsafe fn product<const HALVES: u8>(a: __m128i, b: __m128i) -> __m128i {
        let mut product = a;
        // SAFETY: the caller promises that the processor has the instruction, which only writes its
        // first register.
        unsafe {
            asm!(
                "pclmulqdq {a}, {b}, {halves}",
                a = inout(xmm_reg) product,
                b = in(xmm_reg) b,
                halves = const HALVES,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        product
    }

    /// A vector with ones in the bytes of `block` that are equal to `stop`, and zeros in the
    /// others.
    #[inline(always)]
    fn equal(block: __m128i, stop: u8) -> __m128i {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_cmpeq_epi8(block, _mm_set1_epi8(stop as i8)) }
    }

    #[inline(always)]
    fn has_ones(bytes: __m128i) -> bool {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_movemask_epi8(bytes) != 0 }
    }

    /// The CRC of a block, in the bits from `SHIFT` on of the result. Bits below the CRC are 0, and
    /// bits above it arbitrary.
    ///
    /// # Safety
    /// The processor has PCLMULQDQ.
    #[inline(always)]
    unsafe fn remainder<const SHIFT: u32>(block: __m128i) -> u64 {
        let series = words((SERIES >> 64) as u64, SERIES as u64);
        // SAFETY: SSE2 is part of x86-64, and the caller promises PCLMULQDQ.
        unsafe {
            let low = product::<0x11>(block, series);
            let middle = _mm_xor_si128(
                product::<0x01>(block, series),
                product::<0x10>(block, series),
            );
            let middle = _mm_unpackhi_epi64(middle, middle);
            let quotient = _mm_xor_si128(_mm_xor_si128(low, middle), block);
            let polynomial = words(0, u64::from(POLYNOMIAL) << SHIFT);
            _mm_cvtsi128_si64(product::<0x00>(quotient, polynomial)) as u64
        }
    }

    /// The CRC of at most 16 bytes, see `Crc16::of_few`.
    ///
    /// # Safety
    /// The processor has PCLMULQDQ.
    #[inline(always)]
    pub unsafe fn short<const SHIFT: u32>(bytes: &[u8], stop: u8) -> Option<u64> {
        let [high, low] = block(bytes);
        let block = words(high, low);
        if has_ones(equal(block, stop)) {
            return None;
        }
        // SAFETY: the caller promises PCLMULQDQ.
        Some(unsafe { remainder::<SHIFT>(block) })
    }

    /// The CRC of any number of bytes, see `Crc16::of_bytes_without`.
    ///
    /// # Safety
    /// The processor has PCLMULQDQ.
    pub unsafe fn long(bytes: &[u8], stop: u8) -> Option<u16> {
        let (head, blocks) = bytes.as_rchunks::<BLOCK>();
        let [high, low] = block(head);
        let mut sum = words(high, low);
        let fold = words(FOLD[0].into(), FOLD[1].into());
        // SAFETY: SSE2 is part of x86-64, and the caller promises PCLMULQDQ.
        unsafe {
            let mut stops = equal(sum, stop);
            for bytes in blocks {
                let [high, low] = block(bytes);
                let next = words(high, low);
                stops = _mm_or_si128(stops, equal(next, stop));
                let moved = _mm_xor_si128(product::<0x11>(sum, fold), product::<0x00>(sum, fold));
                sum = _mm_xor_si128(moved, next);
            }
            (!has_ones(stops)).then(|| remainder::<0>(sum) as u16)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All ways to compute the CRC that the present processor has: by tables, and by multiplication
    /// if it has PCLMULQDQ.
    fn ways() -> impl Iterator<Item = Crc16> {
        [Crc16::detect(), Crc16 { multiplies: false }].into_iter()
    }

    fn oracle(bytes: &[u8]) -> u16 {
        crc16::State::<crc16::XMODEM>::calculate(bytes)
    }

    fn check(bytes: &[u8]) {
        for way in ways() {
            assert_eq!(way.of(bytes), oracle(bytes), "{way:?} {bytes:?}");
            let without = (!bytes.contains(&b'{')).then(|| oracle(bytes));
            assert_eq!(
                way.of_bytes_without(bytes, b'{'),
                without,
                "{way:?} {bytes:?}"
            );
            let few = way.of_few::<40>(bytes, b'{');
            let few = few.map(|bits| {
                assert_eq!(bits << 24, 0, "zeros below the CRC");
                (bits >> 40) as u16
            });
            let is_quick = way.multiplies && bytes.len() <= BLOCK;
            assert_eq!(few, without.filter(|_| is_quick), "{way:?} {bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::ds::cases(2000))]

        #[test]
        fn both_ways_follow_the_oracle(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&bytes);
            for len in 0..bytes.len().min(40) {
                check(&bytes[..len]);
            }
        }
    }

    #[test]
    fn a_brace_at_any_place_is_found() {
        for len in 0..crate::ds::scaled(70, 20) {
            let mut bytes = vec![b'x'; len];
            check(&bytes);
            for at in 0..len {
                bytes[at] = b'{';
                check(&bytes);
                bytes[at] = b'x';
            }
        }
    }
}
