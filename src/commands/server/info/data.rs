//! The sections of INFO about the data and its copies: persistence, replication, modules, cluster,
//! keyspace, keysizes.

use crate::commands::server::info::{Report, View};
use crate::persist::aof::State;
use crate::persist::child::{Child, ChildKind, Wish};
use crate::replication::upstream::{Phase, Received, Upstream};
use crate::state::Server;
use crate::types::Type;
use crate::types::lengths::COUNTED;

/// The section persistence: loading, snapshots and the AOF.
pub fn persistence(view: &View, out: &mut Report) {
    let server = view.server;
    out.field("loading", server.loading.is_in_place() as u8);
    out.field("async_loading", server.loading.is_aside() as u8);
    child(view, out);
    out.field("rdb_changes_since_last_save", server.dirty);
    out.field(
        "rdb_bgsave_in_progress",
        is_running(server, ChildKind::Rdb) as u8,
    );
    out.field("rdb_last_save_time", server.last_save_s);
    out.field(
        "rdb_last_bgsave_status",
        if server.rdb.failed { "err" } else { "ok" },
    );
    out.field("rdb_last_bgsave_time_sec", server.rdb.last_bgsave_s);
    out.field(
        "rdb_current_bgsave_time_sec",
        running_seconds(server, ChildKind::Rdb),
    );
    out.field("rdb_saves", server.rdb.saves);
    out.field("rdb_last_cow_size", server.rdb.last_cow_bytes);
    out.field("rdb_last_load_keys_expired", server.rdb.last_load.expired);
    out.field("rdb_last_load_keys_skipped", server.rdb.last_load.skipped);
    out.field("rdb_last_load_keys_loaded", server.rdb.last_load.loaded);
    out.field("aof_enabled", (server.aof.state != State::Off) as u8);
    out.field(
        "aof_rewrite_in_progress",
        is_running(server, ChildKind::Aof) as u8,
    );
    let rewrite = &server.aof.rewrite;
    out.field("aof_rewrite_scheduled", rewrite_scheduled(server) as u8);
    out.field(
        "aof_last_rewrite_time_sec",
        rewrite.last_seconds.unwrap_or(-1),
    );
    out.field(
        "aof_current_rewrite_time_sec",
        running_seconds(server, ChildKind::Aof),
    );
    out.field("aof_last_bgrewrite_status", status(rewrite.failed));
    out.field("aof_rewrites", rewrite.started);
    out.field(
        "aof_rewrites_consecutive_failures",
        rewrite.failures_in_a_row,
    );
    out.field("aof_last_write_status", status(server.aof.flush.failed()));
    out.field("aof_last_cow_size", server.aof.last_cow_bytes);
    out.field("module_fork_in_progress", 0);
    out.field("module_fork_last_cow_size", 0);
    if server.aof.state != State::Off {
        aof(server, out);
    }
    forecast(view, out);
    if server.is_loading() {
        loading(server, out);
    }
}

/// The fields `loading_*`: the progress of a load.
fn loading(server: &Server, out: &mut Report) {
    let load = &server.load;
    out.field("loading_start_time", load.start_s);
    out.field("loading_total_bytes", load.total_bytes);
    out.field("loading_rdb_used_mem", load.rdb_used_mem);
    out.field("loading_loaded_bytes", load.loaded_bytes);
    out.decimal("loading_loaded_perc", load.percent(), 2);
    out.field(
        "loading_eta_seconds",
        load.eta_seconds(server.clock.now_s()),
    );
}

fn rewrite_scheduled(server: &Server) -> bool {
    server.forks.wishes.has(Wish::Rewrite)
}

fn status(failed: bool) -> &'static str {
    if failed { "err" } else { "ok" }
}

/// The fields of the AOF that are shown only if the AOF is on.
fn aof(server: &Server, out: &mut Report) {
    let aof = &server.aof;
    out.field("aof_current_size", aof.current_size);
    out.field("aof_base_size", aof.base_size);
    out.field("aof_pending_rewrite", rewrite_scheduled(server) as u8);
    out.field("aof_buffer_length", aof.feed.pending());
    out.field("aof_pending_bio_fsync", aof.flush.pending_syncs());
    out.field("aof_delayed_fsync", aof.flush.delayed_syncs);
}

/// The progress of the child that saves or rewrites, and the memory that it costs (copy on write).
fn child(view: &View, out: &mut Report) {
    let server = view.server;
    let child = server.child.as_ref();
    let progress = child.map_or(Default::default(), |child| child.progress);
    let age = child.map_or(0, |child| child.report_age_s(server.clock.now_ms));
    out.field("current_cow_peak", progress.cow_peak);
    out.field("current_cow_size", progress.cow_bytes);
    out.field("current_cow_size_age", age);
    out.decimal("current_fork_perc", child.map_or(0.0, |c| c.percent()), 2);
    out.field("current_save_keys_processed", progress.keys);
    out.field("current_save_keys_total", child.map_or(0, |c| c.keys_total));
}

