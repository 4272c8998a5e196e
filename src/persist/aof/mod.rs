//! The append only file: stores every change as the command that made it, so that a crash loses no
//! more changes than `appendfsync` allows.
//!
//! ```text
//!   call ─> propagate ─> feed (buffer) ─> flush (before the replies) ─> incremental file ─> fsync
//!
//!   BGREWRITEAOF:  1  a new incremental file takes what is written from now on
//!                  2  a forked child writes the data set as it is to a new base file
//!                  3  the manifest names the new base and file; the files they replace are history, and are deleted
//!
//!   start:         load: base, then the incremental files in order, each command through `call()`
//! ```
//!
//! The AOF has the files of Redis 7 (`manifest`); an AOF of Redis 6, one file in the data
//! directory, becomes the base.
//!
//! CONFIG SET appendonly yes first needs a base file, which a child writes. Until the base is
//! complete, the AOF's state is `WaitRewrite`, and commands are fed to a temporary file. Only when
//! the child has written the base does the manifest name the base and the file with the commands,
//! and the AOF is on.
//!
//! **Invariant:** a new file never replaces one that exists and has bytes, even if the manifest was
//! lost (`skip_unnamed`): the server starts with files of other names, logs this, and loads only
//! the files that a manifest names. After the loss of the manifest, Redis writes a new base over
//! the old base, and appends to the old incremental file.
//! **Invariant:** the manifest never names a file that does not exist: a file is created before the
//! manifest names it, and deleted after its name is removed (`tests/persistence_aof.rs`, and the
//! crashes simulated in `crash_tests`).
//! **Invariant:** commands are fed to the AOF exactly while its buffer `feed` has a file; whenever
//! that changes, propagation to the AOF is switched on or off (`follow_sink`).

pub mod check;
pub mod disk;
pub mod feed;
pub mod flush;
pub mod load;
pub mod manifest;
pub mod position;
pub mod reader;
pub mod rewrite;
pub mod values;

#[cfg(test)]
mod crash_tests;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::disk::Job;
use self::feed::Feed;
use self::flush::Flush;
use self::manifest::{Manifest, NotStored, sync_dir};
use crate::error::Error;
use crate::persist::child::{self, ChildKind, Wish};
use crate::propagate::sink;
use crate::state::Server;
use crate::sys;
use crate::sys::error_text;
use crate::sys::tape;

pub use self::rewrite::rewrite_done;

/// Whether the AOF is off, on, or waiting for its first base.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    #[default]
    Off,
    On,
    /// The AOF was switched on while the server runs, and is on as soon as a child has written its
    /// base.
    WaitRewrite,
}

/// The AOF: its buffer, its files and the state of its rewrites.
#[derive(Default)]
pub struct Aof {
    pub state: State,
    pub feed: Feed,
    pub flush: Flush,
    pub manifest: Manifest,
    /// The size of all files of the AOF, in bytes.
    pub current_size: u64,
    /// The size of all files of the AOF after the last rewrite, in bytes. After a start it is the
    /// size of the base file, as in Redis, so the first rewrite may come early.
    pub base_size: u64,
    /// The value of `current_size` when the last incremental file was opened.
    last_incr_at: u64,
    pub rewrite: rewrite::Rewrite,
    /// Set when a RESTORE in the AOF that is being loaded has a value that can't be read.
    pub lost_key: bool,
    noted: position::Noted,
    /// The bytes of memory that were copied on write during the last rewrite.
    pub last_cow_bytes: u64,
}

impl Aof {
    /// The error for commands that write while the AOF can't be written.
    #[inline]
    pub fn write_refusal(&self) -> Option<Error> {
        let error = self.flush.error()?;
        Some(Error::new(format!(
            "MISCONF Errors writing to the AOF file: {}",
            sys::error_text(error)
        )))
    }

    /// Whether the AOF is on the disk up to `offset`. Returns false while the AOF is off, and until
    /// its first base is complete.
    pub fn has_synced(&self, offset: u64) -> bool {
        self.state == State::On && offset.min(self.feed.fed) <= self.feed.synced
    }

    /// The number of bytes that were ever fed to the AOF.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.feed.fed
    }
}

