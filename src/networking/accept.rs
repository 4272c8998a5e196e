//! Listening and accepting: TCP on any number of addresses, a unix socket.

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::client::UserRef;
use crate::client::{Client, flag};
use crate::config::Config;
use crate::connection::Connection;
use crate::networking::query::read_handler;
use crate::state::Server;
use crate::sys::process;
use crate::texts;

/// The pause after an accept failed for want of a resource, such as file descriptors. Connections
/// stay in the backlog then, and the poller reports only new ones.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Each of these failures would make a line in the log, so that one line stands for all of an interval.
const WARNING_INTERVAL_MS: i64 = 10_000;

/// Why the server can't listen, in the words of the log's last line before it gives up.
#[derive(Debug)]
pub enum ListenError {
    Tcp { port: u16 },
    Unix { reason: io::Error },
    UnixPathTooLong { len: usize },
}

/// Bytes that the kernel has for a socket's path, its final NUL included.
const UNIX_PATH_MAX: usize = 108;

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Tcp { port } => {
                write!(f, "Failed listening on port {port} (tcp), aborting.")
            }
            ListenError::Unix { reason } => {
                write!(
                    f,
                    "Failed opening Unix socket: bind: {}",
                    crate::sys::error_text(reason)
                )
            }
            ListenError::UnixPathTooLong { len } => write!(
                f,
                "Failed opening Unix socket: unix socket path too long ({len}), must be under {UNIX_PATH_MAX}"
            ),
        }
    }
}

/// Open all listening sockets that the settings name. An address with a leading `-` may be unavailable.
pub fn listen(server: &mut Server) -> Result<(), ListenError> {
    server.net.tcp = listen_tcp(&server.config)?;
    if !server.config.unixsocket.is_empty() && server.net.unix.is_none() {
        let len = server.config.unixsocket.as_bytes().len();
        if len >= UNIX_PATH_MAX {
            return Err(ListenError::UnixPathTooLong { len });
        }
        let listener =
            listen_unix(&server.config).map_err(|reason| ListenError::Unix { reason })?;
        server.net.unix = Some((listener, None));
    }
    Ok(())
}

fn listen_tcp(config: &Config) -> Result<Vec<(TcpListener, Option<Token>)>, ListenError> {
    let mut listeners = Vec::new();
    let addresses = if config.port == 0 {
        &[][..]
    } else {
        &config.bind[..]
    };
    for address in addresses {
        let (name, optional) = match address.strip_prefix('-') {
            Some(name) => (name, true),
            None => (address.as_str(), false),
        };
        match listen_on(name, config) {
            Ok(listener) => listeners.push((listener, None)),
            Err((call, e)) => {
                log::warn!(
                    "Warning: Could not create server TCP listening socket {name}:{}: {call}{}",
                    config.port,
                    crate::sys::error_text(&e)
                );
                if !is_absent(&e, optional) {
                    return Err(ListenError::Tcp { port: config.port });
                }
            }
        }
    }
    Ok(listeners)
}

/// The address, or its whole protocol, does not exist here: no reason to give up the others.
fn is_absent(e: &io::Error, optional: bool) -> bool {
    match e.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => optional,
        Some(libc::ENOPROTOOPT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => true,
        Some(libc::EPFNOSUPPORT | libc::EAFNOSUPPORT) => true,
        _ => false,
    }
}

/// On failure, the call that failed as the log names it.
fn listen_on(name: &str, config: &Config) -> Result<TcpListener, (&'static str, io::Error)> {
    let port = config.port;
    let address: SocketAddr = match name {
        "*" => ([0, 0, 0, 0], port).into(),
        "::*" => (Ipv6Addr::UNSPECIFIED, port).into(),
        name => {
            let found = (name, port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next());
            found.ok_or_else(|| ("", io::Error::other("Name or service not known")))?
        }
    };
    let of = |call| move |e| (call, e);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .map_err(of("socket: "))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(of("setsockopt: "))?;
    }
    socket
        .set_reuse_address(true)
        .map_err(of("setsockopt SO_REUSEADDR: "))?;
    if config.socket_mark_id != 0
        && let Err(e) = socket.set_mark(config.socket_mark_id)
    {
        log::warn!("setsockopt: {}", crate::sys::error_text(&e));
    }
    socket
        .bind(&SockAddr::from(address))
        .map_err(of("bind: "))?;
    socket
        .listen(config.tcp_backlog as i32)
        .map_err(of("listen: "))?;
    socket.set_nonblocking(true).map_err(of("fcntl: "))?;
    Ok(socket.into())
}

