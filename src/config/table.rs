//! The table of settings, a row for each setting, in the groups of redis.conf, which documents the
//! settings.
//!
//! ```text
//! Row::new("port", number!(port, 6379, 0, 65535)).flags(..).aliases(..).apply(Apply::Port)
//!           name   kind    field default min max
//! ```
//!
//! Names, ranges and defaults are those of Redis 7.2; settings that only Valkey 8 has keep Valkey's
//! default. Where Redis and Valkey name a setting differently, Redis's name is the name and
//! Valkey's an alias.

use super::Config;
use super::enums::*;
use super::row::*;
use super::special::{self, check};
use crate::sys::mover;

macro_rules! yes_no {
    ($field:ident, $default:expr) => {
        SettingKind::Bool {
            get: |c| c.$field,
            set: |c, value| c.$field = value,
            default: $default,
            refuse_yes: None,
        }
    };
}

macro_rules! number_of {
    ($unit:ident, $field:ident, $default:expr, $min:expr, $max:expr) => {
        SettingKind::Number {
            get: |c| c.$field as i128,
            set: |c, value| c.$field = value as _,
            default: $default as i128,
            min: $min as i128,
            max: $max as i128,
            unit: Unit::$unit,
        }
    };
}

macro_rules! number {
    ($field:ident, $default:expr, $min:expr, $max:expr) => {
        number_of!(Plain, $field, $default, $min, $max)
    };
}

macro_rules! memory {
    ($field:ident, $default:expr, $min:expr, $max:expr) => {
        number_of!(Memory, $field, $default, $min, $max)
    };
}

macro_rules! text {
    ($field:ident, $default:expr) => {
        text!($field, $default, check::anything)
    };
    ($field:ident, $default:expr, $check:path) => {
        SettingKind::Text {
            get: |c| &c.$field,
            set: |c, value| c.$field = value,
            default: $default,
            check: $check,
        }
    };
}

macro_rules! choice {
    ($field:ident: $kind:ident, $default:expr) => {
        SettingKind::Choice {
            get: |c| c.$field.name(),
            set: |c, text| {
                $kind::from_name(text)
                    .map(|value| c.$field = value)
                    .is_some()
            },
            default: $default,
            names: || $kind::NAMES.iter().map(|(name, _)| *name).collect(),
        }
    };
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const MB: u64 = 1 << 20;

const NO_DEFRAG: &str = "Active defragmentation cannot be enabled: it requires a server compiled with a modified Jemalloc";

/// The row of the setting with this name or alias; letters match in either case.
pub fn lookup(name: &[u8]) -> Option<&'static Row> {
    let is_it = |known: &str| known.as_bytes().eq_ignore_ascii_case(name);
    TABLE.iter().find(|row| row.names().any(is_it))
}

