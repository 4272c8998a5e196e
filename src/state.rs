//! `struct Server`: all state of the server, owned in one place and passed as `&mut`. The struct
//! has no methods here: its operations are in the modules that the fields are named after.
//!
//! This file may import every module, and every module may import `Server` from it; all other
//! imports follow the order of modules (`tests/tidy.rs`).

use crate::acl::Acl;
use crate::client::Client;
use crate::client::ClientRef;
use crate::client::table::Net;
use crate::clock::Clock;
use crate::command::table::CommandTable;
use crate::commands::server::debug::switches::DebugSwitches;
use crate::config::Config;
use crate::connection::tls::Current;
use crate::data_set::DataSet;
use crate::db::KeyClients;
use crate::db::kvstore::KeyHasher;
use crate::ds::siphash::HashSeed;
use crate::execute::blocked::BlockedClients;
use crate::execute::busy::LentLoop;
use crate::execute::pause::Pause;
use crate::keyspace::evict::Eviction;
use crate::keyspace::hash_memo::HashMemo;
use crate::member::Member;
use crate::networking::bus::Bus;
use crate::networking::handshakes::Handshakes;
use crate::networking::http::Visits;
use crate::networking::link::Links;
use crate::networking::migrate::Migrations;
use crate::networking::primary::PrimaryLink;
use crate::networking::slots::SlotLinks;
use crate::observe::bigkeys::BigKeys;
use crate::observe::commandlog::CommandLogs;
use crate::observe::hotkeys::HotKeys;
use crate::observe::latency::Latency;
use crate::observe::stats::Stats;
use crate::observe::trace::Trace;
use crate::observe::turns::Turns;
use crate::persist::aof::Aof;
use crate::persist::child::{Child, Forks};
use crate::persist::loading::{Loading, Progress};
use crate::persist::rdb::Rdb;
use crate::propagate::Propagation;
use crate::propagate::gate::Gate;
use crate::pubsub::PubSub;
use crate::replication::Replication;
use crate::script::Scripting;
use crate::server::defrag::Defrag;
use crate::server::jobs::Schedule;
use crate::server::run_info::{ProcessState, RunInfo};
use crate::server::shutdown::Shutdown;
use crate::sys::allocator::ThreadCounters;
use crate::sys::crash::InFlight;
use crate::sys::lazyfree::LazyFree;
use crate::tracking::Tracking;
use crate::util::random::Random;

/// All state of the server. The main thread owns the server; a command borrows the server together
/// with its client.
pub struct Server {
    // The fields of settings, time and random numbers.
    pub config: Config,
    pub clock: Clock,
    pub rng: Random,
    pub run: RunInfo,
    pub process: ProcessState,
    /// When each job of the cron is due.
    pub schedule: Schedule,
    pub debug: DebugSwitches,

    // The fields of the data set.
    pub data: DataSet,
    /// For each database, the clients that wait for its keys or watch them.
    pub key_clients: Vec<KeyClients>,
    /// The secret key of the hash function of keys, drawn at start.
    pub seed: HashSeed,
    /// The hash function of keys; on a cluster node a hash contains the slot.
    pub key_hasher: KeyHasher,
    /// The number of changes since the last save.
    pub dirty: u64,
    pub evict: Eviction,
    /// The index of the database at which active expiry continues.
    pub expire_next_db: u32,
    /// The classes of keyspace events that are published, see `keyspace::events`.
    pub notify_flags: u32,
    /// Clients that ran a command while one of their watched keys changed, see `keyspace::watch`.
    pub touched: Vec<ClientRef>,
    pub lazyfree: LazyFree,

    // The fields of clients and of what they wait for.
    pub net: Net,
    /// Connections whose TLS handshake is not finished.
    pub handshakes: Handshakes,
    /// The certificates and private keys of TLS.
    pub tls: Current,
    /// The connections of the monitor port.
    pub visits: Visits,
    /// The figures of the last turns, while the monitor port is open.
    pub turns: Option<Box<Turns>>,
    /// The outgoing connections to other servers.
    pub links: Links,
    /// The sockets of the link to the primary.
    pub primary_link: PrimaryLink,
    /// The requests of MIGRATE that are in progress.
    pub migrations: Migrations,
    /// The connections over which slots of the cluster move to or from this node.
    pub slot_links: SlotLinks,
    pub blocked: BlockedClients,
    pub pause: Pause,
    pub pubsub: PubSub,
    pub tracking: Tracking,
    pub acl: Acl,
    /// The event loop, lent to long commands and to loads, which let it serve other clients
    /// meanwhile.
    pub event_loop: LentLoop,

    // The fields of commands and of running them.
    pub commands: CommandTable,
    /// Bits of `crate::armed`: the features that must check every command.
    pub armed: u32,
    /// The depth of nested commands: EXEC and scripts.
    pub nesting: u32,
    /// The depth of nested turns of the event loop, see `keyspace::top_level`.
    pub turn_depth: u32,
    /// Hashes of keys, computed ahead for the commands that are about to run.
    pub hashes: HashMemo,
    pub scripting: Scripting,
    pub propagation: Propagation,
    /// Replies and stream bytes that wait for the AOF.
    pub gate: Gate,
    pub replication: Replication,
    /// The node of a cluster that this server is; `None` without cluster mode.
    pub cluster: Option<Box<Member>>,
    /// The connections of the cluster bus to other nodes.
    pub bus: Bus,
    /// The running command, for a crash report.
    pub in_flight: InFlight<Client>,

    // The fields of persistence.
    pub rdb: Rdb,
    pub aof: Aof,
    /// The child that saves or rewrites, if one runs.
    pub child: Option<Child>,
    pub forks: Forks,
    /// The Unix time of the last save in seconds; before the first save, the time of the start.
    pub last_save_s: i64,
    /// Whether a data set is being loaded, and whether into the server's data set or a separate
    /// one.
    pub loading: Loading,
    /// The progress of loading a data set, for INFO.
    pub load: Progress,
    pub shutdown: Shutdown,

    // The fields of observability.
    pub stats: Stats,
    pub commandlog: CommandLogs,
    pub latency: Latency,
    pub hotkeys: HotKeys,
    pub trace: Trace,
    pub defrag: Defrag,
    /// The tracker of the largest keys; `None` while `bigkeys-tracking` is off.
    pub bigkeys: Option<Box<BigKeys>>,
    /// The memory counters of the main thread; `None` if the allocator has no statistics.
    pub memory: Option<ThreadCounters>,
}
