//! The forked child: one at a time, with the data set as it was at the fork.
//!
//! ```text
//!   parent                                     child (a copy; pages are shared until one side writes)
//!     forecast: what may it cost?
//!     fork ──────────────────────────────────> own signals, title, oom score; listeners and clients closed
//!                                            it gives way: lower priority, or cores of its own
//!     no resize, no LRU writes: they would        body(server, pipe): writes a file
//!     copy pages for nothing                       |
//!     report_handler  <──────────── pipe ─────── keys done, memory copied
//!     end of the pipe: waitpid ─> done handler   _exit(code)
//! ```
//!
//! A report is 24 bytes, far below what a pipe takes as one piece: keys done, bytes copied now, the
//! most so far.
//!
//! The forecast is what an operator needs to know before memory runs out: a fork copies the page
//! tables at once, and every page that is written while the child lives. The number of pages is
//! estimated from the rate of writes and the time that the last child of this kind took; a page for
//! each write is the worst case, and it can't be more than all pages.
//!
//! **Invariant:** a child ends in [`fork::exit_now`], never by returning: two processes would run
//! the loop on the same sockets (`start` has no path out of the child).
//! **Invariant:** while `server.child` is set, tables don't move and accesses leave no trace
//! (`tests::while_a_child_lives_nothing_moves`).

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ae::{Class, EventLoop, Io, Mask, Token};

use crate::ds::hashtable::{ResizePolicy, set_resize_policy};
use crate::observe::logging;
use crate::state::Server;
use crate::sys;
use crate::sys::fork::{self, Exit, Forked};
use crate::sys::{allocator, process, title};
use crate::util::byte_size::format_bytes_human;

/// The purpose of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// BGSAVE and its like.
    Rdb,
    /// BGREWRITEAOF.
    Aof,
}

const KINDS: usize = 2;

impl Kind {
    /// The child's name in `ps`.
    fn title(self) -> &'static str {
        match self {
            Kind::Rdb => "redis-rdb-bgsave",
            Kind::Aof => "redis-aof-rewrite",
        }
    }

    /// As its log lines call it.
    fn name(self) -> &'static str {
        match self {
            Kind::Rdb => "RDB",
            Kind::Aof => "AOF rewrite",
        }
    }
}

/// The running child, as the parent sees it.
pub struct Child {
    pub kind: Kind,
    pub pid: i32,
    /// Unix time in milliseconds.
    pub started_ms: i64,
    pub progress: Progress,
    /// Keys that there were at the fork.
    pub keys_total: u64,
    /// The parent has sent it the signal to end.
    pub killed: bool,
    /// When the last report came.
    reported_ms: i64,
    pipe: PipeReader,
    /// The pipe's registration in the loop; `None`: the cron polls it.
    token: Option<Token>,
    /// The pipe has ended: so has the child, or it is about to.
    silent: bool,
    /// The beginning of a report whose rest is still to come.
    partial: Vec<u8>,
}

/// A child's report.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Progress {
    pub keys: u64,
    /// Bytes copied, at the moment of the report.
    pub cow_bytes: u64,
    /// The most that it was.
    pub cow_peak: u64,
}

/// Figures of children that ended, and the forecast for the next one.
#[derive(Default)]
pub struct Forks {
    /// Pipes of children that ended, still registered in the loop; closed by [`watch`].
    retired: Vec<(PipeReader, Token)>,
    /// How long the last child of each kind ran.
    last: [Option<Duration>; KINDS],
    pub forecast: Forecast,
    /// Changes per second, a moving average.
    writes_per_s: f64,
    sampled_ms: i64,
    sampled_dirty: u64,
}

/// What a fork may cost, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// Copied before fork returns, while no client is served.
    pub page_tables: u64,
    /// Copied while the child lives, at most.
    pub copied: u64,
    /// What the system has left; `None`: it doesn't say.
    pub available: Option<u64>,
}

