//! Loads the AOF: the base, then the incremental files. Each command runs through `call()` like a
//! client's command.
//!
//! ```text
//!   manifest ─> base   RDB ─> loading::load_stream (bulk)        commands ─> call()
//!               incr 1, incr 2, ...                                      commands ─> call()
//! ```
//!
//! The client that runs the commands has no socket and gets no replies. Between MULTI and EXEC
//! commands are queued, so a transaction whose EXEC never reached the disk changes nothing.
//!
//! After a crash of the process or the machine, the last file may end within a command, or in
//! zeros. The incomplete tail is then cut off behind the last whole command (`aof-load-truncated`),
//! so that new commands can follow, and the tail is kept in a separate file. If the last file is
//! empty, because a rewrite had just begun, the file before it may also have an incomplete tail,
//! and is cut off too. A torn tail in any other file, and wrong bytes anywhere, end the start: an
//! operator must inspect the file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use ae::EventLoop;

use super::manifest::{self, Manifest, ParseError, Part};
use super::reader::{AofReader, Fault, Item};
use super::{dir, file_name, os_name};
use crate::client::resp::Sent;
use crate::client::{Client, flag};
use crate::command;
use crate::error::said;
use crate::execute::call::call;
use crate::execute::dispatch::find_command;
use crate::execute::transaction;
use crate::keyspace::top_level::TopLevel;
use crate::persist::loading::{self, Live, LoadError, Place};
use crate::persist::rdb::Position;
use crate::persist::rio::Reader;
use crate::state::Server;
use crate::sys::error_text;
use crate::texts;

type Result<T> = std::result::Result<T, LoadError>;

/// The result of the search for an AOF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// The server has no AOF yet: the manifest is missing or names no file.
    Nothing,
    /// The AOF exists; the value is the position of its end in the replication history.
    Aof(Option<Position>),
}

/// Reads the manifest, adopts an AOF of Redis 6 if there is one, and loads all files of the AOF.
pub fn load(live: &mut Live) -> Result<Found> {
    live.server.aof.manifest = read_manifest(live.server)?;
    adopt_old_aof(live.server).map_err(|e| {
        log::warn!("Can't take over the old AOF file: {}", error_text(&e));
        LoadError::Refused
    })?;
    let manifest = live.server.aof.manifest.clone();
    if manifest.is_empty() {
        return Ok(Found::Nothing);
    }
    let dir = dir(live.server);
    let mut total = 0;
    let mut files = Vec::new();
    for part in manifest.loaded() {
        let path = part.path(&dir);
        let len = std::fs::metadata(&path)
            .inspect_err(|e| {
                log::warn!(
                    "Unable to obtain the AOF file {} length. stat: {}",
                    String::from_utf8_lossy(&part.name),
                    error_text(e)
                );
            })
            .map_err(|_| LoadError::Refused)?
            .len();
        files.push((part, path, total, len));
        total += len;
    }
    live.begin(total);
    // The loaded commands are in the AOF already, and must not be propagated to replicas.
    let sinks = live.server.propagation.suspend();
    live.server.update_armed();
    let result = load_files(live, &manifest, &files);
    live.server.propagation.resume(sinks);
    live.server.update_armed();
    live.end();
    let position = result?;
    let (dir_len, base) = sizes(&manifest, &dir);
    live.server.aof.current_size = dir_len;
    live.server.aof.base_size = base;
    Ok(Found::Aof(position))
}

fn load_files(
    live: &mut Live,
    manifest: &Manifest,
    files: &[(&Part, PathBuf, u64, u64)],
) -> Result<Option<Position>> {
    let mut position = None;
    for (at, (part, path, before, _)) in files.iter().enumerate() {
        let began = Instant::now();
        let last = files[at + 1..].iter().all(|(.., len)| *len == 0);
        load_file(live, path, *before, last, &mut position)?;
        let is_base = manifest.base.as_ref() == Some(*part);
        log::info!(
            "DB loaded from {} file {}: {:.3} seconds",
            if is_base { "base" } else { "incr" },
            String::from_utf8_lossy(&part.name),
            began.elapsed().as_secs_f64()
        );
    }
    Ok(position)
}

