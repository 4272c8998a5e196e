//! The reports of a child to its parent, through a pipe.
//!
//! ```text
//!   child:   Meter ─> Pipe ── 40 bytes ──> Reports   :parent
//!            after each key, each piece     the newest report counts
//! ```
//!
//! A report is five numbers, few enough bytes for a pipe to transfer at once: keys done, bytes
//! written, bytes of memory copied (now, and the maximum), and the replicas' sockets that were
//! given up. A report is sent only after some progress, at most once in `REPORT_EVERY`, so a child
//! without reports makes no progress.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::pauses::Pauses;
use crate::persist::loading::delay;
use crate::sys::fork;
use crate::sys::tape;

/// The number of keys after which the child checks whether `REPORT_EVERY` has passed since the last
/// report.
const KEYS_PER_LOOK: u64 = 1024;
/// The number of keys after which the child checks whether it should pause.
const KEYS_PER_STEP: u64 = 32;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The measurement of the copied memory takes long in a big process, so it may take at most 1 /
/// `MEASURE_SHARE` of the child's time.
const MEASURE_SHARE: u32 = 100;
const NUMBERS: usize = 5;
const REPORT_BYTES: usize = NUMBERS * 8;

/// The report of a child: its progress so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The number of keys that the child has processed.
    pub keys: u64,
    /// The number of bytes that the child has written.
    pub bytes: u64,
    /// The number of bytes of memory that were copied until the report.
    pub cow_bytes: u64,
    /// The maximum of `cow_bytes` so far.
    pub cow_peak: u64,
    /// Bit n is set if the n-th socket to which the child writes was given up after an error.
    pub failed_sockets: u64,
}

impl Progress {
    fn numbers(&mut self) -> [&mut u64; NUMBERS] {
        [
            &mut self.keys,
            &mut self.bytes,
            &mut self.cow_bytes,
            &mut self.cow_peak,
            &mut self.failed_sockets,
        ]
    }

    fn to_bytes(mut self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        for (to, n) in bytes.chunks_exact_mut(8).zip(self.numbers()) {
            to.copy_from_slice(&n.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; REPORT_BYTES]) -> Progress {
        let mut progress = Progress::default();
        for (chunk, n) in bytes.chunks_exact(8).zip(progress.numbers()) {
            *n = chunk.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        }
        progress
    }
}

/// The child's end of the pipe, shared by the code that counts keys and the code that counts bytes.
pub struct Pipe {
    to: PipeWriter,
    progress: Cell<Progress>,
    next_report: Cell<Instant>,
    next_measure: Cell<Instant>,
    pauses: RefCell<Pauses>,
}

impl Pipe {
    /// Creates the child's end of the pipe; `server` is the pid of the parent.
    pub(super) fn new(to: PipeWriter, server: i32) -> Pipe {
        let first = Instant::now() + REPORT_EVERY;
        Pipe {
            to,
            progress: Cell::default(),
            next_report: Cell::new(first),
            next_measure: Cell::new(first),
            pauses: RefCell::new(Pauses::new(server)),
        }
    }

    fn count(&self, change: impl FnOnce(&mut Progress)) -> Progress {
        let mut progress = self.progress.get();
        change(&mut progress);
        self.progress.set(progress);
        progress
    }

    /// Counts a processed key, sends a report if a report is due, and pauses while the server waits
    /// for a processor.
    #[inline]
    pub fn key_done(&self) {
        let progress = self.count(|progress| progress.keys += 1);
        if progress.keys.is_multiple_of(KEYS_PER_STEP) {
            self.pauses.borrow_mut().step();
        }
        if progress.keys.is_multiple_of(KEYS_PER_LOOK) {
            self.report_if_due();
        }
    }

    /// Counts `n` written bytes, usually a whole buffer.
    pub fn bytes_done(&self, n: usize) {
        self.count(|progress| progress.bytes += n as u64);
        self.pauses.borrow_mut().step();
        self.report_if_due();
    }

    /// Records that a socket was given up after an error; `at` is the index of the socket, from 0.
    pub fn socket_failed(&self, at: usize) {
        self.count(|progress| progress.failed_sockets |= 1 << at);
    }

    /// Sends a report to the parent if `REPORT_EVERY` has passed since the last report.
    fn report_if_due(&self) {
        let now = Instant::now();
        if now < self.next_report.get() {
            return;
        }
        if now >= self.next_measure.get() {
            self.measure();
            self.next_measure
                .set(Instant::now() + now.elapsed() * MEASURE_SHARE);
        }
        self.report();
        self.next_report.set(Instant::now() + REPORT_EVERY);
    }

    fn measure(&self) {
        let bytes = fork::private_dirty_bytes();
        self.count(|progress| {
            progress.cow_bytes = bytes;
            progress.cow_peak = progress.cow_peak.max(bytes);
        });
    }

