//! Operations on whole values and whole databases: freeing, renaming, moving, flushing, swapping.

use crate::client::Client;
use crate::db::{Db, Ttl};
use crate::ds::entry::OwnedValue;
use crate::keyspace::events;
use crate::keyspace::expire::ExpiryPolicy;
use crate::keyspace::top_level::TopLevel;
use crate::keyspace::watch::{Replacement, touch_all_watched};
use crate::observe::bigkeys;
use crate::state::Server;
use crate::sys::lazyfree::{Garbage, LazyFree};
use crate::tracking;
use crate::types;
use crate::types::{Key, KeyRef, New, Value, free_effort, memory_estimate};

/// The number of allocations of a value above which the value is freed in the background with a
/// lazyfree-lazy-* setting or UNLINK.
const LAZY_EFFORT_MIN: usize = 64;
/// The number of allocations of a value or of emptied databases above which they are freed in the
/// background even without a lazyfree-lazy-* setting; freeing 4,096 allocations takes about a
/// quarter of a millisecond.
const PAUSE_EFFORT_MIN: usize = 4096;
/// The number of random keys that RANDOMKEY tries before it takes the first live key of a walk.
const RANDOM_TRIES: usize = 100;

/// Frees an entry that was taken out of its table. A value that would stop the loop for too long is
/// freed in the background; with `lazy`, also a value of more than 64 allocations.
pub fn free_entry(lazyfree: &LazyFree, entry: Key, lazy: bool) {
    let most = if lazy {
        LAZY_EFFORT_MIN
    } else {
        PAUSE_EFFORT_MIN
    };
    if free_effort(entry.as_ref()) > most {
        let bytes = memory_estimate(entry.as_ref());
        lazyfree.free(Garbage {
            content: Box::new(entry),
            objects: 1,
            bytes,
        });
    }
}

/// Whether freeing these databases would stop the loop for too long.
fn would_pause(emptied: &[Db]) -> bool {
    let keys: usize = emptied.iter().map(Db::len).sum();
    let values = || emptied.iter().flat_map(|db| db.keys.iter());
    keys > PAUSE_EFFORT_MIN || values().map(free_effort).sum::<usize>() > PAUSE_EFFORT_MIN
}

/// The result of [`Server::flush`], which empties databases.
pub struct Flushed {
    /// The number of deleted keys.
    pub keys: u64,
    /// The job of the background thread that frees the keys, if they are freed in the background.
    pub job: Option<u64>,
}

/// A value without its key: RENAME, MOVE and COPY carry such a value from one key to another.
pub struct Detached {
    kind: u8,
    /// The 29 bits of the LRU clock or the LFU counter.
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
            value: types::duplicate(entry),
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

    /// A random live key; all live keys are equally likely. If all keys have expired and must stay,
    /// an expired key is returned, as in Redis and Valkey.
    pub fn random_key(&mut self, db: u32) -> Option<Box<[u8]>> {
        for _ in 0..RANDOM_TRIES {
            let entry = self.data.dbs[db as usize].keys.random(self.rng.raw())?;
            let key: Box<[u8]> = entry.key().into();
            if self.lookup_in(db, &key).is_some() {
                return Some(key);
            }
        }
        // If all tries hit expired keys, hardly any key is alive, so a walk takes the first live
        // one, which is not a random choice.
        let keys = &self.data.dbs[db as usize].keys;
        let shown = || keys.iter_matching(b"*");
        let live = shown().find(|entry| !self.is_expired(*entry));
        let stays = self.expiry_policy() == ExpiryPolicy::Hide;
        let found = live.or_else(|| shown().next().filter(|_| stays));
        found.map(|entry| entry.key().into())
    }