/// The forecast, before the last fork, of the memory that the child would cost.
fn forecast(view: &View, out: &mut Report) {
    let forecast = view.server.forks.forecast;
    out.field("fork_forecast_page_tables", forecast.page_tables);
    out.field("fork_forecast_cow_size", forecast.copied);
    out.field("fork_forecast_memory_ok", !forecast.too_much() as u8);
}

fn running(server: &Server, kind: ChildKind) -> Option<&Child> {
    server.child.as_ref().filter(|child| child.kind == kind)
}

fn is_running(server: &Server, kind: ChildKind) -> bool {
    running(server, kind).is_some()
}

/// The seconds since the running child of this kind was forked; -1 without such a child.
fn running_seconds(server: &Server, kind: ChildKind) -> i64 {
    running(server, kind).map_or(-1, |child| (server.clock.now_ms - child.started_ms) / 1000)
}

/// The section replication: the role, the replicas, and the ids and offsets of the replication
/// history.
pub fn replication(view: &View, out: &mut Report) {
    let server = view.server;
    let (replication, now_ms) = (&server.replication, server.clock.now_ms);
    match &replication.upstream {
        None => out.field("role", "master"),
        Some(upstream) => {
            out.field("role", "slave");
            primary(server, upstream, out);
        }
    }
    out.field("connected_slaves", replication.replicas.len());
    if server.config.min_replicas_to_write != 0 && server.config.min_replicas_max_lag != 0 {
        let max_lag_s = server.config.min_replicas_max_lag.into();
        let good = replication.replicas.good(max_lag_s, now_ms);
        out.field("min_slaves_good_slaves", good);
    }
    for (at, replica) in replication.replicas.iter().enumerate() {
        let value = format_args!(
            "ip={},port={},state={},offset={},lag={},type={}",
            replica.ip,
            replica.announced.port,
            replica.state_name(),
            replica.acked,
            replica.lag_s(now_ms),
            replica.type_name()
        )
        .to_string();
        out.field(&format!("slave{at}"), value);
    }
    out.field("replicas_waiting_psync", replication.stream.pins());
    out.field("master_failover_state", replication.failover.state_name());
    let stream = &replication.stream;
    out.field("master_replid", &replication.id);
    out.field("master_replid2", &replication.second_id);
    out.field("master_repl_offset", stream.end());
    out.field("second_repl_offset", replication.second_offset);
    out.field("repl_backlog_active", stream.is_open() as u8);
    out.field("repl_backlog_size", server.config.repl_backlog_size);
    out.field("repl_backlog_first_byte_offset", stream.first_byte_offset());
    out.field("repl_backlog_histlen", stream.histlen());
    let forecast = replication.forecast;
    out.field("sync_forecast_ms", forecast.sync_ms);
    out.field("sync_forecast_bytes", forecast.bytes);
    out.field("sync_forecast_ok", !forecast.overruns as u8);
}

