//! Sets and deletes keys.
//!
//! If an expired key is overwritten, its expiry comes first: the deletion is propagated and
//! notified before the new value.

use crate::db::{Replaced, Ttl};
use crate::keyspace::events;
use crate::keyspace::expire::ExpiryPolicy;
use crate::keyspace::whole::free_entry;
use crate::state::Server;
use crate::types::{Key, New};

impl Server {
    /// Sets or replaces a key of any type. If an expired key is overwritten, its expiry is
    /// propagated and notified first.
    #[inline]
    pub fn set_key(&mut self, db: u32, key: &[u8], kind: u8, value: New, ttl: Ttl) {
        let hash = self.hash_key(key);
        if ttl == Ttl::Keep {
            self.expire_if_needed(db, hash, key);
        }
        let lru = self.evict.new_stamp(self.clock.now_ms);
        match self.data.dbs[db as usize].set(hash, key, kind, value, lru, ttl) {
            Replaced::Nothing => self.notify(events::NEW, "new", key, db),
            Replaced::Value {
                expire_at: None,
                entry: None,
            } => {}
            Replaced::Value { expire_at, entry } => self.replaced(db, key, expire_at, entry),
        }
    }

    /// Frees a replaced value. If the replaced key had expired, propagates and notifies its expiry.
    fn replaced(&mut self, db: u32, key: &[u8], expire_at: Option<i64>, entry: Option<Key>) {
        if let Some(entry) = entry {
            let lazy = self.config.lazyfree_lazy_server_del;
            free_entry(&self.lazyfree, entry, lazy);
        }
        if expire_at.is_some_and(|at| at < self.clock.now_ms)
            && self.expiry_policy() != ExpiryPolicy::Ignore
        {
            self.notify_expired(db, key);
            self.notify(events::NEW, "new", key, db);
        }
    }

    /// Deletes a key; with `lazy`, a large value is freed in the background. Returns false if the
    /// key does not exist.
    pub fn delete_key(&mut self, db: u32, key: &[u8], lazy: bool) -> bool {
        let hash = self.hash_key(key);
        match self.data.dbs[db as usize].remove(hash, key) {
            Some(entry) => {
                free_entry(&self.lazyfree, entry, lazy);
                true
            }
            None => false,
        }
    }
}