/// The bytes of a setting or of the manifest as a file name.
pub fn os_name(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// The directory of the AOF's files.
pub fn dir(server: &Server) -> PathBuf {
    server.config.appenddirname.as_path().to_path_buf()
}

fn file_name(server: &Server) -> Vec<u8> {
    server.config.appendfilename.to_vec()
}

fn temp_incr_path(server: &Server) -> PathBuf {
    let name = [b"temp-", &file_name(server)[..], b".incr.aof"].concat();
    dir(server).join(os_name(&name))
}

fn create_dir(server: &Server) -> io::Result<()> {
    match std::fs::create_dir(dir(server)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            log::warn!(
                "Can't open or create append-only dir {}: {}",
                server.config.appenddirname,
                error_text(&e)
            );
            Err(e)
        }
        _ => Ok(()),
    }
}

/// Switches propagation to the AOF on or off: propagation is on exactly while the AOF has a file
/// for commands.
fn follow_sink(server: &mut Server) {
    let open = server.aof.feed.is_open();
    server.propagation.set_sink(sink::AOF, open);
    server.follow_unsynced();
}

/// Opens a file for appending, or creates it. Returns the file and its length in bytes.
fn open_for_append(path: &Path) -> io::Result<(Arc<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((Arc::new(file), len))
}

/// Skips the names of files that exist although the manifest does not name them, so that no new
/// file replaces them.
fn skip_unnamed(manifest: &mut Manifest, dir: &Path, name: &[u8]) {
    let known = !manifest.is_empty();
    let found = manifest.skip_unnamed(dir, name);
    if found.is_empty() {
        return;
    }
    let names: Vec<_> = found
        .iter()
        .map(|name| String::from_utf8_lossy(name))
        .collect();
    let (names, dir) = (names.join(", "), dir.display());
    if known {
        log::warn!(
            "The AOF manifest does not name the files {names} in the directory {dir}. They are not used and stay as they are."
        );
    } else {
        log::warn!(
            "There is no AOF manifest, but there are the files {names} in the directory {dir}. They are not loaded and stay \
             as they are; new files get other names. If they hold your data, stop the server and write a manifest that \
             names them."
        );
    }
}

/// Called at the start of the server, after the data was loaded: opens the AOF for new commands if
/// `appendonly` is set.
pub fn open_on_start(server: &mut Server) -> io::Result<()> {
    if !server.config.appendonly {
        return Ok(());
    }
    server.aof.state = State::On;
    create_dir(server)?;
    let (name, dir) = (file_name(server), dir(server));
    skip_unnamed(&mut server.aof.manifest, &dir, &name);
    if server.aof.manifest.is_empty() {
        let rdb = server.config.aof_use_rdb_preamble;
        let base = server.aof.manifest.new_base(&name, rdb).clone();
        let path = base.path(&dir);
        rewrite::write_base(server, &path, None)?;
        log::info!(
            "Creating AOF base file {} on server start",
            String::from_utf8_lossy(&base.name)
        );
        server.aof.current_size = std::fs::metadata(&path)?.len();
        server.aof.base_size = server.aof.current_size;
    }
    let new = server.aof.manifest.incr.is_empty();
    if new {
        server.aof.manifest.new_incr(&name);
    }
    let last = server.aof.manifest.incr[server.aof.manifest.incr.len() - 1].clone();
    let (file, len) = open_for_append(&last.path(&dir))?;
    log::info!(
        "{} AOF incr file {} on server start",
        if new { "Creating" } else { "Opening" },
        String::from_utf8_lossy(&last.name)
    );
    if new {
        server.aof.manifest.store(&dir, &name)?;
    }
    server.aof.last_incr_at = server.aof.current_size - len.min(server.aof.current_size);
    server.aof.feed.switch_to(file, len);
    follow_sink(server);
    delete_history(server);
    Ok(())
}

