//! Loads a data set: at the start, on DEBUG RELOAD, and from a primary.
//!
//! ```text
//!   start() -> begin -> read the file; at times: progress, one turn -> end -> "Ready to accept"
//!
//!   load_stream -> Place::Server   the server's data set; clients get -LOADING
//!               -> Place::Aside    another one, which is then installed; clients use the old one meanwhile
//! ```
//!
//! Clients may connect during a load. Commands that need no data (INFO, PING, CONFIG) run, all
//! other commands get -LOADING. The loader runs single turns of the event loop between keys, and
//! within large keys (`loading-process-events-interval-bytes`).
//!
//! An error in the bytes of the data set is returned, whatever their source is. At the start of the
//! server such an error ends the process: a server that starts with half of its data would soon
//! save that half.
//!
//! **Invariant:** while `server.loading` is `InPlace`, nothing expires and nothing is evicted;
//! expired keys of the file are not created.

mod aux_fields;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ae::{EventLoop, Events};

use crate::cluster::transfer::request::Establish;
use crate::config::{RdbVersionCheck, SanitizeDumpPayload};
use crate::data_set::DataSet;
use crate::db::Db;
use crate::ds::bulk::push_command;
use crate::execute::busy;
use crate::keyspace::top_level::TopLevel;
use crate::observe::bigkeys;
use crate::persist::aof;
use crate::persist::rdb::decode::{Fault, Result, corrupt};
use crate::persist::rdb::load::{self, Meta, Refused, Sink};
use crate::persist::rdb::{Limits, Position, check};
use crate::persist::rio::Reader;
use crate::script::functions::LoadRules;
use crate::state::Server;
use crate::sys::{self, signals};
use crate::texts;
use crate::types::{Key, New, Value};

use self::aux_fields::HistoryFields;

/// The number of empty keys that the server's log names; further empty keys are only counted.
const EMPTY_KEYS_NAMED: u64 = 10;
/// The maximum number of skipped keys whose names are logged.
const SKIPPED_KEYS_NAMED: u64 = 10;

/// The progress of a load, for INFO.
#[derive(Default)]
pub struct Progress {
    /// The Unix time in seconds at which the load began.
    pub start_s: i64,
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    /// The memory in bytes that the server that wrote the file used, according to the file.
    pub rdb_used_mem: u64,
}

impl Progress {
    /// The percentage of the bytes that have been loaded.
    pub fn percent(&self) -> f64 {
        match self.total_bytes {
            0 => 100.0,
            // A compressed file has fewer bytes than are loaded from it, so the computed percentage
            // may exceed 100.
            total => (self.loaded_bytes as f64 * 100.0 / total as f64).min(100.0),
        }
    }

    /// The estimated number of seconds until the end of the load, at the present rate.
    pub fn eta_seconds(&self, now_s: i64) -> i64 {
        let elapsed = now_s - self.start_s;
        if elapsed <= 0 {
            return 1;
        }
        let left = self.total_bytes.saturating_sub(self.loaded_bytes) as f64;
        (elapsed as f64 * left / (self.loaded_bytes + 1) as f64) as i64
    }
}

/// The numbers of keys of an RDB that were loaded, and that were left out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// The number of keys of the file that were loaded.
    pub loaded: u64,
    /// The number of keys of the file that had expired and were dropped.
    pub expired: u64,
    /// The number of keys with empty values, which older servers could write, and which were
    /// dropped.
    pub empty: u64,
    /// The number of keys of types that this server does not have, which were skipped
    /// (`rdb-skip-unknown`).
    pub skipped: u64,
}

/// The state of loading: which data set is being loaded, if any.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Loading {
    #[default]
    No,
    /// The server's own data set is being loaded, and clients can't use it.
    InPlace,
    /// Another data set is being loaded, while clients use the server's data set.
    Aside,
}

impl Loading {
    /// Whether the server's own data set is being loaded.
    pub fn is_in_place(self) -> bool {
        self == Loading::InPlace
    }

    /// Whether another data set is being loaded, while clients use the present one.
    pub fn is_aside(self) -> bool {
        self == Loading::Aside
    }
}

