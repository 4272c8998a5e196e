//! Blocking commands for lists. Each blocking command first does what its non-blocking form does.
//! If there is no element, the client is blocked; when one of the command's keys is created, the
//! command runs again from its beginning (`execute::blocked`).
//!
//! Between MULTI and EXEC no command can block: it replies at once as if its timeout had passed.

use super::moves::{MultiPop, lmove_generic};
use super::{elements_removed, parse_end, pop_event, reply_element};
use crate::client::blocked::BlockKind;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::execute::blocked::{block_for_keys, deadline_from_seconds};
use crate::keyspace::list_limits::list_limits;
use crate::types::list::{End, List};

/// BLPOP key [key ...] timeout
pub fn blpop(ctx: &mut Ctx) -> CmdResult {
    bpop_generic(ctx, End::Head)
}

/// BRPOP key [key ...] timeout
pub fn brpop(ctx: &mut Ctx) -> CmdResult {
    bpop_generic(ctx, End::Tail)
}

fn bpop_generic(ctx: &mut Ctx, end: End) -> CmdResult {
    let last = ctx.argv.len() - 1;
    let deadline_ms = deadline_from_seconds(ctx.server, ctx.argv[last])?;
    let keys = &ctx.argv[1..last];
    let limits = list_limits(ctx.server);
    for &key in keys {
        let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
            continue;
        };
        let mut list = List::of_mut(entry)?;
        let reply = &mut ctx.client.reply;
        reply.array(2);
        reply.bulk(key);
        list.pop_with(end, |element| reply_element(reply, element));
        list.shrink(&limits);
        let left = list.len();
        drop(list);
        let event = pop_event(end);
        elements_removed(ctx, key, event, 1, left);
        ctx.rewrite(&[event.to_uppercase().as_bytes(), key]);
        return Ok(());
    }
    wait_for_list(ctx, keys, deadline_ms);
    Ok(())
}

/// Blocks the client until one of `keys` is a list.
fn wait_for_list(ctx: &mut Ctx, keys: &[&[u8]], deadline_ms: i64) {
    block_for_keys(
        ctx.server,
        ctx.client,
        BlockKind::List,
        ctx.argv,
        keys,
        deadline_ms,
        false,
    );
}

/// BLMPOP timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]
pub fn blmpop(ctx: &mut Ctx) -> CmdResult {
    let wanted = MultiPop::parse(ctx, 2)?;
    let deadline_ms = deadline_from_seconds(ctx.server, ctx.argv[1])?;
    if !wanted.run(ctx)? {
        wait_for_list(ctx, wanted.keys, deadline_ms);
    }
    Ok(())
}

/// BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout
pub fn blmove(ctx: &mut Ctx) -> CmdResult {
    let (from, to) = (parse_end(ctx, 3)?, parse_end(ctx, 4)?);
    bmove_generic(ctx, from, to, 5, "LMOVE")
}

/// BRPOPLPUSH source destination timeout
pub fn brpoplpush(ctx: &mut Ctx) -> CmdResult {
    bmove_generic(ctx, End::Tail, End::Head, 3, "RPOPLPUSH")
}

/// Moves an element between two lists, or blocks the client. The timeout is the last argument,
/// `argv[last]`; the arguments before it are those of the non-blocking command `propagated`, which
/// is propagated.
fn bmove_generic(ctx: &mut Ctx, from: End, to: End, last: usize, propagated: &str) -> CmdResult {
    let deadline_ms = deadline_from_seconds(ctx.server, ctx.argv[last])?;
    if lmove_generic(ctx, from, to)? {
        let mut argv = ctx.argv[..last].to_vec();
        argv[0] = propagated.as_bytes();
        ctx.rewrite(&argv);
    } else if ctx.client.has(flag::DENY_BLOCKING) {
        ctx.client.reply.null();
    } else {
        wait_for_list(ctx, &ctx.argv[1..2], deadline_ms);
    }
    Ok(())
}
