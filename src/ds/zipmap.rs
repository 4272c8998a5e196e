//! Zipmap: the packed hash of Redis 2.0 to 2.4. Aeris only reads zipmaps, from RDB files of these
//! versions.
//!
//! ```text
//!   | pairs u8 | length | field | length | free u8 | value | free bytes | length | field | ... | 0xFF |
//!
//!   length:  one byte up to 253, or 254 and a u32, little endian; 255 is the end
//! ```
//!
//! In a zipmap, a value that replaced a longer one has `free` unused bytes behind it. A zipmap's
//! number of pairs is exact up to 253; 254 means that a walk must count the pairs, and 255 does not
//! occur. A length below 254 in a zipmap is never written in five bytes.
//!
//! A look-up in a zipmap is a walk; a zipmap has no encoded integers, and can't be walked
//! backwards. Redis 2.6 changed to ziplists. A zipmap that is loaded becomes a listpack
//! ([`Zipmap::to_listpack`]).
//!
//! **Invariant:** the bytes of a `Zipmap` were checked up to the end mark, which is the last byte,
//! so an iterator needs no error path (test `damaged_bytes_do_no_harm`). `types::hash` checks that
//! no field of a zipmap is repeated.

use super::listpack::{Element, Listpack};
use super::ziplist::pack;

const LONG: u8 = 254;
const END: u8 = 255;
/// The number of pairs in a zipmap's first byte that means "254 or more": a walk must count the
/// pairs.
const COUNT_UNKNOWN: u8 = 254;

/// A checked zipmap in borrowed bytes.
#[derive(Clone, Copy)]
pub struct Zipmap<'a> {
    /// The bytes from the first field's length up to the end mark.
    pairs: &'a [u8],
    count: usize,
}

impl<'a> Zipmap<'a> {
    /// Checks a zipmap from end to end. `None` if the bytes are not a zipmap.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&stored, rest) = bytes.split_first()?;
        let (&end, pairs) = rest.split_last()?;
        if end != END {
            return None;
        }
        let (mut rest, mut count) = (pairs, 0);
        while !rest.is_empty() {
            (_, _, rest) = split_pair(rest)?;
            count += 1;
        }
        let counted = stored == COUNT_UNKNOWN || usize::from(stored) == count && stored != END;
        counted.then_some(Self { pairs, count })
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the zipmap has no pairs.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An iterator over the fields of a zipmap with their values.
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.pairs }
    }

    /// A listpack with the zipmap's fields and values in turn. `None` if the listpack would be too
    /// large.
    pub fn to_listpack(&self) -> Option<Listpack> {
        let pairs = self.iter();
        pack(pairs.flat_map(|(field, value)| [Element::from(field), Element::from(value)]))
    }
}

/// Splits the first pair of a zipmap off `bytes`. Returns field, value and the rest of the bytes.
fn split_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = split_length(bytes)?;
    let (field, rest) = rest.split_at_checked(len)?;
    let (len, rest) = split_length(rest)?;
    let (&free, rest) = rest.split_first()?;
    let (value, rest) = rest.split_at_checked(len)?;
    let (_, rest) = rest.split_at_checked(usize::from(free))?;
    Some((field, value, rest))
}

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..LONG => Some((usize::from(first), rest)),
        LONG => {
            let (len, rest) = rest.split_first_chunk()?;
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            (len >= usize::from(LONG)).then_some((len, rest))
        }
        END => None,
    }
}

