//! A command is a row of a table: one `const` [`Command`] in the file of its function, with
//! everything that other modules need to know about it.
//!
//! ```text
//!   cmd("set", set, -3, WRITE | DENYOOM, STRING)                       name, function, arity, flags, categories
//!       .keys(&[key(RW | ACCESS | UPDATE | VARIABLE_FLAGS,             what the command does to its keys,
//!               index(1), range(0, 1, 0))])                            where they begin, how to find the rest
//!       .get_keys(keys::set)                                           only where the arguments decide (keys/mod.rs)
//!
//!   COMMAND, COMMAND INFO   everything in the row          ACL        acl, flags, keys
//!   process_command         arity, flags                   cluster    keys (slot), flags
//!   MULTI, scripts          flags                          monitors   SKIP_MONITOR, SKIP_COMMANDLOG
//! ```
//!
//! A row states each fact once; derived facts are computed here at compile time: the categories
//! that the flags imply ([`implied_categories`]), the triple first/last/step that COMMAND printed
//! before there were key specs ([`Command::key_range`]), and the flag `movablekeys`. So a row can't
//! contradict itself.
//!
//! A command with subcommands is a container: `CONFIG` holds the rows of `get`, `set` and so on.
//! The subcommands' arity and key positions count from the container's name, as argv does.
//!
//! **Invariant:** the rows agree with the published facts of Redis and Valkey;
//! `tests/command_facts.rs` compares each row.
//! **Invariant:** a flag, a category and a key flag can't be mixed up: they are integers of
//! different widths, so that a wrong constant in a row does not compile. (Types of their own are
//! not possible: `|` is const only for plain integers.)
//!
//! Limits: 32 flags, 64 categories, arity and key positions within `i16`.
//!
//! Rejected: a trait object or a struct for each command (the commands would no longer be a table
//! that `grep` finds), and a macro for rows (const functions allow the same text, with types and
//! better error messages).

pub mod ctx;
pub mod databases;
pub mod docs;
pub mod keys;
pub mod table;

use crate::command::ctx::{CmdResult, Ctx, Proc};
use crate::command::databases::GetDatabases;
use crate::command::keys::GetKeys;
use crate::texts::Words;

/// Behaviour of a command: the constants from [`WRITE`] to [`MOVABLEKEYS`].
pub type Flags = u32;
/// ACL categories: the constants from [`KEYSPACE`] to [`SCRIPTING`].
pub type Categories = u64;
/// What a command does to a key: the constants from [`RO`] to [`VARIABLE_FLAGS`].
pub type KeyFlags = u16;

// Legend of the flags. The order of the bits is the order in which COMMAND INFO prints the names.

/// No flag.
pub const NONE: Flags = 0;
/// May change the data set: refused by read-only replicas, counted by `min-replicas-to-write`,
/// propagated to the AOF and to replicas.
pub const WRITE: Flags = 1 << 0;
/// Reads keys and never changes them, so a replica may serve it.
pub const READONLY: Flags = 1 << 1;
/// May use more memory: refused above `maxmemory` when nothing can be evicted.
pub const DENYOOM: Flags = 1 << 2;
/// Administration: SAVE, SHUTDOWN, CONFIG SET and the like.
pub const ADMIN: Flags = 1 << 3;
/// Belongs to Pub/Sub.
pub const PUBSUB: Flags = 1 << 4;
/// Not callable from scripts and functions.
pub const NOSCRIPT: Flags = 1 << 5;
/// May block the client until data arrives or a timeout passes.
pub const BLOCKING: Flags = 1 << 6;
/// Served while the data set is being loaded.
pub const LOADING: Flags = 1 << 7;
/// Served by a replica that lost its primary with `replica-serve-stale-data no`.
pub const STALE: Flags = 1 << 8;
/// Never shown to MONITOR, because the command is MONITOR itself or has secret arguments.
pub const SKIP_MONITOR: Flags = 1 << 9;
/// Never in the slow log: the command's time is that of the commands that it runs. COMMAND INFO
/// prints the flag's older name, `skip_slowlog`.
pub const SKIP_COMMANDLOG: Flags = 1 << 10;
/// Allowed for a slot that is being imported, as after ASKING.
pub const ASKING: Flags = 1 << 11;
/// O(1) or O(log N) and never waits: its latency is recorded as `fast-command`.
pub const FAST: Flags = 1 << 12;
/// Callable before the client is authenticated.
pub const NO_AUTH: Flags = 1 << 13;
/// Refused while a replica loads a new data set beside the old one, which it keeps serving
/// (`LOADING` does not help).
pub const NO_ASYNC_LOADING: Flags = 1 << 14;
/// Not allowed between MULTI and EXEC, but see [`MULTI_IN_REDIS`].
pub const NO_MULTI: Flags = 1 << 15;
/// Allowed while a script runs for too long.
pub const ALLOW_BUSY: Flags = 1 << 16;
/// Takes a number of keys that may be zero, so a call without keys is not an error of COMMAND
/// GETKEYS.
pub const NO_MANDATORY_KEYS: Flags = 1 << 17;
/// The triple first/last/step does not give all keys; clients call COMMAND GETKEYS. Derived, never
/// written in a row.
pub const MOVABLEKEYS: Flags = 1 << 18;

