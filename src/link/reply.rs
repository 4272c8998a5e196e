//! Parses the bytes of a peer into replies, however the bytes are split between reads.
//!
//! ```text
//!   input:  *2\r\n$3\r\nabc\r\n:7\r\n+OK\r\n$10\r\nabc
//!           `--- Array[abc, 7] ---'`- OK -'`----- waits: `bulk` = 10
//! ```
//!
//! The reader keeps its state within an incomplete reply, so that the bytes of a reply which
//! arrives byte by byte are parsed only once.
//!
//! **Limits:** a line has at most [`LINE_MAX`] bytes, arrays are nested at most [`DEPTH_MAX`] deep,
//! and all lines and bulks of a reply together have at most `reply_max` bytes. All limits are
//! checked before memory is allocated.

use std::fmt;

use crate::util::number::parse_i64;

/// The maximum length of a line of a reply.
pub const LINE_MAX: usize = 64 * 1024;
/// The maximum nesting of arrays.
pub const DEPTH_MAX: usize = 16;
/// The minimum size of an array's element in a reply, in bytes.
const ELEMENT_MIN: usize = 3;

/// A reply of RESP2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The text of a status, such as `+OK`, without the plus.
    Status(Vec<u8>),
    /// The text of an error, such as `-ERR ..`, without the minus.
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// A null bulk or a null array.
    Null,
    Array(Vec<Reply>),
    /// A whole line that is neither a status nor an error, for requests to which a line is expected
    /// (`Expect::Line`).
    Line(Vec<u8>),
}

/// The maximum number of bytes of a reply's text that an error message shows.
const SHOWN_MAX: usize = 128;

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Reply::Status(text) => ("+", text),
            Reply::Error(text) => ("-", text),
            Reply::Line(text) | Reply::Bulk(text) => ("", text),
            Reply::Integer(n) => return write!(f, ":{n}"),
            Reply::Null => return f.write_str("(nil)"),
            Reply::Array(elements) => return write!(f, "({} elements)", elements.len()),
        };
        let shown = &text[..text.len().min(SHOWN_MAX)];
        write!(f, "{kind}{}", shown.escape_ascii())
    }
}

/// The reason why received bytes are not a RESP reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    LineTooLong,
    ReplyTooLong,
    TooDeep,
    /// The first byte of a line is not the first byte of any reply in RESP2.
    Kind(u8),
    /// A count, a length or an integer is not a number, or is negative.
    Number,
    /// The bytes of a bulk string are not followed by a line end.
    BulkEnd,
    /// The peer has sent more keep-alive line feeds without a reply than a primary sends in a day.
    KeepAlives,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::LineTooLong => f.write_str("too long a line"),
            Malformed::ReplyTooLong => f.write_str("too long a reply"),
            Malformed::TooDeep => f.write_str("arrays nested too deep"),
            Malformed::Kind(byte) => {
                write!(f, "'{}' is not a kind of reply", byte.escape_ascii())
            }
            Malformed::Number => f.write_str("invalid number"),
            Malformed::BulkEnd => f.write_str("a bulk without line end"),
            Malformed::KeepAlives => f.write_str("too many line feeds in place of a reply"),
        }
    }
}

/// A buffer of bytes that are appended at the end and removed from the front.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Removes `n` bytes from the front, or all bytes if there are fewer. Returns the number of
    /// removed bytes.
    pub(super) fn consume(&mut self, n: usize) -> usize {
        let n = n.min(self.len());
        self.at += n;
        if self.is_empty() {
            self.bytes.clear();
            self.at = 0;
        }
        n
    }

    /// Removes and returns all bytes, leaving no allocation.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.bytes.drain(..self.at);
        self.at = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// An array of a reply whose elements have not all arrived.
struct OpenArray {
    /// The number of missing elements, at least one.
    missing: usize,
    elements: Vec<Reply>,
}

/// The state of parsing within an incomplete reply.
#[derive(Default)]
pub(super) struct Reader {
    /// The incomplete nested arrays, the outermost first.
    arrays: Vec<OpenArray>,
    /// The length of a bulk string whose header has been read, and whose bytes have not all
    /// arrived.
    bulk: Option<usize>,
    /// The number of bytes of the next line in which no line end was found.
    searched: usize,
    /// The number of bytes of this reply so far, announced bulk strings included.
    used: usize,
}

/// The meaning of a line in a RESP reply.
enum Header {
    Complete(Reply),
    /// The length of a bulk string, whose bytes follow.
    Bulk(usize),
    /// The number of elements of an array, not 0.
    Array(usize),
}

impl Reader {
    /// Whether no part of a reply has been read.
    pub(super) fn is_idle(&self) -> bool {
        self.arrays.is_empty() && self.bulk.is_none() && self.searched == 0
    }

