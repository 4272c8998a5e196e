//! A session of HOTKEYS, as Redis 8.6 has it: from START to STOP, or for a number of seconds.
//!
//! ```text
//!   none --START--> active --STOP, or its time is over--> stopped --START--> active
//!     ^                                                      |
//!     +------------------------RESET-------------------------+      (while active it is refused)
//! ```
//!
//! Totals are differences of what the server counts anyway. Only the bytes of commands are summed
//! here, over the commands that are looked at, each times the ratio: exact with SAMPLE 1, else an
//! estimate like the figures of the keys. Redis leaves the keys' figures at one in `ratio`, which
//! can't be compared with any total of the same reply.

use nix::sys::resource::{UsageWho, getrusage};

use super::Sampler;
use super::summary::Summary;
use crate::observe::stats::Stats;
use crate::state::Server;

/// What a session ranks keys by.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Metrics {
    pub cpu: bool,
    pub net: bool,
}

/// What HOTKEYS START asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub metrics: Metrics,
    /// Keys shown of each ranking.
    pub count: usize,
    /// The session ends by itself after this time.
    pub duration_ms: Option<i64>,
    /// One command in `ratio` is sampled.
    pub ratio: u64,
}

/// What the server had used at some time.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub at_ms: i64,
    pub command_ticks: u64,
    pub net_bytes: u64,
    pub user_ms: i64,
    pub system_ms: i64,
}

impl Totals {
    pub fn now(server: &Server) -> Totals {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let ms = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
        Totals {
            at_ms: server.clock.now_ms,
            command_ticks: server.stats.command_ticks,
            net_bytes: net_bytes(&server.stats),
            user_ms: usage.as_ref().map_or(0, |usage| ms(usage.user_time())),
            system_ms: usage.as_ref().map_or(0, |usage| ms(usage.system_time())),
        }
    }
}

fn net_bytes(stats: &Stats) -> u64 {
    stats.net_input_bytes.wrapping_add(stats.net_output_bytes)
}

pub struct Session {
    pub count: usize,
    pub sampler: Sampler,
    pub cpu: Option<Summary>,
    pub net: Option<Summary>,
    /// Bytes of requests and replies of all commands.
    pub bytes: f64,
    began: Totals,
    ended: Option<Totals>,
    duration_ms: Option<i64>,
}

impl Session {
    pub fn new(request: Request, now: Totals) -> Session {
        let Metrics { cpu, net } = request.metrics;
        Session {
            count: request.count,
            sampler: Sampler::new(request.ratio),
            cpu: cpu.then(Summary::default),
            net: net.then(Summary::default),
            bytes: 0.0,
            began: now,
            ended: None,
            duration_ms: request.duration_ms,
        }
    }

    pub fn is_active(&self) -> bool {
        self.ended.is_none()
    }

    /// Its time has passed, and it has not been stopped yet.
    pub fn is_over(&self, now_ms: i64) -> bool {
        let elapsed = now_ms - self.began.at_ms;
        self.is_active() && self.duration_ms.is_some_and(|duration| elapsed >= duration)
    }

    pub fn stop(&mut self, now: Totals) {
        self.ended = Some(now);
    }

    pub fn began_ms(&self) -> i64 {
        self.began.at_ms
    }

    /// What was used from the beginning to the end, or to `now`.
    pub fn used(&self, now: Totals) -> Totals {
        let (from, to) = (self.began, self.ended.unwrap_or(now));
        Totals {
            at_ms: to.at_ms - from.at_ms,
            command_ticks: to.command_ticks.wrapping_sub(from.command_ticks),
            net_bytes: to.net_bytes.wrapping_sub(from.net_bytes),
            user_ms: to.user_ms - from.user_ms,
            system_ms: to.system_ms - from.system_ms,
        }
    }

    /// The server's counters fall back to zero: so must what they are compared with, so that
    /// differences stay.
    pub fn rebase(&mut self, before: &Stats) {
        if self.is_active() {
            let began = &mut self.began;
            began.command_ticks = began.command_ticks.wrapping_sub(before.command_ticks);
            began.net_bytes = began.net_bytes.wrapping_sub(net_bytes(before));
        }
    }

    pub fn memory(&self) -> usize {
        let summaries = [&self.cpu, &self.net];
        summaries.into_iter().flatten().map(Summary::memory).sum()
    }
}
