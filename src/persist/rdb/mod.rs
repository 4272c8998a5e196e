//! RDB: the format for the data set as one file, and for one value as the payload of DUMP.
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
//! A value that is a block of bytes in memory (a listpack, an intset, the nodes of a quicklist, the
//! listpacks of a stream) is written as it is, so saving and loading it is copying. Any other value
//! is written as a count and then the elements as strings.
//!
//! **The version that is written** is `rdb-version`, 11 by default:
//!
//! | version | read by | what it lacks |
//! |---|---|---|
//! | 10 | Redis 7.0 | listpacks of sets (written as a count and strings), active times of consumers (left out) |
//! | 11 | Redis 7.2, Valkey 7.2 to 8 | fields with a time to live |
//! | 12 | Redis 7.4 and later | |
//! | 80 | Valkey 9 | |
//!
//! Fields of hashes are never written without their time to live: a field that has to expire must
//! not live for ever. So **a file, or a payload, with a field that has a time to live has at least
//! version 12**, whatever the setting is, and an older server refuses it with an error. All other
//! data that a lower version lacks can be derived again.
//!
//! Versions 12 to 79 are Redis's, and versions from 80 on are Valkey's. Redis and Valkey use value
//! type 22 for different things, so the version decides.
//!
//! **Reading** covers every type that Redis wrote from 2.0 to 8.6 and Valkey from 7.2 to 9.1. Files
//! of later versions that are known to exist are read as well: only a value of a type that this
//! server does not have, or of a module, is refused, with its type and key in the error
//! ([`foreign`]). With `rdb-skip-unknown` a value of an unknown type is left out and counted
//! instead. The ids of producers in a stream (Redis 8.6, XADD IDMP) are always left out. A file
//! that begins with `VCS` is compressed as a whole ([`compressed`]).
//!
//! **Invariant:** a saved file loads to an equal data set, whatever the encodings of its values
//! (`tests::what_is_saved_loads`).
//! **Invariant:** no bytes make the reader panic, or allocate more than a small multiple of their
//! uncompressed size (`tests::damaged_payloads_are_refused`).

pub mod background;
pub mod check;
mod compressed;
pub mod decode;
pub mod encode;
mod foreign;
pub mod legacy;
pub mod load;
pub mod payload;
pub mod save;
pub mod transfer;

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;

pub use background::{Rdb, background_save_done};

use crate::config::SanitizeDumpPayload;
use crate::ds::quicklist::ListLimits;
use crate::keyspace::list_limits;
use crate::replication;
use crate::state::Server;
use crate::types::hash::HashLimits;
use crate::types::set::SetLimits;
use crate::types::zset::ZsetLimits;

/// Whether a text is the id of a replication history: 40 hexadecimal digits.
pub fn is_history_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A position in a replication history: data sets with equal id and equal offset are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The id of the history: 40 hexadecimal digits.
    pub id: String,
    /// The number of bytes of the replication stream that the data set contains.
    pub offset: u64,
    /// The database that is selected at this position of the stream.
    pub db: u32,
}

impl Position {
    /// The position of the server's data set in the replication history. The result is `None` in
    /// three cases: without a backlog, since no replica could continue; within a transaction, whose
    /// changes are not in the replication stream yet; and while the data of a replica belong to no
    /// history.
    pub fn of(server: &Server) -> Option<Position> {
        Self::offset_and_db(server).map(|(offset, db)| Position {
            id: server.replication.id.clone(),
            offset,
            db,
        })
    }

    /// The offset and the selected database of the position that [`Position::of`] returns.
    pub fn offset_and_db(server: &Server) -> Option<(u64, u32)> {
        let replication = &server.replication;
        let settled = server.nesting == 0 && server.propagation.is_idle();
        let selected = replication.stream.selected_db().unwrap_or(0);
        let (has_history, db) = match &replication.upstream {
            Some(upstream) => (upstream.can_continue, upstream.db),
            None => (true, selected),
        };
        let has_position = replication.stream.is_open() && settled && has_history;
        has_position.then(|| (replication.stream.end(), db))
    }

    /// Continues the replication history at this position, which the server's data set has.
    pub fn resume(&self, server: &mut Server) {
        let new_id = server.rng.hex(40);
        replication::resume(server, &self.id, self.offset, self.db, new_id);
    }
}

