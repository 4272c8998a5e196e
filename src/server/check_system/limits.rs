//! Checks of what the process may have: files, memory, processor time.

use std::path::PathBuf;

use super::machine::Machine;
use super::{Finding, Level};
use crate::config::Config;
use crate::server::init;

/// Each client needs a file descriptor.
pub fn open_files(machine: &Machine, config: &Config) -> Finding {
    let wanted = u64::from(config.maxclients) + init::reserved_fds(config) as u64;
    let Some((_, hard)) = machine.limit("Max open files") else {
        return Finding::not_known();
    };
    match hard {
        None => Finding::fine("unlimited"),
        Some(hard) if hard >= wanted => Finding::fine(hard.to_string()),
        Some(hard) => Finding {
            level: Level::Slow,
            is: hard.to_string(),
            should_be: format!("{wanted} or more (maxclients)"),
            why: "maxclients is lowered at start to what the limit allows.",
            mend: format!("LimitNOFILE={wanted} in the unit, or: ulimit -n {wanted}"),
        },
    }
}

/// `lock-memory` needs an infinite limit of locked memory: beyond a finite limit, allocations fail.
pub fn locked_memory(machine: &Machine, config: &Config) -> Finding {
    if !config.lock_memory {
        return Finding::fine("not wanted (lock-memory no)");
    }
    match machine.limit("Max locked memory") {
        None => Finding::not_known(),
        Some((_, None)) => Finding::fine("unlimited"),
        Some((_, Some(hard))) => Finding {
            level: Level::Slow,
            is: hard.to_string(),
            should_be: "unlimited (lock-memory)".into(),
            why: "The memory is not locked, and can be swapped out.",
            mend: "LimitMEMLOCK=infinity in the unit, or: ulimit -l unlimited".into(),
        },
    }
}

/// Without `maxmemory`, the server grows until the kernel kills a process.
pub fn memory(machine: &Machine, config: &Config) -> Finding {
    match machine.meminfo("MemTotal") {
        None => Finding::not_known(),
        Some(total) => compare_with_maxmemory(total, config),
    }
}

/// Compares the memory limit of the cgroup with `maxmemory`: when the limit is exceeded, the kernel
/// kills a process of this cgroup, usually the server.
pub fn cgroup_memory(machine: &Machine, config: &Config) -> Finding {
    let files = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    let limits = machine.cgroups("memory").into_iter().flat_map(|folder| {
        let read = |file| machine.number(folder.join(file));
        files.map(read)
    });
    // For "no limit", cgroups of version 1 have a number beyond every memory size.
    match limits.flatten().filter(|limit| *limit < 1 << 60).min() {
        None => Finding::fine("no limit"),
        Some(limit) => compare_with_maxmemory(limit, config),
    }
}

/// A saving child shares its memory with the server until the server writes; a quarter of the
/// memory is left for the pages that are copied then.
fn compare_with_maxmemory(available: u64, config: &Config) -> Finding {
    let most = available - available / 4;
    let maxmemory = config.maxmemory;
    if (1..=most).contains(&maxmemory) {
        return Finding::fine(format!("maxmemory {maxmemory} of {available} bytes"));
    }
    let (level, is) = match maxmemory {
        0 => (Level::Slow, "no maxmemory".to_string()),
        more if more > available => (Level::Danger, format!("maxmemory {more}")),
        more => (Level::Slow, format!("maxmemory {more}")),
    };
    Finding {
        level,
        is: format!("{is} of {available} bytes"),
        should_be: format!("{most} or less"),
        why: "The kernel ends the server when memory runs out, at the latest while a child saves.",
        mend: format!("maxmemory {most}"),
    }
}

/// A CPU quota of the cgroup stops the loop for the rest of each period in which the quota is used
/// up.
pub fn cgroup_cpu(machine: &Machine, _: &Config) -> Finding {
    let quotas = machine.cgroups("cpu").into_iter().filter_map(|folder| {
        let (quota, period) = cpu_quota(machine, &folder)?;
        (quota > 0 && period > 0).then_some((quota, period))
    });
    let least = quotas.min_by(|(a, b), (c, d)| (a * d).cmp(&(c * b)));
    let Some((quota, period)) = least else {
        return Finding::fine("no limit");
    };
    let percent = quota * 100 / period;
    match percent {
        200.. => Finding::fine(format!("{percent} % of a processor")),
        _ => Finding {
            level: Level::Slow,
            is: format!("{percent} % of a processor"),
            should_be: "200 % or no limit".into(),
            why: "When the quota is used up, the server stands still for the rest of the period. A child that saves \
                  needs a processor of its own.",
            mend: "CPUQuota= in the unit".into(),
        },
    }
}

/// The processor time per period, and the period, in microseconds; reads cgroups of both versions.
fn cpu_quota(machine: &Machine, folder: &std::path::Path) -> Option<(u128, u128)> {
    if let Some(line) = machine.read(folder.join("cpu.max")) {
        let (quota, period) = line.split_once(' ')?;
        return Some((quota.parse().ok()?, period.parse().ok()?));
    }
    // `Machine::number` returns `None` for -1, with which a cgroup of version 1 means no limit.
    let quota = machine.number(folder.join("cpu.cfs_quota_us"))?;
    let period = machine.number(folder.join("cpu.cfs_period_us"))?;
    Some((quota.into(), period.into()))
}

/// The number of threads of the server and a child.
const TASKS: u64 = 16;

/// A limit of tasks must leave room for the threads of the server and a child.
pub fn cgroup_pids(machine: &Machine, _: &Config) -> Finding {
    let read = |folder: PathBuf| machine.number(folder.join("pids.max"));
    match machine.cgroups("pids").into_iter().filter_map(read).min() {
        None => Finding::fine("no limit"),
        Some(max) if max >= TASKS => Finding::fine(max.to_string()),
        Some(max) => Finding {
            level: Level::Danger,
            is: max.to_string(),
            should_be: format!("{TASKS} or more"),
            why: "A thread or the child of a save can't be started.",
            mend: format!("TasksMax={TASKS} in the unit"),
        },
    }
}
