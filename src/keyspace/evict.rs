//! Eviction: chooses and deletes keys when `maxmemory` is reached.
//!
//! The entry of each key has 29 bits about its use. Under an LRU policy the 29 bits are the time of
//! the last access in steps of 32 ms, under LRM (least recently modified) the time of the last
//! change; under LFU 16 bits are the time of the last decrement in minutes and 8 bits a counter
//! that grows logarithmically (Morris, 1978: "Counting large numbers of events in small
//! registers").
//!
//! ```text
//!   lru:  [ 32 ms, modulo 2^29 (198 days)          ]
//!   lfu:  [ minutes, modulo 2^16 ][ counter 0..255 ]
//! ```
//!
//! Candidates for eviction are sampled (`maxmemory-samples` keys of each database) into a pool of
//! the best 16 candidates seen so far; volatile-ttl needs no sample, since the index of expiry
//! times is ordered. A candidate that was used since it entered the pool is scored again, so that a
//! hot key is not evicted because of an old score.
//!
//! **Invariant:** the pool of candidates is sorted by score, has no key twice and at most `POOL`
//! keys (`tests::the_pool_keeps_the_best`).

use std::time::Duration;

use crate::armed;
use crate::config::Config;
use crate::config::MaxmemoryPolicy;
use crate::db::Db;
use crate::db::kvstore::slot_in;
use crate::db::slot::key_slot;
use crate::keyspace::events;
use crate::observe::trace::event::EventKind;
use crate::state::Server;
use crate::sys::instant::Instant;
use crate::sys::ticks;
use crate::types::kind::type_of;
use crate::types::{KeyMut, KeyRef, Type};
use crate::util::random::Random;

/// The mask of the 24 bits of INFO's lru_clock, which counts seconds.
pub const LRU_MASK: i64 = (1 << 24) - 1;
/// The mask of the 29 bits of an access time, which counts steps of 2^STEP_SHIFT milliseconds. A
/// cache whose keys stay only for seconds needs steps that are shorter than a second.
const STEPS_MASK: u32 = (1 << 29) - 1;
const STEP_SHIFT: u32 = 5;
/// An access time that is at most this number of steps (a minute) ahead of the clock counts as now,
/// not as 198 days ago: the clock was set back.
const AHEAD_MAX: u32 = 60_000 >> STEP_SHIFT;
const LFU_INIT: u32 = 5;
/// The maximum number of candidates for eviction that the pool keeps from one eviction to the next.
const POOL: usize = 16;
/// The number of random keys that are tried to find one with a time to live.
const VOLATILE_TRIES: usize = 32;

/// The state of eviction, and the settings that are needed at each access to a key.
pub struct Eviction {
    pub policy: MaxmemoryPolicy,
    lfu_log_factor: u32,
    lfu_decay_time: u32,
    /// Whether a forked child saves the data set. Meanwhile accesses to keys are not noted, since
    /// each written page would be copied.
    frozen: bool,
    /// Whether accesses to keys are not noted, because a forked child saves or because an LRM
    /// policy uses changes only.
    notes_no_access: bool,
    /// The random numbers that decide whether an LFU counter grows.
    rng: Random,
    pool: Vec<Candidate>,
    next_db: usize,
    /// Whether the last eviction reached its time limit before the memory was below `maxmemory`.
    pub unfinished: bool,
    /// Whether the timer that continues an unfinished eviction is set.
    pub timer: bool,
    pub exceeded: Exceeded,
}

/// The time during which more memory was in use than `maxmemory` allows, in milliseconds.
#[derive(Default)]
pub struct Exceeded {
    /// The sum in milliseconds of the past periods in which `maxmemory` was exceeded.
    past_ms: u64,
    /// The Unix time in milliseconds since which `maxmemory` is exceeded; `None` if it is not
    /// exceeded.
    since_ms: Option<i64>,
}

impl Exceeded {
    /// Notes whether `maxmemory` is exceeded now.
    pub fn note(&mut self, exceeded: bool, now_ms: i64) {
        if exceeded {
            self.since_ms.get_or_insert(now_ms);
        } else if self.since_ms.is_some() {
            self.past_ms += self.current_ms(now_ms);
            self.since_ms = None;
        }
    }

