//! Persistence: snapshots (RDB), the append-only file (AOF), and the forked child that writes an
//! RDB file or the base of an AOF.
//!
//! ```text
//!   BGSAVE, save points ─> rdb ──┐
//!                                ├─> child (fork): a copy of the data set, written while clients go on
//!   BGREWRITEAOF ────────> aof ──┘
//!   every write ─────────> aof: a buffer, written before the replies leave
//! ```

pub mod aof;
pub mod child;
pub mod loading;
pub mod rdb;
pub mod rio;
pub mod slots;
pub mod spool;
