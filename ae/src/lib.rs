//! # ae: an event loop small enough to read
//!
//! One thread waits for many file descriptors and a few timers, and calls a plain function when a
//! descriptor is ready or a timer is due. The design is that of Redis's `ae.c`; the kernel is
//! accessed through [mio] (epoll on Linux, kqueue on macOS and the BSDs). `ae` has fds, timers and
//! callbacks, and knows nothing of the program that uses them.
//!
//! ```text
//!   event_loop.rs   process_events: one iteration, box by box
//!        |
//!        +-- files.rs    which fds there are, their handlers, which are ready
//!        +-- timers.rs   which timers there are, and which is due first
//!        +-- poll.rs     the kernel: "what has changed?"
//!        +-- tap.rs      where these inputs can be noted, or come from a recording
//!        +-- waker.rs    the one door for other threads
//! ```
//!
//! ```no_run
//! use ae::{Class, EventLoop, Io, Mask, Token};
//! use std::{io, net::TcpListener, os::fd::AsRawFd};
//!
//! struct Server { listener: TcpListener, accepted: u64 }
//!
//! fn accept_handler(_el: &mut EventLoop<Server>, s: &mut Server, _t: Token, _mask: Mask) -> Io {
//!     while s.listener.accept().is_ok() {
//!         s.accepted += 1;
//!     }
//!     Io::Drained
//! }
//!
//! fn main() -> io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:7001")?;
//!     listener.set_nonblocking(true)?;
//!     let mut el = EventLoop::new(128)?;
//!     let token = el.add_file(listener.as_raw_fd(), Class::Normal, 0)?;
//!     el.set_handler(token, Mask::READABLE, accept_handler);
//!     el.run(&mut Server { listener, accepted: 0 })
//! }
//! ```
//!
//! **Handlers are `fn` pointers and the state is passed in.** The loop owns no data of the program:
//! every callback gets `&mut EventLoop<S>` and `&mut S`. So a callback may add, change and delete
//! any fd and timer, its own included, without a cell, a lock or a box. Each fd and timer has a
//! number, `data: u64`, in place of the captured variables of a closure.
//!
//! **Limits.** The loop needs a 64-bit Unix: a token travels through the kernel in one machine
//! word. The loop runs in one thread: only a [`Waker`] may be sent to another thread. After `fork`
//! the child shares the epoll instance of the parent's loop and must not use the loop.

mod event_loop;
mod files;
mod poll;
mod tap;
mod timers;
mod waker;

pub use event_loop::{DEFAULT_BUDGET, EventLoop, Events, Moment, Observer, Phase, SleepProc};
pub use files::{Class, FILE_BYTES, FileProc, Io, Mask, Token};
pub use poll::backend_name;
pub use tap::{Change, Tap};
pub use timers::{TimeProc, TimerId};
pub use waker::Waker;
