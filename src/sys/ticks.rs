//! The processor's time stamp counter. Timing a command by this counter costs 10 ns; timing it by
//! calls of the clock costs 25 ns.
//!
//! Only an *invariant* counter is used (CPUID 0x80000007, EDX bit 8): it runs at one speed, in all
//! cores and in sleep states. On other processors the monotonic clock in nanoseconds is used.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::sys::tape::{self, Input};

/// The speed of the processor's time stamp counter.
#[derive(Clone, Copy)]
pub struct Ticks {
    per_us: f64,
    us_per_tick: f64,
    /// Nanoseconds per tick in units of 2^-32, so that a conversion is one multiplication.
    ns_per_tick: u64,
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::LazyLock;

    static INVARIANT: LazyLock<bool> = LazyLock::new(|| {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
    });

    /// Whether the processor has an invariant counter.
    pub fn exists() -> bool {
        *INVARIANT
    }

    /// Reads the processor's time stamp counter.
    #[inline]
    pub fn read() -> u64 {
        // SAFETY: RDTSC exists on every x86_64 processor and touches no memory.
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    /// Returns false: only x86-64 processors have an invariant time stamp counter that is read.
    pub fn exists() -> bool {
        false
    }

    /// Never called, as this processor has no counter that is read.
    pub fn read() -> u64 {
        0
    }
}

/// The monotonic clock, in nanoseconds since its first reading.
pub fn monotonic_ns() -> u64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

/// The source of the readings of [`now`]: one load and one branch distinguish all sources.
static SOURCE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const COUNTER: u8 = 1;
const CLOCK: u8 = 2;
const TAPE: u8 = 3;

/// Reads the time stamp counter. Only the difference of two readings has a meaning.
#[inline]
pub fn now() -> u64 {
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        return counter::read();
    }
    now_from_elsewhere()
}

#[cold]
fn now_from_elsewhere() -> u64 {
    match SOURCE.load(Ordering::Relaxed) {
        TAPE => tape::number(Input::Ticks, live),
        UNKNOWN => {
            choose_source(false);
            live()
        }
        _ => live(),
    }
}

/// Sets the source of the readings of [`now`]: the tape, or else the processor's counter or the
/// clock.
pub fn choose_source(taped: bool) {
    let source = match (taped, counter::exists()) {
        (true, _) => TAPE,
        (false, true) => COUNTER,
        (false, false) => CLOCK,
    };
    SOURCE.store(source, Ordering::Relaxed);
}

fn live() -> u64 {
    match counter::exists() {
        true => counter::read(),
        false => monotonic_ns(),
    }
}

/// Whether the processor's counter is used, not the monotonic clock.
pub fn is_counter() -> bool {
    counter::exists()
}

/// The name of the counter or clock that times commands, for the server's log.
pub fn source() -> &'static str {
    if counter::exists() {
        "processor time stamp counter"
    } else {
        "POSIX clock_gettime"
    }
}

/// Measures the number of ticks in a microsecond.
fn measure() -> f64 {
    if !counter::exists() {
        return 1000.0;
    }
    let (start, from) = (Instant::now(), counter::read());
    std::thread::sleep(Duration::from_millis(2));
    let ticks = counter::read().wrapping_sub(from);
    (ticks as f64 / (start.elapsed().as_nanos() as f64 / 1000.0)).max(1.0)
}

impl Ticks {
    /// A speed for tests: one tick is a nanosecond.
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
        let measured = tape::number(Input::Fact, || measure().to_bits());
        let per_us = f64::from_bits(measured);
        Ticks {
            per_us,
            us_per_tick: 1.0 / per_us,
            ns_per_tick: (1000.0 / per_us * (1u64 << 32) as f64) as u64,
        }
    }

    /// Converts ticks to microseconds.
    #[inline]
    pub fn to_us(self, ticks: u64) -> u64 {
        (ticks as f64 * self.us_per_tick) as u64
    }

    /// Converts ticks to nanoseconds.
    #[inline]
    pub fn to_ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.ns_per_tick as u128) >> 32) as u64
    }

    /// The number of ticks in `us` microseconds.
    pub fn per_us(self, us: u64) -> u64 {
        (us as f64 * self.per_us) as u64
    }
}
