//! The keyspace: databases of keys. Each key is one allocation (`ds::entry`) in a hash table
//! (`ds::hashtable`); keys with a time to live are also in an index ordered by time
//! (`ds::expires`).
//!
//! ```text
//!   Db.keys:     hash(key) -> [ header | expiry? | key | short value, integer or Value ]
//!   Db.expires:  (expiry, hash(key)), earliest first: active expiry takes the due ones, never a sample
//!   Db.field_expires: the same for hashes with volatile fields, under the time of the first one
//! ```
//!
//! **Invariant:** a key is in `expires` exactly when its entry has an expiry time, and under that
//! time (`tests::the_index_follows_the_entries`).
//! **Invariant:** a key is in `field_expires` exactly when it holds a hash with a volatile field,
//! under that hash's `next_expiry` (`tests::field_index_follows_hashes`). Code that changes a hash
//! in place calls `Db::fields_moved`.
//!
//! The operations of this module concern one database and do not use clients. Operations that need
//! the whole server (look-ups that count and expire, notifications, blocked clients) are in
//! `keyspace`.

pub mod kvstore;
pub mod slot;
pub mod waiting;
pub mod watcher;

use crate::ds::expires::Expires;
use crate::ds::hashtable::Slot;
use crate::ds::registry::Registry;
use crate::types::lengths::{KeyWrite, Lengths};
use crate::types::{Key, KeyRef, New, Value, next_field_expiry};
use kvstore::{KeyHasher, KvStore};
use waiting::Waiting;
use watcher::Watcher;

/// One database. A `Db` has no clients, so that a data set can be replaced as a whole.
pub struct Db {
    /// The number of the database, which SELECT takes.
    pub index: u32,
    pub keys: KvStore,
    pub expires: Expires,
    /// Hashes with volatile fields, by their earliest expiry time.
    pub field_expires: Expires,
    /// Running average of the time to live of keys in milliseconds, for INFO.
    pub avg_ttl_ms: i64,
    /// Histograms of the lengths of values (INFO keysizes); `None` if `key-size-histograms` is off.
    pub lengths: Option<Box<Lengths>>,
}

/// The clients that are blocked on keys of one database, or watch keys of it. Clients are not part
/// of a [`Db`], so they stay when the database is replaced.
#[derive(Default)]
pub struct KeyClients {
    /// For each key, the clients that are blocked on it, in order of arrival.
    pub blocking: Registry<Waiting>,
    /// For each key, the clients that watch it (WATCH).
    pub watched: Registry<Vec<Watcher>>,
}

impl KeyClients {
    /// The number of heap bytes of the two tables, of blocked clients and of watchers.
    pub fn memory_bytes(&self) -> usize {
        self.blocking.memory_bytes() + self.watched.memory_bytes()
    }
}

/// The change of the time to live when a key is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ttl {
    /// The key keeps its time to live.
    Keep,
    /// The key has no time to live afterwards.
    Clear,
    /// The key expires at this Unix time in milliseconds.
    At(i64),
}

/// The previous value of a key, for the caller of [`Db::set`].
pub enum Replaced {
    Nothing,
    Value {
        /// The expiry time of the previous value.
        expire_at: Option<i64>,
        /// The previous entry, unless it was overwritten in place. The caller frees the entry, at
        /// once or on another thread.
        entry: Option<Key>,
    },
}

impl Db {
    /// An empty database.
    pub fn new(index: u32, hasher: KeyHasher) -> Db {
        Db {
            index,
            keys: KvStore::new(hasher),
            expires: Expires::new(),
            field_expires: Expires::new(),
            avg_ttl_ms: 0,
            lengths: None,
        }
    }

    /// Keeps histograms of the lengths of values from now on, with the present keys counted, or
    /// drops the histograms.
    pub fn keep_lengths(&mut self, keep: bool) {
        if keep != self.lengths.is_some() {
            self.lengths = keep.then(|| Box::new(Lengths::of(self.keys.iter())));
        }
    }

    /// Panics if the histograms of lengths differ from the lengths of the present values (DEBUG
    /// KEYSIZES-HIST-ASSERT).
    pub fn assert_lengths(&self) {
        if let Some(lengths) = &self.lengths {
            assert_eq!(**lengths, Lengths::of(self.keys.iter()));
        }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<KeyRef<'_>> {
        self.keys.find(hash, key)
    }

