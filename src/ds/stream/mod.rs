//! The log of a stream: an ordered map of listpacks, the nodes, each under the ID of its first
//! entry.
//!
//! ```text
//!  nodes:  1700000000000-0 -> | count | deleted | n | field.. | 0 | entry | entry | ... |      about 4 KB each
//!          1700000009412-3 -> | ...   master entry ...            | entry | ...
//!
//!  entry:  | flags | ms - node's ms | seq - node's seq | n | field | value | .. | elements before |
//!  the same fields as the master entry's, flag SAME_FIELDS:
//!          | flags | ms - node's ms | seq - node's seq | value | value | ..     | elements before |
//! ```
//!
//! Each box of the drawing is a listpack element. The IDs of entries are stored as differences to
//! the node's ID, and an entry with the same field names as the master entry stores only values, so
//! that a small entry costs about 18 bytes. The last element of an entry is the number of its other
//! elements, for walks backwards; the master entry ends with 0, where a walk backwards stops. The
//! listpacks of a stream are byte for byte those of Redis, because RDB files, DUMP and replication
//! contain them.
//!
//! A deleted entry of a stream gets a flag and stays until its node has only deleted entries: XDEL
//! then removes the whole node. So XDEL never moves bytes, and approximate trimming, which drops
//! whole nodes, is O(1) for a hundred entries.
//!
//! **Invariants** (`tests::agrees_with_a_vector` after each step)
//! - `count` and `deleted` of a master entry are the numbers of live and of deleted entries in its
//!   node; only exact trimming leaves a node without live entries, as in Redis, and the next trim
//!   removes it;
//! - the IDs of live entries rise along a stream, and no live entry's ID is above `last_id`;
//! - the `len` of a stream is the sum of its nodes' counts of live entries; `first_id` is the first
//!   live entry's ID, or 0-0;
//! - nodes from files and clients are added by [`StreamLog::insert_node`] only, which checks them,
//!   so that reading a stream needs no error path.
//!
//! **Limits**: a node of a stream never exceeds 1 GB, whatever the settings are; a larger entry is
//! refused.
//!
//! Rejected for a stream's nodes: a radix tree (Redis's choice) saves a few bytes of the 16-byte
//! IDs for each node of 4,096 bytes, but needs code for its changes and iterators, which the
//! standard library's B-tree has already.

use super::btree_memory::map_bytes;
use super::listpack::{Element, Iter, Listpack, Pos, SAFETY_LIMIT};
use super::relocate::{Cursor, Relocate};
use crate::sys::mover::Mover;
use crate::util::number::{IntBuf, parse_u64_lenient};
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

mod walk;

#[cfg(test)]
mod tests;

pub use walk::Range;
use walk::{Node, Raw, Walk};

/// The maximum length of a stream ID's text, which is the size of Redis's buffer for it.
pub const MAX_ID_CHARS: usize = 127;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// The ID of an entry: milliseconds and a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The Unix time in milliseconds.
    pub ms: u64,
    /// The sequence number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The lowest ID, 0-0.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// The highest ID.
    pub const MAX: StreamId = StreamId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The ID `ms-seq`.
    pub const fn new(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    /// Parses `ms-seq`, or `ms`, for which `missing_seq` is the sequence number. Accepts the same
    /// spellings of a number as Redis.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<StreamId> {
        if text.len() > MAX_ID_CHARS {
            return None;
        }
        let number = parse_u64_lenient;
        match text.iter().position(|&b| b == b'-') {
            Some(dash) => Some(StreamId::new(
                number(&text[..dash])?,
                number(&text[dash + 1..])?,
            )),
            None => Some(StreamId::new(number(text)?, missing_seq)),
        }
    }

    /// The next higher ID; `None` for the highest.
    pub fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId::new(self.ms, seq)),
            None => Some(StreamId::new(self.ms.checked_add(1)?, 0)),
        }
    }

    /// The next lower ID; `None` for the lowest.
    pub fn prev(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId::new(self.ms, seq)),
            None => Some(StreamId::new(self.ms.checked_sub(1)?, u64::MAX)),
        }
    }

    /// The text `ms-seq`, in a buffer on the stack.
    #[inline]
    pub fn format(self, buf: &mut IdBuf) -> &[u8] {
        let (mut ms, mut seq) = (IntBuf::new(), IntBuf::new());
        let (ms, seq) = (ms.format(self.ms), seq.format(self.seq));
        let len = ms.len() + 1 + seq.len();
        buf.0[..ms.len()].copy_from_slice(ms);
        buf.0[ms.len()] = b'-';
        buf.0[ms.len() + 1..len].copy_from_slice(seq);
        &buf.0[..len]
    }

    /// The big-endian bytes of the ID: the key of a node or of a pending entry in an RDB file.
    pub fn to_bytes(self) -> [u8; 16] {
        ((self.ms as u128) << 64 | self.seq as u128).to_be_bytes()
    }

    /// The ID whose big-endian bytes are `bytes`.
    pub fn from_bytes(bytes: [u8; 16]) -> StreamId {
        let both = u128::from_be_bytes(bytes);
        StreamId::new((both >> 64) as u64, both as u64)
    }
}

