//! A disk that fails: a shim (`shim/bad_disk.c`), compiled here, between the server and libc.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, find_peer};

/// A directory on a disk that can be made to fail.
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Compiles the shim and creates the directory. `None` if there is no C compiler.
    pub fn new(name: &str) -> Option<Disk> {
        find_peer("cc")?;
        let dir = std::env::temp_dir().join(format!("aeris-disk-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("data")).expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/bad_disk.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.join("bad_disk.so"))
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(built.expect("cc runs").success());
        Some(Disk { dir })
    }

    /// A server on this disk, with an AOF.
    pub fn server(&self, policy: &str) -> Peer {
        Peer::aeris_with(&self.args(policy), |command| {
            self.prepare(command, &self.dir.join("data"));
        })
    }

    /// Loads the shim into a program (LD_PRELOAD); operations on files below `dir` can then fail.
    pub fn prepare(&self, command: &mut Command, dir: &Path) {
        command
            .env("LD_PRELOAD", self.dir.join("bad_disk.so"))
            .env("BAD_DISK_DIR", dir)
            .env("BAD_DISK_FLAG", self.dir.join("flag"));
    }

    /// The path of a log file whose writes never fail.
    pub fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// A server on the same directory whose disk does not fail.
    pub fn healthy_server(&self) -> Peer {
        Peer::aeris(&self.args("everysec"))
    }

    fn args<'a>(&'a self, policy: &'a str) -> [&'a str; 6] {
        let data = self.dir.join("data");
        let data: &str = Box::leak(data.to_string_lossy().into_owned().into_boxed_str());
        [
            "--dir",
            data,
            "--appendonly",
            "yes",
            "--appendfsync",
            policy,
        ]
    }

    /// Makes the disk fail in the manner that `how` names; `shim/bad_disk.c` lists the possible
    /// words.
    pub fn fail(&self, how: &str) {
        let new = self.dir.join("flag.new");
        std::fs::write(&new, how).expect("a file");
        std::fs::rename(new, self.dir.join("flag")).expect("a name");
    }

    /// Makes the disk work again.
    pub fn recover(&self) {
        std::fs::remove_file(self.dir.join("flag")).expect("it was failing");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
