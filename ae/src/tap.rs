//! A tap for the loop's two inputs: what the kernel reports, and the clock of the timers.
//!
//! ```text
//!   kernel ── poll ──┐              ┌──> ready bits         a tap may note what passes,
//!                    ├──> [ tap ] ──┤                       or pass on what it noted once,
//!   clock ── now ────┘              └──> due timers         without a kernel
//! ```
//!
//! A turn of the loop depends only on the kernel's reports, on the clock and on what its handlers
//! read: the same inputs give the same calls of the same handlers in the same order. So a program
//! whose handlers read through a tap of their own can be recorded and run again
//! (`a_turn_depends_on_its_inputs_only`).
//!
//! Without a tap, a poll and a reading of the clock cost one predictable branch each.

use std::io;

use crate::files::{Mask, Token};

/// A report of the kernel: a file, and the directions in which it became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub token: Token,
    pub ready: Mask,
}

impl Change {
    /// The change as two numbers, which [`Change::from_raw`] turns back into the change.
    pub const fn to_raw(self) -> (u64, u8) {
        (self.token.to_raw(), self.ready.to_raw())
    }

    /// The change that [`Change::to_raw`] made two numbers of; unknown directions are left out.
    pub const fn from_raw((token, ready): (u64, u8)) -> Change {
        Change {
            token: Token::from_raw(token),
            ready: Mask::from_raw(ready),
        }
    }
}

/// Records or replaces the loop's two inputs: the kernel's reports and the clock.
pub trait Tap {
    /// Returns the time in nanoseconds since the loop was made; `live` reads the clock.
    fn clock(&self, live: &dyn Fn() -> u64) -> u64;

    /// Returns the changes that a poll of the loop reports; `live` asks the kernel for them.
    fn poll(&self, live: &mut dyn FnMut() -> io::Result<Vec<Change>>) -> io::Result<Vec<Change>>;

    /// Whether the registered fds exist, so that the kernel can watch them.
    fn has_files(&self) -> bool;
}