/// Room for the text of one ID.
pub struct IdBuf([u8; 41]);

impl IdBuf {
    /// An empty buffer.
    pub fn new() -> IdBuf {
        IdBuf([0; 41])
    }
}

impl Default for IdBuf {
    fn default() -> IdBuf {
        IdBuf::new()
    }
}

/// The ID argument of XADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`: milliseconds and sequence number are generated.
    Auto,
    /// `ms-*`: only the sequence number is generated.
    AutoSeq(u64),
    /// `ms-seq`, or `ms`, which means `ms-0`: nothing is generated.
    Exact(StreamId),
}

/// The reason why XADD added no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The last ID of the stream is the highest possible one.
    Exhausted,
    /// The ID of the new entry is not above the last ID of the stream.
    IdTooSmall,
    /// Fields and values exceed the maximum size of a node, 1 GB.
    TooLarge,
}

/// The settings `stream-node-max-bytes` and `stream-node-max-entries`; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct NodeLimits {
    pub max_bytes: usize,
    pub max_entries: u64,
}

/// The strategy of XTRIM and XADD: the entries that trimming keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// MAXLEN: at most this number of entries is kept.
    MaxLen(u64),
    /// MINID: entries with this ID or a higher one are kept.
    MinId(StreamId),
}

/// The precision of XTRIM and XADD: `=` or `~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Exact,
    /// Trimming removes only whole nodes, and at most `limit` entries if LIMIT is given.
    Approximate {
        limit: Option<u64>,
    },
}

/// An entry of a stream that a walk has reached.
#[derive(Clone)]
pub struct StreamEntry<'a> {
    pub id: StreamId,
    fields: usize,
    /// The field names in the master entry, if this entry has the same names.
    names: Option<Iter<'a>>,
    body: Iter<'a>,
}

impl<'a> StreamEntry<'a> {
    /// The number of fields of the entry.
    pub fn len(&self) -> usize {
        self.fields
    }

    /// Whether the entry has no fields.
    pub fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// Iterates over the fields as pairs of a name and a value, in the order of XADD's arguments.
    pub fn fields(&self) -> impl Iterator<Item = (Element<'a>, Element<'a>)> + use<'a> {
        let (mut names, mut body) = (self.names.clone(), self.body.clone());
        (0..self.fields).map_while(move |_| {
            let name = match &mut names {
                Some(names) => names.next()?,
                None => body.next()?,
            };
            Some((name, body.next()?))
        })
    }
}

/// The entries of a stream, and the figures that Redis keeps with them.
#[derive(Clone, Default)]
pub struct StreamLog {
    nodes: BTreeMap<StreamId, Listpack>,
    len: u64,
    first_id: StreamId,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
}

