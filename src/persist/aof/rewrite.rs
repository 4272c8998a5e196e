//! BGREWRITEAOF: writes a base file that replaces all earlier files.
//!
//! ```text
//!   start     feed ─> a new incremental file, named in the manifest
//!             fork ─> child: temp-rewriteaof-bg-<pid>.aof
//!   done      rename it to the next base; manifest: that base, the incremental files since the start;
//!             what came before is history, and is deleted
//! ```
//!
//! The new incremental file is opened before the fork. So the base has exactly the data before the
//! fork, and the new incremental file the commands after the fork. If the rewrite fails, the old
//! base, the old and the new incremental file have all data.
//!
//! After three failures in a row, automatic rewrites pause. The pause between automatic rewrites
//! grows from a minute to an hour by doubling.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, NotStored, discard};
use super::{
    State, close_files, delete_history, dir, file_name, flush, follow_sink, open_new_incr,
    position, sync_aof_dir, temp_incr_path, values,
};
use crate::persist::child::{self, ChildKind, Job, Meter, Outcome, Pipe, Wish};
use crate::persist::rdb::Position;
use crate::persist::rdb::save::{SaveOptions, write_data_set};
use crate::state::Server;
use crate::sys::error_text;
use crate::sys::tape;

/// The number of failed rewrites in a row after which automatic rewrites pause.
const FAILURES_BEFORE_PAUSE: u32 = 3;
const PAUSE_MAX_MINUTES: i64 = 60;
/// The number of bytes after which the child syncs the base file, so that the last fsync is short.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// The state of AOF rewrites: the result of the last one, and the pause after failures.
#[derive(Default)]
pub struct Rewrite {
    pub failed: bool,
    /// The duration of the last AOF rewrite in seconds.
    pub last_seconds: Option<i64>,
    pub started: u64,
    pub failures_in_a_row: u32,
    pause_minutes: i64,
    /// The Unix time in seconds until which automatic rewrites pause; 0 for no pause.
    paused_until_s: i64,
}

/// The error of a rewrite that could not begin; the server's log has the reason.
#[derive(Debug)]
pub struct CantStart;

/// Starts a rewrite of the AOF in a child.
pub fn start(server: &mut Server) -> Result<(), CantStart> {
    if server.child.is_some() {
        return Err(CantStart);
    }
    tape::not_recorded("a rewrite of the AOF");
    let opened = super::create_dir(server).and_then(|()| open_new_incr(server));
    if let Err(e) = opened {
        log::warn!("Can't open a new AOF incr file: {}", error_text(&e));
        count_failure(server);
        return Err(CantStart);
    }
    server.aof.rewrite.started += 1;
    match child::start(server, Job::to_disk(ChildKind::Aof), child_body) {
        Ok(pid) => {
            log::info!("Background append only file rewriting started by pid {pid}");
            server.forks.wishes.withdraw(Wish::Rewrite);
            Ok(())
        }
        Err(e) => {
            count_failure(server);
            log::warn!(
                "Can't rewrite append only file in background: fork: {}",
                error_text(&e)
            );
            Err(CantStart)
        }
    }
}

fn temp_path(pid: u32) -> PathBuf {
    format!("temp-rewriteaof-bg-{pid}.aof").into()
}

/// The path of the base file while a child writes it; the complete file is renamed.
fn temp_inner_path(pid: u32) -> PathBuf {
    format!("temp-rewriteaof-{pid}.aof").into()
}

fn child_body(server: &mut Server, pipe: &Pipe) -> Result<(), i32> {
    let path = temp_path(std::process::id());
    write_base(server, &path, Some(pipe)).map_err(|_| 1)?;
    log::info!(
        "Successfully created the temporary AOF base file {}",
        path.display()
    );
    Ok(())
}

