//! The sections of INFO with counters since the start or since CONFIG RESETSTAT, and those about
//! hot and big keys.

use crate::commands::server::info::{Report, View};
use crate::db::Db;
use crate::observe::bigkeys::ranking::Ranking;
use crate::observe::memory_report::ratio;
use crate::state::Server;
use crate::types::Type;

/// The section stats: counters since the start or since CONFIG RESETSTAT.
pub fn stats(view: &View, out: &mut Report) {
    let stats = &view.server.stats;
    out.field("total_connections_received", stats.connections_received);
    out.field("total_commands_processed", stats.commands_processed);
    out.field("instantaneous_ops_per_sec", stats.ops_rate.average());
    out.field("total_net_input_bytes", stats.net_input_bytes);
    out.field("total_net_output_bytes", stats.net_output_bytes);
    out.field("total_net_repl_input_bytes", stats.net_repl_input_bytes);
    out.field("total_net_repl_output_bytes", stats.net_repl_output_bytes);
    let kilobytes = |bytes: u64| bytes as f64 / 1024.0;
    out.decimal(
        "instantaneous_input_kbps",
        kilobytes(stats.input_rate.average()),
        2,
    );
    out.decimal(
        "instantaneous_output_kbps",
        kilobytes(stats.output_rate.average()),
        2,
    );
    out.decimal(
        "instantaneous_input_repl_kbps",
        kilobytes(stats.repl_input_rate.average()),
        2,
    );
    out.decimal(
        "instantaneous_output_repl_kbps",
        kilobytes(stats.repl_output_rate.average()),
        2,
    );
    out.field("rejected_connections", stats.rejected_connections);
    out.field("sync_full", stats.sync_full);
    out.field("sync_partial_ok", stats.sync_partial_ok);
    out.field("sync_partial_err", stats.sync_partial_err);
    out.field("sync_pins_expired", stats.sync_pins_expired);
    out.field("replica_local_writes", stats.replica_local_writes);
    out.field("repl_throttles", stats.repl_throttles);
    out.field("repl_throttled_ms", stats.repl_throttled_ms);
    keys(view, out);
    defragmentation(view, out);
    tracking(view, out);
    traffic(view, out);
    event_loop(view, out);
    out.field("acl_access_denied_auth", stats.acl_denied_auth);
    out.field("acl_access_denied_cmd", stats.acl_denied_cmd);
    out.field("acl_access_denied_key", stats.acl_denied_key);
    out.field("acl_access_denied_channel", stats.acl_denied_channel);
    out.field("acl_access_denied_tls_cert", stats.acl_denied_certificate);
    out.field("acl_access_denied_db", stats.acl_denied_db);
}

fn keys(view: &View, out: &mut Report) {
    let (server, stats) = (view.server, &view.server.stats);
    out.field("expired_keys", stats.expired_keys);
    // The number of expired hash fields, first under Redis's name, then under Valkey's.
    out.field("expired_subkeys", stats.expired_fields);
    out.field("expired_fields", stats.expired_fields);
    out.decimal("expired_stale_perc", stale_percent(server), 2);
    out.field(
        "expired_time_cap_reached_count",
        stats.expire_time_cap_reached,
    );
    out.field(
        "expire_cycle_cpu_milliseconds",
        stats.expire_cycle_us / 1000,
    );
    out.field("evicted_keys", stats.evicted_keys);
    out.field("evicted_clients", stats.evicted_clients);
    out.field("evicted_scripts", stats.evicted_scripts);
    let (exceeded, now_ms) = (&server.evict.exceeded, server.clock.now_ms);
    out.field("total_eviction_exceeded_time", exceeded.total_ms(now_ms));
    out.field(
        "current_eviction_exceeded_time",
        exceeded.current_ms(now_ms),
    );
    out.field("keyspace_hits", stats.keyspace_hits);
    out.field("keyspace_misses", stats.keyspace_misses);
    out.field("pubsub_channels", server.pubsub.channels.len());
    out.field("pubsub_patterns", server.pubsub.patterns.len());
    out.field("pubsubshard_channels", server.pubsub.shards.len());
    out.field("latest_fork_usec", stats.latest_fork_us);
    out.field("total_forks", stats.forks);
    out.field("migrate_cached_sockets", server.migrations.idle_len());
    let own_expiries = server.replication.own_expiries.count();
    out.field("slave_expires_tracked_keys", own_expiries);
}

/// The percentage of expired keys among the keys with an expiry time. Expiry is exact: there are
/// expired keys only if the time limit of the expiry cycle was reached, or while expiry is switched
/// off.
fn stale_percent(server: &Server) -> f64 {
    let now_ms = server.clock.now_ms;
    let sum = |count: &dyn Fn(&Db) -> usize| server.data.dbs.iter().map(count).sum::<usize>();
    let stale = sum(&|db| db.expires.count_before(now_ms));
    100.0 * ratio(stale, sum(&|db| db.expires.len()))
}

