//! The figures of INFO memory, MEMORY STATS and MEMORY DOCTOR.
//!
//! ```text
//!   rss      what the system gave the process
//!     resident     what jemalloc holds of it        rss / resident:      code, stacks, libraries
//!       active       pages with something in them   resident / active:   pages kept for later
//!         allocated    what was asked for           active / allocated:  holes between allocations
//!           used         = overhead + dataset
//!             overhead     = startup + clients + tables of the keyspace + buffer of the AOF
//! ```
//!
//! `used` comes from this thread's own counters (`sys::allocator`) and costs nothing; the
//! allocator's figures and the walk over the clients are computed when a report is requested.

use crate::client::{Client, flag};
use crate::config::ClientClass;
use crate::db::{Db, KeyClients};
use crate::state::Server;
use crate::sys::allocator;
use crate::sys::allocator::AllocatorStats;
use crate::sys::mover;
use crate::util::byte_size::format_bytes_human;

/// The numbers and the memory of the connected clients, found by one walk over the client table.
#[derive(Default)]
pub struct Census {
    /// The bytes of the clients of each [`ClientClass`].
    pub memory: [usize; 3],
    pub replicas: usize,
    pub tracking: usize,
    pub pubsub: usize,
    pub watching: usize,
    pub max_input: usize,
    pub max_output: usize,
}

impl Census {
    /// Walks over the client table. `running` is the client whose command asks for the report: this
    /// client is out of its slot in the table while its command runs.
    pub fn take(server: &Server, running: &Client) -> Census {
        let mut census = Census::default();
        let running = (!running.is_detached()).then_some(running);
        for c in server.net.clients.iter().chain(running) {
            census.memory[c.class() as usize] += c.memory();
            census.replicas += c.has(flag::REPLICA) as usize;
            census.tracking += c.has(flag::TRACKING) as usize;
            census.pubsub += c.pubsub.as_ref().is_some_and(|p| !p.is_empty()) as usize;
            census.watching += !c.watched.is_empty() as usize;
            census.max_input = census.max_input.max(c.querybuf_peak.max(c.querybuf.len()));
            census.max_output = census.max_output.max(c.reply.bytes());
        }
        census
    }

    /// The bytes of all clients that are not replicas.
    pub fn clients(&self) -> usize {
        self.memory[ClientClass::Normal as usize] + self.memory[ClientClass::Pubsub as usize]
    }

    /// The bytes of the clients that are replicas.
    pub fn replicas(&self) -> usize {
        self.memory[ClientClass::Replica as usize]
    }
}

/// The memory of a database's two tables: keys and times to live.
pub struct DbTables {
    pub index: u32,
    /// The bytes of the table of keys.
    pub main: usize,
    /// The bytes of the index of times to live.
    pub expires: usize,
}

/// The figures of INFO memory and MEMORY STATS; memory is in bytes.
pub struct Report {
    pub used: usize,
    pub peak: usize,
    pub rss: usize,
    pub startup: usize,
    pub overhead: usize,
    pub clients: usize,
    /// The bytes of the replication stream beyond the backlog, which wait for replicas.
    pub replicas: usize,
    /// The bytes that wait to be written to the AOF.
    pub aof_buffer: usize,
    /// The bytes of the links to other nodes of the cluster, with their unsent packets.
    pub cluster_links: usize,
    /// The bytes of the Lua interpreter of EVAL and of the cache of its scripts.
    pub scripts: usize,
    /// The bytes of the Lua interpreter of functions and of the libraries.
    pub functions: usize,
    pub dbs: Vec<DbTables>,
    /// The bytes of the tables of keys of all databases.
    pub tables: usize,
    pub rehashing: usize,
    pub rehashing_count: usize,
    pub keys: usize,
    pub allocator: AllocatorStats,
}

