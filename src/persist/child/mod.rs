//! The forked child, which saves or sends the data set. There is at most one child, which has the
//! data set as it was at the fork.
//!
//! ```text
//!   parent                                     child (a copy; pages are shared until one side writes)
//!     forecast: what may it cost?
//!     fork ──────────────────────────────────> own signals, title, oom score; listeners and clients closed
//!                                            it gives way: lower priority, or cores of its own, and
//!                                            pauses while the server waits for a processor (pauses.rs)
//!     no resize, no LRU writes: they would        body(server, pipe): writes a file, or to replicas
//!     copy pages for nothing                       |
//!     report_handler  <──────────── pipe ─────── keys and bytes done, memory copied (report.rs)
//!     end of the pipe: waitpid ─> done handler   _exit(code)
//!     cron: start_next (wishes.rs)
//! ```
//!
//! A child that hangs, for instance in a file system that doesn't respond, would prevent any other
//! child, as there is only one at a time. So a child that reports no progress for
//! `child-stall-timeout` is killed. Only the time during which this process ran counts, so that no
//! child is killed after a machine's sleep.
//!
//! **Invariant:** a child ends in [`fork::exit_now`], never by returning: otherwise two processes
//! would run the loop on the same sockets (`start` has no path out of the child).
//! **Invariant:** while `server.child` is set, tables are not resized and accesses are not recorded
//! in keys (`tests::while_a_child_lives_nothing_moves`).

mod forecast;
mod pauses;
pub mod report;
pub mod wishes;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use ae::{Class, EventLoop, Io, Mask, Token};

use crate::config::Teach;
use crate::ds::hashtable::{ResizePolicy, set_resize_policy};
use crate::observe::logging;
use crate::observe::trace::event as trace;
use crate::state::Server;
use crate::sys;
use crate::sys::fork::{self, Exit, Forked};
use crate::sys::instant::Instant;
use crate::sys::tape::{self, Input};
use crate::sys::{process, ticks, title};

pub use self::forecast::Forecast;
use self::report::Reports;
pub use self::report::{Meter, Pipe, Progress};
pub use self::wishes::{Wish, start_next};

/// The purpose of a child: to save the data set, to rewrite the AOF, or to send slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildKind {
    /// The child saves a snapshot (BGSAVE, save points), or sends the data set to replicas.
    Rdb,
    /// The child writes the base of an AOF (BGREWRITEAOF).
    Aof,
    /// The child sends the keys of slots that move to another node.
    Slots,
}

const KINDS: usize = 3;

impl ChildKind {
    /// The title of the child's process, which `ps` shows.
    fn title(self) -> &'static str {
        match self {
            ChildKind::Rdb => "redis-rdb-bgsave",
            ChildKind::Aof => "redis-aof-rewrite",
            ChildKind::Slots => "redis-slot-migration",
        }
    }

    /// The name of the child in log lines.
    fn name(self) -> &'static str {
        match self {
            ChildKind::Rdb => "RDB",
            ChildKind::Aof => "AOF rewrite",
            ChildKind::Slots => "slot migration",
        }
    }
}

/// The destination of the bytes that a child writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Disk,
    /// The bytes go to replicas, by a pipe to the server or by the replicas' sockets; no file is
    /// written.
    Replicas,
}

/// The work of a child: its kind, its target and its sockets.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub kind: ChildKind,
    pub target: Target,
    /// The sockets that the child uses; the child closes all other sockets.
    pub keep: &'a [RawFd],
}

impl Job<'_> {
    /// The work of a child that writes a file.
    pub fn to_disk(kind: ChildKind) -> Self {
        Job {
            kind,
            target: Target::Disk,
            keep: &[],
        }
    }
}

/// The running child, as the parent sees it.
pub struct Child {
    pub kind: ChildKind,
    pub target: Target,
    pub pid: i32,
    /// The Unix time of the fork in milliseconds.
    pub started_ms: i64,
    pub progress: Progress,
    /// The number of keys at the fork.
    pub keys_total: u64,
    /// The Unix time of the child's last report in milliseconds.
    reported_ms: i64,
    reports: Reports,
    /// The registration of the child's pipe in the event loop; `None` if the cron polls the pipe.
    token: Option<Token>,
    stall: Stall,
}

