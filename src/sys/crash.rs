//! The signals that mean a bug (SIGSEGV and others) and the crash report that they trigger.
//!
//! ```text
//!   SIGSEGV .. -> handler, on a stack of its own (the old one may be the problem)
//!              -> a few lines without allocation: they get out whatever is broken
//!              -> hook: the rest of the report; may allocate, may crash or hang itself
//!              -> the default action: core file, exit status of the signal
//! ```
//!
//! The report reads the server through a pointer stored here by [`watch`], since a signal handler
//! gets its arguments from the kernel. If the report crashes, the second signal ends the process,
//! because the handler has run before; if the report hangs, an alarm ends the process.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::signals::{say, with_log_fd};

/// The size in bytes of the alternate stack for signals, on which symbol names are looked up.
const STACK_BYTES: usize = 512 * 1024;
/// The time limit of a crash report in seconds: a report that takes longer probably hangs in the
/// allocator's lock.
const REPORT_SECONDS: u32 = 10;
const FRAMES_MAX: usize = 100;

/// What the kernel reports about a crash.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub signal: i32,
    pub code: i32,
    /// The address that could not be read, written or executed, for signals that have one.
    pub address: usize,
    /// The pid and uid of the process that sent the signal.
    pub sender: Option<(i32, u32)>,
    /// The address of the instruction that caused the signal.
    pub instruction: usize,
    pub registers: Registers,
}

/// The registers' names and contents, in the order in which they are printed.
pub type Registers = [(&'static str, u64); 18];

type Hook = fn(&Crash);

/// The signals that are treated as a crash.
const SIGNALS: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

static HOOK: OnceLock<Hook> = OnceLock::new();
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Installs the signal handlers: a crash calls `hook` once, then the process ends as if the signal
/// had no handler.
pub fn install(hook: Hook) {
    HOOK.get_or_init(|| hook);
    use_own_stack();
    for signal in SIGNALS {
        // SAFETY: a zeroed sigaction is valid; the handler has the type that SA_SIGINFO asks for.
        unsafe {
            let mut act: libc::sigaction = std::mem::zeroed();
            act.sa_sigaction = handler as *const () as usize;
            act.sa_flags =
                libc::SA_NODEFER | libc::SA_RESETHAND | libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut act.sa_mask);
            libc::sigaction(signal, &act, std::ptr::null_mut());
        }
    }
    // The first call of `backtrace` loads a library, which a handler must not do.
    let mut frames = [std::ptr::null_mut(); 1];
    // SAFETY: there is room for the one stack frame that is requested.
    unsafe { libc::backtrace(frames.as_mut_ptr(), 1) };
}

/// `crash-log-enabled no`: removes the signal handlers.
pub fn uninstall() {
    for signal in SIGNALS {
        reset(signal);
    }
}

fn reset(signal: c_int) {
    // SAFETY: the default action of a signal is always a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Claims the crash report for code that prints it without a signal, as after a panic. Returns true
/// for the first caller only.
pub fn claim_report() -> bool {
    !REPORTED.swap(true, Ordering::Relaxed)
}

/// Gives this thread a stack of its own for signals, so that a stack overflow can be reported.
fn use_own_stack() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let memory = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: STACK_BYTES,
    };
    // SAFETY: the memory is leaked, so it is there for as long as the kernel may use it.
    unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if !claim_report() {
        die(signal);
    }
    // SAFETY: alarm takes a number; SIGALRM's default action ends the process.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(REPORT_SECONDS);
    }
    // SAFETY: the kernel passes valid pointers to a handler with SA_SIGINFO.
    let crash = unsafe { describe(signal, &*info, context) };
    if let Some(hook) = HOOK.get() {
        hook(&crash);
    }
    die(signal);
}

/// Ends the process as the signal would have without a handler.
fn die(signal: c_int) -> ! {
    reset(signal);
    // SAFETY: both calls take numbers, and at most end the process.
    unsafe {
        libc::raise(signal);
        libc::_exit(1)
    }
}

/// # Safety
/// `context` must be what the kernel passed to a signal handler.
unsafe fn describe(signal: c_int, info: &libc::siginfo_t, context: *mut c_void) -> Crash {
    // SAFETY: the caller promises that `context` is what the kernel passed to a handler.
    let registers = unsafe { registers(context) };
    // SAFETY: both fields lie within the union; the code below decides by `si_code` and the signal
    // which of them is meaningful.
    let (address, sender) = unsafe { (info.si_addr() as usize, (info.si_pid(), info.si_uid())) };
    let by_process = info.si_code <= 0;
    Crash {
        signal,
        code: info.si_code,
        address: if by_process { 0 } else { address },
        sender: by_process.then_some(sender),
        instruction: registers[16].1 as usize,
        registers,
    }
}

