//! Data structures over packed bytes. `unsafe` lives here and in `sys`.
#![allow(unsafe_code)]

pub mod bits;
mod counted;
pub mod entry;
pub mod expires;
pub mod field;
pub mod hash;
pub mod hashtable;
pub mod hll;
pub mod intset;
pub mod listpack;
pub mod lzf;
pub mod member;
pub mod quicklist;
pub mod set_member;
pub mod sorted_set;
pub mod stream;
mod thin;
pub mod wire;
pub mod ziplist;
pub mod zipmap;
pub mod zset_tree;

/// How many histories a property test tries. Miri is some hundred times slower, and has no files.
#[cfg(test)]
fn cases(n: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::with_cases(n);
    if cfg!(miri) {
        config.cases = n.min(4);
        config.failure_persistence = None;
    }
    config
}
