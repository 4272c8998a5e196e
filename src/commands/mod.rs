//! The commands: a row for each (`command`), all rows in one table, one file for each group.
//!
//! A command appends to its client's reply, changes the keyspace and sets flags. It does no I/O and has
//! never heard of the event loop: `before_sleep` and the cron write, close and connect
//! (`tests/tidy.rs` reads the `use` lines).

pub mod command;
pub mod config_cmd;
pub mod connection;
pub mod ctx;
pub mod docs;
pub mod keys;
pub mod multi;
pub mod shutdown;
pub mod string;
pub mod table;

use command::Command;
use table::CommandTable;

/// Every group's rows.
pub const TABLE: &[&[Command]] = &[
    config_cmd::TABLE,
    connection::TABLE,
    multi::TABLE,
    shutdown::TABLE,
    string::TABLE,
];

/// The table that the server looks names up in.
pub fn table() -> CommandTable {
    CommandTable::new(TABLE)
}
