//! The latency monitor: samples of events that took `latency-monitor-threshold` milliseconds or
//! more, and the reports of LATENCY GRAPH and LATENCY DOCTOR.
//!
//! ```text
//!   event                            what took long
//!   command, fast-command            a command; a fast one by its row
//!   expire-cycle, expire-del         the expiry of many keys; the removal of one
//!   eviction-cycle, eviction-del     the same of eviction
//!   aof-write                        a write of the AOF, and by circumstance also
//!     aof-write-pending-fsync        while an fsync ran, aof-write-active-child while a child did,
//!     aof-write-alone                or neither
//!   aof-fsync-always, aof-rename     an fsync before replies; the rewritten AOF takes its place
//!   rdb-unlink-temp-file             removing what a child left behind
//!   fork
//! ```
//!
//! Redis's `command-unblocking` (the reply to a client that a module blocked) does not exist. A
//! client that waited for a key runs its command again, which counts as `command`.
//!
//! ```text
//!   "command" -> (time, worst ms of that second), oldest first, the last 160
//! ```

use crate::sys::instant::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

/// The number of samples, each of one second, that are kept for each event.
const SAMPLES: usize = 160;
/// The number of columns of the drawing of LATENCY GRAPH.
const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: usize = 4;
/// The characters for the top of a column in LATENCY GRAPH: its cell is filled a little, half, or
/// nearly whole.
const GRAPH_TIPS: [char; 3] = ['_', 'o', '#'];

/// A sample: the longest duration of an event within one second.
#[derive(Clone, Copy)]
pub struct Sample {
    pub time_s: i64,
    /// The longest duration of the event within this second, in milliseconds.
    pub ms: u64,
}

/// The samples of one event of the latency monitor.
#[derive(Default)]
pub struct Series {
    /// The samples, the oldest first.
    pub samples: VecDeque<Sample>,
    /// The longest duration since the last reset, in milliseconds; like `sum_ms` and `count`, it
    /// includes events whose samples are no longer kept.
    pub max_ms: u64,
    pub sum_ms: u64,
    pub count: u64,
}

/// The events that reached the threshold, and the settings of the monitor.
#[derive(Default)]
pub struct Latency {
    pub events: BTreeMap<&'static str, Series>,
    /// `latency-monitor-threshold` in milliseconds; 0: the monitor is off.
    pub threshold_ms: u64,
    /// `latency-tracking`: whether a histogram of each command is kept.
    pub tracking: bool,
}

impl Latency {
    /// Adds an event that took `ms` milliseconds, if this duration reaches the threshold.
    #[inline]
    pub fn add_if_needed(&mut self, event: &'static str, ms: u64, now_s: i64) {
        if self.threshold_ms != 0 && ms >= self.threshold_ms {
            self.add(event, ms, now_s);
        }
    }

    /// Starts the timing of an event; the clock is read only when latency is monitored.
    #[inline]
    pub fn begin(&self) -> Option<Instant> {
        (self.threshold_ms != 0).then(Instant::now)
    }

    /// Ends the timing of an event, and adds the event if its duration reaches the threshold.
    #[inline]
    pub fn end(&mut self, event: &'static str, began: Option<Instant>, now_s: i64) {
        if let Some(began) = began {
            self.add_if_needed(event, began.elapsed().as_millis() as u64, now_s);
        }
    }

    #[cold]
    fn add(&mut self, event: &'static str, ms: u64, now_s: i64) {
        let series = self.events.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        series.sum_ms = series.sum_ms.saturating_add(ms);
        series.count += 1;
        match series.samples.back_mut() {
            // Each second has one sample: the longest duration of the event in this second.
            Some(last) if last.time_s == now_s => last.ms = last.ms.max(ms),
            _ => {
                if series.samples.len() == SAMPLES {
                    series.samples.pop_front();
                }
                series.samples.push_back(Sample { time_s: now_s, ms });
            }
        }
    }

    /// Finds an event by its name; upper and lower case are equal.
    pub fn event(&self, name: &[u8]) -> Option<(&'static str, &Series)> {
        let found = self
            .events
            .iter()
            .find(|(e, _)| e.as_bytes().eq_ignore_ascii_case(name));
        found.map(|(event, series)| (*event, series))
    }

    /// Removes the samples of one event, or of all events. Returns the number of removed events.
    pub fn reset(&mut self, name: Option<&[u8]>) -> usize {
        let before = self.events.len();
        match name {
            None => self.events.clear(),
            Some(name) => self
                .events
                .retain(|e, _| !e.as_bytes().eq_ignore_ascii_case(name)),
        }
        before - self.events.len()
    }
}

