//! Reads the commands of an AOF, one after the other. If the AOF is incomplete, finds the exact end
//! of its valid part.
//!
//! ```text
//!   #TS:1795371147\r\n   a line that begins with `#`: the time of what follows, the position of
//!                        what precedes (`position`), or a comment
//!   *2\r\n               a command: as a client would send it, in no other form
//!   $4\r\nINCR\r\n
//!   $1\r\nk\r\n
//! ```
//!
//! A crash may leave a file that ends within a command, or whose last block was allocated and never
//! written, so that it has zeros. A file of either form has the fault [`Fault::Truncated`]:
//! everything up to its last whole command is valid. Any other bytes that are not a command are the
//! fault [`Fault::Format`], and an operator must inspect the file.
//!
//! **Invariant:** allocations are bounded by the size of the file, whatever lengths its commands
//! announce (`tests::a_length_is_not_believed`).

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

use super::position;
use crate::persist::rdb::Position;
use crate::util::number::parse_i64;

const CHUNK: usize = 256 << 10;
/// The maximum length in bytes of a line of an AOF that has a number or an annotation.
const LINE_MAX: usize = 64 << 10;
/// The limit of a command's arguments: a command of an AOF must have fewer.
const ARGC_MAX: i64 = 1 << 31;

/// The reason why the next command of an AOF can't be read.
#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// The file ends within a command, or the rest of the file is zeros.
    Truncated,
    Format {
        wanted: &'static str,
        found: Vec<u8>,
    },
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        Fault::Io(e)
    }
}

/// The next item of an AOF.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A command; its arguments are in [`AofReader::argv`].
    Command,
    /// A time annotation, `#TS:`: the Unix time in seconds of the commands that follow.
    Stamp(i64),
    /// A line `#REPL:`: the position in the replication history of the commands that precede it.
    Position(Position),
    Comment,
    End,
}

/// Reads the items of an AOF file: commands and annotations.
pub struct AofReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// The position of the next byte in `buffer`; the next field is the position of `buffer` in the
    /// file.
    pos: usize,
    start: u64,
    /// The length of the file in bytes.
    len: u64,
    args: Vec<Range<usize>>,
    /// The number of lines of the AOF that were read, for error messages.
    pub lines: u64,
}

impl<R: Read> AofReader<R> {
    /// Creates a reader that starts at `offset` of a file of `len` bytes. `source` must be at the
    /// position `offset`.
    pub fn new(source: R, offset: u64, len: u64) -> AofReader<R> {
        AofReader {
            source,
            buffer: Vec::new(),
            pos: 0,
            start: offset,
            len,
            args: Vec::new(),
            lines: 0,
        }
    }

    /// The position in the file of the next item, or of the fault.
    pub fn offset(&self) -> u64 {
        self.start + self.pos as u64
    }

    /// The arguments of the command that was read last.
    pub fn argv(&self) -> Vec<&[u8]> {
        self.args
            .iter()
            .map(|range| &self.buffer[range.clone()])
            .collect()
    }

    /// Reads the next item of the AOF. After a fault, [`AofReader::offset`] is the position of the
    /// fault.
    pub fn next_item(&mut self) -> Result<Item, Fault> {
        self.forget_consumed();
        if !self.fill(1)? {
            return Ok(Item::End);
        }
        match self.buffer[self.pos] {
            b'#' => {
                let line = self.line()?;
                let text = &self.buffer[line];
                let stamp = text.strip_prefix(b"#TS:").and_then(parse_i64);
                let position = position::parse(text).map(Item::Position);
                Ok(stamp.map(Item::Stamp).or(position).unwrap_or(Item::Comment))
            }
            b'*' => self.command().map(|()| Item::Command),
            _ => Err(self.unexpected("Expected prefix '*'")),
        }
    }

