//! The crash report: information for finding a bug, in Redis's format.
//!
//! The report is written after a signal, which `sys::crash` catches, or a panic, for instance a
//! failed assertion. The first parts of the report need no allocation, since the allocator may be
//! broken; then follow the names of the functions on the stack, then the server's data.
//!
//! `hide-user-data-from-log` keeps keys and values out of the report.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::Client;
use crate::clients::describe::describe;
use crate::commands::server::info;
use crate::config::{Config, DEBUG, TABLE};
use crate::observe::logging::{WarningHead, raw};
use crate::server::trace;
use crate::state::Server;
use crate::sys::crash::{self, Crash, log_line};
use crate::util::quote::repr;
use crate::{REDIS_VERSION, VERSION};

/// The maximum number of the running command's arguments in a report, and of bytes of an argument.
const ARGC_MAX: usize = 32;
const ARG_MAX: usize = 1024;

/// `use-exit-on-panic`: a panic ends the process with exit code 1 instead of SIGABRT.
static EXIT_ON_PANIC: AtomicBool = AtomicBool::new(false);

/// Whether the process is a program. A test is not a program in this sense: it needs the panic hook
/// of its harness.
static IN_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Applies the settings: whether signals and panics write a report.
pub fn configure(config: &Config) {
    if !IN_PROGRAM.load(Ordering::Relaxed) {
        return;
    }
    EXIT_ON_PANIC.store(config.use_exit_on_panic, Ordering::Relaxed);
    if config.crash_log_enabled {
        crash::install(report_crash);
        std::panic::set_hook(Box::new(report_panic));
    } else {
        crash::uninstall();
        abort_on_panic();
    }
}

/// From this call on, a panic of any thread prints its message and ends the process with SIGABRT.
/// Each program calls this function first.
///
/// After a panic the release build aborts by itself. The development build unwinds, as the tests
/// need it: so one build of all libraries serves the programs and the tests.
pub fn abort_on_panic() {
    IN_PROGRAM.store(true, Ordering::Relaxed);
    drop(std::panic::take_hook());
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}

fn begin() {
    log_line(format_args!(
        "\n\n=== REDIS BUG REPORT START: Cut & paste starting from here ===\n"
    ));
}

/// Writes a line with the head of a log line (process id, time), without allocation.
macro_rules! line {
    ($($text:tt)*) => { log_line(format_args!("{WarningHead}{}\n", format_args!($($text)*))) };
}

fn report_crash(c: &Crash) {
    begin();
    line!(
        "Redis {REDIS_VERSION} (aeris {VERSION}) crashed by signal: {}, si_code: {}",
        c.signal,
        c.code
    );
    if let Some((pid, uid)) = c.sender {
        line!("Killed by PID: {pid}, UID: {uid}");
    } else if matches!(c.signal, libc::SIGSEGV | libc::SIGBUS) {
        line!("Accessing address: {:#x}", c.address);
    }
    line!("Crashed running the instruction at: {:#x}", c.instruction);
    stack_trace();
    log_line(format_args!("\n------ REGISTERS ------\n"));
    for pair in c.registers.chunks(2) {
        let [(name1, value1), (name2, value2)] = [pair[0], pair[1]];
        log_line(format_args!(
            "{name1}:{value1:016x} {name2}:{value2:016x}\n"
        ));
    }
    end();
}

/// Writes the stack trace: first the functions' addresses, because they need no memory. The
/// functions' names need the allocator, and more stack than a background thread has for signals.
fn stack_trace() {
    log_line(format_args!("\n------ STACK TRACE ------\n"));
    crash::log_symbols();
    if crash::on_main_thread() {
        log_line(format_args!("\nBacktrace:\n"));
        raw(&format!("{}", Backtrace::force_capture()));
    }
    log_line(format_args!("\n------ STACK TRACE DONE ------\n"));
}

fn report_panic(info: &PanicHookInfo) {
    if !crash::claim_report() {
        std::process::abort();
    }
    begin();
    line!("=== ASSERTION FAILED ===");
    match info.location() {
        Some(place) => line!("==> {}:{} '{}'", place.file(), place.line(), message(info)),
        None => line!("==> '{}'", message(info)),
    }
    stack_trace();
    end();
    if EXIT_ON_PANIC.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
    // The process ends with SIGABRT, which must not write a second report.
    crash::uninstall();
    std::process::abort();
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let fixed = payload.downcast_ref::<&str>().copied();
    fixed
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn end() {
    crash::report_subject();
    raw(
        "\n=== REDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
         \x20      Please report the crash by opening an issue.\n\n\
         \x20 Suspect RAM error? Use redis-server --test-memory to verify it.\n\n\
         \x20 Some other issues could be detected by redis-server --check-system\n",
    );
}

/// Writes the part of the report about the server's data, in their state at the crash.
///
/// The running command comes first: it is the likeliest cause, and the later parts read more of a
/// server that may be broken.
pub fn describe_server(server: &Server) {
    let running = server.in_flight.get();
    if let Some((argv, c)) = running {
        raw("\n------ CURRENT CLIENT INFO ------\n");
        raw(&describe_current(server, argv, c));
    }
    raw("\n------ INFO OUTPUT ------\n");
    let no_client = Client::detached(0, server.clock.now_ms);
    let client = running.map_or(&no_client, |(_, c)| c);
    raw(&info::describe(server, client, &[b"all"]).replace("\r\n", "\n"));
    raw("\n------ CLIENT LIST OUTPUT ------\n");
    for c in server.net.clients.iter() {
        raw(&format!("{}\n", describe(server, c)));
    }
    raw("\n------ CONFIG DEBUG OUTPUT ------\n");
    for row in TABLE.iter().filter(|row| row.is(DEBUG)) {
        raw(&format!(
            "{} {}\n",
            row.name,
            String::from_utf8_lossy(&row.get(&server.config))
        ));
    }
    trace::write_at_crash(server);
}

fn describe_current(server: &Server, argv: &[&[u8]], c: &Client) -> String {
    let mut text = format!("{}\n", describe(server, c));
    for (i, arg) in argv.iter().take(ARGC_MAX).enumerate() {
        // The command's name may be logged; its arguments are user data.
        if server.config.hide_user_data_from_log && i > 0 {
            text += &format!("argv[{i}]: {} bytes\n", arg.len());
        } else {
            text += &format!("argv[{i}]: '{}'\n", repr(&arg[..arg.len().min(ARG_MAX)]));
        }
    }
    text
}
