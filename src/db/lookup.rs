//! Look-ups on behalf of commands: they expire what is due, count hits and misses, and note the access for
//! eviction. All of them take the hash that was computed when the request was parsed, if it was.

use crate::db::{Db, Ttl, notify};
use crate::networking::client::{Client, flag};
use crate::state::Server;
use crate::types::{KeyMut, KeyRef, New};

impl Server {
    /// The hash of a key. For the keys that the request's row names it was computed when the request was
    /// parsed; they are recognised by their address, in order.
    #[inline]
    pub fn hash_key(&mut self, key: &[u8]) -> u64 {
        let memo = &mut self.hashes;
        let at = (key.as_ptr() as usize, key.len());
        while let Some(&(start, len, hash)) = memo.entries.get(memo.cursor) {
            if (start, len) == at {
                return hash;
            }
            match memo.entries.get(memo.cursor + 1) {
                Some(&(start, len, _)) if (start, len) == at => memo.cursor += 1,
                _ => break,
            }
        }
        self.seed.hash(key)
    }

    #[inline]
    pub fn db(&mut self, index: u32) -> &mut Db {
        &mut self.dbs[index as usize]
    }

    /// The key to be read. `None`: it does not exist, or is past its time.
    #[inline]
    pub fn lookup_read(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        self.lookup_read_hashed(c, hash, key)
    }

    pub fn lookup_read_hashed(&mut self, c: &Client, hash: u64, key: &[u8]) -> Option<KeyRef<'_>> {
        self.expire_if_needed(c.db, hash, key);
        if self.notify_flags & notify::KEY_MISS != 0
            && self.dbs[c.db as usize].find(hash, key).is_none()
        {
            self.notify(notify::KEY_MISS, "keymiss", key, c.db);
        }
        let stamp = self.access_stamp(c);
        match self.dbs[c.db as usize].find_mut(hash, key) {
            Some(mut entry) => {
                self.stats.keyspace_hits += 1;
                if let Some(stamp) = stamp {
                    entry.set_lru(stamp.touched(entry.lru()));
                }
                Some(entry.into_ref())
            }
            None => {
                self.stats.keyspace_misses += 1;
                None
            }
        }
    }

    /// The key to be read, without a trace: no access time, no statistics (TTL, TYPE, OBJECT, ...).
    pub fn lookup_no_touch(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        self.expire_if_needed(c.db, hash, key);
        self.dbs[c.db as usize].find(hash, key)
    }

    /// The key to be changed.
    #[inline]
    pub fn lookup_write(&mut self, c: &Client, key: &[u8]) -> Option<KeyMut<'_>> {
        let hash = self.hash_key(key);
        self.expire_if_needed(c.db, hash, key);
        let stamp = self.access_stamp(c);
        let mut entry = self.dbs[c.db as usize].find_mut(hash, key)?;
        if let Some(stamp) = stamp {
            entry.set_lru(stamp.touched(entry.lru()));
        }
        Some(entry)
    }

    /// Whether a live key exists.
    pub fn exists(&mut self, c: &Client, key: &[u8]) -> bool {
        self.lookup_no_touch(c, key).is_some()
    }

    /// Set or replace a key, whatever it held.
    #[inline]
    pub fn set_key(&mut self, db: u32, key: &[u8], kind: u8, value: New, ttl: Ttl) {
        let hash = self.hash_key(key);
        let lru = self.evict.new_stamp(self.clock.now_ms);
        self.dbs[db as usize].set(hash, key, kind, value, lru, ttl);
    }

    /// Remove a key, freeing it in the background if that is large and wanted. False: there was none.
    pub fn delete_key(&mut self, db: u32, key: &[u8], lazy: bool) -> bool {
        let hash = self.hash_key(key);
        match self.dbs[db as usize].remove(hash, key) {
            Some(entry) => {
                crate::db::keyspace::free_entry(&self.lazyfree, entry, lazy);
                true
            }
            None => false,
        }
    }

    /// How an access is noted, `None` when it leaves no trace: CLIENT NO-TOUCH, or a child is saving.
    #[inline]
    fn access_stamp(&self, c: &Client) -> Option<crate::db::evict::Stamp> {
        if c.has(flag::NO_TOUCH) || self.evict.frozen {
            return None;
        }
        Some(self.evict.stamp(self.clock.now_ms))
    }
}
