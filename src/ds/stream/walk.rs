//! Walks over a stream's entries: within one node, and across nodes.

use super::{SAME_FIELDS, StreamEntry, StreamId};
use crate::ds::listpack::{Iter, Listpack, Pos};
use std::collections::{BTreeMap, btree_map};

/// A node of a stream whose master entry has been read.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    id: StreamId,
    listpack: &'a Listpack,
    count: i64,
    fields: usize,
    names: Pos,
}

/// An entry's position in the node's listpack, its ID and its flags.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub at: Pos,
    pub id: StreamId,
    pub flags: i64,
}

impl Raw {
    /// Whether the entry is deleted.
    pub fn is_deleted(&self) -> bool {
        self.flags & super::DELETED != 0
    }
}

/// Reads integers and skips elements of a listpack, from the position `at` on.
struct Reader<'a> {
    listpack: &'a Listpack,
    at: Pos,
}

impl Reader<'_> {
    fn int(&mut self) -> i64 {
        let (element, next) = self.listpack.get_next(self.at);
        self.at = next;
        element.as_int().unwrap_or(0)
    }

    fn skip(&mut self, n: usize) {
        for _ in 0..n {
            self.at = self.listpack.next(self.at).unwrap_or(self.listpack.end());
        }
    }
}

impl<'a> Node<'a> {
    /// Reads the master entry of a node.
    pub fn new(id: StreamId, listpack: &'a Listpack) -> Node<'a> {
        let mut reader = Reader {
            listpack,
            at: listpack.first().unwrap_or(listpack.end()),
        };
        let (count, _deleted, fields) = (reader.int(), reader.int(), reader.int());
        Node {
            id,
            listpack,
            count,
            fields: fields as usize,
            names: reader.at,
        }
    }

    /// The number of live entries, from the master entry.
    pub fn count(&self) -> u64 {
        self.count as u64
    }
}

/// A walk over the entries of a node, including deleted ones.
pub(super) struct Walk<'a> {
    node: Node<'a>,
    /// In a walk forwards, the position of the next entry's first element; in a walk backwards,
    /// that of the next entry's last element.
    at: Option<Pos>,
    backwards: bool,
}

impl<'a> Walk<'a> {
    /// Begins a walk forwards, at the first entry.
    pub fn first(node: Node<'a>) -> Walk<'a> {
        let mut reader = Reader {
            listpack: node.listpack,
            at: node.names,
        };
        reader.skip(node.fields + 1);
        let at = (reader.at != node.listpack.end()).then_some(reader.at);
        Walk {
            node,
            at,
            backwards: false,
        }
    }

    /// Begins a walk backwards, at the last entry.
    pub fn last(node: Node<'a>) -> Walk<'a> {
        Walk {
            node,
            at: node.listpack.last(),
            backwards: true,
        }
    }

    /// Reads the entry at `at`. In a walk forwards, also returns the position of the next entry.
    fn read(&self, at: Pos) -> (Raw, StreamEntry<'a>, Pos) {
        let node = self.node;
        let mut reader = Reader {
            listpack: node.listpack,
            at,
        };
        let flags = reader.int();
        let id = StreamId {
            ms: node.id.ms.wrapping_add(reader.int() as u64),
            seq: node.id.seq.wrapping_add(reader.int() as u64),
        };
        let same = flags & SAME_FIELDS != 0;
        let fields = if same {
            node.fields
        } else {
            reader.int() as usize
        };
        let entry = StreamEntry {
            id,
            fields,
            names: same.then(|| node.listpack.iter_from(node.names)),
            body: node.listpack.iter_from(reader.at),
        };
        if !self.backwards {
            reader.skip(if same { fields } else { 2 * fields } + 1);
        }
        (Raw { at, id, flags }, entry, reader.at)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Raw, StreamEntry<'a>);

    fn next(&mut self) -> Option<(Raw, StreamEntry<'a>)> {
        let listpack = self.node.listpack;
        let mut at = self.at?;
        if self.backwards {
            // The last element of the master entry is 0, which stops a walk backwards.
            let before = listpack.get(at).as_int().filter(|&n| n > 0)?;
            for _ in 0..before {
                at = listpack.prev(at)?;
            }
        }
        let (raw, entry, next) = self.read(at);
        self.at = match self.backwards {
            true => listpack.prev(at),
            false => (next != listpack.end()).then_some(next),
        };
        Some((raw, entry))
    }
}

/// A walk over the live entries of a range of IDs.
pub struct Range<'a> {
    nodes: btree_map::Range<'a, StreamId, Listpack>,
    node: Option<Walk<'a>>,
    start: StreamId,
    end: StreamId,
    backwards: bool,
}

impl<'a> Range<'a> {
    fn new(
        nodes: &'a BTreeMap<StreamId, Listpack>,
        start: StreamId,
        end: StreamId,
        backwards: bool,
    ) -> Range<'a> {
        // The entry with the ID `start` can only be in the last node whose ID is at or below
        // `start`.
        let first = nodes
            .range(..=start)
            .next_back()
            .map_or(start, |(&id, _)| id);
        let nodes = if start <= end {
            nodes.range(first..=end)
        } else {
            nodes.range(start..start)
        };
        Range {
            nodes,
            node: None,
            start,
            end,
            backwards,
        }
    }

    pub(super) fn forwards(
        nodes: &'a BTreeMap<StreamId, Listpack>,
        start: StreamId,
        end: StreamId,
    ) -> Range<'a> {
        Range::new(nodes, start, end, false)
    }

