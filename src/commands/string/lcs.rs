//! LCS: the longest common subsequence of two strings, by words of 64 cells at a time.
//!
//! The textbook fills a table `L[i][j]`, the length for the first `i` bytes of `a` and the first
//! `j` of `b`, in O(n * m) steps and as many integers. Along a row `L` grows by one or not at all,
//! so a row is a string of bits:
//!
//! ```text
//!            b:  g  a  t  t  a  c  a          V: bit j is 0 where L[i][j + 1] = L[i][j] + 1
//!   L[0]      0  0  0  0  0  0  0  0          1 1 1 1 1 1 1
//!   L[1]  a   0  0  1  1  1  1  1  1          1 0 1 1 1 1 1
//!   L[2]  t   0  0  1  2  2  2  2  2          1 0 0 1 1 1 1
//!   L[3]  a   0  0  1  2  2  3  3  3          1 0 0 1 0 1 1
//!
//!   M = where b has the byte of this row      V' = (V + (V & M)) | (V & !M)
//! ```
//!
//! In each run of ones, the carry of the addition moves the zero behind the run to the first match
//! in it: the length grows at the first match (Crochemore, Iliopoulos, Pinzon and Reid, 2001). So
//! 64 cells of the table take five instructions, and each cell takes a bit instead of four bytes.
//! For LEN the last row of the table suffices. To reply with the subsequence itself, all rows are
//! kept, and the subsequence is found backwards: where the bytes differ, bit 0 means that the cell
//! to the left is smaller, so the next cell is the one above; bit 1 means that the cell above is
//! not greater, so the next cell is the one to the left. If there are several longest subsequences,
//! this search finds the one that Redis finds, which prefers the cell to the left.
//!
//! Limit: as in Redis, the textbook's table of 32-bit integers, which is not built here, must be
//! smaller than `proto-max-bulk-len`: this bounds the time, too.
//! **Invariant:** within the limit, rows and masks together need less than half of the memory of
//! the textbook's table.

use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::types::string::StrView;

#[derive(Default)]
struct LcsOptions {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: i64,
}

/// A run of consecutive bytes that are equal in both strings: its start in `a`, its start in `b`,
/// its length.
#[derive(Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]
pub(super) fn lcs(ctx: &mut Ctx) -> CmdResult {
    let a = string_of(ctx, ctx.argv[1])?;
    let b = string_of(ctx, ctx.argv[2])?;
    let options = parse(ctx)?;
    check_size(ctx, &a, &b)?;
    if options.len {
        let len = last_row(&a, &b, |_| {});
        ctx.client.reply.integer(len as i64);
        return Ok(());
    }
    let matches = matches_backwards(&a, &b);
    if options.idx {
        reply_matches(ctx, &matches, &options);
    } else {
        let parts: Vec<&[u8]> = matches.iter().rev().map(|m| &a[m.a..m.a + m.len]).collect();
        ctx.client.reply.bulk(&parts.concat());
    }
    Ok(())
}

/// A copy of the string under `key`, empty if there is none.
fn string_of(ctx: &mut Ctx, key: &[u8]) -> Result<Vec<u8>, Error> {
    match ctx.server.lookup_read(ctx.client, key) {
        None => Ok(Vec::new()),
        Some(entry) => match StrView::of(entry) {
            Ok(value) => Ok(value.to_vec()),
            Err(_) => Err(Error::of(
                "ERR The specified keys must contain string values",
            )),
        },
    }
}