    fn command(&mut self) -> Result<(), Fault> {
        let argc = self.number(b'*', "Expected prefix '*'")?;
        if !(1..ARGC_MAX).contains(&argc) {
            return Err(self.format("Expected a number of arguments", Vec::new()));
        }
        for _ in 0..argc {
            let len = self.number(b'$', "Expected prefix '$'")?;
            let Some(len) = usize::try_from(len).ok() else {
                return Err(self.format("Expected a length", Vec::new()));
            };
            if self.offset().saturating_add(len as u64) > self.len || !self.fill(len + 2)? {
                return Err(Fault::Truncated);
            }
            self.args.push(self.pos..self.pos + len);
            self.lines +=
                memchr::memchr_iter(b'\n', &self.buffer[self.pos..self.pos + len]).count() as u64;
            self.pos += len;
            if &self.buffer[self.pos..self.pos + 2] != b"\r\n" {
                return Err(self.unexpected("Expected \\r\\n"));
            }
            self.pos += 2;
            self.lines += 1;
        }
        Ok(())
    }

    /// Reads a line like `*3\r\n`, which begins with `sign`, and returns its number.
    fn number(&mut self, sign: u8, wanted: &'static str) -> Result<i64, Fault> {
        if !self.fill(1)? {
            return Err(Fault::Truncated);
        }
        if self.buffer[self.pos] != sign {
            return Err(self.unexpected(wanted));
        }
        let before = self.pos;
        let line = self.line()?;
        match parse_i64(&self.buffer[line.start + 1..line.end]) {
            Some(n) => Ok(n),
            None => {
                self.pos = before;
                self.lines = self.lines.saturating_sub(1);
                Err(self.unexpected("Expected a number"))
            }
        }
    }

