//! Keeping the line of `return redis.call(...)`.
//!
//! That is a tail call, for which LuaJIT gives up the frame of the caller: when the command fails, nobody knows any
//! more which line it was, and scripts and clients expect `script: <sha>, on @user_script:3.` A call in parentheses
//! is no tail call, and means the same where a function returns at most one value:
//!
//! ```text
//!   return redis.call('get', k)   ->   return (redis.call('get', k))
//! ```
//!
//! So such calls of functions known by name are put in parentheses before a script is compiled. No line moves.
//!
//! Limits: a function under another name (`local call = redis.call`) is not recognised, and the error of such a tail
//! call names the line of the next caller, or none.

use std::borrow::Cow;

/// Functions that return one value at most. A name that ends with a dot is a table of such functions.
const SINGLE: [&[u8]; 7] = [
    b"redis.",
    b"server.",
    b"cjson.",
    b"cmsgpack.pack",
    b"struct.pack",
    b"math.random",
    b"error",
];

/// The source with parentheses around the calls that are returned.
pub fn without_tail_calls(source: &[u8]) -> Cow<'_, [u8]> {
    let mut inserts: Vec<(usize, u8)> = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let (kind, end) = token(source, at);
        if kind == Token::Word && source[at..end] == *b"return" {
            let start = skip_blank(source, end);
            if let Some(close) = call_end(source, start) {
                inserts.push((start, b'('));
                inserts.push((close, b')'));
            }
        }
        at = end;
    }
    if inserts.is_empty() {
        return Cow::Borrowed(source);
    }
    inserts.sort_by_key(|&(place, _)| place);
    let mut out = Vec::with_capacity(source.len() + inserts.len());
    let mut done = 0;
    for (place, bracket) in inserts {
        out.extend_from_slice(&source[done..place]);
        out.push(bracket);
        done = place;
    }
    out.extend_from_slice(&source[done..]);
    Cow::Owned(out)
}

/// If one of the known functions is called at `start`: where the call ends.
fn call_end(source: &[u8], start: usize) -> Option<usize> {
    let is_name = |&b: &u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    let rest = &source[start..];
    let len = rest.iter().position(|b| !is_name(b)).unwrap_or(rest.len());
    let name = &rest[..len];
    let known = SINGLE.iter().any(|known| match known.strip_suffix(b".") {
        Some(_) => {
            name.starts_with(known)
                && name.len() > known.len()
                && !name[known.len()..].contains(&b'.')
        }
        None => name == *known,
    });
    let open = skip_blank(source, start + len);
    if !known || source.get(open) != Some(&b'(') {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = open;
    while at < source.len() {
        let (kind, end) = token(source, at);
        match (kind, source[at]) {
            (Token::Other, b'(') => depth += 1,
            (Token::Other, b')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(end);
        }
        at = end;
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Word,
    /// White space, comments, strings.
    Skipped,
    /// Any other single character.
    Other,
}

/// What begins at `at`, and where it ends; always behind `at`.
fn token(source: &[u8], at: usize) -> (Token, usize) {
    let rest = &source[at..];
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match rest[0] {
        b if is_word(b) => {
            let len = rest.iter().position(|&b| !is_word(b));
            (Token::Word, at + len.unwrap_or(rest.len()))
        }
        b'-' if rest.get(1) == Some(&b'-') => {
            let end = long_bracket(source, at + 2).unwrap_or_else(|| {
                let line = memchr::memchr(b'\n', rest);
                at + line.unwrap_or(rest.len())
            });
            (Token::Skipped, end)
        }
        b'[' => match long_bracket(source, at) {
            Some(end) => (Token::Skipped, end),
            None => (Token::Other, at + 1),
        },
        quote @ (b'"' | b'\'') => (Token::Skipped, quoted(source, at, quote)),
        b if b.is_ascii_whitespace() => (Token::Skipped, at + 1),
        _ => (Token::Other, at + 1),
    }
}

fn skip_blank(source: &[u8], mut at: usize) -> usize {
    while at < source.len() {
        let (kind, end) = token(source, at);
        if kind != Token::Skipped || matches!(source[at], b'"' | b'\'' | b'[') {
            break;
        }
        at = end;
    }
    at
}

/// The end of a string in quotes.
fn quoted(source: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < source.len() && source[end] != quote {
        end += if source[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(source.len())
}

/// The end of `[==[ ... ]==]`, if that begins at `at`.
fn long_bracket(source: &[u8], at: usize) -> Option<usize> {
    let rest = source.get(at..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|&&b| b == b'=').count();
    if rest.get(level) != Some(&b'[') {
        return None;
    }
    let body = at + level + 2;
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    let found = memchr::memmem::find(&source[body..], &close);
    Some(found.map_or(source.len(), |found| body + found + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        String::from_utf8(without_tail_calls(source.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn returned_calls_are_put_in_parentheses() {
        for (source, expected) in [
            ("return redis.call('a')", "return (redis.call('a'))"),
            ("return  redis.call ('a')+1", "return  (redis.call ('a'))+1"),
            (
                "return redis.call(f(1), ')', \"\\\")\", [[)]], (2)) x",
                "return (redis.call(f(1), ')', \"\\\")\", [[)]], (2))) x",
            ),
            (
                "if x then return error('e') end",
                "if x then return (error('e')) end",
            ),
            (
                "return --c\n redis.pcall(1)",
                "return --c\n (redis.pcall(1))",
            ),
            (
                "return redis.call(function() return redis.call(1) end)",
                "return (redis.call(function() return (redis.call(1)) end))",
            ),
        ] {
            assert_eq!(text(source), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for source in [
            "",
            "return unpack(x)",
            "return redis.call",
            "return redis.call'x'",
            "return redis.x.y(1)",
            "return errors(1)",
            "'return redis.call(1)'",
            "--[[ return redis.call(1) ]] x()",
            "-- return redis.call(1)",
            "[==[ return redis.call(1) ]] ]==]",
            "return redis.call(1",
            "returned redis.call(1)",
            "x = 'unclosed",
            "'\\",
            "[==[",
        ] {
            assert_eq!(text(source), source);
        }
    }
}
