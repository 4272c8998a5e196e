//! `/metrics`: the figures of INFO for a collector such as Prometheus.
//!
//! ```text
//!   Fields (INFO) ─┬─ SCALARS: one field, one metric
//!                  ├─ commands, errors, databases, replicas, the primary: a label for each
//!                  └─ histograms of latency ─> buckets, percentiles
//! ```
//!
//! The names and units of metrics are those of redis_exporter where redis_exporter has the metric,
//! so that its dashboards can be used; other names follow Prometheus' conventions: base units,
//! `_total` for counters. One label differs: the quantile of a summary is 0.99, as the format
//! demands; redis_exporter writes 99.
//!
//! In the text formats a histogram has the buckets of LATENCY HISTOGRAM, the powers of two. The
//! binary format has a native histogram too, with eight buckets for each power of two.

use super::exposition::{Exposition, Format, MetricKind};
use super::fields::{Fields, part};
use crate::state::Server;

use MetricKind::{Counter, Gauge};

/// A field of INFO that is one number, and the metric that it becomes.
struct Scalar {
    field: &'static str,
    name: &'static str,
    kind: MetricKind,
    /// The factor from the field's value to the metric's, such as 0.001 from milliseconds to
    /// seconds.
    scale: f64,
    help: &'static str,
}

const fn row(
    field: &'static str,
    name: &'static str,
    kind: MetricKind,
    scale: f64,
    help: &'static str,
) -> Scalar {
    Scalar {
        field,
        name,
        kind,
        scale,
        help,
    }
}

