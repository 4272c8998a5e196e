//! Operations on keys: changes of a [`crate::db::Db`] with all their consequences for the server.
//!
//! ```text
//!   lookup   find a key for a read or a write: expire it, count the hit, set its access time
//!   write    set and delete a key
//!   expire   delete what is due, on look-up and in bounded cycles
//!   evict    delete what maxmemory has no room for
//!   whole    FLUSHDB, FLUSHALL, SWAPDB, MOVE: whole databases and keys between them
//!   slots    the keys of one slot of a cluster node
//!   events   keyspace notifications
//!   top_level  when a whole database may be flushed or replaced
//! ```
//!
//! The module `db` stores keys and does not use `Server`. The module `keyspace` also updates the
//! rest of the server when a key changes: statistics, watchers, trackers, propagation. Commands
//! call `keyspace`, and never use a table of keys directly.

pub mod events;
pub mod evict;
pub mod expire;
pub mod hash_memo;
pub mod list_limits;
pub mod lookup;
pub mod slots;
pub mod top_level;
pub mod watch;
pub mod whole;
pub mod write;
