//! Accepts connections from the backlogs of listeners, and makes clients of them.
//!
//! ```text
//!   listen ─> watch_listeners ─> accept_handler ─> Listener::accept ─> accept_common
//!                  no file descriptor: accept_again by timer <─┘             │
//!            create_client <─────────────────────────────────────────────────┤
//!            handshakes::begin, for TLS <────────────────────────────────────┤
//!            refused (maxclients, protected mode) <──────────────────────────┘
//! ```
//!
//! All listeners are in one list, `Net::listeners`; `connection::listener` defines the kinds of
//! listeners. Connections that this server has opened become clients by `create_linked_client`.

use ae::{Class, EventLoop, FileProc, Io, Mask, TimerId, Token};
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::acl;
use crate::client::UserRef;
use crate::client::{Client, ClientRef, flag};
use crate::connection::Connection;
use crate::connection::inherited::Inherited;
use crate::connection::listener::{self, Accepted, ListenError, Listener, ListenerKind};
use crate::member;
use crate::networking::bus;
use crate::networking::handshakes;
use crate::networking::http;
use crate::networking::query::{self, handler_for};
use crate::state::Server;
use crate::sys;
use crate::sys::process;
use crate::sys::tape;
use crate::texts;

/// The pause after an accept that failed because a resource, such as file descriptors, was missing,
/// before the next attempt. After a failed accept, connections stay in the backlog, and the poller
/// reports only new connections.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The number of clients of `admin-unixsocket` up to which another one is accepted although the
/// server has `maxclients` clients or more; `init::RESERVED_FDS` includes file descriptors for
/// these clients.
const ADMIN_SLOTS: usize = 8;

/// The interval in milliseconds in which at most one failed accept is logged.
const WARNING_INTERVAL_MS: i64 = 10_000;

/// Opens the listening sockets for all ports and unix sockets of the settings, or takes over those
/// that systemd has opened.
pub fn listen(server: &mut Server, mut inherited: Inherited) -> Result<(), ListenError> {
    let bus_port = member::bus_port(server);
    let Server { net, config, .. } = server;
    let inherited_mut = &mut inherited;
    if !inherited_mut.is_empty() {
        // A stored socket of an address that overlaps with one of the settings would prevent the
        // server from listening there.
        let paths = [&config.unixsocket, &config.admin_unixsocket].map(|path| path.as_path());
        inherited_mut.close_others(&listener::addresses(config, bus_port), &paths);
    }
    let mut all = listener::open_tcp(config, ListenerKind::Plain, inherited_mut)?;
    all.extend(listener::open_tcp(
        config,
        ListenerKind::Tls,
        inherited_mut,
    )?);
    for kind in [ListenerKind::Unix, ListenerKind::Admin] {
        all.extend(listener::open_unix(config, kind, inherited_mut)?);
    }
    all.extend(listener::open_monitor(config, inherited_mut)?);
    if let Some(port) = bus_port {
        all.extend(listener::open_bus(config, port, inherited_mut)?);
    }
    net.unit_sockets = all.iter().filter_map(Listener::copy_of_unit).collect();
    net.listeners = all;
    Ok(())
}

/// Makes the event loop watch each listener that it does not watch yet, so that connections in the
/// listener's backlog are accepted.
pub fn watch_listeners(el: &mut EventLoop<Server>, server: &mut Server) -> io::Result<()> {
    for listener in &mut server.net.listeners {
        if listener.token.is_none() {
            let token = el.add_file(listener.raw_fd(), listener.class, 0)?;
            el.set_handler(token, Mask::READABLE, accept_handler);
            listener.token = Some(token);
        }
    }
    Ok(())
}

