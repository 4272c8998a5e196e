//! nodes.conf on the disk: written by a thread, so that the loop never waits for it.
//!
//! ```text
//!   loop ── Job { token, text, durable } ──> thread: temporary file, fsync, lock, rename, fsync of the folder
//!        <─ Done { token, lock } ──────────  and the loop is woken
//! ```
//!
//! If several jobs wait for the thread, it writes only the text of the last one. A new file is
//! locked before it is renamed, so a second server never finds nodes.conf unlocked.
//!
//! **Limits:** the thread writes no lines to the server's log: a child that is forked during such a
//! write would find the log's lock taken for ever.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::persist::aof::disk::Wake;
use crate::sys::process;

/// A text to be written.
struct Job {
    token: u64,
    text: String,
    durable: bool,
}

/// The result of a write: the lock of the new file.
pub struct Done {
    pub token: u64,
    pub result: io::Result<File>,
}

struct Queues {
    jobs: Sender<Job>,
    done: Receiver<Done>,
}

/// The file and the thread that writes it.
#[derive(Default)]
pub struct Disk {
    /// The absolute path; empty without a file, as in tests.
    path: PathBuf,
    lock: Option<File>,
    queues: Option<Queues>,
}

impl Disk {
    /// Sets the path and the lock of nodes.conf.
    pub fn set_file(&mut self, path: PathBuf, lock: File) {
        self.path = path;
        self.lock = Some(lock);
    }

    /// Writes the file at the start, before the loop runs.
    pub fn write_now(&mut self, text: &str) -> io::Result<()> {
        self.lock = Some(write(&self.path, text, true)?);
        Ok(())
    }

    /// Hands a text to the thread. Returns false if there is no file, so there will be no result.
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

    /// The token and the result of the next finished write, if there is one.
    pub fn try_done(&mut self) -> Option<(u64, io::Result<()>)> {
        let done = self.queues.as_ref()?.done.try_recv().ok()?;
        let result = done.result.map(|lock| self.lock = Some(lock));
        Some((done.token, result))
    }

    /// Closes the file of the lock in a forked child; the lock stays the parent's.
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

/// Replaces the file; returns the new one, locked.
fn write(path: &Path, text: &str, durable: bool) -> io::Result<File> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let replaced = replace(path, Path::new(&temporary), text, durable);
    if replaced.is_err() {
        // An error is ignored: the temporary file may not exist.
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
