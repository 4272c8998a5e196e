//! Checks of the kernel's settings.

use super::machine::Machine;
use super::{Finding, Level};
use crate::config::Config;

const CLOCK_SOURCES: &str = "sys/devices/system/clocksource/clocksource0";

/// The command that gives a setting of the kernel this value, at once and after a reboot. Each
/// setting has a file of its own. The package's 60-aeris.conf has another name, since a file in
/// /etc/sysctl.d replaces all settings of the package's file of the same name.
fn sysctl(name: &str, value: u32) -> String {
    let file = format!("/etc/sysctl.d/61-aeris-{}.conf", last_part(name));
    format!("echo {name}={value} > {file} && sysctl --system")
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A clock source that can't be read without a system call makes each reading of the clock slow.
pub fn clock_source(machine: &Machine, _: &Config) -> Finding {
    let Some(present) = machine.read(format!("{CLOCK_SOURCES}/current_clocksource")) else {
        return Finding::not_known();
    };
    let slow = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "xen"];
    if !slow.contains(&present.as_str()) {
        return Finding::fine(present);
    }
    let all = machine.read(format!("{CLOCK_SOURCES}/available_clocksource"));
    let fast = all.unwrap_or_default();
    let fast = fast.split_whitespace().find(|name| !slow.contains(name));
    let mend = match fast {
        Some(name) => format!("echo {name} > /{CLOCK_SOURCES}/current_clocksource"),
        None => "GRUB_CMDLINE_LINUX=\"clocksource=tsc tsc=reliable\" in /etc/default/grub".into(),
    };
    Finding {
        level: Level::Slow,
        is: present,
        should_be: fast.unwrap_or("tsc").into(),
        why: "The time is read through a system call, several times in each turn of the loop.",
        mend,
    }
}

/// Without overcommit, a fork needs as much free memory as the data set has.
pub fn overcommit(machine: &Machine, _: &Config) -> Finding {
    match machine.read("proc/sys/vm/overcommit_memory") {
        None => Finding::not_known(),
        Some(mode) if mode == "1" => Finding::fine(mode),
        Some(mode) => Finding {
            level: Level::Danger,
            is: mode,
            should_be: "1".into(),
            why: "The fork of a save or of a full sync fails if the data set is larger than the free memory.",
            mend: sysctl("vm.overcommit_memory", 1),
        },
    }
}

/// With huge pages for all processes, a write after a fork copies 2 MB instead of 4 KB.
pub fn huge_pages(machine: &Machine, config: &Config) -> Finding {
    let Some(mode) = machine.read("sys/kernel/mm/transparent_hugepage/enabled") else {
        return Finding::not_known();
    };
    if !machine.huge_pages_for_all() {
        return Finding::fine(mode);
    }
    if config.disable_thp {
        return Finding::fine(format!(
            "{mode}, switched off by the server for itself (disable-thp)"
        ));
    }
    Finding {
        level: Level::Slow,
        is: mode,
        should_be: "madvise or never".into(),
        why: "While a child saves, each write copies 2 MB instead of 4 KB.",
        mend: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into(),
    }
}

/// The kernel must not swap out pages of the data set to make room for the cache of files.
pub fn swappiness(machine: &Machine, _: &Config) -> Finding {
    const TENDENCY_MAX: u64 = 10;
    let (Some(swap), Some(tendency)) = (
        machine.meminfo("SwapTotal"),
        machine.number("proc/sys/vm/swappiness"),
    ) else {
        return Finding::not_known();
    };
    match swap {
        0 => Finding::fine("no swap"),
        _ if tendency <= TENDENCY_MAX => Finding::fine(tendency.to_string()),
        _ => Finding {
            level: Level::Slow,
            is: tendency.to_string(),
            should_be: format!("{TENDENCY_MAX} or less"),
            why: "Keys that are swapped out for the cache of files stop the loop until they are read again.",
            mend: sysctl("vm.swappiness", 1),
        },
    }
}

/// NUMA balancing unmaps pages to see which node uses them, which costs a page fault per page.
pub fn numa_balancing(machine: &Machine, _: &Config) -> Finding {
    numa_setting(
        machine,
        "kernel.numa_balancing",
        "The kernel unmaps pages to learn which node uses them, and each then costs a page fault.",
    )
}

/// With zone reclaim, an allocation frees caches of its own node before it takes memory of another
/// node.
pub fn numa_reclaim(machine: &Machine, _: &Config) -> Finding {
    numa_setting(
        machine,
        "vm.zone_reclaim_mode",
        "An allocation frees the caches of its node, which takes long, while other nodes have free memory.",
    )
}

/// A setting of the kernel, such as `vm.zone_reclaim_mode`, that must be 0 with several memory
/// nodes.
fn numa_setting(machine: &Machine, name: &str, why: &'static str) -> Finding {
    if machine.memory_nodes() < 2 {
        return Finding::fine("one memory node");
    }
    match machine.number(format!("proc/sys/{}", name.replace('.', "/"))) {
        None => Finding::not_known(),
        Some(0) => Finding::fine("0"),
        Some(mode) => Finding {
            level: Level::Slow,
            is: format!("{} {mode}", last_part(name)),
            should_be: "0".into(),
            why,
            mend: sysctl(name, 0),
        },
    }
}

/// The data of a thread that moves between NUMA nodes lies on the wrong node.
pub fn numa_binding(machine: &Machine, config: &Config) -> Finding {
    if machine.memory_nodes() < 2 {
        return Finding::fine("one memory node");
    }
    if !config.server_cpulist.is_empty() {
        return Finding::fine(format!("server-cpulist {}", config.server_cpulist));
    }
    let cpus = machine.read("sys/devices/system/node/node0/cpulist");
    let cpus = cpus.unwrap_or_else(|| "0".into());
    Finding {
        level: Level::Slow,
        is: "no server-cpulist".into(),
        should_be: "the processors of one node".into(),
        why: "The kernel moves the server between nodes, and its data stays on the other one.",
        mend: format!("server-cpulist {cpus}"),
    }
}

/// The kernel cuts the queue of a listening socket to `somaxconn`.
pub fn listen_queue(machine: &Machine, config: &Config) -> Finding {
    let wanted = config.tcp_backlog;
    match machine.number("proc/sys/net/core/somaxconn") {
        None => Finding::not_known(),
        Some(max) if i128::from(max) >= i128::from(wanted) => Finding::fine(max.to_string()),
        Some(max) => Finding {
            level: Level::Slow,
            is: max.to_string(),
            should_be: format!("{wanted} or more (tcp-backlog)"),
            why: "When many clients connect at once, some wait for seconds until they try again.",
            mend: sysctl("net.core.somaxconn", wanted),
        },
    }
}
