//! CLUSTER's subcommands on slots and their keys: SETSLOT, COUNTKEYSINSLOT, GETKEYSINSLOT,
//! FLUSHSLOT, and SLOTS and SHARDS, from which clients learn the owners of slots.

use super::change::{run_or_refuse, slot};
use super::member;
use crate::client::blocked::BlockKind;
use crate::client::flag;
use crate::cluster::SetSlot;
use crate::cluster::name::Name;
use crate::cluster::transfer::Side;
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::slot::SLOTS;
use crate::error::{Error, excerpt};
use crate::execute::{blocked, route};
use crate::member::transfer;
use crate::util::number::parse_i64;

/// The time for which SETSLOT without TIMEOUT waits for replicas.
const ACK_TIMEOUT_MS: i64 = 2000;

const SETSLOT_SYNTAX: Error =
    Error::of("ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP");

/// CLUSTER SLOTS
pub fn slots(ctx: &mut Ctx) -> CmdResult {
    let asker = route::asker(ctx.server, ctx.client);
    let reply = &mut ctx.client.reply;
    let member = ctx.server.cluster.as_deref();
    let member = member.ok_or(super::DISABLED)?;
    member.machine.reply_slots(&asker, reply);
    Ok(())
}

/// CLUSTER SHARDS
pub fn shards(ctx: &mut Ctx) -> CmdResult {
    let asker = route::asker(ctx.server, ctx.client);
    let reply = &mut ctx.client.reply;
    let member = ctx.server.cluster.as_deref();
    let member = member.ok_or(super::DISABLED)?;
    member.machine.reply_shards(&asker, reply);
    Ok(())
}

