//! Loading the data set: at the start, and on DEBUG RELOAD.
//!
//! ```text
//!   start() -> begin -> read the file; at times: progress, one turn -> end -> "Ready to accept"
//! ```
//!
//! Clients may connect meanwhile: commands that need no data are answered (INFO, PING, CONFIG), the
//! others get -LOADING. For that the loader runs single turns of the loop between keys, and within
//! large ones (`loading-process-events-interval-bytes`).
//!
//! A damaged file ends the process: a server that starts with half of its data would soon save that
//! half.
//!
//! **Invariant:** while `server.loading` is set nothing expires and nothing is evicted; keys that
//! were past their time are not even created.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ae::{EventLoop, Events};

use crate::execute::busy;
use crate::persist::aof;
use crate::persist::rdb::decode::{Fault, Result, corrupt};
use crate::persist::rdb::load::{self, Meta, Refused, Sink};
use crate::persist::rdb::{Limits, check};
use crate::persist::rio::Reader;
use crate::state::Server;
use crate::sys::{self, signals};
use crate::texts;
use crate::types::{Key, New, Value};

/// Empty keys that are named in the log; the others are counted.
const EMPTY_KEYS_NAMED: u64 = 10;

/// The progress of a load, for INFO.
#[derive(Default)]
pub struct Progress {
    /// Unix time in seconds.
    pub start_s: i64,
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    /// The memory that the file's writer used, according to the file.
    pub rdb_used_mem: u64,
}

impl Progress {
    pub fn percent(&self) -> f64 {
        match self.total_bytes {
            0 => 100.0,
            total => self.loaded_bytes as f64 * 100.0 / total as f64,
        }
    }

    /// Seconds that it will still take, if it goes on as it went.
    pub fn eta_seconds(&self, now_s: i64) -> i64 {
        let elapsed = now_s - self.start_s;
        if elapsed <= 0 {
            return 1;
        }
        let left = self.total_bytes.saturating_sub(self.loaded_bytes) as f64;
        (elapsed as f64 * left / (self.loaded_bytes + 1) as f64) as i64
    }
}

/// What was found in a file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub loaded: u64,
    pub expired: u64,
    pub empty: u64,
}

/// The reasons for which there is no data set.
#[derive(Debug)]
pub enum LoadError {
    /// The file is not there.
    NotFound,
    /// It is not a file of this format, or not readable; the log has the details.
    Refused,
    /// It is damaged; the log has the details.
    Damaged,
    /// SHUTDOWN came first.
    Stopped,
}

/// The server while it loads. At the start it has the loop, whose turns are whole ones then; a
/// command (DEBUG RELOAD) has not, and lets it serve the sockets as a busy script does.
pub struct Live<'a> {
    pub server: &'a mut Server,
    pub el: Option<&'a mut EventLoop<Server>>,
}

impl Live<'_> {
    /// From now on clients get -LOADING. `total` is the size of the files to be read.
    pub fn begin(&mut self, total: u64) {
        self.server.loading = true;
        self.server.clock.update();
        self.server.load = Progress {
            start_s: self.server.clock.now_s(),
            total_bytes: total,
            ..Progress::default()
        };
        signals::set_loading(true);
    }

    pub fn end(&mut self) {
        self.server.loading = false;
        crate::observe::bigkeys::loaded(self.server);
        signals::set_loading(false);
        self.server.clock.update();
    }

    /// `loaded` bytes have been read: records that and serves the clients that wait. Returns the
    /// number of bytes at which to call it again.
    pub fn progress(&mut self, loaded: u64) -> u64 {
        const TURN: Events = Events::ALL
            .union(Events::DONT_WAIT)
            .union(Events::CALL_BEFORE_SLEEP)
            .union(Events::CALL_AFTER_SLEEP);
        self.server.load.loaded_bytes = loaded;
        self.server.clock.update();
        match &mut self.el {
            Some(el) => {
                if let Err(e) = el.process_events(self.server, TURN) {
                    log::warn!("The event loop failed: {}", sys::error_text(&e));
                }
            }
            // A command loads: the loop is in the middle of a turn.
            None => busy::process_events_while_blocked(self.server),
        }
        loaded + u64::from(self.server.config.loading_process_events_interval_bytes)
    }
}

