//! Small pure functions that every layer uses: numbers, glob patterns, quoting, places on the
//! globe.
//!
//! These functions take and return bytes or numbers. The functions use no keys, clients or
//! settings, so each file can be read and tested alone.
//!
//! | file | where Redis's clients see it |
//! |---|---|
//! | `number` | "value is not an integer or out of range", the text of a score |
//! | `long_double` | INCRBYFLOAT, HINCRBYFLOAT, GEOPOS: arithmetic and text of an 80-bit float |
//! | `glob` | the patterns of KEYS, SCAN MATCH, PSUBSCRIBE, CONFIG GET |
//! | `quote` | lines of redis.conf, inline requests, the strings in MONITOR |
//! | `byte_size` | "1gb" in a setting, "1.23M" in INFO |
//! | `grisu` | the digits of a double |
//! | `selection_sampling` | the random choice of SRANDMEMBER, HRANDFIELD and ZRANDMEMBER |
//! | `rate_limit` | one warning a minute in the server's log, instead of thousands |
//! | `geo` | the cells, distances and shapes behind GEOADD and GEOSEARCH |
//!
//! **Invariant:** no function in this module panics, for any input (property tests in each file).

pub mod byte_size;
pub mod fnv;
pub mod geo;
pub mod glob;
mod grisu;
pub mod histogram;
pub mod long_double;
pub mod number;
pub mod quote;
pub mod random;
pub mod rate_limit;
pub mod selection_sampling;
