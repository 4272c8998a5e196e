//! Active defragmentation: while too much memory lies in the holes between allocations, everything
//! that the data set owns is offered to the mover (`sys::mover`), which moves what lies in nearly
//! empty slabs.
//!
//! ```text
//!   cron ──> too many holes? ──> a pass:   db 0: keys, expires, fields   db 1: ...   scripts   end
//!                                              │
//!   timer ─> steps ─> steps ─> ...             └─> a value with more elements than a step visits
//!            0.5 ms each, so that their           is finished first, by a cursor of its own
//!            share of the time is `cpu` %
//! ```
//!
//! The CPU share lies between `active-defrag-cycle-min` and `-max`, as the fragmentation does
//! between `active-defrag-threshold-lower` and `-upper`. Defragmentation's share of the CPU never
//! falls during a pass. A step whose timer fires late gets more time, up to [`STEP_MAX`].
//!
//! # Invariants
//!
//! - No allocation is moved while a forked child lives: the kernel would copy the pages that are
//!   written.
//! - A step visits at most [`VISITS`] elements, or `active-defrag-max-scan-fields` of a big value,
//!   between two readings of the clock.
//! - A pass that moved next to nothing ends defragmentation until more memory can be won
//!   ([`Defrag::settled`]): some holes can't be closed.
//!
//! Limits: the names of channels, of tracked keys, of clients and the interpreters' memory stay
//! where they are; so do the maps of a stream with more than 4,096 nodes, groups or pending
//! entries, but not what these maps hold.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ae::{EventLoop, TimerId};

use crate::config::Config;
use crate::data_set::DataSet;
use crate::db::Db;
use crate::ds::relocate::{Cursor, Relocate};
use crate::script::cache::Cache;
use crate::state::Server;
use crate::sys::allocator;
use crate::sys::mover::{self, Mover};
use crate::sys::tape;
use crate::types::relocate::relocate;

/// The number of elements of the data set that are visited between two readings of the clock.
const VISITS: usize = 128;
/// The maximum number of elements of a big value that are visited in one step, whatever the setting
/// is.
const FIELDS_MAX: u64 = 4096;
/// The longest time that defragmentation takes between two turns of the loop.
const STEP_MAX: Duration = Duration::from_millis(1);
/// The longest time that defragmentation takes in a nested turn while a data set is loaded.
const STEP_WHILE_LOADING: Duration = Duration::from_millis(20);
/// The time between two measurements of the fragmentation.
const CHECK: Duration = Duration::from_millis(100);
/// A pass of defragmentation was in vain if it moved less than 1 / `IN_VAIN` of the allocations
/// that it saw.
const IN_VAIN: u64 = 200;
/// After a pass in vain, the time until the next pass, unless the fragmented bytes grow by an
/// eighth before.
const REST: Duration = Duration::from_secs(60);

/// The state of defragmentation.
#[derive(Default)]
pub struct Defrag {
    /// The mover of allocations (`sys::mover`), which is created when it is first needed.
    mover: Option<Mover>,
    pass: Option<Pass>,
    /// The time at which the present defragmentation began, which may be several passes ago.
    running_since: Option<Instant>,
    /// Whether the timer that runs the steps of a pass is set.
    timer: bool,
    /// The time at which the last step of a pass ended.
    stepped: Option<Instant>,
    checked: Option<Instant>,
    /// Set if the last pass was in vain: the fragmented bytes that it left, and the time of its
    /// end.
    settled: Option<(usize, Instant)>,
    cpu: u32,
    key_hits: u64,
    key_misses: u64,
    /// The duration of all earlier passes of defragmentation.
    earlier: Duration,
}

/// The unused memory between allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Holes {
    bytes: usize,
    /// The free bytes as a percentage of the allocated bytes.
    percent: u32,
}

/// One pass of defragmentation: a walk over all data that can be moved.
#[derive(Default)]
struct Pass {
    /// The mover's counts of moved and unmoved allocations when the pass began.
    hits: u64,
    misses: u64,
    /// The highest percentage of fragmentation during the pass.
    percent: u32,
    part: Part,
    cursor: Cursor,
    /// Big values of which some elements have not been visited.
    unfinished: VecDeque<Unfinished>,
}

/// The part of the data that a pass has reached.
#[derive(Clone, Copy)]
enum Part {
    Keys(usize),
    Expires(usize),
    FieldExpires(usize),
    Scripts,
}