/// What the server keeps about children apart from the running one: figures of past children, the
/// forecast for the next child, and the queue of requests (wishes).
#[derive(Default)]
pub struct Forks {
    /// The pipes of children that have ended, which are still registered in the loop. The function
    /// [`watch`] closes the pipes of children that have ended.
    retired: Vec<(Reports, Token)>,
    pub forecast: Forecast,
    history: forecast::History,
    pub wishes: wishes::Wishes,
    /// The callbacks of replication, which `Server::configure` sets.
    pub replication: Option<ReplicationHooks>,
    /// The callbacks of the moves of slots, which `Server::configure` sets.
    pub slots: Option<SlotHooks>,
}

/// Callbacks of replication, which this module can't import: replication is a higher layer.
#[derive(Clone, Copy)]
pub struct ReplicationHooks {
    /// Starts the child that a [`Wish::Sync`] requests, with a target that replication chooses.
    /// Returns false if no child can be started now; the request then stays in the queue.
    pub start: fn(&mut Server) -> bool,
    /// Called when a child of kind `Rdb` has ended, whatever its target was: replicas may also wait
    /// for a snapshot's file. The handler for the file (`rdb::background_save_done`) has run
    /// before. A pipe to replicas may still have unread bytes.
    pub ended: fn(&mut Server, &Outcome),
}

/// Callbacks of the moves of slots, which this module can't import: they are in a higher layer.
#[derive(Clone, Copy)]
pub struct SlotHooks {
    /// Starts the child that a [`Wish::Slots`] requests. Returns false if no child can be started
    /// now; the request then stays in the queue.
    pub start: fn(&mut Server) -> bool,
    /// Called when a child of kind `Slots` has ended.
    pub ended: fn(&mut Server, &Outcome),
}

/// The result of a child that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub pid: i32,
    pub target: Target,
    pub exit: Exit,
    /// The bytes of memory that were copied because of the child.
    pub cow_bytes: u64,
    /// The duration of the child's work in seconds.
    pub seconds: i64,
    /// Bit n is set if the n-th socket to which the child wrote did not get all bytes.
    pub failed_sockets: u64,
}

impl Outcome {
    /// Whether the child exited without an error.
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Whether the child ended because the parent sent it a signal, which is neither an error nor a
    /// success.
    pub fn was_asked_to_end(&self) -> bool {
        matches!(
            self.exit,
            Exit::Code(fork::ASKED_TO_END) | Exit::Signal(libc::SIGUSR1)
        )
    }
}

/// Measures for how long the child has not reported progress.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Stall {
    silent_ms: i64,
    looked_ms: i64,
    killed: bool,
}

/// The maximum time, in milliseconds, that one check adds to the time without a report. A longer
/// interval between two checks is a sleep of the machine or a change of the clock.
const LOOK_MAX_MS: i64 = 1000;

impl Stall {
    /// Whether the child must be killed, because it has reported nothing for `timeout_s` seconds;
    /// with a `timeout_s` of 0, never.
    fn look(&mut self, now_ms: i64, reported: bool, timeout_s: u32) -> bool {
        let passed_ms = (now_ms - self.looked_ms).clamp(0, LOOK_MAX_MS);
        self.looked_ms = now_ms;
        self.silent_ms = if reported {
            0
        } else {
            self.silent_ms + passed_ms
        };
        let stalled = timeout_s > 0 && self.silent_ms >= i64::from(timeout_s) * 1000;
        stalled && !std::mem::replace(&mut self.killed, stalled)
    }
}

/// The number of steps by which the priority of a child is lowered, if the child has no processors
/// of its own. With this lower priority, the child gets about a tenth of a processor that it shares
/// with the server. With the server's priority, clients would wait for the child's time slices. A
/// child that sends the data set to replicas keeps its priority: until a replica has the data,
/// there is only one copy of it, and the primary must keep the replication stream. With a lower
/// priority, the transfer would take many times longer on a busy machine. The child's pauses
/// (`pauses`) give the server time.
const GIVE_WAY: i32 = 10;

