//! The commands of publish and subscribe; `crate::pubsub` keeps the subscriptions and delivers
//! messages.
//!
//! SUBSCRIBE and similar commands send no reply but a message for each channel, in RESP3 a push. So
//! one SUBSCRIBE of several channels sends several messages, even under CLIENT REPLY OFF.

use crate::client::flag;
use crate::client::subscriptions::ChannelKind;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::execute::charge;
use crate::member;
use crate::pubsub::{self, Subscribers};
use crate::util::glob::glob_match;

const SUBSCRIBE: Flags = PUBSUB | NOSCRIPT | LOADING | STALE | IN_SUBSCRIBED;
const ASK: Flags = PUBSUB | LOADING | STALE;
/// A published message is propagated to replicas, so CLIENT PAUSE WRITE holds it back.
const PUBLISH: Flags = PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("psubscribe", psubscribe, -2, SUBSCRIBE, NONE_CAT),
    cmd("publish", publish, 3, PUBLISH, NONE_CAT),
    cmd("pubsub", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("channels", pubsub_channels, -2, ASK, NONE_CAT),
        cmd("help", pubsub_help, 2, LOADING | STALE, NONE_CAT),
        cmd("numpat", pubsub_numpat, 2, ASK, NONE_CAT),
        cmd("numsub", pubsub_numsub, -2, ASK, NONE_CAT),
        cmd("shardchannels", pubsub_shardchannels, -2, ASK, NONE_CAT),
        cmd("shardnumsub", pubsub_shardnumsub, -2, ASK, NONE_CAT),
    ]),
    cmd("punsubscribe", punsubscribe, -1, SUBSCRIBE, NONE_CAT),
    cmd("spublish", spublish, 3, PUBLISH, NONE_CAT).keys(&[key_at(1, NOT_KEY)]),
    cmd("ssubscribe", ssubscribe, -2, SUBSCRIBE, NONE_CAT).keys(&[key(
        NOT_KEY,
        index(1),
        range(-1, 1, 0),
    )]),
    cmd("subscribe", subscribe, -2, SUBSCRIBE, NONE_CAT),
    cmd("sunsubscribe", sunsubscribe, -1, SUBSCRIBE, NONE_CAT).keys(&[key(
        NOT_KEY,
        index(1),
        range(-1, 1, 0),
    )]),
    cmd("unsubscribe", unsubscribe, -1, SUBSCRIBE, NONE_CAT),
];

/// SUBSCRIBE channel [channel ...]
fn subscribe(ctx: &mut Ctx) -> CmdResult {
    subscribe_generic(ctx, ChannelKind::Channel, "SUBSCRIBE")
}

/// PSUBSCRIBE pattern [pattern ...]
fn psubscribe(ctx: &mut Ctx) -> CmdResult {
    subscribe_generic(ctx, ChannelKind::Pattern, "PSUBSCRIBE")
}

/// SSUBSCRIBE shardchannel [shardchannel ...]
fn ssubscribe(ctx: &mut Ctx) -> CmdResult {
    subscribe_generic(ctx, ChannelKind::Shard, "SSUBSCRIBE")
}

fn subscribe_generic(ctx: &mut Ctx, kind: ChannelKind, name: &str) -> CmdResult {
    // A client that gets no messages, such as a script's, must not subscribe. In MULTI, RESP2
    // clients may subscribe to channels, but not to shard channels, as in Redis.
    let in_exec = ctx.client.has(flag::IN_EXEC) && kind != ChannelKind::Shard;
    if ctx.client.has(flag::DENY_BLOCKING) && !in_exec {
        return Err(Error::new(format!(
            "ERR {name} isn't allowed for a DENY BLOCKING client"
        )));
    }
    for channel in &ctx.argv[1..] {
        pubsub::subscribe(ctx.server, ctx.client, kind, channel);
        pubsub::confirm(
            ctx.server,
            ctx.client,
            kind.subscribe_word(),
            kind,
            Some(channel),
        );
    }
    Ok(())
}

/// UNSUBSCRIBE [channel [channel ...]]
fn unsubscribe(ctx: &mut Ctx) -> CmdResult {
    unsubscribe_generic(ctx, ChannelKind::Channel)
}

/// PUNSUBSCRIBE [pattern [pattern ...]]
fn punsubscribe(ctx: &mut Ctx) -> CmdResult {
    unsubscribe_generic(ctx, ChannelKind::Pattern)
}

