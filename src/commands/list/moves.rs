//! Commands on several lists: LMOVE moves an element from one list to another, LMPOP pops from the
//! first list that exists.

use super::{add_list, elements_removed, list_mut, parse_end, pop_event, pop_many, push_event};
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::keyspace::events;
use crate::keyspace::list_limits::list_limits;
use crate::types::list::{End, List};

/// LMOVE source destination LEFT | RIGHT LEFT | RIGHT
pub fn lmove(ctx: &mut Ctx) -> CmdResult {
    let (from, to) = (parse_end(ctx, 3)?, parse_end(ctx, 4)?);
    if !lmove_generic(ctx, from, to)? {
        ctx.client.reply.null();
    }
    Ok(())
}

/// RPOPLPUSH source destination
pub fn rpoplpush(ctx: &mut Ctx) -> CmdResult {
    if !lmove_generic(ctx, End::Tail, End::Head)? {
        ctx.client.reply.null();
    }
    Ok(())
}

/// Moves an element from the list `argv[1]` to the list `argv[2]`, which may be the same list, and
/// replies with the element. Returns false, and does nothing, if the first list does not exist.
pub fn lmove_generic(ctx: &mut Ctx, from: End, to: End) -> Result<bool, Error> {
    let (source, destination) = (ctx.argv[1], ctx.argv[2]);
    if list_mut(ctx, source)?.is_none() {
        return Ok(false);
    }
    list_mut(ctx, destination)?;
    let taken =
        list_mut(ctx, source)?.and_then(|mut list| list.pop_with(from, |element| element.to_vec()));
    let Some(text) = taken else { return Ok(false) };
    give(ctx, destination, to, &text)?;
    ctx.client.reply.bulk(&text);
    let limits = list_limits(ctx.server);
    let left = list_mut(ctx, source)?.map_or(0, |mut list| {
        list.shrink(&limits);
        list.len()
    });
    elements_removed(ctx, source, pop_event(from), 1, left);
    Ok(true)
}

/// Pushes the moved element to the destination.
fn give(ctx: &mut Ctx, key: &[u8], end: End, text: &[u8]) -> CmdResult {
    let limits = list_limits(ctx.server);
    if let Some(mut list) = list_mut(ctx, key)? {
        list.push(end, text, &limits);
    } else {
        let mut list = List::new();
        list.push(end, text, &limits);
        add_list(ctx, key, list);
    }
    ctx.changed(key, events::LIST, push_event(end));
    Ok(())
}

/// The arguments of LMPOP and BLMPOP.
pub struct MultiPop<'a> {
    pub keys: &'a [&'a [u8]],
    pub end: End,
    pub count: usize,
}

/// LMPOP numkeys key [key ...] LEFT | RIGHT [COUNT count]
pub fn lmpop(ctx: &mut Ctx) -> CmdResult {
    let wanted = MultiPop::parse(ctx, 1)?;
    if !wanted.run(ctx)? {
        ctx.client.reply.null_array();
    }
    Ok(())
}

impl<'a> MultiPop<'a> {
    /// Parses the arguments of LMPOP or BLMPOP from `numkeys`, which is `argv[at]`, on.
    pub fn parse(ctx: &Ctx<'a>, at: usize) -> Result<MultiPop<'a>, Error> {
        let numkeys = ctx.int_in(at, 1, i64::MAX, "ERR numkeys should be greater than 0")?;
        let rest = ctx.argv.len() - at - 1;
        let numkeys = usize::try_from(numkeys)
            .ok()
            .filter(|&n| n < rest)
            .ok_or(Error::SYNTAX)?;
        let keys = &ctx.argv[at + 1..][..numkeys];
        let end_at = at + 1 + numkeys;
        let end = parse_end(ctx, end_at)?;
        let count = match ctx.argv.len() - end_at {
            1 => 1,
            3.. if ctx.is(end_at + 1, "count") => ctx.int_in(
                end_at + 2,
                1,
                i64::MAX,
                "ERR count should be greater than 0",
            )?,
            _ => return Err(Error::SYNTAX),
        };
        if ctx.argv.len() > end_at + 3 {
            return Err(Error::SYNTAX);
        }
        Ok(MultiPop {
            keys,
            end,
            count: usize::try_from(count).unwrap_or(usize::MAX),
        })
    }

    /// Pops from the first list that exists. Returns false if no list exists.
    pub fn run(&self, ctx: &mut Ctx) -> Result<bool, Error> {
        let limits = list_limits(ctx.server);
        for &key in self.keys {
            let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
                continue;
            };
            let mut list = List::of_mut(entry)?;
            let reply = &mut ctx.client.reply;
            reply.array(2);
            reply.bulk(key);
            let (popped, left) = pop_many(&mut list, self.end, self.count, reply, &limits);
            drop(list);
            let event = pop_event(self.end);
            elements_removed(ctx, key, event, popped, left);
            ctx.rewrite(&[
                event.to_uppercase().as_bytes(),
                key,
                popped.to_string().as_bytes(),
            ]);
            return Ok(true);
        }
        Ok(false)
    }
}
