//! Writes the AOF buffer to the disk, at the end of each turn and without ever waiting for the
//! disk.
//!
//! ```text
//!   policy     writer                                    a reply to a write leaves when
//!   always     the writer thread, with an fsync;         its bytes are on the disk
//!              all that came meanwhile is one group
//!   everysec   the loop; the writer thread while an      its bytes are in the kernel: the process may die
//!              fsync runs or the disk was slow of late
//!   no         the same, without fsyncs                  the same
//! ```
//!
//! `propagate::gate` decides which replies wait, by comparing the offset of a client's last write
//! with the offsets up to which the AOF is written and synced.
//!
//! Under `everysec`, the AOF costs a turn one write of the turn's commands. When the writer thread
//! writes, only the clients whose changes are not written yet wait for their replies; all other
//! clients are served without delay. Under `always`, clients that have seen an unsynced write of
//! another client (a value read, a message) wait for it too, see `propagate::unsynced`. Under
//! `everysec` and `no`, such clients don't wait: these policies guarantee only a client's own
//! writes.
//!
//! When the disk is full, the bytes stay in the buffer and the write is tried again every second.
//! While the disk is full, commands that write are refused (MISCONF), and replies are sent, so that
//! clients need not wait until an operator makes room. When a write fails under `appendfsync
//! always`, durability can't be guaranteed, and the process ends, as in Redis.
//!
//! Limits: when more than [`BACKLOG_MAX`] bytes wait, the server stops reading from the clients
//! whose writes are among these bytes, until the disk has taken half of the bytes: a client that
//! sends without waiting for replies could fill the memory otherwise. All other clients are served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{self, Delay, Disk, Done, Job};
use super::position;
use crate::config::{AppendFsync, Teach};
use crate::observe::trace::event::EventKind;
use crate::state::Server;
use crate::sys;
use crate::sys::instant::Instant;
use crate::sys::ticks;
use crate::texts;

/// The time in milliseconds between two fsyncs under `appendfsync everysec`.
const SYNC_EVERY_MS: i64 = 1000;
/// A write to the AOF that takes at least this time marks the disk as slow for [`SLOW_FOR`].
const SLOW: Duration = Duration::from_millis(20);
/// The time for which a slow write marks the disk as slow.
const SLOW_FOR: Duration = Duration::from_secs(2);
/// The duration from which an fsync of the AOF is logged as too slow, and a write to the next file
/// does not wait for it any longer.
const SYNC_TOO_LONG: Duration = Duration::from_secs(2);
/// The time in milliseconds after which a failed write of the AOF is tried again.
const RETRY_MS: i64 = 1000;
/// The shortest time in milliseconds between two log lines about errors of writing the AOF.
const LOG_EVERY_MS: i64 = 30_000;
/// With more bytes than this in the AOF buffer, the server stops reading from the clients whose
/// writes are in the buffer.
const BACKLOG_MAX: u64 = 256 << 20;

/// The state of writing the AOF: the writes and fsyncs in progress, and the results of the last
/// ones.
#[derive(Default)]
pub struct Flush {
    disk: Option<Disk>,
    pub wake: Option<disk::Wake>,
    /// The time at which bytes were passed to the writer thread; `None` if the thread has no bytes.
    writing: Option<Instant>,
    /// The number of running fsyncs of the AOF; the next field is the time since which at least one
    /// has run.
    syncing: u32,
    sync_since: Option<Instant>,
    sync_is_late: bool,
    last_sync_ms: i64,
    /// While the barrier is set, nothing is written to the new file of a rewrite: the old file must
    /// first be durable up to its end, the offset in the barrier (but see [`SYNC_TOO_LONG`]). The
    /// second value is the time at which the barrier was set.
    barrier: Option<(u64, Instant)>,
    /// Whether the server has stopped reading from clients that write, because too many bytes wait
    /// for the disk.
    pub crowded: bool,
    /// The time until which the disk counts as slow, so that the writer thread makes the writes,
    /// and not the loop.
    slow_until: Option<Instant>,
    /// The error of the last write; the next field is the error of the last fsync.
    pub write_error: Option<io::Error>,
    pub sync_error: Option<io::Error>,
    failed_ms: i64,
    logged_ms: i64,
    /// The number of fsyncs that delayed a write for more than [`SYNC_TOO_LONG`]: INFO's
    /// `aof_delayed_fsync`.
    pub delayed_syncs: u64,
    pub delay: Arc<Delay>,
}

