//! Creates a server from its settings.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use ae::EventLoop;
use std::time::Duration;

use crate::acl::Acl;
use crate::armed;
use crate::client::table::Net;
use crate::clock::Clock;
use crate::command::table::CommandTable;
use crate::commands;
use crate::config::{Choice, Config, Teach};
use crate::data_set::DataSet;
use crate::db::kvstore::KeyHasher;
use crate::ds::seeded;
use crate::ds::siphash::HashSeed;
use crate::keyspace::evict::Eviction;
use crate::member::{self, Member};
use crate::networking::{accept, http, slots};
use crate::observe::hotkeys::HotKeys;
use crate::observe::trace::Trace;
use crate::replication::Replication;
use crate::server::busy;
use crate::server::run_info::RunInfo;
use crate::server::{before_sleep, cron, jobs, record, trace};
use crate::state::Server;
use crate::sync::snapshot::HOOKS;
use crate::sys;
use crate::sys::tape::{self, Input};
use crate::tracking::Tracking;
use crate::util::random::Random;

/// The number of file descriptors that are kept free of clients, for the log, listeners, the AOF,
/// children's pipes.
pub const RESERVED_FDS: usize = 32;
/// The number of file descriptors that are kept free of clients with these settings.
pub fn reserved_fds(config: &Config) -> usize {
    match config.monitor_port {
        0 => RESERVED_FDS,
        _ => RESERVED_FDS + http::VISITS,
    }
}

/// The number of fds of the event loop beside those of clients: sockets that are about to be
/// refused, links, children.
const LOOP_INCREMENT: usize = RESERVED_FDS + http::VISITS + 96;

/// The number of fds that the loop needs for `maxclients`.
pub fn event_loop_size(config: &Config) -> usize {
    config.maxclients as usize + LOOP_INCREMENT
}

/// The number of databases.
fn database_count(config: &Config) -> u32 {
    match config.cluster_enabled {
        true => config.cluster_databases,
        false => config.databases,
    }
}

/// The maximum number of bytes of one client's requests in one turn: some thousands of commands.
const TURN_BUDGET: usize = 256 * 1024;

/// Creates the command table, and an ACL with the default user alone, whose password comes from the
/// settings.
fn commands_and_acl(config: &Config) -> (CommandTable, Acl) {
    let commands = commands::table();
    let terms = Acl::terms(&commands, config);
    let mut acl = Acl::new(&terms);
    acl.set_default_password(&terms, &config.requirepass);
    (commands, acl)
}

impl Server {
    /// A server without sockets, also for tests and tools.
    pub fn new(config: Config, argv: Vec<String>) -> Server {
        let (clock, mut rng) = (Clock::start(), generator());
        let (seed, databases) = (seed_of(&config, &mut rng), database_count(&config));
        let key_hasher = KeyHasher::new(seed, config.cluster_enabled);
        let (commands, acl) = commands_and_acl(&config);
        let mut server = Server {
            data: DataSet::new(databases, key_hasher),
            key_clients: (0..databases).map(|_| Default::default()).collect(),
            net: Net::new(),
            visits: Default::default(),
            turns: (config.monitor_port != 0).then(Default::default),
            handshakes: Default::default(),
            tls: Default::default(),
            links: Default::default(),
            primary_link: Default::default(),
            slot_links: Default::default(),
            migrations: Default::default(),
            stats: Default::default(),
            acl,
            commands,
            pubsub: Default::default(),
            scripting: Default::default(),
            event_loop: Default::default(),
            blocked: Default::default(),
            pause: Default::default(),
            propagation: Default::default(),
            gate: Default::default(),
            replication: Replication::new(rng.hex(40)),
            cluster: Member::of(&config, &mut rng),
            bus: Default::default(),
            commandlog: Default::default(),
            bigkeys: None,
            defrag: Default::default(),
            latency: Default::default(),
            hotkeys: HotKeys::new(rng.next_u64()),
            trace: Trace::new(&before_sleep::STEPS, jobs::names()),
            lazyfree: sys::lazyfree::LazyFree::start(),
            child: None,
            forks: Default::default(),
            aof: Default::default(),
            rdb: Default::default(),
            memory: sys::allocator::ThreadCounters::of_this_thread(),
            shutdown: Default::default(),
            schedule: Default::default(),
            process: Default::default(),
            in_flight: Default::default(),
            evict: Eviction::new(rng.next_u64()),
            run: RunInfo::new(&mut rng, argv, clock.now_ms),
            debug: Default::default(),
            dirty: 0,
            last_save_s: clock.now_s(),
            notify_flags: 0,
            tracking: Tracking::new(seed),
            hashes: Default::default(),
            seed,
            key_hasher,
            armed: 0,
            nesting: 0,
            turn_depth: 0,
            loading: Default::default(),
            load: Default::default(),
            touched: Vec::new(),
            expire_next_db: 0,
            rng,
            clock,
            config,
        };
        server.configure();
        server
    }

    /// Applies the settings to everything that depends on them.
    pub fn configure(&mut self) {
        self.forks.replication = Some(HOOKS);
        self.forks.slots = Some(slots::HOOKS);
        self.evict.configure(&self.config);
        self.stats.words = self.config.words();
        self.notify_flags = self.config.notify_keyspace_events.0;
        self.latency.tracking = self.config.latency_tracking;
        self.latency.threshold_ms = self.config.latency_monitor_threshold;
        self.commandlog.configure(&self.config, &self.clock);
        self.hotkeys
            .configure(&self.config, &self.stats, self.clock.now_ms);
        self.follow_bigkeys_setting();
        self.follow_slot_stats_setting();
        self.follow_trace_settings();
        self.follow_unsynced();
        member::follow_settings(self);
        self.data.configure(&self.config);
        self.update_armed();
    }

