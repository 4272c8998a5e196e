//! The types of the values of settings, besides numbers and yes/no.
//!
//! An enumeration here is a plain Rust `enum` with a table of names (`Choice`): the first name of a
//! value is what CONFIG GET and CONFIG REWRITE print, and names are matched without regard to case.
//! The order of the table is the order of the names in the error text ("argument(s) must be one of
//! the following: ..."), which test suites of clients compare.
//!
//! Texts are bytes (`Text`), not `String`: a password or a path may have any bytes, UTF-8 or not.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The value of a text setting. For most settings the empty text means "not set", as in Redis.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Vec<u8>);

impl Text {
    /// The text as bytes, which need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text for log lines and addresses; bytes that are not UTF-8 become replacement
    /// characters.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The text as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl AsRef<Path> for Text {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl Deref for Text {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Text {
        Text(text.to_vec())
    }
}

impl From<Vec<u8>> for Text {
    fn from(text: Vec<u8>) -> Text {
        Text(text)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_str_lossy())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str_lossy(), f)
    }
}

/// An enumeration with the names that its values have in redis.conf.
pub trait Choice: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, value)| *value == self);
        found.map_or("", |(name, _)| name)
    }

    fn from_name(text: &[u8]) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(text))?;
        Some(found.1)
    }
}

/// Declares an enumeration of a setting's values together with their names. The first value is the
/// default of the type.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($value),+ }

        impl Choice for $name {
            const NAMES: &'static [(&'static str, $name)] = &[$(($text, $name::$value)),+];
        }

        impl Default for $name {
            fn default() -> $name {
                $name::NAMES[0].1
            }
        }
    };
}

choice! {
    /// `loglevel`, from the most detailed level.
    LogLevel { Debug = "debug", Verbose = "verbose", Notice = "notice", Warning = "warning", Nothing = "nothing" }
}
choice! {
    LogFormat { Legacy = "legacy", Logfmt = "logfmt", Json = "json", Journal = "journal" }
}
choice! {
    LogTimestampFormat { Legacy = "legacy", Iso8601 = "iso8601", Milliseconds = "milliseconds" }
}
choice! {
    SyslogFacility {
        User = "user", Local0 = "local0", Local1 = "local1", Local2 = "local2", Local3 = "local3",
        Local4 = "local4", Local5 = "local5", Local6 = "local6", Local7 = "local7",
    }
}
choice! {
    /// `supervised`: the supervisor to notify when the server is ready.
    Supervised { Upstart = "upstart", Systemd = "systemd", Auto = "auto", No = "no" }
}
choice! {
    /// `teach`: a fault of event loops that the server shows on purpose, for its trace.
    Teach {
        No = "no", NoDrain = "no-drain", Level = "level", SlowCommand = "slow-command",
        BlockingFsync = "blocking-fsync", NoBudget = "no-budget", RehashAtOnce = "rehash-at-once",
        SampledExpiry = "sampled-expiry",
    }
}
choice! {
    AppendFsync { Everysec = "everysec", Always = "always", No = "no" }
}
choice! {
    /// `maxmemory-policy`: which keys are evicted when memory is full, and in which order.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru", VolatileLfu = "volatile-lfu", VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl", AllkeysLru = "allkeys-lru", AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random", Noeviction = "noeviction", VolatileLrm = "volatile-lrm",
        AllkeysLrm = "allkeys-lrm",
    }
}

impl MaxmemoryPolicy {
    /// Whether the policy counts accesses (LFU).
    pub fn is_lfu(self) -> bool {
        matches!(
            self,
            MaxmemoryPolicy::VolatileLfu | MaxmemoryPolicy::AllkeysLfu
        )
    }

    /// Whether the policy uses the time of the last change, not of the last access (LRM: least
    /// recently modified, of Redis 8.6).
    pub fn is_lrm(self) -> bool {
        matches!(
            self,
            MaxmemoryPolicy::VolatileLrm | MaxmemoryPolicy::AllkeysLrm
        )
    }

