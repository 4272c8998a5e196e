//! Commands on single members of a sorted set: adding, removing, reading, popping from either end,
//! picking at random.
//!
//! All commands that pop use [`pop_from_first`], which pops from the first of several keys that is
//! a sorted set. The commands that pop differ in the form of the reply, and the blocking commands
//! (`BZPOPMIN`, `BZPOPMAX`, `BZMPOP`) wait if there is no member. All pops are propagated as
//! ZPOPMIN or ZPOPMAX of the key that was popped from.

use crate::client::blocked::BlockKind;
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::commands::generic::{ScanOf, ScanOptions, parse_cursor, reply_nothing_found};
use crate::commands::random_elements;
use crate::commands::zset::{
    members_removed, read_zset, reply_for_members, reply_member, write_zset,
};
use crate::db::Ttl;
use crate::error::Error;
use crate::execute::blocked::{block_for_keys, deadline_from_seconds};
use crate::keyspace::events;
use crate::types::zset::{AddFlags, Added, Zset, ZsetLimits};
use crate::types::{New, Value, kind};
use crate::util::number;
use crate::util::number::{parse_f64, write_g};

/// The options of ZADD and GEOADD.
#[derive(Clone, Copy, Default)]
pub struct AddOptions {
    pub flags: AddFlags,
    /// CH: also count updated members.
    pub count_changed: bool,
}

impl AddOptions {
    /// Applies one option of ZADD; returns false if the argument is not an option.
    fn take(&mut self, option: &[u8]) -> bool {
        let flags = &mut self.flags;
        match option.to_ascii_lowercase().as_slice() {
            b"nx" => flags.nx = true,
            b"xx" => flags.xx = true,
            b"gt" => flags.gt = true,
            b"lt" => flags.lt = true,
            b"incr" => flags.incr = true,
            b"ch" => self.count_changed = true,
            _ => return false,
        }
        true
    }

