//! The interface to epoll and kqueue: which fds have changed since the last poll.
//!
//! ```text
//!     add_file ---- register(fd, token) ---->  +--------+
//!                                              | epoll, |   one registration for each fd, for both
//!     remove_file - deregister(fd) --------->  | kqueue |   directions, edge-triggered, for life
//!                                              +--------+
//!     poll(timeout) <--- (token, what became ready) ...
//! ```
//!
//! Edge-triggered means that readiness is reported when it *begins*. The kernel reports once that
//! bytes have arrived, and again only when more arrive, whether the first bytes have been read or
//! not. The ready bit in `files.rs` remembers the report. The advantage: interest in reading or
//! writing is a bit in the loop's memory, and changing it needs no system call.
//!
//! **Invariant:** a token from [`Poller::poll`] was registered by [`Poller::register`], but its fd
//! may have been removed since. Code that uses a token compares its generation with that of the
//! slot.
//!
//! **Limit:** mio hands epoll whole milliseconds, rounded up. A poll may end up to 1 ms after a
//! timer is due and never before, so the loop does not spin through the last fraction of a
//! millisecond. kqueue keeps nanoseconds.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::files::{Mask, Token};
use crate::tap::{Change, Tap};
use crate::waker::Waker;

const _: () = assert!(
    usize::BITS == 64,
    "a mio token must hold slot and generation"
);

/// The token under which the waker is registered in the poll. No file has this token: slots are
/// counted in 32 bits and the last slot is never used.
const WAKER: mio::Token = mio::Token(usize::MAX);

/// The maximum number of events of one poll. Further events stay in the kernel for the next turn,
/// so `MAX_EVENTS` limits the memory and the length of a turn, not the number of fds.
const MAX_EVENTS: usize = 4096;

/// The name of the kernel interface in use.
pub const fn backend_name() -> &'static str {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        "epoll"
    } else {
        "kqueue"
    }
}

pub(crate) struct Poller {
    poll: mio::Poll,
    events: mio::Events,
    pub(crate) tap: Option<&'static dyn Tap>,
}

impl Poller {
    pub(crate) fn new(setsize: usize) -> io::Result<(Self, Waker)> {
        let poll = mio::Poll::new()?;
        let waker = Waker::new(mio::Waker::new(poll.registry(), WAKER)?);
        let events = mio::Events::with_capacity(setsize.clamp(16, MAX_EVENTS));
        let poller = Self {
            poll,
            events,
            tap: None,
        };
        Ok((poller, waker))
    }

    pub(crate) fn register(&self, fd: RawFd, token: Token) -> io::Result<()> {
        if self.tap.is_some_and(|tap| !tap.has_files()) {
            return Ok(());
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry().register(
            &mut SourceFd(&fd),
            mio::Token(token.to_raw() as usize),
            both,
        )
    }

    /// Lets the kernel stop watching an fd. An error means that the fd is closed already; the
    /// kernel does not watch a closed fd either.
    pub(crate) fn deregister(&self, fd: RawFd) {
        if self.tap.is_none_or(Tap::has_files) {
            let _ = self.registry().deregister(&mut SourceFd(&fd));
        }
    }

    /// Waits for events, then passes the token and the ready directions of each event to `ready`.
    /// If a signal ends the wait early, the poll returns no change and no error.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(Token, Mask),
    ) -> io::Result<usize> {
        match self.tap {
            None => self.ask(timeout, ready),
            Some(tap) => {
                let changes = tap.poll(&mut || self.changes(timeout))?;
                changes
                    .iter()
                    .for_each(|change| ready(change.token, change.ready));
                Ok(changes.len())
            }
        }
    }

    fn changes(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.ask(timeout, |token, ready| {
            changes.push(Change { token, ready });
        })?;
        Ok(changes)
    }

    fn ask(
        &mut self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(Token, Mask),
    ) -> io::Result<usize> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        }
        let mut changes = 0;
        for event in self.events.iter().filter(|event| event.token() != WAKER) {
            ready(
                Token::from_raw(event.token().0 as u64),
                what_became_ready(event),
            );
            changes += 1;
        }
        Ok(changes)
    }

    fn registry(&self) -> &Registry {
        self.poll.registry()
    }
}

/// The directions that an event makes ready. An error or a hang-up makes a direction ready: the
/// handler's own read or write then returns the error.
fn what_became_ready(event: &mio::event::Event) -> Mask {
    let mut ready = Mask::NONE;
    if event.is_readable() {
        ready |= Mask::READABLE;
    }
    if event.is_read_closed() || event.is_error() {
        ready |= Mask::READABLE | Mask::READ_CLOSED;
    }
    if event.is_writable() || event.is_write_closed() || event.is_error() {
        ready |= Mask::WRITABLE;
    }
    ready
}
