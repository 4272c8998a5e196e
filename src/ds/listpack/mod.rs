//! Listpack: a sequence of strings and integers in one block of bytes, byte for byte as Redis
//! writes it.
//!
//! Small lists, hashes, sets, sorted sets, and the nodes of big lists and streams are listpacks,
//! because RDB files, DUMP and replication contain these bytes.
//!
//! ```text
//!   | total bytes u32 | elements u16 | entry | entry | ... | 0xFF |        (all numbers little endian)
//!
//!   entry:  | encoding and data | backlen |       backlen = size of "encoding and data"
//!
//!   0xxxxxxx                         integer 0 ..= 127
//!   10llllll  data                   string of at most 63 bytes
//!   110xxxxx xxxxxxxx                integer of 13 bits, two's complement
//!   1110llll llllllll  data          string of at most 4095 bytes
//!   11110000 l l l l   data          string of up to 2^32 - 1 bytes
//!   11110001 .. 11110100             integer of 16, 24, 32, 64 bits
//!   11111111                         the end
//! ```
//!
//! The backlen at the end of each entry makes walking backwards through a listpack possible. A
//! backlen is a base-128 number, most significant group first; every byte of it but the first has
//! its high bit set, so that a backlen can be read from its end.
//!
//! A text that is a canonical integer (`parse_i64`) is stored as an integer, in the smallest
//! encoding. An element count of 65,535 in a listpack's header means "unknown": `len` then walks
//! over the entries.
//!
//! A position (`Pos`) is the offset of an entry; a change of an entry's size moves all entries
//! after it. Before a listpack grows, `safe_to_add` checks the limit of 1 GB, as in Redis.
//!
//! **Invariant:** the bytes of a listpack are well formed, from the header to the end mark,
//! including the backlens: `Listpack::from_bytes` refuses all other bytes (`validate`), and every
//! change keeps a listpack well formed (test `histories_match_a_vector`). So reading a listpack
//! needs no error path; a bug in this file would panic at a bounds check, but not read foreign
//! memory.
//! **Invariant:** the first four bytes of a listpack are its length; only `splice` writes this
//! length.
//!
//! Costs: access at the ends is O(1); access by index or value is O(bytes), but in one block, which
//! the CPU prefetches. Rejected for listpacks: keeping a capacity (8 bytes for each small hash, see
//! `thin_buffer`); an index of the entries.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::ptr::NonNull;

use crate::ds::thin_buffer::{ThinBytes, size_class};
use crate::util::number::{IntBuf, parse_i64};

mod front;
mod iter;
mod sample;
#[cfg(test)]
mod tests;

pub use front::FrontPack;
pub use iter::{Iter, RevIter};

/// The offset of an entry, in bytes from the start of the block.
pub type Pos = u32;

const HEADER: usize = 6;
/// The size of a listpack without elements.
pub const EMPTY_BYTES: usize = HEADER + 1;
const END: u8 = 0xFF;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// The maximum size of a listpack, whatever the settings are.
pub const SAFETY_LIMIT: usize = 1 << 30;

const STR_6: u8 = 0x80;
const INT_13: u8 = 0xC0;
const STR_12: u8 = 0xE0;
const STR_32: u8 = 0xF0;
const INT_16: u8 = 0xF1;
const INT_24: u8 = 0xF2;
const INT_32: u8 = 0xF3;
const INT_64: u8 = 0xF4;

/// The content of a listpack's entry. A string that `Element::from` makes is never the text of an
/// integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element<'a> {
    Int(i64),
    Str(&'a [u8]),
}

