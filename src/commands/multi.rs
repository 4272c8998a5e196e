//! Transactions: MULTI queues commands, EXEC runs the queue as one transaction, WATCH makes the
//! transaction conditional.
//!
//! ```text
//!   key_clients.watched[key] -> watchers       client.watched -> keys
//!   a write to key:   each of those clients is flagged DIRTY_CAS and watches nothing any more, EXEC answers null
//!   a refused command while queueing: DIRTY_EXEC, EXEC answers EXECABORT
//! ```

use crate::acl;
use crate::client::flag;
use crate::client::resp::Sent;
use crate::client::transaction::MultiState;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::execute::call::call;
use crate::execute::charge;
use crate::execute::transaction::discard_transaction;
use crate::keyspace::watch::{settle_touched, unwatch_all, watch_key, watched_expired};

/// The flags of a command that is refused between MULTI and EXEC; with
/// `extended-redis-compatibility yes`, the command itself replies with the error.
const ANSWERS_IN_MULTI: Flags = NO_MULTI | MULTI_IN_REDIS | RUNS_IN_MULTI;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd(
        "discard",
        discard,
        1,
        NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | RUNS_IN_MULTI,
        TRANSACTION,
    ),
    cmd(
        "exec",
        exec,
        1,
        NOSCRIPT | LOADING | STALE | SKIP_COMMANDLOG | RUNS_IN_MULTI | RUNS_QUEUE,
        TRANSACTION,
    ),
    cmd(
        "multi",
        multi,
        1,
        ANSWERS_IN_MULTI | NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY,
        TRANSACTION,
    ),
    cmd(
        "unwatch",
        unwatch,
        1,
        NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY,
        TRANSACTION,
    ),
    cmd(
        "watch",
        watch,
        -2,
        ANSWERS_IN_MULTI | NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY,
        TRANSACTION,
    )
    .keys(&[key(RO, index(1), range(-1, 1, 0))]),
];

/// MULTI
fn multi(ctx: &mut Ctx) -> CmdResult {
    if ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR MULTI calls can not be nested"));
    }
    ctx.client.set(flag::MULTI);
    ctx.client.multi = Some(Box::new(MultiState::new()));
    ctx.client.reply.ok();
    Ok(())
}

/// DISCARD
fn discard(ctx: &mut Ctx) -> CmdResult {
    if !ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR DISCARD without MULTI"));
    }
    discard_transaction(ctx.server, ctx.client);
    ctx.client.reply.ok();
    Ok(())
}

/// EXEC
fn exec(ctx: &mut Ctx) -> CmdResult {
    if !ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR EXEC without MULTI"));
    }
    settle_touched(ctx.server, ctx.client);
    if watched_expired(ctx.server, ctx.client) {
        ctx.client.set(flag::DIRTY_CAS);
    }
    if ctx.client.has(flag::DIRTY_CAS | flag::DIRTY_EXEC) {
        let aborted = ctx.client.has(flag::DIRTY_EXEC);
        discard_transaction(ctx.server, ctx.client);
        if aborted {
            return Err(Error::EXECABORT);
        }
        let reply_from = ctx.client.reply.mark();
        ctx.client.reply.null_array();
        ctx.client.drop_unwanted_reply(reply_from);
        ctx.server.depend_on_all_changes();
        return Ok(());
    }
    unwatch_all(ctx.server, ctx.client);
    let state = ctx.client.multi.take().unwrap_or_default();
    ctx.client.clear(flag::MULTI);
    ctx.client.multi = Some(Box::new(MultiState::running(&state)));
    let reply_from = ctx.client.reply.mark();
    ctx.client.reply.array(state.commands.len());
    ctx.client.drop_unwanted_reply(reply_from);
    charge::queue(ctx.server, ctx.client, &state);
    run_queue(ctx, &state);
    ctx.client.multi = None;
    // EXEC itself is not propagated, as each queued command has been propagated already.
    ctx.prevent_propagation();
    Ok(())
}

fn run_queue(ctx: &mut Ctx, state: &MultiState) {
    let could_block = !ctx.client.has(flag::DENY_BLOCKING);
    ctx.client.set(flag::DENY_BLOCKING | flag::IN_EXEC);
    ctx.server.nesting += 1;
    let args = state.slices();
    let mut start = 0;
    for queued in &state.commands {
        let argv = &args[start..queued.args_end];
        start = queued.args_end;
        let reply_from = ctx.client.reply.mark();
        // The user may have lost the right to the command since the command was queued.
        if let Err(error) = acl::check_command(ctx.server, ctx.client, argv, queued.id) {
            ctx.client.reply.error(&error);
            ctx.client.drop_unwanted_reply(reply_from);
            ctx.server.stats.count_error(error.code());
            continue;
        }
        // A queued CLIENT KILL has closed this client: the later commands run and get no reply.
        let closing = ctx.client.has(flag::CLOSE_AFTER_REPLY);
        call(ctx.server, ctx.client, argv, queued.id, Sent::default());
        if closing {
            ctx.client.reply.truncate(reply_from);
        }
    }
    ctx.server.nesting -= 1;
    ctx.client.clear(flag::IN_EXEC);
    if could_block {
        ctx.client.clear(flag::DENY_BLOCKING);
    }
}

/// WATCH key [key ...]
fn watch(ctx: &mut Ctx) -> CmdResult {
    if ctx.client.has(flag::MULTI) {
        return Err(Error::of("ERR WATCH inside MULTI is not allowed"));
    }
    // If a watched key has changed already, EXEC will fail, so no further key needs to be watched.
    if !ctx.client.has(flag::DIRTY_CAS) {
        for at in 1..ctx.argv.len() {
            watch_key(ctx.server, ctx.client, ctx.argv[at]);
        }
    }
    ctx.client.reply.ok();
    Ok(())
}

/// UNWATCH
fn unwatch(ctx: &mut Ctx) -> CmdResult {
    unwatch_all(ctx.server, ctx.client);
    ctx.client.clear(flag::DIRTY_CAS);
    ctx.client.reply.ok();
    Ok(())
}
