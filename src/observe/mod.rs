//! Information about the running server: INFO, statistics, slow commands, latency, MONITOR.

pub mod bigkeys;
pub mod commandlog;
pub mod hotkeys;
pub mod key_name;
pub mod latency;
pub mod logging;
pub mod memory_report;
pub mod monitor;
pub mod pass;
pub mod redact;
pub mod slot_stats;
pub mod stats;
pub mod trace;
pub mod turns;
pub mod type_memory;
