//! Bits of `Server::armed`, one for each feature that must check every command. `Server::armed` is
//! usually zero, so that all features which are off cost one branch together.

/// The bit is set while a client runs MONITOR.
pub const MONITOR: u32 = 1 << 0;
/// Changes of the data set are propagated: there is an AOF or a replication stream.
pub const PROPAGATE: u32 = 1 << 1;
/// A client has CLIENT TRACKING on.
pub const TRACKING: u32 = 1 << 2;
/// Clients are paused, by CLIENT PAUSE or by a failover.
pub const PAUSED: u32 = 1 << 3;
/// The rights of some user are limited.
pub const ACL: u32 = 1 << 4;
/// BIGKEYS tracks the largest keys.
pub const BIGKEYS: u32 = 1 << 5;
/// Replies that show a change wait until the change is on the disk (`appendfsync always`).
pub const UNSYNCED: u32 = 1 << 6;
/// This server is a replica.
pub const REPLICA: u32 = 1 << 7;
/// TRACE records the turns of the event loop.
pub const TRACE: u32 = 1 << 8;
/// `import-mode` is on, on a primary: whether a client sees expired keys depends on the client.
pub const IMPORT: u32 = 1 << 9;
/// This server is the node of a cluster.
pub const CLUSTER: u32 = 1 << 10;
/// The costs of commands are counted for their cluster slots (`cluster-slot-stats-enabled`).
pub const SLOT_STATS: u32 = 1 << 11;
/// The eviction policy is LRM: the time of each change is recorded in its key.
pub const LRM: u32 = 1 << 12;
/// This node imports slots from another node.
pub const SLOT_IMPORTS: u32 = 1 << 13;
/// The slots of each command must be checked: on a cluster node always, except during a batch whose
/// slots were all checked when it was parsed.
pub const ROUTE: u32 = 1 << 14;
/// DEBUG KEYSIZES-HIST-ASSERT is on.
pub const ASSERT_LENGTHS: u32 = 1 << 15;
/// The bits of all features that must see every change of a key.
pub const CHANGES: u32 = TRACKING | BIGKEYS | UNSYNCED | LRM | ASSERT_LENGTHS;
