//! The replication stream: the bytes that replicas are sent, held once for all of them.
//!
//! **Problem.** Each replica reads the same bytes at its own pace, may leave and come back to go on
//! where it stopped, and must cost nothing for each command. So what was executed is appended once
//! to a queue of blocks, and a replica is a cursor in it. The bytes behind the slowest cursor are
//! the backlog, from which a returning replica continues.
//!
//! ```text
//!   first_offset                                                     end
//!        |  block, 16..64 KB                                          |
//!        v [ bytes of any commands ] [ ............. ] [ ......       ]
//!          readers: 0                readers: 1        readers: 2     ^ append: a test and a copy
//!                                      ^ cursor A        ^ B   ^ C
//!          |<-- dropped when no cursor is in it and `backlog_size` bytes stay -->|
//! ```
//!
//! An offset counts the bytes of the whole history before a byte: byte number n of Redis's
//! protocol, which counts from 1, has offset n - 1. A block never moves and is never changed but at
//! its end, so `writev` sends it from where it is. A command may be split between two blocks.
//!
//! **Costs.** Append: one comparison and one `memcpy`; every 16..64 KB an allocation. A cursor:
//! nothing until it is read; attaching is a binary search, reading and moving on are O(1) for each
//! block. Trimming frees at most [`TRIM_MAX`] blocks in one call, so a replica that leaves with
//! gigabytes unread does not stop the loop.
//!
//! **Invariant:** blocks follow each other without gap, only the last one may be empty, and the
//! last one ends at `end`.
//! **Invariant:** `readers` of all blocks add up to the attached cursors, and `memory` is what the
//! blocks hold. Both are counted again in builds with debug assertions whenever a block is added or
//! dropped (`check`).
//!
//! **Rejected.** A ring buffer of `backlog_size` bytes: a replica that falls behind it must be
//! copied out for. A count of references in each block (`Arc`, `Rc`): there is one owner, and a
//! cursor that was lost by a restart of the stream would keep its blocks for ever. An index tree
//! over offsets, as Redis has: block starts are sorted already. One allocation for each command: 60
//! bytes of header for 60 bytes. Sharing the AOF's buffer: see `propagate`.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::sink;
use super::unit::{Output, Unit, select};

/// The size of a block is a sixteenth of the backlog, within these bounds.
const BLOCK_MIN: u64 = 16 << 10;
const BLOCK_MAX: u64 = 64 << 10;
/// Blocks that one call of [`Stream::trim`] frees at most.
const TRIM_MAX: usize = 64;
/// Offsets are sent as signed numbers. A stream that begins at or below this one can't reach their
/// end.
pub const START_MAX: u64 = 1 << 62;

struct Block {
    /// The offset of the first byte.
    start: u64,
    /// Never grows beyond the capacity that it was made with.
    bytes: Vec<u8>,
    /// Cursors that stand in this block.
    readers: u32,
}

impl Block {
    fn new(start: u64, size: usize) -> Block {
        Block {
            start,
            bytes: Vec::with_capacity(size),
            readers: 0,
        }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Block>()
    }
}

/// A place in the stream that keeps what follows from being dropped. It is given back with
/// [`Stream::detach`]: a cursor that is only dropped leaves its block counted as read.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Cursor {
    offset: u64,
    /// The number of its block, counted from the first block ever.
    block: u64,
}

