//! Propagation: what the AOF and the replicas are told, decided in one place, once for each command.
//!
//! A command that changed something is told as it was sent, unless it said what to tell instead
//! (`Ctx::rewrite`: relative times, random choices) or in addition (`Ctx::also_propagate`, expired keys).
//! Everything from one command, or from one EXEC or script, is one unit: more than one entry is wrapped in
//! MULTI and EXEC.
//!
//! ```text
//!   DEL k (expired) ┐                    ops:    [db 0, ends at 20] [db 0, ends at 48]
//!   INCR k          ┴─> after_call ─>    bytes:  *2..DEL..k.. *2..INCR..k..
//!                                          │ end_unit: the command is over, and no EXEC or script is open
//!                                          v
//!                         each sink:     MULTI  SELECT 0 (if it was elsewhere)  bytes  EXEC
//! ```
//!
//! A command is encoded once, straight from its arguments, into memory that is used again: nothing is allocated.
//! The usual unit, one command that only the log is told, goes where the log writes it from and never stands in
//! between; mostly it is the request as it came, byte for byte. Each sink remembers which database it told last.
//!
//! **Invariant:** between two top-level commands no unit is open: whoever tells something outside of `call()`
//! (expiry, eviction) ends its unit itself.

use crate::client::resp::Sent;
use crate::client::{Client, flag};
use crate::command::Command;
use crate::ds::bulk::{is_command, push_command};
use crate::state::Server;

/// Who is told, as bits.
pub mod to {
    pub const AOF: u8 = 1 << 0;
    pub const REPLICAS: u8 = 1 << 1;
    pub const ALL: u8 = AOF | REPLICAS;
}

#[derive(Default)]
pub struct Propagation {
    /// Who listens: bits of [`to`].
    sinks: u8,
    /// Who is not told of a script's commands: redis.set_repl.
    pub withheld: u8,
    /// What the running command wants told instead of itself, if `is_rewritten`.
    rewritten: Vec<u8>,
    is_rewritten: bool,
    unit: Unit,
}

/// Commands that belong together, encoded one after the other.
#[derive(Default)]
pub struct Unit {
    ops: Vec<Op>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Op {
    db: u32,
    to: u8,
    /// Where its bytes end; they begin where the last one's end.
    end: usize,
}

/// What a unit leaves behind is kept for the next one, up to this size.
const KEEP_BYTES: usize = 1 << 20;

impl Propagation {
    /// Somebody listens.
    #[inline]
    pub fn wanted(&self) -> bool {
        self.sinks != 0
    }

    /// One of the listeners comes or goes.
    pub fn set_sink(&mut self, sink: u8, on: bool) {
        self.sinks = if on {
            self.sinks | sink
        } else {
            self.sinks & !sink
        };
    }

    pub fn has_sink(&self, sink: u8) -> bool {
        self.sinks & sink != 0
    }

    /// Tell this instead of the running command.
    pub fn rewrite<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        if self.wanted() {
            self.rewritten.clear();
            self.is_rewritten = true;
            push_command(&mut self.rewritten, argv);
        }
    }

    /// Tell this, too, in the same unit.
    pub fn also<A: AsRef<[u8]>>(&mut self, db: u32, argv: &[A]) {
        if self.wanted() {
            self.unit.push(db, to::ALL, argv);
        }
    }
}

#[cfg(test)]
impl Propagation {
    /// What was told and is not out yet.
    pub fn take_unit(&mut self) -> Unit {
        std::mem::take(&mut self.unit)
    }
}

impl Unit {
    fn push<A: AsRef<[u8]>>(&mut self, db: u32, to: u8, argv: &[A]) {
        push_command(&mut self.bytes, argv);
        self.end_op(db, to);
    }

    fn end_op(&mut self, db: u32, to: u8) {
        let end = self.bytes.len();
        self.ops.push(Op { db, to, end });
    }

    /// The commands for one sink: (database, bytes).
    pub fn told_to(&self, sink: u8) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = std::iter::once(0).chain(self.ops.iter().map(|op| op.end));
        let ops = self.ops.iter().zip(starts);
        ops.filter(move |(op, _)| op.to & sink != 0)
            .map(|(op, start)| (op.db, &self.bytes[start..op.end]))
    }

    fn clear(&mut self) {
        self.ops.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes.shrink_to(KEEP_BYTES);
        }
    }
}

impl Server {
    /// An expired or evicted key is told as a deletion.
    pub fn propagate_deletion(&mut self, db: u32, key: &[u8], lazy: bool) {
        let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
        self.propagation.also(db, &[verb, key]);
    }

    /// What was told since the last call belongs together; it goes out, unless a command is still open that it
    /// belongs to.
    pub fn end_unit(&mut self) {
        if self.nesting == 0 {
            end_unit(self, true);
        }
    }
}

/// After a command: if it changed something, tell.
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
    let told = propagation.sinks & !propagation.withheld;
    let prevented = c.has(flag::PREVENT_PROPAGATION);
    c.clear(flag::PREVENT_PROPAGATION);
    if changed && told != 0 && !prevented {
        if told == to::AOF && server.nesting == 0 && propagation.unit.ops.is_empty() {
            return tell_log(server, c, argv, sent, rewritten);
        }
        let unit = &mut propagation.unit;
        if rewritten {
            unit.bytes.extend_from_slice(&propagation.rewritten);
            unit.end_op(c.db, told);
        } else {
            unit.push(c.db, told, argv);
        }
    }
    if server.nesting == 0 && !server.propagation.unit.ops.is_empty() {
        end_unit(server, !touches_arbitrary_keys(cmd));
        c.aof_offset = server.aof.offset();
    }
}

/// The command is a unit by itself, and only the log is told.
#[inline]
fn tell_log(server: &mut Server, c: &mut Client, argv: &[&[u8]], sent: Sent, rewritten: bool) {
    let stamp_s = log_stamp(server);
    let propagation = &server.propagation;
    server.aof.feed.command(c.db, stamp_s, |out| {
        if rewritten {
            out.extend_from_slice(&propagation.rewritten);
        } else if is_command(sent.bytes, argv) {
            out.extend_from_slice(sent.bytes);
        } else {
            push_command(out, argv);
        }
    });
    c.aof_offset = server.aof.offset();
}

/// The second that the log notes beside what it is told, if it does.
#[inline]
fn log_stamp(server: &Server) -> Option<i64> {
    let annotated = server.config.aof_timestamp_enabled;
    annotated.then_some(server.clock.now_ms / 1000)
}

/// Such a command may find any number of expired keys, which have nothing to do with each other.
fn touches_arbitrary_keys(cmd: &Command) -> bool {
    matches!(cmd.name, "scan" | "randomkey")
}

/// Give the unit to whoever listens. `atomic`: several commands are wrapped in MULTI and EXEC.
fn end_unit(server: &mut Server, atomic: bool) {
    if server.propagation.unit.ops.is_empty() {
        return;
    }
    let stamp_s = log_stamp(server);
    let Propagation { sinks, unit, .. } = &mut server.propagation;
    let count = unit.told_to(to::AOF).count();
    if *sinks & to::AOF != 0 && count > 0 {
        server.aof.feed.unit(unit, atomic && count > 1, stamp_s);
    }
    unit.clear();
}
