//! The live page of the monitor port: its text, and the snapshots of figures that keep it up to
//! date.
//!
//! ```text
//!   GET /           page.html, with {{field}} replaced by INFO's value: it is readable without script
//!   GET /live.json  a snapshot
//!   GET /events     snapshots as server-sent events, one in each tick of the port's timer
//! ```
//!
//! **Limits:** a snapshot for the live page has at most the turns of 10 seconds, [`CLIENTS`]
//! clients and [`HOT_KEYS`] keys of each use. Names of keys and clients are shown as text, never as
//! HTML.

use serde_json::{Map, Value, json};

use super::fields::{Fields, part};
use crate::clients::describe::flags_text;
use crate::observe::hotkeys::Monitor;
use crate::observe::turns::Turn;
use crate::state::Server;
use crate::types::Type;

/// In a snapshot for the live page: the maximum number of clients (`CLIENTS`), and of hot keys for
/// reads and for writes each (`HOT_KEYS`).
const CLIENTS: usize = 50;
const HOT_KEYS: usize = 10;
/// The maximum number of bytes of a client's name that the live page shows.
const NAME_BYTES: usize = 100;

const PAGE: &str = include_str!("page.html");

/// The live page, with each `{{field}}` replaced by the present value of this field of INFO.
pub fn page(fields: &Fields) -> String {
    let by_name = fields.by_name();
    let mut out = String::with_capacity(PAGE.len());
    let mut pieces = PAGE.split("{{");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, text) = piece.split_once("}}").unwrap_or(("", piece));
        out.push_str(&escaped(by_name.get(name).copied().unwrap_or_default()));
        out.push_str(text);
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A snapshot of the server's figures for the live page, with the turns that began after `after_us`
/// (Unix time in microseconds), as JSON on one line.
pub fn snapshot(server: &mut Server, after_us: i64) -> String {
    let fields = Fields::take(server);
    let server = &*server;
    let info: Map<String, Value> = fields
        .iter()
        .filter(|(name, _)| !name.contains("stat_") && !name.starts_with("latency_"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let turns = server.turns.as_deref();
    let as_array = |turn: &Turn| {
        let Turn {
            began_us,
            us,
            commands,
            ..
        } = *turn;
        json!([
            began_us,
            us,
            commands,
            turn.commands_us,
            turn.cron_us,
            turn.aof_us,
            turn.longest.map(
                |longest| server.commands.entries[usize::from(longest.command)]
                    .fullname
                    .to_string()
            ),
            turn.longest.map(|longest| longest.us)
        ])
    };
    let since = turns.into_iter().flat_map(|turns| turns.since(after_us));
    let slowest = turns.map(|turns| turns.slowest()).unwrap_or_default();
    let body = json!({
        "now_us": server.clock.now_us,
        "info": info,
        "totals": totals(server),
        "turns": since.map(as_array).collect::<Vec<_>>(),
        "slowest": slowest.iter().map(as_array).collect::<Vec<_>>(),
        "histogram": turns.map(|turns| turns.histogram().to_vec()).unwrap_or_default(),
        "databases": databases(&fields),
        "types": types(&fields),
        "memory": memory_by_type(server),
        "hot_on": server.hotkeys.monitor.is_some(),
        "hot": server.hotkeys.monitor.as_ref().map(|m| hot_keys(m, server.clock.now_ms)).unwrap_or_default(),
        "clients": clients(server),
    });
    body.to_string()
}

/// Totals since the start of the server, from which the live page computes rates.
fn totals(server: &Server) -> Value {
    let (stats, clock) = (&server.stats, &server.clock);
    json!({
        "wall_us": clock.now_us,
        "turns": stats.eventloop_cycles,
        "turns_us": stats.eventloop_us,
        "commands": stats.commands_processed,
        "commands_us": clock.us(stats.command_ticks),
        "cron_us": clock.us(stats.cron_ticks),
        "aof_us": clock.us(stats.aof_ticks),
        "reads": stats.reads_processed,
        "writes": stats.writes_processed,
    })
}

/// The number, the keys and the expiring keys of each database.
fn databases(fields: &Fields) -> Vec<Value> {
    let databases = fields.iter().filter_map(|(name, value)| {
        let db: u32 = name.strip_prefix("db")?.parse().ok()?;
        Some(json!([db, part(value, "keys"), part(value, "expires")]))
    });
    databases.collect()
}

/// The keys and bytes of each type that has keys, the number of keys that were sampled for the
/// estimate, and whether all keys were sampled. The result is `null` while memory by type is not
/// estimated.
fn memory_by_type(server: &Server) -> Value {
    let Some(memory) = &server.visits.type_memory else {
        return Value::Null;
    };
    let keys = server.data.dbs.iter().map(|db| db.keys.len() as u64).sum();
    let found = memory.estimate(keys);
    let types = Type::ALL.iter().zip(found.types);
    let types = types.filter(|(_, of)| of.keys > 0);
    let types = types.map(|(kind, of)| json!([kind.name(), of.keys, of.bytes]));
    json!({
        "types": types.collect::<Vec<_>>(),
        "seen": found.seen,
        "whole": found.whole,
        "keys": keys,
    })
}

/// The size of the largest key of each type, if `bigkeys-tracking` is on.
fn types(fields: &Fields) -> Vec<Value> {
    let types = fields.iter().filter_map(|(name, value)| {
        let kind = name.strip_prefix("bigkeys-")?;
        let bytes: u64 = part(value, "max_bytes").parse().ok()?;
        let elements: u64 = part(value, "max_elements").parse().ok()?;
        Some(json!([kind, elements, bytes]))
    });
    types.collect()
}

/// Name, use (read or write) and accesses each second of the keys that are used most.
fn hot_keys(monitor: &Monitor, now_ms: i64) -> Vec<Value> {
    let factor = monitor.per_second(now_ms);
    let mut out = Vec::new();
    for (use_name, summary) in [("read", &monitor.reads), ("write", &monitor.writes)] {
        for hot in summary.top(HOT_KEYS) {
            let name = String::from_utf8_lossy(&hot.name.shown()).into_owned();
            out.push(json!([name, use_name, hot.at_most * factor]));
        }
    }
    out
}

/// Id, address, name, idle seconds, last command, bytes and number of commands of the first clients
/// in the table of clients.
fn clients(server: &Server) -> Vec<Value> {
    let now_ms = server.clock.now_ms;
    let shown = server.net.clients.iter().take(CLIENTS).map(|c| {
        let command = c.shown_cmd.map(|id| &*server.commands.entry(id).fullname);
        let name = c.name.as_deref().unwrap_or_default();
        let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES)]);
        json!([
            c.id,
            &*c.peer,
            name,
            (now_ms - c.last_interaction_ms).max(0) / 1000,
            format!("{} ({})", command.unwrap_or("none"), flags_text(c)),
            c.memory(),
            c.commands,
        ])
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        assert!(PAGE.len() < 60 * 1024);
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }

    #[test]
    fn each_placeholder_is_a_field_of_info() {
        let mut server = server_with(0);
        let fields = Fields::take(&mut server);
        let by_name = fields.by_name();
        for piece in PAGE.split("{{").skip(1) {
            let (name, _) = piece.split_once("}}").expect("an end");
            assert!(by_name.contains_key(name), "{name}");
        }
        let text = page(&fields);
        assert!(!text.contains("{{") && text.contains("port 6379"));
    }

    #[test]
    fn values_are_text_not_html() {
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }
}