#[rustfmt::skip]
const SCALARS: &[Scalar] = &[
    // Fields of the section Server of INFO.
    row("uptime_in_seconds", "uptime_in_seconds", Gauge, 1.0, "Seconds since the start."),
    row("process_id", "process_id", Gauge, 1.0, "The process id."),
    row("hz", "hz", Gauge, 1.0, "Calls of the cron each second."),
    row("configured_hz", "configured_hz", Gauge, 1.0, "The setting hz."),
    // Fields of the section Clients of INFO.
    row("connected_clients", "connected_clients", Gauge, 1.0, "Connected clients, without replicas."),
    row("maxclients", "config_maxclients", Gauge, 1.0, "The setting maxclients."),
    row("blocked_clients", "blocked_clients", Gauge, 1.0, "Clients that wait in a blocking command."),
    row("tracking_clients", "tracking_clients", Gauge, 1.0, "Clients that track keys."),
    row("pubsub_clients", "pubsub_clients", Gauge, 1.0, "Clients that subscribe to channels or patterns."),
    row("watching_clients", "watching_clients", Gauge, 1.0, "Clients that watch keys."),
    row("client_recent_max_input_buffer", "client_recent_max_input_buffer_bytes", Gauge, 1.0, "The largest query buffer of late."),
    row("client_recent_max_output_buffer", "client_recent_max_output_buffer_bytes", Gauge, 1.0, "The largest reply buffer of late."),
    row("clients_in_timeout_table", "clients_in_timeout_table", Gauge, 1.0, "Clients that wait with a time-out."),
    row("cluster_connections", "cluster_connections", Gauge, 1.0, "Links to other nodes of the cluster."),
    row("io_threads_active", "io_threads_active", Gauge, 1.0, "Always 0: one thread serves all sockets."),
    // Fields of the section Memory of INFO.
    row("used_memory", "memory_used_bytes", Gauge, 1.0, "Bytes that the server has allocated."),
    row("used_memory_rss", "memory_used_rss_bytes", Gauge, 1.0, "Resident bytes of the process."),
    row("used_memory_peak", "memory_used_peak_bytes", Gauge, 1.0, "The peak of memory_used_bytes."),
    row("used_memory_lua", "memory_used_lua_bytes", Gauge, 1.0, "Bytes of the interpreter of EVAL."),
    row("used_memory_overhead", "memory_used_overhead_bytes", Gauge, 1.0, "Bytes that are not keys and values."),
    row("used_memory_startup", "memory_used_startup_bytes", Gauge, 1.0, "Bytes in use after the start."),
    row("used_memory_dataset", "memory_used_dataset_bytes", Gauge, 1.0, "Bytes of keys and values."),
    row("used_memory_scripts", "memory_used_scripts_bytes", Gauge, 1.0, "Bytes of scripts and functions."),
    row("maxmemory", "memory_max_bytes", Gauge, 1.0, "The setting maxmemory; 0 is no limit."),
    row("maxmemory", "config_maxmemory", Gauge, 1.0, "The setting maxmemory; 0 is no limit."),
    row("total_system_memory", "total_system_memory_bytes", Gauge, 1.0, "The memory of the machine."),
    row("allocator_active", "allocator_active_bytes", Gauge, 1.0, "Bytes in the allocator's active pages."),
    row("allocator_allocated", "allocator_allocated_bytes", Gauge, 1.0, "Bytes that the allocator has given out."),
    row("allocator_resident", "allocator_resident_bytes", Gauge, 1.0, "Resident bytes of the allocator."),
    row("allocator_frag_ratio", "allocator_frag_ratio", Gauge, 1.0, "Active bytes for each allocated one."),
    row("allocator_frag_bytes", "allocator_frag_bytes", Gauge, 1.0, "Active bytes that are not allocated."),
    row("allocator_rss_ratio", "allocator_rss_ratio", Gauge, 1.0, "Resident bytes for each active one."),
    row("allocator_rss_bytes", "allocator_rss_bytes", Gauge, 1.0, "Resident bytes that are not active."),
    row("mem_fragmentation_ratio", "mem_fragmentation_ratio", Gauge, 1.0, "Resident bytes for each used one."),
    row("mem_fragmentation_bytes", "mem_fragmentation_bytes", Gauge, 1.0, "Resident bytes that are not used."),
    row("mem_clients_slaves", "mem_clients_slaves", Gauge, 1.0, "Bytes of replicas' buffers."),
    row("mem_clients_normal", "mem_clients_normal", Gauge, 1.0, "Bytes of other clients' buffers."),
    row("mem_not_counted_for_evict", "mem_not_counted_for_eviction_bytes", Gauge, 1.0, "Bytes that maxmemory does not limit."),
    row("lazyfree_pending_objects", "lazyfree_pending_objects", Gauge, 1.0, "Values that are waiting to be freed."),
    row("active_defrag_running", "active_defrag_running", Gauge, 1.0, "The CPU share of active defragmentation."),
    row("active_defrag_hits", "defrag_hits", Gauge, 1.0, "Allocations that defragmentation moved."),
    row("active_defrag_misses", "defrag_misses", Gauge, 1.0, "Allocations that defragmentation left."),
    row("active_defrag_key_hits", "defrag_key_hits", Gauge, 1.0, "Keys of which defragmentation moved a part."),
    row("active_defrag_key_misses", "defrag_key_misses", Gauge, 1.0, "Keys that defragmentation left."),
    // Fields of the section Persistence of INFO.
    row("loading", "loading_dump_file", Gauge, 1.0, "1 while a file is loaded."),
    row("async_loading", "async_loading", Gauge, 1.0, "1 while a second data set is loaded beside the first."),
    row("rdb_changes_since_last_save", "rdb_changes_since_last_save", Gauge, 1.0, "Changes since the last save."),
    row("rdb_bgsave_in_progress", "rdb_bgsave_in_progress", Gauge, 1.0, "1 while a child saves."),
    row("rdb_last_save_time", "rdb_last_save_timestamp_seconds", Gauge, 1.0, "Unix time of the last save."),
    row("rdb_last_bgsave_status", "rdb_last_bgsave_status", Gauge, 1.0, "1 if the last save succeeded."),
    row("rdb_last_bgsave_time_sec", "rdb_last_bgsave_duration_sec", Gauge, 1.0, "Seconds of the last save; -1 for none."),
    row("rdb_current_bgsave_time_sec", "rdb_current_bgsave_duration_sec", Gauge, 1.0, "Seconds of the running save; -1 for none."),
    row("rdb_last_cow_size", "rdb_last_cow_size_bytes", Gauge, 1.0, "Bytes copied on write in the last save."),
    row("aof_enabled", "aof_enabled", Gauge, 1.0, "1 if the AOF is on."),
    row("aof_rewrite_in_progress", "aof_rewrite_in_progress", Gauge, 1.0, "1 while a child rewrites the AOF."),
    row("aof_rewrite_scheduled", "aof_rewrite_scheduled", Gauge, 1.0, "1 if a rewrite waits for another child."),
    row("aof_last_rewrite_time_sec", "aof_last_rewrite_duration_sec", Gauge, 1.0, "Seconds of the last rewrite; -1 for none."),
    row("aof_current_rewrite_time_sec", "aof_current_rewrite_duration_sec", Gauge, 1.0, "Seconds of the running rewrite; -1 for none."),
    row("aof_last_bgrewrite_status", "aof_last_bgrewrite_status", Gauge, 1.0, "1 if the last rewrite succeeded."),
    row("aof_last_write_status", "aof_last_write_status", Gauge, 1.0, "1 if the last write to the AOF succeeded."),
    row("aof_last_cow_size", "aof_last_cow_size_bytes", Gauge, 1.0, "Bytes copied on write in the last rewrite."),
    row("aof_current_size", "aof_current_size_bytes", Gauge, 1.0, "The size of the AOF."),
    row("aof_base_size", "aof_base_size_bytes", Gauge, 1.0, "The size of the AOF after its last rewrite."),
    row("aof_pending_rewrite", "aof_pending_rewrite", Gauge, 1.0, "1 if a rewrite is due."),
    row("aof_buffer_length", "aof_buffer_length", Gauge, 1.0, "Bytes that are to be written to the AOF."),
    row("aof_pending_bio_fsync", "aof_pending_bio_fsync", Gauge, 1.0, "Calls of fsync that are not completed."),
    row("aof_delayed_fsync", "aof_delayed_fsync", Gauge, 1.0, "Writes that an fsync delayed."),
    row("module_fork_in_progress", "module_fork_in_progress", Gauge, 1.0, "Always 0: there are no modules."),
    row("module_fork_last_cow_size", "module_fork_last_cow_size", Gauge, 1.0, "Always 0: there are no modules."),
    row("latest_fork_usec", "latest_fork_usec", Gauge, 1.0, "Microseconds of the last fork."),
    row("latest_fork_usec", "latest_fork_seconds", Gauge, 1e-6, "Seconds of the last fork."),
    row("total_forks", "forks_total", Counter, 1.0, "Forks of this process."),
    // Fields of the section Stats of INFO.
    row("total_connections_received", "connections_received_total", Counter, 1.0, "Accepted connections."),
    row("rejected_connections", "rejected_connections_total", Counter, 1.0, "Connections refused for a limit or the protected mode."),
    row("total_commands_processed", "commands_processed_total", Counter, 1.0, "Commands that were run."),
    row("instantaneous_ops_per_sec", "instantaneous_ops_per_sec", Gauge, 1.0, "Commands each second, of late."),
    row("total_net_input_bytes", "net_input_bytes_total", Counter, 1.0, "Bytes read from sockets."),
    row("total_net_output_bytes", "net_output_bytes_total", Counter, 1.0, "Bytes written to sockets."),
    row("total_net_repl_input_bytes", "net_repl_input_bytes_total", Counter, 1.0, "Bytes read from the primary."),
    row("total_net_repl_output_bytes", "net_repl_output_bytes_total", Counter, 1.0, "Bytes written to replicas."),
    row("expired_keys", "expired_keys_total", Counter, 1.0, "Keys whose time to live ended."),
    row("expired_subkeys", "expired_subkeys_total", Counter, 1.0, "Hash fields whose time to live ended."),
    row("expired_stale_perc", "expired_stale_percentage", Gauge, 1.0, "Per cent of the keys that are likely to have expired."),
    row("expired_time_cap_reached_count", "expired_time_cap_reached_total", Counter, 1.0, "Cycles of expiry that used up their time."),
    row("evicted_keys", "evicted_keys_total", Counter, 1.0, "Keys evicted for maxmemory."),
    row("evicted_clients", "evicted_clients_total", Counter, 1.0, "Clients closed for maxmemory-clients."),
    row("evicted_scripts", "evicted_scripts_total", Counter, 1.0, "Scripts of EVAL dropped from the cache."),
    row("keyspace_hits", "keyspace_hits_total", Counter, 1.0, "Reads that found their key."),
    row("keyspace_misses", "keyspace_misses_total", Counter, 1.0, "Reads that did not find their key."),
    row("pubsub_channels", "pubsub_channels", Gauge, 1.0, "Channels with subscribers."),
    row("pubsub_patterns", "pubsub_patterns", Gauge, 1.0, "Patterns with subscribers."),
    row("migrate_cached_sockets", "migrate_cached_sockets_total", Gauge, 1.0, "Open connections of MIGRATE."),
    row("total_error_replies", "total_error_replies", Gauge, 1.0, "Replies that were errors."),
    row("unexpected_error_replies", "unexpected_error_replies", Gauge, 1.0, "Errors of commands of the AOF or of the primary."),
    row("dump_payload_sanitizations", "dump_payload_sanitizations", Gauge, 1.0, "Packed blocks that were checked."),
    row("total_reads_processed", "total_reads_processed", Gauge, 1.0, "Reads from sockets."),
    row("total_writes_processed", "total_writes_processed", Gauge, 1.0, "Writes to sockets."),
    row("io_threaded_reads_processed", "io_threaded_reads_processed", Gauge, 1.0, "Always 0: one thread serves all sockets."),
    row("io_threaded_writes_processed", "io_threaded_writes_processed", Gauge, 1.0, "Always 0: one thread serves all sockets."),
    row("tracking_total_keys", "tracking_total_keys", Gauge, 1.0, "Keys that clients track."),
    row("tracking_total_items", "tracking_total_items", Gauge, 1.0, "Pairs of a key and a client that tracks it."),
    row("tracking_total_prefixes", "tracking_total_prefixes", Gauge, 1.0, "Prefixes that clients track."),
    row("number_of_cached_scripts", "number_of_cached_scripts", Gauge, 1.0, "Scripts of EVAL in the cache."),
    row("client_query_buffer_limit_disconnections", "client_query_buffer_limit_disconnections_total", Counter, 1.0, "Clients closed for their query buffer."),
    row("client_output_buffer_limit_disconnections", "client_output_buffer_limit_disconnections_total", Counter, 1.0, "Clients closed for their reply buffer."),
    row("acl_access_denied_auth", "acl_access_denied_auth_total", Counter, 1.0, "Failed authentications."),
    row("acl_access_denied_cmd", "acl_access_denied_cmd_total", Counter, 1.0, "Commands refused by the ACL."),
    row("acl_access_denied_key", "acl_access_denied_key_total", Counter, 1.0, "Keys refused by the ACL."),
    row("acl_access_denied_channel", "acl_access_denied_channel_total", Counter, 1.0, "Channels refused by the ACL."),
    row("eventloop_cycles", "eventloop_cycles_total", Counter, 1.0, "Turns of the event loop."),
    row("eventloop_duration_sum", "eventloop_duration_seconds_total", Counter, 1e-6, "Seconds in turns of the event loop, without waiting."),
    row("eventloop_duration_cmd_sum", "eventloop_duration_cmd_seconds_total", Counter, 1e-6, "Seconds of those in commands."),
    // Fields of the section Replication of INFO.
    row("connected_slaves", "connected_slaves", Gauge, 1.0, "Connected replicas."),
    row("repl_backlog_size", "replication_backlog_bytes", Gauge, 1.0, "The setting repl-backlog-size."),
    row("repl_backlog_active", "repl_backlog_is_active", Gauge, 1.0, "1 if there is a backlog."),
    row("repl_backlog_first_byte_offset", "repl_backlog_first_byte_offset", Gauge, 1.0, "The offset of the backlog's first byte."),
    row("repl_backlog_histlen", "repl_backlog_history_bytes", Gauge, 1.0, "Bytes in the backlog."),
    row("master_repl_offset", "master_repl_offset", Gauge, 1.0, "The offset of the replication stream."),
    row("second_repl_offset", "second_repl_offset", Gauge, 1.0, "The offset up to which the second history is valid."),
    row("slave_expires_tracked_keys", "slave_expires_tracked_keys", Gauge, 1.0, "Keys whose time to live a writable replica has set."),
    row("slave_priority", "slave_priority", Gauge, 1.0, "The setting replica-priority."),
    row("sync_full", "replica_resyncs_full", Gauge, 1.0, "Replicas that got the whole data set."),
    row("sync_partial_ok", "replica_partial_resync_accepted", Gauge, 1.0, "Replicas that continued where they had stopped."),
    row("sync_partial_err", "replica_partial_resync_denied", Gauge, 1.0, "Replicas that could not."),
    // Fields of the section CPU of INFO.
    row("used_cpu_sys", "cpu_sys_seconds_total", Counter, 1.0, "Seconds in the kernel."),
    row("used_cpu_user", "cpu_user_seconds_total", Counter, 1.0, "Seconds in the program."),
    row("used_cpu_sys_children", "cpu_sys_children_seconds_total", Counter, 1.0, "Seconds of children in the kernel."),
    row("used_cpu_user_children", "cpu_user_children_seconds_total", Counter, 1.0, "Seconds of children in the program."),
    row("used_cpu_sys_main_thread", "cpu_sys_main_thread_seconds_total", Counter, 1.0, "Seconds of the main thread in the kernel."),
    row("used_cpu_user_main_thread", "cpu_user_main_thread_seconds_total", Counter, 1.0, "Seconds of the main thread in the program."),
    // Fields of the section Cluster of INFO.
    row("cluster_enabled", "cluster_enabled", Gauge, 1.0, "1 for a node of a cluster."),
];

