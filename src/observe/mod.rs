//! What the server knows of itself: INFO, statistics, slow commands, latency, MONITOR.

pub mod histogram;
pub mod info;
pub mod latency;
pub mod monitor;
pub mod redact;
pub mod slowlog;
pub mod stats;
