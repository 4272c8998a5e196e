//! The section memory of INFO; `observe::memory_report` explains its figures.

use crate::config::Choice;
use crate::observe::memory_report::{Report as MemoryReport, excess, ratio};
use crate::state::Server;
use crate::sys::allocator as system;
use crate::util::byte_size::format_bytes_human;

use crate::commands::server::info::{Report, View};

/// Writes the section memory of INFO.
pub fn memory(view: &View, out: &mut Report) {
    let (server, report) = (view.server, MemoryReport::make(view.server, view.census()));
    out.bytes("used_memory", report.used);
    out.bytes("used_memory_rss", report.rss);
    out.bytes("used_memory_peak", report.peak);
    out.field(
        "used_memory_peak_perc",
        format_args!("{:.2}%", report.peak_percent()),
    );
    out.field("used_memory_overhead", report.overhead);
    out.field("used_memory_startup", report.startup);
    out.field("used_memory_dataset", report.dataset());
    out.field(
        "used_memory_dataset_perc",
        format_args!("{:.2}%", report.dataset_percent()),
    );
    out.field("allocator_allocated", report.allocator.allocated);
    out.field("allocator_active", report.allocator.active);
    out.field("allocator_resident", report.allocator.resident);
    out.field("allocator_muzzy", report.allocator.muzzy);
    out.bytes("total_system_memory", system::system_bytes());
    scripts(server, out);
    out.bytes("maxmemory", server.config.maxmemory as usize);
    out.field("maxmemory_policy", server.config.maxmemory_policy.name());
    fragmentation(&report, out);
    out.field("mem_not_counted_for_evict", server.memory_not_counted());
    let stream = &server.replication.stream;
    out.field("mem_replication_backlog", stream.memory_for_backlog());
    out.field("mem_total_replication_buffers", stream.memory());
    let upstream = server.replication.upstream.as_ref();
    let collected = upstream.map_or(0, |upstream| upstream.collected.bytes());
    out.field("mem_replicas_repl_buffer", collected);
    out.field("mem_replica_full_sync_buffer", collected);
    out.field("mem_clients_slaves", report.replicas);
    out.field("mem_clients_normal", report.clients);
    out.field("mem_cluster_links", report.cluster_links);
    out.field("mem_aof_buffer", report.aof_buffer);
    out.field("mem_allocator", system::allocator_name());
    out.field("mem_overhead_db_hashtable_rehashing", report.rehashing);
    out.field("active_defrag_running", server.defrag.cpu_percent());
    out.field("lazyfree_pending_objects", server.lazyfree.pending());
    out.field("lazyfreed_objects", server.lazyfree.freed());
}

/// The memory of the Lua interpreters and of the sources of scripts. An interpreter is created when
/// it is first needed, so its memory may be 0.
fn scripts(server: &Server, out: &mut Report) {
    let (scripting, functions) = (&server.scripting, &server.data.functions);
    let (eval, engine) = (scripting.eval_memory(), functions.engine_memory());
    let (cached, libraries) = (scripting.cache_memory(), functions.all.memory());
    out.field("used_memory_lua", eval);
    out.field("used_memory_vm_eval", eval);
    out.field("used_memory_lua_human", format_bytes_human(eval as u64));
    out.field("used_memory_scripts_eval", cached);
    out.field("number_of_cached_scripts", scripting.scripts.len());
    out.field("number_of_functions", functions.all.functions.len());
    out.field("number_of_libraries", functions.all.libraries.len());
    out.field("used_memory_vm_functions", engine);
    out.bytes("used_memory_vm_total", eval + engine);
    out.field("used_memory_functions", libraries);
    out.bytes("used_memory_scripts", cached + libraries);
}

fn fragmentation(report: &MemoryReport, out: &mut Report) {
    let allocator = &report.allocator;
    let mut pair = |ratio_name: &str, bytes_name: &str, more: usize, less: usize| {
        out.decimal(ratio_name, ratio(more, less), 2);
        out.field(bytes_name, excess(more, less));
    };
    let (allocated, active, resident) = (allocator.allocated, allocator.active, allocator.resident);
    pair(
        "allocator_frag_ratio",
        "allocator_frag_bytes",
        active,
        allocated,
    );
    pair(
        "allocator_rss_ratio",
        "allocator_rss_bytes",
        resident,
        active,
    );
    pair(
        "rss_overhead_ratio",
        "rss_overhead_bytes",
        report.rss,
        resident,
    );
    pair(
        "mem_fragmentation_ratio",
        "mem_fragmentation_bytes",
        report.rss,
        report.used,
    );
}
