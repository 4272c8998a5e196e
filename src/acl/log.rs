//! ACL LOG: the refused calls and their clients, newest first.
//!
//! ```text
//!   refused again for the same reason, object, user and context within a minute:  count + 1, moved to the front
//!   otherwise:                                                                    a new entry with a number of its own
//! ```
//!
//! A client that repeats a refused call in a loop makes one entry. Only the first few entries are
//! compared with a new refusal, so that a refusal costs little. `acllog-max-len` bounds the list
//! when an entry is added: changing the setting alone removes no entry.

use std::collections::VecDeque;

use crate::acl::check::Reason;
use crate::util::rate_limit::RateLimit;

/// The time, in milliseconds, within which equal refusals make one entry of ACL LOG.
const GROUPING_MS: i64 = 60_000;

/// The number of entries of ACL LOG that are compared with a new refusal.
const LOOKED_AT: usize = 10;

/// From where the refused call came: from a client directly, from a transaction, or from a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    TopLevel,
    Multi,
    Script,
}

impl Context {
    /// The name of the variant in ACL LOG's reply.
    pub fn name(self) -> &'static str {
        match self {
            Context::TopLevel => "toplevel",
            Context::Multi => "multi",
            Context::Script => "lua",
        }
    }
}

impl Reason {
    /// The name of the variant in ACL LOG's reply.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Database => "database",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
            Reason::Certificate => "tls-cert",
        }
    }
}

/// One refusal of a call or a login, as ACL LOG shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub reason: Reason,
    pub context: Context,
    pub object: Vec<u8>,
    pub user: Box<[u8]>,
}

/// An entry of the log: equal refusals within [`GROUPING_MS`].
pub struct AclLogEntry {
    pub event: Event,
    /// The number of equal refusals that were grouped into this entry.
    pub count: u64,
    pub id: u64,
    pub created_ms: i64,
    pub updated_ms: i64,
    /// The client of the last refusal, as a line of CLIENT LIST.
    pub client: String,
}

/// The failed logins since the last line about failed logins in the server's log.
#[derive(Default)]
pub struct FailedLogins {
    limit: RateLimit,
    unreported: u64,
}

/// The minimum time between two lines about failed logins in the server's log.
const REPORT_INTERVAL_MS: i64 = 1000;

impl FailedLogins {
    /// Counts a failed login. If a log line may be written now, returns the number of other failed
    /// logins since the last line.
    pub fn add(&mut self, now_ms: i64) -> Option<u64> {
        if self.limit.allows(now_ms, REPORT_INTERVAL_MS) {
            return Some(std::mem::take(&mut self.unreported));
        }
        self.unreported += 1;
        None
    }
}

/// ACL LOG: the refused calls and logins.
#[derive(Default)]
pub struct Log {
    /// The entries of ACL LOG, newest first.
    pub entries: VecDeque<AclLogEntry>,
    next_id: u64,
}

impl Log {
    /// Adds a refused call or login to ACL LOG. `client` returns the description of the refused
    /// client; it is called only if `max` is not 0.
    pub fn add(&mut self, event: Event, now_ms: i64, max: u64, client: impl FnOnce() -> String) {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if max == 0 {
            self.entries.clear();
            return;
        }
        let same = |entry: &AclLogEntry| {
            entry.event == event && (now_ms - entry.updated_ms).abs() <= GROUPING_MS
        };
        let known = self.entries.iter().take(LOOKED_AT).position(same);
        let mut entry = known
            .and_then(|at| self.entries.remove(at))
            .unwrap_or_else(|| self.new_entry(event, now_ms));
        entry.count += 1;
        entry.updated_ms = now_ms;
        entry.client = client();
        self.entries.push_front(entry);
        self.entries.truncate(max);
    }

    fn new_entry(&mut self, event: Event, now_ms: i64) -> AclLogEntry {
        let id = self.next_id;
        self.next_id += 1;
        AclLogEntry {
            event,
            count: 0,
            id,
            created_ms: now_ms,
            updated_ms: now_ms,
            client: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_failed_logins_counts_those_without_a_line() {
        let mut logins = FailedLogins::default();
        let lines = [0, 1, 1000, 1001, 1002, 2001].map(|now| logins.add(now));
        assert_eq!(lines, [Some(0), None, None, Some(2), None, None]);
        assert_eq!(logins.add(9000), Some(2));
    }

    fn event(object: &str) -> Event {
        Event {
            reason: Reason::Key,
            context: Context::TopLevel,
            object: object.into(),
            user: b"alice"[..].into(),
        }
    }

    /// The entries of ACL LOG as (object, count, id), the newest first.
    fn shown(log: &Log) -> Vec<(String, u64, u64)> {
        let object = |e: &AclLogEntry| String::from_utf8(e.event.object.clone()).unwrap();
        log.entries
            .iter()
            .map(|e| (object(e), e.count, e.id))
            .collect()
    }

    #[test]
    fn equal_events_of_a_minute_are_one_entry() {
        let mut log = Log::default();
        for (object, now_ms) in [("a", 0), ("b", 10), ("a", 60_000), ("b", 70_000)] {
            log.add(event(object), now_ms, 100, || now_ms.to_string());
        }
        let expected = [("b".into(), 1, 2), ("a".into(), 2, 0), ("b".into(), 1, 1)];
        assert_eq!(shown(&log), expected);
        assert_eq!(log.entries[1].created_ms, 0);
        assert_eq!(log.entries[1].updated_ms, 60_000);
        assert_eq!(log.entries[1].client, "60000");
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = Log::default();
        for n in 0..20 {
            log.add(event(&n.to_string()), 0, 5, String::new);
        }
        let ids: Vec<u64> = log.entries.iter().map(|e| e.id).collect();
        assert_eq!(ids, [19, 18, 17, 16, 15]);
        log.add(event("x"), 0, 0, String::new);
        assert!(log.entries.is_empty());
    }
}