/// Options of a load.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Options {
    /// Keys that exist already give way: DEBUG RELOAD MERGE.
    pub replace: bool,
    /// The file is the base of an AOF: keys that are past their time stay, since the AOF goes on
    /// with their deletion.
    pub aof_base: bool,
}

/// Fills the keyspace from what `load::read` finds.
///
/// A bucket of a big table is a cache miss, and a key's hash says nothing of the next one's. So a
/// key is built and its bucket asked for at once, but it is put into it only [`AHEAD`] keys later:
///
/// ```text
///   waiting:   [ key | key | ... | key ] <─ built from the read buffer, its bucket prefetched
///                └─> its bucket is there: into the table
/// ```
///
/// **Invariant:** no key waits when another database begins, or when the load is over: before that
/// no key is looked up.
pub struct Keyspace<'l, 'a> {
    live: &'l mut Live<'a>,
    options: Options,
    db: u32,
    now_ms: i64,
    counts: Counts,
    waiting: VecDeque<(u64, Key)>,
    /// Nothing is damaged, but a library of functions could not be created.
    refused: bool,
}

/// At most this number of keys wait for their buckets: enough to hide a miss, few enough to stay in
/// the first-level cache.
const AHEAD: usize = 24;

impl<'l, 'a> Keyspace<'l, 'a> {
    fn new(live: &'l mut Live<'a>, options: Options) -> Keyspace<'l, 'a> {
        let now_ms = live.server.clock.now_ms;
        Keyspace {
            live,
            options,
            db: 0,
            now_ms,
            counts: Counts::default(),
            waiting: VecDeque::with_capacity(AHEAD),
            refused: false,
        }
    }

    /// The bits that say how a key was used.
    fn stamp(&self, meta: Meta) -> u32 {
        let (evict, now) = (&self.live.server.evict, self.now_ms);
        match (meta.frequency, meta.idle_seconds) {
            (Some(counter), _) if evict.is_lfu() => evict.stamp_frequency(counter, now),
            (_, Some(seconds)) if !evict.is_lfu() => {
                evict.stamp_idle(u32::try_from(seconds).unwrap_or(u32::MAX), now)
            }
            _ => evict.new_stamp(now),
        }
    }

    #[inline]
    fn add(&mut self, name: &[u8], meta: Meta, kind: u8, value: New) -> Result<()> {
        let lru = self.stamp(meta);
        let keys = &self.live.server.dbs[self.db as usize].keys;
        let hash = keys.hash(name);
        keys.prefetch_bucket(hash);
        if self.waiting.len() == AHEAD {
            self.put_first()?;
        }
        let entry = Key::new(name, kind, lru, meta.expire_at, value);
        self.waiting.push_back((hash, entry));
        Ok(())
    }

    /// The key that has waited longest goes into the table.
    #[inline]
    fn put_first(&mut self) -> Result<()> {
        let Some((hash, entry)) = self.waiting.pop_front() else {
            return Ok(());
        };
        let db = &mut self.live.server.dbs[self.db as usize];
        if let Some(old) = db.insert(hash, entry)
            && !self.options.replace
        {
            return corrupt(format!(
                "RDB has duplicated key '{}' in DB {}",
                old.as_ref().key().escape_ascii(),
                self.db
            ));
        }
        self.counts.loaded += 1;
        Ok(())
    }

    /// All that wait go into the table.
    fn settle(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.put_first()?;
        }
        Ok(())
    }
}

