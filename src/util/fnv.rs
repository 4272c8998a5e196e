//! FNV-1a over 64 bits: a hash without a key, for data that no attacker chooses, such as the name
//! of a build and the blocks of a recording.
//!
//! Source: Fowler, Noll, Vo; draft-eastlake-fnv.

/// Hashes `bytes`. `earlier` is the hash of the bytes before them, or 0 at the start.
pub const fn hash(earlier: u64, bytes: &[u8]) -> u64 {
    let mut hash = earlier ^ 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// The hashes that draft-eastlake-fnv lists.
    #[test]
    fn published_values() {
        assert_eq!(hash(0, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(0, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(0, b"foobar"), 0x8594_4171_f739_67e8);
    }
}
