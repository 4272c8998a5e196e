//! HyperLogLog: estimates the number of different elements within 0.81 %, in at most 12 KB. A
//! HyperLogLog is a plain string whose bytes are in RDB files and DUMP payloads, so the bytes are
//! equal to those of Redis.
//!
//! ```text
//!   "HYLL" | encoding | 0 0 0 | cached cardinality: 8 bytes, little endian | registers
//!            0 dense            its top bit set: stale
//!            1 sparse
//!
//!   dense    16384 registers of 6 bits, lowest bit first: 12288 bytes
//!   sparse   runs of registers:   00nnnnnn            ZERO   n+1 zeros, 1..64
//!                                 01nnnnnn nnnnnnnn   XZERO  n+1 zeros, 1..16384
//!                                 1vvvvvnn            VAL    n+1 times the value v+1: 1..4 times 1..32
//! ```
//!
//! An element's hash has 64 bits: the low 14 choose a register, and the register keeps the largest
//! "position of the first one bit" among the other 50 bits of all hashes. The estimator is that of
//! Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (arXiv:1702.01284),
//! with its functions sigma and tau.
//!
//! A sparse value is changed in place, run by run, exactly as in Redis, including the merging of
//! neighbouring runs, so that aeris and Redis have the same bytes after the same commands. A sparse
//! value becomes dense when it would exceed `hll-sparse-max-bytes` or a register exceeds 32.
//!
//! **Invariant:** no string of bytes, however corrupt, makes a function of this file panic (test
//! `corrupt_values_are_safe`).
//! **Invariant:** the sparse and the dense form of a HyperLogLog that got the same changes agree on
//! every register (test `sparse_is_dense_in_fewer_bytes`).

/// The error that Redis calls INVALIDOBJ: the string passes `is_hll`, but its sparse runs are not
/// valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// The encodings of the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Dense,
    Sparse,
}

const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
/// The number of bits of an element's hash in which the first one bit is searched.
const COUNTED_BITS: u32 = 64 - INDEX_BITS;
const HEADER_SIZE: usize = 16;
const DENSE_SIZE: usize = HEADER_SIZE + REGISTERS * 6 / 8;
const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const CACHE: std::ops::Range<usize> = 8..16;
const STALE: u8 = 0x80;
const HASH_SEED: u64 = 0xadc8_3b19;

/// Whether a string is a HyperLogLog. For any other string Redis replies with WRONGTYPE.
pub fn is_hll(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_SIZE
        && bytes.starts_with(MAGIC)
        && match bytes[ENCODING_AT] {
            0 => bytes.len() == DENSE_SIZE,
            1 => true,
            _ => false,
        }
}

/// An empty HyperLogLog: sparse, all registers zero, with the cached cardinality 0.
pub fn create() -> Vec<u8> {
    let mut hll = vec![0; HEADER_SIZE];
    hll[..4].copy_from_slice(MAGIC);
    hll[ENCODING_AT] = 1;
    push_zeros(&mut hll, REGISTERS);
    hll
}

/// The encoding of a HyperLogLog. Like all functions after `create` in this file, `encoding`
/// requires that `is_hll` has accepted the string.
pub fn encoding(hll: &[u8]) -> Encoding {
    match hll.get(ENCODING_AT) {
        Some(0) => Encoding::Dense,
        _ => Encoding::Sparse,
    }
}

/// The cached cardinality; `None` if elements were added after it was computed.
pub fn cached_count(hll: &[u8]) -> Option<u64> {
    let cache: [u8; 8] = hll.get(CACHE)?.try_into().ok()?;
    (cache[7] & STALE == 0).then(|| u64::from_le_bytes(cache))
}

/// Stores the cardinality that `count` has computed as the cached cardinality of the HyperLogLog.
pub fn set_cached_count(hll: &mut [u8], count: u64) {
    if let Some(cache) = hll.get_mut(CACHE) {
        cache.copy_from_slice(&count.to_le_bytes());
    }
}

