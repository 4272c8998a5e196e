//! One node of a quicklist: a listpack or one big element, compressed or not.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::End;
use crate::ds::listpack::{Element, FrontPack, Listpack, Pos, iter_bytes};
use crate::ds::lzf::{SmallLzf, decompress};
use crate::ds::relocate::Relocate;
use crate::ds::thin_buffer::size_class;
use crate::sys::mover::Mover;

/// The size in bytes below which quicklist nodes are not compressed.
const MIN_COMPRESS_BYTES: usize = 48;
/// The size in bytes from which on the first node of a quicklist becomes a `FrontPack` when an
/// element is pushed or popped at its front. In tests the size is so small that even short lists
/// have a `FrontPack`.
const MIN_FRONT_BYTES: usize = if cfg!(test) { 16 } else { 512 };
/// The minimum number of bytes that the compression of a node must save to be worth the time of a
/// decompression.
const MIN_COMPRESS_GAIN: usize = 8;

pub(super) enum Node {
    Packed {
        count: u32,
        listpack: Listpack,
    },
    /// The first of several nodes, while elements are pushed and popped at its front.
    Front(Box<FrontPack>),
    Plain(Box<Box<[u8]>>),
    Lzf {
        count: u32,
        packed: Box<Compressed>,
    },
}

const _: () = assert!(size_of::<Node>() == 16);

#[derive(Clone)]
pub(super) struct Compressed {
    pub(super) plain: bool,
    pub(super) raw_len: usize,
    pub(super) bytes: Box<[u8]>,
}

