//! The latency monitor: samples of events that took `latency-monitor-threshold` milliseconds or more.

use std::collections::BTreeMap;

/// Samples kept for each event.
const SAMPLES: usize = 160;

#[derive(Clone, Copy)]
pub struct Sample {
    pub time_s: i64,
    pub ms: u64,
}

#[derive(Default)]
pub struct Series {
    /// Oldest first.
    pub samples: std::collections::VecDeque<Sample>,
    pub max_ms: u64,
}

#[derive(Default)]
pub struct Latency {
    pub events: BTreeMap<&'static str, Series>,
    /// 0: off.
    pub threshold_ms: u64,
    /// `latency-tracking`: histograms of each command.
    pub tracking: bool,
}

impl Latency {
    /// Note an event that took `ms`, if that is long.
    pub fn add_if_needed(&mut self, event: &'static str, ms: u64, now_s: i64) {
        if self.threshold_ms == 0 || ms < self.threshold_ms {
            return;
        }
        let series = self.events.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        match series.samples.back_mut() {
            // One sample a second: the worst.
            Some(last) if last.time_s == now_s => last.ms = last.ms.max(ms),
            _ => {
                if series.samples.len() == SAMPLES {
                    series.samples.pop_front();
                }
                series.samples.push_back(Sample { time_s: now_s, ms });
            }
        }
    }
}