impl Forecast {
    /// Memory would not hold it.
    pub fn too_much(&self) -> bool {
        let wanted = self.page_tables.saturating_add(self.copied);
        self.available.is_some_and(|available| wanted > available)
    }
}

/// How a child ended, for its done handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub pid: i32,
    pub exit: Exit,
    /// Bytes of memory that were copied because of it.
    pub cow_bytes: u64,
    /// Seconds that it took.
    pub seconds: i64,
}

impl Outcome {
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// The parent ended it by a signal: no error, and no result.
    pub fn was_told_to_go(&self) -> bool {
        matches!(
            self.exit,
            Exit::Code(fork::TOLD_TO_GO) | Exit::Signal(libc::SIGUSR1)
        )
    }
}

/// The child's end of the pipe.
pub struct Pipe {
    kind: Kind,
    to: PipeWriter,
    progress: Progress,
    next_report: Instant,
    pause: Duration,
}

/// A report is due after `KEYS_PER_LOOK` keys, if at least `REPORT_EVERY` has passed since the last
/// one.
const KEYS_PER_LOOK: u64 = 1024;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Asking how much was copied takes long in a big process: at most this share of the child's time.
const REPORT_SHARE: u32 = 100;
const REPORT_BYTES: usize = 24;
/// A child without cores of its own is nicer than its parent by `GIVE_WAY` steps: it gets some ten
/// times less of a core that both want. Where client, server and child share two cores, clients
/// otherwise wait for the child's time slices.
const GIVE_WAY: i32 = 10;

impl Pipe {
    fn new(kind: Kind, to: PipeWriter) -> Pipe {
        Pipe {
            kind,
            to,
            progress: Progress::default(),
            next_report: Instant::now() + REPORT_EVERY,
            pause: REPORT_EVERY,
        }
    }

    /// One more key is done; from time to time a report goes to the parent.
    #[inline]
    pub fn key_done(&mut self) {
        self.progress.keys += 1;
        if self.progress.keys.is_multiple_of(KEYS_PER_LOOK) {
            self.report_if_due();
        }
    }

    /// For work without keys, or with few big ones.
    pub fn report_if_due(&mut self) {
        if Instant::now() >= self.next_report {
            self.report();
            self.next_report = Instant::now() + self.pause;
        }
    }

    fn report(&mut self) {
        let began = Instant::now();
        self.progress.cow_bytes = fork::private_dirty_bytes();
        self.progress.cow_peak = self.progress.cow_peak.max(self.progress.cow_bytes);
        self.pause = REPORT_EVERY.max(began.elapsed() * REPORT_SHARE);
        if self.to.write_all(&self.progress.to_bytes()).is_err() {
            // The parent is gone, so the result is of no use.
            log::warn!("Child failed reporting info to parent, exiting.");
            fork::exit_now(1);
        }
    }

    /// The last words before a good end.
    fn finish(&mut self) {
        self.report();
        let mb = |bytes: u64| bytes >> 20;
        log::info!(
            "Fork CoW for {}: current {} MB, peak {} MB, average {} MB",
            self.kind.name(),
            mb(self.progress.cow_bytes),
            mb(self.progress.cow_peak),
            mb((self.progress.cow_bytes + self.progress.cow_peak) / 2),
        );
    }
}

impl Progress {
    fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        for (to, n) in bytes
            .chunks_exact_mut(8)
            .zip([self.keys, self.cow_bytes, self.cow_peak])
        {
            to.copy_from_slice(&n.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Progress> {
        let mut numbers = bytes
            .chunks_exact(8)
            .map(|chunk| chunk.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)));
        Some(Progress {
            keys: numbers.next()?,
            cow_bytes: numbers.next()?,
            cow_peak: numbers.next()?,
        })
    }
}

