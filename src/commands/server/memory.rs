//! MEMORY: the memory of keys and of the server; `observe::memory_report` computes the figures.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::memory_report::{Census, Report, doctor, excess, ratio};
use crate::sys::allocator;
use crate::types;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("memory", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd("doctor", memory_doctor, 2, NONE, NONE_CAT).tips(SPECIAL),
    cmd("help", memory_help, 2, LOADING | STALE, NONE_CAT),
    cmd("malloc-stats", memory_malloc_stats, 2, LOADING, NONE_CAT).tips(SPECIAL),
    cmd("purge", memory_purge, 2, LOADING, NONE_CAT)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    cmd("stats", memory_stats, 2, NONE, NONE_CAT).tips(SPECIAL),
    cmd("usage", memory_usage, -3, READONLY, NONE_CAT).keys(&[key_at(2, RO)]),
])];

const SPECIAL: &[&str] = &[
    "nondeterministic_output",
    "request_policy:all_shards",
    "response_policy:special",
];

/// MEMORY USAGE key [SAMPLES count]
///
/// SAMPLES limits the measured elements of sets and hashes that are hash tables; the sizes of other
/// values are stored or computed from all elements. SAMPLES 0 measures all elements.
fn memory_usage(ctx: &mut Ctx) -> CmdResult {
    let mut samples = types::SAMPLES;
    for at in (3..ctx.argv.len()).step_by(2) {
        if !ctx.is(at, "samples") || at + 1 == ctx.argv.len() {
            return Err(Error::SYNTAX);
        }
        samples = usize::try_from(ctx.int(at + 1)?).map_err(|_| Error::SYNTAX)?;
    }
    match ctx.server.lookup_no_touch(ctx.client, ctx.argv[2]) {
        None => ctx.client.reply.null(),
        Some(entry) => ctx
            .client
            .reply
            .integer(types::memory_bytes(entry, samples) as i64),
    }
    Ok(())
}

fn report(ctx: &mut Ctx) -> Report {
    ctx.server.note_peak_memory();
    let census = Census::take(ctx.server, ctx.client);
    Report::make(ctx.server, &census)
}

/// MEMORY STATS
fn memory_stats(ctx: &mut Ctx) -> CmdResult {
    let report = report(ctx);
    let backlog = ctx.server.replication.stream.memory_for_backlog();
    let reply = &mut ctx.client.reply;
    let deferred = reply.begin_deferred();
    let mut fields = Fields { reply, count: 0 };
    fields.server(&report, backlog);
    fields.keyspace(&report);
    fields.allocator(&report);
    let count = fields.count;
    reply.end_map(deferred, count);
    Ok(())
}

/// The map in the reply of MEMORY STATS, to which fields are appended.
struct Fields<'a> {
    reply: &'a mut ReplyBuf,
    count: usize,
}

impl Fields<'_> {
    fn name(&mut self, name: &str) {
        self.reply.bulk(name.as_bytes());
        self.count += 1;
    }

    fn bytes(&mut self, name: &str, bytes: usize) {
        self.name(name);
        self.reply.integer(bytes as i64);
    }

    /// Writes a ratio as a 32-bit floating-point number, as Redis does.
    fn ratio(&mut self, name: &str, ratio: f64) {
        self.name(name);
        self.reply.double(ratio as f32 as f64);
    }

    /// Writes the excess of one figure over another, as a ratio and in bytes.
    fn excess(&mut self, name: &str, separator: &str, more: usize, less: usize) {
        self.ratio(&format!("{name}{separator}"), ratio(more, less));
        self.name(&format!("{name}.bytes"));
        self.reply.integer(excess(more, less));
    }

    fn server(&mut self, report: &Report, backlog: usize) {
        self.bytes("peak.allocated", report.peak);
        self.bytes("total.allocated", report.used);
        self.bytes("startup.allocated", report.startup);
        self.bytes("replication.backlog", backlog);
        self.bytes("clients.slaves", report.replicas);
        self.bytes("clients.normal", report.clients);
        self.bytes("cluster.links", report.cluster_links);
        self.bytes("aof.buffer", report.aof_buffer);
        self.bytes("lua.caches", report.scripts);
        self.bytes("functions.caches", report.functions);
    }

    fn keyspace(&mut self, report: &Report) {
        for db in &report.dbs {
            self.name(&format!("db.{}", db.index));
            self.reply.map(2);
            self.reply.bulk(b"overhead.hashtable.main");
            self.reply.integer(db.main as i64);
            self.reply.bulk(b"overhead.hashtable.expires");
            self.reply.integer(db.expires as i64);
        }
        self.bytes("overhead.db.hashtable.lut", report.tables);
        self.bytes("overhead.db.hashtable.rehashing", report.rehashing);
        self.bytes("overhead.total", report.overhead);
        self.bytes("db.dict.rehashing.count", report.rehashing_count);
        self.bytes("keys.count", report.keys);
        self.bytes("keys.bytes-per-key", report.bytes_per_key());
        self.bytes("dataset.bytes", report.dataset());
        self.ratio("dataset.percentage", report.dataset_percent());
        self.ratio("peak.percentage", report.peak_percent());
    }

    fn allocator(&mut self, report: &Report) {
        let allocator::AllocatorStats {
            allocated,
            active,
            resident,
            muzzy,
            ..
        } = report.allocator;
        self.bytes("allocator.allocated", allocated);
        self.bytes("allocator.active", active);
        self.bytes("allocator.resident", resident);
        self.bytes("allocator.muzzy", muzzy);
        self.excess("allocator-fragmentation", ".ratio", active, allocated);
        self.excess("allocator-rss", ".ratio", resident, active);
        self.excess("rss-overhead", ".ratio", report.rss, resident);
        self.excess("fragmentation", "", report.rss, report.used);
    }
}

/// MEMORY DOCTOR
fn memory_doctor(ctx: &mut Ctx) -> CmdResult {
    let report = report(ctx);
    let text = doctor(ctx.server, &report);
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// MEMORY MALLOC-STATS
fn memory_malloc_stats(ctx: &mut Ctx) -> CmdResult {
    ctx.client
        .reply
        .verbatim(b"txt", &allocator::allocator_report());
    Ok(())
}

/// MEMORY PURGE
fn memory_purge(ctx: &mut Ctx) -> CmdResult {
    allocator::purge();
    ctx.client.reply.ok();
    Ok(())
}

/// MEMORY HELP
fn memory_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
