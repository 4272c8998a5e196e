//! `struct Server`: everything there is, owned in one place and passed as `&mut`. Data, no verbs: the verbs
//! are in the modules that the fields are named after.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::acl::Acl;
use crate::client::table::Net;
use crate::client::{ClientRef, OwnedArgv};
use crate::clock::Clock;
use crate::command::table::CommandTable;
use crate::config::Config;
use crate::db::Db;
use crate::ds::siphash::HashSeed;
use crate::observe::commandlog::CommandLogs;
use crate::observe::latency::Latency;
use crate::observe::stats::Stats;
use crate::propagate::Propagation;
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
    pub scripting: crate::script::Scripting,
    /// The event loop, for commands that run for so long that others have to be answered meanwhile.
    pub event_loop: crate::server::busy::LentLoop,
    pub blocked: BlockedClients,
    pub pause: Pause,
    pub propagation: Propagation,
    pub commandlog: CommandLogs,
    pub latency: Latency,
    pub hotkeys: crate::observe::hotkeys::HotKeys,
    /// `None` while `bigkeys-tracking` is off.
    pub bigkeys: Option<Box<crate::observe::bigkeys::BigKeys>>,
    pub tracking: crate::tracking::Tracking,
    pub lazyfree: crate::sys::lazyfree::LazyFree,
    /// The process that saves or rewrites at the moment.
    pub child: Option<crate::persist::child::Child>,
    pub forks: crate::persist::child::Forks,
    pub aof: crate::persist::aof::Aof,
    pub rdb: crate::persist::rdb::Rdb,
    /// `None` when the allocator keeps no statistics.
    pub memory: Option<crate::sys::allocator::ThreadCounters>,
    pub shutdown: Shutdown,
    pub process: ProcessState,
    /// The command being run, for a crash report.
    pub in_flight: crate::sys::crash::InFlight<crate::client::Client>,
    pub evict: crate::keyspace::evict::Eviction,
    pub rng: Random,
    pub run: RunInfo,
    pub debug: DebugSwitches,
    /// Changes since the last save: every write adds to it.
    pub dirty: u64,
    /// Unix time of the last save; before the first, of the start.
    pub last_save_s: i64,
    /// Classes of keyspace events that are told, see `keyspace::events`.
    pub notify_flags: u32,
    /// Key hashes computed ahead for the commands being run, see `keyspace::lookup`.
    pub hashes: HashMemo,
    pub seed: HashSeed,
    /// A bit for each feature that has to look at every command; zero most of the time, so that features
    /// that are off cost one branch together.
    pub armed: u32,
    /// Commands inside commands: EXEC and scripts.
    pub nesting: u32,
    /// The data set is being loaded.
    pub loading: bool,
    /// How far that is.
    pub load: crate::persist::loading::Progress,
    /// Clients whose watched key changed while they ran a command, see `commands::multi`.
    pub touched: Vec<ClientRef>,
    /// The database with which active expiry goes on.
    pub expire_next_db: u32,
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
    /// Some user may not do everything.
    pub const ACL: u32 = 1 << 4;
    /// The largest keys are kept.
    pub const BIGKEYS: u32 = 1 << 5;
}

/// Who this process is.
pub struct RunInfo {
    /// 40 hex digits, new at each start.
    pub run_id: String,
    /// The replication history's own 40 hex digits.
    pub replid: String,
    pub pid: u32,
    pub executable: PathBuf,
    pub argv: Vec<String>,
    pub start_ms: i64,
    /// Bytes in use when the server was ready and empty.
    pub startup_memory: usize,
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
    /// DEBUG REPLYBUFFER RESIZING 0
    pub no_reply_resize: bool,
    /// DEBUG PAUSE-CRON 1
    pub no_cron: bool,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS 1: scripts may call what is not for scripts.
    pub allow_noscript: bool,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION 1
    pub skip_checksum: bool,
    /// DEBUG CLIENT-ENFORCE-REPLY-LIST 1: a reply counts against limits as if it lay in a node of its own.
    pub enforce_reply_list: bool,
    /// PFDEBUG SIMD OFF: registers are merged by the code for any machine.
    pub no_hll_simd: bool,
    /// DEBUG QUICKLIST-PACKED-THRESHOLD: list elements of this size get a node of their own; 0 is the default.
    pub packed_threshold: usize,
    /// DEBUG AOF-BACKLOG-LIMIT: so many bytes may wait for the log's disk before who writes is not read.
    pub aof_backlog_max: Option<u64>,
}

/// Key hashes of the commands that were parsed ahead: `(address, length, hash)` of each key in the request
/// buffer, in the order in which the commands will look them up. Addresses are compared, never followed.
#[derive(Default)]
pub struct HashMemo {
    pub entries: Vec<(usize, usize, u64)>,
    pub cursor: usize,
    /// Hashes of keys that a script will have at another address: they are only good for fetching.
    pub counted: Vec<u64>,
}

impl HashMemo {
    pub fn clear(&mut self) {
        self.entries.clear();
        self.counted.clear();
        self.cursor = 0;
    }
}

