//! `--check-system`: shows what is wrong with the machine, and the lines that mend the problems.
//!
//! ```text
//!   aeris-server --check-system [--json] [--pid PID] [--root DIR] [redis.conf] [--name value ...]
//!     Machine (files of /proc and /sys) + Config -> CHECKS -> [Finding] -> text or JSON, exit status
//! ```
//!
//! A check reads the files of the kernel below `--root`, so that a test can show it any machine,
//! and the settings, which say what is needed, for example `maxclients` files. Limits and cgroup
//! are those of the present process, or of the server `--pid`: a shell has other limits than a
//! service.
//!
//! The exit status is the highest level of all findings: 0 all is as it should be, 1 something
//! costs time, 2 something endangers the data or the service.
//!
//! Limits: what a check can't read (no such file in this kernel or container) counts as fine and is
//! shown as `not known`.

mod disk;
mod kernel;
mod limits;
mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use machine::Machine;

use crate::config::Config;
use crate::sys;
use crate::sys::print::print_line;
use crate::sys::process;

/// The severity of a finding. The exit status is the highest severity of all findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fine = 0,
    /// Because of the problem, requests take longer or fewer clients are possible.
    Slow = 1,
    /// Because of the problem, data can be lost or the server can end.
    Danger = 2,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    is: String,
    should_be: String,
    why: &'static str,
    /// The command, or the line of a file, that mends the problem.
    mend: String,
}

impl Finding {
    fn fine(is: impl Into<String>) -> Finding {
        Finding {
            level: Level::Fine,
            is: is.into(),
            should_be: String::new(),
            why: "",
            mend: String::new(),
        }
    }

    fn not_known() -> Finding {
        Finding::fine("not known")
    }
}

type Check = fn(&Machine, &Config) -> Finding;

/// The checks in the order in which they are printed.
const CHECKS: [(&str, Check); 16] = [
    ("slow-clocksource", kernel::clock_source),
    ("overcommit", kernel::overcommit),
    ("THP", kernel::huge_pages),
    ("swappiness", kernel::swappiness),
    ("numa-balancing", kernel::numa_balancing),
    ("numa-reclaim", kernel::numa_reclaim),
    ("numa-binding", kernel::numa_binding),
    ("somaxconn", kernel::listen_queue),
    ("open-files", limits::open_files),
    ("locked-memory", limits::locked_memory),
    ("memory", limits::memory),
    ("cgroup-memory", limits::cgroup_memory),
    ("cgroup-cpu", limits::cgroup_cpu),
    ("cgroup-pids", limits::cgroup_pids),
    ("disk-space", disk::space),
    ("disk-fsync", disk::fsync),
];

/// The options of `--check-system` itself; the rest of the arguments are settings.
pub struct CheckSystemOptions {
    json: bool,
    machine: Machine,
}

impl CheckSystemOptions {
    /// Takes the options out of the arguments behind `--check-system`. Returns the remaining
    /// arguments. `Err` has a text for the user.
    pub fn parse(args: &[String]) -> Result<(CheckSystemOptions, Vec<String>), String> {
        let (mut json, mut root, mut process) = (false, PathBuf::from("/"), "self".to_string());
        let (mut rest, mut args) = (Vec::new(), args.iter());
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" => json = true,
                "--root" => root = args.next().ok_or("--root needs a directory")?.into(),
                "--pid" => process = process_id(args.next())?,
                _ => rest.push(arg.clone()),
            }
        }
        let machine = Machine::new(root, process);
        machine.check()?;
        Ok((CheckSystemOptions { json, machine }, rest))
    }
}

/// The argument of `--pid` as the name of a folder in /proc.
fn process_id(arg: Option<&String>) -> Result<String, String> {
    let arg = arg.ok_or("--pid needs the id of a process")?;
    match arg.parse::<u32>() {
        Ok(pid) => Ok(pid.to_string()),
        Err(_) => Err(format!("--pid {arg}: not the id of a process")),
    }
}

