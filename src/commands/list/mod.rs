//! Lists: push, pop and read. `moves` has the commands that move elements between lists or pop from
//! the first of several lists, `blocking` has the commands that wait for an element.
//!
//! Elements are copied from the list straight into the reply. Commands that remove elements end in
//! [`elements_removed`], which removes an empty list: a list that exists has at least one element.

use std::ops::ControlFlow;

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::db::Ttl;
use crate::error::Error;
use crate::keyspace::events;
use crate::keyspace::list_limits::list_limits;
use crate::types::list::{Element, End, List, ListLimits, Side};
use crate::types::part::Opened;
use crate::types::{New, Value, kind};
use crate::util::number::parse_i64;

mod blocking;
mod moves;

use blocking::{blmove, blmpop, blpop, brpop, brpoplpush};
use moves::{lmove, lmpop, rpoplpush};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("blmove", blmove, 6, WRITE | DENYOOM | BLOCKING, LIST)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)]),
    cmd("blmpop", blmpop, -5, WRITE | BLOCKING, LIST)
        .keys(&[counted_keys(2, RW | ACCESS | DELETE)]),
    cmd("blpop", blpop, -3, WRITE | BLOCKING, LIST).keys(&[key(
        RW | ACCESS | DELETE,
        index(1),
        range(-2, 1, 0),
    )]),
    cmd("brpop", brpop, -3, WRITE | BLOCKING, LIST).keys(&[key(
        RW | ACCESS | DELETE,
        index(1),
        range(-2, 1, 0),
    )]),
    cmd(
        "brpoplpush",
        brpoplpush,
        4,
        WRITE | DENYOOM | BLOCKING,
        LIST,
    )
    .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)]),
    cmd("lindex", lindex, 3, READONLY, LIST).keys(&[key_at(1, RO | ACCESS)]),
    cmd("linsert", linsert, 5, WRITE | DENYOOM, LIST).keys(&[key_at(1, RW | INSERT)]),
    cmd("llen", llen, 2, READONLY | FAST, LIST).keys(&[key_at(1, RO)]),
    cmd("lmove", lmove, 5, WRITE | DENYOOM, LIST)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)]),
    cmd("lmpop", lmpop, -4, WRITE, LIST).keys(&[counted_keys(1, RW | ACCESS | DELETE)]),
    cmd("lpop", lpop, -2, WRITE | FAST, LIST).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("lpos", lpos, -3, READONLY, LIST).keys(&[key_at(1, RO | ACCESS)]),
    cmd("lpush", lpush, -3, WRITE | DENYOOM | FAST, LIST).keys(&[key_at(1, RW | INSERT)]),
    cmd("lpushx", lpushx, -3, WRITE | DENYOOM | FAST, LIST).keys(&[key_at(1, RW | INSERT)]),
    cmd("lrange", lrange, 4, READONLY, LIST).keys(&[key_at(1, RO | ACCESS)]),
    cmd("lrem", lrem, 4, WRITE, LIST).keys(&[key_at(1, RW | DELETE)]),
    cmd("lset", lset, 4, WRITE | DENYOOM, LIST).keys(&[key_at(1, RW | UPDATE)]),
    cmd("ltrim", ltrim, 4, WRITE, LIST).keys(&[key_at(1, RW | DELETE)]),
    cmd("rpop", rpop, -2, WRITE | FAST, LIST).keys(&[key_at(1, RW | ACCESS | DELETE)]),
    cmd("rpoplpush", rpoplpush, 3, WRITE | DENYOOM, LIST)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)]),
    cmd("rpush", rpush, -3, WRITE | DENYOOM | FAST, LIST).keys(&[key_at(1, RW | INSERT)]),
    cmd("rpushx", rpushx, -3, WRITE | DENYOOM | FAST, LIST).keys(&[key_at(1, RW | INSERT)]),
];

/// The list under a key, opened for a change; `None` without the key, WRONGTYPE for any other type.
fn list_mut<'s>(ctx: &'s mut Ctx, key: &[u8]) -> Result<Option<Opened<'s, List>>, Error> {
    ctx.server
        .lookup_write(ctx.client, key)
        .map(List::of_mut)
        .transpose()
}

/// Parses the argument `at`, LEFT or RIGHT.
fn parse_end(ctx: &Ctx, at: usize) -> Result<End, Error> {
    if ctx.is(at, "left") {
        Ok(End::Head)
    } else if ctx.is(at, "right") {
        Ok(End::Tail)
    } else {
        Err(Error::SYNTAX)
    }
}

