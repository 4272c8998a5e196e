//! A selector: one set of rights. A user has a root selector and any number of other selectors,
//! which are written in parentheses. A call is allowed if one selector allows its command, keys,
//! channels and databases.
//!
//! ```text
//!   commands   a bit for each id of the command table, subcommands included      1 bit test for a call
//!   first_args commands allowed with one first argument: +select|0                looked at when the bit is not set
//!   rules      "+@all -@dangerous +info": the rules about commands, in the shortest form with the same effect
//!   keys       None = all, or patterns with the rights R and W
//!   channels   None = all, or patterns
//!   databases  None = all, or their numbers in order
//! ```
//!
//! A call of a command is checked against the bits of the selector; ACL LIST shows its rules. A
//! rule about commands changes the bits of the selector when the rule is applied, so it does not
//! affect commands that are added to a category later. A rule about commands is also kept as text,
//! in place of earlier rules about the same command, its subcommands, or the same category. A rule
//! about `@all` replaces all earlier rules about commands.
//!
//! **Invariant:** the rules of a selector, applied to a new selector, give the same bits. Test:
//! `descriptions_say_the_same`.
//! **Invariant:** `databases` is sorted without repetition.
//!
//! Rejected: finding the shortest rules for the bits of a selector, as Redis up to 7.0 did. A
//! search for the shortest rules visits all categories, and its result differs from the rules that
//! the administrator wrote.

use std::fmt::Write;

use crate::acl::rules::{RuleError, Terms, is, is_word};
use crate::command::category_by_name;
use crate::command::table::CommandTable;
use crate::util::quote::split_args;

/// The right to read what is stored under a key.
pub const READ: u8 = 1 << 0;
/// The right to change or delete what is stored under a key.
pub const WRITE: u8 = 1 << 1;

/// A pattern of keys, and the rights to the keys that match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    /// The bits [`READ`] and [`WRITE`].
    pub rights: u8,
    pub pattern: Box<[u8]>,
}

/// A selector: one set of rights of a user, to commands, keys, channels and databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    commands: Box<[u64]>,
    /// Commands that are allowed only with a certain first argument: the command's id, and the
    /// argument in lower case.
    first_args: Vec<(u16, Box<[u8]>)>,
    rules: CommandRules,
    pub keys: Option<Vec<KeyPattern>>,
    pub channels: Option<Vec<Box<[u8]>>>,
    pub databases: Option<Vec<u32>>,
}

/// The rules about commands of a selector: all or no commands at first, then the later rules in
/// order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CommandRules {
    all: bool,
    /// Rules as (allowed, name), with names such as `get`, `client|id`, `select|0`, `@read`.
    list: Vec<(bool, Box<[u8]>)>,
}

impl CommandRules {
    /// Adds a rule and removes the earlier rules that the new rule overrides.
    fn update(&mut self, allowed: bool, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        self.list.retain(|(_, old)| {
            let rest = old.strip_prefix(&name[..]);
            !rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'|')
        });
        self.list.push((allowed, name.into()));
    }
}

impl Selector {
    /// A selector without commands and keys, with all databases, and with the channels that
    /// `acl-pubsub-default` gives.
    pub fn new(terms: &Terms) -> Selector {
        Selector {
            commands: vec![0; terms.commands.entries.len().div_ceil(64)].into(),
            first_args: Vec::new(),
            rules: CommandRules::default(),
            keys: Some(Vec::new()),
            channels: (!terms.all_channels).then(Vec::new),
            databases: None,
        }
    }

    /// Parses a selector in parentheses.
    pub fn parse(terms: &Terms, text: &[u8]) -> Result<Selector, RuleError> {
        let inner = text.strip_prefix(b"(").and_then(|t| t.strip_suffix(b")"));
        let rules = inner.and_then(split_args).ok_or(RuleError::Syntax)?;
        let mut selector = Selector::new(terms);
        for rule in rules {
            selector.apply(terms, &rule)?;
        }
        Ok(selector)
    }

    /// Whether the selector allows all commands, keys, channels and databases.
    pub fn is_unlimited(&self) -> bool {
        self.commands.iter().all(|&bits| bits == u64::MAX)
            && self.keys.is_none()
            && self.channels.is_none()
            && self.databases.is_none()
    }

    /// Whether the selector allows a command whatever its arguments are.
    #[inline]
    pub fn allows_command(&self, id: u16) -> bool {
        let bits = self.commands.get(id as usize / 64).copied().unwrap_or(0);
        bits >> (id % 64) & 1 != 0
    }

    /// Whether the selector allows a command because of the command's first argument (`+select|0`).
    pub fn allows_first_arg(&self, id: u16, argv: &[&[u8]]) -> bool {
        let said = |(of, word): &(u16, Box<[u8]>)| {
            *of == id
                && argv
                    .get(1)
                    .is_some_and(|arg| arg.eq_ignore_ascii_case(word))
        };
        self.first_args.iter().any(said)
    }