/// The newest RDB version of Redis all of whose value types this server has.
pub const VERSION_REDIS_MAX: u32 = 12;
/// The oldest RDB version that this server can write, the version of Redis 7.0.
pub const VERSION_REDIS_MIN: u32 = 10;
/// The newest RDB version of Redis that is read, except values of unknown types: version 13 is that
/// of Redis 8.6, 14 that of 8.8.
const READ_REDIS_MAX: u32 = 14;
/// The newest RDB version of Valkey that is read, except values of unknown types.
const READ_VALKEY_MAX: u32 = 99;
/// The RDB version of Valkey 9, the lowest version of Valkey's own.
pub const VERSION_VALKEY: u32 = 80;
/// The first RDB version in which fields of hashes may have a time to live.
pub const VERSION_FIELD_TTL: u32 = 12;

/// Whether files and payloads of an RDB version are read.
pub fn is_known_version(version: u32) -> bool {
    (1..=READ_REDIS_MAX).contains(&version) || (VERSION_VALKEY..=READ_VALKEY_MAX).contains(&version)
}

/// The opcodes of an RDB file: bytes in the place of a value's type that begin a part other than a
/// key, or an attribute of the next key.
pub mod opcode {
    /// The names of the fields of compact hashes follow (Redis 8.10).
    pub const HASH_TEMPLATE: u8 = 242;
    /// Metadata of modules for the next key follow (Redis 8.6).
    pub const KEY_METADATA: u8 = 243;
    /// A running move of slots to the server follows (Valkey 9).
    pub const SLOT_IMPORT: u8 = 243;
    /// The number of keys of a slot follows (cluster mode).
    pub const SLOT_INFO: u8 = 244;
    /// The source of a library of functions follows.
    pub const FUNCTION2: u8 = 245;
    /// The source of a library follows, in the form of release candidates of Redis 7.0.
    pub const FUNCTION_PRE_GA: u8 = 246;
    /// Data of a module that belong to no key follow.
    pub const MODULE_AUX: u8 = 247;
    /// The idle time of the next key follows, in seconds.
    pub const IDLE: u8 = 248;
    /// The LFU counter of the next key follows.
    pub const FREQ: u8 = 249;
    /// The name and the value of an AUX field follow.
    pub const AUX: u8 = 250;
    /// The number of keys of the database follows, and how many of them have a time to live.
    pub const RESIZEDB: u8 = 251;
    /// The expiry time of the next key follows, in milliseconds.
    pub const EXPIRETIME_MS: u8 = 252;
    /// The expiry time of the next key follows, in seconds.
    pub const EXPIRETIME: u8 = 253;
    /// The number of the database of the next keys follows.
    pub const SELECTDB: u8 = 254;
    /// The data set ends here; only the checksum of the file follows.
    pub const EOF: u8 = 255;
}

