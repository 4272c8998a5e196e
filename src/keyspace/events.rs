//! Keyspace events: changes of keys are published on `__keyspace@<db>__:<key>` and
//! `__keyevent@<db>__:<event>`. A letter of `notify-keyspace-events` switches each class of events
//! on.

use crate::armed;
use crate::client::Client;
use crate::config::NotifyFlags;
use crate::keyspace::watch;
use crate::observe::bigkeys;
use crate::pubsub;
use crate::state::Server;
use crate::tracking;

// The classes of events, as bits; each constant states the letter of `notify-keyspace-events` that
// switches it on.
/// `K`: publish on `__keyspace@<db>__:<key>`.
pub const KEYSPACE: u32 = NotifyFlags::KEYSPACE;
/// `E`: publish on `__keyevent@<db>__:<event>`.
pub const KEYEVENT: u32 = NotifyFlags::KEYEVENT;
/// `g`: events of commands for any type: DEL, EXPIRE, RENAME.
pub const GENERIC: u32 = NotifyFlags::GENERIC;
/// `$`: events of commands for strings.
pub const STRING: u32 = NotifyFlags::STRING;
/// `l`: events of commands for lists.
pub const LIST: u32 = NotifyFlags::LIST;
/// `s`: events of commands for sets.
pub const SET: u32 = NotifyFlags::SET;
/// `h`: events of commands for hashes.
pub const HASH: u32 = NotifyFlags::HASH;
/// `z`: events of commands for sorted sets.
pub const ZSET: u32 = NotifyFlags::ZSET;
/// `x`: a key has expired.
pub const EXPIRED: u32 = NotifyFlags::EXPIRED;
/// `e`: a key was evicted.
pub const EVICTED: u32 = NotifyFlags::EVICTED;
/// `t`: events of commands for streams.
pub const STREAM: u32 = NotifyFlags::STREAM;
/// `m`: a command has read a key that does not exist.
pub const KEY_MISS: u32 = NotifyFlags::KEY_MISS;
/// `n`: a new key was created.
pub const NEW: u32 = NotifyFlags::NEW;

impl Server {
    /// Publishes that `event` happened to `key`, if `notify-keyspace-events` has the event's class.
    #[inline]
    pub fn notify(&mut self, class: u32, event: &str, key: &[u8], db: u32) {
        if self.notify_flags & class != 0 {
            self.publish_event(event, key, db);
        }
    }

    #[cold]
    fn publish_event(&mut self, event: &str, key: &[u8], db: u32) {
        let offset = self.offset_of_event();
        if self.notify_flags & KEYSPACE != 0 {
            let mut channel = format!("__keyspace@{db}__:").into_bytes();
            channel.extend_from_slice(key);
            pubsub::publish(self, &channel, event.as_bytes(), offset);
        }
        if self.notify_flags & KEYEVENT != 0 {
            let channel = format!("__keyevent@{db}__:{event}");
            pubsub::publish(self, channel.as_bytes(), key, offset);
        }
    }

    #[cold]
    fn signal_armed(&mut self, db: u32, key: &[u8], by_id: u64) {
        if self.armed & armed::BIGKEYS != 0 {
            bigkeys::key_changed(self, db, key);
        }
        if self.armed & armed::TRACKING != 0 {
            tracking::key_changed(self, db, key, by_id);
        }
        if self.armed & armed::UNSYNCED != 0 {
            self.note_unsynced(key);
        }
        if self.armed & armed::ASSERT_LENGTHS != 0 {
            self.data.dbs[db as usize].assert_lengths();
        }
        if self.armed & armed::LRM != 0 {
            self.note_change(db, key);
        }
    }

    /// Sets the time of a key's last change, by which the LRM (least recently modified) policies
    /// evict.
    fn note_change(&mut self, db: u32, key: &[u8]) {
        let hash = self.hash_key(key);
        let lru = self.evict.new_stamp(self.clock.now_ms);
        if let Some(mut entry) = self.data.dbs[db as usize].find_mut(hash, key) {
            entry.set_lru(lru);
        }
    }

    /// Must be called for each changed key: transactions of clients that watch the key will fail,
    /// clients that wait for the key may be served, clients that have cached the key are sent an
    /// invalidation.
    #[inline]
    pub fn signal_modified(&mut self, by: Option<&mut Client>, db: u32, key: &[u8]) {
        let by_id = by.as_ref().map_or(0, |c| c.id);
        let clients = &self.key_clients[db as usize];
        let (watched, waited_for) = (!clients.watched.is_empty(), !clients.blocking.is_empty());
        if watched {
            watch::touch_watched(self, by, db, key);
        }
        if waited_for {
            self.signal_key_ready(db, key);
        }
        if self.armed & armed::CHANGES != 0 {
            self.signal_armed(db, key, by_id);
        }
    }
}