    /// Takes one reply from the front of `input`; `None` if the reply is not complete. With
    /// `line_only`, the reply is a single line, which need not be RESP.
    pub(super) fn next(
        &mut self,
        input: &mut Buffer,
        line_only: bool,
        reply_max: usize,
    ) -> Result<Option<Reply>, Malformed> {
        loop {
            let complete = match self.bulk {
                Some(len) => match take_bulk(input, len)? {
                    Some(bytes) => {
                        self.bulk = None;
                        Reply::Bulk(bytes)
                    }
                    None => return Ok(None),
                },
                None => {
                    let Some(line) = self.take_line(input)? else {
                        return Ok(None);
                    };
                    self.use_bytes(line.len(), reply_max)?;
                    if line_only {
                        self.used = 0;
                        return Ok(Some(plain_line(line)));
                    }
                    match header(&line)? {
                        Header::Complete(reply) => reply,
                        Header::Bulk(len) => {
                            self.use_bytes(len, reply_max)?;
                            self.bulk = Some(len);
                            continue;
                        }
                        Header::Array(count) => {
                            self.open_array(count, reply_max)?;
                            continue;
                        }
                    }
                }
            };
            if let Some(reply) = self.place(complete) {
                self.used = 0;
                return Ok(Some(reply));
            }
        }
    }

    fn use_bytes(&mut self, n: usize, reply_max: usize) -> Result<(), Malformed> {
        self.used = self.used.saturating_add(n);
        match self.used > reply_max {
            true => Err(Malformed::ReplyTooLong),
            false => Ok(()),
        }
    }

    fn open_array(&mut self, count: usize, reply_max: usize) -> Result<(), Malformed> {
        if self.arrays.len() >= DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        if count > reply_max / ELEMENT_MIN {
            return Err(Malformed::ReplyTooLong);
        }
        self.arrays.push(OpenArray {
            missing: count,
            elements: Vec::new(),
        });
        Ok(())
    }

    /// Adds an element to the innermost array. Returns the whole reply if the element has completed
    /// it.
    fn place(&mut self, mut complete: Reply) -> Option<Reply> {
        while let Some(mut array) = self.arrays.pop() {
            array.elements.push(complete);
            array.missing -= 1;
            if array.missing > 0 {
                self.arrays.push(array);
                return None;
            }
            complete = Reply::Array(array.elements);
        }
        Some(complete)
    }

    /// Takes a line from the front of `input` and returns it without its line end, which is a line
    /// feed with or without a carriage return before it.
    fn take_line(&mut self, input: &mut Buffer) -> Result<Option<Vec<u8>>, Malformed> {
        let bytes = input.as_slice();
        let found = memchr::memchr(b'\n', &bytes[self.searched..]);
        let end = found.map_or(bytes.len(), |at| self.searched + at);
        if end > LINE_MAX {
            return Err(Malformed::LineTooLong);
        }
        if found.is_none() {
            self.searched = end;
            return Ok(None);
        }
        self.searched = 0;
        let line = &bytes[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        input.consume(end + 1);
        Ok(Some(line))
    }
}

fn take_bulk(input: &mut Buffer, len: usize) -> Result<Option<Vec<u8>>, Malformed> {
    let bytes = input.as_slice();
    let Some(end) = bytes.get(len..len + 2) else {
        return Ok(None);
    };
    if end != b"\r\n" {
        return Err(Malformed::BulkEnd);
    }
    let bulk = bytes[..len].to_vec();
    input.consume(len + 2);
    Ok(Some(bulk))
}

/// Makes a reply of a line that is a whole reply.
fn plain_line(mut line: Vec<u8>) -> Reply {
    match line.first() {
        Some(b'+') => Reply::Status(line.split_off(1)),
        Some(b'-') => Reply::Error(line.split_off(1)),
        _ => Reply::Line(line),
    }
}

fn header(line: &[u8]) -> Result<Header, Malformed> {
    let (&kind, text) = line.split_first().ok_or(Malformed::Kind(b'\n'))?;
    let number = || parse_i64(text).ok_or(Malformed::Number);
    let size = |n: i64| usize::try_from(n).map_err(|_| Malformed::Number);
    let complete = match kind {
        b'+' => Reply::Status(text.to_vec()),
        b'-' => Reply::Error(text.to_vec()),
        b':' => Reply::Integer(number()?),
        b'$' => match number()? {
            -1 => Reply::Null,
            len => return Ok(Header::Bulk(size(len)?)),
        },
        b'*' => match number()? {
            -1 => Reply::Null,
            0 => Reply::Array(Vec::new()),
            count => return Ok(Header::Array(size(count)?)),
        },
        _ => return Err(Malformed::Kind(kind)),
    };
    Ok(Header::Complete(complete))
}
