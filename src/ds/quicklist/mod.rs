//! Quicklist: a long list as a row of listpacks.
//!
//! In one listpack, every change in the middle of a long list would move all bytes behind it; a
//! linked list would need 40 bytes for each element. A row of listpacks of some kilobytes each
//! avoids the long moves of one listpack and the memory of a linked list.
//!
//! ```text
//!   nodes: VecDeque                             each 16 bytes: | kind | count u32 | pointer |
//!     [ Packed 431 | Packed 450 | Lzf 450 | Lzf 1 | Packed 12 ]
//!          |            |          |        |         |
//!       listpack     listpack     compressed        listpack        a big element alone is a Plain node
//!       <- compress_depth = 2 ->          <- compress_depth = 2 ->
//! ```
//!
//! Most commands work at an end of a list, which is O(1) in a `VecDeque`. The element at an index
//! is found by adding up the counts of the nodes, whose records lie side by side in memory: a
//! million elements take some 2,200 nodes, whose records take 35 KB. An insertion of a node in the
//! middle moves at most half of the nodes' records. In a linked list of nodes, as in Redis, the
//! insertion of a node is O(1), but the search before it is a chain of cache misses. A tree of
//! nodes was rejected because its search has such a chain, too.
//!
//! `ListLimits` limits the size of a quicklist's node, and of an element in a listpack; a quicklist
//! keeps the limits with which it was created. Nodes are split, merged and dropped as in Redis,
//! because a quicklist of one small node becomes a listpack, which OBJECT ENCODING shows: a removal
//! merges no nodes, but an insertion that split a node merges its neighbours.
//!
//! A listpack grows and shrinks cheaply at its end only. So the first of several nodes of a
//! quicklist is a `FrontPack` while elements are pushed or popped at the front: the bytes of a
//! listpack, with a gap before them. A `FrontPack` becomes an ordinary listpack when it is no
//! longer the first of several nodes.
//!
//! **Invariant:** no node of a quicklist is empty; only the first of several nodes is a
//! `FrontPack`; `len` is the sum of the nodes' counts (test `histories_match_a_vecdeque`).
//! **Invariant:** the first and last `compress_depth` nodes of a quicklist are not compressed, and
//! no node is compressed if `compress_depth` is 0. Every change of a quicklist's nodes ends in
//! `settle`, which compresses and decompresses accordingly (test `histories_match_a_vecdeque`).

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use super::listpack::{self, Element, Listpack};
use super::relocate::{Cursor, Relocate};
use crate::sys::mover::Mover;

mod limits;
mod node;
#[cfg(test)]
mod tests;

pub use limits::ListLimits;
use node::Node;
pub use node::{remove_matching, walk_listpack};

/// The maximum number of nodes that a change adds to a quicklist: the insertion of a big element
/// into a node makes two halves of this node, and a plain node between them.
const MOST_ADDED: usize = 2;

/// The number of a quicklist's nodes that an estimate of its memory measures.
const NODES_WEIGHED: usize = 16;

/// The ends of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Head,
    Tail,
}

/// The place of LINSERT, relative to the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// A long list, as a row of nodes.
#[derive(Clone)]
pub struct Quicklist {
    nodes: VecDeque<Node>,
    len: usize,
    limits: ListLimits,
}

/// The content of a quicklist node, as an RDB file contains it.
pub enum NodeView<'a> {
    Packed(&'a [u8]),
    Plain(&'a [u8]),
    /// `raw_len` bytes compressed by LZF: one element if `plain`, otherwise a listpack.
    Compressed {
        plain: bool,
        raw_len: usize,
        bytes: &'a [u8],
    },
}

/// The figures of a quicklist that DEBUG OBJECT reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub nodes: usize,
    pub compressed_nodes: usize,
    /// The size in bytes of all nodes, decompressed.
    pub raw_bytes: usize,
}

