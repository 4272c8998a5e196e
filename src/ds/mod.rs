//! Data structures over packed bytes. `unsafe` is allowed only in this folder and in `sys`.
#![allow(unsafe_code)]

pub mod bits;
pub mod btree_memory;
pub mod bulk;
mod counted;
pub mod crc16;
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
pub mod registry;
pub mod relocate;
pub mod seeded;
pub mod set_member;
pub mod siphash;
pub mod sorted_set;
pub mod stream;
pub mod thin_buffer;
pub mod ziplist;
pub mod zipmap;
pub mod zset_tree;

#[cfg(test)]
use crate::sys::allocator::ThreadCounters;

/// The settings of a property test: it runs `n` generated histories. Under Miri, where each history
/// takes far longer, a property test runs at most four, and a history that fails is not kept in a
/// file.
#[cfg(test)]
fn cases(n: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::with_cases(n);
    if cfg!(miri) {
        config.cases = n.min(4);
        config.failure_persistence = None;
    }
    config
}

/// Calls `make`, and returns its result with the number of bytes that the allocator counted for it;
/// `None` under an allocator that does not count.
#[cfg(test)]
fn allocated<T>(make: impl FnOnce() -> T) -> Option<(T, usize)> {
    if cfg!(any(miri, not(feature = "jemalloc"))) {
        return None;
    }
    let counters = ThreadCounters::of_this_thread()?;
    let before = counters.balance();
    let made = make();
    let bytes = counters.balance() - before;
    Some((made, usize::try_from(bytes).ok()?))
}

/// The size of a test's data: `n`, or the smaller `under_miri` under Miri, where drawing one random
/// byte takes 10 ms.
#[cfg(test)]
const fn scaled(n: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { n }
}

/// Bytes that differ from their neighbours: byte n is `n as u8`. The bytes are copied from a period
/// of 256 bytes, which is quick under Miri, too.
#[cfg(test)]
fn numbered(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=255).collect();
    let mut bytes = period.repeat(len / 256 + 1);
    bytes.truncate(len);
    bytes
}
