//! Redis's protocol, as far as the lessons need it: where a request ends, and its arguments.
//!
//! ```text
//!   *2\r\n  $4\r\n PING\r\n  $5\r\n hello\r\n        two arguments, each after its length
//!   PING hello\r\n                               or a line, as typed
//! ```
//!
//! **Limits.** Counts and lengths come from outside, so they are bounded before anything is
//! allocated: 1,024 arguments of at most 512 KB.

const ARGUMENTS_MAX: usize = 1024;
const LENGTH_MAX: usize = 512 * 1024;

/// The error for bytes that are no request in Redis's protocol.
pub struct Invalid;

/// The arguments of a request and the number of its bytes.
pub type Request = (Vec<Vec<u8>>, usize);

/// Parses the first request in `query`; `None` while the request is incomplete.
pub fn parse(query: &[u8]) -> Result<Option<Request>, Invalid> {
    let Some((line, mut at)) = read_line(query)? else {
        return Ok(None);
    };
    let Some(count) = line.strip_prefix(b"*") else {
        let words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        return Ok(Some((words.map(<[u8]>::to_vec).collect(), at)));
    };
    let mut arguments = Vec::new();
    for _ in 0..number(count, ARGUMENTS_MAX)? {
        let Some((line, length)) = read_line(&query[at..])? else {
            return Ok(None);
        };
        let size = number(line.strip_prefix(b"$").ok_or(Invalid)?, LENGTH_MAX)?;
        let start = at + length;
        let Some(argument) = query.get(start..start + size) else {
            return Ok(None);
        };
        match query.get(start + size..start + size + 2) {
            None => return Ok(None),
            Some(end) if end != b"\r\n" => return Err(Invalid),
            Some(_) => at = start + size + 2,
        }
        arguments.push(argument.to_vec());
    }
    Ok(Some((arguments, at)))
}

/// The first line of `query` without its line end, and its length with the line end.
fn read_line(query: &[u8]) -> Result<Option<(&[u8], usize)>, Invalid> {
    match query.iter().take(LENGTH_MAX).position(|&b| b == b'\n') {
        Some(end) => {
            let line = &query[..end];
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1)))
        }
        None if query.len() >= LENGTH_MAX => Err(Invalid),
        None => Ok(None),
    }
}

/// Parses a number of at most `max`.
pub fn number(digits: &[u8], max: usize) -> Result<usize, Invalid> {
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    number.filter(|&n| n <= max).ok_or(Invalid)
}

pub fn status(text: &str) -> Vec<u8> {
    format!("+{text}\r\n").into_bytes()
}

pub fn error(text: &str) -> Vec<u8> {
    format!("-ERR {text}\r\n").into_bytes()
}

/// `None` if a command has begun and its reply comes later; the error reply if it has not begun.
pub fn later(begun: std::io::Result<()>) -> Option<Vec<u8>> {
    begun.err().map(|why| error(&why.to_string()))
}

pub fn integer(number: u64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

pub fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => {
            let mut reply = format!("${}\r\n", value.len()).into_bytes();
            reply.extend_from_slice(value);
            reply.extend_from_slice(b"\r\n");
            reply
        }
        None => b"$-1\r\n".to_vec(),
    }
}

/// Encodes a request to another server.
pub fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        out.extend(bulk(Some(argument)));
    }
    out
}