    /// Empties database `which`, or all databases, without notifying clients.
    fn empty_dbs(&mut self, which: Option<u32>, lazy: bool) -> Flushed {
        let range = self.db_range(which);
        let dbs = &mut self.data.dbs[range.start as usize..range.end as usize];
        let emptied: Vec<Db> = dbs.iter_mut().map(Db::take_keys).collect();
        self.replication.own_expiries.forget(which);
        bigkeys::emptied(self, which);
        let keys: usize = emptied.iter().map(Db::len).sum();
        let in_background = keys > 0 && (lazy || would_pause(&emptied));
        let job = in_background.then(|| {
            self.lazyfree.free(Garbage {
                content: Box::new(emptied),
                objects: keys,
                bytes: 0,
            })
        });
        Flushed {
            keys: keys as u64,
            job,
        }
    }

    fn db_range(&self, which: Option<u32>) -> std::ops::Range<u32> {
        match which {
            Some(db) => db..db + 1,
            None => 0..self.data.dbs.len() as u32,
        }
    }

    /// Empties database `which`, or all databases, for FLUSHDB, FLUSHALL and loads into an empty
    /// data set. Before the keys are removed, clients that watch keys or wait for keys in these
    /// databases are notified. `by` is the client whose command runs. Without `lazy`, a small
    /// number of keys is freed at once, not in the background.
    pub fn flush(
        &mut self,
        _: &TopLevel,
        mut by: Option<&mut Client>,
        which: Option<u32>,
        lazy: bool,
    ) -> Flushed {
        for db in self.db_range(which) {
            touch_all_watched(self, by.as_deref_mut(), db, Replacement::Nothing);
            self.signal_all_ready(db);
        }
        tracking::flushed(self, lazy);
        self.empty_dbs(which, lazy)
    }

    /// Exchanges the keys of two databases, but not the clients that watch or wait for keys in
    /// them.
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
        bigkeys::swapped(self, a, b);
        self.signal_all_ready(a);
        self.signal_all_ready(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{say, server_with};

    /// Runs the commands `lines`, and returns the number of values that they have passed to the
    /// background thread.
    fn handed_over(server: &mut Server, lines: &[&str]) -> usize {
        let before = server.lazyfree.pending() + server.lazyfree.freed();
        say(server, 0, lines);
        // `pending` and `freed` change at the end of a job of the background thread, so the test
        // waits for this end.
        while server.lazyfree.pending() > 0 {
            std::thread::yield_now();
        }
        server.lazyfree.freed() - before
    }

    fn fill(server: &mut Server, members: usize) {
        let add = |command: &str, words: &dyn Fn(usize) -> String| {
            let words: Vec<String> = (0..members).map(words).collect();
            format!("{command} {}", words.join(" "))
        };
        let lines = [
            "DEL hash".to_string(),
            add("SADD set", &|n| format!("member:{n}")),
            add("HSET hash", &|n| format!("field:{n} v")),
            add("ZADD zset", &|n| format!("{n} member:{n}")),
        ];
        say(server, 0, &lines.each_ref().map(String::as_str));
    }

    #[test]
    fn a_value_that_would_hold_the_loop_up_is_freed_in_the_background() {
        let mut server = server_with(1);
        let lines = ["DEL set", "SET hash v", "PEXPIRE zset -1"];
        fill(&mut server, PAUSE_EFFORT_MIN + 1);
        assert_eq!(handed_over(&mut server, &lines), 3);
        fill(&mut server, PAUSE_EFFORT_MIN / 2);
        assert_eq!(handed_over(&mut server, &lines), 0);
        fill(&mut server, PAUSE_EFFORT_MIN / 2);
        assert_eq!(handed_over(&mut server, &["UNLINK set hash zset"]), 3);
    }

    #[test]
    fn databases_with_much_in_few_keys_are_freed_in_the_background() {
        let mut server = server_with(1);
        fill(&mut server, PAUSE_EFFORT_MIN / 2);
        assert_eq!(
            handed_over(&mut server, &["MULTI", "FLUSHALL SYNC", "EXEC"]),
            3
        );
        fill(&mut server, 100);
        assert_eq!(handed_over(&mut server, &["FLUSHALL SYNC"]), 0);
        assert_eq!(
            handed_over(&mut server, &["FLUSHALL ASYNC"]),
            0,
            "nothing is left"
        );
    }
}
