//! The subcommands of CLUSTER that change this node's view of the cluster.

use super::member;
use crate::cluster::event::{Action, Address, Now};
use crate::cluster::name::Name;
use crate::cluster::{Cluster, ManualKind, Outcome};
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::slot::SLOTS;
use crate::error::{Error, said};
use crate::member::{BUS_PORT_DISTANCE, act, numeric_ip};
use crate::texts::Words;
use crate::util::number::parse_i64;

/// Runs `verb`, an operation of the cluster's state machine; an error without cluster mode.
fn run<R>(
    ctx: &mut Ctx,
    verb: impl FnOnce(&mut Cluster, Now, &mut Vec<Action>) -> R,
) -> Result<R, Error> {
    member(ctx)?;
    let result = act(ctx.server, verb);
    result.ok_or(Error::of("ERR This instance has cluster support disabled"))
}

/// Runs an operation of the cluster's state machine that may be refused, and replies OK or the
/// reason of the refusal.
pub fn run_or_refuse(
    ctx: &mut Ctx,
    verb: impl FnOnce(&mut Cluster, Now, &mut Vec<Action>) -> Outcome,
) -> CmdResult {
    let outcome = run(ctx, verb)?;
    outcome.map_err(|reason| Error::new(format!("ERR {reason}")))?;
    ctx.client.reply.ok();
    Ok(())
}

/// Parses a slot in an argument; an error for everything except a number from 0 to 16383.
pub fn slot(text: &[u8]) -> Result<u16, Error> {
    let slot = parse_i64(text).and_then(|slot| u16::try_from(slot).ok());
    let slot = slot.filter(|slot| usize::from(*slot) < SLOTS);
    slot.ok_or(Error::of("ERR Invalid or out of range slot"))
}

fn slots(ctx: &Ctx) -> Result<Vec<u16>, Error> {
    ctx.argv[2..].iter().map(|text| slot(text)).collect()
}

/// The slots of all ranges in the arguments. Ranges of slots that overlap give a slot twice, which
/// the state machine refuses.
fn slot_ranges(ctx: &Ctx) -> Result<Vec<u16>, Error> {
    let pairs = ctx.argv[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Error::arity(&format!("cluster|{}", ctx.cmd.name)));
    }
    let mut slots = Vec::new();
    for pair in pairs {
        let (first, last) = (slot(pair[0])?, slot(pair[1])?);
        if first > last {
            let text =
                format!("ERR start slot number {first} is greater than end slot number {last}");
            return Err(Error::new(text));
        }
        // A list of more than 16,384 slots repeats a slot and will be refused, so it need not grow
        // further.
        if slots.len() <= SLOTS {
            slots.extend(first..=last);
        }
    }
    Ok(slots)
}

/// CLUSTER ADDSLOTS slot [slot ...]
pub fn add_slots(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slots = slots(ctx)?;
    run_or_refuse(ctx, |machine, now, out| machine.add_slots(now, &slots, out))
}

/// CLUSTER ADDSLOTSRANGE first last [first last ...]
pub fn add_slots_range(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slots = slot_ranges(ctx)?;
    run_or_refuse(ctx, |machine, now, out| machine.add_slots(now, &slots, out))
}

/// CLUSTER DELSLOTS slot [slot ...]
pub fn delete_slots(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slots = slots(ctx)?;
    run_or_refuse(ctx, |machine, now, out| {
        machine.delete_slots(now, &slots, out)
    })
}

/// CLUSTER DELSLOTSRANGE first last [first last ...]
pub fn delete_slots_range(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slots = slot_ranges(ctx)?;
    run_or_refuse(ctx, |machine, now, out| {
        machine.delete_slots(now, &slots, out)
    })
}

/// CLUSTER FLUSHSLOTS: removes the owner of all slots of this node, which must have no keys.
pub fn flush_slots(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    if !ctx.server.data.is_empty() {
        return Err(Error::of(
            "ERR DB must be empty to perform CLUSTER FLUSHSLOTS.",
        ));
    }
    run_or_refuse(ctx, |machine, now, out| {
        let own: Vec<u16> = machine.own_slots().iter().collect();
        machine.delete_slots(now, &own, out)
    })
}

/// CLUSTER SET-CONFIG-EPOCH epoch
pub fn set_config_epoch(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let epoch = ctx.int(2)?;
    let refused = || Error::new(format!("ERR Invalid config epoch specified: {epoch}"));
    let epoch = u64::try_from(epoch).map_err(|_| refused())?;
    run_or_refuse(ctx, |machine, now, out| {
        machine.set_config_epoch(now, epoch, out)
    })
}

/// CLUSTER BUMPEPOCH
pub fn bump_epoch(ctx: &mut Ctx) -> CmdResult {
    let (changed, epoch) = run(ctx, |machine, now, out| {
        let changed = machine.bump(now, out);
        (changed, machine.myself().config_epoch)
    })?;
    let word = if changed { "BUMPED" } else { "STILL" };
    ctx.client.reply.status(&format!("{word} {epoch}"));
    Ok(())
}

/// CLUSTER SAVECONFIG
pub fn save_config(ctx: &mut Ctx) -> CmdResult {
    run(ctx, |machine, now, out| machine.save(now, out))?;
    ctx.client.reply.ok();
    Ok(())
}

