//! The operations of replication: replies to requests for a sync, creation of snapshots,
//! acknowledgements, and changes of the role.
//!
//! ```text
//!   REPLCONF, PSYNC, SYNC ─> primary ─┬─ partial: a cursor in the backlog ──────────────> Online
//!                                     └─ full: snapshot ─> child ─┬─ file or pipe ───────> Online
//!                                                              └─ channels: a second connection
//!   REPLCONF ACK ─> acks ─> WAIT, WAITAOF
//!   REPLICAOF ─> role: another primary, or none; the history that this server continues
//!   FAILOVER ─> failover: a replica that has the whole stream becomes the primary
//!   once a second ─> cron: PING into the stream, newlines, timeouts, a child that is due
//! ```
//!
//! The data of replication (history, stream, table of replicas) is in `replication`, a lower layer;
//! `networking::replicas`, a higher layer, writes to the sockets. No function of this module
//! blocks.
//!
//! **Invariant:** the state of a replica is changed in this module only.

pub mod acks;
pub mod channels;
pub mod cron;
pub mod failover;
pub mod primary;
pub mod role;
pub mod snapshot;
