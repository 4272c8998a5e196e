//! Decisions that prevent replicas from lagging beyond their output limit: delays of writes, a
//! forecast, delays of full syncs. A replica that exceeds its limit is closed and needs a full sync
//! again.
//!
//! ```text
//!   a replica lags       0 ........ limit / 2 ........ limit
//!                        no delay   1 .. 100 ms        closed
//!                                   for each write     (`clients::output_limit`)
//!
//!   a full sync begins   duration of the last one x bytes of writes per second  >  limit ?
//!
//!   a full sync ends by the limit for the 2nd, 3rd, .. time     the next one after 10 s, 20 s, .. 320 s
//! ```
//!
//! **Limits:** the forecast assumes that the next full sync takes as long as the last one, or as
//! long as a failed full sync took until its end. Before the first full sync, there is no forecast.
//! A replica with two connections is assumed to have the same limits as this server.

use std::collections::VecDeque;

/// The output limits of replicas: `client-output-buffer-limit replica`. 0 means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The hard limit: a replica that lags by this number of bytes is closed.
    pub hard: u64,
    /// The soft limit: a replica that lags by more than this number of bytes for `soft_s` seconds
    /// is closed.
    pub soft: u64,
    pub soft_s: u64,
}

/// The maximum delay of a write command while a replica lags, in milliseconds.
const DELAY_MAX_MS: u64 = 100;

impl Limits {
    /// The delay of writes, in milliseconds, while a replica lags by `lag` bytes. The delay grows
    /// with the square of the lag beyond half of the lower of the two limits, so that writers are
    /// slowed down early and gradually, and a replica that receives any bytes catches up.
    pub fn delay_ms(&self, lag: u64) -> u64 {
        let limits = [self.hard, self.soft].into_iter();
        let Some(limit) = limits.filter(|limit| *limit > 0).min() else {
            return 0;
        };
        let half = limit / 2;
        if lag <= half {
            return 0;
        }
        let beyond = ((lag - half) as f64 / half.max(1) as f64).min(1.0);
        ((DELAY_MAX_MS as f64 * beyond * beyond) as u64).max(1)
    }
}

/// The forecast whether the full sync that began last exceeds the replica's output limit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// The duration of the last full sync in milliseconds; 0 before the first full sync.
    pub sync_ms: u64,
    /// The number of bytes of writes that are expected during the full sync.
    pub bytes: u64,
    /// Whether the bytes that are expected during the full sync exceed the output limits of a
    /// replica.
    pub overruns: bool,
}

impl Forecast {
    /// Computes the forecast for a full sync that begins now, while the replication stream grows by
    /// `rate` bytes per second. The replica itself buffers up to `held` of these bytes until its
    /// snapshot is loaded.
    pub fn update(&mut self, rate: u64, limits: Limits, held: u64) {
        self.bytes = rate.saturating_mul(self.sync_ms) / 1000;
        let lag = self.bytes.saturating_sub(held);
        let hard = limits.hard > 0 && lag >= limits.hard;
        let above = lag.saturating_sub(limits.soft);
        let above_s = above.checked_div(rate).unwrap_or(0);
        let soft = limits.soft > 0 && above > 0 && above_s > limits.soft_s;
        self.overruns = hard || soft;
    }

    /// Records that a full sync has succeeded after `after_ms` milliseconds.
    pub fn succeeded(&mut self, after_ms: u64) {
        self.sync_ms = after_ms.max(1);
    }

    /// Records that a full sync has failed after `after_ms` milliseconds; a complete full sync
    /// takes longer.
    pub fn failed(&mut self, after_ms: u64) {
        self.sync_ms = self.sync_ms.max(after_ms);
    }
}

/// The maximum number of replicas of which overruns (full syncs that the output limit ended) are
/// stored.
const OVERRUNS_MAX: usize = 64;
/// The delay of the next full sync after the second overrun, in milliseconds.
const BACK_OFF_MS: i64 = 10_000;
/// The maximum number of times that the delay of the next full sync is doubled.
const DOUBLINGS_MAX: u32 = 5;

/// A replica whose last full syncs were ended by its output limit.
struct Overrun {
    /// The name of the replica: its address.
    name: String,
    /// The number of full syncs in a row that were ended by the output limit.
    count: u32,
    until_ms: i64,
    /// The output limits at the time of the last overrun.
    limits: Limits,
}

/// The replicas whose full syncs end at their output limit. The next full sync of a replica in this
/// list would cost a fork and a transfer and probably fail as well, so it is delayed.
#[derive(Default)]
pub struct Overruns {
    all: VecDeque<Overrun>,
}

impl Overruns {
    /// Records that a full sync of the replica `name` was ended by its output limit. Returns the
    /// number of such full syncs in a row, and the delay of the next full sync in milliseconds.
    pub fn note(&mut self, name: &str, limits: Limits, now_ms: i64) -> (u32, i64) {
        let before = self.remove(name).map_or(0, |old| old.count);
        let count = before.saturating_add(1);
        let delay_ms = match count.checked_sub(2) {
            None => 0,
            Some(doublings) => BACK_OFF_MS << doublings.min(DOUBLINGS_MAX),
        };
        if self.all.len() >= OVERRUNS_MAX {
            self.all.pop_front();
        }
        self.all.push_back(Overrun {
            name: name.into(),
            count,
            until_ms: now_ms.saturating_add(delay_ms),
            limits,
        });
        (count, delay_ms)
    }

