//! Five servers that replicate through proxies, and failures of their links, disks and processes.
//!
//! ```text
//!   server 0 (primary) <── proxy 0 <──┬── server 1
//!                                     ├── server 2
//!                                     └── server 3 <── proxy 3 <── server 4
//! ```
//!
//! Each server announces the port of its proxy, so FAILOVER goes through proxies, too. Servers 1
//! and 3 may be Redis or Valkey.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::disk::Disk;
use crate::common::multibulk;
use crate::common::{Conn, Peer};
use crate::load::Dice;
use crate::nodes::ServerKind;
use crate::proxy::{Fault, Proxy};

pub const SERVERS: usize = 5;
/// The time after which a condition that is not met fails the test, on a machine that others use.
const PATIENCE: Duration = Duration::from_secs(240);
/// The setting `repl-timeout`, in seconds. If a full sync takes longer than [`LONG_SYNC`] because
/// the machine is busy, the test raises the setting, because a child that saves may then be silent
/// for this time.
const REPL_TIMEOUT_S: &str = "2";
const LONG_SYNC: Duration = Duration::from_secs(30);
/// The longest fault in milliseconds, which is longer than `repl-timeout`.
const LONG_MS: u64 = 2500;

/// The size of a value of the ballast, which is the data set that makes a full sync long. The child
/// that saves sleeps once for each value, which takes much longer on a busy machine, so the values
/// are few.
const BALLAST_VALUE: usize = 10_000;

/// The parameters of a run of the chaos test.
pub struct Setup {
    pub seed: u64,
    /// The program (aeris, Redis or Valkey) of the servers 1 and 3.
    pub peer: ServerKind,
    /// The size of the data set that every full sync carries, in megabytes.
    pub ballast_mb: u64,
}

/// A server of the chaos test, its proxy and its disk.
pub struct Member {
    pub kind: ServerKind,
    pub peer: Peer,
    proxy: Proxy,
    disk: Option<Disk>,
    /// The index of the server's primary; `None`: the server is the primary.
    pub upstream: Option<usize>,
    stopped: bool,
}

/// All servers of the chaos test, and a record of what was done to them.
pub struct World {
    pub members: Vec<Member>,
    pub primary: usize,
    pub dice: Dice,
    /// How often each action, such as a cut link or a restart, was taken.
    pub counts: BTreeMap<&'static str, usize>,
    history: Vec<String>,
    began: Instant,
}

/// Settings that differ between the servers.
const OWN: [&[&str]; SERVERS] = [
    &["--appendonly", "yes", "--repl-diskless-sync", "yes"],
    &["--appendonly", "no", "--repl-diskless-sync", "no"],
    &[
        "--appendonly",
        "yes",
        "--repl-diskless-load",
        "swapdb",
        "--replica-ignore-disk-write-errors",
        "yes",
    ],
    &["--appendonly", "no", "--repl-diskless-load", "on-empty-db"],
    &["--appendonly", "no", "--repl-backlog-size", "16kb"],
];

impl Member {
    fn new(at: usize, setup: &Setup) -> Member {
        let kind = match at {
            1 | 3 => setup.peer,
            _ => ServerKind::Aeris,
        };
        let disk = match kind {
            ServerKind::Aeris => Disk::new(&format!("chaos-{at}")),
            _ => None,
        };
        let proxy = Proxy::new();
        let port = proxy.port.to_string();
        // The log of an aeris server is a file whose writes do not fail when its disk fails.
        let log = disk.as_ref().map_or("server.log".into(), Disk::log);
        let log = log.to_string_lossy();
        let mut args: Vec<&str> = vec![
            "--logfile",
            &log,
            "--repl-timeout",
            REPL_TIMEOUT_S,
            "--repl-ping-replica-period",
            "1",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-backlog-size",
            "256kb",
            "--replica-announce-ip",
            "127.0.0.1",
            "--replica-announce-port",
            &port,
            "--appendfsync",
            "everysec",
        ];
        args.extend_from_slice(OWN[at]);
        if setup.ballast_mb > 0 {
            // Without compression and with a delay for each key, a full sync takes seconds.
            args.extend(["--rdbcompression", "no", "--rdb-key-save-delay", "500"]);
        }
        let peer = match kind {
            ServerKind::Aeris => Peer::aeris_with(&args, |command: &mut Command| {
                if let Some(disk) = &disk {
                    let dir = command.get_current_dir().map(PathBuf::from);
                    disk.prepare(command, &dir.expect("it has its directory"));
                }
            }),
            _ => kind.start(&args).expect("it is installed"),
        };
        proxy.lead_to(peer.port);
        Member {
            kind,
            peer,
            proxy,
            disk,
            upstream: None,
            stopped: false,
        }
    }

