//! Tests of the request parser: messages that are split at every byte give the same commands, and
//! invalid messages give Redis's error texts.

use crate::client::resp::*;

const LIMITS: Limits = Limits {
    max_bulk_len: 512 * 1024 * 1024,
    unauthenticated: false,
    max_commands: 128,
};

/// Feeds `pieces` to the parser as `networking::query` feeds what it reads: unparsed bytes are
/// kept, and big arguments get buffers of their own.
fn run(pieces: &[&[u8]], limits: Limits) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let (mut buffer, mut open, mut out) = (Vec::new(), None, Vec::new());
    for piece in pieces {
        let mut piece = *piece;
        if let Some(big) = open.as_mut().and_then(|o: &mut Box<Open>| o.big.as_mut()) {
            let n = big.missing().min(piece.len());
            big.bytes.extend_from_slice(&piece[..n]);
            piece = &piece[n..];
            if big.missing() > 0 {
                continue;
            }
            if piece.is_empty() {
                take(&mut buffer, &mut open, limits, &mut out)?;
                continue;
            }
            take(&mut buffer, &mut open, limits, &mut out)?;
        }
        buffer.extend_from_slice(piece);
        take(&mut buffer, &mut open, limits, &mut out)?;
    }
    Ok(out)
}

fn take(
    buffer: &mut Vec<u8>,
    open: &mut Option<Box<Open>>,
    limits: Limits,
    out: &mut Vec<Vec<Vec<u8>>>,
) -> Result<(), String> {
    let mut pos = 0;
    loop {
        let mut table = ParseTable::default();
        let status = parse(buffer, &mut pos, limits, &mut table, open);
        for command in &table.commands {
            let ranges = &table.args[command.first..command.first + command.argc];
            out.push(
                ranges
                    .iter()
                    .map(|&r| table.slice(buffer, r).to_vec())
                    .collect(),
            );
        }
        match status {
            Status::Full => continue,
            Status::Partial => break,
            Status::Invalid(text) => return Err(text),
        }
    }
    if let Some(kept) = open.as_ref().and_then(|o| o.kept()) {
        buffer.truncate(pos + kept);
    }
    buffer.drain(..pos);
    Ok(())
}

fn sample() -> Vec<u8> {
    let mut message =
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nbc\r\nPING\r\n*1\r\n$4\r\nPING\r\n\r\n".to_vec();
    message.extend_from_slice(b"*0\r\n*-1\r\nset \"a b\" 'c\\'d'\n*2\r\n$0\r\n\r\n$2\r\n\r\n\r\n");
    message
}

#[test]
fn split_at_every_byte() {
    let message = sample();
    let whole = run(&[&message], LIMITS).expect("valid");
    assert_eq!(whole.len(), 5);
    assert_eq!(
        whole[3],
        [b"set".to_vec(), b"a b".to_vec(), b"c'd".to_vec()]
    );
    for a in 0..=message.len() {
        for b in a..=message.len() {
            let pieces = [&message[..a], &message[a..b], &message[b..]];
            assert_eq!(
                run(&pieces, LIMITS).expect("valid"),
                whole,
                "split at {a} and {b}"
            );
        }
    }
    let bytes: Vec<&[u8]> = message.chunks(1).collect();
    assert_eq!(run(&bytes, LIMITS).expect("valid"), whole);
}

#[test]
fn big_arguments_get_their_own_buffer() {
    let big = vec![b'x'; BIG_ARG_MIN + 7];
    let mut message = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", big.len()).into_bytes();
    message.extend_from_slice(&big);
    message.extend_from_slice(b"\r\n*1\r\n$4\r\nPING\r\n");
    let want = vec![
        vec![b"SET".to_vec(), b"k".to_vec(), big.clone()],
        vec![b"PING".to_vec()],
    ];
    for at in (0..message.len()).step_by(97).chain([
        message.len() - 15,
        message.len() - 14,
        message.len() - 13,
    ]) {
        let pieces = [&message[..at], &message[at..]];
        assert_eq!(run(&pieces, LIMITS).expect("valid"), want, "split at {at}");
    }
}

#[test]
fn errors_are_those_of_redis() {
    let error = |bytes: &[u8]| run(&[bytes], LIMITS).expect_err("invalid");
    assert_eq!(error(b"*3\r\n$3\r\nSET\r\n#x\r\n"), "expected '$', got '#'");
    assert_eq!(error(b"*\r\n"), "invalid multibulk length");
    assert_eq!(error(b"*2147483648\r\n"), "invalid multibulk length");
    assert_eq!(error(b"*1\r\n$-1\r\n"), "invalid bulk length");
    assert_eq!(error(b"*1\r\n$536870913\r\n"), "invalid bulk length");
    assert_eq!(error(b"*1\r\n$x\r\n"), "invalid bulk length");
    assert_eq!(error(b"set \"a\r\n"), "unbalanced quotes in request");
    let long = |first: &[u8]| {
        let mut bytes = first.to_vec();
        bytes.resize(INLINE_MAX + 8, b'1');
        bytes
    };
    assert_eq!(error(&long(b"x")), "too big inline request");
    assert_eq!(error(&long(b"*")), "too big mbulk count string");
    assert_eq!(error(&long(b"*1\r\n$")), "too big bulk count string");
}