// Flags for the server itself, which clients don't see.

/// Runs at once between MULTI and EXEC instead of being queued.
pub const RUNS_IN_MULTI: Flags = 1 << 19;
/// Allowed only if `enable-debug-command` or `enable-module-command` allows it to the client.
pub const PROTECTED: Flags = 1 << 20;
/// Reads the data set but may be propagated: CLIENT PAUSE WRITE holds it back too.
pub const MAY_REPLICATE: Flags = 1 << 21;
/// Has the flags of the script or the function that it runs, see `script::command_flags`.
pub const SCRIPT_DECIDES: Flags = 1 << 22;
/// Belongs to a feature that is not built yet: the row is complete, but the command refuses what
/// needs the feature. README lists these features.
pub const NOT_BUILT: Flags = 1 << 23;
/// Uses every database: forbidden to users that are limited to some of them.
pub const ALL_DATABASES: Flags = 1 << 24;
/// With [`NO_MULTI`]: refused between MULTI and EXEC only with `extended-redis-compatibility no`.
/// Otherwise the command is queued, or runs and replies with an error.
pub const MULTI_IN_REDIS: Flags = 1 << 25;
/// Runs the queued commands: EXEC.
pub const RUNS_QUEUE: Flags = 1 << 26;
/// Allowed to a RESP2 client in subscribed state.
pub const IN_SUBSCRIBED: Flags = 1 << 27;

const FLAG_NAMES: [&str; 19] = [
    "write",
    "readonly",
    "denyoom",
    "admin",
    "pubsub",
    "noscript",
    "blocking",
    "loading",
    "stale",
    "skip_monitor",
    "skip_slowlog",
    "asking",
    "fast",
    "no_auth",
    "no_async_loading",
    "no_multi",
    "allow_busy",
    "no_mandatory_keys",
    "movablekeys",
];

// ACL categories, in the order of ACL CAT. A row states only the categories that do not follow from
// its flags.

/// No category beyond those that the flags imply.
pub const NONE_CAT: Categories = 0;
/// @keyspace
pub const KEYSPACE: Categories = 1 << 0;
/// @read
pub const READ_CAT: Categories = 1 << 1;
/// @write
pub const WRITE_CAT: Categories = 1 << 2;
/// @set
pub const SET: Categories = 1 << 3;
/// @sortedset
pub const SORTEDSET: Categories = 1 << 4;
/// @list
pub const LIST: Categories = 1 << 5;
/// @hash
pub const HASH: Categories = 1 << 6;
/// @string
pub const STRING: Categories = 1 << 7;
/// @bitmap
pub const BITMAP: Categories = 1 << 8;
/// @hyperloglog
pub const HYPERLOGLOG: Categories = 1 << 9;
/// @geo
pub const GEO: Categories = 1 << 10;
/// @stream
pub const STREAM: Categories = 1 << 11;
/// @pubsub
pub const PUBSUB_CAT: Categories = 1 << 12;
/// @admin
pub const ADMIN_CAT: Categories = 1 << 13;
/// @fast
pub const FAST_CAT: Categories = 1 << 14;
/// @slow
pub const SLOW_CAT: Categories = 1 << 15;
/// @blocking
pub const BLOCKING_CAT: Categories = 1 << 16;
/// @dangerous
pub const DANGEROUS: Categories = 1 << 17;
/// @connection
pub const CONNECTION: Categories = 1 << 18;
/// @transaction
pub const TRANSACTION: Categories = 1 << 19;
/// @scripting
pub const SCRIPTING: Categories = 1 << 20;

