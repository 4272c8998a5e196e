//! fork(), ending a child, waiting for it, and measuring the cost of the copied memory.
//!
//! The parent has other threads (they close, sync and free); in the child only the thread that
//! forked continues. A lock that another thread held at the fork is never released, so the child
//! takes no lock that a background thread may take. jemalloc releases its own locks across a fork,
//! and only the main thread writes the server's log.

use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::sys::tape::{self, Input};

/// The side of the fork on which the caller continues.
pub enum Forked {
    /// The parent, with the child's pid.
    Parent(i32),
    Child,
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// The exit code of a child that was asked to end: no error, and no result.
pub const ASKED_TO_END: i32 = 255;

/// Starts a second process with a copy of all memory; a page is copied when one of the two
/// processes writes to it.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the child runs in the one thread that is left. The child uses the allocator, whose
    // locks are released on both sides of a fork, and no lock that another thread takes (see the
    // head of this file).
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw())),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// The pid of the parent of this process.
pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Called in a child: SIGUSR1 ends the child without an error, since it has nothing else to shut
/// down.
pub fn set_up_child_signals() {
    super::signals::restore_defaults();
    let action = SigAction::new(SigHandler::Handler(go), SaFlags::empty(), SigSet::empty());
    // SAFETY: the signal handler only ends the process.
    let _ = unsafe { sigaction(Signal::SIGUSR1, &action) };
}

extern "C" fn go(_: libc::c_int) {
    exit_now(ASKED_TO_END)
}

/// Ends this process at once: no destructors run and no buffers are flushed twice.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Called in a child: closes every socket except those in `keep` (listeners, clients, and the
/// connection whose command forks). The owners of the closed sockets are never dropped in a child,
/// which ends by [`exit_now`].
pub fn close_sockets(keep: &[RawFd]) {
    super::syslog::close();
    let Ok(entries) = std::fs::read_dir("/dev/fd") else {
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for fd in numbers
        .filter(|fd| !keep.contains(fd))
        .collect::<Vec<RawFd>>()
    {
        // SAFETY: a zeroed `stat` is valid, and filled by the call; only a forked child closes what
        // others own.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(fd, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK {
                libc::close(fd);
            }
        }
    }
}

/// Asks a child to end, by SIGUSR1.
pub fn end(pid: i32) {
    if tape::replays() {
        return;
    }
    // An error means that the child has ended already.
    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGUSR1);
}

/// Kills a child that may not be able to answer a signal.
pub fn kill(pid: i32) {
    if tape::replays() {
        return;
    }
    // An error means that the child has ended already.
    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// How the child ended; `None` while the child runs. A process that is not a child of this process
/// any more counts as killed.
pub fn try_wait(pid: i32) -> Option<Exit> {
    wait_with(pid, WaitPidFlag::WNOHANG)
}

/// Waits until the child has ended.
pub fn wait(pid: i32) -> Exit {
    loop {
        if let Some(exit) = wait_with(pid, WaitPidFlag::empty()) {
            return exit;
        }
    }
}

fn wait_with(pid: i32, flags: WaitPidFlag) -> Option<Exit> {
    // A recording (`sys::tape`) has one number for each of the states running, exited (with its
    // code) and killed (by a signal).
    let number = tape::number(Input::Fact, || match wait_now(pid, flags) {
        None => 0,
        Some(Exit::Code(code)) => u64::from(code as u32) << 2 | 1,
        Some(Exit::Signal(signal)) => u64::from(signal as u32) << 2 | 2,
    });
    let value = (number >> 2) as i32;
    match number & 3 {
        1 => Some(Exit::Code(value)),
        2 => Some(Exit::Signal(value)),
        _ => None,
    }
}

fn wait_now(pid: i32, flags: WaitPidFlag) -> Option<Exit> {
    match waitpid(Pid::from_raw(pid), Some(flags)) {
        Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
        Ok(_) | Err(Errno::EINTR) => None,
        Err(_) => Some(Exit::Signal(libc::SIGKILL)),
    }
}

/// Bytes of memory that this process does not share with its parent: what copy-on-write has cost
/// until now.
pub fn private_dirty_bytes() -> u64 {
    let file = ["/proc/self/smaps_rollup", "/proc/self/smaps"];
    let text = file
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    text.map_or(0, |text| sum_kilobytes(&text, "Private_Dirty:"))
}

/// Bytes of the page tables, which a fork copies before it returns.
pub fn page_table_bytes() -> u64 {
    field_of("/proc/self/status", "VmPTE:")
}

/// Bytes that the system could give to processes without swapping; `None` if the kernel does not
/// report it.
pub fn available_bytes() -> Option<u64> {
    Some(field_of("/proc/meminfo", "MemAvailable:")).filter(|&bytes| bytes > 0)
}

fn field_of(path: &str, name: &str) -> u64 {
    tape::number(Input::Fact, || {
        std::fs::read_to_string(path).map_or(0, |text| sum_kilobytes(&text, name))
    })
}

/// The sum of all lines `Name:   123 kB` with this name, in bytes.
fn sum_kilobytes(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter_map(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .sum::<u64>()
        .saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_of_all_lines_of_a_name() {
        let text = "Rss:  9 kB\nPrivate_Dirty:    4 kB\nPrivate_Dirty:  12 kB\nPrivate_Dirty: x\n";
        assert_eq!(sum_kilobytes(text, "Private_Dirty:"), 16 * 1024);
    }

    #[test]
    fn a_child_ends_as_it_says() {
        for (code, wanted) in [(0, Exit::Code(0)), (7, Exit::Code(7))] {
            match fork().expect("fork") {
                Forked::Child => exit_now(code),
                Forked::Parent(pid) => assert_eq!(wait(pid), wanted),
            }
        }
    }

    #[test]
    fn a_child_closes_the_sockets_that_it_got() {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (mut ready, signal) = io::pipe().expect("a pipe");
        match fork().expect("fork") {
            Forked::Child => {
                close_sockets(&[]);
                let _ = std::io::Write::write_all(&mut &signal, b"r");
                loop {
                    std::thread::park();
                }
            }
            Forked::Parent(pid) => {
                std::io::Read::read_exact(&mut ready, &mut [0]).expect("the child is ready");
                drop(theirs);
                let end = std::io::Read::read(&mut ours, &mut [0]).expect("the end");
                assert_eq!(end, 0, "the other end is closed though the child lives");
                end_and_wait(pid);
            }
        }
    }

    fn end_and_wait(pid: i32) {
        kill(pid);
        wait(pid);
    }

    #[test]
    fn a_child_that_is_asked_to_end_ends() {
        let (mut ready, signal) = io::pipe().expect("a pipe");
        match fork().expect("fork") {
            Forked::Child => {
                set_up_child_signals();
                use std::io::Write;
                let _ = (&signal).write_all(b"r");
                loop {
                    std::thread::park();
                }
            }
            Forked::Parent(pid) => {
                use std::io::Read;
                ready.read_exact(&mut [0]).expect("the child is ready");
                assert_eq!(try_wait(pid), None);
                end(pid);
                assert_eq!(wait(pid), Exit::Code(ASKED_TO_END));
            }
        }
    }
}
