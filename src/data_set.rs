//! The data set as one value: the databases and functions that are saved, sent to a replica, or
//! replaced by a full synchronisation.
//!
//! ```text
//!   load_stream ─> a DataSet of its own ─> install_data_set ─> server.data
//!                                               └─> the old one, freed in the background
//! ```
//!
//! Clients are not part of the data set. Clients that wait for a key or watch one
//! (`Server::key_clients`) stay, and [`Server::install_data_set`] updates them.

use crate::config::Config;
use crate::db::Db;
use crate::db::kvstore::KeyHasher;
use crate::keyspace::top_level::TopLevel;
use crate::keyspace::watch::{self, Replacement};
use crate::observe::bigkeys;
use crate::script::functions::Functions;
use crate::state::Server;
use crate::sys::lazyfree::{Garbage, LazyFree};
use crate::tracking;

/// The data set: all databases, and the functions.
pub struct DataSet {
    pub dbs: Vec<Db>,
    pub functions: Functions,
}

impl DataSet {
    /// An empty data set.
    pub fn new(databases: u32, hasher: KeyHasher) -> DataSet {
        DataSet {
            dbs: (0..databases).map(|index| Db::new(index, hasher)).collect(),
            functions: Functions::default(),
        }
    }

    /// The number of keys of all databases.
    pub fn len(&self) -> usize {
        self.dbs.iter().map(Db::len).sum()
    }

    /// Whether the data set has no key; it may have functions.
    pub fn is_empty(&self) -> bool {
        self.dbs.iter().all(Db::is_empty)
    }

    /// Applies the settings `key-size-histograms` and `maxmemory` to the databases.
    pub fn configure(&mut self, config: &Config) {
        for db in &mut self.dbs {
            db.keep_lengths(config.key_size_histograms);
        }
        if config.maxmemory == 0 {
            let no_limit = |db: &mut Db| db.keys.set_headroom(usize::MAX);
            self.dbs.iter_mut().for_each(no_limit);
        }
    }

    /// Frees the data set on another thread, except the Lua interpreter of the functions, which
    /// belongs to this thread.
    pub fn free(self, lazyfree: &LazyFree) {
        let keys = self.len();
        if keys > 0 {
            lazyfree.free(Garbage {
                content: Box::new(self.dbs),
                objects: keys,
                bytes: 0,
            });
        }
    }
}

impl Server {
    /// An empty data set with which the server's data set can be replaced.
    pub fn new_data_set(&self) -> DataSet {
        let mut data = DataSet::new(self.data.dbs.len() as u32, self.key_hasher);
        data.configure(&self.config);
        data
    }

    /// Replaces the server's data set; the old data set is freed on another thread. The new data
    /// set must have the same number of databases, see [`Server::new_data_set`]. The transactions
    /// of clients that watch a key of the old or the new data set will fail, clients blocked on
    /// keys are served from the new data set, and the keys that clients have cached are
    /// invalidated.
    pub fn install_data_set(&mut self, _: &TopLevel, data: DataSet) {
        assert_eq!(data.dbs.len(), self.data.dbs.len(), "made for this server");
        for db in 0..data.dbs.len() as u32 {
            let replacement = Replacement::Db(&data.dbs[db as usize]);
            watch::touch_all_watched(self, None, db, replacement);
        }
        tracking::flushed(self, true);
        let old = std::mem::replace(&mut self.data, data);
        for db in 0..self.data.dbs.len() as u32 {
            self.signal_all_ready(db);
        }
        bigkeys::loaded(self);
        old.free(&self.lazyfree);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, flag};
    use crate::db::Ttl;
    use crate::types::{New, kind};

    fn server() -> Server {
        Server::new(Config::default(), Vec::new())
    }

    fn put(data: &mut DataSet, hasher: KeyHasher, key: &[u8]) {
        let hash = hasher.hash(key);
        data.dbs[0].set(hash, key, kind::INT, New::Int(1), 0, Ttl::Clear);
    }

    #[test]
    fn installing_replaces_keys_and_functions_at_once() {
        let mut server = server();
        let source = b"#!lua name=old\nredis.register_function('f', function() return 1 end)";
        server.load_library(source, false).expect("a library");
        server.set_key(0, b"old", kind::INT, New::Int(1), Ttl::Clear);
        let mut data = server.new_data_set();
        put(&mut data, server.key_hasher, b"new");
        put(&mut data, server.key_hasher, b"other");
        assert!(server.data.len() == 1 && data.len() == 2);
        let top = server.top_level().expect("no turn within a turn");
        server.install_data_set(&top, data);
        assert_eq!(server.data.len(), 2);
        assert_eq!(server.function_sources().count(), 0);
        assert!(server.lookup_in(0, b"new").is_some());
        assert!(server.lookup_in(0, b"old").is_none());
        while server.lazyfree.pending() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(server.lazyfree.freed(), 1, "the old key");
    }

    #[test]
    fn a_watched_key_that_is_in_neither_data_set_has_not_changed() {
        let mut server = server();
        for (key, in_old, in_new, lost) in [
            (b"a", false, false, false),
            (b"b", true, false, true),
            (b"c", false, true, true),
            (b"d", true, true, true),
        ] {
            if in_old {
                server.set_key(0, key, kind::INT, New::Int(1), Ttl::Clear);
            }
            let mut data = server.new_data_set();
            if in_new {
                put(&mut data, server.key_hasher, key);
            }
            let id = server.net.clients.next_id();
            let slot = server.net.clients.insert(Box::new(Client::detached(id, 0)));
            let mut c = server.net.clients.take(slot).expect("a client");
            watch::watch_key(&mut server, &mut c, key);
            server.net.clients.put(c);
            let top = server.top_level().expect("no turn within a turn");
            server.install_data_set(&top, data);
            let c = server.net.clients.get(slot).expect("a client");
            assert_eq!(c.has(flag::DIRTY_CAS), lost, "{}", key.escape_ascii());
        }
    }
}
