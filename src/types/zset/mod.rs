//! Sorted sets: members with scores, in order of score, then of bytes.
//!
//! ```text
//!   Listpack   | member | score | member | score | ...     in order; up to zset-max-listpack-entries of them
//!   Tree       dictionary and B+ tree, see ds::sorted_set; OBJECT ENCODING says skiplist
//! ```
//!
//! **Ranges are ranks.** A range of scores or of bytes is first turned into a range of ranks
//! ([`Zset::score_ranks`], [`Zset::lex_ranks`]). The range of ranks is then counted (its length),
//! narrowed by LIMIT, walked in either direction or removed. So each encoding implements three
//! operations: find the rank of a bound, walk ranks, remove ranks.
//!
//! A listpack becomes a tree when it would exceed the limits, and a tree never becomes a listpack
//! again, except where Redis does so, too: results of ZUNIONSTORE, ZINTERSTORE and ZDIFFSTORE, and
//! sets loaded from files, become listpacks if they fit ([`Zset::from_members`]).
//!
//! **Invariants**
//! - in a listpack, members and scores alternate and the pairs are in order
//!   (`tests::agrees_with_a_vector`);
//! - no score is NaN.
//!
//! In a listpack, a score is an integer or the text that replies show, byte for byte as Redis
//! stores it; -0 becomes 0.

use crate::ds::listpack::{Element, Listpack, Pos, is_keyed, safe_to_add};
use crate::ds::siphash::HashSeed;
use crate::ds::sorted_set::{MemberTable, SortedSet};
use crate::ds::zset_tree::Probe;
use crate::error::Error;
use crate::types::KeyRef;
use crate::types::lengths::KeyWrite;
use crate::types::part::{Held, Opened};
use crate::util::number::{DoubleBuf, IntBuf, double_to_i64, parse_f64};
use crate::util::selection_sampling::Selection;
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

/// A sorted set in one of its two encodings.
#[derive(Clone)]
pub enum Zset {
    Listpack(Listpack),
    Tree(Box<SortedSet>),
}

const _: () = assert!(size_of::<Zset>() <= 16);

// A set that is deleted lazily is dropped by another thread, so `Zset` must be `Send`.
const fn is_send<T: Send>() {}
const _: () = is_send::<Zset>();

/// The settings `zset-max-listpack-entries` and `-value`, and the seed for a new dictionary.
#[derive(Clone, Copy, Debug)]
pub struct ZsetLimits {
    /// The maximum number of members of a listpack (`zset-max-listpack-entries`).
    pub max_entries: usize,
    /// The maximum number of bytes of a member of a listpack (`zset-max-listpack-value`).
    pub max_value: usize,
    pub seed: HashSeed,
}

/// The options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddFlags {
    /// NX: members are only added.
    pub nx: bool,
    /// XX: members are only updated.
    pub xx: bool,
    /// GT: scores are only raised.
    pub gt: bool,
    /// LT: scores are only lowered.
    pub lt: bool,
    /// INCR: the score is an increment.
    pub incr: bool,
}

/// The effect of ZADD on a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Added {
    /// The member was not changed, because of the options.
    Nothing,
    /// The increment's result is not a number; nothing was changed.
    Nan,
    New(f64),
    Updated(f64),
    Same(f64),
}

impl AddFlags {
    fn outcome(self, old: Option<f64>, score: f64) -> Added {
        let Some(old) = old else {
            return if self.xx {
                Added::Nothing
            } else {
                Added::New(score)
            };
        };
        if self.nx {
            return Added::Nothing;
        }
        let new = if self.incr { old + score } else { score };
        if new.is_nan() {
            Added::Nan
        } else if (self.lt && new >= old) || (self.gt && new <= old) {
            Added::Nothing
        } else if new == old {
            Added::Same(new)
        } else {
            Added::Updated(new)
        }
    }
}

impl Added {
    /// The new score, if the score was changed.
    fn written(self) -> Option<f64> {
        match self {
            Added::New(score) | Added::Updated(score) => Some(score),
            _ => None,
        }
    }
}

/// The arguments `min` and `max` of ZRANGEBYSCORE.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRange {
    pub min: f64,
    pub max: f64,
    pub min_exclusive: bool,
    pub max_exclusive: bool,
}