impl<'a> Element<'a> {
    /// The element's text; the text of an integer is written to `buf`.
    #[inline]
    pub fn text<'b>(&self, buf: &'b mut IntBuf) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Element::Int(int) => buf.format(int),
            Element::Str(text) => text,
        }
    }

    /// A copy of the element's text.
    pub fn to_vec(&self) -> Vec<u8> {
        self.text(&mut IntBuf::new()).to_vec()
    }

    /// The length of the element's text.
    pub fn text_len(&self) -> usize {
        self.text(&mut IntBuf::new()).len()
    }

    /// The integer whose text the element has; `None` if the text is no integer.
    pub fn as_int(&self) -> Option<i64> {
        match *self {
            Element::Int(int) => Some(int),
            Element::Str(text) => parse_i64(text),
        }
    }

    /// Whether two elements have the same text. A listpack that another program has written may
    /// store `12` as a string.
    #[inline]
    pub fn same_text(&self, other: &Element) -> bool {
        match (self, other) {
            (Element::Str(a), Element::Str(b)) => a == b,
            (Element::Int(a), Element::Int(b)) => a == b,
            (Element::Int(int), Element::Str(text)) | (Element::Str(text), Element::Int(int)) => {
                parse_i64(text) == Some(*int)
            }
        }
    }

    /// The size of an entry with this element, including the backlen.
    #[inline]
    pub fn entry_size(self) -> usize {
        ListpackEntry::new(self).size()
    }
}

impl<'a> From<&'a [u8]> for Element<'a> {
    #[inline]
    fn from(text: &'a [u8]) -> Self {
        match parse_i64(text) {
            Some(int) => Element::Int(int),
            None => Element::Str(text),
        }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Element<'a> {
    fn from(text: &'a [u8; N]) -> Self {
        Element::from(&text[..])
    }
}

impl From<i64> for Element<'_> {
    #[inline]
    fn from(int: i64) -> Self {
        Element::Int(int)
    }
}

/// A listpack entry to be written: `head` has its encoding byte and, for an integer, the integer's
/// bytes; `data` has a string's bytes.
struct ListpackEntry<'a> {
    head: [u8; 9],
    head_len: u8,
    data: &'a [u8],
}

impl<'a> ListpackEntry<'a> {
    #[inline]
    fn new(element: Element<'a>) -> Self {
        match element {
            Element::Int(int) => Self::of_int(int),
            Element::Str(text) => Self::of_str(text),
        }
    }

    fn of_int(int: i64) -> Self {
        let mut head = [0; 9];
        let le = int.to_le_bytes();
        let bits = 64 - (int ^ (int >> 63)).leading_zeros() + 1;
        let head_len = match bits {
            _ if (0..=127).contains(&int) => {
                head[0] = le[0];
                1
            }
            0..=13 => {
                head[0] = INT_13 | (le[1] & 0x1F);
                head[1] = le[0];
                2
            }
            14..=16 => {
                head[0] = INT_16;
                3
            }
            17..=24 => {
                head[0] = INT_24;
                4
            }
            25..=32 => {
                head[0] = INT_32;
                5
            }
            _ => {
                head[0] = INT_64;
                9
            }
        };
        if head_len > 2 {
            head[1..head_len].copy_from_slice(&le[..head_len - 1]);
        }
        Self {
            head,
            head_len: head_len as u8,
            data: &[],
        }
    }

    fn of_str(text: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let len = u32::try_from(text.len()).expect("callers ask safe_to_add");
        let head_len = match len {
            0..=63 => {
                head[0] = STR_6 | len as u8;
                1
            }
            64..=4095 => {
                head[0] = STR_12 | (len >> 8) as u8;
                head[1] = len as u8;
                2
            }
            _ => {
                head[0] = STR_32;
                head[1..5].copy_from_slice(&len.to_le_bytes());
                5
            }
        };
        Self {
            head,
            head_len,
            data: text,
        }
    }

    #[inline]
    fn body(&self) -> usize {
        self.head_len as usize + self.data.len()
    }

    #[inline]
    fn size(&self) -> usize {
        self.body() + backlen_size(self.body())
    }

    /// Writes the entry to `out`, which must have `size` bytes.
    #[inline]
    fn write(&self, out: &mut [u8]) {
        let (head, body) = (self.head_len as usize, self.body());
        out[..head].copy_from_slice(&self.head[..head]);
        out[head..body].copy_from_slice(self.data);
        write_backlen(&mut out[body..], body);
    }
}