    /// The time in milliseconds since which `maxmemory` is exceeded; 0 if it is not exceeded.
    pub fn current_ms(&self, now_ms: i64) -> u64 {
        let age = self.since_ms.map_or(0, |since| now_ms - since);
        u64::try_from(age).unwrap_or(0)
    }

    /// The sum in milliseconds of all periods in which `maxmemory` was exceeded, the present one
    /// included.
    pub fn total_ms(&self, now_ms: i64) -> u64 {
        self.past_ms + self.current_ms(now_ms)
    }
}

struct Candidate {
    score: u64,
    db: u32,
    key: Vec<u8>,
}

/// How one access to a key changes the entry's 29 bits about its use.
#[derive(Clone, Copy)]
pub struct Stamp {
    lru: u32,
    lfu: Option<LfuStep>,
}

#[derive(Clone, Copy)]
struct LfuStep {
    minutes: u32,
    decay_time: u32,
    log_factor: u32,
    dice: f64,
}

impl Stamp {
    /// The 29 bits about an entry's use after an access, from the bits before it.
    #[inline]
    pub fn touched(self, old: u32) -> u32 {
        match self.lfu {
            None => self.lru,
            Some(step) => step.touched(old),
        }
    }
}

impl LfuStep {
    fn touched(self, old: u32) -> u32 {
        let counter = decayed(old, self.minutes, self.decay_time);
        let base = counter.saturating_sub(LFU_INIT) as f64;
        let grows = counter < 255 && self.dice < 1.0 / (base * self.log_factor as f64 + 1.0);
        self.minutes << 8 | (counter + grows as u32)
    }
}

/// The LFU counter in an entry's bits, decremented once for each `decay_time` minutes without an
/// access.
fn decayed(bits: u32, minutes: u32, decay_time: u32) -> u32 {
    let (since, counter) = (bits >> 8, bits & 255);
    let elapsed = minutes.wrapping_sub(since) & 0xffff;
    let periods = elapsed.checked_div(decay_time).unwrap_or(0);
    counter.saturating_sub(periods)
}

fn lru_clock(now_ms: i64) -> u32 {
    (now_ms >> STEP_SHIFT) as u32 & STEPS_MASK
}

/// The number of steps of 32 ms since the access time in an entry's bits.
fn idle_steps(bits: u32, now_ms: i64) -> u32 {
    let steps = lru_clock(now_ms).wrapping_sub(bits) & STEPS_MASK;
    if steps > STEPS_MASK - AHEAD_MAX {
        0
    } else {
        steps
    }
}

fn minutes(now_ms: i64) -> u32 {
    ((now_ms / 60_000) & 0xffff) as u32
}

impl Eviction {
    /// The state of eviction with the policy noeviction, until the settings are applied. `seed`
    /// seeds the random numbers of the LFU counters.
    pub fn new(seed: u64) -> Eviction {
        Eviction {
            policy: MaxmemoryPolicy::Noeviction,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
            frozen: false,
            notes_no_access: false,
            rng: Random::from_seed(seed),
            pool: Vec::new(),
            next_db: 0,
            unfinished: false,
            timer: false,
            exceeded: Exceeded::default(),
        }
    }

    /// Applies the settings of eviction.
    pub fn configure(&mut self, config: &Config) {
        if self.policy != config.maxmemory_policy {
            // The scores that different policies give to keys can't be compared.
            self.pool.clear();
        }
        self.policy = config.maxmemory_policy;
        self.lfu_log_factor = config.lfu_log_factor;
        self.lfu_decay_time = config.lfu_decay_time;
        self.freeze(self.frozen);
    }

