//! Reads a whole RDB file, and passes its parts (AUX fields, functions, keys) in order to a sink.
//!
//! ```text
//!   read() walks the file -> Sink::aux, select_db, resize_db, function, key ...
//!                              |
//!                              +-- Keyspace    builds the data set (`persist::loading`)
//!                              +-- Checker     counts and reports (`rdb::check`)
//! ```
//!
//! The loader and the checker read a file by the same function, so that they accept the same files.

use std::collections::HashMap;

use super::compressed;
use super::decode::{Decoder, Fault, Result, Text, corrupt, module_name, string_value};
use super::foreign::COMPACT_HASH;
use super::payload::entry_kind_of;
use super::{Limits, READ_REDIS_MAX, VERSION_VALKEY, is_known_version, kind, opcode};
use crate::db::slot::SLOTS;
use crate::persist::rio::Reader;
use crate::types::New;

/// The attributes of a key in an RDB file, besides its value.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The expiry time in Unix milliseconds.
    pub expire_at: Option<i64>,
    /// The number of seconds since the last use of the key, if the file has it.
    pub idle_seconds: Option<u64>,
    /// The LFU counter of the key, if the file has it.
    pub frequency: Option<u8>,
}

/// The step of reading a file, which the checker names when it finds damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Start,
    Type,
    Expire,
    Key,
    Value,
    Length,
    Aux,
    ModuleAux,
    Function,
    Checksum,
}

impl Step {
    /// The name of the step in the output of redis-check-rdb.
    pub fn name(self) -> &'static str {
        match self {
            Step::Start => "start",
            Step::Type => "read-type",
            Step::Expire => "read-expire",
            Step::Key => "read-key",
            Step::Value => "read-object-value",
            Step::Length => "read-len",
            Step::Aux => "read-aux",
            Step::ModuleAux => "read-module-aux",
            Step::Function => "read-function",
            Step::Checksum => "check-sum",
        }
    }
}

/// The maximum number of keys for which the table of keys is sized if the length of the source is
/// not known, so that the announced number can't be checked. A hash table for 2^24 keys has 256 MB,
/// whose pages take no memory before keys are added.
const UNCHECKED_KEYS_MAX: u64 = 1 << 24;

/// Receives the parts of an RDB file while it is read. A fault that a method returns ends the
/// reading.
pub trait Sink {
    /// Called when a step of the reading begins; `offset` is the position of the next byte in the
    /// file.
    #[inline]
    fn step(&mut self, _: Step, _offset: u64) {}
    /// The offset in the file at which [`Sink::tick`] is called first.
    fn first_tick(&self) -> u64 {
        u64::MAX
    }
    /// Called from time to time, when the file was read up to `offset`. Returns the offset at which
    /// the next call is due.
    fn tick(&mut self, offset: u64) -> u64;
    fn aux(&mut self, name: &[u8], value: &[u8]);
    fn select_db(&mut self, db: u64) -> Result<()>;
    /// Called before the keys of a database: `keys` keys follow, `expires` of them with a time to
    /// live. `plausible` is the maximum number of keys for which memory may be reserved: the number
    /// that the rest of the source can hold, if its length is known.
    fn resize_db(&mut self, keys: u64, expires: u64, plausible: u64);
    fn function(&mut self, source: &[u8]) -> Result<()>;
    /// Called when the AUX fields and the functions have been read. `any` is whether at least one
    /// key follows.
    fn keys_begin(&mut self, _any: bool) -> Result<()> {
        Ok(())
    }
    /// Called when a key's name was read; its value follows.
    #[inline]
    fn key_begins(&mut self, _name: &[u8], _: Meta, _kind: u8) {}
    fn key(&mut self, name: &[u8], meta: Meta, kind: u8, value: New) -> Result<()>;
    /// Called for a move of slots to the server that wrote the file, whose keys still belong to
    /// another node.
    fn slot_import(&mut self, _name: &[u8], _ranges: &[(u64, u64)]) {}
    /// Called for a key whose value is a collection without elements, which is not loaded.
    fn empty_key(&mut self, name: &[u8]);
    /// Called for data of a module that belong to no key. Returns false if the module's data must
    /// not be skipped, which ends the load.
    fn skip_module(&mut self, _name: &str) -> bool {
        false
    }
    /// Called for a key whose value is of a type that this server does not have. Returns false if
    /// the key must not be skipped.
    fn skip_foreign(&mut self, _name: &[u8], _what: &str) -> bool {
        false
    }
    fn footer(&mut self, found: u64, computed: u64) -> Result<()>;
    /// Called when the reading has ended, with or without an error. `blocks` is the number of
    /// packed blocks (listpacks, intsets) that were checked.
    fn blocks_checked(&mut self, _blocks: u64) {}
}

