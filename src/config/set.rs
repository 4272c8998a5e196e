//! CONFIG GET and CONFIG SET.
//!
//! ```text
//!   set: look every name up -> set every field -> change the directory -> Change { what was, steps }
//!        any refusal: all fields as they were, and the error
//!   server: does the steps; when one fails: rollback(change), does the steps before it again, replies apply_failed
//! ```

use super::Config;
use super::enums::Text;
use super::row::{
    Apply, DENY_ASYNC_LOADING, DENY_LOADING, HIDDEN, IMMUTABLE, MULTI_ARG, Origin, PROTECTED,
    REAPPLY, Reason, Row,
};
use super::table::{TABLE, lookup};
use crate::sys::error_text;
use crate::sys::tape;
use crate::texts::{self, Words};
use crate::util::glob::{glob_match_nocase, is_literal};
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// The facts that decide which settings the client of a CONFIG SET may change at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Whether `enable-protected-configs` lets the client change protected settings.
    pub protected: bool,
    /// Whether the data set is being loaded, or a script has run for longer than
    /// `busy-reply-threshold`.
    pub loading: bool,
    /// Whether another data set is being loaded while clients read the present data set.
    pub loading_aside: bool,
}

/// An error reply of CONFIG SET.
#[derive(Debug, PartialEq, Eq)]
pub enum SetError {
    Unknown { name: Text },
    Failed { name: Text, reason: Reason },
    Loading(Words),
}

impl SetError {
    /// The error of a step, such as listening on another port, that failed after a setting was
    /// changed.
    pub fn apply_failed(step: &Step, reason: impl Into<Reason>) -> SetError {
        SetError::Failed {
            name: step.name.into(),
            reason: reason.into(),
        }
    }

    /// The text of the error reply without its `-`, as bytes, since the name of a setting may
    /// contain any byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A name in the error text ends at its first NUL byte, as with C's `%s`.
        let shown = |name: &[u8]| name.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        match self {
            SetError::Unknown { name } => {
                let head = b"ERR Unknown option or number of arguments for CONFIG SET - '";
                [&head[..], &shown(name), b"'"].concat()
            }
            SetError::Failed { name, reason } => {
                let head = b"ERR CONFIG SET failed (possibly related to argument '";
                [&head[..], &shown(name), b"') - ", reason.as_bytes()].concat()
            }
            SetError::Loading(words) => texts::LOADING.of(*words).into(),
        }
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

/// A step that the server must do after CONFIG SET, and the setting that the error names if the
/// step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub apply: Apply,
    pub name: &'static str,
}

/// The result of CONFIG SET: the fields have been changed, and the server must still do the steps.
#[must_use = "the steps are the server's to do"]
pub struct Change {
    before: Box<Config>,
    /// The steps of the settings whose values really changed, in the order of the settings, each
    /// step once.
    pub steps: Vec<Step>,
}

