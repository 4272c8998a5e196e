//! The server's random numbers: one generator, seeded once, so that a run can be repeated from its
//! seed.

use rand::rngs::{SmallRng, SysRng};
use rand::{Rng, RngExt, SeedableRng, TryRng};

/// A generator of random numbers that can be guessed: not for secrets.
pub struct Random(SmallRng);

impl Random {
    /// A generator whose numbers follow from the seed.
    pub fn from_seed(seed: u64) -> Random {
        Random(SmallRng::seed_from_u64(seed))
    }

    /// A seed from the operating system.
    pub fn system_seed() -> u64 {
        SysRng.try_next_u64().unwrap_or(0x9e37_79b9_7f4a_7c15)
    }

    /// The generator itself, for functions that take any `Rng`.
    pub fn raw(&mut self) -> &mut impl Rng {
        &mut self.0
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniformly distributed number in `0..n`; 0 for an empty range.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.0.random_range(0..n) }
    }

    /// A new generator for one command, which has borrowed a value from the server and so can't
    /// borrow the server's generator.
    pub fn split(&mut self) -> Random {
        Random::from_seed(self.next_u64())
    }

    /// `n` unguessable hexadecimal digits from the operating system; `None` if the system has no
    /// source of randomness.
    pub fn secret_hex(n: usize) -> Option<String> {
        let mut bytes = vec![0; n.div_ceil(2)];
        SysRng.try_fill_bytes(&mut bytes).ok()?;
        let mut digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.truncate(n);
        Some(digits)
    }

    /// `n` hexadecimal digits from this generator, which can be guessed.
    pub fn hex(&mut self, n: usize) -> String {
        (0..n)
            .map(|_| char::from(b"0123456789abcdef"[self.below(16) as usize]))
            .collect()
    }
}
