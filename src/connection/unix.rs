//! Unix sockets: the file of the listening socket, its owner and its permissions.

use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::config::Config;
use crate::sys::process;

/// The kernel's maximum length of a socket's path, its final NUL included.
pub const PATH_MAX: usize = 108;

/// Listens at the path `unixsocket`. An existing file is replaced.
pub fn listen(config: &Config) -> io::Result<UnixListener> {
    let path = config.unixsocket.as_path();
    // A file that can't be removed makes `bind` fail, and that error is returned.
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Err(e) = open_to_clients(&socket, config) {
        // A failed start leaves no socket behind; the reason is returned.
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Sets the group and the permissions of the bound socket's file, then listens.
fn open_to_clients(socket: &Socket, config: &Config) -> io::Result<()> {
    let path = config.unixsocket.as_path();
    if !config.unixsocketgroup.is_empty() {
        let group = &config.unixsocketgroup;
        process::give_to_group(path, &group.to_str_lossy()).inspect_err(|e| {
            log::warn!(
                "Can't give the unix socket to the group '{group}': {}",
                crate::sys::error_text(e)
            );
        })?;
    }
    if config.unixsocketperm != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(config.unixsocketperm))?;
    }
    socket.listen(config.tcp_backlog as i32)?;
    socket.set_nonblocking(true)
}