/// Marks the cached cardinality as stale, so that the next PFCOUNT computes the cardinality again.
pub fn invalidate_cache(hll: &mut [u8]) {
    if let Some(byte) = hll.get_mut(CACHE.end - 1) {
        *byte |= STALE;
    }
}

/// Adds an element. Returns whether a register changed; `Corrupt` if the value is no valid
/// HyperLogLog. `sparse_max` is `hll-sparse-max-bytes`.
pub fn add(hll: &mut Vec<u8>, element: &[u8], sparse_max: usize) -> Result<bool, Corrupt> {
    let (index, value) = place(element);
    let changed = raise(hll, index, value, sparse_max)?;
    if changed {
        invalidate_cache(hll);
    }
    Ok(changed)
}

/// The register of an element, and the element's value for it: 1 to 51.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let index = hash as usize & (REGISTERS - 1);
    // A one bit is set behind the last counted bit of the hash, in case all counted bits are zero.
    let counted = hash >> INDEX_BITS | 1 << COUNTED_BITS;
    (index, counted.trailing_zeros() as u8 + 1)
}

/// Raises a register to `value`. Returns whether the register was lower than `value`.
fn raise(hll: &mut Vec<u8>, index: usize, value: u8, sparse_max: usize) -> Result<bool, Corrupt> {
    match encoding(hll) {
        Encoding::Dense => Ok(dense::raise(&mut hll[HEADER_SIZE..], index, value)),
        Encoding::Sparse => raise_sparse(hll, index, value, sparse_max),
    }
}

/// MurmurHash64A by Austin Appleby, reading little-endian words.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

mod dense {
    //! Registers of 6 bits, the first one in the lowest bits of the first byte. Four registers fill
    //! three bytes.

    use super::REGISTERS;

    /// The index of the byte in which a register begins, and the register's shift in this byte; a
    /// register may end in the next byte.
    fn locate(index: usize) -> (usize, u32) {
        (index * 6 / 8, (index * 6 % 8) as u32)
    }

    /// The value of a dense register, 0 to 63.
    pub fn get(registers: &[u8], index: usize) -> u8 {
        let (at, shift) = locate(index);
        let high = registers.get(at + 1).copied().unwrap_or(0);
        (u16::from_le_bytes([registers[at], high]) >> shift) as u8 & 63
    }

    /// Sets a dense register to the low six bits of `value`.
    pub fn set(registers: &mut [u8], index: usize, value: u8) {
        let (at, shift) = locate(index);
        let mask = (63u16 << shift).to_le_bytes();
        let bits = (u16::from(value & 63) << shift).to_le_bytes();
        registers[at] = registers[at] & !mask[0] | bits[0];
        if let Some(next) = registers.get_mut(at + 1) {
            *next = *next & !mask[1] | bits[1];
        }
    }

    /// Raises a register to `value`. Returns whether the register was lower than `value`.
    pub fn raise(registers: &mut [u8], index: usize, value: u8) -> bool {
        let higher = value > get(registers, index);
        if higher {
            set(registers, index, value);
        }
        higher
    }

    /// Raises each register to the packed register of the same index, if the packed one is higher.
    /// Each step unpacks 12 bytes into 16 registers.
    #[inline(always)]
    pub fn raise_all(registers: &mut [u8; REGISTERS], packed: &[u8]) {
        let (targets, _) = registers.as_chunks_mut::<16>();
        let (sources, _) = packed.as_chunks::<12>();
        for (target, source) in targets.iter_mut().zip(sources) {
            let (triples, _) = source.as_chunks::<3>();
            let mut unpacked = [0; 16];
            let (fours, _) = unpacked.as_chunks_mut::<4>();
            for (four, [a, b, c]) in fours.iter_mut().zip(triples) {
                let bits = u32::from_le_bytes([*a, *b, *c, 0]);
                let spread = bits & 0x3f
                    | bits << 2 & 0x3f00
                    | bits << 4 & 0x3f_0000
                    | bits << 6 & 0x3f00_0000;
                *four = spread.to_le_bytes();
            }
            for (register, value) in target.iter_mut().zip(unpacked) {
                *register = value.max(*register);
            }
        }
    }

