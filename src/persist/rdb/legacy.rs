//! Encodings that are no longer written: ziplists (up to Redis 6.2) and zipmaps (up to 2.4). When a
//! ziplist or zipmap is read, it is turned into a listpack, element by element, so that the rest of
//! the server does not need the old encodings.

use crate::ds::listpack::Listpack;
use crate::ds::ziplist::Ziplist;
use crate::ds::zipmap::Zipmap;

/// A listpack with the elements of a ziplist; `None` if the ziplist is damaged.
pub fn listpack_of_ziplist(bytes: &[u8]) -> Option<Listpack> {
    Ziplist::parse(bytes)?.to_listpack()
}

/// A listpack with the keys and values of a zipmap in turn; `None` if the zipmap is damaged.
pub fn listpack_of_zipmap(bytes: &[u8]) -> Option<Listpack> {
    Zipmap::parse(bytes)?.to_listpack()
}
