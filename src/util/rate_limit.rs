//! Limits how frequently a line is written to the server's log.

/// Remembers when a line was last written to the server's log.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RateLimit {
    last_ms: Option<i64>,
}

impl RateLimit {
    /// Whether the line may be written at `now_ms`, Unix time: at most once in each `interval_ms`.
    /// If the clock was set back by more than the interval, the line may be written.
    pub fn allows(&mut self, now_ms: i64, interval_ms: i64) -> bool {
        let recently = |at: i64| {
            now_ms
                .checked_sub(at)
                .is_some_and(|ms| ms.abs() <= interval_ms)
        };
        let allowed = !self.last_ms.is_some_and(recently);
        if allowed {
            self.last_ms = Some(now_ms);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_one_line_for_each_interval() {
        let mut limit = RateLimit::default();
        let allowed = [0, 1, 100, 101, 102, 201, 202].map(|now| limit.allows(now, 100));
        assert_eq!(allowed, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_silence_the_line() {
        let mut limit = RateLimit::default();
        assert!(limit.allows(i64::MAX, 100));
        assert!(!limit.allows(i64::MAX - 100, 100));
        assert!(limit.allows(5, 100));
        limit = RateLimit::default();
        assert!(limit.allows(i64::MIN, 100));
        // The difference between the two times overflows, which counts as longer than any interval.
        assert!(limit.allows(i64::MAX, 100));
    }
}
