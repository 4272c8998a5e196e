//! Whole keys and whole databases: freeing, renaming, moving, flushing, swapping.

use crate::client::Client;
use crate::db::Ttl;
use crate::ds::entry::OwnedValue;
use crate::keyspace::events;
use crate::keyspace::expire::ExpiryPolicy;
use crate::keyspace::top_level::TopLevel;
use crate::keyspace::watch::{Replacement, touch_all_watched};
use crate::state::Server;
use crate::sys::lazyfree::LazyFree;
use crate::types::{Key, KeyRef, New, Value};

/// A value with more allocations than this is freed in the background.
const LAZY_EFFORT_MIN: usize = 64;
/// The number of random keys that RANDOMKEY tries before it takes the next live one.
const RANDOM_TRIES: usize = 100;

/// Frees an entry that was taken out of its table; with `lazy`, large values are freed in the
/// background.
pub fn free_entry(lazyfree: &LazyFree, entry: Key, lazy: bool) {
    if lazy && crate::types::free_effort(entry.as_ref()) > LAZY_EFFORT_MIN {
        lazyfree.free(Box::new(entry), 1);
    }
}

/// A value without its key: RENAME, MOVE and COPY carry it from one key to another.
pub struct Detached {
    kind: u8,
    pub lru: u32,
    expire_at: Option<i64>,
    value: OwnedValue<Value>,
}

impl Detached {
    /// A copy of a key's value, with its time to live.
    pub fn copy_of(entry: KeyRef) -> Detached {
        Detached {
            kind: entry.kind(),
            lru: entry.lru(),
            expire_at: entry.expire_at(),
            value: crate::types::duplicate(entry),
        }
    }
}

impl From<Key> for Detached {
    fn from(entry: Key) -> Detached {
        let from = entry.as_ref();
        let (kind, lru, expire_at) = (from.kind(), from.lru(), from.expire_at());
        Detached {
            kind,
            lru,
            expire_at,
            value: entry.into_value(),
        }
    }
}

impl Server {
    /// Removes a key and returns its value, with its time to live.
    pub fn detach(&mut self, db: u32, key: &[u8]) -> Option<Detached> {
        let hash = self.hash_key(key);
        self.data.dbs[db as usize]
            .remove(hash, key)
            .map(Detached::from)
    }

    /// Stores a value under a key that does not exist.
    pub fn attach(&mut self, db: u32, key: &[u8], from: Detached) {
        let hash = self.hash_key(key);
        debug_assert!(
            self.data.dbs[db as usize].find(hash, key).is_none(),
            "the name is taken"
        );
        let ttl = from.expire_at.map_or(Ttl::Clear, Ttl::At);
        let text;
        let value = match from.value {
            OwnedValue::Int(n) => New::Int(n),
            OwnedValue::Obj(value) => New::Obj(value),
            OwnedValue::Str(bytes) => {
                text = bytes;
                New::Str(&text)
            }
        };
        self.data.dbs[db as usize].set(hash, key, from.kind, value, from.lru, ttl);
        if let Ttl::At(at) = ttl {
            self.note_expiry(db, key, at);
        }
        self.notify(events::NEW, "new", key, db);
    }

    /// A random live key; each is equally likely. If all have expired and must stay, it is one of
    /// these, as in the peers.
    pub fn random_key(&mut self, db: u32) -> Option<Box<[u8]>> {
        for _ in 0..RANDOM_TRIES {
            let entry = self.data.dbs[db as usize].keys.random(self.rng.raw())?;
            let key: Box<[u8]> = entry.key().into();
            if self.lookup_in(db, &key).is_some() {
                return Some(key);
            }
        }
        // Hardly any key is alive: a walk finds the first live one, which is not a fair choice.
        let keys = &self.data.dbs[db as usize].keys;
        let live = keys.iter().find(|entry| !self.is_expired(*entry));
        let stays = self.expiry_policy() == ExpiryPolicy::Hide;
        let found = live.or_else(|| keys.iter().next().filter(|_| stays));
        found.map(|entry| entry.key().into())
    }

    /// Empties one database, or all. Returns the number of deleted keys.
    fn empty_dbs(&mut self, which: Option<u32>, lazy: bool) -> u64 {
        let mut removed = 0;
        for index in self.db_range(which) {
            let keys = self.data.dbs[index as usize].take_keys();
            let len = keys.len();
            removed += len as u64;
            if lazy && len > 0 {
                self.lazyfree.free(Box::new(keys), len);
            }
        }
        self.replication.own_expiries.forget(which);
        crate::observe::bigkeys::emptied(self, which);
        removed
    }

    fn db_range(&self, which: Option<u32>) -> std::ops::Range<u32> {
        match which {
            Some(db) => db..db + 1,
            None => 0..self.data.dbs.len() as u32,
        }
    }

    /// Empties one database, or all, for FLUSHDB, FLUSHALL and loads into an empty data set.
    /// Notifies watching and blocked clients first. `by` is the client whose command this is.
    pub fn flush(
        &mut self,
        _: &TopLevel,
        mut by: Option<&mut Client>,
        which: Option<u32>,
        lazy: bool,
    ) -> u64 {
        for db in self.db_range(which) {
            touch_all_watched(self, by.as_deref_mut(), db, Replacement::Nothing);
            self.signal_all_ready(db);
        }
        crate::tracking::flushed(self, lazy);
        self.empty_dbs(which, lazy)
    }

    /// Exchanges the keys of two databases, but not the clients that watch or wait there.
    pub fn swap_dbs(&mut self, _: &TopLevel, mut by: Option<&mut Client>, a: u32, b: u32) {
        if a == b {
            return;
        }
        touch_all_watched(self, by.as_deref_mut(), a, Replacement::Number(b));
        touch_all_watched(self, by, b, Replacement::Number(a));
        let [first, second] = self
            .data
            .dbs
            .get_disjoint_mut([a as usize, b as usize])
            .expect("two databases");
        std::mem::swap(first, second);
        std::mem::swap(&mut first.index, &mut second.index);
        self.replication.own_expiries.swap_dbs(a, b);
        crate::observe::bigkeys::swapped(self, a, b);
        self.signal_all_ready(a);
        self.signal_all_ready(b);
    }
}
