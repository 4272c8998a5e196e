//! The server's clock. The wall clock is read once a turn; the execution time of commands is
//! measured with the processor's time stamp counter.
//!
//! A turn of the event loop can be long, so `call()`, which runs a command, reads the wall clock
//! again when the counter shows that more than a millisecond has passed. Within a command, expiry,
//! LRU and replies use the same `now_ms`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::tape::{self, Input};
use crate::sys::ticks::{self, Ticks};

/// The time of the present turn or command, and the speed of the time stamp counter.
pub struct Clock {
    /// The Unix time in milliseconds at the last reading of the wall clock.
    pub now_ms: i64,
    pub now_us: i64,
    /// The value of the time stamp counter at the last reading of the wall clock.
    read_at: u64,
    /// The value of the time stamp counter at the end of the last command, at which the next
    /// command of a pipeline begins.
    pub last: u64,
    ticks: Ticks,
    millisecond: u64,
    is_counter: bool,
}

impl Clock {
    /// Measures the speed of the time stamp counter and reads the wall clock.
    pub fn start() -> Clock {
        let ticks = Ticks::calibrate();
        let mut clock = Clock {
            now_ms: 0,
            now_us: 0,
            read_at: 0,
            last: 0,
            millisecond: ticks.per_us(1000),
            is_counter: tape::number(Input::Fact, || ticks::is_counter().into()) != 0,
            ticks,
        };
        clock.update();
        clock
    }

    /// Reads the wall clock.
    pub fn update(&mut self) {
        self.now_us = unix_us();
        self.now_ms = self.now_us / 1000;
        self.read_at = ticks::now();
        self.last = self.read_at;
    }

    /// Called when a command ended at `at`: reads the wall clock if the last reading is older than
    /// a millisecond.
    #[inline]
    pub fn command_ended(&mut self, at: u64) {
        self.last = at;
        if at.wrapping_sub(self.read_at) > self.millisecond {
            self.update();
            self.last = at;
        }
    }

    /// The Unix time of the present turn or command, in seconds.
    pub fn now_s(&self) -> i64 {
        self.now_ms / 1000
    }

    /// The speed of the time stamp counter.
    pub fn ticks(&self) -> Ticks {
        self.ticks
    }

    /// The microseconds between two readings of the time stamp counter that differ by `ticks`.
    #[inline]
    pub fn us(&self, ticks: u64) -> u64 {
        self.ticks.to_us(ticks)
    }

    /// The nanoseconds between two readings of the time stamp counter that differ by `ticks`.
    #[inline]
    pub fn ns(&self, ticks: u64) -> u64 {
        self.ticks.to_ns(ticks)
    }

    /// The difference between two readings of the time stamp counter that are `us` microseconds
    /// apart.
    pub fn ticks_of_us(&self, us: u64) -> u64 {
        self.ticks.per_us(us)
    }

    /// The name of the counter or clock that measures commands, for INFO.
    pub fn source(&self) -> String {
        match self.is_counter {
            true => format!("X86 TSC @ {} ticks/us", self.ticks.per_us(1)),
            false => "POSIX clock_gettime".into(),
        }
    }
}

/// The wall clock at this moment, in microseconds since 1970.
pub fn unix_us() -> i64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    tape::number(Input::Unix, || now().map_or(0, |d| d.as_micros() as u64)) as i64
}