impl Flush {
    /// The number of fsyncs of the AOF that are running.
    pub fn pending_syncs(&self) -> u32 {
        self.syncing
    }

    /// Whether the last write or the last fsync of the AOF failed.
    #[inline]
    pub fn failed(&self) -> bool {
        self.write_error.is_some() || self.sync_error.is_some()
    }

    /// The error of the AOF because of which commands that write are refused (MISCONF).
    pub fn error(&self) -> Option<&io::Error> {
        self.write_error.as_ref().or(self.sync_error.as_ref())
    }

    fn disk(&mut self) -> io::Result<&Disk> {
        if self.disk.is_none() {
            self.disk = Some(Disk::start(self.wake.clone())?);
        }
        self.disk
            .as_ref()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Passes a job to a thread, or runs it at once if the threads could not be started.
    pub fn in_background(&mut self, job: Job) {
        match self.disk() {
            Ok(disk) => disk.submit(job),
            Err(_) => disk::run_here(job),
        }
    }
}

/// Called before the loop sleeps: writes the turn's commands to the AOF, or passes them to the
/// writer thread.
pub fn flush_append_only_file(server: &mut Server) {
    if !server.aof.feed.is_open() {
        return;
    }
    position::annotate(server);
    take_results(server);
    write_pending(server);
    sync_if_due(server);
    note_crowd(server);
}

fn note_crowd(server: &mut Server) {
    let limit = server.debug.aof_backlog_max.unwrap_or(BACKLOG_MAX);
    let aof = &mut server.aof;
    // While the disk is full, commands that write are refused, which also bounds the number of
    // waiting bytes.
    let max = if aof.flush.crowded { limit / 2 } else { limit };
    let crowded = aof.feed.pending() > max && aof.flush.write_error.is_none();
    if crowded && !aof.flush.crowded {
        log::warn!(
            "The AOF buffer holds {} MB that the disk has not taken. Clients that write are not read until it has \
             taken half of it.",
            aof.feed.pending() >> 20
        );
    }
    aof.flush.crowded = crowded;
}

/// Handles the results of finished writes and fsyncs of the AOF's threads.
pub fn take_results(server: &mut Server) {
    while let Some(done) = server.aof.flush.disk.as_ref().and_then(Disk::try_done) {
        note(server, done);
    }
}

fn wait_for_result(server: &mut Server) {
    if let Some(done) = server.aof.flush.disk.as_ref().and_then(Disk::wait_done) {
        note(server, done);
    }
}

fn write_pending(server: &mut Server) {
    let always = server.config.appendfsync == AppendFsync::Always;
    let now_ms = server.clock.now_ms;
    let aof = &mut server.aof;
    if aof.flush.writing.is_some() {
        return note_late_sync(server);
    }
    if aof.flush.write_error.is_some() && now_ms - aof.flush.failed_ms < RETRY_MS {
        return;
    }
    retire_files(server);
    if waits_for_old_file(server) {
        return;
    }
    let aof = &mut server.aof;
    if aof.feed.pending() == 0 && !(always && aof.feed.synced < aof.feed.written) {
        return;
    }
    let slow = aof
        .flush
        .slow_until
        .is_some_and(|until| Instant::now() < until);
    let here = server.config.teach == Teach::BlockingFsync;
    let apart = !here && (always || aof.flush.syncing > 0 || slow);
    if apart && aof.flush.disk().is_ok() {
        return hand_over(server, always);
    }
    loop {
        write_here(server, always);
        retire_files(server);
        let done = server.aof.feed.pending() == 0 || server.aof.flush.write_error.is_some();
        if done || waits_for_old_file(server) {
            return;
        }
    }
}

/// Closes the AOF files that a rewrite has replaced and whose bytes are all written; before it is
/// closed, such a file is made durable by an fsync.
fn retire_files(server: &mut Server) {
    let mut finished = Vec::new();
    let aof = &mut server.aof;
    aof.feed.front(|file| finished.push(file));
    for file in finished {
        let upto = aof.feed.written;
        if upto > aof.feed.synced {
            aof.flush.begin_sync(file.clone(), upto);
            aof.flush.barrier = Some((upto, Instant::now()));
        }
        aof.flush.in_background(Job::Close(file));
    }
}

/// Whether a write to the new file of a rewrite must wait for the fsync of the old file. After a
/// crash of the machine only the last file may be torn, so the old file must be durable before the
/// new file has bytes. The wait for the old file's fsync ends after [`SYNC_TOO_LONG`], as the disk
/// may be stuck. Under `appendfsync no` no write waits for an fsync: an fsync takes longer than
/// under `everysec`, and this policy guarantees no durability.
fn waits_for_old_file(server: &mut Server) -> bool {
    let everysec = server.config.appendfsync == AppendFsync::Everysec;
    let aof = &mut server.aof;
    let waits = aof.flush.barrier.is_some_and(|(upto, since)| {
        everysec
            && aof.flush.syncing > 0
            && aof.feed.synced < upto
            && since.elapsed() < SYNC_TOO_LONG
    });
    if !waits {
        aof.flush.barrier = None;
    }
    waits
}

impl Flush {
    fn begin_sync(&mut self, file: Arc<std::fs::File>, upto: u64) {
        self.syncing += 1;
        self.sync_since.get_or_insert_with(Instant::now);
        let job = Job::Sync { file, upto };
        match self.disk() {
            Ok(disk) => disk.submit(job),
            Err(e) => {
                self.syncing -= 1;
                self.sync_error = Some(e);
            }
        }
    }
}

/// Passes the bytes that are next in the AOF buffer to the writer thread.
fn hand_over(server: &mut Server, sync: bool) {
    let aof = &mut server.aof;
    let Some((file, bytes, at)) = aof.feed.take_front() else {
        return;
    };
    aof.flush.writing = Some(Instant::now());
    let delay = aof.flush.delay.clone();
    aof.flush.in_background(Job::Write {
        file,
        bytes,
        at,
        sync,
        delay,
    });
}

/// Writes the bytes that are next in the AOF buffer in the loop's thread.
fn write_here(server: &mut Server, sync: bool) {
    let Some((file, bytes, at)) = server.aof.feed.take_front() else {
        return;
    };
    server.aof.flush.delay.wait();
    let done = disk::write(&file, bytes, at, sync);
    note(server, done);
}

fn sync_if_due(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    let child = server.config.no_appendfsync_on_rewrite && server.child.is_some();
    if server.config.appendfsync != AppendFsync::Everysec || child {
        return;
    }
    let aof = &mut server.aof;
    let due = (now_ms - aof.flush.last_sync_ms).abs() >= SYNC_EVERY_MS;
    if !due || aof.flush.syncing > 0 || aof.feed.synced >= aof.feed.written {
        return;
    }
    aof.flush.last_sync_ms = now_ms;
    if let Some(file) = aof.feed.file().cloned() {
        let upto = aof.feed.written;
        if server.config.teach == Teach::BlockingFsync {
            let began = ticks::now();
            let error = disk::sync(&file).err();
            server.traced(EventKind::BlockingFsync, began, 0);
            let span = (began, began);
            return note(server, Done::Synced { upto, error, span });
        }
        aof.flush.begin_sync(file, upto);
    }
}

/// Called when a new write must wait for the writer thread: if an fsync has run for more than
/// [`SYNC_TOO_LONG`], logs and counts it.
fn note_late_sync(server: &mut Server) {
    let flush = &mut server.aof.flush;
    let late = flush
        .sync_since
        .is_some_and(|since| since.elapsed() > SYNC_TOO_LONG);
    if late && !flush.sync_is_late {
        flush.sync_is_late = true;
        flush.delayed_syncs += 1;
        log::info!("{}", server.config.text(texts::LOG_AOF_SLOW_FSYNC));
    }
}

/// Handles the result of one write, fsync or trace file.
fn note(server: &mut Server, done: Done) {
    match done {
        Done::Wrote {
            bytes,
            written,
            error,
            sync_error,
            synced,
            took,
            sync_took,
            spans: [write, sync],
        } => {
            let complete = bytes.len();
            let by_thread = server.aof.flush.writing.is_some();
            if by_thread {
                server.traced_elsewhere(EventKind::AofWrite, write, written as u64);
            }
            server.aof.flush.writing = None;
            server.aof.feed.wrote(bytes, written);
            server.aof.current_size += written as u64;
            note_speed(server, took);
            if synced {
                let kind = match by_thread {
                    true => EventKind::Fsync,
                    false => EventKind::BlockingFsync,
                };
                server.traced_elsewhere(kind, sync, 0);
                let (ms, now_s) = (sync_took.as_millis() as u64, server.clock.now_s());
                server.latency.add_if_needed("aof-fsync-always", ms, now_s);
            }
            match error {
                Some(error) => write_failed(server, error, written, complete),
                None => write_succeeded(server),
            }
            if let Some(error) = sync_error {
                sync_failed(server, error);
            } else if synced {
                server.aof.feed.synced = server.aof.feed.written;
                server.aof.flush.last_sync_ms = server.clock.now_ms;
                server.aof.flush.sync_error = None;
            }
        }
        Done::Text { path, error } => match error {
            None => log::info!("Trace written to {}", path.display()),
            Some(e) => log::warn!(
                "Can't write the trace to {}: {}",
                path.display(),
                sys::error_text(&e)
            ),
        },
        Done::Synced { upto, error, span } => {
            if span.0 != span.1 {
                server.traced_elsewhere(EventKind::Fsync, span, 0);
            }
            let aof = &mut server.aof;
            aof.flush.syncing = aof.flush.syncing.saturating_sub(1);
            aof.flush.sync_since = (aof.flush.syncing > 0).then(Instant::now);
            aof.flush.sync_is_late = false;
            match error {
                Some(error) => sync_failed(server, error),
                None => {
                    aof.feed.synced = aof.feed.synced.max(upto);
                    aof.flush.sync_error = None;
                }
            }
        }
    }
}

fn note_speed(server: &mut Server, took: Duration) {
    if took >= SLOW {
        server.aof.flush.slow_until = Some(Instant::now() + SLOW_FOR);
    }
    let now_s = server.clock.now_s();
    let event = match (server.aof.flush.syncing > 0, server.child.is_some()) {
        (true, _) => "aof-write-pending-fsync",
        (false, true) => "aof-write-active-child",
        (false, false) => "aof-write-alone",
    };
    let ms = took.as_millis() as u64;
    server.latency.add_if_needed(event, ms, now_s);
    server.latency.add_if_needed("aof-write", ms, now_s);
}

fn write_succeeded(server: &mut Server) {
    if server.aof.flush.write_error.take().is_some() {
        log::warn!("{}", server.config.text(texts::LOG_AOF_WRITES_AGAIN));
    }
}

fn write_failed(server: &mut Server, error: io::Error, written: usize, wanted: usize) {
    let now_ms = server.clock.now_ms;
    let flush = &mut server.aof.flush;
    flush.failed_ms = now_ms;
    if now_ms - flush.logged_ms > LOG_EVERY_MS {
        flush.logged_ms = now_ms;
        let text = sys::error_text(&error);
        match written {
            0 => log::warn!("Error writing to the AOF file: {text}"),
            _ => log::warn!(
                "Short write while writing to the AOF file: (nwritten={written}, expected={wanted}): {text}"
            ),
        }
    }
    flush.write_error = Some(error);
    if server.config.appendfsync == AppendFsync::Always {
        log::warn!(
            "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting..."
        );
        std::process::exit(1);
    }
}

fn sync_failed(server: &mut Server, error: io::Error) {
    let text = sys::error_text(&error);
    if server.config.appendfsync == AppendFsync::Always {
        log::warn!(
            "Can't persist AOF for fsync error when the AOF fsync policy is 'always': {text}. Exiting..."
        );
        std::process::exit(1);
    }
    if server.aof.flush.sync_error.is_none() {
        log::warn!("Fail to fsync the AOF file: {text}");
    }
    server.aof.flush.sync_error = Some(error);
}

/// Writes and fsyncs all bytes of the AOF buffer, waiting for the disk. `flush_and_sync` is called
/// when the loop may wait: before the AOF is closed or read.
pub fn flush_and_sync(server: &mut Server) -> io::Result<()> {
    flush_now(server)?;
    while server.aof.flush.syncing > 0 {
        wait_for_result(server);
    }
    if let Some(file) = server.aof.feed.file().cloned() {
        let began = ticks::now();
        let synced = disk::sync(&file);
        server.traced(EventKind::BlockingFsync, began, 0);
        synced.inspect_err(|e| {
            log::warn!("Fail to fsync the AOF file: {}", sys::error_text(e));
        })?;
        server.aof.feed.synced = server.aof.feed.written;
    }
    Ok(())
}

/// Writes all bytes of the AOF buffer, waiting for the disk.
pub fn flush_now(server: &mut Server) -> io::Result<()> {
    loop {
        while server.aof.flush.writing.is_some() {
            wait_for_result(server);
        }
        retire_files(server);
        if server.aof.feed.pending() == 0 {
            return Ok(());
        }
        write_here(server, false);
        if let Some(error) = &server.aof.flush.write_error {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
    }
}
