//! `call()`: the one door through which every command runs, whether a socket, EXEC, a script, the AOF or a
//! primary sent it.
//!
//! ```text
//!   monitors -> proc(ctx) -> error reply? -> dirty grew? also_propagate -> time, stats, slowlog, latency
//! ```

use std::sync::Arc;

use crate::commands::command::{self, Command};
use crate::commands::ctx::Ctx;
use crate::error::Error;
use crate::networking::client::{Client, flag};
use crate::state::{Server, armed};
use crate::sys::ticks;

/// Run one command. The caller has checked that it may run.
pub fn call(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16, bigs: &[Arc<Vec<u8>>]) {
    let cmd = server.commands.row(id);
    if server.armed & armed::MONITOR != 0 && monitored(cmd) {
        crate::observe::monitor::feed(server, c, argv);
    }
    let dirty = server.dirty;
    let errors = server.stats.error_replies;
    let started = if server.nesting == 0 {
        server.clock.last
    } else {
        ticks::now()
    };
    let reply_from = c.reply.mark();

    let result = (cmd.proc)(&mut Ctx {
        server,
        client: c,
        argv,
        cmd,
        bigs,
    });
    if let Err(error) = result {
        c.reply.error(&error);
        server.stats.count_error(error.code());
    }

    let ended = ticks::now();
    server.clock.command_ended(ended);
    let spent = ended.wrapping_sub(started);
    if c.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
        c.reply.truncate(reply_from);
    }
    let failed = server.stats.error_replies != errors;
    if !c.has(flag::BLOCKED) {
        account(server, c, argv, id, spent, failed);
    }
    if server.armed & armed::PROPAGATE != 0 {
        crate::server::propagate::after_call(server, c, argv, cmd, dirty);
    }
}

fn monitored(cmd: &Command) -> bool {
    cmd.flags & (command::SKIP_MONITOR | command::ADMIN) == 0
}

/// Count, time, and keep what was slow.
#[inline]
fn account(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16, spent: u64, failed: bool) {
    server.stats.commands_processed += 1;
    server.stats.command_ticks += spent;
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
    if spent >= server.slowlog.threshold_ticks {
        slow(server, c, argv, id, spent);
    }
}

/// Off the fast path: SLOWLOG and the latency monitor.
#[cold]
fn slow(server: &mut Server, c: &Client, argv: &[&[u8]], id: u16, spent: u64) {
    let cmd = server.commands.row(id);
    let us = server.clock.us(spent);
    let event = if cmd.flags & command::FAST != 0 {
        "fast-command"
    } else {
        "command"
    };
    server
        .latency
        .add_if_needed(event, us / 1000, server.clock.now_s());
    if cmd.flags & command::SKIP_COMMANDLOG == 0 && !c.has(flag::SCRIPT) {
        crate::observe::slowlog::push_if_needed(server, c, argv, us);
    }
}

/// Refuse a command before it ran: count the refusal, fail the transaction it was meant for.
pub fn reject(server: &mut Server, c: &mut Client, id: Option<u16>, error: Error) {
    if c.has(flag::MULTI) {
        c.set(flag::DIRTY_EXEC);
    }
    if let Some(id) = id {
        server.commands.entries[id as usize].stats.rejected += 1;
    }
    let reply_from = c.reply.mark();
    c.reply.error(&error);
    server.stats.count_error(error.code());
    if c.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
        c.reply.truncate(reply_from);
    }
}