/// `--check-system`: prints all findings. The exit status is the highest level of all findings.
pub fn report(options: &CheckSystemOptions, config: &Config) -> ExitCode {
    let findings: Vec<(&str, Finding)> = CHECKS
        .iter()
        .map(|(name, check)| (*name, check(&options.machine, config)))
        .collect();
    let worst = worst(&findings);
    match options.json {
        true => print_line(json(&findings)),
        false => print_line(text(&findings).trim_end_matches('\n')),
    }
    ExitCode::from(worst as u8)
}

fn worst(findings: &[(&str, Finding)]) -> Level {
    let levels = findings.iter().map(|(_, finding)| finding.level);
    levels.max().unwrap_or(Level::Fine)
}

fn text(findings: &[(&str, Finding)]) -> String {
    let mut out = String::new();
    for (name, finding) in findings {
        let Finding { is, should_be, .. } = finding;
        let state = match finding.level {
            Level::Fine => {
                out += &format!("[{name}]...OK: {is}\n");
                continue;
            }
            Level::Slow => "WARNING",
            Level::Danger => "DANGER",
        };
        out += &format!("[{name}]...{state}: {is}; should be {should_be}\n");
        out += &format!("    {}\n    {}\n", finding.why, finding.mend);
    }
    out
}

fn json(findings: &[(&str, Finding)]) -> serde_json::Value {
    let rows = findings.iter().map(|(name, finding)| {
        let level = match finding.level {
            Level::Fine => "ok",
            Level::Slow => "warning",
            Level::Danger => "danger",
        };
        serde_json::json!({
            "name": name,
            "state": level,
            "is": finding.is,
            "should_be": finding.should_be,
            "why": finding.why,
            "mend": finding.mend,
        })
    });
    serde_json::json!({
        "exit_status": worst(findings) as u8,
        "checks": rows.collect::<Vec<_>>(),
    })
}

/// At start: switches huge pages off for this process and locks its memory, as the settings say,
/// and warns about problems that endanger data, unless `ignore-warnings` names them.
pub fn set_up_memory(config: &Config) {
    let machine = Machine::new("/".into(), "self".into());
    let ignored = config.ignore_warnings.to_str_lossy();
    let warn = |name: &str, text: &str| {
        let mut known = ignored.split_whitespace();
        if !known.any(|word| word.eq_ignore_ascii_case(name)) {
            log::warn!("WARNING {text}");
        }
    };
    if kernel::overcommit(&machine, config).level != Level::Fine {
        warn("overcommit", OVERCOMMIT_AT_START);
    }
    // A kernel without huge pages has nothing to disable.
    let disabled = config.disable_thp && process::disable_huge_pages().is_ok();
    if !disabled && machine.huge_pages_for_all() {
        warn("THP", HUGE_PAGES_AT_START);
    }
    if config.lock_memory
        && let Err(reason) = process::lock_memory()
    {
        log::warn!(
            "Can't lock memory (lock-memory): {}. The limit of locked memory must be infinite \
             (LimitMEMLOCK=infinity in the unit).",
            sys::error_text(&reason)
        );
    }
}

/// Warnings at start; they have the texts of Redis, which tools look for in the log.
const OVERCOMMIT_AT_START: &str = "Memory overcommit must be enabled! Without it, a background save or replication \
    may fail under low memory condition. Being disabled, it can also cause failures without low memory condition, \
    see https://github.com/jemalloc/jemalloc/issues/1328. To fix this issue add 'vm.overcommit_memory = 1' \
    to /etc/sysctl.conf and then reboot or run the command 'sysctl vm.overcommit_memory=1' for this to \
    take effect.";
const HUGE_PAGES_AT_START: &str = "You have Transparent Huge Pages (THP) support enabled in \
    your kernel. This will create latency and memory usage issues with Redis. To fix this issue run the \
    command 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled' as root, and add it to your \
    /etc/rc.local in order to retain the setting after a reboot. Redis must be restarted after THP is \
    disabled (set to 'madvise' or 'never').";
