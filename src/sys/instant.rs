//! The monotonic clock, for durations on the loop's thread. `Instant` is used as
//! `std::time::Instant`, but a reading passes through `sys::tape`, so that a recording contains it.

use std::ops::Add;
use std::time::Duration;

use crate::sys::tape::{self, Input};
use crate::sys::ticks;

/// A reading of the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(u64);

impl Instant {
    /// Reads the monotonic clock.
    #[inline]
    pub fn now() -> Instant {
        Instant(tape::number(Input::Monotonic, ticks::monotonic_ns))
    }

    /// The time that has passed since this reading of the clock.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Instant::now().0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, after: Duration) -> Instant {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}