impl Cursor {
    /// The offset of the next byte to read.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A cursor without a client, which waits for the client that is going to use it.
struct Pin {
    id: u64,
    cursor: Cursor,
    until_ms: i64,
}

#[derive(Default)]
pub struct Stream {
    /// Empty: the stream is closed, and what is appended is not held.
    blocks: VecDeque<Block>,
    /// The number of the first block.
    first_block: u64,
    /// The offset behind the last byte.
    end: u64,
    /// The database of the last command; `None`: the next command is preceded by SELECT.
    selected_db: Option<u32>,
    backlog_size: u64,
    /// Cursors don't get bytes from this offset on, see `propagate::gate`.
    send_until: Option<u64>,
    /// Bytes that the blocks hold, their unused room included.
    memory: usize,
    /// Attached cursors, those of pins included.
    cursors: usize,
    pins: Vec<Pin>,
}

/// The offset at which a stream should begin is larger than [`START_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub struct OffsetTooLarge;

/// What is held, and for which purpose.
impl Stream {
    pub fn is_open(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Hold what is appended from now on, at least `backlog_size` bytes of it.
    pub fn open(&mut self, backlog_size: u64) {
        self.backlog_size = backlog_size;
        if !self.is_open() {
            self.selected_db = None;
            self.push_block();
        }
    }

    /// Hold nothing. The offset stays; cursors and pins are lost.
    pub fn close(&mut self) {
        self.first_block += self.blocks.len() as u64;
        self.blocks.clear();
        self.pins.clear();
        (self.memory, self.cursors) = (0, 0);
    }

    /// Go on at another offset, with nothing held before it: another history begins, or this one
    /// jumps. Cursors and pins are lost.
    pub fn restart_at(&mut self, offset: u64) -> Result<(), OffsetTooLarge> {
        if offset > START_MAX {
            return Err(OffsetTooLarge);
        }
        let open = self.is_open();
        self.close();
        self.end = offset;
        if open {
            self.open(self.backlog_size);
        }
        Ok(())
    }

    /// The number of bytes of the whole history: `master_repl_offset`.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The offset of the first byte that is held.
    fn first_offset(&self) -> u64 {
        self.blocks.front().map_or(self.end, |first| first.start)
    }

    /// The number of the first byte that is held, counted from 1 as in INFO and PSYNC; 0 if the
    /// stream is closed.
    pub fn first_byte_offset(&self) -> u64 {
        self.blocks.front().map_or(0, |first| first.start + 1)
    }

    /// Bytes that are held: INFO's `repl_backlog_histlen`. More than the backlog's size while a
    /// slow cursor needs them.
    pub fn histlen(&self) -> u64 {
        self.end - self.first_offset()
    }

    pub fn backlog_size(&self) -> u64 {
        self.backlog_size
    }

    /// Another size. A smaller one takes effect with the next calls of [`Stream::trim`].
    pub fn set_backlog_size(&mut self, size: u64) {
        self.backlog_size = size;
    }

    /// Memory of all blocks: INFO's `mem_total_replication_buffers`.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The part of it that only slow replicas need: INFO's `mem_clients_slaves`.
    pub fn memory_for_replicas(&self) -> usize {
        let backlog = usize::try_from(self.backlog_size).unwrap_or(usize::MAX);
        match self.cursors {
            0 => 0,
            _ => self.memory.saturating_sub(backlog),
        }
    }

    /// The rest: INFO's `mem_replication_backlog`.
    pub fn memory_for_backlog(&self) -> usize {
        self.memory - self.memory_for_replicas()
    }

    /// Free blocks that neither a cursor nor the backlog needs, at most [`TRIM_MAX`]. Whether there
    /// are more.
    pub fn trim(&mut self) -> bool {
        for _ in 0..TRIM_MAX {
            if !self.first_is_unneeded() {
                return false;
            }
            if let Some(first) = self.blocks.pop_front() {
                self.first_block += 1;
                self.memory -= first.memory();
            }
        }
        self.check();
        self.first_is_unneeded()
    }

    fn first_is_unneeded(&self) -> bool {
        self.blocks.len() > 1
            && self.blocks[0].readers == 0
            && self.end - self.blocks[0].end() >= self.backlog_size
    }

    fn push_block(&mut self) {
        let size = (self.backlog_size / 16).clamp(BLOCK_MIN, BLOCK_MAX);
        let block = Block::new(self.end, size as usize);
        self.memory += block.memory();
        self.blocks.push_back(block);
    }

    /// The invariants.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut at = self.first_offset();
        for (i, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.start, at, "blocks follow each other");
            assert!(
                i == 0 || !block.bytes.is_empty(),
                "only the first may be empty"
            );
            at = block.end();
        }
        assert_eq!(at, self.end, "the last block ends where the stream does");
        let readers: usize = self.blocks.iter().map(|block| block.readers as usize).sum();
        assert_eq!(readers, self.cursors, "readers are the attached cursors");
        let held: usize = self.blocks.iter().map(Block::memory).sum();
        assert_eq!(held, self.memory, "memory is what the blocks hold");
    }
}

/// Appending.
impl Stream {
    /// Append bytes as they are: a part of a command, or what a primary sent.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) {
        match self.blocks.back_mut() {
            Some(tail) if tail.room() >= bytes.len() => {
                tail.bytes.extend_from_slice(bytes);
                self.end += bytes.len() as u64;
            }
            _ => self.append_to_new_blocks(bytes),
        }
    }

    #[cold]
    #[inline(never)]
    fn append_to_new_blocks(&mut self, mut bytes: &[u8]) {
        while self.is_open() && !bytes.is_empty() {
            if let Some(tail) = self.blocks.back_mut() {
                let (fits, rest) = bytes.split_at(tail.room().min(bytes.len()));
                tail.bytes.extend_from_slice(fits);
                self.end += fits.len() as u64;
                bytes = rest;
            }
            if !bytes.is_empty() {
                self.push_block();
            }
        }
        self.trim();
        self.check();
    }

    /// Append one command for a database.
    #[inline]
    pub fn command(&mut self, db: u32, bytes: &[u8]) {
        if self.selected_db != Some(db) {
            self.selected_db = Some(db);
            select(self, db);
        }
        self.append(bytes);
    }

    /// Append the commands of a unit that are for replicas.
    pub fn unit(&mut self, unit: &Unit, atomic: bool) {
        let mut selected_db = self.selected_db;
        unit.encode(sink::REPLICAS, atomic, &mut selected_db, self);
        self.selected_db = selected_db;
    }

    /// The next command says its database: its reader has not read what was fed before.
    pub fn forget_db(&mut self) {
        self.selected_db = None;
    }

    /// The database that a reader of everything so far has selected.
    pub fn selected_db(&self) -> Option<u32> {
        self.selected_db
    }
}