/// `port`, `tls-port` or `bind` changed: opens the new sockets at once, so that CONFIG SET can
/// report a failure. The loop begins to watch the new sockets before it sleeps ([`rewatch`]). If
/// the new sockets can't be opened, the old ones stay.
///
/// While the old sockets listen, no new socket can listen on the same port, but a socket that the
/// loop watches must not be closed. So the old sockets stop listening first, and listen again if
/// the new sockets can't be opened. The sockets of a socket unit go on listening in the supervisor,
/// and are used again if the settings name their addresses.
pub fn relisten(server: &mut Server, kind: ListenerKind) -> Result<(), ListenError> {
    tape::not_recorded("a change of the listening sockets");
    let Server { net, config, .. } = server;
    let is_old = |l: &&mut Listener| l.kind == kind && !l.retired;
    for old in net.listeners.iter_mut().filter(is_old) {
        old.pause();
    }
    let of_unit = net.unit_sockets.iter().filter(|(of, _)| *of == kind);
    let of_unit = of_unit.filter_map(|(_, socket)| socket.try_clone().ok());
    let mut inherited = Inherited::again(of_unit.collect(), config.tcp_backlog);
    let opened = listener::open_tcp(config, kind, &mut inherited);
    for old in net.listeners.iter_mut().filter(is_old) {
        match &opened {
            Ok(_) => old.retired = true,
            Err(_) => {
                if let Err(e) = old.resume(config) {
                    log::warn!("Can't listen again: {}", sys::error_text(&e));
                }
            }
        }
    }
    net.listeners.extend(opened?);
    net.relisten = true;
    Ok(())
}

/// Before the loop sleeps: watches the new listening sockets and closes the retired ones.
pub fn rewatch(el: &mut EventLoop<Server>, server: &mut Server) {
    for old in server.net.listeners.extract_if(.., |l| l.retired) {
        old.token.map(|token| el.remove_file(token));
    }
    if let Err(e) = watch_listeners(el, server) {
        log::warn!("Can't watch the listening sockets: {e}");
    }
}

/// Accepts the connections in a listener's backlog, at most `max-new-connections-per-cycle` in one
/// turn.
fn accept_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    for _ in 0..server.config.max_new_connections_per_cycle {
        let watched = |l: &&Listener| l.token == Some(token) && !l.retired;
        let Some(listener) = server.net.listeners.iter().find(watched) else {
            return Io::Drained;
        };
        match listener.accept(&server.config) {
            Ok(Some(accepted)) => match listener.kind {
                ListenerKind::Monitor => http::accept(el, server, accepted),
                ListenerKind::Bus => bus::accept(el, server, accepted),
                _ => accept_common(el, server, accepted),
            },
            Ok(None) => {}
            Err(e) => return accept_failed(el, server, e),
        }
    }
    Io::More
}

fn accept_failed(el: &mut EventLoop<Server>, server: &mut Server, e: io::Error) -> Io {
    match e.kind() {
        ErrorKind::WouldBlock => Io::Drained,
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Io::More,
        _ => {
            let now = server.clock.now_ms;
            if server.net.accept_warning.allows(now, WARNING_INTERVAL_MS) {
                log::warn!("Accepting client connection: {}", sys::error_text(&e));
            }
            if !std::mem::replace(&mut server.net.accept_retry, true) {
                el.add_timer(RETRY_AFTER, 0, accept_again);
            }
            Io::Drained
        }
    }
}

/// Some time after a failed accept, accepts from all listeners, since connections may wait in the
/// backlog of any of them.
fn accept_again(el: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.net.accept_retry = false;
    let current = server.net.listeners.iter().filter(|l| !l.retired);
    for token in current.filter_map(|l| l.token) {
        el.mark_ready(token, Mask::READABLE);
    }
    None
}