/// Writes the data set to a base file. The file gets the name `path` only when it is complete and
/// durable.
pub fn write_base(server: &Server, path: &Path, pipe: Option<&Pipe>) -> io::Result<()> {
    let temp = temp_inner_path(std::process::id());
    write_base_to(server, &temp, pipe)
        .and_then(|()| std::fs::rename(&temp, path))
        .inspect_err(|e| {
            log::warn!(
                "Write error writing append only file on disk: {}",
                error_text(e)
            );
            discard(&temp);
        })
}

fn write_base_to(server: &Server, path: &Path, pipe: Option<&Pipe>) -> io::Result<()> {
    let file = File::create(path)?;
    let synced = SyncedInSteps {
        file: &file,
        unsynced: 0,
        step: if server.config.aof_rewrite_incremental_fsync {
            SYNC_EVERY_BYTES
        } else {
            u64::MAX
        },
    };
    let mut out = BufWriter::with_capacity(64 << 10, synced);
    let meter = Meter {
        pipe,
        pause_us: server.config.rdb_key_save_delay,
    };
    if server.config.aof_use_rdb_preamble {
        let options = SaveOptions {
            aof_base: true,
            ..SaveOptions::of(server)
        };
        write_data_set(server, &mut out, &options, meter)?;
    } else {
        values::write_data_set(server, &mut out, meter)?;
        if let Some(position) = Position::of(server) {
            let mut line = Vec::new();
            position::render(&mut line, &position.id, position.offset, position.db);
            out.write_all(&line)?;
        }
    }
    out.flush()?;
    file.sync_all()
}

/// A writer to a file that syncs the file after each `step` bytes.
struct SyncedInSteps<'a> {
    file: &'a File,
    unsynced: u64,
    step: u64,
}

