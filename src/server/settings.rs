//! The second half of CONFIG SET: the fields have their new values, and the server applies them.
//!
//! ```text
//!   set fields (config) -> step, step, step -> OK
//!                            | refused
//!                            v
//!                          fields as before, the steps done so far once more, the error
//! ```
//!
//! A step that can fail to apply its setting does its work at once, so that the client gets the
//! error: sockets are opened here and handed to the loop later (`Net::relisten`), since commands
//! never touch the loop.
//!
//! **Invariant:** a step that applies a setting can be repeated at any time, since it depends on
//! the present settings only.

use crate::acl::Acl;
use crate::config::{Access, Apply, OomScoreAdj, SetError};
use crate::connection::listener::ListenerKind;
use crate::networking::accept;
use crate::observe::logging;
use crate::persist::aof;
use crate::server::crash_report;
use crate::server::start;
use crate::server::tls;
use crate::state::Server;
use crate::sys;
use crate::sys::tape;
use crate::sys::{allocator, locale, process, signals};

/// The index of forked children in `oom-score-adj-values`.
const OOM_CLASS_CHILD: usize = 2;

/// The minimum of `repl-backlog-size` in bytes, to which CONFIG SET raises smaller values: with
/// less, no replica could continue after a lost link.
const MIN_BACKLOG: u64 = 16 * 1024;

/// The error if the sockets of `bind` can't be opened.
const BIND_REFUSED: &str = "Failed to bind to specified addresses.";

/// The error if the sockets of `port` or `tls-port` can't be opened.
const PORT_REFUSED: &str = "Unable to listen on this port. Check server logs.";

/// Why a new value of a setting can't be applied: the error text for the client.
type Refusal = String;

/// CONFIG SET: sets all of the settings, or, with an error, none.
pub fn set(server: &mut Server, pairs: &[(&[u8], &[u8])], access: Access) -> Result<(), SetError> {
    let change = server.config.set(pairs, access)?;
    for (done, step) in change.steps.iter().enumerate() {
        let Err(reason) = apply(server, step.apply) else {
            continue;
        };
        log::warn!(
            "Failed applying new configuration. Possibly related to new {} setting. Restoring previous settings.",
            step.name
        );
        server.config.rollback(&change);
        for undone in &change.steps[..done] {
            if let Err(e) = apply(server, undone.apply) {
                log::warn!("Failed restoring the previous {} setting: {e}", undone.name);
            }
        }
        return Err(SetError::apply_failed(step, reason));
    }
    // State that is derived from settings and cheap to compute is updated after every change.
    server.configure();
    crash_report::configure(&server.config);
    Ok(())
}

fn apply(server: &mut Server, step: Apply) -> Result<(), Refusal> {
    match step {
        Apply::Bind => listen(server, ListenerKind::Plain, BIND_REFUSED)
            .and_then(|()| listen(server, ListenerKind::Tls, BIND_REFUSED)),
        Apply::Port => listen(server, ListenerKind::Plain, PORT_REFUSED),
        Apply::TlsPort => {
            load_tls(server).and_then(|()| listen(server, ListenerKind::Tls, PORT_REFUSED))
        }
        Apply::Tls => load_tls(server),
        Apply::MaxClients => resize(server),
        Apply::LogLevel => {
            logging::set_level(server.config.loglevel);
            Ok(())
        }
        Apply::LogFormat => {
            logging::set_format(&server.config);
            Ok(())
        }
        Apply::ProcTitle => {
            start::set_title(server);
            Ok(())
        }
        Apply::WatchdogPeriod => {
            if !tape::replays() {
                signals::set_alarm(server.config.watchdog_period);
            }
            Ok(())
        }
        Apply::ReplBacklogSize => {
            let size = server.config.repl_backlog_size.max(MIN_BACKLOG);
            server.config.repl_backlog_size = size;
            server.replication.stream.set_backlog_size(size);
            Ok(())
        }
        Apply::MaxMemory => {
            follow_max_memory(server);
            Ok(())
        }
        Apply::LocaleCollate => {
            let known = locale::set_collate(server.config.locale_collate.as_bytes());
            known.then_some(()).ok_or("Invalid locale name".into())
        }
        Apply::AppendOnly => aof::follow_setting(server),
        Apply::AofAutoGc => {
            aof::delete_history(server);
            Ok(())
        }
        Apply::LuaInsecureApi => {
            server.scripting.flush();
            server.reload_libraries()
        }
        Apply::OomScoreAdj => server.apply_oom_score_adj(),
        Apply::JemallocBgThread => {
            allocator::set_background_thread(server.config.jemalloc_bg_thread);
            Ok(())
        }
        Apply::RequirePass => {
            let terms = Acl::terms(&server.commands, &server.config);
            let password = &server.config.requirepass;
            server.acl.set_default_password(&terms, password);
            Ok(())
        }
        Apply::LatencyTracking => {
            forget_latencies(server);
            Ok(())
        }
        // All other settings are copied by `Server::configure`, or read at each use.
        _ => Ok(()),
    }
}

