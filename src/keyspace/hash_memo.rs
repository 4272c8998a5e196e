//! Hashes of keys, computed while requests are parsed ahead and used by the look-ups that follow.

use crate::command::keys::KeyRef;

/// Key hashes of the commands that were parsed ahead: `(address, length, hash)` of each key in the
/// request buffer, in the order in which the commands will look them up. Addresses are compared,
/// never followed.
#[derive(Default)]
pub struct HashMemo {
    pub entries: Vec<(usize, usize, u64)>,
    pub cursor: usize,
    /// Hashes of keys that a script will pass from another address: they serve only to prefetch.
    pub counted: Vec<u64>,
    /// Room for the keys of a command whose slots are checked.
    pub keys: Vec<KeyRef>,
}

impl HashMemo {
    /// Removes all hashes.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.counted.clear();
        self.cursor = 0;
    }
}