fn listen_unix(config: &Config) -> io::Result<UnixListener> {
    let path = config.unixsocket.as_path();
    // What can't be removed is in the way of `bind`, which then says so.
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if !config.unixsocketgroup.is_empty()
        && let Err(e) = process::give_to_group(path, &config.unixsocketgroup.to_str_lossy())
    {
        let group = &config.unixsocketgroup;
        log::warn!(
            "Can't give the unix socket to the group '{group}': {}",
            crate::sys::error_text(&e)
        );
        // The failed start leaves no socket behind; the reason was logged.
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    if config.unixsocketperm != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(config.unixsocketperm))?;
    }
    socket.listen(config.tcp_backlog as i32)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Makes the loop call the accept handlers when a client connects.
pub fn watch_listeners(el: &mut EventLoop<Server>, server: &mut Server) -> io::Result<()> {
    for (index, (listener, token)) in server.net.tcp.iter_mut().enumerate() {
        if token.is_none() {
            let t = el.add_file(listener.as_raw_fd(), Class::Normal, index as u64)?;
            el.set_handler(t, Mask::READABLE, accept_tcp_handler);
            *token = Some(t);
        }
    }
    if let Some((listener, token @ None)) = &mut server.net.unix {
        let t = el.add_file(listener.as_raw_fd(), Class::Normal, 0)?;
        el.set_handler(t, Mask::READABLE, accept_unix_handler);
        *token = Some(t);
    }
    Ok(())
}

/// `port` or `bind` changed: open the new sockets now, so that CONFIG SET can say whether that
/// worked. They are given to the loop before it sleeps ([`rewatch`]). On failure the old sockets
/// stay in use.
/// The old ones are in the way of new ones on the same port, but the loop still watches them, and what is
/// watched must not be closed. So they stop listening (`shutdown`), and start again if they have to stay.
pub fn relisten(server: &mut Server) -> Result<(), ListenError> {
    for (listener, _) in &server.net.tcp {
        // One that can't stop makes the new one fail, which is reported there.
        let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
    }
    match listen_tcp(&server.config) {
        Ok(listeners) => {
            let old = std::mem::replace(&mut server.net.tcp, listeners);
            server
                .net
                .retired
                .extend(old.into_iter().filter(|(_, token)| token.is_some()));
            server.net.relisten = true;
            Ok(())
        }
        Err(failure) => {
            for (listener, _) in &server.net.tcp {
                if let Err(e) = SockRef::from(listener).listen(server.config.tcp_backlog as i32) {
                    log::warn!("Can't listen again: {}", crate::sys::error_text(&e));
                }
            }
            Err(failure)
        }
    }
}

/// Watch the new listening sockets, close the old ones.
pub fn rewatch(el: &mut EventLoop<Server>, server: &mut Server) {
    for (listener, token) in server.net.retired.drain(..) {
        token.map(|t| el.remove_file(t));
        drop(listener);
    }
    if let Err(e) = watch_listeners(el, server) {
        log::warn!("Can't watch the listening sockets: {e}");
    }
}

fn accept_tcp_handler(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    token: Token,
    _: Mask,
) -> Io {
    for _ in 0..server.config.max_new_connections_per_cycle {
        let Some((listener, _)) = server.net.tcp.iter().find(|(_, t)| *t == Some(token)) else {
            return Io::Drained;
        };
        match listener.accept() {
            Ok((stream, address)) => {
                let local = stream
                    .local_addr()
                    .map(|a| a.to_string())
                    .unwrap_or_default();
                let setup = stream
                    .set_nonblocking(true)
                    .and_then(|()| stream.set_nodelay(true));
                if setup.is_err() {
                    continue;
                }
                keepalive(&stream, server.config.tcp_keepalive);
                let remote = !address.ip().to_canonical().is_loopback();
                let conn = Connection::Tcp(stream);
                accept_common(el, server, conn, address.to_string(), local, remote);
            }
            Err(e) => return accept_failed(el, server, e),
        }
    }
    Io::More
}