/// The reasons why an RDB file is refused after its first bytes.
#[derive(Debug)]
pub enum Refused {
    Signature,
    Version(u32),
    /// The file is compressed in a form that can't be read; the text is the reason.
    Compressed(String),
    /// The first bytes of the file can't be read.
    Unreadable(Fault),
}

/// Reads the version of an RDB file from its first nine bytes; in a compressed file, from the first
/// nine decompressed bytes.
pub fn read_version(reader: &mut Reader, any_version: bool) -> std::result::Result<u32, Refused> {
    let unreadable = |e| Refused::Unreadable(Fault::Read(e));
    let mut magic = [0; 9];
    let first: [u8; 3] = reader.get().map_err(unreadable)?;
    if first == compressed::MAGIC {
        let header = reader.get().map_err(unreadable)?;
        compressed::check(header).map_err(Refused::Compressed)?;
        reader.begin_frame();
        magic = reader.get().map_err(unreadable)?;
    } else {
        let rest: [u8; 6] = reader.get().map_err(unreadable)?;
        magic[..3].copy_from_slice(&first);
        magic[3..].copy_from_slice(&rest);
    }
    let digits = magic
        .strip_prefix(b"REDIS")
        .or_else(|| magic.strip_prefix(b"VALKEY"))
        .ok_or(Refused::Signature)?;
    let version = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    let is_allowed = any_version && version > READ_REDIS_MAX;
    if is_known_version(version) || is_allowed {
        return Ok(version);
    }
    Err(Refused::Version(version))
}

/// Reads everything behind the version of an RDB file, including the checksum, and passes it to
/// `sink`. Stops at the first fault.
pub fn read<S: Sink>(
    reader: &mut Reader,
    version: u32,
    limits: Limits,
    sink: &mut S,
) -> Result<()> {
    let next_tick = sink.first_tick();
    let decoder = Decoder {
        reader,
        limits,
        version,
        next_tick,
        blocks: 0,
    };
    let mut walk = Walk {
        decoder,
        sink,
        meta: Meta::default(),
        name: Vec::new(),
        templates: HashMap::new(),
    };
    let end = walk.run();
    let end = end.and_then(|()| Ok(walk.decoder.reader.end_frame()?));
    walk.sink.blocks_checked(walk.decoder.blocks);
    end
}

struct Walk<'w, 'r, 's, S> {
    decoder: Decoder<'r, 's>,
    sink: &'w mut S,
    /// The attributes of the next key, such as its expiry time, which stand before the key.
    meta: Meta,
    /// The name of the key that is being read, in a reused buffer.
    name: Vec<u8>,
    /// The number of fields of each template of compact hashes, by the template's id.
    templates: HashMap<u64, u64>,
}

