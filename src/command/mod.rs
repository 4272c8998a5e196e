//! A command is described by a row of a table: a `const` [`Command`] in the file of the command's
//! function, with everything that other modules need to know about the command.
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
//! A row states each fact once; derived facts are computed at compile time: the categories that the
//! flags imply ([`implied_categories`]), the triple first/last/step that COMMAND printed before
//! there were key specs ([`Command::key_range`]), and the flag `movablekeys`. So the facts of a row
//! of the command table can't contradict each other.
//!
//! A command with subcommands is a container: `CONFIG` holds the rows of `get`, `set` and so on.
//! The subcommands' arity and key positions count from the container's name, as argv does.
//!
//! **Invariant:** the rows agree with the published facts of Redis and Valkey;
//! `tests/command_facts.rs` compares each row.
//! **Invariant:** flags, categories and key flags can't be mixed up, because they are integers of
//! different widths, so that a wrong constant in a row does not compile. (Types of their own are
//! not possible for flags, as `|` is const only for plain integers.)
//!
//! Limits of rows: 32 flags, 64 categories, arity and key positions within `i16`.
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

/// The flags of a command, which describe its behaviour: the constants from [`WRITE`] to
/// [`IN_SUBSCRIBED`].
pub type Flags = u32;
/// A set of ACL categories: the constants from [`KEYSPACE`] to [`SCRIPTING`].
pub type Categories = u64;
/// The flags of a key spec, which say what a command does to the key: the constants from [`RO`] to
/// [`VARIABLE_FLAGS`].
pub type KeyFlags = u16;

// The flags of commands. The order of their bits is the order in which COMMAND INFO prints their
// names.

/// The command has no flags.
pub const NONE: Flags = 0;
/// The command may change the data set: it is refused by read-only replicas and with fewer than
/// `min-replicas-to-write` replicas, and propagated to the AOF and to replicas.
pub const WRITE: Flags = 1 << 0;
/// The command reads keys and never changes them, so a replica may serve it.
pub const READONLY: Flags = 1 << 1;
/// The command may use more memory: it is refused above `maxmemory` when no key can be evicted.
pub const DENYOOM: Flags = 1 << 2;
/// The command is for administration: SAVE, SHUTDOWN, CONFIG SET and the like.
pub const ADMIN: Flags = 1 << 3;
/// The command belongs to Pub/Sub.
pub const PUBSUB: Flags = 1 << 4;
/// The command can't be called from scripts and functions.
pub const NOSCRIPT: Flags = 1 << 5;
/// The command may block the client until data arrives or a timeout passes.
pub const BLOCKING: Flags = 1 << 6;
/// The command is served while the data set is being loaded.
pub const LOADING: Flags = 1 << 7;
/// The command is served even by a replica that has lost its primary, with
/// `replica-serve-stale-data no`.
pub const STALE: Flags = 1 << 8;
/// The command is never shown to MONITOR, because it is MONITOR itself or has secret arguments.
pub const SKIP_MONITOR: Flags = 1 << 9;
/// The command is never in the slow log, because its time is that of the commands that it runs.
/// COMMAND INFO prints the flag's older name, `skip_slowlog`.
pub const SKIP_COMMANDLOG: Flags = 1 << 10;
/// The command is allowed for a slot that is being imported, as if the client had sent ASKING.
pub const ASKING: Flags = 1 << 11;
/// The command is O(1) or O(log N) and never waits: its latency is recorded as `fast-command`.
pub const FAST: Flags = 1 << 12;
/// The command can be called before the client is authenticated.
pub const NO_AUTH: Flags = 1 << 13;
/// The command is refused while a replica loads a new data set beside the old one, which it keeps
/// serving, even if the command has the flag `LOADING`.
pub const NO_ASYNC_LOADING: Flags = 1 << 14;
/// The command is not allowed between MULTI and EXEC, unless it also has [`MULTI_IN_REDIS`].
pub const NO_MULTI: Flags = 1 << 15;
/// The command is allowed while a script runs for longer than `busy-reply-threshold`.
pub const ALLOW_BUSY: Flags = 1 << 16;
/// The command takes a number of keys that may be zero, so a call without keys is not an error of
/// COMMAND GETKEYS.
pub const NO_MANDATORY_KEYS: Flags = 1 << 17;
/// The triple first/last/step of COMMAND INFO does not give all keys, so clients must call COMMAND
/// GETKEYS. `MOVABLEKEYS` is derived from the key specs, never written in a row.
pub const MOVABLEKEYS: Flags = 1 << 18;

