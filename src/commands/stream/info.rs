//! XINFO: describes a stream, its groups and their consumers.

use super::groups::{bad_subcommand, no_group_of_key};
use super::*;
use crate::command::ctx::CmdResult;

/// The default number of entries and pending entries of XINFO STREAM FULL.
const FULL_COUNT: usize = 10;

/// XINFO STREAM key [FULL [COUNT count]]
pub fn xinfo_stream(ctx: &mut Ctx) -> CmdResult {
    stream_ref(ctx, ctx.argv[2])?.ok_or(Error::NO_SUCH_KEY)?;
    let full = parse_full(ctx)?;
    let Some(entry) = ctx.server.lookup_no_touch(ctx.client, ctx.argv[2]) else {
        return Ok(());
    };
    let stream = Stream::of(entry)?;
    let reply = &mut ctx.client.reply;
    reply.map(if full.is_some() { 9 } else { 10 });
    reply_facts(reply, stream);
    match full {
        Some(count) => reply_full(reply, stream, count),
        None => reply_edges(reply, stream),
    }
    Ok(())
}

/// Parses FULL of XINFO STREAM: the maximum number of entries to show, `None` without FULL.
fn parse_full(ctx: &Ctx) -> Result<Option<usize>, Error> {
    match ctx.argv.len() {
        3 => Ok(None),
        4 if ctx.is(3, "full") => Ok(Some(FULL_COUNT)),
        6 if ctx.is(3, "full") && ctx.is(4, "count") => Ok(Some(match ctx.int(5)? {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(FULL_COUNT),
        })),
        _ => Err(bad_subcommand(ctx, "XINFO")),
    }
}

/// The seven pairs that XINFO STREAM replies with and without FULL.
fn reply_facts(reply: &mut ReplyBuf, stream: &Stream) {
    let log = &stream.log;
    reply.bulk(b"length");
    reply.integer(log.len() as i64);
    reply.bulk(b"radix-tree-keys");
    reply.integer(log.node_count() as i64);
    reply.bulk(b"radix-tree-nodes");
    reply.integer(radix_tree_nodes(log.nodes().map(|(id, _)| id.to_bytes())) as i64);
    reply.bulk(b"last-generated-id");
    reply_id(reply, log.last_id());
    reply.bulk(b"max-deleted-entry-id");
    reply_id(reply, log.max_deleted_id());
    reply.bulk(b"entries-added");
    reply.integer(log.entries_added() as i64);
    reply.bulk(b"recorded-first-entry-id");
    reply_id(reply, log.first_id());
}

/// The number of nodes of Redis's radix tree for these keys, which come in order: a leaf for each
/// key, a node for each prefix after which keys differ, and one for each run of bytes between two
/// such nodes.
fn radix_tree_nodes(keys: impl Iterator<Item = [u8; 16]>) -> usize {
    let mut nodes = 0;
    // The depths of the nodes after which keys differ, on the path from the root to the last key.
    // Between two depths that differ by more than one there is a run of bytes.
    let mut branches: Vec<usize> = Vec::new();
    let mut last: Option<[u8; 16]> = None;
    let run = |above: Option<&usize>, below: usize| usize::from(above.map_or(0, |a| a + 1) < below);
    for key in keys {
        nodes += 1;
        if let Some(last) = last {
            let depth = last.iter().zip(&key).take_while(|(a, b)| a == b).count();
            let mut below = 16;
            while let Some(&deepest) = branches.last().filter(|&&deepest| deepest > depth) {
                branches.pop();
                nodes += 1 + run(Some(&deepest), below);
                below = deepest;
            }
            if branches.last() != Some(&depth) {
                branches.push(depth);
            }
            nodes += run(branches.last(), below);
        }
        last = Some(key);
    }
    if last.is_none() {
        return 1;
    }
    let mut below = 16;
    while let Some(branch) = branches.pop() {
        nodes += 1 + run(Some(&branch), below);
        below = branch;
    }
    nodes + run(None, below)
}

