//! The file events: the registered fds, their handlers, and the ready bits.
//!
//! ```text
//!   Token = generation:32 | slot:32
//!                            |
//!   slots   [ File | File | free | File | ... ]          ready[First]    t9 t2
//!             |                                          ready[Normal]   t0 t7 t3
//!             +-- fd, data, class                                        ^ served     ^ queued
//!                 mask    READABLE? WRITABLE? BARRIER?    which handlers are installed    (user space)
//!                 ready   READABLE? WRITABLE?             what the kernel said last       (kernel space)
//! ```
//!
//! An fd is *due* when `mask & ready` is not empty, and then its token is in the queue of its
//! class. The kernel reports an edge, the moment when an fd becomes ready, once, so the ready bit
//! remembers it. A handler's return value updates the ready bit:
//!
//! ```text
//!   poll reports an edge ------------> ready = 1
//!   handler is about to be called ---> ready = 0      cleared first, so that an edge seen by a nested turn is kept
//!   handler returns More ------------> ready = 1      it stopped early; it is called again next turn
//!   handler returns Drained ---------> (stays)        the kernel will report the next edge
//! ```
//!
//! A new socket is writable at once. The writable bit stays set until a handler writes, which may
//! be much later. A ready bit that is set wrongly is harmless: the handler's read returns
//! `WouldBlock`, the handler returns `Drained`, and the bit is cleared. A ready bit that is lost
//! would block a connection for ever. Hence the ready bit is cleared before the handler is called,
//! and a hang-up causes a second call:
//!
//! **After a short read a handler may return `Drained`**, which saves a second `read` that would
//! only return `WouldBlock`. But a peer may send its last bytes and close: the bytes and the close
//! are one edge, the read is short, and the end of file would never be read. So when the edge had a
//! hang-up, the first `Drained` after it is ignored and the handler is called once more.
//!
//! **Invariants**
//! - A token is valid only while its generation equals the slot's; removal increments the
//!   generation. So no handler is called for an event of an fd that was closed in this turn, even
//!   when the number of the fd or its slot is in use again (`stale_event_calls_no_handler`).
//! - A live file's token is queued at most once (`queued`), and never while its own handler runs
//!   (`busy`): a handler is not re-entered by a nested turn
//!   (`nested_turn_does_not_reenter_a_handler`).
//! - A queue entry may be stale, because its fd was removed or its handler cleared. A stale entry
//!   is skipped when it is popped.
//!
//! **Limits.** A slot's generation wraps after 2^32 uses. Slots are reused, and the table never
//! shrinks.
//!
//! **Rejected.** Indexing by fd, as Redis does: the number of an fd does not identify a connection.
//! A hash map of fds: a probe for each event. Walking all slots to find the ready fds: the cost of
//! a turn should depend on the ready fds, not on all connections.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::os::fd::RawFd;

use crate::EventLoop;

/// A handler, which is called when its fd is ready; the `Mask` is `READABLE` or `WRITABLE`.
pub type FileProc<S> = fn(&mut EventLoop<S>, &mut S, Token, Mask) -> Io;

/// Identifies one registration of an fd. An fd that is closed and opened again gets another token,
/// even if its number is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    slot: u32,
    generation: u32,
}

impl Token {
    /// The token as a number, which [`Token::from_raw`] turns back into the token.
    pub const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The token that [`Token::to_raw`] made the number of. Another number gives a token that is
    /// not valid.
    pub const fn from_raw(raw: u64) -> Self {
        Self {
            slot: raw as u32,
            generation: (raw >> 32) as u32,
        }
    }

    fn index(self) -> usize {
        self.slot as usize
    }
}

/// A set of the directions readable and writable, with the flag `BARRIER`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mask(u8);

impl Mask {
    /// The set without a direction.
    pub const NONE: Mask = Mask(0);
    /// The direction of reading.
    pub const READABLE: Mask = Mask(1);
    /// The direction of writing.
    pub const WRITABLE: Mask = Mask(2);
    /// A flag together with `WRITABLE`: in a turn in which reading and writing are due, the write
    /// handler is called first. `BARRIER` is for handlers that must not reply in the turn in which
    /// they read, because something (an fsync in `before_sleep`) must happen in between.
    pub const BARRIER: Mask = Mask(4);
    /// A flag of the ready bits only: the last edge had a hang-up, and the handler has not been
    /// called twice since.
    pub(crate) const READ_CLOSED: Mask = Mask(8);

    const DIRECTIONS: Mask = Mask(1 | 2);

    /// Whether the set contains all directions of `other`.
    pub const fn contains(self, other: Mask) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set as a number, which [`Mask::from_raw`] turns back into the set.
    pub const fn to_raw(self) -> u8 {
        self.0
    }

    /// The set that [`Mask::to_raw`] made the number of; unknown bits are left out.
    pub const fn from_raw(raw: u8) -> Self {
        Mask(raw & 15)
    }

