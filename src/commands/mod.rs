//! The commands. Each command has a row with its name, function, arity, flags and keys (see
//! `command`); all rows are in one table; each group of commands is one file or folder.
//!
//! A command appends to its client's reply, changes the keyspace and sets flags. A command does no
//! I/O and does not use the event loop: `before_sleep` and the cron write, close and connect
//! (`tests/tidy.rs` checks the imports).

pub mod bitmap;
pub mod client;
pub mod cluster;
pub mod connection;
pub mod field_expire;
pub mod generic;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod list;
pub mod multi;
pub mod pubsub;
pub mod random_elements;
pub mod scripting;
pub mod server;
pub mod set;
pub mod set_algebra;
pub mod sort;
pub mod stream;
pub mod string;
pub mod zset;

use crate::command::Command;
use crate::command::table::CommandTable;

/// The rows of all commands, by groups.
pub const TABLE: &[&[Command]] = &[
    server::acl::TABLE,
    server::bigkeys::TABLE,
    bitmap::TABLE,
    client::TABLE,
    cluster::TABLE,
    server::commandlog::TABLE,
    server::config::TABLE,
    connection::TABLE,
    server::debug::TABLE,
    field_expire::TABLE,
    generic::TABLE,
    geo::TABLE,
    hash::TABLE,
    server::hotkeys::TABLE,
    hyperloglog::TABLE,
    server::command::TABLE,
    server::latency::TABLE,
    list::TABLE,
    server::bgrewriteaof::TABLE,
    server::memory::TABLE,
    server::module::TABLE,
    server::monitor::TABLE,
    multi::TABLE,
    pubsub::TABLE,
    scripting::TABLE,
    set::TABLE,
    set_algebra::TABLE,
    server::shutdown::TABLE,
    server::persistence::TABLE,
    server::replication::TABLE,
    sort::TABLE,
    server::misc::TABLE,
    stream::TABLE,
    string::TABLE,
    server::trace::TABLE,
    zset::TABLE,
];

/// The table in which the server looks up commands by their names.
pub fn table() -> CommandTable {
    CommandTable::new(TABLE)
}
