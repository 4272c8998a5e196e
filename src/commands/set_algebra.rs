//! Unions, intersections and differences of sets.
//!
//! The algorithm depends on the sizes of the sets:
//!
//! ```text
//!   intersection   each member of the smallest set is looked up in the others; SINTERCARD only counts them
//!   union          the largest set is shown as it is; of the others, what is neither in it nor shown already
//!   difference     few subtrahends: each member of the first set is looked up in the others, largest first;
//!                  many or small ones: the first set is copied, and their members removed from the copy
//! ```
//!
//! The reply is written while the result is computed; only STORE, unions and differences by a copy
//! build a set.
//!
//! Sets are looked up twice: first one by one, for expiry, statistics and types, then all together,
//! so that they can be borrowed at the same time.

use std::ops::ControlFlow;

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::hash::bulk;
use crate::db::Ttl;
use crate::ds::listpack::Element;
use crate::error::Error;
use crate::keyspace::events;
use crate::state::Server;
use crate::types::part::Held;
use crate::types::set::{Set, SetLimits, intersect};
use crate::types::{New, Value, kind};
use crate::util::number::{IntBuf, parse_i64};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("sdiff", sdiff, -2, READONLY, SET)
        .keys(&[key(RO | ACCESS, index(1), range(-1, 1, 0))])
        .tips(&["nondeterministic_output_order"]),
    cmd("sdiffstore", sdiffstore, -3, WRITE | DENYOOM, SET).keys(&[
        key_at(1, OW | UPDATE),
        key(RO | ACCESS, index(2), range(-1, 1, 0)),
    ]),
    cmd("sinter", sinter, -2, READONLY, SET)
        .keys(&[key(RO | ACCESS, index(1), range(-1, 1, 0))])
        .tips(&["nondeterministic_output_order"]),
    cmd("sintercard", sintercard, -3, READONLY, SET).keys(&[counted_keys(1, RO | ACCESS)]),
    cmd("sinterstore", sinterstore, -3, WRITE | DENYOOM, SET).keys(&[
        key_at(1, OW | UPDATE),
        key(RO | ACCESS, index(2), range(-1, 1, 0)),
    ]),
    cmd("sunion", sunion, -2, READONLY, SET)
        .keys(&[key(RO | ACCESS, index(1), range(-1, 1, 0))])
        .tips(&["nondeterministic_output_order"]),
    cmd("sunionstore", sunionstore, -3, WRITE | DENYOOM, SET).keys(&[
        key_at(1, OW | UPDATE),
        key(RO | ACCESS, index(2), range(-1, 1, 0)),
    ]),
];

/// Looks up each key, which expires keys, counts hits and misses, and checks that the values are
/// sets. Returns the hash of each key, `None` for a missing key.
fn lookup_sets(ctx: &mut Ctx, keys: &[&[u8]]) -> Result<Vec<Option<u64>>, Error> {
    let lookup = |key: &&[u8]| {
        let hash = ctx.server.hash_key(key);
        match ctx.server.lookup_read_hashed(ctx.client, hash, key) {
            Some(entry) => Set::of(entry).map(|_| Some(hash)),
            None => Ok(None),
        }
    };
    keys.iter().map(lookup).collect()
}

/// The sets that [`lookup_sets`] found.
fn found_sets<'s>(
    server: &'s Server,
    db: u32,
    keys: &[&[u8]],
    hashes: &[Option<u64>],
) -> Vec<Option<Held<'s, Set>>> {
    let db = &server.data.dbs[db as usize];
    let set = |(key, hash): (&&[u8], &Option<u64>)| Set::of(db.find((*hash)?, key)?).ok();
    keys.iter().zip(hashes).map(set).collect()
}

/// References to the sets that [`found_sets`] returned.
fn views<'s>(found: &'s [Option<Held<'_, Set>>]) -> Vec<Option<&'s Set>> {
    found.iter().map(Option::as_deref).collect()
}

/// The sets from the smallest to the largest; no sets if one of them does not exist, as the
/// intersection is then empty.
fn smallest_first<'s>(sets: &[Option<&'s Set>]) -> Vec<&'s Set> {
    let mut sets: Vec<&Set> = sets
        .iter()
        .copied()
        .collect::<Option<_>>()
        .unwrap_or_default();
    sets.sort_by_key(|set| set.len());
    sets
}

