//! Writes the data set to a file that replaces the last snapshot, or to any stream of bytes.
//!
//! ```text
//!   temp-<pid>.rdb   header, aux, functions, databases, EOF, checksum
//!        | fsync                       its bytes are on disk
//!        | rename -> dump.rdb          one name, the old snapshot or the new one, never half of one
//!        | fsync of the folder         the name is on disk
//! ```
//!
//! The save only reads the keyspace, since a write in a forked child would copy a page that it
//! shares with the parent.
//!
//! **Invariant:** a failed save leaves the last snapshot unchanged, and no temporary file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::encode::Encoder;
use super::{Position, VERSION_FIELD_TTL, VERSION_VALKEY, opcode};
use crate::cluster::moves::OPEN_SLOTS_FIELD;
use crate::db::Db;
use crate::persist::child::Meter;
use crate::persist::rio::Writer;
use crate::state::Server;
use crate::sys::{self, signals};
use crate::texts::Words;
use crate::types::KeyRef;

/// With `rdb-save-incremental-fsync`, the number of bytes after which the kernel is asked to write
/// them to the disk, so that the fsync at the end is short.
const AUTOSYNC_BYTES: u64 = 4 << 20;

/// The options of a save of the data set in the format RDB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaveOptions {
    /// The RDB version, 10 to 80. Fields with a time to live raise the version to 12: see the
    /// header of `persist::rdb`.
    pub version: u32,
    pub contents: Contents,
    /// Whether a CRC is written at the end of the file, instead of zeros.
    pub checksum: bool,
    pub compress: bool,
    /// Whether the file is written as the base of an AOF.
    pub aof_base: bool,
    /// The position of the data set in a replication history, which the file states; `None` if the
    /// data set has no position.
    pub position: Option<Position>,
}

/// Which parts of a data set are written: keys, functions, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contents {
    pub keys: bool,
    pub functions: bool,
}

impl Contents {
    /// All parts of the data set are written.
    pub const ALL: Contents = Contents {
        keys: true,
        functions: true,
    };
}

impl SaveOptions {
    /// The options for a save of the whole data set with the server's settings.
    pub fn of(server: &Server) -> SaveOptions {
        SaveOptions {
            version: server.config.rdb_version.number(),
            contents: Contents::ALL,
            checksum: server.config.rdbchecksum,
            compress: server.config.rdbcompression,
            aof_base: false,
            position: Position::of(server),
        }
    }

    /// The RDB version in which the data set is written: `version`, or the first version with times
    /// to live of fields, if a field has one.
    fn version_for(&self, server: &Server) -> u32 {
        let volatile = server
            .data
            .dbs
            .iter()
            .any(|db| !db.field_expires.is_empty());
        if self.contents.keys && volatile {
            self.version.max(VERSION_FIELD_TTL)
        } else {
            self.version
        }
    }
}

/// Writes the data set, or the parts that `options` selects, in the format RDB to `sink`.
pub fn write_data_set(
    server: &Server,
    sink: &mut dyn Write,
    options: &SaveOptions,
    meter: Meter,
) -> io::Result<()> {
    write_pieces(server, sink, options, meter, None)
}

fn write_pieces(
    server: &Server,
    sink: &mut dyn Write,
    options: &SaveOptions,
    meter: Meter,
    bytes: Option<usize>,
) -> io::Result<()> {
    let version = options.version_for(server);
    let mut sink = Metered { to: sink, meter };
    let mut out = Writer::new(&mut sink, options.checksum);
    if let Some(bytes) = bytes {
        out = out.pieces_of(bytes);
    }
    let mut encoder = Encoder::new(&mut out, version, options.compress);
    let magic = if version >= VERSION_VALKEY {
        format!("VALKEY{version:03}")
    } else {
        format!("REDIS{version:04}")
    };
    encoder.out.put(magic.as_bytes())?;
    write_aux_fields(server, &mut encoder, options)?;
    if options.contents.keys {
        write_slot_imports(server, &mut encoder, version)?;
    }
    if options.contents.functions {
        for source in server.function_sources() {
            encoder.out.put_u8(opcode::FUNCTION2)?;
            encoder.string(source)?;
        }
    }
    if options.contents.keys {
        for db in server.data.dbs.iter().filter(|db| !db.is_empty()) {
            write_db(server, &mut encoder, db, meter)?;
        }
    }
    encoder.out.put_u8(opcode::EOF)?;
    let crc = out.checksum()?;
    out.put(&crc.to_le_bytes())?;
    out.flush()
}