impl Config {
    /// CONFIG GET: the names that match a pattern, with the values of their settings. An alias that
    /// matches is returned, too. A hidden setting is returned only for its exact name. No name is
    /// repeated.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(Text, Vec<u8>)> {
        let mut found: Vec<(Text, Vec<u8>)> = Vec::new();
        let mut add = |name: &[u8], row: &Row| {
            if !found
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                found.push((name.into(), row.get(self)));
            }
        };
        for pattern in patterns {
            if is_literal(pattern) {
                lookup(pattern)
                    .into_iter()
                    .for_each(|row| add(pattern, row));
                continue;
            }
            for row in TABLE.iter().filter(|row| !row.is(HIDDEN)) {
                let matching = row
                    .names()
                    .filter(|n| glob_match_nocase(pattern, n.as_bytes()));
                matching.for_each(|name| add(name.as_bytes(), row));
            }
        }
        found
    }

    /// Sets all of the given settings, or, if one value is refused, none of them.
    pub fn set(&mut self, pairs: &[(&[u8], &[u8])], access: Access) -> Result<Change, SetError> {
        let targets = find_targets(pairs, access, self.words())?;
        let mut change = Change {
            before: Box::new(self.clone()),
            steps: Vec::new(),
        };
        for (target, (_, value)) in targets.iter().zip(pairs) {
            if let Err(reason) = self.set_one(target.row, value) {
                self.rollback(&change);
                return Err(SetError::Failed {
                    name: target.name.into(),
                    reason,
                });
            }
        }
        for target in targets {
            let Target { row, name } = target;
            let known = change.steps.iter().any(|step| step.apply == row.apply);
            let changed = row.is(REAPPLY) || row.get(self) != row.get(&change.before);
            if row.apply != Apply::None && !known && changed {
                change.steps.push(Step {
                    apply: row.apply,
                    name,
                });
            }
        }
        Ok(change)
    }

    fn set_one(&mut self, row: &Row, value: &[u8]) -> Result<(), Reason> {
        if row.is(MULTI_ARG) {
            let words: Vec<&[u8]> = value.split(|b| *b == b' ').collect();
            return row.set(self, &words, Origin::Set);
        }
        row.set(self, &[value], Origin::Set)?;
        if row.apply == Apply::Dir {
            change_dir(self)
        } else {
            Ok(())
        }
    }

    /// Undoes a CONFIG SET of which a step failed: restores the fields to their values before the
    /// change. The server must then apply again the settings that it had applied before the
    /// failure.
    pub fn rollback(&mut self, change: &Change) {
        let moved = self.dir != change.before.dir;
        *self = (*change.before).clone();
        if moved {
            // The error is ignored: if the old directory was removed, there is no directory to
            // return to.
            let _ = std::env::set_current_dir(&self.dir);
        }
    }
}

struct Target {
    row: &'static Row,
    /// The name or alias by which CONFIG SET named the setting, as the table spells it.
    name: &'static str,
}

/// Looks up all names of a CONFIG SET before any setting is changed. One CONFIG SET may have both
/// the name of a setting and its alias.
fn find_targets(
    pairs: &[(&[u8], &[u8])],
    access: Access,
    words: Words,
) -> Result<Vec<Target>, SetError> {
    let mut targets: Vec<Target> = Vec::with_capacity(pairs.len());
    let mut denied_by_loading = false;
    for (name, _) in pairs {
        let Some(row) = lookup(name) else {
            return Err(SetError::Unknown {
                name: (*name).into(),
            });
        };
        let failed = |reason: &str| SetError::Failed {
            name: (*name).into(),
            reason: reason.into(),
        };
        if row.is(IMMUTABLE) {
            return Err(failed("can't set immutable config"));
        }
        if row.is(PROTECTED) && !access.protected {
            return Err(failed("can't set protected config"));
        }
        denied_by_loading |= row.is(DENY_LOADING) && access.loading;
        denied_by_loading |= row.is(DENY_ASYNC_LOADING) && access.loading_aside;
        let spelled = row
            .names()
            .find(|known| known.as_bytes().eq_ignore_ascii_case(name));
        let spelled = spelled.unwrap_or(row.name);
        if targets.iter().any(|known| known.name == spelled) {
            return Err(failed("duplicate parameter"));
        }
        targets.push(Target { row, name: spelled });
    }
    if denied_by_loading {
        Err(SetError::Loading(words))
    } else {
        Ok(targets)
    }
}

/// Changes the working directory of the process to `config.dir`, and makes that path absolute.
pub(super) fn change_dir(config: &mut Config) -> Result<(), Reason> {
    tape::outcome(|| std::env::set_current_dir(&config.dir)).map_err(|error| error_text(&error))?;
    let cwd = || {
        let dir = std::env::current_dir().unwrap_or_default();
        dir.into_os_string().into_vec()
    };
    config.dir = Text::from(tape::text(cwd).as_slice());
    Ok(())
}
