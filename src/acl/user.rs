//! An ACL user: a name, passwords, and selectors with the user's rights.
//!
//! ```text
//!   user alice on nopass sanitize-payload #2bd8… ~a:* resetchannels -@all +get (~b:* resetchannels -@all +set)
//!        name  `------- flags ---------' passwords `------ the root -------' `---- more selectors, in () ----'
//! ```
//!
//! Passwords are kept as SHA-256 hashes, as in Redis. Passwords are shared secrets of programs,
//! long and random, so a slow hash would only slow AUTH down. The comparison of hashes takes the
//! same time for wrong and right passwords.
//!
//! **Invariant:** `unlimited` is true exactly when a selector allows everything, as it is computed
//! after each rule.
//! **Invariant:** parsing a user's description gives an equal user. Test:
//! `descriptions_say_the_same`.

use sha2::{Digest, Sha256};

use crate::acl::rules::{RuleError, Terms, is};
use crate::acl::selector::Selector;

/// SHA-256 of a password.
pub type Hash = [u8; 32];

/// An ACL user with its passwords and its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Box<[u8]>,
    /// Whether clients can log in as the user (rule `on`). Clients of the user that are connected
    /// already stay connected.
    pub enabled: bool,
    /// Whether AUTH accepts every password for the user (rule `nopass`).
    pub no_password: bool,
    /// Whether the payloads of this user's RESTORE are checked in depth (`sanitize-dump-payload
    /// clients`).
    pub sanitize_payload: bool,
    pub passwords: Vec<Hash>,
    /// The root selector, then the other selectors in the order in which they were added.
    selectors: Vec<Selector>,
    unlimited: bool,
}

impl User {
    /// A user that is allowed nothing, and as which no client can log in.
    pub fn new(terms: &Terms, name: &[u8]) -> User {
        User {
            name: name.into(),
            enabled: false,
            no_password: false,
            sanitize_payload: true,
            passwords: Vec::new(),
            selectors: vec![Selector::new(terms)],
            unlimited: false,
        }
    }

    /// A user that is allowed everything without a password: the initial `default`.
    pub fn open(terms: &Terms, name: &[u8]) -> User {
        let mut user = User::new(terms, name);
        for rule in ["on", "nopass", "~*", "&*", "+@all"] {
            let applied = user.apply(terms, rule.as_bytes());
            debug_assert_eq!(applied, Ok(()));
        }
        user
    }

    /// Whether the user is allowed everything, so that calls need no check.
    #[inline]
    pub fn is_unlimited(&self) -> bool {
        self.unlimited
    }

    /// The root selector, which has the user's rules outside of parentheses.
    pub fn root(&self) -> &Selector {
        &self.selectors[0]
    }

    /// All selectors of the user, the root selector first.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// The user's selectors other than the root selector, which are written in parentheses.
    pub fn added_selectors(&self) -> &[Selector] {
        &self.selectors[1..]
    }

    /// Applies one ACL rule to the user. A rule that is refused leaves the user unchanged.
    pub fn apply(&mut self, terms: &Terms, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            b"" => {}
            _ if is(rule, "on") => self.enabled = true,
            _ if is(rule, "off") => self.enabled = false,
            _ if is(rule, "nopass") => self.forget_passwords(true),
            _ if is(rule, "resetpass") => self.forget_passwords(false),
            _ if is(rule, "sanitize-payload") => self.sanitize_payload = true,
            _ if is(rule, "skip-sanitize-payload") => self.sanitize_payload = false,
            _ if is(rule, "clearselectors") => self.selectors.truncate(1),
            _ if is(rule, "reset") => *self = User::new(terms, &self.name),
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'#', digits @ ..] => self.add_password(parse_hash(digits)?),
            [b'<', password @ ..] => self.remove_password(hash(password))?,
            [b'!', digits @ ..] => self.remove_password(parse_hash(digits)?)?,
            [b'(', ..] => self.selectors.push(Selector::parse(terms, rule)?),
            _ => self.selectors[0].apply(terms, rule)?,
        }
        self.unlimited = self.selectors.iter().any(Selector::is_unlimited);
        Ok(())
    }

    /// Applies the rules in order, up to the first rule that is refused; `Err` has that rule's
    /// index.
    pub fn apply_all<R: AsRef<[u8]>>(
        &mut self,
        terms: &Terms,
        rules: &[R],
    ) -> Result<(), (usize, RuleError)> {
        for (at, rule) in rules.iter().enumerate() {
            self.apply(terms, rule.as_ref()).map_err(|e| (at, e))?;
        }
        Ok(())
    }

    fn forget_passwords(&mut self, needs_none: bool) {
        self.no_password = needs_none;
        self.passwords.clear();
    }

    fn add_password(&mut self, hash: Hash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.no_password = false;
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether a client can log in as the user with `password`.
    pub fn accepts(&self, password: &[u8]) -> bool {
        if !self.enabled {
            return false;
        }
        let said = hash(password);
        let equal = |known: &Hash| {
            let difference = known.iter().zip(&said).fold(0, |sum, (a, b)| sum | (a ^ b));
            std::hint::black_box(difference) == 0
        };
        let known = self
            .passwords
            .iter()
            .fold(false, |found, known| found | equal(known));
        known | self.no_password
    }

    /// The user's flags in the reply to ACL GETUSER: `on`, `nopass`, `sanitize-payload`.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.no_password {
            flags.push("nopass");
        }
        flags.push(if self.sanitize_payload {
            "sanitize-payload"
        } else {
            "skip-sanitize-payload"
        });
        flags
    }

    /// The user's description without its name: the rules that turn a new user into an equal one.
    pub fn describe(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = self
            .flags()
            .iter()
            .map(|flag| flag.as_bytes().to_vec())
            .collect();
        words.extend(
            self.passwords
                .iter()
                .map(|hash| format!("#{}", hex(hash)).into_bytes()),
        );
        words.push(self.root().describe());
        let added = self.added_selectors().iter();
        words.extend(added.map(|selector| [b"(", &selector.describe()[..], b")"].concat()));
        words.join(&b' ')
    }
}

fn hash(password: &[u8]) -> Hash {
    Sha256::digest(password).into()
}

/// The hash of a password as 64 hexadecimal digits.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses the hash of a password: 64 hexadecimal digits in lower case.
fn parse_hash(digits: &[u8]) -> Result<Hash, RuleError> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(RuleError::BadHash),
    };
    if digits.len() != 2 * size_of::<Hash>() {
        return Err(RuleError::BadHash);
    }
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(hash)
}