// The following flags are for the server itself; clients don't see them.

/// The command runs at once between MULTI and EXEC instead of being queued.
pub const RUNS_IN_MULTI: Flags = 1 << 19;
/// The command is allowed only if `enable-debug-command` or `enable-module-command` allows it to
/// the client.
pub const PROTECTED: Flags = 1 << 20;
/// The command reads the data set but may be propagated, so CLIENT PAUSE WRITE holds it back, too.
pub const MAY_REPLICATE: Flags = 1 << 21;
/// The command has, at a call, the flags of the script or the function that it runs, see
/// `script::command_flags`.
pub const SCRIPT_DECIDES: Flags = 1 << 22;
/// The command belongs to a feature that is not built yet: its row is complete, but calls that need
/// the feature are refused. README lists such features.
pub const NOT_BUILT: Flags = 1 << 23;
/// The command uses every database, so it is forbidden to ACL users that are limited to some
/// databases.
pub const ALL_DATABASES: Flags = 1 << 24;
/// A command with [`NO_MULTI`] and this flag is refused between MULTI and EXEC only with
/// `extended-redis-compatibility no`. With `extended-redis-compatibility yes` the command is
/// queued, or runs and replies with an error.
pub const MULTI_IN_REDIS: Flags = 1 << 25;
/// The command runs the queue of a transaction: EXEC.
pub const RUNS_QUEUE: Flags = 1 << 26;
/// The command is allowed to a RESP2 client that has subscriptions.
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

// The ACL categories, in the order of ACL CAT. A row states only the categories that do not follow
// from its flags.

/// No ACL category beyond those that follow from the command's flags.
pub const NONE_CAT: Categories = 0;
/// The ACL category @keyspace.
pub const KEYSPACE: Categories = 1 << 0;
/// The ACL category @read.
pub const READ_CAT: Categories = 1 << 1;
/// The ACL category @write.
pub const WRITE_CAT: Categories = 1 << 2;
/// The ACL category @set.
pub const SET: Categories = 1 << 3;
/// The ACL category @sortedset.
pub const SORTEDSET: Categories = 1 << 4;
/// The ACL category @list.
pub const LIST: Categories = 1 << 5;
/// The ACL category @hash.
pub const HASH: Categories = 1 << 6;
/// The ACL category @string.
pub const STRING: Categories = 1 << 7;
/// The ACL category @bitmap.
pub const BITMAP: Categories = 1 << 8;
/// The ACL category @hyperloglog.
pub const HYPERLOGLOG: Categories = 1 << 9;
/// The ACL category @geo.
pub const GEO: Categories = 1 << 10;
/// The ACL category @stream.
pub const STREAM: Categories = 1 << 11;
/// The ACL category @pubsub.
pub const PUBSUB_CAT: Categories = 1 << 12;
/// The ACL category @admin.
pub const ADMIN_CAT: Categories = 1 << 13;
/// The ACL category @fast.
pub const FAST_CAT: Categories = 1 << 14;
/// The ACL category @slow.
pub const SLOW_CAT: Categories = 1 << 15;
/// The ACL category @blocking.
pub const BLOCKING_CAT: Categories = 1 << 16;
/// The ACL category @dangerous.
pub const DANGEROUS: Categories = 1 << 17;
/// The ACL category @connection.
pub const CONNECTION: Categories = 1 << 18;
/// The ACL category @transaction.
pub const TRANSACTION: Categories = 1 << 19;
/// The ACL category @scripting.
pub const SCRIPTING: Categories = 1 << 20;

/// The names of the ACL categories without `@`; the bit of a category is its index in this list.
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

// The flags of a key spec, which say what a command does to the key. Exactly one of `RO`, `RW`,
// `OW`, `RM` describes the access to the stored value. `ACCESS`, `UPDATE`, `INSERT` and `DELETE`
// describe the use of the user's data in the value (a type or a length is not data). `NOT_KEY`,
// `INCOMPLETE` and `VARIABLE_FLAGS` are about the key spec itself.