/// Parses the name of a node in the argument at index `at`. A text that can't be a name gets the
/// error for an unknown node.
fn node_name(ctx: &Ctx, at: usize) -> Result<Name, Error> {
    let text = ctx.argv[at];
    let unknown = || Error::new(format!("ERR Unknown node {}", said(text)));
    Name::parse(text).ok_or_else(unknown)
}

/// CLUSTER MEET ip port [bus port]
pub fn meet(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    if ctx.argv.len() > 5 {
        return Err(Error::subcommand_syntax("CLUSTER", ctx.argv[1]));
    }
    let number = |at: usize, what: &str| {
        let refused = || {
            let text = format!("ERR Invalid {what} specified: {}", said(ctx.argv[at]));
            Error::new(text)
        };
        parse_i64(ctx.argv[at]).ok_or_else(refused)
    };
    let port = number(3, "base port")?;
    let bus_port = match ctx.argv.len() {
        5 => number(4, "bus port")?,
        _ => port.saturating_add(BUS_PORT_DISTANCE.into()),
    };
    if ctx.server.config.words() == Words::Valkey {
        check_ports(port, bus_port)?;
    }
    let usable = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0);
    let ip = numeric_ip(ctx.argv[2]);
    let (Some(ip), Some(port), Some(bus_port)) = (ip, usable(port), usable(bus_port)) else {
        let [ip, port] = [said(ctx.argv[2]), said(ctx.argv[3])];
        return Err(Error::new(format!(
            "ERR Invalid node address specified: {ip}:{port}"
        )));
    };
    let tls = ctx.server.config.tls_cluster;
    let address = Address {
        ip,
        tcp_port: if tls { 0 } else { port },
        tls_port: if tls { port } else { 0 },
        bus_port,
    };
    run(ctx, |machine, now, out| machine.meet(now, address, out))?;
    ctx.client.reply.ok();
    Ok(())
}

/// Checks the ports of CLUSTER MEET as Valkey does, which names the port that is out of range.
fn check_ports(port: i64, bus_port: i64) -> CmdResult {
    let ports = 1..=i64::from(u16::MAX);
    if !ports.contains(&port) {
        return Err(Error::of("ERR Port number is out of range"));
    }
    match ports.contains(&bus_port) {
        true => Ok(()),
        false => Err(Error::of("ERR Cluster bus port number is out of range")),
    }
}

/// CLUSTER FORGET node
pub fn forget(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let name = node_name(ctx, 2)?;
    run_or_refuse(ctx, |machine, now, out| machine.forget(now, &name, out))
}

/// CLUSTER REPLICATE node | NO ONE
pub fn replicate(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    if ctx.argv.len() == 4 && ctx.is(2, "no") && ctx.is(3, "one") {
        run(ctx, |machine, now, out| machine.replicate_no_one(now, out))?;
        ctx.client.reply.ok();
        return Ok(());
    }
    if ctx.argv.len() != 3 {
        return Err(Error::subcommand_syntax("CLUSTER", ctx.argv[1]));
    }
    let name = node_name(ctx, 2)?;
    let is_empty = ctx.server.data.is_empty();
    run_or_refuse(ctx, |machine, now, out| {
        machine.replicate(now, &name, is_empty, out)
    })
}

/// CLUSTER FAILOVER [FORCE | TAKEOVER]
///
/// A primary that shuts down sends CLUSTER FAILOVER FORCE REPLICAID name to its replicas: the
/// replica with that name takes over.
pub fn failover(ctx: &mut Ctx) -> CmdResult {
    let me = member(ctx)?.machine.myself().name;
    let by_primary = ctx.client.replays() && ctx.argv.len() == 5;
    if by_primary && ctx.is(2, "force") && ctx.is(3, "replicaid") {
        if Name::parse(ctx.argv[4]) != Some(me) {
            ctx.client.reply.ok();
            return Ok(());
        }
        return run_or_refuse(ctx, |machine, now, out| {
            machine.failover(now, ManualKind::Chosen, out)
        });
    }
    let kind = match ctx.argv.len() {
        2 => ManualKind::Default,
        3 if ctx.is(2, "force") => ManualKind::Force,
        3 if ctx.is(2, "takeover") => ManualKind::Takeover,
        3 => return Err(Error::SYNTAX),
        _ => return Err(Error::subcommand_syntax("CLUSTER", ctx.argv[1])),
    };
    run_or_refuse(ctx, |machine, now, out| machine.failover(now, kind, out))
}

/// CLUSTER RESET [HARD | SOFT]
pub fn reset(ctx: &mut Ctx) -> CmdResult {
    let is_primary = member(ctx)?.machine.myself().is_primary();
    let hard = match ctx.argv.len() {
        2 => false,
        3 if ctx.is(2, "hard") => true,
        3 if ctx.is(2, "soft") => false,
        3 => return Err(Error::SYNTAX),
        _ => return Err(Error::subcommand_syntax("CLUSTER", ctx.argv[1])),
    };
    if is_primary && !ctx.server.data.is_empty() {
        return Err(Error::of(
            "ERR CLUSTER RESET can't be called with master nodes containing keys",
        ));
    }
    run(ctx, |machine, now, out| machine.reset(now, hard, out))?;
    ctx.client.reply.ok();
    Ok(())
}
