//! DUMP and RESTORE: a payload is a single value, followed by a version and a checksum.
//!
//! ```text
//!   | type | value ... | version, 2 bytes | CRC-64 of all before, 8 bytes |      little-endian
//! ```
//!
//! A payload comes from a client and is not trusted. The checksum, which any client can compute,
//! detects accidents; the decoder checks everything else.

use super::decode::{Decoder, Fault, Result, Text, corrupt, string_value};
use super::encode::{Encoder, version_for};
use super::{Limits, VERSION_VALKEY, is_known_version, kind, opcode};
use crate::persist::rio::{Reader, Writer, checksum};
use crate::types::{KeyRef, New, Value, kind as entry_kind};

const FOOTER: usize = 2 + 8;

/// The payload of a key's value that DUMP replies, in an RDB version of at least `version`.
pub fn dump(entry: KeyRef, version: u32, compress: bool) -> Vec<u8> {
    let version = version_for(entry, version);
    let mut out = Writer::in_memory();
    let mut encoder = Encoder::new(&mut out, version, compress);
    let kind = encoder.kind_of(entry);
    // Writing to memory does not fail, so the result is ignored.
    let _ = encoder.out.put_u8(kind);
    let _ = encoder.value(entry);
    with_footer(out, version)
}

fn with_footer(out: Writer, version: u32) -> Vec<u8> {
    let mut bytes = out.into_bytes();
    bytes.extend_from_slice(&(version as u16).to_le_bytes());
    let crc = checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The payload that FUNCTION DUMP replies, with each library in the form that it has in an RDB
/// file.
pub fn dump_functions<'a>(sources: impl Iterator<Item = &'a [u8]>, version: u32) -> Vec<u8> {
    let mut out = Writer::in_memory();
    let mut encoder = Encoder::new(&mut out, version, false);
    for source in sources {
        // Writing to memory does not fail, so the result is ignored.
        let _ = encoder.out.put_u8(opcode::FUNCTION2);
        let _ = encoder.string(source);
    }
    with_footer(out, version)
}

/// The sources of the libraries in the body of a payload of FUNCTION DUMP.
pub fn functions(version: u32, body: &[u8], limits: Limits) -> Result<Vec<Vec<u8>>> {
    let mut source = body;
    let mut left = body.len();
    let mut reader = Reader::new(&mut source, Some(body.len() as u64)).without_checksum();
    let mut decoder = Decoder {
        reader: &mut reader,
        limits,
        version,
        next_tick: u64::MAX,
        blocks: 0,
    };
    let mut sources = Vec::new();
    while left > 0 {
        if decoder.reader.get_u8()? != opcode::FUNCTION2 {
            return corrupt("given type is not a function");
        }
        sources.push(decoder.bytes()?);
        left = decoder.reader.bytes_left().map_or(0, |left| left as usize);
    }
    Ok(sources)
}

/// How strictly the footer (version and checksum) of a payload is checked.
#[derive(Clone, Copy)]
pub struct Checks {
    /// Whether payloads of unknown versions are accepted as well.
    pub any_version: bool,
    /// Whether the checksum of a payload is ignored.
    pub skip_checksum: bool,
}

/// The version and the body of a payload; `None` if the footer is wrong.
pub fn open(payload: &[u8], checks: Checks) -> Option<(u32, &[u8])> {
    let (before_crc, crc) = payload.split_last_chunk::<8>()?;
    let (body, version) = before_crc.split_last_chunk::<2>()?;
    debug_assert_eq!(body.len() + FOOTER, payload.len());
    let version = u32::from(u16::from_le_bytes(*version));
    if !checks.any_version && !is_known_version(version) {
        return None;
    }
    let crc = u64::from_le_bytes(*crc);
    let right = checks.skip_checksum || crc == checksum(before_crc);
    right.then_some((version, body))
}

/// Decodes the value of a payload's body and passes it to `store` with its kind byte. Adds the
/// number of packed blocks to `blocks`. Bytes behind the value are ignored, as in Redis.
pub fn restore<R>(
    version: u32,
    body: &[u8],
    limits: Limits,
    blocks: &mut u64,
    store: impl FnOnce(u8, New) -> R,
) -> Result<R> {
    let mut source = body;
    let mut reader = Reader::new(&mut source, Some(body.len() as u64)).without_checksum();
    let mut kind = reader.get_u8()?;
    let mut decoder = Decoder {
        reader: &mut reader,
        limits,
        version,
        next_tick: u64::MAX,
        blocks: 0,
    };
    if kind == opcode::KEY_METADATA && version < VERSION_VALKEY {
        decoder.key_metadata()?;
        kind = decoder.reader.get_u8()?;
    }
    if !kind::is_known(kind) {
        return corrupt(format!("Unknown RDB encoding type {kind}"));
    }
    if kind == kind::STRING {
        let mut text: Text = decoder.text()?;
        let (kind, value) = string_value(&mut text);
        return Ok(store(kind, value));
    }
    let value = decoder.value(kind, &mut |_| u64::MAX);
    *blocks += decoder.blocks;
    let value = value?;
    Ok(store(entry_kind_of(&value), New::Obj(value)))
}

/// The byte for the type of a loaded value in the entry of its key.
pub fn entry_kind_of(value: &Value) -> u8 {
    match value {
        Value::Str(_) => entry_kind::RAW,
        Value::List(_) => entry_kind::LIST,
        Value::Set(_) => entry_kind::SET,
        Value::Zset(_) => entry_kind::ZSET,
        Value::Hash(_) => entry_kind::HASH,
        Value::Stream(_) => entry_kind::STREAM,
    }
}

/// Logs why a payload of RESTORE is faulty, since the client gets the same error for any fault.
pub fn log_fault(fault: &Fault) {
    log::warn!("Error restoring a payload: {fault}");
}