/// Returns all metrics of the server in a format: that of OpenMetrics, or the text or binary format
/// of Prometheus.
pub fn render(server: &mut Server, format: Format) -> Vec<u8> {
    let fields = Fields::take(server);
    let mut out = Exposition::new(format);
    out.family("up", Gauge, "1: the server replies.")
        .sample(&[], 1.0);
    instance(&fields, server.clock.now_ms, &mut out);
    scalars(&fields, &mut out);
    databases(&fields, &mut out);
    replicas(&fields, &mut out);
    primary(&fields, &mut out);
    commands(&fields, &mut out);
    errors(&fields, &mut out);
    latencies(server, &mut out);
    spikes(server, &mut out);
    out.finish()
}

/// Adds a metric whose labels describe this server.
fn instance(fields: &Fields, now_ms: i64, out: &mut Exposition) {
    let by_name = fields.by_name();
    let of = |name: &'static str| (name, by_name.get(name).copied().unwrap_or_default());
    let labels = [
        of("role"),
        of("redis_version"),
        of("redis_build_id"),
        of("redis_mode"),
        of("os"),
        of("maxmemory_policy"),
        of("tcp_port"),
        of("run_id"),
        of("process_id"),
        of("master_replid"),
        of("aeris_version"),
    ];
    out.family("instance_info", Gauge, "The server, by its labels.")
        .sample(&labels, 1.0);
    if let Some(uptime) = by_name.get("uptime_in_seconds").and_then(|s| value_of(s)) {
        out.family("start_time_seconds", Gauge, "Unix time of the start.")
            .sample(&[], (now_ms / 1000) as f64 - uptime);
    }
}