impl Write for SyncedInSteps<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = (&mut &*self.file).write(bytes)?;
        self.unsynced += n as u64;
        if self.unsynced >= self.step {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Handles the end of the child that rewrites the AOF.
pub fn rewrite_done(server: &mut Server, outcome: Outcome) {
    server.aof.last_cow_bytes = outcome.cow_bytes;
    let temp = temp_path(outcome.pid as u32);
    if outcome.succeeded() {
        log::info!("Background AOF rewrite terminated with success");
        match adopt(server, &temp) {
            Ok(()) => {
                log::info!("Background AOF rewrite finished successfully");
                server.aof.rewrite.failed = false;
                server.aof.rewrite.failures_in_a_row = 0;
            }
            Err(()) => count_failure(server),
        }
    } else {
        note_failure(server, outcome);
    }
    for path in [temp, temp_inner_path(outcome.pid as u32)] {
        // An error is ignored: the files exist only after a failure, as a child's file is renamed
        // when it is complete.
        let _ = std::fs::remove_file(path);
    }
    if server.aof.state == State::WaitRewrite {
        // The first rewrite has failed, so there is no base: the next attempt begins with an empty
        // incremental file of its own.
        let temp = temp_incr_path(server);
        log::info!(
            "Removing the temp incr aof file {} in the background",
            temp.display()
        );
        // The next attempt needs the name of the incremental file, so the name is removed at once.
        // The file's blocks are freed when the file is closed.
        let _ = std::fs::remove_file(&temp);
        close_files(server);
        follow_sink(server);
        server.forks.wishes.add(Wish::Rewrite);
    }
    server.aof.rewrite.last_seconds = Some(outcome.seconds);
}

/// Counts a failed rewrite of the AOF, after which automatic rewrites may pause. A rewrite that
/// can't start counts too: if the fork fails, a new incremental file is left.
fn count_failure(server: &mut Server) {
    server.aof.rewrite.failed = true;
    server.aof.rewrite.failures_in_a_row += 1;
}

fn note_failure(server: &mut Server, outcome: Outcome) {
    use crate::sys::fork::Exit;
    if outcome.was_asked_to_end() {
        log::warn!(
            "Background AOF rewrite terminated by signal {}",
            libc::SIGUSR1
        );
        return;
    }
    count_failure(server);
    match outcome.exit {
        Exit::Code(_) => log::warn!("Background AOF rewrite terminated with error"),
        Exit::Signal(signal) => {
            log::warn!("Background AOF rewrite terminated by signal {signal}");
        }
    }
}

/// Makes the child's file the base of the AOF. After an error, which is logged, the AOF is
/// unchanged.
fn adopt(server: &mut Server, temp: &Path) -> Result<(), ()> {
    let began = std::time::Instant::now();
    let (dir, name) = (dir(server), file_name(server));
    let mut manifest = server.aof.manifest.clone();
    // The format of the base (RDB or commands) is read from the file, as the setting may have
    // changed since the fork.
    let is_rdb = super::load::begins_with_rdb(temp);
    super::skip_unnamed(&mut manifest, &dir, &name);
    let base = manifest.new_base(&name, is_rdb).clone();
    let base_path = base.path(&dir);
    rename(temp, &base_path, "AOF base file")?;
    if server.aof.state == State::WaitRewrite {
        let incr = manifest.new_incr(&name).clone();
        if rename(&temp_incr_path(server), &incr.path(&dir), "AOF incr file").is_err() {
            discard(&base_path);
            return Err(());
        }
    }
    manifest.retire_incr(usize::from(server.aof.feed.is_open()));
    if let Err(reason) = store(server, &manifest) {
        reason.discard(&base_path);
        let reason = error_text(&reason.into());
        log::warn!("Fail to persist the AOF manifest: {reason}");
        return Err(());
    }
    server.aof.manifest = manifest;
    if server.aof.feed.is_open() {
        let since = (server.aof.current_size + server.aof.feed.pending())
            .saturating_sub(server.aof.last_incr_at);
        let base_size = std::fs::metadata(&base_path).map_or(0, |meta| meta.len());
        server.aof.base_size = base_size + since;
        server.aof.current_size = (base_size + since).saturating_sub(server.aof.feed.pending());
        server.aof.last_incr_at = base_size;
    }
    delete_history(server);
    if server.aof.state == State::WaitRewrite {
        server.aof.state = State::On;
    }
    let took = began.elapsed();
    let now_s = server.clock.now_s();
    server
        .latency
        .add_if_needed("aof-rename", took.as_millis() as u64, now_s);
    log::debug!(
        "Background AOF rewrite signal handler took {}us",
        took.as_micros()
    );
    Ok(())
}

/// Stores the manifest of the AOF after a rewrite. The base that the manifest names must exist, so
/// the rename of the base is made durable first.
fn store(server: &Server, manifest: &Manifest) -> Result<(), NotStored> {
    sync_aof_dir(server).map_err(NotStored::Kept)?;
    manifest.store(&dir(server), &file_name(server))
}

fn rename(from: &Path, to: &Path, what: &str) -> Result<(), ()> {
    match std::fs::rename(from, to) {
        Ok(()) => {
            log::info!(
                "Successfully renamed the temporary {what} {} into {}",
                from.display(),
                to.display()
            );
            Ok(())
        }
        Err(e) => {
            log::warn!(
                "Error trying to rename the temporary {what} {} into {}: {}",
                from.display(),
                to.display(),
                error_text(&e)
            );
            Err(())
        }
    }
}

/// Starts a requested rewrite of the AOF, unless rewrites pause after failures. Returns whether a
/// rewrite was started.
pub fn start_wished(server: &mut Server) -> bool {
    !must_pause(server) && start(server).is_ok()
}

/// Starts a rewrite if the AOF has grown by `auto-aof-rewrite-percentage`.
pub fn start_if_due(server: &mut Server) {
    let (aof, config) = (&server.aof, &server.config);
    let percentage = u64::from(config.auto_aof_rewrite_percentage);
    let large = aof.current_size > config.auto_aof_rewrite_min_size;
    if aof.state != State::On || percentage == 0 || !large {
        return;
    }
    let growth = growth_percent(aof.current_size, aof.base_size);
    if growth >= percentage && !must_pause(server) {
        log::info!("Starting automatic rewriting of AOF on {growth}% growth");
        // An error of the rewrite has been logged.
        let _ = start(server);
    }
}

fn growth_percent(size: u64, base: u64) -> u64 {
    let percent = u128::from(size) * 100 / u128::from(base.max(1));
    u64::try_from(percent.saturating_sub(100)).unwrap_or(u64::MAX)
}

/// Whether automatic rewrites pause after failures in a row. Begins a pause if the last attempt
/// after a pause has failed.
fn must_pause(server: &mut Server) -> bool {
    let now_s = server.clock.now_s();
    let rewrite = &mut server.aof.rewrite;
    if rewrite.failures_in_a_row < FAILURES_BEFORE_PAUSE {
        (rewrite.pause_minutes, rewrite.paused_until_s) = (0, 0);
        return false;
    }
    if rewrite.paused_until_s != 0 {
        if now_s < rewrite.paused_until_s {
            return true;
        }
        rewrite.paused_until_s = 0;
        return false;
    }
    rewrite.pause_minutes = (rewrite.pause_minutes * 2).clamp(1, PAUSE_MAX_MINUTES);
    rewrite.paused_until_s = now_s + rewrite.pause_minutes * 60;
    log::warn!(
        "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {} minutes",
        rewrite.pause_minutes
    );
    true
}

/// The result of BGREWRITEAOF, which its reply states.
pub enum Answer {
    Started,
    Scheduled,
    InProgress,
    Failed,
}

/// BGREWRITEAOF: starts a rewrite, or puts a request for a rewrite in the queue of the next child.
pub fn request(server: &mut Server) -> Answer {
    match &server.child {
        Some(child) if child.kind == ChildKind::Aof => Answer::InProgress,
        other => {
            if other.is_some() || server.nesting > 0 {
                server.forks.wishes.add(Wish::Rewrite);
                server.aof.rewrite.failures_in_a_row = 0;
                return Answer::Scheduled;
            }
            match start(server) {
                Ok(()) => Answer::Started,
                Err(CantStart) => Answer::Failed,
            }
        }
    }
}

/// DEBUG LOADAOF: writes the AOF's whole buffer, so that the AOF can be read again.
pub fn flush_before_reading(server: &mut Server) {
    // An error has been logged; bytes that can't be written are missing when the AOF is read again.
    let _ = flush::flush_now(server);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_relative_to_the_last_rewrite() {
        assert_eq!(growth_percent(200, 100), 100);
        assert_eq!(growth_percent(50, 100), 0);
        assert_eq!(growth_percent(7, 0), 600);
        assert_eq!(growth_percent(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn rewrites_that_cant_start_pause_as_well() {
        let config = crate::config::Config {
            appenddirname: "/dev/null/below-a-file".into(),
            ..Default::default()
        };
        let mut server = Server::new(config, Vec::new());
        server.aof.state = State::On;
        for _ in 0..FAILURES_BEFORE_PAUSE {
            assert!(!must_pause(&mut server));
            assert!(start(&mut server).is_err());
        }
        assert!(must_pause(&mut server));
    }

    #[test]
    fn the_pause_after_failures_doubles_up_to_an_hour() {
        let mut server = Server::new(crate::config::Config::default(), Vec::new());
        server.aof.rewrite.failures_in_a_row = FAILURES_BEFORE_PAUSE;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(must_pause(&mut server));
            assert_eq!(server.aof.rewrite.pause_minutes, minutes);
            server.clock.now_ms += minutes * 60_000 - 1000;
            assert!(must_pause(&mut server));
            server.clock.now_ms += 1000;
            assert!(!must_pause(&mut server), "one attempt after each pause");
        }
        server.aof.rewrite.failures_in_a_row = 0;
        assert!(!must_pause(&mut server));
        assert_eq!(server.aof.rewrite.pause_minutes, 0);
    }
}