/// The content of a node for reading, decompressed if needed.
pub(super) enum Content<'a> {
    Packed(Cow<'a, Listpack>),
    Front(&'a FrontPack),
    Plain(Cow<'a, [u8]>),
}

impl Clone for Node {
    fn clone(&self) -> Self {
        match self {
            Node::Packed { count, listpack } => Node::Packed {
                count: *count,
                listpack: listpack.clone(),
            },
            Node::Front(front) => Node::Front(front.clone()),
            Node::Plain(text) => Node::Plain(text.clone()),
            Node::Lzf { count, packed } => Node::Lzf {
                count: *count,
                packed: packed.clone(),
            },
        }
    }
}

impl Node {
    pub(super) fn packed(listpack: Listpack) -> Self {
        Node::Packed {
            count: listpack.len() as u32,
            listpack,
        }
    }

    pub(super) fn plain(text: Box<[u8]>) -> Self {
        Node::Plain(Box::new(text))
    }

    /// Creates a node with one element: a plain node if the element is `large`, otherwise a
    /// listpack.
    pub(super) fn of(text: &[u8], large: bool) -> Self {
        if large {
            return Self::plain(text.into());
        }
        let mut listpack = Listpack::new();
        listpack.append(text);
        Node::Packed { count: 1, listpack }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        match self {
            Node::Packed { count, .. } | Node::Lzf { count, .. } => *count as usize,
            Node::Front(front) => front.count(),
            Node::Plain(_) => 1,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        match self {
            Node::Packed { .. } | Node::Front(_) => false,
            Node::Plain(_) => true,
            Node::Lzf { packed, .. } => packed.plain,
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Node::Lzf { .. })
    }

    /// The size in bytes that the node's content has without compression.
    #[inline]
    pub(super) fn raw_len(&self) -> usize {
        match self {
            Node::Packed { listpack, .. } => listpack.bytes_len(),
            Node::Front(front) => front.bytes_len(),
            Node::Plain(text) => text.len(),
            Node::Lzf { packed, .. } => packed.raw_len,
        }
    }

    /// The size in bytes of the allocations of the node's content.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Node::Packed { listpack, .. } => listpack.memory_bytes(),
            Node::Front(front) => front.memory_bytes(),
            Node::Plain(text) => size_class(text.len()) + size_of::<Box<[u8]>>(),
            Node::Lzf { packed, .. } => size_class(packed.bytes.len()) + size_of::<Compressed>(),
        }
    }

    /// Offers the allocations of the node's content to the mover, which defragments memory.
    pub(super) fn relocate(&mut self, mover: &mut Mover) {
        mover.visited(1);
        match self {
            Node::Packed { listpack, .. } => {
                listpack.relocate(0, mover);
            }
            Node::Front(front) => {
                mover.boxed(front);
                front.relocate(mover);
            }
            Node::Plain(text) => {
                mover.boxed(text);
                mover.boxed_slice(text);
            }
            Node::Lzf { packed, .. } => {
                mover.boxed(packed);
                mover.boxed_slice(&mut packed.bytes);
            }
        }
    }

    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Node::Packed { listpack, .. } => Content::Packed(Cow::Borrowed(listpack)),
            Node::Front(front) => Content::Front(front),
            Node::Plain(text) => Content::Plain(Cow::Borrowed(text)),
            Node::Lzf { packed, .. } => packed.content(),
        }
    }

    /// Turns a node that is a `FrontPack` into a listpack.
    pub(super) fn close(&mut self) {
        if let Node::Front(front) = self {
            *self = Node::packed(front.to_listpack());
        }
    }

    /// The node's `FrontPack`; a listpack node is turned into a `FrontPack` first. `None` if the
    /// node is shorter than `MIN_FRONT_BYTES`, or is not a listpack.
    #[inline]
    pub(super) fn front(&mut self) -> Option<&mut FrontPack> {
        if let Node::Packed { listpack, .. } = self
            && listpack.bytes_len() >= MIN_FRONT_BYTES
        {
            *self = Node::Front(Box::new(FrontPack::new(listpack)));
        }
        match self {
            Node::Front(front) => Some(front),
            _ => None,
        }
    }

    /// Decompresses the node's content, if it is compressed.
    pub(super) fn decompress(&mut self) {
        let Node::Lzf { count, packed } = self else {
            return;
        };
        *self = match packed.content() {
            Content::Packed(listpack) => Node::Packed {
                count: *count,
                listpack: listpack.into_owned(),
            },
            Content::Front(_) => unreachable!("a front is not compressed"),
            Content::Plain(text) => Node::plain(text.into_owned().into_boxed_slice()),
        };
    }

    /// Compresses the node's content if this saves memory.
    pub(super) fn compress(&mut self) {
        let raw: &[u8] = match self {
            Node::Packed { listpack, .. } => listpack.as_bytes(),
            Node::Front(front) => front.as_bytes(),
            Node::Plain(text) => text,
            Node::Lzf { .. } => return,
        };
        let raw_len = raw.len();
        if raw_len < MIN_COMPRESS_BYTES {
            return;
        }
        let mut bytes = Vec::new();
        let limit = raw_len - MIN_COMPRESS_GAIN;
        if SmallLzf::new()
            .compress_within(raw, limit, &mut bytes)
            .is_none()
        {
            return;
        }
        let packed = Box::new(Compressed {
            plain: self.is_plain(),
            raw_len,
            bytes: bytes.into_boxed_slice(),
        });
        let count = self.count() as u32;
        *self = Node::Lzf { count, packed };
    }

    /// The listpack of a node and its number of elements, both mutable; a compressed node is
    /// decompressed first. `None` for a plain node.
    #[inline]
    pub(super) fn listpack_mut(&mut self) -> Option<(&mut Listpack, &mut u32)> {
        self.decompress();
        self.close();
        match self {
            Node::Packed { count, listpack } => Some((listpack, count)),
            _ => None,
        }
    }

    /// Inserts an element before the element at index `at`. The node must be a listpack, compressed
    /// or not.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, text: &[u8]) {
        let (listpack, count) = self
            .listpack_mut()
            .expect("only a listpack admits elements");
        let pos = if at == *count as usize {
            listpack.end()
        } else {
            listpack.seek(at as i64).expect("an index below the count")
        };
        listpack.insert_before(pos, text);
        *count += 1;
    }

    /// Removes `n` elements from index `at` on. At least one element of the node must remain.
    pub(super) fn cut(&mut self, at: usize, n: usize) {
        if let Some((listpack, count)) = self.listpack_mut() {
            listpack.delete_range(at as i64, n);
            *count -= n as u32;
        }
    }

    /// Moves the node's elements from index `at` on to a new node.
    pub(super) fn split_off(&mut self, at: usize) -> Option<Node> {
        let (listpack, count) = self.listpack_mut()?;
        let tail = listpack.split_off(listpack.seek(at as i64)?);
        let moved = *count - at as u32;
        *count = at as u32;
        Some(Node::Packed {
            count: moved,
            listpack: tail,
        })
    }

    /// Removes up to `max` elements equal to `text`, those nearest to the end `from` first. The
    /// caller drops the node if all elements were removed. A compressed node without an element
    /// equal to `text` stays compressed.
    pub(super) fn remove_matching(&mut self, text: &[u8], max: usize, from: End) -> usize {
        if self.is_compressed() && !self.content().contains(text) {
            return 0;
        }
        self.decompress();
        self.close();
        match self {
            Node::Packed { count, listpack } => {
                let removed = remove_matching(listpack, text, max, from);
                *count -= removed as u32;
                removed
            }
            Node::Plain(plain) => usize::from(***plain == *text),
            Node::Front(_) | Node::Lzf { .. } => unreachable!("a listpack by now"),
        }
    }
}

