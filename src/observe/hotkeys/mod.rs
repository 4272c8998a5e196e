//! The most used keys: at present, for HOTKEYS TOP, and in a session between HOTKEYS START and
//! STOP.
//!
//! ```text
//!   call() -> commands_processed reaches `next`?          one comparison, whether any of this is on or off
//!             no: most commands, and all while it is off
//!             yes: sample() -> the keys of this command -> Monitor   reads, writes, misses       (aged)
//!                              `next` is drawn again       Session   by CPU time, by bytes       (sums)
//! ```
//!
//! **The monitor** (`hotkeys-tracking yes`) shows which keys are used now. The weight of a past
//! access halves every `hotkeys-half-life` seconds. Instead of scaling down all counters all the
//! time, newer accesses get a greater weight: t seconds after the landmark (a point in time) an
//! access counts 2^(t / half-life), and figures are divided by the present weight when they are
//! shown. Before the weights become too large, all counters are divided and the landmark moves to
//! the present.
//! **The session** is HOTKEYS as Redis 8.6 has it: it sums CPU time and bytes for each key since
//! HOTKEYS START.
//!
//! Monitor and session sample one command in `ratio`, picked at random: the gap to the next picked
//! command is drawn from the geometric distribution, which is equivalent to a random decision for
//! each command but costs time only for the picked commands. A sampled command counts `ratio`
//! times, so that figures estimate the totals for any ratio. (With a fixed step, a client that
//! alternates GET a and GET b would be seen with one key only.)
//!
//! The keys of a command are those that its row in the command table names (`command::keys`). A key
//! counts as read or as written, as the command's row says; a read of a missing key is a miss. The
//! monitor counts the commands in scripts, not EVAL itself. The session counts the time and bytes
//! of a whole EVAL, divided among its keys, and those of each command in EXEC.
//!
//! **Invariant:** the memory of HOTKEYS is constant: five summaries of [`summary::CAPACITY`]
//! counters at most.
//! **Invariant:** `HotKeys::next`, the number of the next sampled command, is `u64::MAX` exactly
//! while monitor and session are off (`tests::off_is_never_due`).
//!
//! Source of the ageing: Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time
//! Decay Model for Streaming Systems" (2009). Rejected: counting in look-ups, which would count a
//! command's keys several times (SET looks its key up twice) and slow down each look-up; and a ring
//! of time windows with their own counters, which needs several times the memory and forgets old
//! accesses a whole window at a time.

mod session;
pub mod summary;
#[cfg(test)]
mod tests;

pub use session::{Metrics, Request, Session, Totals};

use crate::client::{Client, flag};
use crate::command;
use crate::command::keys;
use crate::command::keys::KeyRef;
use crate::command::{Command, RO};
use crate::config::Config;
use crate::observe::commandlog;
use crate::observe::key_name::Name;
use crate::observe::stats::Stats;
use crate::state::Server;
use crate::util::random::Random;
use summary::Summary;

/// The maximum length of the buffer for a command's keys that is kept for the next command.
const KEYS_KEPT: usize = 256;
/// The age of the landmark (the time at which an access weighs 1), in half-lives, at which the
/// landmark moves to the present.
const LANDMARK_AGE: f64 = 64.0;

/// The state of HOTKEYS: the monitor of the present keys, and the session.
pub struct HotKeys {
    /// The value of `Stats::commands_processed` at which the next command is sampled.
    pub next: u64,
    pub monitor: Option<Box<Monitor>>,
    pub session: Option<Box<Session>>,
    rng: Random,
    keys: Vec<KeyRef>,
}

/// The cost of a command: its time and the length of its reply.
#[derive(Clone, Copy)]
pub struct Cost {
    /// The time of the command, in ticks of the processor's counter.
    pub ticks: u64,
    pub reply_bytes: u64,
}

impl HotKeys {
    /// Creates the state with monitor and session off; `seed` is for the random choice of commands.
    pub fn new(seed: u64) -> HotKeys {
        HotKeys {
            next: u64::MAX,
            monitor: None,
            session: None,
            rng: Random::from_seed(seed),
            keys: Vec::new(),
        }
    }

    /// Applies the settings `hotkeys-tracking`, `hotkeys-sample-ratio` and `hotkeys-half-life`. The
    /// monitor's counters are kept unless these settings changed.
    pub fn configure(&mut self, config: &Config, stats: &Stats, now_ms: i64) {
        let wanted = config.hotkeys_tracking.then_some(Ageing {
            ratio: config.hotkeys_sample_ratio,
            half_life_s: config.hotkeys_half_life,
        });
        if wanted != self.monitor.as_ref().map(|monitor| monitor.ageing) {
            self.monitor = wanted.map(|ageing| Box::new(Monitor::new(ageing, now_ms)));
            self.rearm(stats.commands_processed);
        }
    }

