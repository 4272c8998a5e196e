//! Propagation: what is fed to the AOF and to the replicas, decided in one place, once for each
//! command.
//!
//! A command that changed something is propagated as it was sent, unless it chose another form
//! (`Ctx::rewrite`: relative times, random choices) or added commands (`Ctx::also_propagate`,
//! expired keys). All commands from one command, one EXEC or one script are one [`unit`] of
//! propagation: if there are several, they are wrapped in MULTI and EXEC.
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
//! A command is encoded once, into one slice that each sink copies: mostly the request itself, byte
//! for byte. Nothing is allocated. A second sink costs a command one more copy, and nothing else
//! (`tools/bench/instructions`).
//!
//! The sinks are siblings, `aof::feed` and [`stream`]. The AOF could be a reader of the stream; but
//! the stream has bytes that the AOF must not have (PING, GETACK, what a primary sent in its own
//! words), the AOF has others (time stamps, a SELECT at the beginning of each file), its buffer is
//! handed to a thread without being copied, and most servers have only one of the two. The copy
//! that is saved would be 60 bytes for a SET.
//!
//! **Invariant:** between two top-level commands no propagation unit is open: code that propagates
//! outside of `call()` (expiry, eviction) ends its unit itself.

pub mod gate;
pub mod stream;
pub mod unit;
pub mod unsynced;

use self::unit::Unit;
use crate::client::resp::Sent;
use crate::client::{Client, flag};
use crate::command::Command;
use crate::ds::bulk::{is_command, push_command};
use crate::state::Server;

/// What is fed, as bits.
pub mod sink {
    pub const AOF: u8 = 1 << 0;
    pub const REPLICAS: u8 = 1 << 1;
    pub const ALL: u8 = AOF | REPLICAS;
}

#[derive(Default)]
pub struct Propagation {
    /// The sinks that are open: bits of [`sink`].
    sinks: u8,
    /// Sinks that a script's commands are withheld from: redis.set_repl.
    pub withheld: u8,
    /// What is propagated instead of the running command, if `is_rewritten`.
    rewritten: Vec<u8>,
    is_rewritten: bool,
    unit: Unit,
    /// A command that had to be encoded and has no other place to stand.
    scratch: Vec<u8>,
}

/// Memory that `scratch` keeps at most.
const KEEP_BYTES: usize = 1 << 20;

impl Propagation {
    /// There is a sink.
    #[inline]
    pub fn wanted(&self) -> bool {
        self.sinks != 0
    }

    /// A sink opens or closes.
    pub fn set_sink(&mut self, sink: u8, on: bool) {
        self.sinks = if on {
            self.sinks | sink
        } else {
            self.sinks & !sink
        };
    }

    /// No command waits to be fed.
    pub fn is_idle(&self) -> bool {
        self.unit.is_empty()
    }

    /// Close all sinks, while commands run that are propagated already. Returns those that
    /// [`Propagation::resume`] opens again.
    pub fn suspend(&mut self) -> u8 {
        std::mem::take(&mut self.sinks)
    }

    pub fn resume(&mut self, sinks: u8) {
        self.sinks = sinks;
    }

    /// Propagate this instead of the running command.
    pub fn rewrite<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        if self.wanted() {
            self.rewritten.clear();
            self.is_rewritten = true;
            push_command(&mut self.rewritten, argv);
        }
    }

    /// Propagate this, too, in the same unit.
    pub fn also<A: AsRef<[u8]>>(&mut self, db: u32, argv: &[A]) {
        if self.wanted() {
            self.unit.push(db, sink::ALL, argv);
        }
    }
}

#[cfg(test)]
impl Propagation {
    /// What was propagated and has not reached the sinks yet.
    pub fn take_unit(&mut self) -> Unit {
        std::mem::take(&mut self.unit)
    }
}

impl Server {
    /// An expired or evicted key is propagated as a deletion.
    pub fn propagate_deletion(&mut self, db: u32, key: &[u8], lazy: bool) {
        let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
        self.propagation.also(db, &[verb, key]);
    }

    /// What was propagated since the last call belongs together; it is fed to the sinks, unless a
    /// command that it belongs to is still open.
    pub fn end_unit(&mut self) {
        if self.nesting == 0 {
            end_unit(self, true);
        }
    }
}

/// After a command: propagate it if it changed something.
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
    // A data set that was loaded anew counts from 0 again.
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

/// The command is a propagation unit by itself: feeds it to the sinks.
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
    if sinks & sink::REPLICAS != 0 {
        server.replication.stream.command(c.db, bytes);
        c.repl_offset = server.replication.stream.end();
    }
    c.aof_offset = server.aof.offset();
}

/// As [`feed_sinks`], for a command that does not exist as bytes. It is encoded into the first
/// sink's buffer, and the next sink copies it from there, so that a long argument is not copied
/// once more.
#[inline(never)]
fn encode_and_feed_sinks(server: &mut Server, c: &mut Client, sinks: u8, argv: &[&[u8]]) {
    let stamp_s = aof_stamp(server);
    let encoded = if sinks & sink::AOF != 0 {
        let encode = |out: &mut Vec<u8>| push_command(out, argv);
        server.aof.feed.command(c.db, stamp_s, encode)
    } else {
        let scratch = &mut server.propagation.scratch;
        scratch.clear();
        scratch.shrink_to(KEEP_BYTES);
        push_command(scratch, argv);
        scratch
    };
    if sinks & sink::REPLICAS != 0 {
        server.replication.stream.command(c.db, encoded);
        c.repl_offset = server.replication.stream.end();
    }
    c.aof_offset = server.aof.offset();
}

/// The second that the AOF notes beside a command, if it does.
#[inline]
fn aof_stamp(server: &Server) -> Option<i64> {
    let annotated = server.config.aof_timestamp_enabled;
    annotated.then_some(server.clock.now_ms / 1000)
}

/// Such a command may find any number of expired keys, which have nothing to do with each other.
fn touches_arbitrary_keys(cmd: &Command) -> bool {
    matches!(cmd.name, "scan" | "randomkey")
}

/// Feed the unit to the sinks. `atomic`: several commands are wrapped in MULTI and EXEC.
fn end_unit(server: &mut Server, atomic: bool) {
    if server.propagation.unit.is_empty() {
        return;
    }
    let stamp_s = aof_stamp(server);
    let Propagation { sinks, unit, .. } = &mut server.propagation;
    if *sinks & sink::AOF != 0 {
        server.aof.feed.unit(unit, atomic, stamp_s);
    }
    if *sinks & sink::REPLICAS != 0 {
        server.replication.stream.unit(unit, atomic);
    }
    unit.clear();
}
