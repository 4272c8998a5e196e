//! The commands of a cluster: CLUSTER, ASKING, CLUSTERSCAN, READONLY, READWRITE.
//!
//! | file | subcommands |
//! |---|---|
//! | `view` | those that read this node's view: INFO, NODES, MYID ... |
//! | `slots` | those about slots and their keys: SLOTS, SHARDS, SETSLOT, GETKEYSINSLOT ... |
//! | `slot_stats` | SLOT-STATS |
//! | `scan` | CLUSTERSCAN |
//! | `transfer` | MIGRATESLOTS, GETSLOTMIGRATIONS, CANCELSLOTMIGRATIONS, SYNCSLOTS |
//! | `change` | those that change this node's view: ADDSLOTS, MEET, FAILOVER ... |
//!
//! Without cluster mode the cluster commands reply that cluster support is disabled, but READONLY
//! and READWRITE work for clients that replicas redirect (CLIENT CAPA redirect).

mod change;
mod scan;
mod slot_stats;
mod slots;
mod transfer;
mod view;

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::member::Member;
use crate::texts::Words;

const DISABLED: Error = Error::of("ERR This instance has cluster support disabled");

/// The flags of a subcommand of CLUSTER that changes this node's view.
const ADMINISTER: Flags = ADMIN | STALE | NO_ASYNC_LOADING;
const ASK: Flags = STALE;
/// The flags of a subcommand of CLUSTER that reads this node's view, even while the data set is
/// being loaded.
const ASK_ALWAYS: Flags = LOADING | STALE;
const VARIES: &[&str] = &["nondeterministic_output"];

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("asking", asking, 1, FAST, CONNECTION).role(Role::Asking),
    cmd("cluster", container, -2, NONE, NONE_CAT).subcommands(SUBCOMMANDS),
    cmd("clusterscan", scan::cluster_scan, -2, READONLY, KEYSPACE)
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
    cmd("addslots", change::add_slots, -3, ADMINISTER, NONE_CAT),
    cmd(
        "addslotsrange",
        change::add_slots_range,
        -4,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd("bumpepoch", change::bump_epoch, 2, ADMINISTER, NONE_CAT).tips(VARIES),
    cmd(
        "cancelslotmigrations",
        transfer::cancel_slot_migrations,
        2,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd(
        "count-failure-reports",
        view::count_failure_reports,
        3,
        ADMIN | ASK,
        NONE_CAT,
    )
    .tips(VARIES),
    cmd(
        "countkeysinslot",
        slots::count_keys_in_slot,
        3,
        ASK,
        NONE_CAT,
    ),
    cmd("delslots", change::delete_slots, -3, ADMINISTER, NONE_CAT),
    cmd(
        "delslotsrange",
        change::delete_slots_range,
        -4,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd("failover", change::failover, -2, ADMINISTER, NONE_CAT),
    cmd(
        "flushslot",
        slots::flush_slot,
        -3,
        WRITE | ADMIN | NO_ASYNC_LOADING | ALL_DATABASES,
        KEYSPACE,
    ),
    cmd("flushslots", change::flush_slots, 2, ADMINISTER, NONE_CAT),
    cmd("forget", change::forget, 3, ADMINISTER, NONE_CAT),
    cmd("getkeysinslot", slots::get_keys_in_slot, 4, ASK, NONE_CAT).tips(VARIES),
    cmd(
        "getslotmigrations",
        transfer::get_slot_migrations,
        2,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd("help", view::help, 2, ASK_ALWAYS, NONE_CAT),
    cmd("info", view::info, 2, ASK, NONE_CAT).tips(VARIES),
    cmd("keyslot", view::key_slot, 3, ASK, NONE_CAT),
    cmd("links", view::links, 2, ASK, NONE_CAT).tips(VARIES),
    cmd("meet", change::meet, -4, ADMINISTER, NONE_CAT),
    cmd(
        "migrateslots",
        transfer::migrate_slots,
        -4,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd("myid", view::my_id, 2, ASK, NONE_CAT),
    cmd("myshardid", view::my_shard_id, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("nodes", view::nodes, 2, ASK, NONE_CAT).tips(VARIES),
    cmd("replicas", view::replicas, 3, ADMIN | ASK, NONE_CAT).tips(VARIES),
    cmd("replicate", change::replicate, -3, ADMINISTER, NONE_CAT),
    cmd("reset", change::reset, -2, ADMIN | NOSCRIPT | ASK, NONE_CAT),
    cmd("saveconfig", change::save_config, 2, ADMINISTER, NONE_CAT),
    cmd(
        "set-config-epoch",
        change::set_config_epoch,
        3,
        ADMINISTER,
        NONE_CAT,
    ),
    cmd("setslot", slots::set_slot, -4, ADMINISTER, NONE_CAT),
    cmd("shards", slots::shards, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("slaves", view::replicas, 3, ADMIN | ASK, NONE_CAT).tips(VARIES),
    cmd(
        "slot-stats",
        slot_stats::slot_stats,
        -4,
        ASK_ALWAYS,
        NONE_CAT,
    )
    .tips(&["nondeterministic_output", "request_policy:all_shards"]),
    cmd("slots", slots::slots, 2, ASK_ALWAYS, NONE_CAT).tips(VARIES),
    cmd("syncslots", transfer::sync_slots, -3, ADMINISTER, NONE_CAT).role(Role::SyncSlots),
];

/// ASKING: the client's next command may use a slot that this node imports.
fn asking(ctx: &mut Ctx) -> CmdResult {
    member(ctx)?;
    ctx.client.set(flag::ASKING);
    ctx.client.reply.ok();
    Ok(())
}

/// READONLY: a replica serves the reads of the client, which it would redirect otherwise.
fn readonly(ctx: &mut Ctx) -> CmdResult {
    check_redirected(ctx)?;
    ctx.client.set(flag::READONLY);
    ctx.client.reply.ok();
    Ok(())
}

/// READWRITE: a replica redirects the reads of the client again, which READONLY has prevented.
fn readwrite(ctx: &mut Ctx) -> CmdResult {
    check_redirected(ctx)?;
    ctx.client.clear(flag::READONLY);
    ctx.client.reply.ok();
    Ok(())
}

/// Checks whether READONLY and READWRITE are accepted. Without a cluster, only clients that a
/// replica redirects need them; Valkey accepts them from all clients, Redis from none.
fn check_redirected(ctx: &mut Ctx) -> CmdResult {
    let accepts = ctx.server.cluster.is_some() || ctx.server.config.words() == Words::Valkey;
    match accepts || ctx.client.has(flag::CAPA_REDIRECT) {
        true => Ok(()),
        false => Err(DISABLED),
    }
}

/// The state of this node as a member of the cluster; an error without cluster mode.
fn member<'a>(ctx: &'a mut Ctx) -> Result<&'a mut Member, Error> {
    ctx.server.cluster.as_deref_mut().ok_or(DISABLED)
}