/// The argument `min` or `max` of ZRANGEBYLEX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// The bound `-`, before all members.
    Min,
    /// The bound `+`, behind all members.
    Max,
    /// The bound `[bytes`, which belongs to the range.
    Inclusive(&'a [u8]),
    /// The bound `(bytes`, which does not belong to the range.
    Exclusive(&'a [u8]),
}

/// Applies LIMIT: skips `offset` ranks at the end where the walk starts and keeps the next `count`
/// ranks, or all of them if `count` is negative.
pub fn limit(ranks: Range<usize>, reverse: bool, offset: usize, count: i64) -> Range<usize> {
    let len = ranks.len().saturating_sub(offset);
    let len = usize::try_from(count).map_or(len, |count| len.min(count));
    if reverse {
        let end = ranks.end.saturating_sub(offset).max(ranks.start);
        end - len.min(end)..end
    } else {
        let start = ranks.start.saturating_add(offset).min(ranks.end);
        start..start + len
    }
}

/// The function by which ZUNION and ZINTER combine scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// Combines two scores. The sum of +inf and -inf is 0, as in Redis.
    pub fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum if (a + b).is_nan() => 0.0,
            Aggregate::Sum => a + b,
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }

    /// The product of a score and the weight of its set; infinity times 0 is 0.
    pub fn weigh(score: f64, weight: f64) -> f64 {
        let product = score * weight;
        if product.is_nan() { 0.0 } else { product }
    }
}

/// A score as a listpack element; `text` holds the text of a score that is not an integer.
fn score_element(score: f64, text: &mut DoubleBuf) -> Element<'_> {
    match double_to_i64(score) {
        Some(integer) => Element::Int(integer),
        None => Element::Str(text.format(score)),
    }
}

fn score_of(element: Element) -> f64 {
    match element {
        Element::Int(integer) => integer as f64,
        Element::Str(text) => parse_f64(text).unwrap_or(0.0),
    }
}

/// The members and scores of a listpack from a position on, with the members' positions.
fn pairs(listpack: &Listpack, from: Option<Pos>) -> impl Iterator<Item = (Pos, Element<'_>, f64)> {
    let mut at = from.unwrap_or(listpack.end());
    std::iter::from_fn(move || {
        if at == listpack.end() {
            return None;
        }
        let here = at;
        let (member, score_at) = listpack.get_next(at);
        let (score, next) = listpack.get_next(score_at);
        at = next;
        Some((here, member, score_of(score)))
    })
}

/// The number of pairs in a listpack that lie before a bound.
fn count_before(listpack: &Listpack, mut is_before: impl FnMut(&[u8], f64) -> bool) -> usize {
    let mut text = IntBuf::new();
    pairs(listpack, listpack.first())
        .take_while(|(_, member, score)| is_before(member.text(&mut text), *score))
        .count()
}

/// Passes the pairs of these ranks to `visit`, from the highest rank on.
fn walk_back<B>(
    listpack: &Listpack,
    ranks: Range<usize>,
    mut visit: impl FnMut(&[u8], f64) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let end = listpack
        .seek(2 * ranks.end as i64)
        .unwrap_or(listpack.end());
    let mut elements = listpack.iter_rev_before(end);
    let mut text = IntBuf::new();
    for _ in ranks {
        let (Some(score), Some(member)) = (elements.next(), elements.next()) else {
            break;
        };
        visit(member.text(&mut text), score_of(score))?;
    }
    ControlFlow::Continue(())
}

fn find(listpack: &Listpack, member: &[u8]) -> Option<(Pos, f64)> {
    let at = listpack.find(listpack.first()?, member, 1)?;
    Some((at, score_of(listpack.get(listpack.next(at)?))))
}

fn insert_in_order(listpack: &mut Listpack, member: &[u8], score: f64) {
    let mut text = IntBuf::new();
    let at = pairs(listpack, listpack.first())
        .find(|(_, other, s)| *s > score || (*s == score && other.text(&mut text) > member))
        .map_or(listpack.end(), |(at, ..)| at);
    let mut score_text = DoubleBuf::new();
    let pair = [Element::from(member), score_element(score, &mut score_text)];
    listpack.insert_all(at, pair.into_iter());
}

impl Zset {
    /// Makes an empty set in the encoding for `members` members. A long member turns the set into a
    /// tree when it is added, as in Redis.
    pub fn new(members: usize, limits: &ZsetLimits) -> Zset {
        if limits.max_entries == 0 || members > limits.max_entries {
            Zset::Tree(Box::new(SortedSet::new(limits.seed)))
        } else {
            Zset::Listpack(Listpack::new())
        }
    }

