//! The data and its copies: persistence, replication, modules, cluster, keyspace.

use super::{Report, View};

pub fn persistence(view: &View, out: &mut Report) {
    let server = view.server;
    out.field("loading", server.loading as u8);
    out.field("async_loading", 0);
    out.field("current_cow_peak", 0);
    out.field("current_cow_size", 0);
    out.field("current_cow_size_age", 0);
    out.decimal("current_fork_perc", 0.0, 2);
    out.field("current_save_keys_processed", 0);
    out.field("current_save_keys_total", 0);
    out.field("rdb_changes_since_last_save", server.dirty);
    out.field("rdb_bgsave_in_progress", 0);
    out.field("rdb_last_save_time", server.last_save_s);
    out.field("rdb_last_bgsave_status", "ok");
    out.field("rdb_last_bgsave_time_sec", -1);
    out.field("rdb_current_bgsave_time_sec", -1);
    out.field("rdb_saves", 0);
    out.field("rdb_last_cow_size", 0);
    out.field("rdb_last_load_keys_expired", 0);
    out.field("rdb_last_load_keys_loaded", 0);
    out.field("aof_enabled", 0);
    out.field("aof_rewrite_in_progress", 0);
    out.field("aof_rewrite_scheduled", 0);
    out.field("aof_last_rewrite_time_sec", -1);
    out.field("aof_current_rewrite_time_sec", -1);
    out.field("aof_last_bgrewrite_status", "ok");
    out.field("aof_rewrites", 0);
    out.field("aof_rewrites_consecutive_failures", 0);
    out.field("aof_last_write_status", "ok");
    out.field("aof_last_cow_size", 0);
    out.field("module_fork_in_progress", 0);
    out.field("module_fork_last_cow_size", 0);
}

/// A primary without replicas.
pub fn replication(view: &View, out: &mut Report) {
    let server = view.server;
    out.field("role", "master");
    out.field("connected_slaves", view.census().replicas);
    out.field("replicas_waiting_psync", 0);
    out.field("master_failover_state", "no-failover");
    out.field("master_replid", &server.run.replid);
    out.field("master_replid2", "0".repeat(40));
    out.field("master_repl_offset", 0);
    out.field("second_repl_offset", -1);
    out.field("repl_backlog_active", 0);
    out.field("repl_backlog_size", server.config.repl_backlog_size);
    out.field("repl_backlog_first_byte_offset", 0);
    out.field("repl_backlog_histlen", 0);
}

/// There are no modules.
pub fn modules(_: &View, _: &mut Report) {}

pub fn cluster(view: &View, out: &mut Report) {
    out.field("cluster_enabled", view.server.config.cluster_enabled as u8);
}

/// `db0:keys=2,expires=1,avg_ttl=0,subexpiry=0`
pub fn keyspace(view: &View, out: &mut Report) {
    for db in view.server.dbs.iter().filter(|db| !db.is_empty()) {
        let value = format_args!(
            "keys={},expires={},avg_ttl={},subexpiry=0",
            db.len(),
            db.expires.len(),
            db.avg_ttl_ms
        )
        .to_string();
        out.field(&format!("db{}", db.index), value);
    }
}
