//! Small pure functions that every layer uses: numbers, glob patterns, quoting, places on the
//! globe.
//!
//! Nothing here knows a key, a client or a setting; everything takes bytes or numbers and gives
//! bytes or numbers back, so each file can be read, and tested, alone.
//!
//! | file | what Redis's clients see of it |
//! |---|---|
//! | `number` | "value is not an integer or out of range", the text of a score |
//! | `long_double` | INCRBYFLOAT, HINCRBYFLOAT, GEOPOS: arithmetic and text of an 80-bit float |
//! | `glob` | the patterns of KEYS, SCAN MATCH, PSUBSCRIBE, CONFIG GET |
//! | `quote` | lines of redis.conf, inline requests, the strings in MONITOR |
//! | `memory` | "1gb" in a setting, "1.23M" in INFO |
//! | `grisu` | the digits of a double |
//! | `selection` | which elements SRANDMEMBER, HRANDFIELD and ZRANDMEMBER draw |
//! | `rate_limit` | one warning a minute where a flood would make thousands |
//! | `geo` | the cells, distances and shapes behind GEOADD and GEOSEARCH |
//!
//! **Invariant:** no function in this module panics, whatever the bytes (property tests in each
//! file).

pub mod byte_size;
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
