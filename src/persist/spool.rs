//! A spool is a file that a thread writes, so that the event loop does not wait for the disk. A
//! replica receives a snapshot into a spool.
//!
//! ```text
//!   loop ── bytes ──> queue ──> thread: write, and start the writeback of what was written
//!        ── finish ─> queue ──> thread: fsync
//!        <─ the loop is woken ─ when the queue has become short, and when all is on the disk or has failed
//! ```
//!
//! A write blocks when the kernel has no room for dirty pages, and an fsync of a whole snapshot
//! takes seconds. The queue to the thread has no limit: the replica stops reading from the primary
//! while [`Spool::queued`] is large.
//!
//! **Invariant:** if the result of the thread is `Ok`, the file is complete and durable.
//! **Invariant:** the thread ends when the spool is dropped or has a result. The thread writes
//! nothing to the server's log: if a child were forked during such a write, the log's lock would
//! stay locked in the child.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::aof::disk::{Delay, Wake};
use crate::sys;
use crate::sys::allocator::ThreadCounters;
use crate::sys::process;

/// The number of bytes after which the kernel is asked to write them to the disk, so that the fsync
/// at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// The error of the thread: a write or the fsync failed.
#[derive(Debug)]
pub enum Failure {
    Write(io::Error),
    Sync(io::Error),
}

/// The state that the thread shares with the loop: the number of bytes that wait for the disk, and
/// the result.
#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    result: Mutex<Option<Result<(), Failure>>>,
}

impl Shared {
    fn result(&self) -> MutexGuard<'_, Option<Result<(), Failure>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that a thread is writing.
pub struct Spool {
    pub path: PathBuf,
    /// The queue to the thread that writes the file; `None` after [`Spool::finish`].
    queue: Option<Sender<Vec<u8>>>,
    shared: Arc<Shared>,
}

impl Spool {
    /// Creates the file and starts its thread. The thread calls `wake`, which wakes the loop, when
    /// it has a result and each time when [`Spool::queued`] falls to `short` bytes. `delay` is the
    /// delay before each write that DEBUG AOF-FLUSH-SLEEP sets.
    pub fn create(path: &Path, delay: Arc<Delay>, short: usize, wake: Wake) -> io::Result<Spool> {
        let file = File::create(path)?;
        let (queue, pieces) = channel();
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let name = "rdb_receive".to_string();
        let started = thread::Builder::new().name(name).spawn(move || {
            process::enter_background_cpus();
            let result = run(&file, &pieces, &of_thread, &delay, short, &wake);
            *of_thread.result() = Some(result);
            wake();
        });
        if let Err(e) = started {
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
        Ok(Spool {
            path: path.into(),
            queue: Some(queue),
            shared,
        })
    }

    /// Passes bytes to the thread, which writes them at the end of the file.
    pub fn write(&self, bytes: Vec<u8>) {
        if let Some(queue) = &self.queue {
            self.shared.queued.fetch_add(bytes.len(), Ordering::Relaxed);
            // The send fails if the thread has ended after an error, which [`Spool::take_result`]
            // returns.
            let _ = queue.send(bytes);
        }
    }

    /// Called when no more bytes follow: the thread then syncs the file and has a result.
    pub fn finish(&mut self) {
        self.queue = None;
    }

    /// Whether [`Spool::finish`] was called, so that no more bytes follow.
    pub fn is_finished(&self) -> bool {
        self.queue.is_none()
    }

    /// The number of bytes that wait for the disk.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// Takes the result of the thread, which can be taken once; `None` before the thread has ended.
    pub fn take_result(&self) -> Option<Result<(), Failure>> {
        self.shared.result().take()
    }
}

/// The thread: writes the pieces of bytes from the queue to the file until the queue ends, then
/// syncs the file.
fn run(
    file: &File,
    pieces: &Receiver<Vec<u8>>,
    shared: &Shared,
    delay: &Delay,
    short: usize,
    wake: &Wake,
) -> Result<(), Failure> {
    let mut memory = ThreadCounters::of_this_thread();
    let (mut written, mut started) = (0u64, 0);
    while let Ok(piece) = pieces.recv() {
        delay.wait();
        let mut to = file;
        if let Err(e) = to.write_all(&piece) {
            return Err(Failure::Write(e));
        }
        written += piece.len() as u64;
        if written - started >= WRITEBACK_BYTES {
            sys::start_writeback(file, started, written - started);
            started = written;
        }
        let had = shared.queued.fetch_sub(piece.len(), Ordering::Relaxed);
        let is_short = had > short && had - piece.len() <= short;
        drop(piece);
        if let Some(memory) = &mut memory {
            memory.publish();
        }
        if is_short {
            wake();
        }
    }
    file.sync_all().map_err(Failure::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file of 100 pieces. Returns how often the thread woke the loop, the last time for
    /// the result.
    fn wakes(short: usize) -> usize {
        let name = format!("aeris-spool-{}-{short}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let (woken, wakes) = channel();
        let wake = move || {
            let _ = woken.send(()); // the test may have ended
        };
        let delay = Arc::new(Delay::default());
        let mut spool = Spool::create(&path, delay, short, Arc::new(wake)).expect("a file");
        for _ in 0..100 {
            spool.write(vec![b'x'; 1000]);
        }
        spool.finish();
        // The thread drops its end of the test's channel when it ends, so that `iter` ends.
        let count = wakes.iter().count();
        let result = spool.take_result().expect("the thread has ended");
        result.expect("all is written");
        assert_eq!(spool.queued(), 0);
        let written = std::fs::metadata(&path).expect("a file").len();
        assert_eq!(written, 100_000);
        std::fs::remove_file(&path).expect("it is there");
        count
    }

    #[test]
    fn the_loop_is_woken_when_the_queue_has_become_short() {
        assert_eq!(wakes(usize::MAX), 1, "for the result");
        // At least one wake is for the queue, which the last piece empties.
        assert!(wakes(0) >= 2);
    }
}
