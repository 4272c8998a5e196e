//! Finds the keys in the arguments of a call, and what the command does to each key, for ACL,
//! cluster routing and COMMAND GETKEYS.
//!
//! ```text
//!   key(RO | ACCESS, keyword("STREAMS", 1), range(-1, 1, 2))
//!
//!   XREAD  COUNT  5  STREAMS  a  b  0  0            argc = 8
//!     0      1    2     3     4  5  6  7
//!                             ^ first = 4, behind the keyword
//!                             └──┘ last: half of argc - first (limit 2), one back (-1): 4 + 2 - 1 = 5
//! ```
//!
//! Each [`KeySpec`] of a command's row is evaluated by itself: first where its keys begin, then
//! where they end and their distance. Some commands have arguments that decide what happens to the
//! keys (SET, BITFIELD), or have keys at positions that no key spec expresses (SORT and GEORADIUS
//! with STORE, MIGRATE with KEYS, XREADGROUP with a consumer STREAMS): their rows name a function
//! of `src/command/keys/mod.rs`, which replaces the key specs. A function that finds keys reads the
//! options as its command does, so that the value of an option is never taken for another option:
//! `SORT k BY store` stores nothing. The syntax of other arguments is checked only by the command
//! itself.
//!
//! **Invariant:** if the keys can't be found, the list `out` is unchanged, so no caller sees a part
//! of the keys. Test: `an_error_leaves_no_keys`.
//! **Invariant:** every position of a found key is inside argv. Property: `keys_are_arguments`.
//!
//! The patterns of SORT's options BY and GET name further keys, which depend on the data: SORT
//! itself checks the rights to them.
//!
//! Source: the key specs of Redis 7.0, and the replies of Valkey 8.0 to COMMAND GETKEYSANDFLAGS.
//! Not supported on purpose: a number of keys such as `01` or `+1`, which Valkey accepts in COMMAND
//! GETKEYS although the command itself refuses such a number.

use crate::command::{
    ACCESS, BeginSearch, Command, DELETE, FindKeys, KeyFlags, KeySpec, NO_MANDATORY_KEYS, NOT_KEY,
    OW, RO, RW, UPDATE,
};

/// One key in the arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// The key's index in argv.
    pub pos: u32,
    pub flags: KeyFlags,
}

impl KeyRef {
    fn new(pos: usize, flags: KeyFlags) -> KeyRef {
        debug_assert!(pos <= u32::MAX as usize);
        KeyRef {
            pos: pos as u32,
            flags,
        }
    }

    /// Whether the argument is a key; false for a shard channel, which is only routed like a key.
    pub fn is_key(self) -> bool {
        self.flags & NOT_KEY == 0
    }
}

/// The error that the keys of a call can't be found, as the command itself would refuse the
/// arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeys;

