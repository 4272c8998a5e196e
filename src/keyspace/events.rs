//! Keyspace events: what happened to a key, published on `__keyspace@<db>__:<key>` and
//! `__keyevent@<db>__:<event>`, each class switched on by a letter of `notify-keyspace-events`.

use crate::armed;
use crate::client::Client;
use crate::config::NotifyFlags;
use crate::state::Server;

// The classes, as the setting spells them.
pub const KEYSPACE: u32 = NotifyFlags::KEYSPACE;
pub const KEYEVENT: u32 = NotifyFlags::KEYEVENT;
pub const GENERIC: u32 = NotifyFlags::GENERIC;
pub const STRING: u32 = NotifyFlags::STRING;
pub const LIST: u32 = NotifyFlags::LIST;
pub const SET: u32 = NotifyFlags::SET;
pub const HASH: u32 = NotifyFlags::HASH;
pub const ZSET: u32 = NotifyFlags::ZSET;
pub const EXPIRED: u32 = NotifyFlags::EXPIRED;
pub const EVICTED: u32 = NotifyFlags::EVICTED;
pub const STREAM: u32 = NotifyFlags::STREAM;
pub const KEY_MISS: u32 = NotifyFlags::KEY_MISS;
pub const NEW: u32 = NotifyFlags::NEW;

impl Server {
    /// Notify the subscribers that `event` happened to `key`.
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
            crate::pubsub::publish(self, &channel, event.as_bytes(), offset);
        }
        if self.notify_flags & KEYEVENT != 0 {
            let channel = format!("__keyevent@{db}__:{event}");
            crate::pubsub::publish(self, channel.as_bytes(), key, offset);
        }
    }

    #[cold]
    fn tell_armed(&mut self, db: u32, key: &[u8], by_id: u64) {
        if self.armed & armed::BIGKEYS != 0 {
            crate::observe::bigkeys::key_changed(self, db, key);
        }
        if self.armed & armed::TRACKING != 0 {
            crate::tracking::key_changed(self, db, key, by_id);
        }
        if self.armed & armed::UNSYNCED != 0 {
            self.note_unsynced(key);
        }
    }

    /// A key was changed: clients that watch it must not EXEC, clients that wait for it may be
    /// served, clients that have cached it are sent an invalidation.
    #[inline]
    pub fn signal_modified(&mut self, by: Option<&mut Client>, db: u32, key: &[u8]) {
        let by_id = by.as_ref().map_or(0, |c| c.id);
        if !self.dbs[db as usize].watched.is_empty() {
            crate::keyspace::watch::touch_watched(self, by, db, key);
        }
        if !self.dbs[db as usize].blocking.is_empty() {
            self.signal_key_ready(db, key);
        }
        if self.armed & (armed::TRACKING | armed::BIGKEYS | armed::UNSYNCED) != 0 {
            self.tell_armed(db, key, by_id);
        }
    }
}