/// The names of the categories without `@`; the bit of a category is its index in this list.
pub const CATEGORY_NAMES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

// What a command does to a key. Exactly one of the first four describes the access to the stored
// value; the next four describe the use of the user's data in it (a type or a length is not data);
// the last three are about the spec itself.

/// Reads the value or its metadata, changes nothing.
pub const RO: KeyFlags = 1 << 0;
/// Changes the value, depending on what it was.
pub const RW: KeyFlags = 1 << 1;
/// Replaces the value without reading it.
pub const OW: KeyFlags = 1 << 2;
/// Deletes the key without reading its value.
pub const RM: KeyFlags = 1 << 3;
/// Returns, copies or otherwise uses the data.
pub const ACCESS: KeyFlags = 1 << 4;
/// Changes the data.
pub const UPDATE: KeyFlags = 1 << 5;
/// Adds data without changing or removing existing data.
pub const INSERT: KeyFlags = 1 << 6;
/// Removes some or all of the data on request.
pub const DELETE: KeyFlags = 1 << 7;
/// Not a key, but routed like one: a shard channel.
pub const NOT_KEY: KeyFlags = 1 << 8;
/// The spec does not find the keys of some calls.
pub const INCOMPLETE: KeyFlags = 1 << 9;
/// The flags of the spec are the maximum; the arguments of a call determine the actual ones.
pub const VARIABLE_FLAGS: KeyFlags = 1 << 10;

const KEY_FLAG_NAMES: [&str; 11] = [
    "RO",
    "RW",
    "OW",
    "RM",
    "access",
    "update",
    "insert",
    "delete",
    "not_key",
    "incomplete",
    "variable_flags",
];

/// The place where the search for keys begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginSearch {
    /// At this index of argv.
    Index(i16),
    /// After a keyword, which is searched from `start_from` on; if that is negative, from the end
    /// backwards.
    Keyword {
        keyword: &'static str,
        start_from: i16,
    },
    /// Not expressible by a spec.
    Unknown,
}

/// How the keys are found from the place where the search begins (called `first` below).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindKeys {
    /// `first`, `first + step`, ... up to `last`, which is relative to `first`, or to the end of
    /// argv if negative. With `last == -1` and a `limit` above 1, only the first `1 / limit` of the
    /// remaining arguments are keys.
    Range { last: i16, step: i16, limit: i16 },
    /// The number of keys is an argument at `first + number`; the keys begin at `first +
    /// first_key`.
    KeyNum {
        number: i16,
        first_key: i16,
        step: i16,
    },
    /// Not expressible by a spec.
    Unknown,
}

/// Some keys of a command: their places and their flags.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub flags: KeyFlags,
    pub begin: BeginSearch,
    pub find: FindKeys,
    /// A remark for COMMAND INFO; usually empty.
    pub note: &'static str,
}

/// A command that a rule of `execute` is about, so that no rule compares names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No rule is about this command alone.
    Ordinary,
    /// ASKING: its effect lasts for the next command.
    Asking,
    /// DEBUG: `enable-debug-command` allows it.
    Debug,
    /// MIGRATE: allowed for keys of a slot of which this node has only a part.
    Migrate,
    /// PING: refused while the data set can't be saved, so that a health check notices.
    Ping,
    /// SELECT: chooses the database of the commands behind it in a transaction.
    Select,
    /// CLUSTER SYNCSLOTS: the conversation about a slot that moves.
    SyncSlots,
    /// SYNC and PSYNC: begin the stream to a replica, and may reply before it.
    Synchronize,
}

/// Keys as one arithmetic series; see [`Command::key_range`].
#[derive(Clone, Copy)]
struct KeyRange {
    first: i16,
    last: i16,
    step: i16,
}