    /// Sets whether a forked child saves the data set, during which accesses to keys are not noted.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.notes_no_access = frozen || self.policy.is_lrm();
    }

    /// Whether an access to a key leaves the 29 bits about its use as they are.
    #[inline]
    pub fn notes_no_access(&self) -> bool {
        self.notes_no_access
    }

    /// Under LRM, counts a look-up of a stream for writing as a change, since changes of consumer
    /// groups are not signalled.
    pub fn note_group_change(&self, entry: &mut KeyMut, now_ms: i64) {
        if self.policy.is_lrm() && type_of(entry.as_ref().kind()) == Type::Stream {
            entry.set_lru(lru_clock(now_ms));
        }
    }

    /// Whether `maxmemory-policy` is an LFU policy.
    pub fn is_lfu(&self) -> bool {
        self.policy.is_lfu()
    }

    fn is_volatile(&self) -> bool {
        use MaxmemoryPolicy::*;
        matches!(
            self.policy,
            VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl | VolatileLrm
        )
    }

    /// How an access at the time `now_ms` changes an entry's 29 bits about its use.
    #[inline]
    pub fn stamp(&mut self, now_ms: i64) -> Stamp {
        let lfu = self.is_lfu().then(|| LfuStep {
            minutes: minutes(now_ms),
            decay_time: self.lfu_decay_time,
            log_factor: self.lfu_log_factor,
            dice: self.rng.next_u64() as f64 / u64::MAX as f64,
        });
        Stamp {
            lru: lru_clock(now_ms),
            lfu,
        }
    }

    /// The 29 bits about the use of a key that is created at the time `now_ms`.
    #[inline]
    pub fn new_stamp(&self, now_ms: i64) -> u32 {
        if self.is_lfu() {
            minutes(now_ms) << 8 | LFU_INIT
        } else {
            lru_clock(now_ms)
        }
    }

    /// OBJECT FREQ: the LFU counter, decremented for the time without an access.
    pub fn frequency(&self, bits: u32, now_ms: i64) -> u32 {
        decayed(bits, minutes(now_ms), self.lfu_decay_time)
    }

    /// OBJECT IDLETIME, in seconds.
    pub fn idle_seconds(&self, bits: u32, now_ms: i64) -> u32 {
        let ms = u64::from(idle_steps(bits, now_ms)) << STEP_SHIFT;
        // The result is increased by a step less one millisecond, since the stored time and the
        // clock are both rounded down.
        ((ms + (1 << STEP_SHIFT) - 1) / 1000) as u32
    }

    /// The Unix time in seconds of a key's last use; the result stays the same until the key is
    /// used again.
    pub fn last_use_s(&self, bits: u32, now_ms: i64) -> i64 {
        let step = (now_ms >> STEP_SHIFT) - i64::from(idle_steps(bits, now_ms));
        (step << STEP_SHIFT) / 1000
    }

    /// RESTORE IDLETIME: the 29 bits about the use of a key that was last used `seconds` ago.
    pub fn stamp_idle(&self, seconds: u32, now_ms: i64) -> u32 {
        let steps = (u64::from(seconds) * 1000).div_ceil(1 << STEP_SHIFT);
        lru_clock(now_ms).wrapping_sub(steps as u32) & STEPS_MASK
    }

    /// RESTORE FREQ: the 29 bits about the use of a key with this LFU counter.
    pub fn stamp_frequency(&self, counter: u8, now_ms: i64) -> u32 {
        minutes(now_ms) << 8 | counter as u32
    }

    /// The score of a key; keys with higher scores are evicted first.
    fn score(&self, entry: KeyRef, now_ms: i64) -> u64 {
        if self.is_lfu() {
            255 - self.frequency(entry.lru(), now_ms) as u64
        } else {
            u64::from(idle_steps(entry.lru(), now_ms))
        }
    }
}

/// Evicts keys until the used memory is below `maxmemory`. Returns false if the memory is still
/// above the limit and no more keys can be evicted.
///
/// One call of `perform_evictions` takes at most the time that `maxmemory-eviction-tenacity`
/// allows. If the time does not suffice, the command that caused the eviction runs nevertheless,
/// `unfinished` is set, and the event loop continues the eviction between its turns.
pub fn perform_evictions(server: &mut Server) -> bool {
    let enough = evict_what_exceeds(server);
    let exceeded = !enough || server.evict.unfinished;
    server.evict.exceeded.note(exceeded, server.clock.now_ms);
    enough
}

