//! Puts a received snapshot in place of the data set.
//!
//! ```text
//!   from_file     dump.rdb ───────┐                      ┌─ in place: the old data are dropped
//!                                 ├─> a data set aside ──┤  before the first key
//!   from_stream   the connection ─┘                      └─ swapdb: after the last key
//!
//!   success ─> take_over_history ─> channels::loaded: the client that applies the stream
//! ```
//!
//! During a load clients get -LOADING errors. With `repl-diskless-load swapdb`, clients can read
//! the old data during the load if the snapshot has the replication id that this server already
//! followed.
//!
//! **The guard.** A primary that restarted without its data would empty all its replicas. So a
//! replica that has keys refuses a snapshot without keys and with another replication id, and
//! serves the old data (`master_link_refused` in INFO). An empty snapshot is detected after its AUX
//! fields, before the old data are dropped. REPLICAOF, or `replica-accept-empty-primary yes`,
//! accepts such a snapshot.
//!
//! While the loader waits for bytes from the connection, nested turns of the event loop serve
//! clients.
//!
//! **Invariant:** a snapshot that ends before its first key, for whatever reason, changes nothing.
//! **Invariant:** the old data set is never dropped in a nested turn: the two functions that drop
//! it need a `TopLevel`, which does not exist in nested turns.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ae::EventLoop;

use super::receive::{READ_BYTES, Receive};
use super::{channels, fail, fail_until};
use crate::config::ReplDisklessLoad;
use crate::connection::Connection;
use crate::data_set::DataSet;
use crate::keyspace::top_level::TopLevel;
use crate::member;
use crate::persist::aof;
use crate::persist::child::{self, ChildKind};
use crate::persist::loading::{
    self, Accept, Live, LoadError, LoadOptions, Loaded, Loading, Place, SharedLive,
};
use crate::persist::rio::Reader;
use crate::replication::bulk::{Body, Length};
use crate::state::Server;
use crate::sync::role;
use crate::sys;

/// The time in milliseconds until the next attempt to sync after a snapshot without keys was
/// refused: each attempt costs the primary a snapshot.
const REFUSED_RETRY_MS: i64 = 10_000;
/// The interval in milliseconds in which a repeated refusal of a snapshot is logged at most once.
const REFUSED_LOG_MS: i64 = 60_000;

/// How the snapshot that is being loaded replaces the data set.
#[derive(Clone, Copy, Default)]
pub struct Way {
    /// Whether the old data are kept until the last key of the snapshot was loaded.
    swaps: bool,
    /// Whether clients can read the old data during the load.
    serves: bool,
    /// Whether the old data are dropped before the first byte of the snapshot is read.
    flushes_first: bool,
    /// Whether a snapshot without keys is refused.
    guarded: bool,
    /// Whether the old data were dropped already.
    installed: bool,
}

impl Way {
    /// Decides how a snapshot with the replication id `id` is loaded.
    fn of(server: &Server, id: &str, diskless: bool) -> Way {
        let config = &server.config;
        let swaps = diskless && config.repl_diskless_load == ReplDisklessLoad::Swapdb;
        let same_history = server.replication.id == id;
        let is_new = server
            .replication
            .upstream
            .as_ref()
            .is_none_or(|up| up.is_new);
        let guarded = !is_new
            && !same_history
            && !server.data.is_empty()
            && !config.replica_accept_empty_primary;
        let mode = config.repl_diskless_load;
        Way {
            swaps,
            serves: swaps && same_history,
            flushes_first: diskless && !guarded && mode == ReplDisklessLoad::FlushBeforeLoad,
            guarded,
            installed: false,
        }
    }
}

/// Whether the next snapshot is loaded from the connection, without a file.
pub fn is_diskless(server: &Server) -> bool {
    match server.config.repl_diskless_load {
        ReplDisklessLoad::Disabled => false,
        ReplDisklessLoad::OnEmptyDb => server.data.is_empty(),
        ReplDisklessLoad::Swapdb | ReplDisklessLoad::FlushBeforeLoad => true,
    }
}

/// Loads a snapshot that was received into a file: renames the complete file to `dbfilename`, and
/// loads it.
pub fn from_file(el: &mut EventLoop<Server>, server: &mut Server, receive: Box<Receive>) {
    el.remove_file(receive.token);
    let Receive {
        conn,
        id,
        offset,
        file,
        input,
        ..
    } = *receive;
    // Snapshots are not received in nested turns.
    let (Some(spool), Ok(top)) = (file, server.top_level()) else {
        return fail(el, server);
    };
    let Ok(target) = name_file(server, &spool.path) else {
        // An error of the removal is ignored, since the file may have been renamed already.
        let _ = std::fs::remove_file(&spool.path);
        return fail(el, server);
    };
    let sync = Sync {
        number: server.primary_link.number,
        failure: "Failed trying to load the MASTER synchronization DB from disk, check server logs.",
        file: Some(target.clone()),
        offset,
        id,
    };
    server.primary_link.kept_alive = Some(conn);
    let way = Way::of(server, &sync.id, false);
    let loaded = load(el, server, &top, way, |live, data, options| {
        load_file(live, &target, data, options)
    });
    let Some(conn) = server.primary_link.kept_alive.take() else {
        return fail(el, server);
    };
    finish(
        el,
        server,
        sync,
        loaded.map(|loaded| (conn, loaded)),
        &input,
    );
}