/// The size of all files of the AOF, and of the base alone. The size of the base is used as the
/// size after the last rewrite, which only the process that rewrote the AOF knows.
fn sizes(manifest: &Manifest, dir: &Path) -> (u64, u64) {
    let len = |part: &Part| std::fs::metadata(part.path(dir)).map_or(0, |meta| meta.len());
    let total = manifest.loaded().map(len).sum();
    (total, manifest.base.as_ref().map_or(0, len))
}

/// Reads the manifest of the AOF. If the manifest's file does not exist, the manifest is empty.
fn read_manifest(server: &Server) -> Result<Manifest> {
    let path = manifest::path(&dir(server), &file_name(server));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Manifest::default()),
        Err(e) => {
            log::warn!(
                "Fatal error: can't open the AOF manifest file {} for reading: {}",
                path.display(),
                error_text(&e)
            );
            return Err(LoadError::Refused);
        }
    };
    Manifest::parse(&bytes).map_err(|e| {
        log_manifest_error(&e);
        LoadError::Refused
    })
}

fn log_manifest_error(e: &ParseError) {
    log::warn!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n");
    if e.line_number > 0 {
        log::warn!("Reading the manifest file, at line {}\n", e.line_number);
        log::warn!(">>> '{}'\n", String::from_utf8_lossy(&e.line));
    }
    log::warn!("{}\n", e.text);
}

