//! WATCH: a write to a watched key makes the transactions of its watchers fail.
//!
//! ```text
//!   key_clients.watched[key] -> watchers       client.watched -> keys
//!   a write to key:   each of those clients is flagged DIRTY_CAS and watches nothing any more, EXEC answers null
//! ```
//!
//! A key that had already expired when it was watched counts as missing: the removal of such a key
//! is not a change.

use crate::client::transaction::WatchedKey;
use crate::client::{Client, ClientRef, flag};
use crate::db::Db;
use crate::db::watcher::Watcher;
use crate::state::Server;

/// WATCH: the client's EXEC will reply with null if `key` is changed before.
pub fn watch_key(server: &mut Server, c: &mut Client, key: &[u8]) {
    let db = c.db;
    if c.watched.iter().any(|w| w.db == db && *w.key == *key) {
        return;
    }
    let client = c.reference();
    let expired = state_of(server, db, key) == KeyState::Expired;
    let watcher = Watcher {
        client,
        expired,
        transfer: None,
    };
    server.key_clients[db as usize].watched.push(key, watcher);
    let key = key.into();
    c.watched.push(WatchedKey { db, key });
}

/// The state of a watched key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyState {
    Missing,
    Expired,
    Alive,
}

fn state_of(server: &Server, db: u32, key: &[u8]) -> KeyState {
    state_in(&server.data.dbs[db as usize], server, key)
}

fn state_in(db: &Db, server: &Server, key: &[u8]) -> KeyState {
    match db.find(server.key_hasher.hash(key), key) {
        None => KeyState::Missing,
        Some(e) if e.expire_at().is_some_and(|at| at < server.clock.now_ms) => KeyState::Expired,
        Some(_) => KeyState::Alive,
    }
}

/// UNWATCH: the client stops watching all its keys.
pub fn unwatch_all(server: &mut Server, c: &mut Client) {
    if c.watched.is_empty() {
        return;
    }
    let r = c.reference();
    server.touched.retain(|other| *other != r);
    for watched in std::mem::take(&mut c.watched) {
        let table = &mut server.key_clients[watched.db as usize].watched;
        table.change_existing(&watched.key, |watchers| {
            watchers.retain(|watcher| watcher.client != r || watcher.transfer.is_some());
        });
    }
}

/// Called when the MIGRATE of `client` begins to send a key: changes of the key are noted until
/// [`end_transfer`].
pub fn begin_transfer(server: &mut Server, client: ClientRef, db: u32, key: &[u8]) {
    let watcher = Watcher {
        client,
        expired: false,
        transfer: Some(false),
    };
    server.key_clients[db as usize].watched.push(key, watcher);
}

/// Ends the noting of changes of a key for MIGRATE. Returns whether the key is unchanged since
/// [`begin_transfer`].
pub fn end_transfer(server: &mut Server, client: ClientRef, db: u32, key: &[u8]) -> bool {
    let table = &mut server.key_clients[db as usize].watched;
    let is_it = |watcher: &Watcher| watcher.client == client && watcher.transfer.is_some();
    let ended = table.change_existing(key, |watchers| {
        let at = watchers.iter().position(is_it);
        at.and_then(|at| watchers.swap_remove(at).transfer)
    });
    ended.flatten() == Some(false)
}

/// Whether a watched key has expired since WATCH, which counts as a change.
pub fn watched_expired(server: &Server, c: &Client) -> bool {
    let r = c.reference();
    c.watched.iter().any(|w| {
        let watchers = server.key_clients[w.db as usize].watched.get(&w.key);
        let watcher = watchers.and_then(|all| {
            all.iter()
                .find(|watcher| watcher.client == r && watcher.transfer.is_none())
        });
        watcher.is_some_and(|watcher| !watcher.expired)
            && state_of(server, w.db, &w.key) == KeyState::Expired
    })
}

/// Makes the transactions of all clients that watch the changed key fail. `by` is the client whose
/// command changed the key.
pub fn touch_watched(server: &mut Server, mut by: Option<&mut Client>, db: u32, key: &[u8]) {
    let gone = state_of(server, db, key) == KeyState::Missing;
    let mut touched = Vec::new();
    let table = &mut server.key_clients[db as usize].watched;
    table.change_existing(key, |watchers| {
        for watcher in watchers {
            if watcher.transfer.is_some() {
                watcher.transfer = Some(true);
            } else if watcher.expired && gone {
                // A key that had expired when it was watched is removed now, which is not a change.
                // The creation of a new key under the watched name would be a change.
                watcher.expired = false;
            } else {
                touched.push(watcher.client);
            }
        }
    });
    for r in touched {
        touch(server, by.as_deref_mut(), r);
    }
}

/// Makes the running client's transaction fail if one of its own look-ups removed an expired key
/// that the client watches.
pub fn settle_touched(server: &mut Server, c: &mut Client) {
    if server.touched.contains(&c.reference()) {
        lose(server, c);
    }
}

/// Marks the client's transaction as failed, so that EXEC replies with null, and stops watching its
/// keys.
fn lose(server: &mut Server, c: &mut Client) {
    c.set(flag::DIRTY_CAS);
    unwatch_all(server, c);
}

/// Makes the transaction of the client `r` fail. A client whose command runs is not in the table of
/// clients. If the client is not passed as `by` (a look-up removed an expired key),
/// [`settle_touched`] marks the transaction later.
pub fn touch(server: &mut Server, by: Option<&mut Client>, r: ClientRef) {
    match by {
        Some(c) if c.id == r.id => lose(server, c),
        _ => match server.net.clients.take_ref(r) {
            Some(mut c) => {
                lose(server, &mut c);
                server.net.clients.put(c);
            }
            None if server.touched.contains(&r) => {}
            None => server.touched.push(r),
        },
    }
}

/// What takes the place of a database that is emptied, swapped or loaded again.
#[derive(Clone, Copy)]
pub enum Replacement<'a> {
    Nothing,
    /// Another database of the server.
    Number(u32),
    /// A database of another data set.
    Db(&'a Db),
}

/// Called when a whole database is emptied or replaced: every watched key that is alive before or
/// after the replacement counts as changed.
pub fn touch_all_watched(
    server: &mut Server,
    mut by: Option<&mut Client>,
    db: u32,
    replacement: Replacement,
) {
    let keys = server.key_clients[db as usize].watched.names();
    let keys: Vec<Box<[u8]>> = keys.map(Box::from).collect();
    for key in keys {
        let before = state_of(server, db, &key);
        let after = match replacement {
            Replacement::Nothing => KeyState::Missing,
            Replacement::Number(other) => state_of(server, other, &key),
            Replacement::Db(other) => state_in(other, server, &key),
        };
        let is_change = before == KeyState::Alive || after == KeyState::Alive;
        let mut touched = Vec::new();
        let table = &mut server.key_clients[db as usize].watched;
        table.change_existing(&key, |watchers| {
            for watcher in watchers {
                if watcher.transfer.is_some() {
                    watcher.transfer = Some(true);
                } else if is_change {
                    touched.push(watcher.client);
                } else {
                    watcher.expired = after == KeyState::Expired;
                }
            }
        });
        for r in touched {
            touch(server, by.as_deref_mut(), r);
        }
    }
}