impl Output for Stream {
    fn put(&mut self, bytes: &[u8]) {
        self.append(bytes);
    }
}

/// Reading.
impl Stream {
    /// A cursor at this offset, if what follows it is held.
    pub fn attach(&mut self, offset: u64) -> Option<Cursor> {
        if !self.is_open() || offset < self.first_offset() || offset > self.end {
            return None;
        }
        let at = self.blocks.partition_point(|block| block.start <= offset) - 1;
        self.blocks[at].readers += 1;
        self.cursors += 1;
        Some(Cursor {
            offset,
            block: self.first_block + at as u64,
        })
    }

    /// Give a cursor back. What only it needed goes with the next calls of [`Stream::trim`].
    pub fn detach(&mut self, cursor: Cursor) {
        if let Some(at) = self.index(&cursor) {
            self.blocks[at].readers -= 1;
            self.cursors -= 1;
        }
    }

    /// The stream was closed or restarted since the cursor was attached: there is nothing to read
    /// any more.
    pub fn is_lost(&self, cursor: &Cursor) -> bool {
        self.index(cursor).is_none()
    }

    fn index(&self, cursor: &Cursor) -> Option<usize> {
        let at = cursor.block.checked_sub(self.first_block)?;
        let at = usize::try_from(at).ok()?;
        (at < self.blocks.len()).then_some(at)
    }

    /// Bytes between a cursor and the end: what the output limits of replicas count.
    pub fn lag(&self, cursor: &Cursor) -> u64 {
        self.end.saturating_sub(cursor.offset)
    }

    /// Cursors get no bytes from this offset on, or all that there are.
    pub fn send_until(&mut self, offset: Option<u64>) {
        self.send_until = offset;
    }

    /// Bytes that may be sent to a cursor now.
    pub fn sendable(&self, cursor: &Cursor) -> u64 {
        let limit = self.send_until.unwrap_or(self.end).min(self.end);
        limit.saturating_sub(cursor.offset)
    }

    /// What follows a cursor, at most `limit` bytes and `out.len()` pieces, straight from the
    /// blocks. Returns how many of `out` were set.
    pub fn io_slices<'a>(
        &'a self,
        cursor: &Cursor,
        mut limit: usize,
        out: &mut [IoSlice<'a>],
    ) -> usize {
        let Some(at) = self.index(cursor) else {
            return 0;
        };
        if self.send_until.is_some() {
            limit = limit.min(usize::try_from(self.sendable(cursor)).unwrap_or(limit));
        }
        let mut skip = (cursor.offset - self.blocks[at].start) as usize;
        let mut n = 0;
        for block in self.blocks.range(at..) {
            let rest = &block.bytes[skip..];
            skip = 0;
            if n == out.len() || limit == 0 {
                break;
            }
            if !rest.is_empty() {
                let piece = &rest[..rest.len().min(limit)];
                limit -= piece.len();
                out[n] = IoSlice::new(piece);
                n += 1;
            }
        }
        n
    }

    /// `n` bytes of what follows a cursor have been read.
    pub fn advance(&mut self, cursor: &mut Cursor, n: usize) {
        let Some(from) = self.index(cursor) else {
            return;
        };
        debug_assert!(n as u64 <= self.lag(cursor), "more than there was");
        cursor.offset = (cursor.offset + n as u64).min(self.end);
        let mut to = from;
        while to + 1 < self.blocks.len() && cursor.offset >= self.blocks[to].end() {
            to += 1;
        }
        if to != from {
            self.blocks[from].readers -= 1;
            self.blocks[to].readers += 1;
            cursor.block += (to - from) as u64;
        }
    }
}

/// Pins: a client that comes back soon finds what it needs.
impl Stream {
    /// Hold what follows `offset` for the client that claims it by `id`, until then. Whether it is
    /// held.
    pub fn pin(&mut self, id: u64, offset: u64, until_ms: i64) -> bool {
        let Some(cursor) = self.attach(offset) else {
            return false;
        };
        self.pins.push(Pin {
            id,
            cursor,
            until_ms,
        });
        true
    }

    /// The cursor that was pinned under `id`.
    pub fn claim(&mut self, id: u64) -> Option<Cursor> {
        let at = self.pins.iter().position(|pin| pin.id == id)?;
        Some(self.pins.swap_remove(at).cursor)
    }

    /// Give up the pins whose time is over. Returns how many.
    pub fn expire_pins(&mut self, now_ms: i64) -> usize {
        let before = self.pins.len();
        let expired = |pin: &mut Pin| pin.until_ms <= now_ms;
        let over: Vec<Pin> = self.pins.extract_if(.., expired).collect();
        over.into_iter().for_each(|pin| self.detach(pin.cursor));
        before - self.pins.len()
    }

    pub fn pins(&self) -> usize {
        self.pins.len()
    }
}

#[cfg(test)]
mod tests;
