//! CLUSTER's subcommands that read this node's view.

use std::fmt::Write;

use super::member;
use crate::cluster::event::LinkId;
use crate::cluster::name::Name;
use crate::cluster::nodes::NodeIndex;
use crate::cluster::packet::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::db::slot;
use crate::error::{Error, said};
use crate::execute::route;
use crate::state::Server;

/// The kinds of packets of the cluster bus, in the order of their numbers.
const KINDS: [&str; 11] = [
    "ping",
    "pong",
    "meet",
    "fail",
    "publish",
    "auth-req",
    "auth-ack",
    "update",
    "mfstart",
    "module",
    "publishshard",
];

/// CLUSTER MYID
pub fn my_id(ctx: &mut Ctx) -> CmdResult {
    let name = member(ctx)?.machine.myself().name;
    ctx.client.reply.bulk(name.as_bytes());
    Ok(())
}

/// CLUSTER MYSHARDID
pub fn my_shard_id(ctx: &mut Ctx) -> CmdResult {
    let shard = member(ctx)?.machine.myself().shard;
    ctx.client.reply.bulk(shard.as_bytes());
    Ok(())
}

/// CLUSTER KEYSLOT key
pub fn key_slot(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let slot = slot::key_slot(ctx.argv[2]);
    ctx.client.reply.integer(slot.into());
    Ok(())
}