impl Quicklist {
    /// An empty list.
    pub fn new(limits: ListLimits) -> Self {
        Self {
            nodes: VecDeque::new(),
            len: 0,
            limits,
        }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The size limits of the nodes.
    pub fn limits(&self) -> &ListLimits {
        &self.limits
    }

    /// Sets the threshold of DEBUG QUICKLIST-PACKED-THRESHOLD, in bytes, which applies to existing
    /// lists too.
    pub fn set_packed_threshold(&mut self, bytes: usize) {
        self.limits.packed_threshold = bytes;
    }

    /// The size of the quicklist's allocations in bytes, found by a walk over all nodes.
    pub fn memory_bytes(&self) -> usize {
        let row = self.nodes.capacity() * size_of::<Node>();
        let contents: usize = self.nodes.iter().map(Node::memory_bytes).sum();
        size_of::<Self>() + row + contents
    }

    /// An estimate of [`Quicklist::memory_bytes`] from a few nodes, evenly spread, in O(1).
    pub fn memory_estimate(&self) -> usize {
        let step = self.nodes.len().div_ceil(NODES_WEIGHED).max(1);
        let weighed = self.nodes.iter().step_by(step).map(Node::memory_bytes);
        let (sum, n) = weighed.fold((0, 0), |(sum, n), bytes| (sum + bytes, n + 1));
        let contents = (sum as u128 * self.nodes.len() as u128 / n.max(1) as u128) as usize;
        size_of::<Self>() + self.nodes.capacity() * size_of::<Node>() + contents
    }

    /// The figures for DEBUG OBJECT.
    pub fn figures(&self) -> Figures {
        Figures {
            nodes: self.nodes.len(),
            compressed_nodes: self
                .nodes
                .iter()
                .filter(|node| node.is_compressed())
                .count(),
            raw_bytes: self.nodes.iter().map(Node::raw_len).sum(),
        }
    }

    /// The nodes in the form of RDB files.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeView<'_>> {
        self.nodes.iter().map(|node| match node {
            Node::Packed { listpack, .. } => NodeView::Packed(listpack.as_bytes()),
            Node::Front(front) => NodeView::Packed(front.as_bytes()),
            Node::Plain(text) => NodeView::Plain(text),
            Node::Lzf { packed, .. } => NodeView::Compressed {
                plain: packed.plain,
                raw_len: packed.raw_len,
                bytes: &packed.bytes,
            },
        })
    }

    /// Appends a whole listpack, which an RDB file contained, as a node; an empty listpack is
    /// ignored.
    pub fn push_listpack(&mut self, listpack: Listpack) {
        if !listpack.is_empty() {
            self.push_node(End::Tail, Node::packed(listpack));
        }
    }

    /// Appends one big element as a node.
    pub fn push_plain(&mut self, text: Box<[u8]>) {
        self.push_node(End::Tail, Node::plain(text));
    }

    /// Returns the listpack of a quicklist that has exactly one node. Returns the quicklist itself
    /// as `Err` if it has several nodes, or if its node is not an uncompressed listpack.
    pub fn into_listpack(mut self) -> Result<Listpack, Self> {
        if self.single_listpack().is_none() {
            return Err(self);
        }
        match self.nodes.pop_front() {
            Some(Node::Packed { listpack, .. }) => Ok(listpack),
            _ => unreachable!("single_listpack looked"),
        }
    }

    /// The listpack of a quicklist that has exactly one node; `None` for any other quicklist.
    pub fn single_listpack(&self) -> Option<&Listpack> {
        match self.nodes.front()? {
            Node::Packed { listpack, .. } if self.nodes.len() == 1 => Some(listpack),
            _ => None,
        }
    }
}

/// Defragments the nodes in order; the cursor is the index of the next node.
impl Relocate for Quicklist {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        if cursor == 0 {
            mover.deque(&mut self.nodes);
        }
        let first = usize::try_from(cursor).unwrap_or(usize::MAX);
        for at in first..self.nodes.len() {
            if mover.is_spent() && at > first {
                return at as Cursor;
            }
            self.nodes[at].relocate(mover);
        }
        0
    }
}