    /// Packs all registers, given as a byte each, into the registers of six bits of a dense value.
    pub fn pack_all(registers: &[u8; REGISTERS], packed: &mut [u8]) {
        let (fours, _) = registers.as_chunks::<4>();
        let (triples, _) = packed.as_chunks_mut::<3>();
        for (triple, four) in triples.iter_mut().zip(fours) {
            let [a, b, c, d] = four.map(u32::from);
            let bits = (a | b << 6 | c << 12 | d << 18).to_le_bytes();
            triple.copy_from_slice(&bits[..3]);
        }
    }
}

/// One run of equal registers in a sparse value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The value of the run's registers: 0 for ZERO and XZERO.
    value: u8,
    length: usize,
    /// Whether the run's encoding takes two bytes (XZERO).
    wide: bool,
}

const MAX_ZERO_RUN: usize = 64;
const MAX_VALUE_RUN: usize = 4;
const MAX_SPARSE_VALUE: u8 = 32;

impl Run {
    fn read(runs: &[u8]) -> Result<Run, Corrupt> {
        let run = |value, length, wide| Run {
            value,
            length,
            wide,
        };
        match *runs {
            [byte @ 0x80..=0xff, ..] => {
                Ok(run((byte >> 2 & 31) + 1, usize::from(byte & 3) + 1, false))
            }
            [byte @ 0..=0x3f, ..] => Ok(run(0, usize::from(byte) + 1, false)),
            [high, low, ..] => {
                let zeros = u16::from_be_bytes([high & 63, low]);
                Ok(run(0, usize::from(zeros) + 1, true))
            }
            _ => Err(Corrupt),
        }
    }

    fn size(self) -> usize {
        1 + usize::from(self.wide)
    }
}

/// Iterates over the runs of a sparse value, with the offset of each run in the string and the
/// index of the run's first register.
fn runs(hll: &[u8]) -> impl Iterator<Item = Result<(usize, usize, Run), Corrupt>> + '_ {
    let (mut at, mut first) = (HEADER_SIZE, 0);
    std::iter::from_fn(move || {
        let rest = hll.get(at..).filter(|rest| !rest.is_empty())?;
        let run = match Run::read(rest) {
            Ok(run) => run,
            Err(error) => {
                at = hll.len();
                return Some(Err(error));
            }
        };
        let place = (at, first, run);
        at += run.size();
        first += run.length;
        Some(Ok(place))
    })
}

fn push_zeros(out: &mut Vec<u8>, length: usize) {
    match length {
        0 => {}
        1..=MAX_ZERO_RUN => out.push(length as u8 - 1),
        _ => {
            let bits = (length - 1) as u16;
            out.extend_from_slice(&(bits | 0x4000).to_be_bytes());
        }
    }
}

fn value_byte(value: u8, length: usize) -> u8 {
    0x80 | (value - 1) << 2 | (length as u8 - 1)
}

fn push_run(out: &mut Vec<u8>, value: u8, length: usize) {
    match (value, length) {
        (0, _) => push_zeros(out, length),
        (_, 0) => {}
        _ => out.push(value_byte(value, length)),
    }
}

/// Replaces the run that contains the register by up to three runs: the registers before it, the
/// register, the registers behind it. Finally, neighbouring runs whose registers have equal values
/// are joined.
fn raise_sparse(
    hll: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max: usize,
) -> Result<bool, Corrupt> {
    if value > MAX_SPARSE_VALUE {
        return promote(hll, index, value);
    }
    let mut previous = HEADER_SIZE;
    let mut found = None;
    for run in runs(hll) {
        let (at, first, run) = run?;
        if first + run.length > index {
            found = Some((at, first, run));
            break;
        }
        previous = at;
    }
    let (at, first, run) = found.ok_or(Corrupt)?;
    if run.value >= value {
        return Ok(false);
    }
    let mut split = Vec::with_capacity(5);
    push_run(&mut split, run.value, index - first);
    push_run(&mut split, value, 1);
    push_run(&mut split, run.value, first + run.length - index - 1);
    let grown = hll.len() + split.len() - run.size();
    if split.len() > run.size() && grown > sparse_max {
        return promote(hll, index, value);
    }
    hll.splice(at..at + run.size(), split);
    join_values(hll, previous);
    Ok(true)
}

