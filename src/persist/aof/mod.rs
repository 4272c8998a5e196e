//! The append only file: every change as the command that made it, so that a crash loses nothing that the policy
//! promises.

use crate::persist::child::Outcome;
use crate::state::Server;

/// What is known of the log.
#[derive(Default)]
pub struct Aof {
    /// Bytes that the last rewrite's child made the system copy.
    pub last_cow_bytes: u64,
}

/// The rewriting child has ended.
pub fn rewrite_done(server: &mut Server, outcome: Outcome) {
    server.aof.last_cow_bytes = outcome.cow_bytes;
}