/// The random bytes that end a stream whose length is not known at its beginning.
pub type EofMark = [u8; 40];

/// The number of bytes after which the snapshot for a replica is passed on; with
/// `rdb-key-save-delay`, fewer. A replica that gets no bytes for `repl-timeout` gives up, so a slow
/// child must not collect many bytes. The larger of these sizes, 64 KB, is a quarter of a pipe's
/// capacity.
const STREAM_PIECE: usize = 64 * 1024;
const SLOW_STREAM_PIECE: usize = 16 * 1024;

/// Writes the data set in the form for replicas of a diskless sync: `$EOF:<mark>`, the RDB, the
/// mark.
pub fn write_stream(
    server: &Server,
    sink: &mut dyn Write,
    mark: &EofMark,
    options: &SaveOptions,
    meter: Meter,
) -> io::Result<()> {
    sink.write_all(&[b"$EOF:" as &[u8], mark, b"\r\n"].concat())?;
    let piece = match meter.pause_us {
        0 => STREAM_PIECE,
        _ => SLOW_STREAM_PIECE,
    };
    write_pieces(server, sink, options, meter, Some(piece))?;
    sink.write_all(mark)
}

/// A writer that counts its bytes as progress of the save.
struct Metered<'a, 'p> {
    to: &'a mut dyn Write,
    meter: Meter<'p>,
}

impl Write for Metered<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.meter.bytes_done(n);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn write_aux_fields(server: &Server, out: &mut Encoder, options: &SaveOptions) -> io::Result<()> {
    let mut aux = |name: &[u8], value: &str| {
        out.out.put_u8(opcode::AUX)?;
        out.string(name)?;
        out.string(value.as_bytes())
    };
    match server.config.words() {
        Words::Redis => aux(b"redis-ver", crate::REDIS_VERSION)?,
        Words::Valkey => aux(b"valkey-ver", crate::VALKEY_VERSION)?,
    }
    aux(b"redis-bits", &usize::BITS.to_string())?;
    aux(b"ctime", &server.clock.now_s().to_string())?;
    aux(b"used-mem", &server.used_memory().to_string())?;
    if let Some(position) = &options.position {
        aux(b"repl-stream-db", &position.db.to_string())?;
        aux(b"repl-id", &position.id)?;
        aux(b"repl-offset", &position.offset.to_string())?;
    }
    aux(b"aof-base", &u8::from(options.aof_base).to_string())?;
    let member = server.cluster.as_ref();
    match member.and_then(|member| member.machine.open_slots_field()) {
        Some(slots) => aux(OPEN_SLOTS_FIELD, &slots),
        None => Ok(()),
    }
}

/// Writes the slots that this node imports, whose keys still belong to another node. RDB versions
/// before Valkey 9 have no form for such slots, so the slots are written as an AUX field that other
/// servers ignore.
fn write_slot_imports(server: &Server, out: &mut Encoder, version: u32) -> io::Result<()> {
    let Some(member) = &server.cluster else {
        return Ok(());
    };
    for job in member.transfers.imports() {
        let name = job.name.to_string();
        if version < VERSION_VALKEY {
            out.out.put_u8(opcode::AUX)?;
            out.string(SLOT_IMPORT_FIELD)?;
            out.string(format!("{name} {}", job.ranges).as_bytes())?;
            continue;
        }
        out.out.put_u8(opcode::SLOT_IMPORT)?;
        out.string(name.as_bytes())?;
        out.len(job.ranges.iter().len() as u64)?;
        for (first, last) in job.ranges.iter() {
            out.len(first.into())?;
            out.len(last.into())?;
        }
    }
    Ok(())
}

/// The name of the AUX field that describes a move of slots to this server. The value of the AUX
/// field `slot-import` is the name of the move and its ranges, as `0-5 7-7`.
pub const SLOT_IMPORT_FIELD: &[u8] = b"slot-import";

fn write_db(server: &Server, out: &mut Encoder, db: &Db, meter: Meter) -> io::Result<()> {
    out.out.put_u8(opcode::SELECTDB)?;
    out.len(db.index.into())?;
    out.out.put_u8(opcode::RESIZEDB)?;
    out.len(db.len() as u64)?;
    out.len(db.expires.len() as u64)?;
    let use_of = Use::of(server);
    let walk = db
        .keys
        .try_walk(|entry| match write_key(out, entry, &use_of) {
            Ok(()) => {
                meter.key_done();
                ControlFlow::Continue(())
            }
            Err(e) => ControlFlow::Break(e),
        });
    walk.break_value().map_or(Ok(()), Err)
}

