//! Propagation: decides, once for each command, which bytes are fed to the AOF, the replicas and
//! the targets of slot moves.
//!
//! A command that changed something is propagated as it was sent, unless it sets another form
//! (`Ctx::rewrite`: relative times, random choices) or adds commands (`Ctx::also_propagate`,
//! expired keys). The propagated commands of one command, one EXEC or one script are one [`unit`]:
//! if a unit has several commands, they are wrapped in MULTI and EXEC.
//!
//! ```text
//!                       alone, the usual case
//!   INCR k ─> after_call ──────────────────────> feed_sinks ──┬─> AOF:       SELECT?  bytes
//!                  │                                          └─> replicas:  SELECT?  bytes
//!                  │ among others
//!                  v                                          ┌─> AOF:       MULTI?  SELECT?  bytes ..  EXEC?
//!   DEL k (expired) ─> unit ─> end_unit: the command is over ─┤
//!                              and no EXEC or script is open  └─> replicas:  MULTI?  SELECT?  bytes ..  EXEC?
//! ```
//!
//! A command is encoded once, into one slice that each sink copies: usually the request itself,
//! byte for byte. Propagating a single command allocates nothing. A second sink (such as the stream
//! beside the AOF) costs one more copy of each command, and nothing else
//! (`tools/bench/instructions`).
//!
//! The sinks, `aof::feed` and [`stream`], are independent. The AOF could be a reader of the stream.
//! But the replication stream has bytes that the AOF must not have (PING, GETACK, the bytes of a
//! primary), the AOF has bytes of its own (time stamps, a SELECT at the beginning of each file),
//! the AOF's buffer is handed to a thread without a copy, and most servers have only one of the two
//! sinks. A common buffer of AOF and stream would save a copy of 60 bytes for a SET.
//!
//! **Invariant:** between two top-level commands no propagation unit is open: code that propagates
//! outside of `call()` (expiry, eviction) ends its unit itself.

pub mod exports;
pub mod gate;
pub mod stream;
pub mod unit;
pub mod unsynced;

use self::exports::Exports;
use self::unit::Unit;
use crate::client::resp::Sent;
use crate::client::{Client, flag};
use crate::command::Command;
use crate::ds::bulk::{is_command, push_command};
use crate::state::Server;

/// The sinks of propagation, which get the changed commands, as bits.
pub mod sink {
    /// The AOF, which gets all changes.
    pub const AOF: u8 = 1 << 0;
    /// The replication stream, which gets all changes.
    pub const REPLICAS: u8 = 1 << 1;
    /// The targets of slot moves, which get the changes of the moving slots only.
    pub const EXPORTS: u8 = 1 << 2;
    /// All sinks of propagation: AOF, replication stream and slot moves.
    pub const ALL: u8 = AOF | REPLICAS | EXPORTS;
}

/// The state of propagation: the open sinks, and the commands that are not fed to them yet.
#[derive(Default)]
pub struct Propagation {
    /// The open sinks: bits of [`sink`].
    sinks: u8,
    /// The sinks that get no commands of the running script, as it has requested by redis.set_repl.
    pub withheld: u8,
    /// The command that is propagated in place of the running command, if `is_rewritten` is set.
    rewritten: Vec<u8>,
    is_rewritten: bool,
    unit: Unit,
    /// The changes that are collected for nodes to which slots move.
    pub exports: Exports,
    /// A buffer in which a command is encoded, if no sink's buffer can be used for that.
    scratch: Vec<u8>,
}

/// The maximum capacity in bytes of `scratch` that is kept for the next command.
const KEEP_BYTES: usize = 1 << 20;

impl Propagation {
    /// Whether any sink of propagation is open.
    #[inline]
    pub fn wanted(&self) -> bool {
        self.sinks != 0
    }

    /// Opens or closes a sink of propagation.
    pub fn set_sink(&mut self, sink: u8, on: bool) {
        self.sinks = if on {
            self.sinks | sink
        } else {
            self.sinks & !sink
        };
    }

    /// Whether no command waits to be fed to the sinks.
    pub fn is_idle(&self) -> bool {
        self.unit.is_empty()
    }

    /// Closes all sinks of propagation while commands run that have been propagated already, such
    /// as those of the AOF at a load. Returns the sinks for [`Propagation::resume`].
    pub fn suspend(&mut self) -> u8 {
        std::mem::take(&mut self.sinks)
    }

    /// Opens the sinks of propagation that [`Propagation::suspend`] returned.
    pub fn resume(&mut self, sinks: u8) {
        self.sinks = sinks;
    }

    /// Propagates the command `argv` in place of the running command.
    pub fn rewrite<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        if self.wanted() {
            self.rewritten.clear();
            self.is_rewritten = true;
            push_command(&mut self.rewritten, argv);
        }
    }

    /// Propagates a further command, in one transaction with the running command.
    pub fn also<A: AsRef<[u8]>>(&mut self, db: u32, argv: &[A]) {
        if self.wanted() {
            self.unit.push(db, sink::ALL, argv);
        }
    }

    /// Propagates the running command, which changes no key, to replicas only.
    #[inline]
    pub fn to_replicas(&mut self, db: u32, argv: &[&[u8]]) {
        let sinks = self.sinks & !self.withheld & sink::REPLICAS;
        if sinks != 0 {
            self.unit.push(db, sinks, argv);
        }
    }
}

#[cfg(test)]
impl Propagation {
    /// Takes the commands that have not been fed to the sinks yet.
    pub fn take_unit(&mut self) -> Unit {
        std::mem::take(&mut self.unit)
    }
}

