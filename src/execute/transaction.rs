//! The queue of a transaction: keeps commands from MULTI to EXEC, and drops a transaction that
//! can't run.

use crate::client::transaction::MultiState;
use crate::client::{Client, flag};
use crate::command::{Flags, Role};
use crate::error::Error;
use crate::keyspace::watch::unwatch_all;
use crate::state::Server;
use crate::util::number::parse_i64;

/// Queues a command that a client has sent after MULTI, for EXEC.
pub fn queue(server: &Server, c: &mut Client, id: u16, flags: Flags, argv: &[&[u8]]) {
    // A transaction that EXEC will abort does not need its commands.
    if c.has(flag::DIRTY_EXEC | flag::DIRTY_CAS) {
        return;
    }
    let state = c.multi.get_or_insert_with(|| Box::new(MultiState::new()));
    state.push(id, flags, argv);
    if server.commands.row(id).role == Role::Select {
        let db = parse_i64(argv[1]).and_then(|db| u32::try_from(db).ok());
        let exists = |db: &u32| (*db as usize) < server.data.dbs.len();
        state.db = db.filter(exists).or(state.db);
    }
}

/// Leaves MULTI and stops watching keys.
pub fn discard_transaction(server: &mut Server, c: &mut Client) {
    c.multi = None;
    c.clear(flag::MULTI | flag::DIRTY_CAS | flag::DIRTY_EXEC);
    unwatch_all(server, c);
}

/// Ends the transaction because EXEC itself was refused; returns the error EXECABORT with the
/// reason `why`.
pub fn abort(server: &mut Server, c: &mut Client, why: &Error) -> Error {
    discard_transaction(server, c);
    let why = why.text().strip_prefix("ERR ").unwrap_or(why.text());
    Error::new(format!("EXECABORT Transaction discarded because of: {why}"))
}
