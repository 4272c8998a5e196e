//! A set of hash slots, as packets of the cluster bus carry it: 2,048 bytes, slot 0 in the lowest
//! bit of the first byte.

use std::fmt;

use crate::db::slot::SLOTS;

const WORDS: usize = SLOTS / 64;

/// The size in bytes of a set of slots in a packet of the cluster bus.
pub const BITMAP_LEN: usize = SLOTS / 8;

/// A set of hash slots, a bit for each slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap(Box<[u64; WORDS]>);

impl Default for Bitmap {
    fn default() -> Bitmap {
        Bitmap(Box::new([0; WORDS]))
    }
}

impl Bitmap {
    /// Reads the set from its bytes in a packet of the cluster bus.
    pub fn from_bytes(bytes: &[u8; BITMAP_LEN]) -> Bitmap {
        let mut bitmap = Bitmap::default();
        let (words, _) = bytes.as_chunks::<8>();
        for (word, bytes) in bitmap.0.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        bitmap
    }

    /// Appends the set to a packet of the cluster bus.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend(self.0.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// Adds a slot, which must be below [`SLOTS`], to the set.
    pub fn insert(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
    }

    /// Removes a slot from the set.
    pub fn remove(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] &= !(1 << (slot % 64));
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] >> (slot % 64) & 1 == 1
    }

    /// The number of slots in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The slots of the set in ascending order. 64 slots that are not in the set cost one test.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                (left != 0).then(|| {
                    left &= left - 1;
                    (at * 64) as u16 + bit as u16
                })
            })
        })
    }
}

impl FromIterator<u16> for Bitmap {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Bitmap {
        let mut bitmap = Bitmap::default();
        slots.into_iter().for_each(|slot| bitmap.insert(slot));
        bitmap
    }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_was_inserted() {
        let slots = [0, 1, 63, 64, 8191, 16_383];
        let mut set: Bitmap = slots.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<u16>>(), slots);
        assert_eq!(set.len(), slots.len());
        let mut bytes = Vec::new();
        set.append_to(&mut bytes);
        assert_eq!(bytes[0], 3);
        assert_eq!(bytes[2047], 0x80);
        let bytes: [u8; BITMAP_LEN] = bytes.try_into().expect("the length of a bitmap");
        assert_eq!(Bitmap::from_bytes(&bytes), set);
        slots.iter().for_each(|slot| set.remove(*slot));
        assert!(set.is_empty() && !set.contains(64));
    }
}