/// Forks, and runs `body` in the child; an `Err` of `body` is the exit code. The parent returns at
/// once, with the child's pid. If a child runs already, that is an error.
pub fn start(
    server: &mut Server,
    job: Job,
    body: impl FnOnce(&mut Server, &Pipe) -> Result<(), i32>,
) -> io::Result<i32> {
    if server.child.is_some() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    forecast::log_forecast(server, job.kind);
    let (from_child, to_parent) = io::pipe()?;
    sys::set_nonblocking(&from_child)?;
    let (began, began_ticks) = (Instant::now(), ticks::now());
    let forked = match tape::replays() {
        true => Forked::Parent(0),
        false => fork::fork().inspect_err(|_| tape::not_recorded("a failed fork"))?,
    };
    match forked {
        Forked::Child => {
            tape::leave();
            drop(from_child);
            enter_child(server, job);
            let pipe = Pipe::new(to_parent, fork::parent());
            let code = match body(server, &pipe) {
                Ok(()) => {
                    pipe.finish(job.kind.name());
                    0
                }
                Err(code) => code,
            };
            fork::exit_now(code)
        }
        Forked::Parent(pid) => {
            let pid = tape::number(Input::Fact, || pid as u64) as i32;
            note_fork(server, began.elapsed());
            server.traced(trace::EventKind::Fork, began_ticks, pid as u64);
            server.child = Some(Child::new(server, job, pid, Reports::new(from_child)));
            follow_child(server);
            if server.debug.stops_after_fork() {
                process::stop();
            }
            Ok(pid)
        }
    }
}

impl Child {
    fn new(server: &Server, job: Job, pid: i32, reports: Reports) -> Child {
        Child {
            kind: job.kind,
            target: job.target,
            pid,
            started_ms: server.clock.now_ms,
            progress: Progress::default(),
            keys_total: server.data.len() as u64,
            reported_ms: server.clock.now_ms,
            reports,
            token: None,
            stall: Stall {
                looked_ms: server.clock.now_ms,
                ..Stall::default()
            },
        }
    }

    /// The percentage of keys that the child has processed.
    pub fn percent(&self) -> f64 {
        match self.keys_total {
            0 => 0.0,
            total => self.progress.keys as f64 * 100.0 / total as f64,
        }
    }

    /// The number of seconds since the child's last report.
    pub fn report_age_s(&self, now_ms: i64) -> i64 {
        match self.progress.cow_peak {
            0 => 0,
            _ => (now_ms - self.reported_ms) / 1000,
        }
    }

    /// Reads the reports that the child has sent through its pipe. Returns whether there was a new
    /// report.
    fn read_reports(&mut self, now_ms: i64) -> bool {
        let Some(progress) = self.reports.read() else {
            return false;
        };
        self.progress = progress;
        self.reported_ms = now_ms;
        true
    }

    /// Kills a child that makes no progress. [`reap`] handles the child's end later.
    fn kill_if_stalled(&mut self, now_ms: i64, reported: bool, timeout_s: u32) {
        if self.stall.look(now_ms, reported, timeout_s) {
            log::warn!(
                "The {} child {} has reported no progress for {timeout_s} seconds (child-stall-timeout). Killing it!",
                self.kind.name(),
                self.pid
            );
            fork::kill(self.pid);
        }
    }
}

/// Called first in a child: gives it its own title, signals, sockets and priority.
fn enter_child(server: &mut Server, job: Job) {
    let kind = job.kind;
    logging::set_role(logging::Role::Child);
    fork::set_up_child_signals();
    fork::close_sockets(job.keep);
    if let Some(member) = &mut server.cluster {
        member.close_lock_in_child();
    }
    set_resize_policy(ResizePolicy::Forbid);
    server.evict.freeze(true);
    if server.config.set_proc_title {
        title::set(&server.config.process_title(kind.title()));
    }
    if let Err(reason) = server.apply_oom_score_of_child() {
        log::warn!("{reason}");
    }
    let cpus = match kind {
        ChildKind::Rdb | ChildKind::Slots => &server.config.bgsave_cpulist,
        ChildKind::Aof => &server.config.aof_rewrite_cpulist,
    };
    if cpus.is_empty() && job.target == Target::Disk {
        process::give_way(GIVE_WAY);
    } else if !cpus.is_empty() {
        // An error is ignored: if the machine does not have these processors, the child runs on
        // any.
        let _ = process::set_cpu_affinity(&cpus.to_str_lossy());
    }
}

fn note_fork(server: &mut Server, took: Duration) {
    server.stats.forks += 1;
    server.stats.latest_fork_us = took.as_micros() as u64;
    let now_s = server.clock.now_s();
    server
        .latency
        .add_if_needed("fork", took.as_millis() as u64, now_s);
}

/// Allows hash tables to be resized and accesses of keys to be recorded exactly while there is no
/// child, since these writes would make the system copy pages.
fn follow_child(server: &mut Server) {
    server.evict.freeze(server.child.is_some());
    server.follow_resize_policy();
}