fn accept_unix_handler(el: &mut EventLoop<Server>, server: &mut Server, _: Token, _: Mask) -> Io {
    for _ in 0..server.config.max_new_connections_per_cycle {
        let Some((listener, _)) = &server.net.unix else {
            return Io::Drained;
        };
        match listener.accept() {
            Ok((stream, _)) => {
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                let name = format!("{}:0", server.config.unixsocket);
                accept_common(
                    el,
                    server,
                    Connection::Unix(stream),
                    name.clone(),
                    name,
                    false,
                );
            }
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
                log::warn!(
                    "Accepting client connection: {}",
                    crate::sys::error_text(&e)
                );
            }
            if !std::mem::replace(&mut server.net.accept_retry, true) {
                el.add_timer(RETRY_AFTER, 0, accept_again);
            }
            Io::Drained
        }
    }
}

/// Try again what failed: connections may wait in any listener's backlog.
fn accept_again(el: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.net.accept_retry = false;
    let tcp = server.net.tcp.iter().filter_map(|(_, token)| *token);
    let unix = server.net.unix.iter().filter_map(|(_, token)| *token);
    for token in tcp.chain(unix) {
        el.mark_ready(token, Mask::READABLE);
    }
    None
}

fn keepalive(stream: &std::net::TcpStream, seconds: u32) {
    if seconds == 0 {
        return;
    }
    let probe = Duration::from_secs((seconds as u64 / 3).max(1));
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds as u64))
        .with_interval(probe)
        .with_retries(3);
    // A socket without keepalive works too.
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// The clients that are let in, and the refusals.
fn accept_common(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    mut conn: Connection,
    peer: String,
    local: String,
    remote: bool,
) {
    let refuse = |conn: &mut Connection, text: &[u8]| {
        // The peer may be gone already; a failed write needs no further report.
        let _ = match conn {
            Connection::Tcp(socket) => socket.write(text),
            Connection::Unix(socket) => socket.write(text),
        };
    };
    if server.net.clients.len() >= server.config.maxclients as usize {
        refuse(&mut conn, b"-ERR max number of clients reached\r\n");
        server.stats.rejected_connections += 1;
        return;
    }
    if remote && server.config.protected_mode && server.acl.default_user().no_password {
        let text = server.config.text(texts::PROTECTED_MODE);
        refuse(&mut conn, format!("-{text}\r\n").as_bytes());
        server.stats.rejected_connections += 1;
        return;
    }
    create_client(el, server, conn, peer, local);
}

fn create_client(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    conn: Connection,
    peer: String,
    local: String,
) {
    let id = server.net.clients.next_id();
    let mut c = Box::new(Client::detached(id, server.clock.now_ms));
    if matches!(conn, Connection::Unix(_)) {
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
    let slot = server.net.clients.insert(c);
    match el.add_file(fd, Class::Normal, slot as u64) {
        Ok(token) => {
            el.set_handler(token, Mask::READABLE, read_handler);
            if let Some(c) = server.net.clients.get_mut(slot) {
                c.token = Some(token);
            }
            server.stats.connections_received += 1;
        }
        Err(e) => {
            log::warn!("Error registering fd event for the new client connection: {e} (fd={fd})");
            if let Some(c) = server.net.clients.take(slot) {
                server.net.clients.forget(&c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;
    use ae::Events;
    use std::os::unix::net::UnixStream;

    /// As `max-new-connections-per-cycle` says, the clients that are there already have their turn in between.
    #[test]
    fn a_turn_accepts_as_many_clients_as_the_setting_says() {
        let path = std::env::temp_dir().join(format!("aeris-accept-{}", std::process::id()));
        let mut server = server_with(0);
        server.config.port = 0;
        server.config.unixsocket = path.to_str().expect("a path of text").into();
        server.config.max_new_connections_per_cycle = 2;
        let mut el = EventLoop::new(64).expect("a loop");
        listen(&mut server).expect("a socket");
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

    /// Each retry fails again while there are no file descriptors: ten times a second.
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
