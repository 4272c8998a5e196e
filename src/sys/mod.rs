//! Safe functions for the few operating-system calls that std does not have. `unsafe` is allowed
//! here and in `ds` only.
#![allow(unsafe_code)]

pub mod allocator;
pub mod cache;
pub mod crash;
pub mod fork;
pub mod instant;
pub mod lazyfree;
pub mod lend;
pub mod local_time;
pub mod locale;
pub mod lua;
pub mod mover;
pub mod print;
pub mod process;
pub mod signals;
pub mod supervisor;
pub mod syslog;
pub mod tape;
pub mod ticks;
pub mod title;

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// The C library's text for an error: `Connection reset by peer`, without the number that std adds.
pub fn error_text(e: &io::Error) -> String {
    let text = e.to_string();
    match e.raw_os_error() {
        Some(code) => text
            .strip_suffix(&format!(" (os error {code})"))
            .unwrap_or(&text)
            .to_string(),
        None => text,
    }
}

/// DEBUG SLEEP: stops this thread, and with it the server, for `time`.
pub fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Reads at most `max` bytes from `fd` and appends them to `into`, whose spare capacity is grown as
/// needed and is not cleared first.
pub fn read_into(fd: BorrowedFd, into: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    into.reserve(max);
    let spare = into.spare_capacity_mut();
    let len = spare.len().min(max);
    // SAFETY: the kernel writes at most `len` bytes into spare capacity of at least that size.
    let n = unsafe { libc::read(fd.as_raw_fd(), spare.as_mut_ptr().cast(), len) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has initialised the first `n` bytes behind the old length.
    unsafe { into.set_len(into.len() + n as usize) };
    Ok(n as usize)
}

/// Reads a file to its end. More than `max` bytes are an error, "File too large": a part of a file
/// may mean something else than the whole file.
pub fn read_at_most(from: impl io::Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(bytes)
}

/// Waits until a socket can be read (or written). A signal that comes first is an error of the kind
/// `Interrupted`.
pub fn wait_for(fd: RawFd, to_write: bool) -> io::Result<()> {
    let events = if to_write {
        libc::POLLOUT
    } else {
        libc::POLLIN
    };
    poll_one(fd, events, -1).map(|_| ())
}

/// Waits until a socket can be read (or written). Returns false if `timeout` has passed.
pub fn wait_ready(fd: RawFd, to_write: bool, timeout: std::time::Duration) -> io::Result<bool> {
    let ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    let events = if to_write {
        libc::POLLOUT
    } else {
        libc::POLLIN
    };
    poll_one(fd, events, ms)
}

/// Waits until `fd` can be written. Returns false if `timeout` has passed.
pub fn wait_writable(fd: &impl AsFd, timeout: std::time::Duration) -> io::Result<bool> {
    let ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    poll_one(fd.as_fd().as_raw_fd(), libc::POLLOUT, ms)
}

/// Waits for one of `events` on `fd`. Returns false if `timeout_ms` has passed; -1 waits for ever.
fn poll_one(fd: RawFd, events: libc::c_short, timeout_ms: libc::c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: the pointer is to one valid structure, and the count is one.
    match unsafe { libc::poll(&mut poll, 1, timeout_ms) } {
        n @ 0.. => Ok(n > 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes reads and writes that would block fail instead.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Requests this capacity in bytes for a pipe. If the kernel's limit is lower, the pipe stays as it
/// is.
pub fn grow_pipe(pipe: &impl AsFd, bytes: usize) {
    let Ok(bytes) = i32::try_from(bytes) else {
        return;
    };
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{FcntlArg, fcntl};
        if let Err(e) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)) {
            log::debug!("A pipe of {bytes} bytes is refused: {e}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (pipe, bytes);
}

/// Makes the kernel begin to write a part of a file, without waiting for the end of the write.
pub fn start_writeback(file: &impl AsFd, from: u64, len: u64) {
    let (Ok(from), Ok(len)) = (i64::try_from(from), i64::try_from(len)) else {
        return;
    };
    let fd = file.as_fd().as_raw_fd();
    // An error does not matter: this call is a hint, and the later fsync reports errors.
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open as long as the borrow; no memory is involved.
    let _ = unsafe { libc::sync_file_range(fd, from, len, libc::SYNC_FILE_RANGE_WRITE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (fd, from, len);
}

/// The size of a page of memory in bytes.
pub fn page_bytes() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096) as usize
}
