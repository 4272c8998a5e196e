//! aeris: a Redis-compatible server. One thread owns every data structure and runs one event loop.
//!
//! A module imports only modules that come before it in the list `ROOMS` of `tests/tidy.rs`.
//! README.md, "Internals", has the code map and a reading order.
#![deny(unsafe_code)]

pub mod acl;
pub mod armed;
pub mod client;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod commands;
pub mod config;
pub mod connection;
pub mod data_set;
pub mod db;
pub mod ds;
pub mod error;
pub mod execute;
pub mod keyspace;
pub mod link;
pub mod member;
pub mod networking;
pub mod observe;
pub mod persist;
pub mod propagate;
pub mod pubsub;
pub mod replication;
pub mod script;
pub mod server;
pub mod state;
pub mod sync;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod texts;
pub mod tracking;
pub mod types;
pub mod util;

/// The version of Redis whose behaviour aeris has, and which aeris reports to clients.
pub const REDIS_VERSION: &str = "7.2.4";
/// The version of the Valkey server whose snapshots aeris can read: a Valkey primary sends fields
/// with a time to live only to a replica that announces such a version.
pub const VALKEY_VERSION: &str = "9.0.0";
/// The version of aeris.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A number that identifies the build of aeris: a hash of the package's name and version, the width
/// of a pointer, and whether debug assertions are on.
pub const fn build_id() -> u64 {
    let text = concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION")).as_bytes();
    let bits = usize::BITS as u64 | (cfg!(debug_assertions) as u64) << 32;
    util::fnv::hash(bits, text)
}