/// An iterator over the fields of a zipmap with their values.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (field, value, rest) = split_pair(self.rest)?;
        self.rest = rest;
        Some((field, value))
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::scaled;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let zipmap = Zipmap::parse(bytes)?;
        let pairs: Vec<_> = zipmap
            .iter()
            .map(|(f, v)| (f.to_vec(), v.to_vec()))
            .collect();
        assert_eq!(
            (zipmap.len(), zipmap.is_empty()),
            (pairs.len(), pairs.is_empty())
        );
        Some(pairs)
    }

    fn pair(field: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (field.to_vec(), value.to_vec())
    }

    /// Reads several zipmaps. Redis 7.0 loads the same bytes by RESTORE with the same results.
    #[test]
    fn reads_what_a_real_server_reads() {
        let two = vec![pair(b"foo", b"bar"), pair(b"hello", b"world")];
        assert_eq!(
            read(b"\x02\x03foo\x03\0bar\x05hello\x05\0world\xff"),
            Some(two.clone())
        );
        assert_eq!(
            read(b"\xfe\x03foo\x03\0bar\x05hello\x05\0world\xff"),
            Some(two)
        );
        assert_eq!(
            read(b"\x01\x03foo\x03\x02barzz\xff"),
            Some(vec![pair(b"foo", b"bar")])
        );
        assert_eq!(read(b"\x01\0\0\0\xff"), Some(vec![pair(b"", b"")]));
        assert_eq!(read(b"\0\xff"), Some(vec![]));
        let long = [b"\x01\xfd", &[b'a'; 253][..], b"\x03\0bar\xff"].concat();
        assert_eq!(read(&long), Some(vec![pair(&[b'a'; 253], b"bar")]));
        let longer = [b"\x01\xfe\xfe\0\0\0", &[b'a'; 254][..], b"\x03\0bar\xff"].concat();
        assert_eq!(read(&longer), Some(vec![pair(&[b'a'; 254], b"bar")]));
    }

    #[test]
    fn refuses_what_a_real_server_refuses() {
        let bad: [&[u8]; 11] = [
            b"",
            b"\0",
            b"\xff",
            b"\x03\x03foo\x03\0bar\x05hello\x05\0world\xff",
            b"\xff\x03foo\x03\0bar\xff",
            b"\x01\xfe\x03\0\0\0foo\x03\0bar\xff",
            b"\x01\x03foo\xfe\x03\0\0\0\0bar\xff",
            b"\x01\x03foo\xff",
            b"\x01\x03foo\x03\0bar",
            b"\x01\x03foo\x03\x01bar\xff",
            b"\x01\xfe\xff\xff\xff\xfffoo\x03\0bar\xff",
        ];
        for bytes in bad {
            assert_eq!(read(bytes), None, "{bytes:x?}");
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => vec(any::<u8>(), 0..12),
            2 => any::<i64>().prop_map(|int| int.to_string().into_bytes()),
            1 => vec(any::<u8>(), 250..260),
        ]
    }

    fn zipmap(pairs: &[(Vec<u8>, Vec<u8>, u8)]) -> Vec<u8> {
        let length = |text: &[u8]| match u8::try_from(text.len()) {
            Ok(len) if len < LONG => vec![len],
            _ => [vec![LONG], (text.len() as u32).to_le_bytes().to_vec()].concat(),
        };
        let mut bytes = vec![u8::try_from(pairs.len()).map_or(LONG, |count| count.min(LONG))];
        for (field, value, free) in pairs {
            bytes.extend([length(field), field.clone(), length(value)].concat());
            bytes.push(*free);
            bytes.extend(value);
            bytes.extend(std::iter::repeat_n(END, usize::from(*free)));
        }
        bytes.push(END);
        bytes
    }

    proptest! {
        #![proptest_config(crate::ds::cases(192))]

        #[test]
        fn what_is_written_is_read(pairs in vec((text(), text(), 0u8..6), 0..scaled(20, 6))) {
            let bytes = zipmap(&pairs);
            let expected: Vec<_> = pairs.into_iter().map(|(field, value, _)| (field, value)).collect();
            prop_assert_eq!(read(&bytes), Some(expected.clone()));
            let listpack = Zipmap::parse(&bytes).unwrap().to_listpack().unwrap();
            let mut texts = Listpack::new();
            for (field, value) in &expected {
                texts.append(&field[..]);
                texts.append(&value[..]);
            }
            prop_assert_eq!(listpack.as_bytes(), texts.as_bytes());
        }

        /// A zipmap with damaged bytes is refused, or can be read to its end.
        #[test]
        fn damaged_bytes_do_no_harm(
            pairs in vec((text(), text(), 0u8..6), 0..6),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            truncate in any::<bool>(),
        ) {
            let mut bytes = zipmap(&pairs);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if truncate {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Some(pairs) = read(&bytes) {
                let listpack = Zipmap::parse(&bytes).unwrap().to_listpack().unwrap();
                prop_assert_eq!(listpack.len(), 2 * pairs.len());
            }
        }
    }

    #[test]
    fn more_pairs_than_the_first_byte_counts() {
        let pairs: Vec<_> = (0..300)
            .map(|n| (n.to_string().into_bytes(), vec![], 0))
            .collect();
        for count in [253, 254, 255, 300] {
            assert_eq!(
                Zipmap::parse(&zipmap(&pairs[..count])).map(|map| map.len()),
                Some(count)
            );
        }
    }
}
