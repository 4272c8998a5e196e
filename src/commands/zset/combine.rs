//! Commands on several sorted sets at once: unions, intersections, differences.
//!
//! Inputs are sorted sets, or sets, whose members then have the score 1. An intersection looks up
//! each member of the smallest input in the other inputs, until one of these lacks the member.
//!
//! ```text
//!   ZUNION       every input goes into a dictionary, scores aggregated
//!   ZINTER       each member of the smallest input is looked up in the others
//!   ZINTERCARD   as ZINTER, but nothing is built, and LIMIT ends the walk
//!   ZDIFF        either the first is looked up in the others, or the first goes into a dictionary and the members of the
//!                others are taken out of it: whichever costs fewer look-ups
//! ```

use std::ops::ControlFlow;

use crate::command::ctx::{CmdResult, Ctx};
use crate::commands::zset::{reply_member, store_zset};
use crate::error::Error;
use crate::state::Server;
use crate::types::part::Held;
use crate::types::set::Set;
use crate::types::string::type_of;
use crate::types::zset::{Accumulator, Aggregate, Zset, ZsetLimits};
use crate::types::{KeyRef, Type};
use crate::util::number::{IntBuf, parse_f64};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Union,
    Inter,
    Diff,
}

/// The value of an input: a sorted set, a set, or nothing if the key does not exist.
enum Members<'a> {
    Absent,
    Zset(Held<'a, Zset>),
    Set(Held<'a, Set>),
}

impl<'a> Members<'a> {
    fn of(entry: KeyRef<'a>) -> Members<'a> {
        match Held::of(entry) {
            Some(zset) => Members::Zset(zset),
            None => Held::of(entry).map_or(Members::Absent, Members::Set),
        }
    }

    fn len(&self) -> usize {
        match self {
            Members::Absent => 0,
            Members::Zset(zset) => zset.len(),
            Members::Set(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Members::Absent => None,
            Members::Zset(zset) => zset.score(member),
            Members::Set(set) => set.contains(member).then_some(1.0),
        }
    }

    /// Passes each member with its score to `visit`, until `visit` returns `Break`.
    fn try_for_each(&self, mut visit: impl FnMut(&[u8], f64) -> ControlFlow<()>) {
        match self {
            Members::Absent => {}
            Members::Zset(zset) => {
                let _ = zset.try_walk(0..zset.len(), false, visit);
            }
            Members::Set(set) => {
                let mut text = IntBuf::new();
                set.try_each(|member| visit(member.text(&mut text), 1.0));
            }
        }
    }

    fn for_each(&self, mut visit: impl FnMut(&[u8], f64)) {
        self.try_for_each(|member, score| {
            visit(member, score);
            ControlFlow::Continue(())
        });
    }
}

/// One of the sets of a ZUNION, ZINTER or ZDIFF, and the factor of its scores (WEIGHTS).
struct Input<'a> {
    members: Members<'a>,
    weight: f64,
}

/// The parsed arguments of ZUNION, ZINTER, ZDIFF or a variant. All keys have been looked up and
/// have the right types, or don't exist.
struct Request {
    op: Op,
    /// The hash of each key; `None` for a missing key.
    keys: Vec<Option<u64>>,
    /// The factor of the scores of each key, from WEIGHTS.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    /// The number after ZINTERCARD's LIMIT; 0 means no limit.
    limit: usize,
}

/// The use of the result: it is replied (ZUNION), counted (ZINTERCARD) or stored (ZUNIONSTORE).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Reply,
    Count,
    Store,
}

impl Request {
    /// Parses `numkeys`, which is `argv[at]`, the keys, and the options.
    fn parse(ctx: &mut Ctx, at: usize, op: Op, target: Target) -> Result<Request, Error> {
        let numkeys = ctx.int(at)?;
        if numkeys < 1 {
            let text = format!(
                "ERR at least 1 input key is needed for '{}' command",
                ctx.cmd.name
            );
            return Err(Error::new(text));
        }
        let options_at = usize::try_from(numkeys)
            .ok()
            .and_then(|n| n.checked_add(at + 1));
        let options_at = options_at
            .filter(|end| *end <= ctx.argv.len())
            .ok_or(Error::SYNTAX)?;
        let keys = &ctx.argv[at + 1..options_at];
        let keys: Vec<_> = keys
            .iter()
            .map(|key| find_input(ctx, key))
            .collect::<Result<_, _>>()?;
        let mut request = Request {
            op,
            weights: vec![1.0; keys.len()],
            keys,
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: 0,
        };
        request.parse_options(ctx, options_at, target)?;
        Ok(request)
    }

    fn parse_options(&mut self, ctx: &Ctx, mut at: usize, target: Target) -> CmdResult {
        let weighted = self.op != Op::Diff && target != Target::Count;
        while at < ctx.argv.len() {
            let remaining = ctx.argv.len() - at;
            if weighted && remaining > self.weights.len() && ctx.is(at, "weights") {
                for (weight, text) in self.weights.iter_mut().zip(&ctx.argv[at + 1..]) {
                    let not_float = Error::of("ERR weight value is not a float");
                    *weight = parse_f64(text).ok_or(not_float)?;
                }
                at += 1 + self.weights.len();
            } else if weighted && remaining >= 2 && ctx.is(at, "aggregate") {
                self.aggregate = parse_aggregate(ctx, at + 1)?;
                at += 2;
            } else if target == Target::Reply && ctx.is(at, "withscores") {
                self.with_scores = true;
                at += 1;
            } else if target == Target::Count && remaining >= 2 && ctx.is(at, "limit") {
                let text = "ERR LIMIT can't be negative";
                self.limit = ctx.int_in(at + 1, 0, i64::MAX, text)? as usize;
                at += 2;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(())
    }

    /// The sets that ZUNION, ZINTER or ZDIFF combines; for ZDIFF in the order of the arguments,
    /// otherwise the smallest set first.
    fn inputs<'s>(&self, ctx: &'s Ctx, first_key: usize) -> Vec<Input<'s>> {
        let keys = ctx.argv[first_key..].iter();
        let mut inputs: Vec<_> = keys
            .zip(self.keys.iter().zip(&self.weights))
            .map(|(key, (hash, weight))| Input {
                members: members_at(ctx.server, ctx.client.db, *hash, key),
                weight: *weight,
            })
            .collect();
        if self.op != Op::Diff {
            inputs.sort_by_key(|input| input.members.len());
        }
        inputs
    }
}

fn parse_aggregate(ctx: &Ctx, at: usize) -> Result<Aggregate, Error> {
    match () {
        _ if ctx.is(at, "sum") => Ok(Aggregate::Sum),
        _ if ctx.is(at, "min") => Ok(Aggregate::Min),
        _ if ctx.is(at, "max") => Ok(Aggregate::Max),
        _ => Err(Error::SYNTAX),
    }
}

/// Looks up the key of an input and returns the key's hash. The values are borrowed after all
/// look-ups, as each look-up may delete an expired key.
fn find_input(ctx: &mut Ctx, key: &[u8]) -> Result<Option<u64>, Error> {
    let found = ctx.server.lookup_read(ctx.client, key).map(type_of);
    match found {
        None => Ok(None),
        Some(Type::Zset | Type::Set) => Ok(Some(ctx.server.hash_key(key))),
        Some(_) => Err(Error::WRONGTYPE),
    }
}

fn members_at<'s>(server: &'s Server, db: u32, hash: Option<u64>, key: &[u8]) -> Members<'s> {
    let entry = hash.and_then(|hash| server.data.dbs[db as usize].find(hash, key));
    entry.map_or(Members::Absent, Members::of)
}

