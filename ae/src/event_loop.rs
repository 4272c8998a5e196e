//! One iteration of the event loop. The drawing shows the steps of `process_events`, which runs one
//! iteration, a *turn*.
//!
//! ```text
//!        +-----------------------------+
//!   +--> | 1  before_sleep             |   what has to be done before the poll: flush, reply, close
//!   |    +-----------------------------+
//!   |    | 2  poll_timeout             |   zero if an fd is due, else until the next timer, else for ever
//!   |    +-----------------------------+
//!   |    | 3  poll                     |   the only place where the loop sleeps; sets ready bits
//!   |    +-----------------------------+
//!   |    | 4  after_sleep              |   the clock may have moved a lot: look at it
//!   |    +-----------------------------+
//!   |    | 5  serve Class::First       |   each due fd once, in the order in which they became due:
//!   |    | 6  serve Class::Normal      |   readable, then writable (BARRIER: the other way round)
//!   |    +-----------------------------+
//!   |    | 7  fire_timers              |   those that are due and were there when the pass began
//!   |    +-----------------------------+
//!   +------------------+
//! ```
//!
//! The loop differs from Redis's `aeProcessEvents` in three ways. The poll is edge-triggered, so
//! the loop remembers which fds are ready (`files.rs`). A handler has a budget; a handler that
//! returned `More` is called again in the next turn, after all other due handlers. A handler that
//! is installed for reading and for writing is called for each of the two; Redis calls such a
//! handler once.
//!
//! **Invariants**
//! - The loop borrows nothing of itself while a handler runs. So a handler may change the loop in
//!   any way, and may run a nested turn (a long-running command that serves other clients
//!   meanwhile): fds that the nested turn served are not served again by the outer turn.
//! - A turn makes no allocation, computes no hash and makes no system call other than the poll.
//! - The poll waits only if no fd and no timer is due (`more_keeps_firing_without_new_edges`).

use std::io;
use std::ops::BitOr;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::files::{Class, FileProc, Files, Mask, Token};
use crate::poll::{Poller, backend_name};
use crate::tap::Tap;
use crate::timers::{TimeProc, TimerId, Timers};
use crate::waker::Waker;

/// A function that the loop calls before or after the poll.
pub type SleepProc<S> = fn(&mut EventLoop<S>, &mut S);

/// A function that the loop calls at the beginning and at the end of each phase of a turn. The
/// observer's calls nest like brackets: all phases of a turn are between the two calls for the
/// turn, and the phases of a nested turn are between the two calls of the `File` or `Timer` phase
/// that runs it. The loop reads no clock for the observer, which must use its own.
pub type Observer<S> = fn(&EventLoop<S>, &mut S, Phase, Moment);

/// The side of a phase at which the observer is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Begin,
    End,
}

/// The default of the number of bytes that one handler call should move: a few dozen microseconds
/// of copying, so that a turn with a thousand busy fds takes some ten milliseconds.
pub const DEFAULT_BUDGET: usize = 64 * 1024;

/// The part of a turn that is passed to the observer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// One call of `process_events`, which contains all other phases. If the poll fails, the
    /// observer is not called for the end of the turn.
    Turn,
    BeforeSleep,
    /// The call that asks the kernel for ready fds, including its sleep. At the end of the poll the
    /// value is the number of fds that changed.
    Poll(usize),
    AfterSleep,
    /// One handler call for the fd with this token, which was `READABLE` or `WRITABLE`. The handler
    /// may have removed the fd.
    File(Token, Mask),
    /// One call of the timer with this id.
    Timer(TimerId),
}

/// What one turn of the loop does, as flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Events(u8);

impl Events {
    /// The turn serves files.
    pub const FILES: Events = Events(1);
    /// The turn fires timers.
    pub const TIMERS: Events = Events(2);
    /// The turn serves files and fires timers.
    pub const ALL: Events = Events(1 | 2);
    /// The poll does not sleep.
    pub const DONT_WAIT: Events = Events(4);
    /// The turn calls the function of `set_before_sleep` before the poll.
    pub const CALL_BEFORE_SLEEP: Events = Events(8);
    /// The turn calls the function of `set_after_sleep` after the poll.
    pub const CALL_AFTER_SLEEP: Events = Events(16);

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// The `|` operator, for constants.
    pub const fn union(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        self.union(other)
    }
}

