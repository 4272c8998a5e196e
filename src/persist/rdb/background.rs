//! Starts snapshots (SAVE, BGSAVE, save points, shutdown) and handles their results.
//!
//! ```text
//!   BGSAVE ───────────────┐
//!   save points (cron) ───┼─> start ─> child: save_file ─> child::reap ─> background_save_done
//!   BGSAVE SCHEDULE ──────┘                                               dirty -= what was dirty at the fork
//!   SAVE, SHUTDOWN, FLUSHALL, DEBUG RELOAD ─> save, by this process
//! ```
//!
//! **Invariant:** `dirty` decreases only by the changes that a finished snapshot contains.

use std::io;

use super::save::{SaveOptions, remove_temp_file, save_file};
use crate::config::Config;
use crate::error::Error;
use crate::persist::child::{self, ChildKind, Job, Meter, Outcome, Target};
use crate::persist::loading::Counts;
use crate::state::Server;
use crate::sys;
use crate::sys::fork::Exit;
use crate::sys::tape;
use crate::texts;

/// The pause after a failed snapshot before the next one is started, in seconds.
const RETRY_DELAY_S: i64 = 5;

/// The state of snapshots: figures of the last ones, and whether the last background save failed.
pub struct Rdb {
    /// The bytes of memory that were copied on write during the last save by a child.
    pub last_cow_bytes: u64,
    /// Whether the last background save failed.
    pub failed: bool,
    /// The duration of the last background save in seconds; -1 before the first background save.
    pub last_bgsave_s: i64,
    /// The Unix time in seconds at which the last background save started.
    pub last_try_s: i64,
    /// The number of snapshots that were begun since the start of the server, those that failed
    /// included: INFO's `rdb_saves`.
    pub saves: u64,
    /// The numbers of keys of the RDB file that was loaded last.
    pub last_load: Counts,
    /// The value of `dirty` when the running child was forked.
    dirty_at_fork: u64,
}

impl Rdb {
    /// The error for commands that write, if snapshots fail and `stop-writes-on-bgsave-error` is
    /// on.
    pub fn write_refusal(&self, config: &Config) -> Option<Error> {
        let refused = self.failed && config.stop_writes_on_bgsave_error && !config.save.is_empty();
        refused.then(|| Error::of(config.text(texts::MISCONF_RDB)))
    }
}

impl Default for Rdb {
    fn default() -> Rdb {
        Rdb {
            last_cow_bytes: 0,
            failed: false,
            last_bgsave_s: -1,
            last_try_s: 0,
            saves: 0,
            last_load: Counts::default(),
            dirty_at_fork: 0,
        }
    }
}

/// Whether a child is saving a snapshot, or sending one to replicas.
pub fn in_progress(server: &Server) -> bool {
    server
        .child
        .as_ref()
        .is_some_and(|child| child.kind == ChildKind::Rdb)
}

/// Saves a snapshot in this process, while all clients wait. After an error the old RDB file still
/// exists.
pub fn save(server: &mut Server) -> io::Result<()> {
    server.rdb.saves += 1;
    let meter = Meter {
        pipe: None,
        pause_us: server.config.rdb_key_save_delay,
    };
    let options = SaveOptions::of(server);
    let bytes = server.used_memory();
    tape::outcome(|| {
        sys::supervisor::during_long_work(bytes, || save_file(server, &options, meter))
    })?;
    server.dirty = 0;
    server.clock.update();
    server.last_save_s = server.clock.now_s();
    server.rdb.failed = false;
    Ok(())
}

/// Starts a child that saves a snapshot with the server's settings. The caller has checked that
/// there is no other child.
pub fn start(server: &mut Server) -> io::Result<()> {
    let options = SaveOptions::of(server);
    start_with(server, options)
}

/// Starts a child that saves a snapshot with the given options. The caller has checked that there
/// is no other child.
pub fn start_with(server: &mut Server, options: SaveOptions) -> io::Result<()> {
    server.rdb.saves += 1;
    server.rdb.dirty_at_fork = server.dirty;
    server.rdb.last_try_s = server.clock.now_s();
    let pause_us = server.config.rdb_key_save_delay;
    let started = child::start(server, Job::to_disk(ChildKind::Rdb), |server, pipe| {
        let meter = Meter {
            pipe: Some(pipe),
            pause_us,
        };
        save_file(server, &options, meter).map_err(|_| 1)
    });
    match started {
        Ok(pid) => {
            log::info!("Background saving started by pid {pid}");
            Ok(())
        }
        Err(e) => {
            server.rdb.failed = true;
            log::warn!("Can't save in background: fork: {}", sys::error_text(&e));
            Err(e)
        }
    }
}

