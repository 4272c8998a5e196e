//! Collects the changes for nodes to which slots of this node move: a sink of propagation that
//! takes only the commands on keys of these slots.
//!
//! ```text
//!   command ─> slot of its first key ─┬─ moves to node 1 ─> SELECT?  bytes ─┐
//!                                     ├─ moves to node 2 ─> SELECT?  bytes ─┼─ taken at the end of the turn,
//!                                     └─ stays              -               ┘  when the snapshot has been sent
//! ```
//!
//! In cluster mode a command has keys of one slot only. Transactions are sent without MULTI, since
//! no client sees the keys at the target before the slots belong to it.
//!
//! The changes could also be read from the replication stream. But the replication stream does not
//! state the slots of its commands, so each command would have to be parsed again, also the
//! commands on slots that stay, and a primary without replicas has no stream. The sink for slot
//! moves parses commands, to find their keys, only while slots move.
//!
//! **Limit:** commands without keys are not sent. FLUSHALL, FLUSHDB and CLUSTER FLUSHSLOT end a
//! move of slots.

use super::unit::select;
use crate::cluster::bitmap::Bitmap;
use crate::cluster::name::Name;
use crate::command::keys::{self, KeyRef};
use crate::command::table::CommandTable;
use crate::db::slot::key_slot;

/// The collected changes of one move of slots, for its target node.
struct Export {
    job: Name,
    slots: Bitmap,
    /// The database of the last collected command; `None` if the next command must be preceded by
    /// SELECT.
    selected_db: Option<u32>,
    bytes: Vec<u8>,
}

/// The collected changes of all moves of slots for which a child has begun to send the keys.
#[derive(Default)]
pub struct Exports {
    all: Vec<Export>,
    found: Vec<KeyRef>,
}

impl Exports {
    /// Whether changes are collected for no move of slots.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Begins to collect the changes of `slots` for the slot move `job`.
    pub fn add(&mut self, job: Name, slots: Bitmap) {
        self.all.push(Export {
            job,
            slots,
            selected_db: None,
            bytes: Vec::new(),
        });
    }

    /// Ends the collection for a slot move, and drops what it has collected.
    pub fn remove(&mut self, job: &Name) {
        self.all.retain(|export| export.job != *job);
    }

    /// The number of bytes that are collected for a slot move.
    pub fn len(&self, job: &Name) -> usize {
        let found = self.all.iter().find(|export| export.job == *job);
        found.map_or(0, |export| export.bytes.len())
    }

    /// Takes the bytes that are collected for a slot move.
    pub fn take(&mut self, job: &Name) -> Vec<u8> {
        let found = self.all.iter_mut().find(|export| export.job == *job);
        found.map_or_else(Vec::new, |export| std::mem::take(&mut export.bytes))
    }

    /// The memory of the collected bytes of all slot moves.
    pub fn memory(&self) -> usize {
        self.all.iter().map(|export| export.bytes.capacity()).sum()
    }

    /// Collects a command, as RESP in `bytes`, for the slot moves that contain the slot of its
    /// first key.
    #[cold]
    #[inline(never)]
    pub fn command(&mut self, commands: &CommandTable, db: u32, bytes: &[u8]) {
        let Some(slot) = slot_of(commands, bytes, &mut self.found) else {
            return;
        };
        for export in &mut self.all {
            if export.slots.contains(slot) {
                if export.selected_db != Some(db) {
                    export.selected_db = Some(db);
                    select(&mut export.bytes, db);
                }
                export.bytes.extend_from_slice(bytes);
            }
        }
    }
}

/// The hash slot of a command's first key; `None` if the command has no keys.
fn slot_of(commands: &CommandTable, bytes: &[u8], found: &mut Vec<KeyRef>) -> Option<u16> {
    let argv = args_of(bytes)?;
    let row = commands.row(commands.lookup(argv.first()?)?);
    found.clear();
    keys::get_keys(row, &argv, found).ok()?;
    let key = found.first()?;
    Some(key_slot(argv.get(key.pos as usize)?))
}

/// The arguments of a command that is encoded as RESP; `None` if the encoding is wrong.
fn args_of(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = header(bytes, b'*')?;
    let mut argv = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let (len, after) = header(rest, b'$')?;
        argv.push(after.get(..len)?);
        rest = after.get(len..)?.strip_prefix(b"\r\n")?;
    }
    Some(argv)
}

/// The number in a RESP header, and the bytes behind the header.
fn header(bytes: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let bytes = bytes.strip_prefix(&[kind])?;
    let end = memchr::memchr(b'\r', bytes)?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, bytes[end..].strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::bulk::push_command;
    use crate::testing::server_with;

    #[test]
    fn each_move_gets_the_changes_of_its_slots() {
        let server = server_with(0);
        let name = |byte: u8| Name::parse(&[byte; 40]).expect("a name");
        let set = |key: &str| [key_slot(key.as_bytes())].into_iter().collect::<Bitmap>();
        let mut exports = Exports::default();
        exports.add(name(b'a'), set("x"));
        exports.add(name(b'b'), set("y"));
        let feed = |exports: &mut Exports, db: u32, argv: &[&str]| {
            let mut bytes = Vec::new();
            push_command(&mut bytes, argv);
            exports.command(&server.commands, db, &bytes);
        };
        feed(&mut exports, 0, &["SET", "x", "1"]);
        feed(&mut exports, 0, &["SET", "y", "1"]);
        feed(&mut exports, 0, &["SET", "z", "1"]);
        feed(&mut exports, 0, &["PUBLISH", "x", "x"]);
        feed(&mut exports, 2, &["DEL", "x"]);
        feed(&mut exports, 2, &["EVAL", "return 1", "1", "x"]);
        let mut text = |job: u8| {
            let bytes = exports.take(&name(job));
            String::from_utf8(bytes).expect("text").replace("\r\n", " ")
        };
        assert_eq!(
            text(b'a'),
            "*2 $6 SELECT $1 0 *3 $3 SET $1 x $1 1 *2 $6 SELECT $1 2 *2 $3 DEL $1 x \
             *4 $4 EVAL $8 return 1 $1 1 $1 x "
        );
        assert_eq!(text(b'b'), "*2 $6 SELECT $1 0 *3 $3 SET $1 y $1 1 ");
        assert_eq!(text(b'a'), "", "it was taken");
        exports.remove(&name(b'a'));
        feed(&mut exports, 0, &["SET", "x", "1"]);
        assert_eq!(exports.len(&name(b'a')), 0);
    }

    #[test]
    fn what_is_no_command_has_no_arguments() {
        for bytes in [
            &b""[..],
            b"*1\r\n",
            b"*1\r\n$5\r\nab\r\n",
            b"*x\r\n",
            b"*1\r\n$1\r\nab",
        ] {
            assert_eq!(args_of(bytes), None);
        }
        assert_eq!(args_of(b"*0\r\n"), Some(Vec::new()));
    }
}