/// One command or subcommand.
pub struct Command {
    /// Lower case; for a subcommand without the container's name.
    pub name: &'static str,
    pub proc: Proc,
    /// The number of arguments, the names of the command and subcommand included; `-n` means at
    /// least n.
    pub arity: i16,
    pub flags: Flags,
    pub role: Role,
    /// Categories, the implied ones included.
    pub acl: Categories,
    pub keys: &'static [KeySpec],
    /// The part of `keys` that is one series.
    range: KeyRange,
    /// Finds the keys if the specs alone can't.
    pub get_keys: Option<GetKeys>,
    /// Finds the databases that the arguments name.
    pub get_databases: Option<GetDatabases>,
    /// Hints for clients and proxies, for COMMAND INFO.
    pub tips: &'static [&'static str],
    pub subcommands: &'static [Command],
    /// The places of names of elements that the command looks up in the key at argv[1]: the first
    /// is argv[.0], the others follow at intervals of .1. These places are used only to prefetch.
    pub elements: Option<(u8, u8)>,
}

/// Begins a row. `acl` has the categories that `flags` don't imply.
pub const fn cmd(
    name: &'static str,
    proc: Proc,
    arity: i16,
    flags: Flags,
    acl: Categories,
) -> Command {
    assert!(arity != 0, "the name itself is an argument");
    Command {
        name,
        proc,
        arity,
        flags,
        role: Role::Ordinary,
        acl: acl | implied_categories(flags, acl),
        keys: &[],
        range: KeyRange {
            first: 0,
            last: 0,
            step: 0,
        },
        get_keys: None,
        get_databases: None,
        tips: &[],
        subcommands: &[],
        elements: None,
    }
}

/// The function of a container. The function is never called: for a container `process_command`
/// runs one of its subcommands, or replies with an error.
pub fn container(_: &mut Ctx) -> CmdResult {
    unreachable!("a container runs through its subcommands")
}

/// Describes some keys; see [`KeySpec`].
pub const fn key(flags: KeyFlags, begin: BeginSearch, find: FindKeys) -> KeySpec {
    KeySpec {
        flags,
        begin,
        find,
        note: "",
    }
}

/// One key at argv[`position`]: the spec of most commands.
pub const fn key_at(position: i16, flags: KeyFlags) -> KeySpec {
    key(flags, index(position), range(0, 1, 0))
}

/// A number of keys at argv[`position`], followed by the keys: EVAL, ZUNION and others.
pub const fn counted_keys(position: i16, flags: KeyFlags) -> KeySpec {
    key(flags, index(position), keynum(0, 1, 1))
}

/// One key after an option, which is searched from argv[`start_from`] on.
pub const fn key_after(option: &'static str, start_from: i16, flags: KeyFlags) -> KeySpec {
    key(flags, keyword(option, start_from), range(0, 1, 0))
}

/// The search begins at argv[`position`].
pub const fn index(position: i16) -> BeginSearch {
    assert!(position > 0);
    BeginSearch::Index(position)
}

/// The search begins after `keyword`; see [`BeginSearch::Keyword`].
pub const fn keyword(keyword: &'static str, start_from: i16) -> BeginSearch {
    assert!(start_from != 0);
    BeginSearch::Keyword {
        keyword,
        start_from,
    }
}

/// A search that a spec can't express.
pub const fn unknown_begin() -> BeginSearch {
    BeginSearch::Unknown
}

/// A series of keys; see [`FindKeys::Range`].
pub const fn range(last: i16, step: i16, limit: i16) -> FindKeys {
    assert!(step > 0 && limit >= 0);
    FindKeys::Range { last, step, limit }
}

/// A number of keys, and the keys; see [`FindKeys::KeyNum`].
pub const fn keynum(number: i16, first_key: i16, step: i16) -> FindKeys {
    assert!(number >= 0 && first_key > number && step > 0);
    FindKeys::KeyNum {
        number,
        first_key,
        step,
    }
}

/// Keys that a spec can't express.
pub const fn unknown_find() -> FindKeys {
    FindKeys::Unknown
}

impl KeySpec {
    /// Whether the keys can't be found in the arguments: the data names them (SORT BY).
    pub const fn is_unknown(&self) -> bool {
        matches!(self.find, FindKeys::Unknown)
    }

    /// Adds a remark for COMMAND INFO.
    pub const fn note(mut self, note: &'static str) -> KeySpec {
        self.note = note;
        self
    }

