//! A session of HOTKEYS, as Redis 8.6 has it: from START to STOP, or for a number of seconds.
//!
//! ```text
//!   none --START--> active --STOP, or its time is over--> stopped --START--> active
//!     ^                                                      |
//!     +------------------------RESET-------------------------+      (while active it is refused)
//! ```
//!
//! The totals that HOTKEYS GET shows are differences of the server's own counters. Only the bytes
//! of commands are summed by the session itself, over the sampled commands, each times the ratio:
//! exact with SAMPLE 1, otherwise an estimate like the figures of the keys. Redis does not multiply
//! the keys' figures by the ratio, so in Redis these figures can't be compared with the totals of
//! the same reply.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::Sampler;
use super::summary::Summary;
use crate::observe::stats::Stats;
use crate::state::Server;
use crate::sys::tape::{self, Input};

/// The figures by which a HOTKEYS session ranks keys: CPU time, bytes on the network, or both.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Metrics {
    pub cpu: bool,
    pub net: bool,
}

/// The arguments of HOTKEYS START.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub metrics: Metrics,
    /// The number of keys of each ranking that HOTKEYS GET shows.
    pub count: usize,
    /// The duration after which the session ends by itself, in milliseconds.
    pub duration_ms: Option<i64>,
    /// The sample ratio: one command in `ratio` is sampled.
    pub ratio: u64,
}

/// The resources that the server has used up to a point in time.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub at_ms: i64,
    pub command_ticks: u64,
    pub net_bytes: u64,
    pub user_ms: i64,
    pub system_ms: i64,
}

impl Totals {
    /// The resources that the server has used up to now.
    pub fn now(server: &Server) -> Totals {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let ms = |time: TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
        let pass = |ms: i64| tape::number(Input::Fact, || ms as u64) as i64;
        Totals {
            at_ms: server.clock.now_ms,
            command_ticks: server.stats.command_ticks,
            net_bytes: net_bytes(&server.stats),
            user_ms: pass(usage.as_ref().map_or(0, |usage| ms(usage.user_time()))),
            system_ms: pass(usage.as_ref().map_or(0, |usage| ms(usage.system_time()))),
        }
    }
}

fn net_bytes(stats: &Stats) -> u64 {
    stats.net_input_bytes.wrapping_add(stats.net_output_bytes)
}

/// A HOTKEYS session, running or ended.
pub struct Session {
    pub count: usize,
    pub sampler: Sampler,
    pub cpu: Option<Summary>,
    pub net: Option<Summary>,
    /// The estimated bytes of requests and replies of all commands.
    pub bytes: f64,
    began: Totals,
    ended: Option<Totals>,
    duration_ms: Option<i64>,
}

impl Session {
    /// Starts a HOTKEYS session; `now` has the server's present totals.
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

    /// Whether the session is running.
    pub fn is_active(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether the session is running, and its duration is over.
    pub fn is_over(&self, now_ms: i64) -> bool {
        let elapsed = now_ms - self.began.at_ms;
        self.is_active() && self.duration_ms.is_some_and(|duration| elapsed >= duration)
    }

    /// Ends the session; `now` has the server's present totals.
    pub fn stop(&mut self, now: Totals) {
        self.ended = Some(now);
    }

    /// The Unix time of the session's start in milliseconds.
    pub fn began_ms(&self) -> i64 {
        self.began.at_ms
    }

    /// The resources used from the start of the session to its end, or, while the session is
    /// running, to `now`.
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

    /// Called when CONFIG RESETSTAT has set the server's counters to zero: subtracts their values
    /// `before` from the totals at the session's start, so that the differences stay the same.
    pub fn rebase(&mut self, before: &Stats) {
        if self.is_active() {
            let began = &mut self.began;
            began.command_ticks = began.command_ticks.wrapping_sub(before.command_ticks);
            began.net_bytes = began.net_bytes.wrapping_sub(net_bytes(before));
        }
    }

    /// The number of heap bytes of the session.
    pub fn memory(&self) -> usize {
        let summaries = [&self.cpu, &self.net];
        summaries.into_iter().flatten().map(Summary::memory).sum()
    }
}