/// Adopts an AOF of Redis 6, which is one file in the data directory. The file becomes the base,
/// unless there is an AOF of several files already.
fn adopt_old_aof(server: &mut Server) -> io::Result<()> {
    let name = file_name(server);
    let old = PathBuf::from(os_name(&name));
    let (dir, manifest) = (dir(server), &server.aof.manifest);
    // An earlier adoption of an AOF of Redis 6 was interrupted: the manifest exists, but the old
    // file was not moved yet.
    let interrupted = manifest.incr.is_empty()
        && manifest.base.as_ref().is_some_and(|base| base.name == name)
        && !dir.join(os_name(&name)).exists();
    if !old.is_file() || !(manifest.is_empty() || interrupted) {
        return Ok(());
    }
    match std::fs::create_dir(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let new = dir.join(os_name(&name));
    if new.exists() {
        log::warn!(
            "The AOF {} can't be moved into the directory {}, where a file of this name is.",
            old.display(),
            dir.display()
        );
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let manifest = &mut server.aof.manifest;
    if manifest.base.is_none() {
        manifest.base_seq = 1;
        manifest.base = Some(Part {
            name: name.clone(),
            seq: 1,
        });
        manifest.store(&dir, &name)?;
    }
    std::fs::rename(&old, new)?;
    manifest::sync_dir(&dir)?;
    log::info!(
        "Successfully migrated an old-style AOF configuration ({}) into the AOF directory ({}).",
        String::from_utf8_lossy(&name),
        dir.display()
    );
    Ok(())
}

/// Whether the file at `path` begins like an RDB; false if the file can't be read.
pub fn begins_with_rdb(path: &Path) -> bool {
    File::open(path).is_ok_and(|mut file| is_rdb(&mut file).unwrap_or(false))
}

/// Whether an open file begins like an RDB. The position of the file is its beginning afterwards.
pub fn is_rdb(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    (&mut *file).take(6).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(magic.starts_with(b"REDIS") || magic.starts_with(b"VALKEY"))
}

/// Loads one file of the AOF; `before` bytes were loaded from earlier files. `position` is the data
/// set's position in the replication history, before and after the load.
fn load_file(
    live: &mut Live,
    path: &Path,
    before: u64,
    last: bool,
    position: &mut Option<Position>,
) -> Result<()> {
    let mut file = open(path)?;
    let unreadable = |e: io::Error| {
        log_read_error(path, &e);
        LoadError::Refused
    };
    let len = file.metadata().map_err(unreadable)?.len();
    let mut offset = 0;
    if is_rdb(&mut file).map_err(unreadable)? {
        (offset, *position) = load_preamble(live, &mut file, len, path)?;
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        if offset < len {
            log::info!("Reading the remaining AOF tail...");
        }
    }
    let mut replay = Replay {
        reader: AofReader::new(file, offset, len),
        client: loader(live.server),
        good: offset,
        next_progress: 0,
        before,
        position: position.take(),
    };
    match replay.run(live, path)? {
        Ok(()) => {
            *position = replay.position;
            Ok(())
        }
        Err(fault) => {
            let good = replay.good;
            transaction::discard_transaction(live.server, &mut replay.client);
            refuse_or_cut(live.server, path, fault, good, last)
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| {
        log::warn!(
            "Fatal error: can't open the append log file {} for reading: {}",
            path.display(),
            error_text(&e)
        );
        LoadError::Refused
    })
}

/// Loads the RDB with which an AOF file begins. Returns the end of the RDB in the file, and its
/// position in the replication history.
fn load_preamble(
    live: &mut Live,
    file: &mut File,
    len: u64,
    path: &Path,
) -> Result<(u64, Option<Position>)> {
    log::info!("Reading RDB base file on AOF loading...");
    let mut reader = Reader::new(file, Some(len));
    if !live.server.config.rdbchecksum {
        reader = reader.without_checksum();
    }
    let options = loading::LoadOptions {
        keep_expired: true,
        ..Default::default()
    };
    let loaded = loading::load_stream(live, &mut reader, Place::Server, options);
    let offset = reader.offset();
    let loaded = loaded.inspect_err(|_| {
        log::warn!(
            "Error reading the RDB preamble of the AOF file {}, AOF loading aborted",
            path.display()
        );
    })?;
    Ok((offset, loaded.position))
}

/// Creates the client that runs the commands of an AOF: it has no socket, is allowed everything and
/// gets no replies.
pub(super) fn loader(server: &mut Server) -> Client {
    let mut client = Client::detached(0, server.clock.now_ms);
    client.set(flag::AOF_LOADER | flag::DENY_BLOCKING | flag::REPLY_OFF);
    client
}

struct Replay {
    reader: AofReader<File>,
    client: Client,
    /// The position in the file of the end of the last whole command or transaction.
    good: u64,
    next_progress: u64,
    before: u64,
    /// The position of the data set in the replication history; `None` after a command that no
    /// `#REPL:` line follows.
    position: Option<Position>,
}

impl Replay {
    /// Runs all commands of a file of the AOF. The inner error is a fault in the file's bytes; the
    /// outer error ends the load for another reason.
    fn run(&mut self, live: &mut Live, path: &Path) -> Result<std::result::Result<(), Fault>> {
        loop {
            match self.reader.next_item() {
                Ok(Item::End) if self.client.has(flag::MULTI) => {
                    log::warn!(
                        "Revert incomplete MULTI/EXEC transaction in AOF file {}",
                        path.display()
                    );
                    return Ok(Err(Fault::Truncated));
                }
                Ok(Item::End) => return Ok(Ok(())),
                Ok(Item::Command) => {
                    self.position = None;
                    self.command(live, path)?;
                }
                Ok(Item::Position(position)) => self.position = Some(position),
                Ok(Item::Stamp(_) | Item::Comment) => {}
                Err(fault) => return Ok(Err(fault)),
            }
            if !self.client.has(flag::MULTI) {
                self.good = self.reader.offset();
            }
            if self.reader.offset() >= self.next_progress {
                self.next_progress =
                    live.progress(self.before + self.reader.offset()) - self.before;
                if live.server.shutdown.now {
                    return Err(LoadError::Stopped);
                }
            }
        }
    }

    fn command(&mut self, live: &mut Live, path: &Path) -> Result<()> {
        let argv = self.reader.argv();
        let id = find_command(live.server, &argv).map_err(|e| {
            let arguments = [
                ("command", &*said(argv[0])),
                ("file", &*short_name(path)),
                ("error", e.text()),
            ];
            let words = live.server.config.words();
            log::warn!("{}", texts::LOG_AOF_UNKNOWN_COMMAND.fill(words, &arguments));
            LoadError::Refused
        })?;
        run(live.server, &mut self.client, &argv, id);
        if std::mem::take(&mut live.server.aof.lost_key) {
            log::warn!("Terminating server after rdb file reading failure.");
            return Err(LoadError::Refused);
        }
        Ok(())
    }
}

/// Runs a command of the AOF, or queues it for EXEC if a transaction is open. MULTI and WATCH
/// within a transaction are errors, which change nothing.
pub(super) fn run(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16) {
    c.shown_cmd = Some(id);
    let cmd = server.commands.row(id);
    if c.has(flag::MULTI) && !cmd.is(command::RUNS_IN_MULTI) {
        transaction::queue(server, c, id, cmd.flags, argv);
    } else {
        call(server, c, argv, id, Sent::default());
    }
}

fn log_read_error(path: &Path, e: &io::Error) {
    log::warn!(
        "Unrecoverable error reading the append only file {}: {}",
        path.display(),
        error_text(e)
    );
}

/// The name of a file without its directory, as the server's log shows it.
fn short_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Cuts the file off at `good`, the end of its last whole command, or refuses the file, and logs
/// what was done.
fn refuse_or_cut(server: &Server, path: &Path, fault: Fault, good: u64, last: bool) -> Result<()> {
    let name = short_name(path);
    match fault {
        Fault::Io(e) => log_read_error(path, &e),
        Fault::Format { .. } => log::warn!(
            "Bad file format reading the append only file {name}: make a backup of your AOF file, then use \
             ./redis-check-aof --fix <filename.manifest>"
        ),
        Fault::Truncated if !last => {
            log::warn!("!!! Warning: short read while loading the AOF file {name}!!!");
            log::warn!("Fatal error: the truncated file is not the last file");
        }
        Fault::Truncated if server.config.aof_load_truncated => {
            log::warn!("!!! Warning: short read while loading the AOF file {name}!!!");
            log::warn!("Truncating the AOF {name} at offset {good}");
            match cut(path, good) {
                Ok(()) => {
                    log::warn!("AOF {name} loaded anyway because aof-load-truncated is enabled");
                    return Ok(());
                }
                Err(e) => log::warn!("Error truncating the AOF file {name}: {}", error_text(&e)),
            }
        }
        Fault::Truncated => log::warn!(
            "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF file, \
             then use ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the \
             'aof-load-truncated' configuration option to yes and restart the server."
        ),
    }
    Err(LoadError::Refused)
}

/// Cuts a file off at `at`, and keeps the tail in a separate file.
pub fn cut(path: &Path, at: u64) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let (beside, mut kept) = create_beside(path, at)?;
    file.seek(SeekFrom::Start(at))?;
    let bytes = io::copy(&mut file, &mut kept)?;
    kept.sync_all()?;
    file.set_len(at)?;
    file.sync_all()?;
    log::warn!(
        "The {bytes} bytes that were cut off are kept in {}",
        beside.display()
    );
    Ok(())
}

/// Creates the file for a tail that is cut off an AOF file. If a file has an earlier tail that was
/// cut off at the same position, it is kept, and the new file gets another name.
fn create_beside(path: &Path, at: u64) -> io::Result<(PathBuf, File)> {
    let mut copy = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".cut-at-{at}"));
        if copy > 1 {
            name.push(format!(".{copy}"));
        }
        match File::create_new(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => copy += 1,
            result => return result.map(|file| (name.into(), file)),
        }
    }
}