    /// The sorted set in an entry; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'_>) -> Result<Held<'_, Zset>, Error> {
        Held::typed(entry)
    }

    /// Opens the sorted set of an entry for changes; WRONGTYPE for any other type.
    #[inline(always)]
    pub fn of_mut(entry: KeyWrite<'_>) -> Result<Opened<'_, Zset>, Error> {
        Opened::typed(entry)
    }

    /// Makes a set of members that were computed or loaded. The set is a listpack if it is within
    /// the limits.
    pub fn from_members(members: MemberTable, limits: &ZsetLimits) -> Zset {
        let len = members.len();
        if len > limits.max_entries {
            return Zset::Tree(Box::new(SortedSet::from(members)));
        }
        let longest = members
            .iter()
            .map(|item| item.bytes.len())
            .max()
            .unwrap_or(0);
        let set = SortedSet::from(members);
        // The header of an element of a listpack has at most 11 bytes, and the text of a score at
        // most 24.
        let bytes = len.saturating_mul(longest.saturating_add(64));
        if longest > limits.max_value || !safe_to_add(0, bytes) {
            return Zset::Tree(Box::new(set));
        }
        let mut listpack = Listpack::new();
        for item in set.tree().iter() {
            let mut text = DoubleBuf::new();
            let pair = [
                Element::from(item.bytes),
                score_element(item.score, &mut text),
            ];
            listpack.append_all(pair.into_iter());
        }
        Zset::Listpack(listpack)
    }

    /// Makes a sorted set of a listpack from a file or DUMP. `None` if the listpack has an odd
    /// number of elements, a score that is not a number or a repeated member.
    pub fn from_listpack(listpack: Listpack, limits: &ZsetLimits) -> Option<Zset> {
        if listpack.is_empty() || !is_keyed(&listpack, 2) {
            return None;
        }
        let scores_are_numbers = listpack
            .iter()
            .skip(1)
            .step_by(2)
            .all(|element| match element {
                Element::Int(_) => true,
                Element::Str(text) => parse_f64(text).is_some(),
            });
        if !scores_are_numbers {
            return None;
        }
        let mut last: Option<(f64, Element)> = None;
        let in_order = pairs(&listpack, listpack.first()).all(|(_, member, score)| {
            let (mut text, mut last_text) = (IntBuf::new(), IntBuf::new());
            let follows = last.is_none_or(|(last_score, last)| {
                (last_score, last.text(&mut last_text)) < (score, member.text(&mut text))
            });
            last = Some((score, member));
            follows
        });
        let members = listpack.iter().step_by(2);
        let longest = members.map(|e| e.text_len()).max().unwrap_or(0);
        let fits = listpack.len() / 2 <= limits.max_entries && longest <= limits.max_value;
        let mut set = Zset::Listpack(listpack);
        if !in_order || !fits {
            set = Zset::from_members(set.members(limits.seed), limits);
        }
        Some(set)
    }

    /// The name that OBJECT ENCODING reports.
    pub fn encoding(&self) -> &'static str {
        match self {
            Zset::Listpack(_) => "listpack",
            Zset::Tree(_) => "skiplist",
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        match self {
            Zset::Listpack(listpack) => listpack.len() / 2,
            Zset::Tree(set) => set.len(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        match self {
            Zset::Listpack(listpack) => listpack.is_empty(),
            Zset::Tree(set) => set.is_empty(),
        }
    }

    /// The memory of the sorted set in bytes.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Zset::Listpack(listpack) => listpack.memory_bytes(),
            Zset::Tree(set) => set.memory_bytes(),
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Zset::Listpack(listpack) => find(listpack, member).map(|(_, score)| score),
            Zset::Tree(set) => set.score(member),
        }
    }

    /// The rank of a member, counted from the lowest or from the highest, and its score.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Option<(usize, f64)> {
        let (rank, score) = match self {
            Zset::Listpack(listpack) => pairs(listpack, listpack.first())
                .enumerate()
                .find(|(_, (_, other, _))| other.same_text(&Element::from(member)))
                .map(|(rank, (_, _, score))| (rank, score))?,
            Zset::Tree(set) => {
                let score = set.score(member)?;
                (set.tree().rank_of(score, member)?, score)
            }
        };
        Some((if reverse { self.len() - 1 - rank } else { rank }, score))
    }

    /// Runs ZADD for one member. The score must not be NaN.
    pub fn add(
        &mut self,
        member: &[u8],
        score: f64,
        flags: AddFlags,
        limits: &ZsetLimits,
    ) -> Added {
        let listpack = match self {
            Zset::Listpack(listpack) => listpack,
            Zset::Tree(set) => {
                let mut added = Added::Nothing;
                set.upsert(member, |old| {
                    added = flags.outcome(old, score);
                    added.written()
                });
                return added;
            }
        };
        let found = find(listpack, member);
        let added = flags.outcome(found.map(|(_, score)| score), score);
        let Some(score) = added.written() else {
            return added;
        };
        match found {
            Some((at, _)) => {
                listpack.delete_n(at, 2);
                insert_in_order(listpack, member, score);
            }
            None if listpack.len() / 2 < limits.max_entries
                && member.len() <= limits.max_value
                && safe_to_add(listpack.bytes_len(), member.len() + 64) =>
            {
                insert_in_order(listpack, member, score);
            }
            None => {
                self.convert_to_tree(limits.seed);
                return self.add(member, score, AddFlags::default(), limits);
            }
        }
        added
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self {
            Zset::Listpack(listpack) => {
                let (at, score) = find(listpack, member)?;
                listpack.delete_n(at, 2);
                Some(score)
            }
            Zset::Tree(set) => set.remove(member),
        }
    }

    /// The ranks of the members in a range of scores. The result is empty if the range has no
    /// member.
    pub fn score_ranks(&self, range: &ScoreRange) -> Range<usize> {
        let rank = |score: f64, behind: bool| match self {
            Zset::Listpack(listpack) => count_before(listpack, |_, other| {
                other < score || (behind && other == score)
            }),
            Zset::Tree(set) if behind => set.tree().lower_bound(&Probe::after_score(score)),
            Zset::Tree(set) => set.tree().lower_bound(&Probe::before_score(score)),
        };
        let start = rank(range.min, range.min_exclusive);
        start..rank(range.max, !range.max_exclusive).max(start)
    }

    /// The ranks of the members in a range of bytes, if all scores of the set are equal. The result
    /// is empty if the range has no member.
    pub fn lex_ranks(&self, min: LexBound, max: LexBound) -> Range<usize> {
        let start = self.lex_rank(min, false);
        start..self.lex_rank(max, true).max(start)
    }

    /// The number of members before a lower bound, or up to and including an upper bound.
    fn lex_rank(&self, bound: LexBound, is_upper: bool) -> usize {
        let (bytes, behind) = match bound {
            LexBound::Min => return 0,
            LexBound::Max => return self.len(),
            LexBound::Inclusive(bytes) => (bytes, is_upper),
            LexBound::Exclusive(bytes) => (bytes, !is_upper),
        };
        match self {
            Zset::Listpack(listpack) => count_before(listpack, |member, _| {
                member < bytes || (behind && member == bytes)
            }),
            Zset::Tree(set) if behind => set.tree().lower_bound(&Probe::after_lex(bytes)),
            Zset::Tree(set) => set.tree().lower_bound(&Probe::before_lex(bytes)),
        }
    }

    /// Passes the members of these ranks to `visit`, from the lowest or from the highest. Ranks
    /// beyond the set's end are ignored.
    pub fn walk(&self, ranks: Range<usize>, reverse: bool, mut visit: impl FnMut(&[u8], f64)) {
        let _ = self.try_walk(ranks, reverse, |member, score| {
            visit(member, score);
            ControlFlow::<()>::Continue(())
        });
    }

    /// As [`Zset::walk`], but ends when `visit` breaks.
    pub fn try_walk<B>(
        &self,
        ranks: Range<usize>,
        reverse: bool,
        mut visit: impl FnMut(&[u8], f64) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let ranks = ranks.start..ranks.end.min(self.len());
        if ranks.is_empty() {
            return ControlFlow::Continue(());
        }
        match self {
            Zset::Listpack(listpack) if reverse => walk_back(listpack, ranks, visit),
            Zset::Listpack(listpack) => {
                let mut text = IntBuf::new();
                pairs(listpack, listpack.seek(2 * ranks.start as i64))
                    .take(ranks.len())
                    .try_for_each(|(_, member, score)| visit(member.text(&mut text), score))
            }
            Zset::Tree(set) if reverse => {
                let mut items = set.tree().range(ranks).rev();
                items.try_for_each(|item| visit(item.bytes, item.score))
            }
            Zset::Tree(set) => {
                let mut items = set.tree().range(ranks);
                items.try_for_each(|item| visit(item.bytes, item.score))
            }
        }
    }

    /// Passes all members to `visit`, in order.
    pub fn for_each(&self, visit: impl FnMut(&[u8], f64)) {
        self.walk(0..self.len(), false, visit);
    }

    /// Removes the members of these ranks. Each member is first passed to `removed`, in order.
    /// Returns the number of removed members.
    pub fn remove_ranks(&mut self, ranks: Range<usize>, removed: impl FnMut(&[u8], f64)) -> usize {
        let ranks = ranks.start..ranks.end.min(self.len());
        if ranks.is_empty() {
            return 0;
        }
        self.walk_then_delete(ranks, removed)
    }

    fn walk_then_delete(&mut self, ranks: Range<usize>, removed: impl FnMut(&[u8], f64)) -> usize {
        let n = ranks.len();
        if let Zset::Tree(set) = self {
            return set.remove_range(ranks, removed);
        }
        self.walk(ranks.clone(), false, removed);
        if let Zset::Listpack(listpack) = self {
            listpack.delete_range(2 * ranks.start as i64, 2 * n);
        }
        n
    }

    /// Removes up to `count` members from the low or the high end. Each member is passed to
    /// `popped`, in the order of removal.
    pub fn pop(
        &mut self,
        from_max: bool,
        count: usize,
        mut popped: impl FnMut(&[u8], f64),
    ) -> usize {
        let count = count.min(self.len());
        if !from_max {
            return self.remove_ranks(0..count, popped);
        }
        let ranks = self.len() - count..self.len();
        self.walk(ranks.clone(), true, &mut popped);
        self.remove_ranks(ranks, |_, _| ())
    }

    /// One call of ZSCAN. All pairs of a listpack are passed in one call. Returns the next cursor.
    pub fn scan(&self, cursor: u64, visit: impl FnMut(&[u8], f64)) -> u64 {
        match self {
            Zset::Listpack(_) => {
                self.for_each(visit);
                0
            }
            Zset::Tree(set) => set.scan(cursor, visit),
        }
    }

    /// Passes `count` random members, drawn independently, to `visit`. `below(n)` returns a
    /// uniformly distributed number in 0..n.
    pub fn sample(
        &self,
        count: usize,
        below: &mut impl FnMut(usize) -> usize,
        mut visit: impl FnMut(&[u8], f64),
    ) {
        if self.is_empty() {
            return;
        }
        for _ in 0..count {
            let rank = below(self.len());
            self.walk(rank..rank + 1, false, &mut visit);
        }
    }

    /// Passes `count` different random members to `visit`, or all members if there are fewer.
    pub fn sample_unique(
        &self,
        count: usize,
        below: &mut impl FnMut(usize) -> usize,
        mut visit: impl FnMut(&[u8], f64),
    ) {
        let len = self.len();
        if count.saturating_mul(3) >= len {
            let mut selection = Selection::of(count, len);
            self.for_each(|member, score| {
                if selection.takes(below) {
                    visit(member, score);
                }
            });
            return;
        }
        let mut seen = HashSet::with_capacity(count);
        while seen.len() < count {
            let rank = below(len);
            if seen.insert(rank) {
                self.walk(rank..rank + 1, false, &mut visit);
            }
        }
    }

    /// A dictionary with all members and their scores.
    fn members(&self, seed: HashSeed) -> MemberTable {
        let mut members = MemberTable::new(seed);
        members.reserve(self.len());
        self.for_each(|member, score| {
            members.upsert(member, |_| Some(score));
        });
        members
    }

    /// Called before `members` members are added: a listpack that might not hold that many becomes
    /// a tree at once, even if the command's options then exclude all of them.
    pub fn expect(&mut self, members: usize, limits: &ZsetLimits) {
        if members > limits.max_entries {
            self.convert_to_tree(limits.seed);
        }
    }

    /// Turns a listpack into a tree.
    fn convert_to_tree(&mut self, seed: HashSeed) {
        if let Zset::Listpack(_) = self {
            *self = Zset::Tree(Box::new(SortedSet::from(self.members(seed))));
        }
    }
}