/// Fork, and run `body` in the child; its `Err` is the exit code. The parent goes on at once. The
/// caller has checked that there is no other child.
pub fn start(
    server: &mut Server,
    kind: Kind,
    body: impl FnOnce(&mut Server, &mut Pipe) -> Result<(), i32>,
) -> io::Result<i32> {
    if server.child.is_some() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    tell_forecast(server, kind);
    let (from_child, to_parent) = io::pipe()?;
    sys::set_nonblocking(&from_child)?;
    let began = Instant::now();
    match fork::fork()? {
        Forked::Child => {
            drop(from_child);
            enter_child(server, kind);
            let mut pipe = Pipe::new(kind, to_parent);
            let code = match body(server, &mut pipe) {
                Ok(()) => {
                    pipe.finish();
                    0
                }
                Err(code) => code,
            };
            fork::exit_now(code)
        }
        Forked::Parent(pid) => {
            note_fork(server, began.elapsed());
            server.child = Some(Child::new(server, kind, pid, from_child));
            follow_child(server);
            Ok(pid)
        }
    }
}

impl Child {
    fn new(server: &Server, kind: Kind, pid: i32, pipe: PipeReader) -> Child {
        Child {
            kind,
            pid,
            started_ms: server.clock.now_ms,
            progress: Progress::default(),
            keys_total: server.dbs.iter().map(|db| db.len() as u64).sum(),
            killed: false,
            reported_ms: server.clock.now_ms,
            pipe,
            token: None,
            silent: false,
            partial: Vec::new(),
        }
    }

    /// How far it is, in percent.
    pub fn percent(&self) -> f64 {
        match self.keys_total {
            0 => 0.0,
            total => self.progress.keys as f64 * 100.0 / total as f64,
        }
    }

    /// Seconds since the last report.
    pub fn report_age_s(&self, now_ms: i64) -> i64 {
        match self.progress.cow_peak {
            0 => 0,
            _ => (now_ms - self.reported_ms) / 1000,
        }
    }

    /// Take what the child has reported.
    fn read_reports(&mut self, now_ms: i64) {
        let mut bytes = [0; 32 * REPORT_BYTES];
        // An error says that there is nothing now, or never will be: the exit status tells which.
        while let Ok(n) = self.pipe.read(&mut bytes) {
            if n == 0 {
                self.silent = true;
                break;
            }
            self.partial.extend_from_slice(&bytes[..n]);
        }
        let whole = self.partial.len() / REPORT_BYTES * REPORT_BYTES;
        let last = self.partial[..whole].chunks_exact(REPORT_BYTES).next_back();
        if let Some(progress) = last.and_then(Progress::from_bytes) {
            self.progress = progress;
            self.reported_ms = now_ms;
        }
        self.partial.drain(..whole);
    }
}