impl Default for Part {
    fn default() -> Part {
        Part::Keys(0)
    }
}

struct Unfinished {
    db: usize,
    key: Box<[u8]>,
    cursor: Cursor,
}

impl Holes {
    fn measure() -> Holes {
        let stats = allocator::allocator_stats();
        let bytes = stats.active.saturating_sub(stats.allocated);
        let percent = bytes as u128 * 100 / stats.allocated.max(1) as u128;
        Holes {
            bytes,
            percent: percent.min(1_000_000) as u32,
        }
    }

    /// Whether there are enough holes to begin defragmentation.
    fn are_many(self, config: &Config) -> bool {
        self.percent >= config.active_defrag_threshold_lower
            && self.bytes as u64 > config.active_defrag_ignore_bytes
    }
}

/// The share of the CPU, in percent, that defragmentation gets at this percentage of fragmentation.
fn cpu_percent(percent: u32, config: &Config) -> u32 {
    let (least, most) = (
        config.active_defrag_cycle_min,
        config.active_defrag_cycle_max,
    );
    let lower = config.active_defrag_threshold_lower;
    let upper = config.active_defrag_threshold_upper;
    let (above, range) = (percent.saturating_sub(lower), upper.saturating_sub(lower));
    if above >= range || most <= least {
        return most.max(least);
    }
    least + (u64::from(most - least) * u64::from(above) / u64::from(range)) as u32
}

impl Defrag {
    /// Defragmentation's share of the CPU in percent while a pass runs, 0 otherwise.
    pub fn cpu_percent(&self) -> u32 {
        if self.pass.is_some() { self.cpu } else { 0 }
    }

    /// The number of allocations that defragmentation has moved.
    pub fn hits(&self) -> u64 {
        self.mover.as_ref().map_or(0, |mover| mover.hits)
    }

    /// The number of allocations that defragmentation has looked at and not moved.
    pub fn misses(&self) -> u64 {
        self.mover.as_ref().map_or(0, |mover| mover.misses)
    }

    /// The number of defragmentation's visits to keys of which an allocation was moved.
    pub fn key_hits(&self) -> u64 {
        self.key_hits
    }

    /// The number of defragmentation's visits to keys of which nothing was moved.
    pub fn key_misses(&self) -> u64 {
        self.key_misses
    }

    /// The duration of all passes, and of the passes that run now, in milliseconds.
    pub fn times_ms(&self) -> (u64, u64) {
        let current = self
            .running_since
            .map_or(Duration::ZERO, |began| began.elapsed());
        let ms = |time: Duration| time.as_millis() as u64;
        (ms(self.earlier + current), ms(current))
    }

    /// CONFIG RESETSTAT: sets the figures of defragmentation to zero.
    pub fn reset_stats(&mut self) {
        if let Some(mover) = &mut self.mover {
            (mover.hits, mover.misses) = (0, 0);
        }
        (self.key_hits, self.key_misses) = (0, 0);
        self.earlier = Duration::ZERO;
        self.running_since = self.running_since.map(|_| Instant::now());
    }

    /// Whether a pass of defragmentation runs and no timer for its steps is set.
    #[inline]
    pub fn needs_timer(&self) -> bool {
        self.pass.is_some() && !self.timer
    }

    /// Begins a pass if there is enough fragmentation, otherwise ends defragmentation.
    fn begin_if_worth(&mut self, config: &Config) {
        let holes = Holes::measure();
        let wins = self
            .settled
            .is_none_or(|(bytes, at)| holes.bytes > bytes + bytes / 8 || at.elapsed() > REST);
        if !holes.are_many(config) || !wins {
            return self.stop();
        }
        if self.mover.is_none() {
            self.mover = Mover::new();
        }
        if self.mover.is_none() {
            return;
        }
        mover::flush_cache();
        self.running_since.get_or_insert_with(Instant::now);
        self.cpu = cpu_percent(holes.percent, config);
        self.pass = Some(Pass {
            hits: self.hits(),
            misses: self.misses(),
            percent: holes.percent,
            ..Pass::default()
        });
        log::debug!(
            "Defragmentation: {} % of {} bytes",
            holes.percent,
            holes.bytes
        );
    }

