//! A unit of propagation: commands that belong together (of one command, EXEC or script) and are
//! fed to the AOF and the replicas as one transaction.
//!
//! ```text
//!   ops:    [db 0, all sinks, ends at 20] [db 3, AOF only, ends at 48]
//!   bytes:  *2..DEL..k..                  *2..INCR..k..
//!
//!   encode for the AOF:       MULTI  SELECT 0  *2..DEL..k..  SELECT 3  *2..INCR..k..  EXEC
//!   encode for the replicas:         SELECT 0  *2..DEL..k..
//! ```
//!
//! The commands of a unit are encoded once, when they are added. Only SELECT and MULTI differ
//! between the AOF and the replicas, and are written around the commands: each of these sinks has
//! its own selected database, and may get a different number of the commands.

use crate::ds::bulk::push_command;

/// A buffer to which the bytes of a unit's commands are appended.
pub trait Output {
    fn put(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A unit of propagation: commands (of one command, EXEC or script) that are propagated together,
/// encoded one after the other.
#[derive(Default)]
pub struct Unit {
    ops: Vec<Op>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Op {
    db: u32,
    /// The sinks that get the command: bits of [`super::sink`].
    sinks: u8,
    /// The end of the command's bytes, which begin at the end of the previous command.
    end: usize,
}

/// The maximum capacity in bytes of the buffer of commands that is kept for the next unit.
const KEEP_BYTES: usize = 1 << 20;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Unit {
    /// Whether no command waits in this unit of propagation.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds a command, given as its arguments, for the sinks of propagation in `sinks`.
    pub fn push<A: AsRef<[u8]>>(&mut self, db: u32, sinks: u8, argv: &[A]) {
        push_command(&mut self.bytes, argv);
        self.end_op(db, sinks);
    }

    /// Adds a command that is encoded as RESP already, for the sinks of propagation in `sinks`.
    pub fn push_encoded(&mut self, db: u32, sinks: u8, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.end_op(db, sinks);
    }

    fn end_op(&mut self, db: u32, sinks: u8) {
        let end = self.bytes.len();
        self.ops.push(Op { db, sinks, end });
    }

    /// The commands that a sink (the AOF, the replicas) gets, each as its database and its bytes.
    pub fn commands_for(&self, sink: u8) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = std::iter::once(0).chain(self.ops.iter().map(|op| op.end));
        let ops = self.ops.iter().zip(starts);
        ops.filter(move |(op, _)| op.sinks & sink != 0)
            .map(|(op, start)| (op.db, &self.bytes[start..op.end]))
    }

    /// Writes the commands that a sink gets to `out`, several commands as a transaction if
    /// `atomic`. `selected_db` is the database that is selected at the end of this sink, before and
    /// after.
    pub fn encode(
        &self,
        sink: u8,
        atomic: bool,
        selected_db: &mut Option<u32>,
        out: &mut impl Output,
    ) {
        let wrap = atomic && self.commands_for(sink).nth(1).is_some();
        if wrap {
            out.put(MULTI);
        }
        for (db, command) in self.commands_for(sink) {
            if *selected_db != Some(db) {
                *selected_db = Some(db);
                select(out, db);
            }
            out.put(command);
        }
        if wrap {
            out.put(EXEC);
        }
    }

    /// Removes all commands from this unit of propagation.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes.shrink_to(KEEP_BYTES);
        }
    }
}

/// Writes the command SELECT `db` as RESP.
#[cold]
pub fn select(out: &mut impl Output, db: u32) {
    let (mut len, mut digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let digits = digits.format(db).as_bytes();
    out.put(b"*2\r\n$6\r\nSELECT\r\n$");
    out.put(len.format(digits.len()).as_bytes());
    out.put(b"\r\n");
    out.put(digits);
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::sink;
    use super::*;

    fn encoded(unit: &Unit, sink: u8, atomic: bool, selected_db: &mut Option<u32>) -> String {
        let mut out = Vec::new();
        unit.encode(sink, atomic, selected_db, &mut out);
        String::from_utf8(out).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn each_sink_gets_its_own_select_and_multi() {
        let mut unit = Unit::default();
        unit.push(0, sink::ALL, &["DEL", "k"]);
        unit.push(12, sink::AOF, &["INCR", "k"]);
        let (mut aof, mut replicas) = (Some(0), None);
        assert_eq!(
            encoded(&unit, sink::AOF, true, &mut aof),
            "*1 $5 MULTI *2 $3 DEL $1 k *2 $6 SELECT $2 12 *2 $4 INCR $1 k *1 $4 EXEC "
        );
        assert_eq!(
            encoded(&unit, sink::REPLICAS, true, &mut replicas),
            "*2 $6 SELECT $1 0 *2 $3 DEL $1 k "
        );
        assert_eq!((aof, replicas), (Some(12), Some(0)));
        unit.clear();
        assert_eq!(encoded(&unit, sink::AOF, true, &mut aof), "");
    }

    #[test]
    fn a_unit_that_is_not_atomic_has_no_multi() {
        let mut unit = Unit::default();
        unit.push_encoded(0, sink::ALL, b"first ");
        unit.push_encoded(0, sink::ALL, b"second ");
        assert_eq!(
            encoded(&unit, sink::AOF, false, &mut Some(0)),
            "first second "
        );
    }

    #[test]
    fn select_of_any_number() {
        for db in [0, 9, 10, u32::MAX] {
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            select(&mut out, db);
            push_command(&mut expected, &["SELECT", &db.to_string()]);
            assert_eq!(out, expected);
        }
    }
}
