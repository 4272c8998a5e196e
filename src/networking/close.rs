//! Closing clients. A command, a limit or a broken socket only marks a client; here, at the end of
//! a turn, no code holds the client any more, and it can be taken out of every list that it is in.

use ae::EventLoop;

use crate::client::ClientRef;
use crate::state::Server;

/// Free all clients that were marked.
pub fn free_clients_in_async_queue(el: &mut EventLoop<Server>, server: &mut Server) {
    while let Some(r) = server.net.close_asap.pop() {
        free_client(el, server, r);
    }
}

fn free_client(el: &mut EventLoop<Server>, server: &mut Server, r: ClientRef) {
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return;
    };
    crate::execute::disconnect::unlink(server, &mut c);
    if let Some(token) = c.token.take() {
        el.remove_file(token);
    }
    server.net.clients.forget(&c);
}