/// The reason why the data set was not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The file does not exist.
    NotFound,
    /// The file is no RDB or AOF of a known version, or can't be read; the server's log has the
    /// details.
    Refused,
    /// The file is damaged; the server's log has the details.
    Damaged,
    /// SHUTDOWN stopped the load.
    Stopped,
    /// [`LoadOptions::accept`] refused the data set before its first key.
    Unwanted,
}

/// The result of the load of a data set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    pub counts: Counts,
    /// The position of the data set in a replication history, if the file has one.
    pub position: Option<Position>,
}

/// The data set into which keys and functions are loaded.
pub enum Place<'a> {
    /// The server's own data set, which clients can't use during the load.
    Server,
    /// A data set that was created by `Server::new_data_set`.
    Aside(&'a mut DataSet),
}

impl Place<'_> {
    /// The database with the number `index` of the data set that is loaded.
    #[inline]
    fn db<'d>(&'d mut self, server: &'d mut Server, index: u32) -> &'d mut Db {
        match self {
            Place::Server => &mut server.data.dbs[index as usize],
            Place::Aside(data) => &mut data.dbs[index as usize],
        }
    }
}

/// The server while it loads a data set. At the start of the server, `Live` has the event loop and
/// runs whole turns of it. In a command (DEBUG RELOAD) `Live` has no event loop, and the sockets
/// are served as in a busy script.
pub struct Live<'a> {
    pub server: &'a mut Server,
    pub el: Option<&'a mut EventLoop<Server>>,
}

impl Live<'_> {
    /// Begins to load the server's data set: clients get -LOADING from now on. `total` is the size
    /// of the files in bytes.
    pub fn begin(&mut self, total: u64) {
        self.server.loading = Loading::InPlace;
        self.begin_progress(total);
    }

    /// Begins to load another data set, while clients use the server's data set. `total` is the
    /// size of the other data set's file in bytes, or 0 if it is not known.
    pub fn begin_aside(&mut self, total: u64) {
        self.server.loading = Loading::Aside;
        self.begin_progress(total);
    }

    fn begin_progress(&mut self, total: u64) {
        self.server.clock.update();
        self.server.load = Progress {
            start_s: self.server.clock.now_s(),
            total_bytes: total,
            ..Progress::default()
        };
        signals::set_loading(true);
    }

    /// Ends the load: clients can use the server's data set again.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.server.loading).is_in_place() {
            bigkeys::loaded(self.server);
        }
        signals::set_loading(false);
        self.server.clock.update();
    }

    /// Records that `loaded` bytes have been read, and serves clients. Returns the number of read
    /// bytes at which clients must be served next.
    pub fn progress(&mut self, loaded: u64) -> u64 {
        self.server.load.loaded_bytes = loaded;
        // Several turns are run, since one turn accepts a client, the next turn reads its request,
        // and a third sends the reply.
        for _ in 0..TURNS_AT_ONCE {
            if self.turn(TURN.union(Events::DONT_WAIT)) == 0 {
                break;
            }
        }
        loaded + self.interval()
    }

    /// The number of loaded bytes between two calls that serve clients.
    fn interval(&self) -> u64 {
        u64::from(self.server.config.loading_process_events_interval_bytes)
    }

    /// Called when the source of the data set has no more bytes at present: runs a turn of the
    /// event loop, which sleeps until a file or timer is due.
    pub fn wait(&mut self) {
        self.turn(TURN);
    }

    /// Runs one turn of the event loop. Returns the number of files and timers that were served; 0
    /// if the number is not known.
    fn turn(&mut self, events: Events) -> usize {
        self.server.clock.update();
        let Some(el) = &mut self.el else {
            // A command (DEBUG RELOAD) loads the data set, so the loop is in the middle of a turn.
            busy::process_events_while_blocked(self.server);
            return 0;
        };
        let turn = |server: &mut Server| el.process_events(server, events);
        self.server.nested_turn(turn).unwrap_or_else(|e| {
            log::warn!("The event loop failed: {}", sys::error_text(&e));
            0
        })
    }
}

/// The maximum number of turns of the event loop that are run each time clients are served during a
/// load.
const TURNS_AT_ONCE: usize = 4;

const TURN: Events = Events::ALL
    .union(Events::CALL_BEFORE_SLEEP)
    .union(Events::CALL_AFTER_SLEEP);

