//! Propagation: what the AOF and the replicas are told, decided in one place, once for each command.
//!
//! A command that changed something is told as it was sent, unless it said what to tell instead
//! (`Ctx::rewrite`: relative times, random choices) or in addition (`Ctx::also_propagate`, expired keys).
//! Everything from one command, or from one EXEC or script, is one unit: more than one entry is wrapped in
//! MULTI and EXEC.

use crate::commands::command::Command;
use crate::networking::client::{Client, OwnedArgv, flag};
use crate::state::Server;

#[derive(Default)]
pub struct Propagation {
    /// Somebody listens: an AOF, or replicas.
    pub sinks: bool,
    /// What the running command wants told instead of itself.
    pub rewrite: Option<OwnedArgv>,
    /// The unit being collected: (db, command).
    pub queue: Vec<(u32, OwnedArgv)>,
}

impl Propagation {
    pub fn wanted(&self) -> bool {
        self.sinks
    }

    pub fn also<A: AsRef<[u8]>>(&mut self, db: u32, argv: &[A]) {
        if self.sinks {
            self.queue.push((db, OwnedArgv::new(argv)));
        }
    }
}

impl Server {
    /// An expired or evicted key is told as a deletion.
    pub fn propagate_deletion(&mut self, db: u32, key: &[u8], lazy: bool) {
        let verb: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
        self.propagation.also(db, &[verb, key]);
    }
}

/// After a command: if it changed something, tell.
pub fn after_call(server: &mut Server, c: &mut Client, argv: &[&[u8]], cmd: &Command, dirty: u64) {
    let rewrite = server.propagation.rewrite.take();
    let changed = server.dirty != dirty;
    if changed && !c.has(flag::PREVENT_PROPAGATION) && cmd.name != "exec" {
        let told = rewrite.unwrap_or_else(|| OwnedArgv::new(argv));
        server.propagation.queue.push((c.db, told));
    }
    c.clear(flag::PREVENT_PROPAGATION);
}
