//! The primary's decision on a PSYNC: whether a replica may continue where it stopped.
//!
//! ```text
//!   this server's history      second_id ──────────┐ second_offset
//!                                    id ───────────┴───────────────────────> end
//!                                              first byte held [..backlog..]
//!
//!   PSYNC id n          n in the backlog, or end + 1        -> +CONTINUE, from byte n
//!   PSYNC second_id n   the same, and n <= second_offset    -> +CONTINUE: the histories were one until there
//!   everything else                                         -> +FULLRESYNC
//! ```
//!
//! Bytes are counted from 1, as in the protocol: a replica requests the first byte that it lacks.

use crate::client::announced::Announced;

/// The part of a primary's replication history that the decision on a PSYNC needs.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The replication id, 40 hexadecimal digits.
    pub id: &'a str,
    /// The second replication id, 40 hexadecimal digits; zeros without a second id.
    pub second_id: &'a str,
    /// The number of the stream's first byte for which `second_id` is not valid; -1 without a
    /// second id.
    pub second_offset: i64,
    /// The number of the stream's first byte in the backlog; 0 without a backlog.
    pub first_byte: u64,
    /// The number of the stream's last byte: `master_repl_offset`.
    pub end: u64,
}

/// The decision on a PSYNC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A partial resync: the replica gets the stream behind its first `offset` bytes.
    Continue { offset: u64 },
    /// The replica needs a snapshot.
    Full(Reason),
}

/// Why a replica can't continue where it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// `PSYNC ? -1`: the replica has no history.
    Requested,
    /// The replica's replication id is neither of the two ids of this server.
    UnknownId,
    /// The replica has more of the second id's history than this server.
    BeyondSecondId,
    /// The byte that PSYNC requests is not in the backlog. `future`: the stream has not reached
    /// that byte yet.
    NotHeld { future: bool },
}

/// The dialect of a full sync over two connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Valkey 8: the replica requests the stream by a second PSYNC.
    Valkey,
    /// Redis 8: the stream is sent without a second request.
    Redis,
}

/// The settings of this server about full syncs over two connections.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// The setting `dual-channel-replication-enabled`.
    pub valkey: bool,
    /// The setting `repl-rdb-channel`.
    pub redis: bool,
    /// The setting `repl-diskless-sync`; without it a full sync has one connection.
    pub diskless: bool,
}

/// Whether a replica that needs a snapshot gets it over a second connection. A replica that
/// announces the RDB version it reads is an aeris server. An aeris replica gets Valkey's dialect
/// only, as it announces Redis's dialect by default, too.
pub fn two_channels(announced: &Announced, offered: Offered) -> Option<Dialect> {
    let is_second = announced.rdb_channel || announced.rdb_only;
    if is_second || announced.contents.is_filtered() || !offered.diskless {
        return None;
    }
    let ours = announced.rdb_version.is_some();
    if offered.valkey && announced.dual_channel {
        Some(Dialect::Valkey)
    } else if offered.redis && announced.rdb_channel_repl && !ours {
        Some(Dialect::Redis)
    } else {
        None
    }
}

/// Decides on `PSYNC id offset`. Replication ids are compared without regard to case.
pub fn decide(history: History, id: &[u8], offset: i64) -> Answer {
    let is = |known: &str| id.eq_ignore_ascii_case(known.as_bytes());
    let known = is(history.id) || is(history.second_id) && offset <= history.second_offset;
    if !known {
        return Answer::Full(if id.first() == Some(&b'?') {
            Reason::Requested
        } else if is(history.second_id) {
            Reason::BeyondSecondId
        } else {
            Reason::UnknownId
        });
    }
    let byte = u64::try_from(offset).unwrap_or(0);
    let held = history.first_byte..=history.end + 1;
    if history.first_byte == 0 || !held.contains(&byte) {
        let future = byte > history.end;
        return Answer::Full(Reason::NotHeld { future });
    }
    Answer::Continue { offset: byte - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: History = History {
        id: "aaaa",
        second_id: "bbbb",
        second_offset: 150,
        first_byte: 101,
        end: 200,
    };

    fn ask(id: &str, offset: i64) -> Answer {
        decide(HISTORY, id.as_bytes(), offset)
    }

    #[test]
    fn every_offset_of_the_backlog_continues_and_no_other() {
        for n in -1..=300 {
            let expected = match n {
                101..=201 => Answer::Continue {
                    offset: n as u64 - 1,
                },
                _ => Answer::Full(Reason::NotHeld { future: n > 200 }),
            };
            assert_eq!(ask("AAAA", n), expected, "byte {n}");
        }
        let extremes = [i64::MIN, i64::MAX];
        assert!(
            extremes
                .iter()
                .all(|&n| matches!(ask("aaaa", n), Answer::Full(_)))
        );
    }

    #[test]
    fn the_second_id_is_valid_up_to_its_offset() {
        assert_eq!(ask("bbbb", 150), Answer::Continue { offset: 149 });
        assert_eq!(ask("bbbb", 151), Answer::Full(Reason::BeyondSecondId));
        assert_eq!(
            ask("bbbb", 100),
            Answer::Full(Reason::NotHeld { future: false })
        );
    }

    #[test]
    fn strangers_get_a_snapshot() {
        assert_eq!(ask("?", -1), Answer::Full(Reason::Requested));
        assert_eq!(ask("cccc", 150), Answer::Full(Reason::UnknownId));
    }

    #[test]
    fn a_second_connection_needs_both_sides_and_no_disk() {
        let all = Offered {
            valkey: true,
            redis: true,
            diskless: true,
        };
        let announced = |text: &str| Announced {
            dual_channel: text.contains("dual"),
            rdb_channel_repl: text.contains("redis"),
            rdb_version: text.contains("ours").then_some(12),
            rdb_channel: text.contains("second"),
            rdb_only: text.contains("only"),
            ..Announced::default()
        };
        let [valkey, redis] = [Some(Dialect::Valkey), Some(Dialect::Redis)];
        for (text, offered, expected) in [
            ("dual", all, valkey),
            ("redis", all, redis),
            ("dual redis ours", all, valkey),
            ("redis ours", all, None),
            ("", all, None),
            ("dual second", all, None),
            ("dual only", all, None),
            (
                "dual redis",
                Offered {
                    valkey: false,
                    ..all
                },
                redis,
            ),
            (
                "redis",
                Offered {
                    redis: false,
                    ..all
                },
                None,
            ),
            (
                "dual redis",
                Offered {
                    diskless: false,
                    ..all
                },
                None,
            ),
        ] {
            assert_eq!(two_channels(&announced(text), offered), expected, "{text}");
        }
    }

    #[test]
    fn without_a_backlog_nothing_continues() {
        let closed = History {
            first_byte: 0,
            ..HISTORY
        };
        for n in [0, 101, 200, 201] {
            let answer = decide(closed, b"aaaa", n);
            let future = n > 200;
            assert_eq!(answer, Answer::Full(Reason::NotHeld { future }));
        }
    }
}
