//! The processor's time stamp counter: timing a command by it costs 10 ns, by calls of the clock
//! 25.
//!
//! Only an *invariant* counter is used (CPUID 0x80000007, EDX bit 8): it runs at one speed, in all
//! cores and in sleep states. On other processors the monotonic clock in nanoseconds is used.

use std::time::{Duration, Instant};

/// The counter's speed.
#[derive(Clone, Copy)]
pub struct Ticks {
    per_us: f64,
    us_per_tick: f64,
    /// Nanoseconds in units of 2^-32: a conversion is one multiplication.
    ns_per_tick: u64,
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::LazyLock;

    static INVARIANT: LazyLock<bool> = LazyLock::new(|| {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
    });

    /// The processor's counter, if it is invariant.
    #[inline]
    pub fn now() -> Option<u64> {
        if *INVARIANT {
            // SAFETY: RDTSC exists on every x86_64 processor and touches no memory.
            Some(unsafe { _rdtsc() })
        } else {
            None
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    /// Other processors have no such counter.
    pub fn now() -> Option<u64> {
        None
    }
}

fn monotonic_ns() -> u64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

/// The counter now. Only differences of two readings have a meaning.
#[inline]
pub fn now() -> u64 {
    match counter::now() {
        Some(ticks) => ticks,
        None => monotonic_ns(),
    }
}

/// Whether the processor's counter is used, not the monotonic clock.
pub fn is_counter() -> bool {
    counter::now().is_some()
}

/// The name of the counter or clock that times commands, for the server's log.
pub fn source() -> &'static str {
    if counter::now().is_some() {
        "processor time stamp counter"
    } else {
        "POSIX clock_gettime"
    }
}

impl Ticks {
    /// For tests: one tick is a nanosecond.
    #[cfg(test)]
    pub fn nanoseconds() -> Ticks {
        Ticks {
            per_us: 1000.0,
            us_per_tick: 0.001,
            ns_per_tick: 1 << 32,
        }
    }

    /// Measures the counter's speed against the monotonic clock, for two milliseconds.
    pub fn calibrate() -> Ticks {
        let per_us = match counter::now() {
            None => 1000.0,
            Some(from) => {
                let start = Instant::now();
                std::thread::sleep(Duration::from_millis(2));
                let ticks = now().wrapping_sub(from);
                (ticks as f64 / (start.elapsed().as_nanos() as f64 / 1000.0)).max(1.0)
            }
        };
        Ticks {
            per_us,
            us_per_tick: 1.0 / per_us,
            ns_per_tick: (1000.0 / per_us * (1u64 << 32) as f64) as u64,
        }
    }

    /// Ticks in microseconds.
    #[inline]
    pub fn to_us(self, ticks: u64) -> u64 {
        (ticks as f64 * self.us_per_tick) as u64
    }

    /// Ticks in nanoseconds.
    #[inline]
    pub fn to_ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.ns_per_tick as u128) >> 32) as u64
    }

    /// The number of ticks in `us` microseconds.
    pub fn per_us(self, us: u64) -> u64 {
        (us as f64 * self.per_us) as u64
    }
}
