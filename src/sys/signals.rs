//! Signals that request an action: SIGTERM and SIGINT request a stop, SIGALRM requests a stack
//! trace, and SIGHUP a reload.
//!
//! A handler may interrupt any instruction, so it does little: it writes one line to the server's
//! log (a stack buffer and `write`, no allocation, no lock) and stores a number that the cron
//! reads. A second SIGINT ends the process at once.
//!
//! The signals of crashes are handled in `sys::crash`.

use std::ffi::{CString, c_int, c_void};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use crate::sys::tape::{self, Input};

/// The signal that requested a stop; 0 for none.
static ASKED: AtomicI32 = AtomicI32::new(0);
/// Whether SIGHUP was received.
static HANGUP: AtomicBool = AtomicBool::new(false);
/// Whether a data set is being loaded: then there is nothing to save, so a stop needs no
/// preparation.
static LOADING: AtomicBool = AtomicBool::new(false);
/// The temporary file that this process is writing, if any. The string of the file's path is never
/// freed, since a signal handler may be reading it.
static TEMP_FILE: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
/// The files that exist while a server runs (pid file, socket): a stop during loading removes them.
static TRACES: OnceLock<Vec<CString>> = OnceLock::new();
/// The path of the server's log; standard output until it is set.
static LOG_FILE: OnceLock<CString> = OnceLock::new();
/// The function that wakes the event loop.
static WAKE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// The signal that requested a stop, if the stop was neither carried out nor refused yet.
pub fn shutdown_asked() -> Option<i32> {
    let signal = tape::number(Input::Fact, || ASKED.load(Ordering::Relaxed) as u64) as i32;
    Some(signal).filter(|&signal| signal != 0)
}

/// Forgets a stop that was refused: another signal may request a stop again.
pub fn clear_shutdown() {
    ASKED.store(0, Ordering::Relaxed);
}

/// Whether SIGHUP was received since the last call.
pub fn take_hangup() -> bool {
    let take = || HANGUP.load(Ordering::Relaxed) && HANGUP.swap(false, Ordering::Relaxed);
    tape::number(Input::Fact, || take().into()) != 0
}

/// Sets whether a data set is being loaded, for the signal handlers.
pub fn set_loading(loading: bool) {
    LOADING.store(loading, Ordering::Relaxed);
}

/// Sets the file that this process is writing and that is useless until it is complete, or none. A
/// stop removes this file.
pub fn set_temp_file(path: Option<&Path>) {
    use std::os::unix::ffi::OsStrExt;
    let text = path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let new = text.map_or(std::ptr::null_mut(), CString::into_raw);
    // The old string leaks: a few bytes for each save, because a handler can't take a lock.
    TEMP_FILE.store(new, Ordering::Relaxed);
}

/// Sets the absolute paths of the files that exist while the server runs: pid file and unix socket.
/// Only the first call of `set_traces` has an effect.
pub fn set_traces(paths: impl Iterator<Item = PathBuf>) {
    use std::os::unix::ffi::OsStringExt;
    // No file has a name that contains a NUL.
    let paths = paths.filter_map(|path| CString::new(path.into_os_string().into_vec()).ok());
    let _ = TRACES.set(paths.collect());
}

/// Sets the path of the server's log for the handlers; an empty path is standard output.
pub fn set_log_file(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    if let Ok(path) = CString::new(path.as_os_str().as_bytes())
        && !path.is_empty()
    {
        LOG_FILE.get_or_init(|| path);
    }
}

/// Sets the function by which a handler wakes the loop. `wake` must be safe in a signal handler: a
/// write to a pipe or an eventfd is.
pub fn set_wake(wake: impl Fn() + Send + Sync + 'static) {
    let _ = WAKE.set(Box::new(wake));
}

/// Installs handlers for SIGTERM, SIGINT, SIGALRM and SIGHUP. SIGHUP reloads certificates, since a
/// closed terminal is no reason to stop. SIGPIPE is ignored: a write to a closed socket returns an
/// error.
pub fn install() {
    handle(libc::SIGTERM, shutdown_handler as *const () as usize);
    handle(libc::SIGINT, shutdown_handler as *const () as usize);
    handle_with(
        libc::SIGALRM,
        alarm_handler as *const () as usize,
        libc::SA_SIGINFO,
    );
    handle(libc::SIGHUP, hangup_handler as *const () as usize);
    handle(libc::SIGPIPE, libc::SIG_IGN);
}

extern "C" fn hangup_handler(_: c_int) {
    HANGUP.store(true, Ordering::Relaxed);
}

/// Called in a forked child: SIGTERM and SIGINT end the child at once, since it has nothing to shut
/// down.
pub fn restore_defaults() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGALRM] {
        handle(signal, libc::SIG_DFL);
    }
}

fn handle(signal: c_int, action: usize) {
    handle_with(signal, action, 0);
}