/// Handles the result of a child that saved a snapshot or sent the data set to replicas.
pub fn background_save_done(server: &mut Server, outcome: Outcome) {
    server.rdb.last_cow_bytes = outcome.cow_bytes;
    server.rdb.last_bgsave_s = outcome.seconds;
    match outcome.target {
        Target::Disk => snapshot_done(server, outcome),
        Target::Replicas => log_transfer_done(outcome),
    }
}

/// Logs the result of a child that sent the data set to replicas. Nothing was saved, so `dirty`
/// does not change.
fn log_transfer_done(outcome: Outcome) {
    match outcome.exit {
        Exit::Code(0) => log::info!("Background RDB transfer terminated with success"),
        _ if outcome.was_asked_to_end() => {
            log::warn!("Background transfer terminated by signal {}", libc::SIGUSR1);
        }
        Exit::Signal(signal) => {
            log::warn!("Background transfer terminated by signal {signal}");
        }
        Exit::Code(_) => log::warn!("Background RDB transfer error"),
    }
}

fn snapshot_done(server: &mut Server, outcome: Outcome) {
    if outcome.succeeded() {
        log::info!("Background saving terminated with success");
        server.dirty = server.dirty.saturating_sub(server.rdb.dirty_at_fork);
        server.last_save_s = server.clock.now_s();
        server.rdb.failed = false;
        return;
    }
    let began = server.latency.begin();
    if !tape::replays() {
        remove_temp_file(outcome.pid as u32);
    }
    let now_s = server.clock.now_s();
    server.latency.end("rdb-unlink-temp-file", began, now_s);
    if outcome.was_asked_to_end() {
        // A child that the server asked to end is no error: its snapshot is not wanted any more.
        log::warn!("Background saving terminated by signal {}", libc::SIGUSR1);
        return;
    }
    server.rdb.failed = true;
    match outcome.exit {
        Exit::Signal(signal) => {
            log::warn!("Background saving terminated by signal {signal}");
        }
        Exit::Code(_) => log::warn!("Background saving error"),
    }
}

/// Whether the pause after a failed snapshot is over.
fn is_rested(server: &Server) -> bool {
    let since_s = server.clock.now_s() - server.rdb.last_try_s;
    !server.rdb.failed || since_s > RETRY_DELAY_S
}

/// Starts a requested snapshot, unless the pause after a failed snapshot lasts. Returns whether a
/// snapshot was started.
pub fn start_wished(server: &mut Server) -> bool {
    is_rested(server) && start(server).is_ok()
}

/// Starts a snapshot if a save point is reached. Returns whether a snapshot was started.
pub fn start_if_due(server: &mut Server) -> bool {
    let since_s = server.clock.now_s() - server.last_save_s;
    let due = server
        .config
        .save
        .iter()
        .find(|point| server.dirty >= point.changes && since_s > point.seconds as i64);
    let Some(point) = due.filter(|_| is_rested(server)) else {
        return false;
    };
    log::info!(
        "{} changes in {} seconds. Saving...",
        point.changes,
        point.seconds
    );
    start(server).is_ok()
}

/// FLUSHALL: ends a child that saves, since its data is out of date, and saves the empty data set
/// if there are save points. Returns whether the empty data set was saved.
pub fn after_flushall(server: &mut Server) -> bool {
    child::kill(server, ChildKind::Rdb);
    // An error of the save has been logged; the data set is flushed nevertheless.
    !server.config.save.is_empty() && save(server).is_ok()
}

/// Saves a snapshot at shutdown if `wanted`. `Err` means that the snapshot could not be saved; the
/// reason has been logged.
pub fn save_at_shutdown(server: &mut Server, wanted: bool, forced: bool) -> io::Result<()> {
    if in_progress(server) {
        log::warn!("There is a child saving an .rdb. Killing it!");
        child::kill_and_wait(server, ChildKind::Rdb);
    }
    if !wanted {
        return Ok(());
    }
    log::info!("Saving the final RDB snapshot before exiting.");
    save(server).inspect_err(|_| {
        if forced {
            log::warn!("Error trying to save the DB. Exit anyway.");
        } else {
            log::warn!("Error trying to save the DB, can't exit.");
        }
    })
}
