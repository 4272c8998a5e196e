//! Messages to systemd, and what systemd hands over at start: listening sockets, the period of its
//! watchdog.
//!
//! Nothing is sent before [`begin`], which the start calls if systemd is the supervisor. The
//! address of systemd's socket is in the environment (`NOTIFY_SOCKET`). A forked child sends
//! nothing to systemd.
//!
//! Without a socket unit, systemd keeps the listening sockets that [`store`] gives it over a
//! restart. Connections are not stored: a connection can't outlive the process, whose data set is
//! loaded again.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use sd_notify::NotifyState;

/// The pid of the process that sends messages to systemd; 0 before [`begin`].
static SENDER: AtomicU32 = AtomicU32::new(0);

/// Begins to send messages to systemd from this process.
pub fn begin() {
    SENDER.store(std::process::id(), Ordering::Relaxed);
}

/// Whether this process sends messages to systemd.
pub fn is_active() -> bool {
    SENDER.load(Ordering::Relaxed) == std::process::id()
}

/// Sends these states to systemd as one message.
pub fn send(states: &[NotifyState]) {
    if !is_active() {
        return;
    }
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(e) = send_files(&message, &[]) {
        let reason = super::error_text(&e);
        log::warn!("Can't send a message to systemd: {reason}");
    }
}

/// The period in which systemd's watchdog expects a message.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|_| is_active())
}

/// The name of the sockets that systemd keeps for the server.
const STORED: &str = "aeris-listener";

/// The sockets that systemd hands over at start.
#[derive(Default)]
pub struct Handed {
    /// The sockets that a socket unit has opened. The unit keeps them open in any case, and shares
    /// them with this process: shutdown(2) would stop them for the next process, too.
    pub of_unit: Vec<OwnedFd>,
    /// The sockets that an earlier process of this server gave to [`store`].
    pub stored: Vec<OwnedFd>,
}

/// The sockets that systemd has opened or kept for this process. Must be called once, before any
/// file is opened by number.
pub fn inherited_sockets() -> Handed {
    let mut handed = Handed::default();
    match sd_notify::listen_fds_with_names() {
        Ok(files) => {
            for (fd, name) in files {
                // SAFETY: systemd opened these files for this process (LISTEN_PID names it), and
                // this is the only call that takes them.
                let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                match name == STORED {
                    true => handed.stored.push(socket),
                    false => handed.of_unit.push(socket),
                }
            }
        }
        Err(e) => log::warn!("Can't take the sockets of systemd: {e}"),
    }
    handed
}

/// The maximum number of sockets that are stored, as in the service's file
/// (FileDescriptorStoreMax).
const STORED_MAX: usize = 64;

/// Gives systemd these sockets to keep, in place of those of the last call.
pub fn store(sockets: &[BorrowedFd]) {
    if !is_active() {
        return;
    }
    let numbers = sockets.iter().map(|fd| fd.as_raw_fd());
    let files: Vec<i32> = numbers.take(STORED_MAX).collect();
    let mut sent = send_files(&format!("FDSTOREREMOVE=1\nFDNAME={STORED}\n"), &[]);
    if sent.is_ok() && !files.is_empty() {
        sent = send_files(&format!("FDSTORE=1\nFDNAME={STORED}\n"), &files);
    }
    if let Err(e) = sent {
        let reason = super::error_text(&e);
        log::warn!("Can't store the listening sockets in systemd: {reason}");
    }
}

/// Sends a message with files to the socket that `NOTIFY_SOCKET` names, by its path or as `@` and
/// an abstract name.
fn send_files(message: &str, files: &[i32]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(path.as_os_str())?,
    };
    let socket = UnixDatagram::unbound()?;
    let text = [IoSlice::new(message.as_bytes())];
    let rights = match files {
        [] => &[][..],
        files => &[ControlMessage::ScmRights(files)],
    };
    sendmsg(
        socket.as_raw_fd(),
        &text,
        rights,
        MsgFlags::empty(),
        Some(&address),
    )?;
    Ok(())
}

/// The speed of a slow disk, from which the time for work on files is estimated.
const BYTES_PER_SECOND: usize = 10_000_000;
const LEAST: Duration = Duration::from_secs(60);

/// Runs `work`, which reads or writes `bytes` bytes of files without a turn of the loop. Meanwhile
/// systemd waits longer for the watchdog's message and for a stop.
pub fn during_long_work<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let limit = LEAST + Duration::from_secs((bytes / BYTES_PER_SECOND) as u64);
    let limit_us = |limit: Duration| u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    let period = watchdog();
    send(&[NotifyState::ExtendTimeoutUsec(limit_us(limit))]);
    if let Some(period) = period {
        send(&[NotifyState::WatchdogUsec(limit_us(limit.max(period)))]);
    }
    let result = work();
    if let Some(period) = period {
        send(&[NotifyState::WatchdogUsec(limit_us(period))]);
    }
    result
}
