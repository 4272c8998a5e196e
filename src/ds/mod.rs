//! Data structures over packed bytes. `unsafe` lives here and in `sys`.
#![allow(unsafe_code)]

pub mod bits;
pub mod bulk;
mod counted;
pub mod entry;
pub mod expires;
pub mod field;
pub mod hashtable;
pub mod hll;
pub mod intset;
pub mod listpack;
pub mod lzf;
pub mod member;
pub mod quicklist;
pub mod set_member;
pub mod siphash;
pub mod sorted_set;
pub mod stream;
pub mod thin_buffer;
pub mod ziplist;
pub mod zipmap;
pub mod zset_tree;

/// How many histories a property test tries. Miri is some ten thousand times slower, and has no
/// files.
#[cfg(test)]
fn cases(n: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::with_cases(n);
    if cfg!(miri) {
        config.cases = n.min(4);
        config.failure_persistence = None;
    }
    config
}

/// A number that a test's time depends on, and what Miri makes do with: drawing one byte costs it
/// 10 ms.
#[cfg(test)]
const fn scaled(n: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { n }
}

/// Bytes that tell their places apart, `n as u8` each; made by copying, which is quick under Miri,
/// too.
#[cfg(test)]
fn numbered(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=255).collect();
    let mut bytes = period.repeat(len / 256 + 1);
    bytes.truncate(len);
    bytes
}