fn handle_with(signal: c_int, action: usize, flags: c_int) {
    // SAFETY: a zeroed sigaction is valid; `action` is SIG_IGN, SIG_DFL or a handler that only does
    // what a handler may do.
    unsafe {
        let mut act: libc::sigaction = std::mem::zeroed();
        act.sa_sigaction = action;
        act.sa_flags = flags;
        libc::sigemptyset(&mut act.sa_mask);
        libc::sigaction(signal, &act, std::ptr::null_mut());
    }
}

/// Sends SIGALRM after `ms` milliseconds, unless the alarm is set again before: the timer of the
/// software watchdog. 0 switches the timer off.
pub fn set_alarm(ms: u32) {
    let time = libc::timeval {
        tv_sec: (ms / 1000) as _,
        tv_usec: ((ms % 1000) * 1000) as _,
    };
    let never = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_value: time,
        it_interval: never,
    };
    // SAFETY: the timer lives during the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}

extern "C" fn shutdown_handler(signal: c_int) {
    let errno = errno::save();
    let name = if signal == libc::SIGINT {
        "SIGINT"
    } else {
        "SIGTERM"
    };
    if ASKED.load(Ordering::Relaxed) != 0 && signal == libc::SIGINT {
        handler_line(format_args!("You insist... exiting now."));
        let temp = TEMP_FILE.load(Ordering::Relaxed);
        if !temp.is_null() {
            // SAFETY: set_temp_file left a string that is never freed.
            unsafe { libc::unlink(temp) };
        }
        // SAFETY: `_exit` ends the process without running any other code.
        unsafe { libc::_exit(1) };
    }
    if LOADING.load(Ordering::Relaxed) {
        handler_line(format_args!(
            "Received shutdown signal during loading, exiting now."
        ));
        for path in TRACES.get().into_iter().flatten() {
            // SAFETY: the path is a C string that lives for ever. A file that is gone already is no
            // failure.
            unsafe { libc::unlink(path.as_ptr()) };
        }
        // SAFETY: `_exit` ends the process without running any other code.
        unsafe { libc::_exit(0) };
    }
    handler_line(format_args!("Received {name} scheduling shutdown..."));
    ASKED.store(signal, Ordering::Relaxed);
    if let Some(wake) = WAKE.get() {
        wake();
    }
    errno::restore(errno);
}

/// The handler of SIGALRM, from a user or the watchdog: writes a stack trace to the server's log.
extern "C" fn alarm_handler(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let errno = errno::save();
    // SAFETY: the kernel passes a valid pointer to a handler with SA_SIGINFO.
    let by_timer = unsafe { (*info).si_code } > 0;
    let title = if by_timer {
        "WATCHDOG TIMER EXPIRED"
    } else {
        "Received SIGALRM"
    };
    with_log_fd(|fd| {
        say(
            fd,
            format_args!("\n--- {title} ---\n\n------ STACK TRACE ------\n"),
        );
        super::crash::symbols_to(fd);
        say(fd, format_args!("\n------ STACK TRACE DONE ------\n"));
        say(fd, format_args!("--------\n"));
    });
    errno::restore(errno);
}

/// Writes a log line such as `12345:signal-handler (1795371147) Received SIGINT scheduling
/// shutdown...`
fn handler_line(text: fmt::Arguments) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let pid = std::process::id();
    with_log_fd(|fd| say(fd, format_args!("{pid}:signal-handler ({now}) {text}\n")));
}

/// Calls `f` with a descriptor of the server's log. Does not allocate.
pub(super) fn with_log_fd(f: impl FnOnce(c_int)) {
    let Some(path) = LOG_FILE.get() else {
        return f(libc::STDOUT_FILENO);
    };
    // SAFETY: the path is a C string that lives for ever; the descriptor is closed below and
    // nowhere else.
    unsafe {
        let flags = libc::O_APPEND | libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
        let fd = libc::open(path.as_ptr(), flags, 0o644);
        if fd >= 0 {
            f(fd);
            libc::close(fd);
        }
    }
}

/// Writes a line through a small buffer on the stack; a longer line is cut off.
pub(super) fn say(fd: c_int, text: fmt::Arguments) {
    let mut line = Line {
        bytes: [0; 512],
        len: 0,
    };
    // A line that was cut off is still useful.
    let _ = line.write_fmt(text);
    // SAFETY: the first `len` bytes of the buffer are initialised. A failure to write the log can't
    // be reported.
    unsafe { libc::write(fd, line.bytes.as_ptr().cast(), line.len) };
}

struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let n = text.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        if n == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// Saves and restores `errno` in a signal handler: the interrupted code may be about to read it.
mod errno {
    /// The present `errno`.
    pub fn save() -> i32 {
        nix::errno::Errno::last_raw()
    }

    /// Sets `errno` to a saved value.
    pub fn restore(value: i32) {
        nix::errno::Errno::set_raw(value);
    }
}
