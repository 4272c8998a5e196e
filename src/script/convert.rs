//! Converts replies to Lua's values, and Lua's values to replies, in both versions of the protocol.
//!
//! ```text
//!   reply              redis.call returns          and the other way: a script returns
//!   :1                 1                           1.9               :1
//!   $3 abc             "abc"                       "abc"             $3 abc
//!   +OK                {ok="OK"}                   {ok="OK"}         +OK
//!   -ERR x             {err="ERR x"}               {err="ERR x"}     -ERR x
//!   $-1  *-1           false                       false             $-1
//!   *2 ...             {..., ...}                  {..., nil, ...}   *n, up to the first nil
//!   _                  nil                         nil               $-1 or _
//!   #t                 true                        true              :1, or #t after setresp(3)
//!   ,1.5               {double=1.5}                {double=1.5}      ,1.5 or $3 1.5
//!   %n ~n              {map={}} {set={}}           the same          %n ~n or *
//!   (123 =txt:         {big_number=}               the same          (123 or $3
//!                      {verbatim_string={format=, string=}}
//! ```
//!
//! The reply buffer of the script's client is read once, from front to back. The attributes of
//! RESP3 are skipped.

use crate::client::reply::ReplyBuf;
use crate::error::{Error, said};
use crate::observe::stats::Stats;
use crate::sys::lua::{Frame, LuaType};
use crate::util::number::parse_i64;

/// The number of places of Lua's stack that the conversion needs for one level of nesting.
const LEVEL: usize = 6;
/// Doubles of this size and above can't be converted to an integer.
const INTEGER_BOUND: f64 = 9_223_372_036_854_775_808.0;

/// The reply could not become a Lua value, because Lua's stack is full.
#[derive(Debug)]
pub struct TooDeep;

/// A reply that is being read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
        self.at += len + 2;
        &rest[..len]
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += len + 2;
        &rest[..len.min(rest.len())]
    }

    fn length(&mut self) -> Option<usize> {
        parse_i64(self.line()).and_then(|n| usize::try_from(n).ok())
    }
}

/// Pushes a reply onto Lua's stack as a Lua value. Returns whether the reply is an error.
pub fn push_reply(frame: &mut Frame, bytes: &[u8]) -> Result<bool, TooDeep> {
    let mut reader = Reader { bytes, at: 0 };
    let is_error = bytes.first() == Some(&b'-');
    push_value(frame, &mut reader)?;
    Ok(is_error)
}

fn push_value(frame: &mut Frame, reader: &mut Reader) -> Result<(), TooDeep> {
    if !frame.room(LEVEL) {
        return Err(TooDeep);
    }
    let kind = reader.bytes.get(reader.at).copied().unwrap_or(b'_');
    reader.at += 1;
    match kind {
        b':' => frame.push_number(parse_i64(reader.line()).unwrap_or(0) as f64),
        b'$' => match reader.length() {
            Some(len) => frame.push_bytes(reader.take(len)),
            None => frame.push_boolean(false),
        },
        b'+' => push_field(frame, "ok", reader.line()),
        b'-' => push_error_reply(frame, reader.line()),
        b'*' | b'>' => match reader.length() {
            Some(len) => return push_array(frame, reader, len),
            None => frame.push_boolean(false),
        },
        b'%' => return push_map(frame, reader),
        b'~' => return push_set(frame, reader),
        b',' => push_double(frame, reader.line()),
        b'#' => frame.push_boolean(reader.line() == b"t"),
        b'(' => push_field(frame, "big_number", reader.line()),
        b'=' => push_verbatim(frame, reader),
        b'|' => {
            for _ in 0..2 * reader.length().unwrap_or(0) {
                push_value(frame, reader)?;
                frame.pop(1);
            }
            return push_value(frame, reader);
        }
        _ => {
            reader.line();
            frame.push_nil();
        }
    }
    Ok(())
}

fn push_field(frame: &mut Frame, name: &str, value: &[u8]) {
    frame.push_table(0, 1);
    frame.push_bytes(value);
    frame.set_field(name);
}

/// Pushes an error reply onto Lua's stack as a table with the field `err`. `ERR` is put before an
/// error of a single word.
fn push_error_reply(frame: &mut Frame, text: &[u8]) {
    if text.contains(&b' ') {
        push_field(frame, "err", text);
    } else {
        push_field(frame, "err", &[b"ERR ", text].concat());
    }
    mark_counted(frame);
}

/// Marks the error table on top of Lua's stack as counted: INFO errorstats counts an error when the
/// command runs, so it must not be counted again when the script returns it.
pub fn mark_counted(frame: &mut Frame) {
    frame.push_boolean(true);
    frame.set_field("ignore_error_stats_update");
}

