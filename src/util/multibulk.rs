//! A command as the protocol writes it: what the AOF and replicas are told.
//!
//! ```text
//!   *2\r\n          how many arguments
//!   $3\r\nGET\r\n   each with its length
//!   $1\r\nk\r\n
//! ```

/// The most that is written around an argument: `$`, a length, two line ends.
const FRAME_MAX: usize = 1 + 20 + 2 + 2;

/// A command up to this size is put together on the stack and appended at once. Piece by piece a SET would ask ten times
/// whether there is room: with the log on, that was half of what telling it cost.
const SHORT: usize = 256;
/// The most that is written around an argument of a short command.
const SHORT_FRAME: usize = 1 + 3 + 2 + 2;

/// Append a command.
#[inline]
pub fn write_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, argv: &[A]) {
    let sizes = argv.iter().map(|arg| arg.as_ref().len() + SHORT_FRAME);
    if sizes.sum::<usize>() + SHORT_FRAME <= SHORT {
        let mut short = Short {
            bytes: [0; SHORT],
            len: 0,
        };
        short.count(b'*', argv.len());
        for arg in argv {
            short.count(b'$', arg.as_ref().len());
            short.put(arg.as_ref());
            short.put(b"\r\n");
        }
        return out.extend_from_slice(&short.bytes[..short.len]);
    }
    write_long(out, argv);
}

fn write_long<A: AsRef<[u8]>>(out: &mut Vec<u8>, argv: &[A]) {
    let bytes: usize = argv.iter().map(|arg| arg.as_ref().len() + FRAME_MAX).sum();
    out.reserve(bytes + FRAME_MAX);
    write_count(out, b'*', argv.len());
    for arg in argv {
        write_bulk(out, arg.as_ref());
    }
}

/// A short command on its way.
struct Short {
    bytes: [u8; SHORT],
    len: usize,
}

impl Short {
    #[inline(always)]
    fn put(&mut self, piece: &[u8]) {
        let end = self.len + piece.len();
        self.bytes[self.len..end].copy_from_slice(piece);
        self.len = end;
    }

    /// A count below 1,000.
    #[inline(always)]
    fn count(&mut self, sign: u8, count: usize) {
        let digit = |unit: usize| b'0' + (count / unit % 10) as u8;
        match count {
            0..10 => self.put(&[sign, digit(1), b'\r', b'\n']),
            10..100 => self.put(&[sign, digit(10), digit(1), b'\r', b'\n']),
            _ => self.put(&[sign, digit(100), digit(10), digit(1), b'\r', b'\n']),
        }
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
    fn short_and_long_commands_are_written_alike() {
        for len in [
            0, 1, 9, 10, 99, 100, 101, 200, 230, 231, 232, 233, 239, 240, 241, 255, 256, 300,
        ] {
            for more in [0, 1, 12, 30] {
                let mut argv = vec![vec![b'x'; len]];
                argv.resize(1 + more, b"yz".to_vec());
                let (mut command, mut long) = (b"before".to_vec(), b"before".to_vec());
                write_command(&mut command, &argv);
                write_long(&mut long, &argv);
                assert_eq!(command, long);
            }
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
