//! Hashes of keys that are computed when requests are parsed, and reused when their commands look
//! the keys up.

use crate::command::keys::KeyRef;

/// Key hashes of the commands that were parsed ahead: `(address, length, hash)` of each key in the
/// request buffer, in the order in which the commands will look them up. The addresses are only
/// compared, never dereferenced.
#[derive(Default)]
pub struct HashMemo {
    pub entries: Vec<(usize, usize, u64)>,
    pub cursor: usize,
    /// The hashes of the keys that EVAL and similar commands declare. A script copies its keys, so
    /// these hashes are used only to prefetch.
    pub counted: Vec<u64>,
    /// A reusable buffer for the keys of a command whose slots are checked.
    pub keys: Vec<KeyRef>,
}

impl HashMemo {
    /// Adds a key of a batch of requests, with its place among all arguments of the batch. When the
    /// keys of the batch are hashed, the place is replaced by the key's hash.
    #[inline]
    pub fn note(&mut self, place: usize, key: &[u8]) {
        let entry = (key.as_ptr() as usize, key.len(), place as u64);
        self.entries.push(entry);
    }

    /// Removes the hashes of all keys.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.counted.clear();
        self.cursor = 0;
    }
}
