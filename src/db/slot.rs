//! Hash slots: the 16,384 parts of a cluster's keyspace.
//!
//! Source: the Redis Cluster specification, "Key distribution model". The slot of a key is its
//! CRC-16/XMODEM modulo 16,384; if the key has a hash tag (`{user1000}.following`), only the tag
//! counts.

use crate::ds::crc16::Crc16;

/// The number of slots of a cluster.
pub const SLOTS: usize = 16_384;

/// The slot of a key, below [`SLOTS`].
pub fn key_slot(key: &[u8]) -> u16 {
    (top_slot(Crc16::detect(), key) >> TOP) as u16
}

/// The number of the lowest bit of a slot that is stored in the highest bits of a 64-bit word.
pub(super) const TOP: u32 = u64::BITS - SLOTS.ilog2();

/// The slot of a key in the highest bits of a 64-bit word, with zeros below: shifting the CRC there
/// cuts off the bits that do not belong to the slot.
#[inline(always)]
pub(super) fn top_slot(crc16: Crc16, key: &[u8]) -> u64 {
    match crc16.of_few::<TOP>(key, b'{') {
        Some(bits) => bits,
        None => u64::from(crc_of_other(crc16, key)) << TOP,
    }
}

/// The CRC from which the slot of a long key, or of a key with a brace, is computed. Not inlined,
/// since most keys are short and have no brace.
#[cold]
#[inline(never)]
fn crc_of_other(crc16: Crc16, key: &[u8]) -> u16 {
    let whole = crc16.of_bytes_without(key, b'{');
    whole.unwrap_or_else(|| crc16.of(hash_tag(key)))
}

/// The slot of all keys that match a glob pattern; `None` if they may be in several slots.
pub fn pattern_slot(pattern: &[u8]) -> Option<u16> {
    let is_special = |byte: &u8| b"*?[\\".contains(byte);
    let literal = pattern.iter().position(is_special);
    let literal = &pattern[..literal.unwrap_or(pattern.len())];
    let has_tag = hash_tag(literal).len() < literal.len();
    (has_tag || literal.len() == pattern.len()).then(|| key_slot(literal))
}

/// The part of a key between its first `{` and the next `}`, if that part is not empty; otherwise
/// the whole key.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let tag = &key[open + 1..];
    match memchr::memchr(b'}', tag) {
        None | Some(0) => key,
        Some(close) => &tag[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_cluster_keyslot() {
        // The expected slots are those with which CLUSTER KEYSLOT of a real server replies.
        assert_eq!(key_slot(b"123456789"), 12_739);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b""), 0);
    }

    #[test]
    fn a_pattern_with_a_literal_tag_is_of_one_slot() {
        for pattern in ["{tag}*", "a{tag}[bc]", "{tag}", "{tag}\\*{other}"] {
            assert_eq!(
                pattern_slot(pattern.as_bytes()),
                Some(key_slot(b"tag")),
                "{pattern}"
            );
        }
        assert_eq!(pattern_slot(b"plain"), Some(key_slot(b"plain")));
        for pattern in ["*{tag}", "{t*}", "{}*", "a*", "{tag*", "?", "\\{tag}*"] {
            assert_eq!(pattern_slot(pattern.as_bytes()), None, "{pattern}");
        }
    }

    #[test]
    fn only_a_hash_tag_that_is_not_empty_counts() {
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"a{b}{c}"), key_slot(b"b"));
        assert_eq!(key_slot(b"x{{bar}}"), key_slot(b"{bar"));
        for whole in [&b"foo{}{bar}"[..], b"foo{bar", b"foo}bar{"] {
            assert_eq!(hash_tag(whole), whole);
        }
    }
}
