//! Glob patterns: KEYS, SCAN MATCH, PSUBSCRIBE, CONFIG GET, ACL key patterns.
//!
//! ```text
//!   *       any bytes, none too          [abc]  one of them       [a-c]  a range, in either direction
//!   ?       any one byte                 [^a]   none of them      \x     the byte x itself
//! ```
//!
//! The special cases are Redis's, since existing patterns depend on them: `]` right after `[`
//! closes the class; a class may end with the pattern; a range may take the `]` as its end
//! (`[a-]`); `\` at the very end is a backslash; the empty string matches only the empty pattern,
//! not `*`; an escaped byte in a class is compared with its case.
//!
//! **Invariant:** the time of a match is proportional to pattern length times string length at
//! most. Only the last `*` is ever tried again: once the part between two stars has matched, a
//! later match of this part can only leave less of the string for the rest (test
//! `many_stars_end_in_time` would not end otherwise).

use memchr::memchr;

/// Whether `string` matches `pattern`, byte for byte.
pub fn glob_match(pattern: &[u8], string: &[u8]) -> bool {
    matches::<false>(pattern, string)
}

/// Whether `string` matches `pattern`; upper and lower case of ASCII letters are equal.
pub fn glob_match_nocase(pattern: &[u8], string: &[u8]) -> bool {
    matches::<true>(pattern, string)
}

/// Whether the pattern matches only the string that equals the pattern, so that a look-up can
/// replace a scan.
pub fn is_literal(pattern: &[u8]) -> bool {
    !pattern
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// A pattern with more stars than this (adjacent stars count as one) matches nothing, as in Redis,
/// whose matcher limits the depth of its recursion.
const STARS_MAX: usize = 1000;

fn matches<const NOCASE: bool>(pattern: &[u8], string: &[u8]) -> bool {
    if string.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut string) = (pattern, string);
    // The pattern behind the last star, and the rest of the string at which this pattern was last
    // tried.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let mut stars = 0;
    while let Some((&byte, later)) = string.split_first() {
        if let [b'*', rest @ ..] = pattern {
            if rest.is_empty() {
                return true;
            }
            stars += usize::from(rest[0] != b'*');
            if stars > STARS_MAX {
                return false;
            }
            pattern = rest;
            retry = Some((rest, string));
            continue;
        }
        if let Some(rest) = match_one::<NOCASE>(pattern, byte) {
            (pattern, string) = (rest, later);
            continue;
        }
        let Some((after_star, tried)) = retry else {
            return false;
        };
        let next = next_candidate::<NOCASE>(after_star, &tried[1..]);
        (pattern, string) = (after_star, next);
        retry = Some((after_star, next));
    }
    pattern.iter().all(|byte| *byte == b'*')
}

/// Skips the bytes of the string that can't match the first element of the pattern behind a star.
fn next_candidate<'a, const NOCASE: bool>(after_star: &[u8], string: &'a [u8]) -> &'a [u8] {
    match after_star.first() {
        Some(byte) if !NOCASE && !matches!(byte, b'*' | b'?' | b'[' | b'\\') => {
            let at = memchr(*byte, string).unwrap_or(string.len());
            &string[at..]
        }
        _ => string,
    }
}

/// Matches one byte against the first element of the pattern, which is not a star; returns the
/// pattern behind it.
fn match_one<const NOCASE: bool>(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', rest @ ..] => match_class::<NOCASE>(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (same::<NOCASE>(*literal, byte), rest)
        }
    };
    matched.then_some(rest)
}

