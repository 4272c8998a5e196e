//! A log-linear histogram of latencies, in the manner of Gil Tene's HdrHistogram: values from 1 ns
//! to 1 s in buckets whose width is at most 1/128 of the value (two significant digits), so a
//! percentile is off by at most 0.8 %.
//!
//! ```text
//!   value   0..255       one bucket each
//!           256..511     128 buckets of 2
//!           512..1023    128 buckets of 4        ...and so on up to 2^30
//! ```
//!
//! The bounds of the buckets are Redis's, since LATENCY HISTOGRAM and INFO latencystats show them.

const SUB_BITS: u32 = 8;
const SUB: usize = 1 << SUB_BITS;
const HALF: usize = SUB / 2;
const MAX: u64 = 1_000_000_000;
const BUCKETS: usize = SUB + (30 - SUB_BITS as usize) * HALF;

/// The number (schema) of Prometheus' native histograms whose buckets each end at 2^(1/8) times the
/// end of the previous bucket, which is 9 % more.
pub const NATIVE_SCHEMA: i32 = 3;

/// Counts of recorded values, by bucket of the histogram.
pub struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: [0; BUCKETS],
            total: 0,
        }
    }
}

#[inline]
fn index(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let shift = 64 - value.leading_zeros() - SUB_BITS;
    SUB + (shift as usize - 1) * HALF + ((value >> shift) as usize - HALF)
}

/// The largest value that falls into a bucket.
fn highest(index: usize) -> u64 {
    if index < SUB {
        return index as u64;
    }
    let (shift, sub) = ((index - SUB) / HALF + 1, (index - SUB) % HALF + HALF);
    ((sub as u64 + 1) << shift) - 1
}

impl Histogram {
    /// Counts a value in nanoseconds, clamped to 1 ns .. 1 s.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        let at = index(ns.clamp(1, MAX));
        self.counts[at] = self.counts[at].saturating_add(1);
        self.total += 1;
    }

    /// The number of recorded values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below which `percent` of all values lie, in nanoseconds.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (percent / 100.0 * self.total as f64) + 0.5;
        let wanted = rank.clamp(1.0, self.total.max(1) as f64) as u64;
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += count as u64;
            if seen >= wanted {
                return highest(at);
            }
        }
        0
    }

    /// The counts in the exponential buckets of Prometheus' native histograms, in microseconds:
    /// bucket `i` ends at 2^(i/8). A bucket of this histogram is counted in the native bucket in
    /// which it ends.
    pub fn native(&self) -> Vec<(i32, u64)> {
        let mut out: Vec<(i32, u64)> = Vec::new();
        for (at, &count) in self.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            let us = highest(at).max(1) as f64 / 1000.0;
            let scale = f64::from(1 << NATIVE_SCHEMA);
            let bucket = (us.log2() * scale).ceil() as i32;
            match out.last_mut() {
                Some((last, calls)) if *last == bucket => *calls += u64::from(count),
                _ => out.push((bucket, count.into())),
            }
        }
        out
    }

    /// Cumulative counts up to 1024 ns, 2048 ns, 4096 ns and so on, where they change:
    /// (microseconds, count). The bucket that contains a limit is counted too, so a limit is shown
    /// as the upper bound of that bucket: 1, 2, 4, 8, 16, 33.
    pub fn powers_of_two(&self) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let (mut seen, mut at, mut before) = (0, 0, 0);
        let mut limit_ns: u64 = 1024;
        while seen < self.total && at < BUCKETS {
            let last = index(limit_ns).min(BUCKETS - 1);
            while at <= last {
                seen += self.counts[at] as u64;
                at += 1;
            }
            if seen > before {
                out.push((highest(last) / 1000, seen));
                before = seen;
            }
            limit_ns *= 2;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (1..100_000).chain((1..1000).map(|n| n * 999_983)) {
            let at = index(value.min(MAX));
            assert!(highest(at) >= value.min(MAX));
            assert!(at == 0 || highest(at - 1) < value.min(MAX));
            assert!(highest(at) - value.min(MAX) <= value / 128 + 1);
        }
        assert!(index(MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut h = Histogram::default();
        (1..=100).for_each(|n| h.record(n * 1000));
        assert_eq!(h.total(), 100);
        let near = |got: u64, want: u64| got >= want && got - want <= want / 128 + 1;
        assert!(near(h.percentile(50.0), 50_000));
        assert!(near(h.percentile(99.0), 99_000));
        assert!(near(h.percentile(0.0), 1000) && near(h.percentile(100.0), 100_000));
        assert_eq!(Histogram::default().percentile(50.0), 0);
    }

    #[test]
    fn native_buckets_hold_each_value_once() {
        let mut h = Histogram::default();
        for ns in [1, 999, 1000, 1001, 2000, 3000, 1_000_000, 5_000_000_000] {
            h.record(ns);
        }
        let native = h.native();
        assert_eq!(
            native.iter().map(|(_, calls)| calls).sum::<u64>(),
            h.total()
        );
        assert!(native.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // The end of bucket 0 is 1 us; 1 ns is 2^-9.97 us.
        assert_eq!(native[0], (-79, 1));
        let bounds = |(bucket, _): &(i32, u64)| (f64::from(*bucket) / 8.0).exp2();
        for us in [1.0, 2.0, 3.0, 1000.0, 1_000_000.0] {
            let fits = |bucket: &(i32, u64)| (0.9 * us..=1.1 * us).contains(&bounds(bucket));
            assert!(native.iter().any(fits), "{us}: {native:?}");
        }
    }

    /// A real Redis showed these bounds in LATENCY HISTOGRAM for sleeps of 3, 10, 20, 50 and 100
    /// ms, and for calls of microseconds.
    #[test]
    fn bounds_are_those_of_redis() {
        let mut h = Histogram::default();
        [3_100, 10_113, 20_070, 50_100, 100_100]
            .iter()
            .for_each(|us| h.record(us * 1000));
        let shown = h.powers_of_two();
        assert_eq!(
            shown,
            [(4227, 1), (16908, 2), (33816, 3), (67633, 4), (135266, 5)]
        );
        let mut h = Histogram::default();
        [1, 1000, 2003, 16_600, 2_000_000_000]
            .iter()
            .for_each(|ns| h.record(*ns));
        assert_eq!(h.percentile(40.0), 1003);
        assert_eq!(h.percentile(60.0), 2007);
        assert_eq!(h.powers_of_two()[..3], [(1, 2), (2, 3), (33, 4)]);
        assert_eq!(h.powers_of_two().last().unwrap().1, h.total());
    }
}
