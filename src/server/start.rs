//! Starting, step by step, in the order of `main`.
//!
//! ```text
//!   settings -> background -> first lines of the log -> open files -> Server -> signals, pid file, title
//!            -> listening sockets -> "Server initialized" -> data -> "Ready to accept connections"
//! ```
//!
//! The process forks (daemonize) before it has any thread, and listens before it loads data: so
//! that a port in use is reported at once.

use std::process::ExitCode;

use ae::EventLoop;

use crate::acl;
use crate::config::{Config, Supervised};
use crate::connection::inherited::Inherited;
use crate::connection::taped;
use crate::member;
use crate::networking::accept;
use crate::observe::logging;
use crate::server::cli::Renames;
use crate::server::init;
use crate::server::tls;
use crate::server::{check_system, crash_report, supervisor};
use crate::state::Server;
use crate::sync::role;
use crate::sys::process::{self, OpenFiles};
use crate::sys::{self, signals, title};
use crate::texts;
use crate::{REDIS_VERSION, VERSION};

/// The path of a daemon's pid file if `pidfile` is not set.
const DEFAULT_PIDFILE: &str = "/var/run/redis.pid";

/// A `maxmemory` below this size is probably a mistake.
const MAXMEMORY_SUSPICIOUS: u64 = 1024 * 1024;

/// `daemonize`, unless a supervisor requires a foreground process.
pub fn enter_background(config: &Config) {
    if config.daemonize
        && supervisor::of(config) == Supervised::No
        && let Err(e) = process::daemonize()
    {
        log::warn!("Can't daemonize: {}", sys::error_text(&e));
    }
}

/// Sets the locale of `locale-collate`. A locale that the setting names must exist; a locale that
/// the environment names may be missing.
pub fn set_locale(config: &Config) -> Result<(), ExitCode> {
    if sys::locale::set_collate(config.locale_collate.as_bytes()) {
        return Ok(());
    }
    log::warn!("Failed to configure LOCALE for invalid locale name.");
    match config.locale_collate.is_empty() {
        true => Ok(()),
        false => Err(ExitCode::FAILURE),
    }
}

/// Writes the first lines of the server's log.
pub fn announce(config: &Config, with_arguments: bool) {
    check_system::set_up_memory(config);
    log::info!("{}", config.text(texts::LOG_STARTING));
    log::info!(
        "Redis version={REDIS_VERSION}, bits={}, commit=00000000, modified=0, pid={}, just started",
        usize::BITS,
        std::process::id()
    );
    if with_arguments {
        log::info!("Configuration loaded");
    } else {
        log::warn!(
            "Warning: no config file specified, using the default config. In order to specify a config file use \
             {} /path/to/redis.conf",
            std::env::args().next().unwrap_or_default()
        );
    }
    let idle = config.without_effect();
    if !idle.is_empty() {
        log::info!(
            "Settings that are accepted but have no effect here: {}",
            idle.join(", ")
        );
    }
}

/// `maxclients` is too high: the number of clients that the system allows, if any.
pub struct TooFewFiles {
    pub clients: u32,
}

/// Raises the limit of open files for this value of `maxclients`. A limit that stays below what
/// `maxclients` needs is logged and returned as an error.
pub fn raise_open_files(config: &Config, maxclients: u32) -> Result<(), TooFewFiles> {
    let reserved = init::reserved_fds(config) as u64;
    let wanted = maxclients as u64 + reserved;
    match process::raise_open_files(wanted) {
        OpenFiles::Enough => Ok(()),
        OpenFiles::Unknown(e) => {
            let clients = 1024 - reserved as u32;
            log::warn!(
                "Unable to obtain the current NOFILE limit ({}), assuming 1024 and setting the max clients \
                 configuration accordingly.",
                sys::error_text(&e)
            );
            Err(TooFewFiles { clients })
        }
        OpenFiles::Fewer { limit, reason } => {
            let clients = limit.saturating_sub(reserved) as u32;
            if clients == 0 {
                log::warn!(
                    "Your current 'ulimit -n' of {limit} is not enough for the server to start. Please increase \
                     your open file limit to at least {wanted}. Exiting."
                );
                return Err(TooFewFiles { clients });
            }
            log::warn!(
                "You requested maxclients of {maxclients} requiring at least {wanted} max file descriptors."
            );
            log::warn!(
                "Server can't set maximum open files to {wanted} because of OS error: {}.",
                sys::error_text(&reason)
            );
            log::warn!(
                "Current maximum open files is {limit}. maxclients has been reduced to {clients} to compensate for \
                 low ulimit. If you need higher maxclients increase 'ulimit -n'."
            );
            Err(TooFewFiles { clients })
        }
    }
}

