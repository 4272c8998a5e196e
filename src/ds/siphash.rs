//! The keyed hash function of every table: SipHash-1-3 with a secret seed.
//!
//! Clients choose the names of keys. If a client could compute the hash, it could pick a million
//! names that fall into one bucket, and every look-up would walk over all of them. SipHash with a
//! random seed makes the choice of colliding names impossible without the seed; Rust's own maps use
//! the 1-3 variant, too (one round for each word, three at the end).
//!
//! ```text
//! v0..v3 = seed ^ constants      for each 8 bytes m: v3 ^= m, round, v0 ^= m      the last m: rest of the key, length on top
//! v2 ^= 0xff, round, round, round                                                 hash = v0 ^ v1 ^ v2 ^ v3
//! ```
//!
//! **Invariants.** The seed of a table never changes: a table recomputes the hashes of its keys
//! when it rehashes, and they must be equal to the hashes under which the keys were inserted.
//! `HashSeed::hash` is SipHash-1-3 to the bit (`tests::oracle`, against another implementation).
//!
//! Source: Aumasson, Bernstein: "SipHash: a fast short-input PRF" (2012).

/// The 128-bit key of a table's hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed([u64; 2]);

impl HashSeed {
    /// A seed made of two words of 64 bits.
    pub const fn new(words: [u64; 2]) -> Self {
        HashSeed(words)
    }

    /// The seed that the text of the setting `hash-seed` gives: equal texts give equal seeds.
    pub fn of_text(text: &[u8]) -> Self {
        let word = |n| HashSeed([n, !n]).hash(text);
        HashSeed([word(1), word(2)])
    }

    /// The hash of a key; all 64 bits can be used.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let [k0, k1] = self.0;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        let (words, rest) = key.as_chunks::<8>();
        for word in words {
            absorb(&mut v, u64::from_le_bytes(*word));
        }
        absorb(&mut v, last_word(rest) | (key.len() as u64) << 56);
        v[2] ^= 0xff;
        round(&mut v);
        round(&mut v);
        round(&mut v);
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline(always)]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// Reads up to seven bytes as a little-endian number, in at most three loads.
#[inline(always)]
fn last_word(rest: &[u8]) -> u64 {
    let len = rest.len();
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        let high = u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
        u64::from(u32::from_le_bytes(*first)) | high
    } else if len > 0 {
        let middle = u64::from(rest[len / 2]) << (8 * (len / 2));
        u64::from(rest[0]) | middle | u64::from(rest[len - 1]) << (8 * (len - 1))
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    proptest! {
        #![proptest_config(crate::ds::cases(256))]

        #[test]
        fn oracle(seed: [u64; 2], key in prop::collection::vec(any::<u8>(), 0..100)) {
            let theirs = SipHasher13::new_with_keys(seed[0], seed[1]).hash(&key);
            prop_assert_eq!(HashSeed::new(seed).hash(&key), theirs);
        }
    }

    /// Measures the speed of this implementation and of the `siphasher` crate. Run with `--release
    /// --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn ours_and_the_crate() {
        let seed = HashSeed::new([1, 2]);
        for len in [8, 12, 16, 24, 32] {
            let mut key = vec![b'k'; len];
            let mut time = |hash: &dyn Fn(&[u8]) -> u64| {
                let start = std::time::Instant::now();
                for _ in 0..5_000_000 {
                    let next = hash(&key);
                    key[..8].copy_from_slice(&next.to_le_bytes());
                }
                start.elapsed().as_nanos() as f64 / 5e6
            };
            let ours = time(&|key| seed.hash(key));
            let theirs = time(&|key| SipHasher13::new_with_keys(1, 2).hash(key));
            println!("{len} bytes: ours {ours:.1} ns, the crate {theirs:.1} ns");
        }
    }
}
