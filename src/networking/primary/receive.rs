//! Receives a snapshot from the primary into a file, then loads it in place of the data set.
//!
//! ```text
//!   read_handler ─> header ─> body ─> temp-<time>.<pid>.rdb        clients are served meanwhile
//!                                       │ complete: fsync, rename to dbfilename
//!                                       v
//!                  install: replicas of ours closed, old data flushed, the file loaded
//!                                       v
//!                              stream_from: the client that applies the stream
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use ae::{Class, EventLoop, Io, Mask, Token};

use super::{channels, fail};
use crate::connection::Connection;
use crate::keyspace::top_level::TopLevel;
use crate::networking::link::Taken;
use crate::persist::aof;
use crate::persist::child::{self, Kind};
use crate::persist::loading::{self, Live, Options};
use crate::replication::bulk::{Body, Header, Length, Malformed};
use crate::replication::upstream::{Phase, Received};
use crate::state::Server;
use crate::sync::role;
use crate::sys;

/// The maximum number of bytes of one read, and of all reads of one turn.
const READ_BYTES: usize = 64 * 1024;
const BYTES_PER_TURN: usize = 1024 * 1024;

/// A snapshot that is being received.
pub struct Receive {
    conn: Connection,
    token: Token,
    /// The history to which it belongs, and its offset.
    id: String,
    offset: u64,
    header: Header,
    body: Option<Body>,
    file: File,
    path: PathBuf,
    /// The bytes that were read and are not in the file yet.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Receive {
    /// Gives up: closes everything and removes the file.
    pub fn close(self, el: &mut EventLoop<Server>) {
        el.remove_file(self.token);
        // It may have been renamed already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// `+FULLRESYNC` was received: a snapshot of this history follows.
pub fn begin(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    taken: Taken,
    id: String,
    offset: u64,
) {
    let now = server.clock.now_ms;
    let path = PathBuf::from(format!("temp-{}.{}.rdb", now / 1000, std::process::id()));
    let opened = File::create(&path).and_then(|file| {
        let token = el.add_file(taken.conn.raw_fd(), Class::First, 0)?;
        Ok((file, token))
    });
    let (file, token) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let words = server.config.words();
            let line = words.line(
                "Opening the temp file needed for MASTER <-> REPLICA synchronization: {}",
                &[&sys::error_text(&e)],
            );
            log::warn!("{line}");
            return fail(el, server);
        }
    };
    el.set_handler(token, Mask::READABLE, read_handler);
    server.primary_link.receive = Some(Box::new(Receive {
        conn: taken.conn,
        token,
        id,
        offset,
        header: Header::default(),
        body: None,
        file,
        path,
        input: taken.received,
        output: Vec::new(),
    }));
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.phase = Phase::Transfer;
        upstream.received = Received {
            last_io_ms: now,
            ..Received::default()
        };
    }
    // The reply may have been followed by bytes of it.
    take_input(el, server);
}

