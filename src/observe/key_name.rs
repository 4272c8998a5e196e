//! Names of keys for the rankings: distinguished by hash, remembered in bounded memory.
//!
//! A key may be 512 MB long. What is kept of it is its beginning; whether two are the same is
//! decided by the hash of the whole under the server's seed, with the database. The chance that two
//! of n keys are taken for one is n² / 2^65.

/// Bytes kept of a key; of a longer one [`KeptName::shown`] says how many more there were.
pub const KEPT_MAX: usize = 512;

/// A key of a database.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub db: u32,
    /// Under the server's seed.
    pub hash: u64,
    pub key: &'a [u8],
}

impl Name<'_> {
    /// Different for each database, and as good as the hash.
    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }
}

fn identity(hash: u64, db: u32) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    hash ^ u64::from(db).wrapping_mul(ODD)
}

/// A name that stays when the key has gone.
#[derive(Clone)]
pub struct KeptName {
    pub db: u32,
    hash: u64,
    /// Bytes of the whole key.
    len: usize,
    beginning: Vec<u8>,
}

impl KeptName {
    pub fn of(name: Name) -> KeptName {
        KeptName {
            db: name.db,
            hash: name.hash,
            len: name.key.len(),
            beginning: beginning(name.key).to_vec(),
        }
    }

    /// Become another one, in the same memory.
    pub fn replace(&mut self, name: Name) {
        (self.db, self.hash, self.len) = (name.db, name.hash, name.key.len());
        self.beginning.clear();
        self.beginning.extend_from_slice(beginning(name.key));
    }

    pub fn identity(&self) -> u64 {
        identity(self.hash, self.db)
    }

    pub fn is(&self, name: Name) -> bool {
        self.hash == name.hash && self.db == name.db
    }

    /// What can be shown of it: by database, then by bytes.
    pub fn order(&self) -> (u32, &[u8]) {
        (self.db, &self.beginning)
    }

    /// The key, or its beginning and how much is missing.
    pub fn shown(&self) -> Vec<u8> {
        let mut shown = self.beginning.clone();
        if self.len > shown.len() {
            let more = self.len - shown.len();
            shown.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
        }
        shown
    }

    /// Heap bytes.
    pub fn memory(&self) -> usize {
        self.beginning.capacity()
    }
}

fn beginning(key: &[u8]) -> &[u8] {
    &key[..key.len().min(KEPT_MAX)]
}
