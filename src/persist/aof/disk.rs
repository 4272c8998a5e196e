//! Writing the AOF to the disk: one function that writes, and two threads that wait for the disk in
//! the loop's place.
//!
//! ```text
//!   loop ── Write { file, bytes, sync } ──> writer thread    write, and fsync under `always`
//!        ── Sync  { file, upto }        ──> syncer thread    fsync under `everysec`; closing, deleting
//!        <─ Done ─────────────────────────  and the loop is woken
//! ```
//!
//! A write blocks when the kernel has no room for dirty pages, and on some file systems while an
//! fsync of the same file runs. The loop writes by itself only when neither is to be expected. Two
//! threads, because a write need not wait for the fsync of what was written before it.
//!
//! The threads get bytes and files, give them back with the result, and do not access the server.
//! They write no log lines: a child that is forked meanwhile must find the log's lock open.
//!
//! **Invariant:** at most one write is under way, by the thread or by the loop, so bytes reach a
//! file in order.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::allocator::ThreadCounters;
use crate::sys::process;

/// How the loop is woken.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

pub enum Job {
    Write {
        file: Arc<File>,
        bytes: Vec<u8>,
        /// The file's length before.
        at: u64,
        sync: bool,
        delay: Arc<Delay>,
    },
    /// Make what was written so far durable; `upto` comes back.
    Sync {
        file: Arc<File>,
        upto: u64,
    },
    /// Forget a file; the last one to forget it closes it, which may take long.
    Close(Arc<File>),
    Unlink(PathBuf),
}

/// DEBUG AOF-FLUSH-SLEEP: how long each write waits first, so that tests know a disk that is slow,
/// or stuck. A new value counts at once, for a write that waits already too.
#[derive(Default)]
pub struct Delay {
    time: Mutex<Duration>,
    changed: Condvar,
}

impl Delay {
    pub fn set(&self, time: Duration) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = time;
        self.changed.notify_all();
    }

    pub fn wait(&self) {
        let began = Instant::now();
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = time.checked_sub(began.elapsed()).filter(|t| !t.is_zero()) {
            let woken = self.changed.wait_timeout(time, left);
            time = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The result of a job.
pub enum Done {
    Wrote {
        bytes: Vec<u8>,
        written: usize,
        error: Option<io::Error>,
        /// An fsync that failed after a good write.
        sync_error: Option<io::Error>,
        synced: bool,
        took: Duration,
        /// The fsync's part of it.
        sync_took: Duration,
    },
    Synced {
        upto: u64,
        error: Option<io::Error>,
    },
}

/// Write all of `bytes` at the end of a file that is `at` bytes long. What could only be written in
/// part is taken back if possible, so that the file does not end within a command. Returns how much
/// stays written.
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

/// Data and length, not the times.
pub fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// The two threads.
pub struct Disk {
    writer: Sender<Job>,
    syncer: Sender<Job>,
    done: Receiver<Done>,
    /// Kept, so that results can be received even if no thread could be started.
    _results: Sender<Done>,
}

impl Disk {
    pub fn start(wake: Option<Wake>) -> io::Result<Disk> {
        let (results, done) = channel();
        Ok(Disk {
            writer: worker("aof_write", results.clone(), wake.clone())?,
            syncer: worker("bio_aof", results.clone(), wake)?,
            done,
            _results: results,
        })
    }

    /// Hand a job to the thread that it is for. A thread ends only with the process.
    pub fn submit(&self, job: Job) {
        let to = match job {
            Job::Write { .. } => &self.writer,
            _ => &self.syncer,
        };
        let _ = to.send(job);
    }

    /// A job that is over.
    pub fn try_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Wait for one.
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
            let told = run(job).is_some_and(|done| results.send(done).is_ok());
            if let Some(memory) = &mut memory {
                memory.publish();
            }
            if let Some(wake) = wake.as_ref().filter(|_| told) {
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
        Job::Sync { file, upto } => Some(Done::Synced {
            upto,
            error: self::sync(&file).err(),
        }),
        Job::Close(file) => {
            drop(file);
            None
        }
        Job::Unlink(path) => {
            // It may be gone already, and it is not needed.
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

/// Without a thread: what is done needs no answer.
pub fn run_here(job: Job) {
    run(job);
}

/// Write, and fsync if wanted.
pub fn write(file: &File, bytes: Vec<u8>, at: u64, sync: bool) -> Done {
    let began = Instant::now();
    let (written, error) = append(file, &bytes, at);
    let wrote = began.elapsed();
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
    }
}
