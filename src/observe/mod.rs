//! What the server knows of itself: INFO, statistics, slow commands, latency, MONITOR.

pub mod commandlog;
pub mod histogram;
pub mod info;
pub mod latency;
pub mod memory;
pub mod monitor;
pub mod redact;
pub mod stats;
