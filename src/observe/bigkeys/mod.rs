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
//! After the pass over all keys (`complete`), every key that is not listed has at most the size
//! `floor`, and the listed keys are exactly the largest (`Ranking`). During the pass, the rankings
//! lack keys that the pass has not reached yet and that were not written since its start. Every
//! change of a value goes through `signal_modified`, so the rankings are always up to date. The
//! bytes of a key are those of MEMORY USAGE; the bytes of long lists, streams and big sorted sets
//! are estimated from a few of their nodes (`types::memory_estimate`), so that the cost of a change
//! does not depend on the size of the value.
//!
//! Most writes are to keys that are neither listed nor large. A write to such a small key is
//! recognized without a search of the rankings: by the floor, and by a filter of 65,536 bits in
//! which one bit is set for each listed key. Cost in instructions (callgrind): SET of 16 bytes
//! 2,500 instead of 2,160, HSET into one large hash 4,040 instead of 2,980; half of the difference
//! for HSET is for estimating the size from five of the hash's fields.
//!
//! **Invariant:** the filter's bit of each listed key is set
//! (`tests::rankings_follow_the_keyspace`).
//! **Invariant:** the rankings agree with a walk over the keyspace whenever no pass is running
//! (`tests::rankings_follow_the_keyspace`).
//!
//! Source of the floor: the threshold of the top-k operators of databases (Fagin, Lotem, Naor:
//! "Optimal Aggregation Algorithms for Middleware", 2003): a key below this threshold need not be
//! recorded.

pub mod ranking;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::armed;
use crate::observe::key_name::Name;
use crate::observe::pass::{self, Pass};
use crate::state::Server;
use crate::sys::instant::Instant;
use crate::types::kind::type_of;
use crate::types::{KeyRef, Type, length, memory_estimate};
use ranking::Ranking;

/// The number of bits of the filter: nearly all bits are clear even when all rankings are full.
const FILTER_BITS: u64 = 65_536;

/// The rankings of the keys of one type: by elements, and by bytes.
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

/// The rankings of the largest keys of all types.
pub struct BigKeys {
    /// The rankings of each type, in the order of [`Type::ALL`].
    types: [OfType; Type::ALL.len()],
    /// A bit for the identity of each listed key; bits of keys that were removed may remain.
    filter: Box<[u64; FILTER_BITS as usize / 64]>,
    /// The number of bits set since the filter was last rebuilt.
    filtered: u64,
    pass: Option<Pass>,
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
    /// Whether the pass over all keys is over, so that the rankings are complete.
    pub fn is_complete(&self) -> bool {
        self.pass.is_none()
    }

    /// The rankings of the keys of the type `kind`.
    pub fn of(&self, kind: Type) -> &OfType {
        &self.types[kind.place()]
    }

    fn rankings(&mut self) -> impl Iterator<Item = &mut Ranking> {
        self.types.iter_mut().flat_map(OfType::rankings)
    }

    /// Records in the rankings the size of a key that was written, or that the pass over all keys
    /// has reached.
    fn offer(&mut self, name: Name, entry: KeyRef) {
        let (kind, listed) = (type_of(entry.kind()).place(), self.may_be_listed(name));
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
            // Either the rankings list the key under its former type, or the key's bit in the
            // filter was set by another key with the same bit.
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

    /// Sets a key's bit in the filter. When many bits are set, the filter is rebuilt from the keys
    /// in the rankings.
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

    /// Starts a pass over all keys. The keys that are in the rankings stay there.
    fn begin_pass(&mut self) {
        self.rankings().for_each(Ranking::lower_floor);
        self.pass = Some(Pass::default());
    }

    /// The number of bytes of the rankings and the filter.
    pub fn memory(&self) -> usize {
        let of_type = |of: &OfType| of.elements.memory() + of.bytes.memory();
        size_of::<BigKeys>()
            + FILTER_BITS as usize / 8
            + self.types.iter().map(of_type).sum::<usize>()
    }
}

fn bit_of(identity: u64) -> (usize, u64) {
    let at = identity % FILTER_BITS;
    ((at / 64) as usize, 1 << (at % 64))
}

/// Updates the rankings after a key was changed or deleted.
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

/// Removes from the rankings the keys of a database that was emptied, or of all databases (`None`).
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

/// Exchanges two databases in the rankings, after SWAPDB. A running pass begins anew, since it may
/// have seen one of the databases under its old number.
pub fn swapped(server: &mut Server, a: u32, b: u32) {
    if let Some(big) = &mut server.bigkeys {
        big.rankings().for_each(|ranking| ranking.swap_dbs(a, b));
        big.renew_filter();
        if big.pass.is_some() {
            big.begin_pass();
        }
    }
}

/// Begins a pass after a data set was loaded.
pub fn loaded(server: &mut Server) {
    if let Some(big) = &mut server.bigkeys {
        big.begin_pass();
    }
}

/// The cron's step: continues the pass over all keys, or begins a pass if a ranking has too few
/// keys left.
pub fn cron(server: &mut Server, period: Duration) {
    if server.armed & armed::BIGKEYS == 0 || server.loading.is_in_place() {
        return;
    }
    let began = Instant::now();
    while !go_on(server) && began.elapsed() < period.mul_f64(pass::SHARE) {}
    if let Some(big) = &mut server.bigkeys
        && big.pass.is_none()
        && big.rankings().any(|ranking| ranking.is_short())
    {
        big.begin_pass();
    }
}

/// Offers the keys of the next few buckets of the keyspace to the rankings. Returns true at the end
/// of the pass.
fn go_on(server: &mut Server) -> bool {
    let (dbs, now_ms) = (&server.data.dbs, server.clock.now_ms);
    let Some(big) = &mut server.bigkeys else {
        return true;
    };
    let Some(mut pass) = big.pass else {
        return true;
    };
    let is_over = pass.go_on(dbs, |db, entry| {
        let key = entry.key();
        let name = Name {
            db: db.index,
            hash: db.keys.hash(key),
            key,
        };
        // Expired keys are skipped: their deletion, which comes soon, is signalled anyway.
        if entry.expire_at().is_none_or(|at| at >= now_ms) {
            big.offer(name, entry);
        }
    });
    big.pass = (!is_over).then_some(pass);
    is_over
}

impl Server {
    /// Begins or stops tracking the largest keys, as `bigkeys-tracking` says.
    pub fn follow_bigkeys_setting(&mut self) {
        if self.config.bigkeys_tracking != self.bigkeys.is_some() {
            self.bigkeys = self.config.bigkeys_tracking.then(Box::default);
            self.update_armed();
        }
    }

    /// BIGKEYS RESET: clears the rankings and starts a new pass over all keys. Returns false if
    /// tracking is off.
    pub fn reset_bigkeys(&mut self) -> bool {
        self.bigkeys
            .as_mut()
            .map(|big| **big = BigKeys::default())
            .is_some()
    }
}