/// Methods that read a quicklist.
impl Quicklist {
    /// The index of the node that has the element at `index`, and the element's index within this
    /// node. The search begins at the nearer end of the list.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        let mut left = index;
        if index < self.len / 2 {
            for (n, node) in self.nodes.iter().enumerate() {
                if left < node.count() {
                    return Some((n, left));
                }
                left -= node.count();
            }
        }
        let mut left = self.len.checked_sub(index + 1)?;
        for (n, node) in self.nodes.iter().enumerate().rev() {
            if left < node.count() {
                return Some((n, node.count() - 1 - left));
            }
            left -= node.count();
        }
        None
    }

    /// Passes the element at `index` to `show`.
    pub fn get_with<R>(&self, index: usize, show: impl FnOnce(Element) -> R) -> Option<R> {
        let (n, at) = self.locate(index)?;
        self.nodes[n].content().get(at).map(show)
    }

    /// Passes the elements from `index` on, in the direction away from the end `from`, to `visit`
    /// until it breaks.
    pub fn visit<B>(
        &self,
        index: usize,
        from: End,
        mut visit: impl FnMut(Element) -> ControlFlow<B>,
    ) -> Option<B> {
        let (n, at) = self.locate(index)?;
        let mut walk = |node: &Node, at: usize| node.content().walk(at, from, &mut visit);
        if let ControlFlow::Break(value) = walk(&self.nodes[n], at) {
            return Some(value);
        }
        match from {
            End::Head => {
                let mut rest = self.nodes.range(n + 1..);
                rest.find_map(|node| walk(node, 0).break_value())
            }
            End::Tail => {
                let mut rest = self.nodes.range(..n).rev();
                rest.find_map(|node| walk(node, node.count() - 1).break_value())
            }
        }
    }
}

/// Methods that change a quicklist.
impl Quicklist {
    /// The index of the node at an end of the list; 0 if there are no nodes.
    #[inline]
    fn end_node(&self, end: End) -> usize {
        match end {
            End::Head => 0,
            End::Tail => self.nodes.len().saturating_sub(1),
        }
    }

    /// Whether node `n` exists and has room for a text of `len` bytes.
    #[inline]
    fn admits(&self, n: usize, len: usize) -> bool {
        self.nodes.get(n).is_some_and(|node| {
            !node.is_plain() && self.limits.admits(node.raw_len(), node.count(), len)
        })
    }

    fn push_node(&mut self, end: End, node: Node) {
        self.len += node.count();
        match end {
            End::Head => self.nodes.push_front(node),
            End::Tail => self.nodes.push_back(node),
        }
        self.settle(0..0);
    }

    /// Inserts an element at an end.
    #[inline]
    pub fn push(&mut self, end: End, text: &[u8]) {
        let n = self.end_node(end);
        let large = self.limits.is_large(text.len());
        if large || !self.admits(n, text.len()) {
            return self.push_node(end, Node::of(text, large));
        }
        self.len += 1;
        let heads_a_row = end == End::Head && self.nodes.len() > 1;
        let node = &mut self.nodes[n];
        if heads_a_row && let Some(front) = node.front() {
            return front.prepend(text);
        }
        match end {
            End::Head => node.insert(0, text),
            End::Tail => node.insert(node.count(), text),
        }
    }

    /// Passes the element at an end to `show` and removes it.
    #[inline]
    pub fn pop_with<R>(&mut self, end: End, show: impl FnOnce(Element) -> R) -> Option<R> {
        let n = self.end_node(end);
        let heads_a_row = end == End::Head && self.nodes.len() > 1;
        let node = self.nodes.get_mut(n)?;
        if heads_a_row {
            node.front();
        }
        let shown = match node {
            Node::Front(front) => {
                let shown = show(front.first()?);
                front.remove_first();
                shown
            }
            Node::Packed { count, listpack } => {
                let pos = match end {
                    End::Head => listpack.first()?,
                    End::Tail => listpack.last()?,
                };
                let shown = show(listpack.get(pos));
                if *count > 1 {
                    listpack.delete(pos);
                }
                *count -= 1;
                shown
            }
            Node::Plain(text) => show(Element::Str(text)),
            Node::Lzf { .. } => unreachable!("the ends are not compressed"),
        };
        self.len -= 1;
        if node.is_plain() || node.count() == 0 {
            self.nodes.remove(n);
            self.settle(0..0);
        }
        Some(shown)
    }

