//! Closes clients. Commands, limits and broken sockets only mark a client. At the end of a turn,
//! when no code uses a marked client any more, `free_clients_in_async_queue` removes the client
//! from all lists.

use ae::EventLoop;

use crate::client::ClientRef;
use crate::execute::disconnect;
use crate::state::Server;

/// Frees all clients that were marked to be closed.
pub fn free_clients_in_async_queue(el: &mut EventLoop<Server>, server: &mut Server) {
    while let Some(r) = server.net.close_asap.pop() {
        free_client(el, server, r);
    }
}

fn free_client(el: &mut EventLoop<Server>, server: &mut Server, r: ClientRef) {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return;
    };
    disconnect::unlink(server, &mut c);
    if let Some(conn) = &mut c.conn {
        conn.goodbye();
    }
    if let Some(token) = c.token.take() {
        el.remove_file(token);
    }
    server.net.clients.forget(&c);
}
