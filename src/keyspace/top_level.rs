//! Turns within turns, and what must not happen in them.
//!
//! ```text
//!   turn ─> read_handler ─> EVAL, or a load ─> nested_turn ─> handlers of other sockets
//!                                                              may read, answer, write
//!                                                              may not flush, swap or replace the data set
//! ```
//!
//! A command that runs for long, and a load, let the loop turn meanwhile (`execute::busy`). They
//! hold no references into the data set then, but they go on with what they have found out: a
//! script that has just checked a key does not expect the data set of another server.
//!
//! So what takes a whole data set away asks for a [`TopLevel`], and there is none in a nested turn.

use crate::error::Error;
use crate::state::Server;

/// Proof that no command and no load is under way but the one that has it. Only
/// [`Server::top_level`] makes one, for one use; it can't be kept.
pub struct TopLevel(());

impl Server {
    /// `Err` in a nested turn.
    pub fn top_level(&self) -> Result<TopLevel, Error> {
        match self.turn_depth {
            0 => Ok(TopLevel(())),
            _ => Err(Error::of(
                "BUSY The data set can't be replaced while a command runs on it",
            )),
        }
    }

    /// Whether the turn was started from within a handler of another one.
    pub fn is_nested(&self) -> bool {
        self.turn_depth > 0
    }

    /// Let the loop turn from within a handler.
    pub fn nested_turn<R>(&mut self, turn: impl FnOnce(&mut Server) -> R) -> R {
        self.turn_depth += 1;
        let result = turn(self);
        self.turn_depth -= 1;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_nested_turn_is_not_at_the_top() {
        let mut server = Server::new(Config::default(), Vec::new());
        assert!(server.top_level().is_ok());
        server.nested_turn(|server| {
            assert!(server.top_level().is_err());
            server.nested_turn(|server| assert!(server.top_level().is_err()));
            assert!(server.top_level().is_err());
        });
        assert!(server.top_level().is_ok());
    }
}
