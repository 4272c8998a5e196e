//! Receives a snapshot from the primary: into a file, or straight into the loader.
//!
//! ```text
//!   read_handler ─> header ─┬─ a thread: temp-<time>.<pid>.rdb, fsync ─> rename to dbfilename ─┐
//!                           │  clients are served meanwhile                                    v
//!                           └─ repl-diskless-load ──────────────────────────────────────> install.rs
//! ```
//!
//! The loop does not wait for the disk (`persist::spool`). While more than [`QUEUED_MAX`] bytes
//! wait for the disk, nothing is read from the primary; [`follow`] resumes reading, and notices the
//! end of the transfer.
//!
//! **Invariant:** this module does not change the data set: `install` replaces it once the file, or
//! the header of a stream, is complete.
//! **Invariant:** nothing is read in a nested turn, since the end of a snapshot replaces the data
//! set.
//! **Invariant:** a transfer that ends early removes its file ([`Receive::close`]).
//! **Invariant:** bytes behind the snapshot are kept in `input`, as they belong to the replication
//! stream.
//!
//! **Limits:** at most [`BYTES_PER_TURN`] are read in one turn, so at most [`QUEUED_MAX`] and the
//! bytes of one turn wait for the disk. The size of the file is limited by the disk only: the
//! primary announces it, and a write that fails ends the attempt.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ae::{Class, EventLoop, Io, Mask, Token};

use super::{channels, fail, install};
use crate::connection::Connection;
use crate::networking::link::Taken;
use crate::persist::spool::{Failure, Spool};
use crate::replication::bulk::{Body, Header, Length, Malformed};
use crate::replication::upstream::{Phase, Received};
use crate::state::Server;
use crate::sys;
use crate::texts::Words;
use crate::util::quote::printable;

/// The maximum number of bytes of one read from the primary, and of all its reads in one turn of
/// the loop.
pub const READ_BYTES: usize = 256 * 1024;
const BYTES_PER_TURN: usize = 1024 * 1024;
/// While more bytes than this wait for the disk, nothing is read from the primary.
const QUEUED_MAX: usize = 8 * 1024 * 1024;
/// The maximum number of bytes that the log shows of an error or a wrong header from the primary.
const SHOWN_MAX: usize = 256;

/// A snapshot that is being received.
pub struct Receive {
    pub conn: Connection,
    pub token: Token,
    /// The id of the replication history to which the snapshot belongs.
    pub id: String,
    /// The replication offset of the snapshot.
    pub offset: u64,
    header: Header,
    pub body: Option<Body>,
    /// The file to which the snapshot is written; `None` if its bytes go straight into the loader.
    pub file: Option<Spool>,
    /// Bytes that were read from the primary and not processed: snapshot bytes for the loader, or
    /// the replication stream that follows the snapshot.
    pub input: Vec<u8>,
    /// Whether reading from the primary is suspended, since the disk is too slow or the snapshot is
    /// complete.
    pub paused: bool,
}

impl Receive {
    /// Ends the transfer: closes the connection and removes the file.
    pub fn close(self, el: &mut EventLoop<Server>) {
        el.remove_file(self.token);
        if let Some(spool) = self.file {
            // An error is ignored, as the file may have been renamed already.
            let _ = std::fs::remove_file(spool.path);
        }
    }
}

/// What follows after the received bytes of a snapshot have been processed.
enum Next {
    /// More bytes of the snapshot can be read now.
    Read,
    /// Nothing is read until the disk has caught up or, after the end of the snapshot, has the
    /// whole file.
    Wait,
    /// The header of the snapshot is complete, and the loader reads the rest from the connection.
    InstallStream,
}

/// Begins to receive the snapshot that follows `+FULLRESYNC`: of the history `id` at `offset`.
pub fn begin(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    taken: Taken,
    id: String,
    offset: u64,
) {
    let token = match el.add_file(taken.conn.raw_fd(), Class::First, 0) {
        Ok(token) => token,
        Err(e) => {
            log::warn!("The link to the primary can't be watched: {e}");
            return fail(el, server);
        }
    };
    el.set_handler(token, Mask::READABLE, read_handler);
    // A TLS session may have decrypted bytes already, which the poller does not report.
    el.mark_ready(token, Mask::READABLE);
    server.primary_link.receive = Some(Box::new(Receive {
        conn: taken.conn,
        token,
        id,
        offset,
        header: Header::default(),
        body: None,
        file: None,
        input: taken.received,
        paused: false,
    }));
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.phase = Phase::Transfer;
        upstream.snapshot_ms = server.clock.now_ms;
        upstream.received = Received {
            last_io_ms: server.clock.now_ms,
            ..Received::default()
        };
    }
    // Bytes of the snapshot may have arrived together with the reply to PSYNC.
    take_input(el, server);
}