/// The event loop. `S` is the program's state, which is passed to every callback.
pub struct EventLoop<S> {
    files: Files<S>,
    timers: Timers<S>,
    poller: Poller,
    waker: Waker,
    before_sleep: Option<SleepProc<S>>,
    after_sleep: Option<SleepProc<S>>,
    observer: Option<Observer<S>>,
    budget: usize,
    dont_wait: bool,
    stopped: bool,
}

impl<S> EventLoop<S> {
    /// Creates a loop for up to `setsize` files. Fails if the kernel can't create an epoll or
    /// kqueue instance.
    pub fn new(setsize: usize) -> io::Result<Self> {
        let (poller, waker) = Poller::new(setsize)?;
        Ok(Self {
            files: Files::new(setsize)?,
            timers: Timers::new(),
            poller,
            waker,
            before_sleep: None,
            after_sleep: None,
            observer: None,
            budget: DEFAULT_BUDGET,
            dont_wait: false,
            stopped: false,
        })
    }

    /// Runs turns until [`EventLoop::stop`]. Returns the error of a poll that fails.
    pub fn run(&mut self, s: &mut S) -> io::Result<()> {
        let turn = Events::ALL | Events::CALL_BEFORE_SLEEP | Events::CALL_AFTER_SLEEP;
        while !std::mem::take(&mut self.stopped) {
            self.process_events(s, turn)?;
        }
        Ok(())
    }

