//! TCP: the options of listening and of accepted sockets.

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::Config;
use crate::sys;

/// The socket address of `name`, an entry of `bind` (an address, a host name, `*` or `::*`), with
/// `port`.
pub fn resolve(name: &str, port: u16) -> io::Result<SocketAddr> {
    match name {
        "*" => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        "::*" => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        name => {
            let found = (name, port).to_socket_addrs().ok();
            let first = found.and_then(|mut found| found.next());
            first.ok_or_else(|| io::Error::other("Name or service not known"))
        }
    }
}

/// Listens on the address `name` with `port`. `Err` also has the name of the system call that
/// failed, for the log.
pub fn listen_on(
    name: &str,
    port: u16,
    config: &Config,
) -> Result<TcpListener, (&'static str, io::Error)> {
    let address = resolve(name, port).map_err(|e| ("", e))?;
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
        log::warn!("setsockopt: {}", sys::error_text(&e));
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

/// Sets the options of an accepted socket: non-blocking, no delay, keepalive probes.
pub fn set_up(socket: &TcpStream, keepalive_seconds: u32) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    keepalive(socket, keepalive_seconds);
    Ok(())
}

fn keepalive(socket: &TcpStream, seconds: u32) {
    if seconds == 0 {
        return;
    }
    let probe = Duration::from_secs((seconds as u64 / 3).max(1));
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds as u64))
        .with_interval(probe)
        .with_retries(3);
    // An error is ignored: a socket without keepalive works too.
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}
