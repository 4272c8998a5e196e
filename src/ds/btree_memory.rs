//! Computes the memory of a `BTreeMap` or `BTreeSet`, which the standard library does not report.
//!
//! A node has room for 11 pairs (`std::collections::btree`: B = 6); an inner node also has 12
//! edges. If keys are added in rising order, a full node is divided so that six pairs stay in it,
//! one pair moves to the parent, and four pairs are in a new node with the new key:
//!
//! ```text
//!   11 pairs and a larger one ──>  6 pairs │ 1 goes up │ 4 pairs and the new one
//! ```
//!
//! **Limits.** The number of nodes is exact if keys were only added, in rising order, as the IDs of
//! a stream are. With keys in random order nodes are fuller, and the computed memory is up to a
//! quarter too large.

use super::thin_buffer::size_class;

const NODE_MAX: usize = 11;
/// The number of pairs in a node that was divided, together with its separator in the parent.
const KEPT: usize = 7;
/// The smallest number of pairs in the last node of a level.
const LAST_MIN: usize = 5;

/// The bytes of the nodes of a map of `len` pairs, without the memory that the pairs own. A
/// `BTreeSet` is a map to `()`.
pub fn map_bytes<K, V>(len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let pairs = NODE_MAX * (size_of::<K>() + size_of::<V>());
    let align = align_of::<K>()
        .max(align_of::<V>())
        .max(align_of::<usize>());
    // A leaf consists of a pointer to the parent, the pairs, the leaf's index in the parent and the
    // number of pairs.
    let leaf = (size_of::<usize>() + pairs + 2 * size_of::<u16>()).next_multiple_of(align);
    let inner = leaf + (NODE_MAX + 1) * size_of::<usize>();
    let mut nodes = nodes(len);
    let mut bytes = nodes * size_class(leaf);
    while nodes > 1 {
        nodes = self::nodes(nodes - 1);
        bytes += nodes * size_class(inner);
    }
    bytes
}

/// The number of nodes of a level, if the level and the separators between its nodes have `pairs`
/// pairs.
fn nodes(pairs: usize) -> usize {
    match pairs {
        ..=NODE_MAX => 1,
        _ => (pairs - LAST_MIN) / KEPT + 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ds::allocated;

    #[test]
    fn rising_keys_take_what_the_allocator_saw() {
        for len in [0, 1, 11, 12, 18, 19, 60, 87, 1000, 12_345] {
            let seen = allocated(|| {
                (0..len as u128).fold(BTreeMap::<u128, u64>::new(), |mut map, key| {
                    map.insert(key, 0);
                    map
                })
            });
            if let Some((_, seen)) = seen {
                assert_eq!(map_bytes::<u128, u64>(len), seen, "{len} keys");
            }
        }
    }

    #[test]
    fn keys_in_random_order_take_about_as_much() {
        for len in [100, 1000, 10_000] {
            let seen = allocated(|| {
                let key =
                    |n: usize| (n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
                (0..len).map(|n| (key(n), 0)).fold(
                    BTreeMap::<u128, u64>::new(),
                    |mut map, (key, value)| {
                        map.insert(key, value);
                        map
                    },
                )
            });
            if let Some((_, seen)) = seen {
                let computed = map_bytes::<u128, u64>(len);
                assert!(
                    computed >= seen * 95 / 100 && computed <= seen * 135 / 100,
                    "{computed} of {seen}"
                );
            }
        }
    }
}