/// Figures about the samples of one event.
struct Summary {
    low: u64,
    high: u64,
    average: u64,
    /// The mean absolute deviation of the samples.
    deviation: u64,
    /// The average number of seconds between two samples.
    period: f64,
}

impl Series {
    fn summary(&self, now_s: i64) -> Summary {
        let ms = || self.samples.iter().map(|sample| sample.ms);
        let count = self.samples.len().max(1) as u64;
        let average = ms().sum::<u64>() / count;
        let first = self.samples.front().map_or(now_s, |sample| sample.time_s);
        Summary {
            low: ms().min().unwrap_or(0),
            high: ms().max().unwrap_or(0),
            average,
            deviation: ms().map(|ms| ms.abs_diff(average)).sum::<u64>() / count,
            period: (now_s - first).max(0) as f64 / count as f64,
        }
    }
}

/// LATENCY GRAPH: one column for each sample, the newest at the right; below each column the age of
/// its sample.
///
/// ```text
///      #
///   #  |
///   |_o|        value, from the smallest (nothing) to the largest (all rows)
///
///   5321        13s: tens above ones above the unit
///   0sss
///   s
/// ```
pub fn graph(event: &str, series: &Series, now_s: i64) -> String {
    let Summary { low, high, .. } = series.summary(now_s);
    let mut out = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_ms,
        "-".repeat(GRAPH_COLUMNS)
    );
    let samples: Vec<Sample> = series.samples.iter().copied().collect();
    for block in samples.chunks(GRAPH_COLUMNS) {
        draw_columns(&mut out, block, low, high);
        out.push_str(&" ".repeat(block.len()));
        out.push('\n');
        draw_labels(&mut out, block, now_s);
    }
    out
}

fn draw_columns(out: &mut String, block: &[Sample], low: u64, high: u64) {
    let steps = (GRAPH_ROWS * GRAPH_TIPS.len()) as u64;
    let height = |sample: &Sample| match high - low {
        0 => 0,
        range => (((sample.ms - low) as f64 / range as f64 * steps as f64) as u64).min(steps - 1),
    };
    for row in (0..GRAPH_ROWS).rev() {
        for sample in block {
            let step = height(sample) as usize;
            let (top, tip) = (step / GRAPH_TIPS.len(), step % GRAPH_TIPS.len());
            out.push(match row.cmp(&top) {
                std::cmp::Ordering::Greater => ' ',
                std::cmp::Ordering::Equal => GRAPH_TIPS[tip],
                std::cmp::Ordering::Less => '|',
            });
        }
        out.push('\n');
    }
}

fn draw_labels(out: &mut String, block: &[Sample], now_s: i64) {
    let labels: Vec<Vec<u8>> = block
        .iter()
        .map(|sample| age(now_s - sample.time_s).into_bytes())
        .collect();
    let rows = labels.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..rows {
        out.extend(
            labels
                .iter()
                .map(|l| l.get(row).map_or(' ', |&letter| letter as char)),
        );
        out.push('\n');
    }
}

fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// LATENCY DOCTOR: describes the events that took long, and what usually helps against them.
pub fn doctor(latency: &Latency, slower_than_us: i64, now_s: i64) -> String {
    if latency.threshold_ms == 0 && latency.events.is_empty() {
        return "The latency monitor is off. Switch it on with \"CONFIG SET latency-monitor-threshold \
                <milliseconds>\" and come back when there are spikes to talk about.\n"
            .into();
    }
    if latency.events.is_empty() {
        return format!(
            "No latency spike was observed: nothing took {} ms or more. The lower the threshold, the \
             more there is to see.\n",
            latency.threshold_ms
        );
    }
    let mut out = String::from("Latency spikes were observed.\n\n");
    for (at, (event, series)) in latency.events.iter().enumerate() {
        let s = series.summary(now_s);
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "{}. {event}: {} latency spikes (average {}ms, mean deviation {}ms, period {:.2} sec). Worst \
             all time event {}ms.",
            at + 1,
            series.samples.len(),
            s.average,
            s.deviation,
            s.period,
            series.max_ms
        );
    }
    let advice = advice(latency, slower_than_us);
    if !advice.is_empty() {
        out.push_str("\nSome advice:\n\n");
        advice
            .iter()
            .for_each(|line| out.push_str(&format!("- {line}\n")));
    }
    out
}

