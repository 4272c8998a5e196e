use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::config::AppendFsync;

/// A made-up tree of /proc and /sys.
struct Tree(PathBuf);

/// A healthy machine with one memory node, in a service of systemd.
const HEALTHY: &[(&str, &str)] = &[
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    ("proc/sys/vm/overcommit_memory", "1\n"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
    ("proc/sys/vm/swappiness", "1\n"),
    (
        "proc/meminfo",
        "MemTotal:       16000000 kB\nSwapTotal:       1000000 kB\n",
    ),
    ("sys/devices/system/node/online", "0\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n\
         Max open files            1024                 524288               files\n\
         Max locked memory         8388608              unlimited            bytes\n",
    ),
    ("proc/self/cgroup", "0::/system.slice/aeris.service\n"),
    (
        "sys/fs/cgroup/system.slice/aeris.service/memory.max",
        "max\n",
    ),
    (
        "sys/fs/cgroup/system.slice/aeris.service/cpu.max",
        "max 100000\n",
    ),
    (
        "sys/fs/cgroup/system.slice/aeris.service/pids.max",
        "4915\n",
    ),
];

impl Tree {
    /// A tree of /proc and /sys of a machine on which all checks pass, except for the files in
    /// `changes`.
    fn with(changes: &[(&str, &str)]) -> Tree {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("aeris-machine-{}-{number}", std::process::id());
        let tree = Tree(std::env::temp_dir().join(name));
        for (path, text) in HEALTHY.iter().chain(changes) {
            let path = tree.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        tree
    }

    fn machine(&self) -> Machine {
        Machine::new(self.0.clone(), "self".into())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings() -> Config {
    Config {
        maxmemory: 1 << 30,
        ..Config::default()
    }
}

/// The finding of the check called `name`.
fn find(name: &str, changes: &[(&str, &str)], config: &Config) -> Finding {
    let (_, check) = CHECKS.iter().find(|(known, _)| *known == name).unwrap();
    check(&Tree::with(changes).machine(), config)
}

#[test]
fn a_healthy_machine_has_no_findings() {
    let tree = Tree::with(&[]);
    for (name, check) in CHECKS.iter().filter(|(name, _)| !name.starts_with("disk")) {
        let finding = check(&tree.machine(), &settings());
        assert_eq!(finding.level, Level::Fine, "{name}: {finding:?}");
        assert_ne!(finding.is, "not known", "{name}");
    }
}

#[test]
fn what_the_kernel_does_not_show_is_fine() {
    let machine = Machine::new("/nonexistent".into(), "self".into());
    for (name, check) in CHECKS.iter().filter(|(name, _)| !name.starts_with("disk")) {
        let finding = check(&machine, &settings());
        assert_eq!(finding.level, Level::Fine, "{name}: {finding:?}");
    }
}

/// Each case changes one file of the healthy machine: (check, file, text, level, what is found,
/// part of the line that mends it).
#[test]
fn each_fault_is_found_with_the_line_that_mends_it() {
    let cases = [
        (
            "overcommit",
            "proc/sys/vm/overcommit_memory",
            "0",
            Level::Danger,
            "0",
            "vm.overcommit_memory=1",
        ),
        (
            "swappiness",
            "proc/sys/vm/swappiness",
            "60",
            Level::Slow,
            "60",
            "vm.swappiness=1",
        ),
        (
            "somaxconn",
            "proc/sys/net/core/somaxconn",
            "128",
            Level::Slow,
            "128",
            "net.core.somaxconn=511",
        ),
        (
            "open-files",
            "proc/self/limits",
            "Max open files 1024 4096 files\n",
            Level::Slow,
            "4096",
            "LimitNOFILE=10032",
        ),
        (
            "cgroup-memory",
            "sys/fs/cgroup/system.slice/memory.max",
            "1000000000",
            Level::Danger,
            "maxmemory 1073741824 of 1000000000 bytes",
            "maxmemory 750000000",
        ),
        (
            "memory",
            "proc/meminfo",
            "MemTotal: 1200000 kB\n",
            Level::Slow,
            "maxmemory 1073741824 of 1228800000 bytes",
            "maxmemory 921600000",
        ),
        (
            "cgroup-cpu",
            "sys/fs/cgroup/system.slice/aeris.service/cpu.max",
            "50000 100000",
            Level::Slow,
            "50 % of a processor",
            "CPUQuota=",
        ),
        (
            "cgroup-pids",
            "sys/fs/cgroup/system.slice/aeris.service/pids.max",
            "4",
            Level::Danger,
            "4",
            "TasksMax=16",
        ),
    ];
    for (name, path, text, level, is, mend) in cases {
        let finding = find(name, &[(path, text)], &settings());
        assert_eq!((finding.level, finding.is.as_str()), (level, is), "{name}");
        assert!(finding.mend.contains(mend), "{name}: {finding:?}");
        assert!(
            !finding.should_be.is_empty() && !finding.why.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn a_slow_clock_source_names_a_fast_one_that_the_machine_has() {
    let folder = "sys/devices/system/clocksource/clocksource0";
    let present = format!("{folder}/current_clocksource");
    let all = format!("{folder}/available_clocksource");
    let finding = find(
        "slow-clocksource",
        &[(&present, "xen"), (&all, "xen kvm-clock tsc hpet")],
        &settings(),
    );
    assert_eq!(
        (finding.is.as_str(), finding.should_be.as_str()),
        ("xen", "kvm-clock")
    );
    assert_eq!(
        finding.mend,
        format!("echo kvm-clock > /{folder}/current_clocksource")
    );
    let finding = find(
        "slow-clocksource",
        &[(&present, "hpet"), (&all, "hpet")],
        &settings(),
    );
    assert!(finding.mend.contains("clocksource=tsc"), "{finding:?}");
}

#[test]
fn huge_pages_matter_if_the_server_does_not_switch_them_off() {
    let on = [(
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
    )];
    assert_eq!(find("THP", &on, &settings()).level, Level::Fine);
    let config = Config {
        disable_thp: false,
        ..settings()
    };
    assert_eq!(find("THP", &on, &config).level, Level::Slow);
}

#[test]
fn swap_matters_if_there_is_some() {
    let none = [
        ("proc/meminfo", "MemTotal: 16000000 kB\nSwapTotal: 0 kB\n"),
        ("proc/sys/vm/swappiness", "60"),
    ];
    assert_eq!(find("swappiness", &none, &settings()).is, "no swap");
}

#[test]
fn settings_of_memory_nodes_matter_with_several_nodes() {
    let two = ("sys/devices/system/node/online", "0-1");
    let cpus = ("sys/devices/system/node/node0/cpulist", "0-7,16-23");
    let balancing = ("proc/sys/kernel/numa_balancing", "1");
    let reclaim = ("proc/sys/vm/zone_reclaim_mode", "1");
    let all = [two, cpus, balancing, reclaim];
    for name in ["numa-balancing", "numa-reclaim", "numa-binding"] {
        assert_eq!(find(name, &all, &settings()).level, Level::Slow, "{name}");
        assert_eq!(
            find(name, &all[1..], &settings()).level,
            Level::Fine,
            "{name}"
        );
    }
    assert_eq!(
        find("numa-binding", &all, &settings()).mend,
        "server-cpulist 0-7,16-23"
    );
    let bound = Config {
        server_cpulist: "0-7".into(),
        ..settings()
    };
    assert_eq!(find("numa-binding", &all, &bound).level, Level::Fine);
}

#[test]
fn without_maxmemory_the_machine_decides() {
    let finding = find("memory", &[], &Config::default());
    assert_eq!(
        (finding.level, finding.mend.as_str()),
        (Level::Slow, "maxmemory 12288000000")
    );
}

#[test]
fn memory_is_locked_under_an_infinite_limit_only() {
    let config = Config {
        lock_memory: true,
        ..settings()
    };
    assert_eq!(find("locked-memory", &[], &config).is, "unlimited");
    let small = [("proc/self/limits", "Max locked memory 65536 65536 bytes\n")];
    assert_eq!(find("locked-memory", &small, &config).level, Level::Slow);
    assert_eq!(
        find("locked-memory", &small, &settings()).level,
        Level::Fine
    );
}

#[test]
fn limits_of_cgroups_of_version_1() {
    let groups = (
        "proc/self/cgroup",
        "9:memory:/docker/x\n8:cpu,cpuacct:/docker/x\n",
    );
    let memory = "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes";
    let quota = ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "50000");
    let period = ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000");
    let limited = [groups, (memory, "536870912"), quota, period];
    assert_eq!(
        find("cgroup-memory", &limited, &settings()).level,
        Level::Danger
    );
    assert_eq!(
        find("cgroup-cpu", &limited, &settings()).is,
        "50 % of a processor"
    );
    let free = [
        groups,
        (memory, "9223372036854771712"),
        ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1"),
        period,
    ];
    assert_eq!(find("cgroup-memory", &free, &settings()).is, "no limit");
    assert_eq!(find("cgroup-cpu", &free, &settings()).is, "no limit");
}

#[test]
fn the_disk_is_judged_by_its_fsync_and_its_kind() {
    let times = |ms: u64| {
        [
            Duration::from_millis(1),
            Duration::from_millis(ms),
            Duration::from_secs(1),
        ]
    };
    let judge = |ms, kind, config: &Config| disk::judge_fsync(&times(ms), kind, config);
    assert_eq!(judge(2, "ext4", &settings()).level, Level::Fine);
    assert_eq!(
        judge(2, "ext4", &settings()).is,
        "ext4, fsync 2.0ms, 1.0s at most"
    );
    assert_eq!(judge(2, "tmpfs", &settings()).level, Level::Danger);
    assert_eq!(judge(20, "ext4", &settings()).level, Level::Slow);
    let always = Config {
        appendfsync: AppendFsync::Always,
        ..settings()
    };
    assert_eq!(judge(20, "nfs4", &always).mend, "appendfsync everysec");
}

#[test]
fn a_save_needs_as_much_space_as_the_data_set() {
    let (gb, total) = (1 << 30, 100 << 30);
    assert_eq!(disk::judge_space(gb, total, &settings()).level, Level::Fine);
    assert_eq!(
        disk::judge_space(gb - 1, total, &settings()).level,
        Level::Danger
    );
    assert_eq!(
        disk::judge_space(gb, total, &Config::default()).level,
        Level::Danger
    );
    assert_eq!(
        disk::judge_space(5 * gb, total, &Config::default()).level,
        Level::Fine
    );
}

#[test]
fn the_highest_level_is_the_exit_status() {
    let finding = |level| Finding {
        level,
        ..Finding::fine("x")
    };
    let of = |levels: &[Level]| {
        let all: Vec<_> = levels
            .iter()
            .map(|level| ("name", finding(*level)))
            .collect();
        (
            worst(&all) as u8,
            json(&all)["exit_status"].as_u64().unwrap(),
        )
    };
    assert_eq!(of(&[]), (0, 0));
    assert_eq!(of(&[Level::Fine, Level::Slow]), (1, 1));
    assert_eq!(of(&[Level::Danger, Level::Slow]), (2, 2));
}

#[test]
fn the_options_are_taken_out_of_the_arguments() {
    let tree = Tree::with(&[("proc/7/limits", "Max open files 10 20 files\n")]);
    let root = tree.0.to_str().unwrap();
    let args = ["a.conf", "--json", "--pid", "7", "--root", root];
    let args = [&args[..], &["--maxclients", "5"]].concat();
    let args: Vec<String> = args.into_iter().map(String::from).collect();
    let (options, rest) = CheckSystemOptions::parse(&args).expect("they can be used");
    assert!(options.json);
    assert_eq!(rest, ["a.conf", "--maxclients", "5"]);
    let limit = options.machine.limit("Max open files");
    assert_eq!(limit, Some((Some(10), Some(20))));
}

#[test]
fn an_argument_that_cannot_be_used_is_an_error() {
    let tree = Tree::with(&[]);
    let root = tree.0.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--pid"], "--pid needs the id of a process"),
        (&["--pid", "abc"], "--pid abc: not the id of a process"),
        (&["--pid", "-1"], "--pid -1: not the id of a process"),
        (&["--pid", "8", "--root", root], "--pid 8: no such process"),
        (&["--root"], "--root needs a directory"),
        (
            &["--root", "/nonexistent"],
            "--root /nonexistent: no such directory",
        ),
    ];
    for (args, text) in cases {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let error = CheckSystemOptions::parse(&args).err().expect("an error");
        assert!(error.starts_with(text), "{args:?}: {error}");
    }
}

/// A file in /etc/sysctl.d replaces the package's file of the same name with all its settings.
#[test]
fn a_printed_line_replaces_no_file_of_the_package_and_of_no_other_line() {
    let faults = [
        ("proc/sys/vm/overcommit_memory", "0"),
        ("proc/sys/vm/swappiness", "60"),
        ("proc/sys/net/core/somaxconn", "128"),
        ("sys/devices/system/node/online", "0-1"),
        ("proc/sys/kernel/numa_balancing", "1"),
        ("proc/sys/vm/zone_reclaim_mode", "1"),
    ];
    let tree = Tree::with(&faults);
    let findings = CHECKS.iter().filter(|(name, _)| !name.starts_with("disk"));
    let lines = findings.map(|(_, check)| check(&tree.machine(), &settings()).mend);
    let lines: Vec<String> = lines.filter(|line| line.contains("sysctl.d")).collect();
    let files = lines
        .iter()
        .filter_map(|line| line.split_whitespace().nth(3));
    let files: std::collections::BTreeSet<&str> = files.collect();
    assert_eq!((lines.len(), files.len()), (5, 5), "{lines:?}");
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = std::fs::read_to_string(project.join("tools/package/stage.sh")).unwrap();
    for file in files {
        let name = file.strip_prefix("/etc/sysctl.d/").expect(file);
        assert!(!package.contains(name), "{name}");
    }
}