    fn report(&self) {
        if (&self.to)
            .write_all(&self.progress.get().to_bytes())
            .is_err()
        {
            // The parent has ended, so the child's result is useless.
            log::warn!("Child failed reporting info to parent, exiting.");
            fork::exit_now(1);
        }
    }

    /// Sends the last report before a successful end; `name` is the child's name in the log.
    pub(super) fn finish(&self, name: &str) {
        self.measure();
        self.report();
        let Progress {
            cow_bytes,
            cow_peak,
            ..
        } = self.progress.get();
        let mb = |bytes: u64| bytes >> 20;
        log::info!(
            "Fork CoW for {name}: current {} MB, peak {} MB, average {} MB",
            mb(cow_bytes),
            mb(cow_peak),
            mb((cow_bytes + cow_peak) / 2),
        );
    }
}

/// Counts the progress of a save, and reports it to the parent if a child saves. Without a pipe,
/// the progress is not counted.
#[derive(Clone, Copy, Default)]
pub struct Meter<'a> {
    pub pipe: Option<&'a Pipe>,
    /// The value of `rdb-key-save-delay`, a delay for tests.
    pub pause_us: i32,
}

impl Meter<'_> {
    /// Counts a key that the save has written.
    #[inline]
    pub fn key_done(&self) {
        if let Some(pipe) = self.pipe {
            pipe.key_done();
        }
        if self.pause_us != 0 {
            self.pause();
        }
    }

    /// Pauses for `rdb-key-save-delay`, by which tests make a save slow.
    #[cold]
    fn pause(&self) {
        delay(self.pause_us);
        if let Some(pipe) = self.pipe {
            pipe.report_if_due();
        }
    }

    /// Counts `n` bytes that the save has written.
    pub fn bytes_done(&self, n: usize) {
        if let Some(pipe) = self.pipe {
            pipe.bytes_done(n);
        }
    }
}

/// The parent's end of the pipe.
pub(super) struct Reports {
    pipe: PipeReader,
    /// Whether the end of the pipe was read, so that the child has ended or is about to end.
    pub ended: bool,
    /// The first bytes of a report whose other bytes have not arrived.
    partial: Vec<u8>,
}

impl Reports {
    /// Creates the parent's end of the pipe; `pipe` must be non-blocking.
    pub fn new(pipe: PipeReader) -> Reports {
        Reports {
            pipe,
            ended: false,
            partial: Vec::new(),
        }
    }

    /// The descriptor of the pipe.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Reads all reports that have arrived, and returns the newest; `None` if no report has
    /// arrived.
    pub fn read(&mut self) -> Option<Progress> {
        loop {
            let Reports { pipe, partial, .. } = self;
            let read = tape::read(0, partial, |partial| {
                let mut bytes = [0; 32 * REPORT_BYTES];
                let n = pipe.read(&mut bytes)?;
                partial.extend_from_slice(&bytes[..n]);
                Ok(n)
            });
            match read {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // There are no bytes now, or the pipe is broken: whether the child has ended is
                // known from its exit status.
                Err(_) => break,
            }
        }
        let (whole, _) = self.partial.as_chunks::<REPORT_BYTES>();
        let (progress, len) = (whole.last().map(Progress::from_bytes), whole.len());
        self.partial.drain(..len * REPORT_BYTES);
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    const PROGRESS: Progress = Progress {
        keys: 1 << 40,
        bytes: 3,
        cow_bytes: 7,
        cow_peak: u64::MAX,
        failed_sockets: 1 << 63,
    };

    #[test]
    fn reports_survive_being_torn() {
        let (from, to) = io::pipe().expect("a pipe");
        sys::set_nonblocking(&from).expect("a flag");
        let mut reports = Reports::new(from);
        let older = Progress::default().to_bytes();
        let bytes = [older, PROGRESS.to_bytes(), older].concat();
        let (first, rest) = bytes.split_at(2 * REPORT_BYTES + 1);
        (&to).write_all(first).expect("room");
        assert_eq!(reports.read(), Some(PROGRESS), "the newest one");
        assert_eq!(reports.read(), None);
        (&to).write_all(rest).expect("room");
        assert_eq!(reports.read(), Some(Progress::default()));
        assert!(!reports.ended);
        drop(to);
        assert_eq!(reports.read(), None);
        assert!(reports.ended);
    }

    #[test]
    fn bytes_are_reported_without_keys() {
        let (from, to) = io::pipe().expect("a pipe");
        sys::set_nonblocking(&from).expect("a flag");
        let (pipe, mut reports) = (Pipe::new(to, 0), Reports::new(from));
        let meter = Meter {
            pipe: Some(&pipe),
            pause_us: 0,
        };
        meter.bytes_done(1000);
        assert_eq!(reports.read(), None, "not due yet");
        pipe.next_report.set(Instant::now());
        meter.bytes_done(24);
        let progress = reports.read().expect("a report");
        assert_eq!((progress.keys, progress.bytes), (0, 1024));
    }
}
