//! Wakes the loop from another thread.
//!
//! A thread that has finished something (an fsync, a name look-up) stores its result where the main
//! thread finds it, then calls [`Waker::wake`]. The present poll ends, or the next one does not
//! wait; no handler is called. The program takes the results in `after_sleep` or `before_sleep`.
//! Several calls of `wake` before a poll count as one.

use std::io;
use std::sync::Arc;

/// Ends the loop's poll from another thread. Cloning a `Waker` copies one reference.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<mio::Waker>,
}

impl Waker {
    pub(crate) fn new(inner: mio::Waker) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Wakes the loop. What the calling thread wrote before this call is visible to the woken loop,
    /// provided that the memory is shared properly (a channel, a mutex, an atomic).
    pub fn wake(&self) -> io::Result<()> {
        self.inner.wake()
    }
}
