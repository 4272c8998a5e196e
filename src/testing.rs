//! Helpers for unit tests of whole commands: a server without sockets, and its clients with their
//! requests and replies.

use crate::client::Client;
use crate::config::Config;
use crate::networking::query;
use crate::state::Server;

/// The time at which a test server starts, in Unix milliseconds.
const BEGIN_MS: i64 = 1000;

/// Creates a server with `clients` clients, in the slots from 0 on.
pub fn server_with(clients: u32) -> Server {
    let mut server = Server::new(Config::default(), Vec::new());
    server.clock.now_ms = BEGIN_MS;
    for _ in 0..clients {
        let id = server.net.clients.next_id();
        let c = Client::detached(id, BEGIN_MS);
        server.net.clients.insert(Box::new(c));
    }
    server
}

/// Runs these lines as a client's requests. Returns the replies as text of the protocol.
pub fn say(server: &mut Server, slot: u32, lines: &[&str]) -> String {
    let mut c = server.net.clients.take(slot).expect("a client");
    let text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    query::feed(server, &mut c, text.as_bytes());
    let reply = c.reply.take_bytes();
    server.net.clients.put(c);
    String::from_utf8_lossy(&reply).into_owned()
}

/// The bytes that a client was sent since the last call.
pub fn heard(server: &mut Server, slot: u32) -> String {
    let c = server.net.clients.get_mut(slot).expect("a client");
    String::from_utf8_lossy(&c.reply.take_bytes()).into_owned()
}

/// A reply on one line, with spaces between its parts.
pub fn on_one_line(reply: String) -> String {
    reply.replace("\r\n", " ").trim_end().to_string()
}
