//! Names of keys for HOTKEYS and BIGKEYS: compared by hash, and kept in bounded memory.
//!
//! A key may be 512 MB long, so only its beginning is kept. Two names are equal if the hashes of
//! the whole keys, under the server's seed, and the databases are equal. The chance that two of n
//! keys are taken for one is n² / 2^65.

/// The number of bytes of a key that are kept; [`KeptName::shown`] appends the number of missing
/// bytes.
const KEPT_MAX: usize = 512;

/// A key of a database.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub db: u32,
    /// The key's hash, under the server's seed.
    pub hash: u64,
    pub key: &'a [u8],
}

impl Name<'_> {
    /// A hash of key and database.
    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }
}

fn identity(hash: u64, db: u32) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    hash ^ u64::from(db).wrapping_mul(ODD)
}

/// A copy of a name, which remains when the key is deleted.
#[derive(Clone)]
pub struct KeptName {
    pub db: u32,
    hash: u64,
    /// The length of the whole key.
    len: usize,
    beginning: Vec<u8>,
}

impl KeptName {
    /// Copies a name.
    pub fn of(name: Name) -> KeptName {
        KeptName {
            db: name.db,
            hash: name.hash,
            len: name.key.len(),
            beginning: beginning(name.key).to_vec(),
        }
    }

    /// Replaces the name; its memory is reused.
    pub fn replace(&mut self, name: Name) {
        (self.db, self.hash, self.len) = (name.db, name.hash, name.key.len());
        self.beginning.clear();
        self.beginning.extend_from_slice(beginning(name.key));
    }

    /// A hash of key and database, equal to [`Name::identity`].
    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }

    /// Whether this is a copy of `name`.
    pub fn is(&self, name: Name) -> bool {
        self.hash == name.hash && self.db == name.db
    }

    /// The order of names: by database, then by bytes.
    pub fn order(&self) -> (u32, &[u8]) {
        (self.db, &self.beginning)
    }

    /// The key, or its beginning and the number of missing bytes.
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