    /// Applies one ACL rule to the selector.
    pub fn apply(&mut self, terms: &Terms, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            _ if is(rule, "allkeys") || rule == b"~*" => self.keys = None,
            _ if is(rule, "resetkeys") => self.keys = Some(Vec::new()),
            _ if is(rule, "allchannels") || rule == b"&*" => self.channels = None,
            _ if is(rule, "resetchannels") => self.channels = Some(Vec::new()),
            _ if is(rule, "alldbs") => self.databases = None,
            _ if is(rule, "resetdbs") => self.databases = Some(Vec::new()),
            _ if is(rule, "allcommands") || is(rule, "+@all") => self.set_all(true),
            _ if is(rule, "nocommands") || is(rule, "-@all") => self.set_all(false),
            [b'~', pattern @ ..] => self.add_keys(READ | WRITE, pattern)?,
            [b'%', rest @ ..] => self.add_keys_with_rights(rest)?,
            [b'&', pattern @ ..] => self.add_channels(pattern)?,
            [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                self.set_category(terms, *sign == b'+', category)?
            }
            [b'+', name @ ..] => self.allow(terms, name)?,
            [b'-', name @ ..] => {
                let id = terms
                    .commands
                    .lookup_original(name)
                    .ok_or(RuleError::Unknown)?;
                self.set_command(terms.commands, id, false);
                self.rules.update(false, name);
            }
            _ if rule.len() >= 3 && is(&rule[..3], "db=") => {
                self.databases = Some(parse_databases(&rule[3..])?);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn set_all(&mut self, allowed: bool) {
        self.commands.fill(if allowed { u64::MAX } else { 0 });
        self.first_args.clear();
        self.rules = CommandRules {
            all: allowed,
            list: Vec::new(),
        };
    }

    fn set_category(&mut self, terms: &Terms, allowed: bool, name: &[u8]) -> Result<(), RuleError> {
        let category = category_by_name(name).ok_or(RuleError::Unknown)?;
        for (id, entry) in terms.commands.entries.iter().enumerate() {
            if entry.row.acl & category != 0 {
                self.set_command(terms.commands, id as u16, allowed);
            }
        }
        self.rules.update(allowed, &[b"@", name].concat());
        Ok(())
    }

    /// Allows or forbids a command with all of its subcommands.
    fn set_command(&mut self, table: &CommandTable, id: u16, allowed: bool) {
        let (from, count) = table.entry(id).subcommands;
        for id in std::iter::once(id).chain(from..from + count) {
            let (word, bit) = (id as usize / 64, 1 << (id % 64));
            match allowed {
                true => self.commands[word] |= bit,
                false => self.commands[word] &= !bit,
            }
            self.first_args.retain(|(of, _)| *of != id);
        }
    }

    /// Applies `+get`, `+client|id` or `+select|0`.
    fn allow(&mut self, terms: &Terms, name: &[u8]) -> Result<(), RuleError> {
        if let Some(id) = terms.commands.lookup_original(name) {
            self.set_command(terms.commands, id, true);
        } else {
            let id = command_of_first_arg(terms.commands, name)?;
            let bar = name.iter().rposition(|&b| b == b'|').unwrap_or(0);
            let word: Box<[u8]> = name[bar + 1..].to_ascii_lowercase().into();
            if !self.first_args.contains(&(id, word.clone())) {
                self.first_args.push((id, word));
            }
        }
        self.rules.update(true, name);
        Ok(())
    }

    /// Applies `%R~pattern`; `rest` is the rule without the percent sign.
    fn add_keys_with_rights(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        if self.keys.is_none() {
            return Err(RuleError::AfterAllKeys);
        }
        let mut rights = 0;
        let mut rest = rest;
        loop {
            let (right, tail) = match rest {
                // A rule `%R` without a tilde has an empty pattern, which Redis accepts.
                [] => break,
                [b'~', tail @ ..] => {
                    rest = tail;
                    break;
                }
                [b'R' | b'r', tail @ ..] => (READ, tail),
                [b'W' | b'w', tail @ ..] => (WRITE, tail),
                _ => return Err(RuleError::Syntax),
            };
            if rights & right != 0 {
                return Err(RuleError::Syntax);
            }
            rights |= right;
            rest = tail;
        }
        if rights == 0 {
            return Err(RuleError::Syntax);
        }
        self.add_keys(rights, rest)
    }

    fn add_keys(&mut self, rights: u8, pattern: &[u8]) -> Result<(), RuleError> {
        let keys = self.keys.as_mut().ok_or(RuleError::AfterAllKeys)?;
        if !is_word(pattern) {
            return Err(RuleError::Syntax);
        }
        match keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => known.rights |= rights,
            None => keys.push(KeyPattern {
                rights,
                pattern: pattern.into(),
            }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        let channels = self.channels.as_mut().ok_or(RuleError::AfterAllChannels)?;
        if !is_word(pattern) {
            return Err(RuleError::Syntax);
        }
        if !channels.iter().any(|known| **known == *pattern) {
            channels.push(pattern.into());
        }
        Ok(())
    }

    /// The selector's rules about commands, such as `+@all -flushall`.
    pub fn describe_commands(&self) -> Vec<u8> {
        let mut text = if self.rules.all { b"+@all" } else { b"-@all" }.to_vec();
        for (allowed, name) in &self.rules.list {
            text.extend_from_slice(if *allowed { b" +" } else { b" -" });
            text.extend_from_slice(name);
        }
        text
    }

    /// The selector's rules about keys, such as `~cache:* %R~stats:*`; `~*` for all keys, empty for
    /// none.
    pub fn describe_keys(&self) -> Vec<u8> {
        let Some(keys) = &self.keys else {
            return b"~*".to_vec();
        };
        let words = keys.iter().map(|key| {
            let sign: &[u8] = match key.rights {
                READ => b"%R~",
                WRITE => b"%W~",
                // `~*` would be read as all keys, and no pattern may follow a rule for all keys.
                _ if *key.pattern == *b"*" && keys.len() > 1 => b"%RW~",
                _ => b"~",
            };
            [sign, &key.pattern].concat()
        });
        words.collect::<Vec<_>>().join(&b' ')
    }

    /// The selector's rules about channels, such as `&news &chat:*`; `&*` for all channels, empty
    /// for none.
    pub fn describe_channels(&self) -> Vec<u8> {
        let Some(channels) = &self.channels else {
            return b"&*".to_vec();
        };
        let words = channels.iter().map(|pattern| [b"&", &pattern[..]].concat());
        words.collect::<Vec<_>>().join(&b' ')
    }

    /// The selector's rule about databases: `db=0,1`, `alldbs`, or `resetdbs` for none.
    pub fn describe_databases(&self) -> String {
        let Some(databases) = &self.databases else {
            return "alldbs".into();
        };
        let mut text = String::new();
        for db in databases {
            let sign = if text.is_empty() { "db=" } else { "," };
            // Writing to a String can't fail.
            let _ = write!(text, "{sign}{db}");
        }
        if text.is_empty() {
            text += "resetdbs";
        }
        text
    }

    /// The selector's description: the rules that turn a new selector into an equal one.
    pub fn describe(&self) -> Vec<u8> {
        let mut words = Vec::new();
        if self.keys.as_ref().is_none_or(|keys| !keys.is_empty()) {
            words.push(self.describe_keys());
        }
        if self.channels.is_some() {
            words.push(b"resetchannels".to_vec());
        }
        if self.channels.as_ref().is_none_or(|c| !c.is_empty()) {
            words.push(self.describe_channels());
        }
        if self.databases.is_some() {
            words.push(self.describe_databases().into_bytes());
        }
        words.push(self.describe_commands());
        words.join(&b' ')
    }
}

/// The id of the command in a rule `+command|word`, where `word` is a first argument and not a
/// subcommand.
fn command_of_first_arg(table: &CommandTable, name: &[u8]) -> Result<u16, RuleError> {
    let bar = name
        .iter()
        .rposition(|&b| b == b'|')
        .ok_or(RuleError::Unknown)?;
    let id = table
        .lookup_original(&name[..bar])
        .ok_or(RuleError::Unknown)?;
    let entry = table.entry(id);
    if entry.parent.is_some() {
        Err(RuleError::FirstArgOfSubcommand)
    } else if bar + 1 == name.len() {
        Err(RuleError::Syntax)
    } else if entry.subcommands.1 > 0 {
        Err(RuleError::Unknown)
    } else {
        Ok(id)
    }
}

/// Parses the list of databases in a rule such as `db=0,1,5`. The databases of the rule need not
/// exist, as the setting `databases` may be larger at the next start.
fn parse_databases(list: &[u8]) -> Result<Vec<u32>, RuleError> {
    let mut databases = list
        .split(|&b| b == b',')
        .map(parse_database)
        .collect::<Result<Vec<_>, _>>()?;
    databases.sort_unstable();
    databases.dedup();
    Ok(databases)
}

/// Parses a database's number, in the form that C's `strtol` accepts, up to the largest number of
/// databases that a server can have.
fn parse_database(number: &[u8]) -> Result<u32, RuleError> {
    let number = number.trim_ascii_start();
    let (negative, digits) = match number {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RuleError::Syntax);
    }
    let value = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<u32>().ok())
        .filter(|&db| db <= i32::MAX as u32 && (db == 0 || !negative));
    value.ok_or(RuleError::DatabaseRange)
}
