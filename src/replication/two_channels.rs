//! A full sync over two connections, on the replica: the primary's description of the snapshot, and
//! a buffer for the part of the stream that arrives before the snapshot is loaded.
//!
//! ```text
//!   main connection ─> push ─> [ piece | piece | ... ] ─> pop ─> applied when the snapshot is loaded
//!                       └ up to the limit; then the rest stays in the socket, and with the primary
//! ```
//!
//! **Invariant:** pieces of the stream are applied in the order of arrival, and only after the
//! snapshot: the stream begins at the snapshot's offset.
//! **Limit:** at most `replica-full-sync-buffer-limit` bytes are collected. While that many bytes
//! are collected, the socket is not read, so the stream waits at the primary, whose output limit
//! applies.

use std::collections::VecDeque;

use super::psync::Dialect;
use crate::propagate::stream::START_MAX;

/// `$ENDOFF:<offset> <history> <database> <client>`: the end of a snapshot in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The replication offset of the snapshot.
    pub offset: u64,
    /// The replication id of the primary, 40 hexadecimal digits.
    pub id: String,
    /// The id of the client, at the primary, over which the snapshot is sent.
    pub client: u64,
}

impl End {
    /// Parses a line `$ENDOFF:..`.
    pub fn parse(line: &[u8]) -> Option<End> {
        let text = std::str::from_utf8(line.strip_prefix(b"$ENDOFF:")?).ok()?;
        let mut words = text.split(' ');
        let (offset, id) = (words.next()?.parse().ok()?, words.next()?.to_string());
        // The database in the line is not used, as the snapshot has it, too. The database in the
        // line is -1 if no database is selected.
        let _db: i64 = words.next()?.parse().ok()?;
        let client = words.next()?.parse().ok()?;
        let end = End { offset, id, client };
        let valid_id = end.id.len() == 40 && end.id.bytes().all(|b| b.is_ascii_alphanumeric());
        let valid = valid_id && end.offset <= START_MAX && words.next().is_none();
        valid.then_some(end)
    }
}

/// The state of a full sync over two connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sync {
    pub dialect: Dialect,
    /// Whether the snapshot is loaded. The collected stream is applied when the main connection has
    /// the reply to its PSYNC, too.
    pub loaded: bool,
    /// Whether the snapshot's connection is lost, and a reply on the main connection is due.
    pub lost: bool,
}

/// Bytes of the stream that can't be applied before the snapshot is loaded.
#[derive(Default, Debug)]
pub struct Collected {
    pieces: VecDeque<Vec<u8>>,
    bytes: u64,
    peak: u64,
}

impl Collected {
    /// Adds bytes of the stream behind those that are collected. Small pieces are copied into the
    /// unused capacity of the last piece, since a read reserves more room than a slow stream fills.
    pub fn push(&mut self, piece: Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        self.bytes += piece.len() as u64;
        self.peak = self.peak.max(self.bytes);
        match self.pieces.back_mut() {
            Some(last) if piece.len() <= last.capacity() - last.len() => {
                last.extend_from_slice(&piece);
            }
            _ => self.pieces.push_back(piece),
        }
    }

    /// Removes and returns the oldest piece of the collected stream.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len() as u64;
        Some(piece)
    }

    /// Drops all collected bytes and sets the figures about them to 0, for another sync.
    pub fn clear(&mut self) {
        *self = Collected::default();
    }

    /// The number of bytes of the stream that are collected.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes of the stream that were collected at once since the sync began.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// The number of bytes that the next read of the stream may add: at most `piece`, and at most
    /// what is left of `limit` (0: no limit).
    pub fn room(&self, limit: u64, piece: usize) -> usize {
        match limit {
            0 => piece,
            limit => piece.min(usize::try_from(limit.saturating_sub(self.bytes)).unwrap_or(piece)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_snapshot_is_four_words() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let line = format!("$ENDOFF:100 {id} 3 18");
        let end = End {
            offset: 100,
            id: id.into(),
            client: 18,
        };
        assert_eq!(End::parse(line.as_bytes()), Some(end));
        assert!(End::parse(format!("$ENDOFF:0 {id} -1 7").as_bytes()).is_some());
        for bad in [
            String::new(),
            "$ENDOFF:".into(),
            format!("$ENDOFF:-1 {id} 0 1"),
            format!("$ENDOFF:1 {id} x 1"),
            format!("$ENDOFF:1 {id} 0"),
            format!("$ENDOFF:1 {id} 0 1 2"),
            format!("$ENDOFF:1 {}x 0 1", id),
            format!("$ENDOFF:99999999999999999999 {id} 0 1"),
            format!("$ENDOFF:{} {id} 0 1", u64::MAX),
            format!("$ENDOFF:{} {id} 0 1", START_MAX + 1),
            format!("+ENDOFF:1 {id} 0 1"),
        ] {
            assert_eq!(End::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn small_pieces_take_the_memory_of_their_bytes() {
        let mut collected = Collected::default();
        for n in 0..100_000u32 {
            let mut piece = Vec::with_capacity(16 * 1024);
            piece.push(n as u8);
            collected.push(piece);
        }
        let memory: usize = collected.pieces.iter().map(Vec::capacity).sum();
        assert!(memory <= 128 * 1024, "{memory} bytes for 100,000");
        let mut all = Vec::new();
        while let Some(piece) = collected.pop() {
            all.extend(piece);
        }
        assert!(all.iter().copied().eq((0..100_000u32).map(|n| n as u8)));
        assert_eq!(collected.bytes(), 0);
    }

    #[test]
    fn what_was_collected_comes_back_in_order_and_is_counted() {
        let mut collected = Collected::default();
        collected.push(b"abc".to_vec());
        collected.push(Vec::new());
        collected.push(b"de".to_vec());
        assert_eq!((collected.bytes(), collected.peak()), (5, 5));
        assert_eq!((collected.room(7, 16), collected.room(0, 16)), (2, 16));
        assert_eq!(collected.room(3, 16), 0, "the limit was lowered");
        assert_eq!(collected.pop().as_deref(), Some(&b"abc"[..]));
        assert_eq!(collected.pop().as_deref(), Some(&b"de"[..]));
        assert_eq!(collected.pop(), None);
        assert_eq!((collected.bytes(), collected.peak()), (0, 5));
        collected.clear();
        assert_eq!(collected.peak(), 0);
    }
}
