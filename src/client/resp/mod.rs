//! The request parser turns bytes into tables of argument ranges. The parser does no I/O and
//! allocates nothing for an argument.
//!
//! ```text
//!   buffer:   *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGE
//!   args:            [8..11]      [17..18]    [24..25]          [35..39]   ^ `open` remembers how far this got
//!   commands: [first 0, argc 3, start 0, end 27] [first 3, argc 1, start 27, end 41]
//! ```
//!
//! `parse` takes *all complete commands* of a buffer. An incomplete command is described by
//! [`Open`], so that a command of a million arguments which arrives in small pieces is still parsed
//! once. A bulk of 32 KB or more is not collected in the query buffer: the socket is read straight
//! into `Open::big`, which becomes the stored value.
//!
//! **Invariant:** argument ranges lie inside the query buffer or name an element of `bigs` (checked
//! by the tests that split each message at every byte, and by the fuzz target).
//! **Limits:** an inline request and a count line end within 64 KB; a multibulk has at most 2^31 -
//! 1 arguments; a bulk at most `proto-max-bulk-len`; before AUTH 10 arguments of 16 KB.

use std::sync::Arc;

use memchr::memchr2;

use crate::util::number::{is_c_space, parse_i64};
use crate::util::quote::split_args;

/// The longest inline request, and the longest header line (`*3`, `$5`), in bytes.
pub const INLINE_MAX: usize = 64 * 1024;
/// The smallest length in bytes of a bulk that gets a buffer of its own.
pub const BIG_ARG_MIN: usize = 32 * 1024;
/// The bytes that are allocated for a big argument before any of it has arrived.
const BIG_ARG_FIRST: usize = 1024 * 1024;

/// The limits of requests, from the settings and from whether the client has authenticated.
#[derive(Clone, Copy)]
pub struct Limits {
    pub max_bulk_len: u64,
    /// Whether the client has not authenticated yet, so that it may send only small requests.
    pub unauthenticated: bool,
    /// The number of commands after which the parser stops.
    pub max_commands: usize,
}

/// The bytes of an argument: a range of the query buffer, or, if `start` is [`BIG`], `bigs[len]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: usize,
    pub len: usize,
}

const BIG: usize = usize::MAX;

/// One complete command: `argc` argument ranges from `first` on, at `start..end` of the query
/// buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub first: usize,
    pub argc: usize,
    pub start: usize,
    pub end: usize,
}

/// The bytes of a request as received, for code that copies the bytes faster than it encodes the
/// arguments again. `Sent` is empty for a command of a script, of the AOF, or of a client that was
/// blocked.
#[derive(Clone, Copy, Default)]
pub struct Sent<'a> {
    /// The bytes of the whole request; empty if some of its arguments lie outside of the query
    /// buffer.
    pub bytes: &'a [u8],
    /// The buffers of the request's arguments of [`BIG_ARG_MIN`] bytes and more.
    pub bigs: &'a [Arc<Vec<u8>>],
}

/// The most arguments for which the parse table keeps its memory from one read to the next.
const KEEP_ARGS: usize = 16 * 1024;

/// The complete commands that the parser found; the memory of the table is reused.
#[derive(Default)]
pub struct ParseTable {
    pub args: Vec<Range>,
    pub commands: Vec<Parsed>,
    /// Arguments that are not in the query buffer: big arguments, and arguments of inline requests
    /// with escapes.
    pub bigs: Vec<Arc<Vec<u8>>>,
}

impl ParseTable {
    /// Removes all commands from the table and keeps its memory.
    pub fn clear(&mut self) {
        self.args.clear();
        self.commands.clear();
        self.bigs.clear();
    }

    /// Removes all commands, and frees the memory that a command with very many arguments needed.
    pub fn finish(&mut self) {
        self.clear();
        if self.args.capacity() > KEEP_ARGS {
            self.args = Vec::new();
        }
    }

    /// The heap bytes that the parse table keeps from one read to the next.
    pub fn memory(&self) -> usize {
        self.args.capacity() * size_of::<Range>() + self.commands.capacity() * size_of::<Parsed>()
    }

    /// The bytes of the argument at `range`.
    #[inline]
    pub fn slice<'a>(&'a self, buffer: &'a [u8], range: Range) -> &'a [u8] {
        if range.start == BIG {
            &self.bigs[range.len]
        } else {
            &buffer[range.start..range.start + range.len]
        }
    }

    /// The bytes of one parsed command, as they were received.
    #[inline]
    pub fn sent<'a>(&'a self, buffer: &'a [u8], command: &Parsed) -> Sent<'a> {
        let bytes = if self.bigs.is_empty() {
            &buffer[command.start..command.end]
        } else {
            &[]
        };
        let bigs = &self.bigs;
        Sent { bytes, bigs }
    }

