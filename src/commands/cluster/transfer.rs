//! CLUSTER's subcommands that move slots with all their keys (the atomic slot migration of Valkey
//! 9): MIGRATESLOTS, GETSLOTMIGRATIONS, CANCELSLOTMIGRATIONS, and SYNCSLOTS, the messages between
//! the nodes.

use super::member;
use crate::client::flag;
use crate::client::reply::ReplyBuf;
use crate::cluster::name::Name;
use crate::cluster::transfer::ranges::Ranges;
use crate::cluster::transfer::request::{Establish, Sync, Wish, Word};
use crate::cluster::transfer::{Job, Side};
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::{Error, said};
use crate::member::transfer;

fn error(text: impl std::fmt::Display) -> Error {
    Error::new(format!("ERR {text}"))
}

/// CLUSTER MIGRATESLOTS SLOTSRANGE first last [first last ...] NODE node [SLOTSRANGE ...]
pub fn migrate_slots(ctx: &mut Ctx) -> CmdResult {
    let tls = ctx.server.config.tls_cluster;
    let member = member(ctx)?;
    if !member.machine.myself().is_primary() {
        return Err(error("Slot migration can only be used on primary nodes."));
    }
    let slots = member.machine.slots();
    if !slots.importing.is_empty() {
        return Err(error("Slots are being manually imported"));
    }
    if !slots.migrating.is_empty() {
        return Err(error("Slots are being manually migrated"));
    }
    if tls {
        return Err(error("Slots are not moved over TLS yet"));
    }
    let mut random = ctx.server.rng.split();
    let wishes = parse_wishes(ctx)?;
    let member = super::member(ctx)?;
    let now = member.now();
    member
        .transfers
        .export(now, &member.machine, wishes, &mut random);
    ctx.client.reply.ok();
    Ok(())
}

fn parse_wishes(ctx: &mut Ctx) -> Result<Vec<Wish>, Error> {
    let argv = ctx.argv;
    let mut wishes: Vec<Wish> = Vec::new();
    let mut at = 2;
    while at < argv.len() {
        if !ctx.is(at, "slotsrange") {
            return Err(Error::SYNTAX);
        }
        let (ranges, used) = Ranges::parse(&argv[at + 1..]).map_err(error)?;
        at += 1 + used;
        let member = member(ctx)?;
        let (transfers, machine) = (&member.transfers, &member.machine);
        transfers.check_ranges(machine, &ranges).map_err(error)?;
        if at + 1 >= argv.len() || !ctx.is(at, "node") {
            return Err(Error::SYNTAX);
        }
        let target = parse_node(ctx, argv[at + 1])?;
        at += 2;
        let shares = |other: &Wish| ranges.shared_slot(&other.0).is_some();
        if wishes.iter().any(shares) {
            return Err(error("Slot ranges in migrations overlap"));
        }
        super::member(ctx)?
            .transfers
            .check_idle(&ranges)
            .map_err(error)?;
        wishes.push((ranges, target));
    }
    Ok(wishes)
}

fn parse_node(ctx: &mut Ctx, text: &[u8]) -> Result<Name, Error> {
    let name = Name::parse(text);
    let name = name.ok_or_else(|| error(format!("Invalid node name: {}", said(text))))?;
    let machine = &member(ctx)?.machine;
    if !machine.knows(&name) {
        return Err(error(format!("Unknown node name: {name}")));
    }
    if machine.myself().name == name {
        return Err(error("Target node can not be this node."));
    }
    if !machine.is_primary(&name) {
        return Err(error("Target node is not a primary."));
    }
    Ok(name)
}

/// CLUSTER CANCELSLOTMIGRATIONS
pub fn cancel_slot_migrations(ctx: &mut Ctx) -> CmdResult {
    let member = member(ctx)?;
    let now = member.now();
    if !member.transfers.cancel(now) {
        return Err(error("No migrations ongoing"));
    }
    ctx.client.reply.ok();
    Ok(())
}

