//! Under systemd: the system calls that the unit of the package allows are enough for the server,
//! from start to stop, and so are those that Debian's `redis-server.service` allows.
//!
//! Both units have `SystemCallFilter=@system-service` and
//! `SystemCallFilter=~ @privileged @resources`, the package's also `SystemCallFilter=@chown`; any
//! other system call ends the process with SIGSYS. The test installs the same filter before it
//! starts the server, without systemd.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code)] // a seccomp filter is installed between fork and exec

mod common;

use std::io;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use common::{Conn, Peer};

macro_rules! numbers {
    ($($name:ident)*) => { [$(libc::$name as u32),*] };
}

/// The system calls of x86-64 in `systemd-analyze syscall-filter` of systemd 252: @system-service
/// without @privileged and @resources.
const ALLOWED: &[u32] = &numbers![
    SYS_accept SYS_accept4 SYS_access SYS_add_key SYS_alarm SYS_arch_prctl SYS_bind SYS_brk SYS_capget SYS_chdir
    SYS_chmod SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close
    SYS_close_range SYS_connect SYS_copy_file_range SYS_creat SYS_dup SYS_dup2 SYS_dup3 SYS_epoll_create
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_ctl_old SYS_epoll_pwait SYS_epoll_pwait2 SYS_epoll_wait
    SYS_epoll_wait_old SYS_eventfd SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat
    SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fcntl
    SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fork SYS_fremovexattr SYS_fsetxattr SYS_fstat
    SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_futimesat SYS_get_mempolicy
    SYS_get_robust_list SYS_get_thread_area SYS_getcpu SYS_getcwd SYS_getdents SYS_getdents64 SYS_getegid
    SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpgrp SYS_getpid
    SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid
    SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch
    SYS_inotify_init SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy SYS_io_getevents
    SYS_io_setup SYS_io_submit SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_ioctl
    SYS_ioprio_get SYS_kcmp SYS_keyctl SYS_kill SYS_lgetxattr SYS_link SYS_linkat SYS_listen SYS_listxattr
    SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_lstat SYS_madvise SYS_membarrier SYS_memfd_create
    SYS_mkdir SYS_mkdirat SYS_mknod SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect
    SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap
    SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap
    SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_open SYS_openat SYS_openat2 SYS_pause SYS_personality
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe SYS_pipe2 SYS_poll SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv
    SYS_preadv2 SYS_prlimit64 SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6
    SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlink SYS_readlinkat SYS_readv
    SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_rename SYS_renameat
    SYS_renameat2 SYS_request_key SYS_restart_syscall SYS_rmdir SYS_rseq SYS_rt_sigaction SYS_rt_sigpending
    SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_yield
    SYS_select SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto
    SYS_set_robust_list SYS_set_thread_area SYS_set_tid_address SYS_setfsgid SYS_setgid SYS_setitimer SYS_setns
    SYS_setpgid SYS_setregid SYS_setresgid SYS_setsid SYS_setsockopt SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt
    SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd SYS_signalfd4 SYS_socket SYS_socketpair SYS_splice
    SYS_stat SYS_statfs SYS_statx SYS_symlink SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_sysinfo
    SYS_tee SYS_tgkill SYS_time SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
    SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate
    SYS_umask SYS_uname SYS_unlink SYS_unlinkat SYS_unshare SYS_userfaultfd SYS_utime SYS_utimensat SYS_utimes
    SYS_vfork SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev];