    /// Whether the policy uses the time of the last access or change.
    pub fn uses_idle_time(self) -> bool {
        let is_lru = matches!(
            self,
            MaxmemoryPolicy::VolatileLru | MaxmemoryPolicy::AllkeysLru
        );
        is_lru || self.is_lrm()
    }
}

choice! {
    ReplDisklessLoad { Disabled = "disabled", OnEmptyDb = "on-empty-db", Swapdb = "swapdb", FlushBeforeLoad = "flush-before-load" }
}
choice! {
    PropagationErrorBehavior { Ignore = "ignore", Panic = "panic", PanicOnReplicas = "panic-on-replicas", Resync = "resync" }
}
choice! {
    SanitizeDumpPayload { No = "no", Yes = "yes", Clients = "clients" }
}
choice! {
    TlsAuthClients { No = "no", Yes = "yes", Optional = "optional" }
}
choice! {
    /// `tls-auth-clients-user`: the field of a client's certificate that names its ACL user.
    TlsAuthClientsUser { CommonName = "CN", Uri = "URI", Off = "off" }
}
choice! {
    ClusterConfigSaveBehavior { Sync = "sync", BestEffort = "best-effort" }
}
choice! {
    OomScoreAdj { No = "no", Yes = "yes", Relative = "relative", Absolute = "absolute" }
}
choice! {
    /// `acl-pubsub-default`: the channels of a user without rules about channels.
    AclPubsubDefault { Allchannels = "allchannels", Resetchannels = "resetchannels" }
}
choice! {
    ClusterPreferredEndpointType { Ip = "ip", Hostname = "hostname", UnknownEndpoint = "unknown-endpoint" }
}
choice! {
    /// `enable-debug-command`, `enable-module-command` and `enable-protected-configs`: `Local`
    /// allows only clients on this machine.
    Enable { No = "no", Yes = "yes", Local = "local" }
}

impl Enable {
    /// Whether a client may use the commands or settings that the setting enables. `is_local` says
    /// whether the client is on this machine.
    pub fn allows(self, is_local: bool) -> bool {
        match self {
            Enable::Yes => true,
            Enable::No => false,
            Enable::Local => is_local,
        }
    }
}

choice! {
    RdbVersionCheck { Strict = "strict", Relaxed = "relaxed" }
}
choice! {
    /// `rdb-version`: the version of the RDB files that are written. 10 can be loaded by Redis 7.0,
    /// 80 is Valkey 9's.
    RdbVersion { V10 = "10", V11 = "11", V12 = "12", V80 = "80" }
}

impl RdbVersion {
    /// The version number in the header of an RDB file.
    pub fn number(self) -> u32 {
        match self {
            RdbVersion::V10 => 10,
            RdbVersion::V11 => 11,
            RdbVersion::V12 => 12,
            RdbVersion::V80 => 80,
        }
    }
}

/// `shutdown-on-sigterm` and `shutdown-on-sigint`: the modifiers of SHUTDOWN. The value `default`
/// sets no modifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownFlags {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
    /// The modifier FAILOVER: a primary of a cluster gives its slots to a replica before it exits.
    pub failover: bool,
}

/// One `save` rule: a snapshot is due after `seconds` when at least `changes` writes happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// The minimum number of seconds since the last save.
    pub seconds: u64,
    /// The minimum number of changes since the last save.
    pub changes: u64,
}

/// One class of `client-output-buffer-limit`; zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObufLimit {
    /// The number of bytes of output at which a client is closed at once; 0 is no limit.
    pub hard: u64,
    /// The number of bytes of output at which a client is closed after `soft_seconds`; 0 is no
    /// limit.
    pub soft: u64,
    /// The number of seconds for which a client's output may exceed `soft`.
    pub soft_seconds: u64,
}

/// The class of a client, which selects its `client-output-buffer-limit`; in the order in which the
/// limits are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientClass {
    Normal = 0,
    Replica = 1,
    Pubsub = 2,
}

/// `maxmemory-clients`: bytes, or a share of `maxmemory`. `Bytes(0)` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsLimit {
    Bytes(u64),
    Percent(u8),
}