/// The size of the backlen of an entry whose encoding and data have `body` bytes. Redis compares
/// with `<` where `<=` would do, so that an entry of 16,383 bytes has a backlen of three bytes;
/// existing files contain such backlens.
#[inline]
const fn backlen_size(body: usize) -> usize {
    match body {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

#[inline]
fn write_backlen(out: &mut [u8], body: usize) {
    if let [only] = out {
        *only = body as u8;
        return;
    }
    let mut rest = body;
    for byte in out.iter_mut().rev() {
        *byte = (rest & 127) as u8 | 128;
        rest >>= 7;
    }
    out[0] &= 127;
}

/// Reads the backlen that ends before `end`. Returns the size of the entry's encoding and data, and
/// the size of the backlen itself.
#[inline]
fn read_backlen(bytes: &[u8], end: usize) -> (usize, usize) {
    let mut body = 0;
    for size in 1..=5 {
        let byte = bytes[end - size];
        body |= usize::from(byte & 127) << (7 * (size - 1));
        if byte & 128 == 0 {
            return (body, size);
        }
    }
    unreachable!("a backlen has at most five bytes")
}

/// The size of the encoding and data of the entry at `at`. The bytes that hold the entry's encoding
/// and length must exist.
#[inline]
fn body_len(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        0..STR_6 => 1,
        head @ STR_6..INT_13 => 1 + usize::from(head & 0x3F),
        INT_13..STR_12 => 2,
        head @ STR_12..STR_32 => 2 + (usize::from(head & 0x0F) << 8 | usize::from(bytes[at + 1])),
        STR_32 => 5 + u32::from_le_bytes(array(bytes, at + 1)) as usize,
        INT_16 => 3,
        INT_24 => 4,
        INT_32 => 5,
        _ => 9,
    }
}

/// The size of an entry, including its backlen, by its first byte; 0 if the size does not follow
/// from the first byte. Walks over a listpack do little else than look up the sizes of entries, and
/// a look-up in this table (four cache lines) takes half the time of [`body_len`].
static SIZES: [u8; 256] = {
    let mut sizes = [0; 256];
    let mut head = 0;
    while head < 256 {
        sizes[head] = match head as u8 {
            0..STR_6 => 2,
            short @ STR_6..INT_13 => 2 + (short & 0x3F),
            INT_13..STR_12 => 3,
            INT_16 => 4,
            INT_24 => 5,
            INT_32 => 6,
            INT_64 => 10,
            _ => 0,
        };
        head += 1;
    }
    sizes
};

/// The size of the entry at `at`, including the backlen.
#[inline]
fn entry_len(bytes: &[u8], at: usize) -> usize {
    match SIZES[usize::from(bytes[at])] {
        0 => {
            let body = body_len(bytes, at);
            body + backlen_size(body)
        }
        size => usize::from(size),
    }
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("inside the block")
}

/// Decodes the element of the entry at `at`. Also returns the position of the next entry.
#[inline]
fn decode(bytes: &[u8], at: usize) -> (Element<'_>, usize) {
    let head = bytes[at];
    let string = |skip: usize, len: usize| {
        let body = skip + len;
        let text = &bytes[at + skip..at + body];
        (Element::Str(text), at + body + backlen_size(body))
    };
    match head {
        0..STR_6 => (Element::Int(i64::from(head)), at + 2),
        STR_6..INT_13 => string(1, usize::from(head & 0x3F)),
        STR_12..STR_32 => string(2, body_len(bytes, at) - 2),
        STR_32 => string(5, body_len(bytes, at) - 5),
        _ => (
            Element::Int(decode_int(bytes, at)),
            entry_len(bytes, at) + at,
        ),
    }
}

fn decode_int(bytes: &[u8], at: usize) -> i64 {
    match bytes[at] {
        head @ INT_13..STR_12 => {
            let raw = u16::from_be_bytes([head, bytes[at + 1]]);
            i64::from((raw << 3) as i16 >> 3)
        }
        INT_16 => i64::from(i16::from_le_bytes(array(bytes, at + 1))),
        INT_24 => {
            let [a, b, c] = array(bytes, at + 1);
            i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
        }
        INT_32 => i64::from(i32::from_le_bytes(array(bytes, at + 1))),
        INT_64 => i64::from_le_bytes(array(bytes, at + 1)),
        other => unreachable!("not an entry: {other:#x}"),
    }
}

/// The size of the entry at `at`, including the backlen. `None` if the entry is not well formed or
/// leaves no room for the listpack's end mark.
fn checked_entry_len(bytes: &[u8], at: usize) -> Option<usize> {
    let head = *bytes.get(at)?;
    let size = usize::from(SIZES[usize::from(head)]);
    if size != 0 {
        // The backlen of such an entry has one byte, whose value is the size of the encoding and
        // data.
        let fits = at + size < bytes.len() && usize::from(bytes[at + size - 1]) == size - 1;
        return fits.then_some(size);
    }
    let head_size = match head {
        STR_12..STR_32 => 2,
        STR_32 => 5,
        _ => return None,
    };
    let room = bytes.len().checked_sub(at + 1)?;
    if head_size > room {
        return None;
    }
    let body = body_len(bytes, at);
    let size = backlen_size(body);
    let backlen = bytes[..bytes.len() - 1].get(at + body..)?.get(..size)?;
    let mut expected = [0; 5];
    write_backlen(&mut expected[..size], body);
    (backlen == &expected[..size]).then_some(body + size)
}

/// Whether `bytes` are a listpack. A shallow check covers only the length in the header and the end
/// mark. A `deep` check also walks over every entry, and must precede any other use of bytes from
/// files and clients.
pub fn validate(bytes: &[u8], deep: bool) -> bool {
    let [a, b, c, d, e, f, .., END] = *bytes else {
        return false;
    };
    if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
        return false;
    }
    if !deep {
        return true;
    }
    let (mut at, mut count) = (HEADER, 0usize);
    while at < bytes.len() - 1 {
        let Some(size) = checked_entry_len(bytes, at) else {
            return false;
        };
        at += size;
        count += 1;
    }
    let stored = u16::from_le_bytes([e, f]);
    at == bytes.len() - 1 && (stored == COUNT_UNKNOWN || usize::from(stored) == count)
}