/// A line that can't become the header of a bulk is refused before the whole line has arrived.
#[test]
fn what_is_no_bulk_is_refused_at_its_first_byte() {
    for (bytes, got) in [
        (&b"*1\r\n%1"[..], '%'),
        (b"*2\r\n$4\r\nPING\r\n:", ':'),
        (b"PING\r\n*1\r\n\xff", '\u{ff}'),
    ] {
        let expected = format!("expected '$', got '{got}'");
        assert_eq!(run(&[bytes], LIMITS).expect_err("invalid"), expected);
        let split: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&split, LIMITS).expect_err("invalid"), expected);
    }
    assert_eq!(run(&[b"*1\r\n"], LIMITS), Ok(Vec::new()));
}

#[test]
fn a_stray_line_end_is_judged_with_the_line_that_it_begins() {
    for bytes in [&b"*1\r\r\n"[..], b"*1\r\r\n$\0AAAA", b"*1\r\n\nAAAA"] {
        assert_eq!(run(&[bytes], LIMITS), Ok(Vec::new()), "{bytes:?}");
    }
    let text = run(&[b"*1\r\n\nAAAA\r\n"], LIMITS).expect_err("invalid");
    assert_eq!(text, "expected '$', got '\n'");
    // A line that is only a line end is complete, and no header of a bulk.
    assert_eq!(run(&[b"*1\r\n\r"], LIMITS), Ok(Vec::new()));
    let text = run(&[b"*1\r\n\r\n"], LIMITS).expect_err("invalid");
    assert_eq!(text, "expected '$', got '\r'");
}

/// A header line with a NUL ends at the NUL, as a C string does: no line end is found behind it,
/// until the line is longer than `INLINE_MAX`.
#[test]
fn a_line_with_a_nul_is_never_complete() {
    let bytes: &[&[u8]] = &[
        b"PI\0NG\r\n",
        b"\0\r\n",
        b"ECHO \"a\0b\"\r\n",
        b"*1\0\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\0\r\nPING\r\n",
        b"*1\r\n$00000000000000000004\0\r\nPING\r\n",
    ];
    for bytes in bytes {
        assert_eq!(run(&[bytes], LIMITS), Ok(Vec::new()), "{bytes:?}");
        let rest = vec![b'\n'; INLINE_MAX];
        let text = run(&[bytes, &rest], LIMITS).expect_err("too long");
        assert!(text.starts_with("too big "), "{text}");
    }
    let payload = run(&[b"*1\r\n$3\r\na\0b\r\n"], LIMITS);
    assert_eq!(payload, Ok(vec![vec![b"a\0b".to_vec()]]));
}

#[test]
fn a_line_of_zeros_is_too_long_at_65537_bytes() {
    let zeros = vec![b'0'; INLINE_MAX];
    for (head, error) in [
        (&b"*"[..], "too big mbulk count string"),
        (b"*1\r\n$", "too big bulk count string"),
    ] {
        let bytes = [head, &zeros].concat();
        assert_eq!(run(&[&bytes], LIMITS).expect_err("too long"), error);
        assert_eq!(run(&[&bytes[..bytes.len() - 1]], LIMITS), Ok(Vec::new()));
    }
}

#[test]
fn vertical_tabs_and_form_feeds_part_no_words() {
    let words = |line: &[u8]| run(&[line], LIMITS).expect("valid").remove(0);
    for quoted in [&b""[..], b" \"\""] {
        let line = |text: &[u8]| [text, quoted, b"\r\n"].concat();
        let expected = |words: &[&[u8]]| {
            let mut words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
            words.extend((!quoted.is_empty()).then(Vec::new));
            words
        };
        assert_eq!(
            words(&line(b"ECHO a\x0bb")),
            expected(&[b"ECHO", b"a\x0bb"])
        );
        assert_eq!(words(&line(b"ECHO\x0ca")), expected(&[b"ECHO\x0ca"]));
        assert_eq!(
            words(&line(b"\x0b\x0cECHO a\x0b")),
            expected(&[b"ECHO", b"a\x0b"])
        );
        assert_eq!(
            words(&line(b"ECHO \x0ba\rb\tc")),
            expected(&[b"ECHO", b"a", b"b", b"c"])
        );
    }
}

#[test]
fn before_auth_requests_are_small() {
    let limits = Limits {
        unauthenticated: true,
        max_commands: 1,
        ..LIMITS
    };
    assert_eq!(
        run(&[b"*11\r\n"], limits).expect_err("too many"),
        "unauthenticated multibulk length"
    );
    let long = run(&[b"*1\r\n$16385\r\n"], limits);
    assert_eq!(long.expect_err("too long"), "unauthenticated bulk length");
    assert!(run(&[b"*10\r\n$16384\r\n"], limits).is_ok());
}

#[test]
fn parsing_stops_after_max_commands() {
    let mut table = ParseTable::default();
    let (mut pos, mut open) = (0, None);
    let limits = Limits {
        max_commands: 2,
        ..LIMITS
    };
    let status = parse(
        b"PING\r\nPING\r\nPING\r\n",
        &mut pos,
        limits,
        &mut table,
        &mut open,
    );
    assert_eq!((status, table.commands.len(), pos), (Status::Full, 2, 12));
}
