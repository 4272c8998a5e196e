//! The reply buffer: what a client will be sent, in the protocol that it speaks.
//!
//! Commands write their reply straight into `buf`. A string of 16 KB or more is not copied: `buf`
//! is sealed into `nodes` and the value follows by reference, so a reply is
//!
//! ```text
//!   nodes:  [ bytes ][ shared value ][ bytes ] ...   then   buf: the tail that commands append to
//!             ^ sent: how much of the first piece the socket has taken
//! ```
//!
//! **Invariant:** `bytes()` is what is still to be sent; `sent` is below the length of the first
//! piece. The buffer knows the protocol version, so a command says *what* it answers (`null`,
//! `map`, `double`) and this file says how that looks in RESP2 and RESP3.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::ds::bulk;
use crate::error::Error;
use crate::util::number::{DoubleBuf, IntBuf, double_to_i64};

/// A value at least this long is sent from where it lies.
pub const ZERO_COPY_MIN: usize = 16 * 1024;
/// `buf` is sealed into a node when it is this long and would have to grow.
const SEAL_MIN: usize = 64 * 1024;
/// A drained buffer larger than this is given back to the allocator.
const KEEP_MAX: usize = 16 * 1024;

/// The buffer that each client of Redis has; what is in it counts for no limit.
const FIXED: usize = 16 * 1024;
/// What does not fit goes into chunks there, each of them an allocation a little longer than that,
/// which jemalloc rounds up, and an element of a list.
const CHUNK: usize = 20 * 1024;
const CHUNK_MEMORY: usize = CHUNK + 24;

enum Node {
    Owned(Vec<u8>),
    Shared(Arc<Vec<u8>>),
}

impl Node {
    fn bytes(&self) -> &[u8] {
        match self {
            Node::Owned(bytes) => bytes,
            Node::Shared(value) => value,
        }
    }
}

/// Where the header of an aggregate of yet unknown length belongs.
#[must_use]
pub struct Deferred {
    nodes: usize,
    offset: usize,
}

/// A point in the reply to come back to, see [`ReplyBuf::truncate`].
#[derive(Clone, Copy)]
pub struct Mark {
    nodes: usize,
    offset: usize,
    queued: usize,
}

#[derive(Default)]
pub struct ReplyBuf {
    /// The client said HELLO 3.
    pub resp3: bool,
    buf: Vec<u8>,
    nodes: VecDeque<Node>,
    sent: usize,
    /// Bytes in `nodes`.
    queued: usize,
    /// The hard output limit in bytes, 0 for none; see [`ReplyBuf::overflowed`].
    pub limit: usize,
    overflowed: bool,
}

impl ReplyBuf {
    pub fn new(resp3: bool) -> ReplyBuf {
        ReplyBuf {
            resp3,
            ..ReplyBuf::default()
        }
    }

    /// Bytes that wait to be sent.
    pub fn bytes(&self) -> usize {
        self.queued + self.buf.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.nodes.is_empty()
    }

    /// Sealed pieces, for CLIENT LIST's `oll`.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes that would fit Redis's fixed buffer: CLIENT LIST's `obl`.
    pub fn fixed_len(&self) -> usize {
        if self.nodes.is_empty() {
            self.buf.len().min(FIXED)
        } else {
            0
        }
    }

    /// Bytes beyond those, for CLIENT LIST's `omem` and for the output limits. A reply that fits
    /// the fixed buffer is never over a limit; what is beyond counts in whole buffers, as Redis
    /// allocates it.
    pub fn queued_memory(&self) -> usize {
        let beyond = self.queued + self.buf.len() - self.fixed_len();
        beyond.div_ceil(CHUNK) * CHUNK_MEMORY
    }

    /// Bytes reserved for the tail buffer, for CLIENT LIST's `rbs`.
    pub fn tail_capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Heap bytes held, shared values counted in full.
    pub fn memory(&self) -> usize {
        self.queued + self.buf.capacity() + self.nodes.len() * size_of::<Node>()
    }

