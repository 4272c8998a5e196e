//! Bits of `Server::armed`: features that must check every command. The word is usually zero, so
//! that features which are off cost one branch together.

/// A client runs MONITOR.
pub const MONITOR: u32 = 1 << 0;
/// There is an AOF or a replication stream.
pub const PROPAGATE: u32 = 1 << 1;
/// A client has CLIENT TRACKING on.
pub const TRACKING: u32 = 1 << 2;
/// Clients are paused.
pub const PAUSED: u32 = 1 << 3;
/// The rights of some user are limited.
pub const ACL: u32 = 1 << 4;
/// BIGKEYS tracks the largest keys.
pub const BIGKEYS: u32 = 1 << 5;
/// Clients see a change only when it is on the disk (`appendfsync always`).
pub const UNSYNCED: u32 = 1 << 6;
/// This server follows a primary.
pub const REPLICA: u32 = 1 << 7;
/// A trace is recorded.
pub const TRACE: u32 = 1 << 8;