/// The listpack element that stores the difference of the milliseconds, or of the sequence numbers,
/// of two IDs.
fn difference(a: u64, b: u64) -> Element<'static> {
    Element::Int(a.wrapping_sub(b) as i64)
}

/// Defragments the nodes in order. The cursor is the upper 127 bits of the next node's ID.
impl Relocate for StreamLog {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        if cursor == 0 {
            mover.map(&mut self.nodes, |_, _, _| ());
        }
        // A cursor has one bit less than an ID, so a node may be defragmented twice.
        let place = |id: &StreamId| Cursor::from_be_bytes(id.to_bytes()) >> 1;
        let from = StreamId::from_bytes((cursor << 1).to_be_bytes());
        for (id, node) in self.nodes.range_mut(from..) {
            if mover.is_spent() && place(id) > cursor {
                return place(id);
            }
            node.relocate(0, mover);
        }
        0
    }
}

impl StreamLog {
    /// An empty stream.
    pub fn new() -> StreamLog {
        StreamLog::default()
    }

    /// The number of live entries.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no live entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ID of the first live entry, or 0-0.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The highest ID that was ever added to the stream, even if its entry was deleted; XSETID can
    /// set it.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The highest ID that XDEL removed, or 0-0.
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// The number of entries that were ever added.
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// Sets the last ID, for XSETID and the end of a load. The caller has checked that no live
    /// entry has a higher ID.
    pub fn set_last_id(&mut self, id: StreamId) {
        self.last_id = id;
    }

    /// Sets the number of entries that were ever added.
    pub fn set_entries_added(&mut self, entries: u64) {
        self.entries_added = entries;
    }

    /// Sets the highest ID that XDEL removed.
    pub fn set_max_deleted_id(&mut self, id: StreamId) {
        self.max_deleted_id = id;
    }