/// The rows of all settings.
#[rustfmt::skip] // one row for each line
pub static TABLE: &[Row] = &[
    // Network
    Row::new("bind", SettingKind::Special(&special::BIND)).flags(MULTI_ARG).apply(Apply::Bind),
    Row::new("bind-source-addr", text!(bind_source_addr, "")).flags(EMPTY_IS_UNSET),
    Row::new("port", number!(port, 6379, 0, 65535)).apply(Apply::Port),
    Row::new("protected-mode", yes_no!(protected_mode, true)),
    Row::new("tcp-backlog", number!(tcp_backlog, 511, 0, INT)).flags(IMMUTABLE),
    Row::new("tcp-keepalive", number!(tcp_keepalive, 300, 0, INT)),
    Row::new("timeout", number!(timeout, 0, 0, INT)),
    Row::new("unixsocket", text!(unixsocket, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("unixsocketperm", number_of!(Octal, unixsocketperm, 0, 0, 0o777)).flags(IMMUTABLE),
    Row::new("unixsocketgroup", text!(unixsocketgroup, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("unixsocket-users", text!(unixsocket_users, "", check::unixsocket_users)).flags(EMPTY_IS_UNSET),
    Row::new("admin-unixsocket", text!(admin_unixsocket, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("admin-unixsocketperm", number_of!(Octal, admin_unixsocketperm, 0o600, 0, 0o777)).flags(IMMUTABLE),
    Row::new("socket-mark-id", number!(socket_mark_id, 0, 0, u32::MAX)).flags(IMMUTABLE),
    Row::new("maxclients", number!(maxclients, 10000, 1, u32::MAX)).apply(Apply::MaxClients),
    Row::new("max-new-connections-per-cycle", number!(max_new_connections_per_cycle, 10, 1, 1000)),
    Row::new("monitor-port", number!(monitor_port, 0, 0, 65535)).flags(IMMUTABLE),
    Row::new("monitor-bind", SettingKind::Special(&special::MONITOR_BIND)).flags(IMMUTABLE | MULTI_ARG),
    Row::new("mptcp", yes_no!(mptcp, false)).flags(IMMUTABLE | NO_EFFECT),
    Row::new("rdma-bind", text!(rdma_bind, "")).flags(NO_EFFECT),
    Row::new("rdma-port", number!(rdma_port, 0, 0, 65535)).flags(NO_EFFECT),
    Row::new("rdma-rx-size", number!(rdma_rx_size, MB, 64 * 1024, 16 * MB)).flags(IMMUTABLE | NO_EFFECT),
    Row::new("rdma-completion-vector", number!(rdma_completion_vector, -1, -1, 1024)).flags(IMMUTABLE | NO_EFFECT),
    Row::new("max-new-tls-connections-per-cycle", number!(max_new_tls_connections_per_cycle, 1, 1, 1000)),

    // TLS
    Row::new("tls-port", number!(tls_port, 0, 0, 65535)).apply(Apply::TlsPort),
    Row::new("tls-cert-file", text!(tls_cert_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-key-file", text!(tls_key_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-key-file-pass", text!(tls_key_file_pass, "")).flags(EMPTY_IS_UNSET | SENSITIVE).apply(Apply::Tls),
    Row::new("tls-client-cert-file", text!(tls_client_cert_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-client-key-file", text!(tls_client_key_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-client-key-file-pass", text!(tls_client_key_file_pass, "")).flags(EMPTY_IS_UNSET | SENSITIVE).apply(Apply::Tls),
    Row::new("tls-dh-params-file", text!(tls_dh_params_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-ca-cert-file", text!(tls_ca_cert_file, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-ca-cert-dir", text!(tls_ca_cert_dir, "")).flags(EMPTY_IS_UNSET | REAPPLY).apply(Apply::Tls),
    Row::new("tls-auth-clients", choice!(tls_auth_clients: TlsAuthClients, "yes")).apply(Apply::Tls),
    Row::new("tls-replication", yes_no!(tls_replication, false)).apply(Apply::Tls),
    Row::new("tls-cluster", yes_no!(tls_cluster, false)).apply(Apply::Tls),
    Row::new("tls-protocols", text!(tls_protocols, "")).flags(EMPTY_IS_UNSET).apply(Apply::Tls),
    Row::new("tls-ciphers", text!(tls_ciphers, "")).flags(EMPTY_IS_UNSET).apply(Apply::Tls),
    Row::new("tls-ciphersuites", text!(tls_ciphersuites, "")).flags(EMPTY_IS_UNSET).apply(Apply::Tls),
    Row::new("tls-prefer-server-ciphers", yes_no!(tls_prefer_server_ciphers, false)).apply(Apply::Tls),
    Row::new("tls-session-caching", yes_no!(tls_session_caching, true)).apply(Apply::Tls),
    Row::new("tls-session-cache-size", number!(tls_session_cache_size, 20480, 0, INT)).apply(Apply::Tls),
    Row::new("tls-session-cache-timeout", number!(tls_session_cache_timeout, 300, 0, INT)).apply(Apply::Tls),

    Row::new("tls-auth-clients-user", choice!(tls_auth_clients_user: TlsAuthClientsUser, "off")),
    Row::new("tls-auto-reload-interval", number!(tls_auto_reload_interval, 0, 0, INT)),

    // General
    Row::new("daemonize", yes_no!(daemonize, false)).flags(IMMUTABLE),
    Row::new("supervised", choice!(supervised: Supervised, "no")).flags(IMMUTABLE),
    Row::new("pidfile", text!(pidfile, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("loglevel", choice!(loglevel: LogLevel, "notice")).apply(Apply::LogLevel),
    Row::new("logfile", text!(logfile, "")).flags(IMMUTABLE),
    Row::new("log-format", choice!(log_format: LogFormat, "legacy")).apply(Apply::LogFormat),
    Row::new("log-timestamp-format", choice!(log_timestamp_format: LogTimestampFormat, "legacy")).apply(Apply::LogFormat),
    Row::new("syslog-enabled", yes_no!(syslog_enabled, false)).flags(IMMUTABLE),
    Row::new("syslog-ident", text!(syslog_ident, "redis")).flags(IMMUTABLE),
    Row::new("syslog-facility", choice!(syslog_facility: SyslogFacility, "local0")).flags(IMMUTABLE),
    Row::new("crash-log-enabled", yes_no!(crash_log_enabled, true)),
    Row::new("crash-memcheck-enabled", yes_no!(crash_memcheck_enabled, true)).flags(NO_EFFECT),
    Row::new("use-exit-on-panic", yes_no!(use_exit_on_panic, false)).flags(HIDDEN),
    Row::new("databases", number!(databases, 16, 1, INT)).flags(IMMUTABLE),
    Row::new("hash-seed", text!(hash_seed, "")).flags(IMMUTABLE | SENSITIVE | EMPTY_IS_UNSET),
    Row::new("always-show-logo", yes_no!(always_show_logo, false)).flags(IMMUTABLE),
    Row::new("hide-user-data-from-log", yes_no!(hide_user_data_from_log, true)),
    Row::new("set-proc-title", yes_no!(set_proc_title, true)).flags(IMMUTABLE),
    Row::new("proc-title-template", text!(proc_title_template, "{title} {listen-addr} {server-mode}", check::proc_title_template)).apply(Apply::ProcTitle),
    Row::new("locale-collate", text!(locale_collate, "")).apply(Apply::LocaleCollate),
    Row::new("ignore-warnings", text!(ignore_warnings, "")),
    Row::new("availability-zone", text!(availability_zone, "", check::availability_zone)),
    Row::new("extended-redis-compatibility", yes_no!(extended_redis_compatibility, true)),
    Row::new("enable-protected-configs", choice!(enable_protected_configs: Enable, "no")).flags(IMMUTABLE),
    Row::new("enable-debug-command", choice!(enable_debug_command: Enable, "no")).flags(IMMUTABLE),
    Row::new("enable-module-command", choice!(enable_module_command: Enable, "no")).flags(IMMUTABLE),
    Row::new("enable-debug-assert", yes_no!(enable_debug_assert, false)).flags(IMMUTABLE | HIDDEN | NO_EFFECT),
    Row::new("debug-context", text!(debug_context, "")).flags(HIDDEN | DEBUG | NO_EFFECT),
    Row::new("watchdog-period", WATCHDOG_PERIOD).flags(HIDDEN).apply(Apply::WatchdogPeriod),
    Row::new("dir", text!(dir, "")).flags(PROTECTED | DENY_LOADING).apply(Apply::Dir),

    // Snapshots
    Row::new("save", SettingKind::Special(&special::SAVE)).flags(MULTI_ARG),
    Row::new("stop-writes-on-bgsave-error", yes_no!(stop_writes_on_bgsave_error, true)),
    Row::new("rdbcompression", yes_no!(rdbcompression, true)),
    Row::new("rdbchecksum", yes_no!(rdbchecksum, true)).flags(IMMUTABLE),
    Row::new("rdb-version", choice!(rdb_version: RdbVersion, "11")),
    Row::new("rdb-version-check", choice!(rdb_version_check: RdbVersionCheck, "strict")),
    Row::new("rdb-skip-unknown", yes_no!(rdb_skip_unknown, false)),
    Row::new("rdb-del-sync-files", yes_no!(rdb_del_sync_files, false)),
    Row::new("rdb-save-incremental-fsync", yes_no!(rdb_save_incremental_fsync, true)),
    Row::new("child-stall-timeout", number!(child_stall_timeout, 3600, 0, INT)),
    Row::new("rdb-key-save-delay", number!(rdb_key_save_delay, 0, i32::MIN, INT)).flags(HIDDEN),
    Row::new("key-load-delay", number!(key_load_delay, 0, i32::MIN, INT)).flags(HIDDEN),
    Row::new("loading-process-events-interval-bytes", number!(loading_process_events_interval_bytes, 2 * MB, 1024, INT)).flags(HIDDEN),
    Row::new("sanitize-dump-payload", choice!(sanitize_dump_payload: SanitizeDumpPayload, "no")).flags(DEBUG),
    Row::new("dbfilename", text!(dbfilename, "dump.rdb", check::dbfilename)).flags(PROTECTED),

    // Append only file
    Row::new("appendonly", yes_no!(appendonly, false)).flags(DENY_ASYNC_LOADING).apply(Apply::AppendOnly),
    Row::new("appendfilename", text!(appendfilename, "appendonly.aof", check::appendfilename)).flags(IMMUTABLE),
    Row::new("appenddirname", text!(appenddirname, "appendonlydir", check::appenddirname)).flags(IMMUTABLE),
    Row::new("appendfsync", choice!(appendfsync: AppendFsync, "everysec")),
    Row::new("no-appendfsync-on-rewrite", yes_no!(no_appendfsync_on_rewrite, false)),
    Row::new("auto-aof-rewrite-percentage", number!(auto_aof_rewrite_percentage, 100, 0, INT)).apply(Apply::AutoAofRewrite),
    Row::new("auto-aof-rewrite-min-size", memory!(auto_aof_rewrite_min_size, 64 * MB, 0, LONG)).apply(Apply::AutoAofRewrite),
    Row::new("aof-load-truncated", yes_no!(aof_load_truncated, true)),
    Row::new("aof-use-rdb-preamble", yes_no!(aof_use_rdb_preamble, true)),
    Row::new("aof-timestamp-enabled", yes_no!(aof_timestamp_enabled, false)),
    Row::new("aof-rewrite-incremental-fsync", yes_no!(aof_rewrite_incremental_fsync, true)),
    Row::new("aof-disable-auto-gc", yes_no!(aof_disable_auto_gc, false)).flags(HIDDEN).apply(Apply::AofAutoGc),

    // Shutdown
    Row::new("shutdown-timeout", number!(shutdown_timeout, 10, 0, INT)),
    Row::new("shutdown-on-sigint", SettingKind::Special(&special::SHUTDOWN_ON_SIGINT)).flags(MULTI_ARG),
    Row::new("shutdown-on-sigterm", SettingKind::Special(&special::SHUTDOWN_ON_SIGTERM)).flags(MULTI_ARG),

    // Replication
    Row::new("replicaof", SettingKind::Special(&special::REPLICAOF)).flags(IMMUTABLE | MULTI_ARG).aliases(&["slaveof"]),
    Row::new("masterauth", text!(masterauth, "")).flags(EMPTY_IS_UNSET | SENSITIVE).aliases(&["primaryauth"]),
    Row::new("masteruser", text!(masteruser, "")).flags(EMPTY_IS_UNSET | SENSITIVE).aliases(&["primaryuser"]),
    Row::new("replica-serve-stale-data", yes_no!(replica_serve_stale_data, true)).aliases(&["slave-serve-stale-data"]),
    Row::new("replica-read-only", yes_no!(replica_read_only, true)).aliases(&["slave-read-only"]),
    Row::new("replica-ignore-maxmemory", yes_no!(replica_ignore_maxmemory, true)).aliases(&["slave-ignore-maxmemory"]),
    Row::new("replica-ignore-disk-write-errors", yes_no!(replica_ignore_disk_write_errors, false)),
    Row::new("replica-accept-empty-primary", yes_no!(replica_accept_empty_primary, false)),
    Row::new("replica-lazy-flush", yes_no!(replica_lazy_flush, false)).aliases(&["slave-lazy-flush"]),
    Row::new("replica-priority", number!(replica_priority, 100, 0, INT)).aliases(&["slave-priority"]),
    Row::new("replica-announced", yes_no!(replica_announced, true)),
    Row::new("replica-announce-ip", text!(replica_announce_ip, "")).flags(EMPTY_IS_UNSET).aliases(&["slave-announce-ip"]),
    Row::new("replica-announce-port", number!(replica_announce_port, 0, 0, 65535)).aliases(&["slave-announce-port"]),
    Row::new("repl-diskless-sync", yes_no!(repl_diskless_sync, true)),
    Row::new("repl-diskless-sync-delay", number!(repl_diskless_sync_delay, 5, 0, INT)),
    Row::new("repl-diskless-sync-max-replicas", number!(repl_diskless_sync_max_replicas, 0, 0, INT)),
    Row::new("repl-diskless-load", choice!(repl_diskless_load: ReplDisklessLoad, "disabled")).flags(DENY_LOADING),
    Row::new("dual-channel-replication-enabled", yes_no!(dual_channel_replication_enabled, false)),
    Row::new("repl-rdb-channel", yes_no!(repl_rdb_channel, true)).flags(HIDDEN),
    Row::new("replica-full-sync-buffer-limit", memory!(replica_full_sync_buffer_limit, 0, 0, LONG)),
    Row::new("repl-mptcp", yes_no!(repl_mptcp, false)).flags(NO_EFFECT),
    Row::new("repl-ping-replica-period", number!(repl_ping_replica_period, 10, 1, INT)).aliases(&["repl-ping-slave-period"]),
    Row::new("repl-ping-timestamps", yes_no!(repl_ping_timestamps, false)),
    Row::new("repl-timeout", number!(repl_timeout, 60, 1, INT)),
    Row::new("repl-disable-tcp-nodelay", yes_no!(repl_disable_tcp_nodelay, false)),
    Row::new("repl-throttling-enabled", yes_no!(repl_throttling_enabled, false)),
    Row::new("repl-backlog-size", memory!(repl_backlog_size, MB, 1, LONG)).apply(Apply::ReplBacklogSize),
    Row::new("repl-backlog-ttl", number!(repl_backlog_ttl, 3600, 0, LONG)),
    Row::new("min-replicas-to-write", number!(min_replicas_to_write, 0, 0, INT)).aliases(&["min-slaves-to-write"]).apply(Apply::GoodReplicas),
    Row::new("min-replicas-max-lag", number!(min_replicas_max_lag, 10, 0, INT)).aliases(&["min-slaves-max-lag"]).apply(Apply::GoodReplicas),
    Row::new("propagation-error-behavior", choice!(propagation_error_behavior: PropagationErrorBehavior, "ignore")),
    Row::new("import-mode", yes_no!(import_mode, false)).flags(DENY_LOADING).apply(Apply::ImportMode),

    // Access control
    Row::new("requirepass", text!(requirepass, "")).flags(EMPTY_IS_UNSET | SENSITIVE).apply(Apply::RequirePass),
    Row::new("aclfile", text!(aclfile, "")).flags(IMMUTABLE),
    Row::new("acllog-max-len", number!(acllog_max_len, 128, 0, LONG)),
    Row::new("acl-pubsub-default", choice!(acl_pubsub_default: AclPubsubDefault, "resetchannels")).apply(Apply::AclPubsubDefault),

    // Memory
    Row::new("maxmemory", memory!(maxmemory, 0, 0, u64::MAX)).apply(Apply::MaxMemory),
    Row::new("maxmemory-policy", choice!(maxmemory_policy: MaxmemoryPolicy, "noeviction")).apply(Apply::MaxMemoryPolicy),
    Row::new("maxmemory-samples", number!(maxmemory_samples, 5, 1, 64)),
    Row::new("maxmemory-eviction-tenacity", number!(maxmemory_eviction_tenacity, 10, 0, 100)),
    Row::new("maxmemory-clients", SettingKind::Special(&special::MAXMEMORY_CLIENTS)).apply(Apply::MaxMemoryClients),
    Row::new("client-query-buffer-limit", memory!(client_query_buffer_limit, 1024 * MB, MB, LONG)),
    Row::new("client-output-buffer-limit", SettingKind::Special(&special::CLIENT_OUTPUT_BUFFER_LIMIT)).flags(MULTI_ARG),
    Row::new("proto-max-bulk-len", memory!(proto_max_bulk_len, 512 * MB, MB, LONG)),
    Row::new("tracking-table-max-keys", number!(tracking_table_max_keys, 1_000_000, 0, LONG)),
    Row::new("lfu-log-factor", number!(lfu_log_factor, 10, 0, INT)),
    Row::new("lfu-decay-time", number!(lfu_decay_time, 1, 0, INT)),
    Row::new("active-expire-effort", number!(active_expire_effort, 1, 1, 10)),
    Row::new("lazyexpire-nested-arbitrary-keys", yes_no!(lazyexpire_nested_arbitrary_keys, true)).flags(HIDDEN | NO_EFFECT),
    Row::new("lazyfree-lazy-eviction", yes_no!(lazyfree_lazy_eviction, false)),
    Row::new("lazyfree-lazy-expire", yes_no!(lazyfree_lazy_expire, false)),
    Row::new("lazyfree-lazy-server-del", yes_no!(lazyfree_lazy_server_del, false)),
    Row::new("lazyfree-lazy-user-del", yes_no!(lazyfree_lazy_user_del, false)),
    Row::new("lazyfree-lazy-user-flush", yes_no!(lazyfree_lazy_user_flush, false)),
    Row::new("activedefrag", ACTIVEDEFRAG),
    Row::new("active-defrag-ignore-bytes", memory!(active_defrag_ignore_bytes, 100 * MB, 1, LONG)),
    Row::new("active-defrag-threshold-lower", number!(active_defrag_threshold_lower, 10, 0, 1000)),
    Row::new("active-defrag-threshold-upper", number!(active_defrag_threshold_upper, 100, 0, 1000)),
    Row::new("active-defrag-cycle-min", number!(active_defrag_cycle_min, 1, 1, 99)),
    Row::new("active-defrag-cycle-max", number!(active_defrag_cycle_max, 25, 1, 99)),
    Row::new("active-defrag-cycle-us", number!(active_defrag_cycle_us, 500, 0, 100_000)),
    Row::new("active-defrag-max-scan-fields", number!(active_defrag_max_scan_fields, 1000, 1, LONG)),
    Row::new("jemalloc-bg-thread", yes_no!(jemalloc_bg_thread, true)).apply(Apply::JemallocBgThread),
    Row::new("disable-thp", yes_no!(disable_thp, true)).flags(IMMUTABLE),
    Row::new("lock-memory", yes_no!(lock_memory, false)).flags(IMMUTABLE),
    Row::new("oom-score-adj", choice!(oom_score_adj: OomScoreAdj, "no")).apply(Apply::OomScoreAdj),
    Row::new("oom-score-adj-values", SettingKind::Special(&special::OOM_SCORE_ADJ_VALUES)).flags(MULTI_ARG).apply(Apply::OomScoreAdj),

    // Threads
    Row::new("io-threads", number!(io_threads, 1, 1, 128)).flags(IMMUTABLE | NO_EFFECT),
    Row::new("io-threads-do-reads", yes_no!(io_threads_do_reads, false)).flags(IMMUTABLE | NO_EFFECT),
    Row::new("events-per-io-thread", number!(events_per_io_thread, 2, 0, INT)).flags(HIDDEN | NO_EFFECT),
    Row::new("io-threads-always-active", yes_no!(io_threads_always_active, false)).flags(HIDDEN | NO_EFFECT),
    Row::new("min-io-threads-avoid-copy-reply", number!(min_io_threads_avoid_copy_reply, 7, 0, INT)).flags(HIDDEN | NO_EFFECT),
    Row::new("min-string-size-avoid-copy-reply", number!(min_string_size_avoid_copy_reply, 16384, 0, INT)).flags(HIDDEN | NO_EFFECT),
    Row::new("min-string-size-avoid-copy-reply-threaded", number!(min_string_size_avoid_copy_reply_threaded, 65536, 0, INT)).flags(HIDDEN | NO_EFFECT),
    Row::new("vset-force-single-threaded-execution", yes_no!(vset_force_single_threaded_execution, false)).flags(NO_EFFECT),
    Row::new("prefetch-batch-max-size", number!(prefetch_batch_max_size, 16, 0, 128)),
    Row::new("server_cpulist", text!(server_cpulist, "")).flags(IMMUTABLE | EMPTY_IS_UNSET).aliases(&["server-cpulist"]),
    Row::new("bio_cpulist", text!(bio_cpulist, "")).flags(IMMUTABLE | EMPTY_IS_UNSET).aliases(&["bio-cpulist"]),
    Row::new("aof_rewrite_cpulist", text!(aof_rewrite_cpulist, "")).flags(IMMUTABLE | EMPTY_IS_UNSET).aliases(&["aof-rewrite-cpulist"]),
    Row::new("bgsave_cpulist", text!(bgsave_cpulist, "")).flags(IMMUTABLE | EMPTY_IS_UNSET).aliases(&["bgsave-cpulist"]),

    // Scripts
    Row::new("lua-enabled", yes_no!(lua_enabled, true)).flags(IMMUTABLE),
    Row::new("lua-enable-insecure-api", yes_no!(lua_enable_insecure_api, false)).flags(HIDDEN | PROTECTED).aliases(&["lua-enable-deprecated-api"]).apply(Apply::LuaInsecureApi),
    Row::new("busy-reply-threshold", number!(busy_reply_threshold, 5000, 0, LONG)).aliases(&["lua-time-limit"]),

    // Observation
    Row::new("slowlog-log-slower-than", number!(slowlog_log_slower_than, 10000, -1, LONG)).aliases(&["commandlog-execution-slower-than"]),
    Row::new("slowlog-max-len", number!(slowlog_max_len, 128, 0, LONG)).aliases(&["commandlog-slow-execution-max-len"]).apply(Apply::SlowlogMaxLen),
    Row::new("commandlog-request-larger-than", number!(commandlog_request_larger_than, MB, -1, LONG)),
    Row::new("commandlog-large-request-max-len", number!(commandlog_large_request_max_len, 128, 0, LONG)).apply(Apply::SlowlogMaxLen),
    Row::new("commandlog-reply-larger-than", number!(commandlog_reply_larger_than, MB, -1, LONG)),
    Row::new("commandlog-large-reply-max-len", number!(commandlog_large_reply_max_len, 128, 0, LONG)).apply(Apply::SlowlogMaxLen),
    Row::new("latency-monitor-threshold", number!(latency_monitor_threshold, 0, 0, LONG)),
    Row::new("latency-tracking", yes_no!(latency_tracking, true)).apply(Apply::LatencyTracking),
    Row::new("latency-tracking-info-percentiles", SettingKind::Special(&special::LATENCY_TRACKING_INFO_PERCENTILES)).flags(MULTI_ARG),
    Row::new("bigkeys-tracking", yes_no!(bigkeys_tracking, false)),
    Row::new("key-size-histograms", yes_no!(key_size_histograms, true)).flags(IMMUTABLE),
    Row::new("hotkeys-tracking", yes_no!(hotkeys_tracking, false)),
    Row::new("hotkeys-sample-ratio", number!(hotkeys_sample_ratio, 128, 1, 1_000_000)),
    Row::new("hotkeys-half-life", number!(hotkeys_half_life, 30, 1, 86400)),
    Row::new("trace-recorder", yes_no!(trace_recorder, false)),
    Row::new("trace-slow-turn-us", number!(trace_slow_turn_us, 100_000, 0, LONG)),
    Row::new("teach", choice!(teach: Teach, "no")).flags(IMMUTABLE),
    Row::new("trace-out", text!(trace_out, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("trace-record", text!(trace_record, "")).flags(IMMUTABLE | EMPTY_IS_UNSET),
    Row::new("trace-record-max-size", memory!(trace_record_max_size, 1024 * MB, MB, LONG)),
    Row::new("notify-keyspace-events", SettingKind::Special(&special::NOTIFY_KEYSPACE_EVENTS)).apply(Apply::NotifyKeyspaceEvents),

    // Encodings
    Row::new("hash-max-listpack-entries", number!(hash_max_listpack_entries, 512, 0, LONG)).aliases(&["hash-max-ziplist-entries"]),
    Row::new("hash-max-listpack-value", memory!(hash_max_listpack_value, 64, 0, LONG)).aliases(&["hash-max-ziplist-value"]),
    Row::new("list-max-listpack-size", number!(list_max_listpack_size, -2, i32::MIN, INT)).aliases(&["list-max-ziplist-size"]),
    Row::new("list-compress-depth", number!(list_compress_depth, 0, 0, INT)),
    Row::new("set-max-intset-entries", number!(set_max_intset_entries, 512, 0, LONG)),
    Row::new("set-max-listpack-entries", number!(set_max_listpack_entries, 128, 0, LONG)),
    Row::new("set-max-listpack-value", number!(set_max_listpack_value, 64, 0, LONG)),
    Row::new("zset-max-listpack-entries", number!(zset_max_listpack_entries, 128, 0, LONG)).aliases(&["zset-max-ziplist-entries"]),
    Row::new("zset-max-listpack-value", memory!(zset_max_listpack_value, 64, 0, LONG)).aliases(&["zset-max-ziplist-value"]),
    Row::new("hll-sparse-max-bytes", memory!(hll_sparse_max_bytes, 3000, 0, LONG)),
    Row::new("stream-node-max-bytes", memory!(stream_node_max_bytes, 4096, 0, LONG)),
    Row::new("stream-node-max-entries", number!(stream_node_max_entries, 100, 0, LONG)),

    // Timing
    Row::new("hz", HZ).apply(Apply::Hz),
    Row::new("dynamic-hz", yes_no!(dynamic_hz, true)),
    Row::new("activerehashing", yes_no!(activerehashing, true)),

    // Cluster
    Row::new("cluster-enabled", yes_no!(cluster_enabled, false)).flags(IMMUTABLE),
    Row::new("cluster-databases", number!(cluster_databases, 1, 1, INT)).flags(IMMUTABLE),
    Row::new("cluster-config-save-behavior", choice!(cluster_config_save_behavior: ClusterConfigSaveBehavior, "sync")),
    Row::new("cluster-compatibility-sample-ratio", number!(cluster_compatibility_sample_ratio, 0, 0, 100)).flags(NO_EFFECT),
    Row::new("cluster-message-gossip-perc", number!(cluster_message_gossip_perc, 10, 0, 100)).flags(HIDDEN),
    Row::new("cluster-slot-migration-log-max-len", number!(cluster_slot_migration_log_max_len, 1000, 0, LONG)),
    Row::new("slot-migration-max-failover-repl-bytes", memory!(slot_migration_max_failover_repl_bytes, 0, -1, LONG)),
    Row::new("cluster-announce-client-port", number!(cluster_announce_client_port, 0, 0, 65535)),
    Row::new("cluster-announce-client-tls-port", number!(cluster_announce_client_tls_port, 0, 0, 65535)),
    Row::new("cluster-config-file", text!(cluster_config_file, "nodes.conf", check::cluster_config_file)).flags(IMMUTABLE),
    Row::new("cluster-node-timeout", number!(cluster_node_timeout, 15000, 0, LONG)),
    Row::new("cluster-port", number!(cluster_port, 0, 0, 65535)).flags(IMMUTABLE),
    Row::new("cluster-migration-barrier", number!(cluster_migration_barrier, 1, 0, INT)),
    Row::new("cluster-replica-validity-factor", number!(cluster_replica_validity_factor, 10, 0, INT)).aliases(&["cluster-slave-validity-factor"]),
    Row::new("cluster-require-full-coverage", yes_no!(cluster_require_full_coverage, true)),
    Row::new("cluster-replica-no-failover", yes_no!(cluster_replica_no_failover, false)).aliases(&["cluster-slave-no-failover"]).apply(Apply::ClusterFlags),
    Row::new("cluster-allow-replica-migration", yes_no!(cluster_allow_replica_migration, true)),
    Row::new("cluster-allow-reads-when-down", yes_no!(cluster_allow_reads_when_down, false)),
    Row::new("cluster-allow-pubsubshard-when-down", yes_no!(cluster_allow_pubsubshard_when_down, true)),
    Row::new("cluster-link-sendbuf-limit", memory!(cluster_link_sendbuf_limit, 0, 0, LONG)),
    Row::new("cluster-announce-ip", text!(cluster_announce_ip, "", check::announced_ip)).flags(EMPTY_IS_UNSET).apply(Apply::ClusterAnnounceIp),
    Row::new("cluster-announce-client-ipv4", text!(cluster_announce_client_ipv4, "", check::ipv4)).flags(EMPTY_IS_UNSET).apply(Apply::ClusterAnnounceIp),
    Row::new("cluster-announce-client-ipv6", text!(cluster_announce_client_ipv6, "", check::ipv6)).flags(EMPTY_IS_UNSET).apply(Apply::ClusterAnnounceIp),
    Row::new("cluster-announce-port", number!(cluster_announce_port, 0, 0, 65535)).apply(Apply::ClusterAnnouncePorts),
    Row::new("cluster-announce-tls-port", number!(cluster_announce_tls_port, 0, 0, 65535)).apply(Apply::ClusterAnnouncePorts),
    Row::new("cluster-announce-bus-port", number!(cluster_announce_bus_port, 0, 0, 65535)).apply(Apply::ClusterAnnouncePorts),
    Row::new("cluster-announce-hostname", text!(cluster_announce_hostname, "", check::hostname)).flags(EMPTY_IS_UNSET).apply(Apply::ClusterAnnounceHostname),
    Row::new("cluster-announce-human-nodename", text!(cluster_announce_human_nodename, "", check::human_nodename)).flags(EMPTY_IS_UNSET).apply(Apply::ClusterAnnounceHumanNodename),
    Row::new("cluster-preferred-endpoint-type", choice!(cluster_preferred_endpoint_type: ClusterPreferredEndpointType, "ip")),
    Row::new("cluster-blacklist-ttl", number!(cluster_blacklist_ttl, 60, i64::MIN, LONG)),
    Row::new("cluster-ping-interval", number!(cluster_ping_interval, 1000, 0, LONG)).flags(HIDDEN),
    Row::new("cluster-slot-stats-enabled", yes_no!(cluster_slot_stats_enabled, false)),
    Row::new("cluster-manual-failover-timeout", number!(cluster_manual_failover_timeout, 5000, 1, INT)),
];

/// `watchdog-period`: at least two ticks of the cron, since each tick resets the watchdog; zero is
/// off.
const WATCHDOG_PERIOD: SettingKind = SettingKind::Number {
    get: |c| c.watchdog_period.into(),
    set: |c, value| {
        let shortest = 2000 / c.hz.max(1);
        c.watchdog_period = if value == 0 {
            0
        } else {
            shortest.max(value as u32)
        };
    },
    default: 0,
    min: 0,
    max: INT as i128,
    unit: Unit::Plain,
};

/// `hz`: any number is accepted and brought into 1..=500, as in Redis.
const HZ: SettingKind = SettingKind::Number {
    get: |c| c.hz.into(),
    set: |c, value| c.hz = value.clamp(1, 500) as u32,
    default: 10,
    min: 0,
    max: INT as i128,
    unit: Unit::Plain,
};

const ACTIVEDEFRAG: SettingKind = SettingKind::Bool {
    get: |c: &Config| c.activedefrag,
    set: |c, value| c.activedefrag = value,
    default: false,
    refuse_yes: if mover::AVAILABLE {
        None
    } else {
        Some(NO_DEFRAG)
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(Row::names).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// The text of each setting's default is parsed to the same value, and so are the ends of the
    /// setting's range, which proves that the field is wide enough.
    #[test]
    fn values_survive_their_text() {
        let default = Config::default();
        for row in TABLE.iter().filter(|row| !row.is(MULTI_ARG)) {
            let text = row.get(&default);
            let mut config = Config::default();
            if !(text.is_empty() && row.set(&mut config, &[b""], Origin::Set).is_err()) {
                assert_eq!(
                    row.set(&mut config, &[&text], Origin::Set),
                    Ok(()),
                    "{}",
                    row.name
                );
            }
            assert_eq!(row.get(&config), text, "{}", row.name);
            let SettingKind::Number {
                get, set, min, max, ..
            } = row.kind
            else {
                continue;
            };
            for end in [min, max] {
                set(&mut config, end);
                let clamped = ["hz", "watchdog-period"].contains(&row.name);
                assert!(
                    clamped || get(&config) == end,
                    "{} can't hold {end}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn every_choice_is_read_back() {
        for row in TABLE {
            let SettingKind::Choice { names, .. } = row.kind else {
                continue;
            };
            for name in names() {
                let mut config = Config::default();
                let upper = name.to_ascii_uppercase();
                assert_eq!(
                    row.set(&mut config, &[upper.as_bytes()], Origin::Set),
                    Ok(())
                );
                assert_eq!(row.get(&config), name.as_bytes(), "{}", row.name);
            }
        }
    }

    #[test]
    fn defaults_are_redis_s() {
        let config = Config::default();
        assert_eq!((config.port, config.databases, config.hz), (6379, 16, 10));
        assert_eq!(config.bind, ["*", "-::*"]);
        assert_eq!(
            config.client_output_buffer_limit[ClientClass::Replica as usize].hard,
            256 << 20
        );
        assert_eq!(config.save.len(), 3);
        assert_eq!(config.proto_max_bulk_len, 512 << 20);
    }
}