/// Whether writes are refused with an OOM error now: the memory is above `maxmemory`, and there is
/// no key that the policy may evict.
pub fn refuses_writes(server: &Server) -> bool {
    if is_unlimited(server) || excess(server, server.config.maxmemory as usize).is_none() {
        return false;
    }
    let mut dbs = server.data.dbs.iter();
    match server.evict.policy {
        MaxmemoryPolicy::Noeviction => true,
        _ if server.evict.is_volatile() => dbs.all(|db| db.expires.is_empty()),
        _ => dbs.all(|db| db.is_empty()),
    }
}

/// Whether `maxmemory` limits nothing at present.
fn is_unlimited(server: &Server) -> bool {
    let replica = server.replication.is_replica() && server.config.replica_ignore_maxmemory;
    server.config.maxmemory == 0 || replica || server.loading.is_in_place() || is_held_back(server)
}

fn evict_what_exceeds(server: &mut Server) -> bool {
    server.evict.unfinished = false;
    let limit = server.config.maxmemory as usize;
    if is_unlimited(server) || server.memory_counted() <= limit {
        return true;
    }
    let Some(mut excess) = excess(server, limit) else {
        return true;
    };
    let import = server.armed & armed::IMPORT != 0;
    if import || server.evict.policy == MaxmemoryPolicy::Noeviction {
        return false;
    }
    let (began, evicted) = (ticks::now(), server.stats.evicted_keys);
    let (start, time_limit) = (
        Instant::now(),
        time_limit(server.config.maxmemory_eviction_tenacity),
    );
    let enough = loop {
        let Some((db, key)) = choose(server) else {
            break server.lazyfree.pending() > 0;
        };
        excess = excess.saturating_sub(evict_key(server, db, &key));
        if excess == 0 {
            break true;
        }
        if !server.stats.evicted_keys.is_multiple_of(16) {
            continue;
        }
        // The background thread may have freed more than was estimated, so the used memory is
        // compared with `maxmemory` again.
        if self::excess(server, limit).is_none() {
            break true;
        }
        if start.elapsed() > time_limit {
            server.evict.unfinished = true;
            break true;
        }
    };
    let now_s = server.clock.now_s();
    server
        .latency
        .add_if_needed("eviction-cycle", start.elapsed().as_millis() as u64, now_s);
    let keys = server.stats.evicted_keys - evicted;
    server.traced(EventKind::Evict, began, keys);
    enough
}

/// The number of chosen keys after which the search for a key to evict gives up, if none may be
/// evicted because their slots are moving between cluster nodes.
const CHOICES_MAX: usize = 64;
/// The number of keys, in order of expiry, after which volatile-ttl gives up, if none may be
/// evicted because their slots are moving between cluster nodes.
const TTL_CHOICES_MAX: usize = 4096;

/// Whether CLIENT PAUSE forbids changes of the data set.
fn is_held_back(server: &Server) -> bool {
    server.armed & armed::PAUSED != 0 && server.pause.holds_writes(server.clock.now_ms)
}

/// The time limit of one eviction: 50 us for each step of `maxmemory-eviction-tenacity` up to 10;
/// above 10, 15 % more for each step; at 100 there is no limit.
fn time_limit(tenacity: u32) -> Duration {
    match tenacity {
        0..=10 => Duration::from_micros(50 * u64::from(tenacity)),
        11..=99 => Duration::from_secs_f64(500e-6 * 1.15f64.powi(tenacity as i32 - 10)),
        _ => Duration::MAX,
    }
}

/// The number of bytes by which the used memory exceeds `limit`; `None` if the memory is within the
/// limit. Memory that the background thread is about to free does not count as used.
fn excess(server: &Server, limit: usize) -> Option<usize> {
    // The bytes queued for the background thread are read before the used memory: a job of the
    // thread that ends between the two reads is counted as freed twice, which evicts too little
    // until the next command. If the used memory were read first, the memory that such a job frees
    // would count as in use, and keys would be evicted needlessly.
    let reclaimable = server.lazyfree.reclaimable();
    let above = server.memory_counted().checked_sub(limit)?;
    let left = above.checked_sub(reclaimable)?;
    (left > 0).then_some(left)
}

