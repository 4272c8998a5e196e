//! The parameters of a command's function: the server, the client and the arguments. The three are
//! disjoint borrows, so that a value can be written from the keyspace straight into the reply.
//!
//! ```text
//!   fn get(ctx: &mut Ctx) -> CmdResult {
//!       match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {   // borrows ctx.server
//!           None => ctx.client.reply.null(),                      // writes ctx.client
//! ```
//!
//! The steps of every command's function are: parse -> look up -> check type -> mutate -> signal,
//! notify, dirty -> reply.
//! **Invariant:** a command's function changes nothing before its last `?`, so a command that fails
//! has no effect.

use std::sync::Arc;

use crate::armed;
use crate::client::resp::BIG_ARG_MIN;
use crate::client::{Client, flag};
use crate::command::Command;
use crate::db::Db;
use crate::error::Error;
use crate::state::Server;
use crate::util::number::{parse_f64, parse_i64};

/// The result of a command's function; `call()` writes an `Err` as an error reply.
pub type CmdResult = Result<(), Error>;
/// A function that executes a command.
pub type Proc = fn(&mut Ctx) -> CmdResult;

/// The parameters of a command's function: server, client, arguments and row of the command.
pub struct Ctx<'a> {
    pub server: &'a mut Server,
    pub client: &'a mut Client,
    pub argv: &'a [&'a [u8]],
    pub cmd: &'static Command,
    /// The buffers of the arguments that have 32 KB and more, see [`Ctx::shared_arg`].
    pub bigs: &'a [Arc<Vec<u8>>],
}

impl<'a> Ctx<'a> {
    /// The client's current database.
    #[inline]
    pub fn db(&mut self) -> &mut Db {
        &mut self.server.data.dbs[self.client.db as usize]
    }

    /// The argument at index `at` as an integer, or Redis's error for a value that is no integer.
    pub fn int(&self, at: usize) -> Result<i64, Error> {
        parse_i64(self.argv[at]).ok_or(Error::NOT_INTEGER)
    }

    /// The argument at index `at` as a double, or Redis's error for a value that is no float.
    pub fn float(&self, at: usize) -> Result<f64, Error> {
        parse_f64(self.argv[at]).ok_or(Error::NOT_FLOAT)
    }

    /// The argument at index `at` as an integer within `min..=max`; `text` is the error for any
    /// other argument.
    pub fn int_in(&self, at: usize, min: i64, max: i64, text: &'static str) -> Result<i64, Error> {
        match parse_i64(self.argv[at]) {
            Some(n) if (min..=max).contains(&n) => Ok(n),
            _ => Err(Error::of(text)),
        }
    }

    /// Whether the argument at index `at` is the word `option`, in upper or lower case.
    #[inline]
    pub fn is(&self, at: usize, option: &str) -> bool {
        self.argv
            .get(at)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(option.as_bytes()))
    }

    /// The buffer of the argument at index `at` if it has 32 KB or more: it can become a value
    /// without a copy.
    #[inline]
    pub fn shared_arg(&self, at: usize) -> Option<&'a Arc<Vec<u8>>> {
        if self.bigs.is_empty() {
            return None;
        }
        let arg = self.argv[at];
        let same = |big: &&Arc<Vec<u8>>| big.as_ptr() == arg.as_ptr() && big.len() == arg.len();
        self.bigs
            .iter()
            .find(same)
            .filter(|big| big.len() >= BIG_ARG_MIN)
    }

    /// The maximum length in bytes of a string that the client's command may make. Commands of the
    /// primary, of the AOF and of a node that gives slots away may make strings of any length.
    pub fn max_string_len(&self) -> usize {
        if self.client.must_obey() {
            return isize::MAX as usize;
        }
        usize::try_from(self.server.config.proto_max_bulk_len).unwrap_or(usize::MAX)
    }

    /// Whether a key or field with the expiry time `at_ms` would be deleted at once. In
    /// `import-mode`, and for commands of the primary, of the AOF and of a node that gives slots
    /// away, no key is deleted at once: their source sends the deletion.
    pub fn is_past(&self, at_ms: i64) -> bool {
        at_ms <= self.server.clock.now_ms
            && !self.client.must_obey()
            && self.server.armed & armed::IMPORT == 0
    }

    /// Records that the command has given `key` an expiry time.
    #[inline]
    pub fn note_expiry(&mut self, key: &[u8], at_ms: i64) {
        self.server.note_expiry(self.client.db, key, at_ms);
    }

    /// Counts `n` changes of the data set, on which propagation and save points depend.
    #[inline]
    pub fn dirty(&mut self, n: u64) {
        self.server.dirty += n;
    }

    /// Propagates `argv` in place of the running command (for relative times, random choices).
    pub fn rewrite<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        self.server.propagation.rewrite(argv);
    }

    /// Propagates `argv` as another command after the running command.
    pub fn also_propagate<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        let db = self.client.db;
        self.server.propagation.also(db, argv);
    }

    /// Propagates only the commands that [`Ctx::also_propagate`] adds, not the running command
    /// itself.
    pub fn prevent_propagation(&mut self) {
        if self.server.propagation.wanted() {
            self.client.set(flag::PREVENT_PROPAGATION);
        }
    }

    /// Notes that the command has changed `key`: notifies clients that watch it, cache it or are
    /// blocked on it, and sends the keyspace event.
    #[inline]
    pub fn changed(&mut self, key: &[u8], class: u32, event: &'static str) {
        let db = self.client.db;
        self.server.signal_modified(Some(self.client), db, key);
        self.server.notify(class, event, key, db);
    }
}