/// Renames the received snapshot file to `dbfilename`. An error is logged.
fn name_file(server: &mut Server, path: &Path) -> Result<PathBuf, ()> {
    let words = server.config.words();
    let target = server.config.dbfilename.as_path().to_path_buf();
    // A child that is saving an RDB file would overwrite the received snapshot with an older one.
    if server
        .child
        .as_ref()
        .is_some_and(|child| child.kind == ChildKind::Rdb)
    {
        child::kill_and_wait(server, ChildKind::Rdb);
    }
    let named = std::fs::rename(path, &target);
    named.map(|()| target.clone()).map_err(|e| {
        let line = words.line(
            "Failed trying to rename the temp DB into {} in MASTER <-> REPLICA synchronization: {}",
            &[&target.display(), &sys::error_text(&e)],
        );
        log::warn!("{line}");
    })
}

fn load_file<'l>(
    live: &'l SharedLive<'l, '_>,
    path: &Path,
    data: &'l mut DataSet,
    options: LoadOptions,
) -> Result<Loaded, LoadError> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let Ok((len, mut file)) = opened else {
        return Err(LoadError::Refused);
    };
    let mut reader = Reader::new(&mut file, Some(len));
    let mut server_live = live.borrow_mut();
    server_live.server.load.total_bytes = len;
    if !server_live.server.config.rdbchecksum {
        reader = reader.without_checksum();
    }
    drop(server_live);
    loading::load_shared(live, &mut reader, Place::Aside(data), options)
}

/// Loads the snapshot from the connection. The header before the snapshot (its length, or the mark
/// of its end) was read already.
pub fn from_stream(el: &mut EventLoop<Server>, server: &mut Server, receive: Box<Receive>) {
    let Receive {
        conn,
        token,
        id,
        offset,
        body,
        input,
        ..
    } = *receive;
    let (Some(body), Ok(top)) = (body, server.top_level()) else {
        el.remove_file(token);
        return fail(el, server);
    };
    let sync = Sync {
        number: server.primary_link.number,
        failure: "Failed trying to load the MASTER synchronization DB from socket, check server logs.",
        file: None,
        offset,
        id,
    };
    let way = Way::of(server, &sync.id, true);
    let mut incoming = Incoming {
        conn,
        body,
        input,
        output: Vec::new(),
        at: 0,
        complete: false,
        newline_s: server.clock.now_s(),
    };
    let loaded = load(el, server, &top, way, |live, data, options| {
        incoming.load(live, data, options)
    });
    el.remove_file(token);
    let Incoming { conn, input, .. } = incoming;
    finish(
        el,
        server,
        sync,
        loaded.map(|loaded| (conn, loaded)),
        &input,
    );
}

/// Loads a snapshot by calling `read`, and replaces the data set as `way` says. After `Ok` the
/// server has the new data set; after an error it has the old data set, or an empty one.
fn load(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    top: &TopLevel,
    way: Way,
    read: impl for<'l> FnOnce(
        &'l SharedLive<'l, '_>,
        &'l mut DataSet,
        LoadOptions,
    ) -> Result<Loaded, LoadError>,
) -> Result<Loaded, LoadError> {
    server.primary_link.way = way;
    member::transfer::begin_load(server);
    if way.flushes_first {
        drop_old_data(server, top);
    }
    note(server, "MASTER <-> REPLICA sync: Loading DB in memory");
    let mut data = server.new_data_set();
    let mut live = Live {
        server,
        el: Some(el),
    };
    match way.serves || way.guarded {
        true => live.begin_aside(0),
        false => live.begin(0),
    }
    let options = LoadOptions {
        // Expired keys of the snapshot are loaded, since the primary will send their deletion.
        keep_expired: true,
        accept: Some(accept),
        of_primary: true,
        ..LoadOptions::default()
    };
    let result = read(&RefCell::new(&mut live), &mut data, options);
    live.end();
    let Live { server, .. } = live;
    settle(server, top, data, result.is_ok());
    result
}

fn note(server: &Server, template: &str) {
    log::info!("{}", server.config.words().line(template, &[]));
}

