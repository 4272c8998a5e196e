//! The thread that frees large values and whole databases. The thread owns what it is given and
//! never reads the keyspace.
//!
//! ```text
//!   loop: free(garbage) -> job n          thread: drop(garbage);  done = n
//!         a client waits for job n                                wake the loop, if a client waits
//!         is_done(n): reply
//! ```
//!
//! The thread does its jobs in order. The thread adds the bytes that it has allocated, less those
//! that it has freed, to a shared counter after each job; during a job, [`LazyFree::unpublished`]
//! reads the difference from the thread's own counters.

use std::any::Any;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crate::sys::allocator::SharedCounters;
use crate::sys::tape::{self, Input};
use crate::sys::ticks;

/// The memory to be freed: any value that another thread can drop.
pub struct Garbage {
    pub content: Box<dyn Any + Send>,
    /// The number of values or keys in the garbage, for the statistics.
    pub objects: usize,
    /// An estimate of the garbage's bytes; 0 if the number is not known.
    pub bytes: usize,
}

/// The function that wakes the event loop.
pub type Wake = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Shared {
    pending: AtomicUsize,
    pending_bytes: AtomicUsize,
    freed: AtomicUsize,
    /// The number of jobs that the thread has finished.
    done: AtomicU64,
    /// Whether a client waits until the thread has finished a job.
    awaited: AtomicBool,
    wake: OnceLock<Wake>,
    /// The memory counters of the thread, while it runs.
    memory: Mutex<Option<SharedCounters>>,
    /// Whether the times in which the thread freed memory are kept for a trace of the loop.
    traced: AtomicBool,
    spans: Mutex<Vec<Span>>,
}

/// A time span in which the thread freed memory: begin and end as counts of `ticks`, and the number
/// of objects.
pub type Span = (u64, u64, usize);

/// The maximum number of spans between two calls of [`LazyFree::take_spans`]; further spans are
/// dropped.
const SPANS_MAX: usize = 256;

impl Shared {
    fn keep_span(&self, span: Span) {
        if !self.traced.load(Ordering::Relaxed) {
            return;
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < SPANS_MAX {
            spans.push(span);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Option<SharedCounters>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the garbage of one job, and counts its objects.
    fn free(&self, garbage: Garbage) {
        let began = ticks::now();
        drop(garbage.content);
        self.keep_span((began, ticks::now(), garbage.objects));
        if let Some(memory) = &mut *self.memory() {
            memory.publish();
        }
        self.pending_bytes
            .fetch_sub(garbage.bytes, Ordering::Relaxed);
        // The object is first counted as freed: if no object is pending, all objects are counted as
        // freed.
        self.freed.fetch_add(garbage.objects, Ordering::Release);
        self.pending.fetch_sub(garbage.objects, Ordering::Release);
        self.done.fetch_add(1, Ordering::SeqCst);
        if self.awaited.swap(false, Ordering::SeqCst)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }
}

/// Removes the counters of a thread from `Shared` when the thread ends, also by a panic.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.memory() = None;
    }
}

fn run(shared: Arc<Shared>, jobs: Receiver<Garbage>) {
    super::process::enter_background_cpus();
    *shared.memory() = SharedCounters::of_this_thread();
    let running = Running(shared);
    for garbage in jobs {
        running.0.free(garbage);
    }
}

/// The handle of the thread that frees.
pub struct LazyFree {
    queue: Option<Sender<Garbage>>,
    shared: Arc<Shared>,
    /// The number of jobs so far, and the sum of their bytes.
    queued: Cell<(u64, usize)>,
}

impl LazyFree {
    /// Starts the thread that frees. If the thread can't be started, the caller of `free` frees
    /// everything itself.
    pub fn start() -> LazyFree {
        let shared = Arc::<Shared>::default();
        let (queue, jobs) = channel();
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("bio_lazy_free".into())
            .spawn(move || run(theirs, jobs));
        LazyFree {
            queue: thread.ok().map(|_| queue),
            shared,
            queued: Cell::default(),
        }
    }

    /// Sets the function that wakes the loop when a job is done that a client waits for.
    pub fn set_wake(&self, wake: Wake) {
        // A function that is set already also wakes the loop.
        let _ = self.shared.wake.set(wake);
    }

    /// Frees the garbage in the background, or at once if there is no thread. Returns the number of
    /// the job.
    pub fn free(&self, garbage: Garbage) -> u64 {
        let (jobs, bytes) = self.queued.get();
        self.queued
            .set((jobs + 1, bytes.wrapping_add(garbage.bytes)));
        let shared = &self.shared;
        shared.pending.fetch_add(garbage.objects, Ordering::Relaxed);
        shared
            .pending_bytes
            .fetch_add(garbage.bytes, Ordering::Relaxed);
        let unsent = match &self.queue {
            Some(queue) => queue.send(garbage).err().map(|error| error.0),
            None => Some(garbage),
        };
        // The thread does not exist, or has ended, so the caller frees the garbage.
        if let Some(garbage) = unsent {
            shared.free(garbage);
        }
        jobs + 1
    }

