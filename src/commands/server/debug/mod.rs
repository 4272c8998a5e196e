//! DEBUG: commands for tests and developers, for clients that `enable-debug-command` allows.

mod cluster;
mod crash;
pub mod digest;
mod inspect;
mod protocol;
mod reload;
mod replication;
pub mod switches;

use std::time::Duration;

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::config::{Extent, rewrite};
use crate::db::Ttl;
use crate::error::{Error, excerpt};
use crate::persist::aof;
use crate::sys;
use crate::sys::allocator;
use crate::sys::tape;
use crate::texts;
use crate::types::string::encode;
use crate::util::byte_size::parse_memory;
use crate::util::glob;
use crate::util::number::{parse_f64, parse_i64};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd(
    "debug",
    debug,
    -2,
    ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED,
    NONE_CAT,
)
.role(Role::Debug)];

/// A subcommand of DEBUG: name, minimum and maximum number of arguments after the name, function.
type Row = (&'static str, usize, usize, fn(&mut Ctx) -> CmdResult);

const ANY: usize = usize::MAX;

const ROWS: &[Row] = &[
    ("aof-backlog-limit", 1, 1, aof_backlog_limit),
    ("aof-flush-sleep", 1, 1, aof_flush_sleep),
    ("assert", 0, ANY, crash::assert_now),
    ("change-repl-id", 0, 0, replication::change_repl_id),
    ("client-enforce-reply-list", 1, 1, client_enforce_reply_list),
    ("client-eviction", 0, 0, inspect::client_eviction),
    (
        "close-cluster-link-on-packet-drop",
        1,
        1,
        cluster::close_at_drop,
    ),
    ("clusterlink", 3, 3, cluster::cluster_link),
    ("config-rewrite-force-all", 0, 0, config_rewrite_force_all),
    ("crash-and-recover", 0, 1, crash::crash_and_recover),
    (
        "delay-rdb-client-free-seconds",
        1,
        1,
        delay_rdb_client_free_seconds,
    ),
    ("dict-resizing", 1, 1, dict_resizing),
    ("digest", 0, 0, digest::digest),
    ("digest-value", 0, ANY, digest::digest_value),
    ("disable-cluster-random-ping", 1, 1, cluster::random_ping),
    ("disable-cluster-reconnection", 1, 1, cluster::reconnection),
    ("drop-cluster-packet-filter", 1, 1, cluster::drop_packets),
    ("error", 1, 1, error),
    (
        "force-free-primary-async",
        1,
        1,
        replication::force_free_primary_async,
    ),
    (
        "hashtable-can-abort-shrink",
        1,
        1,
        hashtable_can_abort_shrink,
    ),
    ("help", 0, 0, help),
    ("htstats", 1, 2, inspect::htstats),
    ("htstats-key", 1, 2, inspect::htstats_key),
    ("internal_secret", 0, 0, replication::internal_secret),
    ("leak", 1, 1, leak),
    ("listpack", 1, 1, inspect::listpack),
    ("loadaof", 0, ANY, loadaof),
    ("log", 1, 1, log_message),
    ("mallctl", 1, ANY, mallctl),
    ("mallctl-str", 1, ANY, mallctl_str),
    ("keysizes-hist-assert", 1, 1, keysizes_hist_assert),
    (
        "mark-internal-client",
        0,
        1,
        replication::mark_internal_client,
    ),
    ("object", 1, 2, inspect::object),
    ("oom", 0, ANY, crash::oom),
    ("panic", 0, ANY, crash::panic_now),
    ("pause-after-fork", 1, 1, pause_after_fork),
    ("pause-cron", 1, 1, pause_cron),
    ("populate", 1, 3, populate),
    ("protect-client", 1, 1, replication::protect_client),
    ("protocol", 1, 1, protocol::protocol),
    ("quicklist", 1, 2, inspect::quicklist),
    (
        "quicklist-packed-threshold",
        1,
        1,
        quicklist_packed_threshold,
    ),
    ("reload", 0, ANY, reload::reload),
    ("repl-backlog", 1, 1, replication::repl_backlog),
    ("repl-pause", 1, 1, replication::repl_pause),
    ("replicate", 1, ANY, replication::replicate),
    ("replybuffer", 2, 2, replybuffer),
    ("restart", 0, 1, crash::restart),
    ("sdslen", 1, 1, inspect::sdslen),
    ("segfault", 0, ANY, crash::segfault),
    ("set-active-expire", 1, 1, set_active_expire),
    ("set-disable-deny-scripts", 1, 1, set_disable_deny_scripts),
    (
        "set-skip-checksum-validation",
        1,
        1,
        set_skip_checksum_validation,
    ),
    ("sleep", 1, 1, sleep),
    ("slotmigration", 2, 2, cluster::slot_migration),
    ("stringmatch-test", 0, 0, stringmatch_test),
    ("structsize", 0, 0, inspect::structsize),
];

/// DEBUG subcommand [argument ...]
fn debug(ctx: &mut Ctx) -> CmdResult {
    let (name, args) = (ctx.argv[1], ctx.argv.len() - 2);
    let fits =
        |row: &&Row| row.0.as_bytes().eq_ignore_ascii_case(name) && (row.1..=row.2).contains(&args);
    match ROWS.iter().find(fits) {
        Some((_, _, _, run)) => run(ctx),
        None => Err(unknown_subcommand(ctx)),
    }
}

/// The error for a DEBUG subcommand that is unknown or has a wrong number of arguments.
fn unknown_subcommand(ctx: &Ctx) -> Error {
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
        excerpt(ctx.argv[1], 128)
    ))
}

