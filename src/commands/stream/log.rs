//! Commands on the entries of a stream that do not concern groups: adding at the end, removing from
//! the front or within, and reading by ID.
//!
//! [`XaddOptions`] parses the threshold (MAXLEN or MINID) and the precision (`=` or `~`) of a trim,
//! for XADD and XTRIM. With `~` only whole nodes of the stream are dropped, each at the cost of one
//! entry.

use super::*;
use crate::command::ctx::CmdResult;
use crate::db::Ttl;
use crate::ds::stream::{AddError, MAX_ID_CHARS, NewId, Precision, Trim};
use crate::types::stream::RefPolicy;
use crate::types::{New, Value, kind};

/// The maximum of the default LIMIT of a trim with `~`, which is 100 times
/// `stream-node-max-entries`.
const DEFAULT_LIMIT_MAX: u64 = 1_000_000;

/// The options of XADD and XTRIM, in any order.
struct XaddOptions {
    no_mkstream: bool,
    trim: Option<Trim>,
    approximate: bool,
    /// The maximum number of entries to remove, from LIMIT, if it was given.
    limit: Option<u64>,
    policy: Option<RefPolicy>,
    /// The index in argv of the threshold of MAXLEN or MINID, before which `~` or `=` may stand.
    threshold_at: usize,
    /// The index in argv of the first argument after the options; for XADD that is the ID.
    end: usize,
}