    /// The entry of a key, expired or not, for a change in place.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<KeyWrite<'_>> {
        let entry = self.keys.find_mut(hash, key)?;
        Some(KeyWrite::new(entry, self.lengths.as_deref_mut()))
    }

    /// Sets or replaces a key's value with one probe of the hash table. Returns the previous value.
    #[inline]
    pub fn set(
        &mut self,
        hash: u64,
        key: &[u8],
        kind: u8,
        value: New,
        lru: u32,
        ttl: Ttl,
    ) -> Replaced {
        let fields_at = next_field_expiry_of(&value);
        let mut slot = match self.keys.find_slot(hash, key) {
            Slot::Occupied(slot) => slot,
            Slot::Vacant(slot) => {
                let at = match ttl {
                    Ttl::At(at) => Some(at),
                    Ttl::Keep | Ttl::Clear => None,
                };
                if let Some(lengths) = &mut self.lengths {
                    lengths.add_new(&value);
                }
                slot.insert(Key::new(key, kind, lru, at, value));
                self.keys.inserted(hash);
                if let Some(at) = at {
                    self.expires.insert(at, hash);
                }
                self.fields_moved(hash, None, fields_at);
                return Replaced::Nothing;
            }
        };
        let mut old = slot.get_mut();
        let fields_were = next_field_expiry(old.as_ref());
        let was = old.expire_at();
        let at = match ttl {
            Ttl::Keep => was,
            Ttl::Clear => None,
            Ttl::At(at) => Some(at),
        };
        if let Some(lengths) = &mut self.lengths {
            lengths.replace(old.as_ref(), &value);
        }
        let mut replaced = None;
        if was.is_some() == at.is_some() && old.try_overwrite(&value) {
            old.set_kind(kind);
            old.set_lru(lru);
            if let Some(at) = at {
                old.set_expire_at(at);
            }
        } else {
            slot.replace_with(|old| {
                replaced = Some(old);
                Key::new(key, kind, lru, at, value)
            });
        }
        self.expires.shift(hash, was, at);
        self.fields_moved(hash, fields_were, fields_at);
        Replaced::Value {
            expire_at: was,
            entry: replaced,
        }
    }

    /// Adds a complete entry to the database and its indexes. Returns the old entry of the same
    /// key, if there was one.
    #[inline]
    pub fn insert(&mut self, hash: u64, entry: Key) -> Option<Key> {
        let (at, fields_at) = times_of(entry.as_ref());
        if let Some(lengths) = &mut self.lengths {
            lengths.add(entry.as_ref());
        }
        let old = self.keys.insert(hash, entry);
        if let (Some(lengths), Some(old)) = (&mut self.lengths, &old) {
            lengths.remove(old.as_ref());
        }
        let (was, fields_were) = old
            .as_ref()
            .map_or((None, None), |old| times_of(old.as_ref()));
        self.expires.shift(hash, was, at);
        self.fields_moved(hash, fields_were, fields_at);
        old
    }

    /// Updates the index of hashes with volatile fields after a hash was changed in place: the
    /// earliest expiry time of its fields was `was` and is now `at`.
    #[inline]
    pub fn fields_moved(&mut self, hash: u64, was: Option<i64>, at: Option<i64>) {
        self.field_expires.shift(hash, was, at);
    }

    /// Removes and returns the entry of a key. The caller frees the entry, at once or on another
    /// thread.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Key> {
        let entry = self.keys.remove(hash, key)?;
        if let Some(lengths) = &mut self.lengths {
            lengths.remove(entry.as_ref());
        }
        if let Some(at) = entry.as_ref().expire_at() {
            self.expires.remove(at, hash);
        }
        self.fields_moved(hash, next_field_expiry(entry.as_ref()), None);
        Some(entry)
    }

    /// Sets, changes or removes the expiry time of a key. Returns false if the key does not exist.
    pub fn set_expire(&mut self, hash: u64, key: &[u8], at: Option<i64>) -> bool {
        let Some(mut entry) = self.keys.find_mut(hash, key) else {
            return false;
        };
        let was = entry.expire_at();
        if was == at {
            return true;
        }
        match (was, at) {
            (Some(_), Some(at)) => {
                entry.set_expire_at(at);
            }
            _ => {
                self.keys
                    .replace_with(hash, key, |entry| entry.with_expire(at));
            }
        }
        self.expires.shift(hash, was, at);
        true
    }

    /// Removes all keys and returns them as a database with its indexes, which the caller frees.
    pub fn take_keys(&mut self) -> Db {
        Db {
            index: self.index,
            keys: self.keys.take(),
            expires: std::mem::take(&mut self.expires),
            field_expires: std::mem::take(&mut self.field_expires),
            avg_ttl_ms: std::mem::take(&mut self.avg_ttl_ms),
            lengths: self.lengths.as_mut().map(std::mem::take),
        }
    }
}

/// The expiry time of a key, and, if its value is a hash, the earliest expiry time of the hash's
/// fields.
#[inline]
fn times_of(entry: KeyRef) -> (Option<i64>, Option<i64>) {
    (entry.expire_at(), next_field_expiry(entry))
}

