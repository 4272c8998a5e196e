//! Words of a line: splitting with quotes, and quoting.

/// Splits like a shell: `"..."` with \n \r \t \b \a \xHH escapes, `'...'` with \' only. None: unbalanced quotes.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let (word, tail) = split_word(rest)?;
        words.push(word);
        rest = tail.trim_ascii_start();
    }
    Some(words)
}

fn split_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                rest = quoted_part(tail, byte, &mut word)?;
                let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
                return ends.then_some((word, rest));
            }
            _ if byte.is_ascii_whitespace() || byte == 0 => break,
            _ => {
                word.push(byte);
                rest = tail;
            }
        }
    }
    Some((word, rest))
}

fn quoted_part<'a>(mut rest: &'a [u8], quote: u8, word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte == quote {
            return Some(rest);
        }
        if byte != b'\\' || rest.is_empty() || (quote == b'\'' && rest[0] != b'\'') {
            word.push(byte);
            continue;
        }
        let hex = |at: usize| rest.get(at).and_then(|b| (*b as char).to_digit(16));
        if let (b'x', Some(high), Some(low)) = (rest[0], hex(1), hex(2)) {
            word.push((high * 16 + low) as u8);
            rest = &rest[3..];
            continue;
        }
        word.push(match rest[0] {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'a' => 7,
            other => other,
        });
        rest = &rest[1..];
    }
}

/// The word in double quotes, so that `split_args` reads it back.
pub fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in word {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            7 => out.extend(b"\\a"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    out.push(b'"');
    out
}

/// `*`, `?`, `[a-z]`, `\` escapes.
pub fn glob_matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let fold = |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|i| glob_matches(rest, &text[i..], nocase)),
        [b'?', rest @ ..] => !text.is_empty() && glob_matches(rest, &text[1..], nocase),
        [b'[', set @ ..] => {
            let Some(end) = set.iter().position(|b| *b == b']') else {
                return false;
            };
            let Some((&first, tail)) = text.split_first() else {
                return false;
            };
            let (members, rest) = (&set[..end], &set[end + 1..]);
            let (not, members) = match members {
                [b'^', m @ ..] => (true, m),
                m => (false, m),
            };
            let inside = members.contains(&fold(first))
                || members
                    .windows(3)
                    .any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&fold(first)));
            inside != not && glob_matches(rest, tail, nocase)
        }
        [b'\\', escaped, rest @ ..] | [escaped, rest @ ..] => {
            text.first().is_some_and(|b| fold(*b) == fold(*escaped))
                && glob_matches(rest, &text[1..], nocase)
        }
    }
}
