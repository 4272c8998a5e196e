//! Quoting: splits lines of redis.conf and inline requests into arguments, and prints bytes in a
//! readable form.
//!
//! ```text
//!   "..."   \n \r \t \b \a, \xHH, and \ before any other byte gives that byte
//!   '...'   only \' is special
//!   bare    ends at a space; a quote in the middle opens a quoted part: foo"a b" is `fooa b`
//! ```
//!
//! A closing quote must be followed by a space or the end of the line, else the line is unbalanced.
//! A NUL byte ends the line.
//!
//! **Invariant:** `split_args(repr(bytes)) == [bytes]` (test `repr_reads_back`).

use std::borrow::Cow;

use super::number::is_c_space;

/// At most `max` bytes from a peer, for a line of the log, with a dot for each byte that is not
/// printable.
pub fn printable(bytes: &[u8], max: usize) -> String {
    let shown = bytes.iter().take(max).map(|&byte| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '.',
    });
    shown.collect()
}

/// Splits a line into its arguments; `None` if the line's quotes are unbalanced.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let end = memchr::memchr(0, line).unwrap_or(line.len());
    let mut line = &line[..end];
    let mut args = Vec::new();
    loop {
        let spaces = line.iter().take_while(|byte| is_c_space(**byte)).count();
        line = &line[spaces..];
        if line.is_empty() {
            return Some(args);
        }
        let (arg, rest) = next_arg(line)?;
        args.push(arg);
        line = rest;
    }
}

/// Splits the first argument off a line that starts with it. Returns the argument and the rest of
/// the line.
fn next_arg(mut line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut arg = Vec::new();
    loop {
        match line {
            [] => return Some((arg, line)),
            [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] => return Some((arg, rest)),
            [b'"', rest @ ..] => {
                let rest = double_quoted(rest, &mut arg)?;
                return ends_argument(rest).then_some((arg, rest));
            }
            [b'\'', rest @ ..] => {
                let rest = single_quoted(rest, &mut arg)?;
                return ends_argument(rest).then_some((arg, rest));
            }
            [byte, rest @ ..] => {
                arg.push(*byte);
                line = rest;
            }
        }
    }
}

fn ends_argument(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| is_c_space(*byte))
}

/// Reads up to the closing double quote and returns the rest of the line; `None` if there is no
/// such quote.
fn double_quoted<'a>(mut line: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, rest) = match line {
            [] => return None,
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, rest @ ..] if is_hex(*high) && is_hex(*low) => {
                (hex_value(*high) << 4 | hex_value(*low), rest)
            }
            [b'\\', escaped, rest @ ..] => (unescape(*escaped), rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        arg.push(byte);
        line = rest;
    }
}

/// Reads up to the closing single quote and returns the rest of the line; `None` if there is no
/// such quote.
fn single_quoted<'a>(mut line: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, rest) = match line {
            [] => return None,
            [b'\'', rest @ ..] => return Some(rest),
            [b'\\', b'\'', rest @ ..] => (b'\'', rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        arg.push(byte);
        line = rest;
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex_value(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// Appends the bytes as a quoted string that is readable and that `split_args` reads back: for
/// MONITOR, CONFIG REWRITE and logs.
pub fn write_repr(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x07 => out.extend_from_slice(b"\\a"),
            b' '..=b'~' => out.push(byte),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'x', high, low]);
            }
        }
    }
    out.push(b'"');
}

/// The quoted string of `write_repr` as text, for log lines.
pub fn repr(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    write_repr(&mut out, bytes);
    // `write_repr` writes printable ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a value needs quotes to be a single argument of a configuration line.
pub fn needs_repr(bytes: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    bytes.is_empty() || !bytes.iter().all(plain)
}

/// A value for a line of INFO. `:` ends a name, `#` starts a section and a line break a new field,
/// so each becomes `_`.
pub fn info_safe(bytes: &[u8]) -> Cow<'_, [u8]> {
    map_bytes(
        bytes,
        |byte| matches!(byte, b'#' | b':' | b'\n' | b'\r'),
        b'_',
    )
}

fn map_bytes(bytes: &[u8], unsafe_byte: fn(u8) -> bool, substitute: u8) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| unsafe_byte(*byte)) {
        return Cow::Borrowed(bytes);
    }
    let map = |byte: &u8| {
        if unsafe_byte(*byte) {
            substitute
        } else {
            *byte
        }
    };
    Cow::Owned(bytes.iter().map(map).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &[u8]) -> Option<Vec<String>> {
        let text = |arg: &Vec<u8>| arg.iter().map(|byte| *byte as char).collect();
        split_args(line).map(|args| args.iter().map(text).collect())
    }

    fn check(line: &[u8], expected: &[&str]) {
        let expected = expected.iter().map(|arg| arg.to_string()).collect();
        assert_eq!(split(line), Some(expected), "{}", repr(line));
    }

    #[test]
    fn bare_and_quoted() {
        check(b"", &[]);
        check(b"  \t\x0b ", &[]);
        check(b"set k v", &["set", "k", "v"]);
        check(br#"a"b c""#, &["ab c"]);
        check(b"a'b'", &["ab"]);
        check(br#""" ''"#, &["", ""]);
        check(br#""a\x41b\xAf" x"#, &["aAb\u{af}", "x"]);
        check(br#""\n\r\t\b\a\q\\\"""#, &["\n\r\t\x08\x07q\\\""]);
        check(br"'it\'s \n \\ '", &[r"it's \n \\ "]);
        check(br#""\xzz" "\x4" "\X41""#, &["xzz", "x4", "X41"]);
        check(b"a\x0bb a\x0cb", &["a\x0bb", "a\x0cb"]);
        check(br"\n a\ b", &[r"\n", r"a\", "b"]);
        check(b"a b\0c", &["a", "b"]);
        check(b"save 3600 1\r\n", &["save", "3600", "1"]);
    }

    #[test]
    fn unbalanced() {
        for line in [
            &br#""abc"#[..],
            b"'abc",
            br#""a"b"#,
            b"'a'b",
            br#""a""b""#,
            br#"a"b"c"#,
            br#"a"b"'c'"#,
            br#""a\""#,
            br#""\"#,
        ] {
            assert_eq!(split(line), None, "{}", repr(line));
        }
    }

    #[test]
    fn repr_of_every_kind_of_byte() {
        assert_eq!(
            repr(b"\x00\x06\x07\x08\t\n\x0b\r\x1f ~\x7f\xff"),
            r#""\x00\x06\a\b\t\n\x0b\r\x1f ~\x7f\xff""#
        );
        assert_eq!(repr(br#"a"\'"#), r#""a\"\\'""#);
    }

    #[test]
    fn maps() {
        assert_eq!(&*info_safe(b"a:b#c\nd"), b"a_b_c_d");
        assert!(matches!(info_safe(b"plain"), Cow::Borrowed(_)));
        assert!(
            needs_repr(b"") && needs_repr(b"a b") && needs_repr(b"a\"") && !needs_repr(b"/var/lib")
        );
    }

    proptest! {
        #[test]
        fn repr_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut line = b"key ".to_vec();
            write_repr(&mut line, &bytes);
            prop_assert_eq!(split_args(&line), Some(vec![b"key".to_vec(), bytes]));
        }

        #[test]
        fn any_line_is_safe(line in proptest::collection::vec(any::<u8>(), 0..50), tame in "[ab \"'\\\\x]{0,20}") {
            let _ = (split_args(&line), split_args(tame.as_bytes()));
        }
    }
}
