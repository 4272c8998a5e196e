//! Whole keys and whole databases: freeing, flushing, swapping.

use crate::db::notify;
use crate::state::Server;
use crate::sys::lazyfree::LazyFree;
use crate::types::{Key, Type};

/// A value with more elements than this is freed in the background.
const LAZY_EFFORT_MIN: usize = 64;

/// Free an entry that was taken out of its table; `lazy` values that take long, in the background.
pub fn free_entry(lazyfree: &LazyFree, entry: Key, lazy: bool) {
    if lazy && crate::types::free_effort(entry.as_ref()) > LAZY_EFFORT_MIN {
        lazyfree.free(Box::new(entry), 1);
    }
}

impl Server {
    /// Empty one database, or all. Returns the number of keys that went.
    pub fn empty_dbs(&mut self, which: Option<u32>, lazy: bool) -> u64 {
        let range = match which {
            Some(db) => db as usize..db as usize + 1,
            None => 0..self.dbs.len(),
        };
        let mut removed = 0;
        for index in range {
            let keys = self.dbs[index].take_keys();
            let len = keys.len();
            removed += len as u64;
            if lazy && len > 0 {
                self.lazyfree.free(Box::new(keys), len);
            }
        }
        removed
    }

    /// FLUSHDB and FLUSHALL: wake up watchers, then empty.
    pub fn flush(&mut self, which: Option<u32>, lazy: bool) -> u64 {
        match which {
            Some(db) => crate::commands::multi::touch_all_watched(self, db, None),
            None => {
                for db in 0..self.dbs.len() as u32 {
                    crate::commands::multi::touch_all_watched(self, db, None);
                }
            }
        }
        self.empty_dbs(which, lazy)
    }

    /// Exchange two databases: their keys, not the clients that watch or wait.
    pub fn swap_dbs(&mut self, a: u32, b: u32) {
        if a == b {
            return;
        }
        crate::commands::multi::touch_all_watched(self, a, Some(b));
        crate::commands::multi::touch_all_watched(self, b, Some(a));
        let [first, second] = self
            .dbs
            .get_disjoint_mut([a as usize, b as usize])
            .expect("two databases");
        std::mem::swap(&mut first.keys, &mut second.keys);
        std::mem::swap(&mut first.expires, &mut second.expires);
        std::mem::swap(&mut first.avg_ttl_ms, &mut second.avg_ttl_ms);
        self.signal_all_ready(a);
        self.signal_all_ready(b);
    }

    /// After a key came to be under a new name: those who wait for one of its kind may be served.
    pub fn key_arrived(&mut self, db: u32, key: &[u8], kind: Type) {
        let _ = kind;
        self.signal_key_ready(db, key);
        self.notify(notify::NEW, "new", key, db);
    }
}
