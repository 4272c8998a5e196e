//! `call()`: the one function that runs commands, whether a socket, EXEC, a script, the AOF or a
//! primary sent them.
//!
//! ```text
//!   proc(ctx) -> error reply? -> time, stats, command logs, latency, hot keys -> monitors -> dirty grew? also_propagate
//! ```

use crate::armed;
use crate::client::reply::Mark;
use crate::client::resp::Sent;
use crate::client::{Client, flag};
use crate::command;
use crate::command::Command;
use crate::command::ctx::Ctx;
use crate::error::Error;
use crate::execute::charge;
use crate::execute::stream_errors;
use crate::execute::transaction;
use crate::observe::commandlog::{CommandLogKind, request_bytes};
use crate::observe::hotkeys::{self, Cost};
use crate::observe::monitor;
use crate::observe::slot_stats::SlotUsage;
use crate::observe::trace::event::EventKind;
use crate::propagate;
use crate::propagate::unsynced;
use crate::state::Server;
use crate::sys::ticks;
use crate::tracking;

/// Runs one command. The caller has checked (in `dispatch`) that the command may run.
pub fn call(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16, sent: Sent) {
    let cmd = server.commands.row(id);
    let dirty = server.dirty;
    let started = match server.nesting {
        0 => server.clock.last,
        _ => ticks::now(),
    };
    let reply_from = c.reply.mark();
    server.in_flight.begin(argv, c);

    let result = (cmd.proc)(&mut Ctx {
        server,
        client: c,
        argv,
        cmd,
        bigs: sent.bigs,
    });
    let failed = result.is_err();
    if let Err(error) = result {
        // A command changes nothing before its last `?`; only a script can fail after a change.
        debug_assert!(
            cmd.is(command::SCRIPT_DECIDES)
                || server.dirty == dirty && c.reply.bytes_since(reply_from) == 0,
            "{} failed and left a change behind",
            cmd.name
        );
        reply_error(server, c, &error);
    }

    server.in_flight.end();
    let ended = ticks::now();
    // During a script or a transaction the server's clock is not updated, so that all their
    // commands see the same time.
    if server.nesting == 0 {
        server.clock.command_ended(ended);
    }
    let ticks = ended.wrapping_sub(started);
    let reply_bytes = c.reply.bytes_since(reply_from);
    // EXEC has removed unwanted replies itself, since a queued command may have changed CLIENT
    // REPLY.
    if failed || !cmd.is(command::RUNS_QUEUE) {
        drop_unwanted_reply(server, c, reply_from);
    }
    if !c.has(flag::BLOCKED | flag::AOF_LOADER) {
        account(server, c, argv, id, ticks, failed);
        keep_if_large(server, c, argv, cmd, sent, reply_bytes);
        if server.stats.commands_processed >= server.hotkeys.next {
            hotkeys::sample(server, c, argv, cmd, Cost { ticks, reply_bytes });
        }
    }
    if server.armed & armed::MONITOR != 0 && monitored(cmd) && !c.has(flag::REEXECUTE) {
        monitor::feed(server, c, argv, server.dirty > dirty);
    }
    if server.armed & (LOOKS_AT_KEYS | armed::TRACE) != 0 {
        if server.armed & armed::TRACE != 0 {
            trace_command(server, c, id, (started, ended), reply_bytes);
        }
        if server.armed & LOOKS_AT_KEYS != 0 {
            let changed = server.dirty > dirty;
            note_keys(server, c, argv, cmd, changed, (ticks, reply_bytes), sent);
        }
    }
    if server.armed & armed::PROPAGATE != 0 {
        let before = charge::stream_place(server);
        propagate::after_call(server, c, argv, sent, cmd, dirty);
        if let Some(before) = before {
            charge::propagated(server, c, before);
        }
    }
}