/// The number of keys in a listpack up to which their fingerprints are compared pairwise, which is
/// cheaper than sorting the fingerprints.
const FEW: usize = 64;

/// Whether the elements are groups of `stride` elements, and no two groups begin with the same
/// text. A listpack from a file or a client must pass `is_keyed` to become a set (`stride` 1), or a
/// hash or a sorted set (`stride` 2). Texts are compared only if two fingerprints are equal.
pub fn is_keyed(listpack: &Listpack, stride: usize) -> bool {
    let len = listpack.len();
    if !len.is_multiple_of(stride) {
        return false;
    }
    let mut keys = listpack.iter().step_by(stride).map(fingerprint);
    let all_differ = if len / stride <= FEW {
        let mut seen = [0; FEW];
        keys.enumerate().all(|(n, key)| {
            seen[n] = key;
            !seen[..n].contains(&key)
        })
    } else {
        let mut seen = Vec::with_capacity(len / stride);
        seen.extend(&mut keys);
        seen.sort_unstable();
        seen.windows(2).all(|pair| pair[0] != pair[1])
    };
    all_differ || texts_differ(listpack, stride)
}

/// The fingerprint of an element: a number that is equal for equal texts, whatever their encoding
/// is, and seldom equal for different texts. A string's fingerprint is made of the first and the
/// last eight bytes and the length of a text.
fn fingerprint(key: Element) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let text = match key {
        Element::Int(int) => return (int as u64).wrapping_mul(MIX),
        Element::Str(text) => text,
    };
    if let Some(int) = parse_i64(text) {
        return (int as u64).wrapping_mul(MIX);
    }
    let (head, tail) = match (text.first_chunk(), text.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (
            text.iter()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
            0,
        ),
    };
    (head.wrapping_mul(MIX) ^ tail).wrapping_mul(MIX) ^ text.len() as u64
}