/// Called when a rewrite begins: opens the incremental file to which commands are written from now
/// on.
fn open_new_incr(server: &mut Server) -> io::Result<()> {
    if server.aof.state == State::Off {
        return Ok(());
    }
    if server.aof.state == State::WaitRewrite {
        let path = temp_incr_path(server);
        // An old file of this name is left from a first rewrite that was given up; without a base,
        // its commands are useless.
        File::create(&path)?;
        let (file, len) = open_for_append(&path)?;
        log::info!(
            "Creating AOF incr file {} on background rewrite",
            path.file_name().unwrap_or_default().display()
        );
        close_files(server);
        server.aof.feed.switch_to(file, len);
        note_base(server);
    } else {
        let (dir, name) = (dir(server), file_name(server));
        let mut manifest = server.aof.manifest.clone();
        skip_unnamed(&mut manifest, &dir, &name);
        let part = manifest.new_incr(&name).clone();
        let path = part.path(&dir);
        let (file, len) = open_for_append(&path)?;
        log::info!(
            "Creating AOF incr file {} on background rewrite",
            String::from_utf8_lossy(&part.name)
        );
        // If the manifest can't be stored, the new file is removed; if that fails too, the next
        // attempt uses the file, which is empty.
        manifest
            .store(&dir, &name)
            .inspect_err(|reason| reason.discard(&path))?;
        server.aof.manifest = manifest;
        server.aof.feed.switch_to(file, len);
    }
    server.aof.last_incr_at = server.aof.current_size + server.aof.feed.pending();
    follow_sink(server);
    Ok(())
}

/// Called when a new AOF begins with a base of the present data set: all changes that this server
/// has applied as a replica are on the disk as soon as the base is complete, whether later commands
/// are synced or not.
fn note_base(server: &mut Server) {
    let applied = server.replication.stream.end();
    server.replication.aof_pending = Some((server.aof.feed.fed, applied));
}

/// Stops feeding commands to the AOF, and closes the AOF's files in the background.
fn close_files(server: &mut Server) {
    server.aof.flush.crowded = false;
    let files: Vec<_> = server.aof.feed.close().collect();
    for file in files {
        server.aof.flush.in_background(Job::Close(file));
    }
}

/// Deletes the files that a new base has replaced, unless `aof-disable-auto-gc` is set.
pub fn delete_history(server: &mut Server) {
    if server.aof.manifest.history.is_empty() || server.config.aof_disable_auto_gc {
        return;
    }
    let history = std::mem::take(&mut server.aof.manifest.history);
    let (dir, name) = (dir(server), file_name(server));
    if let Err(e) = server.aof.manifest.store(&dir, &name) {
        let reason = error_text(&e.into());
        log::warn!("Fail to persist the AOF manifest: {reason}");
        server.aof.manifest.history = history;
        return;
    }
    for part in history {
        log::info!(
            "Removing the history file {} in the background",
            String::from_utf8_lossy(&part.name)
        );
        let path = part.path(&dir);
        server.aof.flush.in_background(Job::Unlink(path));
    }
}

