//! All rows in one table, found by name in any case, with the statistics of each command.
//!
//! Names are looked up for every request, so this is a small open-addressing table of folded names
//! ([`Folded`]: two words and a length, compared without a loop). A client's next command is
//! usually the same as its last, which is tried first. Ids are the indexes in `entries`; the
//! subcommands follow their container.

use crate::command::Command;
use crate::ds::thin_buffer::size_class;
use crate::util::histogram::Histogram;

/// The figures of one command in INFO commandstats and latencystats.
#[derive(Default)]
pub struct CommandStats {
    /// The number of calls that ran.
    pub calls: u64,
    /// The time of all calls, in ticks of the processor's counter.
    pub ticks: u64,
    /// The number of calls that were refused before they ran.
    pub rejected: u64,
    /// The number of calls that replied with an error.
    pub failed: u64,
    pub latency: Option<Box<Histogram>>,
}

/// A row with its names and statistics.
pub struct CommandEntry {
    /// The command's name for clients, if it is not a subcommand.
    folded: Folded,
    /// Whether `folded` determines the name.
    letters_only: bool,
    pub row: &'static Command,
    /// The full name: `get`, or `config|get`.
    pub fullname: Box<str>,
    pub parent: Option<u16>,
    /// The ids of the subcommands: the first, and their number.
    pub subcommands: (u16, u16),
    /// The index of the first key; 0 if there is none, or it must be searched.
    pub first_key: u16,
    /// The index of the last key in argv; negative from the end.
    pub last_key: i16,
    /// The distance between two keys in argv.
    pub key_step: u16,
    /// Whether `argv[first_key]` is always there and is the only key.
    pub has_one_key: bool,
    /// For a command without a `first_key`: the index of the argument that has the number of keys,
    /// which follow it; 0 if there is none.
    pub count_at: u16,
    /// The places of the elements of the first key, see `Command::elements`.
    pub elements: Option<(u8, u8)>,
    pub stats: CommandStats,
}

/// The table.
pub struct CommandTable {
    pub entries: Vec<CommandEntry>,
    /// Id + 1 by hash of the name, 0 for none.
    index: Vec<u16>,
    /// The top-level names that `rename-command` changed: (the new name, id).
    renamed: Vec<(Box<[u8]>, u16)>,
}

/// Whether all calls of a command have one key, at one place. Several specs may name this key.
fn has_one_key(row: &Command) -> bool {
    let (first, last, _) = row.key_range();
    first > 0
        && first == last
        && !row.movable_keys()
        && row.arity.unsigned_abs() > first.unsigned_abs()
}

const INDEX_SIZE: usize = 2048;

/// A name in any case as two words: its first and its last bytes, which overlap when it is short,
/// each with the bit set that distinguishes small letters from capitals.
///
/// ```text
///   GET        head  get                  LRANGE   head  lran      ZRANGEBYSCORE   head  zrangeby
///              tail  0                             tail    ange                    tail       gebyscore (8)
/// ```
///
/// Equal words mean equal names if the name is all letters and not longer than two words; for other
/// names (`restore-asking`) the bytes have to be compared too.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Folded {
    head: u64,
    tail: u64,
    len: usize,
}

impl Folded {
    #[inline]
    fn of(name: &[u8]) -> Folded {
        let len = name.len();
        let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
            _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
                (Some(head), Some(tail)) => (
                    u32::from_le_bytes(*head) as u64,
                    u32::from_le_bytes(*tail) as u64,
                ),
                _ if len == 0 => (0, 0),
                _ => {
                    let (first, middle, last) = (name[0], name[len / 2], name[len - 1]);
                    (u64::from_le_bytes([first, middle, last, 0, 0, 0, 0, 0]), 0)
                }
            },
        };
        const CASE: u64 = 0x2020_2020_2020_2020;
        Folded {
            head: head | CASE,
            tail: tail | CASE,
            len,
        }
    }

    #[inline]
    fn place(self) -> usize {
        let mixed = self.head ^ self.tail.rotate_left(29) ^ self.len as u64;
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize % INDEX_SIZE
    }
}