    /// The reply grew over the hard limit. What is written from then on is dropped, so that a huge
    /// reply can't take more memory than the limit allows; the client is closed at the end of its
    /// turn. Commands with very long replies look here and stop.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Append bytes that are protocol already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.buf.capacity() - self.buf.len() < bytes.len() {
            self.make_room(bytes.len());
        }
        self.buf.extend_from_slice(bytes);
    }

    #[cold]
    fn make_room(&mut self, more: usize) {
        if self.overflowed || self.limit != 0 && self.queued + self.buf.len() > self.limit {
            // What follows has nowhere to go, and the pieces that wait are not going to be sent
            // either.
            self.overflowed = true;
            self.nodes.clear();
            self.buf.clear();
            (self.queued, self.sent) = (0, 0);
        }
        if self.buf.len() >= SEAL_MIN {
            self.seal();
            self.buf.reserve(more.max(SEAL_MIN));
        } else {
            self.buf.reserve(more.max(256));
        }
    }

    fn seal(&mut self) {
        if !self.buf.is_empty() {
            self.queued += self.buf.len();
            self.nodes
                .push_back(Node::Owned(std::mem::take(&mut self.buf)));
        }
    }

    /// `+OK`
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// `+text`, a status of fixed text.
    pub fn status(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `-text`; characters that would end the line become spaces.
    pub fn error(&mut self, error: &Error) {
        self.raw(b"-");
        self.buf.extend(error.bytes());
        self.raw(b"\r\n");
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.raw(&[kind]);
        self.raw(text);
        self.raw(b"\r\n");
    }

    #[inline]
    fn header(&mut self, kind: u8, n: i64) {
        match n {
            0..10 => self.raw(&[kind, b'0' + n as u8, b'\r', b'\n']),
            10..100 => {
                let (tens, ones) = (b'0' + (n / 10) as u8, b'0' + (n % 10) as u8);
                self.raw(&[kind, tens, ones, b'\r', b'\n']);
            }
            _ => self.line(kind, IntBuf::new().format(n)),
        }
    }

    /// `:n`
    #[inline]
    pub fn integer(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// `$len` and the bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.buf.capacity() - self.buf.len() < bytes.len() + 32 {
            self.make_room(bytes.len() + 32);
        }
        bulk::push_bulk(&mut self.buf, b'$', bytes);
    }

    /// A bulk string that is a number.
    pub fn bulk_integer(&mut self, n: i64) {
        let mut digits = IntBuf::new();
        self.bulk(digits.format(n));
    }

    /// A bulk string of at least [`ZERO_COPY_MIN`] bytes, sent from where it lies.
    pub fn bulk_shared(&mut self, value: Arc<Vec<u8>>) {
        if self.overflowed {
            return;
        }
        self.header(b'$', value.len() as i64);
        self.seal();
        self.queued += value.len();
        self.nodes.push_back(Node::Shared(value));
        self.raw(b"\r\n");
    }

    /// Protocol bytes that other clients get too: encoded once, sent to all.
    pub fn raw_shared(&mut self, message: &Arc<Vec<u8>>) {
        if message.len() < 512 || self.overflowed {
            return self.raw(message);
        }
        self.seal();
        self.queued += message.len();
        self.nodes.push_back(Node::Shared(message.clone()));
    }

    /// No value: `$-1`, in RESP3 `_`.
    #[inline]
    pub fn null(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array: `*-1`, in RESP3 `_`.
    pub fn null_array(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// `len` elements of one or two parts: a pair is an array in RESP3, in RESP2 its parts stand in
    /// a row.
    pub fn elements(&mut self, len: usize, pairs: bool) {
        self.array(if pairs && !self.resp3 { 2 * len } else { len });
    }

    /// A map of `len` pairs; in RESP2 a flat array of twice as many.
    pub fn map(&mut self, len: usize) {
        if self.resp3 {
            self.header(b'%', len as i64)
        } else {
            self.header(b'*', 2 * len as i64)
        }
    }

    pub fn set(&mut self, len: usize) {
        self.header(if self.resp3 { b'~' } else { b'*' }, len as i64);
    }

    /// Out-of-band data; in RESP2 an array.
    pub fn push(&mut self, len: usize) {
        self.header(if self.resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// Attributes exist in RESP3 only; the caller checks `resp3`.
    pub fn attribute(&mut self, len: usize) {
        self.header(b'|', len as i64);
    }

    /// `#t` or `#f`; in RESP2 `:1` or `:0`.
    pub fn boolean(&mut self, yes: bool) {
        match (self.resp3, yes) {
            (true, true) => self.raw(b"#t\r\n"),
            (true, false) => self.raw(b"#f\r\n"),
            (false, _) => self.integer(yes as i64),
        }
    }

    /// `,1.5`; in RESP2 a bulk string.
    #[inline]
    pub fn double(&mut self, value: f64) {
        match double_to_i64(value) {
            Some(n) if n != 0 => self.double_text(IntBuf::new().format(n)),
            _ => self.double_text(DoubleBuf::new().format(value)),
        }
    }

    /// A double given as its text.
    #[inline]
    pub fn double_text(&mut self, text: &[u8]) {
        if self.resp3 {
            self.line(b',', text)
        } else {
            self.bulk(text)
        }
    }

    /// A number of any size, given as its digits.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.resp3 {
            self.line(b'(', digits)
        } else {
            self.bulk(digits)
        }
    }

    /// Text with a three-letter format; in RESP2 a bulk string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.resp3 {
            return self.bulk(text);
        }
        self.header(b'=', text.len() as i64 + 4);
        self.raw(format.as_bytes());
        self.raw(b":");
        self.raw(text);
        self.raw(b"\r\n");
    }

    /// An array of fixed statuses: HELP texts.
    pub fn help(&mut self, lines: &[&str]) {
        self.array(lines.len());
        lines.iter().for_each(|line| self.status(line));
    }

    /// Begin an aggregate whose length is known only at its end.
    pub fn begin_deferred(&mut self) -> Deferred {
        Deferred {
            nodes: self.nodes.len(),
            offset: self.buf.len(),
        }
    }

    pub fn end_array(&mut self, at: Deferred, len: usize) {
        self.end_deferred(at, b'*', len);
    }

    pub fn end_set(&mut self, at: Deferred, len: usize) {
        self.end_deferred(at, if self.resp3 { b'~' } else { b'*' }, len);
    }

    pub fn end_map(&mut self, at: Deferred, len: usize) {
        let (kind, n) = if self.resp3 {
            (b'%', len)
        } else {
            (b'*', 2 * len)
        };
        self.end_deferred(at, kind, n);
    }

    /// Put the header where the aggregate began: moves what came after it, at most one buffer's
    /// worth.
    fn end_deferred(&mut self, at: Deferred, kind: u8, n: usize) {
        if self.overflowed {
            return;
        }
        let mut digits = IntBuf::new();
        let mut header = vec![kind];
        header.extend_from_slice(digits.format(n as i64));
        header.extend_from_slice(b"\r\n");
        let target = match self.nodes.get_mut(at.nodes) {
            None => &mut self.buf,
            Some(Node::Owned(bytes)) => {
                self.queued += header.len();
                bytes
            }
            Some(Node::Shared(_)) => {
                // The aggregate began with an empty tail and a shared value: the header is a node
                // itself.
                self.queued += header.len();
                return self.nodes.insert(at.nodes, Node::Owned(header));
            }
        };
        target.splice(at.offset..at.offset, header);
    }

    /// Remember this point; [`ReplyBuf::truncate`] forgets all that was written since.
    pub fn mark(&self) -> Mark {
        Mark {
            nodes: self.nodes.len(),
            offset: self.buf.len(),
            queued: self.queued,
        }
    }

    /// Bytes written since `mark`.
    #[inline]
    pub fn bytes_since(&self, mark: Mark) -> u64 {
        (self.queued + self.buf.len()).wrapping_sub(mark.queued + mark.offset) as u64
    }

    /// CLIENT REPLY OFF, and clients that are nobody: drop what was written after `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        if self.nodes.len() > mark.nodes {
            let first = self.nodes.drain(mark.nodes..).next();
            self.buf = match first {
                Some(Node::Owned(bytes)) => bytes,
                _ => Vec::new(),
            };
            self.queued = mark.queued;
        }
        self.buf.truncate(mark.offset);
    }

    /// A copy of what was written after `mark`, of a reply that goes to no socket.
    pub fn bytes_from(&self, mark: Mark) -> Vec<u8> {
        let skip: usize = self
            .nodes
            .iter()
            .take(mark.nodes)
            .map(|n| n.bytes().len())
            .sum();
        let pieces = self.nodes.iter().map(Node::bytes);
        let all: Vec<u8> = pieces
            .chain([self.buf.as_slice()])
            .flatten()
            .copied()
            .collect();
        all[(skip + mark.offset).min(all.len())..].to_vec()
    }

    /// Take the whole reply as one string: for callers that read it instead of a socket.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        if self.nodes.is_empty() && self.sent == 0 {
            return std::mem::take(&mut self.buf);
        }
        self.seal();
        let mut all = Vec::with_capacity(self.bytes());
        for node in self.nodes.drain(..) {
            all.extend_from_slice(node.bytes());
        }
        all.drain(..self.sent);
        (self.sent, self.queued) = (0, 0);
        all
    }

    /// Move all that `other` holds behind what this one holds.
    pub fn append(&mut self, other: &mut ReplyBuf) {
        if other.nodes.is_empty() {
            self.raw(&other.buf);
            other.buf.clear();
            return;
        }
        self.seal();
        self.queued += other.queued;
        self.nodes.append(&mut other.nodes);
        other.queued = 0;
        self.raw(&other.buf);
        other.buf.clear();
    }

    /// The single piece of a reply that has no nodes, or nothing.
    pub fn single_piece(&self) -> Option<&[u8]> {
        self.nodes.is_empty().then(|| &self.buf[self.sent..])
    }

    /// The pieces to send, in order, for one `writev`. Returns how many of `out` were set.
    pub fn io_slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let pieces = self
            .nodes
            .iter()
            .map(Node::bytes)
            .chain([self.buf.as_slice()]);
        let mut skip = self.sent;
        let mut n = 0;
        for piece in pieces.filter(|p| !p.is_empty()).take(out.len()) {
            out[n] = IoSlice::new(&piece[skip..]);
            skip = 0;
            n += 1;
        }
        n
    }

    /// The socket took `n` bytes.
    pub fn advance(&mut self, n: usize) {
        self.sent += n;
        while let Some(first) = self.nodes.front() {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            self.queued -= len;
            self.nodes.pop_front();
        }
        if self.sent >= self.buf.len() {
            self.sent = 0;
            self.buf.clear();
            if self.buf.capacity() > KEEP_MAX {
                self.buf = Vec::new();
            }
        }
    }

    /// The socket is full: what is left becomes a node, so that it is freed piece by piece as it
    /// goes.
    pub fn seal_unsent(&mut self) {
        self.seal();
    }

    /// Lend a warmed-up buffer to an empty reply; see `networking::write`.
    pub fn lend(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.buf.capacity() == 0
            && let Some(buf) = spare.pop()
        {
            self.buf = buf;
        }
    }

    /// Give the empty buffer back, so that an idle client holds none.
    pub fn give_back(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.is_empty() && self.buf.capacity() > 0 {
            let buf = std::mem::take(&mut self.buf);
            if spare.len() < 64 && buf.capacity() <= KEEP_MAX {
                spare.push(buf);
            }
        }
    }

    /// Forget everything: the client is going away.
    pub fn clear(&mut self) {
        *self = ReplyBuf {
            resp3: self.resp3,
            limit: self.limit,
            ..ReplyBuf::default()
        };
    }
}
