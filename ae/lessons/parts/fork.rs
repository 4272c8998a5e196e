//! `fork`, the one system call of the lessons that is unsafe.
#![allow(unsafe_code)]

use std::io;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `child` in a child process, which then exits with status 0 if `child` succeeded.
pub fn in_child(child: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: the child of a process with threads may call only functions that are safe in a signal
    // handler. The only other thread of the lessons holds no lock that `child` needs: that thread
    // computes, and allocates when it sends a result. So `child` must not allocate.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = i32::from(child().is_err());
            // SAFETY: `_exit` runs no destructor and no handler of `exit`: destructors and handlers
            // are the parent's.
            unsafe { nix::libc::_exit(status) }
        }
    }
}

/// `None` while the child runs; then whether it exited with status 0.
pub fn has_ended(child: Pid) -> Option<bool> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(WaitStatus::Exited(_, 0)) => Some(true),
        _ => Some(false),
    }
}

/// The number of page faults of this process: how often the kernel had to map or copy a page for
/// it.
pub fn page_faults() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults())
}
