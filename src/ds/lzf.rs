//! LZF: the small, fast compression of strings in RDB files and of the inner nodes of quicklists.
//!
//! ```text
//!   000lllll  data                    l + 1 bytes to be copied as they are                     (1 ..= 32)
//!   lllooooo oooooooo                 l + 2 bytes from o + 1 bytes back in the output, l < 7   (3 ..= 8)
//!   111ooooo llllllll oooooooo        l + 9 bytes from o + 1 bytes back in the output          (9 ..= 264)
//! ```
//!
//! A copy may overlap its own output: a copy with a distance of one byte and a length of 264 makes
//! a run. The distance of a copy is at most 8,192 bytes. Three bytes expand to at most 264 bytes,
//! so an announced length of more than 88 times the compressed length is refused before any
//! allocation.
//!
//! The compressor's table has, for each hash of three bytes, the last position where bytes with
//! this hash occurred. The table is not cleared between calls: each call numbers the positions of
//! its input from the end of the last call's numbers, so that positions of earlier inputs are too
//! far away to be used. The compressed bytes differ from those of Redis's compressor, but aeris and
//! Redis decompress each other's output.
//!
//! **Invariant:** `decompress(compress(x)) == x` (test `what_goes_in_comes_out`).

const MAX_LITERALS: usize = 32;
const MAX_MATCH: usize = 264;
const MAX_DISTANCE: usize = 8192;
/// The maximum factor by which compressed data expand: a copy of 264 bytes is encoded in three
/// bytes.
const MAX_EXPANSION: usize = MAX_MATCH / 3;

/// After `1 << HURRY` bytes without a match the compressor tries only every second byte, then every
/// third, and so on, so that incompressible input costs little time.
const HURRY: u32 = 7;

/// The compressor, with its table of `SLOTS` positions: 64 KB by default, 16 KB for use on the
/// stack.
pub struct Lzf<const SLOTS: usize = 16_384> {
    table: [u32; SLOTS],
    /// The number that the position of the next input's first byte gets. The next input's numbers
    /// are greater than all positions in the table, so positions of earlier inputs need not be
    /// erased.
    base: u32,
}

/// A compressor for inputs of some kilobytes, such as the nodes of a quicklist.
pub type SmallLzf = Lzf<4096>;

impl<const SLOTS: usize> Default for Lzf<SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SLOTS: usize> Lzf<SLOTS> {
    const BITS: u32 = {
        assert!(SLOTS.is_power_of_two() && SLOTS > 1);
        SLOTS.ilog2()
    };

    /// Creates a compressor with an empty table.
    pub fn new() -> Self {
        Self {
            table: [0; SLOTS],
            base: MAX_DISTANCE as u32 + 1,
        }
    }

    /// Compresses `input`, appends the result to `out` and returns the size of the result. If the
    /// result would not be smaller than `input`, returns `None` and leaves `out` unchanged.
    pub fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        self.compress_within(input, input.len().checked_sub(1)?, out)
    }

    /// Like `compress`, but returns `None` if the result would take more than `limit` bytes.
    pub fn compress_within(
        &mut self,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let base = self.start(input.len())?;
        let before = out.len();
        let done = self.run(input, base, before.saturating_add(limit), out);
        if done.is_none() {
            out.truncate(before);
        }
        done.map(|()| out.len() - before)
    }

    /// The number under which the table has position 0 of this call's input. Numbers continue from
    /// one input to the next, so that positions of earlier inputs are too far away to match. The
    /// table is cleared when the numbers would exceed 32 bits.
    fn start(&mut self, len: usize) -> Option<u32> {
        let len = u32::try_from(len)
            .ok()?
            .checked_add(MAX_DISTANCE as u32 + 1)?;
        if self.base.checked_add(len).is_none() {
            *self = Self::new();
        }
        let base = self.base;
        self.base = base.checked_add(len)?;
        Some(base)
    }

    #[inline]
    fn slot(three: [u8; 3]) -> usize {
        let [a, b, c] = three;
        let key = u32::from_le_bytes([0, a, b, c]);
        (key.wrapping_mul(0x9E37_79B1) >> (32 - Self::BITS)) as usize & (SLOTS - 1)
    }

    fn run(&mut self, input: &[u8], base: u32, end: usize, out: &mut Vec<u8>) -> Option<()> {
        let (mut at, mut literals) = (0, 0);
        while let Some(&three) = input.get(at..).and_then(|rest| rest.first_chunk::<3>()) {
            let slot = &mut self.table[Self::slot(three)];
            let number = base + at as u32;
            let distance = (number - *slot) as usize;
            *slot = number;
            if distance > MAX_DISTANCE || distance > at || input[at - distance..][..3] != three {
                at += 1 + ((at - literals) >> HURRY);
                continue;
            }
            let len = match_len(input, at, distance);
            put_literals(&input[literals..at], end, out)?;
            put_copy(distance, len, end, out)?;
            self.remember(input, base, at + 1, at + len);
            at += len;
            literals = at;
        }
        put_literals(&input[literals..], end, out)
    }

    /// Adds the first and the last two positions within a copied range to the compressor's table,
    /// which is enough to find repetitions.
    #[inline]
    fn remember(&mut self, input: &[u8], base: u32, from: usize, to: usize) {
        for at in [from, to - 2, to - 1] {
            if let Some(&three) = input[at..].first_chunk::<3>() {
                self.table[Self::slot(three)] = base + at as u32;
            }
        }
    }
}

