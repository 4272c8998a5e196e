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
//! AOF's last file when they were fed (`crash_tests`).

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use crate::propagate::sink;
use crate::propagate::unit::{Unit, select};

/// The maximum capacity, in bytes, of an empty buffer that is kept for reuse.
const KEEP_BYTES: usize = 1 << 20;

/// The bytes that wait to be written to one file of the AOF.
pub struct Segment {
    pub file: Arc<File>,
    /// The present length of the file, to which `bytes` have not been written.
    pub len: u64,
    pub bytes: Vec<u8>,
}

/// The buffer of the AOF: the bytes that wait to be written, in a segment for each file.
#[derive(Default)]
pub struct Feed {
    queue: VecDeque<Segment>,
    /// The number of bytes that were ever fed to the AOF.
    pub fed: u64,
    /// The offset up to which the bytes have been written, so that the kernel has them.
    pub written: u64,
    /// The offset up to which the bytes have been synced, so that the disk has them.
    pub synced: u64,
    /// The database that is selected at the end of the AOF; `None` if the next command needs SELECT
    /// before it.
    selected_db: Option<u32>,
    /// The Unix time in seconds of the last time annotation (`#TS:`).
    stamp_s: i64,
    /// Whether the bytes of the front segment were taken out of it to be written.
    taken: bool,
    /// An empty buffer whose memory is reused by the next segment.
    spare: Vec<u8>,
}

impl Feed {
    /// Whether the AOF has a file to which fed bytes are written.
    pub fn is_open(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Makes `file`, of `len` bytes, the file for all bytes that are fed from now on. Bytes that
    /// were fed earlier are still written to the earlier file.
    pub fn switch_to(&mut self, file: Arc<File>, len: u64) {
        self.selected_db = None;
        self.queue.push_back(Segment {
            file,
            len,
            bytes: std::mem::take(&mut self.spare),
        });
    }

    /// Closes the buffer: drops the bytes that are not written yet, and returns the files.
    pub fn close(&mut self) -> impl Iterator<Item = Arc<File>> {
        // The offsets of the AOF never decrease, since clients wait until an offset is written or
        // synced.
        (self.written, self.synced, self.taken) = (self.fed, self.fed, false);
        self.selected_db = None;
        std::mem::take(&mut self.queue)
            .into_iter()
            .map(|segment| segment.file)
    }

    /// Sets the selected database to none, so that SELECT precedes the next command.
    #[cfg(test)]
    pub fn forget_db(&mut self) {
        self.selected_db = None;
    }

    /// The number of fed bytes that are not written yet.
    pub fn pending(&self) -> u64 {
        self.fed - self.written
    }

    /// The memory of the buffers in bytes.
    pub fn memory(&self) -> usize {
        let buffers = self.queue.iter().map(|segment| segment.bytes.capacity());
        buffers.sum::<usize>() + self.spare.capacity()
    }

    /// The number of files with a segment: those with unwritten bytes, and the last file.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        self.queue.len()
    }

    /// The segment that is written next. Files of earlier segments, whose bytes are all written,
    /// are removed and passed to `done`; the last file stays.
    pub fn front(&mut self, mut done: impl FnMut(Arc<File>)) -> Option<&mut Segment> {
        while self.queue.len() > 1 && self.queue[0].bytes.is_empty() {
            let finished = self.queue.pop_front()?;
            self.spare = finished.bytes;
            done(finished.file);
        }
        self.queue.front_mut()
    }

    /// The file to which bytes are written next.
    pub fn file(&self) -> Option<&Arc<File>> {
        self.queue.front().map(|segment| &segment.file)
    }

    /// Takes the bytes out of the front segment, so that they can be written. Returns the file, the
    /// bytes, and the length of the file.
    pub fn take_front(&mut self) -> Option<(Arc<File>, Vec<u8>, u64)> {
        let spare = std::mem::take(&mut self.spare);
        let front = self.queue.front_mut()?;
        let bytes = std::mem::replace(&mut front.bytes, spare);
        self.taken = true;
        Some((front.file.clone(), bytes, front.len))
    }

    /// Records that the first `written` of `bytes`, which [`Feed::take_front`] had returned, have
    /// been written; the rest is put back into the front segment. If the AOF's file was closed
    /// while the bytes were written, the rest is dropped.
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
    /// the command. If `stamp_s` has a Unix time, a time annotation (`#TS:`) precedes the command,
    /// unless this second already has one.
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

    /// Appends the commands of a unit (changes that are propagated together), as a transaction if
    /// `atomic` is set.
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

    /// Appends an annotation line, which is not a command; `write` writes the line straight into
    /// the buffer.
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

/// The buffer of the AOF while a command is appended.
struct Appending<'f> {
    bytes: &'f mut Vec<u8>,
    before: usize,
    selected_db: &'f mut Option<u32>,
    fed: &'f mut u64,
}

impl<'f> Appending<'f> {
    /// Appends SELECT `db` unless this database is selected already.
    #[inline]
    fn select(&mut self, db: u32) {
        if *self.selected_db != Some(db) {
            *self.selected_db = Some(db);
            select(self.bytes, db);
        }
    }

    /// Adds the appended bytes to the number of fed bytes, and returns the buffer.
    #[inline]
    fn end(self) -> &'f mut Vec<u8> {
        *self.fed += (self.bytes.len() - self.before) as u64;
        self.bytes
    }
}
