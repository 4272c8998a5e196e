//! The form of listeners and accepts on the tape (`sys::tape`): text, from which a replay makes
//! listeners and connections without sockets.
//!
//! ```text
//!   listeners   kind fd of_unit, a line for each
//!   accept      "none", "error CODE", or: "fd unix local remote uid", the peer, our address
//! ```

use std::io;
use std::os::fd::RawFd;

use super::Connection;
use super::listener::{Accepted, Listener, ListenerKind};
use crate::config::Config;
use crate::sys::tape;

/// A connection in the replay of a recording: it has no socket, only the recorded facts.
pub struct TapedSocket {
    pub fd: RawFd,
    pub is_unix: bool,
    /// Whether the peer runs on the machine of the server.
    pub is_local: bool,
    /// The server's address of the connection, as it was recorded.
    pub local: String,
}

const KINDS: [(&str, ListenerKind); 6] = [
    ("plain", ListenerKind::Plain),
    ("tls", ListenerKind::Tls),
    ("unix", ListenerKind::Unix),
    ("admin", ListenerKind::Admin),
    ("bus", ListenerKind::Bus),
    ("monitor", ListenerKind::Monitor),
];

/// Records the listeners `live` on the tape and returns them; in a replay, returns listeners as
/// they were recorded.
pub fn listeners(live: Vec<Listener>) -> Vec<Listener> {
    let text = tape::text(|| {
        let lines = live.iter().map(|listener| {
            let kind = KINDS.iter().find(|(_, kind)| *kind == listener.kind);
            let name = kind.map_or("", |(name, _)| name);
            let of_unit = u8::from(listener.of_unit);
            format!("{name} {} {of_unit}\n", listener.raw_fd())
        });
        lines.collect::<String>().into_bytes()
    });
    if !tape::replays() {
        return live;
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let listeners: Option<Vec<Listener>> = text.lines().map(listener).collect();
    listeners.unwrap_or_else(|| tape::unusable("its list of listeners"))
}

fn listener(line: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split(' ').collect();
    let [name, fd, of_unit] = words[..] else {
        return None;
    };
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == name)?;
    let mut listener = Listener::taped(*kind, fd_of(fd)?);
    listener.of_unit = of_unit == "1";
    Some(listener)
}

fn fd_of(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|fd| *fd >= 0)
}

/// Accepts a connection by `live` and records the result on the tape; in a replay, returns the
/// recorded result.
pub fn accept(
    kind: ListenerKind,
    config: &Config,
    live: impl FnOnce(&Config) -> io::Result<Option<Accepted>>,
) -> io::Result<Option<Accepted>> {
    let mut accepted = Ok(None);
    let text = tape::text(|| {
        accepted = live(config);
        match &accepted {
            Ok(None) => "none".into(),
            Ok(Some(new)) => line(new).into_bytes(),
            Err(e) => format!("error {}", e.raw_os_error().unwrap_or(libc::EIO)).into(),
        }
    });
    if !tape::replays() {
        return accepted;
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    result(kind, &text).unwrap_or_else(|| tape::unusable("an accepted connection"))
}

fn line(new: &Accepted) -> String {
    let (fd, unix) = (new.conn.raw_fd(), u8::from(new.conn.is_unix()));
    let (local, remote) = (u8::from(new.conn.is_local()), u8::from(new.remote));
    let uid = new.peer_uid.map_or("-".into(), |uid| uid.to_string());
    let addresses = [&new.peer, &new.local, &new.conn.local_address()];
    let addresses = addresses.map(|text| text.replace('\n', " ")).join("\n");
    format!("{fd} {unix} {local} {remote} {uid}\n{addresses}")
}

fn result(kind: ListenerKind, text: &str) -> Option<io::Result<Option<Accepted>>> {
    if text == "none" {
        return Some(Ok(None));
    }
    if let Some(code) = text.strip_prefix("error ") {
        return Some(Err(io::Error::from_raw_os_error(code.parse().ok()?)));
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let [head, peer, local, address] = lines[..] else {
        return None;
    };
    let words: Vec<&str> = head.split(' ').collect();
    let [fd, unix, is_local, remote, uid] = words[..] else {
        return None;
    };
    let socket = TapedSocket {
        fd: fd_of(fd)?,
        is_unix: unix == "1",
        is_local: is_local == "1",
        local: address.into(),
    };
    Some(Ok(Some(Accepted {
        kind,
        conn: Connection::taped(socket),
        peer: peer.into(),
        local: local.into(),
        remote: remote == "1",
        peer_uid: match uid {
            "-" => None,
            uid => Some(uid.parse().ok()?),
        },
    })))
}