/// CLUSTER COUNTKEYSINSLOT slot
pub fn count_keys_in_slot(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slot = slot_below(ctx.int(2)?).ok_or(Error::of("ERR Invalid slot"))?;
    let count = ctx.server.slot_len(ctx.client.db, slot);
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// CLUSTER GETKEYSINSLOT slot count
pub fn get_keys_in_slot(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let (slot, count) = (slot_below(ctx.int(2)?), ctx.int(3)?);
    let (Some(slot), Ok(count)) = (slot, usize::try_from(count)) else {
        return Err(Error::of("ERR Invalid slot or number of keys"));
    };
    let keys = &ctx.server.data.dbs[ctx.client.db as usize].keys;
    let reply = &mut ctx.client.reply;
    let (header, mut found) = (reply.begin_deferred(), 0);
    for entry in keys.slot_keys(slot).take(count) {
        reply.bulk(entry.key());
        found += 1;
    }
    reply.end_array(header, found);
    Ok(())
}

fn slot_below(n: i64) -> Option<u16> {
    let slot = u16::try_from(n).ok();
    slot.filter(|slot| usize::from(*slot) < SLOTS)
}

/// CLUSTER FLUSHSLOT slot [ASYNC | SYNC]
pub fn flush_slot(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slot = slot(ctx.argv[2])?;
    let lazy = match ctx.argv.get(3) {
        None => ctx.server.config.lazyfree_lazy_user_flush,
        Some(_) if ctx.argv.len() > 4 => return Err(Error::SYNTAX),
        Some(_) if ctx.is(3, "async") => true,
        Some(_) if ctx.is(3, "sync") => false,
        Some(_) => return Err(Error::SYNTAX),
    };
    if ctx.server.pause.holds_slot(slot) {
        return Err(Error::of(
            "TRYAGAIN The slot is being handed over to another node",
        ));
    }
    let deleted = ctx.server.flush_slot(slot, lazy);
    transfer::flushed(ctx.server, Some(slot));
    ctx.dirty(deleted);
    ctx.client.reply.ok();
    Ok(())
}

/// CLUSTER SETSLOT slot MIGRATING node | IMPORTING node | NODE node | STABLE [TIMEOUT ms]
///
/// A primary first sends SETSLOT to its replicas, so that the move of a slot survives a failover.
/// SETSLOT waits until all replicas have acknowledged it, as in Valkey 8, and runs then.
pub fn set_slot(ctx: &mut Ctx) -> CmdResult {
    let of_primary = ctx.client.replays();
    let machine = &member(ctx)?.machine;
    if !machine.myself().is_primary() && !of_primary {
        return Err(Error::of("ERR Please use SETSLOT only with masters."));
    }
    let slot = slot(ctx.argv[2])?;
    check_no_transfer(ctx)?;
    let (change, end) = parse_change(ctx, slot)?;
    let timeout_ms = timeout_ms(ctx, end)?;
    if of_primary {
        return run_or_refuse(ctx, |machine, now, out| {
            machine.set_slot_of_primary(now, slot, change, out)
        });
    }
    let keys = ctx.server.slot_len_everywhere(slot);
    if !ctx.client.has(flag::REEXECUTE) {
        let checked = member(ctx)?.machine.check_set_slot(slot, change, keys);
        checked.map_err(|reason| Error::new(format!("ERR {reason}")))?;
        if tell_replicas(ctx, timeout_ms) {
            return Ok(());
        }
    }
    run_or_refuse(ctx, |machine, now, out| {
        machine.set_slot(now, slot, change, keys, out)
    })
}

/// Sends CLUSTER SETSLOT to the replicas. Returns whether the command waits for their
/// acknowledgements.
fn tell_replicas(ctx: &mut Ctx, timeout_ms: i64) -> bool {
    let Some(replicas) = ctx.server.replication.replicas.learning_of_moves() else {
        return false;
    };
    // A replica that loads its snapshot, or reconnects, gets the command later with the stream.
    ctx.server.propagation.to_replicas(ctx.client.db, ctx.argv);
    if replicas == 0 || ctx.client.has(flag::DENY_BLOCKING) {
        return false;
    }
    let kind = BlockKind::SetSlot { replicas };
    let deadline_ms = ctx.server.clock.now_ms.saturating_add(timeout_ms);
    blocked::block_for_acks(ctx.server, ctx.client, kind, ctx.argv, deadline_ms);
    true
}

/// Refuses MIGRATING and IMPORTING while MIGRATESLOTS moves slots.
fn check_no_transfer(ctx: &mut Ctx) -> CmdResult {
    let by_hand = ctx.is(3, "migrating") || ctx.is(3, "importing");
    let transfers = &member(ctx)?.transfers;
    if by_hand && transfers.active(Side::Export).next().is_some() {
        return Err(Error::of("ERR Slot export in progress."));
    }
    if by_hand && transfers.active(Side::Import).next().is_some() {
        return Err(Error::of("ERR Slot import in progress."));
    }
    Ok(())
}

/// Parses MIGRATING, IMPORTING, NODE or STABLE of CLUSTER SETSLOT. Also returns the index of the
/// next argument.
fn parse_change(ctx: &mut Ctx, slot: u16) -> Result<(SetSlot, usize), Error> {
    if ctx.is(3, "stable") {
        return Ok((SetSlot::Stable, 4));
    }
    let Some(&node) = ctx.argv.get(4) else {
        return Err(SETSLOT_SYNTAX);
    };
    let (is_migrating, is_importing) = (ctx.is(3, "migrating"), ctx.is(3, "importing"));
    if !is_migrating && !is_importing && !ctx.is(3, "node") {
        return Err(SETSLOT_SYNTAX);
    }
    // An argument that does not have the form of a node's name gets the error for an unknown node.
    let change = match Name::parse(node) {
        Some(name) if is_migrating => SetSlot::Migrating(name),
        Some(name) if is_importing => SetSlot::Importing(name),
        Some(name) => SetSlot::Owner(name),
        None if is_migrating || is_importing => {
            let checked = member(ctx)?.machine.check_move(slot, is_migrating);
            checked.map_err(|reason| Error::new(format!("ERR {reason}")))?;
            let text = format!("ERR I don't know about node {}", excerpt(node, 128));
            return Err(Error::new(text));
        }
        None => {
            let text = format!("ERR Unknown node {}", excerpt(node, 128));
            return Err(Error::new(text));
        }
    };
    Ok((change, 5))
}

/// Parses the TIMEOUT of Valkey's CLUSTER SETSLOT, in milliseconds: the time for which the command
/// waits for acknowledgements of replicas.
fn timeout_ms(ctx: &Ctx, at: usize) -> Result<i64, Error> {
    match ctx.argv.get(at + 1) {
        _ if ctx.argv.len() == at => Ok(ACK_TIMEOUT_MS),
        _ if !ctx.is(at, "timeout") => Err(SETSLOT_SYNTAX),
        None => Err(Error::of("ERR Missing timeout value")),
        Some(_) if ctx.argv.len() > at + 2 => Err(SETSLOT_SYNTAX),
        Some(ms) => match parse_i64(ms) {
            None => Err(Error::TIMEOUT_NOT_INTEGER),
            Some(..0) => Err(Error::TIMEOUT_NEGATIVE),
            // Zero means the default and not an endless wait, as a replica may never acknowledge.
            Some(0) => Ok(ACK_TIMEOUT_MS),
            Some(ms) => Ok(ms),
        },
    }
}
