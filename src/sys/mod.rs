//! The few operating-system calls that std has no face for, behind safe functions. `unsafe` lives here and
//! in `ds`.
#![allow(unsafe_code)]

pub mod crash;
pub mod lazyfree;
pub mod local_time;
pub mod memory;
pub mod process;
pub mod signals;
pub mod syslog;
pub mod ticks;
pub mod title;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the C library says of an error: `Connection reset by peer`, without the number that std adds.
pub fn error_text(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_string(),
        None => e.to_string(),
    }
}

/// Stop this thread, and with it the server, for a while: DEBUG SLEEP.
pub fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Read at most `max` bytes from `fd`, appended to `into`; its spare capacity is grown as needed and is not
/// cleared first.
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