/// Commands queued by MULTI, in three pieces of memory however many they are:
///
/// ```text
///   commands: [set, 3 arguments] [get, 5]      both end where they say
///   ends:     3 4 9  12 13
///   bytes:    setkvaluegetk
/// ```
#[derive(Default)]
pub struct MultiState {
    pub commands: Vec<Queued>,
    /// The union of the flags of all queued commands.
    pub flags: u32,
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
pub struct Queued {
    pub id: u16,
    /// Its arguments end with this one of all.
    pub args_end: usize,
}

impl MultiState {
    /// Room for a transaction as most are.
    pub fn new() -> MultiState {
        MultiState {
            commands: Vec::with_capacity(16),
            flags: 0,
            ends: Vec::with_capacity(48),
            bytes: Vec::with_capacity(512),
        }
    }

    pub fn push(&mut self, id: u16, flags: u32, argv: &[&[u8]]) {
        self.flags |= flags;
        for arg in argv {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
        let args_end = self.ends.len();
        self.commands.push(Queued { id, args_end });
    }

    /// The arguments of all commands, one after the other.
    pub fn slices(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges
            .map(|(&start, &end)| &self.bytes[start..end])
            .collect()
    }

    /// Bytes of all arguments.
    pub fn argv_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn memory(&self) -> usize {
        self.commands.capacity() * size_of::<Queued>()
            + self.ends.capacity() * size_of::<usize>()
            + self.bytes.capacity()
    }
}

/// A key that a client watches.
pub struct WatchedKey {
    pub db: u32,
    pub key: Box<[u8]>,
}

/// A client that watches a key.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub client: ClientRef,
    /// The key had expired already when WATCH was called: its deletion does not touch.
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
    /// WAIT.
    Wait,
    WaitAof,
    /// SHUTDOWN waits for replicas.
    Shutdown,
}

/// What a blocked client waits for, see `execute::blocked`.
pub struct Blocked {
    pub kind: BlockKind,
    /// Unix time in milliseconds, 0 for never.
    pub deadline_ms: i64,
    /// Its place among all who wait.
    pub ticket: u64,
    pub keys: Vec<Box<[u8]>>,
    /// The command, to be run again on wake-up.
    pub argv: OwnedArgv,
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
    pub timeouts: std::collections::BTreeSet<(i64, crate::client::ClientRef)>,
    /// The deadline for which the event loop's timer is set; 0 if it is not.
    pub alarm_ms: i64,
    /// Clients that may go on: their buffered requests run before the loop sleeps.
    pub unblocked: VecDeque<crate::client::ClientRef>,
    /// Clients held back by CLIENT PAUSE.
    pub postponed: VecDeque<crate::client::ClientRef>,
    /// Clients in WAITAOF, and some that were.
    pub waiting_aof: Vec<crate::client::ClientRef>,
    /// Keys with clients that want to hear of their deletion.
    pub on_nokey: usize,
    /// The ticket of the last client that began to wait.
    pub last_ticket: u64,
    /// Waiting clients are being served: what that makes ready waits in `ready_keys`.
    pub serving: bool,
    /// While a waiting client's command runs again: its ticket and its deadline, should it wait on.
    pub place: Option<(u64, i64)>,
}

/// Who holds clients back. Pauses for different purposes are independent of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PausePurpose {
    /// CLIENT PAUSE
    Client,
    /// SHUTDOWN waits for replicas.
    Shutdown,
    /// FAILOVER, and CLUSTER FAILOVER.
    Failover,
}

/// Clients that are held back, by purpose. While anybody is, nothing expires and nothing is evicted, so that
/// the data set stands still.
#[derive(Default)]
pub struct Pause {
    purposes: [Paused; 3],
}

#[derive(Clone, Copy, Default)]
struct Paused {
    /// Unix time in milliseconds, 0 for no pause.
    until_ms: i64,
    /// All commands wait, not only those that write.
    all: bool,
}

impl Pause {
    /// Hold back until then. A pause for the same purpose that runs already can only become longer and
    /// stricter.
    pub fn set(&mut self, purpose: PausePurpose, until_ms: i64, all: bool) {
        let paused = &mut self.purposes[purpose as usize];
        paused.until_ms = paused.until_ms.max(until_ms);
        paused.all |= all;
    }

    pub fn clear(&mut self, purpose: PausePurpose) {
        self.purposes[purpose as usize] = Paused::default();
    }

    /// Forget the pauses that are over.
    pub fn expire(&mut self, now_ms: i64) {
        self.purposes
            .iter_mut()
            .filter(|p| p.until_ms <= now_ms)
            .for_each(|p| *p = Paused::default());
    }

    /// Some pause has been set and was not forgotten yet.
    pub fn is_set(&self) -> bool {
        self.purposes.iter().any(|p| p.until_ms > 0)
    }

    /// All commands wait.
    pub fn holds_all(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.all && p.until_ms > now_ms)
    }

    /// At least the commands that write wait.
    pub fn holds_writes(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.until_ms > now_ms)
    }

    /// The purpose that lasts longest and its end: what INFO tells.
    pub fn longest(&self, now_ms: i64) -> Option<(PausePurpose, i64)> {
        [
            PausePurpose::Client,
            PausePurpose::Shutdown,
            PausePurpose::Failover,
        ]
        .into_iter()
        .map(|purpose| (purpose, self.purposes[purpose as usize].until_ms))
        .filter(|&(_, until_ms)| until_ms > now_ms)
        .max_by_key(|&(_, until_ms)| until_ms)
    }
}
