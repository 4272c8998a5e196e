//! Counters since the start, and rates sampled by the cron.
//!
//! The counters are plain fields, incremented where an event happens. CONFIG RESETSTAT sets the
//! counters to zero ([`Server::reset_stats`]); peaks of memory stay.

use std::collections::BTreeMap;

use crate::observe::slot_stats::SlotStats;
use crate::state::Server;
use crate::texts::{self, Words};

/// The maximum number of distinct error codes that are counted, as scripts can create any number of
/// codes. Beyond the limit, Redis stops counting codes until CONFIG RESETSTAT; in Valkey, further
/// codes of scripts share one counter.
const ERROR_CODES_MAX: usize = 128;
const SAMPLES: usize = 16;
/// The milliseconds between two samples of a rate (100), less the time by which a timer may be
/// early.
const SAMPLE_PERIOD_MS: i64 = 90;

/// The average of the last [`SAMPLES`] samples of a counter's growth, each divided by the growth of
/// another figure, the base: by milliseconds for a rate, by turns for a cost of a turn.
#[derive(Default)]
pub struct Rate {
    samples: [u64; SAMPLES],
    next: usize,
    /// The values of the counter and of its base at the last sample; `None` before the first
    /// sample.
    last: Option<(u64, u64)>,
}

impl Rate {
    /// Adds a sample: the growth of the counter `total` since the last sample, multiplied by
    /// `factor` and divided by the growth of `base`.
    pub fn sample(&mut self, total: u64, base: u64, factor: u64) {
        let last = self.last.replace((total, base));
        let Some((last_total, last_base)) = last else {
            return;
        };
        let grown = total.saturating_sub(last_total).saturating_mul(factor);
        self.samples[self.next] = grown
            .checked_div(base.saturating_sub(last_base))
            .unwrap_or(0);
        self.next = (self.next + 1) % SAMPLES;
    }

    /// The average of the last [`SAMPLES`] samples.
    pub fn average(&self) -> u64 {
        self.samples.iter().sum::<u64>() / SAMPLES as u64
    }
}

/// The counters and rates that INFO shows.
#[derive(Default)]
pub struct Stats {
    /// The figures of CLUSTER SLOT-STATS; `None` while `cluster-slot-stats-enabled` is off.
    pub slots: Option<Box<SlotStats>>,
    pub commands_processed: u64,
    pub connections_received: u64,
    pub rejected_connections: u64,
    pub expired_keys: u64,
    /// The number of expired fields of hashes: INFO's `expired_subkeys`.
    pub expired_fields: u64,
    pub expire_time_cap_reached: u64,
    pub expire_cycle_us: u64,
    pub evicted_keys: u64,
    pub evicted_clients: u64,
    pub evicted_scripts: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub net_input_bytes: u64,
    pub net_output_bytes: u64,
    /// The part of `net_output_bytes` that was sent to replicas.
    pub net_repl_output_bytes: u64,
    /// The bytes received from the primary.
    pub net_repl_input_bytes: u64,
    /// The number of full syncs of replicas; the next two fields count accepted and refused partial
    /// syncs.
    pub sync_full: u64,
    pub sync_partial_ok: u64,
    pub sync_partial_err: u64,
    /// The number of parts of the replication stream that were kept for replicas which received a
    /// snapshot over a second connection, and were dropped since no replica asked for the part in
    /// time.
    pub sync_pins_expired: u64,
    /// The number of clients' write commands that this server executed while it was a writable
    /// replica.
    pub replica_local_writes: u64,
    /// The number of pauses of writes because a replica lagged (`repl-throttling-enabled`), and the
    /// total time of the pauses in milliseconds.
    pub repl_throttles: u64,
    pub repl_throttled_ms: u64,
    pub reads_processed: u64,
    pub writes_processed: u64,
    pub query_buffer_limit_disconnections: u64,
    pub output_buffer_limit_disconnections: u64,
    pub reply_buffer_shrinks: u64,
    pub reply_buffer_expands: u64,
    pub error_replies: u64,
    /// The error replies to commands of the AOF, of the primary or of a replica, which nothing
    /// reads.
    pub unexpected_error_replies: u64,
    /// The number of packed blocks (listpacks, intsets) of RDB files and RESTORE that were checked
    /// because `sanitize-dump-payload` demands it.
    pub dump_payload_sanitizations: u64,
    pub errors: BTreeMap<Box<str>, u64>,
    /// Whether there were too many distinct error codes: `errors` then has only an entry that says
    /// so, and no code is counted until CONFIG RESETSTAT.
    errors_disabled: bool,
    /// Whether the limit of distinct error codes works as in Redis or as in Valkey.
    pub words: Words,
    /// The Unix time in milliseconds at which the rates were last sampled.
    pub sampled_ms: i64,
    pub ops_rate: Rate,
    pub input_rate: Rate,
    pub output_rate: Rate,
    pub repl_input_rate: Rate,
    pub repl_output_rate: Rate,
    /// The growth of the replication stream, sampled once a second; the other rates are sampled ten
    /// times a second.
    pub stream_rate: Rate,
    pub cycles_rate: Rate,
    /// The average duration of a turn of the event loop in microseconds.
    pub cycle_us_rate: Rate,
    /// The largest `used_memory` since the start, in bytes.
    pub peak_memory: usize,
    pub peak_memory_ms: i64,
    pub eventloop_cycles: u64,
    pub eventloop_us: u64,
    /// The duration of the longest turn of the event loop in microseconds, and the largest number
    /// of commands in a turn.
    pub turn_max_us: u64,
    pub turn_max_commands: u64,
    /// Ticks spent in commands (those inside EXEC and scripts are not counted twice), in the cron,
    /// and in writing the AOF before replies are sent.
    pub command_ticks: u64,
    pub cron_ticks: u64,
    pub aof_ticks: u64,
    pub turn_began_us: i64,
    pub turn_began_commands: u64,
    pub acl_denied_auth: u64,
    pub acl_denied_cmd: u64,
    pub acl_denied_key: u64,
    pub acl_denied_channel: u64,
    pub acl_denied_db: u64,
    pub acl_denied_certificate: u64,
    pub forks: u64,
    pub latest_fork_us: u64,
}