/// Parses the count of LPOP or LMPOP. The error for any invalid argument is that it must be
/// positive.
fn parse_count(ctx: &Ctx, at: usize) -> Result<usize, Error> {
    let count = ctx.int_in(
        at,
        0,
        i64::MAX,
        "ERR value is out of range, must be positive",
    )?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Parses a number whose sign is the direction in which a list is searched; its absolute value must
/// be a valid number as well.
fn parse_signed(ctx: &Ctx, at: usize) -> Result<i64, Error> {
    match ctx.int(at)? {
        i64::MIN => Err(Error::LONG_RANGE),
        n => Ok(n),
    }
}

#[inline]
fn reply_element(reply: &mut ReplyBuf, element: Element) {
    match element {
        Element::Str(text) => reply.bulk(text),
        Element::Int(int) => reply.bulk_integer(int),
    }
}

fn pop_event(end: End) -> &'static str {
    match end {
        End::Head => "lpop",
        End::Tail => "rpop",
    }
}

fn push_event(end: End) -> &'static str {
    match end {
        End::Head => "lpush",
        End::Tail => "rpush",
    }
}

/// LPUSH key element [element ...]
fn lpush(ctx: &mut Ctx) -> CmdResult {
    push_generic(ctx, End::Head, false)
}

/// RPUSH key element [element ...]
fn rpush(ctx: &mut Ctx) -> CmdResult {
    push_generic(ctx, End::Tail, false)
}

/// LPUSHX key element [element ...]
fn lpushx(ctx: &mut Ctx) -> CmdResult {
    push_generic(ctx, End::Head, true)
}

/// RPUSHX key element [element ...]
fn rpushx(ctx: &mut Ctx) -> CmdResult {
    push_generic(ctx, End::Tail, true)
}

fn push_generic(ctx: &mut Ctx, end: End, only_existing: bool) -> CmdResult {
    let (key, texts) = (ctx.argv[1], &ctx.argv[2..]);
    let limits = list_limits(ctx.server);
    let len = match ctx.server.lookup_write(ctx.client, key) {
        Some(entry) => List::change(entry, |list| push_all(list, end, texts, &limits))?,
        None if only_existing => {
            ctx.client.reply.integer(0);
            return Ok(());
        }
        None => {
            let mut list = List::new();
            let len = push_all(&mut list, end, texts, &limits);
            add_list(ctx, key, list);
            len
        }
    };
    ctx.dirty(texts.len() as u64);
    ctx.changed(key, events::LIST, push_event(end));
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// Pushes elements to a list; returns the new length of the list.
#[inline]
fn push_all(list: &mut List, end: End, texts: &[&[u8]], limits: &ListLimits) -> usize {
    match texts {
        [text] => list.push(end, text, limits),
        texts => list.push_all(end, texts, limits),
    }
    list.len()
}

/// Stores a list under a key that does not exist, or whose value is replaced.
pub fn add_list(ctx: &mut Ctx, key: &[u8], list: List) {
    let value = New::Obj(Value::List(list));
    ctx.server
        .set_key(ctx.client.db, key, kind::LIST, value, Ttl::Clear);
}

/// LPOP key [count]
fn lpop(ctx: &mut Ctx) -> CmdResult {
    pop_generic(ctx, End::Head)
}

/// RPOP key [count]
fn rpop(ctx: &mut Ctx) -> CmdResult {
    pop_generic(ctx, End::Tail)
}

fn pop_generic(ctx: &mut Ctx, end: End) -> CmdResult {
    match ctx.argv.len() {
        2 => pop_one(ctx, end),
        3 => pop_count(ctx, end),
        _ => Err(Error::arity(ctx.cmd.name)),
    }
}

fn pop_one(ctx: &mut Ctx, end: End) -> CmdResult {
    let key = ctx.argv[1];
    let limits = list_limits(ctx.server);
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        ctx.client.reply.null();
        return Ok(());
    };
    let mut list = List::of_mut(entry)?;
    list.pop_with(end, |element| reply_element(&mut ctx.client.reply, element));
    list.shrink(&limits);
    let left = list.len();
    drop(list);
    elements_removed(ctx, key, pop_event(end), 1, left);
    Ok(())
}

fn pop_count(ctx: &mut Ctx, end: End) -> CmdResult {
    let key = ctx.argv[1];
    let count = parse_count(ctx, 2)?;
    let limits = list_limits(ctx.server);
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        ctx.client.reply.null_array();
        return Ok(());
    };
    let mut list = List::of_mut(entry)?;
    let (popped, left) = pop_many(&mut list, end, count, &mut ctx.client.reply, &limits);
    drop(list);
    if popped > 0 {
        elements_removed(ctx, key, pop_event(end), popped, left);
    }
    Ok(())
}

