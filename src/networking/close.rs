//! Closing clients. A command, a limit or a broken socket only marks; here, at the end of a turn, nobody
//! holds the client any more and it can be taken out of every list that it is in.

use ae::EventLoop;

use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
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
    unlink(server, &mut c);
    if let Some(token) = c.token.take() {
        el.remove_file(token);
    }
    server.net.clients.forget(&c);
}

/// CLIENT KILL and eviction: nobody finds this client from now on. Its socket closes at the end of the turn.
pub fn kill(server: &mut Server, c: &mut Client) {
    unlink(server, c);
    Net::close_asap(&mut server.net.close_asap, c);
}

/// Take a client out of all that refers to it.
fn unlink(server: &mut Server, c: &mut Client) {
    let r = ClientRef {
        slot: c.slot,
        id: c.id,
    };
    crate::execute::blocked::forget(server, c);
    crate::commands::multi::unwatch_all(server, c);
    crate::pubsub::forget_client(server, c);
    crate::observe::monitor::stop(server, c);
    crate::tracking::stop(server, c);
    crate::client::eviction::forget(server, c);
    if c.has(flag::PENDING_WRITE) {
        c.clear(flag::PENDING_WRITE);
        server.net.pending_write.retain(|&slot| slot != c.slot);
        server.net.held.retain(|&slot| slot != c.slot);
    }
    if c.has(flag::UNBLOCKED) {
        c.clear(flag::UNBLOCKED);
        server.blocked.unblocked.retain(|u| *u != r);
    }
}
