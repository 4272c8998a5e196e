//! Commands on groups of a stream: XGROUP, XACK, XACKDEL. A group has consumers that divide the
//! stream's entries among them, the last delivered ID, and counters.

use super::log::{DeleteArgs, Deletion, add_stream, entries_deleted, reply_deletions};
use super::*;
use crate::command::ctx::CmdResult;
use crate::ds::stream::StreamLog;
use crate::error::{excerpt, said};

const NO_KEY: Error = Error::of(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the \
     MKSTREAM option to create an empty stream automatically.",
);

/// The NOGROUP error for a group that does not exist, or whose key does not exist.
pub fn no_group_of_key(group: &[u8], key: &[u8]) -> Error {
    let (group, key) = (said(group), said(key));
    Error::new(format!(
        "NOGROUP No such consumer group '{group}' for key name '{key}'"
    ))
}

/// The error for a subcommand of XGROUP or XINFO that is unknown or has wrong arguments, with the
/// subcommand's name as the client sent it.
pub fn bad_subcommand(ctx: &Ctx, container: &str) -> Error {
    let name = excerpt(ctx.argv[1], 128);
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ))
}

/// The options of XGROUP CREATE and XGROUP SETID after the ID.
#[derive(Default)]
struct CreateOptions {
    mkstream: bool,
    entries_read: Option<u64>,
}

impl CreateOptions {
    fn parse(ctx: &Ctx, create: bool) -> Result<CreateOptions, Error> {
        let mut options = CreateOptions::default();
        let mut at = 5;
        while at < ctx.argv.len() {
            if create && ctx.is(at, "mkstream") {
                options.mkstream = true;
                at += 1;
            } else if options.entries_read.is_none()
                && ctx.is(at, "entriesread")
                && at + 1 < ctx.argv.len()
            {
                options.entries_read = match ctx.int(at + 1)? {
                    -1 => None,
                    n => Some(n.try_into().map_err(|_| {
                        Error::of("ERR value for ENTRIESREAD must be positive or -1")
                    })?),
                };
                at += 2;
            } else {
                return Err(bad_subcommand(ctx, "XGROUP"));
            }
        }
        Ok(options)
    }

    /// The value of ENTRIESREAD, limited to `entries_added`, the number of entries ever added to
    /// the stream.
    fn entries_read_of(&self, entries_added: u64) -> Option<u64> {
        self.entries_read.map(|read| read.min(entries_added))
    }
}

/// The stream under the key of an XGROUP subcommand, which must exist.
fn existing<'s>(ctx: &'s mut Ctx) -> Result<&'s mut Stream, Error> {
    stream_mut(ctx, ctx.argv[2])?.ok_or(NO_KEY)
}

/// The group that an XGROUP subcommand names, with the entries of its stream.
fn existing_group<'s>(ctx: &'s mut Ctx) -> Result<(&'s mut StreamLog, &'s mut Group), Error> {
    let (key, name) = (ctx.argv[2], ctx.argv[3]);
    existing(ctx)?
        .log_and_group(name)
        .ok_or_else(|| no_group_of_key(name, key))
}

/// XGROUP CREATE key group id | $ [MKSTREAM] [ENTRIESREAD entries-read]
pub fn xgroup_create(ctx: &mut Ctx) -> CmdResult {
    let options = CreateOptions::parse(ctx, true)?;
    let (key, name, place) = (ctx.argv[2], ctx.argv[3], ctx.argv[4]);
    let mut created = None;
    let stream = match stream_mut(ctx, key)? {
        Some(stream) => stream,
        None if options.mkstream => created.insert(Box::<Stream>::default()),
        None => return Err(NO_KEY),
    };
    let last_id = match place {
        b"$" => stream.log.last_id(),
        _ => parse_id(place, 0)?,
    };
    let entries_read = options.entries_read_of(stream.log.entries_added());
    if stream.create_group(name, last_id, entries_read).is_none() {
        return Err(Error::of("BUSYGROUP Consumer Group name already exists"));
    }
    if let Some(stream) = created {
        add_stream(ctx, key, stream);
        let db = ctx.client.db;
        ctx.server.signal_modified(Some(ctx.client), db, key);
    }
    ctx.client.reply.ok();
    group_changed(ctx, key, "xgroup-create");
    Ok(())
}

