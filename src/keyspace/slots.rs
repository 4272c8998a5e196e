//! Counts and deletes the keys of one slot of a cluster node.

use crate::cluster::transfer::request::Establish;
use crate::keyspace::events;
use crate::state::Server;

impl Server {
    /// The number of keys of a slot in one database. Expired keys count until they are removed.
    pub fn slot_len(&self, db: u32, slot: u16) -> usize {
        self.data.dbs[db as usize].keys.slot_len(slot)
    }

    /// The number of keys of a slot in all databases.
    pub fn slot_len_everywhere(&self, slot: u16) -> usize {
        let databases = 0..self.data.dbs.len() as u32;
        databases.map(|db| self.slot_len(db, slot)).sum()
    }

    /// Deletes all keys of a slot of this node, in all databases, and returns their number. The
    /// caller propagates the flush to the replicas and the AOF.
    pub fn flush_slot(&mut self, slot: u16, lazy: bool) -> u64 {
        let mut deleted = 0;
        for db in 0..self.data.dbs.len() as u32 {
            for key in self.names_in_slot(db, slot) {
                deleted += u64::from(self.delete_key(db, &key, lazy));
                self.signal_modified(None, db, &key);
                self.notify(events::GENERIC, "del", &key, db);
            }
        }
        deleted
    }

    /// Deletes the keys of a slot that another node owns now. Clients are not notified, since the
    /// keys still exist on the other node. Each deletion is propagated by itself, as in Redis.
    pub fn drop_slot(&mut self, slot: u16) -> u64 {
        let lazy = self.config.lazyfree_lazy_server_del;
        let mut deleted = 0;
        for db in 0..self.data.dbs.len() as u32 {
            for key in self.names_in_slot(db, slot) {
                deleted += u64::from(self.delete_key(db, &key, lazy));
                self.propagate_deletion(db, &key, lazy);
                self.signal_modified(None, db, &key);
                self.end_unit();
            }
        }
        self.dirty += deleted;
        deleted
    }

    /// Notes an import of slots that was running on the server that made the loaded snapshot.
    pub fn follow_import(&mut self, import: &Establish) {
        if let Some(member) = &mut self.cluster {
            let now = member.now();
            member.transfers.follow(now, import);
        }
    }

    /// Notes the slots that CLUSTER SETSLOT has marked as migrating or importing, as the snapshot
    /// of this node's primary lists them.
    pub fn follow_open_slots(&mut self, field: &str) {
        if let Some(member) = &mut self.cluster
            && let Err(reason) = member.machine.follow_open_slots(field)
        {
            log::warn!("The open slots of the snapshot can't be read: {reason}");
        }
    }

    fn names_in_slot(&self, db: u32, slot: u16) -> Vec<Box<[u8]>> {
        let keys = self.data.dbs[db as usize].keys.slot_keys(slot);
        keys.map(|entry| entry.key().into()).collect()
    }
}