impl Report {
    /// Computes the report at this moment.
    pub fn make(server: &Server, census: &Census) -> Report {
        let mut report = Report {
            used: server.used_memory_now(),
            peak: server.stats.peak_memory,
            rss: allocator::resident_bytes(),
            startup: server.run.startup_memory,
            overhead: server.run.startup_memory
                + census.clients()
                + census.replicas()
                + server.replication.stream.memory()
                + server.aof.feed.memory()
                + cluster_links(server)
                + server.net.buffers_memory()
                + server.net.clients.table_memory()
                + tables_of_clients(server)
                + server.commands.latency_memory()
                + scripts(server)
                + functions(server)
                + server.hotkeys.memory()
                + server.trace.memory()
                + server.bigkeys.as_ref().map_or(0, |big| big.memory()),
            clients: census.clients(),
            replicas: server.replication.stream.memory_for_replicas(),
            aof_buffer: server.aof.feed.memory(),
            cluster_links: cluster_links(server),
            scripts: scripts(server),
            functions: functions(server),
            dbs: Vec::new(),
            tables: 0,
            rehashing: 0,
            rehashing_count: 0,
            keys: 0,
            allocator: allocator::allocator_stats(),
        };
        report.peak = report.peak.max(report.used);
        server.data.dbs.iter().for_each(|db| report.add_db(db));
        report
    }

    fn add_db(&mut self, db: &Db) {
        let main = db.keys.memory_bytes();
        if let Some(bytes) = db.keys.rehashing_bytes() {
            self.rehashing_count += 1;
            self.rehashing += bytes;
        }
        self.tables += main;
        self.keys += db.len();
        if main > 0 {
            let tables = DbTables {
                index: db.index,
                main,
                expires: db.expires.memory_bytes(),
            };
            self.overhead += tables.main + tables.expires;
            self.dbs.push(tables);
        }
    }

    /// The bytes of the data set itself, which are the used memory without the overhead.
    pub fn dataset(&self) -> usize {
        self.used.saturating_sub(self.overhead)
    }

    /// The data set's percentage of the memory that was allocated after the start.
    pub fn dataset_percent(&self) -> f64 {
        percent(self.dataset(), self.used.saturating_sub(self.startup))
    }

    /// The used memory as a percentage of its peak.
    pub fn peak_percent(&self) -> f64 {
        percent(self.used, self.peak)
    }

    /// The average number of bytes for each key.
    pub fn bytes_per_key(&self) -> usize {
        self.used
            .saturating_sub(self.startup)
            .checked_div(self.keys)
            .unwrap_or(0)
    }
}

fn cluster_links(server: &Server) -> usize {
    let unsent = server.cluster.as_ref().map_or(0, |member| member.unsent());
    server.bus.memory() + unsent
}

/// The bytes of the tables of blocked clients, watched keys, subscriptions and timeouts.
fn tables_of_clients(server: &Server) -> usize {
    let keys = server.key_clients.iter().map(KeyClients::memory_bytes);
    server.pubsub.memory_bytes() + keys.sum::<usize>() + server.blocked.timeouts_memory()
}

fn scripts(server: &Server) -> usize {
    server.scripting.eval_memory() + server.scripting.cache_memory()
}

fn functions(server: &Server) -> usize {
    let functions = &server.data.functions;
    functions.engine_memory() + functions.all.memory()
}

/// The ratio `part / whole`, or 0 if `whole` is 0.
pub fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    ratio(part, whole) * 100.0
}

/// The difference `more - less`, which may be negative, since the allocator's figures are not read
/// at the same moment.
pub fn excess(more: usize, less: usize) -> i64 {
    more as i64 - less as i64
}

/// The number of used bytes below which MEMORY DOCTOR does not diagnose.
const DOCTOR_MIN: usize = 5 << 20;
const TEN_MB: i64 = 10 << 20;

/// MEMORY DOCTOR: the figures that are out of proportion, and what to do about them.
pub fn doctor(server: &Server, report: &Report) -> String {
    if report.used < DOCTOR_MIN {
        return "This instance is empty or holds very little: there is nothing to diagnose. Ask again when \
                it has some data.\n"
            .into();
    }
    let findings = findings(server, report);
    if findings.is_empty() {
        return "No memory problem was found in this instance.\n".into();
    }
    let mut out = String::from("Memory problems were found in this instance:\n\n");
    for finding in findings {
        let advice = match finding == FRAGMENTED {
            true => defragmentation_advice(server, report),
            false => String::new(),
        };
        out.push_str(&format!(" * {finding}{advice}\n\n"));
    }
    out
}

const FRAGMENTED: &str = "High allocator fragmentation: more than a tenth of the pages in use are holes between \
                          allocations. That comes with a data set whose values changed their sizes much.";