    pub(super) fn backwards(
        nodes: &'a BTreeMap<StreamId, Listpack>,
        start: StreamId,
        end: StreamId,
    ) -> Range<'a> {
        Range::new(nodes, start, end, true)
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = StreamEntry<'a>;

    fn next(&mut self) -> Option<StreamEntry<'a>> {
        loop {
            while let Some((raw, entry)) = self.node.as_mut().and_then(Walk::next) {
                // A deleted entry may have a higher ID than later entries: XSETID can set the last
                // ID back to that of the last live entry.
                if raw.is_deleted() {
                    continue;
                }
                let (too_early, too_late) = (raw.id < self.start, raw.id > self.end);
                if (too_late && !self.backwards) || (too_early && self.backwards) {
                    self.node = None;
                    break;
                }
                if !too_early && !too_late {
                    return Some(entry);
                }
            }
            let (&id, listpack) = match self.backwards {
                true => self.nodes.next_back()?,
                false => self.nodes.next()?,
            };
            let node = Node::new(id, listpack);
            self.node = Some(if self.backwards {
                Walk::last(node)
            } else {
                Walk::first(node)
            });
        }
    }
}

/// The figures of a node that was checked.
pub(super) struct Census {
    pub live: u64,
    /// The IDs of the first and the last live entry.
    pub ends: Option<(StreamId, StreamId)>,
}

/// Checks whether a listpack from outside is a valid node with the ID `id`: each entry has all its
/// elements, the counts of live and of deleted entries are right, and the IDs of live entries
/// ascend from that of the node.
pub(super) fn validate(id: StreamId, listpack: &Listpack) -> Option<Census> {
    let mut elements = listpack.iter();
    let (count, deleted) = (elements.next_int()?, elements.next_int()?);
    let names = usize::try_from(elements.next_int()?).ok()?;
    skip(&mut elements, names)?;
    if elements.next_int()? != 0 {
        return None;
    }
    let (mut live, mut dead) = (0i64, 0i64);
    let mut ends: Option<(StreamId, StreamId)> = None;
    while let Some(flags) = elements.next() {
        let flags = flags.as_int()?;
        let (ms, seq) = (elements.next_int()?, elements.next_int()?);
        let here = StreamId::new(
            id.ms.wrapping_add(ms as u64),
            id.seq.wrapping_add(seq as u64),
        );
        let before = skip_fields(&mut elements, flags, names)?;
        if elements.next_int()? != before {
            return None;
        }
        if flags & super::DELETED != 0 {
            dead += 1;
            continue;
        }
        live += 1;
        let follows = ends.map_or(here >= id, |(_, last)| here > last);
        if !follows {
            return None;
        }
        ends = Some((ends.map_or(here, |(first, _)| first), here));
    }
    let live_and_dead = live == count && dead == deleted;
    live_and_dead.then_some(Census {
        live: live as u64,
        ends,
    })
}

/// Skips the fields of an entry. Returns the number of the entry's elements up to there, which must
/// be the entry's last element.
fn skip_fields(elements: &mut Iter<'_>, flags: i64, names: usize) -> Option<i64> {
    let before = if flags & SAME_FIELDS != 0 {
        skip(elements, names)?;
        names.checked_add(3)
    } else {
        let fields = usize::try_from(elements.next_int()?).ok()?;
        let texts = fields.checked_mul(2)?;
        skip(elements, texts)?;
        texts.checked_add(4)
    };
    i64::try_from(before?).ok()
}

fn skip(elements: &mut Iter<'_>, n: usize) -> Option<()> {
    match n {
        0 => Some(()),
        _ => elements.nth(n - 1).map(|_| ()),
    }
}
