//! The file of a recording: blocks of entries, each block with a checksum.
//!
//! ```text
//!   "AERISREC" version:1   block*          block := length:4  checksum:8 (FNV-1a)  entry*
//!
//!   entry := tag:1 number*                 numbers are LEB128; those of 1 .. 7 are differences to the source's last number
//!     1 .. 7        a number: the counter, a clock, the seed, the memory, another fact
//!     16 Text       length, bytes          17 Outcome   result
//!     18 Read       fd, result, bytes      19 Write     fd, bytes offered, result, hash and head of what was sent
//!     20 Poll       result, events and hash so far, changes
//!     21 End        reason, totals
//!
//!   result := n << 1, or an error's number << 1 | 1
//! ```
//!
//! An entry never crosses the end of a block. A recording without its `End`, or with half a block
//! at its end, comes from a server that was killed; any other fault of the file, bytes behind its
//! `End` included, is an error.

use std::fmt;
use std::io::{self, Read};

use crate::sys::error_text;
use crate::util::fnv;

/// The first bytes of a recording's file; the last of them is the version of the format.
pub const MAGIC: &[u8; 9] = b"AERISREC\x01";
/// The maximum size in bytes of a block that is read. A block ends with the entry that fills it,
/// and an entry has at most the bytes of one read from a socket.
const BLOCK_MAX: u32 = 64 << 20;
/// The maximum number of changes that one poll reports.
const CHANGES_MAX: u64 = 1 << 20;

/// The sources of the numbers in a recording. An entry with a number has the number's source as its
/// tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Input {
    /// The processor's counter (`sys::ticks`).
    Ticks = 1,
    /// The wall clock in microseconds.
    Unix = 2,
    /// The monotonic clock in nanoseconds (`sys::instant`).
    Monotonic = 3,
    /// The clock of the loop's timers in `ae`.
    Loop = 4,
    Seed = 5,
    /// The bytes of memory in use.
    Memory = 6,
    /// A number from the machine or another thread that has no source of its own here: a pid, a
    /// signal, an object count.
    Fact = 7,
}

impl Input {
    /// The name of the source in the report of a replay that differs.
    pub fn name(self) -> &'static str {
        match self {
            Input::Ticks => "a reading of the processor's counter",
            Input::Unix => "a reading of the wall clock",
            Input::Monotonic => "a reading of the monotonic clock",
            Input::Loop => "a reading of the loop's clock",
            Input::Seed => "a seed",
            Input::Memory => "a number of bytes in use",
            Input::Fact => "a fact of the machine",
        }
    }
}

const INPUTS: [Input; 7] = [
    Input::Ticks,
    Input::Unix,
    Input::Monotonic,
    Input::Loop,
    Input::Seed,
    Input::Memory,
    Input::Fact,
];

const TEXT: u8 = 16;
const OUTCOME: u8 = 17;
const READ: u8 = 18;
const WRITE: u8 = 19;
const POLL: u8 = 20;
const END: u8 = 21;

/// The result of a system call: a number, or the number of its error.
pub type Outcome = Result<u64, i32>;

/// The counts and the hashes, so far, of the trace's events and of the replies.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    pub reply_bytes: u64,
    pub replies: u64,
    pub event_count: u64,
    pub events: u64,
}

/// An entry of the recording: an input, or a fact that a replay compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TapeEntry<'a> {
    Number(Input, u64),
    Text(&'a [u8]),
    Outcome(Outcome),
    Read {
        fd: u64,
        outcome: Outcome,
        bytes: &'a [u8],
    },
    Write(Write<'a>),
    Poll {
        outcome: Outcome,
        event_count: u64,
        events: u64,
        changes: Vec<(u64, u8)>,
    },
    End {
        reason: &'a [u8],
        totals: Totals,
    },
}

/// A write to a socket, as a recording contains it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write<'a> {
    /// The number by which the recording names the socket.
    pub fd: u64,
    /// The number of bytes that were passed to the socket.
    pub offered: u64,
    pub outcome: Outcome,
    /// The hash of the bytes that the socket accepted.
    pub hash: u64,
    /// The first bytes that the socket accepted.
    pub head: &'a [u8],
}

/// Encodes and decodes the entries of a recording in their order: a number is encoded as the
/// difference to the last number of its source.
#[derive(Default)]
pub struct Codec {
    last: [u64; INPUTS.len() + 1],
}

