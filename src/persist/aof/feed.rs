//! The buffer of the AOF, between a command and the disk.
//!
//! ```text
//!   unit ─> feed ─>  back  [ file 3 | bytes.. ]   what is fed now
//!                          [ file 2 | bytes.. ]   fed before a rewrite opened file 3, still to be written
//!                    front                        is written first
//!
//!            synced <= written <= fed             offsets in all that was ever fed, whichever file it is in
//! ```
//!
//! Replies wait for an offset (`flush`), so offsets continue from one file to the next.
//!
//! **Invariant:** bytes are written in the order in which they were fed, to the file that was the
//! last one when they were fed (`crash_tests`).

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use crate::propagate::sink;
use crate::propagate::unit::{Unit, select};

/// The maximum capacity of an empty buffer that is kept.
const KEEP_BYTES: usize = 1 << 20;

/// The bytes that wait for one file.
pub struct Segment {
    pub file: Arc<File>,
    /// The length of the file, without `bytes`.
    pub len: u64,
    pub bytes: Vec<u8>,
}

/// The bytes that wait to be written, in segments for the files that they belong to.
#[derive(Default)]
pub struct Feed {
    queue: VecDeque<Segment>,
    /// The number of bytes that were ever fed.
    pub fed: u64,
    /// The offset up to which the kernel has the bytes.
    pub written: u64,
    /// The offset up to which the disk has the bytes.
    pub synced: u64,
    /// The database of the last command. After `None`, SELECT precedes the next command.
    selected_db: Option<u32>,
    /// The Unix time in seconds of the last time annotation.
    stamp_s: i64,
    /// Whether the bytes of the front segment are being written.
    taken: bool,
    /// An empty buffer that is used again.
    spare: Vec<u8>,
}

impl Feed {
    /// Whether there is a file for the fed bytes.
    pub fn is_open(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Feeds this file from now on. Bytes that were fed earlier are still written to the earlier
    /// file.
    pub fn switch_to(&mut self, file: Arc<File>, len: u64) {
        self.selected_db = None;
        self.queue.push_back(Segment {
            file,
            len,
            bytes: std::mem::take(&mut self.spare),
        });
    }

    /// Drops the files and the bytes that are not written yet. Returns the files.
    pub fn close(&mut self) -> impl Iterator<Item = Arc<File>> {
        // Offsets never decrease, since clients wait for some of them.
        (self.written, self.synced, self.taken) = (self.fed, self.fed, false);
        self.selected_db = None;
        std::mem::take(&mut self.queue)
            .into_iter()
            .map(|segment| segment.file)
    }

    /// Forgets the selected database: SELECT precedes the next command.
    #[cfg(test)]
    pub fn forget_db(&mut self) {
        self.selected_db = None;
    }

    /// The number of bytes that are not written yet.
    pub fn pending(&self) -> u64 {
        self.fed - self.written
    }

    /// The memory of the buffers in bytes.
    pub fn memory(&self) -> usize {
        let buffers = self.queue.iter().map(|segment| segment.bytes.capacity());
        buffers.sum::<usize>() + self.spare.capacity()
    }

    /// The number of open files, including the last one.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        self.queue.len()
    }

    /// The segment to be written next. Files whose bytes are all written are passed to `done`,
    /// except the last file.
    pub fn front(&mut self, mut done: impl FnMut(Arc<File>)) -> Option<&mut Segment> {
        while self.queue.len() > 1 && self.queue[0].bytes.is_empty() {
            let finished = self.queue.pop_front()?;
            self.spare = finished.bytes;
            done(finished.file);
        }
        self.queue.front_mut()
    }

    /// The file of the segment that is written next.
    pub fn file(&self) -> Option<&Arc<File>> {
        self.queue.front().map(|segment| &segment.file)
    }

    /// Takes the bytes out of the front segment, for the writer thread.
    pub fn take_front(&mut self) -> Option<(Arc<File>, Vec<u8>, u64)> {
        let spare = std::mem::take(&mut self.spare);
        let front = self.queue.front_mut()?;
        let bytes = std::mem::replace(&mut front.bytes, spare);
        self.taken = true;
        Some((front.file.clone(), bytes, front.len))
    }

    /// Records that the first `written` of these bytes, which were taken from the front, have been
    /// written; the rest is put back. Bytes of a file that was closed in the meantime are dropped.
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

    /// Appends one command, which `encode` writes straight into the buffer. Returns the bytes of
    /// the command. `stamp_s` adds a time annotation, if this second has none yet.
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

    /// Appends the commands of a unit, which become a transaction if `atomic` is set.
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

    /// Appends a line that is not a command, which `write` writes straight into the buffer.
    pub fn annotate(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(segment) = self.queue.back_mut() {
            let before = segment.bytes.len();
            write(&mut segment.bytes);
            self.fed += (segment.bytes.len() - before) as u64;
        }
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

/// The buffer while a command is appended.
struct Appending<'f> {
    bytes: &'f mut Vec<u8>,
    before: usize,
    selected_db: &'f mut Option<u32>,
    fed: &'f mut u64,
}

impl<'f> Appending<'f> {
    /// Appends SELECT unless the database is selected already.
    #[inline]
    fn select(&mut self, db: u32) {
        if *self.selected_db != Some(db) {
            *self.selected_db = Some(db);
            select(self.bytes, db);
        }
    }

    /// Counts the appended bytes.
    #[inline]
    fn end(self) -> &'f mut Vec<u8> {
        *self.fed += (self.bytes.len() - self.before) as u64;
        self.bytes
    }
}