/// The memory that defragmentation could free, and how to start it.
fn defragmentation_advice(server: &Server, report: &Report) -> String {
    let AllocatorStats {
        allocated, active, ..
    } = report.allocator;
    let holes = format_bytes_human(active.saturating_sub(allocated) as u64);
    let percent = 100.0 * (ratio(active, allocated) - 1.0);
    let what = match server.config.activedefrag {
        _ if !mover::AVAILABLE => "Reloading it, or a failover to a replica, packs it anew.",
        true => "Active defragmentation is on and closes them, as its settings allow.",
        false => "CONFIG SET activedefrag yes moves the values together while the server runs.",
    };
    format!(" The holes have {holes}, {percent:.0} % of what is allocated. {what}")
}

fn findings(server: &Server, report: &Report) -> Vec<&'static str> {
    let AllocatorStats {
        allocated,
        active,
        resident,
        ..
    } = report.allocator;
    let wasted = |more, less, limit| ratio(more, less) > limit && excess(more, less) > TEN_MB;
    let clients = server.net.clients.len().max(1);
    let checks = [
        (
            ratio(report.peak, report.used) > 1.5,
            "Peak memory: there was a time when more than 1.5 times as much was in use as now. Pages that \
             were needed then may still be resident, so that the fragmentation ratio looks worse than it is. \
             MEMORY PURGE gives them back, and new data fills them.",
        ),
        (
            wasted(report.rss, report.used, 1.4),
            "High total RSS: the process holds 1.4 times what is in use. This has several causes, from holes \
             between allocations to freed pages that the allocator keeps; the findings below tell which.",
        ),
        (wasted(active, allocated, 1.1), FRAGMENTED),
        (
            wasted(resident, active, 1.1),
            "High allocator RSS overhead: the allocator keeps freed pages for later. They go back to the \
             system after a while, or at once with MEMORY PURGE.",
        ),
        (
            wasted(report.rss, resident, 1.1),
            "High process RSS overhead: much of what is resident was not asked for through the allocator: \
             code, libraries, thread stacks, scripts.",
        ),
        (
            report.clients / clients > 200 * 1024,
            "Big client buffers: clients hold more than 200 KB each on average. Subscribers that read \
             slowly and pipelines with large replies do this; CLIENT LIST shows whose 'omem' and 'qbuf' are \
             large.",
        ),
        (
            report.replicas > 10 << 20,
            "Big replica buffers: more than 10 MB wait to be sent to replicas. They or the network are too \
             slow for the writes.",
        ),
    ];
    checks
        .into_iter()
        .filter(|(found, _)| *found)
        .map(|(_, text)| text)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(used: usize, peak: usize) -> Report {
        let server = Server::new(crate::config::Config::default(), Vec::new());
        let mut report = Report::make(&server, &Census::default());
        (report.used, report.peak, report.startup, report.overhead) = (used, peak, 100, 150);
        (report.rss, report.allocator) = (used, AllocatorStats::default());
        report
    }

    #[test]
    fn shares_add_up() {
        let mut r = report(300, 600);
        r.keys = 4;
        assert_eq!((r.dataset(), r.bytes_per_key()), (150, 50));
        assert_eq!((r.dataset_percent(), r.peak_percent()), (75.0, 50.0));
        assert_eq!((ratio(1, 0), excess(1, 3)), (0.0, -2));
    }

    #[test]
    fn the_doctor_names_what_is_out_of_proportion() {
        let server = Server::new(crate::config::Config::default(), Vec::new());
        assert!(doctor(&server, &report(1000, 1000)).contains("nothing to diagnose"));
        assert!(doctor(&server, &report(100 << 20, 100 << 20)).contains("No memory problem"));
        let mut sick = report(100 << 20, 200 << 20);
        sick.rss = 300 << 20;
        let text = doctor(&server, &sick);
        assert!(text.contains("Peak memory:") && text.contains("High total RSS:"));
        assert!(!text.contains("Big client buffers:"));
        (sick.allocator.allocated, sick.allocator.active) = (100 << 20, 150 << 20);
        let text = doctor(&server, &sick);
        assert!(
            text.contains("The holes have 50.00M, 50 % of what is allocated."),
            "{text}"
        );
        assert_eq!(
            text.contains("CONFIG SET activedefrag yes"),
            mover::AVAILABLE
        );
    }
}