    /// The names of the flags for COMMAND INFO.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        key_flag_names(self.flags)
    }

    /// Whether the keys are a series at a fixed place.
    const fn is_plain(&self) -> bool {
        matches!(self.begin, BeginSearch::Index(_))
            && matches!(self.find, FindKeys::Range { .. })
            && self.flags & INCOMPLETE == 0
    }

    const fn plain_range(&self) -> Option<KeyRange> {
        match (self.begin, self.find) {
            (BeginSearch::Index(first), FindKeys::Range { last, step, .. }) => {
                let last = if last >= 0 { first + last } else { last };
                Some(KeyRange { first, last, step })
            }
            _ => None,
        }
    }
}

impl Command {
    /// Sets the key specs.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Command {
        self.keys = keys;
        self.range = combined_range(keys);
        if has_movable_keys(keys) {
            self.flags |= MOVABLEKEYS;
        }
        self
    }

    /// Sets the function that finds the keys.
    pub const fn get_keys(mut self, get_keys: GetKeys) -> Command {
        self.get_keys = Some(get_keys);
        self
    }

    /// Sets the rule that is about this command.
    pub const fn role(mut self, role: Role) -> Command {
        self.role = role;
        self
    }

    /// Sets the function that finds the databases.
    pub const fn databases(mut self, get_databases: GetDatabases) -> Command {
        self.get_databases = Some(get_databases);
        self
    }

    /// Sets the places of the elements that a batch of commands prefetches.
    pub const fn elements(mut self, first: u8, step: u8) -> Command {
        assert!(first > 1 && step > 0);
        self.elements = Some((first, step));
        self
    }

    /// Sets the hints for clients and proxies.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Command {
        self.tips = tips;
        self
    }

    /// Sets the subcommands.
    pub const fn subcommands(mut self, subcommands: &'static [Command]) -> Command {
        self.subcommands = subcommands;
        self
    }

    /// Whether one of these flags is set.
    pub const fn is(&self, flags: Flags) -> bool {
        self.flags & flags != 0
    }

    /// The first, last and step of the keys as one series, which COMMAND returns beside the key
    /// specs, for clients that don't know key specs. All are zero if no key has a fixed place; a
    /// negative last is relative to the end.
    pub const fn key_range(&self) -> (i16, i16, i16) {
        (self.range.first, self.range.last, self.range.step)
    }

    /// The index of the first key; see [`Command::key_range`].
    pub const fn first_key(&self) -> i16 {
        self.range.first
    }

    /// The index of the last key; see [`Command::key_range`].
    pub const fn last_key(&self) -> i16 {
        self.range.last
    }

    /// The distance between keys; see [`Command::key_range`].
    pub const fn step(&self) -> i16 {
        self.range.step
    }

    /// Whether clients must call COMMAND GETKEYS to find the keys.
    pub const fn movable_keys(&self) -> bool {
        self.is(MOVABLEKEYS)
    }

    /// The index of the argument that has the number of keys, if all keys follow it; otherwise 0.
    pub const fn count_at(&self) -> u16 {
        match self.keys {
            [
                KeySpec {
                    begin: BeginSearch::Index(at),
                    find:
                        FindKeys::KeyNum {
                            number: 0,
                            first_key: 1,
                            step: 1,
                        },
                    ..
                },
            ] => *at as u16,
            _ => 0,
        }
    }

    /// Whether some call of this command has keys. Shard channels don't count.
    pub fn has_keys(&self) -> bool {
        self.keys.iter().any(|spec| spec.flags & NOT_KEY == 0)
    }

    /// Whether `argc`, names included, is an allowed number of arguments.
    pub const fn check_arity(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity > 0 {
            argc == wanted
        } else {
            argc >= wanted
        }
    }

    /// Finds a subcommand; the case of `name` does not matter.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands
            .iter()
            .find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The flags in the order and spelling of COMMAND INFO.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        names_of_bits(u64::from(self.flags), &FLAG_NAMES)
    }

    /// The flags as COMMAND INFO prints them in Redis's or Valkey's form: Redis has no flag
    /// `no_multi` for commands that it accepts in MULTI.
    pub fn flag_names_in(&self, words: Words) -> impl Iterator<Item = &'static str> {
        let answers = words == Words::Redis && self.is(MULTI_IN_REDIS);
        let hidden = if answers { NO_MULTI } else { NONE };
        names_of_bits(u64::from(self.flags & !hidden), &FLAG_NAMES)
    }

    /// The categories in the order of COMMAND INFO, without `@`.
    pub fn category_names(&self) -> impl Iterator<Item = &'static str> {
        names_of_bits(self.acl, &CATEGORY_NAMES)
    }
}

