//! Names of keys for HOTKEYS and BIGKEYS: compared by hash, and kept in bounded memory.
//!
//! A key may be 512 MB long, so only its beginning is kept. Two names count as equal if their
//! databases and the hashes of the whole keys (under the server's seed) are equal. The chance that
//! any two of n keys are taken for one key is n² / 2^65.

/// The maximum number of bytes of a key that a [`KeptName`] stores; its text form ends with the
/// number of missing bytes.
const KEPT_MAX: usize = 512;

/// A key with its database and its hash, borrowed from a command or from the keyspace.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub db: u32,
    /// The key's hash, under the server's seed.
    pub hash: u64,
    pub key: &'a [u8],
}

impl Name<'_> {
    /// A hash of key and database, by which names are compared and found.
    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }
}

fn identity(hash: u64, db: u32) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    hash ^ u64::from(db).wrapping_mul(ODD)
}

/// A copy of a key's name (at most its first 512 bytes), which stays when the key is deleted.
#[derive(Clone)]
pub struct KeptName {
    pub db: u32,
    hash: u64,
    /// The length of the whole key in bytes.
    len: usize,
    beginning: Vec<u8>,
}

impl KeptName {
    /// Copies the first 512 bytes of a key's name, its database and its hash.
    pub fn of(name: Name) -> KeptName {
        KeptName {
            db: name.db,
            hash: name.hash,
            len: name.key.len(),
            beginning: beginning(name.key).to_vec(),
        }
    }

    /// Replaces this copy by a copy of another key's name; the memory is reused.
    pub fn replace(&mut self, name: Name) {
        (self.db, self.hash, self.len) = (name.db, name.hash, name.key.len());
        self.beginning.clear();
        self.beginning.extend_from_slice(beginning(name.key));
    }

    /// A hash of key and database, equal to [`Name::identity`].
    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }

    /// Whether this is a copy of `name`: hash and database are equal.
    pub fn is(&self, name: Name) -> bool {
        self.hash == name.hash && self.db == name.db
    }

    /// What names are sorted by: the database, then the stored bytes of the key.
    pub fn order(&self) -> (u32, &[u8]) {
        (self.db, &self.beginning)
    }

    /// The key as it is shown: whole, or its beginning and the number of missing bytes.
    pub fn shown(&self) -> Vec<u8> {
        let mut shown = self.beginning.clone();
        if self.len > shown.len() {
            let more = self.len - shown.len();
            shown.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
        }
        shown
    }

    /// The number of heap bytes of the name.
    pub fn memory(&self) -> usize {
        self.beginning.capacity()
    }
}

fn beginning(key: &[u8]) -> &[u8] {
    &key[..key.len().min(KEPT_MAX)]
}