/// Joins equal VAL runs among the five runs from `at` on. The change of one register can have made
/// no other runs equal.
fn join_values(hll: &mut Vec<u8>, mut at: usize) {
    let mut looked = 0;
    while looked < 5 {
        looked += 1;
        let Ok(run) = Run::read(&hll[at.min(hll.len())..]) else {
            return;
        };
        match hll.get(at + 1).map(|next| Run::read(&[*next])) {
            Some(Ok(next)) if run.value != 0 && next.value == run.value => {
                let length = run.length + next.length;
                if length <= MAX_VALUE_RUN {
                    hll[at + 1] = value_byte(run.value, length);
                    hll.remove(at);
                    continue;
                }
            }
            _ => {}
        }
        at += run.size();
    }
}

/// Makes a sparse value dense and raises the register whose new value did not fit the sparse form.
fn promote(hll: &mut Vec<u8>, index: usize, value: u8) -> Result<bool, Corrupt> {
    to_dense(hll)?;
    Ok(dense::raise(&mut hll[HEADER_SIZE..], index, value))
}

/// Makes a sparse value dense. Returns whether the value was sparse. The cached cardinality stays
/// valid.
pub fn to_dense(hll: &mut Vec<u8>) -> Result<bool, Corrupt> {
    if encoding(hll) == Encoding::Dense {
        return Ok(false);
    }
    let registers = Registers::read(hll)?;
    hll.truncate(HEADER_SIZE);
    hll.resize(DENSE_SIZE, 0);
    hll[ENCODING_AT] = 0;
    dense::pack_all(&registers.0, &mut hll[HEADER_SIZE..]);
    Ok(true)
}

/// The runs in the form of PFDEBUG DECODE (`z:9 v:2,1 Z:16374`); `None` if the value is dense.
pub fn decode(hll: &[u8]) -> Option<String> {
    if encoding(hll) == Encoding::Dense {
        return None;
    }
    let shown = runs(hll).flatten().map(|(_, _, run)| match run {
        Run {
            value: 0,
            length,
            wide: true,
        } => format!("Z:{length}"),
        Run {
            value: 0, length, ..
        } => format!("z:{length}"),
        Run { value, length, .. } => format!("v:{value},{length}"),
    });
    Some(shown.collect::<Vec<_>>().join(" "))
}

/// Estimates the cardinality from the registers.
pub fn count(hll: &[u8]) -> Result<u64, Corrupt> {
    Ok(Registers::read(hll)?.count())
}

/// All registers of a HyperLogLog, with a byte for each register. PFCOUNT and PFMERGE merge several
/// HyperLogLogs in this form.
pub struct Registers([u8; REGISTERS]);

impl Default for Registers {
    fn default() -> Self {
        Registers([0; REGISTERS])
    }
}

impl Registers {
    /// The registers of a HyperLogLog, sparse or dense.
    pub fn read(hll: &[u8]) -> Result<Self, Corrupt> {
        let mut registers = Self::default();
        registers.merge(hll, true)?;
        Ok(registers)
    }

    /// The values of all registers, a byte for each register.
    pub fn values(&self) -> &[u8] {
        &self.0
    }

    /// Raises every register to the register of the same index in `hll`, if that is higher. With
    /// `simd`, AVX2 instructions are used if the processor has them.
    pub fn merge(&mut self, hll: &[u8], simd: bool) -> Result<(), Corrupt> {
        match encoding(hll) {
            Encoding::Dense => {
                self.merge_dense(hll.get(HEADER_SIZE..).unwrap_or_default(), simd);
                Ok(())
            }
            Encoding::Sparse => self.merge_sparse(hll),
        }
    }