fn parse(ctx: &Ctx) -> Result<LcsOptions, Error> {
    let mut options = LcsOptions::default();
    let mut at = 3;
    while at < ctx.argv.len() {
        if ctx.is(at, "idx") {
            options.idx = true;
        } else if ctx.is(at, "len") {
            options.len = true;
        } else if ctx.is(at, "withmatchlen") {
            options.with_match_len = true;
        } else if ctx.is(at, "minmatchlen") && at + 1 < ctx.argv.len() {
            at += 1;
            options.min_match_len = ctx.int(at)?;
        } else {
            return Err(Error::SYNTAX);
        }
        at += 1;
    }
    if options.idx && options.len {
        return Err(Error::of(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    Ok(options)
}

fn check_size(ctx: &Ctx, a: &[u8], b: &[u8]) -> CmdResult {
    let longest = u32::MAX as usize - 1;
    if a.len() >= longest || b.len() >= longest {
        return Err(Error::of("ERR String too long for LCS"));
    }
    let table = (a.len() as u128 + 1) * (b.len() as u128 + 1) * size_of::<u32>() as u128;
    if table > u128::from(ctx.server.config.proto_max_bulk_len) {
        return Err(Error::of(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    Ok(())
}

fn reply_matches(ctx: &mut Ctx, matches: &[Match], options: &LcsOptions) {
    let reply = &mut ctx.client.reply;
    let shown = |m: &&Match| m.len as i64 >= options.min_match_len;
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.iter().filter(shown).count());
    for m in matches.iter().filter(shown) {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [m.a, m.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer((start + m.len - 1) as i64);
        }
        if options.with_match_len {
            reply.integer(m.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(matches.iter().map(|m| m.len as i64).sum());
}

/// For each byte that occurs in `a`, the positions of this byte in `b`, as a mask of bits.
struct Masks {
    words: usize,
    /// For each value of a byte, the index of its mask, from 1 on; 0 if the byte does not occur in
    /// `a`.
    place: [u16; 256],
    bits: Vec<u64>,
}

impl Masks {
    fn new(a: &[u8], b: &[u8]) -> Masks {
        let mut place = [0; 256];
        let mut distinct = 0;
        for &byte in a {
            if place[byte as usize] == 0 {
                distinct += 1;
                place[byte as usize] = distinct;
            }
        }
        let words = b.len().div_ceil(64);
        let mut bits = vec![0; words * distinct as usize];
        for (j, &byte) in b.iter().enumerate() {
            if let Some(mask) = (place[byte as usize] as usize).checked_sub(1) {
                bits[mask * words + j / 64] |= 1 << (j % 64);
            }
        }
        Masks { words, place, bits }
    }

    /// The mask of a byte of `a`.
    fn of(&self, byte: u8) -> &[u64] {
        let start = (self.place[byte as usize] as usize - 1) * self.words;
        &self.bits[start..start + self.words]
    }
}

/// Computes the table row by row, and passes the bits of each row to `row`. Returns the length of
/// the longest common subsequence.
fn last_row(a: &[u8], b: &[u8], mut row: impl FnMut(&[u64])) -> usize {
    let masks = Masks::new(a, b);
    let mut v = vec![u64::MAX; masks.words];
    for &byte in a {
        let mut carry = false;
        for (v, &mask) in v.iter_mut().zip(masks.of(byte)) {
            let (sum, first) = v.overflowing_add(*v & mask);
            let (sum, second) = sum.overflowing_add(carry as u64);
            carry = first | second;
            *v = sum | (*v & !mask);
        }
        row(&v);
    }
    // The bits after the end of `b` never match, so they are still 1 and don't count.
    v.iter().map(|word| word.count_zeros() as usize).sum()
}

/// The runs of equal bytes that the longest common subsequence consists of, the last run first.
fn matches_backwards(a: &[u8], b: &[u8]) -> Vec<Match> {
    let width = b.len().div_ceil(8);
    let mut rows: Vec<u8> = Vec::with_capacity(a.len() * width);
    last_row(a, b, |v| {
        let end = rows.len() + width;
        rows.extend(v.iter().flat_map(|word| word.to_le_bytes()).take(width));
        debug_assert_eq!(rows.len(), end);
    });
    let grows = |i: usize, j: usize| rows[i * width + j / 8] >> (j % 8) & 1 == 0;

    let mut matches: Vec<Match> = Vec::new();
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            match matches.last_mut() {
                Some(m) if m.a == i && m.b == j => {
                    *m = Match {
                        a: i - 1,
                        b: j - 1,
                        len: m.len + 1,
                    }
                }
                _ => matches.push(Match {
                    a: i - 1,
                    b: j - 1,
                    len: 1,
                }),
            }
            (i, j) = (i - 1, j - 1);
        } else if grows(i - 1, j - 1) {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The longest common subsequence by the textbook's table of integers, to compare with.
    fn naive(a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                table[i + 1][j + 1] = match x == y {
                    true => table[i][j] + 1,
                    false => table[i][j + 1].max(table[i + 1][j]),
                };
            }
        }
        let (mut i, mut j) = (a.len(), b.len());
        let mut pairs = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                pairs.push((i, j));
            } else if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        let mut runs: Vec<Match> = Vec::new();
        for (a, b) in pairs {
            match runs.last_mut() {
                Some(m) if (m.a, m.b) == (a + 1, b + 1) => {
                    *m = Match {
                        a,
                        b,
                        len: m.len + 1,
                    }
                }
                _ => runs.push(Match { a, b, len: 1 }),
            }
        }
        runs
    }

    #[test]
    fn the_drawing_of_the_header() {
        let mut rows = Vec::new();
        let len = last_row(b"ata", b"gattaca", |v| rows.push(v[0] & 0x7f));
        assert_eq!(len, 3);
        assert_eq!(rows, [0b1111101, 0b1111001, 0b1101001]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn bits_find_what_the_table_finds(
            a in prop::collection::vec(0u8..4, 0..200),
            b in prop::collection::vec(0u8..4, 0..200),
        ) {
            let found = matches_backwards(&a, &b);
            let len: usize = found.iter().map(|m| m.len).sum();
            prop_assert_eq!(len, last_row(&a, &b, |_| {}));
            prop_assert_eq!(found, naive(&a, &b));
        }
    }
}
