//! The jobs of the cron, as a table: name, period, function.
//!
//! ```text
//!    1 rates       what INFO shows for each second
//!    2 memory      the peak of used_memory, for INFO
//!    3 eviction    the policy's parameters follow the settings
//!    4 child       a saving child that has ended, or hangs; before next-child, which may start another
//!    5 debugger    sessions of the script debugger that have ended
//!    6 aof         results of its thread, an fsync of everysec
//!    7 replication PING, timeouts, a snapshot that replicas wait for; before next-child, which starts it
//!    8 primary     an acknowledgement; the link to a primary that is silent is closed
//!    9 next-child  a requested or scheduled save or rewrite; after child, since only one child runs at a time
//!   10 shutdown    a signal, or the end of a wait for replicas; after the children it may have to end
//!   11 pause       a pause whose time is over; before clients, which then may run
//!   12 clients     idle clients, buffers that shrink, a few clients in each call; after pause
//!   13 tracking    the table of tracked keys, down to its limit
//!   14 hotkeys     sessions that end, counts that fade
//!   15 bigkeys     a part of the keyspace, within its budget
//!   16 types       memory by type, a part of the keyspace, while the live page is open
//!   17 defrag      begins and ends active defragmentation, whose steps have a timer of their own
//!   18 tls         certificates that have changed, or SIGHUP
//!   19 supervisor the watchdog's message, and what systemctl shows
//!   20 databases   expiry and resizing, last: they use what is left of the call's time
//! ```
//!
//! A job with a period of 0 runs in every call of the cron (`hz` times a second); any other job
//! runs when its period has passed since its last run. A job for which the drawing gives no order
//! may be anywhere in the table.
//!
//! **Invariant:** the drawing has the names of the table in its order
//! (`tests::the_drawing_is_the_table`).

use std::time::Duration;

use crate::execute::pause;
use crate::networking::primary;
use crate::observe::trace::event::EventKind;
use crate::observe::{bigkeys, hotkeys, type_memory};
use crate::persist::{aof, child};
use crate::script::debug;
use crate::server::{cron, defrag, shutdown, supervisor, tls};
use crate::state::Server;
use crate::sync;
use crate::sys::ticks;
use crate::tracking;

/// A job that the cron runs at regular times.
struct Job {
    name: &'static str,
    /// Milliseconds between two runs; 0 for every call of the cron.
    period_ms: i64,
    run: fn(&mut Server),
}

const fn job(name: &'static str, period_ms: i64, run: fn(&mut Server)) -> Job {
    Job {
        name,
        period_ms,
        run,
    }
}

const JOBS: &[Job] = &[
    job("rates", 0, |s| s.stats.sample_rates(s.clock.now_ms)),
    job("memory", 0, |s| s.note_peak_memory()),
    job("eviction", 0, |s| s.evict.configure(&s.config)),
    job("child", 0, child::reap),
    job("debugger", 0, debug::reap),
    job("aof", 0, aof::flush::take_results),
    job("replication", 1000, sync::cron::cron),
    job("primary", 1000, primary::cron),
    job("next-child", 0, child::start_next),
    job("shutdown", 0, shutdown::cron),
    job("pause", 0, pause::end_pause),
    job("clients", 0, cron::clients_cron),
    job("tracking", 0, tracking::limit_table),
    job("hotkeys", 0, hotkeys::cron),
    job("bigkeys", 0, |s| bigkeys::cron(s, s.cron_period())),
    job("types", 0, |s| type_memory::cron(s, s.cron_period())),
    job("defrag", 0, defrag::cron),
    job("tls", 0, tls::cron),
    job("supervisor", 0, supervisor::cron),
    job("databases", 0, cron::databases_cron),
];

/// The names of the cron's jobs, in the order in which they run.
pub fn names() -> Vec<&'static str> {
    JOBS.iter().map(|job| job.name).collect()
}

/// The Unix time in milliseconds at which each job of the cron is due.
#[derive(Default)]
pub struct Schedule {
    due_ms: [i64; JOBS.len()],
}

/// Runs the cron's jobs that are due, in the order of their table.
pub fn run_due(server: &mut Server) {
    for (at, job) in JOBS.iter().enumerate() {
        if server.schedule.due_ms[at] <= server.clock.now_ms {
            server.schedule.due_ms[at] = server.clock.now_ms + job.period_ms;
            log::trace!("job {}", job.name);
            let began = ticks::now();
            server.trace.begin_part(began);
            (job.run)(server);
            server.traced(EventKind::Job, began, at as u64);
        }
    }
}

impl Server {
    /// The time between two calls of the cron.
    pub fn cron_period(&self) -> Duration {
        Duration::from_micros(1_000_000 / u64::from(self.effective_hz()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_the_table() {
        let drawn: Vec<&str> = include_str!("jobs.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//!   "))
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                words.next()?.parse::<usize>().ok()?;
                words.next()
            })
            .collect();
        let names: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        assert_eq!(drawn, names);
    }
}
