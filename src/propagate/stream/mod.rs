//! The replication stream: the bytes that replicas are sent, stored once for all replicas.
//!
//! **Problem.** Replicas read the same bytes, each at its own pace; replicas may disconnect and
//! continue later where they stopped, and must not make each command more expensive. So propagated
//! commands are appended once to a queue of blocks, and the position of each replica is a cursor in
//! the queue. The most recent bytes are kept even without a cursor: they are the backlog, from
//! which a returning replica continues.
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
//! The offset of a byte is the number of bytes of the whole history before it: byte number n of
//! Redis's protocol, which counts from 1, has offset n - 1. A block never moves, and bytes are only
//! appended to it, so `writev` can send it without a copy. A command may be split between two
//! blocks.
//!
//! **Costs.** Append: one comparison and one `memcpy`; every 16..64 KB an allocation. A cursor
//! costs nothing until it is read; attaching a cursor is a binary search, reading and moving on are
//! O(1) for each block. Trimming frees at most [`TRIM_MAX`] blocks in one call, so a replica that
//! leaves with gigabytes unread does not stop the loop.
//!
//! **Invariant:** blocks follow each other without gap, a block is empty only if it is the only
//! block, and the last block ends at `end`.
//! **Invariant:** the `readers` of all blocks add up to the number of attached cursors, and
//! `memory` is the sum of the blocks' memory. Builds with debug assertions check `readers` and
//! `memory` whenever a block is added or dropped (`check`).
//!
//! **Rejected.** A ring buffer of `backlog_size` bytes: the bytes for a slower replica would have
//! to be copied before they are overwritten. A count of references in each block (`Arc`, `Rc`): a
//! block has only one owner, and a cursor from before a restart of the stream would keep its blocks
//! for ever. An index tree over offsets, as Redis has: block starts are sorted already. One
//! allocation for each command: 60 bytes of overhead for a command of 60 bytes. A common buffer
//! with the AOF: see `propagate`.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::sink;
use super::unit::{Output, Unit, select};

/// The least size of a block of the stream, in bytes. A block has a sixteenth of the backlog's
/// size, between `BLOCK_MIN` and `BLOCK_MAX`.
const BLOCK_MIN: u64 = 16 << 10;
const BLOCK_MAX: u64 = 64 << 10;
/// The maximum number of blocks that one call of [`Stream::trim`] frees.
const TRIM_MAX: usize = 64;
/// The maximum offset at which a stream may begin. Offsets are sent as signed 64-bit numbers, and a
/// stream that begins at this offset can't reach their maximum.
pub const START_MAX: u64 = 1 << 62;

struct Block {
    /// The offset in the stream of the block's first byte.
    start: u64,
    /// The bytes of the block, which never grow beyond the initial capacity.
    bytes: Vec<u8>,
    /// The number of cursors whose position is in this block.
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

/// The position of a reader in the stream; the bytes from the cursor to the end are kept. A cursor
/// must be given back by [`Stream::detach`]: if it is dropped, its block is never freed.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Cursor {
    offset: u64,
    /// The number of the cursor's block, counted from the first block that the stream ever had.
    block: u64,
}