impl XaddOptions {
    /// Parses the options of XADD or XTRIM from `argv[2]` on. The options of XADD end at the first
    /// word that is not an option.
    fn parse(ctx: &Ctx, xadd: bool) -> Result<XaddOptions, Error> {
        let mut options = XaddOptions {
            no_mkstream: false,
            trim: None,
            approximate: false,
            limit: None,
            policy: None,
            threshold_at: 0,
            end: 2,
        };
        while options.end < ctx.argv.len() {
            let at = options.end;
            let more = ctx.argv.len() - 1 - at;
            if more > 0 && (ctx.is(at, "maxlen") || ctx.is(at, "minid")) {
                options.parse_trim(ctx)?;
            } else if more > 0 && ctx.is(at, "limit") {
                let limit = ctx.int(at + 1)?;
                options.limit = Some(
                    limit
                        .try_into()
                        .map_err(|_| Error::of("ERR The LIMIT argument must be >= 0."))?,
                );
                options.end += 2;
            } else if xadd && ctx.is(at, "nomkstream") {
                options.no_mkstream = true;
                options.end += 1;
            } else if let Some(policy) = parse_policy(ctx, at).filter(|_| options.policy.is_none())
            {
                options.policy = Some(policy);
                options.end += 1;
            } else if xadd {
                break;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(options)
    }

    /// MAXLEN | MINID [= | ~] threshold
    fn parse_trim(&mut self, ctx: &Ctx) -> Result<(), Error> {
        if self.trim.is_some() {
            return Err(Error::of(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let mut at = self.end + 1;
        if matches!(ctx.argv[at], b"~" | b"=") && at + 1 < ctx.argv.len() {
            self.approximate = ctx.argv[at] == b"~";
            at += 1;
        }
        self.trim = Some(if ctx.is(self.end, "maxlen") {
            let max = ctx.int(at)?;
            let max = max
                .try_into()
                .map_err(|_| Error::of("ERR The MAXLEN argument must be >= 0."))?;
            Trim::MaxLen(max)
        } else {
            Trim::MinId(parse_id(ctx.argv[at], 0)?)
        });
        self.threshold_at = at;
        self.end = at + 1;
        Ok(())
    }

    /// Refuses options of XADD and XTRIM that contradict each other. An approximate trim with a
    /// LIMIT is propagated as an exact trim with the same LIMIT, so the LIMIT is ignored in
    /// commands of a primary, of the AOF and of a node that gives slots away.
    fn check(&mut self, ctx: &Ctx) -> Result<(), Error> {
        if ctx.client.must_obey() {
            self.limit = Some(0).filter(|_| self.approximate);
        }
        match (self.limit, self.trim) {
            (Some(1..), None) => Err(Error::of(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            )),
            (Some(_), _)
                if !self.approximate && (self.trim.is_some() || ctx.cmd.name == "xadd") =>
            {
                Err(Error::of(
                    "ERR syntax error, LIMIT cannot be used without the special ~ option",
                ))
            }
            (_, None) if ctx.cmd.name == "xtrim" => Err(Error::of(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            )),
            _ => Ok(()),
        }
    }

    fn precision(&self, server: &Server) -> Precision {
        if !self.approximate {
            return Precision::Exact;
        }
        let limit = match self.limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => Some(
                match server.config.stream_node_max_entries.saturating_mul(100) {
                    0 => 10_000,
                    limit => limit.min(DEFAULT_LIMIT_MAX),
                },
            ),
        };
        Precision::Approximate { limit }
    }

    fn trim(&self, stream: &mut Stream, precision: Precision) -> u64 {
        let policy = self.policy.unwrap_or(RefPolicy::Keep);
        self.trim
            .map_or(0, |trim| stream.trim(trim, precision, policy))
    }

    /// The threshold for which an exact trim has the result of this approximate one: the remaining
    /// length, or the first ID. `None` for an exact trim.
    fn left(&self, stream: &Stream) -> Option<Vec<u8>> {
        let log = &stream.log;
        match self.trim.filter(|_| self.approximate)? {
            Trim::MaxLen(_) => Some(log.len().to_string().into()),
            Trim::MinId(min) if log.is_empty() => Some(id_text(min)),
            Trim::MinId(_) => Some(id_text(log.first_id())),
        }
    }

    /// Propagates XADD or XTRIM with its results in place of `~` and `*`: the exact threshold of
    /// the trim, and the ID of the entry.
    fn propagate_result(&self, ctx: &mut Ctx, left: Option<&[u8]>, id: Option<&[u8]>) {
        let mut argv = ctx.argv.to_vec();
        if let Some(left) = left {
            argv[self.threshold_at - 1] = b"=";
            argv[self.threshold_at] = left;
        }
        if let Some(id) = id {
            argv[self.end] = id;
        }
        ctx.rewrite(&argv);
    }
}

/// KEEPREF | DELREF | ACKED
fn parse_policy(ctx: &Ctx, at: usize) -> Option<RefPolicy> {
    if ctx.is(at, "keepref") {
        Some(RefPolicy::Keep)
    } else if ctx.is(at, "delref") {
        Some(RefPolicy::Delete)
    } else if ctx.is(at, "acked") {
        Some(RefPolicy::Acked)
    } else {
        None
    }
}

/// Parses the ID of XADD: `*`, `ms-*`, `ms-seq` or `ms`.
fn parse_new_id(text: &[u8]) -> Result<NewId, Error> {
    if text == b"*" {
        return Ok(NewId::Auto);
    }
    match text.strip_suffix(b"-*") {
        Some(ms) if ms.contains(&b'-') || text.len() > MAX_ID_CHARS => Err(INVALID_ID),
        Some(ms) => Ok(NewId::AutoSeq(parse_id(ms, 0)?.ms)),
        None => Ok(NewId::Exact(parse_id(text, 0)?)),
    }
}

impl From<AddError> for Error {
    fn from(error: AddError) -> Error {
        Error::of(match error {
            AddError::Exhausted => {
                "ERR The stream has exhausted the last possible ID, unable to add more items"
            }
            AddError::IdTooSmall => {
                "ERR The ID specified in XADD is equal or smaller than the target stream top item"
            }
            AddError::TooLarge => "ERR Elements are too large to be stored",
        })
    }
}

/// XADD key [NOMKSTREAM] [KEEPREF | DELREF | ACKED] [MAXLEN | MINID [= | ~] threshold [LIMIT
/// count]] * | id field value [field value ...]
pub fn xadd(ctx: &mut Ctx) -> CmdResult {
    let mut options = XaddOptions::parse(ctx, true)?;
    let wanted = ctx
        .argv
        .get(options.end)
        .map_or(Ok(NewId::Auto), |text| parse_new_id(text))?;
    options.check(ctx)?;
    let fields = ctx.argv.get(options.end + 1..).unwrap_or(&[]);
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(Error::arity("xadd"));
    }
    if wanted == NewId::Exact(StreamId::MIN) {
        return Err(Error::of(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let key = ctx.argv[1];
    let (limits, precision) = (limits(ctx.server), options.precision(ctx.server));
    let now_ms = ctx.server.clock.now_ms as u64;
    let propagated = ctx.server.propagation.wanted();
    let mut created = None;
    let stream = match ctx.server.lookup_write(ctx.client, key) {
        Some(entry) => Stream::of_mut(entry)?,
        None if options.no_mkstream => {
            ctx.client.reply.null();
            return Ok(());
        }
        None => created.insert(Box::<Stream>::default()),
    };
    let id = stream.log.append(wanted, now_ms, fields, limits)?;
    let trimmed = options.trim(stream, precision);
    let left = if propagated {
        options.left(stream)
    } else {
        None
    };
    if let Some(stream) = created {
        add_stream(ctx, key, stream);
    }
    ctx.dirty(1);
    ctx.changed(key, events::STREAM, "xadd");
    if trimmed > 0 {
        let db = ctx.client.db;
        ctx.server.notify(events::STREAM, "xtrim", key, db);
    }
    if propagated && (options.approximate || !matches!(wanted, NewId::Exact(_))) {
        let mut buf = IdBuf::new();
        options.propagate_result(ctx, left.as_deref(), Some(id.format(&mut buf)));
    }
    reply_id(&mut ctx.client.reply, id);
    Ok(())
}

/// Stores a stream under a key that does not exist.
pub fn add_stream(ctx: &mut Ctx, key: &[u8], stream: Box<Stream>) {
    let value = New::Obj(Value::Stream(stream));
    ctx.server
        .set_key(ctx.client.db, key, kind::STREAM, value, Ttl::Clear);
}

/// XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count] [KEEPREF | DELREF | ACKED]
pub fn xtrim(ctx: &mut Ctx) -> CmdResult {
    let mut options = XaddOptions::parse(ctx, false)?;
    options.check(ctx)?;
    let key = ctx.argv[1];
    let precision = options.precision(ctx.server);
    let Some(stream) = stream_mut(ctx, key)? else {
        ctx.client.reply.integer(0);
        return Ok(());
    };
    let trimmed = options.trim(stream, precision);
    let left = options.left(stream);
    if trimmed > 0 {
        ctx.dirty(trimmed);
        ctx.changed(key, events::STREAM, "xtrim");
    }
    if trimmed > 0 && options.approximate {
        options.propagate_result(ctx, left.as_deref(), None);
    }
    ctx.client.reply.integer(trimmed as i64);
    Ok(())
}

/// XLEN key
pub fn xlen(ctx: &mut Ctx) -> CmdResult {
    let len = stream_ref(ctx, ctx.argv[1])?.map_or(0, |stream| stream.log.len());
    ctx.client.reply.integer(len as i64);
    Ok(())
}

/// XRANGE key start end [COUNT count]
pub fn xrange(ctx: &mut Ctx) -> CmdResult {
    xrange_generic(ctx, 2, 3)
}

/// XREVRANGE key end start [COUNT count]
pub fn xrevrange(ctx: &mut Ctx) -> CmdResult {
    xrange_generic(ctx, 3, 2)
}

/// XRANGE and XREVRANGE: `start_at` and `end_at` are the indexes in argv of the first and last ID.
fn xrange_generic(ctx: &mut Ctx, start_at: usize, end_at: usize) -> CmdResult {
    let (start, end) = (
        parse_start(ctx.argv[start_at])?,
        parse_end(ctx.argv[end_at])?,
    );
    let mut count = usize::MAX;
    let mut at = 4;
    while at < ctx.argv.len() {
        if !ctx.is(at, "count") || at + 1 == ctx.argv.len() {
            return Err(Error::SYNTAX);
        }
        count = parse_count(ctx, at + 1)?;
        at += 2;
    }
    let Some(entry) = ctx.server.lookup_read(ctx.client, ctx.argv[1]) else {
        ctx.client.reply.array(0);
        return Ok(());
    };
    let log = &Stream::of(entry)?.log;
    let reply = &mut ctx.client.reply;
    if count == 0 {
        reply.null_array();
    } else if start_at < end_at {
        reply_entries(reply, log.range(start, end), count);
    } else {
        reply_entries(reply, log.rev_range(start, end), count);
    }
    Ok(())
}

/// XDEL key id [id ...]
pub fn xdel(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    if stream_mut(ctx, key)?.is_none() {
        ctx.client.reply.integer(0);
        return Ok(());
    }
    let ids = parse_ids(ctx, 2)?;
    let mut deleted = 0;
    if let Some(stream) = stream_mut(ctx, key)? {
        deleted = ids.iter().filter(|&&id| stream.log.delete(id)).count();
    }
    entries_deleted(ctx, key, deleted);
    ctx.client.reply.integer(deleted as i64);
    Ok(())
}

/// Counts and notifies that `deleted` entries were removed from a stream by ID.
pub fn entries_deleted(ctx: &mut Ctx, key: &[u8], deleted: usize) {
    if deleted > 0 {
        ctx.dirty(deleted as u64);
        ctx.changed(key, events::STREAM, "xdel");
    }
}

/// The number with which XDELEX and XACKDEL reply for an ID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    NotFound = -1,
    Deleted = 1,
    /// With the option ACKED, the entry is kept, as a group still refers to it.
    Referenced = 2,
}

/// The arguments of XDELEX and XACKDEL after the key and the group.
pub struct DeleteArgs {
    pub policy: RefPolicy,
    pub ids: Vec<StreamId>,
}

impl DeleteArgs {
    /// Parses `[KEEPREF | DELREF | ACKED] IDS numids id [id ...]` from `argv[at]` on, with the
    /// option before or after IDS; of several IDS the last counts. A key of another type is an
    /// error before any error in the arguments, and without a key or a group no ID is parsed.
    pub fn parse(ctx: &mut Ctx, mut at: usize) -> Result<DeleteArgs, Error> {
        let group = (at == 3).then(|| ctx.argv[2]);
        let missing = match ctx.server.lookup_write(ctx.client, ctx.argv[1]) {
            Some(entry) => {
                let stream = Stream::of_mut(entry)?;
                group.is_some_and(|name| stream.group(name).is_none())
            }
            None => true,
        };
        let (mut policy, mut ids) = (None, None);
        while at < ctx.argv.len() {
            if let Some(found) = parse_policy(ctx, at).filter(|_| policy.is_none()) {
                policy = Some(found);
                at += 1;
            } else if ctx.is(at, "ids") && at + 1 < ctx.argv.len() {
                let text = "ERR Number of IDs must be a positive integer";
                let n = ctx.int_in(at + 1, 1, i64::MAX, text)? as usize;
                let rest = &ctx.argv[at + 2..];
                let texts = rest.get(..n).ok_or(Error::of(
                    "ERR The `numids` parameter must match the number of arguments",
                ))?;
                ids = Some(texts);
                at += 2 + n;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        let texts = ids.ok_or(Error::SYNTAX)?;
        let ids = texts
            .iter()
            .map(|text| match missing {
                true => Ok(StreamId::MIN),
                false => parse_id(text, 0),
            })
            .collect::<Result<_, _>>()?;
        Ok(DeleteArgs {
            policy: policy.unwrap_or(RefPolicy::Keep),
            ids,
        })
    }

    /// Deletes one entry for XDELEX or XACKDEL. With DELREF, references of groups to a missing
    /// entry are removed, too; with ACKED, an ID to which a group refers is reported as such, even
    /// if there is no entry.
    pub fn delete(&self, stream: &mut Stream, id: StreamId) -> Deletion {
        match self.policy {
            RefPolicy::Acked if stream.is_referenced(id) => {
                return Deletion::Referenced;
            }
            RefPolicy::Delete => stream.unreference(id),
            _ => {}
        }
        if stream.log.delete(id) {
            Deletion::Deleted
        } else {
            Deletion::NotFound
        }
    }
}

/// XDELEX key [KEEPREF | DELREF | ACKED] IDS numids id [id ...]
pub fn xdelex(ctx: &mut Ctx) -> CmdResult {
    let args = DeleteArgs::parse(ctx, 2)?;
    let key = ctx.argv[1];
    let Some(entry) = ctx.server.lookup_write(ctx.client, key) else {
        reply_deletions(
            &mut ctx.client.reply,
            args.ids.iter().map(|_| Deletion::NotFound),
        );
        return Ok(());
    };
    let stream = Stream::of_mut(entry)?;
    let pending = |stream: &Stream| {
        stream
            .groups()
            .map(|(_, g)| g.pending_count())
            .sum::<usize>()
    };
    let pending_before = pending(stream);
    let done: Vec<Deletion> = args.ids.iter().map(|&id| args.delete(stream, id)).collect();
    let unreferenced = pending_before - pending(stream);
    let deleted = done.iter().filter(|&&d| d == Deletion::Deleted).count();
    ctx.dirty(unreferenced as u64);
    entries_deleted(ctx, key, deleted);
    reply_deletions(&mut ctx.client.reply, done.into_iter());
    Ok(())
}

/// Replies with the results of XDELEX or XACKDEL.
pub fn reply_deletions(reply: &mut ReplyBuf, done: impl ExactSizeIterator<Item = Deletion>) {
    reply.array(done.len());
    done.for_each(|deletion| reply.integer(deletion as i64));
}

/// XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]
pub fn xsetid(ctx: &mut Ctx) -> CmdResult {
    let id = parse_id(ctx.argv[2], 0)?;
    let (mut entries_added, mut max_deleted) = (None, StreamId::MIN);
    for at in (3..ctx.argv.len()).step_by(2) {
        let more = at + 1 < ctx.argv.len();
        if more && ctx.is(at, "entriesadded") {
            let n = ctx.int(at + 1)?;
            let n =
                u64::try_from(n).map_err(|_| Error::of("ERR entries_added must be positive"))?;
            entries_added = Some(n);
        } else if more && ctx.is(at, "maxdeletedid") {
            max_deleted = parse_id(ctx.argv[at + 1], 0)?;
            if id < max_deleted {
                return Err(Error::of(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let log = &mut stream_mut(ctx, ctx.argv[1])?.ok_or(Error::NO_SUCH_KEY)?.log;
    if id < log.max_deleted_id() {
        return Err(Error::of(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    let newest = log.rev_range(StreamId::MIN, StreamId::MAX).next();
    if newest.is_some_and(|entry| id < entry.id) {
        return Err(Error::of(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if entries_added.is_some_and(|added| log.len() > added) {
        return Err(Error::of(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    log.set_last_id(id);
    if let Some(added) = entries_added {
        log.set_entries_added(added);
    }
    if max_deleted != StreamId::MIN {
        log.set_max_deleted_id(max_deleted);
    }
    ctx.client.reply.ok();
    group_changed(ctx, ctx.argv[1], "xsetid");
    Ok(())
}
