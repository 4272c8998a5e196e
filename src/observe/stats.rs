//! Counters since the start, and rates sampled by the cron.

use std::collections::BTreeMap;

/// Distinct error codes counted before errorstats is switched off as a defence against scripts that make
/// them up.
const ERROR_CODES_MAX: usize = 128;
const SAMPLES: usize = 16;

/// A rate over the last `SAMPLES` ticks of the cron's 100 ms.
#[derive(Default)]
pub struct Rate {
    samples: [u64; SAMPLES],
    next: usize,
    last_ms: i64,
    last_total: u64,
}

impl Rate {
    pub fn sample(&mut self, total: u64, now_ms: i64) {
        let elapsed = now_ms - self.last_ms;
        if self.last_ms != 0 && elapsed > 0 {
            self.samples[self.next] = total.saturating_sub(self.last_total) * 1000 / elapsed as u64;
            self.next = (self.next + 1) % SAMPLES;
        }
        (self.last_ms, self.last_total) = (now_ms, total);
    }

    pub fn per_second(&self) -> u64 {
        self.samples.iter().sum::<u64>() / SAMPLES as u64
    }
}

#[derive(Default)]
pub struct Stats {
    pub commands_processed: u64,
    pub connections_received: u64,
    pub rejected_connections: u64,
    pub expired_keys: u64,
    /// Fields of hashes, INFO's `expired_subkeys`.
    pub expired_fields: u64,
    pub expire_time_cap_reached: u64,
    pub expire_cycle_us: u64,
    pub evicted_keys: u64,
    pub evicted_clients: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub net_input_bytes: u64,
    pub net_output_bytes: u64,
    pub reads_processed: u64,
    pub writes_processed: u64,
    pub query_buffer_limit_disconnections: u64,
    pub output_buffer_limit_disconnections: u64,
    pub error_replies: u64,
    pub errors: BTreeMap<Box<str>, u64>,
    pub errors_overflowed: bool,
    pub ops_rate: Rate,
    pub input_rate: Rate,
    pub output_rate: Rate,
    pub peak_memory: usize,
    pub peak_memory_ms: i64,
    pub eventloop_cycles: u64,
    pub eventloop_us: u64,
    pub eventloop_cmd_us: u64,
    /// Ticks spent in commands, in total and when this turn began.
    pub command_ticks: u64,
    pub turn_cmd_ticks: u64,
    pub turn_began_us: i64,
    pub acl_denied_auth: u64,
    pub acl_denied_cmd: u64,
    pub acl_denied_key: u64,
    pub acl_denied_channel: u64,
    pub cow_peak: u64,
    pub forks: u64,
    pub latest_fork_us: u64,
}

impl Stats {
    /// Count an error reply by its code, e.g. `WRONGTYPE`.
    pub fn count_error(&mut self, code: &str) {
        self.error_replies += 1;
        if self.errors_overflowed {
            return;
        }
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
            return;
        }
        if self.errors.len() >= ERROR_CODES_MAX {
            log::warn!(
                "Errorstats stopped adding new errors because the number of errors reached the limit (suspected lua/module abuse or a bug)"
            );
            self.errors.clear();
            self.errors.insert("ERRORSTATS_OVERFLOW".into(), 1);
            self.errors_overflowed = true;
            return;
        }
        self.errors.insert(code.into(), 1);
    }

    /// Take a sample of each rate; the cron calls this.
    pub fn sample_rates(&mut self, now_ms: i64) {
        self.ops_rate.sample(self.commands_processed, now_ms);
        self.input_rate.sample(self.net_input_bytes, now_ms);
        self.output_rate.sample(self.net_output_bytes, now_ms);
    }

    /// CONFIG RESETSTAT. Rates and peaks of memory stay.
    pub fn reset(&mut self) {
        let old = std::mem::take(self);
        self.peak_memory = old.peak_memory;
        self.peak_memory_ms = old.peak_memory_ms;
    }
}
