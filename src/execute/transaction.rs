//! A transaction's queue: commands kept for EXEC, and the end of a transaction that can't run.

use crate::client::transaction::MultiState;
use crate::client::{Client, flag};
use crate::command::Flags;
use crate::error::Error;
use crate::keyspace::watch::unwatch_all;
use crate::state::Server;

/// Keep a command for EXEC.
pub fn queue(c: &mut Client, id: u16, flags: Flags, argv: &[&[u8]]) {
    // What aborts the transaction anyway need not be kept.
    if c.has(flag::DIRTY_EXEC | flag::DIRTY_CAS) {
        return;
    }
    c.multi
        .get_or_insert_with(|| Box::new(MultiState::new()))
        .push(id, flags, argv);
}

/// Back to normal, watching nothing.
pub fn discard_transaction(server: &mut Server, c: &mut Client) {
    c.multi = None;
    c.clear(flag::MULTI | flag::DIRTY_CAS | flag::DIRTY_EXEC);
    unwatch_all(server, c);
}

/// EXEC itself was refused: the transaction ends here, and the client learns why.
pub fn abort(server: &mut Server, c: &mut Client, why: &Error) -> Error {
    discard_transaction(server, c);
    let why = why.text().strip_prefix("ERR ").unwrap_or(why.text());
    Error::new(format!("EXECABORT Transaction discarded because of: {why}"))
}