    fn check(&self, members: usize) -> CmdResult {
        let AddFlags {
            nx,
            xx,
            gt,
            lt,
            incr,
        } = self.flags;
        if nx && xx {
            return Err(Error::of(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if [gt, lt, nx].iter().filter(|&&given| given).count() > 1 {
            return Err(Error::of(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if incr && members > 1 {
            return Err(Error::of(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }
}

/// ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]
pub fn zadd(ctx: &mut Ctx) -> CmdResult {
    let mut options = AddOptions::default();
    let mut first = 2;
    // No option is longer than four letters, so most scores are recognised by their length.
    while first < ctx.argv.len() && ctx.argv[first].len() <= 4 && options.take(ctx.argv[first]) {
        first += 1;
    }
    zadd_generic(ctx, first, options)
}

/// ZINCRBY key increment member
pub fn zincrby(ctx: &mut Ctx) -> CmdResult {
    // An increment of this form is a syntax error: Redis takes it for an option of ZADD, and then
    // misses the increment.
    const OPTIONS: [&str; 6] = ["nx", "xx", "ch", "incr", "gt", "lt"];
    if OPTIONS.iter().any(|option| ctx.is(2, option)) {
        return Err(Error::SYNTAX);
    }
    let mut options = AddOptions::default();
    options.flags.incr = true;
    zadd_generic(ctx, 2, options)
}

/// Adds the pairs of score and member from `argv[first]` on to the sorted set.
fn zadd_generic(ctx: &mut Ctx, first: usize, options: AddOptions) -> CmdResult {
    let (pairs, rest) = ctx.argv[first..].as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Error::SYNTAX);
    }
    options.check(pairs.len())?;
    if let [pair] = pairs {
        return add_members(ctx, options, &[parse_pair(pair)?]);
    }
    let members: Vec<_> = pairs.iter().map(parse_pair).collect::<Result<_, _>>()?;
    add_members(ctx, options, &members)
}

fn parse_pair<'a>(&[score, member]: &[&'a [u8]; 2]) -> Result<(f64, &'a [u8]), Error> {
    Ok((parse_f64(score).ok_or(Error::NOT_FLOAT)?, member))
}

/// The numbers of members that one ZADD added and updated, and the result for its last member.
struct Tally {
    added: u64,
    updated: u64,
    last: Added,
}

impl Tally {
    fn add_all(
        zset: &mut Zset,
        members: &[(f64, &[u8])],
        flags: AddFlags,
        limits: &ZsetLimits,
    ) -> Tally {
        let mut tally = Tally::nothing();
        for &(score, member) in members {
            tally.last = zset.add(member, score, flags, limits);
            tally.added += matches!(tally.last, Added::New(_)) as u64;
            tally.updated += matches!(tally.last, Added::Updated(_)) as u64;
        }
        tally
    }

    fn nothing() -> Tally {
        Tally {
            added: 0,
            updated: 0,
            last: Added::Nothing,
        }
    }
}

/// Adds members to the sorted set with the key `argv[1]`, and replies as ZADD does. With INCR there
/// is exactly one member.
pub fn add_members(ctx: &mut Ctx, options: AddOptions, members: &[(f64, &[u8])]) -> CmdResult {
    let (key, flags) = (ctx.argv[1], options.flags);
    let limits = ZsetLimits::of(ctx.server);
    let tally = if let Some(mut zset) = write_zset(ctx.server, ctx.client, key)? {
        zset.expect(members.len(), &limits);
        Tally::add_all(&mut zset, members, flags, &limits)
    } else if flags.xx {
        Tally::nothing()
    } else {
        let mut zset = Zset::new(members.len(), &limits);
        let tally = Tally::add_all(&mut zset, members, flags, &limits);
        let value = New::Obj(Value::Zset(zset));
        ctx.server
            .set_key(ctx.client.db, key, kind::ZSET, value, Ttl::Clear);
        tally
    };
    if tally.last == Added::Nan {
        return Err(Error::of("ERR resulting score is not a number (NaN)"));
    }
    let changed = tally.added + tally.updated;
    if changed > 0 {
        ctx.dirty(changed);
        ctx.changed(key, events::ZSET, if flags.incr { "zincr" } else { "zadd" });
    }
    let reply = &mut ctx.client.reply;
    match tally.last {
        _ if !flags.incr => {
            let count = if options.count_changed {
                changed
            } else {
                tally.added
            };
            reply.integer(count as i64);
        }
        Added::New(score) | Added::Updated(score) | Added::Same(score) => reply.double(score),
        Added::Nothing | Added::Nan => reply.null(),
    }
    Ok(())
}

/// ZREM key member [member ...]
pub fn zrem(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let Some(mut zset) = write_zset(ctx.server, ctx.client, key)? else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let removed = ctx.argv[2..]
        .iter()
        .filter(|member| zset.remove(member).is_some())
        .count();
    let is_empty = zset.is_empty();
    drop(zset);
    members_removed(ctx, key, "zrem", removed, is_empty);
    ctx.client.reply.integer(removed as i64);
    Ok(())
}

/// ZCARD key
pub fn zcard(ctx: &mut Ctx) -> CmdResult {
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    ctx.client.reply.integer(zset.map_or(0, Zset::len) as i64);
    Ok(())
}

/// ZSCORE key member
pub fn zscore(ctx: &mut Ctx) -> CmdResult {
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    match zset.and_then(|zset| zset.score(ctx.argv[2])) {
        Some(score) => ctx.client.reply.double(score),
        None => ctx.client.reply.null(),
    }
    Ok(())
}

/// ZMSCORE key member [member ...]
pub fn zmscore(ctx: &mut Ctx) -> CmdResult {
    reply_for_members(ctx, |reply, score| match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    })
}

/// ZRANK key member [WITHSCORE]
pub fn zrank(ctx: &mut Ctx) -> CmdResult {
    zrank_generic(ctx, false)
}

/// ZREVRANK key member [WITHSCORE]
pub fn zrevrank(ctx: &mut Ctx) -> CmdResult {
    zrank_generic(ctx, true)
}

fn zrank_generic(ctx: &mut Ctx, reverse: bool) -> CmdResult {
    let with_score = match ctx.argv.len() {
        3 => false,
        4 if ctx.is(3, "withscore") => true,
        4 => return Err(Error::SYNTAX),
        _ => return Err(Error::arity(ctx.cmd.name)),
    };
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let found = zset.and_then(|zset| zset.rank(ctx.argv[2], reverse));
    let reply = &mut ctx.client.reply;
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.integer(rank as i64);
            reply.double(score);
        }
        Some((rank, _)) => reply.integer(rank as i64),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

/// The end of a sorted set from which members are popped: lowest or highest score.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> &'static str {
        if self == End::Min {
            "zpopmin"
        } else {
            "zpopmax"
        }
    }

    /// The command that pops members from this end of a sorted set, and as which all pops are
    /// propagated.
    fn command(self) -> &'static [u8] {
        if self == End::Min {
            b"ZPOPMIN"
        } else {
            b"ZPOPMAX"
        }
    }

    fn parse(ctx: &Ctx, at: usize) -> Result<End, Error> {
        match () {
            _ if ctx.is(at, "min") => Ok(End::Min),
            _ if ctx.is(at, "max") => Ok(End::Max),
            _ => Err(Error::SYNTAX),
        }
    }
}

/// The form of the reply with popped members.
#[derive(Clone, Copy)]
enum Frame {
    /// member, score, member, score ...: ZPOPMIN, with a count only in RESP2
    Flat,
    /// [member, score] ...: ZPOPMIN with a count in RESP3
    Pairs,
    /// key, member, score: BZPOPMIN
    KeyFlat,
    /// key, [[member, score] ...]: ZMPOP
    KeyPairs,
}

impl Frame {
    fn begin(self, reply: &mut ReplyBuf, key: &[u8], len: usize) {
        match self {
            Frame::Flat => reply.array(2 * len),
            Frame::Pairs => reply.array(len),
            Frame::KeyFlat => {
                reply.array(2 * len + 1);
                reply.bulk(key);
            }
            Frame::KeyPairs => {
                reply.array(2);
                reply.bulk(key);
                reply.array(len);
            }
        }
    }

