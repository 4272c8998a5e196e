//! Waking the loop from another thread.
//!
//! A thread that has finished something (an fsync, a name look-up) leaves its result where the loop
//! will look, then calls [`Waker::wake`]. The poll in progress ends, or the next one does not wait;
//! no handler is called for it. The program looks for results in `after_sleep` or `before_sleep`.
//! Wakes that come together count as one.

use std::io;
use std::sync::Arc;

/// Ends a poll from another thread. Cheap to clone.
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

    /// What was written before this call is visible to the loop when it wakes, provided that the
    /// memory itself is shared properly (a channel, a mutex, an atomic).
    pub fn wake(&self) -> io::Result<()> {
        self.inner.wake()
    }
}