/// XGROUP SETID key group id | $ [ENTRIESREAD entries-read]
pub fn xgroup_setid(ctx: &mut Ctx) -> CmdResult {
    let options = CreateOptions::parse(ctx, false)?;
    let place = ctx.argv[4];
    let (log, group) = existing_group(ctx)?;
    // Unlike XGROUP CREATE, XGROUP SETID accepts the IDs `-` and `+`.
    group.last_id = match place {
        b"$" => log.last_id(),
        _ => parse_bound(place, 0)?,
    };
    group.entries_read = options.entries_read_of(log.entries_added());
    ctx.client.reply.ok();
    group_changed(ctx, ctx.argv[2], "xgroup-setid");
    Ok(())
}

/// XGROUP DESTROY key group
pub fn xgroup_destroy(ctx: &mut Ctx) -> CmdResult {
    let (key, name) = (ctx.argv[2], ctx.argv[3]);
    let destroyed = existing(ctx)?.destroy_group(name);
    if destroyed {
        group_changed(ctx, key, "xgroup-destroy");
        // Clients blocked in XREADGROUP on the destroyed group run their command again, and get an
        // error.
        let db = ctx.client.db;
        ctx.server.signal_key_ready(db, key);
    }
    ctx.client.reply.integer(destroyed as i64);
    Ok(())
}

/// XGROUP CREATECONSUMER key group consumer
pub fn xgroup_createconsumer(ctx: &mut Ctx) -> CmdResult {
    let now_ms = ctx.server.clock.now_ms;
    let name = ctx.argv[4];
    let (_, group) = existing_group(ctx)?;
    let created = group.create_consumer(name, now_ms).is_some();
    if created {
        group_changed(ctx, ctx.argv[2], "xgroup-createconsumer");
    }
    ctx.client.reply.integer(created as i64);
    Ok(())
}

/// XGROUP DELCONSUMER key group consumer
pub fn xgroup_delconsumer(ctx: &mut Ctx) -> CmdResult {
    let name = ctx.argv[4];
    let (_, group) = existing_group(ctx)?;
    let pending = group.delete_consumer(name);
    if pending.is_some() {
        group_changed(ctx, ctx.argv[2], "xgroup-delconsumer");
    }
    ctx.client.reply.integer(pending.unwrap_or(0) as i64);
    Ok(())
}

/// XGROUP HELP
pub fn xgroup_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CREATE <key> <groupname> <id|$> [option]",
        "    Create a new consumer group. Options are:",
        "    * MKSTREAM",
        "      Create the empty stream if it does not exist.",
        "    * ENTRIESREAD entries_read",
        "      Set the group's entries_read counter (internal use).",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}

/// XACK key group id [id ...]
pub fn xack(ctx: &mut Ctx) -> CmdResult {
    let (key, name) = (ctx.argv[1], ctx.argv[2]);
    if stream_mut(ctx, key)?
        .and_then(|stream| stream.group(name))
        .is_none()
    {
        ctx.client.reply.integer(0);
        return Ok(());
    }
    let ids = parse_ids(ctx, 3)?;
    let mut acked = 0;
    if let Some(group) = stream_mut(ctx, key)?.and_then(|stream| stream.group_mut(name)) {
        acked = ids.iter().filter(|&&id| group.ack(id)).count();
    }
    ctx.dirty(acked as u64);
    ctx.client.reply.integer(acked as i64);
    Ok(())
}

/// XACKDEL key group [KEEPREF | DELREF | ACKED] IDS numids id [id ...]
pub fn xackdel(ctx: &mut Ctx) -> CmdResult {
    let args = DeleteArgs::parse(ctx, 3)?;
    let (key, name) = (ctx.argv[1], ctx.argv[2]);
    let stream = stream_mut(ctx, key)?.filter(|stream| stream.group(name).is_some());
    let Some(stream) = stream else {
        reply_deletions(
            &mut ctx.client.reply,
            args.ids.iter().map(|_| Deletion::NotFound),
        );
        return Ok(());
    };
    let mut done = Vec::with_capacity(args.ids.len());
    for &id in &args.ids {
        let acked = stream.group_mut(name).is_some_and(|group| group.ack(id));
        done.push(match acked {
            false => (false, Deletion::NotFound),
            true => (true, args.delete(stream, id)),
        });
    }
    let acked = done.iter().filter(|(acked, _)| *acked).count();
    let deleted = done.iter().filter(|(_, d)| *d == Deletion::Deleted).count();
    ctx.dirty(acked as u64);
    entries_deleted(ctx, key, deleted);
    // XACKDEL reports an entry that was pending and is no longer in the stream as deleted.
    let results = done.into_iter().map(|(acked, d)| match d {
        Deletion::NotFound if acked => Deletion::Deleted,
        d => d,
    });
    reply_deletions(&mut ctx.client.reply, results);
    Ok(())
}