impl Sink for Keyspace<'_, '_> {
    fn tick(&mut self, offset: u64) -> u64 {
        let next = self.live.progress(offset);
        self.now_ms = self.live.server.clock.now_ms;
        next
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        let number = text.parse::<i64>().unwrap_or(0);
        match name {
            b"redis-ver" => {
                let words = self.live.server.config.words();
                log::info!(
                    "{}",
                    texts::LOG_RDB_BY_REDIS.fill(words, &[("version", &text)])
                );
            }
            b"valkey-ver" => log::info!("Loading RDB produced by Valkey version {text}"),
            b"ctime" => {
                let age = (self.now_ms / 1000 - number).max(0);
                log::info!("RDB age {age} seconds");
            }
            b"used-mem" => {
                log::info!(
                    "RDB memory usage when created {:.2} Mb",
                    number as f64 / (1024.0 * 1024.0)
                );
                self.live.server.load.rdb_used_mem = number.max(0) as u64;
            }
            b"aof-preamble" if number != 0 => log::info!("RDB has an AOF tail"),
            b"aof-base" if number != 0 => log::info!("RDB is base AOF"),
            b"aof-preamble" | b"aof-base" | b"redis-bits" => {}
            // Where a replica was in its primary's history; scripts, which are not kept any more.
            b"repl-stream-db" | b"repl-id" | b"repl-offset" | b"lua" => {}
            name => log::debug!(
                "Unrecognized RDB AUX field: '{}' '{text}'",
                name.escape_ascii()
            ),
        }
    }

    fn select_db(&mut self, db: u64) -> Result<()> {
        let dbs = self.live.server.dbs.len();
        if db >= dbs as u64 {
            let words = self.live.server.config.words();
            return corrupt(
                texts::LOG_TOO_FEW_DATABASES.fill(words, &[("databases", &dbs.to_string())]),
            );
        }
        self.settle()?;
        self.db = db as u32;
        Ok(())
    }

    fn resize_db(&mut self, keys: u64, _: u64, plausible: u64) {
        let keys = usize::try_from(keys.min(plausible)).unwrap_or(0);
        let db = &mut self.live.server.dbs[self.db as usize];
        let total = db.len().saturating_add(keys);
        db.keys.reserve(total);
    }

    fn function(&mut self, source: &[u8]) -> Result<()> {
        let replace = self.options.replace;
        let loaded = self.live.server.load_function(source, replace);
        self.refused = loaded.is_err();
        loaded.or_else(|reason| corrupt(format!("Failed creating the library: {reason}")))
    }

