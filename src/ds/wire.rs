//! `$5\r\nhello\r\n`: a length, a string and line ends, appended to a buffer as one piece.
//!
//! Replies of a hundred elements are hundreds of tiny strings. Three `extend_from_slice` for each would be
//! three looks at the capacity and up to three calls of `memmove`, which cost more than the bytes themselves.
//! So there is one look, the header of a short string is stored as one word, and a string of up to 32
//! bytes is copied by two overlapping loads and stores:
//!
//! ```text
//!   out:   ... | $ | 5 | \r | \n | h e l l o | \r | \n |      capacity >= len + 24: checked once
//!                `-- one store --'  `- copy -'  `-----'
//! ```
//!
//! Rejected: always copying 32 bytes and correcting the length, which would read behind the end of the value.

use crate::util::number::IntBuf;

/// A kind, 20 digits and two line ends: more than any header and tail take.
const FRAME: usize = 32;

/// Appends `kind`, the length of `bytes` and a line end, then `bytes` and a line end.
#[inline]
pub fn push_bulk(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    if out.capacity() - out.len() < bytes.len() + FRAME {
        out.reserve(bytes.len() + FRAME);
    }
    let mut header = IntBuf::new();
    let mut word = [kind, 0, b'\r', b'\n', 0, 0, 0, 0];
    let (head, digits): (usize, &[u8]) = match bytes.len() {
        len @ 0..10 => {
            word[1] = b'0' + len as u8;
            (4, &[])
        }
        len @ 10..100 => {
            word[1] = b'0' + (len / 10) as u8;
            word[2] = b'0' + (len % 10) as u8;
            (word[3], word[4]) = (b'\r', b'\n');
            (5, &[])
        }
        len => (1, header.format(len)),
    };
    // SAFETY: the capacity beyond the length is at least FRAME and the bytes: 8 for the word, of which `head`
    // count, or the kind with at most 20 digits and a line end; then the bytes; then a line end. `bytes` is no
    // part of `out`, which is borrowed exclusively. Everything below the new length has been written.
    unsafe {
        let start = out.as_mut_ptr().add(out.len());
        start.cast::<[u8; 8]>().write(word);
        let mut end = start.add(head);
        if !digits.is_empty() {
            end.copy_from_nonoverlapping(digits.as_ptr(), digits.len());
            end = end.add(digits.len());
            end.cast::<[u8; 2]>().write(*b"\r\n");
            end = end.add(2);
        }
        copy(bytes.as_ptr(), end, bytes.len());
        end = end.add(bytes.len());
        end.cast::<[u8; 2]>().write(*b"\r\n");
        let len = end.add(2).offset_from_unsigned(out.as_ptr());
        out.set_len(len);
    }
}

/// `memcpy`, without a call for up to 32 bytes.
///
/// # Safety
/// As for `ptr::copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// The first and the last N of N to 2 N bytes.
    #[inline(always)]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: N <= len, so both lie inside.
        unsafe {
            let first = from.cast::<[u8; N]>().read();
            let last = from.add(len - N).cast::<[u8; N]>().read();
            to.cast::<[u8; N]>().write(first);
            to.add(len - N).cast::<[u8; N]>().write(last);
        }
    }
    // SAFETY: the caller's promise, and the bounds of each arm.
    unsafe {
        match len {
            0 => {}
            1..4 => {
                // One to three bytes: the first, the middle and the last.
                to.write(from.read());
                to.add(len / 2).write(from.add(len / 2).read());
                to.add(len - 1).write(from.add(len - 1).read());
            }
            4..8 => ends::<4>(from, to, len),
            8..16 => ends::<8>(from, to, len),
            16..=32 => ends::<16>(from, to, len),
            _ => to.copy_from_nonoverlapping(from, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_framed() {
        let source: Vec<u8> = (0..200u8).cycle().take(1500).collect();
        for len in (0..300).chain([999, 1000, 1500]) {
            let mut out = b"before".to_vec();
            push_bulk(&mut out, b'$', &source[..len]);
            let mut expected = format!("before${len}\r\n").into_bytes();
            expected.extend_from_slice(&source[..len]);
            expected.extend_from_slice(b"\r\n");
            assert_eq!(out, expected, "length {len}");
        }
    }

    #[test]
    fn many_pieces_grow_the_buffer() {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for i in 0..2000usize {
            let piece = vec![b'a' + (i % 26) as u8; i % 40];
            push_bulk(&mut out, b'=', &piece);
            expected.extend_from_slice(format!("={}\r\n", piece.len()).as_bytes());
            expected.extend_from_slice(&piece);
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!(out, expected);
    }
}
