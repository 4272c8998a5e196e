//! Bits of `Server::armed`: features that have to look at every command. The word is zero most of
//! the time, so features that are off cost one branch together.

/// A client runs MONITOR.
pub const MONITOR: u32 = 1 << 0;
/// There is an AOF or a replication stream to feed.
pub const PROPAGATE: u32 = 1 << 1;
/// A client has CLIENT TRACKING on.
pub const TRACKING: u32 = 1 << 2;
/// Clients are paused.
pub const PAUSED: u32 = 1 << 3;
/// Some user may not do everything.
pub const ACL: u32 = 1 << 4;
/// The largest keys are kept.
pub const BIGKEYS: u32 = 1 << 5;
/// Clients see a change only when it is on the disk.
pub const UNSYNCED: u32 = 1 << 6;
