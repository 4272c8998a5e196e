//! Writes the AOF to the disk: one function that writes, and two threads that wait for the disk so
//! that the loop does not wait.
//!
//! ```text
//!   loop ── Write { file, bytes, sync } ──> writer thread    write, and fsync under `always`
//!        ── Sync  { file, upto }        ──> syncer thread    fsync under `everysec`; closing, deleting; a trace
//!        <─ Done ─────────────────────────  and the loop is woken
//! ```
//!
//! A write blocks when the kernel has no room for dirty pages, and on some file systems while an
//! fsync of the same file runs. The loop itself writes only when it expects neither of these
//! delays. There are two threads, because a write need not wait for the fsync of earlier bytes.
//!
//! The threads get bytes and files, return the bytes with the result, and do not access the server.
//! The threads write no lines to the server's log: if a child were forked during such a write, the
//! log's lock would stay locked in the child.
//!
//! **Invariant:** at most one write to the AOF is in progress, by the writer thread or by the loop,
//! so bytes reach a file in order.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::allocator::ThreadCounters;
use crate::sys::process;
use crate::sys::ticks;

/// A function that wakes the event loop when a thread has finished a job.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A task for one of the two threads that wait for the disk.
pub enum Job {
    Write {
        file: Arc<File>,
        bytes: Vec<u8>,
        /// The length of the file before the write.
        at: u64,
        sync: bool,
        delay: Arc<Delay>,
    },
    /// An fsync, which makes all bytes that were written to the file so far durable. `upto`, their
    /// end as an offset in the AOF, is returned in the result.
    Sync {
        file: Arc<File>,
        upto: u64,
    },
    /// Drops a handle of a file. The last handle closes the file, which may take long.
    Close(Arc<File>),
    Unlink(PathBuf),
    /// Calls `make` for a text, such as a trace, and writes the text to a file, in place of the
    /// file's earlier content.
    Text {
        path: PathBuf,
        make: Box<dyn FnOnce() -> String + Send>,
    },
}

/// DEBUG AOF-FLUSH-SLEEP: the delay before each write, by which tests simulate a slow or stuck
/// disk. A new delay applies at once, also to a write that is being delayed.
#[derive(Default)]
pub struct Delay {
    time: Mutex<Duration>,
    changed: Condvar,
}

impl Delay {
    /// Sets the delay before each write.
    pub fn set(&self, time: Duration) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = time;
        self.changed.notify_all();
    }

    /// Waits until the delay of DEBUG AOF-FLUSH-SLEEP is over.
    pub fn wait(&self) {
        let began = Instant::now();
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = time.checked_sub(began.elapsed()).filter(|t| !t.is_zero()) {
            let woken = self.changed.wait_timeout(time, left);
            time = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The result of a job of one of the threads.
pub enum Done {
    Wrote {
        bytes: Vec<u8>,
        written: usize,
        error: Option<io::Error>,
        /// The error of the fsync that followed a successful write.
        sync_error: Option<io::Error>,
        synced: bool,
        took: Duration,
        /// The part of `took` that the fsync took.
        sync_took: Duration,
        /// The begin and the end of the write and of the fsync, as counts of the processor's
        /// counter (`sys::ticks`).
        spans: [(u64, u64); 2],
    },
    Synced {
        upto: u64,
        error: Option<io::Error>,
        span: (u64, u64),
    },
    Text {
        path: PathBuf,
        error: Option<io::Error>,
    },
}

/// Writes all of `bytes` at the end of a file that is `at` bytes long. A partial write is undone if
/// possible, so that the file does not end within a command. Returns the number of bytes that stay
/// in the file, and the error if there was one.
pub fn append(file: &File, bytes: &[u8], at: u64) -> (usize, Option<io::Error>) {
    let mut written = 0;
    let mut to = file;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return undo(file, at, written, ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return undo(file, at, written, e),
        }
    }
    (written, None)
}

fn undo(file: &File, at: u64, written: usize, error: io::Error) -> (usize, Option<io::Error>) {
    let undone = written == 0 || file.set_len(at).is_ok();
    (if undone { 0 } else { written }, Some(error))
}

/// Makes the data and the length of a file durable, but not its times.
pub fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// The channels to and from the two threads that wait for the disk.
pub struct Disk {
    writer: Sender<Job>,
    syncer: Sender<Job>,
    done: Receiver<Done>,
    /// A sender of results that is never used: while it exists, the channel of results stays open
    /// even without a thread.
    _results: Sender<Done>,
}

impl Disk {
    /// Starts the two threads; `wake` is called after each job that has a result.
    pub fn start(wake: Option<Wake>) -> io::Result<Disk> {
        let (results, done) = channel();
        Ok(Disk {
            writer: worker("aof_write", results.clone(), wake.clone())?,
            syncer: worker("bio_aof", results.clone(), wake)?,
            done,
            _results: results,
        })
    }

    /// Passes a job to a thread: a write to the writer, any other job to the syncer. An error is
    /// ignored, as the threads end only with the process.
    pub fn submit(&self, job: Job) {
        let to = match job {
            Job::Write { .. } => &self.writer,
            _ => &self.syncer,
        };
        let _ = to.send(job);
    }

    /// The result of a finished job; `None` if no result has arrived.
    pub fn try_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Waits until a job has finished, and returns its result.
    pub fn wait_done(&self) -> Option<Done> {
        self.done.recv().ok()
    }
}

fn worker(name: &str, results: Sender<Done>, wake: Option<Wake>) -> io::Result<Sender<Job>> {
    let (jobs, queue) = channel::<Job>();
    thread::Builder::new().name(name.into()).spawn(move || {
        process::enter_background_cpus();
        let mut memory = ThreadCounters::of_this_thread();
        for job in queue {
            let sent = run(job).is_some_and(|done| results.send(done).is_ok());
            if let Some(memory) = &mut memory {
                memory.publish();
            }
            if let Some(wake) = wake.as_ref().filter(|_| sent) {
                wake();
            }
        }
    })?;
    Ok(jobs)
}

fn run(job: Job) -> Option<Done> {
    match job {
        Job::Write {
            file,
            bytes,
            at,
            sync,
            delay,
        } => {
            delay.wait();
            Some(write(&file, bytes, at, sync))
        }
        Job::Sync { file, upto } => {
            let began = ticks::now();
            let error = self::sync(&file).err();
            let span = (began, ticks::now());
            Some(Done::Synced { upto, error, span })
        }
        Job::Close(file) => {
            drop(file);
            None
        }
        Job::Text { path, make } => {
            let error = std::fs::write(&path, make()).err();
            Some(Done::Text { path, error })
        }
        Job::Unlink(path) => {
            // An error of the removal is ignored: the file is not needed, and may have been removed
            // already.
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

/// Runs a job in the calling thread, and drops its result.
pub fn run_here(job: Job) {
    run(job);
}

/// Appends `bytes` to a file of `at` bytes, and calls fsync if `sync` is set.
pub fn write(file: &File, bytes: Vec<u8>, at: u64, sync: bool) -> Done {
    let (began, began_ticks) = (Instant::now(), ticks::now());
    let (written, error) = append(file, &bytes, at);
    let (wrote, wrote_ticks) = (began.elapsed(), ticks::now());
    let sync_error = match (sync, &error) {
        (true, None) => self::sync(file).err(),
        _ => None,
    };
    Done::Wrote {
        synced: sync && error.is_none() && sync_error.is_none(),
        bytes,
        written,
        error,
        sync_error,
        took: began.elapsed(),
        sync_took: began.elapsed() - wrote,
        spans: [(began_ticks, wrote_ticks), (wrote_ticks, ticks::now())],
    }
}