/// Lowers `maxclients` to what the system's limit of open files allows.
pub fn limit_clients_to_open_files(config: &mut Config) {
    if let Err(TooFewFiles { clients }) = raise_open_files(config, config.maxclients) {
        if clients == 0 {
            std::process::exit(1);
        }
        config.maxclients = clients;
    }
}

/// Applies the `rename-command` lines, which were checked when the settings were read.
pub fn rename_commands(server: &mut Server, renames: &Renames) {
    for (from, to) in renames {
        server.commands.rename(from, to);
    }
}

/// Loads the users of redis.conf or of the file that `aclfile` names.
pub fn load_users(server: &mut Server) -> Result<(), ExitCode> {
    acl::file::load_at_start(server).map_err(|reason| {
        log::warn!("{reason}");
        if server.config.aclfile.is_empty() {
            log::warn!("Critical error while loading ACLs. Exiting.");
        }
        ExitCode::FAILURE
    })
}

/// With `cluster-enabled yes`: becomes the node that nodes.conf describes, or a new node.
pub fn join_cluster(server: &mut Server) -> Result<(), ExitCode> {
    member::start::start(server).map_err(|reason| {
        log::warn!("{reason}");
        ExitCode::FAILURE
    })
}

/// Sets up what belongs to the process rather than to the server: signals, pid file, title.
pub fn set_up_process(server: &mut Server) {
    role::set_log_role(server);
    signals::install();
    crash_report::configure(&server.config);
    process::allow_core_dumps();
    server.process.oom_score_base = process::oom_score_adj().unwrap_or(0);
    if let Err(reason) = server.apply_oom_score_adj() {
        log::warn!("{reason}");
    }
    if !server.config.server_cpulist.is_empty()
        && process::set_cpu_affinity(&server.config.server_cpulist.to_str_lossy()).is_none()
    {
        log::warn!(
            "Can't set the CPU affinity of the server to {}",
            server.config.server_cpulist
        );
    }
    log::info!("monotonic clock: {}", sys::ticks::source());
    write_pidfile(server);
    set_title(server);
    show_logo(server);
    warn_about_backlog(&server.config);
    if server.config.maxmemory > 0 && server.config.maxmemory < MAXMEMORY_SUSPICIOUS {
        log::warn!(
            "WARNING: You specified a maxmemory value that is less than 1MB (current value is {} bytes). Are you \
             sure this is what you really want?",
            server.config.maxmemory
        );
    }
}

fn write_pidfile(server: &mut Server) {
    let daemon = server.config.daemonize && supervisor::of(&server.config) == Supervised::No;
    if server.config.pidfile.is_empty() {
        if !daemon {
            return;
        }
        server.config.pidfile = DEFAULT_PIDFILE.into();
    }
    if let Err(e) = std::fs::write(&server.config.pidfile, format!("{}\n", server.run.pid)) {
        log::info!("Failed to write PID file: {}", sys::error_text(&e));
    }
}

/// Sets the title from `proc-title-template`.
pub fn set_title(server: &Server) {
    if server.config.set_proc_title {
        title::set(&server.config.process_title(&server.run.argv[0]));
    }
}

/// Logs the logo if the log is a terminal or `always-show-logo` is set; otherwise logs one line.
fn show_logo(server: &Server) {
    let mode = if server.config.cluster_enabled {
        "cluster"
    } else {
        "standalone"
    };
    let port = if server.config.port != 0 {
        server.config.port
    } else {
        server.config.tls_port
    };
    let to_terminal = server.config.logfile.is_empty() && process::stdout_is_terminal();
    if server.config.syslog_enabled || !(server.config.always_show_logo || to_terminal) {
        return log::info!("Running mode={mode}, port={port}.");
    }
    logging::raw(&format!(
        r#"
              __
         _.-''  ''-._            Redis {REDIS_VERSION} (00000000/0) {} bit
     _.-'   one loop  '-._       aeris {VERSION}
    |  ->  poll            |     Running in {mode} mode
    |      read            |     Port: {port}
    |      call            |     PID: {}
    |      write    ->  ---'
     '-._              _.
         ''-.._____..-'

"#,
        usize::BITS,
        server.run.pid
    ));
}

