//! The recording side of the tape: blocks in memory, and a thread that writes them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::QUEUE;
use super::format::{Codec, MAGIC, Outcome, TapeEntry, Totals, Write, frame};
use crate::sys;
use crate::util::fnv;

/// The size in bytes from which on a block is passed to the thread that writes the file.
const BLOCK: usize = 64 * 1024;

/// The handle of the thread that writes the last recording.
static WRITER: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

/// The last block of a recording. The last block does not wait in the queue, which may be full.
type LastBlock = Arc<Mutex<Option<Vec<u8>>>>;

/// A recording in progress.
pub struct Recorder {
    path: PathBuf,
    block: Vec<u8>,
    codec: Codec,
    pub totals: Totals,
    /// The totals (of replies and of the trace's events) before the first entry of the present
    /// block.
    at_block: Totals,
    /// The number of bytes that were passed to the thread that writes the file; `max_bytes` is the
    /// limit.
    bytes: u64,
    max_bytes: u64,
    turns: u64,
    /// Whether the recorder waits while the queue is full: only until the loop begins.
    pub patient: bool,
    /// The queue of blocks for the thread; `None` if the recording has stopped by itself.
    queue: Option<SyncSender<Vec<u8>>>,
    last: LastBlock,
}

/// Opens the file of a recording without changing what it holds. A file that is neither empty nor a
/// recording is refused: a name given by mistake must not cost a data file.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if !file.metadata()?.is_file() {
        // A read from a pipe would wait.
        return Err(io::Error::other("not a regular file"));
    }
    let mut begin = Vec::new();
    (&mut file)
        .take(MAGIC.len() as u64)
        .read_to_end(&mut begin)?;
    let (name, _) = MAGIC.split_at(MAGIC.len() - 1);
    if !begin.is_empty() && !begin.starts_with(name) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file exists and is no recording",
        ));
    }
    file.rewind()?;
    Ok(file)
}

impl Recorder {
    /// Creates the file and the thread that writes it.
    pub fn create(path: &Path, max_bytes: u64) -> io::Result<Recorder> {
        let mut file = open(path)?;
        file.set_len(0)?;
        file.write_all(MAGIC)?;
        let (queue, blocks) = sync_channel(QUEUE);
        let last = LastBlock::default();
        let (theirs, name) = (last.clone(), path.to_path_buf());
        let write = move || {
            if let Err(e) = write_blocks(file, &blocks, &theirs) {
                let (name, reason) = (name.display(), sys::error_text(&e));
                log::warn!("The recording {name} is not complete: {reason}");
            }
        };
        let thread = thread::Builder::new()
            .name("trace_record".into())
            .spawn(write)?;
        *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Recorder {
            path: path.into(),
            block: Vec::with_capacity(2 * BLOCK),
            codec: Codec::default(),
            totals: Totals::default(),
            at_block: Totals::default(),
            bytes: MAGIC.len() as u64,
            max_bytes,
            turns: 0,
            patient: true,
            queue: Some(queue),
            last,
        })
    }

    /// The bytes and the turns of the recording so far.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes + self.block.len() as u64, self.turns)
    }

    /// Whether the recording has stopped by itself.
    pub fn has_stopped(&self) -> bool {
        self.queue.is_none()
    }

    /// Appends an entry to the recording.
    pub fn append(&mut self, entry: &TapeEntry) {
        if self.queue.is_none() {
            return;
        }
        if self.bytes + self.block.len() as u64 > self.max_bytes {
            return self.stop("the file has its greatest size", self.totals);
        }
        if self.block.is_empty() {
            self.at_block = self.totals;
        }
        self.codec.encode(entry, &mut self.block);
        if self.block.len() >= BLOCK {
            self.flush();
        }
    }

    /// Appends a write to the recording, and counts its bytes as replies.
    pub fn append_write(&mut self, write: &Write) {
        self.append(&TapeEntry::Write(*write));
        self.totals.add_write(write);
    }

    /// Appends a poll to the recording, and counts the poll as a turn of the loop.
    pub fn append_poll(&mut self, outcome: Outcome, changes: &[(u64, u8)]) {
        self.append(&TapeEntry::Poll {
            outcome,
            event_count: self.totals.event_count,
            events: self.totals.events,
            changes: changes.to_vec(),
        });
        self.turns += 1;
    }

    /// Passes the present block to the thread that writes the file.
    pub fn flush(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.block.is_empty()) else {
            return;
        };
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(2 * BLOCK));
        self.bytes += block.len() as u64 + 12;
        let sent = match self.patient {
            true => queue
                .send(block)
                .map_err(|unsent| TrySendError::Disconnected(unsent.0)),
            false => queue.try_send(block),
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.stop("the disk is too slow", self.at_block),
            // The thread that writes the file has failed, and has logged the reason.
            Err(TrySendError::Disconnected(_)) => self.queue = None,
        }
    }

    /// Stops the recording before the server ends it, for instance because the file is too large.
    fn stop(&mut self, reason: &str, totals: Totals) {
        log::warn!("The recording {} ended: {reason}", self.path.display());
        self.write_end(reason, totals);
    }

    fn write_end(&mut self, reason: &str, totals: Totals) {
        let reason = reason.as_bytes();
        let end = TapeEntry::End { reason, totals };
        self.codec.encode(&end, &mut self.block);
        let block = std::mem::take(&mut self.block);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(block);
        // The thread writes the blocks in the queue, then the last block.
        self.queue = None;
    }

    /// Ends the recording, and logs the end.
    pub fn end(mut self, reason: &str) {
        if self.queue.is_some() {
            self.write_end(reason, self.totals);
            log::info!(
                "The recording {} ended after {} turns: {reason}",
                self.path.display(),
                self.turns
            );
        }
    }
}

impl Totals {
    /// Counts the bytes of a write that the socket has accepted.
    pub fn add_write(&mut self, write: &Write) {
        self.reply_bytes += write.outcome.unwrap_or(0);
        let parts = [write.fd, write.hash, write.outcome.unwrap_or(u64::MAX)];
        for part in parts {
            self.replies = fnv::hash(self.replies, &part.to_le_bytes());
        }
    }

    /// Counts an event of the loop's trace.
    pub fn add_event(&mut self, bytes: &[u8]) {
        self.event_count += 1;
        self.events = fnv::hash(self.events, bytes);
    }
}

fn write_blocks(
    mut file: File,
    blocks: &Receiver<Vec<u8>>,
    last: &Mutex<Option<Vec<u8>>>,
) -> io::Result<()> {
    for block in blocks {
        file.write_all(&frame(&block))?;
    }
    let last = last.lock().unwrap_or_else(PoisonError::into_inner).take();
    last.map_or(Ok(()), |block| file.write_all(&frame(&block)))
}

/// Waits until the last recording is in its file.
pub fn wait_for_writer() {
    let thread = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        log::warn!("The thread of the recording has failed");
    }
}