    /// Ends defragmentation.
    fn stop(&mut self) {
        self.pass = None;
        if let Some(began) = self.running_since.take() {
            self.earlier += began.elapsed();
        }
    }

    /// Ends the pass, and begins another pass if more memory can be won.
    fn end_pass(&mut self, config: &Config) {
        let pass = self.pass.take().unwrap_or_default();
        // CONFIG RESETSTAT may have reset the counts of moved allocations during the pass.
        let hits = self.hits().saturating_sub(pass.hits);
        let misses = self.misses().saturating_sub(pass.misses);
        let left = Holes::measure().bytes;
        log::debug!(
            "Defragmentation: {hits} allocations moved, {misses} left, holes of {left} bytes"
        );
        let in_vain = hits < (hits + misses) / IN_VAIN;
        self.settled = in_vain.then(|| (left, Instant::now()));
        self.begin_if_worth(config);
    }

    /// Measures the fragmentation, and begins or ends defragmentation.
    fn check(&mut self, config: &Config) {
        self.checked = Some(Instant::now());
        if !config.activedefrag || !mover::AVAILABLE {
            self.settled = None;
            return self.stop();
        }
        let Some(pass) = &mut self.pass else {
            return self.begin_if_worth(config);
        };
        pass.percent = pass.percent.max(Holes::measure().percent);
        self.cpu = cpu_percent(pass.percent, config);
    }

    /// The duration of the next step of a pass, so that the steps have defragmentation's share of
    /// the CPU.
    fn budget(&self, config: &Config, most: Duration) -> Duration {
        let cycle = Duration::from_micros(config.active_defrag_cycle_us.into());
        let waited = self.stepped.map_or(Duration::ZERO, |at| at.elapsed());
        let due = waited * self.cpu / (100 - self.cpu.min(99));
        due.clamp(cycle.min(most), most.max(cycle))
    }

    /// The pause between two steps of a pass.
    fn pause(&self, config: &Config) -> Duration {
        let cycle = Duration::from_micros(config.active_defrag_cycle_us.max(100).into());
        cycle * (100 - self.cpu.min(99)) / self.cpu.max(1)
    }
}

/// A job of the cron: begins or ends defragmentation.
pub fn cron(server: &mut Server) {
    if server.config.activedefrag {
        // Which values are moved depends on their addresses, which differ in a replay.
        tape::not_recorded("active defragmentation");
    }
    server.defrag.check(&server.config);
}

/// Sets the timer that runs the steps of defragmentation.
pub fn start_timer(el: &mut EventLoop<Server>, server: &mut Server) {
    server.defrag.timer = true;
    let pause = server.defrag.pause(&server.config);
    el.add_timer(pause, 0, timer);
}

fn timer(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    if server.defrag.pass.is_none() {
        server.defrag.timer = false;
        return None;
    }
    if server.child.is_some() {
        return Some(CHECK);
    }
    let budget = server.defrag.budget(&server.config, STEP_MAX);
    work(server, budget);
    Some(server.defrag.pause(&server.config))
}

/// Runs steps of defragmentation while a data set is loaded, since no timer fires then.
pub fn while_loading(server: &mut Server) {
    if !server.config.activedefrag || !server.loading.is_in_place() || server.child.is_some() {
        return;
    }
    if server.defrag.checked.is_none_or(|at| at.elapsed() >= CHECK) {
        server.defrag.check(&server.config);
    }
    if server.defrag.pass.is_some() {
        let budget = server.defrag.budget(&server.config, STEP_WHILE_LOADING);
        work(server, budget);
    }
}

/// Runs steps of the pass for about the time `budget`.
fn work(server: &mut Server, budget: Duration) {
    let began = Instant::now();
    while began.elapsed() < budget {
        if !step(server) {
            break;
        }
    }
    let now = Instant::now();
    server.defrag.stepped = Some(now);
    let ms = (now - began).as_millis() as u64;
    let now_s = server.clock.now_s();
    server
        .latency
        .add_if_needed("active-defrag-cycle", ms, now_s);
}

