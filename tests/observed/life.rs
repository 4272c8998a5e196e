//! A primary and its replica, and the values that the fields of their reports (INFO and others)
//! have had.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Conn, Peer};
use crate::seen::Seen;

/// The time within which a field must change, which is never reached in a test that passes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command-line settings of the primary and of its replica.
const SETTINGS: &[&str] = &[
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "1",
    "--repl-timeout",
    "60",
    "--logfile",
    "server.log",
];

/// Samples reports until a field has changed. Fields that never change are reported at the end of
/// the test.
pub fn until(field: &str, seen: &mut Seen, mut sample: impl FnMut(&mut Seen)) {
    let began = Instant::now();
    while !seen.changed(field) && began.elapsed() < PATIENCE {
        sample(seen);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A primary, its replica, and the values of their fields so far.
pub struct Life {
    pub primary: Peer,
    pub replica: Peer,
    /// The connection on which the primary's reports are requested.
    pub ask: Conn,
    seen: Seen,
}

impl Life {
    pub fn begin() -> Life {
        let primary =
            Peer::aeris(&[SETTINGS, &["--appendonly", "yes", "--unixsocket", "socket"]].concat());
        let replica = Peer::aeris(SETTINGS);
        let ask = primary.connect();
        let mut life = Life {
            primary,
            replica,
            ask,
            seen: Seen::default(),
        };
        life.look();
        life
    }

    /// Samples the reports of the primary and of its replica.
    pub fn look(&mut self) {
        self.seen.sample("primary", &mut self.ask);
        self.look_at_replica();
    }

    /// Samples the reports of the primary.
    pub fn look_at_primary(&mut self) {
        self.seen.sample("primary", &mut self.ask);
    }

    /// Sends requests and INFO to the primary in one write, and samples the fields of this INFO.
    pub fn look_behind(&mut self, requests: &[&[&str]]) {
        self.seen.sample_behind("primary", &mut self.ask, requests);
    }

    /// Samples the reports of the replica.
    pub fn look_at_replica(&mut self) {
        self.seen.sample("replica", &mut self.replica.connect());
    }

    /// Sends commands to the primary, which must succeed, and samples its reports after each.
    pub fn say(&mut self, lines: &[&str]) {
        for line in lines {
            let reply = self.ask.line(line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
            self.look_at_primary();
        }
    }

    /// Sends commands to the primary that must fail, and then samples its reports.
    pub fn fail(&mut self, lines: &[&str]) {
        for line in lines {
            let reply = self.ask.line(line);
            assert!(reply.starts_with('-'), "{line}: {reply}");
        }
        self.look_at_primary();
    }

    /// Sends commands to the replica, which must succeed, and samples its reports after each.
    pub fn say_to_replica(&mut self, lines: &[&str]) {
        for line in lines {
            let reply = self.replica.connect().line(line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
            self.look_at_replica();
        }
    }

    /// Whether a field has had two values.
    pub fn has_changed(&self, field: &str) -> bool {
        self.seen.changed(field)
    }

    /// Restarts the primary after `change` has changed its files, and samples both servers during
    /// the load.
    pub fn restart_with(&mut self, args: &[&str], change: impl FnOnce(&Path)) {
        let last = self.primary.connect().try_line("SHUTDOWN NOSAVE FORCE");
        assert_eq!(last, None);
        self.primary.wait();
        change(self.primary.dir());
        self.primary.start_again(args);
        self.ask = self.primary.connect();
        self.look();
        while self.info("loading") != "0" {
            self.look();
        }
    }

    /// Samples the primary until all `fields` of its reports have changed.
    pub fn until(&mut self, fields: &[&str]) {
        for field in fields {
            let ask = &mut self.ask;
            until(field, &mut self.seen, |seen| seen.sample("primary", ask));
        }
    }

    /// Samples the replica until all `fields` of its reports have changed.
    pub fn until_at_replica(&mut self, fields: &[&str]) {
        for field in fields {
            let replica = &self.replica;
            until(field, &mut self.seen, |seen| {
                seen.sample("replica", &mut replica.connect());
            });
        }
    }

    /// The present value of a field of the primary's INFO.
    pub fn info(&mut self, field: &str) -> String {
        value(&self.ask.line("INFO everything"), field)
    }

    /// The present value of a field of the replica's INFO.
    pub fn info_of_replica(&self, field: &str) -> String {
        value(&self.replica.connect().line("INFO everything"), field)
    }

    /// Samples the primary until the field `field` of its INFO has the value `expected`.
    pub fn wait(&mut self, field: &str, expected: &str) {
        let began = Instant::now();
        while self.info(field) != expected {
            assert!(
                began.elapsed() < PATIENCE,
                "{field} does not become {expected}"
            );
            self.look_at_primary();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Samples the replica until the field `field` of its INFO has the value `expected`.
    pub fn wait_at_replica(&mut self, field: &str, expected: &str) {
        let began = Instant::now();
        while self.info_of_replica(field) != expected {
            assert!(
                began.elapsed() < PATIENCE,
                "{field} does not become {expected}"
            );
            self.look_at_replica();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends both servers, and returns the values of all fields.
    pub fn end(mut self) -> Seen {
        self.look();
        self.seen
    }
}

fn value(info: &str, field: &str) -> String {
    let mut values = info
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.next().unwrap_or_default().to_string()
}

/// The process ids of a process's children.
pub fn children_of(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let children = tasks.filter_map(|task| {
        let path = task.ok()?.path().join("children");
        std::fs::read_to_string(path).ok()
    });
    let text: String = children.collect();
    text.split(' ').filter_map(|pid| pid.parse().ok()).collect()
}
