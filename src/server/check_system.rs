//! Checks the set-up of the machine for known problems: `--check-system`, and warnings at start.

use std::process::ExitCode;

type Check = fn() -> Result<(), String>;

/// The checks in the order in which they are printed. A check that does not apply to this system
/// succeeds.
const CHECKS: [(&str, Check); 4] = [
    ("slow-clocksource", slow_clocksource),
    ("xen-clocksource", xen_clocksource),
    ("overcommit", overcommit),
    ("THP", huge_pages),
];

/// `--check-system`: prints one line for each check. Exit code 1 if something is wrong.
pub fn report() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, check) in CHECKS {
        match check() {
            Ok(()) => println!("[{name}]...OK"),
            Err(text) => {
                println!("[{name}]...WARNING:\n{text}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// At start: warns about problems that endanger data, unless `ignore-warnings` names them.
pub fn warn_about_memory(ignored: &str) {
    let danger = CHECKS.iter().filter(|(_, check)| {
        std::ptr::fn_addr_eq(*check, overcommit as Check)
            || std::ptr::fn_addr_eq(*check, huge_pages as Check)
    });
    for (name, check) in danger {
        let known = ignored
            .split_whitespace()
            .any(|word| word.eq_ignore_ascii_case(name));
        if let Err(text) = check()
            && !known
        {
            log::warn!("WARNING {text}");
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_string())
}

const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Clock sources that can't be read without a system call.
fn slow_clocksource() -> Result<(), String> {
    match read(CLOCKSOURCE).as_deref() {
        Some(slow @ ("hpet" | "acpi_pm" | "jiffies" | "refined-jiffies")) => Err(format!(
            "Slow system clocksource detected. This can result in degraded performance. Consider changing the \
             system's clocksource. Current clocksource: {slow}. For example: run the command 'echo tsc > \
             {CLOCKSOURCE}' as root. To permanently change the system's clocksource you'll need to set the \
             'clocksource=' kernel command line parameter."
        )),
        _ => Ok(()),
    }
}

fn xen_clocksource() -> Result<(), String> {
    match read(CLOCKSOURCE).as_deref() {
        Some("xen") => Err("Your system is configured to use the 'xen' clocksource which might lead to degraded \
             performance. Check the result of the [slow-clocksource] system check: run 'redis-server \
             --check-system' to check if the system's clocksource isn't degrading performance."
            .into()),
        _ => Ok(()),
    }
}

fn overcommit() -> Result<(), String> {
    match read("/proc/sys/vm/overcommit_memory").as_deref() {
        None | Some("1") => Ok(()),
        Some(_) => Err("Memory overcommit must be enabled! Without it, a background save or replication may fail \
             under low memory condition. Being disabled, it can also cause failures without low memory condition, \
             see https://github.com/jemalloc/jemalloc/issues/1328. To fix this issue add 'vm.overcommit_memory = 1' \
             to /etc/sysctl.conf and then reboot or run the command 'sysctl vm.overcommit_memory=1' for this to \
             take effect."
            .into()),
    }
}

/// Huge pages for all processes: a write after a fork copies 2 MB instead of 4 KB.
fn huge_pages() -> Result<(), String> {
    match read("/sys/kernel/mm/transparent_hugepage/enabled") {
        Some(mode) if mode.contains("[always]") => Err("You have Transparent Huge Pages (THP) support enabled in \
             your kernel. This will create latency and memory usage issues with Redis. To fix this issue run the \
             command 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled' as root, and add it to your \
             /etc/rc.local in order to retain the setting after a reboot. Redis must be restarted after THP is \
             disabled (set to 'madvise' or 'never')."
            .into()),
        _ => Ok(()),
    }
}