/// The command reads the key's value or its metadata, and changes nothing.
pub const RO: KeyFlags = 1 << 0;
/// The command changes the key's value, depending on the old value.
pub const RW: KeyFlags = 1 << 1;
/// The command replaces the key's value without reading it.
pub const OW: KeyFlags = 1 << 2;
/// The command deletes the key without reading its value.
pub const RM: KeyFlags = 1 << 3;
/// The command returns, copies or otherwise uses the user's data in the value.
pub const ACCESS: KeyFlags = 1 << 4;
/// The command changes the user's data in the value.
pub const UPDATE: KeyFlags = 1 << 5;
/// The command adds data to the value without changing or removing existing data.
pub const INSERT: KeyFlags = 1 << 6;
/// The command removes some or all of the data in the value, as requested by the user.
pub const DELETE: KeyFlags = 1 << 7;
/// The argument is not a key, but is routed like a key: a shard channel.
pub const NOT_KEY: KeyFlags = 1 << 8;
/// The key spec does not find the keys of some calls.
pub const INCOMPLETE: KeyFlags = 1 << 9;
/// The flags of the key spec are the maximum; the arguments of a call determine which of them hold.
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

/// Where the keys of a key spec begin in argv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginSearch {
    /// The keys begin at this index of argv.
    Index(i16),
    /// The keys begin after the word `keyword`, which is searched from the index `start_from` on;
    /// if `start_from` is negative, from the end of argv backwards.
    Keyword {
        keyword: &'static str,
        start_from: i16,
    },
    /// The keys are at positions that a key spec can't express.
    Unknown,
}

/// How the keys of a key spec are found from `first` on, the index where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindKeys {
    /// The keys are at `first`, `first + step`, ... up to `last`, which is relative to `first`, or
    /// to the end of argv if it is negative. With `last == -1` and a `limit` above 1, only the
    /// first `1 / limit` of the arguments from `first` on are keys.
    Range { last: i16, step: i16, limit: i16 },
    /// The number of keys is an argument at `first + number`; the keys begin at `first +
    /// first_key`.
    KeyNum {
        number: i16,
        first_key: i16,
        step: i16,
    },
    /// The keys are at positions that a key spec can't express.
    Unknown,
}

/// A key spec, which describes some keys of a command: their positions in argv, and what the
/// command does to them.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub flags: KeyFlags,
    pub begin: BeginSearch,
    pub find: FindKeys,
    /// A remark about the keys in the reply of COMMAND INFO; usually empty.
    pub note: &'static str,
}

/// The part that a command plays in a special rule of `src/execute`, so that no rule compares names
/// of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No special rule is about the command.
    Ordinary,
    /// The command ASKING, whose effect lasts for the next command.
    Asking,
    /// The command DEBUG, which `enable-debug-command` allows.
    Debug,
    /// The command MIGRATE, which is allowed for keys of a slot of which this node has only a part.
    Migrate,
    /// The command PING, which is refused while the data set can't be saved, so that a health check
    /// notices.
    Ping,
    /// The command SELECT, which chooses the database of the commands behind it in a transaction.
    Select,
    /// The command CLUSTER SYNCSLOTS, by which two nodes talk about a move of slots.
    SyncSlots,
    /// The commands SYNC and PSYNC, which begin the replication stream to a replica, and may reply
    /// before it.
    Synchronize,
}

/// The positions of keys as one arithmetic series, see [`Command::key_range`].
#[derive(Clone, Copy)]
struct KeyRange {
    first: i16,
    last: i16,
    step: i16,
}