fn advice(latency: &Latency, slower_than_us: i64) -> Vec<String> {
    let seen = |prefix: &str| latency.events.keys().any(|event| event.starts_with(prefix));
    let mut advice = Vec::new();
    if seen("command") {
        let threshold_us = latency.threshold_ms.saturating_mul(1000);
        if slower_than_us < 0 || slower_than_us as u64 > threshold_us {
            advice.push(format!(
                "The slow log does not keep what is as slow as these spikes: use 'CONFIG SET \
                 slowlog-log-slower-than {threshold_us}'."
            ));
        }
        advice.push("SLOWLOG GET names the commands that took long.".into());
        advice.push(
            "Deleting a large value blocks all other clients: UNLINK it, or spread its elements over \
             several keys."
                .into(),
        );
    }
    if seen("fast-command") {
        advice.push(
            "Commands that are fast by nature were slow: the machine is short of processor time, or of \
             memory and swaps. Look at it with vmstat while 'redis-cli --intrinsic-latency 60' runs."
                .into(),
        );
    }
    if seen("fork") {
        advice.push(
            "Forking took long: the page table of a large process has to be copied. Memory below \
             'maxmemory' and virtual machines with hardware paging help."
                .into(),
        );
    }
    if seen("aof-") {
        advice.push(
            "Writing the append only file took long: use a faster or less busy disk, or a milder \
             'appendfsync'."
                .into(),
        );
    }
    if seen("expire-cycle") || seen("expire-del") {
        advice.push("Many keys expire at the same moment: spread their times to live.".into());
    }
    if seen("eviction") {
        advice.push(
            "Evicting keys took long: values are large, or 'maxmemory' was lowered by much at once.".into(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five_spikes() -> Latency {
        let mut latency = Latency {
            threshold_ms: 1,
            ..Latency::default()
        };
        for (time_s, ms) in [(1, 3), (2, 20), (3, 50), (4, 100), (5, 10)] {
            latency.add_if_needed("command", ms, time_s);
        }
        latency
    }

    #[test]
    fn a_second_has_one_sample_the_worst() {
        let mut latency = Latency {
            threshold_ms: 10,
            ..Latency::default()
        };
        for (time_s, ms) in [(1, 9), (1, 12), (1, 30), (1, 20), (2, 11)] {
            latency.add_if_needed("command", ms, time_s);
        }
        let (_, series) = latency.event(b"COMMAND").unwrap();
        let samples: Vec<_> = series.samples.iter().map(|s| (s.time_s, s.ms)).collect();
        assert_eq!(samples, [(1, 30), (2, 11)]);
        assert_eq!((series.max_ms, series.sum_ms, series.count), (30, 73, 4));
        assert_eq!(latency.reset(Some(b"nope")), 0);
        assert_eq!(latency.reset(None), 1);
    }

    /// The expected graph is what a real server drew for the same samples.
    #[test]
    fn a_graph_of_five_samples() {
        let latency = five_spikes();
        let (event, series) = latency.event(b"command").unwrap();
        let drawn = graph(event, series, 6);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(
            lines[0],
            "command - high 100 ms, low 3 ms (all time high 100 ms)"
        );
        assert_eq!(lines[1].len(), 80);
        assert_eq!(
            lines[2..],
            [
                "   # ", "   | ", "  #| ", "_#||_", "     ", "54321", "sssss"
            ]
        );
    }

    #[test]
    fn the_doctor_counts_and_advises() {
        let latency = five_spikes();
        let report = doctor(&latency, 10_000, 6);
        assert!(report.contains(
            "1. command: 5 latency spikes (average 36ms, mean deviation 30ms, period 1.00 sec). Worst all \
             time event 100ms."
        ));
        assert!(report.contains("slowlog-log-slower-than 1000"));
        assert!(doctor(&Latency::default(), 0, 6).contains("is off"));
    }

    #[test]
    fn only_so_many_samples_are_kept() {
        let mut latency = Latency {
            threshold_ms: 1,
            ..Latency::default()
        };
        (0..200).for_each(|s| latency.add_if_needed("fork", 5, s));
        let (event, series) = latency.event(b"fork").unwrap();
        assert_eq!(series.samples.len(), SAMPLES);
        assert_eq!(series.samples.front().unwrap().time_s, 40);
        // The graph has two blocks of 80 columns, each with 4 rows, an empty row, and labels of two
        // or three letters.
        let drawn = graph(event, series, 200);
        assert_eq!(
            drawn
                .lines()
                .skip(1)
                .filter(|line| line.len() == 80)
                .count(),
            1 + 7 + 8
        );
    }
}
