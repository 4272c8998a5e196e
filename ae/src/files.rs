//! The file events: which fds there are, their handlers, and which of them are ready.
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
//! An fd is *due* when `mask & ready` is not empty, and then its token stands in the queue of its
//! class. The kernel reports an edge once, so `ready` is our memory of it. A handler's return value
//! keeps the bit true:
//!
//! ```text
//!   poll reports an edge ------------> ready = 1
//!   handler is about to be called ---> ready = 0      cleared first, so that an edge seen by a nested turn is kept
//!   handler returns More ------------> ready = 1      it stopped early; it is called again next turn
//!   handler returns Drained ---------> (stays)        the kernel will report the next edge
//! ```
//!
//! A fresh socket is writable at once. The bit stays set until a handler wants to write, which may
//! be much later. A bit that is set wrongly does no harm: the handler's read says `WouldBlock`, it
//! returns `Drained`, the bit is gone. A bit that is lost would hang a connection for ever. Hence
//! the order above, and the second look for hang-ups:
//!
//! **A short read is enough to say `Drained`.** It saves the second `read` that would only say
//! `WouldBlock`. The trap is a peer that sends its last bytes and closes: both are one edge, the
//! read comes back short, and the end of file would never be seen. So when the edge carried a
//! hang-up, the first `Drained` afterwards is not believed and the handler is called once more.
//!
//! **Invariants**
//! - A token is honoured only while its generation is the slot's; removal moves the generation on.
//!   So an event for an fd that was closed in this turn reaches no handler, even when its number or
//!   its slot is in use again (`stale_event_reaches_nobody`).
//! - A live file's token is queued at most once (`queued`), and never while its own handler runs
//!   (`busy`): a handler is not re-entered by a nested turn
//!   (`nested_turn_does_not_reenter_a_handler`).
//! - A queue entry may be stale, because its fd was removed or its handler cleared. It is skipped
//!   when popped.
//!
//! **Limits.** A slot's generation wraps after 2^32 uses. Slots are reused, the table never
//! shrinks.
//!
//! **Rejected.** Indexing by fd, as Redis does: an fd's number says nothing about whether it is the
//! same connection. A hash map: a probe for each event. Walking all slots: the cost of a turn
//! should follow what is ready, not what is connected.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::os::fd::RawFd;

use crate::EventLoop;

/// Called when the fd is ready in a direction; `mask` is that one direction, `READABLE` or
/// `WRITABLE`.
pub type FileProc<S> = fn(&mut EventLoop<S>, &mut S, Token, Mask) -> Io;

/// Names one registration of an fd. Closing and reopening gives another token, even for the same fd
/// number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    slot: u32,
    generation: u32,
}

impl Token {
    /// For storage outside; `from_raw` gives the token back.
    pub const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// A number that was never a token gives one that names nothing.
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

/// A set of directions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mask(u8);

impl Mask {
    pub const NONE: Mask = Mask(0);
    pub const READABLE: Mask = Mask(1);
    pub const WRITABLE: Mask = Mask(2);
    /// Beside `WRITABLE`: in a turn in which both are due, write first. For handlers that must not
    /// reply in the turn in which they read, because something (an fsync in `before_sleep`) has to
    /// happen in between.
    pub const BARRIER: Mask = Mask(4);
    /// Only in a file's `ready`: the last edge carried a hang-up that no handler has had the chance
    /// to see twice.
    pub(crate) const READ_CLOSED: Mask = Mask(8);

    const DIRECTIONS: Mask = Mask(1 | 2);

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: Mask) -> bool {
        self.0 & other.0 == other.0
    }

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

/// What a handler reports back about the direction it was called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// There is nothing left to do before the kernel says so: the last call would have blocked, or
    /// moved less than was asked for.
    Drained,
    /// Stopped early, for the sake of the others. Call again next turn.
    More,
}

/// Which fds are served first within a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Few and important: the links that keep a system together, and its operator.
    First,
    Normal,
}

struct File<S> {
    on_readable: Option<FileProc<S>>,
    on_writable: Option<FileProc<S>>,
    data: u64,
    /// -1 in a free slot.
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

/// The tokens that wait to be served, oldest first. `popped` numbers the entries for ever, so that
/// a turn can say "up to here" and a nested turn may take entries from under it.
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

    /// The token that the next `insert` will occupy.
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

    /// Returns the fd that the slot held.
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

    /// A barrier makes no sense without a writer, so it goes with it.
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

    /// An entry that is queued already is served once more in its old class.
    pub(crate) fn set_class(&mut self, token: Token, class: Class) {
        if let Some(file) = self.get_mut(token) {
            file.class = class;
        }
    }

    /// The kernel's report, or a handler that knows better than the kernel.
    pub(crate) fn mark_ready(&mut self, token: Token, ready: Mask) {
        if let Some(file) = self.get_mut(token) {
            file.ready |= ready;
            self.queue_if_due(token);
        }
    }

    pub(crate) fn any_queued(&self) -> bool {
        self.ready.iter().any(|queue| !queue.tokens.is_empty())
    }

    /// Where the queue of `class` ends now. What is queued later belongs to the next turn.
    pub(crate) fn turn_end(&self, class: Class) -> u64 {
        self.ready[class as usize].end()
    }

    /// The next due file of this turn and the directions in which it is due, or `None` when the
    /// turn is over. Marks it busy until `leave`.
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

    /// The handler to call for `direction`, unless another one has cleared it or removed the file
    /// since `enter`. Takes the ready bit.
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

    /// What the handler for `direction` said. After a hang-up the first `Drained` is not believed.
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

    /// Ends what `enter` began: a file that is still due, or due again, waits for the next turn.
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
