//! Look-ups of keys for commands: a look-up removes an expired key, counts a hit or a miss, and
//! notes the access for eviction. A look-up uses the hash of the key that was computed when the
//! request was parsed, if there is one.
//!
//! ```text
//!                          hit/miss counted   keymiss sent   access noted
//!   lookup_read                  yes              yes            yes        GET
//!   lookup_touch                 yes              yes         even then     TOUCH, under CLIENT NO-TOUCH too
//!   lookup_peek                  yes              yes             -         EXISTS, TTL, TYPE
//!   lookup_peek_quietly          yes               -              -         OBJECT
//!   lookup_write                  -                -             yes        all that change
//!   lookup_no_touch, lookup_in    -                -              -         the server's own questions
//! ```
//!
//! **Invariant:** no look-up returns an expired key.

use crate::client::{Client, flag};
use crate::db::Db;
use crate::db::kvstore::KeyHasher;
use crate::keyspace::events;
use crate::keyspace::evict::Stamp;
use crate::state::Server;
use crate::types::KeyRef;
use crate::types::lengths::KeyWrite;

/// Hashes a key that was not hashed when its request was parsed. The function is not inlined, so
/// that [`Server::hash_key`] is small enough to be inlined.
#[inline(never)]
fn hash_of_other_key(hasher: &KeyHasher, key: &[u8]) -> u64 {
    hasher.hash(key)
}

impl Server {
    /// The hash of a key. The keys of a request are hashed when the request is parsed; for a key at
    /// the address of such a key, `hash_key` returns the stored hash.
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
        hash_of_other_key(&self.key_hasher, key)
    }

    /// The hash of a key of a command whose slots are checked before it runs. `place` is the index
    /// of the preceding key's hash among the hashes computed ahead; the search starts at this
    /// index.
    pub fn hash_ahead(&self, place: &mut usize, key: &[u8]) -> u64 {
        for at in [*place, *place + 1] {
            if let Some(&(start, len, hash)) = self.hashes.entries.get(at)
                && (start, len) == (key.as_ptr() as usize, key.len())
            {
                *place = at;
                return hash;
            }
        }
        hash_of_other_key(&self.key_hasher, key)
    }

    /// The database of this index, which must exist.
    #[inline]
    pub fn db(&mut self, index: u32) -> &mut Db {
        &mut self.data.dbs[index as usize]
    }

    /// Looks up a key to read it. `None` if the key does not exist or has expired.
    #[inline]
    pub fn lookup_read(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        self.lookup_read_hashed(c, hash, key)
    }

    /// Like [`Server::lookup_read`], for a key whose hash is known.
    pub fn lookup_read_hashed(&mut self, c: &Client, hash: u64, key: &[u8]) -> Option<KeyRef<'_>> {
        let stamp = self.access_stamp(c);
        self.read(c.db, hash, key, stamp, events::KEY_MISS)
    }

    /// Looks up a key to read it; the access is noted even under CLIENT NO-TOUCH.
    pub fn lookup_touch(&mut self, db: u32, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        let stamp = (!self.evict.notes_no_access()).then(|| self.evict.stamp(self.clock.now_ms));
        self.read(db, hash, key, stamp, events::KEY_MISS)
    }

    /// Looks up a key whose value is not used: a hit or a miss is counted, but no access is noted,
    /// so the key's eviction is not delayed.
    pub fn lookup_peek(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        self.read(c.db, hash, key, None, events::KEY_MISS)
    }

    /// Like [`Server::lookup_peek`], but a miss sends no keyspace notification.
    pub fn lookup_peek_quietly(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        self.read(c.db, hash, key, None, 0)
    }

    #[inline]
    fn read(
        &mut self,
        db: u32,
        hash: u64,
        key: &[u8],
        stamp: Option<Stamp>,
        miss_class: u32,
    ) -> Option<KeyRef<'_>> {
        let expired = self.expire_if_needed(db, hash, key);
        if self.notify_flags & miss_class != 0
            && (expired || self.data.dbs[db as usize].find(hash, key).is_none())
        {
            self.notify(events::KEY_MISS, "keymiss", key, db);
        }
        match self.data.dbs[db as usize].find_mut(hash, key) {
            Some(mut entry) if !expired => {
                self.stats.keyspace_hits += 1;
                if let Some(stamp) = stamp {
                    entry.set_lru(stamp.touched(entry.lru()));
                }
                Some(entry.into_ref())
            }
            _ => {
                self.stats.keyspace_misses += 1;
                None
            }
        }
    }

    /// Looks up a key in the client's database without noting the access and without counting a hit
    /// or a miss.
    pub fn lookup_no_touch(&mut self, c: &Client, key: &[u8]) -> Option<KeyRef<'_>> {
        self.lookup_in(c.db, key)
    }

    /// Looks up a key in database `db` without noting the access and without counting a hit or a
    /// miss.
    pub fn lookup_in(&mut self, db: u32, key: &[u8]) -> Option<KeyRef<'_>> {
        let hash = self.hash_key(key);
        if self.expire_if_needed(db, hash, key) {
            return None;
        }
        self.data.dbs[db as usize].find(hash, key)
    }

    /// Looks up a key to change it.
    #[inline]
    pub fn lookup_write(&mut self, c: &Client, key: &[u8]) -> Option<KeyWrite<'_>> {
        let hash = self.hash_key(key);
        if self.expire_if_needed(c.db, hash, key) {
            self.expire_for_writer(c.db, key);
            return None;
        }
        let stamp = self.access_stamp(c);
        let db = &mut self.data.dbs[c.db as usize];
        let mut entry = db.keys.find_mut(hash, key)?;
        match stamp {
            Some(stamp) => entry.set_lru(stamp.touched(entry.lru())),
            None => self.evict.note_group_change(&mut entry, self.clock.now_ms),
        }
        Some(KeyWrite::new(entry, db.lengths.as_deref_mut()))
    }

    /// How an access of this client changes an entry's bits about its use; `None` if accesses are
    /// not noted, such as under CLIENT NO-TOUCH and while a child saves.
    #[inline]
    fn access_stamp(&mut self, c: &Client) -> Option<Stamp> {
        if c.has(flag::NO_TOUCH) || self.evict.notes_no_access() {
            return None;
        }
        Some(self.evict.stamp(self.clock.now_ms))
    }
}