    /// Recomputes the bits of `armed`: the features that must check every command now.
    pub fn update_armed(&mut self) {
        self.armed = [
            (!self.net.monitors.is_empty(), armed::MONITOR),
            (self.propagation.wanted(), armed::PROPAGATE),
            (self.tracking.is_on(), armed::TRACKING),
            (self.pause.is_set(), armed::PAUSED),
            (self.acl.limits_a_user(), armed::ACL),
            (self.bigkeys.is_some(), armed::BIGKEYS),
            (self.tracks_unsynced(), armed::UNSYNCED),
            (self.replication.is_replica(), armed::REPLICA),
            (self.config.cluster_enabled, armed::CLUSTER | armed::ROUTE),
            (self.stats.slots.is_some(), armed::SLOT_STATS),
            (self.trace.is_on(), armed::TRACE),
            (
                self.config.import_mode && !self.replication.is_replica(),
                armed::IMPORT,
            ),
            (self.evict.policy.is_lrm(), armed::LRM),
            (self.imports_slots(), armed::SLOT_IMPORTS),
            (self.debug.assert_lengths, armed::ASSERT_LENGTHS),
        ]
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |bits, (_, bit)| bits | bit);
    }

    /// Whether this node imports slots from another node.
    fn imports_slots(&self) -> bool {
        let member = self.cluster.as_ref();
        member.is_some_and(|member| member.transfers.imports().next().is_some())
    }

    /// The used memory in bytes, see `sys::allocator`.
    pub fn used_memory(&self) -> usize {
        let used = || self.memory.as_ref().map_or(0, |counters| counters.used());
        tape::number(Input::Memory, || used() as u64) as usize
    }

    /// The used memory in bytes, without the bytes that the background thread has already freed of
    /// its present job.
    pub fn used_memory_now(&self) -> usize {
        let used = self.used_memory() as i64 + self.lazyfree.unpublished();
        usize::try_from(used).unwrap_or(0)
    }

    /// The bytes that count for `maxmemory`.
    pub fn memory_counted(&self) -> usize {
        self.used_memory().saturating_sub(self.memory_not_counted())
    }

    /// The memory of buffers, which eviction could not free.
    pub fn memory_not_counted(&self) -> usize {
        self.aof.feed.memory()
            + self.replication.stream.memory_beyond_backlog()
            + self.propagation.exports.memory()
    }
}

/// The secret key of the hash function of keys: made of the setting `hash-seed`, or random.
fn seed_of(config: &Config, rng: &mut Random) -> HashSeed {
    let seed = match config.hash_seed.is_empty() {
        true => HashSeed::new([rng.next_u64(), rng.next_u64()]),
        false => HashSeed::of_text(config.hash_seed.as_bytes()),
    };
    // Hash maps of the standard library use the same seed.
    seeded::set_seed(seed);
    seed
}

impl RunInfo {
    fn new(rng: &mut Random, argv: Vec<String>, start_ms: i64) -> RunInfo {
        RunInfo {
            run_id: rng.hex(40),
            pid: tape::number(Input::Fact, || std::process::id().into()) as u32,
            executable: executable(),
            argv,
            start_ms,
            startup_memory: 0,
        }
    }
}

/// The generator of all random numbers except secrets.
fn generator() -> Random {
    Random::from_seed(tape::number(Input::Seed, Random::system_seed))
}

fn executable() -> PathBuf {
    let path = tape::text(|| {
        let path = std::env::current_exe().unwrap_or_default();
        path.into_os_string().into_vec()
    });
    OsString::from_vec(path).into()
}

/// Creates the event loop, with the server's timer and hooks; the loop watches the listening
/// sockets.
pub fn event_loop(server: &mut Server) -> io::Result<EventLoop<Server>> {
    let mut el = EventLoop::new(event_loop_size(&server.config))?;
    record::tap(&mut el);
    server.trace.follow_tape();
    el.set_budget(TURN_BUDGET);
    server.event_loop.turns = Some(busy::nested_turns);
    if server.config.teach != Teach::No {
        let name = server.config.teach.name();
        log::warn!("teach {name}: this server has a fault on purpose, and is not for production.");
    }
    match server.config.teach {
        Teach::NoBudget => el.set_budget(usize::MAX),
        Teach::SlowCommand => server.event_loop.turns = None,
        Teach::RehashAtOnce => server.follow_resize_policy(),
        Teach::SampledExpiry => server.debug.no_active_expire = true,
        // The remaining modes of `teach` are checked by the code that they change, off the fast
        // path.
        _ => {}
    }
    accept::watch_listeners(&mut el, server)?;
    el.set_before_sleep(Some(before_sleep::before_sleep));
    el.set_after_sleep(Some(before_sleep::after_sleep));
    server.start_trace_out();
    trace::set_observer(&mut el, server);
    el.add_timer(Duration::from_millis(1), 0, cron::server_cron);
    server.run.startup_memory = server.used_memory();
    Ok(el)
}