/// The read handler of the connection.
fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, _: Token, _: Mask) -> Io {
    if server.is_nested() {
        return Io::More; // its end would replace the data set
    }
    let mut total = 0;
    while total < BYTES_PER_TURN {
        let now_ms = server.clock.now_ms;
        let Some(receive) = &mut server.primary_link.receive else {
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
    fail(el, server);
    Io::Drained
}

/// Takes the bytes that were read: the header, then bytes for the file, then the end.
fn take_input(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(mut receive) = server.primary_link.receive.take() else {
        return;
    };
    let taken = receive.take(server);
    server.primary_link.receive = Some(receive);
    match taken {
        Ok(false) => {}
        Ok(true) => complete(el, server),
        Err(line) => {
            log::warn!("{line}");
            fail(el, server);
        }
    }
}

impl Receive {
    /// Returns whether the snapshot is complete; the rest of `input` is then the stream. `Err` is a
    /// line for the log.
    fn take(&mut self, server: &mut Server) -> Result<bool, String> {
        let words = server.config.words();
        let received = std::mem::take(&mut self.input);
        let mut input = &received[..];
        if self.body.is_none() {
            let header = self.header.read(&mut input).map_err(|malformed| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match malformed {
                    Malformed::Error(error) => words.line(
                        "MASTER aborted replication with an error: -{}",
                        &[&text(&error)],
                    ),
                    Malformed::Header(line) => words.line(
                        "Bad protocol from MASTER, the first byte is not '$' (we received '{}'), are you sure the \
                         host and port are right?",
                        &[&text(&line)],
                    ),
                }
            })?;
            let Some(length) = header else {
                return Ok(false);
            };
            note_begin(server, &length);
            self.body = Some(Body::new(length));
        }
        let Some(body) = &mut self.body else {
            return Ok(false);
        };
        let complete = body.read(&mut input, &mut self.output);
        let written = self.file.write_all(&self.output);
        self.output.clear();
        written.map_err(|e| {
            words.line(
                "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA \
                 synchronization: {}",
                &[&sys::error_text(&e)],
            )
        })?;
        if let Some(upstream) = &mut server.replication.upstream {
            upstream.received.bytes = body.delivered();
        }
        self.input = input.to_vec();
        Ok(complete)
    }
}

fn note_begin(server: &mut Server, length: &Length) {
    let words = server.config.words();
    let line = match length {
        Length::Known(bytes) => words.line(
            "MASTER <-> REPLICA sync: receiving {} bytes from master to disk",
            &[bytes],
        ),
        Length::Mark(_) => words.line(
            "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to disk",
            &[],
        ),
    };
    log::info!("{line}");
    if let (Length::Known(bytes), Some(upstream)) = (length, &mut server.replication.upstream) {
        upstream.received.total = Some(*bytes);
    }
}

/// The file is complete: replaces the data set.
fn complete(el: &mut EventLoop<Server>, server: &mut Server) {
    // Snapshots are not received in nested turns.
    let Ok(top) = server.top_level() else {
        return fail(el, server);
    };
    let Some(receive) = server.primary_link.receive.take() else {
        return;
    };
    el.remove_file(receive.token);
    let Receive {
        conn,
        id,
        offset,
        file,
        path,
        input,
        ..
    } = *receive;
    let words = server.config.words();
    let target = server.config.dbfilename.as_path().to_path_buf();
    let number = server.primary_link.number;
    // A child that saves would replace this file with its older one.
    if server
        .child
        .as_ref()
        .is_some_and(|child| child.kind == Kind::Rdb)
    {
        child::kill_and_wait(server, Kind::Rdb);
    }
    let named = file
        .sync_all()
        .and_then(|()| std::fs::rename(&path, &target));
    if let Err(e) = named {
        let line = words.line(
            "Failed trying to rename the temp DB into {} in MASTER <-> REPLICA synchronization: {}",
            &[&target.display(), &sys::error_text(&e)],
        );
        log::warn!("{line}");
        let _ = std::fs::remove_file(&path);
        return fail(el, server);
    }
    let Some(db) = install(el, server, &top, &target) else {
        return fail(el, server);
    };
    let upstream = server.replication.upstream.as_ref();
    if upstream.is_none_or(|up| up.number != number) {
        return; // the role changed while it was loaded
    }
    take_over_history(server, id, offset, db);
    let line = words.line("MASTER <-> REPLICA sync: Finished with success", &[]);
    log::info!("{line}");
    channels::loaded(el, server, conn, &input);
}

/// Loads the file in place of the data set. Returns the selected database of the primary's stream.
/// `None`: it failed, which is logged.
fn install(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    top: &TopLevel,
    path: &std::path::Path,
) -> Option<u32> {
    let words = server.config.words();
    // The history of this server's replicas ends here.
    role::close_replicas(server);
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.can_continue = false;
    }
    aof::stop_for_sync(server);
    let line = words.line("MASTER <-> REPLICA sync: Flushing old data", &[]);
    log::info!("{line}");
    let lazy = server.config.replica_lazy_flush;
    server.flush(top, None, None, lazy);
    server.flush_libraries(top);
    let line = words.line("MASTER <-> REPLICA sync: Loading DB in memory", &[]);
    log::info!("{line}");
    let began = Instant::now();
    let mut live = Live {
        server,
        el: Some(el),
    };
    let options = Options {
        // The primary deletes expired keys.
        keep_expired: true,
        ..Options::default()
    };
    match loading::load_file(&mut live, path, options) {
        Ok(loaded) => {
            log::debug!("Loaded in {:.3} seconds", began.elapsed().as_secs_f64());
            // A failure is logged.
            let _ = aof::follow_setting(server);
            Some(loaded.position.map_or(0, |position| position.db))
        }
        Err(reason) => {
            let line = words.line(
                "Failed trying to load the MASTER synchronization DB from disk: {}",
                &[&format!("{reason:?}")],
            );
            log::warn!("{line}");
            None
        }
    }
}

/// The data set is now that of the primary's history at this offset.
fn take_over_history(server: &mut Server, id: String, offset: u64, db: u32) {
    server.replication.begin_history(id);
    if server.replication.stream.restart_at(offset).is_err() {
        log::warn!("The primary's offset {offset} is out of range");
    }
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.db = db;
    }
}