impl Default for ClientsLimit {
    fn default() -> ClientsLimit {
        ClientsLimit::Bytes(0)
    }
}

impl ClientsLimit {
    /// The limit in bytes; a percentage of an unlimited `maxmemory` is no limit.
    pub fn bytes(self, maxmemory: u64) -> u64 {
        match self {
            ClientsLimit::Bytes(bytes) => bytes,
            ClientsLimit::Percent(percent) => {
                (u128::from(maxmemory) * u128::from(percent) / 100) as u64
            }
        }
    }
}

/// The value of `replicaof`: the address of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: Text,
    pub port: u16,
}

/// One `rename-command` line; an empty `to` removes the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameCommand {
    pub from: Text,
    pub to: Text,
}

/// The event classes of `notify-keyspace-events`, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyFlags(pub u32);

impl NotifyFlags {
    /// `K`: publish on `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: u32 = 1 << 0;
    /// `E`: publish on `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: u32 = 1 << 1;
    /// `g`: events of commands for any type, such as DEL and EXPIRE.
    pub const GENERIC: u32 = 1 << 2;
    /// `$`: events of string commands.
    pub const STRING: u32 = 1 << 3;
    /// `l`: events of list commands.
    pub const LIST: u32 = 1 << 4;
    /// `s`: events of set commands.
    pub const SET: u32 = 1 << 5;
    /// `h`: events of hash commands.
    pub const HASH: u32 = 1 << 6;
    /// `z`: events of sorted set commands.
    pub const ZSET: u32 = 1 << 7;
    /// `x`: a key has expired.
    pub const EXPIRED: u32 = 1 << 8;
    /// `e`: a key was evicted.
    pub const EVICTED: u32 = 1 << 9;
    /// `t`: events of stream commands.
    pub const STREAM: u32 = 1 << 10;
    /// `m`: a key was not found; not part of `A`.
    pub const KEY_MISS: u32 = 1 << 11;
    /// `d`: events of modules.
    pub const MODULE: u32 = 1 << 13;
    /// `n`: a key is new; not part of `A`.
    pub const NEW: u32 = 1 << 14;
    /// `A`: all classes except `K`, `E`, `m` and `n`.
    pub const ALL: u32 = Self::GENERIC
        | Self::STRING
        | Self::LIST
        | Self::SET
        | Self::HASH
        | Self::ZSET
        | Self::EXPIRED
        | Self::EVICTED
        | Self::STREAM
        | Self::MODULE;

    /// The letters of the classes within `A`, in the order in which CONFIG GET prints them.
    const CLASSES: [(u8, u32); 10] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::ZSET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
    ];

    /// Whether at least one of the event classes in the mask `classes` is on.
    pub fn contains(self, classes: u32) -> bool {
        self.0 & classes != 0
    }

    /// Parses the letters of `notify-keyspace-events`; `None` if a letter names no event class.
    pub fn parse(text: &[u8]) -> Option<NotifyFlags> {
        let mut flags = 0;
        for &letter in text {
            flags |= match letter {
                b'A' => Self::ALL,
                b'K' => Self::KEYSPACE,
                b'E' => Self::KEYEVENT,
                b'm' => Self::KEY_MISS,
                b'n' => Self::NEW,
                _ => Self::CLASSES.iter().find(|class| class.0 == letter)?.1,
            };
        }
        Some(NotifyFlags(flags))
    }
}

impl fmt::Display for NotifyFlags {
    /// Prints `A` if all classes of events are on for which `A` stands. As in Redis, `n` is printed
    /// only if `A` is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0 & Self::ALL == Self::ALL;
        if all {
            f.write_str("A")?;
        } else {
            for (letter, class) in Self::CLASSES {
                if self.contains(class) {
                    write!(f, "{}", letter as char)?;
                }
            }
            if self.contains(Self::NEW) {
                f.write_str("n")?;
            }
        }
        let tail = [
            (Self::KEYSPACE, "K"),
            (Self::KEYEVENT, "E"),
            (Self::KEY_MISS, "m"),
        ];
        for (class, letter) in tail {
            if self.contains(class) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}