    /// Makes `run` return at the end of the current turn, or at once if `run` is called later.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.dont_wait = true;
    }

    /// Runs one turn. Returns the number of files and timers that were served. A handler may call
    /// `process_events` for a nested turn, which does not serve the fd or timer of that handler.
    pub fn process_events(&mut self, s: &mut S, what: Events) -> io::Result<usize> {
        let (files, timers) = (what.contains(Events::FILES), what.contains(Events::TIMERS));
        if !files && !timers {
            return Ok(0);
        }
        self.observe(s, Phase::Turn, Moment::Begin);
        if what.contains(Events::CALL_BEFORE_SLEEP) {
            self.call_before_sleep(s); // 1
        }
        let timeout = self.poll_timeout(what); // 2
        self.poll(s, timeout)?; // 3
        if what.contains(Events::CALL_AFTER_SLEEP) {
            self.call_after_sleep(s); // 4
        }
        let mut served = 0;
        if files {
            served += self.serve(s, Class::First); // 5
            served += self.serve(s, Class::Normal); // 6
        }
        if timers {
            served += self.fire_timers(s); // 7
        }
        self.observe(s, Phase::Turn, Moment::End);
        Ok(served)
    }

    fn call_before_sleep(&mut self, s: &mut S) {
        if let Some(before_sleep) = self.before_sleep {
            self.observe(s, Phase::BeforeSleep, Moment::Begin);
            before_sleep(self, s);
            self.observe(s, Phase::BeforeSleep, Moment::End);
        }
    }

    /// The timeout of the poll; `None` means that the poll waits for ever. The clock is read only
    /// if the poll may have to wait for a timer.
    fn poll_timeout(&mut self, what: Events) -> Option<Duration> {
        if what.contains(Events::DONT_WAIT)
            || std::mem::take(&mut self.dont_wait)
            || what.contains(Events::FILES) && self.files.any_queued()
        {
            return Some(Duration::ZERO);
        }
        if what.contains(Events::TIMERS) {
            self.timers.until_next()
        } else {
            None
        }
    }

    fn poll(&mut self, s: &mut S, timeout: Option<Duration>) -> io::Result<()> {
        self.observe(s, Phase::Poll(0), Moment::Begin);
        let files = &mut self.files;
        let changes = self
            .poller
            .poll(timeout, |token, ready| files.mark_ready(token, ready));
        let seen = *changes.as_ref().unwrap_or(&0);
        self.observe(s, Phase::Poll(seen), Moment::End);
        changes.map(|_| ())
    }

    fn call_after_sleep(&mut self, s: &mut S) {
        if let Some(after_sleep) = self.after_sleep {
            self.observe(s, Phase::AfterSleep, Moment::Begin);
            after_sleep(self, s);
            self.observe(s, Phase::AfterSleep, Moment::End);
        }
    }

    /// Serves the fds that are queued now; fds that become due during the call wait for the next
    /// turn.
    fn serve(&mut self, s: &mut S, class: Class) -> usize {
        let turn_end = self.files.turn_end(class);
        let mut served = 0;
        while let Some((token, due)) = self.files.enter(class, turn_end) {
            let order = if due.contains(Mask::BARRIER) {
                [Mask::WRITABLE, Mask::READABLE]
            } else {
                [Mask::READABLE, Mask::WRITABLE]
            };
            for direction in order {
                if due.contains(direction) {
                    self.call_handler(s, token, direction);
                }
            }
            self.files.leave(token);
            served += 1;
        }
        served
    }

    fn call_handler(&mut self, s: &mut S, token: Token, direction: Mask) {
        if let Some(handler) = self.files.take(token, direction) {
            self.observe(s, Phase::File(token, direction), Moment::Begin);
            let io = handler(self, s, token, direction);
            self.files.give_back(token, direction, io);
            self.observe(s, Phase::File(token, direction), Moment::End);
        }
    }

    fn fire_timers(&mut self, s: &mut S) -> usize {
        let Some(pass) = self.timers.begin_pass() else {
            return 0;
        };
        let mut fired = 0;
        while let Some((id, handler)) = self.timers.take_due(pass) {
            self.observe(s, Phase::Timer(id), Moment::Begin);
            match handler(self, s, id) {
                Some(after) => self.timers.again(id, after),
                None => _ = self.timers.delete(id),
            }
            self.observe(s, Phase::Timer(id), Moment::End);
            fired += 1;
        }
        fired
    }

    fn observe(&self, s: &mut S, phase: Phase, moment: Moment) {
        if let Some(observer) = self.observer {
            observer(self, s, phase, moment);
        }
    }
}

/// Methods for files, which are registered fds.
impl<S> EventLoop<S> {
    /// Registers an fd, which must be nonblocking and not registered yet. No handler is called
    /// before `set_handler`; readiness until then is remembered. Fails with `QuotaExceeded` when
    /// `setsize` files are registered.
    pub fn add_file(&mut self, fd: RawFd, class: Class, data: u64) -> io::Result<Token> {
        let token = self.files.next_token()?;
        self.poller.register(fd, token)?;
        self.files.insert(token, fd, class, data);
        Ok(token)
    }

    /// Removes a file. A file must be removed before its fd is closed: after a close the number of
    /// the fd may belong to another file; and if a forked child has the same open file, the kernel
    /// would continue to report the file. Returns false for a token that is no longer valid.
    pub fn remove_file(&mut self, t: Token) -> bool {
        let Some(fd) = self.files.remove(t) else {
            return false;
        };
        self.poller.deregister(fd);
        true
    }

    /// Installs a handler: `proc` is called when the fd is ready in a direction of `mask`, from the
    /// next turn on if it is ready already. `set_handler` makes no system call and, like all
    /// setters, does nothing for a token that is no longer valid.
    pub fn set_handler(&mut self, t: Token, mask: Mask, proc: FileProc<S>) {
        self.files.set_handler(t, mask, proc);
    }

    /// Clears the handlers for the directions in `mask`. If the fd becomes ready meanwhile, this is
    /// remembered for the next `set_handler`. Clearing `WRITABLE` also clears `BARRIER`.
    pub fn clear_handler(&mut self, t: Token, mask: Mask) {
        self.files.clear_handler(t, mask);
    }

