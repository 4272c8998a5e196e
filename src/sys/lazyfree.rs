//! The thread that frees large values and whole databases. It owns what it is given and never reads
//! the keyspace.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sys::allocator::ThreadCounters;
use crate::sys::ticks;

/// Anything that another thread can drop.
pub type Garbage = Box<dyn Any + Send>;

#[derive(Default)]
struct Counters {
    pending: AtomicUsize,
    freed: AtomicUsize,
    /// Whether spans are kept for a trace.
    traced: AtomicBool,
    spans: Mutex<Vec<Span>>,
}

/// A time in which the thread freed: begin and end as counts of `ticks`, and the number of objects.
pub type Span = (u64, u64, usize);

/// The maximum number of spans between two calls of [`LazyFree::take_spans`]; further ones are not
/// kept.
const SPANS_MAX: usize = 256;

impl Counters {
    fn keep_span(&self, span: Span) {
        if !self.traced.load(Ordering::Relaxed) {
            return;
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < SPANS_MAX {
            spans.push(span);
        }
    }
}

/// The handle of the thread that frees.
pub struct LazyFree {
    queue: Option<Sender<(Garbage, usize)>>,
    counters: Arc<Counters>,
}

impl LazyFree {
    /// Starts the thread; without one, everything is freed by the caller.
    pub fn start() -> LazyFree {
        let counters = Arc::<Counters>::default();
        let (queue, jobs) = channel::<(Garbage, usize)>();
        let theirs = counters.clone();
        let thread = thread::Builder::new()
            .name("bio_lazy_free".into())
            .spawn(move || {
                super::process::enter_background_cpus();
                let mut memory = ThreadCounters::of_this_thread();
                for (garbage, objects) in jobs {
                    let began = ticks::now();
                    drop(garbage);
                    theirs.keep_span((began, ticks::now(), objects));
                    theirs.pending.fetch_sub(objects, Ordering::Relaxed);
                    theirs.freed.fetch_add(objects, Ordering::Relaxed);
                    if let Some(memory) = &mut memory {
                        memory.publish();
                    }
                }
            });
        LazyFree {
            queue: thread.ok().map(|_| queue),
            counters,
        }
    }

    /// Frees in the background, or here if there is no thread. `objects` is counted in the
    /// statistics.
    pub fn free(&self, garbage: Garbage, objects: usize) {
        self.counters.pending.fetch_add(objects, Ordering::Relaxed);
        let Some(queue) = &self.queue else {
            self.counters.pending.fetch_sub(objects, Ordering::Relaxed);
            return;
        };
        // If the thread is dead, the send returns the garbage, and it is freed here.
        let _ = queue.send((garbage, objects));
    }

    /// Sets whether spans are kept for a trace.
    pub fn set_traced(&self, on: bool) {
        self.counters.traced.store(on, Ordering::Relaxed);
        let mut spans = self.spans();
        spans.clear();
        spans.reserve_exact(if on { SPANS_MAX } else { 0 });
    }

    /// Passes the spans since the last call to `note`.
    pub fn take_spans(&self, note: impl FnMut(Span)) {
        self.spans().drain(..).for_each(note);
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        let spans = self.counters.spans.lock();
        spans.unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects that wait to be freed.
    pub fn pending(&self) -> usize {
        self.counters.pending.load(Ordering::Relaxed)
    }

    /// Objects freed since the start or since CONFIG RESETSTAT.
    pub fn freed(&self) -> usize {
        self.counters.freed.load(Ordering::Relaxed)
    }

    /// Sets the count of freed objects to zero: CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.counters.freed.store(0, Ordering::Relaxed);
    }
}