    /// Reads a line of the AOF. Returns the range of the line in the buffer, without the line end.
    fn line(&mut self) -> Result<Range<usize>, Fault> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.pos..];
            if let Some(found) = memchr(b'\n', &rest[searched..]) {
                let line = self.pos..self.pos + searched + found;
                if !self.buffer[line.clone()].ends_with(b"\r") {
                    return Err(self.unexpected("Expected \\r\\n"));
                }
                self.pos = line.end + 1;
                self.lines += 1;
                return Ok(line.start..line.end - 1);
            }
            searched = rest.len();
            if searched > LINE_MAX {
                return Err(self.unexpected("Expected \\r\\n"));
            }
            if !self.fill(searched + 1)? {
                return Err(if self.only_zeros_from(self.pos)? || !self.has_zero() {
                    Fault::Truncated
                } else {
                    self.unexpected("Expected \\r\\n")
                });
            }
        }
    }

    fn has_zero(&self) -> bool {
        self.buffer[self.pos..].contains(&0)
    }

    /// The fault for an unexpected byte at `pos`: `Truncated` if the line has a zero, and all bytes
    /// of the file from there on are zeros, otherwise `Format`.
    fn unexpected(&mut self, wanted: &'static str) -> Fault {
        let line = self.buffer[self.pos..]
            .split(|&b| b == b'\n')
            .next()
            .unwrap_or_default();
        let zero = line.iter().position(|&b| b == 0);
        if let Some(at) = zero {
            match self.only_zeros_from(self.pos + at) {
                Ok(true) => return Fault::Truncated,
                Ok(false) => {}
                Err(e) => return Fault::Io(e),
            }
        }
        let found = self.buffer[self.pos..].iter().take(40).copied().collect();
        self.format(wanted, found)
    }

    fn format(&self, wanted: &'static str, found: Vec<u8>) -> Fault {
        Fault::Format { wanted, found }
    }

    /// Whether the file has only zeros from `pos` to its end. The bytes that this function reads
    /// are not kept, since nothing is read after a fault.
    fn only_zeros_from(&mut self, pos: usize) -> io::Result<bool> {
        if self.buffer[pos..].iter().any(|&b| b != 0) {
            return Ok(false);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.source.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(n) if chunk[..n].iter().any(|&b| b != 0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn forget_consumed(&mut self) {
        self.args.clear();
        if self.pos >= CHUNK || self.pos == self.buffer.len() {
            self.buffer.drain(..self.pos);
            self.start += self.pos as u64;
            self.pos = 0;
        }
    }

    /// Reads from the file until at least `wanted` bytes follow `pos` in the buffer. Returns false
    /// if the file ends before the wanted bytes.
    fn fill(&mut self, wanted: usize) -> Result<bool, Fault> {
        while self.buffer.len() - self.pos < wanted {
            let missing = wanted - (self.buffer.len() - self.pos);
            let max = missing.max(CHUNK) as u64;
            match (&mut self.source).take(max).read_to_end(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::bulk::push_command;
    use proptest::prelude::*;

    /// Reads all commands of an AOF. Returns the commands, the end of the last whole command, and
    /// the result of the reader.
    fn read(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, u64, Result<(), Fault>) {
        let mut reader = AofReader::new(bytes, 0, bytes.len() as u64);
        let (mut commands, mut good) = (Vec::new(), 0);
        loop {
            match reader.next_item() {
                Ok(Item::End) => return (commands, good, Ok(())),
                Ok(Item::Command) => {
                    commands.push(reader.argv().iter().map(|arg| arg.to_vec()).collect());
                }
                Ok(_) => {}
                Err(fault) => return (commands, good, Err(fault)),
            }
            good = reader.offset();
        }
    }

    fn commands() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let arg = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "[\r\n*$#0]{0,9}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(proptest::collection::vec(arg, 1..5), 1..8)
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_gives_whole_commands(commands in commands(), cut in 0.0..1.0f64, zeros in 0..50usize) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for argv in &commands {
                push_command(&mut bytes, argv);
                ends.push(bytes.len());
            }
            let cut = (bytes.len() as f64 * cut) as usize;
            let mut torn = bytes[..cut].to_vec();
            let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
            let (found, good, end) = read(&torn);
            prop_assert_eq!(&found[..], &commands[..whole]);
            prop_assert_eq!(good as usize, ends[whole]);
            prop_assert_eq!(end.is_ok(), ends.contains(&cut));
            if let Err(fault) = end {
                prop_assert!(matches!(fault, Fault::Truncated), "{:?}", fault);
            }
            // The last block of the file is filled with zeros, which may happen to be the rest of
            // an argument.
            torn.resize(cut + zeros, 0);
            let (found, good, end) = read(&torn);
            prop_assert!(found.len() >= whole && good as usize >= ends[whole]);
            if let Err(fault) = end {
                prop_assert!(matches!(fault, Fault::Truncated), "{:?}", fault);
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn nearly_right_bytes_are_an_answer(text in "([*$#]|\r\n|[0-9]{1,3}|-|a){0,30}") {
            let _ = read(text.as_bytes());
        }
    }

    #[test]
    fn annotations_are_distinguished() {
        let mut reader = AofReader::new(&b"#TS:17\r\n#x\r\n*1\r\n$1\r\na\r\n"[..], 0, 24);
        let items: Vec<Item> = (0..4)
            .map(|_| reader.next_item().expect("an item"))
            .collect();
        assert_eq!(
            items,
            [Item::Stamp(17), Item::Comment, Item::Command, Item::End]
        );
        assert_eq!(reader.lines, 5);
    }

    #[test]
    fn a_length_is_not_believed() {
        for text in ["*1\r\n$99999999999999\r\nx", "*2000000000\r\n$1\r\nx\r\n"] {
            let (_, good, end) = read(text.as_bytes());
            assert_eq!(good, 0);
            assert!(matches!(end, Err(Fault::Truncated)), "{text}");
        }
    }

    #[test]
    fn garbage_is_no_torn_tail() {
        for text in [
            "!!!",
            "*1\r\n+a\r\n",
            "*1\r\n$1\r\nab\r\n",
            "*x\r\n",
            "*1\r\n$1\r\na\r\n\0\0x",
            "$1\r\n",
        ] {
            let (_, _, end) = read(text.as_bytes());
            assert!(
                matches!(end, Err(Fault::Format { .. })),
                "{text:?}: {end:?}"
            );
        }
    }
}