    /// Inserts an element before or after the element at `index`. Returns false if there is no
    /// element at `index`.
    pub fn insert(&mut self, index: usize, side: Side, text: &[u8]) -> bool {
        let Some((n, at)) = self.locate(index) else {
            return false;
        };
        let at = at + usize::from(side == Side::After);
        let large = self.limits.is_large(text.len());
        let count = self.nodes[n].count();
        self.len += 1;
        if !large && self.admits(n, text.len()) {
            self.insert_into(n, at, text);
        } else if !large && at == count && self.admits(n + 1, text.len()) {
            self.insert_into(n + 1, 0, text);
        } else if !large && at == 0 && n > 0 && self.admits(n - 1, text.len()) {
            self.insert_into(n - 1, self.nodes[n - 1].count(), text);
        } else if at == 0 || at == count {
            let n = n + usize::from(at > 0);
            self.nodes.insert(n, Node::of(text, large));
            self.settle(n..n + 1);
        } else {
            self.split_and_insert(n, at, side, large, text);
        }
        true
    }

    fn insert_into(&mut self, n: usize, at: usize, text: &[u8]) {
        self.nodes[n].insert(at, text);
        self.settle(n..n + 1);
    }

    /// Splits node `n` before its element `at`, inserts the new element between the two halves, and
    /// merges small neighbouring nodes.
    fn split_and_insert(&mut self, n: usize, at: usize, side: Side, large: bool, text: &[u8]) {
        let tail = self.nodes[n]
            .split_off(at)
            .expect("a plain node has no middle");
        self.nodes.insert(n + 1, tail);
        if large {
            self.nodes.insert(n + 1, Node::of(text, true));
            self.settle(n..n + 3);
            return;
        }
        match side {
            Side::After => {
                self.nodes[n + 1].insert(0, text);
                self.merge_around(n);
            }
            Side::Before => {
                self.nodes[n].insert(at, text);
                self.merge_around(n + 1);
            }
        }
    }

    /// Merges node `n` with its neighbours, up to two on each side, as far as the size limits
    /// allow.
    fn merge_around(&mut self, n: usize) {
        let mut center = n;
        if center >= 2 && self.merge(center - 2) {
            center -= 1;
        }
        self.merge(center + 1);
        if center >= 1 && self.merge(center - 1) {
            center -= 1;
        }
        self.merge(center);
        self.settle(center.saturating_sub(2)..center + 3);
    }

    /// Merges node `n` and the next node, if the two nodes are listpacks and fit into one. Returns
    /// whether they were merged.
    fn merge(&mut self, n: usize) -> bool {
        let (Some(first), Some(second)) = (self.nodes.get(n), self.nodes.get(n + 1)) else {
            return false;
        };
        let bytes = (first.raw_len() + second.raw_len()).saturating_sub(listpack::EMPTY_BYTES);
        let too_big = self
            .limits
            .exceeded_by(bytes, first.count() + second.count());
        if too_big || first.is_plain() || second.is_plain() {
            return false;
        }
        let Some(mut second) = self.nodes.remove(n + 1) else {
            return false;
        };
        if let (Some((to, count)), Some((from, more))) =
            (self.nodes[n].listpack_mut(), second.listpack_mut())
        {
            to.append_listpack(from);
            *count += *more;
        }
        true
    }

    /// Replaces the element at `index`. Returns false if there is no element at `index`.
    pub fn replace(&mut self, index: usize, text: &[u8]) -> bool {
        let Some((n, at)) = self.locate(index) else {
            return false;
        };
        let large = self.limits.is_large(text.len());
        let node = &mut self.nodes[n];
        if large != node.is_plain() {
            self.replace_by_other_kind(index, text);
            return true;
        }
        if large {
            *node = Node::of(text, true);
        } else if let Some((listpack, _)) = node.listpack_mut() {
            let pos = listpack.seek(at as i64).expect("an index below the count");
            listpack.replace(pos, text);
        }
        self.settle(n..n + 1);
        true
    }

