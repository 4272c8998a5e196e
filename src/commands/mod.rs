//! The commands: a row for each (`command`), all rows in one table, one file for each group.
//!
//! A command appends to its client's reply, changes the keyspace and sets flags. It does no I/O and has
//! never heard of the event loop: `before_sleep` and the cron write, close and connect
//! (`tests/tidy.rs` reads the `use` lines).

pub mod command;
pub mod connection;
pub mod ctx;
pub mod debug;
pub mod docs;
pub mod field_expire;
pub mod generic;
pub mod hash;
pub mod keys;
pub mod multi;
pub mod set;
pub mod set_algebra;
pub mod string;
pub mod table;

use command::Command;
use table::CommandTable;

/// Every group's rows.
pub const TABLE: &[&[Command]] = &[
    connection::TABLE,
    debug::TABLE,
    field_expire::TABLE,
    generic::TABLE,
    hash::TABLE,
    multi::TABLE,
    set::TABLE,
    set_algebra::TABLE,
    string::TABLE,
];

/// The table that the server looks names up in.
pub fn table() -> CommandTable {
    CommandTable::new(TABLE)
}