/// Pops up to `count` elements into an array of the reply. Returns the number of popped elements,
/// and that of the remaining elements. If no element remains, the list is left unchanged, as the
/// caller deletes its key.
fn pop_many(
    list: &mut List,
    end: End,
    count: usize,
    reply: &mut ReplyBuf,
    limits: &ListLimits,
) -> (usize, usize) {
    let len = list.len();
    let popped = count.min(len);
    let (first, lowest) = match end {
        End::Head => (0, 0),
        End::Tail => (len - 1, len - popped),
    };
    reply.array(popped);
    list.range(first, popped, end, |element| reply_element(reply, element));
    if popped < len {
        list.delete_range(lowest, popped);
        list.shrink(limits);
    }
    (popped, len - popped)
}

/// Notifies that `count` elements were removed from a list, and removes the key if no element is
/// `left`.
fn elements_removed(ctx: &mut Ctx, key: &[u8], event: &'static str, count: usize, left: usize) {
    let db = ctx.client.db;
    ctx.dirty(count as u64);
    ctx.server.notify(events::LIST, event, key, db);
    if left == 0 {
        ctx.server.delete_key(db, key, false);
        ctx.server.notify(events::GENERIC, "del", key, db);
    }
    ctx.server.signal_modified(Some(ctx.client), db, key);
}

/// LLEN key
fn llen(ctx: &mut Ctx) -> CmdResult {
    let len = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        Some(entry) => List::of(entry)?.len(),
        None => 0,
    };
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// LINDEX key index
fn lindex(ctx: &mut Ctx) -> CmdResult {
    let Some(entry) = ctx.server.lookup_read(ctx.client, ctx.argv[1]) else {
        ctx.client.reply.null();
        return Ok(());
    };
    let list = List::of(entry)?;
    let index = parse_i64(ctx.argv[2]).ok_or(Error::NOT_INTEGER)?;
    let reply = &mut ctx.client.reply;
    if list
        .get_with(index, |element| reply_element(reply, element))
        .is_none()
    {
        reply.null();
    }
    Ok(())
}

/// The first index and the length of the range from `start` to `stop` in a list of `len` elements;
/// negative indexes count from the list's end.
fn range_within(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let from_start = |index: i64| if index < 0 { index + len } else { index };
    let start = from_start(start).max(0);
    let stop = from_start(stop).min(len - 1);
    if start > stop {
        (0, 0)
    } else {
        (start as usize, (stop - start + 1) as usize)
    }
}

/// LRANGE key start stop
fn lrange(ctx: &mut Ctx) -> CmdResult {
    let (start, stop) = (ctx.int(2)?, ctx.int(3)?);
    let Some(entry) = ctx.server.lookup_read(ctx.client, ctx.argv[1]) else {
        ctx.client.reply.array(0);
        return Ok(());
    };
    let list = List::of(entry)?;
    let (start, count) = range_within(start, stop, list.len());
    let reply = &mut ctx.client.reply;
    reply.array(count);
    list.range(start, count, End::Head, |element| {
        reply_element(reply, element)
    });
    Ok(())
}

/// LTRIM key start stop
fn ltrim(ctx: &mut Ctx) -> CmdResult {
    let (start, stop) = (ctx.int(2)?, ctx.int(3)?);
    let key = ctx.argv[1];
    let limits = list_limits(ctx.server);
    if let Some(entry) = ctx.server.lookup_write(ctx.client, key) {
        let mut list = List::of_mut(entry)?;
        let len = list.len();
        let (start, keep) = range_within(start, stop, len);
        if keep > 0 {
            list.trim(start, keep, &limits);
        }
        drop(list);
        elements_removed(ctx, key, "ltrim", len - keep, keep);
    }
    ctx.client.reply.ok();
    Ok(())
}

/// LSET key index element
fn lset(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let limits = list_limits(ctx.server);
    let entry = ctx
        .server
        .lookup_write(ctx.client, key)
        .ok_or(Error::NO_SUCH_KEY)?;
    let mut list = List::of_mut(entry)?;
    let index = parse_i64(ctx.argv[2]).ok_or(Error::NOT_INTEGER)?;
    if !list.set(index, ctx.argv[3], &limits) {
        return Err(Error::INDEX_OUT_OF_RANGE);
    }
    drop(list);
    ctx.dirty(1);
    ctx.changed(key, events::LIST, "lset");
    ctx.client.reply.ok();
    Ok(())
}