/// Warns if the kernel's `somaxconn` reduces `tcp-backlog`, which the kernel does silently.
fn warn_about_backlog(config: &Config) {
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/core/somaxconn") else {
        return;
    };
    let Ok(max) = text.trim().parse::<u32>() else {
        return;
    };
    if max > 0 && max < config.tcp_backlog {
        log::warn!(
            "WARNING: The TCP backlog setting of {} cannot be enforced because /proc/sys/net/core/somaxconn is set \
             to the lower value of {max}.",
            config.tcp_backlog
        );
    }
}

/// Opens the listening sockets and creates the event loop that watches them. The reason of an `Err`
/// has been logged.
pub fn listen(server: &mut Server) -> Result<EventLoop<Server>, ExitCode> {
    tls::start(server).map_err(|problem| {
        log::warn!("{problem}");
        log::warn!("Failed to configure TLS. Check logs for more info.");
        ExitCode::FAILURE
    })?;
    let handed = sys::supervisor::inherited_sockets();
    server.process.sent.has_socket_unit = !handed.of_unit.is_empty();
    if !handed.stored.is_empty() {
        // systemd would hand over a socket that no setting names at each start.
        sys::supervisor::store(&[]);
    }
    let inherited = Inherited::new(handed, server.config.tcp_backlog);
    accept::listen(server, inherited).map_err(|failure| {
        log::warn!("{failure}");
        ExitCode::FAILURE
    })?;
    supervisor::store_sockets(server);
    if server.net.listeners.is_empty() {
        log::warn!("Configured to not listen anywhere, exiting.");
        return Err(ExitCode::FAILURE);
    }
    server.net.listeners = taped::listeners(std::mem::take(&mut server.net.listeners));
    let el = init::event_loop(server).map_err(|e| {
        log::warn!(
            "Failed creating the event loop. Error message: '{}'",
            sys::error_text(&e)
        );
        ExitCode::FAILURE
    })?;
    let waker = el.waker();
    server.aof.flush.wake = Some(std::sync::Arc::new({
        let waker = waker.clone();
        move || {
            // If the loop can't be woken, it notices the event at the next tick of the cron.
            let _ = waker.wake();
        }
    }));
    server.lazyfree.set_wake(Box::new({
        let waker = waker.clone();
        move || {
            // If the loop can't be woken, it notices the event at the next tick of the cron.
            let _ = waker.wake();
        }
    }));
    signals::set_wake(move || {
        // If the loop can't be woken, it notices the event at the next tick of the cron.
        let _ = waker.wake();
    });
    signals::set_traces(traces(server));
    log::info!("Server initialized");
    Ok(el)
}

/// The files that are removed when the server stops, as absolute paths, since `dir` may change.
fn traces(server: &Server) -> impl Iterator<Item = std::path::PathBuf> {
    let pidfile = Some(&server.config.pidfile).filter(|path| !path.is_empty());
    let sockets = server.net.made_unix_sockets(&server.config);
    let files = pidfile.into_iter().chain(sockets);
    files.filter_map(|path| std::path::absolute(path.as_path()).ok())
}

/// Refuses to start if there are `loadmodule` lines: this server loads no modules.
pub fn load_modules(config: &Config) -> Result<(), ExitCode> {
    let Some(path) = config.loadmodule.first().and_then(|line| line.first()) else {
        return Ok(());
    };
    log::warn!("Module {path} failed to load: this server does not load modules");
    log::warn!("Can't load module from {path}: server aborting");
    Err(ExitCode::FAILURE)
}

/// Lets crash reports read the server from now on.
pub fn watch_for_crashes(server: &Server) {
    sys::crash::watch(server, crash_report::describe_server);
}

/// Ends the access of crash reports to the server, which is about to be dropped.
pub fn unwatch_for_crashes() {
    sys::crash::forget();
}
