//! Settings: one table for redis.conf, command-line arguments and CONFIG.
//!
//! ```text
//!  redis.conf, includes ─┐                       ┌─ CONFIG GET      Config::get
//!  standard input "-"   ─┼─ load ─> Config ──────┼─ CONFIG SET      Config::set -> Change -> the server applies
//!  --name value         ─┘   ▲    typed fields   └─ CONFIG REWRITE  rewrite::rewrite
//!                            │        ▲
//!                            └─ TABLE ┘   one row each: name, aliases, kind (range, default), flags, Apply
//! ```
//!
//! The rest of the server reads plain typed fields (`config.maxmemory`); only this module uses the
//! names of settings. The defaults are stated once, in the rows: `Config::default()` starts from
//! zeroes, and every row writes its default.
//!
//! If a changed setting needs more than a new value in its field (another listening socket, a
//! smaller backlog), its row names the step that the server must do, an [`Apply`]. [`Config::set`]
//! changes the fields and returns a [`Change`] with these steps; the server does the steps, and
//! calls [`Config::rollback`] if a step fails.
//!
//! **Invariants**
//! - The default of every setting, and the ends of its range, survive a write and a read
//!   (`table::tests::values_survive_their_text`).
//! - CONFIG SET sets all given settings or none: no field changes unless every value is valid
//!   (`tests::set_is_all_or_nothing`).
//! - redis.conf documents every row that is not hidden, with its default
//!   (`tests::redis_conf_documents_every_setting_with_its_default`).
//!
//! Limits: `dir` changes the working directory of the process, as in Redis: relative paths in later
//! lines of the configuration start in the new directory. The name of a setting is looked up by a
//! scan of the table, as CONFIG is a rare command.
//!
//! Rejected: a map from names to strings, which each use would parse again; and a macro that
//! generates struct and table together, in which `grep` would not find a field.

mod args;
pub mod enums;
mod parse;
mod process_title;
mod rewrite;
mod row;
mod set;
mod special;
mod table;

pub use args::{Sources, parse_args};
pub use enums::*;
pub use parse::{Directives, StartError, expanded_text, load};
pub use rewrite::{Extent, RewriteError, rewrite};
pub use row::*;
pub use set::{Access, Change, SetError, Step};
pub use table::{TABLE, lookup};

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::texts::{self, Words};

/// Declares the struct [`Config`] and `blank()`, which sets all fields to zero, empty or `None`.
/// The rows of the settings table then write the defaults, so that a default is stated only in its
/// row.
macro_rules! blank_struct {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)+ }

        impl $name {
            fn blank() -> $name {
                $name { $($field: <$kind>::default(),)+ }
            }
        }
    };
}

