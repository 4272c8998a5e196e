//! Eviction: when `maxmemory` is reached, which keys go first.
//!
//! Each entry has 24 bits about its use. Under an LRU policy they are the time of the last access in
//! seconds; under LFU 16 bits are the time of the last decrement in minutes and 8 bits a counter that grows
//! logarithmically (Morris, 1978: "Counting large numbers of events in small registers").
//!
//! ```text
//!   lru:  [ seconds, modulo 2^24 (194 days)        ]
//!   lfu:  [ minutes, modulo 2^16 ][ counter 0..255 ]
//! ```
//!
//! Candidates are sampled (`maxmemory-samples` keys of each database) into a pool of the best 16 seen so
//! far; volatile-ttl needs no sample, the index of expiries is ordered.

use crate::config::MaxmemoryPolicy;
use crate::db::{Db, notify};
use crate::state::Server;
use crate::types::KeyRef;
use crate::util::random::Random;

pub const LRU_MASK: i64 = (1 << 24) - 1;
const LFU_INIT: u32 = 5;
const POOL: usize = 16;

pub struct Eviction {
    pub policy: MaxmemoryPolicy,
    lfu_log_factor: u32,
    lfu_decay_time: u32,
    /// While a child saves, accesses leave no trace: a written page is a copied page.
    pub frozen: bool,
    /// Decides whether an LFU counter grows.
    rng: Random,
    pool: Vec<Candidate>,
    next_db: usize,
}

struct Candidate {
    score: u64,
    db: u32,
    key: Vec<u8>,
}

/// How one access changes an entry's 24 bits.
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
    /// The bits after the access.
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

/// The counter less one for each `decay_time` minutes without an access.
fn decayed(bits: u32, minutes: u32, decay_time: u32) -> u32 {
    let (since, counter) = (bits >> 8, bits & 255);
    let elapsed = minutes.wrapping_sub(since) & 0xffff;
    let periods = elapsed.checked_div(decay_time).unwrap_or(0);
    counter.saturating_sub(periods)
}

fn lru_clock(now_ms: i64) -> u32 {
    (now_ms / 1000 & LRU_MASK) as u32
}

fn minutes(now_ms: i64) -> u32 {
    (now_ms / 60_000 & 0xffff) as u32
}

impl Eviction {
    pub fn new(seed: u64) -> Eviction {
        Eviction {
            policy: MaxmemoryPolicy::Noeviction,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
            frozen: false,
            rng: Random::from_seed(seed),
            pool: Vec::new(),
            next_db: 0,
        }
    }

    /// Take over the settings.
    pub fn configure(&mut self, config: &crate::config::Config) {
        self.policy = config.maxmemory_policy;
        self.lfu_log_factor = config.lfu_log_factor as u32;
        self.lfu_decay_time = config.lfu_decay_time as u32;
    }

    pub fn is_lfu(&self) -> bool {
        self.policy.is_lfu()
    }

    fn is_volatile(&self) -> bool {
        use MaxmemoryPolicy::*;
        matches!(
            self.policy,
            VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl
        )
    }

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

    /// The bits of a new key.
    #[inline]
    pub fn new_stamp(&self, now_ms: i64) -> u32 {
        if self.is_lfu() {
            minutes(now_ms) << 8 | LFU_INIT
        } else {
            lru_clock(now_ms)
        }
    }

    /// OBJECT FREQ.
    pub fn frequency(&self, bits: u32, now_ms: i64) -> u32 {
        decayed(bits, minutes(now_ms), self.lfu_decay_time)
    }

    /// OBJECT IDLETIME, in seconds.
    pub fn idle_seconds(&self, bits: u32, now_ms: i64) -> u32 {
        lru_clock(now_ms).wrapping_sub(bits) & LRU_MASK as u32
    }

    /// The bits of a key that was last used `seconds` ago: RESTORE IDLETIME.
    pub fn stamp_idle(&self, seconds: u32, now_ms: i64) -> u32 {
        lru_clock(now_ms).wrapping_sub(seconds) & LRU_MASK as u32
    }

    /// The bits of a key with a given counter: RESTORE FREQ.
    pub fn stamp_frequency(&self, counter: u8, now_ms: i64) -> u32 {
        minutes(now_ms) << 8 | counter as u32
    }