/// The bytes in an RDB that state the type of a value together with its encoding.
pub mod kind {
    /// The value is a string.
    pub const STRING: u8 = 0;
    /// The value is a list, stored as a count and strings.
    pub const LIST: u8 = 1;
    /// The value is a set, stored as a count and strings.
    pub const SET: u8 = 2;
    /// The value is a sorted set with scores as text.
    pub const ZSET: u8 = 3;
    /// The value is a hash, stored as a count and strings.
    pub const HASH: u8 = 4;
    /// The value is a sorted set with scores as binary doubles.
    pub const ZSET_2: u8 = 5;
    /// The value is of a module's type, in a form from before Redis 4.0.
    pub const MODULE_PRE_GA: u8 = 6;
    /// The value is of a module's type.
    pub const MODULE_2: u8 = 7;
    /// The value is a hash, stored as a zipmap.
    pub const HASH_ZIPMAP: u8 = 9;
    /// The value is a list, stored as a ziplist.
    pub const LIST_ZIPLIST: u8 = 10;
    /// The value is a set, stored as an intset.
    pub const SET_INTSET: u8 = 11;
    /// The value is a sorted set, stored as a ziplist.
    pub const ZSET_ZIPLIST: u8 = 12;
    /// The value is a hash, stored as a ziplist.
    pub const HASH_ZIPLIST: u8 = 13;
    /// The value is a list, stored as a sequence of ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    /// The value is a stream in the format of Redis 5.
    pub const STREAM_LISTPACKS: u8 = 15;
    /// The value is a hash, stored as a listpack.
    pub const HASH_LISTPACK: u8 = 16;
    /// The value is a sorted set, stored as a listpack.
    pub const ZSET_LISTPACK: u8 = 17;
    /// The value is a list, stored as listpacks and plain nodes.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// The value is a stream in the format of Redis 7.0.
    pub const STREAM_LISTPACKS_2: u8 = 19;
    /// The value is a set, stored as a listpack.
    pub const SET_LISTPACK: u8 = 20;
    /// The value is a stream in the format of Redis 7.2.
    pub const STREAM_LISTPACKS_3: u8 = 21;
    /// The value is a hash of Redis 7.4 before its release; in Valkey 9's files this number is
    /// [`HASH_2`].
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    /// The value is a hash with fields that have a time to live, in the format of Valkey 9.
    pub const HASH_2: u8 = 22;
    /// The value is a hash as a listpack with expiry times, of Redis 7.4 before its release.
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    /// The value is a hash of Redis 7.4 with expiry times, stored as a count and triples.
    pub const HASH_METADATA: u8 = 24;
    /// The value is a hash of Redis 7.4 with expiry times, stored as a listpack of triples.
    pub const HASH_LISTPACK_EX: u8 = 25;
    /// The value is a path hash of Valkey 9.2.
    pub const PATH_HASH: u8 = 23;
    /// The value is a stream with the ids of its producers (Redis 8.6).
    pub const STREAM_PRODUCERS: u8 = 26;
    /// The value is a stream that may have released entries (Redis 8.8).
    pub const STREAM_RELEASED: u8 = 27;
    /// The value is an array of Redis 8.8.
    pub const ARRAY: u8 = 28;
    /// The value is a compact hash of Redis 8.10 as a listpack, in a payload of DUMP.
    pub const COMPACT_PACKED_DUMP: u8 = 29;
    /// The value is a compact hash of Redis 8.10 as a listpack.
    pub const COMPACT_PACKED: u8 = 30;
    /// The value is a compact hash of Redis 8.10 as pairs, in a payload of DUMP.
    pub const COMPACT_DUMP: u8 = 31;
    /// The value is a compact hash of Redis 8.10 as values, whose fields are in a template.
    pub const COMPACT: u8 = 32;

    /// Whether a byte is a known type of a value, and no opcode.
    pub fn is_known(kind: u8) -> bool {
        matches!(kind, STRING..=MODULE_2 | HASH_ZIPMAP..=COMPACT)
    }
}

/// The two high bits of a length give its size; the bits `11` mean an encoded string.
mod len {
    /// The length has 6 bits, in the rest of its first byte.
    pub const BITS_6: u8 = 0;
    /// The length has 14 bits, in the rest of its first byte and in the next byte.
    pub const BITS_14: u8 = 1;
    /// A length of 32 bits follows this byte, big-endian.
    pub const BITS_32: u8 = 0x80;
    /// A length of 64 bits follows this byte, big-endian.
    pub const BITS_64: u8 = 0x81;
    /// No length but an encoded string follows; the low bits of the byte give the encoding.
    pub const ENCODED: u8 = 3;
}

/// The encodings of strings that are not written byte by byte.
mod encoded {
    /// The string is an integer of 8 bits.
    pub const INT_8: u8 = 0;
    /// The string is an integer of 16 bits.
    pub const INT_16: u8 = 1;
    /// The string is an integer of 32 bits.
    pub const INT_32: u8 = 2;
    /// The string is compressed by LZF.
    pub const LZF: u8 = 3;
}

/// The two forms of a quicklist's node in an RDB.
mod container {
    /// The node has one large element, not packed.
    pub const PLAIN: u64 = 1;
    /// The node is a listpack of elements.
    pub const PACKED: u64 = 2;
}

/// The present settings of the sizes above which values change their encodings.
#[derive(Clone, Copy)]
pub struct Limits {
    pub hash: HashLimits,
    pub list: ListLimits,
    pub set: SetLimits,
    pub zset: ZsetLimits,
    /// Whether inconsistent values are refused, even if they could be repaired: for payloads from
    /// clients, and with `sanitize-dump-payload yes`.
    pub sanitize: bool,
}

impl Limits {
    /// The limits as the server's settings have them.
    pub fn of(server: &Server) -> Limits {
        Limits {
            hash: HashLimits::of(server),
            list: list_limits::list_limits(server),
            set: SetLimits::of(server),
            zset: ZsetLimits::of(server),
            sanitize: server.config.sanitize_dump_payload == SanitizeDumpPayload::Yes,
        }
    }
}