fn texts_differ(listpack: &Listpack, stride: usize) -> bool {
    let mut seen = HashSet::with_capacity(listpack.len() / stride);
    listpack.iter().step_by(stride).all(|key| match key {
        Element::Str(text) => seen.insert(Element::from(text)),
        int => seen.insert(int),
    })
}

/// Iterates over the entries of listpack bytes that have passed `validate(bytes, true)`.
pub fn iter_bytes(bytes: &[u8]) -> Iter<'_> {
    Iter { bytes, at: HEADER }
}

/// Whether a listpack of `bytes` bytes (0 if there is none yet) stays below the limit of 1 GB with
/// `add` more bytes.
#[inline]
pub fn safe_to_add(bytes: usize, add: usize) -> bool {
    bytes.saturating_add(add) <= SAFETY_LIMIT
}

/// The size of a listpack with `count` times the element `int`. Callers compare this size with the
/// limits of settings before they build a listpack.
pub fn estimate_bytes(int: i64, count: usize) -> usize {
    EMPTY_BYTES + Element::Int(int).entry_size().saturating_mul(count)
}

/// An owned listpack, which has the size of a pointer.
pub struct Listpack(ThinBytes);

const _: () = assert!(size_of::<Option<Listpack>>() == 8);

impl Listpack {
    /// An empty listpack, which allocates when the first element is added.
    pub fn new() -> Self {
        static EMPTY: [u8; 8] = [EMPTY_BYTES as u8, 0, 0, 0, 0, 0, END, 0];
        // The smallest entry of a listpack has two bytes, so adding the first element moves the
        // listpack from the static bytes to an allocation, in another size class.
        const { assert!(size_class(EMPTY_BYTES) == 8 && size_class(EMPTY_BYTES + 2) > 8) }
        Self(ThinBytes::unwritten(&EMPTY))
    }

    /// A listpack whose bytes lie in the entry of its key, `gap` bytes behind the entry's start.
    ///
    /// # Safety
    /// The caller promises what `ThinBytes::lent` requires, and that the bytes at `p` are
    /// a listpack.
    #[inline]
    pub(in crate::ds) unsafe fn lent(p: NonNull<u8>, gap: usize) -> Self {
        // SAFETY: the caller promises what `ThinBytes::lent` requires.
        Self(unsafe { ThinBytes::lent(p, gap) })
    }

    /// Whether the listpack's bytes are inside the entry of its key.
    #[inline]
    pub fn is_in_entry(&self) -> bool {
        self.0.is_in_entry()
    }

    pub(in crate::ds) fn buffer(&self) -> &ThinBytes {
        &self.0
    }

    pub(in crate::ds) fn buffer_mut(&mut self) -> &mut ThinBytes {
        &mut self.0
    }

    /// Moves the listpack into an allocation of its own, so that the listpack can be kept outside
    /// of the key's entry in which it was.
    pub fn into_owned(self) -> Self {
        if self.0.gap() > 0 {
            return self.clone();
        }
        self
    }