/// Evicts a key and returns the number of freed bytes. The memory of messages about the eviction
/// (propagation, invalidations) is not subtracted, since the messages about one eviction could then
/// cause the next eviction.
fn evict_key(server: &mut Server, db: u32, key: &[u8]) -> usize {
    let lazy = server.config.lazyfree_lazy_eviction;
    let (before, began) = (server.used_memory(), server.latency.begin());
    let queued = server.lazyfree.bytes_queued();
    if !server.delete_key(db, key, lazy) {
        return 0;
    }
    let now_s = server.clock.now_s();
    server.latency.end("eviction-del", began, now_s);
    let handed_over = server.lazyfree.bytes_queued().wrapping_sub(queued);
    let freed = before.saturating_sub(server.used_memory()) + handed_over;
    server.stats.evicted_keys += 1;
    server.propagate_deletion(db, key, lazy);
    server.signal_modified(None, db, key);
    server.notify(events::EVICTED, "evicted", key, db);
    server.end_unit();
    freed
}

/// Chooses the next key to evict, and returns its database and name. Keys of slots that are moving
/// between cluster nodes are not chosen.
fn choose(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    for _ in 0..CHOICES_MAX {
        let (db, key) = choose_any(server)?;
        if !slots_may_stay(server) || !stays(server, db, key_slot(&key)) {
            return Some((db, key));
        }
    }
    None
}

/// Whether there may be slots whose keys must not be evicted, since they are moving between cluster
/// nodes.
fn slots_may_stay(server: &Server) -> bool {
    server.armed & (armed::PAUSED | armed::SLOT_IMPORTS) != 0
}

/// Whether the keys of a slot must not be evicted: the slot is being imported from another node,
/// which decides on evictions, or is being handed over to another node.
fn stays(server: &Server, db: u32, slot: u16) -> bool {
    server.pause.holds_slot(slot) || server.data.dbs[db as usize].keys.is_hidden(slot)
}

fn choose_any(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    use MaxmemoryPolicy::*;
    match server.evict.policy {
        Noeviction => None,
        AllkeysRandom | VolatileRandom => choose_random(server),
        VolatileTtl => choose_ttl(server),
        _ => choose_scored(server),
    }
}

fn choose_ttl(server: &Server) -> Option<(u32, Vec<u8>)> {
    let some_stay = slots_may_stay(server);
    let first = |db: &Db| {
        let goes = |hash| !stays(server, db.index, slot_in(hash));
        let first = match some_stay {
            true => db.expires.first_where(TTL_CHOICES_MAX, goes),
            false => db.expires.first(),
        };
        first.map(|(at, hash)| (at, db.index, hash))
    };
    let (at, db, hash) = server.data.dbs.iter().filter_map(first).min()?;
    let entry = server.data.dbs[db as usize]
        .keys
        .find_by(hash, |e| e.expire_at() == Some(at))?;
    Some((db, entry.key().to_vec()))
}

fn choose_random(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    for _ in 0..server.data.dbs.len() {
        server.evict.next_db = (server.evict.next_db + 1) % server.data.dbs.len();
        let db = server.evict.next_db;
        let volatile = server.evict.is_volatile();
        if let Some(entry) = sample(&server.data.dbs[db], volatile, &mut server.rng) {
            return Some((db as u32, entry.key().to_vec()));
        }
    }
    None
}

/// A random key; with `volatile`, one that has a time to live.
fn sample<'a>(db: &'a Db, volatile: bool, rng: &mut Random) -> Option<KeyRef<'a>> {
    if !volatile {
        return db.keys.random(rng.raw());
    }
    if db.expires.is_empty() {
        return None;
    }
    for _ in 0..VOLATILE_TRIES {
        let entry = db.keys.random(rng.raw())?;
        if entry.has_expire() {
            return Some(entry);
        }
    }
    // If random tries find no key with a time to live, few keys have one, so that a walk over the
    // index of expiry times is short compared with the tries.
    let (at, hash) = db
        .expires
        .nth(rng.below(db.expires.len() as u64) as usize)?;
    db.keys.find_by(hash, |e| e.expire_at() == Some(at))
}

