//! COMMANDLOG: the last commands that were slow, that were large, or whose replies were large. The
//! first log, `slow`, is also reached by SLOWLOG, its older name.
//!
//! ```text
//!   log             an entry's value        kept from                        at most
//!   slow            microseconds            slowlog-log-slower-than          slowlog-max-len
//!   large-request   bytes of the request    commandlog-request-larger-than   commandlog-large-request-max-len
//!   large-reply     bytes of the reply      commandlog-reply-larger-than     commandlog-large-reply-max-len
//! ```
//!
//! `call()` compares three numbers with three thresholds and calls this module only when a
//! threshold is reached; a log that is off has a threshold that no number reaches. Long commands
//! are stored shortened, and arguments that a command declared secret ([`crate::observe::redact`])
//! are not stored at all.
//!
//! **Invariant:** a log is never longer than its setting says, also right after the setting was
//! changed (`a_log_keeps_the_newest`).

use std::collections::VecDeque;
use std::rc::Rc;

use crate::client::Client;
use crate::clock::Clock;
use crate::config::Config;
use crate::observe::{redact, turns};

/// The maximum number of arguments of a logged command, and the maximum number of bytes of one
/// argument.
const ARGC_MAX: usize = 32;
const ARG_MAX: usize = 128;

/// A command in one of the logs of COMMANDLOG.
pub struct LoggedCommand {
    /// The number of the entry in its log; a reset of the log does not restart the numbers.
    pub id: u64,
    pub time_s: i64,
    /// The value by which the command was logged: microseconds or bytes, see the table in the
    /// header of this module.
    pub value: u64,
    pub argv: Vec<Vec<u8>>,
    pub peer: Rc<str>,
    pub name: Rc<[u8]>,
}

/// The three logs of COMMANDLOG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandLogKind {
    Slow,
    LargeRequest,
    LargeReply,
}

impl CommandLogKind {
    /// The log that COMMANDLOG's argument names.
    pub fn by_name(name: &[u8]) -> Option<CommandLogKind> {
        let names: [(&[u8], CommandLogKind); 3] = [
            (b"slow", CommandLogKind::Slow),
            (b"large-request", CommandLogKind::LargeRequest),
            (b"large-reply", CommandLogKind::LargeReply),
        ];
        names
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map(|(_, kind)| kind)
    }
}

/// A log of COMMANDLOG: the newest commands whose duration or size reached its threshold.
pub struct Log {
    /// The logged commands, the newest first.
    pub entries: VecDeque<LoggedCommand>,
    next_id: u64,
    /// The lowest value with which a command is logged; `u64::MAX` means that the log is off.
    threshold: u64,
    max_len: usize,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            entries: VecDeque::new(),
            next_id: 0,
            threshold: u64::MAX,
            max_len: 0,
        }
    }
}

impl Log {
    /// Applies the settings of the threshold and of the maximum length. A negative `from` switches
    /// the log off.
    fn configure(&mut self, from: i64, max_len: u64) {
        self.max_len = usize::try_from(max_len).unwrap_or(usize::MAX);
        self.threshold = match u64::try_from(from) {
            Ok(from) if self.max_len > 0 => from,
            _ => u64::MAX,
        };
        self.entries.truncate(self.max_len);
    }

    /// Whether a command with this value is logged: whether the value reaches the threshold.
    #[inline]
    pub fn wants(&self, value: u64) -> bool {
        value >= self.threshold
    }

    fn push(&mut self, mut entry: LoggedCommand) {
        entry.id = self.next_id;
        self.next_id += 1;
        self.entries.truncate(self.max_len.saturating_sub(1));
        self.entries.push_front(entry);
    }
}

/// The three logs, and the duration from which `call()` looks at a command more closely.
#[derive(Default)]
pub struct CommandLogs {
    pub slow: Log,
    pub large_request: Log,
    pub large_reply: Log,
    /// The least of the thresholds of the slow log, the latency monitor and the live page, in
    /// ticks: a shorter command costs one comparison.
    pub threshold_ticks: u64,
}

impl CommandLogs {
    /// Applies the settings of the three logs, and computes `threshold_ticks`.
    pub fn configure(&mut self, config: &Config, clock: &Clock) {
        self.slow
            .configure(config.slowlog_log_slower_than, config.slowlog_max_len);
        self.large_request.configure(
            config.commandlog_request_larger_than,
            config.commandlog_large_request_max_len,
        );
        self.large_reply.configure(
            config.commandlog_reply_larger_than,
            config.commandlog_large_reply_max_len,
        );
        let latency = match config.latency_monitor_threshold {
            0 => u64::MAX,
            ms => ms.saturating_mul(1000),
        };
        let named = match config.monitor_port {
            0 => u64::MAX,
            _ => turns::NAMED_US,
        };
        let least = self.slow.threshold.min(latency).min(named);
        self.threshold_ticks = if least == u64::MAX {
            u64::MAX
        } else {
            clock.ticks_of_us(least)
        };
    }

