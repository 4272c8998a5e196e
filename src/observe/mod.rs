//! What the server knows of itself: INFO, statistics, slow commands, latency, MONITOR.

pub mod bigkeys;
pub mod commandlog;
pub mod crash;
pub mod histogram;
pub mod hotkeys;
pub mod info;
pub mod key_name;
pub mod latency;
pub mod log;
pub mod memory;
pub mod monitor;
pub mod redact;
pub mod stats;
pub mod syscheck;