blank_struct! {
/// The values of all settings. A field has its setting's name with underscores; redis.conf
/// documents the settings.
pub struct Config {
    // Network
    pub bind: Vec<String>,
    pub bind_source_addr: Text,
    pub port: u16,
    pub protected_mode: bool,
    pub tcp_backlog: u32,
    pub tcp_keepalive: u32,
    pub timeout: u32,
    pub unixsocket: Text,
    /// The mode bits of the Unix socket's file; zero leaves the bits to the umask.
    pub unixsocketperm: u32,
    pub unixsocketgroup: Text,
    pub unixsocket_users: Text,
    pub admin_unixsocket: Text,
    pub admin_unixsocketperm: u32,
    pub socket_mark_id: u32,
    pub maxclients: u32,
    pub max_new_connections_per_cycle: u32,
    pub monitor_port: u16,
    pub monitor_bind: Vec<String>,
    pub max_new_tls_connections_per_cycle: u32,
    pub mptcp: bool,
    pub rdma_bind: Text,
    pub rdma_port: u16,
    pub rdma_rx_size: u32,
    pub rdma_completion_vector: i32,

    // TLS
    pub tls_port: u16,
    pub tls_cert_file: Text,
    pub tls_key_file: Text,
    pub tls_key_file_pass: Text,
    pub tls_client_cert_file: Text,
    pub tls_client_key_file: Text,
    pub tls_client_key_file_pass: Text,
    pub tls_dh_params_file: Text,
    pub tls_ca_cert_file: Text,
    pub tls_ca_cert_dir: Text,
    pub tls_auth_clients: TlsAuthClients,
    pub tls_auth_clients_user: TlsAuthClientsUser,
    pub tls_auto_reload_interval: u32,
    pub tls_replication: bool,
    pub tls_cluster: bool,
    pub tls_protocols: Text,
    pub tls_ciphers: Text,
    pub tls_ciphersuites: Text,
    pub tls_prefer_server_ciphers: bool,
    pub tls_session_caching: bool,
    pub tls_session_cache_size: u32,
    pub tls_session_cache_timeout: u32,

    // General
    pub daemonize: bool,
    pub supervised: Supervised,
    pub pidfile: Text,
    pub loglevel: LogLevel,
    pub logfile: Text,
    pub log_format: LogFormat,
    pub log_timestamp_format: LogTimestampFormat,
    pub syslog_enabled: bool,
    pub syslog_ident: Text,
    pub syslog_facility: SyslogFacility,
    pub crash_log_enabled: bool,
    pub crash_memcheck_enabled: bool,
    pub use_exit_on_panic: bool,
    pub databases: u32,
    pub hash_seed: Text,
    pub always_show_logo: bool,
    pub hide_user_data_from_log: bool,
    pub set_proc_title: bool,
    pub proc_title_template: Text,
    pub locale_collate: Text,
    pub ignore_warnings: Text,
    pub availability_zone: Text,
    pub extended_redis_compatibility: bool,
    pub enable_protected_configs: Enable,
    pub enable_debug_command: Enable,
    pub enable_module_command: Enable,
    pub enable_debug_assert: bool,
    pub debug_context: Text,
    pub watchdog_period: u32,
    /// The server's working directory, as an absolute path.
    pub dir: Text,

    // Snapshots
    pub save: Vec<SavePoint>,
    pub stop_writes_on_bgsave_error: bool,
    pub rdbcompression: bool,
    pub rdbchecksum: bool,
    pub rdb_version: RdbVersion,
    pub rdb_version_check: RdbVersionCheck,
    /// Whether values of types that this server does not have are left out when an RDB file is
    /// loaded, instead of ending the load.
    pub rdb_skip_unknown: bool,
    pub rdb_del_sync_files: bool,
    pub rdb_save_incremental_fsync: bool,
    /// Seconds without progress after which a saving child is ended; 0 is never.
    pub child_stall_timeout: u32,
    /// For tests: the microseconds of sleep after each key that a saving child has written. A
    /// negative value `-n` sleeps one microsecond after every `n` keys.
    pub rdb_key_save_delay: i32,
    /// For tests: the microseconds of sleep after each loaded key; a negative value `-n` sleeps one
    /// microsecond after every `n` keys.
    pub key_load_delay: i32,
    pub loading_process_events_interval_bytes: u32,
    pub sanitize_dump_payload: SanitizeDumpPayload,
    pub dbfilename: Text,

    // Append only file
    pub appendonly: bool,
    pub appendfilename: Text,
    pub appenddirname: Text,
    pub appendfsync: AppendFsync,
    pub no_appendfsync_on_rewrite: bool,
    pub auto_aof_rewrite_percentage: u32,
    pub auto_aof_rewrite_min_size: u64,
    pub aof_load_truncated: bool,
    pub aof_use_rdb_preamble: bool,
    pub aof_timestamp_enabled: bool,
    pub aof_rewrite_incremental_fsync: bool,
    pub aof_disable_auto_gc: bool,

    // Shutdown
    pub shutdown_timeout: u32,
    pub shutdown_on_sigint: ShutdownFlags,
    pub shutdown_on_sigterm: ShutdownFlags,

    // Replication
    /// The address of the primary; `None` on a primary. REPLICAOF changes this setting, too.
    pub replicaof: Option<HostPort>,
    pub masterauth: Text,
    pub masteruser: Text,
    pub replica_serve_stale_data: bool,
    pub replica_read_only: bool,
    pub replica_ignore_maxmemory: bool,
    pub replica_ignore_disk_write_errors: bool,
    pub replica_lazy_flush: bool,
    pub replica_accept_empty_primary: bool,
    pub replica_priority: u32,
    pub replica_announced: bool,
    pub replica_announce_ip: Text,
    pub replica_announce_port: u16,
    pub repl_diskless_sync: bool,
    pub repl_diskless_sync_delay: u32,
    pub repl_diskless_sync_max_replicas: u32,
    pub repl_diskless_load: ReplDisklessLoad,
    pub dual_channel_replication_enabled: bool,
    pub repl_rdb_channel: bool,
    pub replica_full_sync_buffer_limit: u64,
    pub repl_mptcp: bool,
    pub repl_ping_replica_period: u32,
    pub repl_ping_timestamps: bool,
    pub repl_timeout: u32,
    pub repl_disable_tcp_nodelay: bool,
    pub repl_throttling_enabled: bool,
    pub repl_backlog_size: u64,
    pub repl_backlog_ttl: u64,
    pub min_replicas_to_write: u32,
    pub min_replicas_max_lag: u32,
    pub propagation_error_behavior: PropagationErrorBehavior,
    pub import_mode: bool,

    // Access control
    pub requirepass: Text,
    pub aclfile: Text,
    pub acllog_max_len: u64,
    pub acl_pubsub_default: AclPubsubDefault,
    /// The arguments of the `user` lines, one list for each user. Before CONFIG REWRITE the server
    /// stores its present users here.
    pub user: Vec<Vec<Text>>,
    pub rename_command: Vec<RenameCommand>,
    /// The `loadmodule` lines, each as the module's path and arguments.
    pub loadmodule: Vec<Vec<Text>>,

    // Memory
    pub maxmemory: u64,
    pub maxmemory_policy: MaxmemoryPolicy,
    pub maxmemory_samples: u32,
    pub maxmemory_eviction_tenacity: u32,
    pub maxmemory_clients: ClientsLimit,
    pub client_query_buffer_limit: u64,
    /// The limits of output for each class of clients, indexed by [`ClientClass`].
    pub client_output_buffer_limit: [ObufLimit; 3],
    pub proto_max_bulk_len: u64,
    pub tracking_table_max_keys: u64,
    pub lfu_log_factor: u32,
    pub lfu_decay_time: u32,
    pub active_expire_effort: u32,
    pub lazyexpire_nested_arbitrary_keys: bool,
    pub lazyfree_lazy_eviction: bool,
    pub lazyfree_lazy_expire: bool,
    pub lazyfree_lazy_server_del: bool,
    pub lazyfree_lazy_user_del: bool,
    pub lazyfree_lazy_user_flush: bool,
    pub activedefrag: bool,
    pub active_defrag_ignore_bytes: u64,
    pub active_defrag_threshold_lower: u32,
    pub active_defrag_threshold_upper: u32,
    pub active_defrag_cycle_min: u32,
    pub active_defrag_cycle_max: u32,
    pub active_defrag_cycle_us: u32,
    pub active_defrag_max_scan_fields: u64,
    pub jemalloc_bg_thread: bool,
    pub disable_thp: bool,
    pub lock_memory: bool,
    pub oom_score_adj: OomScoreAdj,
    /// The values of `oom_score_adj` for a primary, a replica and a background child.
    pub oom_score_adj_values: [i32; 3],

    // Threads
    pub io_threads: u32,
    pub io_threads_do_reads: bool,
    pub events_per_io_thread: u32,
    pub io_threads_always_active: bool,
    pub min_io_threads_avoid_copy_reply: u32,
    pub min_string_size_avoid_copy_reply: u32,
    pub min_string_size_avoid_copy_reply_threaded: u32,
    pub vset_force_single_threaded_execution: bool,
    pub prefetch_batch_max_size: u32,
    pub server_cpulist: Text,
    pub bio_cpulist: Text,
    pub aof_rewrite_cpulist: Text,
    pub bgsave_cpulist: Text,

    // Scripts
    pub lua_enabled: bool,
    pub lua_enable_insecure_api: bool,
    /// Milliseconds until a script or module command counts as busy; zero is never.
    pub busy_reply_threshold: u64,

    // Observation
    /// The duration in microseconds from which on a command is logged as slow; -1 logs no command.
    pub slowlog_log_slower_than: i64,
    pub slowlog_max_len: u64,
    pub commandlog_request_larger_than: i64,
    pub commandlog_large_request_max_len: u64,
    pub commandlog_reply_larger_than: i64,
    pub commandlog_large_reply_max_len: u64,
    /// The duration in milliseconds from which on the latency monitor records an event; zero is
    /// off.
    pub latency_monitor_threshold: u64,
    pub latency_tracking: bool,
    pub latency_tracking_info_percentiles: Vec<f64>,
    pub bigkeys_tracking: bool,
    pub key_size_histograms: bool,
    pub hotkeys_tracking: bool,
    /// The tracking of hot keys counts one command in `hotkeys_sample_ratio`.
    pub hotkeys_sample_ratio: u64,
    /// The number of seconds after which the tracking of hot keys counts an access half.
    pub hotkeys_half_life: u32,
    pub trace_recorder: bool,
    /// The duration in microseconds from which on a turn of the event loop is written as a trace;
    /// zero is off.
    pub trace_slow_turn_us: u64,
    /// The file to which a trace of the server's whole run is written; empty is off.
    pub trace_out: Text,
    /// The file into which the event loop's inputs are recorded from the start on, for a replay;
    /// empty is off.
    pub trace_record: Text,
    /// The maximum size of a recording in bytes.
    pub trace_record_max_size: u64,
    pub teach: Teach,
    pub notify_keyspace_events: NotifyFlags,

    // Encodings
    pub hash_max_listpack_entries: usize,
    pub hash_max_listpack_value: usize,
    pub list_max_listpack_size: i32,
    pub list_compress_depth: u32,
    pub set_max_intset_entries: usize,
    pub set_max_listpack_entries: usize,
    pub set_max_listpack_value: usize,
    pub zset_max_listpack_entries: usize,
    pub zset_max_listpack_value: usize,
    pub hll_sparse_max_bytes: usize,
    pub stream_node_max_bytes: usize,
    pub stream_node_max_entries: u64,

    // Timing
    pub hz: u32,
    pub dynamic_hz: bool,
    pub activerehashing: bool,

    // Cluster
    pub cluster_enabled: bool,
    pub cluster_databases: u32,
    pub cluster_config_save_behavior: ClusterConfigSaveBehavior,
    pub cluster_compatibility_sample_ratio: u32,
    pub cluster_message_gossip_perc: u32,
    pub cluster_slot_migration_log_max_len: u64,
    /// When slots move to another node: the maximum number of unsent bytes of changes with which
    /// clients that write to these slots are held back, so that the slots can be handed over; -1 is
    /// any number.
    pub slot_migration_max_failover_repl_bytes: i64,
    pub cluster_announce_client_port: u16,
    pub cluster_announce_client_tls_port: u16,
    pub cluster_config_file: Text,
    pub cluster_node_timeout: u64,
    pub cluster_port: u16,
    pub cluster_migration_barrier: u32,
    pub cluster_replica_validity_factor: u32,
    pub cluster_require_full_coverage: bool,
    pub cluster_replica_no_failover: bool,
    pub cluster_allow_replica_migration: bool,
    pub cluster_allow_reads_when_down: bool,
    pub cluster_allow_pubsubshard_when_down: bool,
    pub cluster_link_sendbuf_limit: u64,
    pub cluster_announce_ip: Text,
    pub cluster_announce_client_ipv4: Text,
    pub cluster_announce_client_ipv6: Text,
    pub cluster_announce_port: u16,
    pub cluster_announce_tls_port: u16,
    pub cluster_announce_bus_port: u16,
    pub cluster_announce_hostname: Text,
    pub cluster_announce_human_nodename: Text,
    pub cluster_preferred_endpoint_type: ClusterPreferredEndpointType,
    pub cluster_blacklist_ttl: i64,
    pub cluster_ping_interval: u64,
    pub cluster_slot_stats_enabled: bool,
    pub cluster_manual_failover_timeout: u32,

    /// The absolute path of the configuration file; `None` if the server was started without a
    /// file.
    pub file: Option<PathBuf>,
    /// The working directory at the start of the server: the paths of relative includes start there
    /// until a `dir` line.
    pub start_dir: PathBuf,
    /// Whether a `save` line was read: the first `save` line replaces the default, later lines add
    /// to it.
    pub save_seen: bool,
}
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config::blank();
        for row in TABLE {
            row.put_default(&mut config);
        }
        let cwd = std::env::current_dir().unwrap_or_default();
        config.dir = Text::from(cwd.as_os_str().as_bytes());
        config
    }
}