/// After a load, puts the loaded data set in place of the old one, or drops the loaded data if the
/// load failed.
fn settle(server: &mut Server, top: &TopLevel, data: DataSet, succeeded: bool) {
    let way = server.primary_link.way;
    let installed = way.installed;
    match succeeded {
        true if installed => {
            (0..server.data.dbs.len() as u32).for_each(|db| server.signal_all_ready(db));
        }
        true => {
            note(
                server,
                "MASTER <-> REPLICA sync: Swapping active DB with loaded DB",
            );
            leave_history(server);
            server.install_data_set(top, data);
            note(
                server,
                "MASTER <-> REPLICA sync: Discarding old DB in background",
            );
        }
        false if installed => {
            note(
                server,
                "MASTER <-> REPLICA sync: Discarding the half-loaded data",
            );
            server.flush(top, None, None, server.config.replica_lazy_flush);
            server.flush_libraries(top);
            data.free(&server.lazyfree);
        }
        false => {
            if way.swaps {
                note(
                    server,
                    "MASTER <-> REPLICA sync: Discarding temporary DB in background",
                );
            }
            data.free(&server.lazyfree);
        }
    }
}

/// Decides, after the AUX fields and functions of the snapshot were read, whether and how its keys
/// are loaded. `any` is whether the snapshot has a key.
fn accept(server: &mut Server, any: bool) -> Accept {
    let way = server.primary_link.way;
    if way.guarded && !any {
        return Accept::Refuse;
    }
    if !way.serves {
        server.loading = Loading::InPlace;
    }
    if way.swaps {
        return Accept::Continue;
    }
    if !way.installed
        && let Ok(top) = server.top_level()
    {
        drop_old_data(server, &top);
    }
    Accept::Install
}

fn drop_old_data(server: &mut Server, top: &TopLevel) {
    note(server, "MASTER <-> REPLICA sync: Flushing old data");
    leave_history(server);
    server.flush(top, None, None, server.config.replica_lazy_flush);
    server.flush_libraries(top);
    server.primary_link.way.installed = true;
}

/// Closes the links to this server's own replicas, gives the replication history a new id and stops
/// the AOF, because the old data set is about to be dropped.
fn leave_history(server: &mut Server) {
    role::close_replicas(server);
    // The history gets a new replication id: if the load fails and this server is promoted, no
    // replica may continue the old history.
    role::end_history(server);
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.can_continue = false;
    }
    aof::stop_for_sync(server);
}

/// The facts about a full sync that are known before the snapshot is loaded.
struct Sync {
    /// The replication id of the snapshot.
    id: String,
    offset: u64,
    /// The number of the upstream (the configured primary) from which the snapshot comes.
    number: u64,
    /// The file from which the snapshot is loaded; `None` if it is loaded from the connection.
    file: Option<PathBuf>,
    /// The line that is logged if the load fails.
    failure: &'static str,
}

/// Continues after the load of a snapshot: applies the replication stream or, after an error,
/// connects again.
fn finish(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    sync: Sync,
    loaded: Result<(Connection, Loaded), LoadError>,
    rest: &[u8],
) {
    let words = server.config.words();
    let upstream = server.replication.upstream.as_ref();
    if upstream.is_none_or(|up| up.number != sync.number) {
        return; // the role changed while the snapshot was loaded
    }
    match loaded {
        Ok((conn, loaded)) => {
            let db = loaded.position.map_or(0, |position| position.db);
            take_over_history(server, sync.id, sync.offset, db);
            note(server, "MASTER <-> REPLICA sync: Finished with success");
            aof::start_after_sync(server, sync.file.as_deref());
            remove_unwanted_file(server, sync.file.as_deref());
            channels::loaded(el, server, conn, rest);
        }
        Err(LoadError::Unwanted) => refused(el, server),
        Err(_) => {
            log::warn!("{}", words.line(sync.failure, &[]));
            remove_unwanted_file(server, sync.file.as_deref());
            fail(el, server);
        }
    }
}

/// `rdb-del-sync-files`: removes the snapshot file that was loaded.
fn remove_unwanted_file(server: &mut Server, file: Option<&Path>) {
    if let Some(file) = file.filter(|_| server.config.removes_sync_files()) {
        note(
            server,
            "Removing the RDB file obtained from the master. This replica has persistence disabled",
        );
        // An error of the removal is ignored, since the next sync replaces the file.
        let _ = std::fs::remove_file(file);
    }
}

/// Handles the refusal of a snapshot without keys: logs the refusal, and connects to the primary
/// again later.
fn refused(el: &mut EventLoop<Server>, server: &mut Server) {
    let now_ms = server.clock.now_ms;
    let keys = server.data.len();
    if let Some(upstream) = &mut server.replication.upstream {
        if now_ms - upstream.refused_logged_ms >= REFUSED_LOG_MS || !upstream.refused_empty {
            upstream.refused_logged_ms = now_ms;
            log::warn!(
                "{}",
                server.config.words().line(
                    "The master has another history and not a single key, but this replica has {} keys: a full sync \
                     would delete them. It is refused, and the old data are served. REPLICAOF, or \
                     replica-accept-empty-primary, accepts the empty data set.",
                    &[&keys]
                )
            );
        }
        upstream.refused_empty = true;
    }
    fail_until(el, server, now_ms + REFUSED_RETRY_MS);
}

