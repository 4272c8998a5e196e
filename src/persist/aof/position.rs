//! The position of the AOF's end in the replication history, for a partial resync after a restart.
//!
//! ```text
//!   *3\r\n$3\r\nSET ..                            the commands of a turn
//!   #REPL:<id> <offset> <selected db>\r\n        one line behind them, if there is a history
//! ```
//!
//! The bytes of the AOF and of the replication stream differ (SELECT, PING, time stamps), so the
//! offset in the stream can't be computed from the length of the AOF. Redis 7 and later skip lines
//! that begin with `#`.
//!
//! **Invariant:** a position is used only if it is the end of the AOF. If commands without a
//! `#REPL:` line follow, or an incomplete command, the position of the data set is unknown
//! (`load`).
//!
//! **Limits:** the PINGs in the replication stream change the offset, but only a graceful shutdown
//! records the offset after the last PING. If a primary has sent a PING after its last command and
//! crashes, its offset after the restart is below the offset of its replicas, which then get a full
//! sync.

use crate::persist::rdb::{Position, is_history_id};
use crate::state::Server;
use crate::util::number::write_int;

/// The last line that was added to the AOF to note its position in the replication history
/// (`#REPL:`).
#[derive(Default)]
pub struct Noted {
    id: String,
    offset: u64,
    /// The number of bytes that had been fed to the AOF after the `#REPL:` line was added.
    fed: u64,
}

/// Adds a `#REPL:` line behind the commands of this turn of the event loop, before the commands are
/// written to the AOF.
pub fn annotate(server: &mut Server) {
    let (aof, replication) = (&server.aof, &server.replication);
    let is_noted = aof.noted.fed == aof.feed.fed && aof.noted.id == replication.id;
    if replication.stream.is_open() && !is_noted {
        append(server);
    }
}

/// Called before a shutdown: adds a `#REPL:` line, if the position has changed since the last such
/// line.
pub fn annotate_end(server: &mut Server) {
    let (noted, replication) = (&server.aof.noted, &server.replication);
    if noted.offset != replication.stream.end() || noted.fed != server.aof.feed.fed {
        append(server);
    }
}

/// Adds a `#REPL:` line to the AOF's buffer. The function runs in each turn that changes data, so
/// it allocates nothing.
fn append(server: &mut Server) {
    let Some((offset, db)) = Position::offset_and_db(server) else {
        return;
    };
    let (aof, id) = (&mut server.aof, &server.replication.id);
    aof.feed.annotate(|out| render(out, id, offset, db));
    aof.noted.id.clone_from(id);
    aof.noted.offset = offset;
    aof.noted.fed = aof.feed.fed;
}

/// Appends the line `#REPL:` for a position in the replication history.
pub fn render(out: &mut Vec<u8>, id: &str, offset: u64, db: u32) {
    out.extend_from_slice(b"#REPL:");
    out.extend_from_slice(id.as_bytes());
    out.push(b' ');
    write_int(out, offset);
    out.push(b' ');
    write_int(out, db);
    out.extend_from_slice(b"\r\n");
}

/// Parses a line `#REPL:`, without its line end. Returns `None` if the line has another form.
pub fn parse(line: &[u8]) -> Option<Position> {
    let text = std::str::from_utf8(line.strip_prefix(b"#REPL:")?).ok()?;
    let mut words = text.split(' ');
    let (id, offset, db) = (words.next()?, words.next()?, words.next()?);
    let valid = is_history_id(id) && words.next().is_none();
    valid.then_some(Position {
        id: id.into(),
        offset: offset.parse().ok()?,
        db: db.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_parsed() {
        let position = Position {
            id: "0123456789abcdef0123456789abcdef01234567".into(),
            offset: u64::MAX,
            db: 15,
        };
        let mut line = Vec::new();
        render(&mut line, &position.id, position.offset, position.db);
        let line = line.strip_suffix(b"\r\n").expect("a line");
        assert_eq!(parse(line), Some(position));
        for end in 0..line.len() - 1 {
            let cut = parse(&line[..end]);
            assert!(cut.is_none_or(|cut| cut.offset < u64::MAX), "cut at {end}");
        }
        assert_eq!(parse(&[line, b" 1"].concat()), None);
        assert_eq!(parse(b"#TS:1"), None);
    }
}
