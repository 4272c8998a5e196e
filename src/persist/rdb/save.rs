//! Writing the data set: to a file that takes the place of the last snapshot, or into any stream of
//! bytes.
//!
//! ```text
//!   temp-<pid>.rdb   header, aux, functions, databases, EOF, checksum
//!        | fsync                       its bytes are on disk
//!        | rename -> dump.rdb          one name, the old snapshot or the new one, never half of one
//!        | fsync of the folder         the name is on disk
//! ```
//!
//! The keyspace is only read: a forked child saves what it shares with its parent.
//!
//! **Invariant:** a failed save leaves the last snapshot as it was, and no temporary file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::encode::Encoder;
use super::{VERSION_FIELD_TTL, VERSION_VALKEY, opcode};
use crate::config::MaxmemoryPolicy;
use crate::db::Db;
use crate::persist::rio::Writer;
use crate::state::Server;
use crate::sys::{self, signals};
use crate::types::KeyRef;

/// With `rdb-save-incremental-fsync` the kernel is asked to write after this number of bytes, lest
/// the fsync at the end find everything still to be done.
const AUTOSYNC_BYTES: u64 = 4 << 20;

/// The purpose for which the data set is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Snapshot,
    /// The base file of an append-only log.
    AofBase,
}

/// The version of a file with this data: the one that is set, or the first that carries fields with
/// a time to live.
fn version(server: &Server) -> u32 {
    let wanted = server.config.rdb_version.number();
    let volatile = server.dbs.iter().any(|db| !db.field_expires.is_empty());
    if volatile && wanted < VERSION_FIELD_TTL {
        VERSION_FIELD_TTL
    } else {
        wanted
    }
}

/// Writes the whole data set. `key_done` is called after each key.
pub fn write_data_set(
    server: &Server,
    sink: &mut dyn Write,
    purpose: Purpose,
    key_done: &mut dyn FnMut(),
) -> io::Result<()> {
    let version = version(server);
    let mut out = Writer::new(sink, server.config.rdbchecksum);
    let mut encoder = Encoder::new(&mut out, version, server.config.rdbcompression);
    let magic = if version >= VERSION_VALKEY {
        format!("VALKEY{version:03}")
    } else {
        format!("REDIS{version:04}")
    };
    encoder.out.put(magic.as_bytes())?;
    write_aux_fields(server, &mut encoder, purpose)?;
    for source in server.function_sources() {
        encoder.out.put_u8(opcode::FUNCTION2)?;
        encoder.string(source)?;
    }
    for db in server.dbs.iter().filter(|db| !db.is_empty()) {
        write_db(server, &mut encoder, db, key_done)?;
    }
    encoder.out.put_u8(opcode::EOF)?;
    let crc = out.checksum()?;
    out.put(&crc.to_le_bytes())?;
    out.flush()
}

fn write_aux_fields(server: &Server, out: &mut Encoder, purpose: Purpose) -> io::Result<()> {
    let mut aux = |name: &str, value: &str| {
        out.out.put_u8(opcode::AUX)?;
        out.string(name.as_bytes())?;
        out.string(value.as_bytes())
    };
    let is_base = purpose == Purpose::AofBase;
    aux("redis-ver", crate::REDIS_VERSION)?;
    aux("redis-bits", &usize::BITS.to_string())?;
    aux("ctime", &server.clock.now_s().to_string())?;
    aux("used-mem", &server.used_memory().to_string())?;
    aux("aof-base", &u8::from(is_base).to_string())
}

fn write_db(
    server: &Server,
    out: &mut Encoder,
    db: &Db,
    key_done: &mut dyn FnMut(),
) -> io::Result<()> {
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
                key_done();
                ControlFlow::Continue(())
            }
            Err(e) => ControlFlow::Break(e),
        });
    walk.break_value().map_or(Ok(()), Err)
}

/// What is written of a key's use, as the eviction policy needs it.
enum Use<'a> {
    Nothing,
    Idle(&'a Server),
    Frequency(&'a Server),
}

impl<'a> Use<'a> {
    fn of(server: &'a Server) -> Use<'a> {
        use MaxmemoryPolicy::{AllkeysLru, VolatileLru};
        match server.evict.policy {
            AllkeysLru | VolatileLru => Use::Idle(server),
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

/// A file that the kernel is asked to write while it grows.
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

/// The name of the file that a process writes while it saves.
pub fn temp_file(pid: u32) -> PathBuf {
    PathBuf::from(format!("temp-{pid}.rdb"))
}

/// A child did not finish: what it wrote goes.
pub fn remove_temp_file(pid: u32) {
    // It may not have come as far as creating it.
    let _ = std::fs::remove_file(temp_file(pid));
}

/// Saves to `dbfilename`. The log has the error, if there is one.
pub fn save_file(server: &Server, key_done: &mut dyn FnMut()) -> io::Result<()> {
    let temp = temp_file(std::process::id());
    let target = server.config.dbfilename.as_path().to_path_buf();
    signals::set_temp_file(Some(&temp));
    let saved = save_as(server, &temp, &target, key_done);
    signals::set_temp_file(None);
    saved
}

fn save_as(
    server: &Server,
    temp: &Path,
    target: &Path,
    key_done: &mut dyn FnMut(),
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
    let written = write_file(server, &file, key_done).inspect_err(|e| {
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

fn write_file(server: &Server, file: &File, key_done: &mut dyn FnMut()) -> io::Result<()> {
    let mut sink = Syncing {
        file,
        written: 0,
        synced: 0,
        incremental: server.config.rdb_save_incremental_fsync,
    };
    write_data_set(server, &mut sink, Purpose::Snapshot, key_done)?;
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
