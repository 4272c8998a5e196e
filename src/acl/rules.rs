//! The text form of ACL rules, and the reasons to refuse a rule.
//!
//! ```text
//!   on >secret ~cache:* %R~stats:* &news db=0,1 +@read -keys +client|id (+set ~log:*)
//!   |  |       |        |          |     |      |                       `- a selector: rules of its own
//!   |  |       |        |          |     |      `- commands: categories, commands, subcommands
//!   |  |       |        |          |     `- databases
//!   |  |       |        |          `- channels
//!   |  |       `- keys: all rights, or reading (R) and writing (W) apart
//!   `- about the user: `user.rs`; everything else is about a selector: `selector.rs`
//! ```
//!
//! The rules of a user are applied one after the other, from left to right. A selector that a shell
//! or a configuration line has split into words is joined again ([`merge_selectors`]).

use std::borrow::Cow;

use crate::command::table::CommandTable;

/// The context in which ACL rules are parsed.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub commands: &'a CommandTable,
    /// `acl-pubsub-default allchannels`: a user without channel rules may use all channels.
    pub all_channels: bool,
}

/// The reason why ACL SETUSER or an ACL file's rule is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleError {
    Syntax,
    /// The rule names a command or a category that does not exist.
    Unknown,
    AfterAllKeys,
    AfterAllChannels,
    NoSuchPassword,
    BadHash,
    FirstArgOfSubcommand,
    DatabaseRange,
}

impl RuleError {
    /// Redis's error message for an ACL rule that is refused.
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Syntax => "Syntax error",
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have \
                 any effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => {
                "Allowing first-arg of a subcommand is not supported"
            }
            RuleError::DatabaseRange => "The provided database ID is out of range",
        }
    }
}

/// Whether an ACL rule is the word `word`, in upper or lower case.
pub fn is(rule: &[u8], word: &str) -> bool {
    rule.eq_ignore_ascii_case(word.as_bytes())
}

/// Whether a pattern has neither spaces nor zero bytes: users are written to files as words
/// separated by spaces.
pub fn is_word(pattern: &[u8]) -> bool {
    !pattern
        .iter()
        .any(|&b| b == 0 || b == 0x0b || b.is_ascii_whitespace())
}

/// Whether a user name has neither spaces nor zero bytes.
pub fn is_user_name(name: &[u8]) -> bool {
    is_word(name)
}

/// Joins the words of each selector into one: from a word that opens with `(` to the next that ends
/// with `)`. `Err` is the index of a word that opens a selector with `(`, if no `)` follows.
pub fn merge_selectors<'a>(words: &[&'a [u8]]) -> Result<Vec<Cow<'a, [u8]>>, usize> {
    let mut merged: Vec<Cow<[u8]>> = Vec::with_capacity(words.len());
    let mut opened_at = None;
    for (at, &word) in words.iter().enumerate() {
        match (opened_at, merged.last_mut()) {
            (Some(_), Some(open)) => {
                let open = open.to_mut();
                open.push(b' ');
                open.extend_from_slice(word);
            }
            _ => {
                opened_at = word.starts_with(b"(").then_some(at);
                merged.push(Cow::Borrowed(word));
            }
        }
        if word.ends_with(b")") {
            opened_at = None;
        }
    }
    match opened_at {
        Some(at) => Err(at),
        None => Ok(merged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(line: &str) -> Result<Vec<String>, usize> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let merged = merge_selectors(&words)?;
        Ok(merged
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect())
    }

    #[test]
    fn selectors_are_put_together() {
        assert_eq!(
            merged("on (+get ~a) ( +set ) off").unwrap(),
            ["on", "(+get ~a)", "( +set )", "off"]
        );
        assert_eq!(merged("(a) b) c").unwrap(), ["(a)", "b)", "c"]);
        assert_eq!(merged("(a (b (c ) ) )").unwrap(), ["(a (b (c )", ")", ")"]);
        assert_eq!(merged("on (a b"), Err(1));
        assert_eq!(merged("(a b) ("), Err(2));
    }

    #[test]
    fn names_and_patterns_are_words() {
        assert!(is_word(b"") && is_word("\u{e9}*?[a]".as_bytes()));
        for bad in [&b"a b"[..], b"a\0", b"\t", b"a\n", b"\x0b"] {
            assert!(!is_word(bad));
        }
    }
}