impl Server {
    /// Propagates an expired or evicted key as a deletion.
    pub fn propagate_deletion(&mut self, db: u32, key: &[u8], lazy: bool) {
        let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
        self.propagation.also(db, &[verb, key]);
    }

    /// Feeds the commands that wait for propagation to the AOF, the replicas and slot moves, as one
    /// transaction, unless a command that has added commands still runs.
    pub fn end_unit(&mut self) {
        if self.nesting == 0 {
            end_unit(self, true);
        }
    }
}

/// Called after a command: propagates the command if it changed something, that is, if
/// `server.dirty` exceeds `dirty`, its value before.
pub fn after_call(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    sent: Sent,
    cmd: &Command,
    dirty: u64,
) {
    let propagation = &mut server.propagation;
    let rewritten = std::mem::take(&mut propagation.is_rewritten);
    // The comparison is `>` and not `!=`, since a load (DEBUG RELOAD) sets the counter to 0.
    let changed = server.dirty > dirty;
    let sinks = propagation.sinks & !propagation.withheld;
    let prevented = c.has(flag::PREVENT_PROPAGATION);
    c.clear(flag::PREVENT_PROPAGATION);
    if changed && sinks != 0 && !prevented {
        if server.nesting == 0 && propagation.unit.is_empty() {
            return feed_sinks(server, c, sinks, argv, sent, rewritten);
        }
        let unit = &mut propagation.unit;
        if rewritten {
            unit.push_encoded(c.db, sinks, &propagation.rewritten);
        } else {
            unit.push(c.db, sinks, argv);
        }
    }
    if server.nesting == 0 && !server.propagation.unit.is_empty() {
        end_unit(server, !touches_arbitrary_keys(cmd));
        c.aof_offset = server.aof.offset();
        c.repl_offset = server.replication.stream.end();
    }
}

/// Feeds a command that is propagated alone, without MULTI, to the sinks.
#[inline]
fn feed_sinks(
    server: &mut Server,
    c: &mut Client,
    sinks: u8,
    argv: &[&[u8]],
    sent: Sent,
    rewritten: bool,
) {
    let bytes = if rewritten {
        &server.propagation.rewritten
    } else if is_command(sent.bytes, argv) {
        sent.bytes
    } else {
        return encode_and_feed_sinks(server, c, sinks, argv);
    };
    if sinks & sink::AOF != 0 {
        let stamp_s = aof_stamp(server);
        let copy = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        server.aof.feed.command(c.db, stamp_s, copy);
    }
    if sinks & sink::EXPORTS != 0 {
        server
            .propagation
            .exports
            .command(&server.commands, c.db, bytes);
    }
    if sinks & sink::REPLICAS != 0 {
        server.replication.stream.command(c.db, bytes);
        c.repl_offset = server.replication.stream.end();
    }
    c.aof_offset = server.aof.offset();
}

/// Feeds a command that is not encoded as RESP yet to the sinks. The command is encoded into the
/// buffer of the first sink, and the other sinks copy it from that buffer, so that a long argument
/// is copied only once for each sink.
#[inline(never)]
fn encode_and_feed_sinks(server: &mut Server, c: &mut Client, sinks: u8, argv: &[&[u8]]) {
    let stamp_s = aof_stamp(server);
    let Propagation {
        scratch, exports, ..
    } = &mut server.propagation;
    let encoded = if sinks & sink::AOF != 0 {
        let encode = |out: &mut Vec<u8>| push_command(out, argv);
        server.aof.feed.command(c.db, stamp_s, encode)
    } else {
        scratch.clear();
        scratch.shrink_to(KEEP_BYTES);
        push_command(scratch, argv);
        scratch
    };
    if sinks & sink::EXPORTS != 0 {
        exports.command(&server.commands, c.db, encoded);
    }
    if sinks & sink::REPLICAS != 0 {
        server.replication.stream.command(c.db, encoded);
        c.repl_offset = server.replication.stream.end();
    }
    c.aof_offset = server.aof.offset();
}

/// The Unix time in seconds for the AOF's time annotation; `None` if `aof-timestamp-enabled` is
/// off.
#[inline]
fn aof_stamp(server: &Server) -> Option<i64> {
    let annotated = server.config.aof_timestamp_enabled;
    annotated.then_some(server.clock.now_ms / 1000)
}

/// Whether a command may find any number of expired keys, whose deletions need no common
/// transaction.
fn touches_arbitrary_keys(cmd: &Command) -> bool {
    matches!(cmd.name, "scan" | "randomkey")
}

/// Feeds the unit, the commands that wait for propagation, to the sinks. If `atomic`, several
/// commands are wrapped in MULTI and EXEC.
fn end_unit(server: &mut Server, atomic: bool) {
    if server.propagation.unit.is_empty() {
        return;
    }
    let stamp_s = aof_stamp(server);
    let Propagation {
        sinks,
        unit,
        exports,
        ..
    } = &mut server.propagation;
    if *sinks & sink::AOF != 0 {
        server.aof.feed.unit(unit, atomic, stamp_s);
    }
    if *sinks & sink::REPLICAS != 0 {
        server.replication.stream.unit(unit, atomic);
    }
    if *sinks & sink::EXPORTS != 0 {
        for (db, command) in unit.commands_for(sink::EXPORTS) {
            exports.command(&server.commands, db, command);
        }
    }
    unit.clear();
}