    /// The number of listpacks of the stream.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The listpacks with their IDs, for RDB and DUMP.
    pub fn nodes(&self) -> btree_map::Iter<'_, StreamId, Listpack> {
        self.nodes.iter()
    }

    /// The memory of the stream's entries in bytes.
    pub fn memory_bytes(&self) -> usize {
        let contents: usize = self.nodes.values().map(Listpack::memory_bytes).sum();
        contents + map_bytes::<StreamId, Listpack>(self.nodes.len())
    }

    /// An estimate of [`StreamLog::memory_bytes`] from a few nodes at both ends, in O(1). The nodes
    /// in between are assumed to be as full, since each was the last node once.
    pub fn memory_estimate(&self) -> usize {
        const WEIGHED: usize = 4;
        let nodes = self.nodes.values();
        let ends = nodes.clone().take(WEIGHED).chain(nodes.rev().take(WEIGHED));
        let (sum, n) = ends.fold((0, 0), |(sum, n), node| (sum + node.memory_bytes(), n + 1));
        let nodes = (sum as u128 * self.nodes.len() as u128 / n.max(1) as u128) as usize;
        nodes + map_bytes::<StreamId, Listpack>(self.nodes.len())
    }

    /// The ID that an XADD with the ID argument `wanted` would use at the time `now_ms`.
    pub fn next_id(&self, wanted: NewId, now_ms: u64) -> Result<StreamId, AddError> {
        if self.last_id == StreamId::MAX {
            return Err(AddError::Exhausted);
        }
        let id = match wanted {
            NewId::Exact(id) => id,
            NewId::AutoSeq(ms) if ms == self.last_id.ms => StreamId::new(
                ms,
                self.last_id
                    .seq
                    .checked_add(1)
                    .ok_or(AddError::IdTooSmall)?,
            ),
            NewId::AutoSeq(ms) => StreamId::new(ms, 0),
            NewId::Auto if now_ms > self.last_id.ms => StreamId::new(now_ms, 0),
            NewId::Auto => self.last_id.next().ok_or(AddError::Exhausted)?,
        };
        if id <= self.last_id {
            Err(AddError::IdTooSmall)
        } else {
            Ok(id)
        }
    }

    /// Appends an entry and returns its ID. `fields` has names and values in turn, so its length
    /// must be even.
    pub fn append(
        &mut self,
        wanted: NewId,
        now_ms: u64,
        fields: &[&[u8]],
        limits: NodeLimits,
    ) -> Result<StreamId, AddError> {
        debug_assert!(!fields.is_empty() && fields.len().is_multiple_of(2));
        let id = self.next_id(wanted, now_ms)?;
        let bytes = fields
            .iter()
            .fold(0usize, |sum, field| sum.saturating_add(field.len()));
        // Each listpack element of an entry costs up to 10 bytes besides its text; the factor 2
        // covers the field names in the master entry of a new node.
        let upper_bound = bytes
            .saturating_add(fields.len().saturating_mul(10))
            .saturating_mul(2);
        if bytes > SAFETY_LIMIT || u32::try_from(upper_bound).is_err() {
            return Err(AddError::TooLarge);
        }
        match self.nodes.last_entry() {
            Some(mut last) if has_room(last.get(), bytes, limits) => {
                let master_id = *last.key();
                append_entry(last.get_mut(), master_id, id, fields);
            }
            _ => {
                let mut node = new_node(fields);
                append_entry(&mut node, id, id, fields);
                self.nodes.insert(id, node);
            }
        }
        self.len += 1;
        self.entries_added += 1;
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(id)
    }

    /// Iterates over the live entries whose IDs are from `start` to `end`, both included, in
    /// ascending order.
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::forwards(&self.nodes, start, end)
    }

    /// Iterates over the live entries whose IDs are from `start` to `end`, both included, in
    /// descending order.
    pub fn rev_range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::backwards(&self.nodes, start, end)
    }

    /// The live entry with this ID.
    pub fn get(&self, id: StreamId) -> Option<StreamEntry<'_>> {
        self.range(id, id).next()
    }

    /// Whether there is a live entry with this ID.
    pub fn contains(&self, id: StreamId) -> bool {
        self.get(id).is_some()
    }

    /// Deletes one entry, as XDEL does. Returns whether the entry existed.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&master_id, node)) = self.nodes.range_mut(..=id).next_back() else {
            return false;
        };
        let found = Walk::first(Node::new(master_id, node))
            .find(|(raw, _)| raw.id >= id && !raw.is_deleted())
            .filter(|(raw, _)| raw.id == id)
            .map(|(raw, _)| (raw.at, raw.flags));
        let Some((at, flags)) = found else {
            return false;
        };
        node.replace(at, Element::Int(flags | DELETED));
        if count_deleted(node, 1) == 0 {
            self.nodes.remove(&master_id);
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id || self.len == 0 {
            self.find_first_id();
        }
        true
    }

    /// Removes the oldest entries that `trim` does not keep. Returns the number of removed entries.
    pub fn trim(&mut self, trim: Trim, precision: Precision) -> u64 {
        let before = self.len;
        let limit = match precision {
            Precision::Approximate { limit } => limit.unwrap_or(u64::MAX),
            Precision::Exact => u64::MAX,
        };
        while let Some(first) = self.nodes.first_entry() {
            let count = Node::new(*first.key(), first.get()).count();
            let goes_whole = match trim {
                Trim::MaxLen(max) if self.len <= max => break,
                Trim::MaxLen(max) => self.len - count >= max,
                Trim::MinId(min) => {
                    let node = Node::new(*first.key(), first.get());
                    Walk::last(node).next().is_none_or(|(raw, _)| raw.id < min)
                }
            };
            if before - self.len + count > limit {
                break;
            }
            if goes_whole {
                first.remove();
                self.len -= count;
                continue;
            }
            if precision == Precision::Exact {
                self.trim_first_node(trim);
            }
            break;
        }
        if self.len < before {
            self.find_first_id();
        }
        before - self.len
    }

    /// Marks those entries of the first node as deleted that `trim` does not keep.
    fn trim_first_node(&mut self, trim: Trim) {
        let Some(mut first) = self.nodes.first_entry() else {
            return;
        };
        let surplus = match trim {
            Trim::MaxLen(max) => self.len.saturating_sub(max) as usize,
            Trim::MinId(_) => usize::MAX,
        };
        let going: Vec<(Pos, i64)> = Walk::first(Node::new(*first.key(), first.get()))
            .take_while(|(raw, _)| !matches!(trim, Trim::MinId(min) if raw.id >= min))
            .filter(|(raw, _)| !raw.is_deleted())
            .take(surplus)
            .map(|(raw, _)| (raw.at, raw.flags))
            .collect();
        let node = first.get_mut();
        for &(at, flags) in &going {
            node.replace(at, Element::Int(flags | DELETED));
        }
        self.len -= going.len() as u64;
        if !going.is_empty() {
            count_deleted(node, going.len() as i64);
        }
    }

    /// Trims like `trim`, but keeps the entries that `may_go` refuses. Returns the IDs of the
    /// removed entries in ascending order.
    ///
    /// Exact trimming skips entries that `may_go` refuses and continues behind them. Approximate
    /// trimming stops at the first node that can't be removed as a whole, so that it removes the
    /// same entries as exact trimming to the same length.
    pub fn trim_where(
        &mut self,
        trim: Trim,
        precision: Precision,
        may_go: impl Fn(StreamId) -> bool,
    ) -> Vec<StreamId> {
        let limit = match precision {
            Precision::Approximate { limit } => limit.unwrap_or(u64::MAX),
            Precision::Exact => u64::MAX,
        };
        let mut gone = Vec::new();
        let mut next = self.nodes.keys().next().copied();
        while let Some(master_id) = next {
            let Some(node) = self.nodes.get_mut(&master_id) else {
                break;
            };
            let surplus = match trim {
                Trim::MaxLen(max) => self.len.saturating_sub(max) as usize,
                Trim::MinId(_) => usize::MAX,
            };
            let count = Node::new(master_id, node).count();
            let going: Vec<Raw> = Walk::first(Node::new(master_id, node))
                .map(|(raw, _)| raw)
                .take_while(|raw| !matches!(trim, Trim::MinId(min) if raw.id >= min))
                .filter(|raw| !raw.is_deleted() && may_go(raw.id))
                .take(surplus)
                .collect();
            let whole = going.len() as u64 == count;
            let done = match precision {
                Precision::Exact => going.is_empty() && surplus == 0,
                Precision::Approximate { .. } => !whole || gone.len() as u64 + count > limit,
            };
            let past = matches!(trim, Trim::MinId(min) if master_id >= min);
            if done || past || surplus == 0 {
                break;
            }
            self.len -= going.len() as u64;
            gone.extend(going.iter().map(|raw| raw.id));
            if whole {
                self.nodes.remove(&master_id);
            } else if !going.is_empty() {
                for raw in &going {
                    node.replace(raw.at, Element::Int(raw.flags | DELETED));
                }
                count_deleted(node, going.len() as i64);
            }
            let behind = (Bound::Excluded(master_id), Bound::Unbounded);
            next = self.nodes.range(behind).next().map(|(&id, _)| id);
        }
        if !gone.is_empty() {
            self.find_first_id();
        }
        gone
    }

    fn find_first_id(&mut self) {
        let first = self
            .range(StreamId::MIN, StreamId::MAX)
            .next()
            .map(|entry| entry.id);
        self.first_id = first.unwrap_or_default();
    }

    /// Adds a node from a file or a DUMP payload. Returns false if the node's bytes are not valid.
    /// Nodes must be added in the order of their IDs; `finish_load` is called after the last one.
    /// Before `finish_load`, `last_id` is the ID of the last live entry.
    pub fn insert_node(&mut self, id: StreamId, node: Listpack) -> bool {
        let last_node = self.nodes.last_key_value();
        let behind_last =
            last_node.is_none_or(|(&last, _)| last < id) && (self.len == 0 || self.last_id < id);
        let Some(census) = walk::validate(id, &node).filter(|_| behind_last) else {
            return false;
        };
        if let Some((first, last)) = census.ends {
            if self.len == 0 {
                self.first_id = first;
            }
            self.last_id = last;
        }
        self.nodes.insert(id, node);
        self.len += census.live;
        true
    }

    /// Sets the figures of the stream that a file has besides its nodes. Returns false if length or
    /// last ID contradict the nodes; the nodes' own length and highest ID are then used.
    pub fn finish_load(
        &mut self,
        len: u64,
        last_id: StreamId,
        max_deleted_id: StreamId,
        entries_added: u64,
    ) -> bool {
        let agrees = self.len == len && (self.len == 0 || self.last_id <= last_id);
        self.last_id = match self.len {
            0 => last_id,
            _ => last_id.max(self.last_id),
        };
        self.max_deleted_id = max_deleted_id;
        self.entries_added = if agrees {
            entries_added
        } else {
            entries_added.max(self.len)
        };
        agrees
    }
}

