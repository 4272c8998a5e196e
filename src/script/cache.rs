//! Compiled scripts by SHA-1, and by source.
//!
//! EVAL sends the whole source each time. Hashing it with SHA-1 would cost more than running a
//! short script, so scripts are found by a fast keyed hash of the source, which is then compared.
//! The SHA-1 is computed when a script is added.
//!
//! ```text
//!   by_source: hash -> place ─┐
//!   by_sha:    sha  -> place ─┴─> scripts[place]: source, function, flags
//!                                 oldest <─ older ─ [..] ─ newer ─> newest      scripts of EVAL only
//! ```
//!
//! Of the scripts of EVAL at most [`EVAL_MAX`] are kept; the least recently used one is removed
//! first (Redis 7.4). Scripts of SCRIPT LOAD stay until SCRIPT FLUSH.
//!
//! **Invariant:** a script is in the list of EVAL's scripts if and only if its `by_eval` is set.

use std::collections::HashMap;

use crate::ds::relocate::Cursor;
use crate::script::flags::Flags;
use crate::sys::lua::FunctionRef;
use crate::sys::mover::Mover;

/// The maximum number of scripts of EVAL that are kept.
pub const EVAL_MAX: usize = 500;
/// Marks the end of the list of EVAL's scripts, instead of the index of a script.
const NONE: u32 = u32::MAX;
/// The approximate memory of a script beside its source: two entries of hash maps.
const OVERHEAD: usize = size_of::<Script>() + 2 * 48;

/// A SHA-1 as 40 hexadecimal digits.
pub type Sha = [u8; 40];

/// A compiled script.
#[derive(Clone)]
pub struct Script {
    pub sha: Sha,
    pub source: Box<[u8]>,
    pub function: FunctionRef,
    pub flags: Flags,
    /// Whether the script came with EVAL, and may be removed to make room for newer scripts.
    by_eval: bool,
    hash: u64,
    older: u32,
    newer: u32,
}

/// The compiled scripts.
pub struct Cache {
    scripts: Vec<Option<Script>>,
    free: Vec<u32>,
    by_source: HashMap<u64, u32>,
    by_sha: HashMap<Sha, u32>,
    oldest: u32,
    newest: u32,
    /// The number of scripts in the list of EVAL's scripts.
    of_eval: usize,
    source_bytes: usize,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            scripts: Vec::new(),
            free: Vec::new(),
            by_source: HashMap::new(),
            by_sha: HashMap::new(),
            oldest: NONE,
            newest: NONE,
            of_eval: 0,
            source_bytes: 0,
        }
    }
}

impl Cache {
    /// The number of scripts.
    pub fn len(&self) -> usize {
        self.by_sha.len()
    }

    /// Whether there are no scripts.
    pub fn is_empty(&self) -> bool {
        self.by_sha.is_empty()
    }

    /// The approximate memory of the cache in bytes.
    pub fn memory(&self) -> usize {
        self.source_bytes + self.len() * OVERHEAD
    }

    /// Lets active defragmentation move the scripts' sources, from the index `cursor` on
    /// (`ds::relocate`).
    pub fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        let first = usize::try_from(cursor).unwrap_or(usize::MAX);
        for (at, script) in self.scripts.iter_mut().enumerate().skip(first) {
            if mover.is_spent() && at > first {
                return at as Cursor;
            }
            mover.visited(1);
            if let Some(script) = script {
                mover.boxed_slice(&mut script.source);
            }
        }
        0
    }

    /// The script at this index of the cache.
    pub fn get(&self, place: u32) -> Option<&Script> {
        self.scripts.get(place as usize)?.as_ref()
    }

    /// The index of the script with this source; `hash` is the hash of the source.
    #[inline]
    pub fn by_source(&self, hash: u64, source: &[u8]) -> Option<u32> {
        let &place = self.by_source.get(&hash)?;
        (*self.get(place)?.source == *source).then_some(place)
    }

    /// The index of the script with this SHA-1, in lower or upper case.
    pub fn by_sha(&self, sha: &[u8]) -> Option<u32> {
        let mut sha: Sha = sha.try_into().ok()?;
        sha.make_ascii_lowercase();
        self.by_sha.get(&sha).copied()
    }

    /// Adds a script that is not in the cache.
    pub fn insert(
        &mut self,
        hash: u64,
        sha: Sha,
        source: &[u8],
        function: FunctionRef,
        flags: Flags,
    ) -> u32 {
        let script = Script {
            sha,
            source: source.into(),
            function,
            flags,
            by_eval: false,
            hash,
            older: NONE,
            newer: NONE,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.scripts.push(None);
            self.scripts.len() as u32 - 1
        });
        self.source_bytes += source.len();
        self.scripts[place as usize] = Some(script);
        self.by_source.insert(hash, place);
        self.by_sha.insert(sha, place);
        place
    }

    /// Adds a new script to the list of EVAL's scripts. Returns the script that was removed to make
    /// room, if any.
    pub fn enlist(&mut self, place: u32) -> Option<Script> {
        if let Some(script) = self.at(place) {
            script.by_eval = true;
        }
        self.push_newest(place);
        self.of_eval += 1;
        if self.of_eval > EVAL_MAX {
            return self.remove(self.oldest);
        }
        None
    }

    /// Moves a script of EVAL that was just used to the newest end of the list, so that it is
    /// removed last.
    #[inline]
    pub fn touch(&mut self, place: u32) {
        if place != self.newest && self.get(place).is_some_and(|script| script.by_eval) {
            self.unlink(place);
            self.push_newest(place);
        }
    }

    /// SCRIPT LOAD: takes the script off the list of EVAL's scripts, so that it stays until SCRIPT
    /// FLUSH.
    pub fn pin(&mut self, place: u32) {
        if self.get(place).is_some_and(|script| script.by_eval) {
            self.unlink(place);
            self.of_eval -= 1;
            if let Some(script) = self.at(place) {
                script.by_eval = false;
            }
        }
    }

    fn remove(&mut self, place: u32) -> Option<Script> {
        self.pin(place);
        let script = self.scripts.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.source_bytes -= script.source.len();
        self.by_sha.remove(&script.sha);
        if self.by_source.get(&script.hash) == Some(&place) {
            self.by_source.remove(&script.hash);
        }
        Some(script)
    }

    fn at(&mut self, place: u32) -> Option<&mut Script> {
        self.scripts.get_mut(place as usize)?.as_mut()
    }

    fn push_newest(&mut self, place: u32) {
        let before = self.newest;
        if let Some(script) = self.at(place) {
            (script.older, script.newer) = (before, NONE);
        }
        match self.at(before) {
            Some(script) => script.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let Some(script) = self.get(place) else {
            return;
        };
        let (older, newer) = (script.older, script.newer);
        match self.at(older) {
            Some(script) => script.newer = newer,
            None => self.oldest = newer,
        }
        match self.at(newer) {
            Some(script) => script.older = older,
            None => self.newest = older,
        }
    }
}

/// The SHA-1 of a script as hexadecimal digits.
pub fn sha_of(source: &[u8]) -> Sha {
    use sha1::Digest;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 40];
    for (pair, byte) in out.chunks_mut(2).zip(sha1::Sha1::digest(source)) {
        pair[0] = DIGITS[byte as usize >> 4];
        pair[1] = DIGITS[byte as usize & 15];
    }
    out
}