/// A function that finds the keys of a command whose key specs are not enough.
pub type GetKeys = fn(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys>;

/// Appends the keys of a call to `out`, in the order of the command's key specs. The arguments
/// `argv` begin with the command's name and have passed [`Command::check_arity`]. Shard channels
/// count as keys here, see [`KeyRef::is_key`].
///
/// A call without keys is an error, unless the command has no key specs or may be called without
/// keys. For a command that may be called without keys (EVAL), a number of keys that does not fit
/// the arguments means no keys.
pub fn get_keys(cmd: &Command, argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    let before = out.len();
    let found = match cmd.get_keys {
        Some(get_keys) => get_keys(argv, out),
        None => cmd.keys.iter().try_for_each(|spec| walk(spec, argv, out)),
    };
    if found.is_err() {
        out.truncate(before);
    }
    let may_be_none = cmd.keys.is_empty() || cmd.is(NO_MANDATORY_KEYS);
    if out.len() > before || may_be_none {
        Ok(())
    } else {
        Err(InvalidKeys)
    }
}

/// Whether the call lacks the keys of a series that ends with the last argument, as `PFMERGE d`
/// lacks source keys. COMMAND GETKEYS refuses such a call in Redis.
pub fn lacks_series(cmd: &Command, argv: &[&[u8]]) -> bool {
    cmd.get_keys.is_none() && cmd.keys.iter().any(|spec| is_empty_series(spec, argv))
}

fn is_empty_series(spec: &KeySpec, argv: &[&[u8]]) -> bool {
    let ends_with_call = matches!(spec.find, FindKeys::Range { last: -1, .. });
    ends_with_call && begin(spec.begin, argv).is_some_and(|first| first >= argv.len())
}

/// Appends the keys of one key spec. An absent keyword, or an empty series at the end of the call,
/// means no keys; other keys beyond the last argument, or a number of keys that is zero, are an
/// error.
fn walk(spec: &KeySpec, argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    let Some(first) = begin(spec.begin, argv).filter(|_| !is_empty_series(spec, argv)) else {
        return Ok(());
    };
    let (first, last, step) = match spec.find {
        FindKeys::Range { last, step, limit } => {
            (first, range_end(argv.len(), first, last, limit)?, step)
        }
        FindKeys::KeyNum {
            number,
            first_key,
            step,
        } => {
            let count = number_of_keys(argv, first + number as usize)?;
            let first = first + first_key as usize;
            let steps = count.checked_sub(1).ok_or(InvalidKeys)?;
            let last = steps
                .checked_mul(step as usize)
                .and_then(|span| span.checked_add(first));
            (first, last.ok_or(InvalidKeys)?, step)
        }
        FindKeys::Unknown => return Ok(()),
    };
    if first > last || last >= argv.len() {
        return Err(InvalidKeys);
    }
    out.extend(
        (first..=last)
            .step_by(step as usize)
            .map(|pos| KeyRef::new(pos, spec.flags)),
    );
    Ok(())
}

/// The index in argv at which the keys of a key spec begin. A keyword counts only if an argument
/// follows it, and only behind the command's name.
fn begin(search: BeginSearch, argv: &[&[u8]]) -> Option<usize> {
    let is = |pos: &usize, keyword: &str| argv[*pos].eq_ignore_ascii_case(keyword.as_bytes());
    let end = argv.len().saturating_sub(1);
    match search {
        BeginSearch::Index(pos) => Some(pos as usize),
        BeginSearch::Keyword {
            keyword,
            start_from,
        } if start_from > 0 => (start_from as usize..end)
            .find(|pos| is(pos, keyword))
            .map(|pos| pos + 1),
        BeginSearch::Keyword {
            keyword,
            start_from,
        } => {
            let start = (argv.len() + 1).saturating_sub(start_from.unsigned_abs() as usize);
            (1..start.min(end))
                .rev()
                .find(|pos| is(pos, keyword))
                .map(|pos| pos + 1)
        }
        BeginSearch::Unknown => None,
    }
}

/// The index in argv of the last key of a range (see [`FindKeys::Range`]).
fn range_end(argc: usize, first: usize, last: i16, limit: i16) -> Result<usize, InvalidKeys> {
    if last >= 0 {
        return Ok(first + last as usize);
    }
    let end = match limit {
        0 | 1 => argc,
        limit => first + argc.saturating_sub(first) / limit as usize,
    };
    end.checked_sub(last.unsigned_abs() as usize)
        .ok_or(InvalidKeys)
}

fn number_of_keys(argv: &[&[u8]], pos: usize) -> Result<usize, InvalidKeys> {
    let digits = argv.get(pos).ok_or(InvalidKeys)?;
    let canonical = match digits {
        [b'0'] => true,
        [first, rest @ ..] => matches!(first, b'1'..=b'9') && rest.iter().all(u8::is_ascii_digit),
        [] => false,
    };
    if !canonical {
        return Err(InvalidKeys);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(InvalidKeys)
}

/// SET key value [...]: with the option GET the old value is read, otherwise it is only replaced.
pub fn set(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    let get = argv
        .iter()
        .skip(3)
        .any(|arg| arg.eq_ignore_ascii_case(b"get"));
    out.push(KeyRef::new(
        1,
        if get {
            RW | ACCESS | UPDATE
        } else {
            OW | UPDATE
        },
    ));
    Ok(())
}

/// BITFIELD key [GET encoding offset | OVERFLOW mode | ...]: the key is only read if all operations
/// are GET.
pub fn bitfield(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    let mut reads_only = true;
    let mut pos = 2;
    while pos < argv.len() && reads_only {
        let values = match argv[pos] {
            op if op.eq_ignore_ascii_case(b"get") => 2,
            op if op.eq_ignore_ascii_case(b"overflow") => 1,
            _ => argv.len(),
        };
        reads_only = values < argv.len() - pos;
        pos = pos.saturating_add(values + 1);
    }
    out.push(KeyRef::new(
        1,
        if reads_only {
            RO | ACCESS
        } else {
            RW | ACCESS | UPDATE
        },
    ));
    Ok(())
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern] [STORE destination]: the last option
/// STORE has the destination.
pub fn sort(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    const OPTIONS: &[(&[u8], usize)] = &[(b"limit", 2), (b"get", 1), (b"by", 1), (b"store", 1)];
    out.push(KeyRef::new(1, RO | ACCESS));
    let store = last_option(argv, 2, OPTIONS, |name| name.eq_ignore_ascii_case(b"store"));
    out.extend(store.map(|pos| KeyRef::new(pos + 1, OW | UPDATE)));
    Ok(())
}

/// GEORADIUS key longitude latitude radius unit [...] [STORE key | STOREDIST key]
pub fn georadius(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    georadius_generic(argv, 6, out)
}

/// GEORADIUSBYMEMBER key member radius unit [...] [STORE key | STOREDIST key]
pub fn georadiusbymember(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    georadius_generic(argv, 5, out)
}

/// The keys of GEORADIUS and GEORADIUSBYMEMBER: the last of the options STORE and STOREDIST has the
/// destination.
fn georadius_generic(
    argv: &[&[u8]],
    options: usize,
    out: &mut Vec<KeyRef>,
) -> Result<(), InvalidKeys> {
    const OPTIONS: &[(&[u8], usize)] = &[(b"store", 1), (b"storedist", 1)];
    out.push(KeyRef::new(1, RO | ACCESS));
    let store = last_option(argv, options, OPTIONS, |_| true);
    out.extend(store.map(|pos| KeyRef::new(pos + 1, OW | UPDATE)));
    Ok(())
}

/// MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 username password]
/// [KEYS key ...]: with KEYS the argument `key` is empty.
pub fn migrate(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    const KEY: usize = 3;
    const OPTIONS: &[(&[u8], usize)] = &[(b"auth", 1), (b"auth2", 2), (b"keys", usize::MAX)];
    let key_ref = |pos| KeyRef::new(pos, RW | ACCESS | DELETE);
    let is_keys = |name: &[u8]| name.eq_ignore_ascii_case(b"keys");
    match last_option(argv, 6, OPTIONS, is_keys) {
        Some(_) if !argv[KEY].is_empty() => return Err(InvalidKeys),
        Some(keys) => out.extend((keys + 1..argv.len()).map(key_ref)),
        None => out.push(key_ref(KEY)),
    }
    Ok(())
}

/// XREAD and XREADGROUP: the keys are the first half of the arguments behind STREAMS.
pub fn streams(argv: &[&[u8]], out: &mut Vec<KeyRef>) -> Result<(), InvalidKeys> {
    let first = streams_at(argv).ok_or(InvalidKeys)?;
    let keys = (argv.len() - first) / 2;
    out.extend((first..first + keys).map(|pos| KeyRef::new(pos, RO | ACCESS)));
    Ok(())
}

/// The index in argv of the first key of XREAD and XREADGROUP; the commands themselves use this
/// function, too. A group or a consumer may have the name STREAMS, so GROUP is skipped with its two
/// values. The values of all options before STREAMS, except GROUP, are numbers.
pub fn streams_at(argv: &[&[u8]]) -> Option<usize> {
    let mut at = 1;
    while at + 1 < argv.len() {
        let is = |option: &[u8]| argv[at].eq_ignore_ascii_case(option);
        if is(b"streams") {
            return Some(at + 1);
        }
        at += if is(b"group") { 3 } else { 1 };
    }
    None
}

/// The index in argv of the last option for which `wanted` holds. The search begins at `pos` and
/// skips the values of the options `options` (name, number of values). An option that is the last
/// argument lacks its value and does not count.
fn last_option(
    argv: &[&[u8]],
    mut pos: usize,
    options: &[(&[u8], usize)],
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<usize> {
    let mut found = None;
    let last = argv.len().saturating_sub(1);
    while pos < last {
        let name = argv[pos];
        if let Some((_, values)) = options
            .iter()
            .find(|(option, _)| name.eq_ignore_ascii_case(option))
        {
            if wanted(name) {
                found = Some(pos);
            }
            pos = pos.saturating_add(*values);
        }
        pos = pos.saturating_add(1);
    }
    found
}

#[cfg(test)]
mod tests;
