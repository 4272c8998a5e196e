//! The expiry times that clients of a writable replica set. The primary does not have the expiry
//! times that a replica's clients set, and sends no deletions for them, so the replica deletes
//! these keys itself.
//!
//! ```text
//!   SET k v EX 5, by a client ──> note ──> due, earliest first ──> pop_due ──> deleted, if k still
//!                                                                              has that time
//! ```
//!
//! A key is identified by its hash, as in a database's index of expiry times. If the primary
//! deletes or changes a key, its entry stays in this table until its expiry time, and then has no
//! effect. (Redis stores the names of keys whose expiry times a replica's clients have set, and
//! checks some of the keys at random.)
//!
//! **Invariant:** `times` and `due` have the same entries (`tests::a_key_has_one_time`).
//! **Limit:** the table has at most [`MAX_KEYS`] keys, of about 100 bytes each. Keys that do not
//! fit into the table are hidden from clients after their expiry time, and their memory is freed
//! when they are overwritten or this server is promoted.

use std::collections::{BTreeSet, HashMap};

/// The maximum number of keys whose expiry times, set by a replica's clients, are stored.
const MAX_KEYS: usize = 1 << 20;

/// The keys whose expiry times a replica's clients have set. Databases are stored as numbers, keys
/// as hashes, times as Unix milliseconds.
#[derive(Default)]
pub struct OwnExpiries {
    times: HashMap<(u32, u64), i64>,
    due: BTreeSet<(i64, u32, u64)>,
}

impl OwnExpiries {
    /// The number of keys whose expiry times are stored.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// Records that a client has set the expiry time of a key to `at`.
    pub fn note(&mut self, db: u32, hash: u64, at: i64) {
        let old = self.times.get(&(db, hash)).copied();
        if old.is_none() && self.times.len() >= MAX_KEYS {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, db, hash));
        }
        self.times.insert((db, hash), at);
        self.due.insert((at, db, hash));
    }

    /// Removes the earliest expiry time from the table, if it is before `now`. Returns the key's
    /// database, hash and expiry time.
    pub fn pop_due(&mut self, now: i64) -> Option<(u32, u64, i64)> {
        let (at, db, hash) = *self.due.first().filter(|(at, ..)| *at < now)?;
        self.due.pop_first();
        self.times.remove(&(db, hash));
        Some((db, hash, at))
    }

    /// Forgets the expiry times of the keys of database `which`, or of all databases (`None`): the
    /// keys are gone.
    pub fn forget(&mut self, which: Option<u32>) {
        self.times
            .retain(|(db, _), _| which.is_some_and(|gone| gone != *db));
        self.due
            .retain(|(_, db, _)| which.is_some_and(|gone| gone != *db));
    }

    /// Exchanges the stored expiry times of two databases, after SWAPDB.
    pub fn swap_dbs(&mut self, a: u32, b: u32) {
        let all = std::mem::take(self).due;
        for (at, db, hash) in all {
            let db = match db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
            self.note(db, hash, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(keys: &[(u32, u64, i64)]) -> OwnExpiries {
        let mut own = OwnExpiries::default();
        keys.iter()
            .for_each(|(db, hash, at)| own.note(*db, *hash, *at));
        own
    }

    #[test]
    fn a_key_has_one_time() {
        let mut own = noted(&[(0, 1, 50), (0, 2, 10), (0, 1, 5), (3, 1, 20)]);
        assert_eq!((own.count(), own.due.len()), (3, 3));
        assert_eq!(
            own.pop_due(5),
            None,
            "a key is alive during its last millisecond"
        );
        assert_eq!(own.pop_due(21), Some((0, 1, 5)));
        assert_eq!(own.pop_due(21), Some((0, 2, 10)));
        assert_eq!(own.pop_due(21), Some((3, 1, 20)));
        assert_eq!((own.pop_due(21), own.count()), (None, 0));
    }

    #[test]
    fn databases_are_forgotten_and_exchanged() {
        let mut own = noted(&[(0, 1, 5), (1, 2, 6), (2, 3, 7)]);
        own.swap_dbs(0, 2);
        own.forget(Some(1));
        assert_eq!(own.pop_due(100), Some((2, 1, 5)));
        assert_eq!(own.pop_due(100), Some((0, 3, 7)));
        assert_eq!(own.count(), 0);
        own.note(0, 1, 5);
        own.forget(None);
        assert_eq!((own.count(), own.pop_due(100)), (0, None));
    }

    #[test]
    fn there_is_a_limit() {
        let mut own = OwnExpiries::default();
        (0..MAX_KEYS as u64 + 5).for_each(|hash| own.note(0, hash, 1));
        assert_eq!(own.count(), MAX_KEYS);
        own.note(0, 0, 2);
        assert_eq!(own.times[&(0, 0)], 2);
    }
}