/// The number of bytes at `at` that repeat the bytes `distance` before. The caller has compared the
/// first three bytes.
fn match_len(input: &[u8], at: usize, distance: usize) -> usize {
    let longest = (input.len() - at).min(MAX_MATCH);
    let (old, new) = (&input[at - distance..], &input[at..at + longest]);
    let mut len = 3;
    while let (Some(a), Some(b)) = (old[len..].first_chunk::<8>(), new[len..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + old[len..]
        .iter()
        .zip(&new[len..])
        .take_while(|(a, b)| a == b)
        .count()
}

fn put_literals(literals: &[u8], end: usize, out: &mut Vec<u8>) -> Option<()> {
    let size = literals.len() + literals.len().div_ceil(MAX_LITERALS);
    if out.len() + size > end {
        return None;
    }
    for run in literals.chunks(MAX_LITERALS) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
    Some(())
}

fn put_copy(distance: usize, len: usize, end: usize, out: &mut Vec<u8>) -> Option<()> {
    let [high, low] = ((distance - 1) as u16).to_be_bytes();
    match len - 2 {
        short @ 0..7 => out.extend_from_slice(&[(short as u8) << 5 | high, low]),
        long => out.extend_from_slice(&[7 << 5 | high, (long - 7) as u8, low]),
    }
    (out.len() <= end).then_some(())
}

/// Decompresses `input`, which must expand to `len` bytes. `None` if `input` is damaged or expands
/// to another length.
pub fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > input.len().checked_mul(MAX_EXPANSION)? {
        return None;
    }
    let mut out = Vec::new();
    out.try_reserve_exact(len).ok()?;
    decompress_into(input, len, &mut out).then_some(out)
}

/// Decompresses `input` and appends the resulting `len` bytes to `out`. Returns false if `input` is
/// damaged or expands to another length; `out` then contains a part of the result.
fn decompress_into(input: &[u8], len: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let Some(end) = start.checked_add(len) else {
        return false;
    };
    unpack(input, start, end, out).is_some() && out.len() == end
}

fn unpack(mut input: &[u8], start: usize, end: usize, out: &mut Vec<u8>) -> Option<()> {
    while let Some((&control, rest)) = input.split_first() {
        if usize::from(control) < MAX_LITERALS {
            let (literals, rest) = rest.split_at_checked(usize::from(control) + 1)?;
            if literals.len() > end - out.len() {
                return None;
            }
            out.extend_from_slice(literals);
            input = rest;
            continue;
        }
        let (extra, rest) = match control >> 5 {
            7 => rest
                .split_first()
                .map(|(&extra, rest)| (usize::from(extra), rest))?,
            _ => (0, rest),
        };
        let (&low, rest) = rest.split_first()?;
        let len = usize::from(control >> 5) + extra + 2;
        let distance = usize::from(u16::from_be_bytes([control & 0x1F, low])) + 1;
        if len > end - out.len() || distance > out.len() - start {
            return None;
        }
        copy_back(distance, len, out);
        input = rest;
    }
    Some(())
}

/// Appends `len` bytes that repeat the bytes of `out` from `distance` bytes before its end. Each
/// round copies as much as `out` has from that position on, so a copy that overlaps its own output
/// doubles with each round.
#[inline]
fn copy_back(distance: usize, len: usize, out: &mut Vec<u8>) {
    let from = out.len() - distance;
    let mut left = len;
    while left > 0 {
        let chunk = left.min(out.len() - from);
        out.extend_from_within(from..from + chunk);
        left -= chunk;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn compressed(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let size = Lzf::<16_384>::new().compress(input, &mut out)?;
        assert_eq!(size, out.len());
        Some(out)
    }

    /// Decompresses a value of 1,000 bytes `x`, and a text, as a real Redis server compresses them
    /// in its RDB files.
    #[test]
    fn the_output_of_a_real_server_is_understood() {
        let run = b"\x01xx\xe0\xff\0\xe0\xff\0\xe0\xff\0\xe0\xc3\0\x01xx";
        assert_eq!(decompress(run, 1000), Some(vec![b'x'; 1000]));
        let text = b"the quick brown fox, the quick brown fox; the quick brown fox";
        let packed = b"\x15the quick brown fox, t\xe0\x09\x14\x00;\xe0\x0a\x14\x00x";
        assert_eq!(decompress(packed, text.len()), Some(text.to_vec()));
        assert!(compressed(text).unwrap().len() <= packed.len());
    }

    #[test]
    fn each_form_is_read_as_it_is_drawn() {
        assert_eq!(decompress(b"\x02abc\x20\x02", 6), Some(b"abcabc".to_vec()));
        assert_eq!(decompress(b"\x00a\xe0\x00\x00", 10), Some(vec![b'a'; 10]));
        assert_eq!(decompress(b"\x00a\xe0\xff\x00", 265), Some(vec![b'a'; 265]));
        assert_eq!(decompress(b"", 0), Some(Vec::new()));
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(decompress(b"\x02ab", 3), None);
        assert_eq!(decompress(b"\x02abc", 2), None);
        assert_eq!(decompress(b"\x02abc", 4), None);
        assert_eq!(decompress(b"\x02abc\x20\x03", 6), None);
        assert_eq!(decompress(b"\x02abc\x20", 6), None);
        assert_eq!(decompress(b"\x02abc\xe0\x00", 12), None);
        assert_eq!(decompress(b"\x20\x00", 3), None);
        assert_eq!(decompress(b"\x00a", usize::MAX), None);
        assert_eq!(decompress(b"\x00a\xe0\xff\x00", 1 << 30), None);
    }

    #[test]
    fn nothing_before_the_start_of_this_call_is_copied() {
        let mut out = b"before".to_vec();
        assert!(!decompress_into(b"\x00a\x20\x03", 4, &mut out));
    }

    #[test]
    fn runs_and_texts_shrink() {
        assert!(compressed(&[b'x'; 1000]).unwrap().len() < 24);
        let text = b"field:17 value:17 field:18 value:18 field:19 value:19 ".repeat(20);
        assert!(compressed(&text).unwrap().len() < text.len() / 5);
        assert_eq!(compressed(b"abcdefghijklmnop"), None);
        assert_eq!(compressed(b""), None);
    }

    #[test]
    fn positions_start_again_when_their_numbers_run_out() {
        let mut lzf = SmallLzf::new();
        lzf.base = u32::MAX - 2 * MAX_DISTANCE as u32;
        for _ in 0..40 {
            let input = b"what was seen before, what was seen before".repeat(4);
            let mut out = Vec::new();
            lzf.compress(&input, &mut out).unwrap();
            assert_eq!(decompress(&out, input.len()).as_ref(), Some(&input));
        }
        assert!(lzf.base < 1 << 20);
    }

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            vec(any::<u8>(), 1..40),
            vec(0u8..3, 1..60),
            (any::<u8>(), 1usize..700).prop_map(|(byte, len)| vec![byte; len]),
            Just(b"the same words again".to_vec()),
        ];
        vec(word, 0..scaled(40, 6)).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(crate::ds::cases(200))]

        #[test]
        fn what_goes_in_comes_out(inputs in vec(input(), 1..4)) {
            let mut lzf = SmallLzf::new();
            for input in inputs {
                let mut out = b"kept".to_vec();
                match lzf.compress(&input, &mut out) {
                    Some(size) => {
                        prop_assert!(size < input.len());
                        prop_assert_eq!(&out[..4], b"kept");
                        prop_assert_eq!(decompress(&out[4..], input.len()), Some(input));
                    }
                    None => prop_assert_eq!(&out[..], b"kept"),
                }
            }
        }

        #[test]
        fn damaged_input_does_no_harm(
            input in input(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            garbage in vec(any::<u8>(), 1..60),
            len in 0usize..3000,
        ) {
            let mut bytes = compressed(&input).unwrap_or(garbage);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for len in [len, input.len()] {
                let out = decompress(&bytes, len);
                prop_assert!(out.is_none_or(|out| out.len() == len));
            }
        }
    }
}
