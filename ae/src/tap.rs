//! A tap for the loop's two inputs: what the kernel reports, and the clock of the timers.
//!
//! ```text
//!   kernel ── poll ──┐              ┌──> ready bits         a tap may note what passes,
//!                    ├──> [ tap ] ──┤                       or pass on what it noted once,
//!   clock ── now ────┘              └──> due timers         without a kernel
//! ```
//!
//! A turn depends only on these two inputs and on what its handlers read: the same inputs give the
//! same calls of the same handlers in the same order. So a program whose handlers read through a
//! tap of their own can be recorded and run again (`a_turn_depends_on_its_inputs_only`).
//!
//! Without a tap, a poll and a reading of the clock cost one predictable branch each.

use std::io;

use crate::files::{Mask, Token};

/// A file and what became ready, as the kernel reported it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub token: Token,
    pub ready: Mask,
}

impl Change {
    /// The change as two numbers; `from_raw` turns the numbers back into the change.
    pub const fn to_raw(self) -> (u64, u8) {
        (self.token.to_raw(), self.ready.to_raw())
    }

    /// The change that two numbers stand for; unknown directions are left out.
    pub const fn from_raw((token, ready): (u64, u8)) -> Change {
        Change {
            token: Token::from_raw(token),
            ready: Mask::from_raw(ready),
        }
    }
}

/// A recorder or a replacement of the loop's inputs, see the head of this file.
pub trait Tap {
    /// Returns the time in nanoseconds since the loop was made; `live` reads the clock.
    fn clock(&self, live: &dyn Fn() -> u64) -> u64;

    /// Returns the result of a poll; `live` asks the kernel.
    fn poll(&self, live: &mut dyn FnMut() -> io::Result<Vec<Change>>) -> io::Result<Vec<Change>>;

    /// Whether the registered fds exist, so that the kernel can watch them.
    fn has_files(&self) -> bool;
}