/// Passes each member of the intersection with its score to `visit`, until `visit` returns `Break`.
fn intersect(
    inputs: &[Input],
    aggregate: Aggregate,
    mut visit: impl FnMut(&[u8], f64) -> ControlFlow<()>,
) {
    let Some((smallest, others)) = inputs.split_first() else {
        return;
    };
    smallest.members.try_for_each(|member, score| {
        let mut sum = Aggregate::weigh(score, smallest.weight);
        for other in others {
            let Some(score) = other.members.score(member) else {
                return ControlFlow::Continue(());
            };
            // Infinity times a weight of 0 is NaN, which the aggregate replaces by 0, as in Redis.
            sum = aggregate.combine(sum, score * other.weight);
        }
        visit(member, sum)
    });
}

/// Collects the members of the first input that no other input has.
fn subtract(inputs: &[Input], result: &mut Accumulator) {
    let Some((first, others)) = inputs.split_first() else {
        return;
    };
    let asking = first.members.len().saturating_mul(others.len()) / 2;
    let taking_out: usize = inputs.iter().map(|input| input.members.len()).sum();
    if asking <= taking_out {
        return first.members.for_each(|member, score| {
            if !others
                .iter()
                .any(|other| other.members.score(member).is_some())
            {
                result.accumulate(member, score);
            }
        });
    }
    result.reserve(first.members.len());
    first
        .members
        .for_each(|member, score| result.accumulate(member, score));
    for other in others {
        if result.is_empty() {
            return;
        }
        other.members.for_each(|member, _| result.remove(member));
    }
}

