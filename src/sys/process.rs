//! The process itself: its open files, group, processors, and priority when memory runs out.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, fork, setsid};

/// Ends the process with this exit code.
pub fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Stops the process until it gets SIGCONT, for tests.
pub fn stop() {
    log::info!("Process is about to stop.");
    // Raising a signal can only fail if the signal is invalid.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
    log::info!("Process has been continued.");
}

/// Detaches from the terminal: the parent exits, the child starts a session with `/dev/null` for
/// standard input, output and error. Must be called before any thread is started.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: no other thread exists yet, so the child has all that it needs.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => std::process::exit(0),
        ForkResult::Child => {}
    }
    setsid()?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both arguments are numbers of open files; std's handles of the three standard
        // files own no state that this breaks.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Replaces this process by a program; `argv` begins with the program's name. All files are closed,
/// since they were opened with CLOEXEC. Returns only if the program can't be run.
pub fn replace(program: &Path, argv: &[String]) -> io::Error {
    let name = argv.first().map_or("", String::as_str);
    Command::new(program)
        .arg0(name)
        .args(argv.iter().skip(1))
        .exec()
}

/// The result of raising the limit of open files.
pub enum OpenFiles {
    /// At least the wanted number of open files is allowed.
    Enough,
    /// Only `limit` files are allowed; `reason` says why.
    Fewer { limit: u64, reason: io::Error },
    /// The limit of open files can't be read.
    Unknown(io::Error),
}

/// Raises the limit of open files to `wanted`, or as far as the kernel allows.
pub fn raise_open_files(wanted: u64) -> OpenFiles {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(e) => return OpenFiles::Unknown(e.into()),
    };
    if soft >= wanted {
        return OpenFiles::Enough;
    }
    let reason = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)) {
        Ok(()) => return OpenFiles::Enough,
        Err(e) => e.into(),
    };
    // Without the privilege to raise the hard limit, the soft limit can still be raised to the hard
    // one.
    let limit = hard.min(wanted);
    let raised = limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_ok();
    if raised && limit >= wanted {
        return OpenFiles::Enough;
    }
    OpenFiles::Fewer {
        limit: if raised { limit } else { soft },
        reason,
    }
}

/// Lets a crash leave a core file, if the hard limit allows one.
pub fn allow_core_dumps() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        // Without a core file the crash report is still in the server's log.
        let _ = setrlimit(Resource::RLIMIT_CORE, hard, hard);
    }
}

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// How readily the kernel kills this process when memory runs out: -1000 never, 1000 first.
pub fn oom_score_adj() -> io::Result<i32> {
    std::fs::read_to_string(OOM_SCORE_ADJ)?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

/// Sets the value that [`oom_score_adj`] reads.
pub fn set_oom_score_adj(score: i32) -> io::Result<()> {
    std::fs::write(OOM_SCORE_ADJ, score.to_string())
}

/// Disables huge pages for this process: after a fork, a write to one byte would copy 2 MB.
pub fn disable_huge_pages() -> io::Result<()> {
    // SAFETY: `prctl` takes plain numbers here.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks the memory of this process, each page when it is first used. With a finite limit of locked
/// memory every allocation beyond the limit would fail, so an infinite limit is required.
pub fn lock_memory() -> io::Result<()> {
    // A process with the privilege raises the limit; for any other process the present limit
    // counts.
    let _ = setrlimit(
        Resource::RLIMIT_MEMLOCK,
        libc::RLIM_INFINITY,
        libc::RLIM_INFINITY,
    );
    if getrlimit(Resource::RLIMIT_MEMLOCK)?.0 != libc::RLIM_INFINITY {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    // SAFETY: `mlockall` takes a number.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs this thread on the processors of a list like `0-3`, `0-7:2`, `1,3,4-6`. `None` if the text
/// is not a list, or the kernel refuses.
pub fn set_cpu_affinity(list: &str) -> Option<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in parse_cpu_list(list)? {
        // Processors beyond the size of the kernel's set are refused.
        set.set(cpu).ok()?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).ok()
}

static BIO_CPULIST: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// `bio-cpulist`: sets the processors of the background threads. Must be called before the first
/// background thread starts.
pub fn set_background_cpus(list: &str) {
    let _ = BIO_CPULIST.set(list.into());
}

/// Called by a background thread at its start: moves it to the processors of `bio-cpulist`.
pub fn enter_background_cpus() {
    if let Some(list) = BIO_CPULIST.get().filter(|list| !list.is_empty())
        && set_cpu_affinity(list).is_none()
    {
        log::warn!("Can't set the CPU affinity of a background thread to {list}");
    }
}

/// Makes a group, given by name, the owner of a file.
pub fn give_to_group(path: &std::path::Path, name: &str) -> io::Result<()> {
    let group = nix::unistd::Group::from_name(name)?;
    let group = group.ok_or_else(|| io::Error::other("no such group"))?;
    nix::unistd::chown(path, None, Some(group.gid)).map_err(io::Error::from)
}

/// Whether the user of the system that `name` gives, as a name or a number, has the user id `uid`.
pub fn is_user(name: &str, uid: u32) -> bool {
    match name.parse::<u32>() {
        Ok(number) => number == uid,
        Err(_) => {
            let user = nix::unistd::User::from_name(name).ok().flatten();
            user.is_some_and(|user| user.uid.as_raw() == uid)
        }
    }
}

/// Lowers this process's priority by `steps`, unless a filter of system calls is installed. Such a
/// filter can end the process for this call (the `SystemCallFilter=~ @resources` of Debian's
/// redis-server.service does), and a process can't find out whether a filter would.
pub fn give_way(steps: i32) {
    if !is_filtered() {
        // SAFETY: `nice` takes and returns a number. A lower priority is always allowed, and is
        // bounded by the kernel.
        unsafe { libc::nice(steps) };
    }
}

/// This process's priority from -20 to 19. A process with a lower number runs first.
pub fn priority() -> i32 {
    // SAFETY: `getpriority` takes and returns numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// The time for which the first thread of a process was ready to run but waited for a processor.
/// `None` if the kernel has no `schedstat`.
pub fn waited(pid: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    // The file `schedstat` has the nanoseconds of running, the nanoseconds of waiting, and the
    // number of time slices.
    let waited = text.split_ascii_whitespace().nth(1)?;
    waited.parse().ok().map(Duration::from_nanos)
}

/// Whether system calls of this process are filtered. Returns true if the kernel does not show
/// whether they are filtered.
pub fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_none_or(|mode| mode.trim() != "0")
}

/// Parses a list of processors; `None` if the text is not a list.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once(':') {
            Some((range, step)) => (range, step.parse().ok().filter(|&step| step > 0)?),
            None => (part, 1),
        };
        let (from, to): (usize, usize) = match range.split_once('-') {
            Some((from, to)) => (from.trim().parse().ok()?, to.trim().parse().ok()?),
            None => (range.trim().parse().ok()?, range.trim().parse().ok()?),
        };
        if to < from || to >= nix::sched::CpuSet::count() {
            return None;
        }
        cpus.extend((from..=to).step_by(step));
    }
    Some(cpus)
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// `supervised upstart`: stops this process until the supervisor continues it, which signals that
/// the server is ready.
pub fn stop_for_supervisor() -> io::Result<()> {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3"), Some(vec![0, 1, 2, 3]));
        assert_eq!(parse_cpu_list("0-7:2"), Some(vec![0, 2, 4, 6]));
        assert_eq!(parse_cpu_list("1,3,5-6"), Some(vec![1, 3, 5, 6]));
        for bad in ["x", "3-1", "0-7:0", "0-99999999999", "1-"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad}");
        }
    }
}
