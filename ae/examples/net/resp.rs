//! The part of the protocol that lesson 05 needs: the end of a request, and the name of its
//! command.
//!
//! ```text
//!   *2\r\n  $4\r\n PING\r\n  $5\r\n hello\r\n        two arguments, each after its length
//!   PING hello\r\n                               or a line, as typed
//! ```

/// The command's name and the bytes after the request; `None` while it is incomplete. The real
/// server also detects invalid requests and limits their size.
pub fn parse(query: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut rest) = read_line(query)?;
    if let Some(argc) = name.strip_prefix(b"*") {
        for i in 0..number(argc)? {
            let (length, after) = read_line(rest)?;
            let (argument, after) = after.split_at_checked(number(length.strip_prefix(b"$")?)?)?;
            name = if i == 0 { argument } else { name };
            rest = after.strip_prefix(b"\r\n")?;
        }
    }
    Some((name, rest))
}

fn read_line(query: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = query.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&query[..end], &query[end + 2..]))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
