//! Ziplist: the packed sequence that listpacks replaced. Aeris only reads ziplists, from RDB files
//! and DUMP payloads that Redis before 7.0 has written.
//!
//! Redis 2.2 to 6.2 kept small lists, hashes and sorted sets, and the nodes of big lists, in
//! ziplists. RDB files of Redis 2.2 to 6.2 contain the bytes of ziplists as they were in memory.
//!
//! ```text
//!   | total bytes u32 | offset of the last entry u32 | entries u16 | entry | entry | ... | 0xFF |   (little endian)
//!
//!   entry:  | size of the entry before | encoding | data |
//!
//!   size before:  one byte up to 253, or 254 and a u32; the first entry's is 0
//!
//!   00llllll  data                   string of at most 63 bytes
//!   01llllll llllllll  data          string of at most 16,383 bytes, length big endian
//!   10______ l l l l   data          string of up to 2^32 - 1 bytes, length big endian; six bits mean nothing
//!   11000000 11010000 11100000       integer of 16, 32, 64 bits, little endian
//!   11110000 11111110                integer of 24, 8 bits
//!   11110001 .. 11111101             integer 0 ..= 12
//!   11111111                         the end
//! ```
//!
//! In a ziplist, unlike in a listpack, each entry begins with the size of the entry before it. A
//! change of one entry's size changes the size field of the next entry, whose own size may change
//! by that, and so on through the whole ziplist. When the size fields of a ziplist change in this
//! way, Redis never shortens a size field from five bytes to one, so the form of five bytes may
//! contain a small number. A ziplist's count of 65,535 means "unknown", and the offset of the last
//! entry of an empty ziplist is that of the end mark.
//!
//! A ziplist is never changed: a ziplist that is loaded becomes a listpack
//! ([`Ziplist::to_listpack`]), as in Redis 7.
//!
//! **Invariant:** the bytes of a `Ziplist` were checked from the header to the end mark, so an
//! iterator needs no error path. The check of a ziplist and its iterator decode entries by the same
//! function (`split_entry`); if the check had a bug, a walk would end early (test
//! `damaged_bytes_do_no_harm`).

use super::listpack::{Element, Listpack, safe_to_add};

const HEADER: usize = 10;
const END: u8 = 0xFF;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// The first byte of the form of five bytes in which an entry has the size of the entry before it.
const LONG_SIZE: u8 = 254;

const STR_14: u8 = 0x40;
const STR_32: u8 = 0x80;
const INT_16: u8 = 0xC0;
const INT_32: u8 = 0xD0;
const INT_64: u8 = 0xE0;
const INT_24: u8 = 0xF0;
const INT_8: u8 = 0xFE;
/// The encoding byte of the integer 0; the encoding bytes above it, up to `IMMEDIATE_12`, are the
/// integers 1 to 12.
const IMMEDIATE_0: u8 = 0xF1;
const IMMEDIATE_12: u8 = 0xFD;

/// A checked ziplist in borrowed bytes.
#[derive(Clone, Copy)]
pub struct Ziplist<'a> {
    /// The bytes from the first entry up to the end mark.
    entries: &'a [u8],
    count: usize,
}

impl<'a> Ziplist<'a> {
    /// Checks a ziplist from end to end. `None` if an entry or the header is wrong.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let (&end, entries) = rest.split_last()?;
        let [a, b, c, d, e, f, g, h, i, j] = *header.first_chunk::<HEADER>()?;
        if end != END || u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return None;
        }
        let (mut rest, mut last, mut size, mut count) = (entries, 0, 0, 0);
        while !rest.is_empty() {
            let (size_before, _, after) = split_entry(rest)?;
            if size_before != size {
                return None;
            }
            last = entries.len() - rest.len();
            size = rest.len() - after.len();
            count += 1;
            rest = after;
        }
        let stored = u16::from_le_bytes([i, j]);
        let tail = u32::from_le_bytes([e, f, g, h]) as usize;
        let counted = stored == COUNT_UNKNOWN || usize::from(stored) == count;
        (tail == HEADER + last && counted).then_some(Self { entries, count })
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the ziplist has no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over the entries as they are stored: a text that is an integer may be stored as a
    /// string.
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.entries }
    }

    /// A listpack with the elements of the ziplist, in which texts of integers are stored as
    /// integers. `None` if the listpack would be too large.
    pub fn to_listpack(&self) -> Option<Listpack> {
        pack(self.iter().map(|element| match element {
            Element::Str(text) => Element::from(text),
            int => int,
        }))
    }
}

/// A listpack of `elements`. `None` if the listpack would be too large.
pub(super) fn pack<'a>(elements: impl Iterator<Item = Element<'a>> + Clone) -> Option<Listpack> {
    let mut listpack = Listpack::new();
    let bytes = elements
        .clone()
        .fold(0usize, |sum, e| sum.saturating_add(e.entry_size()));
    if !safe_to_add(listpack.bytes_len(), bytes) {
        return None;
    }
    listpack.append_all(elements);
    Some(listpack)
}

