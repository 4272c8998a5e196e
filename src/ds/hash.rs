//! The keyed hash of every table: SipHash-1-3 under a secret seed.
//!
//! Names of keys come from outside. With a hash that anyone can compute, a client picks a million names of one bucket
//! and every lookup walks them all. SipHash with a seed drawn at start makes that impossible without the seed; the 1-3
//! variant (one round for each word, three at the end) is what Rust's own maps use.
//!
//! **Invariants.** A seed never changes during a table's life: the table recomputes hashes when it rehashes and must find
//! each element where the last hash put it.
use siphasher::sip::SipHasher13;

/// The 128-bit key of a table's hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed([u64; 2]);

impl HashSeed {
    pub const fn new(words: [u64; 2]) -> Self {
        HashSeed(words)
    }

    /// The hash of a key: 64 bits, all of them good.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.0[0], self.0[1]).hash(key)
    }
}