    fn push_owned(&mut self, bytes: Vec<u8>) {
        self.args.push(Range {
            start: BIG,
            len: self.bigs.len(),
        });
        self.bigs.push(Arc::new(bytes));
    }
}

/// An incomplete multibulk command. The positions in `Open` count from the command's first byte,
/// where the query buffer starts.
#[derive(Default)]
pub struct Open {
    /// The number of arguments that have not been received completely.
    pub remaining: usize,
    /// The length of the bulk whose header was parsed and whose bytes are incomplete.
    bulk_len: Option<usize>,
    args: Vec<Range>,
    bigs: Vec<Arc<Vec<u8>>>,
    /// The position behind the last parsed byte of the incomplete command.
    pos: usize,
    /// A big argument (32 KB and more) that is being received into its own buffer.
    pub big: Option<BigArg>,
}

/// A big argument (32 KB and more) that is being received into its own buffer.
pub struct BigArg {
    pub bytes: Vec<u8>,
    /// The full length of the argument, without the line end.
    pub len: usize,
}

impl BigArg {
    /// The bytes of the argument that have not been received, its line end included.
    pub fn missing(&self) -> usize {
        self.len + 2 - self.bytes.len()
    }
}

impl Open {
    /// The heap bytes of an incomplete command, the structure `Open` included.
    pub fn memory(&self) -> usize {
        size_of::<Open>()
            + self.args.capacity() * size_of::<Range>()
            + self.bigs.iter().map(|b| b.capacity()).sum::<usize>()
            + self.big.as_ref().map_or(0, |b| b.bytes.capacity())
    }

    /// The bytes of the arguments that were received completely.
    pub fn argv_len(&self) -> usize {
        let in_buffer = self
            .args
            .iter()
            .filter(|r| r.start != BIG)
            .map(|r| r.len)
            .sum::<usize>();
        in_buffer + self.bigs.iter().map(|b| b.len()).sum::<usize>()
    }
}

/// How the parser ended: it needs more bytes, reached its limit, or found an invalid request.
#[derive(Debug, PartialEq, Eq)]
pub enum Status {
    /// All complete commands were parsed; more bytes are needed for the next command.
    Partial,
    /// The parser stopped because it found `max_commands` commands.
    Full,
    /// The request breaks the protocol; the value is the error text after `-ERR Protocol error: `.
    Invalid(String),
}

/// Takes complete commands from `buffer[*pos..]` and appends them to `table`. `*pos` ends behind
/// the last complete command; `open` describes an incomplete command.
pub fn parse(
    buffer: &[u8],
    pos: &mut usize,
    limits: Limits,
    table: &mut ParseTable,
    open: &mut Option<Box<Open>>,
) -> Status {
    if let Some(state) = open {
        let start = *pos;
        match resume(buffer, start, limits, table, state) {
            Ok(true) => {
                *pos = start + state.pos;
                *open = None;
            }
            Ok(false) => return Status::Partial,
            Err(text) => return Status::Invalid(text),
        }
    }
    while *pos < buffer.len() {
        if table.commands.len() >= limits.max_commands {
            return Status::Full;
        }
        let step = if buffer[*pos] == b'*' {
            multibulk(buffer, pos, limits, table, open)
        } else {
            inline(buffer, pos, table)
        };
        match step {
            Ok(true) => {}
            Ok(false) => return Status::Partial,
            Err(text) => return Status::Invalid(text),
        }
    }
    Status::Partial
}

/// Parses a header of one or two digits, `$5\r\n` or `*16\r\n`: its number and the position behind
/// it. `None` for every other header (longer, incomplete or wrong), which [`count_header`] and
/// [`bulk_header`] parse.
#[inline(always)]
fn short_header(buffer: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let &[first, tens, ones, end, _] = buffer.get(at..)?.first_chunk()?;
    let (tens, units) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if first != kind || tens > 9 {
        None
    } else if ones == b'\r' {
        Some((tens as usize, at + 4))
    } else if units <= 9 && tens != 0 && end == b'\r' {
        Some((tens as usize * 10 + units as usize, at + 5))
    } else {
        None
    }
}

/// Parses the number of a header; fast for up to 9 digits.
#[inline]
fn short_number(line: &[u8]) -> Option<i64> {
    if line.is_empty() || line.len() > 9 || line[0] == b'0' && line.len() > 1 {
        return parse_i64(line);
    }
    let mut n = 0i64;
    for &b in line {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return parse_i64(line);
        }
        n = n * 10 + digit as i64;
    }
    Some(n)
}

