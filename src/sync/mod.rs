//! The operations of replication: replies to replicas that request a sync, creates their snapshots,
//! counts their acknowledgements.
//!
//! ```text
//!   REPLCONF, PSYNC, SYNC ─> primary ─┬─ partial: a cursor in the backlog ──────────────> Online
//!                                     └─ full: snapshot ─> child ─> file or pipe ────────> Online
//!   REPLCONF ACK ─> acks ─> WAIT, WAITAOF
//!   REPLICAOF ─> role: whose history this server has from now on
//!   FAILOVER ─> failover: the role goes to a replica that has the whole stream
//!   once a second ─> cron: PING into the stream, newlines, time-outs, a child that is due
//! ```
//!
//! The data of replication (history, stream, table of replicas) is in `replication`, below; the
//! sockets are written in `networking::replicas`, above. Nothing here waits.

pub mod acks;
pub mod channels;
pub mod cron;
pub mod failover;
pub mod primary;
pub mod role;
pub mod snapshot;