impl CommandTable {
    /// The bytes of the histograms of latencies, which a command gets with its first call.
    pub fn latency_memory(&self) -> usize {
        let histograms = self.entries.iter().filter(|e| e.stats.latency.is_some());
        histograms.count() * size_class(size_of::<Histogram>())
    }

    /// A table of these groups of rows.
    pub fn new(groups: &[&'static [Command]]) -> CommandTable {
        let mut table = CommandTable {
            entries: Vec::new(),
            index: vec![0; INDEX_SIZE],
            renamed: Vec::new(),
        };
        for row in groups.iter().flat_map(|group| group.iter()) {
            let id = table.push(row, None);
            table.enter(row.name.as_bytes(), id);
            let from = table.entries.len() as u16;
            for sub in row.subcommands {
                table.push(sub, Some(id));
            }
            table.entries[id as usize].subcommands = (from, row.subcommands.len() as u16);
        }
        table
    }

    fn push(&mut self, row: &'static Command, parent: Option<u16>) -> u16 {
        let fullname = match parent {
            Some(parent) => format!("{}|{}", self.entries[parent as usize].row.name, row.name),
            None => row.name.to_string(),
        };
        let (first, last, step) = row.key_range();
        self.entries.push(CommandEntry {
            folded: Folded::default(),
            letters_only: false,
            row,
            fullname: fullname.into(),
            parent,
            subcommands: (0, 0),
            first_key: first as u16,
            last_key: last,
            key_step: step as u16,
            has_one_key: has_one_key(row),
            count_at: row.count_at(),
            elements: row.elements,
            stats: CommandStats::default(),
        });
        self.entries.len() as u16 - 1
    }

    fn enter(&mut self, name: &[u8], id: u16) {
        let folded = Folded::of(name);
        let mut at = folded.place();
        while self.index[at] != 0 {
            at = (at + 1) % INDEX_SIZE;
        }
        self.index[at] = id + 1;
        let entry = &mut self.entries[id as usize];
        entry.folded = folded;
        entry.letters_only = name.len() <= 16 && name.iter().all(u8::is_ascii_alphabetic);
    }

    /// The entry of an id.
    #[inline]
    pub fn entry(&self, id: u16) -> &CommandEntry {
        &self.entries[id as usize]
    }

    /// The row of an id.
    #[inline]
    pub fn row(&self, id: u16) -> &'static Command {
        self.entries[id as usize].row
    }

    /// A top-level command by name, in any case.
    #[inline]
    pub fn lookup(&self, name: &[u8]) -> Option<u16> {
        self.lookup_from(None, name)
    }

    /// As [`CommandTable::lookup`]; `guess` is tried first.
    #[inline]
    pub fn lookup_from(&self, guess: Option<u16>, name: &[u8]) -> Option<u16> {
        let folded = Folded::of(name);
        if let Some(id) = guess
            && self.is_called(id, folded, name)
        {
            return Some(id);
        }
        let mut at = folded.place();
        loop {
            let id = self.index[at].checked_sub(1)?;
            if self.is_called(id, folded, name) {
                return Some(id);
            }
            at = (at + 1) % INDEX_SIZE;
        }
    }

    #[inline]
    fn is_called(&self, id: u16, folded: Folded, name: &[u8]) -> bool {
        let entry = &self.entries[id as usize];
        entry.folded == folded && (entry.letters_only || self.said(id).eq_ignore_ascii_case(name))
    }

    /// The name of this command for clients.
    #[inline]
    fn said(&self, id: u16) -> &[u8] {
        if !self.renamed.is_empty()
            && let Some((said, _)) = self.renamed.iter().find(|(_, renamed)| *renamed == id)
        {
            return said;
        }
        self.entries[id as usize].row.name.as_bytes()
    }

    /// The id of a subcommand of a container.
    pub fn lookup_subcommand(&self, parent: u16, name: &[u8]) -> Option<u16> {
        let (from, count) = self.entries[parent as usize].subcommands;
        (from..from + count).find(|&id| {
            self.entries[id as usize]
                .row
                .name
                .as_bytes()
                .eq_ignore_ascii_case(name)
        })
    }