    /// A listpack that is a copy of bytes from a file or a client. `None` if the bytes don't pass
    /// the deep check of `validate`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        validate(bytes, true).then(|| Self::copy_of(bytes))
    }

    fn copy_of(bytes: &[u8]) -> Self {
        let mut thin = ThinBytes::zeroed(bytes.len());
        // SAFETY: the buffer has just been created with this length.
        unsafe { thin.slice_mut(bytes.len()) }.copy_from_slice(bytes);
        Self(thin)
    }

    /// The bytes of the listpack, including the header and the end mark.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the header holds the length of the block.
        unsafe { self.0.slice(self.bytes_len()) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.bytes_len();
        // SAFETY: `len` is the length of the block, which its header holds.
        unsafe { self.0.slice_mut(len) }
    }

    /// The size of the listpack in bytes, including the header and the end mark.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        // SAFETY: the block of a listpack has at least the length of the header.
        let header = unsafe { self.0.slice(HEADER) };
        u32::from_le_bytes(array(header, 0)) as usize
    }

    /// The size of the listpack's allocation in bytes.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        size_class(self.0.gap() + self.bytes_len())
    }

    #[inline]
    fn stored_count(&self) -> u16 {
        u16::from_le_bytes(array(self.as_bytes(), 4))
    }

    /// The number of elements. The time is O(1) below 65,535 elements; from there on the elements
    /// are counted by a walk.
    #[inline]
    pub fn len(&self) -> usize {
        match self.stored_count() {
            COUNT_UNKNOWN => self.count_from(HEADER),
            count => usize::from(count),
        }
    }

    #[cold]
    fn count_from(&self, mut at: usize) -> usize {
        let bytes = self.as_bytes();
        let mut count = 0;
        while bytes[at] != END {
            at += entry_len(bytes, at);
            count += 1;
        }
        count
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes_len() == EMPTY_BYTES
    }

    #[inline]
    fn if_entry(&self, at: usize) -> Option<Pos> {
        (self.as_bytes()[at] != END).then_some(at as Pos)
    }

    /// The position of the first entry.
    #[inline]
    pub fn first(&self) -> Option<Pos> {
        self.if_entry(HEADER)
    }

    /// The position of the last entry.
    #[inline]
    pub fn last(&self) -> Option<Pos> {
        self.prev(self.end())
    }

    /// The position of the end mark. An element that is inserted at this position is appended.
    #[inline]
    pub fn end(&self) -> Pos {
        (self.bytes_len() - 1) as Pos
    }

    /// The position of the entry after the one at `pos`, if any.
    #[inline]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let at = pos as usize;
        self.if_entry(at + entry_len(self.as_bytes(), at))
    }

    /// The position of the entry before the one at `pos`, if any.
    #[inline]
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        let at = pos as usize;
        if at == HEADER {
            return None;
        }
        let (body, size) = read_backlen(self.as_bytes(), at);
        Some((at - size - body) as Pos)
    }

    /// The entry at `index`; a negative index counts from the end. The walk to the entry begins at
    /// the nearer end of the listpack.
    pub fn seek(&self, index: i64) -> Option<Pos> {
        let count = self.stored_count();
        let mut index = index;
        if count != COUNT_UNKNOWN {
            let count = i64::from(count);
            if index >= count || index < -count {
                return None;
            }
            match index {
                _ if index >= 0 && index > count / 2 => index -= count,
                _ if index < -(count / 2) - 1 => index += count,
                _ => {}
            }
        }
        if index >= 0 {
            (0..index).try_fold(self.first()?, |pos, _| self.next(pos))
        } else {
            (index..-1).try_fold(self.last()?, |pos, _| self.prev(pos))
        }
    }

    /// The element at a position.
    #[inline]
    pub fn get(&self, pos: Pos) -> Element<'_> {
        decode(self.as_bytes(), pos as usize).0
    }

    /// The element at `pos` and the position after it. The position after the last element is
    /// `end()`.
    #[inline]
    pub fn get_next(&self, pos: Pos) -> (Element<'_>, Pos) {
        let (element, next) = decode(self.as_bytes(), pos as usize);
        (element, next as Pos)
    }

    /// Iterates over all elements of the listpack.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        iter_bytes(self.as_bytes())
    }

    /// Iterates over the elements from the entry at `pos` (or `end()`) to the last.
    pub fn iter_from(&self, pos: Pos) -> Iter<'_> {
        Iter {
            bytes: self.as_bytes(),
            at: pos as usize,
        }
    }

    /// Iterates over the elements from the entry before `pos` back to the first.
    pub fn iter_rev_before(&self, pos: Pos) -> RevIter<'_> {
        RevIter {
            bytes: self.as_bytes(),
            at: pos as usize,
        }
    }

    /// The position of the first entry at or after `from` whose text is `needle`. After each entry
    /// that is compared, `skip` entries are passed over.
    pub fn find(&self, from: Pos, needle: &[u8], skip: usize) -> Option<Pos> {
        match parse_i64(needle) {
            Some(int) => self.find_by(from, skip, |bytes, at| match bytes[at] {
                0..STR_6 => i64::from(bytes[at]) == int,
                _ => decode(bytes, at).0.same_text(&Element::Int(int)),
            }),
            None if needle.len() < 64 => {
                let head = STR_6 | needle.len() as u8;
                self.find_by(from, skip, |bytes, at| match bytes[at] {
                    same if same == head => &bytes[at + 1..at + 1 + needle.len()] == needle,
                    // Listpacks of other programs may store a short length in a long form.
                    STR_12..=STR_32 => decode(bytes, at).0 == Element::Str(needle),
                    _ => false,
                })
            }
            None => self.find_by(from, skip, |bytes, at| {
                decode(bytes, at).0 == Element::Str(needle)
            }),
        }
    }

    #[inline]
    fn find_by(&self, from: Pos, skip: usize, hit: impl Fn(&[u8], usize) -> bool) -> Option<Pos> {
        let bytes = self.as_bytes();
        let mut at = from as usize;
        let mut pass = 0;
        while bytes[at] != END {
            if pass == 0 {
                if hit(bytes, at) {
                    return Some(at as Pos);
                }
                pass = skip + 1;
            }
            pass -= 1;
            at += entry_len(bytes, at);
        }
        None
    }

    /// Passes each element to `visit` until `visit` breaks.
    pub fn try_each<B>(&self, mut visit: impl FnMut(Element) -> ControlFlow<B>) -> Option<B> {
        self.iter().find_map(|element| visit(element).break_value())
    }
}