fn push_double(frame: &mut Frame, text: &[u8]) {
    let value = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    frame.push_table(0, 1);
    frame.push_number(value.unwrap_or(f64::NAN));
    frame.set_field("double");
}

fn push_verbatim(frame: &mut Frame, reader: &mut Reader) {
    let len = reader.length().unwrap_or(0);
    let text = reader.take(len);
    frame.push_table(0, 1);
    frame.push_table(0, 2);
    frame.push_bytes(text.get(4..).unwrap_or_default());
    frame.set_field("string");
    frame.push_bytes(text.get(..3).unwrap_or_default());
    frame.set_field("format");
    frame.set_field("verbatim_string");
}

fn push_array(frame: &mut Frame, reader: &mut Reader, len: usize) -> Result<(), TooDeep> {
    frame.push_table(len, 0);
    for n in 1..=len {
        push_value(frame, reader)?;
        frame.set_element(n);
    }
    Ok(())
}

fn push_map(frame: &mut Frame, reader: &mut Reader) -> Result<(), TooDeep> {
    let len = reader.length().unwrap_or(0);
    frame.push_table(0, 1);
    frame.push_table(0, len);
    for _ in 0..len {
        push_value(frame, reader)?;
        push_value(frame, reader)?;
        frame.set_pair();
    }
    frame.set_field("map");
    Ok(())
}

fn push_set(frame: &mut Frame, reader: &mut Reader) -> Result<(), TooDeep> {
    let len = reader.length().unwrap_or(0);
    frame.push_table(0, 1);
    frame.push_table(0, len);
    for _ in 0..len {
        push_value(frame, reader)?;
        frame.push_boolean(true);
        frame.set_pair();
    }
    frame.set_field("set");
    Ok(())
}

/// Writes the return value of a script as a reply.
pub struct Writer<'a> {
    pub reply: &'a mut ReplyBuf,
    pub stats: &'a mut Stats,
    /// Whether the script called setresp(3).
    pub resp3: bool,
    /// The number of tables that were not written because they were nested too deeply.
    pub overflows: u32,
}

/// After this number of tables that were nested too deeply, no further table is written: a table
/// that contains itself twice would be written for ever.
const OVERFLOWS_MAX: u32 = 100;