/// Splits the first entry of a ziplist off `bytes`. Returns the size of the preceding entry that
/// the split entry states, the split entry's element, and the rest of the bytes.
fn split_entry(bytes: &[u8]) -> Option<(usize, Element<'_>, &[u8])> {
    let (size_before, bytes) = split_size(bytes)?;
    let (&head, rest) = bytes.split_first()?;
    let (element, rest) = match head {
        0..STR_14 => split_string(rest, usize::from(head))?,
        STR_14..STR_32 => {
            let (&low, rest) = rest.split_first()?;
            split_string(rest, usize::from(u16::from_be_bytes([head & 0x3F, low])))?
        }
        STR_32..INT_16 => {
            let (len, rest) = rest.split_first_chunk()?;
            split_string(rest, usize::try_from(u32::from_be_bytes(*len)).ok()?)?
        }
        IMMEDIATE_0..=IMMEDIATE_12 => (Element::Int(i64::from(head - IMMEDIATE_0)), rest),
        _ => split_int(head, rest)?,
    };
    Some((size_before, element, rest))
}

fn split_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..LONG_SIZE => Some((usize::from(first), rest)),
        LONG_SIZE => {
            let (size, rest) = rest.split_first_chunk()?;
            Some((usize::try_from(u32::from_le_bytes(*size)).ok()?, rest))
        }
        END => None,
    }
}

fn split_string(bytes: &[u8], len: usize) -> Option<(Element<'_>, &[u8])> {
    let (text, rest) = bytes.split_at_checked(len)?;
    Some((Element::Str(text), rest))
}

fn split_int(head: u8, bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let width = match head {
        INT_8 => 1,
        INT_16 => 2,
        INT_24 => 3,
        INT_32 => 4,
        INT_64 => 8,
        _ => return None,
    };
    let (digits, rest) = bytes.split_at_checked(width)?;
    let mut word = [0; 8];
    word[8 - width..].copy_from_slice(digits);
    let int = i64::from_le_bytes(word) >> (64 - 8 * width);
    Some((Element::Int(int), rest))
}