/// The loading server, shared between the loader and the source of the bytes, which serves clients
/// while it waits for a socket.
pub type SharedLive<'l, 'a> = RefCell<&'l mut Live<'a>>;

/// Options of the load of a data set.
#[derive(Clone, Copy, Default)]
pub struct LoadOptions {
    /// Keys of the file replace existing keys of the same name, for DEBUG RELOAD MERGE.
    pub replace: bool,
    /// Expired keys of the file are created. Expired keys are created on a replica, whose primary
    /// deletes them, and for the base of an AOF, in which later commands delete them.
    pub keep_expired: bool,
    /// Called when the AUX fields and the functions of the snapshot have been read; the parameter
    /// is whether the snapshot has any key. The functions have been stored by then, so only a data
    /// set that is loaded aside may be refused.
    pub accept: Option<fn(&mut Server, bool) -> Accept>,
    /// From the first key on, the server is at the file's position in the replication history. For
    /// keys of the file that have expired since, deletions are fed to the replication stream.
    pub resume: bool,
    /// Whether the data set that is loaded is a snapshot from this server's primary.
    pub of_primary: bool,
    /// The connection (TLS) protects the bytes of the snapshot, so the checksum is not compared.
    pub protected: bool,
}

/// The decision on a data set before its first key is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// The load continues into the data set that was chosen before.
    Continue,
    /// The new data set, which has no key yet, replaces the server's data set at once, and the keys
    /// are then loaded in place.
    Install,
    /// The data set is not wanted, so the load ends with [`LoadError::Unwanted`] before the first
    /// key.
    Refuse,
}

/// The sink that fills the keyspace with the keys that `load::read` reads.
///
/// Reading a bucket of a big table costs a cache miss, and the next key is in an unrelated bucket.
/// To hide the cache misses, the loader builds keys in batches of [`BATCH`]. The buckets of a batch
/// are prefetched together, since the processor then translates several of their addresses at the
/// same time, and the keys of the batch are inserted when the next batch is built:
///
/// ```text
///   new:       [ key | key | ... ] <─ built from the read buffer
///                   │ full: all buckets are prefetched
///                   v
///   waiting:   [ key | key | ... ] ─> into the table, when the next batch is full
/// ```
///
/// **Invariant:** when another database begins, or when the load is over, all keys of the batches
/// have been inserted. No key is looked up before all keys have been inserted.
///
/// **Invariant:** the loader does not hold the borrowed server while it reads from the source,
/// since the source (a socket) may borrow the server to serve clients.
pub struct Keyspace<'l, 'a> {
    live: &'l SharedLive<'l, 'a>,
    place: Place<'l>,
    options: LoadOptions,
    db: u32,
    now_ms: i64,
    counts: Counts,
    new: Batch,
    waiting: Batch,
    history: HistoryFields,
    /// The reason why the load ended although the file is not damaged.
    ended: Option<LoadError>,
}

/// Keys with their hashes, which were read and not inserted into the table yet.
type Batch = Vec<(u64, Key)>;

/// The number of keys that are built before their buckets are read: enough to hide a cache miss,
/// few enough for the first-level cache.
const BATCH: usize = 16;

impl<'l, 'a> Keyspace<'l, 'a> {
    fn new(live: &'l SharedLive<'l, 'a>, place: Place<'l>, mut options: LoadOptions) -> Self {
        let now_ms = live.borrow().server.clock.now_ms;
        // A replica keeps expired keys, since its primary deletes them.
        options.keep_expired |= live.borrow().server.replication.is_replica();
        Keyspace {
            live,
            place,
            options,
            db: 0,
            now_ms,
            counts: Counts::default(),
            new: Vec::with_capacity(BATCH),
            waiting: Vec::with_capacity(BATCH),
            history: HistoryFields::default(),
            ended: None,
        }
    }

    /// The 24 bits in a key's entry that eviction uses: the time of the last access, or the LFU
    /// counter.
    #[inline]
    fn stamp(&self, server: &Server, meta: Meta) -> u32 {
        let (evict, now) = (&server.evict, self.now_ms);
        match (meta.frequency, meta.idle_seconds) {
            (Some(counter), _) if evict.is_lfu() => evict.stamp_frequency(counter, now),
            (_, Some(seconds)) if !evict.is_lfu() => {
                evict.stamp_idle(u32::try_from(seconds).unwrap_or(u32::MAX), now)
            }
            _ => evict.new_stamp(now),
        }
    }

