//! A pass over all keys in steps, by SCAN's cursor, database after database. The cron runs the
//! steps of a pass.
//!
//! **Invariant:** a step reads at most [`BATCH`] buckets, whatever the size of the keyspace.

use crate::db::Db;
use crate::types::KeyRef;

/// The share of the time that a pass may take: one millisecond in each tenth of a second.
pub const SHARE: f64 = 0.01;
/// The number of buckets of the keyspace that one step of a pass visits.
const BATCH: usize = 16;

/// The position of a pass over all keys: the database and SCAN's cursor in it.
#[derive(Clone, Copy, Default)]
pub struct Pass {
    db: usize,
    cursor: u64,
}

impl Pass {
    /// Visits the keys of the next [`BATCH`] buckets. Returns true at the end of the pass.
    pub fn go_on(&mut self, dbs: &[Db], mut visit: impl FnMut(&Db, KeyRef)) -> bool {
        for _ in 0..BATCH {
            let Some(db) = dbs.get(self.db) else {
                return true;
            };
            self.cursor = db.keys.scan(self.cursor, |entry| visit(db, entry));
            if self.cursor == 0 {
                self.db += 1;
            }
        }
        false
    }
}