impl<S: Sink> Walk<'_, '_, '_, S> {
    fn run(&mut self) -> Result<()> {
        let mut code = self.head()?;
        self.sink.keys_begin(code != opcode::EOF)?;
        loop {
            if code < opcode::HASH_TEMPLATE {
                self.key(code)?;
                self.meta = Meta::default();
            } else if code == opcode::EOF {
                return self.footer();
            } else {
                self.opcode(code)?;
            }
            code = self.code()?;
        }
    }

    /// Reads the AUX fields, functions and other parts of the RDB file before its first database.
    /// Returns the first byte of the next part.
    fn head(&mut self) -> Result<u8> {
        loop {
            let code = self.code()?;
            if !is_before_keys(code) {
                return Ok(code);
            }
            self.opcode(code)?;
        }
    }

    /// Reads the first byte of the next part of the file; calls [`Sink::tick`] first if a call is
    /// due.
    #[inline(always)]
    fn code(&mut self) -> Result<u8> {
        let offset = self.decoder.reader.offset();
        if offset >= self.decoder.next_tick {
            self.decoder.next_tick = self.sink.tick(offset);
        }
        self.step(Step::Type);
        Ok(self.decoder.reader.get_u8()?)
    }

    #[inline]
    fn step(&mut self, step: Step) {
        self.sink.step(step, self.decoder.reader.offset());
    }

    fn opcode(&mut self, code: u8) -> Result<()> {
        self.step(match code {
            opcode::EXPIRETIME | opcode::EXPIRETIME_MS => Step::Expire,
            opcode::AUX => Step::Aux,
            opcode::FUNCTION2 | opcode::FUNCTION_PRE_GA => Step::Function,
            opcode::MODULE_AUX => Step::ModuleAux,
            _ => Step::Length,
        });
        let decoder = &mut self.decoder;
        let valkey = decoder.version >= VERSION_VALKEY;
        match code {
            opcode::EXPIRETIME_MS => self.meta.expire_at = Some(decoder.millis()?),
            opcode::EXPIRETIME => {
                let seconds = i32::from_le_bytes(decoder.reader.get()?);
                self.meta.expire_at = Some(i64::from(seconds) * 1000);
            }
            opcode::IDLE => self.meta.idle_seconds = Some(decoder.length()?),
            opcode::FREQ => self.meta.frequency = Some(decoder.reader.get_u8()?),
            opcode::SELECTDB => {
                let db = decoder.length()?;
                self.step(Step::Length);
                self.sink.select_db(db)?;
            }
            opcode::RESIZEDB => {
                let (keys, expires) = (decoder.length()?, decoder.length()?);
                // A key takes at least three bytes in the file.
                let left = decoder.reader.bytes_left();
                let plausible = left.map_or(UNCHECKED_KEYS_MAX, |left| left / 3);
                self.sink.resize_db(keys, expires, plausible);
            }
            opcode::AUX => {
                let (name, value) = (decoder.bytes()?, decoder.bytes()?);
                self.step(Step::Aux);
                self.sink.aux(&name, &value);
            }
            opcode::FUNCTION2 => {
                let source = decoder.bytes()?;
                self.sink.function(&source)?;
            }
            opcode::FUNCTION_PRE_GA => {
                return corrupt("Pre-release function format not supported.");
            }
            opcode::SLOT_INFO => {
                // The sizes of a cluster's slot (SLOT_INFO) are a hint for memory, and are skipped.
                for _ in 0..3 {
                    decoder.length()?;
                }
            }
            opcode::HASH_TEMPLATE if !valkey => {
                let (id, fields) = (decoder.length()?, decoder.length()?);
                for _ in 0..fields {
                    decoder.bytes()?;
                }
                self.templates.insert(id, fields);
            }
            opcode::KEY_METADATA if !valkey => decoder.key_metadata()?,
            opcode::SLOT_IMPORT => self.slot_import()?,
            opcode::MODULE_AUX => self.module_aux()?,
            other => return corrupt(format!("Unknown RDB encoding type {other}")),
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self, kind: u8) -> Result<()> {
        let mut name = std::mem::take(&mut self.name);
        self.step(Step::Key);
        self.decoder.bytes_into(&mut name)?;
        self.step(Step::Value);
        self.sink.key_begins(&name, self.meta, kind);
        if kind == kind::STRING {
            let mut text: Text = self.decoder.text()?;
            let (kind, value) = string_value(&mut text);
            self.sink.key(&name, self.meta, kind, value)?;
        } else {
            self.other_key(kind, &name)?;
        }
        self.name = name;
        Ok(())
    }

    fn other_key(&mut self, kind: u8, name: &[u8]) -> Result<()> {
        if kind == kind::MODULE_2 {
            let module = module_name(self.decoder.length()?);
            if (self.sink).skip_foreign(name, &format!("a value of the module type '{module}'")) {
                return self.decoder.module_parts();
            }
            return corrupt(format!(
                "The RDB file contains module data I can't load: no matching module type '{module}' (key '{}')",
                name.escape_ascii()
            ));
        }
        if self.decoder.version < VERSION_VALKEY && kind == kind::COMPACT_PACKED {
            self.decoder.bytes()?;
            return self.foreign_key(name, COMPACT_HASH);
        }
        if self.decoder.version < VERSION_VALKEY && kind == kind::COMPACT {
            let id = self.decoder.length()?;
            let Some(&fields) = self.templates.get(&id) else {
                return corrupt("A compact hash without its template");
            };
            for _ in 0..fields {
                self.decoder.bytes()?;
            }
            return self.foreign_key(name, COMPACT_HASH);
        }
        let sink = &mut *self.sink;
        match self.decoder.value(kind, &mut |offset| sink.tick(offset)) {
            Ok(value) => {
                let kind = entry_kind_of(&value);
                self.sink.key(name, self.meta, kind, New::Obj(value))
            }
            Err(Fault::Empty) => {
                self.sink.empty_key(name);
                Ok(())
            }
            Err(Fault::Foreign(_)) if !is_file_kind(kind) => {
                corrupt(format!("RDB encoding type {kind} in a file"))
            }
            Err(Fault::Foreign(what)) => self.foreign_key(name, what),
            Err(fault) => Err(fault),
        }
    }

    /// Called when a key was read whose value has a type that this server does not have: skips the
    /// key, or returns an error.
    fn foreign_key(&mut self, name: &[u8], what: &str) -> Result<()> {
        if self.sink.skip_foreign(name, what) {
            return Ok(());
        }
        corrupt(format!(
            "The key '{}' is {what}, which this server does not have: rdb-skip-unknown leaves it out",
            name.escape_ascii()
        ))
    }

    /// Reads the name and the ranges of a move of slots to the server that wrote the file.
    fn slot_import(&mut self) -> Result<()> {
        let name = self.decoder.bytes()?.to_vec();
        let count = self.decoder.length()?;
        let mut ranges = Vec::new();
        for _ in 0..count {
            let range = (self.decoder.length()?, self.decoder.length()?);
            // A move of slots can't have more ranges than there are slots, so further ranges are
            // dropped.
            if ranges.len() < SLOTS {
                ranges.push(range);
            }
        }
        self.sink.slot_import(&name, &ranges);
        Ok(())
    }

    fn module_aux(&mut self) -> Result<()> {
        let module = module_name(self.decoder.length()?);
        self.decoder.module_time()?;
        if self.sink.skip_module(&module) {
            return self.decoder.module_parts();
        }
        corrupt(format!(
            "The RDB file contains AUX module data I can't load: no matching module '{module}'"
        ))
    }

    fn footer(&mut self) -> Result<()> {
        if self.decoder.version < 5 {
            return Ok(());
        }
        let computed = self.decoder.reader.checksum();
        let found = u64::from_le_bytes(self.decoder.reader.get()?);
        self.step(Step::Checksum);
        self.sink.footer(found, computed)
    }
}

/// Whether a type that this server does not have can occur in files. Types that occur only in DUMP
/// payloads are not read to their end, so no key can follow them.
fn is_file_kind(kind: u8) -> bool {
    kind != kind::COMPACT_PACKED_DUMP && kind != kind::COMPACT_DUMP
}

/// Whether a part that begins with `code` stands before the first database of a file.
fn is_before_keys(code: u8) -> bool {
    matches!(
        code,
        opcode::AUX
            | opcode::FUNCTION2
            | opcode::FUNCTION_PRE_GA
            | opcode::MODULE_AUX
            | opcode::SLOT_IMPORT
            | opcode::HASH_TEMPLATE
    )
}