    /// Replaces an element of a listpack by a big element, which gets a node of its own, or a big
    /// element by an element that fits a listpack.
    fn replace_by_other_kind(&mut self, index: usize, text: &[u8]) {
        self.insert(index, Side::After, text);
        let Some((n, at)) = self.locate(index) else {
            return;
        };
        self.len -= 1;
        if self.nodes[n].count() == 1 {
            self.nodes.remove(n);
            self.settle(n..n + 1);
        } else {
            self.nodes[n].cut(at, 1);
            self.merge_around(n + 1);
        }
    }

    /// Removes up to `count` elements from `index` on. Returns the number of removed elements.
    pub fn delete_range(&mut self, index: usize, count: usize) -> usize {
        let removed = count.min(self.len.saturating_sub(index));
        let Some((mut n, at)) = self.locate(index).filter(|_| removed > 0) else {
            return 0;
        };
        let first = n;
        let mut left = removed;
        if at > 0 {
            let here = left.min(self.nodes[n].count() - at);
            self.nodes[n].cut(at, here);
            left -= here;
            n += 1;
        }
        let mut end = n;
        while left > 0 && left >= self.nodes[end].count() {
            left -= self.nodes[end].count();
            end += 1;
        }
        self.nodes.drain(n..end);
        if left > 0 {
            self.nodes[n].cut(0, left);
        }
        self.len -= removed;
        self.settle(first..n + 1);
        removed
    }

    /// Removes up to `max` elements equal to `text`, those nearest to the end `from` first. Returns
    /// the number of removed elements.
    pub fn remove(&mut self, text: &[u8], max: usize, from: End) -> usize {
        let before = self.len;
        let goal = before - max.min(before);
        let mut turn = 0;
        while turn < self.nodes.len() && self.len > goal {
            let n = match from {
                End::Head => turn,
                End::Tail => self.nodes.len() - 1 - turn,
            };
            if self.remove_in_node(n, text, self.len - goal, from) {
                turn += 1;
            }
        }
        before - self.len
    }

    /// Removes up to `max` elements equal to `text` in node `n`. Returns false if the node was
    /// dropped, since it became empty.
    fn remove_in_node(&mut self, n: usize, text: &[u8], max: usize, from: End) -> bool {
        let node = &mut self.nodes[n];
        let before = node.count();
        let removed = node.remove_matching(text, max, from);
        let gone = removed == before;
        self.len -= removed;
        if gone {
            self.nodes.remove(n);
        }
        if removed > 0 {
            self.settle(n..n + 1);
        }
        !gone
    }

    /// Ends every change of a quicklist's nodes: turns a `FrontPack` into a listpack if it is the
    /// only node or no longer the first one, decompresses the nodes within `compress_depth` of an
    /// end, and compresses those of the `touched` nodes that are not near an end.
    #[inline]
    fn settle(&mut self, touched: Range<usize>) {
        let len = self.nodes.len();
        let closed = usize::from(len > 1)..len.min(1 + MOST_ADDED);
        self.nodes.range_mut(closed).for_each(Node::close);
        if self.limits.compress_depth > 0 {
            self.settle_compression(touched);
        }
    }

    #[cold]
    fn settle_compression(&mut self, touched: Range<usize>) {
        let (depth, len) = (self.limits.compress_depth as usize, self.nodes.len());
        for n in 0..depth.min(len) {
            self.nodes[n].decompress();
            self.nodes[len - 1 - n].decompress();
        }
        let head = depth..depth.saturating_add(MOST_ADDED);
        let tail = len.saturating_sub(head.end)..len.saturating_sub(depth);
        for n in touched.chain(head).chain(tail) {
            if n >= depth && n + depth < len {
                self.nodes[n].compress();
            }
        }
    }
}