/// Adds sampled keys to the pool of candidates, and takes the best candidate that still exists.
fn choose_scored(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    let volatile = server.evict.is_volatile();
    let now = server.clock.now_ms;
    for db in 0..server.data.dbs.len() {
        for _ in 0..server.config.maxmemory_samples {
            let Some(entry) = sample(&server.data.dbs[db], volatile, &mut server.rng) else {
                break;
            };
            let score = server.evict.score(entry, now);
            let pool = &mut server.evict.pool;
            if pool.len() < POOL || pool[0].score < score {
                let (db, key) = (db as u32, entry.key().to_vec());
                enter_pool(pool, Candidate { score, db, key });
            }
        }
    }
    while let Some(best) = server.evict.pool.pop() {
        let hash = server.key_hasher.hash(&best.key);
        let found = server
            .data
            .dbs
            .get(best.db as usize)
            .and_then(|db| db.find(hash, &best.key));
        let Some(entry) = found.filter(|entry| !volatile || entry.has_expire()) else {
            continue;
        };
        let score = server.evict.score(entry, now);
        if score >= best.score {
            return Some((best.db, best.key));
        }
        // A key that was used since it entered the pool enters the pool again with its new score.
        enter_pool(&mut server.evict.pool, Candidate { score, ..best });
    }
    None
}

