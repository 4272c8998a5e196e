//! MONITOR: sends every command, after it ran, to each client that called MONITOR.
//!
//! The line that describes a command is formatted once for all monitors. A monitor gets its own
//! commands too, after the replies to them.

use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
use crate::clients::output_limit;
use crate::clock;
use crate::observe::redact::{self, REDACTED};
use crate::state::Server;
use crate::util::quote;

/// Makes a client a monitor, to which every command is sent.
pub fn start(server: &mut Server, c: &mut Client) {
    c.set(flag::MONITOR);
    server.net.monitors.push(c.reference());
    server.update_armed();
}

/// Makes a monitor an ordinary client again.
pub fn stop(server: &mut Server, c: &mut Client) {
    if c.has(flag::MONITOR) {
        let r = c.reference();
        c.clear(flag::MONITOR);
        server.net.monitors.retain(|other| *other != r);
        server.update_armed();
    }
}

/// Sends a command to all monitors: `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
pub fn feed(server: &mut Server, c: &Client, argv: &[&[u8]], changed: bool) {
    let offset = if changed { server.offset_of_event() } else { 0 };
    let line = std::sync::Arc::new(line(server, c, argv));
    let monitors: Vec<ClientRef> = server.net.monitors.clone();
    for r in monitors {
        let Some(mut monitor) = server.net.clients.take_ref(r) else {
            // The monitor itself runs the command, whose reply is not complete yet: the line that
            // describes the command follows the reply.
            if r != c.reference() || !c.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
                server.net.later.push((r, line.clone()));
            }
            continue;
        };
        if !monitor.has(flag::REPLY_OFF | flag::CLOSE_AFTER_REPLY) {
            monitor.reply.raw(&line);
            monitor.aof_offset = monitor.aof_offset.max(offset);
            Net::mark_pending(&mut server.net.pending_write, &mut monitor);
            output_limit::check_output_limit(server, &mut monitor);
        }
        server.net.clients.put(monitor);
    }
}

fn line(server: &Server, c: &Client, argv: &[&[u8]]) -> Vec<u8> {
    let now = clock::unix_us();
    let from = if c.has(flag::SCRIPT) {
        "lua".to_string()
    } else if c.has(flag::UNIX_SOCKET) {
        format!("unix:{}", server.config.unixsocket)
    } else {
        c.peer.to_string()
    };
    let mut line = format!(
        "+{}.{:06} [{} {from}]",
        now / 1_000_000,
        now % 1_000_000,
        c.db
    )
    .into_bytes();
    for (at, arg) in argv.iter().enumerate() {
        line.push(b' ');
        let secret = redact::is_secret(argv, at);
        quote::write_repr(&mut line, if secret { REDACTED } else { arg });
    }
    line.extend_from_slice(b"\r\n");
    line
}
