//! The reply buffer: the bytes to be sent to a client, in its protocol version.
//!
//! Commands write their reply straight into the client's buffer `buf`. A string of 16 KB or more is
//! not copied: `buf` becomes an entry of the list `nodes`, and the value follows as an entry by
//! reference, so a reply is
//!
//! ```text
//!   nodes:  [ bytes ][ shared value ][ bytes ] ...   then   buf: the tail that commands append to
//!             ^ sent: how much of the first piece the socket has taken
//! ```
//!
//! **Invariant:** `bytes()` is the number of unsent bytes, and `sent` is below the length of the
//! first node, or of `buf` without nodes. Commands name the type of a reply (`null`, `map`,
//! `double`), and the reply buffer encodes it for RESP2 or RESP3.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ds::bulk;
use crate::error::Error;
use crate::sys::ticks;
use crate::util::number::{DoubleBuf, IntBuf, double_to_i64};

/// The smallest length in bytes of a value that is sent by reference, without a copy.
pub const ZERO_COPY_MIN: usize = 16 * 1024;
/// The length in bytes at which the buffer `buf` becomes a node, instead of growing.
const SEAL_MIN: usize = 64 * 1024;
/// The length in bytes at which the buffer `buf` becomes a node when the socket is full.
const SEAL_UNSENT_MIN: usize = 16 * 1024;
/// The capacity, in nodes, of a reply's list of nodes that is kept when all nodes have been sent.
const KEEP_NODES: usize = 64;
/// The largest capacity in bytes of an empty reply buffer that is kept.
const KEEP_MAX: usize = 16 * 1024;
/// The number of elements from which an array, a set or a map is long: its building is a step of
/// its own in the trace.
const LONG: usize = 32;

/// Whether TRACE is on, so that the time at which a long aggregate begins is noted.
static TRACED: AtomicBool = AtomicBool::new(false);

/// Sets whether the time at which a long aggregate begins is noted, for the trace.
pub fn set_traced(on: bool) {
    TRACED.store(on, Ordering::Relaxed);
}

/// The size of the buffer that each client has in Redis; replies that fit into it count for no
/// limit.
const FIXED: usize = 16 * 1024;
/// The size of the chunks in which Redis allocates the reply bytes beyond the fixed buffer: 16 KB
/// and a header, rounded up to jemalloc's next size class.
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

/// The position of the header of an aggregate whose length is not known yet.
#[must_use]
pub struct Deferred {
    nodes: usize,
    offset: usize,
}

/// A position in the unsent replies, to which [`ReplyBuf::truncate`] can return.
#[derive(Clone, Copy)]
pub struct Mark {
    nodes: usize,
    offset: usize,
    queued: usize,
}

/// The replies to one client that have not been sent.
#[derive(Default)]
pub struct ReplyBuf {
    /// Whether the client has chosen RESP3 by HELLO 3.
    pub resp3: bool,
    buf: Vec<u8>,
    nodes: VecDeque<Node>,
    sent: usize,
    /// The number of bytes in `nodes`.
    queued: usize,
    /// The hard output limit in bytes, 0 for none; see [`ReplyBuf::overflowed`].
    pub limit: usize,
    overflowed: bool,
    /// The time in ticks at which the latest long aggregate began; 0 if none was noted.
    build_began: u64,
}

impl ReplyBuf {
    /// An empty reply buffer.
    pub fn new(resp3: bool) -> ReplyBuf {
        ReplyBuf {
            resp3,
            ..ReplyBuf::default()
        }
    }

    /// The number of reply bytes that have not been sent.
    pub fn bytes(&self) -> usize {
        self.queued + self.buf.len() - self.sent
    }