    pub fn conn(&self) -> Conn {
        Conn::new(self.peer.port)
    }

    /// The reply to a command; empty if the server has ended.
    pub fn line(&self, line: &str) -> String {
        let conn = Conn::try_new(self.peer.port, PATIENCE);
        conn.and_then(|mut c| c.try_line(line)).unwrap_or_default()
    }

    /// The value of a field of INFO; empty if there is no such field.
    pub fn info(&self, field: &str) -> String {
        let text = self.line("INFO everything");
        let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_string());
        text.lines().find_map(value).unwrap_or_default()
    }

    fn offset(&self) -> u64 {
        self.info("master_repl_offset").parse().unwrap_or(0)
    }

    fn log(&self) -> String {
        let path = self.disk.as_ref().map_or("server.log".into(), Disk::log);
        let log = std::fs::read(self.peer.dir().join(path)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.peer.pid() as i32);
        nix::sys::signal::kill(pid, signal).expect("it runs");
    }

    /// The process ids of the server's children, which save snapshots or an AOF.
    fn children(&self) -> Vec<i32> {
        let pid = self.peer.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

impl World {
    pub fn new(setup: &Setup) -> World {
        let members = (0..SERVERS).map(|at| Member::new(at, setup));
        let mut world = World {
            members: members.collect(),
            primary: 0,
            dice: Dice(setup.seed),
            counts: BTreeMap::new(),
            history: Vec::new(),
            began: Instant::now(),
        };
        world.fill(setup.ballast_mb);
        for at in 1..SERVERS {
            world.follow(at, if at == 4 { 3 } else { 0 });
        }
        world
    }

    /// Gives the primary a data set of this size in megabytes.
    fn fill(&mut self, megabytes: u64) {
        let mut c = self.members[self.primary].conn();
        let value = "x".repeat(BALLAST_VALUE);
        let count = 1_000_000 / BALLAST_VALUE;
        for batch in 0..megabytes {
            let sets =
                (0..count).map(|n| multibulk(&["SET", &format!("ballast:{batch}:{n}"), &value]));
            c.send(&sets.collect::<Vec<_>>().concat());
            (0..count).for_each(|_| assert_eq!(c.reply(), b"+OK\r\n"));
        }
    }

    /// Counts an action, and records it for the report of a failed test.
    fn note(&mut self, action: &'static str, what: &str) {
        *self.counts.entry(action).or_default() += 1;
        let at = self.began.elapsed().as_secs_f64();
        self.history.push(format!("{at:8.3} {action} {what}"));
    }

    fn report(&self) -> String {
        let mut text = self.history[self.history.len().saturating_sub(40)..].join("\n");
        for (at, member) in self.members.iter().enumerate() {
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(60)..].join("\n");
            text.push_str(&format!(
                "\n--- server {at}, {:?}, port {}\n{end}",
                member.kind, member.peer.port
            ));
        }
        text
    }

    /// Waits until `condition` is true, and starts servers again that end meanwhile.
    fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&mut World) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            self.revive();
            assert!(began.elapsed() < PATIENCE, "{what}: it does not happen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn follow(&mut self, at: usize, upstream: usize) {
        let port = self.members[upstream].proxy.port;
        self.members[at].upstream = Some(upstream);
        let request = format!("REPLICAOF 127.0.0.1 {port}");
        self.wait_for("it follows", |world| {
            world.members[at].line(&request).starts_with("+OK")
        });
    }

    fn any_replica(&mut self) -> usize {
        loop {
            let at = self.dice.below(SERVERS as u64) as usize;
            if at != self.primary {
                return at;
            }
        }
    }

    fn sleep(&mut self, max_ms: u64) {
        let ms = 50 + self.dice.below(max_ms);
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// Starts servers that have ended; a replica ends by itself when it can't write to its disk.
    fn revive(&mut self) {
        for at in 0..SERVERS {
            if !self.members[at].peer.alive() {
                self.note("ended", &at.to_string());
                let log = self.members[at].log();
                let ended = log.rfind("Replica was unable to write command to disk");
                let started = log.rfind("just started").expect("it has started");
                assert!(
                    ended.is_some_and(|ended| ended > started),
                    "server {at} has crashed"
                );
                self.start(at);
            }
        }
    }

    /// Ends a server with SHUTDOWN, which is refused while the first base of an AOF is written.
    fn shut_down(&mut self, at: usize, how: &str) {
        self.wait_for("SHUTDOWN is accepted", |world| {
            world.members[at].conn().try_line(how).is_none()
        });
        self.members[at].peer.wait();
    }

    /// Starts a server that has ended, with the role that it had.
    fn start(&mut self, at: usize) {
        let replicaof = match self.members[at].upstream {
            Some(upstream) => format!("127.0.0.1 {}", self.members[upstream].proxy.port),
            None => "no one".to_string(),
        };
        let member = &mut self.members[at];
        member.peer.start_again(&["--replicaof", &replicaof]);
    }

    /// Causes one failure of a link, disk or process, chosen at random.
    pub fn disturb(&mut self) {
        let (any, replica) = (self.dice.below(SERVERS as u64) as usize, self.any_replica());
        let names = format!("{any}/{replica}");
        match self.dice.below(15) {
            0 => self.fail_link("cut", any, Fault::Cut),
            1 => self.fail_link("refuse", any, Fault::Refuse),
            2 => self.fail_link("half-open", any, Fault::HalfOpen),
            3 => self.fail_link("no requests", any, Fault::NoRequests),
            4 => self.fail_link("no replies", any, Fault::NoReplies),
            5 => self.fail_link("delay", any, Fault::Delay(20)),
            6 => self.fail_link("throttle", any, Fault::Throttle(20)),
            7 => {
                self.note("kill replica", &names);
                self.members[replica].peer.kill();
                self.sleep(500);
                self.start(replica);
            }
            8 => {
                self.note("shutdown replica", &names);
                let how = ["SHUTDOWN SAVE", "SHUTDOWN NOSAVE"][any % 2];
                self.shut_down(replica, how);
                self.start(replica);
            }
            9 => self.stop("stop replica", replica),
            10 => self.stop("stop primary", self.primary),
            11 => self.kill_children(any),
            12 => self.fail_disk("no fork", any, "fork-eagain"),
            13 => self.fail_disk("full disk", replica, "write-enospc"),
            _ => self.move_replica(replica),
        }
        self.sleep(300);
        self.revive();
    }

    fn fail_link(&mut self, action: &'static str, at: usize, fault: Fault) {
        self.note(action, &at.to_string());
        self.members[at].proxy.fail(fault);
        if fault != Fault::Cut {
            self.sleep(LONG_MS);
            self.members[at].proxy.heal();
        }
    }

    fn stop(&mut self, action: &'static str, at: usize) {
        self.note(action, &at.to_string());
        self.members[at].stopped = true;
        self.members[at].signal(nix::sys::signal::Signal::SIGSTOP);
        self.sleep(LONG_MS);
        self.resume(at);
    }

    fn resume(&mut self, at: usize) {
        if std::mem::take(&mut self.members[at].stopped) {
            self.members[at].signal(nix::sys::signal::Signal::SIGCONT);
        }
    }

    /// Kills the saving child of a server, which may be creating the snapshot for a replica.
    fn kill_children(&mut self, at: usize) {
        self.note("kill child", &at.to_string());
        self.members[at].line("BGSAVE");
        self.members[self.primary].proxy.fail(Fault::Cut);
        for pid in self.members[at].children() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    fn fail_disk(&mut self, action: &'static str, at: usize, how: &str) {
        let Some(disk) = &self.members[at].disk else {
            return;
        };
        disk.fail(how);
        self.note(action, &at.to_string());
        self.members[at].line("BGREWRITEAOF");
        self.members[at].proxy.fail(Fault::Cut);
        self.sleep(1000);
        if let Some(disk) = &self.members[at].disk {
            disk.recover();
        }
    }

    /// Gives a replica another primary, one that does not replicate from this replica.
    fn move_replica(&mut self, at: usize) {
        let to = self.dice.below(SERVERS as u64) as usize;
        let mut up = Some(to);
        while let Some(next) = up {
            if next == at {
                return;
            }
            up = self.members[next].upstream;
        }
        self.note("move", &format!("{at} to {to}"));
        self.follow(at, to);
    }

    /// Ends all failures, and waits until all links work and all servers follow the primary's
    /// history.
    pub fn heal(&mut self) {
        for at in 0..SERVERS {
            self.members[at].proxy.heal();
            self.resume(at);
        }
        self.revive();
        let began = Instant::now();
        let mut is_busy = false;
        self.wait_for("all links are up", |world| {
            if !is_busy && began.elapsed() > LONG_SYNC {
                is_busy = true;
                world.set_repl_timeout("60");
            }
            let mut replicas = world.members.iter().filter(|m| m.upstream.is_some());
            replicas.all(|m| m.info("master_link_status") == "up")
        });
        if is_busy {
            self.set_repl_timeout(REPL_TIMEOUT_S);
        }
    }

    fn set_repl_timeout(&self, seconds: &str) {
        for member in &self.members {
            member.line(&format!("CONFIG SET repl-timeout {seconds}"));
        }
    }

    /// Waits until all servers have the same data. No client may write while `settle` waits.
    pub fn settle(&mut self) {
        self.heal();
        self.wait_for("all have the same data", |world| {
            // The offsets are compared before the digests: the digests of a large data set take
            // longer than the time between two PINGs, which increase the offsets.
            let end = world.members[world.primary].offset();
            if world.members.iter().any(|m| m.offset() != end) {
                return false;
            }
            let members = world.members.iter();
            let digests: Vec<String> = members.map(|m| m.line("DEBUG DIGEST")).collect();
            digests.iter().all(|digest| *digest == digests[0])
        });
    }

    /// Does a FAILOVER to a direct replica of the primary. Returns whether the roles have changed.
    pub fn fail_over(&mut self) -> bool {
        let old = self.primary;
        let direct: Vec<usize> = (0..SERVERS)
            .filter(|&at| self.members[at].upstream == Some(old))
            .collect();
        if direct.is_empty() {
            return false;
        }
        let new = direct[self.dice.below(direct.len() as u64) as usize];
        self.note("FAILOVER", &format!("{old} to {new}"));
        let port = self.members[new].proxy.port;
        let request = format!("FAILOVER TO 127.0.0.1 {port} TIMEOUT 5000");
        // A replica's link is up before its primary has its first acknowledgement, so FAILOVER may
        // come too early.
        self.wait_for("FAILOVER is accepted", |world| {
            let reply = world.members[old].line(&request);
            let early = reply == "-ERR FAILOVER target replica is not online.\r\n";
            assert!(early || reply == "+OK\r\n", "{reply}");
            !early
        });
        self.wait_for("the failover is over", |world| {
            world.members[old].info("master_failover_state") == "no-failover"
        });
        if self.members[old].info("role") == "master" {
            return false; // the failover was aborted
        }
        assert_eq!(self.members[new].info("role"), "master");
        self.members[old].upstream = Some(new);
        self.members[new].upstream = None;
        self.primary = new;
        true
    }

    /// Kills the primary, and promotes the replica with the longest history.
    pub fn promote(&mut self) -> usize {
        let old = self.primary;
        self.members[old].peer.kill();
        let replicas = (0..SERVERS).filter(|&at| at != old);
        let new = replicas
            .max_by_key(|&at| self.members[at].offset())
            .expect("some");
        self.note("promotion", &format!("{old} to {new}"));
        assert_eq!(self.members[new].line("REPLICAOF NO ONE"), "+OK\r\n");
        self.members[new].upstream = None;
        self.primary = new;
        for at in 0..SERVERS {
            // Replicas of the promoted server stay; all other servers become its replicas.
            if at != new && at != old && self.members[at].upstream != Some(new) {
                self.follow(at, new);
            }
        }
        self.members[old].upstream = Some(new);
        self.start(old);
        old
    }

    /// Ends the primary by SHUTDOWN or SIGKILL, and starts it again with its AOF.
    pub fn restart_primary(&mut self, graceful: bool) {
        let at = self.primary;
        match graceful {
            true => self.shut_down(at, "SHUTDOWN"),
            false => self.members[at].peer.kill(),
        }
        self.note(if graceful { "restart" } else { "crash" }, &at.to_string());
        self.start(at);
    }

    /// Whether the primary is an aeris with an AOF, so that a restart keeps all acknowledged
    /// writes. Redis and Valkey reply before their AOF has the write if an fsync is running.
    pub fn primary_has_aof(&self) -> bool {
        let primary = &self.members[self.primary];
        primary.kind == ServerKind::Aeris && primary.line("CONFIG GET appendonly").contains("yes")
    }
}