    fn merge_dense(&mut self, packed: &[u8], simd: bool) {
        #[cfg(target_arch = "x86_64")]
        if simd && is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as `is_x86_feature_detected` has just found.
            return unsafe { raise_all_avx2(&mut self.0, packed) };
        }
        dense::raise_all(&mut self.0, packed);
    }

    fn merge_sparse(&mut self, hll: &[u8]) -> Result<(), Corrupt> {
        let mut covered = 0;
        for run in runs(hll) {
            let (_, first, run) = run?;
            covered = first + run.length;
            let registers = self.0.get_mut(first..covered).ok_or(Corrupt)?;
            if run.value != 0 {
                registers
                    .iter_mut()
                    .for_each(|register| *register = run.value.max(*register));
            }
        }
        if covered == REGISTERS {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }

    /// Raises the registers of `hll` to these registers, which are the union of several
    /// HyperLogLogs: the second half of PFMERGE. With `dense` the value becomes dense first;
    /// otherwise its encoding follows the rules of `add`.
    pub fn store(&self, hll: &mut Vec<u8>, dense: bool, sparse_max: usize) -> Result<(), Corrupt> {
        if dense {
            to_dense(hll)?;
        }
        for (index, &value) in self.0.iter().enumerate() {
            if value != 0 {
                raise(hll, index, value, sparse_max)?;
            }
        }
        invalidate_cache(hll);
        Ok(())
    }

    /// The number of registers with each value. The registers are counted in four tables: a value
    /// often repeats, and in a single table each increment would have to wait for the increment
    /// before it.
    fn histogram(&self) -> [u32; 64] {
        let mut tables = [[0u32; 64]; 4];
        let (fours, _) = self.0.as_chunks::<4>();
        for four in fours {
            for (table, value) in tables.iter_mut().zip(four) {
                table[usize::from(value & 63)] += 1;
            }
        }
        std::array::from_fn(|value| tables.iter().map(|table| table[value]).sum())
    }

    /// Estimates the cardinality by Ertl's formula.
    pub fn count(&self) -> u64 {
        // The estimator's constant alpha is 1 / (2 ln 2).
        const ALPHA_INF: f64 = 0.721_347_520_444_481_7;
        let histogram = self.histogram();
        let m = REGISTERS as f64;
        let top = COUNTED_BITS as usize + 1;
        let mut z = m * tau((m - f64::from(histogram[top])) / m);
        for value in (1..top).rev() {
            z += f64::from(histogram[value]);
            z *= 0.5;
        }
        z += m * sigma(f64::from(histogram[0]) / m);
        (ALPHA_INF * m * m / z).round() as u64
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn raise_all_avx2(registers: &mut [u8; REGISTERS], packed: &[u8]) {
    dense::raise_all(registers, packed);
}

/// The estimator's correction for registers that are zero: x + sum of x^(2^k) * 2^(k-1).
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut z, mut y) = (x, 1.0);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// The estimator's correction for registers at their largest value.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut z, mut y) = (1.0 - x, 1.0);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// PFSELFTEST: checks that a write changes one register only, that estimates are within six
/// standard errors, and that the sparse and the dense form give the same estimate. The elements are
/// generated from `seed`.
pub fn self_test(seed: u64) -> Result<(), String> {
    const SPARSE_TESTED: u64 = 1000;
    test_registers(seed)?;
    let mut hll = create();
    to_dense(&mut hll).map_err(|_| "TESTFAILED a new value is corrupt")?;
    let mut sparse = create();
    // The standard error is 1.04 / sqrt(16384).
    let relative_error = 1.04 / (REGISTERS as f64).sqrt();
    let mut checkpoint = 1;
    for element in 1..=1_000_000u64 {
        let bytes = (element ^ seed).to_le_bytes();
        let (index, value) = place(&bytes);
        dense::raise(&mut hll[HEADER_SIZE..], index, value);
        if element <= SPARSE_TESTED {
            add(&mut sparse, &bytes, usize::MAX)
                .map_err(|_| "TESTFAILED sparse value is corrupt")?;
        }
        if element != checkpoint {
            continue;
        }
        let estimate = count(&hll).unwrap_or(0);
        let allowed = match checkpoint {
            10 => 1,
            _ => (relative_error * 6.0 * checkpoint as f64).ceil() as u64,
        };
        if estimate.abs_diff(checkpoint) > allowed {
            return Err(format!(
                "TESTFAILED Too big error. card:{checkpoint} abserr:{}",
                estimate.abs_diff(checkpoint)
            ));
        }
        if checkpoint <= SPARSE_TESTED && count(&sparse) != Ok(estimate) {
            return Err("TESTFAILED dense/sparse disagree".to_owned());
        }
        checkpoint *= 10;
    }
    Ok(())
}

fn test_registers(seed: u64) -> Result<(), String> {
    let mut packed = vec![0; DENSE_SIZE - HEADER_SIZE];
    for round in 0..16u64 {
        let wanted = |index: usize| murmur64a(&index.to_le_bytes(), seed ^ round) as u8 & 63;
        for index in 0..REGISTERS {
            dense::set(&mut packed, index, wanted(index));
        }
        for index in 0..REGISTERS {
            let read = dense::get(&packed, index);
            if read != wanted(index) {
                return Err(format!(
                    "TESTFAILED Register {index} should be {} but is {read}",
                    wanted(index)
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SPARSE_MAX: usize = 3000;
    /// The number of registers after which the registers of a test repeat their values.
    const PERIOD: usize = scaled(REGISTERS, 128);

    fn with(elements: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
        let mut hll = create();
        for element in elements {
            add(&mut hll, element.as_ref(), SPARSE_MAX).unwrap();
        }
        hll
    }

    /// Compares HyperLogLogs with the bytes that a real Redis server holds after the same PFADD.
    #[test]
    fn bytes_of_a_real_server() {
        assert_eq!(create(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
        let one = with(["a"]);
        assert_eq!(one, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80q\xa6\x84NW");
        assert_eq!(decode(&one).unwrap(), "Z:12711 v:2,1 Z:3672");
        let eleven = with(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
        assert_eq!(
            eleven[HEADER_SIZE..],
            b"Fm\x80I\xe8\x80L\"\x80D<\x848\x80B=\x80K\x83\x80B\xed\x84A\xfc\x8cG\x8e\x80Bm\x80BZ"
                [..]
        );
        assert_eq!(count(&eleven), Ok(11));
    }

    #[test]
    fn the_cache_is_stale_after_an_addition() {
        let mut hll = create();
        assert_eq!(cached_count(&hll), Some(0));
        assert_eq!(add(&mut hll, b"a", SPARSE_MAX), Ok(true));
        assert_eq!(cached_count(&hll), None);
        set_cached_count(&mut hll, 1);
        assert_eq!(cached_count(&hll), Some(1));
        assert_eq!(add(&mut hll, b"a", SPARSE_MAX), Ok(false));
        assert_eq!(cached_count(&hll), Some(1));
    }

    #[test]
    #[cfg_attr(miri, ignore = "an estimate of 20,000 elements")]
    fn many_elements_make_it_dense() {
        let hll = with((0..20_000u32).map(|n| n.to_string()));
        assert_eq!((encoding(&hll), hll.len()), (Encoding::Dense, DENSE_SIZE));
        let estimate = count(&hll).unwrap();
        assert!(estimate.abs_diff(20_000) < 500, "{estimate}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "an estimate of a million elements")]
    fn self_test_passes() {
        assert_eq!(self_test(1), Ok(()));
    }

    #[test]
    fn what_is_a_hyperloglog() {
        let sparse = |runs: &[u8]| [b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80", runs].concat();
        assert!(is_hll(&sparse(b"")));
        assert!(!is_hll(&sparse(b"")[..15]));
        assert!(!is_hll(b"HYLX\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff"));
        assert!(!is_hll(b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff"));
        assert!(!is_hll(b"HYLL\0\0\0\0\0\0\0\0\0\0\0\0"));
        for runs in [
            &b""[..],
            b"\x7f\xfe",
            b"\x7f\xff\0",
            b"\x7f",
            b"\x7f\xff\x80",
        ] {
            assert_eq!(count(&sparse(runs)), Err(Corrupt), "{runs:?}");
            assert_eq!(to_dense(&mut sparse(runs)), Err(Corrupt), "{runs:?}");
        }
        assert_eq!(
            count(&sparse(&b"\xff".repeat(4096))),
            Ok(50_760_319_129_350)
        );
    }

    fn elements() -> impl Strategy<Value = Vec<u16>> {
        vec(any::<u16>(), 0..scaled(400, 50))
    }

    proptest! {
        #![proptest_config(crate::ds::cases(scaled(64, 1) as u32))]

        #[test]
        fn sparse_is_dense_in_fewer_bytes(changes in vec((0..REGISTERS, 1u8..=32), 1..scaled(300, 60)), near in vec((0..40usize, 1u8..4), 0..scaled(200, 60))) {
            let mut sparse = create();
            let mut dense = create();
            to_dense(&mut dense).unwrap();
            for (index, value) in changes.into_iter().chain(near) {
                let changed = raise(&mut sparse, index, value, usize::MAX).unwrap();
                prop_assert_eq!(raise(&mut dense, index, value, 0), Ok(changed));
            }
            prop_assert_eq!(encoding(&sparse), Encoding::Sparse);
            let registers = Registers::read(&sparse).unwrap();
            prop_assert!(registers.0 == Registers::read(&dense).unwrap().0);
            to_dense(&mut sparse).unwrap();
            prop_assert!(sparse == dense);
        }

        #[test]
        fn merging_takes_the_larger(left in elements(), right in elements(), dense: bool, simd: bool) {
            let bytes = |elements: &[u16]| with(elements.iter().map(|element| element.to_le_bytes()));
            let both: Vec<u16> = left.iter().chain(&right).copied().collect();
            let (mut target, mut other) = (bytes(&left), bytes(&right));
            if dense {
                to_dense(&mut other).unwrap();
            }
            let mut registers = Registers::read(&target).unwrap();
            registers.merge(&other, simd).unwrap();
            registers.store(&mut target, dense, SPARSE_MAX).unwrap();
            let expected = Registers::read(&bytes(&both)).unwrap();
            prop_assert!(Registers::read(&target).unwrap().0 == expected.0);
            prop_assert_eq!(registers.count(), expected.count());
        }

        #[test]
        fn packed_registers_unpack(values in vec(0u8..64, PERIOD), simd: bool) {
            let values = values.repeat(REGISTERS / PERIOD);
            let mut packed = vec![0; DENSE_SIZE - HEADER_SIZE];
            for (index, value) in values.iter().enumerate() {
                dense::set(&mut packed, index, *value);
            }
            let mut registers = Registers::default();
            registers.merge_dense(&packed, simd);
            prop_assert!(registers.0 == values[..]);
            let mut again = packed.clone();
            dense::pack_all(&registers.0, &mut again);
            prop_assert!(packed == again);
        }

        #[test]
        fn corrupt_values_are_safe(runs in vec(any::<u8>(), 0..60), elements in vec(any::<u32>(), 0..20)) {
            let mut hll = [&create()[..HEADER_SIZE], &runs].concat();
            for element in elements {
                let _ = add(&mut hll, &element.to_le_bytes(), SPARSE_MAX);
            }
            let _ = (count(&hll), decode(&hll), to_dense(&mut hll));
        }
    }
}
