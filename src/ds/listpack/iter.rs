//! Walks over the elements of a listpack, forwards and backwards.

use super::{END, Element, HEADER, STR_6, decode, entry_len, read_backlen};

/// An iterator over the elements of a listpack, forwards.
#[derive(Clone)]
pub struct Iter<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Iter<'_> {
    /// The next element, if it is an integer. Small integers, which are frequent in streams, are
    /// recognised by their first byte.
    #[inline]
    pub fn next_int(&mut self) -> Option<i64> {
        match self.bytes[self.at] {
            small @ 0..STR_6 => {
                self.at += 2;
                Some(i64::from(small))
            }
            _ => self.next()?.as_int(),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.bytes[self.at] == END {
            return None;
        }
        let (element, next) = decode(self.bytes, self.at);
        self.at = next;
        Some(element)
    }

    /// Skips `n` elements of a listpack without decoding them, and returns the next element.
    #[inline]
    fn nth(&mut self, n: usize) -> Option<Element<'a>> {
        for _ in 0..n {
            if self.bytes[self.at] == END {
                return None;
            }
            self.at += entry_len(self.bytes, self.at);
        }
        self.next()
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// An iterator over the elements of a listpack, backwards.
#[derive(Clone)]
pub struct RevIter<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Iterator for RevIter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.at == HEADER {
            return None;
        }
        let (body, size) = read_backlen(self.bytes, self.at);
        self.at -= body + size;
        Some(decode(self.bytes, self.at).0)
    }
}

impl std::iter::FusedIterator for RevIter<'_> {}
