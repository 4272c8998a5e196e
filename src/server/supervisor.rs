//! Finds out which supervisor (systemd or upstart) starts and stops the server, and sends it
//! messages.
//!
//! ```text
//!   loading    STATUS "Loading: 42 %", EXTEND_TIMEOUT_USEC while bytes are read
//!   ready      READY, STATUS
//!   cron       WATCHDOG twice in its period; STATUS when it has changed
//!   listening  FDSTOREREMOVE, FDSTORE with the TCP sockets, unless a socket unit has opened them
//!   SIGHUP     RELOADING, then READY when the certificates are loaded; nothing before the first READY
//!   stop       STATUS and EXTEND_TIMEOUT_USEC while replicas catch up, EXTEND_TIMEOUT_USEC before
//!              the last save; STOPPING when the server is certain to end
//! ```
//!
//! The loop sends the watchdog's message, also in a turn within a long script: systemd restarts a
//! server whose loop hangs. SAVE and the save at shutdown announce to systemd that the next message
//! takes longer. STOPPING can't be taken back: systemd then kills a server that does not end. So a
//! stop that may still be refused or aborted sends no STOPPING.

use std::os::fd::RawFd;
use std::time::Instant;

use sd_notify::NotifyState;

use crate::config::{Config, Supervised};
use crate::connection::listener::ListenerKind;
use crate::state::Server;
use crate::sys::supervisor as systemd;
use crate::sys::{self, process};

/// Milliseconds between two updates of the status text.
const STATUS_PERIOD_MS: i64 = 1000;
/// The time in microseconds by which a load that makes progress extends the supervisor's timeout,
/// and for which a stop goes on after its wait for replicas.
const LOADING_US: u32 = 30_000_000;

/// The messages that systemd was last sent.
#[derive(Default)]
pub struct Sent {
    status: String,
    status_due_ms: i64,
    /// When the watchdog was last notified, by the system's clock: the server's clock stands still
    /// during a script.
    pinged: Option<Instant>,
    /// The number of bytes of a data set that were loaded when the timeout was last extended.
    loaded: u64,
    /// Whether a socket unit of systemd has opened the listening sockets.
    pub has_socket_unit: bool,
    /// The listening sockets that systemd keeps for a restart: their fds and ports.
    stored: Vec<(RawFd, u16)>,
    /// Whether clients may connect, and the supervisor was notified of that.
    is_ready: bool,
    /// Whether RELOADING was sent to systemd, and READY not yet.
    reloading: bool,
}

/// The supervisor that the setting `supervised` names, or the one that the environment shows if the
/// setting is `auto`.
pub fn of(config: &Config) -> Supervised {
    let has = |name| std::env::var_os(name).is_some();
    match config.supervised {
        Supervised::Auto if has("UPSTART_JOB") => Supervised::Upstart,
        Supervised::Auto if has("NOTIFY_SOCKET") => Supervised::Systemd,
        Supervised::Auto => Supervised::No,
        Supervised::Upstart if !has("UPSTART_JOB") => Supervised::No,
        named => named,
    }
}

/// Begins to send messages to systemd at start, when the process has its final id.
pub fn begin(config: &Config) {
    if config.supervised == Supervised::Upstart && of(config) == Supervised::No {
        log::info!("upstart supervision requested, but UPSTART_JOB not found!");
    }
    if of(config) == Supervised::Systemd {
        systemd::begin();
    }
}

/// Reports that clients may connect, to the log and to the supervisor.
pub fn ready(server: &mut Server) {
    server.process.sent.is_ready = true;
    for (kind, name) in [
        (ListenerKind::Plain, "tcp"),
        (ListenerKind::Tls, "tls"),
        (ListenerKind::Unix, "unix"),
    ] {
        if server.net.listens(kind) {
            log::info!("Ready to accept connections {name}");
        }
    }
    match of(&server.config) {
        Supervised::Systemd => {
            let status = status(server);
            store_sockets(server);
            systemd::send(&[NotifyState::Status(&status), NotifyState::Ready]);
            server.process.sent.status = status;
        }
        Supervised::Upstart => {
            log::info!("supervised by upstart, will stop to signal readiness");
            if let Err(e) = process::stop_for_supervisor() {
                log::warn!("Can't stop for upstart: {}", sys::error_text(&e));
            }
        }
        Supervised::Auto | Supervised::No => {}
    }
}