/// Runs one step of the defragmentation pass. Returns false if no pass runs any more.
fn step(server: &mut Server) -> bool {
    let Server {
        data,
        defrag,
        config,
        scripting,
        ..
    } = server;
    let Defrag {
        pass: Some(pass),
        mover: Some(mover),
        ..
    } = defrag
    else {
        return false;
    };
    let keys = if pass.unfinished.is_empty() {
        mover.begin_step(VISITS);
        pass.walk(data, &mut scripting.scripts, mover)
    } else {
        let fields = config.active_defrag_max_scan_fields.min(FIELDS_MAX);
        mover.begin_step(fields as usize);
        pass.finish_value(data, mover)
    };
    mover.end_step();
    let ended = keys.is_none();
    let (hits, misses) = keys.unwrap_or_default();
    defrag.key_hits += hits;
    defrag.key_misses += misses;
    if ended {
        defrag.end_pass(config);
    }
    defrag.pass.is_some()
}

impl Pass {
    /// Visits the next elements of the data set. Returns the numbers of keys with and without moved
    /// allocations; `None` at the end of the pass.
    fn walk(
        &mut self,
        data: &mut DataSet,
        scripts: &mut Cache,
        mover: &mut Mover,
    ) -> Option<(u64, u64)> {
        let mut keys = (0, 0);
        let next = match self.part {
            Part::Keys(at) => self.walk_keys(data.dbs.get_mut(at)?, at, mover, &mut keys),
            Part::Expires(at) => data.dbs.get_mut(at)?.expires.relocate(self.cursor, mover),
            Part::FieldExpires(at) => {
                let db = data.dbs.get_mut(at)?;
                db.field_expires.relocate(self.cursor, mover)
            }
            Part::Scripts => scripts.relocate(self.cursor, mover),
        };
        self.cursor = next;
        if next != 0 {
            return Some(keys);
        }
        self.part = match self.part {
            Part::Keys(at) => Part::Expires(at),
            Part::Expires(at) => Part::FieldExpires(at),
            Part::FieldExpires(at) if at + 1 < data.dbs.len() => Part::Keys(at + 1),
            Part::FieldExpires(_) => Part::Scripts,
            Part::Scripts => return None,
        };
        Some(keys)
    }

    fn walk_keys(
        &mut self,
        db: &mut Db,
        at: usize,
        mover: &mut Mover,
        keys: &mut (u64, u64),
    ) -> Cursor {
        let (unfinished, mut moved_before) = (&mut self.unfinished, mover.hits);
        let next = db
            .keys
            .relocate(self.cursor as u64, mover, |mut entry, mover| {
                let cursor = relocate(&mut entry, 0, mover);
                if cursor != 0 {
                    let key = entry.key().into();
                    unfinished.push_back(Unfinished {
                        db: at,
                        key,
                        cursor,
                    });
                }
                // The mover has moved the key's entry, if at all, before the call of this closure.
                let moved = mover.hits != moved_before;
                moved_before = mover.hits;
                keys.0 += u64::from(moved);
                keys.1 += u64::from(!moved);
            });
        next.into()
    }

