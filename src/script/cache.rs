//! Compiled scripts by SHA-1, and by source.
//!
//! EVAL brings the whole source each time. Hashing it with SHA-1 would cost more than a short
//! script itself, so scripts are found by a fast keyed hash of the source, which is then compared;
//! the SHA-1 is computed when a script is first seen.
//!
//! ```text
//!   by_source: hash -> place ─┐
//!   by_sha:    sha  -> place ─┴─> scripts[place]: source, function, flags
//!                                 oldest <─ older ─ [..] ─ newer ─> newest      scripts of EVAL only
//! ```
//!
//! Scripts that came with EVAL make room for newer ones when there are more than [`EVAL_MAX`], the
//! one used least recently first (Redis 7.4). Those of SCRIPT LOAD stay until SCRIPT FLUSH.
//!
//! **Invariant:** a place is in the list of EVAL's scripts if and only if its `by_eval` is set.

use std::collections::HashMap;

use crate::script::flags::Flags;
use crate::sys::lua::FunctionRef;

/// How many scripts of EVAL are kept.
pub const EVAL_MAX: usize = 500;
/// No place: the end of the list.
const NONE: u32 = u32::MAX;
/// What a script occupies beside its source, about: two entries of hash maps.
const OVERHEAD: usize = size_of::<Script>() + 2 * 48;

/// 40 hexadecimal digits.
pub type Sha = [u8; 40];

#[derive(Clone)]
pub struct Script {
    pub sha: Sha,
    pub source: Box<[u8]>,
    pub function: FunctionRef,
    pub flags: Flags,
    /// It came with EVAL, and may make room for others.
    by_eval: bool,
    hash: u64,
    older: u32,
    newer: u32,
}

pub struct Cache {
    scripts: Vec<Option<Script>>,
    free: Vec<u32>,
    by_source: HashMap<u64, u32>,
    by_sha: HashMap<Sha, u32>,
    oldest: u32,
    newest: u32,
    /// Length of the list.
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
    pub fn len(&self) -> usize {
        self.by_sha.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_sha.is_empty()
    }

    pub fn memory(&self) -> usize {
        self.source_bytes + self.len() * OVERHEAD
    }

    pub fn get(&self, place: u32) -> Option<&Script> {
        self.scripts.get(place as usize)?.as_ref()
    }

    /// The script with this source, whose hash is given.
    #[inline]
    pub fn by_source(&self, hash: u64, source: &[u8]) -> Option<u32> {
        let &place = self.by_source.get(&hash)?;
        (*self.get(place)?.source == *source).then_some(place)
    }

    /// The script with this SHA-1, in lower or upper case.
    pub fn by_sha(&self, sha: &[u8]) -> Option<u32> {
        let mut sha: Sha = sha.try_into().ok()?;
        sha.make_ascii_lowercase();
        self.by_sha.get(&sha).copied()
    }

    /// Keep a script that is not here yet.
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

    /// A new script came with EVAL. Returns the one that has to go for it.
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

    /// A script was used: it is the last to go.
    #[inline]
    pub fn touch(&mut self, place: u32) {
        if place != self.newest && self.get(place).is_some_and(|script| script.by_eval) {
            self.unlink(place);
            self.push_newest(place);
        }
    }

    /// SCRIPT LOAD: from now on it stays.
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

/// The SHA-1 of a script, as clients say it.
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