impl Writer<'_> {
    /// Writes the value on top of Lua's stack as a reply and pops it. Tables can be nested
    /// thousands of levels deep, so code that needs much of the thread's stack is in functions of
    /// its own, which are not inlined.
    pub fn write(&mut self, frame: &mut Frame) {
        let tables_end = self.overflows >= OVERFLOWS_MAX;
        if tables_end && frame.kind(-1) == LuaType::Table || !frame.room(LEVEL) {
            return self.too_deep(frame);
        }
        match frame.kind(-1) {
            LuaType::String => self.reply.bulk(frame.bytes(-1).unwrap_or_default()),
            LuaType::Number => self.reply.integer(integer_of(frame.number(-1))),
            LuaType::Boolean if self.resp3 => self.reply.boolean(frame.boolean(-1)),
            LuaType::Boolean if frame.boolean(-1) => self.reply.integer(1),
            LuaType::Table => self.table(frame),
            _ => self.reply.null(),
        }
        frame.pop(1);
    }

    #[cold]
    #[inline(never)]
    fn too_deep(&mut self, frame: &mut Frame) {
        let error = Error::of("ERR reached lua stack limit");
        self.reply.error(&error);
        self.stats.count_script_error(error.code());
        self.overflows += 1;
        frame.pop(1);
    }

    #[inline(never)]
    fn error(&mut self, frame: &mut Frame) -> bool {
        let Some(error) = error_of(frame) else {
            return false;
        };
        self.reply.error(&error);
        if !error.is_counted() {
            self.stats.count_script_error(error.code());
        }
        true
    }

    /// Writes the table on top of Lua's stack. The table's first special field (`err`, `ok`, `map`
    /// ...) determines the type of the reply; a table without special fields is an array.
    fn table(&mut self, frame: &mut Frame) {
        let special = self.error(frame)
            || self.status(frame)
            || self.double(frame)
            || self.map(frame)
            || self.set(frame)
            || self.big_number(frame)
            || self.verbatim(frame);
        if !special {
            self.array(frame);
        }
    }

    #[inline(never)]
    fn status(&mut self, frame: &mut Frame) -> bool {
        let found = frame.get_field(-1, "ok") == LuaType::String;
        if found {
            let text = frame.bytes(-1).unwrap_or_default();
            // The text of a status reply ends at its first zero byte, as in Redis.
            let end = memchr::memchr(0, text).unwrap_or(text.len());
            let text = one_line(&text[..end]);
            self.reply.raw(b"+");
            self.reply.raw(&text);
            self.reply.raw(b"\r\n");
        }
        frame.pop(1);
        found
    }

    #[inline(never)]
    fn double(&mut self, frame: &mut Frame) -> bool {
        let found = frame.get_field(-1, "double") == LuaType::Number;
        if found {
            self.reply.double(frame.number(-1));
        }
        frame.pop(1);
        found
    }

    fn map(&mut self, frame: &mut Frame) -> bool {
        let found = frame.get_field(-1, "map") == LuaType::Table;
        if found {
            let at = self.reply.begin_deferred();
            let len = self.members(frame, true);
            self.reply.end_map(at, len);
        }
        frame.pop(1);
        found
    }

    fn set(&mut self, frame: &mut Frame) -> bool {
        let found = frame.get_field(-1, "set") == LuaType::Table;
        if found {
            let at = self.reply.begin_deferred();
            let len = self.members(frame, false);
            self.reply.end_set(at, len);
        }
        frame.pop(1);
        found
    }

    /// Writes the keys of the table on top of Lua's stack as replies, and with `values` their
    /// values. Returns the number of keys.
    fn members(&mut self, frame: &mut Frame, values: bool) -> usize {
        let mut len = 0;
        frame.push_nil();
        while frame.next(-2) {
            frame.push_value(-2);
            self.write(frame);
            if values {
                self.write(frame);
            } else {
                frame.pop(1);
            }
            len += 1;
        }
        len
    }

    #[inline(never)]
    fn big_number(&mut self, frame: &mut Frame) -> bool {
        let found = frame.get_field(-1, "big_number") == LuaType::String;
        if found {
            let digits = one_line(frame.bytes(-1).unwrap_or_default());
            self.reply.big_number(&digits);
        }
        frame.pop(1);
        found
    }

    #[inline(never)]
    fn verbatim(&mut self, frame: &mut Frame) -> bool {
        if frame.get_field(-1, "verbatim_string") != LuaType::Table {
            frame.pop(1);
            return false;
        }
        let mut found = false;
        if frame.get_field(-1, "format") == LuaType::String {
            let format = three_letters(frame.bytes(-1).unwrap_or_default());
            if frame.get_field(-2, "string") == LuaType::String {
                let text = frame.bytes(-1).unwrap_or_default();
                self.reply.verbatim(&format, text);
                found = true;
            }
            frame.pop(1);
        }
        frame.pop(2);
        found
    }

    fn array(&mut self, frame: &mut Frame) {
        let at = self.reply.begin_deferred();
        let mut len = 0;
        while frame.get_element(-1, len + 1) != LuaType::Nil {
            self.write(frame);
            len += 1;
        }
        frame.pop(1);
        self.reply.end_array(at, len);
    }
}

/// The error in the table on top of Lua's stack, if the table has the field `err`.
pub fn error_of(frame: &mut Frame) -> Option<Error> {
    if frame.get_field(-1, "err") != LuaType::String {
        frame.pop(1);
        return None;
    }
    let text = frame.bytes(-1).unwrap_or_default();
    let error = Error::new(said(without_line_end(text)));
    frame.pop(1);
    let counted =
        frame.get_field(-1, "ignore_error_stats_update") == LuaType::Boolean && frame.boolean(-1);
    frame.pop(1);
    Some(if counted { error.counted() } else { error })
}

/// The text of an error without the line ends at its end, which Redis removes.
pub fn without_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !b"\r\n".contains(b));
    &text[..end.map_or(0, |last| last + 1)]
}

/// Converts a Lua number to an integer as a C compiler for x86 does: a double out of range becomes
/// the smallest integer.
fn integer_of(value: f64) -> i64 {
    if (-INTEGER_BOUND..INTEGER_BOUND).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Replaces line ends by spaces, as a line end would end the reply too early.
fn one_line(text: &[u8]) -> Vec<u8> {
    let space = |&b: &u8| if b == b'\r' || b == b'\n' { b' ' } else { b };
    text.iter().map(space).collect()
}

/// The format of a verbatim string, always three letters. As in Redis, the format that the script
/// gives ends at its first zero byte.
fn three_letters(format: &[u8]) -> [u8; 3] {
    let mut letters = [b' '; 3];
    let given = format.iter().take_while(|&&b| b != 0);
    letters
        .iter_mut()
        .zip(given)
        .for_each(|(to, from)| *to = *from);
    letters
}