/// LINSERT key BEFORE | AFTER pivot element
fn linsert(ctx: &mut Ctx) -> CmdResult {
    let side = match () {
        () if ctx.is(2, "after") => Side::After,
        () if ctx.is(2, "before") => Side::Before,
        () => return Err(Error::SYNTAX),
    };
    let (key, pivot, text) = (ctx.argv[1], ctx.argv[3], ctx.argv[4]);
    let limits = list_limits(ctx.server);
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let mut list = List::of_mut(entry)?;
    if !list.insert(pivot, side, text, &limits) {
        ctx.client.reply.integer(-1);
        return Ok(());
    }
    let len = list.len();
    drop(list);
    ctx.dirty(1);
    ctx.changed(key, events::LIST, "linsert");
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// LREM key count element
fn lrem(ctx: &mut Ctx) -> CmdResult {
    let count = parse_signed(ctx, 2)?;
    let (max, from) = match count {
        0 => (usize::MAX, End::Head),
        1.. => (count as usize, End::Head),
        _ => (count.unsigned_abs() as usize, End::Tail),
    };
    let (key, text) = (ctx.argv[1], ctx.argv[3]);
    let limits = list_limits(ctx.server);
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let mut list = List::of_mut(entry)?;
    let removed = list.remove(text, max, from, &limits);
    let left = list.len();
    drop(list);
    if removed > 0 {
        elements_removed(ctx, key, "lrem", removed, left);
    }
    ctx.client.reply.integer(removed as i64);
    Ok(())
}

/// The options of LPOS.
struct Search {
    from: End,
    /// The number of matches to skip, from RANK.
    skip: u64,
    /// The number of matches in the reply, 0 for all; without COUNT a single position, not an
    /// array.
    count: Option<usize>,
    /// The maximum number of elements to compare, from MAXLEN.
    max_len: usize,
}

impl Search {
    fn parse(ctx: &Ctx) -> Result<Search, Error> {
        let mut search = Search {
            from: End::Head,
            skip: 0,
            count: None,
            max_len: usize::MAX,
        };
        let mut at = 3;
        while at < ctx.argv.len() {
            if at + 1 == ctx.argv.len() {
                return Err(Error::SYNTAX);
            }
            if ctx.is(at, "rank") {
                search.set_rank(parse_signed(ctx, at + 1)?)?;
            } else if ctx.is(at, "count") {
                let text = "ERR COUNT can't be negative";
                search.count = Some(ctx.int_in(at + 1, 0, i64::MAX, text)? as usize);
            } else if ctx.is(at, "maxlen") {
                let text = "ERR MAXLEN can't be negative";
                search.max_len = match ctx.int_in(at + 1, 0, i64::MAX, text)? as usize {
                    0 => usize::MAX,
                    max_len => max_len,
                };
            } else {
                return Err(Error::SYNTAX);
            }
            at += 2;
        }
        Ok(search)
    }

    fn set_rank(&mut self, rank: i64) -> Result<(), Error> {
        self.from = match rank {
            0 => {
                return Err(Error::of(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                     negative to start from the end of the list",
                ));
            }
            1.. => End::Head,
            _ => End::Tail,
        };
        self.skip = rank.unsigned_abs() - 1;
        Ok(())
    }

    /// Passes the positions of the elements that equal `text` to `show`.
    fn run(&self, list: &List, text: &[u8], mut show: impl FnMut(usize)) {
        let wanted = self.count.unwrap_or(1);
        let (mut skip, mut shown) = (self.skip, 0);
        list.positions(text, self.from, self.max_len, |position| {
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            show(position);
            shown += 1;
            if shown == wanted {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }
}

/// LPOS key element [RANK rank] [COUNT num-matches] [MAXLEN len]
fn lpos(ctx: &mut Ctx) -> CmdResult {
    let search = Search::parse(ctx)?;
    let text = ctx.argv[2];
    let list = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        Some(entry) => Some(List::of(entry)?),
        None => None,
    };
    let list = list.as_deref();
    let reply = &mut ctx.client.reply;
    if search.count.is_none() {
        let mut found = None;
        if let Some(list) = list {
            search.run(list, text, |position| found = Some(position));
        }
        match found {
            Some(position) => reply.integer(position as i64),
            None => reply.null(),
        }
        return Ok(());
    }
    let Some(list) = list else {
        reply.array(0);
        return Ok(());
    };
    let array = reply.begin_deferred();
    let mut found = 0;
    search.run(list, text, |position| {
        reply.integer(position as i64);
        found += 1;
    });
    reply.end_array(array, found);
    Ok(())
}
