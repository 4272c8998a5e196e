//! The waiting time before the next attempt to connect.

use crate::util::random::Random;

/// Doubles the time with each failure, up to a maximum. Half of it is random, so that the replicas
/// of a restarted primary do not all connect at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first_ms`; no wait is longer than `max_ms`.
    pub fn new(first_ms: u64, max_ms: u64) -> Backoff {
        Backoff {
            first_ms: first_ms.min(max_ms),
            max_ms,
            failures: 0,
        }
    }

    /// After a failed attempt: the time to wait in milliseconds.
    pub fn next_ms(&mut self, random: &mut Random) -> u64 {
        let doubled = 1u64.checked_shl(self.failures);
        let bound = doubled.map_or(u64::MAX, |factor| self.first_ms.saturating_mul(factor));
        let bound = bound.min(self.max_ms);
        self.failures = self.failures.saturating_add(1);
        let half = bound / 2;
        bound - random.below(half.saturating_add(1))
    }

    /// After a successful attempt: starts again from the first wait.
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
        let mut backoff = Backoff::new(100, 1000);
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_ms(&mut random);
            assert!((bound / 2..=bound).contains(&wait), "{wait} of {bound}");
        }
        backoff.reset();
        assert!(backoff.next_ms(&mut random) <= 100);
    }

    #[test]
    fn two_links_do_not_wait_equally() {
        let waits = |seed| {
            let mut random = Random::from_seed(seed);
            let mut backoff = Backoff::new(1000, 60_000);
            [(); 8].map(|()| backoff.next_ms(&mut random))
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(1), waits(1));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut random = Random::from_seed(1);
        let mut backoff = Backoff::new(u64::MAX / 2, u64::MAX);
        for _ in 0..200 {
            assert!(backoff.next_ms(&mut random) >= u64::MAX / 4);
        }
        let mut none = Backoff::new(0, 0);
        assert_eq!(none.next_ms(&mut random), 0);
    }
}