/// Called when the server starts with `appendonly yes`: loads the AOF, and opens it for new
/// commands.
pub fn start(el: &mut EventLoop<Server>, server: &mut Server) -> std::result::Result<(), ExitCode> {
    let began = Instant::now();
    let mut live = Live {
        server,
        el: Some(el),
    };
    match load(&mut live) {
        Ok(Found::Nothing) => {}
        Ok(Found::Aof(position)) => {
            log::info!(
                "DB loaded from append only file: {:.3} seconds",
                began.elapsed().as_secs_f64()
            );
            if let Some(position) = position {
                position.resume(server);
            }
        }
        Err(LoadError::Stopped) => return Err(ExitCode::SUCCESS),
        Err(_) => {
            log::warn!("Fatal error loading the DB, check server logs. Exiting.");
            return Err(ExitCode::FAILURE);
        }
    }
    super::open_on_start(server).map_err(|e| {
        log::warn!("Can't open the append-only file: {}", error_text(&e));
        ExitCode::FAILURE
    })
}

/// DEBUG LOADAOF: drops the data set and loads the AOF again.
pub fn reload(server: &mut Server, top: &TopLevel) -> Result<()> {
    super::rewrite::flush_before_reading(server);
    server.flush(top, None, None, false);
    server.flush_libraries(top);
    let result = load(&mut Live { server, el: None });
    server.dirty = 0;
    // If the AOF can't be opened for new commands, that is logged and the AOF is switched off.
    let _ = super::follow_setting(server);
    result.map(|_| ())
}
