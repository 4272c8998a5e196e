//! Simulates crashes of the server and of the machine at every step of generated histories of the
//! AOF's files.
//!
//! ```text
//!   CrashFile   live      what the kernel has: survives the death of the process
//!               durable   what was synced: survives the death of the machine
//! ```
//!
//! A history is a sequence of operations on the files of the AOF: bytes are appended, in several
//! writes, and synced. After each step the process may crash (the file has the content `live`) or
//! the machine (the content `durable` is certain; of the other bytes any prefix may have been
//! written, with the last block full of zeros). After a crash, the files must load to a state of
//! the data set that existed, and that is not older than `appendfsync` promises.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::feed::Feed;
use super::reader::{AofReader, Fault, Item};
use crate::client::Client;
use crate::client::resp::Sent;
use crate::config::Config;
use crate::execute::call::call;
use crate::execute::dispatch::find_command;
use crate::propagate::sink;
use crate::state::Server;

/// A file of the AOF in the simulation: all written bytes, and how many of them are synced.
#[derive(Default)]
struct CrashFile {
    live: Vec<u8>,
    durable: usize,
}

#[derive(Clone, Debug)]
enum Step {
    /// A command, or a transaction of several commands, changes keys `k0`.. and is fed to the AOF's
    /// buffer in its propagated form.
    Commands(Vec<(u8, u8)>),
    /// A share of the AOF's buffer is written to the file; the rest is written later.
    Write(f64),
    Sync,
    /// A rewrite of the AOF opens the next incremental file.
    Switch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = (0..4u8, 0..5u8);
    let step = prop_oneof![
        4 => proptest::collection::vec(command, 1..4).prop_map(Step::Commands),
        3 => (0.0..1.0f64).prop_map(Step::Write),
        2 => Just(Step::Write(1.0)),
        2 => Just(Step::Sync),
        1 => Just(Step::Switch),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The values of the keys `k0`..`k3`, by which states of the data set are compared.
type Model = Vec<Vec<u8>>;

fn apply(model: &mut Model, key: u8, kind: u8) {
    let value = &mut model[key as usize];
    match kind {
        0 => value.clear(),
        n => value.push(b'0' + n),
    }
}

fn command(key: u8, kind: u8) -> Vec<Vec<u8>> {
    let name = format!("k{key}").into_bytes();
    match kind {
        0 => vec![b"DEL".to_vec(), name],
        n => vec![b"APPEND".to_vec(), name, vec![b'0' + n]],
    }
}

/// The AOF under test: the server's own buffer (`Feed`), with vectors in place of files.
struct Sim {
    server: Server,
    feed: Feed,
    files: Vec<CrashFile>,
    /// The state of the data set after each command or transaction, and the offset at which its
    /// bytes end.
    states: VecDeque<(u64, Model)>,
}

impl Sim {
    fn new() -> Sim {
        let mut sim = Sim {
            server: Server::new(Config::default(), Vec::new()),
            feed: Feed::default(),
            files: Vec::new(),
            states: VecDeque::from([(0, vec![Vec::new(); 4])]),
        };
        sim.switch();
        sim
    }

    fn switch(&mut self) {
        // `Feed` needs a file for the writer thread, which does not run here; so any file will do.
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        self.feed.switch_to(std::sync::Arc::new(null), 0);
        self.files.push(CrashFile::default());
    }

    fn commands(&mut self, commands: &[(u8, u8)]) {
        self.server.propagation.set_sink(sink::AOF, true);
        let mut model = self.states[self.states.len() - 1].1.clone();
        for &(key, kind) in commands {
            self.server.propagation.also(0, &command(key, kind));
            apply(&mut model, key, kind);
        }
        let unit = self.server.propagation.take_unit();
        self.feed.unit(&unit, true, None);
        self.states.push_back((self.feed.fed, model));
    }

    /// The index in `files` of the file to which the AOF's buffer is written next.
    fn front_file(&self) -> usize {
        self.files.len() - self.feed.files()
    }

    fn write(&mut self, share: f64) {
        self.feed.front(|_| {});
        let at = self.front_file();
        let Some((_, bytes, _)) = self.feed.take_front() else {
            return;
        };
        let written = (bytes.len() as f64 * share) as usize;
        self.files[at].live.extend_from_slice(&bytes[..written]);
        self.feed.wrote(bytes, written);
    }

    fn sync(&mut self) {
        for file in &mut self.files {
            file.durable = file.live.len();
        }
        self.feed.synced = self.feed.written;
    }

    /// The index of the oldest state that may exist after a crash: the newest state whose bytes end
    /// at or before `offset`.
    fn promised(&self, offset: u64) -> usize {
        self.states
            .iter()
            .rposition(|(end, _)| *end <= offset)
            .unwrap_or(0)
    }
}

/// Loads AOF files as the server does: each whole command and transaction, up to a torn tail of the
/// last file.
fn load(files: &[Vec<u8>]) -> Result<Model, String> {
    let mut server = Server::new(Config::default(), Vec::new());
    let mut client = super::load::loader(&mut server);
    let last = files.len() - 1;
    for (at, bytes) in files.iter().enumerate() {
        let mut reader = AofReader::new(&bytes[..], 0, bytes.len() as u64);
        loop {
            match reader.next_item() {
                Ok(Item::End) => break,
                Ok(Item::Command) => {
                    let argv = reader.argv();
                    let id = find_command(&server, &argv).map_err(|e| e.text().to_string())?;
                    super::load::run(&mut server, &mut client, &argv, id);
                }
                Ok(_) => {}
                Err(Fault::Truncated) if at == last => break,
                Err(fault) => return Err(format!("file {at} of {}: {fault:?}", files.len())),
            }
        }
    }
    Ok((0..4).map(|key| get(&mut server, key)).collect())
}

fn get(server: &mut Server, key: u8) -> Vec<u8> {
    let mut client = Client::detached(0, 0);
    let name = format!("k{key}");
    let argv: [&[u8]; 2] = [b"GET", name.as_bytes()];
    let id = server.commands.lookup(argv[0]).expect("GET");
    call(server, &mut client, &argv, id, Sent::default());
    let reply = client.reply.take_bytes();
    let body = reply.splitn(2, |&b| b == b'\n').nth(1).unwrap_or_default();
    body.strip_suffix(b"\r\n").unwrap_or_default().to_vec()
}

/// Checks that the loaded state equals a state of the history, not an older one than the state with
/// the index `at_least`.
fn check(sim: &Sim, files: &[Vec<u8>], at_least: usize, when: &str) -> Result<(), TestCaseError> {
    let loaded = load(files).map_err(|e| TestCaseError::fail(format!("{when}: {e}")))?;
    let allowed = sim
        .states
        .iter()
        .skip(at_least)
        .any(|(_, state)| *state == loaded);
    prop_assert!(
        allowed,
        "{}: {:?} after state {} of {:?}",
        when,
        loaded,
        at_least,
        sim.states
    );
    Ok(())
}

/// A content that a file may have after a crash of the machine: all synced bytes, a part of the
/// other bytes, and zeros.
fn torn(file: &CrashFile, share: f64, zeros: usize) -> Vec<u8> {
    let unsure = file.live.len() - file.durable;
    let kept = file.durable + (unsure as f64 * share) as usize;
    let mut bytes = file.live[..kept].to_vec();
    bytes.resize(kept + zeros.min(file.live.len() - kept), 0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_crash_at_any_instant_loads_to_what_was_promised(
        steps in steps(), share in 0.0..1.0f64, zeros in 0..40usize,
    ) {
        let mut sim = Sim::new();
        for step in steps {
            match step {
                Step::Commands(commands) => sim.commands(&commands),
                Step::Write(share) => sim.write(share),
                Step::Sync => sim.sync(),
                Step::Switch => {
                    // The previous file is complete and synced before the manifest names the next
                    // file.
                    while sim.feed.pending() > 0 {
                        sim.write(1.0);
                    }
                    sim.sync();
                    sim.switch();
                }
            }
            let live: Vec<Vec<u8>> = sim.files.iter().map(|file| file.live.clone()).collect();
            check(&sim, &live, sim.promised(sim.feed.written), "the process died")?;
            let left: Vec<Vec<u8>> = sim.files.iter().map(|file| torn(file, share, zeros)).collect();
            check(&sim, &left, sim.promised(sim.feed.synced), "the machine died")?;
        }
    }
}
