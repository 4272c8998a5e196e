//! The text form of Lua values and of replies, for the debugger.
//!
//! ```text
//!   nil  true  1.5  "text\n"  {1; 2; {["x"]=1}}  "function@0x7f.."       values
//!   "+OK"  5  "bulk"  NULL  ["a",["b"]]  {k => v}  ~(a,b)  #true          replies
//! ```

use crate::sys::lua::{Frame, LuaType};
use crate::util::number::{parse_i64, write_g};
use crate::util::quote::write_repr;

/// The maximum depth to which nested tables are shown.
const DEPTH_MAX: usize = 10;

/// Appends the text of the value at an index of Lua's stack.
pub fn value(frame: &mut Frame, at: i32, out: &mut Vec<u8>) {
    frame.push_value(at);
    top(frame, out, 0);
    frame.pop(1);
}

/// Appends the text of the value on top of Lua's stack, where the value stays.
fn top(frame: &mut Frame, out: &mut Vec<u8>, depth: usize) {
    if depth == DEPTH_MAX || !frame.room(8) {
        out.extend_from_slice(b"<max recursion level reached! Nested table?>");
        return;
    }
    match frame.kind(-1) {
        LuaType::Nil => out.extend_from_slice(b"nil"),
        LuaType::Boolean if frame.boolean(-1) => out.extend_from_slice(b"true"),
        LuaType::Boolean => out.extend_from_slice(b"false"),
        LuaType::Number => write_g(out, frame.number(-1), 6),
        LuaType::String => write_repr(out, frame.bytes(-1).unwrap_or_default()),
        LuaType::Table => table(frame, out, depth),
        LuaType::Function => out.extend_from_slice(&pointer("function", frame)),
        LuaType::Other => out.extend_from_slice(&pointer("userdata", frame)),
    }
}

fn pointer(kind: &str, frame: &Frame) -> Vec<u8> {
    format!("\"{kind}@{:#x}\"", frame.address(-1)).into_bytes()
}

/// Appends the text of a table. The table's keys are left out if they are 1, 2, 3 and so on, in
/// this order.
fn table(frame: &mut Frame, out: &mut Vec<u8>, depth: usize) {
    let (mut with_keys, mut without) = (Vec::new(), Vec::new());
    let mut next = 1.0;
    let mut is_array = true;
    frame.push_nil();
    while frame.next(-2) {
        let mut shown = Vec::new();
        top(frame, &mut shown, depth + 1);
        frame.push_value(-2);
        is_array &= frame.kind(-1) == LuaType::Number && frame.number(-1) == next;
        next += 1.0;
        with_keys.push(b'[');
        top(frame, &mut with_keys, depth + 1);
        with_keys.extend_from_slice(b"]=");
        frame.pop(2);
        for text in [&mut with_keys, &mut without] {
            text.extend_from_slice(&shown);
            text.extend_from_slice(b"; ");
        }
    }
    let all = if is_array { without } else { with_keys };
    out.push(b'{');
    out.extend_from_slice(all.strip_suffix(b"; ").unwrap_or(&all));
    out.push(b'}');
}

/// Appends the text of a reply in RESP2 or RESP3.
pub fn reply(bytes: &[u8], out: &mut Vec<u8>) {
    Reply { bytes, at: 0 }.show(out);
}

struct Reply<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reply<'a> {
    fn line(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
        self.at += len + 2;
        &rest[..len]
    }

    fn show(&mut self, out: &mut Vec<u8>) {
        let line = self.line();
        let Some((&kind, rest)) = line.split_first() else {
            return;
        };
        let len = parse_i64(rest).and_then(|n| usize::try_from(n).ok());
        match (kind, len) {
            (b'$' | b'*', None) => out.extend_from_slice(b"NULL"),
            (b'_', _) => out.extend_from_slice(b"(null)"),
            (b'$' | b'=', Some(len)) => {
                let text = self.bytes.get(self.at..).unwrap_or_default();
                write_repr(out, &text[..len.min(text.len())]);
                self.at += len + 2;
            }
            (b'*' | b'>', Some(len)) => self.several(out, (b"[", b"]"), len, 1),
            (b'~', Some(len)) => self.several(out, (b"~(", b")"), len, 1),
            (b'%', Some(len)) => self.several(out, (b"{", b"}"), len, 2),
            (b'#', _) if rest == b"t" => out.extend_from_slice(b"#true"),
            (b'#', _) => out.extend_from_slice(b"#false"),
            (b',', _) => out.extend_from_slice(&[b"(double) ", rest].concat()),
            (b'+' | b'-', _) => write_repr(out, line),
            _ => out.extend_from_slice(rest),
        }
    }

    /// Appends the text of an aggregate reply's elements, or of its pairs if `each` is 2.
    fn several(&mut self, out: &mut Vec<u8>, ends: (&[u8], &[u8]), len: usize, each: usize) {
        out.extend_from_slice(ends.0);
        for n in 0..len {
            if n > 0 {
                out.push(b',');
            }
            self.show(out);
            if each == 2 {
                out.extend_from_slice(b" => ");
                self.show(out);
            }
        }
        out.extend_from_slice(ends.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_both_protocols() {
        for (bytes, shown) in [
            ("+PONG\r\n", "\"+PONG\""),
            ("-ERR no\r\n", "\"-ERR no\""),
            (":12\r\n", "12"),
            ("$2\r\na\"\r\n", "\"a\\\"\""),
            ("$-1\r\n", "NULL"),
            ("*-1\r\n", "NULL"),
            ("*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "[\"a\",[1]]"),
            (
                "%1\r\n+k\r\n~2\r\n#t\r\n_\r\n",
                "{\"+k\" => ~(#true,(null))}",
            ),
            (",1.5\r\n", "(double) 1.5"),
        ] {
            let mut out = Vec::new();
            reply(bytes.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), shown);
        }
    }
}
