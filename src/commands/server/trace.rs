//! TRACE: what the loop did and when, which `observe::trace` records. No other server has this
//! command.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::trace::chrome::to_json;
use crate::observe::trace::{EVENTS_DEFAULT, EVENTS_MAX, Recording, Source};
use crate::server::record;
use crate::sys::tape;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("trace", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd(
        "dump",
        trace_dump,
        -2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd("help", trace_help, 2, LOADING | STALE, NONE_CAT),
    cmd("record", trace_record, 3, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd(
        "start",
        trace_start,
        -2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "status",
        trace_status,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "stop",
        trace_stop,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
])];

/// The tips of TRACE: a client must ask each node of a cluster, as a node reports its own event
/// loop only.
const SPECIAL: &[&str] = &["request_policy:special", "response_policy:special"];

/// TRACE START [EVENTS n] [SLOWER-THAN us]
fn trace_start(ctx: &mut Ctx) -> CmdResult {
    let (mut events, mut slower_than_us) = (EVENTS_DEFAULT, 0);
    for at in (2..ctx.argv.len()).step_by(2) {
        if at + 1 == ctx.argv.len() {
            return Err(Error::SYNTAX);
        }
        if ctx.is(at, "events") {
            let text = "ERR EVENTS must be between 1 and 1048576";
            events = ctx.int_in(at + 1, 1, EVENTS_MAX as i64, text)? as usize;
        } else if ctx.is(at, "slower-than") {
            let text = "ERR SLOWER-THAN must be between 0 and 1000000000 microseconds";
            slower_than_us = ctx.int_in(at + 1, 0, 1_000_000_000, text)? as u64;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let trace = &mut ctx.server.trace;
    if trace.session.as_ref().is_some_and(Recording::is_on) {
        return Err(Error::of("ERR a trace is running, TRACE STOP ends it"));
    }
    trace.start(events, slower_than_us, ctx.server.clock.ticks());
    ctx.client.reply.ok();
    Ok(())
}

/// TRACE RECORD file|STOP
fn trace_record(ctx: &mut Ctx) -> CmdResult {
    let recorded = tape::is_on();
    if ctx.is(2, "stop") {
        if !recorded {
            return Err(Error::of(
                "ERR no recording is running, TRACE RECORD begins one",
            ));
        }
        tape::stop("TRACE RECORD STOP");
        ctx.server.trace.follow_tape();
        ctx.client.reply.ok();
        return Ok(());
    }
    if recorded {
        return Err(Error::of(
            "ERR a recording is running, TRACE RECORD STOP ends it",
        ));
    }
    if ctx.client.has(flag::DENY_BLOCKING) {
        return Err(Error::of(
            "ERR TRACE RECORD isn't allowed for DENY BLOCKING client",
        ));
    }
    let path = Path::new(OsStr::from_bytes(ctx.argv[2]));
    // A file outside of the setting `dir` needs the right to change `dir` itself, a protected
    // setting.
    let setting = ctx.server.config.enable_protected_configs;
    let may_leave_dir = setting.allows(ctx.client.is_local());
    record::restart(ctx.server, ctx.client, ctx.argv, path, may_leave_dir)
        .map_err(|reason| Error::new(format!("ERR can't record: {reason}")))
}

/// TRACE STOP
fn trace_stop(ctx: &mut Ctx) -> CmdResult {
    if !ctx.server.trace.stop() {
        return Err(Error::of("ERR no trace is running, TRACE START begins one"));
    }
    ctx.client.reply.ok();
    Ok(())
}

/// TRACE DUMP [RECORDER] [FILE]: replies with or writes what the session of TRACE START recorded,
/// or without a session the last seconds of the flight recorder.
fn trace_dump(ctx: &mut Ctx) -> CmdResult {
    let (mut source, mut to_file) = (None, false);
    for at in 2..ctx.argv.len() {
        if ctx.is(at, "recorder") {
            source = Some(Source::Recorder);
        } else if ctx.is(at, "file") {
            to_file = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let server = &mut *ctx.server;
    let session = server.trace.session.is_some();
    let source = source.unwrap_or(match session {
        true => Source::Session,
        false => Source::Recorder,
    });
    let snapshot = (server.trace).snapshot(source, &server.commands, server.clock.ticks());
    let Some(snapshot) = snapshot else {
        return Err(Error::of(
            "ERR there is no trace, see TRACE START and the setting trace-recorder",
        ));
    };
    if to_file {
        let name = server.trace.files.dump_to_file(snapshot);
        server.trace.follow = true;
        ctx.client.reply.bulk(name.as_bytes());
    } else {
        let json = to_json(&snapshot, "TRACE DUMP");
        ctx.client.reply.bulk(json.as_bytes());
    }
    Ok(())
}

/// TRACE STATUS
fn trace_status(ctx: &mut Ctx) -> CmdResult {
    let taped = tape::progress();
    let (trace, reply) = (&ctx.server.trace, &mut ctx.client.reply);
    reply.map(5);
    for (name, recording) in [("session", &trace.session), ("recorder", &trace.recorder)] {
        reply.bulk(name.as_bytes());
        let Some(recording) = recording else {
            reply.null();
            continue;
        };
        let numbers = [
            ("on", i64::from(recording.is_on())),
            ("capacity", recording.ring.capacity() as i64),
            ("slower-than-us", recording.slower_than_us as i64),
            ("events", recording.ring.pushed() as i64),
            ("overwritten", recording.ring.lost() as i64),
        ];
        reply.map(numbers.len());
        for (name, number) in numbers {
            reply.bulk(name.as_bytes());
            reply.integer(number);
        }
    }
    reply.bulk(b"record");
    match taped {
        None => reply.null(),
        Some((bytes, turns)) => {
            reply.map(2);
            reply.bulk(b"bytes");
            reply.integer(bytes as i64);
            reply.bulk(b"turns");
            reply.integer(turns as i64);
        }
    }
    reply.bulk(b"slow-turns");
    reply.integer(trace.files.slow_turns as i64);
    reply.bulk(b"files");
    let files: Vec<_> = trace.files.written().collect();
    reply.array(files.len());
    for file in files {
        reply.bulk(file.name.as_bytes());
    }
    Ok(())
}

/// TRACE HELP
fn trace_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "TRACE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "START [EVENTS <count>] [SLOWER-THAN <microseconds>]",
        "    Record what the loop does, in a ring of <count> events (default: 131072).",
        "    Events that take less than <microseconds> are left out (default: 0).",
        "STOP",
        "    End the recording and keep it for DUMP.",
        "DUMP [RECORDER] [FILE]",
        "    Return the recording as JSON for Perfetto or chrome://tracing. Without a recording, or",
        "    with RECORDER, that of the flight recorder (with trace-recorder yes). With FILE, write",
        "    it into the working directory and return the file's name.",
        "RECORD <file>|STOP",
        "    Save the data set, start the server again, and record from there on everything that its",
        "    event loop reads, for aeris-server --replay <file>; all connections end. STOP ends the",
        "    recording, and nothing else. A file that exists is overwritten only if it is a recording.",
        "STATUS",
        "    Show what is recorded, and the files of slow turns.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