/// CLUSTER INFO
pub fn info(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    let text = describe(ctx.server).unwrap_or_default();
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn describe(server: &Server) -> Option<String> {
    let (machine, bus) = (&server.cluster.as_ref()?.machine, &server.bus);
    let mut out = String::new();
    let mut field = |name: &str, value: u64| {
        let _ = write!(out, "{name}:{value}\r\n");
    };
    let [mut slots_pfail, mut slots_fail] = [0; 2];
    let [
        mut nodes_pfail,
        mut nodes_fail,
        mut voters_pfail,
        mut voters_fail,
    ] = [0; 4];
    for (_, node) in machine.nodes().iter() {
        let (slots, voter) = (u64::from(node.slot_count), u64::from(node.is_voter()));
        if node.has(flag::FAIL) {
            slots_fail += slots;
            nodes_fail += 1;
            voters_fail += voter;
        } else if node.has(flag::PFAIL) {
            slots_pfail += slots;
            nodes_pfail += 1;
            voters_pfail += voter;
        }
    }
    let assigned = machine.slots().assigned() as u64;
    field("cluster_slots_assigned", assigned);
    field("cluster_slots_ok", assigned - slots_pfail - slots_fail);
    field("cluster_slots_pfail", slots_pfail);
    field("cluster_slots_fail", slots_fail);
    field("cluster_nodes_pfail", nodes_pfail);
    field("cluster_nodes_fail", nodes_fail);
    field("cluster_voting_nodes_pfail", voters_pfail);
    field("cluster_voting_nodes_fail", voters_fail);
    field("cluster_known_nodes", machine.nodes().count() as u64);
    field("cluster_size", machine.size() as u64);
    field("cluster_current_epoch", machine.current_epoch());
    let primary = machine.myself().replica_of;
    let owner = primary.map_or(machine.myself(), |primary| &machine.nodes()[primary]);
    field("cluster_my_epoch", owner.config_epoch);
    let (sent, received) = machine.traffic();
    for (counts, verb) in [(sent, "sent"), (received, "received")] {
        for (kind, count) in KINDS.iter().zip(counts).filter(|(_, count)| **count > 0) {
            field(&format!("cluster_stats_messages_{kind}_{verb}"), *count);
        }
        let name = format!("cluster_stats_messages_{verb}");
        field(&name, counts.iter().sum());
    }
    field("cluster_stats_bytes_sent", bus.bytes_sent);
    field("cluster_stats_bytes_received", bus.bytes_received);
    for (what, traffic) in [("pubsub", bus.published), ("module", bus.modules)] {
        field(&format!("cluster_stats_{what}_bytes_sent"), traffic.sent);
        field(
            &format!("cluster_stats_{what}_bytes_received"),
            traffic.received,
        );
    }
    let exceeded = bus.limit_exceeded;
    field("total_cluster_links_buffer_limit_exceeded", exceeded);
    let state = if machine.is_up() { "ok" } else { "fail" };
    Some(format!("cluster_state:{state}\r\n{out}"))
}

/// CLUSTER NODES
pub fn nodes(ctx: &mut Ctx) -> CmdResult {
    let asker = route::asker(ctx.server, ctx.client);
    let member = member(ctx)?;
    let mut text = String::new();
    for line in member.machine.lines_for(member.now(), &asker) {
        line.render(&mut text);
        text.push('\n');
    }
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// The node of the cluster whose name is the argument `at`.
fn find(ctx: &mut Ctx, at: usize) -> Result<NodeIndex, Error> {
    let text = ctx.argv[at];
    let nodes = member(ctx)?.machine.nodes();
    let found = Name::parse(text).and_then(|name| nodes.find(&name));
    found.ok_or_else(|| Error::new(format!("ERR Unknown node {}", said(text))))
}

/// CLUSTER REPLICAS node, CLUSTER SLAVES node
pub fn replicas(ctx: &mut Ctx) -> CmdResult {
    let primary = find(ctx, 2)?;
    let asker = route::asker(ctx.server, ctx.client);
    let member = member(ctx)?;
    if !member.machine.nodes()[primary].is_primary() {
        return Err(Error::of("ERR The specified node is not a master"));
    }
    let name = member.machine.nodes()[primary].name;
    let mut lines = member.machine.lines_for(member.now(), &asker);
    lines.retain(|line| line.primary == Some(name));
    ctx.client.reply.array(lines.len());
    for line in lines {
        let mut text = String::new();
        line.render(&mut text);
        ctx.client.reply.bulk(text.as_bytes());
    }
    Ok(())
}

/// CLUSTER COUNT-FAILURE-REPORTS node
pub fn count_failure_reports(ctx: &mut Ctx) -> CmdResult {
    let node = find(ctx, 2)?;
    let member = member(ctx)?;
    let now = member.now();
    let count = member.machine.count_failure_reports(now, node);
    ctx.client.reply.integer(count as i64);
    Ok(())
}

/// CLUSTER LINKS: the connections with nodes that are known.
pub fn links(ctx: &mut Ctx) -> CmdResult {
    let nodes = member(ctx)?.machine.nodes();
    let mut links: Vec<(LinkId, &str, Name)> = Vec::new();
    for (_, node) in nodes.iter() {
        links.extend(node.link.map(|link| (link, "to", node.name)));
        links.extend(node.inbound.map(|link| (link, "from", node.name)));
    }
    links.retain(|(link, ..)| ctx.server.bus.links.contains_key(link));
    let reply = &mut ctx.client.reply;
    reply.array(links.len());
    for (link, direction, name) in links {
        let Some(link) = ctx.server.bus.links.get(&link) else {
            continue;
        };
        reply.map(6);
        reply.bulk(b"direction");
        reply.bulk(direction.as_bytes());
        reply.bulk(b"node");
        reply.bulk(name.as_bytes());
        reply.bulk(b"create-time");
        reply.integer(link.created_ms);
        reply.bulk(b"events");
        reply.bulk(if link.queued > 0 { b"rw" } else { b"r" });
        reply.bulk(b"send-buffer-allocated");
        reply.integer(link.queued as i64);
        reply.bulk(b"send-buffer-used");
        reply.integer(link.queued as i64);
    }
    Ok(())
}

/// CLUSTER HELP
pub fn help(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    ctx.client.reply.help(&HELP);
    Ok(())
}

const HELP: [&str; 66] = [
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNTKEYSINSLOT <slot>",
    "    Return the number of keys in <slot>.",
    "GETKEYSINSLOT <slot> <count>",
    "    Return key names stored by current node in a slot.",
    "INFO",
    "    Return information about the cluster.",
    "KEYSLOT <key>",
    "    Return the hash slot for <key>.",
    "MYID",
    "    Return the node id.",
    "MYSHARDID",
    "    Return the node's shard id.",
    "NODES",
    "    Return cluster configuration seen by node. Output format:",
    "    <id> <ip:port@bus-port[,hostname]> <flags> <primary> <pings> <pongs> <epoch> <link> <slot> ...",
    "REPLICAS <node-id>",
    "    Return <node-id> replicas.",
    "SLOTS",
    "    Return information about slots range mappings. Each range is made of:",
    "    start, end, primary and replicas IP addresses, ports and ids",
    "SLOT-STATS",
    "    Return an array of slot usage statistics for slots assigned to the current node.",
    "SHARDS",
    "    Return information about slot range mappings and the nodes associated with them.",
    "ADDSLOTS <slot> [<slot> ...]",
    "    Assign slots to current node.",
    "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Assign slots which are between <start-slot> and <end-slot> to current node.",
    "BUMPEPOCH",
    "    Advance the cluster config epoch.",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Return number of failure reports for <node-id>.",
    "DELSLOTS <slot> [<slot> ...]",
    "    Delete slots information from current node.",
    "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Delete slots information which are between <start-slot> and <end-slot> from current node.",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Promote current replica node to being a master.",
    "FORGET <node-id>",
    "    Remove a node from the cluster.",
    "FLUSHSLOTS",
    "    Delete current node own slots information.",
    "MEET <ip> <port> [<bus-port>]",
    "    Connect nodes into a working cluster.",
    "REPLICATE <node-id>",
    "    Configure current node as replica to <node-id>.",
    "RESET [HARD|SOFT]",
    "    Reset current node (default: soft).",
    "SET-CONFIG-EPOCH <epoch>",
    "    Set config epoch of current node.",
    "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>)",
    "    Set slot state.",
    "SAVECONFIG",
    "    Force saving cluster configuration on disk.",
    "LINKS",
    "    Return information about all network links between this node and its peers.",
    "    Output format is an array where each array element is a map containing attributes of a link",
    "MIGRATESLOTS SLOTSRANGE start-slot end-slot [start-slot end-slot ...] NODE node-id [SLOTSRANGE start-slot end-slot [start-slot end-slot ...] NODE node-id ...]",
    "    Migrate the specified slot ranges from this node to the specified node.",
    "CANCELSLOTMIGRATIONS ALL",
    "    Cancel all migrations.",
    "GETSLOTMIGRATIONS",
    "    Get information about ongoing and recently finished slot imports and exports.",
    "HELP",
    "    Print this help.",
];