    /// The higher, the sooner it goes.
    fn score(&self, entry: KeyRef, now_ms: i64) -> u64 {
        if self.is_lfu() {
            255 - self.frequency(entry.lru(), now_ms) as u64
        } else {
            self.idle_seconds(entry.lru(), now_ms) as u64
        }
    }
}

/// Free memory until it is below `maxmemory`. False: nothing more can be evicted and it is still above.
pub fn perform_evictions(server: &mut Server) -> bool {
    let limit = server.config.maxmemory as usize;
    if limit == 0 || server.loading {
        return true;
    }
    let mut evicted = 0u32;
    while server.memory_counted() > limit {
        if server.evict.policy == MaxmemoryPolicy::Noeviction {
            return false;
        }
        let Some((db, key)) = choose(server) else {
            return server.lazyfree.pending() > 0;
        };
        evict_key(server, db, &key);
        evicted += 1;
        if evicted.is_multiple_of(512) {
            server.clock.update();
        }
    }
    true
}

fn evict_key(server: &mut Server, db: u32, key: &[u8]) {
    let lazy = server.config.lazyfree_lazy_eviction;
    if !server.delete_key(db, key, lazy) {
        return;
    }
    server.stats.evicted_keys += 1;
    server.propagate_deletion(db, key, lazy);
    server.signal_modified(None, db, key);
    server.notify(notify::EVICTED, "evicted", key, db);
}

/// The next key to go.
fn choose(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    use MaxmemoryPolicy::*;
    match server.evict.policy {
        Noeviction => None,
        AllkeysRandom | VolatileRandom => choose_random(server),
        VolatileTtl => choose_ttl(server),
        _ => choose_scored(server),
    }
}

fn choose_ttl(server: &Server) -> Option<(u32, Vec<u8>)> {
    let first = |db: &Db| db.expires.first().map(|(at, hash)| (at, db.index, hash));
    let (at, db, hash) = server.dbs.iter().filter_map(first).min()?;
    let entry = server.dbs[db as usize]
        .keys
        .find_by(hash, |e| e.expire_at() == Some(at))?;
    Some((db, entry.key().to_vec()))
}

fn choose_random(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    for _ in 0..server.dbs.len() {
        server.evict.next_db = (server.evict.next_db + 1) % server.dbs.len();
        let db = server.evict.next_db;
        let volatile = server.evict.is_volatile();
        if let Some(key) = sample(&server.dbs[db], volatile, &mut server.rng) {
            return Some((db as u32, key));
        }
    }
    None
}

/// A random key; of the volatile ones if asked for. Those are tried for a while, then the earliest is taken.
fn sample(db: &Db, volatile: bool, rng: &mut Random) -> Option<Vec<u8>> {
    if !volatile {
        return db.keys.random(rng.raw()).map(|e| e.key().to_vec());
    }
    if db.expires.is_empty() {
        return None;
    }
    for _ in 0..32 {
        let entry = db.keys.random(rng.raw())?;
        if entry.has_expire() {
            return Some(entry.key().to_vec());
        }
    }
    let (at, hash) = db.expires.first()?;
    db.keys
        .find_by(hash, |e| e.expire_at() == Some(at))
        .map(|e| e.key().to_vec())
}

/// Fill the pool with samples and take its best that still exists.
fn choose_scored(server: &mut Server) -> Option<(u32, Vec<u8>)> {
    let volatile = server.evict.is_volatile();
    let now = server.clock.now_ms;
    for db in 0..server.dbs.len() {
        for _ in 0..server.config.maxmemory_samples {
            let Some(key) = sample(&server.dbs[db], volatile, &mut server.rng) else {
                break;
            };
            let hash = server.seed.hash(&key);
            let Some(entry) = server.dbs[db].find(hash, &key) else {
                continue;
            };
            let score = server.evict.score(entry, now);
            enter_pool(
                &mut server.evict.pool,
                Candidate {
                    score,
                    db: db as u32,
                    key,
                },
            );
        }
    }
    while let Some(best) = server.evict.pool.pop() {
        let hash = server.seed.hash(&best.key);
        if server
            .dbs
            .get(best.db as usize)
            .is_some_and(|db| db.find(hash, &best.key).is_some())
        {
            return Some((best.db, best.key));
        }
    }
    None
}

/// Keep the pool sorted by score, best last, and short.
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