    /// The id of a full name: `get`, `config|get`.
    pub fn lookup_fullname(&self, name: &[u8]) -> Option<u16> {
        let mut parts = name.splitn(2, |&b| b == b'|');
        let id = self.lookup(parts.next()?)?;
        match parts.next() {
            None => Some(id),
            Some(sub) => self.lookup_subcommand(id, sub),
        }
    }

    /// The id of a full name as the rows have it, regardless of `rename-command`: rules of ACL
    /// users keep their meaning.
    pub fn lookup_original(&self, name: &[u8]) -> Option<u16> {
        let mut parts = name.splitn(2, |&b| b == b'|');
        let said = parts.next()?;
        let is = |entry: &CommandEntry| {
            entry.parent.is_none() && entry.row.name.as_bytes().eq_ignore_ascii_case(said)
        };
        let id = self.entries.iter().position(is)? as u16;
        match parts.next() {
            None => Some(id),
            Some(sub) => self.lookup_subcommand(id, sub),
        }
    }

    /// The ids of top-level commands.
    pub fn top_level(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.entries.len() as u16)
            .filter(|&id| self.entries[id as usize].parent.is_none() && !self.said(id).is_empty())
    }

    /// `rename-command old new`; an empty new name disables the command. Returns false if there is
    /// no such command, or the new name is taken.
    pub fn rename(&mut self, old: &[u8], new: &[u8]) -> bool {
        let Some(id) = self.lookup(old) else {
            return false;
        };
        if self.lookup(new).is_some() {
            return false;
        }
        // The index is rebuilt, so that probe chains have no gap.
        self.renamed.retain(|(_, renamed)| *renamed != id);
        self.renamed.push((new.into(), id));
        self.index.fill(0);
        let top: Vec<u16> = self.top_level().collect();
        for id in top {
            let said = self.said(id).to_vec();
            self.enter(&said, id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> CommandTable {
        CommandTable::new(crate::commands::TABLE)
    }

    #[test]
    fn names_are_found_in_any_case_and_nothing_else_is() {
        let table = table();
        for id in table.top_level() {
            let name = table.row(id).name;
            let upper = name.to_ascii_uppercase();
            for said in [name, &upper] {
                assert_eq!(table.lookup(said.as_bytes()), Some(id), "{said}");
            }
            for at in 0..name.len() {
                // Changing one bit of a byte makes another name, unless the bit is that of the
                // case.
                for bit in [0x01, 0x10, 0x40, 0x80] {
                    let mut other = name.as_bytes().to_vec();
                    other[at] ^= bit;
                    let expected = table
                        .top_level()
                        .find(|&id| table.row(id).name.as_bytes().eq_ignore_ascii_case(&other));
                    assert_eq!(table.lookup(&other), expected, "{name} {at} {bit:x}");
                }
            }
            assert_eq!(table.lookup(&name.as_bytes()[..name.len() - 1]), {
                let shorter = &name.as_bytes()[..name.len() - 1];
                table
                    .top_level()
                    .find(|&id| table.row(id).name.as_bytes() == shorter)
            });
        }
        assert_eq!(table.lookup(b""), None);
        assert_eq!(table.lookup(b"restore\rasking"), None);
    }

    #[test]
    fn a_wrong_guess_changes_nothing() {
        let table = table();
        let (get, set) = (table.lookup(b"get"), table.lookup(b"set"));
        assert_eq!(table.lookup_from(get, b"SeT"), set);
        assert_eq!(table.lookup_from(get, b"gEt"), get);
        assert_eq!(table.lookup_from(get, b"no such"), None);
    }

    #[test]
    fn a_renamed_command_has_its_new_name_only() {
        let mut table = table();
        let get = table.lookup(b"get");
        assert!(table.rename(b"get", b"Fetch-It"));
        assert_eq!(table.lookup(b"FETCH-IT"), get);
        assert_eq!(table.lookup_from(get, b"get"), None);
        assert!(table.rename(b"set", b""));
        assert_eq!(table.lookup(b"set"), None);
        assert_eq!(table.lookup(b""), None);
    }
}