/// The row of one command or subcommand.
pub struct Command {
    /// The name in lower case; for a subcommand without the container's name.
    pub name: &'static str,
    pub proc: Proc,
    /// The number of arguments, the names of the command and subcommand included; `-n` means at
    /// least n.
    pub arity: i16,
    pub flags: Flags,
    pub role: Role,
    /// The command's ACL categories, including those that follow from its flags.
    pub acl: Categories,
    pub keys: &'static [KeySpec],
    /// The positions of the keys in `keys` that are one series, see [`Command::key_range`].
    range: KeyRange,
    /// The function that finds the keys, if the key specs alone can't.
    pub get_keys: Option<GetKeys>,
    /// The function that finds the databases that the arguments name.
    pub get_databases: Option<GetDatabases>,
    /// The tips of COMMAND INFO, which are hints for clients and proxies.
    pub tips: &'static [&'static str],
    pub subcommands: &'static [Command],
    /// Where argv has the elements (members, fields) that the command looks up in the key at
    /// argv[1]: from index `.0` on, at intervals of `.1`. Only the prefetch of a batch of commands
    /// uses `elements`.
    pub elements: Option<(u8, u8)>,
}

/// Begins the row of a command. `acl` has the ACL categories that `flags` don't imply.
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

/// The function in the row of a container such as CONFIG. The function of a container is never
/// called: for a container `process_command` runs one of its subcommands, or replies with an error.
pub fn container(_: &mut Ctx) -> CmdResult {
    unreachable!("a container runs through its subcommands")
}

/// Makes a key spec, see [`KeySpec`].
pub const fn key(flags: KeyFlags, begin: BeginSearch, find: FindKeys) -> KeySpec {
    KeySpec {
        flags,
        begin,
        find,
        note: "",
    }
}

/// Makes the key spec of most commands: one key at argv[`position`].
pub const fn key_at(position: i16, flags: KeyFlags) -> KeySpec {
    key(flags, index(position), range(0, 1, 0))
}

/// Makes a key spec for a number of keys at argv[`position`] that is followed by the keys: EVAL,
/// ZUNION and others.
pub const fn counted_keys(position: i16, flags: KeyFlags) -> KeySpec {
    key(flags, index(position), keynum(0, 1, 1))
}

/// Makes a key spec for one key after an option, which is searched from argv[`start_from`] on.
pub const fn key_after(option: &'static str, start_from: i16, flags: KeyFlags) -> KeySpec {
    key(flags, keyword(option, start_from), range(0, 1, 0))
}

/// The beginning of a key spec's keys at argv[`position`].
pub const fn index(position: i16) -> BeginSearch {
    assert!(position > 0);
    BeginSearch::Index(position)
}

/// The beginning of a key spec's keys after `keyword`, see [`BeginSearch::Keyword`].
pub const fn keyword(keyword: &'static str, start_from: i16) -> BeginSearch {
    assert!(start_from != 0);
    BeginSearch::Keyword {
        keyword,
        start_from,
    }
}

/// A beginning of keys that a key spec can't express.
pub const fn unknown_begin() -> BeginSearch {
    BeginSearch::Unknown
}

/// A series of keys of a key spec, see [`FindKeys::Range`].
pub const fn range(last: i16, step: i16, limit: i16) -> FindKeys {
    assert!(step > 0 && limit >= 0);
    FindKeys::Range { last, step, limit }
}

/// A number of keys that is followed by the keys of a key spec, see [`FindKeys::KeyNum`].
pub const fn keynum(number: i16, first_key: i16, step: i16) -> FindKeys {
    assert!(number >= 0 && first_key > number && step > 0);
    FindKeys::KeyNum {
        number,
        first_key,
        step,
    }
}

/// Keys whose positions a key spec can't express.
pub const fn unknown_find() -> FindKeys {
    FindKeys::Unknown
}

impl KeySpec {
    /// Whether the keys can't be found in the arguments, as the data names them (SORT BY).
    pub const fn is_unknown(&self) -> bool {
        matches!(self.find, FindKeys::Unknown)
    }

    /// Sets the remark about the keys in COMMAND INFO.
    pub const fn note(mut self, note: &'static str) -> KeySpec {
        self.note = note;
        self
    }