/// The result of ZUNION, ZINTER or ZDIFF while it is computed.
pub struct Accumulator {
    members: MemberTable,
    aggregate: Aggregate,
}

impl Accumulator {
    /// An accumulator without members.
    pub fn new(seed: HashSeed, aggregate: Aggregate) -> Accumulator {
        Accumulator {
            members: MemberTable::new(seed),
            aggregate,
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a member, or combines the score with the one that the member has.
    pub fn accumulate(&mut self, member: &[u8], score: f64) {
        let aggregate = self.aggregate;
        self.members.upsert(member, |old| {
            Some(old.map_or(score, |old| aggregate.combine(old, score)))
        });
    }

    /// Makes room for `members` members.
    pub fn reserve(&mut self, members: usize) {
        self.members.reserve(members);
    }

    /// Removes a member.
    pub fn remove(&mut self, member: &[u8]) {
        self.members.remove(member);
    }

    /// Passes the members and scores of the result to `visit`, in order.
    pub fn for_each(&self, visit: impl FnMut(&[u8], f64)) {
        self.members.for_each_in_order(visit);
    }

    /// The result as a sorted set, in the encoding that fits it.
    pub fn finish(self, limits: &ZsetLimits) -> Zset {
        Zset::from_members(self.members, limits)
    }
}

#[cfg(test)]
mod tests;