/// Whether an argument is not 0, parsed as by C's `atoi`: an argument that is not a number counts
/// as 0.
fn switch(ctx: &Ctx, at: usize) -> bool {
    let text = ctx.argv[at];
    let digits = text
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'-')
        .count();
    parse_i64(&text[..digits]).is_some_and(|n| n != 0)
}

/// Whether the argument `at` is not 0, as for [`switch`]; `default` if there is no such argument.
fn switch_or(ctx: &Ctx, at: usize, default: bool) -> bool {
    if at < ctx.argv.len() {
        switch(ctx, at)
    } else {
        default
    }
}

fn ok(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.ok();
    Ok(())
}

/// DEBUG SLEEP seconds. Replies at once if the time is 2^63 microseconds or more.
fn sleep(ctx: &mut Ctx) -> CmdResult {
    let us = parse_f64(ctx.argv[2]).unwrap_or(0.0) * 1e6;
    if us < i64::MAX as f64 {
        sys::sleep(Duration::from_micros(us as u64));
    }
    ok(ctx)
}

/// DEBUG AOF-FLUSH-SLEEP microseconds
fn aof_flush_sleep(ctx: &mut Ctx) -> CmdResult {
    let us = parse_i64(ctx.argv[2]).unwrap_or(0).max(0);
    ctx.server
        .aof
        .flush
        .delay
        .set(Duration::from_micros(us as u64));
    ok(ctx)
}

/// DEBUG AOF-BACKLOG-LIMIT bytes
fn aof_backlog_limit(ctx: &mut Ctx) -> CmdResult {
    let bytes = ctx.int_in(
        2,
        0,
        i64::MAX,
        "ERR value is out of range, must be positive",
    )?;
    ctx.server.debug.aof_backlog_max = (bytes > 0).then_some(bytes as u64);
    ok(ctx)
}

/// DEBUG MALLCTL key [number]
fn mallctl(ctx: &mut Ctx) -> CmdResult {
    let new = match ctx.argv.len() {
        3 => None,
        _ => Some(ctx.int(3)?),
    };
    let name = String::from_utf8_lossy(ctx.argv[2]);
    let old = allocator::control(&name, new)
        .map_err(|e| Error::new(format!("ERR {}", sys::error_text(&e))))?;
    ctx.client.reply.integer(old);
    Ok(())
}

/// DEBUG MALLCTL-STR key [text]
fn mallctl_str(ctx: &mut Ctx) -> CmdResult {
    tape::not_recorded("DEBUG MALLCTL-STR");
    let name = String::from_utf8_lossy(ctx.argv[2]);
    let old = allocator::control_text(&name, ctx.argv.get(3).copied())
        .map_err(|e| Error::new(format!("ERR {}", sys::error_text(&e))))?;
    ctx.client.reply.bulk(&old);
    Ok(())
}

/// DEBUG LOADAOF
fn loadaof(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.is_loading() {
        return Err(Error::of(ctx.server.config.text(texts::LOADING)));
    }
    let top = ctx.server.top_level()?;
    tape::not_recorded("DEBUG LOADAOF");
    if aof::load::reload(ctx.server, &top).is_err() {
        return Err(Error::of(
            "ERR Error trying to load the AOF files, check server logs.",
        ));
    }
    log::info!("Append Only File loaded by DEBUG LOADAOF");
    ok(ctx)
}