impl Stats {
    /// Counts an error reply by its code, e.g. `WRONGTYPE`.
    pub fn count_error(&mut self, code: &str) {
        self.error_replies += 1;
        if self.errors_disabled {
            return;
        }
        let full = self.errors.len() >= ERROR_CODES_MAX;
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None if full && self.words == Words::Redis => self.disable_errors(),
            None => _ = self.errors.insert(code.into(), 1),
        }
    }

    /// Counts an error reply whose code may come from a script.
    pub fn count_script_error(&mut self, code: &str) {
        let shared = self.words == Words::Valkey
            && self.errors.len() >= ERROR_CODES_MAX
            && !self.errors.contains_key(code);
        let beyond = texts::ERRORSTATS_BEYOND_LIMIT.of(self.words);
        self.count_error(if shared { beyond } else { code });
    }

    #[cold]
    fn disable_errors(&mut self) {
        log::warn!(
            "Errorstats stopped adding new errors because the number of errors reached the limit, may be misuse of lua \
             error_reply, please check INFO ERRORSTATS, this can be re-enabled via CONFIG RESETSTAT."
        );
        let codes: Vec<&str> = self.errors.keys().map(|code| &**code).collect();
        log::warn!("Current errors code list: {}", codes.join(", "));
        self.errors.clear();
        let entry = texts::ERRORSTATS_BEYOND_LIMIT.of(Words::Redis);
        self.errors.insert(entry.into(), 1);
        self.errors_disabled = true;
    }

    /// Takes a sample of each rate if the last samples are 100 ms old; called by the cron.
    pub fn sample_rates(&mut self, now_ms: i64) {
        if now_ms - self.sampled_ms < SAMPLE_PERIOD_MS {
            return;
        }
        self.sampled_ms = now_ms;
        let ms = now_ms.max(0) as u64;
        self.ops_rate.sample(self.commands_processed, ms, 1000);
        self.input_rate.sample(self.net_input_bytes, ms, 1000);
        self.output_rate.sample(self.net_output_bytes, ms, 1000);
        let (input, output) = (self.net_repl_input_bytes, self.net_repl_output_bytes);
        self.repl_input_rate.sample(input, ms, 1000);
        self.repl_output_rate.sample(output, ms, 1000);
        self.cycles_rate.sample(self.eventloop_cycles, ms, 1000);
        self.cycle_us_rate
            .sample(self.eventloop_us, self.eventloop_cycles, 1);
    }

    /// Counts a turn of the event loop that has ended. Returns the turn's duration in microseconds.
    pub fn turn_ended(&mut self, now_us: i64) -> u64 {
        let us = (now_us - self.turn_began_us).max(0) as u64;
        self.eventloop_cycles += 1;
        self.eventloop_us += us;
        self.turn_max_us = self.turn_max_us.max(us);
        let commands = self
            .commands_processed
            .saturating_sub(self.turn_began_commands);
        self.turn_max_commands = self.turn_max_commands.max(commands);
        us
    }

    /// Sets counters and rates to zero for CONFIG RESETSTAT. The peak of used memory keeps its
    /// value.
    fn reset(&mut self) {
        *self = Stats {
            peak_memory: self.peak_memory,
            peak_memory_ms: self.peak_memory_ms,
            turn_began_us: self.turn_began_us,
            words: self.words,
            slots: self.slots.as_ref().map(|_| Box::default()),
            ..Stats::default()
        };
    }
}

