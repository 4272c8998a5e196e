//! The machine as the kernel shows it: files below /proc and /sys, below a root directory that a
//! test can choose.

use std::path::{Path, PathBuf};

/// The root of the kernel's files, and the process whose limits are read.
pub struct Machine {
    root: PathBuf,
    /// The name of the process's folder in /proc: `self`, or a process id.
    process: String,
}

impl Machine {
    /// The machine whose /proc and /sys are below `root`.
    pub fn new(root: PathBuf, process: String) -> Machine {
        Machine { root, process }
    }

    /// Whether the root directory and the process exist; `Err` has a text for the user.
    pub fn check(&self) -> Result<(), String> {
        if !self.root.is_dir() {
            return Err(format!("--root {}: no such directory", self.root.display()));
        }
        let process = self.root.join("proc").join(&self.process);
        // A test's root directory has only some files of the process itself.
        if self.process != "self" && !process.is_dir() {
            let (pid, folder) = (&self.process, process.display());
            return Err(format!("--pid {pid}: no such process ({folder})"));
        }
        Ok(())
    }

    /// A file's text without the white space around it.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_string())
    }

    /// The number in a file that has one number.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The text of a file of the process: `limits`, `cgroup`.
    fn of_process(&self, name: &str) -> Option<String> {
        self.read(Path::new("proc").join(&self.process).join(name))
    }

    /// The soft and the hard limit called `name` in the process's table of limits; an inner `None`
    /// means no limit.
    pub fn limit(&self, name: &str) -> Option<(Option<u64>, Option<u64>)> {
        let table = self.of_process("limits")?;
        let row = table.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = row.split_whitespace().map(|word| match word {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Some((words.next()??, words.next()??))
    }

    /// A row of /proc/meminfo in bytes.
    pub fn meminfo(&self, name: &str) -> Option<u64> {
        let table = self.read("proc/meminfo")?;
        let row = table.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes = row.strip_prefix(':')?.split_whitespace().next()?;
        kilobytes.parse::<u64>().ok()?.checked_mul(1024)
    }

    /// Whether huge pages are on for processes that did not ask for them.
    pub fn huge_pages_for_all(&self) -> bool {
        self.read("sys/kernel/mm/transparent_hugepage/enabled")
            .is_some_and(|mode| mode.contains("[always]"))
    }

    /// The number of online memory (NUMA) nodes; 1 if the kernel does not show it.
    pub fn memory_nodes(&self) -> usize {
        let list = self.read("sys/devices/system/node/online");
        list.map_or(1, |list| numbers_in(&list))
    }

    /// The folders of the process's cgroup and of its ancestors, innermost first: in version 1 the
    /// folders of `controller`, in version 2 those of all controllers.
    pub fn cgroups(&self, controller: &str) -> Vec<PathBuf> {
        let Some(table) = self.of_process("cgroup") else {
            return Vec::new();
        };
        let rows = table.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?.trim_start_matches('/')))
        });
        let mut folders = Vec::new();
        for (controllers, path) in rows {
            let version_1 = controllers.split(',').any(|name| name == controller);
            let base = match (controllers, version_1) {
                ("", _) => PathBuf::from("sys/fs/cgroup"),
                (_, true) => Path::new("sys/fs/cgroup").join(controller),
                _ => continue,
            };
            let below = Path::new(path).ancestors();
            folders.extend(below.map(|folder| base.join(folder)));
        }
        folders
    }
}

/// The count of numbers in a list like `0-3,8`.
fn numbers_in(list: &str) -> usize {
    let parts = list.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        to.checked_sub(from)?.checked_add(1)
    });
    parts.sum()
}
