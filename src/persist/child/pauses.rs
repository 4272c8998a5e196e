//! A child (which saves or sends the data set) makes short pauses while the server waits for a
//! processor.
//!
//! If processes are ready to run on all processors, the kernel switches between them by time
//! slices: 4 milliseconds with 250 ticks a second. A child that works without a stop keeps its
//! slices, and all clients of the server wait for them. A child that sleeps for a moment after each
//! 100 microseconds of work gives the processor back at once:
//!
//! ```text
//!   without pauses   child ████████████████████░░░░░░░░░░░░░░░░░░░░████████████████████
//!                   server ░░░░░░░░░░░░░░░░░░░░████████████████████░░░░░░░░░░░░░░░░░░░░
//!   with pauses      child █░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░█░░
//!                   server ░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██░██
//! ```
//!
//! The kernel counts how long the server's thread was ready to run but did not run
//! (`/proc/<pid>/schedstat`). The child reads the count every 5 milliseconds. If the count grew by
//! more than a twentieth of the time, the child makes pauses for the next 100 milliseconds. During
//! this time a count that hardly grows does not end the pauses, since it is their effect.
//!
//! **Limits.** Pauses take at most half of the child's time, also if a pause lasts longer than
//! wanted because other processes are ready to run. So pauses at most double the time that a child
//! takes. On a kernel without `/proc/<pid>/schedstat`, a child makes no pauses.

use std::time::{Duration, Instant};

use crate::sys::process;

/// The time for which a child works between two pauses.
const WORK: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_micros(100);
/// The interval at which the child reads how long the server has waited for a processor.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The server counts as waiting if it waits for a processor for more than 1 / `WAITING_SHARE` of
/// the time.
const WAITING_SHARE: u32 = 20;
/// The time for which the child makes pauses after the server has waited for a processor.
const CARE: Duration = Duration::from_millis(100);
/// A child's pauses take at most 1 / `PAUSED_SHARE` of its time.
const PAUSED_SHARE: u32 = 2;

/// The pauses of one child. All times are measured from the child's start.
pub(super) struct Pauses {
    began: Instant,
    server: i32,
    plan: Plan,
}

impl Pauses {
    /// Creates the pauses of this process, a child; `server` is the pid of the server, for which
    /// the child pauses.
    pub(super) fn new(server: i32) -> Pauses {
        Pauses {
            began: Instant::now(),
            server,
            plan: Plan::default(),
        }
    }

    /// Called after a few keys or a written buffer: pauses if a pause is due.
    pub(super) fn step(&mut self) {
        let now = self.began.elapsed();
        if self.plan.is_due(now, || process::waited(self.server)) {
            std::thread::sleep(PAUSE);
            self.plan.paused(now, self.began.elapsed());
        }
    }
}

/// Decides when the child pauses.
#[derive(Default)]
struct Plan {
    next_look: Duration,
    /// The time of the last look, and how long the server had waited for a processor by then.
    last: Option<(Duration, Duration)>,
    /// The time until which the child makes pauses in its work of saving or sending the data set.
    until: Duration,
    next_pause: Duration,
    /// The total duration of all pauses.
    paused: Duration,
}

impl Plan {
    /// Whether a pause is due; `waited` reads how long the server has waited for a processor.
    fn is_due(&mut self, now: Duration, waited: impl FnOnce() -> Option<Duration>) -> bool {
        if now >= self.next_look {
            self.look(now, waited());
        }
        now < self.until && now >= self.next_pause && self.paused * PAUSED_SHARE <= now
    }

    fn look(&mut self, now: Duration, waited: Option<Duration>) {
        let grown = |(then, before): (Duration, Duration)| {
            let more = waited?.saturating_sub(before);
            Some(more * WAITING_SHARE > now - then)
        };
        if self.last.and_then(grown) == Some(true) {
            self.until = now + CARE;
        }
        self.last = waited.map(|waited| (now, waited));
        self.next_look = now + LOOK_EVERY;
    }

    /// Counts a pause from `from` to `to`.
    fn paused(&mut self, from: Duration, to: Duration) {
        self.paused += to - from;
        self.next_pause = to + WORK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// The number of pauses, each of the length `pause`, that a child makes in a second; `waits` is
    /// the share of the time for which the server waits for a processor.
    fn pauses(pause: Duration, waits: Option<f64>) -> u32 {
        let (mut plan, mut now, mut count) = (Plan::default(), Duration::ZERO, 0);
        while now < SECOND {
            now += STEP;
            if plan.is_due(now, || waits.map(|share| now.mul_f64(share))) {
                plan.paused(now, now + pause);
                now += pause;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_child_pauses_while_the_server_waits() {
        let found = pauses(PAUSE, Some(0.3));
        assert!((4500..5000).contains(&found), "{found}");
        assert_eq!(pauses(PAUSE, Some(0.04)), 0, "the server hardly waits");
        assert_eq!(pauses(PAUSE, None), 0, "nothing is known of the server");
    }

    #[test]
    fn long_pauses_take_half_of_the_time_at_most() {
        let long = Duration::from_millis(4);
        let found = pauses(long, Some(0.5));
        assert!((100..=126).contains(&found), "{found}");
    }

    #[test]
    fn the_kernel_tells_how_long_a_process_has_waited() {
        assert_eq!(process::waited(0), None, "there is no such process");
        let known = process::waited(std::process::id() as i32).is_some();
        let tells = std::path::Path::new("/proc/self/schedstat").exists();
        assert_eq!(known, tells);
    }
}