/// What is saved about the last use of keys, which depends on the eviction policy: nothing, idle
/// times or LFU counters.
enum Use<'a> {
    Nothing,
    Idle(&'a Server),
    Frequency(&'a Server),
}

impl<'a> Use<'a> {
    fn of(server: &'a Server) -> Use<'a> {
        match server.evict.policy {
            policy if policy.uses_idle_time() => Use::Idle(server),
            policy if policy.is_lfu() => Use::Frequency(server),
            _ => Use::Nothing,
        }
    }
}

#[inline]
fn write_key(out: &mut Encoder, entry: KeyRef, use_of: &Use) -> io::Result<()> {
    if let Some(at) = entry.expire_at() {
        out.out.put_u8(opcode::EXPIRETIME_MS)?;
        out.millis(at)?;
    }
    match use_of {
        Use::Nothing => {}
        Use::Idle(server) => {
            let seconds = server.evict.idle_seconds(entry.lru(), server.clock.now_ms);
            out.out.put_u8(opcode::IDLE)?;
            out.len(seconds.into())?;
        }
        Use::Frequency(server) => {
            let counter = server.evict.frequency(entry.lru(), server.clock.now_ms);
            out.out.put(&[opcode::FREQ, counter as u8])?;
        }
    }
    let kind = out.kind_of(entry);
    out.out.put_u8(kind)?;
    out.string(entry.key())?;
    out.value(entry)
}

/// A file that the kernel begins to write to the disk while it still grows.
struct Syncing<'a> {
    file: &'a File,
    written: u64,
    synced: u64,
    incremental: bool,
}

impl Write for Syncing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        if self.incremental && self.written - self.synced >= AUTOSYNC_BYTES {
            sys::start_writeback(self.file, self.synced, self.written - self.synced);
            self.synced = self.written;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The path of the file that the process `pid` writes during a save.
fn temp_file(pid: u32) -> PathBuf {
    PathBuf::from(format!("temp-{pid}.rdb"))
}

/// Removes the temporary file of a child that did not finish its save.
pub fn remove_temp_file(pid: u32) {
    // An error is ignored, as the child may not have created the file.
    let _ = std::fs::remove_file(temp_file(pid));
}

/// Saves the data set to the file `dbfilename`. An error is logged and returned.
pub fn save_file(server: &Server, options: &SaveOptions, meter: Meter) -> io::Result<()> {
    let temp = temp_file(std::process::id());
    let target = server.config.dbfilename.as_path().to_path_buf();
    signals::set_temp_file(Some(&temp));
    let saved = save_as(server, &temp, &target, options, meter);
    signals::set_temp_file(None);
    saved
}

fn save_as(
    server: &Server,
    temp: &Path,
    target: &Path,
    options: &SaveOptions,
    meter: Meter,
) -> io::Result<()> {
    let dir = std::env::current_dir().unwrap_or_default();
    let file = File::create(temp).inspect_err(|e| {
        log::warn!(
            "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
            temp.display(),
            dir.display(),
            sys::error_text(e)
        );
    })?;
    let written = write_file(server, &file, options, meter).inspect_err(|e| {
        log::warn!(
            "Write error while saving DB to the disk: {}",
            sys::error_text(e)
        );
    });
    let named = written.and_then(|()| {
        std::fs::rename(temp, target).inspect_err(|e| {
            log::warn!(
                "Error moving temp DB file {} on the final destination {} (in server root dir {}): {}",
                temp.display(),
                target.display(),
                dir.display(),
                sys::error_text(e)
            );
        })
    });
    if named.is_err() {
        let _ = std::fs::remove_file(temp);
        return named;
    }
    sync_folder(&dir)?;
    log::info!("DB saved on disk");
    Ok(())
}

fn write_file(server: &Server, file: &File, options: &SaveOptions, meter: Meter) -> io::Result<()> {
    let mut sink = Syncing {
        file,
        written: 0,
        synced: 0,
        incremental: server.config.rdb_save_incremental_fsync,
    };
    write_data_set(server, &mut sink, options, meter)?;
    file.sync_all()
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .inspect_err(|e| {
            log::warn!(
                "Failed to fsync directory while saving DB: {}",
                sys::error_text(e)
            );
        })
}