    #[inline]
    fn add(
        &mut self,
        server: &mut Server,
        name: &[u8],
        meta: Meta,
        kind: u8,
        value: New,
    ) -> Result<()> {
        let lru = self.stamp(server, meta);
        let db = self.place.db(server, self.db);
        let entry = Key::new(name, kind, lru, meta.expire_at, value);
        self.new.push((db.keys.hash(name), entry));
        if self.new.len() < BATCH {
            return Ok(());
        }
        for (hash, _) in &self.new {
            db.keys.prefetch_bucket(*hash);
        }
        self.counts.loaded += insert_all(db, &mut self.waiting, self.options.replace)?;
        std::mem::swap(&mut self.new, &mut self.waiting);
        Ok(())
    }

    /// Whether a key of the file has expired. Expired fields of a hash are removed.
    #[inline]
    fn has_expired(&mut self, name: &[u8], meta: Meta, value: &mut New) -> bool {
        let mut gone = meta.expire_at.is_some_and(|at| at < self.now_ms);
        if let New::Obj(Value::Hash(hash)) = value
            && hash.volatile_len() > 0
        {
            while let Some(field) = hash.pop_expired(self.now_ms) {
                if !gone && !hash.is_empty() {
                    self.feed(&[b"HDEL", name, field.as_ref().field()]);
                }
            }
            gone |= hash.is_empty();
        }
        if gone {
            let lazy = self.live.borrow().server.config.lazyfree_lazy_expire;
            self.feed(&[if lazy { b"UNLINK" } else { b"DEL" }, name]);
        }
        gone
    }

    /// Feeds a command to the replication stream, if the server is a primary that continues its
    /// history.
    fn feed(&mut self, argv: &[&[u8]]) {
        if !self.options.resume {
            return;
        }
        let mut command = Vec::new();
        push_command(&mut command, argv);
        let mut live = self.live.borrow_mut();
        let stream = &mut live.server.replication.stream;
        if stream.is_open() {
            stream.command(self.db, &command);
            stream.trim();
        }
    }

    /// Inserts all keys that were read into the table of the database.
    fn settle(&mut self) -> Result<()> {
        let mut live = self.live.borrow_mut();
        let db = self.place.db(live.server, self.db);
        for batch in [&mut self.waiting, &mut self.new] {
            self.counts.loaded += insert_all(db, batch, self.options.replace)?;
        }
        Ok(())
    }
}

/// Inserts all keys of a batch into the table of the database. Returns the number of keys.
#[inline(always)]
fn insert_all(db: &mut Db, batch: &mut Batch, replace: bool) -> Result<u64> {
    let count = batch.len() as u64;
    for (hash, entry) in batch.drain(..) {
        if let Some(old) = db.insert(hash, entry)
            && !replace
        {
            return corrupt(format!(
                "RDB has duplicated key '{}' in DB {}",
                old.as_ref().key().escape_ascii(),
                db.index
            ));
        }
    }
    Ok(count)
}

impl Sink for Keyspace<'_, '_> {
    /// The offset in the file at which clients are first served. During a shorter load, clients
    /// wait rather than get -LOADING.
    fn first_tick(&self) -> u64 {
        self.live.borrow().interval()
    }

    fn tick(&mut self, offset: u64) -> u64 {
        let mut live = self.live.borrow_mut();
        let next = live.progress(offset);
        self.now_ms = live.server.clock.now_ms;
        next
    }

