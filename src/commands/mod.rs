//! The commands: a row for each (`command`), all rows in one table, one file for each group.
//!
//! A command appends to its client's reply, changes the keyspace and sets flags. It does no I/O and has
//! never heard of the event loop: `before_sleep` and the cron write, close and connect
//! (`tests/tidy.rs` reads the `use` lines).

pub mod acl;
pub mod bigkeys;
pub mod bitmap;
pub mod client;
pub mod command;
pub mod commandlog;
pub mod config_cmd;
pub mod connection;
pub mod ctx;
pub mod debug;
pub mod docs;
pub mod field_expire;
pub mod generic;
pub mod geo;
pub mod hash;
pub mod hotkeys;
pub mod hyperloglog;
pub mod introspect;
pub mod keys;
pub mod latency;
pub mod list;
pub mod log;
pub mod memory;
pub mod monitor;
pub mod multi;
pub mod pubsub;
pub mod sample;
pub mod scripting;
pub mod set;
pub mod set_algebra;
pub mod shutdown;
pub mod snapshot;
pub mod sort;
pub mod status;
pub mod stream;
pub mod string;
pub mod table;
pub mod zset;

use command::Command;
use table::CommandTable;

/// Every group's rows.
pub const TABLE: &[&[Command]] = &[
    acl::TABLE,
    bigkeys::TABLE,
    bitmap::TABLE,
    client::TABLE,
    commandlog::TABLE,
    config_cmd::TABLE,
    connection::TABLE,
    debug::TABLE,
    field_expire::TABLE,
    generic::TABLE,
    geo::TABLE,
    hash::TABLE,
    hotkeys::TABLE,
    hyperloglog::TABLE,
    introspect::TABLE,
    latency::TABLE,
    list::TABLE,
    log::TABLE,
    memory::TABLE,
    monitor::TABLE,
    multi::TABLE,
    pubsub::TABLE,
    scripting::TABLE,
    set::TABLE,
    set_algebra::TABLE,
    shutdown::TABLE,
    snapshot::TABLE,
    sort::TABLE,
    status::TABLE,
    stream::TABLE,
    string::TABLE,
    zset::TABLE,
];

/// The table that the server looks names up in.
pub fn table() -> CommandTable {
    CommandTable::new(TABLE)
}