/// Takes over the primary's replication history: the data set is now that of the replication id
/// `id` at `offset`.
fn take_over_history(server: &mut Server, id: String, offset: u64, db: u32) {
    server.replication.begin_history(id);
    (
        server.replication.aof_synced,
        server.replication.aof_pending,
    ) = (None, None);
    if server.replication.stream.restart_at(offset).is_err() {
        log::warn!("The primary's offset {offset} is out of range");
    }
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.db = db;
    }
}

/// The connection to the primary while the loader reads the snapshot from it.
struct Incoming {
    conn: Connection,
    body: Body,
    /// Bytes that were read from the connection and not passed to `body`. After the end of the
    /// snapshot these bytes belong to the replication stream.
    input: Vec<u8>,
    /// Bytes of the snapshot, of which the loader has consumed the first `at`.
    output: Vec<u8>,
    at: usize,
    complete: bool,
    /// The Unix time in seconds at which the last newline was sent to the primary, which would
    /// close a silent link after its timeout.
    newline_s: i64,
}

impl Incoming {
    fn load<'l>(
        &mut self,
        live: &'l SharedLive<'l, '_>,
        data: &'l mut DataSet,
        mut options: LoadOptions,
    ) -> Result<Loaded, LoadError> {
        options.protected = self.conn.session().is_some();
        let len = match self.body.length() {
            Length::Known(len) => Some(*len),
            Length::Mark(_) => None,
        };
        let checked = live.borrow().server.config.rdbchecksum && !options.protected;
        live.borrow_mut().server.load.total_bytes = len.unwrap_or(0);
        let mut source = Source {
            incoming: self,
            live,
        };
        let mut reader = Reader::new(&mut source, len);
        if !checked {
            reader = reader.without_checksum();
        }
        let loaded = loading::load_shared(live, &mut reader, Place::Aside(data), options)?;
        let ahead = reader.into_ahead();
        match source.read(&mut [0]) {
            Ok(0) if ahead.is_empty() => Ok(loaded),
            _ => {
                log::warn!("Replication stream EOF marker is broken");
                Err(LoadError::Damaged)
            }
        }
    }
}

/// The snapshot that comes over a connection ([`Incoming`]) as a [`Read`] for the loader.
struct Source<'s, 'l, 'a> {
    incoming: &'s mut Incoming,
    live: &'l SharedLive<'l, 'a>,
}

impl Source<'_, '_, '_> {
    /// Reads bytes of the snapshot from the connection or, if there are none, waits for a moment.
    fn receive(&mut self) -> io::Result<()> {
        let Ok(mut live) = self.live.try_borrow_mut() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let incoming = &mut *self.incoming;
        let transfer = incoming.conn.read_into(&mut incoming.input, READ_BYTES)?;
        let (now_ms, now_s) = (live.server.clock.now_ms, live.server.clock.now_s());
        if now_s != incoming.newline_s {
            incoming.newline_s = now_s;
            // An error of the write is ignored, since the next read notices a lost connection.
            let _ = incoming.conn.write_now(b"\n");
        }
        let timeout_ms = i64::from(live.server.config.repl_timeout) * 1000;
        let Some(upstream) = &mut live.server.replication.upstream else {
            return Err(io::ErrorKind::Interrupted.into());
        };
        if transfer.bytes > 0 {
            upstream.received.last_io_ms = now_ms;
            upstream.received.bytes += transfer.bytes as u64;
            live.server.stats.net_input_bytes += transfer.bytes as u64;
            live.server.stats.net_repl_input_bytes += transfer.bytes as u64;
            return Ok(());
        }
        if now_ms - upstream.received.last_io_ms > timeout_ms {
            return Err(io::ErrorKind::TimedOut.into());
        }
        live.wait();
        match live.server.shutdown.now {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl Read for Source<'_, '_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let incoming = &mut *self.incoming;
            if incoming.at < incoming.output.len() {
                let n = (&incoming.output[incoming.at..]).read(out)?;
                incoming.at += n;
                return Ok(n);
            }
            if incoming.complete {
                return Ok(0);
            }
            incoming.output.clear();
            incoming.at = 0;
            let received = std::mem::take(&mut incoming.input);
            let mut input = &received[..];
            incoming.complete = incoming.body.read(&mut input, &mut incoming.output);
            incoming.input = input.to_vec();
            if incoming.output.is_empty() && !incoming.complete {
                self.receive()?;
            }
        }
    }
}