/// # Safety
/// `context` must be what the kernel passed to a signal handler.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn registers(context: *mut c_void) -> Registers {
    use libc::*;
    // SAFETY: on Linux the context is a ucontext_t.
    let saved = unsafe { &(*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let of = |index: c_int| saved[index as usize] as u64;
    [
        ("RAX", of(REG_RAX)),
        ("RBX", of(REG_RBX)),
        ("RCX", of(REG_RCX)),
        ("RDX", of(REG_RDX)),
        ("RDI", of(REG_RDI)),
        ("RSI", of(REG_RSI)),
        ("RBP", of(REG_RBP)),
        ("RSP", of(REG_RSP)),
        ("R8 ", of(REG_R8)),
        ("R9 ", of(REG_R9)),
        ("R10", of(REG_R10)),
        ("R11", of(REG_R11)),
        ("R12", of(REG_R12)),
        ("R13", of(REG_R13)),
        ("R14", of(REG_R14)),
        ("R15", of(REG_R15)),
        ("RIP", of(REG_RIP)),
        ("EFL", of(REG_EFL)),
    ]
}

/// # Safety
/// `context` must be what the kernel passed to a signal handler.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
unsafe fn registers(context: *mut c_void) -> Registers {
    const NAMES: [&str; 16] = [
        "X0 ", "X1 ", "X2 ", "X3 ", "X4 ", "X5 ", "X6 ", "X7 ", "X8 ", "X16", "X17", "X18", "X19",
        "X20", "X29", "X30",
    ];
    const AT: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20, 29, 30];
    // SAFETY: on Linux the context is a ucontext_t.
    let saved = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let mut all = [("", 0); 18];
    for (slot, (name, at)) in all.iter_mut().zip(NAMES.into_iter().zip(AT)) {
        *slot = (name, saved.regs[at]);
    }
    (all[16], all[17]) = (("PC ", saved.pc), ("SP ", saved.sp));
    all
}

/// # Safety
/// Any pointer is allowed, as the context is not read on other systems.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
unsafe fn registers(_: *mut c_void) -> Registers {
    [("", 0); 18]
}

/// Writes the stack frames of this thread as `module(+offset)[address]` lines, without allocation.
pub fn symbols_to(fd: c_int) {
    let mut frames = [std::ptr::null_mut(); FRAMES_MAX];
    // SAFETY: there is room for as many stack frames as are requested; only the frames found are
    // printed.
    unsafe {
        let found = libc::backtrace(frames.as_mut_ptr(), FRAMES_MAX as c_int);
        libc::backtrace_symbols_fd(frames.as_ptr(), found, fd);
    }
}

/// Writes the stack frames of this thread to the server's log.
pub fn log_symbols() {
    with_log_fd(symbols_to);
}

/// Writes a line to the server's log without allocation; at most 512 bytes.
pub fn log_line(text: std::fmt::Arguments) {
    with_log_fd(|fd| say(fd, text));
}

/// Whether this is the main thread, the only thread with a large signal stack.
pub fn on_main_thread() -> bool {
    nix::unistd::gettid() == nix::unistd::getpid()
}

static SUBJECT: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static SUBJECT_FN: AtomicUsize = AtomicUsize::new(0);
static SUBJECT_CALL: AtomicUsize = AtomicUsize::new(0);

type Describe<T> = fn(&T);

/// Lets a crash report read `subject`, which must not move until [`forget`].
pub fn watch<T>(subject: &T, report: Describe<T>) {
    fn call<T>(subject: *const (), report: usize) {
        // SAFETY: both arguments were stored by `watch` with this very `T`. The owner's `&mut` is
        // alive elsewhere, but the process is ending in this handler: the owner will not run again.
        unsafe {
            let report = std::mem::transmute::<usize, Describe<T>>(report);
            report(&*subject.cast::<T>());
        }
    }
    SUBJECT_FN.store(report as usize, Ordering::Relaxed);
    SUBJECT_CALL.store(
        call::<T> as fn(*const (), usize) as usize,
        Ordering::Relaxed,
    );
    SUBJECT.store(
        std::ptr::from_ref(subject).cast_mut().cast(),
        Ordering::Release,
    );
}

/// Forgets the value that [`watch`] stored for crash reports. Must be called before the value is
/// dropped or moved.
pub fn forget() {
    SUBJECT.store(std::ptr::null_mut(), Ordering::Release);
}

/// Calls the function that was given to [`watch`], which reports on the watched value.
pub fn report_subject() {
    let subject = SUBJECT.load(Ordering::Acquire);
    if subject.is_null() {
        return;
    }
    // SAFETY: `watch` stored a function of this type before it stored the subject.
    let call = unsafe {
        std::mem::transmute::<usize, fn(*const (), usize)>(SUBJECT_CALL.load(Ordering::Relaxed))
    };
    call(subject, SUBJECT_FN.load(Ordering::Relaxed));
}

/// The running command and its client, for a crash report. Only the crash report follows these
/// addresses.
///
/// **Invariant:** the command's arguments and the client live until `end`, or until the process
/// ends.
pub struct InFlight<C> {
    argv: Option<*const [&'static [u8]]>,
    client: *const C,
}

impl<C> Default for InFlight<C> {
    fn default() -> InFlight<C> {
        InFlight {
            argv: None,
            client: std::ptr::null(),
        }
    }
}

impl<C> InFlight<C> {
    /// Stores the addresses of a command's arguments and client when the command begins.
    #[inline]
    pub fn begin(&mut self, argv: &[&[u8]], client: &C) {
        // The raw pointer drops the lifetime of the slices; the invariant of `InFlight` takes its
        // place.
        #[allow(clippy::unnecessary_cast)]
        let argv = std::ptr::from_ref(argv) as *const [&'static [u8]];
        self.argv = Some(argv);
        self.client = client;
    }

    /// Forgets the command when it has ended.
    #[inline]
    pub fn end(&mut self) {
        self.argv = None;
    }

    /// The running command's arguments and client. Only for a crash report, after which the process
    /// ends.
    pub fn get(&self) -> Option<(&[&[u8]], &C)> {
        // SAFETY: the pointers were set by `begin`, whose caller keeps both values until `end`.
        self.argv
            .map(|argv| unsafe { (&*argv as &[&[u8]], &*self.client) })
    }
}