/// The header line from the position `from` on, without its `\r\n`; `None` when the line's end has
/// not arrived. As in Redis a line ends at the `\r`, and the next byte is skipped unread. A line
/// with a NUL has no end, see [`end_of_line`].
#[inline]
fn line(buffer: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = &buffer[from..];
    let window = &rest[..rest.len().min(16)];
    let at = match window.iter().position(|&b| b == b'\r' || b == 0) {
        Some(at) if window[at] == 0 => return None,
        Some(at) => at,
        None => end_of_line(b'\r', rest)?,
    };
    (at + 1 < rest.len()).then(|| (&rest[..at], from + at + 2))
}

/// The position in `bytes` of the first byte `end`. A NUL hides the bytes behind it, as it ends a C
/// string in Redis: such a line is never complete, and is an error when it is longer than
/// [`INLINE_MAX`].
fn end_of_line(end: u8, bytes: &[u8]) -> Option<usize> {
    memchr2(end, 0, bytes).filter(|&at| bytes[at] == end)
}

/// Parses one multibulk command (`*3\r\n...`) at `*pos`. `Ok(false)` means that the command is
/// incomplete and described by `open`.
fn multibulk(
    buffer: &[u8],
    pos: &mut usize,
    limits: Limits,
    table: &mut ParseTable,
    open: &mut Option<Box<Open>>,
) -> Result<bool, String> {
    let start = *pos;
    let Some((count, mut at)) = count_header(buffer, start)? else {
        return Ok(false);
    };
    if count > 10 && limits.unauthenticated {
        return Err("unauthenticated multibulk length".into());
    }
    if count == 0 {
        *pos = at;
        return Ok(true);
    }
    let first = table.args.len();
    for got in 0..count {
        let header = match short_header(buffer, at, b'$') {
            None => bulk_header(buffer, at, limits)?,
            short => short,
        };
        let whole = header.filter(|&(len, data)| buffer.len() - data >= len + 2);
        match whole {
            Some((len, data)) => {
                table.args.push(Range { start: data, len });
                at = data + len + 2;
            }
            None => {
                let args = table
                    .args
                    .drain(first..)
                    .map(|r| relative(r, start))
                    .collect();
                let mut state = Box::new(Open {
                    remaining: count - got,
                    args,
                    pos: at - start,
                    ..Open::default()
                });
                if let Some((len, data)) = header {
                    state.bulk_len = Some(len);
                    state.pos = data - start;
                    state.begin_big(buffer, start);
                }
                *open = Some(state);
                return Ok(false);
            }
        }
    }
    table.commands.push(Parsed {
        first,
        argc: count,
        start,
        end: at,
    });
    *pos = at;
    Ok(true)
}

/// Parses the header of a command: the number of arguments, and the position of the first argument.
/// `None` if the header has not arrived.
#[inline]
fn count_header(buffer: &[u8], at: usize) -> Result<Option<(usize, usize)>, String> {
    if let short @ Some(_) = short_header(buffer, at, b'*') {
        return Ok(short);
    }
    let Some((text, data)) = line(buffer, at + 1) else {
        if buffer.len() - at > INLINE_MAX {
            return Err("too big mbulk count string".into());
        }
        return Ok(None);
    };
    match short_number(text) {
        Some(n) if n <= i32::MAX as i64 => Ok(Some((n.max(0) as usize, data))),
        _ => Err("invalid multibulk length".into()),
    }
}

fn relative(range: Range, start: usize) -> Range {
    if range.start == BIG {
        range
    } else {
        Range {
            start: range.start - start,
            len: range.len,
        }
    }
}

/// Parses the header of a bulk: its length, and the position of its bytes. `None` if the header has
/// not arrived. A wrong first byte is refused at once, except a control character: a stray line end
/// (`*1\r\r\n`) is parsed with the line that it begins, as in Redis.
#[inline]
fn bulk_header(buffer: &[u8], at: usize, limits: Limits) -> Result<Option<(usize, usize)>, String> {
    let Some(&first) = buffer.get(at) else {
        return Ok(None);
    };
    if first != b'$' && first >= b' ' {
        return Err(expected_dollar(first));
    }
    let begin = at + usize::from(first == b'$');
    let Some((digits, data)) = line(buffer, begin) else {
        if buffer.len() - at > INLINE_MAX {
            return Err("too big bulk count string".into());
        }
        return Ok(None);
    };
    if first != b'$' {
        return Err(expected_dollar(first));
    }
    let len = match short_number(digits) {
        Some(n) if n >= 0 && n as u64 <= limits.max_bulk_len => n as usize,
        _ => return Err("invalid bulk length".into()),
    };
    if len > 16 * 1024 && limits.unauthenticated {
        return Err("unauthenticated bulk length".into());
    }
    Ok(Some((len, data)))
}