    #[inline]
    fn key(&mut self, name: &[u8], meta: Meta, kind: u8, mut value: New) -> Result<()> {
        if !self.options.aof_base {
            let mut gone = meta.expire_at.is_some_and(|at| at < self.now_ms);
            if let New::Obj(Value::Hash(hash)) = &mut value
                && hash.volatile_len() > 0
            {
                while hash.pop_expired(self.now_ms).is_some() {}
                gone |= hash.is_empty();
            }
            if gone {
                self.counts.expired += 1;
                return Ok(());
            }
        }
        self.add(name, meta, kind, value)?;
        delay(self.live.server.config.key_load_delay);
        if self.live.server.shutdown.now {
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

    fn footer(&mut self, found: u64, computed: u64) -> Result<()> {
        let server = &self.live.server;
        if !server.config.rdbchecksum || server.debug.skip_checksum {
            return Ok(());
        }
        if found == 0 {
            log::info!("RDB file was saved with checksum disabled: no check performed.");
        } else if found != computed {
            log::warn!(
                "Wrong RDB checksum expected: ({found:x}) but got ({computed:x}). Aborting now."
            );
            return corrupt("RDB CRC error");
        }
        Ok(())
    }
}

/// A pause after a key, for tests: `us` microseconds, or if negative one microsecond for one key in
/// `-us`, chosen at random.
pub fn delay(us: i32) {
    if us > 0 {
        sys::sleep(Duration::from_micros(us as u64));
    } else if us < 0 && rand::random_ratio(1, us.unsigned_abs()) {
        sys::sleep(Duration::from_micros(1));
    }
}

/// Reads an RDB from wherever its bytes come. The keyspace then holds what was read, which may be a
/// part.
pub fn load_stream(
    live: &mut Live,
    reader: &mut Reader,
    options: Options,
) -> std::result::Result<Counts, LoadError> {
    use crate::config::RdbVersionCheck;
    let any_version = live.server.config.rdb_version_check == RdbVersionCheck::Relaxed;
    let version = match load::read_version(reader, any_version) {
        Ok(version) => version,
        Err(Refused::Signature) => {
            log::warn!("Wrong signature trying to load DB from file");
            return Err(LoadError::Refused);
        }
        Err(Refused::Version(version)) => {
            log::warn!("Can't handle RDB format version {version}");
            return Err(LoadError::Refused);
        }
        Err(Refused::Unreadable(fault)) => {
            log_damage(&fault, reader.offset());
            return Err(LoadError::Damaged);
        }
    };
    let limits = Limits::of(live.server);
    let mut keyspace = Keyspace::new(live, options);
    let result = load::read(reader, version, limits, &mut keyspace);
    let result = result.and_then(|()| keyspace.settle());
    let (counts, refused) = (keyspace.counts, keyspace.refused);
    if live.server.shutdown.now {
        return Err(LoadError::Stopped);
    }
    if let Err(fault) = result {
        log_damage(&fault, reader.offset());
        return Err(if refused {
            LoadError::Refused
        } else {
            LoadError::Damaged
        });
    }
    report(counts);
    live.server.rdb.last_load = counts;
    Ok(counts)
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
    } = counts;
    let skipped = match empty {
        0 => String::new(),
        n => format!(", empty keys skipped: {n}"),
    };
    log::info!("Done loading RDB, keys loaded: {loaded}, keys expired: {expired}{skipped}.");
}

/// Loads a file. If it is damaged, the checker reads it, and its findings go to the log.
pub fn load_file(
    live: &mut Live,
    path: &Path,
    options: Options,
) -> std::result::Result<Counts, LoadError> {
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
    live.begin(len);
    let mut reader = Reader::new(&mut file, Some(len));
    if !live.server.config.rdbchecksum {
        reader = reader.without_checksum();
    }
    let result = load_stream(live, &mut reader, options);
    live.end();
    if matches!(result, Err(LoadError::Damaged)) {
        check::log_findings(path, live.server);
        log::warn!("Terminating server after rdb file reading failure.");
    }
    result
}

/// At the start: the data set as it was left.
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
    match load_file(&mut live, &path, Options::default()) {
        Ok(_) => {
            log::info!(
                "DB loaded from disk: {:.3} seconds",
                began.elapsed().as_secs_f64()
            );
            // It may have been switched on meanwhile. What is wrong is in the log.
            aof::follow_setting(server).map_err(|_| ExitCode::FAILURE)
        }
        Err(LoadError::NotFound) => Ok(()),
        Err(LoadError::Stopped) => Err(ExitCode::SUCCESS),
        Err(LoadError::Damaged) => Err(ExitCode::FAILURE),
        Err(LoadError::Refused) => {
            log::warn!("Fatal error loading the DB, check server logs. Exiting.");
            Err(ExitCode::FAILURE)
        }
    }
}

/// DEBUG RELOAD. False: there is no file, or none of this format. A damaged one ends the process,
/// as at the start.
pub fn reload(server: &mut Server, options: Options) -> bool {
    let path = server.config.dbfilename.as_path().to_path_buf();
    let mut live = Live { server, el: None };
    match load_file(&mut live, &path, options) {
        Ok(_) => {
            // A failure is in the log; the AOF is off then.
            let _ = aof::follow_setting(server);
            true
        }
        Err(LoadError::NotFound | LoadError::Refused | LoadError::Stopped) => false,
        Err(LoadError::Damaged) => std::process::exit(1),
    }
}