/// Methods that change a listpack.
impl Listpack {
    /// Replaces `removed` bytes at `at` by room for `inserted` bytes, which the caller fills. Only
    /// `splice` changes the size of a listpack.
    fn splice(&mut self, at: usize, removed: usize, inserted: usize) -> &mut [u8] {
        if removed == 0 && inserted == 0 {
            return &mut [];
        }
        let old = self.bytes_len();
        let new = old - removed + inserted;
        let total = u32::try_from(new).expect("callers ask safe_to_add");
        // SAFETY: `old` is the length of the block; it has `new` bytes when the header gets the
        // length `new`.
        unsafe {
            if new > old {
                self.0.resize(old, new);
            }
            let bytes = self.0.slice_mut(old.max(new));
            bytes.copy_within(at + removed..old, at + inserted);
            bytes[..4].copy_from_slice(&total.to_le_bytes());
            if new < old {
                self.0.resize(old, new);
            }
        }
        &mut self.bytes_mut()[at..at + inserted]
    }

    fn adjust_count(&mut self, removed: usize, added: usize) {
        let count = self.stored_count();
        if count == COUNT_UNKNOWN || removed == added {
            return;
        }
        let count = usize::from(count) - removed + added;
        let stored = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
        self.bytes_mut()[4..HEADER].copy_from_slice(&stored.to_le_bytes());
    }

