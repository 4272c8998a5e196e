//! CLUSTERSCAN, Valkey 9.1: one scan over all nodes of a cluster.
//!
//! ```text
//!   fingerprint - {tag} - cursor
//!       |           |       `---- inside the table of the slot
//!       |           `------------ a tag of the slot, so that clients find its node
//!       `------------------------ of the node's hash function: with another one, the slot starts over
//! ```
//!
//! A call of CLUSTERSCAN scans slot after slot until it has seen COUNT keys, or comes to a slot of
//! another shard. The cursor in the reply names the slot at which the next call continues,
//! whichever node owns that slot. Nodes with the same `hash-seed` setting have the same
//! fingerprint, so cursors stay valid at a failover.
//!
//! The hash tags in the cursors are those of Valkey: for each slot, the first string of digits and
//! letters that hashes to the slot, short strings first.

use std::sync::LazyLock;

use crate::command::ctx::{CmdResult, Ctx};
use crate::commands::generic::scan::{ScanOf, ScanOptions};
use crate::db::kvstore::KvStore;
use crate::db::slot::{SLOTS, key_slot, pattern_slot};
use crate::error::Error;
use crate::state::Server;
use crate::texts::Words;
use crate::types::KeyRef;
use crate::types::string::type_of;
use crate::util::number::parse_u64;

const INVALID: Error = Error::of("ERR Invalid cursor");

/// The characters of hash tags, in the order in which they are tried.
const TAG_CHARS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const TAG_LEN_MAX: usize = 3;

/// A hash tag of one to three characters, padded with zero bytes.
type Tag = [u8; TAG_LEN_MAX];

static TAGS: LazyLock<Box<[Tag]>> = LazyLock::new(|| {
    let mut tags = vec![Tag::default(); SLOTS].into_boxed_slice();
    for len in 1..=TAG_LEN_MAX {
        for mut n in 0..TAG_CHARS.len().pow(len as u32) {
            let mut tag = Tag::default();
            for byte in tag[..len].iter_mut().rev() {
                *byte = TAG_CHARS[n % TAG_CHARS.len()];
                n /= TAG_CHARS.len();
            }
            let place = &mut tags[usize::from(key_slot(&tag[..len]))];
            if place[0] == 0 {
                *place = tag;
            }
        }
    }
    tags
});

fn tag(slot: u16) -> &'static str {
    let tag = &TAGS[usize::from(slot)];
    let len = tag
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(TAG_LEN_MAX);
    std::str::from_utf8(&tag[..len]).unwrap_or("")
}

/// The position of a CLUSTERSCAN, as its cursor has it.
struct Cursor {
    slot: u16,
    /// The position inside the hash table of the slot, a cursor as SCAN has it.
    inner: u64,
}

/// CLUSTERSCAN cursor [MATCH pattern] [COUNT count] [TYPE type] [SLOT slot]
pub fn cluster_scan(ctx: &mut Ctx) -> CmdResult {
    super::member(ctx)?;
    let (slot, rest) = take_slot(ctx)?;
    let options = ScanOptions::parse(&rest, 0, ScanOf::Keys(Words::Valkey))?;
    let matched = options.pattern.and_then(pattern_slot);
    let wanted = match (slot, matched) {
        (Some(slot), Some(matched)) if slot != matched => Err(()),
        (slot, matched) => Ok(slot.or(matched)),
    };
    let fingerprint = fingerprint(ctx.server);
    let is_start = ctx.argv[1] == b"0";
    let cursor = match is_start {
        true => None,
        false => Some(parse_cursor(ctx.argv[1], &fingerprint)?),
    };
    if let (Some(slot), Some(cursor)) = (slot, &cursor)
        && slot != cursor.slot
    {
        return Err(Error::of("ERR Cursor slot mismatch with SLOT argument"));
    }
    let (cursor, only) = match (cursor, wanted) {
        // SLOT and the pattern name different slots, so no key can match.
        (_, Err(())) => return reply_place(ctx, None),
        (None, Ok(only)) => return reply_place(ctx, Some(only.unwrap_or(0))),
        (Some(cursor), Ok(Some(only))) if cursor.slot < only => {
            return reply_place(ctx, Some(only));
        }
        (Some(cursor), Ok(Some(only))) if cursor.slot > only => return reply_place(ctx, None),
        (Some(cursor), Ok(only)) => (cursor, only.is_some()),
    };
    scan(ctx, &options, cursor, only, &fingerprint)
}

/// Splits the options of CLUSTERSCAN into the slot of SLOT, if it is given, and the other options.
fn take_slot<'a>(ctx: &Ctx<'a>) -> Result<(Option<u16>, Vec<&'a [u8]>), Error> {
    let (mut slot, mut rest, mut at) = (None, Vec::new(), 2);
    while at < ctx.argv.len() {
        let value = ctx.argv.get(at + 1);
        if !ctx.is(at, "slot") {
            rest.push(ctx.argv[at]);
            rest.extend(value);
        } else if slot.is_some() {
            return Err(Error::of("ERR SLOT option can only be specified once"));
        } else {
            slot = Some(super::change::slot(value.ok_or(Error::SYNTAX)?)?);
        }
        at += 2;
    }
    Ok((slot, rest))
}

