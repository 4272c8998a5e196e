//! The sections of INFO about the process: server, clients, tls, cpu.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::clock;
use crate::config::Choice;
use crate::connection::listener::ListenerKind;
use crate::connection::tls;
use crate::db::KeyClients;
use crate::execute::pause::PausePurpose;
use crate::keyspace::evict::LRU_MASK;
use crate::state::Server;
use crate::sys::tape::{self, Input};

use crate::commands::server::info::{Report, View};

/// The section server: versions, process, time and settings files.
pub fn server(view: &View, out: &mut Report) {
    let (server, config) = (view.server, &view.server.config);
    let uptime_s = (server.clock.now_ms - server.run.start_ms).max(0) / 1000;
    out.field("redis_version", crate::REDIS_VERSION);
    out.field("aeris_version", crate::VERSION);
    out.field("redis_git_sha1", "00000000");
    out.field("redis_git_dirty", 0);
    out.field("redis_build_id", format_args!("{:x}", crate::build_id()));
    out.field(
        "redis_mode",
        if config.cluster_enabled {
            "cluster"
        } else {
            "standalone"
        },
    );
    out.field("os", operating_system());
    out.field("arch_bits", usize::BITS);
    out.field("monotonic_clock", server.clock.source());
    out.field(
        "multiplexing_api",
        if cfg!(target_os = "linux") {
            "epoll"
        } else {
            "kqueue"
        },
    );
    out.field("atomicvar_api", "c11-builtin");
    // The server is written in Rust; Redis prints the same if it was not compiled by GCC.
    out.field("gcc_version", "0.0.0");
    out.field("process_id", server.run.pid);
    out.field("process_supervised", config.supervised.name());
    out.field("run_id", &server.run.run_id);
    out.field(
        "tcp_port",
        if config.port != 0 {
            config.port
        } else {
            config.tls_port
        },
    );
    out.field("server_time_usec", clock::unix_us());
    out.field("uptime_in_seconds", uptime_s);
    out.field("uptime_in_days", uptime_s / 86400);
    out.field("hz", server.effective_hz());
    out.field("configured_hz", config.hz);
    out.field("lru_clock", server.clock.now_s() & LRU_MASK);
    out.field("executable", server.run.executable.display());
    let file = config.file.as_deref().unwrap_or(std::path::Path::new(""));
    out.field("config_file", file.display());
    out.field("io_threads_active", 0);
    out.field("availability_zone", config.availability_zone.to_str_lossy());
    if let Some((_, deadline_ms)) = server.shutdown.pending {
        out.field(
            "shutdown_in_milliseconds",
            (deadline_ms - server.clock.now_ms).max(0),
        );
    }
    listeners(server, out);
}

/// A line for each kind of listener: `listener0:name=tcp,bind=127.0.0.1,bind=-::1,port=6379`.
fn listeners(server: &Server, out: &mut Report) {
    let config = &server.config;
    let mut lines = Vec::new();
    let binds = config.bind.iter().map(|addr| format!("bind={addr},"));
    let binds: String = binds.collect();
    if server.net.listens(ListenerKind::Plain) {
        lines.push(format!("name=tcp,{binds}port={}", config.port));
    }
    if server.net.listens(ListenerKind::Unix) {
        lines.push(format!(
            "name=unix,bind={}",
            config.unixsocket.to_str_lossy()
        ));
    }
    if server.net.listens(ListenerKind::Tls) {
        lines.push(format!("name=tls,{binds}port={}", config.tls_port));
    }
    for (at, line) in lines.iter().enumerate() {
        out.field(&format!("listener{at}"), line);
    }
}

/// The section tls: the certificates in use.
pub fn tls(view: &View, out: &mut Report) {
    let server = view.server;
    let fields = match &server.tls.materials {
        Some(materials) => materials.info(server.clock.now_s()),
        None => tls::info_without(),
    };
    for (name, value) in fields {
        out.field(name, value);
    }
}

/// The name, the version and the machine of the operating system, such as `Linux 6.1.0 x86_64`.
fn operating_system() -> String {
    let text = tape::text(|| {
        let Ok(name) = nix::sys::utsname::uname() else {
            return std::env::consts::OS.into();
        };
        let parts = [name.sysname(), name.release(), name.machine()];
        parts.map(|part| part.to_string_lossy()).join(" ").into()
    });
    String::from_utf8_lossy(&text).into_owned()
}

/// The section clients: the number of connected clients, and figures of their buffers.
pub fn clients(view: &View, out: &mut Report) {
    let (server, census) = (view.server, view.census());
    out.field(
        "connected_clients",
        server.net.clients.len() - census.replicas,
    );
    out.field("cluster_connections", server.bus.links.len());
    out.field("maxclients", server.config.maxclients);
    out.field("client_recent_max_input_buffer", census.max_input);
    out.field("client_recent_max_output_buffer", census.max_output);
    out.field("blocked_clients", server.blocked.count);
    out.field("tracking_clients", census.tracking);
    out.field("pubsub_clients", census.pubsub);
    out.field("watching_clients", census.watching);
    out.field("clients_in_timeout_table", server.blocked.timeouts.len());
    let sum = |len: fn(&KeyClients) -> usize| server.key_clients.iter().map(len).sum::<usize>();
    out.field("total_watched_keys", sum(|keys| keys.watched.len()));
    out.field("total_blocking_keys", sum(|keys| keys.blocking.len()));
    out.field("total_blocking_keys_on_nokey", server.blocked.on_nokey);
    paused(server, out);
}

/// The fields `paused_*`: the reason why commands are held back, which commands, and the remaining
/// time.
fn paused(server: &Server, out: &mut Report) {
    let now = server.clock.now_ms;
    let (reason, until) = match server.pause.longest(now) {
        Some((PausePurpose::Client, until)) => ("client_pause", until),
        Some((PausePurpose::Shutdown, until)) => ("shutdown_in_progress", until),
        Some((PausePurpose::Failover, until)) => ("failover_in_progress", until),
        Some((PausePurpose::Throttle, until)) => ("replica_lags", until),
        None if server.pause.holds_slots() => ("slot_migration_in_progress", now),
        None => ("none", now),
    };
    let writes = server.pause.holds_writes(now) || server.pause.holds_slots();
    let actions = match (server.pause.holds_all(now), writes) {
        (true, _) => "all",
        (false, true) => "write",
        (false, false) => "none",
    };
    out.field("paused_reason", reason);
    out.field("paused_actions", actions);
    out.field("paused_timeout_milliseconds", until - now);
}

/// The section cpu: the CPU times of the process and its children.
pub fn cpu(_: &View, out: &mut Report) {
    usage(out, UsageWho::RUSAGE_SELF, "");
    usage(out, UsageWho::RUSAGE_CHILDREN, "_children");
    #[cfg(target_os = "linux")]
    usage(out, UsageWho::RUSAGE_THREAD, "_main_thread");
}

fn usage(out: &mut Report, of: UsageWho, suffix: &str) {
    let usage = getrusage(of).ok();
    let seconds = |time: fn(&Usage) -> TimeVal| {
        let time = usage.as_ref().map(time);
        let seconds = time.map_or(0.0, |t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6);
        f64::from_bits(tape::number(Input::Fact, || seconds.to_bits()))
    };
    out.decimal(
        &format!("used_cpu_sys{suffix}"),
        seconds(Usage::system_time),
        6,
    );
    out.decimal(
        &format!("used_cpu_user{suffix}"),
        seconds(Usage::user_time),
        6,
    );
}