    /// The log that `kind` names: slow commands, large requests or large replies.
    pub fn log(&mut self, kind: CommandLogKind) -> &mut Log {
        match kind {
            CommandLogKind::Slow => &mut self.slow,
            CommandLogKind::LargeRequest => &mut self.large_request,
            CommandLogKind::LargeReply => &mut self.large_reply,
        }
    }

    /// Adds an entry for a slow turn of the loop, which names the file of its trace.
    pub fn push_slow_turn(&mut self, us: u64, file: &str, time_s: i64) {
        if !self.slow.wants(us) {
            return;
        }
        self.slow.push(LoggedCommand {
            id: 0,
            time_s,
            value: us,
            argv: vec![b"(turn of the event loop)".to_vec(), file.into()],
            peer: Rc::from(""),
            name: Rc::from([]),
        });
    }

    /// Adds a command to the log that `kind` names, if `value` reaches the threshold of this log.
    pub fn push_if_needed(
        &mut self,
        kind: CommandLogKind,
        value: u64,
        c: &Client,
        argv: &[&[u8]],
        time_s: i64,
    ) {
        if !self.log(kind).wants(value) {
            return;
        }
        let argv = shortened(argv);
        let name = c.name.clone().unwrap_or_else(|| Rc::from([]));
        self.log(kind).push(LoggedCommand {
            id: 0,
            time_s,
            value,
            argv,
            peer: c.peer.clone(),
            name,
        });
    }
}

fn shortened(argv: &[&[u8]]) -> Vec<Vec<u8>> {
    let whole = argv.len() <= ARGC_MAX;
    let shown = if whole { argv.len() } else { ARGC_MAX - 1 };
    let mut out: Vec<Vec<u8>> = argv[..shown]
        .iter()
        .enumerate()
        .map(|(at, arg)| match arg.len() {
            _ if redact::is_secret(argv, at) => redact::REDACTED.to_vec(),
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

/// The number of bytes of a request on the wire: arguments with their lengths and line ends.
pub fn request_bytes(argv: &[&[u8]]) -> u64 {
    let header = |n: usize| 1 + n.checked_ilog10().unwrap_or(0) as usize + 1 + 2;
    let args: usize = argv
        .iter()
        .map(|arg| header(arg.len()) + arg.len() + 2)
        .sum();
    (header(argv.len()) + args) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &mut Log, value: u64) {
        let argv = vec![b"ping".to_vec()];
        log.push(LoggedCommand {
            id: 0,
            time_s: 0,
            value,
            argv,
            peer: "".into(),
            name: Rc::from([]),
        });
    }

    #[test]
    fn a_log_keeps_the_newest() {
        let mut log = Log::default();
        log.configure(10, 3);
        assert!(log.wants(10) && !log.wants(9));
        (0..5).for_each(|value| push(&mut log, value));
        let ids = |log: &Log| log.entries.iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(&log), [4, 3, 2]);
        log.configure(10, 1);
        assert_eq!(ids(&log), [4]);
        log.configure(0, 0);
        assert!(log.entries.is_empty() && !log.wants(u64::MAX - 1));
        log.configure(-1, 5);
        assert!(!log.wants(u64::MAX - 1));
    }

    #[test]
    fn long_and_secret_commands_are_shortened() {
        let long = [b'A'; 129];
        assert_eq!(shortened(&[b"auth", b"secret"])[1], b"(redacted)");
        let kept = shortened(&[b"set", b"k", &long]);
        assert!(kept[2].ends_with(b"AA... (1 more bytes)"));
        let many: Vec<&[u8]> = vec![b"x"; 33];
        let kept = shortened(&many);
        assert_eq!(
            (kept.len(), kept[31].as_slice()),
            (32, &b"... (2 more arguments)"[..])
        );
        assert_eq!(shortened(&many[..32]).len(), 32);
    }

    #[test]
    fn a_request_counts_as_it_was_sent() {
        assert_eq!(
            request_bytes(&[b"ping"]),
            b"*1\r\n$4\r\nping\r\n".len() as u64
        );
        assert_eq!(
            request_bytes(&[b"echo", b"0123456789"]),
            b"*2\r\n$4\r\necho\r\n$10\r\n0123456789\r\n".len() as u64
        );
    }
}