/// Called before the loop sleeps: registers the pipe of a new child, so that the child's end is
/// noticed at once and not by the next cron, and removes the pipe of a child that has ended.
pub fn watch(el: &mut EventLoop<Server>, server: &mut Server) {
    for (reports, token) in server.forks.retired.drain(..) {
        el.remove_file(token);
        drop(reports);
    }
    let Some(child) = server.child.as_mut().filter(|child| child.token.is_none()) else {
        return;
    };
    // If the event loop can't take another file, the cron polls the pipe.
    if let Ok(token) = el.add_file(child.reports.fd(), Class::First, 0) {
        el.set_handler(token, Mask::READABLE, report_handler);
        child.token = Some(token);
    }
}

/// Called when the child has reported or ended. In a nested turn a command is only partly executed,
/// so the end of the child is handled later, by the cron.
fn report_handler(_: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    if !server.is_nested() {
        reap(server);
    }
    // The pipe may end a moment before the child's process: then the handler is called again.
    let ending = |child: &Child| child.token == Some(token) && child.reports.ended;
    match server.child.as_ref().is_some_and(ending) && !server.is_nested() {
        true => Io::More,
        false => Io::Drained,
    }
}

/// Called by the cron and the pipe's handler: reads the child's reports. If the child has ended,
/// its result is handled.
pub fn reap(server: &mut Server) {
    server.sample_writes();
    let now_ms = server.clock.now_ms;
    let Some(child) = &mut server.child else {
        return;
    };
    let reported = child.read_reports(now_ms);
    if let Some(exit) = fork::try_wait(child.pid) {
        done(server, exit);
    } else {
        child.kill_if_stalled(now_ms, reported, server.config.child_stall_timeout);
    }
}

fn done(server: &mut Server, exit: Exit) {
    let began = ticks::now();
    let now_ms = server.clock.now_ms;
    let Some(mut child) = server.child.take() else {
        return;
    };
    child.read_reports(now_ms);
    let kind = child.kind;
    let ms = (now_ms - child.started_ms).max(0);
    server.forks.history.last[kind as usize] = Some(Duration::from_millis(ms as u64));
    let outcome = Outcome {
        pid: child.pid,
        target: child.target,
        exit,
        cow_bytes: child.progress.cow_peak,
        seconds: ms / 1000,
        failed_sockets: child.progress.failed_sockets,
    };
    let retired = child.token.map(|token| (child.reports, token));
    server.forks.retired.extend(retired);
    follow_child(server);
    match kind {
        ChildKind::Rdb => {
            super::rdb::background_save_done(server, outcome);
            if let Some(hooks) = server.forks.replication {
                (hooks.ended)(server, &outcome);
            }
        }
        ChildKind::Aof => super::aof::rewrite_done(server, outcome),
        ChildKind::Slots => {
            if let Some(hooks) = server.forks.slots {
                (hooks.ended)(server, &outcome);
            }
        }
    }
    server.traced(trace::EventKind::ChildEnd, began, outcome.pid as u64);
}

/// Sends the running child the signal to end, if the child is of the kind `kind`. [`reap`] handles
/// the child's end later.
pub fn kill(server: &mut Server, kind: ChildKind) {
    if let Some(child) = server.child.as_ref().filter(|child| child.kind == kind) {
        log::info!("Killing running {} child: {}", child.kind.name(), child.pid);
        fork::end(child.pid);
    }
}

/// Sends the running child the signal to end, if the child is of the kind `kind`, waits until the
/// child has ended, and handles its result.
pub fn kill_and_wait(server: &mut Server, kind: ChildKind) {
    kill(server, kind);
    if let Some(pid) = server
        .child
        .as_ref()
        .filter(|child| child.kind == kind)
        .map(|c| c.pid)
    {
        let exit = fork::wait(pid);
        done(server, exit);
    }
}

