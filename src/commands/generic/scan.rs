//! KEYS, which replies with all keys at once, and SCAN, which replies with a few keys at each call.
//!
//! A SCAN walks the hash table by a cursor that remains valid when the table grows or shrinks, see
//! `ds::hashtable`. A call of SCAN visits bucket after bucket, until it has COUNT keys or has
//! visited ten times that number of buckets, so that a nearly empty table does not block the loop.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::slot::pattern_slot;
use crate::error::{Error, said};
use crate::texts::Words;
use crate::types::string::type_of;
use crate::types::{KeyRef, Type};
use crate::util::glob::glob_match;
use crate::util::number;
use crate::util::number::{IntBuf, parse_u64_lenient};

/// KEYS pattern
pub fn keys(ctx: &mut Ctx) -> CmdResult {
    let pattern = ctx.argv[1];
    let server = &*ctx.server;
    let db = &server.data.dbs[ctx.client.db as usize];
    let reply = &mut ctx.client.reply;
    let header = reply.begin_deferred();
    let mut found = 0;
    for entry in db.keys.iter_matching(pattern) {
        let matches = pattern == b"*" || glob_match(pattern, entry.key());
        if matches && !server.is_expired(entry) {
            reply.bulk(entry.key());
            found += 1;
        }
    }
    reply.end_array(header, found);
    Ok(())
}

/// Parses a cursor of SCAN, SSCAN, HSCAN or ZSCAN: any 64-bit number.
pub fn parse_cursor(text: &[u8]) -> Result<u64, Error> {
    parse_u64_lenient(text).ok_or(Error::of("ERR invalid cursor"))
}

/// The options of SCAN, SSCAN, HSCAN and ZSCAN.
pub struct ScanOptions<'a> {
    pub count: usize,
    /// The pattern of MATCH; `None` without MATCH.
    pub pattern: Option<&'a [u8]>,
    /// SCAN's TYPE: the type, or `Some(None)` for the name of no type, which matches no key.
    pub kind: Option<Option<Type>>,
    /// NOVALUES of HSCAN, NOSCORES of ZSCAN.
    pub no_values: bool,
}

/// The command of SCAN's family: each has other options besides COUNT and MATCH.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ScanOf {
    /// SCAN, which has TYPE; if the server answers as Valkey does, an unknown type is an error.
    Keys(Words),
    Fields,
    Members,
    Scores,
}

impl<'a> ScanOptions<'a> {
    /// Parses the options of SCAN or a similar command, from `argv[at]` on.
    pub fn parse(argv: &[&'a [u8]], mut at: usize, of: ScanOf) -> Result<ScanOptions<'a>, Error> {
        let mut options = ScanOptions {
            count: 10,
            pattern: None,
            kind: None,
            no_values: false,
        };
        while at < argv.len() {
            let next = argv.get(at + 1).copied();
            match (argv[at].to_ascii_lowercase().as_slice(), next) {
                (b"type", Some(name)) if let ScanOf::Keys(words) = of => {
                    options.kind = Some(parse_type(name, words)?)
                }
                (b"count", Some(count)) => options.count = parse_count(count)?,
                (b"match", Some(pattern)) => options.pattern = Some(pattern).filter(|p| *p != b"*"),
                (b"novalues", _) if of == ScanOf::Fields => {
                    options.no_values = true;
                    at += 1;
                    continue;
                }
                (b"novalues", _) => {
                    return Err(Error::of("ERR NOVALUES option can only be used in HSCAN"));
                }
                (b"noscores", _) if of == ScanOf::Scores => {
                    options.no_values = true;
                    at += 1;
                    continue;
                }
                _ => return Err(Error::SYNTAX),
            }
            at += 2;
        }
        Ok(options)
    }

    /// Whether the name of a key, field or member matches the pattern of MATCH.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob_match(pattern, name))
    }

    /// Scans a hash table from a cursor on until `count` elements, or ten times that number of
    /// buckets, were seen. `bucket` scans one bucket, and returns the next cursor and the number of
    /// elements so far. Returns the cursor of the reply.
    pub fn walk(&self, mut cursor: u64, mut bucket: impl FnMut(u64) -> (u64, usize)) -> u64 {
        for _ in 0..self.count.saturating_mul(10) {
            let seen;
            (cursor, seen) = bucket(cursor);
            if cursor == 0 || seen >= self.count {
                break;
            }
        }
        cursor
    }
}

/// The reply of SSCAN, HSCAN and ZSCAN for a key that does not exist.
pub fn reply_nothing_found(reply: &mut ReplyBuf) {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
}

fn parse_count(text: &[u8]) -> Result<usize, Error> {
    let count = number::parse_i64(text).ok_or(Error::NOT_INTEGER)?;
    usize::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .ok_or(Error::SYNTAX)
}

/// Parses the type of SCAN's option TYPE. An unknown type matches no key in Redis, and is an error
/// in Valkey.
fn parse_type(name: &[u8], words: Words) -> Result<Option<Type>, Error> {
    let known = |t: &Type| t.name().as_bytes().eq_ignore_ascii_case(name);
    let kind = Type::ALL.into_iter().find(known);
    if kind.is_none() && words == Words::Valkey {
        return Err(Error::new(format!(
            "ERR unknown type name '{}'",
            said(name)
        )));
    }
    Ok(kind)
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
pub fn scan(ctx: &mut Ctx) -> CmdResult {
    let cursor = parse_cursor(ctx.argv[1])?;
    let options = ScanOptions::parse(ctx.argv, 2, ScanOf::Keys(ctx.server.config.words()))?;
    let wanted = |entry: KeyRef| {
        options.matches(entry.key()) && options.kind.is_none_or(|kind| kind == Some(type_of(entry)))
    };
    let (server, db) = (&*ctx.server, ctx.client.db);
    let mut seen = 0;
    let mut found: Vec<KeyRef> = Vec::new();
    let mut expired: Vec<Box<[u8]>> = Vec::new();
    let slot = options.pattern.and_then(pattern_slot);
    let cursor = options.walk(cursor, |cursor| {
        let keys = &server.data.dbs[db as usize].keys;
        let next = keys.scan_in(slot, cursor, |entry| {
            seen += 1;
            match wanted(entry) {
                true if server.is_expired(entry) => expired.push(entry.key().into()),
                true => found.push(entry),
                false => {}
            }
        });
        (next, seen)
    });
    let reply = &mut ctx.client.reply;
    reply.array(2);
    let mut digits = IntBuf::new();
    reply.bulk(digits.format(cursor));
    reply.array(found.len());
    found.iter().for_each(|entry| reply.bulk(entry.key()));
    for key in expired {
        ctx.server.lookup_in(db, &key);
    }
    Ok(())
}