    /// Whether the set has no direction and no flag.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Mask {
    type Output = Mask;
    fn bitor(self, other: Mask) -> Mask {
        Mask(self.0 | other.0)
    }
}

impl BitOrAssign for Mask {
    fn bitor_assign(&mut self, other: Mask) {
        self.0 |= other.0;
    }
}

impl BitAnd for Mask {
    type Output = Mask;
    fn bitand(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }
}

impl Not for Mask {
    type Output = Mask;
    fn not(self) -> Mask {
        Mask(!self.0)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Mask::READABLE, "READABLE"),
            (Mask::WRITABLE, "WRITABLE"),
            (Mask::BARRIER, "BARRIER"),
        ];
        f.debug_list()
            .entries(
                names
                    .iter()
                    .filter(|(bit, _)| self.contains(*bit))
                    .map(|(_, name)| name),
            )
            .finish()
    }
}

/// The result of a handler: whether its fd may still be ready in the handler's direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// The handler waits for the next edge: its last system call would have blocked, or moved fewer
    /// bytes than requested.
    Drained,
    /// The handler stopped early, so that other fds are served. A handler that returns `More` is
    /// called again in the next turn.
    More,
}

/// The order in which fds are served within a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Fds that are served first: few and important ones, such as links between servers and
    /// connections of operators.
    First,
    Normal,
}

struct File<S> {
    on_readable: Option<FileProc<S>>,
    on_writable: Option<FileProc<S>>,
    data: u64,
    /// The fd; -1 in a free slot.
    fd: RawFd,
    generation: u32,
    mask: Mask,
    ready: Mask,
    class: Class,
    queued: bool,
    busy: bool,
}

const _: () = assert!(size_of::<File<()>>() <= 40);

impl<S> File<S> {
    fn vacant() -> Self {
        Self {
            on_readable: None,
            on_writable: None,
            data: 0,
            fd: -1,
            generation: 0,
            mask: Mask::NONE,
            ready: Mask::NONE,
            class: Class::Normal,
            queued: false,
            busy: false,
        }
    }

    fn due(&self) -> Mask {
        self.mask & self.ready & Mask::DIRECTIONS
    }
}

/// A queue of the tokens of due fds, oldest first. `popped` counts all entries that were ever
/// taken, so that a turn can stop at the entries that were queued at its beginning, even if a
/// nested turn removes entries meanwhile.
struct ReadyQueue {
    tokens: VecDeque<Token>,
    popped: u64,
}

impl ReadyQueue {
    fn new() -> Self {
        Self {
            tokens: VecDeque::new(),
            popped: 0,
        }
    }

    fn end(&self) -> u64 {
        self.popped + self.tokens.len() as u64
    }
}

/// The number of bytes that a file takes in the loop's table.
pub const FILE_BYTES: usize = size_of::<File<()>>();

/// The table of all files of a loop.
pub(crate) struct Files<S> {
    slots: Vec<File<S>>,
    free: Vec<u32>,
    ready: [ReadyQueue; 2],
    setsize: usize,
}