/// Records a command for the trace, and before it the building of the command's reply, if the reply
/// is long. A reply whose building began before the command is that of the EXEC around the command,
/// and is not recorded.
#[inline(always)]
fn trace_command(
    server: &mut Server,
    c: &mut Client,
    id: u16,
    (started, ended): (u64, u64),
    reply_bytes: u64,
) {
    let built_from = c.reply.take_build();
    if built_from != 0 && built_from >= started {
        let kind = EventKind::ReplyBuild;
        server
            .trace
            .span(kind, built_from, ended, c.id, reply_bytes);
    }
    server.trace.command(id, started, ended, c.id);
}

/// Replies with the error that a command has returned, and counts the error.
fn reply_error(server: &mut Server, c: &mut Client, error: &Error) {
    c.reply.error(error);
    if !error.is_counted() {
        server.stats.count_error(error.code());
    }
    if c.has(stream_errors::NOTED) {
        stream_errors::note(server, c, error);
    }
}

/// The bits of `armed` for the features that look at the keys of each command.
const LOOKS_AT_KEYS: u32 = armed::TRACKING | armed::UNSYNCED | armed::SLOT_STATS;

/// Passes a command to the features that look at its keys: client-side caching, unsynced keys, slot
/// statistics.
#[cold]
fn note_keys(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    cmd: &Command,
    changed: bool,
    (ticks, bytes_out): (u64, u64),
    sent: Sent,
) {
    if server.armed & armed::TRACKING != 0 {
        tracking::remember(server, argv, cmd);
    }
    if server.armed & armed::UNSYNCED != 0 {
        unsynced::after_command(server, c, argv, cmd, changed);
    }
    if server.armed & armed::SLOT_STATS != 0 {
        let cost = SlotUsage {
            ticks,
            bytes_in: charge::request_len(argv, sent),
            bytes_out,
        };
        charge::command(server, c, argv, cmd, cost);
    }
}

fn monitored(cmd: &Command) -> bool {
    cmd.flags & (command::SKIP_MONITOR | command::ADMIN) == 0
}

/// Counts a command, adds up its time (`spent`, in ticks of the processor's counter), and adds the
/// command to the slow log if it was slow.
#[inline(always)]
pub fn account(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    id: u16,
    spent: u64,
    failed: bool,
) {
    server.stats.commands_processed += 1;
    if server.nesting == 0 {
        server.stats.command_ticks += spent;
    }
    c.commands += 1;
    let stats = &mut server.commands.entries[id as usize].stats;
    stats.calls += 1;
    stats.ticks += spent;
    stats.failed += failed as u64;
    if server.latency.tracking {
        stats
            .latency
            .get_or_insert_default()
            .record(server.clock.ns(spent));
    }
    if spent >= server.commandlog.threshold_ticks {
        slow(server, c, argv, id, spent);
    }
}

/// Adds a slow command to the slow log, the latency monitor and the turn that the live page shows.
#[cold]
fn slow(server: &mut Server, c: &Client, argv: &[&[u8]], id: u16, spent: u64) {
    let cmd = server.commands.row(id);
    let us = server.clock.us(spent);
    if let Some(turns) = &mut server.turns {
        turns.note_command(id, us);
    }
    let event = if cmd.flags & command::FAST != 0 {
        "fast-command"
    } else {
        "command"
    };
    server
        .latency
        .add_if_needed(event, us / 1000, server.clock.now_s());
    if cmd.flags & command::SKIP_COMMANDLOG == 0 {
        let now = server.clock.now_s();
        server
            .commandlog
            .push_if_needed(CommandLogKind::Slow, us, c, argv, now);
    }
}

/// Adds commands with large requests or replies to COMMANDLOG.
#[inline]
fn keep_if_large(
    server: &mut Server,
    c: &Client,
    argv: &[&[u8]],
    cmd: &Command,
    sent: Sent,
    reply_bytes: u64,
) {
    let request_bytes = charge::request_len(argv, sent);
    let log = &server.commandlog;
    if log.large_request.wants(request_bytes) || log.large_reply.wants(reply_bytes) {
        large(server, c, argv, cmd, reply_bytes);
    }
}

