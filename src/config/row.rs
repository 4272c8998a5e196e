//! The rows of the settings table: name, kind, flags, and the step that the server must do after a
//! change.
//!
//! The kind of a setting (yes/no, number, text, choice, special) reads and writes the setting's
//! field by two plain `fn`s, so that the table is a constant. The kind also parses a text, prints
//! the value, and has the error texts, which are those of Redis, as people search for them.

use super::Config;
use super::enums::Text;
use super::special::Special;
use crate::util::byte_size::parse_memory;
use crate::util::number::parse_i64;
use crate::util::quote::repr;

/// The reason why the value of a setting was refused: Redis's error text.
pub type Reason = String;

/// The origin of a setting's value. Some settings (`save`) add to their value when they are read
/// from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The value comes from redis.conf, standard input or the command line.
    Load,
    /// The value comes from CONFIG SET, and replaces the old value.
    Set,
}

/// The step that the server must do after a setting changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Apply {
    /// No step: the field is read each time the setting is used.
    None,
    /// `bind`: listen on the new addresses.
    Bind,
    Port,
    TlsPort,
    /// Settings of TLS: build the TLS configuration again (certificates, protocols, ciphers).
    Tls,
    /// `maxclients`: raise the process's limit of open files, or refuse the new value.
    MaxClients,
    /// `dir`: this module changes the working directory itself, so the server has no step to do.
    Dir,
    LogLevel,
    LogFormat,
    ProcTitle,
    LocaleCollate,
    WatchdogPeriod,
    Hz,
    /// `maxmemory`: evict keys down to the new limit; warn if more memory than that is in use.
    MaxMemory,
    MaxMemoryPolicy,
    /// `maxmemory-clients`: evict clients down to the new limit.
    MaxMemoryClients,
    OomScoreAdj,
    JemallocBgThread,
    /// `appendonly`: start the AOF with a rewrite, or stop the AOF.
    AppendOnly,
    AutoAofRewrite,
    /// `aof-disable-auto-gc`: delete the AOF's old files, if they are not kept any more.
    AofAutoGc,
    RequirePass,
    AclPubsubDefault,
    ReplBacklogSize,
    /// `min-replicas-max-lag`: count again the replicas whose lag is small enough.
    GoodReplicas,
    NotifyKeyspaceEvents,
    LatencyTracking,
    SlowlogMaxLen,
    ImportMode,
    LuaInsecureApi,
    /// `cluster-replica-no-failover`: update the flags of this node in the cluster.
    ClusterFlags,
    ClusterAnnounceIp,
    ClusterAnnouncePorts,
    ClusterAnnounceHostname,
    ClusterAnnounceHumanNodename,
}

/// CONFIG SET refuses the setting; only a file or the command line sets it.
pub const IMMUTABLE: u16 = 1 << 0;
/// The setting is a secret, which never appears in the log, in MONITOR or in crash reports.
pub const SENSITIVE: u16 = 1 << 1;
/// CONFIG GET shows the setting only for its exact name.
pub const HIDDEN: u16 = 1 << 2;
/// CONFIG SET refuses the setting unless `enable-protected-configs` allows it.
pub const PROTECTED: u16 = 1 << 3;
/// The setting is for tests and debugging.
pub const DEBUG: u16 = 1 << 4;
/// The setting has several arguments; CONFIG SET splits its single value at spaces.
pub const MULTI_ARG: u16 = 1 << 5;
/// CONFIG SET refuses the setting while the data set is loading.
pub const DENY_LOADING: u16 = 1 << 6;
/// The setting is accepted but has no effect in this server. At start the log names the setting if
/// its value is not the default.
pub const NO_EFFECT: u16 = 1 << 7;
/// CONFIG SET refuses the setting while another data set is loaded beside the one that clients
/// read.
pub const DENY_ASYNC_LOADING: u16 = 1 << 9;
/// The server does the setting's step even if CONFIG SET sets the present value, as the named file
/// (such as a certificate) may have changed.
pub const REAPPLY: u16 = 1 << 10;
/// CONFIG REWRITE removes the line of an empty value, since empty means "not set".
pub const EMPTY_IS_UNSET: u16 = 1 << 8;

/// One setting: a row of the settings table.
pub struct Row {
    pub name: &'static str,
    /// The setting's other names: older names, and Valkey's. An alias can be used in place of the
    /// name everywhere.
    pub aliases: &'static [&'static str],
    pub flags: u16,
    pub kind: SettingKind,
    pub apply: Apply,
}

/// The unit of a setting that is a number, which determines the texts that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// The unit of a number of bytes, whose text may end in kb, mb, gb (powers of two) or k, m, g
    /// (powers of ten).
    Memory,
    Octal,
}

/// The kind of a setting's value, with the functions that access the field, and the default.
pub enum SettingKind {
    Bool {
        get: fn(&Config) -> bool,
        set: fn(&mut Config, bool),
        default: bool,
        /// The error text for the value `yes`, if this server refuses it.
        refuse_yes: Option<&'static str>,
    },
    Number {
        get: fn(&Config) -> i128,
        /// Writes the field, whose type must hold all numbers of `min..=max`.
        set: fn(&mut Config, i128),
        default: i128,
        min: i128,
        max: i128,
        unit: Unit,
    },
    Text {
        get: fn(&Config) -> &Text,
        set: fn(&mut Config, Text),
        default: &'static str,
        check: fn(&[u8]) -> Result<(), &'static str>,
    },
    Choice {
        get: fn(&Config) -> &'static str,
        /// Sets the field to the value with the given name. Returns false if no value has this
        /// name.
        set: fn(&mut Config, &[u8]) -> bool,
        default: &'static str,
        names: fn() -> Vec<&'static str>,
    },
    Special(&'static Special),
}

impl Row {
    /// A row of a setting without aliases, flags, and step after a change.
    pub const fn new(name: &'static str, kind: SettingKind) -> Row {
        Row {
            name,
            aliases: &[],
            flags: 0,
            kind,
            apply: Apply::None,
        }
    }