    /// Whether the job with the number `job` is done. If the job is not done, the event loop is
    /// woken at the job's end.
    pub fn is_done(&self, job: u64) -> bool {
        // The flag `awaited` is set before the numbers of the jobs are compared: a thread that
        // finishes the job after the comparison sees the flag.
        self.shared.awaited.store(true, Ordering::SeqCst);
        let done = || self.shared.done.load(Ordering::SeqCst) >= job;
        tape::number(Input::Fact, || done().into()) != 0
    }

    /// The sum of the bytes of all jobs so far, modulo 2^64.
    pub fn bytes_queued(&self) -> usize {
        self.queued.get().1
    }

    /// The part of the thread's balance of memory that [`ThreadCounters::used`] does not contain:
    /// negative while a job frees.
    ///
    /// [`ThreadCounters::used`]: crate::sys::allocator::ThreadCounters::used
    pub fn unpublished(&self) -> i64 {
        let memory = self.shared.memory();
        let now = || memory.as_ref().map_or(0, SharedCounters::unpublished);
        tape::number(Input::Memory, || now() as u64) as i64
    }

    /// An estimate of the bytes that are still counted by [`ThreadCounters::used`], but that are
    /// free already or that the queued jobs will free.
    ///
    /// [`ThreadCounters::used`]: crate::sys::allocator::ThreadCounters::used
    pub fn reclaimable(&self) -> usize {
        let freed = usize::try_from(-self.unpublished()).unwrap_or(0);
        let pending = || self.shared.pending_bytes.load(Ordering::Relaxed);
        freed.max(tape::number(Input::Memory, || pending() as u64) as usize)
    }

    /// Sets whether the times in which the thread frees memory are kept for a trace of the loop.
    pub fn set_traced(&self, on: bool) {
        self.shared.traced.store(on, Ordering::Relaxed);
        let mut spans = self.spans();
        spans.clear();
        spans.reserve_exact(if on { SPANS_MAX } else { 0 });
    }

    /// Calls `note` with each time span of freeing that was kept since the last `take_spans`.
    pub fn take_spans(&self, note: impl FnMut(Span)) {
        self.spans().drain(..).for_each(note);
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        let spans = self.shared.spans.lock();
        spans.unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of objects that wait to be freed.
    pub fn pending(&self) -> usize {
        let pending = || self.shared.pending.load(Ordering::Acquire);
        tape::number(Input::Fact, || pending() as u64) as usize
    }

    /// The number of objects freed since the start or since CONFIG RESETSTAT.
    pub fn freed(&self) -> usize {
        let freed = || self.shared.freed.load(Ordering::Relaxed);
        tape::number(Input::Fact, || freed() as u64) as usize
    }

    /// Sets the count of freed objects to zero: CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.shared.freed.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    /// Garbage that is not freed before the sender of its channel is dropped.
    struct Held(Receiver<()>, Vec<u8>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.1 = Vec::new();
            let _ = self.0.recv();
        }
    }

    #[test]
    fn a_job_that_runs_shows_what_it_has_freed_and_its_end_wakes_the_loop() {
        let lazyfree = LazyFree::start();
        let (woken, wakes) = sync_channel(8);
        lazyfree.set_wake(Box::new(move || {
            let _ = woken.send(());
        }));
        let (hold, held) = channel();
        let size = 1 << 20;
        let job = lazyfree.free(Garbage {
            content: Box::new(Held(held, vec![1; size])),
            objects: 3,
            bytes: size,
        });
        assert_eq!((job, lazyfree.bytes_queued()), (1, size));
        assert!(!lazyfree.is_done(job));
        assert_eq!((lazyfree.pending(), lazyfree.freed()), (3, 0));
        #[cfg(feature = "jemalloc")]
        while lazyfree.unpublished() > -(size as i64) / 2 {
            // The counters show memory that a job has freed before the job ends.
            thread::yield_now();
        }
        assert!(lazyfree.reclaimable() >= size);
        drop(hold);
        wakes.recv().expect("the loop is woken");
        assert!(lazyfree.is_done(job));
        assert_eq!((lazyfree.pending(), lazyfree.freed()), (0, 3));
        // After the job, the thread's balance contains only memory that the thread itself uses.
        assert!(lazyfree.reclaimable() < size / 2);
        assert!(lazyfree.unpublished().unsigned_abs() < size as u64 / 2);
    }
}