impl Compressed {
    fn content<'a>(&self) -> Content<'a> {
        let raw = decompress(&self.bytes, self.raw_len).expect("our own compression");
        match self.plain {
            true => Content::Plain(Cow::Owned(raw)),
            false => {
                let listpack = Listpack::from_bytes(&raw).expect("our own listpack");
                Content::Packed(Cow::Owned(listpack))
            }
        }
    }
}

impl Content<'_> {
    pub(super) fn contains(&self, text: &[u8]) -> bool {
        match self {
            Content::Front(front) => {
                let wanted = Element::from(text);
                iter_bytes(front.as_bytes()).any(|element| element.same_text(&wanted))
            }
            Content::Packed(listpack) => {
                let found = listpack.first().and_then(|pos| listpack.find(pos, text, 0));
                found.is_some()
            }
            Content::Plain(plain) => **plain == *text,
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<Element<'_>> {
        match self {
            Content::Packed(listpack) => listpack.seek(at as i64).map(|pos| listpack.get(pos)),
            Content::Front(front) => iter_bytes(front.as_bytes()).nth(at),
            Content::Plain(text) => (at == 0).then_some(Element::Str(text)),
        }
    }

    /// Passes the elements from index `at` on, in the direction away from the end `from`, to
    /// `visit` until it breaks.
    #[inline]
    pub(super) fn walk<B>(
        &self,
        at: usize,
        from: End,
        visit: &mut impl FnMut(Element) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let closed;
        let listpack: &Listpack = match self {
            Content::Packed(listpack) => listpack,
            Content::Front(front) if from == End::Head => {
                return iter_bytes(front.as_bytes()).skip(at).try_for_each(visit);
            }
            Content::Front(front) => {
                closed = front.to_listpack();
                &closed
            }
            Content::Plain(text) => return visit(Element::Str(text)),
        };
        walk_listpack(listpack, listpack.seek(at as i64), from, visit)
    }
}

/// Passes the elements of `listpack` from `pos` on, in the direction away from the end `from`, to
/// `visit` until it breaks.
#[inline]
pub fn walk_listpack<B>(
    listpack: &Listpack,
    pos: Option<Pos>,
    from: End,
    visit: &mut impl FnMut(Element) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let Some(pos) = pos else {
        return ControlFlow::Continue(());
    };
    match from {
        End::Head => listpack.iter_from(pos).try_for_each(visit),
        End::Tail => {
            let after = listpack.next(pos).unwrap_or(listpack.end());
            listpack.iter_rev_before(after).try_for_each(visit)
        }
    }
}

/// Removes up to `max` elements equal to `text`, those nearest to the end `from` first.
pub fn remove_matching(listpack: &mut Listpack, text: &[u8], max: usize, from: End) -> usize {
    let mut removed = 0;
    match from {
        End::Head => {
            let mut pos = listpack.first();
            while let Some(at) = pos.filter(|_| removed < max) {
                let Some(hit) = listpack.find(at, text, 0) else {
                    break;
                };
                pos = listpack.delete(hit);
                removed += 1;
            }
        }
        End::Tail => {
            let wanted = Element::from(text);
            let mut pos = listpack.last();
            while let Some(at) = pos.filter(|_| removed < max) {
                pos = listpack.prev(at);
                if listpack.get(at).same_text(&wanted) {
                    listpack.delete(at);
                    removed += 1;
                }
            }
        }
    }
    removed
}
