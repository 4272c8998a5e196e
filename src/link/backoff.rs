//! The waiting time before the next attempt to connect to another server, after attempts that
//! failed.

use crate::util::random::Random;

/// The state of an exponential back-off: the waiting time doubles with each failure, up to a
/// maximum. Half of the time is random, so that servers that have lost the same peer at the same
/// moment do not all connect again at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Called after a failed attempt to connect. Returns the time to wait before the next attempt,
    /// in milliseconds: at most `first_ms` after the first failure, and never more than `max_ms`.
    pub fn next_ms(&mut self, first_ms: u64, max_ms: u64, random: &mut Random) -> u64 {
        let doubled = 1u64.checked_shl(self.failures);
        let bound = doubled.map_or(u64::MAX, |factor| first_ms.saturating_mul(factor));
        let bound = bound.min(max_ms);
        self.failures = self.failures.saturating_add(1);
        let half = bound / 2;
        bound - half + random.below(half.saturating_add(1))
    }

    /// Called after a successful attempt to connect: the next failure is counted as the first one
    /// again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_half_of_it_is_chance() {
        let mut random = Random::from_seed(1);
        let mut backoff = Backoff::default();
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_ms(100, 1000, &mut random);
            assert!((bound / 2..=bound).contains(&wait), "{wait} of {bound}");
        }
        backoff.reset();
        assert!(backoff.next_ms(100, 1000, &mut random) <= 100);
    }

    #[test]
    fn two_links_do_not_wait_equally() {
        let waits = |seed| {
            let mut random = Random::from_seed(seed);
            let mut backoff = Backoff::default();
            [(); 8].map(|()| backoff.next_ms(1000, 60_000, &mut random))
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(1), waits(1));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut random = Random::from_seed(1);
        let mut backoff = Backoff::default();
        for _ in 0..200 {
            assert!(backoff.next_ms(u64::MAX / 2, u64::MAX, &mut random) >= u64::MAX / 4);
        }
        assert_eq!(Backoff::default().next_ms(0, 0, &mut random), 0);
    }
}