    /// The names of the key spec's flags in COMMAND INFO.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        key_flag_names(self.flags)
    }

    /// Whether the key spec describes a series of keys at a fixed position.
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
    /// Sets the key specs of the command.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Command {
        self.keys = keys;
        self.range = combined_range(keys);
        if has_movable_keys(keys) {
            self.flags |= MOVABLEKEYS;
        }
        self
    }

    /// Sets the function that finds the keys of the command, instead of its key specs.
    pub const fn get_keys(mut self, get_keys: GetKeys) -> Command {
        self.get_keys = Some(get_keys);
        self
    }

    /// Sets the part that the command plays in a special rule of `src/execute`.
    pub const fn role(mut self, role: Role) -> Command {
        self.role = role;
        self
    }

    /// Sets the function that finds the databases that the command's arguments name.
    pub const fn databases(mut self, get_databases: GetDatabases) -> Command {
        self.get_databases = Some(get_databases);
        self
    }

    /// Sets where argv has the elements that a batch of commands prefetches.
    pub const fn elements(mut self, first: u8, step: u8) -> Command {
        assert!(first > 1 && step > 0);
        self.elements = Some((first, step));
        self
    }

    /// Sets the command's tips, which are hints for clients and proxies.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Command {
        self.tips = tips;
        self
    }

    /// Sets the subcommands of a container.
    pub const fn subcommands(mut self, subcommands: &'static [Command]) -> Command {
        self.subcommands = subcommands;
        self
    }

    /// Whether the command has at least one of the flags `flags`.
    pub const fn is(&self, flags: Flags) -> bool {
        self.flags & flags != 0
    }

    /// The positions of the keys as one series (first, last, step), which COMMAND returns beside
    /// the key specs, for clients that don't know key specs. All three are zero if no key has a
    /// fixed position; a negative last is relative to the end of argv.
    pub const fn key_range(&self) -> (i16, i16, i16) {
        (self.range.first, self.range.last, self.range.step)
    }

    /// The index in argv of the first key, see [`Command::key_range`].
    pub const fn first_key(&self) -> i16 {
        self.range.first
    }

    /// The index in argv of the last key, see [`Command::key_range`].
    pub const fn last_key(&self) -> i16 {
        self.range.last
    }

    /// The distance between two keys in argv, see [`Command::key_range`].
    pub const fn step(&self) -> i16 {
        self.range.step
    }

    /// Whether clients must call COMMAND GETKEYS to find all keys of the command.
    pub const fn movable_keys(&self) -> bool {
        self.is(MOVABLEKEYS)
    }

    /// The index in argv of the number of keys, if all keys follow that number; otherwise 0.
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

    /// Whether some call of the command has keys; shard channels don't count as keys.
    pub fn has_keys(&self) -> bool {
        self.keys.iter().any(|spec| spec.flags & NOT_KEY == 0)
    }

    /// Whether `argc`, which includes the names of command and subcommand, is an allowed number of
    /// arguments.
    pub const fn check_arity(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity > 0 {
            argc == wanted
        } else {
            argc >= wanted
        }
    }

    /// Finds a subcommand by its name, in upper or lower case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands
            .iter()
            .find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The command's flags in the order and spelling of COMMAND INFO.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        names_of_bits(u64::from(self.flags), &FLAG_NAMES)
    }

    /// The command's flags as COMMAND INFO prints them in Redis's or Valkey's form: Redis has no
    /// flag `no_multi` for commands that it accepts in MULTI.
    pub fn flag_names_in(&self, words: Words) -> impl Iterator<Item = &'static str> {
        let answers = words == Words::Redis && self.is(MULTI_IN_REDIS);
        let hidden = if answers { NO_MULTI } else { NONE };
        names_of_bits(u64::from(self.flags & !hidden), &FLAG_NAMES)
    }

    /// The command's ACL categories in the order of COMMAND INFO, without `@`.
    pub fn category_names(&self) -> impl Iterator<Item = &'static str> {
        names_of_bits(self.acl, &CATEGORY_NAMES)
    }
}

/// The names of key flags in the order and spelling of COMMAND INFO and COMMAND GETKEYSANDFLAGS.
pub fn key_flag_names(flags: KeyFlags) -> impl Iterator<Item = &'static str> {
    names_of_bits(u64::from(flags), &KEY_FLAG_NAMES)
}

/// The bit of an ACL category, which is given by its name without `@` in upper or lower case.
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

/// The ACL categories that follow from a command's flags. The commands that run read-only scripts
/// are not in `@read`, as their keys depend on the script.
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

/// Whether a command has a key spec that is not a series of keys at a fixed position.
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

/// The first series of keys at a fixed position, extended by the series that continue it without a
/// gap: `1..1` and `2..-1` make `1..-1`.
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
