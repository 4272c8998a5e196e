//! Whether a replica will lag beyond the output limit of its class, after which it is closed and
//! needs a full sync again.
//!
//! ```text
//!   a replica lags       0 ........ limit / 2 ........ limit
//!                        no delay   1 .. 100 ms        closed
//!                                   for each write     (`clients::output_limit`)
//!
//!   a full sync begins   duration of the last one x bytes of writes per second  >  limit ?
//! ```
//!
//! **Limits:** the forecast assumes that the next full sync takes as long as the last one, or as
//! long as a failed one took until its end. Before the first one, there is no forecast.

/// The limits of the replicas' class: `client-output-buffer-limit replica`. 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At this number of bytes, a replica is closed.
    pub hard: u64,
    /// A replica that stays above this number of bytes for `soft_s` seconds is closed, too.
    pub soft: u64,
    pub soft_s: u64,
}

/// The maximum delay of a write.
const DELAY_MAX_MS: u64 = 100;

impl Limits {
    /// How long writes are delayed while a replica lags by `lag` bytes. The delay grows with the
    /// square of the lag beyond half of the lower limit, so that the writers slow down early and
    /// gently, and a replica that receives anything at all catches up.
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

/// The forecast for the full sync that began last.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// The duration of the last full sync in milliseconds; 0 before the first.
    pub sync_ms: u64,
    /// The bytes of writes that are expected in this time.
    pub bytes: u64,
    /// Whether they are more than a replica may lag.
    pub overruns: bool,
}

impl Forecast {
    /// Computes the forecast for a sync that begins now, while the stream grows by `rate` bytes
    /// per second.
    pub fn update(&mut self, rate: u64, limits: Limits) {
        self.bytes = rate.saturating_mul(self.sync_ms) / 1000;
        let hard = limits.hard > 0 && self.bytes >= limits.hard;
        let above = self.bytes.saturating_sub(limits.soft);
        let above_s = above.checked_div(rate).unwrap_or(0);
        let soft = limits.soft > 0 && above > 0 && above_s > limits.soft_s;
        self.overruns = hard || soft;
    }

    /// A full sync has succeeded after this time.
    pub fn succeeded(&mut self, after_ms: u64) {
        self.sync_ms = after_ms.max(1);
    }

    /// A full sync has failed after this time: it would have taken longer.
    pub fn failed(&mut self, after_ms: u64) {
        self.sync_ms = self.sync_ms.max(after_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        forecast.update(u64::MAX, class);
        assert_eq!(forecast, Forecast::default(), "no sync yet");
        forecast.succeeded(10_000);
        forecast.update(20 * MB, class);
        assert_eq!((forecast.bytes, forecast.overruns), (200 * MB, false));
        forecast.update(26 * MB, class);
        assert!(forecast.overruns, "the hard limit");
        // 64 MB after 64 s, and above that for 61 s.
        forecast.succeeded(126_000);
        forecast.update(MB, class);
        assert!(forecast.overruns, "the soft limit");
        forecast.succeeded(124_000);
        forecast.update(MB, class);
        assert!(!forecast.overruns);
        forecast.update(u64::MAX, limits(0, 0, 0));
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
