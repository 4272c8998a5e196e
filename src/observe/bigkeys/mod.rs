//! The largest keys of each type, by elements and by bytes, kept up to date as writes happen:
//! BIGKEYS.
//!
//! ```text
//!   any change, expiry, eviction -> signal_modified -> armed & BIGKEYS? -> key_changed -> look the key up, once
//!        string  list  set  zset  hash  stream                                  gone: out of all rankings
//!        /   \   / \   ..                                                       else: its length and bytes are offered
//!   elements  bytes      a `Ranking` each: 128 keys and a floor
//!
//!   switched on, loaded, too many of the kept ones gone -> a pass: the cron walks the keyspace by SCAN's cursor, one
//!                                                          percent of the time, and offers every key once
//! ```
//!
//! The promise: after the pass (`complete`), every key that is not listed has at most `floor`, and
//! the listed keys are exactly the largest (`Ranking`). During a pass, keys that were not written
//! since its start and that it has not reached yet are missing. Every change of a value goes
//! through `signal_modified`, so the rankings are never late. Bytes are those of MEMORY USAGE;
//! those of long lists, streams and big sorted sets are estimated from a few of their nodes
//! (`types::memory_estimate`), so that a change costs the same however large the value is.
//!
//! Most writes are to keys that are neither listed nor large. They are recognized without searching
//! the lists: by the floor, and by a filter of 65,536 bits, one of them set for each listed key. In
//! instructions, switched on: SET of 16 bytes 2,500 instead of 2,160, HSET into one large hash
//! 4,040 instead of 2,980 (callgrind; half of that is for estimating the size of five of its
//! fields).
//!
//! **Invariant:** a listed key has its bit in the filter (`tests::rankings_follow_the_keyspace`).
//! **Invariant:** the rankings agree with a walk over the keyspace whenever no pass is going on
//! (same test).
//!
//! Source of the promise: the threshold of the top-k operators of databases (Fagin, Lotem, Naor:
//! "Optimal Aggregation Algorithms for Middleware", 2003): a key below it need not be known.

pub mod ranking;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::armed;
use crate::observe::key_name::Name;
use crate::state::Server;
use crate::types::kind::type_of;
use crate::types::{KeyRef, Type, length, memory_estimate};
use ranking::Ranking;

/// The share of all time that a pass takes: a millisecond of each tenth of a second.
const PASS_SHARE: f64 = 0.01;
/// Buckets between two looks at the clock.
const BATCH: usize = 16;
/// So large that even a full set of lists leaves nearly all bits clear.
const FILTER_BITS: u64 = 65_536;

/// The rankings of one type.
#[derive(Default)]
pub struct OfType {
    pub elements: Ranking,
    pub bytes: Ranking,
}

impl OfType {
    fn rankings(&mut self) -> [&mut Ranking; 2] {
        [&mut self.elements, &mut self.bytes]
    }
}

pub struct BigKeys {
    /// In the order of [`Type::ALL`].
    types: [OfType; Type::ALL.len()],
    /// Bits of the identities of listed keys, and of some that were.
    filter: Box<[u64; FILTER_BITS as usize / 64]>,
    /// Bits set since it was last made anew.
    filtered: u64,
    pass: Option<Pass>,
}

/// How far a walk over the keyspace is.
#[derive(Clone, Copy, Default)]
struct Pass {
    db: u32,
    cursor: u64,
}

impl Default for BigKeys {
    fn default() -> BigKeys {
        BigKeys {
            types: Default::default(),
            filter: Box::new([0; FILTER_BITS as usize / 64]),
            filtered: 0,
            pass: Some(Pass::default()),
        }
    }
}

impl BigKeys {
    /// Whether every key has been seen.
    pub fn is_complete(&self) -> bool {
        self.pass.is_none()
    }

    pub fn of(&self, kind: Type) -> &OfType {
        &self.types[place(kind)]
    }

    fn rankings(&mut self) -> impl Iterator<Item = &mut Ranking> {
        self.types.iter_mut().flat_map(OfType::rankings)
    }

    /// A key holds this now.
    fn offer(&mut self, name: Name, entry: KeyRef) {
        let (kind, listed) = (place(type_of(entry.kind())), self.may_be_listed(name));
        let (elements, bytes) = (length(entry) as u64, memory_estimate(entry) as u64);
        let ours = &self.types[kind];
        let large = ours.elements.wants(elements) || ours.bytes.wants(bytes);
        if !large && !listed {
            return;
        }
        let ours = &mut self.types[kind];
        let [by_elements, by_bytes] = ours.rankings();
        let was_kept = by_elements.observe(name, elements) | by_bytes.observe(name, bytes);
        if listed && !was_kept {
            // It was of another type, or its bit is another key's.
            self.remove_from_others(name, kind);
        }
        if large && !listed {
            self.note(name);
        }
    }

    fn remove_from_others(&mut self, name: Name, kind: usize) {
        for (other, of_type) in self.types.iter_mut().enumerate() {
            if other != kind {
                let [elements, bytes] = of_type.rankings();
                elements.remove(name);
                bytes.remove(name);
            }
        }
    }