/// The names of key flags in the order and spelling of COMMAND INFO and COMMAND GETKEYSANDFLAGS.
pub fn key_flag_names(flags: KeyFlags) -> impl Iterator<Item = &'static str> {
    names_of_bits(u64::from(flags), &KEY_FLAG_NAMES)
}

/// The bit of a category, given by its name in any case and without `@`.
pub fn category_by_name(name: &[u8]) -> Option<Categories> {
    let bit = CATEGORY_NAMES
        .iter()
        .position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
    Some(1 << bit)
}

fn names_of_bits(bits: u64, names: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    names
        .iter()
        .enumerate()
        .filter(move |(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| *name)
}

/// The categories that follow from the flags. The commands that run scripts are neither `@read` nor
/// `@write`: their keys depend on the script.
const fn implied_categories(flags: Flags, acl: Categories) -> Categories {
    let mut implied = if flags & FAST != 0 {
        FAST_CAT
    } else {
        SLOW_CAT
    };
    if flags & WRITE != 0 {
        implied |= WRITE_CAT;
    }
    if flags & READONLY != 0 && acl & SCRIPTING == 0 {
        implied |= READ_CAT;
    }
    if flags & ADMIN != 0 {
        implied |= ADMIN_CAT | DANGEROUS;
    }
    if flags & PUBSUB != 0 {
        implied |= PUBSUB_CAT;
    }
    if flags & BLOCKING != 0 {
        implied |= BLOCKING_CAT;
    }
    implied
}

/// Whether some spec is not a series at a fixed place.
const fn has_movable_keys(keys: &[KeySpec]) -> bool {
    let mut i = 0;
    while i < keys.len() {
        if !keys[i].is_plain() {
            return true;
        }
        i += 1;
    }
    false
}

/// The first series at a fixed place, extended by those that continue it without a gap: `1..1` and
/// `2..-1` make `1..-1`.
const fn combined_range(keys: &[KeySpec]) -> KeyRange {
    let mut all = KeyRange {
        first: 0,
        last: 0,
        step: 0,
    };
    let mut i = 0;
    while i < keys.len() {
        if let Some(next) = keys[i].plain_range() {
            if all.first == 0 {
                all = next;
            } else if all.step == 1 && next.step == 1 && all.last > 0 && next.first == all.last + 1
            {
                all.last = next.last;
            }
        }
        i += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::keys;

    fn dummy(_: &mut Ctx) -> CmdResult {
        unreachable!("only rows are tested here")
    }

    const ROWS: &[Command] = &[
        cmd("get", dummy, 2, READONLY | FAST, STRING).keys(&[key(
            RO | ACCESS,
            index(1),
            range(0, 1, 0),
        )]),
        cmd("set", dummy, -3, WRITE | DENYOOM, STRING)
            .keys(&[key(
                RW | ACCESS | UPDATE | VARIABLE_FLAGS,
                index(1),
                range(0, 1, 0),
            )
            .note("RW and ACCESS due to the optional `GET` argument")])
            .get_keys(keys::set),
        cmd("rename", dummy, 3, WRITE, KEYSPACE | DANGEROUS).keys(&[
            key(RW | ACCESS | DELETE, index(1), range(0, 1, 0)),
            key(OW | UPDATE, index(2), range(0, 1, 0)),
        ]),
        cmd("sunionstore", dummy, -3, WRITE | DENYOOM, SET).keys(&[
            key(OW | UPDATE, index(1), range(0, 1, 0)),
            key(RO | ACCESS, index(2), range(-1, 1, 0)),
        ]),
        cmd("mset", dummy, -3, WRITE | DENYOOM, STRING)
            .keys(&[key(OW | UPDATE, index(1), range(-1, 2, 0))])
            .tips(&[
                "request_policy:multi_shard",
                "response_policy:all_succeeded",
            ]),
        cmd(
            "eval_ro",
            dummy,
            -3,
            NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | READONLY,
            SCRIPTING,
        )
        .keys(&[key(RO | ACCESS, index(2), keynum(0, 1, 1))]),
        cmd("config", container, -2, NONE, NONE_CAT).subcommands(&[
            cmd(
                "get",
                dummy,
                -3,
                ADMIN | NOSCRIPT | LOADING | STALE,
                NONE_CAT,
            ),
            cmd("help", dummy, 2, LOADING | STALE, NONE_CAT),
        ]),
        cmd("zunionstore", dummy, -4, WRITE | DENYOOM, SORTEDSET).keys(&[
            key(OW | UPDATE, index(1), range(0, 1, 0)),
            key(RO | ACCESS, index(2), keynum(0, 1, 1)),
        ]),
        cmd("brpoplpush", dummy, 4, WRITE | BLOCKING, LIST).keys(&[
            key(RW | ACCESS | DELETE, index(1), range(0, 1, 0)),
            key(RW | INSERT, index(2), range(0, 1, 0)),
        ]),
    ];

    fn row(name: &str) -> &'static Command {
        ROWS.iter()
            .find(|row| row.name == name)
            .expect("a row of this test")
    }

    fn triple(name: &str) -> (i16, i16, i16) {
        let row = row(name);
        (row.first_key(), row.last_key(), row.step())
    }

    fn flags(row: &Command) -> Vec<&'static str> {
        row.flag_names().collect()
    }

    fn categories(row: &Command) -> Vec<&'static str> {
        row.category_names().collect()
    }

    #[test]
    fn the_triple_joins_specs_that_touch() {
        assert_eq!(triple("get"), (1, 1, 1));
        assert_eq!(triple("rename"), (1, 2, 1));
        assert_eq!(triple("sunionstore"), (1, -1, 1));
        assert_eq!(triple("mset"), (1, -1, 2));
        assert_eq!(triple("eval_ro"), (0, 0, 0));
        assert_eq!(triple("zunionstore"), (1, 1, 1));
    }

    #[test]
    fn keys_are_movable_when_no_series_has_them_all() {
        let movable: Vec<_> = ROWS
            .iter()
            .filter(|row| row.movable_keys())
            .map(|row| row.name)
            .collect();
        assert_eq!(movable, ["eval_ro", "zunionstore"]);
    }

    #[test]
    fn flags_imply_categories() {
        assert_eq!(categories(row("get")), ["read", "string", "fast"]);
        assert_eq!(categories(row("eval_ro")), ["slow", "scripting"]);
        assert_eq!(
            categories(row("brpoplpush")),
            ["write", "list", "slow", "blocking"]
        );
        assert_eq!(
            categories(&row("config").subcommands[0]),
            ["admin", "slow", "dangerous"]
        );
    }

    #[test]
    fn names_come_in_the_order_of_command_info() {
        assert_eq!(flags(row("get")), ["readonly", "fast"]);
        let eval_ro = [
            "readonly",
            "noscript",
            "stale",
            "skip_monitor",
            "no_mandatory_keys",
            "movablekeys",
        ];
        assert_eq!(flags(row("eval_ro")), eval_ro);
        let names: Vec<_> = row("set").keys[0].flag_names().collect();
        assert_eq!(names, ["RW", "access", "update", "variable_flags"]);
    }

    #[test]
    fn arity_is_exact_or_a_minimum() {
        assert!(row("get").check_arity(2));
        assert!(!row("get").check_arity(1) && !row("get").check_arity(3));
        assert!(row("set").check_arity(3) && row("set").check_arity(300));
        assert!(!row("set").check_arity(2));
    }

    #[test]
    fn subcommands_are_found_in_any_case() {
        let config = row("config");
        assert_eq!(config.subcommand(b"GeT").map(|sub| sub.arity), Some(-3));
        assert!(config.subcommand(b"ge").is_none());
    }

    #[test]
    fn a_category_is_found_by_its_name() {
        assert_eq!(category_by_name(b"SortedSet"), Some(SORTEDSET));
        assert_eq!(category_by_name(b"scripting"), Some(SCRIPTING));
        assert_eq!(category_by_name(b"@read"), None);
    }
}