impl Codec {
    /// Appends an entry to `out` in the form of the file.
    pub fn encode(&mut self, entry: &TapeEntry, out: &mut Vec<u8>) {
        match entry {
            TapeEntry::Number(input, number) => {
                out.push(*input as u8);
                let last = std::mem::replace(&mut self.last[*input as usize], *number);
                let difference = number.wrapping_sub(last) as i64;
                put(out, (difference << 1 ^ difference >> 63) as u64);
            }
            TapeEntry::Text(bytes) => {
                out.push(TEXT);
                put_bytes(out, bytes);
            }
            TapeEntry::Outcome(outcome) => {
                out.push(OUTCOME);
                put_outcome(out, outcome);
            }
            TapeEntry::Read { fd, outcome, bytes } => {
                out.push(READ);
                put(out, *fd);
                put_outcome(out, outcome);
                put_bytes(out, bytes);
            }
            TapeEntry::Write(write) => {
                out.push(WRITE);
                put(out, write.fd);
                put(out, write.offered);
                put_outcome(out, &write.outcome);
                put(out, write.hash);
                put_bytes(out, write.head);
            }
            TapeEntry::Poll {
                outcome,
                event_count,
                events,
                changes,
            } => {
                out.push(POLL);
                put_outcome(out, outcome);
                put(out, *event_count);
                put(out, *events);
                put(out, changes.len() as u64);
                for (token, ready) in changes {
                    put(out, *token);
                    out.push(*ready);
                }
            }
            TapeEntry::End { reason, totals } => {
                out.push(END);
                put_bytes(out, reason);
                put(out, totals.reply_bytes);
                put(out, totals.replies);
                put(out, totals.event_count);
                put(out, totals.events);
            }
        }
    }

    /// Decodes the first entry of `bytes` and removes it from them. `None`: the bytes are no entry.
    pub fn decode<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<TapeEntry<'a>> {
        let tag = byte(bytes)?;
        if let Some(&input) = INPUTS.iter().find(|input| **input as u8 == tag) {
            let zigzag = number(bytes)?;
            let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            let last = &mut self.last[tag as usize];
            *last = last.wrapping_add(difference as u64);
            return Some(TapeEntry::Number(input, *last));
        }
        Some(match tag {
            TEXT => TapeEntry::Text(text(bytes)?),
            OUTCOME => TapeEntry::Outcome(outcome(bytes)?),
            READ => TapeEntry::Read {
                fd: number(bytes)?,
                outcome: outcome(bytes)?,
                bytes: text(bytes)?,
            },
            WRITE => TapeEntry::Write(Write {
                fd: number(bytes)?,
                offered: number(bytes)?,
                outcome: outcome(bytes)?,
                hash: number(bytes)?,
                head: text(bytes)?,
            }),
            POLL => TapeEntry::Poll {
                outcome: outcome(bytes)?,
                event_count: number(bytes)?,
                events: number(bytes)?,
                changes: changes(bytes)?,
            },
            END => TapeEntry::End {
                reason: text(bytes)?,
                totals: Totals {
                    reply_bytes: number(bytes)?,
                    replies: number(bytes)?,
                    event_count: number(bytes)?,
                    events: number(bytes)?,
                },
            },
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    put(
        out,
        match outcome {
            Ok(number) => number << 1,
            Err(code) => u64::from(code.unsigned_abs()) << 1 | 1,
        },
    );
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        let part = u64::from(next & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if next < 0x80 {
            return Some(number);
        }
    }
    None
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(text)
}

fn outcome(bytes: &mut &[u8]) -> Option<Outcome> {
    let number = number(bytes)?;
    match number & 1 {
        0 => Some(Ok(number >> 1)),
        _ => Some(Err(i32::try_from(number >> 1).ok()?)),
    }
}

fn changes(bytes: &mut &[u8]) -> Option<Vec<(u64, u8)>> {
    let count = number(bytes)?;
    // A change that a poll reports takes at least two bytes in the file, so this check also bounds
    // the allocated memory.
    if count > CHANGES_MAX || count > bytes.len() as u64 / 2 {
        return None;
    }
    (0..count)
        .map(|_| Some((number(bytes)?, byte(bytes)?)))
        .collect()
}

/// A block as it lies in the file, with its length and its checksum.
pub fn frame(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 12);
    out.extend_from_slice(&(block.len() as u32).to_le_bytes());
    out.extend_from_slice(&fnv::hash(0, block).to_le_bytes());
    out.extend_from_slice(block);
    out
}

/// The reason why a file is not a recording that can be replayed.
#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    NotARecording,
    /// The file was written by a version with another format.
    Version(u8),
    /// The checksum of the block at this offset is wrong, or an entry in it makes no sense.
    Damaged(u64),
    /// The file of the recording has bytes behind the recording's end; the value is their number.
    BehindEnd(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(e) => write!(f, "can't be read: {}", error_text(e)),
            Fault::NotARecording => write!(f, "is not a recording of TRACE RECORD"),
            Fault::Version(version) => {
                write!(
                    f,
                    "is a recording in format {version}, which this server does not know"
                )
            }
            Fault::Damaged(at) => write!(f, "is damaged in the block at offset {at}"),
            Fault::BehindEnd(bytes) => write!(
                f,
                "has {bytes} bytes behind its end: it is no recording as a server writes it"
            ),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        Fault::Io(e)
    }
}