    fn gone(&mut self, name: Name) {
        if self.may_be_listed(name) {
            self.rankings().for_each(|ranking| ranking.remove(name));
        }
    }

    fn may_be_listed(&self, name: Name) -> bool {
        let (word, bit) = bit_of(name.identity());
        self.filter[word] & bit != 0
    }

    /// Set a key's bit. When many were set the filter is made anew from what is listed.
    fn note(&mut self, name: Name) {
        let (word, bit) = bit_of(name.identity());
        self.filter[word] |= bit;
        self.filtered += 1;
        if self.filtered > FILTER_BITS / 16 {
            self.renew_filter();
        }
    }

    fn renew_filter(&mut self) {
        self.filter.fill(0);
        self.filtered = 0;
        for ranking in self.types.iter_mut().flat_map(OfType::rankings) {
            for big in ranking.kept() {
                let (word, bit) = bit_of(big.name.identity());
                self.filter[word] |= bit;
                self.filtered += 1;
            }
        }
    }

    /// Walk over all keys, from the beginning. What is listed stays listed.
    fn begin_pass(&mut self) {
        self.rankings().for_each(Ranking::lower_floor);
        self.pass = Some(Pass::default());
    }

    pub fn memory(&self) -> usize {
        let of_type = |of: &OfType| of.elements.memory() + of.bytes.memory();
        size_of::<BigKeys>()
            + FILTER_BITS as usize / 8
            + self.types.iter().map(of_type).sum::<usize>()
    }
}

fn place(kind: Type) -> usize {
    Type::ALL.iter().position(|&t| t == kind).unwrap_or(0)
}

fn bit_of(identity: u64) -> (usize, u64) {
    let at = identity % FILTER_BITS;
    ((at / 64) as usize, 1 << (at % 64))
}

/// A key was changed, or is gone.
pub fn key_changed(server: &mut Server, db: u32, key: &[u8]) {
    let hash = server.hash_key(key);
    let Some(big) = &mut server.bigkeys else {
        return;
    };
    let name = Name { db, hash, key };
    match server.data.dbs[db as usize].find(hash, key) {
        Some(entry) => big.offer(name, entry),
        None => big.gone(name),
    }
}

/// A database was emptied, or all of them.
pub fn emptied(server: &mut Server, which: Option<u32>) {
    let Some(big) = &mut server.bigkeys else {
        return;
    };
    match which {
        Some(db) => big.rankings().for_each(|ranking| ranking.remove_db(db)),
        None => **big = BigKeys::default(),
    }
    big.renew_filter();
}

/// Two databases have changed places. A pass that is going on has seen one of them under its old
/// number, perhaps.
pub fn swapped(server: &mut Server, a: u32, b: u32) {
    if let Some(big) = &mut server.bigkeys {
        big.rankings().for_each(|ranking| ranking.swap_dbs(a, b));
        big.renew_filter();
        if big.pass.is_some() {
            big.begin_pass();
        }
    }
}

/// A data set was loaded.
pub fn loaded(server: &mut Server) {
    if let Some(big) = &mut server.bigkeys {
        big.begin_pass();
    }
}

/// The cron: go on with the pass, or begin one if too few are left.
pub fn cron(server: &mut Server, period: Duration) {
    if server.armed & armed::BIGKEYS == 0 || server.loading {
        return;
    }
    let began = Instant::now();
    while !go_on(server) && began.elapsed() < period.mul_f64(PASS_SHARE) {}
    if let Some(big) = &mut server.bigkeys
        && big.pass.is_none()
        && big.rankings().any(|ranking| ranking.is_short())
    {
        big.begin_pass();
    }
}

/// Show the keys of some more buckets. True: the pass is over.
fn go_on(server: &mut Server) -> bool {
    let (dbs, now_ms) = (&server.data.dbs, server.clock.now_ms);
    let Some(big) = &mut server.bigkeys else {
        return true;
    };
    let Some(mut pass) = big.pass else {
        return true;
    };
    for _ in 0..BATCH {
        let Some(db) = dbs.get(pass.db as usize) else {
            big.pass = None;
            return true;
        };
        pass.cursor = db.keys.scan(pass.cursor, |entry| {
            let key = entry.key();
            let name = Name {
                db: pass.db,
                hash: db.keys.hash(key),
                key,
            };
            // What is past its time is about to go, and would be signalled when it does.
            if entry.expire_at().is_none_or(|at| at >= now_ms) {
                big.offer(name, entry);
            }
        });
        if pass.cursor == 0 {
            pass.db += 1;
        }
    }
    big.pass = Some(pass);
    false
}

impl Server {
    /// Begins or stops tracking the largest keys, as the setting says.
    pub fn follow_bigkeys_setting(&mut self) {
        if self.config.bigkeys_tracking != self.bigkeys.is_some() {
            self.bigkeys = self.config.bigkeys_tracking.then(Box::default);
            self.update_armed();
        }
    }

    /// BIGKEYS RESET: forgets everything and starts a new pass over all keys. False: nothing is
    /// tracked at all.
    pub fn reset_bigkeys(&mut self) -> bool {
        self.bigkeys
            .as_mut()
            .map(|big| **big = BigKeys::default())
            .is_some()
    }
}
