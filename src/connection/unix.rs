//! Unix sockets: the file of the listening socket, its owner and its permissions.

use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};

use crate::config::{Config, Text};
use crate::sys;
use crate::sys::process;

/// The kernel's maximum length of the path of a Unix socket in bytes, its final NUL included.
pub const PATH_MAX: usize = 108;

/// The settings of a listening Unix socket: path, permissions and group of its file, and backlog.
pub struct Place<'a> {
    pub path: &'a Text,
    permissions: u32,
    group: &'a Text,
    backlog: u32,
}

impl<'a> Place<'a> {
    /// The settings of the Unix socket for clients (`unixsocket`), or with `admin` of the one for
    /// administrators (`admin-unixsocket`).
    pub fn of(config: &'a Config, admin: bool) -> Place<'a> {
        let (path, permissions) = match admin {
            true => (&config.admin_unixsocket, config.admin_unixsocketperm),
            false => (&config.unixsocket, config.unixsocketperm),
        };
        Place {
            path,
            permissions,
            group: &config.unixsocketgroup,
            backlog: config.tcp_backlog,
        }
    }
}

/// The id of the system's user that runs the peer; `None` if the kernel does not report it.
pub fn peer_uid(stream: &UnixStream) -> Option<u32> {
    let found = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    Some(found.uid())
}

/// Whether a listening socket is bound to this path: its file may have been removed, or may be left
/// over from another socket.
pub fn is_bound(path: &Path) -> bool {
    // A datagram socket can't be connected to a stream socket, which notices nothing.
    let tried = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    !tried.is_err_and(|e| absent.contains(&e.kind()))
}

/// Listens at the path of `place`. An existing file is replaced. Fails if the socket's file can't
/// be created.
pub fn listen(place: &Place) -> io::Result<UnixListener> {
    let path = place.path.as_path();
    // A file that can't be removed makes `bind` fail, and that error is returned.
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Err(e) = open_to_clients(&socket, place) {
        // The file is removed, so that a failed start leaves no socket behind; the first error is
        // returned.
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Sets the group and the permissions of the bound socket's file, then listens.
fn open_to_clients(socket: &Socket, place: &Place) -> io::Result<()> {
    let path = place.path.as_path();
    if !place.group.is_empty() {
        let group = place.group;
        process::give_to_group(path, &group.to_str_lossy()).inspect_err(|e| {
            log::warn!(
                "Can't give the unix socket to the group '{group}': {}",
                sys::error_text(e)
            );
        })?;
    }
    if place.permissions != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(place.permissions))?;
    }
    socket.listen(place.backlog as i32)?;
    socket.set_nonblocking(true)
}