/// A job of the cron: sends the watchdog's message, and the status if it has changed.
pub fn cron(server: &mut Server) {
    if !systemd::is_active() {
        return;
    }
    ping(server);
    let now_ms = server.clock.now_ms;
    if now_ms < server.process.sent.status_due_ms {
        return;
    }
    server.process.sent.status_due_ms = now_ms + STATUS_PERIOD_MS;
    store_sockets(server);
    let loaded = server.load.loaded_bytes;
    if server.is_loading() && loaded != server.process.sent.loaded {
        systemd::send(&[NotifyState::ExtendTimeoutUsec(LOADING_US)]);
        server.process.sent.loaded = loaded;
    }
    if let Some((_, deadline_ms)) = server.shutdown.pending {
        let wait_us = (deadline_ms - now_ms).max(0).saturating_mul(1000);
        let limit_us = wait_us.saturating_add(LOADING_US.into());
        let limit_us = u32::try_from(limit_us).unwrap_or(u32::MAX);
        systemd::send(&[NotifyState::ExtendTimeoutUsec(limit_us)]);
    }
    let status = status(server);
    if status != server.process.sent.status {
        systemd::send(&[NotifyState::Status(&status)]);
        server.process.sent.status = status;
    }
}

/// Reports to the watchdog that the loop turns, if a report is due.
pub fn ping(server: &mut Server) {
    let Some(period) = systemd::watchdog() else {
        return;
    };
    let pinged = &mut server.process.sent.pinged;
    if pinged.is_none_or(|at| at.elapsed() >= period / 2) {
        systemd::send(&[NotifyState::Watchdog]);
        *pinged = Some(Instant::now());
    }
}

/// Gives systemd the listening TCP sockets if they have changed, so that connections wait in their
/// backlogs while the server restarts. Unix sockets are not given to systemd: their files are
/// removed at a stop.
pub fn store_sockets(server: &mut Server) {
    if server.process.sent.has_socket_unit {
        return;
    }
    let listeners = server.net.listeners.iter().filter(|l| !l.retired);
    let (now, sockets): (Vec<_>, Vec<_>) = listeners
        .filter_map(|listener| {
            let (socket, port) = listener.tcp()?;
            Some(((listener.raw_fd(), port), socket))
        })
        .unzip();
    if server.process.sent.stored != now {
        systemd::store(&sockets);
        server.process.sent.stored = now;
    }
}

/// The status text that `systemctl status` shows.
fn status(server: &Server) -> String {
    if server.shutdown.pending.is_some() {
        return "Stopping: waiting for replicas".into();
    }
    if server.is_loading() {
        let eta = server.load.eta_seconds(server.clock.now_s());
        return format!("Loading: {:.0} %, {eta} s left", server.load.percent());
    }
    let mut status = "Ready to accept connections".to_string();
    if let Some(upstream) = &server.replication.upstream {
        let link = match upstream.is_connected() {
            true => "up",
            false => "down",
        };
        status += &format!(
            ", replica of {}:{}, link {link}",
            upstream.host, upstream.port
        );
    }
    if server.child.is_some() {
        status += ", a child saves";
    }
    status
}

/// Reports to systemd that a reload of the certificates begins. systemd from version 253 on
/// requires the time of this message. A reload before the server is ready is not reported, because
/// the READY at its end would count as that of the start.
pub fn reloading(server: &mut Server) {
    if !systemd::is_active() || !server.process.sent.is_ready {
        return;
    }
    server.process.sent.reloading = true;
    match NotifyState::monotonic_usec_now() {
        Ok(now) => systemd::send(&[NotifyState::Reloading, now]),
        Err(_) => systemd::send(&[NotifyState::Reloading]),
    }
}

/// Reports to systemd that the reload has ended, with new certificates or with the present ones.
pub fn reloaded(server: &mut Server) {
    if std::mem::take(&mut server.process.sent.reloading) {
        systemd::send(&[NotifyState::Ready]);
    }
}

/// Reports to systemd that the server ends after this turn.
pub fn stopping() {
    systemd::send(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
}
