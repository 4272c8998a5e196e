//! The files to which traces are written: their names, their maximum number, and the least time
//! between two of them.
//!
//! The names of the files are fixed, so that a directory never holds more than [`SLOTS`] traces of
//! slow turns, those of earlier processes included: a new file overwrites the oldest file of this
//! process. A new process begins with the first name, also when a file of that name is the newest
//! one of an earlier process. A slow turn less than [`PERIOD_MS`] after the last file is only
//! counted, and gets no file.

use std::collections::VecDeque;

use crate::observe::trace::Snapshot;

/// The maximum number of trace files of slow turns.
const SLOTS: u32 = 8;
/// The least time between two trace files of slow turns, in milliseconds.
const PERIOD_MS: i64 = 10_000;
/// The name of the file that TRACE DUMP FILE writes.
const DUMP_NAME: &str = "trace-dump.json";

/// A trace file of a slow turn, which was passed to a thread for writing.
pub struct Written {
    pub name: String,
    /// The Unix time of the slow turn in seconds.
    pub time_s: i64,
    /// The duration of the slow turn without its poll, in microseconds.
    pub turn_us: u64,
}

/// The trace files that were written, and the file that TRACE DUMP FILE has requested.
#[derive(Default)]
pub struct TraceFiles {
    /// The number of slow turns so far, those without a file included.
    pub slow_turns: u64,
    written: VecDeque<Written>,
    next_slot: u32,
    last_ms: Option<i64>,
    /// The name and the content of the file that TRACE DUMP FILE has requested.
    pub wished: Option<(&'static str, Snapshot)>,
}

impl TraceFiles {
    /// Requests that `snapshot` be written to a file before the loop sleeps. Returns the file's
    /// name.
    pub fn dump_to_file(&mut self, snapshot: Snapshot) -> &'static str {
        self.wished = Some((DUMP_NAME, snapshot));
        DUMP_NAME
    }

    /// Counts a slow turn of the event loop. Returns the name for the trace file of this turn;
    /// `None` if the last file is too recent.
    pub fn slow_turn(&mut self, turn_us: u64, now_ms: i64) -> Option<String> {
        self.slow_turns += 1;
        if self
            .last_ms
            .is_some_and(|last| now_ms.abs_diff(last) < PERIOD_MS as u64)
        {
            return None;
        }
        self.last_ms = Some(now_ms);
        let name = format!("trace-slow-turn-{}.json", self.next_slot);
        self.next_slot = (self.next_slot + 1) % SLOTS;
        self.written.retain(|file| file.name != name);
        self.written.push_front(Written {
            name: name.clone(),
            time_s: now_ms / 1000,
            turn_us,
        });
        Some(name)
    }

    /// The slow turns and their trace files as a text for LATENCY DOCTOR; empty if there was no
    /// slow turn.
    pub fn describe(&self, now_s: i64) -> String {
        if self.slow_turns == 0 {
            return String::new();
        }
        let mut out = format!(
            "\n{} turns of the event loop took too long. What the loop did is in these files; open them in \
             Perfetto or chrome://tracing.\n\n",
            self.slow_turns
        );
        for file in &self.written {
            let (ms, age_s) = (file.turn_us / 1000, (now_s - file.time_s).max(0));
            out += &format!("- {}: a turn of {ms} ms, {age_s} s ago.\n", file.name);
        }
        out
    }

    /// The trace files of this process's slow turns that were not overwritten, the newest first.
    pub fn written(&self) -> impl Iterator<Item = &Written> {
        self.written.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_turns_leave_a_few_files_now_and_then() {
        let mut files = TraceFiles::default();
        assert_eq!(files.describe(0), "");
        let first = files.slow_turn(7, 1000);
        assert_eq!(first.as_deref(), Some("trace-slow-turn-0.json"));
        assert_eq!(files.slow_turn(7, 1000 + PERIOD_MS - 1), None);
        for n in 1..20 {
            assert!(files.slow_turn(n, 1000 + n as i64 * PERIOD_MS).is_some());
        }
        assert_eq!(files.slow_turns, 21);
        let text = files.describe(1010 + PERIOD_MS / 1000 * 19);
        assert!(text.starts_with("\n21 turns"), "{text}");
        assert!(
            text.contains("- trace-slow-turn-3.json: a turn of 0 ms, "),
            "{text}"
        );
        let names: Vec<&str> = files.written().map(|file| &*file.name).collect();
        assert_eq!(names.len(), SLOTS as usize);
        assert_eq!(names[0], "trace-slow-turn-3.json");
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len());
    }
}