/// CONFIG SET appendonly: applies the setting; `Err` is the text of the error reply. While a data
/// set is being loaded, the change is postponed until the end of the load, as in Redis 8.
pub fn follow_setting(server: &mut Server) -> Result<(), String> {
    if server.is_loading() {
        return Ok(());
    }
    match (server.config.appendonly, server.aof.state) {
        (true, State::Off) => start(server),
        (false, State::On | State::WaitRewrite) => {
            stop(server);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Switches the AOF off when the data set is about to be replaced by the data set of a primary.
/// [`follow_setting`] begins a new AOF later.
pub fn stop_for_sync(server: &mut Server) {
    if server.aof.state != State::Off {
        stop(server);
    }
}

/// Begins the AOF after a primary's data set was loaded, if `appendonly` is set. If the data set
/// came in an RDB file, this file becomes the base of the AOF, and no base is written.
pub fn start_after_sync(server: &mut Server, file: Option<&Path>) {
    let config = &server.config;
    let reuses = config.appendonly && config.aof_use_rdb_preamble && server.aof.state == State::Off;
    if let Some(file) = file.filter(|_| reuses) {
        match adopt_rdb(server, file) {
            Ok(name) => {
                return log::info!("Reused RDB file from primary sync as AOF base file: {name}");
            }
            Err(e) => log::warn!(
                "The RDB file {} can't be the AOF's base: {}. A base is written instead.",
                file.display(),
                error_text(&e)
            ),
        }
    }
    // A failure to begin the AOF has been logged.
    let _ = follow_setting(server);
}

/// Makes the RDB file `rdb`, which has the present data set, the base of a new AOF. Returns the
/// file name of the base.
fn adopt_rdb(server: &mut Server, rdb: &Path) -> io::Result<String> {
    create_dir(server)?;
    let (dir, name) = (dir(server), file_name(server));
    let mut manifest = server.aof.manifest.clone();
    skip_unnamed(&mut manifest, &dir, &name);
    let base = manifest.new_base(&name, true).clone();
    let incr = manifest.new_incr(&name).path(&dir);
    let (file, len) = open_for_append(&incr)?;
    manifest.retire_incr(1);
    let base_path = base.path(&dir);
    std::fs::rename(rdb, &base_path).inspect_err(|_| manifest::discard(&incr))?;
    let stored = sync_dir(&dir)
        .map_err(NotStored::Kept)
        .and_then(|()| manifest.store(&dir, &name));
    if let Err(reason) = stored {
        if let NotStored::Kept(_) = reason
            && let Err(e) = std::fs::rename(&base_path, rdb)
        {
            log::warn!("{} stays: {}", base_path.display(), error_text(&e));
        }
        // The new incremental file can be removed, as it is empty.
        reason.discard(&incr);
        return Err(reason.into());
    }
    server.aof.manifest = manifest;
    let size = std::fs::metadata(&base_path).map_or(0, |meta| meta.len());
    server.aof.current_size = size;
    server.aof.base_size = size;
    server.aof.last_incr_at = size;
    server.aof.state = State::On;
    server.aof.feed.switch_to(file, len);
    note_base(server);
    follow_sink(server);
    delete_history(server);
    Ok(String::from_utf8_lossy(&base.name).into_owned())
}

fn start(server: &mut Server) -> Result<(), String> {
    tape::not_recorded("the AOF");
    server.aof.state = State::WaitRewrite;
    let other = server
        .child
        .as_ref()
        .is_some_and(|child| child.kind != ChildKind::Aof);
    if other {
        server.forks.wishes.add(Wish::Rewrite);
        log::info!(
            "AOF was enabled but there is already another background operation. An AOF background was scheduled to \
             start when possible."
        );
    } else if server.nesting > 0 {
        server.forks.wishes.add(Wish::Rewrite);
        log::info!(
            "AOF was enabled during a transaction. An AOF background was scheduled to start when possible."
        );
    } else {
        if server.child.is_some() {
            log::info!(
                "AOF was enabled but there is already an AOF rewriting in background. Stopping background AOF and \
                 starting a rewrite now."
            );
            child::kill_and_wait(server, ChildKind::Aof);
        }
        if rewrite::start(server).is_err() {
            server.aof.state = State::Off;
            close_files(server);
            follow_sink(server);
            log::warn!(
                "Server needs to enable the AOF but can't trigger a background AOF rewrite operation. Check the \
                 above logs for more info about the error."
            );
            return Err("Unable to turn on AOF. Check server logs.".into());
        }
    }
    if server.aof.flush.write_error.take().is_some() {
        log::warn!("AOF reopen, just ignore the last error.");
    }
    Ok(())
}

/// Switches the AOF off. The AOF's files stay on the disk unchanged.
pub fn stop(server: &mut Server) {
    // Bytes that can't be written now are lost, since the AOF is switched off.
    let _ = flush::flush_and_sync(server);
    close_files(server);
    server.aof.state = State::Off;
    server.aof.flush.write_error = None;
    server.aof.flush.sync_error = None;
    server.forks.wishes.withdraw(Wish::Rewrite);
    server.aof.last_incr_at = 0;
    follow_sink(server);
    child::kill_and_wait(server, ChildKind::Aof);
}

/// SHUTDOWN: writes and syncs everything that was fed to the AOF.
pub fn finish(server: &mut Server) -> io::Result<()> {
    if !server.aof.feed.is_open() {
        return Ok(());
    }
    position::annotate_end(server);
    log::info!("Calling fsync() on the AOF file.");
    flush::flush_and_sync(server)
}

/// Makes renames in the AOF's directory durable.
fn sync_aof_dir(server: &Server) -> io::Result<()> {
    sync_dir(&dir(server))
}
