//! Appends a string in RESP's form, with its length and line ends (`$5\r\nhello\r\n`), to a buffer
//! in one step.
//!
//! A reply of a hundred elements has hundreds of short strings. Three calls of `extend_from_slice`
//! for each string would check the capacity three times and call `memmove` up to three times, which
//! costs more than copying the bytes. So the capacity is checked once, the header of a short string
//! is stored as one word, and a string of up to 32 bytes is copied by two overlapping loads and
//! stores:
//!
//! ```text
//!   out:   ... | $ | 5 | \r | \n | h e l l o | \r | \n |      capacity >= len + 24: checked once
//!                `-- one store --'  `- copy -'  `-----'
//! ```
//!
//! Commands for the AOF and for replicas are written as `*2\r\n`, the number of arguments, and then
//! each argument as a string in this form.
//!
//! Rejected: always copying 32 bytes and correcting the length, which would read beyond the end of
//! the string; building a command on the stack and appending it as one piece, which copies the
//! command twice.

use crate::util::number::IntBuf;

/// The maximum number of bytes around a string: a byte for the type (`$`), 20 digits and two line
/// ends.
const FRAME: usize = 32;

/// Appends a command in RESP's form: the number of arguments, then each argument.
#[inline]
pub fn push_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, argv: &[A]) {
    push_count(out, b'*', argv.len());
    for arg in argv {
        push_bulk(out, b'$', arg.as_ref());
    }
}

/// Whether `bytes`, from which the arguments `argv` were parsed, are equal to the bytes that
/// [`push_command`] would write. The parser of requests accepts more forms (any byte after a `\r`,
/// a bulk string that does not end in a line end), and these forms must not get into the AOF. The
/// digits of lengths need no check: the lengths were parsed from these digits, and the places of
/// the arguments show that there are no leading zeros.
#[inline]
pub fn is_command(bytes: &[u8], argv: &[&[u8]]) -> bool {
    let ends_line = |at: usize| bytes.get(at.wrapping_sub(2)..at) == Some(b"\r\n");
    if argv.len() >= 10 || bytes.first() != Some(&b'*') || !ends_line(4) {
        return false;
    }
    let mut at = 4;
    for arg in argv {
        let digits = match arg.len() {
            0..10 => 1,
            10..100 => 2,
            100..1000 => 3,
            _ => return false,
        };
        let start = at + 1 + digits + 2;
        let lies_there = (arg.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize) == start;
        at = start + arg.len() + 2;
        if !lies_there || !ends_line(start) || !ends_line(at) {
            return false;
        }
    }
    at == bytes.len()
}

/// Appends the header of an array or string in RESP's form, such as `*3\r\n` or `$11\r\n`.
#[inline]
pub fn push_count(out: &mut Vec<u8>, kind: u8, count: usize) {
    match count {
        0..10 => out.extend_from_slice(&[kind, b'0' + count as u8, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (count as u8 / 10, count as u8 % 10);
            out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        }
        _ => {
            out.push(kind);
            out.extend_from_slice(IntBuf::new().format(count));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends `kind` (`$` for a string), the length of `bytes` and a line end, then `bytes` and a line
/// end.
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
    // SAFETY: the capacity beyond the length is at least FRAME and the length of `bytes`. FRAME has
    // room for the 8 bytes of `word`, or for the kind, at most 20 digits and a line end, and then
    // for the line end after `bytes`. `bytes` is no part of `out`, which is borrowed exclusively.
    // Everything below the new length has been written.
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

/// Copies bytes as `memcpy` does, but without a call for up to 32 bytes.
///
/// # Safety
/// The conditions are those of `ptr::copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Copies `len` bytes, N to 2 N, as the first N bytes and the last N bytes, which may overlap.
    #[inline(always)]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: N <= len, so both copies lie inside.
        unsafe {
            let first = from.cast::<[u8; N]>().read();
            let last = from.add(len - N).cast::<[u8; N]>().read();
            to.cast::<[u8; N]>().write(first);
            to.add(len - N).cast::<[u8; N]>().write(last);
        }
    }
    // SAFETY: the caller promises `len` bytes at both pointers, and no arm copies more.
    unsafe {
        match len {
            0 => {}
            1..4 => {
                // One to three bytes are copied as the first, the middle and the last byte, which
                // may be the same.
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
    fn counts_of_any_size() {
        for count in [0, 1, 9, 10, 11, 99, 100, 12345, usize::MAX] {
            let mut out = Vec::new();
            push_count(&mut out, b'$', count);
            assert_eq!(out, format!("${count}\r\n").into_bytes());
        }
    }

    #[test]
    fn a_command() {
        let mut out = b"x".to_vec();
        push_command(&mut out, &[&b"SET"[..], b"k", &[b'v'; 12]]);
        assert_eq!(
            out,
            b"x*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nvvvvvvvvvvvv\r\n"
        );
    }

    #[test]
    fn a_request_is_known_to_be_a_command() {
        let value = [b'v'; 120];
        let good = |argv: &[&[u8]]| {
            let mut bytes = Vec::new();
            push_command(&mut bytes, argv);
            bytes
        };
        // The arguments of the command `SET k vv..` in `bytes`, as slices at their positions.
        fn parsed(bytes: &[u8], len: usize) -> [&[u8]; 3] {
            let value = bytes.len() - 2 - len;
            [&bytes[8..11], &bytes[17..18], &bytes[value..value + len]]
        }
        for len in [0, 1, 9, 10, 12, 99, 100, 120] {
            let bytes = good(&[b"SET", b"k", &value[..len]]);
            let argv = parsed(&bytes, len);
            assert!(is_command(&bytes, &argv), "length {len}");
            assert!(!is_command(&bytes[1..], &argv));
            assert!(!is_command(&bytes, &argv[..2]));
            assert!(!is_command(&bytes, &[b"SET", b"k", b"v"]));
            assert!(!is_command(b"", &argv));
            // `is_command` must return false if any byte of a line end is changed.
            for at in (0..bytes.len()).filter(|&at| b"\r\n".contains(&bytes[at])) {
                let mut odd = bytes.clone();
                odd[at] = b'x';
                assert!(
                    !is_command(&odd, &parsed(&odd, len)),
                    "length {len}, at {at}"
                );
            }
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