/// @chown.
const CHOWN: &[u32] = &numbers![SYS_chown SYS_fchown SYS_fchownat SYS_lchown];

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// The offset in `seccomp_data` of the arguments of a system call, which have 8 bytes each.
const ARGUMENTS: u32 = 16;

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// The seccomp filter as a BPF program: compares the number of the system call with each number in
/// `ALLOWED` and `more`.
fn program(more: &[u32]) -> Vec<libc::sock_filter> {
    // `seccomp_data` begins with the number of the system call.
    let mut program = vec![statement(LOAD, 0, 0, 0)];
    for &number in ALLOWED.iter().chain(more) {
        program.push(statement(EQUAL, 0, 1, number));
        program.push(statement(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(statement(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which is alive and `len` long.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) != 0
    };
    match refused {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// BPF statements, to be put before `program`, that refuse system calls of this number if the
/// argument, under a mask, has this value.
fn refuse_argument(number: i64, argument: u32, mask: u32, value: u32) -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, 0, 0, 0),
        statement(EQUAL, 0, 4, number as u32),
        statement(LOAD, 0, 0, ARGUMENTS + 8 * argument),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
        statement(EQUAL, 0, 1, value),
        statement(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

/// `RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX`: sockets of other families get an error.
fn refuse_other_families() -> Vec<libc::sock_filter> {
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
    vec![
        statement(LOAD, 0, 0, 0),
        statement(EQUAL, 0, 5, libc::SYS_socket as u32),
        statement(LOAD, 0, 0, ARGUMENTS),
        statement(EQUAL, 3, 0, libc::AF_UNIX as u32),
        statement(EQUAL, 2, 0, libc::AF_INET as u32),
        statement(EQUAL, 1, 0, libc::AF_INET6 as u32),
        statement(RETURN, 0, 0, refusal),
    ]
}

/// The filter of the package's unit: that of Debian's unit with @chown, `MemoryDenyWriteExecute`
/// and `RestrictAddressFamilies`. In this test a forbidden system call ends the process; under the
/// unit it returns an error.
fn program_of_package() -> Vec<libc::sock_filter> {
    let (write_and_execute, execute) = (
        (libc::PROT_WRITE | libc::PROT_EXEC) as u32,
        libc::PROT_EXEC as u32,
    );
    let mut all = refuse_argument(libc::SYS_mmap, 2, write_and_execute, write_and_execute);
    all.extend(refuse_argument(libc::SYS_mprotect, 2, execute, execute));
    all.extend(refuse_other_families());
    all.extend(program(CHOWN));
    all
}

/// Starts the server under the filter of the package's unit.
fn filtered_as_package(args: &[&str]) -> Peer {
    let mut program = program_of_package();
    Peer::aeris_with(args, |command| {
        // SAFETY: `install` makes two system calls; nothing is allocated and no lock is taken
        // before exec.
        unsafe { command.pre_exec(move || install(&mut program)) };
    })
}

/// Starts the server under the filter of Debian's unit.
fn filtered(args: &[&str]) -> Peer {
    let mut program = program(&[]);
    Peer::aeris_with(args, |command| {
        // SAFETY: two system calls; nothing is allocated and no lock is taken between fork and
        // exec.
        unsafe { command.pre_exec(move || install(&mut program)) };
    })
}

fn wait_for(c: &mut Conn, section: &str, wanted: &[&str]) {
    let began = Instant::now();
    loop {
        let info = c.line(&format!("INFO {section}"));
        if wanted.iter().all(|line| info.contains(line)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{info}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_whole_life_passes_the_filter_of_debians_service() {
    whole_life(filtered(&["--appendonly", "yes"]));
}

#[test]
fn a_whole_life_passes_the_filter_of_the_packages_service() {
    whole_life(filtered_as_package(&["--appendonly", "yes"]));
}

/// The snapshot comes from a file of the primary or through its pipe, and goes to a file of the
/// replica or straight into memory; the replica must resolve the primary's name.
#[test]
fn a_full_sync_passes_the_filter_of_the_packages_service() {
    for diskless in ["no", "yes"] {
        let primary = filtered_as_package(&[
            "--repl-diskless-sync",
            diskless,
            "--repl-diskless-sync-delay",
            "0",
        ]);
        let mut c = primary.connect();
        assert_eq!(c.line("SET k v"), "+OK\r\n");
        let load = match diskless {
            "yes" => "swapdb",
            _ => "disabled",
        };
        let replica = filtered_as_package(&["--repl-diskless-load", load]);
        let mut r = replica.connect();
        let follow = format!("REPLICAOF localhost {}", primary.port);
        assert_eq!(r.line(&follow), "+OK\r\n");
        wait_for(&mut r, "replication", &["master_link_status:up"]);
        assert_eq!(r.line("EXISTS k"), ":1\r\n");
    }
}

/// The kernel lets a process give its files to the groups that the process belongs to.
#[test]
fn a_unix_socket_of_a_group_passes_the_filter_of_the_packages_service() {
    let group = nix::unistd::Group::from_gid(nix::unistd::getgid());
    let group = group.expect("the table of groups").expect("a group").name;
    let socket = ["--unixsocket", "./aeris.sock", "--unixsocketgroup", &group];
    let mut server = filtered_as_package(&socket);
    assert_eq!(server.connect().line("PING"), "+PONG\r\n");
    assert!(server.alive());
}

/// The units of the package have the lines whose filters this test installs.
#[test]
fn the_packages_units_have_these_filters_and_are_rated_safe() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/package");
    for name in ["aeris.service", "aeris@.service"] {
        let path = format!("{root}/{name}");
        let unit = std::fs::read_to_string(&path).expect("the unit");
        let of = |key: &str| {
            let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
            lines.collect::<Vec<_>>()
        };
        let filters = ["@system-service", "~@privileged @resources", "@chown"];
        assert_eq!(of("SystemCallFilter="), filters, "{name}");
        assert_eq!(of("MemoryDenyWriteExecute="), ["yes"], "{name}");
        let families = ["AF_INET AF_INET6 AF_UNIX"];
        assert_eq!(of("RestrictAddressFamilies="), families, "{name}");
        // The directory has the file of the socket unit's unix socket, which must survive a stop.
        assert_eq!(of("RuntimeDirectoryPreserve="), ["yes"], "{name}");
        // The exposure that `systemd-analyze security` may report: 1.5 of 10, given in tenths.
        let rating = std::process::Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=15", &path])
            .output();
        match rating {
            Ok(rating) => assert!(rating.status.success(), "{name}: {rating:?}"),
            Err(e) => eprintln!("systemd-analyze does not run ({e}): {name} is not rated"),
        }
    }
}

fn whole_life(mut server: Peer) {
    let mut c = server.connect();
    assert_eq!(c.line("SET k v"), "+OK\r\n");
    assert!(c.line("BGSAVE").starts_with("+Background"));
    wait_for(
        &mut c,
        "persistence",
        &[
            "rdb_bgsave_in_progress:0",
            "rdb_last_bgsave_status:ok",
            "rdb_saves:1",
        ],
    );
    assert!(c.line("BGREWRITEAOF").starts_with("+Background"));
    wait_for(
        &mut c,
        "persistence",
        &[
            "aof_rewrite_in_progress:0",
            "aof_last_bgrewrite_status:ok",
            "aof_rewrites:1",
        ],
    );
    for setting in [
        "appendfsync always",
        "appendfsync everysec",
        "maxmemory 1gb",
        "maxclients 100",
        "io-threads 2",
        "oom-score-adj yes",
        "activedefrag yes",
        "appendonly no",
        "set-proc-title no",
        "loglevel debug",
    ] {
        c.line(&format!("CONFIG SET {setting}"));
    }
    for command in [
        "EVAL return(redis.call('SET','a','b')) 0",
        "SAVE",
        "FLUSHALL ASYNC",
        "MEMORY PURGE",
        "INFO everything",
        "DEBUG RELOAD",
    ] {
        let reply = c.line(command);
        assert!(!reply.starts_with('-'), "{command}: {reply}");
    }
    c.send(b"SHUTDOWN\r\n");
    assert!(c.closed());
    assert_eq!(server.wait(), Some(0), "it ended by itself");
}

/// A test of the filter itself: a process that maps memory to be written and executed is ended.
#[test]
fn the_packages_filter_kills_what_makes_code() {
    use std::os::unix::process::ExitStatusExt;
    let mut program = program_of_package();
    let mut command = std::process::Command::new("true");
    // SAFETY: system calls between fork and exec; the mapping is not used.
    let child = unsafe {
        command.pre_exec(move || {
            install(&mut program)?;
            let both = libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4096, both, flags, -1, 0);
            Ok(())
        });
        command.spawn()
    };
    let status = child.expect("it was forked").wait();
    assert_eq!(status.expect("a child").signal(), Some(libc::SIGSYS));
}

/// A test of the filter itself: a process that makes a forbidden system call is ended.
#[test]
fn the_filter_kills_what_lowers_its_priority() {
    use std::os::unix::process::ExitStatusExt;
    let mut program = program(&[]);
    let mut nice = std::process::Command::new("nice");
    nice.args(["-n", "1", "true"]);
    // SAFETY: `install` makes two system calls; nothing is allocated and no lock is taken before
    // exec.
    let status = unsafe { nice.pre_exec(move || install(&mut program)) }.status();
    assert_eq!(status.expect("nice runs").signal(), Some(libc::SIGSYS));
}
