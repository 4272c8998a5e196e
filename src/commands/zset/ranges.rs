//! Commands on ranges of members, by rank, by score or by bytes, which reply, store, count or
//! remove them.
//!
//! Every range is first converted to a range of ranks ([`Bounds::ranks`]). So counting the members
//! of a range of scores costs two descents of the tree, and replying with a range is a walk over
//! leaves.
//!
//! The older commands, such as ZREVRANGEBYSCORE, are ZRANGE with some options fixed, and use the
//! same function.

use std::ops::Range;

use crate::command::ctx::{CmdResult, Ctx};
use crate::commands::zset::{members_removed, read_zset, reply_member, store_zset, write_zset};
use crate::error::Error;
use crate::types::zset::{Accumulator, Aggregate, LexBound, ScoreRange, Zset, ZsetLimits, limit};
use crate::util::number::{parse_f64_lenient, parse_i64};

/// The order in which a range of members is given: by rank, by score, or by the members' bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The bounds of a range: `min` and `max`, or for ranks `start` and `stop`, which count from the
/// highest rank if negative.
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Lex(LexBound<'a>, LexBound<'a>),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, Error> {
        match by {
            By::Rank => {
                let rank = |text| parse_i64(text).ok_or(Error::NOT_INTEGER);
                Ok(Bounds::Ranks(rank(min)?, rank(max)?))
            }
            By::Score => {
                let (min, min_exclusive) = score_bound(min)?;
                let (max, max_exclusive) = score_bound(max)?;
                Ok(Bounds::Scores(ScoreRange {
                    min,
                    max,
                    min_exclusive,
                    max_exclusive,
                }))
            }
            By::Lex => Ok(Bounds::Lex(lex_bound(min)?, lex_bound(max)?)),
        }
    }

    /// The ranks of the members between the bounds. With `reverse`, bounds that are ranks count
    /// from the highest score.
    fn ranks(&self, zset: &Zset, reverse: bool) -> Range<usize> {
        match *self {
            Bounds::Ranks(start, stop) => {
                let ranks = clamp_ranks(start, stop, zset.len());
                if reverse {
                    zset.len() - ranks.end..zset.len() - ranks.start
                } else {
                    ranks
                }
            }
            Bounds::Scores(ref range) => zset.score_ranks(range),
            Bounds::Lex(min, max) => zset.lex_ranks(min, max),
        }
    }
}

/// Converts `start` and `stop` of a sorted set with `len` members to a half-open range of ranks,
/// which is empty if it contains no member.
fn clamp_ranks(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_end = |rank: i64| {
        if rank < 0 {
            rank.saturating_add(len as i64)
        } else {
            rank
        }
    };
    let start = from_end(start).max(0);
    let end = from_end(stop).min(len as i64 - 1) + 1;
    if start < end {
        start as usize..end as usize
    } else {
        0..0
    }
}

/// Parses a bound of a range of scores: `5`, or `(5` for an exclusive bound.
fn score_bound(text: &[u8]) -> Result<(f64, bool), Error> {
    let (text, exclusive) = match text.strip_prefix(b"(") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let score = parse_f64_lenient(text).ok_or(Error::of("ERR min or max is not a float"))?;
    Ok((score, exclusive))
}

/// Parses a bound of BYLEX: `[bytes`, `(bytes` for an exclusive bound, `-` or `+`.
fn lex_bound(text: &[u8]) -> Result<LexBound<'_>, Error> {
    match text {
        b"-" => Ok(LexBound::Min),
        b"+" => Ok(LexBound::Max),
        [b'[', bytes @ ..] => Ok(LexBound::Inclusive(bytes)),
        [b'(', bytes @ ..] => Ok(LexBound::Exclusive(bytes)),
        _ => Err(Error::of("ERR min or max not valid string range item")),
    }
}

/// The parsed arguments of ZRANGE or one of its older variants.
struct Query<'a> {
    key: &'a [u8],
    bounds: Bounds<'a>,
    reverse: bool,
    /// LIMIT: the numbers of members to skip and to take; a negative count takes all.
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

/// The options of ZRANGE that the name of an older command fixes.
#[derive(Clone, Copy, Default)]
struct Fixed {
    by: Option<By>,
    reverse: Option<bool>,
    /// Whether the result is stored (ZRANGESTORE), so that WITHSCORES is not allowed.
    stored: bool,
}

