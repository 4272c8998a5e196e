//! Forecasts the memory that a fork needs, before the fork.
//!
//! The forecast warns an operator before memory runs out: a fork copies the page tables at once,
//! and the system copies every page that is written while the child lives. The number of written
//! pages is estimated from the rate of writes and the duration of the last child with the same
//! task. The estimate of copied memory assumes the worst case, a page for each write, but no more
//! than all pages.

use std::time::Duration;

use super::{ChildKind, KINDS};
use crate::state::Server;
use crate::sys;
use crate::sys::allocator;
use crate::sys::fork;
use crate::util::byte_size::format_bytes_human;

/// The memory that a fork may need, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// The bytes of the page tables, which are copied before fork returns, while no client is
    /// served.
    pub page_tables: u64,
    /// The maximum number of bytes that are copied while the child lives.
    pub copied: u64,
    /// The available memory of the system; `None` if it is not known.
    pub available: Option<u64>,
}

impl Forecast {
    /// Whether the fork may need more memory than is available.
    pub fn too_much(&self) -> bool {
        let wanted = self.page_tables.saturating_add(self.copied);
        self.available.is_some_and(|available| wanted > available)
    }
}

/// The figures of the past from which the memory for a fork is forecast.
#[derive(Default)]
pub struct History {
    /// The duration of the last child of each kind (RDB, AOF, slots).
    pub(super) last: [Option<Duration>; KINDS],
    /// The number of changes per second, as a moving average.
    writes_per_s: f64,
    sampled_ms: i64,
    sampled_dirty: u64,
}

/// Logs the memory that the fork may need, and keeps the forecast for INFO.
pub(super) fn log_forecast(server: &mut Server, kind: ChildKind) {
    let history = &server.forks.history;
    let seconds = history.last[kind as usize].map_or(0.0, |took| took.as_secs_f64());
    let writes = (history.writes_per_s * seconds) as u64;
    let forecast = Forecast {
        page_tables: fork::page_table_bytes(),
        copied: writes
            .saturating_mul(sys::page_bytes() as u64)
            .min(allocator::resident_bytes() as u64),
        available: fork::available_bytes(),
    };
    let text = format!(
        "Fork forecast for {}: page tables {}, up to {} copied ({:.0} writes/s for {seconds:.0} s), {} available",
        kind.name(),
        format_bytes_human(forecast.page_tables),
        format_bytes_human(forecast.copied),
        history.writes_per_s,
        forecast
            .available
            .map_or("unknown".into(), format_bytes_human),
    );
    server.forks.forecast = forecast;
    if forecast.too_much() {
        log::warn!("WARNING: {text}. Memory may not suffice.");
    } else {
        log::debug!("{text}");
    }
}

impl Server {
    /// Measures the rate of changes; called once a second.
    pub(super) fn sample_writes(&mut self) {
        let (now_ms, history) = (self.clock.now_ms, &mut self.forks.history);
        let ms = now_ms - history.sampled_ms;
        if ms < 1000 {
            return;
        }
        if history.sampled_ms > 0 {
            // A save sets `dirty` to zero, so only the changes since the save are known.
            let changes = self
                .dirty
                .checked_sub(history.sampled_dirty)
                .unwrap_or(self.dirty);
            let rate = changes as f64 * 1000.0 / ms as f64;
            history.writes_per_s += (rate - history.writes_per_s) / 4.0;
        }
        history.sampled_ms = now_ms;
        history.sampled_dirty = self.dirty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_forecast_warns_when_memory_would_not_hold_it() {
        let forecast = |copied, available| Forecast {
            page_tables: 10,
            copied,
            available,
        };
        assert!(forecast(91, Some(100)).too_much());
        assert!(!forecast(90, Some(100)).too_much());
        assert!(!forecast(u64::MAX, None).too_much());
    }

    #[test]
    fn the_rate_of_writes_follows_the_counter_back() {
        let mut server = Server::new(Config::default(), Vec::new());
        server.clock.now_ms = 1_000_000;
        server.sample_writes();
        (server.dirty, server.clock.now_ms) = (4000, 1_001_000);
        server.sample_writes();
        assert_eq!(server.forks.history.writes_per_s, 1000.0);
        (server.dirty, server.clock.now_ms) = (1000, 1_002_000);
        server.sample_writes();
        assert_eq!(server.forks.history.writes_per_s, 1000.0);
    }
}
