//! A table of names, with the values that are registered under each name: the subscribers of a
//! channel, the clients that watch a key, the clients that wait for a key.
//!
//! ```text
//!   name ──> first, second, ...       a name under which nothing is registered any more is gone
//! ```
//!
//! A registry counts the memory of its names and values as they change, so that a report of memory
//! needs no walk.
//!
//! **Invariant:** the counter `owned` of a registry is the sum of the size classes of the names and
//! of the values' `heap_bytes`.

use super::seeded::SeededMap;
use super::thin_buffer::{heap_bytes, size_class, vec_bytes};

/// The type of the value that is registered under one name.
pub trait Registered: Default {
    /// Whether nothing is registered any more, so that the name is removed.
    fn is_empty(&self) -> bool;

    /// The memory that the value owns, in bytes.
    fn heap_bytes(&self) -> usize;
}

impl<T> Registered for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        vec_bytes(self)
    }
}

impl<T> Registry<Vec<T>> {
    /// Registers one more value under a name.
    pub fn push(&mut self, name: &[u8], value: T) {
        self.change(name, |values| {
            if values.is_empty() {
                // Most names have one value, so the vector begins with room for one instead of
                // `Vec`'s minimum of four.
                values.reserve_exact(1);
            }
            values.push(value);
        });
    }
}

/// A map from names to the values that are registered under them.
pub struct Registry<V> {
    table: SeededMap<Box<[u8]>, V>,
    owned: usize,
}

impl<V> Default for Registry<V> {
    fn default() -> Registry<V> {
        Registry {
            table: SeededMap::default(),
            owned: 0,
        }
    }
}

impl<V: Registered> Registry<V> {
    /// Changes the value under a name. A new name begins with an empty value; a name whose value is
    /// empty after the change is removed.
    pub fn change<R>(&mut self, name: &[u8], change: impl FnOnce(&mut V) -> R) -> R {
        let Registry { table, owned } = self;
        let value = table.entry(name.into()).or_insert_with(|| {
            *owned += heap_bytes(name.len());
            V::default()
        });
        let result = counted(owned, value, change);
        if value.is_empty() {
            self.remove(name);
        }
        result
    }

    /// Changes the value under a name. Returns `None` if the name does not exist.
    pub fn change_existing<R>(
        &mut self,
        name: &[u8],
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        let value = self.table.get_mut(name)?;
        let result = counted(&mut self.owned, value, change);
        if value.is_empty() {
            self.remove(name);
        }
        Some(result)
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(value) = self.table.remove(name) {
            self.owned -= heap_bytes(name.len()) + value.heap_bytes();
        }
    }

    /// The value under a name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&V> {
        self.table.get(name)
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no name exists.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Iterates over all names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.table.keys().map(|name| &**name)
    }

    /// Iterates over all names with their values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.table.iter().map(|(name, value)| (&**name, value))
    }

    /// The memory of the table, the names and the values in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.owned + table_bytes::<(Box<[u8]>, V)>(self.table.capacity())
    }
}

/// Changes a registered value, and adds the change of its heap memory to `owned`.
fn counted<V: Registered, R>(
    owned: &mut usize,
    value: &mut V,
    change: impl FnOnce(&mut V) -> R,
) -> R {
    let before = value.heap_bytes();
    let result = change(value);
    *owned = *owned - before + value.heap_bytes();
    result
}

/// The memory in bytes of a hash map of the standard library that takes `capacity` pairs of type
/// `T` before it grows: 8 buckets for each 7 pairs, a control byte for each bucket, and 16 control
/// bytes behind them.
fn table_bytes<T>(capacity: usize) -> usize {
    const GROUP: usize = 16;
    let buckets = match capacity {
        0 => return 0,
        1..4 => 4,
        4..8 => 8,
        8..15 => 16,
        _ => (capacity * 8 / 7).next_power_of_two(),
    };
    let pairs = (buckets * size_of::<T>()).next_multiple_of(GROUP);
    size_class(pairs + buckets + GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::allocated;

    #[test]
    fn a_name_without_values_is_gone() {
        let mut registry: Registry<Vec<u8>> = Registry::default();
        registry.change(b"a", |values| values.push(1));
        registry.change(b"a", |values| values.push(2));
        assert_eq!(registry.get(b"a"), Some(&vec![1, 2]));
        assert_eq!(
            registry.change_existing(b"b", |values| values.push(1)),
            None
        );
        registry.change(b"c", |_| ());
        assert_eq!(registry.names().collect::<Vec<_>>(), [b"a"]);
        registry.change_existing(b"a", |values| values.clear());
        assert!(registry.is_empty());
        assert_eq!(registry.len(), 0);
        assert_eq!(registry.owned, 0);
    }

    /// Compares the memory that a registry reports with the allocator's count, at sizes before and
    /// after the hash map has grown.
    #[test]
    fn the_memory_is_what_the_allocator_saw() {
        for n in [1, 3, 4, 7, 8, 14, 15, 28, 29, 200] {
            let made = allocated(|| {
                let mut registry: Registry<Vec<u64>> = Registry::default();
                for i in 0..n {
                    let name = vec![b'n'; i];
                    registry.change(&name, |values| values.extend([0; 3]));
                }
                registry
            });
            let Some((registry, seen)) = made else {
                return;
            };
            assert_eq!(registry.memory_bytes(), seen, "{n} names");
        }
    }
}