/// The earliest expiry time of a hash's fields; `None` if the value is not a hash.
#[inline]
fn next_field_expiry_of(value: &New) -> Option<i64> {
    match value {
        New::Obj(Value::Hash(hash)) => hash.next_expiry(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::siphash::HashSeed;
    use crate::types::string::encode;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// A random operation of a test on the expiry time of a key.
    #[derive(Clone, Debug)]
    enum Op {
        Set(u8, usize, Ttl),
        Insert(u8, Option<i64>),
        SetExpire(u8, Option<i64>),
        Remove(u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let time = 0..4i64;
        let ttl = prop_oneof![
            Just(Ttl::Keep),
            Just(Ttl::Clear),
            time.clone().prop_map(Ttl::At)
        ];
        let op = prop_oneof![
            4 => (0..8u8, 0..200usize, ttl).prop_map(|(key, len, ttl)| Op::Set(key, len, ttl)),
            2 => (0..8u8, proptest::option::of(time.clone())).prop_map(|(key, at)| Op::Insert(key, at)),
            3 => (0..8u8, proptest::option::of(time)).prop_map(|(key, at)| Op::SetExpire(key, at)),
            1 => (0..8u8).prop_map(Op::Remove),
        ];
        proptest::collection::vec(op, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_index_follows_the_entries(ops in ops()) {
            let mut db = Db::new(0, KeyHasher::new(HashSeed::new([1, 2]), false));
            let mut twin: HashMap<u8, Option<i64>> = HashMap::new();
            for op in ops {
                match op {
                    Op::Set(key, len, ttl) => {
                        let hash = db.keys.hash(&[key]);
                        let text = vec![b'x'; len];
                        let (kind, value) = encode(&text, None);
                        db.set(hash, &[key], kind, value, 0, ttl);
                        let old = twin.get(&key).copied().flatten();
                        twin.insert(key, match ttl { Ttl::Keep => old, Ttl::Clear => None, Ttl::At(at) => Some(at) });
                    }
                    Op::Insert(key, at) => {
                        let entry = Key::new(&[key], 0, 0, at, New::Int(1));
                        let old = db.insert(db.keys.hash(&[key]), entry);
                        prop_assert_eq!(old.is_some(), twin.insert(key, at).is_some());
                    }
                    Op::SetExpire(key, at) => {
                        let hash = db.keys.hash(&[key]);
                        prop_assert_eq!(db.set_expire(hash, &[key], at), twin.contains_key(&key));
                        twin.entry(key).and_modify(|old| *old = at);
                    }
                    Op::Remove(key) => {
                        let hash = db.keys.hash(&[key]);
                        prop_assert_eq!(db.remove(hash, &[key]).is_some(), twin.remove(&key).is_some());
                    }
                }
                let mut wanted: Vec<(i64, u64)> = twin
                    .iter()
                    .filter_map(|(key, at)| Some(((*at)?, db.keys.hash(&[*key]))))
                    .collect();
                let mut index: Vec<(i64, u64)> = db.expires.iter().collect();
                wanted.sort_unstable();
                index.sort_unstable();
                prop_assert_eq!(index, wanted);
                for (key, at) in &twin {
                    let entry = db.find(db.keys.hash(&[*key]), &[*key]).map(|entry| entry.expire_at());
                    prop_assert_eq!(entry, Some(*at));
                }
            }
        }
    }

    #[test]
    fn field_index_follows_hashes() {
        use crate::types::hash::{FieldTtl, Hash, HashLimits};
        use crate::types::kind;
        let seed = HashSeed::new([1, 2]);
        let limits = HashLimits {
            max_entries: 8,
            max_value: 8,
            seed,
        };
        let volatile = |times: &[i64]| {
            let mut hash = Hash::new();
            for at in times {
                hash.set(&at.to_le_bytes(), b"v", FieldTtl::At(*at), &limits);
            }
            New::Obj(Value::Hash(hash))
        };
        let mut db = Db::new(0, KeyHasher::new(seed, false));
        let at = db.keys.hash(b"h");
        let indexed = |db: &Db| db.field_expires.iter().collect::<Vec<_>>();
        db.set(at, b"h", kind::HASH, volatile(&[30, 20]), 0, Ttl::Clear);
        assert_eq!(indexed(&db), [(20, at)]);
        db.set(at, b"h", kind::HASH, volatile(&[50]), 0, Ttl::At(7));
        assert_eq!(indexed(&db), [(50, at)]);
        db.set(at, b"h", kind::HASH, volatile(&[]), 0, Ttl::Keep);
        assert_eq!(indexed(&db), []);
        db.set(at, b"h", kind::HASH, volatile(&[40]), 0, Ttl::Clear);
        assert!(db.remove(at, b"h").is_some());
        assert_eq!(indexed(&db), []);
    }
}
