//! Writes nodes.conf on a thread, so that the event loop never waits for the disk.
//!
//! ```text
//!   loop ── Job { token, text, durable } ──> thread: temporary file, fsync, lock, rename, fsync of the folder
//!        <─ Done { token, lock } ──────────  and the loop is woken
//! ```
//!
//! If several texts of nodes.conf wait for the thread, the thread writes only the last text. A new
//! nodes.conf is locked before it is renamed, so a second server never finds nodes.conf unlocked.
//!
//! **Limits:** the thread that writes nodes.conf writes no lines to the server's log: a child that
//! is forked during such a write would find the log's lock taken for ever.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::persist::aof::disk::Wake;
use crate::sys::process;

/// A text of nodes.conf that the thread must write.
struct Job {
    token: u64,
    text: String,
    durable: bool,
}

/// The result of a write of nodes.conf: the new file, whose lock this server has.
pub struct Done {
    pub token: u64,
    pub result: io::Result<File>,
}

struct Queues {
    jobs: Sender<Job>,
    done: Receiver<Done>,
}

/// The file nodes.conf, and the thread that writes it.
#[derive(Default)]
pub struct Disk {
    /// The absolute path of nodes.conf; empty if there is no file, as in tests.
    path: PathBuf,
    lock: Option<File>,
    queues: Option<Queues>,
}

impl Disk {
    /// Sets the path of nodes.conf, and the open file that has its lock.
    pub fn set_file(&mut self, path: PathBuf, lock: File) {
        self.path = path;
        self.lock = Some(lock);
    }

    /// Writes nodes.conf when the server starts, before the event loop runs.
    pub fn write_now(&mut self, text: &str) -> io::Result<()> {
        self.lock = Some(write(&self.path, text, true)?);
        Ok(())
    }

    /// Passes a text of nodes.conf to the thread. Returns false if there is no file, so that no
    /// result will follow.
    pub fn write(
        &mut self,
        (token, durable): (u64, bool),
        text: String,
        wake: Option<Wake>,
    ) -> io::Result<bool> {
        if self.path.as_os_str().is_empty() {
            return Ok(false);
        }
        let queues = match &self.queues {
            Some(queues) => queues,
            None => self.queues.insert(start(self.path.clone(), wake)?),
        };
        let job = Job {
            token,
            text,
            durable,
        };
        queues.jobs.send(job).map_err(io::Error::other)?;
        Ok(true)
    }

    /// The token and the result of the next finished write of nodes.conf, if there is one.
    pub fn try_done(&mut self) -> Option<(u64, io::Result<()>)> {
        let done = self.queues.as_ref()?.done.try_recv().ok()?;
        let result = done.result.map(|lock| self.lock = Some(lock));
        Some((done.token, result))
    }

    /// Closes the locked file in a forked child, so that only the parent keeps the lock.
    pub fn close_in_child(&mut self) {
        self.lock = None;
    }
}

fn start(path: PathBuf, wake: Option<Wake>) -> io::Result<Queues> {
    let (jobs, asked) = channel::<Job>();
    let (answer, done) = channel();
    thread::Builder::new()
        .name("bio_cluster".into())
        .spawn(move || {
            process::enter_background_cpus();
            while let Ok(mut job) = asked.recv() {
                while let Ok(next) = asked.try_recv() {
                    let durable = job.durable || next.durable;
                    job = Job { durable, ..next };
                }
                let result = write(&path, &job.text, job.durable);
                let token = job.token;
                if answer.send(Done { token, result }).is_err() {
                    return;
                }
                if let Some(wake) = &wake {
                    wake();
                }
            }
        })?;
    Ok(Queues { jobs, done })
}

/// Replaces nodes.conf; returns the new file, locked.
fn write(path: &Path, text: &str, durable: bool) -> io::Result<File> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let replaced = replace(path, Path::new(&temporary), text, durable);
    if replaced.is_err() {
        // An error of the removal is ignored, since the temporary file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

fn replace(path: &Path, temporary: &Path, text: &str, durable: bool) -> io::Result<File> {
    let mut file = File::create(temporary)?;
    file.write_all(text.as_bytes())?;
    file.try_lock().map_err(io::Error::from)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(temporary, path)?;
    if let Some(folder) = path.parent().filter(|_| durable) {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}
