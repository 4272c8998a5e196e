//! Snapshots: the whole data set in one file.

use crate::persist::child::Outcome;
use crate::state::Server;

/// What is known of snapshots.
#[derive(Default)]
pub struct Rdb {
    /// Bytes that the last saving child made the system copy.
    pub last_cow_bytes: u64,
}

/// The saving child has ended.
pub fn background_save_done(server: &mut Server, outcome: Outcome) {
    server.rdb.last_cow_bytes = outcome.cow_bytes;
}