    /// Draws the number of the next command to be sampled, for the monitor and for the session.
    /// `processed` is the number of commands so far.
    fn rearm(&mut self, processed: u64) {
        if let Some(monitor) = &mut self.monitor {
            monitor.sampler.draw(processed, &mut self.rng);
        }
        if let Some(session) = &mut self.session {
            session.sampler.draw(processed, &mut self.rng);
        }
        self.update_next();
    }

    /// Sets `next` to the number of the command that the monitor or the session samples next.
    fn update_next(&mut self) {
        let monitor = self.monitor.as_ref().map(|monitor| monitor.sampler.next);
        let session = self.session.as_ref().filter(|session| session.is_active());
        let session = session.map(|session| session.sampler.next);
        self.next = monitor.into_iter().chain(session).min().unwrap_or(u64::MAX);
    }

    /// Called when CONFIG RESETSTAT has set the counters of `Stats` to zero; `before` has the old
    /// values.
    pub fn stats_reset(&mut self, before: &Stats) {
        if let Some(session) = &mut self.session {
            session.rebase(before);
        }
        self.rearm(0);
    }

    /// The number of heap bytes of the state of HOTKEYS.
    pub fn memory(&self) -> usize {
        let monitor = self.monitor.as_ref().map_or(0, |monitor| monitor.memory());
        let session = self.session.as_ref().map_or(0, |session| session.memory());
        monitor + session + self.keys.capacity() * size_of::<KeyRef>()
    }
}

/// Picks, at random, one of `ratio` events on average.
pub struct Sampler {
    pub ratio: u64,
    next: u64,
}

impl Sampler {
    fn new(ratio: u64) -> Sampler {
        Sampler {
            ratio,
            next: u64::MAX,
        }
    }

    /// Draws the number of the next picked event after the event `now`.
    fn draw(&mut self, now: u64, rng: &mut Random) {
        self.next = now.saturating_add(gap(self.ratio, rng));
    }

    /// Whether the event with the number `now` was picked; if so, draws the next event to be
    /// picked.
    fn picked(&mut self, now: u64, rng: &mut Random) -> bool {
        let picked = now >= self.next;
        if picked {
            self.draw(now, rng);
        }
        picked
    }
}

/// The number of events up to and including the next picked one; each event is picked with the
/// chance `1 / ratio`.
fn gap(ratio: u64, rng: &mut Random) -> u64 {
    if ratio <= 1 {
        return 1;
    }
    // A random number in (0, 1], of 53 random bits.
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let gap = (uniform.ln() / (-1.0 / ratio as f64).ln_1p()).ceil();
    (gap as u64).max(1)
}

/// The settings of the HOTKEYS monitor: the sample ratio and the half-life.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ageing {
    pub ratio: u64,
    pub half_life_s: u32,
}

/// The HOTKEYS monitor: counters of the keys that are used at present, in which old accesses decay.
pub struct Monitor {
    pub ageing: Ageing,
    sampler: Sampler,
    began_ms: i64,
    /// The time at which an access weighs 1, Unix milliseconds.
    landmark_ms: i64,
    pub reads: Summary,
    pub writes: Summary,
    pub misses: Summary,
}

impl Monitor {
    fn new(ageing: Ageing, now_ms: i64) -> Monitor {
        Monitor {
            ageing,
            sampler: Sampler::new(ageing.ratio),
            began_ms: now_ms,
            landmark_ms: now_ms,
            reads: Summary::default(),
            writes: Summary::default(),
            misses: Summary::default(),
        }
    }

    fn memory(&self) -> usize {
        self.summaries()
            .iter()
            .map(|summary| summary.memory())
            .sum()
    }

    fn summaries(&self) -> [&Summary; 3] {
        [&self.reads, &self.writes, &self.misses]
    }

    fn half_lives(&self, ms: i64) -> f64 {
        ms as f64 / (1000.0 * f64::from(self.ageing.half_life_s))
    }

    /// The weight of an access at `now_ms`. If the landmark, the time at which an access weighs 1,
    /// is too old, it is moved to the present.
    fn weight(&mut self, now_ms: i64) -> f64 {
        let age = self.half_lives(now_ms - self.landmark_ms);
        if age.abs() > LANDMARK_AGE {
            // If the clock was set back, the weights of earlier accesses do not grow.
            let factor = (-age).exp2().min(1.0);
            for summary in [&mut self.reads, &mut self.writes, &mut self.misses] {
                summary.scale(factor);
            }
            self.landmark_ms = now_ms;
            return 1.0;
        }
        age.exp2()
    }