    /// The directions (reading, writing) for which the file has a handler.
    pub fn mask(&self, t: Token) -> Mask {
        self.files.mask(t)
    }

    /// The program's own number for an fd, as given to `add_file` or `set_data`.
    pub fn data(&self, t: Token) -> Option<u64> {
        self.files.data(t)
    }

    /// Sets the number that [`EventLoop::data`] returns.
    pub fn set_data(&mut self, t: Token, data: u64) {
        self.files.set_data(t, data);
    }

    /// The fd of a token.
    pub fn fd(&self, t: Token) -> Option<RawFd> {
        self.files.fd(t)
    }

    /// Sets the class of an fd, which applies from the next time that the fd becomes due.
    pub fn set_class(&mut self, t: Token, class: Class) {
        self.files.set_class(t, class);
    }

    /// Marks a direction as ready although the kernel has not reported it, for bytes that a layer
    /// in between (TLS) has already read from the socket. The handler of the marked direction is
    /// called in the next turn.
    pub fn mark_ready(&mut self, t: Token, mask: Mask) {
        self.files
            .mark_ready(t, mask & (Mask::READABLE | Mask::WRITABLE));
    }

    /// The number of registered files.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The maximum number of files.
    pub fn setsize(&self) -> usize {
        self.files.setsize()
    }

    /// Sets the maximum number of registered files. Fails if more files are registered at present.
    pub fn resize(&mut self, setsize: usize) -> io::Result<()> {
        self.files.resize(setsize)
    }
}

/// Methods for timers.
impl<S> EventLoop<S> {
    /// Adds a timer: the loop calls `proc` when `after` has passed. With epoll the call is up to 1
    /// ms late, never early.
    pub fn add_timer(&mut self, after: Duration, data: u64, proc: TimeProc<S>) -> TimerId {
        self.timers.add(after, data, proc)
    }

    /// Deletes a timer. Returns false if the timer does not exist any more. A timer may delete
    /// itself; its return value is then ignored.
    pub fn delete_timer(&mut self, id: TimerId) -> bool {
        self.timers.delete(id)
    }

    /// The program's own number for a timer, as given to `add_timer`.
    pub fn timer_data(&self, id: TimerId) -> Option<u64> {
        self.timers.data(id)
    }
}

/// Methods for the functions called around the poll, for the observer and for settings.
impl<S> EventLoop<S> {
    /// Sets the function that the loop calls before each poll.
    pub fn set_before_sleep(&mut self, proc: Option<SleepProc<S>>) {
        self.before_sleep = proc;
    }

    /// Sets the function that the loop calls after each poll.
    pub fn set_after_sleep(&mut self, proc: Option<SleepProc<S>>) {
        self.after_sleep = proc;
    }

    /// Sets the observer, a function that is called at the beginning and at the end of each phase
    /// of a turn. Without an observer a phase costs two predictable branches. An observer that is
    /// set in the middle of a turn gets the ends of the running phases without their beginnings.
    pub fn set_observer(&mut self, observer: Option<Observer<S>>) {
        self.observer = observer;
    }

    /// Passes the reports of the kernel and the clock through a tap, to record or replay them. A
    /// tap whose files do not exist must be set before the first file is added.
    pub fn set_tap(&mut self, tap: Option<&'static dyn Tap>) {
        self.poller.tap = tap;
        self.timers.tap = tap;
    }

    /// A handle that ends a poll from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// If `dont_wait` is true, the next poll that could sleep returns at once. `dont_wait` applies
    /// to one poll only.
    pub fn set_dont_wait(&mut self, dont_wait: bool) {
        self.dont_wait = dont_wait;
    }

    /// The number of bytes that a handler should move in one call. A handler that has moved that
    /// number of bytes stops and returns `More`.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Sets the number of bytes for [`EventLoop::budget`].
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// The name of the kernel interface in use: `epoll` or `kqueue`.
    pub fn backend_name() -> &'static str {
        backend_name()
    }
}
