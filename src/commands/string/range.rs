//! The commands on parts of a string: APPEND, SETRANGE, GETRANGE, STRLEN.
//!
//! A string is changed inside its key's entry while it fits there; beyond `INLINE_MAX` bytes it
//! moves out of the entry into a buffer that doubles as it grows, so that n appends cost O(n).

use crate::command::ctx::{CmdResult, Ctx};
use crate::db::Ttl;
use crate::ds::entry::INLINE_MAX;
use crate::error::Error;
use crate::keyspace::events;
use crate::types::kind;
use crate::types::lengths::KeyWrite;
use crate::types::string::{Grown, StrView, bytes_mut, encode};
use crate::util::number::IntBuf;

/// STRLEN key
pub(super) fn strlen(ctx: &mut Ctx) -> CmdResult {
    let len = match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => 0,
        Some(entry) => StrView::of(entry)?.len(),
    };
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// APPEND key value
pub(super) fn append(ctx: &mut Ctx) -> CmdResult {
    let (key, tail) = (ctx.argv[1], ctx.argv[2]);
    let limit = ctx.max_string_len();
    let len = match ctx.server.lookup_write(ctx.client, key) {
        None => {
            let (kind, value) = encode(tail, ctx.shared_arg(2));
            ctx.server
                .set_key(ctx.client.db, key, kind, value, Ttl::Clear);
            tail.len()
        }
        Some(mut entry) => {
            let old = StrView::of(entry.as_ref())?.len();
            let new = checked_len(old, tail.len(), limit)?;
            let grown = overwrite(&mut entry, old, tail, new);
            store_grown(ctx, key, grown);
            new
        }
    };
    ctx.changed(key, events::STRING, "append");
    ctx.dirty(1);
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// SETRANGE key offset value
pub(super) fn setrange(ctx: &mut Ctx) -> CmdResult {
    let (key, patch) = (ctx.argv[1], ctx.argv[3]);
    let offset = ctx.int(2)?;
    let offset = usize::try_from(offset).map_err(|_| Error::OFFSET_OUT_OF_RANGE)?;
    let limit = ctx.max_string_len();
    let entry = ctx.server.lookup_write(ctx.client, key);
    let old = match &entry {
        None => 0,
        Some(entry) => StrView::of(entry.as_ref())?.len(),
    };
    if patch.is_empty() {
        ctx.client.reply.integer(old as i64);
        return Ok(());
    }
    let new = checked_len(offset, patch.len(), limit)?.max(old);
    let grown = match entry {
        Some(mut entry) => overwrite(&mut entry, offset, patch, new),
        None => {
            let mut grown = Grown::zeros(new);
            grown.bytes_mut()[offset..].copy_from_slice(patch);
            Some(grown)
        }
    };
    store_grown(ctx, key, grown);
    ctx.changed(key, events::STRING, "setrange");
    ctx.dirty(1);
    ctx.client.reply.integer(new as i64);
    Ok(())
}

fn checked_len(len: usize, more: usize, limit: usize) -> Result<usize, Error> {
    len.checked_add(more)
        .filter(|&sum| sum <= limit)
        .ok_or(Error::STRING_TOO_LONG)
}

/// Writes `patch` at `offset` into a string, which becomes `len` bytes long. If the string has no
/// room for `len` bytes, a longer copy is written instead; a copy that does not fit the key's entry
/// is returned.
fn overwrite(entry: &mut KeyWrite, offset: usize, patch: &[u8], len: usize) -> Option<Grown> {
    if let Some(bytes) = bytes_mut(entry, len) {
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        return None;
    }
    let mut grown = Grown::copy(entry.as_ref(), len);
    grown.bytes_mut()[offset..offset + patch.len()].copy_from_slice(patch);
    if len <= INLINE_MAX && entry.try_overwrite(&grown.value()) {
        entry.set_kind(kind::RAW);
        return None;
    }
    Some(grown)
}

fn store_grown(ctx: &mut Ctx, key: &[u8], grown: Option<Grown>) {
    if let Some(mut grown) = grown {
        ctx.server
            .set_key(ctx.client.db, key, kind::RAW, grown.value(), Ttl::Keep);
    }
}

/// GETRANGE key start end, and SUBSTR, its first name
pub(super) fn getrange(ctx: &mut Ctx) -> CmdResult {
    let (start, end) = (ctx.int(2)?, ctx.int(3)?);
    match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => ctx.client.reply.bulk(b""),
        Some(entry) => {
            let mut digits = IntBuf::new();
            let bytes = StrView::of(entry)?.bytes(&mut digits);
            ctx.client.reply.bulk(slice(bytes, start, end));
        }
    }
    Ok(())
}

/// The bytes from index `start` to index `end`, both included. Negative indexes are relative to the
/// string's end, and indexes outside of the string are clamped.
fn slice(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = bytes.len() as i64;
    // GETRANGE: if `start` and `end` are both before the string's first byte, clamping would move
    // both to that byte, which would then be selected.
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from_start = |n: i64| {
        if n < 0 {
            n.saturating_add(len).max(0)
        } else {
            n
        }
    };
    let (start, end) = (from_start(start), from_start(end).min(len - 1));
    if start > end {
        return b"";
    }
    &bytes[start as usize..=end as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_included_and_clamped() {
        assert_eq!(slice(b"Hello World", 0, 3), b"Hell");
        assert_eq!(slice(b"Hello World", 0, -1), b"Hello World");
        assert_eq!(slice(b"Hello World", -4, -1), b"orld");
        assert_eq!(slice(b"Hello World", 5, 3), b"");
        assert_eq!(slice(b"Hello World", -5000, 10000), b"Hello World");
        assert_eq!(slice(b"abc", i64::MIN, i64::MAX), b"abc");
        assert_eq!(slice(b"", 0, -1), b"");
        assert_eq!(slice(b"abc", 3, 3), b"");
    }

    #[test]
    fn two_ends_before_the_beginning_select_nothing_if_crossed() {
        assert_eq!(slice(b"abc", -100, -200), b"");
        assert_eq!(slice(b"abc", -200, -100), b"a");
    }

    #[test]
    fn growing_too_long_is_refused_before_it_overflows() {
        assert_eq!(checked_len(3, 4, 7), Ok(7));
        assert_eq!(checked_len(3, 5, 7), Err(Error::STRING_TOO_LONG));
        assert_eq!(
            checked_len(usize::MAX, 1, usize::MAX),
            Err(Error::STRING_TOO_LONG)
        );
    }
}
