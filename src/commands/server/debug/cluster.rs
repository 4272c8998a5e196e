//! DEBUG's subcommands about the bus of the cluster, as the tests of Valkey use them.

use super::switch;
use crate::cluster::event::{Event, LinkId, Wire};
use crate::cluster::name::Name;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::member;

/// DEBUG CLUSTERLINK KILL to|from|all node
pub fn cluster_link(ctx: &mut Ctx) -> CmdResult {
    let Some(member) = &mut ctx.server.cluster else {
        return Err(Error::of(
            "ERR Debug option only available for cluster mode enabled setup!",
        ));
    };
    let kill = ctx.argv[2].eq_ignore_ascii_case(b"kill");
    let direction = ctx.argv[3].to_ascii_lowercase();
    let [to, from] = [b"to".as_slice(), b"from"].map(|one| direction == one || direction == b"all");
    if !kill || !(to || from) {
        return Err(Error::SYNTAX);
    }
    let nodes = member.machine.nodes();
    let node = Name::parse(ctx.argv[4]).and_then(|name| nodes.find(&name));
    let Some(node) = node.map(|node| &nodes[node]) else {
        return Err(Error::of("ERR Unknown node"));
    };
    let links = [node.link.filter(|_| to), node.inbound.filter(|_| from)];
    let links: Vec<LinkId> = links.into_iter().flatten().collect();
    for link in links {
        if let Some(member) = &mut ctx.server.cluster {
            member.wire.push(Wire::Close(link));
        }
        member::step(ctx.server, Event::Closed(link));
    }
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG SLOTMIGRATION PREVENT-PAUSE|PREVENT-FAILOVER 0|1
pub fn slot_migration(ctx: &mut Ctx) -> CmdResult {
    let (pause, failover) = (ctx.is(2, "prevent-pause"), ctx.is(2, "prevent-failover"));
    let on = switch(ctx, 3);
    let Some(member) = &mut ctx.server.cluster else {
        return Err(Error::of(
            "ERR Debug option only available for cluster mode enabled setup!",
        ));
    };
    let limits = &mut member.transfers.limits;
    match () {
        () if pause => limits.never_pause = on,
        () if failover => limits.never_claim = on,
        () => return Err(Error::SYNTAX),
    }
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG DROP-CLUSTER-PACKET-FILTER type: -1 drops no packets, -2 drops all.
pub fn drop_packets(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.dropped_packets = match ctx.int(2)? {
        -1 => None,
        kind => Some(kind),
    };
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG CLOSE-CLUSTER-LINK-ON-PACKET-DROP 0|1
pub fn close_at_drop(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.close_link_at_drop = ctx.int(2)? != 0;
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG DISABLE-CLUSTER-RANDOM-PING 0|1
pub fn random_ping(ctx: &mut Ctx) -> CmdResult {
    let off = ctx.int(2)? != 0;
    member::act(ctx.server, |machine, _, _| machine.set_random_ping(!off));
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG DISABLE-CLUSTER-RECONNECTION 0|1
pub fn reconnection(ctx: &mut Ctx) -> CmdResult {
    let off = ctx.int(2)? != 0;
    member::act(ctx.server, |machine, _, _| machine.set_reconnect(!off));
    ctx.client.reply.ok();
    Ok(())
}
