//! MIGRATE in a transaction or a script: the whole server waits for the other server, as in Redis,
//! since no other client may run between the commands of a transaction.
//!
//! ```text
//!   migrate ─> WaitingLink: AUTH?, SELECT ─> windows of RESTORE ─> DEL of the keys that arrived
//! ```
//!
//! **Invariant:** no other command runs before MIGRATE ends, so a key can't change between its
//! RESTORE and its deletion.
//! **Limits:** a slow destination blocks the server for up to MIGRATE's timeout once for each
//! reply, as `execute::waiting_link` explains.

use std::mem::take;

use super::wire::{self, WINDOW, tag};
use crate::command::ctx::{CmdResult, Ctx};
use crate::connection::connect::source_address;
use crate::execute::migration::{Due, Migration};
use crate::execute::waiting_link::{Peer, WaitingLink};
use crate::keyspace::events;
use crate::link::{Errors, Failure, Plan, Reply, Step, Unasked};

/// Runs MIGRATE: sends the keys, deletes the keys that the destination has stored, and replies.
pub fn migrate(ctx: &mut Ctx, mut migration: Migration) -> CmdResult {
    let dirty = ctx.server.dirty;
    let failure = transfer(ctx, &mut migration).err();
    if !migration.copy {
        delete_restored(ctx, take(&mut migration.restored));
    }
    match wire::error_of(&migration, failure.as_ref()) {
        None => ctx.client.reply.ok(),
        Some(error) if ctx.server.dirty == dirty => return Err(error),
        // Some keys were moved before the error. The deletion of the moved keys is propagated, but
        // would not be if this function returned the error.
        Some(error) => {
            ctx.server.stats.count_error(error.code());
            ctx.client.reply.error(&error);
        }
    }
    Ok(())
}

fn transfer(ctx: &mut Ctx, migration: &mut Migration) -> Result<(), Failure> {
    let to = &migration.destination;
    let config = &ctx.server.config;
    let no_tls = || Failure::Connect("TLS is not configured".into());
    let tls = match config.tls_cluster {
        true => Some(ctx.server.tls.materials.as_deref().ok_or_else(no_tls)?),
        false => None,
    };
    let peer = Peer {
        host: &to.host,
        port: to.port,
        source: source_address(config),
        tls,
    };
    let mut link = WaitingLink::open(&peer, || {
        let auth = wire::auth(to).into_iter();
        let script = auth.chain([wire::select(migration)]).collect();
        Plan::new(script, Unasked::Refuse, migration.timeout_ms)
    })?;
    link.exchange(|tag, reply| note(migration, tag, reply))?;
    while migration.is_selected && !migration.queue.is_empty() {
        while migration.bytes_due() < WINDOW
            && let Some(key) = migration.queue.pop_front()
        {
            let Some(request) = wire::request_for(ctx.server, migration, &key) else {
                continue;
            };
            let step = Step::new(tag::KEY, &request).errors(Errors::Tolerated);
            migration.due.push_back(Due {
                key,
                bytes: step.request.len(),
                is_deletion: false,
                is_watched: false,
            });
            link.push(step);
        }
        link.exchange(|tag, reply| note(migration, tag, reply))?;
    }
    Ok(())
}

/// Records a reply of the destination to AUTH, SELECT, or the RESTORE of a key.
fn note(migration: &mut Migration, tag: u32, reply: Reply) {
    let error = match reply {
        Reply::Error(error) => Some(error),
        _ => None,
    };
    match (tag, error) {
        (tag::KEY, error) => {
            migration.replied(error);
        }
        (tag::SELECT, Some(error)) => migration.fail(error),
        (tag::SELECT, None) => migration.is_selected = true,
        _ => {}
    }
}

/// Deletes the restored keys from this server, and propagates the deletion in place of MIGRATE.
fn delete_restored(ctx: &mut Ctx, restored: Vec<Box<[u8]>>) {
    let (db, lazy) = (ctx.client.db, ctx.server.config.lazyfree_lazy_server_del);
    let mut deleted: Vec<&[u8]> = vec![b"DEL"];
    for key in &restored {
        if ctx.server.delete_key(db, key, lazy) {
            ctx.changed(key, events::GENERIC, "del");
            ctx.dirty(1);
            deleted.push(key);
        }
    }
    if deleted.len() > 1 {
        ctx.rewrite(&deleted);
    }
}