/// The read handler of the connection from which the snapshot is read.
fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, _: Token, _: Mask) -> Io {
    if server.is_nested() {
        return Io::More; // the end of the snapshot would replace the data set
    }
    let mut total = 0;
    while total < BYTES_PER_TURN {
        let now_ms = server.clock.now_ms;
        let receive = server.primary_link.receive.as_mut();
        let Some(receive) = receive.filter(|receive| !receive.paused) else {
            return Io::Drained;
        };
        match receive.conn.read_into(&mut receive.input, READ_BYTES) {
            Ok(transfer) => {
                total += transfer.bytes;
                server.stats.net_input_bytes += transfer.bytes as u64;
                server.stats.net_repl_input_bytes += transfer.bytes as u64;
                if transfer.bytes > 0
                    && let Some(upstream) = &mut server.replication.upstream
                {
                    upstream.received.last_io_ms = now_ms;
                }
                take_input(el, server);
                if transfer.io == Io::Drained {
                    return Io::Drained;
                }
            }
            Err(e) => {
                let reason = match e.kind() {
                    io::ErrorKind::UnexpectedEof => "connection lost".to_string(),
                    _ => sys::error_text(&e),
                };
                return give_up(
                    el,
                    server,
                    "I/O error trying to sync with MASTER: {}",
                    &reason,
                );
            }
        }
    }
    Io::More
}

fn give_up(el: &mut EventLoop<Server>, server: &mut Server, template: &str, reason: &str) -> Io {
    let words = server.config.words();
    log::warn!("{}", words.line(template, &[&reason]));
    channels::snapshot_lost(el, server);
    Io::Drained
}

/// Processes bytes that were read from the primary: the snapshot's header, then bytes for its file,
/// then its end.
fn take_input(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(mut receive) = server.primary_link.receive.take() else {
        return;
    };
    match receive.take(el, server) {
        Ok(Next::Read) => server.primary_link.receive = Some(receive),
        Ok(Next::Wait) => {
            receive.paused = true;
            el.clear_handler(receive.token, Mask::READABLE);
            server.primary_link.receive = Some(receive);
        }
        Ok(Next::InstallStream) => install::from_stream(el, server, receive),
        Err(line) => {
            log::warn!("{line}");
            server.primary_link.receive = Some(receive);
            fail(el, server);
        }
    }
}

/// Called before the loop sleeps, outside of nested turns: loads the snapshot's file when it is
/// complete, resumes reading when the disk has caught up, ends the transfer if a write failed.
pub fn follow(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(receive) = &mut server.primary_link.receive else {
        return;
    };
    let Some(spool) = &receive.file else {
        return;
    };
    let words = server.config.words();
    let line = match spool.take_result() {
        Some(Ok(())) => {
            if let Some(receive) = server.primary_link.receive.take() {
                install::from_file(el, server, receive);
            }
            return;
        }
        Some(Err(Failure::Write(e))) => words.line(
            "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA synchronization: {}",
            &[&sys::error_text(&e)],
        ),
        Some(Err(Failure::Sync(e))) => words.line(
            "Failed trying to sync the temp DB to disk in MASTER <-> REPLICA synchronization: {}",
            &[&sys::error_text(&e)],
        ),
        None => {
            if receive.paused && !spool.is_finished() && spool.queued() <= QUEUED_MAX / 2 {
                receive.paused = false;
                el.set_handler(receive.token, Mask::READABLE, read_handler);
                el.mark_ready(receive.token, Mask::READABLE);
            }
            return;
        }
    };
    log::warn!("{line}");
    fail(el, server);
}