/// Whether an entry with `bytes` bytes of fields and values fits into the node.
fn has_room(node: &Listpack, bytes: usize, limits: NodeLimits) -> bool {
    let max_bytes = if limits.max_bytes == 0 {
        SAFETY_LIMIT
    } else {
        limits.max_bytes.min(SAFETY_LIMIT)
    };
    if node.bytes_len().saturating_add(bytes) >= max_bytes {
        return false;
    }
    let mut head = node.iter().map_while(|element| element.as_int());
    let entries = head
        .next()
        .unwrap_or(0)
        .saturating_add(head.next().unwrap_or(0));
    limits.max_entries == 0 || (entries as u64) < limits.max_entries
}

/// Creates a node that has only a master entry, with the names in `fields`.
fn new_node(fields: &[&[u8]]) -> Listpack {
    let mut node = Listpack::new();
    let head = [
        Element::Int(0),
        Element::Int(0),
        Element::Int(fields.len() as i64 / 2),
    ];
    let names = fields.iter().step_by(2).map(|name| Element::from(*name));
    node.append_all(head.into_iter().chain(names).chain([Element::Int(0)]));
    node
}

fn append_entry(node: &mut Listpack, master_id: StreamId, id: StreamId, fields: &[&[u8]]) {
    let n = fields.len() / 2;
    let (count, same) = {
        let mut master = node.iter();
        let count = master.next().and_then(|e| e.as_int()).unwrap_or(0);
        let names = master.nth(1).and_then(|e| e.as_int());
        let same = names == Some(n as i64)
            && fields
                .iter()
                .step_by(2)
                .zip(master)
                .all(|(name, e)| e.same_text(&Element::from(*name)));
        (count, same)
    };
    let flags = if same { SAME_FIELDS } else { 0 };
    let head = [
        Element::Int(flags),
        difference(id.ms, master_id.ms),
        difference(id.seq, master_id.seq),
        Element::Int(n as i64),
    ];
    let (head, skip) = if same {
        (&head[..3], 1)
    } else {
        (&head[..], 0)
    };
    let elements = head.len() + if same { n } else { 2 * n };
    let body = fields
        .iter()
        .skip(skip)
        .step_by(skip + 1)
        .map(|text| Element::from(*text));
    node.append_all(
        head.iter()
            .copied()
            .chain(body)
            .chain([Element::Int(elements as i64)]),
    );
    if let Some(at) = node.first() {
        node.replace(at, Element::Int(count.saturating_add(1)));
    }
}

/// In the node's master entry, subtracts `n` from the count of live entries and adds it to that of
/// deleted entries. Returns the count of live entries.
fn count_deleted(node: &mut Listpack, n: i64) -> i64 {
    let Some(at) = node.first() else {
        return 0;
    };
    let count = node.get(at).as_int().unwrap_or(0).saturating_sub(n);
    node.replace(at, Element::Int(count));
    if let Some(at) = node.next(at) {
        let deleted = node.get(at).as_int().unwrap_or(0).saturating_add(n);
        node.replace(at, Element::Int(deleted));
    }
    count
}