/// The first thing a child does: become a process of its own.
fn enter_child(server: &mut Server, kind: Kind) {
    logging::set_role(logging::Role::Child);
    fork::set_up_child_signals();
    fork::close_sockets(&[]);
    set_resize_policy(ResizePolicy::Forbid);
    server.evict.frozen = true;
    if server.config.set_proc_title {
        title::set(&server.config.process_title(kind.title()));
    }
    if let Err(reason) = server.apply_oom_score_of_child() {
        log::warn!("{reason}");
    }
    let cpus = match kind {
        Kind::Rdb => &server.config.bgsave_cpulist,
        Kind::Aof => &server.config.aof_rewrite_cpulist,
    };
    if cpus.is_empty() {
        process::give_way(GIVE_WAY);
    } else {
        // A list that the machine doesn't have leaves the child where it is.
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

/// Tables may move and accesses may be noted when there is no child.
fn follow_child(server: &mut Server) {
    server.evict.frozen = server.child.is_some();
    server.follow_resize_policy();
}

/// Before the loop sleeps: register the pipe of a new child, so that its end is noticed at once and
/// not by the next cron; take that of an ended one out.
pub fn watch(el: &mut EventLoop<Server>, server: &mut Server) {
    for (pipe, token) in server.forks.retired.drain(..) {
        el.remove_file(token);
        drop(pipe);
    }
    let Some(child) = server.child.as_mut().filter(|child| child.token.is_none()) else {
        return;
    };
    // A loop that is full leaves the pipe to the cron.
    if let Ok(token) = el.add_file(child.pipe.as_raw_fd(), Class::First, 0) {
        el.set_handler(token, Mask::READABLE, report_handler);
        child.token = Some(token);
    }
}

/// The child has reported, or ended. In a nested turn the data set is in the middle of a command,
/// so a done handler has to wait for the cron.
fn report_handler(_: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    if server.nesting == 0 {
        reap(server);
    }
    // Between the end of the pipe and that of the process lies a moment.
    let ending = |child: &Child| child.token == Some(token) && child.silent;
    match server.child.as_ref().is_some_and(ending) && server.nesting == 0 {
        true => Io::More,
        false => Io::Drained,
    }
}

/// From the cron and the pipe's handler: take in what the child reports; if it has ended, let its
/// done handler finish.
pub fn reap(server: &mut Server) {
    server.sample_writes();
    let now_ms = server.clock.now_ms;
    let Some(child) = &mut server.child else {
        return;
    };
    child.read_reports(now_ms);
    if let Some(exit) = fork::try_wait(child.pid) {
        done(server, exit);
    }
}

fn done(server: &mut Server, exit: Exit) {
    let now_ms = server.clock.now_ms;
    let Some(mut child) = server.child.take() else {
        return;
    };
    child.read_reports(now_ms);
    let Child {
        kind,
        pid,
        started_ms,
        progress,
        pipe,
        token,
        ..
    } = child;
    server
        .forks
        .retired
        .extend(token.map(|token| (pipe, token)));
    follow_child(server);
    let ms = (now_ms - started_ms).max(0);
    server.forks.last[kind as usize] = Some(Duration::from_millis(ms as u64));
    let outcome = Outcome {
        pid,
        exit,
        cow_bytes: progress.cow_peak,
        seconds: ms / 1000,
    };
    match kind {
        Kind::Rdb => super::rdb::background_save_done(server, outcome),
        Kind::Aof => super::aof::rewrite_done(server, outcome),
    }
}

/// Sends the child of this kind the signal to end. It is reaped later.
pub fn kill(server: &mut Server, kind: Kind) {
    if let Some(child) = server.child.as_mut().filter(|child| child.kind == kind) {
        log::info!("Killing running {} child: {}", child.kind.name(), child.pid);
        child.killed = true;
        fork::end(child.pid);
    }
}

/// Ends the child as [`kill`] does, and waits until it is gone and its handler has run.
pub fn kill_and_wait(server: &mut Server, kind: Kind) {
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

/// Say in the log and in INFO what the fork may cost.
fn tell_forecast(server: &mut Server, kind: Kind) {
    let seconds = server.forks.last[kind as usize].map_or(0.0, |took| took.as_secs_f64());
    let writes = (server.forks.writes_per_s * seconds) as u64;
    let forecast = Forecast {
        page_tables: fork::page_table_bytes(),
        copied: writes
            .saturating_mul(sys::page_bytes() as u64)
            .min(allocator::resident_bytes() as u64),
        available: fork::available_bytes(),
    };
    server.forks.forecast = forecast;
    let text = format!(
        "Fork forecast for {}: page tables {}, up to {} copied ({:.0} writes/s for {seconds:.0} s), {} available",
        kind.name(),
        format_bytes_human(forecast.page_tables),
        format_bytes_human(forecast.copied),
        server.forks.writes_per_s,
        forecast
            .available
            .map_or("unknown".into(), format_bytes_human),
    );
    if forecast.too_much() {
        log::warn!("WARNING: {text}. Memory may not suffice.");
    } else {
        log::debug!("{text}");
    }
}

impl Server {
    /// How fast the data set changes, looked at once a second.
    fn sample_writes(&mut self) {
        let (now_ms, forks) = (self.clock.now_ms, &mut self.forks);
        let ms = now_ms - forks.sampled_ms;
        if ms < 1000 {
            return;
        }
        if forks.sampled_ms > 0 {
            // A save sets the counter back: what was changed since then is all that is known.
            let changes = self
                .dirty
                .checked_sub(forks.sampled_dirty)
                .unwrap_or(self.dirty);
            let rate = changes as f64 * 1000.0 / ms as f64;
            forks.writes_per_s += (rate - forks.writes_per_s) / 4.0;
        }
        forks.sampled_ms = now_ms;
        forks.sampled_dirty = self.dirty;
    }

    /// Whether the keyspace's tables may move: not while a child shares their pages, nor when DEBUG
    /// forbids it.
    pub fn follow_resize_policy(&mut self) {
        let policy = if self.child.is_some() || self.debug.no_resize {
            ResizePolicy::Avoid
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
        let pid = start(&mut server, Kind::Aof, |_, _| {
            wait.read_exact(&mut [0]).map_err(|_| 2)?;
            Err(3)
        })
        .expect("fork");
        assert!(server.evict.frozen);
        assert!(
            start(&mut server, Kind::Rdb, |_, _| Ok(())).is_err(),
            "one at a time"
        );
        assert_eq!(server.child.as_ref().map(|child| child.pid), Some(pid));
        (&go).write_all(b"g").expect("tell it");
        reap_until_done(&mut server);
        assert!(!server.evict.frozen);
        assert_eq!(server.stats.forks, 1);
    }

    #[test]
    fn the_last_report_of_a_child_counts() {
        let mut server = server();
        server.child = None;
        start(&mut server, Kind::Aof, |_, pipe| {
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
    fn a_child_gives_way_unless_it_has_cores_of_its_own() {
        let mut server = server();
        let parent = process::priority();
        let steps = if process::is_filtered() { 0 } else { GIVE_WAY };
        for (cpus, priority) in [("", (parent + steps).min(19)), ("0", parent)] {
            server.config.bgsave_cpulist = cpus.into();
            start(&mut server, Kind::Rdb, |_, _| Err(process::priority() + 20)).expect("fork");
            let exit = fork::wait(server.child.take().expect("a child").pid);
            assert_eq!(exit, Exit::Code(priority + 20), "on {cpus:?}");
        }
    }

    #[test]
    fn a_killed_child_is_no_error() {
        let mut server = server();
        start(&mut server, Kind::Aof, |_, _| {
            loop {
                std::thread::park();
            }
        })
        .expect("fork");
        kill_and_wait(&mut server, Kind::Rdb);
        assert!(
            server.child.is_some(),
            "a child of another kind is left alone"
        );
        kill_and_wait(&mut server, Kind::Aof);
        assert!(server.child.is_none());
    }

    #[test]
    fn reports_survive_being_torn() {
        let progress = Progress {
            keys: 1 << 40,
            cow_bytes: 7,
            cow_peak: u64::MAX,
        };
        assert_eq!(Progress::from_bytes(&progress.to_bytes()), Some(progress));
        assert_eq!(Progress::from_bytes(&progress.to_bytes()[..23]), None);
    }

    #[test]
    fn a_forecast_warns_when_memory_would_not_hold_it() {
        let forecast = |copied, available| Forecast {
            page_tables: 10,
            copied,
            available,
        };
        assert!(forecast(91, Some(100)).too_much());
        assert!(!forecast(90, Some(100)).too_much());
        assert!(!forecast(u64::MAX, None).too_much());
    }

    #[test]
    fn the_rate_of_writes_follows_the_counter_back() {
        let mut server = server();
        server.clock.now_ms = 1_000_000;
        server.sample_writes();
        (server.dirty, server.clock.now_ms) = (4000, 1_001_000);
        server.sample_writes();
        assert_eq!(server.forks.writes_per_s, 1000.0);
        (server.dirty, server.clock.now_ms) = (1000, 1_002_000);
        server.sample_writes();
        assert_eq!(server.forks.writes_per_s, 1000.0);
    }
}
