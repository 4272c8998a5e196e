//! The system's log: syslog.

use std::ffi::{CString, c_int};
use std::sync::OnceLock;

/// The name of the program in the system's log. syslog keeps the pointer, so the name lives as long
/// as the process.
static IDENT: OnceLock<CString> = OnceLock::new();

/// Opens the system's log for messages of this process, under the name `ident`.
pub fn open(ident: &[u8], facility: c_int) {
    let ident = IDENT.get_or_init(|| CString::new(ident).unwrap_or_default());
    // SAFETY: `ident` is a C string that lives for ever.
    unsafe {
        libc::openlog(
            ident.as_ptr(),
            libc::LOG_PID | libc::LOG_NDELAY | libc::LOG_NOWAIT,
            facility,
        )
    };
}

/// Closes the connection to the system's log; the next message opens a new one.
pub fn close() {
    // SAFETY: the call takes no arguments; `write` opens the connection again.
    unsafe { libc::closelog() };
}

/// Writes one message; `priority` is one of `libc::LOG_*`. A zero byte ends the message.
pub fn write(priority: c_int, message: &str) {
    let until_zero = message.split('\0').next().unwrap_or_default();
    let Ok(message) = CString::new(until_zero) else {
        return;
    };
    // SAFETY: the format takes one C string, which lives during the call.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), message.as_ptr()) };
}