fn follow_max_memory(server: &mut Server) {
    warn_if_over_memory(server);
    // Makes the loop evict keys between its turns, without waiting for a command.
    server.evict.unfinished = server.config.maxmemory != 0;
    if server.config.maxmemory == 0 {
        server.evict.exceeded.note(false, server.clock.now_ms);
    }
}

fn load_tls(server: &mut Server) -> Result<(), Refusal> {
    tape::not_recorded("TLS");
    if let Some(reason) = server.config.refused() {
        return Err(reason.into());
    }
    tls::apply(server).map_err(|problem| {
        log::warn!("{problem}");
        "Unable to update TLS configuration. Check server logs.".into()
    })
}

fn listen(server: &mut Server, kind: ListenerKind, refusal: &str) -> Result<(), Refusal> {
    accept::relisten(server, kind).map_err(|_| refusal.to_string())?;
    start::set_title(server);
    Ok(())
}

/// `maxclients`: raises the limit of open files and the size of the loop.
fn resize(server: &mut Server) -> Result<(), Refusal> {
    let clients = server.config.maxclients;
    let raised = match tape::replays() {
        true => Ok(()),
        false => start::raise_open_files(&server.config, clients),
    };
    raised.map_err(|system| {
        format!(
            "The operating system is not able to handle the specified number of clients, try with {}",
            system.clients
        )
    })?;
    server.net.resize = true;
    Ok(())
}

fn warn_if_over_memory(server: &Server) {
    let (limit, used) = (server.config.maxmemory, server.used_memory());
    if limit > 0 && (limit as usize) < used {
        log::warn!(
            "WARNING: the new maxmemory value set via CONFIG SET ({limit}) is smaller than the current memory usage \
             ({used}). This will result in key eviction and/or the inability to accept new write commands depending \
             on the maxmemory-policy."
        );
    }
}

/// `latency-tracking no`: drops the collected latencies of commands.
fn forget_latencies(server: &mut Server) {
    if !server.config.latency_tracking {
        for entry in &mut server.commands.entries {
            entry.stats.latency = None;
        }
    }
}

impl Server {
    /// `oom-score-adj`: sets how soon the kernel kills this process when memory runs out. The
    /// process's `/proc/self/oom_score_adj` is not changed before the setting is first used, and is
    /// restored when the setting is switched off.
    pub fn apply_oom_score_adj(&mut self) -> Result<(), Refusal> {
        let class = self.config.oom_score_adj_values[self.oom_class()];
        self.set_oom_score(class)
    }

    /// Sets the `oom-score-adj` of a forked child, which the kernel may kill first.
    pub fn apply_oom_score_of_child(&mut self) -> Result<(), Refusal> {
        self.set_oom_score(self.config.oom_score_adj_values[OOM_CLASS_CHILD])
    }

    /// The index in `oom-score-adj-values`: 0 for a primary, 1 for a replica.
    fn oom_class(&self) -> usize {
        self.config.replicaof.is_some() as usize
    }

    fn set_oom_score(&mut self, class_value: i32) -> Result<(), Refusal> {
        if !self.process.oom_score_changed {
            self.process.oom_score_base = process::oom_score_adj().unwrap_or(0);
        }
        let base = self.process.oom_score_base;
        let (wanted, changed) = match self.config.oom_score_adj {
            OomScoreAdj::No if !self.process.oom_score_changed => return Ok(()),
            OomScoreAdj::No => (base, false),
            OomScoreAdj::Yes | OomScoreAdj::Relative => (base + class_value, true),
            OomScoreAdj::Absolute => (class_value, true),
        };
        tape::outcome(|| process::set_oom_score_adj(wanted.clamp(-1000, 1000))).map_err(|e| {
            log::warn!("Unable to write oom_score_adj: {}", sys::error_text(&e));
            "Failed to set current oom_score_adj. Check server logs.".to_string()
        })?;
        self.process.oom_score_changed = changed;
        Ok(())
    }
}