/// A function that computes a union, intersection or difference, and passes its members one by one
/// to another function.
type Show = fn(&[Option<&Set>], &mut dyn FnMut(Element), &SetLimits);

/// Replies with the members that `show` computes; their number is written last, when it is known.
fn reply_members(ctx: &mut Ctx, keys: &[&[u8]], show: Show) -> CmdResult {
    let hashes = lookup_sets(ctx, keys)?;
    let limits = SetLimits::of(ctx.server);
    let found = found_sets(ctx.server, ctx.client.db, keys, &hashes);
    let sets = views(&found);
    let reply = &mut ctx.client.reply;
    let header = reply.begin_deferred();
    let mut shown = 0;
    show(
        &sets,
        &mut |member| {
            bulk(reply, member);
            shown += 1;
        },
        &limits,
    );
    reply.end_set(header, shown);
    Ok(())
}

/// Stores a union, intersection or difference under the key `argv[1]`; an empty result deletes the
/// key.
fn store(ctx: &mut Ctx, result: Set, event: &'static str) {
    let (key, db) = (ctx.argv[1], ctx.client.db);
    let len = result.len();
    if len > 0 {
        let value = New::Obj(Value::Set(result));
        ctx.server.set_key(db, key, kind::SET, value, Ttl::Clear);
        ctx.dirty(1);
        ctx.changed(key, events::SET, event);
    } else if ctx.server.lookup_write(ctx.client, key).is_some() {
        let lazy = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.delete_key(db, key, lazy);
        ctx.dirty(1);
        ctx.changed(key, events::GENERIC, "del");
    }
    ctx.client.reply.integer(len as i64);
}

/// Adds a member of another set to `set`. Returns whether `set` did not have the member before.
fn add(set: &mut Set, member: Element, limits: &SetLimits) -> bool {
    set.add(member.text(&mut IntBuf::new()), limits)
}

/// SINTER key [key ...]
fn sinter(ctx: &mut Ctx) -> CmdResult {
    reply_members(ctx, &ctx.argv[1..], |sets, show, _| {
        intersect(&smallest_first(sets), |member| {
            show(member);
            ControlFlow::Continue(())
        });
    })
}

/// SINTERSTORE destination key [key ...]
fn sinterstore(ctx: &mut Ctx) -> CmdResult {
    let keys = &ctx.argv[2..];
    let hashes = lookup_sets(ctx, keys)?;
    let limits = SetLimits::of(ctx.server);
    let found = found_sets(ctx.server, ctx.client.db, keys, &hashes);
    let sets = smallest_first(&views(&found));
    let mut result = match sets.first() {
        Some(Set::Intset(_)) => Set::new_intset(),
        _ => Set::new_listpack(),
    };
    intersect(&sets, |member| {
        add(&mut result, member, &limits);
        ControlFlow::Continue(())
    });
    result.pack(&limits);
    store(ctx, result, "sinterstore");
    Ok(())
}

