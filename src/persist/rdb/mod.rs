//! RDB: the data set as one file, and one value as the payload of DUMP.
//!
//! ```text
//!   file     "REDIS0011" aux* function* ( SELECTDB n RESIZEDB keys expires  key* )* EOF crc64
//!                                                                            |
//!   key      [ EXPIRETIME_MS i64 ] [ IDLE seconds | FREQ counter ]  type  name  value
//!   payload  type value  version u16  crc64
//!
//!   length   00xxxxxx                        6 bits
//!            01xxxxxx xxxxxxxx               14 bits, the high ones first
//!            10000000 + 4 bytes              big-endian
//!            10000001 + 8 bytes              big-endian
//!   string   length bytes                    as they are
//!            11000000 + 1, 11000001 + 2, 11000010 + 4 bytes      an integer, little-endian, to be written in digits
//!            11000011 length length bytes    LZF: compressed length, length, compressed bytes
//! ```
//!
//! Values are written as they lie in memory wherever that is a block of bytes (listpack, intset,
//! the nodes of a quicklist, the listpacks of a stream), so saving and loading them is copying.
//! Everything else is a count and that many strings.
//!
//! **Which version is written.** `rdb-version` says it, 11 by default:
//!
//! | version | read by | what it lacks |
//! |---|---|---|
//! | 10 | Redis 7.0 | listpacks of sets (written as a count and strings), active times of consumers (left out) |
//! | 11 | Redis 7.2, Valkey 7.2 to 8 | fields with a time to live |
//! | 12 | Redis 7.4 and later | |
//! | 80 | Valkey 9 | |
//!
//! Fields with a time to live are never written without it: a field that was to vanish must not
//! live for ever. So **a file, or a payload, that holds such a field has version 12 at least**,
//! whatever the setting says, and an older server refuses it with an error instead of keeping the
//! fields. Everything that a lower version lacks beside that is derived data.
//!
//! Versions 12 to 79 are Redis's and 80 on are Valkey's, which both use value type 22, for
//! different things: the version decides.
//!
//! **Reading** knows every type that Redis wrote since 2.0 and Valkey since 7.2; modules' values
//! are refused by name, since only the module knows what they mean.
//!
//! **Invariant:** what is saved loads to an equal data set, whatever its encodings
//! (`tests::what_is_saved_loads`).
//! **Invariant:** no bytes make the reader panic, or allocate more than a small multiple of what
//! they are (`tests::damaged_payloads_are_refused`).

pub mod background;
pub mod check;
pub mod decode;
pub mod encode;
pub mod legacy;
pub mod load;
pub mod payload;
pub mod save;
pub mod transfer;

#[cfg(test)]
mod tests;

pub use background::{Rdb, background_save_done};

use crate::config::SanitizeDumpPayload;
use crate::ds::quicklist::ListLimits;
use crate::state::Server;
use crate::types::hash::HashLimits;
use crate::types::set::SetLimits;
use crate::types::zset::ZsetLimits;

/// Where a data set stands in a replication history: equal id and equal offset mean equal data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// 40 hex digits.
    pub id: String,
    /// Bytes of the stream that the data set contains.
    pub offset: u64,
    /// The database that a reader of the stream up to there has selected.
    pub db: u32,
}

impl Position {
    /// That of the server's data set; `None` without a backlog, for then no replica can go on from
    /// there, and amid a transaction, whose changes are not in the stream yet.
    pub fn of(server: &Server) -> Option<Position> {
        let replication = &server.replication;
        let settled = server.nesting == 0 && server.propagation.is_idle();
        (replication.stream.is_open() && settled).then(|| Position {
            id: replication.id.clone(),
            offset: replication.stream.end(),
            db: replication.stream.selected_db().unwrap_or(0),
        })
    }
}

/// The newest version of each family that can be read.
pub const VERSION_REDIS_MAX: u32 = 12;
pub const VERSION_VALKEY: u32 = 80;
/// From here on fields may have a time to live.
pub const VERSION_FIELD_TTL: u32 = 12;

/// Whether files and payloads of a version are understood without reservation.
pub fn is_known_version(version: u32) -> bool {
    (1..=VERSION_REDIS_MAX).contains(&version) || version == VERSION_VALKEY
}

/// What stands before a key, or instead of one.
pub mod opcode {
    /// Valkey 9: a slot migration that was under way.
    pub const SLOT_IMPORT: u8 = 243;
    /// Cluster mode: how many keys a slot has.
    pub const SLOT_INFO: u8 = 244;
    /// The source of a library of functions.
    pub const FUNCTION2: u8 = 245;
    /// The source of a library as release candidates of Redis 7.0 wrote it.
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// The types of values: what a value is, and how it is written.
pub mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    /// Scores as text.
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    /// Scores as binary doubles.
    pub const ZSET_2: u8 = 5;
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM_LISTPACKS: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_LISTPACKS_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_LISTPACKS_3: u8 = 21;
    /// Redis 7.4 before its release; in Valkey 9's files [`HASH_2`].
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    /// Valkey 9: a hash with fields that have a time to live.
    pub const HASH_2: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    /// Redis 7.4: the same, by count.
    pub const HASH_METADATA: u8 = 24;
    /// Redis 7.4: the same, as a listpack of triples.
    pub const HASH_LISTPACK_EX: u8 = 25;

    /// Whether a byte is the type of a value, rather than an opcode or nonsense.
    pub fn is_known(kind: u8) -> bool {
        matches!(kind, STRING..=MODULE_2 | HASH_ZIPMAP..=HASH_LISTPACK_EX)
    }
}

/// The two high bits of a length say how long it is; `11` is no length but an encoded string.
mod len {
    pub const BITS_6: u8 = 0;
    pub const BITS_14: u8 = 1;
    pub const BITS_32: u8 = 0x80;
    pub const BITS_64: u8 = 0x81;
    pub const ENCODED: u8 = 3;
}

/// The encodings of a string that is not written as it is.
mod encoded {
    pub const INT_8: u8 = 0;
    pub const INT_16: u8 = 1;
    pub const INT_32: u8 = 2;
    pub const LZF: u8 = 3;
}

/// What the nodes of a quicklist hold.
mod container {
    pub const PLAIN: u64 = 1;
    pub const PACKED: u64 = 2;
}

/// The sizes at which values change their encodings, as the settings of the moment say.
#[derive(Clone, Copy)]
pub struct Limits {
    pub hash: HashLimits,
    pub list: ListLimits,
    pub set: SetLimits,
    pub zset: ZsetLimits,
    /// What contradicts itself is refused, also where it can be mended: for bytes that a client
    /// sent, and with `sanitize-dump-payload yes`.
    pub sanitize: bool,
}

impl Limits {
    pub fn of(server: &Server) -> Limits {
        Limits {
            hash: HashLimits::of(server),
            list: crate::keyspace::list_limits::list_limits(server),
            set: SetLimits::of(server),
            zset: ZsetLimits::of(server),
            sanitize: server.config.sanitize_dump_payload == SanitizeDumpPayload::Yes,
        }
    }
}
