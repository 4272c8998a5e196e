//! `struct Server`: everything there is, owned in one place and passed as `&mut`. Data, no verbs: the verbs
//! are in the modules that the fields are named after.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::acl::Acl;
use crate::commands::table::CommandTable;
use crate::config::Config;
use crate::db::Db;
use crate::ds::hash::HashSeed;
use crate::networking::Net;
use crate::networking::client::OwnedArgv;
use crate::observe::latency::Latency;
use crate::observe::slowlog::Slowlog;
use crate::observe::stats::Stats;
use crate::server::clock::Clock;
use crate::server::propagate::Propagation;
use crate::server::shutdown::Shutdown;
use crate::util::random::Random;

pub struct Server {
    pub config: Config,
    pub clock: Clock,
    pub net: Net,
    pub dbs: Vec<Db>,
    pub commands: CommandTable,
    pub stats: Stats,
    pub acl: Acl,
    pub pubsub: crate::pubsub::PubSub,
    pub blocked: BlockedClients,
    pub pause: Pause,
    pub propagation: Propagation,
    pub slowlog: Slowlog,
    pub latency: Latency,
    pub lazyfree: crate::sys::lazyfree::LazyFree,
    /// `None` when the allocator keeps no statistics.
    pub memory: Option<crate::sys::memory::ThreadCounters>,
    pub shutdown: Shutdown,
    pub process: ProcessState,
    /// The command being run, for a crash report.
    pub in_flight: crate::sys::crash::InFlight<crate::networking::client::Client>,
    pub evict: crate::db::evict::Eviction,
    pub rng: Random,
    pub run: RunInfo,
    pub debug: DebugSwitches,
    /// Changes since the last save: every write adds to it.
    pub dirty: u64,
    /// Classes of keyspace events that are told, see `db::notify`.
    pub notify_flags: u32,
    /// Key hashes computed ahead for the commands being run, see `db::lookup`.
    pub hashes: HashMemo,
    pub seed: HashSeed,
    /// A bit for each feature that has to look at every command; zero most of the time, so that features
    /// that are off cost one branch together.
    pub armed: u32,
    /// Commands inside commands: EXEC and scripts.
    pub nesting: u32,
    /// The data set is being loaded.
    pub loading: bool,
}

/// Bits of [`Server::armed`].
pub mod armed {
    /// A client runs MONITOR.
    pub const MONITOR: u32 = 1 << 0;
    /// There is an AOF or a replica to tell.
    pub const PROPAGATE: u32 = 1 << 1;
    /// A client has CLIENT TRACKING on.
    pub const TRACKING: u32 = 1 << 2;
    /// Clients are paused.
    pub const PAUSED: u32 = 1 << 3;
}

/// Facts about this process, set once at start.
pub struct RunInfo {
    /// 40 hex digits, new at each start.
    pub run_id: String,
    pub pid: u32,
    pub executable: PathBuf,
    pub argv: Vec<String>,
    pub start_ms: i64,
}

/// What this process looked like before settings changed it.
#[derive(Default)]
pub struct ProcessState {
    /// `oom_score_adj` when the server started, or when it last was left alone.
    pub oom_score_base: i32,
    /// The settings have changed `oom_score_adj`.
    pub oom_score_changed: bool,
}

/// What DEBUG switches for tests.
#[derive(Default)]
pub struct DebugSwitches {
    pub no_active_expire: bool,
    /// DEBUG REPLYBUFFER PEAK-RESET-TIME, in milliseconds; `None` is the default of 5 s, negative never.
    pub reply_peak_reset_ms: Option<i64>,
    /// DEBUG DICT-RESIZING 0
    pub no_resize: bool,
}

/// Key hashes of the commands that were parsed ahead: `(address, length, hash)` of each key in the request
/// buffer, in the order in which the commands will look them up. Addresses are compared, never followed.
#[derive(Default)]
pub struct HashMemo {
    pub entries: Vec<(usize, usize, u64)>,
    pub cursor: usize,
}

/// Commands queued by MULTI.
#[derive(Default)]
pub struct MultiState {
    pub commands: Vec<Queued>,
    /// The union of the flags of all queued commands.
    pub flags: u32,
    /// Bytes of all arguments.
    pub argv_len: usize,
}

pub struct Queued {
    pub id: u16,
    pub argv: OwnedArgv,
}

impl MultiState {
    pub fn memory(&self) -> usize {
        self.commands.capacity() * size_of::<Queued>()
            + self.commands.iter().map(|q| q.argv.memory()).sum::<usize>()
    }
}

/// A key that a client watches.
pub struct WatchedKey {
    pub db: u32,
    pub key: Box<[u8]>,
    /// It had expired already when WATCH was called: its deletion does not touch.
    pub expired: bool,
}

/// Why a client waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    /// A list to get an element: BLPOP and its kin.
    List,
    Zset,
    Stream,
    /// CLIENT PAUSE, and failover.
    Postpone,
    /// WAIT and WAITAOF.
    Wait,
    /// SHUTDOWN waits for replicas.
    Shutdown,
}

/// What a blocked client waits for.
pub struct Blocked {
    pub kind: BlockKind,
    /// Unix time in milliseconds, 0 for never.
    pub deadline_ms: i64,
    pub keys: Vec<Box<[u8]>>,
    /// The command, to be run again on wake-up.
    pub argv: OwnedArgv,
    pub cmd: u16,
    /// When it began, in microseconds of the monotonic clock: time spent blocked is not command time.
    pub since_us: u64,
    /// Wake it also when a key is deleted or changes type (XREADGROUP).
    pub on_nokey: bool,
}

/// All blocked clients.
#[derive(Default)]
pub struct BlockedClients {
    pub count: usize,
    /// Keys that may serve somebody, in the order in which they were written: (db, key).
    pub ready_keys: VecDeque<(u32, Box<[u8]>)>,
    /// The same as a set, so that a key is listed once.
    pub ready_set: std::collections::HashSet<(u32, Box<[u8]>)>,
    /// (deadline, client), earliest first.
    pub timeouts: std::collections::BTreeSet<(i64, crate::networking::client::ClientRef)>,
    /// Clients that may go on: their buffered requests run before the loop sleeps.
    pub unblocked: VecDeque<crate::networking::client::ClientRef>,
    /// Clients held back by CLIENT PAUSE.
    pub postponed: VecDeque<crate::networking::client::ClientRef>,
    /// Keys with clients that want to hear of their deletion.
    pub on_nokey: usize,
}

/// CLIENT PAUSE.
#[derive(Default)]
pub struct Pause {
    /// Unix time in milliseconds until which all commands wait.
    pub all_until_ms: i64,
    /// The same for commands that write.
    pub write_until_ms: i64,
}