/// SINTERCARD numkeys key [key ...] [LIMIT limit]
fn sintercard(ctx: &mut Ctx) -> CmdResult {
    let max = i64::MAX;
    let number = ctx.int_in(1, 1, max, "ERR numkeys should be greater than 0")? as usize;
    if number > ctx.argv.len() - 2 {
        return Err(Error::of(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let (keys, options) = ctx.argv[2..].split_at(number);
    let limit = parse_limit(options)?;
    let hashes = lookup_sets(ctx, keys)?;
    let found = found_sets(ctx.server, ctx.client.db, keys, &hashes);
    let sets = smallest_first(&views(&found));
    let mut count = 0;
    intersect(&sets, |_| {
        count += 1;
        if count == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    ctx.client.reply.integer(count);
    Ok(())
}

/// Parses `[LIMIT limit]` of SINTERCARD, which may be repeated; 0 means no limit.
fn parse_limit(options: &[&[u8]]) -> Result<i64, Error> {
    let (options, rest) = options.as_chunks::<2>();
    let mut limit = 0;
    for [name, value] in options {
        if !name.eq_ignore_ascii_case(b"limit") {
            return Err(Error::SYNTAX);
        }
        let value = parse_i64(value).filter(|value| *value >= 0);
        limit = value.ok_or(Error::of("ERR LIMIT can't be negative"))?;
    }
    if rest.is_empty() {
        Ok(limit)
    } else {
        Err(Error::SYNTAX)
    }
}

/// SUNION key [key ...]
fn sunion(ctx: &mut Ctx) -> CmdResult {
    reply_members(ctx, &ctx.argv[1..], |sets, show, limits| {
        let mut sets: Vec<&Set> = sets.iter().copied().flatten().collect();
        sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
        let Some((largest, others)) = sets.split_first() else {
            return;
        };
        largest.for_each(&mut *show);
        let mut shown = Set::new_table(limits.seed);
        for (left, set) in (0..others.len()).rev().zip(others) {
            set.for_each(|member| {
                let known = largest.contains_element(member) || shown.contains_element(member);
                if !known {
                    show(member);
                    if left > 0 {
                        add(&mut shown, member, limits);
                    }
                }
            });
        }
    })
}

/// SUNIONSTORE destination key [key ...]
fn sunionstore(ctx: &mut Ctx) -> CmdResult {
    let keys = &ctx.argv[2..];
    let hashes = lookup_sets(ctx, keys)?;
    let limits = SetLimits::of(ctx.server);
    let mut result = Set::new_intset();
    for set in found_sets(ctx.server, ctx.client.db, keys, &hashes)
        .into_iter()
        .flatten()
    {
        set.for_each(|member| {
            add(&mut result, member, &limits);
        });
    }
    store(ctx, result, "sunionstore");
    Ok(())
}

/// SDIFF key [key ...]
fn sdiff(ctx: &mut Ctx) -> CmdResult {
    reply_members(ctx, &ctx.argv[1..], |sets, show, limits| {
        let Some((Some(first), others)) = sets.split_first() else {
            return;
        };
        if looking_up_pays(first, others) {
            return subtract_by_lookup(first, others, show);
        }
        let result = subtract_from_copy(first, others, Set::new_table(limits.seed), limits);
        result.for_each(show);
    })
}

/// SDIFFSTORE destination key [key ...]
fn sdiffstore(ctx: &mut Ctx) -> CmdResult {
    let keys = &ctx.argv[2..];
    let hashes = lookup_sets(ctx, keys)?;
    let limits = SetLimits::of(ctx.server);
    let found = found_sets(ctx.server, ctx.client.db, keys, &hashes);
    let sets = views(&found);
    let mut result = Set::new_intset();
    if let Some((Some(first), others)) = sets.split_first() {
        if looking_up_pays(first, others) {
            subtract_by_lookup(first, others, &mut |member| {
                add(&mut result, member, &limits);
            });
        } else {
            result = subtract_from_copy(first, others, result, &limits);
        }
    }
    store(ctx, result, "sdiffstore");
    Ok(())
}

/// Whether SDIFF is quicker by looking up each member of the first set in the others than by
/// removing the others' members from a copy of the first. A member is assumed to be looked up in
/// half of the other sets, as the search stops at the first set that has it.
fn looking_up_pays(first: &Set, others: &[Option<&Set>]) -> bool {
    let others = others.iter().copied().flatten();
    let (lookups, copies) = others.fold((first.len(), first.len()), |(lookups, copies), set| {
        (lookups + first.len(), copies + set.len())
    });
    lookups / 2 <= copies
}

fn subtract_by_lookup(first: &Set, others: &[Option<&Set>], show: &mut dyn FnMut(Element)) {
    let mut others: Vec<&Set> = others.iter().copied().flatten().collect();
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    first.for_each(|member| {
        if !others.iter().any(|set| set.contains_element(member)) {
            show(member);
        }
    });
}

/// Copies `first` into `copy`, and removes the members of the sets `others` from `copy`.
fn subtract_from_copy(
    first: &Set,
    others: &[Option<&Set>],
    mut copy: Set,
    limits: &SetLimits,
) -> Set {
    first.for_each(|member| {
        add(&mut copy, member, limits);
    });
    for set in others.iter().copied().flatten() {
        set.for_each(|member| {
            copy.remove(member.text(&mut IntBuf::new()));
        });
    }
    copy
}