    fn slot_import(&mut self, name: &[u8], ranges: &[(u64, u64)]) {
        if let Some(import) = Establish::of_snapshot(name, ranges) {
            self.live.borrow_mut().server.follow_import(&import);
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.read_aux(name, value);
    }

    fn select_db(&mut self, db: u64) -> Result<()> {
        let dbs = self.live.borrow().server.data.dbs.len();
        if db >= dbs as u64 {
            let words = self.live.borrow().server.config.words();
            return corrupt(
                texts::LOG_TOO_FEW_DATABASES.fill(words, &[("databases", &dbs.to_string())]),
            );
        }
        self.settle()?;
        self.db = db as u32;
        Ok(())
    }

    fn blocks_checked(&mut self, blocks: u64) {
        let server = &mut self.live.borrow_mut().server;
        if server.config.sanitize_dump_payload == SanitizeDumpPayload::Yes {
            server.stats.dump_payload_sanitizations += blocks;
        }
    }

    fn resize_db(&mut self, keys: u64, _: u64, plausible: u64) {
        let keys = usize::try_from(keys.min(plausible)).unwrap_or(0);
        let mut live = self.live.borrow_mut();
        let db = self.place.db(live.server, self.db);
        let total = db.len().saturating_add(keys);
        db.keys.reserve(total);
    }

    fn function(&mut self, source: &[u8]) -> Result<()> {
        let mut live = self.live.borrow_mut();
        let rules = LoadRules::of(live.server);
        let functions = match &mut self.place {
            Place::Server => &mut live.server.data.functions,
            Place::Aside(data) => &mut data.functions,
        };
        let loaded = functions.load_library(rules, source, self.options.replace);
        loaded.map(|_| ()).or_else(|e| {
            self.ended = Some(LoadError::Refused);
            let reason = e.text().trim_start_matches("ERR ");
            corrupt(format!("Failed creating the library: {reason}"))
        })
    }

    fn keys_begin(&mut self, any: bool) -> Result<()> {
        if self.options.resume
            && let Some(position) = self.history.position()
        {
            position.resume(self.live.borrow_mut().server);
        }
        let Some(accept) = self.options.accept else {
            return Ok(());
        };
        let mut live = self.live.borrow_mut();
        match (accept(live.server, any), live.server.top_level()) {
            (Accept::Continue, _) => Ok(()),
            (Accept::Install, Ok(top)) => {
                if let Place::Aside(data) = std::mem::replace(&mut self.place, Place::Server) {
                    let data = std::mem::replace(data, DataSet::new(0, live.server.key_hasher));
                    live.server.install_data_set(&top, data);
                    live.server.loading = Loading::InPlace;
                }
                Ok(())
            }
            (Accept::Refuse, _) | (Accept::Install, Err(_)) => {
                self.ended = Some(LoadError::Unwanted);
                corrupt("The data set is not wanted")
            }
        }
    }

    #[inline]
    fn key(&mut self, name: &[u8], meta: Meta, kind: u8, mut value: New) -> Result<()> {
        if !self.options.keep_expired && self.has_expired(name, meta, &mut value) {
            self.counts.expired += 1;
            return Ok(());
        }
        // The sink's method `key` runs for each key of a load, so it borrows the server only once.
        let mut live = self.live.borrow_mut();
        let server = &mut *live.server;
        self.add(server, name, meta, kind, value)?;
        if server.config.key_load_delay != 0 {
            delay(server.config.key_load_delay);
        }
        if server.shutdown.now {
            return Err(Fault::Read(io::ErrorKind::Interrupted.into()));
        }
        Ok(())
    }

    fn empty_key(&mut self, name: &[u8]) {
        self.counts.empty += 1;
        if self.counts.empty <= EMPTY_KEYS_NAMED {
            log::info!("rdbLoadObject skipping empty key: {}", name.escape_ascii());
        }
    }

    fn skip_module(&mut self, name: &str) -> bool {
        let skips = self.live.borrow().server.config.rdb_skip_unknown;
        if skips {
            log::warn!("Data of the module '{name}' outside of keys are left out");
        }
        skips
    }

    fn skip_foreign(&mut self, name: &[u8], what: &str) -> bool {
        let skips = self.live.borrow().server.config.rdb_skip_unknown;
        self.counts.skipped += u64::from(skips);
        if skips && self.counts.skipped <= SKIPPED_KEYS_NAMED {
            let name = name.escape_ascii();
            log::warn!(
                "The key '{name}' is {what}, which this server does not have: it is left out"
            );
        }
        skips
    }

    fn footer(&mut self, found: u64, computed: u64) -> Result<()> {
        let live = self.live.borrow();
        let server = &live.server;
        if !server.config.rdbchecksum || server.debug.skip_checksum {
            return Ok(());
        }
        if found == 0 && self.options.protected {
            log::info!(
                "RDB file was saved with checksum disabled: skipped checksum for this transfer."
            );
        } else if found == 0 {
            log::info!("RDB file was saved with checksum disabled: no check performed.");
        } else if self.options.protected {
            log::debug!("TLS has protected the RDB: no check performed.");
        } else if found != computed {
            log::warn!(
                "Wrong RDB checksum expected: ({found:x}) but got ({computed:x}). Aborting now."
            );
            return corrupt("RDB CRC error");
        }
        Ok(())
    }
}

/// Pauses after a key is saved or loaded, for tests (`rdb-key-save-delay`, `key-load-delay`). `us`
/// is in microseconds; if it is negative, the pause is one microsecond after one key in `-us`,
/// chosen at random.
pub fn delay(us: i32) {
    if us > 0 {
        sys::sleep(Duration::from_micros(us as u64));
    } else if us < 0 && rand::random_ratio(1, us.unsigned_abs()) {
        sys::sleep(Duration::from_micros(1));
    }
}

/// Reads an RDB from any source of bytes into `place`. After an error, `place` contains a part of
/// the data set.
pub fn load_stream(
    live: &mut Live,
    reader: &mut Reader,
    place: Place,
    options: LoadOptions,
) -> std::result::Result<Loaded, LoadError> {
    load_shared(&RefCell::new(live), reader, place, options)
}

/// Reads an RDB into `place`, as [`load_stream`] does, from a source that uses the server to serve
/// clients while it waits for bytes.
pub fn load_shared<'l, 'a>(
    live: &'l SharedLive<'l, 'a>,
    reader: &mut Reader,
    place: Place<'l>,
    options: LoadOptions,
) -> std::result::Result<Loaded, LoadError> {
    let version = read_version(live, reader)?;
    let limits = Limits::of(live.borrow().server);
    let mut keyspace = Keyspace::new(live, place, options);
    let result = load::read(reader, version, limits, &mut keyspace);
    let result = result.and_then(|()| keyspace.settle());
    let Keyspace {
        counts,
        history,
        ended,
        ..
    } = keyspace;
    if live.borrow().server.shutdown.now {
        return Err(LoadError::Stopped);
    }
    if let Err(fault) = result {
        let ended = ended.unwrap_or(LoadError::Damaged);
        if !matches!(ended, LoadError::Unwanted) {
            log_damage(&fault, reader.offset());
        }
        return Err(ended);
    }
    report(counts);
    live.borrow_mut().server.rdb.last_load = counts;
    Ok(Loaded {
        counts,
        position: history.position(),
    })
}

fn read_version(live: &SharedLive, reader: &mut Reader) -> std::result::Result<u32, LoadError> {
    let check = live.borrow().server.config.rdb_version_check;
    let any_version = check == RdbVersionCheck::Relaxed;
    load::read_version(reader, any_version).map_err(|refused| match refused {
        Refused::Signature => {
            log::warn!("Wrong signature trying to load DB from file");
            LoadError::Refused
        }
        Refused::Version(version) => {
            log::warn!("Can't handle RDB format version {version}");
            LoadError::Refused
        }
        Refused::Compressed(reason) => {
            log::warn!("Can't read this compressed file: {reason}");
            LoadError::Refused
        }
        Refused::Unreadable(fault) => {
            log_damage(&fault, reader.offset());
            LoadError::Damaged
        }
    })
}

fn log_damage(fault: &Fault, offset: u64) {
    if matches!(fault, Fault::Read(_)) {
        log::warn!("Short read or OOM loading DB. Unrecoverable error, aborting now.");
    }
    log::warn!("Internal error in RDB reading offset {offset} -> {fault}");
}

fn report(counts: Counts) {
    let Counts {
        loaded,
        expired,
        empty,
        skipped,
    } = counts;
    let more = |n: u64, what: &str| match n {
        0 => String::new(),
        n => format!(", {what} keys skipped: {n}"),
    };
    let (empty, unknown) = (more(empty, "empty"), more(skipped, "unknown"));
    log::info!("Done loading RDB, keys loaded: {loaded}, keys expired: {expired}{empty}{unknown}.");
}

/// Loads an RDB file into the server's data set. If the file is damaged, the checker (`rdb::check`)
/// reads it as well, and its findings are logged.
pub fn load_file(
    live: &mut Live,
    path: &Path,
    options: LoadOptions,
) -> std::result::Result<Loaded, LoadError> {
    let unreadable = |e: io::Error| {
        if e.kind() == io::ErrorKind::NotFound {
            return LoadError::NotFound;
        }
        log::warn!(
            "Fatal error: can't open the RDB file {} for reading: {}",
            path.display(),
            sys::error_text(&e)
        );
        LoadError::Refused
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    let result = load_whole(live, &mut file, len, options);
    if matches!(result, Err(LoadError::Damaged)) {
        check::log_findings(path, live.server);
    }
    result
}

fn load_whole(
    live: &mut Live,
    source: &mut dyn io::Read,
    len: u64,
    options: LoadOptions,
) -> std::result::Result<Loaded, LoadError> {
    live.begin(len);
    let mut reader = Reader::new(source, Some(len));
    if !live.server.config.rdbchecksum {
        reader = reader.without_checksum();
    }
    let result = load_stream(live, &mut reader, Place::Server, options);
    live.end();
    result
}

/// Called at the start of a recording or a replay: loads the data set, and serves no client during
/// the load.
pub fn load_bytes(server: &mut Server, mut rdb: &[u8]) -> std::result::Result<(), ExitCode> {
    let len = rdb.len() as u64;
    let options = LoadOptions {
        resume: true,
        ..LoadOptions::default()
    };
    match load_whole(&mut Live { server, el: None }, &mut rdb, len, options) {
        Ok(_) => Ok(()),
        Err(_) => {
            log::warn!("{DAMAGED}");
            Err(ExitCode::FAILURE)
        }
    }
}

/// Called at the start of the server: loads the data set of the last run from the AOF or the RDB
/// file.
pub fn start(el: &mut EventLoop<Server>, server: &mut Server) -> std::result::Result<(), ExitCode> {
    let began = Instant::now();
    if server.config.appendonly {
        return aof::load::start(el, server);
    }
    let path = server.config.dbfilename.as_path().to_path_buf();
    let mut live = Live {
        server,
        el: Some(el),
    };
    let options = LoadOptions {
        resume: true,
        ..LoadOptions::default()
    };
    match load_file(&mut live, &path, options) {
        Ok(_) => {
            log::info!(
                "DB loaded from disk: {:.3} seconds",
                began.elapsed().as_secs_f64()
            );
            // The AOF may have been switched on during the load. An error of the AOF has been
            // logged.
            aof::follow_setting(server).map_err(|_| ExitCode::FAILURE)
        }
        Err(LoadError::NotFound) => Ok(()),
        Err(LoadError::Stopped) => Err(ExitCode::SUCCESS),
        Err(LoadError::Damaged) => {
            log::warn!("{DAMAGED}");
            Err(ExitCode::FAILURE)
        }
        Err(LoadError::Refused | LoadError::Unwanted) => {
            log::warn!("Fatal error loading the DB, check server logs. Exiting.");
            Err(ExitCode::FAILURE)
        }
    }
}

/// The last line in the log when the process ends because an RDB file is damaged.
pub const DAMAGED: &str = "Terminating server after rdb file reading failure.";

/// DEBUG RELOAD: loads the RDB file `dbfilename` into the server's data set. The caller has emptied
/// the data set, unless the file is merged into it.
pub fn reload(
    server: &mut Server,
    _: &TopLevel,
    options: LoadOptions,
) -> std::result::Result<Loaded, LoadError> {
    let path = server.config.dbfilename.as_path().to_path_buf();
    let loaded = load_file(&mut Live { server, el: None }, &path, options)?;
    // If the AOF can't be switched as `appendonly` says, that has been logged, and the AOF is off.
    let _ = aof::follow_setting(server);
    Ok(loaded)
}

impl Server {
    /// Whether a data set is being loaded: the server's own, or another one while clients use the
    /// server's.
    #[inline]
    pub fn is_loading(&self) -> bool {
        self.loading != Loading::No
    }
}

#[cfg(test)]
mod tests;
