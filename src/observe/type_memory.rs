//! Memory by type, for the live page: keys and bytes of each type, as an estimate.
//!
//! ```text
//!   a reader of /events ─> the cron walks the keyspace by SCAN's cursor, one percent of the time
//!                            ├─ during the first pass: what was seen, scaled to all keys
//!                            └─ after a pass: its figures, until the next one ends, PAUSE_MS later or more
//!   no reader ─> nothing is kept and nothing walks
//! ```
//!
//! SCAN's order is that of the keys' hashes, which is independent of their types and sizes. So the
//! keys that a pass has visited so far are a random sample without repetition, and the sums of a
//! whole pass are exact, but for the keys that changed meanwhile. Independent samples of random
//! keys would need to be far larger to include the few large keys. On a cluster node SCAN's order
//! is that of the slots, so keys with one hash tag come together, and an estimate during the first
//! pass may be far off.
//!
//! Databases are walked one after the other: until the first pass has reached the last database,
//! the keys of the remaining databases are estimated from the keys of the earlier databases. The
//! bytes of a key are those of MEMORY USAGE, for large values an estimate
//! (`types::memory_estimate`).
//!
//! **Invariant:** after a pass over keys that do not change, the figures are the sums over all keys
//! (`tests::a_pass_has_the_sums_of_all_keys`).

use std::time::Duration;

use crate::db::Db;
use crate::observe::pass::{self, Pass};
use crate::state::Server;
use crate::sys::instant::Instant;
use crate::types::kind::type_of;
use crate::types::{Type, memory_estimate};

/// The time between two passes over the keyspace, in milliseconds.
const PAUSE_MS: i64 = 5000;

/// The number and the bytes of the keys of one type.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OfType {
    pub keys: u64,
    pub bytes: u64,
}

/// Keys and bytes, summed by a pass over the keyspace, for each type in the order of [`Type::ALL`].
type Sums = [OfType; Type::ALL.len()];

fn keys_of(sums: &Sums) -> u64 {
    sums.iter().map(|of| of.keys).sum()
}

/// The present pass over the keyspace, and the sums of the last complete pass.
#[derive(Default)]
pub struct TypeMemory {
    pass: Pass,
    /// The sums of the present pass so far.
    sums: Sums,
    last: Option<Sums>,
    /// The Unix time in milliseconds at which the next pass may begin.
    due_ms: i64,
}

/// The figures that the live page shows: keys and bytes of each type.
#[derive(PartialEq, Eq, Debug)]
pub struct Estimate {
    /// The keys and bytes of each type, in the order of [`Type::ALL`].
    pub types: Sums,
    /// The number of keys that the pass has visited.
    pub seen: u64,
    /// Whether the figures come from a complete pass over all keys.
    pub whole: bool,
}

impl TypeMemory {
    /// Continues the walk over the keyspace by a few buckets of its hash tables. Returns true at
    /// the end of the pass.
    fn go_on(&mut self, dbs: &[Db]) -> bool {
        let is_over = self.pass.go_on(dbs, |_, entry| {
            let of = &mut self.sums[type_of(entry.kind()).place()];
            of.keys += 1;
            of.bytes += memory_estimate(entry) as u64;
        });
        if is_over {
            self.pass = Pass::default();
            self.last = Some(std::mem::take(&mut self.sums));
        }
        is_over
    }

    /// Estimates keys and bytes of each type in a keyspace of `keys` keys.
    pub fn estimate(&self, keys: u64) -> Estimate {
        if let Some(last) = self.last {
            return Estimate {
                types: last,
                seen: keys_of(&last),
                whole: true,
            };
        }
        let sums = &self.sums;
        let seen = keys_of(sums);
        let scaled = |n: u64| (u128::from(n) * u128::from(keys) / u128::from(seen.max(1))) as u64;
        Estimate {
            types: sums.map(|of| OfType {
                keys: scaled(of.keys),
                bytes: scaled(of.bytes),
            }),
            seen,
            whole: false,
        }
    }
}

/// The cron's step: continues the pass over the keyspace while a live page is open, and drops all
/// figures when no page is open.
pub fn cron(server: &mut Server, period: Duration) {
    if !server.visits.has_reader() {
        server.visits.type_memory = None;
        return;
    }
    if server.loading.is_in_place() {
        return;
    }
    let (now_ms, began) = (server.clock.now_ms, Instant::now());
    let memory = server.visits.type_memory.get_or_insert_default();
    if now_ms < memory.due_ms {
        return;
    }
    while began.elapsed() < period.mul_f64(pass::SHARE) {
        if memory.go_on(&server.data.dbs) {
            memory.due_ms = now_ms + PAUSE_MS;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{say, server_with};

    fn fill(server: &mut Server) {
        for n in 0..1000 {
            say(server, 0, &[&format!("set string:{n} {n}")]);
            say(server, 0, &[&format!("rpush list:{n} a b {n}")]);
        }
        say(
            server,
            0,
            &[
                "select 9",
                "sadd set a b",
                "zadd zset 1 a 2 b",
                "hset hash field value",
                "xadd stream 1-1 field value",
                "select 0",
            ],
        );
    }

    /// Keys and bytes of each type, from a walk over all keys.
    fn walked(server: &Server) -> Sums {
        let mut sums = Sums::default();
        for entry in server.data.dbs.iter().flat_map(|db| db.keys.iter()) {
            let of = &mut sums[type_of(entry.kind()).place()];
            of.keys += 1;
            of.bytes += memory_estimate(entry) as u64;
        }
        sums
    }

    #[test]
    fn a_pass_has_the_sums_of_all_keys() {
        let mut server = server_with(1);
        fill(&mut server);
        let mut memory = TypeMemory::default();
        while !memory.go_on(&server.data.dbs) {}
        let found = memory.estimate(2004);
        assert_eq!(found.types, walked(&server));
        assert_eq!((found.seen, found.whole), (2004, true));
        // The next pass begins anew, and the figures of the finished pass stay until the next one
        // ends.
        say(&mut server, 0, &["flushall"]);
        assert_eq!(memory.estimate(0), found);
        while !memory.go_on(&server.data.dbs) {}
        assert_eq!(memory.estimate(0).types, Sums::default());
    }

    /// The figures of a part of the keys are scaled to the number of all keys, and the types have
    /// nearly their true shares.
    #[test]
    fn a_part_of_a_pass_is_an_estimate() {
        let mut server = server_with(1);
        fill(&mut server);
        let mut memory = TypeMemory::default();
        assert_eq!(memory.estimate(2004).types, Sums::default());
        while keys_of(&memory.sums) < 800 {
            assert!(!memory.go_on(&server.data.dbs));
        }
        let found = memory.estimate(2004);
        assert!(!found.whole && found.seen < 1500, "{found:?}");
        let sum = keys_of(&found.types);
        assert!((2000..=2004).contains(&sum), "{found:?}");
        let [strings, lists, ..] = found.types;
        let [all_strings, all_lists, ..] = walked(&server);
        for (found, all) in [(strings, all_strings), (lists, all_lists)] {
            assert!(found.keys.abs_diff(all.keys) < 150, "{found:?} of {all:?}");
            let off = found.bytes.abs_diff(all.bytes);
            assert!(off < all.bytes / 7, "{found:?} of {all:?}");
        }
    }

    #[test]
    fn without_a_page_nothing_is_kept() {
        let mut server = server_with(1);
        server.visits.type_memory = Some(TypeMemory::default());
        cron(&mut server, Duration::from_millis(100));
        assert!(server.visits.type_memory.is_none());
    }
}