fn scalars(fields: &Fields, out: &mut Exposition) {
    let by_name = fields.by_name();
    for row in SCALARS {
        if let Some(value) = by_name.get(row.field).and_then(|text| value_of(text)) {
            out.family(row.name, row.kind, row.help)
                .sample(&[], value * row.scale);
        }
    }
}

/// The number in the text of an INFO field; a state is 1 if it is good (`ok`, `up`) and 0 if it is
/// bad (`err`, `down`).
fn value_of(text: &str) -> Option<f64> {
    match text {
        "ok" | "up" => Some(1.0),
        "err" | "down" => Some(0.0),
        text => text.parse().ok(),
    }
}

/// Adds the metrics of each database, from fields such as
/// `db0:keys=1,expires=0,avg_ttl=0,subexpiry=0`.
fn databases(fields: &Fields, out: &mut Exposition) {
    let is_db = |name: &str| {
        name.strip_prefix("db")
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    for (key, name, scale, help) in [
        ("keys", "db_keys", 1.0, "Keys of each database."),
        (
            "expires",
            "db_keys_expiring",
            1.0,
            "Keys with a time to live.",
        ),
        (
            "avg_ttl",
            "db_avg_ttl_seconds",
            1e-3,
            "The average time to live.",
        ),
        (
            "subexpiry",
            "db_keys_with_expiring_items",
            1.0,
            "Hashes with fields that expire.",
        ),
    ] {
        let mut family = out.family(name, Gauge, help);
        for (db, value) in fields.iter().filter(|(name, _)| is_db(name)) {
            if let Some(number) = value_of(part(value, key)) {
                family.sample(&[("db", db)], number * scale);
            }
        }
    }
}

/// Adds the metrics of each replica, from fields such as
/// `slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=0`.
fn replicas(fields: &Fields, out: &mut Exposition) {
    let is_replica = |name: &str| {
        name.strip_prefix("slave")
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    for (key, name, help) in [
        (
            "offset",
            "connected_slave_offset_bytes",
            "The offset that a replica has acknowledged.",
        ),
        (
            "lag",
            "connected_slave_lag_seconds",
            "Seconds since a replica's last acknowledgement.",
        ),
    ] {
        let mut family = out.family(name, Gauge, help);
        for (_, value) in fields.iter().filter(|(name, _)| is_replica(name)) {
            let labels = [
                ("slave_ip", part(value, "ip")),
                ("slave_port", part(value, "port")),
                ("slave_state", part(value, "state")),
            ];
            if let Some(number) = value_of(part(value, key)) {
                family.sample(&labels, number);
            }
        }
    }
}

/// On a replica, adds the metrics of the link to the primary.
fn primary(fields: &Fields, out: &mut Exposition) {
    let by_name = fields.by_name();
    let text = |name: &str| by_name.get(name).copied().unwrap_or_default();
    let labels = [
        ("master_host", text("master_host")),
        ("master_port", text("master_port")),
    ];
    for (field, name, help) in [
        (
            "master_link_status",
            "master_link_up",
            "1 if the link to the primary works.",
        ),
        (
            "master_last_io_seconds_ago",
            "master_last_io_seconds_ago",
            "Seconds since the primary sent something; -1 without a link.",
        ),
        (
            "master_sync_in_progress",
            "master_sync_in_progress",
            "1 while the data set is received.",
        ),
        (
            "slave_repl_offset",
            "slave_repl_offset",
            "The offset of the stream that was applied.",
        ),
    ] {
        if let Some(number) = value_of(text(field)) {
            out.family(name, Gauge, help).sample(&labels, number);
        }
    }
    if text("role") == "slave" {
        let read_only = ("read_only", text("slave_read_only"));
        out.family("slave_info", Gauge, "This replica, by its labels.")
            .sample(&[labels[0], labels[1], read_only], 1.0);
    }
}

/// Adds the metrics of each command, from fields such as
/// `cmdstat_get:calls=1,usec=5,usec_per_call=5.00,rejected_calls=0,failed_calls=0`.
fn commands(fields: &Fields, out: &mut Exposition) {
    for (key, name, scale, help) in [
        ("calls", "commands_total", 1.0, "Calls of each command."),
        (
            "usec",
            "commands_duration_seconds_total",
            1e-6,
            "Seconds in each command.",
        ),
        (
            "rejected_calls",
            "commands_rejected_calls_total",
            1.0,
            "Calls refused before they ran.",
        ),
        (
            "failed_calls",
            "commands_failed_calls_total",
            1.0,
            "Calls that ended in an error.",
        ),
    ] {
        let mut family = out.family(name, Counter, help);
        for (field, value) in fields.iter() {
            if let (Some(cmd), Some(number)) =
                (field.strip_prefix("cmdstat_"), value_of(part(value, key)))
            {
                family.sample(&[("cmd", cmd)], number * scale);
            }
        }
    }
}

/// Adds the number of error replies with each code, from fields such as `errorstat_ERR:count=2`.
fn errors(fields: &Fields, out: &mut Exposition) {
    let mut family = out.family("errors_total", Counter, "Error replies by code.");
    for (field, value) in fields.iter() {
        if let (Some(code), Some(count)) = (
            field.strip_prefix("errorstat_"),
            value_of(part(value, "count")),
        ) {
            family.sample(&[("err", code)], count);
        }
    }
}

/// Adds the latency histogram of each command, and its percentiles.
fn latencies(server: &Server, out: &mut Exposition) {
    let measured = || {
        let entries = server.commands.entries.iter();
        entries.filter_map(|entry| Some((entry, entry.stats.latency.as_ref()?)))
    };
    let mut family = out.family(
        "latency_usec",
        MetricKind::Histogram,
        "Calls by microseconds.",
    );
    for (entry, histogram) in measured() {
        let sum = server.clock.us(entry.stats.ticks) as f64;
        family.histogram(&[("cmd", &*entry.fullname)], histogram, sum);
    }
    drop(family);
    let mut family = out.family(
        "latency_percentiles_usec",
        MetricKind::Summary,
        "Percentiles of a command's microseconds.",
    );
    for (entry, histogram) in measured() {
        let percents = server.config.latency_tracking_info_percentiles.iter();
        let quantiles: Vec<(f64, f64)> = percents
            .map(|&percent| {
                (
                    percent / 100.0,
                    histogram.percentile(percent) as f64 / 1000.0,
                )
            })
            .collect();
        let sum = server.clock.us(entry.stats.ticks) as f64;
        let labels = [("cmd", &*entry.fullname)];
        family.summary(&labels, &quantiles, sum, histogram.total());
    }
}

/// Adds the last event of each name in the latency monitor, and the figures of the slow log.
fn spikes(server: &Server, out: &mut Exposition) {
    let latest = || {
        let events = server.latency.events.iter();
        events.filter_map(|(event, series)| Some((*event, series.samples.back()?)))
    };
    let mut family = out.family("latency_spike_last", Gauge, "Unix time of the last spike.");
    for (event, sample) in latest() {
        family.sample(&[("event_name", event)], sample.time_s as f64);
    }
    drop(family);
    let name = "latency_spike_duration_seconds";
    let mut family = out.family(name, Gauge, "The duration of the last spike.");
    for (event, sample) in latest() {
        family.sample(&[("event_name", event)], sample.ms as f64 / 1000.0);
    }
    drop(family);
    let slow = &server.commandlog.slow.entries;
    let last = slow.front();
    out.family("slowlog_length", Gauge, "Entries of the slow log.")
        .sample(&[], slow.len() as f64);
    out.family("slowlog_last_id", Gauge, "The id of the last slow command.")
        .sample(&[], last.map_or(0.0, |entry| entry.id as f64));
    let name = "last_slow_execution_duration_seconds";
    out.family(name, Gauge, "The duration of the last slow command.")
        .sample(&[], last.map_or(0.0, |entry| entry.value as f64 / 1e6));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_counters_end_in_total() {
        let mut names = HashSet::new();
        for row in SCALARS {
            assert!(names.insert(row.name), "{} twice", row.name);
            let counter = row.kind == Counter;
            assert!(!counter || row.name.ends_with("_total"), "{}", row.name);
        }
    }

    /// INFO of a fresh server lacks the fields of a replica and of features that are off; every
    /// other row of the metrics has its field.
    #[test]
    fn each_row_has_a_field_of_info() {
        let mut server = server_with(0);
        let fields = Fields::take(&mut server);
        let by_name = fields.by_name();
        let missing: Vec<&str> = SCALARS.iter().map(|row| row.field).collect();
        let missing: Vec<&str> = missing
            .into_iter()
            .filter(|field| !by_name.contains_key(field))
            .collect();
        let expected = [
            "aof_current_size",
            "aof_base_size",
            "aof_pending_rewrite",
            "aof_buffer_length",
            "aof_pending_bio_fsync",
            "aof_delayed_fsync",
            "slave_priority",
        ];
        assert_eq!(missing, expected);
    }
}