    /// Inserts an element before the entry at `pos`, or at the end if `pos` is `end()`. The new
    /// element's position is `pos`.
    #[inline]
    pub fn insert_before<'e>(&mut self, pos: Pos, element: impl Into<Element<'e>>) {
        let entry = ListpackEntry::new(element.into());
        entry.write(self.splice(pos as usize, 0, entry.size()));
        self.adjust_count(0, 1);
    }

    /// Inserts an element after the entry at `pos`, and returns the new element's position.
    pub fn insert_after<'e>(&mut self, pos: Pos, element: impl Into<Element<'e>>) -> Pos {
        let after = pos + entry_len(self.as_bytes(), pos as usize) as Pos;
        self.insert_before(after, element);
        after
    }

    /// Inserts an element at the end.
    #[inline]
    pub fn append<'e>(&mut self, element: impl Into<Element<'e>>) {
        self.insert_before(self.end(), element);
    }

    /// Inserts an element at the front.
    #[inline]
    pub fn prepend<'e>(&mut self, element: impl Into<Element<'e>>) {
        self.insert_before(HEADER as Pos, element);
    }

    /// Replaces the entry at `pos`, in place if the sizes are equal.
    pub fn replace<'e>(&mut self, pos: Pos, element: impl Into<Element<'e>>) {
        let entry = ListpackEntry::new(element.into());
        let (at, size) = (pos as usize, entry.size());
        let old = entry_len(self.as_bytes(), at);
        let out = match old == size {
            true => &mut self.bytes_mut()[at..at + size],
            false => self.splice(at, old, size),
        };
        entry.write(out);
    }

    /// Appends elements with a single resize of the listpack's buffer.
    pub fn append_all<'e, I>(&mut self, elements: I)
    where
        I: Iterator<Item = Element<'e>> + Clone,
    {
        self.insert_all(self.end(), elements);
    }

    /// Inserts elements before the entry at `pos` with a single resize of the listpack's buffer.
    /// The position of the first inserted element is then `pos`.
    pub fn insert_all<'e, I>(&mut self, pos: Pos, elements: I)
    where
        I: Iterator<Item = Element<'e>> + Clone,
    {
        let size = elements.clone().map(Element::entry_size).sum();
        let mut out = self.splice(pos as usize, 0, size);
        let mut added = 0;
        for element in elements {
            let entry = ListpackEntry::new(element);
            let (this, rest) = out.split_at_mut(entry.size());
            entry.write(this);
            out = rest;
            added += 1;
        }
        self.adjust_count(0, added);
    }

    /// Removes the entry at `pos`. Returns the position of the entry that followed the removed one,
    /// if any.
    pub fn delete(&mut self, pos: Pos) -> Option<Pos> {
        self.delete_n(pos, 1)
    }

    /// Removes up to `n` entries from `pos` on. Returns the position of the entry that followed the
    /// removed ones, if any.
    pub fn delete_n(&mut self, pos: Pos, n: usize) -> Option<Pos> {
        let (start, mut end) = (pos as usize, pos as usize);
        let bytes = self.as_bytes();
        let mut gone = 0;
        while gone < n && bytes[end] != END {
            end += entry_len(bytes, end);
            gone += 1;
        }
        self.cut(start, end, gone);
        self.if_entry(start)
    }

    /// Removes up to `n` entries from `index` on; a negative index counts from the end.
    pub fn delete_range(&mut self, index: i64, n: usize) {
        if let Some(pos) = self.seek(index) {
            self.delete_n(pos, n);
        }
    }

    fn cut(&mut self, start: usize, end: usize, entries: usize) {
        if entries > 0 {
            self.splice(start, end - start, 0);
            self.adjust_count(entries, 0);
        }
    }

    /// Moves the entries from `pos` on to a new listpack.
    pub fn split_off(&mut self, pos: Pos) -> Listpack {
        let start = pos as usize;
        let end = self.end() as usize;
        let moved = self.count_from(start);
        let mut tail = Listpack::new();
        tail.append_raw(&self.as_bytes()[start..end], moved);
        self.cut(start, end, moved);
        tail
    }

    /// Appends the entries of `other`.
    pub fn append_listpack(&mut self, other: &Listpack) {
        let bytes = other.as_bytes();
        self.append_raw(&bytes[HEADER..bytes.len() - 1], other.len());
    }

    fn append_raw(&mut self, entries: &[u8], count: usize) {
        self.splice(self.end() as usize, 0, entries.len())
            .copy_from_slice(entries);
        self.adjust_count(0, count);
    }
}

impl Drop for Listpack {
    fn drop(&mut self) {
        let len = self.bytes_len();
        // SAFETY: `len` is the length of the block, which is not used afterwards.
        unsafe { self.0.free(len) }
    }
}

impl Clone for Listpack {
    fn clone(&self) -> Self {
        Self::copy_of(self.as_bytes())
    }
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Element<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