    /// Visits the next elements of an unfinished big value.
    fn finish_value(&mut self, data: &mut DataSet, mover: &mut Mover) -> Option<(u64, u64)> {
        let value = self.unfinished.front_mut()?;
        let db = data.dbs.get_mut(value.db)?;
        let hash = db.keys.hash(&value.key);
        let entry = db.keys.find_mut(hash, &value.key);
        let next = entry.map_or(0, |mut entry| relocate(&mut entry, value.cursor, mover));
        value.cursor = next;
        if next == 0 {
            self.unfinished.pop_front();
        }
        Some((0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Enable;
    use crate::db::kvstore::KeyHasher;
    use crate::testing::{say, server_with};
    use proptest::prelude::*;

    #[test]
    fn the_cpu_share_follows_the_fragmentation() {
        let mut config = Config {
            active_defrag_threshold_lower: 10,
            active_defrag_threshold_upper: 100,
            active_defrag_cycle_min: 1,
            active_defrag_cycle_max: 25,
            ..Config::default()
        };
        let shares = [0, 10, 55, 99, 100, 900].map(|percent| cpu_percent(percent, &config));
        assert_eq!(shares, [1, 1, 13, 24, 25, 25]);
        config.active_defrag_threshold_upper = 10;
        assert_eq!(cpu_percent(10, &config), 25);
        config.active_defrag_cycle_min = 40;
        assert_eq!(cpu_percent(10, &config), 40);
    }

    /// Runs a step of a pass with a mover that moves everything.
    fn move_some(server: &mut Server, pass: &mut Pass, mover: &mut Mover) {
        mover.begin_step(4);
        let keys = match pass.unfinished.is_empty() {
            true => pass.walk(&mut server.data, &mut server.scripting.scripts, mover),
            false => pass.finish_value(&mut server.data, mover),
        };
        if keys.is_none() {
            *pass = Pass::default();
        }
    }

    /// Commands that make all types in all encodings, and change them.
    fn commands() -> impl Strategy<Value = Vec<String>> {
        let name = (0..12u32).prop_map(|n| n.to_string());
        let text = prop_oneof![
            3 => (0..4000u32).prop_map(|n| n.to_string()),
            3 => (0..40u32, 10..90usize).prop_map(|(n, len)| format!("{n:x<len$}")),
            1 => (0..4u32, 200..6000usize).prop_map(|(n, len)| format!("{n:y<len$}")),
        ];
        let command = (0..22u8, name, text, 0..300i32).prop_map(|(kind, k, text, n)| match kind {
            0 => format!("SET s{k} {text}"),
            1 => format!("APPEND s{k} {text}"),
            2 => format!("GETRANGE s{k} 0 9"),
            3 | 4 => format!("RPUSH l{k} {text} {text} {n}"),
            5 => format!("LPUSH l{k} {text} {n}"),
            6 => format!("LTRIM l{k} 1 -2"),
            7 | 8 => format!("SADD t{k} {n} {text}"),
            9 => format!("SREM t{k} {n}"),
            10 | 11 => format!("HSET h{k} {text} {n} {n} {text}"),
            12 => format!("HPEXPIREAT h{k} 9999999999{n:03} FIELDS 1 {n}"),
            13 | 14 => format!("ZADD z{k} {n} {text} 1 {n}"),
            15 => format!("ZREMRANGEBYRANK z{k} 0 2"),
            16 | 17 => format!("XADD x{k} {n}-* f {text} g {n}"),
            18 => format!("XGROUP CREATE x{k} g{n} 0 MKSTREAM"),
            19 => format!("XREADGROUP GROUP g{n} c{k} COUNT 3 STREAMS x{k} >"),
            20 => format!("PEXPIREAT s{k} 9999999999{n:03}"),
            _ => format!("SADD i{k} {n}"),
        });
        proptest::collection::vec(command, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// One of two servers moves all of its memory between the commands; both must reply alike.
        #[test]
        fn what_is_moved_stays_the_same(commands in commands(), by_slot: bool) {
            let mut servers = [(); 2].map(|()| {
                let config = Config {
                    enable_debug_command: Enable::Yes,
                    list_max_listpack_size: 4,
                    list_compress_depth: 1,
                    ..Config::default()
                };
                let mut server = server_with(1);
                server.config = config;
                if by_slot {
                    let hasher = KeyHasher::new(server.seed, true);
                    (server.key_hasher, server.data) = (hasher, DataSet::new(16, hasher));
                }
                server
            });
            let (mut mover, mut pass) = (Mover::of_everything(), Pass::default());
            for command in &commands {
                let [moving, still] = &mut servers;
                prop_assert_eq!(say(moving, 0, &[command]), say(still, 0, &[command]));
                for _ in 0..3 {
                    move_some(moving, &mut pass, &mut mover);
                }
            }
            let [moving, still] = &mut servers;
            for _ in 0..20_000 {
                move_some(moving, &mut pass, &mut mover);
            }
            let digest = say(moving, 0, &["DEBUG DIGEST"]);
            prop_assert!(digest.starts_with('+'), "{}", digest);
            prop_assert_eq!(digest, say(still, 0, &["DEBUG DIGEST"]));
            // If the commands leave no key, there is nothing to move.
            let is_empty = say(moving, 0, &["DBSIZE"]) == ":0\r\n";
            prop_assert!(mover.hits > 0 || is_empty);
            say(moving, 0, &["FLUSHALL"]);
        }
    }

    #[test]
    fn few_holes_are_ignored() {
        let config = Config {
            active_defrag_ignore_bytes: 1000,
            active_defrag_threshold_lower: 10,
            ..Config::default()
        };
        let are_many = |bytes, percent| Holes { bytes, percent }.are_many(&config);
        assert!(are_many(1001, 10));
        assert!(!are_many(1000, 90));
        assert!(!are_many(9000, 9));
    }
}