impl Config {
    /// Checks that the server's log file can be opened; creates it if it does not exist.
    pub fn check_logfile(&self) -> Result<(), StartError> {
        parse::check_logfile(self)
    }

    /// The reason why the server can't start with these settings, if one setting needs another that
    /// is missing.
    pub fn refused(&self) -> Option<&'static str> {
        parse::refused(self)
    }

    /// Whether the RDB files of full syncs are removed (`rdb-del-sync-files`). With persistence
    /// these files stay, as they are the server's snapshots.
    pub fn removes_sync_files(&self) -> bool {
        self.rdb_del_sync_files && self.save.is_empty() && !self.appendonly
    }

    /// The server whose error texts are used, Redis or Valkey.
    #[inline]
    pub fn words(&self) -> Words {
        if self.extended_redis_compatibility {
            Words::Redis
        } else {
            Words::Valkey
        }
    }

    /// A text of a reply, as Redis or Valkey spells it; `extended-redis-compatibility` decides.
    #[inline]
    pub fn text(&self, text: texts::Text) -> &'static str {
        text.of(self.words())
    }

    /// The names of the settings that were changed but have no effect in this server, for a log
    /// line at start.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let default = Config::default();
        let idle = TABLE.iter().filter(|row| row.is(NO_EFFECT));
        idle.filter(|row| row.get(self) != row.get(&default))
            .map(|row| row.name)
            .collect()
    }
}

#[cfg(test)]
mod tests;
