//! Nested turns, and the operations that are forbidden in them.
//!
//! ```text
//!   turn ─> read_handler ─> EVAL, or a load ─> nested_turn ─> handlers of other sockets
//!                                                              may read, answer, write
//!                                                              may not flush, swap or replace the data set
//! ```
//!
//! A command that runs for a long time, and the load of a data set, let the event loop turn
//! meanwhile (`execute::busy`). A command or load that lets the loop turn holds no references into
//! the data set, but relies on the data that it has read: for example, the data set must not be
//! replaced after a script has checked a key.
//!
//! So functions that replace a whole data set need a [`TopLevel`], which does not exist in a nested
//! turn.

use crate::armed;
use crate::error::Error;
use crate::state::Server;

/// Proof that only the caller's own command or load is running. Only [`Server::top_level`] creates
/// a `TopLevel`, which is passed by reference.
pub struct TopLevel(());

impl Server {
    /// The proof that the present turn is not a nested one; `Err` in a nested turn.
    pub fn top_level(&self) -> Result<TopLevel, Error> {
        match self.turn_depth {
            0 => Ok(TopLevel(())),
            _ => Err(Error::of(
                "BUSY The data set can't be replaced while a command runs on it",
            )),
        }
    }

    /// Whether the present turn was started from within a handler of another turn.
    pub fn is_nested(&self) -> bool {
        self.turn_depth > 0
    }

    /// Runs a nested turn of the event loop from within a handler. A nested turn may change the
    /// owners of slots, so the slots of the remaining commands of the handler's batch are checked
    /// again.
    pub fn nested_turn<R>(&mut self, turn: impl FnOnce(&mut Server) -> R) -> R {
        self.turn_depth += 1;
        if self.armed & armed::CLUSTER != 0 {
            self.armed |= armed::ROUTE;
        }
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

    #[test]
    fn a_nested_turn_ends_the_check_of_a_whole_batch() {
        let mut server = Server::new(Config::default(), Vec::new());
        server.nested_turn(|server| assert_eq!(server.armed & armed::ROUTE, 0));
        server.armed |= armed::CLUSTER;
        server.nested_turn(|server| assert_eq!(server.armed & armed::ROUTE, armed::ROUTE));
        assert_eq!(server.armed & armed::ROUTE, armed::ROUTE);
    }
}