impl<S> Files<S> {
    pub(crate) fn new(setsize: usize) -> io::Result<Self> {
        let mut files = Self {
            slots: Vec::new(),
            free: Vec::new(),
            ready: [ReadyQueue::new(), ReadyQueue::new()],
            setsize: 0,
        };
        files.resize(setsize)?;
        Ok(files)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn setsize(&self) -> usize {
        self.setsize
    }

    pub(crate) fn resize(&mut self, setsize: usize) -> io::Result<()> {
        if setsize >= u32::MAX as usize {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the set of files can't be that large",
            ));
        }
        if setsize < self.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more files are open than the new size allows",
            ));
        }
        self.setsize = setsize;
        Ok(())
    }

    /// The token of the file that the next `insert` adds.
    pub(crate) fn next_token(&self) -> io::Result<Token> {
        if self.len() >= self.setsize {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the set of files is full",
            ));
        }
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self
            .slots
            .get(slot as usize)
            .map_or(0, |file| file.generation);
        Ok(Token { slot, generation })
    }

    pub(crate) fn insert(&mut self, token: Token, fd: RawFd, class: Class, data: u64) {
        if self.free.pop().is_none() {
            self.slots.push(File::vacant());
        }
        let file = &mut self.slots[token.index()];
        debug_assert!(file.fd < 0 && file.generation == token.generation && fd >= 0);
        *file = File {
            fd,
            class,
            data,
            generation: token.generation,
            ..File::vacant()
        };
    }

    /// Removes a file and returns its fd.
    pub(crate) fn remove(&mut self, token: Token) -> Option<RawFd> {
        let file = self.get_mut(token)?;
        let fd = file.fd;
        *file = File {
            generation: token.generation.wrapping_add(1),
            ..File::vacant()
        };
        self.free.push(token.slot);
        Some(fd)
    }

    pub(crate) fn set_handler(&mut self, token: Token, mask: Mask, handler: FileProc<S>) {
        let Some(file) = self.get_mut(token) else {
            return;
        };
        file.mask |= mask;
        if mask.contains(Mask::READABLE) {
            file.on_readable = Some(handler);
        }
        if mask.contains(Mask::WRITABLE) {
            file.on_writable = Some(handler);
        }
        self.queue_if_due(token);
    }

    /// Clears the handlers for the directions in `mask`. A barrier without a write handler has no
    /// meaning, so `BARRIER` is cleared, too.
    pub(crate) fn clear_handler(&mut self, token: Token, mask: Mask) {
        let Some(file) = self.get_mut(token) else {
            return;
        };
        let barrier = if mask.contains(Mask::WRITABLE) {
            Mask::BARRIER
        } else {
            Mask::NONE
        };
        file.mask = file.mask & !(mask | barrier);
    }

    pub(crate) fn mask(&self, token: Token) -> Mask {
        self.get(token).map_or(Mask::NONE, |file| file.mask)
    }

    pub(crate) fn fd(&self, token: Token) -> Option<RawFd> {
        self.get(token).map(|file| file.fd)
    }

    pub(crate) fn data(&self, token: Token) -> Option<u64> {
        self.get(token).map(|file| file.data)
    }

    pub(crate) fn set_data(&mut self, token: Token, data: u64) {
        if let Some(file) = self.get_mut(token) {
            file.data = data;
        }
    }

    /// Sets the class of a file. A file that is queued already is still served in its old class.
    pub(crate) fn set_class(&mut self, token: Token, class: Class) {
        if let Some(file) = self.get_mut(token) {
            file.class = class;
        }
    }

    /// Marks directions as ready: the kernel has reported them, or a handler knows of bytes that
    /// the kernel does not report.
    pub(crate) fn mark_ready(&mut self, token: Token, ready: Mask) {
        if let Some(file) = self.get_mut(token) {
            file.ready |= ready;
            self.queue_if_due(token);
        }
    }

    pub(crate) fn any_queued(&self) -> bool {
        self.ready.iter().any(|queue| !queue.tokens.is_empty())
    }

    /// The present end of the queue of `class`. Entries behind this end belong to the next turn.
    pub(crate) fn turn_end(&self, class: Class) -> u64 {
        self.ready[class as usize].end()
    }

    /// Returns the next due file of this turn and its due directions; `None` if all due files of
    /// the turn were served. `enter` marks the file as busy until `leave` is called.
    pub(crate) fn enter(&mut self, class: Class, turn_end: u64) -> Option<(Token, Mask)> {
        loop {
            let queue = &mut self.ready[class as usize];
            if queue.popped >= turn_end {
                return None;
            }
            let token = queue.tokens.pop_front()?;
            queue.popped += 1;
            let Some(file) = self.get_mut(token) else {
                continue;
            };
            file.queued = false;
            let due = file.due();
            if !due.is_empty() {
                file.busy = true;
                return Some((token, due | file.mask & Mask::BARRIER));
            }
        }
    }

    /// Returns the file's handler for `direction`, unless another handler has cleared that handler
    /// or removed the file since `enter`. `take` clears the ready bit of `direction`.
    pub(crate) fn take(&mut self, token: Token, direction: Mask) -> Option<FileProc<S>> {
        let file = self.get_mut(token)?;
        if !file.due().contains(direction) {
            return None;
        }
        file.ready = file.ready & !direction;
        if direction == Mask::READABLE {
            file.on_readable
        } else {
            file.on_writable
        }
    }

    /// Updates the ready bit with the result of the handler for `direction`. After a hang-up the
    /// first `Drained` of the read handler is ignored.
    pub(crate) fn give_back(&mut self, token: Token, direction: Mask, io: Io) {
        let Some(file) = self.get_mut(token) else {
            return;
        };
        if io == Io::More {
            file.ready |= direction;
        } else if direction == Mask::READABLE && file.ready.contains(Mask::READ_CLOSED) {
            file.ready = file.ready & !Mask::READ_CLOSED | Mask::READABLE;
        }
    }

    /// Ends the handling of a file that `enter` returned: a file that is still due is queued for
    /// the next turn.
    pub(crate) fn leave(&mut self, token: Token) {
        if let Some(file) = self.get_mut(token) {
            file.busy = false;
            self.queue_if_due(token);
        }
    }

    fn queue_if_due(&mut self, token: Token) {
        let file = &mut self.slots[token.index()];
        if !file.queued && !file.busy && !file.due().is_empty() {
            file.queued = true;
            self.ready[file.class as usize].tokens.push_back(token);
        }
    }

    fn get(&self, token: Token) -> Option<&File<S>> {
        self.slots
            .get(token.index())
            .filter(|file| file.generation == token.generation && file.fd >= 0)
    }

    fn get_mut(&mut self, token: Token) -> Option<&mut File<S>> {
        self.slots
            .get_mut(token.index())
            .filter(|file| file.generation == token.generation && file.fd >= 0)
    }
}