/// An iterator over the entries of a ziplist, from the first to the last.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (_, element, rest) = split_entry(self.rest)?;
        self.rest = rest;
        Some(element)
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The bytes of a ziplist with these encoded elements. `long` selects the entries that have the
    /// size of the entry before in the long form of five bytes.
    fn ziplist(elements: &[Vec<u8>], long: impl Fn(usize) -> bool) -> Vec<u8> {
        let (mut entries, mut last, mut size) = (Vec::new(), 0, 0usize);
        for (at, element) in elements.iter().enumerate() {
            last = entries.len();
            if size < 254 && !long(at) {
                entries.push(size as u8);
            } else {
                entries.push(254);
                entries.extend((size as u32).to_le_bytes());
            }
            entries.extend(element);
            size = entries.len() - last;
        }
        let count = u16::try_from(elements.len()).unwrap_or(COUNT_UNKNOWN);
        let mut bytes = (entries.len() as u32 + 11).to_le_bytes().to_vec();
        bytes.extend((last as u32 + 10).to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(entries);
        bytes.push(END);
        bytes
    }

    fn one(element: &[u8]) -> Option<Vec<u8>> {
        let bytes = ziplist(&[element.to_vec()], |_| false);
        let ziplist = Ziplist::parse(&bytes)?;
        assert_eq!(ziplist.len(), 1);
        Some(ziplist.iter().next()?.to_vec())
    }

    /// Reads each encoding of a ziplist's elements. Redis 7.0 loads the same bytes by RESTORE with
    /// the same results.
    #[test]
    fn each_encoding_as_a_real_server_reads_it() {
        let cases: [(&[u8], &[u8]); 13] = [
            (b"\x02ab", b"ab"),
            (b"\x00", b""),
            (b"\x40\x03abc", b"abc"),
            (b"\x80\0\0\0\x03abc", b"abc"),
            (b"\x8f\0\0\0\x03abc", b"abc"),
            (b"\xf1", b"0"),
            (b"\xfd", b"12"),
            (b"\xfe\x80", b"-128"),
            (b"\xc0\x00\x80", b"-32768"),
            (b"\xf0\x00\x00\x80", b"-8388608"),
            (b"\xf0\xff\xff\x7f", b"8388607"),
            (b"\xd0\0\0\0\x80", b"-2147483648"),
            (b"\xe0\0\0\0\0\0\0\0\x80", b"-9223372036854775808"),
        ];
        for (element, text) in cases {
            assert_eq!(one(element).as_deref(), Some(text), "{element:x?}");
        }
        for bad in [
            &b"\xc1\0\0"[..],
            b"\xef",
            b"\xff",
            b"\x03ab",
            b"\xc0\0",
            b"\x80\0\0\0",
        ] {
            assert_eq!(one(bad), None, "{bad:x?}");
        }
    }

    #[test]
    fn what_the_header_says_must_be_so() {
        let good = ziplist(&[b"\x02ab".to_vec(), b"\xf3".to_vec()], |_| false);
        assert_eq!(good, b"\x11\0\0\0\x0e\0\0\0\x02\0\x00\x02ab\x04\xf3\xff");
        assert!(Ziplist::parse(&good).is_some());
        // The offsets in the ziplist are those of the total, the offset of the last entry, the
        // count, the two sizes of the entry before, and the end mark.
        for at in [0, 4, 8, 10, 14, 16] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Ziplist::parse(&bad).is_none(), "byte {at}");
        }
        let mut unknown = good.clone();
        unknown[8..10].fill(0xFF);
        assert_eq!(Ziplist::parse(&unknown).map(|list| list.len()), Some(2));
    }

    #[test]
    fn an_empty_one() {
        let bytes = b"\x0b\0\0\0\x0a\0\0\0\0\0\xff";
        let ziplist = Ziplist::parse(bytes).unwrap();
        assert!(ziplist.is_empty() && ziplist.iter().next().is_none());
        assert!(ziplist.to_listpack().unwrap().is_empty());
    }

    #[test]
    fn the_text_of_an_integer_becomes_one_in_a_listpack() {
        let bytes = ziplist(&[b"\x0212".to_vec(), b"\x03012".to_vec()], |_| false);
        let ziplist = Ziplist::parse(&bytes).unwrap();
        assert_eq!(ziplist.iter().next(), Some(Element::Str(b"12")));
        let listpack = ziplist.to_listpack().unwrap();
        assert!(listpack.iter().eq([Element::Int(12), Element::Str(b"012")]));
    }

    /// Generates ziplist elements as Redis would write them, or with a longer length than needed,
    /// which a reader accepts.
    fn encoded() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let head = |text: &[u8], form: u8| match (form, text.len()) {
            (0, len @ 0..64) => vec![len as u8],
            (0 | 1, len @ 0..16_384) => vec![STR_14 | (len >> 8) as u8, len as u8],
            (_, len) => [vec![STR_32], (len as u32).to_be_bytes().to_vec()].concat(),
        };
        let short = vec(any::<u8>(), 0..20);
        let long = vec(any::<u8>(), 240..300);
        let string = (prop_oneof![9 => short, 1 => long], 0u8..3)
            .prop_map(move |(text, form)| ([head(&text, form), text.clone()].concat(), text));
        let int = (any::<i64>(), 0usize..5).prop_map(|(int, width)| {
            let (head, width) = [
                (INT_8, 1),
                (INT_16, 2),
                (INT_24, 3),
                (INT_32, 4),
                (INT_64, 8),
            ][width];
            let int = int >> (64 - 8 * width);
            let digits = &int.to_le_bytes()[..width];
            ([&[head], digits].concat(), int.to_string().into_bytes())
        });
        let small = (0u8..13).prop_map(|n| (vec![IMMEDIATE_0 + n], n.to_string().into_bytes()));
        prop_oneof![3 => string, 2 => int, 1 => small]
    }

    proptest! {
        #![proptest_config(crate::ds::cases(192))]

        #[test]
        fn what_is_written_is_read(list in vec(encoded(), 0..scaled(30, 8)), long in any::<u32>()) {
            let (elements, texts): (Vec<_>, Vec<_>) = list.into_iter().unzip();
            let bytes = ziplist(&elements, |at| long >> at & 1 == 1);
            let ziplist = Ziplist::parse(&bytes).unwrap();
            prop_assert_eq!(ziplist.len(), texts.len());
            prop_assert!(ziplist.iter().map(|element| element.to_vec()).eq(texts.iter().cloned()));
            let listpack = ziplist.to_listpack().unwrap();
            prop_assert!(listpack.iter().map(|element| element.to_vec()).eq(texts));
            let mut expected = Listpack::new();
            listpack.iter().for_each(|element| expected.append(&element.to_vec()[..]));
            prop_assert_eq!(listpack.as_bytes(), expected.as_bytes());
            for len in 0..bytes.len() {
                prop_assert!(Ziplist::parse(&bytes[..len]).is_none());
            }
        }

        /// A ziplist with damaged bytes is refused, or can be read to its end.
        #[test]
        fn damaged_bytes_do_no_harm(
            list in vec(encoded(), 0..8),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            honest in any::<bool>(),
        ) {
            let elements: Vec<_> = list.into_iter().map(|(element, _)| element).collect();
            let mut bytes = ziplist(&elements, |_| false);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if honest {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[8..10].fill(0xFF);
            }
            if let Some(ziplist) = Ziplist::parse(&bytes) {
                prop_assert_eq!(ziplist.iter().count(), ziplist.len());
                prop_assert_eq!(ziplist.to_listpack().unwrap().len(), ziplist.len());
            }
        }
    }
}