/// Makes a client of an accepted connection, or refuses the connection.
fn accept_common(el: &mut EventLoop<Server>, server: &mut Server, accepted: Accepted) {
    let connected = server.net.clients.len() + server.handshakes.count();
    let is_full = connected >= server.config.maxclients as usize;
    if is_full && !has_admin_slot(server, &accepted) && !handshakes::make_room(el, server) {
        return refuse(server, accepted, "ERR max number of clients reached");
    }
    if accepted.kind == ListenerKind::Tls {
        // The protected mode is checked after the handshake, when a reply can be sent.
        return handshakes::begin(el, server, accepted);
    }
    let Some(accepted) = unless_protected(server, accepted) else {
        return;
    };
    let uid = accepted.peer_uid;
    let Accepted {
        conn, peer, local, ..
    } = accepted;
    let created = create_client(el, server, conn, peer, local);
    if let (Some(r), Some(uid)) = (created, uid) {
        log_in_by_uid(server, r, uid);
    }
}

/// Refuses a connection from another machine if the protected mode is on and the default user has
/// no password. Returns a connection that is not refused.
pub fn unless_protected(server: &mut Server, accepted: Accepted) -> Option<Accepted> {
    let open_to_all = server.config.protected_mode && server.acl.default_user().no_password;
    if !accepted.remote || !open_to_all {
        return Some(accepted);
    }
    let text = server.config.text(texts::PROTECTED_MODE);
    refuse(server, accepted, text);
    None
}

/// Whether the connection is one of `admin-unixsocket`, and fewer than `ADMIN_SLOTS` clients are
/// connected there.
fn has_admin_slot(server: &Server, accepted: &Accepted) -> bool {
    let clients = server.net.clients.iter();
    accepted.kind == ListenerKind::Admin
        && clients.filter(|c| *c.local == accepted.local).count() < ADMIN_SLOTS
}

/// Logs a client of a unix socket in by the first pair of `unixsocket-users` whose system user is
/// the user `uid` of the client's process.
fn log_in_by_uid(server: &mut Server, r: ClientRef, uid: u32) {
    let users = server.config.unixsocket_users.to_str_lossy().into_owned();
    let pairs = users
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(system, _)| process::is_user(system, uid));
    if let Some((_, name)) = named.next()
        && let Some(mut c) = server.net.clients.take_ref(r)
    {
        acl::log_in_by_socket(server, &mut c, name.as_bytes());
        server.net.clients.put(c);
    }
}

/// Closes an accepted connection. The reason `text` is sent as an error reply; with TLS nothing can
/// be sent before the handshake.
fn refuse(server: &mut Server, mut accepted: Accepted, text: &str) {
    if accepted.kind != ListenerKind::Tls || accepted.conn.is_tls() {
        // An error of the write is ignored, since the connection is closed in any case.
        let _ = accepted.conn.write(format!("-{text}\r\n").as_bytes());
        accepted.conn.goodbye();
    }
    server.stats.rejected_connections += 1;
}

/// Makes a client of an open connection. `None` if the loop can't watch the connection.
pub fn create_client(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    conn: Connection,
    peer: String,
    local: String,
) -> Option<ClientRef> {
    let id = server.net.clients.next_id();
    let mut c = Box::new(Client::detached(id, server.clock.now_ms));
    if conn.is_unix() {
        c.set(flag::UNIX_SOCKET);
    }
    let fd = conn.raw_fd();
    c.conn = Some(conn);
    c.peer = peer.into();
    c.local = local.into();
    c.user = UserRef::DEFAULT;
    c.authenticated = server.acl.default_user_is_open();
    if c.authenticated {
        c.set(flag::EVER_AUTHENTICATED);
    }
    let handler = handler_for(server.config.teach);
    match watch_client(el, server, c, Class::Normal, handler) {
        Ok(r) => {
            server.stats.connections_received += 1;
            Some(r)
        }
        Err(e) => {
            log::warn!("Error registering fd event for the new client connection: {e} (fd={fd})");
            None
        }
    }
}

