//! The commands of a cluster: CLUSTER, ASKING, CLUSTERSCAN, READONLY, READWRITE.
//!
//! Cluster mode is not built yet, so each of them replies like a server without it; READONLY and
//! READWRITE work for clients that replicas redirect (CLIENT CAPA redirect). Their rows are
//! complete: rules of ACL users may name them, and COMMAND describes them.

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::texts::Words;

/// Changes this node's state of the cluster.
const ADMINISTER: Flags = ADMIN | STALE | NO_ASYNC_LOADING | NOT_BUILT;
const ASK: Flags = STALE | NOT_BUILT;
/// Also allowed while the data set is being loaded.
const ASK_ALWAYS: Flags = LOADING | STALE | NOT_BUILT;
const VARIES: &[&str] = &["nondeterministic_output"];

/// The rows of the commands in this group.
pub const TABLE: &[Command] = &[
    cmd("asking", no_cluster, 1, FAST | NOT_BUILT, CONNECTION),
    cmd("cluster", container, -2, NOT_BUILT, NONE_CAT).subcommands(SUBCOMMANDS),
    cmd(
        "clusterscan",
        no_cluster,
        -2,
        READONLY | NOT_BUILT,
        KEYSPACE,
    )
    .keys(&[key_at(1, NOT_KEY)])
    .tips(&[
        "nondeterministic_output",
        "request_policy:special",
        "response_policy:special",
    ]),
    cmd("readonly", readonly, 1, LOADING | STALE | FAST, CONNECTION),
    cmd(
        "readwrite",
        readwrite,
        1,
        LOADING | STALE | FAST,
        CONNECTION,
    ),
];

const SUBCOMMANDS: &[Command] = &[
    cmd("addslots", no_cluster, -3, ADMINISTER, NONE_CAT),
    cmd("addslotsrange", no_cluster, -4, ADMINISTER, NONE_CAT),
    cmd("bumpepoch", no_cluster, 2, ADMINISTER, NONE_CAT).tips(VARIES),
    cmd("cancelslotmigrations", no_cluster, 2, ADMINISTER, NONE_CAT),
    cmd(
        "count-failure-reports",
        no_cluster,
        3,
        ADMIN | ASK,
        NONE_CAT,
    )
    .tips(VARIES),
    cmd("countkeysinslot", no_cluster, 3, ASK, NONE_CAT),
    cmd("delslots", no_cluster, -3, ADMINISTER, NONE_CAT),
    cmd("delslotsrange", no_cluster, -4, ADMINISTER, NONE_CAT),
    cmd("failover", no_cluster, -2, ADMINISTER, NONE_CAT),
    cmd(
        "flushslot",
        no_cluster,
        -3,
        WRITE | ADMIN | NO_ASYNC_LOADING | ALL_DATABASES | NOT_BUILT,
        KEYSPACE,
    ),
    cmd("flushslots", no_cluster, 2, ADMINISTER, NONE_CAT),
    cmd("forget", no_cluster, 3, ADMINISTER, NONE_CAT),
    cmd("getkeysinslot", no_cluster, 4, ASK, NONE_CAT).tips(VARIES),
    cmd("getslotmigrations", no_cluster, 2, ADMINISTER, NONE_CAT),
    cmd("help", no_cluster, 2, ASK_ALWAYS, NONE_CAT),
    cmd("info", no_cluster, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("keyslot", no_cluster, 3, ASK, NONE_CAT),
    cmd("links", no_cluster, 2, ASK, NONE_CAT).tips(VARIES),
    cmd("meet", no_cluster, -4, ADMINISTER, NONE_CAT),
    cmd("migrateslots", no_cluster, -4, ADMINISTER, NONE_CAT),
    cmd("myid", no_cluster, 2, ASK_ALWAYS, NONE_CAT),
    cmd("myshardid", no_cluster, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("nodes", no_cluster, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("replicas", no_cluster, 3, ADMIN | ASK, NONE_CAT).tips(VARIES),
    cmd("replicate", no_cluster, -3, ADMINISTER, NONE_CAT),
    cmd("reset", no_cluster, -2, ADMIN | NOSCRIPT | ASK, NONE_CAT),
    cmd("saveconfig", no_cluster, 2, ADMINISTER, NONE_CAT),
    cmd("set-config-epoch", no_cluster, 3, ADMINISTER, NONE_CAT),
    cmd("setslot", no_cluster, -4, ADMINISTER, NONE_CAT),
    cmd("shards", no_cluster, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("slaves", no_cluster, 3, ADMIN | ASK, NONE_CAT).tips(VARIES),
    cmd("slot-stats", no_cluster, -4, ASK_ALWAYS, NONE_CAT)
        .tips(&["nondeterministic_output", "request_policy:all_shards"]),
    cmd("slots", no_cluster, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("syncslots", no_cluster, -3, ADMINISTER, NONE_CAT),
];

/// READONLY: this client reads from a replica that would redirect it.
fn readonly(ctx: &mut Ctx) -> CmdResult {
    check_redirected(ctx)?;
    ctx.client.set(flag::READONLY);
    ctx.client.reply.ok();
    Ok(())
}

/// READWRITE: undoes READONLY.
fn readwrite(ctx: &mut Ctx) -> CmdResult {
    check_redirected(ctx)?;
    ctx.client.clear(flag::READONLY);
    ctx.client.reply.ok();
    Ok(())
}

/// Without a cluster, only clients that a replica redirects need READONLY. Valkey accepts it from
/// all clients, Redis from none.
fn check_redirected(ctx: &mut Ctx) -> CmdResult {
    let accepts = ctx.server.config.words() == Words::Valkey;
    match accepts || ctx.client.has(flag::CAPA_REDIRECT) {
        true => Ok(()),
        false => no_cluster(ctx),
    }
}

/// The other commands of this file, CLUSTER HELP included.
fn no_cluster(_: &mut Ctx) -> CmdResult {
    Err(Error::of("ERR This instance has cluster support disabled"))
}
