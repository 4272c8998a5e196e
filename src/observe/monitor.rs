//! MONITOR: every command, as it runs, to everyone who asked.

use crate::networking::client::{Client, flag};
use crate::networking::clients::Net;
use crate::state::Server;
use crate::util::quote;

/// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`
pub fn feed(server: &mut Server, c: &Client, argv: &[&[u8]]) {
    let now = crate::server::clock::unix_us();
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
    for arg in argv {
        line.push(b' ');
        quote::write_repr(&mut line, arg);
    }
    line.extend_from_slice(b"\r\n");
    for r in server.net.monitors.clone() {
        let Some(mut monitor) = server.net.clients.take_ref(r) else {
            continue;
        };
        monitor.reply.raw(&line);
        Net::mark_pending(&mut server.net.pending_write, &mut monitor);
        crate::networking::write::check_output_limit(server, &mut monitor);
        server.net.clients.put(monitor);
    }
}