    fn has_pairs(self) -> bool {
        matches!(self, Frame::Pairs | Frame::KeyPairs)
    }
}

/// Pops up to `count` members from the first of `keys` that has any, and replies with them. Returns
/// the key and the number of members; `None` if there is no such key, and then nothing was replied.
fn pop_from_first<'a>(
    ctx: &mut Ctx<'a>,
    keys: &[&'a [u8]],
    end: End,
    count: usize,
    frame: Frame,
) -> Result<Option<(&'a [u8], usize)>, Error> {
    for &key in keys {
        let Some(mut zset) = write_zset(ctx.server, ctx.client, key)? else {
            continue;
        };
        let count = count.min(zset.len());
        let reply = &mut ctx.client.reply;
        frame.begin(reply, key, count);
        zset.pop(end == End::Max, count, |member, score| {
            if frame.has_pairs() {
                reply.array(2);
            }
            reply.bulk(member);
            reply.double(score);
        });
        let is_empty = zset.is_empty();
        drop(zset);
        members_removed(ctx, key, end.event(), count, is_empty);
        return Ok(Some((key, count)));
    }
    Ok(None)
}

/// ZPOPMIN key [count]
pub fn zpopmin(ctx: &mut Ctx) -> CmdResult {
    zpop_generic(ctx, End::Min)
}

/// ZPOPMAX key [count]
pub fn zpopmax(ctx: &mut Ctx) -> CmdResult {
    zpop_generic(ctx, End::Max)
}

fn zpop_generic(ctx: &mut Ctx, end: End) -> CmdResult {
    let (count, frame) = match ctx.argv.len() {
        2 => (1, Frame::Flat),
        3 => {
            let frame = if ctx.client.reply.resp3 {
                Frame::Pairs
            } else {
                Frame::Flat
            };
            let text = "ERR value is out of range, must be positive";
            (ctx.int_in(2, 0, i64::MAX, text)? as usize, frame)
        }
        _ => return Err(Error::SYNTAX),
    };
    if pop_from_first(ctx, &ctx.argv[1..2], end, count, frame)?.is_none() {
        ctx.client.reply.array(0);
    }
    Ok(())
}

/// The arguments of ZMPOP and BZMPOP from `numkeys` on.
struct MultiPop<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a> MultiPop<'a> {
    fn parse(ctx: &Ctx<'a>, at: usize) -> Result<MultiPop<'a>, Error> {
        let numkeys = ctx.int_in(at, 1, i64::MAX, "ERR numkeys should be greater than 0")? as usize;
        let argv = ctx.argv;
        // The argument after the keys of ZMPOP is MIN or MAX.
        let end_at = (at + 1)
            .checked_add(numkeys)
            .filter(|end_at| *end_at < argv.len());
        let end_at = end_at.ok_or(Error::SYNTAX)?;
        let end = End::parse(ctx, end_at)?;
        let count = match argv.len() - end_at - 1 {
            0 => 1,
            n if n >= 2 && ctx.is(end_at + 1, "count") => {
                let text = "ERR count should be greater than 0";
                let count = ctx.int_in(end_at + 2, 1, i64::MAX, text)?;
                if n > 2 {
                    return Err(Error::SYNTAX);
                }
                count as usize
            }
            _ => return Err(Error::SYNTAX),
        };
        Ok(MultiPop {
            keys: &argv[at + 1..end_at],
            end,
            count,
        })
    }

    /// Pops members and replies with them, as ZMPOP does. Returns false, without a reply, if there
    /// was no member.
    fn run(&self, ctx: &mut Ctx<'a>) -> Result<bool, Error> {
        let popped = pop_from_first(ctx, self.keys, self.end, self.count, Frame::KeyPairs)?;
        if let Some((key, count)) = popped {
            ctx.rewrite(&[self.end.command(), key, count.to_string().as_bytes()]);
        }
        Ok(popped.is_some())
    }
}

/// ZMPOP numkeys key [key ...] MIN | MAX [COUNT count]
pub fn zmpop(ctx: &mut Ctx) -> CmdResult {
    if !MultiPop::parse(ctx, 1)?.run(ctx)? {
        ctx.client.reply.null_array();
    }
    Ok(())
}

/// BZMPOP timeout numkeys key [key ...] MIN | MAX [COUNT count]
pub fn bzmpop(ctx: &mut Ctx) -> CmdResult {
    let wanted = MultiPop::parse(ctx, 2)?;
    let deadline_ms = deadline_from_seconds(ctx.server, ctx.argv[1])?;
    if !wanted.run(ctx)? {
        wait_for_zset(ctx, wanted.keys, deadline_ms);
    }
    Ok(())
}

/// BZPOPMIN key [key ...] timeout
pub fn bzpopmin(ctx: &mut Ctx) -> CmdResult {
    bzpop_generic(ctx, End::Min)
}

/// BZPOPMAX key [key ...] timeout
pub fn bzpopmax(ctx: &mut Ctx) -> CmdResult {
    bzpop_generic(ctx, End::Max)
}

fn bzpop_generic(ctx: &mut Ctx, end: End) -> CmdResult {
    let last = ctx.argv.len() - 1;
    let deadline_ms = deadline_from_seconds(ctx.server, ctx.argv[last])?;
    let keys = &ctx.argv[1..last];
    match pop_from_first(ctx, keys, end, 1, Frame::KeyFlat)? {
        Some((key, _)) => ctx.rewrite(&[end.command(), key]),
        None => wait_for_zset(ctx, keys, deadline_ms),
    }
    Ok(())
}

/// Blocks the client until one of `keys` is a sorted set.
fn wait_for_zset(ctx: &mut Ctx, keys: &[&[u8]], deadline_ms: i64) {
    block_for_keys(
        ctx.server,
        ctx.client,
        BlockKind::Zset,
        ctx.argv,
        keys,
        deadline_ms,
        false,
    );
}

/// ZRANDMEMBER key [count [WITHSCORES]]
pub fn zrandmember(ctx: &mut Ctx) -> CmdResult {
    if ctx.argv.len() > 2 {
        return zrandmember_with_count(ctx);
    }
    let mut rng = ctx.server.rng.split();
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let reply = &mut ctx.client.reply;
    match zset {
        Some(zset) => {
            let mut below = |n: usize| rng.below(n as u64) as usize;
            zset.sample(1, &mut below, |member, _| reply.bulk(member));
        }
        None => reply.null(),
    }
    Ok(())
}

/// ZRANDMEMBER with a count; if the count is negative, each member is drawn independently, so a
/// member may be repeated.
fn zrandmember_with_count(ctx: &mut Ctx) -> CmdResult {
    let (count, with_scores) = random_elements::parse_count_of_pairs(ctx, "withscores")?;
    let limit = ctx.max_string_len();
    let mut rng = ctx.server.rng.split();
    let mut below = |n: usize| rng.below(n as u64) as usize;
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(zset) = zset else {
        reply.array(0);
        return Ok(());
    };
    let wanted = count.unsigned_abs() as usize;
    if count >= 0 {
        let shown = wanted.min(zset.len());
        reply.elements(shown, with_scores);
        zset.sample_unique(shown, &mut below, |member, score| {
            reply_member(reply, member, score, with_scores);
        });
        return Ok(());
    }
    random_elements::reply_draws(reply, (wanted, with_scores), limit, |draws, n| {
        zset.sample(n, &mut below, |member, score| {
            draws.show(|reply| reply_member(reply, member, score, with_scores));
        });
    })
}

/// ZSCAN key cursor [MATCH pattern] [COUNT count] [NOSCORES]
pub fn zscan(ctx: &mut Ctx) -> CmdResult {
    let cursor = parse_cursor(ctx.argv[2])?;
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(zset) = zset else {
        reply_nothing_found(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(ctx.argv, 3, ScanOf::Scores)?;
    // In the reply of ZSCAN the cursor precedes the elements, but is known after them, so the
    // elements are collected in a buffer of their own.
    let mut found = ReplyBuf::new(reply.resp3);
    let (mut seen, mut len) = (0, 0);
    let in_tree = matches!(zset, Zset::Tree(_));
    let cursor = options.walk(cursor, |cursor| {
        let next = zset.scan(cursor, |member, score| {
            seen += 1;
            if options.matches(member) {
                found.bulk(member);
                len += 1;
                if !options.no_values {
                    reply_scanned_score(&mut found, score, in_tree);
                    len += 1;
                }
            }
        });
        (next, seen)
    });
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.array(len);
    reply.append(&mut found);
    Ok(())
}

/// Replies with a score in ZSCAN: with 17 digits if the sorted set is a tree (a skiplist in Redis),
/// as Redis does, so that 1.1 becomes 1.1000000000000001.
fn reply_scanned_score(reply: &mut ReplyBuf, score: f64, in_tree: bool) {
    let mut text = Vec::with_capacity(24);
    if in_tree {
        write_g(&mut text, score, 17);
    } else {
        number::write_f64(&mut text, score);
    }
    reply.bulk(&text);
}