fn expected_dollar(got: u8) -> String {
    format!("expected '$', got '{}'", got as char)
}

/// Continues to parse an incomplete command, whose bytes begin at `buffer[start]`. `Ok(true)` means
/// that the command is complete and in `table`.
fn resume(
    buffer: &[u8],
    start: usize,
    limits: Limits,
    table: &mut ParseTable,
    state: &mut Open,
) -> Result<bool, String> {
    while state.remaining > 0 {
        if let Some(big) = state.big.take() {
            if big.missing() > 0 {
                state.big = Some(big);
                return Ok(false);
            }
            state.finish_big(big);
            continue;
        }
        let at = start + state.pos;
        let (len, data) = match state.bulk_len {
            Some(len) => (len, at),
            None => match bulk_header(buffer, at, limits)? {
                None => return Ok(false),
                Some((len, data)) => {
                    state.bulk_len = Some(len);
                    state.pos = data - start;
                    (len, data)
                }
            },
        };
        if buffer.len() - data < len + 2 {
            state.begin_big(buffer, start);
            return Ok(false);
        }
        state.args.push(Range {
            start: state.pos,
            len,
        });
        state.pos += len + 2;
        state.bulk_len = None;
        state.remaining -= 1;
    }
    let (first, bigs) = (table.args.len(), table.bigs.len());
    table.args.extend(state.args.iter().map(|&r| match r.start {
        BIG => Range {
            start: BIG,
            len: r.len + bigs,
        },
        at => Range {
            start: at + start,
            len: r.len,
        },
    }));
    table.bigs.append(&mut state.bigs);
    table.commands.push(Parsed {
        first,
        argc: state.args.len(),
        start,
        end: start + state.pos,
    });
    Ok(true)
}

impl Open {
    /// If the bulk at `pos` has at least [`BIG_ARG_MIN`] bytes, moves the bytes that have arrived
    /// into a buffer of their own. The caller then truncates the query buffer at `kept()`.
    fn begin_big(&mut self, buffer: &[u8], start: usize) {
        let Some(len) = self.bulk_len.filter(|&len| len >= BIG_ARG_MIN) else {
            return;
        };
        let arrived = &buffer[start + self.pos..];
        let mut bytes = Vec::with_capacity((len + 2).min(BIG_ARG_FIRST.max(arrived.len())));
        bytes.extend_from_slice(arrived);
        self.big = Some(BigArg { bytes, len });
        self.bulk_len = None;
    }

    fn finish_big(&mut self, mut big: BigArg) {
        big.bytes.truncate(big.len);
        self.args.push(Range {
            start: BIG,
            len: self.bigs.len(),
        });
        self.bigs.push(Arc::new(big.bytes));
        self.remaining -= 1;
    }

    /// The length to which the query buffer is truncated while a big argument is received.
    pub fn kept(&self) -> Option<usize> {
        self.big.as_ref().map(|_| self.pos)
    }
}

/// Whether a byte ends a word of an inline request. Vertical tabs and form feeds are skipped before
/// a word, but belong to a word that has begun.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// Parses one inline command at `*pos`: words on a line, with quotes as in redis-cli.
fn inline(buffer: &[u8], pos: &mut usize, table: &mut ParseTable) -> Result<bool, String> {
    let start = *pos;
    let rest = &buffer[start..];
    let Some(newline) = end_of_line(b'\n', rest) else {
        if rest.len() > INLINE_MAX {
            return Err("too big inline request".into());
        }
        return Ok(false);
    };
    let text = rest[..newline]
        .strip_suffix(b"\r")
        .unwrap_or(&rest[..newline]);
    let first = table.args.len();
    let plain = |b: &u8| !matches!(b, b'"' | b'\'' | b'\\');
    if text.iter().all(plain) {
        let mut at = 0;
        while at < text.len() {
            at += text[at..].iter().take_while(|b| is_c_space(**b)).count();
            let len = text[at..].iter().take_while(|b| !ends_word(**b)).count();
            if len > 0 {
                table.args.push(Range {
                    start: start + at,
                    len,
                });
            }
            at += len;
        }
    } else {
        let words = split_args(text).ok_or("unbalanced quotes in request")?;
        words.into_iter().for_each(|word| table.push_owned(word));
    }
    let argc = table.args.len() - first;
    let end = start + newline + 1;
    if argc > 0 {
        table.commands.push(Parsed {
            first,
            argc,
            start,
            end,
        });
    }
    *pos = end;
    Ok(true)
}

#[cfg(test)]
mod tests;