impl Server {
    /// CONFIG RESETSTAT: sets the statistics of all features to zero.
    pub fn reset_stats(&mut self) {
        self.hotkeys.stats_reset(&self.stats);
        self.stats.reset();
        self.lazyfree.reset_stats();
        self.defrag.reset_stats();
        self.evict.exceeded = Default::default();
        for entry in &mut self.commands.entries {
            entry.stats = Default::default();
        }
    }

    /// Raises the recorded peak of used memory if more is used now.
    pub fn note_peak_memory(&mut self) {
        let used = self.used_memory();
        if used > self.stats.peak_memory {
            self.stats.peak_memory = used;
            self.stats.peak_memory_ms = self.clock.now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_of_its_samples() {
        let mut rate = Rate::default();
        rate.sample(500, 1000, 1000);
        assert_eq!(rate.average(), 0, "growth needs two looks");
        (1..=16).for_each(|n| rate.sample(500 + n * 10, 1000 + n * 100, 1000));
        assert_eq!(rate.average(), 100);
        rate.sample(0, 2600, 1000);
        assert!(
            rate.average() < 100,
            "no time passed and the counter was reset: a sample of zero"
        );
    }

    #[test]
    fn in_redis_s_words_the_129th_code_ends_the_counting_of_codes() {
        let mut stats = Stats::default();
        (1..=127).for_each(|n| stats.count_script_error(&n.to_string()));
        stats.count_error("ERR");
        stats.count_error("ERR");
        assert_eq!((stats.errors.len(), stats.errors["ERR"]), (128, 2));
        for code in ["WRONGTYPE", "ERR", "1", "another"] {
            stats.count_error(code);
            stats.count_script_error(code);
            let all: Vec<_> = stats.errors.iter().collect();
            assert_eq!(all, [(&"ERRORSTATS_DISABLED".into(), &1)], "{code}");
        }
        assert_eq!(stats.error_replies, 137);
        stats.reset();
        stats.count_script_error("again");
        assert_eq!((stats.errors.len(), stats.errors["again"]), (1, 1));
    }

    #[test]
    fn in_valkey_s_words_made_up_errors_share_a_count_in_the_end() {
        let mut stats = Stats {
            words: Words::Valkey,
            ..Stats::default()
        };
        (1..=1100).for_each(|n| stats.count_script_error(&n.to_string()));
        assert_eq!(stats.errors["ERRORSTATS_OVERFLOW"], 972);
        stats.count_error("ERR");
        stats.count_script_error("1");
        assert_eq!((stats.errors["ERR"], stats.errors["1"]), (1, 2));
        assert_eq!(stats.error_replies, 1102);
        stats.reset();
        assert_eq!(stats.words, Words::Valkey);
    }

    #[test]
    fn a_reset_keeps_what_describes_the_present() {
        let mut server = Server::new(crate::config::Config::default(), Vec::new());
        server.stats.count_error("ERR");
        server.stats.peak_memory = 77;
        server.commands.entries[0].stats.calls = 5;
        server.reset_stats();
        assert_eq!(
            (server.stats.error_replies, server.stats.errors.len()),
            (0, 0)
        );
        assert_eq!(server.stats.peak_memory, 77);
        assert_eq!(server.commands.entries[0].stats.calls, 0);
    }
}
