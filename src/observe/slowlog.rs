//! SLOWLOG: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;

use crate::networking::client::Client;
use crate::state::Server;

/// Arguments kept of one command, and bytes kept of one argument.
const ARGC_MAX: usize = 32;
const ARG_MAX: usize = 128;

pub struct Entry {
    pub id: u64,
    pub time_s: i64,
    pub duration_us: u64,
    pub argv: Vec<Vec<u8>>,
    pub peer: Box<str>,
    pub name: Box<[u8]>,
}

#[derive(Default)]
pub struct Slowlog {
    /// Newest first.
    pub entries: VecDeque<Entry>,
    next_id: u64,
    /// Below this many ticks a command is neither slow nor a latency event: one comparison for both.
    pub threshold_ticks: u64,
}

impl Slowlog {
    /// Take over the settings.
    pub fn configure(
        &mut self,
        slower_than_us: i64,
        latency_ms: u64,
        clock: &crate::server::clock::Clock,
    ) {
        let slow = u64::try_from(slower_than_us).unwrap_or(u64::MAX);
        let latency = if latency_ms == 0 {
            u64::MAX
        } else {
            latency_ms.saturating_mul(1000)
        };
        let least = slow.min(latency);
        self.threshold_ticks = if least == u64::MAX {
            u64::MAX
        } else {
            clock.ticks_of_us(least)
        };
    }
}

/// Keep a command that took `us` microseconds, if that is slow.
pub fn push_if_needed(server: &mut Server, c: &Client, argv: &[&[u8]], us: u64) {
    let slower_than = server.config.slowlog_log_slower_than;
    let max = server.config.slowlog_max_len as usize;
    if slower_than < 0 || max == 0 || us < slower_than as u64 {
        return;
    }
    let entry = Entry {
        id: server.slowlog.next_id,
        time_s: server.clock.now_s(),
        duration_us: us,
        argv: shortened(argv),
        peer: c.peer.clone(),
        name: c.name.clone().unwrap_or_default(),
    };
    server.slowlog.next_id += 1;
    server.slowlog.entries.push_front(entry);
    server.slowlog.entries.truncate(max);
}

fn shortened(argv: &[&[u8]]) -> Vec<Vec<u8>> {
    let whole = argv.len() <= ARGC_MAX;
    let shown = if whole { argv.len() } else { ARGC_MAX - 1 };
    let mut out: Vec<Vec<u8>> = argv[..shown]
        .iter()
        .map(|arg| match arg.len() {
            0..=ARG_MAX => arg.to_vec(),
            len => {
                let mut cut = arg[..ARG_MAX].to_vec();
                cut.extend_from_slice(format!("... ({} more bytes)", len - ARG_MAX).as_bytes());
                cut
            }
        })
        .collect();
    if !whole {
        out.push(format!("... ({} more arguments)", argv.len() - shown).into_bytes());
    }
    out
}