/// Reads a recording's file, entry by entry.
pub struct Reader<R> {
    file: R,
    codec: Codec,
    block: Vec<u8>,
    /// The position in the present block; the next two fields are the offsets in the file of this
    /// block and of the next block.
    pos: usize,
    block_at: u64,
    next_at: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the head of a recording's file.
    pub fn new(mut file: R) -> Result<Reader<R>, Fault> {
        let mut head = Vec::new();
        file.by_ref()
            .take(MAGIC.len() as u64)
            .read_to_end(&mut head)?;
        match head.split_last() {
            Some((&version, name)) if *name == MAGIC[..MAGIC.len() - 1] => {
                if version != MAGIC[MAGIC.len() - 1] {
                    return Err(Fault::Version(version));
                }
            }
            _ => return Err(Fault::NotARecording),
        }
        Ok(Reader {
            file,
            codec: Codec::default(),
            block: Vec::new(),
            pos: 0,
            block_at: 0,
            next_at: MAGIC.len() as u64,
        })
    }

    /// Reads the next entry of the recording. `None`: the file ends here.
    pub fn next_entry(&mut self) -> Result<Option<TapeEntry<'_>>, Fault> {
        while self.pos == self.block.len() {
            if !self.next_block()? {
                return Ok(None);
            }
        }
        let before = &self.block[self.pos..];
        let mut rest = before;
        let entry = self.codec.decode(&mut rest);
        self.pos += before.len() - rest.len();
        entry.map(Some).ok_or(Fault::Damaged(self.block_at))
    }

    /// The number of bytes behind the last entry that was read. `bytes_left` moves the reader to
    /// the end of the file.
    pub fn bytes_left(&mut self) -> Result<u64, Fault> {
        let in_block = (self.block.len() - self.pos) as u64;
        Ok(in_block + io::copy(&mut self.file, &mut io::sink())?)
    }

    /// Reads the next block. Returns false if the file ends, perhaps in the middle of a block.
    fn next_block(&mut self) -> Result<bool, Fault> {
        let mut head = Vec::with_capacity(12);
        self.file.by_ref().take(12).read_to_end(&mut head)?;
        let Some((len, sum)) = head.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let Ok(sum) = <[u8; 8]>::try_from(sum) else {
            return Ok(false);
        };
        let len = u32::from_le_bytes(*len);
        self.block_at = self.next_at;
        if len == 0 || len > BLOCK_MAX {
            return Err(Fault::Damaged(self.block_at));
        }
        self.block.clear();
        self.pos = 0;
        // The buffer grows with the bytes that the file has, not with the length that it announces.
        let found = self
            .file
            .by_ref()
            .take(len.into())
            .read_to_end(&mut self.block)?;
        if found < len as usize {
            self.block.clear();
            return Ok(false);
        }
        if fnv::hash(0, &self.block) != u64::from_le_bytes(sum) {
            return Err(Fault::Damaged(self.block_at));
        }
        self.next_at += 12 + u64::from(len);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<TapeEntry<'static>> {
        vec![
            TapeEntry::Number(Input::Ticks, u64::MAX),
            TapeEntry::Number(Input::Ticks, 5),
            TapeEntry::Number(Input::Unix, 1_700_000_000_000_000),
            TapeEntry::Text(b"port 7000\n"),
            TapeEntry::Outcome(Err(28)),
            TapeEntry::Read {
                fd: 9,
                outcome: Ok(6),
                bytes: b"PING\r\n",
            },
            TapeEntry::Write(Write {
                fd: 9,
                offered: 7,
                outcome: Ok(3),
                hash: fnv::hash(0, b"+PO"),
                head: b"+PO",
            }),
            TapeEntry::Poll {
                outcome: Ok(2),
                event_count: 12,
                events: 99,
                changes: vec![(1 << 32 | 3, 1), (4, 2)],
            },
            TapeEntry::End {
                reason: b"SHUTDOWN",
                totals: Totals {
                    reply_bytes: 3,
                    replies: 4,
                    event_count: 5,
                    events: 6,
                },
            },
        ]
    }

    fn file() -> Vec<u8> {
        let mut codec = Codec::default();
        let mut file = MAGIC.to_vec();
        for pair in samples().chunks(2) {
            let mut block = Vec::new();
            pair.iter()
                .for_each(|entry| codec.encode(entry, &mut block));
            file.extend(frame(&block));
        }
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file();
        let mut reader = Reader::new(&file[..]).expect("a head");
        for wanted in samples() {
            assert_eq!(reader.next_entry().expect("no fault"), Some(wanted));
        }
        assert_eq!(reader.next_entry().expect("no fault"), None);
    }

    /// Every changed byte of a recording is detected; every cut is read as an early end.
    #[test]
    fn damage_is_an_error_and_a_cut_is_an_end() {
        let whole = file();
        let read = |bytes: &[u8]| -> Result<usize, Fault> {
            let mut reader = Reader::new(bytes)?;
            let mut entries = 0;
            while reader.next_entry()?.is_some() {
                entries += 1;
            }
            Ok(entries)
        };
        let all = samples().len();
        assert_eq!(read(&whole).expect("whole"), all);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            // A block length that points behind the end of the file looks like a cut.
            assert!(read(&damaged).map_or(true, |entries| entries < all), "{at}");
            match read(&whole[..at]) {
                Ok(entries) => assert!(entries < all),
                Err(Fault::NotARecording) => assert!(at < MAGIC.len()),
                Err(fault) => panic!("cut at {at}: {fault}"),
            }
        }
    }
}