/// Makes a client of a connection that this server has opened, so that the commands that arrive on
/// the connection are executed. The client of a connection that this server has opened has all ACL
/// rights and gets no replies. `role` is the flag of the new client, such as `flag::PRIMARY`.
pub fn create_linked_client(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    conn: Connection,
    peer: String,
    role: u64,
) -> io::Result<ClientRef> {
    let id = server.net.clients.next_id();
    let mut c = Box::new(Client::detached(id, server.clock.now_ms));
    c.set(role | flag::REPLY_OFF | flag::DENY_BLOCKING | flag::EVER_AUTHENTICATED);
    c.local = conn.local_address().into();
    c.peer = peer.into();
    c.conn = Some(conn);
    let r = watch_client(el, server, c, Class::First, query::read_handler)?;
    // A TLS session may have decrypted bytes already, which the poller does not report.
    if let Some(token) = server.net.clients.resolve(r).and_then(|c| c.token) {
        el.mark_ready(token, Mask::READABLE);
    }
    Ok(r)
}

/// Executes the requests that were read from a connection before the connection became a client. A
/// long script among the requests lets the event loop turn.
pub fn feed_linked_client(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    r: ClientRef,
    received: &[u8],
) {
    if !received.is_empty()
        && let Some(mut c) = server.net.clients.take_ref(r)
    {
        let lent = server.event_loop.lent.clone();
        lent.lend(el, || query::feed(server, &mut c, received));
        server.net.clients.put(c);
    }
}

/// Adds a client to the table of clients, and lets the event loop watch its connection. If the loop
/// can't watch the connection, the client is dropped.
fn watch_client(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    c: Box<Client>,
    class: Class,
    handler: FileProc<Server>,
) -> io::Result<ClientRef> {
    let fd = c.conn.as_ref().map_or(-1, Connection::raw_fd);
    let id = c.id;
    let slot = server.net.clients.insert(c);
    match el.add_file(fd, class, slot.into()) {
        Ok(token) => {
            el.set_handler(token, Mask::READABLE, handler);
            if let Some(c) = server.net.clients.get_mut(slot) {
                c.token = Some(token);
            }
            Ok(ClientRef { slot, id })
        }
        Err(e) => {
            if let Some(c) = server.net.clients.take(slot) {
                server.net.clients.forget(&c);
            }
            Err(e)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;
    use ae::Events;
    use std::os::unix::net::UnixStream;

    /// At most `max-new-connections-per-cycle` clients are accepted in a turn, so that existing
    /// clients are served in between.
    #[test]
    fn a_turn_accepts_as_many_clients_as_the_setting_says() {
        let path = std::env::temp_dir().join(format!("aeris-accept-{}", std::process::id()));
        let mut server = server_with(0);
        server.config.port = 0;
        server.config.unixsocket = path.to_str().expect("a path of text").into();
        server.config.max_new_connections_per_cycle = 2;
        let mut el = EventLoop::new(64).expect("a loop");
        listen(&mut server, Inherited::default()).expect("a socket");
        watch_listeners(&mut el, &mut server).expect("watched");
        let _clients: Vec<_> = (0..5).map(|_| UnixStream::connect(&path)).collect();
        std::fs::remove_file(&path).expect("the socket's file");
        let accepted = [2, 4, 5].map(|_| {
            let turn = el.process_events(&mut server, Events::FILES | Events::DONT_WAIT);
            turn.expect("a turn");
            server.net.clients.len()
        });
        assert_eq!(accepted, [2, 4, 5]);
    }

    /// Without file descriptors, ten attempts to accept fail each second, but only one line is
    /// logged for each interval.
    #[test]
    fn accepts_that_go_on_failing_make_one_line_for_each_interval() {
        let mut server = server_with(0);
        let mut el = EventLoop::new(64).expect("a loop");
        let mut fail = |server: &mut Server| {
            let none_left = io::Error::from_raw_os_error(libc::EMFILE);
            assert_eq!(accept_failed(&mut el, server, none_left), Io::Drained);
            assert!(server.net.accept_retry);
            server.net.accept_warning
        };
        let first = fail(&mut server);
        server.clock.now_ms += WARNING_INTERVAL_MS;
        assert_eq!(fail(&mut server), first);
        server.clock.now_ms += 1;
        assert_ne!(fail(&mut server), first);
    }
}