impl Server {
    /// Sets whether the keyspace's tables may be resized. Tables may not be resized while a child
    /// shares their pages, nor when DEBUG forbids it.
    pub fn follow_resize_policy(&mut self) {
        let policy = if self.child.is_some() || self.debug.no_resize {
            ResizePolicy::Avoid
        } else if self.config.teach == Teach::RehashAtOnce {
            ResizePolicy::AtOnce
        } else {
            ResizePolicy::Allow
        };
        set_resize_policy(policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::io::{Read, Write};

    fn server() -> Server {
        Server::new(Config::default(), Vec::new())
    }

    fn reap_until_done(server: &mut Server) {
        while server.child.is_some() {
            std::thread::yield_now();
            reap(server);
        }
    }

    #[test]
    fn while_a_child_lives_nothing_moves() {
        let mut server = server();
        let (mut wait, go) = io::pipe().expect("a pipe");
        let pid = start(&mut server, Job::to_disk(ChildKind::Aof), |_, _| {
            wait.read_exact(&mut [0]).map_err(|_| 2)?;
            Err(3)
        })
        .expect("fork");
        assert!(server.evict.notes_no_access());
        assert!(
            start(&mut server, Job::to_disk(ChildKind::Rdb), |_, _| Ok(())).is_err(),
            "one at a time"
        );
        assert_eq!(server.child.as_ref().map(|child| child.pid), Some(pid));
        (&go).write_all(b"g").expect("tell it");
        reap_until_done(&mut server);
        assert!(!server.evict.notes_no_access());
        assert_eq!(server.stats.forks, 1);
    }

    #[test]
    fn the_last_report_of_a_child_counts() {
        let mut server = server();
        server.child = None;
        start(&mut server, Job::to_disk(ChildKind::Aof), |_, pipe| {
            (0..5).for_each(|_| pipe.key_done());
            Ok(())
        })
        .expect("fork");
        let child = server.child.as_mut().expect("a child");
        let exit = fork::wait(child.pid);
        child.read_reports(1);
        assert_eq!((exit, child.progress.keys), (Exit::Code(0), 5));
        assert!(child.progress.cow_peak > 0);
        done(&mut server, exit);
        assert!(server.child.is_none());
    }

    #[test]
    fn a_child_that_saves_gives_way_unless_it_has_cores_of_its_own() {
        let mut server = server();
        let parent = process::priority();
        let lower = |steps: i32| match process::is_filtered() {
            true => parent,
            false => (parent + steps).min(19),
        };
        let cases = [
            ("", Target::Disk, lower(GIVE_WAY)),
            ("", Target::Replicas, parent),
            ("0", Target::Disk, parent),
        ];
        for (cpus, target, priority) in cases {
            server.config.bgsave_cpulist = cpus.into();
            let job = Job {
                target,
                ..Job::to_disk(ChildKind::Rdb)
            };
            start(&mut server, job, |_, _| Err(process::priority() + 20)).expect("fork");
            let exit = fork::wait(server.child.take().expect("a child").pid);
            assert_eq!(exit, Exit::Code(priority + 20), "{target:?} on {cpus:?}");
        }
    }

    #[test]
    fn a_killed_child_is_no_error() {
        let mut server = server();
        start(&mut server, Job::to_disk(ChildKind::Aof), |_, _| {
            loop {
                std::thread::park();
            }
        })
        .expect("fork");
        kill_and_wait(&mut server, ChildKind::Rdb);
        assert!(
            server.child.is_some(),
            "a child of another kind is left alone"
        );
        kill_and_wait(&mut server, ChildKind::Aof);
        assert!(server.child.is_none());
    }

    #[test]
    fn a_child_without_progress_is_killed() {
        let mut server = server();
        server.config.child_stall_timeout = 2;
        start(&mut server, Job::to_disk(ChildKind::Rdb), |_, pipe| {
            // The child sends one report and then no more, as if it hung.
            pipe.bytes_done(1);
            loop {
                std::thread::park();
            }
        })
        .expect("fork");
        let pid = server.child.as_ref().expect("a child").pid;
        while server.child.is_some() {
            server.clock.now_ms += 500;
            reap(&mut server);
            std::thread::yield_now();
        }
        assert!(server.rdb.failed, "a child that hangs is an error");
        assert_eq!(fork::try_wait(pid), Some(Exit::Signal(libc::SIGKILL)));
    }

    #[test]
    fn only_time_in_which_the_parent_looked_counts_as_a_stall() {
        let mut stall = Stall::default();
        let mut looks = |ms, reported| stall.look(ms, reported, 3);
        assert!(!looks(1000, false));
        assert!(!looks(90_000_000, false), "asleep for a day: one second");
        assert!(!looks(90_000_900, true), "a report");
        assert!(!looks(90_001_800, false));
        assert!(!looks(80_000_000, false), "the clock was set back");
        assert!(!looks(80_001_000, false));
        assert!(!looks(80_002_000, false));
        assert!(looks(80_003_000, false));
        assert!(!looks(80_004_000, false), "once");
        let mut off = Stall::default();
        assert!(!(1..10_000).any(|second| off.look(second * 1000, false, 0)));
    }
}
