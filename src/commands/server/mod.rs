//! Commands about the server itself: settings, figures, users, persistence, debugging.

pub mod acl;
pub mod bgrewriteaof;
pub mod bigkeys;
pub mod command;
pub mod commandlog;
pub mod config;
pub mod debug;
pub mod hotkeys;
pub mod info;
pub mod latency;
pub mod memory;
pub mod misc;
pub mod module;
pub mod monitor;
pub mod persistence;
pub mod replication;
pub mod shutdown;
pub mod trace;
