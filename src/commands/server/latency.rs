//! LATENCY: the latency monitor (`observe::latency`) and the histograms of each command.

use crate::command::ctx::{CmdResult, Ctx};
use crate::command::table::CommandTable;
use crate::command::*;
use crate::error::{Error, said};
use crate::observe::latency::{doctor, graph};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("latency", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd(
        "doctor",
        latency_doctor,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "graph",
        latency_graph,
        3,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd("help", latency_help, 2, LOADING | STALE, NONE_CAT),
    cmd(
        "histogram",
        latency_histogram,
        -2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "history",
        latency_history,
        3,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "latest",
        latency_latest,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(SPECIAL),
    cmd(
        "reset",
        latency_reset,
        -2,
        ADMIN | NOSCRIPT | LOADING | STALE,
        NONE_CAT,
    )
    .tips(&["request_policy:all_nodes", "response_policy:agg_sum"]),
])];

const SPECIAL: &[&str] = &[
    "nondeterministic_output",
    "request_policy:all_nodes",
    "response_policy:special",
];

/// LATENCY LATEST: the name of each event, time and milliseconds of its last sample, and the
/// maximum, the sum and the number of all samples.
fn latency_latest(ctx: &mut Ctx) -> CmdResult {
    let (events, reply) = (&ctx.server.latency.events, &mut ctx.client.reply);
    reply.array(events.len());
    for (event, series) in events {
        let last = series.samples.back();
        reply.array(6);
        reply.bulk(event.as_bytes());
        reply.integer(last.map_or(0, |sample| sample.time_s));
        reply.integer(last.map_or(0, |sample| sample.ms as i64));
        reply.integer(series.max_ms as i64);
        reply.integer(series.sum_ms as i64);
        reply.integer(series.count as i64);
    }
    Ok(())
}

/// LATENCY HISTORY event
fn latency_history(ctx: &mut Ctx) -> CmdResult {
    let (latency, reply) = (&ctx.server.latency, &mut ctx.client.reply);
    let Some((_, series)) = latency.event(ctx.argv[2]) else {
        reply.array(0);
        return Ok(());
    };
    reply.array(series.samples.len());
    for sample in &series.samples {
        reply.array(2);
        reply.integer(sample.time_s);
        reply.integer(sample.ms as i64);
    }
    Ok(())
}

/// LATENCY GRAPH event
fn latency_graph(ctx: &mut Ctx) -> CmdResult {
    let now = ctx.server.clock.now_s();
    let Some((event, series)) = ctx.server.latency.event(ctx.argv[2]) else {
        let event = said(ctx.argv[2]);
        return Err(Error::new(format!(
            "ERR No samples available for event '{event}'"
        )));
    };
    let drawing = graph(event, series, now);
    ctx.client.reply.verbatim(b"txt", drawing.as_bytes());
    Ok(())
}

/// LATENCY DOCTOR
fn latency_doctor(ctx: &mut Ctx) -> CmdResult {
    let slower_than_us = ctx.server.config.slowlog_log_slower_than;
    let now_s = ctx.server.clock.now_s();
    let mut report = doctor(&ctx.server.latency, slower_than_us, now_s);
    report += &ctx.server.trace.files.describe(now_s);
    ctx.client.reply.verbatim(b"txt", report.as_bytes());
    Ok(())
}

/// LATENCY RESET [event ...]
fn latency_reset(ctx: &mut Ctx) -> CmdResult {
    let latency = &mut ctx.server.latency;
    let events = &ctx.argv[2..];
    let reset = match events.is_empty() {
        true => latency.reset(None),
        false => events.iter().map(|event| latency.reset(Some(event))).sum(),
    };
    ctx.client.reply.integer(reset as i64);
    Ok(())
}

/// LATENCY HISTOGRAM [command ...]: the name of a container stands for all of its subcommands.
fn latency_histogram(ctx: &mut Ctx) -> CmdResult {
    let (table, reply) = (&ctx.server.commands, &mut ctx.client.reply);
    let names = &ctx.argv[2..];
    let ids: Vec<u16> = match names.is_empty() {
        true => (0..table.entries.len() as u16).collect(),
        false => names.iter().flat_map(|name| named(table, name)).collect(),
    };
    let measured = ids
        .iter()
        .map(|&id| table.entry(id))
        .filter(|entry| entry.stats.latency.is_some());
    let deferred = reply.begin_deferred();
    let mut count = 0;
    for entry in measured {
        let Some(histogram) = &entry.stats.latency else {
            continue;
        };
        reply.bulk(entry.fullname.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(histogram.total() as i64);
        reply.bulk(b"histogram_usec");
        let steps = histogram.powers_of_two();
        reply.map(steps.len());
        for (us, calls) in steps {
            reply.integer(us as i64);
            reply.integer(calls as i64);
        }
        count += 1;
    }
    reply.end_map(deferred, count);
    Ok(())
}

fn named(table: &CommandTable, name: &[u8]) -> Vec<u16> {
    let Some(id) = table.lookup_fullname(name) else {
        return Vec::new();
    };
    let (from, count) = table.entry(id).subcommands;
    [id].into_iter().chain(from..from + count).collect()
}

/// LATENCY HELP
fn latency_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        "    Return a cumulative distribution of latencies in the format of a histogram for the specified \
         command names.",
        "    If no commands are specified then all histograms are replied.",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