/// Matches one byte against a class that starts behind its `[`; returns the pattern behind the
/// class.
fn match_class<const NOCASE: bool>(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut matched = false;
    loop {
        class = match class {
            [] => return (matched != negated, class),
            [b'\\', literal, rest @ ..] => {
                matched |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (matched != negated, rest),
            [from, b'-', to, rest @ ..] => {
                matched |= in_range::<NOCASE>(*from, *to, byte);
                rest
            }
            [literal, rest @ ..] => {
                matched |= same::<NOCASE>(*literal, byte);
                rest
            }
        };
    }
}

fn same<const NOCASE: bool>(left: u8, right: u8) -> bool {
    match NOCASE {
        true => left.eq_ignore_ascii_case(&right),
        false => left == right,
    }
}

/// Whether a range of a class, such as `a-z`, has the byte. The ends of the range may come in
/// either order; they are sorted before the case is folded.
fn in_range<const NOCASE: bool>(from: u8, to: u8, byte: u8) -> bool {
    let (low, high) = (from.min(to), from.max(to));
    match NOCASE {
        true => (low.to_ascii_lowercase()..=high.to_ascii_lowercase())
            .contains(&byte.to_ascii_lowercase()),
        false => (low..=high).contains(&byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        for string in matching {
            assert!(
                glob_match(pattern.as_bytes(), string.as_bytes()),
                "{pattern} {string:?}"
            );
        }
        for string in other {
            assert!(
                !glob_match(pattern.as_bytes(), string.as_bytes()),
                "{pattern} {string:?}"
            );
        }
    }

    #[test]
    fn elements() {
        check("h?llo", &["hello", "h?llo"], &["hllo", "heello"]);
        check("h*llo", &["hllo", "heeello", "hllollo"], &["hell", "ahllo"]);
        check("h[ae]llo", &["hello", "hallo"], &["hillo"]);
        check("h[^e]llo", &["hallo"], &["hello", "hllo"]);
        check("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]);
        check("h[b-a]llo", &["hallo", "hbllo"], &["hcllo"]);
        check("\\*", &["*"], &["a", "\\*"]);
        check("a\\", &["a\\"], &["a"]);
        check("*", &["a", "abc"], &[""]);
        check("**", &["a"], &[""]);
        check("a*", &["a", "ab"], &["b"]);
        check("", &[""], &["a"]);
        check("*b*c", &["abc", "bc", "bbcc"], &["ab", "acb"]);
        check(
            "user:*:name",
            &["user:1:name", "user:name:name"],
            &["user:name"],
        );
    }

    #[test]
    fn corners_of_classes() {
        check("[]a]", &[], &["a", "]a]", "a]"]);
        check("[^]a", &["xa"], &["a"]);
        check("[a", &["a"], &["b", "[a"]);
        check("[", &[], &["["]);
        check("[^", &["x"], &["xx"]);
        check("[a-]", &["a", "]", "^"], &["b", "-"]);
        check("[a\\]b]", &["]", "a", "b"], &["\\"]);
        check("[\\", &["\\"], &["a"]);
        check("[a-", &["a", "-"], &["b"]);
    }

    #[test]
    fn case_is_ignored_on_demand() {
        assert!(glob_match_nocase(b"MaxMem*", b"maxmemory"));
        assert!(glob_match_nocase(b"[A-C]x", b"bX"));
        assert!(!glob_match_nocase(b"[\\A]", b"a"));
        assert!(!glob_match(b"A", b"a"));
    }

    #[test]
    fn many_stars_end_in_time() {
        let pattern = b"a*".repeat(1000);
        assert!(!glob_match(
            &[&pattern[..], b"b"].concat(),
            &b"a".repeat(20_000)
        ));
    }

    #[test]
    fn literals() {
        assert!(is_literal(b"user:1"));
        assert!(!is_literal(b"user:?"));
        assert!(!is_literal(b"user\\1"));
    }

    /// A simple matcher that tries every split of the string at every star, for comparison.
    fn naive(pattern: &[u8], string: &[u8]) -> bool {
        match (pattern, string) {
            ([], _) => string.is_empty(),
            ([b'*', rest @ ..], _) => (0..=string.len()).any(|skip| naive(rest, &string[skip..])),
            (_, []) => false,
            (_, [byte, later @ ..]) => {
                match_one::<false>(pattern, *byte).is_some_and(|rest| naive(rest, later))
            }
        }
    }

    proptest! {
        #[test]
        fn same_as_naive(pattern in "[ab*?\\\\[\\\\]^\\\\\\\\-]{0,10}", string in "[ab\\\\]]{1,10}") {
            let (pattern, string) = (pattern.as_bytes(), string.as_bytes());
            prop_assert_eq!(glob_match(pattern, string), naive(pattern, string));
        }
    }
}