fn compute(request: &Request, inputs: &[Input], limits: &ZsetLimits) -> Accumulator {
    let aggregate = request.aggregate;
    let mut result = Accumulator::new(limits.seed, aggregate);
    match request.op {
        Op::Union => {
            result.reserve(inputs.last().map_or(0, |largest| largest.members.len()));
            for Input { members, weight } in inputs {
                members.for_each(|member, score| {
                    result.accumulate(member, Aggregate::weigh(score, *weight));
                });
            }
        }
        Op::Inter => intersect(inputs, aggregate, |member, score| {
            result.accumulate(member, score);
            ControlFlow::Continue(())
        }),
        Op::Diff => subtract(inputs, &mut result),
    }
    result
}

/// Computes and replies with a union, intersection or difference.
fn reply_generic(ctx: &mut Ctx, op: Op) -> CmdResult {
    let request = Request::parse(ctx, 1, op, Target::Reply)?;
    let limits = ZsetLimits::of(ctx.server);
    let result = compute(&request, &request.inputs(ctx, 2), &limits);
    let reply = &mut ctx.client.reply;
    reply.elements(result.len(), request.with_scores);
    result.for_each(|member, score| reply_member(reply, member, score, request.with_scores));
    Ok(())
}

/// Computes a union, intersection or difference and stores it under the key `argv[1]`.
fn store_generic(ctx: &mut Ctx, op: Op, event: &'static str) -> CmdResult {
    let request = Request::parse(ctx, 2, op, Target::Store)?;
    let limits = ZsetLimits::of(ctx.server);
    let result = compute(&request, &request.inputs(ctx, 3), &limits).finish(&limits);
    let len = store_zset(ctx, ctx.argv[1], result, event);
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// ZUNION numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN | MAX]
/// [WITHSCORES]
pub fn zunion(ctx: &mut Ctx) -> CmdResult {
    reply_generic(ctx, Op::Union)
}

/// ZINTER numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN | MAX]
/// [WITHSCORES]
pub fn zinter(ctx: &mut Ctx) -> CmdResult {
    reply_generic(ctx, Op::Inter)
}

/// ZDIFF numkeys key [key ...] [WITHSCORES]
pub fn zdiff(ctx: &mut Ctx) -> CmdResult {
    reply_generic(ctx, Op::Diff)
}

/// ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN
/// | MAX]
pub fn zunionstore(ctx: &mut Ctx) -> CmdResult {
    store_generic(ctx, Op::Union, "zunionstore")
}

/// ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN
/// | MAX]
pub fn zinterstore(ctx: &mut Ctx) -> CmdResult {
    store_generic(ctx, Op::Inter, "zinterstore")
}

/// ZDIFFSTORE destination numkeys key [key ...]
pub fn zdiffstore(ctx: &mut Ctx) -> CmdResult {
    store_generic(ctx, Op::Diff, "zdiffstore")
}

/// ZINTERCARD numkeys key [key ...] [LIMIT limit]
pub fn zintercard(ctx: &mut Ctx) -> CmdResult {
    let request = Request::parse(ctx, 1, Op::Inter, Target::Count)?;
    let mut count = 0;
    intersect(&request.inputs(ctx, 2), request.aggregate, |_, _| {
        count += 1;
        if count == request.limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    ctx.client.reply.integer(count as i64);
    Ok(())
}