/// SUNSUBSCRIBE [shardchannel [shardchannel ...]]
fn sunsubscribe(ctx: &mut Ctx) -> CmdResult {
    unsubscribe_generic(ctx, ChannelKind::Shard)
}

fn unsubscribe_generic(ctx: &mut Ctx, kind: ChannelKind) -> CmdResult {
    let word = kind.unsubscribe_word();
    let all: Vec<Box<[u8]>>;
    let mut channels: Vec<&[u8]> = ctx.argv[1..].to_vec();
    if channels.is_empty() {
        all = pubsub::names_of(ctx.client, kind);
        channels = all.iter().map(|name| &**name).collect();
        if channels.is_empty() {
            pubsub::confirm(ctx.server, ctx.client, word, kind, None);
        }
    }
    for channel in channels {
        pubsub::unsubscribe(ctx.server, ctx.client, kind, channel);
        pubsub::confirm(ctx.server, ctx.client, word, kind, Some(channel));
    }
    Ok(())
}

/// PUBLISH channel message
fn publish(ctx: &mut Ctx) -> CmdResult {
    let offset = ctx.server.offset_of_message(ctx.client);
    let receivers = pubsub::publish(ctx.server, ctx.argv[1], ctx.argv[2], offset);
    spread(ctx, false);
    ctx.client.reply.integer(receivers as i64);
    Ok(())
}

/// Sends a published message to the other nodes of the cluster, which include the replicas; without
/// a cluster to the replicas.
fn spread(ctx: &mut Ctx, sharded: bool) {
    if ctx.server.cluster.is_some() {
        return member::publish(ctx.server, sharded, ctx.argv[1], ctx.argv[2]);
    }
    let propagation = &mut ctx.server.propagation;
    propagation.to_replicas(ctx.client.db, ctx.argv);
}

/// SPUBLISH shardchannel message
fn spublish(ctx: &mut Ctx) -> CmdResult {
    let offset = ctx.server.offset_of_message(ctx.client);
    let (channel, text) = (ctx.argv[1], ctx.argv[2]);
    let receivers = pubsub::publish_shard(ctx.server, channel, text, offset);
    charge::shard_message(ctx.server, channel, text, receivers);
    spread(ctx, true);
    ctx.client.reply.integer(receivers as i64);
    Ok(())
}

/// PUBSUB CHANNELS [pattern]
fn pubsub_channels(ctx: &mut Ctx) -> CmdResult {
    channels_generic(ctx, ChannelKind::Channel)
}

/// PUBSUB SHARDCHANNELS [pattern]
fn pubsub_shardchannels(ctx: &mut Ctx) -> CmdResult {
    channels_generic(ctx, ChannelKind::Shard)
}

fn channels_generic(ctx: &mut Ctx, kind: ChannelKind) -> CmdResult {
    if ctx.argv.len() > 3 {
        return Err(Error::subcommand_syntax("PUBSUB", ctx.argv[1]));
    }
    let pattern = ctx.argv.get(2);
    let reply = &mut ctx.client.reply;
    let at = reply.begin_deferred();
    let mut count = 0;
    for name in ctx.server.pubsub.of(kind).names() {
        if pattern.is_none_or(|pattern| glob_match(pattern, name)) {
            reply.bulk(name);
            count += 1;
        }
    }
    reply.end_array(at, count);
    Ok(())
}

/// PUBSUB NUMPAT
fn pubsub_numpat(ctx: &mut Ctx) -> CmdResult {
    ctx.client
        .reply
        .integer(ctx.server.pubsub.patterns.len() as i64);
    Ok(())
}

/// PUBSUB NUMSUB [channel [channel ...]]
fn pubsub_numsub(ctx: &mut Ctx) -> CmdResult {
    numsub_generic(ctx, ChannelKind::Channel)
}

/// PUBSUB SHARDNUMSUB [shardchannel [shardchannel ...]]
fn pubsub_shardnumsub(ctx: &mut Ctx) -> CmdResult {
    numsub_generic(ctx, ChannelKind::Shard)
}

fn numsub_generic(ctx: &mut Ctx, kind: ChannelKind) -> CmdResult {
    let table: &Subscribers = ctx.server.pubsub.of(kind);
    let channels = &ctx.argv[2..];
    ctx.client.reply.array(2 * channels.len());
    for channel in channels {
        ctx.client.reply.bulk(channel);
        ctx.client
            .reply
            .integer(table.get(channel).map_or(0, |clients| clients.len()) as i64);
    }
    Ok(())
}

/// PUBSUB HELP
fn pubsub_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