/// DEBUG SET-ACTIVE-EXPIRE 0|1
fn set_active_expire(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.no_active_expire = !switch(ctx, 2);
    ok(ctx)
}

/// DEBUG DICT-RESIZING 0|1
fn dict_resizing(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.no_resize = !switch(ctx, 2);
    ctx.server.follow_resize_policy();
    ok(ctx)
}

/// DEBUG HASHTABLE-CAN-ABORT-SHRINK 0|1
fn hashtable_can_abort_shrink(ctx: &mut Ctx) -> CmdResult {
    // A resize is never aborted: the size of the new table is chosen when the resize begins.
    ok(ctx)
}

/// DEBUG CLIENT-ENFORCE-REPLY-LIST 0|1
fn client_enforce_reply_list(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.enforce_reply_list = switch(ctx, 2);
    ok(ctx)
}

/// DEBUG CONFIG-REWRITE-FORCE-ALL
fn config_rewrite_force_all(ctx: &mut Ctx) -> CmdResult {
    rewrite(&ctx.server.config, Extent::All).map_err(|e| {
        let reason = e.system_text();
        Error::new(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {reason}"))
    })?;
    ok(ctx)
}

/// DEBUG PAUSE-AFTER-FORK 0|1
fn pause_after_fork(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.pause_after_fork = switch(ctx, 2);
    ok(ctx)
}

/// DEBUG DELAY-RDB-CLIENT-FREE-SECONDS seconds
fn delay_rdb_client_free_seconds(ctx: &mut Ctx) -> CmdResult {
    let seconds = ctx.int_in(2, 0, i64::from(i32::MAX), "ERR value is out of range")?;
    ctx.server.debug.rdb_client_grace_s = Some(seconds);
    ok(ctx)
}

/// DEBUG KEYSIZES-HIST-ASSERT 0|1
fn keysizes_hist_assert(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.assert_lengths = ctx.int(2)? != 0;
    ctx.server.update_armed();
    ok(ctx)
}

/// DEBUG PAUSE-CRON 0|1
fn pause_cron(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.no_cron = switch(ctx, 2);
    ok(ctx)
}

/// DEBUG SET-DISABLE-DENY-SCRIPTS 0|1
fn set_disable_deny_scripts(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.allow_noscript = switch(ctx, 2);
    ok(ctx)
}

/// DEBUG SET-SKIP-CHECKSUM-VALIDATION 0|1
fn set_skip_checksum_validation(ctx: &mut Ctx) -> CmdResult {
    ctx.server.debug.skip_checksum = switch(ctx, 2);
    ok(ctx)
}

/// DEBUG QUICKLIST-PACKED-THRESHOLD size
fn quicklist_packed_threshold(ctx: &mut Ctx) -> CmdResult {
    let size = parse_memory(ctx.argv[2]).filter(|size| *size < 1 << 32);
    let size = size.ok_or(Error::of(
        "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
    ))?;
    ctx.server.debug.packed_threshold = size as usize;
    ok(ctx)
}

/// DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER|RESET|milliseconds, DEBUG REPLYBUFFER RESIZING 0|1
fn replybuffer(ctx: &mut Ctx) -> CmdResult {
    if ctx.is(2, "peak-reset-time") {
        ctx.server.debug.reply_peak_reset_ms = if ctx.is(3, "never") {
            Some(-1)
        } else if ctx.is(3, "reset") {
            None
        } else {
            Some(ctx.int(3)?)
        };
    } else if ctx.is(2, "resizing") {
        ctx.server.debug.no_reply_resize = !switch(ctx, 3);
    } else {
        return Err(unknown_subcommand(ctx));
    }
    ok(ctx)
}

/// DEBUG ERROR message. The statistics of errors don't count this error reply, as the command
/// itself succeeds.
fn error(ctx: &mut Ctx) -> CmdResult {
    let error = Error::new(String::from_utf8_lossy(ctx.argv[2]));
    ctx.client.reply.error(&error);
    Ok(())
}

/// DEBUG LOG message
fn log_message(ctx: &mut Ctx) -> CmdResult {
    log::warn!("DEBUG LOG: {}", String::from_utf8_lossy(ctx.argv[2]));
    ok(ctx)
}

/// DEBUG LEAK string
fn leak(ctx: &mut Ctx) -> CmdResult {
    std::mem::forget(ctx.argv[2].to_vec());
    ok(ctx)
}

/// DEBUG STRINGMATCH-TEST
fn stringmatch_test(ctx: &mut Ctx) -> CmdResult {
    const ROUNDS: usize = 100_000;
    const LETTERS: &[u8] = b"ab*?[]^-\\";
    let rng = &mut ctx.server.rng;
    for _ in 0..ROUNDS {
        let lengths = [rng.below(8), rng.below(12)];
        let [pattern, text] = lengths.map(|len| -> Vec<u8> {
            let letter = |_| LETTERS[rng.below(LETTERS.len() as u64) as usize];
            (0..len).map(letter).collect()
        });
        glob::glob_match(&pattern, &text);
    }
    ctx.client
        .reply
        .status("Apparently Redis did not crash: test passed");
    Ok(())
}

/// DEBUG POPULATE count [prefix] [size]
fn populate(ctx: &mut Ctx) -> CmdResult {
    const POSITIVE: &str = "ERR value is out of range, must be positive";
    let count = ctx.int_in(2, 0, i64::MAX, POSITIVE)?;
    let prefix = ctx.argv.get(3).copied().unwrap_or(b"key");
    let size = match ctx.argv.len() {
        5 => Some(ctx.int_in(4, 0, 512 << 20, POSITIVE)? as usize),
        _ => None,
    };
    // The table grows once, to the size for all keys; up to a limit, as the number of keys comes
    // from a client.
    let room = ctx
        .db()
        .len()
        .saturating_add((count as usize).min(100_000_000));
    ctx.db().keys.reserve(room);
    for i in 0..count {
        populate_one(ctx, prefix, i, size);
    }
    ok(ctx)
}

/// Adds the key `prefix:i` with the value `value:i`, which is extended with zero bytes or cut to
/// `size`, if given. An existing key is not changed.
fn populate_one(ctx: &mut Ctx, prefix: &[u8], i: i64, size: Option<usize>) {
    let db = ctx.client.db;
    let key = [prefix, b":", i.to_string().as_bytes()].concat();
    if ctx.server.lookup_in(db, &key).is_some() {
        return;
    }
    let mut value = format!("value:{i}").into_bytes();
    value.resize(size.unwrap_or(value.len()), 0);
    let (kind, value) = encode(&value, None);
    ctx.server.set_key(db, &key, kind, value, Ttl::Clear);
    ctx.server.signal_modified(Some(ctx.client), db, &key);
}

/// DEBUG HELP
fn help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(HELP);
    Ok(())
}

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "AOF-BACKLOG-LIMIT <bytes>",
    "    Clients that write are not read while more than that waits for the append only file; 0 restores",
    "    the default.",
    "AOF-FLUSH-SLEEP <microseconds>",
    "    Sleep before the append only file is written.",
    "ASSERT",
    "    Crash by a failed assertion.",
    "CHANGE-REPL-ID",
    "    Give this instance a new replication ID. Replicas will resynchronise.",
    "CLIENT-ENFORCE-REPLY-LIST <0|1>",
    "    Count each reply against the output limits as if it filled a buffer of its own.",
    "CLIENT-EVICTION",
    "    How many clients of which size may be evicted (maxmemory-clients), and what they hold.",
    "CLOSE-CLUSTER-LINK-ON-PACKET-DROP <0|1>",
    "    Close a link of the cluster bus on which a packet is dropped by DROP-CLUSTER-PACKET-FILTER.",
    "CLUSTERLINK KILL <to|from|all> <node-id>",
    "    Close the link to a node of the cluster, the one from it, or both.",
    "CONFIG-REWRITE-FORCE-ALL",
    "    CONFIG REWRITE with every setting, defaults too.",
    "CRASH-AND-RECOVER [<milliseconds>]",
    "    Start anew at once, or after a delay, as if the process had been killed: nothing is saved.",
    "DELAY-RDB-CLIENT-FREE-SECONDS <seconds>",
    "    How long the stream is kept for a replica whose main connection does not come.",
    "DICT-RESIZING <0|1>",
    "    Let the keyspace's hash tables resize, or not.",
    "DIGEST",
    "    A hash over the whole data set, which does not depend on the order of keys.",
    "DIGEST-VALUE [<key> ...]",
    "    The same for the value of each key.",
    "DISABLE-CLUSTER-RANDOM-PING <0|1>",
    "    Do not ping a random node of the cluster each second.",
    "DISABLE-CLUSTER-RECONNECTION <0|1>",
    "    Do not connect to nodes of the cluster again.",
    "DROP-CLUSTER-PACKET-FILTER <packet-type>",
    "    Drop received packets of this type; -1 drops none, -2 all.",
    "ERROR <string>",
    "    Reply with this error.",
    "FORCE-FREE-PRIMARY-ASYNC <0|1>",
    "    No effect: the link to the primary is always freed at the end of a turn.",
    "HASHTABLE-CAN-ABORT-SHRINK <0|1>",
    "    No effect: a hash table that shrinks never aborts it.",
    "HTSTATS <dbid> [full]",
    "    Figures of a database's hash table.",
    "HTSTATS-KEY <key> [full]",
    "    The same for the hash table that is a key's value.",
    "INTERNAL_SECRET",
    "    The secret that the nodes of a cluster share.",
    "LEAK <string>",
    "    Leak the memory of a copy of the string.",
    "LISTPACK <key>",
    "    Write the elements of the listpack that is a key's value to standard output.",
    "LOADAOF",
    "    Write what is still to be written to the append only file, and load it again.",
    "LOG <message>",
    "    Write the message to the server's log.",
    "MALLCTL <key> [<number>]",
    "    Read, and set, one of the allocator's numbers.",
    "MALLCTL-STR <key> [<text>]",
    "    The same for its texts.",
    "KEYSIZES-HIST-ASSERT <0|1>",
    "    Panic after a change if the histograms of INFO keysizes are wrong.",
    "MARK-INTERNAL-CLIENT [UNMARK]",
    "    Mark this connection as one between nodes, or no more.",
    "OBJECT <key> [fast]",
    "    How a key and its value are stored; `fast` leaves out what takes time.",
    "OOM",
    "    Crash as when there is no memory left.",
    "PANIC",
    "    Crash by a panic.",
    "PAUSE-AFTER-FORK <0|1>",
    "    Stop the server's process after a fork until a SIGCONT.",
    "PAUSE-CRON <0|1>",
    "    Stop the periodic work, or go on with it.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create string keys named key:<num>, or <prefix>:<num>. They are not propagated.",
    "PROTECT-CLIENT <id>",
    "    No effect: clients are always freed at the end of a turn.",
    "PROTOCOL <type>",
    "    Reply with a value of the type: string, integer, double, bignum, null, array, set,",
    "    map, attrib, push, verbatim, true, false.",
    "QUICKLIST <key> [<0|1>]",
    "    Write the nodes of the quicklist that is a key's value to standard output.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    List elements of this size get a node of their own; 0 restores the default.",
    "REPL-BACKLOG <0|1>",
    "    Hold the replication stream without a replica, or no more.",
    "REPL-PAUSE <clear|after-fork|before-rdb-channel|on-streaming-repl-buf>",
    "    Stop the server's process at this step of a full sync until a SIGCONT.",
    "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
    "    Save the data set and load it again. MERGE lets loaded keys take the place of others, NOFLUSH",
    "    keeps what is in memory, NOSAVE loads the file that is there.",
    "REPLICATE <command> [<arg> ...]",
    "    Send this command to the replicas only, so that their data may differ.",
    "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|time>",
    "    After how many milliseconds a client's reply buffer may shrink.",
    "REPLYBUFFER RESIZING <0|1>",
    "    Let reply buffers be resized, or not.",
    "RESTART [<milliseconds>]",
    "    Save settings and data set, stop, and start anew at once or after a delay.",
    "SDSLEN <key>",
    "    Lengths of the key and its string value.",
    "SEGFAULT",
    "    Crash by an invalid memory access.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    With 0 keys expire only when they are looked up.",
    "SET-DISABLE-DENY-SCRIPTS <0|1>",
    "    With 1 scripts may call commands that are not for scripts.",
    "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
    "    With 1 the checksums of RDB files and of RESTORE are not looked at.",
    "SLEEP <seconds>",
    "    Stop the server for this time. Decimals are allowed.",
    "SLOTMIGRATION PREVENT-PAUSE|PREVENT-FAILOVER <0|1>",
    "    Never hold the writers of slots that move, or never take slots over.",
    "STRINGMATCH-TEST",
    "    Match random patterns against random strings.",
    "STRUCTSIZE",
    "    Sizes of central data structures.",
    "HELP",
    "    Print this help.",
];