/// CLUSTER GETSLOTMIGRATIONS
pub fn get_slot_migrations(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let Some(member) = &ctx.server.cluster else {
        return Err(super::DISABLED);
    };
    let jobs = member.transfers.jobs();
    ctx.client.reply.array(jobs.len());
    for job in jobs {
        let collected = ctx.server.propagation.exports.len(&job.name);
        let client = job.link.filter(|_| job.side == Side::Export);
        let client = client.and_then(|id| ctx.server.net.clients.slot_of(id));
        let client = client.and_then(|slot| ctx.server.net.clients.get(slot));
        let queued = client.map_or(0, |c| c.reply.bytes());
        describe(&mut ctx.client.reply, job, (collected + queued) as u64);
    }
    Ok(())
}

fn describe(reply: &mut ReplyBuf, job: &Job, unsent: u64) {
    let nodes = [("target_node", job.target), ("source_node", job.source)];
    let nodes = nodes
        .iter()
        .filter_map(|(field, node)| Some((*field, (*node)?)));
    reply.map(10 + nodes.clone().count());
    let mut text = |field: &str, value: &str| {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    };
    text("name", &job.name.to_string());
    let operation = match job.side {
        Side::Export => "EXPORT",
        Side::Import => "IMPORT",
    };
    text("operation", operation);
    text("slot_ranges", &job.ranges.to_string());
    nodes.for_each(|(field, node)| text(field, &node.to_string()));
    let times = [
        ("create_time", job.created_s),
        ("last_update_time", job.updated_s),
        ("last_ack_time", job.heard_s),
    ];
    for (field, value) in times {
        reply.bulk(field.as_bytes());
        reply.integer(value);
    }
    for (field, value) in [("state", job.state.name()), ("message", &job.message)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (field, value) in [("cow_size", job.cow_bytes), ("remaining_repl_size", unsent)] {
        reply.bulk(field.as_bytes());
        reply.integer(value as i64);
    }
}

/// CLUSTER SYNCSLOTS subcommand [argument ...]: a message of another node about slots that move.
pub fn sync_slots(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let message = Sync::parse(&ctx.argv[2..]).map_err(error)?;
    // The stream from a primary repeats the SYNCSLOTS messages that the primary received, and the
    // AOF those that this server received before its restart.
    let replayed = ctx.client.replays();
    match message {
        Sync::Establish(request) if replayed => {
            let member = member(ctx)?;
            let now = member.now();
            member.transfers.follow(now, &request);
            ctx.also_propagate(ctx.argv);
            transfer::hide(ctx.server);
        }
        Sync::Establish(request) => return establish(ctx, &request),
        Sync::Finish(finish) if replayed => {
            let member = member(ctx)?;
            let now = member.now();
            // The error for an unknown transfer is ignored: the stream or the AOF may begin after
            // the transfer's ESTABLISH.
            let _ = member.transfers.finish(now, &finish);
            ctx.also_propagate(ctx.argv);
            transfer::hide(ctx.server);
        }
        Sync::Finish(_) => return Err(error("No such slot migration job")),
        Sync::Word(_) if replayed => {}
        Sync::Word(word) => return hear(ctx, word),
        Sync::Capabilities => {}
    }
    Ok(())
}

fn establish(ctx: &mut Ctx, request: &Establish) -> CmdResult {
    let client = ctx.client.id;
    if ctx.client.has(flag::MULTI | flag::SCRIPT | flag::SLOT_LINK) || ctx.client.is_detached() {
        return Err(error("A connection can't be used for slots now"));
    }
    let member = member(ctx)?;
    let now = member.now();
    let done = member
        .transfers
        .establish(now, &member.machine, request, client);
    done.map_err(error)?;
    ctx.client.set(flag::SLOT_IMPORT | flag::DENY_BLOCKING);
    transfer::hide(ctx.server);
    ctx.client.reply.ok();
    Ok(())
}

fn hear(ctx: &mut Ctx, word: Word) -> CmdResult {
    let client = ctx.client.id;
    let member = member(ctx)?;
    let now = member.now();
    member.transfers.hear(now, client, word).map_err(error)?;
    // From its first SYNCSLOTS message on, a connection gets no replies.
    ctx.client.set(flag::REPLY_OFF);
    Ok(())
}