impl Cursor {
    /// The offset in the stream of the next byte that the cursor's reader gets.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A cursor that keeps a part of the stream for a replica's second connection, which will take the
/// cursor over ([`Stream::claim`]).
struct Pin {
    id: u64,
    cursor: Cursor,
    until_ms: i64,
}

/// The replication stream: the kept blocks of its bytes, and the cursors of its readers.
#[derive(Default)]
pub struct Stream {
    /// The blocks of the stream; empty if the stream is closed, since appended bytes are then not
    /// kept.
    blocks: VecDeque<Block>,
    /// The number of the first block that is kept, counted from the first block that the stream
    /// ever had.
    first_block: u64,
    /// The offset behind the last byte of the stream.
    end: u64,
    /// The database that is selected at the end of the stream; `None` if the next command must be
    /// preceded by SELECT.
    selected_db: Option<u32>,
    backlog_size: u64,
    /// The memory of the blocks in bytes, their unused capacity included.
    memory: usize,
    /// The number of attached cursors, the cursors of pins included.
    cursors: usize,
    pins: Vec<Pin>,
}

/// The error of a stream that was to begin at an offset above [`START_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub struct OffsetTooLarge;

/// Opens, closes and trims the stream, and returns its sizes.
impl Stream {
    /// Whether the stream is open: whether it keeps the bytes that are appended.
    pub fn is_open(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Opens the stream: keeps at least the last `backlog_size` of the bytes that are appended from
    /// now on.
    pub fn open(&mut self, backlog_size: u64) {
        self.backlog_size = backlog_size;
        if !self.is_open() {
            self.selected_db = None;
            self.push_block();
        }
    }

    /// Closes the stream and drops its bytes. The offset of the end stays; cursors and pins can't
    /// be used any more.
    pub fn close(&mut self) {
        self.first_block += self.blocks.len() as u64;
        self.blocks = VecDeque::new();
        self.pins.clear();
        (self.memory, self.cursors) = (0, 0);
    }

    /// Continues the stream at another offset, without earlier bytes, because another history
    /// begins or the offset jumps. Cursors and pins can't be used any more. Fails if `offset`
    /// exceeds [`START_MAX`].
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

    /// The offset of the first byte of the stream that is kept.
    fn first_offset(&self) -> u64 {
        self.blocks.front().map_or(self.end, |first| first.start)
    }

    /// The number of the first byte of the stream that is kept, counted from 1 as in INFO and
    /// PSYNC; 0 if the stream is closed.
    pub fn first_byte_offset(&self) -> u64 {
        self.blocks.front().map_or(0, |first| first.start + 1)
    }

    /// The number of bytes of the stream that are kept: INFO's `repl_backlog_histlen`. More bytes
    /// than the backlog's size are kept while a slow replica needs them.
    pub fn histlen(&self) -> u64 {
        self.end - self.first_offset()
    }

    /// The number of bytes at the end of the stream that are kept even if no replica needs them:
    /// `repl-backlog-size`.
    pub fn backlog_size(&self) -> u64 {
        self.backlog_size
    }

    /// Sets the size of the backlog in bytes. A smaller size takes effect with the next calls of
    /// [`Stream::trim`].
    pub fn set_backlog_size(&mut self, size: u64) {
        self.backlog_size = size;
    }

    /// The memory of all blocks of the stream: INFO's `mem_total_replication_buffers`.
    pub fn memory(&self) -> usize {
        let free = self.blocks.capacity() - self.blocks.len();
        self.memory + free * size_of::<Block>()
    }

    /// The part of [`Stream::memory`] that exceeds the backlog. `maxmemory` does not count this
    /// memory: evicting keys would not make it smaller, and after a slow replica has left, it is
    /// freed within the next turns.
    pub fn memory_beyond_backlog(&self) -> usize {
        let backlog = usize::try_from(self.backlog_size).unwrap_or(usize::MAX);
        self.memory().saturating_sub(backlog)
    }

    /// The part of [`Stream::memory`] that only slow replicas need: INFO's `mem_clients_slaves`.
    pub fn memory_for_replicas(&self) -> usize {
        match self.cursors {
            0 => 0,
            _ => self.memory_beyond_backlog(),
        }
    }

    /// The part of [`Stream::memory`] that is the backlog: INFO's `mem_replication_backlog`.
    pub fn memory_for_backlog(&self) -> usize {
        self.memory() - self.memory_for_replicas()
    }

    /// Frees up to [`TRIM_MAX`] blocks that neither a cursor nor the backlog needs. Returns whether
    /// more unneeded blocks are left.
    pub fn trim(&mut self) -> bool {
        for _ in 0..TRIM_MAX {
            if !self.first_is_unneeded() {
                break;
            }
            if let Some(first) = self.blocks.pop_front() {
                self.first_block += 1;
                self.memory -= first.memory();
            }
        }
        // After a slow replica has disconnected, the list of blocks is shrunk as well.
        if self.blocks.capacity() / 4 > self.blocks.len() {
            self.blocks.shrink_to(2 * self.blocks.len());
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

    /// Checks the invariants of the stream, in builds with debug assertions.
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

/// Appends bytes and commands to the stream.
impl Stream {
    /// Appends bytes to the stream unchanged: a part of a command, or bytes that this replica has
    /// received from its primary.
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

    /// Appends one command, which changes database `db`; SELECT precedes the command if needed.
    #[inline]
    pub fn command(&mut self, db: u32, bytes: &[u8]) {
        if self.selected_db != Some(db) {
            self.selected_db = Some(db);
            select(self, db);
        }
        self.append(bytes);
    }

    /// Appends the commands of a unit (commands that are propagated together) that are for
    /// replicas.
    pub fn unit(&mut self, unit: &Unit, atomic: bool) {
        let mut selected_db = self.selected_db;
        unit.encode(sink::REPLICAS, atomic, &mut selected_db, self);
        self.selected_db = selected_db;
    }

    /// Makes SELECT precede the next command, for a replica that has not received earlier commands.
    pub fn forget_db(&mut self) {
        self.selected_db = None;
    }

    /// Sets the database that is selected at the end of the stream, after bytes of a primary were
    /// appended.
    pub fn set_selected_db(&mut self, db: u32) {
        self.selected_db = Some(db);
    }

    /// The database that is selected at the end of the stream; `None` if the next command will be
    /// preceded by SELECT.
    pub fn selected_db(&self) -> Option<u32> {
        self.selected_db
    }
}

impl Output for Stream {
    fn put(&mut self, bytes: &[u8]) {
        self.append(bytes);
    }
}

/// Reads the stream by cursors.
impl Stream {
    /// Creates a cursor at `offset`; `None` if the stream does not keep the bytes from there on.
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

    /// Gives a cursor back to the stream when its reader ends. Blocks that only this cursor needed
    /// are freed by the next calls of [`Stream::trim`].
    pub fn detach(&mut self, cursor: Cursor) {
        if let Some(at) = self.index(&cursor) {
            self.blocks[at].readers -= 1;
            self.cursors -= 1;
        }
    }

    /// Whether a cursor can't be read any more, because the stream was closed or restarted since
    /// the cursor was attached.
    pub fn is_lost(&self, cursor: &Cursor) -> bool {
        self.index(cursor).is_none()
    }

    fn index(&self, cursor: &Cursor) -> Option<usize> {
        let at = cursor.block.checked_sub(self.first_block)?;
        let at = usize::try_from(at).ok()?;
        (at < self.blocks.len()).then_some(at)
    }

    /// The number of bytes between a cursor and the end of the stream, for the output limits of
    /// replicas.
    pub fn lag(&self, cursor: &Cursor) -> u64 {
        self.end.saturating_sub(cursor.offset)
    }

    /// Sets `out` to the bytes of the stream behind a cursor, at most `limit` bytes, straight from
    /// the blocks. Returns how many elements of `out` were set.
    pub fn io_slices<'a>(
        &'a self,
        cursor: &Cursor,
        mut limit: usize,
        out: &mut [IoSlice<'a>],
    ) -> usize {
        let Some(at) = self.index(cursor) else {
            return 0;
        };
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

    /// Moves a cursor forwards by `n` bytes that have been sent.
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

/// Pins, which keep a part of the stream for a replica that will request it soon over a second
/// connection.
impl Stream {
    /// Keeps the bytes from `offset` on for the client that claims them by `id`, until `until_ms`.
    /// Returns false if the stream does not have the bytes from `offset` on.
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

    /// Removes the pin with the id `id` and returns its cursor.
    pub fn claim(&mut self, id: u64) -> Option<Cursor> {
        let at = self.pins.iter().position(|pin| pin.id == id)?;
        Some(self.pins.swap_remove(at).cursor)
    }

    /// Drops a pin, so that a part of the stream is no longer kept for a replica. Returns whether
    /// the pin existed.
    pub fn unpin(&mut self, id: u64) -> bool {
        let cursor = self.claim(id);
        let existed = cursor.is_some();
        cursor.into_iter().for_each(|cursor| self.detach(cursor));
        existed
    }

    /// Sets the Unix time in milliseconds until which a pin keeps its part of the stream.
    pub fn keep_pin(&mut self, id: u64, until_ms: i64) {
        let is = |pin: &&mut Pin| pin.id == id;
        if let Some(pin) = self.pins.iter_mut().find(is) {
            pin.until_ms = until_ms;
        }
    }

    /// Drops the pins whose time, until which they are kept, is over at `now_ms`. Returns the ids
    /// of the dropped pins.
    pub fn expire_pins(&mut self, now_ms: i64) -> Vec<u64> {
        let over = self.pins.iter().filter(|pin| pin.until_ms <= now_ms);
        let over: Vec<u64> = over.map(|pin| pin.id).collect();
        over.iter().for_each(|&id| {
            self.unpin(id);
        });
        over
    }

    /// The number of bytes between a pin's cursor and the end of the stream; `None` if no pin has
    /// this id.
    pub fn pin_lag(&self, id: u64) -> Option<u64> {
        let pin = self.pins.iter().find(|pin| pin.id == id)?;
        Some(self.lag(&pin.cursor))
    }

    /// The ids of all pins of the stream.
    pub fn pin_ids(&self) -> Vec<u64> {
        self.pins.iter().map(|pin| pin.id).collect()
    }

    /// The number of pins, which keep parts of the stream for replicas' second connections.
    pub fn pins(&self) -> usize {
        self.pins.len()
    }
}

#[cfg(test)]
mod tests;