fn defragmentation(view: &View, out: &mut Report) {
    let defrag = &view.server.defrag;
    let (total, current) = defrag.times_ms();
    out.field("active_defrag_hits", defrag.hits());
    out.field("active_defrag_misses", defrag.misses());
    out.field("active_defrag_key_hits", defrag.key_hits());
    out.field("active_defrag_key_misses", defrag.key_misses());
    out.field("total_active_defrag_time", total);
    out.field("current_active_defrag_time", current);
}

fn tracking(view: &View, out: &mut Report) {
    let tracking = &view.server.tracking;
    out.field("tracking_total_keys", tracking.keys());
    out.field("tracking_total_items", tracking.items());
    out.field("tracking_total_prefixes", tracking.prefixes());
}

fn traffic(view: &View, out: &mut Report) {
    let stats = &view.server.stats;
    out.field("unexpected_error_replies", stats.unexpected_error_replies);
    out.field("total_error_replies", stats.error_replies);
    let sanitizations = stats.dump_payload_sanitizations;
    out.field("dump_payload_sanitizations", sanitizations);
    out.field("total_reads_processed", stats.reads_processed);
    out.field("total_writes_processed", stats.writes_processed);
    // There are no I/O threads: one thread does all reads and writes.
    out.field("io_threaded_reads_processed", 0);
    out.field("io_threaded_writes_processed", 0);
    out.field("io_threaded_freed_objects", 0);
    out.field("io_threaded_poll_processed", 0);
    out.field("io_threaded_total_prefetch_batches", 0);
    out.field("io_threaded_total_prefetch_entries", 0);
    let (query, output) = (
        stats.query_buffer_limit_disconnections,
        stats.output_buffer_limit_disconnections,
    );
    out.field("client_query_buffer_limit_disconnections", query);
    out.field("client_output_buffer_limit_disconnections", output);
    out.field("reply_buffer_shrinks", stats.reply_buffer_shrinks);
    out.field("reply_buffer_expands", stats.reply_buffer_expands);
}

fn event_loop(view: &View, out: &mut Report) {
    let (stats, clock) = (&view.server.stats, &view.server.clock);
    out.field("eventloop_cycles", stats.eventloop_cycles);
    out.field("eventloop_duration_sum", stats.eventloop_us);
    out.field("eventloop_duration_cmd_sum", clock.us(stats.command_ticks));
    out.field(
        "instantaneous_eventloop_cycles_per_sec",
        stats.cycles_rate.average(),
    );
    out.field(
        "instantaneous_eventloop_duration_usec",
        stats.cycle_us_rate.average(),
    );
}

/// The section hotkeys, which exists while a session of HOTKEYS exists, or the setting
/// `hotkeys-tracking` is on.
pub fn hotkeys(view: &View, out: &mut Report) {
    let hotkeys = &view.server.hotkeys;
    let active = hotkeys.session.as_ref().is_some_and(|s| s.is_active());
    out.field("hotkeys-tracking-active", u8::from(active));
    out.field("hotkeys-moment-active", u8::from(hotkeys.monitor.is_some()));
    out.field("hotkeys-used-memory", hotkeys.memory());
}

/// The section bigkeys, which exists while the setting `bigkeys-tracking` is on.
pub fn bigkeys(view: &View, out: &mut Report) {
    let Some(big) = &view.server.bigkeys else {
        return;
    };
    out.field("bigkeys-complete", u8::from(big.is_complete()));
    for kind in Type::ALL {
        let of_type = big.of(kind);
        let largest = |ranking: &Ranking| ranking.top(1).first().map_or(0, |big| big.size);
        let (elements, bytes) = (largest(&of_type.elements), largest(&of_type.bytes));
        let value = format!("max_elements={elements},max_bytes={bytes}");
        out.field(&format!("bigkeys-{}", kind.name()), value);
    }
    out.field("bigkeys-used-memory", big.memory());
}

/// The section of debugging figures, shown only if INFO names it.
pub fn debug(view: &View, out: &mut Report) {
    let (stats, clock) = (&view.server.stats, &view.server.clock);
    out.field("eventloop_duration_aof_sum", clock.us(stats.aof_ticks));
    out.field("eventloop_duration_cron_sum", clock.us(stats.cron_ticks));
    out.field("eventloop_duration_max", stats.turn_max_us);
    out.field("eventloop_cmd_per_cycle_max", stats.turn_max_commands);
}
