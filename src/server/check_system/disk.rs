//! Checks of the disk that has the AOF and the RDB: the time that an fsync takes, and the free
//! space.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::{Finding, Level};
use crate::config::{AppendFsync, Config};
use crate::sys;

/// The maximum number of measured writes, and the time after which no further write begins.
const WRITES: usize = 32;
const MEASURING: Duration = Duration::from_secs(2);

/// The slowest acceptable fsync: with `appendfsync always` each turn of the loop that writes waits
/// for an fsync.
const FSYNC_MAX: Duration = Duration::from_millis(10);

/// The directory of the AOF and the RDB: the settings have been read, so `dir` is the working
/// directory.
const DIR: &str = ".";

/// Measures writes of 4 KB, each with an fdatasync.
pub fn fsync(machine: &Machine, config: &Config) -> Finding {
    let times = match measure(Path::new(DIR)) {
        Ok(times) => times,
        Err(e) => return not_writable(&e),
    };
    judge_fsync(&times, &file_system(machine, Path::new(DIR)), config)
}

fn not_writable(e: &io::Error) -> Finding {
    Finding {
        level: Level::Danger,
        is: sys::error_text(e),
        should_be: "a directory in which files can be written (dir)".into(),
        why: "Saves and the AOF fail.",
        mend: "dir /var/lib/aeris".into(),
    }
}

/// Judges the sorted times of fsyncs.
pub fn judge_fsync(times: &[Duration], file_system: &str, config: &Config) -> Finding {
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = times.last().copied().unwrap_or_default();
    let is = format!("{file_system}, fsync {median:.1?}, {longest:.1?} at most");
    let in_memory = ["tmpfs", "ramfs"].contains(&file_system);
    if in_memory {
        return Finding {
            level: Level::Danger,
            is,
            should_be: "a file system on a disk".into(),
            why: "The files are lost when the machine stops.",
            mend: "dir /var/lib/aeris".into(),
        };
    }
    if median <= FSYNC_MAX {
        return Finding::fine(is);
    }
    let always = config.appendfsync == AppendFsync::Always;
    Finding {
        level: Level::Slow,
        is,
        should_be: format!("{FSYNC_MAX:?} or less"),
        why: match always {
            true => "Replies to writes wait for an fsync (appendfsync always).",
            false => "A second of writes or more is not on the disk when the machine stops.",
        },
        mend: match always {
            true => "appendfsync everysec".into(),
            false => "dir /a/directory/on/a/faster/disk".into(),
        },
    }
}

/// The sorted times of synced writes to a file, which is removed at once.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!(".check-system-{}", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let times = write_and_sync(&file);
    std::fs::remove_file(&path)?;
    times
}

fn write_and_sync(mut file: &File) -> io::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.len() < WRITES && began.elapsed() < MEASURING {
        let write = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(write.elapsed());
    }
    times.sort();
    Ok(times)
}

/// The type of the directory's file system: that of the mount with the longest path above the
/// directory.
fn file_system(machine: &Machine, dir: &Path) -> String {
    let unknown = "unknown file system".to_string();
    let Ok(dir) = dir.canonicalize() else {
        return unknown;
    };
    let mounts = machine.read("proc/self/mountinfo").unwrap_or_default();
    let around = mounts.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let point = front.split(' ').nth(4)?;
        dir.starts_with(point)
            .then_some((point.len(), back.split(' ').next()?))
    });
    // If two mounts have the same mount point, the later one hides the earlier one.
    let nearest = around.max_by_key(|(len, _)| *len);
    nearest.map_or(unknown, |(_, name)| name.to_string())
}

/// A save needs free space of the data set's size, besides the file that it replaces.
pub fn space(_: &Machine, config: &Config) -> Finding {
    match nix::sys::statvfs::statvfs(DIR) {
        Err(_) => Finding::not_known(),
        Ok(disk) => judge_space(
            disk.blocks_available().saturating_mul(disk.fragment_size()),
            disk.blocks().saturating_mul(disk.fragment_size()),
            config,
        ),
    }
}

/// Judges the free bytes of a disk that has `total` bytes.
pub fn judge_space(free: u64, total: u64, config: &Config) -> Finding {
    let wanted = match config.maxmemory {
        0 => total / 20,
        maxmemory => maxmemory,
    };
    if free >= wanted {
        return Finding::fine(format!("{free} bytes free"));
    }
    Finding {
        level: Level::Danger,
        is: format!("{free} bytes free"),
        should_be: format!("{wanted} or more"),
        why: "When a save fails for want of space, writes are refused (stop-writes-on-bgsave-error).",
        mend: "dir /a/directory/on/a/larger/disk".into(),
    }
}