#[cold]
fn large(server: &mut Server, c: &Client, argv: &[&[u8]], cmd: &Command, reply_bytes: u64) {
    if cmd.flags & command::SKIP_COMMANDLOG != 0 {
        return;
    }
    let now = server.clock.now_s();
    let log = &mut server.commandlog;
    log.push_if_needed(
        CommandLogKind::LargeRequest,
        request_bytes(argv),
        c,
        argv,
        now,
    );
    log.push_if_needed(CommandLogKind::LargeReply, reply_bytes, c, argv, now);
}

/// Refuses a command before it runs: counts the refusal, and makes the transaction fail in which
/// the command would be queued.
pub fn reject(server: &mut Server, c: &mut Client, id: Option<u16>, error: Error) {
    if c.has(flag::MULTI) {
        c.set(flag::DIRTY_EXEC);
    }
    if let Some(id) = id {
        server.commands.entries[id as usize].stats.rejected += 1;
    }
    let error = match id.map(|id| server.commands.row(id)) {
        // After an error that redirects EXEC, the client will send the whole transaction to another
        // node, so the client must get the error, with the node's address, unchanged.
        Some(cmd) if cmd.is(command::RUNS_QUEUE) && leads_elsewhere(&error) => {
            transaction::discard_transaction(server, c);
            error
        }
        Some(cmd) if cmd.is(command::RUNS_QUEUE) => transaction::abort(server, c, &error),
        _ => error,
    };
    let reply_from = c.reply.mark();
    c.reply.error(&error);
    server.stats.count_error(error.code());
    if c.has(stream_errors::NOTED) {
        stream_errors::note(server, c, &error);
    }
    drop_unwanted_reply(server, c, reply_from);
}

/// Whether the error means that the client must ask another server, or must send the command again
/// later.
fn leads_elsewhere(error: &Error) -> bool {
    let codes = [
        "REDIRECT",
        "MOVED",
        "ASK",
        "TRYAGAIN",
        "CROSSSLOT",
        "CLUSTERDOWN",
    ];
    codes.contains(&error.code())
}

/// Removes the reply that begins at `from` if the reply must not be sent: because of CLIENT REPLY,
/// or because the client is a replica.
#[inline]
fn drop_unwanted_reply(server: &mut Server, c: &mut Client, from: Mark) {
    if c.has(flag::REPLY_OFF | flag::REPLY_SKIP | flag::REPLICA) {
        c.drop_unwanted_reply(from);
        stream_errors::refuse_reply(server, c, from);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use crate::command::ctx::{CmdResult, Ctx};
    use crate::command::{Command, READONLY, STRING, cmd};
    use crate::error::Error;
    use crate::testing::{say, server_with};

    fn fails(_: &mut Ctx) -> CmdResult {
        Err(Error::SYNTAX)
    }

    fn changes_and_fails(ctx: &mut Ctx) -> CmdResult {
        ctx.dirty(1);
        Err(Error::SYNTAX)
    }

    fn replies_and_fails(ctx: &mut Ctx) -> CmdResult {
        ctx.client.reply.ok();
        Err(Error::SYNTAX)
    }

    static FAILS: Command = cmd("get", fails, 2, READONLY, STRING);
    static CHANGES: Command = cmd("get", changes_and_fails, 2, READONLY, STRING);
    static REPLIES: Command = cmd("get", replies_and_fails, 2, READONLY, STRING);

    /// The reply to GET after the row of GET in the table of commands was replaced by `row`.
    fn reply_of(row: &'static Command) -> String {
        let mut server = server_with(1);
        let id = server.commands.lookup(b"get").expect("a command");
        server.commands.entries[usize::from(id)].row = row;
        say(&mut server, 0, &["get k"])
    }

    #[test]
    fn a_command_that_fails_replies_with_its_error() {
        assert_eq!(reply_of(&FAILS), "-ERR syntax error\r\n");
    }

    #[test]
    #[should_panic(expected = "get failed and left a change behind")]
    fn a_command_that_fails_after_a_change_is_found() {
        reply_of(&CHANGES);
    }

    #[test]
    #[should_panic(expected = "get failed and left a change behind")]
    fn a_command_that_fails_after_a_reply_is_found() {
        reply_of(&REPLIES);
    }
}