    /// Sets the aliases of the setting.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Row {
        self.aliases = aliases;
        self
    }

    /// Sets the flags of the setting, such as [`IMMUTABLE`].
    pub const fn flags(mut self, flags: u16) -> Row {
        self.flags = flags;
        self
    }

    /// Sets the step that the server must do after a change of the setting.
    pub const fn apply(mut self, apply: Apply) -> Row {
        self.apply = apply;
        self
    }

    /// Whether the setting has a flag, such as [`IMMUTABLE`].
    pub fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The name of the setting and its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The setting's value as CONFIG GET shows it.
    pub fn get(&self, config: &Config) -> Vec<u8> {
        match &self.kind {
            SettingKind::Bool { get, .. } => yes_no(get(config)).into(),
            SettingKind::Number {
                get,
                unit: Unit::Octal,
                ..
            } => format!("{:o}", get(config)).into(),
            SettingKind::Number { get, .. } => get(config).to_string().into(),
            SettingKind::Text { get, .. } => get(config).to_vec(),
            SettingKind::Choice { get, .. } => get(config).into(),
            SettingKind::Special(special) => (special.get)(config),
        }
    }

    /// Sets the field from the arguments of a line of the configuration, or from CONFIG SET. `Err`
    /// is the reason why the value was refused; the field is then unchanged.
    pub fn set(&self, config: &mut Config, args: &[&[u8]], origin: Origin) -> Result<(), Reason> {
        if let SettingKind::Special(special) = &self.kind {
            return (special.set)(config, args, origin);
        }
        let &[text] = args else {
            return Err("wrong number of arguments".into());
        };
        match &self.kind {
            SettingKind::Bool {
                set, refuse_yes, ..
            } => set(config, parse_bool(text, *refuse_yes)?),
            SettingKind::Number {
                set,
                min,
                max,
                unit,
                ..
            } => {
                set(config, parse_number(text, *min, *max, *unit)?);
            }
            SettingKind::Text { set, check, .. } => {
                check(text)?;
                set(config, text.into());
            }
            SettingKind::Choice { set, names, .. } => {
                if !set(config, text) {
                    return Err(not_one_of(&names()));
                }
            }
            SettingKind::Special(_) => {}
        }
        Ok(())
    }

    /// The values that CONFIG REWRITE writes after the setting's name, one for each line; empty if
    /// the setting gets no line.
    pub(super) fn lines(&self, config: &Config) -> Vec<Vec<u8>> {
        match &self.kind {
            SettingKind::Special(special) => (special.lines)(config),
            SettingKind::Text { get, .. } if get(config).is_empty() && self.is(EMPTY_IS_UNSET) => {
                vec![]
            }
            SettingKind::Text { get, .. } => vec![repr(get(config)).into_bytes()],
            SettingKind::Number {
                get,
                unit: Unit::Memory,
                ..
            } => vec![show_memory(get(config))],
            _ => vec![self.get(config)],
        }
    }

    pub(super) fn put_default(&self, config: &mut Config) {
        match &self.kind {
            SettingKind::Bool { set, default, .. } => set(config, *default),
            SettingKind::Number { set, default, .. } => set(config, *default),
            SettingKind::Text { set, default, .. } => set(config, Text::from(*default)),
            SettingKind::Choice { set, default, .. } => {
                set(config, default.as_bytes());
            }
            SettingKind::Special(special) => (special.put_default)(config),
        }
    }
}

/// The text of a yes/no setting in CONFIG GET.
pub fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// The error text for a value of a setting that is not one of `names`.
pub fn not_one_of(names: &[&str]) -> Reason {
    format!(
        "argument(s) must be one of the following: {}",
        names.join(", ")
    )
}

fn parse_bool(text: &[u8], refuse_yes: Option<&'static str>) -> Result<bool, Reason> {
    if text.eq_ignore_ascii_case(b"no") {
        return Ok(false);
    }
    if !text.eq_ignore_ascii_case(b"yes") {
        return Err("argument must be 'yes' or 'no'".into());
    }
    refuse_yes.map_or(Ok(true), |reason| Err(reason.into()))
}

fn parse_number(text: &[u8], min: i128, max: i128, unit: Unit) -> Result<i128, Reason> {
    let (value, complaint) = match unit {
        Unit::Plain => (
            parse_i64(text).map(i128::from),
            "argument couldn't be parsed into an integer",
        ),
        Unit::Memory => (
            match text {
                b"-1" if min == -1 => Some(-1),
                _ => parse_memory(text).map(i128::from),
            },
            "argument must be a memory value",
        ),
        Unit::Octal => (
            parse_octal(text),
            "argument couldn't be parsed as an octal number",
        ),
    };
    let value = value.ok_or(complaint)?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    if unit == Unit::Octal {
        return Err(format!(
            "argument must be between {min:o} and {max:o} inclusive"
        ));
    }
    Err(format!(
        "argument must be between {min} and {max} inclusive"
    ))
}

fn parse_octal(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    i64::from_str_radix(text, 8).ok().map(i128::from)
}

/// Formats a number of bytes with the largest unit (gb, mb or kb) that divides it.
fn show_memory(bytes: i128) -> Vec<u8> {
    let units = [(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")];
    let unit = units
        .iter()
        .find(|(size, _)| bytes != 0 && bytes % size == 0);
    match unit {
        Some((size, name)) => format!("{}{name}", bytes / size).into_bytes(),
        None => bytes.to_string().into_bytes(),
    }
}
