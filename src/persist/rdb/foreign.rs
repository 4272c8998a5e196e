//! Values of types that newer servers have and this server does not have: their names, and their
//! layouts, so that the loader can skip them.
//!
//! ```text
//!   27  stream with released entries   Redis 8.8    read as a stream; foreign only if it has such entries
//!   28  array                          Redis 8.8    count, flag, cursor if flag, (index, tag, 8 bytes or string)*
//!   30  compact hash, packed           Redis 8.10   string
//!   32  compact hash                   Redis 8.10   template, string for each of its fields
//!   23  path hash                      Valkey 9.2   paths, (path, fields, (field, value)*)*
//! ```
//!
//! A foreign value is read to its end and then reported as [`Fault::Foreign`] with its name. With
//! `rdb-skip-unknown yes`, the load of a file continues behind the foreign value.
//!
//! **Invariant:** each iteration of a loop over elements reads at least a byte, so a loop with a
//! wrong count stops at the end of the file.

use super::decode::{Decoder, Fault, Result, Tick, corrupt};
use super::kind;

/// The name, in errors, of the foreign type of a stream with released entries.
pub const STREAM_RELEASED: &str = "a stream with released entries (Redis 8.8)";
/// The name, in errors, of the foreign type of a compact hash.
pub const COMPACT_HASH: &str = "a compact hash (Redis 8.10)";
const ARRAY: &str = "an array (Redis 8.8)";
const PATH_HASH: &str = "a path hash (Valkey 9.2)";

/// The types of the parts of a module's value.
mod module_part {
    /// The end of the parts of a module's value.
    pub const EOF: u64 = 0;
    /// The part of a module's value is a signed integer.
    pub const SINT: u64 = 1;
    /// The part of a module's value is an unsigned integer.
    pub const UINT: u64 = 2;
    /// The part of a module's value is a float of 4 bytes.
    pub const FLOAT: u64 = 3;
    /// The part of a module's value is a float of 8 bytes.
    pub const DOUBLE: u64 = 4;
    /// The part of a module's value is a string.
    pub const STRING: u64 = 5;
}

impl Decoder<'_, '_> {
    /// Skips an array of Redis 8.8, and returns the error that names its type.
    pub fn array<T>(&mut self, tick: Tick) -> Result<T> {
        let count = self.length()?;
        match self.length()? {
            0 => {}
            1 => drop(self.length()?),
            other => return corrupt(format!("Unknown flag of an array: {other}")),
        }
        for _ in 0..count {
            self.length()?;
            match self.length()? {
                0 | 3 => drop(self.bytes()?),
                1 | 2 => drop(self.reader.get::<8>()?),
                other => return corrupt(format!("Unknown type of an array's element: {other}")),
            }
            self.report(tick);
        }
        Err(Fault::Foreign(ARRAY))
    }

    /// Skips a value of a type that only Valkey has, and returns the error that names its type.
    pub fn foreign_to_redis<T>(&mut self, kind: u8, tick: Tick) -> Result<T> {
        if kind != kind::PATH_HASH {
            return corrupt(format!("Unknown RDB encoding type {kind}"));
        }
        for _ in 0..self.length()? {
            self.bytes()?;
            for _ in 0..self.length()? {
                self.bytes()?;
                self.bytes()?;
                self.report(tick);
            }
        }
        Err(Fault::Foreign(PATH_HASH))
    }

    /// Skips the ids of the producers of a stream's entries (XADD IDMP, Redis 8.6). If a producer
    /// repeats a request after its id was skipped, the entry is added again.
    pub fn producers(&mut self, tick: Tick) -> Result<()> {
        let (_duration, _max_size, producers) = (self.length()?, self.length()?, self.length()?);
        for _ in 0..producers {
            self.bytes()?;
            for _ in 0..self.length()? {
                self.bytes()?;
                self.length()?;
                self.length()?;
                self.report(tick);
            }
        }
        let (_added, _duplicates) = (self.length()?, self.length()?);
        Ok(())
    }

    /// Skips the metadata that modules of Redis 8.6 attach to a key.
    pub fn key_metadata(&mut self) -> Result<()> {
        for _ in 0..self.length()? {
            self.reader.get::<4>()?;
            self.module_parts()?;
        }
        Ok(())
    }

    /// Skips a module's data, which is a sequence of parts with their types.
    pub fn module_parts(&mut self) -> Result<()> {
        loop {
            match self.length()? {
                module_part::EOF => return Ok(()),
                module_part::SINT | module_part::UINT => drop(self.length()?),
                module_part::FLOAT => drop(self.reader.get::<4>()?),
                module_part::DOUBLE => drop(self.reader.get::<8>()?),
                module_part::STRING => drop(self.bytes()?),
                other => return corrupt(format!("Unknown part of a module's value: {other}")),
            }
        }
    }

    /// Skips the field that precedes a module's data outside of keys, and that says when in the
    /// save this data was written.
    pub fn module_time(&mut self) -> Result<()> {
        if self.length()? != module_part::UINT {
            return corrupt("Module AUX data without a time");
        }
        self.length().map(drop)
    }
}