/// The fields of a replica about its primary and its link to the primary.
fn primary(server: &Server, upstream: &Upstream, out: &mut Report) {
    let now_ms = server.clock.now_ms;
    let client = upstream.client.and_then(|r| server.net.clients.get(r.slot));
    let seconds_since = |ms: i64| (now_ms - ms) / 1000;
    let up = upstream.is_connected();
    out.field("master_host", &upstream.host);
    out.field("master_port", upstream.port);
    out.field("master_link_status", if up { "up" } else { "down" });
    let last_io_s = client.map_or(-1, |c| seconds_since(c.last_interaction_ms));
    out.field("master_last_io_seconds_ago", last_io_s);
    let syncing = upstream.phase == Phase::Transfer;
    out.field("master_sync_in_progress", syncing as u8);
    // Replication offsets count from 1: a replica that has no history yet shows the offset of the
    // first byte.
    let has_history = upstream.can_continue || client.is_some();
    let applied = match has_history {
        true => server.replication.stream.end(),
        false => 1,
    };
    let waiting = client.map_or(0, |c| c.querybuf_len()) + upstream.unit.len();
    out.field("slave_read_repl_offset", applied + waiting as u64);
    out.field("slave_repl_offset", applied);
    out.field("slave_repl_lag_ms", upstream.lag_ms.unwrap_or(-1));
    // Size and peak of the stream that the replica collects while it loads a snapshot, first under
    // Valkey's names, then under Redis's.
    let collected = &upstream.collected;
    out.field("replicas_repl_buffer_size", collected.bytes());
    out.field("replicas_repl_buffer_peak", collected.peak());
    out.field("replica_full_sync_buffer_size", collected.bytes());
    out.field("replica_full_sync_buffer_peak", collected.peak());
    out.field("master_current_sync_attempts", upstream.attempts);
    out.field("master_total_sync_attempts", upstream.total_attempts);
    if syncing {
        snapshot(&upstream.received, now_ms, out);
    }
    let now_s = server.clock.now_s();
    if up {
        let up_s = now_s - upstream.up_since_s;
        out.field("master_link_up_since_seconds", up_s);
    } else {
        let down_s = match upstream.down_since_s {
            0 => -1,
            _ => upstream.down_s(now_s),
        };
        out.field("master_link_down_since_seconds", down_s);
        if upstream.refused_empty {
            out.field("master_link_refused", "empty_primary");
        }
    }
    let disconnected_s = server.replication.disconnected_s + upstream.down_s(now_s);
    out.field("total_disconnect_time_sec", disconnected_s);
    let config = &server.config;
    out.field("slave_priority", config.replica_priority);
    out.field("slave_read_only", config.replica_read_only as u8);
    out.field("replica_announced", config.replica_announced as u8);
}

/// The fields of the snapshot that this replica is receiving. As in Redis, the size is -1 before
/// the header has arrived, and 0 if the header does not contain it; the number of bytes that are
/// left is then negative.
fn snapshot(received: &Received, now_ms: i64, out: &mut Report) {
    let total = received.total.map_or(-1, |total| total as i64);
    let bytes = received.bytes as i64;
    let percent = match total {
        0 => 0.0,
        total => bytes as f64 / total as f64 * 100.0,
    };
    out.field("master_sync_total_bytes", total);
    out.field("master_sync_read_bytes", bytes);
    out.field("master_sync_left_bytes", total - bytes);
    out.decimal("master_sync_perc", percent, 2);
    let idle_s = (now_ms - received.last_io_ms) / 1000;
    out.field("master_sync_last_io_seconds_ago", idle_s);
}

/// The section modules, which is empty, since modules are not supported.
pub fn modules(_: &View, _: &mut Report) {}

/// The section cluster: whether cluster mode is on.
pub fn cluster(view: &View, out: &mut Report) {
    out.field("cluster_enabled", view.server.config.cluster_enabled as u8);
}

/// The section keysizes: for each database and type, the number of keys in each range of lengths.
pub fn keysizes(view: &View, out: &mut Report) {
    for db in &view.server.data.dbs {
        let Some(lengths) = &db.lengths else {
            continue;
        };
        for of in COUNTED {
            let bins: Vec<String> = lengths
                .bins(of)
                .map(|(least, keys)| format!("{}={keys}", with_unit(least)))
                .collect();
            if !bins.is_empty() {
                let (name, unit) = keysizes_name(of);
                out.field(
                    &format!("db{}_distrib_{name}_{unit}", db.index),
                    bins.join(","),
                );
            }
        }
    }
}

/// The name of a type in the section keysizes of INFO, and the name of what its lengths count
/// (bytes or elements).
fn keysizes_name(of: Type) -> (&'static str, &'static str) {
    match of {
        Type::String => ("strings", "sizes"),
        Type::List => ("lists", "items"),
        Type::Set => ("sets", "items"),
        Type::Zset => ("zsets", "items"),
        Type::Hash => ("hashes", "items"),
        Type::Stream => ("streams", "items"),
    }
}

/// Formats a power of two with the largest unit (K, M, G or T) that divides it: `512`, `1K`, `2M`.
fn with_unit(mut n: u64) -> String {
    let mut units = ["", "K", "M", "G", "T"].iter().peekable();
    while n >= 1024 && n.is_multiple_of(1024) && units.len() > 1 {
        n /= 1024;
        units.next();
    }
    format!("{n}{}", units.next().unwrap_or(&""))
}

/// The section keyspace, a line for each database: `db0:keys=2,expires=1,avg_ttl=0,subexpiry=0`.
pub fn keyspace(view: &View, out: &mut Report) {
    for db in view.server.data.dbs.iter().filter(|db| !db.is_empty()) {
        let value = format_args!(
            "keys={},expires={},avg_ttl={},subexpiry={}",
            db.len(),
            db.expires.len(),
            db.avg_ttl_ms,
            db.field_expires.len()
        )
        .to_string();
        out.field(&format!("db{}", db.index), value);
    }
}