/// The cron's step: while the disk delays the transfer, sends the primary a line feed each second,
/// as the primary would close a silent link, and does not count the primary as silent.
pub fn keep_alive(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    let receive = server.primary_link.receive.as_mut();
    let Some(receive) = receive.filter(|receive| receive.paused) else {
        return;
    };
    // An error is ignored, since the next read of the connection reports it as well.
    let _ = receive.conn.write_now(b"\n");
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.received.last_io_ms = now_ms;
    }
}

impl Receive {
    /// Processes `self.input`, the bytes that were read from the primary. The text of an error is
    /// the line to log. After the end of the snapshot, the rest of `input` belongs to the
    /// replication stream.
    fn take(&mut self, el: &EventLoop<Server>, server: &mut Server) -> Result<Next, String> {
        let mut received = std::mem::take(&mut self.input);
        let mut input = &received[..];
        if self.body.is_none() && !self.begin_body(el, server, &mut input)? {
            return Ok(Next::Read);
        }
        let (Some(body), Some(spool)) = (&mut self.body, &mut self.file) else {
            self.input = input.to_vec();
            return Ok(Next::InstallStream);
        };
        let mut output = Vec::new();
        let complete = body.read(&mut input, &mut output);
        if !output.is_empty() {
            spool.write(output);
        }
        if let Some(upstream) = &mut server.replication.upstream {
            upstream.received.bytes = body.delivered();
        }
        // The buffer's memory is reused for the next read.
        let taken = received.len() - input.len();
        received.drain(..taken);
        self.input = received;
        if complete {
            spool.finish();
        }
        Ok(match complete || spool.queued() > QUEUED_MAX {
            true => Next::Wait,
            false => Next::Read,
        })
    }

    /// Reads the snapshot's header, and creates the file unless the snapshot is loaded straight
    /// from the connection. Returns whether the header is complete.
    fn begin_body(
        &mut self,
        el: &EventLoop<Server>,
        server: &mut Server,
        input: &mut &[u8],
    ) -> Result<bool, String> {
        let words = server.config.words();
        let header = self
            .header
            .read(input)
            .map_err(|malformed| malformed_line(words, malformed))?;
        let Some(length) = header else {
            return Ok(false);
        };
        let to_disk = !install::is_diskless(server);
        note_begin(server, &length, to_disk);
        self.body = Some(Body::new(length));
        if to_disk {
            let seconds = server.clock.now_s();
            let path = PathBuf::from(format!("temp-{seconds}.{}.rdb", std::process::id()));
            let waker = el.waker();
            let wake = move || {
                // If the loop can't be woken, the result is noticed when the cron's timer wakes it.
                let _ = waker.wake();
            };
            let delay = server.aof.flush.delay.clone();
            let spool =
                Spool::create(&path, delay, QUEUED_MAX / 2, Arc::new(wake)).map_err(|e| {
                    words.line(
                        "Opening the temp file needed for MASTER <-> REPLICA synchronization: {}",
                        &[&sys::error_text(&e)],
                    )
                })?;
            self.file = Some(spool);
        }
        Ok(true)
    }
}

fn malformed_line(words: Words, malformed: Malformed) -> String {
    let text = |bytes: &[u8]| printable(bytes, SHOWN_MAX);
    match malformed {
        Malformed::Error(error) => words.line(
            "MASTER aborted replication with an error: -{}",
            &[&text(&error)],
        ),
        Malformed::Header(line) => words.line(
            "Bad protocol from MASTER, the first byte is not '$' (we received '{}'), are you sure the host and port \
             are right?",
            &[&text(&line)],
        ),
        Malformed::KeepAlives => words.line(
            "Bad protocol from MASTER: too many line feeds in place of a snapshot",
            &[],
        ),
    }
}

fn note_begin(server: &mut Server, length: &Length, to_disk: bool) {
    let words = server.config.words();
    let place = if to_disk { "to disk" } else { "to parser" };
    let line = match length {
        Length::Known(bytes) => words.line(
            "MASTER <-> REPLICA sync: receiving {} bytes from master {}",
            &[bytes, &place],
        ),
        Length::Mark(_) => words.line(
            "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {}",
            &[&place],
        ),
    };
    log::info!("{line}");
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.received.total = Some(match length {
            Length::Known(bytes) => *bytes,
            Length::Mark(_) => 0,
        });
    }
}