    /// Whether there are no unsent reply bytes.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.nodes.is_empty()
    }

    /// The number of nodes of the reply, for `oll` of CLIENT LIST.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The reply bytes that would fit into Redis's fixed buffer, for `obl` of CLIENT LIST.
    pub fn fixed_len(&self) -> usize {
        if self.nodes.is_empty() {
            self.buf.len().min(FIXED)
        } else {
            0
        }
    }

    /// The bytes beyond [`ReplyBuf::fixed_len`], for CLIENT LIST's `omem` and for the output
    /// limits. A reply that fits the fixed buffer is never over a limit; the bytes beyond it count
    /// in whole chunks, as Redis allocates them.
    pub fn queued_memory(&self) -> usize {
        let beyond = self.queued + self.buf.len() - self.fixed_len();
        beyond.div_ceil(CHUNK) * CHUNK_MEMORY
    }

    /// Whether [`ReplyBuf::queued_memory`] is 0, and no limit was exceeded.
    #[inline]
    pub fn is_below_limits(&self) -> bool {
        self.nodes.is_empty() && self.buf.len() <= FIXED && !self.overflowed
    }

    /// The heap bytes of the unsent replies, with shared values counted in full.
    pub fn memory(&self) -> usize {
        self.queued + self.buf.capacity() + self.nodes.len() * size_of::<Node>()
    }

    /// Whether the reply exceeded the hard limit. The bytes written after the hard limit was
    /// exceeded are dropped, so that a huge reply can't use more memory than the limit allows; the
    /// client is closed at the end of its turn. Commands with very long replies check `overflowed`
    /// and stop.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Appends bytes that are encoded already.
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
            // No more bytes are stored, and the unsent nodes are dropped, as the client is going to
            // be closed.
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

    /// The status reply `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status reply, `+text`.
    pub fn status(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `-text`, an error reply; line breaks in the text become spaces.
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

    /// `:n`, an integer reply.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// A bulk string: `$len` and the bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.buf.capacity() - self.buf.len() < bytes.len() + 32 {
            self.make_room(bytes.len() + 32);
        }
        bulk::push_bulk(&mut self.buf, b'$', bytes);
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, n: i64) {
        let mut digits = IntBuf::new();
        self.bulk(digits.format(n));
    }

    /// A bulk string of at least [`ZERO_COPY_MIN`] bytes, sent without a copy.
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

    /// Appends a message that other clients get too: encoded once, and shared by all of them.
    pub fn raw_shared(&mut self, message: &Arc<Vec<u8>>) {
        if message.len() < 512 || self.overflowed {
            return self.raw(message);
        }
        self.seal();
        self.queued += message.len();
        self.nodes.push_back(Node::Shared(message.clone()));
    }

    /// A null reply: `$-1`, in RESP3 `_`.
    #[inline]
    pub fn null(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The null of a reply that is otherwise an array: `*-1`, in RESP3 `_`.
    pub fn null_array(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The header of an array: `len` elements follow.
    pub fn array(&mut self, len: usize) {
        self.aggregate(b'*', len);
    }

    /// The header of an array of `len` elements, each of one or two parts: in RESP3 a pair is an
    /// array, in RESP2 its two parts are elements of the outer array.
    pub fn elements(&mut self, len: usize, pairs: bool) {
        self.array(if pairs && !self.resp3 { 2 * len } else { len });
    }

    /// The header of a map of `len` pairs; in RESP2 an array of twice that length.
    pub fn map(&mut self, len: usize) {
        if self.resp3 {
            self.aggregate(b'%', len)
        } else {
            self.aggregate(b'*', 2 * len)
        }
    }

    /// The header of a set of `len` elements; in RESP2 of an array.
    pub fn set(&mut self, len: usize) {
        self.aggregate(if self.resp3 { b'~' } else { b'*' }, len);
    }

    fn aggregate(&mut self, kind: u8, len: usize) {
        if len >= LONG {
            self.note_build();
        }
        self.header(kind, len as i64);
    }

    /// Notes, for the trace, that a long aggregate or one of unknown length begins. An aggregate
    /// within a noted aggregate is a part of it.
    #[inline(never)]
    fn note_build(&mut self) {
        if TRACED.load(Ordering::Relaxed) && self.build_began == 0 {
            self.build_began = ticks::now();
        }
    }

    /// Takes the time in ticks at which a long aggregate began; 0 if none began since the last
    /// call.
    #[inline]
    pub fn take_build(&mut self) -> u64 {
        std::mem::take(&mut self.build_began)
    }

    /// The header of a push message of `len` elements; in RESP2 of an array.
    pub fn push(&mut self, len: usize) {
        self.header(if self.resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// The header of attributes, which exist in RESP3 only; the caller checks `resp3`.
    pub fn attribute(&mut self, len: usize) {
        self.header(b'|', len as i64);
    }

    /// A boolean: `#t` or `#f`; in RESP2 `:1` or `:0`.
    pub fn boolean(&mut self, yes: bool) {
        match (self.resp3, yes) {
            (true, true) => self.raw(b"#t\r\n"),
            (true, false) => self.raw(b"#f\r\n"),
            (false, _) => self.integer(yes as i64),
        }
    }

    /// A double such as `,1.5`; in RESP2 a bulk string.
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

    /// An integer of any size, given as its digits.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.resp3 {
            self.line(b'(', digits)
        } else {
            self.bulk(digits)
        }
    }

    /// A verbatim string: a text with a three-letter format; in RESP2 a bulk string.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        if !self.resp3 {
            return self.bulk(text);
        }
        self.header(b'=', text.len() as i64 + 4);
        self.raw(format);
        self.raw(b":");
        self.raw(text);
        self.raw(b"\r\n");
    }

    /// An array of statuses: the text of HELP subcommands.
    pub fn help(&mut self, lines: &[&str]) {
        self.array(lines.len());
        lines.iter().for_each(|line| self.status(line));
    }

    /// Begins an aggregate whose length is known only at its end.
    pub fn begin_deferred(&mut self) -> Deferred {
        self.note_build();
        Deferred {
            nodes: self.nodes.len(),
            offset: self.buf.len(),
        }
    }

    /// Ends a deferred aggregate as an array of `len` elements.
    pub fn end_array(&mut self, at: Deferred, len: usize) {
        self.end_deferred(at, b'*', len);
    }

    /// Ends a deferred aggregate as a set of `len` elements.
    pub fn end_set(&mut self, at: Deferred, len: usize) {
        self.end_deferred(at, if self.resp3 { b'~' } else { b'*' }, len);
    }

    /// Ends a deferred aggregate as a map of `len` pairs.
    pub fn end_map(&mut self, at: Deferred, len: usize) {
        let (kind, n) = if self.resp3 {
            (b'%', len)
        } else {
            (b'*', 2 * len)
        };
        self.end_deferred(at, kind, n);
    }

    /// Inserts the header where the aggregate began, which moves the bytes that follow in the same
    /// buffer.
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
                // The aggregate began in an empty buffer and a shared value followed, so its header
                // becomes a node.
                self.queued += header.len();
                return self.nodes.insert(at.nodes, Node::Owned(header));
            }
        };
        target.splice(at.offset..at.offset, header);
    }

    /// The present end of the reply; [`ReplyBuf::truncate`] removes the bytes written after it.
    pub fn mark(&self) -> Mark {
        Mark {
            nodes: self.nodes.len(),
            offset: self.buf.len(),
            queued: self.queued,
        }
    }

    /// The number of reply bytes written since `mark`.
    #[inline]
    pub fn bytes_since(&self, mark: Mark) -> u64 {
        (self.queued + self.buf.len()).wrapping_sub(mark.queued + mark.offset) as u64
    }

    /// Removes the reply bytes written after `mark`, for CLIENT REPLY OFF and clients without a
    /// connection.
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

    /// A copy of the reply bytes written after `mark`, for a reply that goes to no socket.
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

    /// Takes the whole reply as one string, for callers that use the reply instead of sending it.
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

    /// Moves the reply bytes of `other` to the end of this buffer.
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

    /// The unsent bytes, if all of them are in `buf`; `None` if there are nodes.
    pub fn single_piece(&self) -> Option<&[u8]> {
        self.nodes.is_empty().then(|| &self.buf[self.sent..])
    }

    /// Fills `out` with the unsent bytes in order, for one `writev` of up to `limit` bytes. Returns
    /// the number of elements of `out` that were set.
    pub fn io_slices<'a>(&'a self, limit: usize, out: &mut [IoSlice<'a>]) -> usize {
        let pieces = self
            .nodes
            .iter()
            .map(Node::bytes)
            .chain([self.buf.as_slice()]);
        let (mut skip, mut left) = (self.sent, limit);
        let mut n = 0;
        for piece in pieces.filter(|p| !p.is_empty()).take(out.len()) {
            if left == 0 {
                break;
            }
            let piece = &piece[skip..];
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            out[n] = IoSlice::new(piece);
            skip = 0;
            n += 1;
        }
        n
    }

    /// Removes the first `n` unsent bytes, which the socket has accepted.
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
            if self.nodes.is_empty() {
                self.nodes.shrink_to(KEEP_NODES);
            }
        }
        if self.sent >= self.buf.len() {
            self.sent = 0;
            self.buf.clear();
            if self.buf.capacity() > KEEP_MAX {
                self.buf = Vec::new();
            }
        }
    }

    /// Called when the socket is full. Many unsent bytes in `buf` become a node, so that memory is
    /// freed node by node as the nodes are sent. A few bytes stay in the buffer: a client that
    /// sends a request in each turn and does not read would otherwise have a node for each reply.
    pub fn seal_unsent(&mut self) {
        if self.buf.len() >= SEAL_UNSENT_MIN {
            self.seal();
        }
    }

    /// Gives a reply without memory one of the server's spare buffers, see `networking::write`.
    pub fn lend(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.buf.capacity() == 0
            && let Some(buf) = spare.pop()
        {
            self.buf = buf;
        }
    }

    /// Takes the buffer of an empty reply back into `spare`, so that an idle client holds no
    /// buffer.
    pub fn give_back(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.is_empty() && self.buf.capacity() > 0 {
            let buf = std::mem::take(&mut self.buf);
            if spare.len() < 64 && buf.capacity() <= KEEP_MAX {
                spare.push(buf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket stays full, and each turn adds a short reply.
    #[test]
    fn many_short_replies_that_are_not_read_are_few_nodes() {
        let mut reply = ReplyBuf::new(false);
        for _ in 0..100_000 {
            reply.ok();
            reply.seal_unsent();
        }
        assert_eq!(reply.bytes(), 500_000);
        assert!(reply.node_count() <= 500_000 / SEAL_UNSENT_MIN);
        assert!(reply.memory() < 700_000, "{}", reply.memory());
        // Sent in pieces of 7,001 bytes, the replies are complete and in order.
        let mut all = Vec::new();
        while !reply.is_empty() {
            let mut pieces = [IoSlice::new(&[]); 8];
            let n = reply.io_slices(7001, &mut pieces);
            let sent: usize = pieces[..n].iter().map(|piece| piece.len()).sum();
            assert!(n > 0 && sent <= 7001);
            pieces[..n]
                .iter()
                .for_each(|piece| all.extend_from_slice(piece));
            reply.advance(sent);
        }
        assert!(all == b"+OK\r\n".repeat(100_000));
    }

    #[test]
    fn the_room_of_sent_nodes_is_given_back() {
        let mut reply = ReplyBuf::new(false);
        let value = Arc::new(vec![b'v'; ZERO_COPY_MIN]);
        for _ in 0..10_000 {
            reply.bulk_shared(value.clone());
        }
        reply.advance(reply.bytes());
        assert!(reply.is_empty());
        assert!(reply.nodes.capacity() <= 2 * KEEP_NODES);
    }
}