fn reply_edges(reply: &mut ReplyBuf, stream: &Stream) {
    reply.bulk(b"groups");
    reply.integer(stream.group_count() as i64);
    let log = &stream.log;
    let first = log.range(StreamId::MIN, StreamId::MAX).next();
    let last = log.rev_range(StreamId::MIN, StreamId::MAX).next();
    for (name, entry) in [("first-entry", first), ("last-entry", last)] {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

fn reply_full(reply: &mut ReplyBuf, stream: &Stream, count: usize) {
    reply.bulk(b"entries");
    reply_entries(reply, stream.log.range(StreamId::MIN, StreamId::MAX), count);
    reply.bulk(b"groups");
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        reply_place(reply, stream, group);
        reply.bulk(b"pel-count");
        reply.integer(group.pending_count() as i64);
        reply.bulk(b"pending");
        reply.array(group.pending_count().min(count));
        for (&id, nack) in group.pending(..).take(count) {
            reply.array(4);
            reply_id(reply, id);
            reply.bulk(group.consumer(nack.consumer()).name());
            reply.integer(nack.delivery_time);
            reply.integer(nack.delivery_count as i64);
        }
        reply.bulk(b"consumers");
        reply_full_consumers(reply, group, count);
    }
}

/// The three pairs of XINFO about the position of a group: `last-delivered-id`, `entries-read`,
/// `lag`.
fn reply_place(reply: &mut ReplyBuf, stream: &Stream, group: &Group) {
    reply.bulk(b"last-delivered-id");
    reply_id(reply, group.last_id);
    reply.bulk(b"entries-read");
    match group.entries_read {
        Some(read) => reply.integer(read as i64),
        None => reply.null(),
    }
    reply.bulk(b"lag");
    match group.lag(&stream.log) {
        Some(lag) => reply.integer(lag),
        None => reply.null(),
    }
}

fn reply_full_consumers(reply: &mut ReplyBuf, group: &Group, count: usize) {
    reply.array(group.consumer_count());
    for (_, consumer) in group.consumers() {
        reply.map(5);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"seen-time");
        reply.integer(consumer.seen_time);
        reply.bulk(b"active-time");
        reply.integer(consumer.active_time);
        reply.bulk(b"pel-count");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"pending");
        reply.array(consumer.pending_count().min(count));
        for id in consumer.pending(..).take(count) {
            let nack = group.nack(id);
            reply.array(3);
            reply_id(reply, id);
            reply.integer(nack.map_or(0, |n| n.delivery_time));
            reply.integer(nack.map_or(0, |n| n.delivery_count as i64));
        }
    }
}

/// XINFO GROUPS key
pub fn xinfo_groups(ctx: &mut Ctx) -> CmdResult {
    let entry = ctx
        .server
        .lookup_read(ctx.client, ctx.argv[2])
        .ok_or(Error::NO_SUCH_KEY)?;
    let stream = Stream::of(entry)?;
    let reply = &mut ctx.client.reply;
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.integer(group.consumer_count() as i64);
        reply.bulk(b"pending");
        reply.integer(group.pending_count() as i64);
        reply_place(reply, stream, group);
    }
    Ok(())
}

/// XINFO CONSUMERS key group
pub fn xinfo_consumers(ctx: &mut Ctx) -> CmdResult {
    let (key, name) = (ctx.argv[2], ctx.argv[3]);
    let now_ms = ctx.server.clock.now_ms;
    let entry = ctx
        .server
        .lookup_read(ctx.client, key)
        .ok_or(Error::NO_SUCH_KEY)?;
    let group = Stream::of(entry)?
        .group(name)
        .ok_or_else(|| no_group_of_key(name, key))?;
    let reply = &mut ctx.client.reply;
    reply.array(group.consumer_count());
    for (_, consumer) in group.consumers() {
        let since = |time: i64| now_ms.saturating_sub(time).max(0);
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"pending");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"idle");
        reply.integer(since(consumer.seen_time));
        reply.bulk(b"inactive");
        reply.integer(if consumer.active_time < 0 {
            -1
        } else {
            since(consumer.active_time)
        });
    }
    Ok(())
}

/// XINFO HELP
pub fn xinfo_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number of radix tree nodes, counted by recursion, for `keys` whose first `depth` bytes
    /// are equal.
    fn naive(keys: &[[u8; 16]], depth: usize) -> usize {
        let agree = |at: usize| keys.iter().all(|key| key[at] == keys[0][at]);
        let end = (depth..16).find(|&at| !agree(at)).unwrap_or(16);
        let here = usize::from(end > depth) + 1;
        if end == 16 {
            return here;
        }
        let branches = keys.chunk_by(|a, b| a[end] == b[end]);
        here + branches.map(|keys| naive(keys, end + 1)).sum::<usize>()
    }

    fn count(ids: &[(u64, u64)]) -> usize {
        radix_tree_nodes(
            ids.iter()
                .map(|&(ms, seq)| StreamId::new(ms, seq).to_bytes()),
        )
    }

    /// The expected numbers are the `radix-tree-nodes` that Valkey 8.0 replies.
    #[test]
    fn radix_tree_nodes_as_valkey_counts_them() {
        assert_eq!(count(&[]), 1);
        assert_eq!(count(&[(1, 0)]), 2);
        assert_eq!(count(&[(10, 0), (12, 0)]), 6);
    }

    proptest! {
        #[test]
        fn radix_tree_nodes_agree_with_recursion(
            ids in proptest::collection::btree_set((prop_oneof![0u64..5, 250u64..260, any::<u64>()], 0u64..3), 1..20)
        ) {
            let ids: Vec<(u64, u64)> = ids.into_iter().collect();
            let keys: Vec<_> = ids.iter().map(|&(ms, seq)| StreamId::new(ms, seq).to_bytes()).collect();
            assert_eq!(count(&ids), naive(&keys, 0));
        }
    }
}