/// Inserts a candidate for eviction into the pool, which stays sorted by score, best last, and has
/// at most [`POOL`] candidates.
fn enter_pool(pool: &mut Vec<Candidate>, candidate: Candidate) {
    if pool
        .iter()
        .any(|c| c.db == candidate.db && c.key == candidate.key)
    {
        return;
    }
    let at = pool.partition_point(|c| c.score < candidate.score);
    if pool.len() == POOL {
        if at == 0 {
            return;
        }
        pool.insert(at, candidate);
        pool.remove(0);
    } else {
        pool.insert(at, candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Ttl;
    use crate::testing::say;
    use crate::types::string::encode;

    const NOW: i64 = 1_700_000_000_000;

    /// A server with keys `k0`, `k1`, ..., for each of which `keys` has the 29 bits about its use
    /// and the time to live.
    fn server_with(policy: MaxmemoryPolicy, keys: &[(u32, Ttl)]) -> Server {
        let config = crate::config::Config {
            maxmemory_policy: policy,
            ..Default::default()
        };
        let mut server = Server::new(config, Vec::new());
        server.config.maxmemory_samples = 64;
        server.clock.now_ms = NOW;
        for (i, &(bits, ttl)) in keys.iter().enumerate() {
            let key = format!("k{i}");
            let hash = server.key_hasher.hash(key.as_bytes());
            let (kind, value) = encode(b"value", None);
            server.data.dbs[i % 2].set(hash, key.as_bytes(), kind, value, bits, ttl);
        }
        server
    }

    fn order(server: &mut Server) -> Vec<String> {
        let mut order = Vec::new();
        while let Some((db, key)) = choose(server) {
            assert!(server.delete_key(db, &key, false));
            order.push(String::from_utf8_lossy(&key).into_owned());
        }
        order
    }

    #[test]
    fn lru_evicts_what_was_idle_longest() {
        let at = |seconds_ago: i64| (lru_clock(NOW - seconds_ago * 1000), Ttl::Clear);
        let mut server = server_with(
            MaxmemoryPolicy::AllkeysLru,
            &[at(10), at(40), at(0), at(30), at(20)],
        );
        assert_eq!(order(&mut server), ["k1", "k3", "k4", "k0", "k2"]);
    }

    #[test]
    fn lfu_evicts_what_was_used_least() {
        let with = |counter: u32| (minutes(NOW) << 8 | counter, Ttl::Clear);
        let mut server = server_with(
            MaxmemoryPolicy::AllkeysLfu,
            &[with(9), with(3), with(200), with(5)],
        );
        assert_eq!(order(&mut server), ["k1", "k3", "k0", "k2"]);
    }

    #[test]
    fn volatile_policies_leave_the_others_alone() {
        let now = lru_clock(NOW);
        let keys = [
            (now - 5, Ttl::At(NOW + 50)),
            (now - 90, Ttl::Clear),
            (now - 9, Ttl::At(NOW + 90)),
        ];
        assert_eq!(
            order(&mut server_with(MaxmemoryPolicy::VolatileTtl, &keys)),
            ["k0", "k2"]
        );
        assert_eq!(
            order(&mut server_with(MaxmemoryPolicy::VolatileLru, &keys)),
            ["k2", "k0"]
        );
        assert_eq!(
            order(&mut server_with(MaxmemoryPolicy::VolatileRandom, &keys)).len(),
            2
        );
        assert_eq!(
            order(&mut server_with(MaxmemoryPolicy::AllkeysRandom, &keys)).len(),
            3
        );
        assert_eq!(
            order(&mut server_with(MaxmemoryPolicy::Noeviction, &keys)).len(),
            0
        );
    }

    #[test]
    fn volatile_ttl_evicts_in_the_order_of_expiry() {
        // The keys fill several leaves of the index of expiry times, and are inserted in no order.
        let due = |i: i64| NOW + 1 + i * 7919 % 1000;
        let keys: Vec<_> = (0..1000).map(|i| (0, Ttl::At(due(i)))).collect();
        let mut server = server_with(MaxmemoryPolicy::VolatileTtl, &keys);
        let mut by_due: Vec<i64> = (0..1000).collect();
        by_due.sort_by_key(|i| due(*i));
        let names: Vec<_> = by_due.iter().map(|i| format!("k{i}")).collect();
        // The chosen key is the same when the slots of keys are checked, but no slot is moving.
        server.armed |= armed::SLOT_IMPORTS;
        assert_eq!(choose(&mut server).expect("a key").1, names[0].as_bytes());
        server.armed &= !armed::SLOT_IMPORTS;
        assert_eq!(order(&mut server), names);
    }

    #[test]
    fn under_lrm_only_changes_keep_a_key() {
        let mut server = server_with_policy("allkeys-lrm");
        let lines = [
            "SET a 1",
            "SET b 1",
            "LPUSH l x",
            "XADD s * f v",
            "XGROUP CREATE s g $",
            "SET c 1",
        ];
        say(&mut server, 0, &lines);
        // The test compares the bits about the keys' use, not OBJECT IDLETIME: on a busy machine
        // the clock moves on within these commands.
        let bits = |server: &Server| {
            ["a", "l", "b", "c", "s"].map(|key| {
                let hash = server.key_hasher.hash(key.as_bytes());
                let entry = server.data.dbs[0].find(hash, key.as_bytes());
                entry.expect("a key").lru()
            })
        };
        let before = bits(&server);
        let later_ms = server.clock.now_ms + 100_000;
        let lines = [
            "GET a",
            "TOUCH a",
            "LRANGE l 0 -1",
            "SETNX a 2",
            "LREM l 0 none",
            "XACK s g 1-1",
            "EXPIRE c 99999999999",
            "APPEND b 2",
        ];
        for line in lines {
            // A command may set the server's clock at its end, so the test sets the clock before
            // each command.
            server.clock.now_ms = later_ms;
            say(&mut server, 0, &[line]);
        }
        let after = bits(&server);
        let changed: Vec<bool> = before.iter().zip(after).map(|(a, b)| *a != b).collect();
        assert_eq!(changed, [false, false, true, true, true]);
        let error = say(&mut server, 0, &["OBJECT FREQ a"]);
        assert!(error.starts_with("-ERR An LFU maxmemory policy is not selected"));
    }

    /// A server with one client and the `maxmemory-policy` `name`.
    fn server_with_policy(name: &str) -> Server {
        let mut server = crate::testing::server_with(1);
        let set = format!("CONFIG SET maxmemory-policy {name}");
        assert_eq!(say(&mut server, 0, &[&set]), "+OK\r\n");
        server
    }

    #[test]
    fn a_candidate_that_was_used_since_is_spared() {
        let now = lru_clock(NOW);
        let keys: Vec<_> = (0..6).map(|i| (now - 100 + 10 * i, Ttl::Clear)).collect();
        let mut server = server_with(MaxmemoryPolicy::AllkeysLru, &keys);
        assert_eq!(
            choose(&mut server).map(|(_, key)| key),
            Some(b"k0".to_vec())
        );
        // The first choice took k0 out of the pool, but nothing has deleted k0 yet; k1 is in the
        // pool, and is used now.
        let hash = server.key_hasher.hash(b"k1");
        server.data.dbs[1]
            .find_mut(hash, b"k1")
            .expect("k1")
            .set_lru(now);
        assert!(server.delete_key(0, b"k0", false));
        assert_eq!(order(&mut server), ["k2", "k3", "k4", "k5", "k1"]);
    }

    #[test]
    fn the_pool_keeps_the_best() {
        let mut pool = Vec::new();
        for score in (0..40).chain(0..40) {
            enter_pool(
                &mut pool,
                Candidate {
                    score,
                    db: 0,
                    key: vec![score as u8],
                },
            );
        }
        let scores: Vec<u64> = pool.iter().map(|c| c.score).collect();
        assert_eq!(scores, (24..40).collect::<Vec<u64>>());
    }

    #[test]
    fn the_counter_decays_by_one_a_period() {
        let at = |minute: u32, counter: u32| minute << 8 | counter;
        assert_eq!(decayed(at(100, 50), 100, 1), 50);
        assert_eq!(decayed(at(100, 50), 107, 1), 43);
        assert_eq!(decayed(at(100, 50), 107, 3), 48);
        assert_eq!(decayed(at(100, 5), 200, 1), 0);
        assert_eq!(decayed(at(100, 50), 200, 0), 50, "0 is never");
        assert_eq!(decayed(at(0xfffe, 50), 3, 1), 45, "minutes wrap at 16 bits");
    }

    #[test]
    fn the_counter_grows_ever_more_seldom() {
        let step = |counter: u32, dice: f64| {
            let step = LfuStep {
                minutes: 7,
                decay_time: 1,
                log_factor: 10,
                dice,
            };
            step.touched(7 << 8 | counter) & 255
        };
        // Up to the initial value of an LFU counter, each access increments it.
        assert_eq!((step(0, 0.999), step(5, 0.999)), (1, 6));
        // An LFU counter that is 10 above the initial value 5 is increased with a probability of 1
        // / 101.
        assert_eq!((step(15, 1.0 / 101.1), step(15, 1.0 / 100.9)), (16, 15));
        assert_eq!(step(255, 0.0), 255);
    }

    #[test]
    fn the_lru_clock_wraps() {
        let evict = Eviction::new(1);
        let end_ms = i64::from(STEPS_MASK + 1) << STEP_SHIFT;
        assert_eq!(
            evict.idle_seconds(lru_clock(end_ms - 5000), end_ms + 2000),
            7
        );
        assert_eq!(evict.idle_seconds(evict.stamp_idle(90, NOW), NOW), 90);
        assert_eq!(
            evict.idle_seconds(lru_clock(NOW + 3000), NOW),
            0,
            "set back"
        );
        let used_s = evict.last_use_s(lru_clock(NOW), NOW);
        assert!(((NOW - 64) / 1000..=NOW / 1000).contains(&used_s));
        for ms in 0..3000 {
            assert_eq!(evict.last_use_s(lru_clock(NOW), NOW + ms), used_s);
            let idle = evict.idle_seconds(lru_clock(NOW), NOW + ms);
            assert!(
                (ms / 1000..=(ms + 63) / 1000).contains(&i64::from(idle)),
                "{ms}"
            );
        }
        assert_eq!(evict.frequency(evict.stamp_frequency(77, NOW), NOW), 77);
    }

    #[test]
    fn tenacity_is_a_time_limit() {
        assert_eq!(time_limit(0), Duration::ZERO);
        assert_eq!(time_limit(10), Duration::from_micros(500));
        assert!(time_limit(99) > time_limit(98) && time_limit(99) < Duration::from_secs(300));
        assert_eq!(time_limit(100), Duration::MAX);
    }
}