fn parse_cursor(text: &[u8], fingerprint: &str) -> Result<Cursor, Error> {
    let mut parts = text.split(|byte| *byte == b'-');
    let (Some(first), Some(_), Some(inner), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(INVALID);
    };
    let inner = parse_u64(inner).ok_or(INVALID)?;
    Ok(Cursor {
        slot: key_slot(text),
        inner: if first == fingerprint.as_bytes() {
            inner
        } else {
            0
        },
    })
}

/// The fingerprint of the hash function that places keys in tables. The fingerprint does not reveal
/// the seed.
fn fingerprint(server: &Server) -> String {
    format!("a{:x}", server.seed.hash(b"cursor of CLUSTERSCAN") as u32)
}

/// Replies with no keys, and with a cursor of the beginning of `slot`; without a slot with the
/// cursor 0, which ends the scan.
fn reply_place(ctx: &mut Ctx, slot: Option<u16>) -> CmdResult {
    let reply = &mut ctx.client.reply;
    reply.array(2);
    reply.bulk(beginning(slot).as_bytes());
    reply.array(0);
    Ok(())
}

fn beginning(slot: Option<u16>) -> String {
    slot.map_or("0".into(), |slot| format!("0-{{{}}}-0", tag(slot)))
}

fn scan(
    ctx: &mut Ctx,
    options: &ScanOptions,
    cursor: Cursor,
    only: bool,
    fingerprint: &str,
) -> CmdResult {
    let end = end_of_stretch(ctx.server, cursor.slot, only);
    let (server, db) = (&*ctx.server, ctx.client.db);
    let keys = &server.data.dbs[db as usize].keys;
    let wanted = |entry: KeyRef| {
        options.matches(entry.key()) && options.kind.is_none_or(|kind| kind == Some(type_of(entry)))
    };
    let mut found: Vec<KeyRef> = Vec::new();
    let mut expired: Vec<Box<[u8]>> = Vec::new();
    let next = walk(keys, options.count, cursor, end, |entry| {
        match wanted(entry) {
            true if server.is_expired(entry) => expired.push(entry.key().into()),
            true => found.push(entry),
            false => {}
        }
    });
    let after = (usize::from(end) < SLOTS && !only).then_some(end);
    let next = match next {
        Some(next) => format!("{fingerprint}-{{{}}}-{}", tag(next.slot), next.inner),
        None => beginning(after),
    };
    let reply = &mut ctx.client.reply;
    reply.array(2);
    reply.bulk(next.as_bytes());
    reply.array(found.len());
    found.iter().for_each(|entry| reply.bulk(entry.key()));
    for key in expired {
        ctx.server.lookup_in(db, &key);
    }
    Ok(())
}

/// The first slot after `slot` that does not belong to this node's shard; with `only`, the slot
/// after `slot`, as SLOT limits the scan to one slot.
fn end_of_stretch(server: &Server, slot: u16, only: bool) -> u16 {
    let ours = |slot: &u16| {
        let member = server.cluster.as_ref();
        member.is_some_and(|member| member.machine.is_of_shard(*slot))
    };
    match only {
        true => slot + 1,
        false => (slot + 1..SLOTS as u16)
            .find(|slot| !ours(slot))
            .unwrap_or(SLOTS as u16),
    }
}

/// Passes the keys from the cursor up to the slot `end` to `visit`, until `count` keys, or ten
/// times that number of buckets, were seen. Returns the position for the next call, or `None` if
/// all slots before `end` were scanned.
fn walk<'a>(
    keys: &'a KvStore,
    count: usize,
    mut cursor: Cursor,
    end: u16,
    mut visit: impl FnMut(KeyRef<'a>),
) -> Option<Cursor> {
    let mut seen = 0;
    for _ in 0..count.saturating_mul(10) {
        cursor.inner = keys.scan_slot(cursor.slot, cursor.inner, |entry| {
            seen += 1;
            visit(entry);
        });
        if cursor.inner == 0 {
            let next = keys.occupied_from(cursor.slot + 1)?;
            if next >= end {
                return None;
            }
            cursor.slot = next;
        }
        if seen >= count {
            break;
        }
    }
    Some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected hash tags are those that Valkey 9.1 replied.
    #[test]
    fn each_slot_has_the_tag_of_the_peers() {
        for (slot, expected) in [
            (0, "06S"),
            (1, "Qi"),
            (50, "4ZG"),
            (5462, "450"),
            (8192, "8YG"),
            (13_907, "0"),
            (16_000, "he"),
            (16_383, "6ZJ"),
        ] {
            assert_eq!(tag(slot), expected);
        }
        for slot in 0..SLOTS as u16 {
            assert_eq!(key_slot(tag(slot).as_bytes()), slot);
        }
    }

    #[test]
    fn a_cursor_of_another_hash_function_begins_its_slot() {
        let parse = |text: &str| {
            let cursor = parse_cursor(text.as_bytes(), "a1");
            cursor.ok().map(|cursor| (cursor.slot, cursor.inner))
        };
        assert_eq!(parse("a1-{06S}-7"), Some((0, 7)));
        assert_eq!(parse("a2-{06S}-7"), Some((0, 0)));
        assert_eq!(parse("0-{Qi}-0"), Some((1, 0)));
        assert_eq!(parse("-x{Qi}y-5"), Some((1, 0)));
        for text in [
            "invalid",
            "0-",
            "0-{0}",
            "a-b-c",
            "0-{06S}-",
            "0-{06S}--1",
            "00",
            "",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("0-{Qi}-99999999999999999999"), None);
    }
}