    /// Removes the replica `name`, since a full sync of it has succeeded.
    pub fn forget(&mut self, name: &str) {
        self.remove(name);
    }

    /// The number of overruns of the replica `name`, and the milliseconds until its next full sync;
    /// `None` if a full sync may begin now, because the delay is over or the output limits were
    /// changed.
    pub fn delay(&self, name: &str, limits: Limits, now_ms: i64) -> Option<(u32, i64)> {
        let overrun = self.all.iter().find(|overrun| overrun.name == name)?;
        let rest_ms = overrun.until_ms - now_ms;
        let waits = rest_ms > 0 && overrun.limits == limits;
        waits.then_some((overrun.count, rest_ms))
    }

    fn remove(&mut self, name: &str) -> Option<Overrun> {
        let at = self.all.iter().position(|overrun| overrun.name == name)?;
        self.all.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_second_overrun_on_the_next_sync_is_delayed() {
        let class = limits(256 * MB, 64 * MB, 60);
        let mut overruns = Overruns::default();
        assert_eq!(overruns.note("a:1", class, 0), (1, 0));
        assert_eq!(overruns.delay("a:1", class, 0), None, "once is no pattern");
        assert_eq!(overruns.note("a:1", class, 500), (2, 10_000));
        assert_eq!(overruns.delay("a:1", class, 1_500), Some((2, 9_000)));
        assert_eq!(overruns.delay("b:1", class, 1_500), None);
        assert_eq!(overruns.delay("a:1", class, 10_500), None);
        let larger = limits(512 * MB, 64 * MB, 60);
        assert_eq!(overruns.delay("a:1", larger, 1_500), None, "another limit");
        assert_eq!(overruns.note("a:1", class, 0), (3, 20_000));
        for _ in 0..100 {
            overruns.note("a:1", class, 0);
        }
        assert_eq!(overruns.note("a:1", class, 0), (104, 320_000));
        overruns.forget("a:1");
        assert_eq!(overruns.note("a:1", class, 0), (1, 0));
    }

    #[test]
    fn a_bounded_number_of_replicas_is_remembered() {
        let mut overruns = Overruns::default();
        for n in 0..1000 {
            overruns.note(&n.to_string(), limits(1, 0, 0), 0);
        }
        assert_eq!(overruns.all.len(), OVERRUNS_MAX);
        let (count, _) = overruns.note("999", limits(1, 0, 0), 0);
        assert_eq!(count, 2);
    }

    #[test]
    fn a_replica_that_collects_the_stream_itself_lags_later() {
        let mut forecast = Forecast::default();
        forecast.succeeded(10_000);
        let class = limits(256 * MB, 0, 0);
        forecast.update(50 * MB, class, 256 * MB);
        assert_eq!((forecast.bytes, forecast.overruns), (500 * MB, false));
        forecast.update(52 * MB, class, 256 * MB);
        assert!(forecast.overruns);
        forecast.update(u64::MAX, limits(0, MB, 0), u64::MAX);
        assert!(!forecast.overruns, "it holds everything");
    }

    const MB: u64 = 1 << 20;

    fn limits(hard: u64, soft: u64, soft_s: u64) -> Limits {
        Limits { hard, soft, soft_s }
    }

    #[test]
    fn writes_are_delayed_beyond_half_of_the_lower_limit() {
        let both = limits(256 * MB, 64 * MB, 60);
        assert_eq!(both.delay_ms(0), 0);
        assert_eq!(both.delay_ms(32 * MB), 0);
        assert_eq!(both.delay_ms(32 * MB + 1), 1);
        assert_eq!(both.delay_ms(48 * MB), 25);
        assert_eq!(both.delay_ms(64 * MB), 100);
        assert_eq!(both.delay_ms(u64::MAX), 100);
        assert_eq!(limits(8 * MB, 0, 0).delay_ms(8 * MB), 100);
        assert_eq!(limits(0, 0, 0).delay_ms(u64::MAX), 0);
        assert_eq!(limits(1, 0, 0).delay_ms(1), 100);
    }

    #[test]
    fn a_sync_that_takes_too_long_for_the_rate_of_writes_is_foreseen() {
        let mut forecast = Forecast::default();
        let class = limits(256 * MB, 64 * MB, 60);
        forecast.update(u64::MAX, class, 0);
        assert_eq!(forecast, Forecast::default(), "no sync yet");
        forecast.succeeded(10_000);
        forecast.update(20 * MB, class, 0);
        assert_eq!((forecast.bytes, forecast.overruns), (200 * MB, false));
        forecast.update(26 * MB, class, 0);
        assert!(forecast.overruns, "the hard limit");
        // With one MB for each second, 64 MB, the soft limit, is reached after 64 s. In a full sync
        // of 126 s the replica's soft limit is exceeded for more than 61 s, in a full sync of 124 s
        // for less.
        forecast.succeeded(126_000);
        forecast.update(MB, class, 0);
        assert!(forecast.overruns, "the soft limit");
        forecast.succeeded(124_000);
        forecast.update(MB, class, 0);
        assert!(!forecast.overruns);
        forecast.update(u64::MAX, limits(0, 0, 0), 0);
        assert!(!forecast.overruns, "no limit");
    }

    #[test]
    fn a_failed_sync_would_have_taken_longer() {
        let mut forecast = Forecast::default();
        forecast.failed(5_000);
        assert_eq!(forecast.sync_ms, 5_000);
        forecast.succeeded(9_000);
        forecast.failed(1_000);
        assert_eq!(forecast.sync_ms, 9_000);
    }
}