impl<'a> Query<'a> {
    /// Parses the key `argv[at]`, the two bounds after the key, then the options that `fixed`
    /// leaves open.
    fn parse(ctx: &Ctx<'a>, at: usize, fixed: Fixed) -> Result<Query<'a>, Error> {
        let argv = ctx.argv;
        let (mut by, mut reverse) = (fixed.by, fixed.reverse);
        let (mut limit, mut with_scores) = ((0, -1), false);
        let mut i = at + 3;
        while i < argv.len() {
            if !fixed.stored && ctx.is(i, "withscores") {
                with_scores = true;
            } else if ctx.is(i, "limit") && i + 2 < argv.len() {
                limit = (ctx.int(i + 1)?, ctx.int(i + 2)?);
                i += 2;
            } else if reverse.is_none() && ctx.is(i, "rev") {
                reverse = Some(true);
            } else if by.is_none() && ctx.is(i, "bylex") {
                by = Some(By::Lex);
            } else if by.is_none() && ctx.is(i, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(Error::SYNTAX);
            }
            i += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        // As in Redis, LIMIT 0 -1 has no effect and is therefore not an error.
        if limit.1 != -1 && by == By::Rank {
            return Err(Error::of(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(Error::of(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // With REV, the first argument is the upper bound, except for ranks, which then count from
        // the highest score.
        let swap = reverse && by != By::Rank;
        let (min, max) = if swap {
            (at + 2, at + 1)
        } else {
            (at + 1, at + 2)
        };
        let bounds = Bounds::parse(by, argv[min], argv[max])?;
        let limit = (by != By::Rank).then_some(limit);
        Ok(Query {
            key: argv[at],
            bounds,
            reverse,
            limit,
            with_scores,
        })
    }

    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let ranks = self.bounds.ranks(zset, self.reverse);
        let Some((offset, count)) = self.limit else {
            return ranks;
        };
        match usize::try_from(offset) {
            Ok(offset) => limit(ranks, self.reverse, offset, count),
            Err(_) => 0..0,
        }
    }
}

fn range_generic(ctx: &mut Ctx, by: Option<By>, reverse: Option<bool>) -> CmdResult {
    let query = Query::parse(
        ctx,
        1,
        Fixed {
            by,
            reverse,
            stored: false,
        },
    )?;
    let zset = read_zset(ctx.server, ctx.client, query.key)?;
    let zset = zset.as_deref();
    let reply = &mut ctx.client.reply;
    let Some(zset) = zset else {
        reply.array(0);
        return Ok(());
    };
    let ranks = query.ranks(zset);
    reply.elements(ranks.len(), query.with_scores);
    zset.walk(ranks, query.reverse, |member, score| {
        reply_member(reply, member, score, query.with_scores);
    });
    Ok(())
}

/// ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]
pub fn zrange(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, None, None)
}

/// ZREVRANGE key start stop [WITHSCORES]
pub fn zrevrange(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, Some(By::Rank), Some(true))
}

/// ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]
pub fn zrangebyscore(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, Some(By::Score), Some(false))
}

/// ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]
pub fn zrevrangebyscore(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, Some(By::Score), Some(true))
}

/// ZRANGEBYLEX key min max [LIMIT offset count]
pub fn zrangebylex(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, Some(By::Lex), Some(false))
}

/// ZREVRANGEBYLEX key max min [LIMIT offset count]
pub fn zrevrangebylex(ctx: &mut Ctx) -> CmdResult {
    range_generic(ctx, Some(By::Lex), Some(true))
}

/// ZRANGESTORE dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]
pub fn zrangestore(ctx: &mut Ctx) -> CmdResult {
    let query = Query::parse(
        ctx,
        2,
        Fixed {
            stored: true,
            ..Fixed::default()
        },
    )?;
    let limits = ZsetLimits::of(ctx.server);
    let mut result = Accumulator::new(limits.seed, Aggregate::Sum);
    if let Some(zset) = read_zset(ctx.server, ctx.client, query.key)? {
        let ranks = query.ranks(&zset);
        result.reserve(ranks.len());
        // A score of -0 must become 0 where it does in Redis, which fills a listpack, without -0,
        // until a member does not fit. Redis starts without a listpack only if it knows the number
        // of members in advance, as for a range of ranks.
        let known = matches!(query.bounds, Bounds::Ranks(..)) && ranks.len() > limits.max_entries;
        let mut packed = !known;
        zset.walk(ranks, query.reverse, |member, score| {
            packed &= result.len() < limits.max_entries && member.len() <= limits.max_value;
            result.accumulate(member, if packed { score + 0.0 } else { score });
        });
    }
    let len = store_zset(ctx, ctx.argv[1], result.finish(&limits), "zrangestore");
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// ZCOUNT key min max
pub fn zcount(ctx: &mut Ctx) -> CmdResult {
    count_generic(ctx, By::Score)
}

/// ZLEXCOUNT key min max
pub fn zlexcount(ctx: &mut Ctx) -> CmdResult {
    count_generic(ctx, By::Lex)
}

fn count_generic(ctx: &mut Ctx, by: By) -> CmdResult {
    let bounds = Bounds::parse(by, ctx.argv[2], ctx.argv[3])?;
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let count = zset.map_or(0, |zset| bounds.ranks(zset, false).len());
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// ZREMRANGEBYRANK key start stop
pub fn zremrangebyrank(ctx: &mut Ctx) -> CmdResult {
    remove_generic(ctx, By::Rank, "zremrangebyrank")
}

/// ZREMRANGEBYSCORE key min max
pub fn zremrangebyscore(ctx: &mut Ctx) -> CmdResult {
    remove_generic(ctx, By::Score, "zremrangebyscore")
}

/// ZREMRANGEBYLEX key min max
pub fn zremrangebylex(ctx: &mut Ctx) -> CmdResult {
    remove_generic(ctx, By::Lex, "zremrangebylex")
}

fn remove_generic(ctx: &mut Ctx, by: By, event: &'static str) -> CmdResult {
    let key = ctx.argv[1];
    let bounds = Bounds::parse(by, ctx.argv[2], ctx.argv[3])?;
    let Some(mut zset) = write_zset(ctx.server, ctx.client, key)? else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let ranks = bounds.ranks(&zset, false);
    let removed = zset.remove_ranks(ranks, |_, _| ());
    let is_empty = zset.is_empty();
    drop(zset);
    members_removed(ctx, key, event, removed, is_empty);
    ctx.client.reply.integer(removed as i64);
    Ok(())
}
