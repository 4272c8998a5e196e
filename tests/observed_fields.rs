//! Every field of INFO, CLIENT LIST, MEMORY STATS and XINFO changes when the fact that it reports
//! changes.
//!
//! ```text
//!   traffic ─> clients ─> limits ─> children ─> replication ─> restart ─> settings
//!      └──────────┴──────────┴─ sample all reports of all servers ─┴──────────┘
//! ```
//!
//! A primary and its replica use each feature once, while all reports are sampled. The test fails
//! for a field that has the same value in all samples of all servers, unless [`CONSTANT`] has a
//! reason for it.

mod common;
#[path = "observed/life.rs"]
mod life;
#[path = "observed/links.rs"]
mod links;
#[path = "observed/seen.rs"]
mod seen;
#[path = "observed/steps.rs"]
mod steps;

use std::process::{Command, Stdio};

use common::Peer;
use common::disk::Disk;
use life::Life;
use seen::Seen;

/// Fields that have one value in all samples, by reason.
const CONSTANT: &[(&str, &[&str])] = &[
    (
        "TLS: tests/tls.rs changes these",
        &[
            "acl_access_denied_tls_cert",
            "tls_server_cert_serial",
            "tls_server_cert_expires_in_seconds",
            "tls_client_cert_serial",
            "tls_client_cert_expires_in_seconds",
            "tls_ca_cert_serial",
            "tls_ca_cert_expires_in_seconds",
        ],
    ),
    (
        "facts of the build and of the machine",
        &[
            "redis_version",
            "aeris_version",
            "redis_git_sha1",
            "redis_git_dirty",
            "redis_build_id",
            "os",
            "arch_bits",
            "multiplexing_api",
            "atomicvar_api",
            "gcc_version",
            "executable",
            "mem_allocator",
            "total_system_memory",
            "total_system_memory_human",
        ],
    ),
    (
        "the allocator returns unused pages at once",
        &["allocator_muzzy", "memory allocator.muzzy"],
    ),
    (
        "this machine has memory for every fork of a test; unit tests change it",
        &["fork_forecast_memory_ok"],
    ),
    ("a test does not take a day", &["uptime_in_days"]),
    (
        "one thread does all reads and writes",
        &[
            "io_threads_active",
            "io_threaded_reads_processed",
            "io_threaded_writes_processed",
            "io_threaded_freed_objects",
            "io_threaded_poll_processed",
            "io_threaded_total_prefetch_batches",
            "io_threaded_total_prefetch_entries",
        ],
    ),
    (
        "of a node of a cluster: tests/cluster.rs changes these",
        &[
            "redis_mode",
            "cluster_connections",
            "cluster_enabled",
            "mem_cluster_links",
            "memory cluster.links",
        ],
    ),
    (
        "there are no modules",
        &["module_fork_in_progress", "module_fork_last_cow_size"],
    ),
];

/// Fields that may have one value or several in this test, by reason.
const ANY: &[(&str, &[&str])] = &[
    (
        "needs a fragmented data set: tests/defrag.rs",
        &[
            "active_defrag_running",
            "active_defrag_hits",
            "active_defrag_misses",
            "active_defrag_key_hits",
            "active_defrag_key_misses",
            "total_active_defrag_time",
            "current_active_defrag_time",
        ],
    ),
    ("measured anew at each start", &["monotonic_clock"]),
    (
        "delays and the forecast of a sync, which tests/replication_details.rs changes",
        &[
            "repl_throttles",
            "repl_throttled_ms",
            "slave_repl_lag_ms",
            "sync_forecast_ms",
            "sync_forecast_bytes",
            "sync_forecast_ok",
        ],
    ),
    (
        "of a full sync over two connections, or of a data set that is loaded aside",
        &[
            "async_loading",
            "mem_replica_full_sync_buffer",
            "mem_replicas_repl_buffer",
            "replica_full_sync_buffer_peak",
            "replica_full_sync_buffer_size",
            "replicas_repl_buffer_peak",
            "replicas_repl_buffer_size",
            "replicas_waiting_psync",
            "sync_pins_expired",
            "slave* type",
        ],
    ),
    ("keys that another server gets", &["migrate_cached_sockets"]),
    (
        "a file with types that this server does not have",
        &["rdb_last_load_keys_skipped"],
    ),
];

#[test]
fn every_field_changes_with_its_subject() {
    let mut life = Life::begin();
    steps::settings(&mut life);
    steps::traffic(&mut life);
    steps::scripts(&mut life);
    steps::streams(&mut life);
    steps::expiry(&mut life);
    steps::clients(&mut life);
    steps::buffers(&mut life);
    steps::access(&mut life);
    steps::limits(&mut life);
    steps::children(&mut life);
    links::follow(&mut life);
    links::stand_still(&mut life);
    links::hand_over(&mut life);
    steps::restart(&mut life);
    let mut seen = life.end();
    failing_disk(&mut seen);
    started_with_a_file(&mut seen);
    let names = |list: &[(&str, &'static [&'static str])]| -> Vec<&str> {
        list.iter()
            .flat_map(|(_, fields)| *fields)
            .copied()
            .collect()
    };
    let (allowed, any) = (names(CONSTANT), names(ANY));
    let constants: Vec<&str> = seen.fields().filter(|field| !seen.changed(field)).collect();
    let is_expected = |field: &&&str| allowed.contains(*field) || any.contains(*field);
    let unexpected: Vec<&&str> = constants
        .iter()
        .filter(|field| !is_expected(field))
        .collect();
    assert!(unexpected.is_empty(), "constant: {unexpected:#?}");
    let changing: Vec<&&str> = allowed
        .iter()
        .filter(|field| !constants.contains(*field))
        .collect();
    assert!(
        changing.is_empty(),
        "listed as constant, but changes or does not exist: {changing:?}"
    );
}

/// Samples the status of the AOF while its disk fails and while it is slow.
fn failing_disk(seen: &mut Seen) {
    let Some(disk) = Disk::new("observed") else {
        return;
    };
    let server: Peer = disk.server("everysec");
    let mut conn = server.connect();
    let mut sample = |seen: &mut Seen| {
        // The AOF is written only after a command that changes data.
        conn.line("SET k v");
        seen.sample("on a bad disk", &mut conn);
    };
    sample(seen);
    disk.fail("sync-slow");
    life::until("aof_delayed_fsync", seen, &mut sample);
    disk.recover();
    disk.fail("write-eio");
    life::until("aof_last_write_status", seen, &mut sample);
    disk.recover();
}

/// Samples servers that are started with a configuration file as argument and without.
fn started_with_a_file(seen: &mut Seen) {
    let without = Peer::aeris(&[]);
    seen.sample("with a file or without", &mut without.connect());
    let file = without.dir().join("aeris.conf");
    std::fs::write(&file, "maxclients 100\n").expect("a file");
    let with = Peer::aeris_with(&[], |command| {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
        let dir = command.get_current_dir().map(|dir| dir.to_owned());
        *command = Command::new(command.get_program());
        command
            .arg(&file)
            .args(args)
            .current_dir(dir.expect("its own"))
            .stdout(Stdio::null());
    });
    seen.sample("with a file or without", &mut with.connect());
}
