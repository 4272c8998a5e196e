//! The table of all commands, in which the row and the statistics of a command are found by its
//! name in upper or lower case.
//!
//! A name is looked up for every request, so the index is a small open-addressing hash table of
//! folded names ([`Folded`]: two words and a length, compared without a loop). A client's next
//! command is usually the same as its last command, which is tried first. The id of a command is
//! its index in `entries`, where subcommands follow their container.

use crate::command::Command;
use crate::ds::thin_buffer::size_class;
use crate::util::histogram::Histogram;

/// The statistics of one command, for INFO commandstats and latencystats.
#[derive(Default)]
pub struct CommandStats {
    /// The number of calls of the command that ran.
    pub calls: u64,
    /// The time of all calls of the command, in ticks of the processor's counter.
    pub ticks: u64,
    /// The number of calls of the command that were refused before they ran.
    pub rejected: u64,
    /// The number of calls of the command that replied with an error.
    pub failed: u64,
    pub latency: Option<Box<Histogram>>,
}

/// A command in the table: its row, its names and its statistics.
pub struct CommandEntry {
    /// The name by which clients call the command (after `rename-command`), folded; unused for a
    /// subcommand.
    folded: Folded,
    /// Whether `folded` determines the name, so that equal folded names need no further comparison.
    letters_only: bool,
    pub row: &'static Command,
    /// The full name: `get`, or `config|get`.
    pub fullname: Box<str>,
    pub parent: Option<u16>,
    /// The id of the first subcommand, and the number of subcommands.
    pub subcommands: (u16, u16),
    /// The index of the first key in argv; 0 if there is no key, or the key must be searched.
    pub first_key: u16,
    /// The index of the last key in argv; a negative index counts from the end.
    pub last_key: i16,
    /// The distance between two keys in argv.
    pub key_step: u16,
    /// Whether each call has exactly one key, at `argv[first_key]`.
    pub has_one_key: bool,
    /// For a command without a `first_key`: the index in argv of the number of keys, behind which
    /// the keys follow; 0 if there is none.
    pub count_at: u16,
    /// Where argv has the elements that the command looks up in its first key, see
    /// `Command::elements`.
    pub elements: Option<(u8, u8)>,
    pub stats: CommandStats,
}

/// The table of all commands.
pub struct CommandTable {
    pub entries: Vec<CommandEntry>,
    /// The hash table of names: the command's id + 1 at each used position, 0 at a free one.
    index: Vec<u16>,
    /// The commands that `rename-command` renamed: the new name and the command's id.
    renamed: Vec<(Box<[u8]>, u16)>,
}

/// Whether all calls of a command have one key, at the same index of argv. Several key specs may
/// name the same key.
fn has_one_key(row: &Command) -> bool {
    let (first, last, _) = row.key_range();
    first > 0
        && first == last
        && !row.movable_keys()
        && row.arity.unsigned_abs() > first.unsigned_abs()
}

const INDEX_SIZE: usize = 2048;

/// A command's name in two machine words: its first and its last eight bytes, which overlap in a
/// short name, each byte with the bit set that distinguishes small letters from capitals.
///
/// ```text
///   GET        head  get                  LRANGE   head  lran      ZRANGEBYSCORE   head  zrangeby
///              tail  0                             tail    ange                    tail       gebyscore (8)
/// ```
///
/// Two equal folded names mean equal names if the name has at most 16 bytes, all of them letters;
/// for other names (`restore-asking`) the bytes have to be compared, too.
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
    /// The bytes of all latency histograms; a command gets its histogram with its first call.
    pub fn latency_memory(&self) -> usize {
        let histograms = self.entries.iter().filter(|e| e.stats.latency.is_some());
        histograms.count() * size_class(size_of::<Histogram>())
    }

    /// Makes the table of the commands in `groups`, the lists of rows of all command files.
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

    /// The entry of the command with this id.
    #[inline]
    pub fn entry(&self, id: u16) -> &CommandEntry {
        &self.entries[id as usize]
    }

    /// The row of the command with this id.
    #[inline]
    pub fn row(&self, id: u16) -> &'static Command {
        self.entries[id as usize].row
    }

    /// The id of the top-level command whose name is `name` in upper or lower case.
    #[inline]
    pub fn lookup(&self, name: &[u8]) -> Option<u16> {
        self.lookup_from(None, name)
    }

    /// Finds a command as [`CommandTable::lookup`] does, but tries the id `guess` first.
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

    /// The name by which clients call the command, after `rename-command`; empty if it is disabled.
    #[inline]
    fn said(&self, id: u16) -> &[u8] {
        if !self.renamed.is_empty()
            && let Some((said, _)) = self.renamed.iter().find(|(_, renamed)| *renamed == id)
        {
            return said;
        }
        self.entries[id as usize].row.name.as_bytes()
    }

    /// The id of the subcommand `name` of the container with the id `parent`.
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

    /// The id of the command with a full name such as `get` or `config|get`.
    pub fn lookup_fullname(&self, name: &[u8]) -> Option<u16> {
        let mut parts = name.splitn(2, |&b| b == b'|');
        let id = self.lookup(parts.next()?)?;
        match parts.next() {
            None => Some(id),
            Some(sub) => self.lookup_subcommand(id, sub),
        }
    }

    /// The id of the command with a full name as the rows have it, regardless of `rename-command`,
    /// so that rules of ACL users keep their meaning.
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

    /// The ids of all top-level commands that are not disabled.
    pub fn top_level(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.entries.len() as u16)
            .filter(|&id| self.entries[id as usize].parent.is_none() && !self.said(id).is_empty())
    }

    /// Executes `rename-command old new`; an empty new name disables the command. Returns false if
    /// the command `old` does not exist, or the name `new` is taken.
    pub fn rename(&mut self, old: &[u8], new: &[u8]) -> bool {
        let Some(id) = self.lookup(old) else {
            return false;
        };
        if self.lookup(new).is_some() {
            return false;
        }
        // The hash table of names is rebuilt, so that the probe sequences of other names have no
        // gap.
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
                // A changed bit of a byte makes another name, unless it is the bit that
                // distinguishes small letters from capitals.
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
