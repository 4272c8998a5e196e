//! A command as the protocol writes it: what the AOF and replicas are told.
//!
//! ```text
//!   *2\r\n          how many arguments
//!   $3\r\nGET\r\n   each with its length
//!   $1\r\nk\r\n
//! ```

/// The most that is written around an argument: `$`, a length, two line ends.
const FRAME_MAX: usize = 1 + 20 + 2 + 2;

/// Append a command.
#[inline]
pub fn write_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, argv: &[A]) {
    let bytes: usize = argv.iter().map(|arg| arg.as_ref().len() + FRAME_MAX).sum();
    out.reserve(bytes + FRAME_MAX);
    write_count(out, b'*', argv.len());
    for arg in argv {
        write_bulk(out, arg.as_ref());
    }
}

/// Append one argument, for a command whose head is written with [`write_count`].
#[inline]
pub fn write_bulk(out: &mut Vec<u8>, arg: &[u8]) {
    write_count(out, b'$', arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

/// `*3\r\n`, `$11\r\n`
#[inline]
pub fn write_count(out: &mut Vec<u8>, sign: u8, count: usize) {
    match count {
        0..10 => out.extend_from_slice(&[sign, b'0' + count as u8, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (count as u8 / 10, count as u8 % 10);
            out.extend_from_slice(&[sign, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        }
        _ => {
            out.push(sign);
            out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_any_size() {
        for count in [0, 1, 9, 10, 11, 99, 100, 12345, usize::MAX] {
            let mut out = Vec::new();
            write_count(&mut out, b'$', count);
            assert_eq!(out, format!("${count}\r\n").into_bytes());
        }
    }

    #[test]
    fn a_command() {
        let mut out = b"x".to_vec();
        write_command(&mut out, &[&b"SET"[..], b"k", &[b'v'; 12]]);
        assert_eq!(
            out,
            b"x*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nvvvvvvvvvvvv\r\n"
        );
    }
}