    /// The factor that converts a key's summed weight to accesses per second.
    ///
    /// A key that is used r times a second weighs, in present accesses, the sum of r · 2^(-age / h)
    /// over the seconds since the beginning: r · h / ln 2 · (1 - 2^(-elapsed / h)).
    pub fn per_second(&self, now_ms: i64) -> f64 {
        let elapsed = self.half_lives(now_ms - self.began_ms);
        let today = self.half_lives(now_ms - self.landmark_ms).exp2();
        let seconds = f64::from(self.ageing.half_life_s) / std::f64::consts::LN_2;
        // The elapsed time counts as at least one millisecond, so that the divisor `share` is not
        // 0.
        let share = 1.0 - (-elapsed.max(self.half_lives(1))).exp2();
        1.0 / (today * seconds * share)
    }

    fn access(&mut self, name: Name, read: bool, missed: bool, weight: f64) {
        let used = if read {
            &mut self.reads
        } else {
            &mut self.writes
        };
        used.add(name, weight);
        if missed {
            self.misses.add(name, weight);
        }
    }
}

/// Counts a sampled command for the monitor, the session, or both, whichever picked it.
#[cold]
pub fn sample(server: &mut Server, c: &Client, argv: &[&[u8]], cmd: &Command, cost: Cost) {
    let processed = server.stats.commands_processed;
    let mut found = std::mem::take(&mut server.hotkeys.keys);
    found.clear();
    if keys::get_keys(cmd, argv, &mut found).is_ok() {
        found.retain(|key| key.is_key());
    }
    let HotKeys {
        monitor,
        session,
        rng,
        ..
    } = &mut server.hotkeys;
    let for_monitor = monitor
        .as_mut()
        .is_some_and(|monitor| monitor.sampler.picked(processed, rng));
    let for_session = session
        .as_mut()
        .is_some_and(|session| session.is_active() && session.sampler.picked(processed, rng));
    if for_monitor {
        watch(server, c.db, argv, cmd, &found);
    }
    // In a session, the time of a script counts for EVAL, not for the script's commands.
    if for_session && !c.has(flag::SCRIPT) {
        profile(server, c.db, argv, &found, cost);
    }
    if found.capacity() <= KEYS_KEPT {
        server.hotkeys.keys = found;
    }
    server.hotkeys.update_next();
}

fn watch(server: &mut Server, db: u32, argv: &[&[u8]], cmd: &Command, found: &[KeyRef]) {
    let uses_keys = cmd.is(command::READONLY | command::WRITE);
    if !uses_keys || cmd.is(command::SCRIPT_DECIDES) {
        return;
    }
    let now_ms = server.clock.now_ms;
    for used in found {
        let key = argv[used.pos as usize];
        let hash = server.key_hasher.hash(key);
        let read = used.flags & RO != 0;
        let missed = read && {
            let entry = server.data.dbs[db as usize].find(hash, key);
            entry.is_none_or(|entry| server.is_expired(entry))
        };
        if let Some(monitor) = &mut server.hotkeys.monitor {
            let weight = monitor.weight(now_ms) * monitor.sampler.ratio as f64;
            monitor.access(Name { db, hash, key }, read, missed, weight);
        }
    }
}

fn profile(server: &mut Server, db: u32, argv: &[&[u8]], found: &[KeyRef], cost: Cost) {
    let us = server.clock.ns(cost.ticks) as f64 / 1000.0;
    let bytes = commandlog::request_bytes(argv) + cost.reply_bytes;
    let Some(session) = &mut server.hotkeys.session else {
        return;
    };
    let scale = session.sampler.ratio as f64;
    session.bytes += bytes as f64 * scale;
    let share = scale / found.len().max(1) as f64;
    for used in found {
        let key = argv[used.pos as usize];
        let hash = server.key_hasher.hash(key);
        let name = Name { db, hash, key };
        if let Some(cpu) = &mut session.cpu {
            cpu.add(name, us * share);
        }
        if let Some(net) = &mut session.net {
            net.add(name, bytes as f64 * share);
        }
    }
}

/// The cron's step: ends a HOTKEYS session whose duration is over.
pub fn cron(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    if let Some(session) = &server.hotkeys.session
        && session.is_over(now_ms)
    {
        server.stop_hotkeys();
    }
}

impl Server {
    /// Executes HOTKEYS START. Returns false if a session is already running.
    pub fn start_hotkeys(&mut self, request: Request) -> bool {
        cron(self);
        let busy = self.hotkeys.session.as_ref();
        if busy.is_some_and(|session| session.is_active()) {
            return false;
        }
        let totals = Totals::now(self);
        self.hotkeys.session = Some(Box::new(Session::new(request, totals)));
        self.hotkeys.rearm(self.stats.commands_processed);
        true
    }

    /// HOTKEYS STOP: ends the session and keeps its figures. Returns false if no session is
    /// running.
    pub fn stop_hotkeys(&mut self) -> bool {
        let totals = Totals::now(self);
        let Some(session) = &mut self.hotkeys.session else {
            return false;
        };
        let active = session.is_active();
        if active {
            session.stop(totals);
            self.hotkeys.update_next();
        }
        active
    }
}
