//! The buffer between a command and the disk.
//!
//! ```text
//!   unit ─> feed ─>  back  [ file 3 | bytes.. ]   what is fed now
//!                          [ file 2 | bytes.. ]   fed before a rewrite opened file 3, still to be written
//!                    front                        is written first
//!
//!            synced <= written <= fed             offsets in all that was ever fed, whichever file it is in
//! ```
//!
//! A reply waits for an offset (`flush`), so offsets don't start again with a new file.
//!
//! **Invariant:** bytes are written in the order in which they were fed, and each to the file that
//! was the last one then (`crash_tests`).

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use crate::propagate::sink;
use crate::propagate::unit::{Unit, select};

/// An emptied buffer keeps at most this capacity.
const KEEP_BYTES: usize = 1 << 20;

/// Bytes for one file.
pub struct Segment {
    pub file: Arc<File>,
    /// Its length, without `bytes`.
    pub len: u64,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
pub struct Feed {
    queue: VecDeque<Segment>,
    /// Of everything that was ever fed, in bytes.
    pub fed: u64,
    pub written: u64,
    pub synced: u64,
    /// The database of the last command; `None`: the next command is preceded by SELECT.
    selected_db: Option<u32>,
    /// The second of the last annotation.
    stamp_s: i64,
    /// The front's bytes are being written.
    taken: bool,
    /// An emptied buffer, to be filled again.
    spare: Vec<u8>,
}

impl Feed {
    /// There is a file that takes what is fed.
    pub fn is_open(&self) -> bool {
        !self.queue.is_empty()
    }

    /// From now on this file takes what is fed; what was fed before still goes where it was meant
    /// to.
    pub fn switch_to(&mut self, file: Arc<File>, len: u64) {
        self.selected_db = None;
        self.queue.push_back(Segment {
            file,
            len,
            bytes: std::mem::take(&mut self.spare),
        });
    }

    /// Forget the files and what was not written.
    pub fn close(&mut self) -> impl Iterator<Item = Arc<File>> {
        // Offsets never go back: clients wait for some of those that were fed.
        (self.written, self.synced, self.taken) = (self.fed, self.fed, false);
        self.selected_db = None;
        std::mem::take(&mut self.queue)
            .into_iter()
            .map(|segment| segment.file)
    }

    /// The next command says its database.
    pub fn forget_db(&mut self) {
        self.selected_db = None;
    }

    /// Bytes that are not written yet.
    pub fn pending(&self) -> u64 {
        self.fed - self.written
    }

    pub fn memory(&self) -> usize {
        let buffers = self.queue.iter().map(|segment| segment.bytes.capacity());
        buffers.sum::<usize>() + self.spare.capacity()
    }

    /// Files that are open, the one for what is fed now among them.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        self.queue.len()
    }

    /// What is written next. Files that have got all of theirs are handed to `done`, but for the
    /// last one.
    pub fn front(&mut self, mut done: impl FnMut(Arc<File>)) -> Option<&mut Segment> {
        while self.queue.len() > 1 && self.queue[0].bytes.is_empty() {
            let finished = self.queue.pop_front()?;
            self.spare = finished.bytes;
            done(finished.file);
        }
        self.queue.front_mut()
    }

    /// The file that is written at the moment.
    pub fn file(&self) -> Option<&Arc<File>> {
        self.queue.front().map(|segment| &segment.file)
    }

    /// The length of the last file, once all is written.
    pub fn last_len(&self) -> u64 {
        self.queue
            .back()
            .map_or(0, |last| last.len + last.bytes.len() as u64)
    }

    /// Takes the front's bytes away, for the writer thread.
    pub fn take_front(&mut self) -> Option<(Arc<File>, Vec<u8>, u64)> {
        let spare = std::mem::take(&mut self.spare);
        let front = self.queue.front_mut()?;
        let bytes = std::mem::replace(&mut front.bytes, spare);
        self.taken = true;
        Some((front.file.clone(), bytes, front.len))
    }

    /// `written` of these bytes, which were taken from the front, have been written; the rest goes
    /// back. Bytes of a file that was closed meanwhile are forgotten.
    pub fn wrote(&mut self, mut bytes: Vec<u8>, written: usize) {
        if !std::mem::take(&mut self.taken) {
            return;
        }
        let Some(front) = self.queue.front_mut() else {
            return;
        };
        front.len += written as u64;
        self.written += written as u64;
        bytes.drain(..written);
        if !bytes.is_empty() {
            bytes.extend_from_slice(&front.bytes);
            std::mem::swap(&mut front.bytes, &mut bytes);
            bytes.clear();
        }
        bytes.shrink_to(KEEP_BYTES);
        if self.spare.capacity() == 0 {
            self.spare = bytes;
        }
    }

    /// Append one command, which `encode` writes, straight to where it will be written from.
    /// Returns what it wrote. `stamp_s`: annotate it with the time, if that is a new second.
    #[inline]
    pub fn command(
        &mut self,
        db: u32,
        stamp_s: Option<i64>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> &[u8] {
        let Some(mut out) = self.begin(stamp_s) else {
            return &[];
        };
        out.select(db);
        let at = out.bytes.len();
        encode(out.bytes);
        &out.end()[at..]
    }

    /// Append a unit.
    pub fn unit(&mut self, unit: &Unit, atomic: bool, stamp_s: Option<i64>) {
        if unit.commands_for(sink::AOF).next().is_none() {
            return;
        }
        let Some(out) = self.begin(stamp_s) else {
            return;
        };
        unit.encode(sink::AOF, atomic, out.selected_db, out.bytes);
        out.end();
    }

    #[inline]
    fn begin(&mut self, stamp_s: Option<i64>) -> Option<Appending<'_>> {
        let bytes = &mut self.queue.back_mut()?.bytes;
        let before = bytes.len();
        if let Some(now_s) = stamp_s.filter(|&now_s| now_s > self.stamp_s) {
            self.stamp_s = now_s;
            bytes.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
        Some(Appending {
            bytes,
            before,
            selected_db: &mut self.selected_db,
            fed: &mut self.fed,
        })
    }
}

/// The buffer while something is appended to it.
struct Appending<'f> {
    bytes: &'f mut Vec<u8>,
    before: usize,
    selected_db: &'f mut Option<u32>,
    fed: &'f mut u64,
}

impl<'f> Appending<'f> {
    /// What follows is for this database.
    #[inline]
    fn select(&mut self, db: u32) {
        if *self.selected_db != Some(db) {
            *self.selected_db = Some(db);
            select(self.bytes, db);
        }
    }

    /// Count what was appended.
    #[inline]
    fn end(self) -> &'f mut Vec<u8> {
        *self.fed += (self.bytes.len() - self.before) as u64;
        self.bytes
    }
}
