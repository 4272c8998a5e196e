//! HOTKEYS: the most used keys, which `observe::hotkeys` counts. START, STOP, GET and RESET are
//! Redis 8.6's; TOP, the keys that are used at present, is an addition.

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::Error;
use crate::observe::hotkeys::summary::Summary;
use crate::observe::hotkeys::{self, Metrics, Monitor, Request, Totals};
use crate::util::number::parse_i64;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[cmd("hotkeys", container, -2, NONE, NONE_CAT).subcommands(&[
    cmd("get", hotkeys_get, 2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd("help", hotkeys_help, 2, LOADING | STALE, NONE_CAT),
    cmd("reset", hotkeys_reset, 2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd("start", hotkeys_start, -2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd("stop", hotkeys_stop, 2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
    cmd("top", hotkeys_top, -2, ADMIN | NOSCRIPT, NONE_CAT).tips(SPECIAL),
])];

/// The tips of HOTKEYS: a client must ask each node of a cluster, as a node reports its own keys
/// only.
const SPECIAL: &[&str] = &["request_policy:special", "response_policy:special"];

/// The number of keys in a ranking without COUNT; `COUNT_MAX` is the maximum of COUNT.
const DEFAULT_COUNT: usize = 10;
const COUNT_MAX: i64 = 64;
/// The last slot of a cluster: a server without cluster mode reports the slots from 0 to this one.
const LAST_SLOT: i64 = 16383;

/// HOTKEYS START METRICS count [CPU] [NET] [COUNT k] [DURATION seconds] [SAMPLE ratio]
fn hotkeys_start(ctx: &mut Ctx) -> CmdResult {
    let request = parse_start(ctx)?;
    if !ctx.server.start_hotkeys(request) {
        return Err(Error::of("ERR hotkey tracking session already in progress"));
    }
    ctx.client.reply.ok();
    Ok(())
}

fn parse_start(ctx: &Ctx) -> Result<Request, Error> {
    if !ctx.is(2, "metrics") {
        return Err(Error::of("ERR METRICS parameter is required"));
    }
    let (metrics, mut at) = parse_metrics(ctx)?;
    let mut request = Request {
        metrics,
        count: DEFAULT_COUNT,
        duration_ms: None,
        ratio: 1,
    };
    while at < ctx.argv.len() {
        if ctx.is(at, "slots") {
            return Err(Error::of(
                "ERR SLOTS parameter cannot be used in non-cluster mode",
            ));
        }
        if at + 1 == ctx.argv.len() {
            return Err(Error::SYNTAX);
        }
        if ctx.is(at, "count") {
            request.count = count(ctx, at + 1)?;
        } else if ctx.is(at, "duration") {
            let text = "ERR DURATION must be positive";
            let seconds = ctx.int_in(at + 1, 1, i64::MAX / 1000, text)?;
            request.duration_ms = Some(seconds * 1000);
        } else if ctx.is(at, "sample") {
            let text = "ERR SAMPLE ratio must be positive";
            request.ratio = ctx.int_in(at + 1, 1, i32::MAX.into(), text)? as u64;
        } else {
            return Err(Error::SYNTAX);
        }
        at += 2;
    }
    Ok(request)
}

/// Parses METRICS of HOTKEYS START, the figures by which keys are ranked; also returns the index of
/// the next option. Unknown names of metrics are ignored, so that a client may request metrics of
/// newer servers.
fn parse_metrics(ctx: &Ctx) -> Result<(Metrics, usize), Error> {
    let count = ctx.argv.get(3).and_then(|arg| parse_i64(arg));
    let count = match count {
        Some(count) if count > 0 => usize::try_from(count).unwrap_or(usize::MAX),
        _ => return Err(Error::of("ERR METRICS count must be positive")),
    };
    let named = &ctx.argv[4..];
    if named.len() < count {
        return Err(Error::of(
            "ERR METRICS count does not match number of metric types provided",
        ));
    }
    let mut metrics = Metrics::default();
    for name in &named[..count] {
        let (metric, twice) = match name.to_ascii_lowercase().as_slice() {
            b"cpu" => (&mut metrics.cpu, "ERR METRICS CPU was given twice"),
            b"net" => (&mut metrics.net, "ERR METRICS NET was given twice"),
            _ => continue,
        };
        if std::mem::replace(metric, true) {
            return Err(Error::of(twice));
        }
    }
    if metrics == Metrics::default() {
        return Err(Error::of(
            "ERR METRICS no valid metrics passed. Supported: CPU|NET",
        ));
    }
    Ok((metrics, 4 + count))
}

fn count(ctx: &Ctx, at: usize) -> Result<usize, Error> {
    let text = "ERR COUNT must be between 1 and 64";
    Ok(ctx.int_in(at, 1, COUNT_MAX, text)? as usize)
}

/// HOTKEYS STOP
///
/// Replies with null if no session runs.
fn hotkeys_stop(ctx: &mut Ctx) -> CmdResult {
    hotkeys::cron(ctx.server);
    if ctx.server.stop_hotkeys() {
        ctx.client.reply.ok();
    } else {
        ctx.client.reply.null();
    }
    Ok(())
}

/// HOTKEYS RESET
fn hotkeys_reset(ctx: &mut Ctx) -> CmdResult {
    hotkeys::cron(ctx.server);
    let session = ctx.server.hotkeys.session.as_ref();
    if session.is_some_and(|session| session.is_active()) {
        return Err(Error::of(
            "ERR hotkey tracking session in progress, stop tracking first",
        ));
    }
    ctx.server.hotkeys.session = None;
    ctx.client.reply.ok();
    Ok(())
}

/// HOTKEYS GET
///
/// Replies with an array of one map, so that a client can merge the replies of several nodes.
fn hotkeys_get(ctx: &mut Ctx) -> CmdResult {
    hotkeys::cron(ctx.server);
    let now = Totals::now(ctx.server);
    let (server, reply) = (&*ctx.server, &mut ctx.client.reply);
    let Some(session) = &server.hotkeys.session else {
        reply.null();
        return Ok(());
    };
    let used = session.used(now);
    let (cpu, net) = (&session.cpu, &session.net);
    reply.array(1);
    reply.map(7 + 3 * usize::from(cpu.is_some()) + 2 * usize::from(net.is_some()));
    let mut fields = Fields(reply);
    fields.integer("tracking-active", i64::from(session.is_active()));
    fields.integer("sample-ratio", session.sampler.ratio as i64);
    fields.all_slots();
    let us = server.clock.us(used.command_ticks);
    fields.integer("all-commands-all-slots-us", us as i64);
    fields.integer("net-bytes-all-commands-all-slots", session.bytes as i64);
    fields.integer("collection-start-time-unix-ms", session.began_ms());
    fields.integer("collection-duration-ms", used.at_ms);
    if cpu.is_some() {
        fields.integer("total-cpu-time-user-ms", used.user_ms);
        fields.integer("total-cpu-time-sys-ms", used.system_ms);
    }
    if net.is_some() {
        fields.integer("total-net-bytes", used.net_bytes as i64);
    }
    if let Some(cpu) = cpu {
        fields.ranking("by-cpu-time-us", cpu, session.count);
    }
    if let Some(net) = net {
        fields.ranking("by-net-bytes", net, session.count);
    }
    Ok(())
}

/// A map in the reply of HOTKEYS GET, to which fields are appended.
struct Fields<'a>(&'a mut ReplyBuf);

impl Fields<'_> {
    fn integer(&mut self, name: &str, value: i64) {
        self.0.bulk(name.as_bytes());
        self.0.integer(value);
    }

    fn all_slots(&mut self) {
        self.0.bulk(b"selected-slots");
        self.0.array(1);
        self.0.array(2);
        self.0.integer(0);
        self.0.integer(LAST_SLOT);
    }

    /// Writes an array of keys, each followed by its figure. A name that is a key in several
    /// databases is written once for each database.
    fn ranking(&mut self, name: &str, summary: &Summary, count: usize) {
        let top = summary.top(count);
        self.0.bulk(name.as_bytes());
        self.0.array(2 * top.len());
        for hot in top {
            self.0.bulk(&hot.name.shown());
            self.0.integer(hot.at_least as i64);
        }
    }
}

/// HOTKEYS TOP [COUNT k]
fn hotkeys_top(ctx: &mut Ctx) -> CmdResult {
    let count = match ctx.argv.len() {
        2 => DEFAULT_COUNT,
        4 if ctx.is(2, "count") => count(ctx, 3)?,
        _ => return Err(Error::SYNTAX),
    };
    let now_ms = ctx.server.clock.now_ms;
    let Some(monitor) = &ctx.server.hotkeys.monitor else {
        return Err(Error::of(
            "ERR the keys of the moment are not tracked, see the setting hotkeys-tracking",
        ));
    };
    let reply = &mut ctx.client.reply;
    reply.map(5);
    let mut fields = Fields(reply);
    fields.integer("sample-ratio", monitor.ageing.ratio as i64);
    fields.integer("half-life", monitor.ageing.half_life_s.into());
    write_moment(reply, "reads", monitor, &monitor.reads, count, now_ms);
    write_moment(reply, "writes", monitor, &monitor.writes, count, now_ms);
    write_moment(reply, "misses", monitor, &monitor.misses, count, now_ms);
    Ok(())
}

/// Writes each of the most used keys with its database, its uses in a second, and its share of all
/// uses.
fn write_moment(
    reply: &mut ReplyBuf,
    name: &str,
    monitor: &Monitor,
    summary: &Summary,
    count: usize,
    now_ms: i64,
) {
    let (top, factor) = (summary.top(count), monitor.per_second(now_ms));
    reply.bulk(name.as_bytes());
    reply.array(top.len());
    for hot in top {
        reply.map(4);
        reply.bulk(b"key");
        reply.bulk(&hot.name.shown());
        reply.bulk(b"db");
        reply.integer(hot.name.db.into());
        reply.bulk(b"per-second");
        reply.double(rounded(hot.at_least * factor));
        reply.bulk(b"percent");
        reply.double(rounded(100.0 * hot.at_least / summary.total()));
    }
}

/// Rounds a figure of a ranking to two decimals, as these figures are estimates.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// HOTKEYS HELP
fn hotkeys_help(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.help(&[
        "HOTKEYS <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET",
        "    Show what the session has found: totals, and the keys that took the most time and bytes.",
        "RESET",
        "    Forget a session that was stopped.",
        "START METRICS <count> [CPU] [NET] [COUNT <k>] [DURATION <seconds>] [SAMPLE <ratio>]",
        "    Start a session that ranks keys by CPU time, by bytes of requests and replies, or by both.",
        "STOP",
        "    End the session and keep what it has found.",
        "TOP [COUNT <k>]",
        "    Show the keys that are read, written and missed most often at the moment",
        "    (with hotkeys-tracking yes).",
        "HELP",
        "    Print this help.",
    ]);
    Ok(())
}
